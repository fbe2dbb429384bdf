"""safetensors: named tensors and named texts in one file.

::

    8 bytes     length of the header, little-endian
    header      {"__metadata__": {"format": "pt"},                       texts; may be left out
                 "dense/kernel": {"dtype": "F32", "shape": [64, 10], "data_offsets": [0, 2560]},
                 "dense/bias": {"dtype": "F32", "shape": [10], "data_offsets": [2560, 2600]}}
                and spaces up to a multiple of 8 bytes
    data        the tensors one after the other, in C order, little-endian; offsets count from its start

The tensors fill the data without holes, so that no two share a byte and no byte is unaccounted for. Written are larger
element types first, and by name within a type, as the reference implementation does: every tensor is then aligned to
its elements. Sources: the format's description in the README of huggingface/safetensors; ``safetensors/src/tensor.rs``
(0.8: ``Dtype``, ``prepare``, ``validate``).

>>> import io
>>> from modelio.wire.window import MemoryWindow
>>> stream = io.BytesIO()
>>> write(stream, {"bias": RawArray(MemoryWindow(bytes(8)), "<f4", (2,))}, {"author": "me"})
>>> content = read(MemoryWindow(stream.getvalue()))
>>> content.texts, content.tensors["bias"].numpy()
({'author': 'me'}, array([0., 0.], dtype=float32))
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from modelio.errors import ModelioError, ReadError, UnsafeInput, WriteError
from modelio.wire.raw import RawArray, Values
from modelio.wire.window import Window

__all__ = ["TEXTS", "Content", "is_safetensors", "read", "write"]

HEADER_LIMIT = 100_000_000
"""Bytes of a header; the reference implementation refuses more."""

TEXTS = "__metadata__"
"""The key in the header that is no tensor."""

DTYPES: Mapping[str, str | None] = {
    "BOOL": "bool",
    "F4": None,
    "F6_E2M3": None,
    "F6_E3M2": None,
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
"""The format's element types, in the reference implementation's order, and NumPy's; None: several in a byte."""

_NAMES = {numpy: name for name, numpy in DTYPES.items() if numpy}
_RANKS = {name: rank for rank, name in enumerate(DTYPES)}


class Content(NamedTuple):
    """What a file holds: tensors by name, in the header's order, and texts by key."""

    tensors: dict[str, RawArray]
    texts: dict[str, str]


def is_safetensors(head: bytes) -> bool:
    """Whether a file that starts with these bytes, nine or more, has a header such as the format's."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= HEADER_LIMIT


# Reading


def read(window: Window) -> Content:
    """The tensors and texts of a file. Only its header is read; each tensor is a window onto its own bytes.

    Raises:
        ReadError: the header is damaged, or does not describe just the bytes that are there.
        UnsafeInput: it is larger than :data:`HEADER_LIMIT`, or names a key twice.
    """
    header, start = _header(window)
    texts = _texts(header.pop(TEXTS, None))
    data = window.part(start, window.size - start)
    entries = {name: _entry(name, entry) for name, entry in header.items()}
    _check_offsets({name: (entry.begin, entry.end) for name, entry in entries.items()}, data.size)
    return Content({name: _tensor(name, entry, data) for name, entry in entries.items()}, texts)


def _header(window: Window) -> tuple[dict[str, Any], int]:
    """The parsed header, and where the data starts."""
    if window.size < 8:
        raise ReadError(f"a file of {window.size} bytes has no header")
    length = int.from_bytes(window.read(0, 8), "little")
    if length > HEADER_LIMIT:
        raise UnsafeInput(f"a header of {length:,} bytes; {HEADER_LIMIT:,} are allowed")
    if length > window.size - 8:
        raise ReadError(f"the header takes {length:,} bytes, and {window.size - 8:,} are there: the file is cut short")
    try:
        header = json.loads(bytes(window.read(8, length)).decode(), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise ReadError(f"the header is not UTF-8: byte {error.start:,} is wrong") from error
    except RecursionError as error:
        raise UnsafeInput("a header that is nested too deep: no tensor's entry is") from error
    except ValueError as error:
        if isinstance(error, ModelioError):
            raise
        raise ReadError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ReadError("the header is not a JSON object")
    return header, 8 + length


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise UnsafeInput("the header has this key twice; which one is meant cannot be known", where=key)
        found[key] = value
    return found


def _texts(texts: Any) -> dict[str, str]:
    if texts is None:
        return {}
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ReadError("this holds something else than texts", where=TEXTS)
    return texts


class _Entry(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _entry(name: str, entry: Any) -> _Entry:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        raise ReadError("the header's entry lacks dtype, shape or data_offsets", where=name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ReadError(f"safetensors has no element type {dtype!r}", where=name)
    if not _are_counts(shape):
        raise ReadError("the shape is not a list of sizes", where=name)
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ReadError("data_offsets are not a begin and an end", where=name)
    return _Entry(dtype, tuple(shape), *offsets)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_offsets(offsets: Mapping[str, tuple[int, int]], size: int) -> None:
    """Refuse tensors that overlap, leave bytes between them, or end elsewhere than the file."""
    position = 0
    for name, (begin, end) in sorted(offsets.items(), key=lambda item: item[1]):
        if begin != position:
            fault = "overlaps the tensor before it" if begin < position else "leaves a hole before it"
            raise UnsafeInput(f"the tensor's data {fault}: it begins at {begin:,}, and not at {position:,}", where=name)
        position = end
    if position != size:
        raise ReadError(f"the header describes {position:,} bytes of data, and {size:,} are there")


def _tensor(name: str, entry: _Entry, data: Window) -> RawArray:
    try:
        return RawArray(data.part(entry.begin, entry.end - entry.begin), _dtype(entry.dtype), entry.shape)
    except ReadError as error:
        error.where = name
        raise


def _dtype(name: str) -> np.dtype[Any]:
    numpy = DTYPES[name]
    if numpy is None:
        raise ReadError(f"elements of {name} share bytes, and NumPy has no such arrays")
    own: Any = numpy
    if not hasattr(np, numpy):
        import ml_dtypes

        own = getattr(ml_dtypes, numpy, None)
        if own is None:
            raise ReadError(f"{numpy} needs a newer ml-dtypes: pip install -U ml-dtypes")
    dtype: np.dtype[Any] = np.dtype(own).newbyteorder("<")
    return dtype


# Writing


def write(stream: BinaryIO, tensors: Mapping[str, Values], texts: Mapping[str, str]) -> None:
    """Write a file: header first, then the tensors, piece by piece. The same content gives the same bytes.

    Raises:
        WriteError: a tensor's element type is none of the format's, or the header would be too large.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-_RANKS[_name_of(*item)], item[0]))
    header: dict[str, Any] = {TEXTS: dict(texts)} if texts else {}
    position = 0
    for name, tensor in ordered:
        end = position + prod(tensor.shape) * tensor.dtype.itemsize
        shape = [int(size) for size in tensor.shape]
        header[name] = {"dtype": _name_of(name, tensor), "shape": shape, "data_offsets": [position, end]}
        position = end
    stream.write(_spelled(header))
    for name, tensor in ordered:
        _copy(name, tensor, stream)


def _name_of(name: str, tensor: Values) -> str:
    if tensor.dtype.name not in _NAMES:
        raise WriteError(f"safetensors has no element type for {tensor.dtype.name}; cast the weight first", where=name)
    return _NAMES[tensor.dtype.name]


def _spelled(header: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise WriteError(f"a name or a text cannot be written as UTF-8: {error.object[error.start :][:1]!r}") from error
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:
        raise WriteError(f"a header of {len(text):,} bytes; safetensors allows {HEADER_LIMIT:,}")
    return len(text).to_bytes(8, "little") + text


def _copy(name: str, tensor: Values, stream: BinaryIO) -> None:
    size = prod(tensor.shape) * tensor.dtype.itemsize
    written = 0
    for piece in tensor.chunks() if size else ():
        written += stream.write(piece)
    if written != size:
        raise WriteError(f"{size:,} bytes are declared, and {written:,} came", where=name)
