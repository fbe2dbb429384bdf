"""Large constants become variables: the reverse of freezing, for graphs that are too large for one protobuf message.

::

    w: Const                                    w: VarHandleOp                      w, 400 MB, in the checkpoint
    w/read: Identity(w)             ------->    w/read: ReadVariableOp(w)
    MatMul(x, w/read)                           MatMul(x, w/read)

A variable has the name of its constant, and so has its entry in the checkpoint. The Identity nodes that take the
constant read the variable, as they did before the graph was frozen; what else takes it gets a read of its own,
``w/Read/ReadVariableOp``. A constant that is named from outside the graph, by a signature say, keeps its name for the
read, and the variable is ``w/variable``.
"""

from __future__ import annotations

from dataclasses import replace

from modelio.graph.bodies import copied
from modelio.graph.references import node_of, referenced
from modelio.graph.variables import by_name
from modelio.model import GraphModel, Message, Tensor
from modelio.wire import dtypes, messages
from modelio.wire.skim import LARGE, content_key

__all__ = ["thaw"]

_CONSTANTS = ("Const", "HostConst")


def thaw(model: GraphModel, *, smallest: int = LARGE) -> tuple[GraphModel, list[str]]:
    """The model with its large constants as variables; values stay where they are until they are asked for.

    What restores variables is made when the model is written (:func:`~modelio.graph.saver.add_saver`), for all of them;
    Python objects, which know the variables that there were, go.

    Args:
        model: a frozen graph, or any other.
        smallest: bytes, in the graph or beside it, from which on a constant is large.

    Constants of strings stay, and those inside functions and loops, where no variable can be.
    """
    found = {node.name: tensor for node in model.graph.node if (tensor := _large(node, model, smallest)) is not None}
    inside = [
        f"{definition.signature.name}/{node.name}"
        for definition in model.graph.library.function
        for node in definition.node_def
        if _large(node, model, smallest, definition.signature.name) is not None
    ]
    notes = [f"the constant {name} stays: it is inside a function" for name in inside]
    if not found:
        return model, notes
    model = by_name(model)
    thawed = _Thawing(model, found)
    constants = {name: tensor for name, tensor in model.constants.items() if name not in found}
    model = replace(model, graph=thawed.graph, constants=constants, variables={**model.variables, **thawed.variables})
    return model, [f"{len(found)} constants became variables", *notes]


def _large(node: Message, model: GraphModel, smallest: int, function: str = "") -> Tensor | None:
    """The value of a node that is a large constant; None where it is none, or waits for other nodes, as those of loops
    do.
    """
    if node.op not in _CONSTANTS or node.input:
        return None
    tensor = model.constants.get(content_key(node.name, function))
    if tensor is not None:
        return tensor if tensor.nbytes >= smallest else None
    value = node.attr["value"].tensor
    if value.ByteSize() < smallest:  # by far the most; and one number that fills a large shape is small
        return None
    if dtypes.dtype_name(value.dtype) in ("string", "resource", "variant", "unknown"):
        return None
    return Tensor.of(dtypes.tensor_to_numpy(value, where=node.name))


class _Thawing:
    """A graph in which constants become variables."""

    def __init__(self, model: GraphModel, found: dict[str, Tensor]) -> None:
        self.variables: dict[str, Tensor] = {}
        self._found = found
        self._names = {node.name for node in model.graph.node} | set(model.variables)
        self._named = referenced(model.extra)
        for signature in model.signatures.values():
            self._named.update(
                node_of(spec.tensor) for spec in (*signature.inputs.values(), *signature.outputs.values())
            )
        self._reads: dict[str, str] = {}  # constant -> what its consumers take now
        nodes = [made for node in model.graph.node for made in self._node(node, model)]
        for node in nodes:
            self._redirect(node)
        taken = {node_of(text) for node in nodes for text in node.input} | set(found)
        reads = set(self._reads.values())
        self.graph = messages.GraphDef()
        self.graph.node.extend(node for node in nodes if node.name not in reads or node.name in taken)
        self.graph.library.CopyFrom(model.graph.library)
        self.graph.versions.CopyFrom(model.graph.versions)

    def _node(self, node: Message, model: GraphModel) -> list[Message]:
        """A node, or what stands in its place."""
        if node.name not in self._found:
            return [copied(node)]
        tensor, number = self._found[node.name], node.attr["dtype"].type
        apart = node.name in self._named or node.name in model.variables
        name = self._free(f"{node.name}/variable") if apart else node.name
        handle = messages.NodeDef(name=name, op="VarHandleOp", device=node.device)
        handle.attr["dtype"].type = number
        handle.attr["shape"].shape.CopyFrom(dtypes.tuple_to_shape(tensor.shape))
        handle.attr["shared_name"].s = name.encode()
        self.variables[name] = tensor
        read = messages.NodeDef(op="ReadVariableOp", device=node.device)
        read.name = node.name if apart else self._free(f"{name}/Read/ReadVariableOp")
        read.attr["dtype"].type = number
        read.input.append(name)
        self._reads[node.name] = read.name
        return [handle, read]

    def _redirect(self, node: Message) -> None:
        """Let a node take what is read where it took a constant."""
        for index, text in enumerate(node.input):
            constant = node_of(text)
            if constant not in self._reads or text.startswith("^") or node.name == self._reads[constant]:
                continue
            if node.op == "Identity" and self._reads[constant] != constant:
                number = node.attr["T"].type
                node.op = "ReadVariableOp"
                node.attr.clear()
                node.attr["dtype"].type = number
                node.input[index] = constant
            else:
                node.input[index] = self._reads[constant]

    def _free(self, name: str) -> str:
        free, count = name, 0
        while free in self._names:
            count += 1
            free = f"{name}_{count}"
        self._names.add(free)
        return free
