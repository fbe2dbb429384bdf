"""Who is called on what: the ``inbound_nodes`` of functional models, in both spellings, put in order.

::

    Keras 1, 2     [[["dense", 0, 0, {"mask": ...}], ["conv", 1, 0, {}]], ...]          one list a call
                   [["x", 0, 0, {"y": ["z", 0, 0]}], ...]                               operations (TensorFlow 2.4 on)
                   ["_CONSTANT_VALUE", -1, 3.0, {}]                                     in place of a tensor
    Keras 3        [{"args": [{"class_name": "__keras_tensor__",
                               "config": {"keras_history": ["dense", 0, 0]}}], "kwargs": {}}, ...]

``[name, node, output]`` counts the calls of the layer called ``name``. Most writers leave out calls that belong to
other models and count from 0; for a model inside a model many count the creation of that model as its call 0, although
no list shows it (Keras 2.3.1 ``engine/network.py`` get_config, ``kept_nodes = 1``). The file itself tells: if call
number n of a model with n listed calls is referred to, its creation is counted. Keras 3 counts it where the outer model
names its inputs and outputs, for Functional and not for Sequential, and nowhere else: the same call of one model is
``["inner", 1, 0]`` in ``output_layers`` and ``["inner", 0, 0]`` in ``inbound_nodes``.

Sources: Keras 1.2.2 ``engine/topology.py``, Keras 2.3.1 ``engine/network.py``, tf_keras 2.21
``src/engine/{functional,node}.py``, Keras 3.15 ``src/models/functional.py``.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from modelio.errors import ReadError
from modelio.layers.values import DEPTH, decode

__all__ = ["Node", "Origin", "connect", "flatten", "node_of", "origins_of"]

_CONSTANT = "_CONSTANT_VALUE"


class Origin(NamedTuple):
    """A tensor as the file refers to it: output ``output`` of call ``node`` of the layer ``layer``."""

    layer: str
    node: int
    output: int


@dataclass(frozen=True)
class Node:
    """One call as the file has it; tensors among the arguments are :class:`Origin`."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def flatten(value: Any) -> Iterator[Any]:
    """The leaves of nested lists, tuples and dicts; dicts in the order of their sorted keys, as in ``tf.nest``."""
    if isinstance(value, (list, tuple)) and not isinstance(value, Origin) and not hasattr(value, "_fields"):
        for item in value:
            yield from flatten(item)
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from flatten(value[key])
    else:
        yield value


# -- one call ----------------------------------------------------------------------------------------------------------


def node_of(data: Any, known: Collection[str], where: str) -> Node:
    """One entry of ``inbound_nodes``."""
    if isinstance(data, Mapping) and "args" in data:
        args = _tensors(data["args"], where)
        kwargs = _tensors(data.get("kwargs") or {}, where)
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise ReadError("a call's args are no list, or its kwargs no mapping", where=where)
        return Node(tuple(args), kwargs)
    named: dict[str, Any] = {}

    def leaf(entry: list[Any]) -> Any:
        if len(entry) > 3 and isinstance(entry[3], Mapping):
            named.update(_legacy_kwargs(entry[3], where))
        return entry[2] if entry[0] == _CONSTANT else _origin(entry, where)

    arguments = _legacy(data, leaf, where)
    if isinstance(arguments, list) and len(arguments) == 1:
        arguments = arguments[0]
    return Node((arguments,), named)


def origins_of(data: Any, where: str) -> Any:
    """``input_layers`` and ``output_layers``, which may be one tensor alone or any structure: a list or a dict."""
    structure = _legacy(data, lambda entry: _origin(entry, where), where)
    return [structure] if isinstance(structure, Origin) else structure


def _origin(entry: list[Any], where: str) -> Origin:
    name, node, output = entry[:3]
    if not isinstance(name, str) or not isinstance(node, int) or not isinstance(output, int) or node < 0 or output < 0:
        raise ReadError(f"{entry[:3]} names no tensor: expected [layer, call, output]", where=where)
    return Origin(name, node, output)


def _is_entry(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (3, 4) and isinstance(value[0], str) and isinstance(value[1], int)


def _legacy(data: Any, leaf: Callable[[list[Any]], Any], where: str, depth: int = 0) -> Any:
    if depth > DEPTH:
        raise ReadError(f"a call's arguments are nested more than {DEPTH} deep", where=where)
    if _is_entry(data):
        return leaf(data)
    if isinstance(data, list):
        return [_legacy(item, leaf, where, depth + 1) for item in data]
    if isinstance(data, Mapping):
        return {key: _legacy(item, leaf, where, depth + 1) for key, item in data.items()}
    raise ReadError(f"{data!r:.60} names no tensor: expected [layer, call, output]", where=where)


def _legacy_kwargs(kwargs: Mapping[str, Any], where: str) -> dict[str, Any]:
    def value(item: Any, depth: int = 0) -> Any:
        if depth > DEPTH:
            raise ReadError(f"a call's arguments are nested more than {DEPTH} deep", where=where)
        if _is_entry(item) and isinstance(item[2], int):
            return _origin(item, where)
        if isinstance(item, list):
            return [value(part, depth + 1) for part in item]
        if isinstance(item, dict):
            return {key: value(part, depth + 1) for key, part in item.items()}
        return item

    return {key: value(decode(item, where)) for key, item in kwargs.items()}


def _tensors(value: Any, where: str, depth: int = 0) -> Any:
    """Keras 3: ``__keras_tensor__`` -> Origin, the other stand-ins -> what they stand for."""
    if depth > DEPTH:
        raise ReadError(f"a call's arguments are nested more than {DEPTH} deep", where=where)
    if isinstance(value, list):
        return [_tensors(item, where, depth + 1) for item in value]
    if not isinstance(value, Mapping):
        return value
    if value.get("class_name") == "__keras_tensor__":
        config = value.get("config")
        history = config.get("keras_history") if isinstance(config, Mapping) else None
        if not isinstance(history, list) or len(history) != 3:
            raise ReadError("a tensor has no keras_history", where=where)
        return _origin(history, where)
    if str(value.get("class_name")).startswith("__"):
        return decode(value, where)
    return {key: _tensors(item, where, depth + 1) for key, item in value.items()}


# -- all calls ---------------------------------------------------------------------------------------------------------

Place = tuple[int, int]

_LOST = (
    "; where this layer also stands in a model inside the model, tf_keras has written the calls of that one here, and "
    "cannot load the file either: save the model as .keras"
)


def connect(
    nodes: Mapping[str, list[Node]],
    ends: Mapping[str, Any],
    networks: Collection[str],
    where: str,
    counted: Collection[str] = (),
    raw: bool = False,
) -> tuple[list[tuple[str, Node]], Callable[..., Place]]:
    """The calls that the outputs need, in the file's order as far as dependencies allow, and where each tensor is.

    Args:
        nodes: layer name -> its calls, in the file's order; an InputLayer has one without arguments.
        ends: the model's inputs and outputs, as structures of :class:`Origin`.
        networks: names of the layers that are models themselves.
        where: path of the model.
        counted: those of ``networks`` whose creation counts as a call in ``ends``, whatever it does elsewhere.
        raw: whether arguments may count all calls of a layer, also those in other models (:func:`_renumbered`).

    Returns:
        ``(layer name, node)`` in an order that can be computed, and a function from Origin to (position, output), which
        wants ``is_end=True`` for those of ``ends``.

    Raises:
        ReadError: a layer or call that does not exist, or calls that wait for each other.
    """
    numbers = {
        key: number for number, key in enumerate((name, k) for name, own in nodes.items() for k in range(len(own)))
    }
    keys = list(numbers)
    sources = {
        key: [leaf for leaf in flatten([*_node(nodes, key).args, _node(nodes, key).kwargs]) if isinstance(leaf, Origin)]
        for key in keys
    }
    tips = [leaf for end in ends.values() for leaf in flatten(end)]
    used = [origin for own in sources.values() for origin in own]
    renumbered = _renumbered(nodes, used, tips, networks) if raw else {}
    own_count = set(counted) - {tip.layer for tip in tips if not tip.node}
    referred: dict[str, int] = {}
    for origin in [*(tip for tip in tips if tip.layer not in own_count), *used]:
        referred[origin.layer] = max(referred.get(origin.layer, 0), origin.node)
    created = {name for name in networks if referred.get(name, 0) == len(nodes.get(name, ())) > 0}

    in_ends = frozenset(created | own_count)

    def key_of(origin: Origin, place: str, created: Collection[str] = created) -> tuple[str, int]:
        if origin.layer not in nodes:
            raise ReadError(f"there is no layer {origin.layer!r}{_LOST if networks else ''}", where=place)
        number = origin.node if created is in_ends else renumbered.get((origin.layer, origin.node), origin.node)
        key = (origin.layer, number - (origin.layer in created))
        if key not in numbers:
            raise ReadError(
                f"call {origin.node} of {origin.layer!r} is used, but the file lists {len(nodes[origin.layer])}",
                where=place,
            )
        return key

    needed: dict[tuple[str, int], list[tuple[str, int]]] = {}
    waiting = [key_of(origin, where, in_ends) for origin in reversed(tips)]
    while waiting:
        key = waiting.pop()
        if key not in needed:
            needed[key] = [key_of(origin, f"{where}/{key[0]}") for origin in sources[key]]
            waiting.extend(needed[key])

    missing = {key: len(set(own)) for key, own in needed.items()}
    users: dict[tuple[str, int], list[tuple[str, int]]] = {key: [] for key in needed}
    for key, own in needed.items():
        for source in set(own):
            users[source].append(key)
    ready = [numbers[key] for key, count in missing.items() if not count]
    heapq.heapify(ready)
    positions: dict[tuple[str, int], int] = {}
    while ready:
        key = keys[heapq.heappop(ready)]
        positions[key] = len(positions)
        for user in users[key]:
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, numbers[user])
    if len(positions) < len(needed):
        waiting_names = sorted({key[0] for key in needed if key not in positions})
        listed = ", ".join(waiting_names[:5]) + (" ..." if len(waiting_names) > 5 else "")
        raise ReadError(f"these layers wait for each other's outputs: {listed}", where=where)

    def place_of(origin: Origin, is_end: bool = False) -> Place:
        return positions[key_of(origin, where, in_ends if is_end else created)], origin.output

    return [(key[0], _node(nodes, key)) for key in positions], place_of


def _renumbered(
    nodes: Mapping[str, list[Node]], used: Sequence[Origin], tips: Sequence[Origin], networks: Collection[str]
) -> dict[tuple[str, int], int]:
    """The calls that arguments mean, by layer and the number that they have there.

    A layer that stands in several models has calls in all of them, and a file lists those of its own model. Keras 3.0
    numbers them anew where it names inputs and outputs, and not in the arguments of calls (``src/models/functional.py``
    serialize_node). All that is listed is needed, so either the numbers fit as they are, or they tell the order.
    """
    renumbered: dict[tuple[str, int], int] = {}
    in_use: dict[str, set[int]] = {}
    at_ends: dict[str, set[int]] = {}
    for origins, numbers in ((used, in_use), (tips, at_ends)):
        for origin in origins:
            numbers.setdefault(origin.layer, set()).add(origin.node)
    for name, numbers_in_use in in_use.items():
        listed = set(range(len(nodes.get(name, ()))))
        ends = at_ends.get(name, set())
        if name in networks or (numbers_in_use <= listed and listed - numbers_in_use <= ends):
            continue
        for places in (listed, listed - ends):
            if len(places) == len(numbers_in_use):
                renumbered |= {(name, raw): k for raw, k in zip(sorted(numbers_in_use), sorted(places), strict=True)}
                break
    return renumbered


def _node(nodes: Mapping[str, list[Node]], key: tuple[str, int]) -> Node:
    return nodes[key[0]][key[1]]
