"""Rename nodes, wherever they are named: as inputs, by the signatures, by the saver and the collections.

A key that ends in ``/`` is a scope, all nodes below it: ``{"net/": "model/"}`` moves them, ``{"net/": ""}`` takes the
scope away.

A variable's key in the checkpoint is its own, and stays where a saver says it; without one the key is the node's name,
and goes with it (:mod:`modelio.graph.variables`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from modelio.errors import ConversionError
from modelio.graph import references
from modelio.graph.names import VARIABLES, shared_name
from modelio.graph.saver import SAVER
from modelio.graph.surgery.edit import forget_layers, nearest
from modelio.model import GraphModel, Message, Signature, TensorSpec
from modelio.wire import messages

__all__ = ["rename"]

_LEGAL = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
"""A node's name (``ValidateOpName`` in ``tensorflow/core/framework/node_def_util.cc``)."""

_PLACE = "loc:@"


def rename(model: GraphModel, names: Mapping[str, str]) -> tuple[GraphModel, list[str]]:
    """The model with other names for some of its nodes.

    Args:
        model: a graph.
        names: old to new, of nodes, or of scopes where both end in ``/`` (or the new one is empty).

    Raises:
        ConversionError: there is no such node; the new name is none, or is taken.
    """
    there = [node.name for node in model.graph.node]
    new = _resolved(there, names)
    if not new:
        return model, []
    graph = messages.GraphDef()
    graph.CopyFrom(model.graph)
    for node in graph.node:
        _rename_in(node, new)
    derived = _is_derived(model.signatures)
    signatures = {name: _signature(one, new, derived) for name, one in model.signatures.items()}
    # A constant inside a function has the key "function:node".
    constants = {new.get(name, name): tensor for name, tensor in model.constants.items()}
    variables = model.variables
    if SAVER not in model.extra and references.OBJECTS not in model.extra:
        keys = {
            node.name: new[node.name]
            for node in model.graph.node
            if node.op in VARIABLES and node.name in new and shared_name(node) == node.name
        }
        variables = {keys.get(key, key): tensor for key, tensor in model.variables.items()}
        _share(graph, keys)
    extra = references.changed(model.extra, lambda tensor: references.renamed(tensor, new))
    changes = [f"node {old} renamed to {name}" for old, name in new.items()]
    if len(changes) > 8:
        changes = [f"{len(changes):,} nodes renamed: {', '.join(f'{old} to {name}' for old, name in names.items())}"]
    whole = replace(model, graph=graph, signatures=signatures, constants=constants, variables=variables, extra=extra)
    renamed, forgotten = forget_layers(whole)
    return renamed, changes + forgotten


def _resolved(there: list[str], names: Mapping[str, str]) -> dict[str, str]:
    """Old name to new, of every node that gets another."""
    known = set(there)
    new: dict[str, str] = {}
    for old, name in names.items():
        if old.endswith("/"):
            if name and not name.endswith("/"):
                raise ConversionError(f"{old!r} is a scope, and {name!r} is not: write {name + '/'!r}")
            below = [node for node in there if node.startswith(old)]
            if not below:
                scopes = {node.rpartition("/")[0] + "/" for node in there if "/" in node}
                raise ConversionError(f"no node is below the scope {old!r}{nearest(old, sorted(scopes))}")
            found = {node: name + node.removeprefix(old) for node in below}
        elif old not in known:
            raise ConversionError(f"no node is called {old!r}{nearest(old, there)}")
        else:
            found = {old: name}
        for node, name in found.items():
            if new.setdefault(node, name) != name:
                raise ConversionError(f"it is to be called {new[node]!r} and {name!r}", where=node)
    new = {node: name for node, name in new.items() if node != name}
    taken: dict[str, str] = {node: node for node in there if node not in new}
    for node, name in new.items():
        if not _LEGAL.fullmatch(name):
            raise ConversionError(f"{name!r} is no name that TensorFlow takes for a node", where=node)
        if name in taken:
            raise ConversionError(
                f"{name!r} is what another node is called, {taken[name]!r}; rename that one too"
                if taken[name] != name
                else f"there is a node called {name!r} already; rename that one too",
                where=node,
            )
        taken[name] = node
    return new


def _rename_in(node: Message, new: Mapping[str, str]) -> None:
    if node.name in new:
        node.name = new[node.name]
    if any(references.node_of(text) in new for text in node.input):
        node.input[:] = [references.renamed(text, new) for text in node.input]
    if "_class" in node.attr:
        places = node.attr["_class"].list.s
        places[:] = [_place(place, new) for place in places]


def _place(place: bytes, new: Mapping[str, str]) -> bytes:
    """Where a node wants to be: beside another one."""
    name = place.decode("utf-8", "replace").removeprefix(_PLACE)
    return f"{_PLACE}{new[name]}".encode() if place.startswith(_PLACE.encode()) and name in new else place


def _is_derived(signatures: Mapping[str, Signature]) -> bool:
    """Is this the signature of a bare graph, whose keys are the names of nodes?"""
    ends = [end for one in signatures.values() for end in (*one.inputs.items(), *one.outputs.items())]
    return list(signatures) == ["graph"] and all(spec.tensor.removesuffix(":0") == key for key, spec in ends)


def _signature(signature: Signature, new: Mapping[str, str], derived: bool) -> Signature:
    def specs(ends: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        return {
            references.renamed(key, new) if derived else key: replace(spec, tensor=references.renamed(spec.tensor, new))
            for key, spec in ends.items()
        }

    return replace(signature, inputs=specs(signature.inputs), outputs=specs(signature.outputs))


def _share(graph: Message, keys: Mapping[str, str]) -> None:
    """A variable whose shared name was its own name, spelled out, is known by its new name."""
    for node in graph.node:
        if node.op in VARIABLES and "shared_name" in node.attr:
            shared = node.attr["shared_name"].s.decode("utf-8", "replace")
            if shared in keys and keys[shared] == node.name:
                node.attr["shared_name"].s = str(node.name).encode()
