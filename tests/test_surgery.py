"""Surgery on the way: what ``convert`` is asked to do to a graph, from file to file."""

from __future__ import annotations

import numpy as np
import pytest

import modelio
from tests import clients
from tests.corpus import case, golden, golden_arrays, record

pytestmark = pytest.mark.usefixtures("tensorflow")

no_signatures = pytest.mark.filterwarnings("ignore:frozen-graph does not keep")


def hybrid(name):
    return case(f"hybrid_contrib-keras_tf-1.2.1/{name}")


def close(got, wanted):
    """Equal within 1e-5 of the largest number, one by one."""
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * max(1e-30, float(np.abs(other).max())))


def test_what_is_asked_of_a_graph_is_done_in_the_right_order(tmp_path):
    """Names of before renaming are bound, names of after it are outputs and tensors of signatures."""
    source = hybrid("two_signatures")
    conversion = modelio.convert(
        source.path,
        str(tmp_path / "export"),
        to="saved-model",
        outputs=["probabilities"],
        signatures={
            "predict_images": None,
            "serving_default": None,
            "probabilities": {"inputs": {"x": "pixels:0"}, "outputs": {"probabilities": "model/dense_2/Softmax"}},
        },
        rename={"net/": "model/", "images": "pixels"},
        bind={"net/batch_normalization/keras_learning_phase": False},
        retag=["serve", "surgery"],
    )
    model = modelio.read(tmp_path / "export")
    assert list(model.signatures) == ["probabilities"]
    assert model.tags == {"serve", "surgery"}
    assert conversion.changes[0] == "placeholder net/batch_normalization/keras_learning_phase bound to False"
    assert conversion.changes[-1] == "tagged [serve,surgery]"
    arrays = golden_arrays(source)
    feeds = {"pixels:0": arrays["in_0"]}
    got = clients.c_api(str(tmp_path / "export"), feeds, ["model/dense_2/Softmax:0"], ("serve", "surgery"))
    close(got, [arrays["out_0"]])


@no_signatures
def test_a_frozen_graph_of_a_bound_and_pruned_export():
    source = hybrid("labels_required")
    data = modelio.convert(source.path, to="frozen-graph", bind={"learning_phase": "false"}, outputs=["scores"]).data
    model = modelio.read(data)
    assert set(model.signatures["graph"].inputs) == {"images"}
    assert not {"Switch", "Merge", "VariableV2", "Assign"} & {node.op for node in model.graph.node}
    arrays = golden_arrays(source)
    close(clients.frozen(data, {"images:0": arrays["in_0"]}, ["net/dense_2/Softmax:0"]), [arrays["out_0"]])


@no_signatures
@pytest.mark.parametrize(
    "asked",
    [
        {"outputs": ["net/dropout_2/cond/Merge"]},
        {"outputs": ["x"], "rename": {"net/dropout_2/cond/Merge": "x"}},
        {"signatures": {"hidden": {"inputs": {"i": "images"}, "outputs": {"o": "net/dropout_2/cond/Merge"}}}},
    ],
)
def test_what_is_asked_for_by_name_is_not_folded_away(asked):
    """Once the learning phase is bound, this Merge has nothing left to merge."""
    source = hybrid("learning_phase_missing")
    name = "x" if "rename" in asked else "net/dropout_2/cond/Merge"
    bound = modelio.convert(source.path, to="frozen-graph", bind={"learning_phase": False}, **asked).data
    whole = modelio.convert(source.path, to="frozen-graph", outputs=["net/dropout_2/cond/Merge"]).data
    images = golden_arrays(source)["in_0"]
    close(
        clients.frozen(bound, {"images:0": images}, [f"{name}:0"]),
        clients.frozen(
            whole,
            {"images:0": images, "net/batch_normalization/keras_learning_phase:0": np.array(False)},
            ["net/dropout_2/cond/Merge:0"],
        ),
    )


@no_signatures
@pytest.mark.parametrize("training", [False, True])
def test_an_argument_of_a_tensorflow_2_function_is_bound(training, tmp_path):
    """In a SavedModel the Python objects go, which do not know of it, with outputs named or without."""
    source = case("extra_tf-2.4.4/multi_signature").path
    arrays = {"n": np.int32(3), "training": np.array(training)}
    wanted = clients.tensorflow2(str(source), arrays, "loop")["y"]
    for inline in (False, True):
        data = modelio.convert(
            source, to="frozen-graph", signature="loop", bind={"loop_training": training}, inline=inline
        ).data
        model = modelio.read(data)
        assert list(model.signatures["graph"].inputs) == ["loop_n"]
        ops = {node.op for node in model.graph.node}
        ops |= {node.op for function in model.graph.library.function for node in function.node_def}
        assert not {"If", "StatelessIf"} & ops
        assert not (inline and "PartitionedCall" in ops)
        (output,) = model.signatures["graph"].outputs.values()
        close(clients.frozen(data, {"loop_n:0": np.int32(3)}, [output.tensor]), [wanted])
    folder = str(tmp_path / "export")
    options = {"signature": "loop", "bind": {"loop_training": training}}
    for outputs in (None, ["y"]):
        modelio.convert(source, folder, to="saved-model", outputs=outputs, overwrite=True, **options)
        close([clients.tensorflow2(folder, {"n": np.int32(3)}, "loop")["y"]], [wanted])


@no_signatures
def test_a_graph_thawed_and_frozen_again_is_the_same(tmp_path):
    source = case("keras-2.0.5_tf-1.2.1/cnn")
    bound = modelio.convert(source / "frozen.pb", to="frozen-graph", bind={"learning_phase": False}).data
    folder = str(tmp_path / "export")
    thawed = modelio.convert(bound, folder, to="saved-model", thaw=1)
    assert any("constants became variables" in change for change in thawed.changes)
    assert len(modelio.read(folder).variables) > 4
    inputs, outputs = golden(source)
    (feed, fetch) = record(source)["frozen_inputs"][0], record(source)["frozen_outputs"][0]
    close(clients.c_api(folder, {feed: inputs[0]}, [fetch]), outputs)
    close(clients.frozen(modelio.convert(folder, to="frozen-graph").data, {feed: inputs[0]}, [fetch]), outputs)


@no_signatures
def test_one_metagraph_of_several_is_converted(tmp_path):
    first, second = hybrid("learning_phase_missing"), hybrid("wrong_tag")
    wrong = modelio.read(second.path).tags
    retagged = modelio.read(first.path)
    retagged.tags = wrong
    both = str(tmp_path / "both")
    modelio.convert(first.path, both, to="saved-model", merge=[retagged])
    for tags in (("serve",), tuple(sorted(wrong))):
        data = modelio.convert(both, to="frozen-graph", tags=tags, bind={"learning_phase": False}).data
        arrays = golden_arrays(first)
        close(clients.frozen(data, {"images:0": arrays["in_0"]}, ["net/dense_2/Softmax:0"]), [arrays["out_0"]])
    pruned = modelio.convert(both, to="saved-model", tags="serve", bind={"learning_phase": False}, outputs=["scores"])
    assert any("the other MetaGraphs removed" in change for change in pruned.changes)
    assert modelio.read(pruned.data).tags == {"serve"}
    bound = modelio.convert(both, to="saved-model", tags="serve", bind={"learning_phase": False}).data
    assert modelio.read(bound, tags=tuple(wrong)).tags == wrong
    with pytest.raises(modelio.ReadError, match="no MetaGraph is tagged"):
        modelio.convert(both, to="frozen-graph", tags="nothing")


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("model.h5", {"bind": {"x": 1}, "to": "saved-model"}, "bind= names placeholders of a graph"),
        ("model.h5", {"signature": "x", "to": "saved-model"}, "signature= chooses one of a graph's signatures"),
        ("model.h5", {"outputs": ["x"], "to": "keras-h5"}, "outputs= changes a graph, and layers are asked for"),
        ("frozen.pb", {"thaw": True, "to": "frozen-graph"}, "thaw= is for a SavedModel"),
        ("frozen.pb", {"retag": "x", "to": "frozen-graph"}, "retag= is for a SavedModel"),
        ("frozen.pb", {"merge": ["model.h5"], "to": "saved-model"}, "merge= takes graphs, and these are layers"),
        ("frozen.pb", {"outputs": ["nothing"], "to": "saved-model"}, "no node and no output of a signature is called"),
        ("frozen.pb", {"signatures": {"a": {"outputs": {}}}, "to": "saved-model"}, "answers nothing"),
        ("frozen.pb", {"signatures": {"a": {"output": {}}}, "to": "saved-model"}, "says 'output'; it takes inputs"),
    ],
)
def test_surgery_that_cannot_be(source, options, said):
    folder = case("keras-2.0.5_tf-1.2.1/cnn")
    if "merge" in options:
        options = {**options, "merge": [folder / name for name in options["merge"]]}
    with pytest.raises(modelio.ConversionError) as caught:
        modelio.convert(folder / source, **options)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)
