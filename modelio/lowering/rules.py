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
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from modelio.graph.builder import Builder, Value

if TYPE_CHECKING:
    from modelio.layers.network import Layer

__all__ = ["Output", "Rule", "Site", "find", "identity", "rule"]

Output = Value | tuple[Value, ...]
Rule = Callable[..., Output]

FAMILIES = ("activation", "convolution", "core", "merging", "normalization", "pooling", "reshaping")
"""Modules of this package that hold rules, imported when the first rule is looked for."""

_RULES: dict[str, Rule] = {}


def rule(*class_names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule for these layer classes; a later registration replaces an earlier one."""

    def register(function: Rule) -> Rule:
        for name in class_names:
            _RULES[name] = function
        return function

    return register


def find(class_name: str) -> Rule | None:
    """The rule for a layer class, or None."""
    _load_families()
    return _RULES.get(class_name)


@cache
def _load_families() -> None:
    for family in FAMILIES:
        importlib.import_module(f"modelio.lowering.{family}")


class Lowerer(Protocol):
    """What a site asks of the walk over the network (:mod:`modelio.lowering.assemble`)."""

    def variable(self, layer: Layer, role: str, dtype: str | None = None) -> Value: ...

    def call(self, layer: Layer, inputs: Any, kwargs: Mapping[str, Any]) -> Output: ...


class Site:
    """A layer where it is lowered: what a rule may know of it, and the two things that it may ask for."""

    def __init__(self, layer: Layer, walk: Lowerer) -> None:
        self._walk = walk
        self.layer = layer
        self.name = layer.name
        self.path = layer.path
        self.config: Mapping[str, Any] = layer.config
        self.dialect = layer.dialect
        self.version = layer.version

    def weight(self, role: str, dtype: str | None = None) -> Value:
        """A weight's value by its role (``"kernel"``); one variable for all calls of the layer.

        In the layer's compute dtype, or in another: Keras leaves the weights of normalization layers in float32
        (``autocast=False``).
        """
        return self._walk.variable(self.layer, role, dtype)

    def has(self, role: str) -> bool:
        """Does the file hold this weight?"""
        return role in self.layer.weights

    def lower(self, inner: Layer, inputs: Any, **kwargs: Any) -> Output:
        """The outputs of a wrapped layer or nested network on ``inputs``."""
        return self._walk.call(inner, inputs, kwargs)


def identity(g: Builder, layer: Site, x: Value, **ignored: Any) -> Value:
    """The rule of every layer that only acts in training."""
    return x
