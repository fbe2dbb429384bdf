"""Several graphs over one set of variables, as the MetaGraphs of one SavedModel, each under its own tags.

::

    a: tags serve, variables w, b     ->  SavedModel   MetaGraph [serve]      graph of a
    b: tags serve gpu, variables w                     MetaGraph [gpu,serve]  graph of b
                                                       variables              w, b

A model holds one MetaGraph; the others travel in its ``extra`` under ``saved_model``, as they do when a SavedModel of
several is read (:mod:`modelio.formats.saved_model`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from modelio.errors import ConversionError
from modelio.graph import meta_graph
from modelio.graph.references import OTHERS
from modelio.graph.saver import SAVER, add_saver
from modelio.graph.surgery.edit import without_objects
from modelio.model import GraphModel, Message, Tensor
from modelio.source import Source
from modelio.wire import messages
from modelio.wire.skim import splice
from modelio.wire.window import chunks

__all__ = ["merge", "retag"]

_TAG_SETS = "tag_sets"
"""The key of ``meta`` that lists the tags of all MetaGraphs, where there are several."""


def retag(model: GraphModel, tags: Iterable[str]) -> tuple[GraphModel, list[str]]:
    """The model under other tags; ``serve`` is what TensorFlow Serving looks for.

    Raises:
        ConversionError: no tag is left, or another MetaGraph has these.
    """
    wanted = frozenset(tag.strip() for tag in tags) - {""}
    if not wanted:
        raise ConversionError("a MetaGraph without a tag is found by no loader: say at least one, serve is usual")
    if any(frozenset(meta.meta_info_def.tags) == wanted for meta in _others(model)):
        raise ConversionError(f"another MetaGraph of this model is tagged {_spell(wanted)}")
    if wanted == model.tags:
        return model, []
    return replace(model, tags=wanted), [f"tagged {_spell(wanted)}"]


def merge(models: Sequence[GraphModel]) -> tuple[GraphModel, list[str]]:
    """The first model, with the others beside it as further MetaGraphs.

    Variables and assets that several have under one key must be the same, to the bit: there is one set of them. A
    TensorFlow 2 export becomes a graph as TensorFlow 1 had them: only a lone MetaGraph is loaded with its objects.

    Raises:
        ConversionError: two models have the same tags, or a variable or an asset differs.
    """
    models = [_prepared(model) for model in models]
    if len(models) < 2:
        return models[0], []
    first, *rest = models
    variables: dict[str, Tensor] = dict(first.variables)
    assets: dict[str, Source] = dict(first.assets)
    saved = messages.SavedModel()
    contents: list[Mapping[str, Tensor]] = []
    taken = {first.tags}
    for meta in _others(first):
        taken.add(frozenset(meta.meta_info_def.tags))
        saved.meta_graphs.append(meta)
        contents.append({})
    for model in rest:
        _add_all(variables, model.variables)
        for name, asset in model.assets.items():
            if name in assets and not _same_bytes(chunks(assets[name].window()), chunks(asset.window())):
                raise ConversionError("two models have an asset of this name, and they differ", where=name)
            assets.setdefault(name, asset)
        for meta, constants in ((meta_graph.build(model), model.constants), *((meta, {}) for meta in _others(model))):
            tags = frozenset(meta.meta_info_def.tags)
            if tags in taken:
                raise ConversionError(
                    f"two MetaGraphs are tagged {_spell(tags)}: give one of them other tags before they are merged"
                )
            taken.add(tags)
            saved.meta_graphs.append(meta)
            contents.append(constants)
    extra = {**first.extra, OTHERS: b"".join(splice(saved, contents, where="saved_model.pb").chunks())}
    listed = [_spell(tags) for tags in (first.tags, *(meta.meta_info_def.tags for meta in saved.meta_graphs))]
    meta_facts = {**first.meta, _TAG_SETS: " ".join(listed)}
    merged = replace(first, variables=variables, assets=assets, extra=extra, meta=meta_facts)
    return merged, [f"{len(listed)} MetaGraphs over {len(variables)} variables: {', '.join(listed)}"]


def _prepared(model: GraphModel) -> GraphModel:
    """As one of several: tagged, and with a saver of its own that restores its variables."""
    model = without_objects(model)
    model = model if model.tags else replace(model, tags=frozenset({"serve"}))
    return model if SAVER in model.extra or not model.variables else add_saver(model)


def _add_all(variables: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    for key, tensor in more.items():
        there = variables.setdefault(key, tensor)
        if there is not tensor and not _same(there, tensor):
            raise ConversionError(
                "two models have a variable of this name, and they differ: only graphs over the same variables can "
                "be merged",
                where=key,
            )


def _same(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.hasobject:
        return bool((one.numpy() == other.numpy()).all())
    return _same_bytes(one.chunks(), other.chunks())


def _same_bytes(one: Iterable[bytes | memoryview], other: Iterable[bytes | memoryview]) -> bool:
    """Are these the same bytes, however they are cut into pieces?"""
    ours, theirs = _Pieces(one), _Pieces(other)
    while True:
        length = min(ours.available(), theirs.available())
        if not length:
            return ours.available() == theirs.available()
        if ours.take(length) != theirs.take(length):
            return False


class _Pieces:
    """Bytes that come in pieces, taken in others."""

    def __init__(self, pieces: Iterable[bytes | memoryview]) -> None:
        self._pieces: Iterator[bytes | memoryview] = iter(pieces)
        self._left = memoryview(b"")

    def available(self) -> int:
        """Bytes at hand; 0 at the end."""
        while not self._left.nbytes:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece).cast("B")
        return self._left.nbytes

    def take(self, length: int) -> memoryview:
        taken, self._left = self._left[:length], self._left[length:]
        return taken


def _others(model: GraphModel) -> list[Message]:
    """The MetaGraphs beside the one that the model is."""
    saved = messages.parse(messages.SavedModel, model.extra.get(OTHERS, b""), where=f"extra[{OTHERS!r}]")
    return list(saved.meta_graphs)


def _spell(tags: Iterable[str]) -> str:
    return f"[{','.join(sorted(tags))}]"
