"""Surgery on a graph: keep one signature, bind placeholders, prune to outputs. Back come a new model and what changed.

The other operations are the modules beside this one; the package says in which order they are done.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError
from modelio.graph.analysis import AMBIGUOUS_SCALAR, PLACEHOLDERS, Graph, required_placeholders, role_of
from modelio.graph.meta_graph import SIGNATURE
from modelio.graph.references import OBJECTS, OTHERS, named, node_of, referenced, without
from modelio.graph.saver import COLLECTION
from modelio.graph.surgery.folding import counted, drop_functions, fold
from modelio.graph.surgery.propagation import forget_places
from modelio.graph.tables import MAIN_OP, main_op
from modelio.graph.variables import VARIABLES, by_name, shared_name
from modelio.model import GraphModel, Message, Signature, TensorSpec
from modelio.wire import dtypes, messages

__all__ = ["bind", "forget_layers", "keep_signature", "nearest", "prune", "without_objects"]

_INIT = f"{SIGNATURE}__saved_model_init_op"
_INITIALIZERS = (MAIN_OP, f"{COLLECTION}legacy_init_op")
"""The keys of a model's ``extra`` that name what a loader runs once."""

_LAYERS = "assets.extra/modelio"
"""What the keys of ``extra`` begin with under which a graph of ours remembers its layers (layers/notes.py)."""

_OF_OBJECTS = ("keras_metadata.pb", OTHERS)
"""The keys of a model's ``extra`` that say nothing without its objects, and of MetaGraphs that share its variables."""


def keep_signature(model: GraphModel, name: str) -> tuple[GraphModel, list[str]]:
    """The model with one signature only; nodes that only others need stay until :func:`prune`."""
    if name not in model.signatures:
        raise ConversionError(f"no signature is called {name!r}{nearest(name, model.signatures)}")
    gone = [other for other in model.signatures if other != name]
    return replace(model, signatures={name: model.signatures[name]}), [f"signature {other} removed" for other in gone]


def nearest(name: str, there: Iterable[str]) -> str:
    """What to say of a name that is not there: those that are like it, or all if they are few.

    >>> nearest("dense/softmax", ["dense/Softmax", "conv/Relu"])
    "; there is 'dense/Softmax'"
    """
    known = list(there)
    folded = {other.lower(): other for other in reversed(known)}
    close = [folded[other] for other in get_close_matches(name.lower(), folded, n=3, cutoff=0.6)]
    listed = close or (known if len(known) <= 8 else [])
    if not known:
        return "; there is none"
    return f"; there {'is' if len(listed) == 1 else 'are'} {', '.join(map(repr, listed))}" if listed else ""


def without_objects(model: GraphModel) -> GraphModel:
    """A TensorFlow 2 export as a graph as TensorFlow 1 had them, without its Python objects."""
    return _plain(model) if OBJECTS in model.extra else model


def _plain(model: GraphModel) -> GraphModel:
    """Variables are keyed by their nodes, nothing restores them yet, and no other MetaGraph shares them.

    What a loader runs first is named by the collection, which all of them read. A signature that names it is taken for
    one that can be called, by TensorFlow 2 without objects, and refused where a file's name is fed
    (``python/saved_model/load_v1_in_v2.py``, ``_extract_signatures``).
    """
    plain = by_name(model)
    extra = {key: data for key, data in plain.extra.items() if key not in _OF_OBJECTS}
    if _INIT in extra:
        definition = messages.parse(messages.SignatureDef, extra.pop(_INIT), where=f"extra[{_INIT!r}]")
        names = [node_of(info.name) for info in definition.outputs.values()]
        if len(names) == 1 and MAIN_OP not in extra:
            extra[MAIN_OP] = main_op(names[0])
    return replace(plain, extra=extra, meta={key: fact for key, fact in plain.meta.items() if key != "tag_sets"})


def forget_layers(model: GraphModel) -> tuple[GraphModel, list[str]]:
    """The model without what it remembers of the layers that it was lowered from, where that is true no longer."""
    left = {key: data for key, data in model.extra.items() if not key.startswith(_LAYERS)}
    if len(left) == len(model.extra):
        return model, []
    return replace(model, extra=left), ["what the graph remembers of its layers removed: it is another graph now"]


# ---------------------------------------------------------------------------------------------------------- bind


def bind(model: GraphModel, values: Mapping[str, Any]) -> tuple[GraphModel, list[str]]:
    """The model with placeholders turned into constants, and what follows from these folded (:func:`.folding.fold`).

    Args:
        model: a graph with placeholders.
        values: node name, or the role ``"learning_phase"`` (every placeholder that has it), to value. A string is read
            as JSON says it (``"false"``, ``"0.5"``); for a placeholder of strings it is taken as it is.

    Raises:
        ConversionError: no such placeholder, a value that does not fit its dtype or shape, or an output of a signature
            lies on a branch that is never taken with this value.
    """
    if OBJECTS in model.extra:
        raise ConversionError(
            "a TensorFlow 2 export is loaded from its functions, not from the placeholders around them: binding one "
            "would change nothing there. Convert it to a frozen graph, or prune it to its outputs as well"
        )
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
    folded, changes = fold(replace(model, graph=graph, signatures=signatures, constants=constants), bound=bound)
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


# --------------------------------------------------------------------------------------------------------- prune


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
    model = _plain(model)
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
    kept = _reached(index, [*asked, *keep])
    extra = {key: data for key, data in model.extra.items() if key not in _INITIALIZERS}
    for key in _INITIALIZERS:
        needed = _reached(index, referenced({key: model.extra[key]})) if key in model.extra else set()
        if _share_state(index, kept, needed):
            kept |= needed
            extra[key] = model.extra[key]
    kept |= _reached(index, fed)  # an input need not be a placeholder
    gone = [node.name for node in model.graph.node if node.name not in kept]
    pruned = _only(model, kept, without(extra, gone))
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


def _reached(index: Graph, tensors: Iterable[str]) -> set[str]:
    """The nodes that these tensors need, over data and control inputs."""
    waiting = [node_of(tensor) for tensor in tensors]
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [source for source, _ in index.inputs(name)]
    return reached


def _share_state(index: Graph, nodes: set[str], others: set[str]) -> bool:
    """Is there a node in both whose state one may fill for the other: a table, a variable?"""
    return any(_has_state(index, name) for name in nodes & others)


def _has_state(index: Graph, name: str) -> bool:
    node = index.node(name)
    return node.op in VARIABLES or any(dtype in ("resource", "string_ref") for dtype in index.output_dtypes(name))


def _only(model: GraphModel, kept: set[str], extra: Mapping[str, bytes]) -> GraphModel:
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
