"""What Keras' JSON writes in place of values that JSON does not have: tuples, slices, arrays, shapes.

Sources: ``tf_keras/src/saving/serialization.py`` and ``json_utils.py`` (``items``),
``keras/src/saving/serialization_lib.py`` (double underscores, ``config``),
``tensorflow/python/trackable/data_structures.py`` (``ListWrapper``), Keras 2.0.5 ``models.py`` save_model
(``{"type": "ndarray", "value": 0.3}``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from modelio.errors import ReadError

__all__ = ["DEPTH", "decode", "version_of"]

DEPTH = 64
"""How deep models, wrappers and values may be nested. Real files stay below ten; a file that goes deeper wants a stack
overflow."""


def _items(value: Mapping[str, Any]) -> Any:
    return value.get("items", value.get("config", ()))


def _array(value: Mapping[str, Any]) -> Any:
    config = value["config"]
    return np.asarray(config["value"], dtype=config.get("dtype"))


_STAND_INS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "__tuple__": lambda value: tuple(_items(value)),
    "TensorShape": lambda value: tuple(_items(value)),
    "ListWrapper": lambda value: list(_items(value)),
    "__ellipsis__": lambda value: ...,
    "__slice__": lambda value: slice(*(value["config"].get(end) for end in ("start", "stop", "step"))),
    "__bytes__": lambda value: value["config"]["value"].encode("utf-8"),
    "__numpy__": _array,
    "__tensor__": _array,
}


def decode(value: Any, where: str, depth: int = 0) -> Any:
    """``value`` with every stand-in replaced by what it stands for; everything else stays as it is.

    Raises:
        ReadError: a stand-in without content, or values nested more than :data:`DEPTH` deep.
    """
    if depth > DEPTH:
        raise ReadError(f"values are nested more than {DEPTH} deep", where=where)
    if isinstance(value, list):
        return [decode(item, where, depth + 1) for item in value]
    if not isinstance(value, Mapping):
        return value
    if value.get("type") == "ndarray" and value.keys() == {"type", "value"}:
        return decode(value["value"], where, depth + 1)
    stand_in = _STAND_INS.get(str(value.get("class_name")))
    if stand_in is None:
        return {key: decode(item, where, depth + 1) for key, item in value.items()}
    try:
        return stand_in({key: decode(item, where, depth + 1) for key, item in value.items()})
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ReadError(f"{value.get('class_name')} holds no value that can be read: {error}", where=where) from None


def version_of(text: str | None) -> tuple[int, ...]:
    """The numbers at the front of a version.

    >>> version_of("2.2.4-tf"), version_of("1.2.2"), version_of(None)
    ((2, 2, 4), (1, 2, 2), ())
    """
    numbers: list[int] = []
    for part in str(text or "").replace("-", ".").split("."):
        if not part.isdecimal() or len(part) > 6:
            break
        numbers.append(int(part))
    return tuple(numbers)
