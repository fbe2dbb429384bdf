"""Static shapes: what the output shapes of a node are, as far as they can be known before it runs.

A table of functions, one per op that the lowering uses; an op without a row has outputs of unknown shape, which is
never wrong, only less. A function takes the input values and the attributes, and gives a shape for each output. A
vector packed from sizes is followed as numbers, so that ``Reshape(x, Pack([n, 3]))`` has a known shape.

Source: the shape functions of TensorFlow (core/framework/common_shape_fns.cc, core/ops/*_ops.cc).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["KNOWN_LIMIT", "Shape", "infer"]

Shape = tuple[int | None, ...] | None

KNOWN_LIMIT = 64
"""Elements up to which a constant's numbers are followed: shapes, permutations and paddings are far smaller."""

UNKNOWN = int(np.iinfo(np.int32).min)
"""Stands among a vector's numbers for one that is not known: no -1, which means the rest to Reshape and Slice."""


class _Value(Protocol):
    @property
    def shape(self) -> Shape: ...
    @property
    def dtype(self) -> str: ...
    @property
    def constant(self) -> npt.NDArray[Any] | None: ...


Attrs = Mapping[str, Any]
Rule = Callable[[Sequence[_Value], Attrs], Sequence[Shape]]


def infer(op: str, inputs: Sequence[_Value], attrs: Attrs, outputs: int) -> list[tuple[Shape, npt.NDArray[Any] | None]]:
    """The shape of each output, and its numbers where they are known."""
    rule = _RULES.get(op)
    shapes: Sequence[Shape] = rule(inputs, attrs) if rule else [None] * outputs
    if len(shapes) < outputs:
        shapes = [*shapes, *[None] * (outputs - len(shapes))]
    number = _NUMBERS[op](inputs) if op in _NUMBERS else None
    return [(shape, number if index == 0 else None) for index, shape in enumerate(shapes[:outputs])]


def _same(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return [inputs[0].shape]


def broadcast(*shapes: Shape) -> Shape:
    """The shape that NumPy's broadcasting gives; an unknown size wins only over 1.

    >>> broadcast((None, 3), (1,)), broadcast((None, 1), (5, 1)), broadcast((2,), None)
    ((None, 3), (5, 1), None)
    """
    if any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    rank = max(map(len, known))
    result: list[int | None] = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in known), strict=True):
        large = [size for size in sizes if size is not None and size != 1]
        result.append(large[0] if large else None if None in sizes else 1)
    return tuple(result)


def _broadcast(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return [broadcast(*(value.shape for value in inputs))]


def _matmul(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    a, b = inputs[0].shape, inputs[1].shape
    first = attrs.get("transpose_a", attrs.get("adj_x", False))
    second = attrs.get("transpose_b", attrs.get("adj_y", False))
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return [None]
    batch = broadcast(a[:-2], b[:-2])
    if batch is None:
        return [None]
    return [(*batch, a[-1] if first else a[-2], b[-2] if second else b[-1])]


def window_size(size: int | None, window: int, stride: int, padding: str, dilation: int = 1) -> int | None:
    """How many windows fit (common_shape_fns.cc, ``GetWindowedOutputSizeVerboseV2``)."""
    if size is None:
        return None
    if padding == "SAME":
        return -(-size // stride)
    return max(0, -(-(size - (window - 1) * dilation) // stride))


def _space(rank: int, data_format: str) -> tuple[int, list[int]]:
    """The channel axis and the spatial axes."""
    if data_format.startswith("NC"):
        return 1, list(range(2, rank))
    return rank - 1, list(range(1, rank - 1))


def _conv(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, kernel = inputs[0].shape, inputs[1].shape
    if x is None or kernel is None:
        return [None]
    depthwise = "explicit_paddings" in attrs and len(kernel) == 4 and attrs.get("_depthwise", False)
    channel, axes = _space(len(x), attrs["data_format"])
    result = list(x)
    dilations = attrs.get("dilations") or (1,) * len(x)
    for axis, window in zip(axes, kernel, strict=False):
        result[axis] = (
            None
            if window is None
            else window_size(x[axis], window, attrs["strides"][axis], attrs["padding"], dilations[axis])
        )
    outs = kernel[-1]
    if depthwise:
        outs = None if kernel[-1] is None or kernel[-2] is None else kernel[-1] * kernel[-2]
    result[channel] = outs
    return [tuple(result)]


def _depthwise(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return _conv(inputs, {**attrs, "_depthwise": True})


def _pool(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x = inputs[0].shape
    if x is None:
        return [None]
    return [
        tuple(
            size if window == 1 and stride == 1 else window_size(size, window, stride, attrs["padding"])
            for size, window, stride in zip(x, attrs["ksize"], attrs["strides"], strict=True)
        )
    ]


def _from_constant(value: _Value) -> Shape:
    """The shape that a shape-valued input says; -1 is unknown."""
    if value.constant is not None:
        return tuple(None if size < 0 else int(size) for size in value.constant.reshape(-1))
    if value.shape is not None and len(value.shape) == 1 and value.shape[0] is not None:
        return (None,) * value.shape[0]
    return None


def _numbers(value: _Value) -> npt.NDArray[Any] | None:
    """The numbers of an input, where all of them are known."""
    return None if value.constant is None or (value.constant == UNKNOWN).any() else value.constant


def _reshape(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    target, x = _from_constant(inputs[1]), inputs[0].shape
    if target is None or target.count(None) != 1 or x is None or None in x:
        return [target]
    total = int(np.prod([size or 0 for size in x], dtype=np.int64))
    known = int(np.prod([size for size in target if size is not None], dtype=np.int64))
    return [tuple(total // known if size is None and known else size for size in target)]


def _transpose(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, order = inputs[0].shape, inputs[1].constant
    return [None if x is None or order is None else tuple(x[axis] for axis in order)]


def _reduce(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, axes = inputs[0].shape, inputs[1].constant
    if x is None or axes is None:
        return [None]
    gone = {int(axis) % len(x) for axis in axes.reshape(-1)} if x else set()
    if attrs["keep_dims"]:
        return [tuple(1 if axis in gone else size for axis, size in enumerate(x))]
    return [tuple(size for axis, size in enumerate(x) if axis not in gone)]


def _argument(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return _reduce(inputs, {"keep_dims": False})


def _concat(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    parts, axis = [value.shape for value in inputs[:-1]], inputs[-1].constant
    known = [shape for shape in parts if shape is not None]
    if axis is None or len(known) != len(parts):
        return [None]
    along = int(axis) % len(known[0])
    result: list[int | None] = []
    for index, sizes in enumerate(zip(*known, strict=True)):
        if index == along:
            result.append(None if None in sizes else sum(size or 0 for size in sizes))
        else:
            result.append(next((size for size in sizes if size is not None), None))
    return [tuple(result)]


def _pack(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x = inputs[0].shape
    if x is None:
        return [None]
    axis = attrs["axis"] % (len(x) + 1)
    return [(*x[:axis], len(inputs), *x[axis:])]


def _unpack(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x = inputs[0].shape
    one = None if x is None else tuple(size for axis, size in enumerate(x) if axis != attrs["axis"] % len(x))
    return [one] * int(attrs["num"])


def _split(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    axis, x = inputs[0].constant, inputs[1].shape
    parts = int(attrs["num_split"])
    if x is None or axis is None:
        return [None] * parts
    along = int(axis) % len(x)
    one = tuple((None if size is None else size // parts) if i == along else size for i, size in enumerate(x))
    return [one] * parts


def _pad(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, amounts = inputs[0].shape, inputs[1].constant
    if x is None or amounts is None:
        return [None if x is None else (None,) * len(x)]
    return [tuple(_plus(size, amount) for size, amount in zip(x, amounts.reshape(-1, 2), strict=True))]


def _plus(size: int | None, amounts: npt.NDArray[Any]) -> int | None:
    """A size and what comes before and after it."""
    return None if size is None or UNKNOWN in amounts else size + int(amounts.sum())


def _expand(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, axis = inputs[0].shape, inputs[1].constant
    if x is None or axis is None:
        return [None]
    at = int(axis.reshape(-1)[0]) % (len(x) + 1)
    return [(*x[:at], 1, *x[at:])]


def _squeeze(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x = inputs[0].shape
    if x is None or not attrs["squeeze_dims"]:
        return [None]
    gone = {axis % len(x) for axis in attrs["squeeze_dims"]}
    return [tuple(size for axis, size in enumerate(x) if axis not in gone)]


def _tile(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, times = inputs[0].shape, _from_constant(inputs[1])
    if x is None:
        return [None]
    if times is None:
        return [(None,) * len(x)]
    pairs = zip(x, times, strict=True)
    return [tuple(None if size is None or count is None else size * count for size, count in pairs)]


def _fill(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return [_from_constant(inputs[0])]


def _conv_back(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return [_from_constant(inputs[0])]


def _slice(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, begin, sizes = inputs[0].shape, _numbers(inputs[1]), _numbers(inputs[2])
    if x is None or begin is None or sizes is None:
        return [None if x is None else (None,) * len(x)]
    result: list[int | None] = []
    for size, start, length in zip(x, begin, sizes, strict=True):
        result.append(int(length) if length >= 0 else None if size is None else size - int(start))
    return [tuple(result)]


def _strided(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, begin, end, step = inputs[0].shape, *map(_numbers, inputs[1:4])
    if x is None or begin is None or end is None or step is None or attrs["new_axis_mask"] or attrs["ellipsis_mask"]:
        return [None]
    result: list[int | None] = []
    for axis, size in enumerate(x):
        if axis >= len(begin):
            result.append(size)
        elif attrs["shrink_axis_mask"] >> axis & 1:
            continue
        elif size is None:
            result.append(None)
        else:
            first = None if attrs["begin_mask"] >> axis & 1 else int(begin[axis])
            last = None if attrs["end_mask"] >> axis & 1 else int(end[axis])
            result.append(len(range(*slice(first, last, int(step[axis])).indices(size))))
    return [tuple(result)]


def _resize(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, size = inputs[0].shape, _from_constant(inputs[1])
    if x is None or size is None:
        return [None]
    return [(x[0], size[0], size[1], x[3])]


def _gather(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, indices = inputs[0].shape, inputs[1].shape
    axis = inputs[2].constant if len(inputs) > 2 else np.zeros(())
    if x is None or indices is None or axis is None or attrs.get("batch_dims"):
        return [None]
    at = int(axis) % len(x)
    return [(*x[:at], *indices, *x[at + 1 :])]


def _space_to_batch(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, block, pads = inputs[0].shape, _numbers(inputs[1]), inputs[2].constant
    if x is None or block is None:
        return [None if x is None else (None,) * len(x)]
    result = list(x)
    for axis, times in enumerate(block, start=1):
        padded = None if pads is None else _plus(x[axis], pads[axis - 1])
        result[axis] = None if padded is None else padded // int(times)
    result[0] = None if x[0] is None else x[0] * int(np.prod(block))
    return [tuple(result)]


def _batch_to_space(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, block, crops = inputs[0].shape, _numbers(inputs[1]), inputs[2].constant
    if x is None or block is None:
        return [None if x is None else (None,) * len(x)]
    result = list(x)
    for axis, times in enumerate(block, start=1):
        size, crop = x[axis], None if crops is None or UNKNOWN in crops[axis - 1] else crops[axis - 1]
        result[axis] = None if size is None or crop is None else size * int(times) - int(crop.sum())
    result[0] = None if x[0] is None else x[0] // int(np.prod(block))
    return [tuple(result)]


def _patches(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, sizes = inputs[0].shape, attrs["ksizes"]
    if x is None:
        return [None]
    spans = [(size - 1) * rate + 1 for size, rate in zip(sizes, attrs["rates"], strict=True)]
    space = [window_size(x[axis], spans[axis], attrs["strides"][axis], attrs["padding"]) for axis in (1, 2)]
    return [(x[0], *space, None if x[3] is None else x[3] * sizes[1] * sizes[2])]


def _gather_nd(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, indices = inputs[0].shape, inputs[1].shape
    if x is None or indices is None or not indices or indices[-1] is None:
        return [None]
    return [(*indices[:-1], *x[indices[-1] :])]


def _normalized(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    channels = inputs[1].shape
    return [inputs[0].shape, channels, channels]


def _shape(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x = inputs[0].shape
    return [(None if x is None else len(x),)]


def _scalar(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return [()]


def _top(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, count = inputs[0].shape, inputs[1].constant
    if x is None:
        return [None, None]
    return [(*x[:-1], None if count is None else int(count))] * 2


def _select(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return [inputs[1].shape]


def _range(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    numbers = [_numbers(value) for value in inputs]
    if any(number is None for number in numbers):
        return [(None,)]
    start, limit, delta = (number.item() for number in numbers if number is not None)
    return [(max(0, int(np.ceil((limit - start) / delta))) if delta else None,)]


def _diagonal(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x = inputs[0].shape
    if x is None or len(x) < 2:
        return [None]
    return [(*x[:-2], None if x[-1] is None or x[-2] is None else min(x[-1], x[-2]))]


def _frequencies(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, length = inputs[0].shape, _numbers(inputs[1])
    if x is None:
        return [None]
    return [(*x[:-1], None if length is None else int(length.reshape(-1)[0]) // 2 + 1)]


def _looked_up(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return [inputs[1].shape]


def _segments(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, ids, count = inputs[0].shape, inputs[1].shape, inputs[2].constant
    if x is None or ids is None:
        return [None]
    return [(None if count is None else int(count), *x[len(ids) :])]


def _to_dense(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return [_from_constant(inputs[1])]


def _split_strings(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return [(None, 2), (None,), (2,)]


def _decoded(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return [(None,), (None,)]


def _encoded(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return [(None,)]


def _ngrams(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    return [(None,), inputs[1].shape]


def _without_matrix(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x = inputs[0].shape
    return [None if x is None else x[:-2]] * 2


def _matrix_diagonal(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x = inputs[0].shape
    return [None if x is None else (*x, x[-1])]


def _one_hot(inputs: Sequence[_Value], attrs: Attrs) -> Sequence[Shape]:
    x, depth = inputs[0].shape, inputs[1].constant
    if x is None:
        return [None]
    at = attrs["axis"] % (len(x) + 1)
    return [(*x[:at], None if depth is None else int(depth), *x[at:])]


def _rows(rule: Rule, ops: str) -> dict[str, Rule]:
    return dict.fromkeys(ops.split(), rule)


_RULES: dict[str, Rule] = {
    **_rows(
        _same,
        "Identity Abs Neg Exp Log Log1p Expm1 Sqrt Rsqrt Square Sign Floor Ceil Round Rint Sigmoid Tanh Relu Relu6 "
        "LeakyRelu Elu Selu Softplus Softsign Softmax LogSoftmax BiasAdd Cast Sin Cos Tan Sinh Cosh Erf Reciprocal "
        "Inv IsNan IsFinite LogicalNot ZerosLike OnesLike StopGradient ReverseV2 Cumsum Cumprod ClipByValue "
        "PreventGradient ComplexAbs Real Imag StringLower RegexReplace AsString StringToHashBucketFast "
        "StringToHashBucketStrong Bucketize "
        "Cholesky MatrixInverse MatrixBandPart Erfc Erfinv BesselI0e Asin Acos Atan Asinh Acosh Atanh Invert IsInf",
    ),
    **_rows(
        _broadcast,
        "Add AddV2 Sub Mul Div RealDiv TruncateDiv FloorDiv FloorMod Mod Maximum Minimum Pow SquaredDifference Greater "
        "GreaterEqual Less LessEqual Equal NotEqual LogicalAnd LogicalOr Atan2 DivNoNan MulNoNan "
        "BitwiseAnd BitwiseOr BitwiseXor LeftShift RightShift NextAfter",
    ),
    **_rows(_matmul, "MatMul BatchMatMul BatchMatMulV2"),
    **_rows(_conv, "Conv2D Conv3D"),
    "DepthwiseConv2dNative": _depthwise,
    **_rows(_pool, "MaxPool AvgPool MaxPool3D AvgPool3D"),
    **_rows(_conv_back, "Conv2DBackpropInput Conv3DBackpropInputV2 DepthwiseConv2dNativeBackpropInput"),
    **_rows(_reduce, "Mean Sum Max Min Prod All Any"),
    **_rows(_argument, "ArgMax ArgMin"),
    **_rows(_pad, "Pad PadV2 MirrorPad"),
    **_rows(_resize, "ResizeNearestNeighbor ResizeBilinear ResizeBicubic ResizeArea ScaleAndTranslate"),
    **_rows(_gather, "Gather GatherV2"),
    **_rows(_normalized, "FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3"),
    **_rows(_select, "Select MatrixSolve MatrixTriangularSolve"),
    "AddN": _same,
    "BatchToSpaceND": _batch_to_space,
    "ConcatV2": _concat,
    "ExpandDims": _expand,
    "ExtractImagePatches": _patches,
    "Fill": _fill,
    "LookupTableFindV2": _looked_up,
    "OneHot": _one_hot,
    "RFFT": _frequencies,
    "SparseToDense": _to_dense,
    "StringNGrams": _ngrams,
    "StringSplitV2": _split_strings,
    "UnicodeDecode": _decoded,
    "UnicodeEncode": _encoded,
    "UnsortedSegmentSum": _segments,
    "GatherNd": _gather_nd,
    "MatrixDeterminant": _without_matrix,
    "MatrixDiag": _matrix_diagonal,
    "MatrixDiagPart": _diagonal,
    "Pack": _pack,
    "Range": _range,
    "Rank": _scalar,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "SpaceToBatchND": _space_to_batch,
    "Split": _split,
    "Squeeze": _squeeze,
    "StridedSlice": _strided,
    "Tile": _tile,
    "TopKV2": _top,
    "Transpose": _transpose,
    "Unpack": _unpack,
}

Numbers = Callable[[Sequence[_Value]], "npt.NDArray[Any] | None"]


def _packed(inputs: Sequence[_Value]) -> npt.NDArray[Any] | None:
    """The numbers of a vector of sizes, with -1 for those unknown: what Reshape makes of them is unknown too."""
    if inputs[0].dtype != "int32" or inputs[0].shape != ():
        return None
    return np.asarray([-1 if value.constant is None else int(value.constant) for value in inputs], np.int32)


def _renumbered(inputs: Sequence[_Value]) -> npt.NDArray[Any] | None:
    x, shape = inputs[0].constant, _numbers(inputs[1])
    return None if x is None or shape is None or np.prod(shape) != x.size else x.reshape(shape)


_NUMBERS: dict[str, Numbers] = {"Pack": _packed, "Reshape": _renumbered}
