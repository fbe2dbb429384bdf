"""What may be a weight in a graph, and what it is called there.

::

    a variable of TensorFlow 1          dense_1/kernel, net/dense_1/kernel, dense_1_W (Keras 1)
    a variable of TensorFlow 2          layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE, and, in the graph of
                                        objects, dense_1/kernel, too
    a constant that was a variable      dense_1/kernel, whose reader is dense_1/kernel/read, or, of TensorFlow 2,
                                        model/dense_1/MatMul/ReadVariableOp/resource, named after who reads it

Sources: ``tensorflow/python/framework/graph_util_impl.py``, ``convert_to_constants.py``,
``tensorflow/python/checkpoint/graph_view.py`` (the keys).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy.typing as npt

from modelio.errors import ReadError
from modelio.graph.objects import CHECKPOINT, VALUE, Objects, checkpoint_objects, saved_objects
from modelio.lifting.tables import Tables
from modelio.model import GraphModel, Message, Tensor
from modelio.wire import dtypes

__all__ = ["Candidate", "Words", "candidates_of", "values_of"]

Words = tuple[str, ...]
"""A name, cut at its slashes."""


@dataclass(frozen=True)
class Candidate:
    """What may be a weight.

    Args:
        key: the variable's key, or the constant's node: as the file has it.
        names: what it is called, the best name first, as words between slashes.
        tensor: its numbers.
        is_variable: it is a variable, or a constant that was one; other constants are weights only by their names.
        readers: of a constant that was a variable, who reads it, in words.
    """

    key: str
    names: tuple[Words, ...]
    tensor: Tensor
    is_variable: bool = True
    readers: tuple[Words, ...] = ()

    @property
    def name(self) -> str:
        """Its best name, as one."""
        return "/".join(self.names[0])


def candidates_of(model: GraphModel) -> list[Candidate]:
    """The variables of a graph, or, where it has none, its constants; copies of others, and what optimizers and metrics
    keep, are left out.
    """
    if not model.variables:
        readers = _readers(model)
        return [
            _candidate(name, [name], tensor, is_variable=name in readers, readers=readers.get(name, ()))
            for name, tensor in _constants(model)
        ]
    objects = _objects(model)
    called = _called(objects) if objects is not None else {}
    found = [
        _candidate(key, [*called.get(key, ()), _ATTRIBUTES.sub("", key)], tensor)
        for key, tensor in model.variables.items()
        if not _OTHERS.search(key)
    ]
    found += _vocabularies(model, objects) if objects is not None else []
    names = {candidate.name for candidate in found if not candidate.key.startswith(COPIES)}
    return [item for item in found if not (item.key.startswith(COPIES) and item.name in names)]


COPIES = "_all_variables/"
"""Where ``model.export`` of Keras 3 keeps every variable a second time (``src/export/saved_model.py``)."""

_ATTRIBUTES = re.compile(r"/\.ATTRIBUTES/[A-Z_]+$")
_OTHERS = re.compile(
    r"/\.OPTIMIZER_SLOT/|/\.ATTRIBUTES/(?!VARIABLE_VALUE)|^optimizer/|^keras_api/metrics/|^save_counter/|^_CHECKPOINTABLE"
)
_FROZEN = re.compile(r"/resource$|/embedding_lookup/\d+$")
_READER = re.compile(r"/read$|/ReadVariableOp(_\d+)?$|/embedding_lookup$")
_PASSING = ("Identity", "Enter", "Switch")
"""Ops that hand a value on to who reads it: into a function that was inlined, a loop, a branch."""

_READ = re.compile(r"/read$|/Read/ReadVariableOp$|/resource$")


def _readers(model: GraphModel) -> dict[str, list[str]]:
    """The constants that were variables, by their names or by those of their readers, and who reads each."""
    nodes = {node.name: node for node in model.graph.node}
    found: dict[str, list[str]] = {}
    for name, node in nodes.items():
        if node.op == "Const" and (own := _FROZEN.sub("", name)) != name:
            found.setdefault(name, []).append(own)
    for name, node in nodes.items():
        reader = re.sub(r"/(Switch|Enter)$", "", name)
        if node.input and _READER.search(reader):
            source = _source(nodes, node.input[0])
            if source is not None:
                found.setdefault(source, []).extend([reader] if not reader.endswith("/read") else [])
    return found


def _source(nodes: Mapping[str, Message], value: str) -> str | None:
    """The constant that arrives at an input."""
    for _ in range(16):
        node = nodes.get(value.partition(":")[0])
        if node is None or node.op == "Const":
            return None if node is None else str(node.name)
        if node.op not in _PASSING or not node.input:
            return None
        value = node.input[0]
    return None


def values_of(model: GraphModel) -> dict[str, Tensor]:
    """Every variable and every constant of a graph by its name."""
    return {**dict(_constants(model)), **model.variables}


def _constants(model: GraphModel) -> Iterator[tuple[str, Tensor]]:
    for node in model.graph.node:
        if node.op == "Const" and "value" in node.attr:
            with contextlib.suppress(ReadError):  # a handle, a variant: nothing that could be a weight
                yield node.name, model.constants.get(node.name) or _constant(node)


def _constant(node: Message) -> Tensor:
    proto = node.attr["value"].tensor
    shape = dtypes.shape_to_tuple(proto.tensor_shape) or ()
    return Tensor(
        dtypes.numpy_dtype(proto.dtype, where=node.name), tuple(size or 0 for size in shape), partial(_load, node)
    )


def _load(node: Message) -> npt.NDArray[Any]:
    return dtypes.tensor_to_numpy(node.attr["value"].tensor, where=node.name)


def _vocabularies(model: GraphModel, objects: Objects) -> list[Candidate]:
    """The tables of preprocessing layers, which tf_keras counts among their weights."""
    tables = Tables(model, objects)
    found = []
    for path, node in objects.walk():
        table = tables.vocabulary(node) if node.kind in ("user_object", "") else None
        if table is not None:
            found.append(_candidate(f"{path}/vocabulary", [f"{path}/vocabulary"], table))
    return found


def _objects(model: GraphModel) -> Objects | None:
    found = saved_objects(model)
    if found is None and CHECKPOINT in model.extra:
        found = checkpoint_objects(model.extra[CHECKPOINT])
    return found


def _called(objects: Objects) -> Mapping[str, list[str]]:
    """Key -> the names of the variable, and its shortest paths among the objects: through all, and through layers."""
    called: dict[str, list[str]] = {}
    for path, node in (*objects.walk(), *objects.walk(without=LISTS)):
        if node.key is not None:
            saved = node.message.variable.name if node.kind == "variable" else ""
            called.setdefault(node.key, []).extend(filter(None, (saved, node.values[VALUE].full_name, path)))
    return called


LISTS = frozenset({"variables", "trainable_variables", "non_trainable_variables", "keras_api"})
"""Children of a Keras object that list what other children hold, too."""


def _candidate(
    key: str, names: Sequence[str], tensor: Tensor, *, is_variable: bool = True, readers: Sequence[str] = ()
) -> Candidate:
    words = tuple(dict.fromkeys(filter(None, map(_words, names)))) or ((key,),)
    return Candidate(key, words, tensor, is_variable, tuple(tuple(filter(None, name.split("/"))) for name in readers))


def _words(name: str) -> Words:
    return tuple(filter(None, _READ.sub("", name.partition(":")[0]).split("/")))
