"""Signatures: set, remove or rename one, rename its keys. What a tensor is, its dtype and its shape, the graph says.

>>> from modelio.graph.builder import Builder
>>> g = Builder()
>>> y = g.Mul(g.placeholder("x", "float32", (None, 3)), 2.0, name="y")
>>> model, changes = set_signature(GraphModel(g.graph), "double", {"numbers": "x"}, {"doubled": "y:0"})
>>> model.signatures["double"].outputs
{'doubled': TensorSpec(tensor='y:0', dtype='float32', shape=(None, 3))}
>>> changes
['signature double added']

A TensorFlow 2 export says a second time, in its Python objects, what its signatures are; a change to these makes it a
graph as TensorFlow 1 had them, which every loader takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from modelio.errors import ConversionError, ReadError
from modelio.graph import shapes
from modelio.graph.analysis import Graph, required_placeholders, tensor_name
from modelio.graph.meta_graph import HIDDEN, SIGNATURE
from modelio.graph.operations import REQUIRED, attribute_value
from modelio.graph.references import node_of
from modelio.graph.surgery.edit import nearest, without_objects
from modelio.graph.surgery.evaluation import LARGEST
from modelio.model import GraphModel, Message, Signature, TensorSpec
from modelio.wire import dtypes

__all__ = ["PREDICT", "remove_signature", "rename_keys", "rename_signature", "set_signature"]

PREDICT = "tensorflow/serving/predict"
"""The method of a signature that takes and gives what it says (``python/saved_model/signature_constants.py``)."""


def set_signature(
    model: GraphModel,
    name: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    method: str = PREDICT,
) -> tuple[GraphModel, list[str]]:
    """The model with a signature added, or replaced.

    Args:
        model: a graph.
        name: the signature's; a loader that is asked for none takes ``serving_default``.
        inputs: key to tensor (``"x:0"``; ``"x"`` is its first output).
        outputs: key to tensor; at least one.
        method: what TensorFlow Serving looks at.

    Raises:
        ConversionError: a tensor is none of the graph's (the error says the nearest), a name that TensorFlow uses
            itself, no output, or an output that needs a placeholder which is no input.
    """
    if not name or name in HIDDEN:
        raise ConversionError(f"{name!r} is no name for a signature: nobody could call it")
    if not outputs:
        raise ConversionError(f"a signature without outputs answers nothing: say some for {name!r}")
    index = Graph(model.graph)
    known = {
        spec.tensor: spec
        for signature in model.signatures.values()
        for ends in (signature.inputs, signature.outputs)
        for spec in ends.values()
    }
    found = _Shapes(index)
    made = Signature(
        {key: known.get(_full(tensor)) or found.spec(tensor) for key, tensor in inputs.items()},
        {key: known.get(_full(tensor)) or found.spec(tensor) for key, tensor in outputs.items()},
        method,
    )
    _check_fed(index, name, made)
    done = "replaced" if name in model.signatures else "added"
    return _with(model, {**model.signatures, name: made}, changed=[name]), [f"signature {name} {done}"]


def remove_signature(model: GraphModel, name: str) -> tuple[GraphModel, list[str]]:
    """The model without a signature; its nodes stay until :func:`~modelio.graph.surgery.pruning.prune`.

    Raises:
        ConversionError: there is no such signature.
    """
    _check_known(model, name)
    left = {key: signature for key, signature in model.signatures.items() if key != name}
    return _with(model, left, changed=[name]), [f"signature {name} removed"]


def rename_signature(model: GraphModel, old: str, new: str) -> tuple[GraphModel, list[str]]:
    """The model with a signature under another name.

    Raises:
        ConversionError: there is no such signature, or there is one of the new name.
    """
    _check_known(model, old)
    if not new or new in HIDDEN:
        raise ConversionError(f"{new!r} is no name for a signature: nobody could call it")
    if new in model.signatures and new != old:
        raise ConversionError(f"there is a signature {new!r} already; remove it first")
    signatures = {new if key == old else key: signature for key, signature in model.signatures.items()}
    renamed = _with(model, signatures, changed=[])
    extra = {
        f"{SIGNATURE}{new}" if key == f"{SIGNATURE}{old}" else key: data
        for key, data in renamed.extra.items()
        if key != f"{SIGNATURE}{new}" or new == old
    }
    return replace(renamed, extra=extra), [f"signature {old} renamed to {new}"]


def rename_keys(
    model: GraphModel, keys: Mapping[str, str], *, signature: str | None = None
) -> tuple[GraphModel, list[str]]:
    """The model with other keys for inputs and outputs.

    Args:
        model: a graph.
        keys: old to new.
        signature: in this one only; left out, in every signature that has an old key.

    Raises:
        ConversionError: no signature has an old key, or one would have a key twice.
    """
    if signature is not None:
        _check_known(model, signature)
    names = list(model.signatures) if signature is None else [signature]
    signatures = dict(model.signatures)
    changes = []
    used: set[str] = set()
    for name in names:
        old = model.signatures[name]
        there = {key for ends in (old.inputs, old.outputs) for key in ends} & set(keys)
        if there:
            used |= there
            ends = [_renamed(one, keys, name) for one in (old.inputs, old.outputs)]
            signatures[name] = replace(old, inputs=ends[0], outputs=ends[1])
            changes += [f"{key} of the signature {name} renamed to {keys[key]}" for key in sorted(there)]
    for key in keys:
        if key not in used:
            there = {key for name in names for ends in _both(model.signatures[name]) for key in ends}
            raise ConversionError(f"no input and no output has the key {key!r}{nearest(key, sorted(there))}")
    return _with(model, signatures, changed=[]), changes


def _both(signature: Signature) -> tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]:
    return signature.inputs, signature.outputs


def _renamed(ends: Mapping[str, TensorSpec], keys: Mapping[str, str], name: str) -> dict[str, TensorSpec]:
    made: dict[str, TensorSpec] = {}
    for key, spec in ends.items():
        new = keys.get(key, key)
        if not new or new in made:
            raise ConversionError(f"the signature {name!r} would have the key {new!r} twice, or an empty one")
        made[new] = spec
    return made


def _with(model: GraphModel, signatures: Mapping[str, Signature], changed: Iterable[str]) -> GraphModel:
    model = without_objects(model)
    gone = {f"{SIGNATURE}{name}" for name in changed}
    return replace(
        model, signatures=signatures, extra={key: data for key, data in model.extra.items() if key not in gone}
    )


def _check_known(model: GraphModel, name: str) -> None:
    if name not in model.signatures:
        raise ConversionError(f"no signature is called {name!r}{nearest(name, model.signatures)}")


def _check_fed(index: Graph, name: str, signature: Signature) -> None:
    """A request can feed all that it must."""
    fed = [spec.tensor for spec in signature.inputs.values()]
    if len(set(fed)) < len(fed):
        raise ConversionError(f"two inputs of the signature {name!r} are the same tensor")
    needed = required_placeholders(index, [spec.tensor for spec in signature.outputs.values()], fed)
    missing = [item for item in needed.placeholders if not item.has_default and item.function is None]
    if missing:
        raise ConversionError(
            f"the outputs of the signature {name!r} need the placeholder {missing[0].name!r}, which is none of its "
            "inputs: make it one, or bind it to a value"
        )


def _full(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"


@dataclass(frozen=True)
class _Known:
    """What is known of a tensor while shapes are followed."""

    name: str
    dtype: str
    shape: shapes.Shape
    constant: npt.NDArray[Any] | None = None


class _Shapes:
    """Static shapes of a graph's tensors, followed from its placeholders and constants as far as is known."""

    def __init__(self, index: Graph) -> None:
        self.index = index
        self._known: dict[str, list[_Known]] = {}

    def spec(self, tensor: str) -> TensorSpec:
        """What a tensor is; :class:`~modelio.errors.ConversionError` where the graph has no such tensor."""
        try:
            node, port = tensor_name(tensor)
        except ReadError as error:
            raise ConversionError(error.reason) from None
        if node not in self.index:
            names = [other.name for other in self.index.nodes]
            raise ConversionError(f"the graph has no node {node!r}{nearest(node, names)}")
        count = len(self.index.output_dtypes(node))
        if not 0 <= port < count:
            raise ConversionError(f"{tensor!r} is no output of the node {node}, which has {count}", where=node)
        found = self._outputs(node)[port]
        return TensorSpec(f"{node}:{port}", found.dtype.removesuffix("_ref"), found.shape)

    def _outputs(self, name: str) -> list[_Known]:
        waiting, entered = [name], {name}
        while waiting:
            node = waiting[-1]
            sources = () if self._noted(node) else self.index.inputs(node)
            # A loop leads back to a node that waits: what is not known yet stays unknown.
            missing = [one for one, port in sources if port >= 0 and one not in self._known and one not in entered]
            if missing:
                waiting.append(missing[0])
                entered.add(missing[0])
            else:
                self._known[node] = self._infer(node)
                waiting.pop()
        return self._known[name]

    def _noted(self, name: str) -> list[shapes.Shape] | None:
        """The shapes that the file itself says."""
        node = self.index.node(name)
        placeholder = self.index.placeholder(name)
        if placeholder is not None:
            return [placeholder.shape]
        if node.op in ("Variable", "VariableV2") and "shape" in node.attr:
            return [dtypes.shape_to_tuple(node.attr["shape"].shape)]
        if node.op == "Const":
            return [dtypes.shape_to_tuple(node.attr["value"].tensor.tensor_shape)]
        if "_output_shapes" in node.attr:
            return [dtypes.shape_to_tuple(shape) for shape in node.attr["_output_shapes"].list.shape]
        return None

    def _infer(self, name: str) -> list[_Known]:
        node = self.index.node(name)
        kinds = self.index.output_dtypes(name)
        noted = self._noted(name)
        constant = _content(node)
        if noted is None:
            found = self._follow(node, len(kinds))
        else:
            found = [(shape, constant) for shape in noted[: len(kinds)]]
        found = [*found, *[(None, None)] * (len(kinds) - len(found))]
        return [_Known(f"{name}:{port}", kind, *found[port]) for port, kind in enumerate(kinds)]

    def _follow(self, node: Message, count: int) -> list[tuple[shapes.Shape, npt.NDArray[Any] | None]]:
        unknown = _Known("", "unknown", None)
        inputs = []
        for source, port in self.index.inputs(node.name):
            if port >= 0:
                outputs = self._known.get(source, [])
                inputs.append(outputs[port] if port < len(outputs) else unknown)
        if node.op == "ReadVariableOp" and inputs:
            handle = self.index.node(node_of(node.input[0]))
            return [(dtypes.shape_to_tuple(handle.attr["shape"].shape) if "shape" in handle.attr else None, None)]
        try:
            operation = self.index.operation(node)
            attrs = {
                key: attribute_value(node, key) if key in node.attr else row.default
                for key, row in operation.attrs.items()
                if key in node.attr or row.default is not REQUIRED
            }
            return list(shapes.infer(node.op, inputs, attrs, count))
        except Exception as error:  # a rule meets a graph that TensorFlow would refuse: nothing is known then
            if isinstance(error, (MemoryError, RecursionError)):
                raise
            return [(None, None)] * count


def _content(node: Message) -> npt.NDArray[Any] | None:
    """The numbers of a small constant."""
    if node.op != "Const":
        return None
    tensor = node.attr["value"].tensor
    shape = dtypes.shape_to_tuple(tensor.tensor_shape)
    if shape is None or len(shape) > 1 or tensor.version_number == dtypes.CUT or tensor.ByteSize() > LARGEST:
        return None
    try:
        return dtypes.tensor_to_numpy(tensor, where=node.name)
    except ReadError:
        return None
