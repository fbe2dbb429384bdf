"""Layers that a dialect lacks, put together from layers that it has.

A substitute is a model with the name of the layer that it stands for, so that nothing around it changes: who calls it,
the names of outputs, the group that holds its weights. The layers inside keep the weights, and with them the way
training goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelio.layers.catalogue import Shape
from modelio.layers.normal_form import Call, InputSpec, Layer, Network, Ref
from modelio.model import Tensor

__all__ = ["RECIPES", "Recipe", "activated", "cosine_of_keras_1", "derived", "highway", "maxout", "padded_in_front"]

Steps = Sequence[tuple[str, Mapping[str, Any]]]


def derived(shape: tuple[int, ...], source: Tensor, change: Any) -> Tensor:
    """A tensor that is computed from another when it is asked for."""
    return Tensor(source.dtype, shape, lambda: np.ascontiguousarray(change(source.numpy())))


# -- activations -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """An activation as layers.

    ``steps`` one after another; then, where it is named, a layer that joins the input and what the steps make of it.
    """

    steps: Steps
    join: str = ""


def _line(scale: float, offset: float) -> tuple[str, Mapping[str, Any]]:
    return "Rescaling", {"scale": scale, "offset": offset}


_CLIP = ("ReLU", {"max_value": 1.0, "negative_slope": 0.0, "threshold": 0.0})


def _function(name: str) -> tuple[str, Mapping[str, Any]]:
    return "Activation", {"activation": name}


RECIPES: Mapping[str, Mapping[str, Recipe]] = {
    "keras2": {
        "celu": Recipe([_function("elu")]),  # with alpha 1 they are the same
        "hard_sigmoid": Recipe([_line(1 / 6, 0.5), _CLIP]),
        "hard_silu": Recipe([_line(1 / 6, 0.5), _CLIP], "Multiply"),
        "hard_swish": Recipe([_line(1 / 6, 0.5), _CLIP], "Multiply"),
        "hard_tanh": Recipe([_line(0.5, 0.5), _CLIP, _line(2.0, -1.0)]),
        "log_sigmoid": Recipe([_line(-1.0, 0.0), _function("softplus"), _line(-1.0, 0.0)]),
        "soft_shrink": Recipe([_line(1.0, 0.5), _CLIP, _line(1.0, -0.5)], "Subtract"),
        "sparse_sigmoid": Recipe([_line(0.5, 0.5), _CLIP]),
        "tanh_shrink": Recipe([_function("tanh")], "Subtract"),
    },
    "keras3": {"hard_sigmoid": Recipe([_line(0.2, 0.5), _CLIP])},
}
"""Dialect -> activation that it does not have, or that means something else in it -> how it says it.

Sources: Keras 3.15 ``src/activations/activations.py`` and ``src/backend/tensorflow/nn.py``; tf_keras 2.21
``src/backend.py``, ``hard_sigmoid``.
"""


def activated(layer: Layer, recipe: Recipe, shape: Shape | None) -> Layer | None:
    """``layer`` with a linear activation, and the recipe behind it; None where the shape has to be known and is not."""
    own = [] if layer.class_name == "Activation" else [_part(layer, layer.name, config={"activation": "linear"})]
    steps = [
        _made(layer, class_name, f"{layer.name}_{place}", config) for place, (class_name, config) in _numbered(recipe)
    ]
    if not recipe.join:
        return _model(layer, [*own, *steps], shape)
    if shape is None:
        return None
    return _model(
        layer, [*own, *steps], shape, joined=_made(layer, recipe.join, f"{layer.name}_out", {}), since=len(own)
    )


def _numbered(recipe: Recipe) -> list[tuple[int, tuple[str, Mapping[str, Any]]]]:
    return list(enumerate(recipe.steps, start=1))


# -- layers of Keras 1 -------------------------------------------------------------------------------------------------


def maxout(layer: Layer, shape: Shape | None) -> Layer | None:
    """MaxoutDense (Keras 1.2.2 ``layers/core.py``): one wide Dense, and the largest of its parts."""
    if shape is None or not layer.weights:
        return None
    kernel, units = layer.weights["kernel"], layer.config["units"]
    maps, features = kernel.shape[0], kernel.shape[1]
    wide = maps * units
    weights = {
        "kernel": derived((features, wide), kernel, lambda array: array.transpose(1, 0, 2).reshape(features, wide))
    }
    if "bias" in layer.weights:
        weights["bias"] = derived((wide,), layer.weights["bias"], lambda array: array.reshape(wide))
    dense = _part(layer, layer.name, "Dense", {**_dense(layer), "units": wide, "activation": "linear"}, weights)
    parts = [
        dense,
        _made(layer, "Reshape", f"{layer.name}_maps", {"target_shape": (maps, units)}),
        _made(layer, "GlobalMaxPooling1D", f"{layer.name}_largest", {"data_format": "channels_last"}),
    ]
    return _model(layer, parts, shape)


def _dense(layer: Layer) -> dict[str, Any]:
    """The arguments that Dense has too."""
    return {key: value for key, value in layer.config.items() if key not in ("nb_feature", "transform_bias")}


def highway(layer: Layer, shape: Shape | None) -> Layer | None:
    """Highway (Keras 1.2.2 ``layers/core.py``): ``x + gate * (activation(dense(x)) - x)``, its gate another Dense."""
    if shape is None or not layer.weights or not isinstance(shape[-1], int):
        return None
    config = {**_dense(layer), "units": shape[-1]}
    roles = {role: tensor for role, tensor in layer.weights.items() if not role.startswith("carry_")}
    gates = {role[6:]: tensor for role, tensor in layer.weights.items() if role.startswith("carry_")}
    x = _input(layer, shape)
    dense = _part(layer, layer.name, "Dense", config, roles)
    gate = _part(layer, f"{layer.name}_gate", "Dense", {**config, "activation": "sigmoid"}, gates)
    less, times, plus = (
        _made(layer, class_name, f"{layer.name}_{class_name.lower()}", {})
        for class_name in ("Subtract", "Multiply", "Add")
    )
    calls = (
        Call(x),
        Call(dense, (Ref(0),)),
        Call(gate, (Ref(0),)),
        Call(less, ([Ref(1), Ref(0)],)),
        Call(times, ([Ref(2), Ref(3)],)),
        Call(plus, ([Ref(0), Ref(4)],)),
    )
    return _wrapped(layer, calls, "Functional")


def cosine_of_keras_1(layer: Layer, shapes: Sequence[Shape | None]) -> Layer | None:
    """Merge with ``mode="cos"`` of two vectors, whose result has an axis more (Keras 1.2.2 ``engine/topology.py``)."""
    if len(shapes) != 2 or any(shape is None or len(shape) != 2 for shape in shapes):
        return None
    inputs = [_input(layer, shape or (), f"_{side}") for side, shape in zip(("left", "right"), shapes, strict=True)]
    dot = _part(layer, layer.name)
    reshape = _made(layer, "Reshape", f"{layer.name}_axis", {"target_shape": (1, 1)})
    calls = (*map(Call, inputs), Call(dot, ([Ref(0), Ref(1)],)), Call(reshape, (Ref(2),)))
    return _wrapped(layer, calls, "Functional")


# -- convolution -------------------------------------------------------------------------------------------------------


def padded_in_front(layer: Layer, shape: Shape | None) -> Layer:
    """A convolution along time with zeros in front, so that it sees nothing that comes later."""
    reach = (layer.config["kernel_size"][0] - 1) * layer.config["dilation_rate"][0]
    zeros = _made(layer, "ZeroPadding1D", f"{layer.name}_zeros", {"padding": ((reach, 0),)})
    return _model(layer, [zeros, _part(layer, layer.name, config={"padding": "valid"})], shape)


# -- models ------------------------------------------------------------------------------------------------------------


def _part(
    layer: Layer,
    name: str,
    class_name: str | None = None,
    config: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Layer:
    """The layer itself, inside of its substitute; of another class, with the arguments of that class alone."""
    told = {**({} if class_name else layer.config), **(config or {}), "name": name}
    return replace(
        layer,
        class_name=class_name or layer.class_name,
        source_class=class_name or layer.class_name,
        name=name,
        path=f"{layer.path}/{name}",
        config=told,
        weights=dict(layer.weights if weights is None else weights),
    )


def _made(layer: Layer, class_name: str, name: str, config: Mapping[str, Any]) -> Layer:
    """A layer that no file had."""
    return Layer(
        *(class_name, name, f"{layer.path}/{name}", {**config, "name": name, "dtype": layer.config.get("dtype")}),
        source_class=class_name,
        dialect=layer.dialect,
        version=layer.version,
        family=layer.family,
        dtype=layer.dtype,
        variable_dtype=layer.variable_dtype,
        trainable=layer.trainable,
    )


def _input(layer: Layer, shape: Shape | None, suffix: str = "") -> Layer:
    name = f"{layer.name}_input{suffix}"
    made = _made(layer, "InputLayer", name, {"batch_shape": shape, "sparse": False})
    made.config["dtype"] = layer.dtype
    return made


def _model(
    layer: Layer, parts: Sequence[Layer], shape: Shape | None, joined: Layer | None = None, since: int = 0
) -> Layer:
    """A chain of layers; with ``joined``, that one called on what came out of call ``since`` and out of the last."""
    calls = [Call(_input(layer, shape))]
    for part in parts:
        calls.append(Call(part, (Ref(len(calls) - 1),)))
    if joined is not None:
        calls.append(Call(joined, ([Ref(since), Ref(len(calls) - 1)],)))
    return _wrapped(layer, tuple(calls), "Functional" if joined is not None else "Sequential")


def _wrapped(layer: Layer, calls: tuple[Call, ...], kind: Any) -> Layer:
    inputs = tuple(Ref(index) for index, call in enumerate(calls) if call.layer.class_name == "InputLayer")
    outputs = (Ref(len(calls) - 1),)
    names = tuple(calls[ref.call].layer.name for ref in inputs)
    specs = tuple(
        InputSpec(call.layer.name, call.layer.config["batch_shape"], call.layer.dtype)
        for call in (calls[ref.call] for ref in inputs)
    )
    network = Network(
        *(
            layer.name,
            tuple(call.layer for call in calls),
            calls,
            inputs,
            outputs,
            names,
            (calls[-1].layer.name,),
            specs,
        ),
        kind=kind,
        structure={"inputs": list(inputs), "outputs": list(outputs)},
    )
    return replace(
        layer,
        class_name=kind,
        source_class=kind,
        config={"name": layer.name, "trainable": layer.trainable},
        network=network,
        inner={},
        weights={},
    )
