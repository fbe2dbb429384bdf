"""The walk over a network: every call of every layer becomes nodes, by its rule.

Inputs are placeholders named after the input layers, outputs are Identity nodes named after the output layers, and
everything between lies in scopes named after the layers, so that nobody has to search a graph for its ends.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.graph.edit import prune
from modelio.layers.binding import bind
from modelio.layers.catalogue import weights_of
from modelio.layers.network import Layer, Network, Ref, network_of
from modelio.lowering.activation import unknown_activation
from modelio.lowering.rules import Output, Rule, Site, find
from modelio.model import GraphModel, LayerModel, Signature, TensorSpec

__all__ = ["METHOD", "NOTES", "lower"]

METHOD = "tensorflow/serving/predict"
"""The method name that TensorFlow Serving's predict API looks for (saved_model/signature_constants.py)."""

NOTES = "assets.extra/modelio.json"
"""Where a SavedModel of ours keeps what its layers were."""

IGNORED = frozenset({"training"})
"""Arguments of a call that mean nothing in inference."""


def lower(model: LayerModel) -> tuple[GraphModel, list[str]]:
    """The graph that computes what the layers mean in inference, and the changes that were made on the way.

    Raises:
        ConversionError: layers without a rule; ``.unsupported`` lists every one with its path.
    """
    if model.architecture is None:
        raise ConversionError(
            "the file holds weights only; a graph needs the architecture too: convert the whole model"
        )
    network = network_of(model.architecture, dialect=model.dialect, meta=model.meta)
    _check_supported(network)
    if not any(model.weights.values()) and _wants_weights(network):
        raise ConversionError("the file holds an architecture only; a graph needs the weights too: give both together")
    bind(network, model)
    walk = _Walk()
    return walk.whole(network, model), walk.changes


def _wants_weights(network: Network) -> bool:
    return any(weights_of(layer.class_name, layer.config) for layer in network.walk())


def _check_supported(network: Network) -> None:
    missing = [layer for layer in network.walk() if layer.network is None and not _is_supported(layer)]
    if missing:
        listed = [f"{layer.path} ({_described(layer)})" for layer in missing]
        raise ConversionError(
            f"no rule makes a graph of {len(listed)} layer{'s' if len(listed) > 1 else ''}: {', '.join(listed)}; "
            "the layer formats keep them, and the framework that has them can export them",
            unsupported=listed,
        )


def _is_supported(layer: Layer) -> bool:
    return find(layer.class_name) is not None and unknown_activation(layer) is None


def _described(layer: Layer) -> str:
    activation = unknown_activation(layer)
    return layer.source_class if activation is None else f"{layer.source_class} with the activation {activation}"


class _Walk:
    """One lowering under way."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.changes: list[str] = []
        self._variables: dict[tuple[str, str], Value] = {}

    def whole(self, network: Network, model: LayerModel) -> GraphModel:
        """The graph of the outermost network, with its signature."""
        g = self.builder
        feeds = []
        for name, spec in zip(network.input_names, network.input_specs, strict=True):
            feeds.append(g.placeholder(name, spec.dtype, spec.shape))
        results = self.network(network, feeds)
        inputs = {
            name: TensorSpec(value.name, value.dtype, value.shape)
            for name, value in zip(network.input_names, feeds, strict=True)
        }
        outputs = {}
        for name, result in zip(network.output_names, results, strict=True):
            value = g.output(name, result)
            outputs[name] = TensorSpec(value.name, value.dtype, value.shape)
        whole = GraphModel(
            graph=g.graph,
            variables=g.variables,
            constants=g.constants,
            signatures={"serving_default": Signature(inputs, outputs, METHOD)},
            tags=frozenset({"serve"}),
            extra={NOTES: _notes(model)},
            meta=dict(model.meta),
        )
        return _without_leftovers(whole, set(g.placeholders))

    def network(self, network: Network, feeds: list[Value]) -> list[Value]:
        """The outputs of a network on its inputs."""
        if len(feeds) != len(network.inputs):
            raise ConversionError(
                f"the network {network.name} has {len(network.inputs)} inputs and is called on {len(feeds)}"
            )
        done: dict[int, Output] = {ref.call: feed for ref, feed in zip(network.inputs, feeds, strict=True)}
        for index, call in enumerate(network.calls):
            if index not in done and call.layer.class_name != "InputLayer":
                inputs = _resolve(call.inputs, done)
                kwargs = {name: _resolve(value, done) for name, value in call.kwargs.items()}
                done[index] = self.call(call.layer, inputs, kwargs)
        return [_pick(done, ref) for ref in network.outputs]

    def call(self, layer: Layer, inputs: Any, kwargs: Mapping[str, Any]) -> Output:
        """The outputs of one call of a layer, in a scope of its own."""
        with self.builder.scope(layer.name):
            if layer.network is not None:
                results = self.network(layer.network, list(_flat(inputs)))
                return results[0] if len(results) == 1 else tuple(results)
            function = find(layer.class_name)
            assert function is not None  # _check_supported has looked
            positional = inputs if isinstance(inputs, tuple) else (inputs,)
            positional = tuple(self._as_computed(layer, value) for value in positional)
            try:
                return function(self.builder, Site(layer, self), *positional, **_understood(function, layer, kwargs))
            except ConversionError as error:
                error.where = error.where or layer.path
                raise

    def variable(self, layer: Layer, role: str, dtype: str | None = None) -> Value:
        """The value of a weight, as ``dtype`` or as the layer computes; its variable is made when first asked for."""
        key = (layer.path, role)
        if key not in self._variables:
            if role not in layer.weights:
                raise ConversionError(f"the weight {role!r} of this layer is not in the file", where=layer.path)
            self._variables[key] = self.builder.variable(f"{layer.path}/{role}", layer.weights[role])
        value = self._variables[key]
        return self.builder.cast(value, dtype or layer.dtype) if _is_float(value.dtype) else value

    def _as_computed(self, layer: Layer, value: Any) -> Any:
        """Floating inputs in the layer's compute dtype, as Keras casts them (``Layer.autocast``)."""
        if isinstance(value, list):
            return [self._as_computed(layer, item) for item in value]
        if isinstance(value, Value) and layer.dtype is not None and _is_float(value.dtype) and _is_float(layer.dtype):
            return self.builder.cast(value, layer.dtype)
        return value


def _without_leftovers(model: GraphModel, ends: set[str]) -> GraphModel:
    """The graph without what rules asked for and did not use, sizes mostly: OpenCV 5 stops at a node without consumer.

    Inputs that no output needs stay: the signature declares them.
    """
    pruned = prune(model, keep=ends)
    kept = {node.name for node in pruned.graph.node}
    return replace(pruned, variables={name: tensor for name, tensor in model.variables.items() if name in kept})


def _is_float(dtype: str) -> bool:
    return dtype in ("float16", "bfloat16", "float32", "float64")


def _understood(function: Rule, layer: Layer, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a call that mean something; one that the rule does not know must not be dropped."""
    given = {name: value for name, value in kwargs.items() if name not in IGNORED and value is not None}
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return given
    unknown = sorted(set(given) - set(parameters))
    if unknown:
        raise ConversionError(
            f"{layer.source_class} is called with {', '.join(unknown)}, which its rule does not know",
            unsupported=[f"{layer.path} ({layer.source_class})"],
        )
    return given


def _resolve(value: Any, done: Mapping[int, Output]) -> Any:
    """An argument with every reference replaced by the value it refers to."""
    if isinstance(value, Ref):
        return _pick(done, value)
    if isinstance(value, (list, tuple)):
        return type(value)(_resolve(item, done) for item in value)
    if isinstance(value, Mapping):
        return {key: _resolve(item, done) for key, item in value.items()}
    return value


def _pick(done: Mapping[int, Output], ref: Ref) -> Value:
    output = done[ref.call]
    if isinstance(output, tuple):
        if ref.output >= len(output):
            raise ConversionError(f"output {ref.output} is asked of a layer that has {len(output)}")
        return output[ref.output]
    return output


def _flat(inputs: Any) -> Iterator[Value]:
    if isinstance(inputs, Value):
        yield inputs
    elif isinstance(inputs, Mapping):
        for name in sorted(inputs):  # Keras flattens dicts by sorted key (optree)
            yield from _flat(inputs[name])
    elif isinstance(inputs, (list, tuple)):
        for item in inputs:
            yield from _flat(item)


def _notes(model: LayerModel) -> bytes:
    """What the layers were, as JSON: what a graph alone cannot say."""
    notes = {
        "modelio": 1,
        "dialect": model.dialect,
        "meta": dict(model.meta),
        "architecture": model.architecture,
        "training": model.training,
    }
    return json.dumps(notes, sort_keys=True, separators=(",", ":")).encode()
