"""Who is called on what, as each dialect writes it: :mod:`modelio.layers.nodes` the other way round.

In Keras 3 a nested Functional counts its creation as a call where the outer model names its inputs and outputs, and
nowhere else; in Keras 2 a nested model that begins with an InputLayer counts it everywhere (tf_keras 2.21
``src/engine/functional.py``, _should_skip_first_node; Keras 3.15 ``src/models/functional.py``, kept_nodes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from modelio.layers.dialects.objects import Target, plain
from modelio.layers.keras2 import FUNCTION_LAYERS
from modelio.layers.normal_form import Call, Layer, Network, Ref
from modelio.layers.shapes import Shapes

__all__ = ["Calls", "begins_with_input"]


def begins_with_input(network: Network) -> bool:
    """Is the first layer an InputLayer that the file will have?"""
    return network.kind == "Functional" or (len(network.input_specs) == 1 and network.input_specs[0].shape is not None)


class Calls:
    """The calls of one network, numbered by layer."""

    def __init__(self, network: Network, target: Target, shapes: Shapes) -> None:
        self._network = network
        self._target = target
        self._shapes = shapes
        self._of: dict[Layer, list[Call]] = {}
        self._numbers: list[int] = []
        for call in network.calls:
            own = self._of.setdefault(call.layer, [])
            self._numbers.append(len(own))
            own.append(call)

    def of(self, layer: Layer) -> list[Any]:
        """The ``inbound_nodes`` of a layer."""
        if layer.class_name == "InputLayer":
            return []
        write = self._new if self._target.dialect == "keras3" else self._old
        return [write(call) for call in self._of.get(layer, ())]

    def ends(self, end: Literal["inputs", "outputs"]) -> Any:
        """``input_layers`` or ``output_layers``."""
        structure = self._network.structure[end]
        if self._target.dialect == "keras3":
            if isinstance(structure, list) and len(structure) == 1:
                structure = structure[0]
        elif self._target.version < (2, 4):
            structure = list(getattr(self._network, end))
        return _mapped(structure, lambda ref: self._place(ref, is_end=True))

    def _place(self, ref: Ref, is_end: bool = False) -> list[Any]:
        called = self._network.calls[ref.call].layer
        counted = 0
        if called.network is not None:
            if self._target.dialect == "keras3":
                counted = int(is_end and called.network.kind == "Functional")
            else:
                counted = int(begins_with_input(called.network))
        return [called.name, self._numbers[ref.call] + counted, ref.output]

    def _old(self, call: Call) -> Any:
        kwargs = {key: _mapped(value, self._place) for key, value in call.kwargs.items()}

        def entry(value: Any) -> list[Any]:
            place = self._place(value) if isinstance(value, Ref) else ["_CONSTANT_VALUE", -1, plain(value)]
            return [*place, kwargs]

        argument = call.inputs[0] if call.inputs else []
        nested = _nested(argument, entry)
        alone = isinstance(argument, Mapping) or call.layer.class_name in FUNCTION_LAYERS
        return nested if alone or isinstance(argument, (list, tuple)) else [nested]

    def _new(self, call: Call) -> dict[str, Any]:
        def tensor(ref: Ref) -> dict[str, Any]:
            made = self._network.calls[ref.call]
            outputs = self._shapes.calls.get(made, ())
            shape = outputs[ref.output] if ref.output < len(outputs) else None
            config = {"shape": plain(shape or ()), "dtype": made.layer.dtype, "keras_history": self._place(ref)}
            return {"class_name": "__keras_tensor__", "config": config}

        return {
            "args": [_mapped(value, tensor) for value in call.inputs],
            "kwargs": {key: _mapped(value, tensor) for key, value in call.kwargs.items()},
        }


def _mapped(value: Any, change: Callable[[Ref], Any]) -> Any:
    """Nested values as JSON, with every tensor changed."""
    if isinstance(value, Ref):
        return change(value)
    if isinstance(value, (list, tuple)):
        return [_mapped(item, change) for item in value]
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    return plain(value)


def _nested(value: Any, entry: Callable[[Any], list[Any]]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_nested(item, entry) for item in value]
    if isinstance(value, Mapping):
        return {key: _nested(item, entry) for key, item in value.items()}
    return entry(value)
