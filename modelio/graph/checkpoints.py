"""A checkpoint's tensors as a model's variables, and back.

A SavedModel has a checkpoint inside it, so two formats come here. Numbers stay in their files; the description of an
object-based checkpoint, which is no number, goes to ``extra`` under the name that it has in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError, WriteError
from modelio.graph.names import VARIABLES
from modelio.graph.saver import SAVER, add_saver
from modelio.model import GraphModel, Message, Tensor
from modelio.sink import Sink
from modelio.wire.bundle import BundleWriter, shard_suffix
from modelio.wire.dtypes import numpy_dtype, shape_to_tuple

__all__ = ["OBJECTS", "Stored", "absent_variables", "variables_of", "with_saver", "write_variables"]

OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The entry that describes objects, in a checkpoint and in ``extra``."""


class _Entry(Protocol):
    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


class Stored(Protocol):
    """An open checkpoint: :class:`modelio.wire.bundle.Bundle`, :class:`modelio.wire.tensor_slices.SliceTables`."""

    @property
    def entries(self) -> Mapping[str, _Entry]: ...

    def load(self, name: str) -> npt.NDArray[Any]: ...

    def stream(self, name: str) -> Iterator[bytes | memoryview]: ...


# Reading


def variables_of(stored: Stored) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    """The variables, and the description of objects as an entry of ``extra``."""
    objects: dict[str, bytes] = {}
    variables: dict[str, Tensor] = {}
    for name, entry in stored.entries.items():
        if name == OBJECTS and entry.dtype.hasobject and not entry.shape:
            objects[name] = stored.load(name).item()
        else:
            stream = None if entry.dtype.hasobject else partial(stored.stream, name)
            variables[name] = Tensor(entry.dtype, entry.shape, partial(stored.load, name), stream)
    return variables, objects


def absent_variables(graph: Message, reason: str) -> dict[str, Tensor]:
    """The variables of a graph that came alone: what they are can be told; their numbers raise a ReadError."""
    return dict(_absent(node, reason) for node in graph.node if node.op in VARIABLES)


def _absent(node: Message, reason: str) -> tuple[str, Tensor]:
    def refuse() -> Any:
        raise ReadError(reason, where=node.name)

    shape = shape_to_tuple(node.attr["shape"].shape) or ()
    dtype = numpy_dtype(node.attr["dtype"].type, where=node.name)
    return str(node.name), Tensor(dtype, tuple(size or 0 for size in shape), refuse, refuse)


# Writing


def with_saver(model: GraphModel) -> GraphModel:
    """The same model with nodes that restore its variables, where it has variables and no such nodes.

    Raises:
        WriteError: it has variables and no graph, or no node for one of them.
    """
    if not model.variables or (SAVER in model.extra and not _knows_only_v1(model.graph)):
        return model
    if not model.graph.node:
        raise WriteError(
            f"there is no graph, only {len(model.variables)} variables: a checkpoint without its .meta does not say "
            "what is computed with them"
        )
    return add_saver(model)


def _knows_only_v1(graph: Message) -> bool:
    """Is it a graph of before TensorFlow 0.12, whose saver cannot read what is written now?"""
    ops = {node.op for node in graph.node}
    return "RestoreV2" not in ops and not ops.isdisjoint(("Restore", "RestoreSlice"))


def write_variables(model: GraphModel, sink: Sink, prefix: str, shards: int = 1) -> None:
    """Write the checkpoint of a model's variables, in the order of their names; nothing where it has none.

    Args:
        model: its variables, streamed; and its objects.
        sink: where to.
        prefix: what the files' names start with: ``"variables/variables"``.
        shards: data files, each with about as many bytes; not more than there are tensors.
    """
    tensors = dict(model.variables)
    if OBJECTS in model.extra:
        tensors[OBJECTS] = Tensor.of(np.array(model.extra[OBJECTS], dtype=object))
    if not tensors:
        return
    parts = _divided(tensors, min(shards, len(tensors)))
    writer: BundleWriter | None = None
    for number, names in enumerate(parts):
        with sink.file(prefix + shard_suffix(number, len(parts))) as file:
            if writer is None:
                writer = BundleWriter(file)
            else:
                writer.go_on(file)
            for name in names:
                writer.add(name, tensors[name])
    assert writer is not None  # there is a part at least
    with sink.file(f"{prefix}.index") as file:
        file.write(writer.finish())


def _divided(tensors: Mapping[str, Tensor], count: int) -> list[list[str]]:
    """The names in order, cut into so many parts, none of them empty, of about the same size."""
    names = sorted(tensors)
    parts: list[list[str]] = [[]]
    left = sum(tensor.nbytes for tensor in tensors.values())
    room = left / count
    for position, name in enumerate(names):
        short = count - len(parts)  # parts that are still to come
        if parts[-1] and short and (room < tensors[name].nbytes / 2 or len(names) - position <= short):
            parts.append([])
            room = left / short
        parts[-1].append(name)
        room -= tensors[name].nbytes
        left -= tensors[name].nbytes
    return parts
