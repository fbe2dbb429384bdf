"""Write nodes the way one writes mathematics: ``g.BiasAdd(g.MatMul(x, w), b)``.

Every op of TensorFlow is a method. The op table says which arguments it takes and which attributes it has: dtypes and
counts are inferred from the inputs, plain numbers become constants of the right dtype, attributes that equal their
default are left out (so that an older TensorFlow, which does not know a newer attribute, takes the node), and shapes
are followed (:mod:`modelio.graph.shapes`). A wrong call is a :class:`TypeError` here, not a graph that fails elsewhere.

>>> g = Builder()
>>> x = g.placeholder("x", "float32", (None, 3))
>>> y = g.Mul(x, 2.0, name="double")
>>> y
Value('double:0', float32, (None, 3))
>>> [node.name for node in g.graph.node]
['x', 'double/y', 'double']
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from modelio.graph import shapes, tables
from modelio.graph.names import legal_name
from modelio.graph.operations import REQUIRED, Argument, Operation, op
from modelio.model import Message, Tensor
from modelio.wire import dtypes, messages
from modelio.wire.dtypes import dtype_number

__all__ = ["Builder", "Frame", "Shape", "Value"]

Shape = shapes.Shape

Operand = Any
"""A :class:`Value`, or a number, list or array that becomes a constant."""

SPELLED_OUT = {
    "StridedSlice": ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"),
}
"""Attributes that are written even where they equal their default: OpenCV 5 reads them and knows no defaults."""

CONSTANT_LIMIT = 1 << 16
"""Bytes from which on a constant's content is kept beside the graph (:attr:`modelio.model.GraphModel.constants`)."""


@dataclass(frozen=True)
class Value:
    """One tensor of the graph: its name, dtype and static shape, and its numbers where they are known.

    ``shape`` has None for an unknown size and is None where the rank is unknown; ``constant`` holds the array of a
    small constant, so that shapes computed from constants are known.
    """

    name: str
    dtype: str
    shape: Shape
    constant: npt.NDArray[Any] | None = None

    @property
    def rank(self) -> int | None:
        """Number of dimensions, None where unknown."""
        return None if self.shape is None else len(self.shape)

    def __repr__(self) -> str:
        return f"Value({self.name!r}, {self.dtype}, {self.shape})"


class Frame(Protocol):
    """The part of the graph that nodes belong to while a loop's condition or body is written (:mod:`.loops`)."""

    def inside(self, value: Value) -> Value:
        """The value as nodes of this part may use it."""

    def made(self, node: Message, outputs: Sequence[Value]) -> None:
        """Take note of a node that was made here."""


class Builder:
    """A graph under construction.

    ``graph`` is the GraphDef message, ``variables`` and ``constants`` hold the tensors that belong to it, as in
    :class:`~modelio.model.GraphModel`; ``initializers`` names the nodes that have to run once before all others.
    """

    def __init__(self) -> None:
        self.graph: Message = messages.GraphDef()
        self.variables: dict[str, Tensor] = {}
        self.constants: dict[str, Tensor] = {}
        self.placeholders: list[str] = []
        self.initializers: list[str] = []
        self._tables: dict[str, Value] = {}
        self.frame: Frame | None = None
        self._names: set[str] = set()
        self._scopes: set[str] = set()
        self._scope = ""

    def __getattr__(self, name: str) -> Callable[..., Value]:
        # What an op with several outputs returns is a tuple all the same: write that as g.node("Split", ...).
        if op(name) is None:
            raise AttributeError(f"TensorFlow has no op {name}")

        def call(*inputs: Operand, name: str | None = None, **attrs: Any) -> Any:
            return self.node(operation, *inputs, name=name, **attrs)

        operation = name
        return call

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[str]:
        """Nodes made inside are named ``name/...``; a scope that is taken gets ``_1``, ``_2``, ..."""
        outer = self._scope
        self._scope = _unique(outer + legal_name(name), self._scopes) + "/"
        try:
            yield self._scope
        finally:
            self._scope = outer

    @contextlib.contextmanager
    def within(self, frame: Frame | None) -> Iterator[None]:
        """Nodes made inside belong to a loop's frame, or to none."""
        outer, self.frame = self.frame, frame
        try:
            yield
        finally:
            self.frame = outer

    def placeholder(self, name: str, dtype: str, shape: Shape) -> Value:
        """A value that the caller feeds. ``name`` is taken as it is, outside of every scope."""
        node = self._add("Placeholder", self._free(legal_name(name)))
        self.placeholders.append(node.name)
        node.attr["dtype"].type = dtype_number(dtype)
        _set(node.attr["shape"], "shape", shape)
        return Value(f"{node.name}:0", dtype, shape)

    def output(self, name: str, value: Value) -> Value:
        """An Identity with that name, outside of every scope: the end of the graph that people look for."""
        with self._outside():
            made: Value = self.node("Identity", value, name=name)
        return made

    def variable(self, name: str, tensor: Tensor) -> Value:
        """The value of a variable that a checkpoint restores; ``name`` is its key there and its node's name.

        A resource variable (VarHandleOp, ReadVariableOp: in TensorFlow since 0.12): unlike a reference it can be read
        while it is written, and XLA takes it.
        """
        dtype = dtypes.dtype_name(dtypes.dtype_number(tensor.dtype))
        key = self._free(legal_name(name))
        handle = self._add("VarHandleOp", key)
        handle.attr["dtype"].type = dtype_number(dtype)
        _set(handle.attr["shape"], "shape", tensor.shape)
        handle.attr["shared_name"].s = key.encode()
        self.variables[key] = tensor
        with self._outside(), self.within(None):
            resource = Value(f"{key}:0", "resource", ())
            read: Value = self.node("ReadVariableOp", resource, name=f"{key}/Read/ReadVariableOp", dtype=dtype)
        return Value(read.name, dtype, tensor.shape)

    def table(self, name: str, keys: npt.NDArray[Any], values: npt.NDArray[Any]) -> Value:
        """The handle of a table from ``keys`` to ``values``, filled when the model is loaded.

        The name of its resource is told by its content: TensorFlow 2 keeps one resource of a name for all models of a
        process.
        """
        content = tables.digest(keys, values)
        if content not in self._tables:
            with self.scope(name) as scope:
                key, value = self.constant(keys, name="keys"), self.constant(values, name="values")
                handle: Value = self.node(
                    "HashTableV2",
                    name="table",
                    key_dtype=key.dtype,
                    value_dtype=value.dtype,
                    shared_name=f"{scope}{content}",
                )
                self.initializers.append(self.action("InitializeTableV2", handle, key, value, name="initializer"))
            self._tables[content] = handle
        return self._tables[content]

    def action(self, operation: str, *inputs: Operand, name: str | None = None, **attrs: Any) -> str:
        """The name of a new node of an op that has no outputs."""
        self.node(operation, *inputs, name=name, **attrs)
        return str(self.graph.node[-1].name)

    def after(self, value: Value, *actions: str) -> Value:
        """``value``, once these nodes have run."""
        made: Value = self.node("Identity", value)
        self.graph.node[-1].input.extend(f"^{action}" for action in actions)
        return made

    def start(self) -> str | None:
        """The name of a node that runs all initializers; None where there are none."""
        if not self.initializers:
            return None
        with self._outside():
            name = self.action("NoOp", name="init_all_tables")
        self.graph.node[-1].input.extend(f"^{initializer}" for initializer in self.initializers)
        return name

    def constant(self, value: npt.ArrayLike, dtype: str | None = None, *, name: str = "Const") -> Value:
        """A constant. ``dtype`` is a name of TensorFlow's; left out, the array's own, with Python floats as float32
        and Python integers as int32, as TensorFlow takes them.
        """
        if dtype is None:
            array = np.asarray(value)
            if not isinstance(value, (np.ndarray, np.generic)) and array.dtype.kind in "fi":
                array = array.astype({"f": np.float32, "i": np.int32}[array.dtype.kind])
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # a number beyond float16 is infinite there
                array = np.asarray(value, dtypes.numpy_dtype(dtype_number(dtype)))
        if array.dtype.kind in "SU":
            array = np.asarray(np.char.encode(array) if array.dtype.kind == "U" else array, object)
        number = dtype_number(array.dtype)
        node = self._add("Const", self._free(self._scope + legal_name(name)))
        node.attr["dtype"].type = number
        if array.dtype != object and array.nbytes >= CONSTANT_LIMIT:
            node.attr["value"].tensor.CopyFrom(dtypes.cut_tensor(number, array.shape))
            self.constants[node.name] = Tensor.of(array)
        else:
            node.attr["value"].tensor.CopyFrom(dtypes.numpy_to_tensor(array))
        known = array if array.size <= shapes.KNOWN_LIMIT else None
        made = Value(f"{node.name}:0", dtypes.dtype_name(number), array.shape, known)
        if self.frame is not None:
            self.frame.made(node, [made])
        return made

    def node(self, operation: str, *inputs: Operand, name: str | None = None, **attrs: Any) -> Any:
        """A node of the op named ``operation``.

        Args:
            operation: the op, as TensorFlow spells it.
            inputs: one for each of the op's arguments; a list where the argument is a list.
            name: last part of the node's name; left out, the op's name.
            attrs: attributes that do not follow from the inputs: dtypes as names, shapes as tuples, strings as ``str``.

        Returns:
            The :class:`Value` of an op with one output, a tuple of them otherwise (empty where there is none).
        """
        definition = op(operation)
        if definition is None:
            raise TypeError(f"TensorFlow has no op {operation}")
        unknown = sorted(set(attrs) - set(definition.attrs))
        if unknown:
            raise TypeError(f"the op {operation} has no attribute {', '.join(unknown)}")
        if len(inputs) != len(definition.inputs):
            names = ", ".join(argument.name for argument in definition.inputs) or "none"
            raise TypeError(f"the op {operation} takes {len(definition.inputs)} inputs ({names}), not {len(inputs)}")
        full = self._free(self._scope + legal_name(name or operation))
        _infer(definition, inputs, attrs)
        values: list[Value] = []
        for argument, operand in zip(definition.inputs, inputs, strict=True):
            values += self._operands(definition, argument, operand, attrs, full)
        if self.frame is not None:
            values = [self.frame.inside(value) for value in values]
        node = self._add(operation, full)
        node.input.extend(_short(value.name) for value in values)
        _write_attrs(node, definition, attrs)
        kinds = definition.output_dtypes(node.attr)
        found = shapes.infer(operation, values, {**_defaults(definition), **attrs}, len(kinds))
        outputs = tuple(
            Value(f"{full}:{index}", kind, shape, constant)
            for index, (kind, (shape, constant)) in enumerate(zip(kinds, found, strict=True))
        )
        if self.frame is not None:
            self.frame.made(node, outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def cast(self, value: Value, dtype: str) -> Value:
        """``value`` as ``dtype``; itself where it is that already."""
        if value.dtype == dtype:
            return value
        made: Value = self.node("Cast", value, DstT=dtype)
        return made

    def shape_of(self, value: Value) -> Value:
        """The shape as an int32 vector: a constant where it is known."""
        if value.shape is not None and None not in value.shape:
            return self.constant(np.asarray(value.shape, np.int32), name="shape")
        made: Value = self.node("Shape", value)
        return made

    def sizes(self, value: Value) -> list[int | Value]:
        """Each dimension: a number where it is known, a scalar int32 value where it is not. The rank must be known."""
        if value.shape is None:
            raise TypeError(f"the rank of {value.name} is unknown")
        if None not in value.shape:
            return list(value.shape)  # type: ignore[arg-type]  # None was just excluded
        shape = self.shape_of(value)
        return [
            size if size is not None else self.node("StridedSlice", shape, [axis], [axis + 1], [1], shrink_axis_mask=1)
            for axis, size in enumerate(value.shape)
        ]

    def vector(self, sizes: Sequence[int | Value]) -> Value:
        """Sizes as an int32 vector, for Reshape, Tile, Fill and their kin."""
        if all(isinstance(size, int) for size in sizes):
            return self.constant(np.asarray(sizes, np.int32), name="shape")
        parts = [size if isinstance(size, Value) else self.constant(size, "int32") for size in sizes]
        made: Value = self.node("Pack", parts)
        return made

    def reshape(self, value: Value, sizes: Sequence[int | Value]) -> Value:
        """``value`` in another shape; the one size that is unknown, if there is only one, is left to TensorFlow."""
        unknown = [index for index, size in enumerate(sizes) if isinstance(size, Value)]
        if len(unknown) == 1 and -1 not in sizes and 0 not in sizes:
            sizes = [-1 if index == unknown[0] else size for index, size in enumerate(sizes)]
        made: Value = self.node("Reshape", value, self.vector(sizes))
        return made

    def _operands(
        self, definition: Operation, argument: Argument, operand: Operand, attrs: Mapping[str, Any], full: str
    ) -> list[Value]:
        """The values of one argument, with plain numbers made constants, and their dtypes checked."""
        many = argument.number_attr or argument.type_list_attr
        operands = list(operand) if many else [operand]
        if argument.type_list_attr:
            wanted = list(attrs[argument.type_list_attr])
        else:
            wanted = [argument.dtype or attrs[argument.type_attr or ""]] * len(operands)
        values = []
        for item, dtype in zip(operands, wanted, strict=True):
            if not isinstance(item, Value):
                with self._outside():
                    item = self.constant(item, dtype, name=f"{full}/{argument.name}")
            if item.dtype != dtype:
                raise TypeError(
                    f"the op {definition.name} ({full}) wants {dtype} for {argument.name}; {item.name} is {item.dtype}"
                )
            values.append(item)
        return values

    def _add(self, operation: str, name: str) -> Message:
        return self.graph.node.add(op=operation, name=name)

    def _free(self, name: str) -> str:
        return _unique(name, self._names)

    @contextlib.contextmanager
    def _outside(self) -> Iterator[None]:
        scope, self._scope = self._scope, ""
        try:
            yield
        finally:
            self._scope = scope


def _unique(name: str, taken: set[str]) -> str:
    """``name``, or ``name_1``, ``name_2``, ... where that is taken; compared without case, as TensorFlow does."""
    unique, count = name, 0
    while unique.lower() in taken:
        count += 1
        unique = f"{name}_{count}"
    taken.add(unique.lower())
    return unique


def _short(name: str) -> str:
    """An input as NodeDefs spell it: the first output has no number."""
    return name.removesuffix(":0")


def _infer(definition: Operation, inputs: Sequence[Operand], attrs: dict[str, Any]) -> None:
    """Fill ``attrs`` with what follows from the inputs: dtypes and counts."""
    for argument, operand in zip(definition.inputs, inputs, strict=True):
        if argument.number_attr:
            attrs.setdefault(argument.number_attr, len(operand))
        if argument.type_list_attr:
            attrs.setdefault(argument.type_list_attr, tuple(item.dtype for item in operand))
        elif argument.type_attr and argument.type_attr not in attrs:
            items = operand if argument.number_attr else [operand]
            found = [item.dtype for item in items if isinstance(item, Value)]
            if found:
                attrs[argument.type_attr] = found[0]
    for argument, operand in zip(definition.inputs, inputs, strict=True):
        if argument.type_attr and argument.type_attr not in attrs:
            # Only plain numbers: the op's default, or what NumPy makes of them as TensorFlow would.
            default = definition.attrs[argument.type_attr].default
            kind = np.asarray(operand).dtype.kind
            attrs[argument.type_attr] = (
                default if default is not REQUIRED else {"f": "float32", "b": "bool"}.get(kind, "int32")
            )


def _defaults(definition: Operation) -> dict[str, Any]:
    return {name: attribute.default for name, attribute in definition.attrs.items()}


def _write_attrs(node: Message, definition: Operation, attrs: Mapping[str, Any]) -> None:
    """Write the attributes that differ from their default: an older TensorFlow, which has the op but not the attribute,
    takes the node then (``index_type`` of Fill came with 1.5, of TopKV2 with 2.11).
    """
    for name, attribute in definition.attrs.items():
        if name not in attrs:
            if attribute.default is REQUIRED:
                raise TypeError(f"the op {definition.name} needs the attribute {name}")
            if name in SPELLED_OUT.get(definition.name, ()):
                _set(node.attr[name], attribute.type, attribute.default)
            continue
        value = tuple(attrs[name]) if isinstance(attrs[name], list) else attrs[name]
        if value != attribute.default or name in SPELLED_OUT.get(definition.name, ()):
            _set(node.attr[name], attribute.type, value)


def _set(message: Message, kind: str, value: Any) -> None:
    """Write one attribute into its AttrValue message; ``kind`` is the type as the op table spells it."""
    if kind.startswith("list("):
        message.list.SetInParent()  # an empty list is a list
        for item in value:
            entry = messages.AttrValue()
            _set(entry, kind[5:-1], item)
            field = entry.WhichOneof("value")
            target = getattr(message.list, field)
            target.append(getattr(entry, field))
    elif kind == "type":
        message.type = dtype_number(value)
    elif kind == "shape":
        message.shape.CopyFrom(dtypes.tuple_to_shape(value))
    elif kind == "string":
        message.s = value.encode() if isinstance(value, str) else value
    elif kind == "func":
        message.func.name = value
    elif kind == "tensor":
        message.tensor.CopyFrom(dtypes.numpy_to_tensor(np.asarray(value)))
    else:
        setattr(message, {"int": "i", "float": "f", "bool": "b"}[kind], value)
