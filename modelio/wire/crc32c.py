"""CRC32C as TensorFlow stores it: over the bytes of a block, a tensor or a record, then masked.

The mask (a rotation and a constant, from LevelDB's ``util/crc32c.h``) keeps the checksum of data that itself holds
checksums from degenerating. The arithmetic is google-crc32c's, in C; it is imported at the first use.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["extend", "mask", "masked", "unmask"]

_MASK_DELTA = 0xA282EAD8
_BITS = 0xFFFFFFFF


def extend(crc: int, data: bytes | bytearray | memoryview) -> int:
    """The checksum of what gave ``crc``, followed by ``data``; that of nothing is 0.

    >>> hex(extend(extend(0, b"1234"), b"56789"))
    '0xe3069283'
    """
    import google_crc32c

    # The C function takes bytes and nothing else; callers pass a megabyte at a time, so the copy is small.
    return int(google_crc32c.extend(crc, data if isinstance(data, bytes) else bytes(data)))


def mask(crc: int) -> int:
    """The stored form of ``crc``.

    >>> hex(mask(0))
    '0xa282ead8'
    """
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _BITS


def unmask(stored: int) -> int:
    """The checksum whose stored form is ``stored``.

    >>> hex(unmask(mask(0xE3069283)))
    '0xe3069283'
    """
    rotated = (stored - _MASK_DELTA) & _BITS
    return (rotated >> 17 | rotated << 15) & _BITS


def masked(pieces: Iterable[bytes | bytearray | memoryview]) -> int:
    """The stored form of the checksum of all ``pieces`` in a row."""
    crc = 0
    for piece in pieces:
        crc = extend(crc, piece)
    return mask(crc)
