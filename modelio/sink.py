"""Files on their way to a target: nothing shows there before ``commit()``.

A format module adds files to a sink; whether they end up as bytes, one file, a directory, a zip or entries of a mapping
is the caller's choice and not its business. A write that fails or is killed leaves the old target whole and no litter.
What is written is deterministic: sorted entries, fixed dates.

>>> with Sink.open(None, shape="blob") as sink:
...     with sink.file() as f:
...         _ = f.write(b"hello")
...     sink.commit()
b'hello'
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from modelio.errors import WriteError
from modelio.source import member_name
from modelio.wire.window import CHUNK

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Shape", "Sink"]

Shape = Literal["blob", "tree"]

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip can say: the same model gives the same bytes on every day."""


class Sink:
    """Collects files and puts them at the target in one step. Make one with :meth:`open`, use it in a ``with``."""

    shape: Shape
    name: str = ""
    """The target's path, for a format that writes two spellings told apart by suffix; empty where there is none."""

    def __init__(self, shape: Shape, target: Any) -> None:
        self.shape = shape
        self._target = target
        self._folders: set[str] = set()

    @staticmethod
    def open(target: object, *, shape: Shape, overwrite: bool = False) -> Sink:
        """The sink for a target.

        Args:
            target: None gives bytes (a tree as a zip); a path gives a file or a directory (a zip, for a tree and a path
                that ends in ``.zip``); a binary file object gets the bytes; a mutable mapping gets a tree's members.
            shape: what will be written.
            overwrite: replace what is there.

        Raises:
            WriteError: the target exists, or is of another kind than what will be written.
            TypeError: the target is none of the kinds above.
        """
        if target is None:
            return _Memory(shape, None)
        if isinstance(target, (str, os.PathLike)):
            path = os.fsdecode(target)
            as_file = shape == "blob" or path.lower().endswith(".zip")
            _check_path(path, as_file, overwrite)
            return (_File if as_file else _Directory)(path, target, shape, overwrite)
        if isinstance(target, MutableMapping):
            if shape == "blob":
                raise WriteError("one file does not go into a mapping; leave target out to get its bytes")
            if target and not overwrite:
                raise WriteError("the mapping is not empty; pass overwrite=True to replace what is in it")
            return _Memory(shape, target)
        if hasattr(target, "write"):
            if isinstance(target, io.TextIOBase):
                raise TypeError("the file object is open as text; open it in binary mode")
            if hasattr(target, "writable") and not target.writable():
                raise TypeError("the file object is open for reading; open it for writing")
            return _Memory(shape, target)
        raise TypeError(f"a model is written to a path, a file object or a mapping, not {type(target).__name__}")

    def file(self, name: str = "") -> BinaryIO:
        """A new file of the target, open for writing, reading back and seeking; close it before ``commit``.

        ``name`` is the path inside a tree, and left out for a blob.
        """
        raise NotImplementedError

    def commit(self) -> Any:
        """Make everything visible at once; the target, or the bytes where there is none."""
        raise NotImplementedError

    def discard(self) -> None:
        """Forget everything; nothing was visible. Harmless after ``commit``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def _member(self, name: str, taken: Iterable[str]) -> str:
        """The checked name of a new member."""
        clean = member_name(name)
        if (clean == "") != (self.shape == "blob"):
            raise ValueError(f"a {self.shape} has no member {name!r}")
        if clean in taken:
            raise WriteError("the target would have this member twice", where=clean)
        folders = {clean[:end] for end, letter in enumerate(clean) if letter == "/"}
        if clean in self._folders or not folders.isdisjoint(taken):
            raise WriteError("the target would have this member as a file and as a folder", where=clean)
        self._folders |= folders
        return clean


class _Memory(Sink):
    """Files in memory, for bytes, file objects and mappings. Opens no file."""

    def __init__(self, shape: Shape, target: Any) -> None:
        super().__init__(shape, target)
        self._files: dict[str, _Kept] = {}

    def file(self, name: str = "") -> BinaryIO:
        clean = self._member(name, self._files)
        self._files[clean] = _Kept()
        return self._files[clean]

    def commit(self) -> Any:
        files, self._files = self._files, {}
        target = self._target
        if isinstance(target, MutableMapping):
            target.clear()
            target.update((name, files[name].content()) for name in sorted(files))
            return target
        if self.shape == "blob":
            data: Any = files[""].content()
        else:
            stream = io.BytesIO()
            _write_zip(stream, ((name, io.BytesIO(files.pop(name).content())) for name in sorted(files)))
            data = stream.getvalue()
        if target is None:
            return data
        _write_all(target, data)
        return target


class _Kept(io.BytesIO):
    """A file in memory whose content outlives ``close``."""

    _content: bytes | None = None

    def close(self) -> None:
        if not self.closed:
            self._content = self.getvalue()
        super().close()

    def content(self) -> bytes:
        return self.getvalue() if self._content is None else self._content


class _OnDisk(Sink):
    """Files beside their target, which get their names in ``commit``."""

    def __init__(self, path: str, target: object, shape: Shape, overwrite: bool) -> None:
        super().__init__(shape, target)
        self.name = path
        self._path = os.path.realpath(path)  # a link at the target keeps pointing where it points
        self._overwrite = overwrite
        self._parts: dict[str, _Part] = {}
        self._folder = os.path.dirname(self._path)
        self._temporary = _passing(self._folder)
        self._made: list[str] = []
        self._near = self._folder
        while not os.path.lexists(self._near):
            self._near = os.path.dirname(self._near)
        if not os.path.isdir(self._near):
            raise WriteError(f"cannot be written: {self._near} is not a directory", source=path)

    def file(self, name: str = "") -> BinaryIO:
        clean = self._member(name, self._parts)
        with self._blamed():
            self._parts[clean] = _Part(self._near, unnamed=len(self._parts) < UNNAMED_LIMIT)
            return self._parts[clean].open()

    def commit(self) -> Any:
        with self._blamed():
            _make_folder(self._folder, self._made)
            self._put()
        self._made.clear()
        self.discard()
        return self._target

    def _put(self) -> None:
        """Build what is at ``_temporary`` and move it to the target."""
        raise NotImplementedError

    def discard(self) -> None:
        for part in self._parts.values():
            part.forget()
        self._parts.clear()
        _remove(self._temporary)
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        self._made.clear()

    @contextlib.contextmanager
    def _blamed(self) -> Iterator[None]:
        """Turn the system's refusal into an error that names the target, not the file on the way to it."""
        try:
            yield
        except OSError as error:
            taken = error.errno in (errno.EEXIST, errno.ENOTEMPTY)  # since it was opened
            raise WriteError(_TAKEN if taken else f"cannot be written: {error.strerror}", source=self.name) from error


class _Directory(_OnDisk):
    """A directory that is built beside its target and moved there."""

    def _put(self) -> None:
        os.mkdir(self._temporary)
        for name, part in sorted(self._parts.items()):
            path = os.path.join(self._temporary, *name.split("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            part.place(path)
        # Exchanged in one step where the system can, so that there is a whole model at the target at every moment.
        if not self._overwrite or not os.path.isdir(self._path):
            os.rename(self._temporary, self._path)  # an empty directory may be there
        elif not _exchange(self._temporary, self._path):
            old = self._temporary + ".old"
            os.rename(self._path, old)
            try:
                os.rename(self._temporary, self._path)
            except OSError:
                os.rename(old, self._path)
                raise
            _remove(old)


class _File(_OnDisk):
    """One file that is written beside its target and moved there; a tree becomes a zip."""

    def _put(self) -> None:
        part = self._zipped() if self.shape == "tree" else self._parts[""]
        if self._overwrite:
            part.place(self._temporary)
            os.replace(self._temporary, self._path)
        else:
            part.place(self._path)

    def _zipped(self) -> _Part:
        archive = _Part(self._near, unnamed=True)
        with archive.open() as stream:
            _write_zip(stream, ((name, part.open()) for name, part in sorted(self._parts.items())))
        self._parts["\0zip"] = archive  # no member's name
        return archive


UNNAMED_LIMIT = 256
"""Members that keep a descriptor open until ``commit``; of further ones the name is kept."""


class _Part:
    """One file on its way.

    Where the system has files without a name (``O_TMPFILE``, Linux 3.11), nothing is left of it when the process is
    killed; elsewhere it is a hidden file that an orderly end removes.
    """

    def __init__(self, folder: str, unnamed: bool) -> None:
        self._name = _passing(folder)
        self._descriptor: int | None = None
        if unnamed and os.path.isdir(_DESCRIPTORS):
            with contextlib.suppress(AttributeError, OSError):  # not Linux, or a file system that cannot
                self._descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
        if self._descriptor is None:
            os.close(os.open(self._name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))

    def open(self) -> BinaryIO:
        """The file, for reading and writing, from its start."""
        raw = _Raw(self._name if self._descriptor is None else os.dup(self._descriptor), "r+")
        raw.seek(0)
        return io.BufferedRandom(raw)

    def place(self, path: str) -> None:
        """Give it the name ``path``, which must be free."""
        if self._descriptor is None:
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            os.rename(self._name, path)
            return
        folder = os.open(_DESCRIPTORS, os.O_RDONLY)
        try:
            os.link(str(self._descriptor), path, src_dir_fd=folder)
        finally:
            os.close(folder)

    def forget(self) -> None:
        """Close it and drop the name that it had on the way."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        else:
            _remove(self._name)


_DESCRIPTORS = "/proc/self/fd"


def _passing(folder: str) -> str:
    """A name that nobody else has, for what is not to stay."""
    return os.path.join(folder, f".modelio-{os.urandom(12).hex()}.tmp")


class _Raw(io.FileIO):
    """A file on disk whose refusal to take more bytes (full, over quota) is a WriteError."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise WriteError(f"cannot be written: {error.strerror}") from error


_TAKEN = "the target exists; pass overwrite=True (--overwrite) to replace it"


def _check_path(path: str, as_file: bool, overwrite: bool) -> None:
    if not path:
        raise WriteError("the target has no name", source="''")
    if as_file and (os.path.isdir(path) or path.endswith(os.sep)):
        raise WriteError("the target is a directory, and one file is to be written: name the file", source=path)
    if not os.path.lexists(path):
        return
    if os.path.isdir(path):
        if os.listdir(path) and not overwrite:
            raise WriteError(_TAKEN, source=path)
        return
    if not as_file:
        raise WriteError("the target is a file, and a directory is to be written: name another", source=path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise WriteError("the target is a device or a pipe, not a file; open it and pass the file object", source=path)
    if not overwrite:
        raise WriteError(_TAKEN, source=path)


def _make_folder(folder: str, made: list[str]) -> None:
    """Make a directory and those above it; ``made`` gets those that were not there, outermost first."""
    if os.path.isdir(folder):
        return
    _make_folder(os.path.dirname(folder), made)
    try:
        os.mkdir(folder)
        made.append(folder)
    except FileExistsError:
        if not os.path.isdir(folder):  # another process may have made it
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder) from None


def _remove(path: str) -> None:
    if os.path.isdir(path):
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # most often it is not there
            os.remove(path)


def _write_all(target: Any, data: bytes) -> None:
    """Write to a file object that somebody else made; a raw one may take a part at a time."""
    written = target.write(data)
    while isinstance(written, int) and 0 < written < len(data):
        data = data[written:]
        written = target.write(data)


def _write_zip(stream: BinaryIO, members: Iterator[tuple[str, BinaryIO]]) -> None:
    """A zip of stored members, the same bytes for the same members on every day and machine."""
    import shutil
    import zipfile  # neither is needed to read

    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name, ZIP_DATE)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            entry.file_size = content.seek(0, io.SEEK_END)
            content.seek(0)
            with content, archive.open(entry, "w") as member:
                shutil.copyfileobj(content, member, CHUNK)


def _exchange(one: str, other: str) -> bool:
    """Swap two directories in one step; False where the system cannot (renameat2 is Linux 3.15 and later)."""
    import ctypes

    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE (linux/fcntl.h, linux/fs.h)
    return bool(swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)
