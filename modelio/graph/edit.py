"""Surgery on a graph: freeze, bind, keep one signature, prune. Every function returns a new model and what it changed.

Nothing here computes: a value that is bound becomes a constant, a variable that is frozen becomes a constant, and what
no output needs goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from modelio.errors import ConversionError
from modelio.graph.variables import VARIABLES, variable_keys
from modelio.model import GraphModel, Message, Tensor
from modelio.wire import dtypes, messages

__all__ = ["bind", "freeze", "keep_signature", "prune"]

PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")


def keep_signature(model: GraphModel, name: str) -> tuple[GraphModel, list[str]]:
    """The model with one signature only; nodes that only others need stay until :func:`prune`."""
    if name not in model.signatures:
        raise ConversionError(f"no signature is called {name!r}; there are {', '.join(model.signatures) or 'none'}")
    gone = [other for other in model.signatures if other != name]
    return replace(model, signatures={name: model.signatures[name]}), [f"signature {other} removed" for other in gone]


def bind(model: GraphModel, values: Mapping[str, Any]) -> tuple[GraphModel, list[str]]:
    """The model with placeholders turned into constants.

    Args:
        model: a graph with placeholders.
        values: node name, or the role ``"learning_phase"`` (every placeholder that has it), to value. A string is read
            as JSON says it (``"false"``, ``"0.5"``).

    Raises:
        ConversionError: no such placeholder, or a value that does not fit its dtype or shape.
    """
    if "object_graph_def" in model.extra:
        raise ConversionError(
            "a TensorFlow 2 export is loaded from its functions, not from the placeholders around them: "
            "binding one would change nothing there"
        )
    graph = _copied(model.graph)
    nodes = {node.name: node for node in graph.node}
    bound: dict[str, str] = {}
    for key, value in values.items():
        for name in _placeholders(nodes, key):
            bound[name] = _make_constant(nodes[name], value)
    signatures = {
        name: replace(
            signature,
            inputs={key: spec for key, spec in signature.inputs.items() if _node_of(spec.tensor) not in bound},
        )
        for name, signature in model.signatures.items()
    }
    changes = [f"placeholder {name} bound to {value}" for name, value in bound.items()]
    return replace(model, graph=graph, signatures=signatures), changes


def _placeholders(nodes: Mapping[str, Message], key: str) -> list[str]:
    """The placeholders that a key of ``bind`` means."""
    from modelio.graph.analysis import role_of

    if key in nodes and nodes[key].op in PLACEHOLDERS:
        return [key]
    there = [name for name, node in nodes.items() if node.op in PLACEHOLDERS]
    found = [name for name in there if role_of(nodes[name]) == key]
    if not found:
        raise ConversionError(f"no placeholder {key!r} to bind; there are {', '.join(there) or 'none'}")
    return found


def _make_constant(node: Message, value: Any) -> str:
    """Turn a placeholder into a constant; returns its value as text."""
    import json

    number = node.attr["dtype"].type
    dtype = dtypes.numpy_dtype(number, where=node.name)
    if isinstance(value, str) and dtype.kind != "O":
        try:
            value = json.loads(value.lower())
        except json.JSONDecodeError:
            raise ConversionError(f"{value!r} is no value for a {dtype} placeholder", where=node.name) from None
    try:
        array = np.asarray(value).astype(dtype, casting="same_kind" if not isinstance(value, (bool, int)) else "unsafe")
    except (TypeError, ValueError) as error:
        raise ConversionError(f"{value!r} is no value for a {dtype} placeholder", where=node.name) from error
    if dtype == np.dtype(bool) and not isinstance(value, (bool, np.bool_, np.ndarray)) and value not in (0, 1):
        raise ConversionError(f"{value!r} is no value for a bool placeholder: true or false", where=node.name)
    wanted = dtypes.shape_to_tuple(node.attr["shape"].shape) if "shape" in node.attr else None
    # An unknown shape was written as rank 0 before TensorFlow 1.0: a scalar says nothing there.
    if wanted and (
        len(wanted) != array.ndim or any(w not in (None, s) for w, s in zip(wanted, array.shape, strict=True))
    ):
        raise ConversionError(f"a value of shape {array.shape} does not fit the shape {wanted}", where=node.name)
    name = node.name
    node.Clear()
    node.name, node.op = name, "Const"
    node.attr["dtype"].type = number
    node.attr["value"].tensor.CopyFrom(dtypes.numpy_to_tensor(array))
    return str(array.tolist())


def prune(model: GraphModel, *, keep: Iterable[str] = ()) -> GraphModel:
    """The model without the nodes that no output of a signature needs, nor one of ``keep``; functions stay."""
    fetched = [spec.tensor for signature in model.signatures.values() for spec in signature.outputs.values()]
    fetched += keep
    kept = _reached(model.graph, fetched)
    graph = _copied(model.graph)
    del graph.node[:]
    graph.node.extend(node for node in model.graph.node if node.name in kept)
    # A constant inside a function has the key "function:node"; functions stay.
    constants = {name: tensor for name, tensor in model.constants.items() if name in kept or ":" in name}
    return replace(model, graph=graph, constants=constants)


def freeze(model: GraphModel) -> tuple[GraphModel, list[str]]:
    """The model with its variables as constants, and only the nodes that its signatures' outputs need.

    Resource variables (VarHandleOp) that are read, and reference variables (VariableV2) that only plain ops use, become
    constants; what writes variables is not needed by an output of inference, and goes.

    Raises:
        ConversionError: an output needs a variable in a way that a constant cannot serve; ``.unsupported`` lists every
            node in the way.
    """
    keys = variable_keys(model)
    pruned = prune(model)
    graph = pruned.graph
    nodes = {node.name: node for node in graph.node}
    variables = {name for name, node in nodes.items() if node.op in VARIABLES}
    constants = dict(pruned.constants)
    blocked = [f"{node.name} ({node.op})" for node in graph.node if _blocks(node, nodes)]
    blocked += [f"{name} (no value in the checkpoint)" for name in variables if keys.get(name) not in model.variables]
    if blocked:
        raise ConversionError(
            f"{len(blocked)} nodes need their variable as a variable, so it cannot become a constant: "
            f"{', '.join(blocked[:8])}{', ...' if len(blocked) > 8 else ''}",
            unsupported=blocked,
        )
    for node in graph.node:
        if node.op in VARIABLES:
            _hold(node, model.variables[keys[node.name]], constants)
        elif node.op == "ReadVariableOp":
            _become_identity(node)
        else:
            for attr in ("_class", "_output_shapes"):
                node.attr.pop(attr, None)
    extra = {name: data for name, data in model.extra.items() if name.startswith("assets.extra/")}
    frozen = replace(pruned, variables={}, constants=constants, extra=extra)
    return frozen, [f"{len(variables)} variables became constants"] if variables else []


def _blocks(node: Message, nodes: Mapping[str, Message]) -> bool:
    """Does this node use a variable in a way that a constant cannot serve?"""
    from modelio.graph.operations import op

    for index, name in enumerate(node.input):
        source = nodes.get(_node_of(name))
        if source is None or source.op not in VARIABLES or name.startswith("^"):
            continue
        if source.op == "VarHandleOp":
            if node.op != "ReadVariableOp":
                return True
        else:
            definition = op(node.op)
            if definition is None or (index < len(definition.inputs) and definition.inputs[index].is_ref):
                return True
    return False


def _hold(node: Message, tensor: Tensor, constants: dict[str, Tensor]) -> None:
    """Make a variable's node a Const whose content lies beside the graph."""
    name = node.name
    node.Clear()
    node.name, node.op = name, "Const"
    node.attr["dtype"].type = dtypes.dtype_number(tensor.dtype)
    if tensor.dtype.kind == "O":  # strings are not raw bytes: they stay in the message
        node.attr["value"].tensor.CopyFrom(dtypes.numpy_to_tensor(tensor.numpy()))
        return
    node.attr["value"].tensor.CopyFrom(dtypes.cut_tensor(node.attr["dtype"].type, tensor.shape))
    constants[name] = tensor


def _become_identity(node: Message) -> None:
    number = node.attr["dtype"].type
    node.op = "Identity"
    node.ClearField("attr")
    node.attr["T"].type = number


def _reached(graph: Message, fetched: Iterable[str]) -> set[str]:
    """Names of the nodes that these tensors need, over data and control inputs."""
    inputs = {node.name: [_node_of(name) for name in node.input] for node in graph.node}
    waiting = [_node_of(name) for name in fetched]
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        if name not in inputs:
            raise ConversionError("an input names a node that the graph does not have", where=name)
        reached.add(name)
        waiting += inputs[name]
    return reached


def _node_of(tensor: str) -> str:
    """``"^node"``, ``"node"`` and ``"node:1"`` all name a node."""
    return tensor.lstrip("^").partition(":")[0]


def _copied(graph: Message) -> Message:
    copy = messages.GraphDef()
    copy.CopyFrom(graph)
    return copy
