r"""NumPy's ``.npy`` and ``.npz``: arrays with a header, and a zip of such.

::

    .npy    "\x93NUMPY", version (1..3, 0), uint16 or uint32 header length,
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }" padded to 64 bytes with spaces and a newline,
            the elements
    .npz    a zip of "<name>.npy"

The members of a zip are found and checked by :mod:`modelio.source`; this module reads what is in one. Arrays of Python
objects are pickles, which run code: they are refused. ``bfloat16`` is two bytes of no type (``<V2``), as ``numpy.save``
writes it. Source: ``numpy/lib/format.py`` (NumPy 2.2), NEP 1.
"""

from __future__ import annotations

import ast
import re
from math import prod
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.wire.raw import RawArray, Values
from modelio.wire.window import Window

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RawArray", "Writer", "read_npy"]

MAGIC = b"\x93NUMPY"

HEADER_LIMIT = 10_000
"""Bytes of a header's text; NumPy's own limit (``max_header_size``), below which Python's parser is safe."""

ZIP_DATE = (1980, 1, 1, 0, 0, 0)

_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16)")


def read_npy(window: Window, *, where: str | None = None) -> RawArray:
    """The array in a ``.npy`` file: its header is read now, its elements when asked.

    Raises:
        ReadError: this is not ``.npy``, is cut short, or holds no numbers.
        UnsafeInput: it holds Python objects.
    """
    head = bytes(window.read(0, min(12, window.size)))
    version = head[6] if len(head) == 12 and head.startswith(MAGIC) else 0
    if version not in _LENGTH_BYTES:
        raise ReadError("this is not a .npy array: its first bytes are others", where=where)
    start = 8 + _LENGTH_BYTES[version]
    length = int.from_bytes(head[8:start], "little")
    if length > HEADER_LIMIT:
        raise UnsafeInput(f"a .npy header of {length:,} bytes; numbers need 100", where=where)
    if start + length > window.size:
        raise ReadError("the .npy array is cut short in its header", where=where)
    descr, fortran, shape = _header(bytes(window.read(start, length)), where)
    dtype = _dtype(descr, where)
    try:
        return RawArray(window.part(start + length, window.size - start - length), dtype, shape, fortran=fortran)
    except ReadError as error:
        error.where = where
        raise


def _header(text: bytes, where: str | None) -> tuple[Any, bool, tuple[int, ...]]:
    try:
        header = ast.literal_eval(text.decode("utf-8").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise ReadError("the .npy header is not what NumPy writes", where=where) from error
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise ReadError(f"the .npy header gives the shape {str(shape)[:60]}", where=where)
    return descr, bool(fortran), shape


def _dtype(descr: Any, where: str | None) -> np.dtype[Any]:
    if isinstance(descr, str) and _NUMBERS.fullmatch(descr):
        return np.dtype(descr)
    if isinstance(descr, str) and descr.lstrip("<>|=") == "V2":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    if "O" in str(descr):
        raise UnsafeInput(
            "an array of Python objects is a pickle, and unpickling runs code: it is not read", where=where
        )
    raise ReadError(f"elements of type {str(descr)[:60]}; weights are numbers", where=where)


class Writer:
    """Writes a ``.npz`` of stored members, each array piece by piece; the same arrays give the same bytes.

    >>> import io
    >>> from modelio.wire.window import MemoryWindow
    >>> stream = io.BytesIO()
    >>> with Writer(stream) as file:
    ...     file.add("0000", RawArray(MemoryWindow(np.arange(3.0)), "<f8", (3,)))
    >>> np.load(io.BytesIO(stream.getvalue()))["0000"]
    array([0., 1., 2.])
    """

    def __init__(self, stream: BinaryIO) -> None:
        import zipfile  # not to read: nine formats are asked whose a file is, this one with them

        self._zipfile = zipfile
        self._archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED)

    def add(self, name: str, values: Values) -> None:
        """Add an array; :class:`~modelio.errors.WriteError` where its elements have no spelling in ``.npy``."""
        header = _spelled(values.dtype, values.shape, name)
        size = prod(values.shape) * values.dtype.itemsize
        entry = self._zipfile.ZipInfo(f"{name}.npy", ZIP_DATE)
        entry.create_system = 3  # the same on every system
        entry.external_attr = 0o644 << 16
        entry.file_size = len(header) + size
        with self._archive.open(entry, "w") as member:
            member.write(header)
            written = sum(member.write(piece) for piece in values.chunks())
        if written != size:
            raise WriteError(f"{size:,} bytes are declared, and {written:,} came", where=name)

    def close(self) -> None:
        """Write the zip's directory. The stream stays open."""
        self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _spelled(dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> bytes:
    little = dtype.newbyteorder("<")
    descr = "<V2" if dtype.name == "bfloat16" else little.str
    if descr != "<V2" and (dtype.isbuiltin == 2 or not _NUMBERS.fullmatch(descr)):
        raise WriteError(f".npy has no spelling for elements of {dtype.name}", where=where)
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    # 1.0 and 64 bytes: what NumPy writes for all that fits into it.
    padded = text + " " * (-(len(MAGIC) + 4 + len(text) + 1) % 64) + "\n"
    return MAGIC + bytes([1, 0]) + len(padded).to_bytes(2, "little") + padded.encode("ascii")
