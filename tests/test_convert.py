"""Keras files become servable graphs, and answer what the framework that wrote them answered.

For every model of the corpus whose layers have rules, in every version that wrote it: to a SavedModel and to a frozen
graph, loaded by real clients, compared with the golden outputs. The tolerance is 1e-5 relative to the largest output; no
arithmetic differs, only the order in which a processor adds. In half precision that order shows in the last of eleven
bits, from one version of TensorFlow to the next, and OpenVINO computes in whole precision.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import modelio
from tests import clients
from tests.corpus import MODELS, Case, cases, golden

ROUNDING = {"mixed_dtypes": 1e-3}
"""Models in half precision."""

KERAS = cases(model=(*MODELS, *ROUNDING), file=("model.h5", "golden.npz"))
every = pytest.mark.parametrize("case", KERAS, ids=str)


def rounding(case: Case) -> float:
    """How far off the largest number an answer may be."""
    return ROUNDING.get(case.model, 1e-5)


def close(got: list[np.ndarray], wanted: list[np.ndarray], rtol: float = 1e-5) -> None:
    """Equal within the rounding of the largest number, one by one."""
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * max(1e-30, float(np.abs(other).max())))


def ends(case: Case):
    """The signature that the layers promise, its inputs and outputs in the model's own order, which golden files have."""
    return modelio.inspect(case / "model.h5").signatures["serving_default"]


def convert(case: Case, target, to: str):
    """The conversion, and no other warning than that a trained model's optimizer stays behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".* does not keep (optimizer|training|optimizer, training) of this")
        return modelio.convert(case / "model.h5", target, to=to)


@pytest.fixture
def converted(case: Case, tmp_path):
    """The case as a SavedModel: its folder, the signature in the model's order, and the golden inputs by key."""
    folder = str(tmp_path / "export" / "1")
    convert(case, folder, "saved-model")
    signature = ends(case)
    return folder, signature, dict(zip(signature.inputs, golden(case)[0], strict=True))


@every
def test_saved_model_answers_in_tensorflow_2(case, converted):
    folder, signature, inputs = converted
    answers = clients.tensorflow2(folder, inputs)
    close([answers[key] for key in signature.outputs], golden(case)[1], rounding(case))


@every
def test_saved_model_answers_in_the_c_api_loader(case, converted):
    folder, signature, inputs = converted
    feeds = {spec.tensor: inputs[key] for key, spec in signature.inputs.items()}
    close(
        clients.c_api(folder, feeds, [spec.tensor for spec in signature.outputs.values()]),
        golden(case)[1],
        rounding(case),
    )


@every
def test_saved_model_answers_in_tfsmlayer(case, converted):
    folder, signature, inputs = converted
    answers = clients.keras_layer(folder, inputs)
    close([answers[key] for key in signature.outputs], golden(case)[1], rounding(case))


@every
def test_saved_model_answers_in_openvino(case, converted):
    folder, signature, inputs = converted
    answers = clients.openvino(folder, inputs)
    close([answers[key] for key in signature.outputs], golden(case)[1], rounding(case))


@every
def test_frozen_graph_answers_in_tensorflow(case):
    data = convert(case, None, "frozen-graph").data
    signature, promised = modelio.read(data).signatures["graph"], ends(case)
    inputs, _ = golden(case)
    feeds = {spec.tensor: value for spec, value in zip(promised.inputs.values(), inputs, strict=True)}
    fetches = [spec.tensor for spec in promised.outputs.values()]
    close(clients.frozen(data, feeds, fetches), golden(case)[1], rounding(case))
    assert {spec.tensor for spec in signature.inputs.values()} == set(feeds)
    assert {spec.tensor for spec in signature.outputs.values()} == set(fetches)


@every
def test_the_signature_is_named_after_the_layers(case, converted):
    folder, promised, _ = converted
    described = modelio.inspect(folder).to_dict()
    assert described["tags"] == ["serve"]
    found = described["signatures"]["serving_default"]
    assert found["method"] == "tensorflow/serving/predict"
    assert found["undeclared"] == []
    assert found["unneeded"] == []
    for side, wanted in (("inputs", promised.inputs), ("outputs", promised.outputs)):
        assert {key: spec["tensor"] for key, spec in found[side].items()} == {key: f"{key}:0" for key in wanted}
