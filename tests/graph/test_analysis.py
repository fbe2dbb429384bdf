"""What must be fed: the rule on small graphs, on graphs that are wrong, and against TensorFlow itself."""

from __future__ import annotations

import time

import pytest

from modelio.errors import ReadError
from modelio.graph.analysis import (
    Graph,
    Placeholder,
    TensorName,
    required_placeholders,
    role_of,
    signature_of,
    tensor_name,
)
from modelio.model import TensorSpec
from modelio.wire import messages

FLOAT, STRING, BOOL, RESOURCE = 1, 7, 10, 20


def nodes(target, **rows):
    """Add nodes to a graph or a function: ``y="Add(x, z:1, ^c)"``; ``__`` stands for ``/``. All tensors are floats."""
    for name, row in rows.items():
        op, _, inputs = row.removesuffix(")").partition("(")
        node = target.add(name=name.replace("__", "/"), op=op, input=[text for text in inputs.split(", ") if text])
        if op.startswith("Placeholder"):
            node.attr["dtype"].type = FLOAT
            node.attr["shape"].shape.unknown_rank = True
        else:
            node.attr["T"].type = FLOAT
        if op in ("Merge", "AddN", "Pack"):
            node.attr["N"].i = len(node.input)
    return target


def graph_def(**rows):
    made = messages.GraphDef()
    made.versions.producer = 27
    nodes(made.node, **rows)
    return made


def function(made, name, takes=("x",), gives="x", **rows):
    """Add a function to a graph's library; ``gives`` is the tensor that it returns."""
    definition = made.library.function.add()
    definition.signature.name = name
    for argument in takes:
        definition.signature.input_arg.add(name=argument, type=FLOAT)
    definition.signature.output_arg.add(name="y", type=FLOAT)
    definition.ret["y"] = gives
    nodes(definition.node_def, **rows)
    return definition


def call(made, name, inputs, op="PartitionedCall", **functions):
    node = made.node.add(name=name, op=op, input=inputs)
    for attribute, value in functions.items():
        if isinstance(value, list):
            node.attr[attribute].list.func.extend(messages.NameAttrList(name=item) for item in value)
        else:
            node.attr[attribute].func.name = value
    return node


def needs(made, fetches, feeds=()):
    """Names of what must be fed, and of what may be."""
    found = required_placeholders(Graph(made), [fetches] if isinstance(fetches, str) else fetches, feeds).placeholders
    return {p.name for p in found if not p.has_default}, {p.name for p in found if p.has_default}


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "node", "port"),
    [("x", "x", 0), ("x:0", "x", 0), ("a/b/c:12", "a/b/c", 12), ("^a/b", "a/b", -1)],
)
def test_names(text, node, port):
    assert tensor_name(text) == TensorName(node, port)


@pytest.mark.parametrize("text", ["x:", "x:y", "x:-1", "x:1.5", "x:\u0663", "x:" + "9" * 5000])
def test_what_is_no_name(text):
    with pytest.raises(ReadError, match="is no tensor's name"):
        tensor_name(text)


# -- reachability ------------------------------------------------------------------------------------------------------


def test_data_inputs_are_followed():
    made = graph_def(x="Placeholder()", z="Placeholder()", w="Const()", y="Mul(x, w)", other="Neg(z)")
    assert needs(made, "y:0") == ({"x"}, set())
    assert needs(made, ["y:0", "other:0"]) == ({"x", "z"}, set())


def test_control_inputs_are_followed():
    made = graph_def(x="Placeholder()", z="Placeholder()", check="Neg(z)", y="Neg(x, ^check)")
    assert needs(made, "y") == ({"x", "z"}, set())


def test_any_output_of_a_node_needs_all_its_inputs():
    made = graph_def(x="Placeholder()", phase="Placeholder()", s="Switch(x, phase)", y="Neg(s:1)")
    assert needs(made, "y:0") == ({"x", "phase"}, set())


def test_both_branches_of_a_switch_count():
    made = graph_def(
        phase="Placeholder()",
        x="Placeholder()",
        noise="Placeholder()",
        s="Switch(x, phase)",
        t="Switch(noise, phase)",
        train="Add(s:1, t:1)",
        test="Neg(s)",
        y="Merge(test, train)",
    )
    assert needs(made, "y:0") == ({"phase", "x", "noise"}, set())


def test_a_while_loop_goes_round_once():
    made = graph_def(
        x="Placeholder()",
        limit="Placeholder()",
        enter="Enter(x)",
        merge="Merge(enter, next)",
        bound="Enter(limit)",
        less="Less(merge, bound)",
        cond="LoopCond(less)",
        switch="Switch(merge, cond)",
        body="Neg(switch:1)",
        next="NextIteration(body)",
        exit="Exit(switch)",
    )
    assert needs(made, "exit:0") == ({"x", "limit"}, set())


def test_a_default_makes_a_placeholder_optional_but_not_what_the_default_is_made_from():
    made = graph_def(z="Placeholder()", d="Neg(z)", p="PlaceholderWithDefault(d)", y="Neg(p)")
    assert needs(made, "y") == ({"z"}, {"p"})
    assert needs(made, "y", feeds=["p:0"]) == (set(), set())


def test_a_feed_cuts_off_what_lies_behind_it():
    made = graph_def(jpeg="Placeholder()", decoded="Neg(jpeg)", y="Neg(decoded)")
    found = required_placeholders(Graph(made), ["y:0"], ["decoded:0"])
    assert found.placeholders == {}
    assert found.feeds == {"decoded:0": ("y:0",)}


def test_a_feed_cuts_off_one_output_only():
    made = graph_def(x="Placeholder()", p="Placeholder()", s="Switch(x, p)", y="Add(s, s:1)")
    assert needs(made, "y", feeds=["s:1"]) == ({"x", "p"}, set())
    assert needs(made, "y", feeds=["s:0", "s:1"]) == (set(), set())


def test_a_fed_placeholder_is_fed_for_control_outputs_too():
    made = graph_def(x="Placeholder()", z="Placeholder()", y="Neg(x, ^z)")
    found = required_placeholders(Graph(made), ["y"], ["x:0", "z:0"])
    assert found.placeholders == {}
    assert set(found.feeds) == {"x:0", "z:0"}


def test_who_needs_what():
    made = graph_def(x="Placeholder()", labels="Placeholder()", y="Neg(x)", loss="Sub(y, labels)")
    found = required_placeholders(Graph(made), ["y:0", "loss:0"], ["x:0"])
    assert {p.name: fetches for p, fetches in found.placeholders.items()} == {"labels": ("loss:0",)}
    assert found.feeds == {"x:0": ("y:0", "loss:0")}


def test_a_saver_is_not_reached_from_an_answer():
    made = graph_def(
        x="Placeholder()",
        save__filename="Placeholder()",
        w="VariableV2()",
        save__restore="RestoreV2(save/filename)",
        save__assign="Assign(w, save/restore)",
        y="Mul(x, w)",
    )
    assert needs(made, "y") == ({"x"}, set())


# -- functions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("PartitionedCall", {"f": "body"}),
        ("StatefulPartitionedCall", {"f": "body"}),
        ("If", {"then_branch": "body", "else_branch": "body"}),
        ("StatelessWhile", {"cond": "body", "body": "body"}),
        ("Case", {"branches": ["body", "body"]}),
        ("SymbolicGradient", {"f": "body"}),
        ("body", {}),
    ],
)
def test_every_argument_of_a_call_is_computed_whatever_the_body_does_with_it(op, attributes):
    made = graph_def(x="Placeholder()", unused="Placeholder()")
    function(made, "body", takes=("x", "unused"), gives="n:y:0", n="Neg(x)")
    call(made, "y", ["x", "unused"], op=op, **attributes)
    assert needs(made, "y:0") == ({"x", "unused"}, set())


def test_a_placeholder_inside_a_function_is_named_with_it():
    made = graph_def(x="Placeholder()")
    function(made, "inner", gives="sum:z:0", p="Placeholder()", sum="Add(x, p:output:0)", idle="Placeholder()")
    function(made, "outer", gives="c:output:0")
    call_in = made.library.function[1].node_def.add(name="c", op="PartitionedCall", input=["x"])
    call_in.attr["f"].func.name = "inner"
    call(made, "y", ["x"], f="outer")
    assert needs(made, "y") == ({"x", "inner/p"}, set())  # idle is pruned, nothing runs it
    (buried,) = (p for p in required_placeholders(Graph(made), ["y"]).placeholders if p.function)
    assert buried == Placeholder("inner/p", "float32", None, function="inner")


def test_a_body_runs_what_has_side_effects_and_what_its_control_results_ask_for():
    made = graph_def(x="Placeholder()")
    definition = function(
        made, "f", a="Placeholder()", b="Placeholder()", wait="NoOp(^a)", tell="PrintV2(b:output:0)", c="Placeholder()"
    )
    definition.control_ret["wait"] = "wait"
    call(made, "y", ["x"], f="f")
    assert needs(made, "y") == ({"x", "f/a", "f/b"}, set())


def test_recursion_ends():
    made = graph_def(x="Placeholder()")
    for name, other in (("ping", "pong"), ("pong", "ping")):
        definition = function(made, name, gives="c:output:0")
        node = definition.node_def.add(name="c", op="PartitionedCall", input=["x"])
        node.attr["f"].func.name = other
    call(made, "y", ["x"], f="ping")
    assert needs(made, "y") == ({"x"}, set())


def test_the_gradient_of_an_op_is_no_missing_function():
    made = graph_def(x="Placeholder()")
    call(made, "y", ["x"], op="SymbolicGradient", f="Tanh")
    assert needs(made, "y") == ({"x"}, set())


# -- what TensorFlow refuses too ---------------------------------------------------------------------------------------


def test_an_input_that_is_not_there():
    with pytest.raises(ReadError) as caught:
        Graph(graph_def(x="Placeholder()", y="Mul(x, gone:1)"))
    assert caught.value.where == "y"
    assert caught.value.reason == "its input 'gone:1' names no node of this graph: a part of the graph is missing"


def test_nodes_that_wait_for_each_other():
    with pytest.raises(ReadError, match="this node waits for itself, in a circle") as caught:
        Graph(graph_def(x="Placeholder()", a="Add(x, b)", b="Neg(a)", y="Neg(b)"))
    assert caught.value.where in ("a", "b")


def test_two_nodes_of_one_name():
    made = graph_def(x="Placeholder()", y="Neg(x)")
    nodes(made.node, x="Const()")
    with pytest.raises(ReadError, match="two nodes have this name") as caught:
        Graph(made)
    assert caught.value.where == "x"


def test_a_function_that_is_not_there():
    made = graph_def(x="Placeholder()")
    call(made, "y", ["x"], f="__inference_gone_42")
    with pytest.raises(ReadError, match="it calls the function '__inference_gone_42', which is not there") as caught:
        needs(made, "y")
    assert caught.value.where == "y"


def test_a_function_that_names_a_node_it_has_not():
    made = graph_def(x="Placeholder()")
    function(made, "f", gives="gone:y:0")
    call(made, "y", ["x"], f="f")
    with pytest.raises(ReadError, match="the function names 'gone', which is none of its nodes"):
        needs(made, "y")


def test_a_fetch_that_is_not_there():
    with pytest.raises(ReadError, match="no node of the graph has this name"):
        needs(graph_def(x="Placeholder()"), "softmax:0")


# -- placeholders ------------------------------------------------------------------------------------------------------


def placeholder(name, dtype=BOOL, op="Placeholder"):
    node = messages.NodeDef(name=name, op=op)
    node.attr["dtype"].type = dtype
    return node


@pytest.mark.parametrize(
    "name",
    [
        "keras_learning_phase",
        "keras_learning_phase_1",
        "net/batch_normalization_1/keras_learning_phase",
        "import/dropout_3/keras_learning_phase_12",
    ],
)
def test_the_learning_phase_is_known_by_name(name):
    assert role_of(placeholder(name)) == "learning_phase"
    assert role_of(placeholder(name, op="PlaceholderWithDefault")) == "learning_phase"


@pytest.mark.parametrize(
    "name", ["learning_phase", "keras_learning_phase/input", "my_keras_learning_phase", "keras_learning_phases", "x"]
)
def test_other_names_are_no_learning_phase(name):
    assert role_of(placeholder(name)) is None


def test_a_learning_phase_is_a_number_or_a_flag():
    assert role_of(placeholder("keras_learning_phase", dtype=4)) == "learning_phase"  # uint8, Keras 1.0
    assert role_of(placeholder("keras_learning_phase", dtype=STRING)) is None


def test_an_old_scalar_shape_means_unknown():
    made = messages.GraphDef()
    node = made.node.add(name="x", op="Placeholder")
    node.attr["dtype"].type = FLOAT
    node.attr["shape"].shape.SetInParent()
    for producer, shape in ((21, None), (22, ())):
        made.versions.producer = producer
        assert Graph(made).placeholder("x").shape == shape


# -- bare graphs -------------------------------------------------------------------------------------------------------


def test_the_signature_of_a_bare_graph():
    made = graph_def(
        x="Placeholder()",
        idle="Placeholder()",
        save__name="Placeholder()",
        w="Const()",
        h="Mul(x, w)",
        parts="Switch(h, x)",
        y="Neg(h)",
        save__save="SaveV2(save/name, w)",
        save__end="Identity(save/name, ^save/save)",
        init="NoOp(^w)",
    )
    signature = signature_of(Graph(made))
    assert signature.inputs == {"x": TensorSpec("x:0", "float32", None)}
    assert signature.outputs == {
        "parts": TensorSpec("parts:0", "float32", None),
        "parts:1": TensorSpec("parts:1", "float32", None),
        "y": TensorSpec("y:0", "float32", None),
    }


def test_an_op_that_nobody_knows_has_an_output_of_unknown_type():
    signature = signature_of(Graph(graph_def(x="Placeholder()", y="MyCustomOp(x)")))
    assert signature.outputs == {"y": TensorSpec("y:0", "unknown", None)}


# -- size --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [list, lambda rows: list(reversed(rows))], ids=["in order", "reversed"])
def test_twenty_thousand_nodes_and_a_hundred_outputs(order):
    made = graph_def(x="Placeholder()")
    rows = [("x", "layer_0")] + [(f"layer_{k}", f"layer_{k + 1}") for k in range(20_000)]
    for source, name in order(rows):
        made.node.add(name=name, op="Relu", input=[source])
    start = time.process_time()
    found = Graph(made).requirements([f"layer_{k}:0" for k in range(0, 20_000, 200)])
    assert time.process_time() - start < 2  # 0.1 s; a walk for every output, or a quadratic one, takes far longer
    assert [p.name for p in found.placeholders] == ["x"]


# -- TensorFlow's own word ---------------------------------------------------------------------------------------------


def test_tensorflow_agrees():
    """Each placeholder that is said to be required: TensorFlow runs with it and fails without it."""
    tf = pytest.importorskip("tensorflow")
    v1 = tf.compat.v1
    with tf.Graph().as_default() as built, v1.variable_scope("model", use_resource=True):
        x = v1.placeholder(tf.float32, [2], name="x")
        phase = v1.placeholder(tf.bool, [], name="keras_learning_phase")
        rate = v1.placeholder_with_default(0.5, [], name="rate")
        steps = v1.placeholder(tf.int32, [], name="steps")
        gate = v1.placeholder(tf.float32, [], name="gate")
        v1.placeholder(tf.float32, [], name="idle")
        v1.disable_control_flow_v2()
        dropped = v1.cond(phase, lambda: x * rate, lambda: tf.identity(x))
        looped = v1.while_loop(lambda i, v: i < steps, lambda i, v: (i + 1, v * 2.0), (0, dropped))[1]
        v1.enable_control_flow_v2()
        chosen = v1.cond(phase, lambda: looped, lambda: looped * gate)
        with tf.control_dependencies([tf.identity(gate)]):
            controlled = tf.identity(x, name="controlled")

        @tf.function
        def called(a, b):
            return a * 2.0, b * 3.0

        first, _ = called(controlled, gate)
        fetches = {t.name: t for t in (dropped, looped, chosen, controlled, first)}
        values = {x: [1.0, 2.0], phase: False, steps: 3, gate: 4.0, rate: 0.1}
    index = Graph(messages.GraphDef.FromString(built.as_graph_def().SerializeToString()))
    by_name = {tensor.op.name: (tensor, value) for tensor, value in values.items()}
    with v1.Session(graph=built) as session:
        for name, fetch in fetches.items():
            found = index.requirements([name]).placeholders
            required = [p.name for p in found if not p.has_default]
            session.run(fetch, dict(by_name[p] for p in required))
            for missing in required:
                with pytest.raises(tf.errors.InvalidArgumentError, match="must feed a value for placeholder"):
                    session.run(fetch, dict(by_name[p] for p in required if p != missing))
    assert [p.name for p in index.requirements([looped.name]).placeholders] == [
        "model/x",
        "model/keras_learning_phase",
        "model/rate",
        "model/steps",
    ]
