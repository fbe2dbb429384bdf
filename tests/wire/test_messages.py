"""The messages: TensorFlow's numbers, what survives, what is refused, and peace with an imported TensorFlow."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelio.errors import ReadError, WriteError
from modelio.wire import messages
from modelio.wire.messages import GraphDef, NodeDef, SavedModel, parse, parse_text, serialize, to_text

NODE = bytes.fromhex("0a01781203416273")  # 1: "x", 2: "Abs"
GRAPH = b"\x0a\x08" + NODE
UNKNOWN = b"\xfa\x3f\x03new"  # field 1023, a string: no message of TensorFlow has it

# Field numbers as tensorflow/core/{framework,protobuf}/*.proto give them.
NUMBERS = {
    "NodeDef": {"name": 1, "op": 2, "input": 3, "device": 4, "attr": 5},
    "GraphDef": {"node": 1, "library": 2, "version": 3, "versions": 4, "debug_info": 5},
    "AttrValue": {"list": 1, "s": 2, "i": 3, "f": 4, "b": 5, "type": 6, "shape": 7, "tensor": 8, "func": 10},
    "TensorProto": {"dtype": 1, "tensor_shape": 2, "tensor_content": 4, "float_val": 5, "half_val": 13},
    "SavedModel": {"saved_model_schema_version": 1, "meta_graphs": 2},
    "MetaGraphDef": {"meta_info_def": 1, "graph_def": 2, "saver_def": 3, "signature_def": 5, "object_graph_def": 7},
    "BundleEntryProto": {"dtype": 1, "shape": 2, "shard_id": 3, "offset": 4, "size": 5, "crc32c": 6, "slices": 7},
}


@pytest.mark.parametrize("name", NUMBERS)
def test_fields_have_tensorflows_numbers(name):
    fields = {field.name: field.number for field in getattr(messages, name).DESCRIPTOR.fields}
    assert {key: fields[key] for key in NUMBERS[name]} == NUMBERS[name]


def test_bytes_become_a_message_and_the_same_bytes_again():
    graph = parse(GraphDef, GRAPH, where=None)
    assert (graph.node[0].name, graph.node[0].op) == ("x", "Abs")
    assert serialize(graph) == GRAPH


def test_views_are_parsed_as_well():
    assert parse(GraphDef, memoryview(GRAPH), where=None) == parse(GraphDef, bytearray(GRAPH), where=None)


def test_unknown_fields_survive_wherever_they_are():
    data = b"\x0a\x0e" + NODE + UNKNOWN + UNKNOWN
    assert serialize(parse(GraphDef, data, where=None)) == data


def test_an_enum_value_newer_than_this_file_survives():
    data = bytes.fromhex("08e707")  # TensorProto.dtype = 999
    assert serialize(parse(messages.TensorProto, data, where=None)) == data


def test_the_same_node_has_the_same_bytes_whatever_the_order_of_its_attributes():
    nodes = []
    for order in (("T", "a", "strides"), ("strides", "T", "a")):
        node = NodeDef(name="n", op="Op")
        for key in order:
            node.attr[key].i = 1
        nodes.append(serialize(node))
    assert nodes[0] == nodes[1]


def test_an_enum_is_asked_by_name_and_by_number():
    assert messages.DataType.Value("DT_BFLOAT16") == 14
    assert messages.DataType.Name(101) == "DT_FLOAT_REF"


def test_a_name_that_is_no_message():
    with pytest.raises(AttributeError, match="NoSuchDef"):
        _ = messages.NoSuchDef


def nested(levels: int) -> bytes:
    """A NodeDef whose experimental_type (7) holds args (2) that hold args."""
    inside = b""
    for tag in [0x12] * (levels - 1) + [0x3A]:
        length, size = len(inside), b""
        while length > 0x7F:
            size += bytes([length & 0x7F | 0x80])
            length >>= 7
        inside = bytes([tag]) + size + bytes([length]) + inside
    return inside


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (GRAPH[:-1], "cut short"),
        (b"\x0a\xff\xff\xff\xff\x0f", "a length beyond the end"),
        (b"\x0a" + b"\xff" * 12, "a length that never ends"),
        (b"#!/bin/sh\n", "text"),
        (b"\x0a\x03\x0a\x01\xff", "a name that is no UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_bytes_are_a_read_error_with_the_place(data, what):
    with pytest.raises(ReadError, match="not a GraphDef: damaged, cut short, or of another kind") as caught:
        parse(GraphDef, data, where="saved_model.pb")
    assert caught.value.where == "saved_model.pb"


def test_a_message_of_ten_thousand_levels_is_refused():
    assert parse(NodeDef, nested(50), where=None).HasField("experimental_type")
    with pytest.raises(ReadError):
        parse(NodeDef, nested(10_000), where=None)


def test_more_than_two_gibibytes_are_refused_before_they_are_written(monkeypatch):
    monkeypatch.setattr(messages, "_LIMIT", 5)
    with pytest.raises(WriteError, match="larger than 2 GiB"):
        serialize(parse(GraphDef, GRAPH, where=None))


# ---------------------------------------------------------------------------------------------------- text format

TEXT = """
# written by hand
node {
  name: "c"
  op: "Const"
  attr { key: "dtype" value { type: DT_FLOAT } }
  attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape { } float_val: 0.1 } } }
}
versions { producer: 27 }
"""


def test_text_becomes_a_message_and_text_again():
    graph = parse_text(GraphDef, TEXT)
    assert graph.node[0].attr["dtype"].type == 1
    assert graph.versions.producer == 27
    assert parse_text(GraphDef, to_text(graph)) == graph
    assert parse_text(GraphDef, to_text(graph).encode()) == graph


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("node { nmae: 'x' }", 'has no field named "nmae"'),
        ("node { attr { key: 'T' value { type: DT_FLOAT99 } } }", "no value named DT_FLOAT99"),
        ("node { name: 'x'", 'Expected "}"'),
        ("versions { producer: many }", "parse integer: many"),
        (b"node { name: '\xff' }", "no UTF-8 at byte 14"),
        ("node { experimental_type " + "{ args " * 10_000, "GraphDef"),
    ],
)
def test_text_that_is_wrong_says_where(text, reason):
    with pytest.raises(ReadError) as caught:
        parse_text(GraphDef, text, where="graph.pbtxt")
    assert reason in caught.value.reason
    assert "\n" not in caught.value.reason
    assert caught.value.where == "graph.pbtxt"


def test_unknown_fields_are_not_lost_in_text():
    with pytest.raises(WriteError, match="fields that modelio does not know"):
        to_text(parse(GraphDef, GRAPH + UNKNOWN, where=None))


def test_an_any_value_is_written_and_read_by_its_type():
    text = """meta_graphs { meta_info_def { any_info {
        [type.googleapis.com/tensorflow.VersionDef] { producer: 3 } } } }"""
    saved = parse_text(SavedModel, text)
    assert saved.meta_graphs[0].meta_info_def.any_info.value == b"\x08\x03"
    assert parse_text(SavedModel, to_text(saved)) == saved


# ------------------------------------------------------------------------------------------------- what is around

ROOT = Path(messages.__file__).parent.parent.parent


@pytest.mark.skipif(
    not (shutil.which("protoc") or importlib.util.find_spec("grpc_tools")) or not (ROOT / "tools").is_dir(),
    reason="protoc is not installed",
)
def test_the_descriptor_set_is_in_step_with_the_proto():
    subprocess.run([sys.executable, ROOT / "tools" / "compile_proto.py", "--check"], check=True)


OURS = "from modelio.wire import messages; messages.GraphDef, messages.SavedModel"
THEIRS = "from tensorflow.core.protobuf import saved_model_pb2"


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("tensorflow"), reason="TensorFlow is not installed")
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_tensorflow_may_be_imported_before_and_after(first):
    imports = [OURS, THEIRS] if first == "ours" else [THEIRS, OURS]
    check = "\n".join(
        [
            *imports,
            "one = messages.SavedModel(saved_model_schema_version=1)",
            "one.meta_graphs.add().graph_def.node.add(name='x', op='Abs')",
            "other = saved_model_pb2.SavedModel.FromString(messages.serialize(one))",
            "assert other.meta_graphs[0].graph_def.node[0].op == 'Abs'",
            "assert type(other) is not messages.SavedModel",
        ]
    )
    subprocess.run([sys.executable, "-c", check], check=True, env={"PYTHONPATH": str(ROOT)}, capture_output=True)


@pytest.mark.slow
def test_every_field_is_as_in_the_installed_tensorflow():
    pytest.importorskip("tensorflow")
    import google.protobuf.descriptor_pool as descriptor_pool
    import tensorflow.core.protobuf.fingerprint_pb2
    import tensorflow.core.protobuf.saved_model_pb2
    import tensorflow.core.protobuf.tensor_bundle_pb2
    import tensorflow.core.util.saved_tensor_slice_pb2  # noqa: F401

    theirs = descriptor_pool.Default()
    ours = GraphDef.DESCRIPTOR.file
    renamed = {"SavedMetadata", "KerasObject"}
    for name, message in ours.message_types_by_name.items():
        if name not in renamed:
            expected = theirs.FindMessageTypeByName(f"tensorflow.{name}")
            assert described(message) == described(expected), name
    for name, enum in ours.enum_types_by_name.items():
        expected = theirs.FindEnumTypeByName(f"tensorflow.{name}")
        assert {v.name: v.number for v in enum.values} == {v.name: v.number for v in expected.values}, name


def described(message) -> dict:
    fields = {
        field.name: (field.number, field.type, field.message_type and field.message_type.full_name)
        for field in message.fields
    }
    return fields | {inner.name: described(inner) for inner in message.nested_types}
