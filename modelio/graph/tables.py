"""Tables from keys to values, and how each loader comes to fill them.

::

    vec/vocabulary                  HashTableV2, shared under the name and a digest of its content
    vec/vocabulary/keys, /values    Const
    vec/vocabulary/initializer      InitializeTableV2
    init_all_tables                 what a loader runs once: after all initializers

A table is a resource, not a variable: no checkpoint holds it. A SavedModel names the operation that fills its tables in
the collection ``saved_model_main_op``, which every loader since TensorFlow 1.2 runs: ``tensorflow/cc/saved_model/
loader.cc``, ``python/saved_model/loader_impl.py`` (``get_init_op``) and ``load_v1_in_v2.py``. A frozen graph names
nothing: there :mod:`modelio.graph.surgery.filling` has the first request fill them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.graph.meta_graph import HIDDEN, SIGNATURE
from modelio.graph.saver import COLLECTION
from modelio.model import GraphModel, Message
from modelio.wire import messages

__all__ = ["INIT", "LEGACY", "MAIN_OP", "digest", "initializer_of", "main_op"]

MAIN_OP = f"{COLLECTION}saved_model_main_op"
"""The key of a model's ``extra`` that holds the name of the operation to run first."""

LEGACY = f"{COLLECTION}legacy_init_op"
"""The same, as TensorFlow 1 wrote it at first."""

_NAME = HIDDEN[0]
INIT = f"{SIGNATURE}{_NAME}"
"""The same, as TensorFlow 2 writes it: a signature that has it as its output."""


def digest(*arrays: npt.NDArray[Any]) -> str:
    """A name for the content of arrays of strings or numbers."""
    import hashlib  # 3 ms, for models with tables

    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.kind}{array.shape}".encode())
        if array.dtype == object:
            for item in array.reshape(-1).tolist():
                total.update(len(item).to_bytes(8, "little") + item)
        else:
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def main_op(name: str) -> bytes:
    """The collection that names the operation to run first."""
    collection = messages.CollectionDef()
    collection.node_list.value.append(name)
    return messages.serialize(collection)


def initializer_of(model: GraphModel) -> str | None:
    """The operation that a loader has to run before any other, by its node's name; None where there is none.

    Of the places that may name it, the first counts (``loader.cc``, ``GetInitOp``).
    """
    signature = _parsed(model.extra, INIT, messages.SignatureDef)
    if _NAME in signature.outputs:
        return str(signature.outputs[_NAME].name).partition(":")[0]
    for key in (MAIN_OP, LEGACY):
        names = _parsed(model.extra, key, messages.CollectionDef).node_list.value
        if names:
            return str(names[0]).partition(":")[0]
    return None


def _parsed(extra: Mapping[str, bytes], key: str, cls: Any) -> Message:
    return messages.parse(cls, extra.get(key, b""), where=f"extra[{key!r}]")
