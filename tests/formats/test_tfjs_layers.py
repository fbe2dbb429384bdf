"""TensorFlow.js layers models: nothing of a Keras model is lost in one, TensorFlow.js runs it, and others' are read."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.formats import keras_h5, keras_json, tfjs_layers
from modelio.model import LayerModel, Tensor
from modelio.sink import Sink
from modelio.source import Source
from tests.corpus import Case, cases, golden, record, strays

WHOLE = [one for one in cases(file="model.h5") if not str(record(one)["h5"]).startswith("FAILED")]
KERAS_2 = [one for one in WHOLE if not one.version.startswith(("keras-1.", "keras-3."))]


def read(source: object) -> LayerModel:
    return tfjs_layers.read(Source.of(source))


def write(model: LayerModel, target: object = None) -> Any:
    with Sink.open({} if target is None else target, shape="tree") as sink:
        tfjs_layers.write(model, sink)
        return sink.commit()


def read_h5(case: Case) -> LayerModel:
    return keras_h5.read(Source.of(case / "model.h5"))


def plain(model: LayerModel) -> dict[str, Any]:
    """All that the format keeps, in values that compare; lists of pairs where order counts."""

    def group(tensors):
        return [(name, t.dtype.name, t.shape, t.numpy().tobytes()) for name, t in tensors.items()]

    return {
        "architecture": json.dumps(model.architecture),
        "training": json.dumps(model.training),
        "weights": [(layer, group(tensors)) for layer, tensors in model.weights.items()],
        "dialect": model.dialect,
        "meta": dict(model.meta),
    }


# Keras models


@pytest.mark.parametrize("case", KERAS_2)
def test_nothing_is_lost(case):
    model = read_h5(case)
    files = write(model)
    assert tfjs_layers.sniff(Source.of(files))
    assert not keras_json.sniff(Source.of(files))
    assert plain(read(files)) == plain(model)
    assert write(read(files)) == files


@pytest.mark.parametrize("case", KERAS_2)
def test_the_shards_are_the_numbers_end_to_end(case):
    model = read_h5(case)
    files = write(model)
    document = json.loads(files["model.json"])
    assert document["format"] == "layers-model"
    (group,) = document["weightsManifest"]
    arrays = [t.numpy() for named in model.weights.values() for t in named.values()]
    numbers = b"".join((a.astype("int32") if a.dtype == "int64" else a).tobytes() for a in arrays)
    assert b"".join(files[path] for path in group["paths"]) == numbers
    shapes = [list(t.shape) for named in model.weights.values() for t in named.values()]
    assert [spec["shape"] for spec in group["weights"]] == shapes


def dense(kernel: np.ndarray, name: str = "dense_1/kernel:0", **more: Any) -> LayerModel:
    """A Dense layer without bias."""
    rows, units = kernel.shape
    config = {"name": "dense_1", "units": units, "use_bias": False, "batch_input_shape": [None, rows]}
    architecture = {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": {**config, **more}}]}
    return LayerModel(architecture, {"dense_1": {name: Tensor.of(kernel)}}, "keras2", meta={"keras_version": "2.2.4"})


def kernel_in(model: LayerModel) -> np.ndarray:
    return next(iter(model.weights["dense_1"].values())).numpy()


def test_shards_have_4_mebibytes():
    numbers = np.arange(3 << 20, dtype="float32").reshape(-1, 64)
    files = write(dense(numbers))
    assert sorted(files) == [*(f"group1-shard{k}of3.bin" for k in (1, 2, 3)), "model.json"]
    assert [len(files[f"group1-shard{k}of3.bin"]) for k in (1, 2, 3)] == [4 << 20] * 3
    assert (kernel_in(read(files)) == numbers).all()


def test_a_weight_is_called_as_tensorflow_js_calls_it():
    """Loaded and saved again, a model's variables were renamed; TensorFlow.js goes by the layer."""
    files = write(dense(np.ones((2, 3), "float32"), "dense_1_1/kernel_2:0"))
    (spec,) = json.loads(files["model.json"])["weightsManifest"][0]["weights"]
    assert spec["name"] == "dense_1/kernel"
    assert list(read(files).weights["dense_1"]) == ["dense_1_1/kernel_2:0"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "uint8", "int16", "uint16", "int32", "int64", "bool"])
def test_element_types_come_back(dtype):
    numbers = np.array([[0, 1], [1, 0], [100, 7]]).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    found = kernel_in(read(write(dense(numbers))))
    assert found.dtype == numbers.dtype
    assert (found == numbers).all()


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_element_types_that_would_lose_numbers_are_refused(dtype):
    with pytest.raises(WriteError, match=f"no {dtype}"):
        write(dense(np.ones((2, 3), dtype)))


@pytest.mark.parametrize(("dtype", "number"), [("int64", 2**31), ("int64", -(2**31) - 1), ("uint32", 2**32 - 1)])
def test_integers_that_do_not_fit_are_refused(dtype, number):
    with pytest.raises(WriteError, match=f"no {dtype}, and a number here does not fit int32"):
        write(dense(np.array([[0, number]], dtype)))


def test_strings_come_back():
    words = np.array([["one", b"\xff\x00", ""]], object)
    assert kernel_in(read(write(dense(words)))).tolist() == [[b"one", b"\xff\x00", b""]]


def test_other_dialects_are_refused():
    model = dense(np.ones((2, 3), "float32"))
    model.dialect = "keras3"
    with pytest.raises(WriteError, match='Keras 3: convert it with dialect="keras2"'):
        write(model)


def test_weights_alone_are_refused():
    with pytest.raises(WriteError, match="weights alone"):
        write(LayerModel(None, {}, "keras2"))


def test_nan_is_no_json_to_javascript():
    with pytest.raises(WriteError, match="NaN"):
        write(dense(np.ones((2, 3), "float32"), kernel_initializer={"class_name": "x", "config": {"value": np.nan}}))


def layer(class_name: str, **config: Any) -> LayerModel:
    node = {"class_name": class_name, "config": {"name": "one", "batch_input_shape": [None, 4], **config}}
    return LayerModel({"class_name": "Sequential", "config": [node]}, {"one": {}}, "keras2")


@pytest.mark.parametrize(
    ("given", "class_name", "config"),
    [
        (layer("ReLU", negative_slope=0.25, max_value=None, threshold=0.0), "LeakyReLU", {"alpha": 0.25}),
        (layer("ReLU", negative_slope=0.0, max_value=6.0), "ReLU", {"negative_slope": 0.0, "max_value": 6.0}),
        (layer("BatchNormalizationV1", axis=-1), "BatchNormalization", {"axis": -1}),
        (layer("UnifiedLSTM", units=2), "LSTM", {"units": 2}),
    ],
)
def test_words_that_stop_the_loader_are_said_otherwise(given, class_name, config):
    files = write(given)
    (node,) = json.loads(files["model.json"])["modelTopology"]["model_config"]["config"]
    assert node == {"class_name": class_name, "config": {"name": "one", "batch_input_shape": [None, 4], **config}}
    assert plain(read(files)) == plain(given)


def test_what_tensorflow_js_reads_past_is_refused():
    with pytest.raises(WriteError, match=r"one: TensorFlow.js does not look at threshold of ReLU"):
        write(layer("ReLU", threshold=1.0))


def test_kernels_that_theano_turns_are_refused():
    config = {"name": "conv", "filters": 1, "kernel_size": [2, 2], "use_bias": False}
    node = {"class_name": "Conv2D", "config": {**config, "batch_input_shape": [None, 4, 4, 1]}}
    kernel = Tensor.of(np.arange(4, dtype="float32").reshape(2, 2, 1, 1))
    model = LayerModel({"class_name": "Sequential", "config": [node]}, {"conv": {"conv/kernel:0": kernel}}, "keras2")
    model.meta = {"keras_version": "2.0.5", "backend": "theano"}
    with pytest.raises(WriteError, match="Theano"):
        write(model)


# Files of other origin

LAYERS = dense(np.ones((2, 3), "float32")).architecture["config"]  # type: ignore[index]
TOPOLOGY: dict[str, Any] = {"class_name": "Sequential", "config": {"name": "model", "layers": LAYERS}}
NUMBERS = np.arange(6, dtype="float32").reshape(2, 3)
KERNEL = {"name": "dense_1/kernel", "shape": [2, 3], "dtype": "float32"}


def stored(*groups: tuple[list[bytes], list[Any]], topology: Any = TOPOLOGY, **more: Any) -> dict[str, bytes]:
    """A model of others: each group is its shards and its weights."""
    files, manifest = {}, []
    for number, (shards, weights) in enumerate(groups, start=1):
        paths = [f"group{number}-shard{k}of{len(shards)}" for k in range(1, len(shards) + 1)]
        files.update(zip(paths, shards, strict=True))
        manifest.append({"paths": paths, "weights": weights})
    document = {"format": "layers-model", "modelTopology": topology, "weightsManifest": manifest, **more}
    return {**files, "model.json": json.dumps(document).encode()}


def one(data: bytes, **spec: Any) -> dict[str, bytes]:
    return stored(([data], [{**KERNEL, **spec}]))


@pytest.mark.parametrize(
    "topology",
    [
        TOPOLOGY,
        {"keras_version": "2.1.6", "backend": "tensorflow", "model_config": TOPOLOGY},
        {"keras_version": "tfjs-layers 4.22.0", "backend": "tensor_flow.js", **TOPOLOGY},
        {"keras_version": "2.1.6", "backend": "tensorflow", "model_config": json.dumps(TOPOLOGY)},
    ],
)
def test_the_topology_has_several_forms(topology):
    model = read(stored(([NUMBERS.tobytes()], [KERNEL]), topology=topology))
    assert model.dialect == "keras2"
    assert model.architecture["config"] == TOPOLOGY["config"]
    assert model.meta.get("keras_version") == topology.get("keras_version")
    assert list(model.weights["dense_1"]) == ["dense_1/kernel"]
    assert (kernel_in(model) == NUMBERS).all()


@pytest.mark.parametrize("cut", [1, 3, 5, 24])
def test_a_shard_ends_anywhere(cut):
    data = NUMBERS.tobytes()
    model = read(stored(([data[k : k + cut] for k in range(0, 24, cut)], [KERNEL])))
    assert (kernel_in(model) == NUMBERS).all()


def test_groups_stand_side_by_side():
    """As with --split_weights_by_layer; the training configuration beside the topology, as TensorFlow.js saves it."""
    slot = {"name": "dense_1/kernel/m", "shape": [], "dtype": "int32", "group": "optimizer"}
    files = stored(([b"\7\0\0\0"], [slot]), ([NUMBERS.tobytes()], [KERNEL]), trainingConfig={"loss": "mse"})
    model = read(files)
    assert (kernel_in(model) == NUMBERS).all()
    assert model.optimizer["dense_1/kernel/m"].numpy() == 7
    assert model.training == {"loss": "mse"}


@pytest.mark.parametrize(
    ("spec", "data", "expected"),
    [
        ({"quantization": {"dtype": "uint8", "scale": 0.5, "min": -1}}, bytes([0, 1, 2, 3, 4, 255]), [-1, -0.5, 0, 0.5, 1, 126.5]),
        ({"quantization": {"dtype": "uint16", "scale": 2, "min": 0}}, struct.pack("<6H", 0, 1, 2, 3, 4, 65535), [0, 2, 4, 6, 8, 131070]),
        ({"quantization": {"dtype": "float16"}}, np.array([0, 1, 2, -2, 0.5, 65504], "<f2").tobytes(), [0, 1, 2, -2, 0.5, 65504]),
        ({"dtype": "int32", "quantization": {"dtype": "uint8", "scale": 0.5, "min": 0}}, bytes(range(6)), [0, 1, 1, 2, 2, 3]),
        ({"dtype": "int32"}, struct.pack("<6i", -1, 0, 1, 2, 3, 4), [-1, 0, 1, 2, 3, 4]),
        ({"dtype": "bool"}, bytes([0, 1, 0, 1, 1, 0]), [False, True, False, True, True, False]),
        ({"dtype": "complex64"}, struct.pack("<12f", *range(12)), [1j, 2 + 3j, 4 + 5j, 6 + 7j, 8 + 9j, 10 + 11j]),
        ({"dtype": "string"}, b"\1\0\0\0a\0\0\0\0" + b"\2\0\0\0bc" * 4, [b"a", b"", b"bc", b"bc", b"bc", b"bc"]),
    ],
)  # fmt: skip
def test_numbers_are_those_that_tensorflow_js_computes_with(spec, data, expected):
    found = kernel_in(read(one(data, **spec)))
    assert found.dtype == (object if spec.get("dtype") == "string" else spec.get("dtype", "float32"))
    assert found.tolist() == np.array(expected, found.dtype).reshape(2, 3).tolist()


def test_a_string_does_not_hide_what_follows():
    word = {"name": "dense_1/word", "shape": [1], "dtype": "string"}
    model = read(stored(([b"\3\0\0", b"\0abc", NUMBERS.tobytes()], [word, KERNEL])))
    assert model.weights["dense_1"]["dense_1/word"].numpy().tolist() == [b"abc"]
    assert (model.weights["dense_1"]["dense_1/kernel"].numpy() == NUMBERS).all()


def test_the_user_s_own_data_stays():
    files = stored(([NUMBERS.tobytes()], [KERNEL]), userDefinedMetadata={"author": {"name": "Ann"}})
    again = json.loads(write(read(files))["model.json"])
    assert again["userDefinedMetadata"]["author"] == {"name": "Ann"}


def test_model_json_alone_finds_its_shards(tmp_path):
    for name, data in one(NUMBERS.tobytes()).items():
        (tmp_path / name).write_bytes(data)
    assert tfjs_layers.sniff(Source.of(tmp_path / "model.json"))
    assert (kernel_in(read(tmp_path / "model.json")) == NUMBERS).all()


def test_reading_a_model_reads_no_weights(tmp_path):
    for name, data in one(NUMBERS.tobytes()).items():
        (tmp_path / name).write_bytes(data)
    model = read(tmp_path)
    (tmp_path / "group1-shard1of1").write_bytes(b"")
    with pytest.raises(ReadError, match="changed after"):
        kernel_in(model)


@pytest.mark.parametrize("stray", strays(kind="TF.js*"))
def test_graph_models_are_refused_by_name(stray):
    assert not tfjs_layers.sniff(Source.of(stray.path))
    with pytest.raises(ReadError, match=r"a TensorFlow\.js graph model"):
        read(stray.path)


def broken(**change: Any) -> dict[str, bytes]:
    files = one(NUMBERS.tobytes())
    document = json.loads(files["model.json"])
    document.update(change)
    return {**files, "model.json": json.dumps(document).encode()}


def manifest(**change: Any) -> dict[str, bytes]:
    return broken(weightsManifest=[{"paths": ["group1-shard1of1"], "weights": [KERNEL], **change}])


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        (broken(format="graph-model"), ReadError, "graph model"),
        (broken(format="onnx"), ReadError, 'format is "onnx"'),
        (broken(modelTopology=None), ReadError, "weights alone"),
        (broken(modelTopology={"node": []}), ReadError, "graph model"),
        (broken(modelTopology={"model_config": 3}), ReadError, "no Keras architecture"),
        (broken(weightsManifest={}), ReadError, "list of groups"),
        (broken(userDefinedMetadata=[1]), ReadError, "userDefinedMetadata: a JSON object"),
        (broken(userDefinedMetadata={"modelio": {}}), ReadError, "dialect"),
        (broken(userDefinedMetadata={"modelio": {"dialect": "keras2", "weights": {"a": 1}}}), ReadError, "modelio"),
        (broken(userDefinedMetadata={"modelio": {"dialect": "keras2"}}), ReadError, "no layer lists: dense_1/kernel"),
        (broken(userDefinedMetadata={"modelio": {"dialect": "keras2", "weights": {"a": {"b": "c"}}}}), ReadError, "'c' of a"),
        (manifest(paths=["group1-shard1of2"]), ReadError, "group1-shard1of2: this shard is not there"),
        (manifest(paths=["../group1-shard1of1"]), UnsafeInput, "leaves"),
        (manifest(paths=["/etc/hostname"]), UnsafeInput, "absolute"),
        (manifest(paths="group1"), ReadError, "paths"),
        (manifest(weights={}), ReadError, "list of weights"),
        (manifest(weights=[]), ReadError, "hold 24 bytes, the weights take 0"),
        (manifest(weights=[KERNEL, KERNEL]), ReadError, "dense_1/kernel: it takes 24 bytes, and 0 are left"),
        (manifest(weights=[3]), ReadError, "no name"),
        (one(b"\0" * 23), ReadError, "takes 24 bytes, and 23 are left"),
        (one(b"\0" * 24, shape=[-2, -3]), ReadError, "shape"),
        (one(b"\0" * 24, shape=[10**30, 0]), ReadError, "no array can have the shape"),
        (one(b"\0" * 24, dtype="float8"), ReadError, '"float8" is not known'),
        (one(b"\0" * 24, dtype=["float32"]), ReadError, "is not known"),
        (one(b"\0" * 6, quantization={"dtype": "uint8"}), ReadError, "without scale and min"),
        (one(b"\0" * 6, quantization={"dtype": "uint8", "scale": 10**400, "min": 0}), ReadError, "without scale and min"),
        (one(b"\0" * 6, quantization={"dtype": "int4"}), ReadError, "cannot be quantized"),
        (one(b"\0" * 6, quantization=3), ReadError, "cannot be quantized"),
        (one(b"\0" * 23, dtype="string"), ReadError, "6 strings take more"),
        (one(b"\xff" * 24, dtype="string"), ReadError, "a string leaves"),
        ({"model.json": b"[]"}, ReadError, "a JSON object"),
        ({"other.txt": b"[]"}, ReadError, "no model.json"),
    ],
)  # fmt: skip
def test_what_is_broken_is_said(files, error, message):
    with pytest.raises(error, match=message) as raised:
        read(files)
    assert type(raised.value) is error


# TensorFlow.js itself

TFJS = Path(__file__).parent.parent / "tfjs"

LACKING = {
    ("lambda", "*"): "Unknown layer: Lambda",
    ("norm_pre", "*"): "Unknown layer: Normalization",
    ("tfops", "*"): "Unknown layer: TFOpLambda",
    ("transformer", "*"): "Unknown layer: MultiHeadAttention",
    ("convnd", "*"): "CAUSAL padding mode in conv1dWithBias is not implemented",
    ("rnn", "2.21.0"): "GRUCell does not support reset_after",
    ("rnn", "2.15.0"): "GRUCell does not support reset_after",
    ("rnn", "2.8.0"): "GRUCell does not support reset_after",
    ("separable_mobilenet", "2.8.0"): "expected ndim=4, found ndim=2",  # GlobalAveragePooling2D(keepdims=True)
}
"""What TensorFlow.js 4.22 has not, by model and Keras version, and what it says."""


@pytest.fixture(scope="session")
def tensorflow_js() -> Path:
    """The script that runs a model, with TensorFlow.js installed beside it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    modules = TFJS / "node_modules"
    if not modules.is_dir():
        with tempfile.TemporaryDirectory(dir=TFJS, prefix="node_modules-") as folder:
            shutil.copy(TFJS / "package.json", folder)
            command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
            if not modules.is_dir():  # another process may have been quicker
                os.rename(Path(folder) / "node_modules", modules)
    return TFJS / "run.js"


def run(script: Path, folder: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    given = [
        {"dtype": "int32" if a.dtype.kind in "iu" else "float32", "shape": a.shape, "values": a.ravel().tolist()}
        for a in inputs
    ]
    done = subprocess.run(
        ["node", script, folder], input=json.dumps(given), capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [np.array(said["values"], said["dtype"]).reshape(said["shape"]) for said in json.loads(done.stdout)]


@pytest.mark.slow
@pytest.mark.parametrize("case", KERAS_2)
def test_it_runs_in_tensorflow_js(case, tmp_path, tensorflow_js):
    model = read_h5(case)
    write(model, tmp_path / "out")
    inputs, outputs = golden(case)
    version = model.meta["keras_version"]
    lacking = LACKING.get((case.model, "*"), LACKING.get((case.model, version)))
    if lacking is not None:
        with pytest.raises(RuntimeError, match=lacking):
            run(tensorflow_js, tmp_path / "out", inputs)
        return
    found = run(tensorflow_js, tmp_path / "out", inputs)
    # The largest difference measured is 1.1e-6; it computes everything in float32, so float16 models come out unrounded.
    tolerance = 1e-3 if case.model == "mixed_dtypes" else 1e-5
    assert len(found) == len(outputs)
    for ours, theirs in zip(found, outputs, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.slow
def test_leaky_relu_and_float16_run_in_tensorflow_js(tmp_path, tensorflow_js):
    kernel = np.array([[1, -2, 0.5], [0.25, 4, -8]], "float16")
    model = dense(kernel)
    relu = {"class_name": "ReLU", "config": {"name": "relu", "negative_slope": 0.25, "max_value": None, "threshold": 0}}
    model.architecture["config"].append(relu)  # type: ignore[index]
    write(model, tmp_path / "out")
    (found,) = run(tensorflow_js, tmp_path / "out", [np.array([[1, 2]], "float32")])
    assert found.tolist() == [[1.5, 6.0, -15.5 / 4]]
