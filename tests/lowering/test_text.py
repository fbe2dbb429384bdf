"""TextVectorization: text to numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modelio
from modelio.errors import ConversionError
from tests import clients
from tests.corpus import cases, golden
from tests.lowering.harness import assert_same, frameworks
from tests.lowering.written import graph_of, runs_on

VOCABULARY = ["the", "cat", "sat", "über", "the cat", "cat sat"]
TEXTS = np.array([[b"The cat, sat!  on"], ["Über   a cat \t sat the the".encode()], [b""], [b"  "]], object)
WORDS = np.array([[b"the", b"dog", b"The!"], [b"cat", "über".encode(), b"cat"], [b"", b"[UNK]", b"sat"]], object)

MODES = ("int", "multi_hot", "count")


@frameworks()
@pytest.mark.parametrize("ngrams", [None, 2, (2,), (1, 3)])
@pytest.mark.parametrize("mode", MODES)
def test_words(keras, mode, ngrams):
    graph = assert_same(keras.layers.TextVectorization(vocabulary=VOCABULARY, output_mode=mode, ngrams=ngrams), TEXTS)
    assert runs_on(graph) <= (1, 15, 5)


@frameworks()
@pytest.mark.parametrize("ngrams", [None, 2])
@pytest.mark.parametrize("mode", MODES)
def test_characters(keras, mode, ngrams):
    layer = keras.layers.TextVectorization(
        vocabulary=["a", "ü", "t", "t h"], split="character", output_mode=mode, standardize="lower", ngrams=ngrams
    )
    graph = assert_same(layer, TEXTS)
    assert runs_on(graph) <= (1, 15, 5)


@frameworks()
@pytest.mark.parametrize("ngrams", [None, 2, (1, 2)])
@pytest.mark.parametrize("mode", MODES)
def test_text_that_is_not_split(keras, mode, ngrams):
    layer = keras.layers.TextVectorization(vocabulary=VOCABULARY, split=None, output_mode=mode, ngrams=ngrams)
    assert_same(layer, WORDS)
    if ngrams is None:
        assert_same(layer, WORDS, shapes=[(None,)])


@frameworks()
@pytest.mark.parametrize("standardize", [None, "lower", "strip_punctuation", "lower_and_strip_punctuation"])
def test_standardize(keras, standardize):
    every = "".join(map(chr, range(33, 127)))
    texts = np.array([[b"Cat! cat"], [every.encode()], [b"c-a-t 'sat' [cat]"]], object)
    assert_same(keras.layers.TextVectorization(vocabulary=[*VOCABULARY, every], standardize=standardize), texts)


@frameworks()
@pytest.mark.parametrize("split", ["whitespace", "character", None])
@pytest.mark.parametrize("length", [1, 2, 8])
def test_output_sequence_length(keras, length, split):
    layer = keras.layers.TextVectorization(vocabulary=VOCABULARY, output_sequence_length=length, split=split)
    texts = WORDS if split is None else TEXTS
    graph = assert_same(layer, texts)
    (output,) = graph.signatures["serving_default"].outputs.values()
    assert output.shape == (None, length)


@frameworks()
def test_output_sequence_length_of_unknown_width(keras):
    layer = keras.layers.TextVectorization(vocabulary=VOCABULARY, output_sequence_length=5, split=None)
    assert_same(layer, WORDS, shapes=[(None,)])


@frameworks()
def test_text_without_an_axis_of_its_own(keras):
    assert_same(keras.layers.TextVectorization(vocabulary=VOCABULARY), TEXTS[:, 0], shapes=[()])


@frameworks()
@pytest.mark.parametrize("mode", ["multi_hot", "tf_idf"])
def test_vectors_of_a_told_length(keras, mode):
    weights = {"idf_weights": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]} if mode == "tf_idf" else {}
    for more in ({}, {"max_tokens": 12, "pad_to_max_tokens": True}):
        layer = keras.layers.TextVectorization(vocabulary=VOCABULARY, output_mode=mode, **weights, **more)
        assert_same(layer, TEXTS, weights="own")


@frameworks()
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_text(keras, data):
    """Any characters, spaces of any kind among them: the same tokens in the same places."""
    characters = st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")
    text = st.text(st.one_of(characters, st.sampled_from("aA bB.\t\n\u00a0\u3000é")), max_size=12)
    texts = data.draw(st.lists(text, min_size=1, max_size=4))
    words = sorted({word for one in texts for word in one.lower().split()} | {"a"})
    layer = keras.layers.TextVectorization(
        vocabulary=words[: data.draw(st.integers(1, len(words)))],
        split=data.draw(st.sampled_from(["whitespace", "character"])),
        output_mode=data.draw(st.sampled_from(MODES)),
        ngrams=data.draw(st.sampled_from([None, 2])),
    )
    assert_same(layer, np.array([[one.encode()] for one in texts], object))


@frameworks()
def test_bytes_that_are_no_utf8(keras):
    layer = keras.layers.TextVectorization(vocabulary=["a", "\ufffd"], split="character", standardize=None)
    assert_same(layer, np.array([[b"a\xff\xfea"], [b"\xc3"]], object))


@frameworks()
def test_text_to_scores(keras):
    """The usual model: tokens, embedded, averaged, weighed."""
    text = keras.Input((1,), dtype="string")
    y = keras.layers.TextVectorization(vocabulary=VOCABULARY, output_mode="count")(text)
    assert_same(keras.Model(text, keras.layers.Dense(2)(y)), TEXTS)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"ragged": True}, "ragged=True.*fills them with zeros"),
        ({"sparse": True, "output_mode": "count"}, "sparse=True"),
        ({"ngrams": 0}, "ngrams is 0"),
        ({"output_sequence_length": -1}, "output_sequence_length is -1"),
        ({"standardize": {"class_name": "function", "config": "my_own"}}, "standardize is a function of its own"),
        ({"split": "lines"}, "split is a function of its own"),
    ],
)
def test_what_cannot_be(config, told):
    with pytest.raises(ConversionError, match=told):
        graph_of("2.15.0", "TextVectorization", {"vocabulary": ["a"], **config}, [(1,)], dtype="string")


def test_numbers_are_no_text():
    with pytest.raises(ConversionError, match="the input is float32"):
        graph_of("2.15.0", "TextVectorization", {"vocabulary": ["a"]}, [(1,)])


# -- real files --------------------------------------------------------------------------------------------------------

REAL = cases(model="textvec", file=("model.keras", "golden.npz"))
"""A vocabulary that was learned, in an archive; HDF5 files do not keep it."""


def ends(case, folder):
    signature = modelio.read(folder).signatures["serving_default"]
    inputs, outputs = golden(case)
    feeds = {spec.tensor: words.astype(object) for spec, words in zip(signature.inputs.values(), inputs, strict=True)}
    return feeds, [spec.tensor for spec in signature.outputs.values()], outputs


@pytest.mark.parametrize("case", REAL, ids=str)
@pytest.mark.parametrize("client", [clients.session, clients.c_api])
def test_real_models_answer_in_loaders(client, case, tmp_path):
    modelio.convert(case / "model.keras", tmp_path / "export", to="saved-model")
    feeds, fetches, outputs = ends(case, tmp_path / "export")
    for one, other in zip(client(str(tmp_path / "export"), feeds, fetches), outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", REAL, ids=str)
@pytest.mark.parametrize("client", [clients.tensorflow2, clients.keras_layer])
def test_real_models_answer_by_key(client, case, tmp_path):
    modelio.convert(case / "model.keras", tmp_path / "export", to="saved-model")
    inputs, outputs = golden(case)
    (answer,) = client(str(tmp_path / "export"), {"text": inputs[0].astype(object)}).values()
    np.testing.assert_allclose(answer, outputs[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", REAL, ids=str)
def test_real_models_answer_frozen(case, tmp_path):
    modelio.convert(case / "model.keras", tmp_path / "export", to="saved-model")
    feeds, fetches, outputs = ends(case, tmp_path / "export")
    data = modelio.convert(case / "model.keras", to="frozen-graph").data
    for one, other in zip(clients.frozen(data, feeds, fetches), outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_real_models_answer_in_tensorflow_1(tensorflow1, tmp_path):
    jobs = []
    for number, case in enumerate(REAL):
        path = str(tmp_path / str(number))
        modelio.convert(case / "model.keras", path, to="saved-model")
        feeds, fetches, _ = ends(case, path)
        jobs.append({"kind": "saved-model", "path": path, "feeds": feeds, "fetches": fetches})
    for case, (answer,) in zip(REAL, clients.tensorflow1(tensorflow1, tmp_path, jobs), strict=True):
        np.testing.assert_allclose(answer, golden(case)[1][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", cases(model="textvec", version="keras-3.*", file="model.h5"), ids=str)
def test_a_real_file_without_its_vocabulary(case):
    """Keras 3 writes it, and says nothing; the words are gone."""
    with pytest.raises(ConversionError, match=r"TextVectorization has no vocabulary.*save the model as \.keras"):
        modelio.convert(case / "model.h5", to="frozen-graph")
