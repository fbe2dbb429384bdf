"""Layers that move, repeat, cut off and add elements, and those that resize and rescale."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelio.errors import ConversionError
from tests.lowering.harness import assert_same, frameworks, keras2, keras3
from tests.lowering.written import answer, graph_of, runs_on


def count(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Every element another number."""
    return np.arange(math.prod(shape)).reshape(shape).astype(dtype)


FORMATS = pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])


def open_sizes(shape, data_format="channels_last", least=0):
    """The shape with every size unknown but that of the channels."""
    channel = 0 if data_format == "channels_first" else len(shape) - 1
    return tuple(size if axis == channel or axis < least else None for axis, size in enumerate(shape))


# -- Flatten, Reshape, Permute, RepeatVector ---------------------------------------------------------------------------


@frameworks()
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_flatten(keras, data):
    shape = data.draw(st.lists(st.integers(1, 4), max_size=4))
    told = tuple(data.draw(st.sampled_from([size, None])) for size in shape)
    layer = keras.layers.Flatten(data_format=data.draw(st.sampled_from(["channels_last", "channels_first"])))
    graph = assert_same(layer, count(3, *shape), shapes=[told])
    assert runs_on(graph) <= (1, 2, 1)


def test_flatten_of_keras_1_and_early_keras_2():
    """It had no data_format, and kept the order of memory."""
    for version in ("1.2.2", "2.0.5"):
        x = count(2, 3, 4, 5)
        np.testing.assert_array_equal(answer(version, "Flatten", {}, x), x.reshape(2, -1))


@frameworks()
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_reshape(keras, data):
    """From any shape to any other, of which one size may be left open."""
    shape = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=3))
    left, target = math.prod(shape), []
    while len(target) < 3 and left > 1:
        target.append(data.draw(st.sampled_from([size for size in range(1, left + 1) if not left % size])))
        left //= target[-1]
    target.append(left)
    if data.draw(st.booleans()):
        target[data.draw(st.integers(0, len(target) - 1))] = -1
    unknown = not hasattr(keras, "ops") or -1 in target  # Keras 3 does not take an unknown size for a known one
    told = tuple(data.draw(st.sampled_from([size, None])) if unknown else size for size in shape)
    assert_same(keras.layers.Reshape(target), count(3, *shape), shapes=[told])


@frameworks()
def test_permute(keras):
    for dims in ((1,), (2, 1), (3, 1, 2), (1, 3, 2), (4, 3, 2, 1)):
        x = count(2, *range(2, len(dims) + 2))
        assert_same(keras.layers.Permute(dims), x)
        assert_same(keras.layers.Permute(dims), x, shapes=[(None,) * len(dims)])


@frameworks()
def test_repeat_vector(keras):
    for times in (1, 4):
        assert_same(keras.layers.RepeatVector(times), count(2, 3))
    if not hasattr(keras, "ops"):
        assert_same(keras.layers.RepeatVector(2), count(2, 3), shapes=[(None,)])


@frameworks()
@pytest.mark.parametrize("dtype", ["int32", "float16", "bool"])
def test_other_dtypes(keras, dtype):
    x = count(2, 3, 4, dtype=dtype)
    assert_same(keras.layers.Flatten(dtype=dtype), x)
    assert_same(keras.layers.Permute((2, 1), dtype=dtype), x)
    if dtype != "bool":
        assert_same(keras.layers.ZeroPadding1D(1, dtype=dtype), x)
        assert_same(keras.layers.UpSampling1D(2, dtype=dtype), x)


# -- margins -----------------------------------------------------------------------------------------------------------


def padded(keras, data_format):
    layers = keras.layers
    for padding in (1, (2, 0), (0, 3)):
        formats = {"data_format": data_format} if hasattr(keras, "ops") else {}
        if formats or data_format == "channels_last":
            yield layers.ZeroPadding1D(padding, **formats), (5, 3)
    for padding in (2, (1, 3), ((1, 0), (0, 2)), 0):
        yield layers.ZeroPadding2D(padding, data_format=data_format), (5, 4, 3)
    for padding in (1, (1, 0, 2), ((1, 0), (0, 2), (3, 1))):
        yield layers.ZeroPadding3D(padding, data_format=data_format), (3, 4, 2, 5)


@frameworks()
@FORMATS
def test_zero_padding(keras, data_format):
    for layer, shape in padded(keras, data_format):
        assert_same(layer, count(2, *shape))
        assert_same(layer, count(2, *shape), shapes=[open_sizes(shape, data_format)])


def cropped(keras, data_format):
    layers = keras.layers
    for cropping in (1, (2, 0), (0, 3), (0, 0)):
        if data_format == "channels_last":
            yield layers.Cropping1D(cropping), (6, 3)
    for cropping in (1, (1, 2), ((1, 0), (0, 2)), ((0, 1), (2, 0)), 0):
        yield layers.Cropping2D(cropping, data_format=data_format), (6, 5, 6)
    for cropping in (1, (1, 0, 2), ((1, 0), (0, 2), (1, 1)), ((0, 1), (0, 0), (2, 0))):
        yield layers.Cropping3D(cropping, data_format=data_format), (6, 5, 6, 6)


@frameworks()
@FORMATS
def test_cropping(keras, data_format):
    for layer, shape in cropped(keras, data_format):
        assert_same(layer, count(2, *shape))
        assert_same(layer, count(2, *shape), shapes=[open_sizes(shape, data_format)])


def test_cropping_that_leaves_nothing():
    """Newer Keras refuses it, Cropping3D of tf.keras never did; such models exist."""
    x = count(2, 3, 1, 4, 2)
    got = answer("2.4.0", "Cropping3D", {"cropping": [[1, 1], [1, 1], [1, 1]], "data_format": "channels_last"}, x)
    assert got.shape == (2, 1, 0, 2, 2)


def test_asymmetric_margins_of_keras_1():
    """Keras 1.2.2 layers/convolutional.py: four numbers, or a dict of them."""
    x = count(2, 3, 4, 1)
    for padding in ([1, 2, 3, 4], {"top_pad": 1, "bottom_pad": 2, "left_pad": 3, "right_pad": 4}):
        got = answer("1.2.2", "ZeroPadding2D", {"padding": padding, "dim_ordering": "tf"}, x)
        np.testing.assert_array_equal(got, np.pad(x, ((0, 0), (1, 2), (3, 4), (0, 0))))


# -- upsampling --------------------------------------------------------------------------------------------------------


@frameworks()
def test_upsampling_of_steps(keras):
    for size in (1, 2, 5):
        assert_same(keras.layers.UpSampling1D(size), count(2, 3, 4))
        assert_same(keras.layers.UpSampling1D(size), count(2, 3, 4), shapes=[(None, 4)])


@frameworks()
@FORMATS
def test_upsampling_of_volumes(keras, data_format):
    for size in (2, (1, 2, 3)):
        layer = keras.layers.UpSampling3D(size, data_format=data_format)
        assert_same(layer, count(2, 2, 3, 2, 4))
        assert_same(layer, count(2, 2, 3, 2, 4), shapes=[open_sizes((2, 3, 2, 4), data_format)])


@frameworks()
@FORMATS
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"])
def test_upsampling_of_images(keras, data_format, interpolation):
    x = np.random.default_rng(0).normal(0, 1, (2, 3, 4, 5)).astype(np.float32)
    for size in (2, (3, 1), (2, 5)):
        layer = keras.layers.UpSampling2D(size, data_format=data_format, interpolation=interpolation)
        assert_same(layer, x)
        assert_same(layer, x, shapes=[open_sizes((3, 4, 5), data_format)])


@pytest.mark.parametrize("interpolation", ["area", "gaussian", "mitchellcubic"])
def test_upsampling_that_only_keras_2_knows(interpolation):
    x = np.random.default_rng(0).normal(0, 1, (2, 3, 4, 5)).astype(np.float32)
    assert_same(keras2().layers.UpSampling2D((2, 3), interpolation=interpolation), x)


@frameworks()
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_upsampling_in_half_precision(keras, interpolation):
    inputs = keras.Input((3, 4, 2), dtype="float16")
    layer = keras.layers.UpSampling2D(2, interpolation=interpolation, dtype="mixed_float16")
    assert_same(keras.Model(inputs, layer(inputs)), count(2, 3, 4, 2, dtype="float16"), rtol=2e-3)


def test_upsampling_by_much():
    """By 41 an op that counts in float32 would take a neighbour."""
    assert_same(keras3().layers.UpSampling2D((41, 1)), count(1, 5, 3, 1))


def test_nearest_is_exact_up_to_the_factor_that_the_rule_trusts():
    """ResizeNearestNeighbor takes floor(i * (1 / factor)) in float32 (TensorFlow image_resizer_state.h)."""
    from modelio.lowering.reshaping import _EXACT

    for factor in range(1, _EXACT + 1):
        at = np.arange(factor * 5000)
        taken = np.floor(at.astype(np.float32) * (np.float32(1) / np.float32(factor)))
        np.testing.assert_array_equal(taken.astype(int), at // factor)


@frameworks()
def test_what_needs_no_new_tensorflow(keras):
    layers = keras.layers
    for layer, x in (
        (layers.ZeroPadding2D(2), count(2, 3, 4, 1)),
        (layers.Cropping2D(1), count(2, 3, 4, 1)),
        (layers.UpSampling1D(2), count(2, 3, 4)),
        (layers.UpSampling2D(2), count(2, 3, 4, 1)),
        (layers.UpSampling3D(2), count(2, 3, 4, 1, 1)),
        (layers.RepeatVector(3), count(2, 3)),
        (layers.Permute((2, 1)), count(2, 3, 4)),
        (layers.Rescaling(0.5), count(2, 3, 4)),
    ):
        graph = assert_same(layer, x)
        assert runs_on(graph) <= (1, 2, 1)
        # An attribute that TensorFlow 1.13 has not heard of may be left out alone where it has its default.
        assert not any("half_pixel_centers" in node.attr for node in graph.graph.node)


@pytest.mark.parametrize("version", ["2.2.4", "2.3.1"])
def test_bilinear_upsampling_of_keras_beside_tensorflow(version):
    """It called ``resize_bilinear``, which aligns corners of pixels: the last column repeats, the first does not."""
    x = np.float32([[0, 6]]).reshape(1, 1, 2, 1)
    config = {"size": [1, 3], "data_format": "channels_last", "interpolation": "bilinear"}
    np.testing.assert_allclose(answer(version, "UpSampling2D", config, x).ravel(), [0, 2, 4, 6, 6, 6], atol=1e-6)


@pytest.mark.parametrize("version", ["2.2.4-tf", "2.4.0"])
def test_bilinear_upsampling_of_keras_inside_tensorflow(version):
    """It calls ``resize_images_v2``, which aligns their centers: both ends repeat."""
    x = np.float32([[0, 6]]).reshape(1, 1, 2, 1)
    config = {"size": [1, 3], "data_format": "channels_last", "interpolation": "bilinear"}
    np.testing.assert_allclose(answer(version, "UpSampling2D", config, x).ravel(), [0, 0, 2, 4, 6, 6], atol=1e-6)


def test_upsampling_of_keras_1():
    x = count(2, 3, 4, 5)
    got = answer("1.2.2", "UpSampling2D", {"size": [2, 3], "dim_ordering": "th"}, x)
    np.testing.assert_array_equal(got, x.repeat(2, 2).repeat(3, 3))
    got = answer("1.2.2", "UpSampling1D", {"length": 2}, x[..., 0])
    np.testing.assert_array_equal(got, x[..., 0].repeat(2, 1))


# -- rescaling ---------------------------------------------------------------------------------------------------------


@frameworks()
def test_rescaling(keras):
    layers = keras.layers
    assert_same(layers.Rescaling(1 / 255), count(2, 3, 4, dtype="uint8"))
    assert_same(layers.Rescaling(2.0, offset=-1), count(2, 3, 4))
    assert_same(layers.Rescaling([0.5, 2, 3], offset=[1.0, 2.0, 3.0]), count(2, 4, 3))
    assert_same(layers.Rescaling(0.5, dtype="float64"), count(2, 3))


# -- what means nothing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_name", "config", "message"),
    [
        ("Flatten", {"data_format": "NCHW"}, "data_format is 'NCHW'"),
        ("Reshape", {"target_shape": [-1, -1]}, "which is no shape"),
        ("Reshape", {"target_shape": [5, -1]}, "does not go into"),
        ("Reshape", {"target_shape": "3"}, "target_shape is '3'"),
        ("Permute", {"dims": [0, 1, 2]}, "dims is"),
        ("Permute", {"dims": [1, 3]}, r"dims is \[1, 3\]"),
        ("Permute", {"dims": [1, 2]}, "the input has 4 dimensions"),
        ("RepeatVector", {"n": 2}, "the input has 4 dimensions; RepeatVector wants 2"),
        ("ZeroPadding1D", {"padding": 1}, "the input has 4 dimensions; ZeroPadding1D wants 3"),
        ("ZeroPadding2D", {"padding": [1, 2, 3]}, "has to be 2 pairs of whole numbers"),
        ("ZeroPadding2D", {"padding": [[1, 2], [-1, 0]]}, "has to be 2 pairs of whole numbers"),
        ("Cropping2D", {"cropping": [[2, -2], [0, 0]]}, "has to be 2 pairs of whole numbers"),
        ("UpSampling2D", {"size": [2, 0]}, "size is"),
        ("UpSampling2D", {"size": 2, "interpolation": "fancy"}, "interpolation is 'fancy'"),
        ("Rescaling", {"scale": "much"}, "scale is 'much'"),
    ],
)
def test_arguments_that_mean_nothing(class_name, config, message):
    with pytest.raises(ConversionError, match=message):
        graph_of("2.15.0", class_name, config, [(3, 4, 2)])
