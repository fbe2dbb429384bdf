"""Prune a graph: what no output needs goes, nodes, variables, constants and functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from modelio.errors import ConversionError
from modelio.graph.analysis import Graph, required_placeholders
from modelio.graph.bodies import called
from modelio.graph.names import VARIABLES, shared_name
from modelio.graph.references import node_of, referenced, without
from modelio.graph.surgery.edit import counted, forget_layers, forget_places, nearest, plain_graph
from modelio.graph.tables import LEGACY, MAIN_OP
from modelio.model import GraphModel, Message, Signature, Tensor, TensorSpec
from modelio.wire import messages

__all__ = ["drop_functions", "only", "prune", "reached"]

_INITIALIZERS = (MAIN_OP, LEGACY)
"""The keys of a model's ``extra`` that name what a loader runs once."""


def prune(
    model: GraphModel, outputs: Sequence[str] | None = None, *, keep: Iterable[str] = ()
) -> tuple[GraphModel, list[str]]:
    """The model with only the nodes, variables and functions that its outputs need.

    What restored variables is made anew when the model is written, since it named them all; what a loader runs first
    stays where it fills something that the outputs need. A TensorFlow 2 export becomes a graph as TensorFlow 1 had
    them; other MetaGraphs beside this one go.

    Args:
        model: a graph.
        outputs: tensors or nodes of the graph, or keys of outputs of its signatures: all that the model is to answer.
            Signatures lose their other outputs, and inputs that are needed no longer; an output that no signature has
            gets one. Left out: what the signatures have.
        keep: nodes that stay, with what they need.

    Raises:
        ConversionError: an output is none; the error says the nearest.
        ReadError: an input of a node names no node.
    """
    before = set(model.signatures)
    model = plain_graph(model)
    index = Graph(model.graph)
    changes: list[str] = []
    if outputs is not None:
        signatures = _answering(model, index, outputs)
        changes += [f"signature {name} removed" for name in sorted(before - set(signatures))]
        for name, signature in signatures.items():
            old = model.signatures.get(name)
            for key in [key for key in old.inputs if key not in signature.inputs] if old else ():
                changes.append(f"input {key} of the signature {name} removed: no output needs it")
        model, forgotten = forget_layers(replace(model, signatures=signatures))
        changes += forgotten
    asked = [spec.tensor for signature in model.signatures.values() for spec in signature.outputs.values()]
    fed = [spec.tensor for signature in model.signatures.values() for spec in signature.inputs.values()]
    kept = reached(index, [*asked, *keep])
    extra = {key: data for key, data in model.extra.items() if key not in _INITIALIZERS}
    for key in _INITIALIZERS:
        needed = reached(index, referenced({key: model.extra[key]})) if key in model.extra else set()
        if _share_state(index, kept, needed):
            kept |= needed
            extra[key] = model.extra[key]
    kept |= reached(index, fed)  # an input need not be a placeholder
    gone = [node.name for node in model.graph.node if node.name not in kept]
    pruned = only(model, kept, without(extra, gone))
    if gone:
        changes.append(counted(len(gone), "node", "nodes") + " removed that no output needs")
    if lost := len(model.variables) - len(pruned.variables):
        changes.append(counted(lost, "variable", "variables") + " removed that no output needs")
    return pruned, changes


def _answering(model: GraphModel, index: Graph, outputs: Sequence[str]) -> dict[str, Signature]:
    """The signatures that answer just these; what none answers yet gets one, which declares all that has to be fed."""
    if not outputs:
        raise ConversionError("a graph without outputs answers nothing: name at least one")
    by_key: dict[str, list[str]] = {}
    for signature in model.signatures.values():
        for key, spec in signature.outputs.items():
            by_key.setdefault(key, []).append(_full(spec.tensor))
    wanted = {tensor: output for output in outputs for tensor in _tensors(index, output, by_key)}
    signatures: dict[str, Signature] = {}
    left = dict(wanted)
    for name, signature in model.signatures.items():
        found = {key: spec for key, spec in signature.outputs.items() if _full(spec.tensor) in wanted}
        if found:
            signatures[name] = _fitting(index, replace(signature, outputs=found))
        for spec in found.values():
            left.pop(_full(spec.tensor), None)
    if left:
        name = "serving_default" if "serving_default" not in signatures else "outputs"
        new = {_key(tensor): _spec(index, tensor) for tensor in left}
        method = next((signature.method for signature in model.signatures.values()), "")
        inputs = {key: spec for signature in model.signatures.values() for key, spec in signature.inputs.items()}
        fitting = _fitting(index, Signature(inputs, new, method))
        signatures[name] = replace(fitting, inputs={**fitting.inputs, **_undeclared(index, fitting)})
    return signatures


def _fitting(index: Graph, signature: Signature) -> Signature:
    """The signature with those of its inputs that its outputs need."""
    fetches = [spec.tensor for spec in signature.outputs.values()]
    needed = required_placeholders(index, fetches, [spec.tensor for spec in signature.inputs.values()])
    inputs = {key: spec for key, spec in signature.inputs.items() if spec.tensor in needed.feeds}
    return replace(signature, inputs=inputs)


def _undeclared(index: Graph, signature: Signature) -> dict[str, TensorSpec]:
    """The placeholders that the outputs need beside the signature's inputs, by their names."""
    fetches = [spec.tensor for spec in signature.outputs.values()]
    needed = required_placeholders(index, fetches, [spec.tensor for spec in signature.inputs.values()])
    return {
        item.name: TensorSpec(f"{item.name}:0", item.dtype, item.shape)
        for item in needed.placeholders
        if not item.has_default and item.function is None
    }


def _tensors(index: Graph, output: str, by_key: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The tensors that an output means: one of the graph's, or what the signatures have under a key."""
    node, _, port = output.partition(":")
    if node in index:
        count = len(index.output_dtypes(node))
        if not (port or "0").isdecimal() or int(port or 0) >= count:
            raise ConversionError(f"{output!r} is no output of the node {node}, which has {count}", where=node)
        return [f"{node}:{port or 0}"]
    if output in by_key:
        return by_key[output]
    names = [*by_key, *(node.name for node in index.nodes)]
    raise ConversionError(f"no node and no output of a signature is called {output!r}{nearest(output, names)}")


def _full(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"


def _key(tensor: str) -> str:
    """How an output is called that nobody named: as its node."""
    return tensor.removesuffix(":0")


def _spec(index: Graph, tensor: str) -> TensorSpec:
    node, _, port = tensor.partition(":")
    return TensorSpec(tensor, index.output_dtypes(node)[int(port)].removesuffix("_ref"), None)


def reached(index: Graph, tensors: Iterable[str]) -> set[str]:
    """The nodes that these tensors need, over data and control inputs."""
    waiting = [node_of(tensor) for tensor in tensors]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [source for source, _ in index.inputs(name)]
    return found


def _share_state(index: Graph, nodes: set[str], others: set[str]) -> bool:
    """Is there a node in both whose state one may fill for the other: a table, a variable?"""
    return any(_has_state(index, name) for name in nodes & others)


def _has_state(index: Graph, name: str) -> bool:
    node = index.node(name)
    return node.op in VARIABLES or any(dtype in ("resource", "string_ref") for dtype in index.output_dtypes(name))


def only(model: GraphModel, kept: set[str], extra: Mapping[str, bytes]) -> GraphModel:
    """The model with these nodes, and what they need of all else."""
    graph = messages.GraphDef(version=model.graph.version)
    for part in ("library", "versions", "debug_info"):
        if model.graph.HasField(part):
            getattr(graph, part).CopyFrom(getattr(model.graph, part))
    graph.node.extend(node for node in model.graph.node if node.name in kept)
    gone = {node.name for node in model.graph.node} - kept
    for node in graph.node:
        forget_places(node, gone)
    # A constant inside a function has the key "function:node".
    constants = {name: tensor for name, tensor in model.constants.items() if name in kept or ":" in name}
    drop_functions(model.graph, graph, constants)
    keys = set(_keys(graph.node))
    variables = {key: tensor for key, tensor in model.variables.items() if key in keys}
    return replace(model, graph=graph, constants=constants, variables=variables, extra=extra)


def _keys(nodes: Iterable[Message]) -> Iterator[str]:
    return (shared_name(node) for node in nodes if node.op in VARIABLES)


def drop_functions(before: Message, graph: Message, constants: dict[str, Tensor]) -> None:
    """Take out the functions that the graph called, or could have called, and no longer can."""
    if not graph.library.function:
        return
    gone = _reachable(before) - _reachable(graph)
    gone |= _broken(graph, gone)
    for index in reversed([i for i, row in enumerate(graph.library.function) if row.signature.name in gone]):
        del graph.library.function[index]
    for key in [key for key in constants if key.partition(":")[0] in gone and ":" in key]:
        del constants[key]


def _broken(graph: Message, gone: set[str]) -> set[str]:
    """Functions that call those that go, and that nothing calls: methods of a TensorFlow 2 export's Python objects."""
    calls = {
        row.signature.name: {name for node in row.node_def for name in (node.op, *(one.name for one in called(node)))}
        for row in graph.library.function
    }
    broken: set[str] = set()
    while more := {name for name, names in calls.items() if name not in broken | gone and names & (broken | gone)}:
        broken |= more
    return broken


def _reachable(graph: Message) -> set[str]:
    functions = {row.signature.name: row for row in graph.library.function}
    waiting = list(graph.node)
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        for name in (node.op, *(function.name for function in called(node))):
            if name in functions and name not in found:
                found.add(name)
                waiting += functions[name].node_def
    gradients = {row.gradient_func for row in graph.library.gradient if row.function_name in found}
    return found | (gradients & set(functions))
