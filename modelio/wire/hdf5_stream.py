"""What libhdf5 reads a file through: by pages, and past a guard that knows where libhdf5 would never come back.

libhdf5 follows its structures as they tell it to, and where one of them is damaged, or made so, goes in a circle or
deeper than the stack is (seen with 1.14.6). It asks for each structure as a whole, from its first byte on, so here is
where all of them pass:

::

    "GCOL"   a global heap collection: the texts of any length that attributes hold, one after the other
    "HEAP"   a local heap: the names in a group; what is free begins with the place of the next that is free
    "TREE"   a node of a B-tree: the members of a group, or the chunks of a dataset, of 1 and its like of 0
    "BTHD"   the head of a B-tree of the newer kind, with its depth

Source: the HDF5 file format specification 3.0, III.A to III.E; libhdf5 1.14.6 ``H5HGcache.c``, ``H5HLcache.c``,
``H5B.c``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from modelio.errors import ModelioError, ReadError, UnsafeInput
from modelio.wire.window import Window

__all__ = ["Stream"]

PAGE, PAGES = 1 << 13, 1 << 10
"""Bytes that are read at once where libhdf5 follows the structure, and how many such pages are kept."""

STEPS = 1 << 20
"""Parts of all structures of one file: as many as it may have groups and datasets, ten times over."""

COPIES_RATIO, COPIES_LIMIT = 1100, 4 << 30
"""How many times a file's size, and how many bytes, the texts of one list may take: it may name one again and again.
As for numbers that are packed (:mod:`modelio.wire.hdf5`)."""

NODES = 1 << 25
"""Nodes that a tree of the newer kind may have at most by its depth and the size of a node."""

END = 1
"""What a local heap has in place of the next free piece (``H5HLpkg.h``)."""

CHUNK_ENTRIES = 64
"""Entries of a node that leads to chunks, where the superblock does not tell (``HDF5_BTREE_CHUNK_IK_DEF``, twice)."""


class Stream:
    """A window as h5py wants it: libhdf5 asks thousands of times for a few dozen bytes close to each other.

    Args:
        window: the file.
        guarded: whether structures are checked; not where only numbers are left to be read, which may look like
            anything, and whose structure was checked before.
    """

    def __init__(self, window: Window, guarded: bool = True) -> None:
        self._window = window
        self._size = window.size
        self._position = 0
        self._pages: dict[int, bytes | memoryview] = {}
        self._checks = _CHECKS if guarded else {}
        self._checked: set[int] = set()
        self._named: set[int] = set()
        self._ending: set[int] = set()
        self._steps = 0
        self._longest = 0
        self._copies = 1

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        length = len(view)
        number, start = divmod(self._position, PAGE)
        if start + length <= PAGE:
            page = self._pages.get(number) or self._page(number)
            piece = page[start : start + length]
        else:
            piece = self._piece(self._position, length)
        view[: len(piece)] = piece
        if len(piece) < length:  # what lies past the end reads as zeros, as in libhdf5's own driver
            view[len(piece) :] = bytes(length - len(piece))
        check = self._checks.get(bytes(view[:4]))
        if check is not None and self._position not in self._checked:
            try:
                check(self, self._position, length)
            except ModelioError as error:
                error.where = f"byte {self._position:,}"
                raise
            self._checked.add(self._position)  # not what was refused: libhdf5 may ask for it again
        return length

    def read(self, length: int = -1) -> bytes:
        raise io.UnsupportedOperation  # h5py asks whether there is a read, and calls readinto

    def _page(self, number: int) -> bytes | memoryview:
        if len(self._pages) == PAGES:
            self._pages.clear()
        page = self._pages[number] = self._piece(number * PAGE, PAGE)
        return page

    def _piece(self, start: int, length: int) -> bytes | memoryview:
        length = min(length, self._size - start)
        return self._window.read(start, length) if length > 0 else b""

    @contextlib.contextmanager
    def texts(self, count: int) -> Iterator[None]:
        """So many texts are now read at once; each may be a copy of the longest that is there."""
        self._copies = count
        try:
            self._check_copies()
            yield
        finally:
            self._copies = 1

    def _check_copies(self) -> None:
        most = self._copies * self._longest
        if self._copies > 1 and most > min(COPIES_LIMIT, max(1 << 26, COPIES_RATIO * self._size)):
            raise UnsafeInput(f"{self._copies:,} texts of up to {self._longest:,} bytes: this is no model")

    # -- structures ------------------------------------------------------------------------------------------------

    def _check_collection(self, place: int, length: int) -> None:
        """``GCOL version:1 zeros:3 size``, then objects: ``index:2 references:2 zeros:4 size``, padded to 8 bytes.

        Index 0 is what is free; its size counts the head, too.
        """
        head = -(-(8 + self._size_width) // 8) * 8  # of the collection, and of each object
        size = self._number(place + 8, self._size_width)
        if not head <= size <= self._size - place:
            raise ReadError(f"a heap of texts claims to have {size:,} bytes")
        at = head
        data = self._window.read(place, size)
        while size - at >= head:  # what is left and too short for an object is free
            length = int.from_bytes(data[at + 8 : at + 8 + self._size_width], "little")
            is_free = data[at : at + 2] == b"\0\0"
            step = length if is_free else head + -(-length // 8) * 8
            if not head <= step <= size - at:
                raise ReadError("a heap of texts is damaged: what it holds is not in one piece")
            self._longest = max(self._longest, 0 if is_free else length)
            self._count(1)
            at += step
        self._check_copies()

    def _check_local_heap(self, place: int, length: int) -> None:
        """``HEAP version:1 zeros:3 size, first free, place of the data``; a free piece: ``next free, size``."""
        width = self._size_width
        size, free = self._number(place + 8, width), self._number(place + 8 + width, width)
        start = self._number(place + 8 + 2 * width, self._place_width)
        visited = set()
        while free != END and free < size and start + free < self._size:  # libhdf5 refuses what lies outside
            if free in visited:
                raise ReadError("a heap of names is damaged: what is free in it goes in a circle")
            visited.add(free)
            self._count(1)
            free = self._number(start + free, width)

    def _check_node(self, place: int, length: int) -> None:
        """``TREE kind:1 level:1 entries:2 left, right``, then ``key, child`` again and again, and a last key.

        Nodes lead downwards by one level, none is led to twice, and those of a level do not form a ring.
        """
        kind, level = self._number(place + 4, 1), self._number(place + 5, 1)
        entries = self._number(place + 6, 2)
        width = self._place_width
        first = place + 8 + 2 * width
        key = self._size_width if kind == 0 else self._chunk_key(length)
        self._count(entries)
        if entries * (key + width) > length:
            raise ReadError("a tree is damaged: a node has more entries than it has room for")
        wanted = bytes((kind, (level - 1) % 256))
        for at in range(first + key, first + entries * (key + width), key + width) if level or kind == 0 else ():
            child = self._number(at, width)
            if child in self._named:
                raise ReadError("a tree is damaged: two of its entries lead to the same place", where=f"{child:,}")
            self._named.add(child)
            if level and self._there(child, 6) != b"TREE" + wanted:
                raise ReadError("a tree is damaged: it does not lead from each level to the one below")
        self._check_row(place, kind, level)

    def _check_row(self, place: int, kind: int, level: int) -> None:
        """Follow a node's neighbours to the right, up to one from which the end was reached before."""
        row = set()
        while place not in self._ending and self._there(place, 6) == b"TREE" + bytes((kind, level)):
            if place in row:
                raise ReadError("a tree is damaged: the nodes of a level go in a circle")
            row.add(place)
            self._count(1)
            place = self._number(place + 8 + self._place_width, self._place_width)
        self._ending |= row

    def _chunk_key(self, length: int) -> int:
        """Bytes of a key that leads to chunks, of which only the size of the whole node tells."""
        entries = 2 * self._number(24, 2) if self._number(8, 1) == 1 else CHUNK_ENTRIES
        key, rest = divmod(length - 8 - (2 + entries) * self._place_width, entries + 1)
        if rest or key < 16:
            raise UnsafeInput("a tree of chunks whose nodes have an unusual size: this is no model")
        return key

    def _check_new_tree(self, place: int, length: int) -> None:
        """``BTHD version:1 kind:1 size of a node:4 size of a record:2 depth:2 ...``."""
        node, depth = self._number(place + 6, 4), self._number(place + 12, 2)
        if depth > 16 or (node // (self._place_width + 1)) ** depth > NODES:
            raise UnsafeInput(f"a tree of {depth:,} levels: this is no model")

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > STEPS:
            raise UnsafeInput(f"structures of more than {STEPS:,} parts: this is no model")

    @cached_property
    def _place_width(self) -> int:
        """Bytes of a place in the file, which the superblock tells (II.A)."""
        return self._number(13 if self._number(8, 1) < 2 else 9, 1)

    @cached_property
    def _size_width(self) -> int:
        """Bytes of a size."""
        return self._number(14 if self._number(8, 1) < 2 else 10, 1)

    def _number(self, place: int, width: int) -> int:
        return int.from_bytes(self._there(place, width), "little")

    def _there(self, place: int, length: int) -> bytes:
        """The bytes at a place; zeros, or fewer, where the file ends."""
        number, start = divmod(place, PAGE)
        if start + length <= PAGE and place < self._size:
            page = self._pages.get(number) or self._page(number)
            return bytes(page[start : start + length])
        return bytes(self._piece(place, length))


_CHECKS = {
    b"GCOL": Stream._check_collection,
    b"HEAP": Stream._check_local_heap,
    b"TREE": Stream._check_node,
    b"BTHD": Stream._check_new_tree,
}
