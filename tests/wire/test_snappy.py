"""The decoder against elements that are put together by hand, as the format's specification draws them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelio.errors import ReadError
from modelio.wire.snappy import uncompress
from modelio.wire.varint import encode_varint


def literal(data: bytes) -> bytes:
    length = len(data) - 1
    if length < 60:
        return bytes([length << 2]) + data
    width = (length.bit_length() + 7) // 8
    return bytes([59 + width << 2]) + length.to_bytes(width, "little") + data


def copy(length: int, offset: int, width: int) -> bytes:
    if width == 1:
        return bytes([offset >> 8 << 5 | length - 4 << 2 | 1, offset & 0xFF])
    return bytes([length - 1 << 2 | (2 if width == 2 else 3)]) + offset.to_bytes(width, "little")


def block(size: int, *elements: bytes) -> bytes:
    return encode_varint(size) + b"".join(elements)


WHOLE = [
    (block(0), b""),
    (block(3, literal(b"abc")), b"abc"),
    (block(60, literal(b"x" * 60)), b"x" * 60),
    (block(61, literal(b"x" * 61)), b"x" * 61),
    (block(70_000, literal(b"y" * 70_000)), b"y" * 70_000),
    (block(7, literal(b"abc"), copy(4, 3, 1)), b"abcabca"),
    (block(11, literal(b"abcdefg"), copy(4, 7, 1)), b"abcdefgabcd"),
    (block(9, literal(b"a"), copy(8, 1, 2)), b"a" * 9),
    (block(5, literal(b"abc"), copy(2, 2, 4)), b"abcbc"),
    (block(304, literal(bytes(range(150)) * 2), copy(4, 300, 1)), bytes(range(150)) * 2 + bytes(range(4))),
]


@pytest.mark.parametrize(("data", "expected"), WHOLE)
def test_elements(data: bytes, expected: bytes) -> None:
    assert uncompress(data) == expected


BROKEN = [
    (b"", "whole number"),
    (block(4, literal(b"abc")), "announces 4"),
    (block(2, literal(b"abc")), "announces 2"),
    (block(9, literal(b"abcdefghi")[:5]), "inside a literal"),
    (block(7, literal(b"abc"), copy(4, 4, 1)), "before its start"),
    (block(7, literal(b"abc"), copy(4, 0, 2)), "before its start"),
    (block(7, literal(b"abc"), copy(4, 3, 1)[:1]), "before its start"),
    (block(1 << 40, literal(b"abc")), "no such block exists"),
]


@pytest.mark.parametrize(("data", "sentence"), BROKEN)
def test_broken_blocks_are_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(ReadError, match=sentence):
        uncompress(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        result = uncompress(data)
    except ReadError:
        return
    assert len(result) <= 32 * len(data)
