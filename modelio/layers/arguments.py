"""Which arguments each class of Keras 2 and 3 takes, in the words of the normal form, and since when.

A row of :data:`ARGUMENTS` is a line of words. ``groups`` is known to every Keras 2 and 3; ``groups@2.4`` to Keras 2
since 2.4, and to Keras 3; ``keepdims@2.6/3.3`` to each since the version named; ``seed@-`` to Keras 3 alone,
``time_major@2.4/-`` to Keras 2 alone. A class's name is marked in the same way. ``reset_after!`` is always written
where it is known, since versions without it and versions that fill it in differ. ``kernel+`` stands for the three
arguments that go with a weight: ``kernel_initializer``, ``kernel_regularizer``, ``kernel_constraint``.

``name``, ``trainable``, ``dtype`` and ``activity_regularizer`` belong to nearly all layers and are not listed.

Sources: ``get_config`` and ``__init__`` of every layer in Keras 2.0.5 and 2.3.1, ``tensorflow/python/keras`` of
TensorFlow 1.15, Keras 2.6, 2.9, 2.11 and 2.13, tf_keras 2.21, Keras 3.0, 3.3, 3.6, 3.9, 3.12 and 3.15. A mark names the
first of these that has the word; it may be a little older. Below 2.4 the Keras beside TensorFlow is meant: the one
inside of it was numbered 2.2.4-tf and 2.3.0-tf until TensorFlow 2.2, and has words that Keras 2.3.1 does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from modelio.model import Dialect

__all__ = ["ARGUMENTS", "UNTRAINED", "Word", "class_since", "is_listed", "words_of"]

Version = tuple[int, ...]

_FILTERS = "activation use_bias kernel+ bias+"
_CONVOLUTION = f"filters kernel_size strides padding data_format dilation_rate groups@2.4 {_FILTERS}"
_TRANSPOSED = (
    f"filters kernel_size strides padding output_padding@2.3 data_format dilation_rate groups@2.4/- {_FILTERS}"
)
_DEPTHWISE = (
    "kernel_size strides padding depth_multiplier data_format dilation_rate groups@2.4/- activation use_bias "
    "depthwise+ bias+"
)
_SEPARABLE = (
    "filters kernel_size strides padding data_format dilation_rate depth_multiplier groups@2.4/- activation use_bias "
    "kernel+/- depthwise+ pointwise+ bias+"
)
_LOCAL = f"filters kernel_size strides padding data_format {_FILTERS} implementation@2.4"
_POOLING = "pool_size strides padding data_format"
_NORMALIZED = "epsilon center scale beta+ gamma+"
_STATES = "return_sequences return_state go_backwards stateful unroll time_major@2.4/- zero_output_for_mask@2.4"
_GATES = "units activation use_bias kernel+ recurrent+ bias+ dropout recurrent_dropout"
_CELL = f"{_GATES} seed@-"
_IMPLEMENTATION = "implementation/-"
_CONVOLUTIONAL_LSTM = (
    f"filters kernel_size strides padding data_format dilation_rate {_STATES} activation recurrent_activation use_bias "
    "kernel+ recurrent+ bias+ unit_forget_bias dropout recurrent_dropout seed@-"
)
_TABLE = (
    "max_tokens num_oov_indices mask_token oov_token vocabulary idf_weights@2.9 invert output_mode sparse "
    "pad_to_max_tokens vocabulary_size vocabulary_dtype@2.9/- oov_method@-/3.15 salt@-/3.15"
)
_RANDOM = "rng_type@2.9/- seed data_format@-"
_SHIFTED = "fill_mode fill_value interpolation"
_EMBEDDING = "input_dim output_dim embeddings+ mask_zero input_length/- sparse@2.13/- quantization_config@-/3.15"

_RANKS = (1, 2, 3)
_KINDS = ("Max", "Average")

ARGUMENTS: Mapping[str, str] = {
    # core
    "InputLayer": "batch_shape sparse ragged@2.4/3.9 optional@2.13/3.6",
    "Dense": f"units {_FILTERS} quantization_config@-/3.15",
    "EinsumDense@2.6": "equation output_shape activation bias_axes kernel+ bias+ quantization_config@-/3.15",
    "Embedding": _EMBEDDING,
    "ReversibleEmbedding@-/3.12": f"tie_weights {_EMBEDDING} reverse_dtype logit_soft_cap",
    "Masking": "mask_value",
    "Identity@2.11": "",
    # convolution
    "Conv1D": _CONVOLUTION.replace("data_format", "data_format@2.2"),
    **{f"Conv{rank}D": _CONVOLUTION for rank in (2, 3)},
    "Conv1DTranspose@2.4": _TRANSPOSED,
    "Conv2DTranspose": _TRANSPOSED,
    "Conv3DTranspose@2.1": _TRANSPOSED.replace("dilation_rate", "dilation_rate@2.4"),
    "DepthwiseConv1D@2.9": _DEPTHWISE,
    "DepthwiseConv2D@2.1": _DEPTHWISE.replace("dilation_rate", "dilation_rate@2.3"),
    "SeparableConv1D@2.1": _SEPARABLE,
    "SeparableConv2D": _SEPARABLE,
    **{f"LocallyConnected{rank}D/-": _LOCAL for rank in (1, 2)},
    # pooling
    **{f"{kind}Pooling1D": _POOLING.replace("data_format", "data_format@2.2") for kind in _KINDS},
    **{f"{kind}Pooling{rank}D": _POOLING for kind in _KINDS for rank in (2, 3)},
    **{f"Global{kind}Pooling1D": "data_format@2.2 keepdims@2.6" for kind in _KINDS},
    **{f"Global{kind}Pooling{rank}D": "data_format keepdims@2.6" for kind in _KINDS for rank in (2, 3)},
    **{f"Adaptive{kind}Pooling{rank}D@-/3.15": "output_size data_format" for kind in _KINDS for rank in _RANKS},
    # normalization
    "BatchNormalization": (
        f"axis momentum {_NORMALIZED} moving_mean_initializer moving_variance_initializer synchronized@2.13 "
        "renorm@2.4/3.15 renorm_clipping@2.4/3.15 renorm_momentum@2.4/3.15 virtual_batch_size@2.4/-"
    ),
    "LayerNormalization@2.4": f"axis {_NORMALIZED} rms_scaling@-",
    "GroupNormalization@2.11": f"groups axis {_NORMALIZED}",
    "RMSNormalization@-/3.9": "axis epsilon",
    "UnitNormalization@2.9": "axis",
    "SpectralNormalization@2.13": "power_iterations",
    "Normalization@2.4": "axis mean@2.6 variance@2.6 invert@2.11",
    # activation
    "Activation": "activation",
    "ReLU@2.2.3": "max_value negative_slope threshold",
    "LeakyReLU": "negative_slope",
    "ELU": "alpha",
    "ThresholdedReLU/-": "theta",
    "Softmax@2.1.3": "axis robust_masking@2.21/-",
    "PReLU": "alpha+ shared_axes",
    # merging
    **dict.fromkeys(("Add", "Multiply", "Average", "Maximum"), ""),
    "Subtract@2.0.7": "",
    "Minimum@2.0.9": "",
    "Concatenate": "axis",
    "Dot": "axes normalize",
    # reshaping
    "Flatten": "data_format@2.2",
    "Reshape": "target_shape",
    "Permute": "dims",
    "RepeatVector": "n",
    "ZeroPadding1D": "padding data_format@-/3.6",
    "Cropping1D": "cropping",
    "UpSampling1D": "size",
    **{f"ZeroPadding{rank}D": "padding data_format" for rank in (2, 3)},
    **{f"Cropping{rank}D": "cropping data_format" for rank in (2, 3)},
    "UpSampling2D": "size data_format interpolation@2.2.3",
    "UpSampling3D": "size data_format",
    # regularization
    "Dropout": "rate noise_shape seed",
    "SpatialDropout1D": "rate seed noise_shape/-",
    **{f"SpatialDropout{rank}D": "rate seed noise_shape/- data_format@2.0" for rank in (2, 3)},
    "GaussianNoise": "stddev seed@2.9",
    "GaussianDropout": "rate seed@2.9",
    "AlphaDropout@2.0.6": "rate noise_shape seed",
    "ActivityRegularization": "l1 l2",
    # recurrent
    "SimpleRNN": f"{_STATES} {_CELL}",
    "LSTM": f"{_STATES} {_CELL} recurrent_activation unit_forget_bias {_IMPLEMENTATION}",
    "GRU": f"{_STATES} {_CELL} recurrent_activation reset_after!@2.1.3 {_IMPLEMENTATION}",
    "SimpleRNNCell@2.1": _CELL,
    "LSTMCell@2.1": f"{_CELL} recurrent_activation unit_forget_bias {_IMPLEMENTATION}",
    "GRUCell@2.1": f"{_CELL} recurrent_activation reset_after!@2.1.3 {_IMPLEMENTATION}",
    "ConvLSTM1D@2.6": _CONVOLUTIONAL_LSTM,
    "ConvLSTM2D": _CONVOLUTIONAL_LSTM,
    "ConvLSTM3D@2.6": _CONVOLUTIONAL_LSTM,
    "RNN@2.1": _STATES,
    "StackedRNNCells@2.1": "",
    "Bidirectional": "merge_mode",
    "TimeDistributed": "",
    # attention
    "Attention@2.4": "use_scale score_mode@2.9 dropout@2.6 seed@-",
    "AdditiveAttention@2.4": "use_scale dropout@2.6 seed@-",
    "MultiHeadAttention@2.4": (
        "num_heads key_dim value_dim dropout use_bias output_shape attention_axes query_shape/- key_shape/- "
        "value_shape/- flash_attention@-/3.9 "
        "kernel+ bias+ seed@-/3.6 softmax_robust_masking@2.21/- use_gate@-/3.15 sliding_window@-/3.15"
    ),
    "GroupQueryAttention@-/3.3": (
        "head_dim num_query_heads num_key_value_heads dropout use_bias flash_attention@-/3.9 kernel+ bias+ "
        "seed@-/3.6 use_gate@-/3.15"
    ),
    # preprocessing
    "Rescaling@2.6": "scale offset",
    "Resizing@2.6": (
        "height width interpolation crop_to_aspect_ratio pad_to_aspect_ratio@-/3.3 fill_mode@-/3.3 fill_value@-/3.3 "
        "antialias@-/3.9 data_format@-"
    ),
    "CenterCrop@2.6": "height width data_format@-",
    "RandomCrop@2.6": f"height width {_RANDOM}",
    "RandomFlip@2.6": f"mode {_RANDOM}",
    "RandomTranslation@2.6": f"height_factor width_factor {_SHIFTED} {_RANDOM}",
    "RandomRotation@2.6": f"factor {_SHIFTED} {_RANDOM}",
    "RandomZoom@2.6": f"height_factor width_factor {_SHIFTED} {_RANDOM}",
    "RandomContrast@2.6": f"factor {_RANDOM} value_range@-/3.9",
    "RandomBrightness@2.9": f"factor value_range {_RANDOM}",
    "RandomHeight@2.6": f"factor interpolation {_RANDOM}",
    "RandomWidth@2.6": f"factor interpolation {_RANDOM}",
    "CategoryEncoding@2.6": "num_tokens output_mode sparse@2.6/3.3",
    "Discretization@2.6": "bin_boundaries num_bins epsilon output_mode@2.9 sparse@2.9",
    "Hashing@2.6": "num_bins mask_value salt output_mode@2.9 sparse@2.9",
    "HashedCrossing@2.9": "num_bins output_mode sparse",
    "StringLookup@2.6": f"{_TABLE} encoding@2.9",
    "IntegerLookup@2.6": _TABLE.replace("vocabulary_dtype@2.9/-", "vocabulary_dtype@2.9"),
    "TextVectorization@2.4": (
        "max_tokens standardize split ngrams output_mode output_sequence_length pad_to_max_tokens vocabulary "
        "idf_weights@2.9 sparse@2.9 ragged@2.9 encoding@2.11 vocabulary_size"
    ),
    **{
        f"{name}@-/3.9": ""  # nothing of them is in Keras 2, so that only their names count
        for name in (
            *("AugMix", "AutoContrast", "CutMix", "Equalization", "MaxNumBoundingBoxes", "MelSpectrogram", "MixUp"),
            *("Pipeline", "RandAugment", "RandomColorDegeneration", "RandomColorJitter", "RandomElasticTransform"),
            *("RandomErasing", "RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert"),
            *("RandomPerspective", "RandomPosterization", "RandomSaturation", "RandomSharpness", "RandomShear"),
            *("STFTSpectrogram", "Solarization", "ContrastLimitedAdaptiveHistogramEqualization"),
        )
    },
}
"""Class of the normal form -> the arguments it takes."""

UNTRAINED = frozenset(
    {"InputLayer", "Discretization", "HashedCrossing", "Pipeline", *(f"SpatialDropout{rank}D" for rank in _RANKS)}
)
"""Classes that take no ``trainable`` in Keras 3."""


class Word(NamedTuple):
    """An argument, and the version since which it is known: ``()`` from the start.

    ``always``: it has to be written wherever it is known.
    """

    name: str
    since: Version
    always: bool = False


@cache
def words_of(class_name: str, dialect: Dialect) -> tuple[Word, ...] | None:
    """The arguments of a class in Keras 2 or 3, in the order of the table; None: it has no such class.

    >>> [word.name for word in words_of("Flatten", "keras3")], words_of("ThresholdedReLU", "keras3")
    (['data_format'], None)
    """
    row = _rows().get(class_name)
    if row is None or _since(row[0], dialect) is None:
        return None
    words: dict[str, Word] = {}
    for marked in row[1].split():
        word, mark = _divided(marked)
        since = _since(mark, dialect)
        if since is not None:
            words.update({name: Word(name, since, word.endswith("!")) for name in _expanded(word.rstrip("!"))})
    return tuple(words.values())


def class_since(class_name: str, dialect: Dialect) -> Version | None:
    """The version since which there is such a class; None: there never was."""
    row = _rows().get(class_name)
    return None if row is None else _since(row[0], dialect)


def is_listed(class_name: str) -> bool:
    """Is this a class of any Keras 2 or 3?"""
    return class_name in _rows()


@cache
def _rows() -> Mapping[str, tuple[str, str]]:
    return {_divided(marked)[0]: (_divided(marked)[1], line) for marked, line in ARGUMENTS.items()}


def _divided(marked: str) -> tuple[str, str]:
    """``word@2.4/-`` -> its word and its marks: ``("word", "2.4/-")``."""
    word, _, mark = marked.partition("@")
    word, slash, third = word.partition("/")
    return word, f"/{third}" if slash else mark


def _since(mark: str, dialect: Dialect) -> Version | None:
    second, _, third = mark.partition("/")
    text = third if dialect == "keras3" else second
    return None if text == "-" else tuple(int(number) for number in text.split(".")) if text else ()


def _expanded(word: str) -> tuple[str, ...]:
    if not word.endswith("+"):
        return (word,)
    return tuple(f"{word[:-1]}_{kind}" for kind in ("initializer", "regularizer", "constraint"))
