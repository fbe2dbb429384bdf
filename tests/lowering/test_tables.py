"""StringLookup and IntegerLookup: tables of the graph, in every loader's hands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modelio
from modelio.errors import ConversionError
from modelio.graph.builder import Builder
from modelio.graph.tables import MAIN_OP, initializer_of
from modelio.lowering import lower
from modelio.model import LayerModel
from tests import clients
from tests.lowering.harness import answers, assert_same, dtype_of, frameworks, keras2, keras3, run
from tests.lowering.written import graph_of, runs_on

VOCABULARY = ["the", "cat", "sat", "über"]
WORDS = np.array([[b"the", b"dog"], [b"cat", "über".encode()], [b"", b"[UNK]"]], object)
NUMBERS = np.array([[5, 9], [7, 1], [-4, 8]])


def lowered(model):
    return lower(LayerModel.from_json(model.to_json(), model.get_weights()))[0]


# -- what a table answers ----------------------------------------------------------------------------------------------

MODES = [
    {},
    {"num_oov_indices": 3},
    {"num_oov_indices": 2, "output_mode": "count"},
    {"output_mode": "multi_hot"},
    {"output_mode": "count"},
    {"output_mode": "multi_hot", "max_tokens": 9, "pad_to_max_tokens": True},
    {"output_mode": "count", "max_tokens": 9},
]


@frameworks()
@pytest.mark.parametrize("mask", [None, "", "[M]"])
@pytest.mark.parametrize("arguments", MODES)
def test_string_lookup(keras, arguments, mask):
    layer = keras.layers.StringLookup(vocabulary=VOCABULARY, mask_token=mask, **arguments)
    graph = assert_same(layer, WORDS)
    assert runs_on(graph) <= (1, 2, 1)


@frameworks()
@pytest.mark.parametrize("mask", [None, 0, 9])
@pytest.mark.parametrize("arguments", MODES)
def test_integer_lookup(keras, arguments, mask):
    vocabulary = [5, 7, 1, 12345678901]
    for dtype in ("int64", "int32"):
        assert_same(
            keras.layers.IntegerLookup(vocabulary=vocabulary, mask_token=mask, **arguments), NUMBERS.astype(dtype)
        )


@frameworks()
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_vocabulary(keras, data):
    """Any words, in any order, of any script; some of the input in it and some not."""
    texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=6)
    words = data.draw(st.lists(texts.filter(bool), min_size=1, max_size=8, unique=True))
    asked = data.draw(st.lists(st.one_of(st.sampled_from(words), texts), min_size=1, max_size=6))
    layer = keras.layers.StringLookup(vocabulary=words, num_oov_indices=data.draw(st.integers(1, 3)))
    assert_same(layer, np.array([[text.encode()] for text in asked], object))


@frameworks()
def test_one_hot(keras):
    assert_same(keras.layers.StringLookup(vocabulary=VOCABULARY, output_mode="one_hot"), WORDS[:, :1])
    assert_same(keras.layers.StringLookup(vocabulary=VOCABULARY, output_mode="one_hot"), WORDS[:, 0], shapes=[()])


@frameworks()
def test_inverted(keras):
    numbers = np.array([[0, 1, 2], [3, 9, 5]])
    assert_same(keras.layers.StringLookup(vocabulary=VOCABULARY, invert=True), numbers)
    assert_same(keras.layers.StringLookup(vocabulary=VOCABULARY, invert=True, mask_token="-"), numbers)
    assert_same(keras.layers.IntegerLookup(vocabulary=[5, 7, 9], invert=True), numbers)


@frameworks()
def test_the_special_words_may_be_in_the_vocabulary(keras):
    words = ["", "[UNK]", *VOCABULARY]
    assert_same(keras.layers.StringLookup(vocabulary=words, mask_token=""), WORDS)


@frameworks()
def test_tf_idf(keras):
    """Unknown words weigh the mean of the others, unless they have a weight of their own."""
    for words, weights in ((VOCABULARY, [0.1, 0.2, 0.3, 0.4]), (["[UNK]", *VOCABULARY], [0.9, 0.1, 0.2, 0.3, 0.4])):
        for more in ({}, {"max_tokens": 8, "pad_to_max_tokens": True}):
            layer = keras.layers.StringLookup(vocabulary=words, idf_weights=weights, output_mode="tf_idf", **more)
            assert_same(layer, WORDS, weights="own")


@pytest.mark.parametrize("salt", [None, 5, [5, 6]])
def test_unknown_words_by_hash_in_keras_3(salt):
    layers = keras3().layers
    assert_same(layers.StringLookup(vocabulary=VOCABULARY, num_oov_indices=4, salt=salt), WORDS)
    layer = layers.IntegerLookup(vocabulary=[5], num_oov_indices=4, oov_method="farmhash", salt=salt)
    assert_same(layer, NUMBERS)


def test_as_int32():
    """tf_keras makes the dtype that it is told."""
    assert_same(keras2().layers.StringLookup(vocabulary=VOCABULARY, dtype="int32"), WORDS)


@frameworks()
def test_no_number_for_unknown_words(keras):
    """Keras stops at an unknown word then, and so does the graph."""
    layer = keras.layers.StringLookup(vocabulary=VOCABULARY, num_oov_indices=0)
    graph = assert_same(layer, WORDS[:1, :1])
    with pytest.raises(Exception, match="num_oov_indices is 0"):
        run(graph, [WORDS[:, :1]])


@frameworks()
def test_a_lookup_called_twice_has_one_table(keras):
    layer = keras.layers.StringLookup(vocabulary=VOCABULARY)
    a, b = keras.Input((2,), dtype="string"), keras.Input((2,), dtype="string")
    graph = assert_same(keras.Model([a, b], [layer(a), layer(b)]), WORDS, WORDS[::-1])
    assert [node.op for node in graph.graph.node].count("HashTableV2") == 1


@frameworks()
def test_a_lookup_then_its_inverse(keras):
    words = keras.Input((2,), dtype="string")
    numbers = keras.layers.StringLookup(vocabulary=VOCABULARY)(words)
    back = keras.layers.StringLookup(vocabulary=VOCABULARY, invert=True)(numbers)
    assert_same(keras.Model(words, back), WORDS)


# -- where a vocabulary comes from -------------------------------------------------------------------------------------


def adapted(keras, layer, data):
    """A model of one layer, which has learned its vocabulary from ``data``."""
    layer.adapt(data)
    feed = keras.Input(data.shape[1:], dtype=dtype_of(data))
    return keras.Model(feed, layer(feed))


@frameworks()
@pytest.mark.parametrize("kind", ["words", "numbers", "text", "tf_idf", "inverted"])
def test_a_vocabulary_that_was_learned(keras, kind, tmp_path):
    """It is among the files of a .keras archive."""
    layers = keras.layers
    layer, data = {
        "words": (layers.StringLookup(mask_token="", num_oov_indices=2), WORDS),
        "numbers": (layers.IntegerLookup(mask_token=8), NUMBERS),
        "text": (layers.TextVectorization(max_tokens=6), WORDS[:, :1]),
        "tf_idf": (layers.TextVectorization(output_mode="tf_idf"), WORDS[:, :1]),
        "inverted": (layers.StringLookup(invert=True, output_mode="int"), WORDS),
    }[kind]
    if kind == "inverted":
        layer.adapt(data)
        feed = keras.Input((2,), dtype="int64")
        model, data = keras.Model(feed, layer(feed)), np.array([[0, 1], [2, 9]])
    else:
        model = adapted(keras, layer, data)
    model.save(tmp_path / "model.keras")
    graph, _ = lower(modelio.read(tmp_path / "model.keras"))
    for ours, theirs in zip(run(graph, [data]), answers(model, [data]), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-6) if kind == "tf_idf" else np.testing.assert_array_equal(
            ours, theirs
        )


@frameworks()
def test_a_vocabulary_of_a_live_model(keras):
    """What a model in a model has learned, without a file."""
    inner = adapted(keras, keras.layers.StringLookup(num_oov_indices=2), WORDS)
    words = keras.Input((2,), dtype="string")
    other = keras.layers.TextVectorization(output_mode="multi_hot")
    other.adapt(WORDS[:, :1])
    model = keras.Model(words, [inner(words), other(words[:, :1])])
    graph, _ = lower(modelio.from_keras(model))
    for ours, theirs in zip(run(graph, [WORDS]), answers(model, [WORDS]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_vocabulary_among_the_weights():
    """tf_keras counts what it has learned among a model's weights."""
    model = adapted(keras2(), keras2().layers.StringLookup(), WORDS)
    assert_same(model, WORDS, weights="own")


@pytest.mark.parametrize("class_name", ["StringLookup", "IntegerLookup", "TextVectorization"])
def test_no_vocabulary(class_name):
    """The error names the layer, and the way out."""
    with pytest.raises(ConversionError, match=r"has no vocabulary in this file.*save the model as \.keras") as caught:
        graph_of("3.15.0", class_name, {"vocabulary": None, "max_tokens": 5}, [(1,)], dtype="string")
    assert caught.value.where == "layer"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"sparse": True, "output_mode": "count"}, "sparse=True"),
        ({"output_mode": "tf_idf"}, "not a weight for each of its 3 words"),
        ({"output_mode": "tf_idf", "idf_weights": [1.0]}, "not a weight for each"),
        ({"max_tokens": 2, "pad_to_max_tokens": True}, "max_tokens is 2"),
        ({"invert": True, "output_mode": "count"}, "invert=True"),
        ({"invert": True, "oov_token": None}, "needs an oov_token"),
    ],
)
def test_arguments_that_no_keras_takes(config, told):
    with pytest.raises(ConversionError, match=told):
        graph_of(
            "3.15.0", "StringLookup", {"vocabulary": ["a", "b"], "oov_token": "?", **config}, [(1,)], dtype="string"
        )


# -- loaders -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lookups(tmp_path_factory):
    """Three tables, words and numbers in and out: the SavedModel, the frozen graph, what goes in, what has to come out."""
    keras = keras3()
    text = keras.Input((1,), dtype="string", name="text")
    ids = keras.Input((2,), dtype="int64", name="ids")
    outputs = [
        keras.layers.TextVectorization(vocabulary=VOCABULARY, output_sequence_length=4, name="vec")(text),
        keras.layers.StringLookup(vocabulary=VOCABULARY, invert=True, name="inverse")(ids),
        keras.layers.IntegerLookup(vocabulary=[3, 5], name="numbers")(ids),
    ]
    model = keras.Model([text, ids], outputs)
    inputs = [np.array([[b"The cat, sat!  on"], ["Über   a cat".encode()]], object), np.array([[1, 3], [5, 9]])]
    folder = tmp_path_factory.mktemp("lookups")
    paths = {"saved-model": str(folder / "1"), "frozen-graph": str(folder / "frozen.pb")}
    graph = lowered(model)
    for kind, path in paths.items():
        modelio.convert(graph, path, to=kind)
    return paths, graph.signatures["serving_default"], inputs, answers(model, inputs)


def equal(got, wanted):
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_tables_in_tensorflow_2(lookups):
    """Twice: TensorFlow keeps tables of one name in one place for all models of a process."""
    paths, signature, inputs, wanted = lookups
    for _ in range(2):
        found = clients.tensorflow2(paths["saved-model"], dict(zip(signature.inputs, inputs, strict=True)))
        equal([found[key] for key in signature.outputs], wanted)


def test_tables_in_tfsmlayer(lookups):
    paths, signature, inputs, wanted = lookups
    found = clients.keras_layer(paths["saved-model"], dict(zip(signature.inputs, inputs, strict=True)))
    equal([found[key] for key in signature.outputs], wanted)


def ends(signature, inputs):
    feeds = {spec.tensor: value for spec, value in zip(signature.inputs.values(), inputs, strict=True)}
    return feeds, [spec.tensor for spec in signature.outputs.values()]


def test_tables_in_the_c_api_loader(lookups):
    """That of TensorFlow Serving."""
    paths, signature, inputs, wanted = lookups
    equal(clients.c_api(paths["saved-model"], *ends(signature, inputs)), wanted)


def test_tables_in_the_loader_of_tensorflow_1(lookups):
    paths, signature, inputs, wanted = lookups
    equal(clients.session(paths["saved-model"], *ends(signature, inputs)), wanted)


def test_tables_in_a_frozen_graph(lookups):
    """It has nobody who fills them: its first request does."""
    paths, signature, inputs, wanted = lookups
    with open(paths["frozen-graph"], "rb") as file:
        equal(clients.frozen(file.read(), *ends(signature, inputs)), wanted)


@pytest.mark.slow
def test_tables_in_tensorflow_1(lookups, tensorflow1, tmp_path):
    paths, signature, inputs, wanted = lookups
    feeds, fetches = ends(signature, inputs)
    jobs = [{"kind": kind, "path": path, "feeds": feeds, "fetches": fetches} for kind, path in paths.items()]
    for found in clients.tensorflow1(tensorflow1, tmp_path, jobs):
        equal(found, wanted)


# -- the builder -------------------------------------------------------------------------------------------------------


def strings(*words: bytes) -> np.ndarray:
    array = np.empty(len(words), object)
    array[:] = words
    return array


def test_tables_of_one_content_are_one():
    g = Builder()
    first = g.table("a", strings(b"x"), np.array([1]))
    assert g.table("b", strings(b"x"), np.array([1])) is first
    assert g.table("c", strings(b"x"), np.array([2])) is not first
    shared = [node.attr["shared_name"].s for node in g.graph.node if node.op == "HashTableV2"]
    assert len(set(shared)) == 2


def test_a_graph_without_tables_has_no_initializer():
    graph = graph_of("3.15.0", "Dense", {"units": 2, "use_bias": False}, [(3,)], [np.ones((3, 2), np.float32)])
    assert MAIN_OP not in graph.extra
    assert initializer_of(graph) is None


def test_the_initializer_is_named():
    graph = graph_of("3.15.0", "StringLookup", {"vocabulary": ["a"]}, [(1,)], dtype="string")
    assert initializer_of(graph) == "init_all_tables"
    (node,) = [node for node in graph.graph.node if node.name == "init_all_tables"]
    assert list(node.input) == ["^layer/vocabulary/initializer"]
