"""Floats in decimal: the same bits come back by way of a double, in the digits that Python would take."""

from __future__ import annotations

import json

import numpy as np
import pytest

from modelio.wire.decimals import short, spelled

RANDOM = np.random.default_rng(0)

with np.errstate(over="ignore"):
    SETS = {
        "weights": (RANDOM.normal(size=5000) * 0.05).astype(np.float32),
        "every bit pattern": RANDOM.integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32),
        "every magnitude": np.exp(RANDOM.uniform(-100, 90, 20000)).astype(np.float32),
        "whole": RANDOM.integers(-(10**6), 10**6, 5000).astype(np.float32),
        "three digits": np.round(RANDOM.normal(size=5000), 3).astype(np.float32),
        "zeros": np.array([0.0, -0.0] * 50, np.float32),
        "powers of two": np.array([2.0**power for power in range(-149, 128)], np.float32),
    }
    POWERS = np.array([10.0**power for power in range(-45, 39)], np.float32)
    SETS["around powers of ten"] = np.concatenate(
        [POWERS, np.nextafter(POWERS, np.float32(0)), np.nextafter(POWERS, np.float32(np.inf))]
    )
    SETS["no numbers"] = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)


@pytest.mark.parametrize("name", SETS)
def test_the_same_bits_come_back(name: str) -> None:
    numbers = SETS[name]
    text = spelled(numbers, ())
    with np.errstate(over="ignore"):
        back = np.array(json.loads(b"[%b]" % text), np.float64).astype(np.float32)
    same = (back.view(np.uint32) == numbers.view(np.uint32)) | (np.isnan(back) & np.isnan(numbers))
    assert same.all(), [(text.split(b",")[place], numbers[place]) for place in np.flatnonzero(~same)[:5]]


@pytest.mark.parametrize("name", ["weights", "whole", "three digits", "zeros", "no numbers"])
def test_the_text_is_that_of_python(name: str) -> None:
    assert json.loads(f"[{spelled(SETS[name], ()).decode()}]".replace("NaN", "0")) == json.loads(
        json.dumps(short(SETS[name]).tolist()).replace("NaN", "0")
    )
    assert spelled(SETS[name], ()).decode() == json.dumps(short(SETS[name]).tolist(), separators=(",", ":"))[1:-1]


def test_no_text_is_longer_than_that_of_python() -> None:
    for numbers in SETS.values():
        for ours, theirs in zip(spelled(numbers, ()).split(b","), short(numbers).tolist(), strict=True):
            assert len(ours) <= len(json.dumps(theirs)), (ours, theirs)


@pytest.mark.parametrize("inner", [(3,), (2, 4), (1,), (2, 3, 4), (5, 1, 1)])
def test_lists(inner: tuple[int, ...]) -> None:
    numbers = SETS["weights"][:720]
    wanted = json.dumps(short(numbers).reshape(-1, *inner).tolist(), separators=(",", ":"))[1:-1]
    assert spelled(numbers, inner).decode() == wanted
