"""Operations on pictures: ``keras.ops.image``, and those of ``keras.ops.nn`` that move pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelio.graph.builder import Builder, Value
from modelio.lowering.arithmetic import Operand, as_value, is_floating
from modelio.lowering.operations import operation, ranked
from modelio.lowering.operations.arranging import between
from modelio.lowering.operations.elementwise import floating
from modelio.lowering.operations.reductions import reduced
from modelio.lowering.reshaping import resized
from modelio.lowering.rules import Site

__all__ = ["depth_to_space", "space_to_depth"]


# -- pictures ----------------------------------------------------------------------------------------------------------


def _last(g: Builder, x: Value, data_format: str | None) -> tuple[Value, list[int] | None]:
    """Pictures with channels last, and the order that puts them back."""
    if data_format != "channels_first":
        return x, None
    rank = ranked(x)
    order = [*range(rank - 3), rank - 2, rank - 1, rank - 3]
    return g.Transpose(x, order), [order.index(axis) for axis in range(rank)]


def _back(g: Builder, x: Value, order: list[int] | None) -> Value:
    return x if order is None else g.Transpose(x, order)


@operation("DepthToSpace")
def depth_to_space(g: Builder, x: Operand, block_size: int, data_format: str = "channels_last") -> Value:
    x, order = _last(g, as_value(g, x), data_format)
    return _back(g, _ranked_as(g.DepthToSpace(x, block_size=int(block_size)), x), order)


@operation("SpaceToDepth")
def space_to_depth(g: Builder, x: Operand, block_size: int, data_format: str = "channels_last") -> Value:
    x, order = _last(g, as_value(g, x), data_format)
    return _back(g, _ranked_as(g.SpaceToDepth(x, block_size=int(block_size)), x), order)


def _ranked_as(x: Value, like: Value) -> Value:
    return x if x.shape is not None else Value(x.name, x.dtype, (None,) * ranked(like))


@operation("Unfold")
def unfold(g: Builder, x: Operand, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Value:
    """Every window as a column, channels first (nn.py, ``unfold``)."""
    x = as_value(g, x)
    window, rates, pads, steps = (
        (one, one) if isinstance(one, int) else one for one in (kernel_size, dilation, padding, stride)
    )
    if any(pads):
        x = g.Pad(x, [[0, 0], [0, 0], [pads[0], pads[0]], [pads[1], pads[1]]])
    patches = g.ExtractImagePatches(
        g.Transpose(x, [0, 2, 3, 1]),
        ksizes=(1, *window, 1),
        strides=(1, *steps, 1),
        rates=(1, *rates, 1),
        padding="VALID",
    )
    batch, rows, columns, _ = g.sizes(patches)
    channels = g.sizes(x)[1]
    apart = g.reshape(patches, [batch, rows, columns, *window, channels])
    turned = g.Transpose(apart, [0, 5, 3, 4, 1, 2])
    depth = channels * window[0] * window[1] if isinstance(channels, int) else g.Mul(channels, window[0] * window[1])
    count = rows * columns if isinstance(rows, int) and isinstance(columns, int) else g.Mul(rows, columns)
    return g.reshape(turned, [batch, depth, count])


@operation("RGBToGrayscale")
def rgb_to_grayscale(g: Builder, images: Operand, data_format: str | None = None) -> Value:
    x = as_value(g, images)
    at = ranked(x) - (3 if data_format == "channels_first" else 1)
    if (x.shape or ())[at] == 1:
        return x
    wide = floating(g, x)
    place = [1] * ranked(x)
    place[at] = 3
    weights = g.Reshape(g.constant([0.2989, 0.5870, 0.1140], wide.dtype), place)
    return g.cast(reduced(g, "Sum", g.Mul(wide, weights), at, True), x.dtype)


def _colors(op: str) -> Any:
    def convert(g: Builder, images: Operand, data_format: str | None = None) -> Value:
        x, order = _last(g, as_value(g, images), data_format)
        wide = g.cast(x, "float32") if x.dtype in ("float16", "bfloat16") else x
        made = g.node(op, wide)
        return _back(g, g.cast(Value(made.name, made.dtype, x.shape), x.dtype), order)

    return convert


operation("RGBToHSV")(_colors("RGBToHSV"))
operation("HSVToRGB")(_colors("HSVToRGB"))


@operation("Resize")
def resize(
    g: Builder,
    layer: Site,
    images: Operand,
    size: Any,
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Value:
    if antialias or crop_to_aspect_ratio or pad_to_aspect_ratio:
        raise ValueError("antialias, cropping and padding to an aspect ratio have no rule; the layer Resizing has")
    x, order = _last(g, as_value(g, images), data_format)
    alone = ranked(x) == 3
    x = g.ExpandDims(x, 0) if alone else x
    given = x.dtype
    y = resized(g, layer, x, [int(one) for one in size], interpolation)
    y = y if interpolation == "nearest" or is_floating(given) else g.cast(y, "float32")
    return _back(g, g.Squeeze(y, squeeze_dims=[0]) if alone else y, order)


def _margins(size: Any, before: int | None, after: int | None, target: int | None, sign: int) -> tuple[int, int]:
    """What is added (``sign`` 1) or taken away (-1) on both sides of an axis, where one of three may be left out."""
    if before is None or after is None:
        if not isinstance(size, int) or target is None:
            raise ValueError("the picture's size is not known")
        rest = (target - size) * sign
        before = rest - (after or 0) if before is None else before
        after = rest - before if after is None else after
    return before, after


@operation("PadImages")
def pad_images(
    g: Builder,
    images: Operand,
    top_padding: int | None = None,
    left_padding: int | None = None,
    bottom_padding: int | None = None,
    right_padding: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Value:
    x = as_value(g, images)
    rank = ranked(x)
    row = rank - (2 if data_format == "channels_first" else 3)
    sizes = g.sizes(x)
    pads = [(0, 0)] * rank
    pads[row] = _margins(sizes[row], top_padding, bottom_padding, target_height, 1)
    pads[row + 1] = _margins(sizes[row + 1], left_padding, right_padding, target_width, 1)
    made: Value = g.Pad(x, [list(pair) for pair in pads])
    return made


@operation("CropImages")
def crop_images(
    g: Builder,
    images: Operand,
    top_cropping: int | None = None,
    left_cropping: int | None = None,
    bottom_cropping: int | None = None,
    right_cropping: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Value:
    x = as_value(g, images)
    row = ranked(x) - (2 if data_format == "channels_first" else 3)
    sizes = g.sizes(x)
    for at, before, after, target in (
        (row, top_cropping, bottom_cropping, target_height),
        (row + 1, left_cropping, right_cropping, target_width),
    ):
        start, rest = _margins(sizes[at], before, after, target, -1)
        x = between(g, x, at, start, -rest or None)
    return x


@operation("ExtractPatches")
def extract_patches(
    g: Builder,
    images: Operand,
    size: Any,
    strides: Any = None,
    dilation_rate: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Value:
    """Windows of pictures as channels; ExtractImagePatches does not know pictures with three axes of space."""
    window = (size, size) if isinstance(size, int) else tuple(size)
    if len(window) != 2:
        raise ValueError("pictures with three axes of space have no rule")
    steps = window if strides is None else (strides, strides) if isinstance(strides, int) else tuple(strides)
    rates = (dilation_rate, dilation_rate) if isinstance(dilation_rate, int) else tuple(dilation_rate)
    x, order = _last(g, as_value(g, images), data_format)
    alone = ranked(x) == 3
    x = g.ExpandDims(x, 0) if alone else x
    y = g.ExtractImagePatches(
        x, ksizes=(1, *window, 1), strides=(1, *steps, 1), rates=(1, *rates, 1), padding=padding.upper()
    )
    return _back(g, g.Squeeze(y, squeeze_dims=[0]) if alone else y, order)


@operation("SobelEdges")
def sobel_edges(g: Builder, images: Operand, data_format: str | None = None) -> Value:
    """How steep a picture is, downwards and to the right (image_ops_impl.py, ``sobel_edges``)."""
    x, order = _last(g, as_value(g, images), data_format)
    batch, rows, columns, channels = g.sizes(x)
    if not isinstance(channels, int) or channels > 1 << 12:
        raise ValueError(f"pictures with {channels if isinstance(channels, int) else 'unknown'} channels")
    down = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], np.float32)
    kernel = np.tile(np.stack([down, down.T], -1)[:, :, None], (1, 1, channels, 1))
    padded = g.MirrorPad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="REFLECT")
    steep = g.DepthwiseConv2dNative(padded, g.constant(kernel, x.dtype), strides=(1, 1, 1, 1), padding="VALID")
    y = g.reshape(steep, [batch, rows, columns, channels, 2])
    return y if order is None else g.Transpose(y, [0, 3, 1, 2, 4])
