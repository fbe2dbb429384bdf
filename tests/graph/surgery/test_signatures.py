"""Signatures that are set, removed and renamed; what their tensors are is told from the graph."""

from __future__ import annotations

import numpy as np
import pytest

import modelio
from modelio.errors import ConversionError
from modelio.graph.builder import Builder
from modelio.graph.surgery.signatures import PREDICT, remove_signature, rename_keys, rename_signature, set_signature
from modelio.model import GraphModel, Signature, TensorSpec
from modelio.wire import messages
from tests import clients
from tests.corpus import case, cases, golden, record
from tests.test_surgery import close

pytestmark = pytest.mark.usefixtures("tensorflow")


def small(**signatures):
    g = Builder()
    x = g.placeholder("x", "float32", (None, 4))
    w = g.variable("w", modelio.Tensor.of(np.ones((4, 3), np.float32)))
    parts = g.node("Split", 1, g.MatMul(x, w, name="product"), num_split=3, name="parts")
    g.Identity(g.node("ConcatV2", parts[:2], 1, name="joined"), name="y")
    g.ArgMax(parts[0], 1, name="best")
    return GraphModel(g.graph, variables=g.variables, signatures=signatures)


def test_dtypes_and_shapes_are_the_graphs():
    model, changes = set_signature(small(), "a", {"numbers": "x"}, {"both": "y:0", "third": "parts:2", "at": "best"})
    assert changes == ["signature a added"]
    assert model.signatures["a"] == Signature(
        {"numbers": TensorSpec("x:0", "float32", (None, 4))},
        {
            "both": TensorSpec("y:0", "float32", (None, 2)),
            "third": TensorSpec("parts:2", "float32", (None, 1)),
            "at": TensorSpec("best:0", "int64", (None,)),
        },
        PREDICT,
    )


def test_what_a_signature_says_of_a_tensor_already_is_believed():
    known = TensorSpec("y:0", "float32", (7, 2))
    model, _ = set_signature(small(old=Signature({}, {"k": known})), "new", {"x": "x:0"}, {"y": "y"})
    assert model.signatures["new"].outputs == {"y": known}
    assert list(model.signatures) == ["old", "new"]


def test_a_signature_is_replaced_with_all_that_it_said():
    model = modelio.read(case("hybrid_contrib-keras_tf-1.2.1/two_signatures").path)
    assert "signature_def/serving_default" in model.extra
    output = model.signatures["serving_default"].outputs["scores"].tensor
    new, changes = set_signature(
        model,
        "serving_default",
        {"x": "images:0", "phase": "net/batch_normalization/keras_learning_phase"},
        {"p": output},
        "tensorflow/serving/classify",
    )
    assert changes == ["signature serving_default replaced"]
    assert "signature_def/serving_default" not in new.extra
    assert new.signatures["predict_images"] == model.signatures["predict_images"]
    again = modelio.read(modelio.write(new, format="saved-model"))
    assert again.signatures == new.signatures
    assert again.signatures["serving_default"].inputs["phase"].dtype == "bool"


@pytest.mark.parametrize("case", cases(file=("frozen.pb", "golden.npz"), model=("cnn", "multi_io", "convzoo")), ids=str)
def test_shapes_that_are_followed_are_those_that_the_graph_has(case):
    """No size is said that the real answer does not have."""
    model = modelio.read(case / "frozen.pb")
    noted = record(case)
    outputs = golden(case)[1]
    phase = {f"in{i}": name for i, name in enumerate([*model.signatures["graph"].inputs])}
    model = GraphModel(model.graph, constants=model.constants)
    made, _ = set_signature(model, "s", phase, {f"out{i}": name for i, name in enumerate(noted["frozen_outputs"])})
    for i, array in enumerate(outputs):
        spec = made.signatures["s"].outputs[f"out{i}"]
        assert spec.dtype == array.dtype.name
        assert spec.shape is None or len(spec.shape) == array.ndim
        assert all(size in (None, real) for size, real in zip(spec.shape or (), array.shape, strict=False))


def test_a_loop_has_no_shape_that_is_followed_for_ever():
    model = modelio.read(case("keras-2.0.5_tf-1.2.1/rnn") / "frozen.pb")
    spec = model.signatures["graph"]
    made, _ = set_signature(model, "s", dict.fromkeys(spec.inputs, "tokens"), {key: key for key in spec.outputs})
    assert set(made.signatures) == {"graph", "s"}


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "said"),
    [
        ("s", {"x": "z"}, {"y": "y"}, "the graph has no node 'z'"),
        ("s", {"x": "x"}, {"y": "joind"}, "the graph has no node 'joind'; there are 'joined'"),
        ("s", {"x": "x"}, {"y": "parts:3"}, "'parts:3' is no output of the node parts, which has 3"),
        ("s", {"x": "x"}, {"y": "y:zero"}, "no tensor's name"),
        ("s", {"x": "x"}, {"y": "^y"}, "is no output of the node"),
        ("s", {"x": "x"}, {}, "a signature without outputs answers nothing"),
        ("s", {}, {"y": "y"}, "need the placeholder 'x', which is none of its inputs"),
        ("s", {"a": "x", "b": "x:0"}, {"y": "y"}, "two inputs of the signature 's' are the same tensor"),
        ("", {"x": "x"}, {"y": "y"}, "'' is no name for a signature"),
        ("__saved_model_init_op", {"x": "x"}, {"y": "y"}, "is no name for a signature"),
    ],
)
def test_signatures_that_cannot_be(name, inputs, outputs, said):
    with pytest.raises(ConversionError) as caught:
        set_signature(small(), name, inputs, outputs)
    assert said in str(caught.value)


def test_remove():
    model = modelio.read(case("hybrid_contrib-keras_tf-1.2.1/two_signatures").path)
    left, changes = remove_signature(model, "predict_images")
    assert list(left.signatures) == ["serving_default"]
    assert changes == ["signature predict_images removed"]
    assert list(modelio.read(modelio.write(left, format="saved-model")).signatures) == ["serving_default"]
    with pytest.raises(ConversionError, match="no signature is called 'predict'"):
        remove_signature(model, "predict")


def test_rename():
    model = modelio.read(case("hybrid_contrib-keras_tf-1.2.1/two_signatures").path)
    renamed, changes = rename_signature(model, "predict_images", "probabilities")
    assert changes == ["signature predict_images renamed to probabilities"]
    assert renamed.extra["signature_def/probabilities"] == model.extra["signature_def/predict_images"]
    again = modelio.read(modelio.write(renamed, format="saved-model"))
    assert again.signatures["probabilities"] == model.signatures["predict_images"]
    with pytest.raises(ConversionError, match="there is a signature 'serving_default' already"):
        rename_signature(model, "predict_images", "serving_default")
    with pytest.raises(ConversionError, match="no signature is called"):
        rename_signature(model, "other", "x")


def test_keys():
    model = modelio.read(case("hybrid_contrib-keras_tf-1.2.1/two_signatures").path)
    renamed, changes = rename_keys(model, {"images": "x"})
    assert all("x" in signature.inputs for signature in renamed.signatures.values())
    assert len(changes) == 2
    one, _ = rename_keys(model, {"images": "x"}, signature="serving_default")
    assert "images" in one.signatures["predict_images"].inputs
    again = modelio.read(modelio.write(renamed, format="saved-model"))
    assert again.signatures == renamed.signatures
    with pytest.raises(ConversionError, match="no input and no output has the key 'image'; there is 'images'"):
        rename_keys(model, {"image": "x"})
    with pytest.raises(ConversionError, match="no signature is called"):
        rename_keys(model, {"images": "x"}, signature="other")


def test_a_key_that_is_taken():
    y = TensorSpec("y:0", "float32", None)
    with pytest.raises(ConversionError, match="would have the key 'b' twice"):
        rename_keys(small(s=Signature({}, {"a": y, "b": y})), {"a": "b"})
    swapped, _ = rename_keys(
        small(s=Signature({}, {"a": y, "b": TensorSpec("best:0", "int64", None)})), {"a": "b", "b": "a"}
    )
    assert swapped.signatures["s"].outputs["b"] == y


def test_a_frozen_graph_gets_a_signature_and_is_served(tmp_path):
    source = case("keras-2.0.5_tf-1.2.1/mlp")
    noted = record(source)
    modelio.convert(
        source / "frozen.pb",
        str(tmp_path / "export"),
        to="saved-model",
        bind={"learning_phase": False},
        signatures={
            "graph": None,
            "serving_default": {
                "inputs": {"image": noted["frozen_inputs"][0]},
                "outputs": {"scores": noted["frozen_outputs"][0]},
            },
        },
    )
    inputs, outputs = golden(source)
    close([clients.tensorflow2(str(tmp_path / "export"), {"image": inputs[0]})["scores"]], outputs)
    report = modelio.inspect(tmp_path / "export")
    assert list(report.signatures) == ["serving_default"]


def test_a_tensorflow_2_export_is_asked_by_its_new_keys(tmp_path):
    """Its objects would still say the old ones."""
    source = case("extra_tf-2.4.4/multi_signature")
    conversion = modelio.convert(
        source.path, str(tmp_path / "a"), to="saved-model", rename_keys={"features": "x"}, signatures={"loop": None}
    )
    assert any("Python objects removed" in change for change in conversion.changes)
    model = modelio.read(tmp_path / "a")
    assert "loop" not in model.signatures
    spec = model.signatures["serving_default"].inputs["x"]
    arrays = np.ones([size or 2 for size in spec.shape], spec.dtype)
    wanted = clients.tensorflow2(str(source.path), {"features": arrays})
    got = clients.tensorflow2(str(tmp_path / "a"), {"x": arrays})
    assert {key: value.tolist() for key, value in got.items()} == {key: value.tolist() for key, value in wanted.items()}


def test_a_hostile_graph_has_no_shapes():
    """A rule that stumbles says nothing."""
    g = Builder()
    g.node("Reshape", g.placeholder("x", "float32", (4,)), [2, 2], name="y")
    g.graph.node[1].attr["value"].tensor.CopyFrom(messages.TensorProto(dtype=3, tensor_content=b"123"))
    made, _ = set_signature(GraphModel(g.graph), "s", {"x": "x"}, {"y": "y"})
    assert made.signatures["s"].outputs["y"].dtype == "float32"
