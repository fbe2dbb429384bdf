"""Varints: seven bits a byte, lowest first, the high bit set on all bytes but the last."""

from __future__ import annotations

from modelio.errors import ReadError

__all__ = ["encode_varint", "varint"]


def varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    r"""The number at ``position`` of ``data``, below 2**64, and the position after it.

    >>> varint(b"\xac\x02", 0)
    (300, 2)
    """
    value = shift = 0
    for index in range(position, min(position + 10, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, index + 1
        shift += 7
    raise ReadError(f"there is no whole number at offset {position:,}: the bytes are cut short or damaged")


def encode_varint(value: int) -> bytes:
    r"""The bytes of a number that is not negative.

    >>> encode_varint(300)
    b'\xac\x02'
    """
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
