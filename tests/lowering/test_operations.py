"""The operations of ``keras.ops``, each against Keras itself, and the functions of TensorFlow that tf.keras wraps.

``CASES`` has rows: the class, a function of ``(ops, *inputs)`` that calls it, the inputs. The batch is the first axis of
every input; ``shapes`` of a second run leave every size open that the operation does not have to know.
"""

from __future__ import annotations

import importlib
import inspect

import numpy as np
import pytest

from modelio.errors import ConversionError
from modelio.lowering.operations import NOT_LOWERED
from modelio.lowering.rules import find
from tests.lowering.harness import assert_same, keras3
from tests.lowering.written import runs_on

MODULES = ("numpy", "nn", "math", "core", "linalg", "image", "einops")


def noise(*shape: int, seed: int = 0, dtype: str = "float32", low: float = -2, high: float = 2) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(dtype)


X = noise(2, 3, 4)
Y = noise(2, 3, 4, seed=1)
ROW = noise(2, 4, seed=2)
UNIT = noise(2, 3, 4, low=-0.95, high=0.95)
POSITIVE = noise(2, 3, 4, low=0.1, high=3)
ABOVE = noise(2, 3, 4, low=1.1, high=3)
WHOLE = np.random.default_rng(3).integers(-9, 9, (2, 3, 4)).astype(np.int32)
OTHER = np.random.default_rng(4).integers(1, 9, (2, 3, 4)).astype(np.int32)
BYTES = np.random.default_rng(5).integers(0, 255, (2, 3, 4)).astype(np.uint8)
TRUTH = np.random.default_rng(6).random((2, 3, 4)) < 0.5
SPECIAL = np.array([[0.0, -0.0, 1.5, -2.5], [np.nan, np.inf, -np.inf, 0.5]], np.float32)
HOLES = np.where(np.random.default_rng(7).random((2, 3, 4)) < 0.3, np.nan, X).astype(np.float32)
PICTURE = noise(2, 6, 5, 3, low=0, high=1)
SQUARE = noise(2, 3, 3)
POSITIVE_DEFINITE = (SQUARE @ SQUARE.transpose(0, 2, 1) + 3 * np.eye(3)).astype(np.float32)
CONSTANT = np.arange(4, dtype=np.float32)

_FLOATING = {
    "Arccos": (UNIT, WHOLE // 9),
    "Arccosh": (ABOVE, OTHER),
    "Arcsin": (UNIT,),
    "Arctanh": (UNIT,),
    **dict.fromkeys(("Arcsinh", "Arctan", "Cos", "Cosh", "Sin", "Sinh", "Tan", "Tanh"), (X, WHOLE, TRUTH)),
    **dict.fromkeys(("Ceil", "Floor", "Exp", "Expm1", "Fabs"), (X, WHOLE, SPECIAL)),
    **dict.fromkeys(("Log", "Log1p", "Log2", "Log10", "Sqrt"), (POSITIVE, OTHER, OTHER.astype(np.int64))),
    **dict.fromkeys(("Exp2", "Cbrt", "Deg2rad", "Rad2deg", "Sinc", "I0"), (X, WHOLE)),
}
_UNARY = {
    **_FLOATING,
    **dict.fromkeys(("Absolute", "Abs"), (X, WHOLE, BYTES, TRUTH)),
    **dict.fromkeys(("Negative", "Copy"), (X, WHOLE)),
    **dict.fromkeys(("Reciprocal", "Rsqrt"), (POSITIVE,)),
    **dict.fromkeys(("Erf", "Erfc"), (X,)),
    "Erfinv": (UNIT, UNIT.astype(np.float16)),
    "Square": (X, WHOLE, TRUTH),
    "Sign": (X, WHOLE, BYTES),
    "Trunc": (X, WHOLE, X.astype(np.float64)),
    "Signbit": (SPECIAL, WHOLE, TRUTH),
    **dict.fromkeys(("Isnan", "Isinf", "Isfinite", "Isposinf", "Isneginf"), (SPECIAL,)),
    "Isreal": (SPECIAL, WHOLE),
    "LogicalNot": (TRUTH, WHOLE),
    **dict.fromkeys(("BitwiseInvert", "BitwiseNot"), (WHOLE, BYTES)),
    **dict.fromkeys(("ZerosLike", "OnesLike", "EmptyLike", "Ravel", "Fliplr", "Flipud"), (X, WHOLE)),
    **dict.fromkeys(("Real", "Imag", "Conjugate", "Conj"), (X,)),
    "Angle": (X, WHOLE),
    **dict.fromkeys(("Relu", "Relu6", "Sigmoid", "SparseSigmoid", "Softplus", "Softsign", "SparsePlus"), (X * 3,)),
    **dict.fromkeys(("Silu", "LogSigmoid", "HardSigmoid", "HardSilu", "Selu", "TanhShrink", "HardTanh"), (X * 3,)),
    **dict.fromkeys(("Inv", "Slogdet", "Det"), (SQUARE,)),
    "Logdet": (POSITIVE_DEFINITE,),
    "Corrcoef": (SQUARE[0],),
}

_BINARY = {
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Fmax", "Fmin"), "any"),
    **dict.fromkeys(("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"), "any"),
    **dict.fromkeys(("Divide", "TrueDivide", "FloorDivide", "Mod", "Fmod", "DivideNoNan"), "divisor"),
    **dict.fromkeys(("Arctan2", "Hypot", "Heaviside", "Logaddexp", "Logaddexp2"), "any"),
    **dict.fromkeys(("LogicalAnd", "LogicalOr", "LogicalXor"), "truth"),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "Gcd", "Lcm"), "whole"),
    **dict.fromkeys(("BitwiseLeftShift", "LeftShift", "BitwiseRightShift", "RightShift"), "shift"),
}

_SHIFTS = WHOLE, OTHER % 4
_OPERANDS = {
    "any": [(X, Y), (X, ROW[:, None]), (X, WHOLE), (WHOLE, OTHER), (X.astype(np.float16), Y), (BYTES, WHOLE)],
    "divisor": [(X, POSITIVE), (WHOLE, OTHER), (X, OTHER)],
    "truth": [(TRUTH, TRUTH[::-1]), (WHOLE, TRUTH)],
    "whole": [(WHOLE, OTHER), (OTHER, OTHER[:, :1])],
    "shift": [_SHIFTS],
}

_REDUCTIONS = {
    **dict.fromkeys(("Sum", "Mean", "Max", "Min", "Amax", "Amin", "Prod"), (X, WHOLE)),
    **dict.fromkeys(("Any", "All"), (TRUTH, WHOLE)),
    **dict.fromkeys(("Var", "Std"), (X, WHOLE, X.astype(np.float16))),
    **dict.fromkeys(("Ptp", "Logsumexp", "Median"), (X,)),
    **dict.fromkeys(("Nanmax", "Nanmin", "Nanmean", "Nansum", "Nanprod", "Nanvar", "Nanstd"), (HOLES, X)),
}

_ARGUMENTS = {
    **dict.fromkeys(("Argmax", "Argmin"), (X, WHOLE)),
    **dict.fromkeys(("Nanargmax", "Nanargmin"), (HOLES,)),
}


def snake(name: str) -> str:
    special = {
        "TrueDivide": "true_divide",
        "LogicalAnd": "logical_and",
        "CountNonzero": "count_nonzero",
        "FFT": "fft",
        "FFT2": "fft2",
        "IFFT2": "ifft2",
        "RFFT": "rfft",
        "IRFFT": "irfft",
        "STFT": "stft",
        "SVD": "svd",
        "PSNR": "psnr",
        "CDist": "cdist",
        "NanToNum": "nan_to_num",
        "AllClose": "allclose",
        "Rot90": "rot90",
        "IsIn": "isin",
        "SearchSorted": "searchsorted",
        "I0": "i0",
        "RGBToGrayscale": "rgb_to_grayscale",
        "RGBToHSV": "rgb_to_hsv",
        "HSVToRGB": "hsv_to_rgb",
    }
    if name in special:
        return special[name]
    return "".join(
        f"_{letter.lower()}" if letter.isupper() and at else letter.lower() for at, letter in enumerate(name)
    )


def rows():
    """Class, function, inputs."""
    for name, arrays in _UNARY.items():
        for array in arrays:
            yield name, lambda ops, x, name=name: getattr(_home(ops, name), snake(name))(x), array
    for name, kind in _BINARY.items():
        for pair in _OPERANDS[kind]:
            yield name, lambda ops, x, y, name=name: getattr(ops, snake(name))(x, y), *pair
        if kind in ("any", "divisor") and name not in ("Hypot", "Heaviside"):  # Keras takes no numbers there
            yield name, lambda ops, x, name=name: getattr(ops, snake(name))(x, 2), WHOLE
            yield name, lambda ops, x, name=name: getattr(ops, snake(name))(x, 1.5), X.astype(np.float16)
            yield name, lambda ops, x, name=name: getattr(ops, snake(name))(3.0, x), POSITIVE
            yield name, lambda ops, x, name=name: getattr(ops, snake(name))(x, CONSTANT + 1), X
    for name, arrays in _REDUCTIONS.items():
        for array in arrays:
            for axis in (None, 1, -1, (1, 2), (0, -1)):
                for keepdims in (False, True):
                    yield (
                        name,
                        lambda ops, x, name=name, axis=axis, keepdims=keepdims: getattr(ops, snake(name))(
                            x, axis=axis, keepdims=keepdims
                        ),
                        array,
                    )
    for name, arrays in _ARGUMENTS.items():
        for array in arrays:
            for axis in (None, 1, -1):
                for keepdims in (False, True):
                    yield (
                        name,
                        lambda ops, x, name=name, axis=axis, keepdims=keepdims: getattr(ops, snake(name))(
                            x, axis=axis, keepdims=keepdims
                        ),
                        array,
                    )
    yield from _particular()


def _home(ops, name):
    return ops.linalg if name in ("Inv", "Det", "Logdet", "Slogdet") and not hasattr(ops, snake(name)) else ops


def _particular():
    kernel = noise(2, 2, 3, 4, seed=3)
    yield "AllClose", lambda ops, x: ops.allclose(x, x + 1e-9), X
    yield "AllClose", lambda ops, x, y: ops.allclose(x, y), X, Y
    yield "Append", lambda ops, x, y: ops.append(x, y, axis=1), X, Y
    yield "Append", lambda ops, x, y: ops.append(x, y), X, WHOLE
    yield "Arange", lambda ops, x: ops.sum(x) + ops.cast(ops.sum(ops.arange(3)), "float32"), X
    yield "Argsort", lambda ops, x: ops.argsort(x), X
    for axis in (None, 1):
        yield "Argsort", lambda ops, x, axis=axis: ops.argsort(x, axis=axis), WHOLE
        yield "Sort", lambda ops, x, axis=axis: ops.sort(x, axis=axis), WHOLE
        yield "Sort", lambda ops, x, axis=axis: ops.sort(x, axis=axis), BYTES
        yield "Cumsum", lambda ops, x, axis=axis: ops.cumsum(x, axis=axis), X
        yield "Cumprod", lambda ops, x, axis=axis: ops.cumprod(x, axis=axis), X
        yield "Nancumsum", lambda ops, x, axis=axis: ops.nancumsum(x, axis=axis), HOLES
        yield "Nancumprod", lambda ops, x, axis=axis: ops.nancumprod(x, axis=axis), HOLES
        yield "CountNonzero", lambda ops, x, axis=axis: ops.count_nonzero(x, axis=axis), WHOLE
        yield "Average", lambda ops, x, axis=axis: ops.average(x, axis=axis), X
        yield "Average", lambda ops, x, y, axis=axis: ops.average(x, axis=axis, weights=y), X, POSITIVE
    yield "Average", lambda ops, x: ops.average(x, axis=2, weights=CONSTANT + 1), X
    yield "Cumsum", lambda ops, x: ops.cumsum(x, axis=1, dtype="float64"), X
    yield "Cumsum", lambda ops, x: ops.cumsum(x, axis=1), TRUTH
    yield "Sort", lambda ops, x: ops.sort(x), X
    yield "Sort", lambda ops, x: ops.sort(x), TRUTH
    yield "Array", lambda ops, x: ops.array(x, dtype="float16"), X
    yield "ConvertToTensor", lambda ops, x: ops.convert_to_tensor(x, dtype="float16"), X
    yield "Bincount", lambda ops, x: ops.bincount(x, minlength=12), OTHER[:, 0]
    yield "Bincount", lambda ops, x: ops.bincount(x, weights=[[0.0, 1, 2, 3], [4, 5, 6, 7]]), OTHER[:, 0]
    yield "BroadcastTo", lambda ops, x: ops.broadcast_to(x, (2, 3, 4)), ROW[:, None]
    yield "BroadcastTo", lambda ops, x: ops.broadcast_to(x, (2, 3, 4)), TRUTH[:, :1]
    yield "Cast", lambda ops, x: ops.cast(x, "int32"), X
    yield "Cast", lambda ops, x: ops.cast(x, "float16"), WHOLE
    yield "SaturateCast", lambda ops, x: ops.saturate_cast(x, "float16"), X
    yield "SaturateCast", lambda ops, x: ops.saturate_cast(1e5 * x, "float16"), X
    yield "SaturateCast", lambda ops, x: ops.saturate_cast(300 * x, "uint8"), X
    yield "SaturateCast", lambda ops, x: ops.saturate_cast(1e12 * x, "int32"), X
    yield "Clip", lambda ops, x: ops.clip(x, -1, 1.5), X
    yield "Clip", lambda ops, x: ops.clip(x, -2, 3), WHOLE
    yield "Concatenate", lambda ops, x, y: ops.concatenate([x, y], axis=-1), X, Y
    yield "Concatenate", lambda ops, x, y: ops.concatenate([x, y], axis=1), X, WHOLE
    yield "Correlate", lambda ops, x: ops.correlate(x, CONSTANT[:3]), X[0, 0]
    for mode in ("valid", "same", "full"):
        yield "Correlate", lambda ops, x, mode=mode: ops.correlate(x, CONSTANT[:2], mode=mode), noise(7)
    yield "Cross", lambda ops, x, y: ops.cross(x, y), X[..., :3], Y[..., :3]
    yield "Cross", lambda ops, x, y: ops.cross(x, y), X[..., :2], Y[..., :2]
    yield "Cross", lambda ops, x, y: ops.cross(x, y), X[..., :2], Y[..., :3]
    yield "Cross", lambda ops, x, y: ops.cross(x, y, axis=1), X, Y
    yield "CDist", lambda ops, x, y: ops.cdist(x, y), X, Y[:, :2]
    for k in (-1, 0, 2):
        yield "Diag", lambda ops, x, k=k: ops.diag(x, k=k), X[0]
        yield "Diag", lambda ops, x, k=k: ops.diag(x, k=k), X[0, 0]
        yield "Diagflat", lambda ops, x, k=k: ops.diagflat(x, k=k), X[0]
        yield "Diagonal", lambda ops, x, k=k: ops.diagonal(x, offset=k, axis1=1, axis2=2), X
        yield "Diagonal", lambda ops, x, k=k: ops.diagonal(x, offset=k, axis1=2, axis2=1), X
        yield "Trace", lambda ops, x, k=k: ops.trace(x, offset=k, axis1=1, axis2=2), SQUARE
        yield "Tril", lambda ops, x, k=k: ops.tril(x, k=k), X
        yield "Triu", lambda ops, x, k=k: ops.triu(x, k=k), X
    for n in (0, 1, 2):
        yield "Diff", lambda ops, x, n=n: ops.diff(x, n=n, axis=-1), X
    yield "Diff", lambda ops, x: ops.diff(x, axis=1), TRUTH
    yield "Digitize", lambda ops, x: ops.digitize(x, np.array([-1.0, 0.0, 0.5])), X
    yield "Digitize", lambda ops, x: ops.digitize(x, np.array([-1.0, 3.0])), WHOLE
    yield "Dot", lambda ops, x, y: ops.dot(x, y), X, SQUARE[:, :, :1].repeat(4, 1)[:, :4]
    yield "Dot", lambda ops, x: ops.dot(x, CONSTANT), X
    yield "Inner", lambda ops, x, y: ops.inner(x, y), X, ROW
    yield "Vdot", lambda ops, x, y: ops.vdot(x, y), X, Y
    yield "Outer", lambda ops, x, y: ops.outer(x, y), X, ROW
    yield "Kron", lambda ops, x, y: ops.kron(x, y), X[0], Y[0]
    for axes in (1, [[2], [1]], [[1, 2], [1, 2]]):
        yield (
            "Tensordot",
            lambda ops, x, axes=axes: ops.tensordot(
                x, noise(4, 4, 3) if axes == 1 else noise(5, 4) if len(axes[0]) == 1 else noise(2, 3, 4), axes=axes
            ),
            X,
        )
    for a, b in (
        (X, Y.transpose(0, 2, 1)),
        (X, X[0].T),
        (X[0], X[0].T),
        (X, CONSTANT),
        (WHOLE, OTHER.transpose(0, 2, 1)),
    ):
        if b.ndim == 3:
            yield "Matmul", lambda ops, x, y: ops.matmul(x, y), a, b
        else:
            yield "Matmul", lambda ops, x, b=b: ops.matmul(x, b), a
    yield "Matmul", lambda ops, x: ops.matmul(CONSTANT[:3], x), X
    yield "Matmul", lambda ops, x, y: ops.matmul(x, y), noise(2, 1, 3, 4), noise(2, 5, 4, 2)
    yield "Einsum", lambda ops, x, y: ops.einsum("bij,bkj->bki", x, y), X, Y
    yield "Einsum", lambda ops, x, y: ops.einsum("bij,bkj->bik", x, y), WHOLE, OTHER
    yield "Einsum", lambda ops, x: ops.einsum("bij->bji", x), X
    yield "Dstack", lambda ops, x, y: ops.dstack([x, y]), X, Y
    yield "Hstack", lambda ops, x, y: ops.hstack([x, y]), X, WHOLE
    yield "Vstack", lambda ops, x, y: ops.vstack([x, y]), X, Y
    yield "Stack", lambda ops, x, y: ops.stack([x, y], axis=1), X, Y
    yield "Stack", lambda ops, x, y: ops.stack([x, y], axis=-1), X, WHOLE
    yield "ExpandDims", lambda ops, x: ops.expand_dims(x, 1), X
    yield "ExpandDims", lambda ops, x: ops.expand_dims(x, (1, -1)), X
    yield "Flip", lambda ops, x: ops.flip(x), X
    yield "Flip", lambda ops, x: ops.flip(x, axis=(1, -1)), X
    yield "Full", lambda ops, x: ops.full((2, 3), ops.sum(x)), X
    yield "FullLike", lambda ops, x: ops.full_like(x, 7), X
    yield "FullLike", lambda ops, x: ops.full_like(x, 7, dtype="int32"), X
    for key in (0, -1, (slice(1, None),), (slice(None), 1), (slice(None), slice(None, None, 2)), (..., 0), (..., -1)):
        yield "GetItem", lambda ops, x, key=key: x[key], X
    for key in (
        (slice(None), None),
        (..., None, slice(1, 3)),
        (slice(None), slice(None, None, -1)),
        (slice(None), -2, None, 1),
    ):
        yield "GetItem", lambda ops, x, key=key: x[key], X
    for endpoint in (True, False):
        yield "Linspace", lambda ops, x, e=endpoint: ops.linspace(x, x + 4, 5, endpoint=e, axis=1), X
        yield "Linspace", lambda ops, x, e=endpoint: ops.linspace(0, ops.sum(x), 5, endpoint=e), X
        yield "Logspace", lambda ops, x, e=endpoint: ops.logspace(x, x + 1, 5, endpoint=e, base=2), X
        yield "Geomspace", lambda ops, x, e=endpoint: ops.geomspace(x, x + 1, 5, endpoint=e), POSITIVE
    for parts in (3, [1, 2], [1]):
        yield "Split", lambda ops, x, parts=parts: ops.split(x, parts, axis=1), X
        yield "Hsplit", lambda ops, x, parts=parts: ops.hsplit(x, parts), X
    yield "Dsplit", lambda ops, x: ops.dsplit(x, 2), X
    yield "Vsplit", lambda ops, x: ops.vsplit(x, [1]), X
    yield "ArraySplit", lambda ops, x: ops.array_split(x, 3, axis=2), X
    yield "Unstack", lambda ops, x: ops.unstack(x, axis=1), X
    yield "Isclose", lambda ops, x: ops.isclose(x, x + 1e-7), SPECIAL
    yield "Isclose", lambda ops, x: ops.isclose(x, x, equal_nan=True), SPECIAL
    yield "IsIn", lambda ops, x: ops.isin(x, [1, 2, 5]), WHOLE
    yield "IsIn", lambda ops, x: ops.isin(x, [1, 2, 5], invert=True), WHOLE
    yield "Ldexp", lambda ops, x, y: ops.ldexp(x, y), X, OTHER
    yield "Meshgrid", lambda ops, x: ops.meshgrid(x, np.arange(3, dtype=np.float32)), X[0, 0]
    yield "Meshgrid", lambda ops, x: ops.meshgrid(x, np.arange(3, dtype=np.float32), indexing="ij"), X[0, 0]
    yield "Moveaxis", lambda ops, x: ops.moveaxis(x, 1, -1), PICTURE
    yield "Moveaxis", lambda ops, x: ops.moveaxis(x, (1, 2), (3, 1)), PICTURE
    yield "NanToNum", lambda ops, x: ops.nan_to_num(x), SPECIAL
    yield "NanToNum", lambda ops, x: ops.nan_to_num(x, nan=1.0, posinf=5.0, neginf=-3.0), SPECIAL
    yield "Size", lambda ops, x: ops.size(x), X
    yield "Nextafter", lambda ops, x, y: ops.nextafter(x, y), X, Y
    yield "Nonzero", lambda ops, x: ops.nonzero(x), WHOLE
    for mode in ("constant", "reflect", "symmetric"):
        yield "Pad", lambda ops, x, mode=mode: ops.pad(x, [(0, 0), (1, 2), (0, 1)], mode=mode), X
    yield "Pad", lambda ops, x: ops.pad(x, [(0, 0), (1, 2), (0, 1)], constant_values=5), X
    for method in ("linear", "lower", "higher", "midpoint", "nearest"):
        for axis in (None, 1, (1, 2)):
            yield "Quantile", lambda ops, x, m=method, axis=axis: ops.quantile(x, 0.3, axis=axis, method=m), X
        yield "Quantile", lambda ops, x, m=method: ops.quantile(x, [0.0, 0.4, 1.0], axis=-1, method=m), X
        yield "Percentile", lambda ops, x, m=method: ops.percentile(x, 35, axis=1, method=m, keepdims=True), X
    yield "Quantile", lambda ops, x: ops.quantile(x, [0.1, 0.5], axis=1, keepdims=True), WHOLE
    yield "Median", lambda ops, x: ops.median(x, axis=1), HOLES
    yield "Power", lambda ops, x, y: ops.power(x, y), POSITIVE, Y
    yield "Power", lambda ops, x: ops.power(x, 2), WHOLE
    yield "Power", lambda ops, x: ops.power(x, 2), BYTES // 30
    yield "Repeat", lambda ops, x: ops.repeat(x, 3), X
    yield "Repeat", lambda ops, x: ops.repeat(x, 3, axis=1), X
    yield "Repeat", lambda ops, x: ops.repeat(x, [1, 2, 0], axis=1), X
    yield "Reshape", lambda ops, x: ops.reshape(x, (-1, 6)), X
    yield "Reshape", lambda ops, x: ops.reshape(x, (2, 2, 6)), X
    for shift, axis in ((1, 1), (-2, 2), ((1, 2), (1, 2)), (5, None), (0, 1)):
        yield "Roll", lambda ops, x, shift=shift, axis=axis: ops.roll(x, shift, axis=axis), X
    for k in range(-1, 4):
        yield "Rot90", lambda ops, x, k=k: ops.rot90(x, k=k, axes=(1, 2)), X
    for decimals in (0, 1, -1):
        yield "Round", lambda ops, x, d=decimals: ops.round(x, decimals=d), X * 7
        yield "Round", lambda ops, x, d=decimals: ops.round(x, decimals=d), WHOLE * 7
    yield "Round", lambda ops, x: ops.round(x), np.array([[0.5, 1.5, -0.5, 2.5]], np.float16)
    for side in ("left", "right"):
        yield (
            "SearchSorted",
            lambda ops, x, side=side: ops.searchsorted(np.array([-1.0, 0.0, 1.0], np.float32), x, side=side),
            X[0, 0],
        )
    yield "Select", lambda ops, x: ops.select([x > 1, x > 0], [x, x * 2], default=-1.0), X
    yield "Squeeze", lambda ops, x: ops.squeeze(x, axis=1), X[:, :1]
    yield "Squeeze", lambda ops, x: ops.squeeze(x), X[:, :1]
    yield "Swapaxes", lambda ops, x: ops.swapaxes(x, 1, -1), X
    for axis in (None, 0, 1, -1):
        yield "Take", lambda ops, x, axis=axis: ops.take(x, [1, 0, -1], axis=axis), X
        yield (
            "TakeAlongAxis",
            lambda ops, x, axis=axis: ops.take_along_axis(
                x if axis is not None else ops.reshape(x, (-1,)),
                np.array([1, 0, -1]) if axis is None else np.array([[[0]], [[-1]]]),
                axis=axis,
            ),
            X,
        )
    yield "Take", lambda ops, x, i: ops.take(x, i, axis=-1), X, OTHER[:, 0] % 4
    yield "TakeAlongAxis", lambda ops, x, i: ops.take_along_axis(x, i, axis=2), X, OTHER % 4
    for repeats in (2, (2, 1), (2, 1, 1, 3)):
        yield "Tile", lambda ops, x, repeats=repeats: ops.tile(x, repeats), X
    yield "Transpose", lambda ops, x: ops.transpose(x), X
    yield "Transpose", lambda ops, x: ops.transpose(x, (0, 2, -2)), X
    yield "Trapezoid", lambda ops, x: ops.trapezoid(x, dx=0.5), X
    yield "Trapezoid", lambda ops, x: ops.trapezoid(x, x=[0.0, 1, 3, 4]), X[0, 0]
    yield "Unique", lambda ops, x: ops.unique(x), WHOLE
    yield "UnravelIndex", lambda ops, x: ops.unravel_index(x, (3, 4)), np.array([1, 5, 11], np.int32)
    yield "Vander", lambda ops, x: ops.vander(x, 3), X[0, 0]
    yield "Vander", lambda ops, x: ops.vander(x, 3, increasing=True), X[0, 0]
    yield "View", lambda ops, x: ops.view(x, dtype="int32"), X
    yield "View", lambda ops, x: ops.view(x, dtype="int16"), X
    yield "Where", lambda ops, c, x, y: ops.where(c, x, y), TRUTH, X, Y
    yield "Where", lambda ops, c, x: ops.where(c, x, 0.0), TRUTH[:, :1], X
    yield "Where", lambda ops, x: ops.where(x > 0, x, WHOLE[0]), X
    # nn
    yield "SoftShrink", lambda ops, x: ops.soft_shrink(x, 0.7), X
    yield "HardShrink", lambda ops, x: ops.hard_shrink(x, 0.7), X
    yield "Squareplus", lambda ops, x: ops.squareplus(x, b=2), X
    yield "LeakyRelu", lambda ops, x: ops.leaky_relu(x, 0.3), X
    yield "Elu", lambda ops, x: ops.elu(x, 0.5), X
    yield "Celu", lambda ops, x: ops.celu(x, 0.5), X
    yield "Gelu", lambda ops, x: ops.gelu(x), X
    yield "Gelu", lambda ops, x: ops.gelu(x, approximate=False), X
    yield "Glu", lambda ops, x: ops.glu(x), X
    yield "Threshold", lambda ops, x: ops.threshold(x, 0.5, -3.0), X
    for axis in (-1, 1, None):
        yield "Softmax", lambda ops, x, axis=axis: ops.softmax(x, axis=axis), X
        yield "LogSoftmax", lambda ops, x, axis=axis: ops.log_softmax(x, axis=axis), X
    yield "Sparsemax", lambda ops, x: ops.sparsemax(x), X
    yield "Sparsemax", lambda ops, x: ops.sparsemax(x, axis=1), X
    for padding in ("valid", "same"):
        yield "MaxPool", lambda ops, x, p=padding: ops.max_pool(x, 2, padding=p), PICTURE
        yield "AveragePool", lambda ops, x, p=padding: ops.average_pool(x, (2, 3), strides=1, padding=p), PICTURE
        yield "Conv", lambda ops, x, p=padding: ops.conv(x, kernel, strides=2, padding=p), PICTURE
        yield "Conv", lambda ops, x, p=padding: ops.conv(x, noise(2, 4, 5), padding=p, dilation_rate=2), X.repeat(2, 1)
        yield "DepthwiseConv", lambda ops, x, p=padding: ops.depthwise_conv(x, noise(2, 2, 3, 2), padding=p), PICTURE
        yield (
            "SeparableConv",
            lambda ops, x, p=padding: ops.separable_conv(x, noise(2, 2, 3, 2), noise(1, 1, 6, 4), padding=p),
            PICTURE,
        )
    yield "Conv", lambda ops, x, k: ops.conv(x, ops.reshape(k, (2, 2, 3, 4))), PICTURE, noise(2, 24)
    yield "AdaptiveMaxPool", lambda ops, x: ops.adaptive_max_pool(x, (2, 2)), PICTURE
    yield "AdaptiveAveragePool", lambda ops, x: ops.adaptive_average_pool(x, (2, 3)), PICTURE
    for axis in (-1, 1):
        yield "OneHot", lambda ops, x, axis=axis: ops.one_hot(x, 5, axis=axis), WHOLE
        yield "OneHot", lambda ops, x, axis=axis: ops.one_hot(x, 5, axis=axis, dtype="bool"), OTHER
    yield "MultiHot", lambda ops, x: ops.multi_hot(x, 9), OTHER[:, 0]
    yield "MultiHot", lambda ops, x: ops.multi_hot(x, 9, dtype="int32"), OTHER
    yield (
        "BinaryCrossentropy",
        lambda ops, x, y: ops.binary_crossentropy(x, y),
        TRUTH.astype("float32"),
        PICTURE[:, :3, :4, 0],
    )
    yield (
        "BinaryCrossentropy",
        lambda ops, x, y: ops.binary_crossentropy(x, y, from_logits=True),
        TRUTH.astype("float32"),
        X,
    )
    for logits in (False, True):
        yield (
            "CategoricalCrossentropy",
            lambda ops, x, y, logits=logits: ops.categorical_crossentropy(x, y, from_logits=logits),
            POSITIVE,
            POSITIVE[::-1],
        )
        yield (
            "SparseCategoricalCrossentropy",
            lambda ops, x, y, logits=logits: ops.sparse_categorical_crossentropy(x, y, from_logits=logits),
            OTHER[:, :, 0] % 4,
            PICTURE[:, :3, :4, 0],
        )
    yield "Moments", lambda ops, x: ops.moments(x, axes=[1]), X
    yield "Moments", lambda ops, x: ops.moments(x, axes=[1, 2], keepdims=True), X.astype(np.float16)
    yield (
        "BatchNorm",
        lambda ops, x: ops.batch_normalization(x, CONSTANT, CONSTANT + 1, axis=-1, offset=CONSTANT, scale=CONSTANT),
        X,
    )
    yield "BatchNorm", lambda ops, x: ops.batch_normalization(x, CONSTANT[:3], CONSTANT[:3] + 1, axis=1), X
    for order in (1, 2, 3):
        yield "Normalize", lambda ops, x, order=order: ops.normalize(x, order=order), X
        yield "Normalize", lambda ops, x, order=order: ops.normalize(x, axis=1, order=order), X
    yield "RMSNorm", lambda ops, x: ops.rms_normalization(x, CONSTANT), X
    yield "LayerNorm", lambda ops, x: ops.layer_normalization(x, CONSTANT, CONSTANT), X
    yield "LayerNorm", lambda ops, x: ops.layer_normalization(x, axis=1), X
    yield "PSNR", lambda ops, x, y: ops.psnr(x, y, max_val=2.0), X, Y
    for causal in (False, True):
        yield (
            "DotProductAttention",
            lambda ops, q, k, v, c=causal: ops.dot_product_attention(q, k, v, is_causal=c),
            noise(2, 5, 4, 3),
            noise(2, 6, 2, 3),
            noise(2, 6, 2, 3, seed=1),
        )
    yield (
        "DotProductAttention",
        lambda ops, q, m: ops.dot_product_attention(q, q, q, mask=m, scale=0.3, bias=CONSTANT),
        noise(2, 4, 3, 5),
        TRUTH[:, :1, :1, None],
    )
    yield "Polar", lambda ops, x, y: ops.real(ops.polar(x, y)), POSITIVE, X
    yield "Unfold", lambda ops, x: ops.unfold(x, 2), PICTURE
    yield "Unfold", lambda ops, x: ops.unfold(x, (2, 3), dilation=1, padding=1, stride=2), PICTURE
    yield "DepthToSpace", lambda ops, x: ops.depth_to_space(x, 2), noise(2, 2, 3, 8)
    yield "SpaceToDepth", lambda ops, x: ops.space_to_depth(x, 2, data_format="channels_first"), noise(2, 3, 4, 6)
    # math
    for kind in ("Sum", "Max"):
        name = f"Segment{kind}"
        yield (
            name,
            lambda ops, x, kind=kind: getattr(ops, f"segment_{kind.lower()}")(x, np.array([0, 0, 1]), num_segments=2),
            X[0],
        )
    for kind in ("Min", "Prod"):
        name = f"Segment{kind}"
        yield (
            name,
            lambda ops, x, kind=kind: getattr(ops, f"segment_{kind.lower()}")(x, np.array([0, 2, 1]), num_segments=3),
            X[0],
        )
    yield "TopK", lambda ops, x: ops.top_k(x, 2), X
    yield "InTopK", lambda ops, t, p: ops.in_top_k(t, p, k=2), np.array([0, 3], np.int32), ROW
    yield "ExtractSequences", lambda ops, x: ops.extract_sequences(x, 5, 3), noise(2, 17)
    yield "FFT", lambda ops, x, y: ops.fft((x, y)), X, Y
    yield "FFT2", lambda ops, x, y: ops.fft2((x, y)), X, Y
    yield "IFFT2", lambda ops, x, y: ops.ifft2((x, y)), X, Y
    for length in (None, 3, 9):
        yield "RFFT", lambda ops, x, n=length: ops.rfft(x, fft_length=n), X
        yield "IRFFT", lambda ops, x, y, n=length: ops.irfft((x, y), fft_length=n), X, Y
    for window in ("hann", "hamming", None):
        for center in (True, False):
            yield "STFT", lambda ops, x, w=window, c=center: ops.stft(x, 7, 3, 8, window=w, center=c), noise(2, 30)
    yield "ViewAsReal", lambda ops, x, y: ops.view_as_real(ops.polar(x, y)), POSITIVE, X
    # core
    for pattern in ("b h w -> b w h", "b h w -> b (h w)", "b h (k c) -> (b k) h c", "b h w -> (b h) w"):
        lengths = {"k": 2} if "k" in pattern else {}
        yield "Rearrange", lambda ops, x, p=pattern, n=lengths: ops.rearrange(x, p, **n), X
    yield "Scatter", lambda ops, x: ops.scatter(np.array([[0], [2]]), x, (4, 3, 4)), X
    for reduction in (None, "add", "max", "min"):
        yield (
            "ScatterUpdate",
            lambda ops, x, r=reduction: ops.scatter_update(
                x, np.array([[0, 1], [1, 0]]), np.ones((2, 4), np.float32), reduction=r
            ),
            X,
        )
    yield "Slice", lambda ops, x: ops.slice(x, (0, 1, 1), (2, 2, 3)), X
    yield "SliceUpdate", lambda ops, x, y: ops.slice_update(x, (0, 1, 1), y), X, Y[:, :2, :3]
    yield "StopGradient", lambda ops, x: ops.stop_gradient(x), X
    # linalg
    yield "Cholesky", lambda ops, x: ops.cholesky(x), POSITIVE_DEFINITE
    yield "Cholesky", lambda ops, x: ops.cholesky(x, upper=True), POSITIVE_DEFINITE
    for upper in (False, True):
        yield (
            "CholeskyInverse",
            lambda ops, x, u=upper: ops.cholesky_inverse(ops.cholesky(x, upper=u), upper=u),
            POSITIVE_DEFINITE,
        )
    yield "Eigh", lambda ops, x: ops.eigh(x), POSITIVE_DEFINITE
    yield "LuFactor", lambda ops, x: ops.lu_factor(x), SQUARE[0]
    for order in (None, 1, 2, 3, 0, np.inf, -np.inf):
        yield "Norm", lambda ops, x, order=order: ops.norm(x, ord=order, axis=-1), X
    for order in (None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf):
        for keepdims in (False, True):
            yield (
                "Norm",
                lambda ops, x, order=order, keep=keepdims: ops.norm(x, ord=order, axis=(1, 2), keepdims=keep),
                X,
            )
    for mode in ("reduced", "complete"):
        yield "Qr", lambda ops, x, mode=mode: ops.qr(x, mode=mode), X
    yield "Solve", lambda ops, a, b: ops.solve(a, b), SQUARE, X
    yield "Solve", lambda ops, a, b: ops.solve(a, b), SQUARE, X[:, :, 0]
    yield "SolveTriangular", lambda ops, a, b: ops.solve_triangular(a, b, lower=True), SQUARE, X
    yield "SVD", lambda ops, x: ops.svd(x, compute_uv=False), X
    yield "SVD", lambda ops, x: ops.svd(x, full_matrices=False)[0] ** 2, X
    yield "Lstsq", lambda ops, a, b: ops.lstsq(a, b), noise(5, 3), noise(5, 2)
    yield "MatrixRank", lambda ops, x: ops.matrix_rank(x), X
    yield "Pinv", lambda ops, x: ops.pinv(x), X
    # image
    for form in ("channels_last", "channels_first"):
        picture = PICTURE if form == "channels_last" else PICTURE.transpose(0, 3, 1, 2).copy()
        yield "RGBToGrayscale", lambda ops, x, f=form: ops.image.rgb_to_grayscale(x, data_format=f), picture
        yield "RGBToHSV", lambda ops, x, f=form: ops.image.rgb_to_hsv(x, data_format=f), picture
        yield "HSVToRGB", lambda ops, x, f=form: ops.image.hsv_to_rgb(x, data_format=f), picture
        yield "SobelEdges", lambda ops, x, f=form: ops.image.sobel_edges(x, data_format=f), picture
        yield "PadImages", lambda ops, x, f=form: ops.image.pad_images(x, 1, 2, 0, 3, data_format=f), picture
        yield (
            "PadImages",
            lambda ops, x, f=form: ops.image.pad_images(x, 1, 2, target_height=9, target_width=8, data_format=f),
            picture,
        )
        yield "CropImages", lambda ops, x, f=form: ops.image.crop_images(x, 1, 0, 0, 2, data_format=f), picture
        for interpolation in ("nearest", "bilinear", "bicubic"):
            yield (
                "Resize",
                lambda ops, x, f=form, i=interpolation: ops.image.resize(x, (4, 9), interpolation=i, data_format=f),
                picture,
            )
    for padding in ("valid", "same"):
        yield "ExtractPatches", lambda ops, x, p=padding: ops.image.extract_patches(x, (2, 3), padding=p), PICTURE
        yield "ExtractPatches", lambda ops, x, p=padding: ops.image.extract_patches(x, 2, strides=1, padding=p), PICTURE


CASES = list(rows())


def model_of(call, arrays, shapes=None):
    keras = keras3()
    feeds = [
        keras.Input(batch_shape=shape, dtype=array.dtype.name)
        for array, shape in zip(arrays, shapes or [array.shape for array in arrays], strict=True)
    ]
    outputs = call(keras.ops, *feeds)
    return keras.Model(feeds if len(feeds) > 1 else feeds[0], outputs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "call", "arrays"),
    [pytest.param(row[0], row[1], row[2:], id=f"{row[0]}-{number}") for number, row in enumerate(CASES)],
)
def test_operation(name, call, arrays):
    half = any(array.dtype == np.float16 for array in arrays)
    linear = name in ("Eigh", "Inv", "Solve", "SolveTriangular", "Qr", "Lstsq", "Pinv", "SVD", "CholeskyInverse")
    model = model_of(call, arrays)
    assert name in {type(one).__name__ for one in model.operations} or name in ALIASES
    assert_same(model, *arrays, rtol=3e-3 if half else 1e-4 if linear else 1e-5)


ALIASES = {
    # Keras writes another class, or computes at once what is known
    *("Arange", "Array", "ConvertToTensor", "Abs", "Amax", "Amin", "TrueDivide", "Conj", "Polar", "SaturateCast"),
    *("LeftShift", "RightShift", "BitwiseNot", "Ndim", "View"),
}


def operations():
    for module in MODULES:
        source = importlib.import_module(f"keras.src.ops.{module}")
        base = importlib.import_module("keras.src.ops.operation").Operation
        for name, kind in vars(source).items():
            if inspect.isclass(kind) and issubclass(kind, base) and kind.__module__ == source.__name__:
                yield name


def test_every_operation_has_a_rule_and_a_row_or_a_reason():
    keras3()
    tested = {row[0] for row in CASES}
    for name in operations():
        if name in NOT_LOWERED:
            assert find(f"ops.{name}") is None, name
        else:
            assert find(f"ops.{name}") is not None, name
            assert name in tested, name


# -- sizes that nobody told --------------------------------------------------------------------------------------------

OPEN = [
    ("Sum", lambda ops, x: ops.sum(x, axis=1), (None, None, 4)),
    ("Reshape", lambda ops, x: ops.reshape(x, (-1, 4)), (None, 3, 4)),
    ("GetItem", lambda ops, x: x[:, -1], (None, None, 4)),
    ("Where", lambda ops, x: ops.where(x > 0, x, -x), (None, None, 4)),
    ("Matmul", lambda ops, x: ops.matmul(x, ops.transpose(x, (0, 2, 1))), (None, None, 4)),
    ("Softmax", lambda ops, x: ops.softmax(x, axis=1), (None, None, 4)),
    ("Concatenate", lambda ops, x: ops.concatenate([x, x * 2], axis=1), (None, None, 4)),
    ("Take", lambda ops, x: ops.take(x, [0, -1], axis=1), (None, None, 4)),
    ("Argmax", lambda ops, x: ops.argmax(x, axis=1), (None, None, 4)),
    ("Cumsum", lambda ops, x: ops.cumsum(x, axis=1), (None, None, 4)),
    ("Flip", lambda ops, x: ops.flip(x, axis=1), (None, None, 4)),
    ("Repeat", lambda ops, x: ops.repeat(x, 2, axis=1), (None, None, 4)),
    ("Tril", lambda ops, x: ops.tril(x), (None, None, 4)),
    ("Std", lambda ops, x: ops.std(x, axis=1), (None, None, 4)),
    ("Quantile", lambda ops, x: ops.quantile(x, 0.3, axis=1), (None, None, 4)),
    ("Logsumexp", lambda ops, x: ops.logsumexp(x, axis=1), (None, None, 4)),
    ("Einsum", lambda ops, x: ops.einsum("bij,bkj->bik", x, x), (None, None, 4)),
    ("ExpandDims", lambda ops, x: ops.expand_dims(x, 1) + ops.zeros_like(x[:, None]), (None, None, 4)),
]


@pytest.mark.parametrize(("name", "call", "shape"), OPEN, ids=[row[0] for row in OPEN])
def test_sizes_that_nobody_told(name, call, shape):
    graph = assert_same(model_of(call, [X], [shape]), X)
    assert runs_on(graph) <= ((1, 8, 0) if name == "Take" else (1, 2, 1))


OLD = ["Add", "Where", "Softmax", "GetItem", "Matmul", "Mean", "Reshape", "OneHot", "Clip", "Argmax", "Sort", "Split"]


@pytest.mark.parametrize("name", OLD)
def test_ops_that_tensorflow_1_2_has(name):
    for row in CASES:
        if row[0] == name:
            assert runs_on(assert_same(model_of(row[1], row[2:]), *row[2:])) <= (1, 2, 1)


# -- what has no rule --------------------------------------------------------------------------------------------------


def test_an_argument_that_no_rule_follows():
    model = model_of(lambda ops, x: ops.image.resize(x, (4, 4), antialias=True), [PICTURE])
    with pytest.raises(ConversionError, match="the arguments of Resize do not fit it: antialias"):
        assert_same(model, PICTURE)
