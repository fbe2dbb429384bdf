"""safetensors: the weights as tensors, and the rest of the model as texts in the header.

::

    __metadata__
      format         "keras"
      dialect        "keras2"
      meta           {"keras_version": "2.3.1", "backend": "tensorflow"}
      architecture   {"class_name": "Sequential", "config": ...}              left out where there is none
      training       {"optimizer_config": ..., "loss": ...}                   likewise
      weights        {"dense_1": ["dense_1/kernel:0", "dense_1/bias:0"], "dropout_1": [], ...}
      optimizer      ["Adam/iterations:0", ...]                               left out where there is none
    tensors
      dense_1/kernel:0                      a weight whose name starts with its layer's
      lstm_1/recurrent_kernel               any other, behind its layer's name
      optimizer_weights/Adam/iterations:0   what the optimizer keeps

Every text but the first two is JSON. ``weights`` has the layers and the names of their weights in Keras' order, which
the tensors themselves have not: in a safetensors file they are sorted by element type and by name.

A file of other origin is weights alone. A tensor belongs to the layer that its name says: what stands before the last
"/", or, where there is none, before the last "."; a name with neither is a layer of its own. The weights keep their
whole names and come in the header's order; the texts are kept in ``meta``. The encoding itself is in
:mod:`modelio.wire.safetensors`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast, get_args

from modelio.errors import ReadError
from modelio.format import Format
from modelio.model import Dialect, LayerModel, Tensor
from modelio.sink import Sink
from modelio.source import Source
from modelio.wire import jsontext

OWN = "keras"
"""What ``format`` says in a file that describes a whole model as drawn above."""

OPTIMIZER = "optimizer_weights"
"""In front of the optimizer's tensors: the group that holds them in Keras' HDF5 files."""


def sniff(source: Source) -> bool:
    head = source.head(9)
    if head[8:] != b"{":
        return False
    from modelio.wire import safetensors

    return safetensors.is_safetensors(head)


# Reading


def read(source: Source) -> LayerModel:
    """Read a model, or, from a file of other origin, weights alone (``architecture`` is then None).

    Raises:
        ReadError: the file is damaged, or describes another model than it holds.
    """
    from modelio.wire import safetensors

    arrays, texts = safetensors.read(source.window())
    tensors = {name: Tensor(array.dtype, array.shape, array.numpy, array.chunks) for name, array in arrays.items()}
    own = texts.get("format") == OWN and "dialect" in texts
    return _read_own(tensors, texts) if own else _read_strange(tensors, texts)


def _read_own(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> LayerModel:
    if texts["dialect"] not in get_args(Dialect):
        raise ReadError(f"there is no dialect {texts['dialect']!r}", where="dialect")
    layers = {layer: _names(names, "weights") for layer, names in (_json(texts, "weights", dict) or {}).items()}
    slots = _names(_json(texts, "optimizer", list) or [], "optimizer")
    meta = _json(texts, "meta", dict) or {}
    if not all(isinstance(fact, str) for fact in meta.values()):
        raise ReadError("something in it is not text", where="meta")
    keys = _keys(layers, slots)
    _check_keys(keys, tensors)
    listed = iter(keys)  # in the order of the lists
    return LayerModel(
        weights={layer: {name: tensors[next(listed)] for name in names} for layer, names in layers.items()},
        optimizer={name: tensors[next(listed)] for name in slots},
        architecture=_json(texts, "architecture", dict),
        training=_json(texts, "training", dict),
        dialect=cast(Dialect, texts["dialect"]),
        meta=meta,
    )


def _json(texts: Mapping[str, str], key: str, kind: type) -> Any:
    """The value that a text spells, which has to be of this kind; None where there is none."""
    value = jsontext.parse(texts[key], where=key) if key in texts else None
    if key in texts and not isinstance(value, kind):
        raise ReadError(f"JSON of another kind than expected: {texts[key][:40]}", where=key)
    return value


def _names(names: Any, where: str) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ReadError("a list of names is wanted", where=where)
    if len(set(names)) < len(names):
        raise ReadError("a weight is listed twice", where=where)
    return names


def _check_keys(keys: Collection[str], tensors: Mapping[str, Tensor]) -> None:
    for key in keys:
        if key not in tensors:
            raise ReadError("the tensor is listed, and the file does not have it", where=key)
    for key in sorted(tensors.keys() - set(keys)):
        raise ReadError("the file has this tensor, and neither the layers nor the optimizer list it", where=key)


def _read_strange(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> LayerModel:
    if not tensors:
        raise ReadError("no tensor is in this file")
    weights: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        weights.setdefault(_layer_in(name), {})[name] = tensor
    dialect: Dialect = "keras2" if any(name.endswith(":0") for name in tensors) else "keras3"
    return LayerModel(architecture=None, weights=weights, dialect=dialect, meta=texts)


def _layer_in(name: str) -> str:
    """The layer that a name says; Keras separates with "/", PyTorch with ".".

    >>> _layer_in("dense_1/kernel:0"), _layer_in("encoder.layer.0.weight"), _layer_in("scale")
    ('dense_1', 'encoder.layer.0', 'scale')
    """
    return name.rpartition("/" if "/" in name else ".")[0] or name


# Writing


def write(model: LayerModel, sink: Sink) -> None:
    """Write a model, whole or in part, with all that it has.

    Raises:
        WriteError: a weight's elements are of a type that safetensors has not, such as strings.
    """
    from modelio.wire import safetensors

    layers = {layer: list(named) for layer, named in model.weights.items()}
    tensors = [tensor for named in (*model.weights.values(), model.optimizer) for tensor in named.values()]
    keys = _keys(layers, model.optimizer)
    texts = {"format": OWN, "dialect": model.dialect}
    for key, value in {
        "meta": dict(model.meta),
        "architecture": model.architecture,
        "training": model.training,
        "weights": layers,
        "optimizer": list(model.optimizer) or None,
    }.items():
        if value is not None:
            texts[key] = jsontext.spell(value, where=key)
    with sink.file() as stream:
        safetensors.write(stream, dict(zip(keys, tensors, strict=True)), texts)


def _keys(layers: Mapping[str, Iterable[str]], slots: Iterable[str]) -> list[str]:
    """The names of the tensors: those of all layers' weights, then those of the optimizer's.

    >>> _keys({"a": ["a/kernel", "bias"], "a/b": ["c"]}, ["m"])
    ['a/kernel', 'a/bias', 'a/b/c', 'optimizer_weights/m']
    """
    from modelio.wire.safetensors import TEXTS

    keys = {TEXTS: None}
    for group, names in (*layers.items(), (OPTIMIZER, slots)):
        for name in names:
            key = name if name == group or name.startswith((f"{group}/", f"{group}.")) else f"{group}/{name}"
            while key in keys:  # "a/b" and "b" of a layer "a"
                key += "_"
            keys[key] = None
    return list(keys)[1:]


FORMAT = Format(
    name="safetensors",
    level="layers",
    summary="safetensors: weights as tensors, architecture and training in the metadata",
    shape="blob",
    suffixes=(".safetensors",),
    keeps=frozenset({"architecture", "weights", "training", "optimizer"}),
    sniff=sniff,
    read=read,
    write=write,
)
