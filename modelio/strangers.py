"""What bytes are that no format claims: the sentence behind "unknown format".

Tables of what people really pass by mistake: a Git LFS stub, a web page in place of a download, a tar named ``.h5``.
"""

from __future__ import annotations

import re

from modelio.source import Source, Tree

__all__ = ["describe"]

_UNREAD = "modelio does not read it"
_UNPACK = f"{_UNREAD}; unpack it first"
_PICKLE = f"a pickle: {_UNREAD}, since unpickling runs code"
_CHECKPOINT = "a directory of TensorFlow checkpoints without one: the .index and .data files are missing"
_TFJS = f"a TensorFlow.js graph model: {_UNREAD}; convert the model it was made from"
_LENGTH = rb"[\x80-\xff]{0,4}[\x00-\x7f]"  # a varint
_PAGE = "a web page, not a model: the download went wrong"

# (offset, magic, sentence); the first that fits is told. A negative offset counts from the end.
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs.github.com", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (4, b"TFL3", f"a TensorFlow Lite model (TFLite flatbuffer): {_UNREAD}; convert the model it was made from"),
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file in which no Keras model is found (no layer_names, model_weights or nb_layers)",
    ),
    (0, b"\x1f\x8b", f"a gzip archive: {_UNPACK}"),
    (0, b"BZh", f"a bzip2 archive: {_UNPACK}"),
    (0, b"\xfd7zXZ\x00", f"an xz archive: {_UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"a Zstandard archive: {_UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"a 7-Zip archive: {_UNPACK}"),
    (0, b"Rar!\x1a\x07", f"a RAR archive: {_UNPACK}"),
    (257, b"ustar", f"a tar archive: {_UNPACK}"),
    (0, b"\x93NUMPY", "a single NumPy array; weights without an architecture are given to LayerModel.from_json"),
    (0, b"\x80\x02", _PICKLE),
    (0, b"\x80\x03", _PICKLE),
    (0, b"\x80\x04", _PICKLE),
    (0, b"\x80\x05", _PICKLE),
)

# How a protobuf message starts; nothing else tells one from another.
MESSAGES: tuple[tuple[re.Pattern[bytes], str], ...] = (
    # SavedMetadata.nodes.node_path (keras/protobuf/saved_metadata.proto)
    (
        re.compile(rb"\x0a%b\x1a\x04root" % _LENGTH),
        "Keras' notes on a SavedModel (keras_metadata.pb): name the directory that saved_model.pb is in",
    ),
    # ModelProto.ir_version, producer_name (onnx/onnx.proto)
    (re.compile(rb"\x08[\x03-\x3f]\x12[\x01-\x3f][A-Za-z]"), f"an ONNX model: {_UNREAD}"),
)

# What the start of a text holds, in lower case.
TEXTS: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype", _PAGE),
    (b"<html", _PAGE),
    (b'"modeltopology"', _TFJS),
    (b'"weightsmanifest"', _TFJS),
    (b'"graph-model"', _TFJS),
    (b'"layers-model"', _TFJS),
    (b'"apiversion"', "an HDF5/JSON document in which no Keras model is found"),
)

# What is in a directory or a zip: a member; a member of a folder ("*/"); the ending of every name ("*.").
TREES: tuple[tuple[str, str], ...] = (
    ("model.weights.h5", "a part of a Keras v3 model (.keras): config.json, its architecture, is missing"),
    ("model.weights.npz", f"pickled weights of a Keras v3 model (.keras): {_UNREAD}, since unpickling runs code"),
    ("*.npy", "NumPy arrays (.npz); weights without an architecture are given to LayerModel.from_json"),
    ("*/data.pkl", f"a PyTorch file: {_UNREAD}"),
    ("checkpoint", _CHECKPOINT),
)

# What a file's name says where its bytes say nothing.
NAMES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"\.data-\d{5}-of-\d{5}$"),
        "the numbers of a TensorFlow checkpoint, in no order of their own: name the .index file beside it, or the "
        "directory that both are in",
    ),
)

_HEAD = 1024


def describe(source: Source) -> str:
    """One sentence on what ``source`` is, where that can be told, and that no format knows it."""
    if source.tree is not None:
        return _describe_tree(source.tree)
    head = source.head(_HEAD)
    if not head:
        return "the file is empty"
    for offset, magic, sentence in SIGNATURES:
        if _at(source, head, offset, len(magic)) == magic:
            return sentence
    for pattern, sentence in MESSAGES:
        if pattern.match(head):
            return sentence
    for name, sentence in NAMES:
        if name.search(source.name):
            return sentence
    if not _is_text(head):
        return f"no format recognises the content (it starts with {head[:8].hex(' ')})"
    for mark, sentence in TEXTS:
        if mark in head.lower():
            return sentence
    start = head.decode("utf-8", "replace").strip()[:40].split("\n")[0].strip()
    return f"no format recognises this text (it starts with {start!r})" if start else "the file holds only white space"


def _at(source: Source, head: bytes, offset: int, length: int) -> bytes:
    if offset >= 0:
        return head[offset : offset + length]
    return bytes(source.window().read(source.size + offset, length)) if source.size >= -offset else b""


def _describe_tree(tree: Tree) -> str:
    names = tree.top()
    if not names:
        return "it is empty"
    for mark, sentence in TREES:
        if _holds(tree, names, mark):
            return sentence
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"no format recognises these members: {listed}"


def _holds(tree: Tree, names: list[str], mark: str) -> bool:
    if mark.startswith("*."):
        return all(name.endswith(mark[1:]) for name in names)
    if mark.startswith("*/"):
        return any(name + mark[1:] in tree for name in names[:3])
    return mark in tree


def _is_text(head: bytes) -> bool:
    """Whether it is UTF-8 without control characters; what was cut at the end may be half a character."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character >= " " or character in "\t\n\r" for character in text)
