"""Frozen graphs: every one that eleven versions of TensorFlow wrote, those of other projects, and what is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelio.errors import ReadError, WriteError
from modelio.formats.frozen_graph import FORMAT, read, sniff, write
from modelio.model import GraphModel, LayerModel, Tensor, TensorSpec
from modelio.sink import Sink
from modelio.source import Source
from modelio.wire.dtypes import numpy_to_tensor, tensor_to_numpy
from modelio.wire.messages import GraphDef, NodeDef, TensorProto, parse, parse_text, serialize
from modelio.wire.skim import LARGE
from modelio.wire.varint import encode_varint
from tests.corpus import cases, corpus, data, record, strays, wild


def written(model, **options) -> bytes:
    with Sink.open(None, shape="blob") as sink:
        write(model, sink, **options)
        return sink.commit()


def graph_def(path: Path):
    """The file's GraphDef as protobuf alone reads it."""
    content = path.read_bytes()
    return parse_text(GraphDef, content) if content[:1] != b"\n" else parse(GraphDef, content, where=None)


def same(one: GraphModel, other: GraphModel) -> bool:
    assert one.graph == other.graph
    assert one.signatures == other.signatures
    assert one.meta == other.meta
    assert list(one.constants) == list(other.constants)
    for name, tensor in one.constants.items():
        np.testing.assert_array_equal(tensor.numpy(), other.constants[name].numpy())
    return True


# ----------------------------------------------------------------------------------------------- files of the corpus


@pytest.mark.parametrize("case", cases(file="frozen.pb"))
def test_the_signature_is_what_the_framework_froze(case):
    noted = record(case)
    source = Source.of(case / "frozen.pb")
    assert sniff(source)
    model = read(source)
    signature = model.signatures["graph"]
    inputs = noted.get("frozen_placeholders") or [name.removesuffix(":0") for name in noted["frozen_inputs"]]
    assert set(signature.inputs) == set(inputs)
    assert [spec.tensor for spec in signature.outputs.values()] == noted["frozen_outputs"]
    assert all(f"{key}:0" == spec.tensor for key, spec in signature.outputs.items())
    assert not model.variables
    assert "variables" not in model.meta


@pytest.mark.parametrize("case", cases(file="frozen.pb"))
def test_what_is_read_is_written_and_read_again(case):
    model = read(Source.of(case / "frozen.pb"))
    binary = written(model)
    assert binary == serialize(graph_def(case / "frozen.pb"))
    assert same(read(Source.of(binary)), model)
    assert same(read(Source.of(written(model, text=True))), model)


@pytest.mark.parametrize("case", cases(file="graph.pbtxt"))
def test_a_graph_as_text_that_was_not_frozen(case):
    source = Source.of(case / "graph.pbtxt")
    assert sniff(source)
    model = read(source)
    assert len(model.graph.node) > 500
    assert "none of their values in this file" in model.meta["variables"]
    assert same(read(Source.of(written(model))), model)
    assert same(read(Source.of(written(model, text=True))), model)


@pytest.mark.parametrize("stray", strays(kind="GraphDef*"))
def test_graphs_of_other_projects(stray):
    source = Source.of(stray.path)
    assert sniff(source)
    model = read(source)
    assert len(model.signatures["graph"].outputs) > 0
    assert ("variables" in model.meta) == ("not frozen" in stray.kind)
    plain = graph_def(stray.path)
    assert [node.name for node in model.graph.node] == [node.name for node in plain.node]
    for node in plain.node:
        if node.name in model.constants:
            expected = tensor_to_numpy(node.attr["value"].tensor)
            np.testing.assert_array_equal(model.constants[node.name].numpy(), expected)
    assert written(model) == serialize(plain)


def test_nothing_else_is_claimed():
    graphs = [stray.name for stray in strays(kind="GraphDef*")]
    for root in filter(None, (data(), corpus(), wild())):
        expected = {*root.rglob("*frozen*.pb"), *root.rglob("graph.pbtxt")}
        expected |= {path for name in graphs for path in (root / name, root / "wild" / name) if path.exists()}
        claimed = {path for path in root.rglob("*") if path.is_file() and sniff(Source.of(path))}
        assert claimed == expected


# -------------------------------------------------------------------------------------------------------- sniffing

NODE = b"\x0a\x08\x0a\x01x\x12\x03Abs"


@pytest.mark.parametrize(
    "content",
    [
        NODE,
        b"\x0a\x0b\x0a\x01x\x12\x03Abs\x1a\x01y",
        b"\x22\x03\x08\xb1\x10",  # versions alone
        b"\x12\x0b\x0a\x09\x0a\x07\x0a\x01f\x12\x02\x0a\x00" + b"\x22\x02\x08\x15",  # a library alone
        b'node {\n  name: "x"\n  op: "Abs"\n}\n',
        b"\xef\xbb\xbf# made by hand\n\nnode{name:'x' op:'Abs'}",
        b'node: <\n  op: "Abs" name: "x" >',
        b"versions {\n  producer: 24\n}\nnode { name: 'x' op: 'Abs' }",
        b"library {\n  function {\n  }\n}\n",
    ],
    ids=repr,
)
def test_a_graph_is_told_by_its_first_field(content):
    assert sniff(Source.of(content))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "nothing"),
        (b"\x0a", "one byte"),
        (b"\x08\x01\x12\x05\x12\x03\x0a\x01x", "a SavedModel"),
        (b"\x0a\x07\x22\x05serve\x12\x0a" + NODE, "a MetaGraphDef"),
        (b"\x0a\x10\x0a\x031.0\x12\x09\x0a\x07\x0a\x03Abs\x12\x00", "a MetaGraphDef with a version"),
        (b"\x0a\x0b\x1a\x04root\x22\x03net", "keras_metadata.pb"),
        (b"\x0a\x0d\x10\x01\x1a\x04root\x22\x03net", "keras_metadata.pb"),
        (b"\x08\xe8\x07\x12\x03abc", "a fingerprint"),
        (b"\x1c\x00\x00\x00TFL3\x14\x00", "TFLite"),
        (b"\x0a\x0c\x0a\x0a\x0a\x01x\x12\x05\x0a\x03\x0a\x01y", "a tf.Example"),
        (b"\x0a\x08\x0a\x01x\x12\x03A b", "an op with a space"),
        (b"\x0a\x7f\x0a\x01x\x12\x03Abs", "a node longer than the file"),
        (b"\n# text\nthat starts with a line feed", "text"),
        (b"saved_model_schema_version: 1\nmeta_graphs {\n  graph_def { node {\n op: 'x' } } }", "saved_model.pbtxt"),
        (b"meta_info_def { }\ngraph_def { node { op: 'x' } }", "a MetaGraphDef as text"),
        (b'node {\n  calculator: "PassThrough"\n}', "a MediaPipe graph"),
        (b"nodes are fine: node { }", "prose"),
        (b"PK\x03\x04", "a zip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_graph(content, what):
    assert not sniff(Source.of(content)), what


def test_a_directory_is_none():
    assert not sniff(Source.of({"frozen.pb": NODE}))


# --------------------------------------------------------------------------------------------------- the signature


def graph_of(text: str) -> GraphModel:
    return read(Source.of(text.encode()))


FLOAT = 'attr { key: "%s" value { type: DT_FLOAT } }'
X = f'node {{ name: "x" op: "Placeholder" {FLOAT % "dtype"} attr {{ key: "shape" value {{ shape {{ dim {{ size: -1 }} dim {{ size: 4 }} }} }} }} }}'


def test_placeholders_go_in_and_what_nobody_consumes_comes_out():
    model = graph_of(f"""{X}
        node {{ name: "y" op: "Relu" input: "x" {FLOAT % "T"} }}
        node {{ name: "z" op: "Abs" input: "y" {FLOAT % "T"} }}
        node {{ name: "left/over" op: "Const" {FLOAT % "dtype"} }}
        node {{ name: "unused" op: "Placeholder" {FLOAT % "dtype"} }}
        node {{ name: "done" op: "NoOp" input: "^y" }}
        versions {{ producer: 27 }}""")
    signature = model.signatures["graph"]
    assert signature.inputs == {"x": TensorSpec("x:0", "float32", (None, 4))}
    assert signature.outputs == {"z": TensorSpec("z:0", "float32", None)}
    assert model.meta == {"graph_def_version": "27"}


def test_a_placeholder_with_a_default_is_an_input():
    model = graph_of(f"""{X}
        node {{ name: "one" op: "Const" {FLOAT % "dtype"} }}
        node {{ name: "rate" op: "PlaceholderWithDefault" input: "one" {FLOAT % "dtype"} }}
        node {{ name: "z" op: "Mul" input: "x" input: "rate" {FLOAT % "T"} }}""")
    assert set(model.signatures["graph"].inputs) == {"x", "rate"}


def test_several_outputs_of_one_node_and_their_noted_shapes():
    model = graph_of(f"""{X}
        node {{ name: "axis" op: "Const" attr {{ key: "dtype" value {{ type: DT_INT32 }} }} }}
        node {{ name: "halves" op: "Split" input: "axis" input: "x" {FLOAT % "T"}
          attr {{ key: "num_split" value {{ i: 2 }} }}
          attr {{ key: "_output_shapes" value {{ list {{
            shape {{ dim {{ size: -1 }} dim {{ size: 2 }} }} shape {{ unknown_rank: true }} }} }} }} }}
        node {{ name: "ours" op: "NobodysOp" input: "x" }}""")
    assert model.signatures["graph"].outputs == {
        "halves": TensorSpec("halves:0", "float32", (None, 2)),
        "halves:1": TensorSpec("halves:1", "float32", None),
        "ours": TensorSpec("ours:0", "unknown", None),
    }


# ------------------------------------------------------------------------------------------------- large constants


def model_of(*values: tuple[str, np.ndarray]) -> GraphModel:
    graph = GraphDef()
    for name, value in values:
        node = graph.node.add(name=name, op="Const")
        node.attr["dtype"].type = 1
        node.attr["value"].tensor.CopyFrom(numpy_to_tensor(value))
        graph.node.add(name=f"{name}/out", op="Identity", input=[name]).attr["T"].type = 1
    return GraphModel(graph)


def test_a_large_constant_is_a_lazy_tensor(tmp_path):
    values = np.random.default_rng(0).random((3, LARGE), "float32")
    path = tmp_path / "graph.pb"
    path.write_bytes(written(model_of(("kernel", values), ("bias", values[0, :3]))))
    model = read(Source.of(path))
    assert repr(model.constants) == f"{{'kernel': Tensor(float32, (3, {LARGE}))}}"
    np.testing.assert_array_equal(model.constants["kernel"].numpy(), values)
    assert written(model) == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ReadError, match="changed after the model was opened"):
        model.constants["kernel"].numpy()


def test_text_holds_large_constants_too():
    values = np.arange(LARGE, dtype="float32")
    model = read(Source.of(written(model_of(("kernel", values)))))
    text = written(model, text=True)
    assert text.startswith(b'node {\n  name: "kernel"\n  op: "Const"\n')
    np.testing.assert_array_equal(read(Source.of(text)).constants["kernel"].numpy(), values)


def test_a_constant_may_come_from_anywhere():
    model = model_of(("kernel", np.zeros(4, "float32")))
    model.constants = {"kernel": Tensor.of(np.arange(4, dtype="float32"))}
    graph = parse(GraphDef, written(model), where=None)
    assert tensor_to_numpy(graph.node[0].attr["value"].tensor).tolist() == [0, 1, 2, 3]


def hollow(path: Path, names: list[str], elements: int) -> None:
    """A graph of constants whose contents are holes in the file: all zero, and they take no room on the disk."""

    def field(number: int, length: int) -> bytes:
        return encode_varint(number << 3 | 2) + encode_varint(length)

    content = 4 * elements
    with open(path, "wb") as file:
        for name in names:
            shape = {"dim": [{"size": elements}]}
            tensor = TensorProto(dtype=1, tensor_shape=shape).SerializeToString() + field(4, content)
            value = field(8, len(tensor) + content) + tensor
            entry = field(1, 5) + b"value" + field(2, len(value) + content) + value
            node = NodeDef(name=name, op="Const", attr={"dtype": {"type": 1}}).SerializeToString()
            node += field(5, len(entry) + content) + entry
            file.write(field(1, len(node) + content) + node)
            file.seek(content, 1)
        file.write(GraphDef(versions={"producer": 27}).SerializeToString())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_a_file_that_protobuf_cannot_hold_is_read_without_its_constants(tmp_path, python):
    """Three gigabytes, of which nothing is read but the names; one of them is had when it is asked for."""
    hollow(tmp_path / "graph.pb", ["a", "b", "c"], 1 << 28)
    assert (tmp_path / "graph.pb").stat().st_size > 3 << 30
    told = python(
        """
        import modelio, sys
        model = modelio.read(sys.argv[1])
        assert modelio.inspect(model).weights.parameters == 3 << 28
        assert bytes(next(model.constants["b"].chunks())[:4]) == bytes(4)
        status = dict(line.split(":") for line in open("/proc/self/status"))
        print(int(status["VmHWM"].split()[0]) >> 10)
        """,
        tmp_path / "graph.pb",
    )
    assert int(told) < 80
    model = read(Source.of(tmp_path / "graph.pb"))
    assert [node.name for node in model.graph.node] == ["a", "b", "c"]
    with pytest.raises(WriteError, match="more than 2 GiB"):
        written(model)


def test_a_large_constant_inside_a_function():
    graph = GraphDef()
    graph.node.add(name="y", op="f")
    function = graph.library.function.add(signature={"name": "f", "output_arg": [{"name": "o", "type": 1}]})
    values = np.arange(LARGE, dtype="float32")
    node = function.node_def.add(name="kernel", op="Const")
    node.attr["dtype"].type = 1
    node.attr["value"].tensor.CopyFrom(numpy_to_tensor(values))
    function.ret["o"] = "kernel:output:0"
    model = read(Source.of(serialize(graph)))
    assert list(model.constants) == ["f:kernel"]
    np.testing.assert_array_equal(model.constants["f:kernel"].numpy(), values)
    assert written(model) == serialize(graph)


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "there is no node in it"),
        (NODE[:-1], "runs past the end"),
        (b"#!/bin/sh\necho this is no graph\n", "byte 0"),
        (b"\x08\x01", "there is no node in it"),
        (b'node { name: "x" op: "Abs" colour: "red" }', 'no field named "colour"'),
        (b'node { name: "x" op: "Abs" input: "gone" }', "'gone' names no node of this graph"),
        (b'node { name: "x" op: "Abs" input: "x" }', "waits for itself"),
        (NODE + NODE, "two nodes have this name"),
    ],
    ids=repr,
)
def test_broken_files_are_read_errors(content, reason):
    with pytest.raises(ReadError, match=reason):
        read(Source.of(content))


def test_nested_ten_thousand_deep():
    inside = b""
    for _ in range(10_000):
        size, length = b"", len(inside)
        while length > 0x7F:
            size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
        inside = b"\x12" + size + bytes([length]) + inside
    size = bytes([len(inside) & 0x7F | 0x80, len(inside) >> 7 & 0x7F | 0x80, len(inside) >> 14])
    with pytest.raises(ReadError):
        read(Source.of(b"\x3a" + size + inside))
    with pytest.raises(ReadError):
        read(Source.of(b"node { name: 'x' op: 'Abs' experimental_type " + b"{ args " * 10_000))


def test_a_directory_is_refused():
    with pytest.raises(ReadError, match="is one file"):
        read(Source.of({"graph.pb": NODE}))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (GraphModel(GraphDef(), variables={"w": Tensor.of(np.zeros(1))}), "1 variables, .* convert.. freezes it"),
        (LayerModel(None, {}, "keras3"), "these are layers; convert.. lowers"),
    ],
    ids=["variables", "layers"],
)
def test_what_it_does_not_hold(model, reason):
    with pytest.raises(WriteError, match=reason):
        written(model)


def test_beyond_two_gibibytes():
    model = model_of(("kernel", np.zeros(1, "float32")))
    model.graph.node[0].attr["value"].tensor.tensor_shape.dim[0].size = 2**29
    model.constants = {"kernel": Tensor("float32", (2**29,), lambda: np.zeros(2**29, "float32"))}
    with pytest.raises(WriteError, match="more than 2 GiB: keep the weights beside the graph"):
        written(model)


def test_text_does_not_lose_unknown_fields():
    model = read(Source.of(NODE + b"\xfa\x3f\x03new"))
    assert written(model) == NODE + b"\xfa\x3f\x03new"
    with pytest.raises(WriteError, match="fields that modelio does not know"):
        written(model, text=True)


def test_the_record():
    assert (FORMAT.name, FORMAT.level, FORMAT.shape, FORMAT.suffixes) == (
        "frozen-graph",
        "frozen",
        "blob",
        (".pb", ".pbtxt"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(file="frozen.pb", version="keras-*"))
def test_tensorflow_imports_what_was_written(case):
    tf = pytest.importorskip("tensorflow")
    graph = tf.compat.v1.GraphDef.FromString(written(read(Source.of(case / "frozen.pb"))))
    with tf.Graph().as_default():
        tf.import_graph_def(graph, name="")
