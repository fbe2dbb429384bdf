"""Anything readable becomes one Source: a path, bytes, a file object, a directory, a dict of bytes, a zip.

A format module asks a source for its ``tree`` (members by their path) or for its bytes, and never learns which of these
it was. What a hostile container could try is refused here, once: names that leave the tree, links out of it, duplicate
members, sizes that lie, zip bombs.

>>> zipped = Source.of({"a/b.txt": b"hello"})
>>> zipped.tree["a/b.txt"].bytes()
b'hello'
"""

from __future__ import annotations

import builtins
import glob
import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from modelio.errors import ReadError, UnsafeInput
from modelio.wire.window import FileWindow, MemoryWindow, StreamWindow, Window, WindowIO

if TYPE_CHECKING:
    import zipfile

__all__ = ["Source", "Tree", "member_name"]

MEMBER_LIMIT = 100_000
"""Files in one tree. The largest SavedModel in use has a few hundred; a directory above this is not a model."""

DEPTH_LIMIT = 32
"""Nested directories in one tree."""

INFLATE_FREE = 256 << 20
"""Bytes that a compressed member may unpack to, however well it is packed: zeros are packed 1,000 to 1."""

INFLATE_RATIO = 100
"""How much more a larger member may unpack to than it is packed to. Weights are packed 1.1 to 1, a graph 20 to 1."""

INFLATE_LIMIT = 4 << 30
"""Bytes that any compressed member may unpack to; members that hold more are stored, as NumPy and Keras do."""

DIRECTORY_LIMIT = 64 << 20
"""Bytes of a zip's list of members: 640 for each of as many as there may be."""

STORED, DEFLATED = 0, 8
"""The compression methods of zips that are read (APPNOTE 4.4.5)."""


def member_name(name: str) -> str:
    """``name`` as a clean relative path with ``/``; :class:`~modelio.errors.UnsafeInput` where it leaves the tree.

    >>> member_name("./variables//variables.index")
    'variables/variables.index'
    """
    if "\0" in name or "\\" in name or name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        raise UnsafeInput("the member's name is absolute or not portable; it is not followed", where=repr(name))
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafeInput("the member's name leaves its container; it is not followed", where=repr(name))
    return "/".join(parts)


class Source:
    """Something readable, with a name for messages. Make one with :meth:`of`."""

    def __init__(self, name: str) -> None:
        self.name = name

    @staticmethod
    def of(source: object, *, name: str | None = None) -> Source:
        """The source for a path, bytes, a binary file object, a mapping of member names to any of these, or a source.

        A file object that cannot seek is read to its end now; one that can is read from its start, where and when
        needed, and belongs to the caller.

        Raises:
            FileNotFoundError: the path does not exist.
            ReadError: it is neither a file nor a directory.
            TypeError: it is none of the kinds above.
        """
        if isinstance(source, Source):
            return source
        if isinstance(source, (str, os.PathLike)):
            return _of_path(os.fsdecode(source), name)
        if isinstance(source, (bytes, bytearray, memoryview)):
            window = MemoryWindow(source)
            return _Blob(name or f"<{window.size:,} bytes>", window)
        if isinstance(source, Mapping):
            return _Container(name or "<mapping>", _MappingTree(source))
        if hasattr(source, "read"):
            return _of_stream(source, name)
        raise TypeError(
            "a model is read from a path, bytes, a binary file object or a mapping of these, "
            f"not {type(source).__name__}"
        )

    @property
    def tree(self) -> Tree | None:
        """The members, where this is a directory, a mapping or a zip; None for other bytes."""
        raise NotImplementedError

    @property
    def beside(self) -> Mapping[str, Source]:
        """What lies in the same directory (or tree) as this file; empty where there is no such place."""
        return {}

    @property
    def size(self) -> int:
        """Number of bytes; 0 for a tree that is not a zip."""
        return 0

    def window(self) -> Window:
        """Random access to the bytes."""
        raise ReadError("a directory has no bytes of its own; a single file is wanted here", where=self.name)

    def head(self, length: int = 64) -> bytes:
        """The first ``length`` bytes or fewer; ``b""`` for a directory or a mapping."""
        return b""

    def bytes(self, limit: int | None = None) -> builtins.bytes:
        """All bytes; :class:`~modelio.errors.UnsafeInput` where they are more than ``limit``."""
        if limit is not None and self.size > limit:  # asked before a window may have to unpack them
            raise UnsafeInput(f"{self.size:,} bytes, more than the {limit:,} that belong here", where=self.name)
        window = self.window()
        return bytes(window.read(0, window.size))

    def open(self) -> BinaryIO:
        """The bytes as a read-only, seekable, buffered file object."""
        return io.BufferedReader(WindowIO(self.window()), 1 << 16)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its content: where it lay means nothing to another process."""
        tree = self.tree
        content: Any = self.bytes() if tree is None else dict(tree)
        return _of_content, (content, self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__.strip('_')}({self.name!r})"


def _of_content(content: Any, name: str) -> Source:
    return Source.of(content, name=name)


class Tree(Mapping[str, Source]):
    """Members by relative path. Asking for one never lists the rest; iterating goes through all of them, sorted."""

    def names(self, folder: str) -> list[str]:
        """The names below ``folder``, sorted; of all members where it is ``""``."""
        return [name for name in self if name.startswith(folder + "/")] if folder else list(self)

    def top(self) -> list[str]:
        """The names directly at the root, sorted; directories without a slash."""
        return sorted({name.partition("/")[0] for name in self})

    def below(self, folder: str) -> Tree:
        """The part of the tree below ``folder``; empty where there is none."""
        return _Below(self, folder)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Blob(Source):
    """Bytes behind a window; a tree where they are a zip."""

    def __init__(self, name: str, window: Window, beside: Mapping[str, Source] | None = None) -> None:
        super().__init__(name)
        self._window = window
        self._beside = beside

    @property
    def size(self) -> int:
        return self._window.size

    @property
    def beside(self) -> Mapping[str, Source]:
        return self._beside if self._beside is not None else {}

    def window(self) -> Window:
        return self._window

    def head(self, length: int = 64) -> bytes:
        return bytes(self._window.read(0, min(length, self._window.size)))

    @cached_property
    def tree(self) -> Tree | None:
        return _ZipTree(self) if self.head(4) in (b"PK\x03\x04", b"PK\x05\x06") else None


class _Container(Source):
    """A directory, a mapping, or a folder in one."""

    def __init__(self, name: str, tree: Tree) -> None:
        super().__init__(name)
        self._tree = tree

    @property
    def tree(self) -> Tree:
        return self._tree


def _of_path(path: str, name: str | None) -> Source:
    name = name or path
    try:
        mode = os.stat(path).st_mode  # follows links: what the caller names is trusted, what a file names is not
    except FileNotFoundError:
        path = _with_suffix(path)
        mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return _Container(name, _DirectoryTree(path))
    if not stat.S_ISREG(mode):
        raise ReadError("neither a regular file nor a directory", source=path)
    return _Blob(name, FileWindow(path), _DirectoryTree(os.path.dirname(path) or os.curdir))


def _with_suffix(path: str) -> str:
    """The file that stands for a checkpoint, which is called by what its files' names begin with; else ``path``."""
    first = glob.glob(f"{glob.escape(path)}-00000-of-[0-9][0-9][0-9][0-9][0-9]")
    return next((file for file in (f"{path}.index", *sorted(first)) if os.path.isfile(file)), path)


def _of_stream(stream: Any, name: str | None) -> Source:
    label = name or (stream.name if isinstance(getattr(stream, "name", None), str) else "<stream>")
    seekable = getattr(stream, "seekable", None)
    if seekable is None or not seekable():
        data = stream.read()
        if not isinstance(data, bytes):
            raise TypeError("the file object is open as text; open it in binary mode")
        return _Blob(label, MemoryWindow(data))
    if isinstance(stream, io.TextIOBase):
        raise TypeError("the file object is open as text; open it in binary mode")
    return _Blob(label, StreamWindow(stream))


class _MappingTree(Tree):
    """A mapping that the caller built: names to bytes, paths, file objects, sources, or mappings again."""

    def __init__(self, mapping: Mapping[Any, Any]) -> None:
        self._members: dict[str, Any] = {}
        self._add("", mapping, 0)

    def _add(self, prefix: str, mapping: Mapping[Any, Any], depth: int) -> None:
        if depth > DEPTH_LIMIT:
            raise UnsafeInput(f"mappings nested deeper than {DEPTH_LIMIT}", where=prefix)
        for key, value in mapping.items():
            if not isinstance(key, str):
                raise TypeError(f"member names are strings, not {type(key).__name__}")
            if not member_name(key):
                raise UnsafeInput("a member has no name", where=repr(prefix + key))
            name = prefix + member_name(key)
            folder = value if isinstance(value, Mapping) else _folder(value)
            if folder is not None:
                self._add(name + "/", folder, depth + 1)
            elif name in self._members:
                raise UnsafeInput("the member is there twice", where=name)
            else:
                self._members[name] = value

    def __getitem__(self, name: str) -> Source:
        value = self._members[name]
        if isinstance(value, Source):
            return value
        member = Source.of(value, name=name)
        if isinstance(member, _Blob):
            member._beside = _Below(self, name.rpartition("/")[0])
        self._members[name] = member  # what cannot seek can be read only once
        return member

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._members))


def _folder(value: object) -> Tree | None:
    """The members of what is a directory, given as a path or as a source; a zip stays one file."""
    if isinstance(value, (str, os.PathLike)) and os.path.isdir(value):
        return _DirectoryTree(os.fsdecode(value))
    return value.tree if isinstance(value, _Container) else None


class _DirectoryTree(Tree):
    """A directory on disk. Links inside it are followed only where they stay inside it."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._real: str | None = None

    def _path(self, name: object) -> str | None:
        """The path of a member that exists as a file, or None."""
        if not isinstance(name, str) or not name or member_name(name) != name:
            return None
        path = os.path.join(self._root, *name.split("/"))
        if not os.path.isfile(path):
            return None
        self._contain(name)
        return path

    def _contain(self, name: str) -> None:
        """Refuse what is reached by a link that leads out."""
        if self._real is None:
            self._real = os.path.realpath(self._root)
        if os.path.commonpath([self._real, os.path.realpath(os.path.join(self._root, name))]) != self._real:
            raise UnsafeInput(f"a link leads out of {self._root}; it is not followed: copy what it names", where=name)

    def __getitem__(self, name: str) -> Source:
        path = self._path(name)
        if path is None:
            raise KeyError(name)
        return _Blob(path, FileWindow(path), _Below(self, name.rpartition("/")[0]))

    def __contains__(self, name: object) -> bool:
        return self._path(name) is not None

    def top(self) -> list[str]:
        return sorted(os.listdir(self._root))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names(""))

    def names(self, folder: str) -> list[str]:
        names: list[str] = []
        folders = [member_name(folder)] if os.path.isdir(os.path.join(self._root, folder)) else []
        seen = 0
        while folders:
            here = folders.pop()
            if here.count("/") >= DEPTH_LIMIT:
                raise UnsafeInput(f"directories nested deeper than {DEPTH_LIMIT}", where=here)
            if os.path.islink(os.path.join(self._root, here)):
                self._contain(here)
            with os.scandir(os.path.join(self._root, here)) as entries:
                for entry in entries:
                    seen += 1
                    if seen > MEMBER_LIMIT:
                        raise UnsafeInput(f"more than {MEMBER_LIMIT:,} files below {self._root}: this is not a model")
                    name = f"{here}/{entry.name}" if here else entry.name
                    if not os.path.isdir(entry.path):
                        names += [name] if os.path.isfile(entry.path) else []
                    elif not entry.is_symlink() or not _leads_up(entry.path):
                        folders.append(name)
        return sorted(names)


def _leads_up(link: str) -> bool:
    """Whether a link to a directory leads to one that the link is in: following it would never end."""
    goal = os.path.realpath(link)
    return os.path.commonpath([goal, os.path.realpath(os.path.dirname(link))]) == goal


class _Below(Tree):
    """A folder of another tree, as a tree."""

    def __init__(self, tree: Tree, folder: str) -> None:
        self._whole = tree
        self._prefix = folder + "/" if folder else ""

    def __getitem__(self, name: str) -> Source:
        return self._whole[self._prefix + name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._prefix + name in self._whole

    def top(self) -> list[str]:
        return super().top() if self._prefix else self._whole.top()

    def __iter__(self) -> Iterator[str]:
        return (name[len(self._prefix) :] for name in self._whole.names(self._prefix.rstrip("/")))

    def names(self, folder: str) -> list[str]:
        return [name[len(self._prefix) :] for name in self._whole.names(self._prefix + folder)]


class _ZipTree(Tree):
    """The members of a zip. The central directory is read now and checked; members are read when asked.

    A stored member is a window onto the archive; its CRC is checked when it is read whole with ``bytes()``. A
    compressed one is unpacked in memory, never beyond the size that it declares.
    """

    def __init__(self, archive: Source) -> None:
        import zipfile  # with all that it imports, a third of the time of `import modelio`

        self._archive = archive
        self._entries: dict[str, zipfile.ZipInfo] = {}
        try:
            with zipfile.ZipFile(_MemberList(WindowIO(archive.window()))) as directory:
                entries = directory.infolist()
        except UnsafeInput:
            raise
        except (zipfile.BadZipFile, OSError, ValueError, OverflowError, NotImplementedError, struct.error) as error:
            raise ReadError(f"a zip whose directory cannot be read ({error}): it is cut short or damaged") from error
        for entry in entries:
            if not entry.orig_filename.endswith("/"):  # a folder of its own; is_dir() stops on an empty name
                self._entries[self._checked(entry)] = entry

    def _checked(self, entry: zipfile.ZipInfo) -> str:
        name = member_name(entry.orig_filename)
        if not name:
            raise UnsafeInput("a member of the zip has no name", where=repr(entry.orig_filename))
        if name in self._entries:
            raise UnsafeInput("the zip has this member twice; which one is meant cannot be known", where=name)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise UnsafeInput("the zip's member is a link; links are not followed", where=name)
        if entry.flag_bits & 0x1:
            raise ReadError("the zip's member is encrypted; decrypt the archive first", where=name)
        if entry.compress_type == STORED:
            if entry.file_size != entry.compress_size or entry.file_size > self._archive.size:
                raise UnsafeInput(f"the zip's member declares {entry.file_size:,} bytes and holds fewer", where=name)
        elif entry.compress_type != DEFLATED:
            raise ReadError(f"compression method {entry.compress_type} is not supported; store or deflate", where=name)
        elif entry.file_size > min(INFLATE_LIMIT, max(INFLATE_FREE, INFLATE_RATIO * entry.compress_size)):
            raise UnsafeInput(
                f"{entry.compress_size:,} compressed bytes that claim to unpack to {entry.file_size:,}: they are not "
                "unpacked; store the member instead (zip -0)",
                where=name,
            )
        return name

    def __getitem__(self, name: str) -> Source:
        return _ZipMember(self._archive, name, self._entries[name], _Below(self, name.rpartition("/")[0]))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))


class _MemberList(io.BufferedReader):
    """What zipfile reads the list of members from; it would make objects of all of them before they can be counted."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY_LIMIT:
            raise UnsafeInput(f"a zip whose list of members takes {size:,} bytes: this is not a model")
        data = super().read(size)
        if data.count(b"PK\x01\x02") > MEMBER_LIMIT:  # each begins with this (APPNOTE 4.3.12)
            raise UnsafeInput(f"a zip of more than {MEMBER_LIMIT:,} members: this is not a model")
        return data


class _ZipMember(_Blob):
    """One file in a zip."""

    def __init__(self, archive: Source, name: str, entry: zipfile.ZipInfo, beside: Tree) -> None:
        Source.__init__(self, f"{archive.name}/{name}")
        self._archive = archive
        self._entry = entry
        self._beside = beside

    @cached_property
    def _window(self) -> Window:  # type: ignore[override]  # located when first needed, where _Blob is given it
        entry, archive = self._entry, self._archive.window()
        # The local header repeats the name and may carry another extra field than the directory (APPNOTE 4.3.7).
        header = bytes(archive.read(entry.header_offset, 30))
        if header[:4] != b"PK\x03\x04":
            raise ReadError("the zip's directory points at something that is not a member", where=self.name)
        skip = 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        packed = archive.part(entry.header_offset + skip, entry.compress_size)
        if entry.compress_type == STORED:
            return packed
        try:
            data = zlib.decompressobj(-15).decompress(packed.read(0, packed.size), entry.file_size + 1)
        except zlib.error as error:
            raise ReadError(f"the zip's member cannot be unpacked ({error})", where=self.name) from error
        self._verify(data)
        return MemoryWindow(data)

    @property
    def size(self) -> int:
        return self._entry.file_size

    def bytes(self, limit: int | None = None) -> builtins.bytes:
        data = super().bytes(limit)
        if self._entry.compress_type == STORED:
            self._verify(data)
        return data

    def _verify(self, data: builtins.bytes) -> None:
        if len(data) != self._entry.file_size:
            raise UnsafeInput(
                f"the zip's member does not unpack to its {self._entry.file_size:,} bytes", where=self.name
            )
        if zlib.crc32(data) != self._entry.CRC:
            raise ReadError("the zip's member does not match its checksum: the archive is damaged", where=self.name)
