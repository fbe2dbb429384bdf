"""The public face: names, signatures and the ways in are relied on outside."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import modelio
from tests.corpus import case

CNN = case("keras-2.0.5_tf-1.2.1/cnn")


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_all_is_sorted_and_complete():
    assert modelio.__all__ == sorted(modelio.__all__)
    assert all(hasattr(modelio, name) for name in modelio.__all__)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (modelio.read, ["source", "format", "options"]),
        (modelio.write, ["model", "target", "format", "overwrite", "options"]),
        (
            modelio.convert,
            [
                "source",
                "target",
                "to",
                "source_format",
                "strict",
                "overwrite",
                "bind",
                "signature",
                "engine",
                "rules",
                "custom_objects",
                "release",
                "verify",
                "dialect",
                "architecture",
                "tags",
                "rename",
                "signatures",
                "rename_keys",
                "outputs",
                "inline",
                "thaw",
                "merge",
                "retag",
                "options",
            ],
        ),
        (modelio.inspect, ["source", "format"]),
        (modelio.identify, ["source"]),
        (modelio.formats, []),
        (modelio.to_callable, ["model", "signature", "rules"]),
        (modelio.verify, ["first", "second", "inputs", "rtol", "atol"]),
        (modelio.share, ["model"]),
        (modelio.attach, ["handle"]),
    ],
)
def test_signatures(function, names):
    assert parameters(function) == names


def test_a_conversion_gives_its_account():
    with pytest.warns(UserWarning, match="optimizer"):
        conversion = modelio.convert(CNN / "model.h5", to="saved-model")
    assert isinstance(conversion.data, bytes)
    assert conversion.route == ("keras-h5", "lower", "saved-model")
    assert "optimizer" in conversion.losses


def test_strict_refuses_a_loss_and_leaves_no_target(tmp_path):
    with pytest.raises(modelio.LossyConversion, match="optimizer"):
        modelio.convert(CNN / "model.h5", tmp_path / "export", to="saved-model", strict=True)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_is_a_type_error_that_lists_the_known():
    with pytest.raises(TypeError, match="it takes tags"):
        modelio.read(case("hybrid_contrib-keras_tf-1.2.1/labels_required").path, taggs="serve")


def test_the_error_tree():
    assert issubclass(modelio.ReadError, ValueError)
    assert issubclass(modelio.WriteError, ValueError)
    assert issubclass(modelio.MissingDependency, ImportError)
    assert issubclass(modelio.UnsafeInput, modelio.ReadError)
    assert issubclass(modelio.LossyConversion, modelio.ConversionError)
    assert issubclass(modelio.AmbiguousFormat, modelio.FormatError)


def test_a_missing_file_stays_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        modelio.read(tmp_path / "nothing.h5")


def test_a_tensor_is_an_array_when_asked():
    model = modelio.read(CNN / "model.h5")
    tensor = next(iter(model.weights["dense_1"].values()))
    assert np.asarray(tensor).shape == tensor.shape
    assert np.asarray(tensor, dtype="float64").dtype == np.float64


def test_a_model_sent_as_json_and_arrays_is_the_model():
    sent = modelio.read(CNN / "model.h5")
    text, arrays = sent.to_json(), sent.get_weights()
    received = modelio.LayerModel.from_json(text, arrays)
    assert [a.tobytes() for a in received.get_weights()] == [a.tobytes() for a in arrays]
    a, b = (
        modelio.convert(model, to="frozen-graph").data
        for model in (received, modelio.LayerModel.from_json(text, arrays))
    )
    assert a == b
