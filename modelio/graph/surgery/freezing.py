"""Variables become constants: the model is one graph then, answers as it did when it was saved, and learns no more.

::

    w: VarHandleOp            ------->  w: Const, its content beside the graph
    read: ReadVariableOp(w)             read: Identity(w)
    call: f(x, w)                       call: f(x, w), f's argument now the value itself

What a variable's handle goes through, calls and loops and branches of either generation, its value goes through instead
(``variable_ops.py``). A function that is called with different things is written down once for each.
Only what the signatures' outputs need is kept; what else TensorFlow would run for its side effects goes.

A constant is what a read finds before anything was written. An assignment on the way to an output therefore goes where
no read comes after it; is computed where the output is the value that was assigned (the moving averages of old batch
normalization); and is refused by name where a read would have seen it.

Tables of words and numbers are no variables: they stay, and are filled by the first request
(:mod:`modelio.graph.surgery.filling`).

Sources: ``tensorflow/python/framework/graph_util_impl.py``, ``convert_to_constants.py`` (TensorFlow 1.15, 2.21).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from modelio.errors import ConversionError, ReadError, UnsafeInput
from modelio.graph.bodies import Body, Library, called, drop_idle_controls, has_side_effects
from modelio.graph.meta_graph import SIGNATURE
from modelio.graph.names import VARIABLES, shared_name
from modelio.graph.references import node_of
from modelio.graph.surgery.filling import fill
from modelio.graph.surgery.inlining import inline as inline_calls
from modelio.graph.surgery.variable_ops import (
    BRANCHES,
    PASSES,
    READS,
    REFERENCES,
    WRITES,
    Branches,
    become,
    make_noop,
    wants_reference,
    without_references,
)
from modelio.graph.variables import values_of
from modelio.model import GraphModel, Message, Tensor
from modelio.wire import dtypes, messages
from modelio.wire.skim import content_key

__all__ = ["freeze"]

_DEEPEST = 100
"""Functions within functions; TensorFlow's own models stay below ten."""

_MOST = 10_000
"""Functions of the result. Each is written once for every kind of arguments, and there is no end to those."""

_STALE = ("_class", "_output_shapes", "_handle_shapes", "_handle_dtypes")
"""Attributes that say what is true no longer, or was only ever a remark."""


def freeze(model: GraphModel, *, inline: bool = False) -> tuple[GraphModel, list[str]]:
    """The model with its variables as constants, and only the nodes and functions that its signatures need.

    Args:
        model: a SavedModel, or a checkpoint with its graph; it must have a signature.
        inline: write the functions out where they are called (``inlining.py``): what only knows plain graphs takes
            the result.

    Raises:
        ConversionError: there is no signature, or an output needs a variable as a variable; ``.unsupported`` lists
            every node in the way.
        ReadError: the graph names nodes or functions that are not there, or waits for itself.
    """
    if not any(signature.outputs for signature in model.signatures.values()):
        raise ConversionError(
            "there is no signature, so nothing says what to keep: name the outputs (outputs= in convert)"
        )
    freezer = _Freezer(model)
    body = Body.of(model.graph, _ends(model))
    main = freezer.freeze(body)
    needed = freezer.needed(body)
    filled = fill(model, body, {one.body.function: one.body for one in needed})
    blocked = [*freezer.blocked, *filled.blocked]
    if blocked:
        raise ConversionError(
            f"{'a node is' if len(blocked) == 1 else f'{len(blocked)} nodes are'} in the way of constants: "
            f"{'; '.join(blocked[:8])}{'; ...' if len(blocked) > 8 else ''}",
            unsupported=blocked,
        )
    graph = messages.GraphDef()
    graph.versions.CopyFrom(model.graph.versions)
    graph.node.extend(body.nodes.values())
    graph.library.function.extend(map(freezer.definition, needed))
    constants = {
        content_key(node, frozen.body.function): tensor
        for frozen in (main, *needed)
        for node, tensor in frozen.contents.items()
        if node in frozen.body.nodes
    }
    words = {f"{SIGNATURE}{name}" for name in model.signatures}
    extra = {key: data for key, data in model.extra.items() if key.startswith("assets.extra/") or key in words}
    frozen = replace(
        model,
        graph=graph,
        variables={},
        constants={**constants, **filled.constants},
        assets=filled.assets,
        extra={**extra, **filled.extra},
    )
    changes = [f"{len(freezer.variables)} variables became constants"] if freezer.variables else []
    changes += [f"{name} no longer assigns its variable" for name in freezer.dropped]
    changes += filled.changes
    if inline:
        frozen, inlined = inline_calls(frozen)
        return _pruned(frozen), changes + inlined
    return frozen, changes


def _ends(model: GraphModel) -> list[str]:
    """What the signatures name. An input that no output needs counts too: who asks the model sends it."""
    signatures = model.signatures.values()
    return [spec.tensor for one in signatures for specs in (one.outputs, one.inputs) for spec in specs.values()]


def _pruned(model: GraphModel) -> GraphModel:
    """Without what calls were named after, and what their bodies had that nobody takes."""
    body = Body.of(model.graph, _ends(model))
    drop_idle_controls(body)
    body.prune()
    graph = messages.GraphDef()
    graph.CopyFrom(model.graph)
    del graph.node[:]
    graph.node.extend(body.nodes.values())
    constants = {key: tensor for key, tensor in model.constants.items() if ":" in key or key in body.nodes}
    return replace(model, graph=graph, constants=constants)


@dataclass(frozen=True)
class _Handle:
    """What a tensor stands for that is a variable's handle or reference.

    ``dtype`` is the number of the value's type. ``variables`` are those that it may be: the position of a function's
    argument, or a name. ``after`` are the assignments that it was returned by.
    """

    dtype: int
    variables: frozenset[int | str]
    is_reference: bool = False
    after: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Use:
    """A node that reads or writes variables."""

    node: str
    op: str
    variables: frozenset[int | str]
    after: frozenset[str] = frozenset()


@dataclass
class _Frozen:
    """A body as it is after freezing.

    ``original`` is the name that the function had, ``kinds`` the types of those arguments that were handles,
    ``outputs`` of those results; ``contents`` lie beside the graph, by node. ``reads`` and ``writes`` are the variables
    that it touches, ``idle`` says that it has no side effect.
    """

    body: Body
    original: str = ""
    kinds: tuple[int | None, ...] = ()
    outputs: list[int | None] = field(default_factory=list)
    contents: dict[str, Tensor] = field(default_factory=dict)
    reads: set[int | str] = field(default_factory=set)
    writes: set[int | str] = field(default_factory=set)
    idle: bool = True


class _Freezer:
    """One run over a model. A function is frozen once for each kind of arguments that it is called with."""

    def __init__(self, model: GraphModel) -> None:
        self.model = model
        self.library = Library(model.graph)
        self.blocked: dict[str, None] = {}
        self.variables: dict[str, None] = {}  # that became constants
        self.dropped: dict[str, None] = {}  # assignments that went
        self._values = _by_shared_name(model)
        self._functions: dict[tuple[str, tuple[int | None, ...]], _Frozen] = {}
        self._by_name: dict[str, _Frozen] = {}
        self._above: list[str] = []

    def value(self, name: str) -> Tensor | None:
        """The value of the variable of that (shared) name."""
        return self._values.get(name)

    def function(self, name: str, kinds: tuple[int | None, ...], caller: str) -> _Frozen:
        """The function for arguments of which some are values now: their types are in ``kinds``, None for the rest."""
        if name in self._above:
            raise ConversionError(
                f"the function {name!r} calls itself, so there is no end of it", where=caller, unsupported=[name]
            )
        if len(self._above) > _DEEPEST:
            raise UnsafeInput(f"functions are nested more than {_DEEPEST} deep", where=caller)
        if (name, kinds) not in self._functions:
            if len(self._functions) > _MOST:
                raise UnsafeInput(f"its functions are called in more than {_MOST:,} different ways", where=caller)
            body = self.library.body(name, caller)
            if len(kinds) != len(body.arguments):
                raise ReadError(
                    f"it passes {len(kinds)} values to the function {name!r}, which takes {len(body.arguments)}",
                    where=caller,
                )
            self._above.append(name)
            frozen = self.freeze(body, kinds)
            self._above.pop()
            count = 0
            while body.function in self._by_name or (count and body.function in self.library):
                count += 1
                body.function = f"{name}_{count}"
            self._functions[name, kinds] = self._by_name[body.function] = frozen
        return self._functions[name, kinds]

    def freeze(self, body: Body, kinds: tuple[int | None, ...] = ()) -> _Frozen:
        """Freeze a body in place."""
        return _Pass(self, body, kinds).run()

    def needed(self, body: Body) -> list[_Frozen]:
        """The functions that a body needs, in the order of the library."""
        found: dict[str, _Frozen] = {}
        waiting = list(body.nodes.values())
        while waiting:
            node = waiting.pop()
            for name in (node.op, *(instance.name for instance in called(node))):
                if name in self._by_name and name not in found:
                    found[name] = self._by_name[name]
                    waiting += found[name].body.nodes.values()
        order = {name: position for position, name in enumerate(self.library.functions)}
        return sorted(found.values(), key=lambda one: (order[one.original], one.body.function))

    def definition(self, frozen: _Frozen) -> Message:
        """The FunctionDef of a function."""
        made = self.library.define(frozen.body, self.library.functions[frozen.original])
        for position, kind in enumerate(frozen.kinds):
            if kind is not None:
                _retype(made.signature.input_arg[position], kind)
                made.resource_arg_unique_id.pop(position, None)
                made.attr.pop("_input_shapes", None)
                for stale in _STALE:
                    made.arg_attr[position].attr.pop(stale, None)
        for position, kind in enumerate(frozen.outputs):
            if kind is not None:
                _retype(made.signature.output_arg[position], kind)
        return made


def _by_shared_name(model: GraphModel) -> dict[str, Tensor]:
    values = values_of(model)
    nodes = {node.name: node for node in model.graph.node if node.name in values}
    return {**model.variables, **{shared_name(nodes[name]): tensor for name, tensor in values.items()}}


def _retype(argument: Message, kind: int) -> None:
    argument.type = kind
    argument.type_attr = ""
    del argument.handle_data[:]
    argument.ClearField("experimental_full_type")


class _Pass:
    """The pass over one body: every node after those that it takes something from."""

    def __init__(self, freezer: _Freezer, body: Body, kinds: tuple[int | None, ...]) -> None:
        self.freezer = freezer
        self.body = body
        self.frozen = _Frozen(body, original=body.function, kinds=kinds)
        self._held = {  # tensor -> what variable it stands for
            argument: _Handle(kind, frozenset({position}))
            for position, (argument, kind) in enumerate(zip(body.arguments, kinds, strict=False))
            if kind is not None
        }
        self._reads: list[_Use] = []
        self._writes: list[_Use] = []
        self._sided: set[str] = set()  # calls of functions that have side effects

    def run(self) -> _Frozen:
        body, frozen, contents = self.body, self.frozen, self.freezer.model.constants
        body.prune()
        self._taken = {node_of(text) for node in body.nodes.values() for text in node.input if text[0] != "^"}
        self._taken.update(map(node_of, body.outputs))
        order = body.ordered()
        for node in order:
            self._node(node)
        for write in self._writes:
            self._check_order(write)
        frozen.outputs = [self._held[text].dtype if text in self._held else None for text in body.outputs]
        for use in self._reads:
            frozen.reads |= use.variables
        for use in self._writes:
            frozen.writes |= use.variables
        drop_idle_controls(body, self._has_side_effects, order)
        body.prune()
        frozen.idle = not any(map(self._has_side_effects, body.nodes.values()))
        for name in body.nodes:
            content = contents.get(content_key(name, frozen.original))
            if content is not None:
                frozen.contents[name] = content
        return frozen

    def _node(self, node: Message) -> None:
        for attr in _STALE:
            if attr in node.attr:
                del node.attr[attr]
        if node.op in VARIABLES:
            self._variable(node)
            return
        held = {
            index: self._held[text]
            for index, text in enumerate(node.input)
            if not text.startswith("^") and text in self._held
        }
        if node.op in BRANCHES or node.op in self.freezer.library:
            self._call(node, held)
        elif held and node.op in (REFERENCES if any(one.is_reference for one in held.values()) else PASSES):
            self._pass_on(node, held)
        elif held:
            self._use(node, held)
        elif any(instance.name in self.freezer.library for instance in called(node)):
            self._others(node)
        if node.op in REFERENCES and not held:
            become(node, REFERENCES[node.op])
        if not self.body.function:  # no function takes a reference
            without_references(node)

    def _variable(self, node: Message) -> None:
        """A variable becomes a constant whose content lies beside the graph."""
        name, is_reference = shared_name(node), node.op != "VarHandleOp"
        tensor = self.freezer.value(node.name if is_reference and self.freezer.value(name) is None else name)
        if tensor is None:
            self._block(node, "no value in the checkpoint")
            return
        number = node.attr["dtype"].type % dtypes.REF
        if dtypes.numpy_dtype(number, where=self.body.place(node.name)) != tensor.dtype:
            self._block(node, f"{dtypes.dtype_name(number)} in the graph, {tensor.dtype.name} in the checkpoint")
            return
        self.freezer.variables[name] = None
        waits = [text for text in node.input if text.startswith("^")]
        place = node.name
        node.Clear()
        node.name, node.op = place, "Const"
        node.input.extend(waits)
        node.attr["dtype"].type = number
        if tensor.dtype.kind == "O":  # strings are not raw bytes: they stay in the message
            node.attr["value"].tensor.CopyFrom(dtypes.numpy_to_tensor(tensor.numpy()))
        else:
            node.attr["value"].tensor.CopyFrom(dtypes.cut_tensor(number, tensor.shape))
            self.frozen.contents[place] = tensor
        self._held[place] = _Handle(number, frozenset({name}), is_reference)

    def _pass_on(self, node: Message, held: Mapping[int, _Handle]) -> None:
        """What goes through is the value now."""
        operation = REFERENCES.get(node.op, node.op)
        if operation == "IdentityN":
            types = node.attr["T"].list.type
            for index, handle in held.items():
                if index < len(types):
                    types[index] = handle.dtype
                self._hold(node, index, handle)
            return
        handles = list(held.values())
        merged = _Handle(
            handles[0].dtype,
            frozenset().union(*(one.variables for one in handles)),
            handles[0].is_reference,
            frozenset().union(*(one.after for one in handles)),
        )
        become(node, operation, T=merged.dtype)
        self._hold(node, 0, merged)
        if operation == "Switch":
            self._hold(node, 1, merged)

    def _hold(self, node: Message, port: int, handle: _Handle) -> None:
        self._held[f"{node.name}:{port}" if port else node.name] = handle

    def _use(self, node: Message, held: Mapping[int, _Handle]) -> None:
        """A node that takes a variable and does something with it."""
        first = held.get(0)
        use = _Use(
            node.name,
            node.op,
            frozenset().union(*(one.variables for one in held.values())),
            frozenset().union(*(one.after for one in held.values())),
        )
        if node.op in READS and list(held) == [0]:
            assert first is not None  # position 0 is held
            READS[node.op](self.body, node, first.dtype)
            self._reads.append(use)
        elif all(handle.is_reference and not wants_reference(node, index) for index, handle in held.items()):
            self._reads.append(use)  # any op may read a reference as if it were a value
        elif node.op in WRITES and first is not None and node.name in self._taken:
            if node.op == "Assign":
                del node.input[0]
            become(node, WRITES[node.op], T=first.dtype)
            self._writes.append(use)
            self._hold(node, 0, _Handle(first.dtype, use.variables, True, use.after | {node.name}))
        elif node.name in self._taken:
            self._block(node, "it needs the variable itself")
        else:
            make_noop(node, self.body.arguments)
            self._writes.append(use)
            self.freezer.dropped[self.body.place(node.name)] = None

    def _call(self, node: Message, held: Mapping[int, _Handle]) -> None:
        """Functions take the value where they took the handle."""
        place = self.body.place(node.name)
        branches = BRANCHES.get(node.op)
        before = branches.before if branches else 0
        data = sum(not text.startswith("^") for text in node.input)
        if any(index < before for index in held):
            self._reads.append(_Use(node.name, node.op, held[0].variables, held[0].after))
        arguments = {
            index - before: handle for index, handle in held.items() if index >= before and not handle.is_reference
        }
        for handle in held.values():  # a function takes the value of a reference
            if handle.is_reference:
                self._reads.append(_Use(node.name, node.op, handle.variables, handle.after))
        kinds = tuple(arguments[index].dtype if index in arguments else None for index in range(data - before))
        if branches is None:
            functions = [self.freezer.function(node.op, kinds, place)]
            node.op = functions[0].body.function
        else:
            functions = []
            for attribute in branches.functions:
                value = node.attr[attribute]
                for instance in value.list.func if attribute == "branches" else [value.func]:
                    functions.append(self.freezer.function(instance.name, kinds, place))
                    instance.name = functions[-1].body.function
            if not functions:
                raise ReadError("it names none of the functions that it chooses from", where=place)
            if arguments:
                self._retype(node, branches, arguments)
        results = functions[:1] if branches and branches.functions[-1] == "cond" else functions
        for port, kind in enumerate(results[0].outputs):
            if any(port >= len(other.outputs) or other.outputs[port] != kind for other in results):
                self._block(node, f"its result {port} is a variable in one branch only")
            elif kind is not None:
                node_types = node.attr[branches.outputs].list.type if branches else []
                if port < len(node_types):
                    node_types[port] = kind
                everything = frozenset().union(*(one.variables for one in arguments.values()))
                self._hold(node, port, _Handle(kind, everything))
        self._note(node, functions, arguments)

    def _retype(self, node: Message, branches: Branches, arguments: Mapping[int, _Handle]) -> None:
        types = node.attr[branches.inputs].list.type
        shapes = node.attr["output_shapes"].list.shape if "output_shapes" in node.attr else []
        for index, handle in arguments.items():
            if index < len(types):
                types[index] = handle.dtype
            if branches.outputs == branches.inputs and index < len(shapes):
                shapes[index].Clear()
                shapes[index].unknown_rank = True

    def _note(self, node: Message, functions: Iterable[_Frozen], arguments: Mapping[int, _Handle]) -> None:
        """What the functions read and write, in the words of this body."""
        functions = list(functions)
        loops = "While" in node.op

        def here(variables: Iterable[int | str]) -> frozenset[int | str]:
            found: set[int | str] = set()
            for one in variables:
                found |= arguments[one].variables if isinstance(one, int) and one in arguments else {one}
            return frozenset(found)

        reads = here(set().union(*(one.reads for one in functions)))
        writes = here(set().union(*(one.writes for one in functions)))
        after = frozenset().union(*(one.after for one in arguments.values()))
        if reads:
            self._reads.append(_Use(node.name, node.op, reads, after))
        if writes:
            self._writes.append(_Use(node.name, node.op, writes, after))
        if loops and reads & writes:
            self._block(node, "it reads what an earlier round has assigned")
        if not all(one.idle for one in functions):
            self._sided.add(node.name)

    def _others(self, node: Message) -> None:
        """A function that is called in a way of its own, by an op on data sets say, keeps its arguments."""
        for instance in called(node):
            if instance.name in self.freezer.library:
                place = self.body.place(node.name)
                count = len(self.freezer.library.functions[instance.name].signature.input_arg)
                frozen = self.freezer.function(instance.name, (None,) * count, place)
                instance.name = frozen.body.function
        self._sided.add(node.name)

    def _check_order(self, write: _Use) -> None:
        """Refuse an assignment that a read comes after: a constant would be what it was before."""
        touched = [
            use
            for use in (*self._reads, *self._writes)
            if use.node != write.node and use.variables & write.variables and write.node not in use.after
        ]
        if not touched:
            return
        reached = self._downstream(write.node)
        for use in touched:
            if use.node in reached:
                self._block(self.body.nodes[write.node], f"{use.op} {use.node} comes after it", operation=write.op)
                return

    def _downstream(self, name: str) -> set[str]:
        waiting, reached = [name], set()
        while waiting:
            for consumer in self._consumers.get(waiting.pop(), ()):
                if consumer not in reached:
                    reached.add(consumer)
                    waiting.append(consumer)
        return reached

    @functools.cached_property
    def _consumers(self) -> dict[str, list[str]]:
        consumers: dict[str, list[str]] = {}
        for node in self.body.nodes.values():
            for text in node.input:
                consumers.setdefault(node_of(text), []).append(node.name)
        return consumers

    def _has_side_effects(self, node: Message) -> bool:
        if node.op in BRANCHES or node.op in self.freezer.library:
            return node.name in self._sided
        return node.name in self._sided or has_side_effects(node)

    def _block(self, node: Message, reason: str, *, operation: str | None = None) -> None:
        self.freezer.blocked[f"{self.body.place(node.name)} ({operation or node.op}: {reason})"] = None
