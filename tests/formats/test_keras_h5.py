"""Keras HDF5: every version's files are read whole and written back to the letter, and Keras loads what is written."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.formats import keras_h5
from modelio.layers.binding import bind
from modelio.layers.network import network_of
from modelio.model import LayerModel, Tensor
from modelio.sink import Sink
from modelio.source import Source
from tests.corpus import Case, case, cases, record, strays

FAILED = "FAILED"
"""How RECORD.json says that the framework itself could not write a file, which is then cut off where it stopped."""


def read(source: object) -> LayerModel:
    return keras_h5.read(Source.of(source))


def written(model: LayerModel) -> bytes:
    with Sink.open(None, shape="blob") as sink:
        keras_h5.write(model, sink)
        data = sink.commit()
    assert isinstance(data, bytes)
    return data


def contents(model: LayerModel) -> dict[str, Any]:
    """Everything that a model says, in a form that compares."""

    def tensors(named: Any) -> list[Any]:
        return [(name, t.dtype, t.shape, t.numpy().tobytes()) for name, t in named.items()]

    return {
        "architecture": json.dumps(model.architecture),
        "weights": [(layer, tensors(named)) for layer, named in model.weights.items()],
        "dialect": model.dialect,
        "training": json.dumps(model.training),
        "optimizer": tensors(model.optimizer),
        "meta": dict(model.meta),
    }


def decoded(values: Iterable[Any]) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


WHOLE = [one for one in cases(file="model.h5") if not str(record(one)["h5"]).startswith(FAILED)]
ALONE = [one for one in cases(file="weights.h5") if not str(record(one)["weights_h5"]).startswith(FAILED)]
HALF = [
    one / name
    for key, name in (("h5", "model.h5"), ("weights_h5", "weights.h5"))
    for one in cases(file=name)
    if str(record(one)[key]).startswith(FAILED)
]
STRAYS = strays(kind=["Keras HDF5*", "Keras 0.x*"])


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_a_whole_model_is_what_h5py_finds(case):
    model = read(case / "model.h5")
    with h5py.File(case / "model.h5") as file:
        assert model.architecture == json.loads(file.attrs["model_config"])
        assert model.meta["keras_version"] == file.attrs["keras_version"]
        assert model.meta.get("backend") == file.attrs.get("backend")
        assert (model.training is None) == ("training_config" not in file.attrs)
        group = file["model_weights"]
        assert list(model.weights) == decoded(group.attrs["layer_names"])
        for layer, named in model.weights.items():
            assert list(named) == decoded(group[layer].attrs["weight_names"])
            for name, tensor in named.items():
                assert np.array_equal(tensor.numpy(), group[layer][name][()])
        if "optimizer_weights" in file:
            state = file["optimizer_weights"]
            assert list(model.optimizer) == decoded(state.attrs["weight_names"])
            for name, tensor in model.optimizer.items():
                assert np.array_equal(tensor.numpy(), state[name][()])
        else:
            assert model.optimizer == {}


@pytest.mark.parametrize("case", ALONE, ids=str)
def test_weights_alone_are_those_of_the_whole_model(case):
    model, other = read(case / "weights.h5"), read(case / "model.h5")
    assert model.architecture is None
    assert model.training is None
    assert model.dialect == other.dialect
    assert contents(model)["weights"] == contents(other)["weights"]


DIALECTS = {"keras-1": "keras1", "keras-2": "keras2", "contrib": "keras2", "tf": "keras2", "keras-3": "keras3"}


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_the_version_says_the_dialect(case):
    prefix = next(prefix for prefix in DIALECTS if case.version.startswith(prefix))
    assert read(case / "model.h5").dialect == DIALECTS[prefix]


@pytest.mark.parametrize("stray", STRAYS, ids=str)
def test_files_of_other_projects(stray):
    assert keras_h5.sniff(Source.of(stray.path))
    model = read(stray.path)
    assert (model.architecture is None) == ("whole-model" not in stray.kind)
    assert contents(read(written(model))) == contents(model)


def test_keras_before_1():
    (stray,) = strays(kind="Keras 0.x*", name="*motif_counting*")
    model = read(stray.path)
    assert list(model.weights) == [f"layer_{number}" for number in range(7)]
    assert {layer: list(named) for layer, named in model.weights.items() if named} == {
        "layer_0": ["param_0", "param_1"],
        "layer_5": ["param_0", "param_1"],
    }
    assert (model.dialect, model.meta) == ("keras1", {"keras_version": "0"})


def test_a_graph_of_keras_before_1():
    def build(file: h5py.File) -> None:
        group = file.create_group("graph")
        group.attrs["nb_params"] = 2
        group["param_0"], group["param_1"] = [[1.0]], [2.0]

    data = made(build)
    assert keras_h5.sniff(Source.of(data))
    model = read(data)
    assert {name: tensor.numpy().tolist() for name, tensor in model.weights["graph"].items()} == {
        "param_0": [[1.0]],
        "param_1": [2.0],
    }
    with h5py.File(io.BytesIO(written(model))) as file:
        assert file["graph"].attrs["nb_params"] == 2
        assert "layer_names" not in file.attrs


def test_an_architecture_that_is_encoded_twice():
    def build(file: h5py.File) -> None:
        file.attrs["model_config"] = json.dumps(file.attrs["model_config"])

    assert read(changed(build)).architecture == read(changed(lambda file: None)).architecture


def test_every_carrier_gives_the_same():
    path = case("keras-2.0.5_tf-1.2.1/cnn") / "model.h5"
    wanted = contents(read(path))
    data = path.read_bytes()
    assert contents(read(data)) == wanted
    assert contents(read(io.BytesIO(data))) == wanted
    assert contents(read(Source.of({"a/model.h5": data}).tree["a/model.h5"])) == wanted
    with open(path, "rb") as stream:
        assert contents(read(stream)) == wanted


def test_weights_are_read_late(tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes((case("keras-2.0.5_tf-1.2.1/cnn") / "model.h5").read_bytes())
    model = read(path)
    kernel = model.weights["conv2d_1"]["conv2d_1/kernel:0"]
    path.write_bytes(b"something else")
    with pytest.raises(ReadError, match="changed after the model was opened"):
        kernel.numpy()


# ----------------------------------------------------------------------------------------------------------- sniffing


@pytest.mark.parametrize("case", cases(file="only.weights.h5"), ids=str)
def test_weights_of_keras_3_are_another_format(case):
    source = Source.of(case / "only.weights.h5")
    assert not keras_h5.sniff(source)
    with pytest.raises(ReadError, match=r"this is a \.weights\.h5, .* of the format keras-zip"):
        keras_h5.read(source)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: made(lambda file: file.create_dataset("x", data=[1])), id="other HDF5"),
        pytest.param(lambda: b"model_config layer_names", id="text"),
        pytest.param(lambda: b"", id="nothing"),
        pytest.param(lambda: {"model.h5": b"\x89HDF\r\n\x1a\n"}, id="a tree"),
    ],
)
def test_what_is_not_claimed(data):
    assert not keras_h5.sniff(Source.of(data()))


def test_a_damaged_file_is_claimed_so_that_reading_says_what_is_wrong():
    data = (case("keras-2.0.5_tf-1.2.1/cnn") / "model.h5").read_bytes()[:1000]
    assert keras_h5.sniff(Source.of(data))
    with pytest.raises(ReadError, match="the file is cut short: 1,000 of its 49,720 bytes are there"):
        read(data)


# -------------------------------------------------------------------------------------------------------------- broken


def made(build: Callable[[h5py.File], object]) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        build(file)
    return stream.getvalue()


def changed(build: Callable[[h5py.File], object], file: str = "keras-2.3.1_tf-1.15.5/mlp") -> bytes:
    """A real file, after somebody did something to it."""
    stream = io.BytesIO((case(file) / "model.h5").read_bytes())
    with h5py.File(stream, "r+") as opened:
        build(opened)
    return stream.getvalue()


def move(file: h5py.File, path: str, name: str, value: Any) -> None:
    """Replace an attribute; None removes it."""
    del file[path].attrs[name]
    if value is not None:
        file[path].attrs[name] = value


DENSE = "model_weights/dense_1"

BROKEN = {
    "no architecture": (
        lambda f: move(f, "/", "model_config", None),
        "model_config is missing: the file has a model's weights and not its architecture",
        None,
    ),
    "no weights": (lambda f: f.pop("model_weights"), "the group model_weights is missing", None),
    "no list of layers": (
        lambda f: move(f, "model_weights", "layer_names", None),
        "layer_names is missing: whatever wrote this file stopped half-way",
        "model_weights",
    ),
    "no list of weights": (
        lambda f: move(f, DENSE, "weight_names", None),
        "weight_names is missing: whatever wrote this file stopped half-way",
        DENSE,
    ),
    "no list of the optimizer's weights": (
        lambda f: move(f, "optimizer_weights", "weight_names", None),
        "weight_names is missing",
        "optimizer_weights",
    ),
    "a layer without a group": (
        lambda f: f["model_weights"].pop("dense_1"),
        "layer_names lists 'dense_1', and the file has no such group",
        "model_weights",
    ),
    "a weight without a dataset": (
        lambda f: f[DENSE].pop("dense_1/bias:0"),
        "weight_names lists 'dense_1/bias:0', and the file has no such dataset",
        DENSE,
    ),
    "a weight that is a group": (
        lambda f: move(f, DENSE, "weight_names", [b"dense_1"]),
        "this is a group, and a dataset is wanted",
        f"{DENSE}/dense_1",
    ),
    "an absolute path": (
        lambda f: move(f, DENSE, "weight_names", [b"/model_weights/dense_2/dense_2/bias:0"]),
        "weight_names lists '/model_weights/dense_2/dense_2/bias:0', and the file has no such dataset",
        DENSE,
    ),
    "a path upwards": (
        lambda f: move(f, DENSE, "weight_names", [b"../dense_2/dense_2/bias:0"]),
        "weight_names lists '../dense_2/dense_2/bias:0', and the file has no such dataset",
        DENSE,
    ),
    "a list that lost a weight": (
        lambda f: move(f, DENSE, "weight_names", [b"dense_1/kernel:0"]),
        "neither layer_names nor weight_names leads to this dataset: a part of them is lost",
        f"{DENSE}/dense_1/bias:0",
    ),
    "a list that lost a layer": (
        lambda f: move(f, "model_weights", "layer_names", [b"dense_1", b"batch_normalization_1"]),
        "neither layer_names nor weight_names leads to this dataset: a part of them is lost",
        "model_weights/dense_2/dense_2/bias:0",
    ),
    "a weight twice": (
        lambda f: move(f, DENSE, "weight_names", [b"dense_1/kernel:0"] * 2),
        "weight_names lists 'dense_1/kernel:0' twice",
        DENSE,
    ),
    "names that are numbers": (
        lambda f: move(f, DENSE, "weight_names", [1, 2]),
        "this holds numbers, and a list of names is wanted",
        f"{DENSE}@weight_names",
    ),
    "names that are one text": (
        lambda f: move(f, "model_weights", "layer_names", "dense_1"),
        "this is one text, and a list of names is wanted",
        "model_weights@layer_names",
    ),
    "an architecture that is a number": (
        lambda f: move(f, "/", "model_config", 7),
        "the attribute is not text",
        "model_config",
    ),
    "an architecture that is no JSON": (
        lambda f: move(f, "/", "model_config", '{"class_name": '),
        "this is not JSON: expecting value in line 1, column 16",
        "model_config",
    ),
    "an architecture that is a list": (
        lambda f: move(f, "/", "model_config", "[1]"),
        "a JSON object is wanted, this is [1]",
        "model_config",
    ),
    "training that is no JSON": (
        lambda f: move(f, "/", "training_config", "Adam"),
        "this is not JSON: expecting value in line 1, column 1",
        "training_config",
    ),
    "a version that is a number": (
        lambda f: move(f, "/", "keras_version", 2),
        "the attribute is not text",
        "@keras_version",
    ),
    "text for a weight": (
        lambda f: (f[DENSE].pop("dense_1/bias:0"), f[DENSE].update({"dense_1/bias:0": "text"})),
        "this holds text, and numbers are wanted",
        f"{DENSE}/dense_1/bias:0",
    ),
    "a weight that was never written": (
        lambda f: (f[DENSE].pop("dense_1/bias:0"), f[DENSE].create_dataset("dense_1/bias:0", (32,), "f4")),
        "no numbers are stored: whatever wrote this file stopped before them",
        f"{DENSE}/dense_1/bias:0",
    ),
}


@pytest.mark.parametrize(("build", "sentence", "where"), BROKEN.values(), ids=BROKEN)
def test_broken(build, sentence, where):
    with pytest.raises(ReadError) as caught:
        read(changed(build))
    assert caught.value.reason.startswith(sentence)
    assert caught.value.where == where


@pytest.mark.parametrize("link", [h5py.SoftLink("/optimizer_weights"), h5py.ExternalLink("other.h5", "/")])
def test_links_are_not_followed(link):
    def build(file: h5py.File) -> None:
        del file[DENSE]
        file[DENSE] = link

    with pytest.raises(UnsafeInput, match="links are not followed") as caught:
        read(changed(build))
    assert caught.value.where == DENSE


NUMBERED_BROKEN = {
    "a text": ("7", None),
    "negative": (-1, None),
    "too many": (8, "layer_7"),
}


@pytest.mark.parametrize(("count", "where"), NUMBERED_BROKEN.values(), ids=NUMBERED_BROKEN)
def test_broken_before_1(count, where):
    (stray,) = strays(kind="Keras 0.x*", name="*motif_counting*")
    stream = io.BytesIO(stray.path.read_bytes())
    with h5py.File(stream, "r+") as file:
        file.attrs["nb_layers"] = count
    with pytest.raises(ReadError, match="is missing, or is no count") as caught:
        read(stream.getvalue())
    assert caught.value.where == where


@pytest.mark.parametrize("path", HALF, ids=lambda path: "/".join(path.parts[-3:]))
def test_a_file_whose_writer_stopped_half_way_is_not_half_read(path):
    with pytest.raises(ReadError, match="weight_names is missing: whatever wrote this file stopped half-way"):
        read(path)


# ------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(
    "path", [*(c / "model.h5" for c in WHOLE), *(c / "weights.h5" for c in ALONE)], ids=lambda p: "/".join(p.parts[-3:])
)
def test_round_trip(path):
    model = read(path)
    data = written(model)
    assert contents(read(data)) == contents(model)
    assert written(read(data)) == data


def attributes(path: Path | io.BytesIO) -> dict[str, Any]:
    """All attributes of a file by path, texts and lists of texts decoded; all datasets with their numbers."""
    found: dict[str, Any] = {}

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype, item.shape, item[()].tobytes())
        for key, value in item.attrs.items():
            texts = isinstance(value, np.ndarray) and value.dtype.kind in "SO"
            found[f"{name}@{key}"] = decoded(value) if texts else np.asarray(value).tolist()

    with h5py.File(path) as file:
        look("", file)
        file.visititems(look)
    return found


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_a_whole_model_is_written_as_its_own_keras_wrote_it(case):
    assert attributes(io.BytesIO(written(read(case / "model.h5")))) == attributes(case / "model.h5")


@pytest.mark.parametrize("case", ALONE, ids=str)
def test_weights_alone_are_written_as_their_own_keras_wrote_them(case):
    assert attributes(io.BytesIO(written(read(case / "weights.h5")))) == attributes(case / "weights.h5")


def test_attributes_that_nobody_knows_survive():
    def build(file: h5py.File) -> None:
        file.attrs["classes"] = np.array([b"cat", b"dog"])
        file.attrs["comment"] = "Größe"
        file.attrs["mean"] = np.array([[0.1, 0.2]], "float32")
        file.attrs["epoch"] = 7
        file.attrs["owner"] = file.ref  # what no text can keep goes

    model = read(changed(build))
    with h5py.File(io.BytesIO(written(model))) as file:
        assert file.attrs["classes"].tolist() == [b"cat", b"dog"]
        assert file.attrs["comment"] == "Größe"
        assert file.attrs["mean"].dtype == np.float32
        assert np.array_equal(file.attrs["mean"], np.array([[0.1, 0.2]], "float32"))
        assert file.attrs["epoch"] == 7
        assert "owner" not in file.attrs
    assert contents(read(written(model))) == contents(model)


def test_variables_that_belong_to_no_layer():
    def build(file: h5py.File) -> None:
        group = file["model_weights/top_level_model_weights"]
        move(file, group.name, "weight_names", [b"scale:0"])
        group["scale:0"] = np.float32(3)

    model = read(changed(build, "keras-3.15.1_tf-2.21.0/mlp"))
    assert list(model.weights)[-1] == "top_level_model_weights"
    assert model.weights["top_level_model_weights"]["scale:0"].numpy() == 3
    with h5py.File(io.BytesIO(written(model))) as file:
        assert "top_level_model_weights" not in decoded(file["model_weights"].attrs["layer_names"])
    assert contents(read(written(model))) == contents(model)


def test_layers_that_do_not_fit_into_one_attribute():
    weights = {f"block_{number}/{'x' * 50}": {f"kernel_{number}:0": Tensor.of([1.0])} for number in range(2000)}
    model = LayerModel(architecture=None, weights=weights, dialect="keras2", meta={"keras_version": "2.3.1"})
    assert contents(read(written(model))) == contents(model)


def test_names_with_slashes():
    weights = {"a/b": {"c//d:0": Tensor.of([1.0]), "c/e": Tensor.of([2.0])}, "a": {}, "a/c": {"a": Tensor.of([3.0])}}
    model = LayerModel(architecture=None, weights=weights, dialect="keras2", meta={"keras_version": "2.3.1"})
    assert contents(read(written(model))) == contents(model)


def test_a_model_without_a_version_gets_one_since_keras_2_would_take_it_for_keras_1():
    model = LayerModel(architecture=None, weights={"a": {"k": Tensor.of([1.0])}}, dialect="keras2")
    with h5py.File(io.BytesIO(written(model))) as file:
        assert file.attrs["keras_version"] == "2.0.0"
    assert read(written(model)).dialect == "keras2"


ONE = {"a": {"k": Tensor.of([1.0])}}

UNWRITABLE = {
    "an architecture without weights": (
        LayerModel(architecture={"class_name": "Sequential"}, weights={}, dialect="keras2"),
        "the model has no weights, and Keras reads no .h5 without them: give the weights, too",
    ),
    "training without an architecture": (
        LayerModel(architecture=None, weights=ONE, dialect="keras2", training={}),
        "an optimizer's state is kept beside an architecture, and this model has none",
    ),
    "what is no JSON": (
        LayerModel(architecture={"class_name": object()}, weights=ONE, dialect="keras2"),
        "this cannot be written as JSON: Object of type object is not JSON serializable",
    ),
    "two weights at one path": (
        LayerModel(architecture=None, weights={"a": {"b/c": Tensor.of([1.0])}, "a/b": {"c": Tensor.of([1.0])}}, dialect="keras1"),
        "two weights would have this path",
    ),
    "strings": (
        LayerModel(architecture=None, weights={"a": {"b": Tensor.of(np.array([b"x"], object))}}, dialect="keras1"),
        "elements of object: Keras keeps numbers in HDF5, nothing else",
    ),
    "a layer named dot": (
        LayerModel(architecture=None, weights={".": {}}, dialect="keras1"),
        "a name is empty or a dot, which to HDF5 is the group itself",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "sentence"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_unwritable(model, sentence):
    with pytest.raises(WriteError) as caught:
        written(model)
    assert caught.value.reason == sentence


# --------------------------------------------------------------------------------------------------------------- Keras


def loaded(framework: ModuleType, path: Path) -> list[np.ndarray]:
    model = framework.models.load_model(path, compile=False)
    return [np.asarray(value) for value in model.get_weights()]


def check_loading(framework: ModuleType, case: Case, folder: Path) -> None:
    path = folder / "model.h5"
    path.write_bytes(written(read(case / "model.h5")))
    ours, theirs = loaded(framework, path), loaded(framework, case / "model.h5")
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert np.array_equal(one, other)


LOADABLE = ("mlp", "cnn", "multi_io")


@pytest.mark.parametrize("case", cases(model=LOADABLE, version="keras-3*", file="model.h5"), ids=str)
@pytest.mark.filterwarnings("ignore")
def test_keras_3_loads_what_is_written(case, keras, tmp_path):
    check_loading(keras, case, tmp_path)


@pytest.mark.parametrize(
    "case", cases(model=LOADABLE, version=["keras-2*", "tf*", "contrib*"], file="model.h5"), ids=str
)
@pytest.mark.filterwarnings("ignore")
def test_keras_2_loads_what_is_written(case, tf_keras, tmp_path):
    check_loading(tf_keras, case, tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_keras_2_loads_weights_alone(tf_keras, tmp_path):
    one = case("tf_keras-2.21_tf-2.21.0/cnn")
    model = tf_keras.models.load_model(one / "model.h5", compile=False)
    wanted = [np.asarray(value) for value in model.get_weights()]
    model.set_weights([np.zeros_like(value) for value in wanted])
    alone = read(one / "model.h5")
    alone = LayerModel(None, alone.weights, alone.dialect, meta=alone.meta)
    (tmp_path / "weights.h5").write_bytes(written(alone))
    model.load_weights(tmp_path / "weights.h5")
    assert all(np.array_equal(got, want) for got, want in zip(model.get_weights(), wanted, strict=True))


@pytest.mark.parametrize(
    ("names", "version", "backend"),
    [
        (("conv_W", "conv_b"), "1.2.2", "theano"),
        (("conv_W:0", "conv_b:0"), "1.2.2", None),
        (("param_0", "param_1"), "1.2.2", None),
        (("conv/kernel", "conv/bias"), "2.0.5", None),
    ],
)
def test_the_names_of_variables_tell_theano_from_tensorflow(names, version, backend, tmp_path):
    """Keras 1.2.2 notes no backend; its ``engine/topology.py`` writes ``w.name``, which Theano leaves as it was given."""
    path = tmp_path / "model.h5"
    config = {"name": "conv", "nb_filter": 2, "nb_row": 2, "nb_col": 2, "batch_input_shape": [None, 4, 4, 1]}
    architecture = {"class_name": "Sequential", "config": [{"class_name": "Convolution2D", "config": config}]}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version.encode()
        file.attrs["model_config"] = json.dumps(architecture).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"conv"]
        layer = group.create_group("conv")
        layer.attrs["weight_names"] = [name.encode() for name in names]
        for name, array in zip(names, (np.arange(8.0).reshape(2, 2, 1, 2), np.ones(2)), strict=True):
            layer[name] = array.astype("float32")
    model = keras_h5.read(Source.of(path))
    assert model.meta.get("backend") == backend
    if version[0] == "1":
        (bound,) = (one for one in bind(network_of(model.architecture, "keras1"), model).layers if one.weights)
        turned = bound.weights["kernel"].numpy()[0, 0, 0, 0] == 6
        assert turned == (backend == "theano")  # Theano convolves, TensorFlow correlates
