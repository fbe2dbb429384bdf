"""Renaming nodes: every name follows, and every loader still finds what it looks for."""

from __future__ import annotations

import numpy as np
import pytest

import modelio
from modelio.errors import ConversionError
from modelio.graph import references
from modelio.graph.builder import Builder
from modelio.graph.saver import COLLECTION
from modelio.graph.surgery.binding import bind
from modelio.graph.surgery.renaming import rename
from modelio.model import GraphModel, Signature, TensorSpec
from modelio.wire import messages
from tests import clients
from tests.corpus import case, golden, golden_arrays, record
from tests.graph.surgery.test_edit import dangling
from tests.test_surgery import close

pytestmark = pytest.mark.usefixtures("tensorflow")

HYBRID = case("hybrid_contrib-keras_tf-1.2.1/learning_phase_missing")


def small():
    g = Builder()
    x = g.placeholder("in/x", "float32", (2,))
    g.output("y", g.Mul(g.Neg(x, name="net/neg"), 2.0, name="net/mul"))
    ends = Signature({"x": TensorSpec("in/x:0", "float32", (2,))}, {"y": TensorSpec("y:0", "float32", (2,))})
    return GraphModel(g.graph, signatures={"serve": ends})


def names(model):
    return [node.name for node in model.graph.node]


def test_a_node_and_all_that_take_it():
    model = small()
    renamed, changes = rename(model, {"net/neg": "other"})
    assert names(renamed) == ["in/x", "other", "net/mul/y", "net/mul", "y"]
    assert list(renamed.graph.node[3].input) == ["other", "net/mul/y"]
    assert changes == ["node net/neg renamed to other"]
    assert names(model)[1] == "net/neg"  # the model that was given stays


def test_a_scope():
    assert names(rename(small(), {"net/": "model/sub/"})[0])[1:4] == [
        "model/sub/neg",
        "model/sub/mul/y",
        "model/sub/mul",
    ]
    assert names(rename(small(), {"net/": ""})[0])[1:4] == ["neg", "mul/y", "mul"]


def test_names_may_be_swapped():
    renamed, _ = rename(small(), {"net/neg": "net/mul", "net/mul": "net/neg"})
    assert [(node.name, node.op) for node in renamed.graph.node][1::2] == [("net/mul", "Neg"), ("net/neg", "Mul")]
    assert clients.frozen(messages.serialize(renamed.graph), {"in/x:0": np.float32([1, 2])}, ["y:0"])[0].tolist() == [
        -2,
        -4,
    ]


def test_signatures_keep_their_keys_and_name_the_new_tensors():
    renamed, _ = rename(small(), {"in/": "", "y": "answer"})
    (signature,) = renamed.signatures.values()
    assert signature.inputs == {"x": TensorSpec("x:0", "float32", (2,))}
    assert signature.outputs == {"y": TensorSpec("answer:0", "float32", (2,))}


def test_the_signature_of_a_bare_graph_is_named_after_the_nodes():
    model = modelio.read(modelio.write(small(), format="frozen-graph"))
    renamed, _ = rename(model, {"in/x": "x", "y": "answer"})
    assert renamed.signatures == modelio.read(modelio.write(renamed, format="frozen-graph")).signatures


def test_control_inputs_and_places_follow():
    model = small()
    model.graph.node[3].input.append("^in/x")
    model.graph.node[3].attr["_class"].list.s.extend([b"loc:@net/neg", b"loc:@elsewhere"])
    renamed, _ = rename(model, {"in/x": "x", "net/neg": "n"})
    assert list(renamed.graph.node[3].input) == ["n", "net/mul/y", "^x"]
    assert list(renamed.graph.node[3].attr["_class"].list.s) == [b"loc:@n", b"loc:@elsewhere"]


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"net/nag": "n"}, "no node is called 'net/nag'; there is 'net/neg'"),
        ({"nets/": "n/"}, "no node is below the scope 'nets/'; there are 'net/'"),
        ({"net/neg": "y"}, "at net/neg: there is a node called 'y' already"),
        ({"net/": "in/", "in/x": "in/neg"}, "'in/neg' is what another node is called"),
        ({"net/neg": "two words"}, "'two words' is no name that TensorFlow takes for a node"),
        ({"net/neg": ""}, "'' is no name that TensorFlow takes for a node"),
        ({"net/neg": "_n"}, "'_n' is no name"),
        ({"net/": "model"}, "'net/' is a scope, and 'model' is not: write 'model/'"),
        ({"net/": "a/", "net/neg": "b"}, "it is to be called 'a/neg' and 'b'"),
    ],
)
def test_names_that_do_not_do(new, said):
    with pytest.raises(ConversionError) as caught:
        rename(small(), new)
    assert said in str(caught.value)


def test_a_name_that_stays_changes_nothing():
    model = small()
    assert rename(model, {"y": "y"}) == (model, [])


@pytest.mark.parametrize("path", ["hybrid_keras-2.3.1_tf-1.15.5/learning_phase_missing", HYBRID.id])
def test_a_saved_model_of_tensorflow_1_under_other_names(path, tmp_path, tensorflow):
    """Saver, collections, variables: all that its loaders look at."""
    source = case(path)
    model, _ = bind(modelio.read(source.path), {"learning_phase": False})
    scopes = {name.partition("/")[0] for name in names(model) if "/" in name}
    new = {f"{scope}/": f"moved/{scope}/" for scope in scopes}
    new |= {name: f"bare_{name}" for name in names(model) if "/" not in name}
    renamed, changes = rename(model, new)
    assert changes[0].startswith(f"{len(names(model))} nodes renamed")
    assert dangling(renamed) == set()
    assert not references.referenced(renamed.extra) & set(names(model))
    folder = str(tmp_path / "export")
    modelio.write(renamed, folder, format="saved-model")
    arrays = golden_arrays(source)
    fetch = next(iter(renamed.signatures["serving_default"].outputs.values())).tensor
    (feed,) = [spec.tensor for spec in renamed.signatures["serving_default"].inputs.values()]
    assert feed == "bare_images:0"
    assert fetch == f"moved/{record(source)['probs']}"
    close(clients.c_api(folder, {feed: arrays["in_0"]}, [fetch]), [arrays["out_0"]])
    close(clients.session(folder, {feed: arrays["in_0"]}, [fetch]), [arrays["out_0"]])
    close(list(clients.tensorflow2(folder, {"images": arrays["in_0"]}).values()), [arrays["out_0"]])


def noted(model, key):
    """The nodes that a collection names."""
    found = set()
    references.changed({key: model.extra[key]}, lambda text: found.add(references.node_of(text)) or text)
    return found & set(names(model))


def test_names_in_collections_of_conditionals_follow():
    """TensorFlow looks up every name in them when it imports a graph."""
    model = modelio.read(HYBRID.path)
    key = f"{COLLECTION}cond_context"
    renamed, _ = rename(model, {"net/": "moved/"})
    old, new = noted(model, key), noted(renamed, key)
    assert "net/batch_normalization_1/cond/pred_id" in old or len(old) > 10
    assert {name.replace("moved/", "net/", 1) for name in new} == old
    assert not any(name.startswith("net/") for name in new)
    count = [len(messages.CollectionDef.FromString(one.extra[key]).bytes_list.value) for one in (model, renamed)]
    assert count[0] == count[1] > 0


def test_a_variable_without_a_saver_is_stored_under_its_new_name(tmp_path):
    source = case("keras-2.0.5_tf-1.2.1/mlp")
    with pytest.warns(UserWarning, match="does not keep optimizer"):
        model = modelio.read(modelio.convert(source / "model.h5", to="saved-model").data)
    with pytest.warns(UserWarning, match="does not keep optimizer"):
        lowered = modelio.convert(
            source / "model.h5", str(tmp_path / "a"), to="saved-model", rename={"dense_1/": "first/"}
        )
    assert "node dense_1/kernel renamed to first/kernel" in lowered.changes
    renamed = modelio.read(tmp_path / "a")
    assert {key.replace("first/", "dense_1/") for key in renamed.variables} == set(model.variables)
    assert any(key.startswith("first/") for key in renamed.variables)
    inputs, outputs = golden(source)
    (key,) = renamed.signatures["serving_default"].inputs
    close(list(clients.tensorflow2(str(tmp_path / "a"), {key: inputs[0]}).values()), outputs)


def test_a_tensorflow_2_export_under_other_names(tmp_path):
    source = case("extra_tf-2.4.4/assets")
    model = modelio.read(source.path)
    renamed, _ = rename(model, {name: f"n_{name}" for name in names(model) if "/" not in name})
    assert dangling(renamed) == set()
    modelio.write(renamed, str(tmp_path / "export"), format="saved-model")
    word = {"word": np.array([b"cat", b"?"], object)}
    got, wanted = (clients.tensorflow2(str(folder), word) for folder in (tmp_path / "export", source.path))
    assert got["id"].tolist() == wanted["id"].tolist()
