"""Arguments of layers, looked at before they are used: a file may say anything.

Each function takes one argument from the layer's config, and raises :class:`~modelio.errors.ConversionError` where
Keras itself would not have taken it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from modelio.errors import ConversionError
from modelio.graph.builder import Value
from modelio.lowering.rules import Site

if TYPE_CHECKING:
    from modelio.layers.normal_form import Layer

__all__ = ["axes_of", "axis_of", "number", "rank_of", "whole", "wholes", "wrapped"]

LARGEST = 1 << 31
"""Sizes of a dimension are int32 wherever a shape is computed while the graph runs."""


def wrapped(layer: Site) -> Layer:
    """The layer or model that a wrapper wraps."""
    inner = layer.layer.inner.get("layer")
    if inner is None:
        raise ConversionError(f"{layer.layer.source_class} wraps nothing")
    return inner


def rank_of(layer: Site, x: Value, least: int = 0, most: int | None = None) -> int:
    """How many dimensions the input has."""
    if not isinstance(x, Value):
        raise ConversionError(f"{layer.layer.source_class} is called on {x!r:.40}, which is no tensor")
    if x.rank is None:
        raise ConversionError(
            f"{layer.layer.source_class} needs to know how many dimensions its input has, and the model does not say it"
        )
    if x.rank < least or (most is not None and x.rank > most):
        wanted = f"{least}" if most == least else f"{least} or more" if most is None else f"{least} to {most}"
        raise ConversionError(f"the input has {x.rank} dimensions; {layer.layer.source_class} wants {wanted}")
    return x.rank


def axis_of(layer: Site, axis: Any, rank: int) -> int:
    """An axis, counted from the front."""
    if not isinstance(axis, int) or isinstance(axis, bool) or not -rank <= axis < rank:
        raise ConversionError(f"{layer.layer.source_class} is told the axis {axis!r}; its input has {rank} dimensions")
    return axis % rank


def axes_of(layer: Site, axis: Any, rank: int) -> tuple[int, ...]:
    """One axis or a list of them, counted from the front, in the order given."""
    axes = tuple(axis_of(layer, one, rank) for one in (axis if isinstance(axis, (list, tuple)) else (axis,)))
    if len(set(axes)) != len(axes) or not axes:
        raise ConversionError(f"{layer.layer.source_class} is told the axes {axis!r}")
    return axes


def number(layer: Site, name: str, default: float | None = None) -> float:
    """A number that is not infinite; ``default`` where the argument is missing or None."""
    given = layer.config.get(name)
    given = default if given is None else given
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not math.isfinite(given):
        raise ConversionError(f"{name} is {given!r}, and has to be a number")
    return given


def whole(layer: Site, name: str, least: int = 1) -> int:
    """A whole number from ``least`` on."""
    given = layer.config.get(name)
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given < LARGEST:
        raise ConversionError(f"{name} is {given!r}, and has to be a whole number from {least} on")
    return given


def wholes(layer: Site, name: str, count: int | None = None, least: int = 1) -> tuple[int, ...]:
    """A list of ``count`` whole numbers from ``least`` on."""
    given = layer.config.get(name)
    if (
        not isinstance(given, (list, tuple))
        or (count is not None and len(given) != count)
        or any(isinstance(one, bool) or not isinstance(one, int) or not least <= one < LARGEST for one in given)
    ):
        listed = f"{count} whole numbers" if count is not None else "a list of whole numbers"
        raise ConversionError(f"{name} is {given!r}, and has to be {listed} from {least} on")
    return tuple(given)
