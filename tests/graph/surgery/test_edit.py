"""Binding and pruning on real models: what is left answers as the whole did, and nothing else is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import modelio
from modelio.errors import ConversionError, ReadError
from modelio.graph.analysis import Graph, required_placeholders, role_of
from modelio.graph.builder import Builder
from modelio.graph.references import OBJECTS, referenced
from modelio.graph.surgery.binding import bind
from modelio.graph.surgery.edit import keep_signature, nearest
from modelio.graph.surgery.pruning import prune
from modelio.model import GraphModel, Signature, TensorSpec
from modelio.wire import messages
from tests import clients
from tests.corpus import case, cases, golden, golden_arrays, record
from tests.test_surgery import close

pytestmark = pytest.mark.usefixtures("tensorflow")

TF1 = cases(file="saved_model_tf1")
FROZEN = cases(file=("frozen.pb", "golden.npz"), version="*_tf-[01].*")
HYBRID = cases(version="hybrid_*", file="saved_model.pb")
EXTRA = case("extra_tf-2.4.4/tf1_is_training")


def phased(model):
    """The learning phase's placeholders."""
    return [node.name for node in model.graph.node if node.op.startswith("Placeholder") and role_of(node)]


def dangling(model):
    """Nodes that something names, and that are not there."""
    there = {node.name for node in model.graph.node}
    named = {text.lstrip("^").partition(":")[0] for node in model.graph.node for text in node.input}
    places = {place.decode().removeprefix("loc:@") for node in model.graph.node for place in node.attr["_class"].list.s}
    return (named | referenced(model.extra) | places) - there


def is_decided(model):
    """No Switch is left but those of while loops."""
    flow = [node for node in model.graph.node if node.op in ("Switch", "RefSwitch", "Merge")]
    loops = {name.partition(":")[0] for node in model.graph.node if node.op == "LoopCond" for name in [node.name]}
    merges = sum(node.op == "Merge" for node in flow)
    back = sum(node.op == "NextIteration" for node in model.graph.node)
    return merges == back and all(node.input[1] in loops for node in flow if node.op != "Merge")


@pytest.mark.parametrize("case", TF1, ids=str)
def test_a_saved_model_needs_no_learning_phase(case, tmp_path):
    model = modelio.read(case / "saved_model_tf1")
    bound, _ = bind(model, {"learning_phase": False})
    assert phased(bound) == [name for name in phased(bound) if name not in phased(model)]
    assert is_decided(bound)
    assert dangling(bound) == set()
    folder = str(tmp_path / "export")
    modelio.write(bound, folder, format="saved-model")
    inputs, outputs = golden(case)
    (signature,) = bound.signatures.values()
    noted = record(case)
    assert {spec.tensor for spec in signature.inputs.values()} == set(noted["frozen_inputs"])
    feeds = dict(zip(noted["frozen_inputs"], inputs, strict=True))
    close(clients.c_api(folder, feeds, noted["frozen_outputs"]), outputs)


@pytest.mark.parametrize("case", HYBRID, ids=str)
def test_a_hybrid_export_needs_no_learning_phase(case, tmp_path):
    model = modelio.read(case.path)
    bound, _ = bind(model, {"learning_phase": False})
    assert is_decided(bound)
    assert dangling(bound) == set()
    folder = str(tmp_path / "export")
    modelio.write(bound, folder, format="saved-model")
    arrays = golden_arrays(case)
    signature = next(iter(bound.signatures.values()))
    feeds = {spec.tensor: arrays["in_0" if key == "images" else "labels"] for key, spec in signature.inputs.items()}
    close(clients.c_api(folder, feeds, [record(case)["probs"]], tuple(model.tags)), [arrays["out_0"]])


@pytest.mark.parametrize("case", FROZEN, ids=str)
def test_a_frozen_graph_needs_no_learning_phase(case):
    model = modelio.read(case / "frozen.pb")
    if not phased(model):
        with pytest.raises(ConversionError, match="no placeholder 'learning_phase' to bind"):
            bind(model, {"learning_phase": False})
        return
    bound, _ = bind(model, {"learning_phase": False})
    assert is_decided(bound)
    assert "learning_phase" not in modelio.inspect(bound).text()
    noted = record(case)
    inputs, outputs = golden(case)
    feeds = dict(zip(noted["frozen_inputs"], inputs, strict=True))
    close(clients.frozen(modelio.write(bound, format="frozen-graph"), feeds, noted["frozen_outputs"]), outputs)


@pytest.mark.parametrize("case", [*TF1[:6], *HYBRID[:2]], ids=str)
def test_what_was_bound_loads_in_every_python_loader(case, tmp_path, tensorflow):
    """They look at the collections, too."""
    path = case / "saved_model_tf1"
    model = modelio.read(path if path.exists() else case.path)
    bound, _ = bind(model, {"learning_phase": False})
    for number, one in enumerate((bound, prune(bound)[0])):
        folder = str(tmp_path / str(number))
        modelio.write(one, folder, format="saved-model")
        (name, *_) = one.signatures
        assert clients.session(folder, {}, [], sorted(one.tags)) == []
        assert name in tensorflow.saved_model.load(folder, tags=sorted(one.tags)).signatures


def test_flags_and_rates_of_other_names():
    model = modelio.read(EXTRA.path)
    x = np.load(EXTRA.root / EXTRA.version / "tf1_golden.npz")
    bound, changes = bind(model, {"is_training": False, "keep_prob": 1.0})
    assert changes[:2] == ["placeholder is_training bound to False", "placeholder keep_prob bound to 1.0"]
    assert not {"If", "StatelessIf"} & {node.op for node in prune(bound)[0].graph.node}
    assert [spec.tensor for spec in bound.signatures["serving_default"].inputs.values()] == ["x:0"]
    spec = bound.signatures["serving_default"].outputs
    data = modelio.convert(bound, to="frozen-graph").data
    (y,) = clients.frozen(data, {"x:0": x["x"]}, [next(iter(spec.values())).tensor])
    close([y], [x["y"]])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"is_trainin": False}, "no placeholder 'is_trainin' to bind; there is 'is_training'"),
        ({"dropout": 1}, "no placeholder 'dropout' to bind"),
        ({"is_training": "maybe"}, "'maybe' is no value for a bool placeholder"),
        ({"is_training": 2}, "2 is no value for a bool placeholder"),
        ({"is_training": [True]}, None),
        ({"is_training": None}, "None is no value for a bool placeholder"),
        ({"keep_prob": "all"}, "'all' is no value for a float32 placeholder"),
        ({"keep_prob": 1j}, "is no value for a float32 placeholder"),
        ({"x": [[1, 2]]}, "a value of shape (1, 2) does not fit the shape (None, 4)"),
        ({"x": [[1, 2, 3, "x"]]}, "is no value for a float32 placeholder"),
        ({"x": [[1, 2], [3]]}, "is no value for a float32 placeholder"),
        ({"labels": [1.5]}, None),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit(values, said):
    model = modelio.read(EXTRA.path)
    if said is None:  # fits, or is a matter of the placeholder's shape
        with pytest.raises(ConversionError) as caught:
            bind(model, values)
        assert caught.value.where in values
        return
    with pytest.raises(ConversionError) as caught:
        bind(model, values)
    assert said in str(caught.value)


@pytest.mark.parametrize(("text", "wanted"), [("0.5", 0.5), ("1", 1.0), ("2e-1", np.float32(0.2)), (3, 3.0)])
def test_numbers_of_text(text, wanted):
    g = Builder()
    g.output("y", g.placeholder("x", "float32", ()))
    model = GraphModel(g.graph, signatures={"graph": Signature({}, {"y": TensorSpec("y:0", "float32", ())})})
    bound, changes = bind(model, {"x:0": text})
    assert clients.frozen(messages.serialize(bound.graph), {}, ["y:0"]) == [wanted]
    assert changes[0] == f"placeholder x bound to {float(wanted)}"


def test_text_is_bound_as_it_is():
    g = Builder()
    g.output("y", g.placeholder("x", "string", ()))
    model = GraphModel(g.graph, signatures={"graph": Signature({}, {"y": TensorSpec("y:0", "string", ())})})
    bound, _ = bind(model, {"x": "false"})
    assert clients.frozen(messages.serialize(bound.graph), {}, ["y:0"]) == [b"false"]
    with pytest.raises(ConversionError, match="7 is no value for a string placeholder"):
        bind(model, {"x": 7})


def test_objects_of_tensorflow_2_do_not_see_a_bound_placeholder_and_go(tmp_path):
    """What is left is loaded from its graph, where TensorFlow 2 sees it, too."""
    model = modelio.read(case("extra_tf-2.4.4/multi_signature").path)
    name, signature = next((name, one) for name, one in model.signatures.items() if "training" in one.inputs)
    node = signature.inputs["training"].tensor.partition(":")[0]
    bound, _ = bind(model, {node: False})
    assert OBJECTS in model.extra
    assert OBJECTS not in bound.extra
    assert set(bound.signatures[name].inputs) == set(signature.inputs) - {"training"}
    done = modelio.convert(model, tmp_path / "bound", to="saved-model", bind={node: False})
    assert "TensorFlow 2's Python objects removed: what is left is a graph as TensorFlow 1 had them" in done.changes


# --------------------------------------------------------------------------------------------------------- prune


@pytest.mark.parametrize("case", TF1, ids=str)
def test_a_pruned_model_answers_the_same(case, tmp_path):
    model = modelio.read(case / "saved_model_tf1")
    noted = record(case)
    outputs = noted["frozen_outputs"]
    pruned, changes = prune(bind(model, {"learning_phase": False})[0], outputs)
    assert len(pruned.graph.node) < len(model.graph.node)
    assert any("nodes removed" in change for change in changes)
    assert set(pruned.variables) <= set(model.variables)
    index = Graph(pruned.graph)
    needed = set()
    for tensor in outputs:
        waiting = [tensor.partition(":")[0]]
        while waiting:
            name = waiting.pop()
            needed |= {name}
            waiting += [source for source, _ in index.inputs(name) if source not in needed]
    assert {node.name for node in pruned.graph.node} - needed <= {
        name.partition(":")[0] for name in noted["frozen_inputs"]
    }
    folder = str(tmp_path / "export")
    modelio.write(pruned, folder, format="saved-model")
    inputs, answers = golden(case)
    close(clients.c_api(folder, dict(zip(noted["frozen_inputs"], inputs, strict=True)), outputs), answers)


def test_inputs_that_no_output_needs_are_no_longer_asked_for():
    model = modelio.read(case("hybrid_contrib-keras_tf-1.2.1/labels_required").path)
    assert set(model.signatures["serving_default"].inputs) == {"images", "labels"}
    pruned, changes = prune(model, ["scores"])
    assert set(pruned.signatures["serving_default"].inputs) == {"images"}
    assert set(pruned.signatures["serving_default"].outputs) == {"scores"}
    assert "input labels of the signature serving_default removed: no output needs it" in changes
    assert "labels" not in {node.name for node in pruned.graph.node}


def test_an_output_that_no_signature_has_gets_one():
    model = modelio.read(case("hybrid_contrib-keras_tf-1.2.1/learning_phase_missing").path)
    inner = next(node.name for node in model.graph.node if node.op == "Relu")
    pruned, _ = prune(model, [inner])
    (signature,) = pruned.signatures.values()
    assert list(signature.outputs) == [inner]
    assert signature.outputs[inner] == TensorSpec(f"{inner}:0", "float32", None)
    assert list(signature.inputs) == ["images"]
    assert signature.method == "tensorflow/serving/predict"


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (["score"], "no node and no output of a signature is called 'score'; there is 'scores'"),
        (["net/dense_2/softmax"], "'net/dense_2/Softmax'"),
        (
            ["net/dense_2/Softmax:1"],
            "'net/dense_2/Softmax:1' is no output of the node net/dense_2/Softmax, which has 1",
        ),
        (["net/dense_2/Softmax:x"], "is no output of the node"),
        ([], "a graph without outputs answers nothing"),
    ],
)
def test_an_output_that_is_not_there(outputs, said):
    model = modelio.read(case("hybrid_contrib-keras_tf-1.2.1/learning_phase_missing").path)
    with pytest.raises(ConversionError) as caught:
        prune(model, outputs)
    assert said in str(caught.value)


def test_a_key_that_several_signatures_have_means_all_of_them():
    model = modelio.read(case("hybrid_contrib-keras_tf-1.2.1/two_signatures").path)
    signatures = dict.fromkeys(("one", "two"), model.signatures["predict_images"])
    key = next(iter(signatures["one"].outputs))
    assert set(prune(replace(model, signatures=signatures), [key])[0].signatures) == {"one", "two"}


def test_a_graph_without_signatures_gets_one_that_says_all_that_must_be_fed():
    model = replace(modelio.read(case("keras-2.0.5_tf-1.2.1/cnn") / "frozen.pb"), signatures={})
    pruned, _ = prune(model, ["dense_2/Softmax"])
    assert set(pruned.signatures) == {"serving_default"}
    assert set(pruned.signatures["serving_default"].inputs) == {"conv2d_1_input", "keras_learning_phase"}


def test_tables_that_an_output_needs_are_still_filled(tmp_path):
    model = modelio.read(case("extra_tf-2.4.4/assets").path)
    pruned, _ = prune(model, [next(iter(model.signatures["serving_default"].outputs))])
    assert list(pruned.signatures) == ["serving_default"]
    folder = str(tmp_path / "export")
    modelio.write(pruned, folder, format="saved-model")
    (key,) = pruned.signatures["serving_default"].inputs
    wanted = clients.tensorflow2(str(case("extra_tf-2.4.4/assets").path), {key: np.array([b"cat", b"?"], object)})
    got = clients.tensorflow2(folder, {key: np.array([b"cat", b"?"], object)})
    assert {name: value.tolist() for name, value in got.items()} == {
        name: value.tolist() for name, value in wanted.items() if name in got
    }


def test_variables_that_no_output_needs_go(tmp_path):
    model = modelio.read(case("extra_tf-2.4.4/assets").path)
    pruned, changes = prune(model, [next(iter(model.signatures["serving_default"].outputs))])
    assert len(pruned.variables) < len(model.variables)
    assert any("variables removed" in change for change in changes)


def test_a_tensorflow_2_export_becomes_one_of_tensorflow_1(tmp_path):
    """What is left of it loads, and answers, without the objects."""
    source = case("extra_tf-2.4.4/multi_signature")
    model = modelio.read(source.path)
    signature = model.signatures["serving_default"]
    pruned, _ = prune(model, list(signature.outputs))
    assert "object_graph_def" not in pruned.extra
    folder = str(tmp_path / "export")
    modelio.write(pruned, folder, format="saved-model")
    arrays = {
        key: np.ones([size or 2 for size in spec.shape or ()], spec.dtype) for key, spec in signature.inputs.items()
    }
    wanted = clients.tensorflow2(str(source.path), arrays)
    got = clients.tensorflow2(folder, arrays)
    assert {key: value.tolist() for key, value in got.items()} == {key: wanted[key].tolist() for key in got}


def test_a_placeholder_that_is_not_declared_is_still_needed():
    model = modelio.read(case("hybrid_contrib-keras_tf-1.2.1/learning_phase_missing").path)
    pruned, _ = prune(model)
    signature = pruned.signatures["serving_default"]
    needed = required_placeholders(Graph(pruned.graph), [spec.tensor for spec in signature.outputs.values()])
    assert any(placeholder.role == "learning_phase" for placeholder in needed.placeholders)


def test_an_input_that_leads_nowhere_is_refused():
    g = Builder()
    g.Neg(g.placeholder("x", "float32", ()), name="y")
    g.graph.node[1].input[:] = ["nowhere"]
    model = GraphModel(g.graph, signatures={"graph": Signature({}, {"y": TensorSpec("y:0", "float32", ())})})
    with pytest.raises(ReadError, match="nowhere"):
        prune(model)


def test_keep_signature():
    model = modelio.read(case("hybrid_contrib-keras_tf-1.2.1/two_signatures").path)
    kept, changes = keep_signature(model, "predict_images")
    assert list(kept.signatures) == ["predict_images"]
    assert changes == ["signature serving_default removed"]
    with pytest.raises(ConversionError, match="no signature is called 'predict_image'; there is 'predict_images'"):
        keep_signature(model, "predict_image")


def test_nearest_says_all_where_there_are_few_and_none_is_like_it():
    assert nearest("zzz", ["a", "b"]) == "; there are 'a', 'b'"
    assert nearest("zzz", []) == "; there is none"
    assert nearest("zzz", [str(number) for number in range(100)]) == ""
