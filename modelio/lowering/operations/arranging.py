"""Operations that move elements: shapes, axes, slices, joining and splitting."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelio.graph.builder import Builder, Value
from modelio.lowering.arithmetic import (
    Operand,
    as_value,
    broadcast_to,
    promoted,
    where,
)
from modelio.lowering.operations import axes_in, axis_in, operation, ranked
from modelio.lowering.operations.elementwise import floating
from modelio.lowering.operations.reductions import reduced

__all__ = [
    "between",
    "flipped",
    "item",
    "joined",
    "moved",
    "parts",
    "stacked",
    "transposed",
    "whole_of",
]

MOST_PARTS = 1 << 12
"""More outputs than this is no split but a mistake, or an attack on memory."""


# -- shapes ------------------------------------------------------------------------------------------------------------


@operation("Reshape")
def reshape(g: Builder, x: Operand, newshape: Any) -> Value:
    sizes = list(newshape) if isinstance(newshape, (list, tuple)) else [newshape]
    return g.reshape(as_value(g, x), [-1 if size is None else size for size in sizes])


@operation("Ravel")
def ravel(g: Builder, x: Operand) -> Value:
    made: Value = g.Reshape(as_value(g, x), [-1])
    return made


@operation("ExpandDims")
def expand_dims(g: Builder, x: Operand, axis: Any) -> Value:
    value = as_value(g, x)
    given = axis if isinstance(axis, (list, tuple)) else (axis,)
    for at in sorted(axis_in(one, ranked(value) + len(given)) for one in given):
        value = g.ExpandDims(value, at)
    return value


@operation("Squeeze")
def squeeze(g: Builder, x: Operand, axis: Any = None) -> Value:
    x = as_value(g, x)
    if axis is None:
        axes = [at for at, size in enumerate(x.shape or ()) if size == 1]
        return g.Squeeze(x, squeeze_dims=axes) if axes or x.shape is None else x
    made: Value = g.Squeeze(x, squeeze_dims=sorted(axes_in(axis, ranked(x))))
    return made


@operation("Transpose")
def transposed(g: Builder, x: Operand, axes: Any = None) -> Value:
    x = as_value(g, x)
    rank = ranked(x)
    order = [axis_in(axis, rank) for axis in axes] if axes else list(reversed(range(rank)))
    if sorted(order) != list(range(rank)):
        raise ValueError(f"axes are {axes!r} and there are {rank}")
    return x if order == list(range(rank)) else g.Transpose(x, order)


@operation("Swapaxes")
def swapaxes(g: Builder, x: Operand, axis1: int, axis2: int) -> Value:
    x = as_value(g, x)
    order = list(range(ranked(x)))
    one, two = axis_in(axis1, len(order)), axis_in(axis2, len(order))
    order[one], order[two] = two, one
    return transposed(g, x, order)


@operation("Moveaxis")
def moved(g: Builder, x: Operand, source: Any, destination: Any) -> Value:
    x = as_value(g, x)
    rank = ranked(x)
    sources, targets = axes_in(source, rank), axes_in(destination, rank)
    order = [axis for axis in range(rank) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return transposed(g, x, order)


@operation("Flip")
def flipped(g: Builder, x: Operand, axis: Any = None) -> Value:
    x = as_value(g, x)
    made: Value = g.ReverseV2(x, axes_in(axis, ranked(x)))
    return made


operation("Fliplr")(lambda g, x: flipped(g, x, 1))
operation("Flipud")(lambda g, x: flipped(g, x, 0))


@operation("Rot90")
def rot90(g: Builder, array: Operand, k: int = 1, axes: Sequence[int] = (0, 1)) -> Value:
    """By quarters of a turn, from the first of two axes to the second.

    Of half a turn Keras makes something else where the two differ in size: it forgets that they change places between.
    """
    x = as_value(g, array)
    rank = ranked(x)
    plane = axes_in(axes, rank)
    order = [*(axis for axis in range(rank) if axis not in plane), *plane]
    turns = k % 4
    if not turns:
        return x
    y = transposed(g, x, order)
    sizes = g.sizes(y)
    if turns == 3:
        y = flipped(g, swapaxes(g, y, -1, -2), -1)
    else:
        y = swapaxes(g, flipped(g, y, -1), -1, -2)
        if turns == 2:
            y = g.reshape(swapaxes(g, flipped(g, g.reshape(y, sizes), -1), -1, -2), sizes)
    return transposed(g, y, [order.index(axis) for axis in range(rank)])


@operation("Rearrange")
def rearrange(g: Builder, tensor: Operand, pattern: str, **axes_lengths: int) -> Value:
    """``"b (h k) c -> b h (k c)"``: axes taken apart, moved, and put together (keras/src/ops/einops.py)."""
    x = as_value(g, tensor)
    before, after = (_groups(side) for side in pattern.split("->"))
    sizes: dict[str, Any] = dict(axes_lengths)
    for group, length in zip(before, g.sizes(x), strict=True):
        open_axes = [name for name in group if name not in sizes]
        if len(open_axes) == 1:
            others = math.prod(sizes[name] for name in group if name in sizes)
            sizes[open_axes[0]] = length // others if isinstance(length, int) else g.FloorDiv(length, others)
    names = [name for group in before for name in group]
    x = g.reshape(x, [sizes[name] for name in names])
    x = transposed(g, x, [names.index(name) for group in after for name in group])
    if all(len(group) == 1 for group in after):
        return x
    return g.reshape(x, [whole_of(g, [sizes[name] for name in group]) for group in after])


def _groups(side: str) -> list[list[str]]:
    """The axes of one side of a pattern; those in brackets are one."""
    found = re.findall(r"\((.*?)\)|(\w+)", side)
    return [together.split() if together else [alone] for together, alone in found]


def whole_of(g: Builder, sizes: Sequence[Any]) -> Any:
    """The product of sizes."""
    total: Any = 1
    for size in sizes:
        known = isinstance(size, int) and isinstance(total, int)
        total = size * total if known else size if total == 1 else g.Mul(size, total)
    return total


@operation("BroadcastTo")
def broadcasted(g: Builder, x: Operand, shape: Any) -> Value:
    return broadcast_to(g, as_value(g, x), g.vector(list(shape)))


@operation("Tile")
def tile(g: Builder, x: Operand, repeats: Any) -> Value:
    x = as_value(g, x)
    counts = list(repeats) if isinstance(repeats, (list, tuple, np.ndarray)) else [repeats]
    counts = [1] * (ranked(x) - len(counts)) + [count if isinstance(count, Value) else int(count) for count in counts]
    while ranked(x) < len(counts):
        x = g.ExpandDims(x, 0)
    made: Value = g.Tile(x, g.vector(counts))
    return made


@operation("Size")
def size(g: Builder, x: Operand) -> Value:
    made: Value = g.Size(as_value(g, x))
    return made


# -- slices ------------------------------------------------------------------------------------------------------------


@operation("GetItem")
def item(g: Builder, x: Operand, key: Any) -> Value:
    """``x[key]``, where the key is made of numbers, slices, ``None`` and ``...``."""
    x = as_value(g, x)
    keys = list(key) if isinstance(key, (list, tuple)) else [key]
    if any(isinstance(one, (list, np.ndarray)) for one in keys):
        raise ValueError("a list is no index that can be sliced")
    rank = ranked(x)
    dots = next((index for index, one in enumerate(keys) if one is ...), len(keys))
    named = sum(one is not None and one is not ... for one in keys)
    if named > rank:
        raise IndexError(f"{named} indices for {rank} dimensions")
    keys[dots : dots + 1] = [slice(None)] * (rank - named)
    return _sliced(g, x, keys)


def _sliced(g: Builder, x: Value, keys: Sequence[Any]) -> Value:
    begin: list[Any] = []
    end: list[Any] = []
    step: list[int] = []
    masks = {"begin_mask": 0, "end_mask": 0, "shrink_axis_mask": 0}
    new: list[int] = []
    left = 0
    for one in keys:
        if one is None:
            new.append(left)
            left += 1
            continue
        bit = 1 << len(begin)
        if isinstance(one, slice):
            left += 1
            begin.append(0 if one.start is None else one.start)
            end.append(0 if one.stop is None else one.stop)
            step.append(1 if one.step is None else int(one.step))
            masks["begin_mask"] |= bit * (one.start is None)
            masks["end_mask"] |= bit * (one.stop is None)
        else:
            place = one if isinstance(one, Value) else int(one)
            begin.append(place)
            end.append(g.Add(place, 1) if isinstance(place, Value) else place + 1)
            step.append(1)
            masks["shrink_axis_mask"] |= bit
            masks["end_mask"] |= bit * (not isinstance(place, Value) and place == -1)
    whole = (1 << len(begin)) - 1
    if masks["begin_mask"] != whole or masks["end_mask"] != whole or set(step) != {1}:
        x = g.StridedSlice(x, _places(g, begin), _places(g, end), step, **masks)
    for axis in new:
        x = g.ExpandDims(x, axis)
    return x


def _places(g: Builder, places: Sequence[Any]) -> Value:
    return g.vector([g.cast(place, "int32") if isinstance(place, Value) else int(place) for place in places])


def between(g: Builder, x: Value, axis: int, start: int | None, stop: int | None) -> Value:
    """A part along one axis."""
    return _sliced(g, x, [slice(start, stop) if at == axis else slice(None) for at in range(ranked(x))])


@operation("Slice")
def slice_of(g: Builder, inputs: Operand, start_indices: Operand, shape: Operand) -> Value:
    made: Value = g.Slice(as_value(g, inputs), _index(g, start_indices), _index(g, shape))
    return made


def _index(g: Builder, places: Operand) -> Value:
    if isinstance(places, (list, tuple)):
        return _places(g, places)
    return as_value(g, places, "int32")


@operation("SliceUpdate")
def slice_update(g: Builder, inputs: Operand, start_indices: Operand, updates: Operand) -> Value:
    """``inputs`` with a part replaced; the part is moved inside where it would not fit, as XLA does it."""
    x, updates = as_value(g, inputs), as_value(g, updates)
    starts = _index(g, start_indices)
    room = g.Sub(g.shape_of(x), g.shape_of(updates))
    starts = g.Minimum(g.Maximum(starts, 0), room)
    pads = g.Pack([starts, g.Sub(room, starts)], axis=1)
    covered = g.Pad(g.Fill(g.shape_of(updates), g.constant(1)), pads)
    return where(g, g.Equal(covered, 1), g.Pad(updates, pads), x, g.shape_of(x))


@operation("Diff")
def diff(g: Builder, a: Operand, n: int = 1, axis: int = -1) -> Value:
    """What each element is more than the one before it, ``n`` times over."""
    x = as_value(g, a)
    at = axis_in(axis, ranked(x))
    if n < 0 or n > MOST_PARTS:
        raise ValueError(f"n is {n}")
    for _ in range(n):
        later, earlier = between(g, x, at, 1, None), between(g, x, at, None, -1)
        x = g.NotEqual(later, earlier) if x.dtype == "bool" else g.Sub(later, earlier)
    return x


@operation("Trapezoid")
def trapezoid(g: Builder, y: Operand, x: Operand = None, dx: float = 1.0, axis: int = -1) -> Value:
    """The area under the points."""
    y = floating(g, y)
    at = axis_in(axis, ranked(y))
    heights = g.Mul(g.Add(between(g, y, at, 1, None), between(g, y, at, None, -1)), 0.5)
    heights = moved(g, heights, at, -1)
    if x is None:
        widths: Any = g.constant(dx, y.dtype)
    else:
        widths = moved(g, diff(g, as_value(g, x, y.dtype), 1, axis), axis, -1)
    return reduced(g, "Sum", g.Mul(heights, widths), -1)


# -- joining and splitting ---------------------------------------------------------------------------------------------


def joined(g: Builder, values: Sequence[Value], axis: int) -> Value:
    """Side by side along an axis."""
    return g.ConcatV2(values, axis) if len(values) > 1 else values[0]


@operation("Concatenate")
def concatenate(g: Builder, xs: Sequence[Operand], axis: int | None = 0) -> Value:
    values = promoted(g, *xs)
    if axis is None:
        return joined(g, [g.Reshape(value, [-1]) for value in values], 0)
    return joined(g, values, axis_in(axis, ranked(values[0])))


@operation("Append")
def append(g: Builder, x1: Operand, x2: Operand, axis: int | None = None) -> Value:
    return concatenate(g, [x1, x2], axis)


@operation("Stack")
def stacked(g: Builder, x: Sequence[Operand], axis: int = 0) -> Value:
    values = promoted(g, *x)
    made: Value = g.Pack(values, axis=axis_in(axis, ranked(values[0]) + 1))
    return made


@operation("Hstack")
def hstack(g: Builder, xs: Sequence[Operand]) -> Value:
    values = promoted(g, *xs)
    return joined(g, values, 0 if ranked(values[0]) == 1 else 1)


@operation("Vstack")
def vstack(g: Builder, xs: Sequence[Operand]) -> Value:
    return joined(g, promoted(g, *xs), 0)


@operation("Dstack")
def dstack(g: Builder, xs: Sequence[Operand]) -> Value:
    values = []
    for value in promoted(g, *xs):
        if ranked(value) < 2:
            value = g.ExpandDims(value if ranked(value) else g.Reshape(value, [1]), 0)
        values.append(g.ExpandDims(value, 2) if ranked(value) == 2 else value)
    return joined(g, values, 2)


@operation("Unstack")
def unstack(g: Builder, x: Operand, num: int | None = None, axis: int = 0) -> tuple[Value, ...]:
    x = as_value(g, x)
    at = axis_in(axis, ranked(x))
    count = (x.shape or ())[at] if num is None else num
    if count is None or not 0 <= count <= MOST_PARTS:
        raise ValueError(f"an axis of size {count} is to be taken apart")
    made = g.node("Unpack", x, num=count, axis=at)
    return made if isinstance(made, tuple) else (made,)


@operation("Split")
def parts(g: Builder, x: Operand, indices_or_sections: Any, axis: int = 0) -> tuple[Value, ...]:
    """So many parts of one size, or parts that end at given places."""
    x = as_value(g, x)
    at = axis_in(axis, ranked(x))
    if isinstance(indices_or_sections, (list, tuple, np.ndarray)):
        places = [None, *(int(place) for place in indices_or_sections), None]
        return tuple(between(g, x, at, start, stop) for start, stop in itertools.pairwise(places))
    count = int(indices_or_sections)
    if not 0 < count <= MOST_PARTS:
        raise ValueError(f"{count} parts are asked for")
    made = g.node("Split", at, x, num_split=count)
    return made if isinstance(made, tuple) else (made,)


operation("Vsplit")(lambda g, x, indices_or_sections: parts(g, x, indices_or_sections, 0))
operation("Dsplit")(lambda g, x, indices_or_sections: parts(g, x, indices_or_sections, 2))


@operation("Hsplit")
def hsplit(g: Builder, x: Operand, indices_or_sections: Any) -> tuple[Value, ...]:
    x = as_value(g, x)
    return parts(g, x, indices_or_sections, min(1, ranked(x) - 1))


@operation("ArraySplit")
def array_split(g: Builder, x: Operand, indices_or_sections: int, axis: int = 0) -> tuple[Value, ...]:
    """Parts of nearly one size, the first ones larger by one."""
    x = as_value(g, x)
    total = (x.shape or ())[axis_in(axis, ranked(x))]
    count = int(indices_or_sections)
    if total is None or not 0 < count <= MOST_PARTS:
        raise ValueError(f"an axis of size {total} is to become {count} parts")
    sizes = [total // count + (part < total % count) for part in range(count)]
    return parts(g, x, np.cumsum(sizes)[:-1].tolist() if count > 1 else 1, axis)


@operation("Meshgrid")
def meshgrid(g: Builder, *x: Operand, indexing: str = "xy") -> tuple[Value, ...]:
    """Each vector along an axis of its own, in the shape of all."""
    values = [g.Reshape(as_value(g, one), [-1]) for one in x]
    rank = len(values)
    places = list(range(rank))
    if indexing == "xy" and rank > 1:
        places[:2] = [1, 0]
    sizes: list[Any] = [1] * rank
    for value, place in zip(values, places, strict=True):
        sizes[place] = g.sizes(value)[0]
    shape = g.vector(sizes)
    laid = []
    for value, place in zip(values, places, strict=True):
        alone = [1] * rank
        alone[place] = -1
        laid.append(broadcast_to(g, g.Reshape(value, alone), shape))
    return tuple(laid)
