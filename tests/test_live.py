"""Live models of Keras 3 and tf_keras move in and out in memory: the same predictions, weights and state, and no file."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import modelio
from tests.corpus import MODELS, cases, golden

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("tensorflow")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=["keras", "tf_keras"])
def package(request):
    return pytest.importorskip(request.param)


def trained(k):
    """A small model with both kinds of weights, after two steps of Adam."""
    layers = [k.layers.Input((6, 6, 2)), k.layers.Conv2D(3, 3), k.layers.BatchNormalization()]
    model = k.Sequential([*layers, k.layers.Dropout(0.5), k.layers.Flatten(), k.layers.Dense(2)])
    model.compile("adam", "mse")
    random = np.random.default_rng(0)
    images = random.random((8, 6, 6, 2), "float32")
    model.fit(images, random.random((8, 2), "float32"), batch_size=4, verbose=0)
    return model, images


def shared(k):
    """A model in a model, both called twice, whose weights do not come in one order."""
    entry = k.Input((4,))
    dense = k.layers.Dense(4)
    inner = k.Sequential([k.layers.Input((4,)), k.layers.BatchNormalization(), k.layers.Dense(3)])
    model = k.Model(entry, [inner(dense(entry)), inner(dense(dense(entry)))])
    random = np.random.default_rng(1)
    model.set_weights([random.random(array.shape, "float32") for array in model.get_weights()])
    return model, random.random((3, 4), "float32")


def bits(arrays):
    return [np.asarray(array).tobytes() for array in arrays]


def variables(optimizer):
    return optimizer.variables() if callable(optimizer.variables) else optimizer.variables


@pytest.mark.parametrize("make", [trained, shared])
def test_there_and_back(package, make):
    live, inputs = make(package)
    model = modelio.from_keras(live)
    assert bits(model.get_weights()) == bits(live.get_weights())
    back = modelio.to_keras(model)
    assert type(back).__module__.partition(".")[0] == package.__name__
    for one, other in zip(
        np.atleast_1d(live.predict(inputs, verbose=0)), np.atleast_1d(back.predict(inputs, verbose=0)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_the_optimizer_comes_along(package):
    live, _ = trained(package)
    back = modelio.to_keras(modelio.from_keras(live))
    assert bits(variables(back.optimizer)) == bits(variables(live.optimizer))
    assert type(back.optimizer) is type(live.optimizer)


def test_what_is_taken_in_can_be_written_as_keras_writes_it(package, tmp_path):
    live, inputs = trained(package)
    modelio.write(modelio.from_keras(live), tmp_path / "model.h5", format="keras-h5")
    loaded = package.models.load_model(tmp_path / "model.h5", compile=False)
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), live.predict(inputs, verbose=0))


def test_cells_of_both_directions_keep_their_own_weights():
    """Keras 3 gives the cells of a Bidirectional RNN the same paths."""
    import keras as k

    entry = k.Input((5, 4))
    live = k.Model(entry, k.layers.Bidirectional(k.layers.RNN([k.layers.GRUCell(2), k.layers.GRUCell(3)]))(entry))
    model = modelio.from_keras(live)
    assert bits(model.get_weights()) == bits(live.get_weights())
    inputs = np.random.default_rng(0).random((2, 5, 4), "float32")
    np.testing.assert_array_equal(modelio.to_keras(model)(inputs), live(inputs))


def test_vocabularies_come_along(tmp_path):
    """What Keras 3 adapts is neither a weight nor an argument."""
    import keras as k

    entry = k.Input((1,), dtype="string")
    texts = ["the quick fox", "the lazy dog", "a fox"]
    layers = [
        k.layers.TextVectorization(output_sequence_length=4),
        k.layers.TextVectorization(output_mode="tf_idf"),
        k.layers.StringLookup(output_mode="count", num_oov_indices=2),
    ]
    for layer in layers:
        layer.adapt(texts)
    live = k.Model(entry, [layer(entry) for layer in layers])
    live.save(tmp_path / "model.keras")
    import tensorflow as tf

    inputs = tf.constant([["the fox"], ["a fox"]])
    for source in (modelio.from_keras(live), modelio.read(tmp_path / "model.keras")):
        back = modelio.to_keras(source)
        for got, wanted in zip(back(inputs), live(inputs), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-6)
    modelio.write(modelio.from_keras(live), tmp_path / "again.keras")
    loaded = k.models.load_model(tmp_path / "again.keras")
    for got, wanted in zip(loaded(inputs), live(inputs), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_a_custom_layer_is_built_by_the_class_that_the_caller_gives(package):
    class Doubled(package.layers.Layer):
        def call(self, x):
            return 2 * x

    live = package.Sequential([package.layers.Input((3,)), Doubled()])
    model = modelio.from_keras(live)
    with pytest.raises(modelio.ConversionError, match="does not build this model"):
        modelio.to_keras(model)
    back = modelio.to_keras(model, custom_objects={"Doubled": Doubled})
    np.testing.assert_array_equal(back.predict(np.ones((1, 3), "float32"), verbose=0), [[2, 2, 2]])


@pytest.mark.parametrize("case", cases(model=MODELS, version="tf_keras-*", file="model.h5"), ids=str)
def test_files_become_live_models(case):
    inputs, outputs = golden(case)
    live = modelio.to_keras(case / "model.h5")
    answers = live.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
    for got, wanted in zip(answers if isinstance(answers, list) else [answers], outputs, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_what_is_no_model_is_refused(package):
    with pytest.raises(modelio.ConversionError, match="is no model of Keras"):
        modelio.from_keras(object())
    with pytest.raises(modelio.ConversionError, match=r"cannot say its own architecture|written as a Python class"):
        modelio.from_keras(type("Mine", (package.Model,), {"call": lambda self, x: x})())


NO_FILE = """
import sys
import numpy as np, {package} as keras, modelio
live = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
live.compile("adam", "mse")
live.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0)
written = []
sys.addaudithook(lambda event, args: event == "open" and "w" in str(args[1]) and written.append(args[0]))
back = modelio.to_keras(modelio.from_keras(live))
assert all(np.array_equal(a, b) for a, b in zip(back.get_weights(), live.get_weights()))
assert not written, written
"""


def test_no_file_is_made(package):
    script = NO_FILE.format(package=package.__name__)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
