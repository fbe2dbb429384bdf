"""Architectures read into the normal form: every dialect, Sequential and functional, models in models.

What differs between dialects is in ``keras1.py``, ``keras2.py`` and ``keras3.py``, what is known of each class in
``catalogue.py``, and how calls are written in ``nodes.py``; here is what all share: who holds whom, and what Keras adds
that no file says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

from modelio.errors import ConversionError, ReadError, UnsafeInput
from modelio.layers import keras1, keras2, keras3
from modelio.layers.catalogue import CATALOGUE, Shape, complete
from modelio.layers.nodes import Node, Origin, connect, flatten, node_of, origins_of
from modelio.layers.normal_form import Call, Family, InputSpec, Layer, Network, Ref
from modelio.layers.values import DEPTH, decode, version_of
from modelio.model import Dialect

__all__ = ["Call", "InputSpec", "Layer", "Network", "Ref", "backend_of", "dialect_of", "network_of"]


def network_of(
    architecture: Mapping[str, Any], dialect: Dialect | None = None, meta: Mapping[str, str] | None = None
) -> Network:
    """The normal form of a Keras architecture: of what ``model.to_json()`` gives, or the ``model_config`` of a file.

    Args:
        architecture: the parsed JSON.
        dialect: left out, it is read from the architecture.
        meta: ``keras_version`` and ``backend``, where the file keeps them beside the architecture.

    Raises:
        ReadError: the architecture contradicts itself; ``where`` is the path of the layer.
        ConversionError: the model is a Python class whose structure no file holds.
    """
    facts = {**{key: architecture.get(key) for key in ("keras_version", "backend")}, **(meta or {})}
    reader = _Reader(dialect or dialect_of(architecture, meta), str(facts.get("keras_version") or ""))
    if "class_name" not in architecture and "input_layers" not in architecture:
        reader.version = (0,)
    node = _whole(architecture)
    if not _is_network(node):
        raise ConversionError(
            f"{node['class_name']} is a model written as a Python class: the file names it, but does not hold its "
            "layers; build it in Keras and load its weights there",
            where=node["class_name"],
        )
    if reader.dialect == "keras1":
        reader.find_data_format(node)
    return reader.network(node, path="", name=str(_name(node) or "model"), depth=0)


def dialect_of(architecture: Mapping[str, Any], meta: Mapping[str, str] | None = None) -> Dialect:
    """Who wrote this JSON: by the version where one is given, otherwise by its words."""
    version = version_of((meta or {}).get("keras_version") or architecture.get("keras_version"))
    if version:
        return cast(Dialect, f"keras{min(max(version[0], 1), 3)}")
    words = _words(architecture)
    # TensorFlow 2.12 to 2.15 write modules too, in .keras files, but their inputs have a batch_input_shape.
    if words & {"module", "batch_shape", "registered_name", "build_config"} and "batch_input_shape" not in words:
        return "keras3"
    if keras1.is_own(dict.fromkeys(words)) or "class_name" not in words:
        return "keras1"
    return "keras2"


def backend_of(architecture: Mapping[str, Any], meta: Mapping[str, str] | None = None) -> str | None:
    """The backend that Keras ran on, where the file says it: ``"theano"``."""
    backend = (meta or {}).get("backend") or architecture.get("backend")
    return backend if isinstance(backend, str) else None


def _words(value: Any) -> set[str]:
    """All keys at all depths."""
    words: set[str] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            words.update(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return words


def _whole(architecture: Mapping[str, Any]) -> Mapping[str, Any]:
    """The architecture as ``{class_name, config}``, also where only the config was kept."""
    if isinstance(architecture.get("class_name"), str):
        return architecture
    if "node_config" in architecture:
        raise ReadError("this is a Graph of Keras 0.x, which is not read: Keras 1.0 loads it and saves it as a Model")
    if "layers" not in architecture:
        raise ReadError("this is no Keras architecture: it has neither class_name nor layers")
    if "input_layers" in architecture:  # somebody saved model.get_config()
        return {"class_name": "Functional", "config": architecture}
    return {"class_name": "Sequential", "config": architecture["layers"]}  # Keras 0.x


def _is_network(node: Mapping[str, Any]) -> bool:
    name, config = node.get("class_name"), node.get("config")
    if name in ("Sequential", "Merge"):  # Keras 1's Merge may hold models, but is none
        return bool(name == "Sequential")
    if not isinstance(name, str) or not isinstance(config, Mapping) or "layers" not in config:
        return False
    layers = config["layers"]
    listed = isinstance(layers, list) and all(isinstance(item, Mapping) for item in layers)
    return "input_layers" in config or (listed and name not in CATALOGUE)


def _name(node: Mapping[str, Any]) -> str | None:
    """A node's name: beside the config in functional models, inside it elsewhere."""
    name = node.get("name")
    config = node.get("config")
    if not isinstance(name, str) and isinstance(config, Mapping):
        name = config.get("name")
    return name if isinstance(name, str) else None


_NORMAL = {"keras1": keras1.normal, "keras2": keras2.normal, "keras3": keras3.normal}

_WRAPPED = ("layer", "backward_layer", "cell")
_ACTIVATIONS = ("activation", "recurrent_activation")
"""An activation may be a layer too: ``Dense(8, activation=PReLU())``."""


class _Reader:
    """Reads one architecture, and remembers what one part of it says about the others.

    That is the version, Keras 1's default data format, and its counters for the names of inputs.
    """

    def __init__(self, dialect: Dialect, version: str) -> None:
        self.dialect = dialect
        self.version = version_of(version) or (int(dialect[-1]),)
        # TensorFlow's Keras said "-tf" until it took over at 2.4.
        inside = dialect == "keras2" and (version.endswith("-tf") or self.version >= (2, 4))
        self.family: Family = "tf.keras" if inside else "keras"
        self.data_format: str | None = None
        self.uids: Counter[str] = Counter()

    def find_data_format(self, node: Mapping[str, Any]) -> None:
        """Keras 1 leaves dim_ordering out for some layers, who then follow keras.json: take what the others say."""
        waiting: list[Any] = [node]
        while waiting and self.data_format is None:
            item = waiting.pop()
            if isinstance(item, Mapping):
                stated = item.get("dim_ordering") or item.get("data_format")
                if stated in ("th", "tf", "channels_first", "channels_last"):
                    self.data_format = "channels_first" if stated in ("th", "channels_first") else "channels_last"
                waiting.extend(item.values())
            elif isinstance(item, list):
                waiting.extend(item)

    # -- layers ----------------------------------------------------------------------------------------------------

    def layer(self, node: Any, path: str, depth: int, name: str | None = None) -> Layer:
        """One ``{class_name, config}`` and all inside it."""
        where = path or "model"
        if depth > DEPTH:
            raise UnsafeInput(f"layers are nested more than {DEPTH} deep", where=where)
        if not isinstance(node, Mapping) or not isinstance(node.get("class_name"), str):
            raise ReadError("a layer here has no class_name", where=where)
        source_class = node["class_name"]
        name = name or _name(node) or source_class.lower()
        path = f"{path}/{name}" if path else name
        if _is_network(node):
            return self._model(node, name, path, depth)
        config = node.get("config")
        if not isinstance(config, Mapping):
            raise ReadError(f"{source_class} has no config", where=path)
        class_name = keras3.class_of(node) if self.dialect == "keras3" else source_class
        class_name, config = _NORMAL[self.dialect](class_name, config)
        if self.dialect == "keras2" and self.family == "keras":
            config = keras2.heeded(class_name, config, self.version)
        inner = self._inner(class_name, config, path, depth)
        config = {key: decode(value, path) for key, value in config.items() if key not in _WRAPPED}
        if self.dialect == "keras1" and config.get("data_format") is None and _is_image(class_name):
            config["data_format"] = self.data_format
        for key in _ACTIVATIONS:
            if key in config:
                config[key] = _activation(config[key])
        config = complete(class_name, config)
        dtype, variable_dtype = _dtypes(config.get("dtype") or _own_dtype(class_name, config), class_name)
        return self._made(
            *(class_name, name, path, config, node),
            dtype=dtype,
            variable_dtype=variable_dtype,
            trainable=config.get("trainable") is not False,
            inner=inner,
        )

    def _made(
        self, class_name: str, name: str, path: str, config: dict[str, Any], node: Mapping[str, Any], **more: Any
    ) -> Layer:
        source_class = str(node.get("class_name", class_name))
        return Layer(
            *(class_name, name, path, config, source_class, self.dialect, self.version, self.family),
            source=node,
            **more,
        )

    def _model(self, node: Mapping[str, Any], name: str, path: str, depth: int) -> Layer:
        config = node.get("config")
        arguments = (
            {key: value for key, value in config.items() if key != "layers"} if isinstance(config, Mapping) else {}
        )
        network = self.network(node, path, name, depth)
        trainable = arguments.get("trainable") is not False
        return self._made(network.kind, name, path, arguments, node, network=network, trainable=trainable)

    def _inner(self, class_name: str, config: Mapping[str, Any], path: str, depth: int) -> dict[str, Layer]:
        nodes = {
            key: config[key] for key in (*_WRAPPED, *_ACTIVATIONS) if _is_layer_node(config.get(key), key, class_name)
        }
        cells = config.get("cells")
        if isinstance(cells, list) and class_name == "StackedRNNCells":
            nodes.update({f"cell_{index}": cell for index, cell in enumerate(cells)})
        inner = {key: self.layer(node, path, depth + 1) for key, node in nodes.items()}
        if class_name == "Bidirectional" and "layer" in inner and "backward_layer" not in inner:
            inner["backward_layer"] = self._backward(nodes["layer"], path, depth)
        names = Counter(layer.name for layer in inner.values())
        for key, layer in inner.items():
            if names[layer.name] > 1:
                layer.path = f"{path}/{key}"
        return inner

    def _backward(self, forward: Mapping[str, Any], path: str, depth: int) -> Layer:
        """The layer that Bidirectional makes of the one it was given (Keras 2.3.1 ``layers/wrappers.py``)."""
        name = _name(forward) or ""
        name = "backward_" + name.removeprefix("forward_")
        layer = self.layer(forward, path, depth + 1, name)
        layer.config["go_backwards"] = not layer.config.get("go_backwards")
        layer.config["name"] = name
        return layer

    # -- networks --------------------------------------------------------------------------------------------------

    def network(self, node: Mapping[str, Any], path: str, name: str, depth: int) -> Network:
        """A Sequential or functional model."""
        where = path or name
        if depth > DEPTH:
            raise UnsafeInput(f"models are nested more than {DEPTH} deep", where=where)
        config = node.get("config")
        if isinstance(config, Mapping) and "input_layers" in config:
            return self._functional(config, path, name, depth)
        layers = config.get("layers") if isinstance(config, Mapping) else config
        if not isinstance(layers, list):
            raise ReadError(f"{node.get('class_name')} has no list of layers", where=where)
        given = config if isinstance(config, Mapping) else {}
        return self._sequential(layers, given, node, path, name, depth)

    def _functional(self, config: Mapping[str, Any], path: str, name: str, depth: int) -> Network:
        where = path or name
        layers: dict[str, Layer] = {}
        nodes: dict[str, list[Node]] = {}
        if not isinstance(config["layers"], list):
            raise ReadError("layers is not a list", where=where)
        for layer_node in config["layers"]:
            layer = self.layer(layer_node, path, depth + 1)
            if layer.name in layers:
                raise ReadError(f"two layers are called {layer.name}", where=layer.path)
            layers[layer.name] = layer
            inbound = layer_node.get("inbound_nodes") or []
            if not isinstance(inbound, list):
                raise ReadError("inbound_nodes is not a list", where=layer.path)
            nodes[layer.name] = [node_of(data, layers, layer.path) for data in inbound]
            if layer.class_name == "InputLayer":
                nodes[layer.name] = [Node((), {})]
        ends = {
            end: origins_of(config.get(f"{end[:-1]}_layers"), f"{where}/{end[:-1]}_layers")
            for end in ("inputs", "outputs")
        }
        networks = {layer.name for layer in layers.values() if layer.network is not None}
        counted = {name for name in networks if self.dialect == "keras3" and layers[name].class_name == "Functional"}
        order, place_of = connect(nodes, ends, networks, where, counted, raw=self.dialect == "keras3")

        def placed(value: Any, is_end: bool = False) -> Any:
            return _mapped(value, Origin, lambda origin: Ref(*place_of(origin, is_end)))

        calls = tuple(_call(layers[called], placed(node.args), placed(dict(node.kwargs))) for called, node in order)
        structure = {end: placed(origins, is_end=True) for end, origins in ends.items()}
        return self._joined(name, tuple(layers.values()), calls, structure, "Functional", where)

    def _sequential(
        self, nodes: list[Any], given: Mapping[str, Any], node: Mapping[str, Any], path: str, name: str, depth: int
    ) -> Network:
        layers: dict[str, Layer] = {}
        calls: list[Call] = []
        inputs: list[Ref] = []
        counts: Counter[str] = Counter()
        current: Any = None
        for index, layer_node in enumerate(nodes):
            if not isinstance(layer_node, Mapping):
                raise ReadError("a layer here has no class_name", where=path or name)
            layer_name = None
            if "class_name" not in layer_node:
                layer_node = keras1.old_node(layer_node)
                plain = _name(layer_node) or str(layer_node.get("class_name")).lower()
                counts[plain] += 1
                layer_name = f"{plain}_{counts[plain]}"
            if index == 0 and layer_node.get("class_name") == "Merge" and _branches(layer_node):
                current = self._merged(_branches(layer_node), path, depth, layers, calls, inputs)
            # A layer that was added twice is listed twice (Keras 2.0.5 models.py Sequential.from_config, layer_cache).
            known = layers.get(layer_name or _name(layer_node) or "")
            if known is not None and known.source != layer_node:
                raise ReadError(f"two layers are called {known.name}", where=known.path)
            layer = known or self.layer(layer_node, path, depth + 1, layer_name)
            if known is None and layer.name in layers:
                raise ReadError(f"two layers are called {layer.name}", where=layer.path)
            layers[layer.name] = layer
            if layer.class_name == "InputLayer":
                if current is not None:
                    raise ReadError("an InputLayer stands behind other layers", where=layer.path)
                calls.append(Call(layer))
                inputs.append(Ref(len(calls) - 1))
            else:
                if current is None:
                    sources = self._sources(layer, given, node, path)
                    layers = {**{source.name: source for source in sources}, **layers}
                    calls.extend(Call(source) for source in sources)
                    inputs.extend(Ref(number) for number in range(len(sources)))
                    current = inputs[0] if len(inputs) == 1 else list(inputs)
                calls.append(Call(layer, (current,)))
            current = Ref(len(calls) - 1)
        if current is None:
            raise ReadError("this Sequential has no layers", where=path or name)
        structure = {"inputs": list(inputs), "outputs": [current]}
        return self._joined(name, tuple(layers.values()), tuple(calls), structure, "Sequential", path or name)

    def _merged(
        self,
        branches: list[Any],
        path: str,
        depth: int,
        layers: dict[str, Layer],
        calls: list[Call],
        inputs: list[Ref],
    ) -> list[Ref]:
        """Keras 1's Merge in front of a Sequential holds models: their layers join those of the Sequential.

        Source: Keras 1.2.2 ``models.py`` Sequential.flattened_layers.
        """
        ends: list[Ref] = []
        for branch in branches:
            if isinstance(branch, Mapping) and not _is_network(branch):
                branch = {"class_name": "Sequential", "config": [branch]}
            if not isinstance(branch, Mapping):
                raise ReadError("Merge holds something that is no layer", where=path)
            network = self.network(branch, path, _name(branch) or "branch", depth + 1)
            start = len(calls)

            def moved(value: Any, start: int = start) -> Any:
                return _mapped(value, Ref, lambda ref: Ref(ref.call + start, ref.output))

            for layer in network.layers:
                layers.setdefault(layer.name, layer)
            calls.extend(
                Call(layers[call.layer.name], moved(call.inputs), moved(dict(call.kwargs))) for call in network.calls
            )
            inputs.extend(moved(list(network.inputs)))
            ends.extend(moved(list(network.outputs)))
        return ends

    def _sources(self, first: Layer, given: Mapping[str, Any], node: Mapping[str, Any], path: str) -> list[Layer]:
        """The InputLayers that Keras puts in front of a Sequential that has none."""
        if first.network is not None and len(first.network.inputs) > 1:
            names = list(first.network.input_names)
            specs = list(first.network.input_specs)
        else:
            names = [self._input_name(first)]
            specs = [_first_spec(first, given, node)]
        return [self._source(name, spec, path) for name, spec in zip(names, specs, strict=True)]

    def _input_name(self, first: Layer) -> str:
        if self.dialect != "keras1":
            return f"{first.name}_input"  # Keras 2.3.1 engine/sequential.py add
        if first.network is not None:
            return first.network.input_names[0]  # Keras 1.2.2 models.py add: the model's own input is taken
        # Keras 1.2.2 engine/topology.py create_input_layer: counted by class, from 1 in each process
        prefix = first.source_class.lower() + "_input_"
        self.uids[prefix] += 1
        return f"{prefix}{self.uids[prefix]}"

    def _source(self, name: str, spec: InputSpec, path: str) -> Layer:
        config = {"name": name, "batch_shape": spec.shape, "dtype": spec.dtype, "sparse": False, "ragged": False}
        own_path = f"{path}/{name}" if path else name
        return self._made("InputLayer", name, own_path, config, {}, dtype=spec.dtype, variable_dtype=spec.dtype)

    def _joined(
        self,
        name: str,
        layers: tuple[Layer, ...],
        calls: tuple[Call, ...],
        structure: Mapping[str, Any],
        kind: Literal["Sequential", "Functional"],
        where: str,
    ) -> Network:
        inputs, outputs = (tuple(flatten(structure[end])) for end in ("inputs", "outputs"))
        if not outputs:
            raise ReadError("this model has no outputs", where=where)
        for ref in inputs:
            if calls[ref.call].layer.class_name != "InputLayer":
                raise ReadError(
                    f"{calls[ref.call].layer.name} is named as an input, but it is no InputLayer", where=where
                )
        return Network(
            name,
            layers,
            calls,
            inputs,
            outputs,
            input_names=tuple(calls[ref.call].layer.name for ref in inputs),
            output_names=_distinct([calls[ref.call].layer.name for ref in outputs]),
            input_specs=tuple(_spec(calls[ref.call].layer) for ref in inputs),
            kind=kind,
            structure=cast(Any, structure),
        )


# -- small facts -------------------------------------------------------------------------------------------------------


_FIRST = ("inputs", "query", "sequences", "sequence", "data", "x")
"""How the first argument of a layer is called (``call`` in Keras 3.15 ``src/layers/**``)."""


def _call(layer: Layer, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """A call, whose first argument may come by name, too, in Keras 3: ``attention(value=v, query=q)``."""
    first = next((name for name in _FIRST if name in kwargs), None)
    if inputs or first is None or layer.class_name.startswith(keras3.OPERATIONS):
        return Call(layer, inputs, kwargs)
    return Call(layer, (kwargs[first],), {name: value for name, value in kwargs.items() if name != first})


def _is_image(class_name: str) -> bool:
    kind = CATALOGUE.get(class_name)
    return kind is not None and (kind.rank or 0) > 1


def _is_layer_node(value: Any, key: str, class_name: str) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("class_name"), str) or "config" not in value:
        return False
    if "activation" in key:  # a function is written {"class_name": "function", ...}
        return value["class_name"] in CATALOGUE
    return True


def _branches(merge: Mapping[str, Any]) -> list[Any]:
    config = merge.get("config")
    branches = config.get("layers") if isinstance(config, Mapping) else None
    return branches if isinstance(branches, list) else []


def _activation(value: Any) -> Any:
    """A name, or, for an activation with arguments, ``{class_name, config}``; None has always meant linear.

    Keras 3 and tf.keras since 2.12 write functions as ``{"class_name": "function", "config": "relu6"}``.
    """
    if isinstance(value, Mapping) and value.get("class_name") == "function" and isinstance(value.get("config"), str):
        return value["config"]
    return "linear" if value is None else value


def _own_dtype(class_name: str, config: Mapping[str, Any]) -> str | None:
    """What layers for text and whole numbers choose where they are not told (tf_keras ``index_lookup.py``)."""
    counts = class_name in _COUNTING and config.get("output_mode", "int") in ("int", None)
    return "int64" if counts else None


_COUNTING = frozenset(
    {"Discretization", "HashedCrossing", "Hashing", "IntegerLookup", "StringLookup", "TextVectorization"}
)


def _dtypes(policy: Any, class_name: str) -> tuple[str, str]:
    """What a layer computes in and what it keeps its weights in.

    Source: Keras 3.15 ``src/dtype_policies/dtype_policy.py``, tf_keras 2.21 ``src/mixed_precision/policy.py``.
    """
    if isinstance(policy, Mapping):
        config = policy.get("config")
        policy = config.get("name") or config.get("source_name") if isinstance(config, Mapping) else None
    name = policy if isinstance(policy, str) else "float32"
    if name.startswith("mixed_"):
        return name.removeprefix("mixed_"), "float32"
    if "_from_" in name:  # quantized: int8_from_float32, int8_from_mixed_bfloat16
        return _dtypes(name.partition("_from_")[2], class_name)
    if name.startswith(("_infer", "infer")):
        return "float32", "float32"
    if class_name == "Embedding" and name.startswith(("int", "uint")):
        return "float32", "float32"  # Keras 2.0 to 2.2 note the dtype of the indices here
    return name, name


def _shape(value: Any) -> Shape | None:
    if isinstance(value, (list, tuple)) and all(size is None or isinstance(size, int) for size in value):
        return tuple(size if size is None or size >= 0 else None for size in value)
    return None


def _spec(layer: Layer) -> InputSpec:
    shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
    return InputSpec(layer.name, _shape(shape), layer.dtype)


def _first_spec(first: Layer, given: Mapping[str, Any], node: Mapping[str, Any]) -> InputSpec:
    """What a Sequential without an InputLayer is fed, from its first layer or from what it was built with."""
    if first.network is not None:
        return InputSpec("", first.network.input_specs[0].shape, first.network.input_specs[0].dtype)
    wrapped = first
    while "batch_shape" not in wrapped.config and "layer" in wrapped.inner:
        wrapped = wrapped.inner["layer"]
    built = node.get("build_config")
    source = wrapped.source.get("config")
    shape = (
        wrapped.config.get("batch_shape")
        or given.get("build_input_shape")
        or (built.get("input_shape") if isinstance(built, Mapping) else None)
        or (keras1.input_shape(wrapped.class_name, source) if isinstance(source, Mapping) else None)
    )
    dtype = first.config.get("input_dtype") or first.config.get("dtype")
    return InputSpec("", _shape(decode(shape, first.path)), _dtypes(dtype, "")[1])


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Names made different: ``out``, ``out_1`` (TensorFlow 1.15 ``keras/engine/network.py`` _set_output_names)."""
    taken: set[str] = set()
    counts: Counter[str] = Counter()
    distinct = []
    for name in names:
        proposal = name
        while proposal in taken:
            counts[name] += 1
            proposal = f"{name}_{counts[name]}"
        taken.add(proposal)
        distinct.append(proposal)
    return tuple(distinct)


def _mapped(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Nested lists, tuples and dicts with every leaf of a class replaced."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(item, kind, change) for item in value)
    if isinstance(value, dict):
        return {key: _mapped(item, kind, change) for key, item in value.items()}
    return value
