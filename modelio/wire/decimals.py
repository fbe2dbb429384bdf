"""Single-precision numbers as decimal text, a block at a time, as ``json`` of Python spells them one by one.

Eight or nine digits bring a float back, also by way of a double, which is how readers go: the decimal is further from
the middle between two floats than a double errs. All numbers of a block are spelled at once, in a matrix that has a row
for each and a byte for each place of its text, zero where a place is not taken::

    -  0  .  0  1  2  3  4  5  6  7  8                    ,
       1  .  2  3  4  5  6  7  8        e  -  0  5  ]     ,  [

What does not fit this pattern (NaN, infinities, numbers from 1e8 on and below 1e-37) is left to ``json``.
"""

from __future__ import annotations

import json
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["short", "spelled"]

Bytes = npt.NDArray[np.uint8]

LEAST, MOST = -37, 7
"""Powers of ten between which numbers are spelled here."""

_POWERS = 10.0 ** np.arange(8 - LEAST + 1)
_PLACES = 18
"""Of the longest text, with the places that are never taken: ``-1.23 456 78 e-05``, ``-0.000123 456 78 ``."""

_TRIPLES = [f"{number:03d}".encode() for number in range(1000)]
_GROUPS = np.frombuffer(
    b"".join(text.ljust(4, b"\0") for text in [*_TRIPLES, *(text.rstrip(b"0") for text in _TRIPLES)]), np.uint32
)
"""Three digits and a place that is not taken; a thousand further the same without zeros at their end."""


def spelled(numbers: npt.NDArray[np.float32], inner: tuple[int, ...]) -> bytes:
    """The text of lists of the shape ``inner``, a comma between them; of numbers, where it is empty.

    >>> spelled(np.array([0.1, -2, 1e-7, 0], "float32"), (2,))
    b'[0.1,-2.0],[1e-07,0.0]'
    """
    exponent, digits, ours = _digits(numbers)
    others = _by_json(numbers[~ours])
    between = _between(len(numbers), inner)
    places = max(_PLACES, others.shape[1])
    text = np.zeros((len(numbers), places + between.shape[1]), np.uint8)
    text[:, places:] = between
    for power in range(LEAST, MOST + 1):
        rows = np.flatnonzero(exponent == power)
        if len(rows):
            lines = _lines(digits[rows], power)
            lines[:, 0] = np.where(np.signbit(numbers[rows]), ord("-"), 0)
            text[rows, : lines.shape[1]] = lines
    if len(others):
        text[~ours, :places] = 0
        text[~ours, : others.shape[1]] = others
    whole = text.tobytes().translate(None, b"\0")
    return b"[" * len(inner) + whole[: len(whole) - 1 - len(inner)]


def _digits(numbers: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], Bytes, npt.NDArray[np.bool_]]:
    """Of each number: its power of ten, its digits by threes, without zeros at their end, and is it spelled here?"""
    with np.errstate(invalid="ignore"):
        exact = np.abs(numbers).astype(np.float64)
    zero = exact == 0
    with np.errstate(all="ignore"):
        power = np.floor(np.log10(np.where(zero, 1.0, exact)))
    ours = (power >= LEAST + 1) & (
        power < MOST
    )  # a step less on both sides, for the logarithm errs and rounding carries
    exact = np.where(ours & ~zero, exact, 1.0)
    exponent = np.where(ours, power, 0).astype(np.int64)
    nine = np.rint(exact * _POWERS[8 - exponent])
    low = nine < 1e8
    if low.any():
        exponent -= low
        nine = np.where(low, np.rint(exact * _POWERS[8 - exponent]), nine)
    scale = _POWERS[8 - exponent]
    tens = np.rint(exact * _POWERS[7 - exponent]) * 10
    # What a power of ten beyond 1e22 errs may not count.
    same = [(tens / scale * margin).astype(np.float32) == exact for margin in (1 - 1e-15, 1 + 1e-15)]
    mantissa = np.where(same[0] & same[1], tens, nine).astype(np.int64)
    ours &= (mantissa / scale).astype(np.float32) == exact
    carried = mantissa >= 10**9
    mantissa = np.where(carried, mantissa // 10, mantissa)
    exponent += carried
    mantissa[zero] = 0
    left, rest = np.divmod(mantissa, 1_000_000)
    middle, right = np.divmod(rest, 1000)
    ends = right == 0
    digits = np.empty((len(numbers), 3), np.uint32)
    digits[:, 0] = _GROUPS[left + 1000 * (ends & (middle == 0))]
    digits[:, 1] = _GROUPS[middle + 1000 * ends]
    digits[:, 2] = _GROUPS[right + 1000]
    return exponent, digits.view(np.uint8), ours


def _lines(digits: Bytes, power: int) -> Bytes:
    """The text of numbers of one power of ten, behind a place for the sign."""
    sign = np.zeros((len(digits), 1), np.uint8)

    def column(text: str) -> Bytes:
        return np.broadcast_to(np.frombuffer(text.encode(), np.uint8), (len(digits), len(text)))

    if power < -4:
        point = np.where(digits[:, 1:2], ord("."), 0).astype(np.uint8)
        return np.concatenate([sign, digits[:, :1], point, digits[:, 1:], column(f"e-{-power:02d}")], axis=1)
    if power < 0:
        return np.concatenate([sign, column("0." + "0" * (-power - 1)), digits], axis=1)
    behind = (power + 1) // 3 * 4 + (power + 1) % 3  # the place of the first digit behind the point
    front = digits[:, : behind + 1].copy()
    places = [place for place in range(behind + 1) if place % 4 < 3]
    front[:, places] = np.where(front[:, places], front[:, places], ord("0"))
    return np.concatenate([sign, front[:, :-1], column("."), front[:, -1:], digits[:, behind + 1 :]], axis=1)


def _by_json(numbers: npt.NDArray[np.float32]) -> Bytes:
    """The text of a few numbers, a row each."""
    if not len(numbers):
        return np.zeros((0, 0), np.uint8)
    texts = np.array([json.dumps(number).encode() for number in short(numbers).tolist()])
    return np.frombuffer(texts.tobytes(), np.uint8).reshape(len(texts), -1)


def _between(count: int, inner: tuple[int, ...]) -> Bytes:
    """What stands behind each number: the brackets that close there, a comma, and those that open."""
    marks = np.zeros((count, 2 * len(inner) + 1), np.uint8)
    marks[:, len(inner)] = ord(",")
    for depth in range(len(inner)):
        size = prod(inner[depth:])
        marks[size - 1 :: size, depth] = ord("]")
        marks[size - 1 :: size, 2 * len(inner) - depth] = ord("[")
    return marks


def short(numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Doubles of eight or nine digits that round to the same floats; the floats themselves where there are none.

    Readers go from text to double to float, and rounding twice may lead elsewhere than rounding once: the shortest text
    of a float need not come back as the same float (7.038531e-26 does not). So it is the double that is tried.

    >>> short(np.array([0.1, 1 / 3, 7.038531e-26], "float32")).tolist()
    [0.1, 0.33333334, 7.0385313e-26]
    """
    with np.errstate(invalid="ignore"):
        exact = numbers.astype(np.float64)
    found: npt.NDArray[Any] = exact.copy()
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log10(np.abs(exact)))
        for digits in (9, 8):
            shift = digits - 1 - exponent
            up, down = 10.0 ** np.maximum(shift, 0), 10.0 ** np.maximum(-shift, 0)
            rounded = np.rint(exact * up / down) / up * down
            np.copyto(found, rounded, where=rounded.astype(np.float32) == numbers)
    return found
