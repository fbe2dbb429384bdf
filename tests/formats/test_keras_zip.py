"""Keras v3 files: what is read and written again is the same, and what comes from elsewhere loads in Keras."""

from __future__ import annotations

import io
import json
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import modelio
from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.formats import keras_h5, keras_json, keras_zip
from modelio.layers.binding import bind, get_weights
from modelio.layers.network import network_of
from modelio.layers.vocabularies import vocabulary_of
from modelio.layers.weight_groups import joined
from modelio.model import LayerModel, Tensor
from modelio.sink import Sink
from modelio.source import Source
from tests.corpus import MODELS, cases, golden, record, strays

DATA = Path(__file__).parent / "data" / "keras_zip"
WALKS = sorted(DATA.glob("*.keras"))
CASES = cases(file="model.keras")
FILES = [
    *((case.id, case / "model.keras") for case in CASES),
    *((path.stem, path) for path in WALKS),
    *((stray.name.rpartition("/")[2], stray.path) for stray in strays(kind=".keras zip")),
]
every = pytest.mark.parametrize("path", [path for _, path in FILES], ids=[name for name, _ in FILES])
ANY = CASES[0] / "model.keras"


def read(source: object) -> LayerModel:
    return keras_zip.read(Source.of(source))


def write(model: LayerModel, target: object = None, shape: Any = "blob", **options: Any) -> Any:
    with Sink.open(target, shape=shape) as sink:
        keras_zip.write(model, sink, **options)
        return sink.commit()


def read_h5(path: Path) -> LayerModel:
    return keras_h5.read(Source.of(path))


def members(data: Path | bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data) if isinstance(data, bytes) else data) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return stream.getvalue()


def hdf5(data: bytes) -> dict[str, Any]:
    """Everything in an HDF5 file: groups, datasets, and the attributes of both."""
    found: dict[str, Any] = {}

    def look(path: str, item: Any) -> None:
        attributes = {name: np.asarray(value).tolist() for name, value in item.attrs.items()}
        values = (item.dtype.str, item.shape, item[()].tobytes()) if isinstance(item, h5py.Dataset) else None
        found[path] = (attributes, values)

    with h5py.File(io.BytesIO(data)) as file:
        look("", file)
        file.visititems(look)
    return found


def plain(model: LayerModel) -> dict[str, Any]:
    """All that a model is, in values that compare."""

    def group(named):
        return {name: (t.dtype.name, t.shape, t.numpy().tolist()) for name, t in named.items()}

    return {
        "architecture": model.architecture,
        "training": model.training,
        "weights": {layer: group(named) for layer, named in model.weights.items()},
        "optimizer": list(group(model.optimizer).items()),
        "dialect": model.dialect,
        "meta": dict(model.meta),
    }


def close(got: Any, wanted: list[np.ndarray], relative: float = 1e-5) -> None:
    got = list(got.values()) if isinstance(got, dict) else got if isinstance(got, (list, tuple)) else [got]
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=relative, atol=relative * max(1e-30, float(np.abs(other).max())))


# -- the same again ----------------------------------------------------------------------------------------------------


@every
def test_what_is_written_again_is_the_same(path):
    found, wanted = members(write(read(path))), members(path)
    assert list(found) == sorted(found, key=list(wanted).index)
    assert {name: data for name, data in found.items() if name != "model.weights.h5"} == {
        name: data for name, data in wanted.items() if name != "model.weights.h5"
    }
    assert hdf5(found["model.weights.h5"]) == hdf5(wanted["model.weights.h5"])


@pytest.mark.parametrize("path", [p for n, p in FILES if "textvec" not in n and "nested_container" not in n], ids=str)
def test_so_it_is_through_another_format(path):
    """keras-json keeps all of a LayerModel, ``meta`` with the assets too; it has no place for tables and classes."""
    model = read(path)
    tree: dict[str, bytes] = {}
    with Sink.open(tree, shape="tree") as sink:
        keras_json.write(model, sink)
        sink.commit()
    again = keras_json.read(Source.of(tree))
    assert plain(again) == plain(model)
    assert write(again) == write(model)


@every
def test_the_same_model_gives_the_same_bytes(path):
    model = read(path)
    assert write(model) == write(read(write(model)))
    assert write(model) == write(model.load())


def test_members_are_stored_and_dated_alike():
    """The order of Keras, without compression, with the earliest date that a zip can say."""
    with zipfile.ZipFile(io.BytesIO(write(read(ANY)))) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == ["metadata.json", "config.json", "model.weights.h5"]
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}


def test_unknown_members_groups_and_attributes_are_kept():
    parts = members(ANY)
    stream = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(stream, "a") as file:
        file.attrs["note"] = np.arange(3)
        file["somewhere/else"] = np.arange(4.0)
        file["layers"].attrs["note"] = "kept"
        file["layers"].create_group("empty/inside")
        file["extra_head/vars/0"] = np.ones((2, 2), "float32")
        file["layers/dropout/seed_generator/vars/0"] = np.array([1, 2], "uint32")
    parts |= {"model.weights.h5": stream.getvalue(), "assets/a/b.txt": b"\x00\xff", "notes.txt": b"mine"}
    parts["metadata.json"] = b'{"keras_version": "3.15.1", "more": {"a": 1}}'
    model = read(zipped(parts))
    assert model.weights["extra_head"]["vars/0"].shape == (2, 2)
    found = members(write(model))
    assert {**found, "model.weights.h5": b""} == {**parts, "model.weights.h5": b""}
    assert hdf5(found["model.weights.h5"]) == hdf5(parts["model.weights.h5"])


# -- what is in it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases(file=("model.keras", "weights_list.npz")), ids=str)
def test_weights_are_those_of_keras(case):
    with np.load(case / "weights_list.npz", allow_pickle=case.model == "textvec") as stored:
        wanted = [stored[name] for name in stored.files]
    found = get_weights(read(case / "model.keras"))
    assert [(a.dtype, a.shape) for a in found] == [(a.dtype, a.shape) for a in wanted]
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("path", WALKS, ids=lambda path: path.stem)
def test_weights_are_those_of_older_versions(path):
    """Each once: a model that is in two places is in both groups, as one tensor."""
    model = read(path)
    tensors = {id(t): t.numpy() for named in model.weights.values() for t in named.values()}
    with np.load(path.with_suffix(".npz")) as stored:
        wanted = [stored[name] for name in stored.files if name.startswith("weight_")]
    assert sorted(a.tobytes() for a in tensors.values()) == sorted(a.tobytes() for a in wanted)
    assert list(model.weights["inner"]) == list(model.weights["each"])
    assert model.weights["chain"].keys() == {f"chain_{x}/{role}" for x in "ab" for role in _roles(model)}
    assert [t.shape for t in model.weights["stack"].values()] == [(4, 12), (4, 12), (2, 12), (4, 16), (4, 16), (16,)]


def _roles(model: LayerModel) -> list[str]:
    return [f"{role}:0" if model.dialect == "keras2" else role for role in ("kernel", "bias")]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_parts_of_a_model(case):
    model = read(case / "model.keras")
    config = json.loads(members(case / "model.keras")["config.json"])
    assert model.architecture == config
    assert model.training == (config.get("compile_config") or None)
    assert model.dialect == ("keras3" if case.version.startswith("keras-3") else "keras2")
    assert model.meta["keras_version"] == json.loads(members(case / "model.keras")["metadata.json"])["keras_version"]
    listed = [node["config"]["name"] for node in config["config"]["layers"]]
    if config["class_name"] == "Sequential":
        listed = listed[1:]  # its InputLayer is in no list of layers
    operations = {node["config"]["name"] for node in config["config"]["layers"] if ".ops." in f"{node['module']}."}
    assert set(model.weights) == set(listed) - operations


def test_optimizer_and_metrics():
    file = members(DATA / "tf-2.12.0.keras")["model.weights.h5"]
    model = read(DATA / "tf-2.12.0.keras")
    with h5py.File(io.BytesIO(file)) as stored:
        assert len(model.optimizer) == len(stored["optimizer/vars"])
        for name, tensor in model.optimizer.items():
            assert np.array_equal(tensor.numpy(), stored[f"optimizer/{name}"][()])
    assert list(model.optimizer)[:3] == ["vars/0", "vars/1", "vars/2"]
    assert list(model.optimizer)[10] == "vars/10"
    assert not any("metrics" in layer for layer in model.weights)


def test_reading_and_writing_hold_no_tensor(tmp_path):
    """32 MB of weights go by in pieces of one."""
    layer = {"class_name": "Dense", "module": "keras.layers", "config": {"name": "d", "units": 1 << 11}}
    first = {
        "class_name": "InputLayer",
        "module": "keras.layers",
        "config": {"name": "i", "batch_shape": [None, 1 << 12]},
    }
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": [first, layer]}}
    numbers = np.arange(1 << 23, dtype="float32").reshape(1 << 12, 1 << 11)
    kernel, bias = Tensor.of(numbers), Tensor.of(np.zeros(1 << 11, "float32"))
    write(LayerModel(config, {"d": {"d/kernel": kernel, "d/bias": bias}}, "keras3"), tmp_path / "a.keras")
    tracemalloc.start()
    try:
        model = read(tmp_path / "a.keras")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        write(model, tmp_path / "b.keras")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    assert np.array_equal(read(tmp_path / "b.keras").weights["d"]["d/kernel"].numpy(), numbers)


def test_vocabularies_are_weights_of_tf_keras(tf_keras, tmp_path):
    layers = [
        tf_keras.layers.StringLookup(name="s"),
        tf_keras.layers.StringLookup(name="m", mask_token="-", num_oov_indices=2),
    ]
    for layer in layers:
        layer.adapt(np.array(["b", "a", "b"]))
    inputs = tf_keras.Input((), dtype="string")
    model = tf_keras.Model(inputs, [layer(inputs) for layer in layers])
    model.save(tmp_path / "model.keras")
    found = read(tmp_path / "model.keras")
    assert [a.tolist() for a in get_weights(found)] == [w.tolist() for w in model.get_weights()] == [[b"b", b"a"]] * 2
    without = LayerModel(
        found.architecture, found.weights, "keras2", meta={"keras_version": found.meta["keras_version"]}
    )
    assert members(write(without)).keys() == members(tmp_path / "model.keras").keys()
    write(without, tmp_path / "again.keras")
    again = tf_keras.models.load_model(tmp_path / "again.keras")
    asked = np.array(["a", "b", "c", "-"])
    assert [a.tolist() for a in again.predict(asked, verbose=0)] == [
        a.tolist() for a in model.predict(asked, verbose=0)
    ]


def looking_up(keras: Any) -> tuple[Any, list[np.ndarray]]:
    """A model with three tables, one of them in a model of its own, that adapted to data; and something to ask."""
    words, numbers = keras.Input((1,), dtype="string", name="words"), keras.Input((2,), dtype="int64", name="numbers")
    text = keras.layers.TextVectorization(output_sequence_length=4, name="text")
    text.adapt(["a few words", "a word or two", "two words: a few"])
    inner_input = keras.Input((1,), dtype="string", name="inner_input")
    lookup = keras.layers.StringLookup(num_oov_indices=2, mask_token="-", output_mode="multi_hot", name="lookup")
    lookup.adapt(np.array(["two", "words", "two"]))
    inner = keras.Model(inner_input, keras.layers.Dense(3, name="dense")(lookup(inner_input)), name="inner")
    known = keras.layers.IntegerLookup(name="known")
    known.adapt(np.array([[7, 7], [11, 5]]))
    outputs = [text(words), inner(words), known(numbers)]
    model = keras.Model([words, numbers], outputs)
    return model, [
        np.array([["a few"], ["two"], ["-"], ["words and more"]]),
        np.array([[7, 5], [11, 0], [1, 2], [3, 7]]),
    ]


def answers(model: Any, asked: list[np.ndarray]) -> list[Any]:
    import tensorflow as tf

    return [np.asarray(answer).tolist() for answer in model([tf.constant(part) for part in asked])]


def test_vocabularies_are_assets_of_keras_3(keras, tmp_path):
    model, _ = looking_up(keras)
    model.save(tmp_path / "model.keras")
    found = read(tmp_path / "model.keras")
    text, lookup, known = (
        layer.get_vocabulary()
        for layer in (
            model.get_layer("text"),
            model.get_layer("inner").get_layer("lookup"),
            model.get_layer("known"),
        )
    )
    spelled = {
        "text/vocabulary.txt": text,
        "text/_lookup_layer/vocabulary.txt": text,
        "inner/lookup/vocabulary.txt": lookup,
        "known/vocabulary.txt": known,
    }
    assert {name: file.bytes().decode().split("\n") for name, file in found.assets.items()} == {
        name: [str(word) for word in words] for name, words in spelled.items()
    }
    network = bind(network_of(found.architecture, found.dialect, found.meta), found)
    layers = {layer.path: layer for layer in network.walk()}
    assert vocabulary_of(layers["text"]).tolist() == [word.encode() for word in text[2:]]
    assert vocabulary_of(layers["inner/lookup"]).tolist() == [word.encode() for word in lookup[2:]]
    assert vocabulary_of(layers["known"]).tolist() == known[1:]
    assert found.load().assets.keys() == spelled.keys()
    written, saved = members(write(found)), members(tmp_path / "model.keras")
    assert hdf5(written.pop("model.weights.h5")) == hdf5(saved.pop("model.weights.h5"))
    assert written == saved


@pytest.mark.parametrize("format", ["keras-h5", "keras-json", "hdf5-json", "safetensors", "tfjs-layers"])
def test_vocabularies_go_with_a_model(format, keras, tf_keras, tmp_path):
    """Into the arguments of their layers, where the format keeps no assets; in no case are they lost without a word."""
    model, asked = looking_up(keras)
    model.save(tmp_path / "model.keras")
    done = modelio.convert(tmp_path / "model.keras", to=format)
    assert not done.losses
    told = " ".join(change for change in done.changes if "vocabulary:" in change)
    assert all(path in told for path in ("text", "inner/lookup", "known"))
    back = modelio.convert(done.data, tmp_path / "again.keras", dialect="keras3")
    assert not back.losses
    again = keras.models.load_model(tmp_path / "again.keras")
    assert answers(again, asked) == answers(model, asked)


def test_vocabularies_of_tf_keras_go_with_a_model(tf_keras, tmp_path):
    model, asked = looking_up(tf_keras)
    model.save(tmp_path / "model.keras")
    modelio.convert(tmp_path / "model.keras", tmp_path / "model.h5")
    again = tf_keras.models.load_model(tmp_path / "model.h5")
    assert answers(again, asked) == answers(model, asked)


# -- weights alone -----------------------------------------------------------------------------------------------------

ALONE = cases(file=("only.weights.h5", "model.h5"), version="keras-3*")


@pytest.mark.parametrize("case", ALONE, ids=str)
def test_weights_alone_are_the_same_again(case):
    model = read(case / "only.weights.h5")
    assert model.architecture is None
    assert hdf5(write(model)) == hdf5((case / "only.weights.h5").read_bytes())


@pytest.mark.parametrize("case", cases(file=("only.weights.h5", "model.keras")), ids=str)
def test_weights_alone_join_their_architecture(case, tmp_path):
    whole = read(case / "model.keras")
    found = joined(read(case / "only.weights.h5"), whole)
    assert plain(found)["weights"] == plain(whole)["weights"]
    write(whole, tmp_path / "only.weights.h5")
    alone = hdf5((case / "only.weights.h5").read_bytes())
    written = hdf5((tmp_path / "only.weights.h5").read_bytes())
    assert {path for path in written if "optimizer" not in path} == {path for path in alone if "optimizer" not in path}


def test_shards_are_one_model(keras, tmp_path):
    model = keras.models.load_model(ANY)
    model.save_weights(tmp_path / "large.weights.json", max_shard_size=9e-6)
    assert len(list(tmp_path.glob("large_*.weights.h5"))) > 1
    whole, sharded = read(ANY), read(tmp_path / "large.weights.json")
    as_tree = read({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert plain(sharded) == plain(as_tree)
    assert plain(joined(sharded, whole))["weights"] == plain(whole)["weights"]

    write(sharded, tmp_path / "again", shape="tree", shard_size=10_000)
    assert len(list((tmp_path / "again").glob("model_*.weights.h5"))) > 1
    assert plain(read(tmp_path / "again" / "model.weights.json"))["weights"] == plain(sharded)["weights"]
    again = keras.models.clone_model(model)
    again.build(model.input_shape)
    again.load_weights(tmp_path / "again" / "model.weights.json")
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights(), strict=True))
    with pytest.raises(WriteError, match="do not go into a shard of 100: allow more"):
        write(sharded, {}, shape="tree", shard_size=100)


def test_a_map_without_shards(keras, tmp_path):
    """Keras 3.15 writes one of a model whose layers have no weights."""
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.Flatten()])
    model.save_weights(tmp_path / "none.weights.json", max_shard_size=1)
    assert modelio.identify(tmp_path / "none.weights.json") == "keras-zip"
    assert not any(modelio.read(tmp_path / "none.weights.json").weights.values())
    index = b'{"metadata": {"total_size": 4}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}'
    with pytest.raises(modelio.UnknownFormat):
        modelio.identify(index)


def test_shards_are_a_target_of_convert(keras, tmp_path):
    """They are several files, so they get a folder: a new one, an empty one, and no other."""
    model = keras.models.load_model(ANY)
    target = tmp_path / "pieces" / "large.weights.json"
    done = modelio.convert(ANY, target, shard_size=10_000)
    assert (done.target, done.route[-1]) == (target, "keras-zip")
    names = sorted(path.name for path in target.parent.iterdir())
    assert names[1:3] == ["large_00000.weights.h5", "large_00001.weights.h5"]
    assert "large.weights.json" in names
    again = keras.models.clone_model(model)
    again.build(model.input_shape)
    again.load_weights(target)
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights(), strict=True))
    with pytest.raises(WriteError, match="there are others beside this one: name a folder of their own"):
        modelio.convert(ANY, target, overwrite=True)
    (tmp_path / "empty").mkdir()
    modelio.convert(ANY, tmp_path / "empty" / "one.weights.json")
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == ["one.weights.json", "one_00000.weights.h5"]
    alone = modelio.read(target)
    assert modelio.identify(modelio.convert(alone, to="keras-zip", shard_size=10_000).data) == "keras-zip"


@pytest.mark.parametrize(
    ("options", "sentence"), [({"zipped": "no"}, "zipped is"), ({"shard_size": 0}, "shard_size is")]
)
def test_options_are_checked(options, sentence, tmp_path):
    with pytest.raises(WriteError, match=sentence):
        modelio.convert(ANY, tmp_path / "a.keras", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_a_target_of_convert(keras, tmp_path):
    modelio.convert(ANY, tmp_path / "model", to="keras-zip", zipped=False)
    assert {
        str(path.relative_to(tmp_path / "model")) for path in (tmp_path / "model").rglob("*") if path.is_file()
    } == set(members(ANY))
    assert plain(read(tmp_path / "model")) == plain(read(ANY))
    modelio.convert(tmp_path / "model", tmp_path / "model.keras")
    assert members(tmp_path / "model.keras") == members(modelio.convert(ANY, to="keras-zip").data)


def test_a_directory_is_as_good_as_an_archive(keras, tmp_path):
    for path in (ANY, DATA / "keras-3.15.1.keras"):
        folder = tmp_path / path.stem
        write(read(path), folder, shape="tree")
        assert {p.name: p.read_bytes() for p in folder.iterdir()}.keys() == members(path).keys()
        assert plain(read(folder)) == plain(read(path)) == plain(read(members(path)))
    loaded = keras.saving.load_model(tmp_path / ANY.stem)
    assert all(np.array_equal(a, b) for a, b in zip(loaded.get_weights(), get_weights(read(ANY)), strict=True))


# -- what Keras makes of it --------------------------------------------------------------------------------------------

# What the framework itself does not load, or not run here: Lambda is code, textvec wants strings.
UNLOADABLE = ("lambda", "textvec")


def loadable(versions: str | tuple[str, ...], file: str) -> list[Any]:
    return [
        pytest.param(case, case / file, id=f"{case.id}/{file}")
        for case in cases(version=versions, file=(file, "golden.npz"))
        if case.model not in UNLOADABLE and not str(record(case).get("h5")).startswith("FAILED")
    ]


@pytest.mark.parametrize(("case", "path"), [*loadable("keras-3*", "model.h5"), *loadable("keras-3*", "model.keras")])
def test_keras_3_loads_it(keras, case, path, tmp_path):
    model = read_h5(path) if path.suffix == ".h5" else read(path)
    write(model, tmp_path / "model.keras")
    # Keras 3.15.1 drops the optimizer from the configuration of a model that it saved as .h5 before.
    whole = not model.training or bool({"optimizer", "optimizer_config"} & set(model.training))
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=whole)
    inputs, outputs = golden(case)
    close(loaded.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0), outputs)
    if model.training and whole:
        state = [tensor.numpy() for tensor in model.optimizer.values()]
        assert all(np.array_equal(a, b) for a, b in zip(loaded.optimizer.variables, state, strict=True))


KERAS_2 = ("tf_keras*", "tfkeras_tf-2.*", "tfkeras_tf-1.15*", "keras-2.3*")


@pytest.mark.parametrize(("case", "path"), [*loadable(KERAS_2, "model.h5"), *loadable("tfkeras*", "model.keras")])
def test_tf_keras_loads_it(tf_keras, case, path, tmp_path):
    model = read_h5(path) if path.suffix == ".h5" else read(path)
    write(model, tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on arguments of old optimizers
        loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    inputs, outputs = golden(case)
    relative = 2e-3 if case.model == "mixed_dtypes" else 1e-5  # float16 rounds differently in each version
    close(loaded.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0), outputs, relative)


def test_what_is_read_and_written_answers_as_it_did(keras, tmp_path):
    """Of the four files, Keras 3.15 and tf_keras 2.21 load this one alone: they lose the model in a TimeDistributed."""
    path = DATA / "keras-3.15.1.keras"
    write(read(path), tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    with np.load(path.with_suffix(".npz")) as stored:
        close(loaded.predict([stored["in_0"], stored["in_1"]], verbose=0), [stored["out_0"], stored["out_1"]])


@pytest.mark.parametrize(
    "case",
    [case for case in cases(version=("keras-3*", *KERAS_2), file="model.h5") if record(case)["h5"] == "ok"],
    ids=str,
)
def test_nothing_is_lost_on_the_way_from_hdf5(case):
    """Names, the training configuration in HDF5's spelling, the order of the optimizer's variables: all come back."""
    model = read_h5(case / "model.h5")
    assert plain(read(write(model))) == plain(model)


def test_custom_classes_pass_untouched(keras, tmp_path):
    """Layers in attributes, lists and dicts: none is instantiated, none is lost, and their author loads the file."""

    @keras.saving.register_keras_serializable("modelio_tests")
    class Block(keras.layers.Layer):
        def __init__(self, **more):
            super().__init__(**more)
            self.zed = keras.layers.Dense(4)
            self.many = [keras.layers.Dense(4), [keras.layers.BatchNormalization()]]
            self.named = {"one": keras.layers.Dense(4)}

        def build(self, shape):
            self.scale = self.add_weight(name="scale", shape=(4,), initializer="ones")
            for layer in (self.zed, self.many[0], self.many[1][0], self.named["one"]):
                layer.build(shape)

        def call(self, x):
            return self.named["one"](self.many[1][0](self.many[0](self.zed(x)))) * self.scale

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="end")(Block(name="block")(inputs)))
    model.save(tmp_path / "model.keras")
    found = read(tmp_path / "model.keras")
    assert set(found.weights["block"]) == {
        *("vars/0", "zed/vars/0", "zed/vars/1", "many/dense/vars/0", "many/dense/vars/1", "named/dense/vars/0"),
        "named/dense/vars/1",
        *(f"many/container/batch_normalization/vars/{number}" for number in range(4)),
    }
    write(found, tmp_path / "again.keras")
    assert hdf5(members(tmp_path / "again.keras")["model.weights.h5"]) == hdf5(
        members(tmp_path / "model.keras")["model.weights.h5"]
    )
    again = keras.models.load_model(tmp_path / "again.keras")
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights(), strict=True))


def test_models_that_are_classes_pass_untouched(keras, tmp_path):
    @keras.saving.register_keras_serializable("modelio_tests")
    class Own(keras.Model):
        def __init__(self, **more):
            super().__init__(**more)
            self.encoder = keras.layers.Dense(3)
            self.heads = [keras.layers.Dense(2), keras.layers.Dense(1)]

        def call(self, x):
            return [head(self.encoder(x)) for head in self.heads]

    model = Own()
    model(np.zeros((1, 4)))
    model.save(tmp_path / "model.keras")
    found = read(tmp_path / "model.keras")
    assert {layer: len(named) for layer, named in found.weights.items()} == {
        "encoder": 2,
        "heads/dense": 2,
        "heads/dense_1": 2,
    }
    again = members(write(found))
    assert hdf5(again["model.weights.h5"]) == hdf5(members(tmp_path / "model.keras")["model.weights.h5"])
    with pytest.raises(modelio.ConversionError, match="Own is a model written as a Python class"):
        network_of(found.architecture, found.dialect, found.meta)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "mixed_bfloat16"])
def test_every_precision_is_kept(keras, dtype, tmp_path):
    dense = keras.layers.Dense(3, dtype=dtype, name="dense")
    model = keras.Sequential([keras.Input((4,)), dense, keras.layers.BatchNormalization()])
    model.save(tmp_path / "model.keras")
    found = read(tmp_path / "model.keras")
    assert found.weights["dense"]["dense/kernel"].dtype.name == ("float32" if "mixed" in dtype else dtype)
    write(found, tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have")
@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantized_models_are_kept(keras, mode, tmp_path):
    layers = [keras.Input((8,)), keras.layers.Dense(16, name="a"), keras.layers.Dense(4, use_bias=False, name="b")]
    model = keras.Sequential(layers)
    model.quantize(mode)
    model.save(tmp_path / "model.keras")
    found = read(tmp_path / "model.keras")
    for layer in model.layers:  # whole numbers are not trained, so they come behind the bias
        names = [f"{layer.name}/{weight.name}" for weight in layer.trainable_weights + layer.non_trainable_weights]
        assert list(found.weights[layer.name])[: len(names)] == names
    write(found, tmp_path / "again.keras")
    again, x = keras.models.load_model(tmp_path / "again.keras"), np.linspace(-1, 1, 16).reshape(2, 8)
    close(again.predict(x, verbose=0), [model.predict(x, verbose=0)])


@pytest.mark.parametrize("case", cases(model=MODELS, file=("model.keras", "golden.npz")), ids=str)
def test_it_becomes_a_graph(tensorflow, case):
    model = read(case / "model.keras")
    inputs, outputs = golden(case)
    names = network_of(model.architecture, model.dialect, model.meta).input_names
    close(modelio.to_callable(model)(**dict(zip(names, inputs, strict=True))), outputs)


# -- what it is --------------------------------------------------------------------------------------------------------


def is_claimed(content: object) -> bool:
    return keras_zip.sniff(Source.of(content))


def test_content_tells_it(tmp_path):
    parts = members(ANY)
    assert is_claimed(ANY)
    assert is_claimed(parts)
    assert is_claimed({name: data for name, data in parts.items() if name != "metadata.json"})
    assert is_claimed({name: data for name, data in parts.items() if name != "model.weights.h5"})  # read() says why not
    assert is_claimed(parts["model.weights.h5"])
    assert is_claimed({"a.weights.json": b'{"weight_map": {"/vars": "a_00000.weights.h5"}}'})
    assert is_claimed(b'{"metadata": {"total_size": 0}, "weight_map": {"/vars": "a_00000.weights.h5"}}')


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x05\x06" + bytes(18),
        {},
        {"config.json": b'{"class_name": "Sequential", "config": []}'},  # keras-json
        {"config.json": b'{"hidden_size": 4}', "metadata.json": b"{}"},
        {"saved_model.pb": b"", "config.json": b"{}"},
        b'{"class_name": "Sequential", "config": []}',
        b'{"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}',
    ],
    ids=str,
)
def test_what_it_is_not(content):
    assert not is_claimed(content)


@pytest.mark.parametrize("case", cases(file="model.h5"), ids=str)
def test_the_other_keras_hdf5_is_another_format(case):
    assert not is_claimed(case / "model.h5")


# -- broken, hostile ---------------------------------------------------------------------------------------------------


def changed(**parts: bytes | None) -> dict[str, bytes]:
    """A whole model with members replaced, or left out where None."""
    names = {"config": "config.json", "metadata": "metadata.json", "weights": "model.weights.h5"}
    found: dict[str, bytes | None] = {**members(ANY), **{names.get(key, key): data for key, data in parts.items()}}
    return {name: data for name, data in found.items() if data is not None}


def edited(edit: Any) -> dict[str, bytes]:
    """A whole model whose HDF5 file was edited."""
    stream = io.BytesIO(members(ANY)["model.weights.h5"])
    with h5py.File(stream, "a") as file:
        edit(file)
    return changed(weights=stream.getvalue())


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _link(file: Any) -> None:
    file["layers/dense/vars/9"] = h5py.ExternalLink("/etc/passwd", "/a")


def _external(file: Any) -> None:
    file.create_dataset("layers/dense/vars/9", (4,), "float32", external=[("/etc/passwd", 0, 16)])


def _structure(file: Any) -> None:
    file["layers/dense/vars/9"] = np.zeros(2, [("a", "f4")])


def _large(file: Any) -> None:
    file.create_dataset("layers/dense/vars/9", (1 << 20, 1 << 12), "float32", chunks=(1 << 10, 1 << 10), compression=9)


BROKEN = {
    "no architecture": (changed(config=None), ReadError, None, "config.json is missing"),
    "no weights": (changed(weights=None), ReadError, None, "model.weights.h5 is missing"),
    "not a model": (changed(config=b'{"class_name": 1}'), ReadError, "config.json", "this is no Keras model"),
    "no JSON": (changed(config=b"{"), ReadError, "config.json", "this is not JSON"),
    "no object": (changed(config=b"[1]"), ReadError, "config.json", "a JSON object is wanted"),
    "deep": (changed(config=b"[" * 100_000), UnsafeInput, "config.json", "nested"),
    "metadata": (changed(metadata=b"[]"), ReadError, "metadata.json", "a JSON object is wanted"),
    "notes": (changed(metadata=b'{"modelio": {"weights": []}}'), ReadError, "metadata.json", "is not what modelio"),
    "no HDF5": (changed(weights=b"HDF"), ReadError, "model.weights.h5", "this is not an HDF5 file"),
    "cut short": (changed(weights=members(ANY)["model.weights.h5"][:9000]), ReadError, "model.weights.h5", "cut short"),
    "a link": (edited(_link), UnsafeInput, "model.weights.h5/layers/dense/vars/9", "external links are not followed"),
    "another file": (edited(_external), UnsafeInput, "model.weights.h5/layers/dense/vars/9", "lie in another file"),
    "no numbers": (edited(_structure), ReadError, "model.weights.h5/layers/dense/vars/9", "numbers are wanted"),
    "not written": (edited(_large), ReadError, "model.weights.h5/layers/dense/vars/9", "not fully written"),
    "pickles": (
        changed(weights=None, **{"model.weights.npz": npz(**{"layers/dense": np.array({"0": 1}, object)})}),
        UnsafeInput,
        "model.weights.npz/layers/dense.npy",
        "unpickling runs code",
    ),
    "no map": (b'{"weight_map": [1], "a": "b.weights.h5"}', ReadError, None, "weight_map is missing"),
    "a shard elsewhere": (
        {"a.weights.json": b'{"weight_map": {"/vars": "../a_0.weights.h5"}}'},
        UnsafeInput,
        "'../a_0.weights.h5'",
        "leaves its container",
    ),
    "a shard is missing": (
        {"a.weights.json": b'{"weight_map": {"/vars": "a_00000.weights.h5"}}'},
        ReadError,
        "a.weights.json",
        "the shard a_00000.weights.h5 is not beside the map",
    ),
    "a shard without its group": (
        {
            "a.weights.json": b'{"weight_map": {"/layers/x/vars": "a_00000.weights.h5"}}',
            "a_00000.weights.h5": members(ANY)["model.weights.h5"],
        },
        ReadError,
        "/layers/x/vars",
        "has this group, and it has not",
    ),
    "the same in two shards": (
        {
            "a.weights.json": b'{"weight_map": {"/vars": ["a_0.weights.h5", "a_1.weights.h5"]}}',
            "a_0.weights.h5": members(ANY)["model.weights.h5"],
            "a_1.weights.h5": members(ANY)["model.weights.h5"],
        },
        ReadError,
        "layers/batch_normalization/vars/0",
        "in a_1.weights.h5, and in a shard before it",
    ),
}


@pytest.mark.parametrize(("content", "error", "where", "sentence"), BROKEN.values(), ids=BROKEN)
def test_broken_files_say_what_is_wrong(content, error, where, sentence):
    with pytest.raises(error, match=sentence) as caught:
        read(content)
    assert type(caught.value) is error
    assert caught.value.where == where


def test_plain_arrays_of_an_npz_are_read():
    with h5py.File(io.BytesIO(members(ANY)["model.weights.h5"])) as file:
        arrays: dict[str, Any] = {}
        file.visititems(lambda path, item: arrays.update({path: item[()]} if isinstance(item, h5py.Dataset) else {}))
    model = read(changed(weights=None, **{"model.weights.npz": npz(**arrays)}))
    assert plain(model)["weights"] == plain(read(ANY))["weights"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "assets/../../evil"])
def test_members_stay_inside(name):
    with pytest.raises(UnsafeInput, match="not followed"):
        read(zipped({**members(ANY), name: b""}))


def test_a_member_that_is_there_twice_is_refused():
    stream = io.BytesIO(ANY.read_bytes())
    with zipfile.ZipFile(stream, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("config.json", b"{}")
    with pytest.raises(UnsafeInput, match="twice") as caught:
        read(stream.getvalue())
    assert caught.value.where == "config.json"


def test_a_damaged_member_is_refused():
    data = bytearray(ANY.read_bytes())
    data[data.index(b'"Sequential"') + 3] ^= 1
    with pytest.raises(ReadError, match="does not match its checksum"):
        read(bytes(data))


# -- what cannot be written --------------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_not_written(tmp_path):
    model = read(ANY)
    layer = next(layer for layer, named in model.weights.items() if named)
    role = next(iter(model.weights[layer]))
    wrong = {**model.weights[layer], role: Tensor.of(np.zeros((2, 3, 5, 7, 9), "float32"))}
    less = {name: tensor for name, tensor in model.weights[layer].items() if name != role}
    for named, sentence in (
        (wrong, rf"{role} has shape \(2, 3, 5, 7, 9\), expected"),
        (less, rf"{layer} has \d weights"),
    ):
        broken = LayerModel(model.architecture, {**model.weights, layer: named}, model.dialect, meta=model.meta)
        with pytest.raises(WriteError, match=sentence):
            write(broken, tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


def test_what_no_keras_file_holds(tmp_path):
    old = next(iter(cases(version="keras-1*", file="model.h5")))
    with pytest.raises(WriteError, match=r"Keras 1 has no \.keras files; dialect='keras3'"):
        write(read_h5(old / "model.h5"))
    alone = read(members(ANY)["model.weights.h5"])
    with pytest.raises(WriteError, match=r"a \.keras file has an architecture: name it \.weights\.h5"):
        write(alone, tmp_path / "model.keras")
    with pytest.raises(WriteError, match="give the weights, too"):
        write(LayerModel(read(ANY).architecture, {}, "keras3"))
    with pytest.raises(WriteError, match="only an architecture tells the paths of these weights"):
        write(LayerModel(None, {"dense": {"dense/kernel": Tensor.of([1.0])}}, "keras3"))
    with pytest.raises(WriteError, match="shards are of weights alone: name a target that ends in"):
        write(alone, shard_size=1000)
    with pytest.raises(WriteError, match=r"meta\['keras-zip'\] is not what reading such a file gives"):
        write(LayerModel(read(ANY).architecture, read(ANY).weights, "keras3", meta={"keras-zip": '{"groups": 1}'}))
    assert list(tmp_path.iterdir()) == []
