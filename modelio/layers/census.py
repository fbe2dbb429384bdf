"""Which Keras has which layer class, and why a few are without a rule that makes a graph of them.

:mod:`~modelio.layers.catalogue` says what a class is; here is when it was. The list was taken from the classes of
``keras.layers`` in Keras 1.2.2, 2.3.1, tf_keras 2.21 and Keras 3.15; a test holds it against those that are installed.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelio.layers import keras1, keras2, keras3

__all__ = ["ABSTRACT", "MODELS", "OF_APPLICATIONS", "REASONS", "generations", "known_as"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KERAS_1 = _names(
    "Activation ActivityRegularization Add Average AveragePooling1D AveragePooling2D AveragePooling3D "
    "BatchNormalization Bidirectional Concatenate Conv1D Conv2D Conv2DTranspose Conv3D ConvLSTM2D Cropping1D "
    "Cropping2D Cropping3D Dense Dot Dropout ELU Embedding Flatten GRU GaussianDropout GaussianNoise "
    "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D "
    "GlobalMaxPooling3D Highway InputLayer LSTM Lambda LeakyReLU LocallyConnected1D LocallyConnected2D Masking "
    "MaxPooling1D MaxPooling2D MaxPooling3D Maximum MaxoutDense Multiply PReLU ParametricSoftplus Permute "
    "RepeatVector Reshape SReLU SeparableConv2D SimpleRNN SpatialDropout1D SpatialDropout2D SpatialDropout3D "
    "ThresholdedReLU TimeDistributed UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D "
    "ZeroPadding3D"
)
"""Classes that Keras 1 has, under this name or an older one (:func:`known_as`)."""

_KERAS_1_ALONE = _names("Highway MaxoutDense ParametricSoftplus SReLU")

_NOT_KERAS_2 = _names(
    "AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D "
    "AdaptiveMaxPooling2D AdaptiveMaxPooling3D AugMix AutoContrast ContrastLimitedAdaptiveHistogramEqualization "
    "CutMix Equalization FlaxLayer GroupQueryAttention JaxLayer MaxNumBoundingBoxes MelSpectrogram MixUp Pipeline "
    "RMSNormalization RandAugment RandomColorDegeneration RandomColorJitter RandomElasticTransform RandomErasing "
    "RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization "
    "RandomSaturation RandomSharpness RandomShear ReversibleEmbedding STFTSpectrogram Solarization TFSMLayer "
    "TorchModuleWrapper"
)

_NOT_KERAS_3 = _names(
    "AbstractRNNCell DenseFeatures DynamicEmbedding DynamicLookup LocallyConnected1D LocallyConnected2D "
    "RandomFourierFeatures RandomHeight RandomWidth ThresholdedReLU"
)

OF_APPLICATIONS = _names("CustomScaleLayer LayerScale StochasticDepth")
"""Classes that models of ``keras.applications`` hold, and that no package exports (see the catalogue)."""

ABSTRACT: Mapping[str, str] = {
    "AbstractRNNCell": "what cells of one's own are made from",
    "Layer": "what every layer is made from",
    "PreprocessingLayer": "what layers that adapt are made from",
    "Wrapper": "what layers around a layer are made from",
}
"""Classes that no file holds: they are there to be subclassed."""

MODELS: Mapping[str, str] = {
    "Pipeline": "a model of one layer after the other, like Sequential",
}
"""Classes exported among the layers that are read as the models they are."""

REASONS: Mapping[str, str] = {
    "DenseFeatures": "its feature columns are objects of TensorFlow that read a dictionary of features",
    "DynamicEmbedding": "its vocabulary changes while it is trained, and no file keeps it",
    "DynamicLookup": "its vocabulary changes while it is trained, and no file keeps it",
    "FlaxLayer": "it holds a module of Flax: code, not arguments",
    "JaxLayer": "it holds functions of JAX: code, not arguments",
    "Lambda": "it holds a function: code, which modelio does not run; give a replacement, or a rule of your own",
    "TFSMLayer": "it names a SavedModel elsewhere on its author's disk; convert that one",
    "TorchModuleWrapper": "it holds a module of PyTorch: code, not arguments",
}
"""Why a class has no rule."""


def generations(class_name: str) -> tuple[int, ...]:
    """The major versions of Keras that have a class of the catalogue.

    >>> generations("Dense"), generations("MaxoutDense"), generations("ThresholdedReLU"), generations("RandomHue")
    ((1, 2, 3), (1,), (1, 2), (3,))
    """
    found = []
    if class_name in _KERAS_1:
        found.append(1)
    if class_name not in _NOT_KERAS_2 | _KERAS_1_ALONE:
        found.append(2)
    if class_name not in _NOT_KERAS_3 | _KERAS_1_ALONE:
        found.append(3)
    return tuple(found)


def known_as(class_name: str) -> tuple[str, ...]:
    """Other names that a class goes by in files of other versions.

    >>> known_as("Conv2DTranspose"), known_as("Add")
    (('Deconvolution2D', 'Deconv2D'), ('Merge(mode="sum")',))
    """
    names = [old for table in (keras1, keras2, keras3) for old, new in table.CLASSES.items() if new == class_name]
    return (*names, *(f'Merge(mode="{mode}")' for mode, new in keras1.MERGES.items() if new == class_name))
