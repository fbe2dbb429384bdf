"""Folding: a bound placeholder and what follows from it go, and every answer stays what it was.

What is right is what TensorFlow answers: every graph here is run before, with the placeholder fed, and after.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

import modelio
from modelio.errors import ConversionError, ReadError
from modelio.graph.builder import Builder
from modelio.graph.saver import COLLECTION
from modelio.graph.surgery.binding import bind
from modelio.graph.surgery.folding import fold
from modelio.graph.surgery.pruning import prune
from modelio.model import GraphModel, Signature, Tensor, TensorSpec
from modelio.wire import messages
from modelio.wire.dtypes import cut_tensor
from tests import clients

pytestmark = pytest.mark.usefixtures("tensorflow")

FLOW = {"Switch", "Merge", "RefSwitch", "RefMerge"}


def model_of(graph, outputs=(), **more):
    """A model that answers these tensors."""
    specs = {tensor.replace(":", "_"): TensorSpec(tensor, "float32", None) for tensor in outputs}
    return GraphModel(graph, signatures={"graph": Signature({}, specs)}, **more)


def ops(model):
    return [node.op for node in model.graph.node]


def names(model):
    return {node.name for node in model.graph.node}


def node(model, name):
    return next(node for node in model.graph.node if node.name == name)


def constant(model, name):
    from modelio.wire.dtypes import tensor_to_numpy

    assert node(model, name).op == "Const"
    return tensor_to_numpy(node(model, name).attr["value"].tensor).tolist()


def answers(model, feeds, fetches):
    return clients.frozen(messages.serialize(model.graph), feeds, fetches)


def branches():
    """``phase ? x * 2 : x + 1``, as tf.cond writes it."""
    g = Builder()
    x, phase = g.placeholder("x", "float32", (None,)), g.placeholder("phase", "bool", ())
    g.node("Switch", phase, phase, name="pivot")
    g.node("Switch", x, phase, name="data")
    for port, name in ((1, "yes"), (0, "no")):
        pivot = g.graph.node.add(name=f"pivot_{name}", op="Identity", input=[f"pivot:{port}" if port else "pivot"])
        pivot.attr["T"].type = messages.DataType.DT_BOOL
        number = g.constant(np.float32(port + 1), name=f"{name}_number")
        g.graph.node[-1].input.append(f"^pivot_{name}")
        made = g.graph.node.add(name=name, op="Mul" if port else "Add")
        made.input.extend([f"data:{port}" if port else "data", number.name.removesuffix(":0")])
        made.attr["T"].type = messages.DataType.DT_FLOAT
    merge = g.graph.node.add(name="merge", op="Merge", input=["no", "yes"])
    merge.attr["T"].type = messages.DataType.DT_FLOAT
    merge.attr["N"].i = 2
    return g.graph


@pytest.mark.parametrize(("phase", "wanted", "index"), [(False, [2, 4], 0), (True, [2, 6], 1)])
def test_a_branch_that_is_decided_goes(phase, wanted, index):
    model = model_of(branches(), ["merge:0", "merge:1"])
    feeds = {"x:0": np.float32([1, 3])}
    bound, changes = bind(model, {"phase": phase})
    assert not FLOW & set(ops(bound))
    fetches = [spec.tensor for spec in bound.signatures["graph"].outputs.values()]
    (y, branch), before = (
        answers(bound, feeds, fetches),
        answers(model, {**feeds, "phase:0": phase}, ["merge:0", "merge:1"]),
    )
    assert y.tolist() == wanted == before[0].tolist()
    assert branch == index == before[1]
    assert fetches[0] == "merge:0"  # its name is known
    assert changes[0] == f"placeholder phase bound to {phase}"
    assert changes[1].startswith("4 branches decided") or changes[1].startswith("3 branches decided")
    assert ("yes" in names(bound)) == phase
    assert ("no" in names(bound)) == (not phase)


def test_nothing_that_hung_on_the_placeholder_is_left():
    bound, _ = bind(model_of(branches(), ["merge:0"]), {"phase": False})
    assert names(bound) == {"x", "no_number", "no", "merge"}


def test_an_undecided_branch_stays_as_it_is():
    model = model_of(branches(), ["merge:0"])
    assert fold(model) == (model, [])


def test_an_output_on_a_branch_that_is_never_taken_is_refused():
    model = model_of(branches(), ["merge:0", "yes:0"])
    with pytest.raises(ConversionError, match="'yes_0' of the signature 'graph' lies on a branch that is never taken"):
        bind(model, {"phase": False})


def test_a_node_that_waits_for_a_dead_one_is_dead():
    graph = branches()
    waiting = graph.node.add(name="waiting", op="Identity", input=["x", "^yes"])
    waiting.attr["T"].type = messages.DataType.DT_FLOAT
    assert "waiting" not in names(bind(model_of(graph, ["merge:0"]), {"phase": False})[0])
    assert "waiting" in names(bind(model_of(graph, ["merge:0"]), {"phase": True})[0])


def test_side_effects_are_waited_for():
    """A constant that came after an assignment still does."""
    g = Builder()
    flag = g.placeholder("flag", "bool", ())
    w = g.node("VarHandleOp", name="w", dtype="float32", shape=(), shared_name="w")
    g.action("AssignVariableOp", w, g.constant(np.float32(7)), name="assign")
    g.node("LogicalNot", flag, name="not")
    g.graph.node[-1].input.append("^assign")
    g.node("LogicalNot", g.node("LogicalNot", flag), name="after")
    g.graph.node[-1].input.append("^not")
    g.node("ReadVariableOp", w, name="read", dtype="float32")
    g.graph.node[-1].input.append("^after")
    bound, _ = bind(model_of(g.graph, ["read:0", "not:0"]), {"flag": True})
    assert constant(bound, "not") is False
    assert list(node(bound, "read").input) == ["w", "^assign"]
    assert answers(bound, {}, ["read:0"]) == [7]


def test_a_constant_in_a_branch_that_is_not_decided_stays_in_it():
    """Where it lost its place, the Merge would find it alive at all times."""
    graph = branches()
    node_of = {node.name: node for node in graph.node}
    flag = graph.node.add(name="flag", op="Placeholder")
    flag.attr["dtype"].type = messages.DataType.DT_FLOAT
    flag.attr["shape"].shape.SetInParent()
    for name in ("no", "yes"):  # each branch: a number of its own, made from a bound one
        node_of[name].op = "Add"
        node_of[name].input[:] = ["flag", f"{name}_number"]
    model = model_of(graph, ["merge:0"])
    bound, _ = bind(model, {"flag": 0.5})
    assert ops(bound).count("Merge") == 1
    for phase in (False, True):
        wanted = answers(model, {"phase:0": phase, "flag:0": 0.5}, ["merge:0", "merge:1"])
        assert answers(bound, {"phase:0": phase}, ["merge:0", "merge:1"]) == wanted


def test_weights_stay_the_nodes_that_they_are():
    g = Builder()
    rate, x = g.placeholder("rate", "float32", ()), g.placeholder("x", "float32", (None, 2))
    w = g.Identity(g.constant(np.ones((2, 2), np.float32), name="w"), name="w/read")
    g.Mul(g.MatMul(x, w), g.Sub(1.0, rate, name="keep"), name="y")
    bound, changes = bind(model_of(g.graph, ["y:0"]), {"rate": 0.25})
    assert constant(bound, "keep") == 0.75
    assert {"w", "w/read"} <= names(bound)
    assert "rate" not in names(bound)
    assert changes == [
        "placeholder rate bound to 0.25",
        "1 node computed, 2 nodes removed that nothing needs any longer",
    ]


def test_what_follows_from_a_bound_array_is_computed():
    g = Builder()
    x = g.placeholder("x", "float32", (3,))
    g.Mul(g.Neg(x), [1.0, 2.0, 3.0], name="y")
    bound, _ = bind(model_of(g.graph, ["y:0"]), {"x": [1, 2, 3]})
    assert constant(bound, "y") == [-1, -4, -9]
    assert names(bound) == {"y"}


def test_the_shape_of_a_weight_beside_the_graph_is_known():
    g = Builder()
    big = g.constant(np.zeros((300, 200), np.float32), name="big")
    assert "big" in g.constants
    g.node("Shape", g.Identity(big), name="shape")
    folded, _ = fold(model_of(g.graph, ["shape:0"], constants=g.constants))
    assert constant(folded, "shape") == [300, 200]


def test_outputs_of_one_node_become_constants_of_their_own():
    g = Builder()
    x = g.placeholder("x", "int32", (4,))
    _, second = g.node("Split", g.constant(0), x, num_split=2, name="split")
    g.Mul(g.placeholder("z", "int32", (2,)), second, name="y")
    model = model_of(g.graph, ["y:0", "split:1"])
    bound, _ = bind(model, {"x": [1, 2, 3, 4]})
    (y,) = answers(bound, {"z:0": np.int32([5, 6])}, ["y:0"])
    assert y.tolist() == [15, 24]
    assert bound.signatures["graph"].outputs["split_1"].tensor != "split:1"
    assert answers(bound, {}, [bound.signatures["graph"].outputs["split_1"].tensor])[0].tolist() == [3, 4]


# ------------------------------------------------------------------------------------------- TensorFlow's own graphs


@pytest.fixture
def tf1(tensorflow):
    """TensorFlow, with the control flow of version 1."""
    from tensorflow.python.ops import control_flow_util

    was = control_flow_util.ENABLE_CONTROL_FLOW_V2
    control_flow_util.ENABLE_CONTROL_FLOW_V2 = False
    yield tensorflow
    control_flow_util.ENABLE_CONTROL_FLOW_V2 = was


class Program:
    """A random graph of arithmetic, conditionals and loops over flags, some of which will be bound."""

    def __init__(self, tf, seed, resource):
        self.tf, self.random = tf, random.Random(seed)
        self.flags = [tf.compat.v1.placeholder(tf.bool, (), f"flag{i}") for i in range(3)]
        self.x = tf.compat.v1.placeholder(tf.float32, (2,), "x")
        self.v = tf.compat.v1.get_variable("v", initializer=[1.0, 2.0], use_resource=resource)
        self.counter = tf.compat.v1.get_variable("counter", initializer=0.0, use_resource=resource)
        self.count = 0

    def flag(self):
        chosen = self.random.choice(self.flags)
        kind = self.random.randrange(4)
        if kind == 0:
            return self.tf.logical_not(chosen)
        if kind == 1:
            return self.tf.logical_and(chosen, self.random.choice(self.flags))
        return chosen

    def value(self, known, depth):
        tf, kind = self.tf, self.random.randrange(9 if depth else 3)
        a, b = self.random.choice(known), self.random.choice(known)
        if kind == 0:
            return a + b
        if kind == 1:
            return a * self.random.choice([0.5, 2.0, -1.0])
        if kind == 2:
            return tf.where(tf.less(a, b), a, self.v + 0.0)
        if kind == 3:  # a value that waits for a side effect
            with tf.control_dependencies([tf.compat.v1.assign_add(self.counter, 1.0)]):
                return tf.identity(a)
        if kind == 4:
            return tf.reshape(tf.tile(a, [2]), tf.stack([tf.size(a), 2]))[:, 0]
        if kind == 5 and depth:
            limit = self.random.randrange(3)
            flag = self.flag()

            def body(i, y):
                return i + 1, tf.cond(flag, lambda: y + a, lambda: self.value([y], depth - 1))

            return tf.while_loop(lambda i, y: i < limit, body, [0, b])[1]
        return tf.cond(self.flag(), lambda: self.value(known, depth - 1), lambda: self.value([a, b], depth - 1))

    def output(self):
        known = [self.x, self.v + 0.0]
        for _ in range(4):
            known.append(self.value(known, 2))
        return self.tf.identity(self.tf.add_n(known), name="y")


def run(tf, graph, feeds):
    """The output, and how often the side effect ran."""
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True  # Grappler folds, too
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(graph), name="")
        session.run("init")
        y = session.run("y:0", {f"{name}:0": value for name, value in feeds.items()})
        return y.tolist(), session.run("counter_value:0")


@pytest.mark.parametrize("resource", [True, False], ids=["resource", "reference"])
@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_answer_what_they_answered(tf1, seed, resource):
    tf = tf1
    with tf.Graph().as_default() as graph:
        program = Program(tf, seed, resource)
        program.output()
        tf.identity(program.counter, "counter_value")
        tf.group(program.v.initializer, program.counter.initializer, name="init")
        data = graph.as_graph_def().SerializeToString()
    model = model_of(messages.parse(messages.GraphDef, data, where=None), ["y:0", "counter_value:0"])
    model.extra = {f"{COLLECTION}init": messages.CollectionDef(
        node_list=messages.CollectionDef.NodeList(value=["init"])
    ).SerializeToString()}  # fmt: skip
    chooser = random.Random(seed)
    for bound_count in (1, 2, 3):
        flags = {f"flag{i}": chooser.random() < 0.5 for i in range(3)}
        names_bound = chooser.sample(sorted(flags), bound_count)
        there = [name for name in names_bound if name in names(model)]
        bound, _ = bind(model, {name: flags[name] for name in there})
        left = {"x": [0.5, -3.0], **{name: value for name, value in flags.items() if name not in there}}
        left = {name: value for name, value in left.items() if name in names(bound)}
        got = run(tf, messages.serialize(bound.graph), left)
        assert got == run(tf, data, {"x": [0.5, -3.0], **flags})
        if bound_count == 3:
            loops = sum(node.op == "LoopCond" for node in bound.graph.node)
            switches = sum(node.op in FLOW for node in bound.graph.node)
            assert loops or not switches


@pytest.mark.parametrize("phase", [False, True])
def test_conditionals_of_tensorflow_2_become_the_branch(tensorflow, phase):
    tf = tensorflow
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (2,), "x")
        flag = tf.compat.v1.placeholder(tf.bool, (), "flag")
        number = tf.compat.v1.placeholder(tf.int32, (), "number")
        y = tf.cond(flag, lambda: tf.cond(flag, lambda: x * 2, lambda: x), lambda: x + 1)
        z = tf.switch_case(number, [lambda: x, lambda: x * 3, lambda: x * 4])
        tf.identity(y + z, name="out")
        data = graph.as_graph_def().SerializeToString()
    model = model_of(messages.parse(messages.GraphDef, data, where=None), ["out:0"])
    for index in (0, 2, 7):
        bound, _ = bind(model, {"flag": phase, "number": index})
        assert not {"If", "StatelessIf", "Case", "StatelessCase"} & set(ops(bound))
        feeds = {"x:0": np.float32([1, 2])}
        wanted = answers(model, {**feeds, "flag:0": phase, "number:0": np.int32(index)}, ["out:0"])
        assert answers(bound, feeds, ["out:0"])[0].tolist() == wanted[0].tolist()
        # The nested conditional went as well, and with it the functions of the branches not taken.
        inside = {node.op for function in bound.graph.library.function for node in function.node_def}
        assert not {"If", "StatelessIf"} & inside
        assert len(bound.graph.library.function) < len(model.graph.library.function)


def test_a_bound_value_is_followed_into_functions(tensorflow):
    tf = tensorflow

    @tf.function
    def inner(x, training):
        return tf.cond(training, lambda: x * 2, lambda: x + 1)

    @tf.function
    def outer(x, training):
        return inner(x, training) - inner(x, tf.logical_not(training))

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (2,), "x")
        training = tf.compat.v1.placeholder(tf.bool, (), "training")
        tf.identity(outer(x, training), name="out")
        data = graph.as_graph_def().SerializeToString()
    model = model_of(messages.parse(messages.GraphDef, data, where=None), ["out:0"])
    for phase in (False, True):
        bound, _ = bind(model, {"training": phase})
        inside = {node.op for function in bound.graph.library.function for node in function.node_def}
        assert not {"If", "StatelessIf"} & (inside | set(ops(bound)))
        feeds = {"x:0": np.float32([1, 2])}
        wanted = answers(model, {**feeds, "training:0": phase}, ["out:0"])
        assert answers(bound, feeds, ["out:0"])[0].tolist() == wanted[0].tolist()


# ------------------------------------------------------------------------------------------------------- bad graphs


def test_a_circle_is_refused():
    g = Builder()
    g.Neg(g.Neg(g.placeholder("x", "float32", ()), name="a"), name="b")
    g.graph.node[1].input[:] = ["b"]
    with pytest.raises(ReadError, match="waits for itself"):
        fold(model_of(g.graph, ["b:0"]))


def test_an_input_that_leads_nowhere_is_refused():
    g = Builder()
    g.Neg(g.placeholder("x", "float32", ()), name="y")
    g.graph.node[1].input[:] = ["nowhere"]
    with pytest.raises(ReadError, match="'nowhere' names a node that is not there"):
        fold(model_of(g.graph, ["y:0"]))


def test_a_damaged_constant_is_no_value():
    g = Builder()
    g.LogicalNot(g.constant(True, name="c"), name="y")
    for tensor in (
        messages.TensorProto(dtype=10, tensor_content=b"\x01\x01"),
        messages.TensorProto(dtype=77),
        cut_tensor(10, (1,)),
    ):
        g.graph.node[0].attr["value"].tensor.CopyFrom(tensor)
        model = model_of(g.graph, ["y:0"])
        assert fold(model) == (model, [])


def test_values_do_not_make_a_small_file_large():
    g = Builder()
    x = g.placeholder("x", "int32", (1,))
    for number in range(40):
        g.node("Fill", g.constant([4000 + number]), 7, name=f"fill{number}")
        g.node("Tile", x, [1000], name=f"tile{number}")
    outputs = [f"{kind}{number}:0" for kind in ("fill", "tile") for number in range(40)]
    bound, _ = bind(model_of(g.graph, outputs), {"x": [1]})
    assert len(messages.serialize(bound.graph)) < len(messages.serialize(g.graph)) + 40 * 5000


def test_a_constant_that_goes_takes_its_content_along():
    graph = branches()
    big = graph.node.add(name="big", op="Const", input=["^pivot_yes"])
    big.attr["dtype"].type = messages.DataType.DT_FLOAT
    big.attr["value"].tensor.CopyFrom(cut_tensor(1, (300, 200)))
    next(node for node in graph.node if node.name == "yes").input[1] = "big"
    constants = {"big": Tensor.of(np.zeros((300, 200), np.float32))}
    model = model_of(graph, ["merge:0"], constants=constants)
    assert bind(model, {"phase": False})[0].constants == {}
    assert set(bind(model, {"phase": True})[0].constants) == {"big"}


def test_wishes_to_be_beside_a_node_that_went_are_dropped():
    """TensorFlow refuses a graph with such a wish."""
    graph = branches()
    for one in graph.node:
        one.attr["_class"].list.s.append(b"loc:@yes")
    bound, _ = bind(model_of(graph, ["merge:0"]), {"phase": False})
    assert all("_class" not in one.attr for one in bound.graph.node)
    assert answers(bound, {"x:0": np.float32([1])}, ["merge:0"])[0].tolist() == [2]


def test_pruning_after_binding_leaves_what_is_needed():
    bound, _ = bind(model_of(branches(), ["merge:0"]), {"phase": True})
    pruned, _ = prune(bound)
    assert isinstance(pruned, modelio.GraphModel)
    assert names(pruned) == {"x", "yes_number", "yes", "merge"}
