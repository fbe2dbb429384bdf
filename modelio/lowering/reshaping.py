"""Layers that only move, repeat, cut off or add elements; and those that resize and rescale pictures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.arguments import LARGEST, rank_of, whole, wholes
from modelio.lowering.rules import Rule, Site, rule
from modelio.lowering.spatial import Size, channels_first, linear

__all__: list[str] = []


@rule("Flatten")
def flatten(g: Builder, layer: Site, x: Value) -> Value:
    """All axes but the first as one; channels first go to the end before (keras/src/layers/reshaping/flatten.py)."""
    first = channels_first(layer)
    if x.rank is None and not first:
        return g.Reshape(x, g.ConcatV2([g.StridedSlice(g.Shape(x), [0], [1], [1]), [-1]], 0))
    rank = rank_of(layer, x, least=1)
    if rank == 1:
        return g.ExpandDims(x, 1)
    if first:
        x = g.Transpose(x, [0, *range(2, rank), 1])
    if x.shape is not None and None not in x.shape[1:]:
        return g.Reshape(x, [-1, math.prod(size or 0 for size in x.shape[1:])])
    return g.reshape(x, [g.sizes(x)[0], -1])


@rule("Reshape")
def reshape(g: Builder, layer: Site, x: Value) -> Value:
    """Each sample in another shape, in which one size may be left open (keras/src/layers/reshaping/reshape.py)."""
    target = _target_shape(layer)
    rank_of(layer, x, least=1)
    assert x.shape is not None
    if -1 in target and None not in x.shape[1:]:
        # What the file leaves open is known here, so that the graph may leave the batch open.
        known = math.prod(size for size in target if size != -1)
        total = math.prod(size or 0 for size in x.shape[1:])
        if not known or total % known:
            raise ConversionError(f"the input {x.shape[1:]} does not go into target_shape {tuple(target)}")
        target[target.index(-1)] = total // known
    return g.reshape(x, [g.sizes(x)[0], *target])


def _target_shape(layer: Site) -> list[int]:
    given = layer.config.get("target_shape")
    sizes = [-1 if size is None else size for size in given] if isinstance(given, (list, tuple)) else [-2]
    if any(not isinstance(size, int) or not -1 <= size < LARGEST for size in sizes) or sizes.count(-1) > 1:
        raise ConversionError(f"target_shape is {given!r}, which is no shape")
    return sizes


@rule("Permute")
def permute(g: Builder, layer: Site, x: Value) -> Value:
    """Axes in another order; ``dims`` counts from 1, behind the batch (keras/src/layers/reshaping/permute.py)."""
    order = wholes(layer, "dims")
    if sorted(order) != list(range(1, len(order) + 1)):
        raise ConversionError(f"dims is {list(order)}, which is no order of the axes 1 to {len(order)}")
    rank_of(layer, x, len(order) + 1, len(order) + 1)
    return g.Transpose(x, [0, *order])


@rule("RepeatVector")
def repeat_vector(g: Builder, layer: Site, x: Value) -> Value:
    """keras/src/layers/reshaping/repeat_vector.py."""
    rank_of(layer, x, 2, 2)
    return g.Tile(g.ExpandDims(x, 1), [1, whole(layer, "n"), 1])


# -- margins -----------------------------------------------------------------------------------------------------------


def _axes_of_space(layer: Site, rank: int) -> list[int]:
    return list(range(2, rank + 2)) if channels_first(layer) else list(range(1, rank + 1))


def _margins(layer: Site, name: str, rank: int) -> list[tuple[int, int]]:
    """A pair (before, after) for each axis of space."""
    given = layer.config.get(name)
    pairs = list(given) if isinstance(given, (list, tuple)) else []
    if len(pairs) != rank or not all(_is_pair(pair) for pair in pairs):
        raise ConversionError(f"{name} is {given!r}, and has to be {rank} pairs of whole numbers")
    return [(before, after) for before, after in pairs]


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(size, int) and 0 <= size < LARGEST for size in value)
    )


def _zero_padding(rank: int) -> Rule:
    def pad(g: Builder, layer: Site, x: Value) -> Value:
        """Zeros around (keras/src/layers/reshaping/zero_padding*.py)."""
        rank_of(layer, x, rank + 2, rank + 2)
        amounts = [[0, 0] for _ in range(rank + 2)]
        for axis, pair in zip(_axes_of_space(layer, rank), _margins(layer, "padding", rank), strict=True):
            amounts[axis] = list(pair)
        return g.Pad(x, amounts)

    return pad


def _cropping(rank: int) -> Rule:
    def crop(g: Builder, layer: Site, x: Value) -> Value:
        """Without its margins (keras/src/layers/reshaping/cropping*.py)."""
        rank_of(layer, x, rank + 2, rank + 2)
        begin, end, open_end = [0] * (rank + 2), [0] * (rank + 2), (1 << rank + 2) - 1
        for axis, (before, after) in zip(_axes_of_space(layer, rank), _margins(layer, "cropping", rank), strict=True):
            begin[axis] = before
            if after:
                end[axis] = -after
                open_end -= 1 << axis
        return g.StridedSlice(x, begin, end, [1] * (rank + 2), end_mask=open_end)

    return crop


for _rank in (1, 2, 3):
    rule(f"ZeroPadding{_rank}D")(_zero_padding(_rank))
    rule(f"Cropping{_rank}D")(_cropping(_rank))


# -- upsampling --------------------------------------------------------------------------------------------------------


@rule("UpSampling1D", "UpSampling3D")
def upsampling(g: Builder, layer: Site, x: Value) -> Value:
    """Every step so many times (keras/src/layers/reshaping/up_sampling1d.py, up_sampling3d.py)."""
    rank = rank_of(layer, x, 3, 5) - 2
    for axis, times in zip(_axes_of_space(layer, rank), wholes(layer, "size", rank), strict=True):
        x = _repeated(g, x, axis, times)
    return x


def _repeated(g: Builder, x: Value, axis: int, times: int) -> Value:
    if times == 1:
        return x
    sizes = g.sizes(x)
    sizes[axis] = linear(g, sizes[axis], times, 0)
    multiples = [1] * (len(sizes) + 1)
    multiples[axis + 1] = times
    return g.reshape(g.Tile(g.ExpandDims(x, axis + 1), multiples), sizes)


@rule("UpSampling2D")
def upsampling_2d(g: Builder, layer: Site, x: Value) -> Value:
    """Larger pictures, by a whole factor in each direction (keras/src/layers/reshaping/up_sampling2d.py).

    What lies between pixels is repeated (``nearest``) or interpolated (:func:`resized`).
    """
    rank_of(layer, x, 4, 4)
    times = wholes(layer, "size", 2)
    interpolation = layer.config["interpolation"]
    if interpolation == "nearest" and (x.dtype not in _RESIZABLE or max(times) > _EXACT):
        for axis, factor in zip(_axes_of_space(layer, 2), times, strict=True):
            x = _repeated(g, x, axis, factor)
        return x
    first = channels_first(layer)
    if first:
        x = g.Transpose(x, [0, 2, 3, 1])
    sizes = [linear(g, size, factor, 0) for size, factor in zip(g.sizes(x)[1:3], times, strict=True)]
    if interpolation == "nearest":  # corners or centers are the same to whole factors, and centers came with 1.14
        x = g.ResizeNearestNeighbor(x, g.vector(sizes))
    else:
        x = resized(g, layer, x, sizes, interpolation)
    return g.Transpose(x, [0, 3, 1, 2]) if first else x


_RESIZABLE = ("float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64")
"""What ResizeNearestNeighbor takes on a CPU."""

_EXACT = 32
"""Factors up to which ResizeNearestNeighbor, which counts pixels in float32, never takes a neighbour: 41 is the first
that does."""


# -- resizing ----------------------------------------------------------------------------------------------------------

_OPS = {"nearest": "ResizeNearestNeighbor", "bilinear": "ResizeBilinear", "bicubic": "ResizeBicubic"}

_KERNELS = ("lanczos3", "lanczos5", "gaussian", "mitchellcubic")
"""Interpolations that ScaleAndTranslate knows by the same name."""


_SMOOTH = {"bilinear": "triangle", "bicubic": "keyscubic"}
"""The kernels that ScaleAndTranslate has in place of the ops above where it is to smooth what it makes smaller."""


def resized(g: Builder, layer: Site, x: Value, sizes: list[Size], interpolation: Any) -> Value:
    """As :func:`interpolated`; Keras 3 gives the dtype back that all but ``nearest`` make float32 of."""
    y = interpolated(g, layer, x, sizes, interpolation)
    return g.cast(y, x.dtype) if layer.dialect == "keras3" else y


def interpolated(
    g: Builder, layer: Site, x: Value, sizes: list[Size], interpolation: Any, antialias: bool = False
) -> Value:
    """Pictures, channels last, in another size, as the Keras that wrote the layer resizes them; mostly as float32.

    tf.keras and Keras 3 call ``tf.image.resize`` (tensorflow/python/ops/image_ops_impl.py, ``resize_images_v2``), for
    which a pixel is where its center is. Keras beside TensorFlow called the ops themselves, for which it is where its
    corner is (2.3.1 ``backend/tensorflow_backend.py``, ``resize_images``).
    """
    centered = layer.dialect == "keras3" or layer.layer.family == "tf.keras"
    size = g.vector(sizes)
    if interpolation == "area":
        return g.ResizeArea(x, size)
    smooth = antialias and interpolation in _SMOOTH
    if isinstance(interpolation, str) and interpolation in _OPS and not smooth:
        made: Value = g.node(_OPS[interpolation], x, size, half_pixel_centers=centered)
        return made
    if not smooth and interpolation not in _KERNELS:
        raise ConversionError(f"interpolation is {interpolation!r}, which {layer.layer.source_class} does not know")
    scale = g.RealDiv(g.cast(size, "float32"), g.cast(g.vector(g.sizes(x)[1:3]), "float32"))
    kernel = _SMOOTH.get(interpolation, interpolation)
    return g.ScaleAndTranslate(x, size, scale, [0.0, 0.0], kernel_type=kernel, antialias=antialias)


@rule("Rescaling")
def rescaling(g: Builder, layer: Site, x: Value) -> Value:
    """``x * scale + offset``; both may be lists, one number a channel (keras/src/layers/preprocessing/rescaling.py)."""
    x = g.cast(x, layer.layer.dtype)
    return g.Add(g.Mul(x, _numbers(layer, "scale", 1.0)), _numbers(layer, "offset", 0.0))


def _numbers(layer: Site, name: str, default: float) -> Any:
    given = layer.config.get(name, default)
    try:
        array = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        array = np.asarray(np.nan)
    if not np.isfinite(array).all():
        raise ConversionError(f"{name} is {given!r}, and has to be a number or a list of numbers")
    with np.errstate(over="ignore"):
        # tf.cast makes a float32 of a number before it makes anything else of it.
        return array.astype(np.float32).tolist()
