"""One run over the nodes of a graph or a function: what is constant, what is dead, and what becomes of each node.

::

    x, p = Const(false)
    s = Switch(x, p)                s:1 is dead, s:0 is x
    a = Neg(s:1)                    dead
    b = Neg(s:0)                    Neg(x)
    m = Merge(b, a)                 b; m:1 is the constant 0

A dead node kills what depends on it, over data and control inputs alike, all but a Merge (``ExecutorState::
PropagateOutputs`` in core/common_runtime/executor.cc); so no node below a branch that is never taken is left. Where an
edge goes away, the order that it stood for may not: a node that is folded goes on waiting for what its inputs waited
for, unless that is without side effects and sure to run. Inside of loops nothing becomes a constant, since a node that
has no inputs belongs to no loop, but branches are decided there too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError, ReadError
from modelio.graph.bodies import Body, Library, port_of
from modelio.graph.names import VARIABLES
from modelio.graph.references import node_of
from modelio.graph.surgery.edit import forget_places
from modelio.graph.surgery.evaluation import LARGEST, OF_SHAPES, Large, Value, evaluate, is_true
from modelio.graph.surgery.inlining import CALLS
from modelio.model import Message
from modelio.wire import dtypes, messages

__all__ = ["Array", "Functions", "Propagation", "const"]

_CONSTANTS = ("Const", "HostConst")
_SWITCHES = {"Switch": "Identity", "RefSwitch": "RefIdentity"}
_MERGES = {"Merge": "Identity", "RefMerge": "RefIdentity"}
_ENTERS = ("Enter", "RefEnter")
_EXITS = ("Exit", "RefExit")

_BRANCHES: Mapping[str, tuple[str, tuple[str, str] | None]] = {
    "If": ("StatefulPartitionedCall", ("else_branch", "then_branch")),
    "StatelessIf": ("PartitionedCall", ("else_branch", "then_branch")),
    "Case": ("StatefulPartitionedCall", None),
    "StatelessCase": ("PartitionedCall", None),
}
"""TensorFlow 2's conditionals: what calls the branch that is left, and where a flag finds it (a number: in a list)."""

_PASSED_ON = ("Identity", "Snapshot", "StopGradient", "PreventGradient")

_NEUTRAL = {"LogicalAnd": True, "LogicalOr": False}
"""What says nothing beside another flag."""

_READS = frozenset({*VARIABLES, "ReadVariableOp", "VarIsInitializedOp", "Placeholder", "PlaceholderV2"})
"""Ops that are stateful in the registry, and change no state."""

_SMALL = 1 << 12
"""Bytes up to which a value may be larger than what it is computed from."""

_BUDGET = 1 << 26
"""Bytes of all values that are computed: a small file must not grow into a large one."""

Array = npt.NDArray[Any]


class Functions(Protocol):
    """What the runs over a graph and its functions share."""

    library: Library
    spent: int
    """Bytes of the values that were computed so far."""

    def specialized(self, name: str, given: Mapping[int, Array], depth: int, caller: str) -> str | None:
        """The name of a function that has these of its arguments built in; None where that would decide nothing."""


@dataclass
class State:
    """What is known of a node.

    ``dead``: it never runs, or only these outputs are never there. ``alias``: what stands for an output now.
    ``certain``: it runs whenever it is asked for, whatever is fed. ``pure``: neither it nor what it needs has side
    effects. ``bound``: it follows from what was bound. ``fresh``: something that it needs was changed. ``frame``: the
    loops around it. ``stands``: another node may wait for it by name. ``behind``: what must be waited for where an edge
    from this node goes away.
    """

    dead: bool = False
    dead_ports: frozenset[int] = frozenset()
    alias: dict[int, str] = field(default_factory=dict)
    values: dict[int, Value] = field(default_factory=dict)
    certain: bool = True
    pure: bool = True
    bound: bool = False
    fresh: bool = False
    frame: tuple[str, ...] = ()
    stands: bool = True
    behind: tuple[str, ...] = ()


class Propagation:
    """One run over a body, each node after its inputs."""

    def __init__(
        self, functions: Functions, body: Body, keep: Collection[str], bound: Iterable[str], depth: int = 0
    ) -> None:
        self.functions = functions
        self.body = body
        self.nodes = body.nodes
        self.keep = frozenset(map(node_of, keep))
        self.bound = frozenset(bound)
        self.depth = depth
        self.computed = self.decided = 0
        self.states: dict[str, State] = {
            name: State(certain=True, pure=True, behind=(), stands=False) for name in body.arguments
        }
        texts = [text for node in self.nodes.values() for text in node.input]
        self._consumed = {node_of(text) for text in texts}
        self._used = {text for text in (*texts, *body.outputs, *keep) if ":" in text}
        self._taken = {name.lower() for node in (*self.nodes, *body.arguments) for name in _scopes(node)}
        self._ways_back: list[str] = []

    def run(self) -> None:
        for node in self.body.ordered():
            self.states[node.name] = self._visit(node)
        for name in self._ways_back:
            texts = self.nodes[name].input
            if not self.states[name].dead and any(self.states[node_of(text)].dead for text in texts):
                raise ConversionError("the way back of this loop lies on a branch that is never taken", where=name)

    # ------------------------------------------------------------------------------------------------ one node

    def _visit(self, node: Message) -> State:
        data, waits, dead = self._inputs(node)
        if node.op in _MERGES:
            return self._merge(node, data, waits)
        live = [text for text in data if text is not None]
        if dead or len(live) < len(data):
            return State(dead=True, stands=False)
        values = [self.value(text) for text in live]
        if node.op in _SWITCHES and len(live) == 2 and _is_flag(values[1]):
            return self._decided_switch(node, live, waits, bool(values[1]))
        if node.op in _BRANCHES and values and isinstance(values[0], np.ndarray):
            call = self._branch(node, values[0], live, waits)
            if call is not None:
                return self._called(node, call)
        if node.op in _NEUTRAL and len(live) == 2:
            other = self._not_neutral(node, live, values)
            if other is not None:
                self.computed += 1
                behind = self._behind([*(node_of(text) for text in live if text != other), *waits])
                return self._handed_on(node, "Identity", other, behind, 0)
        state = self._ordinary(node, live, waits)
        if state.bound:
            live = self._into_call(node, live, values)
        made = self._computed(node, values, state)
        if made and not state.frame:
            return self._folded(node, made, live, waits)
        _rewire(node, live, waits, state)
        if node.op in _CONSTANTS:
            state.behind = self._behind(waits)
        return state

    def _inputs(self, node: Message) -> tuple[list[str | None], list[str], bool]:
        """What it takes now, None for what is dead; what it waits for; and whether it waits for something dead."""
        data: list[str | None] = []
        waits: dict[str, None] = {}
        dead = False
        for text in node.input:
            state = self.states.get(node_of(text))  # None: the way back of a loop, not visited yet
            if text.startswith("^"):
                name = text[1:]
                dead = dead or (state is not None and state.dead)
                waits.update(dict.fromkeys([name] if state is None or state.stands else state.behind))
            elif state is None:
                data.append(text)
            else:
                port = _port(text)
                data.append(None if state.dead or port in state.dead_ports else state.alias.get(port, text))
        return data, list(waits), dead

    def _ordinary(self, node: Message, data: Sequence[str], waits: Sequence[str]) -> State:
        """The state of a node that stays what it is."""
        names = [*map(node_of, data), *waits]
        sources = [self.states[name] for name in names if name in self.states]
        frame = max((source.frame for source in sources), key=len, default=())
        if node.op in _ENTERS:
            frame = (*frame, node.attr["frame_name"].s.decode("utf-8", "replace"))
        elif node.op in _EXITS:
            frame = frame[:-1]
        certain = all(source.certain for source in sources) and node.op not in _SWITCHES
        pure = all(source.pure for source in sources) and self._is_pure(node)
        return State(
            certain=certain,
            pure=pure,
            bound=node.name in self.bound or any(source.bound for source in sources),
            fresh=any(source.fresh for source in sources),
            frame=frame,
            behind=() if certain and pure and not frame else (node.name,),
        )

    def _is_pure(self, node: Message) -> bool:
        if node.op in _READS:
            return True
        operation = self.functions.library.operation(node)
        return operation is not None and not operation.stateful

    def _computed(self, node: Message, values: Sequence[Value | None], state: State) -> list[Array] | None:
        """The outputs of a node as arrays, which its state then knows, too."""
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        if node.op in _ENTERS or (node.op in _PASSED_ON and isinstance(known[0], Large)):
            if node.op in _PASSED_ON or node.attr["is_constant"].b:
                state.values[0] = known[0]
            return None
        operation = self.functions.library.operation(node)
        if operation is None or operation.stateful or self.functions.spent > _BUDGET:
            return None
        if not state.bound and node.op not in OF_SHAPES and any(map(_is_weight, known)):
            return None
        made = evaluate(node, operation, known)
        if not made or sum(array.nbytes for array in made) > max(_SMALL, *map(_nbytes, known)):
            return None
        self.functions.spent += sum(array.nbytes for array in made)
        state.values = dict(enumerate(made))
        return made

    def _folded(self, node: Message, made: Sequence[Array], data: Sequence[str], waits: Sequence[str]) -> State:
        """The node as a Const, and one more for each further output that is used."""
        state = self._ordinary(node, data, waits)
        state.stands, state.fresh, state.behind = False, True, self._behind([*map(node_of, data), *waits])
        state.values = dict(enumerate(made))
        self.computed += 1
        self.nodes[node.name] = const(node.name, made[0], state.behind, node.device)
        for port, array in enumerate(made[1:], 1):
            if f"{node.name}:{port}" in self._used:
                extra = const(f"{node.name}/output_{port}", array, state.behind, node.device)
                state.alias[port] = self._add(extra, state)
        return state

    # ------------------------------------------------------------------------------------------------ branches

    def _decided_switch(self, node: Message, data: Sequence[str], waits: Sequence[str], flag: bool) -> State:
        frame = self._ordinary(node, data, waits).frame
        dropped = [name for name in (node_of(data[1]), *waits) if not self._runs_with(name, frame)]
        self.decided += 1
        state = self._handed_on(node, _SWITCHES[node.op], data[0], self._behind(dropped), int(flag))
        return replace(state, dead_ports=frozenset({1 - int(flag)}))

    def _merge(self, node: Message, data: Sequence[str | None], waits: Sequence[str]) -> State:
        alive = [index for index, text in enumerate(data) if text is not None]
        live = [text for text in data if text is not None]
        entries = [text for text in live if node_of(text) in self.states]
        if not entries:  # there is at most the way back of a loop that is never entered
            return State(dead=True, stands=False)
        if len(entries) < len(live):
            self._ways_back.append(node.name)
        if len(entries) < len(live) or len(live) == len(data) > 1:
            state = replace(self._ordinary(node, entries, waits), certain=False, behind=(node.name,))
            _rewire(node, live, waits, state)
            return state
        if len(live) > 1:
            return self._smaller_merge(node, live, alive, waits)
        self.decided += 1
        state = self._handed_on(node, _MERGES[node.op], live[0], self._behind(waits), 0)
        index = np.array(alive[0], np.int32)
        if f"{node.name}:1" in self._used:
            inside = (node_of(live[0]),) if state.frame or not state.certain else state.behind
            state.alias[1] = self._add(const(f"{node.name}/value_index", index, inside, node.device), state)
        state.values[1] = index
        return state

    def _smaller_merge(self, node: Message, live: Sequence[str], alive: Sequence[int], waits: Sequence[str]) -> State:
        """A Merge of the inputs that are alive; its ``value_index`` still counts all of them."""
        state = replace(self._ordinary(node, live, waits), certain=False, behind=(node.name,))
        _rewire(node, live, waits, state)
        node.attr["N"].i = len(live)
        self.decided += 1
        if f"{node.name}:1" in self._used:
            table = const(f"{node.name}/positions", np.array(alive, np.int32), (node.name,), node.device)
            gather = messages.NodeDef(name=f"{node.name}/value_index", op="Gather", device=node.device)
            gather.input.extend([self._add(table, state), f"{node.name}:1"])
            for key in ("Tparams", "Tindices"):
                gather.attr[key].type = messages.DataType.DT_INT32
            state.alias[1] = self._add(gather, state)
        return state

    def _handed_on(self, node: Message, op: str, source: str, waits: tuple[str, ...], port: int) -> State:
        """A node whose output ``port`` is ``source``: an Identity, which consumers pass by if nothing waits there."""
        identity = messages.NodeDef(name=node.name, op=op, device=node.device)
        identity.input.extend([source, *(f"^{name}" for name in waits)])
        if "T" in node.attr:
            identity.attr["T"].CopyFrom(node.attr["T"])
        else:
            identity.attr["T"].type = messages.DataType.DT_BOOL
        state = replace(self._ordinary(identity, [source], waits), fresh=True)
        self.nodes[node.name] = identity
        if waits:
            state.alias = {port: node.name}
        else:
            state.alias = {port: source}
            state.stands, state.behind = False, self._behind([node_of(source)])
        value = self.value(source)
        if value is not None:
            state.values[0] = state.values[port] = value
        return state

    def _branch(self, node: Message, condition: Array, data: Sequence[str], waits: Sequence[str]) -> Message | None:
        """The call of the branch of a conditional that is left; None where the condition is not one for this op."""
        op, flags = _BRANCHES[node.op]
        if flags is not None:
            function = node.attr[flags[is_true(condition)]].func
        else:
            branches = node.attr["branches"].list.func
            if condition.ndim or condition.dtype.kind not in "iu" or not branches:
                return None
            index = int(condition)
            function = branches[index if 0 <= index < len(branches) else -1]
        # Grappler names what it inlines after the call, and stops the process where such a name is taken.
        call = messages.NodeDef(name=f"{node.name}/taken", op=op, device=node.device)
        for key in ("Tin", "Tout"):
            call.attr[key].CopyFrom(node.attr[key])
        call.attr["f"].func.CopyFrom(function)
        call.input.extend(data[1:])
        order = dict.fromkeys([*waits, *self._behind([node_of(data[0])])])
        call.input.extend(f"^{name}" for name in order)
        return call

    def _called(self, node: Message, call: Message) -> State:
        """What stands for a conditional that became a call."""
        self.decided += 1
        self._name(call)
        if node.name in self.bound or self.states[node_of(node.input[0])].bound:
            self.bound |= {call.name}
        state = self.states[call.name] = replace(self._visit(call), fresh=True)
        count = len(call.attr["Tout"].list.type)
        hold = messages.NodeDef(name=node.name, op="Identity" if count else "NoOp", device=node.device)
        hold.input.append(call.name if count else f"^{call.name}")
        if count:
            hold.attr["T"].type = call.attr["Tout"].list.type[0]
        self.nodes[node.name] = hold
        alias = {port: f"{call.name}:{port}" if port else call.name for port in range(count)}
        return replace(state, alias=alias, values={}, stands=False, behind=self._behind([call.name]))

    def _not_neutral(self, node: Message, data: Sequence[str], values: Sequence[Value | None]) -> str | None:
        """The one input that a logical op hands on, since the other says nothing."""
        for text, value in zip(data, reversed(values), strict=True):
            if isinstance(value, np.ndarray) and not value.ndim and bool(value) is _NEUTRAL[node.op]:
                return text
        return None

    def _into_call(self, node: Message, data: list[str], values: Sequence[Value | None]) -> list[str]:
        """Let a call have a function of its own, where an argument that is known decides something in it."""
        library = self.functions.library
        name = node.op if node.op in library else node.attr["f"].func.name if node.op in CALLS else ""
        given = {
            index: value
            for index, value in enumerate(values)
            if isinstance(value, np.ndarray) and (state := self.states.get(node_of(data[index]))) and state.bound
        }
        if name not in library or not given or len(library.functions[name].signature.input_arg) != len(data):
            return data
        if node.op in CALLS and node.attr["f"].func.attr:
            return data
        own = self.functions.specialized(name, given, self.depth + 1, self.body.place(node.name))
        if own is None:
            return data
        self.decided += 1
        if node.op in CALLS:
            node.attr["f"].func.name = own
            types = list(node.attr["Tin"].list.type)
            node.attr["Tin"].list.type[:] = [dtype for index, dtype in enumerate(types) if index not in given]
        else:
            node.op = own
        return [text for index, text in enumerate(data) if index not in given]

    # ------------------------------------------------------------------------------------------------- helpers

    def value(self, text: str) -> Value | None:
        """The constant that a tensor is; None where it is none."""
        state = self.states.get(node_of(text))
        if state is None:
            return None
        port, node = _port(text), self.nodes.get(node_of(text))
        if port == 0 and not state.values and node is not None and node.op in _CONSTANTS:
            found = _value_of(node)
            if found is not None:
                state.values[0] = found
        return state.values.get(port)

    def is_dead(self, text: str) -> bool:
        state = self.states.get(node_of(text))
        return state is not None and (state.dead or (not text.startswith("^") and _port(text) in state.dead_ports))

    def now(self, text: str) -> str:
        """What stands for a tensor; the node that was known by a name goes on being known by it."""
        state, port = self.states.get(node_of(text)), _port(text)
        if state is None or port not in state.alias:
            return text
        return text if port == 0 and node_of(text) in self.keep else state.alias[port]

    def _behind(self, names: Iterable[str]) -> tuple[str, ...]:
        """What has to be waited for where these are not taken any longer."""
        found: dict[str, None] = {}
        for name in names:
            state = self.states.get(name)
            found.update(dict.fromkeys(state.behind if state is not None else (name,)))
        return tuple(found)

    def _runs_with(self, name: str, frame: tuple[str, ...]) -> bool:
        """Is it in the same loop, sure to run, and without side effects?"""
        state = self.states.get(name)
        return state is not None and state.certain and state.pure and state.frame == frame

    def _add(self, node: Message, beside: State) -> str:
        """Add a node that runs where another does; its name."""
        self._name(node)
        self.states[node.name] = replace(beside, dead_ports=frozenset(), alias={}, values={}, stands=True)
        return str(node.name)

    def _name(self, node: Message) -> None:
        """Give a new node a name that is free, as a scope too."""
        name, count = node.name, 0
        while node.name.lower() in self._taken:
            count += 1
            node.name = f"{name}_{count}"
        self._taken.add(node.name.lower())
        self.nodes[node.name] = node

    # ------------------------------------------------------------------------------------------------ the result

    def clear(self) -> set[str]:
        """Take out what is dead and what nothing consumes any longer; the names of what went."""
        gone = {name for name, state in self.states.items() if state.dead}
        gone |= self._forsaken(gone)
        self.body.nodes = self.nodes = {name: node for name, node in self.nodes.items() if name not in gone}
        for node in self.nodes.values():
            forget_places(node, gone)
        return gone

    def _forsaken(self, dead: set[str]) -> set[str]:
        """Nodes that were consumed and are not any longer, and so on back; those that the outside knows stay, and in a
        function those that have effects.
        """
        alive = [node for name, node in self.nodes.items() if name not in dead]
        counts = Counter(node_of(text) for node in alive for text in node.input)
        waiting = [name for name in self._consumed if name in self.nodes and name not in dead and not counts[name]]
        gone: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in self.keep or name in gone or (self.body.function and not self._is_pure(self.nodes[name])):
                continue
            gone.add(name)
            for text in self.nodes[name].input:
                source = node_of(text)
                counts[source] -= 1
                if not counts[source] and source in self.nodes and source not in dead:
                    waiting.append(source)
        return gone


def _port(text: str) -> int:
    """The output that a text names; -2 for ``node:output:0``, as functions spell outputs of somebody else's ops."""
    return -2 if text.count(":") > 1 else port_of(text)


def _scopes(name: str) -> Iterator[str]:
    """A node's name, and the scopes that it is in."""
    while name:
        yield name
        name = name.rpartition("/")[0]


def _is_flag(value: Value | None) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == bool and value.size == 1


def _is_weight(value: Value) -> bool:
    return value.dtype.kind not in "biuO" and len(value.shape) > 0


def _nbytes(value: Value) -> int:
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _value_of(node: Message) -> Value | None:
    """What a Const holds; None where its type has no numbers, or it is damaged."""
    tensor = node.attr["value"].tensor
    try:
        dtype = dtypes.numpy_dtype(tensor.dtype)
        shape = dtypes.shape_to_tuple(tensor.tensor_shape)
        if shape is None or None in shape:
            return None
        sizes = tuple(size or 0 for size in shape)
        if tensor.version_number == dtypes.CUT or prod(sizes) * dtype.itemsize > LARGEST:
            return Large(dtype, sizes)
        return dtypes.tensor_to_numpy(tensor, where=node.name)
    except ReadError:
        return None


def const(name: str, array: Array, waits: Iterable[str], device: str) -> Message:
    node = messages.NodeDef(name=name, op="Const", device=device, input=[f"^{wait}" for wait in waits])
    node.attr["dtype"].type = dtypes.dtype_number(array.dtype)
    node.attr["value"].tensor.CopyFrom(dtypes.numpy_to_tensor(array))
    return node


def _rewire(node: Message, data: Sequence[str], waits: Sequence[str], state: State) -> None:
    """Give a node the inputs that it has now. Where they are others, more may be known of its shapes than was noted."""
    inputs = [*data, *(f"^{name}" for name in waits)]
    state.fresh = state.fresh or inputs != list(node.input)
    node.input[:] = inputs
    if state.fresh and "_output_shapes" in node.attr:
        del node.attr["_output_shapes"]
