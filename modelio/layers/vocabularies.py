"""The tables of preprocessing layers, which ``.keras`` files keep as text.

::

    assets/layers/string_lookup/vocabulary.txt                       a word a line, those for missing and unknown first
    assets/layers/text_vectorization/vocabulary.txt
    assets/layers/text_vectorization/_lookup_layer/vocabulary.txt    the same: it is the table of a StringLookup inside

tf_keras counts what was adapted among a layer's weights, as an array of strings; Keras 3 does not. Source: tf_keras
2.21 ``src/layers/preprocessing/index_lookup.py`` (``_token_start_index``, ``get_vocabulary``, ``save_assets``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError
from modelio.layers.normal_form import Layer
from modelio.layers.weight_paths import VOCABULARY, Paths
from modelio.model import Tensor
from modelio.source import Tree

__all__ = ["files_of", "tables_in", "without_tables"]

LAYERS = frozenset({"TextVectorization", "StringLookup", "IntegerLookup"})

LIMIT = 256 << 20
"""Bytes of one vocabulary; those of large language models have 10 MB."""


def tables_in(tree: Tree, paths: Paths, folder: str) -> dict[str, Tensor]:
    """The tables that are weights of a model's layers, by their paths below ``folder``."""
    tables = {}
    for layer in paths.network.walk():
        for place in paths.places(layer):
            name = f"{folder}/{place.path}"
            if place.is_asset and name in tree:
                words = tree[name].bytes(LIMIT).split(b"\n")[len(_specials(layer)) :]
                tables[place.path] = Tensor.of(_table(words, layer, name))
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
        words = [*_specials(layer), *tables[base + VOCABULARY].numpy().tolist()]
        text = b"\n".join(word if isinstance(word, bytes) else str(word).encode() for word in words)
        files[f"{folder}/{base}{VOCABULARY}"] = text
        if layer.class_name == "TextVectorization":
            files[f"{folder}/{base}/_lookup_layer{VOCABULARY}"] = text
    return files


def _table(words: list[bytes], layer: Layer, where: str) -> npt.NDArray[Any]:
    if layer.class_name != "IntegerLookup":
        table = np.empty(len(words), object)
        table[:] = words
        return table
    try:
        return np.array([int(word) for word in words], np.int64)
    except (ValueError, OverflowError) as error:
        raise ReadError(f"an IntegerLookup knows numbers alone: {error}", where=where) from None


def _specials(layer: Layer) -> list[str]:
    """The words in front of a vocabulary."""
    config = layer.config
    if layer.class_name == "TextVectorization":
        config = {**config, "mask_token": "", "oov_token": "[UNK]", "num_oov_indices": 1}
    masked = config.get("mask_token") is not None and config.get("output_mode", "int") == "int"
    unknown = config.get("num_oov_indices", 1)
    unknown = unknown if isinstance(unknown, int) and 0 <= unknown < 1000 else 1
    return [str(config.get("mask_token"))] * masked + [str(config.get("oov_token"))] * unknown
