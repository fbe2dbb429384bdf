"""JSON text and arrays, as Keras users have them in memory."""

from __future__ import annotations

import json

import numpy as np
import pytest

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.model import LayerModel
from tests.corpus import Case, cases


@pytest.mark.parametrize(
    "case", cases(model=("mlp", "nested", "cnn"), file=("architecture.json", "weights_list.npz")), ids=str
)
def test_from_json_and_back(case: Case) -> None:
    text = (case / "architecture.json").read_text()
    with np.load(case / "weights_list.npz") as stored:
        arrays = {name: stored[name] for name in sorted(stored)}
    for given in (text, text.encode(), json.loads(text), json.dumps(text)):
        model = LayerModel.from_json(given, arrays)
        assert json.loads(model.to_json()) == json.loads(text)
        for ours, theirs in zip(model.get_weights(), arrays.values(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_without_arrays_there_are_no_weights() -> None:
    model = LayerModel.from_json(
        '{"class_name": "Sequential", "config": [], "keras_version": "2.1.0", "backend": "theano"}'
    )
    assert model.weights == {}
    assert model.meta == {"keras_version": "2.1.0", "backend": "theano"}
    assert model.dialect == "keras2"


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("{", ReadError, "not JSON"),
        ("[1, 2]", ReadError, "it holds a list, not an object"),
        ("{}", ReadError, "neither class_name nor layers"),
        ("[" * 100_000, UnsafeInput, "nested"),
    ],
    ids=["no JSON", "no object", "no architecture", "deep"],
)
def test_faults(text: str, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        LayerModel.from_json(text)


def test_weights_alone_have_no_json() -> None:
    model = LayerModel(None, {}, "keras2")
    with pytest.raises(WriteError, match="weights alone"):
        model.to_json()
    with pytest.raises(ReadError, match="weights alone"):
        model.get_weights()


def test_an_archive_lists_its_members_in_any_order():
    """Keras 1.2.2 on Python 2 wrote the corpus' lists by ``numpy.savez(**dict)``, whose order is the dict's."""
    dense = {"class_name": "Dense", "config": {"name": "d", "units": 2, "batch_input_shape": [None, 3]}}
    architecture = {"class_name": "Sequential", "config": [dense], "keras_version": "2.0.5"}
    kernel, bias = np.ones((3, 2), "float32"), np.zeros(2, "float32")
    for names in (("0010", "0009"), ("arr_1", "arr_0")):
        model = LayerModel.from_json(architecture, {names[0]: bias, names[1]: kernel})
        assert [array.shape for array in model.get_weights()] == [(3, 2), (2,)]


def test_weights_given_by_name_are_stored_in_keras_order():
    dense = {"class_name": "Dense", "config": {"name": "d", "units": 2, "batch_input_shape": [None, 3]}}
    architecture = {"class_name": "Sequential", "config": [dense], "keras_version": "2.0.5"}
    arrays = {"d": {"d/bias:0": np.zeros(2, "float32"), "d/kernel:0": np.ones((3, 2), "float32")}}
    assert list(LayerModel.from_json(architecture, arrays).weights["d"]) == ["d/kernel:0", "d/bias:0"]
