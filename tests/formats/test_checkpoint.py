"""Checkpoints: both kinds, every way to name one, what comes back of them, what TensorFlow makes of ours, and damage."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import modelio
from modelio.errors import ModelioError, ReadError, WriteError
from modelio.formats import checkpoint
from modelio.graph.builder import Builder
from modelio.model import GraphModel, Tensor
from modelio.sink import Sink
from modelio.source import Source
from modelio.wire import messages
from tests.corpus import cases, data, strays

MADE = data() / "checkpoints_tf-1.15.5"
KINDS = ("v1", "v1_sharded", "v2", "v2_sharded")
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)

FOLDERS = sorted(
    [MADE / kind for kind in KINDS]
    + [one / "checkpoint_tf1" for one in cases(file="checkpoint_tf1")]
    + [one.path for one in cases(file="checkpoint")]
)
EVERY = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: "/".join(path.parts[-3:]))


def read(source: object, prefix: str | None = None, graph: object = None) -> GraphModel:
    return checkpoint.read(Source.of(source), prefix=prefix, graph=graph)


def write(model: GraphModel, target: object = None, **options: object) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with Sink.open(files if target is None else target, shape="tree", overwrite=True) as sink:
        checkpoint.write(model, sink, **options)
        sink.commit()
    return files


def members(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix not in (".npz", ".py")}


def zipped(files: Mapping[str, bytes], prefix: str = "", method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(prefix + name, content)
    return stream.getvalue()


def bits(values: Mapping[str, object]) -> dict[str, object]:
    """The arrays as what compares bit for bit."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    return {
        name: (array.dtype.name, array.shape, array.tolist() if array.dtype == object else array.tobytes())
        for name, array in arrays.items()
    }


def saved(kind: str) -> dict[str, np.ndarray]:
    """What the session had in its variables."""
    with np.load(MADE / kind / "values.npz") as stored:
        values = dict(stored)
    values["string"] = values["string"].astype(object)
    return values


# What TensorFlow wrote


@EVERY_KIND
def test_the_variables_are_those_of_the_session(kind: str) -> None:
    model = read(MADE / kind)
    values = {name: tensor.numpy() for name, tensor in model.variables.items()}
    if "bfloat16" in values:
        values["bfloat16"] = values["bfloat16"].view(np.uint16)
    assert bits(values) == bits(saved(kind))
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in read(MADE / kind).variables.items()} == {
        name: (tensor.numpy().dtype, tensor.numpy().shape) for name, tensor in model.variables.items()
    }


@EVERY_KIND
def test_streamed_they_are_the_same(kind: str) -> None:
    for tensor in read(MADE / kind).variables.values():
        if tensor.dtype != object:
            assert b"".join(tensor.chunks()) == tensor.numpy().tobytes()


@EVERY_KIND
def test_the_graph_is_that_of_the_meta_file(kind: str) -> None:
    model = read(MADE / kind)
    metas = list((MADE / kind).glob("*.meta"))
    if not metas:
        assert not model.graph.node
        assert "saver_def" not in model.extra
        return
    meta = messages.MetaGraphDef.FromString(metas[0].read_bytes())
    assert model.graph == meta.graph_def
    assert messages.SaverDef.FromString(model.extra["saver_def"]) == meta.saver_def
    assert model.meta["tensorflow_version"] == "1.15.5"


def test_which_checkpoint_it_is_is_told() -> None:
    assert {
        kind: (m := read(MADE / kind)).meta["checkpoint"] + " " + m.meta["checkpoint_version"] for kind in KINDS
    } == {
        "v1": "model.ckpt V1",
        "v1_sharded": "model.ckpt V1",
        "v2": "model.ckpt-2 V2",
        "v2_sharded": "model.ckpt V2",
    }


@EVERY
def test_what_is_read_is_written_back_with_the_same_meaning(folder: Path) -> None:
    model = read(folder)
    files = write(model)
    again = read(files)
    assert bits(again.variables) == bits(model.variables)
    assert again.graph == model.graph
    assert again.extra == model.extra
    assert (again.signatures, again.tags) == (model.signatures, model.tags)
    assert write(again) == files
    name = model.meta["checkpoint"]
    original = folder / f"{name}.meta"
    if original.exists():
        assert messages.MetaGraphDef.FromString(files[f"{name}.meta"]) == messages.MetaGraphDef.FromString(
            original.read_bytes()
        )


@pytest.mark.parametrize("stray", strays(kind=("TF checkpoint .index", "TF MetaGraph .meta")), ids=str)
def test_files_of_other_projects(stray) -> None:
    assert checkpoint.sniff(Source.of(stray.path))
    if stray.path.suffix == ".index":
        with pytest.raises(ReadError, match=r"\.data-00000-of-00001 is missing"):
            read(stray.path)
        return
    model = read(stray.path)
    assert len(model.graph.node) > 10
    for name, tensor in model.variables.items():
        with pytest.raises(ReadError, match="the graph came without its checkpoint") as caught:
            tensor.numpy()
        assert caught.value.where == name


# Ways to name one

V1, V2 = MADE / "v1", MADE / "v2"

NAMED = {
    "the prefix": (V2 / "model.ckpt-1", "model.ckpt-1"),
    "its index": (V2 / "model.ckpt-1.index", "model.ckpt-1"),
    "its graph": (V2 / "model.ckpt-2.meta", "model.ckpt-2"),
    "the directory": (V2, "model.ckpt-2"),
    "the file that says which": (V2 / "checkpoint", "model.ckpt-2"),
    "its members": (members(V2), "model.ckpt-2"),
    "a zip": (zipped(members(V2)), "model.ckpt-2"),
    "a packed zip": (zipped(members(V2), method=zipfile.ZIP_DEFLATED), "model.ckpt-2"),
    "a zip of a folder": (zipped(members(V2), prefix="run1/"), "model.ckpt-2"),
    "a folder of a mapping": ({"run1": members(V2)}, "model.ckpt-2"),
    "V1, its prefix, which is a file": (V1 / "model.ckpt", "model.ckpt"),
    "V1, its directory": (V1, "model.ckpt"),
    "V1, its graph": (V1 / "model.ckpt.meta", "model.ckpt"),
    "V1, its only file": ((V1 / "model.ckpt").read_bytes(), "model.ckpt"),
    "V1, a mapping of its only file": ({"w": (V1 / "model.ckpt").read_bytes()}, "w"),
    "V1, a zip": (zipped(members(V1)), "model.ckpt"),
    "V1 and its graph, no word on which": (
        {name: content for name, content in members(V1).items() if name != "checkpoint"},
        "model.ckpt",
    ),
    "V1 in two files, the prefix": (MADE / "v1_sharded/model.ckpt", "model.ckpt"),
    "V1 in two files, one of them": (MADE / "v1_sharded/model.ckpt-00001-of-00002", "model.ckpt"),
    "V1 in two files, a mapping": (members(MADE / "v1_sharded"), "model.ckpt"),
}


@pytest.mark.parametrize("way", NAMED)
def test_every_way_leads_to_it(way: str) -> None:
    source, name = NAMED[way]
    assert modelio.identify(source) == "checkpoint"
    model = read(source)
    assert model.meta["checkpoint"] == name
    assert {"net/rows", "net/columns", "net/bias", "float64"} <= set(model.variables)
    assert model.variables["net/bias"].numpy().tobytes() == saved("v1")["net/bias"].tobytes()


def test_any_of_several_is_read_by_its_name() -> None:
    assert read(V2, "model.ckpt-1").meta["checkpoint"] == "model.ckpt-1"
    assert read(V2 / "model.ckpt-2.index", "model.ckpt-1").meta["checkpoint"] == "model.ckpt-1"
    assert not read(V2, "model.ckpt-1").graph.node  # its .meta was not written
    with pytest.raises(ReadError, match=r"no model\.ckpt-3\.index"):
        read(V2, "model.ckpt-3")


@pytest.mark.parametrize("one", cases(file=("checkpoint_tf1", "graph.pbtxt")))
def test_a_graph_may_be_given_with_it(one) -> None:
    """As text, in binary, or another's .meta: the same graph as in its own."""
    files = members(one / "checkpoint_tf1")
    meta = files.pop("model.ckpt.meta")
    whole, text = read(one / "checkpoint_tf1"), (one / "graph.pbtxt").read_bytes()
    assert read(files, graph=meta).graph == whole.graph
    graph = messages.parse_text(messages.GraphDef, text)
    for given in (text, one / "graph.pbtxt", graph.SerializeToString()):
        model = read(files, graph=given)
        assert model.graph == graph
        assert bits(model.variables) == bits(whole.variables)
    assert read(files, graph=messages.to_text(messages.MetaGraphDef.FromString(meta)).encode()).graph == whole.graph


def test_a_meta_file_is_a_metagraph_however_it_begins() -> None:
    """Without ops and tags, its first bytes may be those of a graph."""
    meta = messages.MetaGraphDef.FromString((V2 / "model.ckpt-2.meta").read_bytes())
    meta.meta_info_def.ClearField("stripped_op_list")
    for content in (meta.SerializeToString(), messages.to_text(meta).encode()):
        model = read({**members(V2), "model.ckpt-2.meta": content})
        assert model.graph == meta.graph_def
        assert model.meta["tensorflow_version"] == "1.15.5"


def test_a_graph_that_is_none() -> None:
    with pytest.raises(ReadError, match="the file is damaged, or no graph"):
        read(V2, graph=b"this is no graph")


def state(path: str) -> bytes:
    return f'model_checkpoint_path: "{path}"\nall_model_checkpoint_paths: "{path}"\n'.encode()


SAID = {
    "a path of another machine": ("/home/somebody/run/model.ckpt-1", "model.ckpt-1"),
    "a path of Windows": (r"C:\\run\\model.ckpt-1", "model.ckpt-1"),
    "a path in the folder": ("./model.ckpt-1", "model.ckpt-1"),
}


@pytest.mark.parametrize("way", SAID)
def test_the_latest_is_where_the_file_is_that_says_it(way: str) -> None:
    path, name = SAID[way]
    assert read({**members(V2), "checkpoint": state(path)}).meta["checkpoint"] == name


def test_an_outdated_note_does_not_hide_the_only_checkpoint() -> None:
    files = {name: content for name, content in members(V2).items() if "ckpt-1" not in name}
    assert read({**files, "checkpoint": state("model.ckpt-7")}).meta["checkpoint"] == "model.ckpt-2"


def only(names: Iterable[str], **more: bytes) -> dict[str, bytes]:
    return {**{name: content for name, content in members(V2).items() if name in names}, **more}


NOT_ONE = {
    "several, and none is said to be the latest": (
        {name: content for name, content in members(V2).items() if name != "checkpoint"},
        r"the latest is not said: model\.ckpt-1, model\.ckpt-2; name one, or choose it with prefix=",
    ),
    "another is said to be": (
        {**members(V2), "checkpoint": state("model.ckpt-7")},
        r"'model\.ckpt-7', which is not here; there are model\.ckpt-1, model\.ckpt-2: name one, or choose",
    ),
    "none is left": ({"checkpoint": state("model.ckpt-7")}, r"'model\.ckpt-7', which is not here; no other is here"),
    "only the note": (state("model.ckpt"), "name the directory that they are in"),
    "only the index": ((V2 / "model.ckpt-1.index").read_bytes(), r"without the \.data files"),
    "no data": (only(["model.ckpt-1.index"]), r"model\.ckpt-1\.data-00000-of-00001 is missing"),
    "nothing": ({"a": b"1"}, "there is no checkpoint in it"),
    "a SavedModel": ({"saved_model.pb": b"\x08\x01", "checkpoint": state("x")}, "this is a SavedModel"),
    "V1, the second file is missing": (
        {"m-00000-of-00002": members(MADE / "v1_sharded")["model.ckpt-00000-of-00002"]},
        "m-00001-of-00002 is missing",
    ),
    "V1, two of the same name": (
        {
            name: members(MADE / "v1_sharded")["model.ckpt-00001-of-00002"]
            for name in ("m-00000-of-00001", "m-00000-of-00002", "m-00001-of-00002")
        },
        "there are several, one of them in 1 files",
    ),
    "V1, the same in both": (
        {
            name: members(MADE / "v1_sharded")["model.ckpt-00001-of-00002"]
            for name in ("m-00000-of-00002", "m-00001-of-00002")
        },
        "do not make up its shape",
    ),
}


@pytest.mark.parametrize("way", NOT_ONE)
def test_what_is_not_one_checkpoint(way: str) -> None:
    source, sentence = NOT_ONE[way]
    with pytest.raises(ReadError, match=sentence):
        read(source)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"model.ckpt",
        b'\n{"class_name": "Sequential", "config": []}',
        b'\n\n"" \n',
        {},
        {"checkpoint": b""},
        {"search.index": b"another program's", "a": b""},
        {"saved_model.pb": b"\x08\x01", "x.index": (V2 / "model.ckpt-1.index").read_bytes()},
        {"weights.npy": (V1 / "model.ckpt").read_bytes(), "other": b""},
    ],
)
def test_other_content_is_not_claimed(content: object) -> None:
    assert not checkpoint.sniff(Source.of(content))


class Watched(io.BytesIO):
    """A file object that knows how many bytes were read."""

    touched = 0

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        self.touched += len(content)
        return content


def test_no_number_is_read() -> None:
    file = Watched(members(V2)["model.ckpt-2.data-00000-of-00001"])
    model = read({**members(V2), "model.ckpt-2.data-00000-of-00001": file})
    assert modelio.inspect(model).weights.parameters == 140
    assert file.touched == 0


SAYS = {
    "a graph and its variables": (
        V2,
        ["checkpoint, model.ckpt-2, written by TensorFlow 1.15.5", "placeholders are `x`."],
    ),
    "variables alone": (MADE / "v1_sharded", ["17 weights with 137 parameters", "There are variables and no graph"]),
    "a graph alone": (
        (V2 / "model.ckpt-2.meta").read_bytes(),
        ["This is the graph alone", "21 weights with 140 parameters"],
    ),
}


@pytest.mark.parametrize("name", SAYS)
def test_what_is_missing_is_said(name: str) -> None:
    source, sentences = SAYS[name]
    text = str(modelio.inspect(source))
    for sentence in sentences:
        assert sentence in text


# What is written


def dense() -> GraphModel:
    """As lowering makes them: no saver yet."""
    g = Builder()
    x = g.placeholder("x", "float32", (None, 3))
    kernel = g.variable("dense/kernel", Tensor.of(np.arange(6, dtype="float32").reshape(3, 2)))
    bias = g.variable("dense/bias", Tensor.of(np.array([0.5, -0.5], "float32")))
    g.output("y", g.BiasAdd(g.MatMul(x, kernel), bias))
    return GraphModel(graph=g.graph, variables=g.variables, constants=g.constants)


def test_a_new_model_is_called_model_ckpt() -> None:
    files = write(dense())
    assert sorted(files) == [
        "checkpoint",
        "model.ckpt.data-00000-of-00001",
        "model.ckpt.index",
        "model.ckpt.meta",
    ]
    assert files["checkpoint"] == b'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n'
    assert "save/RestoreV2" in {node.name for node in read(files).graph.node}


@pytest.mark.parametrize("shards", [1, 2, 3, 100])
def test_shards_share_the_bytes(shards: int) -> None:
    values = {f"w{index}": np.full(1000 + index, index, "float32") for index in range(9)}
    model = GraphModel(graph=messages.GraphDef(), variables={name: Tensor.of(value) for name, value in values.items()})
    files = write(model, prefix="run", shards=shards)
    sizes = [len(content) for name, content in sorted(files.items()) if ".data-" in name]
    assert len(sizes) == min(shards, 9)
    assert max(sizes) - min(sizes) < 4100
    assert bits(read(files).variables) == bits(values)


def test_the_meta_file_of_a_new_model_is_known_by_itself() -> None:
    assert checkpoint.sniff(Source.of(write(dense())["model.ckpt.meta"]))


def test_variables_alone_have_no_meta_file() -> None:
    files = write(read(MADE / "v1_sharded"))
    assert not any(name.endswith(".meta") for name in files)
    assert bits(read(files).variables) == bits(read(MADE / "v1_sharded").variables)


REFUSED = {
    "no variables": (lambda: GraphModel(graph=dense().graph), {}, "holds nothing else"),
    "a name with a slash": (dense, {"prefix": "a/b"}, "is no name for a checkpoint"),
    "no name": (dense, {"prefix": ""}, "is no name for a checkpoint"),
    "the name of the note": (dense, {"prefix": "checkpoint"}, "is no name for a checkpoint"),
    "no shard": (dense, {"shards": 0}, "shards=0 is no number of data files"),
    "shards that are no number": (dense, {"shards": "two"}, "shards='two' is no number of data files"),
    "numbers that are elsewhere": (
        lambda: read((V2 / "model.ckpt-2.meta").read_bytes()),
        {},
        "the graph came without its checkpoint",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written(name: str) -> None:
    model, options, sentence = REFUSED[name]
    with pytest.raises(ModelioError, match=sentence):
        write(model(), **options)


def test_variables_without_a_graph_become_no_saved_model() -> None:
    with pytest.raises(WriteError, match=r"no graph, only 17 variables"):
        modelio.convert(MADE / "v1_sharded", to="saved-model")


def test_a_saver_of_before_v2_gets_a_successor() -> None:
    """RestoreSlice reads V1 alone, and what is written is V2."""
    g = Builder()
    g.variable("w", Tensor.of(np.zeros(3, "float32")))
    for name, op in (("save/prefix", "Placeholder"), ("save/restore_slice", "RestoreSlice")):
        g.graph.node.add(name=name, op=op)
    old = messages.SaverDef(filename_tensor_name="save/prefix:0", restore_op_name="save/restore_slice")
    model = GraphModel(graph=g.graph, variables=g.variables, extra={"saver_def": old.SerializeToString()})
    again = read(write(model))
    saver = messages.SaverDef.FromString(again.extra["saver_def"])
    assert saver.restore_op_name == "save_1/restore_all"
    assert "RestoreV2" in {node.op for node in again.graph.node}


def test_to_and_from_a_saved_model(tmp_path: Path) -> None:
    modelio.convert(MADE / "v2_sharded", tmp_path / "export", to="saved-model")
    exported = modelio.read(tmp_path / "export")
    assert exported.tags == {"serve"}
    modelio.convert(tmp_path / "export", tmp_path / "back", to="checkpoint")
    assert bits(modelio.read(tmp_path / "back").variables) == bits(read(MADE / "v2_sharded").variables)


# What TensorFlow makes of it


def reader_values(tf: ModuleType, prefix: Path) -> dict[str, object]:
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@EVERY
def test_tensorflow_reads_the_same_of_what_is_written_again(
    tensorflow: ModuleType, folder: Path, tmp_path: Path
) -> None:
    model = read(folder)
    name = model.meta["checkpoint"]
    write(model, tmp_path / "again", shards=2)
    again = reader_values(tensorflow, tmp_path / "again" / name)
    assert bits(again) == bits(model.variables)
    if model.meta["checkpoint_version"] == "V2":
        assert bits(again) == bits(reader_values(tensorflow, folder / name))
    assert tensorflow.train.latest_checkpoint(str(tmp_path / "again")) == str(tmp_path / "again" / name)


WITH_GRAPH = pytest.mark.parametrize("kind", ["v1", "v2", "v2_sharded"])


@WITH_GRAPH
def test_tensorflow_restores_it_into_its_own_graph(tensorflow: ModuleType, kind: str, tmp_path: Path) -> None:
    """Partitioned variables take their rows and columns out of the whole that was written."""
    v1 = tensorflow.compat.v1
    write(read(MADE / kind), tmp_path / "again")
    prefix = v1.train.latest_checkpoint(str(tmp_path / "again"))

    def restore(session: object) -> None:
        v1.train.import_meta_graph(f"{prefix}.meta").restore(session, prefix)

    check_answer(tensorflow, kind, restore)


@WITH_GRAPH
def test_tensorflow_loads_it_as_a_saved_model(tensorflow: ModuleType, kind: str, tmp_path: Path) -> None:
    modelio.convert(MADE / kind, tmp_path / "export", to="saved-model")

    def load(session: object) -> None:
        tensorflow.compat.v1.saved_model.loader.load(session, ["serve"], str(tmp_path / "export"))

    check_answer(tensorflow, kind, load)


def check_answer(tf: ModuleType, kind: str, restore: Callable[[object], None]) -> None:
    """The graph's answer, with the variables restored, is that of the session's own variables."""
    x = np.arange(14, dtype="float32").reshape(2, 7) / 10
    anywhere = tf.compat.v1.ConfigProto(allow_soft_placement=True)  # one variable was on a second device
    with tf.Graph().as_default(), tf.compat.v1.Session(config=anywhere) as session:
        restore(session)
        answer = session.run("y:0", {"x:0": x})
    values = saved(kind)
    logits = x @ values["net/rows"] @ values["net/columns"] + values["net/bias"]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(answer, exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-5)


def test_tensorflow_restores_a_new_model(tensorflow: ModuleType, tmp_path: Path) -> None:
    v1 = tensorflow.compat.v1
    write(dense(), tmp_path / "new")
    prefix = str(tmp_path / "new" / "model.ckpt")
    with tensorflow.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(f"{prefix}.meta").restore(session, prefix)
        answer = session.run("y:0", {"x:0": np.eye(3, dtype="float32")})
    assert answer.tolist() == [[0.5, 0.5], [2.5, 2.5], [4.5, 4.5]]


def test_objects_are_restored_from_an_object_based_one(tensorflow: ModuleType, tmp_path: Path) -> None:
    tf = tensorflow

    def objects(value: float) -> tf.train.Checkpoint:
        made = tf.Module()
        made.weights = [tf.Variable([value, value]), tf.Variable(int(value), dtype=tf.int64)]
        return tf.train.Checkpoint(model=made, step=tf.Variable(value))

    prefix = objects(7.0).write(str(tmp_path / "objects"))
    model = read(prefix)
    assert set(model.variables) >= {"model/weights/0/.ATTRIBUTES/VARIABLE_VALUE", "step/.ATTRIBUTES/VARIABLE_VALUE"}
    assert messages.TrackableObjectGraph.FromString(model.extra["_CHECKPOINTABLE_OBJECT_GRAPH"]).nodes
    write(model, tmp_path / "again")
    restored = objects(0.0)
    restored.read(str(tmp_path / "again" / "objects")).assert_consumed()
    assert restored.model.weights[0].numpy().tolist() == [7.0, 7.0]
    assert int(restored.model.weights[1]) == int(restored.step) == 7


def test_tensors_that_tensorflow_cut_by_size(tensorflow: ModuleType, tmp_path: Path) -> None:
    """MaxShardSizePolicy (TensorFlow 2.16 and later) spreads one tensor over many files."""
    tf = tensorflow
    policy = tf.train.experimental.MaxShardSizePolicy(max_shard_size=1000)
    values = {"a": np.arange(2000, dtype="float32").reshape(50, 40), "b": np.random.default_rng(0).random((3, 5, 70))}
    made = tf.train.Checkpoint(**{name: tf.Variable(value) for name, value in values.items()})
    prefix = made.write(str(tmp_path / "c"), options=tf.train.CheckpointOptions(experimental_sharding_callback=policy))
    assert len(list(tmp_path.glob("c.data-*"))) > 9
    model = read(prefix)
    for name, value in values.items():
        tensor = model.variables[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"]
        assert tensor.numpy().tobytes() == b"".join(tensor.chunks()) == value.tobytes()
    write(model, tmp_path / "again")
    restored = tf.train.Checkpoint(**{name: tf.Variable(np.zeros_like(value)) for name, value in values.items()})
    restored.read(str(tmp_path / "again" / "c")).assert_consumed()
    assert np.array_equal(restored.b, values["b"])


# Damage


def test_a_changed_byte_is_found_or_changes_nothing() -> None:
    """A byte of V1's only file: every one of them is under a checksum, but for the footer's."""
    content = (V1 / "model.ckpt").read_bytes()
    wanted = bits(saved("v1"))
    refused = 0
    for position in range(len(content)):
        damaged = content[:position] + bytes([content[position] ^ 0x40]) + content[position + 1 :]
        try:
            assert bits(read(damaged).variables) == wanted
        except ReadError:
            refused += 1
    assert refused > len(content) - 48


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_anywhere_is_refused(kind: str) -> None:
    files = members(MADE / kind)
    for name in files:
        if name.endswith((".meta", "checkpoint")) or "ckpt-1." in name:
            continue
        for length in range(0, len(files[name]), 29):
            with pytest.raises(ReadError):
                read({**files, name: files[name][:length]})


def test_entries_of_v1_that_lie_are_refused() -> None:
    """Checksums are right again, and the content is not: read, or refused by name."""
    from modelio.wire.table import read_table, write_table
    from modelio.wire.window import MemoryWindow

    table = read_table(MemoryWindow((V1 / "model.ckpt").read_bytes()))
    refused = 0
    for key, value in table.items():
        for position in range(0, len(value), 3):
            for byte in (0, 0x7F, 0xFF):
                changed = {**table, key: value[:position] + bytes([byte]) + value[position + 1 :]}
                try:
                    model = read(write_table(changed.items()))
                    for name in ("bool", "float64", "int64", "net/rows", "string", "complex64"):
                        if name in model.variables:
                            model.variables[name].numpy()
                except ModelioError:
                    refused += 1
    assert refused
