"""HDF5/JSON: an HDF5 file as a JSON document, as the HDF Group's ``h5tojson`` and ``jsontoh5`` have it.

::

    {"apiVersion": "1.1.1",
     "root": ID,
     "groups":    {ID: {"alias": ["/"],
                        "attributes": [{"name": "backend", "type": TYPE, "shape": SHAPE, "value": "tensorflow"}, ...],
                        "links": [{"class": "H5L_TYPE_HARD", "title": "dense", "collection": "groups", "id": ID}, ...]},
                   ...},
     "datasets":  {ID: {"alias": ["/dense/kernel:0"], "attributes": [...],
                        "type": TYPE, "shape": SHAPE, "value": [[0.25, -1.5, ...], ...]},
                   ...},
     "datatypes": {ID: {"type": TYPE}, ...}}       types with a name, which others give as "datatypes/ID"; not written
    ID     "1e5f0f5e-66b6-5b3a-9b1b-9f2c4f7e8a10"; here made of the path, so that the same file gives the same document
    TYPE   {"class": "H5T_FLOAT", "base": "H5T_IEEE_F32LE"}, {"class": "H5T_STRING", "length": 7, ...}, ...
    SHAPE  {"class": "H5S_SIMPLE", "dims": [64, 10]}, {"class": "H5S_SCALAR"} or {"class": "H5S_NULL"}

JSON has no index, so a document is gone through once, and long lists of numbers are left where they are: what is parsed
is the document without them. A dataset's numbers are parsed when they are asked for (:mod:`modelio.wire.listed`).

The schema has no floats below four bytes. float16, bfloat16 and the float8 types are written as the equal float32, and
the dataset's attribute ``dtype`` says what they are.

Sources: the HDF Group's HDF5/JSON specification and its schema (``h5json/schema``); what ``jsontoh5`` of h5json 1.1.3
and 2.0.1 accept, which includes no text of fixed length beyond ASCII.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from math import prod
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import NAMESPACE_URL, uuid5

import numpy as np

from modelio.errors import ModelioError, ReadError, UnsafeInput, WriteError
from modelio.wire import hdf5_objects, jsontext
from modelio.wire.hdf5_objects import Attribute, OtherKind
from modelio.wire.listed import ListedArray, place_of, spell, without_lists
from modelio.wire.raw import RawArray, Values
from modelio.wire.window import MemoryWindow, Window

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["File", "Writer", "is_document"]

API = "1.1.1"
"""The version of HDF5/JSON that is written."""

PATHS, DEPTH = 128 << 20, 64
"""Characters of all paths in a document, and nested groups. A few groups can be linked to form more paths than there is
memory; ResNet-152 has 2,000, of 60 characters each.
"""

ATTRIBUTE_LIMIT = 64 << 20
"""Bytes of one attribute's numbers."""

_ID = rb'"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-'
_START = re.compile(
    rb'(?:\xef\xbb\xbf)?\s*\{\s*(?:"apiVersion"\s*:\s*"\d|"root"\s*:\s*%b|"(?:groups|datasets|datatypes)"\s*:\s*\{\s*%b)'
    % (_ID, _ID)
)

_NUMBERS: Mapping[tuple[str, str], str] = {
    **{("H5T_INTEGER", f"H5T_STD_I{8 * size}"): f"i{size}" for size in (1, 2, 4, 8)},
    **{("H5T_INTEGER", f"H5T_STD_U{8 * size}"): f"u{size}" for size in (1, 2, 4, 8)},
    **{("H5T_FLOAT", f"H5T_IEEE_F{8 * size}"): f"f{size}" for size in (2, 4, 8)},
}
"""Class and predefined type, without its byte order, and NumPy's. The schema has no F16; h5json itself writes it."""

_PLAIN = {np.dtype(numpy): {"class": kind, "base": f"{base}LE"} for (kind, base), numpy in _NUMBERS.items()}
_TRUTHS = [{"name": "FALSE", "value": 0}, {"name": "TRUE", "value": 1}]
_TYPES: Mapping[np.dtype[Any], Mapping[str, Any]] = {
    **_PLAIN,
    # As h5py has them.
    np.dtype("?"): {"class": "H5T_ENUM", "base": _PLAIN[np.dtype("i1")], "members": _TRUTHS},
    **{
        np.dtype(f"c{2 * size}"): {
            "class": "H5T_COMPOUND",
            "fields": [{"name": part, "type": _PLAIN[np.dtype(f"f{size}")]} for part in "ri"],
        }
        for size in (4, 8)
    },
}
"""NumPy's types, and the document's."""

_NARROW = (
    "float16",
    "bfloat16",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e4m3b11fnuz",
    "float8_e8m0fnu",
)
"""What the attribute ``dtype`` may say of a dataset."""


def is_document(head: bytes) -> bool:
    """Whether a file that starts like this is HDF5/JSON.

    >>> is_document(b'{"apiVersion": "1.1.1", "root"'), is_document(b'{"class_name": "Sequential"')
    (True, False)
    """
    return _START.match(head) is not None


# Reading


class File(hdf5_objects.Reader):
    """A document.

    Raises:
        ReadError: this is not HDF5/JSON, or a part of it is not what it has to be; from every method.
        UnsafeInput: it has links other than plain ones, or more or deeper ones than any model.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        document = jsontext.parse(without_lists(window))
        if not isinstance(document, dict) or not isinstance(document.get("root"), str):
            raise ReadError("this is not an HDF5/JSON document: it names no root")
        self._collections = {name: document.get(name, {}) for name in ("groups", "datasets", "datatypes")}
        for name, collection in self._collections.items():
            if not isinstance(collection, dict) or not all(isinstance(item, dict) for item in collection.values()):
                raise ReadError("this is not a collection of objects", where=name)
        self._objects: dict[str, tuple[str, dict[str, Any]]] = {}
        self._members: dict[str, list[str]] = {}
        self._follow("", "groups", document["root"])

    def _follow(self, path: str, collection: str, identity: Any) -> None:
        """Find all that is linked to an object, by path."""
        waiting = [(path, collection, identity)]
        length = 0
        while waiting:
            path, collection, identity = waiting.pop()
            if not isinstance(identity, str) or identity not in self._collections.get(collection, ()):
                raise ReadError("the document has no object of the id that is given for this", where=path or "root")
            if path.count("/") >= DEPTH:
                raise UnsafeInput(f"groups nested deeper than {DEPTH}: this is no model", where=path[:80])
            length += len(path) + 1
            if length > PATHS:
                raise UnsafeInput(f"{len(self._objects):,} groups and datasets, or more: this is no model")
            item = self._collections[collection][identity]
            self._objects[path] = collection, item
            links = _items(item, "links", "title", path) if collection == "groups" else {}
            self._members[path] = sorted(links)
            for name, link in links.items():
                below = f"{path}/{name}" if path else name
                if link.get("class") != "H5L_TYPE_HARD":
                    raise UnsafeInput("only hard links are followed, and no Keras file has any other", where=below)
                if not name or "/" in name:
                    raise ReadError("a name is empty, or has a slash in it", where=below)
                waiting.append((below, str(link.get("collection")), link.get("id")))

    def has(self, name: str) -> bool:
        return name in self._objects

    def __contains__(self, path: object) -> bool:
        return path in self._objects

    def members(self, path: str = "") -> list[str]:
        return self._members.get(path, [])

    def is_dataset(self, path: str) -> bool:
        return self._objects[path][0] == "datasets"

    def attributes(self, path: str = "") -> list[str]:
        return sorted(self._attributes(path))

    def _attributes(self, path: str) -> dict[str, dict[str, Any]]:
        if path not in self._objects:
            raise ReadError("the document has no such group", where=path)
        return _items(self._objects[path][1], "attributes", "name", path)

    def attribute(self, path: str, name: str) -> Attribute | None:
        item = self._attributes(path).get(name)
        if item is None:
            return None
        with _at(f"{path}@{name}"):
            shape = _shape(item)
            if shape is None:
                return np.empty(0)
            kind = self._type(item)
            if kind.get("class") == "H5T_STRING":
                return _texts(item.get("value"), shape)
            try:
                dtype = _dtype(kind)
            except ReadError as error:
                raise OtherKind(error.reason) from None
            if prod(shape) * dtype.itemsize > ATTRIBUTE_LIMIT:
                raise UnsafeInput(f"an attribute of the shape {list(shape)}: this is no model")
            return self._values(item, dtype, shape, f"{path}@{name}").numpy()

    def dataset(self, path: str) -> Values:
        with _at(path):
            if path not in self._objects or not self.is_dataset(path):
                raise ReadError("the document has no such dataset")
            item = self._objects[path][1]
            shape = _shape(item)
            if shape is None:
                raise ReadError("the dataset has no value: its dataspace is null")
            kind = self._type(item)
            said = self.attribute(path, "dtype")
            narrow = _narrow(said) if isinstance(said, str) and said in _NARROW else None
            if kind.get("class") == "H5T_OPAQUE":
                return _opaque(item, kind.get("size"), narrow or (_narrow("bfloat16") if said is None else None), shape)
            dtype = _dtype(kind)
            return self._values(item, narrow if narrow and dtype.kind == "f" else dtype, shape, path)

    def _type(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """The type of an attribute or a dataset, also where it is given by its name."""
        kind = item.get("type")
        if isinstance(kind, str) and kind.startswith("datatypes/"):
            kind = self._collections["datatypes"].get(kind.removeprefix("datatypes/"), {}).get("type")
        if not isinstance(kind, dict):
            raise ReadError("its type is missing")
        return kind

    def _values(self, item: Mapping[str, Any], dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> Values:
        if not prod(shape):
            return RawArray(MemoryWindow(b""), dtype, shape)
        value = item.get("value")
        if value is None:
            raise ReadError("its numbers are left out of the document: give h5tojson no option that does this")
        place = place_of(value)
        window = self._window.part(*place) if place else MemoryWindow(json.dumps(value).encode())
        return ListedArray(window, dtype, shape, where=where)


@contextlib.contextmanager
def _at(where: str) -> Iterator[None]:
    """Name the place in the errors that are raised inside."""
    try:
        yield
    except ModelioError as error:
        error.where = error.where or where or None
        raise


def _items(owner: Mapping[str, Any], key: str, name: str, where: str) -> dict[str, dict[str, Any]]:
    """The objects in a list, by their names."""
    listed = owner.get(key, [])
    if not isinstance(listed, list) or not all(
        isinstance(item, dict) and isinstance(item.get(name), str) for item in listed
    ):
        raise ReadError(f"its {key} are not a list of objects with a {name}", where=where or None)
    return {item[name]: item for item in listed}


def _shape(item: Mapping[str, Any]) -> tuple[int, ...] | None:
    shape = item.get("shape")
    space = shape if isinstance(shape, dict) else {}
    if space.get("class") == "H5S_NULL":
        return None
    dims: Any = {"H5S_SCALAR": [], "H5S_SIMPLE": space.get("dims")}.get(str(space.get("class")))
    if not isinstance(dims, list) or not all(type(size) is int and size >= 0 for size in dims):
        raise ReadError("its shape is missing, or no list of sizes")
    return tuple(dims)


def _dtype(kind: Mapping[str, Any]) -> np.dtype[Any]:
    """The element type of numbers."""
    name, base = kind.get("class"), kind.get("base")
    if isinstance(name, str) and isinstance(base, str) and base[-2:] in ("LE", "BE") and (name, base[:-2]) in _NUMBERS:
        return np.dtype(_NUMBERS[name, base[:-2]])
    for dtype, known in _TYPES.items():
        if kind == known:
            return dtype
    raise ReadError(f"it holds elements of {name}, and numbers are wanted")


def _texts(value: Any, shape: tuple[int, ...]) -> str | list[str]:
    texts = np.array(value, object).ravel().tolist()
    if len(texts) != prod(shape) or not all(isinstance(text, str) for text in texts):
        raise ReadError("its value is not as many texts as its shape says")
    return [*texts] if shape else texts[0]


def _narrow(name: str) -> np.dtype[Any]:
    import ml_dtypes

    own = np.float16 if name == "float16" else getattr(ml_dtypes, name, None)
    if own is None:
        raise ReadError(f"{name} needs a newer ml-dtypes: pip install -U ml-dtypes")
    return np.dtype(own)


def _opaque(item: Mapping[str, Any], size: Any, dtype: np.dtype[Any] | None, shape: tuple[int, ...]) -> RawArray:
    """Elements that are bytes to HDF5: bfloat16 and its like as :mod:`modelio.wire.hdf5` writes them."""
    if dtype is None or dtype.itemsize != size:
        raise ReadError(f"elements of {size} opaque bytes, whose attribute dtype does not say what they are")
    texts = _texts(item.get("value", []), shape or (1,))
    try:
        elements = [base64.b64decode(text, validate=True) for text in texts]
    except ValueError as error:
        raise ReadError(f"its elements are not base64: {error}") from error
    data = b"".join(element.ljust(dtype.itemsize, b"\0") for element in elements)  # zeros are no text at all
    return RawArray(MemoryWindow(data), dtype, shape)


# Writing


class Writer(hdf5_objects.Writer):
    """Writes a document: the structure is collected, the numbers are spelled when it is closed, block by block.

    The same calls give the same bytes.

    Raises:
        WriteError: HDF5/JSON cannot hold this; from every method.

    >>> import io
    >>> stream = io.BytesIO()
    >>> with Writer(stream) as file:
    ...     file.attribute("", "backend", "tensorflow")
    ...     file.dataset("dense/bias:0", RawArray(MemoryWindow(bytes(8)), "<f4", (2,)))
    >>> File(MemoryWindow(stream.getvalue())).dataset("dense/bias:0").numpy()
    array([0., 0.], dtype=float32)
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._groups: dict[str, dict[str, str]] = {"": {}}  # path -> name of a member -> "groups" or "datasets"
        self._datasets: dict[str, Values] = {}
        self._attributes: dict[str, dict[str, str]] = {}

    def group(self, path: str) -> None:
        """Make a group, and those above it; one that is there already stays."""
        with _at(path):
            if path in self._datasets:
                raise WriteError("a group and a weight would have this path")
            if path not in self._groups:
                self._link(path, "groups")
                self._groups[path] = {}

    def _link(self, path: str, kind: str) -> None:
        """Link an object of that kind to its group, and make that where it is not there."""
        parent, _, name = path.rpartition("/")
        _check_name(name)
        if parent not in self._groups:
            self.group(parent)
        self._groups[parent][name] = kind

    def attribute(self, path: str, name: str, value: Attribute) -> None:
        """Give a group an attribute: a text, a list of texts, or an array of numbers."""
        with _at(f"{path}@{name}"):
            if path not in self._groups and path not in self._datasets:
                raise WriteError("there is no such group")
            _check_name(name)
            kind, shape, text = _spelled(value)
            facts = json.dumps({"name": name, "type": kind, "shape": _space(shape)})
            self._attributes.setdefault(path, {})[name] = f'{facts[:-1]}, "value": {text}}}'

    def dataset(self, path: str, values: Values) -> None:
        """Make a dataset, and the groups above it; its numbers are read when the document is closed."""
        with _at(path):
            if path in self._datasets or path in self._groups:
                raise WriteError("two weights would have this path")
            if values.dtype.name not in _NARROW and values.dtype not in _TYPES:
                raise WriteError(f"elements of {values.dtype.name}: HDF5/JSON has no type for them")
            self._link(path, "datasets")
            self._datasets[path] = values
            if values.dtype.name in _NARROW:
                self.attribute(path, "dtype", values.dtype.name)

    def close(self) -> None:
        """Write the document. The stream stays open."""
        write = self._stream.write
        write(f'{{"apiVersion": "{API}",\n "root": "{_id("")}",\n "groups": {{'.encode())
        for number, path in enumerate(self._groups):
            write((",\n  " if number else "\n  ").encode() + self._group(path).encode())
        for number, (path, values) in enumerate(self._datasets.items()):
            write((",\n  " if number else '},\n "datasets": {\n  ').encode() + self._dataset(path, values).encode())
            with _at(path):
                for piece in spell(values):
                    write(piece)
            write(b"}")
        write(b"}}\n")

    def _group(self, path: str) -> str:
        links = [
            {"class": "H5L_TYPE_HARD", "title": name, "collection": kind, "id": _id(f"{path}/{name}" if path else name)}
            for name, kind in self._groups[path].items()
        ]
        linked = f', "links": {json.dumps(links)}' if links else ""
        return f"{json.dumps(_id(path))}: {{{self._alias(path)}{linked}}}"

    def _dataset(self, path: str, values: Values) -> str:
        kind = _TYPES[np.dtype("f4") if values.dtype.name in _NARROW else values.dtype]
        facts = json.dumps({"type": kind, "shape": _space(values.shape)})[1:-1]
        return f'{json.dumps(_id(path))}: {{{self._alias(path)}, {facts}, "value": '

    def _alias(self, path: str) -> str:
        attributes = ", ".join(self._attributes.get(path, {}).values())
        return f'"alias": {json.dumps(["/" + path])}' + (f', "attributes": [{attributes}]' if attributes else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


def _id(path: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"hdf5:/{path}"))


def _check_name(name: str) -> None:
    if not name:
        raise WriteError("HDF5 cannot hold what has no name")
    _check_text(name)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise WriteError("HDF5 cannot hold a zero byte in a name or a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WriteError(f"this cannot be written as UTF-8: {text!r}") from error


def _space(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"class": "H5S_SIMPLE", "dims": list(shape)} if shape else {"class": "H5S_SCALAR"}


def _spelled(value: Attribute) -> tuple[Mapping[str, Any], tuple[int, ...], str]:
    """Type, shape and text of an attribute; an empty list of texts is no floats, as Keras writes it."""
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list) and texts:
        for text in texts:
            _check_text(text)
        shape = () if isinstance(value, str) else (len(texts),)
        return _string(texts, fixed=bool(shape)), shape, json.dumps(value)
    array = np.asarray(value, np.float64 if isinstance(value, list) else None)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype not in _TYPES:
        raise WriteError(f"elements of {array.dtype.name}: HDF5/JSON has no type for them")
    listed = RawArray(MemoryWindow(array.tobytes()), array.dtype, array.shape)
    return _TYPES[array.dtype], array.shape, b"".join(spell(listed)).decode()


def _string(texts: list[str], fixed: bool) -> dict[str, Any]:
    """The type of texts: of fixed length where that is possible, since every Keras reads such lists of names."""
    if fixed and all(text.isascii() for text in texts):
        length, padding = max(1, *map(len, texts)), "H5T_STR_NULLPAD"
        return {"class": "H5T_STRING", "charSet": "H5T_CSET_ASCII", "length": length, "strPad": padding}
    characters = "ASCII" if all(text.isascii() for text in texts) else "UTF8"
    kind = {"class": "H5T_STRING", "charSet": f"H5T_CSET_{characters}"}
    return {**kind, "length": "H5T_VARIABLE", "strPad": "H5T_STR_NULLTERM"}
