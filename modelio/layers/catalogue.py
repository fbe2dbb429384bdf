"""Every built-in layer class: its weights in Keras' order, its arguments' defaults, where both come from.

A row of :data:`CATALOGUE` says, under the class name of Keras 2 and 3:

* ``weights``: roles in the order of ``layer.get_weights()``, trainable ones first, each with its shape. A shape is
  a line of words: ``"kernel_size channels/groups filters"``. A word is a number, an argument of the layer, or a fact
  about its input (:data:`_FACTS`); words multiply and divide; an argument that is a tuple gives several sizes; ``?`` is
  any size.
* ``defaults``: what a missing key means. Writers record every argument they know, so a key is missing only where
  the version that wrote the file did not have the argument yet: the value is what that version did.
* ``sizes``: arguments that are one number or one number a spatial axis; the normal form has the tuple.

The order of weights is that of the ``add_weight`` calls in each class's ``build``; Keras 1.2.2 ``keras/layers/*.py``,
Keras 2.3.1 ``keras/layers/*.py``, tf_keras 2.21 ``src/layers/**``, Keras 3.15 ``src/layers/**`` agree on it except
where a comment says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = [
    "CATALOGUE",
    "LEARNED",
    "LOOSE",
    "Kind",
    "Shape",
    "Weight",
    "block_of",
    "complete",
    "dimensions",
    "quantized_to",
    "weights_of",
]

Config = Mapping[str, Any]
Shape = tuple[int | None, ...]


class Weight(NamedTuple):
    """One weight of a layer.

    Args:
        role: its name in the normal form; ``query/kernel`` belongs to a part of the layer.
        shape: see the module's text; empty: not known from the arguments and the input's shape.
        when: the argument that must be true for the weight to exist, or a function of the arguments.
        trainable: False for what training keeps by other means (moving averages).
        names: other names that stand for this role in files.
        family: the Keras that alone counts it as a weight: ``"keras"`` or ``"tf.keras"``.
    """

    role: str
    shape: str = ""
    when: str | Callable[[Config], bool] = ""
    trainable: bool = True
    names: tuple[str, ...] = ()
    family: str = ""

    def exists(self, config: Config) -> bool:
        try:
            if callable(self.when):
                return bool(self.when(config))
            return bool(config.get(self.when)) if self.when else True
        except ValueError:  # an array among the arguments, which is neither true nor false
            return True


@dataclass(frozen=True)
class Kind:
    """What is known of a layer class. ``rank`` counts the spatial axes of its input, where it has a fixed number."""

    weights: tuple[Weight, ...] = ()
    defaults: Config = field(default_factory=dict)
    rank: int | None = None
    sizes: tuple[str, ...] = ()


LEARNED = "lora_"
"""In front of the roles of what LoRA has learned, which are merged into the kernel in ``.keras`` files."""


# -- convolution: {base_conv,base_conv_transpose,base_depthwise_conv,base_separable_conv}.py ---------------------------

_KERNEL = ("W",)
_BIAS = ("b",)

_CONVOLUTION = {
    "strides": 1,
    "padding": "valid",
    "data_format": "channels_last",
    "dilation_rate": 1,
    "groups": 1,  # since TensorFlow 2.3
    "activation": "linear",
    "use_bias": True,
}
_CONVOLUTION_SIZES = ("kernel_size", "strides", "dilation_rate")


def _bias(shape: str) -> Weight:
    return Weight("bias", shape, when="use_bias", names=_BIAS)


def _learner(role: str, shape: str) -> tuple[Weight, Weight]:
    """A kernel, which training leaves alone where LoRA learns beside it (``enable_lora``)."""
    return (
        Weight(role, shape, when=lambda config: not config.get("lora_rank"), names=_KERNEL),
        Weight(role, shape, when="lora_rank", trainable=False, names=_KERNEL),
    )


def _lora(role: str) -> tuple[Weight, Weight]:
    """The two matrices of LoRA."""
    return Weight(f"{LEARNED}{role}_a", when="lora_rank"), Weight(f"{LEARNED}{role}_b", when="lora_rank")


def _convolution(rank: int) -> Kind:
    weights = (*_learner("kernel", "kernel_size channels/groups filters"), _bias("filters"), *_lora("kernel"))
    return Kind(weights, _CONVOLUTION, rank, _CONVOLUTION_SIZES)


def _transposed(rank: int) -> Kind:
    kernel = Weight("kernel", "kernel_size filters channels", names=_KERNEL)
    defaults = {**_CONVOLUTION, "output_padding": None}  # since Keras 2.2.3
    return Kind((kernel, _bias("filters")), defaults, rank, (*_CONVOLUTION_SIZES, "output_padding"))


def _depthwise(rank: int) -> Kind:
    # Keras 3 names it "kernel", Keras 2 "depthwise_kernel".
    kernel = Weight("depthwise_kernel", "kernel_size channels depth_multiplier", names=("kernel",))
    defaults = {**_CONVOLUTION, "depth_multiplier": 1}
    return Kind((kernel, _bias("channels*depth_multiplier")), defaults, rank, _CONVOLUTION_SIZES)


def _separable(rank: int) -> Kind:
    weights = (
        Weight("depthwise_kernel", "kernel_size channels depth_multiplier"),
        Weight("pointwise_kernel", "1 " * rank + "channels*depth_multiplier filters"),
        _bias("filters"),
    )
    return Kind(weights, {**_CONVOLUTION, "depth_multiplier": 1}, rank, _CONVOLUTION_SIZES)


def _locally_connected(rank: int) -> Kind:
    # The kernel's shape follows the implementation (1: one matrix a position; 2: dense with a mask; 3: sparse).
    kernel = Weight("kernel", names=_KERNEL)
    return Kind(
        (kernel, Weight("bias", when="use_bias", names=_BIAS)),
        {**_CONVOLUTION, "implementation": 1},
        rank,
        _CONVOLUTION_SIZES,
    )


# -- pooling, reshaping ------------------------------------------------------------------------------------------------


def _pooling(rank: int) -> Kind:
    defaults = {"pool_size": 2, "strides": None, "padding": "valid", "data_format": "channels_last"}
    return Kind(defaults=defaults, rank=rank, sizes=("pool_size", "strides"))


def _global_pooling(rank: int) -> Kind:
    return Kind(defaults={"data_format": "channels_last", "keepdims": False}, rank=rank)  # keepdims: TensorFlow 2.6


def _adaptive_pooling(rank: int) -> Kind:
    return Kind(defaults={"data_format": "channels_last"}, rank=rank, sizes=("output_size",))


def _spatial(rank: int, **defaults: Any) -> Kind:
    """A layer that has a data_format where it has more than one spatial axis."""
    formats = {"data_format": "channels_last"}
    return Kind(defaults={**formats, **defaults}, rank=rank)


def _upsampling(rank: int) -> Kind:
    interpolation = {"interpolation": "nearest"} if rank == 2 else {}  # since Keras 2.2.3
    return Kind(defaults={"size": 2, "data_format": "channels_last", **interpolation}, rank=rank, sizes=("size",))


# -- normalization -----------------------------------------------------------------------------------------------------

_GAMMA = Weight("gamma", "axis", when="scale")
_BETA = Weight("beta", "axis", when="center")

_BATCH_NORMALIZATION = Kind(
    weights=(
        _GAMMA._replace(shape="places"),
        _BETA._replace(shape="places"),  # contrib.keras of TensorFlow 1.2 creates beta first; its names say so
        Weight("moving_mean", "places", trainable=False, names=("running_mean",)),
        # Keras 1 names it running_std and keeps the variance in it; Keras 0 keeps the deviation (see layouts.py).
        Weight("moving_variance", "places", trainable=False, names=("running_std",)),
        # tf_keras batch_normalization.py with renorm=True, in the order of its build
        Weight("moving_stddev", "places", when="renorm", trainable=False),
        Weight("renorm_mean", "places", when="renorm", trainable=False),
        Weight("renorm_stddev", "places", when="renorm", trainable=False),
    ),
    # mode: Keras 0 and 1 (keras/layers/normalization.py): 0 per feature, 1 per sample, 2 per batch
    defaults={"axis": -1, "momentum": 0.99, "epsilon": 1e-3, "center": True, "scale": True, "mode": 0, "renorm": False},
)


def _statistics(role: str, when: Callable[[Config], bool]) -> Weight:
    return Weight(role, when=when, trainable=False)


def _adapted(config: Config) -> bool:
    return config.get("mean") is None


# -- embedding ---------------------------------------------------------------------------------------------------------


def quantized_to(config: Config) -> str:
    """What Keras 3 has quantized a layer to: ``int8``, ``int4`` (of ``int4/128``), ...; empty where it has not.

    keras/src/dtype_policies/dtype_policy.py, ``QuantizedDTypePolicy``, whose name is ``int8_from_float32``.
    """
    policy = config.get("dtype")
    inside = policy.get("config") if isinstance(policy, Mapping) else {"name": policy}
    inside = inside if isinstance(inside, Mapping) else {}
    mode = inside.get("mode") or str(inside.get("name")).rpartition("_from_")[0]
    return mode.partition("/")[0] if isinstance(mode, str) else ""


def block_of(config: Config) -> int | None:
    """How many rows share a scale in int4, as in ``int4/128``; None: all.

    keras/src/dtype_policies/dtype_policy.py, ``Int4DTypePolicy``.
    """
    policy = config.get("dtype")
    inside = policy.get("config") if isinstance(policy, Mapping) else {"name": policy}
    inside = inside if isinstance(inside, Mapping) else {}
    mode = inside.get("mode") or str(inside.get("name")).rpartition("_from_")[0]
    kind, _, size = str(mode).partition("/")
    return int(size) if kind == "int4" and size.isdecimal() and int(size) > 0 else None


def _is_int8(config: Config) -> bool:
    return quantized_to(config) == "int8"


def _is_whole(config: Config) -> bool:
    return quantized_to(config) in ("int8", "int4")


def _has_blocks(config: Config) -> bool:
    return block_of(config) is not None


def _quantization(matrix: str, *floating: str) -> tuple[Weight, ...]:
    """What quantizing adds to a layer with a kernel or a table, in the order of ``variable_serialization_spec``."""
    return (
        Weight(f"{matrix}_scale", when=_is_whole, trainable=False),
        Weight(f"{matrix}_zero", when=_has_blocks, trainable=False),
        Weight("g_idx", when=_has_blocks, trainable=False),
        *(Weight(role, when=lambda config: quantized_to(config) == "float8") for role in floating),
        *_lora(matrix),
    )


_FLOAT8 = (
    *("inputs_scale", "inputs_amax_history", "kernel_scale", "kernel_amax_history"),
    *("outputs_grad_scale", "outputs_grad_amax_history"),
)


def _unless_whole(weight: Weight) -> Callable[[Config], bool]:
    return lambda config: weight.exists(config) and not _is_whole(config)


def _kernel_of(shape: str) -> tuple[Weight, ...]:
    """A kernel, which training leaves alone once it is made whole numbers; in int4 two lie in each."""
    return (
        *(weight._replace(when=_unless_whole(weight)) for weight in _learner("kernel", shape)),
        Weight("kernel", "", when=_is_whole, trainable=False, names=_KERNEL),
    )


_EMBEDDING = (
    *(weight._replace(when=_unless_whole(weight)) for weight in _learner("embeddings", "input_dim output_dim")),
    Weight("embeddings", "input_dim output_dim", when=_is_int8, trainable=False, names=_KERNEL),
    Weight(
        "embeddings",  # in int4, two in each byte
        when=lambda config: quantized_to(config) == "int4",
        trainable=False,
        names=_KERNEL,
    ),
    *_quantization("embeddings"),
)


# -- recurrent ---------------------------------------------------------------------------------------------------------

_RECURRENT = {
    "activation": "tanh",
    "use_bias": True,
    "return_sequences": False,
    "return_state": False,
    "go_backwards": False,
    "stateful": False,
    "unroll": False,
    "time_major": False,
    "zero_output_for_mask": False,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
}


def _recurrent(gates: int, bias: str = "", **defaults: Any) -> Kind:
    units = f"{gates}*units"
    weights = (
        Weight("kernel", f"features {units}", names=_KERNEL),
        Weight("recurrent_kernel", f"units {units}", names=("U",)),
        _bias(bias or units),
    )
    return Kind(weights, {**_RECURRENT, **defaults})


# Keras 1 and 2 default to hard_sigmoid until 2.3; the key is always written.
_GATES = {"recurrent_activation": "hard_sigmoid"}
_LSTM = _recurrent(4, **_GATES, unit_forget_bias=True)
# reset_after: since Keras 2.1.3 and TensorFlow 1.5; what older versions did is False.
_GRU = _recurrent(3, "gru_bias", **_GATES, reset_after=False)


def _convolutional_lstm(rank: int) -> Kind:
    weights = (
        Weight("kernel", "kernel_size channels 4*filters", names=_KERNEL),
        Weight("recurrent_kernel", "kernel_size filters 4*filters", names=("U",)),
        _bias("4*filters"),
    )
    defaults = {**_CONVOLUTION, **_RECURRENT, **_GATES, "unit_forget_bias": True}
    return Kind(weights, defaults, rank, _CONVOLUTION_SIZES)


# -- attention: multi_head_attention.py, grouped_query_attention.py ----------------------------------------------------


def _attention_part(part: str, kernel: str, bias: str) -> tuple[Weight, Weight]:
    return Weight(f"{part}/kernel", kernel), Weight(f"{part}/bias", bias, when="use_bias")


def _attention_gate(kernel: str, bias: str) -> tuple[Weight, Weight]:
    """Since Keras 3.15; it is built before the values' part."""
    return (
        Weight("gate/kernel", kernel, when="use_gate"),
        Weight("gate/bias", bias, when=lambda config: bool(config.get("use_gate") and config.get("use_bias"))),
    )


_MULTI_HEAD_ATTENTION = Kind(
    weights=(
        *_attention_part("query", "? num_heads key_dim", "num_heads key_dim"),
        *_attention_part("key", "? num_heads key_dim", "num_heads key_dim"),
        *_attention_gate("? num_heads value_dim", "num_heads value_dim"),
        *_attention_part("value", "? num_heads value_dim", "num_heads value_dim"),
        *_attention_part("attention_output", "", ""),
    ),
    defaults={
        "value_dim": None,
        "use_bias": True,
        "use_gate": False,
        "output_shape": None,
        "attention_axes": None,
        "sliding_window": None,
        "dropout": 0.0,
    },
)

_GROUPED_QUERY_ATTENTION = Kind(
    weights=(
        *_attention_part("query", "? num_query_heads head_dim", "num_query_heads head_dim"),
        *_attention_part("key", "? num_key_value_heads head_dim", "num_key_value_heads head_dim"),
        *_attention_gate("? num_query_heads head_dim", "num_query_heads head_dim"),
        *_attention_part("value", "? num_key_value_heads head_dim", "num_key_value_heads head_dim"),
        *_attention_part("attention_output", "num_query_heads head_dim ?", "?"),
    ),
    defaults={"use_bias": True, "dropout": 0.0, "use_gate": False, "sliding_window": None},
)

_SCALE = Weight("scale", when="use_scale")


def _is_adapted(config: Config) -> bool:
    return not config.get("bin_boundaries") and not config.get("bins")  # its name until TensorFlow 2.5


# A table that was adapted is among tf_keras' get_weights(), as an array of strings; its HDF5 files lack it, with an
# error when they are written (preprocessing/index_lookup.py). Keras 3 keeps it as an asset.
_VOCABULARY = Weight(
    "vocabulary", when=lambda config: config.get("vocabulary") is None, trainable=False, family="tf.keras"
)


def _weighs_words(config: Config) -> bool:
    return config.get("output_mode") in ("tf_idf", "tf-idf")


_LOOKUP = Kind(
    (
        Weight("idf_weights", when=_weighs_words, trainable=False, family="tf.keras"),
        _VOCABULARY,
        Weight(
            "num_documents",
            when=lambda config: _weighs_words(config) and config.get("vocabulary") is None,
            trainable=False,
            family="tf.keras",
        ),
    ),
    {"vocabulary": None},
)

LOOSE = frozenset({"idf_weights", "num_documents"})
"""Weights that go by their names and not by their places: Keras 3, to which they are none, keeps the first in
``.keras`` files as tf_keras does, and no file has the second."""

_NO_ARGUMENTS = Kind()

_RANKS = (1, 2, 3)

CATALOGUE: Mapping[str, Kind] = {
    # core
    "InputLayer": Kind(defaults={"sparse": False, "ragged": False, "dtype": "float32"}),
    "Dense": Kind(
        (*_kernel_of("features units"), _bias("units"), *_quantization("kernel", *_FLOAT8)),
        {"activation": "linear", "use_bias": True, "lora_rank": None},
    ),
    "EinsumDense": Kind(
        (*_kernel_of(""), Weight("bias", when="bias_axes"), *_quantization("kernel", *_FLOAT8)),
        {"activation": "linear", "bias_axes": None, "lora_rank": None},
    ),
    "Embedding": Kind(_EMBEDDING, {"mask_zero": False, "input_length": None}),
    "ReversibleEmbedding": Kind(
        (
            *_EMBEDDING,
            Weight("reverse_embeddings", "output_dim input_dim", when=lambda config: not config.get("tie_weights")),
            Weight(
                "reverse_embeddings_scale",
                "input_dim",
                when=lambda config: _is_int8(config) and not config.get("tie_weights"),
                trainable=False,
            ),
        ),
        {"tie_weights": True, "mask_zero": False, "reverse_dtype": None, "logit_soft_cap": None},
    ),
    "RandomFourierFeatures": Kind(  # tf_keras alone: keras.layers.experimental
        (
            Weight("kernel_scale", "1"),
            Weight("unscaled_kernel", "features output_dim", trainable=False),
            Weight("bias", "output_dim", trainable=False),
        )
    ),
    "Masking": Kind(defaults={"mask_value": 0.0}),
    "Lambda": _NO_ARGUMENTS,
    "Identity": _NO_ARGUMENTS,
    # convolution
    **{f"Conv{rank}D": _convolution(rank) for rank in _RANKS},
    **{f"Conv{rank}DTranspose": _transposed(rank) for rank in _RANKS},
    **{f"DepthwiseConv{rank}D": _depthwise(rank) for rank in (1, 2)},
    **{f"SeparableConv{rank}D": _separable(rank) for rank in (1, 2)},
    **{f"LocallyConnected{rank}D": _locally_connected(rank) for rank in (1, 2)},
    # pooling
    **{f"{kind}Pooling{rank}D": _pooling(rank) for kind in ("Max", "Average") for rank in _RANKS},
    **{f"Global{kind}Pooling{rank}D": _global_pooling(rank) for kind in ("Max", "Average") for rank in _RANKS},
    **{f"Adaptive{kind}Pooling{rank}D": _adaptive_pooling(rank) for kind in ("Max", "Average") for rank in _RANKS},
    # normalization
    "BatchNormalization": _BATCH_NORMALIZATION,
    "LayerNormalization": Kind(
        (
            # rms_scaling: Keras 3 until 3.9, which keeps gamma alone
            _GAMMA._replace(when=lambda config: bool(config.get("scale") or config.get("rms_scaling"))),
            _BETA._replace(when=lambda config: bool(config.get("center") and not config.get("rms_scaling"))),
        ),
        {"axis": -1, "epsilon": 1e-3, "center": True, "scale": True, "rms_scaling": False},
    ),
    "GroupNormalization": Kind(
        (_GAMMA, _BETA), {"groups": 32, "axis": -1, "epsilon": 1e-3, "center": True, "scale": True}
    ),
    "RMSNormalization": Kind((Weight("scale", "axis"),), {"axis": -1, "epsilon": 1e-6}),
    "UnitNormalization": Kind(defaults={"axis": -1}),
    "SpectralNormalization": Kind((Weight("vector_u", trainable=False, names=("sn_u",)),), {"power_iterations": 1}),
    "Normalization": Kind(
        (
            _statistics("mean", _adapted),
            _statistics("variance", _adapted),
            _statistics("count", _adapted),
        ),
        {"axis": -1, "mean": None, "variance": None, "invert": False},
    ),
    # activation
    "Activation": Kind(defaults={"activation": "linear"}),
    "ReLU": Kind(defaults={"max_value": None, "negative_slope": 0.0, "threshold": 0.0}),
    "LeakyReLU": Kind(defaults={"negative_slope": 0.3}),
    "ELU": Kind(defaults={"alpha": 1.0}),
    "ThresholdedReLU": Kind(defaults={"theta": 1.0}),
    "Softmax": Kind(defaults={"axis": -1}),
    # of keras.applications: inception_resnet_v2.py, convnext.py
    "CustomScaleLayer": Kind(defaults={"scale": 1.0}),
    "LayerScale": Kind((Weight("gamma", "projection_dim"),)),
    "StochasticDepth": _NO_ARGUMENTS,
    "PReLU": Kind((Weight("alpha", "alphas", names=("alphas",)),), {"shared_axes": None}),
    # merging
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"), _NO_ARGUMENTS),
    "Concatenate": Kind(defaults={"axis": -1}),
    "Dot": Kind(defaults={"axes": -1, "normalize": False}),
    # reshaping
    "Flatten": Kind(defaults={"data_format": "channels_last"}),  # since Keras 2.2; before: in the order of memory
    "Reshape": _NO_ARGUMENTS,
    "Permute": _NO_ARGUMENTS,
    "RepeatVector": _NO_ARGUMENTS,
    **{f"ZeroPadding{rank}D": _spatial(rank, padding=1) for rank in _RANKS},
    **{f"Cropping{rank}D": _spatial(rank, cropping=1) for rank in _RANKS},
    **{f"UpSampling{rank}D": _upsampling(rank) for rank in _RANKS},
    # regularization: nothing of it is left in inference
    "Dropout": Kind(defaults={"rate": 0.5, "noise_shape": None, "seed": None}),
    **{f"SpatialDropout{rank}D": _spatial(rank, rate=0.5) for rank in _RANKS},
    "GaussianNoise": _NO_ARGUMENTS,
    "GaussianDropout": _NO_ARGUMENTS,
    "AlphaDropout": Kind(defaults={"noise_shape": None}),
    "ActivityRegularization": _NO_ARGUMENTS,
    # recurrent
    "SimpleRNN": _recurrent(1),
    "LSTM": _LSTM,
    "GRU": _GRU,
    "SimpleRNNCell": _recurrent(1),
    "LSTMCell": _LSTM,
    "GRUCell": _GRU,
    **{f"ConvLSTM{rank}D": _convolutional_lstm(rank) for rank in _RANKS},
    "RNN": Kind(
        defaults={
            key: _RECURRENT[key]
            for key in _RECURRENT
            if key not in ("activation", "use_bias", "dropout", "recurrent_dropout")
        }
    ),
    "StackedRNNCells": _NO_ARGUMENTS,
    "Bidirectional": Kind(defaults={"merge_mode": "concat"}),
    "TimeDistributed": _NO_ARGUMENTS,
    # attention
    "Attention": Kind(
        (_SCALE, Weight("concat_score_weight", when=lambda config: config.get("score_mode") == "concat")),
        {"use_scale": False, "score_mode": "dot", "dropout": 0.0},
    ),
    "AdditiveAttention": Kind((_SCALE,), {"use_scale": True, "dropout": 0.0}),
    "MultiHeadAttention": _MULTI_HEAD_ATTENTION,
    "GroupQueryAttention": _GROUPED_QUERY_ATTENTION,
    # preprocessing
    "Rescaling": Kind(defaults={"offset": 0.0}),
    "Resizing": Kind(
        defaults={
            "interpolation": "bilinear",
            "crop_to_aspect_ratio": False,
            "pad_to_aspect_ratio": False,  # this and what follows: since Keras 3.1 and later
            "fill_mode": "constant",
            "fill_value": 0.0,
            "antialias": False,
        }
    ),
    **dict.fromkeys(
        (
            *("AugMix", "AutoContrast", "CategoryEncoding", "CenterCrop", "CutMix", "Equalization", "HashedCrossing"),
            "Hashing",
            *("MaxNumBoundingBoxes", "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration"),
            *("RandomColorJitter", "RandomContrast", "RandomCrop", "RandomElasticTransform", "RandomErasing"),
            *("RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHeight", "RandomHue", "RandomInvert"),
            *("RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness"),
            *("RandomShear", "RandomTranslation", "RandomWidth", "RandomZoom", "Solarization"),
        ),
        _NO_ARGUMENTS,
    ),
    "ContrastLimitedAdaptiveHistogramEqualization": Kind(
        defaults={"value_range": (0, 255), "clip_limit": 4.0, "tile_grid_size": (8, 8), "data_format": "channels_last"}
    ),
    # What tf_keras adapted, it keeps as a summary of the data; Keras 3 as bin_boundaries among the arguments.
    "Discretization": Kind(
        (Weight("summary", when=_is_adapted, trainable=False, family="tf.keras"),),
        {"bin_boundaries": None},
    ),
    **dict.fromkeys(("TextVectorization", "StringLookup", "IntegerLookup"), _LOOKUP),
    "STFTSpectrogram": Kind(
        (
            Weight("real_kernel", "frame_length 1 ?", when=lambda config: config.get("mode") != "imag"),
            Weight("imag_kernel", "frame_length 1 ?", when=lambda config: config.get("mode") != "real"),
        ),
        {"mode": "log", "padding": "valid", "expand_dims": False, "data_format": "channels_last"},
    ),
    "MelSpectrogram": _NO_ARGUMENTS,
    # Keras 1 alone: keras/layers/{core,advanced_activations}.py of 1.2.2
    "MaxoutDense": Kind(
        (
            Weight("kernel", "nb_feature features units", names=_KERNEL),
            Weight("bias", "nb_feature units", when="use_bias", names=_BIAS),
        ),
        {"nb_feature": 4, "use_bias": True},
    ),
    "Highway": Kind(
        (
            Weight("kernel", "features features", names=_KERNEL),
            Weight("carry_kernel", "features features", names=("W_carry",)),
            _bias("features"),
            Weight("carry_bias", "features", when="use_bias", names=("b_carry",)),
        ),
        {"activation": "linear", "use_bias": True},
    ),
    "ParametricSoftplus": Kind((Weight("alphas", "alphas"), Weight("betas", "alphas")), {"shared_axes": None}),
    "SReLU": Kind(
        tuple(Weight(role, "alphas") for role in ("t_left", "a_left", "t_right", "a_right")), {"shared_axes": None}
    ),
}
"""Layer class of Keras 2 and 3 -> what is known of it."""


# -- arguments ---------------------------------------------------------------------------------------------------------


def complete(class_name: str, config: Config) -> dict[str, Any]:
    """The arguments with missing ones filled in and sizes as tuples; those of an unknown class as they are.

    >>> complete("MaxPooling1D", {"name": "p", "pool_size": 3})["strides"]
    (3,)
    >>> complete("ZeroPadding2D", {"padding": [1, 2]})["padding"]
    ((1, 1), (2, 2))
    """
    kind = CATALOGUE.get(class_name)
    if kind is None:
        return dict(config)
    filled = {**kind.defaults, **config}
    if filled.get("data_format") is None and "data_format" in kind.defaults:
        filled["data_format"] = kind.defaults["data_format"]
    if kind.rank:
        if "pool_size" in filled and filled.get("strides") is None:
            filled["strides"] = filled["pool_size"]
        for key in kind.sizes:
            filled[key] = _per_axis(filled.get(key), kind.rank)
        for key in _MARGINS.get(class_name[:-2], ()):
            filled[key] = _margins(filled[key], kind.rank)
    if isinstance(filled.get("axis"), (list, tuple)):
        axes = tuple(filled["axis"])
        filled["axis"] = axes[0] if len(axes) == 1 else axes
    return filled


_MARGINS = {"ZeroPadding": ("padding",), "Cropping": ("cropping",)}


def _per_axis(value: Any, rank: int) -> Any:
    """``3`` -> ``(3, 3)``; what is neither a number nor a list stays for whoever checks it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,) * rank
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _margins(value: Any, rank: int) -> Any:
    """``1``, ``(1, 2)``, ``((1, 1), (2, 2))`` -> a pair for every spatial axis."""
    if isinstance(value, int):
        return ((value, value),) * rank
    if not isinstance(value, (list, tuple)):
        return value
    if rank == 1 and len(value) == 2 and all(isinstance(size, int) for size in value):
        return (tuple(value),)
    if not all(isinstance(size, (int, list, tuple)) for size in value):
        return value
    return tuple((size, size) if isinstance(size, int) else tuple(size) for size in value)


# -- shapes of weights -------------------------------------------------------------------------------------------------


def weights_of(class_name: str, config: Config, family: str = "") -> tuple[Weight, ...] | None:
    """The weights that a layer with these (completed) arguments has, in Keras' order; None: the class is unknown."""
    kind = CATALOGUE.get(class_name)
    if kind is None:
        return None
    return tuple(weight for weight in kind.weights if weight.family in ("", family) and weight.exists(config))


def dimensions(shape: str, config: Config, inputs: Shape | None = None) -> Shape | None:
    """The sizes that a weight's shape stands for; None where a size is not known, or in place of all of them.

    >>> dimensions("kernel_size channels/groups filters", {"kernel_size": (3, 3), "groups": 1, "filters": 8})
    (3, 3, None, 8)
    >>> dimensions("features 4*units", {"units": 5}, (None, 7, 6))
    (6, 20)
    """
    if not shape:
        return None
    sizes: list[int | None] = []
    for word in shape.split():
        try:
            value = _word(word, config, inputs)
        except (TypeError, ValueError, IndexError):  # arguments that are no numbers
            return None
        if value is _UNKNOWN_RANK:
            return None
        sizes.extend(value if isinstance(value, tuple) else [value])
    return tuple(sizes)


_UNKNOWN_RANK: Any = object()


def _word(word: str, config: Config, inputs: Shape | None) -> Any:
    dividend, _, divisor = word.partition("/")
    product = _product(dividend, config, inputs)
    if not divisor or product is None:
        return product
    by = _product(divisor, config, inputs)
    return product // by if isinstance(by, int) and by > 0 and isinstance(product, int) else None


def _product(word: str, config: Config, inputs: Shape | None) -> Any:
    values = [_factor(name, config, inputs) for name in word.split("*")]
    if len(values) == 1:
        return values[0]
    product = 1
    for value in values:
        if not isinstance(value, int):
            return None
        product *= value
    return product


def _factor(name: str, config: Config, inputs: Shape | None) -> Any:
    if name.isdecimal():
        return int(name)
    if name in _FACTS:
        return _FACTS[name](config, inputs)
    value = config.get(name)
    if isinstance(value, (list, tuple)):
        return tuple(size if isinstance(size, int) else None for size in value)
    return value if isinstance(value, int) else None


def _channels(config: Config, inputs: Shape | None) -> int | None:
    if not inputs or len(inputs) < 2:
        return None
    first = config.get("data_format") == "channels_first"
    # A convolutional LSTM has the time in front of the image, so channels_first is its third axis.
    kernel = config.get("kernel_size")
    place = len(inputs) - len(kernel) - 1 if first and isinstance(kernel, tuple) else -1
    return inputs[place] if -len(inputs) <= place < len(inputs) else None


def _axis_sizes(config: Config, inputs: Shape | None) -> Any:
    axis = config.get("axis", -1)
    axes = axis if isinstance(axis, tuple) else (axis,)
    if inputs is None:
        return (None,) * len(axes)
    if not all(isinstance(at, int) and -len(inputs) <= at < len(inputs) for at in axes):
        return _UNKNOWN_RANK
    return tuple(inputs[at] for at in axes)


def _places(config: Config, inputs: Shape | None) -> Any:
    """Of one axis its size; where there are several, or virtual batches, a size for every axis of the input.

    It is 1 where nothing is kept apart (tf_keras 2.21 ``batch_normalization.py``, build).
    """
    axis = config.get("axis", -1)
    if isinstance(axis, int) and config.get("virtual_batch_size") is None:
        return _axis_sizes(config, inputs)
    sizes = _axis_sizes(config, inputs)
    if inputs is None or sizes is _UNKNOWN_RANK:
        return _UNKNOWN_RANK
    kept = {at % len(inputs) for at in (axis if isinstance(axis, tuple) else (axis,))}
    shape = [size if at in kept else 1 for at, size in enumerate(inputs)]
    return tuple(shape if config.get("virtual_batch_size") is None else [shape[0], 1, *shape[1:]])


def _alphas(config: Config, inputs: Shape | None) -> Any:
    if inputs is None:
        return _UNKNOWN_RANK
    shared = config.get("shared_axes") or ()
    shared = {shared} if isinstance(shared, int) else set(shared)
    return tuple(1 if axis in shared else size for axis, size in enumerate(inputs) if axis)


def _gru_bias(config: Config, inputs: Shape | None) -> Any:
    units = config.get("units")
    width = 3 * units if isinstance(units, int) else None
    return (2, width) if config.get("reset_after") else (width,)


_FACTS: Mapping[str, Callable[[Config, Shape | None], Any]] = {
    "?": lambda config, inputs: None,
    "features": lambda config, inputs: inputs[-1] if inputs else None,
    "channels": _channels,
    "axis": _axis_sizes,
    "places": _places,
    "alphas": _alphas,
    "gru_bias": _gru_bias,
}
"""Words of a weight's shape that are not arguments of the layer."""
