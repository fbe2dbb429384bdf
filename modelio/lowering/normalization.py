"""Normalization layers.

Half-precision inputs are normalized in float32, as Keras does it: a variance has no room in float16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Shape, Value
from modelio.lowering.arguments import axes_of, axis_of, number, rank_of, wrapped
from modelio.lowering.rules import Output, Site, rule

__all__ = ["unit_length"]

CUDNN_EPSILON = 1.001e-5
"""The least epsilon that ``tf.nn.fused_batch_norm`` passed on, on every device, as long as cuDNN took no smaller one:
tensorflow/python/ops/nn_impl.py of TensorFlow 1.15 to 2.11."""


@rule("BatchNormalization")
def batch_normalization(g: Builder, layer: Site, x: Value) -> Value:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` for every place along ``axis``.

    Mean and variance are the moving averages (keras/src/layers/normalization/batch_normalization.py, ``call``), but for
    two modes of Keras 1 (1.2.2 ``layers/normalization.py``): 1 takes each sample's own, 2 the batch's own.
    """
    rank = rank_of(layer, x, least=2)
    axes = axes_of(layer, layer.config["axis"], rank)
    mode = layer.config.get("mode", 0)
    if mode not in (0, 1, 2):
        raise ConversionError(f"BatchNormalization has no mode {mode!r}")
    wide = _widened(g, x)
    if mode == 0:
        y = _of_all_batches(g, layer, wide, rank, axes)
    elif mode == 1:
        y = _of_each_sample(g, layer, wide, rank)
    else:
        mean, variance = _moments(g, wide, [axis for axis in range(rank) if axis not in axes])
        place = _place(layer.weight("gamma", wide.dtype), rank, axes)
        y = _normalized(g, layer, wide, mean, variance, number(layer, "epsilon"), place)
    return g.cast(y, layer.layer.dtype)


def _of_all_batches(g: Builder, layer: Site, x: Value, rank: int, axes: tuple[int, ...]) -> Value:
    mean = layer.weight("moving_mean", x.dtype)
    variance = layer.weight("moving_variance", x.dtype)
    epsilon = number(layer, "epsilon")
    if rank == 4 and len(axes) == 1 and (2, 2) <= layer.version < (2, 12) and not layer.config.get("renorm"):
        epsilon = max(epsilon, CUDNN_EPSILON)
    # The fused op reads its input once. It takes float32, images with channels last, a mean for each channel, and, on
    # a GPU, no smaller epsilon.
    if rank == 4 and axes == (3,) and x.dtype == "float32" and mean.rank == 1 and epsilon >= CUDNN_EPSILON:
        scale = layer.weight("gamma", x.dtype) if layer.config["scale"] else g.OnesLike(mean)
        offset = layer.weight("beta", x.dtype) if layer.config["center"] else g.ZerosLike(mean)
        outputs = g.node("FusedBatchNorm", x, scale, offset, mean, variance, epsilon=epsilon, is_training=False)
        y: Value = outputs[0]
        return y
    place = _place(mean, rank, axes)
    return _normalized(g, layer, x, _lay(g, mean, place), _lay(g, variance, place), epsilon, place)


def _of_each_sample(g: Builder, layer: Site, x: Value, rank: int) -> Value:
    """Keras 1's ``mode=1``, which adds epsilon to the variance and again to the deviation."""
    epsilon = number(layer, "epsilon")
    mean, variance = _moments(g, x, [rank - 1])
    y = g.RealDiv(g.Sub(x, mean), g.Add(g.Sqrt(g.Add(variance, epsilon)), epsilon))
    return g.Add(g.Mul(y, layer.weight("gamma", x.dtype)), layer.weight("beta", x.dtype))


def _place(weight: Value, rank: int, axes: tuple[int, ...]) -> Shape:
    """The shape in which a weight lies along its axes.

    A weight for several axes has that shape from the start, and one of tf.keras with ``virtual_batch_size`` has an axis
    for the virtual batches in front of it (tf_keras/src/layers/normalization/batch_normalization.py, ``build``).
    """
    if len(axes) > 1:
        return weight.shape[-rank:] if weight.shape else ()
    size = math.prod(size or 0 for size in weight.shape or ())
    return tuple(size if axis == axes[0] else 1 for axis in range(rank))


@rule("LayerNormalization")
def layer_normalization(g: Builder, layer: Site, x: Value) -> Value:
    """Each sample's own mean and variance over ``axis`` (keras/src/ops/nn.py, ``_layer_normalization``).

    ``rms_scaling`` (Keras 3) leaves out the mean and beta, though not the mean inside of the variance.
    """
    rank = rank_of(layer, x, least=1)
    axis = layer.config["axis"]
    if layer.dialect == "keras3" and isinstance(axis, (list, tuple)):
        axis = sorted(axis)  # the order of the weights' axes; Keras 2 keeps the one given
    axes = axes_of(layer, axis, rank)
    wide = _widened(g, x)
    mean, variance = _moments(g, wide, sorted(axes))
    weight = next((layer.weight(role) for role in ("gamma", "beta") if layer.has(role)), None)
    sizes = dict(zip(axes, weight.shape or (), strict=True)) if weight else {}
    place = tuple(sizes.get(axis, 1) for axis in range(rank))
    if layer.config.get("rms_scaling"):
        y = g.Mul(wide, g.Rsqrt(g.Add(variance, number(layer, "epsilon"))))
        y = g.Mul(y, _lay(g, layer.weight("gamma", wide.dtype), place))
    else:
        y = _normalized(g, layer, wide, mean, variance, number(layer, "epsilon"), place)
    return g.cast(y, layer.layer.dtype)


@rule("GroupNormalization")
def group_normalization(g: Builder, layer: Site, x: Value) -> Value:
    """Each sample's own mean and variance over groups of channels (normalization/group_normalization.py).

    ``groups=-1`` makes every channel a group of its own.
    """
    rank = rank_of(layer, x, least=2)
    axis = axis_of(layer, layer.config["axis"], rank)
    sizes = g.sizes(x)
    channels, groups = sizes[axis], layer.config["groups"]
    if not isinstance(channels, int):
        raise ConversionError("GroupNormalization needs to know how many channels its input has")
    groups = channels if groups == -1 else groups
    if not isinstance(groups, int) or groups < 1 or channels % groups:
        raise ConversionError(f"{channels} channels do not make {groups!r} groups of one size")
    wide = _widened(g, x)
    grouped = g.reshape(wide, [*sizes[:axis], groups, channels // groups, *sizes[axis + 1 :]])
    mean, variance = _moments(g, grouped, [at for at in range(1, rank + 1) if at != axis])
    place = (1,) * axis + (groups, channels // groups) + (1,) * (rank - axis - 1)
    y = _normalized(g, layer, grouped, mean, variance, number(layer, "epsilon"), place)
    return g.cast(g.reshape(y, sizes), layer.layer.dtype)


@rule("RMSNormalization")
def rms_normalization(g: Builder, layer: Site, x: Value) -> Value:
    """``x / sqrt(mean(x ** 2) + epsilon) * scale`` (keras/src/ops/nn.py, ``_rms_normalization``).

    Keras lays the scale along the last axes, whatever ``axis`` says.
    """
    axes = axes_of(layer, layer.config["axis"], rank_of(layer, x, least=1))
    wide = _widened(g, x)
    mean = g.Mean(g.Square(wide), sorted(axes), keep_dims=True)
    y = g.Mul(wide, g.Rsqrt(g.Add(mean, number(layer, "epsilon"))))
    return g.cast(g.Mul(y, layer.weight("scale", wide.dtype)), x.dtype)


@rule("UnitNormalization")
def unit_normalization(g: Builder, layer: Site, x: Value) -> Value:
    """``x`` over its length along ``axis``; nothing stays nothing (normalization/unit_normalization.py)."""
    axes = axes_of(layer, layer.config["axis"], rank_of(layer, x, least=1))
    return unit_length(g, layer, g.cast(x, layer.layer.dtype), axes)


def unit_length(g: Builder, layer: Site, x: Value, axes: Sequence[int], least: float = 1e-12) -> Value:
    """``x`` over its length along ``axes``.

    Keras 3 takes no length for smaller than ``least`` (keras/src/ops/nn.py, ``_normalize``), Keras 2 no squared length
    for smaller than 1e-12 (tensorflow/python/ops/nn_impl.py, ``l2_normalize``).
    """
    square = g.Sum(g.Square(x), list(axes), keep_dims=True)
    if layer.dialect != "keras3":
        return g.Mul(x, g.Rsqrt(g.Maximum(square, 1e-12)))
    factor = g.Rsqrt(square)
    # 1 over the least length is infinite in float16, where every factor is below it.
    return g.Mul(x, factor if x.dtype == "float16" else g.Minimum(factor, 1 / least))


@rule("SpectralNormalization")
def spectral_normalization(g: Builder, layer: Site, x: Value) -> Output:
    """The wrapped layer: its kernel is normalized in training alone (normalization/spectral_normalization.py).

    Keras 3 casts what comes out to the dtype of what went in, whole numbers too; tf_keras does not.
    """
    y = layer.lower(wrapped(layer), x)
    return g.cast(y, x.dtype) if layer.dialect == "keras3" and isinstance(y, Value) else y


# -- what they share ---------------------------------------------------------------------------------------------------


def _widened(g: Builder, x: Value) -> Value:
    """``x`` in float32, unless it is wider."""
    return x if x.dtype == "float64" else g.cast(x, "float32")


def _moments(g: Builder, x: Value, axes: Sequence[int]) -> tuple[Value, Value]:
    """Mean and variance over ``axes``, which keep their place with size 1 (nn_impl.py, ``moments``)."""
    mean = g.Mean(x, list(axes), keep_dims=True)
    return mean, g.Mean(g.SquaredDifference(x, mean), list(axes), keep_dims=True)


def _normalized(g: Builder, layer: Site, x: Value, mean: Value, variance: Value, epsilon: float, place: Shape) -> Value:
    """``(x - mean) / sqrt(variance + epsilon)``, times gamma, plus beta, where the layer has them.

    In the order of ``tf.nn.batch_normalization``: what does not depend on ``x`` is one factor and one summand.
    """
    factor = g.Rsqrt(g.Add(variance, epsilon))
    if layer.config["scale"]:
        factor = g.Mul(factor, _lay(g, layer.weight("gamma", x.dtype), place))
    summand = g.Mul(g.Neg(mean), factor)
    if layer.config["center"]:
        summand = g.Add(summand, _lay(g, layer.weight("beta", x.dtype), place))
    return g.Add(g.Mul(x, factor), summand)


def _lay(g: Builder, weight: Value, place: Shape) -> Value:
    """A weight in that shape; as it is where broadcasting puts it there anyway."""
    assert place is not None
    assert weight.shape is not None  # a weight's shape is known
    if (1,) * (len(place) - len(weight.shape)) + weight.shape == place:
        return weight
    return g.Reshape(weight, list(place))
