"""The first kind of checkpoint (V1): TensorFlow's until 1.0, and later where it was asked for. Read only.

::

    PREFIX, or PREFIX-00000-of-00002, ...    each a sorted table (table.py) of SavedTensorSlices
        ""                          meta: every tensor's name, shape, dtype, and which slices of it are in this file
        00 name slice               data: the slice's numbers, in the fields that TensorProto lists values in; no dtype

A tensor that is not partitioned has one slice, the whole. Blocks hold whole entries, so that a block is as large as the
tensors in it; it is read, and its checksum verified, when one of them is asked for.

Sources: ``tensorflow/core/util/tensor_slice_writer.cc``, ``tensor_slice_reader.cc``, ``saved_tensor_slice.proto``
(TensorFlow 1.15).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError
from modelio.wire import dtypes, messages
from modelio.wire.slices import Part, Place, check_cover, locate, put_together, stream_together
from modelio.wire.table import Table
from modelio.wire.varint import varint
from modelio.wire.window import CHUNK, Window

__all__ = ["SliceTables", "Stored"]

_VERSION = 1
"""TF_CHECKPOINT_VERSION (``tensorflow/core/public/version.h``)."""

_MOST_DIMENSIONS = 32

_PLAIN = {1: 5, 2: 6, 8: 9, 18: 12}
"""For a DataType, the field of TensorProto that lists it as its little-endian bytes."""

_DATA, _VALUES = 2, 3
"""SavedTensorSlices.data, and in it SavedSlice.data."""


@dataclass(frozen=True)
class Stored:
    """One tensor: what it is, and for each of its slices the place, the key and the table."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    number: int
    slices: tuple[tuple[Place, bytes, Table], ...]


class SliceTables:
    """A checkpoint of the first kind, open for reading: what there is is read now, numbers when asked for.

    Args:
        files: its files, all of them, by name.

    ``entries`` maps the tensors' names, in order, to what they are.

    Raises:
        ReadError: a file is missing or damaged, or they contradict each other.
    """

    def __init__(self, files: Mapping[str, Window]) -> None:
        found: dict[str, list[tuple[Any, Table]]] = {}
        for file, window in files.items():
            table = Table(window)
            for saved in _meta(table, file):
                found.setdefault(saved.name, []).append((saved, table))
        self.entries = {name: _stored(name, found[name]) for name in sorted(found)}

    def load(self, name: str) -> npt.NDArray[Any]:
        """The tensor; strings as an object array of ``bytes``."""
        entry = self.entries[name]
        return put_together(entry.shape, entry.dtype, self._parts(name))

    def stream(self, name: str) -> Iterator[bytes | memoryview]:
        """The tensor's bytes, about a megabyte at a time."""
        entry = self.entries[name]
        if entry.dtype.hasobject:
            raise TypeError(f"{name} is a tensor of strings, which have no bytes of fixed size; load it")
        return stream_together(entry.shape, entry.dtype, self._parts(name))

    def _parts(self, name: str) -> list[Part]:
        entry = self.entries[name]
        parts = []
        for place, key, table in entry.slices:
            load = partial(_load, name, entry, place, key, table)
            parts.append(Part(place, load, partial(_stream, load)))
        return parts


def _meta(table: Table, file: str) -> Sequence[Any]:
    """What a file says that it holds."""
    first = table.first()
    if first is None or first[0] != b"":
        raise ReadError("it does not begin with what it holds: a table of something else than tensors", where=file)
    saved = messages.parse(messages.SavedTensorSlices, first[1], where=file)
    version = saved.meta.versions.min_consumer
    if version > _VERSION:
        raise ReadError(f"this checkpoint is for readers of version {version}; this is {_VERSION}", where=file)
    if not saved.HasField("meta") and messages.parse(messages.BundleHeaderProto, first[1], where=file).num_shards:
        raise ReadError(
            "this is the index of a checkpoint (V2), without the .data files that belong beside it: name its path, or "
            "the directory that holds them all"
        )
    if not saved.meta.tensor:
        raise ReadError("no tensor is in it: a table of something else than tensors", where=file)
    return saved.meta.tensor  # type: ignore[no-any-return]  # a message's field


def _stored(name: str, found: Sequence[tuple[Any, Table]]) -> Stored:
    """A tensor, of what each file says of it."""
    saved = found[0][0]
    sizes = [dimension.size for dimension in saved.shape.dim]
    if saved.shape.unknown_rank or len(sizes) > _MOST_DIMENSIONS or any(size < 0 for size in sizes):
        raise ReadError(f"the shape {sizes} is none that a stored tensor can have", where=name)
    shape = tuple(sizes)
    dtype = dtypes.stored_dtype(saved.type, where=name)
    if math.prod(size or 1 for size in shape) * dtype.itemsize > 1 << 48:
        raise ReadError(f"the shape {sizes} is none that a stored tensor can have", where=name)
    slices: list[tuple[Place, bytes, Table]] = []
    for other, table in found:
        if (other.type, other.shape) != (saved.type, saved.shape):
            raise ReadError("its parts are of different types or shapes", where=name)
        slices += [(*locate(proto, shape, name), table) for proto in other.slice]
    check_cover(name, shape, [place for place, _, _ in slices])
    return Stored(dtype, shape, saved.type, tuple(slices))


def _load(name: str, entry: Stored, place: Place, key: bytes, table: Table) -> npt.NDArray[Any]:
    """The numbers of one slice."""
    shape = tuple(s.stop - s.start for s in place)
    count = math.prod(shape)
    data = _values(name, key, table)
    if entry.number in _PLAIN:
        packed = _find(data, _PLAIN[entry.number], name)
        if len(packed) != count * entry.dtype.itemsize:
            raise ReadError(f"{len(packed):,} bytes are not the numbers of a slice of {list(shape)}", where=name)
        return np.frombuffer(packed, entry.dtype.newbyteorder("<")).astype(entry.dtype, copy=False).reshape(shape)
    tensor = messages.parse(messages.TensorProto, data, where=name)
    if len(getattr(tensor, dtypes.value_field(entry.number))) != count:
        raise ReadError(f"its numbers are not those of a slice of {list(shape)}", where=name)
    tensor.dtype = entry.number
    tensor.tensor_shape.CopyFrom(dtypes.tuple_to_shape(shape))
    array = dtypes.tensor_to_numpy(tensor, where=name)
    return array.view(entry.dtype) if entry.dtype.metadata else array


def _stream(load: Callable[[], npt.NDArray[Any]]) -> Iterator[bytes | memoryview]:
    array = np.ascontiguousarray(load())
    flat: memoryview = array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")
    for start in range(0, len(flat), CHUNK):
        yield flat[start : start + CHUNK]


def _values(name: str, key: bytes, table: Table) -> memoryview:
    """The TensorProto of a slice; its block is read and verified."""
    value = table.get(key)
    if value is None:
        raise ReadError("a slice of this tensor is missing from the file that lists it", where=name)
    return _find(_find(value, _DATA, name), _VALUES, name)


def _find(data: memoryview, number: int, name: str) -> memoryview:
    """The bytes of a field of a message, nothing where it is not there."""
    position = 0
    while position < len(data):
        tag, position = varint(data, position)
        if tag & 7 == 2:
            length, position = varint(data, position)
        elif tag & 7 == 0:
            length = varint(data, position)[1] - position
        else:
            length = {1: 8, 5: 4}.get(tag & 7, len(data))
        if position + length > len(data):
            raise ReadError("a field of its entry runs past the end: damaged", where=name)
        if tag == number << 3 | 2:
            return data[position : position + length]
        position += length
    return data[:0]
