"""Operations on the outputs of layers, such as ``x + 1`` or ``tf.transpose(x)``: calls of TensorFlow's functions in
Keras 2, classes of ``keras.ops`` in Keras 3.

::

    Keras 2    {"class_name": "TFOpLambda", "config": {"function": "math.reduce_mean", ...}}
               called on ["x", 0, 0, {"axis": -1}]
    Keras 3    {"module": "keras.src.ops.numpy", "class_name": "Mean", "config": {"axis": -1}, ...}
               called on x

Sources: tf_keras 2.21 ``src/layers/core/tf_op_layer.py``, Keras 3.15 ``src/ops/{numpy,nn,math,core}.py``, and the
signatures of TensorFlow's functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from modelio.layers.catalogue import Shape
from modelio.layers.dialects.objects import Target
from modelio.layers.dialects.promotion import dtype_of, is_alike, is_floating
from modelio.layers.keras2 import FUNCTION_LAYERS
from modelio.layers.keras3 import OPERATIONS
from modelio.layers.nodes import flatten
from modelio.layers.normal_form import Call, Layer, Network, Ref

__all__ = ["is_operation", "module_of", "translated"]

_TABLE = """
numpy.Add           x1 x2                   | __operators__.add,math.add                x y
numpy.Subtract      x1 x2                   | math.subtract                             x y
numpy.Multiply      x1 x2                   | math.multiply                             x y
numpy.TrueDivide    x1 x2                   | math.truediv,math.divide                  x y
numpy.Divide        x1 x2                   | math.truediv                              x y
numpy.FloorDivide   x1 x2                   | math.floordiv,compat.v1.floor_div         x y
numpy.Mod           x1 x2                   | math.floormod                             x y
numpy.Power         x1 x2                   | math.pow                                  x y
numpy.Maximum       x1 x2                   | math.maximum                              x y
numpy.Minimum       x1 x2                   | math.minimum                              x y
numpy.Matmul        x1 x2                   | linalg.matmul                             a b
numpy.Equal         x1 x2                   | math.equal                                x y
numpy.NotEqual      x1 x2                   | math.not_equal                            x y
numpy.Greater       x1 x2                   | math.greater                              x y
numpy.GreaterEqual  x1 x2                   | math.greater_equal                        x y
numpy.Less          x1 x2                   | math.less                                 x y
numpy.LessEqual     x1 x2                   | math.less_equal                           x y
numpy.LogicalAnd    x1 x2                   | math.logical_and                          x y
numpy.LogicalOr     x1 x2                   | math.logical_or                           x y
numpy.LogicalNot    x                       | math.logical_not                          x
numpy.Where         condition x1 x2         | where                                     condition x y
numpy.Abs           x                       | math.abs                                  x
numpy.Absolute      x                       | math.abs                                  x
numpy.Negative      x                       | math.negative                             x
numpy.Exp           x                       | math.exp                                  x
numpy.Expm1         x                       | math.expm1                                x
numpy.Log           x                       | math.log                                  x
numpy.Log1p         x                       | math.log1p                                x
numpy.Sqrt          x                       | math.sqrt                                 x
numpy.Square        x                       | math.square                               x
numpy.Reciprocal    x                       | math.reciprocal                           x
numpy.Sin           x                       | math.sin                                  x
numpy.Cos           x                       | math.cos                                  x
numpy.Tanh          x                       | math.tanh                                 x
numpy.Sign          x                       | math.sign                                 x
numpy.Floor         x                       | math.floor                                x
numpy.Ceil          x                       | math.ceil                                 x
numpy.ZerosLike     x                       | zeros_like                                input
numpy.OnesLike      x                       | ones_like                                 input
numpy.Copy          x                       | identity                                  input
math.Rsqrt          x                       | math.rsqrt                                x
math.Erf            x                       | math.erf                                  x
numpy.Mean          x axis= keepdims=       | math.reduce_mean                          input_tensor axis= keepdims=
numpy.Sum           x axis= keepdims=       | math.reduce_sum                           input_tensor axis= keepdims=
numpy.Max           x axis= keepdims=       | math.reduce_max                           input_tensor axis= keepdims=
numpy.Min           x axis= keepdims=       | math.reduce_min                           input_tensor axis= keepdims=
numpy.Prod          x axis= keepdims=       | math.reduce_prod                          input_tensor axis= keepdims=
numpy.Any           x axis= keepdims=       | math.reduce_any                           input_tensor axis= keepdims=
numpy.All           x axis= keepdims=       | math.reduce_all                           input_tensor axis= keepdims=
numpy.Var           x axis= keepdims=       | math.reduce_variance                      input_tensor axis= keepdims=
numpy.Std           x axis= keepdims=       | math.reduce_std                           input_tensor axis= keepdims=
math.Logsumexp      x axis= keepdims=       | math.reduce_logsumexp                     input_tensor axis= keepdims=
numpy.Cumsum        x axis=                 | math.cumsum                               x axis=
numpy.Reshape       x newshape=             | reshape                                   tensor shape=
numpy.Transpose     x axes=                 | compat.v1.transpose,transpose             a perm=
numpy.ExpandDims    x axis=                 | expand_dims                               input axis=
numpy.Squeeze       x axis=                 | compat.v1.squeeze,squeeze                 input axis=
numpy.Concatenate   xs axis=                | concat                                    values axis=
numpy.Stack         x axis=                 | stack                                     values axis=
numpy.Tile          x repeats=              | tile                                      input multiples=
numpy.Repeat        x repeats= axis=        | repeat                                    input repeats= axis=
numpy.Flip          x axis=                 | reverse                                   tensor axis=
numpy.Take          x indices axis=         | compat.v1.gather,gather                   params indices axis=
numpy.Clip          x x_min= x_max=         | clip_by_value                            t clip_value_min= clip_value_max=
core.Cast           x dtype=                | cast                                      x dtype=
core.StopGradient   variable                | stop_gradient                             input
nn.Relu             x                       | nn.relu                                   features
nn.Relu6            x                       | nn.relu6                                  features
nn.Sigmoid          x                       | math.sigmoid,nn.sigmoid                   x
nn.Softplus         x                       | math.softplus,nn.softplus                 features
nn.Softsign         x                       | nn.softsign                               features
nn.Selu             x                       | nn.selu                                   features
nn.Elu              x alpha=                | nn.elu                                    features alpha=
nn.Silu             x                       | nn.silu,nn.swish                          features
nn.Gelu             x approximate=          | nn.gelu                                   features approximate=
nn.LeakyRelu        x negative_slope=       | nn.leaky_relu                             features alpha=
nn.Softmax          x axis=                 | nn.softmax                                logits axis=
nn.LogSoftmax       x axis=                 | nn.log_softmax                            logits axis=
nn.Normalize        x axis=                 | math.l2_normalize                         x axis=
nn.OneHot           x num_classes= axis=    | one_hot                                   indices depth= axis=
"""
"""Class of Keras 3 and its arguments, functions of TensorFlow and their arguments, one for one.

Arguments with ``=`` belong to the layer in Keras 3; the others are what it is called on. The first function is written.
"""

_DEFAULTS: Mapping[tuple[str, str], Any] = {
    ("nn.Gelu", "approximate"): False,
    ("nn.Softmax", "axis"): -1,
    ("nn.LogSoftmax", "axis"): -1,
    ("numpy.Cumsum", "axis"): 0,
    ("numpy.Concatenate", "axis"): 0,
    ("numpy.Stack", "axis"): 0,
    ("numpy.Take", "axis"): 0,
}
"""What TensorFlow takes where an argument is left out, and Keras 3 something else."""

_IGNORED = frozenset({"name", "module", "order", "epsilon"})


@dataclass(frozen=True)
class _Row:
    name: str
    words: tuple[str, ...]
    functions: tuple[str, ...]
    parameters: tuple[str, ...]

    def pairs(self) -> list[tuple[str, str, bool]]:
        """Argument of Keras 3, argument of TensorFlow, does it belong to the layer?"""
        return [
            (word.rstrip("="), parameter.rstrip("="), word.endswith("="))
            for word, parameter in zip(self.words, self.parameters, strict=True)
        ]


@cache
def _rows() -> tuple[_Row, ...]:
    rows = []
    for line in _TABLE.strip().splitlines():
        left, right = (half.split() for half in line.split("|"))
        rows.append(_Row(left[0], tuple(left[1:]), tuple(right[0].split(",")), tuple(right[1:])))
    return tuple(rows)


def is_operation(layer: Layer) -> bool:
    """Is this a layer that stands for an operation?"""
    return layer.class_name in FUNCTION_LAYERS or layer.class_name.startswith(OPERATIONS)


def module_of(class_name: str) -> str | None:
    """The module of an operation of the table: ``"ops.Mean"`` -> ``"keras.src.ops.numpy"``."""
    own = class_name.removeprefix(OPERATIONS)
    if own == "GetItem":
        return "keras.src.ops.numpy"
    return next(
        (f"keras.src.ops.{row.name.partition('.')[0]}" for row in _rows() if row.name.endswith(f".{own}")), None
    )


def translated(call: Call, target: Target, network: Network, shape: Shape | None = None) -> Call | None:
    """The call of an operation, with its layer, as the target has it; None: there is nothing like it.

    Args:
        call: as the network has it, but for its layer, which may be another already.
        target: what is written for.
        network: what the call is in.
        shape: of its first operand, where that is known.
    """
    if target.dialect == "keras3":
        return _as_class(call)
    return _as_function(call, network, shape) if target.version >= (2, 4) else None


def _made(layer: Layer, class_name: str, config: dict[str, Any]) -> Layer:
    return replace(
        layer, class_name=class_name, source_class=class_name, config={"name": layer.name, **config}, source={}
    )


def _as_class(call: Call) -> Call | None:
    function = call.layer.config.get("function")
    given = dict(call.kwargs)
    if function == "__operators__.getitem":
        key = _slices(given.get("slice_spec"))
        return Call(_made(call.layer, f"{OPERATIONS}GetItem", {}), (*call.inputs, key))
    row = next((row for row in _rows() if function in row.functions), None)
    if row is None or len(call.inputs) > len(row.parameters):
        return None
    given.update(zip((parameter.rstrip("=") for parameter in row.parameters), call.inputs, strict=False))
    inputs: list[Any] = []
    config: dict[str, Any] = {}
    for word, parameter, of_layer in row.pairs():
        if parameter in given:
            value = given.pop(parameter)
        elif (row.name, word) in _DEFAULTS:
            value = _DEFAULTS[row.name, word]
        elif of_layer:
            continue
        else:
            return None
        if not of_layer:
            inputs.append(value)
        elif _has_tensors(value):
            return None
        else:
            config[word] = value
    if any(value and name not in _IGNORED for name, value in given.items()):
        return None
    return Call(_made(call.layer, OPERATIONS + row.name.partition(".")[2], config), tuple(inputs))


def _as_function(call: Call, network: Network, shape: Shape | None) -> Call | None:
    own = call.layer.class_name.removeprefix(OPERATIONS)
    given = {**call.layer.config, **call.kwargs}
    if own == "GetItem" and len(call.inputs) == 2:
        made = _made(call.layer, "SlicingOpLambda", _settings("__operators__.getitem"))
        return Call(made, call.inputs[:1], {"slice_spec": _spelled(call.inputs[1])})
    row = next((row for row in _rows() if row.name.endswith(f".{own}")), None)
    if row is None:
        return None
    of_call = [word for word in row.words if not word.endswith("=")]
    given.update(zip(of_call, call.inputs, strict=False))
    if not is_alike(own, given, network, shape):
        return None
    operands = [word for word in of_call if word in ("x1", "x2")]
    if any(isinstance(given.get(word), Ref) and is_floating(dtype_of(given[word], network)) for word in operands):
        # TensorFlow makes an int32 of a first operand 1, which then does not go with the other; Keras promotes it
        given.update({word: float(given[word]) for word in operands if type(given.get(word)) is int})
    if own == "OneHot" and given.get("dtype") == "float32":
        del given["dtype"]
    if own == "Elu":
        given.pop("alpha", None)
    values = {parameter: given.pop(word) for word, parameter, _ in row.pairs() if word in given}
    if any(value and name not in _IGNORED for name, value in given.items()):
        return None
    first, *others = (parameter.rstrip("=") for parameter in row.parameters)
    if first not in values:
        return None
    kwargs = {name: values[name] for name in others if name in values and values[name] is not None}
    return Call(_made(call.layer, "TFOpLambda", _settings(row.functions[0])), (values[first],), kwargs)


def _settings(function: str) -> dict[str, Any]:
    return {"trainable": True, "dtype": "float32", "function": function}


def _has_tensors(value: Any) -> bool:
    return any(isinstance(leaf, Ref) for leaf in flatten(value))


def _slices(value: Any) -> Any:
    """``{"start": 1, "stop": null, "step": null}`` -> ``slice(1, None)``."""
    if isinstance(value, Mapping) and set(value) == {"start", "stop", "step"}:
        return slice(value["start"], value["stop"], value["step"])
    return [_slices(item) for item in value] if isinstance(value, (list, tuple)) else value


def _spelled(value: Any) -> Any:
    """The other way round."""
    if isinstance(value, slice):
        return {end: getattr(value, end) for end in ("start", "stop", "step")}
    if value is ...:
        return {"class_name": "__ellipsis__"}
    return [_spelled(item) for item in value] if isinstance(value, (list, tuple)) else value
