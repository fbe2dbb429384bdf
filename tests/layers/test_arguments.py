"""The table of arguments against the frameworks themselves: what their constructors take, and what they write."""

from __future__ import annotations

import inspect

import pytest

from modelio.layers import keras2, keras3
from modelio.layers.arguments import ARGUMENTS, is_listed, words_of

pytestmark = pytest.mark.filterwarnings("ignore")

DIALECTS = {"tf_keras": "keras2", "keras": "keras3"}

OF_EVERY_LAYER = {"name", "trainable", "dtype", "activity_regularizer", "self", "args", "kwargs"}

NOT_LISTED = {
    *("Layer", "Wrapper", "AbstractRNNCell", "Lambda", "DenseFeatures"),  # bases, and what is not translated
    *("TFSMLayer", "FlaxLayer", "JaxLayer", "TorchModuleWrapper"),  # other programs in a layer
}

NEVER_WRITTEN = {
    *("input_tensor", "shape", "input_shape", "batch_size", "type_spec", "weights", "dynamic", "rank", "pool_mode"),
    *("lora_rank", "lora_alpha", "gptq_unpacked_column_size", "use_cudnn", "autocast", "pool_dimensions", "mask"),
    *("layer", "backward_layer", "cell", "cells", "bounding_box_format"),  # written as layers of their own
}
"""Arguments of constructors that no ``get_config`` has."""


@pytest.fixture(params=DIALECTS)
def framework(request: pytest.FixtureRequest):
    return request.getfixturevalue(request.param)


def _classes(framework):
    layers = framework.layers
    found = {name: getattr(layers, name) for name in dir(layers) if inspect.isclass(getattr(layers, name))}
    return {name: cls for name, cls in found.items() if issubclass(cls, layers.Layer) and cls.__name__ == name}


def test_every_class_is_listed(framework) -> None:
    dialect = DIALECTS[framework.__name__]
    names = {keras3.CLASSES.get(name, name) for name in _classes(framework)} - NOT_LISTED
    assert {name for name in names if words_of(name, dialect) is None} == set()


def test_every_argument_of_a_constructor_is_listed(framework) -> None:
    dialect = DIALECTS[framework.__name__]
    renamed = keras2.renamed if dialect == "keras2" else keras3.renamed
    missing = {}
    for name, cls in _classes(framework).items():
        words = words_of(keras3.CLASSES.get(name, name), dialect)
        if words is None or not ARGUMENTS.get(name):
            continue
        taken = {renamed(name).get(word, word) for word in inspect.signature(cls.__init__).parameters}
        unlisted = taken - {word.name for word in words} - OF_EVERY_LAYER - NEVER_WRITTEN
        if unlisted:
            missing[name] = unlisted
    assert missing == {}


def test_a_word_says_since_when() -> None:
    since = {word.name: word.since for word in words_of("InputLayer", "keras2") or ()}
    assert since["batch_shape"] == ()
    assert since["ragged"] == (2, 4)
    assert {word.name: word.since for word in words_of("InputLayer", "keras3") or ()}["ragged"] == (3, 9)


def test_a_class_of_one_dialect_alone() -> None:
    assert words_of("LocallyConnected1D", "keras3") is None
    assert words_of("RMSNormalization", "keras2") is None
    assert is_listed("LocallyConnected1D")
    assert not is_listed("SomebodysLayer")
