"""What an op makes of constants, by NumPy, where that is certain to the last bit: a table of ops.

An op is in the table only where NumPy and every TensorFlow agree on every input that is let through. So there is no
matrix product and no sum of floats (the order of additions differs), no exponential (approximations differ), and no
arithmetic on numbers so small that TensorFlow flushes them to zero (``ScopedFlushDenormal``); what would be an error in
TensorFlow stays one, at the same node. What is left is what graphs decide things with: shapes, indices, flags, rates.

Sources: ``tensorflow/core/ops/array_ops.cc``, ``math_ops.cc`` and the kernels of the same names; TensorFlow 2.21.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ModelioError
from modelio.graph import operations
from modelio.graph.operations import Operation
from modelio.model import Message
from modelio.wire.dtypes import dtype_name, dtype_number

__all__ = ["LARGEST", "OF_SHAPES", "Large", "Value", "evaluate", "is_true"]

LARGEST = 1 << 16
"""Bytes of the largest value that is computed, or computed from."""


@dataclass(frozen=True)
class Large:
    """A constant that is not looked into: its content lies beside the graph. Its shape is known."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


Array = npt.NDArray[Any]
Value = Array | Large
Attributes = Callable[[str], Any]


def evaluate(node: Message, operation: Operation, inputs: Sequence[Value]) -> list[Array] | None:
    """The outputs of a node, in order, from its data inputs; None where they are not certain, or too large.

    >>> from modelio.wire.messages import NodeDef
    >>> evaluate(NodeDef(op="LogicalNot"), operations.op("LogicalNot"), [np.array(True)])
    [array(False)]
    """
    if operation is not operations.op(node.op):  # a function of the file that has the name of an op
        return None
    rule = _TABLE.get(node.op)
    if rule is None:
        return None

    def attribute(name: str) -> Any:
        return operation.value(node.attr, name)

    try:
        with np.errstate(all="ignore"):
            if node.op in OF_SHAPES:
                made = rule(attribute, *inputs)
            else:
                if sum(LARGEST + 1 if isinstance(value, Large) else value.nbytes for value in inputs) > LARGEST:
                    return None
                made = rule(attribute, *inputs)
        wanted = operation.output_dtypes(node.attr)
    except (ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError, ModelioError, _Uncertain):
        return None
    results = [np.asarray(result) for result in (made if isinstance(made, list) else [made])]
    if len(results) != len(wanted) or any(result.nbytes > LARGEST for result in results):
        return None
    if any(dtype_name(dtype_number(result.dtype)) != dtype for result, dtype in zip(results, wanted, strict=True)):
        return None
    return results


def is_true(value: Array) -> bool:
    """Which branch of an ``If`` a condition means: zero, empty text and empty tensors mean no (functional_ops.cc)."""
    return bool(value.size) if value.ndim else bool(value.item())


class _Uncertain(Exception):
    """TensorFlow may make something else of this."""


def _surely(condition: object) -> None:
    if not condition:
        raise _Uncertain


def _normal(*values: Array) -> None:
    """None of these is flushed to zero somewhere, and NaN, which compares in its own way, is not among them."""
    for value in values:
        if value.dtype.kind == "f":
            _surely(value.dtype.itemsize in (4, 8))
            _surely(not np.isnan(value).any())
            _surely(not ((value != 0) & (np.abs(value) < np.finfo(value.dtype).tiny)).any())
        else:
            _surely(value.dtype.kind in "iub")


def _fits(*shape: int) -> None:
    """A result of this shape is small enough to be made."""
    _surely(all(size >= 0 for size in shape) and prod(shape) <= LARGEST)


def _binary(function: Callable[..., Any], kinds: str = "iuf") -> Callable[..., Any]:
    """An elementwise op of two arguments that broadcast."""

    def rule(attribute: Attributes, x: Array, y: Array) -> Any:
        _surely(x.dtype == y.dtype and x.dtype.kind in kinds)
        _fits(*np.broadcast_shapes(x.shape, y.shape))
        _normal(x, y)
        made = np.asarray(function(x, y))
        _normal(made)
        return made

    return rule


def _divided(function: Callable[..., Any]) -> Callable[..., Any]:
    """Division of whole numbers; by zero it is an error in TensorFlow."""

    def divide(x: Array, y: Array) -> Any:
        _surely(np.all(y != 0))
        _surely(x.dtype.kind == "u" or not ((x == np.iinfo(x.dtype).min) & (y == -1)).any())
        return function(x, y)

    return _binary(divide, "iu")


def _unary(function: Callable[..., Any], kinds: str = "iuf") -> Callable[..., Any]:
    def rule(attribute: Attributes, x: Array) -> Any:
        _surely(x.dtype.kind in kinds)
        _normal(x)
        made = np.asarray(function(x))
        _normal(made)
        return made

    return rule


def _equality(function: Callable[..., Any]) -> Callable[..., Any]:
    """Equal and NotEqual, of text too."""

    def rule(attribute: Attributes, x: Array, y: Array) -> Any:
        _surely(x.dtype == y.dtype)
        _fits(*np.broadcast_shapes(x.shape, y.shape))
        if x.dtype.kind != "O":
            _normal(x, y)
        return np.asarray(function(x, y)).astype(bool)

    return rule


def _reduction(function: Callable[..., Any], kinds: str) -> Callable[..., Any]:
    def rule(attribute: Attributes, x: Array, axes: Array) -> Any:
        _surely(x.dtype.kind in kinds)
        _normal(x)
        _surely(x.size or function in (np.sum, np.prod, np.all, np.any))
        options = {"dtype": x.dtype} if function in (np.sum, np.prod) else {}
        return function(x, axis=tuple(axes.reshape(-1).tolist()), keepdims=attribute("keep_dims"), **options)

    return rule


def _cast(attribute: Attributes, x: Array) -> Any:
    target = np.dtype(attribute("DstT"))  # of the types that NumPy itself has
    _surely(x.dtype.kind in "biuf" and target.kind in "biuf" and not attribute("Truncate"))
    _normal(x)
    if x.dtype.kind == "f" and target.kind in "iu":
        bounds: np.iinfo[Any] = np.iinfo(target)  # outside of these a cast is undefined
        _surely(np.all(np.isfinite(x)) and np.all(x > float(bounds.min) - 1) and np.all(x < float(bounds.max)))
    made = x.astype(target)
    _normal(made)
    return made


def _shape(attribute: Attributes, *inputs: Value) -> list[Array]:
    return [np.array(value.shape, attribute("out_type")) for value in inputs]


def _size(attribute: Attributes, x: Value) -> Array:
    return np.array(prod(x.shape), attribute("out_type"))


def _rank(attribute: Attributes, x: Value) -> Array:
    return np.array(len(x.shape), np.int32)


def _squeeze(attribute: Attributes, x: Array) -> Array:
    return np.squeeze(x, axis=tuple(attribute("squeeze_dims")) or None)


def _expand(attribute: Attributes, x: Array, axis: Array) -> Array:
    return np.expand_dims(x, int(axis.reshape(()).item()))


def _pack(attribute: Attributes, *inputs: Array) -> Array:
    return np.stack(inputs, axis=attribute("axis"))


def _unpack(attribute: Attributes, x: Array) -> list[Array]:
    axis = attribute("axis")
    _surely(x.ndim and x.shape[axis] == attribute("num"))
    return [np.ascontiguousarray(part) for part in np.moveaxis(x, axis, 0)]


def _concat(attribute: Attributes, *inputs: Array) -> Array:
    *values, axis = inputs
    return np.concatenate(values, axis=int(axis.item()))


def _old_concat(attribute: Attributes, axis: Array, *values: Array) -> Array:
    return np.concatenate(values, axis=int(axis.item()))


def _split(attribute: Attributes, axis: Array, x: Array) -> list[Array]:
    count = attribute("num_split")
    _surely(0 < count <= LARGEST)
    return [np.ascontiguousarray(part) for part in np.split(x, count, axis=int(axis.item()))]


def _slice(attribute: Attributes, x: Array, begin: Array, size: Array) -> Array:
    _surely(len(begin) == len(size) == x.ndim)
    parts = []
    for start, length, whole in zip(begin.tolist(), size.tolist(), x.shape, strict=True):
        stop = whole if length == -1 else start + length
        _surely(0 <= start <= stop <= whole)
        parts.append(slice(start, stop))
    return x[tuple(parts)]


def _strided_slice(attribute: Attributes, x: Array, begin: Array, end: Array, strides: Array) -> Array:
    masks = {
        name: attribute(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }  # bit k: entry k
    parts: list[Any] = []
    for index, (start, stop, stride) in enumerate(zip(begin.tolist(), end.tolist(), strides.tolist(), strict=True)):
        given = {name for name, mask in masks.items() if mask >> index & 1}
        if "ellipsis" in given:
            parts.append(Ellipsis)
        elif "new_axis" in given:
            parts.append(np.newaxis)
        elif "shrink_axis" in given:
            _surely(stride > 0)
            parts.append(start)
        else:
            parts.append(slice(None if "begin" in given else start, None if "end" in given else stop, stride))
    taken: Array = x[tuple(parts)]
    return taken


def _gather(attribute: Attributes, x: Array, indices: Array, axis: Array | None = None) -> Array:
    where = 0 if axis is None else int(axis.item())
    _surely(axis is None or attribute("batch_dims") == 0)
    _surely(x.ndim and np.all(indices >= 0) and np.all(indices < x.shape[where]))
    _fits(*indices.shape, x.size // max(x.shape[where], 1))
    return np.take(x, indices, axis=where)


def _fill(attribute: Attributes, shape: Array, value: Array) -> Array:
    _fits(*shape.tolist())
    return np.full(tuple(shape.tolist()), value.item() if value.dtype.kind == "O" else value, value.dtype)


def _range(attribute: Attributes, start: Array, limit: Array, delta: Array) -> Array:
    _surely(start.dtype.kind in "iu" and delta.item() != 0)
    numbers = range(int(start.item()), int(limit.item()), int(delta.item()))
    _fits(len(numbers))
    _surely((limit.item() - start.item()) * delta.item() >= 0)  # elsewhere it is an error
    return np.array(numbers, start.dtype)


def _reshape(attribute: Attributes, x: Array, shape: Array) -> Array:
    sizes = tuple(shape.tolist())
    _surely(sizes.count(-1) <= 1 and all(size >= -1 for size in sizes))
    return x.reshape(sizes)


def _transpose(attribute: Attributes, x: Array, order: Array) -> Array:
    return np.ascontiguousarray(np.transpose(x, order.tolist())).reshape([x.shape[axis] for axis in order.tolist()])


def _tile(attribute: Attributes, x: Array, times: Array) -> Array:
    _surely(len(times) == x.ndim and np.all(times >= 0))
    _fits(*(size * count for size, count in zip(x.shape, times.tolist(), strict=True)))
    return np.tile(x, times.tolist())


def _broadcast_to(attribute: Attributes, x: Array, shape: Array) -> Array:
    _fits(*shape.tolist())
    return np.array(np.broadcast_to(x, shape.tolist()))


def _broadcast_args(attribute: Attributes, x: Array, y: Array) -> Array:
    return np.array(np.broadcast_shapes(tuple(x.tolist()), tuple(y.tolist())), x.dtype)


def _select(attribute: Attributes, condition: Array, x: Array, y: Array) -> Array:
    _surely(x.shape == y.shape and (condition.ndim == 0 or condition.shape in (x.shape, x.shape[:1])))
    return np.where(condition.reshape(condition.shape + (1,) * (x.ndim - condition.ndim)), x, y)


def _select_v2(attribute: Attributes, condition: Array, x: Array, y: Array) -> Array:
    _fits(*np.broadcast_shapes(condition.shape, x.shape, y.shape))
    return np.where(condition, x, y)


def _invert(attribute: Attributes, order: Array) -> Array:
    _surely(sorted(order.tolist()) == list(range(order.size)))
    return np.argsort(order).astype(order.dtype)


OF_SHAPES = frozenset({"Rank", "Shape", "ShapeN", "Size"})
"""Ops that look at their inputs' shapes alone."""

_TABLE: Mapping[str, Callable[..., Any]] = {
    # what comes in goes out
    "Identity": lambda attribute, x: x,
    "IdentityN": lambda attribute, *inputs: list(inputs),
    "PreventGradient": lambda attribute, x: x,
    "Snapshot": lambda attribute, x: x,
    "StopGradient": lambda attribute, x: x,
    # flags
    "All": _reduction(np.all, "b"),
    "Any": _reduction(np.any, "b"),
    "LogicalAnd": _binary(np.logical_and, "b"),
    "LogicalNot": _unary(np.logical_not, "b"),
    "LogicalOr": _binary(np.logical_or, "b"),
    "Equal": _equality(np.equal),
    "NotEqual": _equality(np.not_equal),
    "Greater": _binary(np.greater),
    "GreaterEqual": _binary(np.greater_equal),
    "Less": _binary(np.less),
    "LessEqual": _binary(np.less_equal),
    "Select": _select,
    "SelectV2": _select_v2,
    # numbers, one by one
    "Abs": _unary(np.abs),
    "Add": _binary(np.add),
    "AddV2": _binary(np.add),
    "Cast": _cast,
    "Ceil": _unary(np.ceil, "f"),
    "Floor": _unary(np.floor, "f"),
    "FloorDiv": _divided(np.floor_divide),
    "FloorMod": _divided(np.mod),
    "Maximum": _binary(np.maximum),
    "Minimum": _binary(np.minimum),
    "Mul": _binary(np.multiply),
    "Neg": _unary(np.negative),
    "RealDiv": _binary(np.divide, "f"),
    "Square": _unary(np.square),
    "Sub": _binary(np.subtract),
    # whole numbers, added up
    "Max": _reduction(np.max, "iuf"),
    "Min": _reduction(np.min, "iuf"),
    "Prod": _reduction(np.prod, "iu"),
    "Sum": _reduction(np.sum, "iu"),
    # shapes, and arrays in other shapes
    "BroadcastArgs": _broadcast_args,
    "BroadcastTo": _broadcast_to,
    "Concat": _old_concat,
    "ConcatV2": _concat,
    "ExpandDims": _expand,
    "Fill": _fill,
    "Gather": _gather,
    "GatherV2": _gather,
    "InvertPermutation": _invert,
    "OnesLike": _unary(np.ones_like, "biuf"),
    "Pack": _pack,
    "Range": _range,
    "Rank": _rank,
    "Reshape": _reshape,
    "Shape": _shape,
    "ShapeN": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unpack": _unpack,
    "ZerosLike": _unary(np.zeros_like, "biuf"),
}
