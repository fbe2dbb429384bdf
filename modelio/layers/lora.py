"""What LoRA has learned: two small matrices beside a kernel, or added to it.

HDF5 files (``.h5``) have the matrices as weights of their own, and Keras loads none without them. Where Keras writes a
``.keras`` file it adds their product to the kernel, and where it reads one it starts them anew at zero. So a model that
moves between the two changes its form as it does in Keras.

Sources: keras/src/layers/core/{dense,einsum_dense,embedding}.py and convolutional/base_conv.py (3.15): ``kernel``,
``save_own_variables``, ``load_own_variables``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from modelio.errors import ReadError, WriteError
from modelio.layers.binding import bind
from modelio.layers.catalogue import LEARNED, quantized_to
from modelio.layers.layouts import Stored, stored_of, unlearned
from modelio.layers.network import network_of
from modelio.layers.normal_form import Layer, Network
from modelio.layers.order import trained_first
from modelio.model import LayerModel, Tensor

__all__ = ["apart", "merge", "merged"]


_ARGUMENTS = ("lora_rank", "lora_alpha")


def merge(network: Network) -> None:
    """Add what LoRA learned to the kernels of a network that is bound; its matrices go, and its arguments."""
    for layer in network.walk():
        if _adapted(layer):
            layer.weights = _merged(layer)
            layer.config = {name: value for name, value in layer.config.items() if name not in _ARGUMENTS}


def merged(model: LayerModel, network: Network) -> LayerModel:
    """The model with what LoRA learned in its kernels, as ``.keras`` files have it.

    Raises:
        WriteError: the weights do not fit the architecture.
    """
    if not any(f"/{LEARNED}" in name for group in model.weights.values() for name in group):
        return model
    _bound(network, model)
    sums: dict[int, Tensor] = {}
    parts: set[int] = set()
    for layer in filter(_adapted, network.walk()):
        ours, whole = layer.weights, _merged(layer)
        sums.update({id(ours[role]): tensor for role, tensor in whole.items() if tensor is not ours[role]})
        parts.update(id(tensor) for role, tensor in ours.items() if role not in whole)
    return replace(
        model,
        weights={
            name: {own: sums.get(id(tensor), tensor) for own, tensor in group.items() if id(tensor) not in parts}
            for name, group in model.weights.items()
        },
    )


def _merged(layer: Layer) -> dict[str, Tensor]:
    """The weights of a layer, by role, without those of LoRA."""
    weights = dict(layer.weights)
    for role in _adapted(layer):
        if f"{LEARNED}{role}_a" in weights:
            first, second = weights.pop(f"{LEARNED}{role}_a"), weights.pop(f"{LEARNED}{role}_b")
            weights[role] = _sum(layer, weights[role], first, second)
    return weights


def _adapted(layer: Layer) -> list[str]:
    """The roles of a layer's weights beside which LoRA learns."""
    stored = () if quantized_to(layer.config) == "int4" else stored_of(layer) or ()  # a kernel that says not its shape
    return [one.name[len(LEARNED) : -2] for one in stored if one.name.startswith(LEARNED) and one.name.endswith("_a")]


def _strength(layer: Layer) -> float:
    """Before Keras 3.10 there is no ``lora_alpha``, which is the rank where it is left out."""
    rank, alpha = layer.config.get("lora_rank"), layer.config.get("lora_alpha")
    alpha = rank if alpha is None else alpha
    if not isinstance(rank, int) or not isinstance(alpha, (int, float)) or rank <= 0:
        raise WriteError(f"lora_rank is {rank!r} and lora_alpha {alpha!r}, which are numbers", where=layer.path)
    return float(alpha) / rank


def _sum(layer: Layer, kernel: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """A kernel with what was learned beside it.

    Raises:
        WriteError: when it is read: the kernel is quantized, and something was learned.
    """
    strength = _strength(layer)

    def load() -> np.ndarray[Any, Any]:
        left, right = first.numpy().astype(np.float32), second.numpy().astype(np.float32)
        if not (left.any() and right.any()):
            return kernel.numpy()
        if quantized_to(layer.config):
            raise WriteError(
                "what LoRA learned is beside a quantized kernel, and Keras would quantize their sum anew; load the "
                "model in Keras and save it there",
                where=layer.path,
            )
        learned = np.matmul(left, right)
        return np.asarray(kernel.numpy() + np.float32(strength) * learned).astype(kernel.dtype)

    return Tensor(kernel.dtype, kernel.shape, load)


def apart(model: LayerModel) -> LayerModel:
    """The model with LoRA's matrices among its weights, zeros where they are in the kernels, as HDF5 files have it.

    The weights are listed as Keras lists them in HDF5: trained ones first.

    Raises:
        WriteError: the weights do not fit the architecture.
    """
    if model.dialect != "keras3" or model.architecture is None or not model.weights:
        return model
    network = network_of(model.architecture, model.dialect, model.meta)
    tops = [layer for layer in network.layers if any(map(_adapted, layer.walk())) and model.weights.get(layer.name)]
    if not tops:
        return model
    _bound(network, model)
    groups = {layer.name: _with_zeros(layer, model.weights[layer.name]) for layer in tops}
    return replace(model, weights={**model.weights, **groups})


def _with_zeros(top: Layer, group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = {id(tensor): name for name, tensor in group.items()}
    added: dict[tuple[Layer, str], tuple[str, Tensor]] = {}
    for layer in top.walk():
        for role in _adapted(layer):
            stem = names[id(layer.weights[role])].removesuffix(role)
            for learned in (f"{LEARNED}{role}_a", f"{LEARNED}{role}_b"):
                if learned not in layer.weights:
                    added[layer, learned] = stem + learned, unlearned(layer, learned, layer.weights)
    if not added:
        return dict(group)

    def own_of(layer: Layer) -> tuple[Stored, ...]:
        known = {stored.name: stored for stored in stored_of(layer) or ()}
        roles = [*layer.weights, *(role for at, role in added if at is layer)]
        order = [role for role in known if role in roles] + [role for role in roles if role not in known]
        return tuple(known.get(role, Stored(role, (), True)) for role in order)

    listed = {}
    for layer, stored in trained_first(top, own_of):
        tensor = layer.weights.get(stored.name)
        name, tensor = (names[id(tensor)], tensor) if tensor is not None else added[layer, stored.name]
        listed[name] = tensor
    return listed


def _bound(network: Network, model: LayerModel) -> None:
    try:
        bind(network, model)
    except ReadError as error:
        raise WriteError(error.reason, where=error.where) from error
