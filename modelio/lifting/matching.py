"""Weights of a graph, matched to the layers of an architecture by names and shapes.

A name says two things, whose weight it is and which: ``net/dense_1/kernel``, ``dense_1_W``. Names come with scopes in
front, with numbers behind where a name was taken, and, in what TensorFlow 2 froze, with the name of who reads the
weight instead of its own (:mod:`modelio.lifting.reads`). Four passes look at them:

1. *by name*: names that end in a role (``kernel``) and have the layer's name in front. Between two candidates the one
   with fewer unexplained words wins: ``dense/kernel`` before ``Adam/m/dense/kernel``. Where the architecture comes with
   weights, their names are looked for first: Keras names a layer, and TensorFlow may number it otherwise.
2. *by number*: where that leaves gaps, ``dense`` may be called dense_1 and dense_1 dense_2, if the shapes say so.
3. *by reader*: scopes are matched to layers, each to one; within a layer, shapes and the place of the reader decide.
4. *by order*: where the file keeps the variables in one numbered list, that is the order of ``get_weights()``.

What could as well be the other way round is never guessed: two weights of equal shape whose names do not tell them
apart are ambiguous, and refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelio.errors import ConversionError, ReadError
from modelio.layers.binding import bind
from modelio.layers.layouts import stored_of
from modelio.layers.network import Layer, Network, backend_of, network_of
from modelio.layers.order import order_of_get_weights
from modelio.lifting.candidates import Candidate, Words, candidates_of
from modelio.lifting.names import Evidence, Index, evidence, plain, roles_in
from modelio.lifting.places import Slot, slots_of
from modelio.lifting.reads import assigned_by_reader, eliminated
from modelio.model import GraphModel, LayerModel, Tensor

__all__ = ["match"]


def match(model: GraphModel, architecture: LayerModel) -> tuple[LayerModel, list[str]]:
    """The architecture with the weights of a graph, and a line for every layer whose were not found by their names.

    Args:
        model: a graph with variables, or with constants that were variables.
        architecture: a model with an architecture; of its own weights the names are looked at, and no numbers.

    Raises:
        ReadError: weights are missing, ambiguous, or of another shape; all of them are listed.
        ConversionError: ``architecture`` has none.
    """
    if architecture.architecture is None:
        raise ConversionError("what was given as architecture= holds weights only")
    network = network_of(architecture.architecture, architecture.dialect, architecture.meta)
    work = _Match(network, candidates_of(model))
    changes = work.run(architecture.weights)
    found = replace(architecture, weights=work.weights(), optimizer={})
    backend = backend_of(architecture.architecture, architecture.meta) or "tensorflow"
    if backend != "tensorflow":
        found.meta = {**found.meta, "backend": "tensorflow"}
        changes.append(f"backend {backend} -> tensorflow: the weights of a graph are in TensorFlow's layout")
    bind(network, found)
    return found, changes


@dataclass
class Found:
    """What is found of a layer in a scope: how well that is named, and the candidate of each place."""

    fit: Evidence
    members: dict[Slot, Candidate]
    _lengths: dict[Slot, int] = field(default_factory=dict)

    def add(self, slot: Slot, candidate: Candidate, words: Words) -> None:
        """Take a candidate; of two the one whose name is the role and no more: ``kernel`` before ``kernel_1``."""
        length = len("/".join(words))
        if slot not in self.members or length < self._lengths[slot]:
            self.members[slot], self._lengths[slot] = candidate, length

    def is_whole(self, slots: Sequence[Slot]) -> bool:
        """Whether all places of the layer are filled with what fits."""
        return all(slot in self.members and slot.fits(self.members[slot].tensor) for slot in slots)

    def rank(self) -> tuple[bool, Evidence]:
        """How well it fits: more is better. What is not whole may still be the layer's own, and a copy of it whole."""
        return all(slot.fits(candidate.tensor) for slot, candidate in self.members.items()), self.fit


# -- the passes --------------------------------------------------------------------------------------------------------


class _Match:
    """One matching under way."""

    def __init__(self, network: Network, candidates: Sequence[Candidate]) -> None:
        self.network = network
        self.slots = slots_of(network)
        self.parts: dict[Layer, list[Slot]] = defaultdict(list)
        for slot in self.slots:
            self.parts[slot.layer].append(slot)
        self.candidates = candidates
        self.changes: list[str] = []
        self.ambiguous: list[str] = []

    def run(self, named: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
        """Fill the slots; returns what was found otherwise than by name. ``named``: names of weights by layer."""
        if not self._by_known_names(named):
            self._by_name()
        if any(slot.candidate is None or not slot.fits(slot.candidate.tensor) for slot in self.slots):
            self._by_number()
        if any(slot.candidate is None for slot in self.slots) and not self.ambiguous:
            self._by_reader()
        if all(slot.candidate is None for slot in self.slots) and not self.ambiguous:
            self._by_order()
        missing = [slot for slot in self.slots if slot.candidate is None]
        unfit = [slot for slot in self.slots if slot.candidate is not None and not slot.fits(slot.candidate.tensor)]
        if missing or unfit or self.ambiguous:
            raise ReadError(
                "the weights are not those of this architecture: " + "; ".join(self._account(missing, unfit))
            )
        return self.changes

    def _account(self, missing: Sequence[Slot], unfit: Sequence[Slot]) -> Iterator[str]:
        doubtful = {path for line in self.ambiguous for path in line.partition(" may be ")[0].split(", ")}
        gone = [slot.path for slot in missing if not {slot.path, slot.layer.path} & doubtful]
        taken = {slot.candidate.key for slot in self.slots if slot.candidate is not None}
        surplus = [item.key for item in self.candidates if item.key not in taken and _looks_like_a_weight(item)]
        if gone:
            yield f"missing {_listed(gone)}"
        if surplus:
            yield f"left over {_listed(surplus)}"
        for slot in unfit:
            assert slot.candidate is not None  # the caller looked
            sizes = ", ".join("?" if size is None else str(size) for size in slot.shape or ())
            yield f"{slot.candidate.key} has shape {slot.candidate.tensor.shape}, and {slot.path} ({sizes})"
        for line in self.ambiguous:
            yield f"ambiguous: {line}"

    # -- by name -------------------------------------------------------------------------------------------------------

    def _by_known_names(self, named: Mapping[str, Mapping[str, Tensor]]) -> bool:
        """Fill all slots with what has just the names that the architecture's own weights have; or none."""
        called: dict[Words, list[Candidate]] = defaultdict(list)
        for candidate in self.candidates:
            called[candidate.names[0]].append(candidate)
        found: dict[Slot, Candidate] = {}
        for layer in self.network.layers:
            own = [slot for slot in self.slots if slot.top is layer]
            names = list(named.get(layer.name, ()))
            if len(names) != len(own):
                return False
            for slot, name in zip(own, names, strict=True):
                there = called.get(tuple(name.partition(":")[0].split("/")), [])
                if len(there) != 1 or not slot.fits(there[0].tensor) or not list(roles_in(there[0].names[0], slot)):
                    return False
                found[slot] = there[0]
        for slot, candidate in found.items():
            slot.candidate = candidate
        return True

    def _by_name(self) -> None:
        scopes = self._scopes(exactly=True)
        for layers, there in _connected(scopes):
            if len(layers) == 1:
                self._choose(layers[0], {scope: scopes[scope][layers[0]] for scope in there})
            else:
                self._divide(layers, {scope: scopes[scope] for scope in there})

    def _choose(self, layer: Layer, options: Mapping[Words, Found]) -> None:
        """Take the scope that fits one layer best."""
        top = max(found.rank() for found in options.values())
        best = [scope for scope, found in options.items() if found.rank() == top]
        if len(best) > 1:
            self.ambiguous.append(f"{layer.path} may be {' or '.join('/'.join(scope) for scope in sorted(best))}")
        else:
            self._take(options[best[0]])

    def _divide(self, layers: Sequence[Layer], scopes: Mapping[Words, Mapping[Layer, Found]]) -> None:
        """Divide scopes among layers of the same name, which only the layers around and the shapes can tell apart.

        TensorFlow numbers names in the order in which layers were built, so that a number tells nothing.
        """
        nearest = max(found.fit.unexplained for there in scopes.values() for found in there.values())
        near = {
            scope: there
            for scope, there in scopes.items()
            if max(found.fit.unexplained for found in there.values()) == nearest
        }
        scopes = near if len(near) >= len(layers) else scopes
        whole = {
            scope: [layer for layer, found in there.items() if found.is_whole(self.parts[layer])]
            for scope, there in scopes.items()
        }
        settled = eliminated(whole)
        doubtful = {layer: there for layer, there in settled.items() if len(there) > 1}
        for layer, there in settled.items():
            if layer not in doubtful:
                self._take(scopes[there[0]][layer])
        if doubtful:
            paths = sorted(layer.path for layer in doubtful)
            words = sorted({"/".join(scope) for there in doubtful.values() for scope in there})
            self.ambiguous.append(f"{', '.join(paths)} may be {' or '.join(words)}")

    def _take(self, found: Found) -> None:
        for slot, candidate in found.members.items():
            slot.candidate = candidate

    def _scopes(self, *, exactly: bool) -> dict[Words, dict[Layer, Found]]:
        """What stands in front of roles -> the layers that it may mean -> the weights that are there.

        Args:
            exactly: only the layers that are named best; otherwise all that are called so but for the number.
        """
        ends = {alias.rpartition("/")[2] for slot in self.slots for alias in slot.roles}
        index = Index(self.slots) if exactly else _Bases(self.parts)
        scopes: dict[Words, dict[Layer, Found]] = defaultdict(dict)
        for candidate in self.candidates:
            for words in candidate.names:
                if not _ends_in(words[-1], ends):
                    continue
                for slot in (slot for layer in index.layers(words) for slot in self.parts[layer]):
                    for front in roles_in(words, slot):
                        fit = evidence(front, slot) if exactly else _loosely(front, slot)
                        if fit is not None:
                            found = scopes[front].setdefault(slot.layer, Found(fit, {}))
                            found.add(slot, candidate, words)
        return _best_named(scopes) if exactly else scopes

    # -- by number -----------------------------------------------------------------------------------------------------

    def _by_number(self) -> None:
        """Where layers have the names of others' weights: by the shapes, if these tell all of them.

        All scopes lie in one, the outermost, since optimizers have copies of it below.
        """
        scopes = self._scopes(exactly=False)
        around: dict[Words, dict[Words, list[Layer]]] = defaultdict(dict)
        for scope, layers in scopes.items():
            whole = [layer for layer, found in layers.items() if found.is_whole(self.parts[layer])]
            around[scope[:-1]][scope] = whole
        nearest = min(map(len, around), default=0)
        outer = [there for scope, there in around.items() if len(scope) == nearest]
        settled = eliminated(outer[0]) if len(outer) == 1 else {}
        if len(settled) < len(self.parts) or any(len(there) > 1 for there in settled.values()):
            return
        self.ambiguous = []
        for layer, (scope,) in settled.items():
            self._take(scopes[scope][layer])
            if scope[-1] != layer.name:
                self.changes.append(f"layer {layer.path} has the weights of {'/'.join(scope)}, by their shapes")

    # -- by reader, by order -------------------------------------------------------------------------------------------

    def _by_reader(self) -> None:
        taken = {slot.candidate for slot in self.slots}
        free = [item for item in self.candidates if item not in taken]
        empty = [slots for slots in self.parts.values() if all(slot.candidate is None for slot in slots)]
        found, ambiguous = assigned_by_reader([slot for slots in empty for slot in slots], free)
        self._tell(found, "by who reads them and their shapes")
        self.ambiguous += ambiguous

    def _by_order(self) -> None:
        places = {(slot.layer, slot.stored): slot for slot in self.slots}
        ordered = [
            places[place.layer, place.stored]
            for top in self.network.layers
            for place in order_of_get_weights(top, self.network)(top, lambda layer: stored_of(layer) or ())
        ]
        fitting = [
            listed
            for listed in _lists(self.candidates)
            if len(listed) == len(ordered) and all(map(Slot.fits, ordered, (item.tensor for item in listed)))
        ]
        if len(fitting) > 1:
            keys = " or ".join(listed[0].key for listed in fitting)
            self.ambiguous.append(f"{self.network.name} may be the list that begins with {keys}")
        elif fitting:
            self._tell(dict(zip(ordered, fitting[0], strict=True)), "by the order of the file and their shapes")

    def _tell(self, found: Mapping[Slot, Candidate], how: str) -> None:
        """Take what was found otherwise than by name, and say so, a line a layer."""
        lines: dict[str, list[str]] = defaultdict(list)
        for slot, candidate in found.items():
            slot.candidate = candidate
            lines[slot.layer.path].append(f"{slot.stored.name} is {candidate.key}")
        self.changes += [f"{path}: {', '.join(members)}, {how}" for path, members in lines.items()]

    # -- the result ----------------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """The weights by layer, under the names that the graph has for them where these are names of weights."""
        # An InputLayer that no file has is in no file with weights either.
        weights: dict[str, dict[str, Tensor]] = {layer.name: {} for layer in self.network.layers if layer.source}
        for slot in self.slots:
            assert slot.candidate is not None  # run has looked
            group = weights[slot.top.name]
            name = _name(slot, slot.candidate)
            group[name if name not in group else f"{slot.path}{_ending(slot)}"] = slot.candidate.tensor
        for layer in (layer for layer in self.network.layers if layer.source):
            weights[layer.name].update(self._of_unknown(layer))
        return weights

    def _of_unknown(self, layer: Layer) -> dict[str, Tensor]:
        """What lies in the scope of a layer whose class only its author has, in the graph's order."""
        unknown = [part for part in layer.walk() if stored_of(part) is None]
        if not unknown:
            return {}
        taken = {slot.candidate for slot in self.slots}
        called = {words for item in self.candidates for words in item.names}
        scopes = {layer.name, *(part.name for part in unknown)}
        found: dict[Candidate, int] = {}
        for item in self.candidates:
            own = [words for words in item.names if scopes & set(words[:-1])]
            # What goes on behind another's name belongs to that one: an optimizer's slots, averages.
            if own and item not in taken and not any(words[:-1] in called for words in own) and item.is_variable:
                found[item] = min(min(words.index(scope) for scope in scopes if scope in words) for words in own)
        nearest = min(found.values(), default=0)
        found = {item: depth for item, depth in found.items() if depth == nearest}
        if found:
            keys = ", ".join(item.key for item in found)
            self.changes.append(
                f"{layer.name} ({layer.source_class}) has {keys}, in the graph's order: only its author knows its own"
            )
        return {item.name + _ending_of(layer): item.tensor for item in found}


def _ends_in(word: str, ends: Collection[str]) -> bool:
    """Whether a word may end in one of the roles."""
    return any(
        "_".join(parts[start:]) in ends
        for one in (word, plain(word))
        for parts in (one.split("_"),)
        for start in range(len(parts))
    )


class _Bases:
    """Which layers may be meant by words, whatever the numbers behind them."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._called: dict[str, list[Layer]] = defaultdict(list)
        for layer in layers:
            self._called[plain(layer.name)].append(layer)

    def layers(self, words: Words) -> list[Layer]:
        parts = words[-1].split("_")
        fronts = (words[-2] if len(words) > 1 else "", *("_".join(parts[:count]) for count in range(1, len(parts))))
        return [layer for name in dict.fromkeys(map(plain, fronts)) for layer in self._called.get(name, ())]


def _best_named(scopes: Mapping[Words, Mapping[Layer, Found]]) -> dict[Words, dict[Layer, Found]]:
    """Each scope with the layers that it names best. Several names of the same weights are one scope."""
    merged: dict[frozenset[str], tuple[Words, dict[Layer, Found]]] = {}
    for scope, layers in scopes.items():
        keys = frozenset(item.key for found in layers.values() for item in found.members.values())
        _, all_layers = merged.setdefault(keys, (scope, {}))
        for layer, found in layers.items():
            if layer not in all_layers or found.fit > all_layers[layer].fit:
                all_layers[layer] = found
    best: dict[Words, dict[Layer, Found]] = {}
    for scope, layers in merged.values():
        top = max((found.fit.parents, found.fit.exact) for found in layers.values())
        best[scope] = {layer: found for layer, found in layers.items() if (found.fit.parents, found.fit.exact) == top}
    return best


def _loosely(front: Words, slot: Slot) -> Evidence | None:
    """A name fits where it is the layer's but for the number behind either."""
    return Evidence(0, 1, -len(front)) if front and plain(front[-1]) == plain(slot.layer.name) else None


def _connected(scopes: Mapping[Words, Mapping[Layer, Found]]) -> Iterator[tuple[list[Layer], list[Words]]]:
    """Layers and scopes that have to do with each other, group by group."""
    of_layer: dict[Layer, list[Words]] = defaultdict(list)
    for scope, layers in scopes.items():
        for layer in layers:
            of_layer[layer].append(scope)
    seen: set[Layer] = set()
    for first in of_layer:
        if first not in seen:
            seen.add(first)
            group, there = [first], dict.fromkeys(of_layer[first])
            for layer in group:  # which grows
                for scope in of_layer[layer]:
                    there[scope] = None
                    new = [other for other in scopes[scope] if other not in seen]
                    seen.update(new)
                    group.extend(new)
            yield group, list(there)


def _lists(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Candidates that the file keeps under numbers, in their order, without the states of random numbers."""
    groups: dict[str, dict[int, Candidate]] = defaultdict(dict)
    for candidate in candidates:
        front, _, number = candidate.key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").rpartition("/")
        if number.isdecimal() and not (candidate.tensor.dtype.kind in "iu" and candidate.tensor.shape == (2,)):
            groups[front][int(number)] = candidate
    for members in groups.values():
        yield [members[number] for number in sorted(members)]


def _name(slot: Slot, candidate: Candidate) -> str:
    for words in candidate.names:
        if words[0].startswith(("layer_with_weights-", "layer-")):
            continue  # a path: no variable is called so
        if any(evidence(front, slot) or _loosely(front, slot) for front in roles_in(words, slot)):
            return "/".join(words) + _ending(slot)
    return slot.path + _ending(slot)


def _ending(slot: Slot) -> str:
    return _ending_of(slot.layer)


def _ending_of(layer: Layer) -> str:
    return "" if layer.dialect == "keras3" else ":0"


def _looks_like_a_weight(candidate: Candidate) -> bool:
    return candidate.is_variable and bool(candidate.tensor.shape) and candidate.tensor.dtype.kind in "fV"


def _listed(items: Sequence[str], limit: int = 10) -> str:
    return ", ".join([*items[:limit], *([f"and {len(items) - limit} more"] if len(items) > limit else [])])
