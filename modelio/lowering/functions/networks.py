"""Functions of TensorFlow that multiply, convolve, pool and resize (:mod:`~modelio.lowering.functions`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelio.graph.builder import Builder, Value
from modelio.lowering.arithmetic import Operand, as_value
from modelio.lowering.functions import Function, alike, function, listed
from modelio.lowering.operations import arranging, neural, pictures, products, ranked
from modelio.lowering.reshaping import resized
from modelio.lowering.rules import Site

__all__: list[str] = []


# -- products ----------------------------------------------------------------------------------------------------------


@function("linalg.matmul", "matmul", "keras.backend.dot")
def matmul(
    g: Builder,
    a: Operand,
    b: Operand,
    transpose_a: bool = False,
    transpose_b: bool = False,
    adjoint_a: bool = False,
    adjoint_b: bool = False,
    a_is_sparse: bool = False,
    b_is_sparse: bool = False,
    output_type: str | None = None,
    grad_a: bool = False,
    grad_b: bool = False,
) -> Value:
    a, b = alike(g, a, b)
    if transpose_a or adjoint_a:
        a = arranging.swapaxes(g, a, -1, -2)
    if transpose_b or adjoint_b:
        b = arranging.swapaxes(g, b, -1, -2)
    return products.matmul(g, a, b)


@function("tensordot")
def tensordot(g: Builder, a: Operand, b: Operand, axes: Any) -> Value:
    first, second = alike(g, a, b)
    return products.tensordot(g, first, second, listed(axes))


@function("linalg.matvec")
def matvec(g: Builder, a: Operand, b: Operand, transpose_a: bool = False) -> Value:
    a, b = alike(g, a, b)
    a = arranging.swapaxes(g, a, -1, -2) if transpose_a else a
    made: Value = g.Squeeze(products.matmul(g, a, g.ExpandDims(b, -1)), squeeze_dims=[ranked(a) - 1])
    return made


@function("linalg.band_part")
def band_part(g: Builder, input: Operand, num_lower: int, num_upper: int) -> Value:
    made: Value = g.MatrixBandPart(as_value(g, input), g.constant(num_lower, "int64"), g.constant(num_upper, "int64"))
    return made


@function("math.add_n", "add_n")
def add_n(g: Builder, inputs: Sequence[Operand]) -> Value:
    made: Value = g.AddN(alike(g, *inputs))
    return made


@function("einsum", "linalg.einsum")
def einsum_of(g: Builder, *operands: Operand, **given: Any) -> Value:
    raise ValueError("tf.keras writes the equation alone and forgets the operands")


# -- networks ----------------------------------------------------------------------------------------------------------


@function("nn.bias_add")
def bias_add(g: Builder, value: Operand, bias: Operand, data_format: str | None = None) -> Value:
    x = as_value(g, value)
    bias = as_value(g, bias, x.dtype)
    if data_format and data_format.startswith("NC"):
        return g.Add(x, g.Reshape(bias, [-1, *(1,) * (ranked(x) - 2)]))
    made: Value = g.BiasAdd(x, bias)
    return made


@function("nn.batch_normalization")
def batch_normalization(
    g: Builder, x: Operand, mean: Operand, variance: Operand, offset: Operand, scale: Operand, variance_epsilon: float
) -> Value:
    x = as_value(g, x)
    mean, variance = as_value(g, mean, x.dtype), as_value(g, variance, x.dtype)
    factor = g.Rsqrt(g.Add(variance, variance_epsilon))
    factor = factor if scale is None else g.Mul(factor, as_value(g, scale, x.dtype))
    summand = g.Neg(g.Mul(mean, factor))
    summand = summand if offset is None else g.Add(as_value(g, offset, x.dtype), summand)
    made: Value = g.Add(g.Mul(x, factor), summand)
    return made


def _inner(sizes: Any, count: int) -> Any:
    """Strides and windows without batch and channels: TensorFlow takes one number, one an axis, or all four."""
    sizes = list(sizes) if isinstance(sizes, (list, tuple)) else sizes
    if isinstance(sizes, list):
        return tuple(sizes[1 : 1 + count] if len(sizes) == count + 2 else sizes * (count if len(sizes) == 1 else 1))
    return sizes


def _last(data_format: Any) -> str:
    if isinstance(data_format, str) and data_format.startswith("NC"):
        return "channels_first"
    return "channels_last"


@function("nn.conv1d", "nn.conv2d", "nn.conv3d", "nn.convolution")
def convolution(
    g: Builder,
    layer: Site,
    input: Operand = None,
    filters: Operand = None,
    strides: Any = None,
    padding: str = "VALID",
    data_format: Any = None,
    dilations: Any = None,
    *,
    value: Operand = None,
    filter: Operand = None,
    stride: Any = None,
) -> Value:
    x = as_value(g, input if value is None else value)
    kernel = as_value(g, filters if filter is None else filter, x.dtype)
    rank = ranked(kernel) - 2
    steps = _inner(stride if strides is None else strides, rank)
    made = neural.conv(
        g, layer, x, kernel, steps or 1, padding.lower(), _last(data_format), _inner(dilations, rank) or 1
    )
    assert isinstance(made, Value)
    return made


@function("nn.depthwise_conv2d")
def depthwise_conv2d(
    g: Builder,
    layer: Site,
    input: Operand,
    filter: Operand,
    strides: Any,
    padding: str,
    data_format: Any = None,
    dilations: Any = None,
) -> Value:
    x = as_value(g, input)
    made = neural.depthwise_conv(
        *(g, layer, x, as_value(g, filter, x.dtype)),
        *(_inner(strides, 2), padding.lower(), _last(data_format), _inner(dilations, 2) or 1),
    )
    assert isinstance(made, Value)
    return made


def _pooling(kind: str, rank: int) -> Function:
    def compute(
        g: Builder,
        layer: Site,
        input: Operand = None,
        ksize: Any = None,
        strides: Any = None,
        padding: str = "VALID",
        data_format: Any = None,
        *,
        value: Operand = None,
    ) -> Value:
        x = as_value(g, input if value is None else value)
        count = rank or ranked(x) - 2
        config = {
            "pool_size": _inner(ksize, count),
            "strides": _inner(strides, count),
            "padding": padding.lower(),
            "data_format": _last(data_format),
        }
        return neural.as_layer(g, layer, f"{kind}Pooling{count}D", x, config)

    return compute


for _kind, _name in (("Max", "max_pool"), ("Average", "avg_pool")):
    function(f"nn.{_name}")(_pooling(_kind, 0))
    for _rank in (1, 2, 3):
        function(f"nn.{_name}{_rank}d")(_pooling(_kind, _rank))


@function("nn.depth_to_space")
def depth_to_space(g: Builder, input: Operand, block_size: int, data_format: str = "NHWC") -> Value:
    return pictures.depth_to_space(g, input, block_size, _last(data_format))


@function("nn.space_to_depth")
def space_to_depth(g: Builder, input: Operand, block_size: int, data_format: str = "NHWC") -> Value:
    return pictures.space_to_depth(g, input, block_size, _last(data_format))


@function("image.resize")
def resize(
    g: Builder,
    layer: Site,
    images: Operand,
    size: Any,
    method: str = "bilinear",
    preserve_aspect_ratio: bool = False,
    antialias: bool = False,
) -> Value:
    if preserve_aspect_ratio or antialias:
        raise ValueError("preserve_aspect_ratio and antialias")
    x = as_value(g, images)
    alone = ranked(x) == 3
    x = g.ExpandDims(x, 0) if alone else x
    sizes = [g.cast(one, "int32") if isinstance(one, Value) else int(one) for one in size]
    y = resized(g, layer, x, sizes, method)
    return g.Squeeze(y, squeeze_dims=[0]) if alone else y


@function("keras.backend.batch_flatten")
def batch_flatten(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    return g.reshape(x, [-1, arranging.whole_of(g, g.sizes(x)[1:])])
