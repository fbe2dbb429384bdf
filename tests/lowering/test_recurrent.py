"""Recurrent layers, their cells, and Bidirectional."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelio.api import convert, read
from modelio.errors import ConversionError
from modelio.lowering import lower
from modelio.lowering.rules import rule
from modelio.model import LayerModel
from tests import clients
from tests.corpus import cases, golden
from tests.lowering.harness import answers, assert_same, fill, frameworks, keras2, keras3, model_of, run
from tests.lowering.written import answer, graph_of, runs_on


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype("float32")


LAYERS = ("SimpleRNN", "LSTM", "GRU")
X = noise(3, 5, 4)


def made(keras, name, units=3, **arguments):
    return getattr(keras.layers, name)(units, **arguments)


# -- SimpleRNN, LSTM, GRU ----------------------------------------------------------------------------------------------


@frameworks()
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"return_sequences": True, "go_backwards": True},
        {"return_sequences": True, "return_state": True},
        {"return_state": True, "go_backwards": True},
    ],
)
def test_layer(keras, name, unroll, arguments):
    graph = assert_same(made(keras, name, unroll=unroll, **arguments), X)
    assert runs_on(graph) <= (1, 2, 1)
    assert ("LoopCond" in {node.op for node in graph.graph.node}) != unroll


@frameworks()
@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_shapes(keras, data):
    """Any number of steps, samples, features and units; the first two unknown to the graph or not."""
    batch, steps, features = (data.draw(st.integers(1, 6)) for _ in range(3))
    told = (data.draw(st.sampled_from([steps, None])), features)
    name = data.draw(st.sampled_from(LAYERS))
    layer = made(keras, name, data.draw(st.integers(1, 5)), return_sequences=True, return_state=True)
    assert_same(layer, noise(batch, steps, features), shapes=[told])


@frameworks()
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SimpleRNN", {"activation": "relu"}),
        ("SimpleRNN", {"use_bias": False}),
        ("LSTM", {"activation": "relu", "recurrent_activation": "hard_sigmoid"}),
        ("LSTM", {"use_bias": False}),
        ("LSTM", {"dropout": 0.5, "recurrent_dropout": 0.5}),
        ("LSTM", {"recurrent_activation": "softmax"}),
        ("LSTM", {"activation": None}),
        ("GRU", {"reset_after": False}),
        ("GRU", {"reset_after": False, "use_bias": False}),
        ("GRU", {"reset_after": True, "use_bias": False}),
        ("GRU", {"activation": "sigmoid", "recurrent_activation": "tanh"}),
    ],
)
def test_arguments(keras, name, arguments):
    assert_same(made(keras, name, return_sequences=True, **arguments), X)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
@pytest.mark.parametrize("implementation", [1, 2])
def test_implementations_compute_the_same(name, implementation):
    assert_same(made(keras2(), name, implementation=implementation, recurrent_activation="hard_sigmoid"), X)


@pytest.mark.parametrize("name", LAYERS)
def test_time_first(name):
    """Keras 2 alone: (steps, samples, features)."""
    keras = keras2()
    layer = made(keras, name, time_major=True, return_sequences=True, return_state=True)
    inputs = keras.Input(batch_shape=(5, 3, 4))
    assert_same(keras.Model(inputs, layer(inputs)), X.transpose(1, 0, 2))


@frameworks()
@pytest.mark.parametrize("name", LAYERS)
def test_given_states(keras, name):
    inputs, count = keras.Input((None, 4)), 2 if name == "LSTM" else 1
    states = [keras.Input((3,)) for _ in range(count)]
    outputs = made(keras, name, return_sequences=True, return_state=True)(inputs, initial_state=states)
    arrays = [noise(3, 3, seed=seed) for seed in range(count)]
    assert_same(keras.Model([inputs, *states], outputs), X, *arrays)


@frameworks()
def test_states_from_one_layer_to_the_next(keras):
    """Sequence to sequence: the encoder's states are those that the decoder begins with."""
    source, target = keras.Input((None, 4)), keras.Input((None, 2))
    _, *states = keras.layers.LSTM(3, return_state=True)(source)
    decoded = keras.layers.LSTM(3, return_sequences=True)(target, initial_state=states)
    assert_same(keras.Model([source, target], keras.layers.Dense(2)(decoded)), X, noise(3, 6, 2))


@frameworks()
@pytest.mark.parametrize("dtype", ["float16", "float64", "mixed_float16", "mixed_bfloat16"])
def test_precision(keras, dtype):
    rtol = {"float64": 1e-5, "mixed_bfloat16": 3e-2}.get(dtype, 3e-3)
    for name in LAYERS:
        assert_same(made(keras, name, dtype=dtype, return_state=True), X, rtol=rtol)


@frameworks()
def test_stateful_begins_with_zeros(keras):
    """As Keras after ``reset_states()``; the account of the conversion says so."""
    inputs = keras.Input(batch_shape=(3, 5, 4))
    model = keras.Model(inputs, keras.layers.LSTM(3, stateful=True, name="memory")(inputs))
    fill(model)
    graph, changes = lower(LayerModel.from_json(model.to_json(), model.get_weights()))
    layer = model.get_layer("memory")
    (layer.reset_state if hasattr(layer, "reset_state") else layer.reset_states)()
    expected = answers(model, [X])
    for _ in range(2):
        np.testing.assert_allclose(run(graph, [X])[0], expected[0], atol=1e-5)
    assert changes == ["memory: stateful in Keras; in the graph every call begins with states of zero"]


def test_one_layer_called_twice_has_one_set_of_weights():
    keras = keras3()
    layer = keras.layers.GRU(3)
    a, b = keras.Input((5, 4)), keras.Input((2, 4))
    graph = assert_same(keras.Model([a, b], keras.layers.Add()([layer(a), layer(b)])), X, noise(3, 2, 4))
    assert len(graph.variables) == 3


# -- cells -------------------------------------------------------------------------------------------------------------


def cells(keras):
    layers = keras.layers
    yield [layers.SimpleRNNCell(3)]
    yield [layers.LSTMCell(3)]
    yield [layers.GRUCell(3)]
    yield [layers.GRUCell(3, reset_after=False)]
    yield [layers.LSTMCell(2), layers.GRUCell(5), layers.SimpleRNNCell(3)]
    yield [layers.SimpleRNNCell(2), layers.LSTMCell(3)]


@frameworks()
@pytest.mark.parametrize("unroll", [False, True])
def test_rnn_of_cells(keras, unroll):
    for backwards, own in itertools.product([False, True], cells(keras)):
        one = own[0] if len(own) == 1 else keras.layers.StackedRNNCells(own)
        layer = keras.layers.RNN(one, return_sequences=True, return_state=True, go_backwards=backwards, unroll=unroll)
        inputs = keras.Input((5, 4))
        assert_same(keras.Model(inputs, _flat(layer(inputs))), X)
    assert_same(keras.layers.RNN(keras.layers.StackedRNNCells([keras.layers.LSTMCell(2), keras.layers.GRUCell(3)])), X)


def _flat(outputs):
    return [leaf for item in outputs for leaf in (_flat(item) if isinstance(item, (list, tuple)) else [item])]


def test_states_of_stacked_cells_are_given():
    keras = keras2()
    layer = keras.layers.RNN(keras.layers.StackedRNNCells([keras.layers.LSTMCell(2), keras.layers.GRUCell(3)]))
    inputs, states = keras.Input((5, 4)), [keras.Input((2,)), keras.Input((2,)), keras.Input((3,))]
    outputs = layer(inputs, initial_state=[[states[0], states[1]], states[2]])
    arrays = [noise(3, 2), noise(3, 2, seed=1), noise(3, 3, seed=2)]
    assert_same(keras.Model([inputs, *states], outputs), X, *arrays)


def test_cell_by_itself():
    keras = keras3()
    x, h, c = keras.Input((4,)), keras.Input((3,)), keras.Input((3,))
    output, (new_h, new_c) = keras.layers.LSTMCell(3)(x, [h, c])
    assert_same(keras.Model([x, h, c], [output, new_h, new_c]), noise(2, 4), noise(2, 3), noise(2, 3, seed=1))


def test_cell_of_ones_own():
    """A rule for a cell is asked for one step, inside of the loop."""

    @rule("Leaky")
    def leaky(g, layer, x, states):
        h = g.Add(g.Mul(states[0], 0.5), x)
        return g.Mul(h, 2.0), h

    cell = {"class_name": "Leaky", "config": {"name": "leaky", "units": 4}}
    got = answer("2.3.1", "RNN", {"cell": cell, "return_sequences": True}, X)
    expected, state = [], 0
    for step in X.transpose(1, 0, 2):
        state = state * 0.5 + step
        expected.append(2 * state)
    np.testing.assert_allclose(got, np.stack(expected, 1), atol=1e-5)


def test_constants_of_a_cell():
    """In Keras 2 they stand behind the sequence and the states (``num_constants``)."""

    @rule("Shifted")
    def shifted(g, layer, x, states, constants):
        h = g.Add(g.Add(states[0], x), constants[0])
        return h, h

    cell = {"class_name": "Shifted", "config": {"name": "shifted", "state_size": 4}}
    shift = noise(3, 4, seed=1)
    config = {"cell": cell, "num_constants": 1}
    (got,) = run(graph_of("2.3.1", "RNN", config, [(5, 4), (4,)]), [X, shift])
    np.testing.assert_allclose(got, X.sum(1) + 5 * shift, atol=1e-5)


def test_activation_that_is_a_layer():
    """In the loop too; its weights, where it has some, are read in front of it."""
    keras = keras3()
    assert_same(keras.layers.SimpleRNN(3, activation=keras.layers.LeakyReLU(0.2), return_sequences=True), X)


# -- convolutional -----------------------------------------------------------------------------------------------------


@frameworks()
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"return_sequences": True},
        {"return_state": True, "padding": "same"},
        {"strides": 2, "go_backwards": True, "return_sequences": True},
        {"dilation_rate": 2, "use_bias": False},
    ],
)
def test_convolutional(keras, rank, arguments):
    layer = getattr(keras.layers, f"ConvLSTM{rank}D")(2, 3 if rank < 3 else 2, **arguments)
    assert_same(layer, noise(2, 3, *(6, 5, 4)[:rank], 2))


@frameworks()
@pytest.mark.parametrize("rank", [1, 2])
def test_convolutional_with_channels_first(keras, rank):
    layer = getattr(keras.layers, f"ConvLSTM{rank}D")
    arguments = {"data_format": "channels_first", "return_state": True, "padding": "same"}
    x = noise(2, 3, *(6, 5)[:rank], 2)
    space = range(2, 2 + rank)
    last = model_of(layer(2, 3, padding="same", return_state=True), [x])
    fill(last)
    turned = np.ascontiguousarray(x.transpose(0, 1, rank + 2, *space))
    first = model_of(layer(2, 3, **arguments), [turned])
    fill(first)
    graph, _ = lower(LayerModel.from_json(first.to_json(), first.get_weights()))
    # No CPU of TensorFlow's computes these, so Keras answers with the channels last.
    for ours, theirs in zip(run(graph, [turned]), answers(last, [x]), strict=True):
        np.testing.assert_allclose(ours, theirs.transpose(0, rank + 1, *range(1, rank + 1)), atol=1e-5)


# -- what older versions wrote -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases(model="rnn", file=("model.h5", "golden.npz")))
def test_corpus(case):
    """Embedding, LSTM, Bidirectional GRU, TimeDistributed and SimpleRNN of each version."""
    graph, _ = lower(read(case / "model.h5"))
    inputs, outputs = golden(case)
    for ours, theirs in zip(run(graph, inputs), outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


@pytest.mark.parametrize("way", ["cpu", "mem", "gpu"])
def test_lstm_of_keras_1(way):
    """Keras 1.2.2 layers/recurrent.py: gates i, c, f, o in the file, one matrix each, unless ``consume_less="gpu"``."""
    kernels, recurrents, biases = noise(4, 4, 3), noise(4, 3, 3, seed=1), noise(4, 3, seed=2)  # i f c o
    h = c = np.zeros((3, 3), "float32")
    for x in X.transpose(1, 0, 2):
        z = [x @ kernels[gate] + biases[gate] + h @ recurrents[gate] for gate in range(4)]
        c = hard_sigmoid(z[1]) * c + hard_sigmoid(z[0]) * np.tanh(z[2])
        h = hard_sigmoid(z[3]) * np.tanh(c)
    if way == "gpu":
        arrays = [np.concatenate(list(part), -1) for part in (kernels, recurrents, biases)]
    else:
        arrays = [part[gate] for gate in (0, 2, 1, 3) for part in (kernels, recurrents, biases)]
    config = {"output_dim": 3, "activation": "tanh", "inner_activation": "hard_sigmoid", "consume_less": way}
    got = answer("1.2.2", "LSTM", {**config, "input_dim": 4, "return_sequences": False}, X, arrays=arrays)
    np.testing.assert_allclose(got, h, atol=1e-5)


def test_gru_of_keras_1():
    """Keras 1.2.2 layers/recurrent.py: the reset gate acts before the multiplication."""
    kernels, recurrents, biases = noise(3, 4, 3), noise(3, 3, 3, seed=1), noise(3, 3, seed=2)
    h = np.zeros((3, 3), "float32")
    for x in X.transpose(1, 0, 2):
        z, r = (hard_sigmoid(x @ kernels[g] + biases[g] + h @ recurrents[g]) for g in (0, 1))
        h = z * h + (1 - z) * np.tanh(x @ kernels[2] + biases[2] + (r * h) @ recurrents[2])
    arrays = [part[gate] for gate in range(3) for part in (kernels, recurrents, biases)]
    config = {"output_dim": 3, "activation": "tanh", "inner_activation": "hard_sigmoid", "consume_less": "cpu"}
    got = answer("1.2.2", "GRU", {**config, "input_dim": 4}, X, arrays=arrays)
    np.testing.assert_allclose(got, h, atol=1e-5)


def test_convolutional_of_keras_1():
    """Keras 1.2.2 layers/convolutional_recurrent.py: a kernel for each gate, i, c, f, o; hard_sigmoid."""
    keras = keras2()
    layer = keras.layers.ConvLSTM2D(2, 3, recurrent_activation="hard_sigmoid", padding="same")
    x = noise(2, 3, 5, 4, 2)
    model = model_of(layer, [x])
    fill(model)
    gates = [np.split(array, 4, -1) for array in model.get_weights()]
    arrays = [part[gate] for gate in (0, 2, 1, 3) for part in gates]
    config = {
        "nb_filter": 2,
        "nb_row": 3,
        "nb_col": 3,
        "border_mode": "same",
        "subsample": [1, 1],
        "dim_ordering": "tf",
    }
    config |= {"activation": "tanh", "inner_activation": "hard_sigmoid", "return_sequences": False}
    got = answer("1.2.2", "ConvLSTM2D", config, x, arrays=arrays)
    np.testing.assert_allclose(got, answers(model, [x])[0], atol=1e-5)


def test_states_of_stacked_cells_before_keras_2_2_3():
    """They were returned from the last cell's to the first's (Keras 2.2.2 layers/recurrent.py, ``StackedRNNCells``)."""

    def last_states(version):
        cells = [
            {"class_name": "SimpleRNNCell", "config": {"name": f"c{units}", "units": units, "use_bias": False}}
            for units in (2, 3)
        ]
        cell = {"class_name": "StackedRNNCells", "config": {"name": "s", "cells": cells}}
        arrays = [noise(4, 2), noise(2, 2), noise(2, 3), noise(3, 3)]
        graph = graph_of(version, "RNN", {"cell": cell, "return_state": True}, [(5, 4)], arrays, outputs=3)
        return run(graph, [X])

    before, since = last_states("2.2.2"), last_states("2.2.3")
    for index, other in enumerate((0, 2, 1)):
        np.testing.assert_array_equal(before[index], since[other])
    np.testing.assert_array_equal(since[0], since[2])


def test_cudnn_layers():
    """tf_keras' CuDNNLSTM runs on a GPU alone; a plain one with the same weights, turned by tf_keras, says what it is."""
    keras = keras2()
    for name in ("LSTM", "GRU"):
        plain = keras.Sequential([keras.layers.Input((5, 4)), made(keras, name, recurrent_activation="sigmoid")])
        fill(plain)
        kernel, recurrent, bias = plain.get_weights()
        gates = 4 if name == "LSTM" else 3

        def turned(matrix, gates=gates):
            return np.concatenate([gate.T.reshape(gate.shape) for gate in np.split(matrix, gates, 1)], 1)

        state = np.concatenate([gate.T for gate in np.split(recurrent, gates, 1)], 1)
        both = np.concatenate([bias, np.zeros_like(bias)]) if name == "LSTM" else bias.reshape(-1)
        got = answer("2.3.1", f"CuDNN{name}", {"units": 3}, X, arrays=[turned(kernel), state, both])
        np.testing.assert_allclose(got, answers(plain, [X])[0], atol=1e-5)


# -- other runtimes ----------------------------------------------------------------------------------------------------


def test_loops_run_in_openvino(tmp_path):
    """With masks, backwards, stacked, and of pictures."""
    pytest.importorskip("openvino")
    layers = keras3().layers
    cells = [layers.LSTMCell(2), layers.GRUCell(3)]
    marked = X * np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 0, 1, 1, 1]], "float32")[..., None]
    masking = layers.Masking()
    for x, *chain in [
        (X, layers.LSTM(3, return_sequences=True)),
        (marked, masking, layers.Bidirectional(layers.GRU(3, return_sequences=True))),
        (marked, masking, layers.RNN(cells, go_backwards=True)),
        (noise(2, 3, 6, 5, 2), layers.ConvLSTM2D(2, 3, return_sequences=True)),
    ]:
        model = keras3().Sequential([keras3().Input(x.shape[1:]), *chain])
        fill(model)
        graph, _ = lower(LayerModel.from_json(model.to_json(), model.get_weights()))
        convert(graph, str(tmp_path / "graph.pb"), to="frozen-graph", overwrite=True)
        (spec,) = graph.signatures["serving_default"].inputs.values()
        got, *_ = clients.openvino(str(tmp_path / "graph.pb"), {spec.tensor: x}).values()
        np.testing.assert_allclose(got, answers(model, [x])[0], atol=1e-5)


# -- what means nothing ------------------------------------------------------------------------------------------------


def test_rnn_without_steps():
    with pytest.raises(ConversionError, match="the input has 2 dimensions; LSTM wants 3 or more"):
        graph_of("2.15.0", "LSTM", {"units": 3, "use_bias": False}, [(4,)], [noise(4, 12), noise(3, 12)])


def test_unrolling_is_for_few_steps():
    """A file may ask for any number of nodes."""
    config = {"units": 3, "use_bias": False, "unroll": True}
    graph = graph_of("2.15.0", "SimpleRNN", config, [(1 << 30, 4)], [noise(4, 3), noise(3, 3)])
    assert len(graph.graph.node) < 100
