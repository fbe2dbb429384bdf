"""The weights of a TensorFlow.js model: numbers end to end in shards, and the manifest that lists them.

::

    weightsManifest   [{"paths": ["group1-shard1of2.bin", "group1-shard2of2.bin"],
                        "weights": [{"name": "dense_1/kernel", "shape": [64, 10], "dtype": "float32"},
                                    {"name": ..., "quantization": {"dtype": "uint8", "scale": 0.1, "min": -1}}, ...]}]

A group's weights lie in C order, little-endian, one after the other; a shard ends anywhere. A string stands behind its
length, a uint32. Quantized numbers stand for ``number * scale + min``; float16, which has neither, stands for float32.

Sources: tensorflowjs 4.22 ``write_weights.py``, ``read_weights.py``, ``quantization.py``; @tensorflow/tfjs 4.22
``tfjs-core/src/io/io_utils.ts`` (decodeWeights).
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from sys import float_info, maxsize
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError, WriteError
from modelio.wire.raw import RANK, RawArray, Values
from modelio.wire.window import CHUNK, WindowIO

__all__ = ["CARRIERS", "SHARD", "Entry", "Part", "Shard", "read", "write"]

SHARD = 4 << 20
"""Bytes of a shard, as in ``write_weights.py``: the largest file that all major browsers cache."""

_STORED = {
    "float32": "<f4",
    "int32": "<i4",
    "bool": "?",
    "complex64": "<c8",
    "uint8": "u1",
    "uint16": "<u2",
    "float16": "<f2",
}
"""Element types of a manifest beside string (``read_weights.py`` _INPUT_DTYPES); TensorFlow.js takes the first four."""

_QUANTIZED = {"uint8": ("float32", "int32"), "uint16": ("float32", "int32"), "float16": ("float32",)}
"""What quantized numbers are stored as, and what they can stand for (``io_utils.ts`` decodeWeight)."""

CARRIERS = {
    "bfloat16": "float32",
    "int8": "int32",
    "uint8": "int32",
    "int16": "int32",
    "uint16": "int32",
    "uint32": "int32",
    "int64": "int32",
    "uint64": "int32",
}
"""Element types that TensorFlow.js has not, and those that stand for them; of the last three, numbers may not fit."""


# Reading


class Shard(Protocol):
    """The bytes of one file; read piece by piece, so that a model may have more of them than open files."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes | memoryview: ...


@dataclass(frozen=True)
class Entry:
    """One weight of a manifest; strings are ``object`` arrays of ``bytes``."""

    name: str
    values: Values
    is_optimizer: bool


def read(manifest: Any, shard: Callable[[str], Shard]) -> list[Entry]:
    """All weights of a manifest. Of the shards, nothing is read but their sizes, and the lengths of strings.

    Args:
        manifest: the parsed JSON.
        shard: the file of a path in it.

    Raises:
        ReadError: the manifest is not as drawn above, or its weights do not fill its shards.
    """
    if not isinstance(manifest, list):
        raise ReadError("a list of groups is wanted", where="weightsManifest")
    entries: dict[str, Entry] = {}
    for number, group in enumerate(manifest, start=1):
        where = f"weightsManifest, group {number}"
        paths, weights = (group.get(key) if isinstance(group, dict) else None for key in ("paths", "weights"))
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise ReadError("the paths of the shards are missing", where=where)
        if not isinstance(weights, list):
            raise ReadError("the list of weights is missing", where=where)
        numbers = _Joined([shard(path) for path in paths])
        offset = 0
        for spec in weights:
            entry, size = _entry(spec, numbers, offset, where)
            if entry.name in entries:
                raise ReadError("the weight is listed twice", where=entry.name)
            entries[entry.name] = entry
            offset += size
        if offset != numbers.size:
            raise ReadError(f"the shards hold {numbers.size:,} bytes, the weights take {offset:,}", where=where)
    return list(entries.values())


def _entry(spec: Any, numbers: _Joined, offset: int, where: str) -> tuple[Entry, int]:
    """The weight at an offset, and how many bytes it takes."""
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise ReadError("a weight has no name", where=where)
    name, shape, dtype = spec["name"], spec.get("shape"), spec.get("dtype")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ReadError("the shape is not a list of sizes", where=name)
    if len(shape) > RANK or 8 * math.prod(filter(None, shape)) > maxsize:  # NumPy's limits, also beside a zero
        raise ReadError(f"no array can have the shape {shape}"[:200], where=name)
    quantization = spec.get("quantization")
    values: Values
    if dtype == "string":
        size = _strings_size(numbers, offset, math.prod(shape), name)
        values = _strings(numbers.part(offset, size), tuple(shape))
    else:
        stored = dtype if quantization is None else _quantized_as(quantization, dtype, name)
        if not isinstance(stored, str) or stored not in _STORED:
            raise ReadError(f"the element type {json.dumps(dtype)[:40]} is not known", where=name)
        size = math.prod(shape) * np.dtype(_STORED[stored]).itemsize
        left = numbers.size - offset
        if size > left:
            raise ReadError(f"it takes {size:,} bytes, and {left:,} are left in the shards of its group", where=name)
        values = RawArray(numbers.part(offset, size), _STORED[stored], tuple(shape))
        if quantization is not None:
            values = _dequantized(values, quantization, str(dtype))
    return Entry(name, values, spec.get("group") == "optimizer"), size


class _Computed:
    """Values that are computed from what is stored, when they are asked for."""

    def __init__(self, dtype: npt.DTypeLike, shape: tuple[int, ...], load: Callable[[], npt.NDArray[Any]]) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = shape
        self.numpy = load

    def chunks(self) -> Iterator[memoryview]:
        array = self.numpy()
        flat = array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data
        for offset in range(0, flat.nbytes, CHUNK):
            yield flat[offset : offset + CHUNK]


def _quantized_as(quantization: Any, dtype: Any, where: str) -> str:
    stored = quantization.get("dtype") if isinstance(quantization, dict) else None
    if not isinstance(stored, str) or dtype not in _QUANTIZED.get(stored, ()):
        raise ReadError(f"{json.dumps(dtype)[:40]} cannot be quantized as {json.dumps(stored)[:40]}", where=where)
    line = [quantization.get(key) for key in ("scale", "min")]
    is_line = all(type(number) in (int, float) and abs(number) <= float_info.max for number in line)  # no NaN either
    if stored != "float16" and not is_line:
        raise ReadError("quantized numbers without scale and min", where=where)
    return stored


def _dequantized(values: Values, quantization: Mapping[str, Any], dtype: str) -> Values:
    """The numbers that TensorFlow.js makes of quantized ones: computed in float64, then cut to what they stand for."""

    def load() -> npt.NDArray[Any]:
        stored = values.numpy()
        if stored.dtype == np.float16:
            return stored.astype(dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # what leaves float32 is infinite there, too
            numbers = stored * np.float64(quantization["scale"]) + np.float64(quantization["min"])
            # JavaScript's Math.round takes halves up, NumPy's round to even.
            return np.asarray(np.floor(numbers + 0.5) if dtype == "int32" else numbers).astype(dtype)

    return _Computed(dtype, values.shape, load)


def _strings_size(numbers: _Joined, offset: int, count: int, where: str) -> int:
    """The bytes of so many strings, each behind its length as a uint32."""
    left = numbers.size - offset
    if 4 * count > left:  # an empty one takes 4
        raise ReadError(f"{count:,} strings take more than the {left:,} bytes that are left", where=where)
    stream = io.BufferedReader(WindowIO(numbers.part(offset, left)), 1 << 16)
    size = 0
    for _ in range(count):
        stream.seek(size)
        length = stream.read(4)
        size += 4 + int.from_bytes(length, "little")
        if len(length) < 4 or size > left:
            raise ReadError("a string leaves the shards of its group", where=where)
    return size


def _strings(window: _Joined, shape: tuple[int, ...]) -> Values:
    def load() -> npt.NDArray[Any]:
        data = bytes(window.read(0, window.size))
        values = np.empty(math.prod(shape), object)
        position = 0
        for number in range(values.size):
            end = position + 4 + int.from_bytes(data[position : position + 4], "little")
            values[number] = data[position + 4 : end]
            position = end
        return values.reshape(shape)

    return _Computed(object, shape, load)


class _Joined:
    """A window onto several shards, end to end, from ``start`` on."""

    def __init__(self, shards: Sequence[Shard], start: int = 0, size: int | None = None) -> None:
        self._shards = shards
        self._start = start
        self.size = sum(shard.size for shard in shards) if size is None else size

    def read(self, offset: int, length: int) -> bytes | memoryview:
        self._check(offset, length)
        pieces: list[bytes | memoryview] = []
        position = self._start + offset
        for shard in self._shards:
            if length and position < shard.size:
                pieces.append(shard.read(position, min(length, shard.size - position)))
                length -= len(pieces[-1])
            position = max(0, position - shard.size)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def part(self, offset: int, length: int) -> _Joined:
        self._check(offset, length)
        return _Joined(self._shards, self._start + offset, length)

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ReadError(f"{length:,} bytes at offset {offset:,} are wanted, the shards hold {self.size:,}")


# Writing


@dataclass(frozen=True)
class Part:
    """A weight on its way into the shards: its place in the manifest, its own element type, its bytes.

    :class:`~modelio.errors.WriteError` where TensorFlow.js has no element type that holds it.
    """

    spec: dict[str, Any]
    dtype: str
    size: int
    chunks: Callable[[], Iterable[bytes | memoryview]]

    @classmethod
    def of(cls, name: str, values: Values) -> Part:
        dtype = "string" if values.dtype == object else values.dtype.name
        count = math.prod(values.shape)
        spec: dict[str, Any] = {"name": name, "shape": list(values.shape), "dtype": dtype}
        if dtype == "string":
            data = b"".join(_with_length(value, name) for value in values.numpy().ravel())
            return cls(spec, dtype, len(data), lambda: [data])
        if dtype in ("float32", "int32", "bool", "complex64"):
            return cls(spec, dtype, count * values.dtype.itemsize, values.chunks)
        if dtype == "float16":
            spec.update(dtype="float32", quantization={"dtype": "float16", "original_dtype": "float32"})
            return cls(spec, dtype, count * values.dtype.itemsize, values.chunks)
        if dtype in CARRIERS:
            spec["dtype"] = CARRIERS[dtype]
            return cls(spec, dtype, 4 * count, lambda: _carried(values, _STORED[spec["dtype"]], name))
        raise WriteError(f"TensorFlow.js has no {dtype}, and nothing that holds all its values", where=name)


def _with_length(value: Any, where: str) -> bytes:
    if not isinstance(value, (bytes, str)):
        raise WriteError(f"this holds a {type(value).__name__}, and strings are str or bytes", where=where)
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(4, "little") + data


def _carried(values: Values, dtype: str, where: str) -> Iterator[bytes]:
    """The numbers in another element type, piece by piece; :class:`WriteError` at the first that does not fit."""
    rest = b""
    for chunk in values.chunks():
        data = rest + bytes(chunk)
        whole = len(data) - len(data) % values.dtype.itemsize
        rest = data[whole:]
        numbers = np.frombuffer(data[:whole], values.dtype.newbyteorder("<"))
        carried = numbers.astype(dtype)
        if carried.dtype.kind == "i" and not (carried == numbers).all():
            raise WriteError(f"TensorFlow.js has no {values.dtype}, and a number here does not fit int32", where=where)
        yield carried.tobytes()


def write(parts: Sequence[Part], file: Callable[[str], BinaryIO]) -> list[dict[str, Any]]:
    """Write the bytes of all weights, cut into shards, to files by name; the manifest."""
    count = -(-sum(part.size for part in parts) // SHARD)
    names = [f"group1-shard{number}of{count}.bin" for number in range(1, count + 1)]
    pieces = (memoryview(piece).cast("B") for part in parts for piece in part.chunks() if len(piece))
    piece = memoryview(b"")
    for name in names:
        with file(name) as stream:
            left = SHARD
            while left and (piece := piece or next(pieces, piece)):
                stream.write(piece[:left])
                piece, left = piece[left:], left - min(left, len(piece))
    return [{"paths": names, "weights": [part.spec for part in parts]}]
