"""Layers that prepare pictures: Resizing, CenterCrop, contrast; and those that change them in training alone.

A picture is ``[height, width, channels]``, alone or in a batch. Sources, where a function names none:
``keras/src/layers/preprocessing/image_preprocessing/*.py`` (Keras 3.0 to 3.15),
``tf_keras/src/layers/preprocessing/image_preprocessing.py`` (2.21).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.activation import clip
from modelio.lowering.arguments import number, rank_of, whole, wholes
from modelio.lowering.preprocessing import counted
from modelio.lowering.reshaping import interpolated
from modelio.lowering.rules import Site, rule
from modelio.lowering.spatial import Size, channels_first, difference, divided, linear, pads_matrix, total

__all__: list[str] = []


def _over_images(g: Builder, layer: Site, x: Value, compute: Callable[[Value], Value]) -> Value:
    """``compute`` on a batch of pictures, channels last; the result as the input was."""
    alone = rank_of(layer, x, 3, 4) == 3
    first = channels_first(layer)
    if alone:
        x = g.ExpandDims(x, 0)
    if first:
        x = g.Transpose(x, [0, 2, 3, 1])
    y = compute(x)
    if first:
        y = g.Transpose(y, [0, 3, 1, 2])
    return g.Squeeze(y, squeeze_dims=[0]) if alone else y


def _size(layer: Site) -> tuple[int, int]:
    return whole(layer, "height"), whole(layer, "width")


def _since(layer: Site, *version: int) -> bool:
    """Is this Keras 3 of that version or later? A file that does not say its version counts as the newest."""
    known = layer.version if len(layer.version) > 1 else (3, 999)
    return layer.dialect == "keras3" and known >= version


def _widened(g: Builder, layer: Site, x: Value) -> Value:
    """tf_keras resizes what it has made float32 of, but for ``nearest`` (``Resizing.call``)."""
    if layer.dialect == "keras3":
        return x
    return g.cast(x, layer.layer.dtype if layer.config.get("interpolation") == "nearest" else "float32")


# -- boxes -------------------------------------------------------------------------------------------------------------


def _least(g: Builder, a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return g.Minimum(a, b) if isinstance(a, Value) else g.Minimum(b, a)


def _most(g: Builder, a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return g.Maximum(a, b) if isinstance(a, Value) else g.Maximum(b, a)


def _proportional(g: Builder, size: Size, times: int, over: int) -> Size:
    """``size * times / over``, rounded down, in float32 as Keras computes it (``backend/tensorflow/image.py``)."""
    if isinstance(size, int):
        return int(np.float32(size * times) / np.float32(over))
    return g.cast(g.RealDiv(g.cast(g.Mul(size, times), "float32"), float(over)), "int32")


def _fitting(g: Builder, space: tuple[Size, Size], size: tuple[int, int]) -> tuple[Size, Size]:
    """The largest window in a picture that has the proportions of ``size``."""
    (height, width), (target_height, target_width) = space, size
    return (
        _most(g, _least(g, height, _proportional(g, width, target_height, target_width)), 1),
        _most(g, _least(g, width, _proportional(g, height, target_width, target_height)), 1),
    )


def _cut(g: Builder, x: Value, starts: tuple[Size, Size], sizes: tuple[Size, Size]) -> Value:
    if all(isinstance(start, int) and start == 0 for start in starts) and sizes == _space(g, x):
        return x
    begin, size = g.vector([0, *starts, 0]), g.vector([-1, *sizes, -1])
    return g.Slice(x, begin, size)


def _space(g: Builder, x: Value) -> tuple[Size, Size]:
    _, height, width, _ = g.sizes(x)
    return height, width


def _centered(g: Builder, space: tuple[Size, Size], sizes: tuple[Size, Size]) -> tuple[Size, Size]:
    """Where a window in the middle starts."""
    height, width = (divided(g, difference(g, whole, part), 2) for whole, part in zip(space, sizes, strict=True))
    return height, width


def _smart_resized(g: Builder, layer: Site, x: Value, size: tuple[int, int], interpolation: Any = "bilinear") -> Value:
    """The largest window with the proportions of ``size``, resized to it (``utils/image_utils.py``, smart_resize)."""
    space = _space(g, x)
    sizes = _fitting(g, space, size)
    return interpolated(g, layer, _cut(g, x, _centered(g, space, sizes), sizes), [*size], interpolation)


# -- layers ------------------------------------------------------------------------------------------------------------


@rule("Resizing")
def resizing(g: Builder, layer: Site, x: Value) -> Value:
    """Pictures in another size: stretched, or with their proportions, cut off or with margins."""
    size = _size(layer)
    config = layer.config
    interpolation = config.get("interpolation", "bilinear")
    crop, pad = bool(config.get("crop_to_aspect_ratio")), bool(config.get("pad_to_aspect_ratio"))
    if crop and pad:
        raise ConversionError("crop_to_aspect_ratio and pad_to_aspect_ratio are both True; Keras takes one of them")

    def resize(x: Value) -> Value:
        if crop:
            sizes = _fitting(g, _space(g, x), size)
            x = _cut(g, x, _centered(g, _space(g, x), sizes), sizes)
        elif pad:
            x = _padded(g, layer, x, size)
        return interpolated(g, layer, x, [*size], interpolation, antialias=bool(config.get("antialias")))

    y = _over_images(g, layer, _widened(g, layer, x), resize)
    if layer.dialect != "keras3":
        return g.cast(y, layer.layer.dtype)
    if y.dtype == x.dtype:
        return y
    return _saturated(g, y, x.dtype) if _since(layer, 3, 6) else g.cast(y, x.dtype)


def _padded(g: Builder, layer: Site, x: Value, size: tuple[int, int]) -> Value:
    """With margins around it, until it has the proportions of ``size``."""
    if layer.config.get("fill_mode", "constant") != "constant":
        raise ConversionError(f"fill_mode is {layer.config['fill_mode']!r}; Resizing knows 'constant' alone")
    height, width = _space(g, x)
    target_height, target_width = size
    wanted = (
        _most(g, height, _proportional(g, width, target_height, target_width)),
        _most(g, width, _proportional(g, height, target_width, target_height)),
    )
    top, left = _centered(g, wanted, (height, width))
    pads = pads_matrix(g, [(0, 0), (top, top), (left, left), (0, 0)])
    fill = number(layer, "fill_value", 0.0)
    return g.PadV2(x, pads, g.constant(fill, x.dtype, name="fill_value")) if fill else g.Pad(x, pads)


def _saturated(g: Builder, x: Value, dtype: str) -> Value:
    """The nearest that ``dtype`` has (``ops/core.py``, ``_saturate_cast``)."""
    if dtype.startswith(("int", "uint")):
        limits = np.iinfo(dtype)
        low, high = np.float32(limits.min), np.float32(limits.max)
        if int(high) > limits.max:
            high = np.nextafter(high, np.float32(0))
        x = clip(g, g.Round(x), float(low), float(high))
    return g.cast(x, dtype)


@rule("CenterCrop")
def center_crop(g: Builder, layer: Site, x: Value) -> Value:
    """The middle of pictures; of smaller ones the largest window with these proportions, enlarged."""
    size = _size(layer)
    x = g.cast(x, layer.layer.dtype)

    def crop(x: Value) -> Value:
        space = _space(g, x)
        if all(isinstance(length, int) for length in space) or layer.dialect == "keras3":
            # Keras 3 cuts wherever it does not know that the picture is too small.
            if all(not isinstance(have, int) or have >= want for have, want in zip(space, size, strict=True)):
                return _cut(g, x, _centered(g, space, size), size)
            return _smart_resized(g, layer, x, size)
        # Which of the two it is turns out while the graph runs. A window of the right size is resized to what it is.
        large = [g.GreaterEqual(have, want) for have, want in zip(g.sizes(x)[1:3], size, strict=True)]
        fits = g.LogicalAnd(*large)
        windows = _fitting(g, space, size)
        height, width = (g.Select(fits, want, window) for want, window in zip(size, windows, strict=True))
        window = _cut(g, x, _centered(g, space, (height, width)), (height, width))
        return interpolated(g, layer, window, [*size], "bilinear")

    return g.cast(_over_images(g, layer, x, crop), layer.layer.dtype)


@rule("RandomCrop")
def random_crop(g: Builder, layer: Site, x: Value) -> Value:
    """In inference: the largest window with these proportions, resized; in Keras 3 since 3.8 the picture as it is.

    Keras 3.6 and 3.7 cut ``height`` and ``width`` from where that window starts (random_crop.py, ``transform_images``).
    """
    if _since(layer, 3, 8):
        return x
    size = _size(layer)

    def crop(x: Value) -> Value:
        if not _since(layer, 3, 6):
            return _smart_resized(g, layer, x, size)
        space = _space(g, x)
        starts = _centered(g, space, _fitting(g, space, size))
        ends = [_least(g, total(g, start, want), have) for start, want, have in zip(starts, size, space, strict=True)]
        height, width = (difference(g, end, start) for end, start in zip(ends, starts, strict=True))
        return interpolated(g, layer, _cut(g, x, starts, (height, width)), [*size], "bilinear")

    return g.cast(_over_images(g, layer, g.cast(x, layer.layer.dtype), crop), layer.layer.dtype)


# -- contrast ----------------------------------------------------------------------------------------------------------

LARGEST = 1 << 24
"""Pixels of a picture whose tiles are counted one by one."""

LEVELS = 256
"""Values of a pixel, which layers of contrast count from 0 on."""


def _range(layer: Site) -> tuple[float, float]:
    given = layer.config.get("value_range", (0, 255))
    if (
        not isinstance(given, (list, tuple))
        or len(given) != 2
        or any(isinstance(end, bool) or not isinstance(end, (int, float)) for end in given)
        or given[0] >= given[1]
    ):
        raise ConversionError(f"value_range is {given!r}, and has to be two numbers, the lower one first")
    return float(given[0]), float(given[1])


def _to_levels(g: Builder, x: Value, ends: tuple[float, float]) -> Value:
    """From 0 to 255 (base_image_preprocessing_layer.py, ``_transform_value_range``)."""
    low, high = ends
    return x if ends == (0.0, 255.0) else g.Mul(g.RealDiv(g.Sub(x, low), high - low), 255.0)


def _from_levels(g: Builder, x: Value, ends: tuple[float, float]) -> Value:
    low, high = ends
    return x if ends == (0.0, 255.0) else g.Add(g.Mul(g.RealDiv(x, 255.0), high - low), low)


@rule("AutoContrast")
def auto_contrast(g: Builder, layer: Site, x: Value) -> Value:
    """Each channel stretched over the whole range of values; where it has only one value, as it is."""
    rank_of(layer, x, 3, 4)
    ends = _range(layer)
    images = g.cast(x, layer.layer.dtype)
    y = _to_levels(g, images, ends)
    axes = [1, 2] if x.rank == 4 else [0, 1]
    least, most = g.Min(y, axes, keep_dims=True), g.Max(y, axes, keep_dims=True)
    scale = g.RealDiv(255.0, g.Sub(most, least))
    y = _from_levels(g, clip(g, g.Add(g.Mul(y, scale), g.Mul(g.Neg(least), scale)), 0.0, 255.0), ends)
    return g.Select(g.IsNan(y), images, y)


@rule("ContrastLimitedAdaptiveHistogramEqualization")
def clahe(g: Builder, layer: Site, x: Value) -> Value:
    """Each pixel by how many of its tile are darker, interpolated between the four tiles around it (``_clahe``)."""
    ends, grid = _range(layer), wholes(layer, "tile_grid_size", 2)
    limit = number(layer, "clip_limit", 4.0)

    def equalize(images: Value) -> Value:
        batch, height, width, channels = g.sizes(images)
        if not isinstance(height, int) or not isinstance(width, int) or not isinstance(channels, int):
            raise ConversionError(f"{layer.layer.source_class} needs to know how large its pictures are")
        tile = (-(-height // grid[0]), -(-width // grid[1]))
        if tile[0] * grid[0] > 2 * height or tile[1] * grid[1] > 2 * width or height * width > LARGEST:
            raise ConversionError(f"a picture of {height} x {width} has no {grid[0]} x {grid[1]} tiles")
        y = images if ends == (0.0, 255.0) else _to_levels(g, g.cast(images, "float32"), ends)
        pads = [[0, 0], [0, tile[0] * grid[0] - height], [0, tile[1] * grid[1] - width], [0, 0]]
        y = g.MirrorPad(y, pads, mode="SYMMETRIC") if pads[1][1] or pads[2][1] else y
        pixels = clip(g, g.cast(y, "int32"), 0, LEVELS - 1)
        curves = _curves(g, pixels, batch, grid, tile, channels, limit)
        y = _between_tiles(g, pixels, curves, batch, grid, tile, channels)
        y = _from_levels(g, g.Slice(y, [0, 0, 0, 0], [-1, height, width, -1]), ends)
        return g.cast(y, images.dtype)

    return _over_images(g, layer, x, equalize)


def _curves(
    g: Builder,
    pixels: Value,
    batch: Size,
    grid: tuple[int, ...],
    tile: tuple[int, int],
    channels: int,
    clip_limit: float,
) -> Value:
    """What each of 256 values becomes, by picture, tile and channel, one after the other."""
    tiles = _steps(grid[0], tile[0])[:, None] * grid[1] + _steps(grid[1], tile[1])[None, :]
    places = _by_picture(g, batch, grid[0] * grid[1] * channels)
    places = g.Add(g.Add(places, (tiles * channels)[None, :, :, None]), np.arange(channels, dtype=np.int32))
    rows = linear(g, batch, grid[0] * grid[1] * channels, 0)
    counts = counted(g, g.Reshape(pixels, [-1]), g.Reshape(places, [-1]), rows, LEVELS, "float32")
    area = tile[0] * tile[1]
    if clip_limit > 0:
        clipped = g.Minimum(counts, clip_limit * area / LEVELS)
        excess = g.Sum(g.Sub(counts, clipped), [1], keep_dims=True)
        counts = g.Add(clipped, g.RealDiv(excess, float(LEVELS)))
    sums = g.Cumsum(counts, 1)
    least = g.Min(sums, [1], keep_dims=True)
    rest = g.Sub(float(area), least)
    rest = g.Select(g.Equal(rest, 0.0), g.OnesLike(rest), rest)
    return g.Reshape(clip(g, g.RealDiv(g.Mul(g.Sub(sums, least), 255.0), rest), 0.0, 255.0), [-1])


def _between_tiles(
    g: Builder, pixels: Value, curves: Value, batch: Size, grid: tuple[int, ...], tile: tuple[int, int], channels: int
) -> Value:
    """Every pixel by the curves of the four tiles whose centers are around it."""
    picture = g.Add(pixels, _by_picture(g, batch, grid[0] * grid[1] * channels * LEVELS))
    picture = g.Add(picture, np.arange(channels, dtype=np.int32) * LEVELS)
    corners: list[list[Value]] = []
    (rows, down), (columns, right) = (_around(count, size) for count, size in zip(grid, tile, strict=True))
    for row in rows:
        line = g.Add(picture, (row * grid[1] * channels * LEVELS)[None, :, None, None])
        corners.append([g.Gather(curves, g.Add(line, (at * channels * LEVELS)[None, None, :, None])) for at in columns])

    def mixed(a: Value, b: Value, weight: npt.NDArray[Any]) -> Value:
        return g.Add(g.Mul(a, np.float32(1) - weight), g.Mul(b, weight))

    across = [mixed(left, other, right[None, None, :, None]) for left, other in corners]
    return mixed(across[0], across[1], down[None, :, None, None])


def _by_picture(g: Builder, batch: Size, step: int) -> Value:
    """``[batch, 1, 1, 1]``: 0, step, 2 * step, ..."""
    return g.Reshape(g.Mul(g.Range(0, batch, 1), step), [-1, 1, 1, 1])


def _steps(count: int, size: int) -> npt.NDArray[np.int32]:
    """The tile of each pixel along an axis."""
    return np.repeat(np.arange(count, dtype=np.int32), size)


def _around(count: int, size: int) -> tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.float32]]:
    """For each pixel along an axis, the tiles before and behind it, and how far it is from one to the other."""
    place = (np.arange(count * size, dtype=np.float32) - np.float32(size / 2)) / np.float32(size) + np.float32(1)
    before = np.floor(place)
    # Tiles count from 1: beyond the first and the last there is the same once more.
    tiles = [np.clip(at.astype(np.int32) - 1, 0, count - 1) for at in (before, before + 1)]
    return tiles, place - before


# -- what inference leaves alone ---------------------------------------------------------------------------------------

# As they are in every Keras: tf_keras' RandomHeight and RandomWidth, and Keras 3's, ``transform_images``.
UNTOUCHED = (
    *("Equalization", "MaxNumBoundingBoxes", "MixUp", "RandomColorDegeneration", "RandomColorJitter"),
    *("RandomGrayscale", "RandomHeight", "RandomHue", "RandomInvert", "RandomPosterization", "RandomSaturation"),
    "RandomWidth",
)
# As they are, but in the layer's dtype.
CAST = (
    *("AugMix", "CutMix", "RandAugment", "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur"),
    *("RandomPerspective", "RandomRotation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom"),
    "Solarization",
)


@rule(*UNTOUCHED)
def untouched(g: Builder, layer: Site, x: Value) -> Value:
    """What only training changes."""
    return x


@rule(*CAST)
def cast(g: Builder, layer: Site, x: Value) -> Value:
    """What only training changes, in the dtype that the layer computes in."""
    return g.cast(x, layer.layer.dtype)


@rule("RandomBrightness", "RandomContrast")
def adjusted(g: Builder, layer: Site, x: Value) -> Value:
    """What only training changes; whole numbers became floats before Keras 3.6."""
    return x if _since(layer, 3, 6) else g.cast(x, layer.layer.dtype)
