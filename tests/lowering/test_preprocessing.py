"""Numbers and words to features: encodings of categories, bins, hashes, Normalization."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelio.errors import ConversionError
from modelio.layers.keras2 import normal
from modelio.lowering import lower
from modelio.model import LayerModel
from tests.lowering.harness import assert_same, frameworks, keras2, keras3, model_of, run
from tests.lowering.written import answer, graph_of, runs_on

CATEGORIES = np.array([[1, 2, 2], [0, 3, 1]])
WORDS = np.array([[b"a", b"bb"], ["ü".encode(), b""], [b"a", b"zz"]], object)


def noise(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, shape).astype(dtype)


def lowered(model):
    return lower(LayerModel.from_json(model.to_json(), model.get_weights()))[0]


# -- CategoryEncoding --------------------------------------------------------------------------------------------------


@frameworks()
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
@pytest.mark.parametrize("mode", ["multi_hot", "count", "one_hot"])
def test_category_encoding(keras, mode, dtype):
    x = CATEGORIES[:, :1] if mode == "one_hot" else CATEGORIES
    graph = assert_same(keras.layers.CategoryEncoding(num_tokens=4, output_mode=mode), x.astype(dtype))
    assert runs_on(graph) <= (1, 2, 1)


@frameworks()
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_category_encoding_counts(keras, data):
    """Any number of samples and values, and any of them: the numbers that occur, and how often."""
    tokens, width, batch = (data.draw(st.integers(1, 5)) for _ in range(3))
    values = data.draw(st.lists(st.integers(0, tokens - 1), min_size=batch * width, max_size=batch * width))
    x = np.array(values).reshape(batch, width)
    mode = data.draw(st.sampled_from(["multi_hot", "count"]))
    told = data.draw(st.sampled_from([width, None]))
    assert_same(keras.layers.CategoryEncoding(tokens, output_mode=mode), x, shapes=[(told,)])


@frameworks()
@pytest.mark.parametrize("mode", ["count", "one_hot"])
def test_category_encoding_of_a_vector(keras, mode):
    """A batch of plain numbers: one_hot makes a row of each, count takes all of them for one sample."""
    assert_same(keras.layers.CategoryEncoding(4, output_mode=mode), CATEGORIES[:, 0], shapes=[()])


@pytest.mark.parametrize("mode", ["multi_hot", "count", "one_hot"])
def test_category_encoding_of_more_axes(mode):
    """Keras 3 counts over the axis behind the batch."""
    x = np.stack([CATEGORIES, CATEGORIES[:, ::-1] // 2], axis=2)
    assert_same(keras3().layers.CategoryEncoding(4, output_mode=mode), x)


@frameworks()
def test_count_weights(keras):
    ids, weights = keras.Input((3,), dtype="int64"), keras.Input((3,))
    counted = keras.layers.CategoryEncoding(4, output_mode="count")(ids, count_weights=weights)
    assert_same(keras.Model([ids, weights], counted), CATEGORIES, noise(2, 3))


def test_a_category_that_is_too_large():
    """Keras 3 lets it count nowhere; tf_keras stops, and so does the graph. Both stop at a negative one."""
    graph = assert_same(keras3().layers.CategoryEncoding(3, output_mode="count"), CATEGORIES)
    stopped = pytest.raises(Exception, match="must be at least 0 and below num_tokens=3")
    with stopped:
        run(graph, [-CATEGORIES])
    graph = lowered(model_of(keras2().layers.CategoryEncoding(3, output_mode="count"), [CATEGORIES]))
    with stopped:
        run(graph, [CATEGORIES])


# -- Discretization ----------------------------------------------------------------------------------------------------


@frameworks()
@pytest.mark.parametrize("mode", ["int", "multi_hot", "count", "one_hot"])
def test_discretization(keras, mode):
    x = noise(4, 1 if mode == "one_hot" else 3)
    x[0] = 0.0  # a boundary belongs to the bin above it
    graph = assert_same(keras.layers.Discretization(bin_boundaries=[-0.5, 0.0, 0.7], output_mode=mode), x)
    assert runs_on(graph) <= (1, 2, 1)


@frameworks()
@pytest.mark.parametrize("dtype", ["int32", "int64", "float64"])
def test_discretization_of_other_numbers(keras, dtype):
    assert_same(keras.layers.Discretization(bin_boundaries=[0, 2]), CATEGORIES.astype(dtype))


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int8"])
def test_discretization_of_numbers_that_bucketize_does_not_take(dtype):
    """Keras 3 makes others of them."""
    assert_same(keras3().layers.Discretization(bin_boundaries=[0, 2]), CATEGORIES.astype(dtype))


@frameworks()
@pytest.mark.parametrize(("samples", "epsilon"), [(100, 0.05), (3, 0.01)])
def test_discretization_adapted(keras, samples, epsilon):
    """Keras 3 keeps the boundaries, tf_keras what they are made from."""
    layer = keras.layers.Discretization(num_bins=4, epsilon=epsilon)
    layer.adapt(noise(samples, 3))
    assert_same(layer, noise(5, 3), weights="own")


def test_discretization_of_tensorflow_2_4():
    """There bin_boundaries was called bins (TensorFlow 2.4 layers/preprocessing/discretization.py)."""
    x = np.array([[-1.0, 0.0, 0.5, 1.0, 1.5]], "float32")  # each bin has its upper boundary in it
    given = {"bins": [0.0, 1.0, np.inf]}
    np.testing.assert_array_equal(answer("2.4.0", "Discretization", given, x), [[0, 0, 1, 1, 2]])


def test_words_of_tensorflow_2_4():
    """``layers/preprocessing/category_encoding.py``, ``hashing.py``: num_tokens, and the salt of a layer without one."""
    numbers = np.array([[1, 1, 3]], "int64")
    for mode, wanted in (("binary", [[0, 1, 0, 1]]), ("count", [[0, 2, 0, 1]])):
        config = {"max_tokens": 4, "output_mode": mode}
        np.testing.assert_array_equal(answer("2.4.0", "CategoryEncoding", config, numbers), wanted)
    assert normal("Hashing", {"num_bins": 7, "salt": [0xDECAFCAFFE] * 2}) == ("Hashing", {"num_bins": 7, "salt": None})
    hashed = answer("2.4.0", "Hashing", {"num_bins": 7, "dtype": "float32", "salt": [0xDECAFCAFFE] * 2}, numbers)
    assert hashed.dtype == np.int64


def test_discretization_without_boundaries():
    with pytest.raises(ConversionError, match=r"no bin_boundaries in this file.*give bin_boundaries"):
        graph_of("3.15.0", "Discretization", {"num_bins": 3, "bin_boundaries": None}, [(3,)])


# -- Hashing, HashedCrossing -------------------------------------------------------------------------------------------


@frameworks()
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"mask_value": ""},
        {"salt": 7},
        {"salt": [3, 4], "mask_value": "zz"},
        {"output_mode": "multi_hot"},
        {"output_mode": "count", "mask_value": "zz"},
    ],
)
def test_hashing_of_words(keras, arguments):
    graph = assert_same(keras.layers.Hashing(num_bins=5, **arguments), WORDS)
    assert runs_on(graph) <= (1, 2, 1)


@frameworks()
@settings(max_examples=15, deadline=None, derandomize=True)
@given(texts=st.lists(st.text(max_size=8).filter(lambda text: "\0" not in text), min_size=1, max_size=6))
def test_hashing_of_any_text(keras, texts):
    words = np.array([[text.encode("utf-8", "ignore")] for text in texts], object)
    assert_same(keras.layers.Hashing(num_bins=1000), words)


@frameworks()
def test_hashing_to_vectors(keras):
    assert_same(keras.layers.Hashing(num_bins=5, output_mode="one_hot"), WORDS[:, :1])


@frameworks()
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("mask", [None, 2])
def test_hashing_of_numbers(keras, dtype, mask):
    """By their digits."""
    assert_same(keras.layers.Hashing(num_bins=5, mask_value=mask), CATEGORIES.astype(dtype))
    assert_same(keras.layers.Hashing(num_bins=1, mask_value=mask), CATEGORIES.astype(dtype))


def test_hashing_of_floating_numbers():
    """Keras 3 cuts them off."""
    assert_same(keras3().layers.Hashing(num_bins=5), noise(3, 2) * 9)


@frameworks()
@pytest.mark.parametrize("mode", ["int", "one_hot"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_hashed_crossing(keras, mode, shape):
    features = [WORDS[:, :1], np.array([[1], [2], [300]]), np.array([[5], [6], [5]], np.int32)]
    if hasattr(keras, "ops"):
        features = features[:2]  # Keras 3.15 cannot build it on three
    features = [feature if shape else feature[:, 0] for feature in features]
    dtypes = ("string", "int64", "int32")
    inputs = [keras.Input(shape, dtype=dtype) for dtype, _ in zip(dtypes, features, strict=False)]
    graph = assert_same(
        keras.Model(inputs, keras.layers.HashedCrossing(num_bins=7, output_mode=mode)(inputs)), *features
    )
    assert runs_on(graph) <= (1, 2, 1)


# -- Normalization -----------------------------------------------------------------------------------------------------


@frameworks()
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("axis", [-1, None, 1, (1, 2)])
def test_normalization(keras, axis, invert):
    layer = keras.layers.Normalization(axis=axis, invert=invert)
    layer.adapt(noise(20, 3, 4) * 3 + 1)
    graph = assert_same(layer, noise(2, 3, 4), weights="own")
    assert runs_on(graph) <= (1, 2, 1)


@frameworks()
@pytest.mark.parametrize(
    "arguments",
    [
        {"mean": [1.0, 2.0, 3.0], "variance": [1.0, 4.0, 0.0]},  # without variance, epsilon counts
        {"mean": 2.0, "variance": 4.0},
        {"mean": 2.0, "variance": 4.0, "axis": None, "invert": True},
    ],
)
def test_normalization_told(keras, arguments):
    assert_same(keras.layers.Normalization(**arguments), noise(4, 3))
    assert_same(keras.layers.Normalization(**arguments), CATEGORIES)


@frameworks()
def test_normalization_told_along_two_axes(keras):
    mean = np.arange(6.0).reshape(3, 2).tolist()
    assert_same(keras.layers.Normalization(axis=(1, 2), mean=mean, variance=np.ones((3, 2)).tolist()), noise(2, 3, 2))


@frameworks()
def test_normalization_told_in_float64(keras):
    """Keras 3 rounds what it is told to float32 on the way, tf_keras does not; 1e-12 tells them apart."""
    layer = keras.layers.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.0524, 0.0502, 0.0506], dtype="float64")
    assert_same(layer, noise(4, 3).astype("float64"), rtol=1e-12)


def test_normalization_without_numbers():
    with pytest.raises(ConversionError, match="no weights in this file"):
        graph_of("3.15.0", "Normalization", {"axis": [-1], "mean": "x", "variance": None}, [(3,)])


def test_random_fourier_features():
    layer = keras2().layers.experimental.RandomFourierFeatures(output_dim=4, scale=2.0)
    assert_same(layer, noise(3, 5), weights="own")
    assert_same(layer, noise(3, 5))


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_name", "config", "told"),
    [
        ("CategoryEncoding", {"num_tokens": 3, "output_mode": "count", "sparse": True}, "sparse=True"),
        ("CategoryEncoding", {"num_tokens": 0}, "num_tokens is 0"),
        ("CategoryEncoding", {"num_tokens": 3, "output_mode": "tf_idf"}, "output_mode is 'tf_idf'"),
        ("CategoryEncoding", {"num_tokens": 3, "output_mode": ["count"]}, "output_mode is"),
        ("Discretization", {"bin_boundaries": [1.0, 0.0]}, "in rising order"),
        ("Discretization", {"bin_boundaries": ["a"]}, "bin_boundaries"),
        ("Hashing", {"num_bins": None}, "num_bins is None"),
        ("Hashing", {"num_bins": 3, "salt": [1, 2, 3]}, "salt is"),
        ("Hashing", {"num_bins": 3, "mask_value": "a"}, "mask_value is 'a', and the input is int64"),
        ("HashedCrossing", {"num_bins": 3}, "crosses two or more"),
    ],
)
def test_arguments_that_no_keras_takes(class_name, config, told):
    with pytest.raises(ConversionError, match=told):
        graph_of("2.15.0", class_name, config, [(3,)], dtype="int64")
