"""Calls replaced by what they call: the body of every PartitionedCall, written into the graph around it.

::

    call: PartitionedCall(x, ^before)  f(a): y = Const, z = Mul(a, y), returns z       what takes call:0 or ^call
      becomes
    call/y: Const(^before)             call/z: Mul(x, call/y)                          takes call/z:0 or ^call/z

Every way in which TensorFlow calls a function unconditionally is one: ``PartitionedCall``, ``StatefulPartitionedCall``
and a node whose op is the function's own name. The bodies of While, If and Case stay functions, in which the calls are
replaced too. A call that is named from outside the graph, by a signature, the saver or the init op, leaves an Identity
of its name for its first output (a NoOp where it has none), and ``call/output_1``, ... for the others: there are
clients to whom the end of a graph is a node, not one of its outputs.

Order is kept: what the call waited for, its body waits for; what waited for the call, waits for the body's side
effects or, where there are none, for its results (``core/common_runtime/inline_function_utils.cc``,
``InlineFunctionBody``). In a graph with TensorFlow 1's control flow the body also waits for the call's first input, so
that a constant in it belongs to the same loop and is dead in the same branch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from modelio.errors import ConversionError, ReadError, UnsafeInput
from modelio.graph.bodies import Body, Library, called, copied, port_of
from modelio.graph.references import changed, node_of, referenced
from modelio.model import GraphModel, Message, Signature, Tensor
from modelio.wire import messages
from modelio.wire.skim import content_key

__all__ = ["CALLS", "Inliner", "inline"]

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
"""Ops that call the function in their attribute ``f``, once and on this machine."""

_DEEPEST = 100
"""Calls within calls; TensorFlow's own models stay below ten."""

_MOST = 1 << 20
"""Nodes of the result: a function that calls another twice, which calls another twice, ... doubles at every level."""

_CONTROL_FLOW = frozenset({"Switch", "RefSwitch", "Enter", "RefEnter"})


def inline(model: GraphModel) -> tuple[GraphModel, list[str]]:
    """The model with every call replaced by the nodes of the function that it calls.

    Functions that nothing names any longer go. The Python objects of a TensorFlow 2 export go with them, since their
    methods were these functions: what is left is a graph as TensorFlow 1 had them, and is loaded as one.

    Raises:
        ReadError: a call names a function, or a function a node, that is not there.
        ConversionError: a function calls itself.
        UnsafeInput: the result would have more than a million nodes.
    """
    from modelio.graph.variables import by_name

    inliner = Inliner(Library(model.graph), model.constants)
    if not any(inliner.instance(node) is not None for node in inliner.all_nodes(model.graph)):
        return model, []
    model = by_name(model)
    inliner = Inliner(Library(model.graph), model.constants)
    signatures = model.signatures
    ends = [
        spec.tensor for one in signatures.values() for specs in (one.inputs, one.outputs) for spec in specs.values()
    ]
    body = Body.of(model.graph, ends, whole=True)
    body.ordered()  # refuses circles
    body = inliner.expanded(body, keep={*map(node_of, ends), *referenced(model.extra)})
    graph, constants = inliner.graph(body, model.graph)

    def moved(tensor: str) -> str:
        return inliner.moved.get(tensor, tensor)

    model = replace(
        model,
        graph=graph,
        constants=constants,
        signatures={name: _moved(signature, moved) for name, signature in signatures.items()},
        extra=changed(model.extra, moved),
    )
    return model, [f"{inliner.count} calls replaced by what they call"]


def _moved(signature: Signature, moved: Callable[[str], str]) -> Signature:
    inputs, outputs = (
        {key: replace(spec, tensor=moved(spec.tensor)) for key, spec in specs.items()}
        for specs in (signature.inputs, signature.outputs)
    )
    return replace(signature, inputs=inputs, outputs=outputs)


class Inliner:
    """Writes functions out. Every function's body is made once, and copied into each place that calls it.

    ``constants`` are the contents that lie beside the graph, as in :class:`~modelio.model.GraphModel`; ``count`` is how
    many calls were replaced, ``moved`` where those of their outputs are now that were to be kept and have no place in a
    node of the call's name.
    """

    def __init__(self, library: Library, constants: Mapping[str, Tensor]) -> None:
        self.library = library
        self.constants = dict(constants)
        self.count = 0
        self.moved: dict[str, str] = {}
        self._bodies: dict[str, Body] = {}
        self._uses: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}

    def all_nodes(self, graph: Message) -> Iterable[Message]:
        """The nodes of a graph and those of its functions."""
        yield from graph.node
        for definition in self.library.functions.values():
            yield from definition.node_def

    def instance(self, node: Message) -> Message | None:
        """What a node calls: a function's name and the attributes to instantiate it; None where it calls none."""
        if node.op in CALLS:
            return node.attr["f"].func
        if node.op not in self.library:
            return None
        made = messages.NameAttrList(name=node.op)
        for key, value in node.attr.items():
            made.attr[key].CopyFrom(value)
        return made

    def expanded(self, body: Body, *, keep: Collection[str] = (), taken: Iterable[str] = ()) -> Body:
        """A body in which no call is left; the nodes of the one that was given become its nodes.

        Args:
            body: what calls.
            keep: calls that leave a node of their name.
            taken: names that new nodes must not have, nor begin with, beside those of the body.
        """
        self._measure(body.nodes.values(), body.function, ())
        return _Expansion(self, body, keep, taken).made

    def body(self, name: str, caller: str) -> Body:
        """The body of a function, without calls."""
        if name not in self._bodies:
            body = self.library.body(name, caller)
            body.ordered()  # refuses circles
            self._bodies[name] = _Expansion(self, body, (), ()).made
        return self._bodies[name]

    def body_for_one(self, name: str, caller: str) -> tuple[Body, bool]:
        """The body of a function for one place that calls it, and whether that is the only one that needs it."""
        body = self.body(name, caller)
        if self._uses[name] == 1:
            del self._bodies[name]
        return body, self._uses[name] == 1

    def graph(self, body: Body, original: Message) -> tuple[Message, dict[str, Tensor]]:
        """The GraphDef of a body with the functions that it still needs, and the contents that lie beside it."""
        graph = messages.GraphDef()
        graph.versions.CopyFrom(original.versions)
        graph.node.extend(body.nodes.values())
        needed: dict[str, Body] = {}
        waiting = list(body.nodes.values())
        while waiting:
            node = waiting.pop()
            for instance in called(node):
                if instance.name in self.library and instance.name not in needed:
                    needed[instance.name] = self.body(instance.name, node.name)
                    waiting += needed[instance.name].nodes.values()
        for name, definition in self.library.functions.items():
            if name in needed:
                graph.library.function.append(self.library.define(needed[name], definition))
        places = {content_key(node, one.function) for one in (body, *needed.values()) for node in one.nodes}
        return graph, {key: tensor for key, tensor in self.constants.items() if key in places}

    def _measure(self, nodes: Iterable[Message], name: str, above: tuple[str, ...]) -> int:
        """How many nodes this becomes; what is recursive, too deep or too large is refused before any is made."""
        if name and name in above:
            raise ConversionError(
                f"the function {name!r} calls itself: it has no end to write down", where=above[-1], unsupported=[name]
            )
        if len(above) > _DEEPEST:
            raise UnsafeInput(f"calls are nested more than {_DEEPEST} deep", where=name)
        if name in self._sizes:
            return self._sizes[name]
        total = 0
        for node in nodes:
            total += 1
            instance = self.instance(node)
            for function in called(node) if instance is None else [instance]:
                if function.name not in self.library:
                    if instance is None:
                        continue  # the name of an op, or a function that only some attribute of its own kind knows
                    raise ReadError(f"it calls the function {function.name!r}, which is not there", where=node.name)
                self._uses[function.name] += 1
                inner = self.library.functions[function.name].node_def
                size = self._measure(inner, function.name, (*above, name))
                total += 0 if instance is None else size
            if total > _MOST:
                raise UnsafeInput(f"written out, the calls would make more than {_MOST:,} nodes", where=node.name)
        if name:
            self._sizes[name] = total
        return total


class _Expansion:
    """One body on its way to one without calls."""

    def __init__(self, inliner: Inliner, body: Body, keep: Collection[str], taken: Iterable[str]) -> None:
        self.inliner = inliner
        self.made = Body(body.function, arguments=body.arguments, outputs=body.outputs)
        self._keep = keep
        self._results: dict[str, list[str]] = {}  # of each call, what its outputs are now
        self._ends: dict[str, list[str]] = {}  # and what is to be waited for instead
        self._scopes: set[str] = set()
        for name in (*body.nodes, *body.arguments, *taken):
            _note_scopes(name, self._scopes)
        self._awaited = {text[1:] for node in body.nodes.values() for text in node.input if text[0] == "^"}
        self._awaited.update(body.ends)
        self._has_control_flow = any(node.op in _CONTROL_FLOW for node in body.nodes.values())
        for name, node in body.nodes.items():
            instance = inliner.instance(node)
            if instance is None:
                self.made.nodes[name] = node
            else:
                self._write_out(node, instance)
        for node in self.made.nodes.values():
            if any(text.removeprefix("^").partition(":")[0] in self._results for text in node.input):
                node.input[:] = self._resolved(node.input)
        if body.function:
            self.made.outputs = self._resolved(body.outputs)
        self.made.ends = [text[1:] for text in self._resolved([f"^{end}" for end in body.ends])]

    def _write_out(self, call: Message, instance: Message) -> None:
        """Add the nodes of the function that ``call`` calls."""
        inliner, made = self.inliner, self.made
        place = made.place(call.name)
        inner, is_ours = inliner.body_for_one(instance.name, place)
        signature = inliner.library.functions[instance.name].signature
        data = [text for text in call.input if not text.startswith("^")]
        waits = [text for text in call.input if text.startswith("^")]
        if len(data) != len(inner.arguments):
            raise ReadError(
                f"it passes {len(data)} values to the function {instance.name!r}, which takes {len(inner.arguments)}",
                where=place,
            )
        inliner.count += 1
        scope = _free(call.name, self._scopes)
        if data and self._has_control_flow:
            gate = self._add(f"{scope}/first_input", "Identity", [data[0], *waits])
            gate.attr["T"].CopyFrom(_type(signature.input_arg[0], instance))
            waits = [f"^{gate.name}"]
        given = dict(zip(inner.arguments, data, strict=True))

        def moved(text: str) -> str:
            name = node_of(text)
            if name in given:
                return f"^{node_of(given[name])}" if text.startswith("^") else given[name]
            return f"^{scope}/{text[1:]}" if text.startswith("^") else f"{scope}/{text}"

        for name, node in inner.nodes.items():
            copy = node if is_ours else copied(node)
            copy.name = f"{scope}/{name}"
            if "_class" in copy.attr:  # beside which of the function's nodes or arguments it should run
                del copy.attr["_class"]
            starts = all(node_of(text) in given for text in node.input)
            copy.input[:] = [*map(moved, node.input), *(waits if starts else ())]
            if signature.attr:
                _instantiate(copy, instance.attr)
            if made.function == "":
                _refuse_unnamed(copy)
            made.nodes[copy.name] = copy
            content = inliner.constants.get(content_key(name, inner.function))
            if content is not None:
                inliner.constants[content_key(copy.name, made.function)] = content
        results = [moved(text) for text in inner.outputs]
        ends = [f"^{scope}/{end}" for end in inner.ends] or [f"^{node_of(text)}" for text in results] or waits
        self._results[call.name], self._ends[call.name] = results, ends
        if call.name in self._keep:
            types = [_type(argument, instance) for argument in signature.output_arg]
            if not results:
                self._add(call.name, "NoOp", ends)
            for port, (text, kind) in enumerate(zip(results, types, strict=True)):
                kept = self._add(f"{scope}/output_{port}" if port else call.name, "Identity", [text, *ends])
                kept.attr["T"].CopyFrom(kind)
                if port:
                    inliner.moved[f"{call.name}:{port}"] = f"{kept.name}:0"
        if call.name in self._awaited and len(ends) > 1:
            self._ends[call.name] = [f"^{self._add(f'{scope}/ends', 'NoOp', ends).name}"]

    def _add(self, name: str, op: str, inputs: Iterable[str]) -> Message:
        node = messages.NodeDef(name=name, op=op)
        node.input.extend(inputs)
        self.made.nodes[name] = node
        return node

    def _resolved(self, inputs: Sequence[str]) -> list[str]:
        """Inputs in which no call is named; every control input once, and last."""
        data: list[str] = []
        controls: dict[str, None] = {}
        for text in inputs:
            if not text.startswith("^"):
                data.append(self._followed(text))
                continue
            waiting, seen = [text], set()
            while waiting:
                one = waiting.pop()
                if one in seen:
                    continue
                seen.add(one)
                if one[1:] in self._ends:
                    waiting += reversed(self._ends[one[1:]])
                else:
                    controls[one] = None
        return [*data, *(one for one in controls if one[1:] not in self.made.arguments)]

    def _followed(self, text: str) -> str:
        """What a call's output is now; the results of a call may be another call's."""
        for _ in range(len(self._results) + 1):
            name = node_of(text)
            if name not in self._results:
                return text
            results = self._results[name]
            if port_of(text) >= len(results):
                raise ReadError(f"{text!r} is more than this call returns", where=self.made.place(name))
            text = results[port_of(text)]
        raise ReadError("these calls wait for each other's results, in a circle", where=self.made.place(node_of(text)))


def _instantiate(node: Message, given: Mapping[str, Message]) -> None:
    """Put a call's attributes in the place of the function's own, which the node names."""
    for value in [*node.attr.values(), *(inner for one in called(node) for inner in one.attr.values())]:
        if value.WhichOneof("value") == "placeholder" and value.placeholder in given:
            value.CopyFrom(given[value.placeholder])


def _type(argument: Message, instance: Message) -> Message:
    """The dtype of a function's argument or result, as an attribute's value."""
    if argument.number_attr or argument.type_list_attr:
        raise ConversionError(
            f"the function has the list {argument.name!r}, and functions with lists are not written out",
            where=instance.name,
            unsupported=[instance.name],
        )
    if argument.type_attr:
        made = messages.AttrValue()
        made.CopyFrom(instance.attr[argument.type_attr])
        return made
    return messages.AttrValue(type=argument.type)


def _refuse_unnamed(node: Message) -> None:
    """In a graph, outputs have numbers; those of an op that nobody knows have names only."""
    for text in node.input:
        if text.count(":") > 1:
            name, output, _ = text.split(":", 2)
            raise ConversionError(
                f"which of the outputs of {name} is {output!r} is known only where its op is: it cannot be moved out "
                "of its function",
                where=node.name,
                unsupported=[name],
            )


def _note_scopes(name: str, scopes: set[str]) -> None:
    """Every scope that a node is in.

    >>> scopes = set()
    >>> _note_scopes("a/b/c", scopes)
    >>> sorted(scopes)
    ['a', 'a/b']
    """
    scope = name.rpartition("/")[0]
    while scope and scope not in scopes:
        scopes.add(scope)
        scope = scope.rpartition("/")[0]


def _free(name: str, scopes: set[str]) -> str:
    """A scope that nothing is in yet: the name itself, ``name_1``, ...; it is taken then."""
    free, count = name, 0
    while free in scopes:
        count += 1
        free = f"{name}_{count}"
    _note_scopes(f"{free}/", scopes)
    return free
