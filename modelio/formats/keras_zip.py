"""Keras v3: ``.keras`` archives and directories, and the ``.weights.h5`` and ``.weights.json`` of the same walk.

::

    model.keras                     a zip of stored members, or a directory
      metadata.json                 {"keras_version": "3.15.1", "date_saved": "2026-11-22@07:34:08"}
      config.json                   {"module": "keras", "class_name": "Sequential", "config": {...},
                                     "registered_name": null, "build_config": {...}, "compile_config": {...}}
      model.weights.h5              variables by their paths: layers/dense/vars/0
      assets/                       layers/text_vectorization/vocabulary.txt, ...

    only.weights.h5                 the same HDF5 file alone
    large.weights.json              or in pieces: a map, and beside it large_00000.weights.h5, ...

:mod:`modelio.layers.keras_archive` reads and writes them; :mod:`modelio.layers.weight_paths` says which path is which
weight, :mod:`modelio.layers.variables` how files keep them.

``assets`` has the files of layers by the layer's path: ``text_vectorization/vocabulary.txt``.

Written by TensorFlow 2.12 to 2.15 (``save_format="keras"``), tf_keras and Keras 3.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from modelio.errors import ReadError, WriteError
from modelio.format import ALL, Format, Shape
from modelio.model import LayerModel
from modelio.sink import Sink
from modelio.source import Source, Tree
from modelio.wire import jsontext

METADATA, CONFIG = "metadata.json", "config.json"
WEIGHTS = ("model.weights.h5", "model.weights.npz", "model.weights.json")
"""Members of an archive."""

ALONE, MAP = ".weights.h5", ".weights.json"
"""What the names of weights alone end in; of several files, it is that of their map."""

SHARD = 5 << 30
"""Bytes of variables in one file of several, where nothing else is said."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""As in :mod:`modelio.wire.hdf5`, which is not imported for files that are not HDF5: it brings h5py along."""

_OTHER_KERAS = frozenset({"layer_names", "nb_layers", "model_config"})
"""Attributes of the other Keras format in HDF5."""


def sniff(source: Source) -> bool:
    tree = source.tree
    if tree is not None:
        if CONFIG not in tree:
            return bool(_maps_in(tree))
        described = any(name in tree for name in (METADATA, *WEIGHTS))
        return described and b'"class_name"' in tree[CONFIG].head(1 << 16)
    return _is_walk(source) if source.head(len(SIGNATURE)) == SIGNATURE else _is_map(source)


def _is_walk(source: Source) -> bool:
    from modelio.layers.weight_groups import is_path
    from modelio.wire import hdf5

    try:
        with hdf5.File(source.window()) as file:
            if _OTHER_KERAS & {name.rstrip("0123456789") for name in file.attributes()} or file.has("model_weights"):
                return False
            return file.has("vars") or any(is_path(f"{path}/") for path in file.leaves())
    except ReadError:
        return False  # damaged: keras-h5 says where


def _is_map(source: Source) -> bool:
    if source.head().lstrip()[:1] != b"{" or source.size > jsontext.SIZE:
        return False
    data = source.bytes()
    return b'"weight_map"' in data and (ALONE.encode() in data or _is_empty_map(data))


def _is_empty_map(data: bytes) -> bool:
    """The map of a model whose layers have no weights: no file is in it."""
    try:
        listing = jsontext.parse(data, where="weight_map")
    except ReadError:
        return False
    return isinstance(listing, dict) and set(listing) == {"metadata", "weight_map"} and listing["weight_map"] == {}


def _maps_in(tree: Tree) -> list[str]:
    return [name for name in tree.top() if name.endswith(MAP) and name in tree and _is_map(tree[name])]


def read(source: Source) -> LayerModel:
    """Read a whole model, or weights alone (``architecture`` is then None).

    Raises:
        ReadError: a member is missing, or is not what it has to be.
        UnsafeInput: the weights are pickles, or the container asks for what no model needs.
    """
    from modelio.layers import keras_archive

    return keras_archive.read(source, _maps_in(source.tree) if source.tree is not None else ())


def place(target: Any, options: Mapping[str, Any]) -> tuple[Any, Shape, Mapping[str, Any]]:
    """A directory for ``zipped=False`` and for shards; ``large.weights.json`` names their map, in its folder."""
    path = os.path.abspath(os.fsdecode(target)) if isinstance(target, (str, os.PathLike)) else ""
    if not path.lower().endswith(MAP):
        in_pieces = options.get("zipped") is False or options.get("shard_size") is not None
        return target, "tree" if in_pieces else "blob", options
    folder, name = os.path.split(path)
    if os.path.isdir(folder) and os.listdir(folder):
        raise WriteError("shards are several files, and there are others beside this one: name a folder of their own")
    return folder, "tree", {"shard_size": SHARD, **options, "map_name": name}


def write(
    model: LayerModel,
    sink: Sink,
    *,
    zipped: bool = True,
    shard_size: int | None = None,
    map_name: str | None = None,
) -> None:
    """Write a model in the spelling of the Keras that it is of; its weights alone, where the target's name asks for it.

    Args:
        model: of Keras 2 or 3.
        sink: a target whose name ends in ``.weights.h5`` gets the weights alone, as does a model without architecture.
        zipped: False for a directory with what is otherwise the archive's members.
        shard_size: bytes of variables in one file, for weights alone in a directory.
        map_name: the name of the map of these files, ``model.weights.json`` where it is left out; given, the weights
            alone are written.

    Raises:
        WriteError: the weights do not fit the architecture, or nothing says where they belong.
    """
    from modelio.layers import keras_archive

    if not isinstance(zipped, bool):
        raise WriteError(f"zipped is true or false, not {zipped!r}")
    keras_archive.write(model, sink, shard_size, map_name)


FORMAT = Format(
    name="keras-zip",
    level="layers",
    summary="Keras v3 (.keras): whole models; .weights.h5 and sharded .weights.json",
    shape="blob",
    suffixes=(".keras", ALONE, MAP),
    keeps=ALL & {"architecture", "weights", "training", "optimizer", "assets"},
    dialects=frozenset({"keras2", "keras3"}),
    sniff=sniff,
    read=read,
    write=write,
    place=place,
)
