"""Pooling: over windows, over all of space, and into a given number of parts."""

from __future__ import annotations

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.arguments import rank_of
from modelio.lowering.rules import Rule, Site, rule
from modelio.lowering.spatial import channels_first, over_pictures, padding_of, sizes_of

__all__: list[str] = []


def _windows(kind: str) -> Rule:
    def pooling(g: Builder, layer: Site, x: Value) -> Value:
        rank = _rank(layer, x)
        size = sizes_of(layer, "pool_size", rank)
        strides = size if layer.config.get("strides") is None else sizes_of(layer, "strides", rank)
        padding = padding_of(layer)
        return over_pictures(g, layer, x, rank, lambda x: _pool(g, kind, x, size, strides, padding))

    pooling.__doc__ = f"""{kind} of each window; padding does not count (keras/src/layers/pooling/base_pooling.py).

    tf_keras/src/layers/pooling/base_pooling{{1,2,3}}d.py the same.
    """
    return pooling


rule("MaxPooling1D", "MaxPooling2D", "MaxPooling3D")(_windows("Max"))
rule("AveragePooling1D", "AveragePooling2D", "AveragePooling3D")(_windows("Avg"))


@rule("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D")
def global_max(g: Builder, layer: Site, x: Value) -> Value:
    """keras/src/layers/pooling/global_max_pooling{1,2,3}d.py."""
    return g.Max(x, _space(layer, x), keep_dims=_keep(layer))


@rule("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D")
def global_average(g: Builder, layer: Site, x: Value, mask: Value | None = None) -> Value:
    """keras/src/layers/pooling/global_average_pooling{1,2,3}d.py; in 1D, masked steps do not count."""
    space, keep = _space(layer, x), _keep(layer)
    if mask is None or len(space) > 1:
        return g.Mean(x, space, keep_dims=keep)
    weights = g.cast(g.ExpandDims(mask, 3 - space[0]), x.dtype)
    return g.RealDiv(g.Sum(g.Mul(x, weights), space, keep_dims=keep), g.Sum(weights, space, keep_dims=keep))


def _adaptive(kind: str) -> Rule:
    def pooling(g: Builder, layer: Site, x: Value) -> Value:
        rank = _rank(layer, x)
        parts = sizes_of(layer, "output_size", rank)

        def compute(x: Value) -> Value:
            for axis, count in enumerate(parts, start=1):
                x = _into_parts(g, layer, kind, x, axis, count)
            return x

        return over_pictures(g, layer, x, rank, compute)

    pooling.__doc__ = f"""{kind} of as many windows as are asked for, one axis after the other, as even as can be.

    keras/src/backend/tensorflow/nn.py, ``_adaptive_{{max,average}}_pool{{1,2,3}}d``: window ``i`` of ``n`` over
    ``size`` pixels goes from ``floor(i * size / n)`` to ``ceil((i + 1) * size / n)``.
    """
    return pooling


rule("AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D", "AdaptiveMaxPooling3D")(_adaptive("Max"))
rule("AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D", "AdaptiveAveragePooling3D")(_adaptive("Avg"))


def _into_parts(g: Builder, layer: Site, kind: str, x: Value, axis: int, count: int) -> Value:
    """One axis pooled into ``count`` windows.

    Where they are even, they are one pooling. Otherwise windows have one of two sizes: both are taken at every place,
    and those that are wanted are picked.
    """
    rank = (x.rank or 0) - 2
    size = (x.shape or ())[axis] if x.rank else None
    if size is None:
        raise ConversionError(f"the input's shape is {x.shape}; {layer.layer.source_class} wants its space known")

    def pool(width: int, stride: int) -> Value:
        one = [1] * rank
        widths, strides = ((*one[: axis - 1], number, *one[axis:]) for number in (width, stride))
        return _pool(g, kind, x, widths, strides, "VALID")

    if size % count == 0:
        return x if size == count else pool(size // count, size // count)
    starts = [index * size // count for index in range(count)]
    widths = [-(-(index + 1) * size // count) - start for index, start in enumerate(starts)]
    kinds = sorted(set(widths))
    first = {width: sum(size - other + 1 for other in kinds if other < width) for width in kinds}
    joined = [pool(width, 1) for width in kinds]
    return g.GatherV2(
        g.ConcatV2(joined, axis) if len(joined) > 1 else joined[0],
        [first[width] + start for start, width in zip(starts, widths, strict=True)],
        axis,
    )


def _pool(g: Builder, kind: str, x: Value, size: tuple[int, ...], strides: tuple[int, ...], padding: str) -> Value:
    operation = f"{kind}Pool" + ("3D" if len(size) == 3 else "")
    y: Value = g.node(operation, x, ksize=(1, *size, 1), strides=(1, *strides, 1), padding=padding)
    return y


def _rank(layer: Site, x: Value) -> int:
    """Axes of space: the digit in the class's name, and what the input must have."""
    rank = int(layer.layer.class_name[-2])
    return rank_of(layer, x, rank + 2, rank + 2) - 2


def _space(layer: Site, x: Value) -> list[int]:
    """The axes of space."""
    rank = _rank(layer, x)
    return list(range(2, rank + 2) if channels_first(layer) else range(1, rank + 1))


def _keep(layer: Site) -> bool:
    return bool(layer.config.get("keepdims", False))
