"""Sound to spectrograms."""

from __future__ import annotations

import numpy as np
import pytest

from modelio.errors import ConversionError
from tests.lowering.harness import assert_same, keras3
from tests.lowering.written import graph_of, runs_on


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, shape).astype("float32")


MODES = ("log", "magnitude", "psd", "real", "imag", "angle", "stft")


@pytest.mark.parametrize("expand_dims", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("mode", MODES)
def test_stft_spectrogram(mode, data_format, expand_dims):
    layer = keras3().layers.STFTSpectrogram(
        mode, frame_length=20, frame_step=7, window=None, data_format=data_format, expand_dims=expand_dims
    )
    first = data_format == "channels_first"
    x = noise(2, 3, 100) if first else noise(2, 100, 3)
    graph = assert_same(layer, x, rtol=1e-4, compiled=first)
    assert runs_on(graph) <= (1, 2, 1)


@pytest.mark.parametrize("arguments", [{"padding": "same"}, {"fft_length": 64}, {"frame_length": 21}])
def test_stft_spectrogram_arguments(arguments):
    layer = keras3().layers.STFTSpectrogram(**{"frame_length": 20, "window": None, **arguments})
    assert_same(layer, noise(2, 100, 3), rtol=1e-4)
    assert_same(layer, noise(2, 100, 3), rtol=1e-4, shapes=[(None, 3)])


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"sequence_length": 101},
        {"sequence_length": 100, "window": "hamming"},
        {"window": None},
        {"fft_length": 4, "window": [0.1, 0.2, 0.3, 0.4]},
        {"power_to_db": False},
        {"mag_exp": 1.0, "top_db": 20.0, "ref_power": 2.5},
        {"min_freq": 50.0, "max_freq": 4000.0, "sampling_rate": 8000},
    ],
)
def test_mel_spectrogram(arguments):
    arguments = {"fft_length": 128, "sequence_stride": 50, "num_mel_bins": 12, **arguments}
    graph = assert_same(keras3().layers.MelSpectrogram(**arguments), noise(2, 900))
    assert runs_on(graph) <= (1, 2, 1)


def test_mel_spectrogram_of_unknown_length():
    layer = keras3().layers.MelSpectrogram(fft_length=128, sequence_stride=50, num_mel_bins=12)
    assert_same(layer, noise(2, 900), shapes=[(None,)])


def test_mel_spectrogram_in_half_precision():
    layer = keras3().layers.MelSpectrogram(fft_length=128, sequence_stride=50, num_mel_bins=12, dtype="float16")
    assert_same(layer, noise(2, 900).astype("float16"), rtol=2e-3)


@pytest.mark.parametrize(
    ("class_name", "config", "told"),
    [
        (
            "MelSpectrogram",
            {"fft_length": 4, "sequence_stride": 2, "sequence_length": 8, "num_mel_bins": 3},
            "longer than",
        ),
        ("MelSpectrogram", {"fft_length": 4, "sequence_stride": 2, "window": "kaiser", "num_mel_bins": 3}, "window is"),
        ("MelSpectrogram", {"fft_length": 4, "sequence_stride": 0, "num_mel_bins": 3}, "sequence_stride is 0"),
    ],
)
def test_arguments_that_no_keras_takes(class_name, config, told):
    with pytest.raises(ConversionError, match=told):
        graph_of("3.15.0", class_name, config, [(40,)])
