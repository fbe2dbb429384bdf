"""Numbers as JSON text: every bit comes back, from whoever's JSON, in little memory; anything else is refused."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.model import Tensor
from modelio.wire import listed
from modelio.wire.listed import ListedArray, place_of, spell, without_lists
from modelio.wire.window import MemoryWindow


def spelled(array: Any) -> bytes:
    return b"".join(spell(Tensor.of(array)))


def parsed(text: bytes | str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    data = text.encode() if isinstance(text, str) else text
    values = ListedArray(MemoryWindow(data), dtype, shape)
    array = values.numpy()
    assert (array.dtype, array.shape) == (np.dtype(dtype), shape)
    assert b"".join(values.chunks()) == array.tobytes()
    return array


# Bits

FLOATS = np.array([0.0, -0.0, 0.1, 1 / 3, 1, 1e-45, 1.17549435e-38, 3.4028235e38, 16777217, np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_floats_come_back(dtype):
    with np.errstate(over="ignore"):
        array = FLOATS.astype(dtype)
    assert parsed(spelled(array), dtype, array.shape).tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_float_of_two_bytes_comes_back(dtype):
    array = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    array = array[~np.isnan(array.astype(np.float32))]
    assert parsed(spelled(array), dtype, array.shape).tobytes() == array.tobytes()


@given(arrays.arrays(np.uint32, 500))
def test_any_float_comes_back_to_any_reader(bits):
    array = bits.view(np.float32)
    array = array[~np.isnan(array)]
    text = spelled(array)
    assert np.array(json.loads(text), np.float64).astype(np.float32).tobytes() == array.tobytes()
    if array.size:
        assert parsed(text, np.float32, array.shape).tobytes() == array.tobytes()


def test_rounding_twice_is_no_trap():
    """The shortest text of this float, read as a double and then made a float, is its neighbour."""
    array = np.array([7.038531e-26], np.longdouble).astype(np.float32)
    trap = next(x for x in (array, np.nextafter(array, np.float32(0))) if str(x[0]) == "7.038531e-26")
    assert np.float32(float("7.038531e-26")) != trap[0]
    assert np.array(json.loads(spelled(trap))).astype(np.float32) == trap


def test_few_digits_are_spelled():
    assert spelled(np.array([0.1, 0.25, 1, 1e-7, 1 / 3], "float32")) == b"[0.1,0.25,1.0,1e-07,0.33333334]"
    rounded = np.random.default_rng(0).normal(size=1000).astype("float32")
    assert len(spelled(rounded)) < 13 * 1000


def test_what_is_not_finite_is_spelled_as_pythons_json_does():
    assert spelled(np.array([np.nan, np.inf, -np.inf], "float32")) == b"[NaN,Infinity,-Infinity]"


@given(
    arrays.arrays(
        arrays.integer_dtypes(endianness="=")
        | arrays.unsigned_integer_dtypes(endianness="=")
        | st.just(np.dtype(bool)),
        arrays.array_shapes(min_dims=0, max_dims=4, max_side=4),
    )
)
def test_integers_and_truths_come_back(array):
    assert parsed(spelled(array), array.dtype, array.shape).tobytes() == array.tobytes()


def test_complex_numbers_are_lists_of_two():
    array = np.array([[1 + 2j, -0.5j]], "complex64")
    assert spelled(array) == b"[[[1.0,2.0],[-0.0,-0.5]]]"
    assert parsed(spelled(array), "complex64", (1, 2)).tobytes() == array.tobytes()
    assert parsed(b"[1, 2]", "complex128", ()) == 1 + 2j


# Shapes


@pytest.mark.parametrize("block", [1, 2, 5, 7, 24, 1 << 16])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (3, 1, 2), (1, 1, 1), (2, 3, 4), (4, 3, 2, 1)])
@pytest.mark.parametrize("indent", [None, 1, 4])
def test_every_shape_in_blocks_of_any_size(block, shape, indent, monkeypatch):
    monkeypatch.setattr(listed, "BLOCK", block)
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype("float32")
    text = spelled(array)
    assert json.loads(text) == array.tolist()
    assert np.array_equal(parsed(json.dumps(json.loads(text), indent=indent), "float32", shape), array)


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_number_may_lie_across_two_pieces(piece, indent, monkeypatch):
    monkeypatch.setattr(listed, "CHUNK", piece)
    monkeypatch.setattr(listed, "BLOCK", 4)
    array = np.array([[-1.5, 2.25e-10, 3], [4e20, 5, 66.5]])
    text = json.dumps(array.tolist(), indent=indent).encode()
    assert np.array_equal(parsed(text, "float64", (2, 3)), array)
    assert parsed(b" -12.5 ", "float64", ()) == -12.5


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_nothing_is_an_empty_list(shape):
    assert spelled(np.zeros(shape)) == b"[]"


def test_neither_way_holds_the_whole():
    """A million numbers: 4 MB, 12 MB of text, and 32 MB as Python's."""
    rows = np.random.default_rng(0).normal(size=(16, 1 << 16)).astype("float32")
    text = spelled(rows)
    assert len(text) > 10 << 20
    tracemalloc.start()
    assert sum(map(len, spell(Tensor.of(rows)))) == len(text)
    spelling = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    assert sum(map(len, ListedArray(MemoryWindow(text), "float32", rows.shape).chunks())) == rows.nbytes
    parsing = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(spelling, parsing) < 14 << 20


# What is refused

REFUSED: dict[str, tuple[str, Any, tuple[int, ...], str]] = {
    "fewer numbers": ("[1, 2]   ", "float32", (3,), "do not have the declared shape"),
    "more numbers": ("[1, 2, 3, 4]", "float32", (3,), "do not have the declared shape"),
    "another nesting": ("[[1, 2, 3, 4]]", "float32", (2, 2), "do not have the declared shape"),
    "rows of several lengths": ("[[1], [2, 3, 4]]", "float32", (2, 2), "not lists of numbers|declared shape"),
    "a list in place of a number": ("[[1]]", "float32", (1,), "not lists of numbers|declared shape"),
    "a number in place of a list": ("1234", "float32", (1,), r"'\[' is missing"),
    "several in place of one": ("1, 2", "float32", (), "do not have the declared shape"),
    "no end": ("[1, 2, 3", "float32", (3,), "have no end"),
    "something after the end": ("[1, 2] 3", "float32", (2,), "go on after their end: '3'"),
    "no number": ("[1, , 3]", "float32", (3,), "not lists of numbers"),
    "half a number": ("[1, 2e]", "float32", (2,), "not lists of numbers"),
    "a comma at the end": ("[1, 2,]", "float32", (2,), "not lists of numbers"),
    "no comma": ("[1 2, 3]", "float32", (2,), "two numbers have no comma"),
    "a text": ('[1, "2"]', "float32", (2,), "something else than numbers"),
    "an object": ("[1, {}]", "float32", (2,), "something else than numbers"),
    "null": ("[1, null]", "float32", (2,), "something else than numbers"),
    "a truth": ("[1, true]", "float32", (2,), "something else than numbers"),
    "beyond ASCII": ("[1, \u00b2]", "float32", (2,), "not lists of numbers"),
    "a fraction for an integer": ("[1, 2.0]", "int32", (2,), "2.0 is no integer"),
    "infinity for an integer": ("[1, Infinity]", "int32", (2,), "Infinity is no integer"),
    "an integer that is too large": ("[1, 256]", "uint8", (2,), "256 is not of uint8"),
    "an integer that is too small": ("[1, -1]", "uint8", (2,), "-1 is not of uint8"),
    "an integer of many digits": (f"[{'9' * 5000}]", "int64", (1,), "not lists of numbers"),
    "a float that is too large": ("[1, 1e39]", "float32", (2,), r"1e\+39 is not of float32"),
    "an integer beyond all floats": (f"[1, {'9' * 400}]", "float32", (2,), "not lists of numbers"),
    "a truth that is two": ("[1, 2]", "bool", (2,), "2 is not of bool"),
    "a truth that is none": ("[1, null]", "bool", (2,), "something else than numbers"),
    "nested without end": ("[" * 3000, "float32", (1000,), "do not have|not lists of|have no end"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "dtype", "shape", "sentence"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("block", [1, 1 << 16])
def test_what_is_refused(text, dtype, shape, sentence, block, monkeypatch):
    monkeypatch.setattr(listed, "BLOCK", block)
    with pytest.raises(ReadError, match=sentence):
        parsed(text, dtype, shape)


def test_truths_may_be_spelled_out():
    assert parsed("[true, false, 1, 0]", "bool", (4,)).tolist() == [True, False, True, False]


def test_a_shape_that_the_text_cannot_fill_is_refused_before_anything_is_allocated():
    with pytest.raises(ReadError, match=r"at w: 7 bytes of text cannot hold \[1000000000000\] numbers"):
        ListedArray(MemoryWindow(b"[1, 2]\n"), "float32", (10**12,), where="w")


def test_a_row_that_takes_more_text_than_any():
    text = b"[[" + b"1" * 3_000_000 + b"]]"
    with pytest.raises(UnsafeInput, match="are to spell 1 numbers"):
        ListedArray(MemoryWindow(text), "float32", (1, 1)).numpy()


def test_a_fault_has_a_place():
    with pytest.raises(ReadError, match="at dense/kernel: two numbers have no comma"):
        ListedArray(MemoryWindow(b"[1 2 3]"), "float32", (2,), where="dense/kernel").numpy()


@given(st.text("[]0123456789.,e-+ naNIfity", max_size=40), st.sampled_from([(), (1,), (2,), (1, 2), (2, 1)]))
def test_any_text_is_read_as_json_reads_it_or_refused(text, shape):
    with contextlib.suppress(ReadError):
        found = parsed(text, "float64", shape)
        assert np.array_equal(np.array(json.loads(text), "float64"), found, equal_nan=True)


def test_a_tensor_that_gives_other_bytes_than_it_declares():
    def tensor(*pieces: bytes) -> Tensor:
        def stream() -> Iterator[bytes]:
            yield from pieces

        return Tensor("float32", (2,), lambda: np.zeros(2, "float32"), stream)

    assert b"".join(spell(tensor(b"12", b"", b"345678"))).startswith(b"[")
    for pieces, sentence in (
        ((b"1234",), "fewer bytes"),
        ((bytes(8), b"9"), "more bytes"),
        ((bytes(12),), "more bytes"),
    ):
        with pytest.raises(WriteError, match=sentence):
            list(spell(tensor(*pieces)))


# A document without its lists

LONG = ", ".join(["1.5"] * 200)


@pytest.mark.parametrize("piece", [7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 0, 4])
def test_long_lists_are_left_where_they_are(piece, indent, monkeypatch):
    monkeypatch.setattr(listed, "CHUNK", piece)
    document = {
        'a "quoted\\" [1, 2': [1.5] * 200,
        "text": '[1, 2, "\\' + LONG + "\\\\",
        "short": [1, 2],
        "nested": {"matrix": [[0.5] * 100, [2] * 100], "after": [{"last": [[3] * 400]}]},
        "\\": "\\\\",
        "texts": ["[" + LONG + "]"] * 3,
    }
    data = json.dumps(document, indent=indent).encode()
    skeleton = json.loads(without_lists(MemoryWindow(data)))
    assert {key: skeleton[key] for key in ("text", "short", "\\", "texts")} == {
        key: document[key] for key in ("text", "short", "\\", "texts")
    }
    left = [(skeleton['a "quoted\\" [1, 2'], document['a "quoted\\" [1, 2'])]
    left += [(skeleton["nested"]["matrix"], document["nested"]["matrix"])]
    left += [(skeleton["nested"]["after"][0]["last"], document["nested"]["after"][0]["last"])]
    for place, value in left:
        offset, length = place_of(place)
        assert json.loads(data[offset : offset + length]) == value


@given(
    st.recursive(
        st.text(max_size=5) | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )
)
def test_what_has_no_long_list_stays(value):
    text = json.dumps(value, ensure_ascii=False).encode()
    assert without_lists(MemoryWindow(text)) == text


@pytest.mark.parametrize(
    "text", [b"", b'"', b'"\\', b"[", b"[" * 300, b'{"a": [' + b"1," * 300, b"[" + b" " * 500 + b'"']
)
def test_what_is_cut_short_stays_cut_short(text):
    with pytest.raises(json.JSONDecodeError):
        json.loads(without_lists(MemoryWindow(text)))


def test_a_document_of_texts_without_end(monkeypatch):
    monkeypatch.setattr(listed.jsontext, "SIZE", 1000)
    with pytest.raises(UnsafeInput, match="more than 1,000 bytes of JSON beside the numbers"):
        without_lists(MemoryWindow(b'["' + b"x" * 5000 + b'"]'))


def test_other_values_are_no_places():
    for value in (None, 1, [], "", "10:20", "\x00", "\x00a:b", "\x00-1:2", "\x0010:20 "):
        assert place_of(value) is None
    assert place_of("\x0010:20") == (10, 20)
