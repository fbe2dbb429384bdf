"""What a model really needs and answers, as plain data. No weight is read.

::

    Report                  .to_dict() is `inspect --json`, str() and ._repr_html_() are for people (render.py)
     |- signatures   name -> SignatureReport
     |   |- inputs, outputs     as declared: key -> TensorSpec
     |   |- required            placeholders that TensorFlow must be fed, or the request fails
     |   |- optional            placeholders that have a default
     |   |- undeclared          required, and no input stands for them: the learning_phase trap
     |   |- unneeded            inputs that no output depends on: labels
     |   '- wanted_by           input -> the outputs that depend on it
     |- weights      Weights
     |- layers       (LayerReport, ...), None for a graph
     '- operations   op -> how many nodes

A model of layers has one signature, the one that it gets when it becomes a graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from modelio.errors import ConversionError, ReadError, WriteError
from modelio.format import Level
from modelio.graph.analysis import Graph, Placeholder, required_placeholders, signature_of, tensor_name
from modelio.graph.names import legal_name
from modelio.inspection.words import listed
from modelio.model import GraphModel, LayerModel, Message, Signature, TensorSpec

if TYPE_CHECKING:
    from modelio.layers.network import Layer, Network

    Shapes = Mapping[Layer, tuple[tuple[int | None, ...] | None, ...]]

__all__ = ["LayerReport", "Report", "SignatureReport", "Weight", "Weights", "report_of"]

PREDICT = "tensorflow/serving/predict"
"""The method name that a converted model gets (tensorflow/python/saved_model/signature_constants.py)."""

Shape = tuple[int | None, ...] | None


@dataclass(frozen=True)
class SignatureReport:
    """What can be asked, and what asking it takes.

    ``placeholders`` are the required and optional ones by name. ``defaults`` are the values of optional ones, where the
    graph has them as a small constant.
    """

    method: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    undeclared: tuple[Placeholder, ...] = ()
    unneeded: tuple[str, ...] = ()
    placeholders: Mapping[str, Placeholder] = field(default_factory=dict)
    wanted_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """This part of ``inspect --json``."""
        return {
            "method": self.method,
            "inputs": {key: _spec(spec) for key, spec in self.inputs.items()},
            "outputs": {key: _spec(spec) for key, spec in self.outputs.items()},
            "required": list(self.required),
            "optional": list(self.optional),
            "undeclared": [
                {"placeholder": item.name, "dtype": item.dtype, "shape": _sizes(item.shape), "role": item.role}
                for item in self.undeclared
            ],
            "unneeded": list(self.unneeded),
        }


class Weight(NamedTuple):
    """One stored tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class Weights(NamedTuple):
    """The stored tensors: how many, with how many elements, in how many bytes."""

    tensors: tuple[Weight, ...]

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(prod(weight.shape) for weight in self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(weight.nbytes for weight in self.tensors)

    def to_dict(self) -> dict[str, int]:
        """This part of ``inspect --json``."""
        return {"tensors": len(self.tensors), "parameters": self.parameters, "bytes": self.nbytes}


class LayerReport(NamedTuple):
    """A layer of the outermost network.

    ``class_name`` is the file's own word, None where the file holds weights only. ``output_shape`` is None where it is
    not known, and has a shape for each output where the layer has several. ``parameters`` is None where the file
    holds no weights.
    """

    name: str
    class_name: str | None
    output_shape: Shape | tuple[Shape, ...]
    parameters: int | None

    def to_dict(self) -> dict[str, Any]:
        """This part of ``inspect --json``."""
        return {
            "name": self.name,
            "class": self.class_name,
            "output_shape": _sizes(self.output_shape),
            "parameters": self.parameters,
        }


@dataclass(frozen=True)
class Report:
    """What :func:`modelio.inspect` says. ``format`` is None for a model that was not read from a file."""

    format: str | None
    level: Level
    meta: Mapping[str, str]
    tags: frozenset[str]
    signatures: Mapping[str, SignatureReport]
    weights: Weights
    layers: tuple[LayerReport, ...] | None = None
    functions: int = 0
    operations: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def to_dict(self, *, weights: bool = False) -> dict[str, Any]:
        """The object of ``inspect --json``; with ``weights``, each weight's name, dtype and shape as well."""
        totals: dict[str, Any] = dict(self.weights.to_dict())
        if weights:
            totals["list"] = [
                {"name": weight.name, "dtype": weight.dtype, "shape": list(weight.shape)}
                for weight in self.weights.tensors
            ]
        return {
            "format": self.format,
            "level": self.level,
            "meta": dict(self.meta),
            "tags": sorted(self.tags),
            "signatures": {name: signature.to_dict() for name, signature in self.signatures.items()},
            "weights": totals,
            "layers": None if self.layers is None else [layer.to_dict() for layer in self.layers],
            "functions": self.functions,
            "operations": dict(self.operations),
        }

    def only(self, signature: str) -> Report:
        """The report on one signature; :class:`~modelio.errors.ConversionError` where there is none of that name."""
        if signature not in self.signatures:
            raise ConversionError(
                f"no signature is called {signature!r}; there are {', '.join(self.signatures) or 'none'}"
            )
        return replace(self, signatures={signature: self.signatures[signature]})

    def text(self, *, weights: bool = False, paint: Callable[[str, str], str] | None = None) -> str:
        """The report for people, at most 100 columns wide.

        Args:
            weights: list every weight.
            paint: takes the name of a style (``render.STYLES``) and a piece of text, and returns it coloured.
        """
        from modelio.inspection import render

        return render.text(self, weights=weights, paint=paint)

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from modelio.inspection import render

        return render.html(self)


def report_of(model: LayerModel | GraphModel, *, format: str | None = None, level: Level | None = None) -> Report:
    """The report on a model.

    Args:
        model: what a format's reader gave.
        format: the format's name, None where there is none.
        level: the format's level; left out, the model's own.

    Raises:
        ReadError: the graph contradicts itself: an input or a signature names a node that is not there, nodes wait for
            each other, a function is missing.
    """
    if isinstance(model, LayerModel):
        return _report_of_layers(model, format)
    return _report_of_graph(model, format, level)


# -- graphs ------------------------------------------------------------------------------------------------------------


def _report_of_graph(model: GraphModel, format: str | None, level: Level | None) -> Report:
    if level is None:
        level = "graph" if model.variables or model.tags else "frozen"
    graph = Graph(model.graph)
    signatures: Mapping[str, Signature] = model.signatures
    if level == "frozen" and not signatures:  # made in memory: the reader of a frozen graph has seen to it
        signatures = {"graph": signature_of(graph)}
    nodes = list(_nodes(model.graph))
    operations = Counter(node.op for _, node in nodes)
    return Report(
        format=format,
        level=level,
        meta=dict(model.meta),
        tags=model.tags,
        signatures={name: _signature(graph, signature, name) for name, signature in signatures.items()},
        weights=Weights(tuple(_stored(model) if model.variables else _constants(nodes))),
        functions=len(graph.functions),
        operations=dict(sorted(operations.items(), key=lambda item: (-item[1], item[0]))),
        remarks=tuple(_graph_remarks(model, signatures)),
    )


def _graph_remarks(model: GraphModel, signatures: Mapping[str, Signature]) -> Iterator[str]:
    """What the parts that are missing mean."""
    if model.variables and not model.graph.node and not model.graph.library.function:
        yield (
            "There are variables and no graph: what is computed with them is in the code that was trained, or in a "
            ".meta file that belongs beside these."
        )
    if model.variables and "checkpoint" in model.meta and "checkpoint_version" not in model.meta:
        yield (
            "This is the graph alone: the numbers of its variables are in the .index and .data files that belong "
            "beside it, and without them it can only be looked at."
        )
    if not signatures and not model.tags and model.graph.node:
        named = [node.name for node in model.graph.node if node.op.startswith("Placeholder")]
        placeholders = listed(name for name in named if not name.startswith("save/"))  # tf.train.Saver's file names
        yield (
            "There is no signature: which tensors go in and which come out is for you to say. "
            + (f"The placeholders are {placeholders}." if placeholders else "There is no placeholder.")
        )


def _nodes(graph: Message) -> Iterator[tuple[str, Message]]:
    """Every node with its name, a function's under that function's name."""
    for node in graph.node:
        yield node.name, node
    for function in graph.library.function:
        for node in function.node_def:
            yield f"{function.signature.name}:{node.name}", node


def _stored(model: GraphModel) -> Iterator[Weight]:
    for name, tensor in model.variables.items():
        yield Weight(name, _dtype_name(tensor.dtype), tensor.shape, tensor.nbytes)


def _constants(nodes: Iterable[tuple[str, Message]]) -> Iterator[Weight]:
    """The weights of a frozen graph: constants with elements and dimensions that are no indices, sizes, flags or texts.

    A graph computes shapes, axes and permutations with int32 and int64; its numbers are of other types. Batch
    normalization in training mode is given two empty ones (FusedBatchNorm's mean and variance).
    """
    from modelio.wire import dtypes

    for name, node in nodes:
        if node.op != "Const" or "value" not in node.attr:
            continue
        tensor = node.attr["value"].tensor
        dtype = dtypes.dtype_name(tensor.dtype)
        shape = tuple(max(dim.size, 0) for dim in tensor.tensor_shape.dim)
        if dtype not in _NO_WEIGHTS and shape and prod(shape):
            yield Weight(name, dtype, shape, prod(shape) * dtypes.numpy_dtype(tensor.dtype, where=name).itemsize)


_NO_WEIGHTS = frozenset({"int32", "int64", "bool", "string", "resource", "variant", "unknown"})


def _signature(graph: Graph, signature: Signature, name: str) -> SignatureReport:
    """What asking all outputs of a signature takes, when all its inputs are fed."""
    fetched = _by_tensor(graph, signature.outputs, f"signature {name}, output")
    fed = _by_tensor(graph, signature.inputs, f"signature {name}, input")
    needs = required_placeholders(graph, fetched, fed)

    wanted_by: dict[str, tuple[str, ...]] = {}
    declared: dict[str, Placeholder] = {}
    for tensor, fetches in needs.feeds.items():
        outputs = {key for fetch in fetches for key in fetched[fetch]}
        wanted_by.update(dict.fromkeys(fed[tensor], tuple(key for key in signature.outputs if key in outputs)))
        placeholder = graph.placeholder(tensor_name(tensor).node)
        if placeholder is not None:
            declared[placeholder.name] = placeholder
    reached = {**declared, **{placeholder.name: placeholder for placeholder in needs.placeholders}}
    ordered = sorted(reached.values(), key=lambda item: _place(graph, item))
    return SignatureReport(
        method=signature.method,
        inputs=dict(signature.inputs),
        outputs=dict(signature.outputs),
        required=tuple(item.name for item in ordered if not item.has_default),
        optional=tuple(item.name for item in ordered if item.has_default),
        undeclared=tuple(item for item in ordered if not item.has_default and item.name not in declared),
        unneeded=tuple(key for key in signature.inputs if key not in wanted_by),
        placeholders={item.name: item for item in ordered},
        wanted_by={key: wanted_by[key] for key in signature.inputs if key in wanted_by},
        defaults=dict(_defaults(graph, ordered)),
    )


def _by_tensor(graph: Graph, ends: Mapping[str, TensorSpec], where: str) -> dict[str, list[str]]:
    """The keys of a signature's inputs or outputs by the tensor they stand for; several may be one tensor."""
    keys: dict[str, list[str]] = {}
    for key, spec in ends.items():
        try:
            node, port = tensor_name(spec.tensor)
            graph.position(node)
        except ReadError as error:
            raise ReadError(f"its tensor {spec.tensor!r} is not in the graph", where=f"{where} {key}") from error
        keys.setdefault(f"{node}:{port}" if port >= 0 else spec.tensor, []).append(key)
    return keys


def _place(graph: Graph, placeholder: Placeholder) -> tuple[bool, int, str]:
    """The graph's order, and what is inside functions after that."""
    if placeholder.function is not None:
        return True, 0, placeholder.name
    return False, graph.position(placeholder.name), ""


def _defaults(graph: Graph, placeholders: Iterable[Placeholder]) -> Iterator[tuple[str, Any]]:
    """What a placeholder is that is not fed: the constant at its input, if it is a short one."""
    from modelio.wire import dtypes

    for placeholder in placeholders:
        if not placeholder.has_default or placeholder.function is not None:
            continue
        source = [node for node, port in graph.inputs(placeholder.name) if port >= 0]
        node = graph.node(source[0]) if source else None
        if node is None or node.op != "Const" or "value" not in node.attr:
            continue
        tensor = node.attr["value"].tensor
        if prod(max(dim.size, 0) for dim in tensor.tensor_shape.dim) <= _SHORT:
            yield placeholder.name, dtypes.tensor_to_numpy(tensor, where=node.name).tolist()


_SHORT = 8


# -- layers ------------------------------------------------------------------------------------------------------------


def _report_of_layers(model: LayerModel, format: str | None) -> Report:
    from modelio.layers.shapes import shapes_of

    held = {
        layer: [
            Weight(_joined(layer, name), _dtype_name(tensor.dtype), tensor.shape, tensor.nbytes)
            for name, tensor in tensors.items()
        ]
        for layer, tensors in model.weights.items()
    }
    parameters = {layer: sum(prod(weight.shape) for weight in weights) for layer, weights in held.items()}
    network, remarks = _network(model)
    signatures: dict[str, SignatureReport] = {}
    layers = [LayerReport(name, None, None, number) for name, number in parameters.items()]
    if network is not None:
        shapes = shapes_of(network).outputs
        signatures["serving_default"] = _future_signature(network, shapes)
        layers = list(_layers(network, shapes, parameters))
    return Report(
        format=format,
        level="layers",
        meta=dict(model.meta),
        tags=frozenset(),
        signatures=signatures,
        weights=Weights(tuple(weight for weights in held.values() for weight in weights)),
        layers=tuple(layers),
        remarks=remarks,
    )


def _network(model: LayerModel) -> tuple[Network | None, tuple[str, ...]]:
    """The layers and how they are connected, or why there are none."""
    from modelio.layers.network import network_of

    if model.architecture is None:
        return None, ("These are weights only: what the layers are, and how they are connected, is in another file.",)
    try:
        return network_of(model.architecture, dialect=model.dialect, meta=model.meta), ()
    except ConversionError as error:  # a model written as a Python class
        return None, (f"{error.reason}.",)


def _future_signature(network: Network, shapes: Shapes) -> SignatureReport:
    """What the model will take and give as a graph: placeholders and outputs named after its layers."""
    inputs = {
        name: TensorSpec(f"{legal_name(name)}:0", spec.dtype, spec.shape)
        for name, spec in zip(network.input_names, network.input_specs, strict=True)
    }
    outputs = {}
    for name, ref in zip(network.output_names, network.outputs, strict=True):
        layer = network.calls[ref.call].layer
        known = shapes.get(layer, ())
        shape = known[ref.output] if ref.output < len(known) else None
        outputs[name] = TensorSpec(f"{legal_name(name)}:0", layer.dtype, shape)
    return SignatureReport(
        method=PREDICT,
        inputs=inputs,
        outputs=outputs,
        required=tuple(map(legal_name, inputs)),
        placeholders={
            legal_name(key): Placeholder(legal_name(key), spec.dtype, spec.shape) for key, spec in inputs.items()
        },
        wanted_by=dict.fromkeys(map(legal_name, inputs), tuple(outputs)),
    )


def _layers(network: Network, shapes: Shapes, parameters: Mapping[str, int]) -> Iterator[LayerReport]:
    """The layers that the file lists; the InputLayer that a Sequential leaves out is none of them."""
    for layer in network.layers:
        if not layer.source:
            continue
        outputs = shapes.get(layer, (None,))
        yield LayerReport(
            layer.name,
            layer.source_class,
            outputs[0] if len(outputs) == 1 else outputs,
            parameters.get(layer.name, 0) if parameters else None,
        )


def _joined(layer: str, name: str) -> str:
    """A weight's name with its layer's in front, once."""
    return name if name.startswith(f"{layer}/") else f"{layer}/{name}"


# -- JSON --------------------------------------------------------------------------------------------------------------


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"tensor": spec.tensor, "dtype": spec.dtype, "shape": _sizes(spec.shape)}


def _sizes(shape: Any) -> Any:
    """A shape, or several, as JSON has them."""
    return [_sizes(item) if isinstance(item, tuple) else item for item in shape] if shape is not None else None


def _dtype_name(dtype: Any) -> str:
    """TensorFlow's name of it; NumPy's, of what TensorFlow does not have."""
    from modelio.wire import dtypes

    try:
        return dtypes.dtype_name(dtypes.dtype_number(dtype))
    except WriteError:
        return str(dtype.name)
