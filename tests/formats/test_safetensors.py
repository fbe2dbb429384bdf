"""safetensors files: nothing of a Keras model is lost in one, and the reference implementation opens it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from modelio.errors import ReadError, WriteError
from modelio.formats import keras_h5
from modelio.formats import safetensors as st
from modelio.model import LayerModel, Tensor
from modelio.sink import Sink
from modelio.source import Source
from tests.corpus import case, cases, record, strays

WHOLE = [one for one in cases(file="model.h5") if not str(record(one)["h5"]).startswith("FAILED")]
EVERY = pytest.mark.parametrize("path", [one / "model.h5" for one in WHOLE], ids=[one.id for one in WHOLE])


def read(source: object) -> LayerModel:
    return st.read(Source.of(source))


def write(model: LayerModel, target: object = None, format: Any = st) -> Any:
    with Sink.open(target, shape="blob") as sink:
        format.write(model, sink)
        return sink.commit()


def read_h5(path: Path) -> LayerModel:
    return keras_h5.read(Source.of(path))


def plain(model: LayerModel) -> dict[str, Any]:
    """All that a model is, in values that compare; lists of pairs where order counts."""

    def group(tensors):
        return [(name, t.dtype.name, t.shape, t.numpy().tobytes()) for name, t in tensors.items()]

    return {
        "architecture": json.dumps(model.architecture),  # the order of keys, and NaN
        "training": json.dumps(model.training),
        "weights": [(layer, group(tensors)) for layer, tensors in model.weights.items()],
        "optimizer": group(model.optimizer),
        "dialect": model.dialect,
        "meta": dict(model.meta),
    }


# Keras models


@EVERY
def test_nothing_is_lost(path):
    model = read_h5(path)
    data = write(model)
    assert plain(read(data)) == plain(model)
    assert write(read(data)) == data
    assert write(read(data), format=keras_h5) == write(model, format=keras_h5)


@EVERY
def test_the_reference_implementation_opens_it(path, tmp_path):
    model = read_h5(path)
    write(model, tmp_path / "model.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    tensors = [t for group in (*model.weights.values(), model.optimizer) for t in group.values()]
    assert sorted((a.dtype.name, a.shape, a.tobytes()) for a in arrays.values()) == sorted(
        (t.dtype.name, t.shape, t.numpy().tobytes()) for t in tensors
    )
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        texts = file.metadata()
    assert json.loads(texts["architecture"]) == model.architecture
    assert json.loads(texts["weights"]) == {layer: list(named) for layer, named in model.weights.items()}
    assert ("training" in texts) == (model.training is not None)


@pytest.mark.parametrize("stray", strays(kind="Keras HDF5*"), ids=str)
def test_files_of_other_projects(stray):
    try:
        model = read_h5(stray.path)
    except ReadError:
        pytest.skip("no model in it")
    assert plain(read(write(model))) == plain(model)


def test_names_are_those_of_keras():
    model = read_h5(case("keras-2.3.1_tf-1.15.5/mlp") / "model.h5")
    data = write(model)
    names = set(safetensors.numpy.load(data))
    assert {"dense_1/kernel:0", "dense_1/bias:0"} <= names
    assert all(name.split("/")[0] in ("optimizer_weights", *model.weights) for name in names)


def test_a_text_for_each_part_that_a_model_has():
    bare = LayerModel(architecture=None, weights={"a": {"a/b": Tensor.of(np.ones(1))}}, dialect="keras2")
    assert texts_of(write(bare)) == {"format": "keras", "dialect": "keras2", "meta": "{}", "weights": '{"a": ["a/b"]}'}
    whole = LayerModel(
        {"class_name": "M"}, {}, "keras1", {"loss": "mse"}, {"m": Tensor.of(np.ones(1))}, {"backend": "theano"}
    )
    assert texts_of(write(whole)) == {
        "format": "keras",
        "dialect": "keras1",
        "meta": '{"backend": "theano"}',
        "architecture": '{"class_name": "M"}',
        "training": '{"loss": "mse"}',
        "weights": "{}",
        "optimizer": '["m"]',
    }
    for model in (bare, whole):
        assert plain(read(write(model))) == plain(model)


def texts_of(data: bytes) -> dict[str, str]:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


ODD_NAMES = {
    "two that make the same": {"a": {"b": 1.0, "a/b": 2.0, "a/a/b": 3.0}},
    "layers inside each other's names": {"a": {"b/c": 1.0}, "a/b": {"c": 2.0}},
    "a layer named as the optimizer's group": {"optimizer_weights": {"m": 1.0}},
    "a layer named as the metadata": {"__metadata__": {"__metadata__": 1.0}},
    "no name": {"": {"": 1.0}},
    "beyond ASCII": {"größe": {"größe/核:0": 1.0}},
    "quotes": {'"\\\n\x7f': {'"': 1.0}},
}


@pytest.mark.parametrize("weights", ODD_NAMES.values(), ids=ODD_NAMES)
def test_odd_names_survive(weights):
    model = LayerModel(
        architecture=None,
        weights={
            layer: {name: Tensor.of(np.float32(x)) for name, x in named.items()} for layer, named in weights.items()
        },
        dialect="keras2",
        optimizer={"m": Tensor.of(np.float32(9))},
    )
    data = write(model)
    assert plain(read(data)) == plain(model)
    assert len(safetensors.numpy.load(data)) == sum(map(len, weights.values())) + 1


def test_what_json_alone_cannot_say():
    architecture = {"rate": float("nan"), "limit": float("-inf"), "größe": "核", "big": 2**70, "b": 1, "a": 2}
    model = LayerModel(architecture, {}, "keras2")
    assert plain(read(write(model))) == plain(model)


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float8_e4m3fn", "float64", "int8", "uint64", "bool", "complex64"]
)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (3,), (2, 3, 4)])
def test_every_element_type_and_shape(dtype, shape):
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(getattr(ml_dtypes, dtype, dtype))
    model = LayerModel(None, {"a": {"w": Tensor.of(values)}}, "keras3")
    assert plain(read(write(model))) == plain(model)


@pytest.mark.parametrize("values", [np.array([b"a"], object), np.array(["a"]), np.ones(2, complex)])
def test_a_weight_that_safetensors_cannot_hold_is_named(values):
    with pytest.raises(WriteError, match=r"at dense/table: safetensors has no element type"):
        write(LayerModel(None, {"dense": {"dense/table": Tensor.of(values)}}, "keras3"))


def test_no_weight_is_read_before_it_is_asked_for(tmp_path):
    path = tmp_path / "model.safetensors"
    write(LayerModel(None, {"a": {"a/w": Tensor.of(np.ones(10, "float32"))}}, "keras3"), path)
    model = read(path)
    assert model.weights["a"]["a/w"].shape == (10,)
    path.write_bytes(path.read_bytes()[:-40] + np.full(10, 7, "float32").tobytes())
    with pytest.raises(ReadError, match="changed after the model was opened"):
        model.weights["a"]["a/w"].numpy()
    assert read(path).weights["a"]["a/w"].numpy().tolist() == [7] * 10


# Files of other origin


def test_weights_that_pytorch_named():
    arrays = {
        "encoder.0.weight": np.ones((2, 3), "float32"),
        "encoder.0.bias": np.zeros(2, "float32"),
        "scale": np.ones(1),
    }
    data = safetensors.numpy.save(arrays, metadata={"format": "pt"})
    model = read(data)
    assert model.architecture is None
    assert model.meta == {"format": "pt"}
    named = {layer: sorted(group) for layer, group in model.weights.items()}
    assert named == {"encoder.0": ["encoder.0.bias", "encoder.0.weight"], "scale": ["scale"]}
    assert plain(read(write(model))) == plain(model)
    assert set(safetensors.numpy.load(write(model))) == set(arrays), "the names do not change"


def test_weights_that_keras_named():
    model = read(safetensors.numpy.save({"block.1/conv/kernel:0": np.ones(1), "block.1/conv/bias:0": np.ones(1)}))
    assert model.dialect == "keras2"
    assert {layer: sorted(group) for layer, group in model.weights.items()} == {
        "block.1/conv": ["block.1/conv/bias:0", "block.1/conv/kernel:0"]
    }


def test_what_is_left_when_the_texts_are_lost():
    """Somebody loads the arrays, and saves them again: the layers are still there where Keras' names say them."""
    model = read_h5(case("keras-2.3.1_tf-1.15.5/mlp") / "model.h5")
    left = read(safetensors.numpy.save(safetensors.numpy.load(write(model))))
    assert left.architecture is None
    for layer, named in model.weights.items():
        for name, tensor in named.items():
            assert left.weights[layer][name].numpy().tobytes() == tensor.numpy().tobytes()


def test_a_file_without_any_tensor():
    with pytest.raises(ReadError, match="no tensor is in this file"):
        read(safetensors.numpy.save({}))


# Files that contradict themselves

GOOD = {"format": "keras", "dialect": "keras2", "meta": "{}", "weights": '{"a": ["a/b"]}'}
BROKEN: dict[str, tuple[dict[str, str], str]] = {
    "another dialect": ({"dialect": "keras9"}, "at dialect: there is no dialect 'keras9'"),
    "no JSON": ({"architecture": "{"}, "at architecture: this is not JSON"),
    "an architecture that is a list": ({"architecture": "[]"}, "at architecture: JSON of another kind"),
    "a training that is a number": ({"training": "1"}, "at training: JSON of another kind"),
    "meta that is no text": ({"meta": '{"a": 1}'}, "at meta: something in it is not text"),
    "weights that are a list": ({"weights": '["a"]'}, "at weights: JSON of another kind"),
    "a layer that is no list": ({"weights": '{"a": "a/b"}'}, "at weights: a list of names is wanted"),
    "a name that is none": ({"weights": '{"a": [1]}'}, "at weights: a list of names is wanted"),
    "a weight twice": ({"weights": '{"a": ["a/b", "a/b"]}'}, "at weights: a weight is listed twice"),
    "a weight that is not there": ({"weights": '{"a": ["a/b", "a/c"]}'}, "at a/c: the tensor is listed, and the file"),
    "a weight that is not listed": ({"weights": '{"a": []}'}, "at a/b: the file has this tensor, and neither"),
    "no list of weights": ({"weights": None}, "at a/b: the file has this tensor, and neither"),
    "a slot that is not there": ({"optimizer": '["m"]'}, "at optimizer_weights/m: the tensor is listed"),
    "slots in a mapping": ({"optimizer": '{"m": 1}'}, "at optimizer: JSON of another kind"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), BROKEN.values(), ids=BROKEN)
def test_what_is_refused(change, sentence):
    texts = {key: text for key, text in {**GOOD, **change}.items() if text is not None}
    tensors = {"a/b": np.ones(1, "float32")}
    assert plain(read(safetensors.numpy.save(tensors, GOOD)))["weights"][0][0] == "a"
    with pytest.raises(ReadError, match=sentence):
        read(safetensors.numpy.save(tensors, texts))


def test_it_is_told_from_its_content():
    data = write(LayerModel({"class_name": "M"}, {}, "keras2"))
    assert st.sniff(Source.of(data))
    assert st.sniff(Source.of(data[:40])), "damaged: reading says where"
    for other in (b"", b'{"class_name": "Sequential"}', (case("keras-2.3.1_tf-1.15.5/mlp") / "model.h5").read_bytes()):
        assert not st.sniff(Source.of(other))
    assert not st.sniff(Source.of({"a": data}))
