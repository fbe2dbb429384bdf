"""The paths of ``.keras`` files: what a real file has is what follows from its architecture."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from modelio.errors import ReadError, WriteError
from modelio.layers.network import dialect_of, network_of
from modelio.layers.values import version_of
from modelio.layers.variables import Variables
from modelio.layers.weight_groups import grouped, is_path, joined, spread
from modelio.layers.weight_paths import Paths, Spelling, natural, snake_case, spelling_of
from modelio.model import LayerModel, Tensor
from modelio.source import Source
from tests.corpus import cases

DATA = Path(__file__).parents[1] / "formats" / "data" / "keras_zip"
WALKS = sorted(DATA.glob("*.keras"))
FILES = [(case.id, case / "model.keras") for case in cases(file="model.keras")] + [(p.stem, p) for p in WALKS]
every = pytest.mark.parametrize("path", [path for _, path in FILES], ids=[name for name, _ in FILES])


class File:
    """The parts of a ``.keras`` file, taken apart without modelio's format."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            self.architecture = json.loads(archive.read("config.json"))
            self.meta = json.loads(archive.read("metadata.json"))
            self.variables = Variables.of_hdf5(Source.of(archive.read("model.weights.h5")))
        self.dialect = dialect_of(self.architecture, self.meta)
        self.network = network_of(self.architecture, self.dialect, self.meta)
        self.spelling = spelling_of(self.dialect, version_of(self.meta["keras_version"]))

    def weights(self) -> list[str]:
        """The paths that are in the model's layers."""
        roots = ("layers", "_layer_checkpoint_dependencies")
        return [path for path in self.variables.tensors if path.split("/")[0] in roots]


def dense(name: str, units: int = 2, **more: object) -> dict:
    return {"module": "keras.layers", "class_name": "Dense", "config": {"name": name, "units": units}, **more}


def sequential(*layers: dict, name: str = "model") -> dict:
    first = {"class_name": "InputLayer", "module": "keras.layers", "config": {"name": "in", "batch_shape": [None, 2]}}
    return {"class_name": "Sequential", "module": "keras", "config": {"name": name, "layers": [first, *layers]}}


def paths_of(architecture: dict, spelling: Spelling | None = None, **more: object) -> Paths:
    return Paths(network_of(architecture, "keras3"), spelling or spelling_of("keras3", ()), **more)


def tensors(*paths: str, shape: tuple[int, ...] = (2, 2)) -> dict[str, Tensor]:
    return {path: Tensor.of(np.full(shape, number, "float32")) for number, path in enumerate(paths)}


# -- real files --------------------------------------------------------------------------------------------------------


@every
def test_the_paths_follow_from_the_architecture(path):
    """Without a look at the file: every group that it should have is there, and all weights are in these."""
    file = File(path)
    paths = Paths(file.network, file.spelling)
    assert set(paths.groups()) <= set(file.variables.groups)
    expected = {p.path for layer in file.network.walk() for p in paths.places(layer) if not p.is_asset}
    assert expected == set(file.weights())


@pytest.mark.parametrize("path", [path for name, path in FILES if name.startswith("keras-3.15")], ids=str)
def test_the_names_of_objects_are_those_in_the_file(path):
    """Keras since 3.6 writes the layer's name beside its variables: the order of the layers is the file's."""
    file = File(path)
    paths = Paths(file.network, file.spelling)
    named = {paths.bases[layer]: layer.name for layer in paths.top}
    assert named == {base: file.variables.objects()[base] for base in named}


@every
def test_every_weight_gets_a_name_and_finds_back_to_its_path(path):
    file = File(path)
    paths = Paths(file.network, file.spelling, file.variables.objects())
    weights, rest = grouped(paths, file.variables.tensors)
    assert set(rest) == set(file.variables.tensors) - set(file.weights())
    assert not any(is_path(name) for named in weights.values() for name in named)
    assert list(weights) == [layer.name for layer in paths.top]
    if any(place.is_asset for layer in file.network.walk() for place in paths.places(layer)):
        return  # tf_keras counts a table among the weights, which is in no HDF5 file: tests/formats/test_keras_zip.py
    model = LayerModel(file.architecture, weights, file.dialect, meta=file.meta)
    found = spread(Paths(network_of(file.architecture, file.dialect, file.meta), file.spelling), model)
    assert {path: found[path] for path in found} == {path: file.variables.tensors[path] for path in file.weights()}


@pytest.mark.parametrize("path", WALKS, ids=lambda path: path.stem)
def test_an_object_that_is_reached_twice_is_stored_once(path):
    """The model ``inner`` is a layer of its own, and inside a TimeDistributed."""
    file = File(path)
    paths = Paths(file.network, file.spelling, file.variables.objects())
    weights, _ = grouped(paths, file.variables.tensors)
    assert [id(tensor) for tensor in weights["each"].values()] == [id(tensor) for tensor in weights["inner"].values()]
    assert len(weights["inner"]) == 6


def test_the_versions_differ_as_the_table_says():
    spelled = {
        version: spelling_of(dialect, version_of(version))
        for dialect, version in (
            *(("keras2", version) for version in ("2.3.1", "2.12.0", "2.13.1", "2.14.0", "2.15.0", "2.21.0")),
            *(("keras3", version) for version in ("3.0.0", "3.0.5", "3.5.0", "3.6.0", "3.15.1")),
        )
    }
    assert {v for v, s in spelled.items() if s.container != "layers"} == {"2.12.0", "2.13.1"}
    assert {v for v, s in spelled.items() if s.counts == "twice"} == {"2.12.0", "2.13.1"}
    assert {v for v, s in spelled.items() if s.counts == "stored"} == {"2.3.1", "2.14.0", "2.15.0", "2.21.0"}
    assert {v for v, s in spelled.items() if s.names} == {"3.6.0", "3.15.1"}
    assert {v for v, s in spelled.items() if s.public} == {"3.0.5", "3.5.0", "3.6.0", "3.15.1"}
    assert spelling_of("keras3", ()) == spelled["3.15.1"]


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_name", "expected"),
    {
        "Conv2D": "conv2d",
        "Conv2DTranspose": "conv2d_transpose",
        "LSTM": "lstm",
        "LSTMCell": "lstm_cell",
        "PReLU": "p_re_lu",
        "ReLU": "re_lu",
        "ConvLSTM2D": "conv_lstm2d",
        "GlobalAveragePooling1D": "global_average_pooling1d",
        "StackedRNNCells": "stacked_rnn_cells",
        "TFOpLambda": "tf_op_lambda",
        "my_package>MyLayer": "my_layer",
    }.items(),
)
def test_objects_are_named_after_their_class(class_name, expected):
    assert snake_case(class_name) == expected


def test_numbers_count_by_class_and_not_by_name():
    paths = paths_of(sequential(dense("z"), {**dense("n"), "class_name": "Other"}, dense("a"), dense("dense_7")))
    assert {layer.name: base for layer, base in paths.bases.items()} == {
        "z": "layers/dense",
        "n": "layers/other",
        "a": "layers/dense_1",
        "dense_7": "layers/dense_2",
    }


def test_layers_with_weights_count_twice_in_tensorflow_2_12():
    """Its dict of dependencies has them as ``layer-1`` and as ``layer_with_weights-0``."""
    flatten = {"module": "keras.layers", "class_name": "Flatten", "config": {"name": "f"}}
    other = {**flatten, "config": {"name": "g"}}
    paths = paths_of(sequential(dense("a"), flatten, dense("b"), other, dense("c")), spelling_of("keras2", (2, 12)))
    assert list(paths.bases.values()) == [
        f"_layer_checkpoint_dependencies/{name}" for name in ("dense", "flatten", "dense_2", "flatten_1", "dense_4")
    ]


@pytest.mark.parametrize(("counts", "last"), [("all", "layers/dense_2"), ("stored", "layers/dense_1")])
def test_what_is_stored_elsewhere_counts_in_keras_3_alone(counts, last):
    shared = dense("shared", shared_object_id=5)
    paths = paths_of(
        sequential(sequential(shared, name="inner"), dense("own"), shared, dense("last")),
        Spelling("keras3", counts=counts),
    )
    by_name = {layer.path: base for layer, base in paths.bases.items()}
    assert by_name["inner/shared"] == by_name["shared"] == "layers/sequential/layers/dense"
    assert by_name["own"] == "layers/dense"
    assert by_name["last"] == last


def test_a_functional_model_goes_by_depth_and_not_by_the_file():
    """An architecture of another origin may list its layers in any order; Keras builds them in its own."""

    def node(class_name: str, name: str, *sources: str) -> dict:
        tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [s, 0, 0]}} for s in sources]
        inbound = [{"args": tensors if len(tensors) == 1 else [tensors], "kwargs": {}}] if sources else []
        config = {"name": name, "units": 2} if class_name == "Dense" else {"name": name, "batch_shape": [None, 2]}
        return {
            "module": "keras.layers",
            "class_name": class_name,
            "name": name,
            "config": config,
            "inbound_nodes": inbound,
        }

    layers = [
        node("Dense", "end", "long_2"),
        node("Dense", "short", "in"),
        node("Dense", "long_2", "long_1"),
        node("InputLayer", "in"),
        node("Dense", "long_1", "in"),
    ]
    config = {
        "name": "m",
        "layers": layers,
        "input_layers": ["in", 0, 0],
        "output_layers": [["short", 0, 0], ["end", 0, 0]],
    }
    paths = paths_of({"module": "keras", "class_name": "Functional", "config": config})
    assert [layer.name for layer in paths.top] == ["in", "long_1", "long_2", "short", "end"]


def test_a_file_at_hand_decides():
    architecture = sequential(dense("a"), dense("b"))
    by_name = paths_of(architecture, objects={"layers/dense_5": "b", "layers/dense": "a"})
    assert list(by_name.bases.values()) == ["layers/dense", "layers/dense_5"]
    by_number = paths_of(architecture, objects={"layers/dense_5": "", "layers/dense_10": ""})
    assert list(by_number.bases.values()) == ["layers/dense_5", "layers/dense_10"]
    assert by_number.exceptions() == {"a": "layers/dense_5", "b": "layers/dense_10"}
    again = paths_of(architecture, bases=by_number.exceptions())
    assert list(again.bases.values()) == ["layers/dense_5", "layers/dense_10"]


def test_own_variables_come_first_and_numbers_go_by_size():
    names = ["_private/vars/0", "vars/10", "b_10/vars/0", "b_9/vars/0", "vars/9", "a/vars/1", "a/vars/0"]
    assert sorted(names, key=natural) == [
        *("vars/9", "vars/10", "a/vars/0", "a/vars/1", "b_9/vars/0", "b_10/vars/0", "_private/vars/0")
    ]


# -- weights that only their path names --------------------------------------------------------------------------------

OWN_CLASS = {**dense("own"), "class_name": "MyLayer", "module": "somebody"}


def test_a_layer_of_an_unknown_class_keeps_its_paths():
    paths = paths_of(sequential(dense("known"), OWN_CLASS))
    found = tensors("layers/dense/vars/0", "layers/my_layer/vars/0", "layers/my_layer/parts/dense/vars/0")
    weights, rest = grouped(paths, found)
    assert {layer: list(named) for layer, named in weights.items()} == {
        "known": ["known/kernel"],
        "own": ["vars/0", "parts/dense/vars/0"],
    }
    assert rest == []


def test_random_states_are_no_weights():
    paths = paths_of(sequential(dense("a")))
    weights, rest = grouped(paths, tensors("layers/dense/vars/0", "layers/dense/seed_generator/vars/0"))
    assert rest == ["layers/dense/seed_generator/vars/0"]
    assert list(weights["a"]) == ["a/kernel"]


def test_more_variables_than_a_class_has_keep_their_paths():
    """Such as GPTQ, which stores others in another order: no kernel is taken for a bias."""
    paths = paths_of(sequential(dense("a")))
    weights, _ = grouped(paths, tensors(*(f"layers/dense/vars/{number}" for number in range(4))))
    assert list(weights["a"]) == ["vars/0", "vars/1", "vars/2", "vars/3"]


def test_quantized_layers_name_their_scales():
    """What is trained comes first, as in an HDF5 group: the kernel no longer is."""
    policy = {"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8", "source_name": "float32"}}
    quantized = dense("a")
    quantized["config"]["dtype"] = policy
    paths = paths_of(sequential(quantized))
    weights, _ = grouped(paths, tensors(*(f"layers/dense/vars/{number}" for number in range(3))))
    assert list(weights["a"]) == ["a/bias", "a/kernel", "a/kernel_scale"]


def from_elsewhere(architecture: dict, **weights: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    groups = {
        layer: {name: Tensor.of(np.zeros(shape, "float32")) for name, shape in named.items()}
        for layer, named in weights.items()
    }
    return spread(paths_of(architecture), LayerModel(architecture, groups, "keras3"))


def test_weights_of_other_formats_go_by_their_roles():
    found = from_elsewhere(sequential(dense("a")), a={"m/a/kernel": (2, 2), "m/a/bias": (2,)})
    assert {path: tensor.shape for path, tensor in found.items()} == {
        "layers/dense/vars/0": (2, 2),
        "layers/dense/vars/1": (2,),
    }


def test_those_of_an_unknown_class_go_in_order():
    found = from_elsewhere(sequential(OWN_CLASS), own={"own/w": (2, 2), "own/v": (3,)})
    assert {path: tensor.shape for path, tensor in found.items()} == {
        "layers/my_layer/vars/0": (2, 2),
        "layers/my_layer/vars/1": (3,),
    }


def test_where_an_unknown_class_has_layers_inside_no_file_says():
    with pytest.raises(WriteError, match=r"MyLayer is a class that only its author knows.*own, own/dense") as caught:
        from_elsewhere(sequential(OWN_CLASS), own={"own/w": (2, 2), "own/dense/kernel": (2, 2)})
    assert caught.value.where == "own"


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"a/kernel": (2, 2)}, r"a has 2 weights \(kernel, bias\), the file has 1 \(a/kernel\)"),
        ({"a/kernel": (3, 2), "a/bias": (2,)}, r"a/kernel has shape \(3, 2\), expected \(2, 2\)"),
        ({"a/kernel": (2, 2), "a/bias": (2,), "a/more": (2,)}, r"the file has 3 \(a/kernel, a/bias, a/more\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(named, sentence):
    with pytest.raises(WriteError, match=sentence):
        from_elsewhere(sequential(dense("a")), a=named)


def test_weights_alone_join_an_architecture():
    """By class and order, as Keras loads them: the order of the file, which is that of the alphabet, says nothing."""
    flat = {**dense("flat"), "class_name": "BatchNormalization", "config": {"name": "norm"}}
    architecture = sequential(dense("second"), flat, dense("first"))
    weights = {
        "layers/batch_normalization": tensors(*(f"vars/{number}" for number in range(4)), shape=(2,)),
        "layers/dense": tensors("vars/0", "vars/1"),
        "layers/dense_1": tensors("vars/0", "vars/1"),
    }
    model, plan = LayerModel(None, weights, "keras3"), LayerModel(architecture, {}, "keras3")
    found = joined(model, plan).weights
    assert list(found) == ["second", "norm", "first"]
    assert found["second"]["second/kernel"] is weights["layers/dense"]["vars/0"]
    assert found["first"]["first/bias"] is weights["layers/dense_1"]["vars/1"]
    with pytest.raises(
        ReadError, match=r"belong to no layer of the architecture: layers/batch_normalization/vars/0, l"
    ):
        joined(model, LayerModel(sequential(dense("first")), {}, "keras3"))


# -- against Keras -----------------------------------------------------------------------------------------------------


def random_model(keras, seed: int):
    """A functional model in which anything may follow anything: shared layers, models, models in models."""
    import random

    choose = random.Random(seed)
    layers = keras.layers
    names = (f"{choose.choice('abcxyz')}_{number}" for number in range(1000))

    def inner():
        start = keras.Input((4,))
        middle = layers.BatchNormalization()(layers.Dense(4)(start))
        return keras.Model(start, layers.Add()([middle, layers.Dense(4)(start)]), name=next(names))

    inputs = [keras.Input((4,), name=next(names)) for _ in range(choose.randrange(1, 4))]
    values = list(inputs)
    shared = [layers.Dense(4, name=next(names)), inner()]
    for _ in range(choose.randrange(4, 10)):
        kind, value = choose.randrange(6), choose.choice(values)
        if kind == 0:
            value = choose.choice(shared)(value)
        elif kind == 1:
            value = layers.Add(name=next(names))([value, choose.choice(values)])
        elif kind == 2:
            value = keras.Sequential([layers.Dense(4), layers.BatchNormalization()], name=next(names))(value)
        else:
            value = layers.Dense(4, name=next(names))(value)
        values.append(value)
    outputs = [values[-1], *(choose.choice(values[len(inputs) :]) for _ in range(choose.randrange(3)))]
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("framework", ["keras", "tf_keras"])
def test_any_model_is_walked_as_keras_walks_it(request, framework, seed, tmp_path):
    keras = request.getfixturevalue(framework)
    model = random_model(keras, seed)
    target = str(tmp_path / "model.keras")
    model.save(target)
    file = File(Path(target))
    paths = Paths(file.network, file.spelling)
    assert [layer.name for layer in paths.top] == [layer.name for layer in model.layers]
    assert set(paths.groups()) == {path for path in file.variables.groups if path.endswith("vars")}
    weights, _ = grouped(paths, file.variables.tensors)
    for layer in model.layers:
        assert [t.shape for t in weights[layer.name].values()] == [
            tuple(w.shape) for w in (*layer.trainable_weights, *layer.non_trainable_weights)
        ]
