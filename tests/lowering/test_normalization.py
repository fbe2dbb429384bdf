"""Normalization layers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelio.errors import ConversionError
from tests.lowering.harness import assert_same, frameworks, keras2, keras3
from tests.lowering.written import answer, graph_of, runs_on


def noise(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 1.5, shape).astype(dtype)


def operations(graph) -> set[str]:
    return {node.op for node in graph.graph.node}


def shape_and_axis(data, most=4):
    shape = data.draw(st.lists(st.integers(2, 4), min_size=1, max_size=most))
    return shape, data.draw(st.integers(-len(shape), len(shape)).filter(bool))


# -- BatchNormalization ------------------------------------------------------------------------------------------------


@frameworks()
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_batch_normalization(keras, data):
    """Any rank and axis, with and without gamma and beta."""
    shape, axis = shape_and_axis(data)
    if not hasattr(keras, "ops") and len(shape) in (3, 4) and axis in (1, -len(shape)):
        axis = -1  # tf_keras fuses channels first, which TensorFlow does not run on every CPU
    if not hasattr(keras, "ops") and len(shape) == 3 and axis in (2, -2):
        axis = -1  # and refuses the axis between
    layer = keras.layers.BatchNormalization(
        axis=axis,
        center=data.draw(st.booleans()),
        scale=data.draw(st.booleans()),
        epsilon=data.draw(st.sampled_from([1e-3, 1e-5, 0.1, 1e-7])),
    )
    graph = assert_same(layer, noise(3, *shape))
    assert runs_on(graph) <= (1, 2, 1)


@frameworks()
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_images_take_the_fused_op(keras, center, scale):
    layer = keras.layers.BatchNormalization(center=center, scale=scale)
    graph = assert_same(layer, noise(3, 4, 5, 6), shapes=[(None, None, 6)])
    assert "FusedBatchNorm" in operations(graph)


@frameworks()
def test_what_the_fused_op_does_not_take(keras):
    for layer, x in (
        (keras.layers.BatchNormalization(epsilon=1e-6), noise(3, 4, 5, 6)),  # cuDNN refused such an epsilon
        (keras.layers.BatchNormalization(dtype="float64"), noise(3, 4, 5, 6, dtype="float64")),
        (keras.layers.BatchNormalization(), noise(3, 4, 5)),
        (keras.layers.BatchNormalization(), noise(3, 4, 5, 2, 3)),
    ):
        assert "FusedBatchNorm" not in operations(assert_same(layer, x))


def test_channels_first():
    for shape in ((6, 4, 5), (6, 4), (6, 2, 4, 5)):
        assert_same(keras3().layers.BatchNormalization(axis=1), noise(3, *shape))


def test_several_axes():
    """Keras 2 takes a list; the weights then have an axis for each of the input's."""
    layers = keras2().layers
    for axis in ([1, 2], [3, 1], [2], (1, 2, 3), [-1, 1]):
        assert_same(layers.BatchNormalization(axis=axis), noise(3, 4, 5, 6))
    assert_same(layers.BatchNormalization(axis=[1, 2], scale=False), noise(3, 4, 5))


@frameworks()
def test_renormalization(keras):
    """Inference does not know of it, but it brings three weights that are not to be taken for others."""
    assert_same(keras.layers.BatchNormalization(renorm=True), noise(3, 4, 5, 6))


@frameworks()
@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
@pytest.mark.parametrize("shape", [(5,), (4, 4, 5)])
def test_half_precision(keras, policy, shape):
    """Computed in float32: a moving variance of 1e-7 is nothing in float16, and still counts beside a small epsilon."""
    if policy == "float16" and not hasattr(keras, "ops"):
        policy = "mixed_float16"  # Keras 2 keeps these weights in float32 under both
    inputs = keras.Input(shape, dtype="float16")
    model = keras.Model(inputs, keras.layers.BatchNormalization(dtype=policy)(inputs))
    assert_same(model, noise(3, *shape, dtype="float16"), rtol=2e-3)


@pytest.mark.parametrize("version", ["2.2.4", "2.4.0", "2.8.0", "2.11.0"])
def test_small_epsilon_of_a_fused_image(version):
    """Until TensorFlow 2.11 ``tf.nn.fused_batch_norm`` took no epsilon below 1.001e-5."""
    x, variance = noise(2, 3, 3, 4), np.float32([1e-5, 1e-6, 1e-4, 0])
    arrays = [np.ones(4, np.float32), np.zeros(4, np.float32), np.zeros(4, np.float32), variance]
    config = {"axis": -1, "epsilon": 1e-7, "center": True, "scale": True, "momentum": 0.9}
    got = answer(version, "BatchNormalization", config, x, arrays=arrays)
    np.testing.assert_allclose(got, x / np.sqrt(variance + 1.001e-5), rtol=1e-5)
    exact = answer("2.12.0", "BatchNormalization", config, x, arrays=arrays)
    np.testing.assert_allclose(exact, x / np.sqrt(variance + 1e-7), rtol=1e-5)


def test_virtual_batches():
    """tf_keras 2.21 batch_normalization.py, build: the weights have two axes more than one would think, all of size 1.

    The axis that is noted counts that of the virtual batches, too.
    """
    x, shape = noise(4, 3, 5), (1, 1, 1, 5)
    gamma, beta, mean = (noise(*shape, seed=seed) for seed in (1, 2, 3))
    variance = np.abs(noise(*shape, seed=4))
    config = {"axis": [3], "epsilon": 1e-3, "virtual_batch_size": 2}
    got = answer("2.15.0", "BatchNormalization", config, x, arrays=[gamma, beta, mean, variance])
    expected = (x - mean[0]) / np.sqrt(variance[0] + 1e-3) * gamma[0] + beta[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_modes_of_keras_1():
    """Keras 1.2.2 layers/normalization.py: 0 takes the moving averages, 1 each sample's own, 2 the batch's own."""
    x = noise(4, 6)
    gamma, beta, mean = (noise(6, seed=seed) for seed in (1, 2, 3))
    variance = np.abs(noise(6, seed=4))
    arrays = [gamma, beta, mean, variance]

    def normalized(x, mean, variance):
        return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    def got(mode, axis=-1):
        return answer("1.2.2", "BatchNormalization", {"mode": mode, "axis": axis, "epsilon": 1e-3}, x, arrays=arrays)

    np.testing.assert_allclose(got(0), normalized(x, mean, variance), atol=1e-5)
    np.testing.assert_allclose(got(2), normalized(x, x.mean(0), x.var(0)), atol=1e-5)
    deviation = np.sqrt(x.var(1, keepdims=True) + 1e-3)
    expected = (x - x.mean(1, keepdims=True)) / (deviation + 1e-3) * gamma + beta
    np.testing.assert_allclose(got(1), expected, atol=1e-5)


def test_channels_first_of_keras_1():
    x = noise(2, 5, 3, 4)
    gamma, beta, mean, variance = *(noise(5, 1, 1, seed=seed) for seed in (1, 2, 3)), np.abs(noise(5, 1, 1, seed=4))
    arrays = [weight.reshape(-1) for weight in (gamma, beta, mean, variance)]
    got = answer("1.2.2", "BatchNormalization", {"mode": 0, "axis": 1, "epsilon": 1e-3}, x, arrays=arrays)
    np.testing.assert_allclose(got, (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, atol=1e-5)


# -- LayerNormalization and its kin ------------------------------------------------------------------------------------


@frameworks()
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_layer_normalization(keras, data):
    """Any rank, any axes in any order, with and without gamma and beta."""
    shape = data.draw(st.lists(st.integers(2, 4), min_size=1, max_size=4))
    axes = data.draw(st.lists(st.integers(1, len(shape)), min_size=1, max_size=3, unique=True))
    if hasattr(keras, "ops"):
        axes = sorted(axes)
    layer = keras.layers.LayerNormalization(
        axis=data.draw(st.sampled_from([axes, axes[0], axes[0] - len(shape) - 1])),
        center=data.draw(st.booleans()),
        scale=data.draw(st.booleans()),
        epsilon=data.draw(st.sampled_from([1e-3, 1e-6, 0.1])),
    )
    graph = assert_same(layer, noise(3, *shape))
    assert runs_on(graph) <= (1, 2, 1)


def test_layer_normalization_in_the_order_of_each_keras():
    """Keras 3 sorts the axes before it makes the weights, Keras 2 keeps the order of the arguments."""
    for keras in (keras2(), keras3()):
        assert_same(keras.layers.LayerNormalization(axis=[2, 1]), noise(3, 4, 5))


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
def test_scaling_by_the_variance():
    """``rms_scaling`` was meant to leave out the mean, and leaves it out in half of the formula."""
    for axis in (-1, 1, [1, 2]):
        assert_same(keras3().layers.LayerNormalization(axis=axis, rms_scaling=True), noise(3, 4, 5))


@frameworks()
@pytest.mark.parametrize("name", ["LayerNormalization", "GroupNormalization", "UnitNormalization"])
def test_half_precision_of_others(keras, name):
    arguments = {"groups": 2} if name == "GroupNormalization" else {}
    inputs = keras.Input((4, 6), dtype="float16")
    model = keras.Model(inputs, getattr(keras.layers, name)(dtype="mixed_float16", **arguments)(inputs))
    assert_same(model, noise(3, 4, 6, dtype="float16"), rtol=4e-3)


@frameworks()
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_group_normalization(keras, data):
    shape, axis = shape_and_axis(data, most=3)
    groups = data.draw(st.sampled_from([1, 2, 3, -1]))
    place = axis - 1 if axis > 0 else axis
    shape[place] = 6
    told = [None if at != place % len(shape) and data.draw(st.booleans()) else size for at, size in enumerate(shape)]
    if hasattr(keras, "ops") and told.count(None) > 1:
        told = list(shape)
    layer = keras.layers.GroupNormalization(
        groups=groups, axis=axis, center=data.draw(st.booleans()), scale=data.draw(st.booleans())
    )
    graph = assert_same(layer, noise(3, *shape), shapes=[tuple(told)])
    assert runs_on(graph) <= (1, 2, 1)


@frameworks()
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_unit_normalization(keras, data):
    shape, axis = shape_and_axis(data)
    axes = data.draw(st.sampled_from([axis, [axis]]))
    x = noise(3, *shape)
    x[0] = 0
    x[1] *= np.float32(1e-9)
    assert_same(keras.layers.UnitNormalization(axis=axes), x)


def test_unit_normalization_along_several_axes():
    for keras in (keras2(), keras3()):
        assert_same(keras.layers.UnitNormalization(axis=[1, 2]), noise(3, 4, 5))


def test_rms_normalization():
    layers = keras3().layers
    for axis in (-1, 2, [1, 2], 1):
        assert_same(layers.RMSNormalization(axis=axis), noise(3, 4, 4))
    assert_same(layers.RMSNormalization(epsilon=0.1), noise(3, 4))
    inputs = keras3().Input((6,), dtype="float16")
    model = keras3().Model(inputs, layers.RMSNormalization(dtype="mixed_float16")(inputs))
    assert_same(model, noise(3, 6, dtype="float16"), rtol=2e-3)


def test_spectral_normalization():
    """Inference calls the wrapped layer as it is: tf_keras 2.21 spectral_normalization.py, call."""
    x, kernel, bias, u = noise(4, 5), noise(5, 3, seed=1), noise(3, seed=2), noise(1, 3)
    wrapped = {"class_name": "Dense", "config": {"name": "dense", "units": 3, "activation": "linear", "use_bias": True}}
    config = {"layer": wrapped, "power_iterations": 1}
    got = answer("2.15.0", "SpectralNormalization", config, x, arrays=[kernel, bias, u])
    np.testing.assert_allclose(got, x @ kernel + bias, atol=1e-5)


# -- what means nothing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_name", "config", "message"),
    [
        ("BatchNormalization", {"axis": 7}, "told the axis 7; its input has 3 dimensions"),
        ("LayerNormalization", {"axis": [1, 1], "scale": False, "center": False}, r"told the axes \(1, 1\)"),
        ("BatchNormalization", {"axis": -1, "epsilon": None, "scale": False, "center": False, "mode": 3}, "no mode 3"),
        ("LayerNormalization", {"axis": "all", "scale": False, "center": False}, "told the axis 'all'"),
        ("GroupNormalization", {"groups": 4, "scale": False, "center": False}, "6 channels do not make 4 groups"),
        ("GroupNormalization", {"groups": "2", "scale": False, "center": False}, "6 channels do not make '2' groups"),
        ("UnitNormalization", {"axis": [3]}, "told the axis 3"),
    ],
)
def test_arguments_that_mean_nothing(class_name, config, message):
    arrays = [np.ones(6, np.float32)] * (2 + 2 * ("scale" not in config)) if class_name.startswith("Batch") else []
    with pytest.raises(ConversionError, match=message):
        graph_of("2.15.0", class_name, config, [(4, 6)], arrays)


@frameworks(only=["keras3"])
def test_spectral_normalization_gives_the_dtype_that_it_is_given(keras):
    """``ops.cast(output, inputs.dtype)``: in Keras 3 a table of floats gives whole numbers (spectral_normalization.py)."""
    layer = keras.layers.SpectralNormalization(keras.layers.Embedding(7, 5))
    assert_same(layer, np.array([[0, 3], [6, 2]], np.int32))
