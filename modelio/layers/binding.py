"""Which stored array is which weight of which layer.

A :class:`~modelio.model.LayerModel` has its weights as files have them: by top-level layer, in the file's order, under
the file's names. :func:`bind` finds the layer and role of each. Order decides, as in Keras; but where the names say
that an array is something else than its place says, the names win: contrib Keras of TensorFlow 1.2 wrote beta before
gamma.

:func:`from_arrays` and :func:`get_weights` go between that form and the plain list of ``model.get_weights()``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError
from modelio.layers.catalogue import LEARNED, LOOSE, Shape, dimensions, weights_of
from modelio.layers.layouts import Stored, normalized, shown, stored_of, unlearned
from modelio.layers.network import backend_of, network_of
from modelio.layers.normal_form import Layer, Network
from modelio.layers.order import ORDERS, Own, Slot, order_of_get_weights, trained_first
from modelio.layers.shapes import shapes_of
from modelio.layers.vocabularies import LAYERS as LOOKUPS
from modelio.layers.vocabularies import adapted
from modelio.layers.weight_paths import twins_of
from modelio.model import Dialect, LayerModel, Tensor

__all__ = ["bind", "from_arrays", "get_weights"]

Group = Mapping[str, Tensor]

OWN = "top_level_model_weights"
"""The group of weights that belong to the model itself and to no layer (Keras 3.15 ``legacy_h5_format.py``)."""


def bind(network: Network, model: LayerModel) -> Network:
    """Fill in ``weights`` of every layer of ``network`` from ``model``; returns the same network.

    Each weight comes in the layout of Keras 2 and 3, and has the shape that its layer's arguments and input ask for.
    Nothing is read yet. A vocabulary that is among the assets, as Keras 3 has it, comes as the weight that it is in
    tf_keras: ``vocabulary``.

    Raises:
        ReadError: arrays are missing or left over, or have another shape; it lists all such places of the model.
    """
    backend = backend_of(model.architecture or {}, model.meta)
    inputs = shapes_of(network).inputs
    faults: list[str] = []
    for layer, group in _groups(network, model.weights):
        try:
            for part, arrays in _assigned(layer, group).items():
                part.weights = normalized(part, arrays, backend)
                part.config.update(shown(part))
                faults += _misfits(part, next(iter(inputs.get(part, ())), None))
        except ReadError as error:
            faults.append(error.reason)
    if faults:
        raise ReadError(f"the weights do not fit the architecture: {_listed(faults, 10, '; ')}", where=network.name)
    for layer, words in adapted(network, model.assets).items():
        layer.weights.setdefault("vocabulary", words)
    return network


# -- groups to layers --------------------------------------------------------------------------------------------------


def _groups(network: Network, weights: Mapping[str, Group]) -> list[tuple[Layer, Group]]:
    """Every top-level layer with its group of arrays; an empty one where the file has none.

    By name where all names are known. Otherwise in order, among the layers and the groups that have weights, as Keras
    does it (Keras 2.3.1 ``engine/saving.py`` load_weights_from_hdf5_group). Keras before 1.1 numbers all layers:
    ``layer_0``.
    """
    known = {layer.name for layer in network.layers}
    filled = {name: group for name, group in weights.items() if group and (name != OWN or name in known)}
    if not set(filled) <= known:
        filled = _numbered(network, filled) or _in_order(network, filled)
    return [(layer, filled.get(layer.name, {})) for layer in network.layers]


def _numbered(network: Network, filled: Mapping[str, Group]) -> dict[str, Group] | None:
    listed = [layer.name for layer in network.layers if layer.source]  # without the InputLayer that no file has
    numbers = [re.fullmatch(r"layer_(\d{1,6})", name) for name in filled]
    places = [int(match[1]) for match in numbers if match]
    if len(places) < len(numbers) or max(places, default=0) >= len(listed):
        return None
    return {listed[place]: group for place, group in zip(places, filled.values(), strict=True)}


def _in_order(network: Network, filled: Mapping[str, Group]) -> dict[str, Group]:
    weighty = [layer.name for layer in network.layers if any(stored_of(part) != () for part in layer.walk())]
    if len(weighty) != len(filled):
        raise ReadError(
            f"the file has weights of {len(filled)} layers, the model has {len(weighty)} layers with weights; "
            f"in the file alone: {_listed(sorted(set(filled) - set(weighty)))}; "
            f"in the model alone: {_listed(sorted(set(weighty) - set(filled)))}",
            where=network.name,
        )
    return dict(zip(weighty, filled.values(), strict=True))


def _listed(items: Sequence[str], limit: int = 5, between: str = ", ") -> str:
    more = [f"and {len(items) - limit} more"] if len(items) > limit else []
    return between.join([*items[:limit], *more]) or "none"


# -- arrays to roles ---------------------------------------------------------------------------------------------------


def _assigned(layer: Layer, group: Group) -> dict[Layer, dict[str, Tensor]]:
    """Layer -> stored name -> tensor, for the layer and all inside it, in Keras' order."""
    group, loose = _apart(layer, group)
    names = list(group)
    slots = _slots(layer, names)
    assigned: dict[Layer, dict[str, Tensor]] = {}
    for part, places in _places(slots).items():
        known = stored_of(part)
        own_names = [names[place] for place in places]
        roles = _own_words(own_names) if known is None else _roles(own_names, [slots[place].stored for place in places])
        arrays = {role: group[name] for role, name in zip(roles, own_names, strict=True)}
        assigned[part] = (
            arrays
            if known is None
            else {
                stored.name: arrays[stored.name]
                for stored in known
                if stored.name not in LOOSE and (stored.name in arrays or not stored.name.startswith(LEARNED))
            }
        )
    parts = [part for part in layer.walk() if part not in assigned]
    if any(stored_of(part) for part in parts):  # an object that is stored once
        assigned.update({twin: assigned[first] for twin, first in twins_of(layer.walk()).items() if first in assigned})
    for part, own in loose.items():
        assigned[part] = {**assigned.get(part, {}), **own}
    return assigned


def _apart(layer: Layer, group: Group) -> tuple[Group, dict[Layer, dict[str, Tensor]]]:
    """A group without the arrays that go by their names, and those by the layers whose they are."""
    lookups = [part for part in layer.walk() if part.class_name in LOOKUPS]
    if not lookups:
        return group, {}
    loose: dict[Layer, dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    for name, tensor in group.items():
        owner, _, role = name.partition(":")[0].rpartition("/")
        parts = lookups
        if re.fullmatch(r"Variable(_\d+)?", role):  # tf_keras gives the factors of words no name
            parts = [part for part in parts if part.config.get("output_mode") == "tf_idf" and part not in loose]
            role = "idf_weights"
        parts = parts if role in LOOSE else []
        named = [part for part in parts if owner in (part.name, part.path)] or parts
        if named:
            loose.setdefault(named[0], {})[role] = tensor
        else:
            others[name] = tensor
    return others, loose


def _slots(layer: Layer, names: Sequence[str]) -> list[Slot]:
    """The slots that ``names`` stand for: in the order of HDF5 files, unless the names agree better with another."""
    every = _own(layer, len(names))

    def own(part: Layer) -> tuple[Stored, ...]:
        return tuple(stored for stored in every(part) if stored.name not in LOOSE)

    orders = [order(layer, own) for order in ORDERS]
    if len(orders[0]) > len(names):  # an object that is reached twice is stored once
        twins = twins_of(layer.walk())
        once = [[slot for slot in slots if slot.layer not in twins] for slots in orders]
        orders = once if len(once[0]) == len(names) else orders
    if len(orders[0]) > len(names):  # Keras merges what LoRA learned into the kernel where it writes .keras files
        merged = [[slot for slot in slots if not slot.stored.name.startswith(LEARNED)] for slots in orders]
        orders = merged if len(merged[0]) == len(names) else orders
    if len(orders[0]) != len(names):
        wanted = [f"{slot.layer.path}/{slot.stored.name}".removeprefix(f"{layer.path}/") for slot in orders[0]]
        raise ReadError(
            f"{layer.path} has {len(wanted)} weights ({_listed(wanted)}), the file has {len(names)} ({_listed(names)})"
        )
    if orders.count(orders[0]) == len(orders):
        return orders[0]
    return max(orders, key=lambda slots: _agreement(slots, names))


def _own(layer: Layer, count: int) -> Own:
    """The arrays of each layer inside ``layer``, which has ``count``: an unknown class has those that are left over."""
    known = {part: stored_of(part) for part in layer.walk()}
    unknown = [part for part, stored in known.items() if stored is None]
    left = max(0, count - sum(len(stored or ()) for stored in known.values()))
    if len(unknown) > 1 and left:
        raise ReadError(
            f"{layer.path} holds several layers of unknown classes "
            f"({_listed([part.source_class for part in unknown])}), and {left} arrays that may belong to any of them"
        )

    def own(part: Layer) -> tuple[Stored, ...]:
        stored = known[part]
        return tuple(Stored(str(number), (), True) for number in range(left)) if stored is None else stored

    return own


def _places(slots: Sequence[Slot]) -> dict[Layer, list[int]]:
    places: dict[Layer, list[int]] = {}
    for place, slot in enumerate(slots):
        places.setdefault(slot.layer, []).append(place)
    return places


def _agreement(slots: Sequence[Slot], names: Sequence[str]) -> int:
    """How many names end in a role of the layer at their place."""
    return sum(
        _role_in(names[place], [slots[other].stored for other in places]) is not None
        for places in _places(slots).values()
        for place in places
    )


def _roles(names: Sequence[str], own: Sequence[Stored]) -> list[str]:
    """The role of each array of one layer: as named where the names cover all roles, else by place."""
    named = [_role_in(name, own) for name in names]
    return (
        [str(role) for role in named]
        if set(named) == {stored.name for stored in own}
        else [stored.name for stored in own]
    )


def _role_in(name: str, own: Sequence[Stored]) -> str | None:
    """Which of a layer's roles a stored name ends in: ``enc_bn/gamma:0`` gamma, ``dense_1_W`` kernel.

    TensorFlow numbers names that are taken: ``dense/kernel_1:0``.
    """
    for candidate in _stems(name):
        fitting = [
            (len(alias), stored.name)
            for stored in own
            for alias in (stored.name, *stored.names)
            if candidate == alias or candidate.endswith(("/" + alias, "_" + alias))
        ]
        if fitting:
            return max(fitting)[1]  # recurrent_kernel before kernel
    return None


def _stems(name: str) -> Iterator[str]:
    """A stored name without the number of its output, and then without its own."""
    stem = name.partition(":")[0]
    yield stem
    yield re.sub(r"_\d+$", "", stem)


def _own_words(names: Sequence[str]) -> list[str]:
    """Roles of a layer of unknown class: the last part of each name, or all of it where the last parts are alike."""
    short = [name.partition(":")[0].rpartition("/")[2] for name in names]
    return short if len(set(short)) == len(short) else list(names)


def _misfits(layer: Layer, inputs: Shape | None) -> list[str]:
    """Weights whose shape is not what the layer's arguments and input ask for."""
    faults = []
    for weight in weights_of(layer.class_name, layer.config) or ():
        tensor = layer.weights.get(weight.role)
        expected = dimensions(weight.shape, layer.config, inputs)
        if tensor is None or expected is None:
            continue
        fits = len(tensor.shape) == len(expected)
        if not fits or any(size not in (None, has) for size, has in zip(expected, tensor.shape, strict=True)):
            sizes = ", ".join("?" if size is None else str(size) for size in expected)
            faults.append(f"{layer.path}/{weight.role} has shape {tensor.shape}, expected ({sizes})")
    return faults


# -- model.get_weights() -----------------------------------------------------------------------------------------------


def get_weights(model: LayerModel) -> list[npt.NDArray[Any]]:
    """The arrays of ``model.get_weights()``, in the order of the Keras version that wrote the model.

    One that several layers have counts where it is reached first, as in Keras.

    Raises:
        ReadError: the model has no architecture, or its weights do not fit it.
    """
    if model.architecture is None:
        raise ReadError("this model has weights alone, and the order of get_weights() follows the architecture")
    network = network_of(model.architecture, model.dialect, model.meta)
    tensors: list[Tensor] = []
    for layer, group in _groups(network, model.weights):
        own = _own(layer, len(group))
        slots = order_of_get_weights(layer, network)(layer, own)
        if any(stored_of(part) is None for part in layer.walk()):  # a custom layer's own names say nothing
            stored = dict(zip(_slots(layer, list(group)), group.values(), strict=True))
            tensors += [stored[slot] for slot in slots if slot in stored]
        else:
            assigned = _assigned(layer, group)
            tensors += [
                _array(assigned, slot)
                for slot in slots
                if slot.stored.name not in LOOSE or slot.stored.name in assigned.get(slot.layer, {})
            ]
    own_tensors = list(model.weights.get(OWN, {}).values())
    ordered = own_tensors + tensors if model.dialect == "keras3" else tensors + own_tensors
    return [tensor.numpy() for tensor in {id(tensor): tensor for tensor in ordered}.values()]


def _array(assigned: Mapping[Layer, Mapping[str, Tensor]], slot: Slot) -> Tensor:
    arrays, name = assigned[slot.layer], slot.stored.name
    return unlearned(slot.layer, name, arrays) if name.startswith(LEARNED) and name not in arrays else arrays[name]


def from_arrays(
    architecture: Mapping[str, Any],
    arrays: Sequence[npt.ArrayLike | Tensor] | Mapping[str, Any],
    dialect: Dialect | None = None,
    meta: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Tensor]]:
    """A model's weights from plain arrays: layer -> name -> tensor, as the writer of the architecture would store them.

    Args:
        architecture: as for :func:`~modelio.layers.network.network_of`, like the two after the arrays.
        arrays: in the order of ``model.get_weights()``: a sequence, or a mapping such as ``numpy.load`` gives for an
            ``.npz``, whose keys only count (``arr_0``, ``arr_1``, ...); or layer -> (sequence, or stored name ->
            array), which may leave out layers without weights.
        dialect: left out, it is read from the architecture.
        meta: ``keras_version`` decides the order; left out, it is looked for in the architecture.

    Raises:
        ReadError: more or fewer arrays than the model has weights.
    """
    network = network_of(architecture, dialect, meta)
    if not isinstance(arrays, Mapping):
        return _from_sequence(network, [_tensor(array) for array in arrays])
    grouped = set(arrays) <= {layer.name for layer in network.layers}
    if not grouped or any(isinstance(value, (Tensor, np.ndarray)) for value in arrays.values()):
        return _from_sequence(network, [_tensor(arrays[name]) for name in _counted(arrays)])
    weights: dict[str, dict[str, Tensor]] = {}
    for layer in network.layers:
        group = arrays.get(layer.name, ())
        if isinstance(group, Mapping):
            weights[layer.name] = _ordered(layer, {name: _tensor(array) for name, array in group.items()})
        else:
            weights[layer.name] = _group_of(layer, [_tensor(array) for array in group])
    return weights


def _counted(names: Collection[str]) -> list[str]:
    """Names in the order of the numbers that they end in, where all do: an archive has its members in any order."""
    numbers = {name: int(found[0]) for name in names if (found := re.search(r"\d+$", name))}
    return sorted(numbers, key=numbers.__getitem__) if len(numbers) == len(names) else list(names)


def _ordered(layer: Layer, group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A group in the order of HDF5 files, which Keras loads by position; that of a custom layer as it is given."""
    if any(stored_of(part) is None for part in layer.walk()):
        return dict(group)
    names = {id(tensor): name for name, tensor in group.items()}
    assigned = _assigned(layer, group)
    slots = trained_first(layer, _own(layer, len(group)))
    found = [
        assigned[slot.layer][slot.stored.name]
        for slot in slots
        if slot.stored.name not in LOOSE or slot.stored.name in assigned.get(slot.layer, {})
    ]
    found += [tensor for own in _apart(layer, group)[1].values() for tensor in own.values()]
    return {names[id(tensor)]: tensor for tensor in found}


def _tensor(array: Any) -> Tensor:
    return array if isinstance(array, Tensor) else Tensor.of(array)


def _from_sequence(network: Network, tensors: Sequence[Tensor]) -> dict[str, dict[str, Tensor]]:
    counts = {layer: sum(len(stored_of(part) or ()) for part in layer.walk()) for layer in network.layers}
    unknown = [(layer, part) for layer in network.layers for part in layer.walk() if stored_of(part) is None]
    left = len(tensors) - sum(counts.values())
    if left and (left < 0 or len(unknown) != 1):
        custom = f" and layers of unknown classes ({_listed([part.source_class for _, part in unknown])})"
        raise ReadError(
            f"{len(tensors)} arrays are given, the model has {sum(counts.values())} weights"
            + (custom if unknown else ""),
            where=network.name,
        )
    if left:
        counts[unknown[0][0]] += left
    weights: dict[str, dict[str, Tensor]] = {}
    start = 0
    for layer, count in counts.items():
        weights[layer.name] = _group_of(layer, tensors[start : start + count], network)
        start += count
    return weights


def _group_of(layer: Layer, tensors: Sequence[Tensor], network: Network | None = None) -> dict[str, Tensor]:
    """The group of a top-level layer as HDF5 files have it, from its arrays in the order of get_weights()."""
    own = _own(layer, len(tensors))
    slots = order_of_get_weights(layer, network)(layer, own)
    if len(slots) != len(tensors):
        raise ReadError(f"{layer.path} has {len(slots)} weights, {len(tensors)} arrays are given")
    given = dict(zip(slots, tensors, strict=True))
    ordered = trained_first(layer, own)
    counts = Counter(_stored_name(slot, slot.layer.name) for slot in ordered)
    names = [_stored_name(slot, slot.layer.name) for slot in ordered]
    return {
        name if counts[name] == 1 else _stored_name(slot, slot.layer.path): given[slot]
        for slot, name in zip(ordered, names, strict=True)
    }


def _stored_name(slot: Slot, layer: str) -> str:
    """A name such as the version would have given: ``dense_1_W:0``, ``dense_1/kernel:0``, ``dense_1/kernel``."""
    if slot.layer.dialect == "keras1":
        return f"{layer}_{(*slot.stored.names, slot.stored.name)[0]}:0"
    return f"{layer}/{slot.stored.name}" + (":0" if slot.layer.dialect == "keras2" else "")
