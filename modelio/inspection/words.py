"""Names, shapes and amounts as people write them.

Every name in a file is a stranger's: control characters, and whatever else does not print, are spelled out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["SHOWN", "amount", "count", "kind", "listed", "plain", "quoted", "sizes"]

SHOWN = 4
"""Names that a sentence lists."""


def plain(name: object, limit: int = 200) -> str:
    r"""A name as text that only prints: everything else is spelled out, and the middle of a very long one is left out.

    >>> plain("a\x1b[31m\nb")
    'a\\x1b[31m\\nb'
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))
    return shown if len(shown) <= limit else f"{shown[: limit // 2]}...{shown[-limit // 2 :]}"


def quoted(name: str) -> str:
    """A name inside a sentence."""
    return f"`{plain(name)}`"


def kind(dtype: str, shape: Any) -> str:
    """A dtype and a shape as people write them.

    >>> kind("float32", (None, 64)), kind("bool", ()), kind("bool", None)
    ('float32 [?, 64]', 'bool, a scalar', 'bool, any shape')
    """
    if shape is None:
        return f"{plain(dtype)}, any shape"
    return f"{plain(dtype)} {sizes(shape)}" if shape else f"{plain(dtype)}, a scalar"


def sizes(shape: Any) -> str:
    """A shape, or several, with ``?`` for an unknown size."""
    if shape is None:
        return "?"
    return (
        "["
        + ", ".join("?" if item is None else sizes(item) if isinstance(item, tuple) else f"{item}" for item in shape)
        + "]"
    )


def count(number: int, noun: str) -> str:
    """``1 weight``, ``12,345 weights``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def amount(nbytes: int) -> str:
    """Bytes as people write them.

    >>> amount(999), amount(49380), amount(102_760_448)
    ('999 bytes', '48.2 KiB', '98.0 MiB')
    """
    if nbytes < 1000:
        return count(nbytes, "byte")
    value, units = float(nbytes), iter(("KiB", "MiB", "GiB", "TiB"))
    unit = ""
    while value >= 1000 and (following := next(units, None)):
        value, unit = value / 1024, following
    return f"{value:,.1f} {unit}"


def listed(names: Iterable[str], conjunction: str = "and") -> str:
    """Names in a sentence: `a`, `b` and `c`."""
    shown = [quoted(name) for name in names]
    if len(shown) > SHOWN + 1:
        shown = [*shown[:SHOWN], f"{len(shown) - SHOWN:,} more"]
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} {conjunction} {shown[-1]}"
