"""Layers that Keras 3 has quantized, and layers with LoRA."""

from __future__ import annotations

import numpy as np
import pytest

import modelio
from modelio.errors import ConversionError
from modelio.lowering import lower
from tests.lowering.harness import assert_same, fill, keras3, run
from tests.lowering.written import runs_on


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def settings(kind: str, **arguments):
    return getattr(keras3().quantizers, kind)(**arguments)


MODES = {
    "int8": lambda: ("int8", None),
    "int8 weights alone": lambda: (None, settings("Int8QuantizationConfig", activation_quantizer=None)),
    "int4 in blocks": lambda: ("int4", None),
    "int4 in blocks of 3": lambda: (None, settings("Int4QuantizationConfig", block_size=3)),
    "int4 by columns": lambda: (None, settings("Int4QuantizationConfig", block_size=-1)),
    "int4 by columns, input too": lambda: (
        None,
        settings("Int4QuantizationConfig", block_size=-1, activation_quantizer=settings("AbsMaxQuantizer", axis=-1)),
    ),
    "float8": lambda: ("float8", None),
}


def quantized(layer, shape, mode, dtype="float32"):
    """A model of that layer, with random weights, quantized."""
    keras = keras3()
    inputs = keras.Input(shape, dtype=dtype)
    model = keras.Model(inputs, layer(inputs))
    fill(model)
    kind, config = MODES[mode]()
    if config is None:
        model.quantize(kind)
    else:
        model.quantize(config=config)
    return model


each = pytest.mark.parametrize("mode", MODES)


@each
@pytest.mark.parametrize("shape", [(7,), (3, 7)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_dense(mode, shape, bias):
    model = quantized(keras3().layers.Dense(5, use_bias=bias, activation="tanh"), shape, mode)
    graph = assert_same(model, noise(2, *shape), weights="own")
    assert runs_on(graph) <= (1, 2, 1)


EQUATIONS = [
    ("abc,cde->abde", (3, 2, 4), "de"),
    ("abc,cd->abd", (3, 5), "d"),
    ("abc,ce->aeb", (5, 3), None),
    ("abcd,cde->abe", (3, 6), "e"),
]


@each
@pytest.mark.parametrize(("equation", "output", "bias"), EQUATIONS)
@pytest.mark.filterwarnings("ignore")
def test_einsum_dense(mode, equation, output, bias):
    shape = (3, 2, 4) if equation.startswith("abcd") else (3, 7)
    layer = keras3().layers.EinsumDense(equation, output, bias_axes=bias)
    assert_same(quantized(layer, shape, mode), noise(2, *shape), weights="own")


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "float8" and "input" not in mode])
@pytest.mark.filterwarnings("ignore")
def test_embedding(mode):
    model = quantized(keras3().layers.Embedding(9, 5), (4,), mode, "int32")
    assert_same(model, np.array([[0, 8, 3, 1], [5, 5, 2, 7]], np.int32), weights="own")


@each
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.filterwarnings("ignore")
def test_in_other_precision(mode, policy):
    if mode.startswith("int8") and policy == "mixed_float16":
        pytest.skip("Keras refuses it")
    model = quantized(keras3().layers.Dense(5, dtype=policy), (7,), mode)
    assert_same(model, noise(2, 7), weights="own", rtol=4e-3 if "float16" in policy and "b" not in policy else 3e-2)


@pytest.mark.filterwarnings("ignore")
def test_a_thousand_features():
    """As many as float32 holds the sum of exactly."""
    model = quantized(keras3().layers.Dense(3), (1000,), "int8")
    assert_same(model, noise(4, 1000), weights="own")


@each
@pytest.mark.filterwarnings("ignore")
def test_from_a_file(mode, tmp_path):
    """The weights of a .keras file stand in another order than get_weights() has them."""
    keras = keras3()
    inputs = keras.Input((3, 6))
    x = keras.layers.EinsumDense("abc,cde->abde", (3, 2, 3), bias_axes="de")(keras.layers.Dense(6)(inputs))
    model = keras.Model(inputs, x)
    fill(model)
    kind, config = MODES[mode]()
    model.quantize(kind) if config is None else model.quantize(config=config)
    model.save(tmp_path / "model.keras")
    graph, _ = lower(modelio.read(tmp_path / "model.keras"))
    expected = np.asarray(model(noise(2, 3, 6)))
    (answer,) = run(graph, [noise(2, 3, 6)])
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_a_mode_without_a_rule():
    keras = keras3()
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    text = model.to_json().replace('{"name": "float32"}', '{"name": "gptq/4/128_from_float32"}')
    with pytest.raises((ConversionError, modelio.ReadError)):
        lower(modelio.LayerModel.from_json(text, [noise(8, 4), noise(4)]))


# -- LoRA --------------------------------------------------------------------------------------------------------------


def with_lora(layer, shape, dtype="float32", mode=None):
    keras = keras3()
    inputs = keras.Input(shape, dtype=dtype)
    model = keras.Model(inputs, layer(inputs))
    if mode is not None:
        fill(model)
        model.quantize(mode)
    model.layers[1].enable_lora(2, lora_alpha=3)
    return model


def learners():
    keras = keras3()
    yield keras.layers.Dense(5, activation="relu"), (7,), "float32"
    yield keras.layers.EinsumDense("abc,cde->abde", (3, 2, 4), bias_axes="de"), (3, 7), "float32"
    yield keras.layers.Conv1D(4, 3, padding="causal", dilation_rate=2), (7, 5), "float32"
    yield keras.layers.Conv2D(4, 3, groups=2), (7, 5, 4), "float32"
    yield keras.layers.Conv3D(2, 2, strides=2), (4, 5, 4, 2), "float32"
    yield keras.layers.Embedding(9, 5), (4,), "int32"


@pytest.mark.filterwarnings("ignore")
def test_lora():
    for layer, shape, dtype in learners():
        x = noise(2, *shape) if dtype == "float32" else np.arange(8, dtype=np.int32).reshape(2, 4)
        assert_same(with_lora(layer, shape, dtype), x)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore")
def test_lora_from_a_file(suffix, tmp_path):
    """A .keras file has kernels with all that was learned in them, an HDF5 file has both."""
    for layer, shape, dtype in learners():
        model = with_lora(layer, shape, dtype)
        fill(model)
        x = noise(2, *shape) if dtype == "float32" else np.arange(8, dtype=np.int32).reshape(2, 4)
        model.save(tmp_path / f"model.{suffix}")
        graph, _ = lower(modelio.read(tmp_path / f"model.{suffix}"))
        expected = np.asarray(model(x))
        (answer,) = run(graph, [x])
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.filterwarnings("ignore")
def test_lora_beside_a_quantized_kernel(mode):
    for layer, shape, dtype in learners():
        if hasattr(layer, "quantize") and "Conv" not in type(layer).__name__:
            model = with_lora(layer, shape, dtype, mode)
            weights = [
                noise(*w.shape) if "lora" in path.name else w
                for path, w in zip(model.weights, model.get_weights(), strict=True)
            ]
            model.set_weights(weights)
            x = noise(2, *shape) if dtype == "float32" else np.arange(8, dtype=np.int32).reshape(2, 4)
            assert_same(model, x, weights="own")
