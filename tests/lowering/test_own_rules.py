"""Layers of one's own, a Lambda's replacement, and Keras as the engine for what has no rule."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import modelio
from modelio.lowering import rules
from tests.corpus import case, cases, golden
from tests.lowering.harness import frameworks

LAMBDA = cases(model="lambda", file="model.h5")
pytestmark = pytest.mark.filterwarnings("ignore:saved-model|frozen-graph:UserWarning", "ignore::DeprecationWarning")


@pytest.fixture
def registry(monkeypatch):
    """The registered rules, as they were before the test; all of them, since a module registers its own once."""
    rules.find("no such class")
    monkeypatch.setattr(rules, "_RULES", dict(rules._RULES))


def scaled(k, **config):
    """A model with a layer that only its author has."""

    class Scale(k.layers.Layer):
        def __init__(self, power=1, **more):
            super().__init__(**more)
            self.power = power

        def build(self, shape):
            self.factor = self.add_weight(name="factor", shape=(shape[-1],), initializer="random_normal")

        def call(self, x):
            return x * self.factor**self.power

        def get_config(self):
            return {**super().get_config(), "power": self.power}

    x = k.Input((3,), name="x")
    return k.Model(x, k.layers.Dense(2, name="y")(Scale(2, name="own", **config)(x))), Scale


X = np.random.default_rng(0).normal(0, 1, (4, 3)).astype("float32")


@frameworks()
@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_rule_for_a_class_of_ones_own(keras, suffix, registry, tmp_path):
    live, _ = scaled(keras)
    path = tmp_path / f"model.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "HDF5 is legacy"
        live.save(path)
    with pytest.raises(modelio.ConversionError, match=r"no rule makes a graph of 1 layer: own \(.*Scale\)") as caught:
        modelio.convert(path, to="saved-model")
    assert len(caught.value.unsupported) == 1

    @modelio.rule("Scale")
    def scale(g, layer, x):
        assert layer.config["power"] == 2
        return g.Mul(x, g.Square(layer.weight(0)))

    np.testing.assert_allclose(modelio.to_callable(path)(X)["y"], live(X).numpy(), rtol=1e-5)


@frameworks()
def test_a_weight_that_is_not_there_is_named(keras, registry):
    model = modelio.from_keras(scaled(keras)[0])

    def wrong(g, layer, x):
        return g.Mul(x, layer.weight("gain"))

    with pytest.raises(modelio.ConversionError, match="no weight 'gain' of this layer; there are: factor"):
        modelio.to_callable(model, rules={"Scale": wrong})


@pytest.mark.parametrize("one", LAMBDA, ids=str)
def test_a_rule_instead_of_a_lambda(one):
    """The Lambda of the corpus is ``2 x + 1``; its code in the file is never looked at."""
    inputs, outputs = golden(one)
    model = modelio.read(one / "model.h5")
    with pytest.raises(modelio.ConversionError, match="Lambda"):
        modelio.convert(model, to="frozen-graph")

    def replaced(g, layer, x):
        return g.Add(g.Mul(x, 2.0), 1.0)

    names = [layer for layer in modelio.inspect(model).layers if layer.class_name == "Lambda"]
    answers = modelio.to_callable(model, rules={names[0].name: replaced})(*inputs)
    np.testing.assert_allclose(*answers.values(), outputs[0], rtol=1e-5)
    blob = modelio.convert(model, to="frozen-graph", rules={"Lambda": replaced}, verify=True).data
    np.testing.assert_allclose(*modelio.to_callable(blob)(*inputs).values(), outputs[0], rtol=1e-5)


def test_an_own_rule_comes_before_the_built_in_one():
    model = modelio.read(case("keras-2.0.5_tf-1.2.1/mlp") / "model.h5")

    def nothing(g, layer, x):
        return g.Mul(x, 0.0)

    last = modelio.inspect(model).layers[-1].name
    answers = modelio.to_callable(model, rules={last: nothing})(np.ones((1, 64), "float32"))
    assert not answers[last].any()


def test_verify_refuses_another_result_and_writes_nothing(tmp_path, monkeypatch):
    """A lowering with a fault in it: what the check is for."""
    pytest.importorskip("tensorflow")
    rules.find("Dropout")
    faulty = {**rules._RULES, "Dropout": lambda g, layer, x: g.Mul(x, 0.5)}
    model = modelio.read(case("keras-2.0.5_tf-1.2.1/cnn") / "model.h5")
    blob = modelio.convert(model, to="frozen-graph", rules={"Dropout": faulty["Dropout"]}).data
    assert not modelio.verify(model, blob).equal

    from modelio import routes

    right = routes._lower
    monkeypatch.setattr(routes, "_lower", lambda m, how=None: right(m, routes.Lowering({"Dropout": faulty["Dropout"]})))
    step = next(step for step in routes.STEPS if step.name == "lower")
    monkeypatch.setattr(routes, "STEPS", (routes.Step("lower", "layers", "graph", routes._lower, step.loses),))
    monkeypatch.setattr(routes, "run", lambda m, name, how=None: _run(m, name, right))
    with pytest.raises(modelio.ConversionError, match="not the same as the source"):
        modelio.convert(model, tmp_path / "out", to="saved-model", verify=True)
    assert list(tmp_path.iterdir()) == []


def _run(model, name, lower):
    from modelio.runtime.tensorflow import callable_of

    graph = lower(model)[0] if isinstance(model, modelio.LayerModel) else model
    return callable_of(graph, name)


# -- Keras as the engine -----------------------------------------------------------------------------------------------


@frameworks()
def test_the_engine_takes_classes_from_the_caller_alone(keras, tmp_path):
    live, scale = scaled(keras)
    live.save(tmp_path / "model.keras")
    done = modelio.convert(
        tmp_path / "model.keras",
        tmp_path / "export",
        to="saved-model",
        engine="tensorflow",
        custom_objects={"Scale": scale},
    )
    assert any("lowered by Keras" in change for change in done.changes)
    np.testing.assert_allclose(modelio.to_callable(tmp_path / "export")(x=X)["y"], live(X).numpy(), rtol=1e-5)
    with pytest.raises(modelio.ConversionError, match="does not build this model"):
        modelio.convert(tmp_path / "model.keras", to="saved-model", engine="tensorflow")


@pytest.mark.parametrize(
    "one",
    cases(model=["multi_io", "nested", "cnn"], version=["tf_keras*", "keras-[13]*", "keras-2.3*"], file="model.h5"),
    ids=str,
)
def test_the_engine_answers_as_the_framework_did(one):
    inputs, outputs = golden(one)
    model = modelio.read(one / "model.h5")
    keys = modelio.inspect(model).signatures["serving_default"].inputs
    for to in ("saved-model", "frozen-graph"):
        blob = modelio.convert(model, to=to, engine="tensorflow").data
        answers = modelio.to_callable(blob)(**dict(zip(keys, inputs, strict=True)))
        assert len(answers) == len(outputs)
        for expected in outputs:
            same = [array for array in answers.values() if array.shape == expected.shape]
            assert min(np.abs(array - expected).max() for array in same) <= 1e-5 * np.abs(expected).max()


def test_the_engine_runs_no_code_from_a_file():
    with pytest.raises(modelio.ConversionError, match="Lambda"):
        modelio.convert(LAMBDA[-1] / "model.h5", to="saved-model", engine="tensorflow")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engine": "torch"}, "no engine 'torch'"),
        ({"engine": "tensorflow", "rules": {"Dense": print}}, "take one"),
        ({"custom_objects": {"Scale": object}}, 'add engine="tensorflow"'),
    ],
)
def test_options_that_contradict_each_other(options, sentence):
    with pytest.raises(modelio.ConversionError, match=sentence):
        modelio.convert(case("keras-2.0.5_tf-1.2.1/mlp") / "model.h5", to="saved-model", **options)
