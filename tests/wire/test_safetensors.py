"""The encoding, against the reference implementation: what it writes we read, what we write it reads, to the byte."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import SafetensorError, deserialize

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.model import Tensor
from modelio.wire import safetensors as wire
from modelio.wire.window import MemoryWindow

# The format's element types, and what NumPy and ml_dtypes call them.
TYPES = [
    ("BOOL", np.bool_),
    ("U8", np.uint8),
    ("I8", np.int8),
    ("F8_E5M2", ml_dtypes.float8_e5m2),
    ("F8_E4M3", ml_dtypes.float8_e4m3fn),
    ("F8_E4M3FNUZ", ml_dtypes.float8_e4m3fnuz),
    ("F8_E5M2FNUZ", ml_dtypes.float8_e5m2fnuz),
    ("I16", np.int16),
    ("U16", np.uint16),
    ("F16", np.float16),
    ("BF16", ml_dtypes.bfloat16),
    ("I32", np.int32),
    ("U32", np.uint32),
    ("F32", np.float32),
    ("C64", np.complex64),
    ("F64", np.float64),
    ("I64", np.int64),
    ("U64", np.uint64),
]


def read(data: bytes) -> wire.Content:
    return wire.read(MemoryWindow(data))


def write(tensors: dict[str, np.ndarray], texts: dict[str, str] | None = None) -> bytes:
    stream = io.BytesIO()
    wire.write(stream, {name: Tensor.of(array) for name, array in tensors.items()}, texts or {})
    return stream.getvalue()


def spelled(header: str | bytes | dict[str, Any], data: bytes = b"") -> bytes:
    """A file with this header, whatever it says."""
    text = json.dumps(header) if isinstance(header, dict) else header
    text = text.encode() if isinstance(text, str) else text
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str = "U8", shape: Any = (1,), begin: Any = 0, end: Any = 1) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(("name", "dtype"), TYPES, ids=[name for name, _ in TYPES])
def test_every_element_type_is_read_and_written(name, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    data = write({"a": array})
    [(_, theirs)] = deserialize(data)
    assert (theirs["dtype"], theirs["shape"], bytes(theirs["data"])) == (name, [2, 3], array.tobytes())
    ours = read(spelled({"a": entry(name, [2, 3], 0, array.nbytes)}, array.tobytes())).tensors["a"]
    assert (ours.dtype, ours.shape) == (array.dtype, (2, 3))
    assert ours.numpy().tobytes() == array.tobytes()
    assert b"".join(ours.chunks()) == array.tobytes()


dtypes = arrays.integer_dtypes(endianness="<") | arrays.unsigned_integer_dtypes(endianness="<") | st.sampled_from(
    [np.dtype(name) for name in ("float16", "float32", "float64", "bool", "complex64")]
)  # fmt: skip
shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
named = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), arrays.arrays(dtypes, shapes), max_size=5)


@given(tensors=named, text=st.none() | st.text(st.characters(exclude_categories=["Cs"])))
def test_the_bytes_are_those_of_the_reference_implementation(tensors, text):
    tensors.pop(wire.TEXTS, None)
    texts = {} if text is None else {"text": text}
    data = write(tensors, texts)
    assert data == safetensors.numpy.save(tensors, metadata=texts or None)
    content = read(data)
    assert content.texts == texts
    assert {name: (a.dtype, a.shape, a.numpy().tobytes()) for name, a in content.tensors.items()} == {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in tensors.items()
    }


def test_every_tensor_is_aligned_to_its_elements():
    data = write({"a": np.ones(3, np.int8), "b": np.ones(3), "c": np.ones(3, np.float16), "d": np.ones(1, np.float32)})
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    assert [header[name]["data_offsets"] for name in "bdca"] == [[0, 24], [24, 28], [28, 34], [34, 37]]


def test_big_endian_arrays_are_written_little_endian():
    assert read(write({"a": np.array([1, 258], ">u2")})).tensors["a"].numpy().tolist() == [1, 258]


def test_tensors_come_in_the_headers_order():
    """Which need not be that of their bytes."""
    data = spelled({"z": entry(begin=1, end=2), "a": entry(begin=0, end=1)}, b"\x01\x02")
    assert {name: array.numpy().tolist() for name, array in read(data).tensors.items()} == {"z": [2], "a": [1]}
    assert list(read(data).tensors) == ["z", "a"]


def test_what_need_not_be_there():
    scalar = spelled({"a": entry("F32", [], 0, 4), "b": entry("F64", [3, 0], 4, 4)}, np.float32(1.5).tobytes())
    content = read(scalar)
    assert content.texts == {}
    assert content.tensors["a"].numpy() == np.float32(1.5)
    assert content.tensors["b"].numpy().shape == (3, 0)
    assert read(spelled("{}")) == ({}, {})
    assert read(spelled({"__metadata__": None})) == ({}, {})
    assert list(read(spelled({"a": {**entry(), "note": "unknown keys are nobody's business"}}, b"1")).tensors) == ["a"]


class Untouchable(MemoryWindow):
    """A file whose data must not be looked at."""

    def __init__(self, data: bytes, allowed: int) -> None:
        super().__init__(data)
        self.allowed = allowed

    def read(self, offset: int, length: int) -> memoryview:
        assert offset + length <= self.allowed, "the data was read"
        return super().read(offset, length)

    def part(self, offset: int, length: int) -> MemoryWindow:
        return Untouchable(bytes(super().read(offset, length)), max(0, self.allowed - offset))


def test_reading_reads_the_header_alone():
    data = write({"a": np.ones(1000), "b": np.ones(3)})
    content = wire.read(Untouchable(data, 8 + int.from_bytes(data[:8], "little")))
    assert content.tensors["a"].shape == (1000,)
    with pytest.raises(AssertionError, match="the data was read"):
        content.tensors["a"].numpy()


def test_a_file_is_told_from_its_first_bytes():
    assert wire.is_safetensors(write({"a": np.ones(1)})[:9])
    assert wire.is_safetensors(spelled("{}"))
    for other in (
        b"",
        b"{",
        b'{"a": 1}',
        b"\x89HDF\r\n\x1a\n{",
        b"\x00" * 9,
        bytes(6) + b"\x01\x00{",
        b"PK\3\4\x14\0\0\0{",
    ):
        assert not wire.is_safetensors(other)


DEEP = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
BROKEN: dict[str, tuple[bytes, type, str]] = {
    "nothing": (b"", ReadError, "0 bytes has no header"),
    "too short for a length": (b"\x08\0\0", ReadError, "3 bytes has no header"),
    "a length beyond the end": (b"\x09" + bytes(7) + b"{}", ReadError, "9 bytes, and 2 are there: the file is cut"),
    "a length beyond all reason": ((10**8 + 1).to_bytes(8, "little") + b"{}", UnsafeInput, "100,000,000 are allowed"),
    "a negative length": (b"\xff" * 8 + b"{}", UnsafeInput, "are allowed"),
    "not UTF-8": (spelled(b'{"\xff": 1}'), ReadError, "not UTF-8: byte 2"),
    "not JSON": (spelled("{'a': 1}"), ReadError, "not JSON"),
    "an unfinished header": (spelled('{"a": '), ReadError, "not JSON"),
    "no object": (spelled("[]"), ReadError, "not a JSON object"),
    "a nested header": (spelled(DEEP), UnsafeInput, "nested too deep"),
    "a number without end": (spelled('{"a": ' + "1" * 5000 + "}"), ReadError, "not JSON"),
    "a name twice": (
        spelled('{"a": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}, "a": {"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b"12"),
        UnsafeInput,
        "at a: the header has this key twice",
    ),
    "a text twice": (spelled('{"__metadata__": {"k": "1", "k": "2"}}'), UnsafeInput, "at k: the header has this key twice"),
    "texts that are none": (spelled({"__metadata__": {"k": 1}}), ReadError, "at __metadata__: .*something else than texts"),
    "texts in a list": (spelled({"__metadata__": ["k"]}), ReadError, "at __metadata__: .*something else than texts"),
    "an entry of another kind": (spelled({"a": [1]}), ReadError, "at a: .*lacks dtype, shape or data_offsets"),
    "an entry without a shape": (spelled({"a": {"dtype": "U8", "data_offsets": [0, 0]}}), ReadError, "at a: .*lacks"),
    "an unknown element type": (spelled({"a": entry("X8")}, b"1"), ReadError, "at a: .*no element type 'X8'"),
    "an element type that is no text": (spelled({"a": entry(["U8"])}, b"1"), ReadError, "at a: .*no element type"),
    "elements below a byte": (spelled({"a": entry("F4", [2])}, b"1"), ReadError, "at a: elements of F4 share bytes"),
    "a negative size": (spelled({"a": entry(shape=[-1])}, b"1"), ReadError, "at a: the shape is not a list of sizes"),
    "a broken size": (spelled({"a": entry(shape=[1.0])}, b"1"), ReadError, "at a: the shape is not a list of sizes"),
    "a size that is a truth": (spelled({"a": entry(shape=[True])}, b"1"), ReadError, "at a: the shape is not"),
    "a shape that is a number": (spelled({"a": entry(shape=1)}, b"1"), ReadError, "at a: the shape is not"),
    "a shape that overflows": (spelled({"a": entry(shape=[2**40, 2**40])}, b"1"), ReadError, "at a: no array can have"),
    "a shape with a zero that overflows": (spelled({"a": entry(shape=[2**40, 2**40, 0], end=0)}), ReadError, "at a: no array"),
    "too many dimensions": (spelled({"a": entry(shape=[1] * 65)}, b"1"), ReadError, "at a: no array can have"),
    "offsets that are none": (spelled({"a": entry(begin="0")}, b"1"), ReadError, "at a: data_offsets are not"),
    "offsets backwards": (spelled({"a": entry(begin=1, end=0)}, b"1"), ReadError, "at a: data_offsets are not"),
    "a third offset": (spelled({"a": {**entry(), "data_offsets": [0, 1, 1]}}, b"1"), ReadError, "at a: data_offsets"),
    "fewer bytes than the shape takes": (spelled({"a": entry(shape=[2])}, b"1"), ReadError, "at a: 1 bytes are not"),
    "a hole": (spelled({"a": entry(), "b": entry(begin=2, end=3)}, b"123"), UnsafeInput, "at b: .*a hole before it"),
    "a hole at the start": (spelled({"a": entry(begin=1, end=2)}, b"12"), UnsafeInput, "at a: .*a hole before it"),
    "an overlap": (spelled({"a": entry(shape=[2], end=2), "b": entry(begin=1, end=2)}, b"12"), UnsafeInput, "at b: .*overlaps"),
    "two names for the same bytes": (spelled({"a": entry(), "b": entry()}, b"1"), UnsafeInput, "at b: .*overlaps"),
    "an empty tensor inside another": (
        spelled({"a": entry(shape=[2], end=2), "b": entry(shape=[0], begin=1, end=1)}, b"12"),
        UnsafeInput,
        "at b: .*overlaps",
    ),
    "data cut short": (spelled({"a": entry(shape=[3], end=3)}, b"12"), ReadError, "3 bytes of data, and 2 are there"),
    "bytes at the end": (spelled({"a": entry()}, b"12"), ReadError, "1 bytes of data, and 2 are there"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "error", "sentence"), BROKEN.values(), ids=BROKEN)
def test_what_is_refused(data: bytes, error: type, sentence: str):
    with pytest.raises(error, match=sentence):
        read(data)


STRICTER = {"elements below a byte", "a text twice", "too many dimensions", "a shape with a zero that overflows"}
"""NumPy's limits, and a key that the reference implementation takes the last of."""


@pytest.mark.parametrize("name", [name for name in BROKEN if name not in STRICTER])
def test_the_reference_implementation_refuses_it_too(name: str):
    with pytest.raises(SafetensorError):
        deserialize(BROKEN[name][0])


UNWRITABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "strings": (lambda: write({"names": np.array([b"a"], object)}), "at names: .*no element type for object"),
    "fixed strings": (lambda: write({"names": np.array(["a"])}), "at names: .*no element type for str32"),
    "double complex": (lambda: write({"z": np.ones(1, complex)}), "at z: .*no element type for complex128"),
    "half a byte": (lambda: write({"q": np.ones(2, ml_dtypes.int4)}), "at q: .*no element type for int4"),
    "half a character": (lambda: write({"\udcff": np.ones(1)}), r"cannot be written as UTF-8: '\\udcff'"),
}


@pytest.mark.parametrize(("attempt", "sentence"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_cannot_be_written(attempt: Callable[[], bytes], sentence: str):
    with pytest.raises(WriteError, match=sentence):
        attempt()


def test_a_header_that_would_be_too_large(monkeypatch):
    monkeypatch.setattr(wire, "HEADER_LIMIT", 100)
    with pytest.raises(WriteError, match="safetensors allows 100"):
        write({"a" * 100: np.ones(1)})


def test_a_tensor_that_gives_other_bytes_than_it_declares():
    short = Tensor("float32", (2,), lambda: np.zeros(2, "float32"), lambda: iter([b"1234"]))
    with pytest.raises(WriteError, match="at a: 8 bytes are declared, and 4 came"):
        wire.write(io.BytesIO(), {"a": short}, {})


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_any_header_is_read_or_refused(header: bytes, data: bytes):
    with contextlib.suppress(ReadError):
        read(spelled(b"{" + header, data))
