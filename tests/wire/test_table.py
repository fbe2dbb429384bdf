"""The table: its blocks as they are drawn in the module, every kind of damage, and TensorFlow's own bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import pytest

from modelio.errors import ReadError, UnsafeInput
from modelio.wire.crc32c import masked
from modelio.wire.table import MAGIC, Table, read_table, write_table
from modelio.wire.varint import encode_varint
from modelio.wire.window import MemoryWindow

Entry = tuple[int, bytes, bytes]
"""Bytes shared with the key before, further bytes, value."""


def entries(*rows: Entry, restarts: Sequence[int] = (0,)) -> bytes:
    """The content of a block, put together by hand."""
    data = b""
    for shared, further, value in rows:
        data += encode_varint(shared) + encode_varint(len(further)) + encode_varint(len(value)) + further + value
    return data + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def table(
    *blocks: bytes,
    bounds: Sequence[bytes] = (b"z",),
    compression: int = 0,
    change: Callable[[bytes], bytes] = bytes,
) -> bytes:
    """A table of these blocks, put together by hand; ``change`` is done to the first block after its checksum."""
    data = b""
    handles = []

    def add(content: bytes) -> bytes:
        nonlocal data
        handle = encode_varint(len(data)) + encode_varint(len(content))
        stored = content + bytes([compression])
        data += stored + struct.pack("<I", masked([stored]))
        return handle

    handles = [add(content) for content in blocks]
    data = change(data)
    compression = 0
    metaindex = add(entries())
    index = add(entries(*((0, bound, handle) for bound, handle in zip(bounds, handles, strict=True))))
    return data + (metaindex + index).ljust(40, b"\0") + MAGIC


def read(data: bytes) -> dict[bytes, bytes]:
    return read_table(MemoryWindow(data))


def test_keys_share_what_the_key_before_has() -> None:
    block = entries((0, b"dense/bias", b"1"), (6, b"kernel", b"22"))
    assert read(table(block)) == {b"dense/bias": b"1", b"dense/kernel": b"22"}


def test_a_restart_shares_nothing() -> None:
    first = 3 + len(b"ab") + len(b"1")
    assert read(table(entries((0, b"ab", b"1"), (0, b"ac", b"2"), restarts=[0, first]))) == {b"ab": b"1", b"ac": b"2"}
    with pytest.raises(ReadError, match="outside its block"):
        read(table(entries((0, b"ab", b"1"), (1, b"c", b"2"), restarts=[0, first])))


def test_an_empty_table() -> None:
    assert read(write_table([])) == {}


BROKEN = {
    "shorter than a footer": (b"x" * 47, "footer of 48 bytes"),
    "no magic number": (table(entries((0, b"a", b"1")))[:-1] + b"\0", "magic number"),
    "a changed byte": (table(entries((0, b"a", b"1")), change=lambda data: b"\1" + data[1:]), "checksum of a block"),
    "an unknown compression": (table(entries((0, b"a", b"1")), compression=7), "method 7"),
    "keys out of order": (table(entries((0, b"b", b""), (0, b"a", b""))), "not in order"),
    "a key twice": (table(entries((0, b"a", b""), (1, b"", b""))), "not in order"),
    "a block twice": (
        table(entries((0, b"a", b"")), entries((0, b"a", b"")), bounds=[b"b", b"c"]),
        "not in order",
    ),
    "a key beyond its block's bound": (table(entries((0, b"b", b"")), bounds=[b"a"]), "beyond its block's bound"),
    "a key that shares more than there is": (table(entries((0, b"a", b""), (2, b"", b""))), "outside its block"),
    "an entry longer than its block": (table(b"\0\1\x7fa" + entries()), "outside its block"),
    "a restart at no entry": (table(entries((0, b"a", b"1"), restarts=[0, 2])), "1 restarts of a block point at no"),
    "no restarts": (table(b"\0\0\0\0"), "cannot have 0 restarts"),
    "more restarts than bytes": (table(b"\xff\xff\xff\xff"), "restarts"),
    "an empty block": (table(b""), "too short"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damage_is_refused(name: str) -> None:
    data, sentence = BROKEN[name]
    with pytest.raises(ReadError, match=sentence):
        read(data)


def test_a_table_cut_anywhere_is_refused() -> None:
    whole = table(entries((0, b"a", b"1"), (0, b"b", b"2")))
    for length in range(len(whole)):
        with pytest.raises(ReadError):
            read(whole[:length])


def test_a_small_table_that_spreads_out_is_unsafe() -> None:
    key = b"k" * 50_000
    rows = [(0, key, b"")] + [(50_000, bytes([letter]), b"") for letter in range(200)]
    ordered = [rows[0], rows[1], *((50_000, row[1], b"") for row in rows[2:])]
    with pytest.raises(UnsafeInput, match="64 times"):
        read(table(entries(*ordered)))


def test_a_key_longer_than_any_name_is_unsafe() -> None:
    with pytest.raises(UnsafeInput, match="longer than any name"):
        read(table(entries((0, b"k" * 70_000, b""))))


def test_a_snappy_block() -> None:
    content = entries((0, b"a", b"1"))
    packed = encode_varint(len(content)) + bytes([len(content) - 1 << 2]) + content
    assert read(table(packed, compression=1)) == {b"a": b"1"}


def test_what_is_written_is_read() -> None:
    rows = [(f"model/layer_{index:05d}/kernel".encode(), b"v" * (index % 90)) for index in range(9000)]
    assert list(read(write_table(rows)).items()) == rows


# One entry at a time


def test_a_value_is_found_in_its_block() -> None:
    rows = [(f"model/layer_{index:05d}/kernel".encode(), b"v" * (index % 90)) for index in range(9000)]
    found = Table(MemoryWindow(write_table(rows)))
    for key, value in rows[::500]:
        assert found.get(key) == value
    assert found.get(b"model/layer_00001/kernel/x") is None
    assert found.get(b"z") is None
    assert found.first() == rows[0]
    assert Table(MemoryWindow(write_table([]))).first() is None


class Watched(MemoryWindow):
    """A window that knows how many bytes were read through it."""

    touched = 0

    def read(self, offset: int, length: int) -> memoryview:
        self.touched += length
        return super().read(offset, length)


def test_only_the_block_is_read_that_the_key_is_in() -> None:
    rows = [(bytes([letter]), bytes([letter]) * 400_000) for letter in b"abcdefgh"]
    window = Watched(write_table(rows))
    found = Table(window)
    before = window.touched
    assert found.get(b"e") == b"e" * 400_000
    assert window.touched - before < 401_000


def test_the_first_entry_of_a_large_block_is_read_without_it() -> None:
    window = Watched(write_table([(b"", b"meta"), (b"w", bytes(8 << 20))]))
    assert Table(window).first() == (b"", b"meta")
    assert window.touched < 2 << 20


def test_a_first_entry_that_reaches_outside() -> None:
    content = b"\0\0\xff\xff\xff\xff\x07" + bytes(2 << 20)
    with pytest.raises(ReadError, match="reaches outside"):
        Table(MemoryWindow(table(content))).first()
