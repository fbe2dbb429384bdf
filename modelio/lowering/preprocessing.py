"""Layers that turn numbers and words into features: Normalization, bins, hashes and encodings of categories.

Sources, where a function names none: ``keras/src/layers/preprocessing/*.py`` and ``keras/src/utils/numerical_utils.py``
(Keras 3.15), ``tf_keras/src/layers/preprocessing/*.py`` (2.21). Both speak of categories in one way, ``output_mode``,
and so does :func:`encode`; layers with a vocabulary are in :mod:`~modelio.lowering.tables` and
:mod:`~modelio.lowering.text`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.layers.vocabularies import boundaries_of
from modelio.lowering.arguments import axes_of, rank_of, whole
from modelio.lowering.rules import Site, rule
from modelio.lowering.spatial import Size, linear

__all__ = ["checked", "counted", "encode", "mode_of", "refuse_sparse"]

OLD_MODES = {"binary": "multi_hot", "tf-idf": "tf_idf"}
"""Output modes under the names that they had until TensorFlow 2.6."""

HASH_KEY = 0xDECAFCAFFE
"""What ``tf.sparse.cross_hashed`` starts its hash with (tensorflow/python/ops/sparse_ops.py, ``_DEFAULT_HASH_KEY``)."""

EPSILON = 1e-7
"""``keras.backend.epsilon()``, below which a deviation is not divided by."""


# -- output modes ------------------------------------------------------------------------------------------------------


def mode_of(layer: Site, *allowed: str) -> str:
    """The ``output_mode`` argument."""
    given = layer.config.get("output_mode", "int" if "int" in allowed else "multi_hot")
    mode = OLD_MODES.get(given, given) if isinstance(given, str) else given
    if mode not in allowed:
        raise ConversionError(f"output_mode is {given!r}, which {layer.layer.source_class} does not know")
    return str(mode)


def refuse_sparse(layer: Site) -> None:
    """A sparse tensor is three tensors, and an output of a layer here is one."""
    if layer.config.get("sparse"):
        raise ConversionError(
            f"{layer.layer.source_class} has sparse=True: a sparse tensor is no output of a graph built here; "
            "set sparse=False, the numbers are the same"
        )


def checked(g: Builder, value: Value, condition: Value, message: str, *shown: Value) -> Value:
    """``value``, or an error while the graph runs where ``condition`` is false."""
    return g.after(value, g.action("Assert", condition, [g.constant(message), *shown]))


def encode(
    g: Builder, layer: Site, ids: Value, mode: str, depth: int, dtype: str, weights: Value | None = None
) -> Value:
    """Whole numbers in an output mode: as they are, or as vectors of ``depth`` numbers.

    ``one_hot`` is a vector for each number, in place of a last axis of size 1; ``multi_hot`` and ``count`` are one for
    all numbers of a sample, the last axis. A number from ``depth`` on counts nowhere.
    """
    if mode == "int":  # until TensorFlow 2.6 the dtype that the layer has is another: float32, or that of its words
        return g.cast(ids, dtype if "int" in dtype else "int64")
    rank = rank_of(layer, ids, least=1)
    assert ids.shape is not None
    modern = layer.dialect == "keras3"
    if mode == "one_hot":
        if rank > 1 and ids.shape[-1] == 1:
            ids = g.Squeeze(ids, squeeze_dims=[rank - 1])
        elif rank > 1 and not modern:
            raise ConversionError(f"output_mode is 'one_hot', and the input has {rank} dimensions, the last one not 1")
        return _one_hot(g, ids, depth, dtype)
    if rank > 2 and not modern:
        raise ConversionError(f"output_mode is {mode!r}, and the input has {rank} dimensions; Keras 2 takes 2")
    if rank > 2:  # numerical_utils.py: over the axis behind the batch, whichever is last
        hot = _one_hot(g, ids, depth, dtype if weights is None else weights.dtype)
        if weights is not None:
            hot = g.Mul(hot, g.ExpandDims(weights, -1))
        return g.Max(hot, [1]) if mode == "multi_hot" else g.Sum(hot, [1])
    if rank == 1:
        ids, weights = g.ExpandDims(ids, 0), None if weights is None else g.ExpandDims(weights, 0)
    batch, width = g.sizes(ids)
    numbers = g.Range(0, batch, 1)
    rows = g.Reshape(g.Tile(g.ExpandDims(numbers, 1), g.vector([1, width])), [-1])
    flat = None if weights is None else g.Reshape(weights, [-1])
    y = counted(g, g.Reshape(ids, [-1]), rows, batch, depth, dtype, mode == "multi_hot", flat)
    return g.Reshape(y, [depth]) if rank == 1 else y


def _one_hot(g: Builder, ids: Value, depth: int, dtype: str) -> Value:
    return g.OneHot(
        g.cast(ids, "int64"), depth, g.constant(1, dtype, name="on_value"), g.constant(0, dtype, name="off_value")
    )


def counted(
    g: Builder,
    ids: Value,
    rows: Value,
    count: Size,
    depth: int,
    dtype: str,
    binary: bool = False,
    weights: Value | None = None,
) -> Value:
    """How often each number below ``depth`` is in each of ``count`` rows: ``[count, depth]``.

    ``tf.math.bincount`` of a matrix, with ops from before there was one (TensorFlow 2.4): numbers from ``depth`` on,
    which do not count, have a column of their own until the end.

    Args:
        g: the builder.
        ids: whole numbers, none negative, as a vector.
        rows: the row of each, int32.
        count: how many rows there are.
        depth: how many numbers there are.
        dtype: of the result.
        binary: 1 for every number that is there, however often.
        weights: what each of ``ids`` counts; left out, 1.
    """
    columns = g.cast(g.Minimum(g.cast(ids, "int64"), depth), "int32")
    places = g.Add(g.Mul(rows, depth + 1), columns)
    each = g.OnesLike(places) if weights is None else weights
    sums = g.UnsortedSegmentSum(each, places, linear(g, count, depth + 1, 0))
    y = g.StridedSlice(g.reshape(sums, [count, depth + 1]), [0, 0], [0, depth], [1, 1], begin_mask=1, end_mask=1)
    return g.cast(g.Minimum(y, 1) if binary else y, dtype)


@rule("CategoryEncoding")
def category_encoding(g: Builder, layer: Site, x: Value, count_weights: Value | None = None) -> Value:
    """Whole numbers below ``num_tokens`` as vectors; ``count_weights`` are summed instead of counted."""
    refuse_sparse(layer)
    mode = mode_of(layer, "one_hot", "multi_hot", "count")
    depth = whole(layer, "num_tokens")
    dtype = layer.layer.dtype
    if count_weights is not None:
        if mode != "count":
            raise ConversionError(
                f"count_weights are given, and output_mode is {mode!r}: they mean something to 'count'"
            )
        count_weights = g.cast(count_weights, dtype)
    ids = g.cast(x, "int64")
    ends: list[Value] = [g.GreaterEqual(ids, 0)]
    if layer.dialect != "keras3":  # Keras 3 lets what is too large count nowhere
        ends.append(g.Less(ids, depth))
    if layer.dialect != "keras3" or mode != "one_hot":
        inside = ends[0] if len(ends) == 1 else g.LogicalAnd(*ends)
        axes = list(range(rank_of(layer, ids, least=1)))
        ids = checked(g, ids, g.All(inside, axes), f"values must be at least 0 and below num_tokens={depth}", ids)
    return encode(g, layer, ids, mode, depth, dtype, count_weights)


# -- bins and hashes ---------------------------------------------------------------------------------------------------


@rule("Discretization")
def discretization(g: Builder, layer: Site, x: Value) -> Value:
    """The number of the bin that each number is in; each bin has its lower boundary in it."""
    refuse_sparse(layer)
    mode = mode_of(layer, "int", "one_hot", "multi_hot", "count")
    boundaries = _boundaries(layer)
    if x.dtype not in ("int32", "int64", "float32", "float64"):  # what Bucketize takes
        x = g.cast(x, "float32" if x.dtype in ("float16", "bfloat16") else "int64" if x.dtype == "uint32" else "int32")
    if layer.config.get("bin_boundaries") is None and "bins" in layer.config:  # each has its upper boundary in it
        turned = g.Bucketize(g.Neg(x), boundaries=tuple(-bound for bound in reversed(boundaries)))
        ids = g.Sub(len(boundaries), turned)
    else:
        ids = g.Bucketize(x, boundaries=boundaries)
    plain = mode == "int" and (layer.dialect == "keras3" or "bins" in layer.config)
    dtype = "int32" if plain else layer.layer.dtype
    return encode(g, layer, ids, mode, len(boundaries) + 1, dtype)


def _boundaries(layer: Site) -> tuple[float, ...]:
    given = layer.config.get("bin_boundaries")
    if given is None and isinstance(layer.config.get("bins"), (list, tuple)):
        given = layer.config["bins"]  # its name until TensorFlow 2.5, which added infinity (2.4 discretization.py)
        given = given[:-1] if given and given[-1] == np.inf else given
    if given is None and layer.has("summary"):
        given = boundaries_of(layer.layer.weights["summary"].numpy(), whole(layer, "num_bins"))
    if given is None:
        raise ConversionError(
            f"{layer.layer.source_class} has no bin_boundaries in this file: it was never adapted, or the file does "
            "not keep what it learned; save the model as .keras, or give bin_boundaries to the layer"
        )
    try:
        boundaries = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        boundaries = np.asarray(np.nan)
    if boundaries.ndim != 1 or not np.isfinite(boundaries).all() or (np.diff(boundaries) < 0).any():
        raise ConversionError(f"bin_boundaries is {given!r}, and has to be a list of numbers in rising order")
    return tuple(boundaries.tolist())


@rule("Hashing")
def hashing(g: Builder, layer: Site, x: Value) -> Value:
    """A bin for each word or whole number, by a hash of it as text; ``mask_value`` has bin 0 for itself."""
    refuse_sparse(layer)
    mode = mode_of(layer, "int", "one_hot", "multi_hot", "count")
    bins = whole(layer, "num_bins")
    mask = layer.config.get("mask_value")
    masked = mask is not None and bins > 1
    if layer.dialect == "keras3" and mode == "one_hot" and x.shape and x.shape[-1] == 1:
        x = g.Squeeze(x, squeeze_dims=[len(x.shape) - 1])
    if masked and not isinstance(mask, str if x.dtype == "string" else (int, float)):
        raise ConversionError(f"mask_value is {mask!r}, and the input is {x.dtype}")
    is_mask = g.Equal(x, g.constant(mask, x.dtype)) if mask is not None and masked else None
    if x.dtype.startswith(("float", "bfloat")):
        x = g.cast(x, "int64")
    ids = hashed(g, layer, x, bins - masked)
    if is_mask is not None:
        ids = g.Select(is_mask, g.ZerosLike(ids), g.Add(ids, 1))
    return encode(g, layer, ids, mode, bins, layer.layer.dtype)


def hashed(g: Builder, layer: Site, x: Value, bins: int) -> Value:
    """The bin of each word or whole number: by FarmHash, or by SipHash where the layer has a ``salt``."""
    text = x if x.dtype == "string" else g.AsString(x)
    salt = layer.config.get("salt")
    if salt is None:
        return g.StringToHashBucketFast(text, num_buckets=bins)
    key = [salt, salt] if isinstance(salt, int) else list(salt) if isinstance(salt, (list, tuple)) else []
    if len(key) != 2 or not all(
        isinstance(part, int) and not isinstance(part, bool) and -(1 << 63) <= part < 1 << 63 for part in key
    ):
        raise ConversionError(f"salt is {salt!r}, and has to be one whole number or two")
    return g.StringToHashBucketStrong(text, num_buckets=bins, key=key)


@rule("HashedCrossing")
def hashed_crossing(g: Builder, layer: Site, x: Any) -> Value:
    """A bin for each combination of features, by a hash over all of them (``tf.sparse.cross_hashed``)."""
    refuse_sparse(layer)
    mode = mode_of(layer, "int", "one_hot")
    bins = whole(layer, "num_bins")
    features: list[Value] = list(x) if isinstance(x, (list, tuple)) else [x]
    if len(features) < 2:
        raise ConversionError("HashedCrossing is called on one feature; it crosses two or more")
    rank = rank_of(layer, features[0], least=1, most=2)
    columns = []
    for feature in features:
        column = feature if feature.dtype == "string" else g.cast(feature, "int64")
        columns.append(g.ExpandDims(column, 1) if rank == 1 else column)
    _, crossed, _ = g.node(
        "SparseCross",
        *([], [], []),
        columns,
        hashed_output=True,
        num_buckets=bins,
        hash_key=HASH_KEY,
        out_type="int64",
        internal_type="int64",
    )
    # One value a row: sorted, and none is missing.
    return encode(g, layer, g.Reshape(crossed, [-1, 1] if rank == 2 else [-1]), mode, bins, layer.layer.dtype)


# -- numbers -----------------------------------------------------------------------------------------------------------


@rule("Normalization")
def normalization(g: Builder, layer: Site, x: Value) -> Value:
    """``(x - mean) / deviation`` along ``axis``, as it was adapted or told; ``invert`` goes back."""
    x = g.cast(x, layer.layer.dtype)
    rank = rank_of(layer, x, least=1)
    assert x.shape is not None
    axis = layer.config.get("axis")
    kept = sorted(axes_of(layer, axis, rank)) if axis is not None and axis != () else []
    if layer.has("mean"):
        place = [1] * rank
        for at, size in zip(kept, layer.layer.weights["mean"].shape, strict=True):
            place[at] = size
        mean, variance = (g.Reshape(layer.weight(role), place) for role in ("mean", "variance"))
    else:
        sizes = [x.shape[at] for at in kept]
        if None in sizes:
            raise ConversionError(f"Normalization along {kept} needs to know how long its input is there")
        mean, variance = (g.constant(_told(layer, role, kept, x.shape), x.dtype) for role in ("mean", "variance"))
    deviation = g.Maximum(g.Sqrt(variance), EPSILON)
    if layer.config.get("invert"):
        return g.Add(mean, g.Mul(x, deviation))
    return g.RealDiv(g.Sub(x, mean), deviation)


@rule("RandomFourierFeatures")
def random_fourier_features(g: Builder, layer: Site, x: Value) -> Value:
    """The cosine of random projections, which stand for a kernel (tf_keras ``layers/kernelized.py``)."""
    rank_of(layer, x, 2, 2)
    kernel = g.Mul(g.RealDiv(1.0, layer.weight("kernel_scale", "float32")), layer.weight("unscaled_kernel", "float32"))
    return g.Cos(g.BiasAdd(g.MatMul(g.cast(x, "float32"), kernel), layer.weight("bias", "float32")))


def _told(layer: Site, name: str, kept: list[int], shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    """An argument as an array that broadcasts along the axes that are kept apart.

    Keras 3 makes a float32 tensor of it, even for a layer of float64; tf_keras keeps float64 (``Normalization.build``).
    """
    given = layer.config.get(name)
    precision = np.float32 if layer.dialect == "keras3" else np.float64
    try:
        numbers = np.broadcast_to(np.asarray(given, precision), [shape[at] or 0 for at in kept])
    except (TypeError, ValueError):
        numbers = np.full(1, np.nan)
    if not np.isfinite(numbers).all():
        raise ConversionError(
            f"Normalization has no weights in this file, and its {name} is {given!r}, no numbers for these axes: "
            "adapt the layer before it is saved"
        )
    return numbers.reshape([shape[at] or 0 if at in kept else 1 for at in range(len(shape))])
