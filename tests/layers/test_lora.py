"""LoRA: ``.keras`` files have it in their kernels, HDF5 files beside them; from either, Keras gets the same answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelio
from modelio.lowering import lower
from tests.lowering.harness import fill, keras2, keras3, run

pytestmark = pytest.mark.filterwarnings("ignore")
RANDOM = np.random.default_rng(3)


def learners(keras: Any, alpha: int = 2) -> Any:
    """A model in which every kind of layer that can has LoRA, at the top and in a model inside.

    Where Keras 3.15 builds a Dense from its arguments, it forgets ``lora_alpha``; so it is the rank, but for the graph.
    """
    layers = keras.layers
    inside = keras.Sequential([keras.Input((5, 6)), layers.Conv1D(4, 3, name="conv"), layers.Dense(3, name="last")])
    x, words = keras.Input((5, 8)), keras.Input((5,), dtype="int32")
    y = layers.Dense(6, name="dense", activation="relu")(x)
    y = layers.EinsumDense("abc,cd->abd", (5, 6), bias_axes="d", name="einsum")(y)
    y = layers.Add()([y, layers.Embedding(9, 6, name="embedding")(words)])
    model = keras.Model([x, words], inside(y))
    for layer in [*inside.layers, *(model.get_layer(name) for name in ("dense", "einsum", "embedding"))]:
        layer.enable_lora(2, lora_alpha=alpha)
    fill(model)
    return model, [RANDOM.normal(size=(2, 5, 8)).astype("float32"), RANDOM.integers(0, 9, (2, 5)).astype("int32")]


def agrees(keras: Any, path: Any, model: Any, inputs: list[np.ndarray]) -> None:
    loaded = keras.models.load_model(path, compile=False)
    np.testing.assert_allclose(np.asarray(loaded(inputs)), np.asarray(model(inputs)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("source", "target"), [("h5", "keras"), ("keras", "h5"), ("keras", "keras"), ("h5", "h5")])
def test_keras_reads_it_on_the_other_side(source: str, target: str, tmp_path) -> None:
    keras = keras3()
    model, inputs = learners(keras)
    model.save(tmp_path / f"model.{source}")
    modelio.convert(tmp_path / f"model.{source}", tmp_path / f"made.{target}")
    agrees(keras, tmp_path / f"made.{target}", model, inputs)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_the_graph_answers(suffix: str, tmp_path) -> None:
    model, inputs = learners(keras3(), 5)
    model.save(tmp_path / f"model.{suffix}")
    graph, _ = lower(modelio.read(tmp_path / f"model.{suffix}"))
    (answer,) = run(graph, inputs)
    np.testing.assert_allclose(answer, np.asarray(model(inputs)), rtol=1e-4, atol=1e-4)


def test_keras_2_gets_the_sum(tmp_path) -> None:
    tf_keras = keras2()
    model, inputs = learners(keras3())
    model.save(tmp_path / "model.h5")
    modelio.convert(tmp_path / "model.h5", tmp_path / "old.h5", dialect="keras2")
    agrees(tf_keras, tmp_path / "old.h5", model, inputs)


def test_get_weights_has_zeros_for_what_is_in_the_kernel(tmp_path) -> None:
    keras = keras3()
    model, _ = learners(keras)
    model.save(tmp_path / "model.keras")
    wanted = keras.models.load_model(tmp_path / "model.keras").get_weights()
    got = modelio.read(tmp_path / "model.keras").get_weights()
    assert [array.shape for array in got] == [array.shape for array in wanted]
    assert all(np.array_equal(one, other) for one, other in zip(got, wanted, strict=True))


def test_live_models(tmp_path) -> None:
    model, inputs = learners(keras3())
    back = modelio.to_keras(modelio.from_keras(model))
    np.testing.assert_array_equal(np.asarray(back(inputs)), np.asarray(model(inputs)))


def test_a_sum_with_a_quantized_kernel_is_refused(tmp_path) -> None:
    """Keras dequantizes, adds and quantizes anew (``Dense._get_kernel_with_merged_lora``)."""
    keras = keras3()
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6)])
    model.quantize("int8")
    model.layers[0].enable_lora(2)
    fill(model)
    model.save(tmp_path / "model.h5")
    with pytest.raises(modelio.ModelioError, match="quantize their sum anew"):
        modelio.convert(tmp_path / "model.h5", tmp_path / "made.keras")
    assert not (tmp_path / "made.keras").exists()
