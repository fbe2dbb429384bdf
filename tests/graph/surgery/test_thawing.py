"""Thawing: large constants become variables, and the model is served with them in its checkpoint."""

from __future__ import annotations

import numpy as np
import pytest

from modelio.formats import frozen_graph, saved_model
from modelio.graph.builder import Builder
from modelio.graph.surgery.freezing import freeze
from modelio.graph.surgery.thawing import thaw
from modelio.model import GraphModel, Signature, Tensor, TensorSpec
from modelio.sink import Sink
from modelio.source import Source
from modelio.wire import messages
from modelio.wire.dtypes import cut_tensor
from tests import clients
from tests.corpus import cases, golden, record
from tests.graph.surgery.frozen import EXACT, close, feeds_of, phases, read, signature

FROZEN = cases(file=("frozen.pb", "golden.npz"))


def written(model: GraphModel, folder) -> str:
    with Sink.open(str(folder), shape="tree") as sink:
        saved_model.write(model, sink)
        sink.commit()
    return str(folder)


def variables_of(model: GraphModel) -> set[str]:
    return {node.name for node in model.graph.node if node.op == "VarHandleOp"}


@pytest.mark.parametrize("case", FROZEN, ids=str)
def test_graphs_that_tensorflow_froze(case, tensorflow, tmp_path):
    """Every constant from 16 bytes on becomes a variable, which the loader restores."""
    noted = record(case)
    if any("table_handle" in name for name in noted["frozen_inputs"]):
        pytest.skip("its table was left behind by the framework that froze it")
    model = frozen_graph.read(Source.of(case / "frozen.pb"))
    thawed, changes = thaw(model, smallest=16)
    if not thawed.variables:
        pytest.skip("it has no constant of that size")
    assert changes[0] == f"{len(thawed.variables)} constants became variables"
    assert variables_of(thawed) == set(thawed.variables)
    thawed.signatures = {"serving_default": signature(noted["frozen_outputs"], noted["frozen_inputs"])}
    feeds = dict(zip(noted["frozen_inputs"], golden(case)[0], strict=True))
    feeds |= phases(thawed, feeds)
    answers = clients.session(written(thawed, tmp_path / "m"), feeds, noted["frozen_outputs"])
    close(answers, golden(case)[1], EXACT.get(case.model, 1e-5))


@pytest.mark.parametrize("case", cases(file=("saved_model", "golden.npz")), ids=str)
def test_there_and_back(case, tensorflow, tmp_path):
    """Frozen and thawed, a model has the variables again that it had, under the names of their nodes."""
    before = read(case / "saved_model")
    frozen, _ = freeze(before)
    thawed, _ = thaw(frozen, smallest=4)
    for name, tensor in thawed.variables.items():
        if name in frozen.constants:
            np.testing.assert_array_equal(tensor.numpy(), frozen.constants[name].numpy())
    folder = written(thawed, tmp_path / "m")
    fetches = [end.tensor for end in thawed.signatures["serving_default"].outputs.values()]
    answers = clients.session(folder, feeds_of(thawed, case), fetches)
    close(answers, golden(case)[1], EXACT.get(case.model, 1e-5))


def graph(big: np.ndarray) -> tuple[Builder, GraphModel]:
    g = Builder()
    x = g.placeholder("x", "float32", (None, big.shape[0]))
    weight = g.constant(big, name="weight")
    read = g.Identity(weight, name="weight/read")
    g.output("y", g.MatMul(x, read))
    ends = Signature({"x": TensorSpec("x:0", "float32", None)}, {"y": TensorSpec("y:0", "float32", None)})
    return g, GraphModel(graph=g.graph, constants=g.constants, signatures={"serving_default": ends})


BIG = np.arange(40_000, dtype="float32").reshape(100, 400)


def ops(model) -> dict[str, str]:
    return {node.name: node.op for node in model.graph.node}


def test_an_identity_reads_the_variable_again():
    _, model = graph(BIG)
    thawed, _ = thaw(model)
    assert ops(thawed) == {"x": "Placeholder", "weight": "VarHandleOp", "weight/read": "ReadVariableOp", **LEFT}
    assert thawed.constants == {}
    np.testing.assert_array_equal(thawed.variables["weight"].numpy(), BIG)


LEFT = {"MatMul": "MatMul", "y": "Identity"}


def test_what_else_takes_it_gets_a_read_of_its_own():
    g, model = graph(BIG)
    g.output("z", g.Add(g.MatMul(BIG.T, "weight" and _value(g)), 1.0))
    model.signatures["serving_default"] = signature(["y:0", "z:0"], ["x:0"])
    thawed, _ = thaw(model)
    found = ops(thawed)
    assert found["weight/Read/ReadVariableOp"] == "ReadVariableOp"
    (user,) = [node for node in thawed.graph.node if "weight/Read/ReadVariableOp" in node.input]
    assert user.op == "MatMul"


def _value(g):
    from modelio.graph.builder import Value

    return Value("weight:0", "float32", BIG.shape)


def test_a_constant_that_a_signature_names_keeps_its_name():
    _, model = graph(BIG)
    model.signatures["weights"] = Signature({}, {"w": TensorSpec("weight:0", "float32", (100, 400))})
    thawed, _ = thaw(model)
    assert ops(thawed)["weight"] == "ReadVariableOp"
    assert list(thawed.variables) == ["weight/variable"]


def test_what_is_small_stays():
    _, model = graph(BIG)
    assert thaw(model, smallest=BIG.nbytes + 1) == (model, [])
    assert thaw(model, smallest=BIG.nbytes)[0].variables.keys() == {"weight"}


def test_what_lies_in_the_graph_counts_too():
    small = np.arange(6, dtype="float32").reshape(3, 2)
    _, model = graph(small)
    assert model.constants == {}
    thawed, _ = thaw(model, smallest=small.nbytes)
    np.testing.assert_array_equal(thawed.variables["weight"].numpy(), small)


def test_strings_and_what_waits_for_others_stay():
    g, model = graph(BIG)
    words = g.constant(np.array([b"word" * 50] * 1000, object), name="words")
    g.output("count", g.Size(words))
    (weight,) = [node for node in g.graph.node if node.name == "weight"]
    weight.input.append("^x")
    assert thaw(model, smallest=1000) == (model, [])


def test_a_constant_inside_a_function_stays_and_is_named():
    _, model = graph(BIG)
    body = model.graph.library.function.add()
    body.signature.name = "f"
    inner = body.node_def.add(name="w", op="Const")
    inner.attr["dtype"].type = 1
    inner.attr["value"].tensor.CopyFrom(cut_tensor(1, BIG.shape))
    model.constants = {**model.constants, "f:w": Tensor.of(BIG)}
    thawed, changes = thaw(model)
    assert changes == ["1 constants became variables", "the constant f/w stays: it is inside a function"]
    assert list(thawed.constants) == ["f:w"]


def test_values_stay_where_they_are(tmp_path):
    """Six gigabytes of constants, far more than one message may hold: nothing is read until it is written."""

    def refuse(*_):
        raise AssertionError("a value was read")

    _, model = graph(BIG)
    shape = (1 << 15, 50_000)
    (weight,) = [node for node in model.graph.node if node.name == "weight"]
    weight.attr["value"].tensor.CopyFrom(cut_tensor(1, shape))
    model.constants = {"weight": Tensor("float32", shape, refuse, refuse)}
    thawed, _ = thaw(model)
    assert thawed.variables["weight"].nbytes == 6_553_600_000
    handle = next(node for node in thawed.graph.node if node.op == "VarHandleOp")
    assert [size.size for size in handle.attr["shape"].shape.dim] == list(shape)


def test_a_model_that_has_variables_gets_more(tensorflow, tmp_path):
    """All of them are restored together, under the names of their nodes."""
    tf = tensorflow
    module, big = tf.Module(), tf.constant(BIG)
    module.w = tf.Variable(np.float32([2, 3]), name="w")
    traced = tf.function(lambda x: tf.linalg.matmul(x, big) * module.w[0], input_signature=[tf.TensorSpec((1, 100))])
    tf.saved_model.save(module, str(tmp_path / "m"), traced.get_concrete_function())
    thawed, changes = thaw(read(tmp_path / "m"))
    assert changes == ["1 constants became variables"]
    assert len(thawed.variables) == 2
    assert thawed.variables["w"].numpy().tolist() == [2, 3]
    folder = written(thawed, tmp_path / "n")
    x = np.ones((1, 100), np.float32)
    close(list(clients.tensorflow2(folder, {"x": x}).values()), [traced(x).numpy()])


def test_the_model_that_was_given_is_left_as_it_was():
    _, model = graph(BIG)
    before = messages.serialize(model.graph)
    thaw(model)
    assert messages.serialize(model.graph) == before
    assert list(model.constants) == ["weight"]
