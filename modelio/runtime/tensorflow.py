"""Live TensorFlow, the only module that imports it: models run in this process, in memory, without a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError, MissingDependency
from modelio.graph.variables import variable_keys
from modelio.model import GraphModel
from modelio.wire import dtypes
from modelio.wire.skim import splice

__all__ = ["callable_of"]


def callable_of(model: GraphModel, signature: str) -> Callable[..., dict[str, npt.NDArray[Any]]]:
    """A function that runs one signature: arrays in by input key, arrays out by output key.

    The graph is imported in memory and its variables are assigned there. A single input may be passed by position.

    Raises:
        MissingDependency: TensorFlow is not installed.
        ConversionError: no such signature, or a variable that the checkpoint does not hold.
    """
    tf = _tensorflow()
    if signature not in model.signatures:
        raise ConversionError(f"no signature is called {signature!r}; there are {', '.join(model.signatures)}")
    spec = model.signatures[signature]
    graph = tf.Graph()
    with graph.as_default():
        definition = tf.compat.v1.GraphDef.FromString(_whole(model))
        tf.graph_util.import_graph_def(definition, name="")
        session = tf.compat.v1.Session(graph=graph)
        _assign(tf, model, graph, session)
    feeds = {key: graph.get_tensor_by_name(end.tensor) for key, end in spec.inputs.items()}
    fetches = {key: graph.get_tensor_by_name(end.tensor) for key, end in spec.outputs.items()}

    def run(*positional: npt.ArrayLike, **named: npt.ArrayLike) -> dict[str, npt.NDArray[Any]]:
        given = dict(zip(feeds, positional, strict=False)) | named
        if len(positional) > len(feeds) or set(given) != set(feeds):
            raise TypeError(f"{signature} takes {', '.join(feeds)}; given were {', '.join(given) or 'none'}")
        values = {feeds[key]: np.asarray(value) for key, value in given.items()}
        answers: dict[str, npt.NDArray[Any]] = session.run(fetches, values)
        return answers

    return run


def _tensorflow() -> Any:
    try:
        import tensorflow
    except ImportError as error:
        raise MissingDependency("running a model needs TensorFlow: pip install 'modelio[tensorflow]'") from error
    return tensorflow


def _whole(model: GraphModel) -> bytes:
    """The graph as bytes, with the contents of its large constants put back."""
    return b"".join(splice(model.graph, [model.constants], where="the graph that TensorFlow is to run").chunks())


def _assign(tf: Any, model: GraphModel, graph: Any, session: Any) -> None:
    """Give every variable its value."""
    for node, key in variable_keys(model).items():
        handle = graph.get_tensor_by_name(f"{node}:0")
        tensor = model.variables[key]
        value = tf.compat.v1.placeholder(dtypes.dtype_name(dtypes.dtype_number(tensor.dtype)), tensor.shape)
        if handle.dtype == tf.resource:
            operation = tf.raw_ops.AssignVariableOp(resource=handle, value=value)
        else:
            operation = tf.raw_ops.Assign(ref=handle, value=value)
        session.run(operation, {value: tensor.numpy()})
