"""HDF5, guarded: the one module that imports h5py.

::

    group "/"                     attributes: text, numbers, arrays of names
     |- group "a"
     |   |- dataset "kernel:0"    contiguous: so many bytes at an offset of the file; they are read without libhdf5
     |   '- dataset "bias:0"      chunked: pieces, perhaps compressed; read through libhdf5 when asked
     '- ...

What a file may ask for and does not get: links other than plain (hard) ones, raw data in other files, datasets made
up of other datasets, references, filters that would load a plug-in, more links or levels than any model has, a
dataset that declares more bytes than are stored. h5py reads through the window that it is given, so that a file in
memory, a part of a zip and a path are one case, and no file lock is taken.

Source: the HDF5 file format specification 3.0.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5a, h5d, h5g, h5l, h5o, h5p, h5s, h5t

from modelio.errors import ModelioError, ReadError, UnsafeInput, WriteError
from modelio.wire import hdf5_objects
from modelio.wire.hdf5_objects import Attribute, OtherKind
from modelio.wire.hdf5_stream import Stream
from modelio.wire.raw import RawArray, Values
from modelio.wire.window import CHUNK, Window

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["File", "Writer", "is_hdf5"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"

LINKS = 100_000
"""Groups and datasets of one file. ResNet-152 with the state of its optimizer makes 4,000."""

DEPTH = 64
"""Nested groups; the scopes of a weight's name are groups, too."""

INFLATE_RATIO = 1100
"""Deflate cannot expand by more than 1032 to 1 (zlib, technical notes); constant data under other filters can, and is
refused with it: no trained weights look like that."""

INFLATE_LIMIT = 4 << 30
"""Bytes that one compressed dataset may unpack to; larger ones are written uncompressed, as Keras does."""

ATTRIBUTE_LIMIT = 64 << 20
"""Bytes of one attribute as it lies in the file, where newer versions of HDF5 allow more than 64 KB."""

# Filters that libhdf5 and h5py bring along: deflate, shuffle, fletcher32, szip, nbit, scaleoffset, and h5py's own lzf.
# For any other number libhdf5 would search directories for a shared library to load.
_BUILT_IN_FILTERS = {1, 2, 3, 4, 5, 6, 32000}

_VARIABLE = (h5py.string_dtype("ascii"), h5py.string_dtype("utf-8"))
"""Text of any length, by the number of its character set."""

_VARIABLE_TYPES = tuple(h5t.py_create(dtype) for dtype in _VARIABLE)  # in memory: references to Python objects

_KINDS = {
    h5t.TypeStringID: "text",
    h5t.TypeCompoundID: "structures",
    h5t.TypeReferenceID: "references, which are not followed",
    h5t.TypeVlenID: "lists of any length",
    h5t.TypeArrayID: "arrays in every element",
    h5t.TypeEnumID: "an enumeration",
}

_NUMBERS = (h5t.TypeIntegerID, h5t.TypeFloatID, h5t.TypeBitfieldID)
_OTHER = np.dtype("V1")

_LIBRARY_ERRORS = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError, SystemError)

_TRUNCATED = re.compile(r"truncated file: eof = (\d+).*stored_eof = (\d+)")
_DETAIL = re.compile(r"\((.*)\)", re.DOTALL)


def is_hdf5(head: bytes) -> bool:
    """Whether a file that starts like this is HDF5.

    HDF5 allows a block of the user's own before its signature, of 512, 1024, ... bytes. Keras never writes one, and a
    tar whose first member is HDF5 looks just so: such files are refused.
    """
    return head.startswith(SIGNATURE)


# Reading


class File(hdf5_objects.Reader):
    """An HDF5 file, open for reading in a ``with``. Paths are relative to the root, which is ``""``.

    The datasets that it gave can be read after it is closed.

    Args:
        window: the file.
        numbers: it is opened to read numbers alone; texts of any length would then not be checked.

    Raises:
        ReadError: this is not HDF5, or damaged; from every method.
        UnsafeInput: it asks for what the module's docstring lists.
    """

    def __init__(self, window: Window, *, numbers: bool = False) -> None:
        self._window = window
        self._stream = Stream(window, guarded=not numbers)
        if not is_hdf5(bytes(window.read(0, min(len(SIGNATURE), window.size)))):
            raise ReadError("this is not an HDF5 file: its signature is missing")
        with _reading():
            self._file = h5py.File(self._stream, "r")
            self._root = h5g.open(self._file.id, b"/")
        self._known_types: list[tuple[Any, np.dtype[Any], bool]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # libhdf5 closes what is left open when the process ends, and would then call Python code that is gone.
        self._file.close()

    def has(self, name: str) -> bool:
        """Whether the root has a member of this name; looks at nothing else."""
        with _reading(name):
            return bool(self._root.links.exists(_encoded(name)))

    @cached_property
    def _members(self) -> Mapping[str, list[str]]:
        """The names in every group, by the group's path; what has none is a dataset or an empty group."""
        members: dict[str, list[str]] = {"": []}
        fault: list[UnsafeInput] = []

        def visit(name: bytes, info: Any) -> bool | None:
            path = name.decode("utf-8", "surrogateescape")
            parent, _, own = path.rpartition("/")
            if info.type != h5l.TYPE_HARD:
                kind = {h5l.TYPE_SOFT: "soft", h5l.TYPE_EXTERNAL: "external"}.get(info.type, "user-defined")
                fault.append(UnsafeInput(f"{kind} links are not followed, and no Keras file has any", where=path))
            elif path.count("/") >= DEPTH:
                fault.append(UnsafeInput(f"groups nested deeper than {DEPTH}: this is no model", where=own))
            elif len(members) > LINKS:
                fault.append(UnsafeInput(f"more than {LINKS:,} groups and datasets: this is no model", where=parent))
            members.setdefault(parent, []).append(own)
            members[path] = []
            return True if fault else None  # stops the walk; an exception would be lost inside libhdf5

        with _reading():
            self._root.links.visit(visit, info=True)
        if fault:
            raise fault[0]
        return members

    def __contains__(self, path: object) -> bool:
        return path in self._members

    def members(self, path: str = "") -> list[str]:
        """The names in a group, sorted; none for a dataset."""
        return self._members.get(path, [])

    def is_dataset(self, path: str) -> bool:
        """Whether it is a dataset, and not a group."""
        with _reading(path):
            return bool(h5o.get_info(self._root, _encoded(path)).type == h5o.TYPE_DATASET)

    def attributes(self, path: str = "") -> list[str]:
        """The names of an object's attributes, sorted."""
        with _reading(path):
            owner = h5o.open(self._root, _encoded(path) if path else b".")
            names = [h5a.open(owner, index=i).name for i in range(h5a.get_num_attrs(owner))]
            return sorted(name.decode("utf-8", "surrogateescape") for name in names)

    def attribute(self, path: str, name: str) -> Attribute | None:
        """An attribute: a text, a list of texts, or an array of numbers; None where there is none of this name.

        :class:`~modelio.wire.hdf5_objects.OtherKind` where it is something else: a reference, a structure.
        """
        with _reading(f"{path}@{name}"):
            return self._attribute(path, name)

    def _attribute(self, path: str, name: str) -> Attribute | None:
        """As :meth:`attribute`; the object is opened on the way, since opening it first takes as long again."""
        if path and path not in self:
            raise ReadError("the file has no such group")
        owner = _encoded(path) if path else b"."
        try:
            attribute = h5a.open(self._root, _encoded(name), obj_name=owner)
        except KeyError:
            if h5a.exists(self._root, _encoded(name), obj_name=owner):
                raise
            return None
        return self._value(attribute)

    def _value(self, attribute: h5a.AttrID) -> Attribute:
        stored, shape = attribute.get_type(), attribute.shape
        if shape is None:
            return np.empty(0)
        size = math.prod(shape) * stored.get_size()  # h5py's own get_storage_size() stops on arrays of nothing
        if size > ATTRIBUTE_LIMIT:
            raise UnsafeInput(f"an attribute of {size:,} bytes: this is no model")
        if not isinstance(stored, h5t.TypeStringID):
            try:
                dtype = _numeric_dtype(stored)
            except ReadError as error:
                raise OtherKind(error.reason) from None
            numbers = np.empty(shape, dtype)
            if numbers.size:
                attribute.read(numbers)
            return numbers
        variable = stored.is_variable_str()
        texts: npt.NDArray[Any] = np.empty(shape, object if variable else f"S{stored.get_size()}")
        if texts.size and variable:
            with self._stream.texts(texts.size):
                attribute.read(texts, _VARIABLE_TYPES[stored.get_cset()])
        elif texts.size:
            attribute.read(texts)
        decoded = [(text or b"").decode() for text in texts.ravel().tolist()]
        return decoded if shape else decoded[0]

    def dataset(self, path: str) -> Values:
        """A dataset of numbers, to be read when asked; what it declares is checked now.

        ``bfloat16`` and its like are opaque bytes, whose attribute ``dtype`` names them. Keras leaves it out of whole
        models, where no other type than ``bfloat16`` has two opaque bytes.
        """
        with _reading(path):
            if path not in self:
                raise ReadError("the file has no such dataset")
            if self.members(path):
                raise ReadError("this is a group, and a dataset is wanted")
            dataset = h5d.open(self._root, _encoded(path))
            dtype, exact = self._dtype(dataset)
            shape = dataset.shape
            if shape is None:
                raise ReadError("the dataset has no value: its dataspace is null")
            size = math.prod(shape) * dtype.itemsize
            if not size:
                return RawArray(self._window.part(0, 0), dtype, shape)
            offset = dataset.get_offset()
            if offset is None:
                _check_storage(dataset)
                return _Packed(self._window, path, dtype, shape)
            there = self._window.part(offset, dataset.get_storage_size())
            return RawArray(there, dtype, shape) if exact else _Packed(self._window, path, dtype, shape)

    def _dtype(self, dataset: h5d.DatasetID) -> tuple[np.dtype[Any], bool]:
        """The element type with its byte order, and whether memory holds it as the file does."""
        stored = dataset.get_type()
        if isinstance(stored, h5t.TypeOpaqueID):
            return self._opaque_dtype(dataset, stored.get_size()), True
        for known, dtype, exact in self._known_types:  # asking libhdf5 again takes ten times as long as comparing
            if stored.equal(known):
                return dtype, exact
        dtype = _numeric_dtype(stored)
        exact = bool(h5t.py_create(dtype).equal(stored))
        self._known_types.append((stored, dtype, exact))
        return dtype, exact

    def _opaque_dtype(self, dataset: h5d.DatasetID, size: int) -> np.dtype[Any]:
        import ml_dtypes

        name: Attribute = "bfloat16" if size == 2 else ""
        if h5a.exists(dataset, b"dtype"):
            name = self._value(h5a.open(dataset, b"dtype"))
        found = getattr(ml_dtypes, name, None) if isinstance(name, str) else None
        if not isinstance(found, type) or np.dtype(found).itemsize != size:
            raise ReadError(f"elements of {size} opaque bytes, whose attribute dtype does not say what they are")
        return np.dtype(found)


class _Packed:
    """A dataset that libhdf5 has to unpack: chunked, compressed, compact, or of a type that memory does not hold."""

    def __init__(self, window: Window, path: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._window = window
        self._path = path
        self.dtype: np.dtype[Any] = dtype.newbyteorder("=")
        self.shape = shape

    def numpy(self) -> npt.NDArray[Any]:
        with self._opened() as dataset:
            return self._read(dataset, 0, self.shape[0] if self.shape else 1)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The bytes in slabs of whole rows, and of whole chunks, so that no chunk is unpacked twice."""
        rows = self.shape[0] if self.shape else 1
        with self._opened() as dataset:
            plist = dataset.get_create_plist()
            edge = plist.get_chunk()[0] if plist.get_layout() == h5d.CHUNKED else 1
            step = -(-max(1, CHUNK * rows // (math.prod(self.shape) * self.dtype.itemsize)) // edge) * edge
            for start in range(0, rows, step):
                part = self._read(dataset, start, min(start + step, rows))
                yield part.astype(self.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data

    @contextlib.contextmanager
    def _opened(self) -> Iterator[h5d.DatasetID]:
        with File(self._window, numbers=True) as file, _reading(self._path):
            yield h5d.open(file._root, _encoded(self._path))

    def _read(self, dataset: h5d.DatasetID, start: int, stop: int) -> npt.NDArray[Any]:
        """The rows from ``start`` to ``stop``; a scalar is a row."""
        shape = (stop - start, *self.shape[1:]) if self.shape else ()
        here = there = h5s.ALL
        if shape:
            here, there = h5s.create_simple(shape), dataset.get_space()
            there.select_hyperslab((start,) + (0,) * (len(shape) - 1), shape)
        # For opaque elements the file's own type has to be named, since its tag would be compared.
        opaque = dataset.get_type() if isinstance(dataset.get_type(), h5t.TypeOpaqueID) else None
        array: npt.NDArray[Any] = np.empty(shape, f"V{self.dtype.itemsize}" if opaque else self.dtype)
        dataset.read(here, there, array, opaque)
        if self.dtype == np.bool_:
            array = array.view(np.uint8) != 0
        return array.view(self.dtype)


def _encoded(path: str) -> bytes:
    if "\0" in path:
        raise ReadError("a name in the file contains a zero byte")
    return path.encode("utf-8", "surrogateescape")


def _numeric_dtype(stored: Any) -> np.dtype[Any]:
    # h5py is asked of what is flat alone: it takes apart what is nested, however deep that is.
    dtype: np.dtype[Any] = stored.dtype if all(isinstance(part, _NUMBERS) for part in _parts(stored)) else _OTHER
    if dtype.kind not in "biufc":
        raise ReadError(f"this holds {_KINDS.get(type(stored), 'something else')}, and numbers are wanted")
    bare: np.dtype[Any] = np.dtype(dtype.str)  # without h5py's own metadata
    return bare


def _parts(stored: Any) -> list[Any]:
    """The type itself; of truth values (an enumeration) and complex numbers (a pair) what they are made of."""
    if isinstance(stored, h5t.TypeEnumID):
        return [stored.get_super()]
    if isinstance(stored, h5t.TypeCompoundID) and stored.get_nmembers() == 2:
        return [stored.get_member_type(0), stored.get_member_type(1)]
    return [stored]


def _check_storage(dataset: h5d.DatasetID) -> None:
    """Refuse what is stored elsewhere, never was stored, or would unpack to more than it can."""
    plist = dataset.get_create_plist()
    if plist.get_external_count():
        raise UnsafeInput(f"its numbers lie in another file ({plist.get_external(0)[0]!r}), which is not opened")
    layout, stored = plist.get_layout(), dataset.get_storage_size()
    if layout == h5d.VIRTUAL:
        raise UnsafeInput("it is made up of datasets in other files, which are not opened")
    if layout == h5d.CHUNKED:
        chunk = plist.get_chunk()
        count = math.prod(-(-length // edge) for length, edge in zip(dataset.shape, chunk, strict=True))
        if dataset.get_num_chunks() < count:
            raise ReadError(
                f"{count:,} chunks are declared, {dataset.get_num_chunks():,} are stored: not fully written"
            )
        unpacked = count * math.prod(chunk) * dataset.get_type().get_size()
        if unpacked > min(INFLATE_LIMIT, max(1 << 16, INFLATE_RATIO * stored)):
            raise UnsafeInput(f"{stored:,} stored bytes that claim to unpack to {unpacked:,}")
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        if len(set(filters)) < len(filters):
            raise UnsafeInput("packed several times over: this is no model")
        for filter_id in filters:
            if filter_id not in _BUILT_IN_FILTERS:
                raise ReadError(
                    f"compressed with filter {filter_id}, a plug-in; rewrite the file with h5repack -f NONE"
                )
    elif stored == 0:
        raise ReadError("no numbers are stored: whatever wrote this file stopped before them")


@contextlib.contextmanager
def _reading(where: str | None = None) -> Iterator[None]:
    """Turn what libhdf5 and h5py raise for bad input into a :class:`~modelio.errors.ReadError` with the place."""
    try:
        yield
    except ModelioError as error:
        error.where = error.where or where or None
        raise
    except _LIBRARY_ERRORS as error:
        if isinstance(error.__cause__, ModelioError):  # raised by the window, below libhdf5
            raise error.__cause__ from None
        raise ReadError(_reason(error), where=where or None) from error


def _reason(error: BaseException) -> str:
    cut = _TRUNCATED.search(str(error))
    if cut:
        return f"the file is cut short: {int(cut[1]):,} of its {int(cut[2]):,} bytes are there"
    if isinstance(error, UnicodeDecodeError):
        return "a text in the file is not UTF-8"
    detail = _DETAIL.search(str(error))
    return f"the HDF5 structure is damaged: {detail[1] if detail else error}"


# Writing


class Writer(hdf5_objects.Writer):
    """Writes an HDF5 file: the structure at once, the numbers when it is closed, piece by piece.

    The same calls give the same bytes. libhdf5 lays out every dataset without touching its bytes; they are then copied
    into their places past it, which is as fast as copying a file and never holds a whole tensor.

    Args:
        stream: an empty file, open for writing and seeking.

    Raises:
        WriteError: HDF5 cannot hold this; from every method.

    >>> from modelio.wire.window import MemoryWindow
    >>> stream = io.BytesIO()
    >>> with Writer(stream) as file:
    ...     file.attribute("", "backend", "tensorflow")
    ...     file.dataset("dense/kernel:0", RawArray(MemoryWindow(bytes(8)), "<f4", (2,)))
    >>> with File(MemoryWindow(stream.getvalue())) as file:
    ...     kernel = file.dataset("dense/kernel:0")
    >>> kernel.numpy()
    array([0., 0.], dtype=float32)
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._pending: list[tuple[int, int, Values, str]] = []
        with _writing():
            # "earliest" is what Keras' own files are, and every libhdf5 since 1.6 reads it.
            self._file = h5py.File(stream, "w", libver="earliest", track_order=False)
            self._root = h5g.open(self._file.id, b"/")
            self._below = h5p.create(h5p.LINK_CREATE)
            self._below.set_create_intermediate_group(True)
            self._plain = h5p.create(h5p.DATASET_CREATE)
            self._plain.set_layout(h5d.CONTIGUOUS)
            self._plain.set_alloc_time(h5d.ALLOC_TIME_EARLY)
            self._plain.set_fill_time(h5d.FILL_TIME_NEVER)
            self._plain.set_obj_track_times(False)

    def group(self, path: str) -> None:
        """Make a group, and those above it; one that is there already stays."""
        with _writing(path):
            if self._is_free(path):
                h5g.create(self._root, _checked(path), lcpl=self._below)

    def _is_free(self, path: str) -> bool:
        parts = path.split("/")
        if "" in parts or "." in parts:
            raise WriteError("a name is empty or a dot, which to HDF5 is the group itself")
        return not all(self._root.links.exists(_checked("/".join(parts[: i + 1]))) for i in range(len(parts)))

    def attribute(self, path: str, name: str, value: Attribute) -> None:
        """Give a group an attribute: a text, a list of texts, or an array of numbers."""
        with _writing(f"{path}@{name}"):
            if isinstance(value, str):
                self._put(path, name, np.array(_checked(value), _VARIABLE[not value.isascii()]))
            elif isinstance(value, list):
                self._put(path, name, _fixed(value))
            else:
                self._put(path, name, value)

    def _put(self, path: str, name: str, value: npt.NDArray[Any]) -> None:
        owner = h5o.open(self._root, _checked(path)) if path else self._root
        stored = h5t.py_create(value.dtype, logical=True)
        space = h5s.create_simple(value.shape) if value.shape else h5s.create(h5s.SCALAR)
        attribute = h5a.create(owner, _checked(name), stored, space)
        if value.size:
            attribute.write(value)

    def dataset(self, path: str, values: Values) -> None:
        """Make a dataset, and the groups above it; its numbers are read when the file is closed."""
        with _writing(path):
            if not self._is_free(path):
                raise WriteError("two weights would have this path")
            dtype = values.dtype
            if dtype.hasobject or dtype.kind in "SUmM":
                raise WriteError(f"elements of {dtype.name}: Keras keeps numbers in HDF5, nothing else")
            own = dtype.isbuiltin == 2  # bfloat16 and its like, for which HDF5 has no type
            stored = h5t.py_create(np.dtype(f"V{dtype.itemsize}") if own else dtype.newbyteorder("<"), logical=True)
            space = h5s.create_simple(values.shape) if values.shape else h5s.create(h5s.SCALAR)
            dataset = h5d.create(self._root, _checked(path), stored, space, self._plain, self._below)
            if own:
                self._put(path, "dtype", np.array(dtype.name.encode(), _VARIABLE[0]))
            size = math.prod(values.shape) * dtype.itemsize
            if size:
                self._pending.append((dataset.get_offset(), size, values, path))

    def close(self) -> None:
        """Complete the file. The stream stays open."""
        with _writing():
            size = self._file.id.get_filesize()
            self._root.close()
            self._file.close()
        stream = self._stream
        for offset, length, values, path in self._pending:
            stream.seek(offset)
            written = 0
            for piece in values.chunks():
                written += stream.write(piece)
            if written != length:
                raise WriteError(f"{length:,} bytes are declared, and {written:,} came", where=path)
        if stream.seek(0, io.SEEK_END) < size:  # libhdf5 refuses a file that ends before its allocated space does
            stream.seek(size - 1)
            stream.write(b"\0")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


def _checked(name: str) -> bytes:
    if "\0" in name:
        raise WriteError("HDF5 cannot hold a zero byte in a name or a text")
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise WriteError(f"this cannot be written as UTF-8: {name!r}") from error


def _fixed(texts: Sequence[str]) -> npt.NDArray[Any]:
    """Texts of fixed length, which every Keras reads with every h5py; no text is no floats, as Keras writes it."""
    encoded = [_checked(text) for text in texts]
    return np.array(encoded, f"S{max(1, *map(len, encoded))}") if encoded else np.empty(0)


@contextlib.contextmanager
def _writing(where: str | None = None) -> Iterator[None]:
    try:
        yield
    except ModelioError as error:
        error.where = error.where or where or None
        raise
    except (RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
        raise WriteError(f"HDF5 cannot hold this: {error}", where=where or None) from error
