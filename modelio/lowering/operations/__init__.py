"""Operations on the outputs of layers: ``keras.ops.exp(x)``, ``x + 1``, ``x[:, 0]``.

Keras 3 writes each as a class, ``Exp``, which is called on tensors and may have arguments. A function is made a rule
for such classes by :func:`operation`; its parameters are the class's arguments, those of the call and those of the
config alike::

    @operation("Mean")
    def mean(g, x, axis=None, keepdims=False):
        ...

The functions stand in the modules of their kind: elementwise, reductions, arranging, picking, products, neural,
pictures, signals. What Keras does beyond the op of TensorFlow's that it calls is promotion
(:mod:`~modelio.lowering.arithmetic`).

Sources: keras/src/ops/*.py (3.15) for the classes and their arguments, keras/src/backend/tensorflow/*.py for what they
compute.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.layers.keras3 import OPERATIONS
from modelio.lowering.rules import Output, Rule, Site, rule

__all__ = [
    "FAULTS",
    "NOT_LOWERED",
    "AnyFunction",
    "Function",
    "axes_in",
    "axis_in",
    "operation",
    "ranked",
    "sizes_known",
]

Function = Callable[..., Output]
AnyFunction = TypeVar("AnyFunction", bound=Function)

FAULTS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, StopIteration)
"""What Python raises where the arguments in a file are not what a function takes."""


def operation(*class_names: str) -> Callable[[AnyFunction], AnyFunction]:
    """Register a function as the rule of these operations; the function itself stays as it is."""

    def register(function: AnyFunction) -> AnyFunction:
        rule(*(OPERATIONS + name for name in class_names))(as_rule(function))
        return function

    return register


def as_rule(function: Function) -> Rule:
    """A function of values as a rule: what its call leaves out is looked up in the layer's config."""
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("g")
    wants_layer = parameters.pop("layer", None) is not None
    by_name = [name for name, parameter in parameters.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    by_place = [name for name in parameters if name not in by_name]

    def free_after(count: int) -> list[str]:
        return by_place[count:] + by_name

    @functools.wraps(function)
    def apply(g: Builder, layer: Site, *args: Any, **kwargs: Any) -> Output:
        given = {name: layer.config[name] for name in free_after(len(args)) if name in layer.config}
        try:
            return function(g, *((layer,) if wants_layer else ()), *args, **{**given, **kwargs})
        except FAULTS as error:
            raise ConversionError(f"the arguments of {layer.layer.source_class} do not fit it: {error}") from error

    own = inspect.Parameter("layer", inspect.Parameter.POSITIONAL_ONLY)
    apply.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what the walk looks at
        [inspect.Parameter("g", inspect.Parameter.POSITIONAL_ONLY), own, *parameters.values()]
    )
    return apply


def ranked(x: Value) -> int:
    """How many dimensions a value has."""
    if x.rank is None:
        raise ConversionError("the operation needs to know how many dimensions its input has")
    return x.rank


def sizes_known(x: Value) -> tuple[int | None, ...]:
    """The static shape of a value."""
    if x.shape is None:
        raise ConversionError("the operation needs to know how many dimensions its input has")
    return x.shape


def axis_in(axis: Any, rank: int) -> int:
    """An axis, counted from the front."""
    if not isinstance(axis, int) or isinstance(axis, bool) or not -rank <= axis < rank:
        raise ConversionError(f"the axis is {axis!r}; there are {rank} dimensions")
    return axis % rank


def axes_in(axis: Any, rank: int) -> list[int]:
    """One axis, several, or all of them (None), counted from the front."""
    if axis is None:
        return list(range(rank))
    return [axis_in(one, rank) for one in (axis if isinstance(axis, (list, tuple)) else (axis,))]


NOT_LOWERED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("Map", "Scan", "AssociativeScan", "Switch", "WhileLoop", "ForiLoop", "Cond", "VectorizedMap", "JVP"),
            *("SegmentReduction",),
        ),
        "its argument is a Python function, which a file does not hold",
    ),
    **dict.fromkeys(
        ("Nanmedian", "Nanquantile", "Nanpercentile"), "every row has another number of elements that count"
    ),
    "Argpartition": "what is in which place of a part is an accident of how it is computed",
    **dict.fromkeys(
        ("ViewAsComplex", "ConvTranspose", "Histogram"), "Keras 3.15 itself fails to compute it on TensorFlow"
    ),
    "Ndim": "its result is a number of Python's, and Keras 3.15 gives it the shape of its input",
    "Eig": "the eigenvalues come in an order, and the vectors with signs, that differ from one TensorFlow to the next",
    "ISTFT": "overlapping windows are added up, for which there is no op",
    "Fold": "overlapping windows are added up, for which there is no op",
    **dict.fromkeys(("CTCLoss", "CTCDecode"), "a loss, or what is built on one: nothing that a model answers with"),
    **dict.fromkeys(
        (
            "ScaleAndTranslate",
            "SSIM",
            "AffineTransform",
            "PerspectiveTransform",
            "MapCoordinates",
            "ElasticTransform",
            "GaussianBlur",
        ),
        "compares pictures, or changes them at random, in training",
    ),
}
"""Classes of ``keras.ops`` without a rule, and why."""
