"""Operations on each element by itself, and on pairs of elements.

Tables: the class of ``keras.ops`` and the op that computes it, by what becomes of whole numbers first. Younger than
TensorFlow 1.2 are the hyperbolic functions and their inverses, and the operations on bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from modelio.graph.builder import Builder, Value
from modelio.lowering.arithmetic import Operand, as_value, dtype_of, is_floating, promoted, result_type, where
from modelio.lowering.operations import operation
from modelio.wire.dtypes import dtype_number, numpy_dtype

__all__ = ["BINARY", "FLOATING", "PLAIN", "STRICT", "arithmetic_of", "clipped", "floating", "safe_sign"]


def floating(g: Builder, x: Operand) -> Value:
    """Whole numbers and truth values as float32."""
    return promoted(g, x, floating=True)[0]


FLOATING: Mapping[str, str] = {
    "Arccos": "Acos",
    "Arccosh": "Acosh",
    "Arcsin": "Asin",
    "Arcsinh": "Asinh",
    "Arctan": "Atan",
    "Arctanh": "Atanh",
    "Ceil": "Ceil",
    "Cos": "Cos",
    "Cosh": "Cosh",
    "Exp": "Exp",
    "Expm1": "Expm1",
    "Floor": "Floor",
    "Log": "Log",
    "Log1p": "Log1p",
    "Sin": "Sin",
    "Sinh": "Sinh",
    "Sqrt": "Sqrt",
    "Tan": "Tan",
    "Tanh": "Tanh",
    "Fabs": "Abs",
}
"""Whole numbers become floating-point ones."""

PLAIN: Mapping[str, str] = {
    "Negative": "Neg",
    "Reciprocal": "Reciprocal",
    "Rsqrt": "Rsqrt",
    "Erf": "Erf",
    "Erfc": "Erfc",
    "StopGradient": "StopGradient",
    "Copy": "Identity",
    "BitwiseInvert": "Invert",
    "BitwiseNot": "Invert",
}
"""The op is given what there is."""

BINARY: Mapping[str, str] = {
    "Add": "Add",
    "Subtract": "Sub",
    "Multiply": "Mul",
    "Maximum": "Maximum",
    "Minimum": "Minimum",
    "FloorDivide": "FloorDiv",
}
"""Both operands are promoted to one dtype; Python's numbers give way to a tensor's dtype."""

STRICT: Mapping[str, str] = {
    "Equal": "Equal",
    "NotEqual": "NotEqual",
    "Greater": "Greater",
    "GreaterEqual": "GreaterEqual",
    "Less": "Less",
    "LessEqual": "LessEqual",
    "BitwiseAnd": "BitwiseAnd",
    "BitwiseOr": "BitwiseOr",
    "BitwiseXor": "BitwiseXor",
    "BitwiseLeftShift": "LeftShift",
    "LeftShift": "LeftShift",
    "BitwiseRightShift": "RightShift",
    "RightShift": "RightShift",
}
"""Both operands are promoted to one dtype; Python's numbers are tensors of 32 bits first."""


def _apply(g: Builder, op: str, *values: Value) -> Value:
    made: Value = g.node(op, *values)
    return made


def arithmetic_of(
    op: str, floating: bool = False, strict: bool = False
) -> Callable[[Builder, Operand, Operand], Value]:
    """An op of two operands, promoted to one dtype."""

    def compute(g: Builder, x1: Operand, x2: Operand) -> Value:
        operands = strictly(g, x1, x2) if strict else [x1, x2]
        return _apply(g, op, *promoted(g, *operands, floating=floating))

    return compute


def strictly(g: Builder, *operands: Operand) -> list[Operand]:
    """Python's numbers as tensors, which promote others (``convert_to_tensor`` before ``result_type``)."""
    return [as_value(g, operand) for operand in operands]


def _register() -> None:
    for name, op in FLOATING.items():
        operation(name)(lambda g, x, op=op: _apply(g, op, floating(g, x)))
    for name, op in PLAIN.items():
        operation(name)(lambda g, x, op=op: _apply(g, op, as_value(g, x)))
    for name, op in BINARY.items():
        operation(name)(arithmetic_of(op))
    for name, op in STRICT.items():
        operation(name)(arithmetic_of(op, strict=True))
    for name in ("Divide", "TrueDivide"):
        operation(name)(arithmetic_of("RealDiv", floating=True))
    operation("Arctan2")(arithmetic_of("Atan2", floating=True, strict=True))
    for name, op in (("LogicalAnd", "LogicalAnd"), ("LogicalOr", "LogicalOr"), ("LogicalXor", "NotEqual")):
        operation(name)(lambda g, x1, x2, op=op: _apply(g, op, as_bool(g, x1), as_bool(g, x2)))


def as_bool(g: Builder, x: Operand) -> Value:
    """Zero is false."""
    return as_value(g, x, "bool")


_register()


# -- one operand -------------------------------------------------------------------------------------------------------


@operation("Absolute", "Abs")
def absolute(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    return x if x.dtype == "bool" or x.dtype.startswith("uint") else g.Abs(x)


@operation("LogicalNot")
def logical_not(g: Builder, x: Operand) -> Value:
    made: Value = g.LogicalNot(as_bool(g, x))
    return made


@operation("Square")
def square(g: Builder, x: Operand) -> Value:
    made: Value = g.Square(_no_bool(g, as_value(g, x)))
    return made


def _no_bool(g: Builder, x: Value) -> Value:
    return g.cast(x, "int32") if x.dtype == "bool" else x


@operation("Sign")
def safe_sign(g: Builder, x: Operand) -> Value:
    """Sign takes no unsigned numbers but those of 64 bits."""
    x = as_value(g, x)
    if x.dtype in ("uint8", "uint16", "uint32"):
        return g.cast(g.Sign(g.cast(x, "int32")), x.dtype)
    made: Value = g.Sign(x)
    return made


@operation("Cbrt")
def cbrt(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    x = g.cast(x, {"int64": "float64"}.get(x.dtype, x.dtype if is_floating(x.dtype) else "float32"))
    made: Value = g.Mul(g.Sign(x), g.Pow(g.Abs(x), 1 / 3))
    return made


def _in_degrees(factor: float) -> Callable[[Builder, Operand], Value]:
    def scale(g: Builder, x: Operand) -> Value:
        made: Value = g.Mul(_wide(g, as_value(g, x)), factor)
        return made

    return scale


def _wide(g: Builder, x: Value) -> Value:
    """Whole numbers as float32, those of 64 bits as float64."""
    if is_floating(x.dtype):
        return x
    return g.cast(x, "float64" if x.dtype == "int64" else "float32")


operation("Deg2rad")(_in_degrees(math.pi / 180))
operation("Rad2deg")(_in_degrees(180 / math.pi))


@operation("Exp2")
def exp2(g: Builder, x: Operand) -> Value:
    x = floating(g, x)
    made: Value = g.Pow(g.constant(2.0, x.dtype), x)
    return made


def _log_to(base: float) -> Callable[[Builder, Operand], Value]:
    def log(g: Builder, x: Operand) -> Value:
        made: Value = g.RealDiv(g.Log(floating(g, x)), math.log(base))
        return made

    return log


operation("Log2")(_log_to(2))
operation("Log10")(_log_to(10))


@operation("Sinc")
def sinc(g: Builder, x: Operand) -> Value:
    x = floating(g, x)
    turned = g.Mul(x, math.pi)
    return where(g, g.Equal(x, 0.0), g.OnesLike(x), g.RealDiv(g.Sin(turned), turned))


@operation("I0")
def bessel_i0(g: Builder, x: Operand) -> Value:
    """``BesselI0e`` is older than ``BesselI0``, and takes the growth out."""
    x = as_value(g, x)
    x = g.cast(x, "float64" if x.dtype == "int64" else x.dtype if is_floating(x.dtype) else "float32")
    made: Value = g.Mul(g.BesselI0e(x), g.Exp(g.Abs(x)))
    return made


@operation("Erfinv")
def erfinv(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    wide = g.cast(x, "float32") if x.dtype in ("float16", "bfloat16") else x
    return g.cast(g.Erfinv(wide), x.dtype)


@operation("Trunc")
def trunc(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    return where(g, g.Less(x, 0.0), g.Ceil(x), g.Floor(x)) if is_floating(x.dtype) else x


@operation("Round")
def rounded(g: Builder, x: Operand, decimals: int = 0) -> Value:
    """To the nearest, halves to the even one."""
    value = as_value(g, x)
    if not decimals:
        return _to_whole(g, value)
    if not is_floating(value.dtype) and decimals > 0:
        return value
    wide = value if is_floating(value.dtype) else g.cast(value, "float32")
    factor = float(10**decimals)
    return g.cast(g.RealDiv(g.Round(g.Mul(wide, factor)), factor), value.dtype)


def _to_whole(g: Builder, x: Value) -> Value:
    if not is_floating(x.dtype):
        return x
    made: Value = g.Rint(x) if x.dtype in ("float32", "float64") else g.Round(x)
    return made


@operation("Signbit")
def signbit(g: Builder, x: Operand) -> Value:
    """Whether the sign is written: minus zero has it too."""
    x = as_value(g, x)
    if x.dtype == "bool":
        return g.Fill(g.shape_of(x), g.constant(False))
    if not is_floating(x.dtype):
        return g.Less(x, 0)
    made: Value = g.Less(g.Bitcast(g.cast(x, "float32"), type="int32"), 0)
    return made


@operation("Isnan")
def isnan(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    return g.IsNan(x) if is_floating(x.dtype) else g.Fill(g.shape_of(x), g.constant(False))


@operation("Isinf")
def isinf(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    return g.IsInf(x) if is_floating(x.dtype) else g.Fill(g.shape_of(x), g.constant(False))


@operation("Isfinite")
def isfinite(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    return g.IsFinite(x) if is_floating(x.dtype) else g.Fill(g.shape_of(x), g.constant(True))


def _is_number(value: float) -> Callable[[Builder, Operand], Value]:
    def compare(g: Builder, x: Operand) -> Value:
        x = as_value(g, x)
        return g.Equal(x, value) if is_floating(x.dtype) else g.Fill(g.shape_of(x), g.constant(False))

    return compare


operation("Isposinf")(_is_number(math.inf))
operation("Isneginf")(_is_number(-math.inf))


@operation("Isreal")
def isreal(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    if x.dtype.startswith("complex"):
        return g.Equal(g.Imag(x, Tout="float32" if x.dtype == "complex64" else "float64"), 0.0)
    made: Value = g.Fill(g.shape_of(x), g.constant(True))
    return made


@operation("NanToNum")
def nan_to_num(g: Builder, x: Operand, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Value:
    value = as_value(g, x)
    if not is_floating(value.dtype):
        return value
    x = value
    least, most = _ends(x.dtype)
    x = where(g, g.IsNan(x), g.constant(nan, x.dtype), x)
    x = where(g, g.Equal(x, math.inf), g.constant(most if posinf is None else posinf, x.dtype), x)
    return where(g, g.Equal(x, -math.inf), g.constant(least if neginf is None else neginf, x.dtype), x)


def _ends(dtype: str) -> tuple[float, float]:
    """The least and the largest number of a floating dtype."""
    if dtype == "bfloat16":
        return -3.3895313892515355e38, 3.3895313892515355e38
    facts = np.finfo(numpy_dtype(dtype_number(dtype)))
    return float(facts.min), float(facts.max)


@operation("Clip")
def clipped(g: Builder, x: Operand, x_min: Operand, x_max: Operand) -> Value:
    """Between two bounds; ClipByValue is younger than TensorFlow 1.2."""
    x = _no_bool(g, as_value(g, x))
    if x_min is not None:
        x = g.Maximum(x, as_value(g, x_min, x.dtype))
    return x if x_max is None else g.Minimum(x, as_value(g, x_max, x.dtype))


@operation("SaturateCast")
def saturate_cast(g: Builder, x: Operand, dtype: str) -> Value:
    """Numbers beyond the new dtype become its least and its largest (keras/src/ops/core.py, ``_saturate_cast``)."""
    made = as_value(g, x)
    if made.dtype != dtype and made.dtype != "bool":
        least, most = _limits(made.dtype, dtype)
        made = g.Minimum(g.Maximum(made, least), most)
    return cast(g, made, dtype)


def _limits(old: str, new: str) -> tuple[Any, Any]:
    """The least and the largest number of one dtype that the other can hold, too."""
    import ml_dtypes

    def ends(name: str) -> tuple[Any, Any]:
        if name == "bool":
            return 0, 1
        facts: Any = ml_dtypes  # which is not typed
        known = facts.iinfo(name) if "int" in name else facts.finfo(name)
        return known.min, known.max

    kind = numpy_dtype(dtype_number(old))
    (least, most), (new_least, new_most) = ends(old), ends(new)
    low, high = np.maximum(least, new_least).astype(kind), np.minimum(most, new_most).astype(kind)
    low = np.nextafter(low, np.asarray(0, kind)) if low < new_least else low
    high = np.nextafter(high, np.asarray(0, kind)) if high > new_most else high
    return low, high


@operation("Cast")
def cast(g: Builder, x: Operand, dtype: str) -> Value:
    made = as_value(g, x)
    return made if made.dtype == dtype else g.cast(made, dtype)


@operation("Array", "ConvertToTensor")
def as_array(g: Builder, x: Operand, dtype: str | None = None) -> Value:
    return as_value(g, x, dtype)


@operation("View")
def viewed(g: Builder, x: Operand, dtype: str | None = None) -> Value:
    """The same bytes as numbers of another dtype; of one with another width, the last axis shrinks or grows."""
    x = as_value(g, x)
    dtype = dtype or x.dtype
    old, new = (numpy_dtype(dtype_number(one)).itemsize for one in (x.dtype, dtype))
    if old == new:
        return g.Bitcast(x, type=dtype)
    *outer, last = g.sizes(x)
    if not isinstance(last, int):
        raise ValueError("the size of the last axis is not known")
    if old > new:
        return g.reshape(g.Bitcast(x, type=dtype), [*outer, last * (old // new)])
    parts = new // old
    made: Value = g.Bitcast(g.reshape(x, [*outer, last // parts, parts]), type=dtype)
    return made


# -- two operands ------------------------------------------------------------------------------------------------------


@operation("DivideNoNan")
def divide_no_nan(g: Builder, x1: Operand, x2: Operand) -> Value:
    """0 where the divisor is 0. DivNoNan came with TensorFlow 1.12."""
    x1, x2 = promoted(g, x1, x2, floating=True)
    zero = g.Equal(x2, 0.0)
    return where(g, zero, g.ZerosLike(x2), g.RealDiv(x1, where(g, zero, g.OnesLike(x2), x2)))


@operation("Power")
def power(g: Builder, x1: Operand, x2: Operand) -> Value:
    """Pow takes no unsigned numbers."""
    dtype = result_type(dtype_of(x1), dtype_of(x2))
    unsigned = dtype.startswith("uint")
    made = g.Pow(*(as_value(g, x, "int32" if unsigned else dtype) for x in (x1, x2)))
    return g.cast(made, dtype)


@operation("Mod")
def mod(g: Builder, x1: Operand, x2: Operand) -> Value:
    """With the sign of the divisor."""
    made: Value = g.FloorMod(*(_no_bool(g, x) for x in promoted(g, *strictly(g, x1, x2))))
    return made


@operation("Fmod")
def fmod(g: Builder, x1: Operand, x2: Operand) -> Value:
    """With the sign of the dividend."""
    x1, x2 = (_no_bool(g, x) for x in promoted(g, *strictly(g, x1, x2)))
    dtype = x1.dtype
    if dtype in ("uint8", "uint16", "uint32"):
        x1, x2 = g.cast(x1, "int32"), g.cast(x2, "int32")
    return g.cast(g.Mul(g.Sign(x1), g.FloorMod(g.Abs(x1), g.Abs(x2))), dtype)


def _without_nan(op: str) -> Callable[[Builder, Operand, Operand], Value]:
    """NaN gives way to a number."""

    def choose(g: Builder, x1: Operand, x2: Operand) -> Value:
        x1, x2 = promoted(g, x1, x2)
        best = _apply(g, op, x1, x2)
        if not is_floating(best.dtype):
            return best
        best = where(g, g.IsNan(x1), x2, best)
        return where(g, g.IsNan(x2), x1, best)

    return choose


operation("Fmax")(_without_nan("Maximum"))
operation("Fmin")(_without_nan("Minimum"))


@operation("Heaviside")
def heaviside(g: Builder, x1: Operand, x2: Operand) -> Value:
    x1, x2 = (_wide(g, x) for x in promoted(g, *strictly(g, x1, x2)))
    above = where(g, g.Greater(x1, 0.0), g.OnesLike(x1), x2)
    return where(g, g.Less(x1, 0.0), g.ZerosLike(x1), above)


@operation("Hypot")
def hypot(g: Builder, x1: Operand, x2: Operand) -> Value:
    """Without the squares of large numbers."""
    x1, x2 = (g.Abs(_wide(g, x)) for x in promoted(g, *strictly(g, x1, x2)))
    large, small = g.Maximum(x1, x2), g.Minimum(x1, x2)
    ratio = divide_no_nan(g, small, large)
    made: Value = g.Mul(large, g.Sqrt(g.Add(g.Square(ratio), 1.0)))
    return made


def _log_add_exp(base: float) -> Callable[[Builder, Operand, Operand], Value]:
    """``log(base ** x1 + base ** x2)``, to that base."""

    def add(g: Builder, x1: Operand, x2: Operand) -> Value:
        x1, x2 = promoted(g, *strictly(g, x1, x2), floating=True)
        distance = g.Sub(x1, x2)
        scale = math.log(base)
        more = g.RealDiv(g.Log1p(g.Exp(g.Mul(g.Neg(g.Abs(distance)), scale))), scale)
        return where(g, g.IsNan(distance), g.Add(x1, x2), g.Add(g.Maximum(x1, x2), more))

    return add


operation("Logaddexp")(_log_add_exp(math.e))
operation("Logaddexp2")(_log_add_exp(2))


@operation("Ldexp")
def ldexp(g: Builder, x1: Operand, x2: Operand) -> Value:
    x1, x2 = promoted(g, x1, x2, floating=True)
    result = g.Mul(x1, g.Pow(g.constant(2.0, x1.dtype), x2))
    stays = g.LogicalOr(g.IsInf(x1), g.Equal(x1, 0.0))
    return where(g, stays, x1, result)


@operation("Nextafter")
def nextafter(g: Builder, x1: Operand, x2: Operand) -> Value:
    """Computed in float64, as Keras does it."""
    dtype = result_type(dtype_of(x1), dtype_of(x2), "float")
    made = g.NextAfter(as_value(g, x1, "float64"), as_value(g, x2, "float64"))
    return g.cast(made, dtype)


@operation("Isclose")
def isclose(
    g: Builder, x1: Operand, x2: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Value:
    x1, x2 = promoted(g, x1, x2)
    if not is_floating(x1.dtype):
        return g.Equal(x1, x2)
    close = g.LessEqual(g.Abs(g.Sub(x1, x2)), g.Add(g.Mul(g.Abs(x2), rtol), atol))
    return g.LogicalOr(close, g.LogicalAnd(g.IsNan(x1), g.IsNan(x2))) if equal_nan else close


@operation("AllClose")
def allclose(
    g: Builder, x1: Operand, x2: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Value:
    x1, x2 = promoted(g, x1, x2)
    close = g.Equal(x1, x2)
    if is_floating(x1.dtype):
        finite = g.LogicalAnd(g.IsFinite(x1), g.IsFinite(x2))
        near = isclose(g, x1, x2, rtol, atol)
        close = g.LogicalOr(close, g.LogicalAnd(finite, near))
        if equal_nan:
            close = g.LogicalOr(close, g.LogicalAnd(g.IsNan(x1), g.IsNan(x2)))
    made: Value = g.All(close, list(range(close.rank or 0)))
    return made


# -- three and more ----------------------------------------------------------------------------------------------------


@operation("Where")
def choose(g: Builder, condition: Operand, x1: Operand = None, x2: Operand = None) -> Value:
    if x1 is None or x2 is None:
        raise ValueError("where without both of its branches has outputs of a size that depends on the data")
    return where(g, as_bool(g, condition), *promoted(g, x1, x2))


@operation("Select")
def select(g: Builder, condlist: Any, choicelist: Any, default: Operand = 0) -> Value:
    """The first choice whose condition holds."""
    *choices, result = promoted(g, *choicelist, default)
    for condition, choice in zip(reversed(condlist), reversed(choices), strict=True):
        result = where(g, as_bool(g, condition), choice, result)
    return result
