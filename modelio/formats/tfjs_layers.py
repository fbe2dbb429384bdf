"""TensorFlow.js layers model: the architecture in ``model.json``, the weights end to end in shards beside it.

::

    model.json
      format               "layers-model"
      generatedBy          "keras v2.3.1"
      convertedBy          "modelio"
      modelTopology        {"keras_version": "2.3.1", "backend": "tensorflow",
                            "model_config": {"class_name": "Sequential", "config": ...},
                            "training_config": {"optimizer_config": ..., "loss": ...}}      the last where there is one
      weightsManifest      [{"paths": ["group1-shard1of2.bin", "group1-shard2of2.bin"],
                             "weights": [{"name": "dense_1/kernel", "shape": [64, 10], "dtype": "float32"}, ...]}]
      userDefinedMetadata  {"modelio": ...}
    group1-shard1of2.bin   4 MiB; the numbers of all weights one after the other, cut anywhere
    group1-shard2of2.bin   the rest

TensorFlow.js finds a weight by the name under which its own layers make it: ``dense_1/kernel``, ``lstm/kernel``,
``bi/forward_gru/kernel``. That is Keras' name without ":0" only most of the time, so it is made from the layer here. Of
the element types it knows five; float16 goes through its quantization, which takes those bits as they are, other small
types go as a larger one. A few words of Keras stop its loader, and are said otherwise. What got lost on the way is
noted beside what the user has put there::

    userDefinedMetadata.modelio   {"dialect": "keras2", "meta": {"keras_version": "2.3.1", ...},
                                   "weights": {layer: {name: entry of the manifest}}, with layers and names in order,
                                   "dtypes": {entry: element type}, of those that the manifest calls otherwise,
                                   "architecture": ...}, where model_config has other words

A file of other origin may also have a bare ``{"class_name": ..., "config": ...}`` as its modelTopology, several groups,
the training configuration beside the topology, the optimizer's weights in the manifest (``"group": "optimizer"``), and
quantized weights. They are read as the numbers that TensorFlow.js computes with, under the names of the manifest.

Sources: tensorflowjs 4.22 ``converters/keras_h5_conversion.py``, ``write_weights.py``, ``read_weights.py``,
``quantization.py``; @tensorflow/tfjs 4.22 ``tfjs-core/src/io/io_utils.ts``, ``tfjs-layers/src/models.ts``,
``engine/container.ts`` (loadWeights).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from modelio.errors import ConversionError, ReadError, WriteError
from modelio.format import Format
from modelio.model import Dialect, LayerModel, Tensor
from modelio.sink import Sink
from modelio.source import Source, Tree, member_name
from modelio.wire import jsontext

if TYPE_CHECKING:
    from modelio.layers.normal_form import Layer
    from modelio.wire import tfjs_weights

DOCUMENT, FORMAT_NAME, NOTES = "model.json", "layers-model", "modelio"
USER_DATA = "user_defined_metadata"
"""The key of ``meta`` that keeps a file's own userDefinedMetadata, as JSON."""

_CANDIDATES = 64
"""JSON files at the top of a tree that are looked into; more are a data set."""


def sniff(source: Source) -> bool:
    tree = source.tree
    return _is_document(source) if tree is None else bool(_documents(tree))


def _documents(tree: Tree) -> list[str]:
    if DOCUMENT in tree and _is_document(tree[DOCUMENT]):
        return [DOCUMENT]
    names = [name for name in tree.top() if name.lower().endswith(".json")][:_CANDIDATES]
    return [name for name in names if name in tree and _is_document(tree[name])]


def _is_document(source: Source) -> bool:
    """Whether it is the JSON of a layers model: a topology with layers, which that of a graph model has not."""
    if source.head(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{" or source.size > jsontext.SIZE:
        return False
    data = source.bytes()
    return b'"modelTopology"' in data and b'"class_name"' in data and b'"graph-model"' not in data


# Reading


def read(source: Source) -> LayerModel:
    """Read a model from a tree, or from its ``model.json`` with the shards beside it.

    Raises:
        ReadError: this is a graph model; a shard is missing or short; the manifest is not what it has to be.
        UnsafeInput: the manifest names a shard outside the directory.
    """
    document, files = _parsed(source)
    topology = _topology(document)
    from modelio.wire import tfjs_weights

    entries = tfjs_weights.read(document.get("weightsManifest", []), lambda path: _Shard(files, path))
    user_data = document.get("userDefinedMetadata") or {}
    if not isinstance(user_data, dict):
        raise ReadError("a JSON object is wanted", where="userDefinedMetadata")
    training = topology.get("training_config", document.get("trainingConfig"))
    if training is not None and not isinstance(training, dict):
        raise ReadError("a JSON object is wanted", where="training_config")
    architecture = _architecture(topology)
    notes = user_data.get(NOTES)
    if notes is not None:
        model = _noted(architecture, entries, notes)
    else:
        model = _strange(architecture, topology, entries)
    others = {key: value for key, value in user_data.items() if key != NOTES}
    if others:
        model.meta = {**model.meta, USER_DATA: jsontext.spell(others)}
    model.training = training
    return model


def _parsed(source: Source) -> tuple[dict[str, Any], Mapping[str, Source]]:
    tree = source.tree
    if tree is None:
        text, files = source, source.beside
    else:
        names = _documents(tree) or [name for name in (DOCUMENT,) if name in tree]
        if len(names) != 1:
            raise ReadError(f"several models: {', '.join(names)}; name one of them" if names else f"no {DOCUMENT}")
        text, files = tree[names[0]], tree
    document = jsontext.parse(text.bytes(jsontext.SIZE), where=DOCUMENT)
    if not isinstance(document, dict):
        raise ReadError("a JSON object is wanted", where=DOCUMENT)
    return document, files


def _topology(document: Mapping[str, Any]) -> dict[str, Any]:
    topology = document.get("modelTopology")
    if isinstance(topology, str):  # as some servers send it
        topology = jsontext.parse(topology, where="modelTopology")
    is_graph = isinstance(topology, dict) and "node" in topology
    if is_graph or document.get("format") == "graph-model":
        raise ReadError(
            "a TensorFlow.js graph model: its layers are gone, and graphs of that kind are not read; "
            "convert the model it was made from"
        )
    if document.get("format", FORMAT_NAME) != FORMAT_NAME:
        raise ReadError(f"the format is {json.dumps(document['format'])[:40]}, not {FORMAT_NAME}", where="format")
    if not isinstance(topology, dict):
        raise ReadError("the model's layers are missing: this file describes weights alone", where="modelTopology")
    return topology


def _architecture(topology: Mapping[str, Any]) -> dict[str, Any]:
    config = topology.get("model_config", topology)
    if isinstance(config, str):
        config = jsontext.parse(config, where="model_config")
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str) or "config" not in config:
        raise ReadError("no Keras architecture is here: class_name and config are missing", where="modelTopology")
    return config


def _noted(architecture: Mapping[str, Any], entries: list[tfjs_weights.Entry], notes: Any) -> LayerModel:
    """The model as it was before it was written here."""
    if isinstance(notes, dict):
        architecture = notes.get("architecture", architecture)
    if not isinstance(architecture, dict):
        raise ReadError("the architecture is not a JSON object", where=NOTES)
    if not isinstance(notes, dict) or notes.get("dialect") not in get_args(Dialect):
        raise ReadError("the dialect of Keras is missing or unknown", where=NOTES)
    meta, weights, dtypes = (notes.get(key, {}) for key in ("meta", "weights", "dtypes"))
    listed = isinstance(weights, dict) and all(isinstance(named, dict) for named in weights.values())
    facts = all(isinstance(group, dict) and all(isinstance(v, str) for v in group.values()) for group in (meta, dtypes))
    if not listed or not facts:
        raise ReadError('something else than {"weights": {layer: {name: entry}}} and texts is in it', where=NOTES)
    tensors = {entry.name: _tensor(entry) for entry in entries}
    found: dict[str, dict[str, Tensor]] = {}
    for layer, named in weights.items():
        found[layer] = {}
        for name, key in named.items():
            if not isinstance(key, str) or key not in tensors:
                raise ReadError(f"the weight {key!r} of {layer} is not in the manifest", where=NOTES)
            found[layer][name] = _narrowed(tensors.pop(key), dtypes.get(key), key)
    if tensors:
        raise ReadError(f"the manifest has weights that no layer lists: {', '.join(tensors)[:80]}", where=NOTES)
    return LayerModel(architecture, found, cast(Dialect, notes["dialect"]), meta=meta)


def _tensor(entry: tfjs_weights.Entry) -> Tensor:
    values = entry.values
    return Tensor(values.dtype, values.shape, values.numpy, values.chunks)


def _narrowed(tensor: Tensor, dtype: str | None, where: str) -> Tensor:
    """A tensor in the element type that it had before it was written as another."""
    if dtype is None or dtype == tensor.dtype.name:
        return tensor
    from modelio.wire import tfjs_weights

    if {"float16": "float32", **tfjs_weights.CARRIERS}.get(dtype) != tensor.dtype.name:
        raise ReadError(f"it is noted as {dtype}, and stored as {tensor.dtype.name}", where=where)
    own = _numpy_dtype(dtype)
    return Tensor(own, tensor.shape, lambda: tensor.numpy().astype(own))


def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def _strange(
    architecture: Mapping[str, Any], topology: Mapping[str, Any], entries: list[tfjs_weights.Entry]
) -> LayerModel:
    """A model that others wrote."""
    from modelio.layers.network import dialect_of

    meta = {key: value for key in ("keras_version", "backend") if isinstance(value := topology.get(key), str)}
    # TensorFlow.js itself, which says "tfjs-layers 4.22.0", speaks Keras 2.
    own = meta.get("keras_version", "").startswith("tfjs")
    model = LayerModel(architecture, {}, "keras2" if own else dialect_of(architecture, meta), meta=meta)
    model.optimizer = {entry.name: _tensor(entry) for entry in entries if entry.is_optimizer}
    model.weights = _by_layer(model, {entry.name: _tensor(entry) for entry in entries if not entry.is_optimizer})
    return model


def _by_layer(model: LayerModel, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The weights by top-level layer: a name begins with a layer's, or with that of a layer in a nested model.

    Layers come in the order of the architecture (those of the converter are sorted by name), the weights of a layer in
    the order of the manifest.
    """
    from modelio.layers.network import network_of

    try:
        layers = network_of(model.architecture or {}, model.dialect, model.meta).layers
    except (ReadError, ConversionError):  # a model written as a class
        layers = ()
    owners = {part.name: layer.name for layer in layers for part in layer.walk()}
    owners.update((layer.name, layer.name) for layer in layers)
    weights: dict[str, dict[str, Tensor]] = {layer.name: {} for layer in layers if layer.source}
    for name, tensor in tensors.items():
        ends = [end for end, letter in enumerate(name) if letter == "/"]
        prefix = next((name[:end] for end in reversed(ends) if name[:end] in owners), None)
        owner = owners[prefix] if prefix is not None else name.rpartition("/")[0] or name
        weights.setdefault(owner, {})[name] = tensor
    return weights


class _Shard:
    """One shard as a window. The file is opened for each piece: a model may have more shards than open files."""

    def __init__(self, files: Mapping[str, Source], path: str) -> None:
        name = member_name(path)
        if not name or name not in files:
            raise ReadError(
                f"this shard is not there: name the directory that it is in with {DOCUMENT}, or a mapping of all files",
                where=path,
            )
        self.size = files[name].size
        self._files = files
        self._name = name

    def read(self, offset: int, length: int) -> bytes | memoryview:
        window = self._files[self._name].window()
        if window.size != self.size:
            raise ReadError("the shard changed after the model was opened; read it again", where=self._name)
        return window.read(offset, length)


# Writing


def write(model: LayerModel, sink: Sink) -> None:
    """Write ``model.json`` and its shards.

    Raises:
        WriteError: the model has weights alone, or is not of Keras 2; an element type is one that TensorFlow.js cannot
            hold; a number in a configuration is none to JavaScript.
    """
    from modelio.wire import tfjs_weights

    if model.architecture is None:
        raise WriteError("this model has weights alone, and tfjs-layers starts from an architecture")
    if model.dialect != "keras2":
        raise WriteError(
            f"TensorFlow.js builds layers of Keras 2, and this model is of Keras {model.dialect[-1]}: "
            'convert it with dialect="keras2"'
        )
    names = _entry_names(model)
    parts = [
        tfjs_weights.Part.of(names[layer, name], tensor)
        for layer, group in model.weights.items()
        for name, tensor in group.items()
    ]
    meta = dict(model.meta)
    user_data = jsontext.parse(meta.pop(USER_DATA, "{}"), where=USER_DATA)
    notes: dict[str, Any] = {
        "dialect": model.dialect,
        "meta": meta,
        "weights": {layer: {name: names[layer, name] for name in group} for layer, group in model.weights.items()},
        "dtypes": {part.spec["name"]: part.dtype for part in parts if part.dtype != part.spec["dtype"]},
    }
    adapted = _adapted(model.architecture)
    if adapted != model.architecture:
        notes["architecture"] = model.architecture
    topology: dict[str, Any] = {key: meta[key] for key in ("keras_version", "backend") if key in meta}
    topology["model_config"] = adapted
    if model.training is not None:
        topology["training_config"] = model.training
    document = {
        "format": FORMAT_NAME,
        "generatedBy": f"keras v{meta['keras_version']}" if "keras_version" in meta else None,
        "convertedBy": NOTES,
        "modelTopology": topology,
        "weightsManifest": tfjs_weights.write(parts, sink.file),
        "userDefinedMetadata": {**(user_data if isinstance(user_data, dict) else {}), NOTES: notes},
    }
    with sink.file(DOCUMENT) as stream:
        stream.write(_spelled(document).encode())


def _spelled(document: Any) -> str:
    try:
        return json.dumps(document, allow_nan=False)
    except ValueError as error:
        raise WriteError(
            "a NaN or an infinity is in the configuration, and JavaScript's JSON has neither", where=DOCUMENT
        ) from error
    except (TypeError, RecursionError) as error:
        raise WriteError(f"this cannot be written as JSON: {error}", where=DOCUMENT) from error


_RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "UnifiedGRU": "GRU",
    "UnifiedLSTM": "LSTM",
}
"""Classes that TensorFlow 1.13 to 1.15 wrote under the names of their versions."""

_LEFT_OUT: dict[str, tuple[tuple[str, Callable[[Any], bool]], ...]] = {
    # They are those of all convolutions and mean nothing here; its constructor refuses them.
    "SeparableConv1D": tuple((f"kernel_{word}", bool) for word in ("initializer", "regularizer", "constraint")),
    "SeparableConv2D": tuple((f"kernel_{word}", bool) for word in ("initializer", "regularizer", "constraint")),
    # Keras 2.0 to 2.2 say the indices' type, which would become that of the weights.
    "Embedding": (("dtype", lambda dtype: isinstance(dtype, str) and dtype.lstrip("u").startswith("int")),),
}
"""Arguments that stop the loader, and their values that do."""

_RELU = {"negative_slope": 0, "threshold": 0}
"""Arguments of ReLU that TensorFlow.js reads past (``advanced_activations.ts``), and the values that change nothing."""


def _adapted(value: Any) -> Any:
    """An architecture in the words that the loader of TensorFlow.js takes; of the same meaning, or refused."""
    if isinstance(value, list):
        return [_adapted(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    node = {key: _adapted(item) for key, item in value.items()}
    name, config = node.get("class_name"), node.get("config")
    if not isinstance(name, str) or not isinstance(config, dict):
        return node
    node["class_name"] = name = _RENAMED.get(name, name)
    for key, stops in _LEFT_OUT.get(name, ()):
        if stops(config.get(key)):
            del config[key]
    told = [key for key, nothing in _RELU.items() if name == "ReLU" and config.get(key) not in (None, nothing)]
    if told == ["negative_slope"] and config.get("max_value") is None:
        node["class_name"] = "LeakyReLU"
        alpha = config.pop("negative_slope")
        node["config"] = {key: item for key, item in config.items() if key not in ("max_value", "threshold")}
        node["config"]["alpha"] = alpha
    elif told:
        raise WriteError(
            f"TensorFlow.js does not look at {' and '.join(told)} of ReLU, and would compute other numbers",
            where=str(config.get("name")),
        )
    return node


def _entry_names(model: LayerModel) -> dict[tuple[str, str], str]:
    """The name of each weight by layer and stored name: TensorFlow.js' own, or the stored one of an unknown layer."""
    own = _own_names(model)
    names: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for layer, group in model.weights.items():
        for stored, tensor in group.items():
            name = own.get(id(tensor), stored.removesuffix(":0"))
            while name in taken:
                name += "_"
            taken.add(name)
            names[layer, stored] = name
    return names


def _own_names(model: LayerModel) -> dict[int, str]:
    """TensorFlow.js' name of each tensor, by identity."""
    from modelio.layers.binding import bind
    from modelio.layers.network import network_of

    try:
        network = bind(network_of(model.architecture or {}, model.dialect, model.meta), model)
    except (ReadError, ConversionError):  # layers that nobody knows, written as they are
        return {}
    names = {
        id(tensor): f"{scope}/{role}"
        for layer in network.layers
        for part, scope in _scoped(layer, layer.name)
        for role, tensor in part.weights.items()
    }
    known = {id(tensor) for group in model.weights.values() for tensor in group.values()}
    if model.meta.get("backend") == "theano" and not names.keys() <= known:
        raise WriteError(
            "the kernels are those of Theano, which turns them before it applies them, and TensorFlow.js does not: "
            'convert to another format with dialect="keras3", and that with dialect="keras2"'
        )
    return names


def _scoped(layer: Layer, scope: str) -> Iterator[tuple[Layer, str]]:
    """A layer and those inside it, with the scope in which TensorFlow.js makes their weights.

    Source: @tensorflow/tfjs 4.22 ``tfjs-layers/src/layers/wrappers.ts`` and ``recurrent.ts``. A wrapper builds its
    layer, and a recurrent layer its cell, in its own scope; a nested model is built before it is in one.
    """
    yield layer, scope
    for inner in layer.network.layers if layer.network else ():
        yield from _scoped(inner, inner.name)
    for key, inner in layer.inner.items():
        if layer.class_name == "Bidirectional":  # both directions are copies of the first, with its name
            direction = "forward" if key == "layer" else "backward"
            yield from _scoped(inner, f"{scope}/{direction}_{layer.inner['layer'].name}")
        elif key.startswith("cell_"):
            yield from _scoped(inner, f"{scope}/RNNCell_{key.removeprefix('cell_')}")
        else:
            yield from _scoped(inner, scope)


FORMAT = Format(
    name="tfjs-layers",
    level="layers",
    summary="TensorFlow.js layers model: model.json and shards of weights",
    shape="tree",
    keeps=frozenset({"architecture", "weights", "training"}),
    dialects=frozenset({"keras2"}),
    sniff=sniff,
    read=read,
    write=write,
)
