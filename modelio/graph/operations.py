"""The op table: what every TensorFlow op takes and gives, with its attributes, their defaults and its age.

A NodeDef is not self-contained. An attribute that equals its default may be left out of the file, the dtypes of a
node's outputs follow from its attributes by rules that only the op knows, and inside a function a tensor is named after
the op's output (``"node:output_false:0"``). TensorFlow looks all of this up in its registry; this module looks it up in
``operations.json.gz``, one JSON array a line, in the notation of ``REGISTER_OP``::

    ["0.12.1", ..., "2.21.0"]                                        the releases sampled
    ["AssignAdd", 0, 11, 0, ["ref: Ref(T)", "value: T"], ["output_ref: Ref(T)"], {"T": "type", ...}]
      name        |   |  |    inputs                       outputs                 attributes: type, or [type, default]
                  |   |  '- stateful
                  |   '- the last release sampled that has it
                  '- the first

An argument is ``name: T`` (one tensor, its dtype in attribute T), ``name: float32`` (a fixed dtype), ``name: N * T`` (N
tensors of one dtype) or ``name: Tin`` where Tin is a ``list(type)`` (a tensor for each). A line is decoded when its op
is first asked for. ``tools/compile_operations.py`` makes the file from a sample of the registries.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import gzip
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from modelio.errors import ReadError, UnsafeInput
from modelio.wire.dtypes import dtype_name

__all__ = [
    "REQUIRED",
    "Argument",
    "Attribute",
    "Operation",
    "Required",
    "attribute_value",
    "dtype_name",
    "flat_index",
    "op",
    "operation_of",
    "output_arity",
    "output_dtypes",
    "versions",
]

_MOST_TENSORS = 1 << 16
"""More outputs than this on one node is a lie: a list would be made of them, and none could be used."""


class Required(enum.Enum):
    """The default of an attribute that has none (None already means: a shape of unknown rank)."""

    REQUIRED = "REQUIRED"

    def __repr__(self) -> str:
        return self.value


REQUIRED: Final = Required.REQUIRED


class Attribute(NamedTuple):
    """An attribute's type, as TensorFlow spells it (``"type"``, ``"list(int)"``, ``"func"``), and its default.

    Values are Python's: a dtype is its name, a list a tuple, a shape a tuple of sizes with None for an unknown one
    (None itself: the rank is unknown), a string ``str`` (``bytes`` where it is no UTF-8), a function its name, the
    default of a tensor ``{"dtype", "shape", "values"}``.
    """

    type: str
    default: Any = REQUIRED


class Argument(NamedTuple):
    """One input or output of an op, which may be one tensor or several.

    Just one of ``dtype`` (fixed), ``type_attr`` (an attribute holds it) and ``type_list_attr`` (an attribute holds one
    for each tensor) is set; ``number_attr`` names the attribute that holds the number of tensors.
    """

    name: str
    dtype: str | None = None
    type_attr: str | None = None
    number_attr: str | None = None
    type_list_attr: str | None = None
    is_ref: bool = False


@dataclass(frozen=True)
class Operation:
    """What an op takes and gives, as the newest release that has it registers it.

    ``since`` and ``last_seen`` are the first and the last release sampled that have the op; empty for a function or an
    op that the file itself defines. ``attrs`` in the methods is the ``attr`` map of a NodeDef; what it leaves out is
    the default.
    """

    name: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    attrs: Mapping[str, Attribute]
    since: str = ""
    last_seen: str = ""
    stateful: bool = False

    @classmethod
    def of(cls, definition: Any) -> Operation:
        """The operation that an ``OpDef`` message describes: a function's signature, or a custom op's definition."""
        return cls(
            name=definition.name,
            inputs=tuple(_from_message(row) for row in definition.input_arg),
            outputs=tuple(_from_message(row) for row in definition.output_arg),
            attrs={
                row.name: Attribute(row.type, _python(row.default_value) if row.HasField("default_value") else REQUIRED)
                for row in definition.attr
            },
            stateful=definition.is_stateful,
        )

    def value(self, attrs: Mapping[str, Any], name: str) -> Any:
        """An attribute of a node as a Python value (see :class:`Attribute`), or its default.

        Raises:
            ReadError: it is absent and has no default.
        """
        if name in attrs:
            return _python(attrs[name])
        attribute = self.attrs.get(name)
        if attribute is None or attribute.default is REQUIRED:
            raise ReadError(f"the attribute {name!r} of the op {self.name} is missing, and it has no default")
        return attribute.default

    def input_dtypes(self, attrs: Mapping[str, Any]) -> tuple[str, ...]:
        """The dtype of each data input in order; a reference's ends in ``_ref``."""
        return tuple(dtype for argument in self.inputs for dtype in self.dtypes(argument, attrs))

    def output_dtypes(self, attrs: Mapping[str, Any]) -> tuple[str, ...]:
        """The dtype of each output in order; a reference's ends in ``_ref``."""
        return tuple(dtype for argument in self.outputs for dtype in self.dtypes(argument, attrs))

    def output_arity(self, attrs: Mapping[str, Any]) -> int:
        """How many outputs a node of this op has."""
        return sum(self.count(argument, attrs) for argument in self.outputs)

    def flat_index(self, attrs: Mapping[str, Any], argument_name: str, index: int) -> int:
        """Where ``"node:argument_name:index"`` stands among the node's outputs.

        Raises:
            ReadError: the op has no such output, or not that many tensors in it.
        """
        position = 0
        for argument in self.outputs:
            count = self.count(argument, attrs)
            if argument.name == argument_name:
                if 0 <= index < count:
                    return position + index
                raise ReadError(
                    f"the output {argument_name!r} of the op {self.name} holds {count} tensors, no number {index}"
                )
            position += count
        raise ReadError(f"the op {self.name} has no output {argument_name!r}")

    def count(self, argument: Argument, attrs: Mapping[str, Any]) -> int:
        """How many tensors an argument stands for."""
        if argument.number_attr:
            number = self.value(attrs, argument.number_attr)
            if not isinstance(number, int):
                raise ReadError(f"the attribute {argument.number_attr!r} of the op {self.name} is no number")
            if not 0 <= number <= _MOST_TENSORS:
                raise UnsafeInput(
                    f"the attribute {argument.number_attr!r} of the op {self.name} asks for {number:,} tensors"
                )
            return number
        if argument.type_list_attr:
            return len(self._dtype_list(argument.type_list_attr, attrs))
        return 1

    def dtypes(self, argument: Argument, attrs: Mapping[str, Any]) -> tuple[str, ...]:
        """The dtype of each tensor of an argument."""
        names: tuple[str, ...]
        if argument.type_list_attr:
            names = self._dtype_list(argument.type_list_attr, attrs)
        else:
            one = argument.dtype or self.value(attrs, argument.type_attr or "")
            if not isinstance(one, str):
                raise ReadError(f"the attribute {argument.type_attr!r} of the op {self.name} is no dtype")
            names = (one,) * self.count(argument, attrs)
        if argument.is_ref:
            return tuple(name if name.endswith("_ref") else name + "_ref" for name in names)
        return names

    def _dtype_list(self, name: str, attrs: Mapping[str, Any]) -> tuple[str, ...]:
        names = self.value(attrs, name)
        if not isinstance(names, tuple) or not all(isinstance(item, str) for item in names):
            raise ReadError(f"the attribute {name!r} of the op {self.name} is no list of dtypes")
        return names


def op(name: str) -> Operation | None:
    """The op of that name; None where no sampled release of TensorFlow has it.

    >>> op("MatMul").attrs["transpose_a"]
    Attribute(type='bool', default=False)
    >>> op("AddV2").since, op("NoSuchOp")
    ('1.8.0', None)
    """
    return _operation(name)


def versions() -> tuple[str, ...]:
    """The TensorFlow releases whose registries were sampled, oldest first."""
    return _table()[0]


def operation_of(node: Any, library: Mapping[str, Operation] | None = None) -> Operation:
    """The operation of a NodeDef; the file's own functions and ops, ``library``, come first, as in TensorFlow.

    Raises:
        ReadError: neither has it.
    """
    found = (library or {}).get(node.op) or op(node.op)
    if found is None:
        raise ReadError(
            f"the op {node.op!r} is neither one of TensorFlow's (up to {versions()[-1]}) nor defined in this file",
            where=node.name,
        )
    return found


def output_dtypes(node: Any, library: Mapping[str, Operation] | None = None) -> tuple[str, ...]:
    """The dtypes of a NodeDef's outputs in order, from its attributes and their defaults."""
    with _at(node):
        return operation_of(node, library).output_dtypes(node.attr)


def output_arity(node: Any, library: Mapping[str, Operation] | None = None) -> int:
    """How many outputs a NodeDef has."""
    with _at(node):
        return operation_of(node, library).output_arity(node.attr)


def flat_index(operation: Operation, attrs: Mapping[str, Any], argument_name: str, index: int) -> int:
    """Where the function-internal name ``"node:argument_name:index"`` stands among the node's outputs."""
    return operation.flat_index(attrs, argument_name, index)


def attribute_value(node: Any, name: str, library: Mapping[str, Operation] | None = None) -> Any:
    """An attribute of a NodeDef as a Python value (see :class:`Attribute`), or the op's default."""
    if name in node.attr:
        return _python(node.attr[name])
    with _at(node):
        return operation_of(node, library).value(node.attr, name)


@contextlib.contextmanager
def _at(node: Any) -> Iterator[None]:
    """Say which node an error is about."""
    try:
        yield
    except ReadError as error:
        error.where = error.where or node.name
        raise


@functools.cache
def _table() -> tuple[tuple[str, ...], dict[str, bytes]]:
    with gzip.open(os.path.join(os.path.dirname(__file__), "operations.json.gz")) as file:
        lines = file.read().split(b"\n")
    # A line starts with ["Name", : the name is cut out, the rest stays undecoded.
    return tuple(json.loads(lines[0])), {line[2 : line.index(b'"', 2)].decode(): line for line in lines[1:]}


@functools.cache
def _operation(name: str) -> Operation | None:
    releases, lines = _table()
    if name not in lines:
        return None
    _, since, last_seen, stateful, inputs, outputs, rows = json.loads(lines[name])
    attrs = {key: Attribute(row) if isinstance(row, str) else Attribute(*_frozen(row)) for key, row in rows.items()}
    return Operation(
        name=name,
        inputs=tuple(_from_text(text, attrs) for text in inputs),
        outputs=tuple(_from_text(text, attrs) for text in outputs),
        attrs=attrs,
        since=releases[since],
        last_seen=releases[last_seen],
        stateful=bool(stateful),
    )


def _from_text(text: str, attrs: Mapping[str, Attribute]) -> Argument:
    """``"xs: Ref(N * T)"``."""
    name, spec = text.split(": ")
    is_ref = spec.startswith("Ref(")
    if is_ref:
        spec = spec[len("Ref(") : -1]
    number, _, kind = spec.rpartition(" * ")
    attribute = attrs.get(kind)
    return Argument(
        name=name,
        dtype=kind if attribute is None else None,
        type_attr=kind if attribute and attribute.type == "type" else None,
        number_attr=number or None,
        type_list_attr=kind if attribute and attribute.type == "list(type)" else None,
        is_ref=is_ref,
    )


def _from_message(row: Any) -> Argument:
    return Argument(
        name=row.name,
        dtype=dtype_name(row.type) if row.type else None,
        type_attr=row.type_attr or None,
        number_attr=row.number_attr or None,
        type_list_attr=row.type_list_attr or None,
        is_ref=row.is_ref,
    )


def _python(message: Any) -> Any:
    """An ``AttrValue`` message as a Python value; a tensor stays a message.

    None: it is empty, or the name of an attribute of the function around it, known only where that is called.
    """
    field = message.WhichOneof("value")
    if field == "list":
        return tuple(_VALUES[kind](item) for kind in _VALUES for item in getattr(message.list, kind, ()))
    return _VALUES[field](getattr(message, field)) if field in _VALUES else None


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value  # a serialized message, as in config_proto


def _shape(message: Any) -> tuple[int | None, ...] | None:
    if message.unknown_rank:
        return None
    return tuple(None if dimension.size < 0 else dimension.size for dimension in message.dim)


def _frozen(value: Any) -> Any:
    """Lists of JSON as tuples: a default is shared by everybody who asks for it."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


_VALUES: Final[Mapping[str, Any]] = {
    "s": _text,
    "i": int,
    "f": float,
    "b": bool,
    "type": dtype_name,
    "shape": _shape,
    "tensor": lambda message: message,
    "func": lambda message: message.name,
}
