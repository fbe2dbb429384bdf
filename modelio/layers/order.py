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
tf.keras from 1.15 on   models layer by layer, others trained       TensorFlow 1.15 ``keras/engine/network.py``,
                        first                                       ``base_layer.py``: weights
Keras 3                 layer by layer                              Keras 3.15 ``src/layers/layer.py`` weights
======================  ==========================================  =================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelio.layers.layouts import Stored
from modelio.layers.normal_form import Layer

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


@dataclass(frozen=True)
class Slot:
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


def order_of_get_weights(layer: Layer) -> Order:
    """How the version that wrote a model orders ``get_weights()`` inside a top-level layer."""
    if layer.dialect == "keras3":
        return layer_by_layer
    if layer.family == "tf.keras" and layer.version >= (2, 2, 4):
        return models_layer_by_layer
    return trained_first
