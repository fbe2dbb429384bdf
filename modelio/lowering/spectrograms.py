"""Layers that take sound apart into frequencies: STFTSpectrogram, MelSpectrogram.

Sources: ``keras/src/layers/preprocessing/stft_spectrogram.py`` and ``mel_spectrogram.py``, ``keras/src/backend/
tensorflow/math.py`` (``stft``), Keras 3.15.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.arguments import number, rank_of, whole
from modelio.lowering.rules import Site, rule
from modelio.lowering.spatial import channels_first, padding_of

__all__: list[str] = []

EPSILON = 1e-7
"""``keras.backend.epsilon()``."""

MODES = ("log", "magnitude", "psd", "real", "imag", "angle", "stft")

LARGEST = 1 << 24
"""Elements of a matrix from frequencies to bands; 2049 of them to 128 are usual."""


# -- by kernels --------------------------------------------------------------------------------------------------------


@rule("STFTSpectrogram")
def stft_spectrogram(g: Builder, layer: Site, x: Value) -> Value:
    """Each channel's short-time Fourier transform, by kernels that are weights; in one of several measures."""
    mode = layer.config.get("mode", "log")
    if mode not in MODES:
        raise ConversionError(f"mode is {mode!r}, none of {', '.join(MODES)}")
    rank_of(layer, x, 3, 3)
    first = channels_first(layer)
    signal = x if first else g.Transpose(x, [0, 2, 1])
    batch, channels, time = g.sizes(signal)
    rows = g.Reshape(signal, g.vector([-1, 1, time, 1]))
    length = whole(layer, "frame_length")
    step = max(1, length // 2) if layer.config.get("frame_step") is None else whole(layer, "frame_step")
    padding = padding_of(layer)

    def transformed(role: str) -> Value:
        """``[batch, channel, time, frequency]``."""
        y = g.Conv2D(rows, g.ExpandDims(layer.weight(role, x.dtype), 0), strides=[1, 1, step, 1], padding=padding)
        return g.reshape(y, [batch, channels, *g.sizes(y)[2:]])

    if mode in ("real", "imag"):
        y = transformed(f"{mode}_kernel")
    else:
        y = _measured(g, mode, transformed("real_kernel"), transformed("imag_kernel"))
    if layer.config.get("expand_dims"):
        return y if first else g.Transpose(y, [0, 2, 3, 1])
    _, _, steps, frequencies = g.sizes(y)
    wide = channels * frequencies if isinstance(channels, int) and isinstance(frequencies, int) else -1
    if first:
        return g.reshape(g.Transpose(y, [0, 1, 3, 2]), [batch, wide, steps])
    return g.reshape(g.Transpose(y, [0, 2, 1, 3]), [batch, steps, wide])


def _measured(g: Builder, mode: Any, real: Value, imaginary: Value) -> Value:
    """A measure of complex numbers, whose last axis are frequencies."""
    if mode == "angle":
        return g.Atan2(imaginary, real)
    if mode == "stft":
        return g.ConcatV2([real, imaginary], 3)
    power = g.Add(g.Square(real), g.Square(imaginary))
    if mode == "psd":  # twice, but for the first and the last: negative frequencies have as much
        inner = g.StridedSlice(power, [0, 0, 0, 1], [0, 0, 0, -1], [1] * 4, begin_mask=7, end_mask=7)
        return g.Add(power, g.Pad(inner, [[0, 0], [0, 0], [0, 0], [1, 1]]))
    size = g.Sqrt(g.Maximum(power, EPSILON))
    return size if mode == "magnitude" else g.Log(g.Maximum(size, EPSILON))


# -- by Fourier transform ----------------------------------------------------------------------------------------------


@rule("MelSpectrogram")
def mel_spectrogram(g: Builder, layer: Site, x: Value) -> Value:
    """The strength of each band of the mel scale over time, in decibels where the layer says so."""
    dtype = "float64" if layer.layer.dtype == "float64" else "float32"
    rank_of(layer, x, 2, 2)
    size, step = whole(layer, "fft_length"), whole(layer, "sequence_stride")
    length = size if layer.config.get("sequence_length") is None else whole(layer, "sequence_length")
    if length > size:
        raise ConversionError(f"sequence_length is {length}, longer than fft_length={size}")
    matrix = _mel(layer, size // 2 + 1)
    around = g.MirrorPad(g.cast(x, dtype), [[0, 0], [size // 2, size // 2]], mode="REFLECT")
    picture = g.ExpandDims(g.ExpandDims(around, 1), 3)
    ksizes, strides = [1, 1, size, 1], [1, 1, step, 1]
    frames = g.Squeeze(
        g.ExtractImagePatches(picture, ksizes=ksizes, strides=strides, rates=[1] * 4, padding="VALID"), squeeze_dims=[1]
    )
    window = _window(layer, length)
    if window is not None:
        before = (size - length) // 2
        frames = g.Mul(frames, g.constant(np.pad(window, (before, size - length - before)), dtype, name="window"))
    # RFFT knows no other numbers than the default ones until TensorFlow 2.3.
    wide = {"Treal": "float64", "Tcomplex": "complex128"} if dtype == "float64" else {}
    spectrum = g.ComplexAbs(g.RFFT(frames, g.vector([size]), **wide), Tout=dtype)
    power = g.Pow(spectrum, number(layer, "mag_exp", 2.0))
    bins, bands = matrix.shape
    y = g.MatMul(g.Reshape(power, g.vector([-1, bins])), g.constant(matrix, dtype, name="mel"))
    y = g.reshape(y, [*g.sizes(frames)[:2], bands])
    if layer.config.get("power_to_db", True):
        y = _decibels(g, layer, y)
    return g.cast(g.Transpose(y, [0, 2, 1]), layer.layer.dtype)


def _window(layer: Site, length: int) -> npt.NDArray[Any] | None:
    """``tf.signal.hann_window`` or ``hamming_window``, periodic; a list of numbers is a window of its own."""
    given = layer.config.get("window", "hann")
    if given is None:
        return None
    if given in ("hann", "hamming"):
        low, high = (0.5, 0.5) if given == "hann" else (0.54, 0.46)
        period = length - length % 2  # window_ops.py, _raised_cosine_window
        return low - high * np.cos(2 * math.pi * np.arange(length) / period) if length > 1 else np.ones(1)
    window = np.asarray(given) if isinstance(given, (list, tuple)) else np.zeros(0)
    if window.shape != (length,) or window.dtype.kind not in "if" or not np.isfinite(window).all():
        raise ConversionError(f"window is {given!r}, neither 'hann' nor 'hamming' nor {length} numbers")
    return window


def _mel(layer: Site, bins: int) -> npt.NDArray[np.float32]:
    """Triangles in the mel scale, one for each band: ``[bins, bands]`` (``linear_to_mel_weight_matrix``)."""
    rate, bands = number(layer, "sampling_rate", 16000), whole(layer, "num_mel_bins")
    if bins * bands > LARGEST:
        raise ConversionError(f"{bins} frequencies and {bands} bands are more than any spectrogram has")
    lowest, highest = number(layer, "min_freq", 20.0), number(layer, "max_freq", 0.0) or int(rate / 2)

    def mel(frequency: Any) -> Any:
        return np.float32(1127.0) * np.log(np.float32(1) + np.asarray(frequency, np.float32) / np.float32(700.0))

    places = mel(np.linspace(0, np.float32(rate) / 2, bins, dtype=np.float32)[1:])[:, None]
    edges = np.linspace(mel(lowest), mel(highest), bands + 2, dtype=np.float32)
    low, center, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (places - low) / (center - low), (high - places) / (high - center)
    triangles: npt.NDArray[np.float32] = np.maximum(np.float32(0), np.minimum(rising, falling))
    return np.pad(triangles, [[1, 0], [0, 0]])


def _decibels(g: Builder, layer: Site, y: Value) -> Value:
    """Ten times the logarithm to base ten, and nothing that is more than ``top_db`` below the largest."""
    least = number(layer, "min_power", 1e-10)
    reference = 10.0 * math.log10(max(abs(number(layer, "ref_power", 1.0)), least))
    y = g.Sub(g.Mul(g.RealDiv(g.Log(g.Maximum(y, least)), math.log(10.0)), 10.0), reference)
    return g.Maximum(y, g.Sub(g.Max(y, [0, 1, 2]), number(layer, "top_db", 80.0)))
