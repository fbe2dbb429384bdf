"""The Python objects that TensorFlow 2 saved, as named children of each other: of a SavedModel, or of a checkpoint.

::

    SavedObjectGraph          what each object is: a variable, a function, an object of Keras, ...
      in a SavedModel's object_graph_def
    TrackableObjectGraph      under which key each object's value is
      in the checkpoint's entry _CHECKPOINTABLE_OBJECT_GRAPH

    root
     |- layer_with_weights-0                    an object
     |   |- kernel                              a variable; its value: layer_with_weights-0/kernel/.ATTRIBUTES/...
     |   '- bias
     |- keras_api/layers/0                      the same object again
     '- optimizer                               its slots: of which variable, called what, kept in which variable

What the two share is the names of the children: an object of one is found in the other by walking both from the root,
as ``tensorflow/python/checkpoint/restore.py`` does. Children may lead back to their parents.

Sources: ``tensorflow/core/protobuf/saved_object_graph.proto``, ``trackable_object_graph.proto``,
``tensorflow/python/saved_model/load.py``, ``tensorflow/python/checkpoint/restore.py`` (TensorFlow 2.21).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from modelio.errors import ReadError
from modelio.model import GraphModel, Message
from modelio.wire import messages

__all__ = ["CHECKPOINT", "SAVED", "VALUE", "Object", "Objects", "Slot", "Value", "checkpoint_objects", "saved_objects"]

SAVED, CHECKPOINT = "object_graph_def", "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The keys of a model's ``extra`` that hold a SavedObjectGraph and a TrackableObjectGraph."""

VALUE = "VARIABLE_VALUE"
"""The name of a variable's only value (``tensorflow/python/trackable/base.py``, VARIABLE_VALUE_KEY)."""


class Value(NamedTuple):
    """What a checkpoint keeps of an object, under its ``key``; ``full_name`` is a variable's TensorFlow 1 name."""

    name: str
    full_name: str
    key: str


class Slot(NamedTuple):
    """What an optimizer keeps beside a variable: ``state`` is the slot ``name`` (``"m"``) of ``variable``."""

    name: str
    variable: Object
    state: Object


@dataclass(eq=False)
class Object:
    """One object.

    Args:
        number: its place in the list of nodes, by which functions and others refer to it.
        kind: which field of a SavedObject is set: ``"variable"``, ``"user_object"``, ``"function"``, ...; ``""`` in a
            checkpoint.
        message: the SavedObject or TrackableObject itself.
        children: by name, in the file's order; they may lead back here.
        values: what the checkpoint has of it, by name; a variable has one, :data:`VALUE`.
        slots: of an optimizer.
    """

    number: int
    kind: str
    message: Message = field(repr=False)
    children: dict[str, Object] = field(default_factory=dict, repr=False)
    values: dict[str, Value] = field(default_factory=dict)
    slots: tuple[Slot, ...] = field(default=(), repr=False)

    @property
    def key(self) -> str | None:
        """The checkpoint's key of a variable that the checkpoint has."""
        return self.values[VALUE].key if VALUE in self.values else None


@dataclass(frozen=True, eq=False)
class Objects:
    """All objects; ``nodes[0]`` is the root."""

    nodes: tuple[Object, ...]

    @property
    def root(self) -> Object:
        return self.nodes[0]

    def walk(self, without: Collection[str] = ()) -> Iterator[tuple[str, Object]]:
        """Every object that the root leads to, once, with its shortest path, the nearest ones first.

        Args:
            without: names of children that are passed over.
        """
        seen = {self.root.number}
        waiting = deque([("", self.root)])
        while waiting:
            path, here = waiting.popleft()
            yield path, here
            for name, child in here.children.items():
                if child.number not in seen and name not in without:
                    seen.add(child.number)
                    waiting.append((f"{path}/{name}" if path else name, child))

    def find(self, path: str) -> Object | None:
        """The object at a path, names with ``/`` between; None where there is none."""
        here: Object | None = self.root
        for name in path.split("/") if path else ():
            here = here.children.get(name) if here is not None else None
        return here

    def keys(self) -> dict[int, str]:
        """Number -> the checkpoint's key, of every variable that the checkpoint has."""
        return {node.number: node.key for node in self.nodes if node.key is not None}


def checkpoint_objects(data: bytes) -> Objects:
    """The objects of a checkpoint, from its entry ``_CHECKPOINTABLE_OBJECT_GRAPH``.

    Raises:
        ReadError: it is no TrackableObjectGraph, or refers to objects that are not there.
    """
    graph = messages.parse(messages.TrackableObjectGraph, data, where=CHECKPOINT)
    found = _linked([Object(number, "", node) for number, node in enumerate(graph.nodes)], CHECKPOINT)
    for node in found.nodes:
        for value in node.message.attributes:
            node.values[value.name] = Value(value.name, value.full_name, value.checkpoint_key)
    return found


def saved_objects(model: GraphModel) -> Objects | None:
    """The objects of a SavedModel, with the values that its checkpoint has of them; None where TensorFlow 1 saved it.

    Raises:
        ReadError: one of the two messages is damaged, or refers to objects that are not there.
    """
    if SAVED not in model.extra:
        return None
    graph = messages.parse(messages.SavedObjectGraph, model.extra[SAVED], where=SAVED)
    if not graph.nodes:
        return None
    nodes = [Object(number, node.WhichOneof("kind") or "", node) for number, node in enumerate(graph.nodes)]
    found = _linked(nodes, SAVED)
    if CHECKPOINT in model.extra:
        _fill_in(found, checkpoint_objects(model.extra[CHECKPOINT]))
    return found


def _linked(nodes: Sequence[Object], where: str) -> Objects:
    """The nodes with their children and slots, from the numbers in their messages."""
    if not nodes:
        raise ReadError("there is no object in it, not even the root", where=where)

    def at(number: int, owner: Object) -> Object:
        if not 0 <= number < len(nodes):
            reason = f"object {owner.number} refers to object {number}, and there are {len(nodes)}: it is damaged"
            raise ReadError(reason, where=where)
        return nodes[number]

    for node in nodes:
        for child in node.message.children:
            node.children[child.local_name] = at(child.node_id, node)
        node.slots = tuple(
            Slot(slot.slot_name, at(slot.original_variable_node_id, node), at(slot.slot_variable_node_id, node))
            for slot in node.message.slot_variables
        )
    return Objects(tuple(nodes))


def _fill_in(saved: Objects, checkpoint: Objects) -> None:
    """Give each object the values of the one that the same names lead to in the checkpoint.

    Slots have no names: they are found by their optimizer, their variable and what they are called.
    """
    twins = {saved.root.number: checkpoint.root}
    waiting = deque([saved.root])
    while waiting:
        here = waiting.popleft()
        there = twins[here.number]
        for name, child in here.children.items():
            if child.number not in twins and name in there.children:
                twins[child.number] = there.children[name]
                waiting.append(child)
    for optimizer in [saved.nodes[number] for number in twins if saved.nodes[number].slots]:
        states = {(slot.variable.number, slot.name): slot.state for slot in twins[optimizer.number].slots}
        for slot in optimizer.slots:
            variable = twins.get(slot.variable.number)
            state = states.get((variable.number, slot.name)) if variable is not None else None
            if state is not None:
                twins[slot.state.number] = state
    for number, twin in twins.items():
        saved.nodes[number].values = twin.values
