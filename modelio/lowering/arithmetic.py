"""What meets in an operation: dtypes that become one, shapes that become one.

NumPy's rules are not TensorFlow's: its ops want equal dtypes, and its oldest ones (Select, BatchMatMul) equal shapes
too.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.graph.shapes import broadcast

__all__ = [
    "Operand",
    "as_value",
    "broadcast_to",
    "common_shape",
    "dtype_of",
    "is_floating",
    "promoted",
    "result_type",
    "where",
]

Operand = Any
"""A :class:`~modelio.graph.builder.Value`, or a number, list or array among the arguments of a call."""

_ABOVE = {
    "bool": ("int",),
    "int": ("uint8", "int8"),
    "uint8": ("int16", "uint16"),
    "uint16": ("int32", "uint32"),
    "uint32": ("int64", "uint64"),
    "uint64": ("float",),
    "int8": ("int16",),
    "int16": ("int32",),
    "int32": ("int64",),
    "int64": ("float",),
    "float": ("bfloat16", "float16"),
    "bfloat16": ("float32",),
    "float16": ("float32",),
    "float32": ("float64", "complex64"),
    "float64": ("complex128",),
    "complex64": ("complex128",),
    "complex128": (),
}
"""Dtype -> those right above it; ``int`` and ``float`` are Python's numbers, which give way to any dtype of their kind.

Source: keras/src/backend/common/dtypes.py, ``_type_promotion_lattice``.
"""

_NARROWED = {"int": "int32", "float": "float32", "uint64": "uint32", "complex128": "complex64"}
"""What a result becomes at last (the same file, ``_resolve_weak_type`` and ``BIT64_TO_BIT32_DTYPE``)."""


def result_type(*dtypes: str) -> str:
    """The dtype that Keras 3 makes of several.

    >>> result_type("int32", "float16"), result_type("uint8", "int8"), result_type("int64", "float")
    ('float16', 'int16', 'float32')
    """
    common = set.intersection(*(_bounds(dtype) for dtype in dtypes))
    least = [dtype for dtype in common if common <= _bounds(dtype)]
    if len(set(dtypes)) == 1 and dtypes[0] not in ("int", "float"):
        least = [dtypes[0]]
    if not least:
        raise ConversionError(f"the dtypes {', '.join(sorted(set(dtypes)))} do not become one in Keras")
    return _NARROWED.get(least[0], least[0])


@functools.cache
def _bounds(dtype: str) -> set[str]:
    if dtype not in _ABOVE:
        return {dtype}
    return {dtype}.union(*(_bounds(above) for above in _ABOVE[dtype]))


def dtype_of(operand: Operand) -> str:
    """The dtype of an operand; of Python's own numbers ``"int"`` or ``"float"``."""
    if isinstance(operand, Value):
        return operand.dtype
    if isinstance(operand, (bool, int, float)):
        return {bool: "bool", int: "int", float: "float"}[type(operand)]
    if isinstance(operand, (np.ndarray, np.generic)):
        return str(operand.dtype.name)
    if isinstance(operand, (list, tuple)):
        return {"f": "float32", "i": "int32", "b": "bool"}.get(np.asarray(operand).dtype.kind, "string")
    raise ConversionError(f"{operand!r:.60} stands where a tensor is expected")


def is_floating(dtype: str) -> bool:
    """Is it a floating-point dtype?"""
    return "float" in dtype


def as_value(g: Builder, operand: Operand, dtype: str | None = None) -> Value:
    """An operand as a value of that dtype, or of its own."""
    if isinstance(operand, Value):
        return g.cast(operand, dtype or operand.dtype)
    own = dtype_of(operand)
    return g.constant(operand, dtype or {"int": "int32", "float": "float32"}.get(own, own))


def promoted(g: Builder, *operands: Operand, floating: bool = False) -> list[Value]:
    """Operands in the one dtype that Keras 3 gives them; ``floating``: whole numbers become floating-point ones."""
    dtypes = [dtype_of(operand) for operand in operands]
    dtype = result_type(*dtypes, *(["float"] if floating else []))
    return [as_value(g, operand, dtype) for operand in operands]


# -- shapes ------------------------------------------------------------------------------------------------------------


def broadcast_to(g: Builder, x: Value, shape: Value) -> Value:
    """``x`` in a shape that it broadcasts to, a vector. BroadcastTo came with TensorFlow 1.12."""
    known = shape.constant
    if known is not None and x.shape == tuple(int(size) for size in known):
        return x
    if x.rank == 0:
        return g.Fill(shape, x)
    if x.dtype == "bool":
        return g.LogicalAnd(x, g.Fill(shape, g.constant(True, "bool")))
    return g.Mul(x, g.Fill(shape, g.constant(1, x.dtype)))


def where(g: Builder, condition: Value, x: Value, y: Value, shape: Value | None = None) -> Value:
    """``x`` where the condition holds, ``y`` elsewhere, all three broadcast. SelectV2 came with TensorFlow 1.15.

    ``shape`` is the one that all three make together, where the caller knows it: a vector.
    """
    values = [condition, x, y]
    together = broadcast(*(value.shape for value in values))
    if not all(_surely(value, together) for value in values):
        shape = common_shape(g, *values) if shape is None else shape
        values = [value if _surely(value, together) else broadcast_to(g, value, shape) for value in values]
    made: Value = g.Select(*values)
    return made


def common_shape(g: Builder, *values: Value) -> Value:
    """The shape that they broadcast to, as a vector."""
    together = broadcast(*(value.shape for value in values))
    for value in values:
        if _surely(value, together):
            return g.shape_of(value)
    if together is not None and None not in together:
        return g.constant(np.asarray(together, np.int32), name="shape")
    return g.shape_of(functools.reduce(g.Add, [g.cast(g.ZerosLike(value), "float32") for value in values]))


def _surely(value: Value, together: Sequence[int | None] | None) -> bool:
    """Has it that shape, whatever the sizes are that are not known? The first is the batch's, and one for all."""
    return together is not None and value.shape == tuple(together) and None not in tuple(together)[1:]
