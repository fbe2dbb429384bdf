"""Keras 3: its classes are the normal form's; what differs is how it writes them down.

A node is ``{module, class_name, config, registered_name, build_config?, shared_object_id?}``; calls are
``{args, kwargs}`` with tensors as ``__keras_tensor__``. In the HDF5 files of Keras 3 the ``module`` is missing.
Sources: Keras 3.15 ``src/saving/serialization_lib.py``, ``src/models/functional.py``,
``src/dtype_policies/dtype_policy.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelio.layers.arguments import UNTRAINED

__all__ = ["CLASSES", "KEYWORDS", "MODULES", "OPERATIONS", "class_of", "normal", "renamed"]

CLASSES: Mapping[str, str] = {
    "GroupedQueryAttention": "GroupQueryAttention",
    "TFDConcat": "Concatenate",  # of FeatureSpace: src/layers/preprocessing/feature_space.py
    "TFDIdentity": "Identity",
}
"""Class of Keras 3 -> class of the normal form, where they differ."""

OPERATIONS = "ops."
"""In front of the class name of an operation, such as ``keras.ops.exp`` on a layer's output: its classes share names
(Add, Average, Dot ...) with layers that mean something else."""

MODULES: Mapping[str, str] = {
    "Sequential": "keras",
    "Functional": "keras.src.models.functional",
    **dict.fromkeys(("RandomHeight", "RandomWidth"), "keras._legacy.layers"),
}
"""Class -> its module, for those that are not in ``keras.layers``."""

KEYWORDS: Mapping[str, Mapping[str, str]] = {
    "": {"batch_input_shape": "batch_shape"},  # written by 2.x, carried along by converters
    "LeakyReLU": {"alpha": "negative_slope"},
}
"""Class ("" for all) -> keyword -> keyword of the normal form."""


def class_of(node: Mapping[str, Any]) -> str:
    """The class name, with :data:`OPERATIONS` in front of an operation's.

    >>> class_of({"module": "keras.src.ops.numpy", "class_name": "Add", "config": {"name": "add"}})
    'ops.Add'
    """
    class_name = str(node.get("class_name"))
    module = node.get("module")
    config = node.get("config")
    if isinstance(module, str):
        operation = ".ops." in f"{module}." and module.startswith("keras")
    else:  # in HDF5 files: nearly every layer writes "trainable", no operation does
        arguments = config if isinstance(config, Mapping) else {}
        operation = "inbound_nodes" in node and not (
            "trainable" in arguments
            or {"batch_shape", "layers"} & set(arguments)
            or class_name in UNTRAINED
            or ">" in class_name  # registered by its author: operations are not
            or isinstance(arguments.get("dtype"), Mapping)  # a policy, which operations do not have
        )
    return OPERATIONS + class_name if operation else class_name


def normal(class_name: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class and arguments in the normal form's words."""
    new_class = CLASSES.get(class_name, class_name)
    names = renamed(new_class)
    return new_class, {names.get(key, key): value for key, value in config.items()}


def renamed(class_name: str) -> dict[str, str]:
    """Argument -> its name in the normal form, for a class of the normal form."""
    return {**KEYWORDS[""], **KEYWORDS.get(class_name, {})}
