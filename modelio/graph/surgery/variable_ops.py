"""What an op on a variable is on the variable's value: the tables by which :mod:`modelio.graph.surgery.freezing` goes.

::

    VarHandleOp -> ReadVariableOp -> MatMul            Const -> Identity -> MatMul
    VariableV2 -> RefSwitch -> Identity                Const -> Switch -> Identity

A handle or a reference goes through the ops of :data:`PASSES` unchanged, the ops of :data:`READS` take the value out,
those of :data:`WRITES` change it and give back what it is then. An op that is in none of the tables needs the variable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from modelio.graph.bodies import Body
from modelio.graph.operations import op
from modelio.model import Message
from modelio.wire import dtypes, messages

__all__ = [
    "BRANCHES",
    "PASSES",
    "READS",
    "REFERENCES",
    "WRITES",
    "Branches",
    "become",
    "make_noop",
    "without_references",
]

REFERENCES = {
    "RefIdentity": "Identity",
    "RefSwitch": "Switch",
    "RefMerge": "Merge",
    "RefEnter": "Enter",
    "RefExit": "Exit",
    "RefNextIteration": "NextIteration",
}
"""Ops that pass a reference on, and what does the same to a value. (Their twins read the reference.)"""

PASSES = frozenset({"Identity", "IdentityN", "Switch", "Merge", "Enter", "Exit", "NextIteration"})
"""Ops that pass a resource on; on its value they do the same."""

WRITES = {"Assign": "Identity", "AssignAdd": "Add", "AssignSub": "Sub"}
"""Ops that write through a reference and return it: what they return is this of the value there was and their input."""


class Branches(NamedTuple):
    """An op that calls functions: the attributes that name them, how many inputs come before the functions' arguments,
    and the attributes that list the types of the arguments and of the results.
    """

    functions: tuple[str, ...]
    before: int
    inputs: str
    outputs: str


BRANCHES = {
    "PartitionedCall": Branches(("f",), 0, "Tin", "Tout"),
    "StatefulPartitionedCall": Branches(("f",), 0, "Tin", "Tout"),
    "If": Branches(("then_branch", "else_branch"), 1, "Tin", "Tout"),
    "StatelessIf": Branches(("then_branch", "else_branch"), 1, "Tin", "Tout"),
    "Case": Branches(("branches",), 1, "Tin", "Tout"),
    "StatelessCase": Branches(("branches",), 1, "Tin", "Tout"),
    "While": Branches(("body", "cond"), 0, "T", "T"),
    "StatelessWhile": Branches(("body", "cond"), 0, "T", "T"),
}


def _read(body: Body, node: Message, dtype: int) -> None:
    become(node, "Identity", T=dtype)


def _shape(body: Body, node: Message, dtype: int) -> None:
    out = node.attr["out_type"].type if "out_type" in node.attr else messages.DataType.DT_INT32
    become(node, "Shape", T=dtype, out_type=out)


def _gather(body: Body, node: Message, dtype: int) -> None:
    indices, batch = node.attr["Tindices"].type, node.attr["batch_dims"].i if "batch_dims" in node.attr else 0
    if not batch:
        become(node, "Gather", Tparams=dtype, Tindices=indices)
        return
    axis = messages.NodeDef(name=_free(f"{node.name}/axis", body), op="Const")
    axis.attr["dtype"].type = messages.DataType.DT_INT32
    axis.attr["value"].tensor.CopyFrom(dtypes.numpy_to_tensor(np.asarray(batch, np.int32)))
    body.nodes[axis.name] = axis
    become(node, "GatherV2", Tparams=dtype, Tindices=indices, Taxis=messages.DataType.DT_INT32)
    node.attr["batch_dims"].i = batch
    node.input.insert(2, axis.name)


def _gather_nd(body: Body, node: Message, dtype: int) -> None:
    become(node, "GatherNd", Tparams=dtype, Tindices=node.attr["Tindices"].type)


def _is_initialized(body: Body, node: Message, dtype: int) -> None:
    sources = [text if text.startswith("^") else f"^{text.partition(':')[0]}" for text in node.input]
    become(node, "Const", dtype=messages.DataType.DT_BOOL)
    node.attr["value"].tensor.CopyFrom(dtypes.numpy_to_tensor(np.asarray(True)))
    node.input[:] = [text for text in dict.fromkeys(sources) if text[1:] not in body.arguments]


READS: Mapping[str, Callable[[Body, Message, int], None]] = {
    "ReadVariableOp": _read,
    "ResourceGather": _gather,
    "ResourceGatherNd": _gather_nd,
    "VariableShape": _shape,
    "VarIsInitializedOp": _is_initialized,
    "IsVariableInitialized": _is_initialized,
}
"""Ops that take a variable and give what a constant can give: each becomes an op on the value, of that dtype."""


def become(node: Message, operation: str, **types: int) -> None:
    """Make a node one of another op, with these types; other attributes that the new op has too are kept."""
    definition = op(operation)
    assert definition is not None  # the tables above name ops of TensorFlow's
    node.op = operation
    for key in [key for key in node.attr if key not in definition.attrs]:
        del node.attr[key]
    for key, number in types.items():
        node.attr[key].type = number
    node.ClearField("experimental_type")


def make_noop(node: Message, arguments: Sequence[str]) -> None:
    """Make a node do nothing but wait for what it waited for."""
    sources = [text if text.startswith("^") else f"^{text.partition(':')[0]}" for text in node.input]
    become(node, "NoOp")
    node.input[:] = [text for text in dict.fromkeys(sources) if text[1:] not in arguments]


def wants_reference(node: Message, index: int) -> bool:
    """Does this op take this input as a reference? What is nobody's op may."""
    definition = op(node.op)
    if definition is None:
        return True
    for argument in definition.inputs:
        index -= definition.count(argument, node.attr)
        if index < 0:
            return argument.is_ref
    return True


def without_references(node: Message) -> None:
    """Types of references become types of values."""
    for value in node.attr.values():
        if value.WhichOneof("value") == "type" and value.type > dtypes.REF:
            value.type -= dtypes.REF
        elif value.WhichOneof("value") == "list" and any(number > dtypes.REF for number in value.list.type):
            value.list.type[:] = [number % dtypes.REF for number in value.list.type]


def _free(name: str, body: Body) -> str:
    free, count = name, 0
    while free in body.nodes or free in body.arguments:
        count += 1
        free = f"{name}_{count}"
    return free
