"""Models that tf_keras makes here and now, of layers that the corpus has not, saved, lifted and compared."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelio
from modelio.errors import ConversionError, ReadError
from modelio.lifting import lift
from modelio.model import LayerModel

pytestmark = pytest.mark.slow


def wrapped(k: Any) -> Any:
    """Layers in layers: both directions, every step, stacked cells, a model at every step."""
    x = inputs = k.Input((5, 4))
    x = k.layers.Bidirectional(k.layers.LSTM(4, return_sequences=True))(x)
    step = k.Sequential([k.layers.Dense(8, input_shape=(8,)), k.layers.BatchNormalization()])
    x = k.layers.TimeDistributed(step)(x)
    x = k.layers.RNN([k.layers.LSTMCell(8), k.layers.GRUCell(8)], return_sequences=True)(x)
    x = k.layers.GRU(8, return_sequences=True, reset_after=False)(x)
    x = k.layers.RNN(k.layers.SimpleRNNCell(8))(x)
    return k.Model(inputs, k.layers.Dense(2, trainable=False)(x))


def nested(k: Any) -> Any:
    """Models in models, whose layers have the same names and shapes; a layer that is called twice."""
    x = inputs = k.Input((6,))
    twice = k.layers.Dense(6, name="same")
    x = twice(twice(x))
    for name in ("first", "second"):
        parts = [k.layers.Dense(6, name="same", input_shape=(6,)), k.layers.BatchNormalization(name="bn")]
        x = k.Sequential(parts, name=name)(x)
    return k.Model(inputs, x)


def attention(k: Any) -> Any:
    x = inputs = k.Input((5, 4))
    x = k.layers.MultiHeadAttention(2, 3)(x, x)
    x = k.layers.Attention(use_scale=True)([x, x])
    return k.Model(inputs, k.layers.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d")(x))


def images(k: Any) -> Any:
    return k.Sequential(
        [
            k.layers.Conv2D(4, 3, input_shape=(9, 9, 3)),
            k.layers.PReLU(shared_axes=[1, 2]),
            k.layers.SeparableConv2D(4, 2),
            k.layers.DepthwiseConv2D(2),
            k.layers.Conv2DTranspose(4, 2),
            k.layers.GroupNormalization(2),
            k.layers.BatchNormalization(renorm=True),
            k.layers.BatchNormalization(scale=False),
            k.layers.LayerNormalization(center=False),
        ]
    )


def prepared(k: Any) -> Any:
    """Layers that were adapted to data: statistics and vocabularies."""
    numbers, words, counts = k.Input((3,)), k.Input((1,), dtype="string"), k.Input((1,), dtype="int64")
    statistics = k.layers.Normalization()
    statistics.adapt(np.arange(12, dtype="float32").reshape(4, 3))
    spoken, counted = k.layers.StringLookup(), k.layers.IntegerLookup()
    spoken.adapt(np.array([["b"], ["a"], ["b"], ["c"]]))
    counted.adapt(np.array([[30], [10], [30]]))
    flat = [statistics(numbers)]
    for table, inputs in ((spoken, words), (counted, counts)):
        flat.append(k.layers.Flatten()(k.layers.Embedding(9, 2)(table(inputs))))
    return k.Model([numbers, words, counts], k.layers.Dense(1)(k.layers.Concatenate()(flat)))


def custom(k: Any) -> Any:
    """A layer of whose class nobody knows, with a weight that is not trained in front of one that is."""

    class Scale(k.layers.Layer):
        def build(self, shape: Any) -> None:
            self.offset = self.add_weight(name="offset", shape=shape[-1:], trainable=False)
            self.factor = self.add_weight(name="factor", shape=shape[-1:])

        def call(self, x: Any) -> Any:
            return x * self.factor + self.offset

    x = inputs = k.Input((4,))
    for _ in range(2):
        x = k.layers.Dense(4)(Scale()(x))
    return k.Model(inputs, x)


MODELS = (wrapped, nested, attention, images, prepared, custom)
WITHOUT_H5 = {nested: "names", prepared: "tables"}
"""What HDF5 cannot hold: weights of the same name in one group, tables."""


@pytest.fixture(params=MODELS, ids=lambda make: make.__name__)
def saved(request: Any, tf_keras: Any, tmp_path: Path) -> tuple[Callable[[Any], Any], Any, Path]:
    """A model, saved in both formats and as a checkpoint, with weights of its own."""
    tf_keras.backend.clear_session()
    model = request.param(tf_keras)
    if request.param is not prepared:
        numbers = np.random.default_rng(0)
        model.set_weights([numbers.uniform(0.1, 1, one.shape).astype(one.dtype) for one in model.get_weights()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        if request.param not in WITHOUT_H5:
            model.save(tmp_path / "model.h5", save_format="h5")
        model.save(tmp_path / "saved_model", save_format="tf")
        model.save_weights(tmp_path / "checkpoint" / "model", save_format="tf")
    return request.param, model, tmp_path


def assert_equal(found: LayerModel, model: Any) -> None:
    wanted = model.get_weights()
    arrays = found.get_weights()
    assert len(arrays) == len(wanted)
    for mine, theirs in zip(arrays, wanted, strict=True):
        np.testing.assert_array_equal(mine, np.asarray(theirs))


def test_what_was_saved_is_lifted(saved: Any) -> None:
    make, model, folder = saved
    found, changes = lift(modelio.read(folder / "saved_model"))
    assert changes == []
    assert_equal(found, model)
    if make not in WITHOUT_H5:
        beside = modelio.read(folder / "model.h5")
        assert {layer: list(group) for layer, group in found.weights.items()} == {
            layer: list(group) for layer, group in beside.weights.items()
        }


def test_weights_are_matched_to_the_architecture_or_refused(saved: Any) -> None:
    make, model, folder = saved
    architecture = LayerModel.from_json(model.to_json())
    found, changes = lift(modelio.read(folder / "saved_model"), architecture)
    assert_equal(found, model)
    assert [change.partition(" has ")[0] for change in changes] == (
        ["scale (Scale)", "scale_1 (Scale)"] if make is custom else []
    )
    of_checkpoint = modelio.read(folder / "checkpoint")
    if make is prepared:  # its tables are in the graph alone
        with pytest.raises(ReadError, match="missing string_lookup/vocabulary, integer_lookup/vocabulary"):
            lift(of_checkpoint, architecture)
    else:
        assert_equal(lift(of_checkpoint, architecture)[0], model)


def test_what_is_lifted_computes_the_same(saved: Any) -> None:
    make, model, folder = saved
    if make in (prepared, custom):
        pytest.skip("tf_keras needs the class, or the strings")
    inputs = np.random.default_rng(1).uniform(size=(3, *model.input_shape[1:])).astype("float32")
    live = modelio.to_keras(folder / "saved_model")
    np.testing.assert_array_equal(live.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_a_class_is_refused(tf_keras: Any, tmp_path: Path) -> None:
    class Mine(tf_keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = tf_keras.layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Mine()
    model.predict(np.zeros((1, 3), "float32"), verbose=0)
    model.save(tmp_path / "saved_model", save_format="tf")
    with pytest.raises(ConversionError, match=r"Mine was saved without its architecture.* 2 variables are there"):
        lift(modelio.read(tmp_path / "saved_model"))


def test_a_layer_alone_is_refused(tf_keras: Any, tensorflow: Any, tmp_path: Path) -> None:
    layer = tf_keras.layers.Dense(2)
    layer(np.zeros((1, 3), "float32"))
    tensorflow.saved_model.save(layer, str(tmp_path / "saved_model"))
    with pytest.raises(ConversionError, match="a single layer of Keras"):
        lift(modelio.read(tmp_path / "saved_model"))
