"""What a format is: one frozen record. What reads and writes is a plain function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from modelio.model import Dialect, GraphModel, LayerModel
from modelio.source import Source

__all__ = ["ALL", "Format", "Level", "Model", "Reader", "Sniffer", "Writer"]

Level = Literal["layers", "graph", "frozen"]
Model = LayerModel | GraphModel
Sniffer = Callable[[Source], bool]
Reader = Callable[..., Model]
"""``read(source, *, option=default, ...)``: keyword arguments are the format's options, three at most."""
Writer = Callable[..., None]
"""``write(model, sink, *, option=default, ...)``: adds files to the sink and leaves ``commit`` to the caller."""

ALL = frozenset({"architecture", "weights", "training", "optimizer", "signatures", "functions", "assets"})


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
    """

    name: str
    level: Level
    summary: str
    shape: Literal["blob", "tree"]
    suffixes: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    keeps: frozenset[str] = ALL
    dialects: frozenset[Dialect] | None = None
    sniff: Sniffer | None = None
    read: Reader | None = None
    write: Writer | None = None
