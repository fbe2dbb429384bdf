"""Pooling answers as Keras does, whatever its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lowering.harness import frameworks, keras2, keras3
from tests.lowering.pictures import FIRST, RANKS, UNKNOWN, check, drawn, picture

KINDS = pytest.mark.parametrize("kind", ["Max", "Average"])

WINDOWS = {
    "plain": {},
    "same": {"pool_size": 3, "padding": "same"},
    "strides below the size": {"pool_size": 3, "strides": 1},
    "strides beyond the size": {"pool_size": 2, "strides": 3, "padding": "same", **UNKNOWN},
    "unknown": UNKNOWN,
    "channels first": {"pool_size": 3, "strides": 2, "padding": "same", **FIRST},
    "channels first, unknown size": {**FIRST, **UNKNOWN},
}


@frameworks()
@RANKS
@KINDS
@pytest.mark.parametrize("case", WINDOWS)
def test_pooling(keras: Any, rank: int, kind: str, case: str) -> None:
    arguments = {"pool_size": 2, **WINDOWS[case]}
    check(getattr(keras.layers, f"{kind}Pooling{rank}D"), picture(rank), **arguments)


@given(data=st.data())
@drawn
def test_any_pooling(data: st.DataObject) -> None:
    draw = data.draw
    rank = draw(st.sampled_from([1, 2, 3]), "rank")
    keras = draw(st.sampled_from([keras2, keras3]), "framework")()
    kind = draw(st.sampled_from(["Max", "Average"]), "kind")
    size = tuple(draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank), "pool_size"))
    check(
        getattr(keras.layers, f"{kind}Pooling{rank}D"),
        picture(rank, space=tuple(draw(st.integers(window, window + 6), "space") for window in size)),
        unknown=draw(st.booleans(), "unknown"),
        pool_size=size,
        strides=draw(st.none() | st.tuples(*[st.integers(1, 4)] * rank), "strides"),
        padding=draw(st.sampled_from(["valid", "same"]), "padding"),
    )


@frameworks()
@RANKS
@KINDS
@pytest.mark.parametrize(
    "arguments", [{}, {"keepdims": True, **UNKNOWN}, {"keepdims": True, **FIRST}, {**FIRST, **UNKNOWN}]
)
def test_global_pooling(keras: Any, rank: int, kind: str, arguments: dict[str, Any]) -> None:
    check(getattr(keras.layers, f"Global{kind}Pooling{rank}D"), picture(rank), compiled=False, **arguments)


def adaptive(kind: str, rank: int) -> Any:
    """The class; early versions of Keras 3 do not have it."""
    found = getattr(keras3().layers, f"Adaptive{kind}Pooling{rank}D", None)
    return found or pytest.skip("this Keras has no adaptive pooling")


@RANKS
@KINDS
@pytest.mark.parametrize("size", [1, 3, 5, 8, 11], ids="{} parts".format)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_adaptive_pooling(rank: int, kind: str, size: int, data_format: str) -> None:
    """Fewer parts than pixels, as many, more; even and uneven windows."""
    check(adaptive(kind, rank), picture(rank), compiled=False, output_size=size, data_format=data_format)


def test_adaptive_pooling_differs_along_axes() -> None:
    check(adaptive("Average", 3), picture(3), output_size=(2, 9, 5))


def test_infinities_and_nan_survive() -> None:
    x = picture(2)
    x[0, 0, 0, 0], x[0, 5, 5, 1], x[1, 3, 3, 2] = np.nan, np.inf, -np.inf
    check(keras3().layers.AveragePooling2D, x, pool_size=2)
