"""Bundles: the real ones give TensorFlow's bytes back, the broken ones are refused, and what is lazy stays so."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from modelio.errors import ModelioError, ReadError, UnsafeInput, WriteError
from modelio.model import Tensor
from modelio.source import Source
from modelio.wire import messages
from modelio.wire.bundle import Bundle, BundleWriter, shard_suffix
from modelio.wire.table import read_table, write_table
from modelio.wire.window import CHUNK, MemoryWindow, Window
from tests.corpus import case, cases, strays

INDEXES = sorted(
    [path for one in cases() for path in one.path.rglob("*.index")]
    + [path for stray in strays(kind="SavedModel*") for path in stray.path.rglob("*.index") if stray.path.is_dir()]
)


def bundle(files: Mapping[str, object], prefix: str = "v") -> Bundle:
    tree = Source.of(files).tree
    assert tree is not None
    return Bundle(tree, prefix)


def beside(index: Path) -> Bundle:
    tree = Source.of(index.parent).tree
    assert tree is not None
    return Bundle(tree, index.stem)


def tensors(source: Bundle) -> dict[str, Tensor]:
    """The tensors in the order of their bytes."""
    order = sorted(source.entries, key=lambda name: (source.entries[name].offset, source.entries[name].size))
    return {
        name: Tensor(
            source.entries[name].dtype,
            source.entries[name].shape,
            partial(source.load, name),
            None if source.entries[name].dtype == object else partial(source.stream, name),
        )
        for name in order
    }


def written(values: Mapping[str, Any]) -> dict[str, bytes]:
    data = io.BytesIO()
    writer = BundleWriter(data)
    for name, value in values.items():
        writer.add(name, value if isinstance(value, Tensor) else Tensor.of(value))
    return {"v.index": writer.finish(), "v" + shard_suffix(0, 1): data.getvalue()}


def changed(files: Mapping[str, bytes], key: str, **fields: Any) -> dict[str, bytes]:
    """The files with one entry of the index (``""``: the header) changed."""
    table = read_table(MemoryWindow(files["v.index"]))
    cls = messages.BundleEntryProto if key else messages.BundleHeaderProto
    entry = cls.FromString(table[key.encode()])
    entry.MergeFrom(cls(**fields))
    return {**files, "v.index": write_table({**table, key.encode(): entry.SerializeToString()}.items())}


# What TensorFlow wrote


@pytest.mark.parametrize("index", INDEXES, ids=lambda path: "/".join(path.parts[-4:-1]))
def test_a_real_bundle_written_again_has_tensorflows_bytes(index: Path) -> None:
    data = index.with_suffix(shard_suffix(0, 1))
    if not data.exists():
        with pytest.raises(ReadError, match=f"{data.name} is missing"):
            beside(index)
        return
    again = written(tensors(beside(index)))
    assert again["v" + shard_suffix(0, 1)] == data.read_bytes()
    table = read_table(MemoryWindow(index.read_bytes()))
    assert read_table(MemoryWindow(again["v.index"])) == table
    if not compressed(index):
        assert again["v.index"] == index.read_bytes()


def compressed(index: Path) -> bool:
    """Is its first block packed by snappy? Otherwise it begins with the empty key, which shares nothing."""
    return not index.read_bytes().startswith(b"\0\0")


def test_some_real_indexes_are_compressed() -> None:
    assert {compressed(index) for index in INDEXES} == {True, False}


def test_the_numbers_are_those_of_get_weights() -> None:
    one = case("keras-2.0.5_tf-1.2.1/cnn")
    stored = beside(one / "saved_model_tf1/variables/variables.index")
    with np.load(one / "weights_list.npz") as weights:
        wanted = sorted((array.shape, array.tobytes()) for array in weights.values())
    found = sorted((entry.shape, stored.load(name).tobytes()) for name, entry in stored.entries.items())
    assert [one for one in wanted if one not in found] == []


def test_the_object_graph_is_a_scalar_string() -> None:
    stored = beside(case("extra_tf-2.4.4/assets") / "variables/variables.index")
    value = stored.load("_CHECKPOINTABLE_OBJECT_GRAPH")
    assert value.shape == ()
    assert messages.TrackableObjectGraph.FromString(value.item()).nodes[0].children


# Every kind of tensor


VALUES = {
    "float32": np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3),
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 3), "int16"),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j], "complex64"),
    "uint64": np.array([2**63], "uint64"),
    "bfloat16": np.arange(3).astype(ml_dtypes.bfloat16),
    "float8": np.arange(3).astype(ml_dtypes.float8_e4m3fn),
    "int4": np.arange(3).astype(ml_dtypes.int4),
    "strings": np.array([[b"ab", b""], [b"\xff" * 300, b"d"]], dtype=object),
    "no strings": np.zeros((0,), dtype=object),
}


@pytest.mark.parametrize("name", VALUES)
def test_each_dtype_comes_back(name: str) -> None:
    read = bundle(written(VALUES)).load(name)
    assert (read.dtype, read.shape) == (VALUES[name].dtype, VALUES[name].shape)
    assert np.array_equal(read, VALUES[name])


def test_keys_are_sorted_and_data_stays_in_the_order_given() -> None:
    stored = bundle(written({"b": np.zeros(2), "a": np.ones(3)}))
    assert list(stored.entries) == ["a", "b"]
    assert (stored.entries["b"].offset, stored.entries["a"].offset) == (0, 16)


class Recorder:
    """A file whose bytes are counted as they are read."""

    def __init__(self, data: bytes) -> None:
        self.data = MemoryWindow(data)
        self.size = self.data.size
        self.reads: list[tuple[int, int]] = []

    def window(self) -> Window:
        return self

    def read(self, offset: int, length: int) -> memoryview:
        self.reads.append((offset, length))
        return self.data.read(offset, length)

    def part(self, offset: int, length: int) -> Window:
        outer = self

        class Part(MemoryWindow):
            def read(self, start: int, size: int) -> memoryview:
                return outer.read(offset + start, size)

        return Part(self.data.read(offset, length))


def test_no_tensor_is_read_before_it_is_asked_for() -> None:
    files = written({"a": np.zeros(1000), "b": np.ones(10)})
    data = Recorder(files["v" + shard_suffix(0, 1)])
    stored = Bundle({"v.index": Recorder(files["v.index"]), "v" + shard_suffix(0, 1): data}, "v")
    assert data.reads == []
    stored.load("b")
    assert data.reads == [(8000, 80)]


def test_tensors_go_on_in_the_next_data_file() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    writer = BundleWriter(first)
    writer.add("a", Tensor.of(np.zeros(3)))
    writer.go_on(second)
    writer.add("b", Tensor.of(np.ones(2)))
    files = {"v.index": writer.finish(), "v" + shard_suffix(0, 2): first.getvalue()}
    with pytest.raises(ReadError, match=r"v\.data-00001-of-00002 is missing"):
        bundle(files)
    stored = bundle({**files, "v" + shard_suffix(1, 2): second.getvalue()})
    assert (stored.load("a").tolist(), stored.load("b").tolist()) == ([0.0] * 3, [1.0] * 2)


def test_a_large_tensor_is_streamed_in_pieces() -> None:
    pieces = 5
    made: list[int] = []

    def stream() -> Iterator[bytes]:
        for number in range(pieces):
            made.append(number)
            yield bytes([number]) * CHUNK

    files = written({"w": Tensor("uint8", (pieces, CHUNK), lambda: pytest.fail("held as a whole"), stream)})
    assert made == list(range(pieces))
    assert [bytes(piece[:1]) for piece in bundle(files).stream("w")] == [bytes([number]) for number in range(pieces)]


# Refusals


def test_a_changed_byte_is_found_when_its_tensor_is_read() -> None:
    files = written({"a": np.zeros(3), "s": np.array([b"text"], dtype=object), "t": np.array([b"text"], dtype=object)})
    data = bytearray(files["v" + shard_suffix(0, 1)])
    data[5] ^= 1  # in a
    data[24 + 1] ^= 1  # in the checksum of s's lengths
    data[-1] ^= 1  # in t's text
    stored = bundle({**files, "v" + shard_suffix(0, 1): bytes(data)})
    for name in "ast":
        with pytest.raises(ReadError, match="checksum") as caught:
            stored.load(name)
        assert caught.value.where == name
    with pytest.raises(ReadError, match=r"v\.data-00000-of-00001"):
        list(stored.stream("a"))


HEADERS = [
    ({"endianness": 1}, "big-endian"),
    ({"version": {"producer": 9, "min_consumer": 2}}, "readers of version 2"),
    ({"num_shards": 100_001}, "100,001 data shards"),
]


@pytest.mark.parametrize(("fields", "sentence"), HEADERS)
def test_headers_that_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ReadError, match=sentence):
        bundle(changed(written({"a": np.zeros(3)}), "", **fields))


def test_a_table_of_something_else() -> None:
    with pytest.raises(ReadError, match="no header"):
        bundle({"v.index": write_table([(b"a", b"1")])})
    slices = messages.SavedTensorSlices(meta={"tensor": [{"name": "a"}]}).SerializeToString()
    with pytest.raises(ReadError, match=r"\(V1\)"):
        bundle({"v.index": write_table([(b"", slices)])})


ENTRIES = [
    ({"size": 23}, "cannot hold 3 elements of float64"),
    ({"shape": {"dim": [{"size": 2}]}}, "cannot hold 6 elements"),
    ({"shape": {"dim": [{"size": -1}]}}, "none that a stored tensor can have"),
    ({"shape": {"unknown_rank": True}}, "none that a stored tensor can have"),
    ({"shape": {"dim": [{"size": 1}] * 40}}, "none that a stored tensor can have"),
    ({"shape": {"dim": [{"size": 0}, {"size": 1 << 60}]}}, "none that a stored tensor can have"),
    ({"offset": 1}, r"v\.data-00000-of-00001 has 24"),
    ({"offset": -1}, "cut short"),
    ({"shard_id": 1}, "shard 1 of 1"),
    ({"dtype": 20}, "resource"),
    ({"dtype": 99}, "99"),
    ({"slices": [{"extent": [{"length": 2}]}]}, "slice of this partitioned variable is missing"),
]


@pytest.mark.parametrize(("fields", "sentence"), ENTRIES)
def test_entries_that_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ReadError, match=sentence) as caught:
        bundle(changed(written({"a": np.zeros(3)}), "a", **fields))
    assert caught.value.where == "a"


def test_missing_files_are_named() -> None:
    files = written({"a": np.zeros(3)})
    with pytest.raises(ReadError, match=r"v\.index is missing"):
        bundle({})
    with pytest.raises(ReadError, match=r"v\.data-00000-of-00001 is missing"):
        bundle({"v.index": files["v.index"]})
    with pytest.raises(ReadError, match=r"v\.data-00000-of-00002 is missing"):
        bundle(changed(files, "", num_shards=2))


def test_strings_that_do_not_fill_their_place() -> None:
    files = written({"s": np.array([b"abc", b"d"], dtype=object)})
    for change, sentence in (
        (lambda data: data + b"x", "strings of 4 bytes"),
        (lambda data: data[:-1], "strings of 4"),
    ):
        data = change(files["v" + shard_suffix(0, 1)])
        table = read_table(MemoryWindow(files["v.index"]))
        entry = messages.BundleEntryProto.FromString(table[b"s"])
        entry.size = len(data)
        index = write_table({**table, b"s": entry.SerializeToString()}.items())
        with pytest.raises(ReadError, match=sentence):
            bundle({"v.index": index, "v" + shard_suffix(0, 1): data}).load("s")


@pytest.mark.parametrize("name", ["", "\0a"])
def test_names_that_a_bundle_cannot_hold(name: str) -> None:
    with pytest.raises(WriteError, match="name"):
        written({name: np.zeros(1)})


def test_a_name_twice() -> None:
    writer = BundleWriter(io.BytesIO())
    writer.add("a", Tensor.of(np.zeros(1)))
    with pytest.raises(WriteError, match="twice"):
        writer.add("a", Tensor.of(np.zeros(1)))


def test_a_tensor_that_gives_other_bytes_than_it_promises() -> None:
    with pytest.raises(WriteError, match="do not fill"):
        written({"a": Tensor("float32", (3,), lambda: np.zeros(3, "float32"), lambda: iter([b"1234"]))})


def test_objects_that_are_no_strings() -> None:
    with pytest.raises(WriteError, match="not all bytes"):
        written({"a": np.array(["text"], dtype=object)})


def test_a_bundle_cut_anywhere_is_refused() -> None:
    files = written(VALUES)
    for length in range(len(files["v.index"])):
        with pytest.raises(ReadError):
            bundle({**files, "v.index": files["v.index"][:length]})
    for length in range(0, len(files["v" + shard_suffix(0, 1)]), 7):
        with pytest.raises(ReadError):
            bundle({**files, "v" + shard_suffix(0, 1): files["v" + shard_suffix(0, 1)][:length]})


# Partitioned variables, put together by hand: ordered code as tsl/lib/strings/ordered_code.cc defines it


def number(value: int) -> bytes:
    """A signed number below 64, or up to 8191 in two bytes."""
    return bytes([0x80 ^ value & 0xFF]) if -64 <= value < 64 else struct.pack(">H", 0xC000 ^ value & 0xFFFF)


def sliced(name: str, shape: tuple[int, ...], places: list[list[tuple[int, int]]]) -> dict[str, bytes]:
    """A bundle of one partitioned variable that counts from 0; a place is ``(start, length)`` by dimension."""
    whole = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    data = io.BytesIO()
    writer = BundleWriter(data)
    keys = []
    for index, place in enumerate(places):
        part = whole[tuple(slice(start, None if length < 0 else start + length) for start, length in place)]
        writer.add(f"part{index}", Tensor.of(part))
        code = b"".join(number(start) + number(length) for start, length in place)
        keys.append(b"\0" + name.encode() + b"\0\1" + bytes([1, len(shape)]) + code)
    table = read_table(MemoryWindow(writer.finish()))
    for index, key in enumerate(keys):
        table[key] = table.pop(f"part{index}".encode())
    entry = messages.BundleEntryProto(dtype=1, shape={"dim": [{"size": size} for size in shape]})
    for place in places:
        extents = entry.slices.add().extent
        for start, length in place:
            extents.add(start=start, **({} if length < 0 else {"length": length}))
    table[name.encode()] = entry.SerializeToString()
    return {"v.index": write_table(sorted(table.items())), "v" + shard_suffix(0, 1): data.getvalue()}


WHOLE = -1

PARTITIONS = {
    "rows": ((10, 4), [[(0, 4), (0, WHOLE)], [(4, 3), (0, WHOLE)], [(7, 3), (0, WHOLE)]]),
    "rows, listed out of order": ((10, 4), [[(4, 6), (0, WHOLE)], [(0, 4), (0, WHOLE)]]),
    "columns": ((3, 150), [[(0, WHOLE), (0, 75)], [(0, WHOLE), (75, 75)]]),
    "tiles": ((4, 4), [[(row, 2), (column, 2)] for row in (0, 2) for column in (0, 2)]),
    "numbers of two bytes": ((700,), [[(0, 600)], [(600, 100)]]),
    "bands of tiles": ((5, 4), [[(0, 2), (0, 1)], [(0, 2), (1, 3)], [(2, 3), (0, 4)]]),
    "no rows of tiles": ((2, 2), [[(0, 2), (0, 1)], [(0, 1), (1, 1)], [(1, 1), (1, 1)]]),
    "empty": ((0, 4), [[(0, 0), (0, WHOLE)]]),
    "with an empty part": ((2, 4), [[(0, 2), (0, 4)], [(2, 0), (0, 4)]]),
}


@pytest.mark.parametrize("name", PARTITIONS)
def test_partitioned_variables_are_put_together(name: str) -> None:
    shape, places = PARTITIONS[name]
    stored = bundle(sliced("scope/w", shape, places))
    assert list(stored.entries) == ["scope/w"]
    wanted = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    assert np.array_equal(stored.load("scope/w"), wanted)
    assert b"".join(stored.stream("scope/w")) == wanted.tobytes()


def test_parts_beside_each_other_are_woven_row_by_row() -> None:
    shape, places = (300, 10_000), [[(0, WHOLE), (start, 2500)] for start in range(0, 10_000, 2500)]
    files = sliced("w", shape, places)
    pieces = list(bundle(files).stream("w"))
    assert b"".join(pieces) == np.arange(3_000_000, dtype="float32").tobytes()
    assert max(map(len, pieces)) <= CHUNK
    data = bytearray(files["v" + shard_suffix(0, 1)])
    data[-1] ^= 1  # in the last part, whose checksum is verified at its end
    with pytest.raises(ReadError, match="checksum"):
        list(bundle({**files, "v" + shard_suffix(0, 1): bytes(data)}).stream("w"))


GAPS = {
    "a hole": ((10,), [[(0, 4)], [(5, 5)]]),
    "an overlap": ((10,), [[(0, 6)], [(5, 5)]]),
    "an overlap as large as the hole": ((10,), [[(0, 5)], [(4, 5)]]),
}


@pytest.mark.parametrize("name", GAPS)
def test_slices_that_do_not_cover_are_refused(name: str) -> None:
    with pytest.raises(ReadError, match="do not make up its shape"):
        bundle(sliced("w", *GAPS[name]))


def test_slices_that_contradict_the_variable() -> None:
    files = sliced("w", (10,), [[(0, 5)], [(5, 5)]])
    with pytest.raises(ReadError, match="another dtype"):
        bundle(changed(files, "w", dtype=3))
    table = read_table(MemoryWindow(files["v.index"]))
    entry = messages.BundleEntryProto.FromString(table[b"w"])
    entry.shape.dim[0].size = 8
    with pytest.raises(ReadError, match="reaches outside"):
        bundle({**files, "v.index": write_table({**table, b"w": entry.SerializeToString()}.items())})


def test_a_slice_of_a_slice_is_refused() -> None:
    files = sliced("w", (10,), [[(0, WHOLE)]])
    table = read_table(MemoryWindow(files["v.index"]))
    own = next(key for key in table if key.startswith(b"\0"))
    table[own] = table[b"w"]
    with pytest.raises(ReadError, match="missing from the index"):
        bundle({**files, "v.index": write_table(table.items())})


def test_more_slices_than_any_variable_has() -> None:
    with pytest.raises(UnsafeInput, match="slices"):
        bundle(sliced("w", (5000,), [[(start, 1)] for start in range(5000)]))


# Against the TensorFlow that is installed


def save(tf: ModuleType, prefix: Path, values: Mapping[str, Any]) -> None:
    """A checkpoint by TensorFlow's own SaveV2."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[
            tf.constant(value, tf.string if value.dtype == object else None, value.shape) for value in values.values()
        ],
    )


def same_bytes(prefix: Path, values: Mapping[str, Any]) -> None:
    ours = written(values)
    assert prefix.with_suffix(".index").read_bytes() == ours["v.index"]
    assert prefix.with_suffix(shard_suffix(0, 1)).read_bytes() == ours["v" + shard_suffix(0, 1)]


def test_tensorflow_writes_the_same_bytes(tensorflow: ModuleType, tmp_path: Path) -> None:
    save(tensorflow, tmp_path / "v", VALUES)
    same_bytes(tmp_path / "v", VALUES)


def test_tensorflow_writes_the_same_index_of_many_blocks(tensorflow: ModuleType, tmp_path: Path) -> None:
    values = {
        f"model/block_{index}/layer_{index % 7}/kernel/.ATTRIBUTES/VARIABLE_VALUE": np.full(
            1 + index % 3, index, "float32"
        )
        for index in range(9000)
    }
    save(tensorflow, tmp_path / "v", values)
    assert (tmp_path / "v.index").stat().st_size > 2 * (256 << 10)
    same_bytes(tmp_path / "v", values)


def test_tensorflow_reads_what_is_written(tensorflow: ModuleType, tmp_path: Path) -> None:
    tf = tensorflow
    for name, data in written(VALUES).items():
        (tmp_path / name).write_bytes(data)
    reader = tf.train.load_checkpoint(str(tmp_path / "v"))
    for name in ("float32", "scalar", "empty", "bool", "uint64", "strings"):
        assert np.array_equal(reader.get_tensor(name), VALUES[name])


def test_quantized_numbers_keep_their_type(tensorflow: ModuleType, tmp_path: Path) -> None:
    tf = tensorflow
    levels = tf.bitcast(tf.constant([0, 128, 255], tf.uint8), tf.quint8)
    tf.raw_ops.SaveV2(prefix=str(tmp_path / "v"), tensor_names=["q"], shape_and_slices=[""], tensors=[levels])
    stored = beside(tmp_path / "v.index")
    assert stored.load("q").tolist() == [0, 128, 255]
    for values in (tensors(stored), {"q": Tensor.of(stored.load("q"))}):
        same_bytes(tmp_path / "v", values)


def test_variants_are_kept_as_their_bytes(tensorflow: ModuleType, tmp_path: Path) -> None:
    """Lists of tensors and ragged tensors; the file is written again byte for byte, and what TensorFlow reads is equal."""
    tf = tensorflow
    rows = tf.ragged.constant([[1.0, 2.0], [], [3.0]])
    values = {
        "list": tf.raw_ops.TensorListFromTensor(tensor=tf.constant([[1, 2], [3, 4]]), element_shape=[2]),
        "ragged": rows._to_variant(batched_input=True),
    }
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "v"),
        tensor_names=list(values),
        shape_and_slices=["", ""],
        tensors=list(values.values()),
    )
    stored = beside(tmp_path / "v.index")
    assert stored.load("ragged").shape == (3,)
    element = messages.VariantTensorDataProto.FromString(stored.load("list").item())
    assert element.type_name == "tensorflow::TensorList"
    same_bytes(tmp_path / "v", tensors(stored))
    same_bytes(tmp_path / "v", {name: Tensor.of(stored.load(name)) for name in values})
    data = bytearray((tmp_path / "v.data-00000-of-00001").read_bytes())
    for position in range(0, len(data), 7):
        damaged = bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        broken = bundle({"v.index": (tmp_path / "v.index").read_bytes(), "v.data-00000-of-00001": damaged})
        with pytest.raises(ReadError):
            broken.load("list"), broken.load("ragged")


def test_shards_and_partitions_of_tensorflow(tensorflow: ModuleType, tmp_path: Path) -> None:
    tf = tensorflow
    v1 = tf.compat.v1
    wanted = {}
    with tf.Graph().as_default(), v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
        rows = v1.get_variable("rows", (300, 4), partitioner=v1.fixed_size_partitioner(3))
        columns = v1.get_variable("columns", (4, 150), partitioner=v1.fixed_size_partitioner(2, axis=1))
        with tf.device("/cpu:1"):
            other = v1.get_variable("other", (5,))
        session.run(v1.global_variables_initializer())
        wanted["rows"] = np.concatenate(session.run(list(rows)))
        wanted["columns"] = np.concatenate(session.run(list(columns)), axis=1)
        wanted["other"] = session.run(other)
        v1.train.Saver(sharded=True).save(session, str(tmp_path / "v"))
    assert (tmp_path / "v.data-00001-of-00002").exists()
    stored = beside(tmp_path / "v.index")
    assert sorted(stored.entries) == sorted(wanted)
    for name, array in wanted.items():
        assert np.array_equal(stored.load(name), array)
        assert b"".join(stored.stream(name)) == array.tobytes()


def test_every_error_is_a_modelio_error() -> None:
    """A changed byte anywhere in an index whose checksums are right again: read, or refused by name."""
    files = written(VALUES)
    table = read_table(MemoryWindow(files["v.index"]))
    for key, value in table.items():
        for position in range(len(value)):
            for byte in (0, 1, 0x7F, 0x80, 0xFF):
                damaged = {**table, key: value[:position] + bytes([byte]) + value[position + 1 :]}
                try:
                    stored = bundle({**files, "v.index": write_table(damaged.items())})
                    for name in stored.entries:
                        stored.load(name)
                except ModelioError:
                    pass
