"""What a container could try: every case is refused with the right error, at the right place, at no cost."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import modelio
from modelio import source as sources
from modelio.errors import ModelioError, ReadError, UnsafeInput
from modelio.source import Source
from tests.corpus import case

# ---------------------------------------------------------------------------------------------------------------- zips


@dataclass
class Member:
    """A zip's member, each of whose statements about itself may be a lie."""

    name: bytes = b"a.txt"
    data: bytes = b"hello"
    method: int = zipfile.ZIP_STORED
    size: int | None = None
    packed_size: int | None = None
    crc: int | None = None
    flags: int = 0x800
    system: int = 3
    mode: int = 0o100644
    offset: int | None = None

    def packed(self) -> bytes:
        if self.method != zipfile.ZIP_DEFLATED:
            return self.data
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(self.data) + packer.flush()


def archive(*members: Member, count: int | None = None, directory_size: int | None = None) -> bytes:
    """A zip by hand (APPNOTE 4.3): members, their list, the end record."""
    body, listed = b"", b""
    for member in members:
        packed = member.packed()
        size = len(member.data) if member.size is None else member.size
        packed_size = len(packed) if member.packed_size is None else member.packed_size
        crc = zlib.crc32(member.data) if member.crc is None else member.crc
        facts = struct.pack("<HHHHIII", member.flags, member.method, 0, 0x21, crc, packed_size, size)
        offset = len(body) if member.offset is None else member.offset
        body += (
            b"PK\3\4" + struct.pack("<H", 20) + facts + struct.pack("<HH", len(member.name), 0) + member.name + packed
        )
        listed += b"PK\1\2" + struct.pack("<BBH", 20, member.system, 20) + facts
        listed += struct.pack("<HHHHHII", len(member.name), 0, 0, 0, 0, member.mode << 16, offset) + member.name
    many = len(members) if count is None else count
    size = len(listed) if directory_size is None else directory_size
    return body + listed + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, many, many, size, len(body), 0)


def test_the_builder_builds_zips():
    data = archive(Member(), Member(b"b", b"x" * 1000, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None
    tree = Source.of(data).tree
    assert {name: tree[name].bytes() for name in tree} == {"a.txt": b"hello", "b": b"x" * 1000}


UNSAFE_ZIPS = {
    "name leaves": (Member(b"../a"), UnsafeInput, "leaves its container", "'../a'"),
    "name leaves later": (Member(b"a/b/../../../c"), UnsafeInput, "leaves its container", "'a/b/../../../c'"),
    "name comes back": (Member(b"a/../b"), UnsafeInput, "leaves its container", "'a/../b'"),
    "absolute name": (Member(b"/etc/passwd"), UnsafeInput, "absolute or not portable", "'/etc/passwd'"),
    "drive": (Member(b"C:/a"), UnsafeInput, "absolute or not portable", "'C:/a'"),
    "backslash": (Member(b"..\\a"), UnsafeInput, "absolute or not portable", r"'..\\a'"),
    "network name": (Member(b"\\\\host\\a"), UnsafeInput, "absolute or not portable", r"'\\\\host\\a'"),
    "null in the name": (Member(b"a.txt\0.h5"), UnsafeInput, "absolute or not portable", r"'a.txt\x00.h5'"),
    "no name": (Member(b""), UnsafeInput, "has no name", "''"),
    "a point": (Member(b"."), UnsafeInput, "has no name", "'.'"),
    "name is not UTF-8": (Member(b"\xff\xfe"), ReadError, "cannot be read", None),
    "link": (Member(b"a", b"/etc/passwd", mode=0o120777), UnsafeInput, "is a link; links are not followed", "a"),
    "encrypted": (Member(b"a", flags=0x801), ReadError, "is encrypted; decrypt the archive first", "a"),
    "bzip2": (Member(b"a", method=zipfile.ZIP_BZIP2), ReadError, "compression method 12 is not supported", "a"),
    "lzma": (Member(b"a", method=zipfile.ZIP_LZMA), ReadError, "compression method 14 is not supported", "a"),
    "stored size lies": (Member(b"a", size=6), UnsafeInput, "declares 6 bytes and holds fewer", "a"),
    "stored beyond the end": (Member(b"a", size=9999, packed_size=9999), UnsafeInput, "declares 9,999 bytes", "a"),
    "unpacks to 4 GiB": (
        Member(b"a", b"x" * 99, zipfile.ZIP_DEFLATED, size=0xFFFF_FFFE),
        UnsafeInput,
        "claim to unpack to 4,294,967,294",
        "a",
    ),
}


@pytest.mark.parametrize(("member", "error", "sentence", "where"), UNSAFE_ZIPS.values(), ids=UNSAFE_ZIPS)
def test_a_zip_is_refused_as_a_whole(member, error, sentence, where):
    """Even where the bad member is not asked for: who packed it meant no good."""
    with pytest.raises(error, match=sentence) as caught:
        Source.of(archive(Member(), member)).tree  # noqa: B018
    assert caught.value.where == where
    assert type(caught.value) is error


@pytest.mark.parametrize("again", [b"b/a", b"./b/a", b"b//a"])
def test_a_member_that_is_there_twice(again):
    with pytest.raises(UnsafeInput, match="this member twice") as caught:
        Source.of(archive(Member(b"b/a", b"one"), Member(again, b"two"))).tree  # noqa: B018
    assert caught.value.where == "b/a"


BROKEN_MEMBERS = {
    "checksum": (Member(b"a", crc=1), ReadError, "does not match its checksum"),
    "packed checksum": (Member(b"a", b"x" * 99, zipfile.ZIP_DEFLATED, crc=1), ReadError, "does not match its checksum"),
    "unpacks to less": (Member(b"a", b"x" * 99, zipfile.ZIP_DEFLATED, size=100), UnsafeInput, "not unpack to its 100"),
    "unpacks to more": (Member(b"a", b"x" * 99, zipfile.ZIP_DEFLATED, size=98), UnsafeInput, "not unpack to its 98"),
    "unpacks to something": (Member(b"a", b"x" * 99, zipfile.ZIP_DEFLATED, size=0), UnsafeInput, "not unpack to its 0"),
    "packed part is cut": (
        Member(b"a", bytes(range(256)), zipfile.ZIP_DEFLATED, packed_size=100),
        UnsafeInput,
        "not unpack to its 256",
    ),
    "packed part is rubbish": (
        Member(b"a", b"\xff" * 99, 8, size=10, packed_size=99),
        ReadError,
        "cannot be unpacked",
    ),
    "points at no member": (Member(b"a", offset=3), ReadError, "points at something that is not a member"),
    "points behind the end": (Member(b"a", offset=9999), ReadError, "only .* bytes exist"),
    "reaches behind the end": (
        Member(b"a", b"x" * 99, zipfile.ZIP_DEFLATED, packed_size=9999, size=99),
        ReadError,
        "only .* bytes exist",
    ),
}


@pytest.mark.parametrize(("member", "error", "sentence"), BROKEN_MEMBERS.values(), ids=BROKEN_MEMBERS)
def test_a_broken_member_is_an_error_when_it_is_read(member, error, sentence):
    if member.data == b"\xff" * 99:
        member.packed = lambda: member.data  # type: ignore[method-assign]
    tree = Source.of(archive(Member(), member), name="x.zip").tree
    assert tree["a.txt"].bytes() == b"hello"
    with pytest.raises(error, match=sentence) as caught:
        tree["a"].bytes()
    assert caught.value.where in ("x.zip/a", None)


def peak(action: Callable[[], object]) -> int:
    """Bytes that Python took at most while ``action`` ran."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def zeros(size: int) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def test_a_bomb_is_not_unpacked():
    """300 MiB in 1.3 MB: honest about its size, and too much."""
    packed = zeros(300 << 20)
    bomb = Member(b"a", packed, size=300 << 20)
    bomb.packed = lambda: packed  # type: ignore[method-assign]
    bomb.method = zipfile.ZIP_DEFLATED
    data = archive(bomb)

    def attempt():
        with pytest.raises(UnsafeInput, match="claim to unpack to 314,572,800: they are not unpacked") as caught:
            Source.of(data).tree["a"].bytes()
        assert caught.value.where == "a"

    assert peak(attempt) < 10_000_000


def test_a_bomb_that_lies_is_not_unpacked():
    """The same, which says that it is five bytes."""
    packed = zeros(300 << 20)
    bomb = Member(b"a", packed, size=5)
    bomb.packed = lambda: packed  # type: ignore[method-assign]
    bomb.method = zipfile.ZIP_DEFLATED
    data = archive(bomb)

    def attempt():
        with pytest.raises(UnsafeInput, match="does not unpack to its 5 bytes"):
            Source.of(data).tree["a"].bytes()

    assert peak(attempt) < 10_000_000


def test_well_packed_weights_are_unpacked():
    """A freshly made model's biases and moving averages are zeros and ones."""
    data = Source.of(archive(Member(b"a", bytes(10 << 20), zipfile.ZIP_DEFLATED))).tree["a"]
    assert data.bytes() == bytes(10 << 20)


def test_a_zip_of_too_many_members():
    """They are counted before objects are made of them."""
    entry = b"PK\1\2" + struct.pack("<BBH", 20, 3, 20) + bytes(16) + struct.pack("<HHHHHII", 1, 0, 0, 0, 0, 0, 0) + b"a"
    listed = entry * 200_000
    data = b"PK\3\4" + listed + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, len(listed), 4, 0)

    def attempt():
        with pytest.raises(UnsafeInput, match="a zip of more than 100,000 members"):
            Source.of(data).tree  # noqa: B018

    assert peak(attempt) < 2 * len(listed)


def test_a_zip_whose_list_is_too_long(tmp_path):
    with (tmp_path / "a.zip").open("wb") as stream:
        stream.write(b"PK\3\4")
        stream.seek(1 << 30)  # a hole: no space on disk
        stream.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 1 << 29, 1 << 29, 0))

    def attempt():
        with pytest.raises(UnsafeInput, match="list of members takes 536,870,912 bytes"):
            Source.of(tmp_path / "a.zip").tree  # noqa: B018

    assert peak(attempt) < 10_000_000


def test_counts_in_the_end_record_do_not_matter():
    assert list(Source.of(archive(Member(), count=9)).tree) == ["a.txt"]
    with pytest.raises(ReadError, match="cut short or damaged"):
        Source.of(archive(Member(), directory_size=9)).tree  # noqa: B018


def contents(data: bytes) -> dict[str, bytes]:
    tree = Source.of(data).tree
    assert tree is not None
    return {name: tree[name].bytes() for name in tree}


WHOLE = {"a.txt": b"hello", "b/c.bin": bytes(range(256)) * 2}
ZIP = archive(Member(), Member(b"b/c.bin", WHOLE["b/c.bin"], zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("length", range(4, len(ZIP)))
def test_a_zip_that_is_cut_short(length):
    with pytest.raises(ReadError, match="cut short or damaged"):
        contents(ZIP[:length])


def test_a_zip_with_one_wrong_byte():
    """Each byte, each bit: either the right content comes, or a ModelioError, never anything else."""
    refused = 0
    for position in range(4, len(ZIP)):
        for bit in range(8):
            data = bytearray(ZIP)
            data[position] ^= 1 << bit
            try:
                found = contents(bytes(data))
            except ModelioError:
                refused += 1
            else:
                assert set(found.values()) <= set(WHOLE.values()), (position, bit)
    assert refused > len(ZIP) * 4


def test_a_zip_in_a_zip_is_only_opened_when_asked(tmp_path):
    inner = archive(Member(b"../a"))
    tree = Source.of(archive(Member(b"inner.zip", inner))).tree
    assert list(tree) == ["inner.zip"]
    assert tree["inner.zip"].bytes() == inner
    with pytest.raises(UnsafeInput, match="leaves its container"):
        tree["inner.zip"].tree  # noqa: B018


# ------------------------------------------------------------------------------------------------------------ mappings


@pytest.mark.parametrize(
    ("mapping", "sentence"),
    [
        ({"../a": b""}, "leaves its container"),
        ({"a": {"..": {"b": b""}}}, "leaves its container"),
        ({"/a": b""}, "absolute or not portable"),
        ({"a\\b": b""}, "absolute or not portable"),
        ({"": b""}, "has no name"),
        ({"a": {"": b""}}, "has no name"),
        ({"a/b": b"", "a": {"b": b""}}, "the member is there twice"),
        ({"a//b": b"", "a/b": b""}, "the member is there twice"),
    ],
)
def test_a_mapping_is_checked_as_a_zip_is(mapping, sentence):
    with pytest.raises(UnsafeInput, match=sentence):
        Source.of(mapping)


def test_a_mapping_in_itself():
    mapping: dict[str, object] = {"a": b""}
    mapping["b"] = mapping
    with pytest.raises(UnsafeInput, match="mappings nested deeper than 32"):
        Source.of(mapping)


# --------------------------------------------------------------------------------------------------------- directories


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A directory, and beside it what it must not reach."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.pem").write_text("secret")
    (tmp_path / "export" / "variables").mkdir(parents=True)
    (tmp_path / "export" / "model.pb").write_text("graph")
    (tmp_path / "export" / "variables" / "index").write_text("index")
    return tmp_path / "export"


def test_links_that_stay_inside_are_followed(export):
    (export / "saved_model.pb").symlink_to("model.pb")
    (export / "variables" / "up.pb").symlink_to("../model.pb")
    (export / "absolute.pb").symlink_to(export / "model.pb")
    (export / "weights").symlink_to("variables", target_is_directory=True)
    tree = Source.of(export).tree
    inside = ["absolute.pb", "model.pb", "saved_model.pb", "variables/index", "variables/up.pb"]
    assert list(tree) == sorted([*inside, "weights/index", "weights/up.pb"])
    assert tree["saved_model.pb"].bytes() == tree["absolute.pb"].bytes() == tree["weights/up.pb"].bytes() == b"graph"
    assert list(tree.below("weights")) == ["index", "up.pb"]


def test_a_directory_as_a_cluster_mounts_it(export):
    """Kubernetes: the files are links into ``..data``, which is a link to a folder with a date."""
    (export / "..2017_07_01").mkdir()
    (export / "..2017_07_01" / "model.h5").write_text("weights")
    (export / "..data").symlink_to("..2017_07_01", target_is_directory=True)
    (export / "model.h5").symlink_to("..data/model.h5")
    assert Source.of(export).tree["model.h5"].bytes() == b"weights"


@pytest.mark.parametrize(
    ("link", "goal", "asked"),
    [
        ("key", "../secret/key.pem", "key"),
        ("variables/key", "../../secret/key.pem", "variables/key"),
        ("folder", "../secret", "folder/key.pem"),
        ("up", "..", "up/secret/key.pem"),
        ("root", "/", "root/etc/passwd"),
    ],
)
def test_links_that_lead_out_are_refused(link, goal, asked, export):
    (export / link).symlink_to(goal)
    tree = Source.of(export).tree
    for attempt in (lambda: tree[asked], lambda: asked in tree):
        with pytest.raises(UnsafeInput, match=r"a link leads out of .*/export; it is not followed") as caught:
            attempt()
        assert caught.value.where == asked
    assert tree["model.pb"].bytes() == b"graph", "what is inside can be read"


def test_a_link_that_leads_out_is_not_passed_over(export):
    """What it names would be missing without a word."""
    (export / "assets").symlink_to("../secret", target_is_directory=True)
    for tree in (Source.of(export).tree, Source.of(export).tree.below("assets")):
        with pytest.raises(UnsafeInput, match="a link leads out") as caught:
            list(tree)
        assert caught.value.where == "assets"


def test_neighbours_are_contained_too(export):
    (export / "key").symlink_to("../secret/key.pem")
    beside = Source.of(export / "model.pb").beside
    assert beside["variables/index"].bytes() == b"index"
    with pytest.raises(UnsafeInput, match="a link leads out"):
        beside["key"]
    with pytest.raises(UnsafeInput, match="leaves its container"):
        beside["../secret/key.pem"]


def test_a_link_that_the_caller_names_is_followed(export, tmp_path):
    (tmp_path / "current").symlink_to("export", target_is_directory=True)
    (tmp_path / "model").symlink_to("export/model.pb")
    assert Source.of(tmp_path / "current").tree["model.pb"].bytes() == b"graph"
    assert Source.of(tmp_path / "model").bytes() == b"graph"


def test_links_that_lead_nowhere_or_in_circles(export):
    (export / "broken").symlink_to("none")
    (export / "one").symlink_to("two")
    (export / "two").symlink_to("one")
    (export / "here").symlink_to(".", target_is_directory=True)
    (export / "variables" / "above").symlink_to("..", target_is_directory=True)
    tree = Source.of(export).tree
    assert list(tree) == ["model.pb", "variables/index"]
    for absent in ("broken", "one", "here"):
        assert absent not in tree
    assert "here/here/variables/above/model.pb" in tree, "it is there, if one asks"


def test_links_that_multiply_are_counted(tmp_path, monkeypatch):
    """Thirty folders, each with two links to the next, are a thousand million."""
    monkeypatch.setattr(sources, "MEMBER_LIMIT", 1000)
    for number in range(30):
        (tmp_path / f"{number}").mkdir()
        for name in "ab":
            (tmp_path / f"{number}" / name).symlink_to(f"../{number + 1}", target_is_directory=True)
    with pytest.raises(UnsafeInput, match="more than 1,000 files below"):
        list(Source.of(tmp_path).tree)


def test_a_directory_of_too_many_files(export, monkeypatch):
    monkeypatch.setattr(sources, "MEMBER_LIMIT", 50)
    for number in range(60):
        (export / "variables" / f"{number}").touch()
    tree = Source.of(export).tree
    with pytest.raises(UnsafeInput, match=r"more than 50 files below .*/export: this is not a model"):
        list(tree)
    assert tree["variables/7"].bytes() == b"", "one can still be asked for"


def test_a_directory_of_too_many_empty_folders(export, monkeypatch):
    monkeypatch.setattr(sources, "MEMBER_LIMIT", 50)
    for number in range(60):
        (export / "variables" / f"{number}").mkdir()
    with pytest.raises(UnsafeInput, match="more than 50 files"):
        list(Source.of(export).tree)


def test_a_directory_that_is_too_deep(export):
    (export / ("d/" * 40)).mkdir(parents=True)
    with pytest.raises(UnsafeInput, match="directories nested deeper than 32"):
        list(Source.of(export).tree)


def test_special_files_are_not_members(export):
    os.mkfifo(export / "fifo")
    (export / "null").symlink_to("/dev/null")
    tree = Source.of(export).tree
    assert list(tree) == ["model.pb", "variables/index"]
    assert "fifo" not in tree
    assert "null" not in tree


@pytest.mark.parametrize("name", ["../secret/key.pem", "variables/../../secret/key.pem", "/etc/passwd", "a\0b"])
def test_names_that_a_file_might_give_are_checked(name, export):
    for tree in (Source.of(export).tree, Source.of({"a": b""}).tree, Source.of(ZIP).tree):
        with pytest.raises((UnsafeInput, KeyError)):
            tree[name]


def test_identify_lists_no_folder_of_a_model(tmp_path, monkeypatch):
    """Whatever else lies in an export, or beside a file, its format is told by asking for a few names."""
    saved = case("hybrid_contrib-keras_tf-1.2.1/learning_phase_missing") / "saved_model.pb"
    (tmp_path / "assets").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(saved.read_bytes())
    (tmp_path / "frozen.pb").write_bytes((case("keras-2.0.5_tf-1.2.1/cnn") / "frozen.pb").read_bytes())

    def refuse(path):
        raise AssertionError(f"{path} was listed")

    modelio.formats()
    monkeypatch.setattr(os, "scandir", refuse)
    assert modelio.identify(tmp_path) == "saved-model"
    assert modelio.identify(tmp_path / "saved_model.pb") == "saved-model"
    assert modelio.identify(tmp_path / "frozen.pb") == "frozen-graph"


# ---------------------------------------------------------------------------------------------------------------- HDF5

DAMAGED = """
import random, struct, sys, warnings
import modelio

warnings.simplefilter("ignore")
data = bytearray(open(sys.argv[1], "rb").read())
chance = random.Random(7)
changes = []
for place in range(chance.randrange(29), len(data), max(29, len(data) // 150)):
    changes.append((place, bytes([data[place] ^ 1 << chance.randrange(8)])))
    changes.append((place, chance.choice([b"\\0", b"\\xff", bytes([chance.randrange(256)])])))
numbers = [(place, struct.unpack_from("<Q", data, place)[0]) for place in range(0, len(data) - 7, 4)]
leading = [place for place, number in numbers if 32 < number < len(data) + 9]  # they lead to other parts of the file
goals = [*leading, *(number for _, number in numbers if 0 < number < len(data)), 0, 1 << 63, (1 << 64) - 16]
changes += [(chance.choice(leading), struct.pack("<Q", chance.choice(goals))) for _ in range(200)]
refused = 0
for place, new in changes:
    old = bytes(data[place : place + len(new)])
    data[place : place + len(new)] = new
    print(place, new.hex(), file=sys.stderr, flush=True)
    try:
        model = modelio.read(bytes(data))
        for group in (*model.weights.values(), model.optimizer):
            for tensor in group.values():
                tensor.numpy()
    except modelio.ModelioError:
        refused += 1
    data[place : place + len(new)] = old
print(len(changes), refused)
"""


@pytest.mark.parametrize(
    "file",
    [
        "keras-2.3.1_tf-1.15.5/lambda/model.h5",
        "keras-3.15.1_tf-2.21.0/lambda/model.h5",
        "keras-3.15.1_tf-2.21.0/nested/only.weights.h5",
        "keras-3.15.1_tf-2.21.0/multi_io/model.keras",
    ],
)
def test_a_keras_file_with_something_wrong_is_read_or_refused(file, tmp_path):
    """Within seconds, and by a ModelioError: libhdf5 alone turns in circles, or takes the process along."""
    version, model, name = file.split("/")
    path = case(f"{version}/{model}") / name
    done = subprocess.run(
        [sys.executable, "-c", DAMAGED, path], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    tried, refused = map(int, done.stdout.split())
    assert tried > 400
    assert 50 < refused < tried


# ------------------------------------------------------------------------------------------------------------ no files

WATCHED = """
import os, sys, resource
import numpy, h5py, google.protobuf  # before the watch: h5py's start-up asks `uname -p`

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
           "os.chown", "os.utime", "os.mkfifo", "os.system", "os.exec", "os.fork", "os.posix_spawn",
           "subprocess.Popen", "socket.connect", "socket.bind", "pickle.find_class")
PREFIXES = ("tempfile.", "shutil.")
seen = []

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if (mode and set(mode) & set("wax+")) or (flags or 0) & WRITES:
            seen.append(f"{event} {path} {mode} {flags}")
    elif event in CHANGES or event.startswith(PREFIXES):
        seen.append(f"{event} {arguments}")

sys.dont_write_bytecode = True
sys.addaudithook(watch)
"""

CONVERSION = """
import warnings
import modelio

data = open(sys.argv[1], "rb").read()
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # what C code writes past Python is refused by the system
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    done = modelio.convert(data, to=sys.argv[2])
assert isinstance(done.data, bytes) and len(done.data) > 1000
model = modelio.read(done.data)
str(modelio.inspect(done.data))
print(modelio.identify(done.data), *seen, sep="\\n")
"""


def test_the_watch_sees_what_it_is_to_see(python, tmp_path):
    """A test that cannot fail proves nothing."""
    script = """
open(sys.argv[1] + "/a", "w").close()
open(sys.argv[1] + "/a", "rb").close()
os.close(os.open(sys.argv[1] + "/b", os.O_CREAT | os.O_RDWR))
os.mkdir(sys.argv[1] + "/c")
os.rename(sys.argv[1] + "/a", sys.argv[1] + "/d")
os.remove(sys.argv[1] + "/d")
print(*[line.split()[0] for line in seen])
"""
    assert python(WATCHED + script, tmp_path).split() == ["open", "open", "os.mkdir", "os.rename", "os.remove"]


@pytest.mark.parametrize(
    ("file", "to"),
    [
        ("model.h5", "saved-model"),
        ("model.h5", "frozen-graph"),
        ("model.h5", "keras-json"),
        ("model.h5", "keras-h5"),
        ("saved_model_tf1", "frozen-graph"),
        ("frozen.pb", "saved-model"),
    ],
)
def test_bytes_to_bytes_opens_no_file_for_writing(file, to, python, tmp_path):
    source = case("keras-2.0.5_tf-1.2.1/multi_io") / file
    if source.is_dir():
        with zipfile.ZipFile(tmp_path / "export.zip", "w") as packed:
            for path in sorted(source.rglob("*")):
                packed.write(path, path.relative_to(source))
        source = tmp_path / "export.zip"
    assert python(WATCHED + CONVERSION, source, to).splitlines() == [to]
