"""Several MetaGraphs in one SavedModel: each is found by its tags, and all share the variables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import modelio
from modelio.errors import ConversionError
from modelio.graph.builder import Builder
from modelio.graph.surgery.binding import bind
from modelio.graph.surgery.merging import merge, retag
from modelio.graph.surgery.pruning import prune
from modelio.model import GraphModel, Signature, Tensor, TensorSpec
from modelio.source import Source
from tests import clients
from tests.corpus import case, golden_arrays, record
from tests.test_surgery import close

pytestmark = pytest.mark.usefixtures("tensorflow")

HYBRID = case("hybrid_contrib-keras_tf-1.2.1/learning_phase_missing")


def small(factor, tags, **values):
    """``x * w * factor``; ``values`` are its variables."""
    g = Builder()
    y = g.placeholder("x", "float32", (2,))
    for name, value in ({"w": [1.0, 2.0]} | values).items():
        y = g.Mul(y, g.variable(name, Tensor.of(np.array(value, np.float32))))
    big = g.constant(np.full((200, 200), factor, np.float32), name="factor")
    g.output("y", g.Mul(y, g.node("Slice", big, [0, 0], [1, 1]), name="product"))
    ends = Signature({"x": TensorSpec("x:0", "float32", (2,))}, {"y": TensorSpec("y:0", "float32", (1, 2))}, "m")
    return GraphModel(
        g.graph,
        variables=g.variables,
        constants=g.constants,
        signatures={"serving_default": ends},
        tags=frozenset(tags),
    )


def test_each_graph_is_found_by_its_tags(tmp_path):
    merged, changes = merge([small(1, ["serve"]), small(10, ["serve", "gpu"]), small(3, ["train"], b=[5, 5])])
    assert changes == ["3 MetaGraphs over 2 variables: [serve], [gpu,serve], [train]"]
    folder = str(tmp_path / "export")
    modelio.write(merged, folder, format="saved-model")
    for tags, wanted in ((["serve"], [1, 2]), (["serve", "gpu"], [10, 20]), (["train"], [15, 30])):
        feeds = {"x:0": np.float32([1, 1])}
        assert clients.c_api(folder, feeds, ["y:0"], tags)[0].reshape(-1).tolist() == wanted
        assert clients.session(folder, feeds, ["y:0"], tags)[0].reshape(-1).tolist() == wanted
        read = modelio.read(folder, tags=tags)
        assert read.tags == frozenset(tags)
        assert read.constants["factor"].numpy()[0, 0] == wanted[0] / (5 if tags == ["train"] else 1)


def test_a_merged_model_is_read_written_and_merged_again():
    merged, _ = merge([small(1, ["serve"]), small(10, ["gpu"])])
    again = modelio.read(modelio.write(merged, format="saved-model"), tags="serve")
    assert again.extra["saved_model"] == merged.extra["saved_model"]
    third, changes = merge([again, small(3, ["train"])])
    assert changes[0].startswith("3 MetaGraphs over 1 variables")
    for tags in ("serve", "gpu", "train"):
        assert modelio.read(modelio.write(third, format="saved-model"), tags=tags).tags == {tags}


def test_the_training_graph_beside_the_one_to_serve(tmp_path):
    """What a user does: the graph as it was, and the bound and pruned one that is served."""
    model = modelio.read(HYBRID.path)
    serving, _ = prune(bind(model, {"learning_phase": False})[0])
    training, _ = retag(model, ["train"])
    modelio.convert(serving, str(tmp_path / "export"), to="saved-model", merge=[training])
    arrays = golden_arrays(HYBRID)
    fetch = record(HYBRID)["probs"]
    close(clients.c_api(str(tmp_path / "export"), {"images:0": arrays["in_0"]}, [fetch]), [arrays["out_0"]])
    phase = {record(HYBRID)["learning_phase"]: np.array(False)}
    feeds = {"images:0": arrays["in_0"], **phase}
    close(clients.session(str(tmp_path / "export"), feeds, [fetch], ["train"]), [arrays["out_0"]])


def test_variables_that_differ_are_refused():
    other = replace(small(2, ["gpu"]), variables={"w": Tensor.of(np.float32([1, 3]))})
    with pytest.raises(ConversionError, match="at w: two models have a variable of this name, and they differ"):
        merge([small(1, ["serve"]), other])
    for different in (np.float32([1, 2, 3]), np.float64([1, 2])):
        with pytest.raises(ConversionError, match="differ"):
            merge([small(1, ["serve"]), replace(other, variables={"w": Tensor.of(different)})])


def test_the_same_bytes_in_other_pieces_are_the_same():
    data = np.arange(2, dtype=np.float32).tobytes()
    pieces = Tensor(np.float32, (2,), lambda: np.arange(2, dtype=np.float32), lambda: iter([data[:3], b"", data[3:]]))
    models = [replace(small(f, [tag]), variables={"w": w}) for f, tag, w in
              ((1, "a", pieces), (2, "b", Tensor.of(np.arange(2, dtype=np.float32))))]  # fmt: skip
    assert len(merge(models)[0].variables) == 1


def test_tags_must_differ():
    with pytest.raises(ConversionError, match=r"two MetaGraphs are tagged \[serve\]"):
        merge([small(1, ["serve"]), small(2, ["serve"])])
    with pytest.raises(ConversionError, match=r"two MetaGraphs are tagged \[serve\]"):
        merge([small(1, ["serve"]), small(2, [])])  # without a tag, it is written as serve


def test_assets_must_not_differ():
    one, two = (replace(small(f, [tag]), assets={"words.txt": Source.of(text)}) for f, tag, text in
                ((1, "a", b"yes"), (2, "b", b"no")))  # fmt: skip
    with pytest.raises(ConversionError, match=r"at words.txt: two models have an asset of this name"):
        merge([one, two])
    assert list(merge([one, replace(two, assets=one.assets)])[0].assets) == ["words.txt"]


def test_one_model_is_itself():
    model = small(1, ["serve"])
    merged, changes = merge([model])
    assert merged.graph is not None
    assert changes == []


def test_exports_of_tensorflow_2_lose_their_objects(tmp_path):
    model = modelio.read(case("extra_tf-2.4.4/multi_signature").path)
    merged, _ = merge([model, replace(model, tags=frozenset({"other"}))])
    modelio.write(merged, str(tmp_path / "export"), format="saved-model")
    spec = model.signatures["serving_default"]
    arrays = {key: np.ones([size or 2 for size in end.shape], end.dtype) for key, end in spec.inputs.items()}
    wanted = clients.tensorflow2(str(case("extra_tf-2.4.4/multi_signature").path), arrays)
    feeds = {spec.inputs[key].tensor: value for key, value in arrays.items()}
    for tags in (["serve"], ["other"]):
        for key, end in spec.outputs.items():
            (got,) = clients.c_api(str(tmp_path / "export"), feeds, [end.tensor], tags)
            assert got.tolist() == wanted[key].tolist()


def test_other_tags(tmp_path):
    source = case("hybrid_contrib-keras_tf-1.2.1/wrong_tag")
    conversion = modelio.convert(source.path, str(tmp_path / "export"), to="saved-model", retag="serve")
    assert conversion.changes == ("tagged [serve]",)
    assert modelio.read(tmp_path / "export").tags == {"serve"}
    model = modelio.read(source.path)
    assert retag(model, model.tags) == (model, [])
    with pytest.raises(ConversionError, match="without a tag"):
        retag(model, ["", " "])
    merged, _ = merge([small(1, ["serve"]), small(10, ["gpu"])])
    with pytest.raises(ConversionError, match=r"another MetaGraph of this model is tagged \[gpu\]"):
        retag(merged, ["gpu"])
