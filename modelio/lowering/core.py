"""Core layers: Dense, wrappers, and those that only act in training."""

from __future__ import annotations

from typing import Any

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.activation import activate
from modelio.lowering.arguments import rank_of, wrapped
from modelio.lowering.rules import Site, identity, rule

__all__: list[str] = []


@rule("Dense")
def dense(g: Builder, layer: Site, x: Value) -> Value:
    """``activation(x . kernel + bias)`` over the last axis (keras/src/layers/core/dense.py, ``Dense.call``)."""
    kernel = layer.weight("kernel")
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


@rule("TimeDistributed")
def time_distributed(g: Builder, layer: Site, x: Any) -> Value:
    """The wrapped layer or model on every step: time is folded into the batch, and unfolded again.

    Keras 2 folds alike where the batch size is open and runs a loop where it is not, Keras 3 maps over the steps; the
    layer sees the same steps either way (tf_keras and keras/src/layers/rnn/time_distributed.py).
    """
    many = isinstance(x, (list, tuple))
    inputs: list[Value] = list(x) if many else [x]
    for value in inputs:
        rank_of(layer, value, least=2)
    folded = [g.Reshape(value, g.vector([-1, *g.sizes(value)[2:]])) for value in inputs]
    y = layer.lower(wrapped(layer), folded if many else folded[0])
    if not isinstance(y, Value):
        raise ConversionError("TimeDistributed wraps a model with several outputs, which no Keras can compute")
    rank_of(layer, y, least=1)
    return g.reshape(y, [*g.sizes(inputs[0])[:2], *g.sizes(y)[1:]])


# Each returns its input: keras/src/layers/core/{input_layer,identity}.py, and, outside of training,
# keras/src/layers/regularization/*.py, ``call(..., training=False)``.
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
)(identity)
