"""Weights that are named after who reads them, as TensorFlow 2 freezes them.

::

    mlp/dense_1/MatMul/ReadVariableOp/resource              the kernel of dense_1
    mlp/bn/batchnorm/ReadVariableOp_2/resource              the third that bn's batchnorm reads: beta
    mlp_1/dense_1_2/Cast/ReadVariableOp/resource            with Keras 3, which counts the traces: the kernel of dense_1

Scopes are matched to layers, each to one, by elimination: ``dense_1`` may be dense for the second time or dense_1;
where there is a ``dense_1_2``, too, which can only be dense_1, it is dense. Within a layer the shape decides, and where
several are equal, the order in which the layer's ``call`` reads them.

Sources: ``tensorflow/python/framework/convert_to_constants.py`` (the names); ``call`` of BatchNormalization,
LayerNormalization and the recurrent cells in tf_keras 2.21 and Keras 3.15, ``tensorflow/python/ops/nn_impl.py``
(batch_normalization).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from modelio.layers.normal_form import Layer
from modelio.lifting.candidates import Candidate, Words
from modelio.lifting.names import Index, aligned
from modelio.lifting.places import Slot

__all__ = ["assigned_by_reader", "eliminated"]

Way = Mapping[str, tuple[str, ...]]
"""Reader -> the roles that it reads, one after the other. The reader is a pattern of the words behind the layer's name,
in which # stands for its count; a role that the layer does not have is not counted."""

_CELL: tuple[Way, ...] = (
    {"Read#": ("kernel", "recurrent_kernel", "bias")},
    {"(?:.*/)?MatMul#": ("kernel", "recurrent_kernel")},
    {"(?:.*/)?Cast#": ("kernel", "recurrent_kernel")},
)

_PARTS = ("query", "key", "value", "attention_output")
_ATTENTION: tuple[Way, ...] = (
    {
        **{f"{part}(?:_\\d+)?/(?:.*/)?(?:Einsum|Cast)(?:_\\d+)?": (f"{part}/kernel",) for part in _PARTS},
        **{f"{part}(?:_\\d+)?/(?:add|Add|BiasAdd)(?:_\\d+)?": (f"{part}/bias",) for part in _PARTS},
    },
)
_EINSUM: tuple[Way, ...] = (
    {"(?:.*/)?(?:Einsum|Cast)(?:_\\d+)?": ("kernel",), "(?:add|Add|BiasAdd)(?:_\\d+)?": ("bias",)},
)

_LOCALLY_CONNECTED: tuple[Way, ...] = (
    {"ReadVariableOp|(?:MatMul|SparseTensor|mul)(?:_\\d+)?": ("kernel",), "Reshape(?:_\\d+)?": ("bias",)},
)

_OPS = frozenset({*(f"conv{rank}d_transpose" for rank in (1, 2, 3)), "separable_conv2d", "depthwise_conv2d"})
"""Functions of TensorFlow that read a weight in a scope of their own, whose names are those of layers, too."""

WAYS: Mapping[str, tuple[Way, ...]] = {  # of each class, the ways that its versions have
    "BatchNormalization": (
        {"ReadVariableOp#": ("gamma", "beta"), "FusedBatchNorm.*/ReadVariableOp#": ("moving_mean", "moving_variance")},
        {
            "batchnorm(?:_\\d+)?/mul": ("gamma",),
            "batchnorm(?:_\\d+)?/ReadVariableOp#": ("moving_variance", "moving_mean", "beta"),
        },
        {"Cast#": ("moving_mean", "moving_variance", "gamma", "beta")},
        {"Reshape#": ("gamma", "beta", "moving_mean", "moving_variance")},  # where the axis is not the last
    ),
    "LayerNormalization": (
        {"mul_3": ("gamma",), "add": ("beta",)},
        {"batchnorm(?:_\\d+)?/mul": ("gamma",), "batchnorm(?:_\\d+)?/ReadVariableOp#": ("beta",)},
        {"Reshape#": ("gamma", "beta")},
        {"Cast#": ("gamma", "beta")},
    ),
    "GroupNormalization": ({"Reshape(?:_[23])?/ReadVariableOp#": ("gamma", "beta")},),
    "MultiHeadAttention": _ATTENTION,
    "GroupQueryAttention": _ATTENTION,
    "EinsumDense": _EINSUM,
    **{f"ConvLSTM{rank}D": ({"(?:.*/)?split#": ("kernel", "recurrent_kernel", "bias")},) for rank in (1, 2, 3)},
    **dict.fromkeys(("LocallyConnected1D", "LocallyConnected2D"), _LOCALLY_CONNECTED),
    **dict.fromkeys(("SimpleRNN", "SimpleRNNCell", "LSTM", "LSTMCell", "GRU", "GRUCell"), _CELL),
}


def assigned_by_reader(
    slots: Sequence[Slot], candidates: Sequence[Candidate]
) -> tuple[dict[Slot, Candidate], list[str]]:
    """The candidate of each slot that readers and shapes tell, and what they leave ambiguous."""
    wanted: dict[Layer, list[Slot]] = defaultdict(list)
    for slot in slots:
        wanted[slot.layer].append(slot)
    scopes = _scopes(wanted, candidates)
    found: dict[Slot, Candidate] = {}
    ambiguous: list[str] = []
    for layer, there in eliminated(scopes).items():
        if len(there) > 1:
            options = " or ".join("/".join(scope) for scope in sorted(there))
            ambiguous.append(f"{', '.join(slot.path for slot in wanted[layer])} may be what is in {options}")
            continue
        one, doubts = _within(wanted[layer], scopes[there[0]][layer], len(there[0]))
        found.update(one)
        ambiguous += doubts
    return found, ambiguous


Scopes = dict[Words, dict[Layer, list[Candidate]]]


def _scopes(wanted: Mapping[Layer, Sequence[Slot]], candidates: Iterable[Candidate]) -> Scopes:
    """Scope -> the layers that it may be of -> what is in it; of layers whose weights may all be there only these."""
    index = Index(slot for slots in wanted.values() for slot in slots)
    scopes: Scopes = defaultdict(lambda: defaultdict(list))
    for candidate in candidates:
        options = []
        for reader in candidate.readers[:1]:  # one is as good as another: they differ where a layer is called again
            words = _outside_of_ops(reader, index)
            for layer in index.layers(words):
                where = aligned(words, wanted[layer][0].chain, wanted[layer][0].wrapped)
                if where is not None:
                    options.append((where[0], layer, words[: where[3] + 1]))
        parents = max((option[0] for option in options), default=0)
        for around, layer, scope in options:
            if around == parents:
                scopes[scope][layer].append(candidate)
    for scope, layers in scopes.items():
        whole = {layer: there for layer, there in layers.items() if _is_whole(wanted[layer], there)}
        scopes[scope] = whole or layers
    return scopes


def _outside_of_ops(words: Words, index: Index) -> Words:
    """The words up to the scope of a function of TensorFlow, where a layer is named in front of it.

    ``model/conv2d_transpose_1/conv2d_transpose/ReadVariableOp`` is read in the layer conv2d_transpose_1.
    """
    for at in range(len(words) - 1, 0, -1):
        if words[at] in _OPS:
            return words[:at] if index.layers(words[at - 1 : at]) else words
    return words


def _is_whole(slots: Sequence[Slot], there: Sequence[Candidate]) -> bool:
    return all(any(slot.fits(item.tensor) for item in there) for slot in slots)


def eliminated(scopes: Mapping[Words, Iterable[Layer]]) -> dict[Layer, list[Words]]:
    """Layer -> its scope, after all that is settled by what can be nothing else; several where that leaves a choice.

    Every scope is some layer's: one that can be a single layer's is, unless another can be that one's alone, too.
    """
    owners = {scope: set(layers) for scope, layers in scopes.items()}
    left: dict[Layer, list[Words]] = defaultdict(list)
    for scope, layers in owners.items():
        for layer in layers:
            left[layer].append(scope)
    settled: dict[Layer, list[Words]] = {}
    while left:
        found = None
        for layer, there in left.items():
            alone = [scope for scope in there if len(owners[scope]) == 1]
            if len(there) == 1 or len(alone) == 1:
                found = layer, (alone or there)[0]
                break
        if found is None:
            break
        layer, own = found
        settled[layer] = [own]
        for scope in left.pop(layer):
            owners[scope].discard(layer)
        for other, there in left.items():
            left[other] = [scope for scope in there if scope != own]
        left = {other: there for other, there in left.items() if there}
    return {**settled, **left}


def _within(
    slots: Sequence[Slot], candidates: Sequence[Candidate], depth: int
) -> tuple[dict[Slot, Candidate], list[str]]:
    """The weights of one layer: by shape where only one fits, else by the order of reading."""
    found: dict[Slot, Candidate] = {}
    left = list(candidates)
    waiting = list(slots)
    told = _told(slots, candidates, depth)
    while waiting:
        ready = [(slot, [item for item in left if slot.fits(item.tensor)]) for slot in waiting]
        one = next(((slot, fit[0]) for slot, fit in ready if len(fit) == 1 and _is_only(slot, fit[0], waiting)), None)
        if one is None:
            one = next(((slot, told[slot]) for slot in waiting if slot in told and told[slot] in left), None)
        if one is None:
            break
        found[one[0]] = one[1]
        waiting.remove(one[0])
        left.remove(one[1])
    doubts = [slot for slot in waiting if any(slot.fits(item.tensor) for item in left)]
    if not doubts:
        return found, []
    keys = [item.key for item in left if any(slot.fits(item.tensor) for slot in doubts)]
    return found, [f"{', '.join(slot.path for slot in doubts)} may be {' or '.join(keys)}"]


def _is_only(slot: Slot, candidate: Candidate, waiting: Sequence[Slot]) -> bool:
    return all(other is slot or not other.fits(candidate.tensor) for other in waiting)


def _told(slots: Sequence[Slot], candidates: Sequence[Candidate], depth: int) -> dict[Slot, Candidate]:
    """Slot -> the candidate that the order of reading tells: of the way that explains the most of them."""
    layer = slots[0].layer
    by_role = {slot.stored.name: slot for slot in slots}
    best: dict[Slot, Candidate] = {}
    for way in WAYS.get(layer.class_name, ()):
        told: dict[Slot, Candidate] = {}
        for pattern, roles in way.items():
            there = [role for role in roles if role in by_role]
            read = _read_by(pattern, candidates, depth)
            if len(read) == len(there):
                told.update({by_role[role]: item for role, item in zip(there, read, strict=True)})
        if len(told) > len(best):
            best = told
    return best


def _read_by(pattern: str, candidates: Sequence[Candidate], depth: int) -> list[Candidate]:
    """The candidates that a reader reads, in the order of its counting."""
    form = re.compile(pattern.replace("#", r"(?:_(\d+))?"))
    counted: list[tuple[int, Candidate]] = []
    for candidate in candidates:
        behind = "/".join(candidate.readers[0][depth:])
        found = form.fullmatch(behind) or form.fullmatch(re.sub(r"/ReadVariableOp(?:_\d+)?$", "", behind))
        if found is not None:
            number = found[1] if found.re.groups else None
            counted.append((int(number or 0), candidate))
    return [candidate for _, candidate in sorted(counted, key=lambda pair: pair[0])]
