"""Keras 0.x and 1.x: their classes and keywords, and what they are called since Keras 2.

The tables hold for both directions: a row is (old, new, values), its values a mapping old -> new. What a table cannot
say is a named function beside it. Sources: Keras 1.2.2 ``get_config`` of every layer, Keras 2.3.1
``legacy/interfaces.py`` (what Keras 2 itself made of Keras 1's keywords), Keras 0.3.3 and 1.0.8 where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CLASSES", "KEYWORDS", "MERGES", "Keyword", "input_shape", "is_own", "normal", "old_node", "renamed"]


@dataclass(frozen=True)
class Keyword:
    """A renamed keyword. Several old ones together make a tuple; no new one: Keras 2 has nothing of the kind."""

    old: tuple[str, ...]
    new: str
    values: Mapping[Any, Any] = field(default_factory=dict)


CLASSES: Mapping[str, str] = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "AtrousConv1D": "Conv1D",
    "AtrousConv2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "Deconv2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "TimeDistributedDense": "Dense",  # Keras 0.x; Dense takes any rank now
}
"""Class of Keras 0 or 1 -> class of Keras 2, where the name changed."""

MERGES: Mapping[str, str] = {
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
    "concat": "Concatenate",
    "dot": "Dot",
    "cos": "Dot",
}
"""Mode of ``Merge`` -> class of Keras 2 (Keras 1.2.2 ``engine/topology.py`` Merge.call)."""

_DATA_FORMAT = {"tf": "channels_last", "th": "channels_first"}
_INITIALIZER = {"zero": "zeros", "one": "ones", "uniform": "random_uniform", "normal": "random_normal"}


def _row(old: str, new: str, values: Mapping[Any, Any] | None = None) -> Keyword:
    return Keyword(tuple(old.split()), new, values or {})


_COMMON = (_row("batch_input_shape", "batch_shape"),)
_DENSE = (
    _row("output_dim", "units"),
    _row("init", "kernel_initializer", _INITIALIZER),
    _row("W_regularizer", "kernel_regularizer"),
    _row("b_regularizer", "bias_regularizer"),
    _row("W_constraint", "kernel_constraint"),
    _row("b_constraint", "bias_constraint"),
    _row("bias", "use_bias"),
    _row("input_dim", ""),
    _row("input_length", ""),
)
_IMAGE = (_row("dim_ordering", "data_format", _DATA_FORMAT),)
_CONVOLUTION = (
    *_DENSE[1:],
    *_IMAGE,
    _row("nb_filter", "filters"),
    _row("border_mode", "padding"),
    _row("subsample", "strides"),
    _row("atrous_rate", "dilation_rate"),
)
_CONVOLUTION_1D = (*_CONVOLUTION, _row("filter_length", "kernel_size"), _row("subsample_length", "strides"))
_CONVOLUTION_2D = (*_CONVOLUTION, _row("nb_row nb_col", "kernel_size"))
_CONVOLUTION_3D = (*_CONVOLUTION, _row("kernel_dim1 kernel_dim2 kernel_dim3", "kernel_size"))
_RECURRENT_GATES = (
    _row("inner_init", "recurrent_initializer", _INITIALIZER),
    _row("forget_bias_init", "unit_forget_bias", {"one": True, "zero": False}),
    _row("inner_activation", "recurrent_activation"),
    _row("U_regularizer", "recurrent_regularizer"),
    _row("dropout_W", "dropout"),
    _row("dropout_U", "recurrent_dropout"),
)
_RECURRENT = (*_DENSE, *_RECURRENT_GATES, _row("consume_less", "implementation", {"cpu": 0, "mem": 1, "gpu": 2}))
_POOLING_1D = (_row("pool_length", "pool_size"), _row("stride", "strides"), _row("border_mode", "padding"))
_POOLING = (*_IMAGE, _row("border_mode", "padding"))
_DROPOUT = (_row("p", "rate"), *_IMAGE)

KEYWORDS: Mapping[str, tuple[Keyword, ...]] = {
    "InputLayer": (_row("input_dtype", "dtype"),),
    "Dense": _DENSE,
    "MaxoutDense": _DENSE,
    "Highway": _DENSE,
    "Embedding": (
        _row("init", "embeddings_initializer", _INITIALIZER),
        _row("W_regularizer", "embeddings_regularizer"),
        _row("W_constraint", "embeddings_constraint"),
        _row("dropout", ""),
    ),
    "Conv1D": _CONVOLUTION_1D,
    "Conv2D": _CONVOLUTION_2D,
    "Conv3D": _CONVOLUTION_3D,
    "Conv2DTranspose": _CONVOLUTION_2D,
    "SeparableConv2D": _CONVOLUTION_2D,
    "LocallyConnected1D": _CONVOLUTION_1D,
    "LocallyConnected2D": _CONVOLUTION_2D,
    "ConvLSTM2D": (*_CONVOLUTION_2D, *_RECURRENT_GATES),
    "SimpleRNN": _RECURRENT,
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    **{f"{kind}Pooling1D": _POOLING_1D for kind in ("Max", "Average")},
    **{f"{kind}Pooling{rank}D": _POOLING for kind in ("Max", "Average") for rank in (2, 3)},
    **{f"Global{kind}Pooling{rank}D": _IMAGE for kind in ("Max", "Average") for rank in (2, 3)},
    **{f"{kind}{rank}D": _IMAGE for kind in ("ZeroPadding", "Cropping", "UpSampling") for rank in (2, 3)},
    "UpSampling1D": (_row("length", "size"),),
    "BatchNormalization": (
        _row("beta_init", "beta_initializer", _INITIALIZER),
        _row("gamma_init", "gamma_initializer", _INITIALIZER),
    ),
    "Dropout": _DROPOUT,
    **{f"SpatialDropout{rank}D": _DROPOUT for rank in (1, 2, 3)},
    "GaussianDropout": _DROPOUT,
    "GaussianNoise": (_row("sigma", "stddev"),),
    "PReLU": (_row("init", "alpha_initializer", _INITIALIZER),),
    "LeakyReLU": (_row("alpha", "negative_slope"),),
    "Concatenate": (_row("concat_axis", "axis"),),
    "Dot": (_row("dot_axes", "axes"),),
    "Reshape": (_row("dims", "target_shape"),),  # Keras 0.x
}
"""Class of Keras 2 -> how its keywords were called. A keyword without a row has kept its name."""

_MERGE_ONLY = frozenset(
    {
        "mode",
        "mode_type",
        "concat_axis",
        "dot_axes",
        "output_shape",
        "output_shape_type",
        "output_mask",
        "output_mask_type",
    }
    | {"arguments", "layers", "node_indices", "tensor_indices"}
)
"""Arguments of Merge that belong to other modes than the one it has."""

_OWN_KEYWORDS = frozenset(
    {
        "nb_filter",
        "nb_row",
        "border_mode",
        "dim_ordering",
        "W_regularizer",
        "inner_init",
        "subsample",
        "consume_less",
        "pool_length",
    }
    | {"input_dtype", "mode_type", "filter_length", "cache_enabled", "forget_bias_init", "beta_init"}
)


def is_own(config: Mapping[str, Any]) -> bool:
    """Do these arguments speak Keras 1?"""
    return not _OWN_KEYWORDS.isdisjoint(config)


def old_node(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A layer of Keras 0.x in the form of Keras 1: its class was under ``name``, its name under ``custom_name``.

    Source: Keras 1.2.2 ``models.py`` Sequential.from_config, normalize_legacy_config.
    """
    if "class_name" in node or "name" not in node:
        return node
    config = {key: value for key, value in node.items() if key not in ("name", "custom_name", "cache_enabled")}
    if node.get("custom_name"):
        config["name"] = node["custom_name"]
    return {"class_name": node["name"], "config": config}


def normal(class_name: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class and arguments in the normal form's words; arguments without a row keep theirs."""
    if class_name == "Merge":
        class_name, config = _merge(config)
    new_class = CLASSES.get(class_name, class_name)
    words: dict[str, Any] = dict(config)
    for row in (*_COMMON, *KEYWORDS.get(new_class, ())):
        if all(key in words for key in row.old):
            values = [words.pop(key) for key in row.old]
            value = values[0] if len(values) == 1 else tuple(values)
            if row.new:
                words[row.new] = row.values.get(value, value) if isinstance(value, str) else value
    if new_class.startswith("ZeroPadding"):
        words["padding"] = _margins(words.get("padding", 1))
    if words.get("data_format") == "default":
        del words["data_format"]
    return new_class, words


def renamed(class_name: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Which of these arguments, of a layer of that class of the normal form, have another name there.

    >>> renamed("Dense", {"output_dim": 3, "activation": "relu"})
    {'output_dim': 'units'}
    """
    rows = (*_COMMON, *KEYWORDS.get(class_name, ()))
    return {" ".join(row.old): row.new for row in rows if row.new and all(key in config for key in row.old)}


def _merge(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    mode = config.get("mode")
    if config.get("mode_type", "raw") != "raw" or not isinstance(mode, str) or mode not in MERGES:
        return "Merge", config  # a Python function: nothing that a table knows
    new_class = MERGES[mode]
    used = {row.old[0] for row in KEYWORDS.get(new_class, ())}
    kept = {key: value for key, value in config.items() if key in used or key not in _MERGE_ONLY}
    if mode == "cos":
        kept["normalize"] = True
    return new_class, kept


_SIDES = ("left_pad", "right_pad"), ("top_pad", "bottom_pad", "left_pad", "right_pad")


def _margins(padding: Any) -> Any:
    """Keras 1 also took {"left_pad": 1, ...} and (top, bottom, left, right) (1.2.2 ``convolutional.py``)."""
    if isinstance(padding, Mapping):
        sides = _SIDES["top_pad" in padding or "bottom_pad" in padding]
        padding = [padding.get(side, 0) for side in sides]
    if isinstance(padding, (list, tuple)) and len(padding) == 4:
        return (padding[0], padding[1]), (padding[2], padding[3])
    return padding


def input_shape(class_name: str, config: Mapping[str, Any]) -> list[Any] | None:
    """The batch input shape of a first layer that gives it in one of the older ways, from its verbatim arguments.

    Source: Keras 0.3.3 ``layers/core.py`` (``input_shape``, ``input_dim``), Keras 1.2.2 ``layers/embeddings.py``,
    ``recurrent.py``.
    """
    shape = config.get("batch_input_shape")
    if isinstance(shape, list):
        return shape
    shape = config.get("input_shape")
    if isinstance(shape, list):
        return [None, *shape]
    if class_name == "Embedding":
        return [None, config.get("input_length")]
    dim = config.get("input_dim")
    if not isinstance(dim, int):
        return None
    if "input_length" in config:
        return [None, config["input_length"], dim]
    return [None, dim]
