"""HDF5/JSON documents: those of the HDF Group are read, those that are written are theirs; whatever else is refused."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.model import Tensor
from modelio.wire import hdf5_json
from modelio.wire.hdf5_json import File, Writer, is_document
from modelio.wire.window import MemoryWindow
from tests.corpus import strays

ROOT, GROUP, SET, TYPE = (str(uuid.UUID(int=number)) for number in (1, 2, 3, 4))

F32 = {"class": "H5T_FLOAT", "base": "H5T_IEEE_F32LE"}
TEXT = {"class": "H5T_STRING", "charSet": "H5T_CSET_UTF8", "length": "H5T_VARIABLE", "strPad": "H5T_STR_NULLTERM"}
SCALAR = {"class": "H5S_SCALAR"}


def simple(*dims: Any) -> dict[str, Any]:
    return {"class": "H5S_SIMPLE", "dims": list(dims)}


def link(title: str, collection: str, identity: str) -> dict[str, str]:
    return {"class": "H5L_TYPE_HARD", "title": title, "collection": collection, "id": identity}


def document(**changes: Any) -> dict[str, Any]:
    """A document with one dataset, ``w``; and what changes in its parts."""
    return {
        "apiVersion": "1.1.1",
        "root": ROOT,
        "groups": {ROOT: {"alias": ["/"], "links": [link("w", "datasets", SET)]}},
        "datasets": {SET: {"alias": ["/w"], "type": F32, "shape": simple(2), "value": [1.5, 2]}},
        **changes,
    }


def dataset(**changes: Any) -> dict[str, Any]:
    return document(datasets={SET: {**document()["datasets"][SET], **changes}})


def group(**changes: Any) -> dict[str, Any]:
    return document(groups={ROOT: {**document()["groups"][ROOT], **changes}})


def with_attribute(kind: Any, shape: Any, value: Any = None, **more: Any) -> dict[str, Any]:
    return group(
        attributes=[{"name": "a", "type": kind, "shape": shape, **({} if value is None else {"value": value})}], **more
    )


def opened(content: Any) -> File:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return File(MemoryWindow(data))


def values(content: Any, path: str = "w") -> np.ndarray:
    return opened(content).dataset(path).numpy()


def written(build: Callable[[Writer], object]) -> bytes:
    stream = io.BytesIO()
    with Writer(stream) as file:
        build(file)
    return stream.getvalue()


# ------------------------------------------------------------------------------------------------------------- reading


def test_groups_attributes_and_datasets():
    attributes = [
        {"name": "backend", "type": TEXT, "shape": SCALAR, "value": "tensorflow"},
        {"name": "names", "type": {**TEXT, "length": 7, "strPad": "H5T_STR_NULLPAD"}, "shape": simple(2), "value": ["a", "Größe"]},
        {"name": "count", "type": {"class": "H5T_INTEGER", "base": "H5T_STD_I64LE"}, "shape": SCALAR, "value": 7},
        {"name": "empty", "type": F32, "shape": simple(0), "value": []},
        {"name": "null", "type": F32, "shape": {"class": "H5S_NULL"}},
        {"name": "one", "type": TEXT, "shape": simple(1), "value": ["a"]},
    ]  # fmt: skip
    groups = {
        ROOT: {"links": [link("w", "datasets", SET), link("g", "groups", GROUP)], "attributes": attributes},
        GROUP: {"links": [link("again", "datasets", SET)]},
    }
    file = opened(document(groups=groups))
    assert (file.members(), file.members("g"), file.members("w")) == (["g", "w"], ["again"], [])
    assert list(file.leaves()) == ["g/again", "w"]
    assert [path for path in ("", "g", "w", "g/again", "x") if path in file] == ["", "g", "w", "g/again"]
    assert (file.has("g"), file.has("x")) == (True, False)
    assert [file.is_dataset(path) for path in ("", "g", "w", "g/again")] == [False, False, True, True]
    assert file.attributes() == ["backend", "count", "empty", "names", "null", "one"]
    assert file.attribute("", "backend") == "tensorflow"
    assert file.attribute("", "names") == ["a", "Größe"]
    assert file.attribute("", "count") == 7
    assert file.attribute("", "one") == ["a"]
    assert file.attribute("", "none") is None
    assert file.names("", "empty") == []
    assert file.names("", "null") == []
    assert file.dataset("g/again").numpy().tolist() == [1.5, 2]


NUMBERS = [
    *((f"H5T_STD_{sign}{8 * size}", "H5T_INTEGER", f"{kind}{size}") for sign, kind in ("Ii", "Uu") for size in (1, 2, 4, 8)),
    *((f"H5T_IEEE_F{8 * size}", "H5T_FLOAT", f"f{size}") for size in (2, 4, 8)),
]  # fmt: skip


@pytest.mark.parametrize(("base", "kind", "numpy"), NUMBERS, ids=[base for base, _, _ in NUMBERS])
@pytest.mark.parametrize("order", ["LE", "BE"])
def test_numbers_of_every_type(base, kind, numpy, order):
    """The byte order is that of the HDF5 file; text has none."""
    found = values(dataset(type={"class": kind, "base": base + order}, value=[1, 100]))
    assert (found.dtype, found.tolist()) == (np.dtype(numpy), [1, 100])


def test_other_elements():
    truths = {"class": "H5T_ENUM", "base": {"class": "H5T_INTEGER", "base": "H5T_STD_I8LE"}}
    truths["members"] = [{"name": "FALSE", "value": 0}, {"name": "TRUE", "value": 1}]
    assert values(dataset(type=truths, value=[True, False])).tolist() == [True, False]
    assert values(dataset(type=truths, value=[0, 1])).tolist() == [False, True]
    fields = [{"name": "r", "type": F32}, {"name": "i", "type": F32}]
    found = values(dataset(type={"class": "H5T_COMPOUND", "fields": fields}, value=[[1, 2], [3, 4]]))
    assert (found.dtype, found.tolist()) == (np.complex64, [1 + 2j, 3 + 4j])
    opaque = {"class": "H5T_OPAQUE", "size": 2}
    assert values(dataset(type=opaque, value=["wD8=", ""])).astype(float).tolist() == [
        1.5,
        0,
    ]  # as h5tojson has bfloat16
    assert values(dataset(type=opaque, shape=SCALAR, value="wD8=")) == 1.5


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3fn"])
def test_an_attribute_says_that_floats_are_narrower(name):
    said = [{"name": "dtype", "type": TEXT, "shape": SCALAR, "value": name}]
    found = values(dataset(attributes=said))
    assert found.dtype == getattr(ml_dtypes, name, name)
    assert found.astype(float).tolist() == [1.5, 2]
    assert values(dataset(attributes=[{**said[0], "value": "something"}])).dtype == np.float32


def test_a_type_that_has_a_name():
    assert values(
        dataset(type=f"datatypes/{TYPE}") | {"datatypes": {TYPE: {"alias": ["/t"], "type": F32}}}
    ).tolist() == [1.5, 2]


def test_nothing_and_one():
    assert values(dataset(shape=SCALAR, value=0)) == 0
    for value in ([], [[], []], None):
        assert values(dataset(shape=simple(2, 0), value=value)).shape == (2, 0)


def test_numbers_are_parsed_when_they_are_asked_for():
    array = np.arange(1000.0).reshape(10, 100)
    text = json.dumps(dataset(shape=simple(10, 100), value=array.tolist())).encode()
    assert np.array_equal(values(text), array)
    broken = text.replace(b"555.0", b"5,5.0")
    found = opened(broken).dataset("w")
    assert found.shape == (10, 100)
    with pytest.raises(ReadError, match=r"at w: these are not lists of numbers|at w: the lists of numbers do not have"):
        found.numpy()


def test_it_is_told_from_its_start():
    for changes in ({}, {"apiVersion": "1.0.0"}):
        data = json.dumps(document(**changes), indent=4).encode()
        assert is_document(data)
        assert is_document(b"\xef\xbb\xbf\n " + data)
    for key in ("root", "groups", "datasets"):
        assert is_document(json.dumps({key: document()[key], **document()}).encode()), "in another order"
    for other in (
        b"",
        b"{}",
        b'{"apiVersion": "v1", "kind": "Pod"}',
        b'{"class_name": "Model"}',
        b'{"groups": {"a": 1}}',
        b"[]",
    ):
        assert not is_document(other)


def test_documents_of_the_hdf_group():
    """Those that its own tools are tested with, where they are at hand: each is read, or refused by name."""
    try:
        found = strays(kind="h5json")
    except LookupError:
        pytest.skip("MODELIO_WILD is not set")
    refused = {}
    for stray in found:
        data = stray.path.read_bytes()
        assert is_document(data[:1000])
        try:
            file = opened(data)
            for leaf in filter(file.is_dataset, file.leaves()):
                assert file.dataset(leaf).numpy() is not None
            for name in file.attributes():
                assert file.attribute("", name) is not None
        except ReadError as error:
            refused[stray.path.stem] = error.reason
    assert {name: reason.split(",")[0] for name, reason in refused.items()} == {
        "fixed_string_dset": "it holds elements of H5T_STRING",
        "nullspace_dset": "the dataset has no value: its dataspace is null",
        "scalar_array_dset": "it holds elements of H5T_ARRAY",
        "tallrw": "only hard links are followed",
    }


# ---------------------------------------------------------------------------------------------------- what is refused

DEEP = document(groups={
    **{str(uuid.UUID(int=10 + n)): {"links": [link("g", "groups", str(uuid.UUID(int=11 + n)))]} for n in range(100)},
    ROOT: {"links": [link("g", "groups", str(uuid.UUID(int=10)))]},
    str(uuid.UUID(int=110)): {},
})  # fmt: skip
LOOP = group(links=[link("again", "groups", ROOT)])
LAUGHS = document(groups={
    **{str(uuid.UUID(int=10 + n)): {"links": [link(str(k), "groups", str(uuid.UUID(int=11 + n))) for k in range(10)]} for n in range(30)},
    ROOT: {"links": [link("g", "groups", str(uuid.UUID(int=10)))]},
    str(uuid.UUID(int=40)): {},
})  # fmt: skip

BROKEN: dict[str, tuple[Any, type, str]] = {
    "no JSON": (b'{"apiVersion": "1.1.1"', ReadError, "this is not JSON"),
    "nothing": (b"", ReadError, "this is not JSON"),
    "no object": ([], ReadError, "not an HDF5/JSON document"),
    "no root": ({"apiVersion": "1.1.1", "groups": {}}, ReadError, "not an HDF5/JSON document"),
    "a root that is no text": (document(root=1), ReadError, "not an HDF5/JSON document"),
    "a root that is not there": (document(root=GROUP), ReadError, "at root: the document has no object of the id"),
    "groups in a list": (document(groups=[]), ReadError, "at groups: this is not a collection"),
    "a group that is a number": (document(groups={ROOT: 1}), ReadError, "at groups: this is not a collection"),
    "links in an object": (group(links={}), ReadError, "its links are not a list of objects with a title"),
    "a link without a name": (group(links=[{"class": "H5L_TYPE_HARD"}]), ReadError, "its links are not a list"),
    "a link to nothing": (group(links=[link("x", "groups", GROUP)]), ReadError, "at x: the document has no object"),
    "a link without an id": (group(links=[{"class": "H5L_TYPE_HARD", "title": "x"}]), ReadError, "at x: the document has"),
    "a link into no collection": (group(links=[link("x", "others", SET)]), ReadError, "at x: the document has no object"),
    "a slash in a name": (group(links=[link("a/b", "datasets", SET)]), ReadError, "at a/b: a name is empty, or has a slash"),
    "no name": (group(links=[link("", "datasets", SET)]), ReadError, "a name is empty"),
    "a soft link": (group(links=[{"class": "H5L_TYPE_SOFT", "title": "x", "h5path": "/w"}]), UnsafeInput, "at x: only hard links"),
    "a link out": (
        group(links=[{"class": "H5L_TYPE_EXTERNAL", "title": "x", "file": "/etc/passwd", "h5path": "/"}]),
        UnsafeInput,
        "at x: only hard links are followed",
    ),
    "a group in itself": (LOOP, UnsafeInput, "nested deeper than 64"),
    "a hundred groups": (DEEP, UnsafeInput, "nested deeper than 64"),
    "nested without end": (b'{"a": ' * 100_000, UnsafeInput, "nested deeper"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "error", "sentence"), BROKEN.values(), ids=BROKEN)
def test_documents_that_are_refused(content, error, sentence):
    with pytest.raises(error, match=sentence):
        opened(content)


def test_a_few_groups_that_are_linked_to_a_million_times(monkeypatch):
    monkeypatch.setattr(hdf5_json, "PATHS", 100_000)
    with pytest.raises(UnsafeInput, match=r"\d,\d\d\d groups and datasets, or more: this is no model"):
        opened(LAUGHS)


DATASETS: dict[str, tuple[Any, type, str]] = {
    "a group": (group(links=[link("w", "groups", GROUP)]) | {"groups": {ROOT: {"links": [link("w", "groups", GROUP)]}, GROUP: {}}}, ReadError, "no such dataset"),
    "no type": (dataset(type=None), ReadError, "its type is missing"),
    "a type of another document": (dataset(type=f"datatypes/{TYPE}"), ReadError, "its type is missing"),
    "texts": (dataset(type=TEXT, value=["a", "b"]), ReadError, "elements of H5T_STRING, and numbers are wanted"),
    "references": (dataset(type={"class": "H5T_REFERENCE", "base": "H5T_STD_REF_OBJ"}), ReadError, "H5T_REFERENCE"),
    "lists of any length": (dataset(type={"class": "H5T_VLEN", "base": F32}), ReadError, "elements of H5T_VLEN"),
    "structures": (dataset(type={"class": "H5T_COMPOUND", "fields": [{"name": "x", "type": F32}] * 2}), ReadError, "H5T_COMPOUND"),
    "an unknown type": (dataset(type={"class": "H5T_FLOAT", "base": "H5T_IEEE_F128LE"}), ReadError, "elements of H5T_FLOAT"),
    "an integer that is a float": (dataset(type={"class": "H5T_INTEGER", "base": "H5T_IEEE_F32LE"}), ReadError, "H5T_INTEGER"),
    "bytes of an unknown kind": (dataset(type={"class": "H5T_OPAQUE", "size": 4}, value=["", ""]), ReadError, "4 opaque bytes"),
    "bytes that are not base64": (dataset(type={"class": "H5T_OPAQUE", "size": 2}, value=["?", ""]), ReadError, "not base64"),
    "too many bytes": (dataset(type={"class": "H5T_OPAQUE", "size": 2}, value=["AAAA", ""]), ReadError, "bytes are not"),
    "no shape": (dataset(shape=None), ReadError, "its shape is missing"),
    "a shape without sizes": (dataset(shape={"class": "H5S_SIMPLE"}), ReadError, "its shape is missing"),
    "a negative size": (dataset(shape=simple(-1)), ReadError, "its shape is missing, or no list of sizes"),
    "a broken size": (dataset(shape=simple(1.5)), ReadError, "its shape is missing, or no list of sizes"),
    "no dataspace": (dataset(shape={"class": "H5S_NULL"}), ReadError, "its dataspace is null"),
    "no numbers": (dataset(value=None), ReadError, "its numbers are left out of the document"),
    "too few numbers": (dataset(shape=simple(3)), ReadError, "do not have the declared shape"),
    "a size beyond all memory": (dataset(shape=simple(10**15)), ReadError, "bytes of text cannot hold"),
    "a text for a number": (dataset(value=["1", "2"]), ReadError, "something else than numbers"),
    "a place that is not there": (dataset(value="\0999999:20"), ReadError, "the file is cut short or its index is wrong"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "error", "sentence"), DATASETS.values(), ids=DATASETS)
def test_datasets_that_are_refused(content, error, sentence):
    with pytest.raises(error, match=f"at w: .*{sentence}"):
        values(content)


ATTRIBUTES: dict[str, tuple[Any, type, str]] = {
    "in an object": (group(attributes={}), ReadError, "its attributes are not a list"),
    "without a name": (group(attributes=[{"type": TEXT}]), ReadError, "its attributes are not a list"),
    "without a type": (with_attribute(None, SCALAR, "x"), ReadError, "at @a: its type is missing"),
    "without a shape": (with_attribute(TEXT, None, "x"), ReadError, "at @a: its shape is missing"),
    "without its text": (with_attribute(TEXT, SCALAR), ReadError, "at @a: its value is not as many texts"),
    "fewer texts": (with_attribute(TEXT, simple(2), ["x"]), ReadError, "at @a: its value is not as many texts"),
    "a number for a text": (with_attribute(TEXT, SCALAR, 1), ReadError, "at @a: its value is not as many texts"),
    "a reference": (with_attribute({"class": "H5T_REFERENCE"}, SCALAR, "x"), ReadError, "at @a: .*H5T_REFERENCE"),
    "without its numbers": (with_attribute(F32, simple(2)), ReadError, "at @a: its numbers are left out"),
    "a size beyond all memory": (with_attribute(F32, simple(10**15), [1]), UnsafeInput, "at @a: an attribute of"),
    "a fault in its numbers": (with_attribute(F32, simple(2), [1, [2]]), ReadError, "at @a: these are not lists"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "error", "sentence"), ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_attributes_that_are_refused(content, error, sentence):
    file = opened(content)
    with pytest.raises(error, match=sentence):
        file.attribute("", "a")


def test_an_attribute_of_nothing():
    with pytest.raises(ReadError, match="at x: the document has no such group"):
        opened(document()).attribute("x", "a")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "H5S_SIMPLE", "H5T_STRING", SET, ROOT]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["class", "dims", "base", "type", "shape", "value", "name", "id", "title"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@given(
    json_values,
    st.sampled_from(["root", "groups", "datasets", "links", "attributes", "type", "shape", "value", "item"]),
)
def test_any_part_is_read_or_refused(value, part):
    if part in ("root", "groups", "datasets"):
        content = document(**{part: value})
    elif part in ("links", "attributes"):
        content = group(**{part: value})
    else:
        content = document(datasets={SET: value}) if part == "item" else dataset(**{part: value})
    try:
        file = opened(content)
        for name in file.attributes():
            file.attribute("", name)
        file.dataset("w").numpy()
    except ReadError:
        return


# ------------------------------------------------------------------------------------------------------------- writing


def example(file: Writer) -> None:
    file.attribute("", "text", "Größe")
    file.group("a/empty")
    file.names("a/empty", "weight_names", [])
    file.names("a", "weight_names", ["k:0", "scope/b:0"])
    file.attribute("a", "numbers", np.array([1, 2]))
    file.attribute("a", "big-endian", np.array([1.5], ">f8"))
    file.dataset("a/k:0", Tensor.of(np.arange(6, dtype="float32").reshape(2, 3)))
    file.dataset("a/scope/b:0", Tensor.of(np.float64(2)))
    file.dataset("a/none", Tensor.of(np.zeros((3, 0), "int64")))
    file.dataset("a/bool", Tensor.of(np.array([True, False])))
    file.dataset("a/half", Tensor.of(np.array([0.1], "float16")))
    file.dataset("a/narrow", Tensor.of(np.array([1.5], ml_dtypes.bfloat16)))
    file.dataset("a/complex", Tensor.of(np.array(1 + 2j)))


def test_what_is_written_reads_back():
    file = opened(written(example))
    assert file.attribute("", "text") == "Größe"
    assert file.attributes("a") == ["big-endian", "numbers", "weight_names"]
    assert file.names("a", "weight_names") == ["k:0", "scope/b:0"]
    assert file.names("a/empty", "weight_names") == []
    assert file.attribute("a", "numbers").tolist() == [1, 2]
    assert file.attribute("a", "big-endian").tolist() == [1.5]
    assert file.members("a") == ["bool", "complex", "empty", "half", "k:0", "narrow", "none", "scope"]
    found = {leaf: file.dataset(leaf).numpy() for leaf in file.leaves("a") if leaf != "a/empty"}
    assert found["a/k:0"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["a/scope/b:0"] == 2
    assert (found["a/none"].shape, found["a/none"].dtype) == ((3, 0), np.int64)
    assert found["a/bool"].tolist() == [True, False]
    assert (found["a/half"].dtype, found["a/half"]) == (np.float16, np.float16(0.1))
    assert (found["a/narrow"].dtype, found["a/narrow"]) == (ml_dtypes.bfloat16, 1.5)
    assert (found["a/complex"].dtype, found["a/complex"]) == (np.complex128, 1 + 2j)


def test_it_is_a_document_of_plain_json():
    content = json.loads(written(example))
    assert list(content) == ["apiVersion", "root", "groups", "datasets"]
    aliases = {tuple(item["alias"]): identity for identity, item in (content["groups"] | content["datasets"]).items()}
    assert aliases[("/",)] == content["root"]
    assert len(aliases) == len(content["groups"]) + len(content["datasets"])
    assert all(str(uuid.UUID(identity)) == identity for identity in aliases.values())
    (half,) = (item for item in content["datasets"].values() if item["alias"] == ["/a/half"])
    assert half["type"] == F32, "the schema has no smaller one"
    assert json.loads(written(lambda file: None)) == {
        "apiVersion": "1.1.1",
        "root": content["root"],
        "groups": {content["root"]: {"alias": ["/"]}},
    }


def test_the_same_calls_give_the_same_bytes(python):
    script = """
        import hashlib
        from tests.wire.test_hdf5_json import example, written
        print(hashlib.sha256(written(example)).hexdigest())
    """
    assert python(script) == python(script)


def test_names_beyond_64_kb_are_spread_as_keras_spreads_them():
    """jsontoh5 has to get each of them into one attribute."""
    names = [f"block_{number}/{'x' * 60}/kernel:0" for number in range(3000)]
    file = opened(written(lambda file: file.names("", "layer_names", names)))
    assert len(file.attributes()) > 1
    assert all(sum(map(len, file.attribute("", name))) <= 64512 for name in file.attributes())
    assert file.names("", "layer_names") == names


UNWRITABLE = {
    "two at one path": (lambda f: [f.dataset("a/b", Tensor.of([1.0])) for _ in "12"], "two weights would have", "a/b"),
    "one below another": (
        lambda f: [f.dataset(path, Tensor.of([1.0])) for path in ("a", "a/b")],
        "a group and a weight would have this path",
        "a",
    ),
    "one above another": (
        lambda f: [f.dataset(path, Tensor.of([1.0])) for path in ("a/b", "a")],
        "two weights would have this path",
        "a",
    ),
    "text": (lambda f: f.dataset("a", Tensor.of(np.array(["x"]))), "elements of str", "a"),
    "objects": (lambda f: f.dataset("a", Tensor.of(np.array([b"x"], object))), "elements of object", "a"),
    "half a byte": (lambda f: f.dataset("a", Tensor.of(np.ones(2, ml_dtypes.int4))), "elements of int4", "a"),
    "a zero byte": (lambda f: f.group("a\0b"), "HDF5 cannot hold a zero byte", "a\0b"),
    "a zero byte in a text": (lambda f: f.attribute("", "n", "a\0"), "HDF5 cannot hold a zero byte", "@n"),
    "no name": (lambda f: f.group("a//b"), "HDF5 cannot hold what has no name", "a/"),
    "no UTF-8": (lambda f: f.names("", "n", ["\ud800"]), "this cannot be written as UTF-8", "@n"),
    "a very long name": (lambda f: f.names("", "n", ["x" * 70_000]), "a name of 70,000 bytes", "@n"),
    "no such group": (lambda f: f.attribute("a", "n", "x"), "there is no such group", "a@n"),
    "dates": (lambda f: f.attribute("", "n", np.array(["2020-01-01"], "M8[D]")), "elements of datetime64", "@n"),
    "too few bytes": (
        lambda f: f.dataset("a", Tensor("float32", (2,), lambda: np.zeros(2), lambda: iter([b"1234"]))),
        "the tensor gives fewer bytes than its shape takes",
        "a",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("build", "sentence", "where"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_cannot_be_written(build, sentence, where):
    with pytest.raises(WriteError, match=sentence) as caught:
        written(build)
    assert caught.value.where == where
