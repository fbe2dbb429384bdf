"""Models from one Keras into another: loaded by that Keras, they give the numbers of the one that wrote them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import modelio
from modelio.errors import ConversionError, ModelioError
from modelio.layers.dialects import translate
from modelio.layers.network import network_of
from modelio.lowering import lower
from modelio.model import LayerModel, Tensor
from tests.corpus import Case, case, cases, golden

pytestmark = pytest.mark.filterwarnings("ignore")

TOLERANCE = 1e-5
ROUNDING = {"mixed_dtypes": 2e-3}
"""float16 is rounded in another order by every version."""

RUNS_ELSEWHERE = "lambda"
"""The model whose Lambda has bytecode: only the Python that wrote it runs it."""

NO_VOCABULARY = "textvec"
"""The model whose table is in no HDF5 file."""


def files(version: str) -> list[Case]:
    found = cases(file="model.h5", version=version)
    return [found_case for found_case in found if found_case.model not in (RUNS_ELSEWHERE, NO_VOCABULARY)]


def loaded(framework: Any, model: LayerModel) -> Any:
    """The model as a framework builds it, with its weights."""
    live = framework.models.model_from_json(model.to_json())
    live.set_weights(model.get_weights())
    for layer in live.layers:
        if type(layer).__name__ == "Normalization":
            layer.finalize_state()
    return live


def outputs(live: Any, inputs: list[Any]) -> list[Any]:
    import tensorflow as tf

    names = getattr(live, "_nested_inputs", getattr(live, "_inputs_struct", None))
    given: Any = inputs if len(inputs) > 1 else inputs[0]
    if isinstance(names, dict):
        given = dict(zip(sorted(names), inputs, strict=True))
    return [np.asarray(y) for y in tf.nest.flatten(live(given, training=False))]


def assert_golden(live: Any, case: Case) -> None:
    inputs, expected = golden(case)
    for got, wanted in zip(outputs(live, inputs), expected, strict=True):
        assert np.abs(got.astype(np.float64) - wanted).max() < ROUNDING.get(case.model, TOLERANCE)


# -- the corpus --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*files("keras-[12]*"), *files("contrib*"), *files("tf*")])
def test_old_files_in_keras_3(keras, case: Case) -> None:
    model, _, _ = translate(modelio.read(case / "model.h5"), "keras3")
    assert_golden(loaded(keras, model), case)


@pytest.mark.parametrize("case", [*files("keras-1*"), *files("keras-3*")])
def test_other_dialects_in_tf_keras(tf_keras, case: Case) -> None:
    model, _, _ = translate(modelio.read(case / "model.h5"), "keras2")
    assert_golden(loaded(tf_keras, model), case)


@pytest.mark.parametrize("case", cases(file="model.h5"))
def test_the_same_dialect_is_the_same_model(case: Case) -> None:
    if case.model == NO_VOCABULARY:
        pytest.skip("tf_keras stopped half-way when it wrote this file")
    model = modelio.read(case / "model.h5")
    assert translate(model, model.dialect) == (model, [], [])


@pytest.mark.parametrize("case", [*files("keras-[12]*"), *files("contrib*"), *files("tf*")])
def test_as_keras_3_itself_writes_it(keras, case: Case) -> None:
    """Keras reads the JSON and writes it again: the same, and what is new, and what it was built with."""
    ours = translate(modelio.read(case / "model.h5"), "keras3")[0].architecture
    theirs = json.loads(keras.models.model_from_json(json.dumps(ours)).to_json())
    assert differences(ours, theirs) == []


@pytest.mark.parametrize("case", files("keras-3*"))
def test_as_tf_keras_itself_writes_it(tf_keras, case: Case) -> None:
    ours = translate(modelio.read(case / "model.h5"), "keras2")[0].architecture
    theirs = json.loads(tf_keras.models.model_from_json(json.dumps(ours)).to_json())
    assert differences(ours, theirs, ignored=("keras_version", "axis")) == []


def differences(ours: Any, theirs: Any, path: str = "", ignored: tuple[str, ...] = ()) -> list[str]:
    """What Keras did not write as we did; what it wrote in addition does not count."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        if ours.get("class_name") == "__keras_tensor__":
            ours, theirs = ours["config"]["keras_history"], theirs["config"]["keras_history"]
            return [] if ours == theirs else [f"{path}: {ours} {theirs}"]
        if ours.get("class_name") == "Bidirectional":
            ignored += ("zero_output_for_mask",)  # which it sets in the layers that it is given
        return [
            line
            for key, value in ours.items()
            if key not in ignored
            for line in differences(value, theirs.get(key), f"{path}/{key}", ignored)
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            line
            for index, (a, b) in enumerate(zip(ours, theirs, strict=True))
            for line in differences(a, b, f"{path}/{index}", ignored)
        ]
    numbers_both = isinstance(ours, float) and isinstance(theirs, float)
    same = ours == theirs or (numbers_both and np.isclose(ours, theirs))
    one, several = (ours, theirs) if isinstance(theirs, list) else (theirs, ours)
    alike = isinstance(several, list) and isinstance(one, int) and set(several) == {one}
    return [] if same or alike else [f"{path}: {ours!r:.60} {theirs!r:.60}"]


def test_nothing_is_read() -> None:
    def refuse() -> Any:
        raise AssertionError("a weight was read")

    model = modelio.read(case("keras-1.2.2_tf-0.12.1/nested") / "model.h5")
    weights = {
        layer: {name: Tensor(tensor.dtype, tensor.shape, refuse) for name, tensor in group.items()}
        for layer, group in model.weights.items()
    }
    state = {name: Tensor(tensor.dtype, tensor.shape, refuse) for name, tensor in model.optimizer.items()}
    translate(replace(model, weights=weights, optimizer=state), "keras3")


def test_the_same_twice() -> None:
    model = modelio.read(case("keras-2.3.1_tf-1.15.5/convzoo") / "model.h5")
    (first, *account), (second, *again) = translate(model, "keras3"), translate(model, "keras3")
    assert first.to_json() == second.to_json()
    assert account == again


def test_an_architecture_alone() -> None:
    text = (case("keras-2.3.1_tf-1.15.5/nested") / "architecture.json").read_text()
    model, _, _ = translate(LayerModel.from_json(text), "keras3")
    assert model.weights == {}


def test_weights_alone_are_refused() -> None:
    model = replace(modelio.read(case("keras-2.3.1_tf-1.15.5/nested") / "model.h5"), architecture=None)
    with pytest.raises(ConversionError, match="architecture"):
        translate(model, "keras3")


def test_keras_1_is_not_written() -> None:
    model = modelio.read(case("keras-2.3.1_tf-1.15.5/nested") / "model.h5")
    with pytest.raises(ConversionError, match="keras2 and keras3"):
        translate(model, "keras1")


# -- what is said of it ------------------------------------------------------------------------------------------------

CHANGES = [
    ("keras-1.2.2_tf-0.12.1/convzoo", "keras2", "nb_filter -> filters: c1, sep, dil"),
    ("keras-1.2.2_tf-0.12.1/convzoo", "keras2", "nb_row nb_col -> kernel_size: c1, sep, dil"),
    ("keras-1.2.2_tf-0.12.1/convzoo", "keras2", "AtrousConvolution2D -> Conv2D: dil"),
    ("keras-1.2.2_tf-0.12.1/convzoo", "keras2", "Merge -> Concatenate: merge_1"),
    ("keras-1.2.2_tf-0.12.1/convzoo", "keras2", "glorot_uniform -> GlorotUniform: c1, sep, dil, fc"),
    ("keras-1.2.2_tf-0.12.1/mlp", "keras2", "InputLayer made explicit: dense_input_1"),
    ("keras-1.2.2_tf-0.12.1/mlp", "keras3", "lr -> learning_rate: Adam"),
    ("contrib-keras_tf-1.2.1/nested", "keras3", "weights: beta, gamma -> gamma, beta: encoder/enc_bn"),
    ("keras-2.0.5_tf-1.2.1/rnn", "keras3", "reset_after=False made explicit: bi/gru, bi/backward_gru"),
    ("keras-2.3.1_tf-1.15.5/nested", "keras3", "batch_input_shape -> batch_shape: q, p, head/head_in"),
    ("keras-2.3.1_tf-1.15.5/nested", "keras3", "Model -> Functional: head, nested"),
    ("keras-2.3.1_tf-1.15.5/nested", "keras3", "calls: written as __keras_tensor__: head, nested"),
    (
        "keras-2.3.1_tf-1.15.5/nested",
        "keras3",
        "dtype: names -> DTypePolicy: encoder/enc_d, encoder/enc_bn, concatenate_1, head/head_d and 1 more",
    ),
    ("tfkeras_tf-1.15.5/convzoo", "keras3", "alpha -> negative_slope: leaky_re_lu"),
    ("tfkeras_tf-2.8.4/convzoo", "keras3", "groups left out, since the layer does the same without it: sep, dw, up"),
    ("tfkeras_tf-2.8.4/tfops", "keras3", "operation math.exp -> Exp: tf.math.exp"),
    ("keras-3.15.1_tf-2.21.0/convzoo", "keras2", "negative_slope -> alpha: leaky_re_lu"),
    (
        "keras-3.15.1_tf-2.21.0/mlp",
        "keras2",
        "dtype: policies -> names: dense, batch_normalization, dropout, dense_1",
    ),
    (
        "keras-2.3.1_tf-1.15.5/lambda",
        "keras3",
        "not translated: the code of Lambda, which runs where it was written: scale",
    ),
]


@pytest.mark.parametrize(("name", "target", "line"), CHANGES)
def test_changes(name: str, target: Any, line: str) -> None:
    _, changes, _ = translate(modelio.read(case(name) / "model.h5"), target)
    assert line in changes


def test_most_models_lose_nothing() -> None:
    for name in ("keras-1.2.2_tf-0.12.1/cnn", "tfkeras_tf-2.15.1/convnd", "tf_keras-2.21_tf-2.21.0/nested"):
        assert translate(modelio.read(case(name) / "model.h5"), "keras3")[2] == []


def test_gates_with_hard_sigmoid_keep_their_outputs_and_are_named() -> None:
    """That Keras 3 gives the golden outputs is shown above; here, by what and where."""
    source = modelio.read(case("keras-2.0.5_tf-1.2.1/rnn") / "model.h5")
    model, _, losses = translate(source, "keras3")
    (loss,) = losses
    assert loss.startswith("lstm, bi/gru, bi/backward_gru: hard_sigmoid is clip(0.2 x + 0.5, 0, 1) in Keras 1 and 2")
    before, after = source.weights["lstm"]["lstm/kernel:0"], model.weights["lstm"]["lstm/lstm_cell/kernel"]
    gates = zip(np.split(before.numpy(), 4, axis=1), np.split(after.numpy(), 4, axis=1), strict=True)
    factors = [float((new / old).mean()) for old, new in gates]
    assert np.allclose(factors, [1.2, 1.2, 1.0, 1.2])  # input, forget, candidate, output


def test_to_keras_2_hard_sigmoid_is_what_it_was_in_keras_1() -> None:
    assert translate(modelio.read(case("keras-1.2.2_tf-0.12.1/convzoo") / "model.h5"), "keras2")[2] == []


# -- Keras 1, by the formulas of its source ----------------------------------------------------------------------------

RNG = np.random.default_rng(7)


def numbers(*shape: int) -> Any:
    return RNG.normal(size=shape).astype("float32")


def keras_1(class_name: str, shape: tuple[int, ...], arrays: list[Any], **config: Any) -> LayerModel:
    """A Sequential of one layer, as Keras 1.2.2 writes it."""
    first = {"name": "layer", "trainable": True, "batch_input_shape": [None, *shape], "input_dtype": "float32"}
    node = {"class_name": class_name, "config": {**first, **config}}
    return LayerModel.from_json({"class_name": "Sequential", "keras_version": "1.2.2", "config": [node]}, arrays)


def old_hard_sigmoid(x: Any) -> Any:
    return np.clip(0.2 * x + 0.5, 0, 1)


DENSE = {"init": "glorot_uniform", "activation": "linear", "bias": True}
IMAGES = {**DENSE, "nb_row": 3, "nb_col": 3, "nb_filter": 4, "subsample": [2, 2], "dim_ordering": "tf"}


def _maxout() -> tuple[LayerModel, Callable[[Any], Any]]:
    kernel, bias = numbers(4, 5, 3), numbers(4, 3)
    model = keras_1("MaxoutDense", (5,), [kernel, bias], **DENSE, output_dim=3, nb_feature=4)
    return model, lambda x: (np.einsum("bf,kfu->bku", x, kernel) + bias).max(axis=1)


def _highway() -> tuple[LayerModel, Callable[[Any], Any]]:
    kernel, carry, bias, carry_bias = numbers(5, 5), numbers(5, 5), numbers(5), numbers(5)
    told = {**DENSE, "activation": "hard_sigmoid", "transform_bias": -2}
    model = keras_1("Highway", (5,), [kernel, carry, bias, carry_bias], **told)

    def formula(x: Any) -> Any:
        gate = 1 / (1 + np.exp(-(x @ carry + carry_bias)))
        return old_hard_sigmoid(x @ kernel + bias) * gate + (1 - gate) * x

    return model, formula


def _dense() -> tuple[LayerModel, Callable[[Any], Any]]:
    kernel, bias = numbers(5, 3), numbers(3)
    model = keras_1("Dense", (5,), [kernel, bias], **{**DENSE, "activation": "hard_sigmoid"}, output_dim=3)
    return model, lambda x: old_hard_sigmoid(x @ kernel + bias)


def _activation() -> tuple[LayerModel, Callable[[Any], Any]]:
    return keras_1("Activation", (5,), [], activation="hard_sigmoid"), old_hard_sigmoid


def _time_distributed() -> tuple[LayerModel, Callable[[Any], Any]]:
    kernel, bias = numbers(5, 3), numbers(3)
    config = {"name": "dense", **DENSE, "activation": "hard_sigmoid", "output_dim": 3}
    inner = {"class_name": "Dense", "config": config}
    model = keras_1("TimeDistributed", (4, 5), [kernel, bias], layer=inner)
    return model, lambda x: old_hard_sigmoid(x @ kernel + bias)


def _atrous() -> tuple[LayerModel, Callable[[Any], Any]]:
    kernel, bias = numbers(3, 3, 2, 4), numbers(4)
    told = {**IMAGES, "subsample": [1, 1], "border_mode": "valid", "atrous_rate": [2, 2]}
    model = keras_1("AtrousConvolution2D", (7, 7, 2), [kernel, bias], **told)

    def formula(x: Any) -> Any:
        wide = np.zeros((5, 5, 2, 4), "float32")
        wide[::2, ::2] = kernel
        windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(1, 2))
        return np.einsum("bijcrs,rscf->bijf", windows, wide) + bias

    return model, formula


def _deconvolution() -> tuple[LayerModel, Callable[[Any], Any]]:
    kernel = numbers(3, 3, 2, 4)  # Keras 1: (rows, columns, channels, filters)
    told = {**IMAGES, "bias": False, "border_mode": "valid", "output_shape": [None, 10, 9, 4]}
    model = keras_1("Deconvolution2D", (4, 4, 2), [kernel], **told)

    def formula(x: Any) -> Any:
        y = np.zeros((len(x), 10, 9, 4), "float32")
        for row in range(4):
            for column in range(4):
                spot = np.einsum("bc,rscf->brsf", x[:, row, column], kernel)
                y[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3] += spot
        return y

    return model, formula


def _padding() -> tuple[LayerModel, Callable[[Any], Any]]:
    margins = {"top_pad": 1, "left_pad": 2}
    model = keras_1("ZeroPadding2D", (3, 3, 1), [], padding=margins, dim_ordering="tf")
    return model, lambda x: np.pad(x, ((0, 0), (1, 0), (2, 0), (0, 0)))


FORMULAS = [_maxout, _highway, _dense, _activation, _time_distributed, _atrous, _deconvolution, _padding]


@pytest.mark.parametrize("target", ["keras2", "keras3"])
@pytest.mark.parametrize("made", FORMULAS)
def test_keras_1_by_its_formulas(tf_keras, keras, made, target) -> None:
    model, formula = made()
    translated, _, losses = translate(model, target)
    live = loaded(keras if target == "keras3" else tf_keras, translated)
    x = numbers(2, *live.inputs[0].shape[1:])
    assert losses == []
    np.testing.assert_allclose(outputs(live, [x])[0], formula(x), atol=2e-6)


@pytest.mark.parametrize("target", ["keras2", "keras3"])
def test_a_cosine_of_keras_1_has_an_axis_more(tf_keras, keras, target) -> None:
    inputs = [
        {"class_name": "InputLayer", "name": name, "inbound_nodes": [], "config": {"batch_input_shape": [None, 4]}}
        for name in "ab"
    ]
    merge = {
        "class_name": "Merge",
        "name": "merge",
        "config": {"name": "merge", "mode": "cos", "mode_type": "raw", "dot_axes": [1, 1], "concat_axis": -1},
        "inbound_nodes": [[["a", 0, 0], ["b", 0, 0]]],
    }
    ends = {"input_layers": [["a", 0, 0], ["b", 0, 0]], "output_layers": [["merge", 0, 0]]}
    config = {"name": "m", "layers": [*inputs, merge], **ends}
    source = LayerModel.from_json({"class_name": "Model", "keras_version": "1.2.2", "config": config})
    live = loaded(keras if target == "keras3" else tf_keras, translate(source, target)[0])
    x, y = numbers(2, 4), numbers(2, 4)
    cosine = (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
    np.testing.assert_allclose(outputs(live, [x, y])[0], cosine[:, None, None], atol=1e-6)


@pytest.mark.parametrize("target", ["keras2", "keras3"])
def test_a_sequential_that_begins_with_a_merge_is_functional(tf_keras, keras, target) -> None:
    def branch(name: str) -> dict[str, Any]:
        config = {**DENSE, "name": name, "output_dim": 3, "batch_input_shape": [None, 4]}
        return {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": config}]}

    merge = {"name": "merge", "mode": "sum", "mode_type": "raw", "layers": [branch("a"), branch("b")]}
    last = {"class_name": "Dense", "config": {**DENSE, "name": "c", "output_dim": 2}}
    config = [{"class_name": "Merge", "config": merge}, last]
    arrays = [numbers(4, 3), numbers(3), numbers(4, 3), numbers(3), numbers(3, 2), numbers(2)]
    source = LayerModel.from_json({"class_name": "Sequential", "keras_version": "1.2.2", "config": config}, arrays)
    model, changes, _ = translate(source, target)
    assert "Sequential with branches, or with a layer twice -> Functional: model" in changes
    live = loaded(keras if target == "keras3" else tf_keras, model)
    x, y = numbers(2, 4), numbers(2, 4)
    a, a_bias, b, b_bias, c, c_bias = arrays
    expected = (x @ a + a_bias + y @ b + b_bias) @ c + c_bias
    np.testing.assert_allclose(outputs(live, [x, y])[0], expected, atol=2e-6)


LOSSES = [
    ("BatchNormalization", (5,), 4, {"mode": 1, "epsilon": 1e-3, "axis": -1}, "layer: mode=1 adds epsilon"),
    (
        "BatchNormalization",
        (5,),
        4,
        {"mode": 2, "epsilon": 1e-3, "axis": -1},
        "layer: mode=2 normalizes by the batch's",
    ),
    ("SReLU", (5,), 4, {"shared_axes": [None]}, "layer: Keras 3 has no SReLU"),
]


@pytest.mark.parametrize(("class_name", "shape", "count", "config", "loss"), LOSSES)
def test_what_keras_3_cannot_say(class_name: str, shape: tuple[int, ...], count: int, config: Any, loss: str) -> None:
    model = keras_1(class_name, shape, [numbers(*shape) for _ in range(count)], **config)
    assert [line[: len(loss)] for line in translate(model, "keras3")[2]] == [loss]


# -- Keras 2 -----------------------------------------------------------------------------------------------------------


def sequential(version: str, *nodes: tuple[str, dict[str, Any]], shape: tuple[int, ...] = (4, 4, 2)) -> LayerModel:
    """A Sequential as a Keras 2 of some version writes it, without weights."""
    layers = [
        {"class_name": class_name, "config": {"name": f"l{number}", **config}}
        for number, (class_name, config) in enumerate(nodes)
    ]
    layers[0]["config"]["batch_input_shape"] = [None, *shape]  # type: ignore[index]
    config = {"name": "s", "layers": layers}
    return LayerModel.from_json({"class_name": "Sequential", "config": config, "keras_version": version})


def told(model: LayerModel, name: str) -> dict[str, Any]:
    """The arguments of a layer of a Sequential."""
    assert model.architecture is not None
    configs = [layer["config"] for layer in model.architecture["config"]["layers"]]
    return next(config for config in configs if config["name"] == name)


@pytest.mark.parametrize(
    ("version", "epsilon"),
    [("2.1.6", 1e-7), ("2.3.1", 1.001e-5), ("2.2.4-tf", 1.001e-5), ("2.11.0", 1.001e-5), ("2.12.0", 1e-7)],
)
def test_the_epsilon_of_images_is_the_one_that_counted(version: str, epsilon: float) -> None:
    model = sequential(version, ("BatchNormalization", {"axis": 3, "epsilon": 1e-7}))
    assert told(translate(model, "keras3")[0], "l0")["epsilon"] == epsilon


KERAS_2_LOSSES = [
    ("2.3.1", "UpSampling2D", {"size": 2, "interpolation": "bilinear"}, "it interpolates between the corners"),
    ("2.8.0", "UpSampling2D", {"size": 2, "interpolation": "area"}, "Keras 3 has no interpolation 'area'"),
    ("2.8.0", "Activation", {"activation": "sparse"}, None),
    ("2.3.1", "Activation", {"activation": "gelu"}, "gelu was somebody's own function"),
    ("2.8.0", "LocallyConnected2D", {"filters": 2, "kernel_size": 2}, "Keras 3 has no LocallyConnected2D"),
    ("2.8.0", "Conv2D", {"filters": 2, "kernel_size": 2, "somebodys": 3}, "Conv2D takes no somebodys in Keras 3"),
    ("2.13.0", "BatchNormalization", {"axis": [1, 2]}, "Keras 3 normalizes along one axis"),
    ("2.13.0", "BatchNormalization", {"axis": 3, "renorm": True}, "renorm: left out"),
    ("2.13.0", "RandomCrop", {"height": 2, "width": 2}, "outside of training RandomCrop resizes"),
]


@pytest.mark.parametrize(("version", "class_name", "config", "loss"), KERAS_2_LOSSES)
def test_what_is_lost_of_keras_2(version: str, class_name: str, config: dict[str, Any], loss: str | None) -> None:
    _, _, losses = translate(sequential(version, (class_name, config)), "keras3")
    if loss is None:
        assert losses == []
    else:
        assert [line for line in losses if line.startswith(f"l0: {loss}")]


def test_time_major_is_lost() -> None:
    config = {"units": 3, "recurrent_activation": "sigmoid", "time_major": True}
    model = sequential("2.8.0", ("LSTM", config), shape=(5, 4))
    assert translate(model, "keras3")[2] == [
        "l0: time_major=True has no counterpart in Keras 3, where samples come first: outputs differ"
    ]


def test_what_went_without_a_meaning_is_a_change() -> None:
    config = {"units": 3, "time_major": False, "implementation": 2, "recurrent_activation": "sigmoid"}
    _, changes, losses = translate(sequential("2.8.0", ("LSTM", config), shape=(5, 4)), "keras3")
    assert losses == []
    assert "time_major left out, since the layer does the same without it: l0" in changes
    assert "implementation left out, since the layer does the same without it: l0" in changes


def test_training_that_is_switched_on_for_good_is_lost(tf_keras) -> None:
    source = tf_keras.Input((4,))
    live = tf_keras.Model(source, tf_keras.layers.Dropout(0.5, name="drop")(source, training=True))
    _, _, losses = translate(LayerModel.from_json(live.to_json()), "keras3")
    assert losses == [
        "drop: training=True in its call is overridden by the mode of the whole model in Keras 3: outputs differ"
    ]


@pytest.mark.parametrize("source_class", ["BatchNormalizationV1", "BatchNormalizationV2"])
def test_names_of_implementations(source_class: str) -> None:
    model, changes, _ = translate(sequential("2.2.4-tf", (source_class, {"axis": [3]})), "keras3")
    assert f"{source_class} -> BatchNormalization: l0" in changes
    assert told(model, "l0")["axis"] == 3


def test_no_slash_is_left_in_names(keras) -> None:
    dense = {"units": 3, "activation": "relu"}
    model = sequential("2.8.0", ("Dense", {**dense, "name": "a/b"}), ("Dense", {**dense, "name": "a_b"}), shape=(4,))
    architecture = model.architecture
    weights = LayerModel.from_json(architecture, [numbers(4, 3), numbers(3), numbers(3, 3), numbers(3)])
    translated, changes, _ = translate(weights, "keras3")
    assert '"/" in names -> "_": a/b_input, a/b' in changes
    assert [layer.name for layer in loaded(keras, translated).layers] == ["a_b_", "a_b"]


CUDNN = [("CuDNNLSTM", 4, 8), ("CuDNNGRU", 3, 6)]


@pytest.mark.parametrize(("class_name", "gates", "biases"), CUDNN)
def test_layers_for_cudnn(keras, class_name: str, gates: int, biases: int) -> None:
    """Their arrays are turned as ``_convert_rnn_weights`` of tf_keras does it, which is asked here."""
    units = 3
    arrays = [numbers(4, gates * units), numbers(units, gates * units), numbers(biases * units)]
    config = {"units": units, "return_sequences": False, "stateful": False, "go_backwards": False}
    source = sequential("2.3.1", (class_name, config), shape=(5, 4))
    model, changes, losses = translate(LayerModel.from_json(source.architecture, arrays), "keras3")
    assert losses == []
    assert f"{class_name} -> {class_name.removeprefix('CuDNN')}: l0" in changes
    assert "weights: kernels and biases of cuDNN -> those of the plain layer: l0" in changes
    converter = pytest.importorskip("tf_keras.src.saving.legacy.hdf5_format")._convert_rnn_weights
    plain = pytest.importorskip("tf_keras").layers
    layer = plain.LSTM(units) if gates == 4 else plain.GRU(units)
    layer.build((None, 5, 4))
    for ours, theirs in zip(model.get_weights(), converter(layer, arrays), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert outputs(loaded(keras, model), [numbers(2, 5, 4)])[0].shape == (2, units)


def test_kernels_of_theano_are_turned_by_half_a_turn() -> None:
    kernel = numbers(3, 3, 2, 4)
    config = {"filters": 4, "kernel_size": [3, 3], "use_bias": False, "padding": "valid"}
    source = LayerModel.from_json(sequential("2.0.5", ("Conv2D", config)).architecture, [kernel])
    source.meta = {"keras_version": "2.0.5", "backend": "theano"}
    model, changes, losses = translate(source, "keras3")
    assert losses == []
    assert "weights: kernels of Theano, turned by half a turn: l0" in changes
    assert model.meta["backend"] == "tensorflow"
    np.testing.assert_array_equal(model.get_weights()[0], kernel[::-1, ::-1])


def test_theano_pads_otherwise() -> None:
    config = {"filters": 4, "kernel_size": [2, 2], "padding": "same"}
    source = sequential("2.0.5", ("Conv2D", config))
    source.meta = {"keras_version": "2.0.5", "backend": "theano"}
    assert any("Theano pads" in line for line in translate(source, "keras3")[2])
    whole = LayerModel.from_json(source.architecture, [numbers(2, 2, 2, 4), numbers(4)])
    whole.meta = source.meta
    assert any(line.startswith("Theano pads") and line.endswith(": l0") for line in lower(whole)[1])
    whole.architecture["config"]["layers"][-1]["config"]["strides"] = ["2", None]
    with pytest.raises(ModelioError):
        lower(whole)


@pytest.mark.parametrize(
    ("mask_zero", "joined", "said"),
    [
        (True, ["left", "right"], ["join: of inputs whose masks differ", "both: the outputs of masked steps"]),
        (True, ["left", "thin"], ["both: the outputs of masked steps"]),  # of one mask
        (False, ["left", "right"], []),
    ],
)
def test_masks_mean_something_else_in_keras_3(mask_zero: bool, joined: list[str], said: list[str]) -> None:
    """Merged masks: Keras 3.15 ``base_merge.py`` and ``concatenate.py`` say or, Keras 2.3.1 ``merge.py`` says and."""

    def node(class_name: str, name: str, inbound: list[str], **config: Any) -> dict[str, Any]:
        inbound_nodes = [[[source, 0, 0, {}] for source in inbound]] if inbound else []
        return {
            "class_name": class_name,
            "name": name,
            "config": {"name": name, "trainable": True, **config},
            "inbound_nodes": inbound_nodes,
        }

    table = {"input_dim": 7, "output_dim": 4, "mask_zero": mask_zero}
    inner = {
        "name": "gru",
        "units": 2,
        "return_sequences": True,
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
    }
    layers = [
        node("InputLayer", "a", [], batch_input_shape=[None, 6], dtype="float32"),
        node("InputLayer", "b", [], batch_input_shape=[None, 6], dtype="float32"),
        node("Embedding", "left", ["a"], **table),
        node("Embedding", "right", ["b"], **table),
        node("Dropout", "thin", ["left"], rate=0.5),
        node("Concatenate", "join", joined, axis=-1),
        node("Bidirectional", "both", ["join"], layer={"class_name": "GRU", "config": inner}, merge_mode="concat"),
    ]
    ends = {"input_layers": [["a", 0, 0], ["b", 0, 0]], "output_layers": [["both", 0, 0]]}
    architecture = {"class_name": "Model", "keras_version": "2.3.1", "config": {"name": "m", "layers": layers, **ends}}
    losses = translate(LayerModel(architecture, {}, "keras2", meta={"keras_version": "2.3.1"}), "keras3")[2]
    masked = [line for line in losses if "mask" in line]
    assert len(masked) == len(said)
    assert all(line.startswith(start) for line, start in zip(masked, said, strict=True))


def test_a_class_that_keras_3_does_not_have_speaks_no_keras_1() -> None:
    """What reads the target, modelio too, knows ``use_bias`` and ``shared_axes``, and takes "bias" for nothing."""
    local = {"name": "local", "nb_filter": 2, "filter_length": 2, "bias": False, "subsample_length": 1}
    nodes = [
        {"class_name": "LocallyConnected1D", "config": {**local, "batch_input_shape": [None, 5, 3]}},
        {"class_name": "SReLU", "config": {"name": "act", "t_left_init": "zero"}},
    ]
    architecture = {"class_name": "Sequential", "config": nodes, "keras_version": "1.2.2"}
    arrays = [np.ones((4, 6, 2), "float32"), *(np.ones((1, 2), "float32") for _ in range(4))]
    model, _, losses = translate(LayerModel.from_json(architecture, arrays), "keras3")
    assert len(losses) == 2  # the classes
    made = {layer.name: layer for layer in network_of(model.architecture, "keras3").layers}
    assert made["local"].config["use_bias"] is False
    assert "groups" not in model.architecture["config"]["layers"][1]["config"]
    assert list(made["act"].config["shared_axes"]) == [1]
    assert [array.shape for array in model.get_weights()] == [array.shape for array in arrays]


def test_vocabularies_of_tf_keras_are_arguments(tf_keras, keras) -> None:
    layer = tf_keras.layers.TextVectorization(output_sequence_length=3, name="vec")
    layer.adapt(["a b", "c a"])
    source = tf_keras.Input((1,), dtype="string")
    live = tf_keras.Model(source, layer(source))
    model, changes, losses = translate(LayerModel.from_json(live.to_json(), live.get_weights()), "keras3")
    assert losses == []
    assert "vocabulary: from the weights to the arguments: vec" in changes
    import tensorflow as tf

    words = tf.constant([["a c"], ["b x"]])
    np.testing.assert_array_equal(outputs(loaded(keras, model), [words])[0], outputs(live, [words])[0])


def test_one_variance_for_all(tf_keras, keras) -> None:
    source = tf_keras.Input((3,))
    layer = tf_keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=2.0, name="n")
    changes, losses = agree(tf_keras.Model(source, layer(source)), keras)
    assert losses == []
    assert "mean, variance: of one shape: n" in changes


# -- versions ----------------------------------------------------------------------------------------------------------


def test_no_younger_word_than_the_version(keras) -> None:
    layers = keras.layers
    source = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, name="conv")(source)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.GlobalAveragePooling2D(name="pool")(y)
    live = keras.Model(source, layers.Dense(2, name="dense")(y))
    model, _, losses = translate(LayerModel.from_json(live.to_json(), live.get_weights()), "keras2", (2, 3, 1))
    assert losses == []
    assert model.meta["keras_version"] == "2.3.1"
    assert model.architecture is not None
    assert model.architecture["class_name"] == "Model"
    words = {layer["name"]: layer["config"] for layer in model.architecture["config"]["layers"]}
    younger = {"groups", "keepdims", "ragged", "optional", "renorm", "synchronized"}
    assert all(younger.isdisjoint(config) for config in words.values())
    assert words["conv"]["kernel_initializer"]["class_name"] == "VarianceScaling"


@pytest.mark.parametrize(
    ("layer", "config", "loss"),
    [
        ("LayerNormalization", {"axis": -1}, "l0: LayerNormalization is younger than Keras 2.3.1"),
        ("Conv2D", {"filters": 4, "kernel_size": 2, "groups": 2}, "l0: groups=2 is younger than Keras 2.3.1"),
        ("Activation", {"activation": "hard_silu"}, "l0: Keras 2 has no activation hard_silu; nothing makes up for it"),
        ("BatchNormalization", {"epsilon": 1e-7}, "l0: the target takes no epsilon below 1.001e-05 for images"),
    ],
)
def test_what_is_too_young(layer: str, config: dict[str, Any], loss: str) -> None:
    nodes = [
        {
            "module": "keras.layers",
            "class_name": "InputLayer",
            "config": {"batch_shape": [None, 4, 4, 4], "name": "i", "dtype": "float32"},
        },
        {"module": "keras.layers", "class_name": layer, "config": {"name": "l0", **config}},
    ]
    source = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": nodes}}
    losses = translate(LayerModel.from_json(source), "keras2", (2, 3, 1))[2]
    assert [line[: len(loss)] for line in losses] == [loss]


def test_early_keras_3_has_names_for_dtypes() -> None:
    model = modelio.read(case("keras-2.3.1_tf-1.15.5/nested") / "model.h5")
    translated = translate(model, "keras3", (3, 0))[0]
    assert "DTypePolicy" not in translated.to_json()
    assert "DTypePolicy" in translate(model, "keras3")[0].to_json()


def test_the_layers_of_keras_2_before_2_2_3_are_a_list() -> None:
    model = modelio.read(case("keras-3.15.1_tf-2.21.0/mlp") / "model.h5")
    translated = translate(model, "keras2", (2, 0, 5))[0]
    assert translated.architecture is not None
    assert isinstance(translated.architecture["config"], list)
    assert [array.shape for array in translated.get_weights()] == [array.shape for array in model.get_weights()]


# -- what nobody translates --------------------------------------------------------------------------------------------


def test_custom_layers_pass_untouched(tf_keras, keras) -> None:
    @tf_keras.utils.register_keras_serializable("own")
    class Scale(tf_keras.layers.Layer):
        def __init__(self, factor: float, note: Any = None, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.factor, self.note = factor, note

        def build(self, shape: Any) -> None:
            self.weight = self.add_weight(name="weight", shape=(shape[-1],))

        def call(self, x: Any) -> Any:
            return x * self.weight * self.factor

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "factor": self.factor, "note": self.note}

    source = tf_keras.Input((4,))
    made = Scale(2.0, {"alpha": [1, {"groups": 1}]}, name="scale")(source)
    live = tf_keras.Model(source, tf_keras.layers.Dense(2)(made))
    given = LayerModel.from_json(live.to_json(), live.get_weights())
    model, changes, losses = translate(given, "keras3")
    assert losses == []
    assert "not translated: Scale, which is none of Keras' own: scale" in changes
    assert model.architecture is not None
    assert given.architecture is not None
    before, after = (
        next(layer for layer in found["config"]["layers"] if layer["name"] == "scale")
        for found in (given.architecture, model.architecture)
    )
    assert after["config"] == before["config"]
    assert after["registered_name"] == "own>Scale"
    (weight,) = model.weights["scale"].values()
    np.testing.assert_array_equal(weight.numpy(), live.layers[1].get_weights()[0])


@pytest.mark.parametrize(("here", "there"), [("tf_keras", "keras"), ("keras", "tf_keras")])
def test_a_lambda_of_this_python_runs(request, here: str, there: str) -> None:
    first, second = request.getfixturevalue(here), request.getfixturevalue(there)
    source = first.Input((4,))
    live = first.Model(source, first.layers.Lambda(lambda x: x * 3.0 + 1.0, name="f", output_shape=(4,))(source))
    model, changes, losses = translate(LayerModel.from_json(live.to_json()), "keras3" if there == "keras" else "keras2")
    assert losses == []
    assert "not translated: the code of Lambda, which runs where it was written: f" in changes
    with second.src.saving.serialization_lib.SafeModeScope(False):
        built = second.models.model_from_json(model.to_json())
    x = numbers(2, 4)
    np.testing.assert_allclose(outputs(built, [x])[0], 3 * x + 1, rtol=1e-6)


# -- who calls whom ----------------------------------------------------------------------------------------------------


def _shared(framework: Any, kind: str) -> list[Any]:
    """Models that call a model several times, and name some of these calls as outputs."""
    layers = framework.layers
    if kind == "Sequential":
        inner = framework.Sequential([framework.Input((4,)), layers.Dense(4, name="d")], name="inner")
    else:
        start = framework.Input((4,), name="i")
        inner = framework.Model(start, layers.Dense(4, name="d")(start), name="inner")
    x, y = framework.Input((4,), name="x"), framework.Input((4,), name="y")
    a, b = inner(x), inner(y)
    return [
        framework.Model([x, y], [b, layers.Dense(2, name="after")(a)]),
        framework.Model(x, [a, layers.Dense(2, name="after")(a)]),
        framework.Model([x, y], [a, layers.Subtract(name="less")([b, a])]),
        framework.Model([x, y], layers.Subtract(name="less")([inner(b), a])),
    ]


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("kind", ["Sequential", "Functional"])
@pytest.mark.parametrize(("here", "there"), [("tf_keras", "keras"), ("keras", "tf_keras")])
def test_calls_of_a_model_in_a_model(request, here: str, there: str, kind: str, index: int) -> None:
    first, second = request.getfixturevalue(here), request.getfixturevalue(there)
    agree(_shared(first, kind)[index], second)


def agree(live: Any, other: Any, tolerance: float = TOLERANCE) -> tuple[list[str], list[str]]:
    """Another framework gives the same outputs for a translated model; returns its changes and losses."""
    import tensorflow as tf

    rng = np.random.default_rng(11)
    arrays = [
        (np.abs(rng.normal(size=array.shape)) if array.ndim < 2 else rng.normal(size=array.shape)).astype(array.dtype)
        if array.dtype.kind == "f"
        else array
        for array in live.get_weights()
    ]
    if arrays:
        live.set_weights(arrays)
    for layer in live.layers:
        if type(layer).__name__ == "Normalization":
            layer.finalize_state()
    inputs = []
    for tensor in live.inputs:
        dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
        shape = [2 if size is None else size for size in tensor.shape]
        drawn = {"string": lambda s: rng.choice(["a", "b", "c a"], s), "bool": lambda s: rng.integers(0, 2, s) > 0}
        usual = (lambda s: rng.integers(0, 6, s)) if "int" in dtype else (lambda s: rng.normal(size=s))
        inputs.append(tf.constant(drawn.get(dtype, usual)(shape), dtype=dtype))
    target = "keras3" if other.__name__ == "keras" else "keras2"
    model, changes, losses = translate(LayerModel.from_json(live.to_json(), live.get_weights()), target)
    for wanted, got in zip(outputs(live, inputs), outputs(loaded(other, model), inputs), strict=True):
        assert wanted.shape == got.shape
        if wanted.dtype.kind not in "OSU":
            np.testing.assert_allclose(got.astype("float64"), wanted.astype("float64"), atol=tolerance, rtol=1e-4)
    return changes, losses


def test_names_are_scopes_to_keras_2(keras, tf_keras) -> None:
    """Keras 3 takes any name but one with a slash; Keras 2 opens a scope of TensorFlow of that name."""
    x = keras.Input((4,), name="x 1")
    names = ["a b.c-d", "a_b.c-d", "_first", "größe"]
    y = x
    for name in names:
        y = keras.layers.Dense(3, activation="relu", name=name)(y)
    model = keras.Model(x, y)
    translated, changes, losses = translate(modelio.from_keras(model), "keras2")
    assert not losses
    made = loaded(tf_keras, translated)
    assert [layer.name for layer in made.layers] == ["x_1", "a_b.c-d_", "a_b.c-d", "x_first", "gr__e"]
    assert 'what TensorFlow cannot have in names -> "_": x 1, a b.c-d, _first, größe' in changes
    asked = np.ones((2, 4), "float32")
    np.testing.assert_allclose(made(asked), model(asked), rtol=1e-5)
