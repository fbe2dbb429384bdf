"""Graph to layers, where the graph says what its layers were.

An architecture that the caller gives is taken. Otherwise these are asked::

    assets.extra/modelio.json           notes of a graph that was lowered here (layers/notes.py)
    object_graph_def, keras_metadata.pb what tf.keras keeps of a model (keras_objects.py)
    assets/saved_model.json             the architecture that keras.experimental.export_saved_model wrote
                                        (TensorFlow 1.13 to 2.0, python/keras/saving/saved_model.py)

Nothing is told from the nodes alone: many architectures make the same graph.
"""

from __future__ import annotations

from modelio.errors import ConversionError
from modelio.graph.objects import Objects, saved_objects
from modelio.layers.document import from_json
from modelio.layers.notes import model_of
from modelio.lifting import keras_objects
from modelio.lifting.candidates import values_of
from modelio.lifting.matching import match
from modelio.model import GraphModel, LayerModel
from modelio.wire import jsontext

__all__ = ["lift"]


def lift(model: GraphModel, architecture: LayerModel | None = None) -> tuple[LayerModel, list[str]]:
    """The layers that a graph was made of, and what had to be found out on the way.

    Args:
        model: a graph; its weights are its variables, or the constants that they were frozen to.
        architecture: the layers to fill, where the graph does not say them, or is to be read as others; of its own
            weights the names are looked at, and no numbers.

    Raises:
        ConversionError: the graph does not say what its layers were, and no architecture is given.
        ReadError: the weights are not those of the architecture; all that are missing, left over or ambiguous are
            listed.
    """
    found, changes = _lifted(model, architecture)
    lost = sorted(set(model.signatures) - PLAIN)
    if lost:
        changes = [*changes, f"signatures that layers do not have: {', '.join(lost)}"]
    return found, changes


PLAIN = frozenset({"serving_default", "serve", "graph"})
"""Signatures that say no more than the layers do; "serve" is what Keras 3 calls it."""

ARCHITECTURE = "saved_model.json"


def _lifted(model: GraphModel, architecture: LayerModel | None) -> tuple[LayerModel, list[str]]:
    if architecture is not None:
        return match(model, architecture)
    noted = model_of(model.extra, values_of(model))
    if noted is not None:
        return noted, []
    objects = saved_objects(model)
    if objects is not None and keras_objects.is_keras(objects):
        return keras_objects.read(model, objects), []
    if ARCHITECTURE in model.assets:
        return match(model, from_json(model.assets[ARCHITECTURE].bytes(jsontext.SIZE)))
    raise ConversionError(_refusal(model, objects))


def _refusal(model: GraphModel, objects: Objects | None) -> str:
    if objects is not None and "_all_variables" in objects.root.children:
        return (
            "this is an export of Keras 3, which keeps the weights and not the layers: name the file that it was "
            f"exported from, or its architecture, with architecture=; {_kept(model)}"
        )
    return (
        "a graph does not say what layers it was made of: name the Keras file that it was made from, or its "
        f"architecture, with architecture=; {_kept(model)}"
    )


def _kept(model: GraphModel) -> str:
    if not model.variables:
        return "its constants that are weights are then matched to the layers by names and shapes"
    return f"its {len(model.variables)} variables are then matched to the layers by names and shapes"
