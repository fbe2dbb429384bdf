"""Inlining: calls become the nodes of what they call, in whatever graph; the answers stay."""

from __future__ import annotations

import numpy as np
import pytest

from modelio.errors import ConversionError, ReadError, UnsafeInput
from modelio.formats import saved_model
from modelio.graph.surgery.inlining import inline
from modelio.model import GraphModel, Tensor
from modelio.sink import Sink
from modelio.wire import messages
from modelio.wire.dtypes import cut_tensor, numpy_to_tensor
from tests import clients
from tests.corpus import cases, golden, strays
from tests.graph.surgery.frozen import EXACT, close, feeds_of, read, run, signature

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
EXPORTS = cases(file=("saved_model", "golden.npz"))


def written(model: GraphModel, folder) -> str:
    with Sink.open(str(folder), shape="tree") as sink:
        saved_model.write(model, sink)
        sink.commit()
    return str(folder)


def no_calls(model: GraphModel) -> bool:
    library = {one.signature.name for one in model.graph.library.function}
    nodes = [*model.graph.node, *(node for one in model.graph.library.function for node in one.node_def)]
    assert not [node.name for node in nodes if node.op in (*CALLS, *library)]
    return True


@pytest.mark.parametrize("case", EXPORTS, ids=str)
def test_exports_are_served_without_their_functions(case, tensorflow, tmp_path):
    """With their variables, from a directory, as a graph of TensorFlow 1."""
    model, changes = inline(read(case / "saved_model"))
    assert no_calls(model)
    assert len(changes) == 1
    assert "object_graph_def" not in model.extra
    feeds = feeds_of(model, case)
    fetches = [end.tensor for end in model.signatures["serving_default"].outputs.values()]
    answers = clients.c_api(written(model, tmp_path / "m"), feeds, fetches)
    close(answers, golden(case)[1], EXACT.get(case.model, 1e-5))


@pytest.mark.parametrize("case", cases(version="extra_*", model=("multi_signature", "assets")), ids=str)
def test_the_bodies_of_loops_and_branches_stay_functions(case, tensorflow, tmp_path):
    model, _ = inline(read(case.path))
    assert no_calls(model)
    if case.model == "multi_signature":
        names = {one.signature.name.rstrip("_0123456789") for one in model.graph.library.function}
        assert names == {"while_body", "while_cond", "cond_true", "cond_false"}
    folder = written(model, tmp_path / "m")
    features = np.array([[1.0, -2.0, 0.5]], np.float32)
    name = "serving_default" if case.model == "multi_signature" else "score"
    wanted = clients.tensorflow2(str(case.path), {"features": features}, name)
    got = clients.tensorflow2(folder, {"features": features}, name)
    close(list(got.values()), list(wanted.values()))


def test_what_a_second_output_is_called():
    """The first keeps the call's name; the signature says where the others are."""
    (case,) = cases(version="extra_tf-2.21.0", model="multi_signature")
    before = read(case.path)
    model, _ = inline(before)
    outputs = {key: end.tensor for key, end in model.signatures["evaluate"].outputs.items()}
    assert {key: end.tensor for key, end in before.signatures["evaluate"].outputs.items()} == {
        "accuracy": "StatefulPartitionedCall:0",
        "prediction": "StatefulPartitionedCall:1",
    }
    assert outputs == {"accuracy": "StatefulPartitionedCall:0", "prediction": "StatefulPartitionedCall/output_1:0"}
    kinds = {node.name: node.op for node in model.graph.node}
    assert kinds["StatefulPartitionedCall"] == kinds["StatefulPartitionedCall/output_1"] == "Identity"


@pytest.mark.parametrize(
    "stray", [one for one in strays(kind="SavedModel TF1") if (one.path / "saved_model.pb").exists()], ids=str
)
def test_a_graph_without_calls_is_left_alone(stray):
    try:
        model = read(stray.path)
    except ReadError:
        pytest.skip("refused when it is read")
    if any(node.op in CALLS for node in model.graph.node):
        pytest.skip("it has calls")
    assert inline(model)[0] is model


# ---------------------------------------------------------------------------------------------------- made by hand


def constant(node, value):
    node.attr["dtype"].type = 1
    node.attr["value"].tensor.CopyFrom(numpy_to_tensor(np.float32(value)))


def node(nodes, name, op, *inputs, value=None, function=None, kind="T"):
    made = nodes.add(name=name, op=op)
    made.input.extend(inputs)
    if value is not None:
        constant(made, value)
    elif function:
        made.attr["f"].func.name = function
        made.attr["Tin"].list.type.extend([1] * sum(text[0] != "^" for text in inputs))
        made.attr["Tout"].list.type.append(1)
    elif op not in ("NoOp", "LoopCond"):
        made.attr[kind].type = 1
    return made


def function(graph, name, arguments, result, *, control=()):
    made = graph.library.function.add()
    made.signature.name = name
    for argument in arguments:
        made.signature.input_arg.add(name=argument, type=1)
    made.signature.output_arg.add(name="y", type=1)
    made.ret["y"] = result
    for end in control:
        made.control_ret[end] = end
    return made


def model_of(graph, *outputs) -> GraphModel:
    return GraphModel(graph=graph, signatures={"serving_default": signature(list(outputs) or ["y:0"])})


def inputs_of(model) -> dict[str, list[str]]:
    return {node.name: list(node.input) for node in model.graph.node}


def twice() -> messages.GraphDef:
    """``f(a) = 2 a + 1``, called twice, once in the other's place."""
    graph = messages.GraphDef()
    node(graph.node, "x", "Const", value=3)
    node(graph.node, "first", "PartitionedCall", "x", function="f")
    node(graph.node, "second", "f", "first")
    node(graph.node, "y", "Neg", "second")
    f = function(graph, "f", ["a"], "sum:z:0")
    node(f.node_def, "two", "Const", value=2)
    node(f.node_def, "product", "Mul", "a", "two:output:0")
    node(f.node_def, "one", "Const", value=1)
    node(f.node_def, "sum", "Add", "product:z:0", "one:output:0")
    return graph


def test_every_call_gets_nodes_of_its_own(tensorflow):
    model, changes = inline(model_of(twice()))
    assert no_calls(model)
    assert changes == ["2 calls replaced by what they call"]
    assert len(model.graph.library.function) == 0
    assert inputs_of(model)["second/product"] == ["first/sum", "second/two"]
    close(run(model, {}), [np.float32(-15)])


def test_a_scope_that_is_taken_is_left_alone(tensorflow):
    graph = twice()
    node(graph.node, "first/two", "Const", value=100)
    node(graph.node, "z", "Neg", "first/two")
    model, _ = inline(model_of(graph, "y:0", "z:0"))
    names = [one.name for one in model.graph.node]
    assert len(names) == len(set(names))
    assert "first_1/two" in names
    close(run(model, {}), [np.float32(-15), np.float32(-100)])


def test_order_is_kept():
    """What the call waited for, its body waits for; what waited for the call, waits for its side effects."""
    graph = messages.GraphDef()
    node(graph.node, "x", "Const", value=3)
    node(graph.node, "before", "NoOp")
    node(graph.node, "call", "StatefulPartitionedCall", "x", "^before", function="f")
    node(graph.node, "y", "Neg", "x", "^call")
    f = function(graph, "f", ["a"], "c:output:0", control=("first", "last"))
    node(f.node_def, "c", "Const", value=1)
    node(f.node_def, "first", "NoOp")
    node(f.node_def, "last", "NoOp", "^first")
    model, _ = inline(model_of(graph))
    inputs = inputs_of(model)
    assert inputs["call/c"] == ["^before"]
    assert inputs["call/first"] == ["^before"]
    assert inputs["call/last"] == ["^call/first"]
    assert inputs["y"] == ["x", "^call/ends"]
    assert inputs["call/ends"] == ["^call/first", "^call/last"]


def test_what_waits_for_a_function_without_side_effects_waits_for_its_result():
    graph = twice()
    node(graph.node, "z", "Neg", "x", "^second")
    model, _ = inline(model_of(graph, "z:0"))
    assert inputs_of(model)["z"] == ["x", "^second/sum"]


def test_an_argument_that_is_handed_through(tensorflow):
    graph = messages.GraphDef()
    node(graph.node, "x", "Const", value=3)
    node(graph.node, "a", "PartitionedCall", "x", function="same")
    node(graph.node, "b", "PartitionedCall", "a", function="same")
    node(graph.node, "y", "Neg", "b", "^a")
    function(graph, "same", ["v"], "v")
    model, _ = inline(model_of(graph))
    assert inputs_of(model) == {"x": [], "y": ["x", "^x"]}
    close(run(model, {}), [np.float32(-3)])


def test_constants_beside_the_graph_move_with_their_nodes(tensorflow):
    graph = twice()
    two = graph.library.function[0].node_def[0]
    two.attr["value"].tensor.CopyFrom(cut_tensor(1, ()))
    model = model_of(graph)
    model.constants = {"f:two": Tensor.of(np.float32(2))}
    model, _ = inline(model)
    assert sorted(model.constants) == ["first/two", "second/two"]
    close(run(model, {}), [np.float32(-15)])


def test_a_function_of_any_type(tensorflow):
    """``T`` is the function's own attribute, and the call says what it is."""
    graph = messages.GraphDef()
    node(graph.node, "x", "Const", value=3)
    node(graph.node, "y", "double", "x")
    f = graph.library.function.add()
    f.signature.name = "double"
    f.signature.attr.add(name="T", type="type")
    f.signature.input_arg.add(name="a", type_attr="T")
    f.signature.output_arg.add(name="b", type_attr="T")
    f.ret["b"] = "sum:z:0"
    body = f.node_def.add(name="sum", op="Add")
    body.input.extend(["a", "a"])
    body.attr["T"].placeholder = "T"
    model, _ = inline(model_of(graph))
    kinds = {one.name: one for one in model.graph.node}
    assert kinds["y/sum"].attr["T"].type == 1
    assert kinds["y"].op == "Identity"
    close(run(model, {}), [np.float32(6)])


def test_a_call_in_a_loop_of_tensorflow_1(tensorflow):
    """A constant of the body belongs to the loop, though nothing leads into it there."""
    v1 = tensorflow.compat.v1

    @tensorflow.function
    def step(value):
        return value * 2.0 + 1.0

    v1.disable_control_flow_v2()
    try:
        with tensorflow.Graph().as_default() as built:
            count = v1.placeholder("int32", (), name="count")
            last = v1.while_loop(lambda i, y: i < count, lambda i, y: (i + 1, step(y)), (0, 1.0))[1]
            v1.identity(last, name="y")
            phase = v1.placeholder("bool", (), name="phase")
            v1.identity(v1.cond(phase, lambda: step(last), lambda: last), name="z")
    finally:
        v1.enable_control_flow_v2()
    graph = messages.parse(messages.GraphDef, built.as_graph_def().SerializeToString(), where=None)
    model = model_of(graph, "y:0", "z:0")
    inlined, _ = inline(model)
    assert no_calls(inlined)
    for count, phase in ((0, True), (3, False), (3, True)):
        feeds = {"count:0": np.int32(count), "phase:0": np.array(phase)}
        close(run(inlined, feeds), run(model, feeds))


def test_functions_that_call_each_other_without_end():
    graph = messages.GraphDef()
    node(graph.node, "x", "Const", value=3)
    node(graph.node, "y", "PartitionedCall", "x", function="f")
    node(function(graph, "f", ["a"], "c:output:0").node_def, "c", "PartitionedCall", "a", function="g")
    node(function(graph, "g", ["a"], "c:output:0").node_def, "c", "PartitionedCall", "a", function="f")
    with pytest.raises(ConversionError, match="'f' calls itself") as caught:
        inline(model_of(graph))
    assert caught.value.unsupported == ("f",)


def test_functions_that_double_at_every_level():
    graph = messages.GraphDef()
    node(graph.node, "x", "Const", value=3)
    node(graph.node, "y", "PartitionedCall", "x", function="f0")
    for level in range(60):
        f = function(graph, f"f{level}", ["a"], "d:output:0")
        node(f.node_def, "c", "PartitionedCall", "a", function=f"f{level + 1}")
        node(f.node_def, "d", "PartitionedCall", "c:output:0", function=f"f{level + 1}")
    node(function(graph, "f60", ["a"], "n:y:0").node_def, "n", "Neg", "a")
    with pytest.raises(UnsafeInput, match="more than 1,048,576 nodes"):
        inline(model_of(graph))


def test_calls_that_wait_for_each_other():
    graph = messages.GraphDef()
    node(graph.node, "y", "PartitionedCall", "z", function="same")
    node(graph.node, "z", "PartitionedCall", "y", function="same")
    function(graph, "same", ["v"], "v")
    with pytest.raises(ReadError, match="waits for itself"):
        inline(model_of(graph))


def test_a_function_that_is_not_there():
    graph = messages.GraphDef()
    node(graph.node, "x", "Const", value=3)
    node(graph.node, "y", "PartitionedCall", "x", function="gone")
    with pytest.raises(ReadError, match="at y: it calls the function 'gone', which is not there"):
        inline(model_of(graph))
