"""The vocabularies of preprocessing layers in a SavedModel of tf.keras: tables, which are no variables.

::

    layer                                   TextVectorization keeps a StringLookup
     '- _lookup_layer                       (_index_lookup_layer before TensorFlow 2.8)
         '- lookup_table                    a resource (_table before 2.8)
             |- its value                       <key>-keys and <key>-values of the checkpoint, where it can be changed
             '- _initialize                     elsewhere: a function that is bound to two constants, keys and values

tf_keras counts a vocabulary that was adapted among the layer's weights: its words in the order of their numbers. Until
TensorFlow 2.5 the tables also have the words for what is missing and what is unknown, which are no words of it.

Sources: tf_keras 2.21 ``src/layers/preprocessing/index_lookup.py``, ``tensorflow/python/ops/lookup_ops.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError
from modelio.graph.objects import SAVED, Object, Objects
from modelio.model import GraphModel, Message, Tensor
from modelio.wire import dtypes, messages

__all__ = ["Tables"]

INNER = ("_lookup_layer", "_index_lookup_layer")
NAMES = ("lookup_table", "_table")


def _specials(words: npt.NDArray[Any], config: Mapping[str, Any]) -> npt.NDArray[Any]:
    """What is in a table and no word: for what is missing, and for what is unknown."""
    found = [config.get(key) for key in ("mask_token", "oov_token", "mask_value", "oov_value")]
    if words.dtype.hasobject:
        named = [word.encode() for word in found if isinstance(word, str)]
        return np.array(named or [b"", b"[UNK]"], object)  # a TextVectorization has no choice
    return np.array([number for number in found if isinstance(number, int)], words.dtype)


class Tables:
    """The tables of a SavedModel."""

    def __init__(self, model: GraphModel, objects: Objects) -> None:
        self._model = model
        self._objects = objects
        self._nodes: dict[str, Message] | None = None
        self._functions: Mapping[str, Message] | None = None

    def vocabulary(self, layer: Object, config: Mapping[str, Any] | None = None) -> Tensor | None:
        """The words of a layer's table in the order of their numbers; None where it has none, or keeps it otherwise.

        Args:
            layer: the object of the layer.
            config: its arguments; left out, only a table is taken that has the words alone.
        """
        owner = next((layer.children[name] for name in INNER if name in layer.children), layer)
        table = next((owner.children[name] for name in NAMES if name in owner.children), None)
        sides = None
        if table is not None:
            sides = self._changeable(table) if config is not None else None
            sides = sides or self._fixed(table)
        if sides is None:
            return None
        words, numbers = reversed(sides) if config and config.get("invert") else sides
        if words.shape != numbers.shape or len(words.shape) != 1:
            raise ReadError(f"a table with {words.shape} keys and {numbers.shape} values", where="lookup_table")

        ordered: npt.NDArray[Any] = words.numpy()[np.argsort(numbers.numpy(), kind="stable")]
        return Tensor.of(ordered[~np.isin(ordered, _specials(ordered, config or {}))])

    def _changeable(self, table: Object) -> tuple[Tensor, Tensor] | None:
        """Keys and values of a table that the checkpoint has."""
        for value in table.values.values():
            keys, values = (self._model.variables.get(f"{value.key}-{side}") for side in ("keys", "values"))
            if keys is not None and values is not None:
                return keys, values
        return None

    def _fixed(self, table: Object) -> tuple[Tensor, Tensor] | None:
        """Keys and values of a table that is filled from constants."""
        constants = [node for node in self._bound(table) if node.kind == "constant"]
        if len(constants) == 2:
            return self._constant(constants[0]), self._constant(constants[1])
        return None

    def _bound(self, table: Object) -> list[Object]:
        """What the function that fills a table is bound to, in order."""
        fill = table.children.get("_initialize")
        if fill is None or fill.kind != "function":
            return []
        if self._functions is None:
            graph = messages.parse(messages.SavedObjectGraph, self._model.extra[SAVED], where=SAVED)
            self._functions = graph.concrete_functions
        nodes = self._objects.nodes
        return [
            nodes[number]
            for name in fill.message.function.concrete_functions[:1]
            if name in self._functions
            for number in self._functions[name].bound_inputs
            if 0 <= number < len(nodes)
        ]

    def _constant(self, node: Object) -> Tensor:
        name = node.message.constant.operation
        if name in self._model.constants:
            return self._model.constants[name]
        if self._nodes is None:
            self._nodes = {found.name: found for found in self._model.graph.node if found.op == "Const"}
        if name not in self._nodes:
            raise ReadError("a table is filled from this constant, and the graph does not have it", where=name)
        return Tensor.of(dtypes.tensor_to_numpy(self._nodes[name].attr["value"].tensor, where=name))
