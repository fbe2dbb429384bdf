"""Which variable of a graph is which entry of its checkpoint.

A graph that our lowering built names its variables after their keys. Elsewhere the graph itself says it, since loaders
ask it too: what restores it takes each entry of the checkpoint to its variable (:mod:`modelio.graph.loading`). A graph
without its saver, beside a checkpoint of objects, is matched by the names that the checkpoint noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from modelio.errors import ReadError
from modelio.graph.loading import ASSIGNS, Entry, Loading, loading
from modelio.graph.names import VARIABLES, shared_name
from modelio.graph.saver import COLLECTION, SAVER
from modelio.graph.tables import INIT, MAIN_OP, initializer_of, main_op
from modelio.model import GraphModel, Message, Tensor
from modelio.wire.dtypes import numpy_dtype
from modelio.wire.window import CHUNK

__all__ = ["by_name", "values_of", "variable_entries", "variable_keys"]

_CHECKPOINT = "_CHECKPOINTABLE_OBJECT_GRAPH"

_OF_TENSORFLOW_2 = frozenset({SAVER, "object_graph_def", _CHECKPOINT, INIT, f"{COLLECTION}variables"})
"""The keys of ``extra`` that speak of variables by their keys, or of Python objects."""


def variable_keys(model: GraphModel) -> dict[str, str]:
    """The checkpoint's key for each variable node that has one.

    A part of a partitioned variable has no key of its own, and is left out.
    """
    return {name: entry.key for name, entry in variable_entries(model).items() if not entry.part}


def variable_entries(model: GraphModel) -> dict[str, Entry]:
    """The checkpoint's entry for each variable node that has one."""
    return _entries(model, loading(model))


def values_of(model: GraphModel) -> dict[str, Tensor]:
    """The value of each variable node that has one: the checkpoint's, or what the init op assigns."""
    load = loading(model)
    values = _stored(model, _entries(model, load))
    for name, text in load.assigned():
        if name not in values and (constant := load.constant(text)) is not None:
            values[name] = constant
    return values


def by_name(model: GraphModel) -> GraphModel:
    """The model as TensorFlow 1 had them: variables are keyed by their nodes' names, and there are no Python objects.

    What restored them under other keys goes; :func:`~modelio.graph.saver.add_saver` makes the like when it is written.
    Entries of the checkpoint that no variable of the graph takes go too. The init op is named in the collection, where
    TensorFlow 2 feeds it the paths of assets (``load_v1_in_v2.py``; as a signature it could not).
    """
    from modelio.graph.surgery.filling import restored_first

    model = restored_first(model)
    nodes = {node.name: node for node in model.graph.node}
    variables = {shared_name(nodes[name]): tensor for name, tensor in _stored(model, variable_entries(model)).items()}
    extra = {key: data for key, data in model.extra.items() if key not in _OF_TENSORFLOW_2}
    first = initializer_of(model)
    if first is not None and INIT in model.extra:
        extra[MAIN_OP] = main_op(first)
    return replace(model, variables=variables, extra=extra)


def _entries(model: GraphModel, load: Loading) -> dict[str, Entry]:
    """What the loader restores counts most, then a variable's own name, then whatever else would restore it."""
    variables = {node.name: node for node in model.graph.node if node.op in VARIABLES}
    entries = _restored(model, load)
    known = _noted(model)
    restored = {entry.key for entry in entries.values()}  # whose variable is known, whatever else is called the same
    for name, node in variables.items():
        own = shared_name(node)
        key = known.get(own, own)
        tensor = model.variables.get(key) if key not in restored else None
        if name not in entries and tensor is not None and _is_of(node, tensor):
            entries[name] = Entry(key)
    if model.variables and not entries.keys() >= variables.keys():
        entries = {**_restored(model, loading(model, run=False, also=ASSIGNS)), **entries}
    return {name: entry for name, entry in entries.items() if name in variables}


def _restored(model: GraphModel, load: Loading) -> dict[str, Entry]:
    entries = {name: load.entry(text) for name, text in load.assigned()}
    return {name: entry for name, entry in entries.items() if entry is not None and entry.key in model.variables}


def _stored(model: GraphModel, entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    return {name: _part(model.variables[entry.key], entry.part, name) for name, entry in entries.items()}


def _is_of(variable: Message, tensor: Tensor) -> bool:
    """Can this be the variable's value?"""
    kind = variable.attr["dtype"].type
    return not kind or numpy_dtype(kind, where=variable.name) == tensor.dtype


def _noted(model: GraphModel) -> dict[str, str]:
    """Name in TensorFlow 1 -> key, as a checkpoint of objects notes it; not of a name that several objects have."""
    from modelio.graph.objects import VALUE, checkpoint_objects

    if _CHECKPOINT not in model.extra:
        return {}
    values = [node.values.get(VALUE) for node in checkpoint_objects(model.extra[_CHECKPOINT]).nodes]
    keys: dict[str, set[str]] = {}
    for value in values:
        if value is not None and value.full_name:
            keys.setdefault(value.full_name, set()).add(value.key)
    return {name: found.pop() for name, found in keys.items() if len(found) == 1}


def _part(tensor: Tensor, part: str, where: str) -> Tensor:
    """A part of a tensor; ``part`` is the whole's shape and a ``start,length`` or ``-`` for each dimension, as in
    ``"4 3 2,2:-"`` (``checkpoint::ParseShapeAndSlice``).
    """
    if not part:
        return tensor
    *_, extents = part.split(" ")
    places = []
    for size, extent in zip(tensor.shape, extents.split(":"), strict=False):
        start, _, length = extent.partition(",")
        try:
            places.append(slice(0, size) if extent == "-" else slice(int(start), int(start) + int(length)))
        except ValueError:
            places = []
            break
    fits = all(0 <= place.start <= place.stop <= size for place, size in zip(places, tensor.shape, strict=False))
    if len(places) != len(tensor.shape) or not fits:
        raise ReadError(f"it restores the part {part!r} of a tensor of shape {tensor.shape}", where=where)
    shape = tuple(place.stop - place.start for place in places)
    row = tensor.nbytes // tensor.shape[0] if tensor.shape and tensor.shape[0] else 0
    rows_only = shape[1:] == tensor.shape[1:] and tensor.dtype.kind != "O"
    return Tensor(
        tensor.dtype,
        shape,
        lambda: np.ascontiguousarray(tensor.numpy()[tuple(places)]),
        (lambda: _between(tensor, places[0].start * row, places[0].stop * row)) if rows_only and shape else None,
    )


def _between(tensor: Tensor, start: int, stop: int) -> Iterator[bytes | memoryview]:
    """The bytes of a tensor from ``start`` to ``stop``."""
    position = 0
    for chunk in tensor.chunks():
        view = memoryview(chunk)
        yield from (
            view[begin : min(begin + CHUNK, stop - position)]
            for begin in range(max(start - position, 0), max(min(view.nbytes, stop - position), 0), CHUNK)
        )
        position += view.nbytes
