"""Functions of TensorFlow that move, pick and make elements (:mod:`~modelio.lowering.functions`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelio.graph.builder import Builder, Value
from modelio.lowering.arithmetic import Operand, as_value, broadcast_to, is_floating
from modelio.lowering.functions import Function, alike, function, listed
from modelio.lowering.operations import arranging, axis_in, picking, ranked, reductions

__all__: list[str] = []


# -- shapes and slices -------------------------------------------------------------------------------------------------


def _sizes(g: Builder, shape: Operand) -> Value:
    """A shape as a vector: a tensor, or a list of numbers and tensors."""
    if isinstance(shape, Value):
        return g.cast(shape, "int32")
    sizes = shape.tolist() if isinstance(shape, np.ndarray) else shape
    sizes = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
    return g.vector([g.cast(size, "int32") if isinstance(size, Value) else int(size) for size in sizes])


@function("reshape")
def reshape(g: Builder, tensor: Operand, shape: Operand) -> Value:
    x = as_value(g, tensor)
    if isinstance(shape, (list, tuple)):
        sizes = [g.cast(size, "int32") if isinstance(size, Value) else int(size) for size in shape]
        return g.reshape(x, sizes)
    made: Value = g.Reshape(x, _sizes(g, shape))
    return made


@function("shape")
def shape_of(g: Builder, input: Operand, out_type: str = "int32") -> Value:
    return g.cast(g.Shape(as_value(g, input)), out_type)


@function("size")
def size_of(g: Builder, input: Operand, out_type: str = "int32") -> Value:
    return g.cast(g.Size(as_value(g, input)), out_type)


@function("rank")
def rank_of(g: Builder, input: Operand) -> Value:
    made: Value = g.Rank(as_value(g, input))
    return made


@function("__operators__.getitem")
def getitem(g: Builder, tensor: Operand, slice_spec: Any) -> Value:
    x = as_value(g, tensor)
    keys = slice_spec if isinstance(slice_spec, list) else [slice_spec]
    return arranging.item(g, x, tuple(_key(one) for one in keys))


def _key(spec: Any) -> Any:
    """``{"start": 1, "stop": null, "step": null}`` is ``slice(1, None)``."""
    if isinstance(spec, Mapping):
        return slice(spec.get("start"), spec.get("stop"), spec.get("step"))
    return spec


@function("strided_slice")
def strided_slice(
    g: Builder, input_: Operand, begin: Operand, end: Operand, strides: Operand = None, **masks: int
) -> Value:
    begin = _sizes(g, begin)
    steps = g.vector([1] * (begin.shape or (1,))[0]) if strides is None else _sizes(g, strides)
    made: Value = g.StridedSlice(as_value(g, input_), begin, _sizes(g, end), steps, **masks)
    return made


@function("slice")
def slice_of(g: Builder, input_: Operand, begin: Operand, size: Operand) -> Value:
    made: Value = g.Slice(as_value(g, input_), _sizes(g, begin), _sizes(g, size))
    return made


@function("expand_dims")
def expand_dims(g: Builder, input: Operand, axis: Any = None, dim: Any = None) -> Value:
    return arranging.expand_dims(g, input, axis if dim is None else dim)


@function("squeeze")
def squeeze(g: Builder, input: Operand, axis: Any = None, squeeze_dims: Any = None) -> Value:
    return arranging.squeeze(g, input, (axis if squeeze_dims is None else squeeze_dims) or None)


@function("transpose")
def transpose(g: Builder, a: Operand, perm: Any = None) -> Value:
    return arranging.transposed(g, a, listed(perm))


@function("linalg.matrix_transpose")
def matrix_transpose(g: Builder, a: Operand) -> Value:
    return arranging.swapaxes(g, a, -1, -2)


@function("reverse")
def reverse(g: Builder, tensor: Operand, axis: Any) -> Value:
    return arranging.flipped(g, tensor, listed(axis))


@function("tile")
def tile(g: Builder, input: Operand, multiples: Operand) -> Value:
    made: Value = g.Tile(as_value(g, input), _sizes(g, multiples))
    return made


@function("repeat")
def repeat(g: Builder, input: Operand, repeats: Any, axis: int | None = None) -> Value:
    return picking.repeat(g, input, repeats, axis)


@function("roll")
def roll(g: Builder, input: Operand, shift: Any, axis: Any) -> Value:
    return picking.roll(g, input, shift, axis)


@function("broadcast_to")
def broadcast(g: Builder, input: Operand, shape: Operand) -> Value:
    return broadcast_to(g, as_value(g, input), _sizes(g, shape))


@function("ensure_shape")
def ensure_shape(g: Builder, x: Operand, shape: Any) -> Value:
    made: Value = g.Identity(as_value(g, x))
    return made


@function("pad")
def pad(g: Builder, tensor: Operand, paddings: Any, mode: str = "CONSTANT", constant_values: Operand = 0) -> Value:
    return picking.padded(g, tensor, paddings, mode.lower(), None if mode.upper() != "CONSTANT" else constant_values)


# -- joining, splitting, picking ---------------------------------------------------------------------------------------


@function("concat", "keras.backend.concatenate")
def concat(g: Builder, values: Sequence[Operand], axis: int) -> Value:
    parts = alike(g, *(values if isinstance(values, (list, tuple)) else [values]))
    return arranging.joined(g, parts, axis_in(axis, ranked(parts[0])))


@function("stack")
def stack(g: Builder, values: Sequence[Operand], axis: int = 0) -> Value:
    parts = alike(g, *values)
    made: Value = g.Pack(parts, axis=axis_in(axis, ranked(parts[0]) + 1))
    return made


@function("unstack")
def unstack(g: Builder, value: Operand, num: int | None = None, axis: int = 0) -> tuple[Value, ...]:
    return arranging.unstack(g, value, num, axis)


@function("split")
def split(
    g: Builder, value: Operand, num_or_size_splits: Any, axis: int = 0, num: int | None = None
) -> tuple[Value, ...]:
    if isinstance(num_or_size_splits, (list, tuple, np.ndarray)):
        sizes = [int(size) for size in num_or_size_splits]
        if -1 in sizes or len(sizes) > arranging.MOST_PARTS:
            raise ValueError(f"parts of the sizes {sizes[:5]}")
        return arranging.parts(g, value, np.cumsum(sizes)[:-1].tolist(), axis)
    return arranging.parts(g, value, num_or_size_splits, axis)


@function("gather")
def gather(g: Builder, params: Operand, indices: Operand, axis: Any = None, batch_dims: int = 0) -> Value:
    x, indices = as_value(g, params), as_value(g, indices)
    if batch_dims:
        return _gather_in_batches(g, x, indices, batch_dims, batch_dims if axis is None else axis)
    at = axis_in(0 if axis is None else axis, ranked(x))
    if not at:
        return g.Gather(x, indices)
    made: Value = g.GatherV2(x, indices, at)
    return made


def _gather_in_batches(g: Builder, x: Value, indices: Value, count: int, axis: int) -> Value:
    """Every sample by its own numbers: its rows are counted on from those of the samples before it."""
    if count < 0:
        count += ranked(indices)
    at = axis_in(axis, ranked(x))
    if at != count:
        raise ValueError("axes between the batch and the one picked from")
    sizes, wanted = g.sizes(x), g.sizes(indices)
    rows = (
        arranging.reshape(g, indices, [-1])
        if count == ranked(indices)
        else g.Reshape(indices, g.vector([-1, arranging.whole_of(g, wanted[count:])]))
    )
    length = sizes[at]
    first = g.Mul(g.Range(0, g.sizes(rows)[0], 1), length)
    rows = g.cast(rows, "int32")
    places = g.Add(rows, g.ExpandDims(first, 1) if ranked(rows) == 2 else first)
    flat = g.Reshape(x, g.vector([-1, *sizes[at + 1 :]]))
    return g.reshape(g.Gather(flat, places), [*sizes[:count], *wanted[count:], *sizes[at + 1 :]])


@function("gather_nd")
def gather_nd(g: Builder, params: Operand, indices: Operand, batch_dims: int = 0) -> Value:
    if batch_dims:
        raise ValueError("batch_dims of gather_nd")
    made: Value = g.GatherNd(as_value(g, params), as_value(g, indices))
    return made


@function("nn.embedding_lookup")
def embedding_lookup(
    g: Builder, params: Operand, ids: Operand, max_norm: Any = None, partition_strategy: str = "mod"
) -> Value:
    if max_norm is not None:
        raise ValueError("max_norm")
    made: Value = g.Gather(as_value(g, params), as_value(g, ids))
    return made


@function("one_hot")
def one_hot(
    g: Builder,
    indices: Operand,
    depth: Operand,
    on_value: Any = None,
    off_value: Any = None,
    axis: int | None = None,
    dtype: str | None = None,
) -> Value:
    dtype = dtype or "float32"
    on, off = ((True if on_value is None else on_value), (False if off_value is None else off_value))
    made: Value = g.OneHot(
        as_value(g, indices), depth, as_value(g, on, dtype), as_value(g, off, dtype), axis=-1 if axis is None else axis
    )
    return made


@function("sequence_mask")
def sequence_mask(g: Builder, lengths: Operand, maxlen: Operand = None, dtype: str = "bool") -> Value:
    lengths = as_value(g, lengths)
    most = reductions.reduced(g, "Max", lengths) if maxlen is None else as_value(g, maxlen, lengths.dtype)
    steps = g.Range(g.constant(0, lengths.dtype), most, g.constant(1, lengths.dtype))
    return g.cast(g.Less(steps, g.ExpandDims(lengths, -1)), dtype)


# -- filling -----------------------------------------------------------------------------------------------------------


def _like(value: float) -> Function:
    def compute(g: Builder, *args: Operand, dtype: str | None = None, **given: Any) -> Value:
        given.pop("optimize", None)
        x = as_value(g, next(iter((*args, *given.values()))))
        made: Value = g.Fill(g.shape_of(x), g.constant(value, dtype or x.dtype))
        return made

    return compute


def _filled(value: float) -> Function:
    def compute(g: Builder, shape: Operand, dtype: str = "float32") -> Value:
        made: Value = g.Fill(_sizes(g, shape), g.constant(value, dtype))
        return made

    return compute


for _name, _number in (("zeros", 0), ("ones", 1)):
    function(f"{_name}_like")(_like(_number))
    function(_name)(_filled(_number))


@function("fill")
def fill(g: Builder, dims: Operand, value: Operand) -> Value:
    made: Value = g.Fill(_sizes(g, dims), as_value(g, value))
    return made


@function("range")
def range_of(g: Builder, start: Operand, limit: Operand = None, delta: Operand = 1, dtype: str | None = None) -> Value:
    start, limit = (0, start) if limit is None else (start, limit)
    ends = alike(g, start, limit, delta)
    wide = dtype or ("float32" if any(is_floating(end.dtype) for end in ends) else ends[0].dtype)
    made: Value = g.Range(*(g.cast(end, wide) for end in ends))
    return made


@function("linspace")
def linspace(g: Builder, start: Operand, stop: Operand, num: int, axis: int = 0) -> Value:
    made: Value = picking.linspace(g, start, stop, num, axis=axis)
    return made


@function("convert_to_tensor", "constant")
def convert(g: Builder, value: Operand, dtype: str | None = None, **hints: Any) -> Value:
    return as_value(g, value, dtype)
