"""What ``compile`` was told, in another dialect: the optimizer with its arguments, losses, metrics.

::

    HDF5      {"optimizer_config": {"class_name": "Adam", "config": {...}}, "loss": "mse", "metrics": ["accuracy"], ...}
    .keras    {"optimizer": {"module": "keras.optimizers", "class_name": "Adam", ...}, "loss": "mse", ...}

Both are taken; the words of HDF5 files are given. Nothing of it counts in inference. Sources: ``optimizers.py`` of
Keras 1.2.2 and 2.3.1, ``keras/optimizers/*.py`` of TensorFlow 1.15, tf_keras 2.21 ``src/optimizers/**``, Keras 3.15
``src/optimizers/*.py``, ``src/legacy/saving/saving_utils.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelio.errors import ReadError
from modelio.layers.dialects.account import Account
from modelio.layers.dialects.objects import Target, plain
from modelio.layers.values import decode

__all__ = ["optimizer_in", "training_of"]

_GENERAL = "name learning_rate clipnorm clipvalue global_clipnorm"
_AVERAGED = "weight_decay use_ema ema_momentum ema_overwrite_frequency"

_OPTIMIZERS: Mapping[str, str] = {
    "SGD": "momentum nesterov",
    "RMSprop": "rho momentum epsilon centered",
    "Adam": "beta_1 beta_2 epsilon amsgrad",
    "AdamW": "beta_1 beta_2 epsilon amsgrad",
    "Adamax": "beta_1 beta_2 epsilon",
    "Nadam": "beta_1 beta_2 epsilon",
    "Adagrad": "initial_accumulator_value epsilon",
    "Adadelta": "rho epsilon",
    "Adafactor": "beta_2_decay epsilon_1 epsilon_2 clip_threshold relative_step",
    "Ftrl": (
        "learning_rate_power initial_accumulator_value l1_regularization_strength l2_regularization_strength "
        "l2_shrinkage_regularization_strength beta"
    ),
    "Lion": "beta_1 beta_2",
}
"""Class -> its own arguments, which are the same in Keras 2 and 3."""

_SILENT: Mapping[str, tuple[Any, ...]] = {
    "jit_compile": (True, False),
    "is_legacy_optimizer": (True, False),
    "schedule_decay": (0.004,),
    "ema_momentum": (0.99,),
    "initial_decay": (0.0,),
}
"""Arguments that go without a trace, and values with which others do."""

_SCHEDULES = "keras.optimizers.schedules"

_LOSSES = {
    "kullback_leibler_divergence": "kl_divergence",
    "cosine_proximity": "cosine_similarity",
    "logcosh": "log_cosh",
}
_METRICS = {
    "binary_accuracy": "BinaryAccuracy",
    "categorical_accuracy": "CategoricalAccuracy",
    "sparse_categorical_accuracy": "SparseCategoricalAccuracy",
    "top_k_categorical_accuracy": "TopKCategoricalAccuracy",
    "sparse_top_k_categorical_accuracy": "SparseTopKCategoricalAccuracy",
    "binary_crossentropy": "BinaryCrossentropy",
    "categorical_crossentropy": "CategoricalCrossentropy",
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
    "cosine_similarity": "CosineSimilarity",
    "kl_divergence": "KLDivergence",
    "kullback_leibler_divergence": "KLDivergence",
    "hinge": "Hinge",
    "squared_hinge": "SquaredHinge",
    "categorical_hinge": "CategoricalHinge",
    "log_cosh": "LogCoshError",
    "logcosh": "LogCoshError",
    "mean_absolute_error": "MeanAbsoluteError",
    "mean_absolute_percentage_error": "MeanAbsolutePercentageError",
    "mean_squared_error": "MeanSquaredError",
    "mean_squared_logarithmic_error": "MeanSquaredLogarithmicError",
    "poisson": "Poisson",
}
"""Function in a MeanMetricWrapper -> the metric of that function."""


def optimizer_in(training: Mapping[str, Any] | None) -> tuple[str, Mapping[str, Any]] | None:
    """Class and arguments of the optimizer that a training configuration names."""
    given = (training or {}).get("optimizer_config") or (training or {}).get("optimizer")
    if isinstance(given, str):
        given = {"class_name": given}
    if not isinstance(given, Mapping) or not isinstance(given.get("class_name"), str):
        return None
    config = given.get("config")
    name = given["class_name"].rpartition(">")[2]
    known = {own.lower(): own for own in (*_OPTIMIZERS, "LossScaleOptimizer")}
    return known.get(name.lower(), name), config if isinstance(config, Mapping) else {}


def training_of(training: Mapping[str, Any], target: Target, account: Account) -> dict[str, Any] | None:
    """A training configuration for the target, in the words of HDF5 files; None where its optimizer cannot be said."""
    try:
        return _training(training, target, account)
    except (TypeError, ValueError, LookupError, AttributeError, ReadError):
        account.loss("the training configuration is not such as Keras writes: the model is not compiled")
        return None


def _training(training: Mapping[str, Any], target: Target, account: Account) -> dict[str, Any] | None:
    found = optimizer_in(training)
    if found is None:
        account.loss(f"the training configuration names no optimizer, and {target.title} wants one")
        return None
    optimizer = _optimizer(*found, target, account)
    if optimizer is None:
        return None
    made: dict[str, Any] = {"optimizer_config": optimizer, "loss": _each(training.get("loss"), _loss, target, account)}
    for key in ("metrics", "weighted_metrics"):
        metrics = training.get(key)
        if isinstance(metrics, list) and len(metrics) == 1 and isinstance(metrics[0], list):
            metrics = metrics[0]  # those of the one output
        made[key] = _each(metrics, _metric, target, account)
    made["loss_weights"] = plain(training.get("loss_weights"))
    if target.dialect == "keras2" and target.version < (2, 4):
        made["sample_weight_mode"] = training.get("sample_weight_mode")
    elif training.get("sample_weight_mode"):
        account.loss("sample_weight_mode is an argument of compile no longer")
    return made


# -- optimizers --------------------------------------------------------------------------------------------------------


def _optimizer(name: str, given: Mapping[str, Any], target: Target, account: Account) -> dict[str, Any] | None:
    if name == "LossScaleOptimizer":
        return _scaled(given, target, account)
    if name not in _OPTIMIZERS:
        account.loss(f"{name} is none of Keras' own optimizers: the model is not compiled")
        return None
    early = target.dialect == "keras2" and target.version < (2, 11)
    config = {key: decode(value, name) for key, value in given.items()}
    if "lr" in config:
        config.setdefault("learning_rate", config.pop("lr"))
        account.change(f"lr -> learning_rate: {name}")
    if config.get("epsilon", 0) is None:
        config["epsilon"] = 1e-7  # Keras 2.1 to 2.3 put K.epsilon() there
    config["learning_rate"] = _rate(config, target, early, account, name)
    words = f"{_GENERAL} {_OPTIMIZERS[name]} {'decay' if early else _AVERAGED}".split()
    if target.dialect == "keras3":
        words += ["loss_scale_factor", "gradient_accumulation_steps"]
    for key, value in config.items():
        if key not in words and value not in (None, False, 0, *_SILENT.get(key, ())):
            account.loss(f"{name} takes no {key} in {target.title}; it was {plain(value)!r:.60}")
    kept = {key: plain(config[key]) for key in words if config.get(key) is not None}
    if early and target.version < (2, 3):
        kept["lr"] = kept.pop("learning_rate")
    if target.dialect == "keras2" and not early:  # without this it takes them for those of before 2.11
        return {"class_name": f"Custom>{name}", "config": {**kept, "is_legacy_optimizer": False}}
    return {"class_name": name, "config": kept}


def _rate(config: dict[str, Any], target: Target, early: bool, account: Account, name: str) -> Any:
    """The learning rate; ``decay``, which went in 2.11, is a schedule: ``rate / (1 + decay * step)``."""
    rate, decay = config.get("learning_rate"), config.get("decay")
    if isinstance(rate, Mapping):
        config_of = rate.get("config")
        class_name = str(rate.get("class_name"))
        return _schedule(class_name, config_of if isinstance(config_of, Mapping) else {}, target)
    if not decay or early:
        return rate
    del config["decay"]
    account.change(f"decay -> InverseTimeDecay: {name}")
    words = {"initial_learning_rate": rate, "decay_steps": 1, "decay_rate": decay, "staircase": False}
    return _schedule("InverseTimeDecay", words, target)


def _schedule(class_name: str, config: Mapping[str, Any], target: Target) -> dict[str, Any]:
    kept = {key: plain(value) for key, value in config.items() if value is not None}
    node: dict[str, Any] = {"class_name": class_name, "config": kept}
    if target.dialect == "keras3":
        return {"module": _SCHEDULES, **node, "registered_name": None}
    return node


def _scaled(given: Mapping[str, Any], target: Target, account: Account) -> dict[str, Any] | None:
    """Around another optimizer: the loss is scaled so that float16 has room for the gradients."""
    inner = optimizer_in({"optimizer_config": given.get("inner_optimizer") or given.get("optimizer")})
    made = None if inner is None else _optimizer(*inner, target, account)
    if made is None:
        return None
    config = {key: given[key] for key in ("initial_scale", "dynamic_growth_steps") if given.get(key) is not None}
    if target.dialect == "keras2":
        return {"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": made, "dynamic": True, **config}}
    node = {"module": "keras.optimizers", **made, "registered_name": None}
    return {"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": node, **config}}


# -- losses and metrics ------------------------------------------------------------------------------------------------

Change = Callable[[Any, Target, Account], Any]


def _each(value: Any, change: Change, target: Target, account: Account) -> Any:
    """One, or several by output: lists, mappings, in any depth."""
    if isinstance(value, (list, tuple)):
        return [_each(item, change, target, account) for item in value]
    if isinstance(value, Mapping) and "class_name" not in value:
        return {key: _each(item, change, target, account) for key, item in value.items()}
    return None if value is None else change(value, target, account)


def _loss(value: Any, target: Target, account: Account) -> Any:
    if isinstance(value, str):
        name = _LOSSES.get(value, value) if target.dialect == "keras3" else value
        if name != value:
            account.change(f"loss {value} -> {name}")
        return name
    class_name, config = _class(value)
    if class_name == "function" or config is None:
        return value.get("config", plain(value)) if isinstance(value, Mapping) else plain(value)
    config = {key: item for key, item in config.items() if key not in ("fn", "dtype")}
    if target.dialect == "keras3" and config.get("reduction") in ("auto", "AUTO"):
        config["reduction"] = "sum_over_batch_size"
    return _node(class_name, config, "keras.losses", target)


def _metric(value: Any, target: Target, account: Account) -> Any:
    if isinstance(value, str):
        return value
    class_name, config = _class(value)
    if class_name == "function" or config is None:
        return value.get("config", plain(value)) if isinstance(value, Mapping) else plain(value)
    config = dict(config)
    function = config.pop("fn", None)
    dtype = config.pop("dtype", None)
    if isinstance(dtype, Mapping):
        inner = dtype.get("config")
        dtype = inner.get("name") if isinstance(inner, Mapping) else None
    if class_name == "MeanMetricWrapper":
        if config.get("name") in ("accuracy", "acc"):
            return config["name"]
        class_name = _METRICS.get(str(function), class_name)
    return _node(class_name, {**config, "dtype": dtype} if dtype else config, "keras.metrics", target)


def _class(value: Any) -> tuple[str, Mapping[str, Any] | None]:
    config = value.get("config") if isinstance(value, Mapping) else None
    name = str(value.get("class_name")) if isinstance(value, Mapping) else ""
    return name.rpartition("Custom>")[2], config if isinstance(config, Mapping) else None


def _node(class_name: str, config: Mapping[str, Any], module: str, target: Target) -> dict[str, Any]:
    node: dict[str, Any] = {"class_name": class_name, "config": plain(config)}
    if target.dialect == "keras3":
        return {"module": module, **node, "registered_name": None}
    return node
