"""TextVectorization: text is standardized, split, joined to n-grams, and looked up.

What splitting gives has rows of different lengths: a :class:`Ragged`, made dense again at the end. Source:
``keras/src/layers/preprocessing/text_vectorization.py`` (Keras 3.15), ``tf_keras/src/layers/preprocessing/
text_vectorization.py`` (2.21).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.arguments import rank_of, whole
from modelio.lowering.preprocessing import counted, encode
from modelio.lowering.rules import Site, rule
from modelio.lowering.spatial import Size, difference, pads_matrix
from modelio.lowering.tables import Lookup, lookup_of

__all__: list[str] = []

PUNCTUATION = r'[!"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']'
"""What is stripped, as a regular expression (text_vectorization.py, ``DEFAULT_STRIP_REGEX``)."""

WIDEST = 1000
"""Tokens of an n-gram; a handful are usual."""

STANDARDIZE: Mapping[Any, tuple[bool, bool]] = {
    None: (False, False),
    "lower_and_strip_punctuation": (True, True),
    "lower": (True, False),
    "strip_punctuation": (False, True),
}
"""Whether text is made lower case, and whether punctuation is removed."""


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: all values one after the other, and where each row begins and ends (int32)."""

    values: Value
    splits: Value
    count: Size

    def lengths(self, g: Builder) -> Value:
        """How many values each row has."""
        ends = g.StridedSlice(self.splits, [1], [0], [1], end_mask=1)
        return g.Sub(ends, g.StridedSlice(self.splits, [0], [-1], [1], begin_mask=1))

    def rows(self, g: Builder) -> Value:
        """The row of each value."""
        total = g.Size(self.values)
        inner = g.StridedSlice(self.splits, [1], [-1], [1])
        begun = g.UnsortedSegmentSum(g.OnesLike(inner), inner, g.Add(total, 1))
        return g.Cumsum(g.Slice(begun, [0], g.Reshape(total, [1])), 0)

    def dense(self, g: Builder, width: int | None) -> Value:
        """Rows cut, or filled with zeros, to ``width``; left out, to that of the longest."""
        rows = self.rows(g)
        columns = g.Sub(g.Range(0, g.Size(self.values), 1), g.Gather(self.splits, rows))
        longest = g.Max(g.ConcatV2([self.lengths(g), [width or 0]], 0), [0])
        places = g.Pack([rows, columns], axis=1)
        y = g.SparseToDense(places, g.vector([self.count, longest]), self.values, 0)
        if width is None:
            return y
        cut = g.StridedSlice(y, [0, 0], [0, width], [1, 1], begin_mask=1, end_mask=1)
        return g.reshape(cut, [self.count, width])


@rule("TextVectorization")
def text_vectorization(g: Builder, layer: Site, x: Value) -> Value:
    """Text as the numbers of its words, one row a text, or as what they are in an output mode."""
    lookup = lookup_of(layer)
    if x.dtype != "string":
        raise ConversionError(f"the input is {x.dtype}, and TextVectorization takes text (string)")
    x = _standardized(g, layer, x)
    split = layer.config.get("split", "whitespace")
    if split is None:
        return _unsplit(g, layer, lookup, x)
    rank = rank_of(layer, x, least=1)
    assert x.shape is not None
    if rank > 1:
        if x.shape[-1] != 1:
            raise ConversionError(f"the last axis of the input has size {x.shape[-1]}; text that is split has one of 1")
        x = g.Squeeze(x, squeeze_dims=[rank - 1])
    outer = g.sizes(x)
    tokens = _split(g, layer, g.Reshape(x, [-1]) if len(outer) > 1 else x, split)
    tokens = _ngrams(g, layer, tokens)
    found = replace(tokens, values=lookup.numbers(g, layer, tokens.values))
    if lookup.mode == "int":
        if layer.config.get("ragged"):
            raise ConversionError(
                "TextVectorization has ragged=True: rows of different lengths are no output of a graph built here; set "
                "ragged=False, which fills them with zeros"
            )
        return _unfolded(g, found.dense(g, _width(layer)), outer)
    if len(outer) > 1 or lookup.mode == "one_hot":
        raise ConversionError(f"output_mode is {lookup.mode!r}, which Keras does not compute of text that is split so")
    dtype = _vector_dtype(layer)
    binary = lookup.mode == "multi_hot"
    counts = counted(g, found.values, found.rows(g), found.count, lookup.depth, dtype, binary)
    return lookup.weighted(g, counts)


def _unfolded(g: Builder, y: Value, outer: list[Size]) -> Value:
    return g.reshape(y, [*outer, g.sizes(y)[-1]]) if len(outer) > 1 else y


def _vector_dtype(layer: Site) -> str:
    return "int64" if layer.dialect == "keras3" else "float32"


def _width(layer: Site) -> int | None:
    return None if layer.config.get("output_sequence_length") is None else whole(layer, "output_sequence_length")


def _standardized(g: Builder, layer: Site, x: Value) -> Value:
    given = layer.config.get("standardize", "lower_and_strip_punctuation")
    if not isinstance(given, (str, type(None))) or given not in STANDARDIZE:
        raise ConversionError(
            f"standardize is a function of its own ({_named(given)}), and there is no rule for it",
            unsupported=[f"{layer.path} ({layer.layer.source_class} with standardize={_named(given)})"],
        )
    lower, strip = STANDARDIZE[given]
    if lower:
        x = g.StringLower(x)
    return g.RegexReplace(x, PUNCTUATION, "") if strip else x


def _named(function: Any) -> str:
    if isinstance(function, Mapping):
        function = function.get("registered_name") or function.get("config") or function.get("class_name")
    return str(function)


def _split(g: Builder, layer: Site, x: Value, split: Any) -> Ragged:
    """The tokens of each text of a vector."""
    (count,) = g.sizes(x)
    if split == "whitespace":
        indices, tokens, _ = g.node("StringSplitV2", x, "")
        rows = g.cast(
            g.StridedSlice(indices, [0, 0], [0, 1], [1, 1], begin_mask=1, end_mask=1, shrink_axis_mask=2), "int32"
        )
        ends = g.Cumsum(g.UnsortedSegmentSum(g.OnesLike(rows), rows, count), 0)
        return Ragged(tokens, g.ConcatV2([[0], ends], 0), count)
    if split == "character":
        # tf.strings.unicode_split: a code point each, and a string of each of them
        splits, points = g.node("UnicodeDecode", x, input_encoding="UTF-8", Tsplits="int32")
        each = g.Range(0, g.Add(g.Size(points), 1), 1)
        return Ragged(g.UnicodeEncode(points, each, output_encoding="UTF-8"), splits, count)
    raise ConversionError(
        f"split is a function of its own ({_named(split)}), and there is no rule for it",
        unsupported=[f"{layer.path} ({layer.layer.source_class} with split={_named(split)})"],
    )


def _widths(layer: Site) -> list[int] | None:
    given = layer.config.get("ngrams")
    if given is None:
        return None
    if isinstance(given, int) and 0 < given <= WIDEST:
        return list(range(1, given + 1))
    widths = list(given) if isinstance(given, (list, tuple)) else []
    if not widths or any(not isinstance(width, int) or not 0 < width <= WIDEST for width in widths):
        raise ConversionError(
            f"ngrams is {given!r}, and has to be a whole number from 1 to {WIDEST}, or a list of them"
        )
    return widths


def _ngrams(g: Builder, layer: Site, tokens: Ragged) -> Ragged:
    """Runs of tokens, joined by a space, of each width in turn (``tf.strings.ngrams``)."""
    widths = _widths(layer)
    if widths is None:
        return tokens
    values, splits = g.node(
        "StringNGrams",
        *(tokens.values, tokens.splits),
        separator=" ",
        ngram_widths=widths,
        left_pad="",
        right_pad="",
        pad_width=0,
        preserve_short_sequences=False,
    )
    return Ragged(values, splits, tokens.count)


def _unsplit(g: Builder, layer: Site, lookup: Lookup, x: Value) -> Value:
    """Text that is not split: every string is a token, and all rows have one length."""
    rank = rank_of(layer, x, least=1)
    widths = _widths(layer)
    if widths is not None:
        *outer, width = g.sizes(x)
        folded = g.Reshape(x, g.vector([-1, width]))
        ends = g.Range(0, g.Add(g.Size(x), 1), width)
        tokens = _ngrams(g, layer, Ragged(g.Reshape(x, [-1]), ends, g.sizes(folded)[0]))
        known = [max(0, width - one + 1) for one in widths if isinstance(width, int)]
        x = g.reshape(tokens.values, [*outer, sum(known) if known else -1])
    y = lookup.numbers(g, layer, x)
    if lookup.mode != "int":
        dtype = _vector_dtype(layer)
        return lookup.weighted(g, encode(g, layer, y, lookup.counting, lookup.depth, dtype))
    length = _width(layer)
    ragged = bool(layer.config.get("ragged"))
    if length is None or (ragged and layer.dialect != "keras3"):
        return y
    mask = (1 << rank) - 1
    y = g.StridedSlice(y, [0] * rank, [*[0] * (rank - 1), length], [1] * rank, begin_mask=mask, end_mask=mask >> 1)
    if ragged:
        return y
    *outer, width = g.sizes(y)
    pads: list[tuple[Size, Size]] = [(0, 0)] * (rank - 1)
    return g.reshape(g.Pad(y, pads_matrix(g, [*pads, (0, difference(g, length, width))])), [*outer, length])
