"""Any model runs in this process, as its framework ran it, and nothing is written anywhere."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import modelio
from modelio.errors import ConversionError
from tests.corpus import case, cases, golden, golden_arrays

pytest.importorskip("tensorflow")
CNN = case("keras-2.0.5_tf-1.2.1/cnn")

SAVED = [(one, "saved_model_tf1") for one in cases(file=("saved_model_tf1", "golden.npz"))] + [
    (one, "saved_model") for one in cases(file=("saved_model", "golden.npz"))
]
FROZEN = [(one, "frozen.pb") for one in cases(file=("frozen.pb", "golden.npz")) if one.model != "textvec"]
"""The frozen textvec of TensorFlow itself waits for a table's handle, which nothing can feed."""


def ask(model, inputs, signature="serving_default", order=()):
    """The answers to the golden inputs, outside of training; ``order`` is that of the inputs, which an export sorts."""
    report = modelio.inspect(model).only(signature).signatures[signature]
    phases = [key for key in report.inputs if "learning_phase" in key]
    phases += [item.name for item in report.undeclared if item.role == "learning_phase"]
    keys = [key for key in report.inputs if key not in phases]
    if set(keys) == set(order):
        keys = order
    return modelio.to_callable(model, signature)(**dict(zip(keys, inputs, strict=True)), **dict.fromkeys(phases, False))


@pytest.mark.parametrize(("one", "name"), SAVED + FROZEN, ids=lambda value: str(value))
def test_golden_outputs(one, name):
    inputs, outputs = golden(one)
    model = modelio.read(one / name)
    (signature,) = [key for key in model.signatures if key in ("serving_default", "graph")]
    layers = [one / name for name in ("model.keras", "architecture.json") if (one / name).exists()]
    order = list(modelio.inspect(layers[0]).signatures["serving_default"].inputs) if layers else ()
    found = list(ask(model, inputs, signature, order).values())
    assert len(found) == len(outputs)
    # float16 has 11 bits, and one version sums in another order than the next.
    rtol = 2e-3 if one.model == "mixed_dtypes" else 1e-5
    for expected in outputs:
        same = [array for array in found if array.shape == expected.shape]
        assert min(np.abs(array - expected).max() for array in same) <= rtol * np.abs(expected).max()


@pytest.mark.parametrize("one", cases(version="hybrid_contrib*", model="learning_phase_missing"), ids=str)
def test_the_trap_of_2017(one):
    """The placeholder that the signature does not name is asked for by name, and can be given."""
    arrays = golden_arrays(one)
    run = modelio.to_callable(one.path)
    with pytest.raises(TypeError, match=r"needs .*keras_learning_phase, which it does not declare"):
        run(arrays["in_0"])
    (name,) = [item.name for item in modelio.inspect(one.path).signatures["serving_default"].undeclared]
    (probabilities,) = run(arrays["in_0"], **{name: False}).values()
    assert np.abs(probabilities - arrays["out_0"]).max() <= 1e-5 * np.abs(arrays["out_0"]).max()


@pytest.mark.parametrize("one", cases(version="extra_*", model="assets"), ids=str)
def test_a_table_is_filled_from_its_asset_in_memory(one):
    """What TensorFlow itself answers, which reads the file."""
    import tensorflow as tf

    words = np.array([b"cat", b"dog", b"no such word", b"fish", b""], object)
    signature = tf.saved_model.load(str(one.path)).signatures["serving_default"]
    expected = signature(word=tf.constant(words))
    files = {str(p.relative_to(one.path)): p.read_bytes() for p in one.path.rglob("*") if p.is_file()}
    found = modelio.to_callable(files)(word=words)
    assert set(found) == set(expected)
    for key, array in found.items():
        assert array.tolist() == expected[key].numpy().tolist()


@pytest.mark.parametrize("one", cases(version="extra_*", model="multi_signature"), ids=str)
def test_every_signature(one):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(one.path)).signatures
    random = np.random.default_rng(0)
    model = modelio.read(one.path)
    assert set(model.signatures) == set(loaded)
    for name, signature in model.signatures.items():
        inputs = {
            key: random.integers(1, 4, [size or 2 for size in spec.shape]).astype(spec.dtype)
            for key, spec in signature.inputs.items()
        }
        expected = loaded[name](**{key: tf.constant(array) for key, array in inputs.items()})
        for key, array in modelio.to_callable(model, name)(**inputs).items():
            np.testing.assert_allclose(array, expected[key].numpy(), rtol=1e-5)


# -- what is fed -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cnn():
    return modelio.to_callable(CNN / "model.h5")


def test_names_dtypes_and_shapes_are_checked(cnn):
    images = np.zeros((2, 8, 8, 1), "float32")
    assert set(cnn(images)) == set(cnn(conv2d_1_input=images)) == {"dense_2"}
    assert cnn(images.astype("float64"))["dense_2"].dtype == np.float32
    assert cnn(images.astype("int64").tolist())["dense_2"].shape == (2, 10)
    with pytest.raises(TypeError, match="serving_default takes conv2d_1_input; given were x"):
        cnn(x=images)
    with pytest.raises(TypeError, match="given were none"):
        cnn()
    with pytest.raises(TypeError, match="takes conv2d_1_input"):
        cnn(images, images)
    with pytest.raises(TypeError, match="conv2d_1_input is float32, and was given complex64"):
        cnn(images.astype("complex64"))
    with pytest.raises(TypeError, match="conv2d_1_input is float32, and was given <U1"):
        cnn([["a"]])
    with pytest.raises(ValueError, match=r"has the shape \(None, 8, 8, 1\), and was given \(2, 8, 8\)"):
        cnn(images[..., 0])


def test_a_signature_that_is_not_there():
    with pytest.raises(ConversionError, match="no signature is called 'nothing'; there are serving_default"):
        modelio.to_callable(CNN / "saved_model_tf1", "nothing")


SILENT = """
import io, os, sys
import numpy as np
import tensorflow
import modelio
data = {name: open(name, "rb").read() for name in sys.argv[1:]}
writes = []
def hook(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        writes.append(arguments[0])
    if event.startswith(("tempfile.", "os.mkdir", "os.rename", "shutil.", "os.symlink")):
        writes.append(event)
sys.addaudithook(hook)
for name, content in data.items():
    run = modelio.to_callable(content)
    run(np.zeros((2, 8, 8, 1), "float32"))
assert not writes, writes
"""


def test_nothing_is_written(tmp_path):
    """From bytes to answers: no file, no temporary folder. TensorFlow's own C++ is watched through its folder."""
    model = dataclasses.replace(modelio.read(CNN / "model.h5"), training=None, optimizer={})
    export = tmp_path / "export.zip"
    export.write_bytes(modelio.convert(model, to="saved-model").data)
    frozen = tmp_path / "frozen.pb"
    frozen.write_bytes(modelio.convert(model, to="frozen-graph").data)
    empty, home = tmp_path / "empty", tmp_path / "home"  # Keras, which TensorFlow imports, makes a folder at home
    empty.mkdir()
    home.mkdir()
    command = [sys.executable, "-W", "ignore", "-c", SILENT, CNN / "model.h5", export, frozen]
    environment = {"TMPDIR": str(empty), "TF_CPP_MIN_LOG_LEVEL": "3", "PATH": "/usr/bin:/bin", "HOME": str(home)}
    done = subprocess.run(
        command, cwd=empty, env={**environment, **_python_path()}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(empty.iterdir()) == []


def _python_path():
    root = str(Path(modelio.__file__).parents[1])
    kept = {key: os.environ[key] for key in ("LD_LIBRARY_PATH", "OPENBLAS_CORETYPE") if key in os.environ}
    return {"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", **kept}


def saved(tensorflow, folder, module, function):
    tensorflow.saved_model.save(module, str(folder), {"serving_default": function})
    return folder


def test_a_variable_that_a_request_changes_is_one(tensorflow, tmp_path):
    """Every export of TensorFlow 2 names something to run first; only tables have to be filled by the request."""
    tf, module = tensorflow, tensorflow.Module()
    module.count = tf.Variable(5, dtype=tf.int64)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, "more")])
    def add(more):
        for _ in tf.range(2):
            module.count.assign_add(more)
        return {"count": module.count.read_value()}

    run = modelio.to_callable(saved(tf, tmp_path / "m", module, add))
    assert [int(run(np.int64(3))["count"]) for _ in range(2)] == [11, 17]


def test_outputs_of_a_call_in_a_frozen_graph_and_convolutions_in_groups(tensorflow, tmp_path):
    """TensorFlow 2.21 fuses a convolution with the bias after it, and has no kernel for groups then."""
    tf, module = tensorflow, tensorflow.Module()
    module.kernel = tf.Variable(np.arange(24, dtype="float32").reshape(2, 2, 1, 6))

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 2], tf.float32, "x")])
    def convolve(x):
        y = tf.nn.bias_add(tf.nn.conv2d(x, module.kernel, 1, "VALID"), tf.ones(6))
        return {"first": y, "second": y * 2.0}

    folder = saved(tf, tmp_path / "m", module, convolve)
    x = np.arange(64, dtype="float32").reshape(2, 4, 4, 2)
    with pytest.warns(UserWarning, match="does not keep signatures"):
        frozen = modelio.convert(folder, to="frozen-graph").data
    wanted = modelio.to_callable(folder)(x)
    assert [array.tolist() for array in modelio.to_callable(frozen, "graph")(x).values()] == [
        wanted[key].tolist() for key in ("first", "second")
    ]


def test_an_asset_that_a_request_reads_is_in_no_memory(tensorflow, tmp_path):
    (tmp_path / "text").write_text("content")
    tf, module = tensorflow, tensorflow.Module()
    module.asset = tf.saved_model.Asset(str(tmp_path / "text"))
    read = tf.function(lambda: {"text": tf.io.read_file(module.asset)}, input_signature=[])
    folder = saved(tf, tmp_path / "m", module, read)
    with pytest.raises(ConversionError, match="has no value but the path of an asset, a file that is nowhere here"):
        modelio.to_callable(folder)
