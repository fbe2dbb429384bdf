"""TensorFlow's element types and TensorProto values, as NumPy has them.

One row a type: its number in the enum DataType, TensorFlow's name for it, NumPy's (``None``: it has no numbers), and
the field of TensorProto that lists its values where they are not in ``tensor_content``. A number 100 higher is a
reference to a TensorFlow 1 variable of that type.

Sources: ``tensorflow/core/framework/types.proto``, ``tensor.cc`` (``Tensor::FromProto``, ``ProtoHelper``), and
``tensorflow/python/framework/tensor_util.py`` (``MakeNdarray``), TensorFlow 2.21.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.wire.varint import varint

__all__ = [
    "CUT",
    "REF",
    "cut_tensor",
    "dtype_name",
    "dtype_number",
    "numpy_dtype",
    "numpy_to_tensor",
    "shape_to_tuple",
    "stored_dtype",
    "tensor_to_numpy",
    "tuple_to_shape",
    "value_field",
]

REF = 100
"""What a reference type's number is above its value type's."""

CUT = 2**31 - 1
"""``version_number`` of a TensorProto whose content :mod:`modelio.wire.skim` left in its file; TensorFlow writes 0."""

_EXPANDED = 2**31
"""Bytes that a value may grow to when its last listed element repeats: as much as protobuf lets a file spell out."""

_RANK = 32
"""Dimensions of an array that every NumPy can make."""


_NUMBER = "tensorflow"
"""Key in a dtype's metadata: the number of a type that NumPy knows as another."""


class _Row(NamedTuple):
    number: int
    name: str
    numpy: str | None
    field: str


_ROWS = (
    _Row(1, "float32", "float32", "float_val"),
    _Row(2, "float64", "float64", "double_val"),
    _Row(3, "int32", "int32", "int_val"),
    _Row(4, "uint8", "uint8", "int_val"),
    _Row(5, "int16", "int16", "int_val"),
    _Row(6, "int8", "int8", "int_val"),
    _Row(7, "string", "object", "string_val"),
    _Row(8, "complex64", "complex64", "scomplex_val"),
    _Row(9, "int64", "int64", "int64_val"),
    _Row(10, "bool", "bool", "bool_val"),
    _Row(11, "qint8", "int8", "int_val"),
    _Row(12, "quint8", "uint8", "int_val"),
    _Row(13, "qint32", "int32", "int_val"),
    _Row(14, "bfloat16", "bfloat16", "half_val"),
    _Row(15, "qint16", "int16", "int_val"),
    _Row(16, "quint16", "uint16", "int_val"),
    _Row(17, "uint16", "uint16", "int_val"),
    _Row(18, "complex128", "complex128", "dcomplex_val"),
    _Row(19, "float16", "float16", "half_val"),
    _Row(20, "resource", None, "resource_handle_val"),
    _Row(21, "variant", None, "variant_val"),
    _Row(22, "uint32", "uint32", "uint32_val"),
    _Row(23, "uint64", "uint64", "uint64_val"),
    _Row(24, "float8_e5m2", "float8_e5m2", "float8_val"),
    _Row(25, "float8_e4m3fn", "float8_e4m3fn", "float8_val"),
    _Row(26, "float8_e4m3fnuz", "float8_e4m3fnuz", "float8_val"),
    _Row(27, "float8_e4m3b11fnuz", "float8_e4m3b11fnuz", "float8_val"),
    _Row(28, "float8_e5m2fnuz", "float8_e5m2fnuz", "float8_val"),
    _Row(29, "int4", "int4", "int_val"),
    _Row(30, "uint4", "uint4", "int_val"),
    _Row(31, "int2", "int2", "int_val"),
    _Row(32, "uint2", "uint2", "int_val"),
    _Row(33, "float4_e2m1fn", "float4_e2m1fn", "float8_val"),
)
_BY_NUMBER = {row.number: row for row in _ROWS}
_BY_NAME = {row.name: row.number for row in _ROWS} | {"half": 19, "float": 1, "double": 2}
_BY_NUMPY = {row.numpy: row.number for row in reversed(_ROWS) if row.numpy and not row.name.startswith(("q", "string"))}


def dtype_name(number: int) -> str:
    """TensorFlow's name of a DataType; ``"unknown"`` for 0 and for types newer than this table.

    >>> dtype_name(1), dtype_name(19), dtype_name(101), dtype_name(0)
    ('float32', 'float16', 'float32_ref', 'unknown')
    """
    row = _BY_NUMBER.get(number % REF)
    if row is None or not 0 <= number < 2 * REF:
        return "unknown"
    return row.name + ("_ref" if number > REF else "")


def dtype_number(name: str | np.dtype[Any]) -> int:
    """The DataType of a TensorFlow name or a NumPy dtype; 0 for ``"unknown"``.

    :class:`~modelio.errors.WriteError` where TensorFlow has no such type.

    >>> dtype_number("string"), dtype_number("float32_ref"), dtype_number(np.dtype("bool"))
    (7, 101, 10)
    """
    number: int | None
    if isinstance(name, np.dtype):
        own = dict(name.metadata or {}).get(_NUMBER)
        number = own or (7 if name.kind in "OSUT" else _BY_NUMPY.get(name.name))
    elif name == "unknown":
        number = 0
    elif name.endswith("_ref"):
        number = dtype_number(name.removesuffix("_ref")) + REF
    else:
        number = _BY_NAME.get(name)
    if number is None:
        raise WriteError(f"TensorFlow has no element type {name}; cast it to one that it has, float32 say")
    return number


def numpy_dtype(number: int, *, where: str | None = None) -> np.dtype[Any]:
    """The NumPy dtype of a DataType, in native byte order: quantized types are their integers, strings ``object``.

    :class:`~modelio.errors.ReadError` where there is none: resources, variants, unknown types.
    """
    row = _BY_NUMBER.get(number % REF)
    if row is None or not 0 <= number < 2 * REF:
        raise ReadError(f"element type {number} is not one that TensorFlow has", where=where)
    if row.numpy is None:
        raise ReadError(f"a {row.name} is a handle inside a running TensorFlow: it has no numbers", where=where)
    try:
        return np.dtype(row.numpy)
    except TypeError:
        return _narrow(row.numpy, where)


def stored_dtype(number: int, *, where: str | None = None) -> np.dtype[Any]:
    """As :func:`numpy_dtype`, and :func:`dtype_number` finds its way back: what NumPy knows as another type is noted.

    Quantized numbers are their integers, variants ``object`` arrays of the bytes of their VariantTensorDataProto.

    >>> stored_dtype(11).name, dtype_number(stored_dtype(11)), dtype_number(stored_dtype(21))
    ('int8', 11, 21)
    """
    if number == _BY_NAME["variant"]:
        return np.dtype(object, metadata={_NUMBER: number})
    dtype = numpy_dtype(number, where=where)
    return np.dtype(dtype, metadata={_NUMBER: number}) if dtype_name(number).startswith("q") else dtype


def _narrow(name: str, where: str | None) -> np.dtype[Any]:
    """The dtypes that NumPy itself does not have."""
    import ml_dtypes

    if not hasattr(ml_dtypes, name):
        raise ReadError(f"{name} needs a newer ml-dtypes: pip install -U ml-dtypes", where=where)
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype


def value_field(number: int) -> str:
    """The field of TensorProto that lists values of a DataType that TensorFlow has.

    >>> value_field(19)
    'half_val'
    """
    return _BY_NUMBER[number % REF].field


def shape_to_tuple(shape: Any) -> tuple[int | None, ...] | None:
    """A TensorShapeProto as a TensorSpec has it: None for an unknown size, and None for an unknown rank."""
    if shape.unknown_rank:
        return None
    return tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)


def tuple_to_shape(shape: Sequence[int | None] | None) -> Any:
    """The TensorShapeProto of a shape; the reverse of :func:`shape_to_tuple`."""
    from modelio.wire.messages import TensorShapeProto

    result = TensorShapeProto(unknown_rank=shape is None)
    for size in shape or ():
        result.dim.add(size=-1 if size is None else size)
    return result


def cut_tensor(number: int, shape: Sequence[int]) -> Any:
    """A TensorProto of this DataType and shape whose content lies elsewhere, marked as such."""
    from modelio.wire.messages import TensorProto

    return TensorProto(dtype=number, tensor_shape=tuple_to_shape(shape), version_number=CUT)


def tensor_to_numpy(tensor: Any, *, where: str | None = None) -> npt.NDArray[Any]:
    """The array that a TensorProto holds; read-only where it repeats one number or shares the message's bytes.

    Strings come as ``object`` arrays of ``bytes``. As in TensorFlow, listed values fill the shape, the last one
    repeating, and a tensor without any is all zeros. :class:`~modelio.errors.ReadError` where content and shape
    disagree; :class:`~modelio.errors.UnsafeInput` where repeating would take more than 2 GiB.
    """
    dtype = numpy_dtype(tensor.dtype, where=where)
    shape = _constant_shape(tensor.tensor_shape, where)
    if tensor.version_number == CUT:
        raise ReadError("this value was left in its file; the model's constants have it", where=where)
    if tensor.tensor_content:
        return _from_content(tensor.tensor_content, dtype, shape, where)
    return _from_list(tensor, dtype, shape, where)


def _constant_shape(shape: Any, where: str | None) -> tuple[int, ...]:
    """The shape of a value, which says all its sizes, and no more of them than NumPy can hold."""
    sizes = [dim.size for dim in shape.dim]
    if shape.unknown_rank or any(size < 0 for size in sizes):
        raise ReadError("this value leaves its own shape open; a constant must say it", where=where)
    if len(sizes) > _RANK or prod(size or 1 for size in sizes) >= 2**58:  # NumPy multiplies even beside a zero
        raise ReadError(f"no array can have the shape {sizes}", where=where)
    return tuple(sizes)


def _from_content(content: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], where: str | None) -> npt.NDArray[Any]:
    if dtype.hasobject:
        return _strings(_split(content, prod(shape), where), shape)
    if len(content) != prod(shape) * dtype.itemsize:
        raise ReadError(
            f"{len(content):,} bytes of content do not fill {list(shape)} of {dtype.name}, "
            f"which takes {prod(shape) * dtype.itemsize:,}",
            where=where,
        )
    little = np.frombuffer(content, dtype.newbyteorder("<") if dtype.itemsize > 1 else dtype)
    return little.astype(dtype, copy=False).reshape(shape)


def _from_list(tensor: Any, dtype: np.dtype[Any], shape: tuple[int, ...], where: str | None) -> npt.NDArray[Any]:
    field = getattr(tensor, _BY_NUMBER[tensor.dtype % REF].field)
    count = prod(shape)
    if count > len(field) and count * dtype.itemsize > _EXPANDED:
        raise UnsafeInput(
            f"{len(field):,} listed values are to fill {list(shape)} of {dtype_name(tensor.dtype)}, "
            f"{count * dtype.itemsize:,} bytes of the same",
            where=where,
        )
    if dtype.hasobject:
        return _strings(list(field)[:count], shape)
    values = _listed(field, tensor.dtype, dtype)[:count]
    if len(values) < 2 and count > 1:
        return np.broadcast_to(values[0] if len(values) else np.zeros((), dtype), shape)
    filled = np.zeros(count, dtype)
    filled[: len(values)] = values
    filled[len(values) :] = values[-1:] if len(values) else 0
    return filled.reshape(shape)


def _listed(field: Any, number: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The elements that a ``*_val`` field lists, as ``dtype``."""
    name = _BY_NUMBER[number % REF].field
    if name == "float8_val":
        return np.array(list(field), np.uint8).view(dtype)
    if name == "half_val":
        return np.fromiter(field, np.int64, len(field)).astype(np.uint16).view(dtype)
    if name in ("scomplex_val", "dcomplex_val"):
        parts = np.fromiter(field, np.float32 if name == "scomplex_val" else np.float64, len(field))
        return parts[: len(parts) // 2 * 2].view(dtype)
    wide = np.int64 if name == "int_val" else dtype
    return np.fromiter(field, wide, len(field)).astype(dtype, copy=False)


def _strings(values: list[bytes], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    filled = np.empty(prod(shape), object)
    filled[: len(values)] = values
    filled[len(values) :] = values[-1] if values else b""
    return filled.reshape(shape)


def _split(content: bytes, count: int, where: str | None) -> list[bytes]:
    """Strings in ``tensor_content``: all lengths as varints, then all bytes (``port::EncodeStringList``)."""
    if count > len(content):  # every length takes a byte
        raise ReadError(f"{len(content):,} bytes of content cannot hold {count:,} strings", where=where)
    lengths, position = [], 0
    for _ in range(count):
        length, position = varint(content, position)
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise ReadError("the lengths of the strings do not add up to the content", where=where)
    values = []
    for length in lengths:
        values.append(content[position : position + length])
        position += length
    return values


def numpy_to_tensor(array: npt.ArrayLike) -> Any:
    """The TensorProto of an array: one number in its list, several in ``tensor_content``, strings in ``string_val``.

    Every version of TensorFlow reads all spellings; ``make_tensor_proto`` mostly chooses as here. ``str`` is UTF-8.
    """
    from modelio.wire.messages import TensorProto

    values = np.asarray(array)
    row = _BY_NUMBER[dtype_number(values.dtype)]
    tensor = TensorProto(dtype=row.number, tensor_shape=tuple_to_shape(values.shape))
    if row.numpy is None:
        raise WriteError(f"a {row.name} is no constant: it means something inside a running TensorFlow alone")
    if row.name == "string":
        tensor.string_val.extend(_encoded(value) for value in values.ravel().tolist())
    elif values.size == 1:
        _list_one(tensor, row.field, values.reshape(1))
    else:
        little = values.astype(values.dtype.newbyteorder("<"), copy=False) if values.dtype.itemsize > 1 else values
        tensor.tensor_content = little.tobytes()
    return tensor


def _list_one(tensor: Any, name: str, value: npt.NDArray[Any]) -> None:
    if name == "float8_val":
        tensor.float8_val = value.tobytes()
    elif name == "half_val":
        tensor.half_val.append(int(value.view(np.uint16)[0]))
    elif name in ("scomplex_val", "dcomplex_val"):
        getattr(tensor, name).extend([float(value[0].real), float(value[0].imag)])
    elif name == "int_val":
        tensor.int_val.append(int(value[0]))
    else:
        getattr(tensor, name).append(value[0].item())


def _encoded(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise WriteError(f"an array of objects holds a {type(value).__name__}; TensorFlow's strings are str or bytes")
