"""Large constants stay where they are, and come back where they were."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import dataclass, field

import numpy as np
import pytest

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.wire import skim as module
from modelio.wire.dtypes import CUT, dtype_number, numpy_to_tensor, tensor_to_numpy
from modelio.wire.messages import GraphDef, MetaGraphDef, NodeDef, SavedModel, TensorProto, parse, serialize
from modelio.wire.skim import LARGE, content_key, skim, splice
from modelio.wire.window import FileWindow, MemoryWindow

ROWS = LARGE // 4  # float32 elements that are just large


def numbers(count: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).random(count).astype(dtype)


def add_constant(nodes, name: str, value, op: str = "Const"):
    """A Const node, its value an array or a TensorProto."""
    tensor = value if isinstance(value, TensorProto) else numpy_to_tensor(value)
    node = nodes.add(name=name, op=op)
    node.attr["dtype"].type = tensor.dtype
    node.attr["value"].tensor.CopyFrom(tensor)
    return node


def graph_of(*values: tuple[str, object]):
    """Constants, each followed by a node that takes it."""
    graph = GraphDef()
    for name, value in values:
        add_constant(graph.node, name, value)
        graph.node.add(name=f"{name}/read", op="Identity", input=[name]).attr["T"].type = 1
    graph.versions.producer = 27
    return graph


def listed(field_name: str, dtype: str, shape: list[int], values) -> TensorProto:
    tensor = TensorProto(dtype=dtype_number(dtype))
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    getattr(tensor, field_name).extend(values)
    return tensor


def whole(spliced) -> bytes:
    return b"".join(spliced.chunks())


@dataclass
class CountingWindow(MemoryWindow):
    """Remembers how many bytes were read through it, not through its parts."""

    data: bytes
    count: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self):
        super().__init__(self.data)

    def read(self, offset, length):
        self.count[0] += length
        return super().read(offset, length)

    def part(self, offset, length):
        return MemoryWindow(self.data[offset : offset + length])


# ------------------------------------------------------------------------------------------------------- reading


def test_a_large_constant_is_cut_out_and_a_small_one_is_not():
    large, small = numbers(ROWS), numbers(ROWS - 1)
    message, [contents] = skim(GraphDef, MemoryWindow(serialize(graph_of(("large", large), ("small", small)))))
    assert list(contents) == ["large"]
    assert contents["large"].shape == (ROWS,)
    assert contents["large"].dtype == np.dtype("float32")
    assert contents["large"].nbytes == large.nbytes
    np.testing.assert_array_equal(contents["large"].numpy(), large)
    assert b"".join(contents["large"].chunks()) == large.tobytes()
    nodes = {node.name: node for node in message.node}
    np.testing.assert_array_equal(tensor_to_numpy(nodes["small"].attr["value"].tensor), small)
    assert list(nodes) == ["large", "large/read", "small", "small/read"]


def test_what_was_cut_out_keeps_its_type_and_shape_and_cannot_pass_for_zeros():
    message, _ = skim(GraphDef, MemoryWindow(serialize(graph_of(("c", numbers(ROWS * 2).reshape(2, -1))))))
    tensor = message.node[0].attr["value"].tensor
    assert (tensor.dtype, [dim.size for dim in tensor.tensor_shape.dim]) == (1, [2, ROWS])
    assert tensor.version_number == CUT
    with pytest.raises(ReadError, match="left in its file"):
        tensor_to_numpy(tensor)


def test_skimming_reads_no_constant():
    graph = graph_of(*((f"c{index}", numbers(ROWS * 16, index)) for index in range(8)))
    window = CountingWindow(serialize(graph))
    skim(GraphDef, window)
    assert window.size > 8 * 16 * LARGE
    assert window.count[0] < window.size / 10


def test_memory_does_not_grow_with_the_constants(tmp_path):
    path = tmp_path / "graph.pb"
    path.write_bytes(serialize(graph_of(*((f"c{index}", numbers(ROWS * 64, index)) for index in range(8)))))
    assert path.stat().st_size > 32_000_000
    tracemalloc.start()
    try:
        message, contents = skim(GraphDef, FileWindow(str(path)))
        written = sum(len(chunk) for chunk in splice(message, contents).chunks())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert written == path.stat().st_size
    assert peak < 4_000_000


@pytest.mark.parametrize(
    ("field_name", "dtype"),
    [
        ("float_val", "float32"),
        ("double_val", "float64"),
        ("scomplex_val", "complex64"),
        ("dcomplex_val", "complex128"),
    ],
)
def test_lists_of_plain_numbers_are_contents_too(field_name, dtype):
    values = numbers(ROWS, dtype=dtype)
    plain = values.view(values.real.dtype).tolist()
    tensor = listed(field_name, dtype, [ROWS], plain)
    graph = graph_of(("c", tensor))
    message, [contents] = skim(GraphDef, MemoryWindow(serialize(graph)))
    np.testing.assert_array_equal(contents["c"].numpy(), values)
    back = parse(GraphDef, whole(splice(message, [contents])), where=None)
    np.testing.assert_array_equal(tensor_to_numpy(back.node[0].attr["value"].tensor), values)


@pytest.mark.parametrize(
    "value",
    [
        listed("float_val", "float32", [2 * ROWS], [1.0] * ROWS),  # the last one repeats
        listed("int_val", "int32", [ROWS], range(ROWS)),  # varints are no elements
        listed("string_val", "string", [2], [b"x" * LARGE, b"y"]),
        TensorProto(dtype=7, tensor_content=b"\0" * LARGE),
        TensorProto(dtype=1, tensor_content=b"\0" * LARGE),  # does not fill its shape
        TensorProto(dtype=1, tensor_content=b"\0" * LARGE, version_number=1),
        TensorProto(dtype=101, tensor_content=b"\0" * LARGE),
        TensorProto(dtype=999, tensor_content=b"\0" * LARGE),
    ],
    ids=["repeated", "varints", "strings", "string content", "misfit", "version", "reference", "unknown type"],
)
def test_what_is_not_plain_stays_in_the_message(value):
    graph = graph_of(("c", value))
    message, [contents] = skim(GraphDef, MemoryWindow(serialize(graph)))
    assert contents == {}
    assert message == graph


def test_only_constants_are_cut():
    graph = GraphDef()
    add_constant(graph.node, "c", numbers(ROWS), op="MyOp")
    assert skim(GraphDef, MemoryWindow(serialize(graph))) == (graph, [{}])


def test_constants_in_functions_have_keys_of_their_own():
    graph = graph_of(("c", numbers(ROWS, 1)))
    function = graph.library.function.add()
    function.signature.name = "body"
    add_constant(function.node_def, "c", numbers(ROWS, 2))
    data = serialize(graph)
    message, [contents] = skim(GraphDef, MemoryWindow(data))
    assert sorted(contents) == ["body:c", "c"]
    np.testing.assert_array_equal(contents[content_key("c", "body")].numpy(), numbers(ROWS, 2))
    assert whole(splice(message, [contents])) == data


def saved_model():
    saved = SavedModel(saved_model_schema_version=1)
    saved.meta_graphs.add().meta_info_def.tags.append("empty")
    for seed, tag in enumerate(("serve", "train")):
        meta = saved.meta_graphs.add()
        meta.meta_info_def.tags.append(tag)
        meta.graph_def.CopyFrom(graph_of(("c", numbers(ROWS, seed))))
    return saved


def test_a_saved_model_has_contents_for_each_of_its_graphs():
    data = serialize(saved_model())
    message, contents = skim(SavedModel, MemoryWindow(data))
    assert [list(one) for one in contents] == [[], ["c"], ["c"]]
    np.testing.assert_array_equal(contents[2]["c"].numpy(), numbers(ROWS, 1))
    assert message.meta_graphs[1].meta_info_def.tags == ["serve"]
    assert whole(splice(message, contents)) == data


def test_a_meta_graph():
    data = serialize(saved_model().meta_graphs[1])
    message, contents = skim(MetaGraphDef, MemoryWindow(data))
    assert list(contents[0]) == ["c"]
    assert whole(splice(message, contents)) == data


def test_unknown_fields_survive():
    data = bytearray(serialize(graph_of(("c", numbers(ROWS)))))
    data += b"\xfa\x3f\x03new"
    message, contents = skim(GraphDef, MemoryWindow(data))
    assert whole(splice(message, contents)) == data


# ------------------------------------------------------------------------------------------------------- writing


def test_splicing_writes_what_protobuf_writes():
    graph = graph_of(("a", numbers(ROWS)), ("b", numbers(3)), ("c", numbers(ROWS * 3).reshape(3, ROWS)))
    data = serialize(graph)
    message, contents = skim(GraphDef, MemoryWindow(data))
    spliced = splice(message, contents)
    assert spliced.nbytes == len(data)
    assert whole(spliced) == data
    assert whole(spliced) == data  # again


@dataclass
class Value:
    """A value that somebody made."""

    data: bytes
    announced: int | None = None

    @property
    def nbytes(self):
        return len(self.data) if self.announced is None else self.announced

    def chunks(self):
        yield self.data[:2]
        yield self.data[2:]


def test_a_value_of_any_size_may_be_put_in_or_replaced():
    array = np.array([1, 2, 3], "int32")
    graph = GraphDef()
    for tensor in (numpy_to_tensor(array[:0]), numpy_to_tensor(array * 2), listed("int_val", "int32", [3], [4])):
        add_constant(graph.node, f"n{len(graph.node)}", tensor)
    graph.node[0].attr["value"].tensor.tensor_shape.dim[0].size = 3
    expected = GraphDef()
    for index in range(3):
        add_constant(expected.node, f"n{index}", array)
    contents = {f"n{index}": Value(array.tobytes()) for index in range(3)}
    assert whole(splice(graph, [contents])) == serialize(expected)


def test_a_value_without_a_node_is_left_out():
    graph = graph_of(("c", numbers(3)))
    assert whole(splice(graph, [{"pruned": Value(b"1234")}])) == serialize(graph)


def test_an_empty_value():
    graph = graph_of(("c", np.zeros((0, 3), "float32")))
    assert whole(splice(graph, [{"c": Value(b"")}])) == serialize(graph)


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ([{}], "left in its file, and the model does not hold it"),
        ([], "left in its file, and the model does not hold it"),
        ([{"c": Value(b"1234")}], "4 bytes are no value of this node's type and shape"),
        ([{"c/read": Value(b"1234"), "c": Value(b"x" * LARGE)}], "it is no constant"),
    ],
)
def test_a_value_that_is_missing_or_does_not_fit(contents, reason):
    message, _ = skim(GraphDef, MemoryWindow(serialize(graph_of(("c", numbers(ROWS))))))
    with pytest.raises(WriteError, match=reason):
        splice(message, contents)


def test_a_value_that_is_shorter_than_it_said():
    message, _ = skim(GraphDef, MemoryWindow(serialize(graph_of(("c", numbers(ROWS))))))
    with pytest.raises(WriteError, match="a value gave 10 bytes where it had announced 65,536"):
        whole(splice(message, [{"c": Value(b"x" * 10, LARGE)}]))


def test_more_than_two_gibibytes_are_refused_before_they_are_written():
    graph = graph_of(("c", numbers(3)))
    graph.node[0].attr["value"].tensor.tensor_shape.dim[0].size = 2**29
    with pytest.raises(WriteError, match="no protobuf message may take more than 2 GiB"):
        splice(graph, [{"c": Value(b"", 2**31)}])


# --------------------------------------------------------------------------------------------------- hostile bytes


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x0a\x05\x0a\x01x", "a field of 5 bytes runs past the end of its message at byte 0"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "runs past the end"),
        (b"\x0a" + b"\xff" * 11, "cut short or damaged at byte 0"),
        (b"\x0a", "cut short or damaged at byte 0"),
        (b"\x22\x02\x08\x01\x0b\x0c", "no field that TensorFlow writes begins at byte 4"),  # a group
        (b"\x0f", "no field that TensorFlow writes begins"),  # wire type 7
        (b"\x02\x00", "no field that TensorFlow writes begins"),  # field 0
        (b"\x25\x00", "runs past the end"),  # four bytes wanted
        (b"text\n", "byte 0"),
        (b"\x0a\x02\x0a\x05", "not a GraphDef"),
    ],
    ids=repr,
)
def test_broken_wire_format_is_a_read_error_that_says_where(data, reason):
    with pytest.raises(ReadError, match=reason) as caught:
        skim(GraphDef, MemoryWindow(data), where="graph.pb")
    assert caught.value.where == "graph.pb"


def test_a_large_file_cut_short_is_a_read_error():
    data = serialize(graph_of(("c", numbers(ROWS))))
    for end in (LARGE, 200, 30):
        with pytest.raises(ReadError):
            skim(GraphDef, MemoryWindow(data[:end]))


def test_millions_of_empty_nodes_are_refused(monkeypatch):
    monkeypatch.setattr(module, "_MANY", 1000)
    with pytest.raises(UnsafeInput, match="more than 1,000 fields"):
        skim(GraphDef, MemoryWindow(b"\x0a\x00" * 1001))


def test_two_nodes_of_one_name_lose_nothing():
    graph = graph_of(("c", numbers(ROWS, 1)), ("c", numbers(ROWS, 2)))
    message, [contents] = skim(GraphDef, MemoryWindow(serialize(graph)))
    np.testing.assert_array_equal(contents["c"].numpy(), numbers(ROWS, 1))
    np.testing.assert_array_equal(tensor_to_numpy(message.node[2].attr["value"].tensor), numbers(ROWS, 2))


def test_any_damage_is_refused_or_read_as_protobuf_reads_it(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 64)
    graph = graph_of(("a", numbers(20)), ("b", numbers(30)))
    function = graph.library.function.add()
    function.signature.name = "body"
    add_constant(function.node_def, "c", numbers(40))
    data = serialize(graph)
    dice = random.Random(20170808)
    read = cut = 0
    for _ in range(3000):
        damaged = bytearray(data)
        for _ in range(dice.choice((1, 1, 2))):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            message, [contents] = skim(GraphDef, MemoryWindow(damaged))
        except ReadError:
            continue
        plain = parse(GraphDef, damaged, where=None)
        read += 1
        if len({node.name for node in plain.node}) < len(plain.node):
            continue
        again = parse(GraphDef, whole(splice(message, [contents])), where=None)
        cut += len(contents)
        assert values(again) == values(plain)
    assert read > 500
    assert cut > 1000


def values(graph) -> dict:
    """Nodes without their values, and the values as arrays: content and list are the same thing."""
    result = {}
    for node in [*graph.node, *(node for function in graph.library.function for node in function.node_def)]:
        rest = NodeDef()
        rest.CopyFrom(node)
        tensor = rest.attr["value"].tensor
        try:
            array = tensor_to_numpy(tensor).tobytes()
        except ReadError:
            array = None
        if array is not None:
            tensor.ClearField("tensor_content")
            tensor.ClearField("float_val")
        result[len(result)] = (serialize(rest), array)
    return result
