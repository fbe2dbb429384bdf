"""Every architecture that Keras ships: its graph answers what the model itself answers.

Slow: ninety networks, of up to 350 million weights. Images are small where the architecture allows. Weights are the
initial ones, with scales and offsets moved, so that no zero or one hides a fault, and with the statistics of a batch, as
training leaves them: without, signals grow a trillionfold or die out on the way, and no comparison says anything.
Eight images are few: networks with their statistics amplify the rounding of float32 up to 1e-3. They are compared in
float64, where what differs is a rule and not the rounding; those without statistics in float32.
"""

from __future__ import annotations

import gc
import re

import numpy as np
import pytest

from tests.lowering.harness import assert_same, keras2, keras3

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:The `keras.initializers.serialize")]

NAMES = {
    "keras3": "ConvNeXtBase ConvNeXtLarge ConvNeXtSmall ConvNeXtTiny ConvNeXtXLarge",
    "keras2": "ConvNeXtBase ConvNeXtLarge ConvNeXtSmall ConvNeXtTiny ConvNeXtXLarge "
    "RegNetX002 RegNetX032 RegNetX320 RegNetY002 RegNetY032 RegNetY320 ResNetRS50 ResNetRS101 ResNetRS420",
}
COMMON = (
    "DenseNet121 DenseNet169 DenseNet201 EfficientNetB0 EfficientNetB1 EfficientNetB2 EfficientNetB3 EfficientNetB4 "
    "EfficientNetB5 EfficientNetB6 EfficientNetB7 EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3 "
    "EfficientNetV2L EfficientNetV2M EfficientNetV2S InceptionResNetV2 InceptionV3 MobileNet MobileNetV2 "
    "MobileNetV3Large MobileNetV3Small NASNetLarge NASNetMobile ResNet101 ResNet101V2 ResNet152 ResNet152V2 ResNet50 "
    "ResNet50V2 VGG16 VGG19 Xception"
)
CASES = [(package, name) for package in NAMES for name in f"{NAMES[package]} {COMMON}".split()]


def applications(keras):
    """The architectures that a package exports; MobileNetV3 is a module beside them."""
    return {
        name for name in dir(keras.applications) if name[0].isupper() and callable(getattr(keras.applications, name))
    }


@pytest.mark.parametrize("package", ["keras3", "keras2"])
def test_none_is_missing(package):
    """RegNet and ResNetRS come in twenty and seven sizes of one build: two or three stand for all."""
    here = {re.sub(r"\d+$", "", name) for framework, name in CASES if framework == package}
    there = {re.sub(r"\d+$", "", name) for name in applications({"keras3": keras3, "keras2": keras2}[package]())}
    assert here == there


@pytest.mark.parametrize(("package", "name"), CASES)
def test_an_application(package, name):
    keras = {"keras3": keras3, "keras2": keras2}[package]()
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()  # Keras 3 keeps the policy of the first layer that was made, whatever floatx is later
    keras.backend.set_floatx("float32" if name.startswith(("ConvNeXt", "VGG")) else "float64")  # those have none
    side = 80 if name.startswith(("Inception", "Xception")) else 64
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(side, side, 3), classes=7, classifier_activation=None
    )
    random = np.random.default_rng(0)
    try:
        move(model, random)
        colours = random.uniform(0, 1, (8, 1, 1, 3))
        images = (colours * random.uniform(0, 255, (8, side, side, 3))).astype(keras.backend.floatx())
        settle(model, images)
        one, other, *_ = model(images, training=False).numpy()
        assert one.dtype == keras.backend.floatx()
        assert np.abs(one - other).max() > 1e-3 * np.abs(one).max(), "the answer does not depend on the image"
        assert_same(model, images[:2], weights="own")
    finally:
        del model
        keras.backend.set_floatx("float32")
        keras.backend.clear_session()
        gc.collect()


def move(model, random):
    """Scales near one, offsets near zero; what a layer has adapted to is left alone."""
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if type(layer).__name__ == "Normalization":
            continue
        arrays = [np.array(weight) for weight in layer.get_weights()]
        for number, (weight, array) in enumerate(zip(layer.weights, arrays, strict=True)):
            if array.ndim == 1 and "moving" not in weight.name:
                centre = 1.0 if "gamma" in weight.name else 0.0
                arrays[number] = (centre + random.uniform(-0.2, 0.2, array.shape)).astype(array.dtype)
        layer.set_weights(arrays)


def settle(model, images):
    """Let every BatchNormalization keep the statistics of these images, with nothing dropped on the way."""
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = 0.0
        if type(layer).__name__ == "Dropout":
            layer.rate = 0.0
    model(images, training=True)
