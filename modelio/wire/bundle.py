"""The TensorBundle: TensorFlow's checkpoints since 2016, and the variables of a SavedModel.

::

    PREFIX.index                    a sorted table (table.py):
        ""                          BundleHeaderProto: number of shards, endianness, version
        name                        BundleEntryProto: dtype, shape, shard, offset, size, masked CRC32C
                                    or, for a partitioned variable: dtype, shape, slices
        00 name slice               BundleEntryProto of one slice; the key is in "ordered code"
    PREFIX.data-00000-of-00001      the tensors' bytes, row-major, little-endian, one after the other
    PREFIX.data-00001-of-...

    a string tensor                 varint64 length*, uint32 masked CRC32C of the lengths, the strings; in both
                                    checksums a length counts as a uint32 (uint64 from 4 GiB on), not as the varint
    a variant tensor                for each element varint64 length, VariantTensorDataProto, uint32 masked CRC32C of
                                    all before it, a length counting as a uint64

A partitioned variable (slices.py) is read as the tensor that it is a partition of, and written so: TensorFlow restores
slices of a whole tensor as well. Variants, which are lists of tensors, ragged tensors and such, come as an object array
of the bytes of their VariantTensorDataProto.

Sources: ``tensorflow/core/util/tensor_bundle/tensor_bundle.cc``, ``core/protobuf/tensor_bundle.proto`` (TensorFlow
2.15).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError, WriteError
from modelio.wire import messages
from modelio.wire.crc32c import extend, mask
from modelio.wire.dtypes import dtype_number, stored_dtype
from modelio.wire.slices import Part, Place, check_cover, locate, put_together, stream_together
from modelio.wire.table import read_table, write_table
from modelio.wire.varint import encode_varint, varint
from modelio.wire.window import Window, chunks

__all__ = ["Bundle", "BundleWriter", "Entry", "Shard", "Values", "shard_suffix"]

_MOST_DIMENSIONS = 32
"""What every NumPy can hold; TensorFlow allows 254 and uses 8."""

_LARGEST_TENSOR = 1 << 48
"""Bytes, empty dimensions not counted: NumPy refuses what cannot be addressed even where one size is 0."""

_MOST_SHARDS = 100_000
"""A data file's name has five digits for its number."""

_VERSION = 1

_VARIANT = 21


def shard_suffix(shard: int, count: int) -> str:
    """What follows the prefix in a data file's name.

    >>> shard_suffix(0, 1)
    '.data-00000-of-00001'
    """
    return f".data-{shard:05d}-of-{count:05d}"


class Shard(Protocol):
    """A data file: its size for nothing, its bytes when asked. A :class:`~modelio.source.Source` is one."""

    @property
    def size(self) -> int: ...

    def window(self) -> Window: ...


class Values(Protocol):
    """What can be written: a :class:`~modelio.model.Tensor`, or anything that has these."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def numpy(self) -> npt.NDArray[Any]: ...

    def chunks(self) -> Iterator[bytes | memoryview]: ...


class Entry(NamedTuple):
    """One tensor of a bundle: what it is, and where its bytes are.

    ``slices`` are the parts of a partitioned variable, each with its place in the whole; such an entry has no bytes of
    its own. ``crc`` is the masked checksum.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[tuple[Place, Entry], ...] = ()


class Bundle:
    """A bundle, open for reading: every entry is checked now, a tensor's bytes and checksum when it is read.

    Args:
        files: where the files are: a directory's members, say.
        prefix: what their names start with: ``"variables/variables"``.

    ``entries`` maps the tensors' names, in the order of the index, to their entries.

    Raises:
        ReadError: the index is missing or damaged, its entries contradict each other, or a data file is missing or too
            short.
    """

    def __init__(self, files: Mapping[str, Shard], prefix: str) -> None:
        self._files = files
        self._prefix = prefix
        self._shards: dict[int, Shard] = {}
        table = read_table(self._file(prefix + ".index").window())
        self._count = _header(table).num_shards
        self.entries: dict[str, Entry] = {}
        for key, value in table.items():
            if key[:1] not in (b"", b"\0"):
                name = _text(key)
                self.entries[name] = self._entry(name, value, table)

    def load(self, name: str) -> npt.NDArray[Any]:
        """The tensor; strings as an object array of ``bytes``. Its checksum is verified."""
        entry = self.entries[name]
        if entry.slices:
            return put_together(entry.shape, entry.dtype, self._parts(name, entry))
        return self._load(name, entry)

    def stream(self, name: str) -> Iterator[bytes | memoryview]:
        """The tensor's bytes, about a megabyte at a time; after the last, the checksum is verified."""
        entry = self.entries[name]
        if entry.dtype.hasobject:
            raise TypeError(f"{name} is a tensor of strings, which have no bytes of fixed size; load it")
        if entry.slices:
            return stream_together(entry.shape, entry.dtype, self._parts(name, entry))
        return self._stream(name, entry)

    def _parts(self, name: str, entry: Entry) -> list[Part]:
        return [
            Part(place, partial(self._load, name, part), partial(self._stream, name, part))
            for place, part in entry.slices
        ]

    def _entry(self, name: str, data: bytes, table: Mapping[bytes, bytes]) -> Entry:
        proto = messages.parse(messages.BundleEntryProto, data, where=name)
        shape = tuple(dimension.size for dimension in proto.shape.dim)
        dtype = stored_dtype(proto.dtype, where=name)
        if (
            proto.shape.unknown_rank
            or len(shape) > _MOST_DIMENSIONS
            or any(size < 0 for size in shape)
            or math.prod(size or 1 for size in shape) * dtype.itemsize > _LARGEST_TENSOR
        ):
            raise ReadError(f"the shape {shape} is none that a stored tensor can have", where=name)
        if proto.slices:
            return Entry(dtype, shape, 0, 0, 0, 0, self._slices(name, dtype, shape, proto.slices, table))
        entry = Entry(dtype, shape, proto.shard_id, proto.offset, proto.size, proto.crc32c)
        elements = math.prod(shape)
        # A string takes a byte at least, for its length.
        if entry.size < elements if dtype.hasobject else entry.size != elements * dtype.itemsize:
            raise ReadError(f"{entry.size:,} bytes cannot hold {elements:,} elements of {dtype.name}", where=name)
        shard = self._shard(name, entry)
        if entry.offset < 0 or entry.offset + entry.size > shard.size:
            raise ReadError(
                f"its bytes end at {entry.offset + entry.size:,}, and {self._shard_name(entry)} has {shard.size:,}: "
                "that file is cut short",
                where=name,
            )
        return entry

    def _slices(
        self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], slices: Any, table: Mapping[bytes, bytes]
    ) -> tuple[tuple[Place, Entry], ...]:
        parts: list[tuple[Place, Entry]] = []
        for proto in slices:
            place, key = locate(proto, shape, name)
            if key not in table:
                raise ReadError("a slice of this partitioned variable is missing from the index", where=name)
            part = self._entry(name, table[key], {})  # in which no slice has slices
            if part.dtype != dtype or part.shape != tuple(s.stop - s.start for s in place):
                raise ReadError("a slice has another dtype or shape than the variable's entry says", where=name)
            parts.append((place, part))
        check_cover(name, shape, [place for place, _ in parts])
        return tuple(parts)

    def _file(self, name: str, where: str | None = None) -> Shard:
        if name not in self._files:
            raise ReadError(f"the file {name} is missing, and without it no variable can be read", where=where)
        return self._files[name]

    def _shard_name(self, entry: Entry) -> str:
        return self._prefix + shard_suffix(entry.shard, self._count)

    def _shard(self, name: str, entry: Entry) -> Shard:
        if not 0 <= entry.shard < self._count:
            raise ReadError(f"data shard {entry.shard} of {self._count} does not exist", where=name)
        if entry.shard not in self._shards:
            self._shards[entry.shard] = self._file(self._shard_name(entry), name)
        return self._shards[entry.shard]

    def _stream(self, name: str, entry: Entry) -> Iterator[bytes | memoryview]:
        crc = 0
        for piece in chunks(self._shard(name, entry).window().part(entry.offset, entry.size)):
            crc = extend(crc, piece)
            yield piece
        self._verify(name, entry, crc)

    def _load(self, name: str, entry: Entry) -> npt.NDArray[Any]:
        array = np.empty(entry.shape, entry.dtype)
        if entry.dtype.hasobject:
            data = self._shard(name, entry).window().read(entry.offset, entry.size)
            decode = _read_variants if dtype_number(entry.dtype) == _VARIANT else _read_strings
            values, crc = decode(bytes(data), array.size, name)
            self._verify(name, entry, crc)
            array.reshape(-1)[:] = values
            return array
        flat = array.reshape(-1).view(np.uint8)
        position = 0
        for piece in self._stream(name, entry):
            flat[position : position + len(piece)] = np.frombuffer(piece, np.uint8)
            position += len(piece)
        return array

    def _verify(self, name: str, entry: Entry, crc: int) -> None:
        if mask(crc) != entry.crc:
            raise ReadError(f"its checksum does not match its bytes in {self._shard_name(entry)}: damaged", where=name)


class BundleWriter:
    """Writes a bundle: tensors one after the other into ``data``, the index when all are there.

    The same tensors in the same order give the bytes that TensorFlow's ``BundleWriter`` gives.
    """

    def __init__(self, data: BinaryIO) -> None:
        self._data = data
        self._shard = 0
        self._offset = 0
        self._entries: dict[bytes, bytes] = {}

    def go_on(self, data: BinaryIO) -> None:
        """Put what is added from now on into the next data file."""
        self._data = data
        self._shard += 1
        self._offset = 0

    def add(self, name: str, tensor: Values) -> None:
        """Copy a tensor, piece by piece.

        Raises:
            WriteError: the name cannot stand in a bundle or is taken, or no TensorFlow type is like the tensor's.
        """
        key = name.encode()
        if not key or key[:1] == b"\0" or key in self._entries:
            raise WriteError("a variable's name is empty, starts with a zero byte, or is there twice", where=repr(name))
        number = dtype_number(tensor.dtype)
        head, crc = b"", 0
        pieces: Iterable[bytes | memoryview]
        if tensor.dtype.hasobject:
            head, crc, pieces = _object_pieces(tensor.numpy(), number == _VARIANT, name)
        else:
            pieces = tensor.chunks()
        self._data.write(head)
        size = len(head)
        for piece in pieces:
            data = bytes(piece)  # no copy where it is bytes already; the checksum takes nothing else
            self._data.write(data)
            crc = extend(crc, data)
            size += len(data)
        if not tensor.dtype.hasobject and size != math.prod(tensor.shape) * tensor.dtype.itemsize:
            raise WriteError(f"{size:,} bytes do not fill the shape {tensor.shape} of {tensor.dtype.name}", where=name)
        entry = messages.BundleEntryProto(
            dtype=number, shard_id=self._shard, offset=self._offset, size=size, crc32c=mask(crc)
        )
        entry.shape.SetInParent()
        for length in tensor.shape:
            entry.shape.dim.add(size=length)
        self._entries[key] = messages.serialize(entry)
        self._offset += size

    def finish(self) -> bytes:
        """The index of all that was added."""
        header = messages.BundleHeaderProto(num_shards=self._shard + 1)
        header.version.producer = 1
        return write_table([(b"", messages.serialize(header)), *sorted(self._entries.items())])


# Reading


def _header(table: dict[bytes, bytes]) -> Any:
    if b"" not in table:
        raise ReadError("the index has no header: it is a table of something else than tensors")
    header = messages.parse(messages.BundleHeaderProto, table[b""], where="the index's header")
    if header.num_shards < 1:
        raise ReadError("the header names no data shard: this is a checkpoint of the first kind (V1), or damaged")
    if header.num_shards > _MOST_SHARDS:
        raise ReadError(f"the header names {header.num_shards:,} data shards, more than there are names for")
    if header.endianness != messages.BundleHeaderProto.LITTLE:
        raise ReadError("this checkpoint was written on a big-endian machine; only little-endian ones are read")
    if header.version.min_consumer > _VERSION:
        raise ReadError(f"this checkpoint is for readers of version {header.version.min_consumer}; this is {_VERSION}")
    return header


def _text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise ReadError("a tensor's name is not UTF-8", where=repr(key)) from None


def _read_strings(data: bytes, count: int, name: str) -> tuple[list[bytes], int]:
    """The strings, and the checksum of what they were read from."""
    lengths: list[int] = []
    position = 0
    for _ in range(count):
        length, position = varint(data, position)
        lengths.append(length)
    crc = extend(0, _packed(lengths))
    checksum = data[position : position + 4]
    if struct.pack("<I", mask(crc)) != checksum:
        raise ReadError("the checksum of the strings' lengths does not match: damaged", where=name)
    position += 4
    if sum(lengths) != len(data) - position:
        raise ReadError(f"strings of {sum(lengths):,} bytes in a place of {len(data) - position:,}", where=name)
    crc = extend(extend(crc, checksum), data[position:])
    strings: list[bytes] = []
    for length in lengths:
        strings.append(data[position : position + length])
        position += length
    return strings, crc


def _packed(lengths: list[int]) -> bytes:
    return b"".join(struct.pack("<I" if length < 1 << 32 else "<Q", length) for length in lengths)


def _read_variants(data: bytes, count: int, name: str) -> tuple[list[bytes], int]:
    """The elements, each a VariantTensorDataProto, and the checksum of what they were read from."""
    elements: list[bytes] = []
    crc = position = 0
    for _ in range(count):
        length, position = varint(data, position)
        element = data[position : position + length]
        position += length
        checksum = data[position : position + 4]
        position += 4
        crc = extend(extend(crc, struct.pack("<Q", length)), element)
        if struct.pack("<I", mask(crc)) != checksum:
            raise ReadError("the checksum of an element does not match: damaged", where=name)
        crc = extend(crc, checksum)
        elements.append(element)
    if position != len(data):
        raise ReadError(f"{count} elements in a place of {len(data):,} bytes end at {position:,}", where=name)
    return elements, crc


# Writing


def _object_pieces(values: npt.NDArray[Any], variant: bool, name: str) -> tuple[bytes, int, list[bytes]]:
    """The head of a tensor of strings or variants, the checksum after it, and the rest."""
    strings = list(values.reshape(-1))
    if not all(isinstance(string, bytes) for string in strings):
        raise WriteError("a tensor of objects that are not all bytes; encode its strings", where=name)
    if variant:
        return _variant_pieces(strings)
    lengths = [len(string) for string in strings]
    crc = extend(0, _packed(lengths))
    checksum = struct.pack("<I", mask(crc))
    return b"".join(map(encode_varint, lengths)) + checksum, extend(crc, checksum), strings


def _variant_pieces(elements: list[bytes]) -> tuple[bytes, int, list[bytes]]:
    data = bytearray()
    crc = 0
    for element in elements:
        crc = extend(extend(crc, struct.pack("<Q", len(element))), element)
        checksum = struct.pack("<I", mask(crc))
        crc = extend(crc, checksum)
        data += encode_varint(len(element)) + element + checksum
    return bytes(data), crc, []
