"""Weights of a graph, matched to the layers of an architecture: what is told apart, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelio
from modelio.errors import ConversionError, ReadError
from modelio.layers.binding import bind
from modelio.layers.network import network_of
from modelio.lifting import lift
from modelio.model import GraphModel, LayerModel, Tensor
from modelio.wire import messages
from modelio.wire.dtypes import numpy_to_tensor, tensor_to_numpy
from tests.corpus import MODELS, Case, cases, strays


def architecture_of(case: Case) -> LayerModel:
    """The architecture alone, with what the JSON of Keras 3 leaves out."""
    model = modelio.read(case / "architecture.json")
    assert isinstance(model, LayerModel)
    if "keras_version" not in model.meta:
        model.meta = {"keras_version": "3.15.1", "backend": "tensorflow"}
    return model


def assert_are(found: LayerModel, case: Case) -> None:
    """The weights are those of ``model.get_weights()``, bit for bit."""
    with np.load(case / "weights_list.npz", allow_pickle=True) as stored:
        wanted = [stored[name] for name in sorted(stored.files)]
    arrays = found.get_weights()
    assert len(arrays) == len(wanted)
    for mine, theirs in zip(arrays, wanted, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


# -- real files --------------------------------------------------------------------------------------------------------

FOLDED = {"norm_pre": "missing norm/mean, norm/variance, norm/count", "textvec": "missing vec/vocabulary"}
"""What TensorFlow 2's freezing leaves out: tables, and what a layer computes with while the model is traced."""


GRAPHS = [
    pytest.param(case, kind, id=f"{case}/{kind}")
    for case in cases(file=("architecture.json", "weights_list.npz"))
    for kind in ("frozen.pb", "saved_model_tf1", "checkpoint_tf1", "saved_model")
    if (case / kind).exists()
]


@pytest.mark.parametrize(("case", "kind"), GRAPHS)
def test_the_weights_of_a_graph_are_those_of_get_weights(case: Case, kind: str) -> None:
    model, architecture = modelio.read(case / kind), architecture_of(case)
    assert isinstance(model, GraphModel)
    if kind == "frozen.pb" and case.model in FOLDED and (case.model, architecture.dialect) != ("textvec", "keras3"):
        with pytest.raises(ReadError, match=FOLDED[case.model]):
            lift(model, architecture)
        return
    found, changes = lift(model, architecture)
    assert_are(found, case)
    if kind != "frozen.pb" and "contrib" not in case.version:
        assert changes == []  # all by name


@pytest.mark.parametrize("case", cases(version="*tf-1*", file=("model.h5", "frozen.pb")))
def test_with_the_whole_file_as_architecture_all_names_are_its_own(case: Case) -> None:
    wanted = modelio.read(case / "model.h5")
    found, changes = lift(modelio.read(case / "frozen.pb"), wanted)
    assert changes == []
    for layer, group in wanted.weights.items():
        assert list(found.weights[layer]) == list(group)
        for name, tensor in group.items():
            assert found.weights[layer][name].numpy().tobytes() == tensor.numpy().tobytes()


@pytest.mark.parametrize("case", cases(version="keras-2.3.1*", file=("architecture.json", "frozen.pb")))
def test_convert_writes_a_keras_file_from_a_frozen_graph(case: Case, tmp_path: Path) -> None:
    target = tmp_path / "model.h5"
    done = modelio.convert(case / "frozen.pb", target, architecture=case / "architecture.json")
    assert done.route == ("frozen-graph", "lift", "keras-h5")
    assert_are(modelio.read(target), case)


def of_the_pair(pattern: str) -> list[Path]:
    """Files of the project whose frozen graph was made from one of its Keras files."""
    try:
        return [stray.path for stray in strays(name=f"bitbionic+keras-to-tensorflow/{pattern}")]
    except LookupError:
        pytest.skip("the pair is in the whole collection alone")


def test_the_graph_that_was_frozen_from_one_epoch_is_not_another_epochs() -> None:
    equal = {}
    (graph,) = of_the_pair("*.pb")
    for path in of_the_pair("*.h5"):
        wanted = modelio.read(path)
        found, changes = lift(modelio.read(graph), wanted)
        assert changes == []
        equal[path.name] = all(map(np.array_equal, found.get_weights(), wanted.get_weights()))
    assert any(equal.values())
    assert [name for name, is_equal in equal.items() if is_equal] == [name for name in equal if "e-356" not in name]


def test_its_weights_are_those_of_its_layers() -> None:
    (graph,) = of_the_pair("*.pb")
    model = modelio.read(graph)
    shapes = {
        "firstConv2D": (3, 32),
        "secondConv2D": (32, 16),
        "thirdc2": (16, 8),
        "fc256": (1152, 256),
        "finalfc": (256, 5),
    }
    nodes: list[dict[str, Any]] = [
        {"class_name": "Conv2D", "config": {"name": name, "filters": shapes[name][1], "kernel_size": [2, 2]}}
        for name in ("firstConv2D", "secondConv2D", "thirdc2")
    ]
    nodes[0]["config"]["batch_input_shape"] = [None, None, None, 3]
    nodes += [{"class_name": "Flatten", "config": {"name": "flat"}}, dense("fc256", 256), dense("finalfc", 5)]
    found, changes = lift(model, sequential(*nodes))
    assert changes == []
    for layer, (inputs, outputs) in shapes.items():
        kernel, bias = found.weights[layer].values()
        assert list(found.weights[layer]) == [f"{layer}/kernel:0", f"{layer}/bias:0"]
        assert (kernel.shape[-2:], bias.shape) == ((inputs, outputs), (outputs,))
        (node,) = [node for node in model.graph.node if node.name == f"{layer}/bias"]
        np.testing.assert_array_equal(bias.numpy(), tensor_to_numpy(node.attr["value"].tensor, where=None))
    # A model with one layer more is another one.
    with pytest.raises(ReadError, match=r"missing more/kernel, more/bias$"):
        lift(model, sequential(*nodes, dense("more", 2)))


# -- names -------------------------------------------------------------------------------------------------------------


def frozen(arrays: Mapping[str, Any]) -> GraphModel:
    """A graph of constants, each with a reader as convert_variables_to_constants leaves it."""
    graph = messages.GraphDef()
    for name, array in arrays.items():
        node = graph.node.add(name=name, op="Const")
        values = np.asarray(array, "float32")
        node.attr["dtype"].type = messages.DataType.DT_FLOAT
        node.attr["value"].tensor.CopyFrom(numpy_to_tensor(values))
        if not name.endswith("/resource"):
            graph.node.add(name=f"{name}/read", op="Identity", input=[name])
    return GraphModel(graph)


def dense(name: str, units: int, inputs: int | None = None) -> dict[str, Any]:
    config: dict[str, Any] = {"name": name, "units": units}
    return {"class_name": "Dense", "config": config | ({"batch_input_shape": [None, inputs]} if inputs else {})}


def sequential(*nodes: Any, version: str = "2.3.1") -> LayerModel:
    config = {"name": "net", "layers": list(nodes)}
    return LayerModel.from_json({"class_name": "Sequential", "config": config, "keras_version": version})


def numbered(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Arrays of these shapes; every number is another."""
    numbers = iter(range(10_000))
    return [np.array([next(numbers) for _ in range(int(np.prod(shape)))], "float32").reshape(shape) for shape in shapes]


KERNEL, BIAS, OTHER_KERNEL, OTHER_BIAS = numbered((3, 3), (3,), (3, 3), (3,))

FOUND = [
    # a scope in front, a port behind
    {"net/a/kernel": KERNEL, "net/a/bias": BIAS},
    {"outer/net/a/kernel": KERNEL, "outer/net/a/bias": BIAS},
    # an optimizer's slots, averages and copies beside it
    {"a/kernel": KERNEL, "a/bias": BIAS, "a/kernel/Adam": OTHER_KERNEL, "a/bias/Adam_1": OTHER_BIAS},
    {"a/kernel": KERNEL, "a/bias": BIAS, "Adam/m/a/kernel": OTHER_KERNEL, "Adam/m/a/bias": OTHER_BIAS},
    {"a/kernel": KERNEL, "a/bias": BIAS, "training/a_1/kernel": OTHER_KERNEL, "training/a_1/bias": OTHER_BIAS},
    # names that were taken
    {"a_1/kernel": KERNEL, "a_1/bias": BIAS},
    {"a/kernel_1": KERNEL, "a/bias_1": BIAS},
    # Keras 1
    {"a_W": KERNEL, "a_b": BIAS},
    # named after who reads it
    {"net/a/MatMul/ReadVariableOp/resource": KERNEL, "net/a/BiasAdd/ReadVariableOp/resource": BIAS},
    {"net_1/a_1/Cast/ReadVariableOp/resource": KERNEL, "net_1/a_1/BiasAdd/ReadVariableOp/resource": BIAS},
]


@pytest.mark.parametrize("arrays", FOUND, ids=lambda arrays: next(iter(arrays)))
def test_names_of_one_layer(arrays: Mapping[str, Any]) -> None:
    found, _ = lift(frozen(arrays), sequential(dense("a", 3, 3)))
    np.testing.assert_array_equal(found.get_weights()[0], KERNEL)
    np.testing.assert_array_equal(found.get_weights()[1], BIAS)


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_in_the_file_says_nothing(order: int) -> None:
    arrays = {"a/kernel": KERNEL, "a/bias": BIAS, "b/kernel": OTHER_KERNEL, "b/bias": OTHER_BIAS}
    found, _ = lift(frozen(dict(list(arrays.items())[::order])), sequential(dense("a", 3, 3), dense("b", 3)))
    for mine, theirs in zip(found.get_weights(), arrays.values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_kernel_is_no_recurrent_kernel() -> None:
    kernel, recurrent, bias = numbered((3, 12), (3, 12), (12,))
    lstm = {"class_name": "LSTM", "config": {"name": "lstm", "units": 3, "batch_input_shape": [None, 5, 3]}}
    model = frozen({"lstm/recurrent_kernel": recurrent, "lstm/bias": bias, "lstm/kernel": kernel})
    for mine, theirs in zip(lift(model, sequential(lstm))[0].get_weights(), (kernel, recurrent, bias), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_numbers_that_tensorflow_gave_otherwise_are_told_by_shapes() -> None:
    kernels = numbered((4, 3), (3, 2))
    arrays = {
        "dense/kernel": kernels[0],
        "dense/bias": np.zeros(3),
        "dense_1/kernel": kernels[1],
        "dense_1/bias": np.zeros(2),
    }
    found, changes = lift(frozen(arrays), sequential(dense("dense_1", 3, 4), dense("dense_2", 2)))
    assert changes == [
        "layer dense_1 has the weights of dense, by their shapes",
        "layer dense_2 has the weights of dense_1, by their shapes",
    ]
    np.testing.assert_array_equal(found.get_weights()[0], kernels[0])
    np.testing.assert_array_equal(found.get_weights()[2], kernels[1])


def nested(units: tuple[int, int]) -> LayerModel:
    """Two models, each with a layer called d."""
    inner = [
        {
            "class_name": "Sequential",
            "config": {"name": name, "layers": [dense("d", size, size), dense("e" + name, units[1])]},
        }
        for name, size in zip("pq", units, strict=True)
    ]
    return sequential(*inner)


def test_layers_of_the_same_name_are_told_apart_by_the_models_around() -> None:
    arrays = {"p/d/kernel": KERNEL, "p/d/bias": BIAS, "q/d/kernel": OTHER_KERNEL, "q/d/bias": OTHER_BIAS}
    rest = {f"e{name}/{role}": np.zeros(shape) for name in "pq" for role, shape in (("kernel", (3, 3)), ("bias", 3))}
    found, _ = lift(frozen({**rest, **arrays}), nested((3, 3)))
    np.testing.assert_array_equal(found.weights["p"]["p/d/kernel:0"].numpy(), KERNEL)
    np.testing.assert_array_equal(found.weights["q"]["q/d/kernel:0"].numpy(), OTHER_KERNEL)


def test_or_by_their_shapes() -> None:
    small, large = numbered((2, 2), (3, 3))
    rest = {
        "ep/kernel": np.zeros((2, 3)),
        "ep/bias": np.zeros(3),
        "eq/kernel": np.zeros((3, 3)),
        "eq/bias": np.zeros(3),
    }
    # TensorFlow numbered the larger one first: it was built first.
    twins = {"d/kernel": large, "d/bias": np.zeros(3), "d_1/kernel": small, "d_1/bias": np.zeros(2)}
    found, _ = lift(frozen({**rest, **twins}), nested((2, 3)))
    np.testing.assert_array_equal(found.weights["p"]["d_1/kernel:0"].numpy(), small)
    np.testing.assert_array_equal(found.weights["q"]["d/kernel:0"].numpy(), large)


REFUSED = [
    # only the order in which TensorFlow counted would tell
    (
        nested((3, 3)),
        {
            **{
                f"e{name}/{role}": np.zeros(shape) for name in "pq" for role, shape in (("kernel", (3, 3)), ("bias", 3))
            },
            "d/kernel": KERNEL,
            "d/bias": BIAS,
            "d_1/kernel": OTHER_KERNEL,
            "d_1/bias": OTHER_BIAS,
        },
        "ambiguous: p/d, q/d may be d or d_1",
    ),
    # the bias is gone, and a copy of the layer has one
    (
        sequential(dense("a", 3, 3)),
        {"a/kernel": KERNEL, "Adam/m/a/kernel": OTHER_KERNEL, "Adam/m/a/bias": OTHER_BIAS},
        "missing a/bias; left over Adam/m/a/kernel, Adam/m/a/bias",
    ),
    # two models in one graph
    (
        sequential(dense("a", 3, 3)),
        {"main/a/kernel": KERNEL, "main/a/bias": BIAS, "target/a/kernel": OTHER_KERNEL, "target/a/bias": OTHER_BIAS},
        "ambiguous: a may be main/a or target/a",
    ),
    (
        sequential(dense("a", 3, 3)),
        {"a_1/kernel": KERNEL, "a_1/bias": BIAS, "a_2/kernel": OTHER_KERNEL, "a_2/bias": OTHER_BIAS},
        "ambiguous: a may be a_1 or a_2",
    ),
    # shifted numbers, and nothing else to tell them by
    (
        sequential(dense("dense_1", 3, 3), dense("dense_2", 3)),
        {"dense/kernel": KERNEL, "dense/bias": BIAS, "dense_1/kernel": OTHER_KERNEL, "dense_1/bias": OTHER_BIAS},
        "missing dense_2/kernel, dense_2/bias; left over dense/kernel, dense/bias",
    ),
    (
        sequential(dense("a", 3, 3), dense("b", 3)),
        {"a/kernel": KERNEL, "a/bias": BIAS, "c/kernel": OTHER_KERNEL},
        "missing b/kernel, b/bias; left over c/kernel",
    ),
    (
        sequential(dense("a", 4, 3)),
        {"a/kernel": KERNEL, "a/bias": BIAS},
        r"a/kernel has shape \(3, 3\), and a/kernel \(3, 4\); a/bias has shape \(3,\), and a/bias \(4\)",
    ),
    # named after readers that do not tell a state's kernel from an input's
    (
        sequential(
            {"class_name": "LSTM", "config": {"name": "a", "units": 3, "batch_input_shape": [None, 5, 3]}},
            version="2.8.0",
        ),
        {f"a/x{n}/ReadVariableOp/resource": array for n, array in enumerate(numbered((3, 12), (3, 12), (12,)))},
        "ambiguous: a/kernel, a/recurrent_kernel may be a/x0/ReadVariableOp/resource or a/x1/ReadVariableOp/resource",
    ),
]


@pytest.mark.parametrize(("architecture", "arrays", "reason"), REFUSED, ids=[row[2][:40] for row in REFUSED])
def test_what_could_be_otherwise_is_refused(architecture: LayerModel, arrays: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(ReadError, match=reason) as caught:
        lift(frozen(arrays), architecture)
    assert caught.value.reason.startswith("the weights are not those of this architecture: ")


def test_constants_that_never_were_variables_are_not_taken_for_weights() -> None:
    model = frozen({"net/a/MatMul/ReadVariableOp/resource": KERNEL})
    node = model.graph.node.add(name="net/a/add/y", op="Const")
    node.attr["dtype"].type = messages.DataType.DT_FLOAT
    node.attr["value"].tensor.CopyFrom(numpy_to_tensor(BIAS))
    with pytest.raises(ReadError, match=r"missing a/bias$"):
        lift(model, sequential(dense("a", 3, 3)))


# -- readers -----------------------------------------------------------------------------------------------------------


def test_scopes_that_keras_3_numbers_are_told_by_elimination() -> None:
    # dense is traced as dense_1, and dense_1 as dense_1_2
    arrays = {
        f"net_1/{scope}/{reader}/ReadVariableOp/resource": array
        for scope, kernel, bias in (("dense_1", KERNEL, BIAS), ("dense_1_2", OTHER_KERNEL, OTHER_BIAS))
        for reader, array in (("Cast", kernel), ("BiasAdd", bias))
    }
    found, _ = lift(frozen(arrays), sequential(dense("dense", 3, 3), dense("dense_1", 3), version="3.15.0"))
    for mine, theirs in zip(found.get_weights(), (KERNEL, BIAS, OTHER_KERNEL, OTHER_BIAS), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_names_of_arguments_are_told_by_who_reads_them() -> None:
    # what TensorFlow 2 freezes out of a SavedModel that was loaded: unknown_0 is handed into a function
    model = frozen({"unknown": KERNEL, "unknown_0": BIAS})
    for number, (argument, reader) in enumerate((("unknown", "MatMul"), ("unknown_0", "BiasAdd"))):
        model.graph.node.add(name=f"Func/Call/input/_{number}", op="Identity", input=[argument])
        name = f"Call/net/a/{reader}/ReadVariableOp"
        model.graph.node.add(name=name, op="Identity", input=[f"Func/Call/input/_{number}"])
    found, changes = lift(model, sequential(dense("a", 3, 3)))
    assert changes == ["a: kernel is unknown, bias is unknown_0, by who reads them and their shapes"]
    np.testing.assert_array_equal(found.get_weights()[0], KERNEL)


GAMMA, BETA, MEAN, VARIANCE = numbered((3,), (3,), (3,), (3,))


@pytest.mark.parametrize("kept", [("scale", "center"), ("scale",), ("center",), ()])
@pytest.mark.parametrize("form", ["fused", "plain", "keras3", "other axis"])
def test_batch_normalization_reads_its_four_vectors_in_an_order(form: str, kept: tuple[str, ...]) -> None:
    there = {"scale": ("gamma", GAMMA), "center": ("beta", BETA)}
    own = dict(there[key] for key in ("scale", "center") if key in kept)
    if form == "fused":
        arrays = dict(zip(("ReadVariableOp", "ReadVariableOp_1"), own.values(), strict=False))
        arrays |= {"FusedBatchNormV3/ReadVariableOp": MEAN, "FusedBatchNormV3/ReadVariableOp_1": VARIANCE}
    elif form == "plain":
        arrays = {"batchnorm/ReadVariableOp": VARIANCE, "batchnorm/ReadVariableOp_1": MEAN}
        arrays |= {"batchnorm/mul/ReadVariableOp": GAMMA} if "gamma" in own else {}
        arrays |= {"batchnorm/ReadVariableOp_2": BETA} if "beta" in own else {}
    elif form == "other axis":
        values = [*own.values(), MEAN, VARIANCE]
        arrays = {f"Reshape{f'_{n}' if n else ''}/ReadVariableOp": value for n, value in enumerate(values)}
    else:
        values = [MEAN, VARIANCE, *own.values()]
        arrays = {f"Cast{f'_{n}' if n else ''}/ReadVariableOp": value for n, value in enumerate(values)}
    config = {"name": "bn", "batch_input_shape": [None, 3], "scale": "scale" in kept, "center": "center" in kept}
    found, _ = lift(
        frozen({f"net/bn/{reader}/resource": array for reader, array in arrays.items()}),
        sequential({"class_name": "BatchNormalization", "config": config}, version="2.8.0"),
    )
    for mine, theirs in zip(found.get_weights(), [*own.values(), MEAN, VARIANCE], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def layer(class_name: str, name: str, shape: tuple[int, ...] | None = None, **config: Any) -> dict[str, Any]:
    started = {} if shape is None else {"batch_input_shape": [None, *shape]}
    return {"class_name": class_name, "config": {"name": name, **started, **config}}


FILTERS = {"filters": 2, "kernel_size": 2}
READ_WITHIN = {  # what tf_keras 2.21 freezes: readers by the roles of the weights that they read
    "a transposed convolution, in the scope of its function": (
        layer("Conv2DTranspose", "conv2d_transpose", (5, 5, 2), **FILTERS),
        {"conv2d_transpose/ReadVariableOp": (2, 2, 2, 2), "BiasAdd/ReadVariableOp": (2,)},
    ),
    "a separable one": (
        layer("SeparableConv2D", "separable_conv2d", (5, 5, 2), filters=2, kernel_size=1),
        {
            "separable_conv2d/ReadVariableOp": (1, 1, 2, 1),
            "separable_conv2d/ReadVariableOp_1": (1, 1, 2, 2),
            "BiasAdd/ReadVariableOp": (2,),
        },
    ),
    "a recurrent layer whose bias has the shape of a kernel": (
        layer("GRU", "gru", (4, 2), units=2, reset_after=True),
        {"Read/ReadVariableOp": (2, 6), "Read_1/ReadVariableOp": (2, 6), "Read_2/ReadVariableOp": (2, 6)},
    ),
    "a convolutional one": (
        layer("ConvLSTM2D", "conv_lstm2d", (3, 5, 5, 2), **FILTERS),
        {"split/ReadVariableOp": (2, 2, 2, 8), "split_1/ReadVariableOp": (2, 2, 2, 8), "split_2/ReadVariableOp": (8,)},
    ),
    "a locally connected one": (
        layer("LocallyConnected1D", "local", (4, 2), **FILTERS),
        {"MatMul/ReadVariableOp": (3, 4, 2), "Reshape_8/ReadVariableOp": (3, 2)},
    ),
    "and one that is written otherwise": (
        layer("LocallyConnected1D", "local", (4, 2), implementation=2, **FILTERS),
        {"ReadVariableOp": (4, 2, 3, 2), "Reshape_3/ReadVariableOp": (3, 2)},
    ),
    "a layer whose name has a slash": (
        layer("Dense", "block1/dense", (2,), units=3),
        {"MatMul/ReadVariableOp": (2, 3), "BiasAdd/ReadVariableOp": (3,)},
    ),
}


@pytest.mark.parametrize(("described", "readers"), READ_WITHIN.values(), ids=READ_WITHIN)
def test_layers_whose_weights_are_told_by_who_reads_them(
    described: dict[str, Any], readers: Mapping[str, tuple[int, ...]]
) -> None:
    values = numbered(*readers.values())
    scope = f"net/{described['config']['name']}"
    arrays = {f"{scope}/{reader}/resource": value for reader, value in zip(readers, values, strict=True)}
    found, _ = lift(frozen(dict(reversed(arrays.items()))), sequential(described, version="2.8.0"))
    for mine, theirs in zip(found.get_weights(), values, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_function_of_a_layer_is_not_the_layer_of_its_name() -> None:
    """``conv2d_transpose_1/conv2d_transpose`` is read in the second of two."""
    values = numbered(*[(2, 2, 2, 2), (2,)] * 2)
    names = ["conv2d_transpose", "conv2d_transpose_1"]
    ends = [
        f"net/{name}/{end}" for name in names for end in ("conv2d_transpose/ReadVariableOp", "BiasAdd/ReadVariableOp")
    ]
    arrays = {f"{end}/resource": value for end, value in zip(ends, values, strict=True)}
    layers = [layer("Conv2DTranspose", name, (5, 5, 2), **FILTERS) for name in names]
    found, _ = lift(frozen(arrays), sequential(*layers, version="2.8.0"))
    for mine, theirs in zip(found.get_weights(), values, strict=True):
        np.testing.assert_array_equal(mine, theirs)


# -- variables ---------------------------------------------------------------------------------------------------------


def checkpoint(arrays: Mapping[str, Any]) -> GraphModel:
    return GraphModel(
        messages.GraphDef(), variables={key: Tensor.of(np.asarray(array)) for key, array in arrays.items()}
    )


def test_a_numbered_list_is_the_order_of_get_weights_and_that_is_told() -> None:
    key = "_trainable_variables/{}/.ATTRIBUTES/VARIABLE_VALUE".format
    arrays = {key(n): array for n, array in enumerate((KERNEL, BIAS, OTHER_KERNEL, OTHER_BIAS))}
    found, changes = lift(checkpoint(arrays), sequential(dense("a", 3, 3), dense("b", 3), version="3.15.0"))
    assert changes[0] == f"a: kernel is {key(0)}, bias is {key(1)}, by the order of the file and their shapes"
    for mine, theirs in zip(found.get_weights(), arrays.values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_two_lists_of_the_same_shapes_are_ambiguous() -> None:
    arrays = {f"{name}/{n}": array for name in ("old", "new") for n, array in enumerate((KERNEL, BIAS))}
    with pytest.raises(ReadError, match="ambiguous: net may be the list that begins with old/0 or new/0"):
        lift(checkpoint(arrays), sequential(dense("a", 3, 3)))


def test_the_paths_of_tensorflow_2_number_the_layers() -> None:
    arrays = {
        f"layer_with_weights-{n}/{role}/.ATTRIBUTES/VARIABLE_VALUE": array
        for n, pair in enumerate(((KERNEL, BIAS), (OTHER_KERNEL, OTHER_BIAS)))
        for role, array in zip(("kernel", "bias"), pair, strict=True)
    }
    flat = {"class_name": "Flatten", "config": {"name": "f", "batch_input_shape": [None, 3]}}
    found, _ = lift(checkpoint(arrays), sequential(flat, dense("a", 3), dense("b", 3)))
    assert list(found.weights["b"]) == ["b/kernel:0", "b/bias:0"]
    for mine, theirs in zip(found.get_weights(), arrays.values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_weights_of_an_unknown_class_keep_their_names_and_the_order_is_told() -> None:
    node = {"class_name": "Mine", "config": {"name": "m", "batch_input_shape": [None, 3]}}
    copies = {"m/alpha/Adam": KERNEL, "m/alpha/Adam_1": KERNEL, "Adam/v/m/beta": OTHER_KERNEL}
    found, changes = lift(checkpoint({**copies, "m/alpha": BIAS, "m/beta": OTHER_BIAS}), sequential(node))
    assert list(found.weights["m"]) == ["m/alpha:0", "m/beta:0"]
    assert changes == ["m (Mine) has m/alpha, m/beta, in the graph's order: only its author knows its own"]


def test_the_weights_of_a_graph_are_in_tensorflows_layout() -> None:
    kernel, bias = numbered((2, 2, 1, 3), (3,))
    config = {
        "name": "c",
        "nb_filter": 3,
        "nb_row": 2,
        "nb_col": 2,
        "dim_ordering": "tf",
        "batch_input_shape": [None, 4, 4, 1],
    }
    architecture = LayerModel.from_json(
        {"class_name": "Sequential", "config": [{"class_name": "Convolution2D", "config": config}]}
        | {"keras_version": "1.2.2", "backend": "theano"}
    )
    found, changes = lift(frozen({"c_W": kernel, "c_b": bias}), architecture)
    assert changes == ["backend theano -> tensorflow: the weights of a graph are in TensorFlow's layout"]
    np.testing.assert_array_equal(found.get_weights()[0], kernel)  # not turned
    network = bind(network_of(found.architecture or {}, found.dialect, found.meta), found)
    np.testing.assert_array_equal(network.layers[-1].weights["kernel"].numpy(), kernel)


def test_a_kernel_of_another_layout_is_not_taken_for_keras_1s() -> None:
    kernel, bias = numbered((3, 2, 3, 2), (3,))  # the same shape in both layouts
    config = {"name": "c", "nb_filter": 3, "nb_row": 3, "nb_col": 2, "dim_ordering": "th"}
    node = {"class_name": "Convolution2D", "config": {**config, "batch_input_shape": [None, 2, 4, 4]}}
    architecture = LayerModel.from_json({"class_name": "Sequential", "config": [node], "keras_version": "1.2.2"})
    found, _ = lift(frozen({"c_W": kernel, "c_b": bias}), architecture)
    np.testing.assert_array_equal(found.get_weights()[0], kernel)
    # What is called so is of Keras 2, or of ours, and lies otherwise.
    with pytest.raises(ReadError, match="missing c/kernel"):
        lift(frozen({"c/kernel": kernel, "c/bias": bias}), architecture)


@pytest.mark.filterwarnings("ignore:frozen-graph does not keep")
@pytest.mark.parametrize("case", cases(version=("keras-2*", "tf*", "keras-3*"), model=MODELS, file="model.h5"))
def test_a_graph_that_was_lowered_and_frozen_here_has_its_names(case: Case) -> None:
    wanted = modelio.read(case / "model.h5")
    frozen_here = modelio.convert(case / "model.h5", to="frozen-graph").data
    if case.model == "norm_pre":  # inference has no use for how many samples were seen
        with pytest.raises(ReadError, match=r"missing norm/count$"):
            lift(modelio.read(frozen_here), wanted)
        return
    found, changes = lift(modelio.read(frozen_here), wanted)
    assert changes == []
    for mine, theirs in zip(found.get_weights(), wanted.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_no_weight_is_read() -> None:
    def refuse() -> np.ndarray:
        raise AssertionError("a weight was read")

    variables = {"a/kernel": Tensor("float32", (3, 3), refuse), "a/bias": Tensor("float32", (3,), refuse)}
    found, _ = lift(replace(checkpoint({}), variables=variables), sequential(dense("a", 3, 3)))
    assert found.weights["a"]["a/kernel:0"] is variables["a/kernel"]


def test_weights_alone_are_no_architecture() -> None:
    with pytest.raises(ConversionError, match="holds weights only"):
        lift(checkpoint({}), LayerModel(None, {}, "keras2"))
