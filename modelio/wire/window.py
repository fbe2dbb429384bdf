"""A window: random-access bytes of known length, in memory or in a part of a file.

Every lazy tensor reads through a window, so that a weight inside an HDF5 file, a data shard or a stored zip member is
fetched when it is asked for, without the library that found it. File windows use ``pread``: no shared position, and no
mapping whose pages would count as this process's memory.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from modelio.errors import ReadError

__all__ = ["CHUNK", "FileWindow", "MemoryWindow", "StreamWindow", "Window", "WindowIO", "chunks"]

CHUNK = 1 << 18
"""Bytes that streaming copies move at a time."""


class Window(Protocol):
    """Random access to ``size`` bytes."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Exactly ``length`` bytes from ``offset``; :class:`~modelio.errors.ReadError` where they do not exist."""

    def part(self, offset: int, length: int) -> Window:
        """The window onto ``length`` bytes from ``offset``, checked now, read later."""


class _Bounded:
    """The checks and conveniences that all windows share."""

    size: int

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ReadError(
                f"{length:,} bytes at offset {offset:,} are wanted, but only {self.size:,} bytes exist: "
                "the file is cut short or its index is wrong"
            )


class MemoryWindow(_Bounded):
    """A window onto bytes in memory; what it returns are views, not copies.

    >>> bytes(MemoryWindow(b"abcdef").part(1, 4).read(1, 2))
    b'cd'
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data).cast("B")
        self.size = self._view.nbytes

    def read(self, offset: int, length: int) -> memoryview:
        self._check(offset, length)
        return self._view[offset : offset + length]

    def part(self, offset: int, length: int) -> MemoryWindow:
        return MemoryWindow(self.read(offset, length))


class FileWindow(_Bounded):
    """A window onto a part of a regular file. The file is opened at the first read and closed with the window.

    A file that shrank or was replaced since the window was made is an error, not other numbers.
    """

    def __init__(self, path: str, start: int = 0, size: int | None = None, *, _file: _OpenFile | None = None) -> None:
        self._file = _file or _OpenFile(path)
        self._start = start
        self.size = self._file.size - start if size is None else size

    def read(self, offset: int, length: int) -> bytes:
        self._check(offset, length)
        return self._file.pread(self._start + offset, length)

    def part(self, offset: int, length: int) -> FileWindow:
        self._check(offset, length)
        return FileWindow(self._file.path, self._start + offset, length, _file=self._file)


class _OpenFile:
    """One descriptor, shared by all windows onto the same file."""

    def __init__(self, path: str) -> None:
        self.path = path
        status = os.stat(path)
        self.size = status.st_size
        self._identity = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        self._descriptor: int | None = None

    def pread(self, offset: int, length: int) -> bytes:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        status = os.fstat(self._descriptor)
        if (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size) != self._identity:
            raise ReadError(f"{self.path} changed after the model was opened; read it again, or model.load() it first")
        data = os.pread(self._descriptor, length, offset)
        if len(data) < length:  # one call returns at most 2 GiB on Linux
            pieces = [data]
            missing = length - len(data)
            while missing and pieces[-1]:
                pieces.append(os.pread(self._descriptor, missing, offset + length - missing))
                missing -= len(pieces[-1])
            data = b"".join(pieces)
        if len(data) < length:
            raise ReadError(f"{self.path} ends at {offset + len(data):,} bytes, {length - len(data):,} too early")
        return data

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # type: ignore[arg-type]  # mypy cannot see through getattr


class StreamWindow(_Bounded):
    """A window onto a seekable binary file object that somebody else owns."""

    def __init__(self, stream: BinaryIO, start: int = 0, size: int | None = None) -> None:
        self._stream = stream
        self._start = start
        self.size = stream.seek(0, io.SEEK_END) - start if size is None else size

    def read(self, offset: int, length: int) -> bytes:
        self._check(offset, length)
        try:
            self._stream.seek(self._start + offset)
            data = self._stream.read(length)
            while 0 < len(data) < length:  # an unbuffered one may give a part at a time
                more = self._stream.read(length - len(data))
                if not more:
                    break
                data += more
        except ValueError as error:  # "I/O operation on closed file"
            raise ReadError("the file object was closed; model.load() before closing it") from error
        if len(data) != length:
            raise ReadError(f"{length:,} bytes at offset {offset:,} are wanted, {len(data):,} came")
        return data

    def part(self, offset: int, length: int) -> StreamWindow:
        self._check(offset, length)
        return StreamWindow(self._stream, self._start + offset, length)


class WindowIO(io.RawIOBase):
    """A window as a read-only, seekable binary file: for libraries that want a file object."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self._window = window
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._window.size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, f"negative seek position {base + offset}")  # as a file on disk does
        self._position = base + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # typeshed's Buffer is not importable at run time before 3.12
        length = max(0, min(view.nbytes, self._window.size - self._position))
        if length:
            view[:length] = self._window.read(self._position, length)
        self._position += length
        return length


def chunks(window: Window, size: int = CHUNK) -> Iterator[bytes | memoryview]:
    """The bytes of ``window`` in order, at most ``size`` at a time.

    >>> [bytes(piece) for piece in chunks(MemoryWindow(b"abcde"), 2)]
    [b'ab', b'cd', b'e']
    """
    for offset in range(0, window.size, size):
        yield window.read(offset, min(size, window.size - offset))
