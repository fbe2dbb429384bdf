"""Between layers and paths: the weights of a ``.keras`` file by layer and name, and back.

:mod:`modelio.layers.weight_paths` says where each known weight is. Here each gets its name, ``dense/kernel`` (in Keras
2 ``dense/kernel:0``), and its place in Keras' order. What the catalogue does not know, such as all of a layer whose
class only its author has, keeps its path inside the layer's group as its name: ``vars/0``, ``block/vars/0``. Weights of
another format have other names; they go by their roles, as :func:`modelio.layers.binding.bind` finds them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from modelio.errors import ReadError, WriteError
from modelio.layers.binding import OWN, bind
from modelio.layers.catalogue import LEARNED, quantized_to, weights_of
from modelio.layers.layouts import Stored, stored_of
from modelio.layers.lora import merged
from modelio.layers.network import network_of
from modelio.layers.normal_form import Layer
from modelio.layers.order import trained_first
from modelio.layers.values import version_of
from modelio.layers.weight_paths import Paths, Place, natural, spelling_of
from modelio.model import Dialect, LayerModel, Tensor

__all__ = ["by_path", "grouped", "is_by_path", "is_path", "joined", "spread"]

Weights = Mapping[str, Mapping[str, Tensor]]


def is_path(name: str) -> bool:
    """Whether the name of a weight is its path."""
    return name.startswith("vars/") or "/vars/" in name


# -- from paths to layers ----------------------------------------------------------------------------------------------


def grouped(paths: Paths, tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """The weights by layer and name, in Keras' order, and the paths that are no weights of these layers.

    Args:
        paths: of the model, made with the objects of the file.
        tensors: the variables of the file by path.
    """
    by_group: dict[str, list[str]] = defaultdict(list)
    for path in tensors:
        by_group["/".join(path.split("/", 2)[:2])].append(path)
    weights: dict[str, dict[str, Tensor]] = {}
    taken: set[str] = set()
    for layer in paths.top:
        base = paths.bases[layer]
        inside = [path for path in by_group["/".join(base.split("/", 2)[:2])] if path.startswith(f"{base}/")]
        weights[layer.name] = _group(paths, layer, tensors, inside, taken)
    return weights, [path for path in tensors if path not in taken]


def _group(
    paths: Paths, layer: Layer, tensors: Mapping[str, Tensor], inside: Sequence[str], taken: set[str]
) -> dict[str, Tensor]:
    claimed, copies = _claimed(paths, layer, tensors)
    taken.update(copies)
    own: dict[Layer, dict[Stored, str]] = {part: {} for part in layer.walk() if part in paths.bases}
    for place in claimed:
        own[place.layer][place.stored] = place.path
        taken.add(place.path)
    base = paths.bases[layer]
    for path in sorted((path for path in inside if path not in taken), key=natural):
        if "/seed_generator/" in path:  # what random numbers come from, and no weight to Keras
            continue
        owner = max(
            (part for part in own if path.startswith(f"{paths.bases[part]}/")), key=lambda p: len(paths.bases[p])
        )
        own[owner][Stored(path[len(base) + 1 :], (), True)] = path
        taken.add(path)
    slots = trained_first(layer, lambda part: tuple(own.get(part, ())))
    names = _names([(slot.layer, slot.stored) for slot in slots], paths.spelling.dialect)
    return {name: tensors[own[slot.layer][slot.stored]] for name, slot in zip(names, slots, strict=True)}


def _claimed(paths: Paths, layer: Layer, tensors: Mapping[str, Tensor]) -> tuple[list[Place], list[str]]:
    """The places of known weights that the file has, and the paths of second copies."""
    claimed: list[Place] = []
    copies: list[str] = []
    members: dict[str, set[str]] = defaultdict(set)
    for part in layer.walk():
        places = [place for place in paths.places(part) if place.path in tensors]
        for group in dict.fromkeys(place.path.rpartition("/")[0] for place in places):
            if group not in members:
                members[group] = set(_numbers(group, tensors))
            own = [place for place in places if place.path.rpartition("/")[0] == group]
            surplus = sorted(members[group] - {place.path for place in own}, key=natural)
            more = _scales(part)[: len(surplus)]
            if len(more) == len(surplus):
                claimed += [place for place in own if not place.copy]
                copies += [place.path for place in own if place.copy]
                claimed += [
                    Place(path, part, Stored(role, (), False)) for path, role in zip(surplus, more, strict=True)
                ]
    return claimed, copies


def _numbers(group: str, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    number = 0
    while f"{group}/{number}" in tensors:
        yield f"{group}/{number}"
        number += 1


def _names(slots: Sequence[tuple[Layer, Stored]], dialect: Dialect) -> list[str]:
    """A name for each array: its path, where that is all that is known, or layer and role."""
    ending = ":0" if dialect == "keras2" else ""

    def name(layer: str, stored: Stored) -> str:
        return stored.name if is_path(stored.name) else f"{layer}/{stored.name}{ending}"

    short = [name(layer.name, stored) for layer, stored in slots]
    counts = Counter(short)
    return [
        own if counts[own] == 1 else name(layer.path, stored) for own, (layer, stored) in zip(short, slots, strict=True)
    ]


def is_by_path(model: LayerModel) -> bool:
    """Whether the weights of a model are kept by paths alone, as in a file without architecture."""
    return all(is_path(name) for named in model.weights.values() for name in named)


def joined(model: LayerModel, architecture: LayerModel) -> LayerModel:
    """Weights that are kept by paths alone, by the layers of an architecture.

    Args:
        model: what reading a ``.weights.h5`` gave: object's path -> path in it -> tensor.
        architecture: a model of the same Keras, which has one; its weights are not looked at.

    Returns:
        ``model`` with its weights by layer and name. Layers may still lack some: :func:`modelio.layers.binding.bind`
        names all that is missing.

    Raises:
        ReadError: some weights belong to none of the layers.
        ConversionError: the architecture is a Python class, whose layers no file holds.
    """
    plan = architecture.architecture or {}
    network = network_of(plan, architecture.dialect, architecture.meta)
    spelling = spelling_of(architecture.dialect, version_of(architecture.meta.get("keras_version")))
    paths = Paths(network, spelling, {path: "" for path in model.weights if path != OWN})
    tensors = by_path(model.weights)
    weights, rest = grouped(paths, tensors)
    own = {path: tensors[path] for path in rest if path.startswith("vars/")}
    surplus = sorted(set(rest) - set(own), key=natural)
    if surplus:
        listed = ", ".join(surplus[:5]) + (" ..." if len(surplus) > 5 else "")
        raise ReadError(f"these weights belong to no layer of the architecture: {listed}", where=network.name)
    return replace(model, weights={**weights, OWN: own} if own else weights, dialect=architecture.dialect)


def by_path(weights: Weights) -> dict[str, Tensor]:
    """The variables of a model whose weights are kept by paths alone."""
    return {
        name if object_ == OWN else f"{object_}/{name}": tensor
        for object_, named in weights.items()
        for name, tensor in named.items()
    }


# -- from layers to paths ----------------------------------------------------------------------------------------------


def spread(paths: Paths, model: LayerModel) -> dict[str, Tensor]:
    """The variables by path, of a model's layers and of the model itself.

    Raises:
        WriteError: the weights do not fit the architecture, or nothing says where a weight of an unknown class belongs.
    """
    model = merged(model, paths.network)
    weights = {name: named for name, named in model.weights.items() if name != OWN}
    found = _by_names(paths, weights)
    known = not any(is_path(name) for named in weights.values() for name in named)
    if found is None or (known and not any(quantized_to(layer.config) for layer in paths.network.walk())):
        try:
            bind(paths.network, model)
        except ReadError as error:
            raise WriteError(error.reason, where=error.where) from error
    if found is None:
        found = _by_roles(paths, weights)
    for number, (name, tensor) in enumerate(model.weights.get(OWN, {}).items()):
        found[name if is_path(name) else f"vars/{number}"] = tensor
    return found


def _by_names(paths: Paths, weights: Weights) -> dict[str, Tensor] | None:
    """The variables of a model whose weights have the names that :func:`grouped` gives; None where one has not."""
    found: dict[str, Tensor] = {}
    layers = {layer.name: layer for layer in paths.top}
    for name, named in weights.items():
        if not named:
            continue
        if name not in layers:  # an object that is in none of the lists
            if not all(is_path(own) for own in named):
                return None
            found.update({f"{name}/{own}": tensor for own, tensor in named.items()})
            continue
        places = _named_places(paths, layers[name])
        base = paths.bases[layers[name]]
        stored = paths.is_stored(layers[name])
        for own, tensor in named.items():
            if is_path(own):
                found[f"{base}/{own}"] = tensor
            elif own not in places:
                return None
            elif stored:
                found.update(dict.fromkeys(places[own], tensor))
    return found


def _named_places(paths: Paths, layer: Layer) -> dict[str, list[str]]:
    """Name -> path, and the paths of second copies, of all that a layer and those inside it may have."""
    known: dict[tuple[Layer, Stored], list[str]] = {}
    for part in layer.walk():
        places = paths.places(part)
        for place in places:
            known.setdefault((place.layer, place.stored), []).append(place.path)
        start = len(places)
        for number, role in enumerate(_scales(part)):
            known[part, Stored(role, (), False)] = [f"{paths.bases[part]}/vars/{start + number}"]
    return dict(zip(_names(list(known), paths.spelling.dialect), known.values(), strict=True))


def _by_roles(paths: Paths, weights: Weights) -> dict[str, Tensor]:
    """The variables of a model that is bound: by their roles, and in order where the class is unknown."""
    found: dict[str, Tensor] = {}
    for layer in paths.top:
        names = {id(tensor): name for name, tensor in weights.get(layer.name, {}).items()}
        for part in layer.walk() if paths.is_stored(layer) else ():
            places = paths.places(part)
            if part.source_class.startswith("CuDNN"):
                raise WriteError(
                    f"no Keras that writes .keras files has {part.source_class}; dialect='keras3' makes a plain layer "
                    "of it",
                    where=part.path,
                )
            for place in places:
                if not place.stored.name.startswith(LEARNED):  # it is in the kernel
                    found[place.path] = place.layer.weights[place.stored.name]
            if stored_of(part) is None:
                scopes = {names[id(tensor)].rpartition("/")[0] for tensor in part.weights.values()}
                if len(scopes) > 1:
                    raise WriteError(
                        f"{part.source_class} is a class that only its author knows, with layers of its own in it "
                        f"({', '.join(sorted(scopes))}); in which attributes it keeps them is in no file: load the "
                        "model in Keras and save it there",
                        where=part.path,
                    )
                for number, tensor in enumerate(part.weights.values()):
                    found[f"{paths.bases[part]}/vars/{number}"] = tensor
    return found


# -- quantized layers --------------------------------------------------------------------------------------------------

# What a quantized layer has besides its weights, in order; {} is the role of its matrix. With GPTQ and AWQ the weights
# themselves are others: they go by their paths. Source: Keras 3.15 variable_serialization_spec of these classes.
_QUANTIZED_CLASSES = frozenset({"Dense", "EinsumDense", "Embedding"})
_QUANTIZED: Mapping[str, tuple[str, ...]] = {
    "int8": ("{}_scale",),
    "int4": ("{}_scale", "{}_zero", "g_idx"),
    "float8": (
        *("inputs_scale", "inputs_amax_history", "kernel_scale", "kernel_amax_history"),
        *("outputs_grad_scale", "outputs_grad_amax_history"),
    ),
}


def _scales(layer: Layer) -> tuple[str, ...]:
    """What a quantized layer has besides its weights."""
    if layer.class_name not in _QUANTIZED_CLASSES:
        return ()
    known = [weight.role for weight in weights_of(layer.class_name, layer.config) or ()]
    roles = (role.format(known[0]) for role in _QUANTIZED.get(quantized_to(layer.config), ()))
    return tuple(role for role in roles if role not in known)
