"""Checkpoint: variables as training saves them, and with them the graph, where TensorFlow 1 wrote it.

::

    checkpoint                      text, CheckpointState: which of the checkpoints in this directory is the latest
    PREFIX.index                    V2, since TensorFlow 0.12: what there is and where (wire/bundle.py)
    PREFIX.data-00000-of-00001      the numbers, in as many files as there were devices
    PREFIX                          V1, until then: both in one file (wire/tensor_slices.py),
    PREFIX-00000-of-00002           or in one for each device
    PREFIX.meta                     MetaGraphDef: the graph, its saver, its collections (graph/meta_graph.py)

A checkpoint is called by its PREFIX, ``model.ckpt-1000`` say, which is a file in V1 only. It is found by its prefix, by
any of these files but ``.data``, or by the directory.

A name-based checkpoint (TensorFlow 1) has the variables' names for keys. An object-based one (``tf.train.Checkpoint``,
``save_weights`` of TensorFlow 2) has paths through objects, and the description of these in the entry
``_CHECKPOINTABLE_OBJECT_GRAPH``, which travels in ``extra``. Without a ``.meta`` the model has variables and an empty
graph: what is computed with them is in the code that was trained.

Sources: ``tensorflow/python/training/saver.py``, ``checkpoint_management.py``, ``checkpoint_state.proto``,
``tensorflow/python/checkpoint/checkpoint.py`` (TensorFlow 1.15, 2.21).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelio.errors import ReadError, WriteError
from modelio.format import Format
from modelio.model import GraphModel, Message, Tensor
from modelio.sink import Sink
from modelio.source import Source, Tree
from modelio.wire.varint import varint

if TYPE_CHECKING:
    from modelio.graph.checkpoints import Stored

__all__ = ["FORMAT"]

STATE = "checkpoint"
INDEX = ".index"
META = ".meta"

NAME = "checkpoint"
"""The key of ``meta`` that holds the prefix."""

PREFIX = "model.ckpt"
"""What a checkpoint is called that has no name yet."""

MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
"""The last eight bytes of both kinds of table (kTableMagicNumber, ``tsl/lib/io/format.h``)."""

TEXT_LIMIT = 1 << 30
"""Bytes of a graph as text; protobuf's text parser holds all of it in memory, several times."""

STATE_LIMIT = 1 << 22
"""Bytes of the file that says which is the latest: it lists all that there ever were."""


def sniff(source: Source) -> bool:
    """A table, a MetaGraphDef, or the text that says which is the latest; a tree of such, if it is no SavedModel."""
    if source.tree is not None:
        files = _folder(source.tree)
        return files is not None and (_says(files) or any(_is_whole(files, prefix) for prefix in _prefixes(files)))
    head = source.head(256)
    return _is_table(source) or _STATE.match(head) is not None or _is_meta(head)


_STATE = re.compile(rb"""\s*(all_)?model_checkpoint_paths?\s*:\s*["']""")

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")
_SHARDS = re.compile(r"-\?{5}-of-\d{5}$")
"""A file of a V1 checkpoint in several, and how the state names all of them."""


def _is_meta(head: bytes) -> bool:
    """Does it begin as a MetaGraphDef does, with meta_info_def?

    Where TensorFlow wrote it, that holds, after a version, the ops of the graph by their names. Where it holds tags
    first, it is so short that all of it can be looked at: the graph follows.
    """
    try:
        position, stop = _enter(head, 0, b"\x0a")
        if head[position : position + 1] == b"\x22":
            while position < stop:
                position = _enter(head, position, b"\x22\x2a\x32\x38\x42")[1]  # tags, versions, stripped, aliases
            return position == stop and head[stop : stop + 1] == b"\x12"
        if head[position : position + 1] == b"\x0a":
            position = _enter(head, position, b"\x0a")[1]
        operations = _enter(head, position, b"\x12")[0]
        name = _enter(head, operations, b"\x0a")[0]
        return re.match(rb"\x0a[\x01-\x7f]\w", head[name : name + 3]) is not None
    except ReadError:
        return False


def _enter(head: bytes, position: int, tags: bytes) -> tuple[int, int]:
    """Where the content of the field at a position begins and ends; it has to have one of these tags."""
    tag = head[position : position + 1]
    if not tag or tag not in tags:
        raise ReadError("another field")
    number, after = varint(head, position + 1)
    return (position + 1, after) if tag == b"\x38" else (after, after + number)


def _is_table(source: Source) -> bool:
    return source.size > len(MAGIC) and source.window().read(source.size - len(MAGIC), len(MAGIC)) == MAGIC


def _says(files: Tree) -> bool:
    return STATE in files and _STATE.match(files[STATE].head(256)) is not None


def _folder(tree: Tree) -> Tree | None:
    """The folder that the checkpoints are in: the tree itself, or the only folder in it; None where a SavedModel is."""
    top = tree.top()
    files = tree.below(top[0]) if len(top) == 1 and top[0] not in tree else tree
    return None if any(name.startswith("saved_model.") and name in files for name in files.top()) else files


def _prefixes(files: Tree) -> list[str]:
    """The checkpoints in a folder, by name."""
    names = files.top()
    found = {name.removesuffix(INDEX) for name in names if name.endswith(INDEX) and name in files}
    if found:
        return sorted(found)
    if len(names) > 1 and not _says(files):  # V1 has no suffix, and in a zip all that is looked at has to be unpacked
        graphs = {name for name in names if name.endswith(META)}
        names = [name for name in names if _SHARD.fullmatch(name) or name + META in graphs]
    return sorted({_prefix(name) for name in names if name in files and _is_table(files[name])})


def _prefix(name: str) -> str:
    """What the file of a V1 checkpoint is called without its number."""
    shard = _SHARD.fullmatch(name)
    return shard[1] if shard else name


def _is_whole(files: Tree, prefix: str) -> bool:
    """Is what is called an index one, or is there data for it? Other programs have indexes too."""
    return (
        prefix + INDEX not in files
        or _is_table(files[prefix + INDEX])
        or any(name.startswith(f"{prefix}.data-") for name in files.top())
    )


# ------------------------------------------------------------------------------------------------------ reading


def read(source: Source, *, prefix: str | None = None, graph: Any = None) -> GraphModel:
    """The variables, and the graph where there is a ``.meta`` or it is given; no number is read.

    Args:
        source: one of the files, or a directory, a mapping or a zip of them.
        prefix: which checkpoint of a directory, by its name: ``"model.ckpt-1000"``. Left out: the one that the file
            ``checkpoint`` says is the latest, or the only one.
        graph: the graph that the variables belong to, in place of a ``.meta``: whatever a Source is made of, with a
            GraphDef or a MetaGraphDef in it, binary or text.

    Raises:
        ReadError: a file is missing or damaged, or there are several checkpoints and none is said to be the latest.
    """
    from modelio.graph import meta_graph
    from modelio.graph.checkpoints import absent_variables, variables_of
    from modelio.wire import messages

    files, name = _locate(source, prefix)
    stored, kind = _stored(files, name)
    if stored is None and f"{name}{META}" not in files:
        raise ReadError(f"there is no {name}{INDEX} beside it, and no other file of a checkpoint")
    if graph is not None:
        meta, constants = _meta_graph(Source.of(graph), sure=False)
    elif name + META in files:
        meta, constants = _meta_graph(files[name + META])
    else:
        meta, constants = messages.MetaGraphDef(), {}
    variables, objects = variables_of(stored) if stored else (absent_variables(meta.graph_def, _BARE), {})
    origin = {NAME: name, "checkpoint_version": kind} if stored else {NAME: name}
    return GraphModel(
        graph=meta.graph_def,
        variables=variables,
        signatures=meta_graph.signatures_of(meta),
        tags=frozenset(meta.meta_info_def.tags),
        constants=constants,
        meta={**meta_graph.facts(meta), **origin},
        extra={**objects, **meta_graph.take_rest(meta)},  # last: it empties the message
    )


_BARE = "the graph came without its checkpoint: the numbers are in the .index and .data files that go with this .meta"


def _locate(source: Source, prefix: str | None) -> tuple[Mapping[str, Source], str]:
    """The files, and the name of the checkpoint that is meant among them."""
    if source.tree is not None:
        files = _folder(source.tree)
        if files is None:
            raise ReadError("this is a SavedModel; the checkpoint in it is the folder variables")
        return files, prefix or _latest(files)
    if _STATE.match(source.head(256)):
        if not isinstance(source.beside, Tree) or STATE not in source.beside:
            raise ReadError("this only says which checkpoint is the latest; name the directory that they are in")
        return source.beside, prefix or _latest(source.beside)
    name = source.name.replace("\\", "/").rpartition("/")[2]
    base = prefix or _prefix(name.removesuffix(INDEX).removesuffix(META))
    if any(file in source.beside for file in (name, base + INDEX)) or _shards(source.beside, base):
        return source.beside, base
    return {PREFIX + (META if _is_meta(source.head(256)) else ""): source}, PREFIX


def _latest(files: Tree) -> str:
    """The name of the latest checkpoint in a folder."""
    found = _prefixes(files)
    if _says(files):
        named = _said(files[STATE])
        if named in found:
            return named
        if len(found) != 1:  # where only one is left, an outdated note does not matter
            there = (
                f"there are {', '.join(found)}: name one, or choose it with prefix=" if found else "no other is here"
            )
            raise ReadError(f"the latest checkpoint is said to be {named!r}, which is not here; {there}", where=STATE)
    if len(found) > 1:
        raise ReadError(
            f"which of these is the latest is not said: {', '.join(found)}; name one, or choose it with prefix="
        )
    if not found:
        raise ReadError(f"there is no checkpoint in it: no {INDEX} file, and none of the first kind (V1)")
    return found[0]


def _said(state: Source) -> str:
    """The name of the checkpoint that is the latest; its path was true where it was trained."""
    from modelio.wire import messages

    parsed = messages.parse_text(messages.CheckpointState, state.bytes(STATE_LIMIT), where=STATE)
    path = parsed.model_checkpoint_path.replace("\\", "/")
    return _SHARDS.sub("", posixpath.basename(path))


def _stored(files: Mapping[str, Source], name: str) -> tuple[Stored | None, str]:
    """The open checkpoint of a name, and of which kind it is."""
    if name + INDEX in files:
        from modelio.wire.bundle import Bundle

        return Bundle(files, name), "V2"
    shards = [name] if name in files and _is_table(files[name]) else _shards(files, name)
    if not shards:
        return None, ""
    from modelio.wire.tensor_slices import SliceTables

    return SliceTables({shard: files[shard].window() for shard in shards}), "V1"


def _shards(files: Mapping[str, Source], name: str) -> list[str]:
    """The files of a V1 checkpoint in several: all of them, or an error."""
    names = files.top() if isinstance(files, Tree) else files
    matches = [match for other in names if (match := _SHARD.fullmatch(other)) and match[1] == name and other in files]
    if not matches:
        return []
    count = int(matches[0][3])
    found = {match[0] for match in matches}
    wanted = [f"{name}-{number:05d}-of-{count:05d}" for number in range(min(count, len(found) + 1))]
    if found != set(wanted):
        lacking = next((file for file in wanted if file not in found), None)
        reason = f"the file {lacking} is missing" if lacking else f"there are several, one of them in {count} files"
        raise ReadError(f"{reason}: this checkpoint (V1) is not whole", where=name)
    return wanted


def _meta_graph(source: Source, sure: bool = True) -> tuple[Message, dict[str, Tensor]]:
    """The graph as a MetaGraphDef, which it is or, where not sure, may be; its large constants stay in the file."""
    from modelio.wire import messages
    from modelio.wire.skim import skim
    from modelio.wire.window import MemoryWindow, Window

    where = source.name.replace("\\", "/").rpartition("/")[2]
    head = source.head(256)
    text = _TEXT.match(head)
    is_meta = sure or _is_meta(head) or (text is not None and text[1] in _META_FIELDS)
    cls = messages.MetaGraphDef if is_meta else messages.GraphDef
    window: Window = source.window()
    if text:
        window = MemoryWindow(messages.serialize(messages.parse_text(cls, source.bytes(TEXT_LIMIT), where=where)))
    found, (contents,) = skim(cls, window, where=where)
    return found if is_meta else messages.MetaGraphDef(graph_def=found), {
        node: Tensor(content.dtype, content.shape, content.numpy, content.chunks) for node, content in contents.items()
    }


_META_FIELDS = (b"meta_info_def", b"graph_def", b"saver_def")
_TEXT = re.compile(rb"(?:\s|#[^\n]*\n)*(node|versions|library|%b)\s*:?\s*[{<]" % b"|".join(_META_FIELDS))
"""The start of a GraphDef or a MetaGraphDef as text."""


# ------------------------------------------------------------------------------------------------------ writing


def write(model: GraphModel, sink: Sink, *, prefix: str | None = None, shards: int = 1) -> None:
    """Write a V2 checkpoint, its ``.meta`` where the model has a graph, and the file that calls it the latest.

    Args:
        model: a graph with variables, or variables alone. Its assets are not written: the format has no place for them.
        sink: where to.
        prefix: what to call it; left out, what it was called, or ``model.ckpt``.
        shards: data files to spread the variables over.

    Raises:
        WriteError: the model has no variables, or the name is none.
    """
    from modelio.graph import meta_graph
    from modelio.graph.checkpoints import OBJECTS, with_saver, write_variables
    from modelio.wire import messages
    from modelio.wire.skim import splice

    if not isinstance(model, GraphModel):
        raise WriteError("a checkpoint is written from a graph, and these are layers; convert() lowers them first")
    if not model.variables and OBJECTS not in model.extra:
        raise WriteError("the model has no variables, and a checkpoint holds nothing else; write a frozen-graph")
    name = prefix if prefix is not None else model.meta.get(NAME, PREFIX)
    if not re.fullmatch(r"[^/\\\0]+", name) or name == STATE:
        raise WriteError(f"{name!r} is no name for a checkpoint; a file's name is, without slashes")
    if not isinstance(shards, int) or shards < 1:
        raise WriteError(f"shards={shards!r} is no number of data files; it is 1 or more")
    state = messages.CheckpointState(model_checkpoint_path=name, all_model_checkpoint_paths=[name])
    with sink.file(STATE) as file:
        file.write(messages.to_text(state).encode())
    write_variables(model, sink, name, shards)
    if model.graph.node or model.graph.library.function:
        model = with_saver(model) if model.graph.node else model
        with sink.file(name + META) as file:
            for piece in splice(meta_graph.build(model), [model.constants], where=name + META).chunks():
                file.write(piece)


FORMAT = Format(
    name="checkpoint",
    level="graph",
    summary="variables as TensorFlow's training saves them, V1 and V2, with the graph where there is a .meta",
    shape="tree",
    keeps=frozenset({"weights", "signatures", "functions"}),
    sniff=sniff,
    read=read,
    write=write,
)
