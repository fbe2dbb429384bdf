"""A file of any Keras becomes one of today's: the answers of the framework that wrote it, from Keras 3 and from tf_keras.

Every model of the corpus is rewritten in the other dialect, built by the live framework, and compared with its golden
outputs. Left out are Lambdas (their code is Python bytecode) and raw TensorFlow operations.
"""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest

import modelio
from tests.corpus import cases, golden

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("tensorflow")

EVERY = [case for case in cases(file=("model.h5", "golden.npz")) if case.model not in ("lambda", "tfops", "textvec")]

UNREADABLE = {
    # tf_keras 2.21 itself does not build these files of Keras 2.0.5, and the same dialect stays verbatim
    ("keras-2.0.5_tf-1.2.1/convzoo", "keras2"),  # LeakyReLU's alpha is {"type": "ndarray", ...}
    ("keras-2.0.5_tf-1.2.1/rnn", "keras2"),  # an initializer of floats for an Embedding of dtype int32
}

HALF = 1e-3
"""A float16 layer's outputs agree between versions only to its rounding, 2**-11."""


@pytest.mark.parametrize("dialect", ["keras2", "keras3"])
@pytest.mark.parametrize("case", EVERY, ids=str)
@pytest.mark.filterwarnings("ignore")
def test_translated_models_answer_as_their_writer_did(case, dialect):
    if (case.id, dialect) in UNREADABLE:
        with pytest.raises(modelio.ConversionError, match="does not build this model"):
            modelio.to_keras(case / "model.h5")
        return
    conversion = modelio.convert(case / "model.h5", to="keras-h5", dialect=dialect)
    model = modelio.read(conversion.data)
    assert model.dialect == dialect
    inputs, outputs = golden(case)
    answers = modelio.to_keras(model).predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
    answers = answers if isinstance(answers, (list, tuple)) else [answers]
    rtol = HALF if case.model == "mixed_dtypes" else 1e-5
    for got, wanted in zip(answers, outputs, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())


def test_the_same_dialect_is_verbatim():
    case = next(case for case in EVERY if case.id == "keras-2.0.5_tf-1.2.1/cnn")
    same = modelio.convert(case / "model.h5", to="keras-h5", dialect="keras2")
    assert same.data == modelio.convert(case / "model.h5", to="keras-h5").data
    assert same.changes == ()


def test_every_change_is_listed():
    case = next(case for case in EVERY if case.id == "keras-1.2.2_tf-0.12.1/cnn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        conversion = modelio.convert(case / "model.h5", to="keras-h5", dialect="keras3.15")
    assert conversion.route == ("keras-h5", "keras3", "keras-h5")
    assert any("filters" in change for change in conversion.changes)


def test_a_format_that_holds_one_dialect_gets_it():
    case = next(case for case in EVERY if case.id == "keras-1.2.2_tf-0.12.1/cnn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        conversion = modelio.convert(case / "model.h5", to="tfjs-layers")
    assert conversion.route == ("keras-h5", "keras2", "tfjs-layers")
    assert modelio.read(conversion.data).dialect == "keras2"


@pytest.mark.parametrize("dialect", ["keras4", "pytorch", "keras2.x"])
def test_a_dialect_that_does_not_exist_is_refused(dialect):
    with pytest.raises(modelio.ConversionError, match="is no dialect"):
        modelio.convert(EVERY[0] / "model.h5", to="keras-h5", dialect=dialect)
