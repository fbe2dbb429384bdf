"""Whatever carries the bytes, a format module sees the same source."""

from __future__ import annotations

import io
import os
import random
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from modelio.errors import ReadError, UnsafeInput
from modelio.source import Source, member_name
from modelio.wire.window import MemoryWindow, StreamWindow
from tests.corpus import case

MODEL = case("keras-2.0.5_tf-1.2.1/cnn") / "model.h5"
EXPORT = case("hybrid_contrib-keras_tf-1.2.1/learning_phase_missing").path
MEMBERS = {path.relative_to(EXPORT).as_posix(): path.read_bytes() for path in EXPORT.rglob("*") if path.is_file()}


class Pipe(io.RawIOBase):
    """What stdin is: it gives bytes once, a few at a time, and cannot go back."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        size = min(len(buffer), 1000, len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


class FewAtATime(io.BytesIO):
    """A file object that may give less than was asked for, as unbuffered ones do."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, 1000))


class AsPath:
    def __init__(self, path: str | bytes) -> None:
        self._path = path

    def __fspath__(self) -> str | bytes:
        return self._path


def nested(members: dict[str, object]) -> dict[str, object]:
    """``{"a/b": x}`` as ``{"a": {"b": x}}``."""
    out: dict[str, object] = {}
    for name, data in members.items():
        *folders, last = name.split("/")
        place = out
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = data
    return out


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


BLOBS = {
    "path": lambda data, path: path,
    "str": lambda data, path: str(path),
    "PathLike": lambda data, path: AsPath(str(path)),
    "bytes path": lambda data, path: AsPath(os.fsencode(path)),
    "link": lambda data, path: _link(path),
    "bytes": lambda data, path: data,
    "bytearray": lambda data, path: bytearray(data),
    "memoryview": lambda data, path: memoryview(data),
    "memoryview of words": lambda data, path: memoryview(data).cast("I"),
    "BytesIO": lambda data, path: io.BytesIO(data),
    "BytesIO at its end": lambda data, path: _at_end(io.BytesIO(data)),
    "file": lambda data, path: _opened(path),
    "unbuffered file": lambda data, path: _opened(path, buffering=0),
    "few bytes at a time": lambda data, path: FewAtATime(data),
    "pipe": lambda data, path: Pipe(data),
    "buffered pipe": lambda data, path: io.BufferedReader(Pipe(data)),
    "source": lambda data, path: Source.of(data),
    "member of a mapping": lambda data, path: Source.of({"a/b.h5": data}).tree["a/b.h5"],
    "member of a stored zip": lambda data, path: Source.of(zipped({"b.h5": data})).tree["b.h5"],
    "member of a packed zip": lambda data, path: Source.of(zipped({"b.h5": data}, zipfile.ZIP_DEFLATED)).tree["b.h5"],
    "member of a directory": lambda data, path: Source.of(path.parent).tree[path.name],
    "neighbour": lambda data, path: Source.of(path).beside[path.name],
}

TREES = {
    "directory": lambda members, path: path,
    "str": lambda members, path: str(path),
    "with a slash": lambda members, path: f"{path}/",
    "link": lambda members, path: _link(path),
    "mapping": lambda members, path: members,
    "nested mapping": lambda members, path: nested(members),
    "mapping of paths": lambda members, path: {name: path / name for name in members},
    "mapping of file objects": lambda members, path: {name: io.BytesIO(data) for name, data in members.items()},
    "mapping of pipes": lambda members, path: {name: Pipe(data) for name, data in members.items()},
    "mapping of sources": lambda members, path: dict(Source.of(path).tree),
    "mapping of a directory": lambda members, path: {"saved_model.pb": members["saved_model.pb"], "variables": path / "variables"},
    "tree": lambda members, path: Source.of(path).tree,
    "zip in memory": lambda members, path: zipped(members),
    "packed zip": lambda members, path: zipped(members, zipfile.ZIP_DEFLATED),
    "zip behind a file object": lambda members, path: io.BytesIO(zipped(members)),
    "zip behind a pipe": lambda members, path: Pipe(zipped(members)),
    "zip on disk": lambda members, path: _saved(path.parent / "export.zip", zipped(members)),
    "zip with folders": lambda members, path: zipped({"variables/": b"", **members}),
    "zip in a mapping": lambda members, path: Source.of({"export.zip": zipped(members)}).tree["export.zip"],
    "source": lambda members, path: Source.of(members),
}  # fmt: skip


def _link(path: Path) -> Path:
    link = path.with_name("link")
    link.symlink_to(path)
    return link


def _at_end(stream: io.BytesIO) -> io.BytesIO:
    stream.seek(0, io.SEEK_END)
    return stream


def _saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def put(members: dict[str, bytes], folder: Path) -> Path:
    for name, data in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def _opened(path: Path, buffering: int = -1) -> io.BufferedIOBase:
    stream = path.open("rb", buffering=buffering)
    _open.append(stream)
    return stream


_open: list[io.IOBase] = []


@pytest.fixture(autouse=True)
def close_files():
    yield
    while _open:
        _open.pop().close()


@pytest.mark.parametrize("carrier", BLOBS)
def test_one_file(carrier, tmp_path):
    data = MODEL.read_bytes()
    source = Source.of(BLOBS[carrier](data, _saved(tmp_path / "b.h5", data)))
    assert source.bytes() == data
    assert source.size == len(data)
    assert source.head(8) == b"\x89HDF\r\n\x1a\n"
    assert source.head(len(data) + 1) == data
    assert source.tree is None
    assert isinstance(source.name, str)
    window = source.window()
    assert window.size == len(data)
    assert bytes(window.read(1000, 3000)) == data[1000:4000]
    assert bytes(window.part(2000, 100).read(10, 20)) == data[2010:2030]
    with source.open() as stream:
        stream.seek(-100, io.SEEK_END)
        assert stream.read() == data[-100:]
        stream.seek(0)
        assert stream.read(1) == data[:1]
    assert source.bytes() == data, "it can be read twice"
    with pytest.raises(ReadError):
        window.read(len(data) - 1, 2)
    with pytest.raises(ReadError):
        window.part(-1, 2)


@pytest.mark.parametrize("carrier", TREES)
def test_several_files(carrier, tmp_path):
    source = Source.of(TREES[carrier](MEMBERS, put(MEMBERS, tmp_path / "export")))
    assert sorted(MEMBERS) == list(source.tree) == list(source.tree.keys())
    for name, data in MEMBERS.items():
        assert name in source.tree
        assert source.tree[name].bytes() == data
        assert source.tree[name].bytes() == data, "it can be read twice"
        assert source.tree[name].size == len(data)
    assert len(source.tree) == len(MEMBERS)
    assert source.tree.top() == ["saved_model.pb", "variables"]
    assert list(source.tree.below("variables")) == ["variables.data-00000-of-00001", "variables.index"]
    assert source.tree.below("variables").top() == ["variables.data-00000-of-00001", "variables.index"]
    assert source.tree.below("variables")["variables.index"].bytes() == MEMBERS["variables/variables.index"]
    assert list(source.tree.below("variable")) == [], "a folder is not the start of a name"
    assert list(source.tree.below("variables").below("no")) == list(source.tree.below("no")) == []
    for absent in ("variables", "saved_model", "variables/", ""):
        assert absent not in source.tree
        with pytest.raises(KeyError):
            source.tree[absent]


@pytest.mark.parametrize("carrier", [name for name in TREES if name not in ("mapping of sources", "tree")])
def test_what_lies_beside_a_member(carrier, tmp_path):
    source = Source.of(TREES[carrier](MEMBERS, put(MEMBERS, tmp_path / "export")))
    index = source.tree["variables/variables.index"]
    shard = index.beside["variables.data-00000-of-00001"]
    assert shard.bytes() == MEMBERS["variables/variables.data-00000-of-00001"]
    assert "saved_model.pb" not in index.beside
    assert list(index.beside) == ["variables.data-00000-of-00001", "variables.index"]
    assert "variables/variables.index" in source.tree["saved_model.pb"].beside


def test_bytes_have_nothing_beside_them():
    assert Source.of(b"abc").beside == {}
    assert Source.of(io.BytesIO(b"abc")).beside == {}


def test_a_directory_has_no_bytes(tmp_path):
    for source in (Source.of(tmp_path), Source.of({})):
        assert source.size == 0
        assert source.head() == b""
        assert source.beside == {}
        assert list(source.tree) == []
        with pytest.raises(ReadError, match="a directory has no bytes"):
            source.bytes()
        with pytest.raises(ReadError, match="a directory has no bytes"):
            source.open()


def test_empty_things():
    for empty in (b"", bytearray(), memoryview(b""), io.BytesIO(), Pipe(b"")):
        source = Source.of(empty)
        assert (source.size, source.head(), source.bytes(), source.tree) == (0, b"", b"", None)
    assert list(Source.of(zipped({})).tree) == []


def test_names_are_for_messages(tmp_path):
    path = _saved(tmp_path / "b.h5", b"abc")
    assert Source.of(path).name == str(path)
    assert Source.of(b"x" * 1234).name == "<1,234 bytes>"
    assert Source.of(memoryview(b"x" * 1200).cast("I")).name == "<1,200 bytes>"
    with path.open("rb") as stream:
        assert Source.of(stream).name == str(path)
    assert Source.of(io.BytesIO()).name == "<stream>"
    with open(os.open(path, os.O_RDONLY), "rb") as stream:
        assert Source.of(stream).name == "<stream>", "a descriptor's number is no name"
    assert Source.of(b"abc", name="upload").name == "upload"
    assert Source.of({"a": b""}).tree["a"].name == "a"
    assert Source.of(zipped({"a/b": b""}), name="z").tree["a/b"].name == "z/a/b"
    assert Source.of(tmp_path).tree["b.h5"].name == str(path)
    assert repr(Source.of(b"abc", name="upload")) == "Blob('upload')"


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    class Watched(io.BytesIO):
        count = 0

        def read(self, size=-1):
            self.count += size
            return super().read(size)

    stream = Watched(bytes(1_000_000))
    source = Source.of(stream)
    source.window().part(500_000, 1000)
    assert stream.count == 0
    source.window().read(500_000, 1000)
    assert stream.count == 1000


def test_bytes_are_not_copied():
    data = bytearray(b"abcdef")
    window = Source.of(data).window()
    data[0] = ord("X")
    assert bytes(window.read(0, 2)) == b"Xb"
    assert isinstance(Source.of(b"abc").window(), MemoryWindow)
    assert isinstance(Source.of(io.BytesIO(b"abc")).window(), StreamWindow)


def test_a_callers_file_object_stays_open(tmp_path):
    stream = io.BytesIO(zipped(MEMBERS))
    source = Source.of(stream)
    assert source.tree["saved_model.pb"].bytes() == MEMBERS["saved_model.pb"]
    del source
    assert not stream.closed


def test_a_closed_file_object_is_an_error(tmp_path):
    stream = io.BytesIO(b"abcdef")
    source = Source.of(stream)
    stream.close()
    with pytest.raises(ReadError, match="the file object was closed"):
        source.bytes()


@pytest.mark.parametrize("change", ["longer", "shorter", "replaced", "rewritten"])
def test_a_file_that_changes_is_an_error_not_other_numbers(change, tmp_path):
    path = _saved(tmp_path / "b.h5", b"abcdef")
    window = Source.of(path).window()
    if change == "longer":
        path.write_bytes(b"abcdefghi")
    elif change == "shorter":
        path.write_bytes(b"abc")
    elif change == "replaced":
        _saved(tmp_path / "new", b"ABCDEF").replace(path)
    else:
        path.write_bytes(b"ABCDEF")
        os.utime(path, ns=(1, 1))
    with pytest.raises(ReadError, match=r"b\.h5 changed after the model was opened"):
        window.read(0, 6)


def test_limits_of_bytes():
    assert Source.of(b"abcdef").bytes(limit=6) == b"abcdef"
    with pytest.raises(UnsafeInput, match="6 bytes, more than the 5 that belong here"):
        Source.of(b"abcdef").bytes(limit=5)


def test_a_packed_member_over_the_limit_is_not_unpacked():
    member = Source.of(zipped({"a": bytes(1_000_000)}, zipfile.ZIP_DEFLATED)).tree["a"]
    with pytest.raises(UnsafeInput, match="1,000,000 bytes, more than the 999,999"):
        member.bytes(limit=999_999)
    assert "_window" not in vars(member)


def test_wrong_arguments():
    for wrong in (None, 3, [b"abc"], object(), EXPORT.stat()):
        with pytest.raises(TypeError, match="a model is read from a path, bytes, a binary file object or a mapping"):
            Source.of(wrong)
    with MODEL.open(encoding="latin-1") as file:
        for text in (io.StringIO("abc"), file):
            with pytest.raises(TypeError, match="open it in binary mode"):
                Source.of(text)
    with pytest.raises(TypeError, match="member names are strings, not int"):
        Source.of({1: b"abc"})
    with pytest.raises(TypeError, match="a model is read from"):
        Source.of({"a": 3}).tree["a"]


def test_missing_files_stay_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        Source.of(tmp_path / "none.h5")
    with pytest.raises(FileNotFoundError):
        Source.of("")
    with pytest.raises(FileNotFoundError):
        Source.of({"a": tmp_path / "none.h5"}).tree["a"]


def test_a_fifo_is_refused_and_never_waited_for(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ReadError, match="neither a regular file nor a directory"):
        Source.of(fifo)
    tree = Source.of(tmp_path).tree
    assert list(tree) == []
    assert "fifo" not in tree


@pytest.mark.parametrize("name", ["a", "a/b", "a b/ü.txt", "..a", "a..", "...", "~", "-", "ab:c", "%2e%2e/a"])
def test_clean_member_names(name):
    assert member_name(name) == name


@pytest.mark.parametrize(("name", "clean"), [("./a", "a"), ("a//b", "a/b"), ("a/./b/", "a/b"), (".", ""), ("", "")])
def test_member_names_are_cleaned(name, clean):
    assert member_name(name) == clean


def test_any_part_of_a_file_can_be_asked_for_in_any_order():
    """Windows of all kinds against slices."""
    data = MODEL.read_bytes()
    chance = random.Random(1)
    windows = [
        Source.of(data).window(),
        Source.of(MODEL).window(),
        Source.of(io.BytesIO(data)).window(),
        Source.of(zipped({"a": data})).tree["a"].window(),
        Source.of(io.BytesIO(zipped({"a": data}, zipfile.ZIP_DEFLATED))).tree["a"].window(),
    ]
    for _ in range(200):
        start, stop = sorted(chance.choices(range(len(data) + 1), k=2))
        expected = data[start:stop]
        for window in windows:
            assert bytes(window.read(start, stop - start)) == expected
            assert bytes(window.part(start, stop - start).read(0, stop - start)) == expected


def test_names_below_a_folder_are_found_without_walking_the_rest(tmp_path, monkeypatch):
    put({"assets/a.txt": b"a", "assets/deep/b.txt": b"b", "other/c.txt": b"c"}, tmp_path)
    walked = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: walked.append(PurePosixPath(path).name) or scan(path))
    assert list(Source.of(tmp_path).tree.below("assets")) == ["a.txt", "deep/b.txt"]
    assert list(Source.of(tmp_path).tree.below("assets").below("deep")) == ["b.txt"]
    assert "other" not in walked
