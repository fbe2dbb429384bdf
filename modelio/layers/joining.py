"""Weights that were stored alone, and the architecture that they belong to, become one model.

Layers are matched by name; where the names differ and the numbers of layers with weights agree, by position, as
``model.load_weights`` of every Keras matches them. What does not match is told whole: missing, surplus, and shapes.
"""

from __future__ import annotations

from dataclasses import replace

from modelio.errors import ConversionError, ReadError
from modelio.layers.binding import OWN, bind
from modelio.layers.catalogue import weights_of
from modelio.layers.network import network_of
from modelio.layers.normal_form import Layer
from modelio.layers.weight_groups import is_by_path, joined
from modelio.model import LayerModel

__all__ = ["join"]


def join(weights: LayerModel, architecture: LayerModel) -> tuple[LayerModel, list[str]]:
    """The whole model, and a line for every layer that was matched by position.

    Args:
        weights: a model without an architecture, or whose own is to be replaced.
        architecture: a model with one; its weights are not looked at.

    Raises:
        ReadError: groups are missing or left over, or shapes do not fit; all of them are listed.
        ConversionError: ``architecture`` has none, or is of another dialect than the weights.
    """
    if architecture.architecture is None:
        raise ConversionError("what was given as architecture= holds weights only")
    if is_by_path(weights) and any(weights.weights.values()):
        # A .weights.h5 names paths and neither layers nor a dialect; by position, equal shapes could be swapped unseen.
        weights = replace(joined(weights, architecture), dialect=architecture.dialect)
    if weights.dialect != architecture.dialect:
        raise ConversionError(
            f"the weights are of {weights.dialect} and the architecture is of {architecture.dialect}; "
            "give the architecture that was saved with them"
        )
    network = network_of(architecture.architecture, architecture.dialect, architecture.meta)
    groups = {name: group for name, group in weights.weights.items() if group and name != OWN}
    wanted = [layer.name for layer in network.layers if _has_weights(layer) or layer.name in groups]
    missing = [name for name in wanted if name not in groups]
    surplus = [name for name in groups if name not in wanted]
    if len(missing) != len(surplus):
        raise ReadError(
            "the weights are not those of this architecture: "
            + "; ".join(
                f"{word} {', '.join(names)}" for word, names in (("missing", missing), ("left over", surplus)) if names
            )
        )
    source = dict(zip(wanted, groups, strict=True)) if missing else {name: name for name in wanted}
    matched = {layer.name: groups[source[layer.name]] if layer.name in source else {} for layer in network.layers}
    if weights.weights.get(OWN):
        matched[OWN] = weights.weights[OWN]
    whole = replace(
        weights,
        architecture=architecture.architecture,
        weights=matched,
        training=weights.training or architecture.training,
        meta={**architecture.meta, **weights.meta},
        assets=weights.assets or architecture.assets,
    )
    bind(network, whole)
    return whole, [f"layer {name} has the weights of {own}, by position" for name, own in source.items() if name != own]


def _has_weights(layer: Layer) -> bool:
    return any(weights_of(part.class_name, part.config) for part in layer.walk())
