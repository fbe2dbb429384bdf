"""Frozen graph: one GraphDef with its weights in Const nodes. Binary ``.pb``, or protobuf's text format ``.pbtxt``.

::

    GraphDef
      node*                name, op, input*, attr{}; weights: op "Const", attr "value" (wire/skim.py)
      library              functions that nodes call, since TensorFlow 2 also in frozen graphs
      versions             producer: the version of the graph's semantics

There is no magic number and no signature. The bytes are told by their first fields: a node starts with its name and its
op. What can be asked is derived: the placeholders go in, and what no other node consumes comes out
(:func:`modelio.graph.analysis.signature_of`); that is the signature ``graph``.

The same file also holds a graph whose variables were not frozen, as ``tf.train.write_graph`` and the loaders of other
languages leave it. It is read for what it is, a graph whose variables have no values, and ``meta`` says so.

Sources: ``tensorflow/core/framework/graph.proto``, ``node_def.proto`` (the fields), ``graph.cc`` and
``python/framework/graph_util_impl.py``, ``convert_to_constants.py`` (who writes it), TensorFlow 0.12 to 2.21.
"""

from __future__ import annotations

import re
from dataclasses import replace

from modelio.errors import ReadError, WriteError
from modelio.format import Format
from modelio.model import GraphModel, Message, Signature, Tensor, TensorSpec
from modelio.sink import Sink
from modelio.source import Source

__all__ = ["FORMAT"]

SIGNATURE = "graph"
"""The name of the one signature that is derived from the graph."""

TEXT_LIMIT = 1 << 30
"""Bytes of a text; protobuf's text parser holds all of it in memory, several times."""

VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp", "TemporaryVariable"})

_HEAD = 4096


def sniff(source: Source) -> bool:
    """A GraphDef by its first node, or by a library or versions where it has no node."""
    head = source.head(_HEAD)  # of a directory, nothing; of a zip, PK
    return _starts_binary(head, source.size) or _starts_text(head)


# ----------------------------------------------------------------------------------------------------- sniffing

_NAME = rb"\.?[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*"
_OP = rb"[A-Za-z0-9_>.]+"

_TEXT = re.compile(
    rb"""(?:\s|\#[^\n]*\n)*(?:
        node\s*:?\s*[{<](?=.*?\bop\s*:\s*["'])(?:\s|\#[^\n]*\n)*(?:name|op|input|device|attr)\b
      | versions\s*:?\s*[{<]\s*(?:producer|min_consumer)\b
      | library\s*:?\s*[{<]\s*(?:function|gradient)\b
    )""",
    re.DOTALL | re.VERBOSE,
)
"""The start of a GraphDef as text. MediaPipe's graphs also start with ``node {``, but their nodes have no ``op``."""


def _starts_text(head: bytes) -> bool:
    return b"\0" not in head and _TEXT.match(head.removeprefix(b"\xef\xbb\xbf")) is not None


def _starts_binary(head: bytes, size: int) -> bool:
    """Do these bytes start with a node, or are they a library or versions alone?"""
    tag, body, stop = _message(head, 0)
    if stop > size:
        return False
    if tag == 0x0A:  # node
        name, after = _string(head, body, 0x0A)
        op, after = _string(head, after, 0x12)
        return (
            re.fullmatch(_NAME, name) is not None
            and re.fullmatch(_OP, op) is not None
            and (after == stop or (after < stop and head[after : after + 1] in (b"\x1a", b'"', b"*", b"2", b":")))
        )
    if tag == 0x12:  # library, function, signature, name
        for _ in range(2):
            tag, body, _ = _message(head, body)
            if tag != 0x0A:
                return False
        name, after = _string(head, body, 0x0A)
        return re.fullmatch(_NAME, name) is not None and after > 0
    return tag == 0x22 and stop == size and head[body : body + 1] == b"\x08"  # versions, producer


def _message(head: bytes, position: int) -> tuple[int, int, int]:
    """Tag, start and end of the field at ``position``; tag 0 where there is none with a length."""
    if position + 1 >= len(head) or head[position] & 7 != 2:
        return 0, 0, 0
    length = shift = 0
    for index in range(position + 1, min(position + 6, len(head))):
        length |= (head[index] & 0x7F) << shift
        shift += 7
        if head[index] < 0x80:
            return head[position], index + 1, index + 1 + length
    return 0, 0, 0


def _string(head: bytes, position: int, wanted: int) -> tuple[bytes, int]:
    """The string at ``position`` and the end of it; empty where there is another field."""
    tag, body, stop = _message(head, position)
    return (head[body:stop], stop) if tag == wanted and stop <= len(head) else (b"", 0)


# ------------------------------------------------------------------------------------------------------ reading


def read(source: Source) -> GraphModel:
    """The graph. Constants of 64 KiB and more stay in the file until they are asked for.

    Raises:
        ReadError: the bytes are no GraphDef, or inputs of its nodes name nodes that are not there.
    """
    from modelio.wire.messages import GraphDef, parse_text, serialize
    from modelio.wire.skim import skim
    from modelio.wire.window import MemoryWindow, Window

    if source.tree is not None:
        raise ReadError("a frozen graph is one file, and this is a directory; name the file in it")
    if _starts_text(source.head(_HEAD)):
        window: Window = MemoryWindow(serialize(parse_text(GraphDef, source.bytes(TEXT_LIMIT))))
    else:
        window = source.window()
    graph, (contents,) = skim(GraphDef, window)
    if not graph.node and not graph.library.function and not graph.HasField("versions"):
        raise ReadError("there is no node in it: this is no GraphDef")
    return GraphModel(
        graph=graph,
        signatures={SIGNATURE: _signature(graph)},
        constants={
            name: Tensor(content.dtype, content.shape, content.numpy, content.chunks)
            for name, content in contents.items()
        },
        meta=_facts(graph),
    )


def _signature(graph: Message) -> Signature:
    """The signature of the graph, with the shapes of outputs that the writer noted in ``_output_shapes``."""
    from modelio.graph.analysis import Graph, signature_of
    from modelio.wire.dtypes import shape_to_tuple

    index = Graph(graph)

    def shaped(spec: TensorSpec) -> TensorSpec:
        node, _, port = spec.tensor.rpartition(":")
        attrs = index.node(node).attr
        noted = attrs["_output_shapes"].list.shape if "_output_shapes" in attrs else ()
        return replace(spec, shape=shape_to_tuple(noted[int(port)])) if int(port) < len(noted) else spec

    found = signature_of(index)
    return replace(found, outputs={name: shaped(spec) for name, spec in found.outputs.items()})


def _facts(graph: Message) -> dict[str, str]:
    facts = {}
    if graph.versions.producer:
        facts["graph_def_version"] = str(graph.versions.producer)
    if graph.versions.min_consumer:
        facts["min_consumer"] = str(graph.versions.min_consumer)
    variables = sum(node.op in VARIABLES for node in graph.node)
    if variables:
        facts["variables"] = f"{variables} in the graph, none of their values in this file: it was not frozen"
    return facts


# ------------------------------------------------------------------------------------------------------ writing


def write(model: GraphModel, sink: Sink, *, text: bool | None = None) -> None:
    """Write the graph, constants piece by piece.

    Args:
        model: a graph without variables. Its signatures are not written: the format has no place for them.
        sink: where to.
        text: write protobuf's text format, for people; it holds the whole graph in memory. Left out, a target called
            ``.pbtxt`` gets it.

    Raises:
        WriteError: the model has variables, the file would pass 2 GiB, or, as text, the graph has fields that modelio
            does not know.
    """
    from modelio.wire.messages import GraphDef, parse, to_text
    from modelio.wire.skim import splice

    if not isinstance(model, GraphModel):
        raise WriteError("a frozen graph is written from a graph, and these are layers; convert() lowers them first")
    if model.variables:
        raise WriteError(
            f"the model has {len(model.variables)} variables, and a frozen graph has none; convert() freezes it first"
        )
    whole = splice(model.graph, [model.constants])
    with sink.file() as stream:
        if text if text is not None else sink.name.endswith(".pbtxt"):
            stream.write(to_text(parse(GraphDef, b"".join(whole.chunks()), where=None)).encode())
        else:
            for chunk in whole.chunks():
                stream.write(chunk)


FORMAT = Format(
    name="frozen-graph",
    level="frozen",
    summary="TensorFlow GraphDef with its weights as constants, binary or text",
    shape="blob",
    suffixes=(".pb", ".pbtxt"),
    keeps=frozenset({"weights", "functions"}),
    sniff=sniff,
    read=read,
    write=write,
)
