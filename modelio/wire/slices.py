"""Partitioned variables: tensors that a checkpoint holds in parts, and how the parts make up the whole.

::

    TensorSliceProto    an extent for each dimension: start and length; without a length it is the whole dimension
    key of a slice      00 name 00 01, number of dimensions, (start, length)*, in "ordered code": numbers and strings
                        whose bytes sort as they do; a length of -1 is the whole dimension

Both kinds of checkpoint have them: :mod:`~modelio.wire.bundle` (V2), :mod:`~modelio.wire.tensor_slices` (V1).

Sources: ``tensorflow/core/util/saved_tensor_slice_util.cc`` (``EncodeTensorNameSlice``), ``core/framework/
tensor_slice.cc``, ``tsl/lib/strings/ordered_code.cc`` (TensorFlow 2.15).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError, UnsafeInput
from modelio.wire.window import CHUNK

__all__ = ["Part", "Place", "check_cover", "locate", "put_together", "slice_key", "stream_together"]

Place = tuple[slice, ...]
"""Where a part lies in the whole: a start and a stop in each dimension."""

_MOST_SLICES = 4096


class Part(NamedTuple):
    """A part: its place, and how its numbers are had, whole or piece by piece."""

    place: Place
    load: Callable[[], npt.NDArray[Any]]
    stream: Callable[[], Iterator[bytes | memoryview]]


# Keys and places


def locate(proto: Any, shape: tuple[int, ...], name: str) -> tuple[Place, bytes]:
    """The place that a TensorSliceProto names in a tensor of this shape, and the key of that slice."""
    extents = [(extent.start, extent.length if extent.HasField("length") else -1) for extent in proto.extent]
    if len(extents) != len(shape):
        raise ReadError(f"a slice of {len(extents)} dimensions of a variable that has {len(shape)}", where=name)
    place = tuple(
        slice(start, size if length < 0 else start + length)
        for (start, length), size in zip(extents, shape, strict=True)
    )
    return place, slice_key(name, extents)


def slice_key(name: str, extents: Sequence[tuple[int, int]]) -> bytes:
    r"""The key of a slice, ``(start, length)`` for each dimension, length -1 for the whole of it.

    >>> slice_key("w", [(0, -1), (3, 2)])
    b'\x00w\x00\x01\x01\x02\x80\x7f\x83\x82'
    """
    # The code would escape 0xff too; UTF-8 has no such byte.
    key = _unsigned(0) + name.encode().replace(b"\0", b"\0\xff") + b"\0\1" + _unsigned(len(extents))
    return key + b"".join(_signed(start) + _signed(length) for start, length in extents)


def _unsigned(value: int) -> bytes:
    """Its big-endian bytes without leading zeros, after their number."""
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(data)]) + data


def _signed(value: int) -> bytes:
    """Big-endian, in the fewest bytes that leave, after the sign, a one for each of them; the sign bit is inverted."""
    length = (~value if value < 0 else value).bit_length() // 7 + 1
    header = ((1 << length) - 1) << (8 * length - length)
    return ((value & (1 << 8 * length) - 1) ^ header).to_bytes(length, "big")


def check_cover(name: str, shape: tuple[int, ...], places: Sequence[Place]) -> None:
    """Refuse slices that overlap, leave a hole or reach outside."""
    if len(places) > _MOST_SLICES:
        raise UnsafeInput(f"{len(places):,} slices are more than any partitioned variable has", where=name)
    if any(not 0 <= s.start <= s.stop <= size for place in places for s, size in zip(place, shape, strict=True)):
        raise ReadError(f"a slice reaches outside the shape {shape}", where=name)
    starts = np.array([[s.start for s in place] for place in places]).reshape(len(places), len(shape))
    stops = np.array([[s.stop for s in place] for place in places]).reshape(len(places), len(shape))
    volumes = [math.prod(s.stop - s.start for s in place) for place in places]
    overlap = any(
        (np.minimum(stops[i], stops[i + 1 :]) > np.maximum(starts[i], starts[i + 1 :])).all(axis=1).any()
        for i in range(len(places))
    )
    if overlap or sum(volumes) != math.prod(shape):
        raise ReadError(f"the slices of this partitioned variable do not make up its shape {shape}", where=name)


# The whole, of parts that cover it


def put_together(shape: tuple[int, ...], dtype: np.dtype[Any], parts: Sequence[Part]) -> npt.NDArray[Any]:
    """The whole tensor."""
    if len(parts) == 1:
        return parts[0].load()
    whole = np.empty(shape, dtype)
    for part in parts:
        whole[part.place] = part.load()
    return whole


def stream_together(
    shape: tuple[int, ...], dtype: np.dtype[Any], parts: Sequence[Part]
) -> Iterator[bytes | memoryview]:
    """The whole tensor's bytes, about a megabyte at a time: rows are woven of those of the parts beside each other."""
    if len(parts) == 1:
        yield from parts[0].stream()
        return
    row = math.prod(shape[1:])
    bands = [list(band) for _, band in groupby(sorted(parts, key=_corner), key=lambda part: part.place[0])]
    if any(sum(_row(part) for part in band) != row for band in bands):
        yield put_together(shape, dtype, parts).tobytes()  # parts that are no rows of tiles: no partitioner makes them
        return
    for band in bands:
        if len(band) == 1:
            yield from band[0].stream()
        else:
            yield from _woven(shape[1:], dtype, band)


def _woven(shape: tuple[int, ...], dtype: np.dtype[Any], band: Sequence[Part]) -> Iterator[bytes]:
    """The rows, each of this shape, of parts that have as many."""
    readers = [_Reader(part.stream()) for part in band]
    rows = band[0].place[0].stop - band[0].place[0].start
    step = max(1, CHUNK // max(1, math.prod(shape) * dtype.itemsize))
    for start in range(0, rows, step):
        count = min(step, rows - start)
        woven = np.empty((count, *shape), dtype)
        for part, reader in zip(band, readers, strict=True):
            columns: Place = (slice(None), *part.place[1:])
            sizes = tuple(s.stop - s.start for s in part.place[1:])
            taken = np.frombuffer(reader.take(count * math.prod(sizes) * dtype.itemsize), dtype)
            woven[columns] = taken.reshape(count, *sizes)
        yield woven.tobytes()
    for reader in readers:
        reader.end()


class _Reader:
    """The bytes of a stream, as many at a time as are wanted."""

    def __init__(self, pieces: Iterator[bytes | memoryview]) -> None:
        self._pieces = pieces
        self._left = bytearray()

    def take(self, size: int) -> bytes:
        while len(self._left) < size:
            self._left += next(self._pieces)  # the parts' sizes are those of their places
        taken = bytes(self._left[:size])
        del self._left[:size]
        return taken

    def end(self) -> None:
        """Let the stream come to its end, where it verifies its checksum."""
        for _ in self._pieces:
            pass


def _corner(part: Part) -> tuple[tuple[int, int], ...]:
    return tuple((s.start, s.stop) for s in part.place)


def _row(part: Part) -> int:
    """Elements of one row of it."""
    return math.prod(s.stop - s.start for s in part.place[1:])
