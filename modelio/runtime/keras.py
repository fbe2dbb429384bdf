"""Live Keras models, Keras 3's and tf_keras', into a LayerModel and out of one: in memory, without a file.

Which of the two a model belongs to is told by its class on the way in, and by its dialect on the way out: ``keras3`` is
built by Keras 3, ``keras2`` by tf_keras.
"""

from __future__ import annotations

import importlib
import itertools
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from modelio.errors import ConversionError, MissingDependency
from modelio.layers.binding import bind
from modelio.layers.document import from_json
from modelio.layers.network import network_of
from modelio.layers.vocabularies import LAYERS, arguments_of
from modelio.model import Dialect, LayerModel, Tensor
from modelio.source import Source

__all__ = ["from_live", "to_live"]

PACKAGES: dict[Dialect, str] = {"keras2": "tf_keras", "keras3": "keras"}
"""Which package builds the models of a dialect."""


UNBUILT = (AttributeError, KeyError, NotImplementedError, TypeError, ValueError)
"""What Keras raises where it cannot build a model."""

LEGACY = {
    "keras": ("keras.src.legacy.saving.saving_utils", "keras.src.legacy.saving.json_utils"),
    "tf_keras": ("tf_keras.src.saving.legacy.saving_utils", "tf_keras.src.saving.legacy.saved_model.json_utils"),
}
"""What each package writes and reads the training configuration of its HDF5 files with."""


def from_live(model: Any) -> LayerModel:
    """The architecture, weights, training configuration and optimizer state of a live model; arrays are copied.

    Raises:
        ConversionError: it is no model of Keras 3 or tf_keras, or one that cannot say its own architecture.
    """
    package = _package_of(model)
    try:
        architecture = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ConversionError(f"the model cannot say its own architecture: {_said(error)}") from error
    keras = _import(package)
    if package == "keras":  # Keras 3 leaves its version out of the JSON
        facts = {"keras_version": keras.__version__, "backend": keras.backend.backend()}
    else:
        facts = {"keras_version": str(architecture["keras_version"]), "backend": str(architecture["backend"])}
    lookups = dict(_lookups(model))
    own = _own_names(lookups)
    weights = {
        layer.name: _named(package, [*layer.trainable_weights, *layer.non_trainable_weights], own)
        for layer in _listed(model)
    }
    for path, factors in _factors(lookups).items() if package == "keras" else ():
        weights[path.partition("/")[0]][f"{path}/idf_weights"] = factors
    read = from_json({**architecture, **facts}, {name: {**group} for name, group in weights.items()})
    return replace(
        read,
        architecture=architecture,
        meta=facts,
        training=_training(package, model),
        optimizer=_optimizer(package, model),
        assets=_vocabularies(lookups) if package == "keras" else {},
    )


def to_live(model: LayerModel, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The live model: built, with its weights, and compiled where it was trained.

    Raises:
        MissingDependency: the package that builds this dialect is not installed.
        ConversionError: Keras does not build this architecture, or the model has no weights or no architecture.
    """
    if model.architecture is None:
        raise ConversionError("the model holds weights only; Keras needs the architecture too")
    package = PACKAGES.get(model.dialect)
    if package is None:
        raise ConversionError(f"no Keras of today builds a model of the dialect {model.dialect}; translate it first")
    keras = _import(package)
    try:
        live = _built(keras, package, model.architecture, dict(custom_objects or {}))
        if package == "keras" and model.assets:
            _give_words(live, model)
        if any(model.weights.values()):
            live.set_weights(_arrays_for(model, keras))
            _settle(live)
    except UNBUILT as error:
        raise ConversionError(f"{package} {keras.__version__} does not build this model: {_said(error)}") from error
    if model.training:
        try:
            _compile(package, live, model, custom_objects)
        except UNBUILT as error:  # Keras 3.15 cannot read "mse" as a metric from its own files, for one
            warnings.warn(f"the model is built but not compiled: {_said(error)}", stacklevel=4)
    return live


def _give_words(live: Any, model: LayerModel) -> None:
    """The vocabularies that layers of Keras 3 have adapted, which are no weights and no arguments to it."""
    assert model.architecture is not None  # the caller looked
    network = bind(network_of(model.architecture, model.dialect, model.meta), model)
    learned = {layer.path: layer for layer in network.walk() if layer.class_name in LAYERS}
    for path, lookup in _lookups(live):
        layer = learned.get(path)
        if layer is not None and "vocabulary" in layer.weights and lookup.input_vocabulary is None:
            told = arguments_of(layer)
            lookup.set_vocabulary(told["vocabulary"], idf_weights=told.get("idf_weights"))


def _settle(live: Any) -> None:
    """Let layers make what they compute with from the weights they were given, as Keras' own loading does."""
    for layer in live._flatten_layers():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _built(keras: Any, package: str, architecture: Mapping[str, Any], custom_objects: dict[str, Any]) -> Any:
    """The model without its weights. HDF5 files of Keras 3 spell it as Keras 2 did, which only from_config takes."""
    if package == "keras" and "module" not in architecture:
        kind = keras.Sequential if architecture["class_name"] == "Sequential" else keras.Model
        config = json.loads(json.dumps(architecture["config"]))  # Keras changes what it is given
        return kind.from_config(config, custom_objects=custom_objects)
    return keras.models.model_from_json(json.dumps(architecture), custom_objects=custom_objects)


def _arrays_for(model: LayerModel, keras: Any) -> list[Any]:
    """The weights in the order in which the Keras that is installed lists them, which is not that of every writer."""
    version = keras.__version__ if model.dialect == "keras3" else f"{keras.__version__}-tf"
    return replace(model, meta={**model.meta, "keras_version": version}).get_weights()


def _package_of(model: Any) -> str:
    for base in type(model).__mro__:
        root = base.__module__.partition(".")[0]
        if root in PACKAGES.values() and base.__name__ == "Model":
            return str(root)
    raise ConversionError(f"a {type(model).__module__}.{type(model).__name__} is no model of Keras 3 or tf_keras")


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependency(f"{package} is not installed: pip install 'modelio[tensorflow]'") from error


def _listed(model: Any) -> list[Any]:
    """The layers that the architecture lists; a Sequential's own list leaves its InputLayer out."""
    return list(getattr(model, "_self_tracked_trackables", None) or getattr(model, "_layers", None) or model.layers)


def _named(package: str, variables: list[Any], own: Mapping[int, str] | None = None) -> dict[str, Tensor]:
    """Variables under the names that an HDF5 file would have."""
    attribute = "path" if package == "keras" else "name"
    named: dict[str, Tensor] = {}
    for variable in variables:
        name = (own or {}).get(id(variable)) or str(getattr(variable, attribute))
        values = variable.get_tensors()[0].numpy() if hasattr(variable, "get_tensors") else np.array(variable)
        named[_free(name, named)] = Tensor.of(values)
    return named


def _free(name: str, taken: Mapping[str, Tensor]) -> str:
    """A name that no other has: the cells of both directions have one name, and so has the state of some optimizers."""
    stem, colon, output = name.partition(":")
    numbered = (f"{stem}_{number}{colon}{output}" for number in itertools.count(1))
    return next(candidate for candidate in itertools.chain([name], numbered) if candidate not in taken)


def _lookups(model: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The layers that have a vocabulary, StringLookup and its kin, by their paths in the model."""
    for layer in _listed(model):
        name = f"{path}/{layer.name}".lstrip("/")
        if hasattr(layer, "get_vocabulary"):
            yield name, getattr(layer, "_lookup_layer", layer)  # TextVectorization has one inside
        elif hasattr(layer, "get_layer"):
            yield from _lookups(layer, name)


def _own_names(lookups: Mapping[str, Any]) -> dict[int, str]:
    """Names of what tf_keras counts among a lookup's weights: it calls them ``Variable:0``, or nothing at all."""
    names = {}
    for path, layer in lookups.items():
        for variable in getattr(layer, "weights", ()):
            role = "vocabulary" if hasattr(variable, "get_tensors") else None
            for known in ("idf_weights", "num_documents"):
                role = known if variable is getattr(layer, known, None) else role
            if role:
                names[id(variable)] = f"{path.rpartition('/')[2]}/{role}:0"
    return names


def _factors(lookups: Mapping[str, Any]) -> dict[str, Tensor]:
    """What layers of Keras 3 weigh words by, which it does not count among their weights."""
    known = {path: getattr(layer, "idf_weights_const", None) for path, layer in lookups.items()}
    return {path: Tensor.of(np.array(factors)) for path, factors in known.items() if factors is not None}


def _vocabularies(lookups: Mapping[str, Any]) -> dict[str, Source]:
    """What layers of Keras 3 have learned, as the files that ``model.save`` makes of it."""
    files = {}
    for path, layer in lookups.items():
        if layer.input_vocabulary is None and int(layer.lookup_table.size()):
            words = "\n".join(str(word) for word in layer.get_vocabulary())
            files[f"{path}/vocabulary.txt"] = Source.of(words.encode())
            if layer.name != path.rpartition("/")[2]:  # the one inside a TextVectorization is an object of its own
                files[f"{path}/_lookup_layer/vocabulary.txt"] = Source.of(words.encode())
    return files


def _training(package: str, model: Any) -> Mapping[str, Any] | None:
    """What ``compile`` was told, as HDF5 files have it."""
    if not getattr(model, "optimizer", None):
        return None
    legacy, encoder = map(importlib.import_module, LEGACY[package])
    found = legacy.model_metadata(model, include_optimizer=True).get("training_config")
    training: Mapping[str, Any] | None = json.loads(json.dumps(found, default=encoder.get_json_type))
    return training


def _optimizer(package: str, model: Any) -> dict[str, Tensor]:
    optimizer = getattr(model, "optimizer", None)
    variables = getattr(optimizer, "variables", None) or []
    return _named(package, list(variables() if callable(variables) else variables))


def _compile(package: str, live: Any, model: LayerModel, custom_objects: Mapping[str, Any] | None) -> None:
    """Compile as the model says, and give the optimizer its state where it fits."""
    if (
        getattr(live, "optimizer", None) is None
    ):  # Keras 3 compiles while it builds, where the architecture holds a compile_config
        legacy = importlib.import_module(LEGACY[package][0])
        live.compile(**legacy.compile_args_from_training_config(dict(model.training or {}), custom_objects))
    optimizer = live.optimizer
    # The optimizers that tf_keras keeps from before 2.11 make their state with the first step only.
    if not hasattr(optimizer, "build") or not model.optimizer:
        return
    optimizer.build(live.trainable_variables)
    variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    arrays = [tensor.numpy() for tensor in model.optimizer.values()]
    if [tuple(variable.shape) for variable in variables] == [array.shape for array in arrays]:
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)


def _said(error: BaseException) -> str:
    """What Keras says, on one line; it says most on the lines after the first."""
    return " ".join(str(error).split())[:600]
