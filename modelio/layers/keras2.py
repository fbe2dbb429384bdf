"""Keras 2, tf.keras and tf_keras: where their words differ from the normal form, which is close to theirs.

Sources: Keras 2.3.1, ``tensorflow/python/keras`` of TensorFlow 1.15, tf_keras 2.21: ``get_config`` of every layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CLASSES", "FUNCTION_LAYERS", "KEYWORDS", "heeded", "normal", "renamed", "spelled"]

CLASSES: Mapping[str, str] = {
    # tf.keras between 1.13 and 2.x let the name of the implementation through.
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "UnifiedLSTM": "LSTM",
    "UnifiedGRU": "GRU",
    "LSTMV1": "LSTM",
    "LSTMV2": "LSTM",
    "GRUV1": "GRU",
    "GRUV2": "GRU",
    "LSTMCellV1": "LSTMCell",
    "LSTMCellV2": "LSTMCell",
    "GRUCellV1": "GRUCell",
    "GRUCellV2": "GRUCell",
    "BidirectionalV1": "Bidirectional",
    "BidirectionalV2": "Bidirectional",
    "DenseV1": "Dense",
    # The cuDNN layers compute what the plain ones do; layouts.py turns their weights.
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
}
"""Class of Keras 2 -> class of the normal form, where they differ."""

FUNCTION_LAYERS = frozenset({"TFOpLambda", "SlicingOpLambda"})
"""Classes that call a function of TensorFlow (tf_keras/src/layers/core/tf_op_layer.py)."""

KEYWORDS: Mapping[str, Mapping[str, str]] = {
    "": {"batch_input_shape": "batch_shape"},
    "LeakyReLU": {"alpha": "negative_slope"},
}
"""Class ("" for all) -> keyword -> keyword of the normal form."""

_IMPLIED: Mapping[str, Mapping[str, Any]] = {
    "CuDNNLSTM": {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True},
    "CuDNNGRU": {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True, "reset_after": True},
}
"""Class -> arguments that it does not write because it had no choice."""

_EARLY: Mapping[str, Mapping[str, str]] = {
    # tensorflow/python/keras/layers/preprocessing of TensorFlow 2.4: category_encoding.py, integer_lookup.py
    "CategoryEncoding": {"max_tokens": "num_tokens"},
    "IntegerLookup": {"max_values": "max_tokens", "mask_value": "mask_token", "oov_value": "oov_token"},
}
"""Class -> keyword that it had before TensorFlow 2.6, and is never written -> keyword of the normal form."""

_EARLY_MODES: Mapping[Any, str] = {"binary": "multi_hot", "tf-idf": "tf_idf"}
"""``output_mode`` before TensorFlow 2.6 -> what it is called since."""

_NO_SALT = [0xDECAFCAFFE] * 2
"""What TensorFlow 2.3 to 2.5 note of a Hashing without salt (2.4 ``hashing.py``, _DEFAULT_SALT_KEY)."""

_HEEDED_SINCE: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    # Keras 2.0.8 and 2.0.9 layers/convolutional.py, SeparableConv2D.call
    "SeparableConv2D": {"dilation_rate": (2, 0, 9)},
}
"""Class -> argument that Keras noted, and ignored before this version of the Keras beside TensorFlow."""


def heeded(class_name: str, config: dict[str, Any], version: tuple[int, ...]) -> dict[str, Any]:
    """The arguments without those that this version of Keras ignored.

    >>> heeded("SeparableConv2D", {"filters": 3, "dilation_rate": [2, 2]}, (2, 0, 5))
    {'filters': 3}
    """
    since = _HEEDED_SINCE.get(class_name, {})
    return {key: value for key, value in config.items() if not (2,) < version < since.get(key, (2,))}


def normal(class_name: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class and arguments in the normal form's words."""
    new_class = CLASSES.get(class_name, class_name)
    names = renamed(new_class)
    early = _EARLY.get(new_class, {})
    words = {names.get(key, early.get(key, key)): value for key, value in config.items()}
    if isinstance(words.get("output_mode"), str):
        words["output_mode"] = _EARLY_MODES.get(words["output_mode"], words["output_mode"])
    if new_class == "Hashing" and words.get("salt") == _NO_SALT:
        words["salt"] = None
    if new_class == "BatchNormalization" and words.get("virtual_batch_size") is not None:
        words["axis"] = _of_the_input(words.get("axis"))
    return new_class, {**words, **_IMPLIED.get(class_name, {})}


def _of_the_input(axis: Any) -> Any:
    """The axes of the input itself: once it is built, a layer notes them behind that of its virtual batches.

    TensorFlow 1.15 ``keras/layers/normalization.py`` and tf_keras 2.21 ``batch_normalization.py``: build makes a list
    of the axis, and adds 1 to each.
    """
    built = isinstance(axis, (list, tuple)) and all(isinstance(at, int) and at > 1 for at in axis)
    return [at - 1 for at in axis] if built else axis


def renamed(class_name: str) -> dict[str, str]:
    """Argument -> its name in the normal form, for a class of the normal form."""
    return {**KEYWORDS[""], **KEYWORDS.get(class_name, {})}


def spelled(class_name: str) -> dict[str, str]:
    """The other way round.

    >>> spelled("LeakyReLU")
    {'batch_shape': 'batch_input_shape', 'negative_slope': 'alpha'}
    """
    return {new: old for old, new in renamed(class_name).items()}
