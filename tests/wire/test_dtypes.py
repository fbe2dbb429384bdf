"""Element types and the values of constants: TensorFlow's rules, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.wire import messages
from modelio.wire.dtypes import (
    CUT,
    dtype_name,
    dtype_number,
    numpy_dtype,
    numpy_to_tensor,
    shape_to_tuple,
    tensor_to_numpy,
    tuple_to_shape,
)

# The numbers of types.proto, TensorFlow's names for them, NumPy's.
TYPES = [
    (1, "float32", "float32"),
    (2, "float64", "float64"),
    (3, "int32", "int32"),
    (4, "uint8", "uint8"),
    (5, "int16", "int16"),
    (6, "int8", "int8"),
    (7, "string", "object"),
    (8, "complex64", "complex64"),
    (9, "int64", "int64"),
    (10, "bool", "bool"),
    (11, "qint8", "int8"),
    (14, "bfloat16", "bfloat16"),
    (17, "uint16", "uint16"),
    (18, "complex128", "complex128"),
    (19, "float16", "float16"),
    (22, "uint32", "uint32"),
    (23, "uint64", "uint64"),
    (24, "float8_e5m2", "float8_e5m2"),
    (25, "float8_e4m3fn", "float8_e4m3fn"),
    (29, "int4", "int4"),
]


def tensor(dtype: int, shape: list[int], **values) -> messages.TensorProto:
    return messages.TensorProto(dtype=dtype, tensor_shape=tuple_to_shape(shape), **values)


@pytest.mark.parametrize(("number", "name", "numpy"), TYPES)
def test_a_type_has_a_number_a_name_and_a_dtype(number, name, numpy):
    assert dtype_name(number) == name
    assert dtype_number(name) == number
    assert dtype_name(number + 100) == f"{name}_ref"
    assert dtype_number(f"{name}_ref") == number + 100
    assert numpy_dtype(number).name == numpy
    assert numpy_dtype(number + 100).name == numpy


@pytest.mark.parametrize(
    ("dtype", "number"),
    [("float32", 1), ("int8", 6), ("S7", 7), ("U7", 7), ("O", 7), (">f8", 2), ("bool", 10), ("float16", 19)],
)
def test_an_array_has_the_plain_type_of_its_dtype(dtype, number):
    assert dtype_number(np.dtype(dtype)) == number


@pytest.mark.parametrize("dtype", [np.dtype("datetime64[s]"), np.dtype([("a", "i4")]), "float13"])
def test_what_tensorflow_has_no_type_for(dtype):
    with pytest.raises(WriteError, match="no element type"):
        dtype_number(dtype)


@pytest.mark.parametrize("number", [0, 57, 100, 157, 201, -1])
def test_a_number_from_the_future_or_none(number):
    assert dtype_name(number) == "unknown"
    with pytest.raises(ReadError, match="not one that TensorFlow has"):
        numpy_dtype(number)


@pytest.mark.parametrize("number", [20, 21])
def test_a_handle_has_no_numbers(number):
    with pytest.raises(ReadError, match="no numbers"):
        numpy_dtype(number)


def test_shapes():
    assert shape_to_tuple(tuple_to_shape((2, None, 3))) == (2, None, 3)
    assert shape_to_tuple(tuple_to_shape(None)) is None
    assert shape_to_tuple(messages.TensorShapeProto()) == ()  # said nothing: a scalar, not unknown


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (tensor(1, [2], tensor_content=bytes.fromhex("0000803f00000040")), [1, 2]),
        (tensor(3, [3], int_val=[7]), [7, 7, 7]),
        (tensor(1, [4], float_val=[1, 2]), [1, 2, 2, 2]),
        (tensor(1, [2, 2]), [[0, 0], [0, 0]]),
        (tensor(1, [2], float_val=[1, 2, 3]), [1, 2]),
        (tensor(1, [0], float_val=[1]), []),
        (tensor(1, [], float_val=[5]), 5),
        (tensor(10, [2], bool_val=[True, False]), [True, False]),
        (tensor(9, [1], int64_val=[-(2**40)]), [-(2**40)]),
        (tensor(23, [1], uint64_val=[2**63]), [2**63]),
        (tensor(6, [1], int_val=[-3]), [-3]),
        (tensor(4, [1], int_val=[255]), [255]),
        (tensor(19, [2], half_val=[0x3C00, 0xC000]), [1, -2]),
        (tensor(14, [1], half_val=[0x3FC0]), [1.5]),
        (tensor(8, [2], scomplex_val=[1, 2, 3, 4]), [1 + 2j, 3 + 4j]),
        (tensor(18, [1], dcomplex_val=[1, 2]), [1 + 2j]),
        (tensor(24, [2], float8_val=b"\x3c"), [1, 1]),
        (tensor(7, [3], string_val=[b"a", b"b"]), [b"a", b"b", b"b"]),
        (tensor(7, [2]), [b"", b""]),
        (tensor(7, [2], tensor_content=b"\x01\x02abc"), [b"a", b"bc"]),
        (tensor(7, [], string_val=[b"\xff\0"]), b"\xff\0"),
    ],
    ids=str,
)
def test_a_value_is_read_as_tensorflow_reads_it(proto, expected):
    array = tensor_to_numpy(proto)
    assert array.dtype == numpy_dtype(proto.dtype)
    assert array.shape == np.shape(expected)
    assert array.tolist() == expected


@pytest.mark.parametrize(
    ("proto", "error", "reason"),
    [
        (tensor(1, [3], tensor_content=b"12345678"), ReadError, "8 bytes of content do not fill"),
        (tensor(1, [-1], float_val=[1]), ReadError, "leaves its own shape open"),
        (tensor(1, None, float_val=[1]), ReadError, "leaves its own shape open"),
        (tensor(1, [10**6, 10**6], float_val=[1]), UnsafeInput, "4,000,000,000,000 bytes"),
        (tensor(7, [10**12]), UnsafeInput, "1000000000000"),
        (tensor(7, [10**12], tensor_content=b"\0"), ReadError, "cannot hold 1,000,000,000,000 strings"),
        (tensor(7, [1], tensor_content=b"\x05abc"), ReadError, "do not add up"),
        (tensor(1, [0, 2**62, 2**62]), ReadError, "no array can have the shape"),
        (tensor(1, [1] * 70, float_val=[1]), ReadError, "no array can have the shape"),
        (tensor(20, []), ReadError, "no numbers"),
        (tensor(1, [2], version_number=CUT), ReadError, "left in its file"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_refused_before_it_takes_memory(proto, error, reason):
    with pytest.raises(error, match=reason) as caught:
        tensor_to_numpy(proto, where="node")
    assert caught.value.where == "node"


def test_one_number_repeated_a_million_times_takes_no_memory():
    array = tensor_to_numpy(tensor(1, [1000, 1000], float_val=[2.5]))
    assert array.shape == (1000, 1000)
    assert array.strides == (0, 0)
    assert array[999, 999] == 2.5


@pytest.mark.parametrize("name", [name for _, _, name in TYPES if name != "object"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 4)], ids=str)
def test_arrays_become_tensors_and_arrays_again(name, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(numpy_dtype(dtype_number(name)))
    back = tensor_to_numpy(numpy_to_tensor(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array", [np.array(["ä", "b"]), np.array([b"\xc3\xa4", b"b"]), np.array(["ä", b"b"], object)], ids=repr
)
def test_strings_are_bytes(array):
    assert tensor_to_numpy(numpy_to_tensor(array)).tolist() == ["ä".encode(), b"b"]


def test_big_endian_arrays_are_turned_round():
    assert numpy_to_tensor(np.array([1, 2], ">i4")).tensor_content == b"\1\0\0\0\2\0\0\0"


def test_objects_that_are_no_strings():
    with pytest.raises(WriteError, match="holds a int"):
        numpy_to_tensor(np.array([1, "a"], object))


@pytest.mark.slow
def test_tensorflow_agrees():
    tf = pytest.importorskip("tensorflow")
    for number in range(1, 34):
        assert dtype_name(number) == tf.dtypes.as_dtype(number).name
    for _, name, numpy in TYPES:
        if numpy != "object" and not name.startswith("q"):
            array = np.arange(3).astype(numpy_dtype(dtype_number(name)))
            theirs = tf.make_tensor_proto(array, dtype=name)
            read = messages.TensorProto.FromString(theirs.SerializeToString())
            assert tensor_to_numpy(read).tobytes() == array.tobytes(), name
            written = messages.serialize(numpy_to_tensor(array))
            assert tf.io.parse_tensor(written, name).numpy().tobytes() == array.tobytes(), name
