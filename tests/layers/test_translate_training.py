"""Training goes on in the other Keras where it stopped: the same optimizer, in the same state, takes the same steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import modelio
from modelio.layers.dialects import translate
from modelio.model import LayerModel, Tensor
from tests.corpus import case

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(5)
X = RNG.normal(size=(48, 5)).astype("float32")
Y = RNG.integers(0, 3, size=48)

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda o: o.SGD(0.1),
    "SGD with momentum": lambda o: o.SGD(0.01, momentum=0.9, nesterov=True),
    "RMSprop": lambda o: o.RMSprop(0.01),
    "Adam": lambda o: o.Adam(0.01),
    "AdamW": lambda o: o.AdamW(0.01, weight_decay=0.01),
    "Adamax": lambda o: o.Adamax(0.01),
    "Adagrad": lambda o: o.Adagrad(0.1),
    "Adadelta": lambda o: o.Adadelta(1.0),
    "Lion": lambda o: o.Lion(0.001),
    "Adam on a schedule": lambda o: o.Adam(o.schedules.ExponentialDecay(0.01, 2, 0.9)),
}
OF_OLD: dict[str, Callable[[Any], Any]] = {
    "Adam that decays": lambda o: o.legacy.Adam(0.01, decay=0.1),
    "SGD with momentum": lambda o: o.legacy.SGD(0.01, momentum=0.9),
    "Adadelta": lambda o: o.legacy.Adadelta(1.0),
}


def trained(framework: Any, optimizer: Any) -> Any:
    layers = framework.layers
    framework.utils.set_random_seed(1)
    inner = framework.Sequential([framework.Input((4,)), layers.Dense(4), layers.BatchNormalization()])
    outer = [framework.Input((5,)), layers.Dense(4, activation="relu"), layers.BatchNormalization(), inner]
    live = framework.Sequential([*outer, layers.Dense(3, activation="softmax")])
    metrics = ["accuracy", framework.metrics.SparseTopKCategoricalAccuracy(2, name="top")]
    live.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=metrics)
    for start in range(0, 32, 8):
        live.train_on_batch(X[start : start + 8], Y[start : start + 8])
    return live


def compiled(framework: Any, model: LayerModel) -> Any:
    """What load_model makes of the file; done by hand, since Keras 3's HDF5 loader forgets the optimizer's state."""
    live = framework.models.model_from_json(model.to_json())
    live.set_weights(model.get_weights())
    assert model.training is not None
    optimizer = framework.optimizers.deserialize(json.loads(json.dumps(model.training["optimizer_config"])))
    metrics = [framework.metrics.deserialize(m) if isinstance(m, dict) else m for m in model.training["metrics"]]
    live.compile(optimizer, loss=model.training["loss"], metrics=metrics)
    optimizer.build(live.trainable_variables)
    values = [tensor.numpy() for tensor in model.optimizer.values()]
    if framework.__name__ == "tf_keras":
        optimizer.set_weights(values)
        return live
    assert len(optimizer.variables) == len(values)
    for variable, value in zip(optimizer.variables, values, strict=True):
        variable.assign(value)
    return live


def assert_same_step(first: Any, second: Any) -> None:
    for live in (first, second):
        live.train_on_batch(X[32:40], Y[32:40])
    for ours, theirs in zip(first.trainable_variables, second.trainable_variables, strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=2e-7)


QUICK = ("Adam", "SGD with momentum")
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("here", "there"), [("tf_keras", "keras"), ("keras", "tf_keras")])
def test_the_next_step(request, tmp_path, here: str, there: str, name: str) -> None:
    first, second = request.getfixturevalue(here), request.getfixturevalue(there)
    live = trained(first, OPTIMIZERS[name](first.optimizers))
    live.save(tmp_path / "model.h5")
    model, _, losses = translate(modelio.read(tmp_path / "model.h5"), "keras3" if there == "keras" else "keras2")
    assert losses == []
    assert_same_step(live, compiled(second, model))


@pytest.mark.parametrize("name", OF_OLD)
def test_optimizers_of_before_2_11(tf_keras, keras, tmp_path, name: str) -> None:
    live = trained(tf_keras, OF_OLD[name](tf_keras.optimizers))
    live.save(tmp_path / "model.h5")
    model, _, losses = translate(modelio.read(tmp_path / "model.h5"), "keras3")
    assert losses == []
    assert_same_step(live, compiled(keras, model))


def test_decay_is_a_schedule() -> None:
    model = _compiled({"class_name": "SGD", "config": {"lr": 0.1, "decay": 0.01, "momentum": 0.0, "nesterov": False}})
    translated, changes, losses = translate(model, "keras3")
    assert losses == []
    assert {"lr -> learning_rate: SGD", "decay -> InverseTimeDecay: SGD"} <= set(changes)
    assert translated.training is not None
    schedule = translated.training["optimizer_config"]["config"]["learning_rate"]
    assert schedule["config"] == {
        "initial_learning_rate": 0.1,
        "decay_steps": 1,
        "decay_rate": 0.01,
        "staircase": False,
    }


def test_keras_1_sorted_the_state_by_names() -> None:
    """What belongs to which weight follows from the names: beta and gamma before the kernels of Dense."""
    source = modelio.read(case("keras-1.2.2_tf-0.12.1/mlp") / "model.h5")
    model, _, losses = translate(source, "keras3")
    assert losses == []
    arrays = [tensor.numpy() for tensor in source.optimizer.values()]
    assert [array.shape for array in arrays[:5]] == [(), (32,), (32,), (64, 32), (32,)]
    state = model.optimizer
    np.testing.assert_array_equal(state["adam/batchnormalization_1_beta_momentum"].numpy(), arrays[1])
    np.testing.assert_array_equal(state["adam/batchnormalization_1_gamma_momentum"].numpy(), arrays[2])
    np.testing.assert_array_equal(state["adam/dense_1_kernel_momentum"].numpy(), arrays[3])
    np.testing.assert_array_equal(state["adam/dense_1_kernel_velocity"].numpy(), arrays[9])
    assert state["adam/iteration"].numpy() == arrays[0]
    assert state["adam/iteration"].dtype == np.int64


@pytest.mark.parametrize("version", ["keras-2.0.5_tf-1.2.1", "keras-2.3.1_tf-1.15.5"])
def test_every_weight_keeps_its_state(version: str) -> None:
    """In training, a weight's momentum is the larger the more the weight moves: only the right one has its shape."""
    model, _, losses = translate(modelio.read(case(f"{version}/mlp") / "model.h5"), "keras3")
    assert losses == []
    shapes = {f"{layer}_{name.split('/')[-1]}": t.shape for layer, g in model.weights.items() for name, t in g.items()}
    for name, tensor in model.optimizer.items():
        own = name.removeprefix("adam/").removesuffix("_momentum").removesuffix("_velocity")
        if own not in ("iteration", "learning_rate"):
            assert tensor.shape == shapes[own]


def test_a_state_whose_weights_were_multiplied_is_left_out() -> None:
    config = {"units": 3, "recurrent_activation": "hard_sigmoid", "batch_input_shape": [None, 5, 4], "name": "lstm"}
    layer = {"class_name": "LSTM", "config": config}
    architecture = {"class_name": "Sequential", "config": {"name": "s", "layers": [layer]}, "keras_version": "2.8.0"}
    arrays = [np.ones(shape, "float32") for shape in ((4, 12), (3, 12), (12,))]
    model = LayerModel.from_json(architecture, arrays)
    model.training = {"optimizer_config": {"class_name": "SGD", "config": {"learning_rate": 0.1}}, "loss": "mse"}
    model.optimizer = {"iter": Tensor.of(np.int64(3))}
    translated, _, losses = translate(model, "keras3")
    assert translated.optimizer == {}
    assert losses[-1] == "the optimizer's state is left out: weights that it belongs to were multiplied"


def _compiled(optimizer: Any, **more: Any) -> LayerModel:
    layer = {"class_name": "Dense", "config": {"units": 3, "batch_input_shape": [None, 4], "name": "dense"}}
    architecture = {"class_name": "Sequential", "config": {"name": "s", "layers": [layer]}, "keras_version": "2.2.0"}
    model = LayerModel.from_json(architecture, [np.ones((4, 3), "float32"), np.ones(3, "float32")])
    model.training = {"optimizer_config": optimizer, "loss": "mse", "metrics": [], "loss_weights": None, **more}
    return model


LOSSES = [
    (
        {"class_name": "Somebodys", "config": {}},
        "Somebodys is none of Keras' own optimizers: the model is not compiled",
    ),
    (
        {"class_name": "Nadam", "config": {"lr": 0.1, "schedule_decay": 0.01}},
        "Nadam takes no schedule_decay in Keras 3",
    ),
    (None, "the training configuration names no optimizer, and Keras 3 wants one"),
    ({"class_name": "SGD", "config": {"lr": {"class_name": "__tuple__"}}}, ""),
]


@pytest.mark.parametrize(("optimizer", "loss"), LOSSES)
def test_what_is_lost_of_optimizers(optimizer: Any, loss: str) -> None:
    losses = translate(_compiled(optimizer), "keras3")[2]
    assert any(line.startswith(loss) for line in losses) or not loss


COMPILED = [
    ("loss", "kullback_leibler_divergence", "kl_divergence"),
    ("loss", {"a": "mse", "b": "cosine_proximity"}, {"a": "mse", "b": "cosine_similarity"}),
    (
        "loss",
        {"class_name": "MeanSquaredError", "config": {"reduction": "auto", "name": "m", "fn": "mean_squared_error"}},
        {
            "module": "keras.losses",
            "class_name": "MeanSquaredError",
            "config": {"reduction": "sum_over_batch_size", "name": "m"},
            "registered_name": None,
        },
    ),
    ("metrics", ["accuracy", "mae"], ["accuracy", "mae"]),
    (
        "metrics",
        [[{"class_name": "MeanMetricWrapper", "config": {"name": "accuracy", "dtype": "float32", "fn": "x"}}]],
        ["accuracy"],
    ),
    (
        "metrics",
        [[{"class_name": "MeanMetricWrapper", "config": {"name": "m", "fn": "mean_absolute_error"}}]],
        [
            {
                "module": "keras.metrics",
                "class_name": "MeanAbsoluteError",
                "config": {"name": "m"},
                "registered_name": None,
            }
        ],
    ),
]


@pytest.mark.parametrize(("key", "before", "after"), COMPILED)
def test_losses_and_metrics(key: str, before: Any, after: Any) -> None:
    model, _, _ = translate(_compiled({"class_name": "SGD", "config": {"lr": 0.1}}, **{key: before}), "keras3")
    assert model.training is not None
    assert model.training[key] == after


def test_the_compile_config_of_a_keras_file_is_taken() -> None:
    layer = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 3, "name": "dense"}}
    source = {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": [None, 4], "name": "i"}}
    architecture = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "s", "layers": [source, layer]},
        "compile_config": {
            "optimizer": {"module": "keras.optimizers", "class_name": "Adam", "config": {"learning_rate": 0.1}},
            "loss": "mse",
            "metrics": ["mae"],
        },
    }
    model, _, losses = translate(LayerModel.from_json(architecture), "keras2")
    assert losses == []
    assert model.training is not None
    assert model.training["optimizer_config"]["class_name"] == "Custom>Adam"
    assert model.training["loss"] == "mse"
