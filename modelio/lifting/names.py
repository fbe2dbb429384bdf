"""How well a name fits a place: whose it is, which it is, and how much of it stays unexplained.

>>> aligned(("net", "encoder", "dense_1"), [frozenset({"encoder"}), frozenset({"dense"})])
(1, 1, 2, 2)
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from modelio.layers.normal_form import Layer
from modelio.lifting.candidates import Words
from modelio.lifting.places import Names, Slot

__all__ = ["Evidence", "Index", "aligned", "evidence", "plain", "roles_in"]


@dataclass(frozen=True, order=True)
class Evidence:
    """How well a name fits a place; more is better.

    Args:
        exact: the layer's own name is there as it is, not with a number behind.
        parents: how many of the layers around it are named.
        unexplained: words that stand for nothing, counted down.
    """

    parents: int
    exact: int
    unexplained: int


@lru_cache(1 << 16)
def plain(word: str) -> str:
    """A word without the number behind it."""
    return re.sub(r"_\d+$", "", word)


class Index:
    """Which layers may be meant by words, so that not every name is held against every layer."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self._called: dict[str, dict[Layer, None]] = defaultdict(dict)
        for slot in slots:
            for names in slot.chain[-slot.wrapped :]:
                for name in names:
                    self._called[name][slot.layer] = None

    def layers(self, words: Words) -> dict[Layer, None]:
        """The layers that one of these words names, also with ``_`` and something behind it."""
        parts = words[-1].split("_")
        found: dict[Layer, None] = {}
        for word in dict.fromkeys((*words, *("_".join(parts[:count]) for count in range(1, len(parts))))):
            for one in dict.fromkeys((word, plain(word))):
                found.update(self._called.get(one, {}))
        return found


def evidence(front: Words, slot: Slot) -> Evidence | None:
    """How well what stands in front of a role names the place; None where it does not."""
    found = aligned(front, slot.chain, slot.wrapped)
    if found is None:
        return None
    parents, exact, explained, last = found
    if last < len(front) - 1 and slot.layer.class_name not in _CELLED:
        return None
    return Evidence(parents, exact, explained - len(front))


def roles_in(words: Words, slot: Slot) -> Iterator[Words]:
    """What stands in front of a name's end, where that is the role of a place."""
    for alias in slot.roles:
        yield from _fronts(words, tuple(alias.split("/")))


_CELLED = frozenset({"SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})
"""Layers between whose name and whose weights the name of a cell may stand: ``lstm/lstm_cell_3/kernel``."""


def _fronts(words: Words, role: Words) -> Iterator[Words]:
    """What stands in front of a role; with ``_`` between, as Keras 1 names them, or with a number behind."""
    size = len(role)
    for last in dict.fromkeys((words[-1], plain(words[-1]))):
        whole = (*words[:-1], last)
        if whole[-size:] == role:
            yield whole[:-size]
        elif size == 1 and last.endswith(f"_{role[0]}"):
            yield (*words[:-1], last[: -len(role[0]) - 1])


def aligned(words: Words, chain: Sequence[Names], wrapped: int = 1) -> tuple[int, int, int, int] | None:
    """Find the names of a chain of layers among words, from the back.

    Returns:
        How many of the layers around are named; whether the innermost is named exactly (2), or with a number behind
        it (1); how many words are explained; at which word the last one stands. None: the layer itself is not named.
    """
    position = len(words)
    parents = exact = explained = 0
    last = -1
    for depth, names in enumerate(reversed(chain)):
        found = next(((at, word) for at, word in _backwards(words, position) if _called(word, names)), None)
        if found is None:
            if last < 0 and depth + 1 >= wrapped:
                return None
            continue
        position, word = found
        explained += 1
        if last < 0:
            last = position
            exact = 2 if word in names else 1
        elif depth:
            parents += 1
    return parents, exact, explained, last


def _backwards(words: Words, stop: int) -> Iterator[tuple[int, str]]:
    return ((at, words[at]) for at in range(stop - 1, -1, -1))


def _called(word: str, names: Names) -> bool:
    return word in names or plain(word) in names
