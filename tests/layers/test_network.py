"""Architectures in the normal form: the same from every dialect, exact about calls, clear about faults."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from modelio.errors import ConversionError, ModelioError, ReadError, UnsafeInput
from modelio.layers.network import Network, Ref, dialect_of, network_of
from modelio.layers.shapes import shapes_of
from tests.corpus import Case, cases, golden, record, strays


def _read(case: Case) -> Network:
    return network_of(json.loads((case / "architecture.json").read_text()), meta=_meta(case))


def _meta(case: Case) -> dict[str, str]:
    """The version, which Keras 3 leaves out of its JSON."""
    return {"keras_version": record(case)["keras"]}


# -- real files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases(file="architecture.json"), ids=str)
def test_inputs_and_outputs_fit_what_the_framework_computed(case: Case) -> None:
    network = _read(case)
    inputs, outputs = golden(case)
    assert len(network.inputs) == len(network.input_names) == len(network.input_specs) == len(inputs)
    assert len(network.outputs) == len(network.output_names) == len(outputs)
    for spec, array in zip(network.input_specs, inputs, strict=True):
        assert _fits(spec.shape, array.shape)
        assert array.dtype.kind in "OSU" or np.can_cast(spec.dtype, array.dtype, "same_kind")
    shapes = shapes_of(network)
    for ref, array in zip(network.outputs, outputs, strict=True):
        shape = shapes.outputs[network.calls[ref.call].layer][ref.output]
        assert _fits(shape, array.shape) or (shape is None and case.model in ("lambda", "tfops"))


def _fits(shape: tuple[int | None, ...] | None, real: tuple[int, ...]) -> bool:
    return (
        shape is not None
        and len(shape) == len(real)
        and all(size in (None, length) for size, length in zip(shape, real, strict=True))
    )


@pytest.mark.parametrize("case", cases(version="*_tf-[01].*", file="architecture.json"), ids=str)
def test_inputs_are_named_as_the_framework_named_its_placeholders(case: Case) -> None:
    assert [f"{name}:0" for name in _read(case).input_names] == record(case)["frozen_inputs"]


@pytest.mark.parametrize("case", cases(model="nested", file="architecture.json"), ids=str)
def test_a_shared_model_is_one_layer_and_two_calls(case: Case) -> None:
    network = _read(case)
    calls = Counter(call.layer.name for call in network.calls)
    assert calls["encoder"] == 2
    assert set(calls.values()) == {1, 2}
    q, p = (ref.call for ref in network.inputs)
    first, second = [call for call in network.calls if call.layer.name == "encoder"]
    assert (first.inputs, second.inputs) == ((Ref(q),), (Ref(p),))
    (merged,) = [call for call in network.calls if call.layer.class_name == "Concatenate"]
    assert merged.inputs == ([Ref(network.calls.index(first)), Ref(network.calls.index(second))],)
    encoder = first.layer.network
    assert encoder is not None
    assert [layer.path for layer in encoder.layers][-2:] == ["encoder/enc_d", "encoder/enc_bn"]


@pytest.mark.parametrize("case", cases(model="multi_io", file="architecture.json"), ids=str)
def test_a_shared_layer_is_one_layer_and_two_calls(case: Case) -> None:
    network = _read(case)
    assert sorted(Counter(call.layer for call in network.calls).values())[-2:] == [1, 2]
    assert network.input_names == ("left", "right")
    assert network.output_names == ("cls", "reg")


SAME = (
    "filters",
    "kernel_size",
    "strides",
    "padding",
    "data_format",
    "use_bias",
    "units",
    "activation",
    "rate",
    "axis",
)


@pytest.mark.parametrize("model", ["mlp", "cnn", "multi_io", "nested"])
def test_every_dialect_says_the_same(model: str) -> None:
    """One script built these models in eleven versions; what they mean does not depend on who wrote it down."""

    def meaning(network: Network) -> list[Any]:
        layers = [layer for layer in network.walk() if layer.class_name not in ("InputLayer", "Dropout")]
        return [(layer.class_name, [layer.config.get(key) for key in SAME]) for layer in layers]

    found = [meaning(_read(case)) for case in cases(model=model, file="architecture.json")]
    oldest = meaning(_read(cases(model=model, version="keras-1.2.2*", file="architecture.json")[0]))
    assert len(found) > 3
    for other in found:
        assert [name for name, _ in other] == [name for name, _ in oldest]
        for (_, ours), (_, theirs) in zip(other, oldest, strict=True):
            assert [_plain(value) for value in ours] == [_plain(value) for value in theirs]


def _plain(value: Any) -> Any:
    """BatchNormalization's axis: -1 in the JSON of some versions, the number of the axis in that of others."""
    return "last" if value in (-1, 1, 3) and not isinstance(value, bool) else value


@pytest.mark.parametrize("stray", strays(kind="Keras JSON architecture"), ids=str)
def test_architectures_from_other_projects(stray) -> None:
    text = json.loads(stray.path.read_text())
    network = network_of(json.loads(text) if isinstance(text, str) else text)
    assert network.outputs
    assert all(spec.shape is not None for spec in network.input_specs)


# -- spellings ---------------------------------------------------------------------------------------------------------


def _dense(name: str, *inbound: Any, **config: Any) -> dict[str, Any]:
    return {
        "class_name": "Dense",
        "name": name,
        "config": {"name": name, "units": 2, **config},
        "inbound_nodes": [*inbound],
    }


def _input(name: str, *shape: int | None) -> dict[str, Any]:
    config = {"batch_input_shape": [None, *shape], "dtype": "float32", "sparse": False, "name": name}
    return {"class_name": "InputLayer", "name": name, "config": config, "inbound_nodes": []}


def _model(layers: list[Any], inputs: Any, outputs: Any, **more: Any) -> dict[str, Any]:
    config = {"name": "m", "layers": layers, "input_layers": inputs, "output_layers": outputs}
    return {"class_name": "Model", "config": config, **more}


PLAIN = _model([_input("x", 3), _dense("d", [["x", 0, 0, {}]])], [["x", 0, 0]], [["d", 0, 0]])


def test_a_configuration_without_its_class() -> None:
    assert network_of(PLAIN["config"]).output_names == ("d",)


@pytest.mark.parametrize(
    ("ends", "order"),
    [
        (["b", 0, 0], ["b"]),
        ([["b", 0, 0], ["a", 0, 0]], ["b", "a"]),
        ({"z": ["b", 0, 0], "y": ["a", 0, 0]}, ["a", "b"]),  # as tf.nest flattens: by key
        ([["b", 0, 0], {"y": [["a", 0, 0]]}], ["b", "a"]),
    ],
    ids=["alone", "list", "dict", "nested"],
)
def test_outputs_of_any_structure(ends: Any, order: list[str]) -> None:
    layers = [_input("x", 3), _dense("a", [["x", 0, 0, {}]]), _dense("b", [["x", 0, 0, {}]])]
    network = network_of(_model(layers, ["x", 0, 0], ends))
    assert list(network.output_names) == order
    assert set(network.structure) == {"inputs", "outputs"}


def test_outputs_of_one_layer_get_different_names() -> None:
    layers = [_input("x", 2), _dense("d", [["x", 0, 0, {}]], [["d", 0, 0, {}]])]
    network = network_of(_model(layers, [["x", 0, 0]], [["d", 0, 0], ["d", 1, 0]]))
    assert network.output_names == ("d", "d_1")
    assert network.calls[2].inputs == (Ref(1),)


def test_tensors_and_constants_among_the_arguments() -> None:
    attention = {
        "class_name": "MultiHeadAttention",
        "name": "mha",
        "config": {"name": "mha", "num_heads": 1, "key_dim": 2},
        "inbound_nodes": [[["x", 0, 0, {"value": ["y", 0, 0], "use_causal_mask": True, "scale": [1, 2, 3]}]]],
    }
    operation = {
        "class_name": "TFOpLambda",
        "name": "tf.add",
        "config": {"name": "tf.add", "function": "math.add"},
        "inbound_nodes": [["mha", 0, 0, {"y": 2.0}]],
    }
    constant = {
        "class_name": "Add",
        "name": "add",
        "config": {"name": "add"},
        "inbound_nodes": [[["tf.add", 0, 0, {}], ["_CONSTANT_VALUE", -1, 3.0, {}]]],
    }
    network = network_of(
        _model(
            [_input("x", 4, 2), _input("y", 4, 2), attention, operation, constant],
            [["x", 0, 0], ["y", 0, 0]],
            ["add", 0, 0],
        )
    )
    assert network.calls[2].inputs == (Ref(0),)
    assert network.calls[2].kwargs == {"value": Ref(1), "use_causal_mask": True, "scale": [1, 2, 3]}
    assert network.calls[3].inputs == (Ref(2),)
    assert network.calls[3].kwargs == {"y": 2.0}
    assert network.calls[4].inputs == ([Ref(3), 3.0],)


def test_calls_of_keras_3() -> None:
    def tensor(*history: Any) -> dict[str, Any]:
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": [None, 2], "dtype": "float32", "keras_history": [*history]},
        }

    node = {
        "args": [tensor("x", 0, 0), 1.0],
        "kwargs": {
            "other": [tensor("x", 0, 0)],
            "dims": {"class_name": "__slice__", "config": {"start": 1, "stop": None, "step": None}},
        },
    }
    x = {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": {"batch_shape": [None, 2], "dtype": "float32", "name": "x"},
        "name": "x",
        "inbound_nodes": [],
    }
    add = {
        "module": "keras.src.ops.numpy",
        "class_name": "Add",
        "config": {"name": "add"},
        "name": "add",
        "inbound_nodes": [node],
    }
    network = network_of({"module": "keras.src.models.functional", **_model([x, add], ["x", 0, 0], ["add", 0, 0])})
    call = network.calls[1]
    assert call.layer.class_name == "ops.Add"  # not the layer of that name, which adds a list
    assert call.inputs == (Ref(0), 1.0)
    assert call.kwargs == {"other": [Ref(0)], "dims": slice(1, None)}


@pytest.mark.parametrize("first", [0, 1], ids=["counted from 0", "its creation is call 0"])
def test_a_model_inside_may_count_its_creation(first: int) -> None:
    inner = {**copy.deepcopy(PLAIN), "name": "inner", "inbound_nodes": [[["a", 0, 0, {}]], [["b", 0, 0, {}]]]}
    layers = [
        _input("a", 3),
        _input("b", 3),
        inner,
        _dense("end", [["inner", first, 0, {}]], [["inner", first + 1, 0, {}]]),
    ]
    network = network_of(_model(layers, [["a", 0, 0], ["b", 0, 0]], [["end", 0, 0], ["end", 1, 0]]))
    ends = [network.calls[ref.call] for ref in network.outputs]
    assert [network.calls[end.refs()[0].call].inputs for end in ends] == [(Ref(0),), (Ref(1),)]


def test_what_the_outputs_do_not_need_is_listed_but_not_called() -> None:
    layers = [_input("x", 3), _dense("a", [["x", 0, 0, {}]]), _dense("side", [["a", 0, 0, {}]]), _dense("unused")]
    network = network_of(_model(layers, [["x", 0, 0]], [["a", 0, 0]]))
    assert [layer.name for layer in network.layers] == ["x", "a", "side", "unused"]
    assert [call.layer.name for call in network.calls] == ["x", "a"]


def test_custom_classes_pass_through() -> None:
    layers = [_input("x", 3), {**_dense("mine", [["x", 0, 0, {}]], gain=[1, {"a": None}]), "class_name": "my>Own"}]
    layer = network_of(_model(layers, [["x", 0, 0]], [["mine", 0, 0]])).layers[1]
    assert (layer.class_name, layer.config) == ("my>Own", {"name": "mine", "units": 2, "gain": [1, {"a": None}]})


def test_a_sequential_gets_the_input_that_keras_gives_it() -> None:
    dense = {
        "class_name": "Dense",
        "config": {"name": "d", "units": 2, "batch_input_shape": [None, 3], "dtype": "float32"},
    }
    network = network_of({"class_name": "Sequential", "config": {"name": "s", "layers": [dense]}})
    assert network.input_names == ("d_input",)
    assert [call.layer.class_name for call in network.calls] == ["InputLayer", "Dense"]
    assert not network.layers[0].source  # the file has no such layer
    nested = {
        "class_name": "Sequential",
        "config": {
            "name": "outer",
            "layers": [{"class_name": "Sequential", "config": {"name": "inner", "layers": [dense]}}],
        },
    }
    assert network_of(nested).input_names == ("inner_input",)
    assert network_of(nested).input_specs[0].shape == (None, 3)


@pytest.mark.parametrize(
    ("version", "dilation"),
    [("2.0.5", (1, 1)), ("2.0.8", (1, 1)), ("2.0.9", (2, 2)), ("2.0.8-tf", (2, 2)), (None, (2, 2))],
)
def test_dilation_that_keras_ignored(version: str | None, dilation: tuple[int, int]) -> None:
    """Keras 2.0.8 ``layers/convolutional.py``, SeparableConv2D.call: it has the argument and does not pass it on."""
    config = {"name": "sep", "filters": 2, "kernel_size": [3, 3], "dilation_rate": [2, 2]}
    config["batch_input_shape"] = [None, 9, 9, 3]
    node = {"class_name": "SeparableConv2D", "config": config}
    architecture = {"class_name": "Sequential", "config": [node], "keras_version": version}
    (layer,) = (layer for layer in network_of(architecture).layers if layer.name == "sep")
    assert layer.config["dilation_rate"] == dilation


def test_wrapped_layers() -> None:
    lstm = {"class_name": "LSTM", "config": {"name": "lstm", "units": 3, "go_backwards": False}}
    both = {"class_name": "Bidirectional", "config": {"name": "both", "layer": lstm, "batch_input_shape": [None, 5, 2]}}
    layer = network_of({"class_name": "Sequential", "config": [both]}).layers[1]
    assert [(key, inner.name, inner.config["go_backwards"]) for key, inner in layer.inner.items()] == [
        ("layer", "lstm", False),
        ("backward_layer", "backward_lstm", True),
    ]
    assert len({part.path for part in layer.walk()}) == 3


@pytest.mark.parametrize(
    ("written", "compute", "variable"),
    [
        (None, "float32", "float32"),
        ("float16", "float16", "float16"),
        ({"class_name": "Policy", "config": {"name": "mixed_float16"}}, "float16", "float32"),
        ({"module": "keras", "class_name": "DTypePolicy", "config": {"name": "mixed_bfloat16"}}, "bfloat16", "float32"),
        (
            {"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8", "source_name": "mixed_float16"}},
            "float16",
            "float32",
        ),
        ("int8_from_float32", "float32", "float32"),
    ],
)
def test_dtypes(written: Any, compute: str, variable: str) -> None:
    config = {} if written is None else {"dtype": written}
    layer = network_of(_model([_input("x", 3), _dense("d", [["x", 0, 0]], **config)], ["x", 0, 0], ["d", 0, 0])).layers[
        1
    ]
    assert (layer.dtype, layer.variable_dtype) == (compute, variable)


@pytest.mark.parametrize(
    ("architecture", "dialect"),
    [
        ({"class_name": "Sequential", "keras_version": "1.0.8", "config": []}, "keras1"),
        (
            {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": {"W_regularizer": None}}]},
            "keras1",
        ),
        ({"layers": [{"name": "Dense", "output_dim": 2}]}, "keras1"),
        ({"class_name": "Model", "keras_version": "2.2.4-tf", "config": {}}, "keras2"),
        (
            {
                "class_name": "Sequential",
                "config": [{"class_name": "Dense", "config": {"batch_input_shape": [None, 2]}}],
            },
            "keras2",
        ),
        # TensorFlow 2.12 to 2.15 in a .keras file
        (
            {
                "module": "keras",
                "class_name": "Sequential",
                "config": {"layers": [{"config": {"batch_input_shape": [2]}}]},
            },
            "keras2",
        ),
        ({"module": "keras", "class_name": "Sequential", "config": {"layers": []}}, "keras3"),
        ({"class_name": "Functional", "config": {"layers": [{"config": {"batch_shape": [None, 2]}}]}}, "keras3"),
    ],
)
def test_dialect(architecture: dict[str, Any], dialect: str) -> None:
    assert dialect_of(architecture) == dialect


# -- faults ------------------------------------------------------------------------------------------------------------


def _changed(change: Any) -> dict[str, Any]:
    architecture = copy.deepcopy(PLAIN)
    change(architecture["config"], architecture["config"]["layers"])
    return architecture


FAULTS = [
    (lambda config, layers: layers[1].update(inbound_nodes=[[["y", 0, 0, {}]]]), "m/d", "there is no layer 'y'"),
    (
        lambda config, layers: layers[1].update(inbound_nodes=[[["x", 1, 0, {}]]]),
        "m/d",
        "call 1 of 'x' is used, but the file lists 1",
    ),
    (
        lambda config, layers: layers[1].update(inbound_nodes=[[["d", 0, 0, {}]]]),
        "m",
        "these layers wait for each other's outputs: d",
    ),
    (
        lambda config, layers: layers[1].update(inbound_nodes=[[["x", -1, 0, {}]]]),
        "d",
        "['x', -1, 0] names no tensor: expected [layer, call, output]",
    ),
    (
        lambda config, layers: layers[1].update(inbound_nodes=[["x"]]),
        "d",
        "'x' names no tensor: expected [layer, call, output]",
    ),
    (lambda config, layers: layers[1].update(inbound_nodes="x"), "d", "inbound_nodes is not a list"),
    (
        lambda config, layers: layers[1].update(inbound_nodes=[{"args": 3}]),
        "d",
        "a call's args are no list, or its kwargs no mapping",
    ),
    (lambda config, layers: layers[1].pop("config"), "d", "Dense has no config"),
    (lambda config, layers: layers[1].pop("class_name"), "model", "a layer here has no class_name"),
    (lambda config, layers: layers.append(3), "model", "a layer here has no class_name"),
    (lambda config, layers: layers.append(_dense("d")), "d", "two layers are called d"),
    (lambda config, layers: config.update(layers={}), "m", "layers is not a list"),
    (lambda config, layers: config.update(output_layers=[]), "m", "this model has no outputs"),
    (lambda config, layers: config.update(output_layers=[["z", 0, 0]]), "m", "there is no layer 'z'"),
    (
        lambda config, layers: config.update(input_layers=[["d", 0, 0]]),
        "m",
        "d is named as an input, but it is no InputLayer",
    ),
    (
        lambda config, layers: config.pop("output_layers"),
        "m/output_layers",
        "None names no tensor: expected [layer, call, output]",
    ),
]


@pytest.mark.parametrize(("change", "where", "reason"), FAULTS, ids=[fault[2] for fault in FAULTS])
def test_faults(change: Any, where: str, reason: str) -> None:
    with pytest.raises(ReadError) as caught:
        network_of(_changed(change))
    assert (caught.value.where, caught.value.reason) == (where, reason)


VALUES = [None, 0, -1, 1.5, True, "x", [], [None, None], {}, ["x", 0, 0], {"class_name": "Dense", "config": {}}]


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


@pytest.mark.parametrize("case", cases(model=("nested", "convzoo"), version=("keras-*", "tfkeras_tf-2.8*")), ids=str)
def test_any_value_anywhere_is_read_or_refused(case: Case) -> None:
    architecture = json.loads((case / "architecture.json").read_text())
    for number, (holder, key) in enumerate(_places(architecture)):
        kept = holder[key]
        holder[key] = VALUES[number % len(VALUES)]
        with contextlib.suppress(ModelioError):
            shapes_of(network_of(architecture))
        holder[key] = kept


def test_no_architecture() -> None:
    with pytest.raises(ReadError, match="neither class_name nor layers"):
        network_of({"format": "graph-model"})


def test_a_model_that_is_code() -> None:
    with pytest.raises(ConversionError, match="MyModel is a model written as a Python class"):
        network_of({"class_name": "MyModel", "config": {"width": 3}})


@pytest.mark.parametrize("wrap", ["Sequential", "TimeDistributed"])
def test_nesting_has_an_end(wrap: str) -> None:
    layer: dict[str, Any] = {"class_name": "Dense", "config": {"units": 2, "batch_input_shape": [None, 3]}}
    for _ in range(100):
        layer = {"class_name": wrap, "config": [layer] if wrap == "Sequential" else {"layer": layer}}
    with pytest.raises(UnsafeInput, match="nested more than 64 deep"):
        network_of({"class_name": "Sequential", "config": [layer]})


def test_time_grows_with_the_number_of_layers_and_no_faster() -> None:
    def seconds(count: int) -> float:
        layers = [_input("d-1", 3), *(_dense(f"d{n}", [[f"d{n - 1}", 0, 0, {}]]) for n in range(count))]
        start = time.process_time()
        network_of(_model(layers, [["d-1", 0, 0]], [[f"d{count - 1}", 0, 0]]))
        return time.process_time() - start

    assert seconds(8000) < 40 * max(seconds(1000), 0.01)
