"""Which variable of a graph is which entry of its checkpoint.

A graph that our lowering built names its variables after their keys. Elsewhere the graph itself says it: the saver's
RestoreV2 node lists the keys, and an Assign or AssignVariableOp takes each of its outputs to the variable.
"""

from __future__ import annotations

from modelio.model import GraphModel, Message
from modelio.wire import dtypes

__all__ = ["VARIABLES", "variable_keys"]

VARIABLES = ("VarHandleOp", "Variable", "VariableV2")
"""Ops that are a variable: a resource, or a reference as TensorFlow 1 had them."""

ASSIGNS = ("Assign", "AssignVariableOp")


def variable_keys(model: GraphModel) -> dict[str, str]:
    """The checkpoint's key for each variable node that has one.

    A part of a partitioned variable has no key of its own, and is left out.
    """
    nodes = {node.name: node for node in model.graph.node}
    keys = {
        name: key for name, node in nodes.items() if node.op in VARIABLES and (key := _own_key(node)) in model.variables
    }
    for node in model.graph.node:
        if node.op in ASSIGNS and len(node.input) == 2:
            variable = node.input[0].partition(":")[0]
            key = _restored(nodes, node.input[1])
            if key in model.variables and variable in nodes and nodes[variable].op in VARIABLES:
                keys[variable] = key
    return keys


def _own_key(node: Message) -> str:
    shared = node.attr["shared_name"].s.decode("utf-8", "replace") if "shared_name" in node.attr else ""
    return shared or str(node.name)


def _restored(nodes: dict[str, Message], value: str) -> str:
    """The key whose tensor arrives at an input, through Identity nodes; "" where it comes from elsewhere."""
    for _ in range(8):  # an Identity or two stand between in the files of TensorFlow's own savers
        name, _, index = value.partition(":")
        node = nodes.get(name)
        if node is None:
            return ""
        if node.op == "RestoreV2" and len(node.input) == 3:
            position = int(index or 0)
            names, slices = _strings(nodes, node.input[1]), _strings(nodes, node.input[2])
            whole = position < len(names) and position < len(slices) and not slices[position]
            return names[position] if whole else ""
        if node.op != "Identity" or not node.input:
            return ""
        value = node.input[0]
    return ""


def _strings(nodes: dict[str, Message], value: str) -> list[str]:
    node = nodes.get(value.partition(":")[0])
    if node is None or node.op != "Const":
        return []
    array = dtypes.tensor_to_numpy(node.attr["value"].tensor, where=node.name)
    return [item.decode("utf-8", "replace") for item in array.reshape(-1).tolist() if isinstance(item, bytes)]
