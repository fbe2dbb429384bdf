"""Arrays as nested JSON lists of numbers, written and read block by block.

::

    [[0.25, -1.5, 1e-07], [NaN, Infinity, 3]]        a shape of (2, 3)
    7                                                of ()

An array's text takes three to six times its bytes, and a list of Python's numbers as much again; so neither is ever
there as a whole. What is spelled is spelled with as few digits as bring back the same bits, ``NaN`` and ``Infinity`` as
Python's ``json`` has them; of a NaN only that it is one is kept. Complex numbers are lists of two.

>>> from modelio.wire.raw import RawArray
>>> from modelio.wire.window import MemoryWindow
>>> array = RawArray(MemoryWindow(np.array([[0.1, 2]], "<f4").tobytes()), "<f4", (1, 2))
>>> text = b"".join(spell(array))
>>> text, ListedArray(MemoryWindow(text), "float32", (1, 2)).numpy()
(b'[[0.1,2.0]]', array([[0.1, 2. ]], dtype=float32))
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import prod
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.wire import decimals, jsontext
from modelio.wire.raw import RANK, Values
from modelio.wire.window import CHUNK, Window

__all__ = ["ListedArray", "place_of", "spell", "without_lists"]

BLOCK = 1 << 16
"""Numbers that are spelled or parsed at a time."""

LONG = 1 << 8
"""Bytes of a list above which it is left where it is."""

ROOM = 1 << 6
"""Bytes of text, without spaces, that one number may take."""

_NO_NUMBER = re.compile(rb'["{}ul]')  # in strings, objects, null, true and false
_NO_TRUTH = re.compile(rb'["{}nN]')  # in strings, objects, null, NaN and Infinity
_GAP = re.compile(rb"[^\s,\[\]]\s+[^\s,\[\]]")

_MISSHAPEN = "the lists of numbers do not have the declared shape"


# Writing


def spell(values: Values) -> Iterator[bytes]:
    """The text of an array of numbers or truths, piece by piece; truths are 0 and 1."""
    shape = values.shape + ((2,) if values.dtype.kind == "c" else ())
    numbers = _Numbers(values)
    if not shape:
        yield _text(numbers.take(1))
    elif prod(shape):
        yield from _nested(shape, numbers)
    else:
        yield b"[]"
    numbers.end()


def _nested(shape: tuple[int, ...], numbers: _Numbers) -> Iterator[bytes]:
    """The lists of a shape, of the numbers that are next."""
    count, inner = shape[0], prod(shape[1:])
    rows = max(1, BLOCK // inner)
    for start in range(0, count, rows):
        yield b"," if start else b"["
        if inner > BLOCK:
            yield from _nested(shape[1:], numbers)
        else:
            size = min(rows, count - start)
            yield _text(numbers.take(size * inner).reshape(size, *shape[1:]))
    yield b"]"


def _text(numbers: npt.NDArray[Any]) -> bytes:
    """The lists of an array, without the outermost brackets."""
    if numbers.dtype == np.float32:
        return decimals.spelled(numbers.ravel(), numbers.shape[1:])
    return json.dumps(numbers.tolist(), separators=(",", ":")).encode()[1:-1]


class _Numbers:
    """The numbers of an array in order, as many at a time as are wanted; a complex one counts as two."""

    def __init__(self, values: Values) -> None:
        self._pieces = values.chunks()
        self._buffer = bytearray()
        stored = values.dtype.newbyteorder("<")
        self._dtype: np.dtype[Any] = np.dtype(f"<f{stored.itemsize // 2}") if stored.kind == "c" else stored

    def take(self, count: int) -> npt.NDArray[Any]:
        """The next so many, as what Python spells."""
        size = count * self._dtype.itemsize
        while len(self._buffer) < size:
            piece = next(self._pieces, None)
            if piece is None:
                raise WriteError("the tensor gives fewer bytes than its shape takes")
            self._buffer.extend(piece)
        taken = np.frombuffer(bytes(self._buffer[:size]), self._dtype)
        del self._buffer[:size]
        return _plain(taken)

    def end(self) -> None:
        """None may be left."""
        if self._buffer or any(len(piece) for piece in self._pieces):
            raise WriteError("the tensor gives more bytes than its shape takes")


def _plain(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if numbers.dtype == np.bool_:
        return numbers.view(np.int8)
    if numbers.dtype.kind in "iu" or numbers.dtype == np.float64:
        return numbers
    return numbers.astype(np.float32)


# Reading


class ListedArray:
    """An array whose numbers are text in a window.

    Args:
        window: the text of the lists and of nothing else.
        dtype: the element type; its numbers are spelled as integers where it is one, as truths or 0 and 1 for bool.
        shape: sizes of the dimensions, none of them 0.
        where: the place to name in errors.

    Raises:
        ReadError: the text is too short for the shape; when the numbers are asked for, any other fault.
    """

    def __init__(
        self, window: Window, dtype: npt.DTypeLike, shape: tuple[int, ...], *, where: str | None = None
    ) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = shape
        self._window = window
        self._where = where
        if len(shape) > RANK or 2 * prod(shape) - 1 > window.size:  # a digit and a comma each
            raise ReadError(f"{window.size:,} bytes of text cannot hold {list(shape)} numbers", where=where)

    def numpy(self) -> npt.NDArray[Any]:
        """The numbers, in native byte order."""
        array = np.empty(prod(self.shape), self.dtype)
        position = 0
        for block in self._blocks():
            array[position : position + block.size] = block
            position += block.size
        return array.reshape(self.shape)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The C-order little-endian bytes, a block at a time."""
        for block in self._blocks():
            yield block.astype(self.dtype.newbyteorder("<"), copy=False).view(np.uint8).data

    def _blocks(self) -> Iterator[npt.NDArray[Any]]:
        """The numbers in order, flat."""
        text = _Text(self._window, self.dtype)
        try:
            yield from text.lists(self.shape + ((2,) if self.dtype.kind == "c" else ()))
            text.end()
        except ReadError as error:
            error.where = error.where or self._where
            raise


class _Text:
    """A text of lists that is read from start to end, as much at a time as is needed, and without its spaces."""

    def __init__(self, window: Window, dtype: np.dtype[Any]) -> None:
        self._window = window
        self._dtype = dtype
        self._foreign = _NO_TRUTH if dtype == np.bool_ else _NO_NUMBER
        hooks: dict[str, Any] = {"parse_float": _refuse, "parse_constant": _refuse} if dtype.kind in "iub" else {}
        self._decode = json.JSONDecoder(**hooks).decode
        self._text = ""
        self._at = 0
        self._read = 0
        self._before = b""

    def lists(self, shape: tuple[int, ...]) -> Iterator[npt.NDArray[Any]]:
        """The numbers of lists of this shape, in order, flat; the counterpart of :func:`_nested`."""
        if not shape:
            while self._more(1):
                pass
            count, number = self._numbers(len(self._text), ())
            if count > 1:
                raise ReadError(_MISSHAPEN)
            yield number
        elif prod(shape[1:]) <= BLOCK:
            self._expect("[")
            yield from self._rows(shape[0], shape[1:])
            self._expect("]")
        else:
            for row in range(shape[0]):
                self._expect("," if row else "[")
                yield from self.lists(shape[1:])
            self._expect("]")

    def end(self) -> None:
        """Nothing may be left."""
        while self._at == len(self._text) and self._more(1):
            pass
        if self._at < len(self._text):
            raise ReadError(f"the lists of numbers go on after their end: {self._text[self._at :][:20]!r}")

    def _expect(self, mark: str) -> None:
        """Go past this character, which has to be the next one."""
        while self._at == len(self._text) and self._more(1):
            pass
        if not self._text.startswith(mark, self._at):
            raise ReadError(f"{mark!r} is missing in the lists of numbers, before {self._text[self._at :][:20]!r}")
        self._at += 1

    def _rows(self, count: int, shape: tuple[int, ...]) -> Iterator[npt.NDArray[Any]]:
        """So many lists of this shape, or numbers, as many at a time as have been read."""
        close = "]" * len(shape)
        while count:
            end = self._text.find(close + "]", self._at)  # so many brackets follow each other at the end alone
            last = end >= 0
            if not last:
                end = self._text.rfind(close + ",", self._at)
            if end < 0:
                if not self._more(prod(shape)):
                    raise ReadError("the lists of numbers have no end")
                continue
            rows, block = self._numbers(end + len(close), shape)
            count -= rows
            if count < 0 or last != (count == 0):
                raise ReadError(_MISSHAPEN)
            yield block
            if not last:
                self._expect(",")

    def _numbers(self, end: int, shape: tuple[int, ...]) -> tuple[int, npt.NDArray[Any]]:
        """How many lists of this shape there are up to there, and their numbers, flat."""
        text = self._text[self._at : end]
        self._at = end
        try:
            listed = self._decode(f"[{text}]")
            wide = np.array(listed, object if self._dtype.kind in "iub" else np.float64)
        except ReadError:
            raise
        except (ValueError, TypeError, OverflowError, RecursionError):
            # no JSON, lists of several lengths, an integer of thousands of digits, or one beyond all floats
            raise ReadError(f"these are not lists of numbers: {text[:20]!r}") from None
        if wide.shape[1:] != shape or not wide.size:
            raise ReadError(_MISSHAPEN)
        return len(wide), (_whole if self._dtype.kind in "iub" else _floating)(wide.ravel(), self._dtype)

    def _more(self, count: int) -> bool:
        """Get the next piece of a text, of which so many numbers were wanted; False where there is none."""
        if len(self._text) - self._at > CHUNK + ROOM * count:
            raise UnsafeInput(f"more than {CHUNK + ROOM * count:,} bytes of text are to spell {count:,} numbers")
        size = min(CHUNK, self._window.size - self._read)
        piece = bytes(self._window.read(self._read, size))
        foreign = self._foreign.search(piece)
        if foreign:
            raise ReadError(f"something else than numbers is in the lists: {bytes(piece[foreign.start() :][:20])!r}")
        bare = piece.translate(None, b" \t\n\r")
        if len(bare) < size and _GAP.search(self._before + piece):
            raise ReadError("two numbers have no comma between them")
        self._before = (bare[-1:] or self._before[:1]) + (b" " if piece[-1:].isspace() else b"")
        self._text = self._text[self._at :] + bare.decode("ascii", "replace")
        self._at = 0
        self._read += size
        return size > 0


def _refuse(text: str) -> NoReturn:
    raise ReadError(f"{text} is no integer, and the elements are")


def _whole(wide: npt.NDArray[np.object_], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    low, high = (0, 1) if dtype == np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    numbers = wide.tolist()
    if not low <= min(numbers) <= max(numbers) <= high:
        raise ReadError(f"{next(number for number in numbers if not low <= number <= high)} is not of {dtype.name}")
    return np.array(numbers, dtype)


def _floating(wide: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype.kind == "c":
            return wide.astype(f"f{dtype.itemsize // 2}").view(dtype)
        narrow: npt.NDArray[Any] = wide.astype(dtype)
        lost = np.isfinite(wide) & ~np.isfinite(narrow.astype(np.float64))
    if lost.any():
        raise ReadError(f"{wide[lost][0]} is not of {dtype.name}")
    return narrow


# Leaving lists where they are


def without_lists(window: Window) -> bytes:
    r"""A JSON text with each long list of numbers replaced by where it is: ``"\u0000offset:length"``.

    Outside strings, a list of numbers is what stands between a bracket and the next quote or brace.

    :class:`~modelio.errors.UnsafeInput` where more is left than any model needs.

    >>> from modelio.wire.window import MemoryWindow
    >>> without_lists(MemoryWindow(b'{"value": [' + b"1, " * 100 + b'2], "alias": [3]}'))
    b'{"value": "\\u000010:303", "alias": [3]}'
    """
    kept = bytearray()
    text = _Scan(window)
    while text.until(b'"[', kept):
        if text.next() == b"[":
            start, listed = text.position, bytearray()
            text.until(b'"{}', listed, limit=LONG)
            if len(listed) < LONG:
                kept += listed
            else:
                rest = _rest(window, start, text.position)
                kept += b'"\\u0000%d:%d"' % (start, text.position - len(rest) - start) + rest
        else:
            text.skip(1, kept)
            while text.until(b'"\\', kept) and text.next() != b'"':
                text.skip(2, kept)
            text.skip(1, kept)
        if len(kept) > jsontext.SIZE:
            raise UnsafeInput(f"more than {jsontext.SIZE:,} bytes of JSON beside the numbers: this is no model")
    return bytes(kept)


_PLACE = re.compile(r"\0(\d{1,18}):(\d{1,18})")


def place_of(value: object) -> tuple[int, int] | None:
    """Offset and length of the list that :func:`without_lists` replaced by this value; None where it replaced none."""
    place = _PLACE.fullmatch(value) if isinstance(value, str) else None
    return (int(place[1]), int(place[2])) if place else None


def _rest(window: Window, start: int, stop: int) -> bytes:
    """What follows the last bracket: a comma, and spaces."""
    tail = bytes(window.read(max(start, stop - LONG), min(LONG, stop - start)))
    return tail[tail.rfind(b"]") + 1 :]


class _Scan:
    """Bytes that are gone through once, a piece at a time."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._piece = b""
        self._start = 0
        self._at = 0

    @property
    def position(self) -> int:
        return self._start + self._at

    def next(self) -> bytes:
        """The next byte; none at the end."""
        return self._piece[self._at : self._at + 1]

    def until(self, marks: bytes, kept: bytearray, limit: int = CHUNK + jsontext.SIZE) -> bool:
        """Go on to one of these bytes, or to the end; ``kept`` gets what is passed, up to about a limit."""
        while True:
            stop = len(self._piece)
            for mark in marks:  # find() goes through a gigabyte in the time of a pattern's hundred megabytes
                found = self._piece.find(mark, self._at, stop)
                stop = stop if found < 0 else found
            if len(kept) < limit:
                kept += self._piece[self._at : min(stop, self._at + limit)]
            self._at = stop
            if stop < len(self._piece):
                return True
            if not self._more():
                return False

    def skip(self, count: int, kept: bytearray) -> None:
        """Go past so many bytes, and keep them."""
        for _ in range(count):
            if self._at < len(self._piece) or self._more():
                kept += self.next()
                self._at += 1

    def _more(self) -> bool:
        self._start += len(self._piece)
        self._at = 0
        self._piece = bytes(self._window.read(self._start, min(CHUNK, self._window.size - self._start)))
        return bool(self._piece)
