"""Keras HDF5 as JSON: nothing is lost in it, and the HDF Group's own tools make of it a file that Keras loads.

``data/h5tojson-1.1.3`` has what h5tojson made of files in ``tests/data``, in its own time: with Python 3.7 and h5py 2.10.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.formats import hdf5_json, keras_h5
from modelio.model import LayerModel, Tensor
from modelio.sink import Sink
from modelio.source import Source
from tests.corpus import case, cases, golden, record, strays

DOCUMENTS = sorted((Path(__file__).parent / "data" / "h5tojson-1.1.3").iterdir())

WHOLE = [one for one in cases(file="model.h5") if not str(record(one)["h5"]).startswith("FAILED")]


def read(source: object, format: Any = hdf5_json) -> LayerModel:
    return format.read(Source.of(source))


def write(model: LayerModel, target: object = None, format: Any = hdf5_json) -> Any:
    with Sink.open(target, shape="blob") as sink:
        format.write(model, sink)
        return sink.commit()


def plain(model: LayerModel) -> dict[str, Any]:
    """All that a model is, in values that compare; lists of pairs where order counts."""

    def group(tensors):
        return [(name, t.dtype.name, t.shape, t.numpy().tobytes()) for name, t in tensors.items()]

    return {
        "architecture": json.dumps(model.architecture),
        "training": json.dumps(model.training),
        "weights": [(layer, group(tensors)) for layer, tensors in model.weights.items()],
        "optimizer": group(model.optimizer),
        "dialect": model.dialect,
        "meta": dict(model.meta),
    }


# Round trips


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_nothing_is_lost(case):
    model = read(case / "model.h5", keras_h5)
    data = write(model)
    assert hdf5_json.sniff(Source.of(data))
    assert plain(read(data)) == plain(model)
    assert write(read(data)) == data
    assert write(read(data), format=keras_h5) == write(model, format=keras_h5)


@pytest.mark.parametrize("stray", strays(kind=["Keras HDF5*", "Keras 0.x*"]), ids=str)
def test_files_of_other_projects(stray):
    if stray.path.stat().st_size > 4 << 20:
        pytest.skip("a large file takes a minute and shows no more")
    model = read(stray.path, keras_h5)
    assert plain(read(write(model))) == plain(model)


def test_names_beyond_64_kb():
    weights = {f"layer_{k}_{'x' * 40}": {f"w{k}": Tensor.of(np.float32(k))} for k in range(2000)}
    model = LayerModel({"class_name": "Sequential", "config": []}, weights, "keras2", meta={"keras_version": "2.3.1"})
    data = write(model)
    assert b'"layer_names1"' in data
    assert plain(read(data)) == plain(model)


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float8_e5m2", "float64", "int8", "uint64", "bool", "complex64"]
)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (3,), (2, 3, 4)])
def test_every_element_type_and_shape(dtype, shape):
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(getattr(ml_dtypes, dtype, dtype))
    model = LayerModel(None, {"a": {"w": Tensor.of(values)}}, "keras2", meta={"keras_version": "2.3.1"})
    assert plain(read(write(model))) == plain(model)


# What h5tojson makes of a Keras file


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_documents_of_h5tojson(path):
    original = case(path.stem.replace("+", "/")) / "model.h5"
    assert hdf5_json.sniff(Source.of(path))
    model = read(path)
    assert plain(model) == plain(read(original, keras_h5))
    assert any(not named for named in model.weights.values()), "a layer without weights, whose list is no floats"


def test_documents_of_todays_h5tojson(h5json, tmp_path):
    """It stops at lists of no names, which every Keras file has; so they are taken out before."""
    path = tmp_path / "model.h5"
    path.write_bytes((case("keras-3.15.1_tf-2.21.0/multi_io") / "model.h5").read_bytes())
    with h5py.File(path, "a") as file:
        weights = file["model_weights"]
        for name in [name for name in weights if not len(weights[name].attrs["weight_names"])]:
            del weights[name]
        weights.attrs["layer_names"] = [name for name in weights.attrs["layer_names"] if name in weights]
        if "top_level_model_weights" in weights:
            del weights["top_level_model_weights"]
    text = h5json("h5tojson", path)
    assert hdf5_json.sniff(Source.of(text))
    assert plain(read(text)) == plain(read(path, keras_h5))


# What jsontoh5 makes of ours


@pytest.fixture(scope="session")
def h5json(tmp_path_factory) -> Callable[..., bytes]:
    """``h5json(tool, *arguments)``: runs one of the HDF Group's tools; skips where they are not installed."""
    pytest.importorskip("h5json")

    def run(tool: str, *arguments: object) -> bytes:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", f"h5json.apps.{tool}", *map(str, arguments)],
            cwd=tmp_path_factory.mktemp("h5json"),  # they leave a log there
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run


SMALL = [one for one in WHOLE if one.model in ("lambda", "mixed_dtypes", "multi_io", "nested")]


def test_h5jvalidate_passes_them(h5json, tmp_path):
    for one in SMALL:
        write(read(one / "model.h5", keras_h5), tmp_path / f"{one.id.replace('/', '+')}.json")
    assert h5json("validator", tmp_path).count(b"... pass\n") == len(SMALL)


def test_h5jvalidate_passes_every_type(h5json, tmp_path):
    write(every_type(), tmp_path / "model.json")
    assert h5json("validator", tmp_path).count(b"... pass\n") == 1


def every_type() -> LayerModel:
    values = {
        "scalar": np.float32(0.5),
        "nothing": np.zeros((2, 0), "float32"),
        "half": np.array([0.1], "float16"),
        "brain": np.array([0.1], ml_dtypes.bfloat16),
        "double": np.array([[0.1]]),
        "count": np.int64(0),
        "byte": np.array([255], "uint8"),
        "truth": np.array([True, False]),
        "true": np.bool_(True),
        "complex": np.array([1 + 2j], "complex64"),
        "odd": np.array([np.nan, np.inf, -np.inf, -0.0], "float32"),
        "größe": np.ones((1, 1, 1), "float32"),
    }
    weights = {"layer": {name: Tensor.of(value) for name, value in values.items()}, "größe": {}}
    return LayerModel(None, weights, "keras2", meta={"keras_version": "2.3.1", "backend": "größe"})


def test_jsontoh5_keeps_every_type(h5json, tmp_path):
    """But for the narrow floats, which come back as the equal wider ones."""
    model = every_type()
    write(model, tmp_path / "model.json")
    h5json("jsontoh5", tmp_path / "model.json", tmp_path / "model.h5")
    found = read(tmp_path / "model.h5", keras_h5)
    assert list(found.weights) == list(model.weights)
    assert found.meta == model.meta
    for name, tensor in model.weights["layer"].items():
        wide = np.float32 if name in ("half", "brain") else tensor.dtype
        assert found.weights["layer"][name].dtype == wide
        assert found.weights["layer"][name].numpy().tobytes() == tensor.numpy().astype(wide).tobytes()


@pytest.mark.parametrize("case", [one for one in SMALL if one.model != "mixed_dtypes"], ids=str)
def test_jsontoh5_makes_the_same_model(case, h5json, tmp_path):
    model = read(case / "model.h5", keras_h5)
    write(model, tmp_path / "model.json")
    h5json("jsontoh5", tmp_path / "model.json", tmp_path / "model.h5")
    assert plain(read(tmp_path / "model.h5", keras_h5)) == plain(model)


@pytest.mark.parametrize(
    ("framework", "version"), [("keras", "keras-3.15.1_tf-2.21.0"), ("tf_keras", "tf_keras-2.21_tf-2.21.0")]
)
def test_keras_loads_what_jsontoh5_makes(framework, version, h5json, tmp_path, request):
    one = case(f"{version}/multi_io")
    write(read(one / "model.h5", keras_h5), tmp_path / "model.json")
    h5json("jsontoh5", tmp_path / "model.json", tmp_path / "model.h5")
    loaded = request.getfixturevalue(framework).models.load_model(tmp_path / "model.h5", compile=False)
    inputs, outputs = golden(one)
    for found, wanted in zip(loaded.predict(inputs, verbose=0), outputs, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


# Other documents


def test_a_document_without_a_model():
    documents = [
        b'{"apiVersion": "1.1.1", "root": "00000000-0000-0000-0000-000000000001", '
        b'"groups": {"00000000-0000-0000-0000-000000000001": {"alias": ["/"]}}}'
    ]
    with contextlib.suppress(LookupError):  # the HDF Group's own, where MODELIO_WILD has them
        documents += [stray.path.read_bytes() for stray in strays(kind="h5json") if stray.path.stem != "tallrw"]
    for document in documents:
        assert not hdf5_json.sniff(Source.of(document))
        with pytest.raises(ReadError, match="an HDF5/JSON document in which no Keras model is found"):
            read(document)


def test_it_is_told_from_its_content(tmp_path):
    model = read(case("keras-2.0.5_tf-1.2.1/multi_io") / "model.h5", keras_h5)
    data = write(model)
    assert hdf5_json.sniff(Source.of(data))
    assert hdf5_json.sniff(Source.of(json.dumps(json.loads(data), indent=4, sort_keys=True).encode())), (
        "root comes last"
    )
    assert hdf5_json.sniff(Source.of(data[:2000])), "damaged: reading says where"
    architecture = json.dumps(model.architecture).encode()
    for other in (b"", architecture, json.dumps({"modelTopology": {"model_config": model.architecture}}).encode()):
        assert not hdf5_json.sniff(Source.of(other))
    assert not hdf5_json.sniff(Source.of({"model.json": data}))
    assert not hdf5_json.sniff(Source.of(case("keras-2.0.5_tf-1.2.1/multi_io") / "model.h5"))


def test_what_tells_it_may_lie_across_two_pieces(monkeypatch):
    from modelio.wire import window

    data = write(LayerModel(None, {"a": {}}, "keras2"))
    for size in range(1, 60):
        monkeypatch.setattr(hdf5_json, "chunks", lambda opened, size=size: window.chunks(opened, size))
        assert hdf5_json.sniff(Source.of(data))


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A document of a model in which something was changed: groups and datasets go by their paths here."""
    document = json.loads(write(read(case("keras-2.0.5_tf-1.2.1/multi_io") / "model.h5", keras_h5)))
    change({item["alias"][0]: item for item in (document["groups"] | document["datasets"]).values()})
    return json.dumps(document).encode()


def drop_attribute(name: str) -> Callable[[dict[str, Any]], object]:
    def change(objects: dict[str, Any]) -> None:
        for item in objects.values():
            item["attributes"] = [each for each in item.get("attributes", []) if each["name"] != name]

    return change


def dataset_in(objects: dict[str, Any]) -> dict[str, str]:
    """A link to some dataset."""
    links = (each for item in objects.values() for each in item.get("links", []))
    return next(each for each in links if each["collection"] == "datasets")


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], type, str]] = {
    "no architecture": (drop_attribute("model_config"), ReadError, "model_config is missing"),
    "no list of layers": (drop_attribute("layer_names"), ReadError, "at model_weights: layer_names is missing"),
    "no list of weights": (drop_attribute("weight_names"), ReadError, "weight_names is missing"),
    "no weights": (lambda objects: objects["/model_weights"].update(links=[]), ReadError, "has no such group"),
    "a soft link": (
        lambda objects: objects["/model_weights"]["links"][0].update({"class": "H5L_TYPE_SOFT", "h5path": "/x"}),
        UnsafeInput,
        "only hard links are followed",
    ),
    "a weight that no list names": (
        lambda objects: objects["/model_weights"]["links"].append({**dataset_in(objects), "title": "again"}),
        ReadError,
        "at model_weights/again: neither layer_names nor weight_names leads to this dataset",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error", "sentence"), BROKEN.values(), ids=BROKEN)
def test_what_is_refused(change, error, sentence):
    with pytest.raises(error, match=sentence):
        read(changed(change))


@pytest.mark.parametrize("keep", [0, 1, 100, 1000, 5000, -10, -2])
def test_a_document_that_is_cut_short(keep):
    data = write(read(case("keras-2.0.5_tf-1.2.1/multi_io") / "model.h5", keras_h5))
    with pytest.raises(ReadError, match="this is not JSON"):
        read(data[:keep])


def test_numbers_that_are_left_out():
    """As with ``h5tojson --nodata``."""

    def change(objects: dict[str, Any]) -> None:
        for item in objects.values():
            item.pop("value", None)

    with pytest.raises(ReadError, match="its numbers are left out of the document"):
        read(changed(change))


def test_what_keras_has_no_place_for():
    with pytest.raises(WriteError, match="the model has no weights"):
        write(LayerModel({"class_name": "Model"}, {}, "keras2"))
    with pytest.raises(WriteError, match="at a/w: elements of object"):
        write(LayerModel(None, {"a": {"w": Tensor.of(np.array([b"x"], object))}}, "keras2"))


def test_long_lists_of_numbers_are_read_late(tmp_path):
    path = tmp_path / "model.json"
    write(LayerModel(None, {"a": {"a/w": Tensor.of(np.ones(1000, "float32"))}}, "keras2"), path)
    model = read(path)
    assert model.weights["a"]["a/w"].shape == (1000,)
    path.write_bytes(b"something else")
    with pytest.raises(ReadError, match="changed after the model was opened"):
        model.weights["a"]["a/w"].numpy()
