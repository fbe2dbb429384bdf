"""Core layers: Dense and its relatives, and those that only act in training."""

from __future__ import annotations

from typing import Any

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.activation import activate
from modelio.lowering.arguments import number, rank_of
from modelio.lowering.einsum import einsum
from modelio.lowering.quantized import added_bias, is_quantized, merged, product
from modelio.lowering.rules import Site, identity, rule

__all__: list[str] = []


@rule("Dense")
def dense(g: Builder, layer: Site, x: Value) -> Value:
    """``activation(x . kernel + bias)`` over the last axis (keras/src/layers/core/dense.py, ``Dense.call``)."""
    rank_of(layer, x, least=2)
    if is_quantized(layer):
        y = product(g, layer, x, "...x,xy->...y")
        return activate(g, layer, added_bias(g, layer, y) if layer.config["use_bias"] else y)
    kernel = merged(g, layer)
    x = g.cast(x, kernel.dtype)  # whole numbers too: Keras 2 casts them, Keras 3 promotes them
    if rank_of(layer, x, least=2) == 2:
        y = g.MatMul(x, kernel)
    else:
        # MatMul knows matrices only; TensorFlow 1's own tensordot flattens in the same way.
        *outer, inner = g.sizes(x)
        assert kernel.shape is not None  # a weight's shape is known
        y = g.reshape(g.MatMul(g.Reshape(x, g.vector([-1, inner])), kernel), [*outer, kernel.shape[1] or 0])
    if layer.config["use_bias"]:
        y = g.BiasAdd(y, layer.weight("bias"))
    return activate(g, layer, y)


@rule("EinsumDense")
def einsum_dense(g: Builder, layer: Site, x: Value) -> Value:
    """``activation(einsum(equation, x, kernel) + bias)`` (keras/src/layers/core/einsum_dense.py)."""
    rank_of(layer, x)
    equation = layer.config.get("equation")
    if is_quantized(layer):
        y = product(g, layer, x, equation)
    else:
        kernel = merged(g, layer)
        y = einsum(g, equation, g.cast(x, kernel.dtype), kernel)
    return activate(g, layer, added_bias(g, layer, y) if layer.config["bias_axes"] else y)


@rule("MaxoutDense")
def maxout_dense(g: Builder, layer: Site, x: Value) -> Value:
    """The largest of several linear maps; the kernel is ``[map, feature, unit]`` (Keras 1.2.2 ``layers/core.py``)."""
    kernel = layer.weight("kernel")
    assert kernel.shape is not None  # a weight's shape is known
    maps, features, units = (size or 0 for size in kernel.shape)
    side_by_side = g.Reshape(g.Transpose(kernel, [1, 0, 2]), [features, maps * units])
    y = g.Reshape(g.MatMul(x, side_by_side), [-1, maps, units])
    if layer.config["use_bias"]:
        y = g.Add(y, layer.weight("bias"))
    return g.Max(y, [1])


@rule("Highway")
def highway(g: Builder, layer: Site, x: Value) -> Value:
    """A dense layer and its input, mixed by a gate that is learned (Keras 1.2.2 ``layers/core.py``)."""
    gate, y = g.MatMul(x, layer.weight("carry_kernel")), g.MatMul(x, layer.weight("kernel"))
    if layer.config["use_bias"]:
        gate, y = g.BiasAdd(gate, layer.weight("carry_bias")), g.BiasAdd(y, layer.weight("bias"))
    gate = g.Sigmoid(gate)
    return g.Add(g.Mul(activate(g, layer, y), gate), g.Mul(g.Sub(1.0, gate), x))


@rule("CustomScaleLayer")
def custom_scale(g: Builder, layer: Site, x: Any) -> Value:
    """The first input and a part of the second (keras/src/applications/inception_resnet_v2.py)."""
    if not isinstance(x, (list, tuple)) or len(x) != 2:
        raise ConversionError("CustomScaleLayer is not called on a list of two tensors")
    return g.Add(x[0], g.Mul(x[1], number(layer, "scale")))


@rule("LayerScale")
def layer_scale(g: Builder, layer: Site, x: Value) -> Value:
    """A factor for each channel (keras/src/applications/convnext.py, ``LayerScale.call``)."""
    return g.Mul(x, layer.weight("gamma"))


# Each returns its input: keras/src/layers/core/{input_layer,identity}.py, and, outside of training,
# keras/src/layers/regularization/*.py and keras/src/applications/convnext.py, ``call(..., training=False)``.
rule(
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "InputLayer",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "StochasticDepth",
)(identity)
