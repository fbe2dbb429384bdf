"""Operations that multiply: matrices, tensors over axes, and what linear algebra makes of matrices."""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from modelio.graph.builder import Builder, Value
from modelio.lowering.arithmetic import Operand, as_value, dtype_of, is_floating, promoted, result_type, where
from modelio.lowering.einsum import einsum
from modelio.lowering.operations import axis_in, operation, ranked
from modelio.lowering.operations.arranging import between, moved, reshape, swapaxes
from modelio.lowering.operations.elementwise import clipped, floating
from modelio.lowering.operations.picking import padded
from modelio.lowering.operations.reductions import reduced

__all__ = ["contracted", "matmul"]


# -- products ----------------------------------------------------------------------------------------------------------


def _computed(g: Builder, equation: str, x1: Operand, x2: Operand) -> Value:
    """A product in floating point, as Keras computes it; of whole numbers, whole numbers again."""
    result = result_type(dtype_of(x1), dtype_of(x2))
    wide = result_type(result, "float")
    if result == "int8":
        result = wide = "int32"
    return g.cast(einsum(g, equation, as_value(g, x1, wide), as_value(g, x2, wide)), result)


@operation("Matmul")
def matmul(g: Builder, x1: Operand, x2: Operand) -> Value:
    x1, x2 = as_value(g, x1), as_value(g, x2)
    left = "j" if ranked(x1) == 1 else "...ij"
    right = "j" if ranked(x2) == 1 else "...jk"
    return _computed(g, f"{left},{right}->...{'i' * (ranked(x1) > 1)}{'k' * (ranked(x2) > 1)}", x1, x2)


def contracted(g: Builder, x1: Operand, x2: Operand, first: list[int], second: list[int]) -> Value:
    """The sum of products over pairs of axes; what is left of the first comes first."""
    x1, x2 = as_value(g, x1), as_value(g, x2)
    letters = iter(string.ascii_letters)
    left = [next(letters) for _ in range(ranked(x1))]
    right = [next(letters) for _ in range(ranked(x2))]
    for a, b in zip(first, second, strict=True):
        right[axis_in(b, len(right))] = left[axis_in(a, len(left))]
    result = [x for x in (*left, *right) if (x in left) != (x in right)]
    return _computed(g, f"{''.join(left)},{''.join(right)}->{''.join(result)}", x1, x2)


@operation("Dot")
def dot(g: Builder, x1: Operand, x2: Operand) -> Value:
    x1, x2 = as_value(g, x1), as_value(g, x2)
    if not ranked(x1) or not ranked(x2):
        made: Value = g.Mul(*promoted(g, x1, x2))
        return made
    return contracted(g, x1, x2, [-1], [-1 if ranked(x2) == 1 else -2])


@operation("Tensordot")
def tensordot(g: Builder, x1: Operand, x2: Operand, axes: Any = 2) -> Value:
    x1, x2 = as_value(g, x1), as_value(g, x2)
    if isinstance(axes, (list, tuple)):
        first, second = ([one] if isinstance(one, int) else list(one) for one in axes)
    else:
        first = list(range(ranked(x1) - int(axes), ranked(x1)))
        second = list(range(int(axes)))
    return contracted(g, x1, x2, first, second)


@operation("Inner")
def inner(g: Builder, x1: Operand, x2: Operand) -> Value:
    x1, x2 = as_value(g, x1), as_value(g, x2)
    if not ranked(x1) or not ranked(x2):
        made: Value = g.Mul(*promoted(g, x1, x2))
        return made
    return contracted(g, x1, x2, [-1], [-1])


@operation("Vdot")
def vdot(g: Builder, x1: Operand, x2: Operand) -> Value:
    return contracted(g, reshape(g, x1, [-1]), reshape(g, x2, [-1]), [0], [0])


@operation("Outer")
def outer(g: Builder, x1: Operand, x2: Operand) -> Value:
    x1, x2 = promoted(g, x1, x2)
    made: Value = g.Mul(g.Reshape(x1, [-1, 1]), g.Reshape(x2, [-1]))
    return made


@operation("Kron")
def kron(g: Builder, x1: Operand, x2: Operand) -> Value:
    """Every element of the first times the whole second."""
    x1, x2 = promoted(g, x1, x2)
    rank = max(ranked(x1), ranked(x2))
    x1, x2 = (g.reshape(x, [*(1,) * (rank - ranked(x)), *g.sizes(x)]) for x in (x1, x2))
    sizes = [(a, b) for a, b in zip(g.sizes(x1), g.sizes(x2), strict=True)]
    wide = g.Mul(
        g.reshape(x1, [size for a, _ in sizes for size in (a, 1)]),
        g.reshape(x2, [size for _, b in sizes for size in (1, b)]),
    )
    return g.reshape(wide, [a * b if isinstance(a, int) and isinstance(b, int) else g.Mul(a, b) for a, b in sizes])


@operation("Einsum")
def einsum_of(g: Builder, *operands: Operand, subscripts: str = "") -> Value:
    """int8 alone becomes int32; whole numbers are computed as floats (backend/tensorflow/numpy.py, ``einsum``)."""
    result = result_type(*(dtype_of(operand) for operand in operands))
    wide = result if is_floating(result) else "float32"
    if {dtype_of(operand) for operand in operands} == {"int8"}:
        result = wide = "int32"
    return g.cast(einsum(g, subscripts, *(as_value(g, operand, wide) for operand in operands)), result)


@operation("Cross")
def cross(
    g: Builder, x1: Operand, x2: Operand, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Value:
    """Of vectors with three numbers, or with two, whose third is zero; of two such the third number alone."""
    first, second, last = (axisa, axisb, axisc) if axis is None else (axis, axis, axis)
    x1, x2 = promoted(g, x1, x2)
    x1, x2 = moved(g, x1, first, -1), moved(g, x2, second, -1)
    flat = g.sizes(x1)[-1] == 2 and g.sizes(x2)[-1] == 2
    a, b = ([_part(g, x, index) for index in range(3)] for x in (x1, x2))

    def minus(i: int, j: int) -> Value:
        made: Value = g.Sub(g.Mul(a[i], b[j]), g.Mul(a[j], b[i]))
        return made

    if flat:
        return minus(0, 1)
    together = [minus(1, 2), minus(2, 0), minus(0, 1)]
    rank = max(ranked(one) for one in together)
    made: Value = g.Pack(together, axis=axis_in(last, rank + 1))
    return made


def _part(g: Builder, x: Value, index: int) -> Value:
    rank = ranked(x)
    if g.sizes(x)[-1] == 2 and index == 2:
        made: Value = g.ZerosLike(_part(g, x, 0))
        return made
    return g.Squeeze(between(g, x, rank - 1, index, index + 1), squeeze_dims=[rank - 1])


@operation("CDist")
def distances(g: Builder, x: Operand, y: Operand) -> Value:
    """From every row of the one to every row of the other."""
    apart = g.Sub(g.ExpandDims(as_value(g, x), -2), g.ExpandDims(as_value(g, y), -3))
    made: Value = g.Sqrt(reduced(g, "Sum", g.Square(apart), -1))
    return made


@operation("Corrcoef")
def corrcoef(g: Builder, x: Operand) -> Value:
    """How much each pair of rows goes together."""
    x = floating(g, x)
    apart = g.Sub(x, reduced(g, "Mean", x, -1, True))
    count = g.cast(as_value(g, g.sizes(x)[-1], "int32"), x.dtype)
    covariance = g.RealDiv(g.BatchMatMul(apart, apart, adj_y=True), g.Sub(count, 1.0))
    spread = g.Sqrt(g.MatrixDiagPart(covariance))
    together = g.Mul(g.ExpandDims(spread, -1), g.ExpandDims(spread, -2))
    return clipped(g, g.RealDiv(covariance, together), -1.0, 1.0)


@operation("Correlate")
def correlate(g: Builder, x1: Operand, x2: Operand, mode: str = "valid") -> Value:
    """The products of one vector with the other, moved along: a convolution of a picture with one row."""
    dtype = result_type(dtype_of(x1), dtype_of(x2))
    dtype = "float64" if dtype == "int64" else dtype if is_floating(dtype) and dtype != "float32" else "float32"
    x1, x2 = as_value(g, x1, dtype), as_value(g, x2, dtype)
    n, m = g.sizes(x1)[0], g.sizes(x2)[0]
    if not isinstance(m, int) or (mode == "same" and not isinstance(n, int)):
        raise ValueError("the vectors' sizes are not known")
    if mode not in ("valid", "full", "same"):
        raise ValueError(f"mode is {mode!r}")
    x = x1 if mode == "valid" else padded(g, x1, [(m - 1, m - 1)])
    y = g.Conv2D(g.Reshape(x, [1, 1, -1, 1]), g.Reshape(x2, [1, -1, 1, 1]), strides=(1, 1, 1, 1), padding="VALID")
    y = g.Squeeze(y, squeeze_dims=[0, 1, 3])
    if mode != "same" or not isinstance(n, int):
        return y
    start = (n + m - 1 - max(n, m)) // 2
    return between(g, y, 0, start, start + max(n, m))


# -- linear algebra ----------------------------------------------------------------------------------------------------


@operation("Cholesky")
def cholesky(g: Builder, x: Operand, upper: bool = False) -> Value:
    made: Value = g.Cholesky(as_value(g, x))
    return swapaxes(g, made, -1, -2) if upper else made


@operation("CholeskyInverse")
def cholesky_inverse(g: Builder, x: Operand, upper: bool = False) -> Value:
    x = as_value(g, x)
    *_, size = g.sizes(x)
    row = g.Range(0, size, 1)
    ones = g.cast(g.Equal(g.ExpandDims(row, 0), g.ExpandDims(row, 1)), x.dtype)
    inverse = g.MatrixTriangularSolve(x, g.Add(g.ZerosLike(x), ones), lower=not upper)
    return g.BatchMatMul(inverse, inverse, adj_x=not upper, adj_y=bool(upper))


@operation("Det")
def det(g: Builder, x: Operand) -> Value:
    made: Value = g.MatrixDeterminant(as_value(g, x))
    return made


@operation("Slogdet")
def slogdet(g: Builder, x: Operand) -> tuple[Value, Value]:
    """LogMatrixDeterminant came with TensorFlow 1.8."""
    sign, log = g.node("LogMatrixDeterminant", as_value(g, x))
    return sign, log


@operation("Logdet")
def logdet(g: Builder, x: Operand) -> Value:
    """Of a positive definite matrix (linalg_ops.py, ``logdet``)."""
    roots = g.MatrixDiagPart(g.Cholesky(as_value(g, x)))
    made: Value = g.Mul(reduced(g, "Sum", g.Log(roots), -1), 2.0)
    return made


@operation("Inv")
def inv(g: Builder, x: Operand) -> Value:
    made: Value = g.MatrixInverse(as_value(g, x))
    return made


@operation("Qr")
def qr(g: Builder, x: Operand, mode: str = "reduced") -> tuple[Value, Value]:
    if mode not in ("reduced", "complete"):
        raise ValueError(f"mode is {mode!r}")
    q, r = g.node("Qr", as_value(g, x), full_matrices=mode == "complete")
    return q, r


@operation("Eigh")
def eigh(g: Builder, x: Operand) -> tuple[Value, Value]:
    values, vectors = g.node("SelfAdjointEigV2", as_value(g, x))
    return values, vectors


@operation("LuFactor")
def lu_factor(g: Builder, x: Operand) -> tuple[Value, Value]:
    """Lu came with TensorFlow 1.14."""
    factors, order = g.node("Lu", as_value(g, x))
    return factors, g.InvertPermutation(order)


@operation("SVD")
def svd(g: Builder, x: Operand, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    values, left, right = g.node("Svd", as_value(g, x), compute_uv=bool(compute_uv), full_matrices=bool(full_matrices))
    return (left, values, swapaxes(g, _of_matrices(right, as_value(g, x)), -1, -2)) if compute_uv else values


def _of_matrices(x: Value, like: Value) -> Value:
    """A value that has as many axes as another, whatever their sizes."""
    return Value(x.name, x.dtype, (*(like.shape or ())[:-2], None, None)) if x.shape is None else x


@operation("Solve")
def solve(g: Builder, a: Operand, b: Operand) -> Value:
    return _solved(g, "MatrixSolve", a, b)


@operation("SolveTriangular")
def solve_triangular(g: Builder, a: Operand, b: Operand, lower: bool = False) -> Value:
    return _solved(g, "MatrixTriangularSolve", a, b, lower=bool(lower))


def _solved(g: Builder, op: str, a: Operand, b: Operand, **attrs: Any) -> Value:
    a, b = as_value(g, a), as_value(g, b)
    if ranked(b) != ranked(a) - 1:
        made: Value = g.node(op, a, b, **attrs)
        return made
    return g.Squeeze(g.node(op, a, g.ExpandDims(b, -1), **attrs), squeeze_dims=[-1])


@operation("MatrixRank")
def matrix_rank(g: Builder, x: Operand, tol: Operand = None) -> Value:
    """How many singular values are not nearly zero (linalg_impl.py, ``matrix_rank``)."""
    x = as_value(g, x)
    values = g.node("Svd", x, compute_uv=False)[0]
    values = Value(values.name, values.dtype, (*(x.shape or ())[:-2], None))
    if tol is None:
        rows, columns = g.sizes(x)[-2:]
        if not isinstance(rows, int) or not isinstance(columns, int):
            raise ValueError("the matrix's size is not known")
        least = float(np.finfo(x.dtype).eps) * max(rows, columns)
        tolerance = g.Mul(reduced(g, "Max", values, -1, True), least)
    else:
        tolerance = g.ExpandDims(as_value(g, tol, x.dtype), -1)
    return reduced(g, "Sum", g.cast(g.Greater(values, tolerance), "int32"), -1)


@operation("Pinv")
def pinv(g: Builder, x: Operand, rcond: Operand = None) -> Value:
    """The inverse as far as there is one (linalg_impl.py, ``pinv``)."""
    x = as_value(g, x)
    rows, columns = g.sizes(x)[-2:]
    if rcond is None:
        if not isinstance(rows, int) or not isinstance(columns, int):
            raise ValueError("the matrix's size is not known")
        rcond = 10.0 * max(rows, columns) * float(np.finfo(x.dtype).eps)
    values, left, right = g.node("Svd", x)
    outer = (x.shape or ())[:-2]
    values = Value(values.name, values.dtype, (*outer, None))
    left, right = (Value(one.name, one.dtype, (*outer, None, None)) for one in (left, right))
    limit = g.Mul(reduced(g, "Max", values, -1, True), as_value(g, rcond, x.dtype))
    inverse = where(
        g,
        g.Greater(values, limit),
        g.Reciprocal(values),
        g.ZerosLike(values),
        g.shape_of(values),
    )
    made: Value = g.BatchMatMul(g.Mul(right, g.ExpandDims(inverse, -2)), left, adj_y=True)
    return Value(
        made.name, made.dtype, (*outer, *(size if isinstance(size, int) else None for size in (columns, rows)))
    )


@operation("Lstsq")
def lstsq(g: Builder, a: Operand, b: Operand, rcond: float | None = None) -> Value:
    """The solution with the least square error (linalg.py, ``lstsq``)."""
    a, b = as_value(g, a), as_value(g, b)
    rows, columns = g.sizes(a)
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise ValueError("the matrix's size is not known")
    eps = float(np.finfo(a.dtype).eps)
    least = eps * max(rows, columns) if rcond is None else eps if rcond < 0 else rcond
    flat = ranked(b) == 1
    b = g.ExpandDims(b, -1) if flat else b
    values, left, right = g.node("Svd", a)
    small = min(rows, columns)
    values = g.Reshape(values, [small])
    kept = g.GreaterEqual(values, g.Mul(reduced(g, "Max", values), least))
    inverse = where(g, kept, g.Reciprocal(where(g, kept, values, g.OnesLike(values))), g.ZerosLike(values))
    x = g.MatMul(right, g.Mul(g.ExpandDims(inverse, 1), g.MatMul(left, b, transpose_a=True)))
    return g.Reshape(x, [-1]) if flat else x
