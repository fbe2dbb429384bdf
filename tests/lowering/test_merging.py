"""Merging layers, in all their broadcasting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelio.errors import ConversionError
from tests.lowering.harness import assert_same, frameworks, keras3
from tests.lowering.written import answer, graph_of, runs_on

ELEMENTWISE = ["Add", "Multiply", "Maximum", "Minimum", "Average"]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def told(data, shape):
    """A shape with some of its sizes unknown."""
    return tuple(data.draw(st.sampled_from([size, None])) for size in shape)


@frameworks()
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_elementwise(keras, data):
    """Two to four inputs, of any ranks, any of their sizes 1 or unknown."""
    full = data.draw(st.lists(st.integers(2, 4), min_size=1, max_size=4))
    shapes = []
    for _ in range(data.draw(st.integers(2, 4))):
        part = full[data.draw(st.integers(0, len(full) - 1)) :]
        shapes.append(tuple(data.draw(st.sampled_from([size, 1])) for size in part))
    layer = getattr(keras.layers, data.draw(st.sampled_from(ELEMENTWISE)))()
    arrays = [noise(2, *shape, seed=index) for index, shape in enumerate(shapes)]
    graph = assert_same(layer, *arrays, shapes=[told(data, shape) for shape in shapes])
    assert runs_on(graph) <= (1, 2, 1)


@frameworks()
def test_subtract(keras):
    assert_same(keras.layers.Subtract(), noise(2, 3), noise(2, 3, seed=1))
    assert_same(keras.layers.Subtract(), noise(2, 3), noise(2, 4, 3, seed=1))
    assert_same(keras.layers.Subtract(), noise(2, 4, 3), noise(2, 3, seed=1))


@frameworks()
@pytest.mark.parametrize("name", ["Add", "Multiply", "Maximum", "Average"])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float16"])
def test_other_dtypes(keras, name, dtype):
    rounding = 2e-3 if dtype == "float16" else 1e-5
    x = np.arange(6).reshape(2, 3).astype(dtype)
    assert_same(getattr(keras.layers, name)(dtype=dtype), x, x[::-1], x * 2, rtol=rounding)


def test_mixed_dtypes():
    """Keras 3 promotes."""
    keras = keras3()
    a, b = keras.Input((3,), dtype="int32"), keras.Input((3,))
    for layer in (keras.layers.Add(), keras.layers.Concatenate(), keras.layers.Maximum()):
        assert_same(keras.Model([a, b], layer([a, b])), np.arange(6, dtype=np.int32).reshape(2, 3), noise(2, 3))


@frameworks()
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_concatenate(keras, data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axis = data.draw(st.integers(-len(shape), len(shape)).filter(bool))
    arrays, shapes = [], []
    for index in range(data.draw(st.integers(2, 4))):
        own = list(shape)
        own[axis - 1 if axis > 0 else axis] = data.draw(st.integers(1, 3))
        arrays.append(noise(2, *own, seed=index))
        shapes.append(tuple(own) if hasattr(keras, "ops") else told(data, own))
    assert_same(keras.layers.Concatenate(axis=axis), *arrays, shapes=shapes)


@frameworks()
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_dot(keras, data):
    """One axis of each input is summed over; the others stay, the first input's before the second's."""
    shapes = [data.draw(st.lists(st.integers(2, 4), min_size=1, max_size=3)) for _ in range(2)]
    first, second = (data.draw(st.integers(1, len(shape))) for shape in shapes)
    shapes[1][second - 1] = shapes[0][first - 1]
    axes = data.draw(st.sampled_from([(first, second), (first - len(shapes[0]) - 1, second)]))
    if first == second:
        axes = data.draw(st.sampled_from([axes, first]))
    layer = keras.layers.Dot(axes=axes, normalize=data.draw(st.booleans()))
    free = [
        tuple(None if axis != own - 1 else size for axis, size in enumerate(shape))
        for shape, own in zip(shapes, (first, second), strict=True)
    ]
    arrays = [noise(2, *shape, seed=index) for index, shape in enumerate(shapes)]
    assert_same(layer, *arrays, shapes=data.draw(st.sampled_from([None, free])) if len(free[0]) < 3 else None)


@frameworks()
def test_cosine_of_nothing(keras):
    """A vector of zeros has no direction; each Keras has its own way around the division."""
    x = noise(3, 4)
    x[0] = 0
    x[1] *= 1e-8
    assert_same(keras.layers.Dot(axes=1, normalize=True), x, noise(3, 4, seed=1))


# -- a rank that is not known ------------------------------------------------------------------------------------------


def test_unknown_ranks():
    """What Keras does by transposing (base_merge.py, ``call``) is broadcasting behind the batch."""
    from modelio.graph.builder import Builder, Value
    from modelio.lowering.merging import _of_one_rank
    from modelio.model import GraphModel, Signature, TensorSpec
    from tests.lowering.harness import run

    g = Builder()
    feeds = [g.placeholder(name, "float32", None) for name in "ab"]
    low, high = _of_one_rank(g, feeds)
    total: Value = g.output("total", g.Add(low, high))
    ends = [TensorSpec(value.name, value.dtype, value.shape) for value in (*feeds, total)]
    model = GraphModel(
        g.graph, signatures={"serving_default": Signature(dict(zip("ab", ends[:2], strict=True)), {"total": ends[2]})}
    )
    for a, b in ((noise(2, 3), noise(2, 4, 3)), (noise(2, 2, 4, 3), noise(2, 3)), (noise(2, 3), noise(2, 3))):
        rank = max(a.ndim, b.ndim)
        wide = [x.reshape(2, *(1,) * (rank - x.ndim), *x.shape[1:]) for x in (a, b)]
        (got,) = run(model, [a, b])
        np.testing.assert_allclose(got, wide[0] + wide[1], atol=1e-6)


# -- older versions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.0.5", "2.2.4", "2.2.4-tf"])
def test_dot_of_rank_4_before_keras_2_2_5(version):
    """keras/backend/tensorflow_backend.py, ``batch_dot`` until 2.2.4: tf.matmul, a matrix transposed where its axis asks for it."""
    a, b = noise(2, 3, 4, 5), noise(2, 3, 5, 6, seed=1)
    got = answer(version, "Dot", {"axes": [3, 2], "normalize": False}, a, b)
    np.testing.assert_allclose(got, a @ b, atol=1e-5)
    got = answer(version, "Dot", {"axes": [2, 3], "normalize": False}, a, noise(2, 3, 6, 4, seed=1))
    np.testing.assert_allclose(got, a.swapaxes(2, 3) @ noise(2, 3, 6, 4, seed=1).swapaxes(2, 3), atol=1e-5)
    with pytest.raises(ConversionError, match="had another meaning"):
        answer(version, "Dot", {"axes": [3, 1], "normalize": False}, a, noise(2, 5))


@pytest.mark.parametrize("version", ["2.2.5", "2.3.0-tf"])
def test_dot_of_rank_4_since(version):
    a, b = noise(2, 3, 4, 5), noise(2, 3, 5, 6, seed=1)
    got = answer(version, "Dot", {"axes": [3, 2], "normalize": False}, a, b)
    np.testing.assert_allclose(got, np.einsum("nijk,nakb->nijab", a, b), atol=1e-5)


MERGE = {"sum": np.add, "mul": np.multiply, "max": np.maximum, "ave": lambda a, b: (a + b) / 2}


@pytest.mark.parametrize("mode", MERGE)
def test_merge_of_keras_1(mode):
    a, b = noise(2, 3), noise(2, 3, seed=1)
    config = {"mode": mode, "mode_type": "raw", "concat_axis": -1, "dot_axes": -1}
    np.testing.assert_allclose(answer("1.2.2", "Merge", config, a, b), MERGE[mode](a, b), atol=1e-6)


def test_concatenating_merge_of_keras_1():
    a, b = noise(2, 3, 4), noise(2, 5, 4, seed=1)
    config = {"mode": "concat", "mode_type": "raw", "concat_axis": 1, "dot_axes": -1}
    np.testing.assert_allclose(answer("1.2.2", "Merge", config, a, b), np.concatenate([a, b], 1))


def test_dot_merge_of_keras_1():
    a, b = noise(2, 3, 4), noise(2, 5, 4, seed=1)
    config = {"mode": "dot", "mode_type": "raw", "concat_axis": -1, "dot_axes": [2, 2]}
    np.testing.assert_allclose(answer("1.2.2", "Merge", config, a, b), np.einsum("nik,njk->nij", a, b), atol=1e-5)


def test_cosine_merge_of_keras_1():
    """Keras 1.2.2 engine/topology.py, Merge.call: the cosine has an axis more than one would think."""
    a, b = noise(4, 3), noise(4, 3, seed=1)
    a[0] = 0
    config = {"mode": "cos", "mode_type": "raw", "concat_axis": -1, "dot_axes": 1}
    got = answer("1.2.2", "Merge", config, a, b)
    lengths = np.sqrt((a * a).sum(1, keepdims=True) * (b * b).sum(1, keepdims=True))
    expected = (a * b).sum(1, keepdims=True) / np.maximum(lengths, 1e-7)
    np.testing.assert_allclose(got, expected[:, None], atol=1e-5)


# -- what means nothing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_name", "config", "shapes", "message"),
    [
        ("Add", {}, [(3,)], "not called on a list of tensors"),
        ("Concatenate", {"axis": 3}, [(3,), (3,)], "told the axis 3; its input has 2 dimensions"),
        ("Concatenate", {"axis": "last"}, [(3,), (3,)], "told the axis 'last'"),
        ("Dot", {"axes": [1]}, [(3,), (3,)], r"told the axis \[1\]"),
        ("Dot", {"axes": 0}, [(3,), (3,)], "axis 0"),
        ("Dot", {"axes": 1}, [(3,), (3,), (3,)], "called on 3 tensors; it wants 2"),
    ],
)
def test_arguments_that_mean_nothing(class_name, config, shapes, message):
    with pytest.raises(ConversionError, match=message):
        graph_of("2.15.0", class_name, config, shapes)
