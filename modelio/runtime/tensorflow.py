"""Live TensorFlow: models run in this process, in memory, without a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError, MissingDependency
from modelio.graph.analysis import Graph
from modelio.graph.loading import ASSIGNS
from modelio.graph.names import VARIABLES
from modelio.graph.references import node_of
from modelio.graph.surgery.filling import TABLES
from modelio.graph.surgery.freezing import freeze
from modelio.graph.surgery.inlining import inline
from modelio.graph.surgery.pruning import prune, reached
from modelio.graph.variables import by_name, values_of
from modelio.inspection.report import SignatureReport, report_of
from modelio.model import GraphModel, TensorSpec
from modelio.wire import dtypes, messages
from modelio.wire.skim import splice

__all__ = ["callable_of", "tensorflow"]


def callable_of(model: GraphModel, signature: str) -> Callable[..., dict[str, npt.NDArray[Any]]]:
    """A function that runs one signature: arrays in by input key, arrays out by output key.

    The graph is imported in memory and its variables are assigned there; tables are filled from what a loader would
    read. A single input may be passed by position. A placeholder that the graph needs beside its declared inputs is
    passed under its own name; an input that no output needs may be left out.

    Raises:
        MissingDependency: TensorFlow is not installed.
        ConversionError: no such signature, a variable without a value, or a graph that TensorFlow refuses.
    """
    tf = tensorflow()
    if signature not in model.signatures:
        raise ConversionError(f"no signature is called {signature!r}; there are {', '.join(model.signatures)}")
    report = report_of(model).only(signature).signatures[signature]
    needed = _needed(model, signature)
    session = _loaded(tf, needed)
    graph = session.graph
    ends = {**report.inputs, **{item.name: _end_of(item) for item in report.undeclared}}
    feeds = {key: graph.get_tensor_by_name(end.tensor) for key, end in ends.items()}
    answers_at = needed.signatures[signature].outputs  # where a call was replaced, its results are elsewhere now
    fetches = {key: graph.get_tensor_by_name(answers_at[key].tensor) for key in report.outputs}

    def run(*positional: npt.ArrayLike, **named: npt.ArrayLike) -> dict[str, npt.NDArray[Any]]:
        given = dict(zip(report.inputs, positional, strict=False)) | named
        _check_names(signature, report, len(positional), given)
        values = {feeds[key]: _checked(key, ends[key], value) for key, value in given.items()}
        answers: dict[str, npt.NDArray[Any]] = session.run(fetches, values)
        return answers

    return run


# -- the graph ---------------------------------------------------------------------------------------------------------


def _needed(model: GraphModel, signature: str) -> GraphModel:
    """What this signature needs, without functions; its variables by the names that its nodes share them under."""
    one = replace(model, signatures={signature: model.signatures[signature]})
    flat, _ = inline(one)
    inputs = [node_of(spec.tensor) for spec in flat.signatures[signature].inputs.values()]
    needed = by_name(prune(flat, keep=inputs)[0])
    functions = needed.graph.library.function
    nodes = [*needed.graph.node, *(node for function in functions for node in function.node_def)]
    if any(node.op in TABLES for node in nodes):
        return freeze(one)[0]  # its tables are then filled by the first request, from memory
    return needed


def _loaded(tf: Any, model: GraphModel) -> Any:
    """A session in which the model's graph is, and its variables have their values."""
    graph = tf.Graph()
    with graph.as_default():
        definition = tf.compat.v1.GraphDef.FromString(_whole(model))
        try:
            tf.graph_util.import_graph_def(definition, name="")
        except ValueError as error:
            raise ConversionError(f"TensorFlow {tf.__version__} refuses the graph: {error}") from error
        config = tf.compat.v1.ConfigProto()
        # It fuses a convolution in groups with its bias where both are constants, and there is no kernel for that.
        config.graph_options.rewrite_options.remapping = config.graph_options.rewrite_options.OFF
        session = tf.compat.v1.Session(graph=graph, config=config)
        _assign(tf, model, graph, session)
    return session


def _whole(model: GraphModel) -> bytes:
    """The graph as bytes, with the contents of its large constants put back."""
    graph = messages.GraphDef()
    graph.CopyFrom(model.graph)
    for node in graph.node:
        node.attr.pop("_output_shapes", None)  # notes of the version that wrote it, which a newer one may call wrong
        node.attr.pop("_class", None)  # "on the device of": of nodes that may be gone
    return b"".join(splice(graph, [model.constants], where="the graph that TensorFlow is to run").chunks())


def _assign(tf: Any, model: GraphModel, graph: Any, session: Any) -> None:
    """Give every variable its value."""
    values = values_of(model)
    index = Graph(model.graph)
    ends = [spec.tensor for signature in model.signatures.values() for spec in signature.outputs.values()]
    needed = reached(index, ends)
    written = {node_of(index.node(name).input[0]) for name in needed if index.node(name).op in ASSIGNS}
    for node in model.graph.node:
        if node.op not in VARIABLES or (node.name not in values and node.name not in needed - written):
            continue
        if node.name not in values:
            asset = " but the path of an asset, a file that is nowhere here" if model.assets else ""
            raise ConversionError(f"the variable {node.name} has no value{asset}", where=str(node.name))
        handle = graph.get_tensor_by_name(f"{node.name}:0")
        tensor = values[node.name]
        value = tf.compat.v1.placeholder(dtypes.dtype_name(dtypes.dtype_number(tensor.dtype)), tensor.shape)
        if handle.dtype == tf.resource:
            operation = tf.raw_ops.AssignVariableOp(resource=handle, value=value)
        else:
            operation = tf.raw_ops.Assign(ref=handle, value=value)
        session.run(operation, {value: tensor.numpy()})


# -- what is fed -------------------------------------------------------------------------------------------------------


def _end_of(placeholder: Any) -> TensorSpec:
    return TensorSpec(f"{placeholder.name}:0", placeholder.dtype, placeholder.shape)


def _check_names(signature: str, report: SignatureReport, positional: int, given: Mapping[str, Any]) -> None:
    known = [*report.inputs, *(item.name for item in report.undeclared)]
    wanted = set(known) - set(report.unneeded)
    if positional <= len(report.inputs) and wanted <= set(given) <= set(known):
        return
    undeclared = [item.name for item in report.undeclared]
    beside = f", and needs {', '.join(undeclared)}, which it does not declare" if undeclared else ""
    raise TypeError(f"{signature} takes {', '.join(report.inputs)}{beside}; given were {', '.join(given) or 'none'}")


def _checked(key: str, spec: TensorSpec, value: npt.ArrayLike) -> npt.NDArray[Any]:
    """The array that is fed, in the input's own dtype."""
    array = np.asarray(value)
    dtype = dtypes.numpy_dtype(dtypes.dtype_number(spec.dtype), where=key)
    if dtype.kind == "O":
        if array.dtype.kind not in "OSU":
            raise TypeError(f"{key} is of strings, and was given {array.dtype}")
    elif not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"{key} is {spec.dtype}, and was given {array.dtype}, which does not fit it")
    fits = spec.shape is None or (
        len(spec.shape) == array.ndim
        and all(size in (None, given) for size, given in zip(spec.shape, array.shape, strict=True))
    )
    if not fits:
        raise ValueError(f"{key} has the shape {spec.shape}, and was given {array.shape}")
    return array.astype(dtype)


def tensorflow() -> Any:
    """The module, where it is installed; MissingDependency where not."""
    try:
        import tensorflow
    except ImportError as error:
        raise MissingDependency("running a model needs TensorFlow: pip install 'modelio[tensorflow]'") from error
    return tensorflow
