"""The question that ``verify`` answers: are these two models the same?"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import modelio
from modelio.inspection.compare import answer, compare
from tests.corpus import MODELS, case, cases

CNN = case("keras-2.0.5_tf-1.2.1/cnn")
pytestmark = pytest.mark.filterwarnings("ignore:saved-model|frozen-graph|keras-json:UserWarning")


def changed(model, by):
    """The model with one number of its last weight moved."""
    *_, layer = (name for name, group in model.weights.items() if group)
    *_, weight = model.weights[layer]
    numbers = model.weights[layer][weight].numpy().copy()
    numbers.flat[0] += by
    weights = {**model.weights, layer: {**model.weights[layer], weight: modelio.Tensor.of(numbers)}}
    return dataclasses.replace(model, weights=weights)


@pytest.mark.parametrize("one", cases(model=MODELS, file="model.h5"), ids=str)
def test_what_was_converted_is_the_same(one):
    """The framework's own file against the graph that is made of it: each weight, each answer."""
    model = modelio.read(one / "model.h5")
    graph = modelio.read(modelio.convert(model, to="saved-model").data)
    comparison = modelio.verify(model, graph)
    assert comparison.equal, str(comparison)
    assert comparison.answers or comparison.skipped


def test_the_same_file():
    comparison = modelio.verify(CNN / "model.h5", CNN / "model.h5")
    assert comparison.equal
    assert comparison.same == sum(len(group) for group in modelio.read(CNN / "model.h5").weights.values())
    assert str(comparison).startswith("equal\n")


def test_one_bit_of_one_weight_is_a_difference():
    model = modelio.read(CNN / "model.h5")
    comparison = modelio.verify(model, changed(model, 1e-6))
    assert not comparison.equal
    assert [(w.first, w.second) for w in comparison.weights] == [("dense_2: dense_2/bias:0",) * 2]
    assert "dense_2: dense_2/bias:0: other numbers" in str(comparison)


def test_between_levels_the_answers_decide():
    model = modelio.read(CNN / "model.h5")
    comparison = modelio.verify(changed(model, 1e-9), modelio.convert(model, to="frozen-graph").data)
    assert comparison.weights
    assert comparison.equal == bool(comparison.answers)
    comparison = modelio.verify(changed(model, 0.5), modelio.convert(model, to="frozen-graph").data)
    assert not comparison.equal


def test_without_answers_the_weights_must_be_the_same():
    model = modelio.read(CNN / "model.h5")
    graph = modelio.read(modelio.convert(model, to="frozen-graph").data)
    assert compare(model, graph).equal
    assert not compare(changed(model, 1e-9), graph).equal
    assert "not compared" in str(compare(model, graph))


def test_other_ends():
    comparison = modelio.verify(CNN / "model.h5", CNN / "frozen.pb")
    assert not comparison.equal
    assert comparison.answers == ()
    assert "keras_learning_phase" in str(comparison)


def test_inputs_of_ones_own(tmp_path):
    pytest.importorskip("tensorflow")
    np.savez(tmp_path / "in.npz", conv2d_1_input=np.zeros((3, 8, 8, 1), "float32"))
    graph = modelio.convert(CNN / "model.h5", to="frozen-graph").data
    assert modelio.verify(CNN / "model.h5", graph, inputs=tmp_path / "in.npz").equal
    with pytest.raises(modelio.ConversionError, match="takes conv2d_1_input"):
        modelio.verify(CNN / "model.h5", graph, inputs={"x": [1]})
    with pytest.raises(modelio.ReadError, match="no zip"):
        modelio.verify(CNN / "model.h5", graph, inputs=b"something else")


def test_the_json_is_json():
    comparison = modelio.verify(CNN / "model.h5", CNN / "frozen.pb")
    said = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert set(said) == {"equal", "weights", "ends", "answers", "skipped"}
    assert said["equal"] is False


NAN = float("nan")


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ([1.0, 100.0], [1.0005, 100.0], True),  # 5e-4 of at most 1e-5 * 100
        ([1.0, 100.0], [1.002, 100.0], False),
        ([NAN, 1.0], [NAN, 1.0], True),
        ([NAN, 1.0], [0.0, 1.0], False),
        ([np.inf], [-np.inf], False),
        ([1.0], [[1.0]], False),
        ([1], [1.0], False),
        ([1, 2], [1, 2], True),
        ([1, 2], [1, 3], False),
        ([True], [False], False),
        ([], [], True),
    ],
)
def test_answers(a, b, equal):
    assert answer("s", "y", np.array(a), np.array(b), 1e-5, 0.0).equal is equal


def test_strings_are_compared_as_strings():
    a, b = (np.array([word], object) for word in (b"one", b"two"))
    assert answer("s", "y", a, a, 0, 0).equal
    assert "1 of 1 values differ" in str(answer("s", "y", a, b, 0, 0))
