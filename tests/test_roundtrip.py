"""What is written reads back as what it was: every model, every format that can hold it, every carrier.

Equality is that of the format's promise: what ``keeps`` names is compared, weights bit for bit and with their names.
"""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

import modelio
from tests.corpus import Case, cases, strays

LAYERS = [name for name, f in modelio.formats().items() if f.level == "layers" and f.write]
CARRIERS = ("bytes", "path", "stream", "mapping")


def carried(model, name: str, carrier: str, tmp_path):
    """The model after being written to a carrier and read back from it."""
    if carrier == "bytes":
        return modelio.read(modelio.write(model, format=name))
    if carrier == "path":
        return modelio.read(modelio.write(model, tmp_path / "written", format=name))
    if carrier == "stream":
        stream = io.BytesIO()
        modelio.write(model, stream, format=name)
        stream.seek(0)
        return modelio.read(stream)
    if modelio.formats()[name].shape == "blob":
        return modelio.read({"only": modelio.write(model, format=name)}["only"])
    return modelio.read(modelio.write(model, {}, format=name))


def tensors(mapping):
    return [(key, t.dtype, t.shape, t.numpy().tobytes()) for key, t in mapping.items()]


def same_layers(one: modelio.LayerModel, other: modelio.LayerModel, keeps: frozenset[str]) -> None:
    assert (one.dialect, dict(one.meta)) == (other.dialect, dict(other.meta))
    if "architecture" in keeps:
        assert json.dumps(one.architecture) == json.dumps(other.architecture)
    if "weights" in keeps:
        assert list(one.weights) == list(other.weights)
        for layer in one.weights:
            assert tensors(one.weights[layer]) == tensors(other.weights[layer])
    if "training" in keeps:
        assert json.dumps(one.training) == json.dumps(other.training)
    if "optimizer" in keeps:
        assert tensors(one.optimizer) == tensors(other.optimizer)


def _by_name(model: modelio.LayerModel) -> modelio.LayerModel:
    return replace(model, weights={layer: dict(sorted(group.items())) for layer, group in model.weights.items()})


def same_graph(one: modelio.GraphModel, other: modelio.GraphModel) -> None:
    assert one.graph.SerializeToString(deterministic=True) == other.graph.SerializeToString(deterministic=True)
    assert tensors(one.variables) == tensors(other.variables)
    assert tensors(one.constants) == tensors(other.constants)
    assert dict(one.signatures) == dict(other.signatures)
    assert one.tags == other.tags
    assert {name: source.bytes() for name, source in one.assets.items()} == {
        name: source.bytes() for name, source in other.assets.items()
    }


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("case", cases(file="model.h5"), ids=str)
def test_layers(case: Case, name, carrier, tmp_path):
    model = modelio.read(case / "model.h5")
    dialects = modelio.formats()[name].dialects
    if dialects is not None and model.dialect not in dialects:
        with pytest.raises(modelio.WriteError, match="dialect"):
            carried(model, name, carrier, tmp_path)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = carried(model, name, carrier, tmp_path)
    if name == "keras-zip" and case.version.startswith("contrib"):
        # A .keras file numbers a layer's weights in Keras' order, and contrib Keras has beta before gamma in its own.
        model, again = (_by_name(each) for each in (model, again))
    same_layers(model, again, modelio.formats()[name].keeps)


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("case", cases(file="saved_model_tf1") + cases(file="saved_model"), ids=str)
def test_saved_models(case: Case, carrier, tmp_path):
    folder = case / "saved_model_tf1"
    model = modelio.read(folder if folder.exists() else case / "saved_model")
    same_graph(model, carried(model, "saved-model", carrier, tmp_path))


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("case", cases(file="checkpoint_tf1"), ids=str)
def test_checkpoints(case: Case, carrier, tmp_path):
    model = modelio.read(case / "checkpoint_tf1")
    same_graph(model, carried(model, "checkpoint", carrier, tmp_path))


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("case", cases(file="frozen.pb"), ids=str)
def test_frozen_graphs(case: Case, carrier, tmp_path):
    model = modelio.read(case / "frozen.pb")
    same_graph(model, carried(model, "frozen-graph", carrier, tmp_path))


@pytest.mark.parametrize("name", [name for name, f in modelio.formats().items() if f.write])
def test_writing_twice_gives_the_same_bytes(name):
    case = cases(model="cnn", version="keras-3*" if name == "keras-zip" else "keras-2.0.5*", file="model.h5")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = (modelio.convert(case / "model.h5", to=name).data for _ in range(2))
    assert one == other


@pytest.mark.parametrize("stray", strays(), ids=str)
def test_files_from_the_wild_are_read_or_refused(stray):
    """None crashes, none is half read: a model that reads also gives every one of its numbers, or says why not."""
    try:
        model = modelio.read(stray.path)
        text = str(modelio.inspect(model))
    except modelio.ModelioError as refused:
        error = refused
    else:
        error = None
    if error is not None:
        assert len(str(error).splitlines()) == 1
        return
    assert text
    groups = model.weights.values() if isinstance(model, modelio.LayerModel) else (model.variables, model.constants)
    for group in groups:
        for tensor in group.values():
            try:
                array = tensor.numpy()
            except modelio.ReadError:
                continue  # a data shard that does not match its checksum, or is not beside a bare saved_model.pb
            assert array.shape == tensor.shape
            assert array.dtype == tensor.dtype or np.dtype(tensor.dtype).kind == "O"


def test_a_model_that_is_loaded_outlives_its_file(tmp_path):
    case = cases(model="cnn", file="model.h5")[0]
    copy = tmp_path / "model.h5"
    copy.write_bytes((case / "model.h5").read_bytes())
    lazy, loaded = modelio.read(copy), modelio.read(copy).load()
    copy.write_bytes(b"gone")
    same_layers(loaded, modelio.read(case / "model.h5"), frozenset({"weights"}))
    layer = next(name for name, group in lazy.weights.items() if group)
    with pytest.raises(modelio.ReadError, match="changed after"):
        next(iter(lazy.weights[layer].values())).numpy()


def test_a_model_can_be_written_over_the_file_it_is_read_from(tmp_path):
    case = cases(model="cnn", file="model.h5")[0]
    copy = tmp_path / "model.h5"
    copy.write_bytes((case / "model.h5").read_bytes())
    modelio.write(modelio.read(copy), copy, format="keras-h5", overwrite=True)
    same_layers(modelio.read(copy), modelio.read(case / "model.h5"), frozenset({"architecture", "weights"}))
