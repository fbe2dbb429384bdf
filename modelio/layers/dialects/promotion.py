"""Whether a function of TensorFlow computes what the operation of Keras 3 does that it stands for.

Keras promotes its operands to one dtype, computes with whole numbers in floating point where that is what mathematics
asks for, and takes axes and repeats as NumPy does. TensorFlow's functions do none of this. Source: Keras 3.15
``src/backend/tensorflow/{numpy,nn,math}.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelio.layers.catalogue import Shape
from modelio.layers.keras2 import FUNCTION_LAYERS
from modelio.layers.keras3 import OPERATIONS
from modelio.layers.nodes import flatten
from modelio.layers.normal_form import Network, Ref

__all__ = ["dtype_of", "is_alike", "is_floating"]

_TRUTHS = frozenset(
    {"Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual", "Any", "All"}
    | {"LogicalAnd", "LogicalNot", "LogicalOr", "LogicalXor", "Isnan", "Isinf", "Isfinite"}
)
_COUNTS = frozenset({"Argmax", "Argmin", "Argsort", "Bincount", "CountNonzero", "Digitize", "SearchSorted"})
"""Operations whose results are truths, or whole numbers, whatever they are of."""

_OF_FLOATS = frozenset(
    {"Mean", "Std", "Var", "Logsumexp", "Exp", "Expm1", "Log", "Log1p", "Sqrt", "Rsqrt", "Reciprocal", "Sin", "Cos"}
    | {"Tanh", "Erf", "TrueDivide", "Divide", "Sigmoid", "Softplus", "Softsign", "Selu", "Elu", "Silu", "Gelu"}
    | {"LeakyRelu", "Softmax", "LogSoftmax", "Normalize"}
)
_OF_TRUTHS = frozenset({"Any", "All", "LogicalAnd", "LogicalNot", "LogicalOr"})
_SUMS = frozenset({"Sum", "Prod", "Cumsum"})
_PROMOTED = frozenset(
    {"Add", "Subtract", "Multiply", "TrueDivide", "Divide", "FloorDivide", "Mod", "Power", "Maximum", "Minimum"}
    | {"Matmul", "Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual", "Where", "Concatenate", "Stack"}
)


def dtype_of(ref: Ref, network: Network) -> str | None:
    """The dtype of a tensor, as far as the layers that it comes from say it."""
    seen: set[int] = set()
    while ref.call not in seen:
        seen.add(ref.call)
        call = network.calls[ref.call]
        own = call.layer.class_name.removeprefix(OPERATIONS)
        if own == call.layer.class_name:
            return None if own in FUNCTION_LAYERS else call.layer.dtype
        if own in _TRUTHS:
            return "bool"
        if own in _COUNTS:
            return "int32"
        told = call.layer.config.get("dtype")
        before = call.refs()
        if isinstance(told, str) or not before:
            return told if isinstance(told, str) else None
        ref = before[-1] if own == "Where" else before[0]
    return None


def is_floating(dtype: str | None) -> bool:
    """Is it, or may it be, one of floating-point numbers?"""
    return dtype is None or dtype.startswith(("float", "bfloat"))


def is_alike(own: str, given: Mapping[str, Any], network: Network, shape: Shape | None) -> bool:
    """Is an operation with these arguments the same in TensorFlow?

    Args:
        own: the class of Keras 3.
        given: its arguments by name, tensors as :class:`Ref`.
        network: what it is in.
        shape: of its first operand, where that is known.
    """
    refs = [leaf for name, value in given.items() if name != "condition" for leaf in flatten([value])]
    tensors = [dtype_of(leaf, network) for leaf in refs if isinstance(leaf, Ref)]
    known = {dtype for dtype in tensors if dtype is not None}
    if own in _OF_FLOATS and not all(map(is_floating, known)):
        return False
    if own in _OF_TRUTHS and not known <= {"bool"}:
        return False
    if own in _SUMS and not all(is_floating(dtype) or dtype in ("int32", "int64") for dtype in known):
        return False
    if own in _PROMOTED and own not in ("Concatenate", "Stack", "Where") and own not in _TRUTHS and "bool" in known:
        return False
    if own in _PROMOTED:
        numbers = [given[name] for name in ("x1", "x2") if type(given.get(name)) is float]
        if len(known) > 1 or (numbers and not all(map(is_floating, known))):
            return False
    fits = _ARGUMENTS.get(own)
    return fits is None or fits(given, network, shape)


def _condition(given: Mapping[str, Any], network: Network, shape: Shape | None) -> bool:
    condition = given.get("condition")
    return not isinstance(condition, Ref) or dtype_of(condition, network) in (None, "bool")


def _taken(given: Mapping[str, Any], network: Network, shape: Shape | None) -> bool:
    places = flatten([given.get("indices")])
    return given.get("axis") is not None and not any(isinstance(place, int) and place < 0 for place in places)


def _normalized(given: Mapping[str, Any], network: Network, shape: Shape | None) -> bool:
    return given.get("order", 2) in (2, None) and given.get("epsilon") in (1e-12, None)


def _tiled(given: Mapping[str, Any], network: Network, shape: Shape | None) -> bool:
    repeats = given.get("repeats")
    return isinstance(repeats, (list, tuple)) and (shape is None or len(repeats) == len(shape))


_ARGUMENTS: Mapping[str, Callable[[Mapping[str, Any], Network, Shape | None], bool]] = {
    "Where": _condition,
    "Take": _taken,
    "Normalize": _normalized,
    "Tile": _tiled,
    "Flip": lambda given, network, shape: given.get("axis") is not None,
    "Cumsum": lambda given, network, shape: given.get("axis") is not None,
    "ExpandDims": lambda given, network, shape: isinstance(given.get("axis"), int),
    "Elu": lambda given, network, shape: given.get("alpha", 1.0) == 1.0,
}
"""Operations whose arguments are not always such as TensorFlow's function takes."""
