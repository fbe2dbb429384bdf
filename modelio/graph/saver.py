"""The nodes by which TensorFlow fills a graph's variables from a checkpoint, for graphs that have none.

::

    save/Const                      the checkpoint's prefix: what a loader feeds
    save/SaveV2                     every variable into a checkpoint, and save/control_dependency after it
    save/RestoreV2                  every variable out of a checkpoint
    save/AssignVariableOp[_k]       each into its variable (save/Assign for a reference variable)
    save/restore_all                what a loader runs

With them go a SaverDef, which names the ends, and the collection ``variables``, a VariableDef each: TensorFlow 2 finds
the variables of a TensorFlow 1 graph there and nowhere else (``tensorflow/python/eager/wrap_function.py``,
``_lift_unlifted_variables``). The nodes are those of ``tensorflow/python/training/saver.py`` (``BaseSaverBuilder``),
with ops that TensorFlow has had since 0.12.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from modelio.errors import WriteError
from modelio.model import GraphModel, Message
from modelio.wire import messages
from modelio.wire.dtypes import numpy_to_tensor

__all__ = ["COLLECTION", "SAVER", "add_saver"]

SAVER = "saver_def"
"""The key of a model's ``extra`` that holds its SaverDef."""

COLLECTION = "collection_def/"
"""What precedes a collection's name in the keys of ``extra`` that hold CollectionDefs."""


class _Kind(NamedTuple):
    """How the variables of one op are read and assigned; ``dtype`` is the attribute of both ops that says the type."""

    read: str
    read_name: str
    assign: str
    dtype: str
    resource: bool


_REFERENCE = _Kind("Identity", "read", "Assign", "T", resource=False)
_KINDS = {
    "VarHandleOp": _Kind("ReadVariableOp", "Read/ReadVariableOp", "AssignVariableOp", "dtype", resource=True),
    "VariableV2": _REFERENCE,
    "Variable": _REFERENCE,
}


def add_saver(model: GraphModel) -> GraphModel:
    """The same model with the nodes, the SaverDef and the collection that restore ``model.variables``.

    A variable belongs to the node whose ``shared_name``, or else whose name, is its key.

    Raises:
        WriteError: a variable has no such node.
    """
    graph = messages.GraphDef()
    graph.CopyFrom(model.graph)
    work = _Work(graph)
    names = sorted(model.variables)
    nodes = work.variable_nodes(names)
    reads = [work.read(node) for node in nodes]
    types = [node.attr["dtype"].type for node in nodes]

    prefix = work.text("Const", b"model", scalar=True)
    save = work.add("SaveV2", [prefix, *work.names_and_slices("SaveV2", names), *reads])
    save.attr["dtypes"].list.type.extend(types)
    saved = work.add("Identity", [prefix, f"^{save.name}"], name="control_dependency")
    saved.attr["T"].type = messages.DataType.DT_STRING

    restore = work.add("RestoreV2", [prefix, *work.names_and_slices("RestoreV2", names)])
    restore.attr["dtypes"].list.type.extend(types)
    assigns = [
        work.assign(node, f"{restore.name}:{index}" if index else restore.name) for index, node in enumerate(nodes)
    ]
    done = work.add("NoOp", [f"^{assign}" for assign in assigns], name="restore_all")

    saver = messages.SaverDef(
        filename_tensor_name=f"{prefix}:0",
        save_tensor_name=f"{saved.name}:0",
        restore_op_name=done.name,
        max_to_keep=5,  # as tf.train.Saver does; TensorFlow reads 0 as "keep every checkpoint"
        keep_checkpoint_every_n_hours=10000,
        version=messages.SaverDef.V2,
    )
    collection = messages.CollectionDef()
    for node, read, assign in zip(nodes, reads, assigns, strict=True):
        definition = messages.VariableDef(
            variable_name=f"{node.name}:0",
            # There is no other initial value than the file's: without a checkpoint, initializing fails and says so.
            initializer_name=assign,
            snapshot_name=f"{read}:0",
            is_resource=_KINDS[node.op].resource,
        )
        collection.bytes_list.value.append(messages.serialize(definition))
    added = {SAVER: messages.serialize(saver), f"{COLLECTION}variables": messages.serialize(collection)}
    return replace(model, graph=graph, extra={**model.extra, **added})


class _Work:
    """A graph to which nodes are added below one free scope."""

    def __init__(self, graph: Message) -> None:
        self.graph = graph
        self._names = {node.name for node in graph.node}
        self._taken: dict[str, int] = {}  # the last number that each name was given
        self._readers = {
            (node.op, node.input[0].removesuffix(":0")): node.name
            for node in reversed(graph.node)
            if node.op in ("ReadVariableOp", "Identity") and node.input
        }
        scopes = {name.partition("/")[0] for name in self._names}
        count = 0
        self._scope = "save"
        while self._scope in scopes:
            count += 1
            self._scope = f"save_{count}"

    def variable_nodes(self, names: Sequence[str]) -> list[Message]:
        """The node of each variable."""
        found: dict[str, Message] = {}
        for node in self.graph.node:
            if node.op in _KINDS:
                shared = node.attr["shared_name"].s if "shared_name" in node.attr else b""
                found[shared.decode("utf-8", "replace") or node.name] = node
        for name in names:
            if name not in found:
                raise WriteError("no node of the graph is this variable, so nothing could restore it", where=name)
        return [found[name] for name in names]

    def read(self, variable: Message) -> str:
        """The name of a node that reads the variable: one that is there, or a new one."""
        kind = _KINDS[variable.op]
        if (kind.read, variable.name) in self._readers:
            return str(self._readers[kind.read, variable.name])
        node = self.graph.node.add(name=self._free(f"{variable.name}/{kind.read_name}"), op=kind.read)
        node.input.append(variable.name)
        node.attr[kind.dtype].type = variable.attr["dtype"].type
        return str(node.name)

    def assign(self, variable: Message, value: str) -> str:
        """The name of a new node that puts ``value`` into the variable."""
        kind = _KINDS[variable.op]
        node = self.add(kind.assign, [variable.name, value])
        node.attr[kind.dtype].type = variable.attr["dtype"].type
        return str(node.name)

    def names_and_slices(self, owner: str, names: Sequence[str]) -> list[str]:
        """The two constants that SaveV2 and RestoreV2 take: what, and which part of it (all)."""
        keys = [name.encode() for name in names]
        return [
            self.text(f"{owner}/tensor_names", *keys),
            self.text(f"{owner}/shape_and_slices", *[b""] * len(keys)),
        ]

    def text(self, name: str, *values: bytes, scalar: bool = False) -> str:
        """The name of a new constant of strings."""
        node = self.add("Const", [], name=name)
        node.attr["dtype"].type = messages.DataType.DT_STRING
        strings = np.array(values, dtype=object)
        node.attr["value"].tensor.CopyFrom(numpy_to_tensor(strings[0] if scalar else strings))
        return str(node.name)

    def add(self, op: str, inputs: Sequence[str], *, name: str | None = None) -> Message:
        node = self.graph.node.add(name=self._free(f"{self._scope}/{name or op}"), op=op)
        node.input.extend(inputs)
        return node

    def _free(self, name: str) -> str:
        free, count = name, self._taken.get(name, 0)
        while free in self._names:
            count += 1
            free = f"{name}_{count}"
        self._taken[name] = count
        self._names.add(free)
        return free
