"""Pictures: resized, cropped, stretched; and what only training changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelio.errors import ConversionError
from tests.lowering.harness import assert_same, frameworks, keras2, keras3
from tests.lowering.written import answer, graph_of, runs_on

PICTURES = np.random.default_rng(0).uniform(0, 255, (2, 6, 9, 3)).astype("float32")

ALWAYS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
KERAS_2 = ("area", "gaussian", "mitchellcubic")


# -- Resizing ----------------------------------------------------------------------------------------------------------


@frameworks()
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int32"])
@pytest.mark.parametrize("size", [(3, 4), (8, 13), (6, 9)])
@pytest.mark.parametrize("interpolation", ALWAYS)
def test_resizing(keras, interpolation, size, dtype):
    assert_same(keras.layers.Resizing(*size, interpolation=interpolation), PICTURES.astype(dtype))


@pytest.mark.parametrize("size", [(3, 4), (8, 13), (6, 9)])
@pytest.mark.parametrize("interpolation", KERAS_2)
def test_resizing_as_keras_2_alone_does(interpolation, size):
    assert_same(keras2().layers.Resizing(*size, interpolation=interpolation), PICTURES)


@pytest.mark.parametrize("size", [(3, 4), (8, 13)])
@pytest.mark.parametrize("interpolation", ALWAYS)
def test_resizing_smoothly(interpolation, size):
    assert_same(keras3().layers.Resizing(*size, interpolation=interpolation, antialias=True), PICTURES)


@frameworks()
@pytest.mark.parametrize("shape", [(6, 9, 3), (None, None, 3), (6, None, 3)])
@pytest.mark.parametrize("size", [(3, 3), (4, 9), (10, 4), (2, 18)])
def test_resizing_a_part(keras, size, shape):
    assert_same(keras.layers.Resizing(*size, crop_to_aspect_ratio=True), PICTURES, shapes=[shape])


@pytest.mark.parametrize("shape", [(6, 9, 3), (None, None, 3), (6, None, 3)])
@pytest.mark.parametrize("size", [(3, 3), (4, 9), (10, 4), (2, 18)])
@pytest.mark.parametrize(("fill", "dtype"), [(0.0, "float32"), (7.5, "float32"), (7, "uint8")])
def test_resizing_with_margins(fill, dtype, size, shape):
    layer = keras3().layers.Resizing(*size, pad_to_aspect_ratio=True, fill_value=fill)
    assert_same(layer, PICTURES.astype(dtype), shapes=[shape])


@frameworks()
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_resizing_any_size(keras, data):
    have, want = ([data.draw(st.integers(1, 12)) for _ in range(2)] for _ in range(2))
    assume(all(have[axis] * want[1 - axis] >= want[axis] for axis in (0, 1)))  # or tf_keras cuts out nothing
    told = [data.draw(st.sampled_from([size, None])) for size in have]
    x = np.random.default_rng(1).uniform(0, 255, (1, *have, 2)).astype("float32")
    layer = keras.layers.Resizing(*want, crop_to_aspect_ratio=data.draw(st.booleans()))
    assert_same(layer, x, shapes=[(*told, 2)])


@frameworks()
def test_resizing_in_half_precision(keras):
    assert_same(keras.layers.Resizing(3, 4, dtype="float16"), PICTURES.astype("float16"), rtol=2e-3)


@frameworks()
def test_resizing_one_picture(keras):
    """Without a batch: what should be the batch is the height."""
    assert_same(keras.layers.Resizing(3, 4), PICTURES[:, :, :, 0])


def test_resizing_channels_first():
    assert_same(keras3().layers.Resizing(3, 2, data_format="channels_first"), PICTURES)


def test_resizing_whole_numbers_before_keras_3_6():
    """They were cut off, not rounded (Keras 3.0.5 to 3.5 ``backend/tensorflow/image.py``, resize)."""
    x = np.array([0, 3], np.uint8).reshape(1, 1, 2, 1)
    config = {"height": 1, "width": 1, "data_format": "channels_last"}
    assert answer("3.5.0", "Resizing", config, x).item() == 1
    assert answer("3.6.0", "Resizing", config, x).item() == 2


# -- cropping ----------------------------------------------------------------------------------------------------------


@frameworks()
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("size", [(3, 4), (6, 9), (5, 2), (7, 4), (3, 12), (8, 12)])
def test_center_crop(keras, size, dtype):
    """A picture that is too small is enlarged."""
    assert_same(keras.layers.CenterCrop(*size), PICTURES.astype(dtype))


@frameworks()
def test_center_crop_of_unknown_size(keras):
    assert_same(keras.layers.CenterCrop(3, 4), PICTURES, shapes=[(None, None, 3)])


@pytest.mark.parametrize("size", [(7, 4), (3, 12), (8, 12), (6, 9)])
def test_center_crop_of_a_size_that_may_be_too_small(size):
    """tf_keras finds out while the graph runs. (Keras 3 crops anyway.)"""
    assert_same(keras2().layers.CenterCrop(*size), PICTURES, shapes=[(None, None, 3)])


def test_center_crop_channels_first():
    assert_same(keras3().layers.CenterCrop(3, 2, data_format="channels_first"), PICTURES)


@pytest.mark.parametrize("shape", [(6, 9, 3), (None, None, 3)])
@pytest.mark.parametrize("size", [(3, 4), (6, 3), (8, 12)])
def test_random_crop_of_keras_2(size, shape):
    """In inference it resizes."""
    assert_same(keras2().layers.RandomCrop(*size), PICTURES, shapes=[shape])


def test_random_crop_of_keras_3():
    """Since 3.8 it does nothing in inference, in 3.0 to 3.5 what tf_keras does; 3.6 and 3.7 cut where that starts."""
    assert_same(keras3().layers.RandomCrop(3, 4), PICTURES)
    config = {"height": 3, "width": 3, "data_format": "channels_last", "seed": 1}
    resized = answer("2.15.0", "RandomCrop", config, PICTURES)
    np.testing.assert_allclose(answer("3.0.5", "RandomCrop", config, PICTURES), resized, rtol=1e-6)
    np.testing.assert_array_equal(answer("3.7.0", "RandomCrop", config, PICTURES), PICTURES[:, :3, 1:4])


# -- color -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("low_high", [(0, 255), (0.0, 300.0), (-10, 260)])
def test_auto_contrast(low_high, dtype):
    pictures = PICTURES.copy()
    pictures[0, :, :, 1] = 5  # a channel of one value cannot be stretched
    graph = assert_same(keras3().layers.AutoContrast(value_range=low_high), pictures.astype(dtype))
    assert runs_on(graph) <= (1, 2, 1)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"tile_grid_size": (2, 3)},  # which fits
        {"tile_grid_size": (4, 4)},
        {"tile_grid_size": (4, 2), "clip_limit": 0.0},
        {"tile_grid_size": (1, 1), "clip_limit": 20.0},
        {"tile_grid_size": (2, 2), "value_range": (0, 300)},
    ],
)
def test_clahe(arguments, dtype):
    layer = keras3().layers.ContrastLimitedAdaptiveHistogramEqualization(**arguments)
    graph = assert_same(layer, PICTURES.astype(dtype))
    assert runs_on(graph) <= (1, 2, 1)


def test_clahe_channels_first():
    pictures = np.random.default_rng(0).uniform(0, 1, (2, 1, 8, 12)).astype("float32")
    layer = keras3().layers.ContrastLimitedAdaptiveHistogramEqualization(
        value_range=(0.0, 1.0), tile_grid_size=(2, 2), data_format="channels_first"
    )
    assert_same(layer, pictures)


def test_clahe_of_unknown_size():
    with pytest.raises(ConversionError, match="how large its pictures are"):
        graph_of("3.15.0", "ContrastLimitedAdaptiveHistogramEqualization", {}, [(None, 5, 3)])


# -- what only training changes ----------------------------------------------------------------------------------------

AT_RANDOM = {
    "AugMix": {},
    "CutMix": {},
    "MaxNumBoundingBoxes": {"max_number": 3},
    "MixUp": {},
    "RandAugment": {},
    "RandomBrightness": {"factor": 0.3},
    "RandomColorDegeneration": {"factor": 0.2},
    "RandomColorJitter": {},
    "RandomContrast": {"factor": 0.3},
    "RandomElasticTransform": {},
    "RandomErasing": {},
    "RandomFlip": {},
    "RandomGaussianBlur": {},
    "RandomGrayscale": {"factor": 0.5},
    "RandomHeight": {"factor": 0.2},
    "RandomHue": {"factor": 0.2},
    "RandomInvert": {},
    "RandomPerspective": {},
    "RandomPosterization": {"factor": 4},
    "RandomRotation": {"factor": 0.2},
    "RandomSaturation": {"factor": 0.2},
    "RandomSharpness": {"factor": 0.2},
    "RandomShear": {"x_factor": 0.2, "y_factor": 0.2},
    "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2},
    "RandomWidth": {"factor": 0.2},
    "RandomZoom": {"height_factor": 0.2},
    "Solarization": {},
}


@frameworks()
@pytest.mark.parametrize("class_name", AT_RANDOM)
def test_what_only_training_changes(keras, class_name):
    """Some make floating numbers of whole ones all the same."""
    layer = getattr(keras.layers, class_name, None)
    if layer is None:
        pytest.skip("of the other Keras alone")
    for dtype in ("float32", "uint8"):
        assert_same(layer(**AT_RANDOM[class_name]), PICTURES.astype(dtype))


def test_equalization():
    """In inference it gives back what it is given; Keras 3.15 cannot build a model on that."""
    np.testing.assert_array_equal(answer("3.15.0", "Equalization", {"bins": 256}, PICTURES), PICTURES)


def test_a_pipeline_of_layers():
    layers = keras3().layers
    assert_same(layers.Pipeline([layers.Rescaling(0.5), layers.RandomFlip(), layers.CenterCrop(3, 3)]), PICTURES)


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_name", "config", "told"),
    [
        ("Resizing", {"height": 0, "width": 2}, "height is 0"),
        ("Resizing", {"height": 2, "width": 2, "interpolation": "cubic"}, "interpolation is 'cubic'"),
        ("Resizing", {"height": 2, "width": 2, "crop_to_aspect_ratio": True, "pad_to_aspect_ratio": True}, "both True"),
        (
            "Resizing",
            {"height": 2, "width": 2, "pad_to_aspect_ratio": True, "fill_mode": "edge"},
            "fill_mode is 'edge'",
        ),
        ("CenterCrop", {"height": 2, "width": None}, "width is None"),
        ("AutoContrast", {"value_range": [1, 0]}, "value_range is"),
        ("ContrastLimitedAdaptiveHistogramEqualization", {"tile_grid_size": [1 << 30, 2]}, "no 1073741824 x 2 tiles"),
    ],
)
def test_arguments_that_no_keras_takes(class_name, config, told):
    with pytest.raises(ConversionError, match=told):
        graph_of("3.15.0", class_name, config, [(4, 5, 3)])
