"""Freezing: every SavedModel and checkpoint of the corpus, frozen, answers what its own framework answered."""

from __future__ import annotations

import numpy as np
import pytest

from modelio.errors import ConversionError, ReadError
from modelio.graph.surgery.freezing import freeze
from modelio.model import GraphModel, Tensor
from modelio.wire import messages
from modelio.wire.dtypes import numpy_to_tensor
from tests import clients
from tests.corpus import MODELS, cases, golden, record, strays
from tests.graph.surgery.frozen import (
    EXACT,
    both,
    checkpoint,
    close,
    feeds_of,
    hybrid_feeds,
    is_frozen,
    phases,
    read,
    run,
    signature,
    whole,
)

TF2 = cases(file=("saved_model", "golden.npz"))
TF1 = cases(version="*_tf-1.*", file=("saved_model_tf1", "golden.npz"))
HYBRIDS = cases(version="hybrid_*", file="saved_model.pb")


# ------------------------------------------------------------------------------------------- models of the corpus


@both
@pytest.mark.parametrize("case", TF2, ids=str)
def test_exports_of_tensorflow_2(case, inline, tensorflow):
    model, _ = freeze(read(case / "saved_model"), inline=inline)
    assert is_frozen(model)
    close(run(model, feeds_of(model, case)), golden(case)[1], EXACT.get(case.model, 1e-5))


@pytest.mark.parametrize("case", TF1, ids=str)
def test_exports_of_tensorflow_1(case, tensorflow):
    model, _ = freeze(read(case / "saved_model_tf1"))
    assert is_frozen(model)
    close(run(model, feeds_of(model, case)), golden(case)[1])


@pytest.mark.parametrize("case", HYBRIDS, ids=str)
def test_graphs_that_use_layers(case, tensorflow):
    """Every signature, those with an undeclared learning phase too."""
    model, _ = freeze(read(case.path))
    assert is_frozen(model)
    for name, spec in model.signatures.items():
        feeds, arrays = hybrid_feeds(model, case, name)
        answers = dict(zip(spec.outputs, run(model, feeds, name), strict=True))
        close([answers["scores"]], [arrays["out_0"]])


@pytest.mark.parametrize("case", cases(file=("checkpoint_tf1", "golden.npz")), ids=str)
def test_checkpoints_of_keras(case, tensorflow):
    noted = record(case)
    model = checkpoint(case / "checkpoint_tf1", "model.ckpt", noted["frozen_outputs"], noted["frozen_inputs"])
    frozen, _ = freeze(model)
    assert is_frozen(frozen)
    close(run(frozen, feeds_of(frozen, case)), golden(case)[1])


@pytest.mark.parametrize("case", cases(version="hybrid_*", model="checkpoint"), ids=str)
def test_checkpoints_of_graphs_that_use_layers(case, tensorflow):
    model, _ = freeze(checkpoint(case.path, "model.ckpt", [record(case)["probs"]], ["images:0"]))
    arrays = np.load(case.path.parent / "golden.npz")
    feeds = {"images:0": arrays["in_0"]}
    close(run(model, feeds | phases(model, feeds)), [arrays["out_0"]])


@pytest.mark.parametrize("case", cases(version="extra_*", model="ckpt"), ids=str)
def test_a_checkpoint_of_plain_tensorflow(case, tensorflow):
    arrays = np.load(case.path.parent / "tf1_golden.npz")
    model, _ = freeze(checkpoint(case.path, "m.ckpt", ["y:0"], ["x:0"]))
    close(run(model, {"x:0": arrays["x"], "is_training:0": np.array(False)}), [arrays["y"]])


@pytest.mark.parametrize("case", cases(version="extra_*", model="tf1_*"), ids=str)
def test_graphs_with_a_flag_for_training(case, tensorflow):
    """TensorFlow's own frozen graph lies beside them."""
    arrays = np.load(case.path.parent / "tf1_golden.npz")
    model, _ = freeze(read(case.path))
    feeds = {"x:0": arrays["x"], "is_training:0": np.array(False)}
    if case.model == "tf1_training_graph":
        feeds["labels:0"] = np.zeros((3, 4), np.float32)
    answers = dict(zip(model.signatures["serving_default"].outputs, run(model, feeds), strict=True))
    close([answers["y"]], [arrays["y"]])
    theirs = (case.path.parent / "tf1_is_training_frozen.pb").read_bytes()
    close([answers["y"]], clients.frozen(theirs, {"x:0": arrays["x"], "is_training:0": np.array(False)}, ["y:0"]))


FEATURES = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], np.float32)
REQUESTS = {
    ("multi_signature", "serving_default"): {"features": FEATURES},
    ("multi_signature", "evaluate"): {"features": FEATURES, "labels": np.array([1, 0], np.int64)},
    ("multi_signature", "loop"): {"n": np.array(4, np.int32), "training": np.array(False)},
    ("assets", "serving_default"): {"word": np.array([b"b", b"zebra", b"a", b""], object)},
    ("assets", "score"): {"features": FEATURES},
}


@both
@pytest.mark.parametrize("case", cases(version="extra_*", model=("multi_signature", "assets")), ids=str)
def test_modules_with_loops_branches_and_tables(case, inline, tensorflow):
    model, changes = freeze(read(case.path), inline=inline)
    assert is_frozen(model)
    for name, spec in model.signatures.items():
        inputs = REQUESTS[case.model, name]
        wanted = clients.tensorflow2(str(case.path), inputs, name)
        feeds = {end.tensor: inputs[key] for key, end in spec.inputs.items()}
        close(run(model, feeds, name), [wanted[key] for key in spec.outputs])
    assert any("table" in change for change in changes) == (case.model == "assets")
    assert not model.assets


WILD = [stray for stray in strays(kind="SavedModel*") if stray.path.is_dir()]


@pytest.mark.parametrize("stray", WILD, ids=str)
def test_exports_of_other_projects(stray, tensorflow):
    """Against TensorFlow on the SavedModel itself, with inputs made up; what its loader refuses, or answers with an error
    of its own, has nothing to compare.
    """
    try:
        model = read(stray.path)
    except ReadError:
        pytest.skip("refused when it is read")
    kept = {name: spec for name, spec in model.signatures.items() if spec.outputs}
    if not kept:
        pytest.skip("it has no signature")
    tags = sorted(model.tags)
    compared = 0
    for name, spec in kept.items():
        feeds = {end.tensor: made_up(end) for end in spec.inputs.values()}
        fetches = [end.tensor for end in spec.outputs.values()]
        one = GraphModel(**{**vars(model), "signatures": {name: spec}})
        try:
            wanted = clients.session(str(stray.path), feeds, fetches, tags)
        except (tensorflow.errors.OpError, ValueError, OSError, RuntimeError, KeyError, TypeError):
            continue
        frozen, changes = freeze(one)
        if any("no longer assigns" in change for change in changes):
            continue  # whether TensorFlow reads such a variable before or after, nobody has said
        close(run(frozen, feeds, name), wanted)
        compared += 1
    if not compared:
        pytest.skip("TensorFlow answers none of it, or not always the same")


def made_up(spec) -> np.ndarray:
    shape = [2 if size is None else size for size in spec.shape or ()]
    if spec.dtype == "string":
        return np.full(shape, b"", object)
    generator = np.random.default_rng(len(shape))
    return np.asarray(generator.random(shape) * 2).astype("float32" if spec.dtype == "bfloat16" else spec.dtype)


# ------------------------------------------------------------------------------------------------- other clients

PLAIN = [case for case in TF2 if case.model in MODELS]
PICTURES = cases(
    version=("tfkeras_*", "tf_keras-*"), model=("cnn", "separable_mobilenet"), file=("saved_model", "golden.npz")
)
"""OpenCV 5 stops at what TensorFlow froze of the others, too."""


def served(folder) -> GraphModel:
    """With one signature: the ends of a frozen graph are all that these clients see of it."""
    model = read(folder)
    return GraphModel(**{**vars(model), "signatures": {"serving_default": model.signatures["serving_default"]}})


@both
@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_openvino_answers_the_same(case, inline, tmp_path):
    if case.model == "multi_io" and not inline:
        pytest.skip("of a call that ends a graph, OpenVINO sees the first output only")
    pytest.importorskip("openvino")
    model, _ = freeze(served(case / "saved_model"), inline=inline)
    (tmp_path / "frozen.pb").write_bytes(whole(model))
    answers = clients.openvino(str(tmp_path / "frozen.pb"), feeds_of(model, case))
    close([answers[end.tensor] for end in model.signatures["serving_default"].outputs.values()], golden(case)[1], 1e-4)


@pytest.mark.parametrize("case", PICTURES, ids=str)
def test_opencv_answers_the_same(case):
    cv2 = pytest.importorskip("cv2")
    model, _ = freeze(served(case / "saved_model"), inline=True)
    ((picture,), (wanted,)) = golden(case)
    network = cv2.dnn.readNetFromTensorflow(np.frombuffer(whole(model), np.uint8))
    network.setInput(np.ascontiguousarray(picture.transpose(0, 3, 1, 2)))
    close([network.forward().reshape(wanted.shape)], [wanted], 1e-4)


@pytest.mark.slow
def test_tensorflow_1_answers_the_same(tensorflow1, tmp_path):
    jobs, expected = [], []
    for number, case in enumerate(TF1):
        model, _ = freeze(read(case / "saved_model_tf1"))
        (tmp_path / f"{number}.pb").write_bytes(whole(model))
        fetches = [end.tensor for end in model.signatures["serving_default"].outputs.values()]
        job = {"kind": "frozen", "path": str(tmp_path / f"{number}.pb"), "fetches": fetches}
        jobs.append({**job, "feeds": feeds_of(model, case)})
        expected.append(golden(case)[1])
    for got, wanted in zip(clients.tensorflow1(tensorflow1, tmp_path, jobs), expected, strict=True):
        close(got, wanted)


# -------------------------------------------------------------------------------------------- what is left, and not


def test_the_model_that_was_given_is_left_as_it_was():
    (case,) = cases(version="extra_tf-2.21.0", model="multi_signature")
    model = read(case.path)
    before = model.graph.SerializeToString(deterministic=True)
    first, second = freeze(model), freeze(model)
    assert model.graph.SerializeToString(deterministic=True) == before
    assert whole(first[0]) == whole(second[0])
    assert first[1] == second[1]


def test_only_what_is_needed_is_kept():
    (case,) = cases(version="extra_tf-2.21.0", model="multi_signature")
    model = read(case.path)
    spec = {"serving_default": model.signatures["serving_default"]}
    frozen, _ = freeze(GraphModel(**{**vars(model), "signatures": spec}))
    assert len(frozen.graph.library.function) == 2
    assert {node.op for node in frozen.graph.node} == {"Placeholder", "Const", "StatefulPartitionedCall"}
    assert list(frozen.constants) == ["w"]
    assert list(frozen.extra) == ["signature_def/serving_default"]


def test_values_are_not_read():
    def refuse(*_):
        raise AssertionError("a value was read")

    (case,) = cases(version="extra_tf-2.21.0", model="multi_signature")
    model = read(case.path)
    lazy = {name: Tensor(one.dtype, one.shape, refuse, refuse) for name, one in model.variables.items()}
    frozen, _ = freeze(GraphModel(**{**vars(model), "variables": lazy}))
    assert frozen.constants["w"].shape == (3, 2)


def test_without_a_signature_nothing_says_what_to_keep():
    (case,) = cases(version="extra_tf-2.4.4", model="no_signatures")
    with pytest.raises(ConversionError, match="no signature"):
        freeze(read(case.path))


# ---------------------------------------------------------------------------------------------------- broken graphs


def graph(*nodes: tuple, functions: tuple = ()) -> GraphModel:
    """Nodes as (name, op, *inputs); a name with a slash calls the function after it."""
    message = messages.GraphDef()
    for row in nodes:
        add(message.node, *row)
    for name, arguments, body, result in functions:
        made = message.library.function.add()
        made.signature.name = name
        for argument in arguments:
            made.signature.input_arg.add(name=argument, type=1)
        made.signature.output_arg.add(name="y", type=1)
        made.ret["y"] = result
        for row in body:
            add(made.node_def, *row)
    return GraphModel(graph=message, signatures={"serving_default": signature(["y:0"])})


def add(nodes, name, op, *inputs):
    op, _, function = op.partition("/")
    node = nodes.add(name=name, op=op)
    node.input.extend(inputs)
    if op == "Const":
        node.attr["dtype"].type = 1
        node.attr["value"].tensor.CopyFrom(numpy_to_tensor(np.float32(1)))
    elif function:
        node.attr["f"].func.name = function
        node.attr["Tin"].list.type.extend([1] * len(inputs))
        node.attr["Tout"].list.type.append(1)
    else:
        node.attr["T"].type = 1


LOOP = [("x", "Const"), ("a", "Add", "x", "b"), ("b", "Neg", "a"), ("y", "Identity", "b")]
BROKEN = {
    "a circle": (graph(*LOOP), ReadError, r"\b(a|b)\b.*waits for itself"),
    "a missing node": (graph(("y", "Neg", "gone")), ReadError, "at y: .*'gone' names a node that is not there"),
    "a missing output": (graph(("x", "Const")), ReadError, "at y: 'y' is to be answered"),
    "two of one name": (graph(("y", "Const"), ("y", "Const")), ReadError, "at y: two nodes have this name"),
    "a missing function": (
        graph(("x", "Const"), ("y", "PartitionedCall/f", "x")),
        ReadError,
        "at y: it calls the function 'f', which is not there",
    ),
    "a function that calls itself": (
        graph(
            ("x", "Const"),
            ("y", "PartitionedCall/f", "x"),
            functions=[("f", ["a"], [("c", "PartitionedCall/f", "a")], "c:output:0")],
        ),
        ConversionError,
        "'f' calls itself",
    ),
    "functions that call each other": (
        graph(
            ("x", "Const"),
            ("y", "PartitionedCall/f", "x"),
            functions=[
                ("f", ["a"], [("c", "PartitionedCall/g", "a")], "c:output:0"),
                ("g", ["a"], [("c", "f", "a")], "c:y:0"),
            ],
        ),
        ConversionError,
        "calls itself",
    ),
    "too many arguments": (
        graph(("x", "Const"), ("y", "PartitionedCall/f", "x", "x"), functions=[("f", ["a"], [], "a")]),
        ReadError,
        "at y: it passes 2 values to the function 'f', which takes 1",
    ),
    "a circle in a function": (
        graph(
            ("x", "Const"),
            ("y", "PartitionedCall/f", "x"),
            functions=[("f", ["a"], [("b", "Add", "a", "c:y:0"), ("c", "Neg", "b:z:0")], "c:y:0")],
        ),
        ReadError,
        "at f/[bc]: this node waits for itself",
    ),
    "a missing node in a function": (
        graph(
            ("x", "Const"),
            ("y", "PartitionedCall/f", "x"),
            functions=[("f", ["a"], [("b", "Neg", "gone:y:0")], "b:y:0")],
        ),
        ReadError,
        "f/b: .*'gone:y:0' names no",
    ),
    "an output that an op has not": (
        graph(
            ("x", "Const"), ("y", "PartitionedCall/f", "x"), functions=[("f", ["a"], [("b", "Neg", "a")], "b:wrong:0")]
        ),
        ReadError,
        "'b:wrong:0' names no tensor",
    ),
    "a result that is nowhere": (
        graph(("x", "Const"), ("y", "PartitionedCall/f", "x"), functions=[("f", ["a"], [], "gone:y:0")]),
        ReadError,
        "'gone:y:0' names no",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_graph(name):
    model, error, sentence = BROKEN[name]
    with pytest.raises(error, match=sentence):
        freeze(model)


def test_functions_nested_without_end():
    deep = [(f"f{n}", ["a"], [("c", f"PartitionedCall/f{n + 1}", "a")], "c:output:0") for n in range(5000)]
    deep.append(("f5000", ["a"], [], "a"))
    with pytest.raises(ReadError, match="nested more than"):
        freeze(graph(("x", "Const"), ("y", "PartitionedCall/f0", "x"), functions=deep))
