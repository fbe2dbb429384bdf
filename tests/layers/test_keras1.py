"""What Keras 0 and 1 wrote, in the words of Keras 2."""

from __future__ import annotations

from typing import Any

import pytest

from modelio.layers.network import network_of
from modelio.layers.shapes import shapes_of


def _layer(class_name: str, **config: Any) -> Any:
    first = {
        "class_name": "InputLayer",
        "name": "x",
        "config": {"name": "x", "batch_input_shape": [None, 8, 8, 4], "input_dtype": "float32"},
        "inbound_nodes": [],
    }
    node = {
        "class_name": class_name,
        "name": "layer",
        "config": {"name": "layer", **config},
        "inbound_nodes": [[["x", 0, 0]]],
    }
    model = {"layers": [first, node], "input_layers": [["x", 0, 0]], "output_layers": [["layer", 0, 0]]}
    return network_of({"class_name": "Model", "keras_version": "1.2.2", "config": model}).layers[1]


ROWS = [
    (
        "Convolution2D",
        {"nb_filter": 6, "nb_row": 3, "nb_col": 2, "border_mode": "same", "subsample": [2, 1], "dim_ordering": "th", "bias": False, "activation": "relu", "init": "uniform"},
        "Conv2D",
        {"filters": 6, "kernel_size": (3, 2), "padding": "same", "strides": (2, 1), "data_format": "channels_first", "use_bias": False, "activation": "relu", "kernel_initializer": "random_uniform", "dilation_rate": (1, 1)},
    ),
    ("AtrousConvolution2D", {"nb_filter": 6, "nb_row": 3, "nb_col": 3, "atrous_rate": [2, 3]}, "Conv2D", {"dilation_rate": (2, 3), "padding": "valid"}),
    ("Convolution1D", {"nb_filter": 6, "filter_length": 3, "subsample_length": 2, "border_mode": "full"}, "Conv1D", {"filters": 6, "kernel_size": (3,), "strides": (2,), "padding": "full"}),
    ("Convolution3D", {"nb_filter": 6, "kernel_dim1": 1, "kernel_dim2": 2, "kernel_dim3": 3}, "Conv3D", {"kernel_size": (1, 2, 3)}),
    ("Deconvolution2D", {"nb_filter": 6, "nb_row": 3, "nb_col": 3, "output_shape": [None, 14, 14, 6]}, "Conv2DTranspose", {"filters": 6, "output_shape": [None, 14, 14, 6]}),
    ("SeparableConvolution2D", {"nb_filter": 6, "nb_row": 3, "nb_col": 3, "depth_multiplier": 2}, "SeparableConv2D", {"filters": 6, "depth_multiplier": 2}),
    ("MaxPooling1D", {"pool_length": 3, "stride": 2, "border_mode": "same"}, "MaxPooling1D", {"pool_size": (3,), "strides": (2,), "padding": "same"}),
    ("MaxPooling2D", {"pool_size": [3, 2], "strides": None}, "MaxPooling2D", {"pool_size": (3, 2), "strides": (3, 2)}),
    ("UpSampling1D", {"length": 3}, "UpSampling1D", {"size": (3,)}),
    ("ZeroPadding1D", {"padding": {"left_pad": 1, "right_pad": 2}}, "ZeroPadding1D", {"padding": ((1, 2),)}),
    ("ZeroPadding2D", {"padding": [1, 2]}, "ZeroPadding2D", {"padding": ((1, 1), (2, 2))}),
    ("ZeroPadding2D", {"padding": [1, 2, 3, 4]}, "ZeroPadding2D", {"padding": ((1, 2), (3, 4))}),
    ("ZeroPadding2D", {"padding": {"top_pad": 1, "right_pad": 4}}, "ZeroPadding2D", {"padding": ((1, 0), (0, 4))}),
    ("Cropping2D", {"cropping": [[1, 2], [3, 4]]}, "Cropping2D", {"cropping": ((1, 2), (3, 4))}),
    ("Dense", {"output_dim": 3, "input_dim": 4, "W_regularizer": None}, "Dense", {"units": 3, "kernel_regularizer": None}),
    ("TimeDistributedDense", {"output_dim": 3, "input_dim": 4, "input_length": 5}, "Dense", {"units": 3}),
    ("Embedding", {"input_dim": 9, "output_dim": 3, "init": "normal", "dropout": 0.1}, "Embedding", {"input_dim": 9, "output_dim": 3, "embeddings_initializer": "random_normal"}),
    ("Dropout", {"p": 0.4}, "Dropout", {"rate": 0.4}),
    ("GaussianNoise", {"sigma": 0.4}, "GaussianNoise", {"stddev": 0.4}),
    ("LeakyReLU", {"alpha": 0.1}, "LeakyReLU", {"negative_slope": 0.1}),
    ("PReLU", {"init": "zero"}, "PReLU", {"alpha_initializer": "zeros"}),
    ("BatchNormalization", {"mode": 0, "gamma_init": "one", "epsilon": 1e-5}, "BatchNormalization", {"mode": 0, "gamma_initializer": "ones", "epsilon": 1e-5, "scale": True, "center": True}),
    ("LSTM", {"output_dim": 3, "inner_activation": "hard_sigmoid", "inner_init": "orthogonal", "dropout_U": 0.1, "dropout_W": 0.2, "consume_less": "mem", "forget_bias_init": "one"}, "LSTM", {"units": 3, "recurrent_activation": "hard_sigmoid", "recurrent_dropout": 0.1, "dropout": 0.2, "implementation": 1, "unit_forget_bias": True}),
    ("GRU", {"output_dim": 3}, "GRU", {"units": 3, "reset_after": False, "activation": "tanh"}),
    ("Merge", {"mode": "concat", "mode_type": "raw", "concat_axis": 1, "dot_axes": -1}, "Concatenate", {"axis": 1}),
    ("Merge", {"mode": "ave", "mode_type": "raw", "concat_axis": 1}, "Average", {}),
    ("Merge", {"mode": "cos", "mode_type": "raw", "dot_axes": [1, 1]}, "Dot", {"axes": [1, 1], "normalize": True}),
    ("Merge", {"mode": ["code"], "mode_type": "lambda"}, "Merge", {"mode": ["code"], "mode_type": "lambda"}),
]  # fmt: skip


@pytest.mark.parametrize(("class_name", "config", "new_class", "new_config"), ROWS)
def test_classes_and_keywords(class_name: str, config: Any, new_class: str, new_config: Any) -> None:
    layer = _layer(class_name, **config)
    assert (layer.class_name, layer.source_class) == (new_class, class_name)
    assert {key: layer.config.get(key) for key in new_config} == new_config
    kept = {key for key in config if key in new_config or key == "mode"}
    assert not (set(config) - kept) & set(layer.config) - {"init"}


def test_layers_without_dim_ordering_follow_the_others() -> None:
    """Keras 1.2.2 does not write it for UpSampling2D, ZeroPadding2D and Cropping2D."""
    nodes = [
        {"class_name": "Convolution2D", "config": {"name": "c", "nb_filter": 2, "nb_row": 3, "nb_col": 3, "dim_ordering": "th", "batch_input_shape": [None, 3, 8, 8]}},
        {"class_name": "UpSampling2D", "config": {"name": "u", "size": [2, 2]}},
        {"class_name": "Reshape", "config": {"name": "r", "target_shape": [2, 144]}},
        {"class_name": "Convolution1D", "config": {"name": "s", "nb_filter": 2, "filter_length": 3}},
    ]  # fmt: skip
    network = network_of({"class_name": "Sequential", "keras_version": "1.2.2", "config": nodes})
    assert [layer.config.get("data_format") for layer in network.layers[1:]] == [
        *("channels_first", "channels_first", None),
        "channels_last",  # Keras 1 has no other way for series
    ]


def test_the_name_of_an_input_counts_classes() -> None:
    dense = {"class_name": "Dense", "config": {"name": "d7", "output_dim": 2, "batch_input_shape": [None, 3]}}
    network = network_of({"class_name": "Sequential", "keras_version": "1.2.2", "config": [dense]})
    assert network.input_names == ("dense_input_1",)


def test_merge_in_front_of_a_sequential() -> None:
    """Its branches' layers are layers of the Sequential, in the file of weights too."""

    def branch(*nodes: Any) -> Any:
        return {"class_name": "Sequential", "config": [*nodes]}

    lstm = {"class_name": "LSTM", "config": {"name": "lstm_6", "output_dim": 5, "batch_input_shape": [None, 30, 3]}}
    reshape = {
        "class_name": "Reshape",
        "config": {"name": "reshape_2", "target_shape": [4], "batch_input_shape": [None, 4]},
    }
    merge = {"name": "merge_2", "mode": "concat", "mode_type": "raw", "concat_axis": 1}
    dense = {"class_name": "Dense", "config": {"name": "dense_5", "output_dim": 2}}
    nodes = [{"class_name": "Merge", "config": {**merge, "layers": [branch(lstm), branch(reshape)]}}, dense]
    network = network_of({"class_name": "Sequential", "keras_version": "1.0.8", "config": nodes})
    assert network.input_names == ("lstm_input_1", "reshape_input_1")
    assert [spec.shape for spec in network.input_specs] == [(None, 30, 3), (None, 4)]
    (merged,) = [call for call in network.calls if call.layer.class_name == "Concatenate"]
    assert [network.calls[ref.call].layer.name for ref in merged.refs()] == ["lstm_6", "reshape_2"]
    assert [layer.name for layer in network.layers if layer.source] == ["lstm_6", "reshape_2", "merge_2", "dense_5"]
    assert shapes_of(network).outputs[merged.layer] == ((None, 9),)


def test_keras_0() -> None:
    """No class_name anywhere: ``name`` is the class, and layers of one class share their ``custom_name``."""
    dense = {"name": "Dense", "custom_name": "dense", "output_dim": 3, "cache_enabled": True}
    nodes = [
        {**dense, "input_dim": 7},
        {"name": "Activation", "custom_name": "activation", "activation": "relu"},
        {**dense, "input_dim": None, "output_dim": 2},
    ]
    network = network_of({"name": "Sequential", "loss": "mse", "optimizer": {"name": "SGD"}, "layers": nodes})
    assert [layer.name for layer in network.layers[1:]] == ["dense_1", "activation_1", "dense_2"]
    assert [layer.config.get("units") for layer in network.layers[1:]] == [3, None, 2]
    assert network.layers[1].version < (1,)
    assert network.input_specs[0].shape == (None, 7)
    image = {
        "name": "Convolution2D",
        "nb_filter": 2,
        "nb_row": 4,
        "nb_col": 3,
        "dim_ordering": "th",
        "input_shape": [1, 4, 9],
    }
    assert network_of({"name": "Sequential", "layers": [image]}).input_specs[0].shape == (None, 1, 4, 9)
    words = {"name": "Embedding", "input_dim": 50, "output_dim": 4, "input_length": 6}
    assert network_of({"name": "Sequential", "layers": [words]}).input_specs[0].shape == (None, 6)
    series = {"name": "LSTM", "output_dim": 2, "input_dim": 4, "input_length": None}
    assert network_of({"name": "Sequential", "layers": [series]}).input_specs[0].shape == (None, None, 4)
