"""Operations over axes: sums and their kin, running sums, order, quantiles, statistics that leave out NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from modelio.graph.builder import Builder, Value
from modelio.lowering.arithmetic import Operand, as_value, is_floating, promoted, result_type, where
from modelio.lowering.operations import axes_in, axis_in, operation, ranked
from modelio.lowering.operations.elementwise import as_bool, floating, nan_to_num

__all__ = ["argument", "at_the_end", "descending", "mean", "reduced", "summed", "variance"]

Axis = Any
"""One axis, several, or None for all."""


def reduced(g: Builder, op: str, x: Value, axis: Axis = None, keepdims: bool = False) -> Value:
    """An op over axes. Of a value whose rank is not known, only over all of them."""
    axes: Any = g.Range(0, g.Rank(x), 1) if x.rank is None and axis is None else axes_in(axis, ranked(x))
    if not isinstance(axes, Value):
        axes = g.constant(np.asarray(axes, np.int32), name="axes")
    made: Value = g.node(op, x, axes, keep_dims=bool(keepdims))
    return made


def _wide(g: Builder, x: Value) -> Value:
    """Truth values and narrow whole numbers in 32 bits, as they are summed."""
    narrow = {**dict.fromkeys(("bool", "int8", "int16"), "int32"), **dict.fromkeys(("uint8", "uint16"), "uint32")}
    return g.cast(x, narrow.get(x.dtype, x.dtype))


@operation("Sum")
def summed(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    return reduced(g, "Sum", _wide(g, as_value(g, x)), axis, keepdims)


@operation("Prod")
def prod(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False, dtype: str | None = None) -> Value:
    x = as_value(g, x)  # Keras forgets to cast to a dtype that is asked for
    return reduced(g, "Prod", _wide(g, x) if dtype is None else x, axis, keepdims)


@operation("Mean")
def mean(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    """In float32 at least."""
    x = as_value(g, x)
    wide = result_type(x.dtype, "float32")
    return g.cast(reduced(g, "Mean", g.cast(x, wide), axis, keepdims), x.dtype if is_floating(x.dtype) else wide)


def _extreme(op: str, of_bools: str, bound: str) -> Callable[..., Value]:
    def reduce(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False, initial: Operand = None) -> Value:
        x = as_value(g, x)
        y = reduced(g, of_bools if x.dtype == "bool" else op, x, axis, keepdims)
        if initial is None:
            return y
        if y.dtype == "bool":
            made = g.node(bound, g.cast(y, "int32"), as_value(g, initial, "int32"))
            return g.cast(made, "bool")
        bounded: Value = g.node(bound, y, as_value(g, initial, y.dtype))
        return bounded

    return reduce


maximum, minimum = _extreme("Max", "Any", "Maximum"), _extreme("Min", "All", "Minimum")
operation("Max", "Amax")(maximum)
operation("Min", "Amin")(minimum)


@operation("Any")
def any_of(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    return reduced(g, "Any", as_bool(g, x), axis, keepdims)


@operation("All")
def all_of(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    return reduced(g, "All", as_bool(g, x), axis, keepdims)


@operation("Var")
def variance(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    """In float32 at least."""
    x = as_value(g, x)
    spread = spread_of(g, g.cast(x, result_type(x.dtype, "float32")), axis, keepdims)
    return g.cast(spread, result_type(x.dtype, "float"))


@operation("Std")
def deviation(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    """In its own dtype, unlike the variance."""
    made: Value = g.Sqrt(spread_of(g, floating(g, x), axis, keepdims))
    return made


def spread_of(g: Builder, x: Value, axis: Axis, keepdims: bool) -> Value:
    """The mean square of what each element differs from the mean (math_ops.py, ``reduce_variance``)."""
    return reduced(g, "Mean", g.Square(g.Sub(x, reduced(g, "Mean", x, axis, True))), axis, keepdims)


@operation("Ptp")
def range_of(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    x = as_value(g, x)
    made: Value = g.Sub(reduced(g, "Max", x, axis, keepdims), reduced(g, "Min", x, axis, keepdims))
    return made


@operation("CountNonzero")
def count_nonzero(g: Builder, x: Operand, axis: Axis = None) -> Value:
    return reduced(g, "Sum", g.cast(as_bool(g, x), "int32"), axis)


@operation("Logsumexp")
def logsumexp(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    """What is taken out of the powers is the largest, where it is finite (math_ops.py, ``reduce_logsumexp``)."""
    x = as_value(g, x)
    largest = reduced(g, "Max", x, axis, True)
    largest = where(g, g.IsFinite(largest), largest, g.ZerosLike(largest))
    total = g.Log(reduced(g, "Sum", g.Exp(g.Sub(x, largest)), axis, keepdims))
    if not keepdims:
        largest = g.Reshape(largest, g.shape_of(total))
    made: Value = g.Add(total, largest)
    return made


@operation("Average")
def average(g: Builder, x: Operand, weights: Operand = None, axis: Axis = None) -> Value:
    """With weights of the same shape, or one for each place along the one axis."""
    if weights is None:
        return reduced(g, "Mean", floating(g, x), axis)
    x, weights = promoted(g, x, weights, floating=True)
    if axis is not None and x.rank != weights.rank:
        rank = ranked(x)
        place = [1] * rank
        place[axis_in(axis, rank)] = -1
        total = reduced(g, "Sum", weights)
        weights = g.Reshape(weights, place)
    else:
        total = reduced(g, "Sum", weights, axis)
    made: Value = g.RealDiv(reduced(g, "Sum", g.Mul(x, weights), axis), total)
    return made


@operation("Norm")
def norm(g: Builder, x: Operand, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Value:
    """Of vectors along one axis, of matrices along two (linalg.py, ``norm``)."""
    x = floating(g, x)
    axes = axes_in(axis, ranked(x))
    if ord in (None, "fro") or (ord == 2 and len(axes) == 1):
        return g.Sqrt(reduced(g, "Sum", g.Square(x), axes, keepdims))
    if len(axes) == 1:
        return _vector_norm(g, x, ord, axes, keepdims)
    if ord in (1, -1, math.inf, -math.inf):
        summed_over, left = (axes[0], axes[1]) if ord in (1, -1) else (axes[1], axes[0])
        sums = reduced(g, "Sum", g.Abs(x), summed_over, True)
        y = reduced(g, "Max" if ord > 0 else "Min", sums, left, True)
    elif ord in (2, -2, "nuc"):
        rank = ranked(x)
        order = [*(axis for axis in range(rank) if axis not in axes), *axes]
        values = g.node("Svd", g.Transpose(x, order) if order != list(range(rank)) else x, compute_uv=False)[0]
        y = g.node({2: "Max", -2: "Min", "nuc": "Sum"}[ord], values, [rank - 2])
        sizes = [1 if axis in axes else size for axis, size in enumerate(g.sizes(x))]
        y = g.reshape(y, sizes)
    else:
        raise ValueError(f"ord is {ord!r}")
    return y if keepdims else g.Squeeze(y, squeeze_dims=axes)


def _vector_norm(g: Builder, x: Value, ord: Any, axes: list[int], keepdims: bool) -> Value:
    if ord in (math.inf, -math.inf):
        return reduced(g, "Max" if ord > 0 else "Min", g.Abs(x), axes, keepdims)
    if ord == 0:
        return reduced(g, "Sum", g.cast(g.NotEqual(x, 0.0), x.dtype), axes, keepdims)
    total = reduced(g, "Sum", g.Pow(g.Abs(x), float(ord)), axes, keepdims)
    made: Value = g.Pow(total, 1 / float(ord))
    return made


# -- running sums ------------------------------------------------------------------------------------------------------


def _running(op: str) -> Callable[..., Value]:
    def run(g: Builder, x: Operand, axis: int | None = None, dtype: str | None = None) -> Value:
        x = as_value(g, x, dtype)
        x = g.cast(x, "int32") if x.dtype == "bool" else x
        if axis is None:
            x, axis = g.Reshape(x, [-1]), 0
        made: Value = g.node(op, x, axis_in(axis, ranked(x)))
        return made

    return run


cumsum, cumprod = _running("Cumsum"), _running("Cumprod")
operation("Cumsum")(cumsum)
operation("Cumprod")(cumprod)


@operation("Nancumsum")
def nancumsum(g: Builder, x: Operand, axis: int | None = None, dtype: str | None = None) -> Value:
    return cumsum(g, nan_to_num(g, x), axis, dtype)


@operation("Nancumprod")
def nancumprod(g: Builder, x: Operand, axis: int | None = None, dtype: str | None = None) -> Value:
    return cumprod(g, nan_to_num(g, x, nan=1.0), axis, dtype)


# -- order -------------------------------------------------------------------------------------------------------------


def argument(op: str) -> Callable[..., Value]:
    """ArgMax or ArgMin. Keras 3 takes 0 for larger than -0; the ops take the first of them."""

    def find(g: Builder, x: Operand, axis: int | None = None, keepdims: bool = False) -> Value:
        x = as_value(g, x)
        if x.dtype in ("bool", "float16", "bfloat16"):
            x = g.cast(x, "int32" if x.dtype == "bool" else "float32")
        rank = ranked(x)
        flat = g.Reshape(x, [-1]) if axis is None else x
        at = 0 if axis is None else axis_in(axis, rank)
        y = g.cast(g.node(op, flat, at), "int32")
        if not keepdims:
            return y
        if axis is None:
            return g.Reshape(y, [1] * rank)
        made: Value = g.ExpandDims(y, at)
        return made

    return find


argmax, argmin = argument("ArgMax"), argument("ArgMin")
operation("Argmax")(argmax)
operation("Argmin")(argmin)


def at_the_end(g: Builder, x: Value, axis: int) -> tuple[Value, list[int]]:
    """``x`` with an axis swapped with the last one, and the order that does it, which undoes it too."""
    order = list(range(ranked(x)))
    order[axis], order[-1] = order[-1], order[axis]
    return (x if axis == order[axis] else g.Transpose(x, order)), order


def descending(g: Builder, x: Value, count: Any = None) -> tuple[Value, Value]:
    """The last axis from the largest down, and where each was; of equal ones the first comes first."""
    values, places = g.node("TopKV2", x, g.sizes(x)[-1] if count is None else count)
    return values, places


def _mirrored(g: Builder, x: Value) -> Value:
    """Numbers in the reverse order, none of them beyond its dtype (sort_ops.py, ``_sort_or_argsort``)."""
    if is_floating(x.dtype):
        return g.Neg(x)
    if x.dtype.startswith("uint"):
        return g.Sub(g.constant(np.iinfo(x.dtype).max, x.dtype), x)
    made: Value = g.Sub(g.constant(-1, x.dtype), x)
    return made


@operation("Sort")
def sort(g: Builder, x: Operand, axis: int | None = -1) -> Value:
    x = as_value(g, x)
    dtype = x.dtype
    x = g.cast(x, "int8") if dtype == "bool" else x
    if axis is None:
        x, axis = g.Reshape(x, [-1]), 0
    x, order = at_the_end(g, x, axis_in(axis, ranked(x)))
    y = _mirrored(g, descending(g, _mirrored(g, x))[0])
    y = y if order == sorted(order) else g.Transpose(y, order)
    return g.cast(y, dtype)


@operation("Argsort")
def argsort(g: Builder, x: Operand, axis: int | None = -1) -> Value:
    x = as_value(g, x)
    x = g.cast(x, "uint8") if x.dtype == "bool" else x
    if x.rank == 0:
        return g.constant([0], "int32")
    if axis is None:
        x, axis = g.Reshape(x, [-1]), 0
    x, order = at_the_end(g, x, axis_in(axis, ranked(x)))
    places = descending(g, _mirrored(g, x))[1]
    return places if order == sorted(order) else g.Transpose(places, order)


@operation("TopK")
def top_k(g: Builder, x: Operand, k: int, sorted: bool = True) -> tuple[Value, Value]:
    values, places = g.node("TopKV2", as_value(g, x), k, sorted=bool(sorted))
    return values, places


@operation("InTopK")
def in_top_k(g: Builder, targets: Operand, predictions: Operand, k: int) -> Value:
    made: Value = g.InTopK(as_value(g, predictions, "float32"), as_value(g, targets), k=k)
    return made


# -- quantiles ---------------------------------------------------------------------------------------------------------

_METHODS = ("linear", "lower", "higher", "midpoint", "nearest")


@operation("Quantile")
def quantile_of(g: Builder, x: Operand, q: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    """Keras 3.15 does not pass the method on: it is always the linear one."""
    return quantile(g, x, q, axis, "linear", keepdims)


def quantile(
    g: Builder, x: Operand, q: Operand, axis: Axis = None, method: str = "linear", keepdims: bool = False
) -> Value:
    """Which element stands at a part of the way through the sorted ones (numpy.py, ``_quantile``).

    Places are counted in float64. NaN anywhere gives NaN.
    """
    if method not in _METHODS:
        raise ValueError(f"method is {method!r}")
    x = floating(g, x)
    q = as_value(g, q, "float64")
    rank, parts = ranked(x), ranked(q)
    axes = axes_in(axis, rank)
    others = [at for at in range(rank) if at not in axes]
    sizes = g.sizes(x)
    order = others + axes
    y = x if order == list(range(rank)) else g.Transpose(x, order)
    if len(axes) != 1:
        y = g.Reshape(y, g.vector([*(sizes[at] for at in others), -1]))
    y = _mirrored(g, descending(g, _mirrored(g, y))[0])
    last = g.sizes(y)[-1]
    y = g.Transpose(y, [len(others), *range(len(others))])  # Gather has always worked on the first axis
    y = _between(
        g,
        y,
        g.Mul(g.cast(as_value(g, g.Sub(last, 1) if isinstance(last, Value) else last - 1, None), "float64"), q),
        last,
        method,
    )
    nan = reduced(g, "Any", g.IsNan(x), axes)
    y = where(g, nan, g.constant(math.nan, y.dtype), y)
    if not keepdims:
        return y
    kept = [1 if at in axes else size for at, size in enumerate(sizes)]
    return g.reshape(y, [*g.sizes(q), *kept]) if parts or rank else y


def _between(g: Builder, y: Value, exact: Value, last: Any, method: str) -> Value:
    """Elements of sorted ``y`` at places that are no whole numbers."""

    def at(place: Value) -> Value:
        limit = g.Sub(last, 1) if isinstance(last, Value) else last - 1
        made: Value = g.Gather(y, g.Minimum(g.Maximum(g.cast(place, "int32"), 0), limit))
        return made

    if method in ("lower", "higher", "nearest"):
        return at(g.node({"lower": "Floor", "higher": "Ceil", "nearest": "Rint"}[method], exact))
    if method == "midpoint":
        return g.Mul(g.Add(at(g.Floor(exact)), at(g.Ceil(exact))), 0.5)
    below = g.Maximum(g.Sub(g.Ceil(exact), g.constant(1.0, "float64")), g.constant(0.0, "float64"))
    fraction = g.cast(g.Sub(g.Add(below, g.constant(1.0, "float64")), exact), y.dtype)
    for _ in range(ranked(y) - 1):
        fraction = g.ExpandDims(fraction, -1)
    made: Value = g.Add(
        g.Mul(at(g.Add(below, g.constant(1.0, "float64"))), g.Sub(1.0, fraction)), g.Mul(at(below), fraction)
    )
    return made


@operation("Percentile")
def percentile(
    g: Builder, x: Operand, q: Operand, axis: Axis = None, method: str = "linear", keepdims: bool = False
) -> Value:
    parts = g.RealDiv(as_value(g, q, "float32"), 100.0)
    return quantile(g, x, parts, axis, method, keepdims)


@operation("Median")
def median(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    return quantile(g, x, 0.5, axis, "linear", keepdims)


# -- without NaN -------------------------------------------------------------------------------------------------------


def _cleared(g: Builder, x: Value, instead: float) -> Value:
    """``instead`` in place of NaN."""
    return where(g, g.IsNan(x), g.constant(instead, x.dtype), x) if is_floating(x.dtype) else x


@operation("Nansum")
def nansum(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    return summed(g, _cleared(g, as_value(g, x), 0.0), axis, keepdims)


@operation("Nanprod")
def nanprod(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    return prod(g, _cleared(g, as_value(g, x), 1.0), axis, keepdims)


def _nan_extreme(reduce: Callable[..., Value], least: float) -> Callable[..., Value]:
    def compute(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
        x = as_value(g, x)
        if not is_floating(x.dtype):
            return reduce(g, x, axis, keepdims)
        nothing = reduced(g, "All", g.IsNan(x), axis, keepdims)
        return where(g, nothing, g.constant(math.nan, x.dtype), reduce(g, _cleared(g, x, least), axis, keepdims))

    return compute


operation("Nanmax")(_nan_extreme(maximum, -math.inf))
operation("Nanmin")(_nan_extreme(minimum, math.inf))


def _nan_argument(find: Callable[..., Value], least: float) -> Callable[..., Value]:
    """-1 where there is nothing but NaN."""

    def compute(g: Builder, x: Operand, axis: int | None = None, keepdims: bool = False) -> Value:
        x = as_value(g, x)
        if not is_floating(x.dtype):
            return find(g, x, axis, keepdims)
        nothing = reduced(g, "All", g.IsNan(x), axis, keepdims)
        return where(g, nothing, g.constant(-1), find(g, _cleared(g, x, least), axis, keepdims))

    return compute


operation("Nanargmax")(_nan_argument(argmax, -math.inf))
operation("Nanargmin")(_nan_argument(argmin, math.inf))


@operation("Nanmean")
def nanmean(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    x = as_value(g, x)
    if not is_floating(x.dtype):
        return reduced(g, "Mean", g.cast(x, "float32"), axis, keepdims)
    count = reduced(g, "Sum", g.cast(g.LogicalNot(g.IsNan(x)), x.dtype), axis, keepdims)
    made: Value = g.RealDiv(nansum(g, x, axis, keepdims), count)
    return made


@operation("Nanvar")
def nanvar(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    x = floating(g, x)
    valid = g.LogicalNot(g.IsNan(x))
    apart = where(g, valid, g.Sub(x, nanmean(g, x, axis, True)), g.ZerosLike(x))
    count = reduced(g, "Sum", g.cast(valid, x.dtype), axis, keepdims)
    made: Value = g.RealDiv(reduced(g, "Sum", g.Square(apart), axis, keepdims), count)
    return made


@operation("Nanstd")
def nanstd(g: Builder, x: Operand, axis: Axis = None, keepdims: bool = False) -> Value:
    made: Value = g.Sqrt(nanvar(g, x, axis, keepdims))
    return made


# -- segments and counts -----------------------------------------------------------------------------------------------


def _segments(kind: str) -> Callable[..., Value]:
    """Rows that have the same number are reduced to one.

    UnsortedSegmentMin and -Prod came with TensorFlow 1.8, without a number of segments the largest one counts.
    """

    def reduce(
        g: Builder, data: Operand, segment_ids: Operand, num_segments: Any = None, sorted: bool = False
    ) -> Value:
        data, ids = as_value(g, data), as_value(g, segment_ids)
        made: Value
        if sorted:
            made = g.node(f"Segment{kind}", data, ids)
            return made
        if num_segments is None and kind == "Sum":
            unique, _ = g.node("Unique", ids)
            num_segments = g.sizes(unique)[0]
        elif num_segments is None:
            num_segments = g.cast(g.Add(reduced(g, "Max", ids), 1), "int32")
        made = g.node(f"UnsortedSegment{kind}", data, ids, num_segments)
        return made

    return reduce


for _kind in ("Sum", "Max", "Min", "Prod"):
    operation(f"Segment{_kind}")(_segments(_kind))
