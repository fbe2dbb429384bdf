"""What Keras' loader of ``.keras`` files wants, and architectures of other formats lack.

::

    {"module": "keras", "class_name": "Sequential", "config": {...}, "registered_name": null, "compile_config": {...}}

The layers inside may be spelled as in HDF5 files, without ``module``: the loader tells the two apart, layer by layer.
That of Keras 3, though, reads some of that spelling wrong (it knows no operations, and takes ``score_mode="dot"`` of an
Attention for a function), so its own layers are given their modules. What is added is noted, so that reading can take
it away again.

Sources: ``serialization_lib.py`` (``deserialize_keras_object``, ``_retrieve_class_or_fn``), ``functional.py`` and
``sequential.py`` (``from_config``) of Keras 3.15 and tf_keras 2.21.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelio.errors import ReadError
from modelio.layers.catalogue import CATALOGUE
from modelio.layers.keras3 import OPERATIONS, class_of
from modelio.model import Dialect

__all__ = ["compile_config", "loadable", "original"]

Notes = dict[str, Any]
"""What was changed: keys ``added`` and ``replaced`` of the model's node; ``listed``: its config was a list of layers;
``modules``: the layers had none."""


def loadable(
    architecture: Mapping[str, Any], dialect: Dialect, version: tuple[int, ...]
) -> tuple[dict[str, Any], Notes]:
    """An architecture as ``config.json`` has it, and notes on what was changed; one of a ``.keras`` file as it is."""
    config = dict(architecture)
    if "module" in config:
        return config, {}
    notes: Notes = {}
    if isinstance(config["config"], list):  # Keras 2.0 to 2.2
        notes["listed"] = True
        config["config"] = {"name": str(config.get("name") or "sequential"), "layers": config["config"]}
    class_name, module = _class(str(config["class_name"]), dialect, version)
    if class_name != config["class_name"]:
        notes["replaced"] = {"class_name": config["class_name"]}
    config = {"module": module, **config, "class_name": class_name, "registered_name": None}
    if dialect == "keras3":
        spelled = _with_modules(config["config"])
        if _without_modules(spelled) == config["config"]:
            config["config"], notes["modules"] = spelled, True
    notes["added"] = sorted(set(config) - set(architecture))
    return config, notes


def original(config: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """The architecture that :func:`loadable` was given."""
    added, replaced = notes.get("added", []), notes.get("replaced", {})
    if not isinstance(added, list) or not isinstance(replaced, dict):
        raise ReadError("what is noted on the architecture is not what modelio writes", where="metadata.json")
    architecture = {key: value for key, value in config.items() if key not in added} | replaced
    if notes.get("listed") and isinstance(architecture.get("config"), dict):
        architecture["config"] = architecture["config"].get("layers")
    if notes.get("modules"):
        architecture["config"] = _without_modules(architecture.get("config"))
    return architecture


def _class(class_name: str, dialect: Dialect, version: tuple[int, ...]) -> tuple[str, str | None]:
    """The class of a model, and the module in which the loader of its version finds it."""
    if class_name == "Sequential":
        return class_name, "keras"
    if class_name not in ("Model", "Functional"):  # the author's own, which only the author's code can load
        return class_name, None
    if dialect == "keras3":
        return "Functional", "keras.src.models.functional"
    if (2, 12) <= version < (2, 16):
        return "Functional", "keras.src.engine.functional" if version >= (2, 13) else "keras.engine.functional"
    return "Functional", "tf_keras.src.engine.functional"


_MODELS = {"Sequential": "keras", "Functional": "keras.src.models.functional"}


_HIDDEN = dict.fromkeys(("TFDConcat", "TFDIdentity"), "keras.src.layers.preprocessing.feature_space")

_OUTSIDE: Mapping[str, str] = {
    "Rearrange": ".einops",
    **dict.fromkeys(
        (
            *("AffineTransform", "CropImages", "ElasticTransform", "ExtractPatches", "ExtractPatches3D"),
            *("GaussianBlur", "HSVToRGB", "MapCoordinates", "PadImages", "PerspectiveTransform", "RGBToGrayscale"),
            *("RGBToHSV", "Resize", "SSIM", "ScaleAndTranslate", "SobelEdges"),
        ),
        ".image",
    ),
}
"""Operations that are not in ``keras.src.ops`` itself -> the module in it that has them (Keras 3.3 to 3.15)."""


def _module(node: Mapping[str, Any]) -> str | None:
    """Where Keras 3 finds the class of a layer or an operation; None for what may be somebody's own."""
    name = class_of(node)
    if name.startswith(OPERATIONS):
        return f"keras.src.ops{_OUTSIDE.get(name.removeprefix(OPERATIONS), '')}"
    return _MODELS.get(name) or _HIDDEN.get(name) or ("keras.layers" if name in CATALOGUE else None)


def _with_modules(value: Any, is_listed: bool = False) -> Any:
    """A part of an architecture with the modules of layers that stand in the lists of models."""
    if isinstance(value, list):
        return [_with_modules(item, is_listed) for item in value]
    if not isinstance(value, Mapping):
        return value
    changed = {key: _with_modules(item, key == "layers") for key, item in value.items()}
    if is_listed and "class_name" in value and "module" not in value and _module(value) is not None:
        return {"module": _module(value), **changed, "registered_name": None}
    return changed


def _without_modules(value: Any, is_listed: bool = False) -> Any:
    if isinstance(value, list):
        return [_without_modules(item, is_listed) for item in value]
    if not isinstance(value, Mapping):
        return value
    added = ("module", "registered_name") if is_listed and "class_name" in value else ()
    return {key: _without_modules(item, key == "layers") for key, item in value.items() if key not in added}


# -- compile() ---------------------------------------------------------------------------------------------------------

_MODULES = {
    "optimizer": "keras.optimizers",
    "loss": "keras.losses",
    "metrics": "keras.metrics",
    "weighted_metrics": "keras.metrics",
}

_DROPPED = frozenset({"optimizer_config", "sample_weight_mode"})
"""Keys of a training configuration that ``compile`` does not take, or no longer."""


def compile_config(training: Mapping[str, Any], version: tuple[int, ...]) -> dict[str, Any]:
    """The ``training_config`` of an HDF5 file as the ``compile_config`` of a ``.keras`` file.

    >>> training = {"optimizer_config": {"class_name": "SGD", "config": {"learning_rate": 0.1}}, "loss": "mse"}
    >>> compile_config(training, (3, 15))["optimizer"]["module"]
    'keras.optimizers'
    """
    modules = dict(_MODULES)
    if version < (2, 11):  # until then optimizers had other arguments
        modules["optimizer"] = "keras.optimizers.legacy"
    config = {"optimizer": training.get("optimizer_config")}
    config |= {key: value for key, value in training.items() if key not in _DROPPED}
    return {key: _found_in(modules[key], value) if key in modules else value for key, value in config.items()}


def _found_in(module: str, value: Any) -> Any:
    """Objects of HDF5 files, ``{class_name, config}``, with the module in which the loader looks for them."""
    if isinstance(value, list):
        return [_found_in(module, item) for item in value]
    if not isinstance(value, Mapping):
        return value
    inner = "keras.optimizers.schedules" if module.startswith("keras.optimizers") else module
    changed = {key: _found_in(inner, item) for key, item in value.items()}
    if "class_name" not in value or "config" not in value or "module" in value:
        return changed
    package, _, name = str(value["class_name"]).rpartition(">")
    # TensorFlow 2.11 to 2.15 register their own optimizers as if they were the user's.
    built_in = not package or (package == "Custom" and module.startswith("keras.optimizers"))
    return {
        "module": module if built_in else None,
        "class_name": name,
        "config": changed["config"],
        "registered_name": None if built_in else value["class_name"],
    }
