"""What the tests of convolution and pooling share: pictures, and the question asked of a layer over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from modelio.model import GraphModel
from tests.lowering.harness import assert_same

__all__ = ["FIRST", "RANKS", "UNKNOWN", "check", "drawn", "picture"]

RANKS = pytest.mark.parametrize("rank", [1, 2, 3])
UNKNOWN = {"unknown": True}
FIRST = {"data_format": "channels_first"}
# No size is a number of filters: Keras 3 on TensorFlow takes the bias of pictures with channels first for one along their
# last axis where that is as long (keras/src/backend/tensorflow/numpy.py, add); other backends do not.
SPACE = {1: (13,), 2: (11, 9), 3: (6, 9, 7)}

# no fixture is involved, and what one example costs is up to the compiler
drawn = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow], max_examples=25
)


def picture(rank: int, channels: int = 4, space: tuple[int, ...] | None = None, batch: tuple[int, ...] = (2,)) -> Any:
    shape = (*batch, *(space or SPACE[rank]), channels)
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def check(
    kind: Any,
    x: np.ndarray,
    unknown: bool = False,
    compiled: bool | None = None,
    rtol: float = 1e-5,
    **arguments: Any,
) -> GraphModel:
    """A layer of this class with these arguments answers as Keras does, and its graph knows the shape of its answer.

    ``unknown``: the model is not told how large its pictures are.
    """
    first = arguments.get("data_format") == "channels_first"
    if first:
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    shape: list[int | None] = list(x.shape[1:])
    channel = 0 if first else len(shape) - 1
    if unknown:
        shape = [size if axis == channel else None for axis, size in enumerate(shape)]
    compiled = first if compiled is None else compiled
    graph = assert_same(kind(**arguments), x, shapes=[tuple(shape)], rtol=rtol, compiled=compiled)
    (answer,) = graph.signatures["serving_default"].outputs.values()
    assert answer.shape is not None
    known = answer.shape[1:]
    assert None not in ([known[channel]] if unknown and len(known) == len(shape) else known)
    return graph
