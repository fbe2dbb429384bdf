"""One normal form of an architecture, whichever Keras wrote it.

::

    Network                     a Sequential, Functional or Model; the top one, or a layer's .network
     |- layers   (Layer, ...)       each once, in the file's order
     |- calls    (Call, ...)        who is called on what, in an order that can be computed front to back
     |- inputs   (Ref, ...)         calls of InputLayers
     '- outputs  (Ref, ...)
    Layer                       class and arguments in the words of Keras 2 and 3, defaults filled in
     |- network                     its network, when the layer is itself a model
     |- inner                       the layers that it wraps: "layer", "backward_layer", "cell" ...
     '- weights                     role -> Tensor; empty until binding.bind() fills it
    Ref                         output number `output` of call number `call` of the same network

A layer that is called twice has one Layer and two Calls. A Sequential is a chain of calls, with an InputLayer in front
even where the file has none. Nothing is instantiated: custom classes pass through with the arguments that the file has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from modelio.layers.catalogue import Shape
from modelio.layers.nodes import flatten
from modelio.model import Dialect, Tensor

__all__ = ["Call", "Family", "InputSpec", "Layer", "Network", "Ref"]

Family = Literal["keras", "tf.keras"]


@dataclass(frozen=True)
class Ref:
    """A tensor inside a network: output number ``output`` of call number ``call``."""

    call: int
    output: int = 0


class InputSpec(NamedTuple):
    """What a network is fed at one input; None in ``shape`` is a free size, None in its place a free rank."""

    name: str
    shape: Shape | None
    dtype: str


@dataclass(eq=False)
class Layer:
    """A layer: what it is, what it was told, what it wraps, and, once bound, its weights.

    Args:
        class_name: its class in Keras 2 and 3: ``Conv2D`` for Keras 1's ``AtrousConvolution2D``; ``ops.Add`` for an
            operation of ``keras.ops``.
        name: unique in its network.
        path: unique in the model: ``"outer/inner/dense"``.
        config: arguments under the names of Keras 2 and 3, with missing ones filled in where the class is known.
        source_class: the class name as the file has it.
        source: the file's own node, verbatim.
        dialect, version, family: who wrote it; where versions differ in meaning, this one counts. The family tells the
            Keras inside TensorFlow (2.0.2-tf to 2.15, and tf_keras) from the one beside it, whose numbers overlap.
        dtype: what it computes in; ``variable_dtype``: what its weights are kept in.
        trainable: as the file says; it decides the order of weights in HDF5 files.
        network: the model that this layer is, if it is one.
        inner: the layers that it wraps, by argument.
        weights: role -> tensor, in the catalogue's order, in the layout of Keras 2 and 3.
    """

    class_name: str
    name: str
    path: str
    config: dict[str, Any]
    source_class: str
    dialect: Dialect
    version: tuple[int, ...] = ()
    family: Family = "keras"
    dtype: str = "float32"
    variable_dtype: str = "float32"
    trainable: bool = True
    network: Network | None = None
    inner: dict[str, Layer] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def children(self) -> tuple[Layer, ...]:
        """The layers directly inside: wrapped ones, or those of its network."""
        return (*self.inner.values(), *(self.network.layers if self.network else ()))

    def walk(self) -> Iterator[Layer]:
        """This layer and all inside it, outer ones first."""
        waiting = [self]
        while waiting:
            layer = waiting.pop()
            yield layer
            waiting.extend(reversed(layer.children()))


@dataclass(frozen=True, eq=False)
class Call:
    """A layer called on tensors.

    ``inputs`` are the positional arguments: :class:`Ref`, constants, or lists, tuples and dicts of them. One tensor is
    ``(ref,)``, a list of two ``([ref, ref],)``. ``kwargs`` are the keyword arguments alike. An InputLayer has neither.
    """

    layer: Layer
    inputs: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def refs(self) -> list[Ref]:
        """All tensors among the arguments, in order."""
        return [leaf for leaf in flatten([*self.inputs, *self.kwargs.values()]) if isinstance(leaf, Ref)]


@dataclass(eq=False)
class Network:
    """Layers and how they are connected.

    ``input_names`` and ``output_names`` are those of Keras' ``model.input_names`` and ``model.output_names``, one for
    each of ``inputs`` and ``outputs``. ``structure`` keeps, for models whose outputs (or inputs) are named or nested,
    that form with Refs as its leaves.
    """

    name: str
    layers: tuple[Layer, ...]
    calls: tuple[Call, ...]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    input_specs: tuple[InputSpec, ...]
    kind: Literal["Sequential", "Functional"] = "Functional"
    structure: Mapping[Literal["inputs", "outputs"], Any] = field(default_factory=dict)

    def walk(self) -> Iterator[Layer]:
        """Every layer at every depth, outer ones first, in the file's order."""
        for layer in self.layers:
            yield from layer.walk()
