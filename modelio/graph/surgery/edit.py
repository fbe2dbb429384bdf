"""What every operation on a graph has in common: its signatures, its objects, and how what was done is said.

The operations are the modules beside this one; the package says in which order they are done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from modelio.errors import ConversionError
from modelio.graph.references import OBJECTS, OTHERS, node_of
from modelio.graph.tables import INIT, MAIN_OP, main_op
from modelio.model import GraphModel, Message
from modelio.wire import messages

__all__ = ["counted", "forget_layers", "forget_places", "keep_signature", "nearest", "plain_graph", "without_objects"]

_LAYERS = "assets.extra/modelio"
"""What the keys of ``extra`` begin with under which a graph of ours remembers its layers (layers/notes.py)."""

_OF_OBJECTS = ("keras_metadata.pb", OTHERS)
"""The keys of a model's ``extra`` that say nothing without its objects, and of MetaGraphs that share its variables."""


def counted(count: int, one: str, many: str) -> str:
    """A number and what it counts.

    >>> counted(1, "node", "nodes"), counted(1200, "node", "nodes")
    ('1 node', '1,200 nodes')
    """
    return f"{count:,} {one if count == 1 else many}"


def keep_signature(model: GraphModel, name: str) -> tuple[GraphModel, list[str]]:
    """The model with one signature only; nodes that only others need stay until :func:`prune`."""
    if name not in model.signatures:
        raise ConversionError(f"no signature is called {name!r}{nearest(name, model.signatures)}")
    gone = [other for other in model.signatures if other != name]
    return replace(model, signatures={name: model.signatures[name]}), [f"signature {other} removed" for other in gone]


def nearest(name: str, there: Iterable[str]) -> str:
    """What to say of a name that is not there: those that are like it, or all if they are few.

    >>> nearest("dense/softmax", ["dense/Softmax", "conv/Relu"])
    "; there is 'dense/Softmax'"
    """
    from difflib import get_close_matches

    known = list(there)
    folded = {other.lower(): other for other in reversed(known)}
    close = [folded[other] for other in get_close_matches(name.lower(), folded, n=3, cutoff=0.6)]
    listed = close or (known if len(known) <= 8 else [])
    if not known:
        return "; there is none"
    return f"; there {'is' if len(listed) == 1 else 'are'} {', '.join(map(repr, listed))}" if listed else ""


def without_objects(model: GraphModel) -> GraphModel:
    """A TensorFlow 2 export as a graph as TensorFlow 1 had them, without its Python objects."""
    return plain_graph(model) if OBJECTS in model.extra else model


def plain_graph(model: GraphModel) -> GraphModel:
    """The model with variables keyed by their nodes, which nothing restores yet, and no other MetaGraph shares.

    What a loader runs first is named by the collection, which all of them read. A signature that names it is taken for
    one that can be called, by TensorFlow 2 without objects, and refused where a file's name is fed
    (``python/saved_model/load_v1_in_v2.py``, ``_extract_signatures``).
    """
    from modelio.graph.variables import by_name

    plain = by_name(model)
    extra = {key: data for key, data in plain.extra.items() if key not in _OF_OBJECTS}
    if INIT in extra:
        definition = messages.parse(messages.SignatureDef, extra.pop(INIT), where=f"extra[{INIT!r}]")
        names = [node_of(info.name) for info in definition.outputs.values()]
        if len(names) == 1 and MAIN_OP not in extra:
            extra[MAIN_OP] = main_op(names[0])
    return replace(plain, extra=extra, meta={key: fact for key, fact in plain.meta.items() if key != "tag_sets"})


def forget_layers(model: GraphModel) -> tuple[GraphModel, list[str]]:
    """The model without what it remembers of the layers that it was lowered from, where that is true no longer."""
    left = {key: data for key, data in model.extra.items() if not key.startswith(_LAYERS)}
    if len(left) == len(model.extra):
        return model, []
    return replace(model, extra=left), ["what the graph remembers of its layers removed: it is another graph now"]


def forget_places(node: Message, gone: set[str]) -> None:
    """Drop the wish to be on the device of a node that is gone: TensorFlow refuses that."""
    if "_class" in node.attr:
        places = node.attr["_class"].list.s
        left = [place for place in places if place.decode("utf-8", "replace").removeprefix("loc:@") not in gone]
        if not left:
            del node.attr["_class"]
        elif len(left) < len(places):
            places[:] = left
