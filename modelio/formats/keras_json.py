"""Keras JSON: an architecture as ``model.to_json()`` gives it, with its weights in ``.npz`` beside it, or alone.

::

    architecture.json    {"class_name": "Sequential", "config": [...], "keras_version": "2.0.5", "backend": ...}
    weights.npz          0000, 0001, ...: the arrays of model.get_weights(), in that order
    modelio.json         what an .npz cannot say; not needed for reading
                           {"dialect": "keras2", "meta": {"keras_version": "2.0.5", ...},
                            "weights": {layer: {name: entry of weights.npz}}, "optimizer": {name: entry}}
                           with layers and names in the order of Keras' own files
    training.json        what compile() was told
    optimizer.npz        0000, 0001, ...

So Keras itself reads what is written here: ``model_from_json`` the first file, ``set_weights`` the arrays of the
second.

Of others' trees (a directory, a mapping, a zip) the architecture is the one ``.json`` at the top that holds one, under
any name, and the weights are ``weights.npz``, or the one ``.npz`` whose name says weights, or the only one, or else
``.npy`` files. Arrays that are numbered (``0000``, ``arr_0``) are taken in that order, those named ``<layer>/...`` by
their names, all others in the order of the archive. A ``.json`` alone is an architecture without weights; it may be
encoded twice, a bare ``get_config()``, or of Keras 0.x.

Sources: ``keras/engine/topology.py`` (``Container.to_json``, Keras 1.2.2), ``keras/src/models/model.py`` (3.15).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from modelio.errors import ModelioError, ReadError, WriteError
from modelio.format import Format
from modelio.model import Dialect, LayerModel, Tensor
from modelio.sink import Sink
from modelio.source import Source, Tree
from modelio.wire import jsontext, npz

ARCHITECTURE, WEIGHTS, NOTES = "architecture.json", "weights.npz", "modelio.json"
TRAINING, OPTIMIZER = "training.json", "optimizer.npz"

_CANDIDATES = 64
"""JSON files at the top of a tree that are looked into; more are a data set."""

_NUMBERED = re.compile(r"(arr_)?\d{1,9}")


def sniff(source: Source) -> bool:
    tree = source.tree
    if tree is None:
        return _architecture_in(source) is not None
    return not _is_keras_file(tree) and bool(_architectures_in(tree))


def _is_keras_file(tree: Tree) -> bool:
    """Whether it is a .keras file, which has an architecture, too, but its weights in another format."""
    members = ("metadata.json", "model.weights.h5", "model.weights.npz", "model.weights.json")
    return "config.json" in tree and any(name in tree for name in members)


def _architectures_in(tree: Tree) -> dict[str, dict[str, Any]]:
    names = [name for name in tree.top() if name.lower().endswith(".json")][:_CANDIDATES]
    found = {name: _architecture_in(tree[name]) for name in names if name in tree}
    return {name: architecture for name, architecture in found.items() if architecture is not None}


def _architecture_in(source: Source) -> dict[str, Any] | None:
    """The architecture that a file holds, or None where it is something else. Other files cost nothing but a look."""
    if source.head(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"[", b'"') or source.size > jsontext.SIZE:
        return None
    data = source.bytes()
    if b"class_name" not in data and b'"layers"' not in data:
        return None
    try:
        return _architecture(jsontext.parse(data))
    except ReadError:
        return None


def _architecture(value: Any) -> dict[str, Any] | None:
    """A parsed JSON text as an architecture, or None where it is something else."""
    if _are_nodes(value):  # get_config() of a Sequential, before Keras 2.2.3
        return {"class_name": "Sequential", "config": value}
    if not isinstance(value, dict):
        return None
    config = value.get("config", value)
    layers = config.get("layers") if isinstance(config, dict) else config
    if "class_name" in value and "config" in value:
        return value if "keras_version" in value or _are_nodes(layers) or layers == [] else None
    is_config = _are_nodes(layers) and "input_layers" in config  # get_config() of a functional model
    return value if is_config or value.get("name") in ("Sequential", "Graph") else None  # or Keras 0.x


def _are_nodes(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and "class_name" in v for v in value)


# Reading


def read(source: Source, *, architecture: str | None = None, weights: str | None = None) -> LayerModel:
    """Read an architecture, and its weights where they are beside it.

    Args:
        source: a tree as in this module's docstring, or one JSON file.
        architecture: the member that holds the architecture, where there are several.
        weights: the ``.npz`` that holds the weights, where there are several; for one JSON file, its neighbour.

    Raises:
        ReadError: there is no architecture, or several; the arrays are not as many as the weights.
    """
    tree = source.tree
    known = _the_architecture(source, tree, architecture)
    if tree is None:
        model = _model(known, {})
        arrays = _members(source.beside, weights) if weights is not None else None
    else:
        notes = _object(tree, NOTES)
        model = _model(known, notes)
        model.training = _object(tree, TRAINING) if TRAINING in tree else None
        if notes.get("optimizer"):
            model.optimizer = _named(tree, OPTIMIZER, {"": notes["optimizer"]})[""]
        if "weights" in notes and weights is None:
            model.weights = _named(tree, WEIGHTS, notes["weights"])
            return model
        arrays = _arrays(tree, weights)
    if arrays is not None:
        model.weights = _assigned(model, known, arrays)
    return model


def _model(architecture: dict[str, Any], notes: Mapping[str, Any]) -> LayerModel:
    from modelio.layers.network import dialect_of

    own = {key: architecture[key] for key in ("keras_version", "backend") if key in architecture}
    meta = notes.get("meta", own)
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        raise ReadError("the version or the backend is not a text", where=NOTES if notes else None)
    dialect = notes.get("dialect", dialect_of(architecture, meta))
    if dialect not in get_args(Dialect):
        raise ReadError(f"{json.dumps(dialect)} is no dialect of Keras", where=NOTES)
    return LayerModel(architecture=architecture, weights={}, dialect=dialect, meta=meta)


def _the_architecture(source: Source, tree: Tree | None, name: str | None) -> dict[str, Any]:
    found: dict[str, dict[str, Any] | None]
    if tree is None:
        found = {"": _architecture(jsontext.parse(source.bytes(jsontext.SIZE)))}
    elif _is_keras_file(tree):
        raise ReadError("this is a .keras file: it is of the format keras-zip")
    elif name is None:
        found = {**_architectures_in(tree)}
    elif name in tree:
        found = {name: _architecture(jsontext.parse(tree[name].bytes(jsontext.SIZE), where=name))}
    else:
        raise ReadError("there is no such file", where=name)
    if len(found) > 1:
        raise ReadError(f"several Keras architectures: {', '.join(found)}; say which with architecture=")
    known = next(iter(found.values()), None)
    if known is None:
        raise ReadError("no Keras architecture is here: no JSON with class_name and config, or with layers", where=name)
    return known


def _object(tree: Mapping[str, Source], name: str) -> dict[str, Any]:
    if name not in tree:
        return {}
    value = jsontext.parse(tree[name].bytes(jsontext.SIZE), where=name)
    if not isinstance(value, dict):
        raise ReadError("a JSON object is wanted", where=name)
    return value


def _named(tree: Tree, name: str, notes: Any) -> dict[str, Mapping[str, Tensor]]:
    """The arrays of an ``.npz`` under the names that modelio.json gives them."""
    if not isinstance(notes, dict) or not all(isinstance(entries, dict) for entries in notes.values()):
        raise ReadError("weights are listed in another way than {layer: {name: entry}}", where=NOTES)
    arrays = _members(tree, name) if name in tree else {}
    named: dict[str, Mapping[str, Tensor]] = {}
    for layer, entries in notes.items():
        for entry in entries.values():
            if not isinstance(entry, str) or entry not in arrays:
                raise ReadError(f"{NOTES} lists the array {entry!r}, which is not there", where=name)
        if len(set(entries.values())) < len(entries):
            raise ReadError("an array is listed under two names", where=NOTES)
        named[layer] = {weight: arrays.pop(entry) for weight, entry in entries.items()}
    if arrays:
        raise ReadError(f"{NOTES} does not list the arrays {', '.join(arrays)[:80]}", where=name)
    return named


def _arrays(tree: Tree, name: str | None) -> dict[str, Tensor] | None:
    """The arrays of a tree that modelio did not write, in order; None where it has none."""
    name = name or _weights_name(tree)
    return _npy(tree, tree.top()) or None if name is None else _members(tree, name)


def _weights_name(tree: Tree) -> str | None:
    names = [name for name in tree.top() if name.lower().endswith(".npz") and name != OPTIMIZER]
    for chosen in ([WEIGHTS] if WEIGHTS in names else [], [n for n in names if "weights" in n.lower()], names):
        if len(chosen) == 1:
            return chosen[0]
    if names:
        raise ReadError(f"several .npz files: {', '.join(names)}; say which has the weights with weights=")
    return None


def _members(files: Mapping[str, Source], name: str) -> dict[str, Tensor]:
    """The arrays of an ``.npz`` by name: numbered ones by number, others in the order in which they were written."""
    if name not in files:
        raise ReadError("there is no such file beside the architecture", where=name)
    source = files[name]
    tree = source.tree
    if tree is None:
        raise ReadError("this is no .npz: it is no zip", where=name)
    import zipfile

    with zipfile.ZipFile(source.open()) as archive:  # the tree has checked it, and does not keep its order
        members = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    arrays = _npy(tree, members)
    if len(arrays) < len(members):
        raise ReadError("something else than .npy arrays is in it", where=name)
    return arrays


def _npy(tree: Tree, members: list[str]) -> dict[str, Tensor]:
    names = [name.removesuffix(".npy") for name in members if name.endswith(".npy")]
    if all(map(_NUMBERED.fullmatch, names)):
        names.sort(key=lambda name: int(name.rpartition("_")[2]))
    return {name: _array(tree, f"{name}.npy") for name in names}


def _array(tree: Tree, member: str) -> Tensor:
    # A compressed member is unpacked for its header, dropped, and unpacked again for its numbers: reading keeps none.
    def opened() -> npz.RawArray:
        return npz.read_npy(tree[member].window(), where=member)

    found = opened()
    return Tensor(found.dtype, found.shape, lambda: opened().numpy(), lambda: opened().chunks())


def _assigned(
    model: LayerModel, architecture: Mapping[str, Any], arrays: Mapping[str, Tensor]
) -> dict[str, Mapping[str, Tensor]]:
    """The arrays by layer: by their names where every name starts with a layer's, otherwise by their order."""
    from modelio.layers.binding import from_arrays
    from modelio.layers.network import network_of

    layers = [layer.name for layer in network_of(architecture, model.dialect, model.meta).layers]
    by_layer: dict[str, dict[str, Tensor]] = {}
    for name, tensor in arrays.items():
        owner = max((layer for layer in layers if name.startswith(layer + "/")), key=len, default=None)
        if owner is None:
            return dict(from_arrays(architecture, list(arrays.values()), model.dialect, model.meta))
        by_layer.setdefault(owner, {})[name] = tensor
    return dict(from_arrays(architecture, by_layer, model.dialect, model.meta))


# Writing


def write(model: LayerModel, sink: Sink) -> None:
    """Write the files of this module's docstring; those that would be empty are left out."""
    if model.architecture is None:
        raise WriteError("this model has weights alone, and keras-json starts from an architecture")
    notes: dict[str, Any] = {"dialect": model.dialect, "meta": dict(model.meta), "weights": {}, "optimizer": {}}
    _write_json(sink, ARCHITECTURE, model.architecture)
    if model.weights:
        places = _places(model)
        entries = {place: f"{number:04d}" for number, place in enumerate(places)}
        _write_npz(sink, WEIGHTS, {entry: model.weights[layer][name] for (layer, name), entry in entries.items()})
        notes["weights"] = {
            layer: {name: entries[layer, name] for name in named} for layer, named in model.weights.items()
        }
    if model.optimizer:
        numbered = {name: f"{number:04d}" for number, name in enumerate(model.optimizer)}
        _write_npz(sink, OPTIMIZER, {numbered[name]: tensor for name, tensor in model.optimizer.items()})
        notes["optimizer"] = numbered
    if model.training is not None:
        _write_json(sink, TRAINING, model.training)
    _write_json(sink, NOTES, notes)


def _places(model: LayerModel) -> list[tuple[str, str]]:
    """Layer and name of every weight, in the order of ``get_weights()``; in stored order where that is not known."""
    from modelio.layers.binding import get_weights

    places = [(layer, name) for layer, named in model.weights.items() for name in named]
    # The order of the weights is that of their numbers, where numbers stand for them.
    numbers = iter(range(len(places)))
    numbered = {
        layer: {name: Tensor.of(np.array(next(numbers))) for name in named} for layer, named in model.weights.items()
    }
    try:
        order = [int(number) for number in get_weights(replace(model, weights=numbered))]
    except ModelioError:  # a layer whose weights nobody knows
        return places
    return [places[number] for number in order] if len(order) == len(places) else places


def _write_json(sink: Sink, name: str, value: Any) -> None:
    with sink.file(name) as stream:
        stream.write(jsontext.spell(value, where=name).encode())


def _write_npz(sink: Sink, name: str, arrays: Mapping[str, Tensor]) -> None:
    with sink.file(name) as stream, npz.Writer(stream) as file:
        for entry, tensor in arrays.items():
            file.add(entry, tensor)


FORMAT = Format(
    name="keras-json",
    level="layers",
    summary="Keras JSON architecture, with weights in .npz beside it",
    shape="tree",
    keeps=frozenset({"architecture", "weights", "training", "optimizer"}),
    sniff=sniff,
    read=read,
    write=write,
)
