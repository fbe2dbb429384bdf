"""What a loader does to a graph before the first request, as nodes without calls.

A loader of SavedModels feeds the checkpoint's prefix, runs the saver's restore op, feeds the paths of the assets and
runs the init op (``tensorflow/cc/saved_model/loader.cc``). In TensorFlow 2 both lead into functions; here these are
written out, so that who wants to know where a variable's value or a table's content comes from follows plain inputs::

    RestoreV2(prefix, ["w", ...], ["", ...])      -> Assign(w)                  all of the checkpoint's entry w
    RestoreV2(prefix, ["w", ...], ["4 3 2,2:-"])  -> Assign(w/part_1)           two rows of it: a partitioned variable
    Const                                         -> Assign(total)              a variable that is never saved
    asset's path                                  -> InitializeTableFromTextFileV2(table)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from modelio.graph.bodies import Body, Library, port_of
from modelio.graph.references import node_of
from modelio.graph.saver import COLLECTION, SAVER
from modelio.graph.surgery.inlining import Inliner
from modelio.graph.tables import initializer_of
from modelio.model import GraphModel, Message, Tensor
from modelio.wire import dtypes, messages

__all__ = ["ASSIGNS", "Entry", "Loading", "asset_files", "loading"]

ASSIGNS = ("Assign", "AssignVariableOp")
"""Ops that put their second input into the variable that is their first."""

_RESTORES: Mapping[str, int | None] = {"RestoreV2": 2, "RestoreSlice": 2, "Restore": None}
"""Ops that read a checkpoint; which input says the part of the entry that is wanted."""

_ASSETS = "asset_file_def"


class Entry(NamedTuple):
    """An entry of the checkpoint, or a part of one: ``part`` is TensorFlow's words for it, ``""`` for all."""

    key: str
    part: str = ""


class Loading:
    """Nodes by name, their inputs spelled as in a graph; ``constants`` are the contents that lie beside them."""

    def __init__(self, nodes: Mapping[str, Message], constants: Mapping[str, Tensor]) -> None:
        self.nodes = nodes
        self.constants = constants
        self._listed: dict[str, list[str]] = {}  # a restore lists hundreds of names, for as many variables

    def source(self, text: str) -> tuple[Message | None, int]:
        """The node and the output that an input comes from, through Identity nodes."""
        for _ in range(16):  # an Identity or two stand between in the files of TensorFlow's own savers
            node = self.nodes.get(node_of(text))
            if node is None or node.op != "Identity" or not node.input:
                return node, port_of(text)
            text = node.input[0]
        return None, 0

    def entry(self, text: str) -> Entry | None:
        """What a checkpoint gives to an input; None where it comes from elsewhere."""
        node, port = self.source(text)
        if node is None or node.op not in _RESTORES or len(node.input) < 2:
            return None
        names, place = self._strings(node.input[1]), _RESTORES[node.op]
        parts = [""] * len(names)
        if place is not None:
            parts = self._strings(node.input[place]) if len(node.input) > place else []
        return Entry(names[port], parts[port]) if port < min(len(names), len(parts)) else None

    def constant(self, text: str) -> Tensor | None:
        """The constant that an input comes from; None where it is none."""
        node, _ = self.source(text)
        if node is None or node.op != "Const":
            return None
        if node.name in self.constants:
            return self.constants[node.name]
        return Tensor.of(dtypes.tensor_to_numpy(node.attr["value"].tensor, where=node.name))

    def assigned(self) -> list[tuple[str, str]]:
        """Each assignment: the variable's node, and the input that it is given."""
        found: list[tuple[str, str]] = []
        for node in self.nodes.values():
            if node.op in ASSIGNS and len(node.input) >= 2:
                variable, _ = self.source(node.input[0])
                if variable is not None:
                    found.append((str(variable.name), str(node.input[1])))
        return found

    def _strings(self, text: str) -> list[str]:
        if text not in self._listed:
            tensor = self.constant(text)
            values = [] if tensor is None or tensor.dtype.kind != "O" else tensor.numpy().reshape(-1).tolist()
            self._listed[text] = [item.decode("utf-8", "replace") for item in values]
        return self._listed[text]


def loading(model: GraphModel, *, run: bool = True, also: Collection[str] = ()) -> Loading:
    """What restores and initializes a model.

    Args:
        model: the model.
        run: whether what a loader runs is wanted.
        also: ops whose nodes are wanted with all that they need, whether a loader runs them or not.
    """
    names = {node.name for node in model.graph.node}
    roots = {node.name for node in model.graph.node if node.op in also} | ({initializer_of(model)} if run else set())
    if run and SAVER in model.extra:
        saver = messages.parse(messages.SaverDef, model.extra[SAVER], where=SAVER)
        roots.add(node_of(saver.restore_op_name))
    body = Body.of(model.graph, [f"^{name}" for name in names & roots])
    inliner = Inliner(Library(model.graph), model.constants)
    nodes = inliner.expanded(body, taken=names).nodes
    return Loading(nodes, inliner.constants)


def asset_files(model: GraphModel) -> dict[str, str]:
    """Placeholder or constant -> the file below ``assets/`` whose path it is given."""
    meta = messages.parse(messages.MetaGraphDef, model.extra.get(_ASSETS, b""), where=f"extra[{_ASSETS!r}]")
    rows = list(meta.asset_file_def)
    key = f"{COLLECTION}saved_model_assets"  # where TensorFlow 1 says the same
    collection = messages.parse(messages.CollectionDef, model.extra.get(key, b""), where=f"extra[{key!r}]")
    rows += [messages.parse(messages.AssetFileDef, row.value, where=key) for row in collection.any_list.value]
    return {node_of(row.tensor_info.name): row.filename for row in rows}
