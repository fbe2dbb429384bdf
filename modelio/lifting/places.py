"""The places that an architecture has for weights, and what the layers around each may be called.

::

    encoder/dense/kernel      in the chain  {encoder, layer-1, layer_with_weights-0}, {dense, layer_with_weights-0}

TensorFlow 2 numbers the layers of a model where it writes checkpoints (``layer_with_weights-0/kernel``): the numbers
are names, too. Source: tf_keras 2.21 ``src/engine/functional.py`` (_trackable_children), ``src/layers/rnn/
bidirectional.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from modelio.layers.catalogue import Shape, dimensions, weights_of
from modelio.layers.layouts import Stored, rearranged, stored_of
from modelio.layers.network import Layer, Network
from modelio.layers.order import trained_first
from modelio.layers.shapes import shapes_of
from modelio.lifting.candidates import Candidate
from modelio.model import Tensor

__all__ = ["Names", "Slot", "slots_of"]

Names = frozenset[str]
"""All that one layer may be called."""


@dataclass(eq=False)
class Slot:
    """A place for one weight.

    Args:
        top: the top-level layer that it is in.
        layer: its layer.
        stored: the weight, as this version stores it; ``roles``: what it may be called.
        chain: the names of the layers that it is in, from the outermost on, and how else each may be called.
        wrapped: how many names at the end of the chain belong to one wrapper: any of them will do.
        shape: the shape that it must have, as far as it is known.
    """

    top: Layer
    layer: Layer
    stored: Stored
    roles: tuple[str, ...]
    chain: tuple[Names, ...]
    wrapped: int = 1
    shape: Shape | None = None
    candidate: Candidate | None = field(default=None, repr=False)

    @property
    def path(self) -> str:
        return f"{self.layer.path}/{self.stored.name}"

    def fits(self, tensor: Tensor) -> bool:
        """Whether a tensor may be this weight, by its shape."""
        if self.shape is None:
            return True
        return len(self.shape) == len(tensor.shape) and all(
            size in (None, has) for size, has in zip(self.shape, tensor.shape, strict=True)
        )


def slots_of(network: Network) -> list[Slot]:
    """Every place for a weight, in the order of HDF5 files, layer by layer; none for classes that are not known."""
    inputs = shapes_of(network).inputs
    chains = dict(_chains(network, ()))
    slots = []
    for top in network.layers:
        for slot in trained_first(top, lambda layer: stored_of(layer) or ()):
            layer = slot.layer
            chain, wrapped = chains[layer]
            shape = _shape(layer, slot.stored, next(iter(inputs.get(layer, ())), None))
            slots.append(Slot(top, layer, slot.stored, _roles(layer, slot.stored), chain, wrapped, shape))
    return slots


def _chains(network: Network, above: tuple[Names, ...]) -> Iterator[tuple[Layer, tuple[tuple[Names, ...], int]]]:
    """Each layer with the names of those that it is in, and its own; and how many of the last are one wrapper's."""
    weighty = [layer for layer in network.layers if any(stored_of(part) != () for part in layer.walk())]
    for number, layer in enumerate(network.layers):
        aliases = {layer.name, layer.name.rpartition("/")[2], f"layer-{number}"}
        if layer in weighty:
            aliases.add(f"layer_with_weights-{weighty.index(layer)}")
        chain = (*above, frozenset(aliases))
        yield layer, (chain, 1)
        yield from _inside(layer, chain, 1)


_DIRECTIONS = {"layer": "forward", "backward_layer": "backward"}
"""How Bidirectional renames the layers that it is given, which it notes as they were called before."""


def _inside(
    layer: Layer, chain: tuple[Names, ...], wrapped: int
) -> Iterator[tuple[Layer, tuple[tuple[Names, ...], int]]]:
    if layer.network is not None:
        yield from _chains(layer.network, chain)
    alone = len(layer.inner) == 1
    for attribute, inner in layer.inner.items():
        also = _DIRECTIONS.get(attribute, "") if layer.class_name == "Bidirectional" else ""
        names = frozenset({inner.name, attribute, *([f"{also}_layer", f"{also}_{inner.name}"] if also else ())})
        longer = (*chain, names)
        count = wrapped + 1 if alone else 1
        yield inner, (longer, count)
        yield from _inside(inner, longer, count)


def _roles(layer: Layer, stored: Stored) -> tuple[str, ...]:
    """What a stored weight is called.

    Keras 1 keeps kernels in a layout of its own, under names of its own; a kernel that is called so, as one of ours is,
    lies otherwise.
    """
    own_words = layer.dialect == "keras1" and rearranged(layer)
    return stored.names if own_words and stored.names else (stored.name, *stored.names)


def _shape(layer: Layer, stored: Stored, inputs: Shape | None) -> Shape | None:
    """The shape of a stored weight; not known where Keras 1 keeps it in another layout than the catalogue has."""
    if layer.dialect == "keras1" and rearranged(layer):
        return None
    form = _CUDNN.get((layer.source_class, stored.name))
    for weight in weights_of(layer.class_name, layer.config, layer.family) or ():
        if weight.role == stored.name:
            return dimensions(form or weight.shape, layer.config, inputs)
    return None


_CUDNN = {("CuDNNLSTM", "bias"): "8*units", ("CuDNNGRU", "bias"): "6*units"}
"""cuDNN has two biases, one behind the other; the layouts of its kernels have the shapes of the plain ones."""
