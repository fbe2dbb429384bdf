"""What a graph needs to answer: from the tensors that are asked for, back to the placeholders that must be fed.

TensorFlow runs a node only where a fetched tensor depends on it, by data or by control (``PruneForReverseReachability``
in core/graph/algorithm.cc, after each feed has cut its tensor off in core/graph/subgraph.cc), and a Placeholder that
runs without being fed fails the whole request. So what must be fed is a question of reachability:

* over data inputs (``node``, ``node:k``) and control inputs (``^node``); Switch, Merge and while loops are plain nodes,
  and both branches count, since which one is alive is known only at run time;
* every input of a reached call, ``PartitionedCall``, ``If``, ``While`` or a function's own name, counts: it is computed
  before the function sees it. (Grappler may inline a function and then drop an argument that its body ignores; it may
  also not. What is said here holds either way.)
* a ``PlaceholderWithDefault`` may be fed and need not be: the walk goes on to its default;
* a Placeholder inside a function's body is never fed: no name reaches it.
"""

from __future__ import annotations

import functools
import heapq
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from modelio.errors import ReadError
from modelio.graph import operations
from modelio.graph.operations import Operation
from modelio.model import Message, Signature, TensorSpec

__all__ = [
    "AMBIGUOUS_SCALAR",
    "Graph",
    "Placeholder",
    "Requirements",
    "TensorName",
    "required_placeholders",
    "role_of",
    "signature_of",
    "tensor_name",
]

CONTROL = -1
"""The port of a control input: the order of two nodes, no tensor."""

PLACEHOLDERS = {"Placeholder": True, "PlaceholderV2": True, "PlaceholderWithDefault": False}
"""The ops that a request feeds, and whether it must."""

LOOPS = frozenset({"NextIteration", "RefNextIteration"})
"""Where a while loop goes back to its Merge: the one cycle that a graph may have."""

# fmt: off
SAVERS = frozenset({
    "Save", "SaveSlices", "SaveV2", "Restore", "RestoreSlice", "RestoreV2", "ShardedFilename", "ShardedFilespec",
    "MergeV2Checkpoints",
})
# fmt: on
"""What a Saver puts into a graph, to read and write checkpoints."""

_SWITCHES = frozenset({"bool", "uint8", "int32", "int64", "float32"})

AMBIGUOUS_SCALAR = 21
"""Up to this GraphDef version, a Placeholder's scalar shape also meant: unknown (core/ops/array_ops.cc)."""


class TensorName(NamedTuple):
    """One input of a node, or one end of a signature: output ``port`` of ``node``; port -1 is a control input."""

    node: str
    port: int


def tensor_name(text: str) -> TensorName:
    """A tensor's name in its parts.

    >>> tensor_name("a/b:1"), tensor_name("a/b"), tensor_name("^a")
    (TensorName(node='a/b', port=1), TensorName(node='a/b', port=0), TensorName(node='a', port=-1))
    """
    if text.startswith("^"):
        return TensorName(text[1:], CONTROL)
    node, colon, port = text.rpartition(":")
    if not colon:
        return TensorName(text, 0)
    if not (port.isascii() and port.isdecimal() and len(port) < 10):
        raise ReadError(f"{text!r} is no tensor's name: a node and the number of its output are wanted, node:0")
    return TensorName(node, int(port))


class Placeholder(NamedTuple):
    """Something that a request feeds, or would have to.

    ``shape`` has None for an unknown size and is None where the rank is unknown. ``has_default``: it may be left out.
    ``role`` is ``"learning_phase"`` or None, see :func:`role_of`. ``function`` names the function whose body it is in,
    where nothing can feed it; its ``name`` then starts with that.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    has_default: bool = False
    role: str | None = None
    function: str | None = None


class Requirements(NamedTuple):
    """What some fetches need, and which of the fetches, named as the caller named them, need it.

    ``placeholders`` are those that run, in the graph's order: not those that ``feeds`` stand in for. ``feeds`` are
    those of the caller's feeds that make a difference.
    """

    placeholders: Mapping[Placeholder, tuple[str, ...]]
    feeds: Mapping[str, tuple[str, ...]]


class Graph:
    """An index over a GraphDef: nodes by name, inputs resolved, functions by name. The graph must not change meanwhile.

    Raises:
        ReadError: two nodes have one name, an input names no node, or nodes wait for each other in a circle that is no
            while loop: what TensorFlow refuses too.
    """

    def __init__(self, message: Message) -> None:
        self.message = message
        self.nodes: Sequence[Message] = list(message.node)
        self.functions: Mapping[str, Message] = {row.signature.name: row for row in message.library.function}
        self._names = [node.name for node in self.nodes]
        self._ops = [node.op for node in self.nodes]
        self._positions = {name: position for position, name in enumerate(self._names)}
        if len(self._positions) < len(self._names):
            twice = next(name for position, name in enumerate(self._names) if self._positions[name] != position)
            raise ReadError("two nodes have this name", where=twice)
        self._inputs = [self._resolved(position) for position in range(len(self.nodes))]
        self._ranks = self._ranked()
        self._bodies: dict[str, tuple[list[Placeholder], set[str]]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._positions

    def position(self, name: str) -> int:
        """Where in the file the node stands; :class:`~modelio.errors.ReadError` where there is none."""
        try:
            return self._positions[name]
        except KeyError:
            raise ReadError("no node of the graph has this name", where=name) from None

    def node(self, name: str) -> Message:
        """The NodeDef of that name; :class:`~modelio.errors.ReadError` where there is none."""
        return self.nodes[self.position(name)]

    def operation(self, node: Message) -> Operation:
        """What a node takes and gives; the graph's own functions come first, as in TensorFlow."""
        if node.op in self.functions:
            return Operation.of(self.functions[node.op].signature)
        return operations.operation_of(node)

    def placeholder(self, name: str) -> Placeholder | None:
        """The placeholder that this node is; None where it is something else."""
        position = self.position(name)
        return _placeholder(self.nodes[position], self._legacy) if self._ops[position] in PLACEHOLDERS else None

    def ends(self) -> list[TensorName]:
        """The tensors that a bare graph answers: the outputs of nodes that compute something and that nobody consumes.

        What a Saver leaves at its end, the name of the file that it wrote, is none.
        """
        found = []
        for position, inputs in enumerate(self._inputs):
            if not inputs or self._consumers[position] or self._ops[position] in PLACEHOLDERS:
                continue
            if not any(self._ops[source] in SAVERS for source, _ in inputs):
                name = self._names[position]
                found += [TensorName(name, port) for port in range(len(self.output_dtypes(name)))]
        return found

    def output_dtypes(self, name: str) -> tuple[str, ...]:
        """The dtype of each output of a node; one of unknown dtype where the op is nobody's."""
        node = self.node(name)
        try:
            return self.operation(node).output_dtypes(node.attr)
        except ReadError:
            return ("unknown",)

    def inputs(self, name: str) -> list[tuple[str, int]]:
        """What a node takes: (node, output) of each of its inputs; output -1 is a control input."""
        return [(self._names[source], port) for source, port in self._inputs[self.position(name)]]

    def requirements(self, fetches: Iterable[str], feeds: Iterable[str] = ()) -> Requirements:
        """See :func:`required_placeholders`."""
        asked = list(dict.fromkeys(fetches))
        fed: dict[tuple[int, int], str] = {}
        for feed in feeds:
            node, port = tensor_name(feed)
            position = self.position(node)
            fed[position, port] = feed
            if self._ops[position] in ("Placeholder", "PlaceholderV2"):
                fed[position, CONTROL] = feed  # a feed takes over a Placeholder's control outputs (subgraph.cc)
        wanted, used = self._walk(asked, fed)
        found: dict[Placeholder, int] = {}
        calls: dict[str, int] = {}
        for position, mask in enumerate(wanted):
            if not mask:
                continue
            if self._ops[position] in PLACEHOLDERS:
                found[_placeholder(self.nodes[position], self._legacy)] = mask
            for function in self._called(self.nodes[position]):
                calls[function] = calls.get(function, 0) | mask
        for placeholder, mask in self._buried(calls):
            found[placeholder] = found.get(placeholder, 0) | mask
        return Requirements(
            placeholders={placeholder: _chosen(asked, mask) for placeholder, mask in found.items()},
            feeds={feed: _chosen(asked, mask) for feed, mask in used.items()},
        )

    def _walk(self, fetches: Sequence[str], fed: Mapping[tuple[int, int], str]) -> tuple[list[int], dict[str, int]]:
        """For every node, and every feed, the set of fetches that need it: bit k stands for fetch k.

        Nodes are visited in reverse topological order, each once but for loops: many fetches cost little more than one.
        """
        wanted = [0] * len(self.nodes)
        used: dict[str, int] = {}
        waiting: list[tuple[int, int]] = []

        def want(position: int, port: int, mask: int) -> None:
            feed = fed.get((position, port))
            if feed is not None:
                used[feed] = used.get(feed, 0) | mask
            elif wanted[position] | mask != wanted[position]:
                wanted[position] |= mask
                heapq.heappush(waiting, (-self._ranks[position], position))

        for bit, fetch in enumerate(fetches):
            node, port = tensor_name(fetch)
            want(self.position(node), port, 1 << bit)
        done: dict[int, int] = {}
        while waiting:
            _, position = heapq.heappop(waiting)
            mask = wanted[position]
            if done.get(position) != mask:
                done[position] = mask
                for source, port in self._inputs[position]:
                    want(source, port, mask)
        return wanted, used

    def _resolved(self, position: int) -> list[tuple[int, int]]:
        """Each input as (position of its node, port)."""
        resolved = []
        for text in self.nodes[position].input:
            source = self._positions.get(text)
            if source is not None:  # "node", by far the commonest spelling
                resolved.append((source, 0))
                continue
            try:
                node, port = tensor_name(text)
                resolved.append((self._positions[node], port))
            except (KeyError, ReadError):
                raise ReadError(
                    f"its input {text!r} names no node of this graph: a part of the graph is missing",
                    where=self._names[position],
                ) from None
        return resolved

    def _ranked(self) -> list[int]:
        """Each node's place in topological order."""
        waits = [len(inputs) for inputs in self._inputs]
        for position, inputs in enumerate(self._inputs):
            waits[position] -= sum(self._ops[source] in LOOPS for source, _ in inputs)
        ready = [position for position, count in enumerate(waits) if not count]
        ranks = [0] * len(self.nodes)
        for rank, position in enumerate(ready):  # grows while it is walked
            ranks[position] = rank
            if self._ops[position] not in LOOPS:
                for consumer in self._consumers[position]:
                    waits[consumer] -= 1
                    if not waits[consumer]:
                        ready.append(consumer)
        if len(ready) < len(self.nodes):
            raise ReadError(
                "this node waits for itself, in a circle of nodes that is no while loop",
                where=self._names[self._in_circle(waits)],
            )
        return ranks

    def _in_circle(self, waits: Sequence[int]) -> int:
        """A node on a circle: going back over inputs that still wait must come round."""
        position = next(position for position, count in enumerate(waits) if count > 0)
        seen: set[int] = set()
        while position not in seen:
            seen.add(position)
            position = next(
                source for source, _ in self._inputs[position] if waits[source] > 0 and self._ops[source] not in LOOPS
            )
        return position

    @functools.cached_property
    def _consumers(self) -> list[list[int]]:
        """For every node, the nodes that take something from it, once for each input."""
        consumers: list[list[int]] = [[] for _ in self.nodes]
        for position, inputs in enumerate(self._inputs):
            for source, _ in inputs:
                consumers[source].append(position)
        return consumers

    @functools.cached_property
    def _legacy(self) -> bool:
        return int(self.message.versions.producer) <= AMBIGUOUS_SCALAR

    def _called(self, node: Message) -> Iterator[str]:
        """The functions that a node calls, or may call."""
        if node.op in self.functions:
            yield node.op
        for attribute in _function_attributes(node.op) if operations.op(node.op) else node.attr:
            value = node.attr.get(attribute)
            for function in () if value is None else (value.func, *value.list.func):
                if function.name in self.functions:
                    yield function.name
                elif function.name and operations.op(function.name) is None:
                    raise ReadError(f"it calls the function {function.name!r}, which is not there", where=node.name)

    def _buried(self, calls: Mapping[str, int]) -> Iterator[tuple[Placeholder, int]]:
        """The placeholders that run inside these functions and those they call, each with the fetches that need it.

        Recursion is no trouble: a function is looked at again only for fetches that had not come to it before.
        """
        wanted = dict(calls)
        waiting = list(wanted)
        while waiting:
            name = waiting.pop()
            if name not in self._bodies:
                self._bodies[name] = self._body(name)
            for called in self._bodies[name][1]:
                mask = wanted.get(called, 0) | wanted[name]
                if mask != wanted.get(called, 0):
                    wanted[called] = mask
                    waiting.append(called)
        for name, mask in wanted.items():
            for placeholder in self._bodies[name][0]:
                yield placeholder, mask

    def _body(self, name: str) -> tuple[list[Placeholder], set[str]]:
        """The Placeholders that a call of this function runs, and the functions that it calls.

        What runs is what the results and control results depend on, and whatever has side effects
        (``PruneFunctionGraph`` in core/common_runtime/function_body.cc).
        """
        definition = self.functions[name]
        nodes = {node.name: node for node in definition.node_def}
        arguments = {argument.name for argument in definition.signature.input_arg}
        waiting = [target.partition(":")[0] for target in definition.ret.values()]
        waiting += definition.control_ret.values()
        waiting += [node.name for node in definition.node_def if self._is_stateful(node)]
        placeholders = []
        called: set[str] = set()
        seen: set[str] = set()
        while waiting:
            current = waiting.pop()
            if current in seen or current in arguments:
                continue
            seen.add(current)
            if current not in nodes:
                raise ReadError(f"the function names {current!r}, which is none of its nodes", where=name)
            node = nodes[current]
            if PLACEHOLDERS.get(node.op):
                placeholders.append(_placeholder(node, self._legacy, function=name))
            called.update(self._called(node))
            waiting.extend(text.removeprefix("^").partition(":")[0] for text in node.input)
        return placeholders, called

    def _is_stateful(self, node: Message) -> bool:
        if node.op in self.functions:
            return bool(self.functions[node.op].signature.is_stateful)
        known = operations.op(node.op)
        return known is not None and known.stateful


def required_placeholders(graph: Graph, fetches: Iterable[str], feeds: Iterable[str] = ()) -> Requirements:
    """What must and what may be fed so that the graph answers ``fetches``.

    Args:
        graph: the index over a GraphDef.
        fetches: tensors, ``"node:0"``, or nodes.
        feeds: tensors that the caller feeds anyway. They need not be placeholders; what lies behind them is not needed.

    Raises:
        ReadError: a fetch or a feed names no node, or a function is missing.
    """
    return graph.requirements(fetches, feeds)


def signature_of(graph: Graph) -> Signature:
    """The signature of a bare graph: its ends, and every placeholder that they can be made from.

    Inputs are named after their nodes, outputs too, with ``:k`` from the second output of a node on.
    """
    ends = graph.ends()
    needed = required_placeholders(graph, [f"{node}:{port}" for node, port in ends]).placeholders
    return Signature(
        inputs={
            placeholder.name: TensorSpec(f"{placeholder.name}:0", placeholder.dtype, placeholder.shape)
            for placeholder in needed
            if placeholder.function is None
        },
        outputs={
            f"{node}:{port}" if port else node: TensorSpec(
                f"{node}:{port}", graph.output_dtypes(node)[port].removesuffix("_ref"), None
            )
            for node, port in ends
        },
    )


def role_of(node: Message) -> str | None:
    """What a placeholder is for, where that is certain: ``"learning_phase"`` switches Keras to training or inference.

    Keras names it ``keras_learning_phase``, in whatever scope is open when a layer first asks for it, and TensorFlow
    numbers names that are taken. It is uint8 in Keras 1.0, bool since (``learning_phase`` in
    keras/backend/tensorflow_backend.py).
    """
    named = re.search(r"(?:^|/)keras_learning_phase(?:_\d+)?$", node.name)
    return "learning_phase" if named and operations.output_dtypes(node)[0] in _SWITCHES else None


def _placeholder(node: Message, legacy: bool, function: str | None = None) -> Placeholder:
    has_default = not PLACEHOLDERS[node.op]
    shape = operations.attribute_value(node, "shape") if "shape" in node.attr else None
    if legacy and not has_default and shape == ():
        shape = None
    return Placeholder(
        name=f"{function}/{node.name}" if function else node.name,
        dtype=operations.output_dtypes(node)[0],
        shape=shape,
        has_default=has_default,
        role=role_of(node),
        function=function,
    )


@functools.cache
def _function_attributes(op_name: str) -> tuple[str, ...]:
    """The attributes of an op that name functions."""
    known = operations.op(op_name)
    return () if known is None else tuple(key for key, row in known.attrs.items() if row.type in ("func", "list(func)"))


def _chosen(fetches: Sequence[str], mask: int) -> tuple[str, ...]:
    return tuple(fetch for bit, fetch in enumerate(fetches) if mask >> bit & 1)
