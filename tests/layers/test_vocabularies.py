"""Tables of words with a factor for each: what was adapted goes with the model, and answers the same everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelio

pytestmark = pytest.mark.slow

ASKED = np.array([["a b c"], ["a"], ["d d"], [""]])


def adapted(keras: Any) -> Any:
    text = keras.layers.TextVectorization(output_mode="tf_idf", name="text")
    text.adapt(["a b c", "a b", "a"])
    word = keras.layers.StringLookup(output_mode="tf_idf", name="word")
    word.adapt(np.array([["a"], ["b"], ["a"]]))
    x = keras.Input((1,), dtype="string")
    return keras.Model(x, [text(x), word(x)])


def given(keras: Any) -> Any:
    factors = [0.5, 0.25]
    text = keras.layers.TextVectorization(output_mode="tf_idf", vocabulary=["a", "b"], idf_weights=factors, name="text")
    word = keras.layers.StringLookup(output_mode="tf_idf", vocabulary=["a", "b"], idf_weights=factors, name="word")
    x = keras.Input((1,), dtype="string")
    return keras.Model(x, [text(x), word(x)])


def answers(model: Any) -> list[np.ndarray]:
    import tensorflow as tf

    return [np.asarray(answer) for answer in model(tf.constant(ASKED))]


# The files that each framework can write: tf_keras has no .h5 of what was adapted.
SOURCES = [
    ("keras", adapted, "keras"),
    ("keras", given, "keras"),
    ("keras", given, "h5"),
    ("tf_keras", adapted, "keras"),
    ("tf_keras", given, "keras"),
    ("tf_keras", given, "h5"),
]
TARGETS = [("keras", "keras"), ("keras", "h5"), ("tf_keras", "keras"), ("tf_keras", "h5")]


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize(("reader", "goal"), TARGETS)
@pytest.mark.parametrize(("writer", "build", "ending"), SOURCES)
def test_factors_of_words_go_with_a_model(writer, build, ending, reader, goal, request, tmp_path):
    source = request.getfixturevalue(writer)
    model = build(source)
    model.save(tmp_path / f"model.{ending}")
    dialect = "keras3" if reader == "keras" else "keras2"
    done = modelio.convert(tmp_path / f"model.{ending}", tmp_path / f"made.{goal}", dialect=dialect)
    assert not done.losses
    made = request.getfixturevalue(reader).models.load_model(tmp_path / f"made.{goal}", compile=False)
    for found, wanted in zip(answers(made), answers(model), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
