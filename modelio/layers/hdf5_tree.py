"""A model as Keras lays it out in HDF5: whole models and weights alone, from Keras 0.3 to 3.

::

    a whole model                                            weights alone: what is in model_weights, at the root
      @keras_version "2.3.1"      @backend "tensorflow"
      @model_config  '{"class_name": ..., "config": ...}'
      @training_config  '{"optimizer_config": ..., "loss": ...}'
      model_weights/
        @layer_names   dense_1, dropout_1                    every layer, also those without weights
        @keras_version  @backend                             since Keras 2
        dense_1/
          @weight_names   dense_1/kernel:0, dense_1/bias:0   trained ones first
          dense_1/kernel:0                                   a name with "/" makes groups
          dense_1/bias:0
        dropout_1/
          @weight_names                                      none: an array of no floats
        top_level_model_weights/ @weight_names               since Keras 2.7: what belongs to no layer
      optimizer_weights/
        @weight_names   ...

    weights alone, before Keras 1.0
      @nb_layers 7
      layer_0/ @nb_params 2    param_0  param_1
      ...
      graph/   @nb_params 4    param_0  ...                  a Graph model, instead of all of the above

The order of the lists is the order of the weights; the names are kept as they are. A nested model is one layer, with
all its inner weights. Lists of more than 64 KB are split (:mod:`modelio.wire.hdf5_objects`).

Sources: ``keras/models.py`` (Keras 0.3.3), ``keras/engine/topology.py`` (1.0.8, 1.2.2), ``keras/engine/saving.py``
(2.2.4), ``keras/saving/hdf5_format.py`` (2.7), ``keras/src/legacy/saving/legacy_h5_format.py`` (3.15).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from modelio.errors import ReadError, WriteError
from modelio.layers.values import version_of
from modelio.model import LayerModel, Tensor
from modelio.wire import jsontext
from modelio.wire.hdf5_objects import Attribute, OtherKind, Reader, Writer

__all__ = ["is_keras", "read", "write"]

WEIGHTS, OPTIMIZER, TOP_LEVEL = "model_weights", "optimizer_weights", "top_level_model_weights"

OTHERS = "hdf5_attributes"
"""The key of ``meta`` that keeps all other attributes of the root, as JSON, so that they survive rewriting."""

_TELLING = re.compile(r"model_config|layer_names\d*|nb_layers")
_KNOWN = re.compile(r"model_config|layer_names\d*|nb_layers|training_config|keras_version|backend")
"""Attributes of the root: those that tell a Keras file, and all that have a place in a LayerModel."""


def is_keras(file: Reader) -> bool:
    """Whether a Keras model, or the weights of one, is there."""
    return any(map(_TELLING.fullmatch, file.attributes())) or file.has(WEIGHTS) or _is_old_graph(file)


def _is_old_graph(file: Reader) -> bool:
    return file.has("graph") and file.attribute("graph", "nb_params") is not None


# Reading


def read(file: Reader) -> LayerModel:
    """The model that is there, or its weights alone (``architecture`` is then None).

    Raises:
        ReadError: an attribute or a weight is missing, surplus, or is not what it has to be.
    """
    from modelio.layers.network import dialect_of

    if file.attribute("", "nb_layers") is not None or _is_old_graph(file):
        return _read_numbered(file)
    if file.has(WEIGHTS) or file.attribute("", "model_config") is not None:
        model = _read_whole(file)
    else:
        model = LayerModel(None, _layers(file, ""), "keras1", meta=_meta(file, ""))
    # Where neither a version nor an architecture says more, it is Keras 1, to Keras as well.
    model.dialect = dialect_of(model.architecture or {}, model.meta)
    if model.dialect == "keras1" and "backend" not in model.meta and _names_of_theano(model.weights):
        model.meta = {**model.meta, "backend": "theano"}
    return model


def _names_of_theano(weights: Mapping[str, Mapping[str, Tensor]]) -> bool:
    """Whether the names are those of Theano's variables: TensorFlow's end in ``:0``.

    Keras 1 notes no backend, and writes the variables' own names, or ``param_0`` for one that has none (1.2.2
    ``engine/topology.py``, save_weights_to_hdf5_group).
    """
    names = [name for group in weights.values() for name in group if not re.fullmatch(r"param_\d+", name)]
    return bool(names) and not any(re.search(r":\d+$", name) for name in names)


def _read_whole(file: Reader) -> LayerModel:
    architecture = _json(file, "model_config")
    if architecture is None:
        raise ReadError("model_config is missing: the file has a model's weights and not its architecture")
    if WEIGHTS not in file:
        raise ReadError(f"the group {WEIGHTS} is missing: the file has a model's architecture and not its weights")
    return LayerModel(
        architecture=architecture,
        weights=_layers(file, WEIGHTS),
        dialect="keras1",
        training=_json(file, "training_config"),
        optimizer=_named_weights(file, OPTIMIZER) if OPTIMIZER in file else {},
        meta=_meta(file, "", WEIGHTS),
    )


def _read_numbered(file: Reader) -> LayerModel:
    groups = [f"layer_{k}" for k in range(_count(file, "", "nb_layers"))] if not _is_old_graph(file) else ["graph"]
    weights = {}
    for group in groups:
        names = [f"param_{k}" for k in range(_count(file, group, "nb_params"))]
        weights[group] = {name: _tensor(file, group, name, "nb_params counts") for name in names}
    _refuse_surplus(file, "", weights)
    # The files name no version; only those before 1.0 wrote such.
    return LayerModel(None, weights, "keras1", meta={**_meta(file), "keras_version": "0"})


def _count(file: Reader, path: str, name: str) -> int:
    value = file.attribute(path, name) if not path or path in file else None
    if not isinstance(value, np.ndarray) or value.shape or value.dtype.kind not in "iu" or value < 0:
        raise ReadError(f"{name} is missing, or is no count", where=path or None)
    return int(value)


def _json(file: Reader, name: str) -> dict[str, Any] | None:
    text = file.attribute("", name)
    if text is None:
        return None
    if not isinstance(text, str):
        raise ReadError("the attribute is not text", where=name)
    value = jsontext.parse(text, where=name)
    if value is not None and not isinstance(value, dict):
        raise ReadError(f"a JSON object is wanted, this is {json.dumps(value)[:40]}", where=name)
    return value


def _meta(file: Reader, *groups: str) -> dict[str, str]:
    meta: dict[str, str] = {}
    for name in ("keras_version", "backend"):
        for group in groups:
            value = file.attribute(group, name)
            if isinstance(value, str):
                meta.setdefault(name, value)
            elif value is not None:
                raise ReadError("the attribute is not text", where=f"{group}@{name}")
    others = {}
    for name in file.attributes():
        if not _KNOWN.fullmatch(name):
            with contextlib.suppress(OtherKind, WriteError):  # nothing that a text could keep
                others[name] = json.loads(jsontext.spell(_plain(file.attribute("", name))))
    return {**meta, OTHERS: jsontext.spell(others)} if others else meta


def _plain(value: Attribute | None) -> Any:
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "shape": value.shape, "values": value.ravel().tolist()}
    return value


def _layers(file: Reader, base: str) -> dict[str, Mapping[str, Tensor]]:
    names = _distinct(file.names(base, "layer_names"), "layer_names", base)
    weights: dict[str, Mapping[str, Tensor]] = {}
    for name in names:
        path = _path(base, name)
        if path not in file:
            raise ReadError(f"layer_names lists {name!r}, and the file has no such group", where=base or None)
        weights[name] = _named_weights(file, path)
    top_level = _path(base, TOP_LEVEL)
    if TOP_LEVEL not in weights and top_level in file and (own := _named_weights(file, top_level)):
        weights[TOP_LEVEL] = own
    _refuse_surplus(file, base, weights)
    return weights


def _named_weights(file: Reader, path: str) -> dict[str, Tensor]:
    names = _distinct(file.names(path, "weight_names"), "weight_names", path)
    return {name: _tensor(file, path, name, "weight_names lists") for name in names}


def _distinct(names: list[str] | None, attribute: str, path: str) -> list[str]:
    if names is None:
        raise ReadError(f"{attribute} is missing: whatever wrote this file stopped half-way", where=path or None)
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ReadError(f"{attribute} lists {twice!r} twice", where=path or None)
    return names


def _tensor(file: Reader, group: str, name: str, lister: str) -> Tensor:
    path = _path(group, name)
    if path not in file:
        raise ReadError(f"{lister} {name!r}, and the file has no such dataset", where=group)
    values = file.dataset(path)
    return Tensor(values.dtype, values.shape, values.numpy, values.chunks)


def _path(group: str, name: str) -> str:
    """The path of a member; HDF5 takes several slashes for one."""
    path = f"{group}/{name}" if group else name
    return path if "//" not in path else "/".join(filter(None, path.split("/")))


def _refuse_surplus(file: Reader, base: str, weights: Mapping[str, Iterable[str]]) -> None:
    """Refuse datasets that no list names: a list that lost a part would otherwise lose weights in silence."""
    listed = {_path(_path(base, layer), name) for layer, names in weights.items() for name in names}
    listed |= {_path(base, layer) for layer in weights}
    for leaf in file.leaves(base):
        if leaf not in listed and leaf and file.is_dataset(leaf):
            raise ReadError(
                "neither layer_names nor weight_names leads to this dataset: a part of them is lost", where=leaf
            )


# Writing


def write(model: LayerModel, file: Writer) -> None:
    """Write a whole model, or, where it has no architecture, its weights alone, as the Keras of its version does.

    Raises:
        WriteError: Keras has no place for a part of it: no weights, or an optimizer's without an architecture.
    """
    version = version_of(model.meta.get("keras_version"))
    if model.architecture is None:
        if model.training is not None or model.optimizer:
            raise WriteError("an optimizer's state is kept beside an architecture, and this model has none")
        if version[:1] == (0,) and _is_numbered(model.weights):
            _write_numbered(file, model.weights)
        else:
            _write_layers(file, "", model, version)
    else:
        _write_whole(file, model, version)
    _write_others(file, model.meta)


def _write_whole(file: Writer, model: LayerModel, version: tuple[int, ...]) -> None:
    if not model.weights:
        raise WriteError("the model has no weights, and Keras reads no .h5 without them: give the weights, too")
    text = jsontext.spell(model.architecture, where="model_config")
    if '"lora_rank"' in text:
        from modelio.layers.lora import apart

        model = apart(model)
    _write_facts(file, "", model)
    file.attribute("", "model_config", text)
    if model.training is not None:
        file.attribute("", "training_config", jsontext.spell(model.training, where="training_config"))
    file.group(WEIGHTS)
    _write_layers(file, WEIGHTS, model, version)
    if model.optimizer:
        _write_named_weights(file, OPTIMIZER, model.optimizer)


def _write_layers(file: Writer, base: str, model: LayerModel, version: tuple[int, ...]) -> None:
    weights = dict(model.weights)
    top_level = weights.pop(TOP_LEVEL, {})
    file.names(base, "layer_names", list(weights))
    if model.dialect != "keras1":
        _write_facts(file, base, model)
    for layer, named in weights.items():
        _write_named_weights(file, _path(base, layer), named)
    if top_level or version >= (2, 7):
        _write_named_weights(file, _path(base, TOP_LEVEL), top_level)


def _write_facts(file: Writer, path: str, model: LayerModel) -> None:
    # Keras 2 takes a file without a version for one of Keras 1, and turns its kernels; so there has to be one.
    assumed = {"keras1": None, "keras2": "2.0.0", "keras3": "3.0.0"}[model.dialect]
    for name, value in (("keras_version", assumed), ("backend", None)):
        value = model.meta.get(name, value)
        if value is not None:
            file.attribute(path, name, value)


def _write_named_weights(file: Writer, path: str, weights: Mapping[str, Tensor]) -> None:
    file.group(path)
    file.names(path, "weight_names", list(weights))
    for name, tensor in weights.items():
        file.dataset(_path(path, name), tensor)


def _is_numbered(weights: Mapping[str, Mapping[str, Tensor]]) -> bool:
    groups = list(weights)
    return (groups == ["graph"] or groups == [f"layer_{k}" for k in range(len(groups))]) and all(
        list(named) == [f"param_{k}" for k in range(len(named))] for named in weights.values()
    )


def _write_numbered(file: Writer, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
    if list(weights) != ["graph"]:
        file.attribute("", "nb_layers", np.array(len(weights)))
    for group, named in weights.items():
        file.group(group)
        file.attribute(group, "nb_params", np.array(len(named)))
        for name, tensor in named.items():
            file.dataset(_path(group, name), tensor)


def _write_others(file: Writer, meta: Mapping[str, str]) -> None:
    if OTHERS not in meta:
        return
    try:
        for name, value in jsontext.parse(meta[OTHERS]).items():
            if isinstance(value, dict):
                value = np.array(value["values"], value["dtype"]).reshape(value["shape"])
            file.attribute("", name, value)
    except (ReadError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise WriteError(f"meta[{OTHERS!r}] is not what reading such a file gives: {error}") from error
