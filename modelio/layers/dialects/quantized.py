"""Quantized layers of Keras 3, as the plain layers that Keras 2 has: their kernels in floating point again.

A kernel in int8 is divided by its scale, one in float8 is in floating point already. That inputs are not rounded any
more is a loss, if a welcome one. Source: Keras 3.15 ``src/layers/core/{dense,embedding}.py``, ``_int8_call``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError
from modelio.layers.catalogue import quantized_to
from modelio.layers.dialects.site import Site, without
from modelio.layers.normal_form import Layer
from modelio.model import Tensor

__all__ = ["QUANTIZED", "plain"]

QUANTIZED = frozenset({"Dense", "EinsumDense", "Embedding", "ReversibleEmbedding"})

_AXES = {("Dense", "kernel"): 0, ("Embedding", "embeddings"): 1, ("ReversibleEmbedding", "embeddings"): 1}
"""Class and role of a matrix in int8, and the axis along which its scale is the same."""


def plain(layer: Layer, site: Site) -> Layer | None:
    """The layer without its quantization, for Keras 2.

    Raises:
        ConversionError: its numbers lie in another way than one in each byte.
    """
    mode = quantized_to(layer.config)
    if not mode or site.target.dialect == "keras3":
        return None
    matrices = {role: axis for (class_name, role), axis in _AXES.items() if class_name == layer.class_name}
    if mode not in ("int8", "float8") or (mode == "int8" and not matrices):
        raise ConversionError(
            f"{layer.class_name} is quantized to {mode}, which {site.target.title} does not have, and which is not "
            "undone here: save the model in Keras before it is quantized",
            where=layer.path,
        )
    site.account.loss(
        f"{site.target.title} has no quantized layers: computed in floating point from here on", layer.path
    )
    kept = {role: tensor for role, tensor in layer.weights.items() if role in ("kernel", "bias", "embeddings")}
    if mode == "int8":
        kept.update(
            {
                role: _divided(kept[role], layer.weights[f"{role}_scale"], matrices[role])
                for role in kept
                if role in matrices
            }
        )
    told = without(layer, "quantization_config", "dtype", "lora_rank", "lora_alpha")
    told.config["dtype"] = layer.variable_dtype if layer.dtype == layer.variable_dtype else f"mixed_{layer.dtype}"
    told.weights = kept
    return told


def _divided(matrix: Tensor, scale: Tensor, axis: int) -> Tensor:
    def load() -> npt.NDArray[np.float32]:
        factor = np.expand_dims(scale.numpy().astype(np.float32), axis)
        quotient: npt.NDArray[np.float32] = np.divide(matrix.numpy(), factor, dtype=np.float32)
        return quotient

    return Tensor(np.float32, matrix.shape, load)
