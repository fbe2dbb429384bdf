"""Lambda layers: the code stays what it is, byte for byte; what stands around it is written as the target has it.

::

    Keras 1, 2    "function": ["4wEAAA...", null, null], "function_type": "lambda"
    Keras 3       "function": {"class_name": "__lambda__",
                               "config": {"code": "4wEAAA...", "defaults": null, "closure": null}}

A function that has a name is written by its name, with the type "function".

The code is bytecode of the Python that wrote the file, and of no other; nothing here looks into it. Sources: tf_keras
2.21 ``src/layers/core/lambda_layer.py``, Keras 3.15 ``src/layers/core/lambda_layer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelio.layers.dialects.objects import Target

__all__ = ["lambda_config"]

_FUNCTIONS = ("function", "output_shape", "mask")
_PARTS = ("code", "defaults", "closure")


def lambda_config(config: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The arguments of a Lambda, from the source's own."""
    types = {key: config.get(f"{key}_type") for key in _FUNCTIONS}
    kept = {
        key: value
        for key, value in config.items()
        if key not in ("module", "batch_input_shape", "input_dtype", "input_shape")
        and not key.endswith(("_type", "_module"))
    }
    if target.dialect == "keras2":
        kept.setdefault("output_shape", None)
    for key in _FUNCTIONS:
        if key not in kept:
            continue
        value = kept[key]
        code = _code(value, types[key])
        if target.dialect == "keras3":
            if code is not None:
                kept[key] = {"class_name": "__lambda__", "config": dict(zip(_PARTS, code, strict=True))}
        else:
            kept[key] = value if code is None else code
            if key != "mask" or code is not None:
                kept[f"{key}_type"] = "lambda" if code is not None else "function" if isinstance(value, str) else "raw"
    return kept


def _code(value: Any, written_as: Any) -> list[Any] | None:
    """Code, defaults and closure of a function that is kept as code."""
    if isinstance(value, Mapping) and value.get("class_name") == "__lambda__":
        inner = value.get("config")
        parts = inner.get("value", inner) if isinstance(inner, Mapping) else inner
        if isinstance(parts, Mapping):
            return [parts.get(part) for part in _PARTS]
        return list(parts) if isinstance(parts, (list, tuple)) and len(parts) == len(_PARTS) else None
    if written_as == "lambda" and isinstance(value, (list, tuple)) and len(value) == len(_PARTS):
        return list(value)
    return None
