"""Activations in another Keras: some have another name, some are not there, and ``hard_sigmoid`` is another function.

Sources: Keras 3.15 ``src/activations/*.py``, tf_keras 2.21 ``src/activations.py`` and ``src/backend.py``, Keras 1.2.2
and 2.3.1 ``activations.py``; ``step`` and ``call`` of the recurrent layers of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from modelio.layers.arguments import class_since
from modelio.layers.dialects.objects import Target
from modelio.layers.dialects.site import Site, crosses, told
from modelio.layers.dialects.substitutes import RECIPES, activated, derived
from modelio.layers.normal_form import Layer

__all__ = ["RECURRENT", "activation", "hard_gates"]

RECURRENT: Mapping[str, tuple[int, Mapping[str, tuple[int, ...]]]] = {
    **dict.fromkeys(
        ("LSTM", "LSTMCell", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), (4, {"recurrent_activation": (0, 1, 3)})
    ),
    **dict.fromkeys(("GRU", "GRUCell"), (3, {"recurrent_activation": (0, 1), "activation": (2,)})),
    **dict.fromkeys(("SimpleRNN", "SimpleRNNCell"), (1, {"activation": (0,)})),
}
"""Class -> how many gates lie side by side in its weights, and which of them go into an activation and nowhere else."""

_ARGUMENTS = ("activation", "recurrent_activation")

_STEEPER = 1.2
"""How much steeper hard_sigmoid is in Keras 1 and 2 than in Keras 3."""

_NEW_MEANING = "hard_sigmoid is clip(0.2 x + 0.5, 0, 1) in Keras 1 and 2, relu6(x + 3) / 6 in Keras 3"
_DIFFERENT = "nothing makes up for it, so that outputs differ"


def hard_gates(layer: Layer, site: Site) -> Layer | None:
    """A gate's hard_sigmoid is the other one of weights that are multiplied: ``x / 5 == 1.2 * x / 6``."""
    if not crosses(layer, site):
        return None
    count, gates = RECURRENT[layer.class_name]
    factor = _STEEPER if site.target.dialect == "keras3" else 1 / _STEEPER
    scales = np.ones(count)
    for argument in _ARGUMENTS:
        if layer.config.get(argument) != "hard_sigmoid":
            continue
        if argument not in gates or not layer.weights:
            site.account.loss(f"{_NEW_MEANING}; {_DIFFERENT}", layer.path)
            return None
        scales[list(gates[argument])] = factor
    if (scales == 1).all():
        return None
    site.account.loss(
        f"{_NEW_MEANING}; the weights of its gates are multiplied by {factor:.4g}, so that outputs stay, but these "
        "weights are not those of the source, and training goes on in other steps",
        layer.path,
    )
    site.account.rescaled = True
    weights = {role: derived(tensor.shape, tensor, _scaled(scales)) for role, tensor in layer.weights.items()}
    return replace(layer, weights=weights)


def _scaled(scales: Any) -> Callable[[Any], Any]:
    """Each gate's part of the last axis times its own factor."""

    def change(array: Any) -> Any:
        return (array * np.repeat(scales, array.shape[-1] // len(scales))).astype(array.dtype)

    return change


_SAME = {("keras2", "celu"): "elu"}
"""(dialect, activation that it lacks) -> one that it has and that is the same."""

_ONLY_IN_KERAS_3 = frozenset({"glu", "hard_shrink", "sparse_plus", "sparsemax", "squareplus", "threshold"})
"""Those that nothing in Keras 2 makes up for."""


def activation(layer: Layer, site: Site) -> Layer:
    """A layer whose activation the target lacks, or knows as something else: a model that ends in a recipe for it."""
    target = site.target
    names = {key: layer.config[key] for key in _ARGUMENTS if isinstance(layer.config.get(key), str)}
    layer = told(layer, **{key: _SAME.get((target.dialect, name), name) for key, name in names.items()})
    name = layer.config.get("activation")
    recipe = RECIPES[target.dialect].get(name) if isinstance(name, str) else None
    if recipe is None or layer.class_name in RECURRENT or (name == "hard_sigmoid" and not crosses(layer, site)):
        for key in names:
            _unknown(layer, layer.config[key], site)
        return layer
    made = activated(layer, recipe, site.shape) if _has_parts(target) else None
    if made is None:
        reason = _NEW_MEANING if name == "hard_sigmoid" else f"{target.title} has no activation {name}"
        site.account.loss(f"{reason}; {_DIFFERENT}", layer.path)
        return layer
    parts = " + ".join([step[0] for step in recipe.steps] + [recipe.join] * bool(recipe.join))
    reason = "another function of that name" if name == "hard_sigmoid" else "none of that name"
    site.account.change(
        f"activation {name} -> {parts} in a model of the layer's name, since {target.title} has {reason}", layer.path
    )
    return made


def _unknown(layer: Layer, name: str, site: Site) -> None:
    target = site.target
    missing = {*_ONLY_IN_KERAS_3, *RECIPES["keras2"]} - {"hard_sigmoid"}
    if target.dialect == "keras2" and name in missing:
        site.account.loss(f"{target.title} has no activation {name}", layer.path)
    if name == "gelu" and len(layer.version) > 1 and layer.version < (2, 4):
        site.account.loss(
            f"gelu was somebody's own function before Keras 2.4, exact or approximate; that of {target.title} is exact",
            layer.path,
        )


def _has_parts(target: Target) -> bool:
    """Has it the layers that recipes are made of?"""
    needed = (class_since(name, target.dialect) for name in ("Rescaling", "ReLU"))
    return all(since is not None and since <= target.version for since in needed)
