"""Graphs of any size: read one without its large constants, and write it with them spliced back in.

A frozen graph is a few thousand small nodes, and a few Const nodes that weigh nearly all of it::

    SavedModel           2 meta_graphs
    MetaGraphDef           2 graph_def
    GraphDef                 1 node      2 library
    FunctionDefLibrary                     1 function
    FunctionDef                              3 node_def
    NodeDef                                    5 attr
    AttrEntry                                    2 value, where 1 key is "value"
    AttrValue                                      8 tensor
    TensorProto                                      4 tensor_content, or 5 float_val and its like

:func:`skim` walks the wire format down this road, into messages above :data:`LARGE` only, and cuts the content out of
its tensor: what is left is parsed, the content stays in its window until somebody asks. In its place stands a mark in
``version_number``, a field that TensorFlow never used, so that a value which was cut out cannot pass for the zeros that
a tensor without content means. :func:`splice` is the reverse, byte for byte what protobuf writes for the whole message,
and never holds more than one chunk of a constant.

Contents are keyed by the node's name; those of a function's body, whose names are its own, by ``function:node``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.wire.dtypes import CUT, dtype_name, numpy_dtype, shape_to_tuple
from modelio.wire.messages import TensorShapeProto, parse, serialize, type_name
from modelio.wire.varint import encode_varint, varint
from modelio.wire.window import MemoryWindow, Window, chunks

__all__ = ["CUT", "LARGE", "Content", "Streamed", "content_key", "skim", "splice"]

LARGE = 1 << 16
"""Bytes from which on a content is left in the file."""

_BLOCK = 1 << 15
"""Bytes that the walk reads at a time: less than :data:`LARGE`, so that it passes a constant by without reading it."""

_HEADER = 20
"""Bytes of the longest tag and length."""

_MANY = 1 << 22
"""Fields of one message. A graph of four million nodes is none, and each of its empty nodes would take 80 bytes."""

_LIMIT = 2**31 - 1
"""Bytes of one protobuf message."""

_CHILDREN = {
    "SavedModel": {2: "MetaGraphDef"},
    "MetaGraphDef": {2: "GraphDef"},
    "GraphDef": {1: "NodeDef", 2: "FunctionDefLibrary"},
    "FunctionDefLibrary": {1: "FunctionDef"},
    "FunctionDef": {3: "NodeDef"},
}
"""The fields that lead to nodes."""

_CONSTANTS = (b"Const", b"HostConst")

_VALUES = range(4, 19)
"""The fields of TensorProto that hold its value."""

_ELEMENTS = {5: 1, 6: 2, 9: 8, 12: 18}
"""Those that list elements by their little-endian bytes, as ``tensor_content`` (4) does, and for which DataType."""


class Streamed(Protocol):
    """What :func:`splice` asks of a value; a :class:`Content` has it, and so has a :class:`modelio.model.Tensor`."""

    @property
    def nbytes(self) -> int: ...

    def chunks(self) -> Iterator[bytes | memoryview]: ...


@dataclass(frozen=True)
class Content:
    """A value that was left in its file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    window: Window

    @property
    def nbytes(self) -> int:
        return self.window.size

    def numpy(self) -> npt.NDArray[Any]:
        """The numbers, read now; read-only."""
        little = self.dtype.newbyteorder("<") if self.dtype.itemsize > 1 else self.dtype
        values = np.frombuffer(self.window.read(0, self.window.size), little)
        return values.astype(self.dtype, copy=False).reshape(self.shape)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The little-endian bytes, piece by piece."""
        return chunks(self.window)


def content_key(node: str, function: str = "") -> str:
    """The key of a node's value. No name contains a colon, so the two kinds never meet.

    >>> content_key("dense/kernel"), content_key("kernel", "while_body_12")
    ('dense/kernel', 'while_body_12:kernel')
    """
    return f"{function}:{node}" if function else node


# ---------------------------------------------------------------------------------------------------- reading


def skim(cls: Any, window: Window, *, where: str | None = None) -> tuple[Any, list[dict[str, Content]]]:
    """The message of class ``cls``, and, for each of its graphs, what was cut out.

    ``cls`` is GraphDef, MetaGraphDef or SavedModel; :class:`~modelio.errors.ReadError` where the bytes are no such
    message.
    """
    kind = type_name(cls)
    skimmer = _Skimmer()
    walk = _Walk(window, kind, where)
    walk.message(kind, 0, window.size, skimmer)
    if window.size - walk.removed > _LIMIT:
        raise UnsafeInput(
            f"this {kind} takes more than 2 GiB without its constants, and no protobuf message may", where=where
        )
    message = parse(cls, b"".join(walk.pieces()), where=where)
    graphs = len(message.meta_graphs) if kind == "SavedModel" else 1
    return message, [skimmer.contents.get(graph, {}) for graph in range(graphs)]


class _Skimmer:
    """Cuts large contents out of Const nodes. A node that is not as TensorFlow writes it is left to protobuf."""

    def __init__(self) -> None:
        self.contents: dict[int, dict[str, Content]] = {}
        self.least = LARGE

    def node(self, walk: _Walk, start: int, stop: int, function: str) -> None:
        name, op, road = walk.constant(start, stop)
        contents = self.contents.setdefault(walk.graph, {})
        key = content_key(name.decode("utf-8", "replace"), function)
        if op in _CONSTANTS and len(road) == 3 and key not in contents:
            walk.enter(road, lambda: self._tensor(walk, road[-1], contents, key))

    def _tensor(self, walk: _Walk, tensor: _Field, contents: dict[str, Content], key: str) -> None:
        dtype, shape, fields = walk.tensor(tensor)
        values = [field for field in fields if field.number in _VALUES]
        if dtype is None or shape is None or len(values) != 1 or any(field.number == 3 for field in fields):
            return
        value = values[0]
        length = value.stop - value.body
        if length < LARGE or length != prod(shape) * dtype.itemsize:
            return
        if value.number == 4 or dtype == numpy_dtype(_ELEMENTS.get(value.number, 7)):
            contents[key] = Content(dtype, shape, walk.window.part(value.body, length))
            walk.edit(value.start, value.stop, _MARK)


_MARK = b"\x18" + encode_varint(CUT)
"""``version_number`` as it stands in a TensorProto whose content was cut out."""


# ---------------------------------------------------------------------------------------------------- writing


def splice(message: Any, contents: Sequence[Mapping[str, Streamed]], *, where: str | None = None) -> Streamed:
    """The bytes of the whole message, as protobuf would write it with every value in its ``tensor_content``.

    ``contents`` has a mapping for each graph of the message; what :func:`skim` returned is just that, and any value of
    a Const node may be added or replaced. :class:`~modelio.errors.WriteError` where a value is missing, does not fit
    its node's type and shape, or the whole passes protobuf's 2 GiB.
    """
    kind = type_name(type(message))
    data = serialize(message)
    splicer = _Splicer(contents)
    walk = _Walk(MemoryWindow(data), kind, where)
    if any(contents) or _MARK in data:
        walk.message(kind, 0, len(data), splicer)
    if len(data) - walk.removed > _LIMIT:
        raise WriteError(
            f"this {kind} takes {len(data) - walk.removed:,} bytes, and no protobuf message may take more than 2 GiB: "
            "keep the weights beside the graph, as the variables of a SavedModel are",
            where=where,
        )
    return _Spliced(walk, len(data) - walk.removed)


class _Splicer:
    """Puts contents back where :class:`_Skimmer` cut them out, or where a small value stands now."""

    def __init__(self, contents: Sequence[Mapping[str, Streamed]]) -> None:
        self.contents = contents
        self.least = 0

    def node(self, walk: _Walk, start: int, stop: int, function: str) -> None:
        contents = self.contents[walk.graph] if walk.graph < len(self.contents) else {}
        first = next(walk.fields(start, stop), None)  # serialize() puts the name first
        key = content_key(walk.payload(first).decode() if first and first.number == 1 else "", function)
        if key not in contents and not walk.holds(start, stop, _MARK):
            return
        road = walk.constant(start, stop)[2]
        if len(road) == 3:
            walk.enter(road, lambda: self._tensor(walk, road[-1], contents.get(key), key))
        elif key in contents:
            raise WriteError("this node has no value to replace: it is no constant", where=key)

    def _tensor(self, walk: _Walk, tensor: _Field, content: Streamed | None, key: str) -> None:
        dtype, shape, fields = walk.tensor(tensor)
        if content is None:
            if any(field.number == 3 and walk.payload(field) == _MARK[1:] for field in fields):
                raise WriteError(
                    "the value of this constant was left in its file, and the model does not hold it", where=key
                )
            return
        if dtype is None or shape is None or content.nbytes != prod(shape) * dtype.itemsize:
            raise WriteError(f"{content.nbytes:,} bytes are no value of this node's type and shape", where=key)
        place = next((field.start for field in fields if field.number >= 3), tensor.stop)
        head = b"\x22" + encode_varint(content.nbytes) if content.nbytes else b""
        walk.edit(place, place, head, content)
        for field in fields:
            if field.number == 3 or field.number in _VALUES:
                walk.edit(field.start, field.stop, b"")


class _Spliced:
    def __init__(self, walk: _Walk, nbytes: int) -> None:
        self._walk = walk
        self.nbytes = nbytes

    def chunks(self) -> Iterator[bytes | memoryview]:
        return self._walk.pieces()


# ---------------------------------------------------------------------------------------------------- the walk


class _Field(NamedTuple):
    """A field: its tag at ``start``, its payload from ``body`` to ``stop``; one of ``kind`` 2 may be a message."""

    number: int
    kind: int
    start: int
    body: int
    stop: int


class _Edit(NamedTuple):
    """Bytes ``start`` to ``stop`` become ``data`` and then ``content``."""

    start: int
    stop: int
    data: bytes
    content: Streamed | None


class _Editor(Protocol):
    least: int
    """Bytes of the smallest message that is worth entering."""

    def node(self, walk: _Walk, start: int, stop: int, function: str) -> None:
        """Edit a NodeDef."""


class _Walk:
    """A way through a serialized message that collects edits, in the order of their places, and applies them."""

    def __init__(self, window: Window, kind: str, where: str | None) -> None:
        self.window = window
        self.where = where
        self.graph = -1 if kind == "SavedModel" else 0
        self.removed = 0
        self._edits: list[_Edit] = []
        self._block, self._base = b"", 0

    def message(self, kind: str, start: int, stop: int, editor: _Editor, function: str = "") -> None:
        """Bring the nodes of a message of ``kind`` before ``editor``."""
        if kind == "NodeDef":
            editor.node(self, start, stop, function)
            return
        if kind == "FunctionDef":
            function = self._function_name(start, stop)
        for field in self.fields(start, stop, 0 if kind == "SavedModel" else editor.least):
            child = _CHILDREN[kind].get(field.number) if field.kind == 2 else None
            if child == "MetaGraphDef":
                self.graph += 1
            if child and field.stop - field.body >= editor.least:
                self._enter_message(child, field, editor, function)

    def _enter_message(self, kind: str, field: _Field, editor: _Editor, function: str) -> None:
        self.enter([field], lambda: self.message(kind, field.body, field.stop, editor, function))

    def enter(self, road: Sequence[_Field], inside: Callable[[], None]) -> None:
        """Edit the inside of the last field of ``road``, and then the lengths of all, each of which holds the next."""
        if not road:
            inside()
            return
        field, mark, before = road[0], len(self._edits), self.removed
        self.enter(road[1:], inside)
        if len(self._edits) > mark:
            length = field.stop - field.body - (self.removed - before)
            self.edit(field.start, field.body, encode_varint(field.number << 3 | 2) + encode_varint(length), at=mark)

    def edit(
        self, start: int, stop: int, data: bytes, content: Streamed | None = None, *, at: int | None = None
    ) -> None:
        """Replace bytes; ``at`` is the place among the edits, the last by default."""
        self._edits.insert(len(self._edits) if at is None else at, _Edit(start, stop, data, content))
        self.removed += stop - start - len(data) - (content.nbytes if content else 0)

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The edited message."""
        position = 0
        for edit in [*self._edits, _Edit(self.window.size, self.window.size, b"", None)]:
            if position < edit.start:
                yield self.window.read(position, edit.start - position)
            yield edit.data
            if edit.content:
                yield from _exactly(edit.content)
            position = edit.stop

    def fields(self, start: int, stop: int, least: int = 0) -> Iterator[_Field]:
        """The fields of at least ``least`` bytes in the message from ``start`` to ``stop``, checked against its end."""
        position = start
        block, base = self._block, self._base
        for _ in range(_MANY):
            if position >= stop:
                return
            index = position - base
            if not 0 <= index <= len(block) - _HEADER:
                block, base, index = self._read(position), position, 0
            try:
                tag, index = (block[index], index + 1) if block[index] < 0x80 else varint(block, index)
                kind = tag & 7
                if kind == 2:
                    length, index = (block[index], index + 1) if block[index] < 0x80 else varint(block, index)
                elif kind == 0:
                    length = varint(block, index)[1] - index
                else:
                    length = 4 if kind == 5 else 8
            except (IndexError, ReadError):
                raise self._damaged(position, "a field is cut short or damaged") from None
            if not 8 <= tag < 2**32 or kind not in (0, 1, 2, 5):
                raise self._damaged(position, "no field that TensorFlow writes begins")
            body = base + index
            if body + length > stop:
                raise self._damaged(position, f"a field of {length:,} bytes runs past the end of its message")
            if length >= least:
                yield _Field(tag >> 3, kind, position, body, body + length)
            position = body + length
        raise UnsafeInput(f"one message has more than {_MANY:,} fields", where=self.where)

    def payload(self, field: _Field) -> bytes:
        return bytes(self.window.read(field.body, field.stop - field.body))

    def holds(self, start: int, stop: int, pattern: bytes) -> bool:
        return pattern in bytes(self.window.read(start, stop - start))

    def constant(self, start: int, stop: int) -> tuple[bytes, bytes, list[_Field]]:
        """A NodeDef's name, its op, and the road to its value: AttrEntry, AttrValue, TensorProto.

        The road is empty where there is no such attribute, or more than one.
        """
        name = op = b""
        entries: list[_Field] = []
        for field in self.fields(start, stop):
            if field.number == 1:
                name = self.payload(field)
            elif field.number == 2:
                op = self.payload(field)
            elif field.number == 5 and field.kind == 2 and len(entries) < 64:
                entries.append(field)
        roads = [road for entry in entries if (road := self._value(entry))]
        return name, op, roads[0] if len(roads) == 1 else []

    def _value(self, entry: _Field) -> list[_Field]:
        """The road to the tensor in the AttrEntry named ``value``."""
        inside = self._few(entry)
        if [field.number for field in inside] != [1, 2] or self.payload(inside[0]) != b"value":
            return []
        value = inside[1]
        tensors = self._few(value)
        return [entry, value, tensors[0]] if [field.number for field in tensors] == [8] else []

    def tensor(self, tensor: _Field) -> tuple[np.dtype[Any] | None, tuple[int, ...] | None, list[_Field]]:
        """A TensorProto's dtype and shape, None where they are not plain, and its fields."""
        fields = self._few(tensor)
        dtype = shape = None
        for field in fields:
            if field.number == 1 and field.kind == 0:
                dtype = _plain_dtype(varint(self.payload(field), 0)[0])
            elif field.number == 2 and field.kind == 2:
                sizes = shape_to_tuple(parse(TensorShapeProto, self.payload(field), where=self.where))
                shape = None if sizes is None or None in sizes else tuple(size or 0 for size in sizes)
        return dtype, shape, fields

    def _few(self, field: _Field) -> list[_Field]:
        """The fields inside a message; none where it has more than any writer makes."""
        found: list[_Field] = []
        if field.kind != 2:
            return found
        for inner in self.fields(field.body, field.stop):
            found.append(inner)
            if len(found) > 16:
                return []
        return found

    def _function_name(self, start: int, stop: int) -> str:
        """The name in the signature of a FunctionDef."""
        for field in self.fields(start, stop):
            if field.number == 1 and field.kind == 2:
                for inner in self.fields(field.body, field.stop):
                    if inner.number == 1:
                        return self.payload(inner).decode("utf-8", "replace")
        return ""

    def _read(self, position: int) -> bytes:
        """At least a header's bytes at ``position``, or all that are left."""
        self._base = position
        self._block = bytes(self.window.read(position, min(_BLOCK, self.window.size - position)))
        return self._block

    def _damaged(self, position: int, what: str) -> ReadError:
        return ReadError(f"{what} at byte {position:,}: the file is damaged, or no graph", where=self.where)


def _plain_dtype(number: int) -> np.dtype[Any] | None:
    """The dtype of numbers that lie in memory as in the file; None for strings, handles, references, unknown types."""
    if number > 100 or dtype_name(number) in ("unknown", "string", "resource", "variant"):
        return None
    return numpy_dtype(number)


def _exactly(content: Streamed) -> Iterator[bytes | memoryview]:
    """A value's chunks; the length of its message is already written and must hold."""
    left = content.nbytes
    for chunk in content.chunks():
        left -= memoryview(chunk).nbytes
        yield chunk
    if left:
        raise WriteError(f"a value gave {content.nbytes - left:,} bytes where it had announced {content.nbytes:,}")
