"""Zip archives on their way: stored members with fixed dates, and one that is written where it will lie.

zipfile writes members front to back, and HDF5 is not written so; a temporary file would be the whole model once more.
But the header in front of a member has a fixed length (APPNOTE 4.3.7): it is written first, and again when the
member's length and checksum are known.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from modelio.wire.window import CHUNK

__all__ = ["entry", "in_place"]

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip can say: the same model gives the same bytes on every day."""


def entry(name: str) -> zipfile.ZipInfo:
    """A stored member that is the same on every day and machine."""
    info = zipfile.ZipInfo(name, ZIP_DATE)
    info.create_system = 3
    info.external_attr = 0o644 << 16
    info.CRC = 0
    return info


@contextlib.contextmanager
def in_place(archive: zipfile.ZipFile, stream: BinaryIO, name: str, size: int) -> Iterator[BinaryIO]:
    """A new member of an archive, as an empty file for writing, reading back and seeking.

    Args:
        archive: open for writing to ``stream``, which reads and seeks.
        stream: the archive's file.
        name: of the member.
        size: bytes that it will have at most; above 4 GB its header is another.

    >>> stream = io.BytesIO()
    >>> with zipfile.ZipFile(stream, "w") as archive:
    ...     archive.writestr(entry("first"), b"1")
    ...     with in_place(archive, stream, "second", 4) as file:
    ...         _ = file.write(b"_234"), file.seek(0), file.write(b"1")
    >>> with zipfile.ZipFile(stream) as archive:
    ...     archive.testzip(), archive.read("second")
    (None, b'1234')
    """
    info = entry(name)
    large = size > zipfile.ZIP64_LIMIT
    info.header_offset = stream.seek(0, io.SEEK_END)
    stream.write(info.FileHeader(large))
    start = stream.tell()
    yield cast(BinaryIO, _From(stream, start))
    info.file_size = info.compress_size = stream.seek(0, io.SEEK_END) - start
    stream.seek(start)
    while piece := stream.read(CHUNK):
        info.CRC = zlib.crc32(piece, info.CRC)
    stream.seek(info.header_offset)
    stream.write(info.FileHeader(large))
    # What ZipFile.open does when a member that it wrote is closed.
    archive.start_dir = stream.seek(0, io.SEEK_END)
    archive.filelist.append(info)
    archive.NameToInfo[info.filename] = info


class _From(io.RawIOBase):
    """A file from some place on, as a file."""

    def __init__(self, stream: BinaryIO, start: int) -> None:
        super().__init__()
        self._stream = stream
        self._start = start

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset + self._start if whence == io.SEEK_SET else offset, whence) - self._start

    def tell(self) -> int:
        return self._stream.tell() - self._start

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)  # type: ignore[attr-defined,no-any-return]  # typeshed's BinaryIO lacks it

    def write(self, data: Any) -> int:
        return self._stream.write(data)

    def truncate(self, size: int | None = None) -> int:
        return self._stream.truncate(None if size is None else size + self._start) - self._start
