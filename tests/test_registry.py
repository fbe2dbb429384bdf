"""Which format some bytes are: told from the content alone, and when it is none, what it is instead."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import modelio
from modelio import registry
from modelio.errors import AmbiguousFormat, ReadError, UnknownFormat
from modelio.format import Format
from modelio.source import Source
from tests.corpus import case, cases, data, strays

FILES = {
    "model.h5": "keras-h5",
    "weights.h5": "keras-h5",
    "architecture.json": "keras-json",
    "frozen.pb": "frozen-graph",
    "graph.pbtxt": "frozen-graph",
    "saved_model": "saved-model",
    "saved_model_tf1": "saved-model",
    "saved_model/saved_model.pb": "saved-model",
    "saved_model_tf1/saved_model.pb": "saved-model",
    "checkpoint_tf1": "checkpoint",
}


@pytest.mark.parametrize(("file", "name"), FILES.items())
def test_every_file_of_every_version(file, name):
    for one in cases(file=file):
        assert modelio.identify(one / file) == name, one
        if (one / file).is_file():
            assert modelio.identify((one / file).read_bytes()) == name, one


@pytest.mark.parametrize("one", cases(version=("hybrid_*", "extra_*"), file="saved_model.pb"))
def test_exports(one):
    assert modelio.identify(one.path) == "saved-model"


def test_a_lone_frozen_graph():
    assert modelio.identify(data() / "extra_tf-2.4.4" / "tf1_is_training_frozen.pb") == "frozen-graph"


KINDS = {
    ".keras zip": "keras-zip",
    "Keras HDF5 whole-model": "keras-h5",
    "Keras HDF5 weights-only": "keras-h5",
    "Keras 0.x weights-only*": "keras-h5",
    "Keras JSON architecture": "keras-json",
    "SavedModel TF?": "saved-model",
    "GraphDef frozen": "frozen-graph",
    "GraphDef pbtxt": "frozen-graph",
    "GraphDef (with variables*": "frozen-graph",
    "TF checkpoint .index": "checkpoint",
    "TF MetaGraph .meta": "checkpoint",
}

STRANGERS = {
    "TFLite": "a TensorFlow Lite model",
    "SavedModel keras_metadata.pb": "Keras' notes on a SavedModel",
    "TF.js graph-model model.json": "a TensorFlow.js graph model",
    "NOT HDF5 / corrupt": "no format recognises this text (it starts with '/home/ap/github/vgg16_weights.h5')",
    "unparseable protobuf (wt)": "no format recognises this text (it starts with 'this should not be unmarshalled')",
}


@pytest.mark.parametrize(("kind", "name"), KINDS.items())
def test_files_of_other_projects(kind, name):
    for stray in strays(kind=kind):
        assert modelio.identify(stray.path) == name, stray


@pytest.mark.parametrize(("kind", "sentence"), STRANGERS.items())
def test_files_of_other_projects_that_are_not_read(kind, sentence):
    for stray in strays(kind=kind):
        with pytest.raises(UnknownFormat) as caught:
            modelio.identify(stray.path)
        assert caught.value.reason.startswith(sentence), stray
        assert caught.value.source == str(stray.path)


def tar(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def saved(function, *arguments, **named) -> bytes:
    stream = io.BytesIO()
    function(stream, *arguments, **named)
    return stream.getvalue()


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return stream.getvalue()


def hdf5() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["temperature"] = np.arange(3.0)
    return stream.getvalue()


KERAS = (case("keras-2.0.5_tf-1.2.1/multi_io") / "model.h5").read_bytes()
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 12345\n"

BYTES = {
    "empty": (b"", "the file is empty"),
    "white space": (b"\n \n", "the file holds only white space"),
    "LFS stub": (LFS, "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    "a tar of an HDF5 file": (tar("model.h5", KERAS), "a tar archive"),
    "gzip": (gzip.compress(KERAS), "a gzip archive"),
    "web page": (b"\n<!DOCTYPE HTML><html><title>404</title>", "a web page, not a model"),
    "web page without a doctype": (b'<HTML lang="en">', "a web page, not a model"),
    "one array": (saved(np.save, np.zeros(3)), "a single NumPy array"),
    "arrays": (saved(np.savez, a=np.zeros(3), b=np.ones(2)), "NumPy arrays (.npz)"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle: modelio does not read it, since unpickling runs code"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x032.1" + bytes(9), "an ONNX model"),
    "PyTorch": (zipped(archive__data_dot_pkl=b"", archive__version=b"3"), "a PyTorch file"),
    "other zip": (zipped(a=b"1", b=b"2"), "no format recognises these members: a, b"),
    "h5json": (b'{"apiVersion": "1.1.1", "root": "0f0f"}', "an HDF5/JSON document in which no Keras model is found"),
    "other HDF5": (hdf5(), "an HDF5 file in which no Keras model is found"),
    "other JSON": (b'{"a": 1}', "no format recognises this text (it starts with '{\"a\": 1}')"),
    "other text": ("# Größe\nzwei".encode(), "no format recognises this text (it starts with '# Größe')"),
    "other bytes": (b"\xff\xfe\x00\x01" * 9, "no format recognises the content (it starts with ff fe 00 01 ff fe 00 01)"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "sentence"), BYTES.values(), ids=BYTES)
def test_what_it_is_instead(content, sentence, tmp_path):
    """Whatever the file is called."""
    for name in ("model.h5", "model.pb", "model.json", "model"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnknownFormat) as caught:
            modelio.identify(tmp_path / name)
        assert caught.value.source == str(tmp_path / name)
        assert caught.value.reason.startswith(sentence)


def test_directories_that_are_no_model(tmp_path):
    with pytest.raises(UnknownFormat, match="it is empty"):
        modelio.identify(tmp_path)
    for name in "gfedcba":
        (tmp_path / name).touch()
    with pytest.raises(UnknownFormat, match=r"no format recognises these members: a, b, c, d, e, \.\.\."):
        modelio.identify(tmp_path)
    (tmp_path / "checkpoint").touch()
    with pytest.raises(UnknownFormat, match="a directory of TensorFlow checkpoints without one"):
        modelio.identify(tmp_path)


def test_names_decide_nothing(tmp_path):
    """A .keras file that TensorFlow 2.1 wrote is HDF5."""
    for name in ("model.keras", "model.pb", "model.json", "saved_model.pb", "model"):
        (tmp_path / name).write_bytes(KERAS)
        assert modelio.identify(tmp_path / name) == "keras-h5"


def test_a_damaged_zip_says_so():
    with pytest.raises(ReadError, match="cut short or damaged"):
        modelio.identify(zipped(a=b"1")[:-5])


# ------------------------------------------------------------------------------------------------------- the registry


def test_formats_are_sorted_and_cannot_be_changed():
    names = list(modelio.formats())
    assert names == sorted(names)
    assert {"frozen-graph", "keras-h5", "keras-json", "saved-model"} <= set(names)
    assert all(name == record.name for name, record in modelio.formats().items())
    with pytest.raises(TypeError):
        modelio.formats()["mine"] = None  # type: ignore[index]


def test_every_format_says_what_it_is():
    for record in modelio.formats().values():
        assert record.summary
        assert len(record.summary) <= 100
        assert record.shape in ("blob", "tree")
        assert record.level in ("layers", "graph", "frozen")
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in record.suffixes)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("model.h5", "keras-h5"),
        ("MODEL.H5", "keras-h5"),
        ("a/b.hdf5", "keras-h5"),
        (Path("a.pb"), "frozen-graph"),
        ("a.json", "hdf5-json"),
    ],
)
def test_a_targets_suffix_says_its_format(target, name):
    assert registry.by_suffix(target).name == name


def test_the_longest_suffix_wins(registered):
    short, long = (replace(fake(suffix, suffix), write=lambda model, sink: None) for suffix in (".h5", ".weights.h5"))
    registered(short, long)
    assert registry.by_suffix("model.weights.h5") is long
    assert registry.by_suffix("model.h5") is short


@pytest.mark.parametrize("target", ["model", "export/", "h5", "a.h5/b", "model.onnx", ""])
def test_a_target_whose_name_says_nothing(target):
    with pytest.raises(UnknownFormat, match=r"say it with to= \(--to\): .*saved-model"):
        registry.by_suffix(target)


def test_a_name_that_no_format_has():
    with pytest.raises(
        UnknownFormat, match="no format is called 'keras'; there are checkpoint, frozen-graph, hdf5-json, keras-h5, "
    ):
        registry.by_name("keras")


def fake(name: str, *suffixes: str, sniff=lambda source: True) -> Format:
    return Format(name, "layers", "a fake", "blob", suffixes, sniff=sniff)


@pytest.fixture
def registered(monkeypatch):
    """Puts formats in place of those that are known."""

    def register(*records: Format) -> None:
        monkeypatch.setattr(registry, "formats", lambda: {record.name: record for record in records})

    return register


@pytest.mark.parametrize("order", [1, -1])
def test_several_claims_go_to_the_suffix(order, registered, tmp_path):
    registered(*[fake("one", ".one"), fake("two", ".two", ".deux"), fake("none", sniff=lambda source: False)][::order])
    for name, expected in (("a.one", "one"), ("a.two", "two"), ("a.deux", "two")):
        (tmp_path / name).touch()
        assert registry.identify(Source.of(tmp_path / name)).name == expected
    with pytest.raises(AmbiguousFormat, match=r"this may be any of (one, two|two, one); say which with format="):
        registry.identify(Source.of(b"abc"))


def test_one_claim_needs_no_suffix(registered, tmp_path):
    registered(
        fake("one", ".one", sniff=lambda source: source.head(3) == b"abc"), fake("two", sniff=lambda source: False)
    )
    (tmp_path / "a.two").write_bytes(b"abc")
    assert registry.identify(Source.of(tmp_path / "a.two")).name == "one"


def test_a_format_that_fails_to_look_is_passed_over(registered):
    def fail(source):
        raise ZeroDivisionError("oops")

    registered(fake("bad", sniff=fail), fake("good"))
    with pytest.warns(UserWarning, match="the format bad failed to look at <3 bytes>: ZeroDivisionError"):
        assert registry.identify(Source.of(b"abc")).name == "good"


PLUG_INS = """
import sys, warnings
sys.path.insert(0, sys.argv[1])
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import modelio
    from modelio import registry
    own = {sys.modules[f"modelio.formats.{name}"].FORMAT.name for name in registry.BUILT_IN if modelio.formats()}
    print(sorted(set(modelio.formats()) - own))
for warning in seen:
    print(warning.message)
print(modelio.identify(b"MINE"))
"""


def test_plug_ins(python, tmp_path):
    """Entry points as an installed package has them: a good one is a format, a bad one a warning."""
    (tmp_path / "mine.py").write_text(
        "from modelio import Format\n"
        "FORMAT = Format('mine', 'layers', 'my own', 'blob', sniff=lambda source: source.head(4) == b'MINE')\n"
        "TWIN = Format('keras-h5', 'layers', 'a twin', 'blob')\n"
        "WRONG = 'a string'\n"
    )
    for package, points in {
        "first": "mine = mine:FORMAT\nwrong = mine:WRONG\ntwin = mine:TWIN\n",
        "second": "broken = no_such_module:FORMAT\nabsent = mine:NONE\n",
    }.items():
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[modelio.formats]\n{points}")
    assert python(PLUG_INS, tmp_path).splitlines() == [
        "['mine']",
        "the format plug-in 'absent' cannot be loaded: module 'mine' has no attribute 'NONE'",
        "the format plug-in 'broken' cannot be loaded: No module named 'no_such_module'",
        "the format plug-in 'twin' names a format that exists: keras-h5",
        "the format plug-in 'wrong' cannot be loaded: it names a str, not a modelio.Format",
        "mine",
    ]
