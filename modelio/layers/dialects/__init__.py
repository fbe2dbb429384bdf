"""A model from one dialect of Keras into another, without Keras.

::

    LayerModel  --network_of, bind-->  normal form  --rewriting, meanings-->  what means the same in the target
                                                    --architecture, calls, objects-->  its JSON
                                                    --groups-->  its weights
                training, optimizer    --training, slots-->  what compile is told, and the optimizer's state

The rules are tables: classes and keywords in ``keras1.py``, ``keras2.py`` and ``keras3.py``, arguments in
``arguments.py``, layouts of weights in ``layouts.py``, changes of meaning in ``dialects/meanings.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from modelio.errors import ConversionError
from modelio.layers.binding import OWN, bind
from modelio.layers.dialects.account import Account
from modelio.layers.dialects.architecture import written
from modelio.layers.dialects.groups import groups_of
from modelio.layers.dialects.objects import Target
from modelio.layers.dialects.rewriting import rewritten
from modelio.layers.dialects.site import Site
from modelio.layers.dialects.slots import state_of
from modelio.layers.dialects.training import training_of
from modelio.layers.lora import merge
from modelio.layers.network import backend_of, network_of
from modelio.layers.normal_form import Network
from modelio.layers.shapes import shapes_of
from modelio.layers.vocabularies import is_vocabulary
from modelio.model import Dialect, LayerModel

__all__ = ["NEWEST", "translate"]

NEWEST: dict[Dialect, tuple[int, ...]] = {"keras2": (2, 21, 0), "keras3": (3, 15, 0)}
"""The version that is written for where none is asked for: of tf_keras, and of Keras."""


def translate(
    model: LayerModel, target: Dialect, version: tuple[int, ...] | None = None
) -> tuple[LayerModel, list[str], list[str]]:
    """The model as another Keras would have written it.

    Args:
        model: as it was read. Its weights stay lazy: nothing is read but the vocabulary of a layer for text.
        target: ``"keras2"`` or ``"keras3"``; the model's own dialect gives the model itself, whatever the version.
        version: of the target; left out, the newest. No argument and no class that is younger is written.

    Returns:
        The model, a line for every kind of change, and a line for everything that the target cannot say.

    Raises:
        ConversionError: the model has weights alone, or the target is Keras 1.
        ReadError: the weights do not fit the architecture.
    """
    if target == model.dialect:
        return model, [], []
    if target not in NEWEST:
        known = ", ".join(get_args(Dialect))
        raise ConversionError(f"nothing is translated to {target!r}; of {known}, keras2 and keras3 can be written")
    if model.architecture is None:
        raise ConversionError(
            "this model has weights alone, and how they are laid out follows the architecture; give it, too"
        )
    account = Account()
    given = model.training or model.architecture.get("compile_config") or None
    goal = Target(target, version or NEWEST[target])
    network = network_of(model.architecture, model.dialect, model.meta)
    if any(model.weights.values()) or model.assets:
        bind(network, model)
        merge(network)
    moved = {f"{layer.path}/" for layer in network.walk() if "vocabulary" in layer.weights}  # to the arguments
    site = Site(goal, account, backend=backend_of(model.architecture, model.meta))
    means = rewritten(network, site, shapes_of(network))
    training = None if given is None else training_of(given, goal, account)
    class_name = str(model.architecture.get("class_name", network.kind))
    architecture = written(means, class_name, model.architecture.get("trainable") is not False, goal, account)
    spelled = ".".join(map(str, goal.version))
    if target == "keras2":
        architecture = {**architecture, "keras_version": spelled, "backend": "tensorflow"}
    weights = groups_of(means, goal) if model.weights else {}
    if model.weights.get(OWN):
        weights[OWN] = dict(model.weights[OWN])
    meta = {**model.meta, "keras_version": spelled, "backend": "tensorflow"}
    state = state_of(replace(model, training=given), training, goal, lambda network: _again(network, site), account)
    translated = replace(
        model,
        architecture=architecture,
        weights=weights,
        dialect=target,
        training=training,
        optimizer=state,
        meta=meta,
        assets={
            name: file
            for name, file in model.assets.items()
            if not (is_vocabulary(name) and any(map(name.startswith, moved)))
        },
    )
    return translated, account.changes, account.losses


def _again(network: Network, site: Site) -> Network:
    """The same translation of other numbers: the account has it already."""
    return rewritten(network, replace(site, account=Account()), shapes_of(network))
