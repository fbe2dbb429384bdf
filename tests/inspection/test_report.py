"""What `inspect` says, of real files whose facts are known from how they were made, and TensorFlow's word on it."""

from __future__ import annotations

import json
import shlex
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import modelio
from modelio.cli import _cli
from modelio.errors import ConversionError, ReadError
from modelio.inspection import render, words
from modelio.inspection.advice import advice
from modelio.inspection.report import report_of
from modelio.model import GraphModel, LayerModel, Signature, Tensor, TensorSpec
from modelio.wire import messages
from tests.corpus import MODELS, case, cases, golden, record

HYBRIDS = ("hybrid_contrib-keras_tf-1.2.1", "hybrid_keras-2.3.1_tf-1.15.5")
OLD, NEW = HYBRIDS
PREDICT = "tensorflow/serving/predict"
PHASE = "net/batch_normalization/keras_learning_phase"  # the old export's: a scope was open
UNDECLARED_PHASE = {"placeholder": PHASE, "dtype": "bool", "shape": None, "role": "learning_phase"}


def signatures(path):
    return modelio.inspect(path).to_dict()["signatures"]


def hybrid(version, model):
    """A case of the whole corpus where there is one, for not all are in tests/data."""
    found = [found for found in cases(version=version, model="*") if found.model == model]
    if not found:
        pytest.skip(f"{version}/{model} is in the whole corpus only")
    return found[0].path


# -- the trap of summer 2017 -------------------------------------------------------------------------------------------


def test_the_learning_phase_that_no_signature_declares():
    assert modelio.inspect(case(f"{OLD}/learning_phase_missing").path).to_dict()["signatures"] == {
        "serving_default": {
            "method": PREDICT,
            "inputs": {"images": {"tensor": "images:0", "dtype": "float32", "shape": [None, 64]}},
            "outputs": {"scores": {"tensor": "net/dense_2/Softmax:0", "dtype": "float32", "shape": [None, 10]}},
            "required": ["images", PHASE],
            "optional": [],
            "undeclared": [UNDECLARED_PHASE],
            "unneeded": [],
        }
    }


def test_the_text_names_the_consequence_and_the_way_out():
    text = " ".join(str(modelio.inspect(case(f"{OLD}/learning_phase_missing").path)).split())
    assert f"`serving_default` needs the placeholder `{PHASE}` (bool), which its signature does not declare" in text
    assert f"every request fails with \"You must feed a value for placeholder tensor '{PHASE}'\"" in text
    assert "modelio convert SOURCE TARGET --bind learning_phase=false" in text


def test_the_trap_is_on_the_first_screen():
    for export in cases(version=OLD, file="saved_model.pb"):
        if export.model != "learning_phase_declared":
            lines = str(modelio.inspect(export.path)).splitlines()
            assert any(line.startswith("TRAP") and "serving_default" in line for line in lines[:5]), export


def test_with_a_default_the_learning_phase_is_harmless():
    report = modelio.inspect(case(f"{NEW}/learning_phase_missing").path)
    (signature,) = report.to_dict()["signatures"].values()
    assert signature["required"] == ["images"]
    assert signature["optional"] == ["keras_learning_phase"]
    assert signature["undeclared"] == []
    assert "TRAP" not in str(report)
    assert "may be fed, False by default" in str(report)


def test_two_signatures_share_the_trap_and_are_told_once():
    report = modelio.inspect(case(f"{OLD}/two_signatures").path)
    assert set(report.signatures) == {"serving_default", "predict_images"}
    for signature in report.to_dict()["signatures"].values():
        assert signature["undeclared"] == [UNDECLARED_PHASE]
    assert str(report).count("TRAP") == 1
    assert "`predict_images` and `serving_default` need the placeholder" in str(report)


@pytest.mark.parametrize(("version", "kind"), [(OLD, "required"), (NEW, "optional")])
def test_a_declared_learning_phase(version, kind):
    (signature,) = signatures(hybrid(version, "learning_phase_declared")).values()
    (phase,) = [spec["tensor"].partition(":")[0] for key, spec in signature["inputs"].items() if "phase" in key]
    assert phase in signature[kind]
    assert signature["undeclared"] == []
    assert signature["unneeded"] == []


@pytest.mark.parametrize("version", HYBRIDS)
def test_labels_are_asked_for_by_the_accuracy_alone(version):
    report = modelio.inspect(hybrid(version, "labels_required"))
    signature = report.signatures["serving_default"]
    assert {"images", "labels"} <= set(signature.required)
    assert signature.unneeded == ()
    assert signature.wanted_by["labels"] == ("accuracy",)
    assert set(signature.wanted_by["images"]) == {"accuracy", "scores"}
    assert "`labels` is asked for by the output `accuracy` alone" in str(report)


@pytest.mark.parametrize("version", HYBRIDS)
def test_a_tag_that_nobody_looks_for(version):
    report = modelio.inspect(hybrid(version, "wrong_tag"))
    assert report.tags == {"production"}
    assert "TRAP  The graph is tagged `production`: TensorFlow Serving looks for what is tagged `serve`" in str(report)


@pytest.mark.parametrize("version", HYBRIDS)
def test_a_method_that_nobody_answers_to(version):
    report = modelio.inspect(hybrid(version, "wrong_method"))
    assert report.signatures["serving_default"].method == "predict"
    assert "TRAP  `serving_default` has the method name `predict`" in str(report)


# -- other graphs ------------------------------------------------------------------------------------------------------


def test_switches_of_ones_own_making():
    report = modelio.inspect(case("extra_tf-2.4.4/tf1_is_training").path)
    (signature,) = report.to_dict()["signatures"].values()
    assert signature["required"] == ["x", "is_training"]
    assert signature["optional"] == ["keep_prob"]
    assert signature["undeclared"] == [{"placeholder": "is_training", "dtype": "bool", "shape": [], "role": None}]
    assert "--bind is_training=false" in str(report)


def test_a_training_graph():
    report = modelio.inspect(case("extra_tf-2.4.4/tf1_training_graph").path)
    (signature,) = report.signatures.values()
    assert set(signature.required) == {"x", "is_training", "labels"}
    assert signature.wanted_by["labels"] == ("loss",)
    assert "TRAP" not in str(report)


def test_signatures_of_functions_and_loops():
    found = signatures(case("extra_tf-2.21.0/multi_signature").path)
    required = {name: set(signature["required"]) for name, signature in found.items()}
    assert required == {
        "serving_default": {"serving_default_features"},
        "evaluate": {"evaluate_features", "evaluate_labels"},
        "loop": {"loop_n", "loop_training"},
    }
    assert all(not signature[key] for signature in found.values() for key in ("undeclared", "optional", "unneeded"))


def test_a_model_that_cannot_be_asked():
    report = modelio.inspect(case("extra_tf-2.4.4/no_signatures").path)
    assert report.to_dict()["signatures"] == {}
    assert "There is no signature: TensorFlow Serving has nothing to serve" in str(report)


def test_a_table_is_no_input():
    report = modelio.inspect(case("extra_tf-2.4.4/assets").path)
    assert report.signatures["serving_default"].required == ("serving_default_word",)
    assert report.signatures["serving_default"].undeclared == ()


@pytest.mark.parametrize("export", cases(file="saved_model_tf1"), ids=str)
def test_exports_of_tensorflow_1(export):
    """The frozen graph beside it was cut to what the outputs need: it holds just the placeholders that must be named."""
    (signature,) = signatures(export / "saved_model_tf1").values()
    assert set(signature["required"]) | set(signature["optional"]) == set(record(export)["frozen_placeholders"])
    with_default = "tf-1.15" in export.version  # TensorFlow 1.8 and later make the learning phase optional
    phases = {name for name in record(export)["frozen_placeholders"] if "learning_phase" in name}
    assert set(signature["optional"]) == (phases if with_default else set())
    assert {item["placeholder"] for item in signature["undeclared"]} == (set() if with_default else phases)
    assert signature["unneeded"] == []


@pytest.mark.parametrize("export", cases(file="saved_model"), ids=str)
def test_exports_of_tensorflow_2(export):
    for signature in signatures(export / "saved_model").values():
        fed = {spec["tensor"].removesuffix(":0") for spec in signature["inputs"].values()}
        assert set(signature["required"]) == fed
        assert not signature["optional"] + signature["undeclared"] + signature["unneeded"]


@pytest.mark.parametrize("export", cases(file="frozen.pb"), ids=str)
def test_frozen_graphs(export):
    report = modelio.inspect(export / "frozen.pb")
    assert report.level == "frozen"
    (name,) = report.signatures
    signature = report.signatures[name]
    facts = record(export)
    assert name == "graph"
    assert {spec.tensor for spec in signature.outputs.values()} == set(facts["frozen_outputs"])
    fed = {tensor.partition(":")[0] for tensor in facts.get("frozen_placeholders", facts["frozen_inputs"])}
    # The tables of a text layer are lost in freezing: their handles are left as placeholders that nothing can feed.
    handles = {name for name, item in signature.placeholders.items() if item.dtype == "resource"}
    assert set(signature.inputs) - handles == fed - handles
    assert handles == {name for name in signature.inputs if name.endswith("table_handle")}
    assert ("no value can be fed here" in " ".join(str(report).split())) == bool(handles)


# (A Normalization has counted its samples, which no graph needs.)
@pytest.mark.parametrize(
    "export", cases(sorted({*MODELS} - {"norm_pre"}), file=("frozen.pb", "weights_list.npz")), ids=str
)
def test_the_weights_of_a_frozen_graph_are_those_of_its_layers(export):
    with np.load(export / "weights_list.npz", allow_pickle=False) as stored:
        expected = sum(stored[name].size for name in stored)
    assert modelio.inspect(export / "frozen.pb").weights.parameters == expected


def test_a_saver_is_never_reported():
    for export in cases(file="saved_model.pb") + cases(file="saved_model_tf1"):
        folder = export / "saved_model_tf1" if (export / "saved_model_tf1").exists() else export.path
        for signature in signatures(folder).values():
            assert not [name for name in signature["required"] + signature["optional"] if "save" in name], export


def test_no_weight_is_read():
    """The same report from a model whose numbers are all gone: their checksums would not hold."""
    folder = case(f"{OLD}/learning_phase_missing").path
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (shard,) = [name for name in files if ".data-" in name]
    blank = {**files, shard: bytes(len(files[shard]))}
    assert modelio.inspect(blank).to_dict() == modelio.inspect(folder).to_dict()


# -- layers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("export", cases(file=("model.h5", "golden.npz")), ids=str)
def test_models_of_layers(export):
    """Inputs and outputs are those of the golden arrays; a shape may be unknown, it is never wrong."""
    report = modelio.inspect(export / "model.h5")
    found = report.to_dict()
    assert (found["level"], found["functions"], found["operations"], found["tags"]) == ("layers", 0, {}, [])
    (signature,) = found["signatures"].values()
    assert list(found["signatures"]) == ["serving_default"]
    assert signature["method"] == PREDICT
    assert signature["required"] == list(signature["inputs"])
    assert signature["optional"] == signature["undeclared"] == signature["unneeded"] == []
    for specs, arrays in zip((signature["inputs"], signature["outputs"]), golden(export), strict=True):
        assert len(specs) == len(arrays)
        for (key, spec), array in zip(specs.items(), arrays, strict=True):
            assert spec["tensor"] == f"{key}:0"
            if spec["shape"] is not None:
                assert len(spec["shape"]) == array.ndim
                assert all(size in (None, length) for size, length in zip(spec["shape"], array.shape, strict=True))
    assert sum(layer["parameters"] for layer in found["layers"]) == found["weights"]["parameters"]


@pytest.mark.parametrize("export", cases(MODELS, file=("model.h5", "weights_list.npz")), ids=str)
def test_shared_weights_count_once(export):
    with np.load(export / "weights_list.npz", allow_pickle=False) as stored:
        sizes = [stored[name].size for name in stored]
    weights = modelio.inspect(export / "model.h5").to_dict()["weights"]
    assert (weights["tensors"], weights["parameters"]) == (len(sizes), sum(sizes))


def test_the_layers_of_a_small_network():
    found = modelio.inspect(case("keras-2.0.5_tf-1.2.1/cnn") / "model.h5").to_dict()
    assert found["meta"]["keras_version"] == "2.0.5"
    assert found["layers"][0] == {
        "name": "conv2d_1",
        "class": "Conv2D",
        "output_shape": [None, 8, 8, 8],
        "parameters": 80,  # 8 filters of 3 x 3 x 1, and 8 biases
    }
    assert [layer["class"] for layer in found["layers"]] == [
        "Conv2D",
        "BatchNormalization",
        "MaxPooling2D",
        "Conv2D",
        "Activation",
        "Dropout",
        "Flatten",
        "Dense",
        "Dense",
    ]


def test_weights_without_an_architecture():
    kernel = Tensor.of(np.zeros((3, 2), "float32"))
    report = report_of(LayerModel(None, {"dense_1": {"kernel:0": kernel}}, "keras2"), format="keras-h5")
    found = report.to_dict(weights=True)
    assert found["signatures"] == {}
    assert found["layers"] == [{"name": "dense_1", "class": None, "output_shape": None, "parameters": 6}]
    assert found["weights"] == {
        "tensors": 1,
        "parameters": 6,
        "bytes": 24,
        "list": [{"name": "dense_1/kernel:0", "dtype": "float32", "shape": [3, 2]}],
    }
    assert "These are weights only" in str(report)


def test_an_architecture_without_weights():
    architecture = json.loads((case("keras-2.0.5_tf-1.2.1/multi_io") / "architecture.json").read_text())
    found = report_of(LayerModel(architecture, {}, "keras2")).to_dict()
    assert found["format"] is None
    assert found["weights"] == {"tensors": 0, "parameters": 0, "bytes": 0}
    assert {layer["parameters"] for layer in found["layers"]} == {None}
    assert list(found["signatures"]["serving_default"]["inputs"]) == ["left", "right"]
    assert list(found["signatures"]["serving_default"]["outputs"]) == ["cls", "reg"]


# -- the schema and the text -------------------------------------------------------------------------------------------

KEYS = ["format", "level", "meta", "tags", "signatures", "weights", "layers", "functions", "operations"]


@pytest.mark.parametrize(
    "path",
    [
        case("keras-2.0.5_tf-1.2.1/cnn") / "model.h5",
        case("keras-2.0.5_tf-1.2.1/cnn") / "frozen.pb",
        case("keras-2.0.5_tf-1.2.1/cnn") / "saved_model_tf1",
        case("tfkeras_tf-2.15.1/nested") / "saved_model",
    ],
    ids=lambda path: path.name,
)
def test_the_schema(path):
    found = modelio.inspect(path).to_dict()
    assert list(found) == KEYS
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for signature in found["signatures"].values():
        assert list(signature) == ["method", "inputs", "outputs", "required", "optional", "undeclared", "unneeded"]
        for spec in [*signature["inputs"].values(), *signature["outputs"].values()]:
            assert list(spec) == ["tensor", "dtype", "shape"]
    assert set(found["weights"]) == {"tensors", "parameters", "bytes"}
    assert (found["layers"] is None) == (found["level"] != "layers")


def test_the_counts_of_a_saved_model():
    found = modelio.inspect(case("extra_tf-2.4.4/multi_signature").path).to_dict()
    saved = messages.SavedModel.FromString((case("extra_tf-2.4.4/multi_signature") / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = len(graph.node) + sum(len(function.node_def) for function in graph.library.function)
    assert found["functions"] == len(graph.library.function)
    assert sum(found["operations"].values()) == nodes
    assert found["meta"]["tensorflow_version"] == "2.4.4"


def test_one_signature_of_several():
    report = modelio.inspect(case("extra_tf-2.4.4/multi_signature").path)
    assert list(report.only("loop").to_dict()["signatures"]) == ["loop"]
    with pytest.raises(
        ConversionError, match=r"no signature is called 'lop'; there are evaluate, loop, serving_default"
    ):
        report.only("lop")


@pytest.mark.parametrize("export", cases(version="hybrid_*", file="saved_model.pb"), ids=str)
def test_the_text_is_a_hundred_columns_wide(export):
    """But for commands, which are there to be copied."""
    lines = str(modelio.inspect(export.path)).splitlines()
    assert max(len(line) for line in lines if not line.lstrip().startswith("modelio ")) <= 100


def test_paint_adds_nothing_but_colour():
    report = modelio.inspect(case(f"{OLD}/learning_phase_missing").path)
    painted = report.text(paint=lambda style, words: f"<{style}>{words}</{style}>")
    for style in render.STYLES:
        painted = painted.replace(f"<{style}>", "").replace(f"</{style}>", "")
    assert painted == report.text()


def fake(placeholder="x", method=PREDICT, **spec):
    """A model of one node with names of one's own."""
    graph = messages.GraphDef()
    graph.versions.producer = 27
    node = graph.node.add(name=placeholder, op="Placeholder")
    node.attr["dtype"].type = 1
    made = graph.node.add(name="y", op="Neg", input=[placeholder])
    made.attr["T"].type = 1
    outputs = {"y": TensorSpec("y:0", "float32", None)}
    return GraphModel(
        graph, signatures={"serving_default": Signature(spec, outputs, method)}, tags=frozenset({"serve"})
    )


def test_names_are_strangers():
    evil = "</td><script>alert(1)</script>\x1b[2J\r\n\u202e`rm`"
    report = report_of(fake(placeholder=evil), format="saved-model", level="graph")
    text, page = str(report), report._repr_html_()
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\u202e" not in text
    assert "\\x1b[2J\\r\\n\\u202e" in text
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert report.to_dict()["signatures"]["serving_default"]["required"] == [evil]  # JSON is for programs
    (command,) = [line for line in text.splitlines() if "--bind" in line]
    assert "--bind '</td><script>alert(1)</script>\\x1b[2J\\r\\n\\u202e`rm`'=VALUE" in command


def test_a_long_name_does_not_flood_the_screen():
    assert len(words.plain("x" * 1_000_000)) < 250


def test_an_input_that_nothing_needs():
    model = fake(x=TensorSpec("x:0", "float32", None), labels=TensorSpec("labels:0", "float32", None))
    model.graph.node.add(name="labels", op="Placeholder").attr["dtype"].type = 1
    report = report_of(model, format="saved-model")
    assert report.signatures["serving_default"].unneeded == ("labels",)
    assert report.signatures["serving_default"].required == ("x",)
    assert "`labels` is declared by `serving_default`, and no output depends on it" in str(report)


def test_two_spellings_of_one_tensor_are_both_needed():
    model = fake(a=TensorSpec("x", "float32", None), b=TensorSpec("x:0", "float32", None))
    assert report_of(model).signatures["serving_default"].unneeded == ()


def test_a_learning_phase_that_is_on_by_default():
    model = fake(x=TensorSpec("x:0", "float32", None))
    graph = model.graph
    on = graph.node.add(name="on", op="Const")
    on.attr["dtype"].type = 10
    on.attr["value"].tensor.dtype = 10
    on.attr["value"].tensor.bool_val.append(True)
    phase = graph.node.add(name="keras_learning_phase", op="PlaceholderWithDefault", input=["on"])
    phase.attr["dtype"].type = 10
    graph.node[1].input.append("^keras_learning_phase")
    report = report_of(model, format="saved-model")
    assert report.signatures["serving_default"].defaults == {"keras_learning_phase": True}
    assert "TRAP  `serving_default` runs in training mode" in str(report)


@pytest.mark.parametrize(
    ("inputs", "outputs", "where"),
    [
        ({"x": "gone:0"}, {"y": "y:0"}, "signature serving_default, input x"),
        ({"x": "x:0"}, {"y": "gone"}, "signature serving_default, output y"),
        ({"x": "x:0"}, {"y": ""}, "signature serving_default, output y"),
        ({"x": "x:0"}, {"y": "y:z"}, "signature serving_default, output y"),
    ],
)
def test_a_signature_that_names_what_is_not_there(inputs, outputs, where):
    model = fake()
    ends = [{key: TensorSpec(name, "float32", None) for key, name in side.items()} for side in (inputs, outputs)]
    model.signatures = {"serving_default": Signature(*ends, PREDICT)}
    with pytest.raises(ReadError, match="is not in the graph") as caught:
        report_of(model)
    assert caught.value.where == where


# -- TensorFlow's own word ---------------------------------------------------------------------------------------------


def _exports():
    found = [(export.id, export.path) for export in cases(version=("hybrid_*", "extra_*"), file="saved_model.pb")]
    found += [(export.id, export / "saved_model_tf1") for export in cases(file="saved_model_tf1")]
    return [pytest.param(path, id=name) for name, path in found]


@pytest.mark.parametrize("folder", _exports())
def test_tensorflow_runs_with_what_is_required_and_fails_with_less(folder, tmp_path):
    tf = pytest.importorskip("tensorflow")
    v1 = tf.compat.v1
    copy = str(_without_noted_shapes(folder, tmp_path / "export"))
    report = modelio.inspect(folder)
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        v1.saved_model.loader.load(session, sorted(report.tags), copy)
        for signature in report.signatures.values():
            fetches = [spec.tensor for spec in signature.outputs.values()]
            values = {f"{name}:0": _zeros(graph.get_tensor_by_name(f"{name}:0")) for name in signature.required}
            session.run(fetches, values)
            for missing in values:
                with pytest.raises(tf.errors.InvalidArgumentError, match="must feed a value for placeholder tensor"):
                    session.run(fetches, {name: value for name, value in values.items() if name != missing})


def _without_noted_shapes(folder, target):
    """A copy that TensorFlow 2 imports: it checks shapes that the writer noted, and TensorFlow 1.15 noted some otherwise."""
    shutil.copytree(folder, target)
    saved = messages.SavedModel.FromString((target / "saved_model.pb").read_bytes())
    for node in saved.meta_graphs[0].graph_def.node:
        node.attr.pop("_output_shapes", None)
    (target / "saved_model.pb").write_bytes(saved.SerializeToString())
    return target


def _zeros(tensor):
    shape = [] if tensor.shape.rank is None else [2 if size is None else size for size in tensor.shape.as_list()]
    return np.full(shape, b"" if tensor.dtype == "string" else 0, tensor.dtype.as_numpy_dtype)


@pytest.mark.parametrize("model", ["wrong_tag", "wrong_method", "labels_required", "learning_phase_missing"])
def test_the_way_out_is_one(model, tmp_path):
    """What is advised can be typed as it is, and then there is nothing left to advise."""
    (one,) = cases(version="hybrid_contrib*", model=model)
    found = [item for item in advice(modelio.inspect(one.path)) if item.command]
    assert found
    command = shlex.split(found[0].command)
    assert command[:4] == ["modelio", "convert", "SOURCE", "TARGET"]
    target = tmp_path / "mended"
    ran = CliRunner().invoke(_cli, ["convert", str(one.path), str(target), *command[4:]])
    assert ran.exit_code == 0, ran.output
    left = [item.sentence for item in advice(modelio.inspect(target))]
    assert found[0].sentence not in left
    assert len(left) < len(advice(modelio.inspect(one.path)))
