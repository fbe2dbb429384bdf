"""Layers that apply another layer: TimeDistributed and Bidirectional."""

from __future__ import annotations

import numpy as np
import pytest

from modelio.errors import ConversionError
from tests.lowering.harness import assert_same, frameworks, keras2
from tests.lowering.written import answer, graph_of, runs_on


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype("float32")


X = noise(3, 5, 4)


def flat(outputs):
    """All outputs, in order, however they are nested."""
    return [leaf for item in outputs for leaf in (flat(item) if isinstance(item, (list, tuple)) else [item])]


# -- TimeDistributed ---------------------------------------------------------------------------------------------------


def wrapped(keras):
    """A layer to wrap, and the shape of one step."""
    inputs = keras.Input((4, 3))
    branches = [keras.layers.Dense(2)(inputs), keras.layers.Flatten()(inputs)]
    yield keras.layers.Dense(5, activation="relu"), (4,)
    yield keras.layers.Dense(5), (2, 4)
    yield keras.layers.Conv2D(2, 3, padding="same"), (4, 5, 3)
    yield keras.layers.Flatten(), (2, 3)
    yield keras.layers.BatchNormalization(), (3,)
    yield keras.layers.Dropout(0.5), (3,)
    yield keras.layers.Reshape((3, 2)), (6,)
    yield keras.layers.GlobalAveragePooling1D(), (4, 3)
    yield keras.layers.TimeDistributed(keras.layers.Dense(2)), (3, 4)
    yield keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3), keras.layers.Softmax()]), (4,)
    yield keras.Model(inputs, keras.layers.Dense(3)(branches[1])), (4, 3)


@frameworks()
@pytest.mark.parametrize("steps", [3, None])
def test_time_distributed(keras, steps):
    for inner, shape in wrapped(keras):
        if hasattr(keras, "ops") and steps is None and isinstance(inner, keras.layers.TimeDistributed):
            continue  # Keras 3 cannot map over steps inside of such a map
        graph = assert_same(keras.layers.TimeDistributed(inner), noise(2, 3, *shape), shapes=[(steps, *shape)])
        assert runs_on(graph) <= (1, 2, 1)


def test_time_distributed_with_several_inputs():
    """Keras 2 takes them; Keras 3 does not."""
    keras = keras2()
    a, b = keras.Input((4,)), keras.Input((2, 2))
    flat = keras.layers.Flatten()(b)
    inner = keras.Model([a, b], keras.layers.Add()([keras.layers.Dense(4)(a), flat]))
    x, y = keras.Input((5, 4)), keras.Input((5, 2, 2))
    model = keras.Model([x, y], keras.layers.TimeDistributed(inner)([x, y]))
    assert_same(model, noise(2, 5, 4), noise(2, 5, 2, 2))


def test_time_distributed_with_a_fixed_batch():
    """Keras 2 then runs a loop over the steps of a layer that is not its own; the numbers are the same."""
    keras = keras2()
    inner = keras.Sequential([keras.layers.Dense(3)])
    inputs = keras.Input(batch_shape=(2, 5, 4))
    assert_same(keras.Model(inputs, keras.layers.TimeDistributed(inner)(inputs)), noise(2, 5, 4))


@frameworks()
def test_time_distributed_over_sequences(keras):
    """A loop for each step of an outer sequence, all at once."""
    assert_same(keras.layers.TimeDistributed(keras.layers.SimpleRNN(3)), noise(2, 3, 5, 4))


def test_time_distributed_of_keras_1():
    x, kernel, bias = noise(2, 3, 4), noise(4, 5), noise(5)
    config = {
        "layer": {"class_name": "Dense", "config": {"name": "d", "output_dim": 5, "activation": "linear", "bias": True}}
    }
    got = answer("1.2.2", "TimeDistributed", config, x, arrays=[kernel, bias])
    np.testing.assert_allclose(got, x @ kernel + bias, atol=1e-5)


# -- both directions ---------------------------------------------------------------------------------------------------


@frameworks()
@pytest.mark.parametrize("mode", ["sum", "mul", "ave", "concat", None])
@pytest.mark.parametrize("outputs", [{}, {"return_sequences": True}, {"return_sequences": True, "return_state": True}])
def test_bidirectional(keras, mode, outputs):
    inputs = keras.Input((None, 4))
    layer = keras.layers.Bidirectional(keras.layers.LSTM(3, **outputs), merge_mode=mode)
    made = layer(inputs)
    assert_same(keras.Model(inputs, flat([made])), X)


@frameworks()
def test_bidirectional_of_two_layers(keras):
    layers = keras.layers
    layer = layers.Bidirectional(
        layers.LSTM(3, return_sequences=True), backward_layer=layers.GRU(2, return_sequences=True, go_backwards=True)
    )
    assert_same(layer, X)


@frameworks()
def test_bidirectional_with_given_states(keras):
    inputs, states = keras.Input((None, 4)), [keras.Input((3,)) for _ in range(4)]
    layer = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True))
    arrays = [noise(3, 3, seed=seed) for seed in range(4)]
    assert_same(keras.Model([inputs, *states], layer(inputs, initial_state=states)), X, *arrays)


@frameworks()
def test_bidirectional_of_a_cell(keras):
    assert_same(keras.layers.Bidirectional(keras.layers.RNN(keras.layers.GRUCell(3), return_sequences=True)), X)


@frameworks()
def test_bidirectional_of_pictures(keras):
    assert_same(keras.layers.Bidirectional(keras.layers.ConvLSTM2D(2, 3, return_sequences=True)), noise(2, 3, 5, 5, 2))


@pytest.mark.parametrize("mode", ["concat", None])
def test_bidirectional_with_time_first(mode):
    """Keras 2 alone."""
    keras = keras2()
    inner = keras.layers.SimpleRNN(3, time_major=True, return_sequences=True)
    inputs = keras.Input(batch_shape=(5, 3, 4))
    outputs = keras.layers.Bidirectional(inner, merge_mode=mode)(inputs)
    assert_same(keras.Model(inputs, flat([outputs])), X.transpose(1, 0, 2))


# -- what means nothing ------------------------------------------------------------------------------------------------


def test_time_distributed_without_steps():
    config = {"layer": {"class_name": "Dropout", "config": {"name": "d", "rate": 0.5}}}
    with pytest.raises(ConversionError, match="the input has 1 dimensions; TimeDistributed wants 2 or more"):
        graph_of("2.15.0", "TimeDistributed", config, [()])


def test_bidirectional_with_an_unknown_merge_mode():
    inner = {"class_name": "SimpleRNN", "config": {"name": "s", "units": 3, "use_bias": False}}
    arrays = [noise(4, 3), noise(3, 3)] * 2
    with pytest.raises(ConversionError, match="merge_mode is 'max'"):
        graph_of("2.15.0", "Bidirectional", {"layer": inner, "merge_mode": "max"}, [(5, 4)], arrays)
