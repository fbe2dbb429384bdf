"""The guard in front of libhdf5: structures that would lead it in a circle are refused, all others reach it untouched.

What is damaged is read in a process of its own, since libhdf5 would not come back, or would take it along.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable

import h5py
import numpy as np
import pytest

from modelio.errors import UnsafeInput
from modelio.wire.hdf5 import File
from modelio.wire.hdf5_stream import PAGE, Stream
from modelio.wire.window import MemoryWindow

READER = """
import sys, json
from modelio.errors import ModelioError
from modelio.wire.hdf5 import File
from modelio.wire.window import MemoryWindow
try:
    with File(MemoryWindow(sys.stdin.buffer.read())) as file:
        for path in ("", *file.leaves()):
            for name in file.attributes(path):
                file.attribute(path, name)
            if path and file.is_dataset(path):
                file.dataset(path).numpy()
    print(json.dumps(["read", "", ""]))
except ModelioError as error:
    print(json.dumps([type(error).__name__, error.where, error.reason]))
"""


def outcome(data: bytes) -> list[str]:
    """What reading all of a file comes to; fails where it takes longer than a minute, or takes the process along."""
    done = subprocess.run([sys.executable, "-c", READER], input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    answer: list[str] = json.loads(done.stdout)
    return answer


def built(build: Callable[[h5py.File], object]) -> bytearray:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        build(file)
    return bytearray(stream.getvalue())


def texts(file: h5py.File) -> None:
    for number in range(3):
        file.attrs[f"text_{number}"] = "some words " * (number + 1)


def groups(file: h5py.File) -> None:
    for number in range(400):
        file.create_group(f"group_{number}")


def chunks(file: h5py.File) -> None:
    file.create_dataset("numbers", data=np.arange(400.0), chunks=(5,), compression="gzip")


def places(data: bytes, signature: bytes) -> list[int]:
    return [at for at in range(len(data) - 4) if data[at : at + 4] == signature]


def put(data: bytearray, place: int, value: int, width: int = 8) -> bytes:
    changed = bytearray(data)
    changed[place : place + width] = value.to_bytes(width, "little")
    return bytes(changed)


@pytest.mark.parametrize("build", [texts, groups, chunks])
def test_what_is_whole_is_read(build):
    assert outcome(built(build)) == ["read", "", ""]


def collection() -> tuple[bytearray, int]:
    """A file with texts, and where its one heap of them is: a head of 16 bytes, then the first object."""
    data = built(texts)
    (place,) = places(data, b"GCOL")
    return data, place


def after_the_texts(data: bytearray, place: int) -> int:
    """Where what is free begins: the object of index 0."""
    at = place + 16
    while data[at : at + 2] != b"\0\0":
        at += 16 + -(-int.from_bytes(data[at + 8 : at + 16], "little") // 8) * 8
    return at


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data, place: put(data, place + 8, 1 << 40), "a heap of texts claims to have 1,099,511,627,776 bytes"),
        (lambda data, place: put(data, place + 8, 0), "a heap of texts claims to have 0 bytes"),
        *(
            (lambda data, place, size=size: put(data, place + 24, size), "what it holds is not in one piece")
            for size in (1 << 20, (1 << 64) - 16, (1 << 64) - 1)
        ),
        *(
            (lambda data, place, n=n: put(data, after_the_texts(data, place) + 8, n), "what it holds is not in one")
            for n in (0, 8, 1 << 20)
        ),
    ],
)
def test_a_heap_of_texts_leads_to_its_end(damage, reason):
    data, place = collection()
    kind, where, said = outcome(damage(data, place))
    assert (kind, where) == ("ReadError", f"byte {place:,}")
    assert reason in said


def test_what_is_free_among_names_is_no_circle():
    """A free piece of a local heap: the place of the next, and its size."""
    data = built(lambda file: file.create_group("a"))
    place = places(data, b"HEAP")[0]
    free, start = (int.from_bytes(data[place + at : place + at + 8], "little") for at in (16, 24))
    kind, where, said = outcome(put(data, start + free, free))
    assert (kind, where) == ("ReadError", f"byte {place:,}")
    assert said == "a heap of names is damaged: what is free in it goes in a circle"


@pytest.mark.parametrize(("build", "key"), [(groups, 8), (chunks, 8 + 2 * 8)])
def test_a_tree_leads_downwards(build, key):
    """A node is ``TREE kind level entries:2 left:8 right:8``, then a key, a child, a key, ..."""
    data = built(build)
    nodes = places(data, b"TREE")
    upper = next(node for node in nodes if data[node + 5])
    first, second = upper + 24 + key, upper + 24 + 2 * key + 8
    other = int.from_bytes(data[second : second + 8], "little")
    for damaged, reason in (
        (put(data, first, upper), "does not lead from each level to the one below"),
        (put(data, first, 1 << 50), "does not lead from each level to the one below"),
        (put(data, upper + 5, 9, 1), "does not lead from each level to the one below"),
        (put(data, first, other), "two of its entries lead to the same place"),
        (put(data, upper + 6, 60_000, 2), "more entries than it has room for"),
        (put(data, upper + 16, upper), "the nodes of a level go in a circle"),
        (put(data, other + 16, int.from_bytes(data[first : first + 8], "little")), "go in a circle"),
    ):
        kind, _, said = outcome(damaged)
        assert (kind, reason in said) == ("ReadError", True), reason


@pytest.mark.parametrize(("version", "half"), [(0, 32), (1, 32), (1, 5)])
def test_trees_of_chunks_have_the_size_that_the_file_says(version, half):
    """Where they have another, it cannot be told where a node's children are."""
    superblock = bytearray(b"\x89HDF\r\n\x1a\n" + bytes([version, 0, 0, 0, 0, 8, 8, 0]) + bytes(16))
    superblock[24:26] = half.to_bytes(2, "little") if version else bytes(2)
    node = b"TREE\1\0\0\0" + b"\xff" * 16
    key = 8 + 8 * 3  # of an image: two sizes, and that of an element
    size = 24 + 2 * half * (key + 8) + key
    stream = Stream(MemoryWindow(bytes(superblock) + node + bytes(size)))
    stream.seek(len(superblock))
    assert stream.readinto(bytearray(size)) == size
    stream = Stream(MemoryWindow(bytes(superblock) + node + bytes(size)))
    stream.seek(len(superblock))
    with pytest.raises(UnsafeInput, match="a tree of chunks whose nodes have an unusual size"):
        stream.readinto(bytearray(size - 8))


def test_newer_trees_have_a_depth_that_a_model_needs():
    stream = io.BytesIO()
    with h5py.File(stream, "w", libver="latest") as file:
        groups(file)
    data = bytearray(stream.getvalue())
    assert outcome(data) == ["read", "", ""]
    place = places(data, b"BTHD")[0]
    kind, where, said = outcome(put(data, place + 12, 60_000, 2))
    assert (kind, where, said) == ("UnsafeInput", f"byte {place:,}", "a tree of 60,000 levels: this is no model")


def test_a_list_that_names_one_long_text_again_and_again():
    """A megabyte of text, and 4,000 references of 16 bytes to it: 4 GB in memory."""

    def build(file: h5py.File) -> None:
        kind = h5py.string_dtype()
        file.attrs.create("names", np.array(["x" * (1 << 20), *["y"] * 3999], object), dtype=kind)

    data = bytes(built(build))
    heap = next(at for at in places(data, b"GCOL") if int.from_bytes(data[at + 8 : at + 16], "little") > 1 << 20)
    start = data.index(heap.to_bytes(8, "little")) - 4  # a reference: how long, which heap, which object
    reference = data[start : start + 16]
    again = data[:start] + reference * 4000 + data[start + 16 * 4000 :]
    kind, _, said = outcome(again)
    assert kind == "UnsafeInput"
    assert said == "4,000 texts of up to 1,048,576 bytes: this is no model"


def test_types_that_are_nested_deep_are_not_taken_apart():
    def build(file: h5py.File) -> None:
        deep = h5py.h5t.NATIVE_INT32
        for _ in range(2000):
            deep = h5py.h5t.vlen_create(deep)
        h5py.h5a.create(file.id, b"deep", deep, h5py.h5s.create_simple((1,)))

    kind, where, said = outcome(built(build))
    assert (kind, where) == ("OtherKind", "@deep")
    assert said == "this holds lists of any length, and numbers are wanted"


def test_numbers_that_look_like_a_structure_are_numbers():
    """Raw data is read as it is, whatever it starts with: from a window, or unpacked by libhdf5."""
    numbers = np.frombuffer(b"TREE\0\1\x40\0" + b"GCOL\1\0\0\0" + bytes(64), np.uint8)
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["whole"] = numbers
        file.create_dataset("in_chunks", data=numbers, chunks=numbers.shape)
        file.attrs["note"] = numbers
    with File(MemoryWindow(stream.getvalue())) as file:
        for name in ("whole", "in_chunks"):
            assert np.array_equal(file.dataset(name).numpy(), numbers)
        assert np.array_equal(file.attribute("", "note"), numbers)


def test_a_stream_gives_the_bytes_of_its_window():
    data = bytes(range(256)) * (3 * PAGE // 256)
    stream = Stream(MemoryWindow(data))
    for start, length in (
        (0, 8),
        (PAGE - 4, 8),
        (PAGE, PAGE),
        (2 * PAGE - 1, PAGE + 1),
        (3 * PAGE - 4, 8),
        (9 * PAGE, 4),
    ):
        buffer = bytearray(length)
        stream.seek(start)
        assert stream.readinto(buffer) == length
        assert bytes(buffer) == data[start : start + length].ljust(length, b"\0")


def test_a_structure_of_too_many_parts():
    head = b"GCOL\1\0\0\0" + (16 + 16 * 70_000).to_bytes(8, "little")
    heap = head + (b"\1\0\1\0" + bytes(12)) * 70_000
    superblock = b"\x89HDF\r\n\x1a\n" + bytes(5) + b"\x08\x08\0"
    stream = Stream(MemoryWindow(superblock + heap * 20))

    def read_all() -> None:
        for number in range(20):
            stream.seek(len(superblock) + number * len(heap))
            stream.readinto(bytearray(4096))

    with pytest.raises(UnsafeInput, match="structures of more than 1,048,576 parts"):
        read_all()
