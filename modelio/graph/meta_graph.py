"""A MetaGraphDef, TensorFlow's graph with all that goes with it, as a GraphModel's parts, and back.

The graph, the tags and the signatures have their own places in the model. The rest travels in ``extra``, serialized,
under the names of its fields::

    meta_info_def, saver_def, object_graph_def      the message
    collection_def/NAME, signature_def/NAME         one entry of the map
    asset_file_def                                  a MetaGraphDef that has only these
    meta_graph_def                                  a MetaGraphDef with the fields that tensorflow.proto does not know

so that a step which changes the graph can drop what is true no longer, and that nothing is lost where nothing changed.
Of a signature, ``extra`` holds what :class:`~modelio.model.Signature` cannot say: the parts of sparse and composite
tensors, default values, names of dimensions.

Sources: ``tensorflow/core/protobuf/meta_graph.proto``, ``tensorflow/python/framework/meta_graph.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelio._version import VERSION
from modelio.graph.saver import COLLECTION, SAVER
from modelio.model import GraphModel, Message, Signature, TensorSpec
from modelio.wire import messages
from modelio.wire.dtypes import dtype_name, dtype_number, shape_to_tuple, tuple_to_shape

__all__ = ["HIDDEN", "INFO", "SIGNATURE", "build", "facts", "signatures_of", "take_rest"]

HIDDEN = ("__saved_model_init_op", "__saved_model_train_op")
"""Entries of ``signature_def`` that name an op: nobody can call them (``tensorflow/cc/saved_model/constants.h``)."""

SIGNATURE = "signature_def/"
"""What precedes a signature's name in the keys of ``extra``."""

INFO = "meta_info_def"
"""The key of ``extra`` that every model has which was read from a MetaGraphDef."""

_OBJECTS, _ASSETS, _UNKNOWN = "object_graph_def", "asset_file_def", "meta_graph_def"

_PRODUCER = 24
"""``versions.producer`` of graphs that say none, which are those built here: that of TensorFlow 1.3. Zero would mean a
graph from before the first release; what is newer than 24 only forbids ops that were retired later."""

_TENSORFLOW = "1.15.0"
"""``tensorflow_version`` of models that say none: their ops mean what they meant there."""


# Reading


def signatures_of(meta: Message) -> dict[str, Signature]:
    """The signatures that can be called, by name."""
    return {
        name: Signature(_specs(definition.inputs), _specs(definition.outputs), definition.method_name)
        for name, definition in sorted(meta.signature_def.items())
        if name not in HIDDEN
    }


def facts(meta: Message) -> dict[str, str]:
    """What the message says of its origin, for a model's ``meta``."""
    info = meta.meta_info_def
    found = {
        "tensorflow_version": info.tensorflow_version,
        "tensorflow_git_version": info.tensorflow_git_version,
        "graph_producer": meta.graph_def.versions.producer,
    }
    return {name: str(fact) for name, fact in found.items() if fact}


def take_rest(meta: Message) -> dict[str, bytes]:
    """Empty the message, and return all of it but the graph as entries of ``extra``.

    Whoever holds ``meta.graph_def`` keeps it: a field that is cleared becomes a message of its own.
    """
    rest: dict[str, bytes] = {}
    meta.ClearField("graph_def")
    for name in (INFO, SAVER, _OBJECTS):
        if meta.HasField(name):
            rest[name] = messages.serialize(getattr(meta, name))
            meta.ClearField(name)
    for field, prefix in (("collection_def", COLLECTION), ("signature_def", SIGNATURE)):
        for name, value in sorted(getattr(meta, field).items()):
            rest[prefix + name] = messages.serialize(value)
        meta.ClearField(field)
    if meta.asset_file_def:
        rest[_ASSETS] = messages.serialize(messages.MetaGraphDef(asset_file_def=meta.asset_file_def))
        meta.ClearField(_ASSETS)
    if meta.ByteSize():  # what is left is unknown
        rest[_UNKNOWN] = messages.serialize(meta)
    return rest


def _specs(infos: Mapping[str, Message]) -> dict[str, TensorSpec]:
    return {name: spec for key in sorted(infos) for name, spec in _expand(key, infos[key])}


def _expand(key: str, info: Message) -> Iterator[tuple[str, TensorSpec]]:
    """One end of a signature; its parts where it is more than a tensor, under the names that TensorFlow 2 gives them
    (``tensorflow/python/saved_model/load_v1_in_v2.py``, ``_extract_signatures``).
    """
    dtype = dtype_name(info.dtype)
    shape = shape_to_tuple(info.tensor_shape) if info.HasField("tensor_shape") else None
    kind = info.WhichOneof("encoding")
    if kind == "coo_sparse":
        rank = None if shape is None else len(shape)
        sparse = info.coo_sparse
        yield f"{key}_indices", TensorSpec(sparse.indices_tensor_name, "int64", (None, rank))
        yield f"{key}_values", TensorSpec(sparse.values_tensor_name, dtype, (None,))
        yield f"{key}_dense_shape", TensorSpec(sparse.dense_shape_tensor_name, "int64", (rank,))
    elif kind == "composite_tensor":
        parts = (part for component in info.composite_tensor.components for part in _expand(key, component))
        for position, (_, spec) in enumerate(parts):
            yield f"{key}_component_{position}", spec
    else:
        yield key, TensorSpec(info.name, dtype, shape)


# Writing


def build(model: GraphModel) -> Message:
    """The MetaGraphDef of a model; the contents in ``model.constants`` stay outside.

    A model that was not read from such a message is tagged ``serve`` where it has no tags.
    """
    extra = model.extra
    meta = _part(extra, _UNKNOWN, messages.MetaGraphDef)
    meta.graph_def.CopyFrom(model.graph)
    if not meta.graph_def.HasField("versions"):
        meta.graph_def.versions.producer = _PRODUCER
    if INFO in extra:
        meta.meta_info_def.CopyFrom(_part(extra, INFO, type(meta.meta_info_def)))
    else:
        meta.meta_info_def.tags.append("serve")
        meta.meta_info_def.tensorflow_version = model.meta.get("tensorflow_version", _TENSORFLOW)
        meta.meta_info_def.tensorflow_git_version = f"modelio {VERSION}"
        meta.meta_info_def.stripped_default_attrs = True
    if model.tags and model.tags != set(meta.meta_info_def.tags):
        meta.meta_info_def.tags[:] = sorted(model.tags)
    if SAVER in extra:
        meta.saver_def.CopyFrom(_part(extra, SAVER, messages.SaverDef))
    if _OBJECTS in extra:
        meta.object_graph_def.CopyFrom(_part(extra, _OBJECTS, messages.SavedObjectGraph))
    meta.asset_file_def.extend(_part(extra, _ASSETS, messages.MetaGraphDef).asset_file_def)
    for key in extra:
        if key.startswith(COLLECTION):
            meta.collection_def[key.removeprefix(COLLECTION)].CopyFrom(_part(extra, key, messages.CollectionDef))
    for name in HIDDEN:
        if SIGNATURE + name in extra:
            meta.signature_def[name].CopyFrom(_part(extra, SIGNATURE + name, messages.SignatureDef))
    for name, signature in model.signatures.items():
        original = _part(extra, SIGNATURE + name, messages.SignatureDef)
        meta.signature_def[name].CopyFrom(_definition(signature, original))
    return meta


def _part(extra: Mapping[str, bytes], key: str, cls: Any) -> Message:
    """The message under a key of ``extra``; an empty one where there is none."""
    return messages.parse(cls, extra.get(key, b""), where=f"extra[{key!r}]")


def _definition(signature: Signature, definition: Message) -> Message:
    """``definition`` made to say what the signature says; where it does already, it keeps its own words."""
    definition.method_name = signature.method
    for infos, specs in ((definition.inputs, signature.inputs), (definition.outputs, signature.outputs)):
        left = dict(specs)
        for key in sorted(infos):
            parts = dict(_expand(key, infos[key]))
            if all(left.get(part) == spec for part, spec in parts.items()):
                left = {name: spec for name, spec in left.items() if name not in parts}
            else:
                del infos[key]
        for key, spec in left.items():
            infos[key].name = spec.tensor
            infos[key].dtype = dtype_number(spec.dtype)
            # Unknown is said, not left out: TensorFlow 2 takes an absent shape for a scalar's.
            infos[key].tensor_shape.CopyFrom(tuple_to_shape(spec.shape))
    return definition
