"""Tables in a graph that nobody initializes: filled by the request that asks them.

A loader of SavedModels runs the model's init op, which fills its tables, from constants or from an asset's lines; a
frozen graph has neither init op nor assets. Here the nodes that fill a table move into the graph, and every node that
takes the table waits for them::

    table: HashTableV2       fill/keys, fill/values: Const       fill: InitializeTableV2(table, fill/keys, fill/values)
    call: PartitionedCall(words, table, ^fill)

From the second request on filling does nothing (``InitializableLookupTable::Initialize`` in
``core/kernels/lookup_util.cc``), or, for a table that can be changed, puts in what is in it (tried with TensorFlow 1.15
and 2.21). What a table held when the model was saved, the checkpoint has; lines of an asset become constants, as
``TextFileLineIterator`` in the same file reads them.

A table that can be changed is not filled by the init op but restored by the saver, as variables are. Where a graph's
saver is made anew, the init op fills it (:func:`restored_first`), since the new saver restores variables only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError, ReadError
from modelio.graph.bodies import Body, called, copied
from modelio.graph.loading import asset_files, loading
from modelio.graph.names import VARIABLES, shared_name
from modelio.graph.operations import attribute_value, op
from modelio.graph.references import node_of
from modelio.graph.tables import INIT, MAIN_OP, initializer_of, main_op
from modelio.model import GraphModel, Message, Tensor
from modelio.source import Source
from modelio.wire import dtypes, messages

__all__ = ["TABLES", "Filled", "fill", "restored_first"]

TABLES = frozenset(
    {
        "HashTable",
        "HashTableV2",
        "MutableDenseHashTable",
        "MutableDenseHashTableV2",
        "MutableHashTable",
        "MutableHashTableOfTensors",
        "MutableHashTableOfTensorsV2",
        "MutableHashTableV2",
    }
)
"""Ops that are a table."""

_IMPORTS = {"LookupTableImport": "LookupTableInsert", "LookupTableImportV2": "LookupTableInsertV2"}
"""Ops that put all of a checkpoint's content into a table, and those that put some keys into it."""

_FROM_CONSTANTS = frozenset({"InitializeTable", "InitializeTableV2", *_IMPORTS})
_FROM_FILES = {"InitializeTableFromTextFile": "InitializeTable", "InitializeTableFromTextFileV2": "InitializeTableV2"}
"""Ops that fill a table from a file, and those that fill it with the same from constants."""

_WHOLE_LINE, _LINE_NUMBER = -2, -1
"""Which column of a file a key or value is, where it is none."""

_FILE_LIMIT = 1 << 30
"""Bytes of a vocabulary that is read."""


@dataclass
class Filled:
    """What :func:`fill` did beside changing the body: the contents of new constants, the assets that are left with what
    says where the graph has them, and what is in the way.
    """

    constants: dict[str, Tensor] = field(default_factory=dict)
    assets: dict[str, Source] = field(default_factory=dict)
    extra: dict[str, bytes] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)


def fill(model: GraphModel, body: Body, functions: Mapping[str, Body]) -> Filled:
    """Let the tables that the nodes of ``body`` name, or of the functions that it needs, be filled inside of it."""
    filled = Filled(assets=dict(model.assets))
    own = [node for node in body.nodes.values() if _is_handle(node)]
    inner = {shared_name(node): node for one in functions.values() for node in one.nodes.values() if _is_handle(node)}
    if own or inner:
        filler = _Filler(model, body, filled)
        for node in own:
            filler.table(str(node.name))
        for node in inner.values():
            filler.inner_table(node, functions)
    _leave_assets(model, body, filled)
    return filled


def restored_first(model: GraphModel) -> GraphModel:
    """The model with tables that its saver restores filled by its init op, from constants.

    For graphs whose saver goes: what takes its place (:func:`~modelio.graph.saver.add_saver`) knows of variables only.
    """
    if not any(node.op in TABLES and not node.op.startswith("HashTable") for node in model.graph.node):
        return model
    body, filled = Body.of(model.graph, (), whole=True), Filled()
    there = set(body.nodes)
    filler = _Filler(model, body, filled)
    added = [
        filler.restored(node)
        for node in list(filler.load.nodes.values())
        if node.op in _IMPORTS and len(node.input) > 1
        if (entry := filler.load.entry(node.input[1])) is not None and entry.key in model.variables
    ]
    if not added:
        return model
    first = messages.NodeDef(name=filler.free("restore_tables"), op="NoOp")
    first.input.extend(f"^{name}" for name in [*added, initializer_of(model)] if name is not None)
    graph = messages.GraphDef()
    graph.CopyFrom(model.graph)
    graph.node.extend([*(node for name, node in body.nodes.items() if name not in there), first])
    extra = {key: data for key, data in model.extra.items() if key != INIT}
    return replace(
        model,
        graph=graph,
        constants={**model.constants, **filled.constants},
        extra={**extra, MAIN_OP: main_op(first.name)},
    )


def _is_handle(node: Message) -> bool:
    """Is it a table, or something else that is made from nothing and may be filled later?"""
    if node.op in TABLES:
        return True
    definition = op(node.op)
    return (definition is None or definition.stateful) and all(text.startswith("^") for text in node.input)


def _leave_assets(model: GraphModel, body: Body, filled: Filled) -> None:
    """Drop the assets that no node is given the path of any more."""
    files = asset_files(model)
    used = {name: file for name, file in files.items() if name in body.nodes}
    for file in set(files.values()) - set(used.values()):
        filled.assets.pop(file, None)
    if used:
        meta = messages.MetaGraphDef()
        for name, file in used.items():
            row = meta.asset_file_def.add(filename=file)
            row.tensor_info.name = f"{name}:0"
            row.tensor_info.dtype = messages.DataType.DT_STRING
            row.tensor_info.tensor_shape.SetInParent()
        filled.extra["asset_file_def"] = messages.serialize(meta)


class _Filler:
    def __init__(self, model: GraphModel, body: Body, filled: Filled) -> None:
        self.model = model
        self.body = body
        self.files = asset_files(model)
        self.filled = filled
        self.load = loading(model, also=(*_FROM_CONSTANTS, *_FROM_FILES))
        self._fillers: dict[str, Message] = {}
        for node in self.load.nodes.values():
            for text in node.input:
                handle, _ = self.load.source(text)
                if text.startswith("^") or handle is None or node.op == "Identity":
                    continue
                if not _is_handle(handle) or handle.op in VARIABLES:
                    continue
                entry = self.load.entry(node.input[1]) if node.op in _IMPORTS and len(node.input) > 1 else None
                if entry and entry.key not in model.variables and shared_name(handle) in self._fillers:
                    continue  # of a saver that was: what it restored is filled otherwise now
                if handle.op not in TABLES or node.op in (*_FROM_CONSTANTS, *_FROM_FILES, *_IMPORTS.values()):
                    self._fillers[shared_name(handle)] = node

    def table(self, name: str) -> None:
        """Let a table be filled before anything takes it."""
        table = self.body.nodes[name]
        added = self._fill(table, name)
        for node in self.body.nodes.values():
            if added and node.name != added and any(node_of(text) == name and text[0] != "^" for text in node.input):
                node.input.append(f"^{added}")

    def inner_table(self, table: Message, functions: Mapping[str, Body]) -> None:
        """Let a table that a function makes be filled before the function is called, through a node of the graph that
        is the same table.
        """
        twin = copied(table)
        twin.name = self.free(f"{table.name}/shared")
        twin.attr["shared_name"].s = shared_name(table).encode()
        added = self._fill(table, twin.name)
        if added:
            self.body.nodes[twin.name] = twin
            makers = _callers(shared_name(table), functions)
            for node in self.body.nodes.values():
                if node.op in makers or any(one.name in makers for one in called(node)):
                    node.input.append(f"^{added}")

    def restored(self, node: Message) -> str | None:
        """Add what fills a table as the saver's node ``node`` does; None where the table is not the graph's own."""
        handle, _ = self.load.source(node.input[0])
        if handle is None or handle.name not in self.body.nodes:
            return None
        return self._filler(node, str(handle.name))

    def _fill(self, table: Message, handle: str) -> str:
        """Add what fills a table, whose node is to be ``handle``; returns the node to wait for, or nothing."""
        node = self._fillers.get(shared_name(table))
        if node is None:
            if table.op.startswith("HashTable"):
                self.filled.changes.append(f"the table {handle} stays, and nothing in the model fills it")
            return ""
        try:
            if table.op not in TABLES:
                raise ConversionError(f"{node.op} fills it when the model is loaded, and only then")
            added = self._filler(node, handle)
        except ConversionError as error:
            self.filled.blocked.append(f"{handle} ({table.op}: {error.reason})")
            return ""
        self.filled.changes.append(f"the table {handle} is filled by the first request")
        return added

    def _filler(self, node: Message, table: str) -> str:
        """Add the node that fills, with all that it needs; returns its name."""
        if len(node.input) < (2 if node.op in _FROM_FILES else 3):
            raise ReadError(
                f"it has {len(node.input)} inputs, and there must be a table and what fills it", where=node.name
            )
        made = copied(node)
        made.op = _FROM_FILES.get(node.op, node.op)
        made.name = self.free(node.name)
        if node.op in _FROM_FILES:
            keys, values = self._lines(node)
            made.attr.clear()
            made.attr["Tkey"].type, made.attr["Tval"].type = map(dtypes.dtype_number, (keys.dtype, values.dtype))
            data = [self._constant(f"{made.name}/keys", keys), self._constant(f"{made.name}/values", values)]
        elif node.op in _IMPORTS and (dense := self._of_buckets(node)) is not None:
            made.op = _IMPORTS[node.op]
            content = zip(_ENDS, self._content(node, dense), strict=True)
            data = [self._constant(f"{made.name}/{end}", values) for end, values in content]
        else:
            data = [self._copied(text, f"{made.name}/{end}") for text, end in zip(node.input[1:3], _ENDS, strict=True)]
        made.attr.pop("_class", None)
        made.attr.pop("_output_shapes", None)
        made.input[:] = [table, *data]
        self.body.nodes[made.name] = made
        return str(made.name)

    def _of_buckets(self, node: Message) -> Message | None:
        """The dense table that a node imports into from the checkpoint; None where it is another, or from elsewhere."""
        table, _ = self.load.source(node.input[0])
        is_stored = self.load.entry(node.input[1]) is not None
        return table if table is not None and table.op in _OF_BUCKETS and is_stored else None

    def _content(self, node: Message, table: Message) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The keys and values that a dense table has in the checkpoint, which holds all of its buckets, a row each.

        Unused buckets have the empty key, or the one for what was deleted (``core/kernels/lookup_table_op.cc``,
        ``MutableDenseHashTable::ExportValues``).
        """
        entries = [self.load.entry(text) for text in node.input[1:3]]
        found = [self.model.variables.get(entry.key) for entry in entries if entry is not None and not entry.part]
        unused = [self.load.constant(text) for text in table.input if not text.startswith("^")]
        stored = [tensor.numpy() for tensor in found if tensor is not None]
        marks = [tensor.numpy() for tensor in unused if tensor is not None]
        if len(stored) != 2 or len(marks) != len(unused) or not marks:
            raise ConversionError("its content is not in the checkpoint, or its empty key is computed")
        rows, values = (array.reshape(len(array), -1) for array in stored)
        used = np.ones(len(rows), bool)
        for mark in marks:
            if rows.shape[1] != mark.size or len(values) != len(rows):
                raise ReadError("its content in the checkpoint does not fit it", where=table.name)
            used &= (rows != mark.reshape(1, -1)).any(axis=1)
        shape = dtypes.shape_to_tuple(table.attr["value_shape"].shape) if "value_shape" in table.attr else ()
        keys = rows[used].reshape(-1, *marks[0].shape)
        return keys, values[used].reshape(-1, *(size or 0 for size in shape or ()))

    def _copied(self, text: str, name: str) -> str:
        """A tensor of what the loader runs, with the nodes that it comes from, in the body.

        What the checkpoint gives becomes a constant; it is called ``name``, and more than one ``name_1``, ...
        """
        names: dict[str, str] = {}  # tensor of the loader -> tensor of the body
        copies: list[Message] = []
        waiting = [text]
        while waiting:
            tensor = waiting.pop()
            if tensor in names:
                continue
            node, port = self.load.source(tensor)
            if node is None:
                raise ConversionError("what fills it is not in the model")
            entry = self.load.entry(tensor)
            if entry is not None:
                if entry.part or entry.key not in self.model.variables:
                    raise ConversionError(f"its content {entry.key!r} is not in the checkpoint")
                names[tensor] = self._constant(name, self.model.variables[entry.key])
                continue
            definition = op(node.op)
            if node.op in VARIABLES or definition is None or definition.stateful or node.op.startswith("Placeholder"):
                raise ConversionError(f"it is filled from {node.name} ({node.op}), which no constant can stand for")
            names[tensor] = f"{node.name}:{port}" if port else str(node.name)
            if node.name not in self.body.nodes:
                self.body.nodes[node.name] = copied(node)
                copies.append(self.body.nodes[node.name])
                waiting += [inner for inner in node.input if not inner.startswith("^")]
                if node.name in self.load.constants:
                    self.filled.constants[node.name] = self.load.constants[node.name]
        for copy in copies:
            copy.input[:] = [names[inner] for inner in copy.input if not inner.startswith("^")]
            copy.attr.pop("_class", None)
        return names[text]

    def _constant(self, name: str, value: Tensor | npt.NDArray[Any]) -> str:
        tensor = value if isinstance(value, Tensor) else Tensor.of(value)
        node = messages.NodeDef(name=self.free(name), op="Const")
        number = dtypes.dtype_number(tensor.dtype)
        node.attr["dtype"].type = number
        if tensor.dtype.kind == "O":
            node.attr["value"].tensor.CopyFrom(dtypes.numpy_to_tensor(tensor.numpy()))
        else:
            node.attr["value"].tensor.CopyFrom(dtypes.cut_tensor(number, tensor.shape))
            self.filled.constants[node.name] = tensor
        self.body.nodes[node.name] = node
        return str(node.name)

    def free(self, name: str) -> str:
        """A name that no node of the body has: ``name``, ``name_1``, ..."""
        free, count = name, 0
        while free in self.body.nodes:
            count += 1
            free = f"{name}_{count}"
        return free

    def _lines(self, node: Message) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The keys and values that a table takes from a file."""
        file = self.files.get(self._path(node.input[1]))
        if file is None or file not in self.model.assets:
            raise ConversionError("it is filled from a file that is not part of the model")
        table, _ = self.load.source(node.input[0])
        assert table is not None  # it was found by its table
        # The file's iterator drops every carriage return, and a line feed at the end makes no line.
        lines = self.model.assets[file].bytes(_FILE_LIMIT).replace(b"\r", b"").split(b"\n")
        if lines and not lines[-1]:
            lines.pop()
        start = max(_number(node, "offset"), 0) if "offset" in node.attr else 0
        size = _number(node, "vocab_size")
        lines = lines[start : start + size if size >= 0 else None]
        delimiter = str(attribute_value(node, "delimiter")).encode()
        keys, values = (
            _column(lines, _number(node, index), delimiter, str(attribute_value(table, kind)), file, start)
            for index, kind in (("key_index", "key_dtype"), ("value_index", "value_dtype"))
        )
        return keys, values

    def _path(self, text: str) -> str:
        """The node that gives a file's path, through the variable in which TensorFlow 2 keeps it."""
        node, _ = self.load.source(text)
        if node is not None and node.op == "ReadVariableOp":
            variable, _ = self.load.source(node.input[0])
            for other in self.load.nodes.values():
                if other.op == "AssignVariableOp" and self.load.source(other.input[0])[0] is variable:
                    node, _ = self.load.source(other.input[1])
        return "" if node is None else str(node.name)


_ENDS = ("keys", "values")
_OF_BUCKETS = frozenset({"MutableDenseHashTable", "MutableDenseHashTableV2"})


def _callers(shared: str, functions: Mapping[str, Body]) -> set[str]:
    """The functions that make this table, and those that call them."""
    found = {
        name
        for name, body in functions.items()
        if any(node.op in TABLES and shared_name(node) == shared for node in body.nodes.values())
    }
    count = -1
    while count < len(found):
        count = len(found)
        for name, body in functions.items():
            for node in body.nodes.values():
                if node.op in found or any(one.name in found for one in called(node)):
                    found.add(name)
    return found


def _number(node: Message, attribute: str) -> int:
    value = attribute_value(node, attribute)
    if not isinstance(value, int):
        raise ReadError(f"its attribute {attribute!r} is no number", where=node.name)
    return value


def _column(lines: list[bytes], index: int, delimiter: bytes, kind: str, file: str, start: int) -> npt.NDArray[Any]:
    """One column of a vocabulary as an array."""
    dtype = dtypes.numpy_dtype(dtypes.dtype_number(kind))
    if index == _LINE_NUMBER:
        return np.arange(start, start + len(lines)).astype(dtype)
    try:
        items = lines if index == _WHOLE_LINE else [line.split(delimiter)[index] for line in lines]
        if dtype.kind == "O":
            array = np.empty(len(items), object)
            array[:] = items
            return array
        return np.array([dtype.type(item.decode()) for item in items], dtype)
    except (IndexError, ValueError):
        raise ConversionError(f"a line of {file} has no {kind} in column {index}") from None
