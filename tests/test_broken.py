"""Bad input, row by row: what it is, which error it is, the place that it names, and what it says.

Every row starts from a real file and breaks one thing. What else may come of it (a traceback of ours, half a model, half a
target) is what the test refuses.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import modelio
from tests.corpus import case

CNN = case("keras-2.0.5_tf-1.2.1/cnn")
H5 = (CNN / "model.h5").read_bytes()
PB = (CNN / "frozen.pb").read_bytes()
JSON = (CNN / "architecture.json").read_bytes()
SHARD, INDEX = "variables/variables.data-00000-of-00001", "variables/variables.index"


def members(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


EXPORT = members(CNN / "saved_model_tf1")


def edited(change) -> bytes:
    """The digits CNN's file after ``change`` was done to it by h5py."""
    stream = io.BytesIO(H5)
    with h5py.File(stream, "r+") as file:
        change(file)
    return stream.getvalue()


def redrawn(change) -> bytes:
    """The same with another architecture."""

    def rewrite(file):
        architecture = json.loads(file.attrs["model_config"])
        change(architecture["config"])
        file.attrs["model_config"] = json.dumps(architecture).encode()

    return edited(rewrite)


def replaced(value):
    """The kernel of dense_1, in its place something else."""

    def change(file):
        del file["model_weights/dense_1/dense_1/kernel:0"]
        if value is not None:
            file["model_weights/dense_1/dense_1/kernel:0"] = value

    return edited(change)


def flipped(name: str) -> dict[str, bytes]:
    data = bytearray(EXPORT[name])
    data[len(data) // 2] ^= 1
    return EXPORT | {name: bytes(data)}


def without(name: str) -> dict[str, bytes]:
    return {key: data for key, data in EXPORT.items() if key != name}


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("model.h5")
        entry.size = len(H5)
        archive.addfile(entry, io.BytesIO(H5))
    return stream.getvalue()


def pickled() -> dict[str, bytes]:
    stream = io.BytesIO()
    np.savez(stream, a=np.array([1, "x", None], object))
    return {"architecture.json": JSON, "weights.npz": stream.getvalue()}


def unknown_classes(layers):
    layers[4]["class_name"], layers[5]["class_name"] = "Swirl", "Vortex"


def attribute_gone(group: str, name: str) -> bytes:
    return edited(lambda file: file[group].attrs.__delitem__(name))


def configured(text: bytes) -> bytes:
    return edited(lambda file: file.attrs.__setitem__("model_config", text))


# fmt: off
READ = [
    # what it is             the input                              error                    place                what it says
    ("empty",                b"",                                   modelio.UnknownFormat,   None,                "the file is empty"),
    ("a text named .pb",     b"this is not a graph",                modelio.UnknownFormat,   None,                "this is not a graph"),
    ("a tar named .h5",      tar(),                                 modelio.UnknownFormat,   None,                "a tar archive"),
    ("a Git LFS stub",       b"version https://git-lfs.github.com/spec/v1\n", modelio.UnknownFormat, None,        "git lfs pull"),
    ("a web page",           b"<!DOCTYPE html><html></html>",       modelio.UnknownFormat,   None,                "the download went wrong"),
    ("TFLite",               b"\x1c\0\0\0TFL3" + bytes(40),         modelio.UnknownFormat,   None,                "TensorFlow Lite"),
    ("an archive of arrays", (CNN / "golden.npz").read_bytes(),     modelio.UnknownFormat,   None,                "NumPy arrays (.npz)"),
    ("HDF5, half of it",     H5[: len(H5) // 2],                    modelio.ReadError,       None,                "24,860 of its 49,720 bytes"),
    ("HDF5, end missing",    H5[:-1],                               modelio.ReadError,       None,                "cut short"),
    ("no layer_names",       attribute_gone("model_weights", "layer_names"), modelio.ReadError, "model_weights",  "layer_names is missing"),
    ("no weight_names",      attribute_gone("model_weights/dense_1", "weight_names"), modelio.ReadError,
                                                                                             "model_weights/dense_1", "weight_names is missing"),
    ("a dataset is gone",    replaced(None),                        modelio.ReadError,       "model_weights/dense_1", "'dense_1/kernel:0'"),
    ("a link out",           replaced(h5py.ExternalLink("/etc/passwd", "x")), modelio.UnsafeInput,
                                                                                             "model_weights/dense_1/dense_1/kernel:0", "external links"),
    ("JSON cut short",       configured(b'{"class_name": '),        modelio.ReadError,       "model_config",      "not JSON"),
    ("JSON 100,000 deep",    configured(b"[" * 30_000),             modelio.UnsafeInput,     "model_config",      "nested deeper"),
    ("a graph cut short",    PB[: len(PB) // 2],                    modelio.ReadError,       None,                "runs past the end"),
    ("an export cut short",  EXPORT | {"saved_model.pb": EXPORT["saved_model.pb"][:5000]}, modelio.ReadError,
                                                                                             "saved_model.pb",    "runs past the end"),
    ("no shard",             without(SHARD),                        modelio.ReadError,       None,                f"{SHARD} is missing"),
    ("no index",             without(INDEX),                        modelio.ReadError,       None,                f"{INDEX} is missing"),
    ("half a shard",         EXPORT | {SHARD: EXPORT[SHARD][:100]}, modelio.ReadError,       None,                "cut short"),
    ("an index damaged",     flipped(INDEX),                        modelio.ReadError,       None,                "checksum"),
    ("a pickle in an npz",   pickled(),                             modelio.UnsafeInput,     "a.npy",             "runs code"),
]

CONVERT = [
    ("a number damaged",     flipped(SHARD),                        {},                      modelio.ReadError,       "checksum"),
    ("layers without rules", redrawn(unknown_classes),              {},                      modelio.ConversionError, "activation_1 (Swirl), dropout_1 (Vortex)"),
    ("a shape does not fit", replaced(np.zeros((3, 3), "f4")),      {},                      modelio.ReadError,       "dense_1/kernel has shape (3, 3), expected (48, 24)"),
    ("weights only",         (CNN / "weights.h5").read_bytes(),     {},                      modelio.ConversionError, "needs the architecture"),
    ("architecture only",    JSON,                                  {},                      modelio.ConversionError, "needs the weights"),
    ("a graph as layers",    PB,                                    {"to": "keras-h5"},      modelio.ConversionError, "keras-h5 holds layers"),
    ("nothing to bind",      EXPORT,                                {"bind": {"x": 1}},      modelio.ConversionError, "no placeholder 'x'"),
    ("bound to nonsense",    EXPORT,                                {"bind": {"learning_phase": "purple"}}, modelio.ConversionError, "'purple'"),
    ("no such signature",    EXPORT,                                {"signature": "train"},  modelio.ConversionError, "there are serving_default"),
    ("no such format",       H5,                                    {"to": "keras-h6"},      modelio.UnknownFormat,   "keras-h6"),
]
# fmt: on


@pytest.mark.parametrize(("source", "kind", "place", "said"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_reading(source, kind, place, said):
    with pytest.raises(kind) as caught:
        modelio.read(source)
    error = caught.value
    assert type(error) is kind
    assert said in str(error)
    assert error.source is not None
    assert "\n" not in str(error)
    if place is not None:
        assert error.where == place


@pytest.mark.parametrize(
    ("source", "options", "kind", "said"), [row[1:] for row in CONVERT], ids=[row[0] for row in CONVERT]
)
@pytest.mark.filterwarnings("ignore:.*does not keep")
def test_converting_leaves_no_target(source, options, kind, said, tmp_path):
    with pytest.raises(kind) as caught:
        modelio.convert(source, tmp_path / "out" / "model", **{"to": "saved-model"} | options)
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_every_unsupported_layer_is_listed():
    with pytest.raises(modelio.ConversionError) as caught:
        modelio.convert(redrawn(unknown_classes), to="saved-model")
    assert caught.value.unsupported == ("activation_1 (Swirl)", "dropout_1 (Vortex)")


def test_an_error_in_the_weights_names_the_file_that_they_are_in(tmp_path):
    for name, data in flipped(SHARD).items():
        (tmp_path / "export" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "export" / name).write_bytes(data)
    with pytest.raises(modelio.ReadError) as caught:
        modelio.convert(tmp_path / "export", tmp_path / "copy", to="saved-model")
    assert caught.value.source == str(tmp_path / "export")
    assert caught.value.format == "saved-model"
