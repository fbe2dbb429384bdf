"""Activations, by name and as layers, against Keras 3 and tf_keras, and against the formulas of older versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelio.errors import ConversionError
from tests.lowering.harness import assert_same, frameworks, keras3
from tests.lowering.written import answer, graph_of, runs_on

LINE = np.concatenate([np.linspace(-9, 9, 181), [-1.0, -0.5, 0.0, 0.5, 1.0]]).astype(np.float32)
"""From one saturated end to the other, the corners of every piecewise function among them."""

BOTH = [
    *("elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "log_softmax", "mish", "relu", "relu6"),
    *("selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "swish", "tanh"),
]
ONLY_KERAS_3 = [
    *("celu", "glu", "hard_shrink", "hard_silu", "hard_swish", "hard_tanh", "log_sigmoid", "soft_shrink"),
    *("sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "tanh_shrink"),
]


@frameworks()
@pytest.mark.parametrize("name", BOTH)
def test_function(keras, name):
    graph = assert_same(keras.layers.Activation(name), LINE.reshape(3, -1))
    assert runs_on(graph) <= (1, 2, 1)


@pytest.mark.parametrize("name", ONLY_KERAS_3)
def test_function_of_keras_3(name):
    graph = assert_same(keras3().layers.Activation(name), LINE[:-2].reshape(4, -1)[:, :-2])
    assert runs_on(graph) <= (1, 2, 1)


def test_every_name_is_tested():
    about = {"get", "serialize", "deserialize", "threshold"}  # the last cannot stand alone, it needs arguments
    every = {name for name, value in vars(keras3().activations).items() if callable(value)} - about
    assert every <= {*BOTH, *ONLY_KERAS_3}


@frameworks()
@pytest.mark.parametrize("name", ["relu", "hard_sigmoid", "softmax", "gelu", "elu"])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_dtype(keras, name, dtype):
    x = LINE.reshape(3, -1).astype(dtype)
    assert_same(keras.layers.Activation(name, dtype=dtype), x, rtol=2e-3 if dtype == "float16" else 1e-5)


@frameworks()
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 1, 2, 3, 4)])
def test_softmax_of_any_rank(keras, name, shape):
    x = np.random.default_rng(1).normal(0, 3, (2, *shape)).astype(np.float32)
    assert_same(keras.layers.Activation(name), x)
    assert_same(keras.layers.Activation(name), x, shapes=[(*(None,) * (len(shape) - 1), shape[-1])])


def test_attributes_that_are_younger_than_their_op():
    """TopKV2 got ``index_type`` with TensorFlow 2.11: where it has its default, it is not written."""
    graph = assert_same(keras3().layers.Activation("sparsemax"), LINE[:20].reshape(4, 5))
    (node,) = [node for node in graph.graph.node if node.op == "TopKV2"]
    assert set(node.attr) == {"T"}


def test_sparsemax_and_glu_of_higher_rank():
    x = np.random.default_rng(1).normal(0, 1, (2, 3, 4, 6)).astype(np.float32)
    for name in ("sparsemax", "glu"):
        assert_same(keras3().layers.Activation(name), x)


def layers(keras):
    if hasattr(keras, "ops"):  # Keras 3
        yield from (keras.layers.LeakyReLU(negative_slope=slope) for slope in (0.0, 0.1, 1.0, 1.7))
    else:
        yield from (keras.layers.LeakyReLU(alpha=slope) for slope in (0.0, 0.1, 1.0, 1.7, -0.4))
        yield from (keras.layers.ThresholdedReLU(theta=theta) for theta in (0.0, 0.7))
    yield from (keras.layers.ELU(alpha=alpha) for alpha in (1.0, 0.3, 0.0, -0.5))
    for most in (None, 6.0, 1.5):
        for slope in (0.0, 0.25):
            for threshold in (0.0, 0.8):
                yield keras.layers.ReLU(max_value=most, negative_slope=slope, threshold=threshold)
    yield from (keras.layers.PReLU(shared_axes=axes) for axes in (None, [1], [1, 2]))
    yield from (keras.layers.Softmax(axis=axis) for axis in (-1, 1, 2, -2, [1], [1, 2], (-1, 1)))


@frameworks()
def test_layers(keras):
    x = np.random.default_rng(0).normal(0, 2, (2, 3, 4, 5)).astype(np.float32)
    for layer in layers(keras):
        graph = assert_same(layer, x)
        assert runs_on(graph) <= (1, 2, 1), layer.get_config()


@frameworks()
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_relu_with_any_arguments(keras, data):
    size = st.floats(0, 4, width=32)
    layer = keras.layers.ReLU(
        max_value=data.draw(st.none() | size), negative_slope=data.draw(size), threshold=data.draw(size)
    )
    assert_same(layer, LINE.reshape(3, -1))


@frameworks()
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_softmax_along_any_axis(keras, data):
    shape = data.draw(st.lists(st.integers(2, 4), min_size=1, max_size=4))  # Keras 3 warns of one class alone
    axis = data.draw(st.integers(-len(shape), len(shape)).filter(bool))
    x = np.random.default_rng(2).normal(0, 3, (2, *shape)).astype(np.float32)
    assert_same(keras.layers.Softmax(axis=axis), x)


# -- in another layer --------------------------------------------------------------------------------------------------


@frameworks()
def test_layer_as_an_activation(keras):
    """A layer may be given for a function; it brings its own arguments, and may bring weights."""
    x = np.random.default_rng(0).normal(0, 2, (3, 4)).astype(np.float32)
    for activation in (keras.layers.LeakyReLU(0.1), keras.layers.ReLU(max_value=0.5), keras.layers.PReLU()):
        inputs = keras.Input((4,))
        assert_same(keras.Model(inputs, keras.layers.Dense(5, activation=activation)(inputs)), x)


def test_function_object():
    """Keras 3 writes a function that is no string as ``{"class_name": "function", ...}``."""
    keras = keras3()
    assert_same(keras.layers.Dense(3, activation=keras.activations.hard_sigmoid), LINE[:20].reshape(5, 4))
    assert_same(keras.layers.Dense(3, activation=keras.ops.silu), LINE[:20].reshape(5, 4))


# -- older versions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2.2", "2.0.5", "2.2.4-tf", "2.15.0"])
def test_hard_sigmoid_before_keras_3(version):
    """keras/backend/tensorflow_backend.py, ``hard_sigmoid``: 0.2 x + 0.5, between 0 and 1."""
    x = LINE.reshape(3, -1)
    expected = np.clip(0.2 * x + 0.5, 0, 1)
    np.testing.assert_allclose(answer(version, "Activation", {"activation": "hard_sigmoid"}, x), expected, atol=1e-6)


def test_softmax_of_keras_1():
    """keras/activations.py, ``softmax``: exp(x - max) over its sum, along the last axis."""
    x = np.random.default_rng(0).normal(0, 3, (2, 3, 4)).astype(np.float32)
    powers = np.exp(x - x.max(-1, keepdims=True))
    expected = powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(answer("1.2.2", "Activation", {"activation": "softmax"}, x), expected, atol=1e-6)


def test_layers_of_keras_1():
    """Keras 1.2.2 layers/advanced_activations.py, line by line."""
    random = np.random.default_rng(0)
    x = random.normal(0, 2, (4, 3, 5)).astype(np.float32)
    a, b, c, d = random.normal(0, 1, (4, 3, 5)).astype(np.float32)

    got = answer("1.2.2", "PReLU", {"shared_axes": [None]}, x, arrays=[a])
    np.testing.assert_allclose(got, np.maximum(x, 0) + a * (x - np.abs(x)) * 0.5, atol=1e-5)

    got = answer("1.2.2", "ParametricSoftplus", {"alpha_init": 0.2, "shared_axes": [None]}, x, arrays=[a, b])
    np.testing.assert_allclose(got, np.log1p(np.exp(b * x)) * a, atol=1e-5)

    def relu(x, alpha=0.0, most=np.inf):
        return np.minimum(np.maximum(x, 0), most) - alpha * np.maximum(-x, 0)

    got = answer("1.2.2", "SReLU", {"shared_axes": [None]}, x, arrays=[a, b, c, d])
    right = a + np.abs(c)  # t_left, a_left, t_right, a_right
    np.testing.assert_allclose(got, a + relu(x - a, b, right - a) + relu(x - right) * d, atol=1e-5)


# -- what has no rule --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("2.3.1", "my_own"),
        ("2.3.1", "gelu"),  # since TensorFlow 2.4; before, everybody had their own
        ("2.15.0", "sparsemax"),  # of TensorFlow Addons, which Keras 3's does not agree with
        ("1.2.2", "hard_tanh"),
        ("2.15.0", {"class_name": "function", "config": "Package>mine"}),
        ("2.15.0", {"class_name": "__lambda__", "config": ["code", None, None]}),
        ("2.15.0", 7),
    ],
)
def test_unknown_function(version, name):
    with pytest.raises(ConversionError, match="no rule makes a graph of 1 layer") as caught:
        graph_of(version, "Activation", {"activation": name}, [(3,)])
    (unsupported,) = caught.value.unsupported
    assert unsupported.startswith("layer (Activation with the activation ")


@pytest.mark.parametrize(
    ("class_name", "config", "message"),
    [
        ("ReLU", {"max_value": "6"}, "max_value is '6', and has to be a number"),
        ("LeakyReLU", {"alpha": [0.1]}, r"negative_slope is \[0.1\]"),
        ("ELU", {"alpha": float("nan")}, "alpha is nan"),
        ("Softmax", {"axis": 5}, "told the axis 5; its input has 2 dimensions"),
        ("Softmax", {"axis": [1, -1]}, r"told the axes \(1, -1\)"),
        ("Softmax", {"axis": "last"}, "told the axis 'last'"),
    ],
)
def test_arguments_that_mean_nothing(class_name, config, message):
    with pytest.raises(ConversionError, match=message):
        graph_of("2.15.0", class_name, config, [(3,)])


def test_number_as_keras_2_0_wrote_it():
    """Keras 2.0.5 models.py, save_model: an array of no dimensions, into which ``cast_to_floatx`` made every number."""
    x = LINE.reshape(3, -1)
    got = answer("2.0.5", "LeakyReLU", {"alpha": {"type": "ndarray", "value": 0.25}}, x)
    np.testing.assert_allclose(got, np.where(x > 0, x, 0.25 * x))


def test_unknown_size_of_sparsemax():
    x = np.random.default_rng(1).normal(0, 1, (2, 6)).astype(np.float32)
    assert_same(keras3().layers.Activation("sparsemax"), x, shapes=[(None,)])
