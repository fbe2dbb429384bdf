"""What layers with windows share: their arguments, the order of axes, and paddings that are known only at run time.

A rule of :mod:`~modelio.lowering.convolution` and :mod:`~modelio.lowering.pooling` sees one kind of picture alone:
``[batch, *space, channels]`` with two or three axes of space. :func:`over_pictures` makes it of everything that Keras
takes: channels first (no op of TensorFlow takes them on every CPU), one axis of space (a picture of one row, as in
``tf.nn.conv1d``), several batch axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.arguments import rank_of, whole, wholes
from modelio.lowering.rules import Site

__all__ = [
    "Size",
    "channels_first",
    "difference",
    "divided",
    "linear",
    "over_pictures",
    "padding_of",
    "pads_matrix",
    "same_pads",
    "sizes_of",
    "space_of",
    "to_multiple",
    "total",
]

Size = int | Value
"""A number, or where it is known only when the graph runs, a scalar int32 value."""


def sizes_of(layer: Site, name: str, rank: int, least: int = 1) -> tuple[int, ...]:
    """An argument that is one whole number or one for each axis of space, none below ``least``.

    One axis becomes two (see above), the first of them ``least``: sizes, strides and dilations of 1, paddings of 0.
    """
    one = isinstance(layer.config.get(name), int)
    sizes = (whole(layer, name, least),) * rank if one else wholes(layer, name, rank, least)
    return (least, *sizes) if rank == 1 else sizes


def padding_of(layer: Site, *allowed: str) -> str:
    """The ``padding`` argument as TensorFlow spells it."""
    given = layer.config.get("padding", "valid")
    padding = given.upper() if isinstance(given, str) else ""
    if padding not in (allowed or ("VALID", "SAME")):
        raise ConversionError(f"padding is {given!r}, which {layer.layer.source_class} does not know")
    return padding


def channels_first(layer: Site) -> bool:
    """Does the channel axis come before the axes of space?"""
    given = layer.config.get("data_format") or "channels_last"
    if given not in ("channels_first", "channels_last"):
        raise ConversionError(f"data_format is {given!r}, neither 'channels_first' nor 'channels_last'")
    return bool(given == "channels_first")


def over_pictures(g: Builder, layer: Site, x: Value, rank: int, compute: Callable[[Value], Value]) -> Value:
    """``compute`` of a layer whose input has ``rank`` axes of space, on pictures; the result in the input's own order.

    More than one batch axis is taken by the convolutions of TensorFlow 2.3 and later (nn_ops.py,
    ``squeeze_batch_dims``).
    """
    batch: list[Size] = []
    if rank_of(layer, x, least=rank + 2) > rank + 2:
        sizes = g.sizes(x)
        batch = sizes[: -rank - 1]
        x = g.Reshape(x, g.vector([-1, *sizes[-rank - 1 :]]))
    first = channels_first(layer)
    if first:
        x = g.Transpose(x, [0, *range(2, rank + 2), 1])
    if rank == 1:
        x = g.ExpandDims(x, 1)
    y = compute(x)
    if rank == 1:
        y = g.Squeeze(y, squeeze_dims=[1])
    if first:
        y = g.Transpose(y, [0, rank + 1, *range(1, rank + 1)])
    if batch:
        y = g.reshape(y, [*batch, *g.sizes(y)[1:]])
    return y


def space_of(g: Builder, x: Value) -> list[Size]:
    """The size of a picture along each axis of space."""
    known = [size for size in (x.shape or (None,))[1:-1] if size is not None]
    return [*known] if x.rank == len(known) + 2 else g.sizes(x)[1:-1]


def linear(g: Builder, size: Size, factor: int, offset: int) -> Size:
    """``size * factor + offset``."""
    if isinstance(size, int):
        return size * factor + offset
    if factor != 1:
        size = g.Mul(size, factor)
    if offset:
        size = g.Add(size, offset)
    return size


def divided(g: Builder, size: Size, by: int) -> Size:
    """``size // by``, rounded down."""
    if isinstance(size, int):
        return size // by
    return size if by == 1 else g.FloorDiv(size, by)


def to_multiple(g: Builder, size: Size, step: int) -> Size:
    """What is missing to the next multiple of ``step``."""
    if isinstance(size, int):
        return -size % step
    return g.FloorMod(g.Neg(size), step)


def total(g: Builder, first: Size, *more: Size) -> Size:
    """The sum; numbers that are known are added up now."""
    sizes = [first, *more]
    known = sum(size for size in sizes if isinstance(size, int))
    result: Size = known
    for size in sizes:
        if isinstance(size, Value):
            result = g.Add(size, result) if isinstance(result, Value) or result else size
    return result


def difference(g: Builder, a: Size, b: Size) -> Size:
    """``a - b``."""
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return g.Sub(a, b) if isinstance(a, Value) else g.Add(g.Neg(b), a)


def same_pads(g: Builder, size: Size, window: int, stride: int) -> tuple[Size, Size]:
    """Zeros before and after an axis for padding SAME (common_shape_fns.cc, ``GetWindowedOutputSizeVerboseV2``)."""
    if stride == 1:
        missing: Size = window - 1  # whatever the size
    else:
        # (ceil(size / stride) - 1) * stride + window - size, if that is not negative
        last = linear(g, divided(g, linear(g, size, 1, stride - 1), stride), stride, window - stride)
        missing = difference(g, last, size)
        missing = max(missing, 0) if isinstance(missing, int) else g.Maximum(missing, 0)
    before = divided(g, missing, 2)
    return before, difference(g, missing, before)


def pads_matrix(g: Builder, pads: Sequence[tuple[Size, Size]]) -> Any:
    """Paddings as the ops want them: a row (before, after) for each axis."""
    if all(isinstance(size, int) for pair in pads for size in pair):
        return [list(pair) for pair in pads]
    return g.Reshape(g.vector([size for pair in pads for size in pair]), [len(pads), 2])
