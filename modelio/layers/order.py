"""In which order each Keras lists the weights of a model: in HDF5 groups, and in ``model.get_weights()``.

Two orders exist:

* *trained first*: all trainable weights of everything inside, then all others. The HDF5 groups of every version are
  written so, one group a top-level layer.
* *layer by layer*: all weights of the first layer, then of the second, and so on inside.

They differ where a model, or a wrapper, holds layers that have both kinds, such as BatchNormalization.

======================  ==========================================  =================================================
``get_weights()`` of    inside a top-level layer                    source
======================  ==========================================  =================================================
Keras 1, 2.0 to 2.3     trained first                               Keras 1.2.2 ``engine/topology.py`` get_weights,
                                                                    2.3.1 ``engine/network.py`` get_weights
Keras 1, a Sequential   a Sequential layer by layer                 Keras 1.2.2 ``models.py`` get_weights
Keras 2.0 and 2.1,      the first layer, where it is a model,       Keras 2.1.6 ``models.py`` add, get_weights: the
a Sequential            layer by layer, and what is first in that   tensors of that model are its own
tf.keras from 1.15 on   models layer by layer, others trained       TensorFlow 1.15 ``keras/engine/network.py``,
                        first                                       ``base_layer.py``: weights
Keras 3                 layer by layer                              Keras 3.15 ``src/layers/layer.py`` weights
======================  ==========================================  =================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from modelio.layers.layouts import Stored
from modelio.layers.normal_form import Layer, Network

__all__ = [
    "ORDERS",
    "Order",
    "Own",
    "Slot",
    "layer_by_layer",
    "models_layer_by_layer",
    "order_of_get_weights",
    "trained",
    "trained_first",
]


class Slot(NamedTuple):
    """A place for one stored array."""

    layer: Layer
    stored: Stored


Own = Callable[[Layer], tuple[Stored, ...]]
"""The arrays of a layer itself, without those inside it."""

Order = Callable[[Layer, Own], list[Slot]]


def trained_first(layer: Layer, own: Own) -> list[Slot]:
    """The order of a layer's group in HDF5 files."""
    trained, others = _divided(layer, own)
    return trained + others


def trained(layer: Layer, own: Own) -> list[Slot]:
    """Those of a layer's group that training changes, in their order: what an optimizer keeps its state for."""
    return _divided(layer, own)[0]


def _divided(layer: Layer, own: Own) -> tuple[list[Slot], list[Slot]]:
    trained: list[Slot] = []
    others: list[Slot] = []
    for stored in own(layer):
        (trained if stored.trainable else others).append(Slot(layer, stored))
    for child in layer.children():
        of_child = _divided(child, own)
        trained += of_child[0]
        others += of_child[1]
    return (trained, others) if layer.trainable else ([], trained + others)


def layer_by_layer(layer: Layer, own: Own) -> list[Slot]:
    """The order of Keras 3's ``layer.weights``."""
    slots = [Slot(layer, stored) for stored in own(layer)]
    for child in layer.children():
        slots += layer_by_layer(child, own)
    if layer.class_name == "SpectralNormalization":
        # It lists the kernel of the layer inside as its own (``src/layers/normalization/spectral_normalization.py``).
        kernels = [slot for slot in slots if slot.layer is not layer][:1]
        slots = kernels + [slot for slot in slots if slot not in kernels]
    return slots


def models_layer_by_layer(layer: Layer, own: Own) -> list[Slot]:
    """The order of ``weights`` in tf.keras: a model goes by layers, everything else trained first."""
    if layer.network is None:
        return trained_first(layer, own)
    return [slot for child in layer.children() for slot in models_layer_by_layer(child, own)]


ORDERS: tuple[Order, ...] = (trained_first, layer_by_layer, models_layer_by_layer)
"""Every order that a group of arrays may be in, the usual one first."""


def _sequentials_layer_by_layer(layer: Layer, own: Own) -> list[Slot]:
    """A Sequential as Keras 1 has it inside another: each of its layers answers for itself."""
    if layer.network is None:
        return trained_first(layer, own)
    inside = _sequentials_layer_by_layer if layer.network.kind == "Sequential" else trained_first
    return [slot for child in layer.children() for slot in inside(child, own)]


def _flattened(layer: Layer, own: Own) -> list[Slot]:
    """A model that stands first in a Sequential of Keras 2.0 or 2.1: its layers are there instead of it."""
    if layer.network is None:
        return trained_first(layer, own)
    children = [child for child in layer.children() if child.class_name != "InputLayer"]
    first = children[0] if layer.network.kind == "Sequential" else None
    return [slot for child in children for slot in (_flattened if child is first else trained_first)(child, own)]


_ONE_SEQUENTIAL_SINCE = {"keras": (2, 2), "tf.keras": (2, 1, 5)}
"""Family -> since when a Sequential is a model as others are: Keras 2.2.0, TensorFlow 1.8 ``engine/sequential.py``."""


def order_of_get_weights(layer: Layer, network: Network | None = None) -> Order:
    """How the version that wrote a model orders ``get_weights()`` inside a top-level layer of ``network``."""
    if layer.dialect == "keras3":
        return layer_by_layer
    if layer.family == "tf.keras" and layer.version >= (2, 2, 4):
        return models_layer_by_layer
    if network is not None and network.kind == "Sequential":
        if layer.dialect == "keras1":
            return _sequentials_layer_by_layer
        first = next((one for one in network.layers if one.class_name != "InputLayer"), None)
        if layer is first and (2,) < layer.version < _ONE_SEQUENTIAL_SINCE[layer.family]:
            return _flattened
    return trained_first
