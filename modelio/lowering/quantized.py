"""Layers that Keras 3 has quantized: kernels of whole numbers with scales, and what LoRA has learned beside a kernel.

::

    int8      y = (round(x * s) . kernel) / (s * kernel_scale)       s: what makes the largest |x| of a sample 127
    int4      two numbers a byte, the first in its low half; one scale a column, or, with a zero point, one a block
    float8    x and kernel rounded to three bits of mantissa

The products of whole numbers are computed in float32, which holds their sums exactly up to a thousand features, and
rounds them further on: MatMul of int8 is younger than TensorFlow 2.4. Bits are taken apart by division, as the ops on
bits came with TensorFlow 1.8.

Sources: keras/src/layers/core/{dense,einsum_dense,embedding}.py (3.15), ``_int8_call``, ``_int4_call``,
``_float8_call``, ``kernel``; keras/src/quantizers/quantizers.py; Dense of 3.9 to 3.14 where it differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.layers.catalogue import block_of, quantized_to
from modelio.lowering.arguments import number, rank_of
from modelio.lowering.einsum import einsum, parsed
from modelio.lowering.rules import Site

__all__ = ["added_bias", "embedded", "is_quantized", "learned_beside", "merged", "product"]

FLOAT8_MOST = 448.0
"""The largest float8_e4m3fn."""


def is_quantized(layer: Site) -> bool:
    """Does the layer keep something else than a kernel of floating-point numbers?"""
    return bool(quantized_to(layer.config))


def product(g: Builder, layer: Site, x: Value, equation: Any) -> Value:
    """``x`` times the quantized kernel, over the axes that the equation names."""
    mode = quantized_to(layer.config)
    if mode not in ("int8", "int4", "float8"):
        raise ConversionError(f"{layer.layer.source_class} is quantized to {mode}, which no rule makes a graph of")
    x = g.cast(x, layer.layer.dtype)
    if mode == "float8":
        kernel = _as_float8(g, layer.weight("kernel"), layer.weight("kernel_scale", "float32"))
        return einsum(g, equation, _as_float8(g, x, layer.weight("inputs_scale", "float32")), kernel)
    scale = layer.weight("kernel_scale")
    if mode == "int8":
        y = _by_whole_numbers(g, layer, x, g.cast(layer.weight("kernel"), "float32"), scale, equation)
    elif block_of(layer.config) is not None:
        kernel = _blocks(g, layer, _unpacked(g, layer, "kernel", _columns(scale)))
        y = einsum(g, equation, x, _in_shape(g, layer, kernel, x, equation))
    elif layer.layer.class_name == "Dense":
        features = (x.shape or (None,))[-1]
        kernel = _unpacked(g, layer, "kernel", _columns(scale), features)
        y = _by_whole_numbers(g, layer, x, kernel, scale, equation)
    else:
        y = _by_scaled_kernel(g, layer, x, scale, equation)
    return _with_lora(g, layer, x, y, equation)


def merged(g: Builder, layer: Site, role: str = "kernel") -> Value:
    """A weight, with what LoRA has learned added to it (``Dense.kernel``)."""
    weight = layer.weight(role)
    first, second = f"lora_{role}_a", f"lora_{role}_b"
    if not layer.has(first):
        return weight
    learned = einsum(g, "...r,ro->...o", layer.weight(first, "float32"), layer.weight(second, "float32"))
    return g.cast(g.Add(g.cast(weight, "float32"), g.Mul(learned, _strength(layer))), weight.dtype)


def added_bias(g: Builder, layer: Site, y: Value) -> Value:
    """``y`` with the bias, which in float8 is rounded to bfloat16 first (``_float8_call``)."""
    bias = layer.weight("bias")
    if quantized_to(layer.config) == "float8" and bias.dtype == "float32":
        bias = g.cast(g.cast(bias, "bfloat16"), "float32")
    made: Value = g.Add(y, bias)
    return made


def embedded(g: Builder, layer: Site, index: Value) -> Value:
    """The rows of a table in int4 (``Embedding._int4_call``)."""
    width = layer.config.get("output_dim")
    if not isinstance(width, int):
        raise ConversionError(f"output_dim is {width!r}, and has to be a whole number")
    rows = g.Gather(_unpacked(g, layer, "embeddings", width), index)
    rows = g.cast(rows, layer.layer.dtype)
    scale = g.Gather(layer.weight("embeddings_scale"), index)
    if block_of(layer.config) is None:
        return g.RealDiv(rows, g.ExpandDims(scale, -1))
    zero = g.cast(g.Gather(layer.weight("embeddings_zero"), index), layer.layer.dtype)
    groups = g.cast(layer.weight("g_idx"), "int32")
    axis = rank_of(layer, scale) - 1
    made: Value = g.Mul(g.Sub(rows, g.GatherV2(zero, groups, axis)), g.GatherV2(scale, groups, axis))
    return made


# -- whole numbers -----------------------------------------------------------------------------------------------------


class _Quantizer(NamedTuple):
    """How an input is made whole numbers (``AbsMaxQuantizer``)."""

    least: float
    most: float
    epsilon: float


def _quantizer(layer: Site) -> _Quantizer | None:
    """What the layer says of its input; None: it stays as it is.

    Before there was a ``quantization_config``, and in its absence, int8 layers quantize it, and int4 layers did so
    until Keras 3.13.
    """
    settings = layer.config.get("quantization_config")
    if not isinstance(settings, Mapping):
        old = len(layer.version) > 1 and layer.version < (3, 14)
        return _Quantizer(-127, 127, 1e-7) if old or quantized_to(layer.config) == "int8" else None
    given = _inside(settings).get("activation_quantizer")
    if given is None:
        return None
    config = _inside(given)
    limits = config.get("value_range", (-127, 127))
    numbers = [*limits, config.get("epsilon", 1e-7)] if isinstance(limits, (list, tuple)) else []
    known = isinstance(given, Mapping) and given.get("class_name") == "AbsMaxQuantizer"
    if not known or len(numbers) != 3 or not all(isinstance(one, (int, float)) for one in numbers):
        raise ConversionError(f"the input's quantizer is {given!r:.60}, which has no rule")
    return _Quantizer(*map(float, numbers))


def _inside(node: Any) -> Mapping[str, Any]:
    """The ``config`` of what Keras has written down as an object."""
    config = node.get("config") if isinstance(node, Mapping) else None
    return config if isinstance(config, Mapping) else {}


def _by_whole_numbers(g: Builder, layer: Site, x: Value, kernel: Value, scale: Value, equation: Any) -> Value:
    """The product with a kernel of whole numbers, over the scales of both."""
    quantizer = _quantizer(layer)
    if quantizer is None:
        return g.RealDiv(einsum(g, equation, x, g.cast(kernel, x.dtype)), scale)
    whole, factor = _quantized(g, layer, x, quantizer, equation)
    y = g.cast(einsum(g, equation, whole, kernel), layer.layer.dtype)
    made: Value = g.RealDiv(y, g.Mul(factor, scale))
    return made


def _quantized(g: Builder, layer: Site, x: Value, quantizer: _Quantizer, equation: Any) -> tuple[Value, Value]:
    """The input as whole numbers in float32, and what it was multiplied by, laid along the result's axes."""
    labels, _, output = _labels(layer, x, equation)
    gone = [axis for axis, label in enumerate(labels) if label not in output]
    largest = g.Add(g.Max(g.Abs(x), gone, keep_dims=True), quantizer.epsilon)
    factor = g.RealDiv(quantizer.most, largest)
    whole = g.Minimum(g.Maximum(g.Round(g.Mul(x, factor)), quantizer.least), quantizer.most)
    kept = [label for label in labels if label in output]
    factor = g.Squeeze(factor, squeeze_dims=gone) if gone else factor
    order = [kept.index(label) for label in output if label in kept]
    factor = factor if order == sorted(order) else g.Transpose(factor, order)
    for axis, label in enumerate(output):
        if label not in kept:
            factor = g.ExpandDims(factor, axis)
    return g.cast(whole, "float32"), factor


def _by_scaled_kernel(g: Builder, layer: Site, x: Value, scale: Value, equation: Any) -> Value:
    """EinsumDense in int4 with a scale a column: the kernel is scaled before the product (``_int4_call``)."""
    kernel = g.RealDiv(g.cast(_unpacked(g, layer, "kernel", _columns(scale)), x.dtype), scale)
    kernel = _in_shape(g, layer, kernel, x, equation)
    quantizer = _quantizer(layer)
    if quantizer is None:
        return einsum(g, equation, x, kernel)
    whole, factor = _quantized(g, layer, x, quantizer, equation)
    y = g.cast(einsum(g, equation, whole, g.cast(kernel, "float32")), layer.layer.dtype)
    made: Value = g.RealDiv(y, factor)
    return made


# -- four bits ---------------------------------------------------------------------------------------------------------


def _columns(scale: Value) -> int:
    return (scale.shape or (0,))[-1] or 0


def _unpacked(g: Builder, layer: Site, role: str, columns: int, features: int | None = None) -> Value:
    """The numbers of a matrix that holds two in each byte, as float32: side by side, or until 3.13 one below the other.

    Raises:
        ConversionError: the matrix is neither.
    """
    packed = layer.weight(role)
    shape = packed.shape or ()
    if len(shape) != 2 or None in shape:
        raise ConversionError(f"the packed {role} has the shape {shape}; two axes are expected")
    rows, wide = (size or 0 for size in shape)
    below = wide == columns > 1
    if below and layer.layer.class_name != "Dense":
        raise ConversionError("int4 as Keras before 3.14 packs it has a rule for Dense alone")
    if not below and wide != (columns + 1) // 2:
        raise ConversionError(f"the packed {role} has {wide} columns, which do not hold {columns}")
    packed = g.cast(packed, "float32")
    low = g.Sub(g.FloorMod(g.Add(packed, 8.0), 16.0), 8.0)
    high = g.FloorDiv(packed, 16.0)
    axis = 1 if below else 2
    both = g.Pack([low, high], axis=axis)
    if below:
        return g.Slice(g.Reshape(both, [rows * 2, columns]), [0, 0], [features or rows * 2, columns])
    made: Value = g.Slice(g.Reshape(both, [rows, wide * 2]), [0, 0], [rows, columns])
    return made


def _blocks(g: Builder, layer: Site, whole: Value) -> Value:
    """Whole numbers with a zero point and a scale for each block of rows (``dequantize_with_sz_map``)."""
    groups = g.cast(layer.weight("g_idx"), "int32")
    zero = g.Gather(g.cast(layer.weight("kernel_zero"), "float32"), groups)
    scale = g.Gather(layer.weight("kernel_scale", "float32"), groups)
    return g.cast(g.Mul(g.Sub(whole, zero), scale), layer.layer.dtype)


def _in_shape(g: Builder, layer: Site, kernel: Value, x: Value, equation: Any) -> Value:
    """A kernel that was made a matrix, in the shape that the equation gives it."""
    labels, of_kernel, output = _labels(layer, x, equation)
    if len(of_kernel) == 2:
        return kernel
    asked = layer.config.get("output_shape")
    asked = list(asked) if isinstance(asked, (list, tuple)) else [asked]
    sizes: dict[str, Any] = dict(zip(reversed(output), reversed(asked), strict=False))
    sizes = {label: size for label, size in sizes.items() if isinstance(size, int)}
    sizes = {**{label: size for label, size in zip(labels, g.sizes(x), strict=True) if isinstance(size, int)}, **sizes}
    return g.reshape(kernel, [sizes.get(label, -1) for label in of_kernel])


def _labels(layer: Site, x: Value, equation: Any) -> tuple[list[str], list[str], list[str]]:
    """The axes of the input, of the kernel, and of the result."""
    text = equation if isinstance(equation, str) else ""
    kernel = text.partition("->")[0].rpartition(",")[2].strip()
    axes, output = parsed(equation, [rank_of(layer, x), len(kernel)])
    return axes[0], axes[1], output


# -- eight bits with a point -------------------------------------------------------------------------------------------


def _as_float8(g: Builder, x: Value, scale: Value) -> Value:
    """What is left of ``x`` after float8_e4m3fn: three bits of mantissa, and no step below 2**-9.

    The power of two below each number is its exponent's bits alone. (Cast knows float8 since TensorFlow 2.13.)
    """
    scale = g.cast(scale, x.dtype)
    y = g.Minimum(g.Maximum(g.RealDiv(x, scale), -FLOAT8_MOST), FLOAT8_MOST)
    wide = g.cast(y, "float32")
    bits = g.Bitcast(g.Abs(wide), type="int32")
    bits = Value(bits.name, bits.dtype, wide.shape)
    power = g.Bitcast(g.Mul(g.FloorDiv(bits, 1 << 23), 1 << 23), type="float32")
    step = g.Mul(g.Maximum(Value(power.name, power.dtype, wide.shape), 2.0**-6), 0.125)
    rounded = g.Mul(g.Round(g.RealDiv(wide, step)), step)
    made: Value = g.Mul(g.cast(rounded, x.dtype), scale)
    return made


# -- LoRA --------------------------------------------------------------------------------------------------------------


def _strength(layer: Site) -> float:
    rank = number(layer, "lora_rank")
    if not rank:
        raise ConversionError("lora_rank is 0")
    return number(layer, "lora_alpha", rank) / rank


def learned_beside(g: Builder, layer: Site, index: Value, rows: Value) -> Value:
    """The rows of a quantized table, with those of what LoRA has learned beside it (``Embedding._int8_call``)."""
    if not layer.has("lora_embeddings_a"):
        return rows
    first = g.Gather(layer.weight("lora_embeddings_a", "float32"), index)
    learned = einsum(g, "...r,ro->...o", first, layer.weight("lora_embeddings_b", "float32"))
    return g.cast(g.Add(g.cast(rows, "float32"), g.Mul(learned, _strength(layer))), layer.layer.dtype)


def _with_lora(g: Builder, layer: Site, x: Value, y: Value, equation: Any) -> Value:
    """Beside a quantized kernel LoRA adds to the result (``_int8_call``)."""
    if not layer.has("lora_kernel_a"):
        return y
    learned = einsum(
        g, "...r,ro->...o", layer.weight("lora_kernel_a", "float32"), layer.weight("lora_kernel_b", "float32")
    )
    more = g.Mul(einsum(g, equation, g.cast(x, "float32"), learned), _strength(layer))
    return g.cast(g.Add(g.cast(y, "float32"), more), layer.layer.dtype)
