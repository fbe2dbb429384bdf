"""Initializers, regularizers, constraints, dtype policies, activations: objects among a layer's arguments, as each
dialect writes them.

::

    Keras 1    "glorot_uniform"     {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.01}
    Keras 2    {"class_name": "GlorotUniform", "config": {"seed": null}}
    Keras 3    {"module": "keras.initializers", "class_name": "GlorotUniform", "config": {"seed": null},
                "registered_name": null}

Sources: Keras 1.2.2 ``regularizers.py``, ``constraints.py``; Keras 2.3.1 ``initializers.py``, ``regularizers.py``,
``constraints.py``; Keras 3.15 ``src/{initializers,regularizers,constraints}/*.py``,
``src/dtype_policies/dtype_policy.py``, ``src/saving/serialization_lib.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelio.layers.dialects.account import Account
from modelio.model import Dialect

__all__ = ["KINDS", "Kind", "Target", "activation_of", "kind_of", "node_of", "object_of", "plain", "policy_of"]


@dataclass(frozen=True)
class Target:
    """Where to: a dialect, and the version of it."""

    dialect: Dialect
    version: tuple[int, ...]

    @property
    def title(self) -> str:
        return f"Keras {self.dialect[-1]}"


def node_of(
    target: Target, module: str, class_name: str, config: Any, registered_name: str | None = None
) -> dict[str, Any]:
    """``{class_name, config}``, in Keras 3 with the module that the class is found in."""
    if target.dialect != "keras3":
        return {"class_name": class_name, "config": config}
    return {"module": module, "class_name": class_name, "config": config, "registered_name": registered_name}


def plain(value: Any) -> Any:
    """A value of the normal form as JSON has it: tuples and arrays become lists."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, slice):
        ends = {end: plain(getattr(value, end)) for end in ("start", "stop", "step")}
        return {"class_name": "__slice__", "config": ends}
    if value is ...:
        return {"class_name": "__ellipsis__", "config": {}}
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


# -- initializers, regularizers, constraints ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """Objects of one module: class -> its arguments; other names -> class; arguments that were renamed."""

    module: str
    classes: Mapping[str, str]
    names: Mapping[str, str]
    renamed: Mapping[str, str]


KINDS: Mapping[str, Kind] = {
    "initializer": Kind(
        "keras.initializers",
        {
            **dict.fromkeys(("Zeros", "Ones"), ""),
            "Constant": "value",
            **dict.fromkeys(("RandomNormal", "TruncatedNormal"), "mean stddev seed"),
            "RandomUniform": "minval maxval seed",
            "VarianceScaling": "scale mode distribution seed",
            **dict.fromkeys(("GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform"), "seed"),
            **dict.fromkeys(("LecunNormal", "LecunUniform"), "seed"),
            "Orthogonal": "gain seed",
            "Identity": "gain",
        },
        {
            "zero": "Zeros",
            "one": "Ones",
            "uniform": "RandomUniform",
            "normal": "RandomNormal",
            "IdentityInitializer": "Identity",
            "OrthogonalInitializer": "Orthogonal",  # so Keras 3 until 3.6
        },
        {},
    ),
    "regularizer": Kind(
        "keras.regularizers",
        {"L1L2": "l1 l2", "L1": "l1", "L2": "l2", "OrthogonalRegularizer": "factor mode"},
        {
            **dict.fromkeys(("WeightRegularizer", "L1L2Regularizer", "ActivityRegularizer", "l1l2", "l1_l2"), "L1L2"),
            "L1Regularizer": "L1",
            "L2Regularizer": "L2",
        },
        {},
    ),
    "constraint": Kind(
        "keras.constraints",
        {
            "MaxNorm": "max_value axis",
            "MinMaxNorm": "min_value max_value rate axis",
            "NonNeg": "",
            "UnitNorm": "axis",
            "RadialConstraint": "",
        },
        {"maxnorm": "MaxNorm", "nonneg": "NonNeg", "unitnorm": "UnitNorm"},
        {"m": "max_value"},
    ),
}
"""What the last word of an argument's name says: ``kernel_initializer``, ``activity_regularizer``."""

_SCALING = {
    "GlorotUniform": (1.0, "fan_avg", "uniform"),
    "GlorotNormal": (1.0, "fan_avg", "normal"),
    "HeUniform": (2.0, "fan_in", "uniform"),
    "HeNormal": (2.0, "fan_in", "normal"),
    "LecunUniform": (1.0, "fan_in", "uniform"),
    "LecunNormal": (1.0, "fan_in", "normal"),
}
"""What these are in Keras beside TensorFlow, where they are functions: VarianceScaling (2.3.1 ``initializers.py``)."""


def kind_of(argument: str) -> Kind | None:
    """What kind of object an argument holds, by its name.

    >>> kind_of("kernel_regularizer").module, kind_of("units")
    ('keras.regularizers', None)
    """
    return KINDS.get(argument.rpartition("_")[2])


def object_of(value: Any, kind: Kind, target: Target, account: Account, where: str) -> Any:
    """An initializer, regularizer or constraint; what is none of Keras' own stays as it is."""
    if value is None:
        return None
    name, given = _named(value)
    class_name = _class_of(name, kind)
    if class_name is None:
        account.change(f"not translated: {kind.module.removeprefix('keras.')} {name or plain(value)}", where)
        return plain(value)
    given = {kind.renamed.get(key, key): item for key, item in given.items()}
    words = kind.classes[class_name].split()
    for key in given.keys() - set(words) - {"dtype", "input_axes", "output_axes", "partition_info", "name"}:
        account.loss(f"{class_name} takes no argument {key!r} in {target.title}", where)
    config = {key: plain(given[key]) for key in words if key in given}
    if isinstance(config.get("seed"), dict):  # a generator of seeds, in Keras 3
        config["seed"] = None
    if class_name == "VarianceScaling" and target.dialect == "keras3" and config.get("distribution") == "normal":
        config["distribution"] = "truncated_normal"
    if target.dialect == "keras2" and target.version < (2, 4):
        class_name, config = _in_early_keras_2(class_name, config)
    if isinstance(value, str) or name != class_name:
        account.change(f"{name} -> {class_name}", where)
    if target.dialect == "keras3":
        account.change("initializers, regularizers, constraints: with their modules", where)
    return node_of(target, kind.module, class_name, config)


def _named(value: Any) -> tuple[str, Mapping[str, Any]]:
    """Name and arguments, from any dialect."""
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, Mapping):
        return "", {}
    if isinstance(value.get("class_name"), str):
        config = value.get("config")
        return value["class_name"], config if isinstance(config, Mapping) else {}
    name = value.get("name")
    return (name if isinstance(name, str) else ""), {key: item for key, item in value.items() if key != "name"}


def _class_of(name: str, kind: Kind) -> str | None:
    if name in kind.classes:
        return name
    snake = {_letters(known): known for known in kind.classes}
    return kind.names.get(name) or snake.get(_letters(name))


def _letters(name: str) -> str:
    return name.replace("_", "").lower()


def _in_early_keras_2(class_name: str, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if class_name in _SCALING:
        words = zip(("scale", "mode", "distribution"), _SCALING[class_name], strict=True)
        return "VarianceScaling", {**dict(words), "seed": config.get("seed")}
    if class_name in ("L1", "L2"):
        return "L1L2", {"l1": 0.0, "l2": 0.0, **config}
    if config.get("distribution") == "truncated_normal":
        config = {**config, "distribution": "normal"}
    return class_name, config


# -- dtype policies ----------------------------------------------------------------------------------------------------


def policy_of(value: Any, target: Target, account: Account, where: str) -> Any:
    """A layer's ``dtype``: the name of a type or policy, or the policy as an object."""
    name = _policy_name(value)
    if name is None:
        account.loss(
            f"the dtype policy {plain(value)} has no counterpart in {target.title}, which takes its own", where
        )
        return None
    if name.startswith(("int", "uint", "float8")) and "_from_" in name and target.dialect != "keras3":
        account.loss(f"{target.title} knows no quantized layers such as {name}", where)
        name = name.partition("_from_")[2]
    if target.dialect == "keras3":
        if target.version < (3, 5):  # 3.3 writes names, 3.6 objects
            return name
        account.change("dtype: names -> DTypePolicy", where)
        return node_of(target, "keras", "DTypePolicy", {"name": name})
    if name.startswith("mixed_") and target.version < (2, 4):
        account.loss(f"{name} is younger than the target, which computes in float32: outputs differ by rounding", where)
        return "float32"
    if name.startswith("mixed_"):
        return node_of(target, "", "Policy", {"name": name})
    if not isinstance(value, str):
        account.change("dtype: policies -> names", where)
    return name


def _policy_name(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    config = value.get("config") if isinstance(value, Mapping) else None
    if not isinstance(config, Mapping):
        return None
    name = config.get("name") or config.get("source_name")
    if isinstance(name, str):
        return name
    return _policy_name(config.get("default_policy"))


# -- activations -------------------------------------------------------------------------------------------------------

_FUNCTIONS = {
    "keras2": (
        "elu exponential gelu hard_sigmoid leaky_relu linear log_softmax mish relu relu6 selu sigmoid silu softmax "
        "softplus softsign swish tanh"
    ),
    "keras3": (
        "celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear "
        "log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus "
        "sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold"
    ),
}
_RENAMED = {"softmax_v2": "softmax"}


def activation_of(value: Any, target: Target, account: Account, where: str) -> Any:
    """An activation that is a function; somebody's own stays as it is.

    Keras 3 finds somebody's own function only where it is written as one (``src/activations/__init__.py``, ``get``).
    """
    if not isinstance(value, str):
        return plain(value)
    name = _RENAMED.get(value, value)
    if name != value:
        account.change(f"{value} -> {name}", where)
    if name in _FUNCTIONS[target.dialect].split():
        return name
    account.change(f"not translated: activation {name}", where)
    if target.dialect == "keras3":
        return node_of(target, "builtins", "function", name, name)
    return name
