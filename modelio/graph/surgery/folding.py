"""Fold a graph: what follows from constants alone becomes a constant, and a branch that is decided stops being one.

::

    phase = Const(false)             |  Switch(x, phase) -> x, below its output 0; all below its output 1 goes
    p = Identity(phase)              |  Merge(dead, y)   -> y; its value_index -> 1
    s = Switch(x, p)                 |  If(p, z, then_branch=f, else_branch=g) -> PartitionedCall(z, f=g)
    m = Merge(below s:1, below s:0)  |  Fill, Pack, Cast, ... of constants -> Const

A bound value is followed into the functions that it is passed to: where it decides something there, the call gets a
function of its own, without that argument. A node whose name is known outside of the graph keeps it.
:mod:`~modelio.graph.surgery.propagation` is the run over the nodes, :mod:`~modelio.graph.surgery.evaluation` computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from modelio.errors import ConversionError
from modelio.graph import references
from modelio.graph.bodies import Body, Library
from modelio.graph.surgery.edit import counted
from modelio.graph.surgery.propagation import Array, Propagation, const
from modelio.graph.surgery.pruning import drop_functions
from modelio.model import GraphModel, Message, Signature, Tensor, TensorSpec
from modelio.wire import messages
from modelio.wire.skim import content_key

__all__ = ["fold"]

_DEEPEST = 64
"""Calls within calls into which a value is followed."""


def fold(model: GraphModel, *, bound: Iterable[str] = (), keep: Iterable[str] = ()) -> tuple[GraphModel, list[str]]:
    """The model with what its constants decide carried out.

    Flags, whole numbers and single numbers are computed with. Arrays of floats are weights: they stay the nodes that
    they are, but for what follows from the nodes ``bound``. Nodes in ``keep`` stay, under their names, as those do that
    signatures name.

    Raises:
        ReadError: the graph is none: an input names no node, nodes wait for each other.
        ConversionError: an output of a signature lies on a branch that is never taken.
    """
    work = _Work(model)
    ends = {
        spec.tensor for one in model.signatures.values() for ends in (one.inputs, one.outputs) for spec in ends.values()
    }
    named = references.referenced(model.extra) | ends | set(keep)
    folding = Propagation(work, Body.of(model.graph, (), whole=True), named, bound)
    folding.run()
    if not (folding.computed or folding.decided):
        return model, []
    for name, signature in model.signatures.items():
        _check(name, signature, folding)
    gone = folding.clear()
    constants = {name: tensor for name, tensor in model.constants.items() if name not in gone} | work.constants
    graph = work.graph(folding.body)
    if references.OBJECTS not in model.extra:
        drop_functions(model.graph, graph, constants)
    folded = replace(
        model,
        graph=graph,
        constants=constants,
        signatures={name: _renamed(signature, folding) for name, signature in model.signatures.items()},
        extra=references.without(model.extra, gone),
    )
    parts = [
        (folding.decided, "branch decided", "branches decided"),
        (folding.computed, "node computed", "nodes computed"),
        (len(gone), "node removed that nothing needs any longer", "nodes removed that nothing needs any longer"),
    ]
    return folded, [", ".join(counted(*part) for part in parts if part[0])]


def _check(name: str, signature: Signature, folding: Propagation) -> None:
    """Refuse to leave a signature without one of its outputs."""
    for key, spec in signature.outputs.items():
        if folding.is_dead(spec.tensor):
            raise ConversionError(
                f"the output {key!r} of the signature {name!r} lies on a branch that is never taken with this value: "
                "bind another, or keep only a signature that has it",
                where=references.node_of(spec.tensor),
            )


def _renamed(signature: Signature, folding: Propagation) -> Signature:
    """The signature with the tensors that stand for its own now."""

    def now(spec: TensorSpec) -> TensorSpec:
        tensor = folding.now(spec.tensor)
        return spec if tensor == spec.tensor else replace(spec, tensor=tensor if ":" in tensor else f"{tensor}:0")

    return replace(
        signature,
        inputs={key: now(spec) for key, spec in signature.inputs.items()},
        outputs={key: now(spec) for key, spec in signature.outputs.items()},
    )


class _Work:
    """What the foldings of a graph and of its functions share."""

    def __init__(self, model: GraphModel) -> None:
        self.model = model
        self.library = Library(model.graph)
        self.constants: dict[str, Tensor] = {}
        self.spent = 0
        self.made: dict[tuple[object, ...], str | None] = {}
        self._new: list[Message] = []

    def graph(self, body: Body) -> Message:
        """The graph of folded nodes, with the functions that were made on the way."""
        source, made = self.model.graph, messages.GraphDef()
        for part in ("library", "versions", "debug_info"):
            if source.HasField(part):
                getattr(made, part).CopyFrom(getattr(source, part))
        made.version = source.version
        made.library.function.extend(self._new)
        made.node.extend(body.nodes.values())
        return made

    def specialized(self, name: str, given: Mapping[int, Array], depth: int, caller: str) -> str | None:
        """The name of a function that has these of its arguments built in; None where that would decide nothing."""
        key = (name, *((index, array.dtype.str, array.shape, array.tobytes()) for index, array in given.items()))
        if depth > _DEEPEST or any(array.dtype.hasobject for array in given.values()):
            return None
        if key not in self.made:
            self.made[key] = None  # what calls itself is left as it is
            self.made[key] = self._specialize(name, given, depth, caller)
        return self.made[key]

    def _specialize(self, name: str, given: Mapping[int, Array], depth: int, caller: str) -> str | None:
        body = self.library.body(name, caller)
        body.reached(everything=True)  # all that is named is there
        original = self.library.functions[name]
        if original.signature.attr:  # polymorphic
            return None
        inside = {body.arguments[index]: array for index, array in given.items()}
        constants = {argument: const(argument, array, (), "") for argument, array in inside.items()}
        body.nodes = {**constants, **body.nodes}
        body.arguments = tuple(argument for argument in body.arguments if argument not in inside)
        folding = Propagation(self, body, (*body.outputs, *body.ends), inside, depth)
        folding.run()
        if not folding.decided or any(folding.is_dead(text) for text in (*body.outputs, *body.ends)):
            return None
        folding.clear()
        count = 0
        while f"{name}_bound_{count}" in self.library:
            count += 1
        body.function = f"{name}_bound_{count}"
        body.outputs = [folding.now(text) for text in body.outputs]
        definition = _without_arguments(original, given)
        made = self.library.define(body, definition)
        self.library.functions[body.function] = made
        self._new.append(made)
        for node in body.nodes:
            content = self.model.constants.get(content_key(node, name))
            if content is not None:
                self.constants[content_key(node, body.function)] = content
        return body.function


def _without_arguments(original: Message, given: Mapping[int, object]) -> Message:
    """The definition of a function, for one that has these arguments no longer."""
    made = messages.FunctionDef()
    made.CopyFrom(original)
    arguments = original.signature.input_arg
    kept = [index for index in range(len(arguments)) if index not in given]
    del made.signature.input_arg[:]
    made.signature.input_arg.extend(arguments[index] for index in kept)
    made.arg_attr.clear()
    made.resource_arg_unique_id.clear()
    for new, old in enumerate(kept):
        if old in original.arg_attr:
            made.arg_attr[new].CopyFrom(original.arg_attr[old])
        if old in original.resource_arg_unique_id:
            made.resource_arg_unique_id[new] = original.resource_arg_unique_id[old]
    made.attr.pop("_input_shapes", None)
    return made
