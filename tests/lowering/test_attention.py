"""Attention layers: scores, heads, and what masks hide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelio.errors import ConversionError
from modelio.lowering import lower
from modelio.model import LayerModel
from tests.lowering.harness import assert_same, frameworks, keras2, keras3
from tests.lowering.written import graph_of, runs_on


def noise(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(dtype)


def masks(*shape: int, seed: int = 0) -> np.ndarray:
    """Where something is shown; no row is hidden as a whole."""
    mask = np.random.default_rng(seed).random(shape) < 0.6
    mask[..., 0] = True
    return mask


def model_of(keras, call, *arrays, shapes=None):
    """A model of one call: ``call`` is given an input for each array."""
    shapes = shapes or [array.shape[1:] for array in arrays]
    feeds = [keras.Input(shape, dtype=array.dtype.name) for shape, array in zip(shapes, arrays, strict=True)]
    return keras.Model(feeds if len(feeds) > 1 else feeds[0], call(*feeds))


# -- one head ----------------------------------------------------------------------------------------------------------


def single_heads(keras):
    yield from (keras.layers.Attention(use_scale=scale) for scale in (False, True))
    yield from (keras.layers.Attention(use_scale=scale, score_mode="concat") for scale in (False, True))
    yield keras.layers.Attention(dropout=0.4)
    yield from (keras.layers.AdditiveAttention(use_scale=scale) for scale in (False, True))


@frameworks()
def test_single_heads(keras):
    for layer in single_heads(keras):
        for arrays in ([noise(2, 3, 4), noise(2, 5, 4, seed=1)], [noise(2, 3, 4), noise(2, 5, 4), noise(2, 5, 4)]):
            graph = assert_same(layer, *arrays)
            assert runs_on(graph) <= (1, 2, 1), layer.get_config()


@frameworks()
@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_causal_and_scores(keras, causal, scores):
    for layer in single_heads(keras):
        arrays = noise(2, 4, 3), noise(2, 5, 3, seed=1)
        model = model_of(
            keras,
            lambda *x, layer=layer: layer(list(x), use_causal_mask=causal, return_attention_scores=scores),
            *arrays,
            shapes=[(None, 3), (None, 3)],
        )
        assert runs_on(assert_same(model, *arrays)) <= (1, 2, 1)


def test_causal_as_an_argument_of_the_layer():
    """Until TensorFlow 2.10."""
    layer = keras2().layers.Attention(causal=True)
    model = model_of(keras2(), lambda q, v: layer([q, v]), noise(2, 4, 3), noise(2, 4, 3))
    config = {"use_scale": False, "causal": True, "dropout": 0.0, "dtype": "float32"}
    graph = graph_of("2.4.0", "Attention", config, [(4, 3), (4, 3)])
    assert "GreaterEqual" in {node.op for node in graph.graph.node}
    assert len(model.outputs) == 1


@frameworks()
def test_single_heads_of_higher_rank(keras):
    assert_same(keras.layers.Attention(), noise(2, 6, 3, 4), noise(2, 6, 5, 4, seed=1))


@frameworks()
@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16", "float64"])
def test_single_heads_in_other_precision(keras, dtype):
    rtol = {"float64": 1e-5, "mixed_bfloat16": 3e-2}.get(dtype, 4e-3)  # what 8 and 11 bits of mantissa leave
    for layer in (keras.layers.Attention(dtype=dtype, use_scale=True), keras.layers.AdditiveAttention(dtype=dtype)):
        assert_same(layer, noise(2, 3, 4), noise(2, 5, 4, seed=1), rtol=rtol)


# -- many heads --------------------------------------------------------------------------------------------------------

HEADS = [
    {"num_heads": 2, "key_dim": 3},
    {"num_heads": 1, "key_dim": 3, "value_dim": 5},
    {"num_heads": 2, "key_dim": 3, "use_bias": False},
    {"num_heads": 2, "key_dim": 3, "output_shape": 7},
    {"num_heads": 2, "key_dim": 3, "output_shape": (2, 3)},
    {"num_heads": 2, "key_dim": 3, "attention_axes": (1,)},
    {"num_heads": 2, "key_dim": 3, "attention_axes": 1, "dropout": 0.3},
]


@frameworks()
@pytest.mark.parametrize("config", HEADS, ids=str)
@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_multi_head(keras, config, scores, causal):
    layer = keras.layers.MultiHeadAttention(**config)
    arrays = noise(2, 4, 5), noise(2, 6, 3, seed=1), noise(2, 6, 2, seed=2)
    model = model_of(
        keras,
        lambda q, v, k: layer(q, v, k, return_attention_scores=scores, use_causal_mask=causal),
        *arrays,
    )
    assert runs_on(assert_same(model, *arrays)) <= (1, 2, 1)


@frameworks()
def test_self_attention_of_steps_that_nobody_counted(keras):
    layer = keras.layers.MultiHeadAttention(2, 3)
    model = model_of(keras, lambda x: layer(x, x, use_causal_mask=True), noise(2, 4, 5), shapes=[(None, 5)])
    graph = assert_same(model, noise(2, 4, 5))
    assert runs_on(graph) <= (1, 2, 1)
    assert_same(model, noise(3, 1, 5))


@frameworks()
@pytest.mark.parametrize(
    ("axes", "shape"),
    [((1,), (3, 4, 5)), ((2,), (3, 4, 5)), ((1, 2), (3, 4, 5)), (None, (2, 2, 2, 5)), ((2, 3), (2, 3, 2, 5))],
)
def test_attention_axes(keras, axes, shape):
    for scores in (False, True):
        layer = keras.layers.MultiHeadAttention(2, 3, attention_axes=axes)
        arrays = noise(2, *shape), noise(2, *shape, seed=1)
        model = model_of(
            keras, lambda q, v, layer=layer, scores=scores: layer(q, v, return_attention_scores=scores), *arrays
        )
        assert_same(model, *arrays)


@frameworks()
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_masked_heads(keras, data):
    """A mask may lack the axis of the heads, and be one for all samples."""
    batch, steps, others = (data.draw(st.integers(2, 4)) for _ in range(3))  # Keras warns of a softmax over one
    scores, causal = data.draw(st.booleans()), data.draw(st.booleans())
    mask_shape = (*data.draw(st.sampled_from([(), (2,), (1,)])), data.draw(st.sampled_from([1, steps])), others)
    layer = keras.layers.MultiHeadAttention(2, 3, dropout=data.draw(st.sampled_from([0.0, 0.5])))
    arrays = noise(batch, steps, 4), noise(batch, others, 4, seed=1), masks(batch, *mask_shape)
    known = data.draw(st.booleans())
    model = model_of(
        keras,
        lambda q, v, m: layer(
            q, v, attention_mask=m, return_attention_scores=scores, use_causal_mask=causal and len(mask_shape) == 2
        ),
        *arrays,
        shapes=[(steps if known else None, 4), (others if known else None, 4), mask_shape],
    )
    assert runs_on(assert_same(model, *arrays)) <= (1, 2, 1)


@frameworks()
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_row_that_is_hidden_as_a_whole(keras, dropout):
    layer = keras.layers.MultiHeadAttention(2, 3, dropout=dropout)
    arrays = noise(2, 3, 4), np.zeros((2, 3, 3), bool)
    model = model_of(keras, lambda x, m: layer(x, x, attention_mask=m), *arrays)
    assert_same(model, *arrays)


@frameworks()
def test_a_mask_of_numbers(keras):
    layer = keras.layers.MultiHeadAttention(2, 3)
    arrays = noise(2, 3, 4), masks(2, 3, 3).astype(np.int32)
    assert_same(model_of(keras, lambda x, m: layer(x, x, attention_mask=m), *arrays), *arrays)


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_gates_and_windows(scores, causal):
    """Arguments that Keras 3.15 added."""
    keras = keras3()
    for more in ({"use_gate": True}, {"sliding_window": 2}):
        for layer in (keras.layers.MultiHeadAttention(2, 3, **more), keras.layers.GroupQueryAttention(3, 4, 2, **more)):
            model = model_of(
                keras,
                lambda x, layer=layer: layer(x, x, return_attention_scores=scores, use_causal_mask=causal),
                noise(2, 5, 4),
            )
            assert runs_on(assert_same(model, noise(2, 5, 4))) <= (1, 2, 1)


@frameworks()
@pytest.mark.parametrize("dtype", ["float16", "mixed_float16", "mixed_bfloat16", "float64"])
def test_multi_head_in_other_precision(keras, dtype):
    rtol = {"float64": 1e-5, "mixed_bfloat16": 5e-2}.get(dtype, 6e-3)  # what 8 and 11 bits of mantissa leave
    for scores in (False, True):
        layer = keras.layers.MultiHeadAttention(2, 3, dtype=dtype)
        arrays = noise(2, 4, 5), masks(2, 4, 4)
        model = model_of(
            keras,
            lambda x, m, layer=layer, scores=scores: layer(x, x, attention_mask=m, return_attention_scores=scores),
            *arrays,
        )
        assert_same(model, *arrays, rtol=rtol)


# -- masks that the tensors carry --------------------------------------------------------------------------------------

WORDS = np.array([[1, 4, 2, 0, 0], [3, 0, 2, 2, 0]], np.int32)
OTHERS = np.array([[2, 2, 0, 0], [1, 5, 4, 0]], np.int32)


def embedded(keras, call, scores=False):
    """``call`` on two embeddings of which zeros count for nothing, and what a layer that heeds masks makes of it."""
    a, b = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    y = call(keras.layers.Embedding(6, 4, mask_zero=True)(a), keras.layers.Embedding(6, 4, mask_zero=True)(b))
    first = y[0] if scores else y
    pooled = keras.layers.GlobalAveragePooling1D()(first)
    return keras.Model([a, b], [*(y if scores else [y]), pooled])


@frameworks()
@pytest.mark.parametrize("causal", [False, True])
def test_embedded_words_that_are_none(keras, causal):
    for layer in (
        keras.layers.Attention(),
        keras.layers.AdditiveAttention(),
        keras.layers.Attention(score_mode="concat"),
    ):
        model = embedded(keras, lambda q, v, layer=layer: layer([q, v], use_causal_mask=causal))
        assert runs_on(assert_same(model, WORDS, OTHERS)) <= (1, 2, 1)


@frameworks()
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_heads_heed_what_the_tensors_carry(keras, causal, dropout):
    layer = keras.layers.MultiHeadAttention(2, 3, dropout=dropout)
    model = embedded(keras, lambda q, v: layer(q, v, use_causal_mask=causal))
    assert_same(model, WORDS, OTHERS)
    key = keras.layers.MultiHeadAttention(2, 3, dropout=dropout)
    assert_same(embedded(keras, lambda q, v: key(q, v, v)), WORDS, OTHERS)


@pytest.mark.filterwarnings("ignore:.*destroy the mask")
def test_groups_of_heads_heed_what_the_tensors_carry():
    keras = keras3()
    layer = keras.layers.GroupQueryAttention(3, 4, 2)
    assert_same(embedded(keras, lambda q, v: layer(q, v)), WORDS, OTHERS)


def test_before_tensorflow_2_10_heads_heed_no_masks_but_their_own():
    """keras/layers/attention/multi_head_attention.py of 2.9 and 2.10."""
    keras = keras2()
    model = embedded(keras, lambda q, v: keras.layers.MultiHeadAttention(2, 3)(q, v))
    counts = []
    for version in ("2.9.0", "2.10.0"):
        text = model.to_json().replace(keras.__version__, version)
        graph, _ = lower(LayerModel.from_json(text, model.get_weights()))
        counts.append(sum(node.op == "LogicalAnd" for node in graph.graph.node))
    assert counts[0] < counts[1]


# -- groups of heads ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "groups"), [(4, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_grouped_queries(queries, groups, bias, causal, scores):
    keras = keras3()
    layer = keras.layers.GroupQueryAttention(3, queries, groups, use_bias=bias)
    arrays = noise(2, 4, 5), noise(2, 6, 5, seed=1), masks(2, 4, 6)
    model = model_of(
        keras,
        lambda q, v, m: layer(q, v, attention_mask=m, use_causal_mask=causal, return_attention_scores=scores),
        *arrays,
        shapes=[(None, 5), (None, 5), (None, None)],
    )
    assert runs_on(assert_same(model, *arrays)) <= (1, 2, 1)


# -- what no Keras takes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_name", "config", "shapes", "message"),
    [
        ("Attention", {"score_mode": "sum"}, [(3, 4), (3, 4)], "score_mode is 'sum'"),
        ("Attention", {}, [(3, 4)], "list of two or three"),
        ("Attention", {}, [(4,), (4,)], "2 dimensions"),
        ("AdditiveAttention", {"use_scale": False}, [(3, 4)], "list of two or three"),
    ],
)
def test_arguments_that_no_keras_takes(class_name, config, shapes, message):
    with pytest.raises(ConversionError, match=message):
        graph_of("2.11.0", class_name, config, shapes)
