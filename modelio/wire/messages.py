"""The protobuf messages of TensorFlow, in a descriptor pool of our own.

``tensorflow.proto`` says which messages; every one of them is an attribute of this module (``GraphDef``,
``SavedModel``, ``BundleEntryProto``, ...), and so are the enums (``DataType``). The pool is private, so that
``import tensorflow``, which registers the same names in protobuf's default pool, may come before or after; the classes
of the two never mix, their bytes do. No generated code is shipped: that would tie the package to one generation of
protobuf's run time.

>>> from modelio.wire.messages import GraphDef
>>> graph = parse(GraphDef, bytes.fromhex("0a080a01781203416273"), where="graph")
>>> graph.node[0].op
'Abs'
>>> print(to_text(graph), end="")
node {
  name: "x"
  op: "Abs"
}
"""

from __future__ import annotations

import os
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from modelio.errors import ReadError, WriteError

__all__ = ["parse", "parse_text", "serialize", "to_text", "type_name"]

_LIMIT = 2**31 - 1
"""Bytes of one message; protobuf's own limit in every language."""


def _load() -> tuple[descriptor_pool.DescriptorPool, str]:
    """The private pool and the package of the messages in it."""
    pool = descriptor_pool.DescriptorPool()
    with open(os.path.join(os.path.dirname(__file__), "tensorflow.binpb"), "rb") as shipped:  # pathlib alone takes 3 ms
        data = shipped.read()
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(data)
    for file in descriptors.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool, descriptors.file[-1].package  # protoc lists a file after those that it imports


_POOL, _PACKAGE = _load()


def __getattr__(name: str) -> Any:
    """The message class or enum of this name, made when first asked for."""
    found: Any
    try:
        found = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
    except KeyError:
        try:
            found = EnumTypeWrapper(_POOL.FindEnumTypeByName(f"{_PACKAGE}.{name}"))
        except KeyError:
            raise AttributeError(f"tensorflow.proto has no message or enum named {name}") from None
    globals()[name] = found
    return found


def type_name(cls: Any) -> str:
    """The name of a message class as people say it: ``"GraphDef"``."""
    return str(cls.DESCRIPTOR.full_name).removeprefix(f"{_PACKAGE}.")


def parse(cls: Any, data: bytes | bytearray | memoryview, *, where: str | None) -> Any:
    """The message of class ``cls`` that ``data`` encodes; unknown fields are kept.

    ``where`` is the place in the file, for the :class:`~modelio.errors.ReadError` that is raised when the bytes are no
    such message, or nest deeper than protobuf allows (100 levels).
    """
    try:
        return cls.FromString(bytes(data) if isinstance(data, bytearray) else data)
    except (message.DecodeError, UnicodeDecodeError, RecursionError):
        raise ReadError(
            f"these bytes are not a {type_name(cls)}: damaged, cut short, or of another kind", where=where
        ) from None


def serialize(value: Any) -> bytes:
    """The message's bytes, the same ones for the same message: map entries are sorted by key."""
    name = type_name(type(value))
    if value.ByteSize() > _LIMIT:
        raise WriteError(f"this {name} is larger than 2 GiB, and no protobuf message may be; keep its weights apart")
    try:
        return bytes(value.SerializeToString(deterministic=True))
    except (message.EncodeError, ValueError, RecursionError):
        raise WriteError(f"this {name} is nested deeper than protobuf can write; nothing can read it either") from None


def parse_text(cls: Any, text: str | bytes, *, where: str | None = None) -> Any:
    """The message that protobuf's text format (``.pbtxt``) spells.

    A field that ``tensorflow.proto`` does not know is a :class:`~modelio.errors.ReadError` that names it: text has no
    unknown fields that could be kept.
    """
    from google.protobuf import text_format

    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            reason = f"no UTF-8 at byte {error.start:,}: this is not protobuf's text format"
            raise ReadError(reason, where=where) from None
    try:
        return text_format.Parse(text, cls(), descriptor_pool=_POOL)
    except text_format.ParseError as error:
        raise ReadError(f"no {type_name(cls)} in protobuf's text format: {_one_line(error)}", where=where) from None
    except RecursionError:
        raise ReadError(f"nested deeper than any {type_name(cls)}", where=where) from None


def to_text(value: Any) -> str:
    """The message in protobuf's text format.

    Text cannot hold fields that ``tensorflow.proto`` does not know: a message with such fields is a
    :class:`~modelio.errors.WriteError`.
    """
    from google.protobuf import text_format

    known = type(value)()
    known.CopyFrom(value)
    known.DiscardUnknownFields()
    if known.ByteSize() != value.ByteSize():
        raise WriteError(
            f"this {type_name(type(value))} has fields that modelio does not know, and text would lose them; "
            "write it in binary"
        )
    return str(text_format.MessageToString(value, descriptor_pool=_POOL))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
