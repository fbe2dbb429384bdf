"""Checkpoints of the first kind: put together by hand as their module draws them, what is read of them, and when."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from modelio.errors import ModelioError, ReadError
from modelio.wire import messages
from modelio.wire.slices import slice_key
from modelio.wire.table import write_table
from modelio.wire.tensor_slices import SliceTables
from modelio.wire.window import MemoryWindow

WHOLE = -1


def tensor(name: str, dtype: int, shape: tuple[int, ...], *slices: list[tuple[int, int]]) -> dict[str, Any]:
    """What a file says of a tensor: its slices by start and length in each dimension; without any, the whole."""
    extents = [
        {"extent": [{"start": start, **({} if length < 0 else {"length": length})} for start, length in one]}
        for one in slices or [[(0, WHOLE)] * len(shape)]
    ]
    return {"name": name, "type": dtype, "shape": {"dim": [{"size": size} for size in shape]}, "slice": extents}


def table(tensors: list[dict[str, Any]], values: Mapping[bytes, Any], **meta: Any) -> bytes:
    """A file that says this and has these values, a TensorProto's fields each."""
    saved = messages.SavedTensorSlices(meta={"tensor": tensors, **meta})
    entries = {b"": saved.SerializeToString()}
    for key, fields in values.items():
        entries[key] = messages.SavedTensorSlices(data={"data": fields}).SerializeToString()
    return write_table(sorted(entries.items()))


def tables(*files: bytes) -> SliceTables:
    return SliceTables({f"v-{number}": MemoryWindow(data) for number, data in enumerate(files)})


W = slice_key("w", [(0, WHOLE)])

LISTED = [
    (1, "float_val", [0.1, -2.0], "float32"),
    (2, "double_val", [0.1, -2.0], "float64"),
    (3, "int_val", [-1, 2], "int32"),
    (4, "int_val", [255, 2], "uint8"),
    (6, "int_val", [-128, 2], "int8"),
    (9, "int64_val", [-(2**62), 2], "int64"),
    (10, "bool_val", [True, False], "bool"),
    (11, "int_val", [-128, 2], "int8"),
    (17, "int_val", [65535, 2], "uint16"),
    (19, "half_val", [0x3C00, 0xC000], "float16"),
]


@pytest.mark.parametrize(("number", "field", "listed", "name"), LISTED)
def test_numbers_come_in_the_field_of_their_type(number: int, field: str, listed: list[Any], name: str) -> None:
    stored = tables(table([tensor("w", number, (2,))], {W: {field: listed}}))
    wanted = np.array([1, -2], "float16") if name == "float16" else np.array(listed, name)
    entry = stored.entries["w"]
    assert (entry.dtype, entry.shape) == (wanted.dtype, (2,))
    assert stored.load("w").dtype == wanted.dtype
    assert stored.load("w").tolist() == wanted.tolist()
    assert b"".join(stored.stream("w")) == wanted.tobytes()


def test_strings_and_scalars() -> None:
    scalar = slice_key("n", [])
    stored = tables(
        table([tensor("n", 3, ()), tensor("w", 7, (2,))], {W: {"string_val": [b"ab", b""]}, scalar: {"int_val": [7]}})
    )
    assert stored.load("w").tolist() == [b"ab", b""]
    assert stored.load("n").shape == ()
    assert stored.load("n") == 7
    with pytest.raises(TypeError, match="strings"):
        stored.stream("w")


def test_slices_of_a_tensor_lie_in_several_files() -> None:
    places = [[(0, WHOLE), (0, 1)], [(0, WHOLE), (1, 2)]]
    files = [
        table([tensor("w", 1, (2, 3), place)], {slice_key("w", place): {"float_val": values}})
        for place, values in zip(places, ([0, 3], [1, 2, 4, 5]), strict=True)
    ]
    for ordered in (files, files[::-1]):
        stored = tables(*ordered)
        assert stored.load("w").tolist() == [[0, 1, 2], [3, 4, 5]]
        assert b"".join(stored.stream("w")) == np.arange(6, dtype="float32").tobytes()
    with pytest.raises(ReadError, match="do not make up its shape"):
        tables(files[0])


class Watched(MemoryWindow):
    """A window that knows how many bytes were read through it."""

    touched = 0

    def read(self, offset: int, length: int) -> memoryview:
        self.touched += length
        return super().read(offset, length)


def test_a_tensor_is_read_when_it_is_asked_for() -> None:
    names = [f"w{number}" for number in range(4)]
    values = {slice_key(name, [(0, WHOLE)]): {"double_val": np.zeros(1 << 18)} for name in names}
    window = Watched(table([tensor(name, 2, (1 << 18,)) for name in names], values))
    stored = SliceTables({"v": window})
    assert window.touched < window.size / 4
    before = window.touched
    assert not stored.load("w2").any()
    assert window.touched - before < window.size / 3


def one(**fields: Any) -> bytes:
    """A file of three floats, but for these fields."""
    return table([{**tensor("w", 1, (3,)), **fields}], {W: {"float_val": [1, 2, 3]}})


BROKEN = {
    "of another table": (write_table([(b"a", b"1")]), "something else than tensors"),
    "empty": (write_table([]), "something else than tensors"),
    "without tensors": (table([], {}), "no tensor is in it"),
    "for later readers": (table([tensor("w", 1, ())], {}, versions={"min_consumer": 2}), "readers of version 2"),
    "V2's": (
        write_table([(b"", messages.BundleHeaderProto(num_shards=1).SerializeToString())]),
        r"without the \.data files",
    ),
    "an open shape": (one(shape={"dim": [{"size": -1}]}), "none that a stored tensor can have"),
    "an unknown rank": (one(shape={"unknown_rank": True}), "none that a stored tensor can have"),
    "a huge shape": (one(shape={"dim": [{"size": 1 << 40}, {"size": 1 << 40}]}), "none that a stored tensor can have"),
    "a handle": (one(type=20), "resource"),
    "a type that is none": (one(type=99), "99"),
    "no slice": (one(slice=[]), "do not make up its shape"),
    "a slice of other dimensions": (one(slice=[{"extent": []}]), "a slice of 0 dimensions of a variable that has 1"),
    "a slice that is not there": (
        one(slice=[{"extent": [{"start": 0, "length": 3}]}]),
        "a slice of this tensor is missing",
    ),
    "too few numbers": (table([tensor("w", 1, (3,))], {W: {"float_val": [1, 2]}}), "not the numbers of a slice"),
    "too many": (table([tensor("w", 3, (3,))], {W: {"int_val": [1, 2, 3, 4]}}), "not those of a slice"),
    "other numbers": (table([tensor("w", 1, (3,))], {W: {"int_val": [1, 2, 3]}}), "not the numbers of a slice"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_refused(name: str) -> None:
    content, sentence = BROKEN[name]
    with pytest.raises(ReadError, match=sentence):
        tables(content).load("w")


def test_files_that_contradict_each_other() -> None:
    with pytest.raises(ReadError, match="of different types or shapes"):
        tables(one(), one(type=2))
    with pytest.raises(ReadError, match="of different types or shapes"):
        tables(one(), one(shape={"dim": [{"size": 4}]}))


def test_a_changed_byte_behind_right_checksums_is_no_crash() -> None:
    saved = messages.SavedTensorSlices(data={"data": {"float_val": [1, 2, 3]}}).SerializeToString()
    meta = messages.SavedTensorSlices(meta={"tensor": [tensor("w", 1, (3,))]}).SerializeToString()
    for position in range(len(saved)):
        for byte in range(0, 256, 5):
            damaged = saved[:position] + bytes([byte]) + saved[position + 1 :]
            with contextlib.suppress(ModelioError):
                tables(write_table([(b"", meta), (W, damaged)])).load("w")
