"""Bind placeholders to values: each becomes a constant, and what follows from it is folded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError
from modelio.graph.analysis import AMBIGUOUS_SCALAR, PLACEHOLDERS, role_of
from modelio.graph.references import named, node_of
from modelio.graph.surgery.edit import forget_layers, nearest, without_objects
from modelio.graph.surgery.folding import fold
from modelio.model import GraphModel, Message
from modelio.wire import dtypes, messages

__all__ = ["bind"]


def bind(model: GraphModel, values: Mapping[str, Any], *, keep: Iterable[str] = ()) -> tuple[GraphModel, list[str]]:
    """The model with placeholders turned into constants, and what follows from these folded (:func:`.folding.fold`).

    Args:
        model: a graph with placeholders.
        values: node name, or the role ``"learning_phase"`` (every placeholder that has it), to value. A string is read
            as JSON says it (``"false"``, ``"0.5"``); for a placeholder of strings it is taken as it is.
        keep: nodes and tensors that somebody will ask for by their names.

    Raises:
        ConversionError: no such placeholder, a value that does not fit its dtype or shape, or an output of a signature
            lies on a branch that is never taken with this value.
    """
    model = without_objects(model)  # loaded from its functions, it would know nothing of what is bound around them
    graph = messages.GraphDef()
    graph.CopyFrom(model.graph)
    nodes = {node.name: node for node in graph.node}
    bound: dict[str, str] = {}
    defaults: list[str] = []
    for key, value in values.items():
        for name in _placeholders(nodes, key):
            defaults += map(node_of, nodes[name].input)
            bound[name] = _make_constant(nodes[name], value, graph.versions.producer <= AMBIGUOUS_SCALAR)
    unused = _unused(graph, defaults, named(model))
    for index in reversed([index for index, node in enumerate(graph.node) if node.name in unused]):
        del graph.node[index]
    signatures = {
        name: replace(
            signature,
            inputs={key: spec for key, spec in signature.inputs.items() if node_of(spec.tensor) not in bound},
        )
        for name, signature in model.signatures.items()
    }
    constants = {name: tensor for name, tensor in model.constants.items() if name not in unused}
    model = replace(model, graph=graph, signatures=signatures, constants=constants)
    folded, changes = fold(model, bound=bound, keep=keep)
    folded, forgotten = forget_layers(folded)
    return folded, [*(f"placeholder {name} bound to {value}" for name, value in bound.items()), *changes, *forgotten]


def _placeholders(nodes: Mapping[str, Message], key: str) -> list[str]:
    """The placeholders that a key of ``bind`` means."""
    name = node_of(key)
    if name in nodes and nodes[name].op in PLACEHOLDERS:
        return [name]
    there = [name for name, node in nodes.items() if node.op in PLACEHOLDERS]
    found = [name for name in there if role_of(nodes[name]) == key]
    if not found:
        what = f"; the node of that name is a {nodes[name].op}" if name in nodes else nearest(key, there)
        raise ConversionError(f"no placeholder {key!r} to bind{what}")
    return found


def _make_constant(node: Message, value: Any, legacy: bool) -> str:
    """Turn a placeholder into a constant, and say its value. ``legacy``: the shape of a scalar also means unknown."""
    name, device, number = node.name, node.device, node.attr["dtype"].type
    array = _as_array(value, dtypes.numpy_dtype(number, where=name), name)
    wanted = dtypes.shape_to_tuple(node.attr["shape"].shape) if "shape" in node.attr else None
    if wanted is None or (legacy and not wanted):
        fits = True
    else:
        fits = len(wanted) == array.ndim and all(w in (None, s) for w, s in zip(wanted, array.shape, strict=True))
    if not fits:
        raise ConversionError(f"a value of shape {array.shape} does not fit the shape {wanted}", where=name)
    node.Clear()
    node.name, node.op, node.device = name, "Const", device
    node.attr["dtype"].type = number
    node.attr["value"].tensor.CopyFrom(dtypes.numpy_to_tensor(array))
    node.attr["value"].tensor.dtype = number  # of a quantized type NumPy has the plain numbers only
    text = str(array.tolist())
    return text if len(text) <= 60 else f"an array of shape {list(array.shape)}"


def _as_array(value: Any, dtype: np.dtype[Any], where: str) -> npt.NDArray[Any]:
    """A value of the user's as an array of a placeholder's dtype; it may be rounded to a float, and to nothing else."""
    spoken = "string" if dtype.kind == "O" else str(dtype)
    shown = repr(value) if len(repr(value)) <= 60 else f"a {type(value).__name__}"
    misfit = ConversionError(f"{shown} is no value for a {spoken} placeholder", where=where)
    try:
        if isinstance(value, str) and dtype.kind != "O":
            value = json.loads(value.lower())
        given = np.asarray(value)
        if given.dtype.kind == "c" and dtype.kind != "c":
            raise misfit
        if dtype.kind == "O":
            if given.dtype.kind in "SU" or all(isinstance(item, (str, bytes)) for item in given.reshape(-1)):
                return np.array(given.tolist(), object)
            raise misfit
        with np.errstate(all="ignore"):
            array = given.astype(dtype)
        exact = array.dtype.kind not in "biu" or (given.dtype.kind in "biu" and bool(np.all(array == given)))
        if not exact or given.dtype.kind in "OSUMm":
            raise misfit
    except (TypeError, ValueError, OverflowError, RecursionError):  # JSONDecodeError is a ValueError
        raise misfit from None
    return array


def _unused(graph: Message, names: Iterable[str], keep: set[str]) -> set[str]:
    """Those of the nodes that nothing takes anything from, and so on back."""
    inputs = {node.name: [node_of(text) for text in node.input] for node in graph.node}
    counts = Counter(name for sources in inputs.values() for name in sources)
    waiting = [name for name in names if name in inputs]
    unused: set[str] = set()
    while waiting:
        name = waiting.pop()
        if counts[name] or name in keep or name in unused:
            continue
        unused.add(name)
        counts.subtract(inputs[name])
        waiting += inputs[name]
    return unused
