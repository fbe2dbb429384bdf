"""Layers that look words or numbers up in a vocabulary: StringLookup, IntegerLookup.

A vocabulary becomes a table of the graph (:meth:`~modelio.graph.builder.Builder.table`), whichever way it is in the
file: among the layer's arguments, or as what ``adapt()`` learned (:mod:`modelio.layers.vocabularies`). In front of its
words stand those for what is masked and what is unknown::

    0               masked, where the layer has a mask_token and says numbers
    1 ..            unknown: num_oov_indices of them, by a hash of the word
    1 + unknown ..  the words

Source: ``keras/src/layers/preprocessing/index_lookup.py`` (Keras 3.15), ``tf_keras/src/layers/preprocessing/
index_lookup.py`` (2.21).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.layers import vocabularies
from modelio.lowering.preprocessing import checked, encode, hashed, mode_of, refuse_sparse
from modelio.lowering.rules import Site, rule

__all__ = ["Lookup", "lookup_of"]

NOWHERE = np.iinfo(np.int64).max
"""The number of a masked word in modes that count: larger than every number that does."""


LARGEST = 1 << 27
"""Words of a vocabulary; those of large language models have 2 ** 18."""


@dataclass(frozen=True)
class Lookup:
    """What a layer's vocabulary means.

    Args:
        words: the vocabulary, strings as bytes or int64, without those for masked and unknown ones.
        first: the number of the first word.
        unknown: how many numbers there are for unknown ones.
        oov: the word for unknown ones.
        mask: the word for masked ones, or None.
        mode: the output mode.
        invert: numbers are turned into words.
        depth: how long the vectors of other modes than ``int`` are.
        weights: a factor for each number, for the mode ``tf_idf``.
    """

    words: npt.NDArray[Any]
    first: int
    unknown: int
    oov: Any
    mask: Any
    mode: str
    invert: bool
    depth: int
    weights: npt.NDArray[Any] | None = None

    @property
    def is_text(self) -> bool:
        return self.words.dtype == object

    @property
    def unknown_first(self) -> int:
        """The first number of unknown words."""
        return self.first - self.unknown

    def numbers(self, g: Builder, layer: Site, x: Value) -> Value:
        """The number of each word, int64; or, inverted, the word of each number."""
        x = g.cast(x, "int64" if self.invert or not self.is_text else "string")
        keys: npt.NDArray[Any] = np.arange(self.first, self.first + len(self.words), dtype=np.int64)
        values = self.words
        if not self.invert:
            keys, values = values, keys
        if self.mask is not None:  # a word of its own in the table, which no vocabulary may have
            if self.invert:
                keys, values = _with(keys, 0), _with(values, self.mask)
            else:
                keys, values = _with(keys, self.mask), _with(values, 0 if self.mode == "int" else NOWHERE)
        table = g.table("vocabulary", keys, values)
        if self.invert:
            return g.LookupTableFindV2(table, x, g.constant(_array([self.oov], self.is_text)[0], name="oov_token"))
        default = self.unknown_first if self.unknown == 1 else -1
        found: Value = g.LookupTableFindV2(table, x, g.constant(default, "int64", name="unknown"))
        if self.unknown == 1:
            return found
        if self.unknown == 0:
            known = g.All(g.Reshape(g.NotEqual(found, -1), [-1]), [0])
            return checked(g, found, known, "num_oov_indices is 0, and these are not all in the vocabulary:", x)
        if self.is_text or layer.config.get("oov_method") == "farmhash":
            other = hashed(g, layer, x, self.unknown)
        else:
            other = g.FloorMod(x, self.unknown)
        return g.Select(g.Equal(found, -1), g.Add(other, self.unknown_first), found)

    def weighted(self, g: Builder, counts: Value) -> Value:
        """Counts times the weight of each number, in the mode ``tf_idf``; otherwise as they are."""
        if self.mode != "tf_idf":
            return counts
        assert self.weights is not None
        return g.Mul(g.cast(counts, "float32"), g.constant(self.weights.astype(np.float32), name="idf_weights"))

    @property
    def counting(self) -> str:
        """The output mode, as far as it counts."""
        return "count" if self.mode == "tf_idf" else self.mode


def lookup_of(layer: Site) -> Lookup:
    """The vocabulary of a layer, and what it means.

    Raises:
        ConversionError: the file has no vocabulary for it, or its arguments contradict each other.
    """
    refuse_sparse(layer)
    mode = mode_of(layer, "int", "one_hot", "multi_hot", "count", "tf_idf")
    words = vocabularies.vocabulary_of(layer.layer)
    if words is None or not len(words):
        raise ConversionError(
            f"{layer.layer.source_class} has no vocabulary in this file: it was never adapted, or the file does not "
            "keep what adapt() learned, as HDF5 files of Keras 3 do not; save the model as .keras, or give the layer "
            "its vocabulary="
        )
    config = layer.config
    specials = vocabularies.specials_of(layer.layer)
    is_text = words.dtype == object
    mask, oov = config.get("mask_token"), config.get("oov_token")
    if layer.layer.class_name == "TextVectorization":
        mask, oov = "", "[UNK]"
    masked = mask is not None and mode == "int"
    first = len(specials)
    size = first + len(words)
    limit = config.get("max_tokens")
    depth = limit if config.get("pad_to_max_tokens") and limit is not None else size  # padded to none: TensorFlow 2.4
    if not isinstance(depth, int) or not size <= depth < LARGEST:
        raise ConversionError(f"max_tokens is {depth!r}, and the vocabulary has {size} words")
    invert = bool(config.get("invert"))
    if invert and mode != "int":
        raise ConversionError(f"invert=True turns numbers into words, and output_mode is {mode!r}")
    if invert and oov is None:
        raise ConversionError("invert=True needs an oov_token, the word for numbers that are in no vocabulary")
    return Lookup(
        words,
        first,
        unknown=first - masked,
        oov=oov,
        mask=None if mask is None else _array([mask], is_text)[0],
        mode=mode,
        invert=invert,
        depth=depth,
        weights=_weights(layer, first, size, depth) if mode == "tf_idf" else None,
    )


def _weights(layer: Site, first: int, size: int, depth: int) -> npt.NDArray[Any]:
    """A weight for every number: unknown words have the mean of the others where they are not given one."""
    given = layer.config.get("idf_weights")
    if given is None and layer.has("idf_weights"):
        given = layer.layer.weights["idf_weights"].numpy()
    try:
        weights = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        weights = np.asarray(np.nan)
    if weights.ndim == 1 and len(weights) == size - first:
        weights = np.concatenate([np.full(first, weights.mean() if len(weights) else 0.0), weights])
    if weights.ndim == 1 and len(weights) == size:
        weights = np.concatenate([weights, np.zeros(depth - size)])
    if weights.shape != (depth,) or not np.isfinite(weights).all():
        raise ConversionError(
            f"{layer.layer.source_class} has output_mode='tf_idf', and not a weight for each of its {size} words in "
            "this file; save the model as .keras, or give the layer its idf_weights="
        )
    return weights


def _array(words: list[Any], is_text: bool) -> npt.NDArray[Any]:
    """Words as a table has them."""
    if not is_text:
        whole = (isinstance(word, (int, np.integer)) and not isinstance(word, bool) for word in words)
        if not all(whole) or any(abs(word) > NOWHERE for word in words):
            raise ConversionError(f"{words[0]!r} is no word of an IntegerLookup, which knows whole numbers alone")
        return np.array(words, np.int64)
    array = np.empty(len(words), object)
    array[:] = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return array


def _with(array: npt.NDArray[Any], item: Any) -> npt.NDArray[Any]:
    return np.concatenate([_array([item], array.dtype == object), array])


@rule("StringLookup", "IntegerLookup")
def index_lookup(g: Builder, layer: Site, x: Value) -> Value:
    """The number of each word in the vocabulary, in an output mode; or the word of each number."""
    lookup = lookup_of(layer)
    y = lookup.numbers(g, layer, x)
    modern = layer.dialect == "keras3"
    if lookup.invert:
        return y
    dtype = "int64" if modern else layer.layer.dtype
    return lookup.weighted(g, encode(g, layer, y, lookup.counting, lookup.depth, dtype))
