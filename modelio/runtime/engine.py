"""Layers to a graph by Keras itself: for what has no rule here, with the classes that the caller gives.

The model is built in memory, traced once in inference mode, and its variables are read into constants; large ones
become variables again, so that what comes out is a model like any other. No file is written on the way.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelio.errors import ConversionError
from modelio.graph.names import legal_name
from modelio.graph.surgery.renaming import rename
from modelio.graph.surgery.thawing import thaw
from modelio.inspection.report import report_of
from modelio.layers.dialects import translate
from modelio.model import GraphModel, LayerModel, Signature, TensorSpec
from modelio.runtime import keras
from modelio.runtime.tensorflow import tensorflow
from modelio.wire import messages

__all__ = ["exported"]

METHOD = "tensorflow/serving/predict"


def exported(model: LayerModel, custom_objects: Mapping[str, Any] | None = None) -> tuple[GraphModel, list[str]]:
    """The graph that Keras makes of a model; of Keras 1, what tf_keras makes of its translation.

    Args:
        model: the layers.
        custom_objects: classes and functions by name; none is looked up from the file, and no Lambda is unmarshalled.

    Raises:
        MissingDependency: TensorFlow, or the Keras that builds this dialect, is not installed.
        ConversionError: Keras does not build or trace the model, or it is larger than a graph can be.
    """
    changes: list[str] = []
    if model.dialect == "keras1":
        model, changes, _ = translate(model, "keras2")
    tf = tensorflow()
    architecture = {key: value for key, value in (model.architecture or {}).items() if key != "compile_config"}
    untrained = replace(model, architecture=architecture or None, training=None, optimizer={})
    live = keras.to_live(untrained, custom_objects)
    declared = report_of(model).signatures["serving_default"]
    specs = [tf.TensorSpec(spec.shape, spec.dtype, legal_name(key)) for key, spec in declared.inputs.items()]
    freezer = importlib.import_module("tensorflow.python.framework.convert_to_constants")
    try:
        names = list(declared.inputs)
        traced = tf.function(lambda *inputs: _flat(live(_packed(live, names, inputs), training=False)))
        frozen = freezer.convert_variables_to_constants_v2(traced.get_concrete_function(*specs))
        graph = messages.parse(messages.GraphDef, frozen.graph.as_graph_def().SerializeToString(), where="graph")
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise ConversionError(f"Keras cannot trace this model: {' '.join(str(error).split())[:600]}") from error
    signature = Signature(
        dict(zip(declared.inputs, map(_spec, frozen.inputs), strict=True)),
        dict(zip(declared.outputs, map(_spec, frozen.outputs), strict=True)),
        METHOD,
    )
    whole = GraphModel(graph, signatures={"serving_default": signature}, tags=frozenset({"serve"}), meta=model.meta)
    whole, _ = rename(whole, _own_names(whole))
    whole, thawed = thaw(whole)
    return whole, [*changes, f"lowered by Keras, on TensorFlow {tf.__version__}", *thawed]


def _packed(live: Any, names: list[str], inputs: tuple[Any, ...]) -> Any:
    """The inputs as the model was built to take them: one, a list, or a mapping by whatever keys."""
    built = getattr(live, "_inputs_struct", getattr(live, "_nested_inputs", None))  # Keras 3; tf_keras
    if isinstance(built, Mapping):
        given = dict(zip(names, inputs, strict=True))
        return {key: given[tensor.name] for key, tensor in built.items()}
    return inputs[0] if len(inputs) == 1 else list(inputs)


def _flat(outputs: Any) -> list[Any]:
    if isinstance(outputs, Mapping):
        return [one for key in outputs for one in _flat(outputs[key])]
    return [one for part in outputs for one in _flat(part)] if isinstance(outputs, (list, tuple)) else [outputs]


def _spec(tensor: Any) -> TensorSpec:
    shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
    return TensorSpec(tensor.name, tensor.dtype.name, shape)


def _own_names(model: GraphModel) -> dict[str, str]:
    """Output nodes are called as their outputs, where nothing else is."""
    taken = {node.name for node in model.graph.node}
    names = {}
    for key, spec in model.signatures["serving_default"].outputs.items():
        name = legal_name(key)
        if name not in taken:
            names[spec.tensor.partition(":")[0]] = name
            taken.add(name)
    return names
