"""What tf.keras leaves of a model in a SavedModel: its architecture as JSON, its weights as objects of the graph.

::

    root                                 metadata: class_name, config, keras_version, model_config, training_config
     |- keras_api/layers/0, 1, ...       the layers, in the order of model.layers; metadata: name, class_name, config
     |   |- trainable_variables/0 ...        its weights, as Keras orders them: with those of the layers inside it,
     |   '- keras_api/non_trainable_variables/0 ...    trained ones first
     '- optimizer                        iter and slots, or, since TensorFlow 2.11, _variables/0, 1, ...

The metadata of an object is JSON: in ``keras_metadata.pb`` since TensorFlow 2.5, in the object itself before. It spells
tuples and shapes as ``{"class_name": "__tuple__", "items": [...]}``, and numbers the objects that are shared
(``shared_object_id``); the JSON of ``model.to_json()``, which is what comes out here, has lists, and no numbers.

A layer of preprocessing is rebuilt from its config, so that it has no lists of variables: they are its children, and
its vocabulary is a table (:mod:`modelio.lifting.tables`).

Sources: ``tensorflow/python/keras/saving/saved_model/*.py`` (TensorFlow 2.4), tf_keras 2.21
``src/saving/legacy/saved_model/{layer,model}_serialization.py``, ``save_impl.py``, ``json_utils.py``,
``src/saving/legacy/hdf5_format.py`` (what is in which order beside it), ``src/optimizers/legacy/optimizer_v2.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelio.errors import ConversionError, ReadError
from modelio.graph.objects import VALUE, Object, Objects
from modelio.layers.binding import OWN
from modelio.layers.layouts import stored_of
from modelio.layers.network import Layer, Network, network_of
from modelio.layers.order import trained_first
from modelio.lifting.tables import Tables
from modelio.model import GraphModel, LayerModel, Tensor
from modelio.wire import jsontext, messages

__all__ = ["METADATA", "is_keras", "read"]

METADATA = "keras_metadata.pb"
"""The key of a model's ``extra`` that holds what Keras says of its objects."""

MODELS = frozenset({"_tf_keras_model", "_tf_keras_network", "_tf_keras_sequential"})
"""How Keras marks its objects (tf_keras ``src/saving/legacy/saved_model/constants.py``)."""


def is_keras(objects: Objects) -> bool:
    """Whether the root is a model, or a layer, of tf.keras."""
    return _identifier(objects.root).startswith("_tf_keras_")


def _identifier(node: Object) -> str:
    return str(node.message.user_object.identifier) if node.kind == "user_object" else ""


def read(model: GraphModel, objects: Objects) -> LayerModel:
    """The layers that a SavedModel of tf.keras was made of.

    Raises:
        ConversionError: the model is a Python class, whose layers no file holds.
        ReadError: what Keras says of its objects is damaged, or its variables are not in the checkpoint.
    """
    metadata = _Metadata(model, objects)
    facts = metadata.of(objects.root)
    architecture = _architecture(facts, _identifier(objects.root), len(objects.keys()))
    meta = {name: str(facts[name]) for name in ("keras_version", "backend") if facts.get(name)}
    training = facts.get("training_config")
    if training is not None and not isinstance(training, dict):
        raise ReadError("training_config is no JSON object", where=METADATA)
    reader = _Reader(model, objects, metadata, network_of(architecture, "keras2", meta))
    return LayerModel(
        architecture=architecture,
        weights=reader.weights(),
        dialect="keras2",
        training=training,
        optimizer=reader.optimizer(training),
        meta=meta,
    )


# -- what Keras says of its objects ------------------------------------------------------------------------------------


class _Metadata:
    """The JSON of each object, parsed when it is asked for."""

    def __init__(self, model: GraphModel, objects: Objects) -> None:
        self._texts: dict[int, str] = {}
        self._read: dict[int, dict[str, Any]] = {}
        if METADATA in model.extra:
            saved = messages.parse(messages.SavedMetadata, model.extra[METADATA], where=METADATA)
            self._texts = {node.node_id: node.metadata for node in saved.nodes}
        else:
            for node in objects.nodes:
                if _identifier(node).startswith("_tf_keras_"):
                    self._texts[node.number] = node.message.user_object.metadata

    def of(self, node: Object) -> dict[str, Any]:
        """What Keras says of one object; nothing where it is none of Keras'."""
        if node.number not in self._read:
            text = self._texts.get(node.number, "")
            where = f"{METADATA}, object {node.number}"
            value = _plain(jsontext.parse(text, where=where)) if text else {}
            if not isinstance(value, dict):
                raise ReadError("the metadata of an object is no JSON object", where=where)
            self._read[node.number] = value
        return self._read[node.number]

    def name(self, node: Object) -> str | None:
        """The name of a layer."""
        facts = self.of(node)
        config = facts.get("config")
        name = facts.get("name") or (config.get("name") if isinstance(config, dict) else None)
        return name if isinstance(name, str) else None


def _plain(value: Any) -> Any:
    """The JSON as ``model.to_json()`` spells it: tuples and shapes as lists, no numbers of shared objects."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") in ("__tuple__", "TensorShape") and "items" in value:
        return _plain(value["items"])
    return {key: _plain(item) for key, item in value.items() if key not in _OF_ONE_FILE}


_OF_ONE_FILE = frozenset({"shared_object_id", "has_input_vocabulary"})
"""Keys that are in the metadata alone: numbers of objects, and whether an IndexLookup has a vocabulary among its
arguments, which these say themselves (tf_keras 2.21 ``layer_serialization.py``, VocabularySavedModelSaver)."""


def _architecture(facts: Mapping[str, Any], identifier: str, count: int) -> dict[str, Any]:
    """The architecture of the root, which must be a model whose layers were written down."""
    kept = f"its {count} variables are there: name the layers that they belong to with architecture="
    if identifier not in MODELS:
        raise ConversionError(f"what was saved is a single layer of Keras, and no model; {kept}")
    found = facts.get("model_config")
    if not isinstance(found, dict):
        found = {key: facts[key] for key in ("class_name", "config") if key in facts}
    config = found.get("config")
    layers = config.get("layers") if isinstance(config, dict) else config
    if not isinstance(layers, list):
        name = str(found.get("class_name") or facts.get("name") or "this")
        reason = (
            "one of its layers could not say how it was made (get_config)"
            if name in ("Functional", "Model", "Sequential")
            else "it is written as a Python class, whose layers no file holds"
        )
        raise ConversionError(f"{name} was saved without its architecture: {reason}; {kept}")
    return found


# -- variables ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reader:
    """Finds the variables of layers."""

    model: GraphModel
    objects: Objects
    metadata: _Metadata
    network: Network

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Layer -> weight -> tensor, layers as ``model.layers`` has them, weights as HDF5 files do."""
        root = self.objects.root
        known = {layer.name: layer for layer in self.network.layers}
        tables = Tables(self.model, self.objects)
        weights: dict[str, dict[str, Tensor]] = {}
        taken: set[int] = set()
        for layer in self._layers(root):
            name = self.metadata.name(layer)
            if name is None:
                raise ReadError("a layer has no name", where=f"{METADATA}, object {layer.number}")
            variables = self._variables(layer)
            weights[name] = self._named(variables, name)
            taken.update(variable.number for variable in variables)
            if name in known:
                weights[name] = self._with_vocabularies(weights[name], known[name], layer, tables)
        for metric in _items(root, "keras_api", "metrics"):
            taken.update(child.number for child in metric.children.values())
        own = [variable for variable in self._listed(root) if variable.number not in taken]
        return {**weights, OWN: self._named(own, OWN)} if own else weights

    def _layers(self, root: Object) -> list[Object]:
        listed = _items(root, "keras_api", "layers")
        if listed:
            return listed
        # "layer-3" and "layer_with_weights-1": children of a model since TensorFlow 2.0 (its network.py)
        return [child for name, child in root.children.items() if name.startswith("layer-")]

    def _variables(self, layer: Object) -> list[Object]:
        """The variables of a layer and of all inside it, trained ones first."""
        if "variables" in layer.children:
            return self._listed(layer)
        return [node for node in _below(layer) if node.kind == "variable"]

    def _listed(self, layer: Object) -> list[Object]:
        trained = _items(layer, "trainable_variables")
        others = _items(layer, "keras_api", "non_trainable_variables")
        return list({node.number: node for node in [*trained, *others] if node.kind == "variable"}.values())

    def _named(self, variables: list[Object], owner: str) -> dict[str, Tensor]:
        named: dict[str, Tensor] = {}
        for number, variable in enumerate(variables):
            name = _name(variable) or f"{owner}/{number}:0"
            named[name if name not in named else f"{name}_{number}"] = self.tensor(variable)
        return named

    def _with_vocabularies(
        self, group: dict[str, Tensor], layer: Layer, node: Object, tables: Tables
    ) -> dict[str, Tensor]:
        """The weights of a layer with the tables that tf_keras counts among them, each in its place."""
        slots = trained_first(layer, lambda part: stored_of(part) or ())
        if all(slot.stored.name != VOCABULARY for slot in slots):
            return group
        owners = {self.metadata.name(inner): inner for inner in _layers_below(node)}
        whole: dict[str, Tensor] = {}
        left = dict(group)
        for slot in slots:
            if slot.stored.name != VOCABULARY:
                name = next(iter(left), None)
            elif slot.layer.name in owners:
                name = f"{slot.layer.name}/{VOCABULARY}:0"
                table = tables.vocabulary(owners[slot.layer.name], slot.layer.config)
                left.update({name: table} if table is not None else {})
            if name in left:
                whole[name] = left.pop(name)
        return {**whole, **left}

    def tensor(self, variable: Object) -> Tensor:
        key = variable.key
        if key is None or key not in self.model.variables:
            raise ReadError("the checkpoint does not have this variable", where=_name(variable))
        return self.model.variables[key]

    # -- the optimizer -------------------------------------------------------------------------------------------------

    def optimizer(self, training: Mapping[str, Any] | None) -> dict[str, Tensor]:
        """The optimizer's state as HDF5 files have it; none where the model was not compiled, or not trained."""
        optimizer = self.objects.root.children.get("optimizer")
        if optimizer is None or training is None:
            return {}
        variables = _items(optimizer, "_variables") or self._slots(optimizer, training)
        return self._named([variable for variable in variables if variable.kind == "variable"], "optimizer")

    def _slots(self, optimizer: Object, training: Mapping[str, Any]) -> list[Object]:
        """Step count and slots in the order of ``optimizer.weights``: slot by slot, each for all trained weights."""
        trained = {node.number: place for place, node in enumerate(_items(self.objects.root, "trainable_variables"))}
        slots = [slot for slot in optimizer.slots if slot.variable.number in trained]
        names = list(dict.fromkeys(slot.name for slot in slots))
        by_variable = _class_name(training) in INTERLEAVED

        def place(number: int, name: str) -> tuple[int, int]:
            at = (names.index(name), trained[number])
            return (at[1], at[0]) if by_variable else at

        slots.sort(key=lambda slot: place(slot.variable.number, slot.name))
        steps = optimizer.children.get("iter")
        if steps is None or not (slots or self.tensor(steps).numpy().any()):
            return []  # its step count is made when it is first asked for: saving in HDF5 does not ask, this does
        own = [optimizer.children[name] for name in COUNTERS if name in optimizer.children]
        return own + [slot.state for slot in slots]


VOCABULARY = "vocabulary"
"""The role of a table in the catalogue."""

COUNTERS = ("iter", "momentum_cache")
"""What an optimizer of TensorFlow 2.0 to 2.10 has among its weights besides slots: its steps, and Nadam's product of
momenta. Learning rate and decay are in the checkpoint, too, and not among them (``optimizer_v2.py``, ``nadam.py``)."""

INTERLEAVED = frozenset({"Ftrl"})
"""Optimizers that make all slots of a variable before those of the next (``optimizer_v2/ftrl.py`` _create_slots)."""


def _class_name(training: Mapping[str, Any]) -> str:
    config = training.get("optimizer_config")
    name = config.get("class_name") if isinstance(config, Mapping) else None
    return str(name).rpartition(">")[2]


def _items(node: Object, *names: str) -> list[Object]:
    """What the list at a path of names has, in order."""
    here: Object | None = node
    for name in names:
        here = here.children.get(name) if here is not None else None
    if here is None:
        return []
    numbered = {int(name): child for name, child in here.children.items() if name.isdecimal()}
    return [numbered[number] for number in sorted(numbered)]


def _below(layer: Object) -> Iterator[Object]:
    """A layer and all objects that are its attributes, or those of the layers in it, each once."""
    seen: set[int] = set()
    waiting = [layer]
    while waiting:
        here = waiting.pop()
        if here.number not in seen:
            seen.add(here.number)
            yield here
            if here is layer or _identifier(here).startswith("_tf_keras_"):
                waiting.extend(reversed(here.children.values()))


def _layers_below(layer: Object) -> Iterator[Object]:
    return (node for node in _below(layer) if _identifier(node).startswith("_tf_keras_"))


def _name(variable: Object) -> str | None:
    """The name of a variable as HDF5 files have it: ``dense/kernel:0``."""
    saved = variable.message.variable.name if variable.kind == "variable" else ""
    value = variable.values.get(VALUE)
    name = saved or (value.full_name if value else "")
    return f"{name}:0" if name else None
