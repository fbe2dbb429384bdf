"""Layers that make one tensor of several."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.arguments import axis_of, rank_of
from modelio.lowering.masking import merges_masks, spread
from modelio.lowering.normalization import unit_length
from modelio.lowering.rules import Mask, Rule, Site, rule

__all__: list[str] = []

Values = Sequence[Value]


Combine = Callable[[Builder, Value, Value], Value]


def _merging(combine: Combine) -> Rule:
    """A rule that combines its inputs one after another (keras/src/layers/merging/base_merge.py, ``call``)."""

    def merge(g: Builder, layer: Site, inputs: Values) -> Value:
        result, *others = _of_one_rank(g, _of_one_dtype(g, _several(layer, inputs)))
        for value in others:
            result = combine(g, result, value)
        return result

    return merge


def _merging_what_counts(combine: Combine, masked: Callable[..., Value]) -> Rule:
    """The same, but since Keras 3.4 ``masked`` looks after steps of an input that do not count."""
    plain = _merging(combine)

    def merge(g: Builder, layer: Site, inputs: Values, mask: Mask = None) -> Any:
        if mask is None or layer.dialect != "keras3" or not merges_masks(layer):
            return plain(g, layer, inputs)
        values = _of_one_dtype(g, _several(layer, inputs))
        raised = _of_one_rank(g, values)
        # A value that has to be reshaped loses its mask.
        marks = [
            None if one is None or after is not before else spread(g, one, after)
            for before, after, one in zip(values, raised, mask, strict=True)
        ]
        return masked(g, combine, raised, marks)

    return merge


def _product_of_what_counts(g: Builder, combine: Combine, values: Values, marks: Sequence[Value | None]) -> Value:
    """A step that does not count is a factor of 1; where it counts nowhere, it is zero (merging/multiply.py)."""
    factors = [x if mark is None else g.Select(mark, x, g.OnesLike(x)) for x, mark in zip(values, marks, strict=True)]
    y = functools.reduce(functools.partial(combine, g), factors)
    known = [mark for mark in marks if mark is not None]
    if len(known) < len(marks):
        return y
    return g.Select(functools.reduce(g.LogicalOr, known), y, g.ZerosLike(y))


def _extreme_of_what_counts(g: Builder, combine: Combine, values: Values, marks: Sequence[Value | None]) -> Value:
    """Where a step does not count, the other inputs do (base_merge.py, ``_apply_merge_op_and_or_mask``)."""
    result, marked = values[0], marks[0]
    for x, mark in zip(values[1:], marks[1:], strict=True):
        if mark is not None:
            x = g.Select(mark, x, result)
        if marked is not None:
            result = g.Select(marked, result, x)
        marked = None if mark is None or marked is None else g.LogicalOr(marked, mark)
        result = combine(g, result, x)
    return result


rule("Add")(_merging(lambda g, a, b: g.Add(a, b)))
rule("Subtract")(_merging(lambda g, a, b: g.Sub(a, b)))
rule("Multiply")(_merging_what_counts(lambda g, a, b: g.Mul(a, b), _product_of_what_counts))
rule("Maximum")(_merging_what_counts(lambda g, a, b: g.Maximum(a, b), _extreme_of_what_counts))
rule("Minimum")(_merging_what_counts(lambda g, a, b: g.Minimum(a, b), _extreme_of_what_counts))


@rule("Average")
def average(g: Builder, layer: Site, inputs: Values) -> Value:
    """The sum over the number of inputs (keras/src/layers/merging/average.py).

    Whole numbers become floating-point ones as ``tf.truediv`` makes them (math_ops.py, ``_TRUEDIV_TABLE``).
    """
    total = _merging(lambda g, a, b: g.Add(a, b))(g, layer, inputs)
    assert isinstance(total, Value)
    total = g.cast(total, _QUOTIENTS.get(total.dtype, total.dtype))
    return g.RealDiv(total, float(len(inputs)))


_QUOTIENTS = {
    **dict.fromkeys(("uint8", "int8", "uint16", "int16"), "float32"),
    **dict.fromkeys(("uint32", "int32", "uint64", "int64"), "float64"),
}


@rule("Concatenate")
def concatenate(g: Builder, layer: Site, inputs: Values) -> Value:
    """keras/src/layers/merging/concatenate.py."""
    values = _of_one_dtype(g, _several(layer, inputs))
    if len(values) == 1:
        return values[0]
    rank = next((value.rank for value in values if value.rank is not None), None)
    axis = layer.config["axis"]
    return g.ConcatV2(values, axis if rank is None else axis_of(layer, axis, rank))


@rule("Dot")
def dot(g: Builder, layer: Site, inputs: Values) -> Value:
    """The sum of products along one axis of each input (keras/src/layers/merging/dot.py).

    ``normalize`` brings both to length 1 first: the cosine of their angle. Inputs of rank 4 and more were multiplied as
    matrices in their last two axes before Keras 2.2.5 and TensorFlow 2.1.
    """
    values = _of_one_dtype(g, _several(layer, inputs))
    if len(values) != 2:
        raise ConversionError(f"Dot is called on {len(values)} tensors; it wants 2")
    x, y = values
    axes = layer.config["axes"]
    first, second = axes if isinstance(axes, (list, tuple)) and len(axes) == 2 else (axes, axes)
    first = axis_of(layer, first, rank_of(layer, x, least=2))
    second = axis_of(layer, second, rank_of(layer, y, least=2))
    if not first or not second:
        raise ConversionError("Dot is told to sum over axis 0, which counts the samples")
    if not layer.config["normalize"]:
        return _product(g, layer, x, y, first, second)
    if layer.dialect == "keras1":
        return _cosine_of_keras_1(g, layer, x, y, first, second)
    # Keras 3 passes no epsilon on, so that keras.backend.epsilon() counts (keras/src/utils/numerical_utils.py).
    x, y = unit_length(g, layer, x, [first], least=1e-7), unit_length(g, layer, y, [second], least=1e-7)
    return _product(g, layer, x, y, first, second)


def _cosine_of_keras_1(g: Builder, layer: Site, x: Value, y: Value, first: int, second: int) -> Value:
    """Keras 1.2.2 ``engine/topology.py``, ``Merge.call``, ``mode="cos"``; the result has an axis more."""
    squares = g.Mul(_product(g, layer, x, x, first, second), _product(g, layer, y, y, first, second))
    cosine = g.RealDiv(_product(g, layer, x, y, first, second), g.Maximum(g.Sqrt(squares), 1e-7))
    return g.ExpandDims(cosine, 1)


def _product(g: Builder, layer: Site, x: Value, y: Value, first: int, second: int) -> Value:
    """``K.batch_dot``, which sums over an axis of each (tf_keras/src/backend.py)."""
    assert x.rank is not None
    assert y.rank is not None
    if x.rank == y.rank == 2:
        return g.Sum(g.Mul(x, y), [1], keep_dims=True)
    if max(x.rank, y.rank) > 3 and len(layer.version) > 1 and layer.version < (2, 2, 5):
        if x.rank != y.rank:
            raise ConversionError(f"Dot of ranks {x.rank} and {y.rank} had another meaning before Keras 2.2.5")
        return g.BatchMatMul(x, y, adj_x=first != x.rank - 1, adj_y=second == y.rank - 1)
    batch, *left = [size for axis, size in enumerate(g.sizes(x)) if axis != first]
    _, *right = [size for axis, size in enumerate(g.sizes(y)) if axis != second]
    x, transposed_x = _as_matrices(g, x, first)
    y, transposed_y = _as_matrices(g, y, second)
    result = g.BatchMatMul(x, y, adj_x=transposed_x, adj_y=not transposed_y)
    return result if len(left) == len(right) == 1 else g.reshape(result, [batch, *left, *right])


def _as_matrices(g: Builder, x: Value, axis: int) -> tuple[Value, bool]:
    """``x`` as one matrix a sample, and whether ``axis`` is the first axis of that matrix, not the second."""
    if x.rank == 2:
        return g.ExpandDims(x, 1), False
    if x.rank == 3:
        return x, axis == 1
    assert x.rank is not None
    others = [other for other in range(1, x.rank) if other != axis]
    sizes = g.sizes(x)
    return g.reshape(g.Transpose(x, [0, *others, axis]), [sizes[0], -1, sizes[axis]]), False


# -- what they share ---------------------------------------------------------------------------------------------------


def _several(layer: Site, inputs: Values) -> list[Value]:
    if isinstance(inputs, Value) or not inputs or not all(isinstance(value, Value) for value in inputs):
        raise ConversionError(f"{layer.layer.source_class} is not called on a list of tensors")
    return list(inputs)


def _of_one_dtype(g: Builder, values: Values) -> list[Value]:
    """Whole numbers beside floating-point ones become such (keras/src/backend/common/dtypes.py, ``result_type``)."""
    dtypes = {value.dtype for value in values}
    if len(dtypes) == 1:
        return list(values)
    floating = [dtype for dtype in dtypes if "float" in dtype]
    dtype = max(floating, key=_WIDTHS.index) if floating else np.result_type(*dtypes).name
    return [g.cast(value, dtype) for value in values]


_WIDTHS = ("bfloat16", "float16", "float32", "float64")


def _of_one_rank(g: Builder, values: Values) -> list[Value]:
    """Inputs of a lower rank get axes of size 1 behind the batch (base_merge.py, ``call``)."""
    ranks = {value.rank for value in values}
    if len(ranks) == 1 and None not in ranks:
        return list(values)
    if None in ranks:
        return _of_one_unknown_rank(g, values)
    most = max(rank or 0 for rank in ranks)
    raised = []
    for value in values:
        missing = most - (value.rank or 0)
        batch, *others = g.sizes(value)
        raised.append(g.reshape(value, [batch, *(1,) * missing, *others]) if missing else value)
    return raised


def _of_one_unknown_rank(g: Builder, values: Values) -> list[Value]:
    """The same where a rank is known only when the graph runs."""
    ranks = [g.Rank(value) for value in values]
    most = functools.reduce(g.Maximum, ranks)
    raised = []
    for value, rank in zip(values, ranks, strict=True):
        shape = g.Shape(value)
        ones = g.Fill(g.Pack([g.Sub(most, rank)]), 1)
        batch = g.StridedSlice(shape, [0], [1], [1])
        others = g.StridedSlice(shape, [1], [0], [1], end_mask=1)
        raised.append(g.Reshape(value, g.ConcatV2([batch, ones, others], 0)))
    return raised
