"""Nodes that see each other: those of a graph, or those of one function, with their inputs spelled alike.

A GraphDef says ``node:1`` where a FunctionDef says ``node:output_false:0``, and in a function an argument is named as a
node is. Here everything is spelled as in a GraphDef, an argument like the only output of a node of its name, so that
surgery is written once::

    FunctionDef        ret {y: "Switch:output_true:0"}    node_def Switch(data, pred:output:0, ^NoOp)
    Body               outputs ["Switch:1"]               Switch(data, pred, ^NoOp)

A body is a copy: it may be changed at will, and becomes a function again by :meth:`Library.define`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from modelio.errors import ReadError
from modelio.graph.operations import Operation, op
from modelio.graph.references import node_of
from modelio.model import Message
from modelio.wire import messages

__all__ = ["LOOPS", "Body", "Library", "called", "copied", "drop_idle_controls", "has_side_effects", "port_of"]

LOOPS = frozenset({"NextIteration", "RefNextIteration"})
"""Where a loop of TensorFlow 1 goes back to its Merge: the one cycle that nodes may form."""

_FLOW = frozenset(
    f"{kind}{name}" for kind in ("", "Ref") for name in ("Switch", "Merge", "Enter", "Exit", "NextIteration")
) | {"LoopCond"}
"""Ops that decide whether a node runs, and how often: waiting for one of them means something."""


def port_of(text: str) -> int:
    """Which of that node's outputs; -1 for a control input.

    >>> port_of("a/b"), port_of("a/b:1"), port_of("^a/b")
    (0, 1, -1)
    """
    if text.startswith("^"):
        return -1
    port = text.partition(":")[2]
    if port and not (port.isascii() and port.isdecimal() and len(port) < 10):
        raise ReadError(f"{text!r} is no tensor's name: a node and the number of its output are wanted, node:0")
    return int(port or 0)


def called(node: Message) -> Iterator[Message]:
    """The functions that the attributes of a node name, each a NameAttrList."""
    for key in _function_attributes(node.op) or node.attr:
        if key in node.attr:
            value = node.attr[key]
            kind = value.WhichOneof("value")
            if kind == "func":
                yield value.func
            elif kind == "list":
                yield from value.list.func


@functools.cache
def _function_attributes(operation: str) -> tuple[str, ...]:
    """The attributes of an op that name functions; none of a function's own, whose attributes may be anything."""
    known = op(operation)
    if known is None:
        return ()
    return tuple(key for key, row in known.attrs.items() if row.type in ("func", "list(func)")) or ("",)


def copied(node: Message) -> Message:
    """A NodeDef of its own."""
    copy = messages.NodeDef()
    copy.CopyFrom(node)
    return copy


@dataclass
class Body:
    """Nodes by name, in the order of the file.

    ``function`` is the name of the function, ``""`` for the graph itself; ``arguments`` are its arguments, ``outputs``
    the tensors that are asked for: a function's results in order, a graph's signatures; ``ends`` the nodes that a
    function also runs, for their side effects (``control_ret``).
    """

    function: str = ""
    nodes: dict[str, Message] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    outputs: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, graph: Message, outputs: Iterable[str], *, whole: bool = False) -> Body:
        """What the outputs of a graph need; the other nodes are neither copied nor looked at, unless ``whole``.

        Raises:
            ReadError: an input names a node that is not there, or two nodes have one name.
        """
        originals = {node.name: node for node in graph.node}
        body = cls(outputs=[text.removesuffix(":0") for text in outputs])
        reached = body.reached(originals, everything=whole)
        if len(originals) < len(graph.node):
            seen: set[str] = set()
            for node in graph.node:
                if node.name in seen and node.name in reached:
                    raise ReadError("two nodes have this name", where=node.name)
                seen.add(node.name)
        for name, node in originals.items():
            if name in reached:
                body.nodes[name] = copied(node)
                body.nodes[name].input[:] = [text.removesuffix(":0") for text in node.input]
        return body

    def place(self, name: str) -> str:
        """Where in the file a node is, for people."""
        return f"{self.function}/{name}" if self.function else name

    def reached(self, nodes: Mapping[str, Message] | None = None, *, everything: bool = False) -> set[str]:
        """The nodes that the outputs need, by data and by control; all of them where ``everything`` is asked for.

        Raises:
            ReadError: an input names a node that is not there.
        """
        nodes = self.nodes if nodes is None else nodes
        arguments = set(self.arguments)
        waiting = [(text, "") for text in [*self.outputs, *(nodes if everything else ())]]
        reached: set[str] = set()
        while waiting:
            text, consumer = waiting.pop()
            name = node_of(text)
            if name in reached or name in arguments:
                continue
            if name not in nodes:
                raise ReadError(
                    f"its input {text!r} names a node that is not there: a part of the graph is missing"
                    if consumer
                    else f"{text!r} is to be answered, and there is no such node",
                    where=self.place(consumer) if consumer else self.function or name,
                )
            reached.add(name)
            waiting += [(text, name) for text in nodes[name].input]
        return reached

    def prune(self) -> None:
        """Keep only what the outputs need."""
        reached = self.reached()
        self.nodes = {name: node for name, node in self.nodes.items() if name in reached}
        self.ends = [name for name in self.ends if name in reached]

    def ordered(self) -> list[Message]:
        """The nodes, each after those that it takes something from, but for the loops of TensorFlow 1.

        Raises:
            ReadError: a node waits for itself.
        """
        waits: dict[str, int] = {}
        consumers: dict[str, list[str]] = {}
        for name, node in self.nodes.items():
            sources = [node_of(text) for text in node.input]
            sources = [one for one in sources if one in self.nodes and self.nodes[one].op not in LOOPS]
            waits[name] = len(sources)
            for source in sources:
                consumers.setdefault(source, []).append(name)
        ready = [name for name, count in waits.items() if not count]
        for name in ready:  # grows while it is walked
            for consumer in consumers.get(name, ()):
                waits[consumer] -= 1
                if not waits[consumer]:
                    ready.append(consumer)
        if len(ready) < len(self.nodes):
            raise ReadError(
                "this node waits for itself, in a circle of nodes that is no while loop",
                where=self.place(_on_circle(self.nodes, waits)),
            )
        return [self.nodes[name] for name in ready]


def _on_circle(nodes: Mapping[str, Message], waits: Mapping[str, int]) -> str:
    """Going back over what still waits must come round."""
    name = next(name for name, count in waits.items() if count)
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        sources = [node_of(text) for text in nodes[name].input]
        name = next(one for one in sources if waits.get(one) and nodes[one].op not in LOOPS)
    return name


def has_side_effects(node: Message) -> bool:
    """Does it matter whether and when this node runs, beside what it computes?"""
    known = op(node.op)
    return known is None or known.stateful or node.op in _FLOW


def drop_idle_controls(
    body: Body, matters: Callable[[Message], bool] = has_side_effects, order: Iterable[Message] | None = None
) -> None:
    """Take away control inputs from nodes behind which nothing has a side effect: waiting for them has none either.

    ``order`` is that of :meth:`Body.ordered`, where it is known.
    """
    idle: set[str] = set(body.arguments)
    for node in body.ordered() if order is None else order:
        if not matters(node) and all(node_of(text) in idle for text in node.input):
            idle.add(node.name)
    for node in body.nodes.values():
        kept = [text for text in node.input if not (text.startswith("^") and text[1:] in idle)]
        if len(kept) < len(node.input):
            node.input[:] = kept


class Library:
    """The functions of a graph.

    >>> Library(messages.GraphDef()).functions
    {}
    """

    def __init__(self, graph: Message) -> None:
        self.functions: dict[str, Message] = {row.signature.name: row for row in graph.library.function}
        self._operations: dict[str, Operation] = {}
        self._single: dict[str, Mapping[str, range]] = {}  # ops whose outputs are one tensor each, as most are

    def __contains__(self, name: object) -> bool:
        return name in self.functions

    def operation(self, node: Message) -> Operation | None:
        """What a node takes and gives; None where it is neither an op of TensorFlow's nor a function of this graph."""
        if node.op in self.functions:
            if node.op not in self._operations:
                self._operations[node.op] = Operation.of(self.functions[node.op].signature)
            return self._operations[node.op]
        return op(node.op)

    def _outputs(self, node: Message, place: str) -> Mapping[str, range] | None:
        """The numbers of the tensors of each output of a node, by the op's name for it; None where nobody knows."""
        if node.op in self._single:
            return self._single[node.op]
        operation = self.operation(node)
        if operation is None:
            return None
        found, start = {}, 0
        try:
            for argument in operation.outputs:
                count = operation.count(argument, node.attr)
                found[argument.name] = range(start, start + count)
                start += count
        except ReadError as error:
            error.where = place
            raise
        if not any(argument.number_attr or argument.type_list_attr for argument in operation.outputs):
            self._single[node.op] = found
        return found

    def body(self, name: str, caller: str) -> Body:
        """The body of a function; ``caller`` is the place that names it.

        Raises:
            ReadError: there is no such function, or it names nodes and outputs that are not there.
        """
        if name not in self.functions:
            raise ReadError(f"it calls the function {name!r}, which is not there", where=caller)
        definition = self.functions[name]
        arguments = tuple(argument.name for argument in definition.signature.input_arg)
        originals = {node.name: node for node in definition.node_def}
        known = set(arguments)
        body = Body(name, arguments=arguments)
        if len(originals) < len(definition.node_def) or not known.isdisjoint(originals):
            raise ReadError("two of its nodes and arguments have one name", where=name)

        outputs: dict[str, Mapping[str, range] | None] = {}

        def flat(text: str, consumer: str) -> str:
            source, *rest = text.removeprefix("^").split(":")
            if source in known or (source in originals and len(rest) < 2):
                return text.removesuffix(":0")
            if source in originals and source not in outputs:
                outputs[source] = self._outputs(originals[source], f"{name}/{source}")
            ports = outputs.get(source, {})
            if ports is None:
                return text  # an op of somebody else's: what its outputs are called is known only there
            places = ports.get(rest[0], range(0)) if rest else range(0)
            if len(rest) != 2 or not (rest[1].isdecimal() and len(rest[1]) < 10 and int(rest[1]) < len(places)):
                raise ReadError(f"its input {text!r} names no tensor of this function", where=f"{name}/{consumer}")
            port = places[int(rest[1])]
            return f"{source}:{port}" if port else source

        for node_name, node in originals.items():
            body.nodes[node_name] = copied(node)
            body.nodes[node_name].input[:] = [flat(text, node_name) for text in node.input]
        for argument in definition.signature.output_arg:
            if argument.name not in definition.ret:
                raise ReadError(f"it does not say what its output {argument.name!r} is", where=name)
            body.outputs.append(flat(definition.ret[argument.name], argument.name))
        body.ends = [end for _, end in sorted(definition.control_ret.items())]
        missing = [end for end in body.ends if end not in originals]
        if missing:
            raise ReadError(f"it names {missing[0]!r}, which is none of its nodes", where=name)
        return body

    def define(self, body: Body, original: Message) -> Message:
        """The function of a body, with all else as in ``original``."""
        made = messages.FunctionDef()
        made.signature.CopyFrom(original.signature)
        made.signature.name = body.function
        for key, value in original.attr.items():
            made.attr[key].CopyFrom(value)
        for index, attributes in original.arg_attr.items():
            made.arg_attr[index].CopyFrom(attributes)
        for index, number in original.resource_arg_unique_id.items():
            made.resource_arg_unique_id[index] = number
        known = set(body.arguments)
        outputs: dict[str, Mapping[str, range] | None] = {}

        def spelled(text: str) -> str:
            name, port = node_of(text), port_of(text)
            if port < 0 or name in known or text.count(":") > 1:
                return text
            if name not in outputs:
                outputs[name] = self._outputs(body.nodes[name], body.place(name))
            ports = outputs[name]
            if ports is None:
                return text
            for output, places in ports.items():
                if port in places:
                    return f"{name}:{output}:{port - places.start}"
            raise ReadError(f"the op {body.nodes[name].op} has no output {port}", where=body.place(name))

        for node in body.nodes.values():
            copy = made.node_def.add()
            copy.CopyFrom(node)
            copy.input[:] = [spelled(text) for text in node.input]
        for argument, text in zip(made.signature.output_arg, body.outputs, strict=True):
            made.ret[argument.name] = spelled(text)
        del made.signature.control_output[:]
        for end in body.ends:
            made.control_ret[end] = end
            made.signature.control_output.append(end)
        return made
