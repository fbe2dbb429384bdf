"""What a translation did, line by line: the same thing done to a hundred layers is one line."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Account"]

_SHOWN = 4
"""How many layers a line names before it counts the rest."""


@dataclass
class Account:
    """Changes and losses, each with the layers that it concerns, in the order in which they were first seen.

    ``rescaled``: weights were multiplied, so that what an optimizer knows of them is of another size.
    """

    rescaled: bool = False
    _changes: dict[str, dict[str, None]] = field(default_factory=dict)
    _losses: dict[str, dict[str, None]] = field(default_factory=dict)

    def change(self, what: str, *where: str) -> None:
        self._changes.setdefault(what, {}).update(dict.fromkeys(where))

    def loss(self, what: str, *where: str) -> None:
        self._losses.setdefault(what, {}).update(dict.fromkeys(where))

    @property
    def changes(self) -> list[str]:
        """``what: dense, dense_1, dense_2, dense_3 and 5 more``."""
        return [f"{what}: {_listed(where)}" if where else what for what, where in self._changes.items()]

    @property
    def losses(self) -> list[str]:
        """``lstm: what``."""
        return [f"{_listed(where)}: {what}" if where else what for what, where in self._losses.items()]


def _listed(where: dict[str, None]) -> str:
    names = list(where)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
