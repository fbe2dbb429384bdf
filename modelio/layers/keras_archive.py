"""How a model lies in the files of Keras v3: members, variables by their paths, and notes of what has no place there.

:mod:`modelio.formats.keras_zip` draws the files. ``weights`` of a model has the layers that Keras lists, each with the
arrays of all inside it. In a file without architecture, and of a model that is a Python class, nothing tells which
objects are layers: there an entry is an object by its path, ``layers/dense``;
:func:`modelio.layers.weight_groups.joined` knows the former's.

What is no weight (metrics, groups without variables) is kept in ``meta["keras-zip"]``, so that a file that is read and
written again is the same. What Keras has no place for is written to ``metadata.json`` under ``modelio``: names of
weights from other formats, the training configuration in the words of HDF5 files. Keras does not look at it.

Sources: ``saving_lib.py`` and ``serialization_lib.py`` of Keras 2.12, 2.13, 2.15, 3.0 to 3.15 and tf_keras 2.21.
"""

from __future__ import annotations

import base64
import binascii
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelio.errors import ConversionError, ReadError, UnsafeInput, WriteError
from modelio.layers.binding import OWN
from modelio.layers.loadable import compile_config, loadable, original
from modelio.layers.network import dialect_of, network_of
from modelio.layers.values import version_of
from modelio.layers.variables import ALONE, MAP, Variables, packed, unpacked
from modelio.layers.vocabularies import factors_in, files_of, tables_in, without_tables
from modelio.layers.weight_groups import by_path, grouped, is_by_path, is_path, spread
from modelio.layers.weight_paths import VOCABULARY, Paths, natural, spelling_of
from modelio.model import Dialect, LayerModel, Tensor
from modelio.sink import Sink
from modelio.source import Source, Tree
from modelio.wire import jsontext, zipped

__all__ = ["read", "write"]

METADATA, CONFIG, ASSETS = "metadata.json", "config.json", "assets"
WEIGHTS, WEIGHTS_NPZ, WEIGHTS_MAP = "model.weights.h5", "model.weights.npz", "model.weights.json"

KEPT = "keras-zip"
"""The key of ``meta`` that keeps what a LayerModel has no field for."""

NOTES = "modelio"
"""The key of ``metadata.json`` that keeps what a ``.keras`` file has no place for."""

KEPT_LIMIT = 256 << 20
"""Bytes of variables that are no weights, and of unknown members."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""As in :mod:`modelio.wire.hdf5`, which is not imported for files that are not HDF5: it brings h5py along."""


# -- reading -----------------------------------------------------------------------------------------------------------


def read(source: Source, maps: Sequence[str] = ()) -> LayerModel:
    """Read a whole model, or weights alone (``architecture`` is then None).

    Args:
        source: an archive, a directory, an HDF5 file, or the map of several.
        maps: the members of a directory that are such maps.

    Raises:
        ReadError: a member is missing, or is not what it has to be.
        UnsafeInput: the weights are pickles, or the container asks for what no model needs.
    """
    tree = source.tree
    if tree is None:
        is_hdf5 = source.head(len(SIGNATURE)) == SIGNATURE
        return _weights_alone(Variables.of_hdf5(source) if is_hdf5 else Variables.of_shards(source, source.beside))
    if CONFIG in tree:
        return _whole(tree, is_archive=bool(source.head(1)))
    if len(maps) != 1:
        raise ReadError(f"{CONFIG} is missing: without the architecture this is no Keras model")
    return _weights_alone(Variables.of_shards(tree[maps[0]], tree, maps[0]))


def _whole(tree: Tree, is_archive: bool) -> LayerModel:
    config = _object(tree, CONFIG)
    if not isinstance(config.get("class_name"), str) or not isinstance(config.get("config"), (dict, list)):
        raise ReadError("this is no Keras model: it has no class_name and config", where=CONFIG)
    metadata = _object(tree, METADATA) if METADATA in tree else {}
    notes = _Notes.of(metadata)
    meta = {key: value for key, value in metadata.items() if isinstance(value, str)}
    architecture = original(config, notes.architecture)
    dialect = notes.dialect or dialect_of(architecture, meta)
    variables = _variables(tree)
    paths = _paths(architecture, dialect, meta, variables.objects())
    tables = tables_in(tree, paths, ASSETS) if paths else {}
    weights, rest = grouped(paths, {**variables.tensors, **tables}) if paths else ({}, list(variables.tensors))
    implied = _implied(paths) if paths else {}
    kept = _Kept(
        writer=_writer(dialect, meta),
        groups=variables.surprising(implied),
        absent=[path for path in implied if path not in variables.groups],
        objects=paths.exceptions() if paths else {},
        metadata={key: value for key, value in metadata.items() if key not in meta and key != NOTES},
    )
    optimizer = _distributed(variables, rest, weights, kept)
    if is_archive:
        kept.keep_members(tree)
    return LayerModel(
        architecture=architecture,
        weights={layer: _renamed(named, notes.weights.get(layer), layer) for layer, named in weights.items()},
        dialect=dialect,
        training=notes.training or config.get("compile_config") or None,
        optimizer=_renamed(optimizer, notes.optimizer, "optimizer"),
        meta=kept.added_to(meta),
        assets=_assets(tree, paths),
    )


def _assets(tree: Tree, paths: Paths | None) -> dict[str, Source]:
    """The files of layers, by the layer's path in the model instead of its object's."""
    roots = {base: layer.path for layer, base in reversed(paths.bases.items())} if paths else {}
    found: dict[str, Source] = {}
    for name in tree.names(ASSETS):
        path = name.removeprefix(f"{ASSETS}/")
        by_layer = _moved(path, roots)
        found[by_layer if by_layer not in found else path] = tree[name]
    return found


def _moved(path: str, roots: Mapping[str, str]) -> str:
    """A path below the longest of some roots that it is in, below another root; one that is in none stays."""
    root = path
    while root and root not in roots:
        root = root.rpartition("/")[0]
    return roots[root] + path[len(root) :] if root else path


def _object(tree: Tree, name: str) -> dict[str, Any]:
    value = jsontext.parse(tree[name].bytes(jsontext.SIZE), where=name)
    if not isinstance(value, dict):
        raise ReadError(f"a JSON object is wanted, this is {json.dumps(value)[:40]}", where=name)
    return value


def _variables(tree: Tree) -> Variables:
    if WEIGHTS in tree:
        return Variables.of_hdf5(tree[WEIGHTS], WEIGHTS)
    if WEIGHTS_NPZ in tree:
        return Variables.of_npz(tree[WEIGHTS_NPZ], WEIGHTS_NPZ)
    if WEIGHTS_MAP in tree:
        return Variables.of_shards(tree[WEIGHTS_MAP], tree, WEIGHTS_MAP)
    raise ReadError(f"{WEIGHTS} is missing: the file has a model's architecture and not its weights")


def _weights_alone(variables: Variables) -> LayerModel:
    old = {path.partition("/")[0] for path in variables.groups} & {"_layer_checkpoint_dependencies", "metrics"}
    dialect: Dialect = "keras2" if old else "keras3"  # Keras 3 keeps no metrics
    kept = _Kept(writer=_writer(dialect, {}), groups=variables.surprising({}))
    weights: dict[str, dict[str, Tensor]] = {}
    optimizer = _distributed(variables, list(variables.tensors), weights, kept)
    return LayerModel(None, weights, dialect, optimizer=optimizer, meta=kept.added_to({}))


def _paths(
    architecture: Mapping[str, Any], dialect: Dialect, meta: Mapping[str, str], objects: Mapping[str, str]
) -> Paths | None:
    """The paths of a model; None where it is a Python class, whose attributes no file tells of."""
    try:
        network = network_of(architecture, dialect, meta)
    except ConversionError:
        return None
    return Paths(network, spelling_of(dialect, version_of(meta.get("keras_version"))), objects)


def _implied(paths: Paths) -> dict[str, dict[str, Any]]:
    return {path: {"name": name} if name else {} for path, name in paths.groups().items()}


def _writer(dialect: Dialect, meta: Mapping[str, str]) -> str:
    return f"{dialect} {meta.get('keras_version', '')}"


def _distributed(
    variables: Variables, rest: Sequence[str], weights: dict[str, dict[str, Tensor]], kept: _Kept
) -> dict[str, Tensor]:
    """Put what belongs to no layer where it belongs; returns what belongs to the optimizer."""
    optimizer: dict[str, Tensor] = {}
    for path in sorted(rest, key=natural):
        tensor = variables.tensors[path]
        first, _, inner = path.partition("/")
        if first == "optimizer" and inner:
            optimizer[inner] = tensor
        elif not is_path(path) or first == "metrics" or "seed_generator" in path.split("/"):
            kept.keep_state(path, tensor)
        else:
            owner, _, name = path.rpartition("vars/")
            weights.setdefault(owner.rstrip("/") or OWN, {})[f"vars/{name}"] = tensor
    return optimizer


def _renamed(variables: dict[str, Tensor], names: Any, where: str) -> dict[str, Tensor]:
    if not names:
        return variables
    if not isinstance(names, list) or not len(names) == len({str(name) for name in names}) == len(variables):
        raise ReadError(f"{METADATA} has names for other weights than these {len(variables)}", where=where)
    return dict(zip(map(str, names), variables.values(), strict=True))


# -- what has no field in a LayerModel, and no place in a .keras file --------------------------------------------------


@dataclass
class _Kept:
    """What ``meta["keras-zip"]`` holds: all that makes the file the same again when it is written.

    Args:
        writer: dialect and version; of what another one would write, only the members are of use.
        groups: groups with their attributes, where they do not follow from architecture and variables.
        absent: groups that should follow from them, and are not there.
        objects: path of a layer in the model -> path of its object, where the architecture says another.
        state: variables that are no weights.
        members: whatever else is in an archive.
        metadata: what else is in ``metadata.json``.
    """

    writer: str = ""
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    objects: dict[str, str] = field(default_factory=dict)
    state: dict[str, dict[str, Any]] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._size = 0

    @classmethod
    def of(cls, meta: Mapping[str, str]) -> _Kept:
        kept = cls()
        try:
            for key, value in jsontext.parse(meta.get(KEPT, "{}")).items():
                if not isinstance(value, type(getattr(kept, key))):
                    raise TypeError(f"{key} is a {type(value).__name__}")
                setattr(kept, key, value)
        except (ReadError, TypeError, AttributeError) as error:
            raise WriteError(f"meta[{KEPT!r}] is not what reading such a file gives: {error}") from error
        return kept

    def added_to(self, meta: dict[str, str]) -> dict[str, str]:
        parts = {key: value for key, value in vars(self).items() if value and not key.startswith("_")}
        return {**meta, KEPT: jsontext.spell(parts)} if set(parts) - {"writer"} else meta

    def keep_state(self, path: str, tensor: Tensor) -> None:
        self._weigh(tensor.nbytes, path)
        self.state[path] = packed(tensor.numpy())

    def keep_members(self, tree: Tree) -> None:
        """Keep all other members of an archive; beside a directory's may lie what is none of it."""
        taken = (METADATA, CONFIG, WEIGHTS) if WEIGHTS in tree else (METADATA, CONFIG, WEIGHTS_NPZ)
        for name in tree:
            if name not in taken and not name.startswith(f"{ASSETS}/"):
                self._weigh(tree[name].size, name)
                self.members[name] = base64.b64encode(tree[name].bytes()).decode("ascii")

    def _weigh(self, size: int, where: str) -> None:
        self._size += size
        if self._size > KEPT_LIMIT:
            raise UnsafeInput(f"more than {KEPT_LIMIT:,} bytes that are no weights: this is no model", where=where)

    def files(self) -> dict[str, bytes]:
        try:
            return {name: base64.b64decode(text) for name, text in self.members.items()}
        except (TypeError, ValueError, binascii.Error) as error:
            raise WriteError(f"meta[{KEPT!r}] is not what reading such a file gives: {error}") from error


@dataclass
class _Notes:
    """What ``metadata.json`` says under ``modelio``, in a file that was made of another format's model.

    Args:
        architecture: how it differs from ``config.json`` (:mod:`modelio.layers.loadable`).
        training: the training configuration as the model has it.
        weights: layer -> names of its weights, in the order that reading gives.
        optimizer: names of the optimizer's variables, likewise.
        dialect: of a model that has no version.
    """

    architecture: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, list[str]] = field(default_factory=dict)
    optimizer: list[str] = field(default_factory=list)
    dialect: Any = ""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> _Notes:
        notes = cls()
        found = metadata.get(NOTES, {})
        known = isinstance(found, dict) and found.get("dialect", "") in ("", "keras2", "keras3")
        for key, value in vars(notes).items():
            if not known or not isinstance(found.get(key, value), type(value)):
                raise ReadError(f"{NOTES} is not what modelio writes there", where=METADATA)
            setattr(notes, key, found.get(key, value))
        return notes

    def spelled(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value}


# -- writing -----------------------------------------------------------------------------------------------------------


def write(model: LayerModel, sink: Sink, shard_size: int | None = None, map_name: str | None = None) -> None:
    """Write a model: :func:`modelio.formats.keras_zip.write`, whose sink says whether it is an archive."""
    if model.dialect == "keras1":
        raise WriteError("Keras 1 has no .keras files; dialect='keras3' makes a model of Keras 3 of it")
    if shard_size is not None and (not isinstance(shard_size, int) or shard_size <= 0):
        raise WriteError(f"shard_size is a number of bytes, not {shard_size!r}")
    name = sink.name.lower()
    alone = model.architecture is None or name.endswith(ALONE) or map_name is not None
    if model.architecture is None and name.endswith(".keras"):
        raise WriteError("this model has weights alone, and a .keras file has an architecture: name it .weights.h5")
    if shard_size is not None and (sink.shape == "blob" or not alone):
        raise WriteError(
            "shards are of weights alone: name a target that ends in .weights.json, in a folder of its own"
        )
    kept = _Kept.of(model.meta)
    variables, assets, notes = _laid_out(model, kept)
    if not alone:
        _write_whole(model, sink, variables, kept.files() | assets, kept, notes)
    elif shard_size is not None:
        variables.write_shards(sink, shard_size, (map_name or WEIGHTS_MAP)[: -len(MAP)])
    else:
        with sink.file(WEIGHTS if sink.shape == "tree" else "") as stream:
            variables.write_hdf5(stream)


def _laid_out(model: LayerModel, kept: _Kept) -> tuple[Variables, dict[str, bytes], _Notes]:
    """All variables and groups by path, the files of tables, and what reading them back could not know."""
    same = kept.writer == _writer(model.dialect, model.meta)
    paths = _paths_for(model, kept.objects if same else {})
    tables: dict[str, Tensor] = {}
    if paths and model.dialect == "keras3":
        weights, tables = without_tables(model.weights, paths)
        model = replace(model, weights=weights)
    found = Variables(tensors=spread(paths, model) if paths else by_path(model.weights))
    tables |= {path: found.tensors.pop(path) for path in list(found.tensors) if path.endswith(VOCABULARY)}
    for path, tensor in factors_in(paths).items() if paths else ():
        found.tensors.setdefault(path, tensor)
    for number, (name, tensor) in enumerate(model.optimizer.items()):
        found.tensors[f"optimizer/{name}" if is_path(name) else f"optimizer/vars/{number}"] = tensor
    found.groups = _implied(paths) if paths else {}
    if same:
        for path, value in kept.state.items():
            found.tensors[path] = Tensor.of(unpacked(value, path))
        found.groups |= kept.groups
        for path in set(kept.absent) - {path.rpartition("/")[0] for path in found.tensors}:
            found.groups.pop(path, None)
    roots = {layer.path: base for layer, base in paths.bases.items()} if paths else {}
    assets = {f"{ASSETS}/{_moved(name, roots)}": file.bytes() for name, file in model.assets.items()}
    if paths is None:
        return found, assets, _Notes()
    for name, data in files_of(tables, paths, ASSETS).items():
        assets.setdefault(name, data)
    return found, assets, _notes(model, paths, found)


def _paths_for(model: LayerModel, objects: Mapping[str, str]) -> Paths | None:
    """The paths of a model to be written; None where its weights are kept by their paths."""
    if model.architecture is None:
        if not is_by_path(model):
            raise WriteError("only an architecture tells the paths of these weights: give one, or write .h5")
        return None
    if not model.weights:
        raise WriteError("the model has no weights, and Keras reads no .keras file without them: give the weights, too")
    try:
        network = network_of(model.architecture, model.dialect, model.meta)
    except ConversionError as error:
        if not is_by_path(model):
            raise WriteError(error.reason, where=error.where) from error
        return None
    return Paths(network, spelling_of(model.dialect, version_of(model.meta.get("keras_version"))), bases=objects)


def _notes(model: LayerModel, paths: Paths, variables: Variables) -> _Notes:
    notes = _Notes()
    weights, _ = grouped(paths, variables.tensors)
    for layer, named in weights.items():
        given: dict[int, list[str]] = {}
        for name, tensor in model.weights.get(layer, {}).items():
            given.setdefault(id(tensor), []).append(name)
        names = [given[id(tensor)].pop(0) if given.get(id(tensor)) else name for name, tensor in named.items()]
        if names != list(named):
            notes.weights[layer] = names
    if not all(map(is_path, model.weights.get(OWN, {}))):
        notes.weights[OWN] = list(model.weights[OWN])
    if not all(map(is_path, model.optimizer)):
        notes.optimizer = list(model.optimizer)
    if "keras_version" not in model.meta:
        notes.dialect = model.dialect
    return notes


def _write_whole(
    model: LayerModel, sink: Sink, variables: Variables, others: Mapping[str, bytes], kept: _Kept, notes: _Notes
) -> None:
    assert model.architecture is not None  # the caller looked
    version = version_of(model.meta.get("keras_version"))
    config, notes.architecture = loadable(model.architecture, model.dialect, version)
    if model.training is not None and model.training != config.get("compile_config"):
        config["compile_config"] = model.training
        if "optimizer_config" in model.training:
            notes.training = dict(model.training)
            config["compile_config"] = compile_config(model.training, version)
        if "compile_config" not in model.architecture:
            notes.architecture.setdefault("added", []).append("compile_config")
    metadata: dict[str, Any] = {key: value for key, value in model.meta.items() if key != KEPT}
    metadata |= kept.metadata | ({NOTES: notes.spelled()} if notes.spelled() else {})
    files = {METADATA: jsontext.spell(metadata, where=METADATA), CONFIG: jsontext.spell(config, where=CONFIG)}
    if sink.shape == "tree":
        for name, data in {**{name: text.encode() for name, text in files.items()}, **others}.items():
            with sink.file(name) as stream:
                stream.write(data)
        with sink.file(WEIGHTS) as stream:
            variables.write_hdf5(stream)
        return
    with sink.file() as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            archive.writestr(zipped.entry(name), text)
        structure = 4096 * (len(variables.groups) + len(variables.tensors))  # HDF5 takes about a fifth of that
        with zipped.in_place(archive, stream, WEIGHTS, variables.nbytes() + structure) as file:
            variables.write_hdf5(file)
        for name, data in others.items():
            archive.writestr(zipped.entry(name), data)
