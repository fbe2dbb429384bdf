"""A model as one text and some arrays: what shared memory holds.

::

    head    {"model": "layers", "arrays": [["float32", [3, 4]], ["|S", [2]], ...],
             "fields": {"architecture": ..., "weights": {"dense": {"dense/kernel:0": 0}}, ...}}
    arrays  the numbers of each, by its place in "arrays"

The head is JSON and small; all that is large, numbers, a graph, an asset, is an array, which a receiver may take as a
view of the sender's memory. Strings have no fixed width: an array of them is its bytes, each string behind its length
as a uint32, and is the only array that is copied when it is unpacked.

>>> from modelio.model import LayerModel
>>> model = LayerModel(None, {"dense": {"kernel": Tensor.of(np.ones((2, 3), "float32"))}}, "keras3")
>>> head, tensors = packed(model)
>>> tensors
[Tensor(float32, (2, 3))]
>>> unpacked(head, [tensor.numpy().tobytes() for tensor in tensors]).weights["dense"]["kernel"].numpy().sum()
np.float32(6.0)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from modelio.errors import ReadError
from modelio.format import Model
from modelio.model import Dialect, GraphModel, LayerModel, Signature, Tensor, TensorSpec
from modelio.source import Source
from modelio.wire import dtypes, jsontext

__all__ = ["packed", "sizes_of", "unpacked"]

STRINGS = "|S"
"""The element type, in a head, of strings."""

Buffer = bytes | memoryview


def packed(model: Model) -> tuple[bytes, list[Tensor]]:
    """The head of a model, and its arrays; of those, none is read here but strings, whose size nothing else tells."""
    arrays: list[Tensor] = []

    def place(tensor: Tensor) -> int:
        arrays.append(tensor)
        return len(arrays) - 1

    def places(tensors: Mapping[str, Tensor]) -> dict[str, int]:
        return {name: place(tensor) for name, tensor in tensors.items()}

    def blobs(named: Mapping[str, bytes]) -> dict[str, int]:
        return {name: place(_bytes(data)) for name, data in named.items()}

    fields: dict[str, Any]
    assets = blobs({name: source.bytes() for name, source in model.assets.items()})
    if isinstance(model, LayerModel):
        kind = "layers"
        fields = {
            "architecture": model.architecture,
            "weights": {layer: places(tensors) for layer, tensors in model.weights.items()},
            "dialect": model.dialect,
            "training": model.training,
            "optimizer": places(model.optimizer),
        }
    else:
        from modelio.wire import messages

        kind = "graph"
        fields = {
            "graph": place(_bytes(messages.serialize(model.graph))),
            "variables": places(model.variables),
            "constants": places(model.constants),
            "signatures": {name: _signature(one) for name, one in model.signatures.items()},
            "tags": sorted(model.tags),
            "extra": blobs(model.extra),
        }
    stored = [_with_lengths(tensor) if tensor.dtype == object else tensor for tensor in arrays]
    listed = [
        [STRINGS if tensor.dtype == object else tensor.dtype.name, list(tensor.shape), bytes_.nbytes]
        for tensor, bytes_ in zip(arrays, stored, strict=True)
    ]
    fields |= {"assets": assets, "meta": dict(model.meta)}
    head = {"model": kind, "arrays": listed, "fields": fields}
    return json.dumps(head, separators=(",", ":")).encode(), stored


def sizes_of(head: bytes) -> list[int]:
    """The bytes of each array, as a head says them.

    Raises:
        ReadError: the head is none, or lists an array whose bytes do not fit its shape.
    """
    return [size for _, _, size in _listed(_parsed(head))]


def unpacked(head: bytes, buffers: Sequence[Buffer]) -> Model:
    """The model of a head and its arrays' bytes, which it does not copy, strings excepted.

    Raises:
        ReadError: the head is not one of :func:`packed`, or does not fit the arrays.
    """
    parsed = _parsed(head)
    listed = _listed(parsed)
    if len(listed) != len(buffers):
        raise ReadError(f"the head lists {len(listed)} arrays, and {len(buffers)} came")
    tensors = [_tensor(*entry, buffer) for entry, buffer in zip(listed, buffers, strict=True)]
    try:
        return _layers(parsed["fields"], tensors) if parsed["model"] == "layers" else _graph(parsed["fields"], tensors)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ReadError(f"the head is not one that modelio writes: {error}", where="fields") from error


def _layers(fields: Any, tensors: Sequence[Tensor]) -> LayerModel:
    if fields["dialect"] not in get_args(Dialect):
        raise ReadError(f"there is no dialect {fields['dialect']!r}", where="dialect")
    return LayerModel(
        fields["architecture"],
        {layer: _at(places, tensors) for layer, places in fields["weights"].items()},
        fields["dialect"],
        training=fields["training"],
        optimizer=_at(fields["optimizer"], tensors),
        meta=fields["meta"],
        assets={name: Source.of(data) for name, data in _blobs(fields["assets"], tensors).items()},
    )


def _graph(fields: Any, tensors: Sequence[Tensor]) -> GraphModel:
    from modelio.wire import messages

    graph = messages.parse(messages.GraphDef, tensors[fields["graph"]].numpy().tobytes(), where="graph")
    signatures = {
        name: Signature(_ends(one["inputs"]), _ends(one["outputs"]), one["method"])
        for name, one in fields["signatures"].items()
    }
    return GraphModel(
        graph,
        _at(fields["variables"], tensors),
        signatures,
        {name: Source.of(data) for name, data in _blobs(fields["assets"], tensors).items()},
        frozenset(fields["tags"]),
        _at(fields["constants"], tensors),
        _blobs(fields["extra"], tensors),
        fields["meta"],
    )


def _parsed(head: bytes) -> Any:
    parsed = jsontext.parse(head, where="head")
    if not isinstance(parsed, dict) or parsed.get("model") not in ("layers", "graph"):
        raise ReadError("this is not the head of a model that modelio packed")
    return parsed


def _listed(parsed: Any) -> list[tuple[str, tuple[int, ...], int]]:
    """Element type, shape and bytes of each array, which must agree."""
    found = []
    for number, entry in enumerate(parsed["arrays"] if isinstance(parsed.get("arrays"), list) else [None]):
        where = f"arrays, {number}"
        if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], str):
            raise ReadError("an element type, a shape and a size are wanted", where=where)
        name, shape, size = entry
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in [*shape, size]):
            raise ReadError("the shape or the size is no number of things", where=where)
        if name != STRINGS and math.prod(shape) * _dtype(name, where).itemsize != size:
            raise ReadError(f"{size:,} bytes are no {name} array of shape {tuple(shape)}", where=where)
        found.append((name, tuple(shape), size))
    return found


def _dtype(name: str, where: str) -> np.dtype[Any]:
    try:
        return dtypes.numpy_dtype(dtypes.dtype_number(name), where=where)
    except (KeyError, TypeError, ValueError) as error:
        raise ReadError(f"{name!r} is no element type", where=where) from error


def _tensor(name: str, shape: tuple[int, ...], size: int, buffer: Buffer) -> Tensor:
    view = memoryview(buffer).cast("B")
    if view.nbytes != size:
        raise ReadError(f"an array of {size:,} bytes is wanted, {view.nbytes:,} came")
    if name == STRINGS:
        return Tensor.of(_without_lengths(view, shape))
    return Tensor.of(np.frombuffer(view, np.uint8).view(_dtype(name, "arrays")).reshape(shape))


def _at(places: Mapping[str, int], tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {name: tensors[place] for name, place in places.items()}


def _blobs(places: Mapping[str, int], tensors: Sequence[Tensor]) -> dict[str, bytes]:
    return {name: tensors[place].numpy().tobytes() for name, place in places.items()}


def _signature(signature: Signature) -> dict[str, Any]:
    def ends(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
        return {key: [spec.tensor, spec.dtype, spec.shape] for key, spec in specs.items()}

    return {"inputs": ends(signature.inputs), "outputs": ends(signature.outputs), "method": signature.method}


def _ends(listed: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {
        key: TensorSpec(tensor, dtype, None if shape is None else tuple(shape))
        for key, (tensor, dtype, shape) in listed.items()
    }


def _bytes(data: bytes) -> Tensor:
    return Tensor.of(np.frombuffer(data, np.uint8))


def _with_lengths(strings: Tensor) -> Tensor:
    def pieces() -> Iterator[bytes]:
        for value in strings.numpy().ravel():
            data = value.encode() if isinstance(value, str) else bytes(value)
            yield len(data).to_bytes(4, "little") + data

    return _bytes(b"".join(pieces()))


def _without_lengths(view: memoryview, shape: tuple[int, ...]) -> Any:
    count = math.prod(shape)
    if 4 * count > view.nbytes:  # an empty one takes 4
        raise ReadError(f"{count:,} strings do not fit {view.nbytes:,} bytes")
    values = np.empty(count, object)
    position = 0
    for number in range(count):
        end = position + 4 + int.from_bytes(view[position : position + 4], "little")
        values[number] = bytes(view[position + 4 : end])
        position = end
    if position != view.nbytes:
        raise ReadError(f"{count:,} strings end at byte {position:,} of {view.nbytes:,}")
    return values.reshape(shape)
