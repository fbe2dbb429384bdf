"""Layers that stand in several models at once: every file that tells which calls are whose is read as it was meant.

Keras itself cannot load most of these files; what it answered before it saved them is what counts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelio
from modelio.errors import ReadError
from modelio.layers.network import network_of
from modelio.lowering import lower

MODELS: dict[str, Callable[[Any, Any], Any]] = {}


def model(build: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    MODELS[build.__name__] = build
    return build


@model
def outside_and_inside(keras, layers):
    shared = layers.Dense(4, name="shared")
    inside = keras.Input((4,), name="inside")
    inner = keras.Model(inside, layers.Dense(4, name="other")(shared(inside)), name="inner")
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Add(name="add")([shared(x), inner(x)]))


@model
def called_twice(keras, layers):
    inside = keras.Input((4,), name="inside")
    inner = keras.Model(inside, layers.Dense(4, name="dense")(inside), name="inner")
    x = keras.Input((4,), name="x")
    return keras.Model(x, inner(inner(x)))


@model
def same_names_inside(keras, layers):
    inside = keras.Input((4,), name="x")
    inner = keras.Model(inside, layers.Dense(4, name="dense")(inside), name="inner")
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(3, name="dense")(inner(x)))


@model
def a_part_is_a_model(keras, layers):
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    hidden = layers.Dense(4, name="hidden")(x)
    part = keras.Model(x, hidden, name="part")
    return keras.Model([x, y], [layers.Dense(4, name="head")(hidden), layers.Dense(2, name="other")(part(y))])


@model
def three_levels(keras, layers):
    shared = layers.Dense(4, name="shared")
    inside = keras.Input((4,), name="inside")
    inner = keras.Model(inside, shared(inside), name="inner")
    between = keras.Input((4,), name="between")
    middle = keras.Model(between, layers.Add(name="sum")([inner(between), shared(between)]), name="middle")
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Concatenate(name="all")([middle(x), inner(x), shared(x)]))


@model
def in_a_sequential(keras, layers):
    shared = layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared, layers.Activation("relu", name="relu")], name="inner")
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Add(name="add")([inner(x), shared(x)]))


@model
def in_two_models(keras, layers):
    shared = layers.Dense(4, name="shared")
    a, b, x = (keras.Input((4,), name=name) for name in "abx")
    once = keras.Model(a, shared(a), name="once")
    twice = keras.Model(b, shared(shared(b)), name="twice")
    return keras.Model(x, layers.Concatenate(name="all")([once(x), twice(x), shared(x)]))


@model
def in_a_wrapper(keras, layers):
    inside = keras.Input((4,), name="inside")
    inner = keras.Model(inside, layers.Dense(3, name="dense")(inside), name="inner")
    x, y = keras.Input((5, 4), name="x"), keras.Input((4,), name="y")
    return keras.Model([x, y], [layers.TimeDistributed(inner, name="each")(x), inner(y)])


@model
def ends_in_another_order(keras, layers):
    a, b, x, y = (keras.Input((4,), name=name) for name in "abxy")
    dense = layers.Dense(4, name="dense")
    outputs = [layers.Add(name="sum")([dense(a), dense(b)]), layers.Multiply(name="product")([dense(a), b])]
    inner = keras.Model([a, b], outputs, name="inner")
    first, second = inner([x, y])
    third, fourth = inner([second, first])
    return keras.Model([y, x], [fourth, third, second])


LOST = {("tf_keras", "outside_and_inside")}
"""In an .h5 file tf_keras 2.21 writes the inner calls in place of the outer ones, and stops at it when it loads."""


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("framework", ["keras", "tf_keras"])
def test_a_shared_layer_is_one_layer(framework, name, ending, request, tmp_path):
    keras = request.getfixturevalue(framework)
    built = MODELS[name](keras, keras.layers)
    values = np.random.default_rng(1)
    for weight in built.weights:
        weight.assign(values.normal(size=weight.shape) / 2)
    inputs = [values.normal(size=(3, *x.shape[1:])).astype("float32") for x in built.inputs]
    outputs = built(inputs if len(inputs) > 1 else inputs[0])
    path = tmp_path / f"model.{ending}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of each, against its older format
        built.save(path)
    if ending == "h5" and (framework, name) in LOST:
        with pytest.raises(ReadError, match="there is no layer 'inside'; where this layer also stands in a model"):
            modelio.read(path).get_weights()
        return
    if ending == "keras":
        found, kept = modelio.read(path).get_weights(), built.get_weights()
        assert len(found) == len(kept)
        assert all(np.array_equal(a, b) for a, b in zip(found, kept, strict=True))
    check(path, inputs, outputs)
    done = modelio.convert(path, to="keras-zip", dialect="keras3" if framework == "tf_keras" else "keras2")
    check(done.data, inputs, outputs)


def check(source: Path | bytes, inputs: list[np.ndarray], outputs: Any) -> None:
    graph, _ = lower(modelio.read(source))
    signature = graph.signatures["serving_default"]
    answers = modelio.to_callable(graph)(**dict(zip(signature.inputs, inputs, strict=True)))
    for key, wanted in zip(signature.outputs, outputs if isinstance(outputs, list) else [outputs], strict=True):
        np.testing.assert_allclose(answers[key], wanted, rtol=1e-5, atol=1e-6)


# -- calls as Keras 3.0 counts them ------------------------------------------------------------------------------------


def tensor(layer: str, call: int) -> dict[str, Any]:
    config = {"shape": [None, 4], "dtype": "float32", "keras_history": [layer, call, 0]}
    return {"class_name": "__keras_tensor__", "config": config}


def node(class_name: str, name: str, *calls: Any, **config: Any) -> dict[str, Any]:
    inbound = [{"args": [call], "kwargs": {}} for call in calls]
    own = {"name": name, **config}
    return {"module": "keras.layers", "class_name": class_name, "name": name, "config": own, "inbound_nodes": inbound}


def functional(layers: list[dict[str, Any]], ends: list[Any]) -> dict[str, Any]:
    config = {"name": "model", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": ends}
    return {"module": "keras.src.models.functional", "class_name": "Functional", "config": config}


X = node("InputLayer", "x", batch_shape=[None, 4])


@pytest.mark.parametrize(
    ("calls", "ends", "inputs"),
    [
        # Keras 3.0.5, called on its own output; one call before, in another model
        ([("x", 0), ("shared", 1)], [["shared", 1, 0]], [[], [0], [1]]),
        # the same in later versions, which number anew
        ([("x", 0), ("shared", 0)], [["shared", 1, 0]], [[], [0], [1]]),
        # three calls, and two elsewhere
        ([("x", 0), ("shared", 2), ("shared", 3)], [["shared", 2, 0]], [[], [0], [1], [2]]),
    ],
)
def test_calls_in_other_models_are_counted_by_keras_3_0(calls, ends, inputs):
    shared = node("Dense", "shared", *(tensor(*call) for call in calls), units=4)
    network = network_of(functional([X, shared], ends), "keras3", {"keras_version": "3.0.5"})
    assert [[ref.call for ref in call.refs()] for call in network.calls] == inputs


def test_a_call_that_is_not_listed():
    add = node("Add", "add", [tensor("shared", 3), tensor("shared", 1)])
    shared = node("Dense", "shared", tensor("x", 0), units=4)
    with pytest.raises(ReadError, match="of 'shared' is used, but the file lists 1"):
        network_of(functional([X, shared, add], [["add", 0, 0]]), "keras3")
