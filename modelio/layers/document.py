"""A model as JSON text and arrays: what ``model.to_json()`` and ``model.get_weights()`` of Keras give.

:class:`~modelio.model.LayerModel` has these as methods; they live here because they need the architecture's meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from modelio.errors import ReadError, WriteError
from modelio.layers.binding import from_arrays
from modelio.layers.network import dialect_of
from modelio.model import LayerModel, Tensor
from modelio.wire import jsontext

__all__ = ["from_json", "parsed", "to_json"]


def parsed(text: str | bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    r"""The JSON object of an architecture; text that holds JSON text (``json.dump(model.to_json(), f)``) is unpacked.

    Raises:
        ReadError: the text is no JSON, or no object.
        UnsafeInput: it is larger, or nested deeper, than a model's.

    >>> parsed('"{\\\"class_name\\\": \\\"Sequential\\\"}"')
    {'class_name': 'Sequential'}
    """
    value = jsontext.parse(text) if isinstance(text, (str, bytes)) else text
    if not isinstance(value, Mapping):
        raise ReadError(f"this JSON is no architecture: it holds a {type(value).__name__}, not an object")
    return value


def from_json(
    text: str | bytes | Mapping[str, Any],
    arrays: Sequence[npt.ArrayLike | Tensor] | Mapping[str, Any] | None = None,
) -> LayerModel:
    """A model from what ``model.to_json()`` gave, and from its weights as ``model.get_weights()`` gave them.

    Args:
        text: JSON text, or what it parses to.
        arrays: see :func:`modelio.layers.binding.from_arrays`; left out, the model has no weights.

    Raises:
        ReadError: the text is no Keras architecture, or the number of arrays is not that of its weights.
    """
    architecture = parsed(text)
    if not {"class_name", "layers"} & set(architecture):
        raise ReadError("this JSON is no Keras architecture: it has neither class_name nor layers")
    facts = ("keras_version", "backend")
    meta = {key: architecture[key] for key in facts if isinstance(architecture.get(key), str)}
    dialect = dialect_of(architecture, meta)
    weights = {} if arrays is None else from_arrays(architecture, arrays, dialect, meta)
    return LayerModel(architecture, weights, dialect, meta=meta)


def to_json(model: LayerModel) -> str:
    """The architecture as JSON text, key for key as the file had it.

    Raises:
        WriteError: the model has weights alone.
    """
    if model.architecture is None:
        raise WriteError("this model has weights alone, and no architecture to write as JSON")
    return jsontext.spell(model.architecture)
