"""What modelio writes loads in TensorFlow 1.15, in a process and a Python of its own, and answers the golden outputs."""

from __future__ import annotations

import pytest

import modelio
from tests import clients
from tests.corpus import golden
from tests.test_convert import KERAS, close, convert, ends, rounding

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["saved-model", "frozen-graph"])
def test_every_model_answers_in_tensorflow_1(kind, tensorflow1, tmp_path):
    """One process for all of them: its start takes longer than any model."""
    jobs = []
    for number, case in enumerate(KERAS):
        path = str(tmp_path / f"{number}") + (".pb" if kind == "frozen-graph" else "")
        convert(case, path, kind)
        signature = ends(case)
        feeds = zip((spec.tensor for spec in signature.inputs.values()), golden(case)[0], strict=True)
        fetches = [spec.tensor for spec in signature.outputs.values()]
        jobs.append({"kind": kind, "path": path, "feeds": dict(feeds), "fetches": fetches})
    for case, answers in zip(KERAS, clients.tensorflow1(tensorflow1, tmp_path, jobs), strict=True):
        try:
            close(answers, golden(case)[1], rounding(case))
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from None


def test_the_learning_phase_bound(tensorflow1, tmp_path):
    """The way out that inspect names: nothing but the declared inputs is fed."""
    from tests.corpus import case

    export = case("hybrid_contrib-keras_tf-1.2.1/learning_phase_missing")
    modelio.convert(export.path, str(tmp_path / "export"), to="saved-model", bind={"learning_phase": False})
    spec = modelio.read(tmp_path / "export").signatures["serving_default"]
    inputs, outputs = golden(export)
    feeds = {spec.inputs["images"].tensor: inputs[0]}
    job = {
        "kind": "saved-model",
        "path": str(tmp_path / "export"),
        "feeds": feeds,
        "fetches": [spec.outputs["scores"].tensor],
    }
    (answers,) = clients.tensorflow1(tensorflow1, tmp_path, [job])
    close(answers, outputs)
