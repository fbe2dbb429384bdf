"""What a lowering rule is, and how it is found.

A rule takes the builder, the layer and its input, and returns the output. It is found by the layer's class name in the
normal form (:mod:`modelio.layers`), whatever the dialect that wrote it called it::

    @rule("Dense")
    def dense(g, layer, x):
        y = g.MatMul(x, layer.weight("kernel"))
        ...

``x`` is a :class:`~modelio.graph.builder.Value`, or a list of them where the layer was called on a list; a rule that
returns several outputs returns a tuple. Keyword arguments of the call (``initial_state=...``) are passed by name. Only
inference is lowered: there is no learning phase to ask for.

A tensor may carry a mask: a bool value that says of each step whether it counts. A rule that has a parameter ``mask``
is given the mask of its first argument, in that argument's structure (a list of masks for a list of tensors, None where
no tensor has one), and one that has a parameter ``query_mask`` that of its argument ``query``, as Keras does it
(keras/src/layers/layer.py, ``Layer.__call__``). What mask the outputs carry is not the rule's business: ``masking.py``
says it of every class, and :func:`masks` adds to it::

    @masks("Concatenate")
    def concatenated(g, layer, inputs, mask):
        ...

A rule for which the two cannot be told apart returns a :class:`Masked`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.layers.keras2 import FUNCTION_LAYERS
from modelio.layers.keras3 import OPERATIONS

if TYPE_CHECKING:
    from modelio.layers.network import Layer

__all__ = [
    "Mask",
    "MaskRule",
    "Masked",
    "Output",
    "Rule",
    "Site",
    "find",
    "find_masks",
    "function_of",
    "identity",
    "is_operation",
    "masks",
    "rule",
    "rule_of",
]

Output = Value | tuple[Value, ...]
Mask = Any
"""A mask, None, or a list or tuple of such, in the structure of the tensors that carry them."""


@dataclass(frozen=True)
class Masked:
    """The outputs of a call with the masks that they carry: one for one output, a tuple for several.

    A tuple may be shorter than the outputs; the rest carries none.
    """

    output: Output
    mask: Mask = None


Rule = Callable[..., Output | Masked]
MaskRule = Callable[[Builder, "Site", Any, Mask], Mask]
"""From the builder, the layer, its first argument and the mask of that to the mask of the output, or of the outputs."""

FAMILIES = (
    "core",
    "activation",
    "convolution",
    "normalization",
    "pooling",
    "merging",
    "reshaping",
    "embedding",
    "recurrent",
    "wrappers",
    "cells",
    "masking",
    "attention",
    "einsum",
    "preprocessing",
    "tables",
    "text",
    "images",
    "spectrograms",
    "functions",
    "functions.networks",
    "functions.shapes",
    "operations.arranging",
    "operations.elementwise",
    "operations.neural",
    "operations.picking",
    "operations.pictures",
    "operations.products",
    "operations.reductions",
    "operations.signals",
)
"""Modules of this package that hold rules, the common ones first: each is imported when no earlier one had the rule."""

_RULES: dict[str, Rule] = {}
_MASKS: dict[str, MaskRule] = {}


def rule(*class_names: str, own: bool = False) -> Callable[[Rule], Rule]:
    """Register a function as the rule for these layer classes; ``own``: in place of any that there is or will be."""

    def register(function: Rule) -> Rule:
        for name in class_names:
            if own or name not in _RULES:
                _RULES[name] = function
        return function

    return register


def masks(*class_names: str) -> Callable[[MaskRule], MaskRule]:
    """Register a function as what says which mask the outputs of these layer classes carry (``compute_mask``)."""

    def register(function: MaskRule) -> MaskRule:
        for name in class_names:
            _MASKS[name] = function
        return function

    return register


def find(class_name: str) -> Rule | None:
    """The rule for a layer class, or None."""
    for family in FAMILIES:
        if class_name in _RULES:
            break
        importlib.import_module(f"modelio.lowering.{family}")
    return _RULES.get(class_name)


def rule_of(layer: Layer) -> Rule | None:
    """The rule for a layer: by its class, or by the function of TensorFlow that it calls (``"tf.math.exp"``)."""
    return find(function_of(layer) or layer.class_name)


def function_of(layer: Layer) -> str | None:
    """The function that a layer of tf.keras stands for; None for other layers (src/layers/core/tf_op_layer.py)."""
    return f"tf.{layer.config.get('function')}" if layer.class_name in FUNCTION_LAYERS else None


def is_operation(layer: Layer) -> bool:
    """Is this an operation of ``keras.ops`` or a function of TensorFlow? They cast nothing, and heed no masks."""
    return layer.class_name.startswith(OPERATIONS) or layer.class_name in (*FUNCTION_LAYERS, "TensorFlowOpLayer")


def find_masks(class_name: str) -> MaskRule | None:
    """What says which mask the outputs of a layer class carry; None: they carry none."""
    find(class_name)
    return _MASKS.get(class_name)


class Lowerer(Protocol):
    """What a site asks of the walk over the network (:mod:`modelio.lowering.assemble`)."""

    def variable(self, layer: Layer, role: str, dtype: str | None = None) -> Value: ...

    def call(self, layer: Layer, inputs: Any, kwargs: Mapping[str, Any], given: Mask = None) -> Masked: ...

    def note(self, change: str) -> None: ...


class Site:
    """A layer where it is lowered: what a rule may know of it, and what it may ask for.

    ``mask`` is that of the layer's first argument, in the argument's structure.
    """

    def __init__(self, layer: Layer, walk: Lowerer, mask: Mask = None) -> None:
        self._walk = walk
        self.mask = mask
        self.layer = layer
        self.name = layer.name
        self.path = layer.path
        self.config: Mapping[str, Any] = layer.config
        self.dialect = layer.dialect
        self.version = layer.version

    def weight(self, role: str | int, dtype: str | None = None) -> Value:
        """A weight's value by its role (``"kernel"``), or by its place in ``get_weights()``, since a ``.keras`` file
        does not say how a layer of its author calls its weights; one variable for all calls of the layer.

        In the layer's compute dtype, or in another: Keras leaves the weights of normalization layers in float32
        (``autocast=False``).
        """
        there = list(self.layer.weights)
        if isinstance(role, int):
            if not -len(there) <= role < len(there):
                raise ConversionError(f"weight {role} is asked for, and the file has {len(there)}", where=self.path)
            role = there[role]
        elif role not in self.layer.weights:
            known = ", ".join(there) or "none"
            raise ConversionError(f"the file has no weight {role!r} of this layer; there are: {known}", where=self.path)
        return self._walk.variable(self.layer, role, dtype)

    def since(self, *version: int) -> bool:
        """Was the file written by that version of its Keras, or a later one? One that does not say is the newest."""
        return len(self.version) < 2 or self.version >= version

    def has(self, role: str) -> bool:
        """Does the file hold this weight?"""
        return role in self.layer.weights

    def of(self, inner: Layer) -> Site:
        """The site of a layer inside, for those whose rule is a part of this one's: the cell of an RNN."""
        return Site(inner, self._walk)

    def lower(self, inner: Layer, inputs: Any, mask: Mask = None, **kwargs: Any) -> Output:
        """The outputs of a wrapped layer or nested network on ``inputs``, which carry ``mask``."""
        return self.lower_masked(inner, inputs, mask, **kwargs).output

    def lower_masked(self, inner: Layer, inputs: Any, mask: Mask = None, **kwargs: Any) -> Masked:
        """The same, with the masks that the outputs carry."""
        return self._walk.call(inner, inputs, kwargs, mask)

    def note(self, change: str) -> None:
        """Say what the graph does otherwise than Keras, for the account of the conversion."""
        self._walk.note(f"{self.path}: {change}")


def identity(g: Builder, layer: Site, x: Value, **ignored: Any) -> Value:
    """The rule of every layer that only acts in training."""
    return x
