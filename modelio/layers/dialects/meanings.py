"""What the same words mean in another Keras, and what can be done about it.

A rule looks at one layer, still in the words of the normal form, and returns it changed so that it means in the target
what it meant where it comes from. Where that cannot be, it names the loss. Rules are tried in the order of
:data:`RULES`; a rule that turns the layer into a model (:mod:`~modelio.layers.dialects.substitutes`) is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from modelio.layers.dialects.activations import RECURRENT, activation, hard_gates
from modelio.layers.dialects.quantized import QUANTIZED, plain
from modelio.layers.dialects.site import Site, crosses, told, without
from modelio.layers.dialects.substitutes import cosine_of_keras_1, derived, highway, maxout, padded_in_front
from modelio.layers.layouts import THEANO_PADS, theano_pads_otherwise
from modelio.layers.normal_form import Layer
from modelio.layers.vocabularies import arguments_of, boundaries_of, factors_of

__all__ = ["adapted"]

Rule = Callable[[Layer, Site], Layer | None]
"""From a layer to the layer that means the same in the target; None: it is that layer."""


def adapted(layer: Layer, site: Site) -> Layer:
    """``layer`` as the target has to be told it."""
    for classes, rule in RULES:
        if (layer.class_name in classes or not classes) and layer.network is None:
            try:
                layer = rule(layer, site) or layer
            except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError):
                site.account.loss("its arguments are not such as its class takes, and are left as they are", layer.path)
    return layer


# -- normalization -----------------------------------------------------------------------------------------------------

CUDNN_EPSILON = 1.001e-5
"""The least epsilon of images in Keras 2.2 to 2.11, whatever the layer was told (TensorFlow 1.15 to 2.11
``python/ops/nn_impl.py``, fused_batch_norm)."""


def _least_epsilon(version: tuple[int, ...]) -> bool:
    return (2, 2) <= version < (2, 12)


def _batch_normalization(layer: Layer, site: Site) -> Layer | None:
    account, config = site.account, layer.config
    mode = config.get("mode", 0)
    if mode == 1:
        account.loss(
            "mode=1 adds epsilon to the variance and again to the deviation, LayerNormalization once: outputs differ",
            layer.path,
        )
        kept = without(layer, "mode", "axis", "momentum", "renorm")
        return replace(
            kept,
            class_name="LayerNormalization",
            weights={role: layer.weights[role] for role in ("gamma", "beta") if role in layer.weights},
        )
    if mode == 2:
        account.loss(
            f"mode=2 normalizes by the batch's own mean and variance, which {site.target.title} does in training alone",
            layer.path,
        )
    rank = len(site.shape) if site.shape is not None else None
    epsilon = config.get("epsilon")
    plain_axis = isinstance(config.get("axis"), int)
    if isinstance(epsilon, float) and epsilon < CUDNN_EPSILON and rank == 4 and plain_axis and not config.get("renorm"):
        raised = layer.dialect == "keras2" and _least_epsilon(layer.version)
        raises = site.target.dialect == "keras2" and _least_epsilon(site.target.version)
        if raised and not raises:
            account.change(f"epsilon {epsilon:g} -> {CUDNN_EPSILON:g}, which is what counted for images", layer.path)
            layer = told(layer, epsilon=CUDNN_EPSILON)
        elif raises and not raised:
            account.loss(
                f"the target takes no epsilon below {CUDNN_EPSILON:g} for images: outputs differ a little", layer.path
            )
    if site.target.dialect == "keras3" and not plain_axis:
        account.loss("Keras 3 normalizes along one axis, and refuses several", layer.path)
    layer = without(layer, "mode")
    if config.get("renorm") or config.get("virtual_batch_size") is not None:
        layer = _of_plain_batches(layer, site)
    return layer


def _normalization(layer: Layer, site: Site) -> Layer | None:
    """Keras 3 wants mean and variance of one shape, where Keras 2 spreads a single number."""
    mean, variance = layer.config.get("mean"), layer.config.get("variance")
    if site.target.dialect != "keras3" or mean is None or variance is None or np.shape(mean) == np.shape(variance):
        return None
    site.account.change("mean, variance: of one shape", layer.path)
    same = np.broadcast_arrays(np.asarray(mean, "float64"), np.asarray(variance, "float64"))
    return told(layer, mean=same[0].tolist(), variance=same[1].tolist())


def _of_plain_batches(layer: Layer, site: Site) -> Layer:
    """Batch renormalization and virtual batches differ from the plain layer in training, and in what they store."""
    if site.target.dialect == "keras2" and layer.dialect == "keras2":
        return layer
    told = [key for key in ("renorm", "virtual_batch_size") if layer.config.get(key)]
    site.account.loss(f"{', '.join(told)}: left out, which changes training and not the outputs", layer.path)
    roles = ("gamma", "beta", "moving_mean", "moving_variance")
    weights = {role: layer.weights[role] for role in roles if role in layer.weights}
    flat = isinstance(layer.config.get("axis"), int)
    weights = {
        role: derived((tensor.size,), tensor, np.ravel) if flat and len(tensor.shape) != 1 else tensor
        for role, tensor in weights.items()
    }
    config = {
        key: value
        for key, value in layer.config.items()
        if not key.startswith("renorm") and key != "virtual_batch_size"
    }
    return replace(layer, config=config, weights=weights)


def _layer_normalization(layer: Layer, site: Site) -> Layer | None:
    """Several axes out of order: Keras 2 keeps the order in the weights' shape, Keras 3 sorts; neither turns them.

    Sources: tf_keras 2.21 ``layer_normalization.py`` call (a reshape), Keras 3.15 ``layer_normalization.py`` build.
    """
    axis, shape = layer.config.get("axis"), site.shape
    if not isinstance(axis, (list, tuple)) or shape is None or len(axis) < 2:
        return None
    rank = len(shape)
    ordered = tuple(sorted(at % rank for at in axis))
    if ordered == tuple(at % rank for at in axis) or not crosses(layer, site):
        return None
    sizes = {at % rank: place for place, at in enumerate(axis)}
    site.account.change(f"axis {list(axis)} -> {list(ordered)}", layer.path)
    weights = {
        role: derived(tuple(tensor.shape[sizes[at]] for at in ordered), tensor, _reshaped(sizes, ordered))
        for role, tensor in layer.weights.items()
    }
    return replace(told(layer, axis=ordered), weights=weights if layer.dialect == "keras2" else layer.weights)


def _reshaped(sizes: Mapping[int, int], ordered: tuple[int, ...]) -> Callable[[Any], Any]:
    return lambda array: array.reshape([array.shape[sizes[at]] for at in ordered])


# -- layers with windows -----------------------------------------------------------------------------------------------


def _resized(layer: Layer, site: Site) -> Layer | None:
    interpolation = layer.config.get("interpolation", "nearest")
    if interpolation == "nearest":
        return None
    corners = layer.dialect != "keras3" and layer.family == "keras"
    if corners != (site.target.dialect == "keras2" and site.target.version < (2, 4)):
        ends = ("corners", "centers") if corners else ("centers", "corners")
        site.account.loss(
            f"it interpolates between the {ends[0]} of pixels, the target between their {ends[1]}: outputs differ",
            layer.path,
        )
    if site.target.dialect == "keras3" and interpolation not in ("bilinear", "bicubic", "lanczos3", "lanczos5"):
        site.account.loss(f"Keras 3 has no interpolation {interpolation!r}, and refuses it", layer.path)
    return None


def _deconvolution(layer: Layer, site: Site) -> Layer | None:
    """Keras 1 was told the whole output_shape; later ones are told what it has more than the least that fits."""
    if "output_shape" not in layer.config:
        return None
    whole = layer.config["output_shape"]
    layer = without(layer, "output_shape")
    if whole is None:
        return layer
    config = layer.config
    first, same = config["data_format"] == "channels_first", config["padding"] == "same"
    wanted, given = ((list(shape or ())[2:] if first else list(shape or ())[1:-1]) for shape in (whole, site.shape))
    if len(wanted) != len(given) or None in (*wanted, *given):
        site.account.loss(f"output_shape={list(whole)} says nothing where the input's size is not known", layer.path)
        return layer
    least, more = [], []
    for size, length, window, step in zip(given, wanted, config["kernel_size"], config["strides"], strict=True):
        least.append(size * step + (0 if same else max(window - step, 0)))
        more.append(length - (size - 1) * step - window + (window // 2 * 2 if same else 0))
    site.account.change("output_shape -> output_padding", layer.path)
    if wanted == least:
        return layer
    if not all(0 <= size < step for size, step in zip(more, config["strides"], strict=True)):
        site.account.loss(f"output_shape={list(whole)} cannot be said with output_padding: outputs differ", layer.path)
        return layer
    return told(layer, output_padding=tuple(more))


def _causal(layer: Layer, site: Site) -> Layer | None:
    """Keras 3's separable convolutions have no causal padding, which is zeros in front."""
    if site.target.dialect != "keras3" or layer.config.get("padding") != "causal":
        return None
    made = padded_in_front(layer, site.shape) if layer.config["data_format"] == "channels_last" else None
    if made is None:
        site.account.loss("SeparableConv1D has no causal padding in Keras 3, which refuses it", layer.path)
    else:
        site.account.change("padding causal -> ZeroPadding1D in front in a model of the layer's name", layer.path)
    return made


def _cropped(layer: Layer, site: Site) -> Layer | None:
    new, old = (
        dialect == "keras3" and version >= (3, 6)
        for dialect, version in ((site.target.dialect, site.target.version), (layer.dialect, layer.version))
    )
    if new != old:
        site.account.loss(
            "outside of training RandomCrop resizes before Keras 3.6, and does nothing since: outputs differ",
            layer.path,
        )
    return None


def _theano_padding(layer: Layer, site: Site) -> Layer | None:
    if site.backend == "theano" and theano_pads_otherwise(layer):
        site.account.loss(THEANO_PADS, layer.path)
    return None


# -- the rest ----------------------------------------------------------------------------------------------------------


def _thresholded(layer: Layer, site: Site) -> Layer | None:
    """ThresholdedReLU is ReLU with a threshold: both let pass what is greater (Keras 3.15 ``activations.py``, relu)."""
    if site.target.dialect != "keras3":
        return None
    site.account.change("ThresholdedReLU -> ReLU with threshold", layer.path)
    return replace(
        layer,
        class_name="ReLU",
        source_class="ReLU",
        config={**without(layer, "theta").config, "threshold": layer.config["theta"], "negative_slope": 0.0},
    )


def _time_major(layer: Layer, site: Site) -> Layer | None:
    if layer.config.get("time_major") and site.target.dialect == "keras3":
        site.account.loss(
            "time_major=True has no counterpart in Keras 3, where samples come first: outputs differ", layer.path
        )
        return without(layer, "time_major")
    return None


def _embedding(layer: Layer, site: Site) -> Layer | None:
    """Keras 2.0 to 2.2 note the dtype of the indices, which are no type for weights."""
    dtype = layer.config.get("dtype")
    if isinstance(dtype, str) and dtype.startswith(("int", "uint")):
        site.account.change(f"dtype {dtype}, that of the indices, left out", layer.path)
        return without(layer, "dtype")
    return None


def _looked_up(layer: Layer, site: Site) -> Layer | None:
    """Layers for whole numbers and text choose their dtypes themselves; tf_keras keeps the vocabulary as a weight."""
    layer = without(layer, "dtype")
    summary = layer.weights.get("summary") if site.target.dialect == "keras3" else None
    if layer.class_name == "Discretization" and summary is not None and layer.config.get("bin_boundaries") is None:
        site.account.change("bin_boundaries: from the summary among the weights to the arguments", layer.path)
        boundaries = boundaries_of(summary.numpy(), layer.config.get("num_bins"))
        layer = replace(told(layer, bin_boundaries=boundaries.tolist()), weights={})
    if layer.class_name == "Discretization" and layer.config.get("bin_boundaries"):
        layer = without(layer, "num_bins")  # which Keras 3 keeps beside what it has adapted, and Keras 2 refuses there
    vocabulary = layer.weights.get("vocabulary")
    if vocabulary is None:
        if layer.class_name in _TABLES and layer.config.get("vocabulary") is None:
            site.account.loss("its vocabulary is neither among the arguments nor among the weights", layer.path)
        factors = factors_of(layer)
        if site.target.dialect == "keras2" and factors is not None and "idf_weights" not in layer.weights:
            return replace(layer, weights={**layer.weights, "idf_weights": factors})
        return layer
    site.account.change("vocabulary: from the weights to the arguments", layer.path)
    others = {role: own for role, own in layer.weights.items() if role not in ("vocabulary", "num_documents")}
    return replace(told(layer, **arguments_of(layer)), weights=others)


_TABLES = ("TextVectorization", "StringLookup", "IntegerLookup")


def _attention(layer: Layer, site: Site) -> Layer | None:
    """``causal`` went from the layer to its calls in Keras 2.10."""
    return without(layer, "causal")


def _maxout(layer: Layer, site: Site) -> Layer | None:
    made = maxout(layer, site.shape)
    if made is not None:
        site.account.change(
            "MaxoutDense -> Dense + Reshape + GlobalMaxPooling1D in a model of the layer's name", layer.path
        )
    return made


def _highway(layer: Layer, site: Site) -> Layer | None:
    made = highway(layer, site.shape)
    if made is not None:
        site.account.change("Highway -> two Dense and three merging layers in a model of the layer's name", layer.path)
    return made


def _dot(layer: Layer, site: Site) -> Layer | None:
    ranks = [len(shape) for shape in site.shapes if shape is not None]
    if layer.dialect == "keras1" and layer.config.get("normalize"):
        made = cosine_of_keras_1(layer, site.shapes)
        if made is None:
            site.account.loss(
                "Merge(mode='cos') is a cosine for vectors alone, Dot(normalize=True) for all: outputs differ",
                layer.path,
            )
        else:
            site.account.change("Merge(mode='cos') -> Dot + Reshape in a model of the layer's name", layer.path)
        return made
    if max(ranks, default=0) > 3 and len(layer.version) > 1 and layer.version < (2, 2, 5):
        site.account.loss("Dot multiplied tensors of rank 4 as matrices before Keras 2.2.5: outputs differ", layer.path)
    return None


def _masked_together(layer: Layer, site: Site) -> Layer | None:
    """Of several masks Keras 1 and 2 take what all of them count, Keras 3 what one does.

    Sources: tf_keras 2.21 and Keras 3.15 ``layers/merging/base_merge.py`` and ``concatenate.py``, compute_mask.
    """
    differ = len(set(site.masks)) > 1 and any(shape is None or len(shape) > 2 for shape in site.shapes)
    if differ and crosses(layer, site):
        site.account.loss(
            "of inputs whose masks differ Keras 1 and 2 count the steps that all of them count, Keras 3 those that one "
            "does: what follows may differ",
            layer.path,
        )
    return None


def _masked_both_ways(layer: Layer, site: Site) -> Layer | None:
    """Masked steps of both directions are zero since TensorFlow 1.13, and were the outputs before them.

    Source: TensorFlow 1.15 ``keras/layers/wrappers.py``, Bidirectional: ``zero_output_for_mask``.
    """
    inner = layer.inner.get("layer")
    before, after = (
        dialect == "keras3" or (family == "tf.keras" and version >= (2, 2, 4))
        for dialect, family, version in (
            (layer.dialect, layer.family, layer.version),
            (site.target.dialect, "tf.keras" if site.target.version >= (2, 4) else "keras", site.target.version),
        )
    )
    if any(site.masks) and before != after and inner is not None and inner.config.get("return_sequences"):
        site.account.loss(
            "the outputs of masked steps are zero in newer Keras, and those of the steps before them in older: "
            "they differ where steps are masked",
            layer.path,
        )
    return None


_MERGES = frozenset({"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"})
_WINDOWS = frozenset(
    {
        *(f"{kind}{rank}D" for kind in ("Conv", "MaxPooling", "AveragePooling") for rank in (1, 2, 3)),
        *("SeparableConv2D", "Conv2DTranspose", "ConvLSTM2D"),
    }
)
_INTEGER = frozenset(
    {
        "TextVectorization",
        "StringLookup",
        "IntegerLookup",
        "Hashing",
        "HashedCrossing",
        "Discretization",
        "CategoryEncoding",
    }
)

RULES: tuple[tuple[frozenset[str], Rule], ...] = (
    (QUANTIZED, plain),
    (frozenset({"BatchNormalization"}), _batch_normalization),
    (frozenset({"LayerNormalization"}), _layer_normalization),
    (frozenset({"Normalization"}), _normalization),
    (frozenset({"UpSampling2D", "Resizing"}), _resized),
    (frozenset({"Conv2DTranspose"}), _deconvolution),
    (_WINDOWS, _theano_padding),
    (frozenset({"SeparableConv1D"}), _causal),
    (frozenset({"RandomCrop"}), _cropped),
    (frozenset(RECURRENT), hard_gates),
    (frozenset({*RECURRENT, "RNN"}), _time_major),
    (frozenset({"Embedding"}), _embedding),
    (_INTEGER, _looked_up),
    (frozenset({"ThresholdedReLU"}), _thresholded),
    (frozenset({"Attention", "AdditiveAttention"}), _attention),
    (frozenset({"MaxoutDense"}), _maxout),
    (frozenset({"Highway"}), _highway),
    (frozenset({"Dot"}), _dot),
    (_MERGES, _masked_together),
    (frozenset({"Bidirectional"}), _masked_both_ways),
    (frozenset(), activation),
)
"""Classes (none: all) -> what to look at."""
