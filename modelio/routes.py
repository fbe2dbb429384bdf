"""The table of steps between levels, and the walk along it.

::

    layers --lower--> graph --freeze--> frozen

A format has a level; the walk takes a model from the level it has to the level that the target's format wants. Each
step says what it changed and what it lost; losing something that this model has is a warning, or an error where strict.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelio.errors import ConversionError, LossyConversion
from modelio.format import Format, Level, Model
from modelio.model import GraphModel, LayerModel, Signature

__all__ = ["Conversion", "Walk", "from_live", "level_of", "run", "to_live", "walk"]


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    ``data`` is the bytes where no target was given; ``route`` the formats and steps in order; ``losses`` what the model
    had and the target has not; ``changes`` every change made on the way.
    """

    data: bytes | None
    target: Any
    route: tuple[str, ...]
    losses: tuple[str, ...]
    changes: tuple[str, ...]


@dataclass
class Walk:
    """A model under way, and the account of it."""

    model: Model
    route: tuple[str, ...]
    losses: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    meanings: tuple[str, ...] = ()
    """What a dialect cannot say, a sentence each."""


@dataclass(frozen=True)
class Step:
    """One step between two levels: ``run`` returns the new model and the changes it made."""

    name: str
    start: Level
    end: Level
    run: Callable[[Any], tuple[Model, list[str]]]
    loses: frozenset[str] = field(default_factory=frozenset)


def _lower(model: LayerModel) -> tuple[Model, list[str]]:
    from modelio.lowering import lower

    return lower(model)


def _freeze(model: GraphModel) -> tuple[Model, list[str]]:
    from modelio.graph.edit import freeze

    return freeze(model)


STEPS = (
    Step("lower", "layers", "graph", _lower, frozenset({"training", "optimizer"})),
    Step("freeze", "graph", "frozen", _freeze),
)


def level_of(model: Model) -> Level:
    """``"layers"``, ``"graph"``, or ``"frozen"`` for a graph without variables."""
    if isinstance(model, LayerModel):
        return "layers"
    return "graph" if model.variables else "frozen"


def walk(
    model: Model,
    origin: Format | None,
    goal: Format,
    *,
    bind: Mapping[str, Any] | None = None,
    signature: str | None = None,
    strict: bool = False,
    engine: str | None = None,
    dialect: str | None = None,
    architecture: Model | None = None,
) -> Walk:
    """Take ``model`` to the level of ``goal``."""
    if engine is not None:
        raise ConversionError(f"the engine {engine!r} is not built yet; every layer needs a rule of its own")
    level = level_of(model)
    state = Walk(model, (origin.name if origin else level,))
    if isinstance(model, LayerModel):
        _refuse_graph_options(bind, signature)
        if architecture is not None:
            _join(state, architecture)
        _translate(state, origin, goal, dialect)
    elif dialect or architecture is not None:
        raise ConversionError("dialect= and architecture= are for layers, and this is a graph: leave them out")
    for step in _road(level, goal):
        state.losses += tuple(sorted(_has(state.model) & step.loses))
        state.model, changes = step.run(state.model)
        state.changes += tuple(changes)
        state.route += (step.name,)
    if isinstance(state.model, GraphModel) and (bind or signature):
        _edit(state, bind, signature)
    state.route += (goal.name,)
    state.losses += tuple(sorted(_has(state.model) - goal.keeps - set(state.losses)))
    accounts = [f"{goal.name} does not keep {', '.join(state.losses)} of this model"] if state.losses else []
    state.losses += state.meanings
    for account in (*accounts, *state.meanings):
        if strict:
            raise LossyConversion(f"{account}; leave out strict=True (--strict) to accept that")
        warnings.warn(account, stacklevel=3)
    return state


def run(model: Model, signature: str) -> Callable[..., dict[str, Any]]:
    """One signature of a model as a function, on TensorFlow, in this process."""
    runtime = importlib.import_module("modelio.runtime.tensorflow")
    graph = _lower(model)[0] if isinstance(model, LayerModel) else model
    assert isinstance(graph, GraphModel)  # what lowering gives
    if signature == "serving_default" and signature not in graph.signatures and "graph" in graph.signatures:
        signature = "graph"
    made: Callable[..., dict[str, Any]] = runtime.callable_of(graph, signature)
    return made


def from_live(keras_model: Any) -> LayerModel:
    """The layers of a live Keras model."""
    made: LayerModel = importlib.import_module("modelio.runtime.keras").from_live(keras_model)
    return made


def to_live(model: Model, custom_objects: Mapping[str, Any] | None) -> Any:
    """The live Keras model of layers."""
    if not isinstance(model, LayerModel):
        raise ConversionError("this is a graph, and Keras builds models from layers: convert the file it was made from")
    return importlib.import_module("modelio.runtime.keras").to_live(model, custom_objects)


def _road(level: Level, goal: Format) -> list[Step]:
    """The steps from ``level`` to the level of ``goal``, in order."""
    order: list[Level] = ["layers", "graph", "frozen"]
    if goal.level == "layers" and level != "layers":
        raise ConversionError(
            f"{goal.name} holds layers, and this is a graph: an architecture cannot be told from a graph yet; "
            "convert the Keras file that it was made from"
        )
    return [step for step in STEPS if order.index(level) <= order.index(step.start) < order.index(goal.level)]


def _join(state: Walk, architecture: Model) -> None:
    from modelio.layers.joining import join

    if not isinstance(architecture, LayerModel) or not isinstance(state.model, LayerModel):
        raise ConversionError("architecture= is a Keras architecture, and what was given is a graph")
    state.model, changes = join(state.model, architecture)
    state.changes += tuple(changes)
    state.route += ("join",)


def _translate(state: Walk, origin: Format | None, goal: Format, dialect: str | None) -> None:
    """Rewrite the layers in the dialect that is asked for, or in the newest that the target's format holds.

    From a format into itself nothing is rewritten, and a model that was never in a file stays as it is where it can.
    """
    assert isinstance(state.model, LayerModel)  # the caller looked
    version: tuple[int, ...] | None = None
    wanted: Any = state.model.dialect
    if dialect is not None:
        found = re.fullmatch(r"(keras[123])((?:\.\d+)*)", dialect)
        if found is None:
            raise ConversionError(f"{dialect!r} is no dialect: keras2 or keras3, or with a version, keras3.15")
        wanted = found[1]
        version = tuple(int(number) for number in f"{found[1][-1]}{found[2]}".split(".")) if found[2] else None
    elif goal.dialects is not None and (wanted not in goal.dialects or origin not in (None, goal)):
        wanted = max(goal.dialects)
    if wanted == state.model.dialect:
        return
    from modelio.layers.dialects import translate

    state.model, changes, losses = translate(state.model, wanted, version)
    state.changes += tuple(changes)
    state.meanings += tuple(losses)
    state.route += (wanted,)


def _refuse_graph_options(bind: Mapping[str, Any] | None, signature: str | None) -> None:
    if bind:
        raise ConversionError(
            "bind= names placeholders of a graph; what is lowered from layers has none but its inputs: leave it out"
        )
    if signature:
        raise ConversionError("signature= chooses one of a graph's signatures; a Keras model has one: leave it out")


def _edit(state: Walk, bind: Mapping[str, Any] | None, signature: str | None) -> None:
    from modelio.graph import edit

    assert isinstance(state.model, GraphModel)  # the caller looked
    if signature:
        state.model, changes = edit.keep_signature(state.model, signature)
        state.changes += tuple(changes)
    if bind:
        state.model, changes = edit.bind(state.model, bind)
        state.changes += tuple(changes)


def _has(model: Model) -> set[str]:
    """Which of the things that a format may keep this model has."""
    if isinstance(model, LayerModel):
        parts: dict[str, object] = {
            "architecture": model.architecture,
            "weights": any(model.weights.values()),
            "training": model.training,
            "optimizer": model.optimizer,
        }
    else:
        parts = {
            "weights": model.variables or model.constants,
            "signatures": not _is_derived(model.signatures),
            "functions": len(model.graph.library.function),
            "assets": model.assets,
        }
    return {name for name, part in parts.items() if part}


def _is_derived(signatures: Mapping[str, Signature]) -> bool:
    """Does the graph alone say as much: one signature, whose keys are the names of its nodes?"""
    ends = [end for signature in signatures.values() for end in (*signature.inputs.items(), *signature.outputs.items())]
    return len(signatures) <= 1 and all(spec.tensor == f"{key}:0" for key, spec in ends)
