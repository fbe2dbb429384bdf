"""SavedModel: what TensorFlow Serving serves, from TensorFlow 1.0 to today. A directory, or a zip of one.

::

    saved_model.pb                  SavedModel: one MetaGraphDef or several, each with its tags
     |- meta_info_def                   tags, versions
     |- graph_def                       nodes and functions
     |- signature_def                   what can be asked: names -> tensors of the graph
     |- saver_def, collection_def       how TensorFlow 1 restores and finds its variables
     |- asset_file_def                  which tensors are fed with which file's name
     '- object_graph_def                the Python objects, in TensorFlow 2
    saved_model.pbtxt               the same as text, instead
    variables/variables.index       the variables (wire/bundle.py), missing where there are none
    variables/variables.data-*
    assets/*                        vocabularies and such, read by the graph
    assets.extra/*                  files that only tools read: warm-up requests, modelio.json
    variables/checkpoint            the name of these, where they were copied from a checkpoint (Keras in TensorFlow 1)
    keras_metadata.pb               what the layers were (TensorFlow 2.5 to 2.15, tf_keras)
    tfhub_module.pb                 that it is a module of TensorFlow Hub
    debug/*                         stack traces
    fingerprint.pb                  hashes of all this (since TensorFlow 2.11)

Sources: ``tensorflow/core/protobuf/saved_model.proto``, ``meta_graph.proto``, ``tensorflow/cc/saved_model/loader.cc``,
``tensorflow/python/saved_model/load.py``, ``load_v1_in_v2.py``, ``builder_impl.py`` (TensorFlow 2.21).

In the model, ``variables`` is keyed as the checkpoint is, and ``assets`` by the path below ``assets/``. What has no
place of its own there is kept in ``extra`` and written back: the parts of the MetaGraphDef (graph/meta_graph.py), the
checkpoint's ``_CHECKPOINTABLE_OBJECT_GRAPH``, files under their path, and, as ``saved_model``, the MetaGraphs that were
not chosen. The fingerprint is read and not written: it names bytes that are no longer those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from modelio.errors import ReadError, WriteError
from modelio.format import Format
from modelio.model import GraphModel, Message, Tensor
from modelio.sink import Sink
from modelio.source import Source, Tree
from modelio.wire.window import chunks

if TYPE_CHECKING:
    from modelio.wire.skim import Content

__all__ = ["FORMAT"]

MAIN = "saved_model.pb"
TEXT = "saved_model.pbtxt"
CHUNKED = "saved_model.cpb"
VARIABLES = "variables/variables"
ASSETS = "assets"
FINGERPRINT = "fingerprint.pb"

FILES = ("keras_metadata.pb", "tfhub_module.pb", "variables/checkpoint", FINGERPRINT)
FOLDERS = ("assets.extra", "debug")
"""What travels in ``extra`` under its path."""

SERVE = "serve"
"""The tag of the MetaGraph that TensorFlow Serving loads."""

OTHERS = "saved_model"
"""The key of ``extra`` that holds the SavedModel without the MetaGraph that was chosen."""

VERSION = "saved_model_schema_version"
"""The key of ``meta`` that every model has which was read from a SavedModel."""

SCHEMA = 1
"""The only schema version there has been (``tensorflow/cc/saved_model/constants.h``)."""

FILE_LIMIT = 1 << 30
"""Bytes of a file that is read whole: one that travels in ``extra``, or a text."""


def sniff(source: Source) -> bool:
    """A tree with a ``saved_model.*`` at its root or in its only folder, or the bare file."""
    if source.tree is not None:
        return _root(source.tree) is not None
    head = source.head()
    return _BINARY.match(head) is not None or _SPELLED.match(head) is not None


# The schema version, then a MetaGraphDef that begins with one of its fields, which some writers put in reverse order. A
# GraphDef or a MetaGraphDef on its own begins with 0x0a.
_BINARY = re.compile(rb"\x08[\x00-\x7f]\x12[\x80-\xff]{0,4}[\x00-\x7f][\x0a\x12\x1a\x22\x2a\x32\x3a]")
_SPELLED = re.compile(rb"\s*(saved_model_schema_version\s*:|meta_graphs\s*:?\s*\{)")


def read(source: Source, *, tags: Iterable[str] | str | None = None) -> GraphModel:
    """The model of one MetaGraph; no variable is read, their index is.

    Args:
        source: a directory, a mapping or a zip of one, or ``saved_model.pb`` itself: what lies beside it belongs to it.
        tags: the tags of the MetaGraph, all of them, as a set or with commas. Left out: the one tagged ``serve`` and
            nothing else, or the only one.

    Raises:
        ReadError: a file is missing or damaged, or no MetaGraph has these tags; the error lists those that there are.
    """
    from modelio.graph import meta_graph

    main, files, bare = _locate(source)
    saved, contents = _parse(main)
    tag_sets = [frozenset(meta.meta_info_def.tags) for meta in saved.meta_graphs]
    index = _choose(tag_sets, tags)
    meta = saved.meta_graphs[index]
    facts = {**meta_graph.facts(meta), VERSION: str(saved.saved_model_schema_version)}
    if len(tag_sets) > 1:
        facts["tag_sets"] = " ".join(map(_spell, tag_sets))
    variables, objects = _variables(files, meta.graph_def, meta.HasField("saver_def"), bare)
    return GraphModel(
        graph=meta.graph_def,
        variables=variables,
        signatures=meta_graph.signatures_of(meta),
        assets=dict(files.below(ASSETS)),
        tags=frozenset(meta.meta_info_def.tags),
        constants={
            name: Tensor(content.dtype, content.shape, content.numpy, content.chunks)
            for name, content in contents[index].items()
        },
        meta=facts,
        extra={**_files(files), **objects, **_take_rest(saved, contents, index)},  # last: it empties the message
    )


def _locate(source: Source) -> tuple[Source, Tree, bool]:
    """The main file, the files of the model by their path, and whether the main file is all there is."""
    if source.tree is not None:
        root = _root(source.tree)
        if root is None:
            raise ReadError(f"there is no {MAIN} in it; name the directory that holds one")
        files = source.tree.below(root) if root else source.tree
        if MAIN in files:
            return files[MAIN], files, False
        if TEXT in files:
            return files[TEXT], files, False
        raise ReadError(
            f"{CHUNKED} is the form in several pieces that TensorFlow writes above 2 GiB, and it is not read: "
            "load it with TensorFlow and save it without experimental_image_format"
        )
    named = source.name.replace("\\", "/").rpartition("/")[2] in (MAIN, TEXT)
    if isinstance(source.beside, Tree) and (named or f"{VARIABLES}.index" in source.beside):
        return source, source.beside, f"{VARIABLES}.index" not in source.beside
    empty = Source.of({}).tree
    assert empty is not None  # a mapping is a tree
    return source, empty, True


def _root(tree: Tree) -> str | None:
    """The folder that holds the main file: ``""`` for the tree's own root, or the only folder in it."""
    top = tree.top()
    for folder in ["", *top] if len(top) == 1 else [""]:
        if any(f"{folder}/{name}".lstrip("/") in tree for name in (MAIN, TEXT, CHUNKED)):
            return folder
    return None


def _parse(main: Source) -> tuple[Message, Sequence[Mapping[str, Content]]]:
    """The SavedModel message, and the large constants of each MetaGraph that were left in the file."""
    from modelio.wire import messages
    from modelio.wire.skim import skim

    if _SPELLED.match(main.head()):
        saved: Message = messages.parse_text(messages.SavedModel, main.bytes(FILE_LIMIT), where=TEXT)
        contents: Sequence[Mapping[str, Content]] = [{} for _ in saved.meta_graphs]
    else:
        saved, contents = skim(messages.SavedModel, main.window(), where=MAIN)
    if not saved.meta_graphs:
        raise ReadError("there is no MetaGraph in it: it is empty, cut short or no SavedModel", where=MAIN)
    return saved, contents


def _choose(tag_sets: Sequence[frozenset[str]], tags: Iterable[str] | str | None) -> int:
    """The position of the MetaGraph that is meant."""
    if tags is None:
        if len(tag_sets) == 1:
            return 0
        wanted = frozenset({SERVE})
    else:
        wanted = frozenset(tag.strip() for tag in (tags.split(",") if isinstance(tags, str) else tags)) - {""}
    if tag_sets.count(wanted) != 1:
        found = "more than one MetaGraph is" if wanted in tag_sets else "no MetaGraph is"
        listed = ", ".join(map(_spell, tag_sets))
        raise ReadError(f"{found} tagged {_spell(wanted)}; there are {listed}: choose one with tags=")
    return tag_sets.index(wanted)


def _spell(tags: frozenset[str]) -> str:
    return f"[{','.join(sorted(tags))}]"


def _variables(files: Tree, graph: Message, restores: bool, bare: bool) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    """The variables, and the checkpoint's description of its objects as an entry of ``extra``."""
    from modelio.graph.checkpoints import absent_variables, variables_of
    from modelio.wire.bundle import Bundle

    if f"{VARIABLES}.index" in files:
        return variables_of(Bundle(files, VARIABLES))
    absent = absent_variables(graph, _BARE) if restores else {}
    if absent and not bare:
        raise ReadError(f"the graph has {len(absent)} variables to restore, and {VARIABLES}.index is missing")
    return absent, {}


_BARE = f"{MAIN} holds no variables, they are in the directory variables/ beside it: read the whole directory"


def _files(files: Tree) -> dict[str, bytes]:
    """The files that travel in ``extra``."""
    names = [name for name in FILES if name in files]
    names += [f"{folder}/{name}" for folder in FOLDERS for name in files.below(folder)]
    return {name: files[name].bytes(FILE_LIMIT) for name in names}


def _take_rest(saved: Message, contents: Sequence[Mapping[str, Content]], index: int) -> dict[str, bytes]:
    """What is left of the message when the model has its parts, as entries of ``extra``. Empties the message."""
    from modelio.graph import meta_graph
    from modelio.wire.skim import splice

    rest = meta_graph.take_rest(saved.meta_graphs[index])
    del saved.meta_graphs[index]
    if saved.saved_model_schema_version == SCHEMA:
        saved.ClearField("saved_model_schema_version")
    others = [content for position, content in enumerate(contents) if position != index]
    if data := b"".join(splice(saved, others, where=MAIN).chunks()):
        rest[OTHERS] = data
    return rest


def write(model: GraphModel, sink: Sink) -> None:
    """Write the directory.

    A graph that has variables and no saver gets one (:func:`~modelio.graph.saver.add_saver`); a model that was never a
    SavedModel is tagged ``serve`` where it has no tags.

    Raises:
        WriteError: the graph has variables and the model no values for them, it reads a file that is not among the
            assets, or a message is too large for protobuf.
    """
    from modelio.graph import meta_graph
    from modelio.graph.checkpoints import with_saver, write_variables
    from modelio.wire import messages
    from modelio.wire.skim import splice

    _refuse_unset(model)
    model = with_saver(model)
    if VERSION not in model.meta and not model.tags:
        model = replace(model, tags=frozenset({SERVE}))
    saved = messages.parse(messages.SavedModel, model.extra.get(OTHERS, b""), where=f"extra[{OTHERS!r}]")
    others = list(saved.meta_graphs)
    del saved.meta_graphs[:]
    saved.saved_model_schema_version = saved.saved_model_schema_version or SCHEMA
    saved.meta_graphs.append(meta_graph.build(model))
    saved.meta_graphs.extend(others)
    _refuse_absent(saved, model)
    with sink.file(MAIN) as file:
        for piece in splice(saved, [model.constants, *({} for _ in others)], where=MAIN).chunks():
            file.write(piece)
    write_variables(model, sink, VARIABLES)
    for name, source in sorted(model.assets.items()):
        with sink.file(f"{ASSETS}/{name}") as file:
            for piece in chunks(source.window()):
                file.write(piece)
    for name, data in sorted(model.extra.items()):
        if (name in FILES and name != FINGERPRINT) or name.partition("/")[0] in FOLDERS:
            with sink.file(name) as file:
                file.write(data)


def _refuse_unset(model: GraphModel) -> None:
    """Refuse variables whose values are elsewhere; what was a SavedModel without a saver sets them by itself."""
    from modelio.graph.meta_graph import INFO
    from modelio.graph.names import VARIABLES

    if model.variables or INFO in model.extra:
        return
    unset = [node for node in model.graph.node if node.op in VARIABLES]
    if unset:
        raise WriteError(
            f"the graph has {len(unset)} variables and the model no values for them: convert it with its checkpoint",
            where=unset[0].name,
        )


def _refuse_absent(saved: Message, model: GraphModel) -> None:
    """Refuse assets that are elsewhere: no TensorFlow loads a SavedModel without them."""
    named = {asset.filename for meta in saved.meta_graphs for asset in meta.asset_file_def}
    if absent := sorted(named - model.assets.keys()):
        raise WriteError(
            f"the graph reads the file {absent[0]}, which did not come with it: add it, model.assets[{absent[0]!r}] = "
            "modelio.source.Source.of(path), and write the model again",
            where="asset_file_def",
        )


FORMAT = Format(
    name="saved-model",
    level="graph",
    summary="what TensorFlow Serving serves: a directory with graph, signatures and variables, TensorFlow 1 and 2",
    shape="tree",
    keeps=frozenset({"weights", "signatures", "functions", "assets", "metagraphs"}),
    sniff=sniff,
    read=read,
    write=write,
)
