"""The order of operations: what is asked of a graph on its way from file to file, done in the order that is right.

::

    signature    keep only this one: what the others need must not stand in the way
    bind         placeholders become constants, branches go (folding)
    rename       nodes; from here on they have their new names
    signatures   set, renamed, removed; then their keys
    outputs      prune
                   freeze, where the target is a frozen graph
    inline       calls become what they call
    thaw         large constants become variables
    retag        its tags; then merge, other graphs beside it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from modelio.errors import ConversionError
from modelio.model import GraphModel, Signature

__all__ = ["SignatureChange", "Surgery"]

SignatureChange = Signature | Mapping[str, Any] | str | None
"""What becomes of a signature: ``{"inputs": {key: tensor}, "outputs": {key: tensor}, "method": ...}`` sets it (a
:class:`~modelio.Signature` does, too), a text is its new name, and None removes it."""

Result = tuple[GraphModel, list[str]]


@dataclass(frozen=True)
class Surgery:
    """What is asked for; each field is a keyword of :func:`modelio.convert`, and described there."""

    signature: str | None = None
    bind: Mapping[str, Any] | None = None
    rename: Mapping[str, str] | None = None
    signatures: Mapping[str, SignatureChange] | None = None
    rename_keys: Mapping[str, str] | None = None
    outputs: Sequence[str] | None = None
    inline: bool = False
    thaw: bool | int = False
    merge: Sequence[GraphModel] | None = None
    retag: Iterable[str] | str | None = None

    def asked(self) -> list[str]:
        """The names of what is asked for."""
        return [field.name for field in fields(self) if getattr(self, field.name)]

    def before(self, model: GraphModel, *, frozen: bool) -> Result:
        """What comes before freezing; ``frozen``: that will follow, so that no loader asks for Python objects."""
        from modelio.graph.references import OBJECTS, OTHERS
        from modelio.graph.surgery import edit

        steps: list[Callable[[GraphModel], Result]] = []
        if self.signature is not None:
            steps.append(lambda model: edit.keep_signature(model, str(self.signature)))
        if self.bind:
            from modelio.graph.surgery.binding import bind

            steps.append(lambda model: bind(model, self.bind or {}, keep=self._named()))
        if self.rename:
            from modelio.graph.surgery.renaming import rename

            steps.append(lambda model: rename(model, self.rename or {}))
        for name, change in (self.signatures or {}).items():
            steps.append(_signature(name, change))
        if self.rename_keys:
            from modelio.graph.surgery import signatures

            steps.append(lambda model: signatures.rename_keys(model, self.rename_keys or {}))
        if self.outputs is not None:
            from modelio.graph.surgery.pruning import prune

            steps.append(lambda model: prune(model, self._outputs()))
        changed, changes = _through(model, steps)
        if OTHERS in model.extra and OTHERS not in changed.extra and not frozen:
            changes.append("the other MetaGraphs removed: not all of their variables are left")
        if OBJECTS in model.extra and OBJECTS not in changed.extra and not frozen:
            changes.append("TensorFlow 2's Python objects removed: what is left is a graph as TensorFlow 1 had them")
        return changed, changes

    def _outputs(self) -> list[str]:
        return [self.outputs] if isinstance(self.outputs, str) else list(self.outputs or ())

    def _named(self) -> list[str]:
        """Nodes and tensors that are asked for by the names that they have in the file."""
        tensors: list[str] = []
        for name, change in (self.signatures or {}).items():
            if change is not None and not isinstance(change, str):
                inputs, outputs, _ = _ends(name, change)
                tensors += [*inputs.values(), *outputs.values()]
        return [*self._outputs(), *(self.rename or ()), *tensors]

    def after(self, model: GraphModel) -> Result:
        """What comes after freezing, which inlines by itself: then no call is left."""
        steps: list[Callable[[GraphModel], Result]] = []
        if self.inline:
            from modelio.graph.surgery.inlining import inline

            steps.append(inline)
        if self.thaw:
            from modelio.graph.surgery.thawing import thaw

            smallest = {} if self.thaw is True else {"smallest": int(self.thaw)}
            steps.append(lambda model: thaw(model, **smallest))
        if self.merge:
            from modelio.graph.surgery.merging import merge

            steps.append(lambda model: merge([model, *(self.merge or ())]))
        if self.retag is not None:
            from modelio.graph.surgery.merging import retag

            tags = self.retag.split(",") if isinstance(self.retag, str) else list(self.retag)
            steps.insert(0, lambda model: retag(model, tags))
        return _through(model, steps)


def _through(model: GraphModel, steps: Iterable[Callable[[GraphModel], Result]]) -> Result:
    changes: list[str] = []
    for step in steps:
        model, made = step(model)
        changes += made
    return model, changes


def _signature(name: str, change: SignatureChange) -> Callable[[GraphModel], Result]:
    from modelio.graph.surgery.signatures import PREDICT, remove_signature, rename_signature, set_signature

    if change is None:
        return lambda model: remove_signature(model, name)
    if isinstance(change, str):
        return lambda model: rename_signature(model, name, change)
    inputs, outputs, method = _ends(name, change)
    return lambda model: set_signature(model, name, inputs, outputs, method or PREDICT)


def _ends(name: str, change: Signature | Mapping[str, Any]) -> tuple[Mapping[str, str], Mapping[str, str], str]:
    """The inputs and outputs of a signature that is set, tensors by key, and its method."""
    if isinstance(change, Signature):
        inputs, outputs = ({key: spec.tensor for key, spec in ends.items()} for ends in (change.inputs, change.outputs))
        return inputs, outputs, change.method
    unknown = sorted(set(change) - {"inputs", "outputs", "method"})
    if unknown:
        raise ConversionError(f"the signature {name!r} says {unknown[0]!r}; it takes inputs, outputs and method")
    return change.get("inputs", {}), change.get("outputs", {}), change.get("method", "")
