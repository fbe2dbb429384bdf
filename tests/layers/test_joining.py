"""A weights file and an architecture become the model that Keras would have loaded."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import modelio
from modelio.layers.joining import join
from tests.corpus import cases

BOTH = cases(file=("weights.h5", "architecture.json", "model.h5"))


@pytest.mark.parametrize("case", BOTH, ids=str)
def test_weights_join_their_architecture(case):
    joined, changes = join(modelio.read(case / "weights.h5"), modelio.read(case / "architecture.json"))
    whole = modelio.read(case / "model.h5")
    assert changes == []
    assert [a.tobytes() for a in joined.get_weights()] == [a.tobytes() for a in whole.get_weights()]


def digits():
    case = next(case for case in BOTH if case.id == "keras-2.0.5_tf-1.2.1/cnn")
    return modelio.read(case / "weights.h5"), modelio.read(case / "architecture.json")


def test_other_names_are_matched_by_position():
    weights, architecture = digits()
    renamed = replace(weights, weights={f"net_{name}": group for name, group in weights.weights.items()})
    joined, changes = join(renamed, architecture)
    assert "layer dense_1 has the weights of net_dense_1, by position" in changes
    assert [a.tobytes() for a in joined.get_weights()] == [
        t.numpy().tobytes() for group in weights.weights.values() for t in group.values()
    ]


def test_what_does_not_match_is_listed_whole():
    weights, architecture = digits()
    without = {name: group for name, group in weights.weights.items() if name != "dense_2"}
    with pytest.raises(modelio.ReadError, match="missing dense_2"):
        join(replace(weights, weights=without), architecture)
    extra = {**weights.weights, "more": {"k": modelio.Tensor.of(np.zeros(3, "float32"))}}
    with pytest.raises(modelio.ReadError, match="left over more"):
        join(replace(weights, weights=extra), architecture)


def test_shapes_that_do_not_fit_are_listed():
    weights, architecture = digits()
    config = json.loads(json.dumps(architecture.architecture))
    config["config"][-1]["config"]["units"] = 5
    with pytest.raises(modelio.ReadError, match=r"dense_2/kernel has shape \(24, 10\), expected \(24, 5\)"):
        join(weights, replace(architecture, architecture=config))


def test_convert_joins(tmp_path):
    case = next(case for case in BOTH if case.id == "keras-2.0.5_tf-1.2.1/cnn")
    modelio.convert(case / "weights.h5", tmp_path / "m.h5", architecture=case / "architecture.json")
    joined, whole = modelio.read(tmp_path / "m.h5"), modelio.read(case / "model.h5")
    assert joined.architecture == {
        **whole.architecture,
        **{k: joined.architecture[k] for k in ("keras_version", "backend")},
    }
    assert [a.tobytes() for a in joined.get_weights()] == [a.tobytes() for a in whole.get_weights()]
    modelio.convert(case / "weights.h5", tmp_path / "m.pb", architecture=case / "architecture.json")
    assert modelio.identify(tmp_path / "m.pb") == "frozen-graph"


@pytest.mark.parametrize("case", cases(file=("only.weights.h5", "model.keras"), version="keras-3*"), ids=str)
def test_weights_that_are_kept_by_paths_find_their_layers(case):
    whole = modelio.read(case / "model.keras")
    own, _ = join(modelio.read(case / "only.weights.h5"), replace(whole, weights={}))
    assert [a.tobytes() for a in own.get_weights()] == [a.tobytes() for a in whole.get_weights()]
