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
from modelio.wire import messages
from modelio.wire.table import read_table, write_table
from modelio.wire.varint import encode_varint
from modelio.wire.window import MemoryWindow
from tests.corpus import case, data

CNN = case("keras-2.0.5_tf-1.2.1/cnn")
H5 = (CNN / "model.h5").read_bytes()
PB = (CNN / "frozen.pb").read_bytes()
JSON = (CNN / "architecture.json").read_bytes()
SHARD, INDEX = "variables/variables.data-00000-of-00001", "variables/variables.index"


def members(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


EXPORT = members(CNN / "saved_model_tf1")
V1 = members(data() / "checkpoints_tf-1.15.5" / "v1")
V2 = members(data() / "checkpoints_tf-1.15.5" / "v2_sharded")
V2_INDEX, V2_SHARD = "model.ckpt.index", "model.ckpt.data-00000-of-00002"


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


def indexed(key: bytes, **fields) -> dict[str, bytes]:
    """The V2 checkpoint with an entry of its index changed, and every checksum of the index right again."""
    table = read_table(MemoryWindow(V2[V2_INDEX]))
    entry = messages.BundleEntryProto.FromString(table[key])
    entry.MergeFrom(messages.BundleEntryProto(**fields))
    return V2 | {V2_INDEX: write_table({**table, key: entry.SerializeToString()}.items())}


def nested(depth: int) -> bytes:
    """A SavedModel with a function whose signature is a list in a list in a list ..."""
    value = b""
    for number in (1, 51) * depth:  # ListValue.values, StructuredValue.list_value
        value = encode_varint(number << 3 | 2) + encode_varint(len(value)) + value
    # canonicalized_input_signature, the map's value, concrete_functions, object_graph_def, meta_graphs
    for number in (3, 2, 2, 7, 2):
        value = encode_varint(number << 3 | 2) + encode_varint(len(value)) + value
    return b"\x08\x01" + value


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
    ("10,000 messages deep", {"saved_model.pb": nested(5000)},      modelio.ReadError,       "saved_model.pb",    "are not a SavedModel"),
    ("a checkpoint's index damaged", V2 | {V2_INDEX: V2[V2_INDEX].replace(b"bias", b"bits")}, modelio.ReadError,
                                                                                             "the block at offset 0", "checksum of a block"),
    ("a checkpoint's index cut",   V2 | {V2_INDEX: V2[V2_INDEX][:-1]},    modelio.ReadError, None,                "magic number"),
    ("a shard missing",      {name: V2[name] for name in V2 if name != V2_SHARD}, modelio.ReadError, "bfloat16",  f"{V2_SHARD} is missing"),
    ("a shard cut short",    V2 | {V2_SHARD: V2[V2_SHARD][:-1]},    modelio.ReadError,       "uint8",             "that file is cut short"),
    ("an offset beyond",     indexed(b"float64", offset=1 << 40),   modelio.ReadError,       "float64",           "its bytes end at 1,099,511,627,816"),
    ("a shard that is none", indexed(b"float64", shard_id=7),       modelio.ReadError,       "float64",           "data shard 7 of 2 does not exist"),
    ("a slice that overlaps", indexed(b"net/rows", slices=[{"extent": [{"length": 3}, {"length": 4}]}]), modelio.ReadError,
                                                                                             "net/rows",          "do not make up its shape"),
    ("a shape of 2 ** 62",   indexed(b"empty", shape={"dim": [{"size": 1 << 60}]}), modelio.ReadError, "empty",   "none that a stored tensor can have"),
    ("V1, half of it",       V1 | {"model.ckpt": V1["model.ckpt"][:900]}, modelio.ReadError, "checkpoint",        "which is not here"),
    ("V1, a block damaged",  V1["model.ckpt"].replace(b"complex64", b"complex46"), modelio.ReadError,
                                                                                             "the block at offset 0", "checksum of a block"),
    ("an index alone",       V2[V2_INDEX],                          modelio.ReadError,       None,                "without the .data files"),
    ("a .meta cut short",    V2 | {"model.ckpt.meta": V2["model.ckpt.meta"][:9000]}, modelio.ReadError, "model.ckpt.meta", "runs past the end"),
    ("a pickle in an npz",   pickled(),                             modelio.UnsafeInput,     "a.npy",             "runs code"),
]

CONVERT = [
    ("a number damaged",     flipped(SHARD),                        {},                      modelio.ReadError,       "checksum"),
    ("a checkpoint's number damaged", V2 | {V2_SHARD: b"\xff" + V2[V2_SHARD][1:]}, {"to": "checkpoint"}, modelio.ReadError, "checksum does not match"),
    ("variables, no graph",  {name: V1[name] for name in ("model.ckpt", "checkpoint")}, {}, modelio.WriteError,    "there is no graph, only 17 variables"),
    ("layers without rules", redrawn(unknown_classes),              {},                      modelio.ConversionError, "activation_1 (Swirl), dropout_1 (Vortex)"),
    ("a shape does not fit", replaced(np.zeros((3, 3), "f4")),      {},                      modelio.ReadError,       "dense_1/kernel has shape (3, 3), expected (48, 24)"),
    ("weights only",         (CNN / "weights.h5").read_bytes(),     {},                      modelio.ConversionError, "needs the architecture"),
    ("architecture only",    JSON,                                  {},                      modelio.ConversionError, "needs the weights"),
    ("a graph as layers",    PB,                                    {"to": "keras-h5"},      modelio.ConversionError, "a graph does not say what layers it was made of"),
    ("nothing to bind",      EXPORT,                                {"bind": {"x": 1}},      modelio.ConversionError, "no placeholder 'x'"),
    ("bound to nonsense",    EXPORT,                                {"bind": {"learning_phase": "purple"}}, modelio.ConversionError, "'purple'"),
    ("no such signature",    EXPORT,                                {"signature": "train"},  modelio.ConversionError, "there is 'serving_default'"),
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
    for name, content in flipped(SHARD).items():
        (tmp_path / "export" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "export" / name).write_bytes(content)
    with pytest.raises(modelio.ReadError) as caught:
        modelio.convert(tmp_path / "export", tmp_path / "copy", to="saved-model")
    assert caught.value.source == str(tmp_path / "export")
    assert caught.value.format == "saved-model"
