"""What a format is: one frozen record. What reads and writes is a plain function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modelio.model import Dialect, GraphModel, LayerModel
from modelio.source import Source

__all__ = ["ALL", "Format", "Level", "Model", "Placer", "Reader", "Shape", "Sniffer", "Writer"]

Level = Literal["layers", "graph", "frozen"]
Model = LayerModel | GraphModel
Sniffer = Callable[[Source], bool]
Reader = Callable[..., Model]
"""``read(source, *, option=default, ...)``: keyword arguments are the format's options, three at most."""
Writer = Callable[..., None]
"""``write(model, sink, *, option=default, ...)``: adds files to the sink and leaves ``commit`` to the caller."""

Shape = Literal["blob", "tree"]
Placer = Callable[[Any, Mapping[str, Any]], tuple[Any, Shape, Mapping[str, Any]]]
"""``place(target, options)``: where and as what a target is to be opened, and the options for the writer."""

ALL = frozenset({"architecture", "weights", "training", "optimizer", "signatures", "functions", "assets", "metagraphs"})


@dataclass(frozen=True)
class Format:
    """A format's name, level and functions.

    Args:
        name: what users type, e.g. ``"keras-h5"``.
        level: what its reader gives: ``"layers"``, ``"graph"`` or ``"frozen"`` (a graph without variables).
        summary: one line for ``modelio formats``.
        shape: ``"blob"`` is one file, ``"tree"`` a directory (or a zip of it).
        suffixes: choose an output's format and break ties; they never decide what an input is.
        requires: packages beyond the core that it needs.
        keeps: what of a model survives writing and reading back.
        dialects: which Keras' layers it can hold; None: any. Conversion writes the newest of them.
        sniff: does this content belong to me? Looks at bytes, never at the name. None: never claims.
        read: None: cannot be read. ``write``: None: cannot be written.
        place: where the shape depends on the options, or on the target's name; None: it is always ``shape``.
    """

    name: str
    level: Level
    summary: str
    shape: Shape
    suffixes: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    keeps: frozenset[str] = ALL
    dialects: frozenset[Dialect] | None = None
    sniff: Sniffer | None = None
    read: Reader | None = None
    write: Writer | None = None
    place: Placer | None = None
