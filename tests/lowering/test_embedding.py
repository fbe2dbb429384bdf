"""Embedding, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelio.api import read
from modelio.lowering import lower
from tests.lowering.harness import answers, assert_same, fill, frameworks, keras2, keras3, run
from tests.lowering.written import answer, graph_of, runs_on


def ids(*shape: int, most: int = 9, dtype: str = "int32") -> np.ndarray:
    return np.random.default_rng(0).integers(0, most, shape).astype(dtype)


@frameworks()
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_embedding(keras, data):
    shape = data.draw(st.lists(st.integers(1, 4), max_size=3))
    told = tuple(data.draw(st.sampled_from([size, None])) for size in shape)
    layer = keras.layers.Embedding(9, data.draw(st.integers(1, 4)))
    graph = assert_same(layer, ids(2, *shape), shapes=[told])
    assert runs_on(graph) <= (1, 2, 1)


@frameworks()
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int16", "float32"])
def test_dtype_of_the_numbers(keras, dtype):
    """All become int32 but int64, floating-point ones by cutting off."""
    x = ids(3, 4).astype(dtype)
    assert_same(keras.layers.Embedding(9, 3), x + 0.9 if dtype == "float32" else x)


@frameworks()
@pytest.mark.parametrize("dtype", ["float16", "float64", "mixed_float16", "mixed_bfloat16"])
def test_dtype_of_the_rows(keras, dtype):
    assert_same(keras.layers.Embedding(9, 3, dtype=dtype), ids(3, 4), rtol=0)


def test_length_of_the_input():
    assert_same(keras2().layers.Embedding(9, 3, input_length=4), ids(3, 4))


@frameworks()
def test_one_table_for_two_inputs(keras):
    shared = keras.layers.Embedding(9, 3)
    a, b = keras.Input((4,), dtype="int32"), keras.Input((2,), dtype="int32")
    graph = assert_same(keras.Model([a, b], [shared(a), shared(b)]), ids(2, 4), ids(2, 2))
    assert len(graph.variables) == 1


@frameworks()
def test_number_that_is_no_row(keras):
    """An error on a CPU, as in Keras."""
    graph = assert_same(keras.layers.Embedding(9, 3), ids(2, 4))
    with pytest.raises(Exception, match=r"is not in \[0, 9\)"):
        run(graph, [np.full((2, 4), 9, "int32")])


def test_number_below_zero():
    """Keras 3 counts it from the end, Keras 2 refuses it."""
    assert_same(keras3().layers.Embedding(9, 3), ids(2, 4) - 9)
    graph = assert_same(keras2().layers.Embedding(9, 3), ids(2, 4))
    with pytest.raises(Exception, match=r"is not in \[0, 9\)"):
        run(graph, [np.full((2, 4), -1, "int32")])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("arguments", [{}, {"logit_soft_cap": 2.0}, {"reverse_dtype": "float16"}])
def test_reversible(tied, arguments):
    """A language model's table, which is its last layer too."""
    keras = keras3()
    layer = keras.layers.ReversibleEmbedding(9, 3, tie_weights=tied, **arguments)
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Dense(3)(layer(inputs))
    model = keras.Model(inputs, layer(x, reverse=True))
    graph = assert_same(model, ids(2, 4), rtol=3e-3 if "reverse_dtype" in arguments else 1e-5)
    assert len(graph.variables) == (3 if tied else 4)


def test_reversible_marks_zeros():
    keras = keras3()
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.ReversibleEmbedding(9, 3, mask_zero=True)(inputs)
    assert_same(keras.Model(inputs, keras.layers.LSTM(2)(x)), ids(3, 4, most=3))


def test_keras_1():
    """Keras 1.2.2 layers/embeddings.py; the numbers come as they are fed."""
    table = np.random.default_rng(1).normal(size=(9, 3)).astype("float32")
    config = {"input_dim": 9, "output_dim": 3, "input_length": 4, "mask_zero": True, "dropout": 0.5}
    got = answer("1.2.2", "Embedding", config, ids(2, 4), arrays=[table])
    np.testing.assert_array_equal(got, table[ids(2, 4)])


def test_table_of_another_shape():
    with pytest.raises(Exception, match="expected"):
        graph_of("2.15.0", "Embedding", {"input_dim": 9, "output_dim": 3}, [(4,)], [np.zeros((9, 3, 1), "float32")])


# -- quantized, and adapted by LoRA ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False, None])
def test_quantized_to_int8(tied, tmp_path):
    """Through a .keras file, as nothing else holds them."""
    keras = keras3()
    inputs = keras.Input((4,), dtype="int32")
    if tied is None:
        layer = keras.layers.Embedding(9, 6)
        outputs = layer(inputs)
    else:
        layer = keras.layers.ReversibleEmbedding(9, 6, tie_weights=tied, logit_soft_cap=3.0)
        outputs = layer(layer(inputs), reverse=True)
    model = keras.Model(inputs, outputs)
    fill(model)
    layer.quantize("int8")
    model.save(tmp_path / "model.keras")
    expected = answers(model, [ids(2, 4)])[0]
    graph, _ = lower(read(tmp_path / "model.keras"))
    np.testing.assert_allclose(run(graph, [ids(2, 4)])[0], expected, atol=1e-5)
    assert "int8" in {tensor.dtype.name for tensor in graph.variables.values()}


def test_adapted_by_lora(tmp_path):
    """Keras merges what was learned into the table when it saves."""
    keras = keras3()
    layer = keras.layers.Embedding(9, 6)
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layer])
    layer.enable_lora(2)
    fill(model)
    model.save(tmp_path / "model.keras")
    graph, _ = lower(read(tmp_path / "model.keras"))
    np.testing.assert_allclose(run(graph, [ids(2, 4)])[0], answers(model, [ids(2, 4)])[0], atol=1e-5)
