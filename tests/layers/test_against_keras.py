"""Each class of the catalogue as the frameworks themselves build it: weights, their order and shapes, output shapes.

One model a row, in tf_keras and in Keras 3; the frameworks write its JSON, and modelio reads it.
"""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

from modelio.layers.binding import bind, from_arrays, get_weights
from modelio.layers.catalogue import weights_of
from modelio.layers.network import network_of
from modelio.layers.shapes import shapes_of
from modelio.model import LayerModel

pytestmark = pytest.mark.slow

IMAGE = (None, 9, 8, 4)
SERIES = (None, 7, 4)
VOLUME = (None, 6, 5, 4, 2)
ROW = (None, 6)

# class, arguments, input shape (a list: several inputs)
ROWS = [
    ("Dense", {"units": 3}, ROW),
    ("Dense", {"units": 3, "use_bias": False}, SERIES),
    ("EinsumDense", {"equation": "abc,cd->abd", "output_shape": (7, 5), "bias_axes": "d"}, SERIES),
    ("EinsumDense", {"equation": "...x,xy->...y", "output_shape": 5}, SERIES),
    ("Embedding", {"input_dim": 11, "output_dim": 3}, ROW),
    ("Conv1D", {"filters": 6, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}, SERIES),
    ("Conv1D", {"filters": 6, "kernel_size": 3, "strides": 2, "groups": 2}, SERIES),
    ("Conv2D", {"filters": 6, "kernel_size": (3, 2), "strides": 2, "padding": "same"}, IMAGE),
    ("Conv2D", {"filters": 6, "kernel_size": (3, 2), "data_format": "channels_first"}, IMAGE),
    ("Conv2D", {"filters": 8, "kernel_size": 3, "groups": 4, "dilation_rate": 2, "use_bias": False}, IMAGE),
    ("Conv3D", {"filters": 3, "kernel_size": (1, 2, 3)}, VOLUME),
    ("Conv1DTranspose", {"filters": 6, "kernel_size": 3, "strides": 2}, SERIES),
    ("Conv2DTranspose", {"filters": 6, "kernel_size": (3, 2), "strides": 2, "padding": "same"}, IMAGE),
    ("Conv2DTranspose", {"filters": 6, "kernel_size": 3, "strides": 2, "output_padding": 1}, IMAGE),
    ("Conv3DTranspose", {"filters": 3, "kernel_size": 2, "strides": 2}, VOLUME),
    ("DepthwiseConv1D", {"kernel_size": 3, "depth_multiplier": 2}, SERIES),
    ("DepthwiseConv2D", {"kernel_size": (3, 2), "depth_multiplier": 2, "padding": "same"}, IMAGE),
    ("SeparableConv1D", {"filters": 5, "kernel_size": 3, "depth_multiplier": 2}, SERIES),
    ("SeparableConv2D", {"filters": 5, "kernel_size": (3, 2), "depth_multiplier": 2, "use_bias": False}, IMAGE),
    ("LocallyConnected1D", {"filters": 5, "kernel_size": 3}, SERIES),
    ("LocallyConnected2D", {"filters": 5, "kernel_size": (3, 2)}, IMAGE),
    *((f"{kind}Pooling1D", {"pool_size": 3, "strides": 2, "padding": "same"}, SERIES) for kind in ("Max", "Average")),
    *((f"{kind}Pooling2D", {"pool_size": (3, 2)}, IMAGE) for kind in ("Max", "Average")),
    *((f"{kind}Pooling3D", {"pool_size": 2, "data_format": "channels_first"}, VOLUME) for kind in ("Max", "Average")),
    *((f"Global{kind}Pooling1D", {}, SERIES) for kind in ("Max", "Average")),
    *((f"Global{kind}Pooling2D", {"keepdims": True}, IMAGE) for kind in ("Max", "Average")),
    *((f"Global{kind}Pooling3D", {"data_format": "channels_first"}, VOLUME) for kind in ("Max", "Average")),
    ("AdaptiveAveragePooling2D", {"output_size": (3, 2)}, IMAGE),
    ("BatchNormalization", {}, IMAGE),
    ("BatchNormalization", {"axis": 1, "center": False}, IMAGE),
    ("BatchNormalization", {"scale": False}, ROW),
    ("LayerNormalization", {}, SERIES),
    ("LayerNormalization", {"axis": (1, 2), "scale": False}, SERIES),
    ("GroupNormalization", {"groups": 2}, IMAGE),
    ("RMSNormalization", {}, SERIES),
    ("UnitNormalization", {}, ROW),
    ("Normalization", {}, ROW),
    ("Normalization", {"mean": 1.0, "variance": 2.0}, ROW),
    ("Activation", {"activation": "tanh"}, ROW),
    ("ReLU", {"max_value": 6.0}, ROW),
    ("LeakyReLU", {}, ROW),
    ("ELU", {}, ROW),
    ("ThresholdedReLU", {}, ROW),
    ("Softmax", {}, ROW),
    ("PReLU", {"shared_axes": [1, 2]}, IMAGE),
    ("PReLU", {}, ROW),
    *((name, {}, [IMAGE, IMAGE]) for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")),
    ("Add", {}, [(None, 9, 1, 4), (None, 1, 8, 4), (None, 9, 8, 1)]),
    ("Concatenate", {"axis": 1}, [(None, 2, 4), (None, 3, 4)]),
    ("Dot", {"axes": (2, 1)}, [(None, 5, 4), (None, 4, 3)]),
    ("Dot", {"axes": 1, "normalize": True}, [ROW, ROW]),
    ("Flatten", {}, IMAGE),
    ("Reshape", {"target_shape": (-1, 2)}, IMAGE),
    ("Permute", {"dims": (2, 1)}, SERIES),
    ("RepeatVector", {"n": 3}, ROW),
    ("ZeroPadding1D", {"padding": (1, 2)}, SERIES),
    ("ZeroPadding2D", {"padding": ((1, 2), (3, 4)), "data_format": "channels_first"}, IMAGE),
    ("ZeroPadding3D", {"padding": 2}, VOLUME),
    ("Cropping1D", {"cropping": 1}, SERIES),
    ("Cropping2D", {"cropping": (1, 2)}, IMAGE),
    ("Cropping3D", {"cropping": ((1, 0), (0, 1), (1, 1))}, VOLUME),
    ("UpSampling1D", {"size": 3}, SERIES),
    ("UpSampling2D", {"size": (2, 3), "interpolation": "bilinear"}, IMAGE),
    ("UpSampling3D", {}, VOLUME),
    ("Dropout", {"rate": 0.3}, ROW),
    ("SpatialDropout2D", {"rate": 0.3}, IMAGE),
    ("GaussianNoise", {"stddev": 0.3}, ROW),
    ("GaussianDropout", {"rate": 0.3}, ROW),
    ("Masking", {}, SERIES),
    ("SimpleRNN", {"units": 3}, SERIES),
    ("LSTM", {"units": 3, "return_sequences": True}, SERIES),
    ("LSTM", {"units": 3, "use_bias": False, "go_backwards": True}, SERIES),
    ("GRU", {"units": 3, "reset_after": True}, SERIES),
    ("GRU", {"units": 3, "reset_after": False}, SERIES),
    ("ConvLSTM1D", {"filters": 3, "kernel_size": 2}, (None, 5, 7, 4)),
    (
        "ConvLSTM2D",
        {"filters": 3, "kernel_size": (3, 2), "padding": "same", "return_sequences": True},
        (None, 5, 9, 8, 4),
    ),
    ("ConvLSTM2D", {"filters": 3, "kernel_size": 2, "data_format": "channels_first"}, (None, 5, 4, 9, 8)),
    ("Attention", {"use_scale": True, "score_mode": "concat"}, [(None, 5, 4), (None, 3, 4)]),
    ("AdditiveAttention", {}, [(None, 5, 4), (None, 3, 4)]),
    ("Rescaling", {"scale": 2.0}, IMAGE),
    ("Resizing", {"height": 3, "width": 5}, IMAGE),
    ("CenterCrop", {"height": 3, "width": 5}, IMAGE),
    *((f"Adaptive{kind}Pooling1D", {"output_size": 3}, SERIES) for kind in ("Max", "Average")),
    *((f"Adaptive{kind}Pooling3D", {"output_size": (2, 2, 1)}, VOLUME) for kind in ("Max", "Average")),
    ("AdaptiveMaxPooling2D", {"output_size": 2}, IMAGE),
    ("ConvLSTM3D", {"filters": 2, "kernel_size": 2}, (None, 5, 6, 5, 4, 2)),
    ("Identity", {}, ROW),
    ("ActivityRegularization", {"l2": 0.1}, ROW),
    ("AlphaDropout", {"rate": 0.3}, ROW),
    ("SpatialDropout1D", {"rate": 0.3}, SERIES),
    ("SpatialDropout3D", {"rate": 0.3}, VOLUME),
    ("SpectralNormalization", {}, IMAGE),
    ("ReversibleEmbedding", {"input_dim": 11, "output_dim": 3, "tie_weights": False}, ROW),
    ("CategoryEncoding", {"num_tokens": 5, "output_mode": "multi_hot"}, ROW),
    ("Discretization", {"bin_boundaries": [0.0, 1.0, 2.0]}, ROW),
    ("RandomContrast", {"factor": 0.3}, IMAGE),
    ("RandomFlip", {}, IMAGE),
    ("RandomRotation", {"factor": 0.3}, IMAGE),
    ("RandomTranslation", {"height_factor": 0.3, "width_factor": 0.2}, IMAGE),
    ("RandomZoom", {"height_factor": 0.3}, IMAGE),
]

# Public names of classes that stand in ROWS under another name, that are not layers of their own, or that are tested
# below and elsewhere.
OTHERS = frozenset(
    [
        "Layer",
        "Wrapper",
        "AbstractRNNCell",
        "InputLayer",
        "Lambda",
        "DenseFeatures",
        "FlaxLayer",
        "JaxLayer",
        "TorchModuleWrapper",
        "TFSMLayer",
        "Pipeline",
        "Bidirectional",
        "TimeDistributed",
        "RNN",
        "StackedRNNCells",
        "LSTMCell",
        "GRUCell",
        "SimpleRNNCell",
        "MultiHeadAttention",
        "GroupQueryAttention",
        "TextVectorization",
        "StringLookup",
        "IntegerLookup",
        "Hashing",
        "HashedCrossing",
        "MelSpectrogram",
        "STFTSpectrogram",
        "AvgPool1D",
        "AvgPool2D",
        "AvgPool3D",
        "MaxPool1D",
        "MaxPool2D",
        "MaxPool3D",
        "GlobalAvgPool1D",
        "GlobalAvgPool2D",
        "GlobalAvgPool3D",
        "GlobalMaxPool1D",
        "GlobalMaxPool2D",
        "GlobalMaxPool3D",
        "Convolution1D",
        "Convolution2D",
        "Convolution3D",
        "Convolution1DTranspose",
        "Convolution2DTranspose",
        "Convolution3DTranspose",
        "SeparableConvolution1D",
        "SeparableConvolution2D",
    ]
)

WITHOUT_WEIGHTS = frozenset(
    [
        "AugMix",
        "AutoContrast",
        "ContrastLimitedAdaptiveHistogramEqualization",
        "CutMix",
        "Equalization",
        "MaxNumBoundingBoxes",
        "MixUp",
        "RandAugment",
        "RandomBrightness",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomCrop",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHeight",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomWidth",
        "Solarization",
    ]
)
"""They change pictures in training alone; some of them only run on real pictures."""

FRAMEWORKS = ["tf_keras", "keras"]


@pytest.fixture(scope="module", params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest):
    return request.getfixturevalue(request.param)


def _meta(framework) -> dict[str, str]:
    return {"keras_version": framework.__version__, "backend": "tensorflow"}


def _id(row) -> str:
    return row[0] + "".join(f" {key}={value}" for key, value in row[1].items())


def test_every_class_is_tested(framework) -> None:
    layers = framework.layers
    classes = {name: getattr(layers, name) for name in dir(layers) if isinstance(getattr(layers, name), type)}
    names = {name for name, own in classes.items() if issubclass(own, layers.Layer)}
    assert names <= {name for name, _, _ in ROWS} | OTHERS | WITHOUT_WEIGHTS
    for name in names & WITHOUT_WEIGHTS:
        assert weights_of(name, {}, "tf.keras") == ()


@pytest.mark.parametrize("row", ROWS, ids=map(_id, ROWS))
def test_layer(framework, row) -> None:
    name, arguments, shapes = row
    if not hasattr(framework.layers, name):
        pytest.skip(f"{framework.__name__} has no {name}")
    shapes = shapes if isinstance(shapes, list) else [shapes]
    inputs = [framework.Input(shape[1:]) for shape in shapes]
    if arguments.get("data_format") == "channels_first" and "Transpose" in name:
        pytest.skip("not on a processor")
    if name == "SpectralNormalization":
        if framework.__name__ == "tf_keras":
            pytest.skip("tf_keras 2.21 cannot make one: it takes Keras 3's InputSpec for its own")
        arguments = {"layer": framework.layers.Conv2D(3, (2, 1), name="inner")}
    output = getattr(framework.layers, name)(name="layer", **arguments)(inputs if len(inputs) > 1 else inputs[0])
    _check(framework, framework.Model(inputs, output))


def _check(framework, model) -> None:
    architecture = json.loads(model.to_json())
    network = network_of(architecture, meta=_meta(framework))
    arrays = model.get_weights()
    weights = from_arrays(architecture, arrays, meta=_meta(framework))
    whole = LayerModel(architecture, weights, network.layers[0].dialect, meta=_meta(framework))
    bind(network, whole)
    assert [shapes_of(network).outputs[network.calls[ref.call].layer][ref.output] for ref in network.outputs] == [
        tuple(output.shape) for output in model.outputs
    ]
    layer, built = network.layers[-1], model.layers[-1]
    assert layer.name == built.name
    own = {} if layer.inner else layer.weights  # a wrapper lists those of the layer inside among its own
    assert bool(own) == bool(built.weights) or layer.inner
    for role, tensor, variable in zip(own, own.values(), built.weights if own else (), strict=True):
        stored = (variable.path if hasattr(variable, "path") else variable.name).split(":")[0]
        assert stored.rpartition("/")[2] in role or role == "depthwise_kernel"
        assert tensor.shape == tuple(variable.shape)
    for ours, theirs in zip(get_weights(whole), arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def _wrapped(framework):
    layers = framework.layers
    yield "bidirectional", SERIES, layers.Bidirectional(layers.LSTM(3, return_sequences=True), merge_mode="sum")
    yield (
        "bidirectional of two",
        SERIES,
        layers.Bidirectional(layers.GRU(3), backward_layer=layers.GRU(3, go_backwards=True)),
    )
    yield "time distributed", (None, 5, 9, 8, 4), layers.TimeDistributed(layers.Conv2D(3, 2))
    normalized = framework.Sequential([framework.Input((4,)), layers.BatchNormalization(), layers.Dense(3)])
    yield "time distributed model", SERIES, layers.TimeDistributed(normalized)
    yield "stacked cells", SERIES, layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_sequences=True)
    yield "cell", SERIES, layers.RNN(layers.SimpleRNNCell(3))
    frozen = framework.Sequential([framework.Input((6,)), layers.BatchNormalization(), layers.Dense(3)])
    frozen.layers[0].trainable = False
    yield "model", ROW, frozen
    outer = framework.Sequential([framework.Input((6,)), frozen, layers.BatchNormalization(), layers.Dense(2)])
    yield "model in a model", ROW, outer
    yield "activation layer", ROW, layers.Dense(3, activation=layers.LeakyReLU())


@pytest.mark.parametrize("index", range(9))
def test_layer_of_layers(framework, index: int) -> None:
    _, shape, layer = list(_wrapped(framework))[index]
    source = framework.Input(shape[1:])
    try:
        model = framework.Model(source, layer(source))
        text = model.to_json()
    except (TypeError, ValueError) as error:  # an activation that is a layer has no JSON in every version
        pytest.skip(str(error))
    architecture = json.loads(text)
    weights = from_arrays(architecture, model.get_weights(), meta=_meta(framework))
    network = network_of(architecture, meta=_meta(framework))
    whole = LayerModel(architecture, weights, network.layers[0].dialect, meta=_meta(framework))
    bind(network, whole)
    for ours, theirs in zip(get_weights(whole), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert shapes_of(network).outputs[network.layers[-1]][0] == tuple(model.outputs[0].shape)


def test_multi_head_attention(framework) -> None:
    query, value = framework.Input((5, 4)), framework.Input((3, 6))
    layer = framework.layers.MultiHeadAttention(num_heads=2, key_dim=3, value_dim=5, output_shape=7, name="layer")
    _check_parts(framework, framework.Model([query, value], layer(query, value)))


def _check_parts(framework, model) -> None:
    architecture = json.loads(model.to_json())
    network = network_of(architecture, meta=_meta(framework))
    bind(
        network,
        LayerModel(
            architecture,
            from_arrays(architecture, model.get_weights(), meta=_meta(framework)),
            network.layers[0].dialect,
            meta=_meta(framework),
        ),
    )
    layer = network.layers[-1]
    assert list(layer.weights) == [
        f"{part}/{role}" for part in ("query", "key", "value", "attention_output") for role in ("kernel", "bias")
    ]
    assert shapes_of(network).outputs[layer][0] == tuple(model.outputs[0].shape)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_hdf5_group_of_a_model_in_a_model(framework, tmp_path) -> None:
    """What the framework stores, in its order, is what from_arrays makes of its get_weights()."""
    h5py = importlib.import_module("h5py")
    layers = framework.layers
    inner = framework.Sequential(
        [framework.Input((6,)), layers.BatchNormalization(name="n"), layers.Dense(3, name="d")]
    )
    source = framework.Input((6,))
    model = framework.Model(source, inner(source))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=array.shape) for array in model.get_weights()])
    path = tmp_path / "model.h5"
    model.save(path)
    with h5py.File(path) as file:
        group = file["model_weights"][inner.name]
        stored = [group[name][()] for name in group.attrs["weight_names"]]
    ours = from_arrays(json.loads(model.to_json()), model.get_weights(), meta=_meta(framework))[inner.name]
    for mine, theirs in zip(ours.values(), stored, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs)
