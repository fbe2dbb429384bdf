"""A network in the normal form, made to mean in the target what it means where it comes from.

Every layer at every depth is adapted (:mod:`~modelio.layers.dialects.meanings`), and so are the arguments of every
call. The result is a network of its own: nothing of the one given is changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelio.layers.dialects.activations import RECURRENT
from modelio.layers.dialects.meanings import adapted
from modelio.layers.dialects.operations import is_operation, translated
from modelio.layers.dialects.site import Site, crosses
from modelio.layers.keras3 import OPERATIONS
from modelio.layers.layouts import rearranged
from modelio.layers.nodes import flatten
from modelio.layers.normal_form import Call, Layer, Network, Ref
from modelio.layers.shapes import Shapes

__all__ = ["rewritten"]

_TAKES_STATE = frozenset({name for name in RECURRENT if not name.endswith("Cell")} | {"RNN", "Bidirectional"})

_POSITIONAL: Mapping[str, str] = {
    "MultiHeadAttention": (
        "query value key query_mask value_mask key_mask attention_mask return_attention_scores training use_causal_mask"
    ),
    "TimeDistributed": "inputs training mask",
}
_USUAL = "inputs training mask"
"""How the arguments of ``call`` are called, in order (Keras 3.15 ``src/layers/**``); Keras 2 writes all but the first
by name."""


def rewritten(network: Network, site: Site, shapes: Shapes) -> Network:
    """The network for ``site.target``; ``shapes`` are those of the network given."""
    names = _names(network, site)
    masks = _masks(network, fed=any(site.masks))
    layers = {
        layer: _layer(layer, names[layer.name], replace(site, masks=masks.get(layer, ())), shapes)
        for layer in network.layers
    }
    calls = tuple(_call(call, layers, _before(call, site, network, shapes), network) for call in network.calls)
    if site.target.dialect == "keras2":
        outputs = [shapes.calls.get(call, ()) for call in network.calls]
        for call in calls:
            _tell_shapes(call, outputs)
    kind = network.kind
    if kind == "Sequential" and not _is_chain(network):
        site.account.change("Sequential with branches, or with a layer twice -> Functional", network.name)
        kind = "Functional"
    return replace(
        network,
        kind=kind,
        layers=tuple(layers.values()),
        calls=calls,
        input_names=tuple(calls[ref.call].layer.name for ref in network.inputs),
    )


def _before(call: Call, site: Site, network: Network, shapes: Shapes) -> Site:
    """The site with the shapes of what is called on."""
    outputs = [(shapes.calls.get(network.calls[ref.call], ()), ref.output) for ref in call.refs()]
    return replace(site, shapes=tuple(made[at] if at < len(made) else None for made, at in outputs))


def _masks(network: Network, fed: bool) -> dict[Layer, tuple[frozenset[int], ...]]:
    """The calls that the mask of each of a layer's inputs may come from; of its own calls, one where they differ.

    ``fed``: what the network is called on may have masks.
    """
    made: list[frozenset[int]] = []
    found: dict[Layer, tuple[frozenset[int], ...]] = {}
    for number, call in enumerate(network.calls):
        layer = call.layer
        before = tuple(made[ref.call] for ref in call.refs())
        if len(set(before)) > 1 or not any(found.get(layer, ())):
            found[layer] = before
        makes = any(part.class_name == "Masking" or part.config.get("mask_zero") for part in layer.walk())
        begins = makes or (fed and layer.class_name == "InputLayer")
        made.append(frozenset().union(*before, {number} if begins else ()))
    return found


def _is_chain(network: Network) -> bool:
    """One layer after another, each once: what the targets know as Sequential."""
    calls = network.calls
    if [call.layer for call in calls] != list(network.layers) or len(network.inputs) != 1:
        return False
    straight = all(call.inputs == (Ref(index),) and not call.kwargs for index, call in enumerate(calls[1:]))
    return straight and network.outputs == (Ref(len(calls) - 1),)


_FOREIGN = {"keras2": re.compile(r"^[^A-Za-z0-9.]|[^A-Za-z0-9_.\\/>-]"), "keras3": re.compile("/")}
"""What a name cannot have: in Keras 2 what is no scope to TensorFlow (``framework/ops.py`` _VALID_SCOPE_NAME_REGEX), in
Keras 3 a slash (``src/ops/operation.py``)."""


def _names(network: Network, site: Site) -> dict[str, str]:
    """The names of layers, as the target can have them."""
    names: dict[str, str] = {}
    taken = {layer.name for layer in network.layers}
    for layer in network.layers:
        name = layer.name
        if layer.dialect != site.target.dialect:
            name = _named(name, site.target.dialect)
        if name != layer.name:
            while name in taken:
                name += "_"
            taken.add(name)
            found = '"/"' if site.target.dialect == "keras3" else "what TensorFlow cannot have"
            site.account.change(f'{found} in names -> "_"', layer.path)
        names[layer.name] = name
    return names


def _named(name: str, dialect: str) -> str:
    made = _FOREIGN[dialect].sub("_", name)
    return f"x{made}" if dialect == "keras2" and made.startswith("_") else made


def _layer(layer: Layer, name: str, site: Site, shapes: Shapes) -> Layer:
    here = replace(site, shapes=shapes.inputs.get(layer, ()))
    inner = {key: _layer(part, _inner_name(layer, key), site, shapes) for key, part in layer.inner.items()}
    network = None if layer.network is None else rewritten(layer.network, site, shapes)
    if network is not None:
        network.name = name
    copy = replace(layer, name=name, inner=inner, network=network, config={**layer.config, "name": name})
    if layer.weights:
        for change in rearranged(layer, site.backend):
            site.account.change(f"weights: {change}", layer.path)
    made = adapted(copy, here)
    if made.network is not None and network is None:
        # a substitute, whose parts nobody has looked at
        parts = {part: adapted(part, here) for part in made.network.layers}
        made.network.layers = tuple(parts.values())
        made.network.calls = tuple(replace(call, layer=parts[call.layer]) for call in made.network.calls)
    return made


def _inner_name(layer: Layer, key: str) -> str:
    """Bidirectional says of its layers which is which (Keras 3.15 ``src/layers/rnn/bidirectional.py``)."""
    name = layer.inner[key].name
    if layer.class_name != "Bidirectional" or key not in ("layer", "backward_layer"):
        return name
    side = "forward_" if key == "layer" else "backward_"
    return side + name.removeprefix(side)


def _call(call: Call, layers: dict[Layer, Layer], site: Site, network: Network) -> Call:
    layer = layers[call.layer]
    if is_operation(layer):
        return _operation(call, layers, site, network)
    inputs, kwargs = call.inputs, {key: value for key, value in call.kwargs.items() if value is not None}
    if layer.class_name in _TAKES_STATE:
        inputs, kwargs = _states(inputs, kwargs, layer, site)
    if layer.class_name in ("Attention", "AdditiveAttention") and call.layer.config.get("causal"):
        site.account.change("causal=True -> use_causal_mask=True in the call", layer.path)
        kwargs["use_causal_mask"] = True
    if site.target.dialect == "keras2" and len(inputs) > 1:
        words = _POSITIONAL.get(layer.class_name, _USUAL).split()
        named = dict(zip(words[1:], inputs[1:], strict=False))
        site.account.change(f"arguments of calls: by name ({', '.join(named)})", layer.path)
        inputs, kwargs = inputs[:1], {**{key: value for key, value in named.items() if value is not None}, **kwargs}
    if "training" in kwargs and crosses(call.layer, site):
        _training(kwargs, layer, site)
    return Call(layer, inputs, kwargs)


def _operation(call: Call, layers: dict[Layer, Layer], site: Site, network: Network) -> Call:
    """An operation has a layer of its own for every call."""
    layer = layers[call.layer]
    made = translated(replace(call, layer=layer), site.target, network, site.shape)
    if made is None:
        function = layer.config.get("function", layer.class_name)
        site.account.loss(f"the operation {function} has no counterpart in {site.target.title}", layer.path)
        return replace(call, layer=layer)
    before, after = (
        part.config.get("function", part.class_name.removeprefix(OPERATIONS)) for part in (layer, made.layer)
    )
    site.account.change(f"operation {before} -> {after}", layer.path)
    layers[call.layer] = made.layer
    return made


def _training(kwargs: dict[str, Any], layer: Layer, site: Site) -> None:
    """In Keras 3 the whole model's mode overrides what a call was told (``models/functional.py``, operation_fn)."""
    if site.target.dialect == "keras2":
        site.account.change(
            "training in calls left out, since the mode of the whole model overrides it in Keras 3", layer.path
        )
        del kwargs["training"]
    elif kwargs["training"]:
        site.account.loss(
            "training=True in its call is overridden by the mode of the whole model in Keras 3: outputs differ",
            layer.path,
        )
    else:
        site.account.change("training=False in calls, which Keras 3 overrides while the model is trained", layer.path)


def _tell_shapes(call: Call, outputs: list[tuple[Any, ...]]) -> None:
    """MultiHeadAttention of Keras 2 wants to be told what it is called on, None where that is not known."""
    if call.layer.class_name != "MultiHeadAttention" or "query_shape" in call.layer.config:
        return

    def shape(value: Any) -> Any:
        return outputs[value.call][value.output] if isinstance(value, Ref) and outputs[value.call] else None

    query = call.inputs[0] if call.inputs else None
    value = call.kwargs.get("value")
    given = {"query": query, "key": call.kwargs.get("key", value), "value": value}
    call.layer.config.update({f"{role}_shape": shape(tensor) for role, tensor in given.items()})


def _states(
    inputs: tuple[Any, ...], kwargs: dict[str, Any], layer: Layer, site: Site
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Keras 2 has the initial state behind the sequence, in one list; Keras 3 has it by name."""
    if site.target.dialect == "keras3":
        if len(inputs) == 1 and isinstance(inputs[0], list) and len(inputs[0]) > 1:
            sequence, *states = inputs[0]
            if layer.config.get("num_constants"):
                site.account.loss("constants of a recurrent layer have no counterpart in Keras 3", layer.path)
            site.account.change("initial states: by name", layer.path)
            return (sequence,), {**kwargs, "initial_state": states}
        return inputs, kwargs
    states = kwargs.pop("initial_state", None)
    if len(inputs) > 1:
        states, inputs = inputs[1], (inputs[0], *inputs[2:])
    if states is None or not any(isinstance(leaf, Ref) for leaf in flatten(states)):
        return inputs, kwargs
    site.account.change("initial states: in one list with the sequence", layer.path)
    return ([inputs[0], *flatten(states)], *inputs[1:]), kwargs
