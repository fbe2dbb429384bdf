"""Signals and complex numbers: Fourier transforms, counts of whole numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.graph.builder import Builder, Value
from modelio.graph.loops import loop
from modelio.lowering.arithmetic import Operand, as_value, broadcast_to, common_shape, promoted, where
from modelio.lowering.operations import operation, ranked
from modelio.lowering.operations.elementwise import absolute, as_bool
from modelio.lowering.operations.picking import padded
from modelio.lowering.operations.reductions import reduced, sort

__all__: list[str] = []


# -- complex numbers ---------------------------------------------------------------------------------------------------

_PARTS = {"complex64": "float32", "complex128": "float64"}


@operation("Real")
def real(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    return g.Real(x, Tout=_PARTS[x.dtype]) if x.dtype in _PARTS else x


@operation("Imag")
def imag(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    return g.Imag(x, Tout=_PARTS[x.dtype]) if x.dtype in _PARTS else g.ZerosLike(x)


@operation("Conjugate", "Conj")
def conjugate(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    return g.Conj(x) if x.dtype in _PARTS else x


@operation("Angle")
def angle(g: Builder, x: Operand) -> Value:
    """Of a real number, 0 or pi (math_ops.py, ``angle``)."""
    x = as_value(g, x)
    if x.dtype in _PARTS:
        return g.Angle(x, Tout=_PARTS[x.dtype])
    (x,) = promoted(g, x, floating=True)
    return where(g, g.Less(x, 0.0), g.constant(math.pi, x.dtype), g.ZerosLike(x))


@operation("ViewAsReal")
def view_as_real(g: Builder, x: Operand) -> Value:
    x = as_value(g, x)
    made: Value = g.Pack([real(g, x), imag(g, x)], axis=ranked(x))
    return made


@operation("Polar")
def polar(g: Builder, abs_: Operand, angle: Operand) -> Value:
    length, turn = promoted(g, abs_, angle)
    return _complex(g, g.Mul(length, g.Cos(turn)), g.Mul(length, g.Sin(turn)))


def _complex(g: Builder, first: Value, second: Value) -> Value:
    tout = {"float32": "complex64", "float64": "complex128"}[first.dtype]
    made: Value = g.Complex(first, second, Tout=tout)
    return Value(made.name, made.dtype, first.shape)


def _apart(g: Builder, x: Value) -> tuple[Value, Value]:
    return real(g, x), imag(g, x)


def _together(g: Builder, x: Any) -> Value:
    if not isinstance(x, (list, tuple)) or len(x) != 2:
        raise ValueError("a pair of tensors is expected, real and imaginary parts")
    return _complex(g, *promoted(g, *x))


# -- Fourier transforms ------------------------------------------------------------------------------------------------


def _like(made: Value, x: Value, last: int | None = -1) -> Value:
    """A transform has the shape of its input, but for the size of the last axis."""
    shape = x.shape
    if shape is not None and last != -1:
        shape = (*shape[:-1], last)
    return Value(made.name, made.dtype, shape)


def _transform(op: str) -> Any:
    def transform(g: Builder, x: Any) -> tuple[Value, Value]:
        whole = _together(g, x)
        return _apart(g, _like(g.node(op, whole), whole))

    return transform


operation("FFT")(_transform("FFT"))
operation("FFT2")(_transform("FFT2D"))
operation("IFFT2")(_transform("IFFT2D"))


def _fitted(g: Builder, x: Value, length: int) -> Value:
    """The last axis with zeros behind it, up to that size."""
    size = g.sizes(x)[-1]
    if isinstance(size, int):
        return x if size >= length else padded(g, x, [(0, 0)] * (ranked(x) - 1) + [(0, length - size)])
    missing = g.Maximum(g.Sub(length, size), 0)
    pads = g.Pack([g.constant(0)] * (2 * ranked(x) - 1) + [missing])
    made: Value = g.Pad(x, g.Reshape(pads, [ranked(x), 2]))
    return Value(made.name, made.dtype, (*(x.shape or ())[:-1], None))


@operation("RFFT")
def rfft(g: Builder, x: Operand, fft_length: int | None = None) -> tuple[Value, Value]:
    return _apart(g, _real_transform(g, as_value(g, x), fft_length))


def _real_transform(g: Builder, x: Value, length: Any = None) -> Value:
    size = g.sizes(x)[-1] if length is None else int(length)
    x = x if length is None else _fitted(g, x, int(length))
    made = g.RFFT(x, g.vector([size]), **_wide(x.dtype))
    return _like(made, x, size // 2 + 1 if isinstance(size, int) else None)


def _wide(dtype: str) -> dict[str, str]:
    return {} if dtype == "float32" else {"Treal": "float64", "Tcomplex": "complex128"}


@operation("IRFFT")
def irfft(g: Builder, x: Any, fft_length: int | None = None) -> Value:
    x = _together(g, x)
    bins = g.sizes(x)[-1]
    if fft_length is None:
        size: Any = (bins - 1) * 2 if isinstance(bins, int) else g.Mul(g.Sub(bins, 1), 2)
    else:
        size = int(fft_length)
        x = _fitted(g, x, size // 2 + 1)
    made = g.IRFFT(x, g.vector([size]), **_wide(_PARTS[x.dtype]))
    return _like(made, x, size if isinstance(size, int) else None)


@operation("ExtractSequences")
def frames(g: Builder, x: Operand, sequence_length: int, sequence_stride: int) -> Value:
    """Windows along the last axis, one starting so many steps after the other."""
    x = as_value(g, x)
    size = g.sizes(x)[-1]
    length, step = int(sequence_length), int(sequence_stride)
    ends = size - length + 1 if isinstance(size, int) else g.Add(size, 1 - length)
    last = max(ends, 0) if isinstance(ends, int) else g.Maximum(ends, 0)
    starts = g.ExpandDims(g.Range(0, last, step), 1)
    places = g.Add(starts, g.ExpandDims(g.Range(0, length, 1), 0))
    if not ranked(x) - 1:
        return g.Gather(x, places)
    made: Value = g.GatherV2(x, places, ranked(x) - 1)
    return made


@operation("STFT")
def stft(
    g: Builder,
    x: Operand,
    sequence_length: int,
    sequence_stride: int,
    fft_length: int,
    window: Any = "hann",
    center: bool = True,
) -> tuple[Value, Value]:
    """The transform of every window of a signal (keras/src/backend/tensorflow/math.py, ``stft``)."""
    x = as_value(g, x)
    if not 0 < sequence_length <= fft_length <= 1 << 20:
        raise ValueError(f"windows of {sequence_length} and transforms of {fft_length}")
    if center:
        x = padded(g, x, [(0, 0)] * (ranked(x) - 1) + [(fft_length // 2, fft_length // 2)], "reflect")
    before = (fft_length - sequence_length) // 2
    after = fft_length - sequence_length - before
    parts = frames(g, x, fft_length, sequence_stride)
    if window is not None:
        shape = _window(window, sequence_length) if isinstance(window, str) else np.asarray(window, np.float64)
        parts = g.Mul(parts, g.constant(np.pad(shape, (before, after)), parts.dtype))
    return _apart(g, _real_transform(g, parts, fft_length))


def _window(name: str, length: int) -> npt.NDArray[Any]:
    """A raised cosine (window_ops.py, ``_raised_cosine_window``), which is periodic only where the length is even."""
    a, b = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46)}[name]
    if length == 1:
        return np.ones(1)
    return a - b * np.cos(2 * math.pi * np.arange(length) / (length - length % 2))


# -- whole numbers -----------------------------------------------------------------------------------------------------


@operation("Gcd")
def gcd(g: Builder, x1: Operand, x2: Operand) -> Value:
    """Euclid's algorithm, until it is done for all pairs."""
    x1, x2 = (absolute(g, x) for x in promoted(g, x1, x2))
    shape = common_shape(g, x1, x2)
    pair = tuple(broadcast_to(g, x, shape) for x in (x1, x2))

    def left(a: Value, b: Value) -> Value:
        return reduced(g, "Any", g.NotEqual(b, 0))

    def step(a: Value, b: Value) -> list[Value]:
        done = g.Equal(b, 0)
        rest = g.FloorMod(a, g.Select(done, g.OnesLike(b), b))
        return [g.Select(done, a, b), g.Select(done, b, rest)]

    return loop(g, pair, left, step)[0]


@operation("Lcm")
def lcm(g: Builder, x1: Operand, x2: Operand) -> Value:
    x1, x2 = (absolute(g, x) for x in promoted(g, x1, x2))
    divisor = gcd(g, x1, x2)
    nothing = g.Equal(divisor, 0)
    result = g.Mul(x1, g.FloorDiv(x2, where(g, nothing, g.OnesLike(divisor), divisor)))
    return where(g, nothing, g.ZerosLike(result), result)


@operation("Bincount")
def bincount(g: Builder, x: Operand, weights: Operand = None, minlength: int = 0, sparse: bool = False) -> Value:
    """How often each whole number is there, in each row by itself."""
    if sparse:
        raise ValueError("a sparse tensor is asked for")
    x = as_value(g, x)
    x = x if x.dtype in ("int32", "int64") else g.cast(x, "int32")
    size = g.Maximum(g.cast(g.Add(reduced(g, "Max", x), 1), "int32"), int(minlength))
    if weights is None:
        hot = g.OneHot(x, size, g.constant(1), g.constant(0))
        return reduced(g, "Sum", Value(hot.name, hot.dtype, (*(x.shape or ()), None)), -2)
    weights = as_value(g, weights)
    wide = weights.dtype if weights.dtype in ("int32", "int64", "float32", "float64") else None
    counted = g.cast(weights, wide or ("int32" if "int" in weights.dtype else "float32"))
    hot = g.OneHot(x, size, g.constant(1, counted.dtype), g.constant(0, counted.dtype))
    hot = Value(hot.name, hot.dtype, (*(x.shape or ()), None))
    total = reduced(g, "Sum", g.Mul(hot, g.ExpandDims(counted, -1)), -2)
    return promoted(g, total, g.cast(x, x.dtype))[0]


@operation("Nonzero")
def nonzero(g: Builder, x: Operand) -> tuple[Value, ...]:
    """Where the elements are that are not zero: a vector for each axis."""
    x = as_value(g, x)
    places = g.Where(as_bool(g, x))
    places = Value(places.name, places.dtype, (None, ranked(x)))
    apart = g.node("Unpack", g.cast(places, "int32"), num=ranked(x), axis=1)
    return apart if isinstance(apart, tuple) else (apart,)


@operation("Unique")
def unique(
    g: Builder,
    x: Operand,
    sorted: bool = True,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    size: int | None = None,
    fill_value: Any = None,
) -> Value:
    """Every number once."""
    if axis is not None or size is not None or return_index or return_inverse or return_counts:
        raise ValueError("only the numbers themselves, of all axes, have a rule")
    found = g.node("Unique", g.Reshape(as_value(g, x), [-1]))[0]
    found = Value(found.name, found.dtype, (None,))
    return sort(g, found) if sorted else found
