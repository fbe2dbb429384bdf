"""Numbers that lie in a window as they are in memory: a contiguous HDF5 dataset, a ``.npy`` file, a safetensors entry.

Nothing is read before it is asked for; what is read is not copied where the bytes are already in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from sys import maxsize
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError
from modelio.wire.window import CHUNK, Window, chunks

__all__ = ["RANK", "RawArray", "Values"]

RANK = 32
"""Dimensions of an array that every NumPy can make."""


class Values(Protocol):
    """An array to come: a :class:`RawArray`, a :class:`~modelio.model.Tensor`. Writers take it, readers give it.

    ``chunks`` gives its C-order little-endian bytes, about a megabyte at a time.
    """

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def numpy(self) -> npt.NDArray[Any]: ...

    def chunks(self) -> Iterator[bytes | memoryview]: ...


class RawArray:
    """An array in a window.

    Args:
        window: exactly the array's bytes.
        dtype: the element type as stored; its byte order may be either.
        shape: sizes of the dimensions.
        fortran: the first index runs fastest.

    Raises:
        ReadError: the window holds another number of bytes, or no array can have this shape.

    ``dtype`` is then the type in native byte order, as :meth:`numpy` gives it.

    >>> from modelio.wire.window import MemoryWindow
    >>> RawArray(MemoryWindow(bytes([0, 1, 0, 2])), ">u2", (2,)).numpy()
    array([1, 2], dtype=uint16)
    """

    def __init__(self, window: Window, dtype: npt.DTypeLike, shape: tuple[int, ...], *, fortran: bool = False) -> None:
        self._window = window
        self._stored = np.dtype(dtype)
        size = prod(shape) * self._stored.itemsize
        # NumPy refuses sizes that cannot be addressed, even beside a zero.
        if (
            len(shape) > RANK
            or min(shape, default=0) < 0
            or prod(filter(None, shape)) * self._stored.itemsize > maxsize
        ):
            raise ReadError(f"no array can have the shape {list(shape)}")
        if window.size != size:
            raise ReadError(f"{window.size:,} bytes are not {list(shape)} of {self._stored.name}, which takes {size:,}")
        self._fortran = fortran and len(shape) > 1
        self.dtype: np.dtype[Any] = self._stored.newbyteorder("=")
        self.shape = shape

    def numpy(self) -> npt.NDArray[Any]:
        """The numbers, C-contiguous, in native byte order; read-only where they are a view of what the window holds."""
        flat = np.frombuffer(self._window.read(0, self._window.size), self._stored)
        if self._stored == np.bool_:
            flat = flat.view(np.uint8) != 0  # a byte other than 0 and 1 would be a bool that equals neither
        array = flat.reshape(self.shape, order="F" if self._fortran else "C")
        return np.ascontiguousarray(array.astype(self.dtype, copy=False)).reshape(self.shape)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The C-order little-endian bytes, about a megabyte at a time."""
        little = self._stored.newbyteorder("<")
        if self._stored == little and self._stored != np.bool_ and not self._fortran:
            yield from chunks(self._window)
            return
        flat = self.numpy().astype(little, copy=False).reshape(-1).view(np.uint8).data
        for offset in range(0, flat.nbytes, CHUNK):
            yield flat[offset : offset + CHUNK]
