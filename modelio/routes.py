"""The table of steps between levels, and the walk along it.

::

    layers --lower--> graph --freeze--> frozen
           <--lift---       ---lift---'

A format has a level; the walk takes a model from the level it has to the level that the target's format wants. Each
step says what it changed and what it lost; losing something that this model has is a warning, or an error where strict.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from modelio.errors import ConversionError, LossyConversion
from modelio.format import Format, Level, Model
from modelio.graph.surgery import Surgery
from modelio.model import GraphModel, LayerModel, Signature

__all__ = ["Conversion", "Lowering", "Surgery", "Walk", "from_live", "level_of", "run", "runner", "to_live", "walk"]


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


class Step(NamedTuple):
    """One step between two levels: ``run`` returns the new model and the changes it made."""

    name: str
    start: Level
    end: Level
    run: Callable[..., tuple[Model, list[str]]]
    loses: frozenset[str] = frozenset()


class Lowering(NamedTuple):
    """How layers become a graph, where the caller wants it otherwise than by the rules that there are.

    ``rules`` take the place of rules, or of a Lambda's code, by a layer's name, path or class. ``engine`` is
    ``"tensorflow"`` where Keras is to do it for the whole model, with the classes in ``custom_objects``.
    """

    rules: Mapping[str, Callable[..., Any]] | None = None
    engine: str | None = None
    custom_objects: Mapping[str, Any] | None = None

    def check(self) -> None:
        """Refuse what contradicts itself."""
        if self.engine not in (None, "tensorflow"):
            raise ConversionError(f"there is no engine {self.engine!r}: leave it out, or take 'tensorflow'")
        if self.engine and self.rules:
            raise ConversionError("rules= are for the graph that is made here, and engine= has Keras make it: take one")
        if self.custom_objects and not self.engine:
            raise ConversionError('custom_objects= are for Keras: add engine="tensorflow", or give rules=')


def _lower(model: LayerModel, how: Lowering | None = None) -> tuple[Model, list[str]]:
    if how is not None and how.engine:
        exported = importlib.import_module("modelio.runtime.engine").exported
        made: tuple[Model, list[str]] = exported(model, how.custom_objects)
        return made
    from modelio.lowering import lower

    return lower(model, None if how is None else how.rules)


def _freeze(model: GraphModel, *, inline: bool = False) -> tuple[Model, list[str]]:
    from modelio.graph.surgery.freezing import freeze

    return freeze(model, inline=inline)


def _lift(model: GraphModel, architecture: Model | None = None) -> tuple[LayerModel, list[str]]:
    from modelio.lifting import lift

    if isinstance(architecture, GraphModel):
        architecture, _ = lift(architecture)
    return lift(model, architecture)


STEPS = (
    Step("lower", "layers", "graph", _lower, frozenset({"training", "optimizer"})),
    Step("freeze", "graph", "frozen", _freeze, frozenset({"metagraphs"})),
    Step("lift", "graph", "layers", _lift),
)


def level_of(model: Model) -> Level:
    """``"layers"``, ``"graph"``, or ``"frozen"`` for a graph without variables, and without tables to be filled."""
    if isinstance(model, LayerModel):
        return "layers"
    from modelio.graph.tables import initializer_of

    return "graph" if model.variables or initializer_of(model) else "frozen"


def walk(
    model: Model,
    origin: Format | None,
    goal: Format,
    *,
    surgery: Surgery | None = None,
    strict: bool = False,
    lowering: Lowering | None = None,
    dialect: str | None = None,
    architecture: Model | None = None,
    release: str | None = None,
) -> Walk:
    """Take ``model`` to the level of ``goal``; what is asked of its graph is done on the way."""
    lowering = lowering or Lowering()
    lowering.check()
    level = level_of(model)
    state = Walk(model, (origin.name if origin else level,))
    road = _road(level, goal)
    surgery = surgery or Surgery()
    _check_surgery(surgery, model, goal)
    if isinstance(model, LayerModel):
        if architecture is not None:
            _join(state, architecture)
        _translate(state, origin, goal, dialect)
    elif goal.level == "layers":
        (step,), road = road, []
        _note(state, step.run(model, architecture))
        state.route += (step.name,)
        _translate(state, origin, goal, dialect)
    elif dialect or architecture is not None:
        raise ConversionError("dialect= and architecture= are for layers, and this is a graph: leave them out")
    if goal.level == "layers" and "assets" not in goal.keeps and (origin is not goal or dialect is not None):
        _settle(state)
    for step in [step for step in road if step.end == "graph"]:
        _take(state, step, how=lowering)
    if isinstance(state.model, GraphModel):
        _note(state, surgery.before(state.model, frozen=goal.level == "frozen"))
    for step in [step for step in road if step.end == "frozen"]:
        _take(state, step, inline=surgery.inline)
    if isinstance(state.model, GraphModel):
        _note(state, surgery.after(state.model))
    if release is not None:
        _check_release(state.model, release)
    state.route += (goal.name,)
    state.losses += tuple(sorted(_has(state.model) - goal.keeps - set(state.losses)))
    accounts = [f"{goal.name} does not keep {', '.join(state.losses)} of this model"] if state.losses else []
    state.losses += state.meanings
    for account in (*accounts, *state.meanings):
        if strict:
            raise LossyConversion(f"{account}; leave out strict=True (--strict) to accept that")
        warnings.warn(account, stacklevel=3)
    return state


def run(model: Model, signature: str, how: Lowering | None = None) -> Callable[..., dict[str, Any]]:
    """One signature of a model as a function, on TensorFlow, in this process."""
    runtime = importlib.import_module("modelio.runtime.tensorflow")
    graph = _lower(model, how)[0] if isinstance(model, LayerModel) else model
    assert isinstance(graph, GraphModel)  # what lowering gives
    if signature == "serving_default" and signature not in graph.signatures and "graph" in graph.signatures:
        signature = "graph"
    made: Callable[..., dict[str, Any]] = runtime.callable_of(graph, signature)
    return made


def runner(how: Lowering | None = None) -> Callable[[Model, str], Callable[..., dict[str, Any]]] | None:
    """:func:`run` of any model and signature, where TensorFlow is installed."""
    if importlib.util.find_spec("tensorflow") is None:
        return None
    return lambda model, signature: run(model, signature, how)


def from_live(keras_model: Any) -> LayerModel:
    """The layers of a live Keras model."""
    made: LayerModel = importlib.import_module("modelio.runtime.keras").from_live(keras_model)
    return made


def to_live(model: Model, custom_objects: Mapping[str, Any] | None) -> Any:
    """The live Keras model of layers."""
    if not isinstance(model, LayerModel):
        model, _ = _lift(model)
    return importlib.import_module("modelio.runtime.keras").to_live(model, custom_objects)


def _road(level: Level, goal: Format) -> list[Step]:
    """The steps from ``level`` to the level of ``goal``, in order."""
    order: list[Level] = ["layers", "graph", "frozen"]
    if goal.level == "layers" and level != "layers":
        return [step for step in STEPS if step.end == "layers"]  # from a frozen graph, too
    return [
        step
        for step in STEPS
        if order.index(level) <= order.index(step.start) < order.index(step.end)
        and order.index(step.end) <= order.index(goal.level)
    ]


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


def _settle(state: Walk) -> None:
    """Keep what layers adapted where every format has room for it: among their arguments."""
    from modelio.layers import vocabularies
    from modelio.layers.binding import bind
    from modelio.layers.network import network_of

    model = state.model
    if isinstance(model, LayerModel) and model.architecture is not None and vocabularies.are_in(model):
        network = bind(network_of(model.architecture, model.dialect, model.meta), model)
        _note(state, vocabularies.as_arguments(model, network))


def _check_surgery(surgery: Surgery, model: Model, goal: Format) -> None:
    """Refuse what cannot be done to this model, or could not be written then."""
    asked = surgery.asked()
    if goal.level == "layers" and asked:
        raise ConversionError(f"{asked[0]}= changes a graph, and layers are asked for: leave it out")
    if isinstance(model, LayerModel) and surgery.bind:
        raise ConversionError(
            "bind= names placeholders of a graph; what is lowered from layers has none but its inputs: leave it out"
        )
    if isinstance(model, LayerModel) and surgery.signature:
        raise ConversionError("signature= chooses one of a graph's signatures; a Keras model has one: leave it out")
    if goal.level == "frozen":
        for name in [name for name in asked if name in ("thaw", "merge", "retag")]:
            raise ConversionError(f"{name}= is for a SavedModel: {goal.name} has no place for what it makes")


def _check_release(model: Model, release: str) -> None:
    from modelio.graph.releases import check_release

    if not isinstance(model, GraphModel):
        raise ConversionError("release= says which TensorFlow loads a graph, and these are layers: take dialect=")
    check_release(model, release)


def _take(state: Walk, step: Step, **options: Any) -> None:
    state.losses += tuple(sorted(_has(state.model) & step.loses))
    _note(state, step.run(state.model, **options))
    state.route += (step.name,)


def _note(state: Walk, result: tuple[Model, list[str]]) -> None:
    """Go on with a new model, and remember what changed."""
    state.model, changes = result
    state.changes += tuple(changes)


def _has(model: Model) -> set[str]:
    """Which of the things that a format may keep this model has."""
    if isinstance(model, LayerModel):
        parts: dict[str, object] = {
            "architecture": model.architecture,
            "weights": any(model.weights.values()),
            "training": model.training,
            "optimizer": model.optimizer,
            "assets": model.assets,
        }
    else:
        parts = {
            "weights": model.variables or model.constants,
            "signatures": not _is_derived(model.signatures),
            "functions": len(model.graph.library.function),
            "assets": model.assets,
            "metagraphs": "saved_model" in model.extra,  # those with other tags
        }
    return {name for name, part in parts.items() if part}


def _is_derived(signatures: Mapping[str, Signature]) -> bool:
    """Does the graph alone say as much: one signature, whose keys are the names of its nodes?"""
    ends = [end for signature in signatures.values() for end in (*signature.inputs.items(), *signature.outputs.items())]
    return len(signatures) <= 1 and all(spec.tensor == f"{key}:0" for key, spec in ends)
