"""Where else a graph's nodes are named: the saver, the collections, the assets, the signatures' own words, the objects.

A model's ``extra`` holds these messages as they came (:mod:`modelio.graph.meta_graph`). A step that renames a node, or
takes one away, must say so here too: TensorFlow refuses a collection that names a node which is not there.

::

    saver_def               SaverDef                     three names
    collection_def/...      node_list                    tensors and operations
                            VariableDef, SaverDef, ...   in the collections of :data:`_VARIABLES` and :data:`_NESTED`
                            AssetFileDef                 in an Any
    asset_file_def          AssetFileDef                 the tensor that is fed with the file's path
    signature_def/...       SignatureDef                 the parts of sparse and composite tensors, too
    object_graph_def        SavedConstant                the operation that holds it

Sources: ``tensorflow/python/framework/meta_graph.py`` (``import_scoped_meta_graph_with_return_elements``), ``ops.py``
(``GraphKeys``), ``tensorflow/core/protobuf/control_flow.proto``, ``queue_runner.proto``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from modelio.errors import ReadError
from modelio.graph.meta_graph import SIGNATURE
from modelio.graph.saver import COLLECTION, SAVER
from modelio.model import GraphModel, Message
from modelio.wire import messages
from modelio.wire.varint import encode_varint, varint

__all__ = ["OBJECTS", "OTHERS", "Change", "changed", "named", "node_of", "referenced", "renamed", "without"]

Change = Callable[[str], "str | None"]
"""What becomes of a tensor's or an operation's name; None: it is no longer there."""

_ASSETS = "asset_file_def"

OBJECTS = "object_graph_def"
"""The key of a model's ``extra`` that holds its SavedObjectGraph."""

OTHERS = "saved_model"
"""The key of a model's ``extra`` that holds the MetaGraphs beside the one that it is, as a SavedModel of their own."""

_VARIABLES = frozenset(
    {
        "concatenated_variables",
        "global_step",
        "local_variables",
        "metric_variables",
        "model_variables",
        "moving_average_variables",
        "trainable_resource_variables",
        "trainable_variables",
        "variables",
    }
)
"""Collections of VariableDefs."""

_CONTEXTS = frozenset({"cond_context", "while_context"})
"""Collections that say which nodes a conditional or a loop was made of, so that it can be differentiated once more."""

_NESTED = _CONTEXTS | {"queue_runners", "savers"}
"""Collections whose messages are nothing but names, numbers, and messages of these."""


def node_of(tensor: str) -> str:
    """The node that ``"node"``, ``"node:1"`` or ``"^node"`` names."""
    return tensor.removeprefix("^").partition(":")[0]


def renamed(tensor: str, names: Mapping[str, str]) -> str:
    """``tensor`` after its node was renamed.

    >>> renamed("^a", {"a": "b"}), renamed("a:1", {"a": "b"}), renamed("c", {"a": "b"})
    ('^b', 'b:1', 'c')
    """
    node = node_of(tensor)
    if node not in names:
        return tensor
    control = "^" if tensor.startswith("^") else ""
    return control + names[node] + tensor[len(control) + len(node) :]


def named(model: GraphModel) -> set[str]:
    """The nodes that something outside of the graph names: a signature, or what is in ``extra``."""
    found = referenced(model.extra)
    for signature in model.signatures.values():
        found.update(node_of(spec.tensor) for ends in (signature.inputs, signature.outputs) for spec in ends.values())
    return found


def referenced(extra: Mapping[str, bytes]) -> set[str]:
    """The nodes that something in ``extra`` needs. What a conditional was once made of is not needed."""
    found: set[str] = set()

    def note(tensor: str) -> str:
        found.add(node_of(tensor))
        return tensor

    changed({key: data for key, data in extra.items() if key.removeprefix(COLLECTION) not in _CONTEXTS}, note)
    return found


def without(extra: Mapping[str, bytes], gone: Iterable[str]) -> dict[str, bytes]:
    """``extra`` without what names one of the nodes that are gone."""
    lost = frozenset(gone)
    return changed(extra, lambda tensor: None if node_of(tensor) in lost else tensor)


def changed(extra: Mapping[str, bytes], change: Change) -> dict[str, bytes]:
    """``extra`` with every name changed; an entry whose name is no longer there goes, and what then is empty."""
    result = {}
    for key, data in extra.items():
        kept = _entry(key, data, change)
        if kept is not None:
            result[key] = kept
    return result


def _entry(key: str, data: bytes, change: Change) -> bytes | None:
    if key == SAVER:
        saver = _parsed(messages.SaverDef, data, key)
        return _written(saver, data, _saver(saver, change))
    if key == _ASSETS:
        meta = _parsed(messages.MetaGraphDef, data, key)
        _filter(meta.asset_file_def, lambda asset: _end(asset.tensor_info, change))
        return _written(meta, data, bool(meta.asset_file_def))
    if key == OBJECTS:
        objects = _parsed(messages.SavedObjectGraph, data, key)
        for node in objects.nodes:
            if node.WhichOneof("kind") == "constant":
                node.constant.operation = change(node.constant.operation) or node.constant.operation
        return _written(objects, data, True)
    if key.startswith(COLLECTION):
        collection = _parsed(messages.CollectionDef, data, key)
        return _written(collection, data, _collection(key.removeprefix(COLLECTION), collection, change))
    if key.startswith(SIGNATURE):
        definition = _parsed(messages.SignatureDef, data, key)
        ends = bool(definition.inputs or definition.outputs)
        for infos in (definition.inputs, definition.outputs):
            for name in [name for name, info in infos.items() if not _end(info, change)]:
                del infos[name]
        return _written(definition, data, not ends or bool(definition.inputs or definition.outputs))
    return data


def _parsed(cls: Any, data: bytes, key: str) -> Message:
    return messages.parse(cls, data, where=f"extra[{key!r}]")


def _written(message: Message, data: bytes, kept: bool) -> bytes | None:
    """The bytes of a message that was visited: those that it came from where nothing changed."""
    if not kept:
        return None
    written = messages.serialize(message)
    return data if len(written) == len(data) and type(message).FromString(data) == message else written


def _saver(saver: Message, change: Change) -> bool:
    for field in ("filename_tensor_name", "save_tensor_name", "restore_op_name"):
        name = getattr(saver, field)
        new = change(name) if name else name
        if new is None:
            return False
        setattr(saver, field, new)
    return True


def _end(info: Message, change: Change) -> bool:
    """Change the names in a TensorInfo; False where one is gone."""
    kind = info.WhichOneof("encoding")
    if kind == "composite_tensor":
        return all(_end(component, change) for component in info.composite_tensor.components)
    holder, fields = info, ["name"]
    if kind == "coo_sparse":
        holder = info.coo_sparse
        fields = ["values_tensor_name", "indices_tensor_name", "dense_shape_tensor_name"]
    for field in fields:
        name = getattr(holder, field)
        new = change(name) if name else name
        if new is None:
            return False
        if new != name:
            setattr(holder, field, new)
    return True


def _collection(name: str, collection: Message, change: Change) -> bool:
    """Change the names in a collection; False where nothing is left of it."""
    kind = collection.WhichOneof("kind")
    if kind is None:
        return True
    values = getattr(collection, kind).value
    count = len(values)
    if kind == "node_list":
        names = map(change, values)
        values[:] = [new for new in names if new is not None]
    elif kind == "bytes_list" and name in _VARIABLES:
        values[:] = [new for value in values if (new := _variable(value, name, change)) is not None]
    elif kind == "bytes_list" and name in _NESTED:
        values[:] = [new for value in values if (new := _nested(value, change)) is not None]
    elif kind == "any_list":
        _filter(values, lambda value: _any(value, change))
    return len(values) > 0 or not count


def _variable(data: bytes, name: str, change: Change) -> bytes | None:
    definition = _parsed(messages.VariableDef, data, COLLECTION + name)
    for field in ("variable_name", "initializer_name", "snapshot_name"):
        value = getattr(definition, field)
        new = change(value) if value else value
        if new is None:
            return None
        setattr(definition, field, new)
    if definition.initial_value_name:
        definition.initial_value_name = change(definition.initial_value_name) or ""
    return _written(definition, data, True)


def _any(value: Message, change: Change) -> bool:
    if not value.type_url.endswith("tensorflow.AssetFileDef"):
        return True
    asset = messages.parse(messages.AssetFileDef, value.value, where=value.type_url)
    kept = _end(asset.tensor_info, change)
    value.value = _written(asset, value.value, kept) or b""
    return kept


def _filter(values: Any, keep: Callable[[Any], bool]) -> None:
    """Leave those of a repeated field that are to be kept; ``keep`` may change them."""
    for index in reversed([index for index, value in enumerate(values) if not keep(value)]):
        del values[index]


# Messages that tensorflow.proto does not know: CondContextDef, WhileContextDef, QueueRunnerDef.

_DEPTH = 32


def _nested(data: bytes, change: Change) -> bytes | None:
    """A message whose every string names a tensor, an operation or a context, with the names changed.

    None where one of them is gone. Which field is a message and which a string is not known, and need not be: a string
    that is the name of a node is no well-formed message of strings, and the other way round.
    """
    lost = False

    def text(value: bytes) -> bytes:
        nonlocal lost
        try:
            new = change(value.decode())
        except UnicodeDecodeError:
            return value
        lost = lost or new is None
        return value if new is None else new.encode()

    written = _strings(data, text, 0)
    return None if lost else written


def _strings(data: bytes, text: Callable[[bytes], bytes], depth: int) -> bytes:
    if depth > _DEPTH:
        raise ReadError("messages are nested deeper than any conditional is", where=COLLECTION)
    written = bytearray()
    position = 0
    while position < len(data):
        start = position
        tag, position = varint(data, position)
        kind = tag & 7
        if kind == 0:
            position = varint(data, position)[1]
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind == 2:
            length, position = varint(data, position)
            value = data[position : position + length]
            position += length
            if position <= len(data):
                inside = _inside(value, text, depth)
                written += encode_varint(tag) + encode_varint(len(inside)) + inside
                continue
        if kind not in (0, 1, 2, 5) or position > len(data):
            raise ReadError("a field is cut short or damaged", where=COLLECTION)
        written += data[start:position]
    return bytes(written)


def _inside(value: bytes, text: Callable[[bytes], bytes], depth: int) -> bytes:
    new = text(value)
    if new != value or not value or 0x20 <= value[0] < 0x7F:  # a name begins with a letter, a message with a low tag
        return new
    try:
        return _strings(value, text, depth + 1)
    except ReadError:
        return value
