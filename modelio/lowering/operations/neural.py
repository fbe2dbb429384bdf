"""Operations of ``keras.ops.nn``: mostly what layers do too, by the layers' own rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from modelio.graph.builder import Builder, Value
from modelio.layers.catalogue import complete
from modelio.lowering import activation
from modelio.lowering.arithmetic import Operand, as_value, promoted, result_type, where
from modelio.lowering.attention import dot_product_attention
from modelio.lowering.operations import axes_in, axis_in, operation, ranked, sizes_known
from modelio.lowering.operations.arranging import transposed
from modelio.lowering.operations.elementwise import clipped
from modelio.lowering.operations.picking import one_hot, repeat
from modelio.lowering.operations.reductions import logsumexp, norm, reduced, spread_of
from modelio.lowering.rules import Site, find

__all__ = ["as_layer", "conv", "depthwise_conv", "gelu"]

EPSILON = 1e-7
"""``keras.backend.epsilon()``."""


class _StandIn(Site):
    """A site whose layer exists in no file, with its arguments and weights as values."""

    def __init__(self, site: Site, class_name: str, config: Mapping[str, Any], weights: Mapping[str, Value]) -> None:
        given = {key: value for key, value in config.items() if value is not None}
        super().__init__(replace(site.layer, class_name=class_name, config=complete(class_name, given)), site._walk)
        self._values = weights

    def weight(self, role: str | int, dtype: str | None = None) -> Value:
        return self._values[str(role)]

    def has(self, role: str) -> bool:
        return role in self._values


def as_layer(g: Builder, site: Site, class_name: str, x: Value, config: Mapping[str, Any], **weights: Value) -> Value:
    """What a layer of that class makes of ``x``."""
    layer = _StandIn(site, class_name, config, weights)
    layer.layer.dtype = x.dtype
    function = find(class_name)
    if function is None:
        raise ValueError(f"there is no layer {class_name}")
    made = function(g, layer, x)
    assert isinstance(made, Value)
    return made


# -- activations -------------------------------------------------------------------------------------------------------

_ACTIVATIONS = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "SparseSigmoid": "sparse_sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "SparsePlus": "sparse_plus",
    "Silu": "silu",
    "LogSigmoid": "log_sigmoid",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "Selu": "selu",
    "TanhShrink": "tanh_shrink",
    "HardTanh": "hard_tanh",
}
"""Those without arguments: class and name as a layer's activation."""


def _activation(name: str) -> Any:
    def apply(g: Builder, layer: Site, x: Operand) -> Value:
        return activation.apply(g, layer, name, as_value(g, x))

    return apply


for _class_name, _name in _ACTIVATIONS.items():
    operation(_class_name)(_activation(_name))


@operation("LeakyRelu")
def leaky_relu(g: Builder, x: Operand, negative_slope: float = 0.2) -> Value:
    return activation.leaky_relu(g, as_value(g, x), negative_slope)


@operation("Elu")
def elu(g: Builder, x: Operand, alpha: float = 1.0) -> Value:
    return activation.elu(g, as_value(g, x), alpha)


@operation("Celu")
def celu(g: Builder, x: Operand, alpha: float = 1.0) -> Value:
    x = as_value(g, x)
    below = g.Mul(g.Expm1(g.RealDiv(g.Minimum(x, 0.0), alpha)), alpha)
    made: Value = g.Add(g.Relu(x), below)
    return made


@operation("Gelu")
def gelu(g: Builder, layer: Site, x: Operand, approximate: bool = True) -> Value:
    """The approximate one by tanh (nn_ops.py, ``gelu``)."""
    x = as_value(g, x)
    if not approximate:
        return activation.apply(g, layer, "gelu", x)
    cube = g.Mul(g.Mul(g.Square(x), x), 0.044715)
    inner = g.Mul(g.Add(x, cube), 0.7978845608028654)
    made: Value = g.Mul(g.Mul(x, 0.5), g.Add(g.Tanh(inner), 1.0))
    return made


@operation("Glu")
def glu(g: Builder, x: Operand, axis: int = -1) -> Value:
    x = as_value(g, x)
    first, second = g.node("Split", axis_in(axis, ranked(x)), x, num_split=2)
    made: Value = g.Mul(first, g.Sigmoid(second))
    return made


@operation("SoftShrink")
def soft_shrink(g: Builder, x: Operand, threshold: float = 0.5) -> Value:
    x = as_value(g, x)
    made: Value = g.Sub(x, clipped(g, x, -threshold, threshold))
    return made


@operation("HardShrink")
def hard_shrink(g: Builder, x: Operand, threshold: float = 0.5) -> Value:
    x = as_value(g, x)
    return where(g, g.Greater(g.Abs(x), threshold), x, g.ZerosLike(x))


@operation("Threshold")
def threshold_of(g: Builder, x: Operand, threshold: float, default_value: float) -> Value:
    x = as_value(g, x)
    return where(g, g.Greater(x, threshold), x, g.constant(default_value, x.dtype))


@operation("Squareplus")
def squareplus(g: Builder, x: Operand, b: float = 4) -> Value:
    x = as_value(g, x)
    made: Value = g.Mul(g.Add(x, g.Sqrt(g.Add(g.Square(x), float(b)))), 0.5)
    return made


def _softmax(op: str) -> Any:
    def apply(g: Builder, layer: Site, x: Operand, axis: Any = -1) -> Value:
        x = as_value(g, x)
        if isinstance(axis, int):
            return activation.softmax(g, layer, x, axis, op)
        rank = ranked(x)
        axes = axes_in(axis, rank)
        left = [at for at in range(rank) if at not in axes]
        order = left + axes
        turned = transposed(g, x, order)
        sizes = g.sizes(turned)
        flat = g.reshape(turned, [*sizes[: len(left)], -1])
        y = g.reshape(activation.softmax(g, layer, flat, -1, op), sizes)
        return transposed(g, y, [order.index(at) for at in range(rank)])

    return apply


operation("Softmax")(_softmax("Softmax"))
operation("LogSoftmax")(_softmax("LogSoftmax"))


@operation("Sparsemax")
def sparsemax(g: Builder, layer: Site, x: Operand, axis: int = -1) -> Value:
    x = as_value(g, x)
    rank = ranked(x)
    at = axis_in(axis, rank)
    order = [*(one for one in range(rank) if one != at), at]
    y = activation.apply(g, layer, "sparsemax", transposed(g, x, order))
    return transposed(g, y, [order.index(one) for one in range(rank)])


# -- convolutions and pooling ------------------------------------------------------------------------------------------


def _space(x: Value) -> int:
    """How many axes of space pictures have."""
    return ranked(x) - 2


@operation("Conv")
def conv(
    g: Builder,
    layer: Site,
    inputs: Operand,
    kernel: Operand,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Value:
    x, kernel = promoted(g, inputs, kernel)
    config = {"strides": strides, "padding": padding, "data_format": data_format, "dilation_rate": dilation_rate}
    rank = _space(x)
    channels = sizes_known(x)[1 if data_format == "channels_first" else -1]
    groups = (channels or 0) // (sizes_known(kernel)[-2] or 1) or 1
    size = (kernel.shape or ())[:rank]
    filters = sizes_known(kernel)[-1]
    return as_layer(
        g,
        layer,
        f"Conv{rank}D",
        x,
        {**config, "use_bias": False, "groups": groups, "kernel_size": size, "filters": filters},
        kernel=kernel,
    )


@operation("DepthwiseConv")
def depthwise_conv(
    g: Builder,
    layer: Site,
    inputs: Operand,
    kernel: Operand,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Value:
    x, kernel = promoted(g, inputs, kernel)
    config = {"strides": strides, "padding": padding, "data_format": data_format, "dilation_rate": dilation_rate}
    rank = _space(x)
    config = {**config, "use_bias": False, "kernel_size": (kernel.shape or ())[:rank]}
    return as_layer(g, layer, f"DepthwiseConv{rank}D", x, config, depthwise_kernel=kernel)


@operation("SeparableConv")
def separable_conv(
    g: Builder,
    layer: Site,
    inputs: Operand,
    depthwise_kernel: Operand,
    pointwise_kernel: Operand,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Value:
    x, depthwise, pointwise = promoted(g, inputs, depthwise_kernel, pointwise_kernel)
    config = {"strides": strides, "padding": padding, "data_format": data_format, "dilation_rate": dilation_rate}
    rank = _space(x)
    config = {**config, "use_bias": False, "kernel_size": (depthwise.shape or ())[:rank]}
    return as_layer(
        g, layer, f"SeparableConv{rank}D", x, config, depthwise_kernel=depthwise, pointwise_kernel=pointwise
    )


def _pooling(kind: str) -> Any:
    def pool(
        g: Builder,
        layer: Site,
        inputs: Operand,
        pool_size: Any,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
    ) -> Value:
        x = as_value(g, inputs)
        config = {"pool_size": pool_size, "strides": strides, "padding": padding, "data_format": data_format}
        return as_layer(g, layer, f"{kind}Pooling{_space(x)}D", x, config)

    return pool


def _adaptive_pooling(kind: str) -> Any:
    def pool(g: Builder, layer: Site, inputs: Operand, output_size: Any, data_format: str | None = None) -> Value:
        x = as_value(g, inputs)
        config = {"output_size": output_size, "data_format": data_format}
        return as_layer(g, layer, f"Adaptive{kind}Pooling{_space(x)}D", x, config)

    return pool


for _kind in ("Max", "Average"):
    operation(f"{_kind}Pool")(_pooling(_kind))
    operation(f"Adaptive{_kind}Pool")(_adaptive_pooling(_kind))


# -- normalization -----------------------------------------------------------------------------------------------------


@operation("Moments")
def moments(
    g: Builder, x: Operand, axes: Any, keepdims: bool = False, synchronized: bool = False
) -> tuple[Value, Value]:
    """Mean and variance, in float32 at least; what is beyond float16 becomes its ends."""
    x = as_value(g, x)
    wide = g.cast(x, "float32") if x.dtype in ("float16", "bfloat16") else x
    mean, variance = reduced(g, "Mean", wide, axes, keepdims), spread_of(g, wide, axes, keepdims)
    if wide.dtype == x.dtype:
        return mean, variance
    return (
        g.cast(clipped(g, mean, -65504.0, 65504.0), x.dtype),
        g.cast(clipped(g, variance, -65504.0, 65504.0), x.dtype),
    )


@operation("BatchNorm")
def batch_norm(
    g: Builder,
    x: Operand,
    mean: Operand,
    variance: Operand,
    offset: Operand = None,
    scale: Operand = None,
    *,
    axis: int,
    epsilon: float = 1e-3,
) -> Value:
    x = as_value(g, x)
    rank = ranked(x)
    place = [1] * rank
    place[axis_in(axis, rank)] = -1
    mean, variance, offset, scale = (
        None if one is None else g.Reshape(as_value(g, one, x.dtype), place) for one in (mean, variance, offset, scale)
    )
    factor = g.Rsqrt(g.Add(variance, epsilon))
    factor = factor if scale is None else g.Mul(factor, scale)
    summand = g.Neg(g.Mul(mean, factor))
    summand = summand if offset is None else g.Add(offset, summand)
    made: Value = g.Add(g.Mul(x, factor), summand)
    return made


@operation("LayerNorm")
def layer_norm(
    g: Builder,
    x: Operand,
    gamma: Operand = None,
    beta: Operand = None,
    axis: Any = -1,
    epsilon: float | None = None,
    rms_scaling: bool = False,
) -> Value:
    x = as_value(g, x)
    wide = g.cast(x, result_type(x.dtype, "float32"))
    axes = sorted(axes_in(axis, ranked(x)))
    sizes = g.sizes(wide)
    place = [size if at in axes else 1 for at, size in enumerate(sizes)]
    gamma, beta = (None if one is None else g.reshape(as_value(g, one, wide.dtype), place) for one in (gamma, beta))
    factor = g.Rsqrt(g.Add(spread_of(g, wide, axes, True), EPSILON if epsilon is None else epsilon))
    if rms_scaling:
        y = g.Mul(wide, factor)
        return g.cast(y if gamma is None else g.Mul(y, gamma), x.dtype)
    factor = factor if gamma is None else g.Mul(factor, gamma)
    summand = g.Mul(g.Neg(reduced(g, "Mean", wide, axes, True)), factor)
    summand = summand if beta is None else g.Add(summand, beta)
    return g.cast(g.Add(g.Mul(wide, factor), summand), x.dtype)


@operation("RMSNorm")
def rms_norm(g: Builder, x: Operand, scale: Operand = None, axis: Any = -1, epsilon: float | None = None) -> Value:
    x = as_value(g, x)
    wide = g.cast(x, result_type(x.dtype, "float32"))
    square = reduced(g, "Mean", g.Square(wide), axes_in(axis, ranked(x)), True)
    y = g.Mul(wide, g.Rsqrt(g.Add(square, EPSILON if epsilon is None else epsilon)))
    return g.cast(y if scale is None else g.Mul(y, as_value(g, scale, y.dtype)), x.dtype)


@operation("Normalize")
def normalize(g: Builder, x: Operand, axis: Any = -1, order: int = 2, epsilon: float | None = None) -> Value:
    """Over the norm, which is taken for ``epsilon`` at least."""
    x = as_value(g, x)
    least = EPSILON if epsilon is None else epsilon
    if order == 2:
        factor = g.Rsqrt(reduced(g, "Sum", g.Square(x), axis, True))
        made: Value = g.Mul(x, factor if x.dtype == "float16" else g.Minimum(factor, 1.0 / least))
        return made
    length = norm(g, x, order, axis if axis is not None else -1, True)
    return g.RealDiv(x, g.Maximum(length, least))


@operation("DotProductAttention")
def attention(
    g: Builder,
    layer: Site,
    query: Operand,
    key: Operand,
    value: Operand,
    bias: Operand = None,
    mask: Operand = None,
    scale: Operand = None,
    is_causal: bool = False,
    flash_attention: Any = None,
    attn_logits_soft_cap: Any = None,
) -> Value:
    query, key, value = promoted(g, query, key, value)
    heads, groups = sizes_known(query)[2], sizes_known(key)[2]
    if heads and groups and 1 < groups < heads:
        key, value = (repeat(g, x, heads // groups, 2) for x in (key, value))
    mask = None if mask is None else as_value(g, mask, "bool")
    if is_causal:
        rows, columns = (g.Range(0, g.sizes(x)[1], 1) for x in (query, key))
        causal = g.GreaterEqual(g.ExpandDims(rows, 1), g.ExpandDims(columns, 0))
        mask = causal if mask is None else g.LogicalAnd(mask, causal)
    width = sizes_known(key)[-1]
    if scale is None and not width:
        raise ValueError("the size of the heads is not known")
    factor = float(width or 1) ** -0.5 if scale is None else scale
    bias = None if bias is None else as_value(g, bias)
    return dot_product_attention(g, layer, query, key, value, mask, factor, bias)


# -- losses ------------------------------------------------------------------------------------------------------------


def _shares(g: Builder, x: Value) -> Value:
    """Probabilities away from 0 and 1."""
    return clipped(g, x, EPSILON, 1.0 - EPSILON)


@operation("BinaryCrossentropy")
def binary_crossentropy(g: Builder, target: Operand, output: Operand, from_logits: bool = False) -> Value:
    output = as_value(g, output)
    target = as_value(g, target, output.dtype)
    if from_logits:
        most = g.Relu(output)
        made: Value = g.Add(g.Sub(most, g.Mul(output, target)), g.Log1p(g.Exp(g.Neg(g.Abs(output)))))
        return made
    shares = _shares(g, output)
    hit = g.Mul(target, g.Log(shares))
    return g.Neg(g.Add(hit, g.Mul(g.Sub(1.0, target), g.Log(g.Sub(1.0, shares)))))


@operation("CategoricalCrossentropy")
def categorical_crossentropy(
    g: Builder, target: Operand, output: Operand, from_logits: bool = False, axis: int = -1
) -> Value:
    output = as_value(g, output)
    target = as_value(g, target, output.dtype)
    if from_logits:
        logs = g.Sub(output, logsumexp(g, output, axis, True))
    else:
        logs = g.Log(_shares(g, g.RealDiv(output, reduced(g, "Sum", output, axis, True))))
    made: Value = g.Neg(reduced(g, "Sum", g.Mul(target, logs), axis))
    return made


@operation("SparseCategoricalCrossentropy")
def sparse_categorical_crossentropy(
    g: Builder, target: Operand, output: Operand, from_logits: bool = False, axis: int = -1
) -> Value:
    output = as_value(g, output)
    target = as_value(g, target, "int64")
    if target.rank == output.rank and (target.shape or (None,))[-1] == 1:
        target = g.Squeeze(target, squeeze_dims=[-1])
    classes = (output.shape or (None,))[-1]
    if not classes:
        raise ValueError("the number of classes is not known")
    logits = output if from_logits else g.Log(_shares(g, output))
    logs = g.Sub(logits, logsumexp(g, logits, -1, True))
    hot = one_hot(g, target, classes, dtype=output.dtype)
    made: Value = g.Neg(reduced(g, "Sum", g.Mul(hot, logs), -1))
    return made


@operation("PSNR")
def psnr(g: Builder, x1: Operand, x2: Operand, max_val: float) -> Value:
    x1, x2 = as_value(g, x1), as_value(g, x2)
    error = reduced(g, "Mean", g.Square(g.Sub(x1, x2)))
    tenth = 10 / float(np.log(10))
    made: Value = g.Sub(2 * tenth * float(np.log(max_val)), g.Mul(g.Log(error), tenth))
    return made
