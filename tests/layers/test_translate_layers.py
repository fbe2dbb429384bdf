"""Every class that tf_keras and Keras 3 share, from one into the other: the same outputs, on random weights.

The frameworks build the models and write the JSON; modelio translates it; the other framework builds that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import modelio
from modelio.layers.dialects import translate
from modelio.layers.network import network_of
from tests.layers.test_translate import agree

pytestmark = pytest.mark.filterwarnings("ignore")

DIRECTIONS = [("tf_keras", "keras"), ("keras", "tf_keras")]

IMAGE = (9, 8, 4)
SERIES = (7, 4)
VOLUME = (6, 5, 4, 2)
ROW = (6,)
FRAMES = (4, 6, 5, 2)
WORDS = (2, "string")
COUNTS = (2, "int64")

ACTIVATIONS = [
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "leaky_relu",
    "linear",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]
ONLY_IN_KERAS_3 = [
    "celu",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "log_sigmoid",
    "soft_shrink",
    "sparse_sigmoid",
    "tanh_shrink",
]

# class, arguments, shape of a sample (with a type at its end: that of its elements); several: a list
QUICK: list[tuple[str, dict[str, Any], Any]] = [
    (
        "Dense",
        {"units": 3, "activation": "hard_sigmoid", "kernel_regularizer": "l2", "bias_constraint": "non_neg"},
        ROW,
    ),
    ("Conv1D", {"filters": 6, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}, SERIES),
    ("Conv2D", {"filters": 4, "kernel_size": 3, "activation": "hard_sigmoid", "padding": "same", "groups": 1}, IMAGE),
    ("DepthwiseConv2D", {"kernel_size": (3, 2), "depth_multiplier": 2, "padding": "same"}, IMAGE),
    ("SeparableConv2D", {"filters": 5, "kernel_size": (3, 2), "depth_multiplier": 2, "use_bias": False}, IMAGE),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 3, "strides": 2, "output_padding": 1}, IMAGE),
    ("BatchNormalization", {"axis": 1, "epsilon": 1e-7}, IMAGE),
    ("LayerNormalization", {"axis": [2, 1]}, SERIES),
    ("LSTM", {"units": 3, "recurrent_activation": "hard_sigmoid", "return_sequences": True}, SERIES),
    ("GRU", {"units": 3, "recurrent_activation": "hard_sigmoid", "activation": "hard_sigmoid"}, SERIES),
    ("GRU", {"units": 3, "reset_after": False, "go_backwards": True}, SERIES),
    ("ConvLSTM2D", {"filters": 3, "kernel_size": 2, "recurrent_activation": "hard_sigmoid"}, FRAMES),
    ("ZeroPadding1D", {"padding": (1, 2)}, SERIES),
    ("Dot", {"axes": (2, 1)}, [(5, 4), (4, 3)]),
    ("Softmax", {"axis": [1, 2]}, SERIES),
    ("TextVectorization", {"vocabulary": ["a", "b"], "output_sequence_length": 3}, (1, "string")),
]

ROWS: list[tuple[str, dict[str, Any], Any]] = [
    *(("Dense", {"units": 3, "activation": name}, ROW) for name in ACTIVATIONS + ONLY_IN_KERAS_3),
    *(("Activation", {"activation": name}, SERIES) for name in ("hard_sigmoid", "hard_silu", "log_sigmoid")),
    *(("SimpleRNN", {"units": 3, "activation": name}, SERIES) for name in ("hard_sigmoid", "relu6", "celu")),
    ("Dense", {"units": 3, "use_bias": False, "kernel_initializer": "he_normal", "activity_regularizer": "l1"}, SERIES),
    ("EinsumDense", {"equation": "abc,cd->abd", "output_shape": (7, 5), "bias_axes": "d"}, SERIES),
    ("EinsumDense", {"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "activation": "relu"}, SERIES),
    ("Embedding", {"input_dim": 6, "output_dim": 2, "mask_zero": True}, (3, "int32")),
    ("Conv1D", {"filters": 6, "kernel_size": 3, "strides": 2, "groups": 2}, SERIES),
    ("Conv2D", {"filters": 6, "kernel_size": (3, 2), "strides": 2, "padding": "same"}, IMAGE),
    ("Conv2D", {"filters": 8, "kernel_size": 3, "groups": 4, "dilation_rate": 2, "use_bias": False}, IMAGE),
    ("Conv3D", {"filters": 3, "kernel_size": (1, 2, 3), "strides": 2, "padding": "same"}, VOLUME),
    ("Conv1DTranspose", {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1}, SERIES),
    ("Conv2DTranspose", {"filters": 6, "kernel_size": (3, 2), "strides": 2, "padding": "same"}, IMAGE),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 2, "strides": 3}, IMAGE),
    ("Conv3DTranspose", {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1}, VOLUME),
    ("DepthwiseConv1D", {"kernel_size": 3, "depth_multiplier": 2, "strides": 2, "padding": "same"}, SERIES),
    ("DepthwiseConv1D", {"kernel_size": 3, "dilation_rate": 2}, SERIES),
    ("DepthwiseConv2D", {"kernel_size": 3, "dilation_rate": 2, "padding": "same", "activation": "relu"}, IMAGE),
    ("SeparableConv1D", {"filters": 5, "kernel_size": 3, "depth_multiplier": 2}, SERIES),
    ("SeparableConv1D", {"filters": 3, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}, SERIES),
    ("SeparableConv2D", {"filters": 3, "kernel_size": 3, "dilation_rate": 2, "padding": "same"}, IMAGE),
    *((f"{kind}Pooling1D", {"pool_size": 3, "strides": 2, "padding": "same"}, SERIES) for kind in ("Max", "Average")),
    *((f"{kind}Pooling2D", {"pool_size": (3, 2), "padding": "same"}, IMAGE) for kind in ("Max", "Average")),
    *((f"{kind}Pooling3D", {"pool_size": 2}, VOLUME) for kind in ("Max", "Average")),
    *((f"Global{kind}Pooling1D", {"data_format": "channels_first"}, SERIES) for kind in ("Max", "Average")),
    *((f"Global{kind}Pooling2D", {"keepdims": True}, IMAGE) for kind in ("Max", "Average")),
    *((f"Global{kind}Pooling3D", {"data_format": "channels_first"}, VOLUME) for kind in ("Max", "Average")),
    ("BatchNormalization", {"center": False, "momentum": 0.9}, IMAGE),
    ("BatchNormalization", {"scale": False}, ROW),
    ("LayerNormalization", {"axis": 1, "epsilon": 1e-5, "center": False}, IMAGE),
    ("GroupNormalization", {"groups": -1, "axis": 1}, IMAGE),
    ("GroupNormalization", {"groups": 2, "epsilon": 1e-5}, SERIES),
    ("UnitNormalization", {"axis": [1, 2]}, SERIES),
    ("Normalization", {"axis": None}, ROW),
    ("Normalization", {"mean": [1.0, 2.0], "variance": [1.0, 3.0], "invert": True}, (2,)),
    ("ReLU", {"max_value": 2.0, "negative_slope": 0.1, "threshold": 0.5}, ROW),
    ("LeakyReLU", {}, ROW),
    ("ELU", {"alpha": 0.5}, ROW),
    ("ThresholdedReLU", {"theta": 0.7}, ROW),
    ("PReLU", {"shared_axes": [1, 2]}, IMAGE),
    *((name, {}, [IMAGE, IMAGE]) for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")),
    ("Concatenate", {"axis": 1}, [(2, 4), (3, 4)]),
    ("Dot", {"axes": -1, "normalize": True}, [SERIES, SERIES]),
    ("Dot", {"axes": (3, 3)}, [(2, 3, 4), (2, 5, 4)]),
    ("Flatten", {"data_format": "channels_first"}, IMAGE),
    ("Reshape", {"target_shape": (-1, 2)}, IMAGE),
    ("Permute", {"dims": (2, 1)}, SERIES),
    ("RepeatVector", {"n": 3}, ROW),
    ("ZeroPadding2D", {"padding": ((1, 2), (3, 4)), "data_format": "channels_first"}, IMAGE),
    ("ZeroPadding3D", {"padding": 2}, VOLUME),
    ("Cropping1D", {"cropping": 1}, SERIES),
    ("Cropping2D", {"cropping": ((1, 0), (2, 1))}, IMAGE),
    ("Cropping3D", {"cropping": ((1, 0), (0, 1), (1, 1))}, VOLUME),
    ("UpSampling1D", {"size": 3}, SERIES),
    *(
        ("UpSampling2D", {"size": (2, 3), "interpolation": interpolation}, IMAGE)
        for interpolation in ("nearest", "bilinear", "bicubic", "lanczos3")
    ),
    ("UpSampling3D", {"data_format": "channels_first"}, VOLUME),
    ("Dropout", {"rate": 0.3, "noise_shape": (None, 1), "seed": 3}, ROW),
    *((f"SpatialDropout{len(shape) - 1}D", {"rate": 0.3}, shape) for shape in (SERIES, IMAGE, VOLUME)),
    ("AlphaDropout", {"rate": 0.3}, ROW),
    ("GaussianNoise", {"stddev": 0.3}, ROW),
    ("GaussianDropout", {"rate": 0.3}, ROW),
    ("ActivityRegularization", {"l1": 0.1}, ROW),
    ("Identity", {}, ROW),
    ("Masking", {"mask_value": -1.0}, SERIES),
    ("LSTM", {"units": 3, "use_bias": False, "go_backwards": True, "return_state": True}, SERIES),
    ("LSTM", {"units": 3, "unit_forget_bias": False, "dropout": 0.1, "recurrent_dropout": 0.2, "unroll": True}, SERIES),
    ("GRU", {"units": 3, "recurrent_activation": "hard_sigmoid", "reset_after": False}, SERIES),
    ("ConvLSTM1D", {"filters": 3, "kernel_size": 2}, (5, 7, 4)),
    ("ConvLSTM2D", {"filters": 3, "kernel_size": 2, "dilation_rate": 2, "return_state": True}, FRAMES),
    ("ConvLSTM3D", {"filters": 2, "kernel_size": 2, "padding": "same", "return_sequences": True}, (3, 4, 4, 4, 2)),
    ("Attention", {"use_scale": True, "score_mode": "concat"}, [(5, 4), (3, 4)]),
    ("Attention", {}, [(5, 4), (3, 4), (3, 4)]),
    ("AdditiveAttention", {"use_scale": False, "dropout": 0.2}, [(5, 4), (3, 4)]),
    ("Rescaling", {"scale": [1.0, 2.0, 3.0, 4.0], "offset": 0.5}, IMAGE),
    ("Resizing", {"height": 12, "width": 5, "interpolation": "bicubic"}, IMAGE),
    ("Resizing", {"height": 5, "width": 5, "crop_to_aspect_ratio": True}, IMAGE),
    ("CenterCrop", {"height": 3, "width": 5}, IMAGE),
    ("RandomFlip", {"mode": "vertical", "seed": 1}, IMAGE),
    ("RandomTranslation", {"height_factor": 0.1, "width_factor": (0.1, 0.2)}, IMAGE),
    ("RandomRotation", {"factor": 0.1}, IMAGE),
    ("RandomZoom", {"height_factor": 0.1}, IMAGE),
    ("RandomContrast", {"factor": 0.2}, IMAGE),
    ("RandomBrightness", {"factor": 0.2, "value_range": (0, 1)}, IMAGE),
    ("RandomHeight", {"factor": 0.2}, IMAGE),
    ("CategoryEncoding", {"num_tokens": 6, "output_mode": "count"}, (3, "int32")),
    ("Discretization", {"bin_boundaries": [-1.0, 0.0, 0.5], "output_mode": "one_hot"}, (1,)),
    ("Hashing", {"num_bins": 5, "salt": [1, 2]}, (1, "int64")),
    ("HashedCrossing", {"num_bins": 5}, [(1, "int64"), (1, "int64")]),
    ("IntegerLookup", {"vocabulary": [1, 3, 5], "output_mode": "multi_hot", "num_oov_indices": 2}, COUNTS),
    ("StringLookup", {"vocabulary": ["a", "b"]}, WORDS),
    ("TextVectorization", {"vocabulary": ["a", "b"], "output_mode": "count"}, (1, "string")),
]


def _id(row: tuple[str, dict[str, Any], Any]) -> str:
    return row[0] + "".join(f" {key}={value}" for key, value in row[1].items())


def _input(framework: Any, shape: tuple[Any, ...]) -> Any:
    if isinstance(shape[-1], str):
        return framework.Input(shape[:-1], dtype=shape[-1])
    return framework.Input(shape)


def _layer(request: pytest.FixtureRequest, row: tuple[str, dict[str, Any], Any], here: str, there: str) -> None:
    framework, other = request.getfixturevalue(here), request.getfixturevalue(there)
    name, arguments, shapes = row
    if not hasattr(framework.layers, name):
        pytest.skip(f"{here} has no {name}")
    if here == "tf_keras" and (arguments.get("activation") in ONLY_IN_KERAS_3):
        pytest.skip("tf_keras has no such activation")
    if here == "keras" and arguments.get("padding") == "causal" and name == "SeparableConv1D":
        pytest.skip("Keras 3 has no such padding")
    inputs = [_input(framework, shape) for shape in (shapes if isinstance(shapes, list) else [shapes])]
    layer = getattr(framework.layers, name)(name="layer", **arguments)
    agree(framework.Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0])), other, 2e-5)


@pytest.mark.parametrize(("here", "there"), DIRECTIONS)
@pytest.mark.parametrize("row", QUICK, ids=map(_id, QUICK))
def test_layer(request, row, here: str, there: str) -> None:
    _layer(request, row, here, there)


@pytest.mark.slow
@pytest.mark.parametrize(("here", "there"), DIRECTIONS)
@pytest.mark.parametrize("row", ROWS, ids=map(_id, ROWS))
def test_every_layer(request, row, here: str, there: str) -> None:
    _layer(request, row, here, there)


# -- layers of layers, and calls with more than one tensor -------------------------------------------------------------

Made = tuple[str, Callable[[], Any]]


def _structures(framework: Any) -> Iterator[Made]:
    layers, model, new = framework.layers, framework.Model, framework.Input

    def over(shape: tuple[int, ...], layer: Callable[[], Any]) -> Callable[[], Any]:
        def build() -> Any:
            source = new(shape)
            return model(source, layer()(source))

        return build

    def inner() -> Any:
        return framework.Sequential([new((4,)), layers.BatchNormalization(), layers.Dense(3)])

    def frozen() -> Any:
        made = framework.Sequential([new((6,)), layers.BatchNormalization(), layers.Dense(3)])
        made.layers[0].trainable = False
        return framework.Sequential([new((6,)), made, layers.BatchNormalization(), layers.Dense(2)])

    def attention(**told: Any) -> Callable[[], Any]:
        def build() -> Any:
            query, value = new((5, 4)), new((3, 6))
            layer = layers.MultiHeadAttention(2, 3, value_dim=5, output_shape=7)
            return model([query, value], layer(query, value, **told))

        return build

    def attention_of_three() -> Any:
        query, value, key = new((5, 4)), new((3, 6)), new((3, 4))
        return model([query, value, key], layers.MultiHeadAttention(2, 3)(query, value, key=key))

    def states() -> Any:
        x, h, c = new((5, 4)), new((3,)), new((3,))
        return model([x, h, c], layers.LSTM(3)(x, initial_state=[h, c]))

    def translation() -> Any:
        x, y = new((5, 4)), new((6, 4))
        _, h, c = layers.LSTM(3, return_state=True)(x)
        return model([x, y], layers.LSTM(3, return_sequences=True)(y, initial_state=[h, c]))

    def masks() -> Any:
        x = new((5,), dtype="int32")
        y = layers.Embedding(6, 4, mask_zero=True)(x)
        y = layers.LSTM(3, return_sequences=True)(y)
        pooled = layers.GlobalAveragePooling1D()(y)
        return model(x, [pooled, layers.GRU(2)(y), layers.Bidirectional(layers.LSTM(2))(y)])

    def names() -> Any:
        a, b = new((4,), name="a"), new((4,), name="b")
        both = layers.Add()([a, b])
        return model({"a": a, "b": b}, {"o": layers.Dense(2)(both), "p": layers.Dense(3)(both)})

    def shared() -> Any:
        layer = layers.Dense(4, activation="hard_sigmoid", name="d")
        x, y = new((4,)), new((4,))
        return model([x, y], [layers.Add()([layer(layer(x)), layer(y)]), layer(x)])

    yield "bidirectional", over((7, 4), lambda: layers.Bidirectional(layers.LSTM(3), merge_mode="sum"))
    hard = {"recurrent_activation": "hard_sigmoid"}
    yield "bidirectional, hard", over((7, 4), lambda: layers.Bidirectional(layers.GRU(3, **hard)))
    back = {"go_backwards": True, "activation": "relu"}
    yield (
        "bidirectional of two",
        over((7, 4), lambda: layers.Bidirectional(layers.GRU(3), backward_layer=layers.GRU(3, **back))),
    )
    yield "bidirectional, apart", over((7, 4), lambda: layers.Bidirectional(layers.LSTM(3), merge_mode=None))
    yield "time distributed", over((5, *IMAGE), lambda: layers.TimeDistributed(layers.Conv2D(3, 2)))
    yield "time distributed model", over((7, 4), lambda: layers.TimeDistributed(inner()))
    yield "cells", over((7, 4), lambda: layers.RNN([layers.LSTMCell(3, **hard), layers.GRUCell(2)]))
    yield "cell", over((7, 4), lambda: layers.RNN(layers.SimpleRNNCell(3)))
    yield "activation layer", over(ROW, lambda: layers.Dense(3, activation=layers.LeakyReLU()))
    yield "model in a model", over(ROW, frozen)
    yield "model without an input", over(ROW, lambda: framework.Sequential([layers.Dense(3), layers.Dense(2)]))
    yield "attention", attention()
    yield "attention, causal", attention(use_causal_mask=True)
    yield "attention of three", attention_of_three
    yield "initial states", states
    yield "states passed on", translation
    yield "masks", masks
    yield "named inputs and outputs", names
    yield "shared", shared


STRUCTURES = 19
QUICK_STRUCTURES = ("bidirectional, hard", "attention", "initial states", "masks", "shared")


@pytest.mark.parametrize(("here", "there"), DIRECTIONS)
@pytest.mark.parametrize("name", QUICK_STRUCTURES)
def test_structure(request, name: str, here: str, there: str) -> None:
    framework, other = request.getfixturevalue(here), request.getfixturevalue(there)
    agree(dict(_structures(framework))[name](), other)


@pytest.mark.slow
@pytest.mark.parametrize(("here", "there"), DIRECTIONS)
@pytest.mark.parametrize("index", range(STRUCTURES))
def test_every_structure(request, index: int, here: str, there: str) -> None:
    framework, other = request.getfixturevalue(here), request.getfixturevalue(there)
    structures = list(_structures(framework))
    assert len(structures) == STRUCTURES
    agree(structures[index][1](), other)


# -- operations --------------------------------------------------------------------------------------------------------

OPERATIONS: list[Callable[[Any, Any, Any], Any]] = [
    lambda ops, x, y: x + y,
    lambda ops, x, y: 2.0 - x,
    lambda ops, x, y: x * y / 2.0,
    lambda ops, x, y: (x * x) ** 2.0,
    lambda ops, x, y: ops.abs(-x),
    lambda ops, x, y: ops.exp(x) + ops.sqrt(ops.square(y)),
    lambda ops, x, y: ops.maximum(x, 0.5) + ops.minimum(y, 0.5),
    lambda ops, x, y: ops.where(x > y, x, y),
    lambda ops, x, y: ops.cast(ops.logical_and(x > 0.0, y <= 0.0), "float32"),
    lambda ops, x, y: x[:, 1:3, ::2],
    lambda ops, x, y: x[..., None] * y[:, :, :, None],
    lambda ops, x, y: x[:, -1],
    lambda ops, x, y: (1 - x) * 2 ** ops.abs(y),
    lambda ops, x, y: 3 - ops.cast(x, "int32"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("here", "there"), DIRECTIONS)
@pytest.mark.parametrize("index", range(len(OPERATIONS)))
def test_operation(request, tensorflow, index: int, here: str, there: str) -> None:
    framework, other = request.getfixturevalue(here), request.getfixturevalue(there)
    ops = framework.ops if here == "keras" else tensorflow
    x, y = framework.Input((4, 6)), framework.Input((4, 6))
    _, losses = agree(framework.Model([x, y], OPERATIONS[index](ops, x, y)), other)
    assert losses == []


FUNCTIONS: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("transpose", lambda tf, x: tf.transpose(x, [0, 2, 1])),
    ("reshape", lambda tf, x: tf.reshape(x, (-1, 24))),
    ("concat", lambda tf, x: tf.concat([x, x], axis=-1)),
    ("stack", lambda tf, x: tf.stack([x, x], axis=1)),
    ("expand_dims", lambda tf, x: tf.expand_dims(x, -1)),
    ("squeeze", lambda tf, x: tf.squeeze(tf.expand_dims(x, 1), 1)),
    ("tile", lambda tf, x: tf.tile(x, [1, 2, 1])),
    ("gather", lambda tf, x: tf.gather(x, [0, 2], axis=1)),
    ("clip_by_value", lambda tf, x: tf.clip_by_value(x, -0.5, 0.5)),
    ("softmax", lambda tf, x: tf.nn.softmax(x)),
    ("gelu", lambda tf, x: tf.nn.gelu(x)),
    ("leaky_relu", lambda tf, x: tf.nn.leaky_relu(x)),
    ("l2_normalize", lambda tf, x: tf.math.l2_normalize(x, axis=-1)),
    ("reduce_sum", lambda tf, x: tf.reduce_sum(x, axis=[1, 2], keepdims=True)),
    ("reduce_variance", lambda tf, x: tf.math.reduce_variance(x, -1)),
    ("cumsum", lambda tf, x: tf.cumsum(x, 1)),
    ("one_hot", lambda tf, x: tf.one_hot(tf.cast(x, "int32"), 3)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "function"), FUNCTIONS)
def test_function_of_tensorflow(tensorflow, tf_keras, keras, name: str, function: Callable[[Any, Any], Any]) -> None:
    x = tf_keras.Input((4, 6))
    _, losses = agree(tf_keras.Model(x, function(tensorflow, x)), keras)
    assert losses == []


def test_a_function_that_keras_3_lacks_is_lost(tensorflow, tf_keras) -> None:
    from modelio.layers.dialects import translate
    from modelio.model import LayerModel

    x = tf_keras.Input((4, 6))
    model = tf_keras.Model(x, tensorflow.nn.bias_add(x, [1.0] * 6))
    _, _, losses = translate(LayerModel.from_json(model.to_json()), "keras3")
    assert losses == ["tf.nn.bias_add: the operation nn.bias_add has no counterpart in Keras 3"]


def test_what_keras_3_has_adapted_keeps_no_number_of_bins(keras, tf_keras) -> None:
    """Keras 3 writes ``num_bins`` beside the boundaries, which Keras 2 refuses (``discretization.py``)."""
    layer = keras.layers.Discretization(num_bins=4)
    layer.adapt(np.random.default_rng(0).normal(size=(50, 3)))
    x = keras.Input((3,))
    agree(keras.Model(x, layer(x)), tf_keras)


def test_what_tf_keras_has_adapted_becomes_boundaries(keras, tf_keras) -> None:
    """It keeps a summary of the data as a weight, which Keras 3 has no place for (``discretization.py``)."""
    layer = tf_keras.layers.Discretization(num_bins=4, epsilon=0.01, name="discretization")
    layer.adapt(np.random.default_rng(0).normal(size=(50, 3)))
    x, data = tf_keras.Input((3,)), np.random.default_rng(1).normal(size=(20, 3)).astype("float32")
    model = tf_keras.Model(x, layer(x))
    made, changes, losses = translate(modelio.from_keras(model), "keras3")
    assert "bin_boundaries: from the summary among the weights to the arguments: discretization" in changes
    assert losses == []
    np.testing.assert_array_equal(np.asarray(modelio.to_keras(made)(data)), np.asarray(model(data)))


@pytest.mark.parametrize("output_mode", ["int", "multi_hot"])
def test_layers_that_count_choose_their_dtype(keras, tf_keras, output_mode: str) -> None:
    """The dtype is left out; what it is then is the same to tf_keras and to modelio."""
    x = keras.Input((3,), dtype="int64")
    model = keras.Model(x, keras.layers.Hashing(5, output_mode=output_mode)(x))
    made, _, _ = translate(modelio.from_keras(model), "keras2")
    live = tf_keras.models.model_from_json(made.to_json())
    assert network_of(made.architecture).layers[1].dtype == live.outputs[0].dtype.name


def test_the_first_argument_by_name(keras, tf_keras) -> None:
    """Keras 2 writes it by its place, always."""
    query, value = keras.Input((5, 8)), keras.Input((6, 8))
    attended = keras.layers.MultiHeadAttention(2, 4)(value=value, query=query)
    agree(keras.Model([query, value], keras.layers.Dense(3)(inputs=attended)), tf_keras)


@pytest.mark.parametrize("old", ["OrthogonalInitializer", "Orthogonal"])
def test_early_keras_3_calls_it_orthogonal_initializer(keras, tf_keras, old: str) -> None:
    """Keras 3.0 to 3.6 ``src/initializers/random_initializers.py``."""
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(2)])
    text = model.to_json().replace('"Orthogonal"', f'"{old}"')
    made, _, _ = translate(modelio.LayerModel.from_json(text), "keras2")
    assert tf_keras.models.model_from_json(made.to_json()).layers[0].recurrent_initializer.gain == 1.0


def test_quantized_layers_are_plain_ones(keras, tf_keras) -> None:
    """The kernel's whole numbers over their scale; the input is not rounded any more, which is a loss."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(9, 6), layers.Dense(5)])
    model.quantize("int8")
    read = modelio.from_keras(model)
    translated, _, losses = translate(read, "keras2")
    assert any("no quantized layers" in line for line in losses)
    made = modelio.to_keras(translated)
    assert type(made).__module__.startswith("tf_keras")
    feed = np.array([[0, 3, 8, 1]], np.int32)
    np.testing.assert_allclose(np.asarray(made(feed)), np.asarray(model(feed)), atol=0.02)
    model = keras.Sequential([keras.Input((4,)), layers.EinsumDense("ab,bc->ac", 3)])
    model.quantize("int8")
    with pytest.raises(modelio.ConversionError, match="quantized to int8"):
        translate(modelio.from_keras(model), "keras2")


UNLIKE: list[Callable[[Any, Any], Any]] = [
    lambda ops, x: ops.flip(x),
    lambda ops, x: ops.cumsum(x),
    lambda ops, x: ops.take(x, [1, 2]),
    lambda ops, x: ops.take(x, -1, axis=1),
    lambda ops, x: ops.tile(x, 2),
    lambda ops, x: ops.tile(x, (1, 2)),
    lambda ops, x: ops.expand_dims(x, (1, -1)),
    lambda ops, x: ops.normalize(x, axis=1, order=1),
    lambda ops, x: ops.normalize(x, axis=-1, epsilon=2.0),
    lambda ops, x: ops.sum(x > 0, axis=1),
    lambda ops, x: ops.sum(ops.cast(x, "uint8"), axis=1),
    lambda ops, x: ops.mean(ops.cast(x, "int32"), axis=1),
    lambda ops, x: ops.exp(ops.cast(x, "int32")),
    lambda ops, x: ops.cast(x, "int32") / 2,
    lambda ops, x: ops.cast(x, "int32") + 1.5,
    lambda ops, x: ops.cast(x, "int32") * x,
    lambda ops, x: ops.any(x, axis=1),
    lambda ops, x: ops.where(x, x, 1.0),
    lambda ops, x: ops.logical_not(x),
    lambda ops, x: ops.elu(x, alpha=0.3),
]
ALIKE: list[Callable[[Any, Any], Any]] = [
    lambda ops, x: ops.flip(x, axis=(1, 2)),
    lambda ops, x: ops.cumsum(x, axis=1),
    lambda ops, x: ops.take(x, [1, 2], axis=1),
    lambda ops, x: ops.tile(x, (1, 2, 1)),
    lambda ops, x: ops.normalize(x, axis=-1),
    lambda ops, x: ops.sum(ops.cast(x, "int32"), axis=1),
    lambda ops, x: ops.cast(x, "int32") + 1,
    lambda ops, x: ops.any(x > 0, axis=1),
    lambda ops, x: ops.where(x > 0, 2, x),
    lambda ops, x: ops.elu(x),
    lambda ops, x: ops.one_hot(ops.cast(ops.abs(x), "int32"), 4),
    lambda ops, x: ops.power(2, x) + ops.maximum(1, x),
]


def test_operations_that_tensorflow_computes_otherwise_are_lost(keras) -> None:
    """Keras promotes, and takes axes as NumPy does; a function that gives other numbers is no counterpart."""
    for index, operation in enumerate(UNLIKE):
        x = keras.Input((4, 6))
        _, _, losses = translate(modelio.from_keras(keras.Model(x, operation(keras.ops, x))), "keras2")
        assert any("no counterpart" in line for line in losses), index


def test_operations_that_it_computes_alike(keras, tf_keras) -> None:
    for operation in ALIKE:
        x = keras.Input((4, 6))
        _, losses = agree(keras.Model(x, operation(keras.ops, x)), tf_keras)
        assert losses == []
