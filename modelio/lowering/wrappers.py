"""Layers that apply another layer: to every step, and in both directions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.arguments import rank_of, wrapped
from modelio.lowering.recurrent import sequence_of
from modelio.lowering.rules import Mask, Masked, Output, Site, masks, rule

__all__: list[str] = []


# -- every step --------------------------------------------------------------------------------------------------------


@rule("TimeDistributed")
def time_distributed(g: Builder, layer: Site, x: Any, mask: Mask = None) -> Masked:
    """The wrapped layer or model on every step: time is folded into the batch, and unfolded again.

    Keras 2 folds alike where the batch size is open and runs a loop where it is not, Keras 3 maps over the steps; the
    layer sees the same steps either way (tf_keras and keras/src/layers/rnn/time_distributed.py).
    """
    many = isinstance(x, (list, tuple))
    inputs: list[Value] = list(x) if many else [x]
    for value in inputs:
        rank_of(layer, value, least=2)
    folded = [_folded(g, value) for value in inputs]
    heeded = None if _ignores_masks(layer) else _each(mask, lambda one: _folded(g, one))
    made = layer.lower_masked(wrapped(layer), folded if many else folded[0], heeded)
    y = made.output
    if not isinstance(y, Value):
        raise ConversionError("TimeDistributed wraps a model with several outputs, which no Keras can compute")
    rank_of(layer, y, least=1)
    steps = g.sizes(inputs[0])[:2]
    return Masked(g.reshape(y, [*steps, *g.sizes(y)[1:]]), _steps_that_count(g, layer, inputs[0], mask, made.mask))


def _steps_that_count(g: Builder, layer: Site, x: Value, mask: Mask, inner: Mask) -> Mask:
    """The mask of the input in Keras 3, before Keras 2.2, and where the batch size is fixed; otherwise the inner one.

    Where the layer inside has none, it is that of the input, of which each step counts that counts in part
    (tf_keras/src/layers/rnn/time_distributed.py, ``compute_mask``).
    """
    is_fixed = layer.layer.family == "keras" and x.shape is not None and x.shape[0] is not None
    if layer.dialect == "keras3" or _ignores_masks(layer) or is_fixed:
        return mask
    if isinstance(inner, Value):
        rank_of(layer, inner, least=1)
        return g.reshape(inner, [*g.sizes(x)[:2], *g.sizes(inner)[1:]])
    if not isinstance(mask, Value) or mask.rank is None or mask.rank <= 2:
        return mask
    return g.Any(mask, list(range(2, mask.rank)))


def _ignores_masks(layer: Site) -> bool:
    """The layer inside got no mask before Keras 2.2 (Keras 2.1.6 ``layers/wrappers.py``, ``TimeDistributed.call``)."""
    return layer.dialect == "keras1" or (2,) < layer.version < (2, 2)


def _folded(g: Builder, value: Value) -> Value:
    return g.Reshape(value, g.vector([-1, *g.sizes(value)[2:]]))


def _each(mask: Mask, change: Any) -> Mask:
    if isinstance(mask, (list, tuple)):
        return [_each(one, change) for one in mask]
    return None if mask is None else change(mask)


# -- both directions ---------------------------------------------------------------------------------------------------


@rule("Bidirectional")
def bidirectional(
    g: Builder, layer: Site, inputs: Any, initial_state: Any = None, mask: Mask = None, constants: Any = None
) -> Output:
    """Two layers, one from each end, and their outputs as one (keras/src/layers/rnn/bidirectional.py, ``call``).

    The states are those of the first layer, then those of the second.
    """
    x, states, constants = sequence_of(layer, inputs, initial_state, constants)
    half = len(states) // 2
    forward = _direction(layer, "layer", x, states[:half], constants, mask)
    backward = _direction(layer, "backward_layer", x, states[half:], constants, mask)
    (y, *ahead), (y_back, *behind) = forward, backward
    inner = _config_of(layer, "layer")
    if inner.get("return_sequences"):
        y_back = g.ReverseV2(y_back, [0 if inner.get("time_major") else 1])
    merged = _merged(g, layer, y, y_back)
    outputs = (*merged, *ahead, *behind)
    return outputs if len(outputs) > 1 else outputs[0]


@masks("Bidirectional")
def bidirectional_mask(g: Builder, layer: Site, inputs: Any, mask: Mask) -> Mask:
    """That of the sequence for each output that is a sequence (``Bidirectional.compute_mask``)."""
    while isinstance(mask, (list, tuple)):
        mask = mask[0] if mask else None
    inner = _config_of(layer, "layer")
    if not inner.get("return_sequences"):
        return None
    if layer.config.get("merge_mode") is None:
        return mask, mask
    return (mask,) if inner.get("return_state") else mask


def _config_of(layer: Site, key: str) -> Any:
    inner = layer.layer.inner.get(key)
    return {} if inner is None else inner.config


def _direction(
    layer: Site, key: str, x: Value, states: list[Value], constants: list[Value], mask: Mask
) -> tuple[Value, ...]:
    """The outputs of one of the two layers."""
    inner = layer.layer.inner.get(key)
    if inner is None:
        raise ConversionError("Bidirectional holds no layer")
    if _zeroes(layer):
        every = bool(inner.config.get("return_sequences"))
        inner = replace(inner, config={**inner.config, "zero_output_for_mask": every})
    more = {"initial_state": states or None, "constants": constants or None}
    made = layer.lower(inner, x, mask, **more)
    return made if isinstance(made, tuple) else (made,)


def _zeroes(layer: Site) -> bool:
    """Since TensorFlow 1.13 masked steps of a sequence are zero here (``force_zero_output_for_mask``)."""
    return layer.dialect == "keras3" or (layer.layer.family == "tf.keras" and layer.version >= (2, 2, 4))


def _merged(g: Builder, layer: Site, y: Value, y_back: Value) -> tuple[Value, ...]:
    mode = layer.config.get("merge_mode")
    if mode is None:
        return y, y_back
    if mode == "concat":
        return (g.ConcatV2([y, y_back], rank_of(layer, y) - 1),)
    if mode == "mul":
        return (g.Mul(y, y_back),)
    if mode in ("sum", "ave"):
        total = g.Add(y, y_back)
        return (total if mode == "sum" else g.RealDiv(total, 2.0),)
    raise ConversionError(f"merge_mode is {mode!r}; 'sum', 'mul', 'ave', 'concat' and None are known")
