"""An optimizer's state in another dialect: for every trained weight what was gathered about it, and the number of
steps.

::

    Keras 1, 2 before 2.11    iterations                  all momentums, then all velocities; until 2.0.5 sorted by
                                                          the names of weights, later as the layers are
    Keras 2.11 on             iteration                   momentum and velocity, weight by weight
    Keras 3                   iteration, learning_rate    momentum and velocity, weight by weight

What is gathered about a weight has its shape, and goes the way of the weight: joined gates, turned kernels, other
names. Sources: ``optimizers.py`` of Keras 1.2.2 and 2.3.1, ``keras/optimizer_v2/*.py`` of TensorFlow 2.8, tf_keras 2.21
``src/optimizers/*.py``, Keras 3.15 ``src/optimizers/*.py`` (``build``); Keras 1.2.2, 2.0.5 and 2.0.8
``engine/training.py``, _collected_trainable_weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelio.errors import ModelioError
from modelio.layers.binding import bind
from modelio.layers.dialects.account import Account
from modelio.layers.dialects.groups import trained_names
from modelio.layers.dialects.objects import Target
from modelio.layers.dialects.training import optimizer_in
from modelio.layers.layouts import Stored, stored_of
from modelio.layers.network import network_of
from modelio.layers.normal_form import Layer, Network
from modelio.layers.order import trained, trained_first
from modelio.layers.values import version_of
from modelio.model import LayerModel, Tensor

__all__ = ["state_of"]

_SLOTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "SGD": (("m", "momentum"),),
    "RMSprop": (("velocity", "velocity"),),
    "Adam": (("m", "momentum"), ("v", "velocity")),
    "AdamW": (("m", "momentum"), ("v", "velocity")),
    "Adamax": (("m", "momentum"), ("u", "norm")),
    "Adagrad": (("accumulator", "accumulator"),),
    "Adadelta": (("accumulated_grad", "accumulated_grad"), ("accumulated_delta_var", "accumulated_delta_var")),
    "Lion": (("m", "momentum"),),
}
"""Optimizer -> what it gathers about a weight, as Keras 2 and as Keras 3 call it."""

_BEYOND = ("amsgrad", "centered", "use_ema", "gradient_accumulation_steps")
"""Arguments with which an optimizer gathers more than that."""

Remake = Callable[[Network], Network]
"""The translation of a network, as it was done for the weights."""


@dataclass(frozen=True)
class _State:
    steps: Tensor | None
    slots: list[list[Tensor]]
    """For each kind, an array for each trained weight."""


def state_of(
    model: LayerModel, training: Mapping[str, Any] | None, target: Target, remake: Remake, account: Account
) -> dict[str, Tensor]:
    """The state for the target, whose optimizer is that of ``training``; nothing, and a loss, where it is not known."""
    if not model.optimizer:
        return {}
    if account.rescaled:
        account.loss("the optimizer's state is left out: weights that it belongs to were multiplied")
        return {}
    try:
        return _translated(model, training, target, remake)
    except (_Untold, ModelioError) as error:
        account.loss(f"the optimizer's state is left out: {error.args[0]}")
        return {}


class _Untold(Exception):
    pass


def _translated(
    model: LayerModel, training: Mapping[str, Any] | None, target: Target, remake: Remake
) -> dict[str, Tensor]:
    source, goal = optimizer_in(model.training), optimizer_in(training)
    if source is None or goal is None:
        raise _Untold("nothing tells which optimizer it belongs to")
    name, config = goal
    if (
        name not in _SLOTS
        or any(source[1].get(key) for key in _BEYOND)
        or (name == "RMSprop" and config.get("momentum"))
    ):
        raise _Untold(f"{name} keeps more than a translation knows of")
    assert model.architecture is not None  # translate looked
    network = network_of(model.architecture, model.dialect, model.meta)
    order = _trained(network, model)
    wanted = _SLOTS[name]
    state = _parsed(model, order, len(wanted), "decay" in source[1])
    means: list[dict[str, Tensor]] = []
    for slot in state.slots:
        arrays = dict(zip(order, slot, strict=True))
        weights = {
            layer: {key: arrays.get((layer, key), tensor) for key, tensor in group.items()}
            for layer, group in model.weights.items()
        }
        bound = bind(network_of(model.architecture, model.dialect, model.meta), replace(model, weights=weights))
        means.append(trained_names(remake(bound), target))
    if not means and name == "SGD":  # Keras 2 keeps a momentum also where it is told to use none
        names = trained_names(remake(bind(network, model)), target)
        means = [{key: _zeros(tensor) for key, tensor in names.items()}]
    return _written(state, means, wanted, name, config, target)


def _zeros(tensor: Tensor) -> Tensor:
    return Tensor(tensor.dtype, tensor.shape, lambda: np.zeros(tensor.shape, tensor.dtype))


def _trained(network: Network, model: LayerModel) -> list[tuple[str, str]]:
    """Layer and name of every trained weight, in the order in which the source's optimizer counts them."""

    def own(layer: Layer) -> tuple[Stored, ...]:
        return stored_of(layer) or ()

    order: list[tuple[str, str]] = []
    for layer in network.layers:
        names = list(model.weights.get(layer.name, ()))
        slots = trained_first(layer, own)
        if len(slots) != len(names):
            raise _Untold(f"the weights of {layer.name} are not known one by one")
        order += [(layer.name, name) for name, _ in zip(names, trained(layer, own), strict=False)]
    if model.dialect == "keras3" or _version(model) >= (2, 0, 8):
        return order
    if _version(model) >= (2, 0, 6):
        raise _Untold("Keras 2.0.6 or 2.0.7 began to order it as the layers are, and it is not known which")
    if not all(name.endswith(":0") for _, name in order):
        raise _Untold("Theano's names, by which Keras sorted it until 2.0.5, are not in the file")
    return sorted(order, key=lambda place: place[1])


def _parsed(model: LayerModel, order: Sequence[tuple[str, str]], kinds: int, legacy: bool) -> _State:
    scalars = [tensor for tensor in model.optimizer.values() if not tensor.shape]
    arrays = [tensor for tensor in model.optimizer.values() if tensor.shape]
    count = len(order)
    new = model.dialect == "keras3" or (model.dialect == "keras2" and _version(model) >= (2, 11))
    by_weight = new and not legacy
    if not by_weight and len(arrays) == (kinds + 1) * count and all(tensor.shape == (1,) for tensor in arrays[-count:]):
        arrays = arrays[:-count]  # Keras 2.2 to 2.3 have a placeholder for amsgrad
    if len(arrays) not in (0, kinds * count):
        raise _Untold(f"it has {len(arrays)} arrays for {count} trained weights")
    if by_weight:
        slots = [arrays[kind::kinds] for kind in range(kinds)]
    else:
        slots = [arrays[kind * count : (kind + 1) * count] for kind in range(kinds)]
    if not arrays:
        slots = []
    for slot in slots:
        for (layer, name), tensor in zip(order, slot, strict=True):
            if model.weights[layer][name].shape != tensor.shape:
                raise _Untold(f"what it has for {name} is of another shape")
    return _State(scalars[0] if scalars else None, slots)


def _version(model: LayerModel) -> tuple[int, ...]:
    facts = model.architecture or {}
    return version_of(model.meta.get("keras_version") or facts.get("keras_version")) or (int(model.dialect[-1]),)


def _written(
    state: _State,
    means: list[dict[str, Tensor]],
    wanted: tuple[tuple[str, str], ...],
    name: str,
    config: Mapping[str, Any],
    target: Target,
) -> dict[str, Tensor]:
    kept = name.lower()
    new = target.dialect == "keras3"
    steps = state.steps
    count = Tensor(np.int64, (), lambda: np.asarray(0 if steps is None else steps.numpy()).astype(np.int64).reshape(()))
    made: dict[str, Tensor] = {f"{kept}/iteration" if new else "iteration:0": count}
    if new and isinstance(config.get("learning_rate"), (int, float)):
        made[f"{kept}/learning_rate"] = Tensor.of(np.asarray(config["learning_rate"], np.float32))
    if name == "SGD" and new and not config.get("momentum"):
        return made
    if not means:
        raise _Untold(f"{name} starts without a state")
    pairs = [(weight, kind) for weight in means[0] for kind in range(len(wanted))]
    if not new and target.version < (2, 11):
        pairs = [(weight, kind) for kind in range(len(wanted)) for weight in means[0]]
    for weight, kind in pairs:
        old_word, new_word = wanted[kind]
        own = f"{kept}/{weight.replace('/', '_')}_{new_word}" if new else f"{name}/{old_word}/{weight}"
        made[own] = means[kind][weight]
    return made
