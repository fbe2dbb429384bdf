"""Operations that pick elements by number, and that make new ones: padding, filling, sequences, diagonals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelio.graph.builder import Builder, Value
from modelio.lowering.arithmetic import (
    Operand,
    as_value,
    broadcast_to,
    dtype_of,
    is_floating,
    promoted,
    result_type,
    where,
)
from modelio.lowering.operations import axes_in, axis_in, operation, ranked
from modelio.lowering.operations.arranging import between, moved, swapaxes
from modelio.lowering.operations.reductions import reduced

__all__ = ["linspace", "one_hot", "padded", "repeat", "roll", "taken"]


# -- picking -----------------------------------------------------------------------------------------------------------


@operation("Take")
def taken(g: Builder, x: Operand, indices: Operand, axis: int | None = None) -> Value:
    """The parts with these numbers along an axis; negative ones count from its end. Gather works on the first axis."""
    x = as_value(g, x)
    if axis is None:
        x, axis = g.Reshape(x, [-1]), 0
    at = axis_in(axis, ranked(x))
    indices = _from_the_front(g, as_value(g, indices), g.sizes(x)[at])
    if not at:
        return g.Gather(x, indices)
    made: Value = g.GatherV2(x, indices, at)
    return made


def _from_the_front(g: Builder, indices: Value, size: Any) -> Value:
    if indices.dtype not in ("int32", "int64"):
        indices = g.cast(indices, "int32")
    known = indices.constant
    if known is not None and (known >= 0).all():
        return indices
    size = g.cast(size, indices.dtype) if isinstance(size, Value) else size
    return where(g, g.Less(indices, 0), g.Add(indices, size), indices)


@operation("TakeAlongAxis")
def take_along_axis(g: Builder, x: Operand, indices: Operand, axis: int | None = None) -> Value:
    """One element for each number, from its own row (numpy.py, ``take_along_axis``)."""
    x, indices = as_value(g, x), as_value(g, indices, "int32")
    if axis is None:
        return g.Gather(g.Reshape(x, [-1]), _from_the_front(g, indices, g.Size(x)))
    rank = ranked(x)
    at = axis_in(axis, rank)
    sizes, wanted = g.sizes(x), g.sizes(indices)
    together = [_larger(g, a, b) for a, b in zip(sizes, wanted, strict=True)]
    x = broadcast_to(g, x, g.vector([sizes[at] if one == at else size for one, size in enumerate(together)]))
    indices = broadcast_to(g, indices, g.vector([wanted[at] if n == at else size for n, size in enumerate(together)]))
    indices = swapaxes(g, _from_the_front(g, indices, sizes[at]), at, -1)
    shape = g.shape_of(indices)
    rows = g.Reshape(indices, g.vector([-1, wanted[at]]))
    first = g.Mul(g.ExpandDims(g.Range(0, g.sizes(rows)[0], 1), 1), sizes[at])
    flat = g.Reshape(swapaxes(g, x, at, -1), [-1])
    return swapaxes(g, g.Reshape(g.Gather(flat, g.Add(rows, first)), shape), at, -1)


def _larger(g: Builder, a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return g.Maximum(*(x if isinstance(x, Value) else g.constant(x) for x in (a, b)))


@operation("Repeat")
def repeat(g: Builder, x: Operand, repeats: Any, axis: int | None = None) -> Value:
    """Each element so many times, or each along an axis as many times as a list says."""
    x = as_value(g, x)
    if axis is None:
        x, axis = g.Reshape(x, [-1]), 0
    at = axis_in(axis, ranked(x))
    counts = [int(count) for count in np.asarray(repeats).reshape(-1)]
    if len(counts) != 1 and sum(counts) > 1 << 20:
        raise ValueError(f"{sum(counts):,} repetitions are listed")
    if len(counts) != 1:
        return taken(g, x, np.repeat(np.arange(len(counts), dtype=np.int32), counts), at)
    times = [1] * (ranked(x) + 1)
    times[at + 1] = counts[0]
    sizes: list[Any] = g.sizes(x)
    sizes[at] = sizes[at] * counts[0] if isinstance(sizes[at], int) else -1
    return g.reshape(g.Tile(g.ExpandDims(x, at + 1), times), sizes)


@operation("OneHot")
def one_hot(
    g: Builder, x: Operand, num_classes: int, axis: int = -1, dtype: str | None = None, sparse: bool = False
) -> Value:
    """1 at the place that each number names, 0 elsewhere; a number that names none gives zeros."""
    if sparse:
        raise ValueError("a sparse tensor is asked for")
    dtype = dtype or "float32"
    on, off = (True, False) if dtype == "bool" else (1, 0)
    made: Value = g.OneHot(
        as_value(g, x, "int64"), num_classes, g.constant(on, dtype), g.constant(off, dtype), axis=axis
    )
    return made


@operation("MultiHot")
def multi_hot(
    g: Builder,
    inputs: Operand,
    num_classes: int | None = None,
    axis: int = -1,
    dtype: str | None = None,
    sparse: bool = False,
    num_tokens: int | None = None,
) -> Value:
    """1 at every place that one of a row's numbers names."""
    x = as_value(g, inputs)
    hot = one_hot(g, x, num_classes or num_tokens or 0, axis, dtype, sparse)
    return reduced(g, "Any" if hot.dtype == "bool" else "Max", hot, 1 if ranked(x) > 1 else 0)


@operation("Searchsorted", "SearchSorted")
def searchsorted(g: Builder, sorted_sequence: Operand, values: Operand, side: str = "left") -> Value:
    """How many of a sorted vector's elements come before each value."""
    sequence, values = as_value(g, sorted_sequence), as_value(g, values)
    before = g.Less if side == "left" else g.LessEqual
    counts = g.cast(before(sequence, g.ExpandDims(values, -1)), "int32")
    made: Value = reduced(g, "Sum", counts, -1)
    return made


@operation("Digitize")
def digitize(g: Builder, x: Operand, bins: Any) -> Value:
    """Between which of the bounds each number lies."""
    x = as_value(g, x)
    narrow = {
        **dict.fromkeys(("bool", "int8", "int16", "uint8", "uint16"), "int32"),
        "uint32": "int64",
        "bfloat16": "float32",
        "float16": "float32",
    }
    bounds = [float(bound) for bound in np.asarray(bins).reshape(-1)]
    made: Value = g.Bucketize(g.cast(x, narrow.get(x.dtype, x.dtype)), boundaries=bounds)
    return made


@operation("IsIn")
def isin(g: Builder, x1: Operand, x2: Operand, assume_unique: bool = False, invert: bool = False) -> Value:
    x1, x2 = promoted(g, x1, x2)
    found = reduced(g, "Any", g.Equal(g.ExpandDims(x1, -1), g.Reshape(x2, [-1])), -1)
    return g.LogicalNot(found) if invert else found


@operation("UnravelIndex")
def unravel_index(g: Builder, indices: Operand, shape: Sequence[int]) -> tuple[Value, ...]:
    """Numbers in a flat array as numbers along each axis."""
    left = as_value(g, indices)
    if left.rank != 1:
        raise ValueError("Keras counts the axes of these from the wrong end")
    places = []
    for length in reversed(list(shape)):
        places.append(g.FloorMod(left, int(length)))
        left = g.FloorDiv(left, int(length))
    return tuple(reversed(places))


@operation("Scatter")
def scatter(g: Builder, indices: Operand, values: Operand, shape: Sequence[int]) -> Value:
    made: Value = g.ScatterNd(as_value(g, indices), as_value(g, values), g.constant(list(shape), dtype_of(indices)))
    return made


@operation("ScatterUpdate")
def scatter_update(
    g: Builder, inputs: Operand, indices: Operand, updates: Operand, reduction: str | None = None
) -> Value:
    """Ops that came with TensorFlow 1.15."""
    ops = {None: "Update", "add": "Add", "max": "Max", "min": "Min"}
    x = as_value(g, inputs)
    made: Value = g.node(f"TensorScatter{ops[reduction]}", x, as_value(g, indices), as_value(g, updates, x.dtype))
    return made


# -- turning, padding, filling -----------------------------------------------------------------------------------------


@operation("Roll")
def roll(g: Builder, x: Operand, shift: Any, axis: Any = None) -> Value:
    """Elements that leave at one end come in at the other. Roll came with TensorFlow 1.8."""
    x = as_value(g, x)
    if axis is None:
        return g.Reshape(roll(g, g.Reshape(x, [-1]), shift, 0), g.shape_of(x))
    axes = axes_in(axis, ranked(x))
    shifts = [int(one) for one in np.asarray(shift).reshape(-1)]
    shifts = shifts * len(axes) if len(shifts) == 1 else shifts
    for at, steps in zip(axes, shifts, strict=True):
        length = (x.shape or ())[at]
        steps = steps % length if length else steps
        if steps:
            x = g.ConcatV2([between(g, x, at, -steps, None), between(g, x, at, None, -steps)], at)
    turned: Value = x
    return turned


@operation("Pad")
def pad(g: Builder, x: Operand, constant_values: Operand = None, *, pad_width: Any, mode: str = "constant") -> Value:
    return padded(g, x, pad_width, mode, constant_values)


def padded(g: Builder, x: Operand, pad_width: Any, mode: str = "constant", constant_values: Operand = None) -> Value:
    x = as_value(g, x)
    rank = ranked(x)
    widths = np.asarray(pad_width, np.int32)
    widths = np.broadcast_to(widths if widths.ndim == 2 else widths.reshape(1, -1), (rank, 2)).tolist()
    if mode in ("reflect", "symmetric"):
        return g.MirrorPad(x, widths, mode=mode.upper())
    if mode != "constant":
        raise ValueError(f"mode is {mode!r}")
    if constant_values is None or (not isinstance(constant_values, Value) and constant_values == 0):
        return g.Pad(x, widths)
    made: Value = g.PadV2(x, widths, as_value(g, constant_values, x.dtype))
    return made


def _like(value: float) -> Any:
    def fill(g: Builder, x: Operand, dtype: str | None = None) -> Value:
        x = as_value(g, x)
        made: Value = g.Fill(g.shape_of(x), g.constant(value, dtype or x.dtype))
        return made

    return fill


operation("ZerosLike", "EmptyLike")(_like(0))
operation("OnesLike")(_like(1))


@operation("FullLike")
def full_like(g: Builder, x: Operand, fill_value: Operand, dtype: str | None = None) -> Value:
    x = as_value(g, x)
    return broadcast_to(g, as_value(g, fill_value, dtype or x.dtype), g.shape_of(x))


@operation("Full")
def full(g: Builder, fill_value: Operand, shape: Any, dtype: str | None = None) -> Value:
    sizes = list(shape) if isinstance(shape, (list, tuple)) else [shape]
    return broadcast_to(g, as_value(g, fill_value, dtype or "float32"), g.vector(sizes))


@operation("Arange")
def arange(g: Builder, start: Operand, stop: Operand = None, step: Operand = None, dtype: str | None = None) -> Value:
    dtype = dtype or result_type(*(dtype_of(one) for one in (start, stop, step) if one is not None))
    start, stop = (0, start) if stop is None else (start, stop)
    wide = dtype if dtype in ("int32", "int64", "float32", "float64") else "float32"
    return g.cast(g.Range(*(as_value(g, one, wide) for one in (start, stop, 1 if step is None else step))), dtype)


@operation("Linspace")
def linspace(
    g: Builder,
    start: Operand,
    stop: Operand,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: str | None = None,
    axis: int = 0,
) -> Any:
    """So many numbers from one to the other, in equal steps; of arrays, along a new axis."""
    wide = dtype or result_type(dtype_of(start), dtype_of(stop), "float")
    compute = wide if is_floating(wide) else "float32"
    first, last = as_value(g, start, compute), as_value(g, stop, compute)
    count = num - 1 if endpoint else num
    step = g.RealDiv(g.Sub(last, first), float(max(count, 1)))
    steps = g.cast(g.Range(0, num, 1), compute)
    rank = max(ranked(first), ranked(last))
    at = axis_in(axis, rank + 1)
    place = [1] * (rank + 1)
    place[at] = -1
    first, step = (g.ExpandDims(x, at - rank - 1 + ranked(x) + 1) if ranked(x) else x for x in (first, step))
    result = g.Add(first, g.Mul(step, g.Reshape(steps, place)))
    result = g.cast(g.Floor(result) if not is_floating(wide) else result, wide)
    return (result, g.Squeeze(step, squeeze_dims=[at]) if ranked(step) else step) if retstep else result


@operation("Logspace")
def logspace(
    g: Builder,
    start: Operand,
    stop: Operand,
    num: int = 50,
    endpoint: bool = True,
    base: float = 10,
    dtype: str | None = None,
    axis: int = 0,
) -> Value:
    powers = linspace(g, start, stop, num, endpoint, False, dtype, axis)
    made: Value = g.Pow(g.constant(base, powers.dtype), powers)
    return made


@operation("Geomspace")
def geomspace(
    g: Builder,
    start: Operand,
    stop: Operand,
    num: int = 50,
    endpoint: bool = True,
    dtype: str | None = None,
    axis: int = 0,
) -> Value:
    wide = dtype or "float32"
    first, last = (g.RealDiv(g.Log(g.Abs(as_value(g, end, wide))), math.log(10)) for end in (start, stop))
    sign = g.Sign(as_value(g, start, wide))
    sign = g.ExpandDims(sign, axis) if ranked(sign) else sign
    made: Value = g.Mul(logspace(g, first, last, num, endpoint, 10, dtype, axis), sign)
    return made


@operation("Vander")
def vander(
    g: Builder,
    x: Operand,
    N: int | None = None,  # noqa: N803  # what Keras calls it, and calls name
    increasing: bool = False,
) -> Value:
    """The powers of each number, the highest first."""
    x = as_value(g, x)
    count = (x.shape or (None,))[0] if N is None else N
    if count is None:
        raise ValueError("the number of powers is not known")
    powers = g.Range(0, count, 1) if increasing else g.Range(count - 1, -1, -1)
    wide = result_type(x.dtype, "float32")
    return g.cast(g.Pow(g.cast(g.ExpandDims(x, -1), wide), g.cast(powers, wide)), x.dtype)


# -- diagonals ---------------------------------------------------------------------------------------------------------


def band(g: Builder, rows: Any, columns: Any, compare: Any, k: int) -> Value:
    """Where the column's number less the row's compares with ``k``."""
    row, column = g.ExpandDims(g.Range(0, rows, 1), 1), g.ExpandDims(g.Range(0, columns, 1), 0)
    made: Value = compare(g.Sub(column, row), int(k))
    return made


def _triangle(lower: bool) -> Any:
    def keep(g: Builder, x: Operand, k: int = 0) -> Value:
        x = as_value(g, x)
        rows, columns = g.sizes(x)[-2:]
        mask = band(g, rows, columns, g.LessEqual if lower else g.GreaterEqual, k)
        return where(g, mask, x, g.ZerosLike(x), g.shape_of(x))

    return keep


operation("Tril")(_triangle(True))
operation("Triu")(_triangle(False))


@operation("Diagonal")
def diagonal(g: Builder, x: Operand, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Value:
    """MatrixDiagPart takes the middle diagonal; to another one, rows or columns are left out first."""
    x = moved(g, as_value(g, x), [axis1, axis2], [-2, -1])
    rank = ranked(x)
    if offset > 0:
        x = between(g, x, rank - 1, offset, None)
    elif offset < 0:
        x = between(g, x, rank - 2, -offset, None)
    made: Value = g.MatrixDiagPart(x)
    return made


@operation("Trace")
def trace(g: Builder, x: Operand, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Value:
    x = as_value(g, x)
    narrow = {**dict.fromkeys(("bool", "int8", "int16"), "int32"), **dict.fromkeys(("uint8", "uint16"), "uint32")}
    return reduced(g, "Sum", diagonal(g, g.cast(x, narrow.get(x.dtype, x.dtype)), offset, axis1, axis2), -1)


@operation("Diag")
def diag(g: Builder, x: Operand, k: int = 0) -> Value:
    """Of a vector the matrix that has it as a diagonal, of a matrix its diagonal."""
    x = as_value(g, x)
    if ranked(x) == 2:
        return diagonal(g, x, k)
    if ranked(x) != 1:
        raise ValueError("neither a vector nor a matrix")
    made: Value = g.MatrixDiag(x)
    return g.Pad(made, [[max(-k, 0), max(k, 0)], [max(k, 0), max(-k, 0)]]) if k else made


@operation("Diagflat")
def diagflat(g: Builder, x: Operand, k: int = 0) -> Value:
    return diag(g, g.Reshape(as_value(g, x), [-1]), k)
