"""The objects that TensorFlow 2 saved, with what its checkpoint has of each."""

from __future__ import annotations

import pytest

import modelio
from modelio.errors import ReadError
from modelio.graph.objects import CHECKPOINT, SAVED, checkpoint_objects, saved_objects
from modelio.model import GraphModel
from modelio.wire import messages
from tests.corpus import Case, cases, data

TENSORFLOW_2 = cases(file="saved_model")


@pytest.mark.parametrize("case", TENSORFLOW_2)
def test_every_variable_that_was_saved_has_its_key(case: Case) -> None:
    model = modelio.read(case / "saved_model")
    objects = saved_objects(model)
    assert objects is not None
    variables = [node for node in objects.nodes if node.kind == "variable"]
    assert variables
    assert {node.key for node in variables} == set(objects.keys().values())
    assert set(objects.keys().values()) == {key for key in model.variables if key.endswith("/VARIABLE_VALUE")}
    for node in variables:
        assert model.variables[node.key].shape == tuple(size.size for size in node.message.variable.shape.dim)


def test_the_slots_of_an_optimizer_lead_from_a_variable_to_its_state() -> None:
    objects = saved_objects(modelio.read(data() / "lifting" / "tf-2.4.4" / "ftrl" / "saved_model"))
    assert objects is not None
    optimizer = objects.find("optimizer")
    assert optimizer is not None
    slots = {(slot.name, slot.variable.key): slot.state.key for slot in optimizer.slots}
    assert {name for name, _ in slots} == {"accumulator", "linear"}
    assert len(slots) == 2 * 10
    for (name, variable), state in slots.items():
        assert state == variable.replace("/.ATTRIBUTES", f"/.OPTIMIZER_SLOT/optimizer/{name}/.ATTRIBUTES")


def test_objects_are_found_by_their_paths_the_nearest_first() -> None:
    objects = checkpoint_objects(
        _graph({0: {"a": 1, "list": 2}, 1: {"x": 3}, 2: {"0": 1, "up": 0}, 3: {}}, {3: "a/x/key"})
    )
    assert [path for path, _ in objects.walk()] == ["", "a", "list", "a/x"]
    assert [path for path, _ in objects.walk(without={"a"})] == ["", "list", "list/0", "list/0/x"]
    assert objects.find("list/0/x") is objects.nodes[3]
    assert objects.find("list/up/list/up/a") is objects.nodes[1]
    assert objects.find("list/1/x") is None
    assert objects.keys() == {3: "a/x/key"}


def test_the_two_graphs_of_objects_may_be_numbered_each_in_its_own_way() -> None:
    saved = messages.SavedObjectGraph()
    for children in ({"b": 1, "a": 2}, {}, {}):
        node = saved.nodes.add()
        for name, number in children.items():
            node.children.add(local_name=name, node_id=number)
    saved.nodes[1].variable.name = "b"
    saved.nodes[2].variable.name = "a"
    checkpoint = _graph({0: {"a": 1, "b": 2}, 1: {}, 2: {}}, {1: "of a", 2: "of b"})
    extra = {SAVED: messages.serialize(saved), CHECKPOINT: checkpoint}
    objects = saved_objects(GraphModel(messages.GraphDef(), extra=extra))
    assert objects is not None
    assert objects.keys() == {1: "of b", 2: "of a"}


def test_a_graph_of_tensorflow_1_has_none() -> None:
    assert saved_objects(GraphModel(messages.GraphDef())) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x0a\xff", "not a TrackableObjectGraph"),
        (b"", "not even the root"),
        (b"\x0a\x04\x0a\x02\x08\x07", "object 0 refers to object 7, and there are 1"),
        (b"\x0a\x04\x1a\x02\x08\x05", "object 0 refers to object 5"),
    ],
)
def test_damaged_objects_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ReadError, match=reason):
        checkpoint_objects(data)


def _graph(children: dict[int, dict[str, int]], keys: dict[int, str]) -> bytes:
    graph = messages.TrackableObjectGraph()
    for number in sorted(children):
        node = graph.nodes.add()
        for name, child in children[number].items():
            node.children.add(local_name=name, node_id=child)
        if number in keys:
            node.attributes.add(name="VARIABLE_VALUE", checkpoint_key=keys[number])
    return bytes(messages.serialize(graph))
