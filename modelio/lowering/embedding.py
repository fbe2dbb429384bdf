"""Embedding: a row of a table for each number.

Where Keras 3 has quantized the table, its rows are whole numbers, and each has a scale that it was multiplied by
(``Embedding._int8_call``). What LoRA learned is merged into the table by whoever saves it (``save_own_variables``).
"""

from __future__ import annotations

from typing import Any

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.layers.catalogue import quantized_to
from modelio.lowering.arguments import number, rank_of
from modelio.lowering.quantized import embedded, learned_beside, merged
from modelio.lowering.rules import Mask, Masked, Site, masks, rule

__all__: list[str] = []


@rule("Embedding")
def embedding(g: Builder, layer: Site, x: Value) -> Value:
    """The rows that the input names (keras/src/layers/core/embedding.py, tf_keras the same)."""
    return _rows(g, layer, x)


def _rows(g: Builder, layer: Site, x: Value) -> Value:
    """The rows of the layer's table.

    A number that is no row stops the run, on a CPU, as in TensorFlow; in Keras 3 a negative one counts from the end
    (keras/src/backend/tensorflow/numpy.py, ``take``).
    """
    table = layer.weight("embeddings", layer.layer.variable_dtype)
    if quantized_to(layer.config) != "int8":
        table = merged(g, layer, "embeddings") if layer.has("lora_embeddings_a") else table
    if table.rank != 2:
        raise ConversionError(f"the table has the shape {table.shape}; two axes are expected")
    index = x if x.dtype in ("int32", "int64") else g.cast(x, "int32")
    if layer.dialect == "keras3":
        index = g.Select(g.Less(index, 0), g.Add(index, (table.shape or (0,))[0] or 0), index)
    if quantized_to(layer.config) == "int4" and layer.layer.class_name == "Embedding":
        return learned_beside(g, layer, index, embedded(g, layer, index))
    rows = g.cast(g.Gather(table, index), layer.layer.dtype)
    if not _is_quantized(layer):
        return rows
    scale = g.Gather(layer.weight("embeddings_scale"), index)
    return learned_beside(g, layer, index, g.RealDiv(rows, g.ExpandDims(scale, -1)))


def _is_quantized(layer: Site) -> bool:
    mode = quantized_to(layer.config)
    if mode not in ("", "int8"):
        raise ConversionError(f"{layer.layer.source_class} is quantized to {mode}; int8 is what has a rule")
    return mode == "int8"


@masks("Embedding")
def embedding_mask(g: Builder, layer: Site, inputs: Value, mask: Mask = None) -> Mask:
    """Zero means that there is nothing, with ``mask_zero`` (``Embedding.compute_mask``)."""
    return g.NotEqual(inputs, 0) if layer.config.get("mask_zero") else None


@rule("ReversibleEmbedding")
def reversible_embedding(g: Builder, layer: Site, x: Value, reverse: bool = False) -> Masked:
    """An embedding, and with ``reverse`` the way back: the product with each row of its table, or of another one.

    keras/src/layers/core/reversible_embedding.py.
    """
    if not reverse:
        return Masked(_rows(g, layer, x), embedding_mask(g, layer, x, None))
    tied = bool(layer.config.get("tie_weights", True))
    role = "embeddings" if tied else "reverse_embeddings"
    rank_of(layer, x, least=2)
    *outer, inner = g.sizes(x)
    flat = g.Reshape(x, g.vector([-1, inner]))
    if _is_quantized(layer):
        logits = _quantized_product(g, layer, flat, role, tied)
    else:
        dtype = str(layer.config.get("reverse_dtype") or layer.layer.variable_dtype)
        table = g.cast(layer.weight(role, layer.layer.variable_dtype), dtype)
        logits = g.MatMul(g.cast(flat, dtype), table, transpose_b=tied)
    if layer.config.get("logit_soft_cap") is not None:
        cap = number(layer, "logit_soft_cap")
        logits = g.Mul(g.Tanh(g.RealDiv(logits, cap)), cap)
    assert logits.shape is not None  # that of a product of matrices
    return Masked(g.reshape(logits, [*outer, logits.shape[1] or 0]))


def _quantized_product(g: Builder, layer: Site, x: Value, role: str, tied: bool) -> Value:
    """Both factors as whole numbers, and the result over both scales (``ReversibleEmbedding._int8_call``).

    Their products and sums are whole numbers that float32 holds, up to a thousand features, and MatMul of int8 is
    younger than TensorFlow 2.4.
    """
    dtype = layer.layer.dtype
    least, most = _range(layer)
    x = g.cast(x, "float32")
    scale = g.RealDiv(float(most), g.Add(g.Max(g.Abs(x), [1], keep_dims=True), 1e-7))
    whole = g.Minimum(g.Maximum(g.Round(g.Mul(x, scale)), float(least)), float(most))
    product = g.MatMul(whole, g.cast(layer.weight(role), "float32"), transpose_b=tied)
    scales = g.Mul(g.cast(scale, dtype), g.cast(layer.weight(f"{role}_scale"), dtype))
    return g.RealDiv(g.cast(product, dtype), scales)


def _range(layer: Site) -> tuple[int, int]:
    """Between which whole numbers the input is quantized."""
    quantizer: Any = layer.config.get("quantization_config")
    for key in ("config", "activation_quantizer", "config", "value_range"):
        quantizer = quantizer.get(key) if isinstance(quantizer, dict) else None
    limits = quantizer if isinstance(quantizer, (list, tuple)) and len(quantizer) == 2 else (-127, 127)
    if not all(isinstance(limit, int) for limit in limits):
        raise ConversionError(f"the input is quantized to {limits!r}, which are no whole numbers")
    return limits[0], limits[1]
