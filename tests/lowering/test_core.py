"""Dense and its relatives, wrappers, and layers that only act in training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelio.errors import ConversionError
from tests.lowering.harness import assert_same, frameworks, keras3
from tests.lowering.written import answer, graph_of, runs_on


def noise(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, shape).astype(dtype)


# -- Dense -------------------------------------------------------------------------------------------------------------


@frameworks()
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_dense(keras, data):
    """Any rank, any of the sizes unknown but the last."""
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    told = [data.draw(st.sampled_from([size, None])) for size in shape[:-1]] + shape[-1:]
    layer = keras.layers.Dense(
        data.draw(st.integers(1, 5)),
        use_bias=data.draw(st.booleans()),
        activation=data.draw(st.sampled_from([None, "relu", "tanh"])),
    )
    graph = assert_same(layer, noise(3, *shape), shapes=[tuple(told)])
    assert runs_on(graph) <= (1, 2, 1)


@frameworks()
@pytest.mark.parametrize("dtype", ["float16", "float64", "mixed_float16", "mixed_bfloat16"])
def test_dense_in_other_precision(keras, dtype):
    rtol = {"float64": 1e-5, "mixed_bfloat16": 2e-2}.get(dtype, 2e-3)
    assert_same(keras.layers.Dense(4, dtype=dtype), noise(3, 5), rtol=rtol)


@frameworks()
def test_dense_of_whole_numbers(keras):
    assert_same(keras.layers.Dense(4), np.arange(15, dtype=np.int32).reshape(3, 5))


def test_dense_shared_by_two_calls_has_one_kernel():
    keras = keras3()
    dense = keras.layers.Dense(4)
    a, b = keras.Input((4,)), keras.Input((4,))
    graph = assert_same(keras.Model([a, b], keras.layers.Add()([dense(dense(a)), dense(b)])), noise(2, 4), noise(2, 4))
    assert len(graph.variables) == 2


# -- layers that return their input ------------------------------------------------------------------------------------


@frameworks()
def test_layers_that_act_in_training_alone(keras):
    layers = keras.layers
    for layer in (
        layers.Dropout(0.5),
        layers.GaussianDropout(0.5),
        layers.GaussianNoise(1.0),
        layers.AlphaDropout(0.5),
        layers.ActivityRegularization(0.1),
        layers.Identity(),
    ):
        assert_same(layer, noise(3, 4))
    assert_same(layers.SpatialDropout1D(0.5), noise(2, 3, 4))
    assert_same(layers.SpatialDropout2D(0.5), noise(2, 3, 4, 2))
    assert_same(layers.SpatialDropout3D(0.5), noise(2, 3, 4, 2, 2))


def test_model_of_an_input_alone():
    keras = keras3()
    inputs = keras.Input((3,))
    assert_same(keras.Model(inputs, inputs), noise(2, 3))


# -- Keras 1 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_maxout_dense(bias):
    """Keras 1.2.2 layers/core.py, MaxoutDense.call: the largest of dot(x, W) + b along axis 1."""
    x, kernel, offset = noise(4, 3), noise(2, 3, 5), noise(2, 5)
    config = {"output_dim": 5, "nb_feature": 2, "bias": bias, "input_dim": 3}
    got = answer("1.2.2", "MaxoutDense", config, x, arrays=[kernel, offset] if bias else [kernel])
    np.testing.assert_allclose(got, (np.dot(x, kernel) + (offset if bias else 0)).max(1), atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_highway(bias):
    """Keras 1.2.2 layers/core.py, Highway.call."""
    x, kernel, carry = noise(4, 3), noise(3, 3), noise(3, 6)[:, 3:]
    b, c = (noise(3), noise(6)[3:]) if bias else (np.float32(0), np.float32(0))
    arrays = [kernel, carry, b, c] if bias else [kernel, carry]
    got = answer("1.2.2", "Highway", {"activation": "tanh", "bias": bias, "input_dim": 3}, x, arrays=arrays)
    gate = 1 / (1 + np.exp(-(x @ carry + c)))
    np.testing.assert_allclose(got, np.tanh(x @ kernel + b) * gate + (1 - gate) * x, atol=1e-5)


# -- what means nothing ------------------------------------------------------------------------------------------------


def test_dense_without_a_feature_axis():
    with pytest.raises(ConversionError, match="the input has 1 dimensions; Dense wants 2 or more"):
        graph_of("2.15.0", "Dense", {"units": 3, "use_bias": False}, [()], [noise(1, 3)])
