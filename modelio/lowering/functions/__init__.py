"""Functions of TensorFlow on the outputs of layers: ``tf.reduce_mean(x, axis=1)``, ``x + 1``, ``x[:, 0]`` in tf.keras.

tf.keras 2.4 and later writes such a call as a layer, TFOpLambda or SlicingOpLambda, with the function's public name and
the call's arguments; 2.0 to 2.3 as a TensorFlowOpLayer that holds the node itself. A rule is registered under ``tf.``
and that name, so that users add theirs alike: ``@rule("tf.math.bessel_j0")``.

Unlike ``keras.ops`` these functions promote nothing: a number takes the tensor's dtype. Source: the signatures and
bodies of tensorflow/python/ops/*.py, 2.4 to 2.21.
"""

from __future__ import annotations

import base64
import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.graph.operations import op
from modelio.lowering import activation
from modelio.lowering.arithmetic import Operand, as_value, is_floating, where
from modelio.lowering.operations import FAULTS, AnyFunction, Function, axis_in, elementwise, neural, ranked, reductions
from modelio.lowering.rules import Output, Site, rule

__all__ = ["Function", "alike", "function", "listed"]

_MEANINGLESS = frozenset({"name", "validate_indices", "use_cudnn_on_gpu", "bad_indices_policy", "conjugate"})
"""Arguments that change nothing of what is computed."""


def function(*names: str) -> Callable[[AnyFunction], AnyFunction]:
    """Register a function of values as the rule for functions of TensorFlow, by their public names."""

    def register(compute: AnyFunction) -> AnyFunction:
        rule(*(f"tf.{prefix}{name}" for name in names for prefix in ("", "compat.v1.")))(_as_rule(compute))
        return compute

    return register


def _as_rule(compute: Function) -> Callable[..., Output]:
    wants_layer = "layer" in inspect.signature(compute).parameters

    @functools.wraps(compute)
    def apply(g: Builder, layer: Site, *args: Any, **kwargs: Any) -> Output:
        given = {name: value for name, value in kwargs.items() if name not in _MEANINGLESS}
        try:
            return compute(g, *((layer,) if wants_layer else ()), *args, **given)
        except FAULTS as error:
            source = f"tf.{layer.config.get('function')}"
            raise ConversionError(f"the arguments of {source} do not fit it: {error}") from error

    def bare(g: Builder, layer: Site, *args: Any, **kwargs: Any) -> Output:
        return apply(g, layer, *args, **kwargs)

    return bare


# -- elementwise: tables -----------------------------------------------------------------------------------------------

_UNARY = """
math.abs Abs                math.acos Acos              math.acosh Acosh            math.asin Asin
math.asinh Asinh            math.atan Atan              math.atanh Atanh            math.ceil Ceil
math.cos Cos                math.cosh Cosh              math.erf Erf                math.erfc Erfc
math.exp Exp                math.expm1 Expm1            math.floor Floor            math.is_finite IsFinite
math.is_inf IsInf           math.is_nan IsNan           math.log Log                math.log1p Log1p
math.logical_not LogicalNot math.negative Neg           math.reciprocal Reciprocal  math.rint Rint
math.round Round            math.rsqrt Rsqrt            math.sigmoid Sigmoid        math.sign Sign
math.sin Sin                math.sinh Sinh              math.softplus Softplus      math.sqrt Sqrt
math.square Square          math.tan Tan                math.tanh Tanh              math.lgamma Lgamma
math.digamma Digamma        nn.relu Relu                nn.relu6 Relu6              nn.sigmoid Sigmoid
nn.softplus Softplus        nn.softsign Softsign        nn.tanh Tanh                nn.elu Elu
identity Identity           stop_gradient StopGradient  bitwise.invert Invert       linalg.inv MatrixInverse
linalg.det MatrixDeterminant linalg.cholesky Cholesky   linalg.diag_part MatrixDiagPart linalg.diag MatrixDiag
math.erfinv Erfinv          grad_pass_through Identity  linalg.tensor_diag Diag     linalg.tensor_diag_part DiagPart
"""

_BINARY = """
math.add Add                math.subtract Sub           math.multiply Mul           math.maximum Maximum
math.minimum Minimum        math.pow Pow                math.floordiv FloorDiv      math.floormod FloorMod
math.mod FloorMod           floor_div FloorDiv          math.squared_difference SquaredDifference
math.equal Equal            math.not_equal NotEqual     math.greater Greater        math.greater_equal GreaterEqual
math.less Less              math.less_equal LessEqual   math.logical_and LogicalAnd math.logical_or LogicalOr
math.atan2 Atan2            __operators__.add Add       __operators__.eq Equal      __operators__.ne NotEqual
bitwise.bitwise_and BitwiseAnd bitwise.bitwise_or BitwiseOr bitwise.bitwise_xor BitwiseXor
bitwise.left_shift LeftShift bitwise.right_shift RightShift math.logical_xor NotEqual
"""


def _pairs(table: str) -> list[tuple[str, str]]:
    words = table.split()
    return list(zip(words[::2], words[1::2], strict=True))


def alike(g: Builder, *operands: Operand) -> list[Value]:
    """Numbers in the dtype of the tensors beside them."""
    tensors = [operand for operand in operands if isinstance(operand, (Value, np.ndarray))]
    dtype = as_value(g, tensors[0]).dtype if tensors else None
    return [as_value(g, x, None if isinstance(x, (Value, np.ndarray)) else dtype) for x in operands]


def _one(name: str) -> Function:
    def compute(g: Builder, *args: Operand, **given: Operand) -> Value:
        (x,) = (*args, *given.values())  # its parameter is called x, features, input, tensor ...
        made: Value = g.node(name, as_value(g, x))
        return made

    return compute


def _two(name: str) -> Function:
    def compute(g: Builder, *args: Operand, **given: Operand) -> Value:
        operands = [*args, *given.values()]
        if len(operands) != 2:
            raise ValueError("the second operand is missing: tf.keras forgets what == compares with")
        made: Value = g.node(name, *alike(g, *operands))
        return made

    return compute


for _name, _op in _pairs(_UNARY):
    function(_name)(_one(_op))
for _name, _op in _pairs(_BINARY):
    function(_name)(_two(_op))

function("math.divide_no_nan")(elementwise.divide_no_nan)


@function("math.truediv", "math.divide", "divide", "realdiv")
def truediv(g: Builder, x: Operand, y: Operand) -> Value:
    """Whole numbers become floating-point ones first (math_ops.py, ``_TRUEDIV_TABLE``)."""
    x, y = alike(g, x, y)
    if not is_floating(x.dtype):
        wide = "float32" if x.dtype in ("int8", "uint8", "int16", "uint16") else "float64"
        x, y = g.cast(x, wide), g.cast(y, wide)
    made: Value = g.RealDiv(x, y)
    return made


@function("cast")
def cast(g: Builder, x: Operand, dtype: str) -> Value:
    return as_value(g, x, dtype)


@function("clip_by_value")
def clip_by_value(g: Builder, t: Operand, clip_value_min: Operand, clip_value_max: Operand) -> Value:
    return elementwise.clipped(g, t, clip_value_min, clip_value_max)


@function("where")
def where_of(g: Builder, condition: Operand, x: Operand = None, y: Operand = None) -> Value:
    if x is None or y is None:
        raise ValueError("where without both of its branches")
    return where(g, as_value(g, condition, "bool"), *alike(g, x, y))


# -- activations -------------------------------------------------------------------------------------------------------


def _activation(name: str) -> Function:
    def compute(g: Builder, layer: Site, *args: Operand, **given: Operand) -> Value:
        (x,) = (*args, *given.values())
        return activation.apply(g, layer, name, as_value(g, x))

    return compute


for _name in ("selu", "silu", "swish"):
    function(f"nn.{_name}")(_activation(_name))
function("math.log_sigmoid")(lambda g, x: g.Neg(g.Softplus(g.Neg(as_value(g, x)))))


@function("nn.gelu")
def gelu(g: Builder, layer: Site, features: Operand, approximate: bool = False) -> Value:
    return neural.gelu(g, layer, features, approximate)


@function("nn.leaky_relu")
def leaky_relu(g: Builder, features: Operand, alpha: float = 0.2) -> Value:
    return activation.leaky_relu(g, as_value(g, features), alpha)


@function("nn.softmax", "keras.activations.softmax")
def softmax(g: Builder, layer: Site, logits: Operand, axis: Any = -1, dim: Any = None) -> Value:
    return activation.softmax(g, layer, as_value(g, logits), axis if dim is None else dim)


@function("nn.log_softmax")
def log_softmax(g: Builder, layer: Site, logits: Operand, axis: Any = -1, dim: Any = None) -> Value:
    return activation.softmax(g, layer, as_value(g, logits), axis if dim is None else dim, "LogSoftmax")


# -- reductions --------------------------------------------------------------------------------------------------------


def _reduction(name: str) -> Function:
    def compute(
        g: Builder,
        input_tensor: Operand,
        axis: Any = None,
        keepdims: Any = None,
        keep_dims: Any = None,
        reduction_indices: Any = None,
    ) -> Value:
        along = reduction_indices if axis is None else axis
        return reductions.reduced(g, name, as_value(g, input_tensor), listed(along), bool(keepdims or keep_dims))

    return compute


def listed(axis: Any) -> Any:
    """Axes may come as an array."""
    if isinstance(axis, Value):
        raise ValueError("an axis that is computed")
    return axis.tolist() if isinstance(axis, np.ndarray) else axis


for _name, _op in _pairs("sum Sum mean Mean max Max min Min prod Prod any Any all All"):
    function(f"math.reduce_{_name}", f"reduce_{_name}")(_reduction(_op))


@function("math.reduce_logsumexp", "reduce_logsumexp")
def reduce_logsumexp(g: Builder, input_tensor: Operand, axis: Any = None, keepdims: Any = False) -> Value:
    return reductions.logsumexp(g, input_tensor, listed(axis), bool(keepdims))


@function("math.reduce_variance")
def reduce_variance(g: Builder, input_tensor: Operand, axis: Any = None, keepdims: Any = False) -> Value:
    return reductions.spread_of(g, as_value(g, input_tensor), listed(axis), bool(keepdims))


@function("math.reduce_std")
def reduce_std(g: Builder, input_tensor: Operand, axis: Any = None, keepdims: Any = False) -> Value:
    made: Value = g.Sqrt(reduce_variance(g, input_tensor, axis, keepdims))
    return made


@function("math.reduce_euclidean_norm")
def euclidean_norm(g: Builder, input_tensor: Operand, axis: Any = None, keepdims: Any = False) -> Value:
    square = g.Square(as_value(g, input_tensor))
    made: Value = g.Sqrt(reductions.reduced(g, "Sum", square, listed(axis), bool(keepdims)))
    return made


@function("norm", "linalg.norm")
def norm(g: Builder, tensor: Operand, ord: Any = "euclidean", axis: Any = None, keepdims: Any = None) -> Value:
    """Without an axis that of all elements as one vector (linalg_ops.py, ``norm_v2``)."""
    x = as_value(g, tensor)
    if ord in ("euclidean", 2) and (ord != 2 or not isinstance(axis, (list, tuple))):
        return euclidean_norm(g, x, axis, keepdims)
    if axis is None:
        x, axis = g.Reshape(x, [-1]), 0
    return reductions.norm(g, x, ord, axis, bool(keepdims))


@function("math.l2_normalize", "nn.l2_normalize")
def l2_normalize(g: Builder, x: Operand, axis: Any = None, epsilon: float = 1e-12, dim: Any = None) -> Value:
    """No squared length counts for less than epsilon (nn_impl.py)."""
    x = as_value(g, x)
    square = reductions.reduced(g, "Sum", g.Square(x), listed(axis if dim is None else dim), True)
    made: Value = g.Mul(x, g.Rsqrt(g.Maximum(square, epsilon)))
    return made


def _argument(name: str) -> Function:
    def compute(
        g: Builder, input: Operand, axis: Any = None, output_type: str = "int64", dimension: Any = None
    ) -> Value:
        x = as_value(g, input)
        along = dimension if axis is None else axis
        return g.cast(g.node(name, x, axis_in(0 if along is None else along, ranked(x))), output_type)

    return compute


for _name, _op in _pairs("argmax ArgMax argmin ArgMin"):
    function(f"math.{_name}", _name)(_argument(_op))


def _running(name: str) -> Function:
    def compute(g: Builder, x: Operand, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Value:
        x = as_value(g, x)
        made: Value = g.node(name, x, axis_in(axis, ranked(x)), exclusive=bool(exclusive), reverse=bool(reverse))
        return made

    return compute


for _name, _op in _pairs("cumsum Cumsum cumprod Cumprod"):
    function(f"math.{_name}", _name)(_running(_op))


@function("math.top_k", "nn.top_k")
def top_k(g: Builder, input: Operand, k: int = 1, sorted: bool = True) -> tuple[Value, Value]:
    return reductions.top_k(g, input, k, sorted)


def _ordering(compute_up: Any) -> Function:
    def compute(
        g: Builder, values: Operand, axis: int = -1, direction: str = "ASCENDING", stable: bool = False
    ) -> Value:
        x = as_value(g, values)
        if direction == "ASCENDING":
            made: Value = compute_up(g, x, axis)
            return made
        y, order = reductions.at_the_end(g, x, axis_in(axis, ranked(x)))
        y = reductions.descending(g, y)[0 if compute_up is reductions.sort else 1]
        return y if order == list(range(len(order))) else g.Transpose(y, order)

    return compute


function("sort")(_ordering(reductions.sort))
function("argsort")(_ordering(reductions.argsort))


@function("math.count_nonzero")
def count_nonzero(g: Builder, input: Operand, axis: Any = None, keepdims: Any = None, dtype: str = "int64") -> Value:
    counted = g.cast(as_value(g, input, "bool"), dtype)
    return reductions.reduced(g, "Sum", counted, listed(axis), bool(keepdims))


# -- nodes -------------------------------------------------------------------------------------------------------------


@rule("TensorFlowOpLayer")
def node_of(g: Builder, layer: Site, *args: Any) -> Output:
    """One node as TensorFlow 2.0 to 2.3 keeps it: its NodeDef as JSON, and its constant inputs by their places.

    Source: TensorFlow 2.2 ``python/keras/engine/base_layer.py``, ``TensorFlowOpLayer``.
    """
    try:
        node = json.loads(layer.config["node_def"])
        operation = op(str(node["op"]))
        if operation is None or operation.stateful or operation.name in _OUTSIDE:
            raise ValueError(f"TensorFlow has no op {node['op']!r} that computes a value of others")
        given = node.get("attr") or {}
        attrs = {name: _attribute(given[name]) for name in operation.attrs if name in given}
        operands = list(args[0]) if len(args) == 1 and isinstance(args[0], (list, tuple)) else list(args)
        constants = layer.config.get("constants") or {}
        for place in sorted(constants, key=int):
            operands.insert(int(place), constants[place])
        inputs: list[Any] = []
        for argument in operation.inputs:
            count = attrs[argument.number_attr] if argument.number_attr else None
            if argument.type_list_attr:
                count = len(attrs[argument.type_list_attr])
            inputs.append(operands[:count] if count is not None else operands[0])
            operands = operands[1 if count is None else count :]
        made: Output = g.node(operation.name, *inputs, **attrs)
    except FAULTS as error:
        raise ConversionError(f"the node of a TensorFlowOpLayer cannot be made: {error}") from error
    return made


_OUTSIDE = frozenset({"ReadFile", "WriteFile", "MatchingFiles"})
"""Ops that reach out of the graph, though TensorFlow counts some as stateless."""

_DTYPES = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16"}

_KINDS: Mapping[str, Callable[[Any], Any]] = {
    "i": int,
    "f": float,
    "b": bool,
    "s": lambda text: base64.b64decode(text).decode(),
    "type": lambda name: _DTYPES.get(name, name.removeprefix("DT_").lower()),
    "shape": lambda shape: tuple(int(one.get("size", 0)) for one in shape.get("dim", ())),
    "list": lambda lists: [_KINDS[kind](item) for kind, items in lists.items() for item in items],
}
"""Kind of an attribute -> from protobuf's JSON to the builder's value."""


def _attribute(value: Mapping[str, Any]) -> Any:
    ((kind, content),) = value.items()
    return _KINDS[kind](content)
