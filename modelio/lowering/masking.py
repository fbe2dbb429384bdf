"""Masks: which steps of a sequence count, and which mask the outputs of each class of layers carry.

A mask begins at ``Masking`` or an ``Embedding`` with ``mask_zero``, runs beside the tensors, and is heeded by recurrent
layers, attention, pooling and merging. Three kinds of classes:

* those in :data:`PASSES` hand the mask of their input on as it is (``supports_masking``, and Keras' own
  ``compute_mask``);
* those with a rule registered by ``@masks`` say it themselves, here or beside their rule;
* all others end it. Keras 3 and tf.keras warn or say nothing; Keras 1 and Keras 2 refuse to build such a model, so that
  no file of theirs holds one.

Sources: ``supports_masking`` and ``compute_mask`` in Keras 1.2.2 ``engine/topology.py``, Keras 2.3.1
``engine/base_layer.py`` and ``layers/*.py``, tf_keras 2.21 and Keras 3.15 ``src/layers/**``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from modelio.graph.builder import Builder, Value
from modelio.lowering.arguments import number, rank_of
from modelio.lowering.rules import Mask, Masked, Site, find_masks, masks, rule

__all__ = ["PASSES", "PASSES_3", "merges_masks", "output_mask", "picked", "spread"]

PASSES = frozenset(
    {
        *("Activation", "ActivityRegularization", "AlphaDropout", "BatchNormalization", "Dense", "Dropout", "ELU"),
        *("GaussianDropout", "GaussianNoise", "GroupNormalization", "GroupQueryAttention", "LayerNormalization"),
        *("LeakyReLU", "MultiHeadAttention", "PReLU", "ParametricSoftplus", "ReLU", "SReLU", "Softmax"),
        *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "ThresholdedReLU", "UnitNormalization"),
    }
)
"""Classes whose output carries the mask of their input; of several inputs, of the first."""

PASSES_3 = PASSES | {"Identity", "Normalization", "Rescaling"}
"""The same in Keras 3."""


def output_mask(g: Builder, layer: Site, inputs: Any, mask: Mask) -> Mask:
    """The mask that the outputs of a layer carry, from its first argument and the mask of that."""
    function = find_masks(layer.layer.class_name)
    if function is not None:
        return function(g, layer, inputs, mask)
    return mask if layer.layer.class_name in (PASSES_3 if layer.dialect == "keras3" else PASSES) else None


def picked(g: Builder, mask: Value, chosen: Value, other: Value) -> Value:
    """``chosen`` where the mask is true, ``other`` elsewhere; the mask has the first axes of both, or all of them.

    Select takes a vector that picks rows (math_ops.cc), and has taken it since before TensorFlow 1.0.
    """
    if mask.rank == 1 or (mask.shape == chosen.shape and mask.rank is not None):
        return g.Select(mask, chosen, other)
    return g.Select(spread(g, mask, chosen), chosen, other)


def spread(g: Builder, mask: Value, x: Value) -> Value:
    """The mask with the axes and sizes of ``x``, whose first axes it has."""
    for _ in range((x.rank or 0) - (mask.rank or 0)):
        mask = g.ExpandDims(mask, -1)
    return g.LogicalAnd(mask, g.Fill(g.shape_of(x), True))


@rule("Masking")
def masking(g: Builder, layer: Site, x: Value) -> Masked:
    """Steps whose every feature is ``mask_value`` do not count, and are zero (keras/src/layers/core/masking.py)."""
    rank = rank_of(layer, x, least=1)
    counts = g.NotEqual(x, _mask_value(layer))
    mask = g.Any(counts, [rank - 1])
    if layer.dialect == "keras3":
        return Masked(g.Select(spread(g, mask, x), x, g.ZerosLike(x)), mask)
    return Masked(g.Mul(x, g.cast(g.ExpandDims(mask, -1), x.dtype)), mask)


def _mask_value(layer: Site) -> float:
    """A number, or an array of one, as which Keras 3 writes what NumPy computed."""
    given = layer.config.get("mask_value")
    return (
        float(given.reshape(()))
        if isinstance(given, np.ndarray) and given.size == 1
        else number(layer, "mask_value", 0.0)
    )


# -- merging -----------------------------------------------------------------------------------------------------------


def merges_masks(layer: Site) -> bool:
    """Keras 3 until 3.3 looks for a mask on the list of tensors, which has none (pull request 19685)."""
    return layer.dialect != "keras3" or layer.since(3, 4)


@masks("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")
def merged(g: Builder, layer: Site, inputs: Any, mask: Mask) -> Mask:
    """A step counts that counts in any input, if all have masks; before Keras 3.4, in all inputs that have a mask.

    keras/src/layers/merging/base_merge.py and tf_keras/src/layers/merging/base_merge.py, ``compute_mask``.
    """
    if not isinstance(mask, (list, tuple)) or not merges_masks(layer):
        return None
    known = [one for one in mask if one is not None]
    if layer.dialect == "keras3":
        if len(known) < len(mask):
            return None
        return _folded(g.LogicalOr, known)
    return _folded(g.LogicalAnd, known)


@masks("Concatenate")
def concatenated(g: Builder, layer: Site, inputs: Any, mask: Mask) -> Mask:
    """The masks side by side, each as large as its input, and of the last axis any, before Keras 3.4 all.

    keras/src/layers/merging/concatenate.py and tf_keras/src/layers/merging/concatenate.py, ``compute_mask``. The latter
    gives a mask one feature where its input has several, which comes to the same.
    """
    if not isinstance(mask, (list, tuple)) or not merges_masks(layer):
        return None
    if any(x.rank is None for x in inputs):
        return None
    whole = [
        g.Fill(g.shape_of(x), True) if one is None else spread(g, one, x) for x, one in zip(inputs, mask, strict=True)
    ]
    rank = rank_of(layer, inputs[0], least=1)
    along = int(layer.config["axis"]) % rank
    joined = g.ConcatV2(whole, along) if len(whole) > 1 else whole[0]
    reduce = g.Any if layer.dialect == "keras3" else g.All
    return reduce(joined, [rank - 1])


def _folded(combine: Any, known: list[Value]) -> Value:
    result = known[0]
    for one in known[1:]:
        result = combine(result, one)
    return result


# -- wrappers ----------------------------------------------------------------------------------------------------------


@masks("SpectralNormalization")
def of_wrapped(g: Builder, layer: Site, inputs: Any, mask: Mask) -> Mask:
    """The layer inside marks its own output, and the wrapper lets it be."""
    inner = layer.layer.inner.get("layer")
    return None if inner is None else output_mask(g, layer.of(inner), inputs, mask)
