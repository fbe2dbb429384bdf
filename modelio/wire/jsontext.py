"""JSON as Keras writes and reads it, with limits.

Keras uses Python's ``json``: ``NaN``, ``Infinity`` and ``-Infinity`` stand for themselves, and of two equal keys the
last counts. Both stay so here, since a reader that took another meaning would describe another model. What is added
are limits that hold before the parser starts: the text's size, and the depth of its nesting, on which every later walk
over the parsed value may rely.

>>> parse(b'{"axis": [-1, NaN]}')
{'axis': [-1, nan]}
"""

from __future__ import annotations

import json
import re
from typing import Any

from modelio.errors import ReadError, UnsafeInput, WriteError

__all__ = ["DEPTH", "SIZE", "parse", "spell"]

SIZE = 64 << 20
"""Bytes of one text. The largest architectures in use have a few megabytes; parsed, a text takes ten times its size."""

DEPTH = 200
"""Nested brackets. A model takes about 10, and each model nested in it 4 more."""

_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NEITHER_BRACKET_NOR_QUOTE = bytes(set(range(256)) - set(b'[]{}"'))


def parse(text: bytes | str, *, where: str | None = None) -> Any:
    """The value that a JSON text spells; a text in a text, as some programs save it, is parsed twice.

    Args:
        text: UTF-8, with or without a byte order mark, where it is bytes.
        where: the place to name in errors.

    Raises:
        ReadError: this is not JSON, or not UTF-8.
        UnsafeInput: it is longer than :data:`SIZE`, or nested deeper than :data:`DEPTH`.
    """
    value = _parse(text, where)
    return _parse(value, where) if isinstance(value, str) else value


def _parse(text: bytes | str, where: str | None) -> Any:
    try:
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        if len(data) > SIZE:
            raise UnsafeInput(f"{len(data):,} bytes of JSON, more than the {SIZE:,} that any model needs", where=where)
        if _deeper_than(DEPTH, data):
            raise UnsafeInput(f"JSON nested deeper than {DEPTH} brackets: this is no model", where=where)
        return json.loads(data.decode("utf-8-sig", "surrogatepass"))
    except json.JSONDecodeError as error:
        raise ReadError(f"this is not JSON: {_spelled(error)}", where=where) from error
    except UnicodeDecodeError as error:
        raise ReadError(f"the JSON is not UTF-8: byte {error.start:,} is wrong", where=where) from error
    except RecursionError as error:  # brackets that never close
        raise UnsafeInput("JSON nested too deep: this is no model", where=where) from error
    except (ValueError, OverflowError) as error:  # a number of more digits than Python converts
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"a number in the JSON cannot be represented: {error}", where=where) from error


def _spelled(error: json.JSONDecodeError) -> str:
    return f"{error.msg.lower()} in line {error.lineno}, column {error.colno}"


def _deeper_than(limit: int, data: bytes) -> bool:
    """Whether brackets are nested deeper than ``limit``, at the speed of ``bytes.replace``: 1 ms for ResNet50.

    Everything but the brackets is deleted, strings included; then each pass deletes the innermost pairs, which takes
    one level off. Brackets that match nothing stay, and are left to the parser.
    """
    if b"\\" in data:
        data = _ESCAPED.sub(b"", data)
    outside_strings = data.translate(_SQUARE, _NEITHER_BRACKET_NOR_QUOTE).split(b'"')[::2]
    brackets = b"".join(outside_strings)
    for _ in range(limit):
        if brackets.startswith(b"[" * (limit + 1)):
            return True
        less = brackets.replace(b"[]", b"")
        if len(less) == len(brackets):
            return False
        brackets = less
    return bool(brackets)


def spell(value: Any, *, where: str | None = None) -> str:
    r"""The JSON text of a value, in ASCII and with Keras' spacing.

    :class:`~modelio.errors.WriteError` where the value holds something that JSON has no spelling for.

    >>> spell({"name": "é", "rate": float("inf")})
    '{"name": "\\u00e9", "rate": Infinity}'
    """
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise WriteError(f"this cannot be written as JSON: {error}", where=where) from error
