"""Where a rule finds itself: a layer, still in the words of the normal form, and what stands around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from modelio.layers.catalogue import Shape
from modelio.layers.dialects.account import Account
from modelio.layers.dialects.objects import Target
from modelio.layers.normal_form import Layer

__all__ = ["Site", "crosses", "told", "without"]


@dataclass(frozen=True)
class Site:
    """Where the layer goes, what is noted about it, the shapes it is given, and the backend that wrote its weights.

    ``masks`` are, for each input, the numbers of the calls that its mask may come from.
    """

    target: Target
    account: Account
    shapes: tuple[Shape | None, ...] = ()
    backend: str | None = None
    masks: tuple[frozenset[int], ...] = ()

    @property
    def shape(self) -> Shape | None:
        """The shape of its first input."""
        return self.shapes[0] if self.shapes else None


def crosses(layer: Layer, site: Site) -> bool:
    """Does the layer come from Keras 1 or 2 and go to Keras 3, or the other way round?"""
    return (layer.dialect == "keras3") != (site.target.dialect == "keras3")


def told(layer: Layer, **config: Any) -> Layer:
    """The layer with other arguments."""
    return replace(layer, config={**layer.config, **config})


def without(layer: Layer, *arguments: str) -> Layer:
    """The layer without some of its arguments."""
    return replace(layer, config={key: value for key, value in layer.config.items() if key not in arguments})
