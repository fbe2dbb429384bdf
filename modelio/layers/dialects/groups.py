"""The weights of a translated model: in the target's order, under names such as the target gives.

::

    layer                        Keras 2                                      Keras 3
    dense                        dense/kernel:0                               dense/kernel
    dense in the model encoder   dense/kernel:0                               encoder/dense/kernel
    lstm                         lstm/lstm_cell/kernel:0                      lstm/lstm_cell/kernel
    bidirectional                bidirectional/forward_lstm/lstm_cell/...:0   bidirectional/forward_lstm/lstm_cell/...
    time_distributed             time_distributed/kernel:0                    time_distributed/dense/kernel

HDF5 groups are trained weights first in every Keras (:mod:`modelio.layers.order`). Source of the names: files of
tf_keras 2.21 and Keras 3.15.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from modelio.layers.catalogue import weights_of
from modelio.layers.dialects.objects import Target
from modelio.layers.layouts import Stored
from modelio.layers.normal_form import Layer, Network
from modelio.layers.order import Slot, trained, trained_first
from modelio.model import Tensor

__all__ = ["groups_of", "trained_names"]

_CELLS = {"LSTM": "lstm_cell", "GRU": "gru_cell", "SimpleRNN": "simple_rnn_cell"}

_ROLES: Mapping[tuple[str, str], str] = {
    ("keras2", "vector_u"): "sn_u",
    ("keras3", "depthwise_kernel"): "kernel",
}
"""Names of roles that differ; Keras 3 has a depthwise_kernel in SeparableConv alone."""


def groups_of(network: Network, target: Target) -> dict[str, dict[str, Tensor]]:
    """Layer -> name -> tensor, of a network whose layers have their weights."""
    return {layer.name: _group(layer, target) for layer in network.layers}


def trained_names(network: Network, target: Target) -> dict[str, Tensor]:
    """The weights that training changes, by name, in the target's order."""
    names: dict[str, Tensor] = {}
    for layer in network.layers:
        group = _group(layer, target)
        count = len(trained(layer, _own))
        for name in list(group)[:count]:
            names[name if name not in names else f"{layer.name}/{name}"] = group[name]
    return names


def _group(top: Layer, target: Target) -> dict[str, Tensor]:
    chains = _chains(top, ())
    slots = trained_first(top, _own)
    plain = [_name(slot, chains[slot.layer], target) for slot in slots]
    counts = Counter(plain)
    group: dict[str, Tensor] = {}
    for slot, name in zip(slots, plain, strict=True):
        if counts[name] > 1:
            name = _joined([layer.name for layer in chains[slot.layer]], slot, target)
        while name in group:
            name = f"_{name}"
        group[name] = slot.layer.weights[slot.stored.name]
    return group


def _own(layer: Layer) -> tuple[Stored, ...]:
    known = {weight.role: weight.trainable for weight in weights_of(layer.class_name, layer.config, layer.family) or ()}
    return tuple(Stored(role, (), known.get(role, True)) for role in layer.weights)


def _chains(layer: Layer, above: tuple[Layer, ...]) -> dict[Layer, tuple[Layer, ...]]:
    """Every layer inside, with those that it is in, from the outermost on."""
    chain = (*above, layer)
    chains = {layer: chain}
    for child in layer.children():
        chains.update(_chains(child, chain))
    return chains


def _name(slot: Slot, chain: tuple[Layer, ...], target: Target) -> str:
    if target.dialect == "keras3":
        return _joined([layer.name for layer in chain], slot, target)
    parts = []
    for index, layer in enumerate(chain):
        distributed = index and chain[index - 1].class_name == "TimeDistributed"
        if layer.network is None and not distributed:
            parts.append(layer.name)
    return _joined(parts, slot, target)


def _joined(parts: list[str], slot: Slot, target: Target) -> str:
    role = slot.stored.name
    if not slot.layer.class_name.startswith("SeparableConv"):
        role = _ROLES.get((target.dialect, role), role)
    cell = _CELLS.get(slot.layer.class_name) if target.dialect == "keras3" or target.version >= (2, 4) else None
    name = "/".join([*parts, *([cell] if cell else []), role])
    return name if target.dialect == "keras3" else f"{name}:0"
