"""Layers out of graphs that say what they were made of: our own exports, and SavedModels of tf.keras."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelio
from modelio.errors import ConversionError, ReadError
from modelio.layers.values import version_of
from modelio.lifting import lift
from modelio.lifting.keras_objects import METADATA, _plain
from modelio.model import GraphModel, LayerModel, Tensor
from modelio.source import Source
from modelio.wire import messages
from tests.corpus import MODELS, Case, cases, data, strays

TF_KERAS = cases(version=("tfkeras_tf-2*", "tf_keras*"), file=("saved_model", "model.h5"))

OLDER = sorted(path.parent for path in (data() / "lifting").glob("tf-2*/*/model.h5"))
"""SavedModels of TensorFlow 2.0 and 2.4, whose metadata is in the objects themselves."""


def lifted(path: Path) -> LayerModel:
    model = modelio.read(path)
    assert isinstance(model, GraphModel)
    found, changes = lift(model)
    assert changes == []
    return found


def assert_same_arrays(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert found[name].numpy().tobytes() == tensor.numpy().tobytes(), name


# -- tf.keras ----------------------------------------------------------------------------------------------------------

SHARED = frozenset({"shared_object_id"})
"""A number for each object of a file, since Keras 2.5: a SavedModel's metadata has all of them, HDF5 files have some."""

SINCE_2_12 = SHARED | frozenset({"module", "registered_name", "build_config"})
"""What hdf5_format.py has in the JSON of objects since Keras 2.12, and the metadata of a SavedModel has not."""


def without(value: Any, keys: frozenset[str]) -> Any:
    """A JSON value without some keys of its objects, those that have a class_name."""
    if isinstance(value, list):
        return [without(item, keys) for item in value]
    if not isinstance(value, dict):
        return value
    dropped = keys if "class_name" in value else frozenset()
    return {key: without(item, keys) for key, item in value.items() if key not in dropped}


def assert_is_its_h5(found: LayerModel, beside: Path) -> None:
    """All is as in the file that the same version wrote beside the SavedModel."""
    wanted = modelio.read(beside)
    assert isinstance(wanted, LayerModel)
    assert list(found.weights) == list(wanted.weights)
    for layer, group in wanted.weights.items():
        assert_same_arrays(dict(found.weights[layer]), dict(group))
    assert_same_arrays(dict(found.optimizer), dict(wanted.optimizer))
    assert (found.dialect, found.meta, found.training) == (wanted.dialect, wanted.meta, wanted.training)
    newer = version_of(wanted.meta["keras_version"]) >= (2, 12)
    assert found.architecture == without(wanted.architecture, SINCE_2_12 if newer else SHARED)


@pytest.mark.parametrize("case", TF_KERAS)
def test_a_saved_model_of_tf_keras_is_the_h5_beside_it(case: Case) -> None:
    try:
        modelio.read(case / "model.h5")
    except ReadError:
        pytest.skip("its framework could not write the table into an .h5")
    assert_is_its_h5(lifted(case / "saved_model"), case / "model.h5")


@pytest.mark.parametrize("folder", OLDER, ids=lambda path: "/".join(path.parts[-2:]))
def test_so_is_one_from_before_keras_metadata(folder: Path) -> None:
    assert_is_its_h5(lifted(folder / "saved_model"), folder / "model.h5")


@pytest.mark.parametrize(
    "case", cases(version=("tfkeras_tf-2*", "tf_keras*"), file=("saved_model", "weights_list.npz"))
)
def test_its_get_weights_are_those_of_the_framework(case: Case) -> None:
    with np.load(case / "weights_list.npz", allow_pickle=True) as stored:  # a table's words are Python objects
        wanted = [stored[name] for name in sorted(stored.files)]
    found = lifted(case / "saved_model").get_weights()
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


def test_a_table_of_tensorflow_2_4_has_words_that_are_none() -> None:
    found = lifted(data() / "lifting" / "tf-2.4.4" / "pre" / "saved_model")
    # adapted to b a b c and 30 10 30; the table begins with those for what is missing and what is unknown
    assert found.weights["s"]["s/vocabulary:0"].numpy().tolist() == [b"b", b"c", b"a"]
    assert found.weights["t"]["t/vocabulary:0"].numpy().tolist() == [30, 10]
    assert found.weights["n"]["count:0"].numpy() == 9


def test_a_model_written_as_a_class_is_refused_and_its_weights_are_offered() -> None:
    model = modelio.read(data() / "lifting" / "tf-2.0.4" / "subclassed" / "saved_model")
    with pytest.raises(
        ConversionError, match="Sub was saved without its architecture: it is written as a Python class"
    ):
        lift(model)
    wanted = np.load(data() / "lifting" / "tf-2.0.4" / "subclassed" / "weights_list.npz")
    layers = [{"class_name": "Dense", "config": {"name": name, "units": units}} for name, units in (("d", 3), ("e", 2))]
    layers[0]["config"]["batch_input_shape"] = [None, 4]
    architecture = LayerModel.from_json({"class_name": "Sequential", "config": layers, "keras_version": "2.2.4-tf"})
    found, _ = lift(model, architecture)
    for mine, name in zip(found.get_weights(), sorted(wanted.files), strict=True):
        np.testing.assert_array_equal(mine, wanted[name])


def test_the_architecture_that_export_saved_model_wrote_is_an_asset() -> None:
    folder = data() / "lifting" / "tf-1.15.5" / "exported"
    wanted = modelio.read(folder / "model.h5")
    for tags, changes in (("serve", []), ("train", ["signatures that layers do not have: train"])):
        found, told = lift(modelio.read(folder / "saved_model", tags=tags))
        assert told == changes
        for layer, group in wanted.weights.items():
            assert_same_arrays(dict(found.weights[layer]), dict(group))


@pytest.mark.parametrize("stray", strays(kind="SavedModel TF2"))
def test_saved_models_of_other_projects_are_lifted_or_refused(stray) -> None:
    model = modelio.read(stray.path)
    refused = None
    try:
        found, _ = lift(model)
    except ConversionError as error:
        refused = str(error)
    assert "architecture=" in refused if refused else found.get_weights()


# -- damage ------------------------------------------------------------------------------------------------------------


def small() -> GraphModel:
    (case,) = cases(model="multi_io", version="tfkeras_tf-2.8.4", file="saved_model")
    model = modelio.read(case / "saved_model")
    assert isinstance(model, GraphModel)
    return model


def told(model: GraphModel, change: dict[str, Any]) -> GraphModel:
    """The same with other things in the metadata of the root."""
    saved = messages.parse(messages.SavedMetadata, model.extra[METADATA], where=None)
    (root,) = [node for node in saved.nodes if node.node_id == 0]
    root.metadata = json.dumps({**json.loads(root.metadata), **change})
    return replace(model, extra={**model.extra, METADATA: messages.serialize(saved)})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"training_config": 7}, "training_config is no JSON object"),
        ({"model_config": {"class_name": "Functional", "config": {"layers": [7], "input_layers": []}}}, "class_name"),
        ({"model_config": None, "config": {}}, "could not say how it was made"),
        ({"model_config": None, "config": {}, "class_name": "Mine"}, "Mine was saved without its architecture"),
    ],
)
def test_damaged_metadata_is_refused_by_name(change, reason) -> None:
    with pytest.raises((ReadError, ConversionError), match=reason):
        lift(told(small(), change))


def test_metadata_that_is_no_json_is_refused() -> None:
    saved = messages.SavedMetadata()
    saved.nodes.add(node_id=0, metadata="{" * 9, identifier="_tf_keras_network")
    model = small()
    with pytest.raises(ReadError, match="this is not JSON"):
        lift(replace(model, extra={**model.extra, METADATA: messages.serialize(saved)}))


def test_a_variable_that_the_checkpoint_has_lost_is_named() -> None:
    model = small()
    key = next(key for key in model.variables if "kernel" in key)
    with pytest.raises(ReadError, match="the checkpoint does not have this variable") as caught:
        lift(replace(model, variables={name: tensor for name, tensor in model.variables.items() if name != key}))
    assert (caught.value.where or "").endswith("kernel:0")


# -- graphs that do not say it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases(version="keras-3*", file="saved_model"))
def test_an_export_of_keras_3_says_that_it_keeps_no_layers(case: Case) -> None:
    with pytest.raises(ConversionError, match=r"an export of Keras 3, which keeps the weights .* architecture="):
        lift(modelio.read(case / "saved_model"))


@pytest.mark.parametrize("case", cases(model="mlp", file="frozen.pb"))
def test_a_frozen_graph_does_not_say_its_layers(case: Case) -> None:
    with pytest.raises(ConversionError, match="a graph does not say what layers it was made of"):
        modelio.convert(case / "frozen.pb", to="keras-h5")


# -- our own -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:saved-model does not keep")
@pytest.mark.parametrize("case", cases(model=MODELS, file="model.h5"))
def test_our_own_export_gives_back_what_was_lowered(case: Case) -> None:
    wanted = modelio.read(case / "model.h5")
    exported = modelio.convert(case / "model.h5", to="saved-model", overwrite=True)
    back = modelio.convert(exported.data, to="keras-h5")
    assert back.route == ("saved-model", "lift", "keras-h5")
    assert (back.losses, back.changes) == ((), ())
    found = modelio.read(back.data)
    assert found.architecture == wanted.architecture
    assert (found.dialect, found.training) == (wanted.dialect, wanted.training)
    assert list(found.weights) == list(wanted.weights)
    for layer, group in wanted.weights.items():
        assert_same_arrays(dict(found.weights[layer]), dict(group))
    # Only the optimizer's state is gone: the conversion has said so.
    assert not found.optimizer


def test_the_architecture_that_is_given_counts_more_than_the_notes() -> None:
    (case,) = cases(model="mlp", version="keras-2.3.1*", file="model.h5")
    with pytest.warns(UserWarning, match="does not keep"):
        exported = modelio.convert(case / "model.h5", to="saved-model")
    other = LayerModel.from_json({"class_name": "Sequential", "config": [], "keras_version": "2.3.1"})
    with pytest.raises(ReadError, match="has no layers"):
        modelio.convert(exported.data, to="keras-h5", architecture=other)


def test_layers_cannot_be_asked_of_a_part_of_a_graph() -> None:
    with pytest.raises(ConversionError, match="layers are asked for"):
        modelio.convert(small(), to="keras-h5", signature="serving_default")


def test_an_asset_that_is_no_architecture_is_refused() -> None:
    model = GraphModel(messages.GraphDef(), assets={"saved_model.json": Source.of(b"[]")})
    with pytest.raises(ReadError, match="no architecture"):
        lift(model)


def test_what_the_metadata_alone_says_is_left_out() -> None:
    """tf_keras 2.21 ``layer_serialization.py``, VocabularySavedModelSaver: the argument itself says as much."""
    noted = {"class_name": "StringLookup", "config": {"vocabulary": ["a"], "has_input_vocabulary": True}}
    assert _plain({**noted, "shared_object_id": 3}) == {"class_name": "StringLookup", "config": {"vocabulary": ["a"]}}
