"""NumPy's files: what NumPy writes is read, what is written NumPy reads; nothing is unpickled, nothing is believed."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.model import Tensor
from modelio.wire.npz import Writer, read_npy
from modelio.wire.raw import RawArray
from modelio.wire.window import MemoryWindow
from tests.corpus import cases


def saved(array: object, **options: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def opened(data: bytes) -> RawArray:
    return read_npy(MemoryWindow(data), where="0000.npy")


ARRAYS = {
    "float": np.arange(6, dtype="float32").reshape(2, 3),
    "scalar": np.array(2.5),
    "nothing": np.zeros((0, 4), "int8"),
    "bool": np.array([[True], [False]]),
    "half": np.arange(3, dtype="float16"),
    "complex": np.array([1j]),
    "unsigned": np.array([2**63], "uint64"),
    "big-endian": np.arange(6, dtype=">i2").reshape(3, 2),
    "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "a column": np.asfortranarray(np.arange(3.0)),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_what_numpy_saves(array):
    found = opened(saved(array))
    native = np.array(array, array.dtype.newbyteorder("="), order="C")
    assert (found.dtype, found.shape) == (native.dtype, native.shape)
    assert found.dtype.isnative
    assert found.numpy().flags.c_contiguous
    assert found.numpy().shape == array.shape
    assert np.array_equal(found.numpy(), native)
    assert b"".join(map(bytes, found.chunks())) == native.tobytes()


def test_bfloat16_is_two_bytes_of_no_type():
    array = np.array([1, -2.5], ml_dtypes.bfloat16)
    found = opened(saved(array))
    assert found.dtype == array.dtype
    assert np.array_equal(found.numpy(), array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_header_versions(version):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.arange(3), version=version)
    assert opened(stream.getvalue()).numpy().tolist() == [0, 1, 2]


@pytest.mark.parametrize("case", cases(file="weights_list.npz"), ids=str)
def test_real_archives_are_written_again_as_numpy_wrote_them(case):
    with np.load(case / "weights_list.npz", allow_pickle=True) as archive:
        arrays = {name: archive[name] for name in archive.files if not archive[name].dtype.hasobject}
    stream = io.BytesIO()
    with Writer(stream) as file:
        for name, array in arrays.items():
            file.add(name, Tensor.of(array))
    with zipfile.ZipFile(case / "weights_list.npz") as theirs, zipfile.ZipFile(stream) as ours:
        assert ours.testzip() is None
        assert ours.namelist() == [f"{name}.npy" for name in arrays]
        for name, array in arrays.items():
            assert ours.read(f"{name}.npy") == saved(array)
            assert np.array_equal(opened(theirs.read(f"{name}.npy")).numpy(), array)


def npy(header: str | bytes, data: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", size) + text + data


def described(descr: str = "'<f4'", shape: str = "(2,)", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


REFUSED = {
    "pickle": (saved(np.array([{}], object), allow_pickle=True), UnsafeInput, "an array of Python objects is a pickle"),
    "pickle in a structure": (npy(described("[('a', '|O')]")), UnsafeInput, "an array of Python objects is a pickle"),
    "structure": (saved(np.zeros(2, "i4,f4")), ReadError, "elements of type [('f0', '<i4'), ('f1', '<f4')]"),
    "text": (saved(np.array(["x"])), ReadError, "elements of type <U1; weights are numbers"),
    "dates": (saved(np.array(["2020"], "M8[Y]")), ReadError, "elements of type <M8[Y]"),
    "another file": (b"PK\3\4" + bytes(60), ReadError, "this is not a .npy array"),
    "nothing": (b"", ReadError, "this is not a .npy array"),
    "version 9": (npy(described(), bytes(8), 9), ReadError, "this is not a .npy array"),
    "no header": (npy(described())[:20], ReadError, "the .npy array is cut short in its header"),
    "long header": (npy(described(), b"", 2, 1 << 30), UnsafeInput, "a .npy header of 1,073,741,824 bytes"),
    "code": (npy("__import__('os').system('true')"), ReadError, "the .npy header is not what NumPy writes"),
    "deep": (npy("[" * 5000), ReadError, "the .npy header is not what NumPy writes"),
    "no shape": (npy("{'descr': '<f4'}"), ReadError, "the .npy header is not what NumPy writes"),
    "negative": (npy(described(shape="(-1,)"), bytes(8)), ReadError, "the .npy header gives the shape (-1,)"),
    "a float": (npy(described(shape="(2.0,)"), bytes(8)), ReadError, "the .npy header gives the shape (2.0,)"),
    "cut short": (npy(described(), bytes(7)), ReadError, "7 bytes are not [2] of float32, which takes 8"),
    "surplus": (npy(described(), bytes(9)), ReadError, "9 bytes are not [2] of float32, which takes 8"),
    "huge": (npy(described(shape="(1 << 62,)"), bytes(8)), ReadError, "the .npy header is not what NumPy writes"),
    "huge beside a zero": (npy(described(shape=f"(0, {1 << 62})")), ReadError, "no array can have the shape"),
    "enormous": (npy(described(shape=f"({1 << 40},)"), bytes(8)), ReadError, "8 bytes are not [1099511627776]"),
    "many dimensions": (npy(described(shape=f"({'1,' * 33})"), bytes(4)), ReadError, "no array can have the shape"),
}


@pytest.mark.parametrize(("data", "error", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refused(data, error, sentence):
    with pytest.raises(error) as caught:
        opened(data)
    assert caught.value.reason.startswith(sentence)
    assert caught.value.where == "0000.npy"


def test_numbers_stream_through(tmp_path):
    def pieces() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 20)

    large = Tensor("float32", (1 << 24,), lambda: pytest.fail("the whole tensor is asked for"), pieces)
    with open(tmp_path / "large.npz", "w+b") as stream:
        tracemalloc.start()
        with Writer(stream) as file:
            file.add("0000", large)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20
    assert np.load(tmp_path / "large.npz")["0000"].shape == (1 << 24,)


UNWRITABLE = {
    "objects": (Tensor.of(np.array([b"x"], object)), ".npy has no spelling for elements of object"),
    "float8": (Tensor.of(np.ones(2, ml_dtypes.float8_e5m2)), ".npy has no spelling for elements of float8_e5m2"),
    "too few bytes": (
        Tensor("float32", (2,), lambda: np.zeros(2), lambda: iter([b"1234"])),
        "8 bytes are declared, and 4 came",
    ),
}


@pytest.mark.parametrize(("tensor", "sentence"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_unwritable(tensor, sentence):
    with Writer(io.BytesIO()) as file, pytest.raises(WriteError) as caught:
        file.add("0000", tensor)
    assert caught.value.reason == sentence
    assert caught.value.where == "0000"
