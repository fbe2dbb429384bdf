"""An architecture as the target's Keras writes it, out of the normal form.

::

    Keras 2    {"class_name": "Dense", "config": {...}, "name": "dense", "inbound_nodes": [[["x", 0, 0, {}]]]}
    Keras 3    {"module": "keras.layers", "class_name": "Dense", "config": {...}, "registered_name": null,
                "name": "dense", "inbound_nodes": [{"args": [__keras_tensor__], "kwargs": {}}]}

Of the arguments, those that the target has (:mod:`modelio.layers.arguments`) are written; newer ones where they say
something, so that older versions of the target can read the rest. What is left over is a change where it says nothing,
and a loss where it does. Sources: as in ``keras1.py``, ``keras2.py``, ``keras3.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelio.layers import keras1, keras2, keras3
from modelio.layers.arguments import UNTRAINED, Word, class_since, is_listed, words_of
from modelio.layers.catalogue import CATALOGUE
from modelio.layers.dialects.account import Account
from modelio.layers.dialects.calls import Calls, begins_with_input
from modelio.layers.dialects.lambdas import lambda_config
from modelio.layers.dialects.objects import Target, activation_of, kind_of, node_of, object_of, plain, policy_of
from modelio.layers.dialects.operations import is_operation, module_of
from modelio.layers.normal_form import Layer, Network
from modelio.layers.shapes import Shapes, shapes_of

__all__ = ["written"]

_ACTIVATIONS = ("activation", "recurrent_activation")
_WRAPPED = ("layer", "backward_layer", "cell")

_OF_EVERY_LAYER = frozenset({"name", "trainable", "dtype", "activity_regularizer", "autocast", *_WRAPPED, "cells"})

_TRAINING_ALONE = frozenset(
    {
        *("implementation", "rng_type", "seed", "noise_shape", "synchronized", "value_range", "use_cudnn"),
        *("renorm_clipping", "renorm_momentum"),
    }
)
"""Arguments that change nothing in inference, or only how it is computed."""

_INPUTS = frozenset({"batch_shape", "input_shape", "input_dim", "input_length", "input_dtype", "batch_size"})
"""Arguments that say what a layer is fed, which InputLayers and the layers themselves find out."""

_INNER = frozenset(
    {
        *("query_shape", "key_shape", "value_shape", "softmax_robust_masking", "robust_masking", "flash_attention"),
        *("vocabulary_size", "weights", "dynamic", "fused", "enable_caching_device", "return_runtime", "sparse"),
        "cache_enabled",
    }
)
"""Arguments with which a Keras keeps its own house."""

_SILENT: Mapping[str, tuple[Any, ...]] = {
    "groups": (1,),
    "encoding": ("utf-8",),
    "score_mode": ("dot",),
    "data_format": ("channels_last",),
    "output_mode": ("int",),
    "fill_mode": ("interpolation", "constant"),
    "fill_value": (0, 0.0),
    "oov_method": ("floormod",),
    "vocabulary_dtype": ("int64",),
    "dilation_rate": ((1,), (1, 1), (1, 1, 1), 1),
    "renorm_momentum": (0.99,),
    "tie_weights": (True,),
}
"""Values that are what a Keras without the argument does, where the catalogue does not tell."""

_OLD = frozenset({"Merge", "TensorFlowOpLayer"})
"""Classes of Keras' own that nothing lists any more."""

_ALONE = frozenset({"ZeroPadding1D", "Cropping1D", "UpSampling1D"})
"""Classes that take a single size, or a single pair, where the normal form has one for each axis."""


def written(network: Network, class_name: str, trainable: bool, target: Target, account: Account) -> dict[str, Any]:
    """The whole architecture, as ``model.to_json()`` gives it; ``class_name`` tells a model that is somebody's own."""
    writer = _Writer(target, account, shapes_of(network))
    return writer.model(network, class_name, trainable, network.name)


class _Writer:
    def __init__(self, target: Target, account: Account, shapes: Shapes) -> None:
        self.target = target
        self.account = account
        self.shapes = shapes

    # -- models ----------------------------------------------------------------------------------------------------

    def model(self, network: Network, class_name: str, trainable: bool, path: str) -> dict[str, Any]:
        """A model as ``{class_name, config}``, at the top or inside of another."""
        config: dict[str, Any] = {"name": network.name}
        noted = self.target.version >= ((2, 13) if network.kind == "Functional" else (3,))
        if noted or not trainable:
            config["trainable"] = trainable
        if network.kind == "Sequential":
            return self._sequential(network, config, path)
        return self._functional(network, config, class_name, path)

    def _sequential(self, network: Network, config: dict[str, Any], path: str) -> dict[str, Any]:
        layers = list(network.layers)
        source = layers[0]
        if not begins_with_input(network):
            layers.pop(0)
        elif not source.source:
            self.account.change("InputLayer made explicit", source.path)
        nodes = [self.layer(layer) for layer in layers]
        if self.target.dialect == "keras2" and self.target.version < (2, 2, 3):
            return node_of(self.target, "keras", "Sequential", nodes)
        config["layers"] = nodes
        shape = source.config.get("batch_shape")
        if shape is not None and self.target.dialect == "keras3":
            config["build_input_shape"] = plain(shape)
        return node_of(self.target, keras3.MODULES["Sequential"], "Sequential", config)

    def _functional(self, network: Network, config: dict[str, Any], class_name: str, path: str) -> dict[str, Any]:
        calls = Calls(network, self.target, self.shapes)
        nodes = []
        for layer in network.layers:
            node = self.layer(layer)
            node["name"] = layer.name
            node["inbound_nodes"] = calls.of(layer)
            nodes.append(node)
        config["layers"] = nodes
        config["input_layers"] = calls.ends("inputs")
        config["output_layers"] = calls.ends("outputs")
        self.account.change(
            "calls: written as __keras_tensor__" if self.target.dialect == "keras3" else "calls: written as lists", path
        )
        if class_name not in ("Functional", "Model", "Sequential"):
            self.account.change(
                f"not translated: the class {class_name}, in which only the layers are Keras' own", path
            )
            return self._somebodys(class_name, config, {})
        own = "Model" if self.target.dialect == "keras2" and self.target.version < (2, 4) else "Functional"
        if class_name != own and class_name != "Sequential":
            self.account.change(f"{class_name} -> {own}", path)
        return node_of(self.target, keras3.MODULES["Functional"], own, config, "Functional")

    # -- layers ----------------------------------------------------------------------------------------------------

    def layer(self, layer: Layer) -> dict[str, Any]:
        """A layer and all inside it as ``{class_name, config}``."""
        if layer.network is not None:
            return self.model(layer.network, layer.source_class, layer.trainable, layer.path)
        if is_operation(layer):
            return self._operation(layer)
        words = words_of(layer.class_name, self.target.dialect)
        if words is None:
            return self._verbatim(layer)
        since = class_since(layer.class_name, self.target.dialect) or ()
        if since > self.target.version:
            self.account.loss(f"{layer.class_name} is younger than Keras {_dotted(self.target.version)}", layer.path)
        class_name = layer.class_name
        if layer.source_class != class_name:
            self.account.change(f"{layer.source_class} -> {class_name}", layer.path)
        config = {**self._common(layer), **self._arguments(layer, words), **self._inner(layer)}
        self._leftover(layer, words)
        module = keras3.MODULES.get(class_name, "keras.layers")
        return node_of(self.target, module, class_name, self._renamed(layer, config))

    def _operation(self, layer: Layer) -> dict[str, Any]:
        if layer.source:  # there was no counterpart
            return self._somebodys(layer.source_class, layer.source.get("config"), layer.source)
        own = layer.class_name.removeprefix(keras3.OPERATIONS)
        return node_of(self.target, module_of(own) or "", own, plain(layer.config), own)

    def _common(self, layer: Layer) -> dict[str, Any]:
        config: dict[str, Any] = {"name": layer.name}
        if layer.class_name == "InputLayer":
            config["dtype"] = layer.dtype
            return config
        if self.target.dialect == "keras2" or layer.class_name not in UNTRAINED:
            config["trainable"] = layer.trainable
        policy = layer.config.get("dtype")
        if policy is not None:
            dtype = policy_of(policy, self.target, self.account, layer.path)
            if dtype is not None:
                config["dtype"] = dtype
        regularizer = layer.config.get("activity_regularizer")
        if regularizer is not None:
            kind = kind_of("activity_regularizer")
            assert kind is not None
            config["activity_regularizer"] = object_of(regularizer, kind, self.target, self.account, layer.path)
        return config

    def _arguments(self, layer: Layer, words: tuple[Word, ...]) -> dict[str, Any]:
        config: dict[str, Any] = {}
        for word in words:
            if word.name not in layer.config or word.name in layer.inner:
                continue
            value = layer.config[word.name]
            younger = word.since > self.target.version
            says_nothing = _says_nothing(layer.class_name, word.name, value) or (
                younger and word.name in _TRAINING_ALONE
            )
            if word.since and says_nothing and (younger or not word.always):
                self._left_out(layer, word.name)
            elif younger:
                version = _dotted(self.target.version)
                self.account.loss(f"{word.name}={plain(value)!r} is younger than Keras {version}", layer.path)
            else:
                config[word.name] = self._value(word.name, value, layer)
                if word.name == "reset_after" and layer.source and word.name not in _given(layer):
                    self.account.change("reset_after=False made explicit", layer.path)
        return config

    def _value(self, name: str, value: Any, layer: Layer) -> Any:
        kind = kind_of(name)
        if kind is not None:
            return object_of(value, kind, self.target, self.account, layer.path)
        if name in _ACTIVATIONS:
            return activation_of(value, self.target, self.account, layer.path)
        alone = layer.class_name in _ALONE and isinstance(value, tuple) and len(value) == 1
        return plain(value[0] if alone else value)

    def _inner(self, layer: Layer) -> dict[str, Any]:
        """The layers that a layer wraps."""
        config: dict[str, Any] = {
            key: self.layer(part) for key, part in layer.inner.items() if not key.startswith("cell_")
        }
        cells = [self.layer(part) for key, part in layer.inner.items() if key.startswith("cell_")]
        if cells:
            config["cells"] = cells
        if layer.class_name == "Bidirectional" and self.target.dialect == "keras2" and _is_mirrored(layer):
            del config["backward_layer"]  # Keras 2 makes it of the forward one, and adds the prefixes itself
            config["layer"]["config"]["name"] = layer.inner["layer"].name.removeprefix("forward_")
        return config

    def _leftover(self, layer: Layer, words: tuple[Word, ...]) -> None:
        known = {word.name for word in words} | _OF_EVERY_LAYER
        given = _given(layer)
        for name, value in layer.config.items():
            if name in known or (name not in given and _says_nothing(layer.class_name, name, value)):
                continue
            if name in _INPUTS:
                word = "batch_input_shape" if name == "batch_shape" else name
                self.account.change(f"{word} left to the InputLayer", layer.path)
            elif name in _TRAINING_ALONE | _INNER or kind_of(name) or _says_nothing(layer.class_name, name, value):
                self._left_out(layer, name)
            else:
                self.account.loss(
                    f"{layer.class_name} takes no {name} in {self.target.title}; it was {plain(value)!r:.60}",
                    layer.path,
                )

    def _left_out(self, layer: Layer, name: str) -> None:
        if name in _given(layer):
            self.account.change(f"{name} left out, since the layer does the same without it", layer.path)

    def _renamed(self, layer: Layer, config: dict[str, Any]) -> dict[str, Any]:
        spelled = keras2.spelled(layer.class_name) if self.target.dialect == "keras2" else {}
        for old, new in _renames(layer).items():
            final = spelled.get(new, new)
            if new in config and final != old:
                self.account.change(f"{old} -> {final}", layer.path)
        return {spelled.get(key, key): value for key, value in config.items()}

    # -- what is not translated ------------------------------------------------------------------------------------

    def _verbatim(self, layer: Layer) -> dict[str, Any]:
        """A class that the target does not have: arguments as in the source; those of Keras 1 in later words, by which
        whatever reads the target knows them.
        """
        class_name = layer.source_class
        config = layer.source.get("config", {})
        if layer.dialect == "keras1" and class_name in CATALOGUE:
            said = keras1.normal(class_name, config)[1].keys() | {"shared_axes"}  # which Keras 1 does not note
            config = {key: plain(value) for key, value in layer.config.items() if key in said}
        if isinstance(config, Mapping) and config.get("name", layer.name) != layer.name:
            config = {**config, "name": layer.name}
        if class_name == "Lambda":
            self.account.change("not translated: the code of Lambda, which runs where it was written", layer.path)
            config = {**lambda_config(config, self.target), **self._common(layer)}
            return node_of(self.target, "keras.layers", "Lambda", config)
        if layer.class_name in CATALOGUE or layer.class_name in _OLD or is_listed(layer.class_name):
            self.account.loss(
                f"{self.target.title} has no {class_name}, which is written as it is: give Keras a class of that name",
                layer.path,
            )
        else:
            self.account.change(f"not translated: {class_name}, which is none of Keras' own", layer.path)
        return self._somebodys(class_name, config, layer.source)

    def _somebodys(self, class_name: str, config: Any, source: Mapping[str, Any]) -> dict[str, Any]:
        """A class that is registered under a name: in Keras 2 that is its class, in Keras 3 it is beside it."""
        registered = source.get("registered_name") or class_name
        if self.target.dialect == "keras2":
            return {"class_name": registered, "config": config}
        own = class_name.rpartition(">")[2]
        return {"module": None, "class_name": own, "config": config, "registered_name": registered}


# -- small facts -------------------------------------------------------------------------------------------------------


def _is_mirrored(layer: Layer) -> bool:
    """Is the backward layer what Bidirectional would make of the forward one?"""
    forward, backward = layer.inner.get("layer"), layer.inner.get("backward_layer")
    if forward is None or backward is None or forward.class_name != backward.class_name:
        return False
    own = {"name", "go_backwards"}
    same = {key: value for key, value in forward.config.items() if key not in own} == {
        key: value for key, value in backward.config.items() if key not in own
    }
    return same and bool(forward.config.get("go_backwards")) != bool(backward.config.get("go_backwards"))


def _says_nothing(class_name: str, name: str, value: Any) -> bool:
    """Is this what a Keras without the argument does?"""
    if value is None or value is False or (isinstance(value, (str, list, tuple, dict)) and not value):
        return True
    kind = CATALOGUE.get(class_name)
    if kind is not None and name in kind.defaults:
        default = kind.defaults[name]
        return bool(value == default or (isinstance(value, tuple) and all(item == default for item in value)))
    return value in _SILENT.get(name, ())


def _given(layer: Layer) -> frozenset[str]:
    """The arguments that the source itself names, in the words of the normal form."""
    config = layer.source.get("config")
    if not isinstance(config, Mapping):
        return frozenset()
    normal = {"keras1": keras1.normal, "keras2": keras2.normal, "keras3": keras3.normal}[layer.dialect]
    return frozenset(normal(layer.source_class, config)[1])


def _renames(layer: Layer) -> dict[str, str]:
    config = layer.source.get("config")
    if not isinstance(config, Mapping):
        return {}
    if layer.dialect == "keras1":
        return keras1.renamed(layer.class_name, config)
    names = (keras2 if layer.dialect == "keras2" else keras3).renamed(layer.class_name)
    return {
        **{new: new for new in names.values() if new in config},
        **{old: new for old, new in names.items() if old in config},
    }


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
