"""Models of HDF5 files, whose nodes say not where their class is found, as Keras loads them from a ``.keras`` file."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np
import pytest

import modelio
from modelio.layers.arguments import UNTRAINED
from modelio.layers.keras3 import OPERATIONS, class_of
from modelio.layers.loadable import _module
from tests.lowering.harness import keras3

pytestmark = pytest.mark.filterwarnings("ignore")


def same(model: Any, inputs: list[np.ndarray], tmp_path: Any) -> modelio.LayerModel:
    """What Keras loads answers the same, and so does modelio's graph of the HDF5 file."""
    keras = keras3()
    model.save(tmp_path / "model.h5")
    modelio.convert(tmp_path / "model.h5", tmp_path / "made.keras")
    fed = inputs if len(inputs) > 1 else inputs[0]
    wanted = keras.tree.flatten(model(fed, training=False))
    loaded = keras.models.load_model(tmp_path / "made.keras", compile=False)
    answers = modelio.to_callable(tmp_path / "model.h5")(*inputs)
    for one, other, third in zip(
        wanted, keras.tree.flatten(loaded(fed, training=False)), answers.values(), strict=True
    ):
        np.testing.assert_allclose(np.asarray(other), np.asarray(one), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(third, np.asarray(one), rtol=1e-5, atol=1e-5)
    return modelio.read(tmp_path / "model.h5")


LAYERS: dict[str, tuple[tuple[Any, ...], tuple[int, ...]]] = {
    "SpatialDropout1D": ((0.3,), (4, 6)),
    "SpatialDropout2D": ((0.3,), (4, 6, 2)),
    "SpatialDropout3D": ((0.3,), (4, 6, 2, 3)),
    "Discretization": (([-0.5, 0.0, 1.0],), (4,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_say_not_whether_they_are_trained(name: str, tmp_path) -> None:
    """An operation does not say it either; these are layers all the same."""
    keras = keras3()
    arguments, shape = LAYERS[name]
    x = keras.Input(shape)
    x_in = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    same(keras.Model(x, getattr(keras.layers, name)(*arguments)(x)), [x_in], tmp_path)


def test_which_layers_say_it_not() -> None:
    """``Layer.get_config`` writes ``trainable``; a class that does not ask it has to be known."""
    keras = keras3()
    silent = {
        name
        for name, own in vars(keras.layers).items()
        if inspect.isclass(own) and issubclass(own, keras.Layer) and "super()" not in inspect.getsource(own.get_config)
        if "trainable" not in inspect.getsource(own.get_config)
    }
    assert silent <= UNTRAINED
    for name in UNTRAINED:
        assert class_of({"class_name": name, "config": {"name": "x"}, "inbound_nodes": []}) == name


@pytest.mark.parametrize(
    "node",
    [
        {"class_name": "Mine>Scale", "config": {"name": "scale"}, "inbound_nodes": []},
        {
            "class_name": "Scale",
            "config": {"name": "scale", "dtype": {"class_name": "DTypePolicy", "config": {"name": "float32"}}},
            "inbound_nodes": [],
        },
    ],
    ids=["registered", "with a dtype policy"],
)
def test_layers_of_ones_own_are_no_operations(node: dict[str, Any]) -> None:
    assert class_of(node) == node["class_name"]
    assert class_of({**node, "class_name": "Exp", "config": {"name": "exp"}}) == f"{OPERATIONS}Exp"


def test_operations_on_pictures_are_in_a_module_of_their_own(tmp_path) -> None:
    keras = keras3()
    x = keras.Input((6, 5, 3))
    image = keras.ops.image
    outputs = [
        *(image.resize(x, (4, 7)), image.pad_images(x, 1, 0, 1, 1), image.crop_images(x, 1, 1, 0, 1)),
        *(image.rgb_to_grayscale(x), image.extract_patches(x, (2, 2))),
        *(keras.ops.exp(x), keras.ops.linalg.norm(x, axis=1), keras.ops.nn.relu(x)),
    ]
    feed = np.random.default_rng(0).random((2, 6, 5, 3)).astype("float32")
    same(keras.Model(x, outputs), [feed], tmp_path)


def test_every_operation_is_found_where_it_is_said_to_be() -> None:
    keras3()
    from keras.src import ops
    from keras.src.ops.operation import Operation

    for info in pkgutil.iter_modules(ops.__path__):
        if info.name in ("function", "operation") or info.name.endswith("_test"):
            continue
        module = importlib.import_module(f"keras.src.ops.{info.name}")
        for name, own in vars(module).items():
            if inspect.isclass(own) and issubclass(own, Operation) and own.__module__ == module.__name__:
                said = _module({"class_name": name, "config": {"name": "x"}, "inbound_nodes": []})
                assert getattr(importlib.import_module(str(said)), name, None) is own, f"{name} is not in {said}"


def test_a_first_argument_by_its_name(tmp_path) -> None:
    """Keras 3 writes the arguments of a call as they were given: ``attention(value=v, query=q)``."""
    keras = keras3()
    query, value = keras.Input((5, 8)), keras.Input((6, 8))
    attended = keras.layers.MultiHeadAttention(2, 4)(value=value, query=query)
    y = keras.layers.Dense(3)(inputs=attended)
    y = keras.layers.LSTM(4)(sequences=y)
    random = np.random.default_rng(0)
    inputs = [random.normal(size=(2, 5, 8)).astype("float32"), random.normal(size=(2, 6, 8)).astype("float32")]
    model = keras.Model([query, value], y)
    model.save(tmp_path / "model.keras")
    (answer,) = modelio.to_callable(tmp_path / "model.keras")(*inputs).values()
    np.testing.assert_allclose(answer, np.asarray(model(inputs)), rtol=1e-5, atol=1e-5)
