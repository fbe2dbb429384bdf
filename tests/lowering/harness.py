"""The question that every lowering rule is asked: are the graph's numbers those of Keras?

``assert_same(layer, x)`` lowers a live layer or model of Keras 3 or tf_keras, runs the graph on TensorFlow, and compares
with what the layer itself answers in inference. Every weight is filled with random numbers first: Keras starts biases
at zero and variances at one, which forgives too much.

Two answers are the same when shape and dtype are, and no element is further off than ``rtol`` times the largest
magnitude of the expected answer (or times one, where all of it is smaller). That is the error of a sum as floating
point makes it: it follows the size of what is added up, not of what is left after terms cancel. NaN and infinity must
be at the same places.

What the builder said about shapes is held against the answer too: a size that it knows must be the real one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from modelio.graph.tables import initializer_of
from modelio.lowering import lower
from modelio.model import GraphModel, LayerModel

__all__ = ["answers", "assert_same", "fill", "frameworks", "keras2", "keras3", "model_of", "run"]


@functools.cache
def _module(name: str) -> ModuleType:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    return pytest.importorskip(name)


def tensorflow() -> Any:
    """The module, or the test is skipped."""
    return _module("tensorflow")


def keras3() -> Any:
    """Keras 3 on TensorFlow, or the test is skipped."""
    tensorflow()
    return _module("keras")


def keras2() -> Any:
    """Keras 2 as tf_keras, or the test is skipped."""
    tensorflow()
    return _module("tf_keras")


def frameworks(*, only: Sequence[str] = ("keras3", "keras2")) -> Any:
    """``@frameworks()``: the test runs with ``keras`` as Keras 3 and as tf_keras."""
    loaders = {"keras3": keras3, "keras2": keras2}
    return pytest.mark.parametrize("keras", [pytest.param(_Late(loaders[name]), id=name) for name in only])


class _Late:
    """A module that is imported when something is first asked of it: collecting tests stays fast."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # pytest looks for marks and doctests
        return getattr(self._loader(), name)


def assert_same(
    model: Any,
    *inputs: Any,
    rtol: float = 1e-5,
    shapes: Sequence[tuple[int | None, ...]] | None = None,
    seed: int = 0,
    weights: str = "random",
    compiled: bool = False,
) -> GraphModel:
    """The graph of ``model`` answers what ``model(inputs, training=False)`` answers.

    Args:
        model: a model, or a layer, which becomes a model of that one layer (a layer of several inputs is called on a
            list of them).
        inputs: an array for each input.
        rtol: see the module's docstring.
        shapes: shape of each input as the model is told it, without the batch; left out, that of the array. None is an
            unknown size.
        seed: of the random weights.
        weights: ``"random"``, or ``"own"`` to keep those that the layer has.
        compiled: have the framework compile its own answer with XLA: some layers (channels first, mostly) run on a CPU
            in no other way.

    Returns:
        The graph, for further questions.
    """
    arrays = [np.asarray(array) for array in inputs]
    model = model_of(model, arrays, shapes)
    if weights == "random":
        fill(model, seed)
    expected = answers(model, arrays, compiled)
    graph, _ = lower(LayerModel.from_json(model.to_json(), model.get_weights()))
    _assert_close(run(graph, arrays), expected, rtol)
    for (name, spec), array in zip(graph.signatures["serving_default"].outputs.items(), expected, strict=True):
        assert spec.dtype == dtype_of(array), f"{name} is said to be {spec.dtype} and is {dtype_of(array)}"
        known = spec.shape or (None,) * array.ndim
        assert all(a in (None, b) for a, b in zip(known, array.shape, strict=True)), (
            f"{name} is said to be {known} and is {array.shape}"
        )
    return graph


def model_of(layer: Any, arrays: Sequence[np.ndarray], shapes: Sequence[tuple[int | None, ...]] | None = None) -> Any:
    """A model of one layer; a model stays as it is."""
    keras = _package(layer)
    if isinstance(layer, keras.Model):
        return layer
    feeds = [
        keras.Input(array.shape[1:] if shapes is None else shapes[index], dtype=dtype_of(array))
        for index, array in enumerate(arrays)
    ]
    return keras.Model(feeds if len(feeds) > 1 else feeds[0], layer(feeds if len(feeds) > 1 else feeds[0]))


def dtype_of(array: np.ndarray) -> str:
    """TensorFlow's name of an array's dtype."""
    return "string" if array.dtype.kind in "OSU" else array.dtype.name


def fill(model: Any, seed: int = 0) -> None:
    """Random numbers for every floating weight: normal, variances between 0.5 and 1.5. Others stay."""
    random = np.random.default_rng(seed)
    filled = []
    for weight, value in zip(model.weights, model.get_weights(), strict=True):
        if value.dtype.kind in "iub":
            filled.append(value)
        elif "variance" in weight.name:
            filled.append(random.uniform(0.5, 1.5, value.shape).astype(value.dtype))
        else:
            filled.append(random.normal(0.0, 0.5, value.shape).astype(value.dtype))
    model.set_weights(filled)


def answers(model: Any, arrays: Sequence[np.ndarray], compiled: bool = False) -> list[np.ndarray]:
    """What the framework itself answers, a list in the order of the model's outputs."""
    tf = tensorflow()

    def call(*feeds: Any) -> Any:
        return model(list(feeds) if len(feeds) > 1 else feeds[0], training=False)

    result = tf.function(call, jit_compile=True)(*map(tf.constant, arrays)) if compiled else call(*arrays)
    return [np.asarray(part.numpy() if hasattr(part, "numpy") else part) for part in tf.nest.flatten(result)]


def run(graph: GraphModel, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph's signature on TensorFlow, in order."""
    tf = tensorflow()
    definition = tf.compat.v1.GraphDef.FromString(graph.graph.SerializeToString())
    for node in definition.node:
        if node.name in graph.constants:
            tensor = tf.make_tensor_proto(graph.constants[node.name].numpy())
            node.attr["value"].tensor.CopyFrom(tensor)
    signature = graph.signatures["serving_default"]
    with tf.Graph().as_default() as live, tf.compat.v1.Session(graph=live) as session:
        tf.import_graph_def(definition, name="")
        assignments, feeds = [], {}
        for key, tensor in graph.variables.items():
            content = tf.compat.v1.placeholder(tensor.dtype, tensor.shape)
            handle = live.get_tensor_by_name(f"{key}:0")
            assignments.append(tf.raw_ops.AssignVariableOp(resource=handle, value=content))
            feeds[content] = tensor.numpy()
        session.run(assignments, feeds)
        start = initializer_of(graph)
        if start is not None:
            session.run(live.get_operation_by_name(start))
        placeholders = [spec.tensor for spec in signature.inputs.values()]
        fetches = [spec.tensor for spec in signature.outputs.values()]
        return session.run(fetches, dict(zip(placeholders, arrays, strict=True)))


def _assert_close(got: Sequence[np.ndarray], expected: Sequence[np.ndarray], rtol: float) -> None:
    assert len(got) == len(expected)
    for index, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        assert ours.shape == theirs.shape, f"output {index} is {ours.shape}, Keras makes {theirs.shape}"
        assert ours.dtype == theirs.dtype, f"output {index} is {ours.dtype}, Keras makes {theirs.dtype}"
        if ours.dtype.kind not in "fcV":
            np.testing.assert_array_equal(ours, theirs)
            continue
        a, b = ours.astype(np.float64), theirs.astype(np.float64)
        finite = np.isfinite(b)
        np.testing.assert_array_equal(np.where(finite, 0, a), np.where(finite, 0, b))
        assert np.isfinite(a[finite]).all(), f"output {index} is not finite where Keras is"
        largest = np.abs(b[finite]).max(initial=1.0)
        worst = np.abs(a[finite] - b[finite]).max(initial=0.0)
        assert worst <= rtol * largest, f"output {index} is off by {worst:.3g} of {largest:.3g}"


def _package(layer: Any) -> Any:
    """The Keras that a layer or model belongs to."""
    for base in type(layer).__mro__:
        root = base.__module__.partition(".")[0]
        if root in ("keras", "tf_keras"):
            return keras3() if root == "keras" else keras2()
    raise TypeError(f"{type(layer).__name__} is of neither keras nor tf_keras")
