"""The tables of preprocessing layers: where they are kept, and what they mean.

::

    .keras   assets/layers/string_lookup/vocabulary.txt              a word a line, those for missing and unknown first
             assets/layers/text_vectorization/vocabulary.txt
             assets/layers/text_vectorization/_lookup_layer/vocabulary.txt    the same, of the StringLookup inside

    model    assets["string_lookup/vocabulary.txt"]                  Keras 3: what was adapted is no weight
             weights["string_lookup"]["vocabulary"]                  tf_keras: it is one, an array of strings
             the layer's argument ``vocabulary``                     all formats: what the layer was given

A format that keeps no assets keeps what was adapted as the argument (:func:`as_arguments`), which means the same.
Source: tf_keras 2.21 ``src/layers/preprocessing/index_lookup.py`` (``_token_start_index``, ``set_vocabulary``,
``get_vocabulary``, ``save_assets``) and Keras 3.15, the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError, ReadError
from modelio.layers.normal_form import Layer, Network
from modelio.layers.weight_paths import VOCABULARY, Paths
from modelio.model import LayerModel, Tensor
from modelio.source import Source, Tree

__all__ = [
    "LAYERS",
    "adapted",
    "are_in",
    "arguments_of",
    "as_arguments",
    "factors_in",
    "factors_of",
    "files_of",
    "is_vocabulary",
    "specials_of",
    "tables_in",
    "vocabulary_of",
    "without_tables",
]

LAYERS = frozenset({"TextVectorization", "StringLookup", "IntegerLookup"})

LIMIT = 256 << 20
"""Bytes of one vocabulary; those of large language models have 10 MB."""


# -- what a layer looks up ---------------------------------------------------------------------------------------------


def vocabulary_of(layer: Layer) -> npt.NDArray[Any] | None:
    """The words of a layer whose weights are bound, without those for missing and unknown ones.

    Returns:
        ``bytes`` in an array of objects, or int64 for IntegerLookup; None where it has neither been given nor adapted.

    Raises:
        ConversionError: it was given as a file of whoever made the model.
    """
    given = layer.config.get("vocabulary")
    if given is None:
        return layer.weights["vocabulary"].numpy() if "vocabulary" in layer.weights else None
    if not isinstance(given, (list, tuple)):
        raise ConversionError(f"its vocabulary is in a file that is not here: {given!r}", where=layer.path)
    words = [str(word).encode() if not isinstance(word, bytes) else word for word in given]
    specials = [str(word).encode() for word in specials_of(layer)]
    if words[: len(specials)] == specials:
        words = words[len(specials) :]
    return _table(words, layer, layer.path)


def specials_of(layer: Layer) -> list[str]:
    """The words in front of a vocabulary: for missing ones, and for unknown ones."""
    config = layer.config
    if layer.class_name == "TextVectorization":
        config = {**config, "mask_token": "", "oov_token": "[UNK]", "num_oov_indices": 1}
    masked = config.get("mask_token") is not None and config.get("output_mode", "int") in ("int", None)
    unknown = config.get("num_oov_indices", 1)
    unknown = unknown if isinstance(unknown, int) and 0 <= unknown < 1000 else 1
    return [str(config.get("mask_token"))] * masked + [str(config.get("oov_token"))] * unknown


def is_vocabulary(name: str) -> bool:
    """Whether an asset is the table of a layer for words."""
    return f"/{name}".endswith(VOCABULARY)


def are_in(model: LayerModel) -> bool:
    """Whether anything looks like a vocabulary among a model's assets and weights."""
    names = (name for group in model.weights.values() for name in group)
    return any(map(is_vocabulary, model.assets)) or any(_is_table(name) for name in names)


def _is_table(name: str) -> bool:
    return name.rpartition("/")[2].partition(":")[0] in ("vocabulary", "idf_weights")


def adapted(network: Network, assets: Mapping[str, Source]) -> dict[Layer, Tensor]:
    """The tables that are among a model's assets."""
    tables = {}
    for layer in network.walk() if assets else ():
        name = layer.path + VOCABULARY
        if layer.class_name in LAYERS and layer.config.get("vocabulary") is None and name in assets:
            tables[layer] = Tensor.of(_words(assets[name], layer, name))
    return tables


def as_arguments(model: LayerModel, network: Network) -> tuple[LayerModel, list[str]]:
    """The model with what its layers adapted among their arguments, and not among weights and assets.

    Args:
        model: as it was read.
        network: its architecture, with its weights bound.

    Returns:
        The model, and the changes.
    """
    changes = []
    assets = dict(model.assets)
    weights = {name: dict(group) for name, group in model.weights.items()}
    given: dict[int, dict[str, Any]] = {}
    # To Keras 3 the factors of words are no weights either; tf_keras has them as such beside the argument, too.
    learned = {"vocabulary", "num_documents", *(["idf_weights"] if model.dialect == "keras3" else [])}
    for layer in network.walk():
        roles = learned & layer.weights.keys() if layer.class_name in LAYERS else set()
        if not roles:
            continue
        for group in weights.values():
            for name in [name for name, tensor in group.items() if any(tensor is layer.weights[r] for r in roles)]:
                del group[name]
        if "vocabulary" in roles and layer.config.get("vocabulary") is None:
            given[id(layer.source)] = arguments_of(layer)
            for name in [name for name in assets if name.startswith(f"{layer.path}/") and is_vocabulary(name)]:
                del assets[name]
        changes.append(f"{layer.path}: vocabulary: what was adapted is now among the arguments")
    if not changes:
        return model, []
    return replace(model, architecture=_given(model.architecture, given), weights=weights, assets=assets), changes


def arguments_of(layer: Layer) -> dict[str, Any]:
    """What a layer adapted, as the arguments that mean the same: its words, and their factors where it has some."""
    words = layer.weights["vocabulary"].numpy().tolist()
    found: dict[str, Any] = {
        "vocabulary": [word.decode("utf-8", "replace") if isinstance(word, bytes) else word for word in words]
    }
    if layer.config.get("output_mode") == "tf_idf" and "idf_weights" in layer.weights:
        first = len(specials_of(layer))
        found["idf_weights"] = layer.weights["idf_weights"].numpy()[first : first + len(words)].tolist()
    return found


def boundaries_of(summary: npt.NDArray[Any], bins: Any) -> npt.NDArray[np.float32]:
    """The boundaries that tf_keras takes from a Discretization's summary: values, and how many of each there are.

    Source: tf_keras 2.21 ``discretization.py``, ``get_bin_boundaries`` and ``_compress_summary_numpy``.

    Raises:
        ConversionError: the summary is empty, or ``bins`` no number of them.
    """
    if summary.ndim != 2 or summary.shape[0] != 2 or not summary.shape[1]:
        raise ConversionError("Discretization has an empty summary in this file: it was never adapted")
    if not isinstance(bins, int) or bins < 1:
        raise ConversionError(f"num_bins of a Discretization is {bins!r}, and has to be a whole number above 0")
    step = 1.0 / bins
    if summary.shape[1] * step >= 1:
        reached = summary[1].cumsum()
        summary = np.interp(step + np.arange(0.0, 1.0, step), reached / reached[-1], summary[0])[None]
    return summary[0, :-1].astype(np.float32)


def factors_in(paths: Paths) -> dict[str, Tensor]:
    """The factors that layers have among their arguments, by the paths under which ``.keras`` files want them, too."""
    found = {}
    for layer in paths.bases:
        values = factors_of(layer)
        if values is not None:
            places = [place for place in paths.places(layer) if place.stored.name == "idf_weights"]
            found.update({place.path: values for place in places})
    return found


def factors_of(layer: Layer) -> Tensor | None:
    """The factors that a layer has among its arguments, as the weight that they are besides; None where it has none.

    Words that are missing or unknown have the mean of all others (tf_keras 2.21 ``index_lookup.py`` set_vocabulary).
    """
    factors, limit = layer.config.get("idf_weights"), layer.config.get("max_tokens")
    if layer.class_name not in LAYERS or not isinstance(factors, (list, tuple)) or not factors:
        return None
    first = len(specials_of(layer))
    padded = layer.config.get("pad_to_max_tokens") and isinstance(limit, int)
    behind = max(0, limit - first - len(factors)) if padded and isinstance(limit, int) else 0
    return Tensor.of(np.concatenate([np.full(first, np.mean(factors)), factors, np.zeros(behind)]).astype(np.float32))


def _given(value: Any, arguments: Mapping[int, dict[str, Any]]) -> Any:
    """An architecture in which some nodes, named by their identity, have more arguments."""
    if isinstance(value, Mapping):
        node = {key: _given(item, arguments) for key, item in value.items()}
        if id(value) in arguments:
            node["config"] = {**node["config"], **arguments[id(value)]}
        return node
    return [_given(item, arguments) for item in value] if isinstance(value, list) else value


# -- what files keep ---------------------------------------------------------------------------------------------------


def tables_in(tree: Tree, paths: Paths, folder: str) -> dict[str, Tensor]:
    """The tables that are weights of a model's layers, by their paths below ``folder``."""
    tables = {}
    for layer in paths.network.walk():
        for place in paths.places(layer):
            name = f"{folder}/{place.path}"
            if place.is_asset and name in tree:
                tables[place.path] = Tensor.of(_words(tree[name], layer, name))
    return tables


def without_tables(
    weights: Mapping[str, Mapping[str, Tensor]], paths: Paths
) -> tuple[dict[str, Mapping[str, Tensor]], dict[str, Tensor]]:
    """The weights of a Keras 3 model without the tables that tf_keras had among them, and those by their paths."""
    others = dict(weights)
    tables = {}
    for layer in paths.top:
        named = dict(others.get(layer.name, {}))
        for name in list(named) if layer.class_name in LAYERS else ():
            if name.rpartition("/")[2].partition(":")[0] == "vocabulary":
                tables[paths.bases[layer] + VOCABULARY] = named.pop(name)
                others[layer.name] = named
    return others, tables


def files_of(tables: Mapping[str, Tensor], paths: Paths, folder: str) -> dict[str, bytes]:
    """The files of tables, given by their paths."""
    files = {}
    for layer, base in paths.bases.items():
        if base + VOCABULARY not in tables:
            continue
        words = [*specials_of(layer), *tables[base + VOCABULARY].numpy().tolist()]
        text = b"\n".join(word if isinstance(word, bytes) else str(word).encode() for word in words)
        files[f"{folder}/{base}{VOCABULARY}"] = text
        if layer.class_name == "TextVectorization":
            files[f"{folder}/{base}/_lookup_layer{VOCABULARY}"] = text
    return files


def _words(file: Source, layer: Layer, where: str) -> npt.NDArray[Any]:
    return _table(file.bytes(LIMIT).split(b"\n")[len(specials_of(layer)) :], layer, where)


def _table(words: list[bytes], layer: Layer, where: str) -> npt.NDArray[Any]:
    if layer.class_name != "IntegerLookup":
        table = np.empty(len(words), object)
        table[:] = words
        return table
    try:
        return np.array([int(word) for word in words], np.int64)
    except (ValueError, OverflowError) as error:
        raise ReadError(f"an IntegerLookup knows numbers alone: {error}", where=where) from None
