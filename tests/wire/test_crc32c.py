"""CRC32C against the examples of RFC 3720 (appendix B.4), and its mask against LevelDB's definition."""

from __future__ import annotations

import pytest

from modelio.wire.crc32c import extend, mask, masked, unmask

RFC_3720 = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
]


@pytest.mark.parametrize(("data", "crc"), RFC_3720)
def test_the_examples_of_the_standard(data: bytes, crc: int) -> None:
    assert extend(0, data) == crc


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_pieces_of_any_kind_give_the_checksum_of_the_whole(kind: type) -> None:
    data, crc = RFC_3720[2]
    assert extend(extend(0, kind(data[:7])), kind(data[7:])) == crc
    assert unmask(masked([kind(data[:7]), b"", kind(data[7:])])) == crc


def test_nothing_leaves_a_checksum_as_it_is() -> None:
    assert extend(0x1234, b"") == 0x1234


@pytest.mark.parametrize("crc", [0, 1, 0x8000, 0x7FFF, 0x80000000, 0xFFFFFFFF])
def test_the_mask_rotates_by_15_bits_and_adds_a_constant(crc: int) -> None:
    bits = f"{crc:032b}"
    rotated = int(bits[-15:] + bits[:-15], 2)
    assert mask(crc) == (rotated + 0xA282EAD8) % 2**32
    assert unmask(mask(crc)) == crc
