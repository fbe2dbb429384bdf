"""Where ``.keras`` files keep each weight: a walk along the attributes of a model's objects.

::

    vars/0 1 ...                                        what belongs to the model itself
    layers/
      dense/vars/0 1                                    the first Dense of the model, whatever its name is
      dense_1/vars/0 1                                  the second
      lstm/cell/vars/0 1 2                              recurrent layers keep all in their cell
      rnn/cell/cells/lstm_cell/vars/0 1 2               cells in a StackedRNNCells
      bidirectional/forward_layer/cell/vars/0 1 2
      multi_head_attention/query_dense/vars/0 1         an object that the layer made for itself
      functional/layers/dense/vars/0 1                  in a model inside the model counting starts anew
    optimizer/vars/0 1 ...

Every object has a group ``vars`` with its own variables, trained ones first, numbered. An object in a list is named
after its class, in snake case, and numbered where the class is not new in that list. An object that is reached twice is
stored where it was reached first. What the versions do differently is a :class:`Spelling`:

==========================  ==================================  ====================  ================================
written by                  the list of a model's layers        numbers count         name of an object
==========================  ==================================  ====================  ================================
TensorFlow 2.12, 2.13       ``_layer_checkpoint_dependencies``  layers with weights   in no file
                                                                twice
TensorFlow 2.14 to          ``layers``                          what is stored here   in no file
tf_keras 2.21
Keras 3.0 to 3.5            ``layers``                          every layer           in no file
Keras 3.6 and later         ``layers``                          every layer           attribute ``name`` of ``vars``
==========================  ==================================  ====================  ================================

So the paths follow from the architecture alone; where a file is at hand, its groups (and names) decide.

Sources: ``saving_lib.py`` (``_walk_saveable``, ``_save_container_state``) and ``naming.py`` (``to_snake_case``) of
Keras 2.12, 2.13, 2.15, 3.0, 3.5, 3.6, 3.15 and tf_keras 2.21.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from modelio.layers.catalogue import LOOSE, weights_of
from modelio.layers.layouts import Stored, stored_of
from modelio.layers.nodes import flatten
from modelio.layers.normal_form import Call, Layer, Network, Ref
from modelio.model import Dialect

__all__ = ["VOCABULARY", "Paths", "Place", "Spelling", "natural", "snake_case", "spelling_of", "twins_of"]


# -- spellings ---------------------------------------------------------------------------------------------------------


class Spelling(NamedTuple):
    """How a version names what it walks over.

    Args:
        dialect: the Keras that it is.
        container: the attribute that lists a model's layers.
        counts: what the numbers behind class names count: every layer of the list, those that are stored in this list,
            or every layer, and those with weights twice.
        public: the parts of MultiHeadAttention are public attributes: ``query_dense``, not ``_query_dense``.
        names: each object's name is an attribute of its ``vars``.
    """

    dialect: Dialect
    container: str = "layers"
    counts: Literal["all", "stored", "twice"] = "all"
    public: bool = True
    names: bool = True


def spelling_of(dialect: Dialect, version: tuple[int, ...]) -> Spelling:
    """The spelling of a version; the newest one's where the version is not known, or is older than the format."""
    if dialect == "keras3":
        return Spelling(dialect, public=not version or version >= (3, 0, 5), names=not version or version >= (3, 6))
    if (2, 12) <= version < (2, 14):
        return Spelling(dialect, "_layer_checkpoint_dependencies", "twice", public=False, names=False)
    return Spelling(dialect, counts="stored", public=False, names=False)


def snake_case(class_name: str) -> str:
    """The name of an object in a list.

    >>> [snake_case(name) for name in ("Conv2DTranspose", "PReLU", "LSTMCell", "MyPackage>TFOpLambda")]
    ['conv2d_transpose', 'p_re_lu', 'lstm_cell', 'tf_op_lambda']
    """
    words = re.sub(r"\W+", "", class_name.rpartition(">")[2])
    for boundary in (r"(.)([A-Z][a-z]+)", r"([a-z])([A-Z])"):
        words = re.sub(boundary, r"\1_\2", words)
    return words.lower()


def natural(path: str) -> list[tuple[int, int, str]]:
    """A key that sorts paths as the walk goes: own variables first, private attributes last, numbers by their size.

    >>> sorted(["b/vars/0", "_a/vars/0", "a_10/vars/0", "a_9/vars/0", "vars/10", "vars/9"], key=natural)
    ['vars/9', 'vars/10', 'a_9/vars/0', 'a_10/vars/0', 'b/vars/0', '_a/vars/0']
    """
    key = []
    for part in path.split("/"):
        stem, number = _numbered(part)
        rank = 0 if part == "vars" else 2 if part.startswith("_") else 1
        key.append((rank, number if not stem else 0, stem if not number else f"{stem}{number:09d}"))
    return key


def _numbered(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(|.*_)(\d{1,9})", name)
    return (match[1], int(match[2])) if match else (name, 0)


# -- the walk ----------------------------------------------------------------------------------------------------------

# Where an argument of a layer is kept, where that is not an attribute of the same name.
_ATTRIBUTES: Mapping[tuple[str, str], str] = {("Bidirectional", "layer"): "forward_layer"}

# Classes whose weights belong to objects that they made for themselves.
_CELLS = frozenset({"SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})
_LOOKUPS = frozenset({"TextVectorization", "StringLookup", "IntegerLookup"})
_ATTENTION = frozenset({"MultiHeadAttention", "GroupQueryAttention"})
_PARTS: Mapping[str, str] = {
    "query": "query_dense",
    "key": "key_dense",
    "gate": "gate_dense",
    "value": "value_dense",
    "attention_output": "output_dense",
}


class Place(NamedTuple):
    """One variable: its path, and which array of which layer it is; ``copy``: it is stored elsewhere, too.

    The table of a preprocessing layer is no variable, but a file among the assets, under the same path.
    """

    path: str
    layer: Layer
    stored: Stored
    copy: bool = False

    @property
    def is_asset(self) -> bool:
        return self.path.endswith(VOCABULARY)


VOCABULARY = "/vocabulary.txt"
"""What the path of a table ends in."""


class Paths:
    """The paths of one model.

    Args:
        network: the model.
        spelling: how its version names objects.
        objects: the objects of a file at hand: path -> name, ``""`` where the file has none.
        bases: exceptions, as :meth:`exceptions` gives them: path of a layer in the model -> path of its object.
    """

    def __init__(
        self,
        network: Network,
        spelling: Spelling,
        objects: Mapping[str, str] | None = None,
        bases: Mapping[str, str] | None = None,
    ) -> None:
        self.network = network
        self.spelling = spelling
        self._objects = objects or {}
        self._children: dict[str, set[str]] = defaultdict(set)
        for path in self._objects:
            while path:
                parent, _, own = path.rpartition("/")
                self._children[parent].add(own)
                path = parent
        self._exceptions = bases or {}
        shared = _shared(network, guess=bool(objects))
        self._first = {layer: first for layer, first in shared.items() if layer.path not in self._exceptions}
        self._twins = twins_of(_visited(_listed(network))) if objects else {}
        self.bases: dict[Layer, str] = {}
        self._places: dict[Layer, list[Place]] = {}
        self.top = self._network(network, "")
        for layer, first in self._first.items():
            for part, same in zip(layer.walk(), first.walk(), strict=False):
                if same in self.bases:
                    self.bases[part] = self.bases[same]

    def is_stored(self, layer: Layer) -> bool:
        """Whether a layer is stored under its own path, and not under another that leads to the same object."""
        return layer not in self._first

    def exceptions(self) -> dict[str, str]:
        """The objects that a file has under other paths than the architecture says: layer's path -> object's path."""
        usual = Paths(self.network, self.spelling).bases
        return {layer.path: base for layer, base in self.bases.items() if usual.get(layer) != base}

    def groups(self) -> dict[str, str]:
        """The groups that a file of this version has for known objects, and the names in them."""
        groups = {"vars": self.network.name if self.spelling.names else ""}
        for layer, base in self.bases.items():
            groups[f"{base}/vars"] = layer.name if self.spelling.names else ""
            for place in self.places(layer):
                if not place.is_asset:
                    groups.setdefault(place.path.rpartition("/")[0], "")
        return groups

    def places(self, layer: Layer) -> list[Place]:
        """The variables of a layer itself, without those of the layers inside it; none of an unknown class.

        A Sequential's input layer, and operations, are in no list, and have no path.
        """
        if layer not in self._places:
            self._places[layer] = self._found(layer) if layer in self.bases else []
        return self._places[layer]

    def _found(self, layer: Layer) -> list[Place]:
        base = self.bases[layer]
        known = weights_of(layer.class_name, layer.config, layer.family) or ()
        order = {weight.role: number for number, weight in enumerate(known)}
        numbers: Counter[str] = Counter()
        places = []
        if layer.class_name == "SpectralNormalization" and "layer" in layer.inner:
            # It lists the kernel of the layer inside as its own (Keras 3.15 spectral_normalization.py build).
            inner = layer.inner["layer"]
            places = [Place(f"{base}/vars/0", inner, stored, True) for stored in (stored_of(inner) or ())[:1]]
            numbers[base] = len(places)
        for stored in sorted(stored_of(layer) or (), key=lambda stored: order.get(stored.name, 0)):
            if stored.name == "vocabulary":
                places.append(Place(base + VOCABULARY, layer, stored))
            if stored.name == "vocabulary" or stored.name in LOOSE:
                continue
            owner = self._owner(layer, base, stored.name)
            places.append(Place(f"{owner}/vars/{numbers[owner]}", layer, stored))
            numbers[owner] += 1
        if layer.class_name in _LOOKUPS and layer.config.get("output_mode") == "tf_idf":
            factors = Stored("idf_weights", (), False)
            places.append(Place(f"{base}/vars/idf_weights", layer, factors))
            if layer.class_name == "TextVectorization":
                places.append(Place(f"{base}/_lookup_layer/vars/idf_weights", layer, factors, True))
        return places

    def _owner(self, layer: Layer, base: str, role: str) -> str:
        """The object that has a weight of a layer as its own."""
        if layer.class_name in _CELLS:
            return f"{base}/cell"
        if layer.class_name not in _ATTENTION:
            return base
        part = _PARTS[role.partition("/")[0]]
        private = f"_{part}" in self._children.get(base, ())
        public = part in self._children.get(base, ())
        if private == public:  # no file says it
            private = not self.spelling.public or layer.class_name != "MultiHeadAttention"
        return f"{base}/{'_' * private}{part}"

    def _network(self, network: Network, base: str) -> tuple[Layer, ...]:
        layers = _listed(network)
        spelled = self.spelling.container
        known = [name for name in ("layers", "_layer_checkpoint_dependencies") if name in self._children.get(base, ())]
        container = _joined(base, known[0] if len(known) == 1 else spelled)
        children = self._named(layers, container) or self._by_class(layers, container)
        for layer in layers:
            if layer in self._first:
                continue
            own = _joined(container, children[layer])
            self._layer(layer, self._exceptions.get(layer.path, own))
        return layers

    def _layer(self, layer: Layer, base: str) -> None:
        self.bases[layer] = base
        counts: Counter[str] = Counter()
        for key, inner in layer.inner.items():
            attribute = _ATTRIBUTES.get((layer.class_name, key), key)
            if layer.class_name == "StackedRNNCells":
                stem = _stem(inner)
                attribute = f"cells/{_unique(stem, counts[stem])}"
                counts[stem] += 1
            if f"{base}/{attribute}" in self._objects:
                self._first.pop(inner, None)
            if inner not in self._first:
                self._layer(inner, f"{base}/{attribute}")
        if layer.network is not None:
            self._network(layer.network, base)

    def _named(self, layers: Sequence[Layer], container: str) -> dict[Layer, str] | None:
        """Layer -> member of the container by the names in the file, where all have one."""
        named = {self._objects.get(f"{container}/{child}", ""): child for child in self._children.get(container, ())}
        if "" in named or len(named) < len(self._children.get(container, ())):
            return None
        found = {layer: named[layer.name] for layer in layers if layer.name in named}
        if any(layer not in found and layer not in self._first for layer in layers):
            return None
        for layer in found:
            self._first.pop(layer, None)
        return found

    def _by_class(self, layers: Sequence[Layer], container: str) -> dict[Layer, str]:
        """Layer -> member of the container: by the file's members of its class in their order, or as they are named."""
        computed = self._computed(layers)
        by_stem: dict[str, list[Layer]] = defaultdict(list)
        for layer in layers:
            by_stem[_stem(layer)].append(layer)
        for stem, alike in by_stem.items():
            members = sorted(
                (
                    child
                    for child in self._children.get(container, ())
                    if re.fullmatch(f"{re.escape(stem)}(_\\d+)?", child)
                ),
                key=natural,
            )
            stored = [layer for layer in alike if layer not in self._first]
            single = [layer for layer in stored if layer not in self._twins]
            for candidates in (alike, stored, single):
                if len(members) == len(candidates) and (members or candidates is single):
                    computed.update(zip(candidates, members, strict=True))
                    for layer in candidates:
                        self._first.pop(layer, None)
                    if candidates is single:  # what looks like another one, and has no place of its own
                        self._first.update((layer, self._twins[layer]) for layer in stored if layer in self._twins)
                    break
        return computed

    def _computed(self, layers: Sequence[Layer]) -> dict[Layer, str]:
        counts: Counter[str] = Counter()
        names = {}
        for layer in layers:
            if layer in self._first and self.spelling.counts == "stored":
                continue
            stem = _stem(layer)
            names[layer] = _unique(stem, counts[stem])
            counts[stem] += 2 if self.spelling.counts == "twice" and _has_weights(layer) else 1
        return names


def _joined(*parts: str) -> str:
    return "/".join(filter(None, parts))


def _unique(stem: str, number: int) -> str:
    return f"{stem}_{number}" if number else stem


def _stem(layer: Layer) -> str:
    return snake_case(_CLASSES.get(layer.source_class, layer.source_class))


_CLASSES: Mapping[str, str] = {
    "Model": "Functional",  # until TensorFlow 2.3; later versions load it as such
    "GroupQueryAttention": "GroupedQueryAttention",  # the only public name that is not the class's own
}
"""Class in the architecture -> class in Python, which paths are named after."""


def _has_weights(layer: Layer) -> bool:
    return any(stored_of(part) != () for part in layer.walk())


def _shared(network: Network, guess: bool) -> dict[Layer, Layer]:
    """Layers that are the same object as another one, which the walk reaches before.

    A layer that stands in a model and in a model inside it is written twice. Keras gives an object its
    ``shared_object_id`` where it writes it the second time, and the first one may have none. The writer took the two
    for one, the loader does not: ``guess`` takes for the first one what is the same otherwise, down to its name.
    """
    marked: dict[object, Layer] = {}
    unmarked: list[Layer] = []
    first: dict[Layer, Layer] = {}
    for layer in _visited(_listed(network)):
        number = layer.source.get("shared_object_id")
        if not isinstance(number, int):
            unmarked.append(layer)
            continue
        if number not in marked:
            config = _unmarked(layer.source.get("config"))
            same = [other for other in unmarked if guess and _unmarked(other.source.get("config")) == config]
            marked[number] = same[0] if same else layer
        if marked[number] is not layer:
            first[layer] = marked[number]
    return first


def twins_of(layers: Iterable[Layer]) -> dict[Layer, Layer]:
    """Layer -> one before it that is the same by class, name and arguments, and may be the same object."""
    twins: dict[Layer, Layer] = {}
    before: dict[tuple[str, str], list[Layer]] = defaultdict(list)
    for layer in layers:
        config = _unmarked(layer.source.get("config"))
        alike = before[layer.source_class, layer.name]
        same = next((other for other in alike if _unmarked(other.source.get("config")) == config), None)
        if same is not None:
            twins[layer] = same
        else:
            alike.append(layer)
    return twins


def _unmarked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _unmarked(item) for key, item in value.items() if key != "shared_object_id"}
    return [_unmarked(item) for item in value] if isinstance(value, list) else value


def _visited(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Layers and all inside them, in the order of the walk."""
    for layer in layers:
        yield layer
        # What Bidirectional makes of the layer that it was given has the same node in the file, and is another object.
        yield from _visited(inner for key, inner in layer.inner.items() if key != "backward_layer")
        if layer.network is not None:
            yield from _visited(_listed(layer.network))


def _listed(network: Network) -> tuple[Layer, ...]:
    """``model.layers``: a Sequential's without its input, a functional one's by depth; operations are no layers."""
    layers = network.layers if network.kind == "Sequential" else _by_depth(network)
    if network.kind == "Sequential" and layers and layers[0].class_name == "InputLayer":
        layers = layers[1:]
    return tuple(layer for layer in layers if not layer.class_name.startswith("ops."))


def _by_depth(network: Network) -> tuple[Layer, ...]:
    """The layers of a functional model in the order that every Keras since 1.0 gives them when it builds the model.

    That is by their distance from the outputs, and then by when a search from the outputs finds them (Keras 3.15
    ``src/ops/function.py`` map_graph). Layers that no output needs are last.
    """
    calls = network.calls
    found: dict[Layer, int] = {}
    finished: list[int] = []
    seen: set[int] = set()
    for output in network.outputs:
        waiting: list[tuple[int, Iterator[int]]] = []
        _enter(output.call, calls, seen, found, waiting)
        while waiting:
            number, sources = waiting[-1]
            source = next(sources, None)
            if source is None:
                finished.append(number)
                waiting.pop()
            else:
                _enter(source, calls, seen, found, waiting)
    depth = dict.fromkeys(finished, 0)
    of_layer: dict[Layer, int] = {}
    for number in reversed(finished):
        layer = calls[number].layer
        depth[number] = of_layer[layer] = max(depth[number], of_layer.get(layer, 0))
        for source in _sources(calls[number]):
            depth[source] = max(depth[source], depth[number] + 1)
    for layer in network.layers:
        of_layer.setdefault(layer, 0 if layer.class_name == "InputLayer" else -1)
    return tuple(sorted(of_layer, key=lambda layer: (-of_layer[layer], found.get(layer, -1))))


def _enter(
    number: int,
    calls: Sequence[Call],
    seen: set[int],
    found: dict[Layer, int],
    waiting: list[tuple[int, Iterator[int]]],
) -> None:
    if number not in seen:
        seen.add(number)
        found.setdefault(calls[number].layer, len(found))
        waiting.append((number, iter(_sources(calls[number]))))


def _sources(call: Call) -> list[int]:
    return [leaf.call for leaf in flatten([list(call.inputs), dict(call.kwargs)]) if isinstance(leaf, Ref)]
