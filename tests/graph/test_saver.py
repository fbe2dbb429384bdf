"""The saver that is added to a graph: what it restores, what names its ends, and which TensorFlow can read it."""

from __future__ import annotations

import numpy as np
import pytest

from modelio.errors import WriteError
from modelio.graph.builder import Builder
from modelio.graph.operations import op
from modelio.graph.saver import add_saver
from modelio.model import GraphModel, Tensor
from modelio.wire import messages
from modelio.wire.dtypes import tensor_to_numpy


def dense(*, scope: str = "dense") -> GraphModel:
    g = Builder()
    x = g.placeholder("x", "float32", (None, 3))
    kernel = g.variable(f"{scope}/kernel", Tensor.of(np.ones((3, 2), "float32")))
    bias = g.variable(f"{scope}/bias", Tensor.of(np.zeros(2, "float32")))
    g.output("y", g.BiasAdd(g.MatMul(x, kernel), bias))
    return GraphModel(graph=g.graph, variables=g.variables)


def nodes(model: GraphModel) -> dict[str, object]:
    return {node.name: node for node in model.graph.node}


def strings(model: GraphModel, name: str) -> list[bytes]:
    return tensor_to_numpy(nodes(model)[name].attr["value"].tensor).tolist()


def test_every_variable_is_restored_and_saved_under_its_key() -> None:
    model = add_saver(dense())
    saver = messages.SaverDef.FromString(model.extra["saver_def"])
    found = nodes(model)

    assert strings(model, found["save/RestoreV2"].input[1]) == [b"dense/bias", b"dense/kernel"]
    assert strings(model, found["save/SaveV2"].input[1]) == [b"dense/bias", b"dense/kernel"]
    assert list(found["save/SaveV2"].input[3:]) == [
        "dense/bias/Read/ReadVariableOp",
        "dense/kernel/Read/ReadVariableOp",
    ]
    assigns = [found[name.removeprefix("^")] for name in found[saver.restore_op_name].input]
    assert [list(node.input) for node in assigns] == [
        ["dense/bias", "save/RestoreV2"],
        ["dense/kernel", "save/RestoreV2:1"],
    ]
    for end in (saver.filename_tensor_name, saver.save_tensor_name):
        assert end.removesuffix(":0") in found
    assert saver.version == messages.SaverDef.V2


def test_the_collection_names_the_nodes_of_each_variable() -> None:
    model = add_saver(dense())
    collection = messages.CollectionDef.FromString(model.extra["collection_def/variables"])
    definitions = [messages.VariableDef.FromString(data) for data in collection.bytes_list.value]
    assert [one.variable_name for one in definitions] == ["dense/bias:0", "dense/kernel:0"]
    found = nodes(model)
    for one in definitions:
        assert one.is_resource
        assert found[one.initializer_name].op == "AssignVariableOp"
        assert found[one.snapshot_name.removesuffix(":0")].op == "ReadVariableOp"


def test_the_model_that_was_given_is_left_as_it_was() -> None:
    model = dense()
    before = model.graph.SerializeToString()
    add_saver(model)
    assert model.graph.SerializeToString() == before
    assert model.extra == {}


def test_a_graph_that_has_a_scope_of_that_name_keeps_it() -> None:
    model = add_saver(dense(scope="save"))
    assert messages.SaverDef.FromString(model.extra["saver_def"]).restore_op_name == "save_1/restore_all"
    assert len(nodes(model)) == len(model.graph.node)


def test_reference_variables_are_assigned_and_read_as_they_were() -> None:
    graph = messages.GraphDef()
    variable = graph.node.add(name="w", op="VariableV2")
    variable.attr["dtype"].type = 1
    model = add_saver(GraphModel(graph=graph, variables={"w": Tensor.of(np.zeros(2, "float32"))}))
    definition = messages.VariableDef.FromString(
        messages.CollectionDef.FromString(model.extra["collection_def/variables"]).bytes_list.value[0]
    )
    assert (definition.is_resource, definition.snapshot_name) == (False, "w/read:0")
    assert [node.op for node in model.graph.node if "w" in node.input] == ["Identity", "Assign"]


def test_a_variable_that_the_graph_does_not_have() -> None:
    model = dense()
    model.variables = {**model.variables, "other": Tensor.of(np.zeros(1))}
    with pytest.raises(WriteError, match="no node of the graph is this variable") as caught:
        add_saver(model)
    assert caught.value.where == "other"


def test_every_op_is_as_old_as_the_format() -> None:
    for node in add_saver(dense()).graph.node:
        definition = op(node.op)
        assert definition is not None
        assert definition.since == "0.12.1"
        assert set(node.attr) <= set(definition.attrs)
