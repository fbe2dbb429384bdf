"""Snappy's raw format, reading only: what a block of a checkpoint index may be compressed with.

::

    varint32            length of the result
    element*            tag & 3 = 0  literal:  length - 1 in tag >> 2; 60..63: in the next 1..4 bytes
                                  1  copy:     length - 4 in 3 bits, offset in 3 bits + 1 byte
                                  2  copy:     length - 1 in tag >> 2, offset in 2 bytes
                                  3  copy:     length - 1 in tag >> 2, offset in 4 bytes

Specification: https://github.com/google/snappy/blob/main/format_description.txt. Plain Python is enough: TensorFlow
leaves the index uncompressed (``tensor_bundle.cc``, ``BundleWriter::Finish``); some builds of it inside Google do not.
"""

from __future__ import annotations

from modelio.errors import ReadError
from modelio.wire.varint import varint

__all__ = ["uncompress"]

_BEST_RATIO = 32
"""No element of a few bytes gives more than 64, so nothing expands further than about 22 times."""


def uncompress(data: bytes) -> bytes:
    """The bytes that ``data`` stands for.

    Raises:
        ReadError: an element reaches outside the data, or the result has another length than announced.

    >>> uncompress(bytes([9, 2 << 2]) + b"abc" + bytes([2 | 5 << 2, 3, 0]))
    b'abcabcabc'
    """
    size, position = varint(data, 0)
    if size > _BEST_RATIO * len(data):
        raise ReadError(f"a snappy block of {len(data):,} bytes claims to hold {size:,}; no such block exists")
    result = bytearray()
    while position < len(data) and len(result) <= size:
        tag = data[position]
        position += 1
        if tag & 3 == 0:
            length = (tag >> 2) + 1
            if length > 60:
                width = length - 60
                length = int.from_bytes(data[position : position + width], "little") + 1
                position += width
            literal = data[position : position + length]
            if len(literal) != length:
                raise ReadError("a snappy block ends inside a literal")
            result += literal
            position += length
            continue
        width = (1, 2, 4)[(tag & 3) - 1]
        offset = int.from_bytes(data[position : position + width], "little")
        position += width
        length = (tag >> 2) + 1
        if tag & 3 == 1:
            offset |= (tag >> 5) << 8
            length = (tag >> 2 & 7) + 4
        if not 0 < offset <= len(result) or position > len(data):
            raise ReadError("a snappy block copies from before its start")
        start = len(result) - offset
        # A copy may overlap what it writes: then it repeats the last `offset` bytes.
        repeated = bytes(result[start : start + length])
        result += (repeated * (length // len(repeated) + 1))[:length]
    if len(result) != size:
        raise ReadError(f"a snappy block holds {len(result):,} bytes and announces {size:,}")
    return bytes(result)
