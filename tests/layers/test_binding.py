"""Stored arrays find their layers: the version's order, the names where they know better, the layouts of old files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from modelio.errors import ReadError
from modelio.formats import keras_h5
from modelio.layers.binding import bind, from_arrays, get_weights
from modelio.layers.network import Layer, network_of
from modelio.model import LayerModel, Tensor
from modelio.source import Source
from tests.corpus import Case, case, cases, record, strays

Array = npt.NDArray[Any]


def _whole(path: Any) -> LayerModel:
    model = keras_h5.read(Source.of(path))
    assert isinstance(model, LayerModel)
    return model


def _listed(case: Case) -> list[Array]:
    with np.load(case / "weights_list.npz") as stored:
        return [stored[name] for name in sorted(stored)]


def _bound(model: LayerModel) -> dict[str, Layer]:
    assert model.architecture is not None
    network = bind(network_of(model.architecture, model.dialect, model.meta), model)
    return {layer.path: layer for layer in network.walk()}


# -- real files --------------------------------------------------------------------------------------------------------

BOTH = cases(file=("model.h5", "weights_list.npz", "architecture.json"))
WHOLE = [case for case in BOTH if case.model != "textvec"]  # tf_keras stopped in the middle of those files


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_get_weights_is_what_the_framework_answered(case: Case) -> None:
    ours, theirs = get_weights(_whole(case / "model.h5")), _listed(case)
    assert [array.shape for array in ours] == [array.shape for array in theirs]
    for mine, array in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, array)


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_from_arrays_is_what_the_framework_stored(case: Case) -> None:
    architecture = json.loads((case / "architecture.json").read_text())
    ours = from_arrays(architecture, _listed(case), meta={"keras_version": record(case)["keras"]})
    for layer, group in _whole(case / "model.h5").weights.items():
        assert len(ours[layer]) == len(group)
        for mine, theirs in zip(ours[layer].values(), group.values(), strict=True):
            np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_roles_are_what_the_names_say(case: Case) -> None:
    """The names of Keras 2 and 3 end in the role."""
    model = _whole(case / "model.h5")
    if model.dialect == "keras1":
        pytest.skip("names of Keras 1 are not roles")
    stored = {id(tensor): name for group in model.weights.values() for name, tensor in group.items()}
    bound = 0
    for layer in _bound(model).values():
        for role, tensor in layer.weights.items():
            last = stored[id(tensor)].partition(":")[0].rpartition("/")[2]
            assert last == role.rpartition("/")[2] or (last, role) == ("kernel", "depthwise_kernel")
            bound += 1
    assert bound == len(stored)


@pytest.mark.parametrize("stray", strays(kind="Keras HDF5 whole-model"), ids=str)
def test_files_of_other_projects_fit_their_architectures(stray: Any) -> None:
    model = _whole(stray.path)
    roles = sum(len(layer.weights) for layer in _bound(model).values())
    assert roles == sum(len(group) for group in model.weights.values()) or model.dialect == "keras1"


def test_contrib_keras_creates_beta_first() -> None:
    model = _whole(case("contrib-keras_tf-1.2.1/nested") / "model.h5")
    names = [name.rpartition("/")[2] for name in model.weights["encoder"]]
    assert names[2:4] == ["beta:0", "gamma:0"]
    norm = _bound(model)["encoder/enc_bn"]
    assert list(norm.weights) == ["gamma", "beta", "moving_mean", "moving_variance"]
    np.testing.assert_array_equal(norm.weights["beta"].numpy(), list(model.weights["encoder"].values())[2].numpy())


# -- order and names ---------------------------------------------------------------------------------------------------


def _numbered(*shapes: tuple[int, ...]) -> list[Array]:
    return [np.full(shape, number, np.float32) for number, shape in enumerate(shapes)]


def _sequential(*layers: tuple[str, Mapping[str, Any]], version: str = "2.2.0", **more: Any) -> dict[str, Any]:
    nodes = [{"class_name": name, "config": dict(config)} for name, config in layers]
    return {"class_name": "Sequential", "keras_version": version, "config": nodes, **more}


INNER = _sequential(
    ("BatchNormalization", {"name": "norm", "batch_input_shape": [None, 3]}), ("Dense", {"name": "dense", "units": 2})
)
OUTER = _sequential(("Sequential", {}), ("Dense", {"name": "end", "units": 1}))
OUTER["config"][0] = {"class_name": "Sequential", "name": "inner", "config": INNER["config"]}
ROLES = ["gamma", "beta", "kernel", "bias", "moving_mean", "moving_variance"]
SHAPES = {"gamma": (3,), "beta": (3,), "kernel": (3, 2), "bias": (2,), "moving_mean": (3,), "moving_variance": (3,)}


@pytest.mark.parametrize(
    "order",
    [
        ["norm/gamma", "norm/beta", "dense/kernel", "dense/bias", "norm/moving_mean", "norm/moving_variance"],
        ["norm/beta", "norm/gamma", "dense/kernel", "dense/bias", "norm/moving_mean", "norm/moving_variance"],
        ["norm/gamma", "norm/beta", "norm/moving_mean", "norm/moving_variance", "dense/kernel", "dense/bias"],
        [
            "norm/gamma_1",
            "norm/beta_1",
            "norm/moving_mean_1",
            "norm/moving_variance_1",
            "dense/kernel_1",
            "dense/bias_1",
        ],
    ],
    ids=["trained first", "beta first", "layer by layer", "with numbers"],
)
def test_names_tell_the_order(order: list[str]) -> None:
    roles = [name.rpartition("/")[2].removesuffix("_1") for name in order]
    arrays = {
        f"{name}:0": np.full(SHAPES[role], number) for number, (name, role) in enumerate(zip(order, roles, strict=True))
    }
    layers = _bound(
        _model(OUTER, {"inner": arrays, "end": {"end/kernel:0": np.ones((2, 1)), "end/bias:0": np.ones(1)}})
    )
    for layer in ("norm", "dense"):
        for role, tensor in layers[f"inner/{layer}"].weights.items():
            assert tensor.numpy().flat[0] == roles.index(role)


def test_without_names_the_place_decides() -> None:
    arrays = {f"param_{number}": np.full(SHAPES[role], number) for number, role in enumerate(ROLES)}
    layers = _bound(_model(OUTER, {"inner": arrays, "end": {"param_0": np.ones((2, 1)), "param_1": np.ones(1)}}))
    assert [tensor.numpy().flat[0] for tensor in layers["inner/norm"].weights.values()] == [0, 1, 4, 5]


def test_a_frozen_layer_inside_comes_last() -> None:
    frozen = json.loads(json.dumps(OUTER))
    frozen["config"][0]["config"][0]["config"]["trainable"] = False
    shapes = [SHAPES[role] for role in ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")]
    arrays = {f"param_{number}": array for number, array in enumerate(_numbered(*shapes))}
    layers = _bound(_model(frozen, {"inner": arrays, "end": {"param_0": np.ones((2, 1)), "param_1": np.ones(1)}}))
    assert [tensor.numpy().flat[0] for tensor in layers["inner/norm"].weights.values()] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.2.2", ["gamma", "beta", "moving_mean", "moving_variance", "kernel", "bias"]),  # models.py flattened_layers
        ("2.0.5", ["gamma", "beta", "moving_mean", "moving_variance", "kernel", "bias"]),  # models.py Sequential.add
        ("2.2.4", ["gamma", "beta", "kernel", "bias", "moving_mean", "moving_variance"]),
        ("2.3.1", ["gamma", "beta", "kernel", "bias", "moving_mean", "moving_variance"]),
        ("2.2.4-tf", ["gamma", "beta", "moving_mean", "moving_variance", "kernel", "bias"]),
        ("2.15.0", ["gamma", "beta", "moving_mean", "moving_variance", "kernel", "bias"]),
        ("3.5.0", ["gamma", "beta", "moving_mean", "moving_variance", "kernel", "bias"]),
    ],
)
def test_the_order_of_get_weights_follows_the_version(version: str, expected: list[str]) -> None:
    architecture = {**OUTER, "keras_version": version}
    arrays = _numbered(*(SHAPES[role] for role in expected), (2, 1), (1,))
    weights = from_arrays(architecture, arrays)
    model = _model(architecture, weights)
    layers = _bound(model)
    for layer in ("norm", "dense"):
        for role, tensor in layers[f"inner/{layer}"].weights.items():
            assert tensor.numpy().flat[0] == expected.index(role)
    assert [array.flat[0] for array in get_weights(model)] == list(range(8))


def test_layers_by_place_where_their_names_differ() -> None:
    """Keras numbers layers through a process, so the names of two files of one model differ."""
    architecture = _sequential(
        ("Dense", {"name": "dense_7", "units": 2, "batch_input_shape": [None, 3]}),
        ("Activation", {"name": "activation_3", "activation": "tanh"}),
        ("Dense", {"name": "dense_8", "units": 1}),
    )
    groups = {
        "dense_1": {"dense_1/kernel:0": np.ones((3, 2)), "dense_1/bias:0": np.ones(2)},
        "activation_1": {},
        "dense_2": {"dense_2/kernel:0": np.ones((2, 1)), "dense_2/bias:0": np.ones(1)},
    }
    layers = _bound(_model(architecture, groups))
    assert layers["dense_8"].weights["kernel"].shape == (2, 1)
    numbered = {"layer_0": groups["dense_1"], "layer_1": {}, "layer_2": groups["dense_2"]}  # Keras 0.x
    assert _bound(_model(architecture, numbered))["dense_8"].weights["kernel"].shape == (2, 1)


def test_a_custom_layer_keeps_its_own_words() -> None:
    architecture = _sequential(
        ("Own", {"name": "own", "batch_input_shape": [None, 3]}), ("Dense", {"name": "dense", "units": 2})
    )
    groups = {
        "own": {"own/left/scale:0": np.ones(3), "own/right/scale:0": np.ones(4)},
        "dense": {"dense/kernel:0": np.ones((3, 2)), "dense/bias:0": np.ones(2)},
    }
    model = _model(architecture, groups)
    assert list(_bound(model)["own"].weights) == ["own/left/scale:0", "own/right/scale:0"]
    assert [array.shape for array in get_weights(model)] == [(3,), (4,), (3, 2), (2,)]
    again = from_arrays(architecture, get_weights(model))
    assert [len(group) for group in again.values()] == [0, 2, 2]


def test_binding_reads_nothing() -> None:
    def forbidden() -> Array:
        raise AssertionError("a weight was read")

    shapes = {"lstm_W_i": (3, 2), "lstm_U_i": (2, 2), "lstm_b_i": (2,)}
    group = {
        name.replace("_i", f"_{gate}"): Tensor(np.float32, shape, forbidden)
        for gate in "icfo"
        for name, shape in shapes.items()
    }
    architecture = _sequential(
        ("LSTM", {"name": "lstm", "output_dim": 2, "batch_input_shape": [None, 4, 3]}), version="1.2.2"
    )
    layer = _bound(LayerModel(architecture, {"lstm": group}, "keras1"))["lstm"]
    assert {role: tensor.shape for role, tensor in layer.weights.items()} == {
        "kernel": (3, 8),
        "recurrent_kernel": (2, 8),
        "bias": (8,),
    }


# -- layouts of old files ----------------------------------------------------------------------------------------------


def _model(architecture: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]], **meta: str) -> LayerModel:
    weights = {
        layer: {name: array if isinstance(array, Tensor) else Tensor.of(array) for name, array in group.items()}
        for layer, group in groups.items()
    }
    dialect = network_of(architecture).layers[-1].dialect
    return LayerModel(architecture, weights, dialect, meta=meta)


def _one(
    class_name: str, config: Mapping[str, Any], shape: list[int], arrays: list[Array], version: str, **more: str
) -> Layer:
    architecture = _sequential(
        (class_name, {"name": "layer", "batch_input_shape": [None, *shape], **config}), version=version
    )
    return _bound(_model(architecture, {"layer": {f"param_{n}": a for n, a in enumerate(arrays)}}, **more))["layer"]


RANDOM = np.random.default_rng(1)


def _array(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


def test_keras_1_has_a_matrix_for_each_gate() -> None:
    arrays = [_array(*shape) for _ in "icfo" for shape in ((3, 2), (2, 2), (2,))]
    lstm = _one("LSTM", {"output_dim": 2}, [4, 3], arrays, "1.2.2")
    for place, gate in enumerate("ifco"):  # the order since Keras 2
        stored = "icfo".index(gate) * 3
        columns = slice(2 * place, 2 * place + 2)
        np.testing.assert_array_equal(lstm.weights["kernel"].numpy()[:, columns], arrays[stored])
        np.testing.assert_array_equal(lstm.weights["recurrent_kernel"].numpy()[:, columns], arrays[stored + 1])
        np.testing.assert_array_equal(lstm.weights["bias"].numpy()[columns], arrays[stored + 2])
    gru = _one("GRU", {"output_dim": 2}, [4, 3], arrays[:9], "1.2.2")
    np.testing.assert_array_equal(gru.weights["kernel"].numpy(), np.hstack(arrays[0:9:3]))
    together = [_array(3, 8), _array(2, 8), _array(8)]
    fast = _one("LSTM", {"output_dim": 2, "consume_less": "gpu"}, [4, 3], together, "1.2.2")
    np.testing.assert_array_equal(fast.weights["kernel"].numpy(), together[0])


IMAGE = {"nb_filter": 5, "nb_row": 3, "nb_col": 2}


@pytest.mark.parametrize(
    ("class_name", "config", "shape", "stored", "axes"),
    [
        ("Convolution2D", {**IMAGE, "dim_ordering": "tf"}, [9, 9, 4], (3, 2, 4, 5), (0, 1, 2, 3)),
        ("Convolution2D", {**IMAGE, "dim_ordering": "th"}, [4, 9, 9], (5, 4, 3, 2), (2, 3, 1, 0)),
        ("Deconvolution2D", {**IMAGE, "dim_ordering": "tf", "output_shape": [None, 11, 10, 5]}, [9, 9, 4], (3, 2, 4, 5), (0, 1, 3, 2)),
        ("Deconvolution2D", {**IMAGE, "dim_ordering": "th", "output_shape": [None, 5, 11, 10]}, [4, 9, 9], (5, 4, 3, 2), (2, 3, 0, 1)),
        (
            "Convolution3D",
            {"nb_filter": 5, "kernel_dim1": 1, "kernel_dim2": 2, "kernel_dim3": 3, "dim_ordering": "th"},
            [4, 9, 9, 9],
            (5, 4, 1, 2, 3),
            (2, 3, 4, 1, 0),
        ),
    ],
)  # fmt: skip
def test_keras_1_turns_kernels_with_the_image(class_name: str, config: Any, shape: Any, stored: Any, axes: Any) -> None:
    kernel = _array(*stored)
    layer = _one(class_name, config, shape, [kernel, _array(5)], "1.2.2")
    np.testing.assert_array_equal(layer.weights["kernel"].numpy(), kernel.transpose(axes))
    assert layer.weights["kernel"].shape == kernel.transpose(axes).shape


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (3, 2, 0, 1)], ids=["1.2", "before"])
def test_keras_1_convolves_series_as_images(axes: tuple[int, ...]) -> None:
    kernel = _array(3, 1, 4, 5)
    layer = _one(
        "Convolution1D", {"nb_filter": 5, "filter_length": 3}, [9, 4], [kernel.transpose(axes), _array(5)], "1.2.2"
    )
    np.testing.assert_array_equal(layer.weights["kernel"].numpy(), kernel[:, 0])


def test_keras_0_keeps_deviations() -> None:
    architecture = {
        "name": "Sequential",
        "layers": [{"name": "BatchNormalization", "epsilon": 0.1, "input_shape": [3]}],
    }
    deviation = np.array([0.5, 1, 2], np.float32)
    arrays = [np.ones(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32), deviation]
    model = LayerModel(architecture, {"layer_0": {f"param_{n}": Tensor.of(a) for n, a in enumerate(arrays)}}, "keras1")
    layer = _bound(model)["batchnormalization_1"]
    variance, epsilon = layer.weights["moving_variance"].numpy(), layer.config["epsilon"]
    np.testing.assert_allclose(np.sqrt(variance + epsilon), deviation + 0.1, rtol=1e-6)


@pytest.mark.parametrize(("sizes", "axes"), [((1, 1, 3), (1, 2)), ((1, 5, 3), (1,)), ((4, 5, 3), None)])
@pytest.mark.parametrize("class_name", ["PReLU", "SReLU", "ParametricSoftplus"])
def test_keras_1_does_not_note_which_axes_share(class_name: str, sizes: Any, axes: Any) -> None:
    """Keras 1.2.2 ``layers/advanced_activations.py``: no get_config there has ``shared_axes``."""
    config = {"name": "act", "batch_input_shape": [None, 4, 5, 3]}
    layer = {"class_name": class_name, "config": config}
    architecture = {"class_name": "Sequential", "config": [layer], "keras_version": "1.2.2"}
    count = {"PReLU": 1, "SReLU": 4, "ParametricSoftplus": 2}[class_name]
    arrays = {f"param_{number}": np.ones(sizes, np.float32) for number in range(count)}
    assert _bound(_model(architecture, {"act": arrays}))["act"].config["shared_axes"] == axes


def test_theano_convolves() -> None:
    kernel = _array(3, 2, 4, 5)
    layer = _one(
        "Conv2D", {"filters": 5, "kernel_size": [3, 2]}, [9, 9, 4], [kernel, _array(5)], "2.1.0", backend="theano"
    )
    np.testing.assert_array_equal(layer.weights["kernel"].numpy(), kernel[::-1, ::-1])


def test_cudnn() -> None:
    kernel, recurrent, bias = _array(3, 8), _array(2, 8), _array(16)
    lstm = _one("CuDNNLSTM", {"units": 2}, [4, 3], [kernel, recurrent, bias], "2.2.4")
    assert (lstm.class_name, lstm.config["recurrent_activation"]) == ("LSTM", "sigmoid")
    first = kernel[:, :2]  # cuDNN reads these numbers as (units, features)
    np.testing.assert_array_equal(lstm.weights["kernel"].numpy()[:, :2], first.reshape(2, 3).T)
    np.testing.assert_array_equal(lstm.weights["recurrent_kernel"].numpy()[:, 2:4], recurrent[:, 2:4].T)
    np.testing.assert_array_equal(lstm.weights["bias"].numpy(), bias[:8] + bias[8:])
    gru = _one("CuDNNGRU", {"units": 2}, [4, 3], [_array(3, 6), _array(2, 6), bias[:12]], "2.2.4")
    assert gru.config["reset_after"] is True
    np.testing.assert_array_equal(gru.weights["bias"].numpy(), [bias[:6], bias[6:12]])


# -- faults ------------------------------------------------------------------------------------------------------------

TWO = _sequential(
    ("Dense", {"name": "a", "units": 2, "batch_input_shape": [None, 3]}), ("Dense", {"name": "b", "units": 1})
)
A = {"a/kernel:0": np.ones((3, 2)), "a/bias:0": np.ones(2)}
B = {"b/kernel:0": np.ones((2, 1)), "b/bias:0": np.ones(1)}


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (
            {"a": A, "b": {"b/kernel:0": np.ones((5, 1)), "b/bias:0": np.ones(1)}},
            "the weights do not fit the architecture: b/kernel has shape (5, 1), expected (2, 1)",
        ),
        (
            {"a": A, "b": {"b/kernel:0": np.ones((2, 1))}},
            "the weights do not fit the architecture: b has 2 weights (kernel, bias), the file has 1 (b/kernel:0)",
        ),
        (
            {"a": {**A, "a/more:0": np.ones(2)}, "b": B},
            "the weights do not fit the architecture: a has 2 weights (kernel, bias), "
            "the file has 3 (a/kernel:0, a/bias:0, a/more:0)",
        ),
        ({"a": A}, "the weights do not fit the architecture: b has 2 weights (kernel, bias), the file has 0 (none)"),
        (
            {"a": A, "b": B, "c": B},
            "the file has weights of 3 layers, the model has 2 layers with weights; "
            "in the file alone: c; in the model alone: none",
        ),
        (
            {"a": {"a/kernel:0": np.ones((4, 2)), "a/bias:0": np.ones(7)}, "b": {}},
            "the weights do not fit the architecture: a/kernel has shape (4, 2), expected (3, 2); "
            "a/bias has shape (7,), expected (2); b has 2 weights (kernel, bias), the file has 0 (none)",
        ),
    ],
    ids=["shape", "missing", "left over", "layer missing", "layer left over", "all at once"],
)
def test_weights_that_do_not_fit(groups: Any, sentence: str) -> None:
    with pytest.raises(ReadError) as caught:
        _bound(_model(TWO, groups))
    assert caught.value.reason == sentence


@pytest.mark.parametrize("count", [0, 3, 5])
def test_another_number_of_arrays(count: int) -> None:
    with pytest.raises(ReadError, match=f"{count} arrays are given, the model has 4 weights"):
        from_arrays(TWO, [np.ones(1)] * count)


def test_arrays_in_a_mapping() -> None:
    arrays = [*A.values(), *B.values()]
    plain = from_arrays(TWO, arrays)
    for given in (
        {f"arr_{number}": array for number, array in enumerate(arrays)},
        {"a": list(A.values()), "b": list(B.values())},
        {"a": A, "b": B},
    ):
        weights = from_arrays(TWO, given)
        assert {layer: list(group) for layer, group in weights.items()} == {"a_input": [], "a": list(A), "b": list(B)}
        assert [t.shape for g in weights.values() for t in g.values()] == [
            t.shape for g in plain.values() for t in g.values()
        ]
