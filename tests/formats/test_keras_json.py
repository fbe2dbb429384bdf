"""Keras JSON: an architecture, and the list that ``get_weights()`` gives, in every version's files and everybody's trees."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modelio.errors import ModelioError, ReadError, UnsafeInput, WriteError
from modelio.formats import keras_h5, keras_json
from modelio.model import LayerModel, Tensor
from modelio.sink import Sink
from modelio.source import Source
from tests.corpus import Case, case, cases, strays


def read(source: object, **options: str) -> LayerModel:
    return keras_json.read(Source.of(source), **options)


def written(model: LayerModel) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with Sink.open(files, shape="tree") as sink:
        keras_json.write(model, sink)
        sink.commit()
    return files


def contents(model: LayerModel) -> dict[str, Any]:
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


def arrays(model: LayerModel) -> dict[str, list[np.ndarray]]:
    """The numbers by layer, for the layers that have any."""
    return {layer: [t.numpy() for t in named.values()] for layer, named in model.weights.items() if named}


def listed(case: Case) -> dict[str, np.ndarray]:
    """What ``get_weights()`` gave, in order; Python 2 archived it in none."""
    with np.load(case / "weights_list.npz", allow_pickle=True) as archive:
        return {name: archive[name] for name in sorted(archive.files)}


PAIRS = [
    one
    for one in cases(file=("architecture.json", "weights_list.npz"))
    if not any(array.dtype.hasobject for array in listed(one).values())
]
WHOLE = [one for one in PAIRS if (one / "model.h5").exists()]
CNN = case("keras-2.0.5_tf-1.2.1/cnn")
ARCHITECTURE = (CNN / "architecture.json").read_bytes()
WEIGHTS = (CNN / "weights_list.npz").read_bytes()


def npz(**named: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **named)
    return stream.getvalue()


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("case", PAIRS, ids=str)
def test_the_list_of_get_weights_finds_its_layers(case):
    model = read({"architecture.json": case / "architecture.json", "weights.npz": case / "weights_list.npz"})
    assert model.architecture == json.loads((case / "architecture.json").read_text())
    assert sum(map(len, model.weights.values())) == len(listed(case))


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_it_is_the_model_of_the_h5(case):
    ours = read({"architecture.json": case / "architecture.json", "weights.npz": case / "weights_list.npz"})
    theirs = keras_h5.read(Source.of(case / "model.h5"))
    assert ours.dialect == theirs.dialect
    one, other = arrays(ours), arrays(theirs)
    assert list(one) == list(other)
    for layer in one:
        assert len(one[layer]) == len(other[layer])
        assert all(np.array_equal(a, b) for a, b in zip(one[layer], other[layer], strict=True))


@pytest.mark.parametrize("case", cases(file="architecture.json"), ids=str)
def test_an_architecture_alone(case):
    source = Source.of(case / "architecture.json")
    assert keras_json.sniff(source)
    model = keras_json.read(source)
    assert model.architecture == json.loads((case / "architecture.json").read_text())
    assert model.weights == {}
    assert model.meta.get("keras_version") == model.architecture.get("keras_version")


@pytest.mark.parametrize("stray", strays(kind="*Keras JSON architecture"), ids=str)
def test_architectures_of_other_projects(stray):
    source = Source.of(stray.path)
    assert keras_json.sniff(source)
    model = keras_json.read(source)
    assert contents(read(written(model))) == contents(model)


@pytest.mark.parametrize("stray", strays(kind=["h5json", "TF.js*"]), ids=str)
def test_json_that_is_something_else(stray):
    assert not keras_json.sniff(Source.of(stray.path))
    with pytest.raises(ReadError, match="no Keras architecture is here"):
        read(stray.path)


def layers(*names: str) -> list[dict[str, Any]]:
    return [{"class_name": "Dense", "config": {"name": name, "output_dim": 2}} for name in names]


ARCHITECTURES = {
    "encoded twice": (json.dumps(ARCHITECTURE.decode()), json.loads(ARCHITECTURE)),
    "with a mark": (b"\xef\xbb\xbf" + ARCHITECTURE, json.loads(ARCHITECTURE)),
    "get_config() of a Sequential": (json.dumps(layers("a")), {"class_name": "Sequential", "config": layers("a")}),
    "get_config() of a functional model": (
        json.dumps({"layers": layers("a"), "input_layers": [], "output_layers": []}),
        {"layers": layers("a"), "input_layers": [], "output_layers": []},
    ),
    "Keras 0.x": (
        '{"name": "Sequential", "layers": [{"name": "Dense", "output_dim": 2}]}',
        {"name": "Sequential", "layers": [{"name": "Dense", "output_dim": 2}]},
    ),
    "a subclassed model": (
        '{"class_name": "Mine", "config": {}, "keras_version": "2.4.0"}',
        {"class_name": "Mine", "config": {}, "keras_version": "2.4.0"},
    ),
    "no layers": ('{"class_name": "Sequential", "config": []}', {"class_name": "Sequential", "config": []}),
}


@pytest.mark.parametrize(("text", "architecture"), ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_spellings_of_an_architecture(text, architecture):
    data = text if isinstance(text, bytes) else text.encode()
    assert keras_json.sniff(Source.of(data))
    assert read(data).architecture == architecture


@pytest.mark.parametrize(
    "text",
    [
        '{"class_name": "Dense", "config": {"units": 1}}',
        '{"class_name": "Adam", "config": {"lr": 0.1}}',
        '{"modelTopology": {"class_name": "Sequential", "config": []}, "weightsManifest": []}',
        '{"layers": ["conv", "dense"]}',
        '["class_name"]',
        '"class_name"',
        '{"class_name": "Sequential", "config": [',
        "class_name",
        "",
    ],
)
def test_what_is_not_claimed(text):
    assert not keras_json.sniff(Source.of(text.encode()))
    assert not keras_json.sniff(Source.of({"model.json": text.encode()}))


# --------------------------------------------------------------------------------------------------------------- trees


def test_every_carrier_gives_the_same(tmp_path):
    files = {"architecture.json": ARCHITECTURE, "weights.npz": WEIGHTS}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    wanted = contents(read(files))
    for carrier in (tmp_path, stream.getvalue(), stream, {k: io.BytesIO(v) for k, v in files.items()}):
        assert keras_json.sniff(Source.of(carrier))
        assert contents(read(carrier)) == wanted


TREES = {
    "other names": ({"model.json": ARCHITECTURE, "params.npz": WEIGHTS, "readme.json": b'{"a": 1}'}, {}),
    "by its name": ({"model.json": ARCHITECTURE, "model_weights.npz": WEIGHTS, "golden.npz": npz(x=1)}, {}),
    "by its whole name": ({"a.json": ARCHITECTURE, "weights.npz": WEIGHTS, "old_weights.npz": npz(x=1)}, {}),
    "as said": (
        {"a.json": ARCHITECTURE, "b.json": ARCHITECTURE, "c.npz": WEIGHTS, "d.npz": npz(x=1)},
        {"architecture": "b.json", "weights": "c.npz"},
    ),
    "arrays of one": ({"a.json": ARCHITECTURE, **dict(Source.of(WEIGHTS).tree.items())}, {}),
    "a list": ({"a.json": ARCHITECTURE, "a.npz": npz(**{f"arr_{n}": a for n, a in enumerate(listed(CNN).values())})}, {}),
    "a list in disorder": (
        {"a.json": ARCHITECTURE, "a.npz": npz(**dict(reversed([(f"arr_{n}", a) for n, a in enumerate(listed(CNN).values())])))},
        {},
    ),
    "any names, in order": (
        {"a.json": ARCHITECTURE, "a.npz": npz(**{f"{'zyxwvutsrqponm'[n]}": a for n, a in enumerate(listed(CNN).values())})},
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "options"), TREES.values(), ids=TREES)
def test_trees_of_others(files, options):
    assert keras_json.sniff(Source.of(files))
    assert contents(read(files, **options)) == contents(
        read({"architecture.json": ARCHITECTURE, "weights.npz": WEIGHTS})
    )


def test_names_by_layer():
    model = keras_h5.read(Source.of(CNN / "model.h5"))
    named = {name: t.numpy() for weights in model.weights.values() for name, t in weights.items()}
    found = read({"a.json": ARCHITECTURE, "a.npz": npz(**named)})
    assert {k: [n for n, _ in v.items()] for k, v in found.weights.items() if v} == {
        k: list(v) for k, v in model.weights.items() if v
    }


def test_a_neighbour_of_one_file(tmp_path):
    (tmp_path / "model.json").write_bytes(ARCHITECTURE)
    (tmp_path / "w.npz").write_bytes(WEIGHTS)
    assert read(tmp_path / "model.json").weights == {}
    assert len(arrays(read(tmp_path / "model.json", weights="w.npz"))) == 5


def test_compressed_arrays_are_not_kept():
    stream = io.BytesIO()
    np.savez_compressed(stream, *listed(CNN).values())
    model = read({"a.json": ARCHITECTURE, "weights.npz": stream.getvalue()})
    wanted = read({"a.json": ARCHITECTURE, "weights.npz": WEIGHTS})
    assert contents(model) == contents(wanted)
    (kernel, *_) = model.weights["conv2d_1"].values()
    assert kernel.numpy() is not kernel.numpy()


def change(**files: bytes | None) -> dict[str, bytes]:
    """A tree of our own, with some files replaced or (None) removed; ``_`` stands for the dot."""
    tree = written(keras_h5.read(Source.of(CNN / "model.h5")))
    for name, data in files.items():
        tree.pop(name.replace("_", "."))
        if data is not None:
            tree[name.replace("_", ".")] = data
    return tree


def note(edit: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    notes = json.loads(change()["modelio.json"])
    edit(notes)
    return change(modelio_json=json.dumps(notes).encode())


ONE = {"architecture.json": ARCHITECTURE}
FEW = npz(**dict(list(listed(CNN).items())[:-1]))

BROKEN = {
    "no architecture": ({"weights.npz": WEIGHTS}, ReadError, "no Keras architecture is here", None),
    "two architectures": ({"a.json": ARCHITECTURE, "b.json": ARCHITECTURE}, ReadError, "several Keras architectures: a.json, b.json", None),
    "two archives": ({**ONE, "a.npz": WEIGHTS, "b.npz": WEIGHTS}, ReadError, "several .npz files: a.npz, b.npz", None),
    "a pickle": ({**ONE, "weights.npz": npz(a=np.array([{}], object))}, UnsafeInput, "an array of Python objects is a pickle", "a.npy"),
    "no zip": ({**ONE, "weights.npz": b"no zip"}, ReadError, "this is no .npz: it is no zip", "weights.npz"),
    "a zip cut short": ({**ONE, "weights.npz": WEIGHTS[:1000]}, ReadError, "a zip whose directory cannot be read", None),
    "a .keras file": ({"metadata.json": b"{}", "config.json": ARCHITECTURE}, ReadError, "this is a .keras file", None),
    "an array gone": (change(weights_npz=FEW), ReadError, "modelio.json lists the array '0011', which is not there", "weights.npz"),
    "arrays gone": (change(weights_npz=None), ReadError, "modelio.json lists the array '0000', which is not there", "weights.npz"),
    "an array too many": (
        change(weights_npz=npz(**listed(CNN), more=1.0)), ReadError, "modelio.json does not list the arrays more", "weights.npz",
    ),
    "one array twice": (
        note(lambda n: n["weights"]["dense_2"].update({"dense_2/bias:0": "0010"})), ReadError, "an array is listed under two names", "modelio.json",
    ),
    "names that are numbers": (note(lambda n: n.update(weights={"a": {"b": 1}})), ReadError, "modelio.json lists the array 1", "weights.npz"),
    "names in a list": (note(lambda n: n.update(weights=[1])), ReadError, "weights are listed in another way", "modelio.json"),
    "an unknown dialect": (note(lambda n: n.update(dialect="keras9")), ReadError, '"keras9" is no dialect of Keras', "modelio.json"),
    "a version that is a number": (note(lambda n: n.update(meta={"keras_version": 2})), ReadError, "the version or the backend is not a text", "modelio.json"),
    "notes that are a list": (change(modelio_json=b"[]"), ReadError, "a JSON object is wanted", "modelio.json"),
    "training cut short": (change(training_json=b'{"loss": '), ReadError, "this is not JSON", "training.json"),
    "no optimizer": (change(optimizer_npz=None), ReadError, "modelio.json lists the array '0000', which is not there", "optimizer.npz"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "error", "sentence", "where"), BROKEN.values(), ids=BROKEN)
def test_broken(files, error, sentence, where):
    with pytest.raises(error) as caught:
        read(files)
    assert caught.value.reason.startswith(sentence)
    assert caught.value.where == where


def test_an_array_too_few():
    with pytest.raises(ReadError, match="11 arrays are given, the model has 12"):
        read({**ONE, "weights.npz": FEW})


@pytest.mark.parametrize(
    "options", [{"architecture": "other.json"}, {"weights": "other.npz"}], ids=["architecture", "weights"]
)
def test_a_name_that_is_not_there(options):
    with pytest.raises(ReadError, match="there is no such file") as caught:
        read({**ONE, "weights.npz": WEIGHTS}, **options)
    assert caught.value.where in options.values()


# ------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_round_trip(case):
    model = keras_h5.read(Source.of(case / "model.h5"))
    files = written(model)
    assert keras_json.sniff(Source.of(files))
    assert contents(read(files)) == contents(model)
    assert written(read(files)) == files


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_the_archive_is_what_get_weights_gave(case):
    files = written(keras_h5.read(Source.of(case / "model.h5")))
    with np.load(io.BytesIO(files["weights.npz"])) as ours:
        theirs = listed(case)
        assert ours.files == list(theirs)
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_the_files():
    model = keras_h5.read(Source.of(CNN / "model.h5"))
    files = written(model)
    assert sorted(files) == ["architecture.json", "modelio.json", "optimizer.npz", "training.json", "weights.npz"]
    assert json.loads(files["architecture.json"]) == model.architecture
    assert json.loads(files["training.json"]) == model.training
    assert sorted(written(read(ARCHITECTURE))) == ["architecture.json", "modelio.json"]


def test_a_layer_that_nobody_knows_keeps_its_weights():
    architecture = {"class_name": "Sequential", "config": [{"class_name": "Mine", "config": {"name": "mine"}}]}
    weights = {"mine": {"b": Tensor.of([1.0]), "a": Tensor.of([2.0])}, "gone": {"c": Tensor.of([3.0])}}
    model = LayerModel(architecture=architecture, weights=weights, dialect="keras2")
    assert contents(read(written(model))) == contents(model)


def test_weights_alone_do_not_fit():
    with pytest.raises(WriteError, match="this model has weights alone"):
        written(LayerModel(architecture=None, weights={}, dialect="keras1"))


@pytest.mark.parametrize("case", cases(model=("mlp", "multi_io"), version="keras-3*", file="model.h5"), ids=str)
@pytest.mark.filterwarnings("ignore")
def test_keras_reads_what_is_written(case, keras):
    one = keras_json.read(Source.of({"a.json": case / "architecture.json", "a.npz": case / "weights_list.npz"}))
    files = written(one)
    model = keras.models.model_from_json(files["architecture.json"].decode())
    with np.load(io.BytesIO(files["weights.npz"])) as archive:
        model.set_weights([archive[name] for name in archive.files])
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), listed(case).values(), strict=True))


def test_truncation_is_always_a_modelio_error():
    tree = Sink.open(None, shape="tree")
    with tree as sink:
        keras_json.write(keras_h5.read(Source.of(CNN / "model.h5")), sink)
        data = sink.commit()
    for keep in range(0, len(data), 997):
        try:
            model = read(data[:keep])
        except ModelioError:
            continue
        pytest.fail(f"{keep} of {len(data)} bytes read as {model}")
