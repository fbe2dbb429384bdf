"""What a graph of ours remembers of the layers that it was lowered from, so that it can be lifted back without loss.

::

    assets.extra/modelio/...          the layers' own files, under their paths
    assets.extra/modelio.json
      modelio        2
      dialect, meta, architecture, training        as the model had them
      weights        [[layer, [[name, entry], ...]], ...]      in Keras' order, under Keras' names
      roles          {"lstm/kernel": "lstm/kernel", ...}    variables of layers whose weights lie otherwise there

An entry says where the numbers are::

    "dense/kernel"                               the graph's variable of that name, as it is
    {"dtype": ..., "shape": [...], "data": ...}  here, in base64: vectors that the graph has changed, and what inference
                                                 does not use
    {"words": [...]}                             here: a vocabulary
    {"dtype": ..., "shape": [...]}               in the variables of the layer's roles, which are the same numbers in
                                                 another order (split gates, turned kernels: layouts.py)

The optimizer's state is not kept: it is as large as the weights, twice, and serving has no use for it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError
from modelio.layers.binding import OWN, bind
from modelio.layers.layouts import rearranged
from modelio.layers.network import Network, backend_of, network_of
from modelio.model import Dialect, LayerModel, Tensor
from modelio.source import Source
from modelio.wire import jsontext

__all__ = ["NOTES", "model_of", "notes_of"]

NOTES, FILES = "assets.extra/modelio.json", "assets.extra/modelio/"
"""Where a SavedModel of ours keeps what its layers were, and their files."""

VERSION = 2

MARK = 1 << 40
"""What is added to places, so that nothing which a layout computes from other numbers looks like one."""

SMALL = 1 << 16
"""Bytes of a weight that the notes themselves may hold."""

LIMIT = 1 << 28
"""Bytes of one of the layers' files; vocabularies of large language models have 10 MB."""


# -- writing -----------------------------------------------------------------------------------------------------------


def notes_of(model: LayerModel, network: Network, variables: Mapping[str, Tensor]) -> dict[str, bytes]:
    """The notes of a model that was lowered, as entries of a graph's ``extra``.

    Args:
        model: the layers.
        network: its normal form, bound: the variables are its layers' weights.
        variables: those of the graph by name; a weight that is not among them, inference does not use.
    """
    keys = {id(tensor): key for key, tensor in variables.items()}
    changed = _rearranged(model, network)
    weights = [
        [layer, [[name, _entry(tensor, keys, layer in changed)] for name, tensor in group.items()]]
        for layer, group in model.weights.items()
    ]
    roles = {
        f"{part.path}/{role}": keys[id(tensor)]
        for layer in network.layers
        if layer.name in changed
        for part in layer.walk()
        for role, tensor in part.weights.items()
        if id(tensor) in keys
    }
    notes = {
        "modelio": VERSION,
        "dialect": model.dialect,
        "meta": dict(model.meta),
        "architecture": model.architecture,
        "training": model.training,
        "weights": weights,
        "roles": roles,
    }
    files = {f"{FILES}{path}": source.bytes(LIMIT) for path, source in model.assets.items()}
    return {NOTES: jsontext.spell(notes, where=NOTES).encode(), **files}


def _rearranged(model: LayerModel, network: Network) -> set[str]:
    """The top-level layers whose weights lie otherwise in the graph than in the file."""
    backend = backend_of(model.architecture or {}, model.meta)
    return {layer.name for layer in network.layers if any(rearranged(part, backend) for part in layer.walk())}


def _entry(tensor: Tensor, keys: Mapping[int, str], changed: bool) -> str | dict[str, Any]:
    if id(tensor) in keys:
        return keys[id(tensor)]
    if tensor.dtype.hasobject and len(tensor.shape) == 1:
        return {"words": [word.decode("utf-8", "surrogateescape") for word in tensor.numpy()]}
    entry: dict[str, Any] = {"dtype": tensor.dtype.name, "shape": list(tensor.shape)}
    if (changed and len(tensor.shape) > 1) or tensor.nbytes > SMALL or tensor.dtype.hasobject:
        return entry
    return {**entry, "data": base64.b64encode(tensor.numpy().tobytes()).decode("ascii")}


# -- reading -----------------------------------------------------------------------------------------------------------


def model_of(extra: Mapping[str, bytes], variables: Mapping[str, Tensor]) -> LayerModel | None:
    """The layers that a graph was lowered from; None where no notes are there, or those of another version.

    Args:
        extra: the graph's.
        variables: the graph's, or the constants that they were frozen to, by name.

    Raises:
        ReadError: the notes are damaged, or weights that they list are not in the graph.
    """
    if NOTES not in extra:
        return None
    notes = jsontext.parse(extra[NOTES], where=NOTES)
    if not isinstance(notes, dict) or notes.get("modelio") != VERSION:
        return None
    model = LayerModel(
        architecture=_typed(notes, "architecture", dict),
        weights={},
        dialect=notes["dialect"] if notes.get("dialect") in get_args(Dialect) else _refuse("dialect"),
        training=None if notes.get("training") is None else _typed(notes, "training", dict),
        meta={str(name): str(value) for name, value in _typed(notes, "meta", dict).items()},
        assets={path[len(FILES) :]: Source.of(data) for path, data in extra.items() if path.startswith(FILES)},
    )
    reader = _Reader(model, variables, _typed(notes, "roles", dict))
    for layer, group in _pairs(notes.get("weights")):
        reader.add(layer, dict(_pairs(group)))
    if reader.missing:
        listed = ", ".join(reader.missing[:5]) + (" ..." if len(reader.missing) > 5 else "")
        raise ReadError(f"the notes list weights that the graph does not have: {listed}", where=NOTES)
    return replace(model, weights=reader.weights)


def _typed(notes: Mapping[str, Any], key: str, kind: type) -> Any:
    return notes[key] if isinstance(notes.get(key), kind) else _refuse(key)


def _refuse(key: str) -> Any:
    raise ReadError(f"{key} is missing, or is no {key}", where=NOTES)


def _pairs(value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        return list(_refuse("weights"))
    return [(str(name), content) for name, content in value]


class _Reader:
    """Collects the weights that the entries point to."""

    def __init__(self, model: LayerModel, variables: Mapping[str, Tensor], roles: Mapping[str, Any]) -> None:
        self.weights: dict[str, Mapping[str, Tensor]] = {}
        self.missing: list[str] = []
        self._model = model
        self._variables = variables
        self._roles = {path: variables[key] for path, key in roles.items() if key in variables}
        self._entries: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}

    def add(self, layer: str, entries: Mapping[str, Any]) -> None:
        group: dict[str, Tensor] = {}
        for name, entry in entries.items():
            found = self._found(layer, name, entry)
            if found is None:
                self.missing.append(f"{layer}: {name}")
            else:
                group[name] = found
        self.weights[layer] = group

    def _found(self, layer: str, name: str, entry: Any) -> Tensor | None:
        if isinstance(entry, str):
            return self._variables.get(entry)
        try:
            if "words" in entry:
                words = [str(word).encode("utf-8", "surrogateescape") for word in entry["words"]]
                return Tensor.of(np.array([*words, None], object)[:-1])
            dtype, shape = _dtype(entry["dtype"]), tuple(int(size) for size in entry["shape"])
            if "data" in entry:
                return Tensor.of(np.frombuffer(base64.b64decode(entry["data"]), dtype).reshape(shape))
        except (AttributeError, LookupError, TypeError, ValueError, binascii.Error):
            raise ReadError("this entry is no array", where=f"{NOTES}, {layer}: {name}") from None
        self._entries.setdefault(layer, {})[name] = (dtype.name, shape)
        if not any(path == layer or path.startswith(f"{layer}/") for path in self._roles):
            return None
        return Tensor(dtype, shape, self._undone(layer, name, dtype, shape))

    def _undone(
        self, layer: str, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> Callable[[], npt.NDArray[Any]]:
        """Loads a weight out of the variables of roles.

        Numbers stand for its elements: where the layout takes them is where the elements are.
        """

        def load() -> npt.NDArray[Any]:
            size = int(np.prod(shape))
            numbers = {
                owner: {
                    other: Tensor(np.int64, tensor.shape, _numbers(tensor.shape, owner == layer and other == name))
                    for other, tensor in group.items()
                }
                for owner, group in self.weights.items()
                if owner != OWN
            }
            assert self._model.architecture is not None  # read from the notes
            network = network_of(self._model.architecture, self._model.dialect, self._model.meta)
            bind(network, replace(self._model, weights=numbers))
            array: npt.NDArray[Any] = np.zeros(size, dtype)
            found = np.zeros(size, bool)
            top = next(top for top in network.layers if top.name == layer)
            for part in top.walk():
                for role, places in part.weights.items():
                    path = f"{part.path}/{role}"
                    if path in self._roles:
                        at = places.numpy() - MARK
                        own = (at >= 0) & (at < size)
                        if at.shape == self._roles[path].shape and own.any():
                            array[at[own]] = self._roles[path].numpy()[own]
                            found[at[own]] = True
            if not found.all():
                raise ReadError("the variables of this layer do not hold all of the weight", where=f"{layer}: {name}")
            return array.reshape(shape)

        return load


def _numbers(shape: tuple[int, ...], wanted: bool) -> Callable[[], npt.NDArray[Any]]:
    """The places of the elements of the weight that is wanted, marked; of all others, zeros."""
    size = int(np.prod(shape))
    return lambda: np.arange(MARK, MARK + size).reshape(shape) if wanted else np.zeros(shape, np.int64)


def _dtype(name: str) -> np.dtype[Any]:
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name, name))
