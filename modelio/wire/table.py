"""The sorted table that a checkpoint's ``.index`` file is, and all of a V1 checkpoint: LevelDB's, as TensorFlow has it.

::

    block*              the entries, sorted by key, about 256 KiB to a block
    metaindex block     empty here
    index block         one entry a block: a key not below its last and below the next one's first -> its handle
    footer, 48 bytes    handles of the metaindex and the index, zeros up to 40, magic db4775248b80fb57 (little-endian)

    handle              varint64 offset, varint64 size (without the trailer)
    block               entry*, uint32 restart offset*, uint32 number of restarts; then a trailer of 5 bytes:
                        compression (0 none, 1 snappy), uint32 masked CRC32C of the block and that byte
    entry               varint32 bytes shared with the key before, varint32 further bytes of the key, varint32 bytes of
                        the value; the further bytes; the value
    restart             an entry that shares nothing: every 16th, and every one of the index block

Sources: ``tsl/lib/io/table_builder.cc``, ``block_builder.cc``, ``format.cc``, ``table_options.h`` (TensorFlow 2.15),
and LevelDB's ``doc/table_format.md``.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from modelio.errors import ReadError, UnsafeInput
from modelio.wire.crc32c import masked
from modelio.wire.snappy import uncompress
from modelio.wire.varint import encode_varint, varint
from modelio.wire.window import CHUNK, Window

__all__ = ["MAGIC", "Table", "read_table", "write_table"]

MAGIC = bytes.fromhex("57fb808b247547db")
"""The last eight bytes of every table."""

_FOOTER = 48
_TRAILER = 5
_NONE, _SNAPPY = 0, 1
_BLOCK_SIZE = 256 << 10
_RESTART_INTERVAL = 16

_LARGEST_TABLE = 1 << 30
_LARGEST_INDEX = 1 << 28
_LARGE = 1 << 20
"""Bytes of a block whose first entry is read without it."""
_LONGEST_KEY = 1 << 16
_EXPANSION = 64
"""A key takes a few bytes where it shares the rest, so a small table can hold much; a real one grows fourfold."""


def read_table(window: Window) -> dict[bytes, bytes]:
    """All entries, in key order, with every checksum, restart and order verified.

    Raises:
        ReadError: the bytes are not a whole, undamaged table.
        UnsafeInput: it is larger, packed or spread out, than any real index.
    """
    if window.size > _LARGEST_TABLE:
        raise UnsafeInput(f"an index of {window.size:,} bytes is larger than any model's")
    entries: dict[bytes, bytes] = {}
    room = _EXPANSION * window.size
    for key, value in Table(window).items():
        room -= len(key) + len(value)
        if room < 0:
            raise UnsafeInput(f"the entries take more than {_EXPANSION} times the size of the file")
        entries[key] = bytes(value)
    return entries


class Table:
    """A table of any size, open for reading: which block holds what is read now, a block when it is asked for.

    Raises:
        ReadError: the bytes are not a table, or its index is damaged; when a block is read, that it is.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        if window.size < _FOOTER:
            raise ReadError(f"a checkpoint index has a footer of {_FOOTER} bytes, this file has {window.size}")
        footer = bytes(window.read(window.size - _FOOTER, _FOOTER))
        if not footer.endswith(MAGIC):
            raise ReadError(
                "not a checkpoint index, or its end is missing: the last eight bytes are not the table's magic number"
            )
        metaindex, position = _handle(footer, 0)
        index, _ = _handle(footer, position)
        for handle in (metaindex, index):
            if handle[1] > _LARGEST_INDEX:
                raise UnsafeInput(f"an index of {handle[1]:,} bytes is larger than any model's", where=_place(handle))
        _block(window, metaindex)
        self._bounds: list[bytes] = []
        self._handles: list[tuple[int, int]] = []
        for bound, location in _entries(_block(window, index)):
            handle, end = _handle(location, 0)
            if end != len(location):
                raise ReadError("an entry of the index block is longer than a block handle", where=f"key {bound!r}")
            self._bounds.append(bound)
            self._handles.append(handle)

    def items(self) -> Iterator[tuple[bytes, memoryview]]:
        """All entries in key order."""
        last: bytes | None = None
        for number in range(len(self._handles)):
            for key, value in self._entries(number):
                if last is not None and key <= last:
                    raise ReadError(f"keys are not in order: {key!r} follows {last!r}", where=self._place(number))
                yield key, value
                last = key

    def get(self, key: bytes) -> memoryview | None:
        """The value of a key, for which one block is read; None where there is none."""
        number = bisect_left(self._bounds, key)  # the first block that ends at or behind the key
        if number < len(self._handles):
            for found, value in self._entries(number):
                if found == key:
                    return value
        return None

    def first(self) -> tuple[bytes, memoryview] | None:
        """The first entry, None in an empty table. Of a large block nothing else is read, so nothing verified."""
        if not self._handles:
            return None
        offset, size = self._handles[0]
        if size <= _LARGE or bytes(self._window.read(offset + size, 1)) != bytes([_NONE]):
            return next(self._entries(0), None)
        head = self._window.read(offset, _LARGE)
        shared, position = varint(head, 0)
        further, position = varint(head, position)
        length, position = varint(head, position)
        if shared or further > _LONGEST_KEY or length > _LARGEST_INDEX or position + further + length > size:
            raise ReadError("its first entry reaches outside", where=self._place(0))
        data = memoryview(self._window.read(offset + position, further + length))
        return bytes(data[:further]), data[further:]

    def _entries(self, number: int) -> Iterator[tuple[bytes, memoryview]]:
        """The entries of a block, each of which belongs there."""
        bound = self._bounds[number]
        for key, value in _entries(_block(self._window, self._handles[number])):
            if key > bound:
                raise ReadError(f"the key {key!r} is beyond its block's bound {bound!r}", where=self._place(number))
            yield key, value

    def _place(self, number: int) -> str:
        return _place(self._handles[number])


def write_table(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The table of ``entries``, which come with keys in strictly increasing order: TensorFlow's own bytes for them."""
    result = bytearray()
    index = _BlockWriter(restart_interval=1)
    block = _BlockWriter(_RESTART_INTERVAL)
    pending: tuple[bytes, bytes] | None = None  # the last key of a finished block, and its handle
    last = b""
    for key, value in entries:
        if pending is not None:
            index.add(_separator(pending[0], key), pending[1])
            pending = None
        block.add(key, value)
        last = key
        if block.size >= _BLOCK_SIZE:
            pending = key, _append(result, block)
            block = _BlockWriter(_RESTART_INTERVAL)
    if block.size > _BlockWriter(_RESTART_INTERVAL).size:
        pending = last, _append(result, block)
    metaindex = _append(result, _BlockWriter(_RESTART_INTERVAL))
    if pending is not None:
        index.add(_successor(pending[0]), pending[1])
    handles = metaindex + _append(result, index)
    return bytes(result + handles.ljust(_FOOTER - len(MAGIC), b"\0") + MAGIC)


# Reading


def _handle(data: bytes | memoryview, position: int) -> tuple[tuple[int, int], int]:
    offset, position = varint(data, position)
    size, position = varint(data, position)
    return (offset, size), position


def _place(handle: tuple[int, int]) -> str:
    return f"the block at offset {handle[0]:,}"


def _block(window: Window, handle: tuple[int, int]) -> memoryview:
    """The content of a block, verified and uncompressed."""
    offset, size = handle
    if offset + size + _TRAILER > window.size - _FOOTER:
        raise ReadError(f"a block of {size:,} bytes reaches beyond the file's end", where=_place(handle))
    data = memoryview(window.read(offset, size + _TRAILER))
    (stored,) = struct.unpack_from("<I", data, size + 1)
    if masked(data[start : min(start + CHUNK, size + 1)] for start in range(0, size + 1, CHUNK)) != stored:
        raise ReadError("the checksum of a block does not match: the file is damaged", where=_place(handle))
    compression = data[size]
    if compression == _NONE:
        return data[:size]
    if compression == _SNAPPY:
        return memoryview(uncompress(bytes(data[:size])))
    raise ReadError(f"a block is compressed by method {compression}, which tables do not have", where=_place(handle))


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The entries of a block's content, in order."""
    if len(block) < 4:
        raise ReadError("a block is too short for its number of restarts")
    (count,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 - 4 * count
    if count < 1 or end < 0:
        raise ReadError(f"a block of {len(block):,} bytes cannot have {count:,} restarts")
    restarts = list(struct.unpack_from(f"<{count}I", block, end))
    if end == 0 and restarts == [0]:
        return
    restarts.reverse()
    position = 0
    key = b""
    while position < end:
        restart = bool(restarts) and restarts[-1] == position
        if restart:
            restarts.pop()
        shared, position = varint(block, position)
        further, position = varint(block, position)
        length, position = varint(block, position)
        if shared > (0 if restart else len(key)) or position + further + length > end:
            raise ReadError(f"an entry after the key {key!r} reaches outside its block")
        if shared + further > _LONGEST_KEY:
            raise UnsafeInput(f"a key of {shared + further:,} bytes is longer than any name")
        key = key[:shared] + bytes(block[position : position + further])
        position += further
        yield key, block[position : position + length]
        position += length
    if restarts:
        raise ReadError(f"{len(restarts)} restarts of a block point at no entry")


# Writing


class _BlockWriter:
    def __init__(self, restart_interval: int) -> None:
        self._interval = restart_interval
        self._data = bytearray()
        self._restarts = [0]
        self._since_restart = 0
        self._last = b""

    @property
    def size(self) -> int:
        """Bytes of the finished block, without its trailer."""
        return len(self._data) + 4 * len(self._restarts) + 4

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._since_restart == self._interval:
            self._restarts.append(len(self._data))
            self._since_restart = 0
        else:
            shared = _common(self._last, key)
        self._data += encode_varint(shared) + encode_varint(len(key) - shared) + encode_varint(len(value))
        self._data += key[shared:] + value
        self._since_restart += 1
        self._last = key

    def finish(self) -> bytes:
        return bytes(self._data) + struct.pack(f"<{len(self._restarts) + 1}I", *self._restarts, len(self._restarts))


def _append(table: bytearray, block: _BlockWriter) -> bytes:
    """Put a finished block at the end of the table; its handle."""
    offset = len(table)
    data = block.finish() + bytes([_NONE])
    table += data + struct.pack("<I", masked([data]))
    return encode_varint(offset) + encode_varint(len(data) - 1)


def _common(a: bytes, b: bytes) -> int:
    length = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        length += 1
    return length


def _separator(last: bytes, following: bytes) -> bytes:
    """A short key from ``last`` on and below ``following``."""
    same = _common(last, following)
    if same < min(len(last), len(following)) and last[same] < 0xFF and last[same] + 1 < following[same]:
        return last[:same] + bytes([last[same] + 1])
    return last


def _successor(last: bytes) -> bytes:
    """A short key not below ``last``."""
    for position, byte in enumerate(last):
        if byte != 0xFF:
            return last[:position] + bytes([byte + 1])
    return last
