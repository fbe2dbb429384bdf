"""Attention: dot product, additive, many heads, grouped queries.

A score that a mask hides is not removed but made so small that its share vanishes, in each version by another number.
Where a mask hides a whole row the number shows: the shares are then alike, or zero since Keras 3.10, in some versions
only. Each follows the version that wrote the file.

Sources: keras/src/layers/attention/*.py and layers/activations/softmax.py (3.0.5, 3.7, 3.10, 3.13, 3.15),
keras/src/backend/tensorflow/nn.py, ``dot_product_attention``; tf_keras/src/layers/attention/*.py (2.21), and
keras/layers/attention/multi_head_attention.py of 2.9 and 2.10.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.activation import softmax
from modelio.lowering.arguments import axis_of, number, rank_of, whole
from modelio.lowering.arithmetic import as_value, common_shape, where
from modelio.lowering.einsum import einsum
from modelio.lowering.rules import Mask, Output, Site, masks, rule

__all__ = ["dot_product_attention", "masked_softmax"]

# -- one head ----------------------------------------------------------------------------------------------------------


@rule("Attention")
def attention(
    g: Builder,
    layer: Site,
    inputs: Sequence[Value],
    mask: Mask = None,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
) -> Output:
    """``softmax(query . key) . value`` (attention/attention.py); ``score_mode="concat"`` adds before a tanh instead."""
    query, value, key = _inputs(layer, inputs)
    mode = layer.config["score_mode"]
    if mode == "dot":
        scores = _outer(g, query, key)
        if layer.config["use_scale"]:
            scores = g.Mul(scores, layer.weight("scale"))
    elif mode == "concat":
        together = g.Add(g.ExpandDims(query, -2), g.ExpandDims(key, -3))
        if layer.config["use_scale"]:
            together = g.Mul(together, layer.weight("scale"))
        scores = g.Mul(g.Sum(g.Tanh(together), [-1]), layer.weight("concat_score_weight"))
    else:
        raise ConversionError(f"score_mode is {mode!r}, neither 'dot' nor 'concat'")
    return _attended(g, layer, scores, value, mask, return_attention_scores, use_causal_mask)


@rule("AdditiveAttention")
def additive_attention(
    g: Builder,
    layer: Site,
    inputs: Sequence[Value],
    mask: Mask = None,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
) -> Output:
    """``softmax(sum(scale * tanh(query + key))) . value`` (attention/additive_attention.py)."""
    query, value, key = _inputs(layer, inputs)
    scores = g.Tanh(g.Add(g.ExpandDims(query, -2), g.ExpandDims(key, -3)))
    if layer.config["use_scale"]:
        scores = g.Mul(scores, layer.weight("scale"))
    return _attended(g, layer, g.Sum(scores, [-1]), value, mask, return_attention_scores, use_causal_mask)


@masks("Attention", "AdditiveAttention")
def query_mask(g: Builder, layer: Site, inputs: Any, mask: Mask) -> Mask:
    """What is attended to has the steps of the query (attention/attention.py, ``compute_mask``)."""
    return mask[0] if mask else None


def _inputs(layer: Site, inputs: Sequence[Value]) -> tuple[Value, Value, Value]:
    """Query, value and key; the value is the key where there is none."""
    if not isinstance(inputs, (list, tuple)) or not 2 <= len(inputs) <= 3:
        raise ConversionError(f"{layer.layer.source_class} is not called on a list of two or three tensors")
    for value in inputs:
        rank_of(layer, value, least=3)
    return inputs[0], inputs[1], inputs[-1 if len(inputs) == 3 else 1]


def _outer(g: Builder, query: Value, key: Value) -> Value:
    """The dot product of every query with every key."""
    if query.rank != key.rank:
        raise ConversionError(f"queries with {query.rank} dimensions do not meet keys with {key.rank}")
    made: Value = g.BatchMatMul(query, key, adj_y=True)
    return made


def _attended(
    g: Builder, layer: Site, scores: Value, value: Value, mask: Mask, return_scores: bool, causal: bool
) -> Output:
    """What the scores make of the value (attention/attention.py, ``call``; base_dense_attention.py of tf_keras)."""
    query_mask, value_mask = (mask[0], mask[1]) if mask else (None, None)
    hides = None if value_mask is None else g.ExpandDims(value_mask, -2)
    if causal or layer.config.get("causal"):
        hides = _both(g, hides, _causal_mask(g, *g.sizes(scores)[-2:]))
    if hides is not None:
        scores = _hidden(g, layer, scores, hides)
    shares = softmax(g, layer, scores)
    y = g.BatchMatMul(shares, value)
    if query_mask is not None:
        shown = g.ExpandDims(query_mask, -1)
        y = (
            where(g, shown, y, g.ZerosLike(y), g.shape_of(y))
            if layer.dialect == "keras3"
            else g.Mul(y, g.cast(shown, y.dtype))
        )
    return (y, shares) if return_scores else y


def _hidden(g: Builder, layer: Site, scores: Value, mask: Value) -> Value:
    amount = 65504.0 if scores.dtype == "float16" else 1e9
    return g.Sub(scores, g.Mul(g.cast(g.LogicalNot(mask), scores.dtype), amount))


# -- many heads --------------------------------------------------------------------------------------------------------


@rule("MultiHeadAttention")
def multi_head_attention(
    g: Builder,
    layer: Site,
    query: Value,
    value: Value,
    key: Value | None = None,
    query_mask: Mask = None,
    value_mask: Mask = None,
    key_mask: Mask = None,
    attention_mask: Mask = None,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
) -> Output:
    """Attention of several heads at once, over one axis or several (attention/multi_head_attention.py).

    Where nobody asks for the scores, Keras 3.7 and later compute it in one go (:func:`dot_product_attention`), in
    float32 whatever the dtype.
    """
    rank = rank_of(layer, query, least=3)
    key = value if key is None else key
    for other in (value, key):
        rank_of(layer, other, rank, rank)
    axes = _attention_axes(layer, rank)
    if layer.dialect != "keras3" and not _since(layer, 2, 10):
        query_mask = value_mask = key_mask = None  # nobody looked at them yet
    mask = _mask_of_heads(g, layer, query, value, query_mask, value_mask, key_mask, attention_mask, use_causal_mask)
    size = whole(layer, "key_dim")
    return _through_heads(g, layer, (query, key, value), mask, axes, size, return_attention_scores)


@rule("GroupQueryAttention")
def group_query_attention(
    g: Builder,
    layer: Site,
    query: Value,
    value: Value,
    key: Value | None = None,
    query_mask: Mask = None,
    value_mask: Mask = None,
    key_mask: Mask = None,
    attention_mask: Mask = None,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
) -> Output:
    """Heads that share keys and values in groups (attention/grouped_query_attention.py)."""
    key = value if key is None else key
    for x in (query, value, key):
        rank_of(layer, x, 3, 3)
    mask = _mask_of_heads(g, layer, query, value, query_mask, value_mask, key_mask, attention_mask, use_causal_mask)
    heads, groups = whole(layer, "num_query_heads"), whole(layer, "num_key_value_heads")
    if heads % groups:
        raise ConversionError(f"{heads} query heads do not make {groups} groups of one size")
    size = whole(layer, "head_dim")
    return _through_heads(g, layer, (query, key, value), mask, (1,), size, return_attention_scores, heads // groups)


def _through_heads(
    g: Builder,
    layer: Site,
    tensors: tuple[Value, Value, Value],
    mask: Value | None,
    axes: tuple[int, ...],
    size: int,
    return_scores: bool,
    repeats: int | None = None,
) -> Output:
    """Query, key and value go into the heads, attend, and come out as one; a head of keys may serve several."""
    query, _, _ = tensors
    gate = g.Sigmoid(_projected(g, layer, query, "gate")) if layer.config.get("use_gate") else None
    queries, keys, values = (
        _projected(g, layer, x, part) for x, part in zip(tensors, ("query", "key", "value"), strict=True)
    )
    if repeats is not None:
        keys, values = (_repeated_heads(g, x, repeats) for x in (keys, values))
    scale = 1 / math.sqrt(size)
    if _at_once(layer, return_scores) and query.rank == 3:
        y, shares = dot_product_attention(g, layer, queries, keys, values, _for_heads(g, mask, 4, 1), scale), None
    else:
        y, shares = _by_scores(g, layer, queries, keys, values, mask, axes, scale)
    if gate is not None:
        y = g.Mul(y, gate)
    y = _projected(g, layer, y, "attention_output", bound=2)
    return (y, shares) if shares is not None and return_scores else y


def _attention_axes(layer: Site, rank: int) -> tuple[int, ...]:
    """The axes that attention runs over; all but the batch and the features where nothing is said."""
    given = layer.config.get("attention_axes")
    if given is None:
        return tuple(range(1, rank - 1))
    axes = tuple(axis_of(layer, axis, rank) for axis in (given if isinstance(given, (list, tuple)) else (given,)))
    if 0 in axes or rank - 1 in axes or len(set(axes)) != len(axes):
        raise ConversionError(f"attention_axes is {given!r}; the input has {rank} dimensions")
    return axes


def _at_once(layer: Site, return_scores: bool) -> bool:
    fused = layer.dialect == "keras3" and _since(layer, 3, 7)
    return fused and not return_scores and not number(layer, "dropout", 0.0) > 0


def _since(layer: Site, *version: int) -> bool:
    """Was the model written by that version or a later one? One that does not say it is taken for today's."""
    return len(layer.version) < 2 or layer.version >= version


def _projected(g: Builder, layer: Site, x: Value, part: str, bound: int = 1) -> Value:
    """``x`` times the kernel of a part of the layer, summed over the last ``bound`` axes of ``x``."""
    kernel = layer.weight(f"{part}/kernel")
    rank = rank_of(layer, x, least=bound + 1)
    letters = string.ascii_lowercase
    left, summed = letters[: rank - bound], letters[rank - bound : rank]
    right = letters[rank : rank + (kernel.rank or 0) - bound]
    y = einsum(g, f"{left}{summed},{summed}{right}->{left}{right}", g.cast(x, kernel.dtype), kernel)
    return g.Add(y, layer.weight(f"{part}/bias")) if layer.config["use_bias"] else y


def _repeated_heads(g: Builder, x: Value, times: int) -> Value:
    """Every head so many times, one after another."""
    if times == 1:
        return x
    batch, steps, heads, size = g.sizes(x)
    assert isinstance(heads, int)  # the kernel's
    return g.reshape(g.Tile(g.ExpandDims(x, 3), [1, 1, 1, times, 1]), [batch, steps, heads * times, size])


def _by_scores(
    g: Builder,
    layer: Site,
    query: Value,
    key: Value,
    value: Value,
    mask: Mask,
    axes: tuple[int, ...],
    scale: float,
) -> tuple[Value, Value]:
    """Attention and its scores, in the layer's own dtype (``_compute_attention`` and ``_build_attention_equation``)."""
    rank = query.rank or 0
    letters = string.ascii_lowercase
    batch = [axis for axis in range(rank - 1) if axis not in axes]  # with the heads, the last of them
    target = letters[:rank]
    others = iter(letters[rank:])
    source = "".join(next(others) if axis in axes else target[axis] for axis in range(rank - 1)) + target[-1]
    scored = "".join(
        [*(target[axis] for axis in batch), *(target[axis] for axis in axes), *(source[axis] for axis in axes)]
    )
    query = g.Mul(query, scale)
    scores = einsum(g, f"{source},{target}->{scored}", key, query)
    shares = masked_softmax(g, layer, scores, _for_heads(g, mask, scores.rank or 0, len(axes)), len(axes))
    wide = source[:-1] + next(others)
    return einsum(g, f"{scored},{wide}->{target[:-1]}{wide[-1]}", shares, value), shares


def masked_softmax(g: Builder, layer: Site, scores: Value, mask: Mask, count: int = 1) -> Value:
    """The Softmax layer over the last ``count`` axes, of what the mask shows (activations/softmax.py)."""
    amount = _large_negative(layer, scores.dtype)
    shown = None
    if mask is not None:
        shown = g.cast(mask, scores.dtype)
        if _replaces(layer):
            shape = g.shape_of(scores)
            scores = where(g, mask, scores, g.constant(amount, scores.dtype), shape)
        else:
            scores = g.Add(scores, g.Mul(g.Sub(1.0, shown), amount))
    if count == 1:
        shares = softmax(g, layer, scores)
    else:
        axes = list(range(-count, 0))
        powers = g.Exp(g.Sub(scores, g.Max(scores, axes, keep_dims=True)))
        shares = g.RealDiv(powers, g.Sum(powers, axes, keep_dims=True))
    if shown is not None and layer.dialect == "keras3" and _since(layer, 3, 10):
        shares = g.Mul(shares, shown)
    return shares


def _large_negative(layer: Site, dtype: str) -> float:
    """``_large_negative_number`` and tf_keras' ``_large_compatible_negative``."""
    if dtype != "float16":
        return -1e9
    return -3e4 if layer.dialect == "keras3" else -65504.0 / 2


def _replaces(layer: Site) -> bool:
    """Does a hidden score become the large negative number, or is that number added to it?"""
    if layer.dialect == "keras3":
        return _since(layer, 3, 13)
    return bool(layer.config.get("robust_masking") or layer.config.get("softmax_robust_masking"))


def dot_product_attention(
    g: Builder, layer: Site, query: Value, key: Value, value: Value, mask: Mask, scale: float, bias: Mask = None
) -> Value:
    """Heads with one axis of steps, in float32 at least (backend/tensorflow/nn.py, ``_dot_product_attention_xla``)."""
    wide = "float64" if query.dtype == "float64" else "float32"
    scores = g.Mul(g.cast(einsum(g, "btnh,bsnh->bnts", query, key), wide), scale)
    if bias is not None:
        scores = g.Add(scores, g.cast(bias, wide))
    if mask is not None:
        shape = g.shape_of(scores) if bias is None else common_shape(g, scores, mask)
        least = np.float32(3.38953e38) * np.float32(-0.7)
        scores = where(g, mask, scores, g.constant(least, wide), shape)
    shares = g.cast(softmax(g, layer, scores), key.dtype)
    return einsum(g, "bnts,bsnh->btnh", shares, value)


# -- masks -------------------------------------------------------------------------------------------------------------


def _mask_of_heads(
    g: Builder,
    layer: Site,
    query: Value,
    value: Value,
    query_mask: Mask,
    value_mask: Mask,
    key_mask: Mask,
    given: Mask,
    causal: bool,
) -> Mask:
    """All masks as one, ``[batch, query step, value step]`` (``_compute_attention_mask``)."""
    mask = None
    if query_mask is not None:
        mask = g.ExpandDims(query_mask, -1)
    for other in (value_mask, key_mask):
        if other is not None:
            mask = _both(g, mask, g.ExpandDims(other, -2))
    if causal:
        mask = _both(g, mask, _causal_mask(g, g.sizes(query)[1], g.sizes(value)[1]))
    window = layer.config.get("sliding_window")
    if window is not None:
        rows, columns = (g.Range(0, g.sizes(x)[1], 1) for x in (query, value))
        distance = g.Abs(g.Sub(g.ExpandDims(rows, 1), g.ExpandDims(columns, 0)))
        mask = _both(g, mask, g.ExpandDims(g.Less(distance, whole(layer, "sliding_window")), 0))
    return mask if given is None else _both(g, as_value(g, given, "bool"), mask)


def _both(g: Builder, first: Mask, second: Mask) -> Mask:
    if first is None or second is None:
        return second if first is None else first
    return g.LogicalAnd(first, second)


def _causal_mask(g: Builder, rows: int | Value, columns: int | Value) -> Value:
    """A step sees those up to its own place: ``[1, rows, columns]``."""
    places = g.ExpandDims(g.Range(0, rows, 1), 1), g.ExpandDims(g.Range(0, columns, 1), 0)
    made: Value = g.ExpandDims(g.GreaterEqual(*places), 0)
    return made


def _for_heads(g: Builder, mask: Mask, rank: int, count: int) -> Mask:
    """A mask with the axes that the scores have more: those of the heads, and the batch's (``_masked_softmax``)."""
    while mask is not None and (mask.rank or 0) < rank:
        mask = g.ExpandDims(mask, -2 * count - 1)
    return mask
