"""Files on their way to a target: all there at once, or nothing."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from modelio import sink as sinks
from modelio.errors import UnsafeInput, WriteError
from modelio.sink import Sink
from modelio.source import Source
from tests.conftest import ROOT

TREE = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "assets/deep/words.txt": b"one\ntwo\n"}
OLD = {"saved_model.pb": b"old graph", "variables/variables.old": b"old"}


@pytest.fixture(params=["unnamed", "named"], autouse=True)
def parts(request, monkeypatch):
    """Every test with files that have no name until they are whole, and with hidden ones, as other systems have."""
    if request.param == "named":
        monkeypatch.setattr(sinks, "_DESCRIPTORS", "/no/such/folder")
    return request.param


def fill(sink: Sink, members: dict[str, bytes] = TREE) -> None:
    for name, data in members.items():
        with sink.file(name) as stream:
            stream.write(data)


def write_tree(target: object, members: dict[str, bytes] = TREE, overwrite: bool = False) -> object:
    with Sink.open(target, shape="tree", overwrite=overwrite) as sink:
        fill(sink, members)
        return sink.commit()


def write_blob(target: object, data: bytes = b"weights", overwrite: bool = False) -> object:
    with Sink.open(target, shape="blob", overwrite=overwrite) as sink:
        fill(sink, {"": data})
        return sink.commit()


def files(folder: Path) -> dict[str, bytes]:
    """All that is in a folder: files with their content, links and empty folders too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if not path.is_dir() or path.is_symlink() or not any(path.iterdir())
    }


def put(folder: Path, members: dict[str, bytes] = OLD) -> Path:
    for name, data in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


class Writer:
    """All that a file object needs to have: it cannot seek, and says nothing of how much it took."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data) -> None:
        self.data += data


class FewAtATime(io.RawIOBase):
    """A raw file object, which may take a part only."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.data += bytes(data[:7])
        return min(7, len(data))


class AsPath:
    def __init__(self, path: object) -> None:
        self._path = path

    def __fspath__(self):
        return self._path


# ------------------------------------------------------------------------------------------------------------- targets


def test_no_target_gives_bytes():
    assert write_blob(None) == b"weights"
    data = write_tree(None)
    assert isinstance(data, bytes)
    assert members_of(data) == TREE


@pytest.mark.parametrize("kind", [str, Path, lambda path: AsPath(str(path)), os.fsencode])
def test_a_path_gets_a_file_or_a_directory(kind, tmp_path):
    target = AsPath(kind(tmp_path / "b.h5")) if kind is os.fsencode else kind(tmp_path / "b.h5")
    assert write_blob(target) is target
    assert (tmp_path / "b.h5").read_bytes() == b"weights"
    target = AsPath(kind(tmp_path / "export")) if kind is os.fsencode else kind(tmp_path / "export")
    assert write_tree(target) is target
    assert files(tmp_path / "export") == TREE


@pytest.mark.parametrize("name", ["export.zip", "EXPORT.ZIP"])
def test_a_path_that_ends_in_zip_gets_one_file(name, tmp_path):
    write_tree(tmp_path / name)
    assert members_of((tmp_path / name).read_bytes()) == TREE
    assert (tmp_path / name).read_bytes() == write_tree(None)
    assert list(files(tmp_path)) == [name]


def test_a_file_object_gets_bytes():
    for target in (io.BytesIO(), Writer(), FewAtATime()):
        assert write_tree(target) is target
        data = target.getvalue() if isinstance(target, io.BytesIO) else target.data
        assert data == write_tree(None)
    target = io.BytesIO(b"before ")
    target.seek(0, io.SEEK_END)
    assert write_blob(target).getvalue() == b"before weights", "it is written where the file object stands"
    assert not target.closed


def test_a_mapping_gets_members():
    target: dict[str, bytes] = {}
    assert write_tree(target) is target
    assert target == TREE
    assert list(target) == sorted(TREE)
    assert {type(data) for data in target.values()} == {bytes}
    with pytest.raises(WriteError, match="the mapping is not empty; pass overwrite=True"):
        write_tree(target)
    write_tree(target, {"a": b"1"}, overwrite=True)
    assert target == {"a": b"1"}
    with pytest.raises(WriteError, match="one file does not go into a mapping"):
        write_blob({})


@pytest.mark.parametrize("target", [3, b"path", ["a"], object()])
def test_other_targets_are_refused(target):
    with pytest.raises(TypeError, match="a model is written to a path, a file object or a mapping, not"):
        write_blob(target)


def test_file_objects_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "a").touch()
    with (tmp_path / "a").open("w") as text, pytest.raises(TypeError, match="open as text"):
        write_blob(text)
    with (tmp_path / "a").open("rb") as reading, pytest.raises(TypeError, match="open for reading"):
        write_blob(reading)


def test_parents_are_made(tmp_path):
    write_blob(tmp_path / "a" / "b" / "c.h5")
    write_tree(tmp_path / "d" / "e")
    assert files(tmp_path / "a") == {"b/c.h5": b"weights"}
    assert files(tmp_path / "d" / "e") == TREE


def test_relative_targets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_blob("b.h5")
    write_tree("exports/1/")
    assert files(tmp_path / "exports" / "1") == TREE
    assert (tmp_path / "b.h5").read_bytes() == b"weights"


# ------------------------------------------------------------------------------------------------------------- members


@pytest.mark.parametrize("target", [None, "export", "export.zip"])
def test_a_file_can_be_read_back_and_changed(target, tmp_path):
    with Sink.open(target and tmp_path / target, shape="tree") as sink:
        with sink.file("a") as stream:
            stream.write(b"0123456789" * 1000)
            stream.seek(5)
            assert stream.read(3) == b"567"
            stream.seek(2)
            stream.write(b"xx")
            stream.seek(0, io.SEEK_END)
            assert stream.tell() == 10_000
            stream.truncate(12)
        result = sink.commit()
    assert Source.of(result).tree["a"].bytes() == b"01xx45678901"


@pytest.mark.parametrize("target", [None, "export", "export.zip"])
@pytest.mark.parametrize("name", ["../a", "a/../../b", "/a", "a\\b", "c:/a", "a\0b"])
def test_members_stay_in_their_target(name, target, tmp_path):
    with (
        Sink.open(target and tmp_path / "in" / target, shape="tree") as sink,
        pytest.raises(UnsafeInput, match="not followed"),
    ):
        sink.file(name)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("target", [None, "export", "export.zip"])
@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("a", "a"), "this member twice"),
        (("a/b", "a//./b"), "this member twice"),
        (("a", "a/b"), "as a file and as a folder"),
        (("a/b/c", "a/b"), "as a file and as a folder"),
    ],
)
def test_members_that_contradict_each_other(names, sentence, target, tmp_path):
    with Sink.open(target and tmp_path / target, shape="tree") as sink:
        fill(sink, {names[0]: b""})
        with pytest.raises(WriteError, match=sentence) as caught:
            sink.file(names[1])
        assert caught.value.where == names[1].replace("//.", "")


def test_a_blob_is_one_file_without_a_name(tmp_path):
    for target in (None, tmp_path / "b.h5"):
        with Sink.open(target, shape="blob") as sink, pytest.raises(ValueError, match="a blob has no member 'a'"):
            sink.file("a")
        with Sink.open(target, shape="tree") as sink, pytest.raises(ValueError, match="a tree has no member ''"):
            sink.file()


def test_many_members(tmp_path):
    """More than a process should have open at once."""
    assert sinks.UNNAMED_LIMIT < 600
    members = {f"assets/{number:04}.txt": b"%d" % number for number in range(600)}
    write_tree(tmp_path / "export", members)
    assert files(tmp_path / "export") == members
    write_tree(tmp_path / "export.zip", members)
    assert members_of((tmp_path / "export.zip").read_bytes()) == members
    assert len(list(tmp_path.iterdir())) == 2


def test_no_descriptor_stays_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    write_tree(tmp_path / "export")
    write_tree(tmp_path / "export.zip")
    write_blob(tmp_path / "b.h5")
    with Sink.open(tmp_path / "never", shape="tree") as sink:
        fill(sink)
    assert os.listdir("/proc/self/fd") == before


# ------------------------------------------------------------------------------------- nothing, or all there at once


@pytest.mark.parametrize("name", ["new/export", "new/export.zip"])
def test_nothing_shows_before_commit(name, tmp_path, parts):
    with Sink.open(tmp_path / name, shape="tree") as sink:
        fill(sink)
        assert not (tmp_path / "new").exists()
        if parts == "unnamed":
            assert files(tmp_path) == {}
        assert all(path.name.startswith(".") for path in tmp_path.iterdir())
        sink.commit()
    assert [path.name for path in (tmp_path / "new").iterdir()] == [Path(name).name]
    assert list(Source.of(tmp_path / name).tree) == sorted(TREE)


@pytest.mark.parametrize("name", ["new/export", "new/export.zip", "old", "old.zip"])
@pytest.mark.parametrize("end", ["without commit", "error", "interrupt", "error in commit"])
def test_a_write_that_comes_to_nothing_leaves_nothing(name, end, tmp_path, monkeypatch):
    put(tmp_path / "old")
    (tmp_path / "old.zip").write_bytes(b"old zip")
    before = files(tmp_path)

    def interrupted():
        with Sink.open(tmp_path / name, shape="tree", overwrite=True) as sink:
            fill(sink)
            if end == "error":
                raise ZeroDivisionError
            if end == "interrupt":
                raise KeyboardInterrupt
            if end == "error in commit":
                monkeypatch.setattr(os, "rename", _full)
                monkeypatch.setattr(os, "replace", _full)
                monkeypatch.setattr(sinks, "_exchange", lambda one, other: False)
                sink.commit()

    expected = {"error": ZeroDivisionError, "interrupt": KeyboardInterrupt, "error in commit": WriteError}
    if end in expected:
        with pytest.raises(expected[end]):
            interrupted()
    else:
        interrupted()
    assert files(tmp_path) == before


def _full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_error_inside_a_file_leaves_nothing(tmp_path):
    write_blob(tmp_path / "b.h5", b"old")

    def failing():
        with Sink.open(tmp_path / "b.h5", shape="blob", overwrite=True) as sink, sink.file() as stream:
            stream.write(bytes(100_000))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert files(tmp_path) == {"b.h5": b"old"}


def test_discard_after_commit_is_harmless(tmp_path):
    with Sink.open(tmp_path / "export", shape="tree") as sink:
        fill(sink)
        sink.commit()
        sink.discard()
    assert files(tmp_path / "export") == TREE


def test_a_mapping_stays_as_it_was():
    target = dict(OLD)
    with Sink.open(target, shape="tree", overwrite=True) as sink:
        fill(sink)
    assert target == OLD


def test_parents_that_cannot_be_made_leave_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"cannot be written: .*/file is not a directory") as caught:
        Sink.open(tmp_path / "file" / "a" / "export", shape="tree")
    assert caught.value.source == str(tmp_path / "file" / "a" / "export")
    with pytest.raises(WriteError, match="cannot be written: File name too long"):
        write_tree(tmp_path / "new" / ("a" * 300) / "export")
    assert files(tmp_path) == {"file": b""}


@pytest.mark.parametrize("swap", [True, False])
def test_a_directory_is_replaced_whole(swap, tmp_path, monkeypatch):
    if not swap:
        monkeypatch.setattr(sinks, "_exchange", lambda one, other: False)
    put(tmp_path / "export")
    write_tree(tmp_path / "export", overwrite=True)
    assert files(tmp_path) == {f"export/{name}": data for name, data in TREE.items()}


def test_a_directory_that_cannot_be_moved_in_is_moved_back(tmp_path, monkeypatch):
    put(tmp_path / "export")
    monkeypatch.setattr(sinks, "_exchange", lambda one, other: False)
    rename = os.rename

    def once(old, new):
        if Path(old).name.endswith(".tmp") and Path(new).name == "export":
            _full()
        rename(old, new)

    monkeypatch.setattr(os, "rename", once)
    with pytest.raises(WriteError, match="No space left on device"):
        write_tree(tmp_path / "export", overwrite=True)
    assert files(tmp_path / "export") == OLD


SLOW_WRITER = """
import sys
from modelio import sink as sinks
target, shape, parts = sys.argv[1:]
if parts == "named":
    sinks._DESCRIPTORS = "/no/such/folder"
with sinks.Sink.open(target, shape=shape, overwrite=True) as sink:
    for name in ([""] if shape == "blob" else ["a", "b/c"]):
        stream = sink.file(name)
        stream.write(bytes(3_000_000))
        stream.flush()
    print("written", flush=True)
    sys.stdin.read()
    sink.commit()
"""


@pytest.mark.parametrize(("name", "shape"), [("export", "tree"), ("export.zip", "tree"), ("b.h5", "blob")])
def test_a_killed_write_leaves_the_old_target_whole(name, shape, tmp_path, parts):
    put(tmp_path / "export")
    (tmp_path / "export.zip").write_bytes(b"old zip")
    (tmp_path / "b.h5").write_bytes(b"old")
    before = files(tmp_path)
    arguments = [sys.executable, "-c", SLOW_WRITER, str(tmp_path / name), shape, parts]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    left = files(tmp_path)
    assert before.items() <= left.items()
    if parts == "unnamed":
        assert left == before, "and no litter"


def test_a_full_disk_is_a_write_error(tmp_path, python):
    """The limit on a file's size refuses bytes as a full disk does."""
    (tmp_path / "b.h5").write_bytes(b"old")
    printed = python(
        """
        import resource, sys
        from modelio.errors import WriteError
        from modelio.sink import Sink
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        for size in (2_000_000, 1_000_001):  # while it is written, and when it is closed
            try:
                with Sink.open(sys.argv[1], shape="blob", overwrite=True) as sink:
                    with sink.file() as stream:
                        for _ in range(size // 1000):
                            stream.write(bytes(1000))
                        stream.write(bytes(size % 1000))
                    sink.commit()
            except WriteError as error:
                print(error)
        """,
        tmp_path / "b.h5",
    )
    assert printed == "cannot be written: File too large\n" * 2
    assert files(tmp_path) == {"b.h5": b"old"}


# ------------------------------------------------------------------------------------------------- what is there already


@pytest.mark.parametrize("name", ["b.h5", "export.zip"])
def test_a_file_is_replaced_only_when_asked(name, tmp_path):
    write = write_blob if name == "b.h5" else write_tree
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(WriteError, match=r"the target exists; pass overwrite=True \(--overwrite\)") as caught:
        write(tmp_path / name)
    assert caught.value.source == str(tmp_path / name)
    assert files(tmp_path) == {name: b"old"}
    write(tmp_path / name, overwrite=True)
    assert list(files(tmp_path)) == [name]
    assert (tmp_path / name).read_bytes() != b"old"


def test_a_directory_is_replaced_only_when_asked(tmp_path):
    put(tmp_path / "export")
    with pytest.raises(WriteError, match="the target exists; pass overwrite=True"):
        write_tree(tmp_path / "export")
    assert files(tmp_path / "export") == OLD


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_directory_is_filled(overwrite, tmp_path):
    (tmp_path / "export").mkdir()
    write_tree(tmp_path / "export", overwrite=overwrite)
    assert files(tmp_path / "export") == TREE


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kind_is_never_replaced_by_another(overwrite, tmp_path):
    put(tmp_path / "folder")
    put(tmp_path / "folder.zip")
    (tmp_path / "file").write_bytes(b"old")
    before = files(tmp_path)
    with pytest.raises(WriteError, match="the target is a directory, and one file is to be written"):
        write_blob(tmp_path / "folder", overwrite=overwrite)
    with pytest.raises(WriteError, match="the target is a directory, and one file is to be written"):
        write_tree(tmp_path / "folder.zip", overwrite=overwrite)
    with pytest.raises(WriteError, match="the target is a directory, and one file is to be written"):
        write_blob(f"{tmp_path}/new/", overwrite=overwrite)
    with pytest.raises(WriteError, match="the target is a file, and a directory is to be written"):
        write_tree(tmp_path / "file", overwrite=overwrite)
    assert files(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_devices_and_pipes_are_never_replaced(overwrite, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("fifo", "null"):
        with pytest.raises(WriteError, match="a device or a pipe"):
            write_blob(tmp_path / name, overwrite=overwrite)
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("write", [write_blob, write_tree])
def test_an_empty_name_is_refused(write, overwrite, tmp_path, monkeypatch):
    monkeypatch.chdir(put(tmp_path))
    with pytest.raises(WriteError, match="the target has no name"):
        write("", overwrite=overwrite)
    assert files(tmp_path) == OLD


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    for name, shape in (("b.h5", "blob"), ("export.zip", "tree"), ("export", "tree")):
        with Sink.open(tmp_path / name, shape=shape) as sink:
            fill(sink, {"": b"mine"} if shape == "blob" else TREE)
            put(tmp_path / name) if name == "export" else (tmp_path / name).write_bytes(b"theirs")
            with pytest.raises(WriteError, match="the target exists"):
                sink.commit()
    theirs = {"b.h5": b"theirs", "export.zip": b"theirs", **{f"export/{name}": data for name, data in OLD.items()}}
    assert files(tmp_path) == theirs


@pytest.mark.parametrize("name", ["export", "export.zip"])
def test_a_model_is_written_over_itself(name, tmp_path):
    """What is read lazily is read before it is replaced."""
    write_tree(tmp_path / name, OLD)
    source = Source.of(tmp_path / name)
    with Sink.open(tmp_path / name, shape="tree", overwrite=True) as sink:
        for member in source.tree:
            with sink.file(f"copy/{member}") as stream:
                stream.write(source.tree[member].bytes())
        sink.commit()
    again = Source.of(tmp_path / name).tree
    assert {member: again[member].bytes() for member in again} == {f"copy/{key}": data for key, data in OLD.items()}


def test_a_link_at_the_target_keeps_pointing_where_it_points(tmp_path):
    write_blob(tmp_path / "real.h5", b"old")
    (tmp_path / "link.h5").symlink_to("real.h5")
    write_blob(tmp_path / "link.h5", b"new", overwrite=True)
    assert (tmp_path / "link.h5").is_symlink()
    assert (tmp_path / "real.h5").read_bytes() == b"new"
    put(tmp_path / "real")
    (tmp_path / "current").symlink_to("real", target_is_directory=True)
    write_tree(tmp_path / "current", overwrite=True)
    assert (tmp_path / "current").is_symlink()
    assert files(tmp_path / "real") == TREE


def test_a_link_to_nothing(tmp_path):
    (tmp_path / "link.h5").symlink_to("later.h5")
    with pytest.raises(WriteError, match="the target exists"):
        write_blob(tmp_path / "link.h5")
    write_blob(tmp_path / "link.h5", overwrite=True)
    assert (tmp_path / "link.h5").is_symlink()
    assert (tmp_path / "later.h5").read_bytes() == b"weights"


# ------------------------------------------------------------------------------------------- permissions, determinism


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        write_blob(tmp_path / "b.h5")
        write_tree(tmp_path / "export")
        write_tree(tmp_path / "export.zip")
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_a_directory_that_cannot_be_written(tmp_path, python):
    """Whoever runs the tests may write everywhere, so another user does the writing."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o111)
    folder.chmod(0o555)
    try:
        printed = python(
            """
            import os, sys
            from modelio.errors import WriteError
            from modelio.sink import Sink
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            for name, shape in (("b.h5", "blob"), ("export", "tree"), ("export.zip", "tree"), ("a/b/export", "tree")):
                try:
                    with Sink.open(sys.argv[1] + "/" + name, shape=shape) as sink:
                        sink.file("" if shape == "blob" else "a")
                except WriteError as error:
                    print(error)
            """,
            folder,
        )
    finally:
        folder.chmod(0o755)
    names = ("b.h5", "export", "export.zip", "a/b/export")
    assert printed.splitlines() == [f"{folder}/{name}: cannot be written: Permission denied" for name in names]
    assert files(folder) == {}


def test_the_same_members_give_the_same_bytes(tmp_path, monkeypatch):
    first = write_tree(None)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setattr(time, "localtime", lambda *seconds: time.gmtime(4e9))
    assert write_tree(None, dict(reversed(TREE.items()))) == first
    write_tree(tmp_path / "export.zip", dict(reversed(TREE.items())))
    assert (tmp_path / "export.zip").read_bytes() == first


def test_zips_are_plain():
    """Stored, sorted, dated 1980, mode 0644: what every reader reads, and what can be mapped."""
    with zipfile.ZipFile(io.BytesIO(write_tree(None))) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == sorted(TREE)
    for entry in entries:
        assert entry.compress_type == zipfile.ZIP_STORED
        assert entry.date_time == (1980, 1, 1, 0, 0, 0)
        assert entry.external_attr >> 16 == 0o644
        assert entry.flag_bits == 0
        assert entry.create_system == 3
