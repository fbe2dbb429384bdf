"""Activations: as a layer's ``activation`` argument, and as layers of their own.

What a name means depends on the Keras that wrote the file: ``hard_sigmoid`` changed in Keras 3. Every formula uses ops
that TensorFlow has had since 0.12 or 1.2, and gives what the op of a newer one gives: ``LeakyRelu`` came with 1.13,
``Selu`` with 1.4.

Sources, where a function names none: ``keras/activations.py`` and ``keras/backend/tensorflow_backend.py`` (Keras 1.2.2
and 2.3.1), ``tf_keras/src/activations.py`` and ``backend.py`` (2.21), ``keras/src/activations/activations.py`` and
``src/backend/tensorflow/nn.py`` (3.15).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.arguments import axes_of, number, rank_of
from modelio.lowering.rules import Site, rule

if TYPE_CHECKING:
    from modelio.layers.normal_form import Layer

__all__ = ["activate", "apply", "clip", "softmax", "unknown_activation"]

Function = Callable[[Builder, Site, Value], Value]


def activate(g: Builder, layer: Site, x: Value, argument: str = "activation") -> Value:
    """The layer's own ``activation`` applied to ``x``; ``argument`` may name another, such as ``recurrent_activation``.

    An activation may be a layer too, with weights of its own: ``Dense(8, activation=PReLU())``.
    """
    inner = layer.layer.inner.get(argument)
    if inner is None:
        return apply(g, layer, layer.config.get(argument), x)
    y = layer.lower(inner, x)
    assert isinstance(y, Value)  # a layer that is an activation has one output
    return y


def apply(g: Builder, layer: Site, activation: Any, x: Value) -> Value:
    """An activation by its name; None is the linear one."""
    function = _function(layer.layer, activation)
    if function is None:
        raise ConversionError(f"the activation {_name(activation)} is none of Keras' own, so there is no rule for it")
    return function(g, layer, x)


def unknown_activation(layer: Layer) -> str | None:
    """The name of an activation of this layer that has no rule; None where all have."""
    for argument in ("activation", "recurrent_activation"):
        activation = layer.config.get(argument)
        if argument not in layer.inner and _function(layer, activation) is None:
            return _name(activation)
    return None


def _function(layer: Layer, activation: Any) -> Function | None:
    if activation is None:
        return FUNCTIONS["linear"]
    if not isinstance(activation, str):
        return None
    if activation == "gelu" and len(layer.version) > 1 and layer.version < (2, 4):
        return None  # somebody's own, before Keras had one: some were exact, some approximate
    own = FUNCTIONS_3.get(activation) if layer.dialect == "keras3" else None
    return own or FUNCTIONS.get(activation)


def _name(activation: Any) -> str:
    """What to call it in a message."""
    if isinstance(activation, Mapping):
        config = activation.get("config")
        activation = config if isinstance(config, str) else activation.get("class_name")
    return repr(activation)


# -- functions ---------------------------------------------------------------------------------------------------------


def _op(name: str) -> Function:
    def function(g: Builder, layer: Site, x: Value) -> Value:
        apply_op: Callable[[Value], Value] = getattr(g, name)
        return apply_op(x)

    return function


def clip(g: Builder, x: Value, low: float, high: float) -> Value:
    """``x``, but not below ``low`` and not above ``high``. ClipByValue is younger than TensorFlow 1.2."""
    return g.Minimum(g.Maximum(x, low), high)


def softmax(g: Builder, layer: Site, x: Value, axis: int = -1, op: str = "Softmax") -> Value:
    """Softmax (or LogSoftmax) along one axis.

    The op works along the last axis, and until TensorFlow 1.4 on matrices alone: another axis is swapped with the last
    one, as ``tf.nn.softmax`` does (nn_ops.py, ``_wrap_2d_function``), and those before it are folded into one.
    """
    apply_op: Callable[[Value], Value] = getattr(g, op)
    if x.rank is None and axis == -1:
        return apply_op(x)
    rank = rank_of(layer, x, least=1)
    (axis,) = axes_of(layer, axis, rank)
    if axis != rank - 1:
        order = list(range(rank))
        order[axis], order[-1] = rank - 1, axis
        return g.Transpose(softmax(g, layer, g.Transpose(x, order), -1, op), order)
    if rank == 2:
        return apply_op(x)
    sizes = g.sizes(x)
    return g.reshape(apply_op(g.Reshape(x, g.vector([-1, sizes[-1]]))), sizes)


def leaky_relu(g: Builder, x: Value, slope: float) -> Value:
    """``x`` where it is positive, ``slope * x`` where it is not."""
    if slope == 0:
        return g.Relu(x)
    if 0 < slope <= 1:
        return g.Maximum(g.Mul(x, slope), x)
    return g.Sub(g.Relu(x), g.Mul(g.Relu(g.Neg(x)), slope))


def relu(g: Builder, x: Value, slope: float = 0.0, most: float | None = None, threshold: float = 0.0) -> Value:
    """``x`` from ``threshold`` on, at most ``most``; below it ``slope * (x - threshold)`` (backend.py, ``relu``)."""
    if most is None and threshold == 0:
        return leaky_relu(g, x, slope)
    if threshold != 0:
        y = g.Mul(x, g.cast(g.Greater(x, threshold), x.dtype))
    else:
        y = g.Relu6(x) if most == 6 else g.Relu(x)
    if most is not None and (threshold != 0 or most != 6):
        y = clip(g, y, 0.0, most) if threshold < 0 else g.Minimum(y, most)
    if slope != 0:
        y = g.Sub(y, g.Mul(g.Relu(g.Sub(threshold, x) if threshold else g.Neg(x)), slope))
    return y


def elu(g: Builder, x: Value, alpha: float = 1.0) -> Value:
    """``x`` where it is positive, ``alpha * (exp(x) - 1)`` where it is not."""
    y = g.Elu(x)
    return y if alpha == 1 else g.Select(g.Greater(x, 0.0), y, g.Mul(y, alpha))


def _selu(g: Builder, layer: Site, x: Value) -> Value:
    """``scale * elu(x, alpha)`` with the constants of the paper (Keras 2.3.1 ``activations.py``, ``selu``)."""
    return g.Mul(elu(g, x, 1.6732632423543772), 1.0507009873554805)


def _gelu(g: Builder, layer: Site, x: Value) -> Value:
    """The exact one; an approximate one has no name of its own (nn_ops.py, ``gelu``)."""
    return g.Mul(g.Mul(x, 0.5), g.Add(g.Erf(g.Mul(x, 0.7071067811865476)), 1.0))


def _silu(g: Builder, layer: Site, x: Value) -> Value:
    return g.Mul(x, g.Sigmoid(x))


def _hard_sigmoid(g: Builder, layer: Site, x: Value) -> Value:
    """Keras 1 and 2: ``0.2 x + 0.5`` between 0 and 1."""
    return clip(g, g.Add(g.Mul(x, 0.2), 0.5), 0.0, 1.0)


def _hard_sigmoid_3(g: Builder, layer: Site, x: Value) -> Value:
    """Keras 3: ``x / 6 + 0.5`` between 0 and 1."""
    return g.RealDiv(g.Relu6(g.Add(x, 3.0)), 6.0)


def _hard_silu(g: Builder, layer: Site, x: Value) -> Value:
    return g.Mul(x, _hard_sigmoid_3(g, layer, x))


def _mish(g: Builder, layer: Site, x: Value) -> Value:
    return g.Mul(x, g.Tanh(g.Softplus(x)))


def _log_sigmoid(g: Builder, layer: Site, x: Value) -> Value:
    return g.Neg(g.Softplus(g.Neg(x)))


def _glu(g: Builder, layer: Site, x: Value) -> Value:
    """The first half of the last axis, times the sigmoid of the second."""
    rank = rank_of(layer, x, least=1)
    first, second = g.node("Split", rank - 1, x, num_split=2)
    return g.Mul(first, g.Sigmoid(second))


def _hard_shrink(g: Builder, layer: Site, x: Value) -> Value:
    return g.Select(g.Greater(g.Abs(x), 0.5), x, g.ZerosLike(x))


def _soft_shrink(g: Builder, layer: Site, x: Value) -> Value:
    return g.Sub(x, clip(g, x, -0.5, 0.5))


def _tanh_shrink(g: Builder, layer: Site, x: Value) -> Value:
    return g.Sub(x, g.Tanh(x))


def _squareplus(g: Builder, layer: Site, x: Value) -> Value:
    return g.Mul(g.Add(x, g.Sqrt(g.Add(g.Square(x), 4.0))), 0.5)


def _sparse_plus(g: Builder, layer: Site, x: Value) -> Value:
    """0 up to -1, ``x`` from 1 on, and between them the parabola that joins the two."""
    return g.Add(g.Mul(g.Square(g.Add(clip(g, x, -1.0, 1.0), 1.0)), 0.25), g.Relu(g.Sub(x, 1.0)))


def _sparse_sigmoid(g: Builder, layer: Site, x: Value) -> Value:
    return clip(g, g.Mul(g.Add(x, 1.0), 0.5), 0.0, 1.0)


def _sparsemax(g: Builder, layer: Site, x: Value) -> Value:
    """nn.py, ``sparsemax``, which adds up all partial sums of the support where Martins' paper takes the last one."""
    rank = rank_of(layer, x, least=1)
    size = g.sizes(x)[-1]
    falling, _ = g.node("TopKV2", x, size)
    sums = g.Cumsum(falling, rank - 1)
    counts = np.arange(1, size + 1) if isinstance(size, int) else g.cast(g.Range(1, g.Add(size, 1), 1), x.dtype)
    support = g.cast(g.Greater(falling, g.RealDiv(g.Sub(sums, 1.0), counts)), x.dtype)
    total = g.Sum(g.Mul(sums, support), rank - 1, keep_dims=True)
    return g.Relu(g.Sub(x, g.RealDiv(g.Sub(total, 1.0), g.Sum(support, rank - 1, keep_dims=True))))


FUNCTIONS: Mapping[str, Function] = {
    "elu": _op("Elu"),
    "exponential": _op("Exp"),
    "gelu": _gelu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _hard_silu,
    "leaky_relu": lambda g, layer, x: leaky_relu(g, x, 0.2),
    "linear": lambda g, layer, x: x,
    "log_softmax": lambda g, layer, x: softmax(g, layer, x, op="LogSoftmax"),
    "mish": _mish,
    "relu": _op("Relu"),
    "relu6": _op("Relu6"),
    "selu": _selu,
    "sigmoid": _op("Sigmoid"),
    "silu": _silu,
    "softmax": lambda g, layer, x: softmax(g, layer, x),
    "softmax_v2": lambda g, layer, x: softmax(g, layer, x),  # tf_keras activations.py, _TF_ACTIVATIONS_V2
    "softplus": _op("Softplus"),
    "softsign": _op("Softsign"),
    "swish": _silu,
    "tanh": _op("Tanh"),
}
"""Names that mean the same wherever they stand. A few (``relu6``, ``swish``, ``mish``) were everybody's own functions
before Keras had them, with the same formula."""

FUNCTIONS_3: Mapping[str, Function] = {
    "celu": _op("Elu"),  # alpha is 1, where the two are the same
    "glu": _glu,
    "hard_shrink": _hard_shrink,
    "hard_sigmoid": _hard_sigmoid_3,
    "hard_silu": _hard_silu,
    "hard_tanh": lambda g, layer, x: clip(g, x, -1.0, 1.0),
    "log_sigmoid": _log_sigmoid,
    "soft_shrink": _soft_shrink,
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": _sparse_sigmoid,
    "sparsemax": _sparsemax,
    "squareplus": _squareplus,
    "tanh_shrink": _tanh_shrink,
}
"""Names that only Keras 3 knows, or gives another meaning."""


# -- layers ------------------------------------------------------------------------------------------------------------


@rule("Activation")
def activation_layer(g: Builder, layer: Site, x: Value) -> Value:
    """keras/src/layers/activations/activation.py."""
    return activate(g, layer, x)


@rule("ReLU")
def relu_layer(g: Builder, layer: Site, x: Value) -> Value:
    """keras/src/layers/activations/relu.py."""
    most = layer.config.get("max_value")
    return relu(
        g,
        x,
        slope=number(layer, "negative_slope", 0.0),
        most=None if most is None else number(layer, "max_value"),
        threshold=number(layer, "threshold", 0.0),
    )


@rule("LeakyReLU")
def leaky_relu_layer(g: Builder, layer: Site, x: Value) -> Value:
    """keras/src/layers/activations/leaky_relu.py; its slope was called alpha before Keras 3."""
    return leaky_relu(g, x, number(layer, "negative_slope", 0.3))


@rule("ELU")
def elu_layer(g: Builder, layer: Site, x: Value) -> Value:
    """keras/src/layers/activations/elu.py."""
    return elu(g, x, number(layer, "alpha", 1.0))


@rule("ThresholdedReLU")
def thresholded_relu(g: Builder, layer: Site, x: Value) -> Value:
    """``x`` above ``theta``, 0 elsewhere (tf_keras/src/layers/activation/thresholded_relu.py)."""
    return g.Mul(x, g.cast(g.Greater(x, number(layer, "theta", 1.0)), x.dtype))


@rule("PReLU")
def prelu(g: Builder, layer: Site, x: Value) -> Value:
    """A leaky ReLU with a slope for every element; axes that share theirs have size 1 (activations/prelu.py)."""
    return g.Sub(g.Relu(x), g.Mul(g.Relu(g.Neg(x)), layer.weight("alpha")))


@rule("Softmax")
def softmax_layer(g: Builder, layer: Site, x: Value, mask: Value | None = None) -> Value:
    """Softmax along one axis, or over all elements of several (keras/src/layers/activations/softmax.py).

    What is masked is a large negative number in place of itself, or beside it until Keras 3.12 and in Keras 2; since
    Keras 3.14 its result is zero also where nothing else is left.
    """
    if mask is None:
        return _softmax_over(g, layer, x)
    everywhere = g.LogicalAnd(mask, g.Fill(g.shape_of(x), True))
    if layer.config.get("robust_masking") or (layer.dialect == "keras3" and layer.since(3, 13)):
        y = _softmax_over(g, layer, g.Select(everywhere, x, g.Fill(g.shape_of(x), g.constant(_far(layer, x), x.dtype))))
    else:
        y = _softmax_over(g, layer, g.Add(x, g.Mul(g.Sub(1.0, g.cast(mask, x.dtype)), _far(layer, x))))
    is_zeroed = layer.dialect == "keras3" and layer.since(3, 14)
    return g.Select(everywhere, y, g.ZerosLike(y)) if is_zeroed else y


def _far(layer: Site, x: Value) -> float:
    """The number for what is masked (``_large_negative_number``, in tf_keras ``_large_compatible_negative``)."""
    if x.dtype != "float16":
        return -1e9
    return -3e4 if layer.dialect == "keras3" else float(np.finfo(np.float16).min) / 2


def _softmax_over(g: Builder, layer: Site, x: Value) -> Value:
    axis = layer.config.get("axis", -1)
    if isinstance(axis, int):
        return softmax(g, layer, x, axis)
    axes = list(axes_of(layer, axis, rank_of(layer, x)))
    if len(axes) == 1:
        return softmax(g, layer, x, axes[0])
    largest = g.Max(x, axes, keep_dims=True)
    total = g.Sum(g.Exp(g.Sub(x, largest)), axes, keep_dims=True)
    return g.Exp(g.Sub(x, g.Add(g.Log(total), largest)))


@rule("ParametricSoftplus")
def parametric_softplus(g: Builder, layer: Site, x: Value) -> Value:
    """Keras 1.2.2 ``layers/advanced_activations.py``."""
    return g.Mul(g.Softplus(g.Mul(x, layer.weight("betas"))), layer.weight("alphas"))


@rule("SReLU")
def srelu(g: Builder, layer: Site, x: Value) -> Value:
    """Three lines that join at two thresholds (Keras 1.2.2 ``layers/advanced_activations.py``)."""
    left = layer.weight("t_left")
    width = g.Abs(layer.weight("t_right"))
    beyond = g.Sub(x, left)
    middle = g.Sub(g.Minimum(g.Relu(beyond), width), g.Mul(g.Relu(g.Neg(beyond)), layer.weight("a_left")))
    right = g.Mul(g.Relu(g.Sub(beyond, width)), layer.weight("a_right"))
    return g.Add(g.Add(left, middle), right)
