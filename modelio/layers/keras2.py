"""Keras 2, tf.keras and tf_keras: where their words differ from the normal form, which is close to theirs.

Sources: Keras 2.3.1, ``tensorflow/python/keras`` of TensorFlow 1.15, tf_keras 2.21: ``get_config`` of every layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CLASSES", "FUNCTION_LAYERS", "KEYWORDS", "normal", "renamed", "spelled"]

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


def normal(class_name: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class and arguments in the normal form's words."""
    new_class = CLASSES.get(class_name, class_name)
    names = renamed(new_class)
    words = {names.get(key, key): value for key, value in config.items()}
    return new_class, {**words, **_IMPLIED.get(class_name, {})}


def renamed(class_name: str) -> dict[str, str]:
    """Argument -> its name in the normal form, for a class of the normal form."""
    return {**KEYWORDS[""], **KEYWORDS.get(class_name, {})}


def spelled(class_name: str) -> dict[str, str]:
    """The other way round.

    >>> spelled("LeakyReLU")
    {'batch_shape': 'batch_input_shape', 'negative_slope': 'alpha'}
    """
    return {new: old for old, new in renamed(class_name).items()}
