"""What a graph of ours remembers of its layers: enough to have them back to the bit."""

from __future__ import annotations

import json

import numpy as np
import pytest

import modelio
from modelio.errors import ReadError
from modelio.layers.binding import bind
from modelio.layers.network import network_of
from modelio.layers.notes import NOTES, model_of, notes_of
from modelio.model import LayerModel, Tensor
from modelio.source import Source
from tests.corpus import Case, cases


def lowered(model: LayerModel, without: tuple[str, ...] = ()) -> tuple[dict[str, bytes], dict[str, Tensor]]:
    """The notes of a model, and the variables of its graph: a variable for each role of each layer."""
    assert model.architecture is not None
    network = bind(network_of(model.architecture, model.dialect, model.meta), model)
    variables = {
        f"{layer.path}/{role}": tensor
        for layer in network.walk()
        for role, tensor in layer.weights.items()
        if role not in without
    }
    notes = notes_of(model, network, variables)
    # What a file gives back are other tensors of the same numbers.
    return notes, {name: Tensor.of(tensor.numpy()) for name, tensor in variables.items()}


def assert_same(found: LayerModel | None, model: LayerModel) -> None:
    assert found is not None
    assert found.architecture == model.architecture
    assert json.dumps(found.architecture) == json.dumps(model.architecture)  # key for key
    assert (found.dialect, found.training, dict(found.meta)) == (model.dialect, model.training, dict(model.meta))
    assert {layer: list(group) for layer, group in found.weights.items()} == {
        layer: list(group) for layer, group in model.weights.items()
    }
    assert list(found.weights) == list(model.weights)
    for layer, group in model.weights.items():
        for name, tensor in group.items():
            mine = found.weights[layer][name]
            assert (mine.dtype, mine.shape) == (tensor.dtype, tensor.shape), name
            assert mine.numpy().tobytes() == tensor.numpy().tobytes(), name


@pytest.mark.parametrize("case", cases(file="model.h5"))
def test_every_model_comes_back_to_the_bit(case: Case) -> None:
    try:
        model = modelio.read(case / "model.h5")
    except ReadError:
        pytest.skip("its framework stopped half-way")
    assert isinstance(model, LayerModel)
    notes, variables = lowered(model)
    assert_same(model_of(notes, variables), model)


@pytest.mark.parametrize(
    ("class_name", "config", "shapes"),
    [
        # Keras 1 has a matrix a gate, and Theano's kernels are turned: numbers that lie in another order in the graph.
        ("LSTM", {"output_dim": 2}, [(3, 2), (2, 2), (2,)] * 4),
        ("GRU", {"output_dim": 2}, [(3, 2), (2, 2), (2,)] * 3),
        ("Convolution2D", {"nb_filter": 4, "nb_row": 2, "nb_col": 3, "dim_ordering": "th"}, [(4, 3, 2, 3), (4,)]),
    ],
)
@pytest.mark.parametrize("backend", ["tensorflow", "theano"])
def test_weights_that_lie_otherwise_in_the_graph_come_back_to_the_bit(class_name, config, shapes, backend) -> None:
    model = made(
        class_name, config, [None, 3, 5, 5] if class_name == "Convolution2D" else [None, 4, 3], shapes, "1.2.2"
    )
    model.meta = {**model.meta, "backend": backend}
    notes, variables = lowered(model)
    assert_same(model_of(notes, variables), model)


@pytest.mark.parametrize(
    ("class_name", "config", "shapes", "version"),
    [
        # Keras 0 has deviations, the graph variances; cuDNN has two biases, the graph their sum.
        ("BatchNormalization", {"mode": 0, "epsilon": 1e-6}, [(3,)] * 4, "0.3.3"),
        ("CuDNNLSTM", {"units": 2}, [(3, 8), (2, 8), (16,)], "2.2.4"),
        ("CuDNNGRU", {"units": 2}, [(3, 6), (2, 6), (12,)], "2.2.4"),
    ],
)
def test_vectors_that_the_graph_has_computed_with_come_back_to_the_bit(class_name, config, shapes, version) -> None:
    model = made(class_name, config, [None, 4, 3], shapes, version)
    notes, variables = lowered(model)
    assert_same(model_of(notes, variables), model)


def made(class_name: str, config: dict, shape: list, shapes: list[tuple[int, ...]], version: str) -> LayerModel:
    """A model of one layer, with weights of these shapes."""
    numbers = np.random.default_rng(0)
    node = {"class_name": class_name, "config": {"name": "it", "batch_input_shape": shape, **config}}
    return LayerModel.from_json(
        {"class_name": "Sequential", "config": [node], "keras_version": version},
        [numbers.uniform(0.1, 1, size=one).astype("float32") for one in shapes],
    )


def test_what_inference_does_not_use_is_in_the_notes() -> None:
    model = made("Dense", {"units": 2}, [None, 3], [(3, 2), (2,)], "2.2.4")
    notes, variables = lowered(model, without=("bias",))
    assert_same(model_of(notes, variables), model)


def test_a_weight_that_was_too_large_for_the_notes_is_missed_by_name() -> None:
    model = made("Dense", {"units": 200}, [None, 300], [(300, 200), (200,)], "2.2.4")
    notes, variables = lowered(model, without=("kernel",))
    assert len(notes[NOTES]) < 10_000
    with pytest.raises(ReadError, match="weights that the graph does not have: it: it/kernel:0"):
        model_of(notes, variables)


def test_no_weight_is_read_where_the_layout_is_the_files() -> None:
    def refuse() -> np.ndarray:
        raise AssertionError("a weight was read")

    node = {"class_name": "Dense", "config": {"name": "it", "units": 2, "batch_input_shape": [None, 3]}}
    weights = {"it": {"k:0": Tensor("float32", (3, 2), refuse), "b:0": Tensor("float32", (2,), refuse)}}
    model = LayerModel({"class_name": "Sequential", "config": [node]}, weights, "keras2")
    network = bind(network_of(model.architecture or {}, "keras2"), model)
    variables = {role: tensor for layer in network.walk() for role, tensor in layer.weights.items()}
    found = model_of(notes_of(model, network, variables), variables)
    assert found is not None
    assert found.weights == model.weights


def test_words_and_files_come_back() -> None:
    words = np.array([b"a", "\u00e9".encode(), b"\xff"], object)
    node = {"class_name": "StringLookup", "config": {"name": "it", "batch_input_shape": [None]}}
    model = LayerModel.from_json({"class_name": "Sequential", "config": [node], "keras_version": "2.15.0"}, [words])
    model.assets = {"it/vocabulary.txt": Source.of(b"a\nb")}
    notes, variables = lowered(model, without=("vocabulary",))
    found = model_of(notes, variables)
    assert found is not None
    assert found.weights["it"]["it/vocabulary:0"].numpy().tolist() == words.tolist()
    assert {path: source.bytes() for path, source in found.assets.items()} == {"it/vocabulary.txt": b"a\nb"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weights": None}, "weights is missing"),
        ({"weights": [["it", [["k", {"dtype": "float32", "shape": [2], "data": "AAAA"}]]]]}, "is no array"),
        ({"weights": [["it", [["k", {"dtype": "nonsense", "shape": [2]}]]]]}, "is no array"),
        ({"weights": [["it", [["k", 7]]]]}, "is no array"),
        ({"dialect": "keras9"}, "dialect is missing"),
        ({"architecture": []}, "architecture is missing"),
        ({"meta": None}, "meta is missing"),
    ],
)
def test_damaged_notes_are_refused(change, reason) -> None:
    notes = {"modelio": 2, "dialect": "keras2", "meta": {}, "architecture": {}, "weights": [], "roles": {}, **change}
    with pytest.raises(ReadError, match=reason) as caught:
        model_of({NOTES: json.dumps(notes).encode()}, {})
    assert (caught.value.where or "").startswith(NOTES)


def test_notes_of_another_version_are_no_notes() -> None:
    assert model_of({NOTES: b'{"modelio": 99}'}, {}) is None
    assert model_of({}, {}) is None
