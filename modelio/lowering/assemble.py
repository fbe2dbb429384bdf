"""The walk over a network: every call of every layer becomes nodes, by its rule.

Inputs are placeholders named after the input layers, outputs are Identity nodes named after the output layers, and
everything between lies in scopes named after the layers, so that nobody has to search a graph for its ends.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from modelio.errors import ConversionError
from modelio.graph.analysis import Graph
from modelio.graph.builder import Builder, Value
from modelio.graph.surgery.pruning import only, reached
from modelio.graph.tables import MAIN_OP, main_op
from modelio.layers.binding import bind
from modelio.layers.catalogue import weights_of
from modelio.layers.layouts import THEANO_PADS, theano_pads_otherwise
from modelio.layers.network import Layer, Network, Ref, backend_of, network_of
from modelio.layers.notes import notes_of
from modelio.lowering.activation import unknown_activation
from modelio.lowering.masking import output_mask
from modelio.lowering.operations import FAULTS
from modelio.lowering.rules import Mask, Masked, Rule, Site, function_of, is_operation, rule_of
from modelio.model import GraphModel, LayerModel, Signature, TensorSpec

__all__ = ["METHOD", "lower"]

METHOD = "tensorflow/serving/predict"
"""The method name that TensorFlow Serving's predict API looks for (saved_model/signature_constants.py)."""

IGNORED = frozenset({"training"})
"""Arguments of a call that mean nothing in inference."""


def lower(model: LayerModel, rules: Mapping[str, Rule] | None = None) -> tuple[GraphModel, list[str]]:
    """The graph that computes what the layers mean in inference, and the changes that were made on the way.

    Args:
        model: the layers.
        rules: what takes the place of a rule, or of code such as a Lambda's, in this model alone: by a layer's name,
            its path (``"encoder/lambda"``) or its class.

    Raises:
        ConversionError: layers without a rule; ``.unsupported`` lists every one with its path.
    """
    if model.architecture is None:
        raise ConversionError(
            "the file holds weights only; a graph needs the architecture too: convert the whole model"
        )
    network = network_of(model.architecture, dialect=model.dialect, meta=model.meta)
    own = rules or {}
    _check_supported(network, own)
    if not any(model.weights.values()) and _wants_weights(network):
        raise ConversionError("the file holds an architecture only; a graph needs the weights too: give both together")
    bind(network, model)
    walk = _Walk(own)
    if backend_of(model.architecture, model.meta) == "theano":
        for layer in filter(theano_pads_otherwise, network.walk()):
            walk.note(f"{THEANO_PADS}: {layer.path}")
    return walk.whole(network, model), walk.changes


def _wants_weights(network: Network) -> bool:
    return any(weights_of(layer.class_name, layer.config) for layer in network.walk())


def _check_supported(network: Network, own: Mapping[str, Rule]) -> None:
    missing = [layer for layer in network.walk() if layer.network is None and not _is_supported(layer, own)]
    if missing:
        listed = [f"{layer.path} ({_described(layer)})" for layer in missing]
        raise ConversionError(
            f"no rule makes a graph of {len(listed)} layer{'s' if len(listed) > 1 else ''}: {', '.join(listed)}; "
            'the layer formats keep them; give a rule for each (rules=), or let Keras do it (engine="tensorflow")',
            unsupported=listed,
        )


def _is_supported(layer: Layer, own: Mapping[str, Rule]) -> bool:
    return _own_rule(layer, own) is not None or (rule_of(layer) is not None and unknown_activation(layer) is None)


def _own_rule(layer: Layer, own: Mapping[str, Rule]) -> Rule | None:
    """What the caller wants for this layer, the nearest name first."""
    return next((own[key] for key in (layer.path, layer.name, layer.source_class) if key in own), None)


def _described(layer: Layer) -> str:
    activation = unknown_activation(layer)
    source = function_of(layer) or layer.source_class
    return source if activation is None else f"{layer.source_class} with the activation {activation}"


class _Walk:
    """One lowering under way."""

    def __init__(self, own: Mapping[str, Rule]) -> None:
        self._own = own
        self.builder = Builder()
        self.changes: list[str] = []
        self._variables: dict[tuple[str, str], Value] = {}

    def whole(self, network: Network, model: LayerModel) -> GraphModel:
        """The graph of the outermost network, with its signature."""
        g = self.builder
        feeds = []
        for name, spec in zip(network.input_names, network.input_specs, strict=True):
            feeds.append(g.placeholder(name, spec.dtype, spec.shape))
        results = self.network(network, [(feed, None) for feed in feeds])
        inputs = {
            name: TensorSpec(value.name, value.dtype, value.shape)
            for name, value in zip(network.input_names, feeds, strict=True)
        }
        outputs = {}
        for name, (result, _) in zip(network.output_names, results, strict=True):
            value = g.output(name, result)
            outputs[name] = TensorSpec(value.name, value.dtype, value.shape)
        start = g.start()
        whole = GraphModel(
            graph=g.graph,
            variables=g.variables,
            constants=g.constants,
            signatures={"serving_default": Signature(inputs, outputs, METHOD)},
            tags=frozenset({"serve"}),
            extra={MAIN_OP: main_op(start)} if start else {},
            meta=dict(model.meta),
        )
        whole = _without_leftovers(whole, [*g.placeholders, *([start] if start else [])])
        return replace(whole, extra={**whole.extra, **notes_of(model, network, whole.variables)})

    def network(self, network: Network, feeds: list[tuple[Value, Mask]]) -> list[tuple[Value, Mask]]:
        """The outputs of a network on its inputs, each with its mask."""
        if len(feeds) != len(network.inputs):
            raise ConversionError(
                f"the network {network.name} has {len(network.inputs)} inputs and is called on {len(feeds)}"
            )
        done = {ref.call: Masked(*feed) for ref, feed in zip(network.inputs, feeds, strict=True)}
        for index, call in enumerate(network.calls):
            if index not in done and call.layer.class_name != "InputLayer":
                done[index] = self._called(
                    call.layer,
                    _resolve(call.inputs, done),
                    _masks_of(call.inputs, done),
                    {name: _resolve(value, done) for name, value in call.kwargs.items()},
                    {name: _masks_of(value, done) for name, value in call.kwargs.items()},
                )
        return [_pick(done, ref) for ref in network.outputs]

    def call(self, layer: Layer, inputs: Any, kwargs: Mapping[str, Any], mask: Mask = None) -> Masked:
        """The outputs of a layer inside another, which is told the mask of its inputs."""
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        return self._called(layer, inputs, (mask,), kwargs, {}, is_told=True)

    def note(self, change: str) -> None:
        """Add a sentence to the account of the conversion, once."""
        if change not in self.changes:
            self.changes.append(change)

    def _called(
        self,
        layer: Layer,
        inputs: tuple[Any, ...],
        masks: tuple[Mask, ...],
        kwargs: Mapping[str, Any],
        named_masks: Mapping[str, Mask],
        is_told: bool = False,
    ) -> Masked:
        """The outputs of one call of a layer, in a scope of its own; beside each argument stands its mask."""
        kwargs = {name: value for name, value in kwargs.items() if name not in IGNORED and value is not None}
        if is_operation(layer):
            masks, named_masks = (), {}
        first = self._as_mask(kwargs["mask"]) if "mask" in kwargs else _if_any(masks[0] if masks else None)
        with self.builder.scope(layer.name):
            if layer.network is not None:
                feeds = _flat(inputs[0], first) if len(inputs) == 1 else _flat(inputs, masks)
                results = self.network(layer.network, list(feeds))
                return Masked(*results[0]) if len(results) == 1 else Masked(*map(tuple, zip(*results, strict=True)))
            function = _own_rule(layer, self._own) or rule_of(layer)
            assert function is not None  # _check_supported has looked
            site = Site(layer, self, first)
            positional = tuple(self._as_computed(layer, value) for value in inputs)
            beside = {**_named(function, masks), **named_masks}
            heeded = first if is_told or _heeds_mask(layer, inputs, kwargs) else None
            arguments = _understood(function, layer, kwargs, beside, heeded)
            try:
                made = function(self.builder, site, *positional, **arguments)
                if isinstance(made, Masked):
                    return made
                return Masked(made, output_mask(self.builder, site, positional[0] if positional else None, first))
            except ConversionError as error:
                error.where = error.where or layer.path
                raise
            except FAULTS as error:
                raise ConversionError(
                    f"the arguments of {layer.source_class} do not fit it: {error}", where=layer.path
                ) from error

    def _as_mask(self, given: Any) -> Mask:
        """A mask that the call itself gives, which may be of any dtype."""
        return _if_any(
            _mapped(given, lambda leaf: self.builder.cast(leaf, "bool") if isinstance(leaf, Value) else None)
        )

    def variable(self, layer: Layer, role: str, dtype: str | None = None) -> Value:
        """The value of a weight, as ``dtype`` or as the layer computes; its variable is made when first asked for."""
        key = (layer.path, role)
        if key not in self._variables:
            self._variables[key] = self.builder.variable(f"{layer.path}/{role}", layer.weights[role])
        value = self._variables[key]
        return self.builder.cast(value, dtype or layer.dtype) if _is_float(value.dtype) else value

    def _as_computed(self, layer: Layer, value: Any) -> Any:
        """Floating inputs in the layer's compute dtype, as Keras casts them (``Layer.autocast``)."""
        if isinstance(value, list):
            return [self._as_computed(layer, item) for item in value]
        if isinstance(value, Value) and not is_operation(layer) and _is_float(value.dtype) and _is_float(layer.dtype):
            return self.builder.cast(value, layer.dtype)
        return value


def _without_leftovers(model: GraphModel, ends: list[str]) -> GraphModel:
    """The graph without what rules asked for and did not use, sizes mostly: OpenCV 5 stops at a node without consumer.

    Inputs that no output needs stay: the signature declares them.
    """
    outputs = [spec.tensor for signature in model.signatures.values() for spec in signature.outputs.values()]
    return only(model, reached(Graph(model.graph), [*outputs, *ends]), model.extra)


def _is_float(dtype: str) -> bool:
    return dtype in ("float16", "bfloat16", "float32", "float64")


@lru_cache(maxsize=256)
def _parameters(function: Rule) -> Mapping[str, inspect.Parameter]:
    """What a rule takes; asking takes as long as most rules do."""
    return inspect.signature(function).parameters


def _named(function: Rule, masks: tuple[Mask, ...]) -> dict[str, Mask]:
    """The masks of the positional arguments under the names of the rule's parameters."""
    return dict(zip(list(_parameters(function))[2:], masks, strict=False))


def _understood(
    function: Rule, layer: Layer, kwargs: Mapping[str, Any], masks: Mapping[str, Mask], mask: Mask
) -> dict[str, Any]:
    """The keyword arguments that a rule gets: those of the call, and the masks that it asks for.

    One that the rule does not know must not be dropped, save a mask that means something in training alone.
    """
    parameters = _parameters(function)
    spared = "mask" in parameters or layer.class_name == "BatchNormalization"
    given = {name: value for name, value in kwargs.items() if not (spared and name == "mask")}
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        unknown = sorted(set(given) - set(parameters))
        if unknown:
            raise ConversionError(
                f"{layer.source_class} is called with {', '.join(unknown)}, which its rule does not know",
                unsupported=[f"{layer.path} ({layer.source_class})"],
            )
    asked = {f"{name}_mask": _if_any(mask) for name, mask in masks.items()}
    given = {**{name: mask for name, mask in asked.items() if name in parameters}, **given}
    return {**given, "mask": mask} if "mask" in parameters else given


def _heeds_mask(layer: Layer, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Keras 3 passes on the mask of a layer's only tensor argument; one of several it has to be given with the call.

    A masked sequence that goes into an LSTM together with its ``initial_state`` is not masked there
    (keras/src/layers/layer.py, ``Layer.__call__``).
    """
    arguments = [*inputs, *kwargs.values()]
    return layer.dialect != "keras3" or "mask" in kwargs or sum(map(_holds_values, arguments)) < 2


def _holds_values(argument: Any) -> bool:
    return any(True for _ in _flat(argument, None))


# -- structures of values, and of the masks beside them ----------------------------------------------------------------


def _resolve(value: Any, done: Mapping[int, Masked]) -> Any:
    """An argument with every reference replaced by the value it refers to."""
    return _mapped(value, lambda leaf: _pick(done, leaf)[0] if isinstance(leaf, Ref) else leaf)


def _masks_of(value: Any, done: Mapping[int, Masked]) -> Mask:
    """The argument with every reference replaced by the mask that the value carries, and everything else by None."""
    return _mapped(value, lambda leaf: _pick(done, leaf)[1] if isinstance(leaf, Ref) else None)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(item, change) for item in value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    return change(value)


def _pick(done: Mapping[int, Masked], ref: Ref) -> tuple[Value, Mask]:
    """A value and its mask."""
    made = done[ref.call]
    outputs = made.output if isinstance(made.output, tuple) else (made.output,)
    masks = made.mask if isinstance(made.mask, (list, tuple)) else (made.mask,)
    if ref.output >= len(outputs):
        raise ConversionError(f"output {ref.output} is asked of a layer that has {len(outputs)}")
    return outputs[ref.output], masks[ref.output] if ref.output < len(masks) else None


def _flat(inputs: Any, mask: Mask) -> Iterator[tuple[Value, Mask]]:
    """Every value of a nested argument with its mask, in Keras' order."""
    if isinstance(inputs, Value):
        yield inputs, mask
    elif isinstance(inputs, Mapping):
        for name in sorted(inputs):  # Keras flattens dicts by sorted key (optree)
            yield from _flat(inputs[name], mask.get(name) if isinstance(mask, Mapping) else None)
    elif isinstance(inputs, (list, tuple)):
        masks = mask if isinstance(mask, (list, tuple)) else [mask]
        for index, item in enumerate(inputs):
            yield from _flat(item, masks[index] if index < len(masks) else None)


def _if_any(mask: Mask) -> Mask:
    """The mask, or None where there is none in all of its structure."""
    if isinstance(mask, Mapping):
        return mask if any(_if_any(one) is not None for one in mask.values()) else None
    if isinstance(mask, (list, tuple)):
        return mask if any(_if_any(one) is not None for one in mask) else None
    return mask
