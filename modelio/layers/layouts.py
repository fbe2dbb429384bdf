"""What files hold where the normal form has something else: split gates, turned kernels, cuDNN's biases.

:func:`stored_of` names the arrays that a layer has in its file, in order; :func:`normalized` makes the roles of the
normal form out of them, lazily. For most layers both are the catalogue's roles and nothing happens.

Sources: ``preprocess_weights_for_loading`` and ``_convert_rnn_weights`` in Keras 2.3.1 ``engine/saving.py`` and
tf_keras 2.21 ``src/saving/legacy/hdf5_format.py``; Keras 1.2.2
``layers/{recurrent,convolutional,convolutional_recurrent}.py``; Keras 0.3.3 ``layers/normalization.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError
from modelio.layers.catalogue import CATALOGUE, LEARNED, LOOSE, quantized_to, weights_of
from modelio.layers.nodes import flatten
from modelio.layers.normal_form import Layer
from modelio.model import Tensor

__all__ = [
    "THEANO_PADS",
    "Stored",
    "normalized",
    "rearranged",
    "shown",
    "stored_of",
    "theano_pads_otherwise",
    "unlearned",
]

Array = npt.NDArray[Any]


class Stored(NamedTuple):
    """An array as a file has it: its name, the names that it may go by, and whether it is trained."""

    name: str
    names: tuple[str, ...]
    trainable: bool


# Keras 1 keeps one matrix a gate. Per class: its gates in the order of the file, and in the order of the normal form.
_SPLIT_GATES: Mapping[str, tuple[str, str]] = {
    "LSTM": ("icfo", "ifco"),
    "ConvLSTM2D": ("icfo", "ifco"),
    "GRU": ("zrh", "zrh"),
}
_GATE_LETTERS = {"W": "kernel", "U": "recurrent_kernel", "b": "bias"}


def _split_gates(layer: Layer) -> tuple[str, str] | None:
    """The gates of a layer whose file has one matrix each; ``consume_less="gpu"`` had them together already."""
    if layer.dialect != "keras1" or layer.config.get("implementation") == 2:
        return None
    return _SPLIT_GATES.get(layer.class_name)


def stored_of(layer: Layer) -> tuple[Stored, ...] | None:
    """The arrays that the file has for the layer itself (not for those inside it), in Keras' order.

    None: the class is unknown, so any number of arrays under any names may belong to it.
    """
    if layer.network is not None:
        return ()
    weights = weights_of(layer.class_name, layer.config, layer.family)
    if weights is None:
        return () if layer.inner or layer.class_name.startswith("ops.") or layer.class_name in _WEIGHTLESS else None
    gates = _split_gates(layer)
    if gates:
        return tuple(Stored(f"{letter}_{gate}", (), True) for gate in gates[0] for letter in _GATE_LETTERS)
    if layer.class_name == "BatchNormalization" and layer.family == "tf.keras" and layer.version < (2, 0, 8):
        # TensorFlow 1.2 python/layers/normalization.py build: beta before gamma
        weights = tuple(sorted(weights, key=lambda weight: weight.role == "gamma"))
        weights = tuple(sorted(weights, key=lambda weight: not weight.trainable))
    if quantized_to(layer.config):  # its kernel is no longer trained, and listed behind the bias
        weights = tuple(sorted(weights, key=lambda weight: not weight.trainable))
    return tuple(Stored(weight.role, weight.names, weight.trainable) for weight in weights)


_WEIGHTLESS = frozenset(
    {"TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer"}
)
"""Classes that carry an operation of TensorFlow (tf_keras ``layers/core/tf_op_layer.py``)."""


def normalized(layer: Layer, arrays: Mapping[str, Tensor], backend: str | None = None) -> dict[str, Tensor]:
    """Role -> tensor in the normal form, from the stored arrays by name. Reads nothing yet."""
    gates = _split_gates(layer)
    if gates:
        arrays = {
            role: _joined([_convolved(arrays[f"{letter}_{gate}"], layer) for gate in gates[1]])
            for letter, role in _GATE_LETTERS.items()
        }
    tensors = dict(arrays)
    for change in _changes(layer, backend):
        for role, turn in change.items():
            if role in tensors:
                tensors[role] = turn(tensors[role], layer)
    roles = [weight.role for weight in weights_of(layer.class_name, layer.config, layer.family) or ()]
    loose = {role: tensors[role] for role in LOOSE & tensors.keys()}
    roles = [role for role in roles if role in tensors or not role.startswith(LEARNED)]
    return {role: tensors[role] for role in roles or tensors if role not in LOOSE} | loose


_SHARING = frozenset({"PReLU", "ParametricSoftplus", "SReLU"})


def shown(layer: Layer) -> dict[str, Any]:
    """Arguments that the writer did not note, and that the shapes of the layer's weights show.

    Keras 1 notes no ``shared_axes`` (1.2.2 ``layers/advanced_activations.py``, get_config); the axes that share their
    parameters have size 1 in them.
    """
    if layer.dialect != "keras1" or layer.class_name not in _SHARING or layer.config.get("shared_axes"):
        return {}
    shape = next((tensor.shape for tensor in layer.weights.values()), ())
    return {"shared_axes": tuple(axis for axis, size in enumerate(shape, start=1) if size == 1) or None}


def unlearned(layer: Layer, role: str, arrays: Mapping[str, Tensor]) -> Tensor:
    """The zeros that LoRA starts from anew where what it learned is in the kernel.

    Its two matrices' product has the kernel's shape (keras/src/layers/core/dense.py, ``enable_lora``,
    ``load_own_variables``).
    """
    rank = layer.config.get("lora_rank")
    of, _, side = role.removeprefix(LEARNED).rpartition("_")
    shape = arrays[of].shape if of in arrays else ()
    if not isinstance(rank, int) or rank <= 0 or not shape:
        raise ReadError(f"lora_rank is {rank!r}, which is a number above 0", where=layer.path)
    return Tensor.of(np.zeros((*shape[:-1], rank) if side == "a" else (rank, shape[-1]), np.float32))


def rearranged(layer: Layer, backend: str | None = None) -> list[str]:
    """What :func:`normalized` does to the arrays of a layer, in words.

    >>> rearranged(Layer("GRU", "gru", "gru", {"units": 3}, "GRU", "keras1", (1, 2, 2)))
    ['a matrix for each gate -> gates side by side']
    """
    done = ["a matrix for each gate -> gates side by side"] if _split_gates(layer) else []
    if layer.dialect == "keras1" and layer.class_name in _KERAS_1:
        if layer.class_name == "Conv1D":
            done.append("kernels of an image of one column -> (length, channels, filters)")
        elif layer.class_name == "Conv2DTranspose":
            done.append("kernels -> (rows, columns, filters, channels)")
        elif layer.config.get("data_format") == "channels_first":
            done.append("kernels (filters, channels, rows, columns) -> (rows, columns, channels, filters)")
    if layer.dialect == "keras1" and layer.version < (1,) and layer.class_name in _KERAS_0:
        done.append("deviation -> variance")
    if layer.source_class in _CUDNN:
        done.append("kernels and biases of cuDNN -> those of the plain layer")
    if backend == "theano" and layer.class_name in _THEANO:
        done.append("kernels of Theano, turned by half a turn")
    if layer.class_name == "BatchNormalization" and layer.family == "tf.keras" and layer.version < (2, 0, 8):
        done.append("beta, gamma -> gamma, beta")
    return done


# -- changes -----------------------------------------------------------------------------------------------------------

Change = Callable[[Tensor, Layer], Tensor]


def _changes(layer: Layer, backend: str | None) -> list[Mapping[str, Change]]:
    """What must be done to each role's tensor, one step after the other."""
    steps: list[Mapping[str, Change]] = []
    if layer.dialect == "keras1":
        steps.append(_KERAS_1.get(layer.class_name, {}))
        if layer.version < (1,):
            steps.append(_KERAS_0.get(layer.class_name, {}))
    steps.append(_CUDNN.get(layer.source_class, {}))
    if backend == "theano":
        steps.append(_THEANO.get(layer.class_name, {}))
    return steps


THEANO_PADS = "Theano pads even windows and strides in another way than TensorFlow: outputs differ"


def theano_pads_otherwise(layer: Layer) -> bool:
    """Theano pads both ends alike, TensorFlow no more than it needs (Keras 1.2.2 ``backend/theano_backend.py``)."""
    windows, strides = (
        [size for size in flatten(layer.config.get(name)) if isinstance(size, int)]
        for name in ("kernel_size" if "kernel_size" in layer.config else "pool_size", "strides")
    )
    return layer.config.get("padding") == "same" and (
        any(size % 2 == 0 for size in windows) or any(step > 1 for step in strides)
    )


def _derived(shape: tuple[int, ...], change: Callable[..., Array], *sources: Tensor) -> Tensor:
    """A tensor that is computed from others when it is asked for."""
    return Tensor(
        sources[0].dtype, shape, lambda: np.ascontiguousarray(change(*(source.numpy() for source in sources)))
    )


def _turned(tensor: Tensor, *axes: int) -> Tensor:
    return _derived(tuple(tensor.shape[axis] for axis in axes), lambda array: array.transpose(axes), tensor)


def _joined(parts: list[Tensor]) -> Tensor:
    """The parts side by side along the last axis; parts that do not fit together stay apart for the check of shapes."""
    first = parts[0].shape
    if not first or any(part.shape[:-1] != first[:-1] for part in parts):
        raise ReadError("the matrices of the gates differ in shape: " + ", ".join(str(part.shape) for part in parts))
    shape = (*first[:-1], sum(part.shape[-1] for part in parts))
    return _derived(shape, lambda *arrays: np.concatenate(arrays, axis=-1), *parts)


def _convolved(tensor: Tensor, layer: Layer) -> Tensor:
    """Keras 1 turns the kernel with the image: dim_ordering "th" has (filters, channels, rows, columns)."""
    rank = len(tensor.shape) - 2
    if layer.config.get("data_format") != "channels_first" or rank not in (2, 3):
        return tensor
    return _turned(tensor, *range(2, 2 + rank), 1, 0)


def _transposed(tensor: Tensor, layer: Layer) -> Tensor:
    """Keras 1 kept the kernel as (rows, columns, channels, filters), Keras 2 has the last two the other way round."""
    return _turned(_convolved(tensor, layer), 0, 1, 3, 2) if len(tensor.shape) == 4 else tensor


def _one_dimensional(tensor: Tensor, layer: Layer) -> Tensor:
    """Keras 1 made an image of one column: (length, 1, channels, filters), or (filters, channels, length, 1)."""
    if len(tensor.shape) != 4:
        return tensor
    sizes = layer.config.get("kernel_size") or (None,)
    if tensor.shape[:2] != (sizes[0], 1) or tensor.shape[3] != layer.config.get("filters"):
        tensor = _turned(tensor, 2, 3, 1, 0)
    length, one, channels, filters = tensor.shape
    return _derived(
        (length * one, channels, filters), lambda array: array.reshape(length * one, channels, filters), tensor
    )


_KERAS_1: Mapping[str, Mapping[str, Change]] = {
    "Conv1D": {"kernel": _one_dimensional},
    "Conv2D": {"kernel": _convolved},
    "Conv3D": {"kernel": _convolved},
    "Conv2DTranspose": {"kernel": _transposed},
    "SeparableConv2D": {"depthwise_kernel": _convolved, "pointwise_kernel": _convolved},
}


def _variance(deviation: Tensor, layer: Layer) -> Tensor:
    """Keras 0 divides by (deviation + epsilon), everyone later by sqrt(variance + epsilon)."""
    epsilon = layer.config["epsilon"]
    return _derived(
        deviation.shape, lambda array: (np.square(array + epsilon) - epsilon).astype(deviation.dtype), deviation
    )


_KERAS_0: Mapping[str, Mapping[str, Change]] = {"BatchNormalization": {"moving_variance": _variance}}


def _by_gate(change: Callable[[Array], Array]) -> Change:
    """With cuDNN every gate's matrix is transposed; the width over ``units`` counts the gates."""

    def turn(tensor: Tensor, layer: Layer) -> Tensor:
        units = layer.config.get("units") or 1

        def apply(array: Array) -> Array:
            return np.concatenate([change(gate) for gate in np.split(array, array.shape[1] // units, axis=1)], axis=1)

        return _derived(tensor.shape, apply, tensor)

    return turn


def _added(tensor: Tensor, layer: Layer) -> Tensor:
    """With cuDNN there is a bias for the input and one for the state; a plain LSTM only ever needs their sum."""
    half = tensor.size // 2
    return _derived((half,), lambda array: array.reshape(2, half).sum(axis=0), tensor)


def _apart(tensor: Tensor, layer: Layer) -> Tensor:
    half = tensor.size // 2
    return _derived((2, half), lambda array: array.reshape(2, half), tensor)


_CUDNN_KERNELS: Mapping[str, Change] = {
    "kernel": _by_gate(lambda gate: gate.T.reshape(gate.shape, order="F")),
    "recurrent_kernel": _by_gate(lambda gate: gate.T),
}
_CUDNN: Mapping[str, Mapping[str, Change]] = {
    "CuDNNLSTM": {**_CUDNN_KERNELS, "bias": _added},
    "CuDNNGRU": {**_CUDNN_KERNELS, "bias": _apart},
}


def _flipped(tensor: Tensor, layer: Layer) -> Tensor:
    axes = tuple(range(CATALOGUE[layer.class_name].rank or 0))
    return _derived(tensor.shape, lambda array: np.flip(array, axes), tensor)


_THEANO: Mapping[str, Mapping[str, Change]] = {
    **{name: {"kernel": _flipped} for name in ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose")},
    "ConvLSTM2D": {"kernel": _flipped, "recurrent_kernel": _flipped},
}
"""Theano convolves where TensorFlow correlates, so its kernels are back to front.

Source: Keras 2.3.1 ``engine/saving.py`` _need_convert_kernel.
"""
