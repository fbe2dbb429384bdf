"""MetaGraphDefs in and out of a model: nothing is lost, and what changed is said as TensorFlow reads it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelio.errors import ReadError
from modelio.graph import meta_graph
from modelio.model import GraphModel, Message, Signature, TensorSpec
from modelio.wire import messages
from tests.corpus import cases

SAVED = [
    path
    for one in cases()
    for path in (one / "saved_model.pb", one / "saved_model/saved_model.pb", one / "saved_model_tf1/saved_model.pb")
    if path.exists()
]

UNKNOWN = b"\xfa\x3e\x03abc"
"""Field 999 of any message, which no TensorFlow has."""


def spelled(text: str) -> Message:
    return messages.parse_text(messages.MetaGraphDef, text, where="test")


def taken(meta: Message) -> GraphModel:
    """The model of a MetaGraphDef, which is empty afterwards."""
    model = GraphModel(
        graph=meta.graph_def,
        signatures=meta_graph.signatures_of(meta),
        tags=frozenset(meta.meta_info_def.tags),
        meta=meta_graph.facts(meta),
    )
    model.extra = meta_graph.take_rest(meta)
    return model


@pytest.mark.parametrize("path", SAVED, ids=lambda path: "/".join(path.parts[-4:-1]))
def test_a_real_one_is_built_again_as_it_was(path) -> None:
    original = messages.SavedModel.FromString(path.read_bytes()).meta_graphs[0]
    again = messages.SavedModel.FromString(path.read_bytes()).meta_graphs[0]
    assert meta_graph.build(taken(again)) == original


def test_unknown_fields_survive_at_every_level() -> None:
    signature = messages.SignatureDef.FromString(b"\x1a\x01m" + UNKNOWN)
    meta = messages.MetaGraphDef.FromString(UNKNOWN)
    meta.meta_info_def.MergeFromString(UNKNOWN)
    meta.saver_def.MergeFromString(UNKNOWN)
    meta.object_graph_def.MergeFromString(UNKNOWN)
    meta.graph_def.MergeFromString(UNKNOWN)
    meta.graph_def.versions.producer = 1
    meta.asset_file_def.add(filename="a").MergeFromString(UNKNOWN)
    meta.collection_def["c"].MergeFromString(UNKNOWN)
    meta.signature_def["s"].CopyFrom(signature)
    data = messages.serialize(meta)
    assert data.count(UNKNOWN) == 8
    assert messages.serialize(meta_graph.build(taken(meta))) == data


SIGNED = """
meta_info_def { tags: "serve" }
graph_def { versions { producer: 24 } }
signature_def { key: "s" value {
  inputs { key: "dense" value { name: "x:0" dtype: DT_HALF tensor_shape { dim { size: -1 name: "batch" } dim { size: 3 } } } }
  inputs { key: "any" value { name: "y:0" dtype: DT_STRING tensor_shape { unknown_rank: true } } }
  inputs { key: "silent" value { name: "z:0" dtype: DT_FLOAT } }
  inputs { key: "scalar" value { name: "b:0" dtype: DT_BOOL tensor_shape { } } }
  inputs { key: "sparse" value { dtype: DT_INT32 tensor_shape { dim { size: -1 } dim { size: 9 } } coo_sparse {
    values_tensor_name: "v:0" indices_tensor_name: "i:0" dense_shape_tensor_name: "d:0" } } }
  inputs { key: "ragged" value { composite_tensor {
    type_spec { type_spec_class: RAGGED_TENSOR_SPEC }
    components { name: "r:0" dtype: DT_FLOAT tensor_shape { dim { size: -1 } } }
    components { name: "r:1" dtype: DT_INT64 tensor_shape { dim { size: -1 } } } } } }
  outputs { key: "out" value { name: "o:2" dtype: DT_INT64 tensor_shape { dim { size: -1 } } } }
  method_name: "tensorflow/serving/predict"
  defaults { key: "scalar" value { dtype: DT_BOOL bool_val: true } }
} }
signature_def { key: "__saved_model_init_op" value { outputs { key: "__saved_model_init_op" value { name: "init" } } } }
"""


def test_what_a_signature_says() -> None:
    signatures = meta_graph.signatures_of(spelled(SIGNED))
    assert signatures == {
        "s": Signature(
            inputs={
                "any": TensorSpec("y:0", "string", None),
                "dense": TensorSpec("x:0", "float16", (None, 3)),
                "ragged_component_0": TensorSpec("r:0", "float32", (None,)),
                "ragged_component_1": TensorSpec("r:1", "int64", (None,)),
                "scalar": TensorSpec("b:0", "bool", ()),
                "silent": TensorSpec("z:0", "float32", None),
                "sparse_dense_shape": TensorSpec("d:0", "int64", (2,)),
                "sparse_indices": TensorSpec("i:0", "int64", (None, 2)),
                "sparse_values": TensorSpec("v:0", "int32", (None,)),
            },
            outputs={"out": TensorSpec("o:2", "int64", (None,))},
            method="tensorflow/serving/predict",
        )
    }


def test_the_init_op_is_no_signature_and_stays() -> None:
    again = meta_graph.build(taken(spelled(SIGNED)))
    assert again == spelled(SIGNED)
    assert again.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name == "init"


def test_a_changed_input_leaves_the_words_of_the_others() -> None:
    model = taken(spelled(SIGNED))
    old = model.signatures["s"]
    inputs = {**old.inputs, "dense": TensorSpec("x:0", "float32", None), "new": TensorSpec("n:0", "int8", (4, None))}
    del inputs["sparse_values"]  # then the sparse tensor is none, and its other parts stand alone
    model.signatures = {"s": replace(old, inputs=inputs, method="other")}
    again = meta_graph.build(model).signature_def["s"]
    original = spelled(SIGNED).signature_def["s"]
    for kept in ("any", "silent", "scalar", "ragged"):
        assert again.inputs[kept] == original.inputs[kept]
    assert again.inputs["dense"].tensor_shape.unknown_rank
    assert again.inputs["dense"].dtype == 1
    assert [dim.size for dim in again.inputs["new"].tensor_shape.dim] == [4, -1]
    assert again.inputs["sparse_indices"].name == "i:0"
    assert "sparse" not in again.inputs
    assert again.method_name == "other"
    assert again.defaults == original.defaults


def test_a_signature_that_was_removed_is_not_written() -> None:
    model = taken(spelled(SIGNED))
    model.signatures = {}
    assert list(meta_graph.build(model).signature_def) == ["__saved_model_init_op"]


def test_changed_tags_are_written_sorted() -> None:
    model = taken(spelled(SIGNED))
    model.tags = frozenset({"serve", "gpu"})
    assert list(meta_graph.build(model).meta_info_def.tags) == ["gpu", "serve"]


def test_a_model_from_elsewhere_is_tagged_and_says_who_wrote_it() -> None:
    built = meta_graph.build(GraphModel(graph=messages.GraphDef()))
    info = built.meta_info_def
    assert list(info.tags) == ["serve"]
    assert info.tensorflow_version == "1.15.0"
    assert info.tensorflow_git_version.startswith("modelio ")
    assert info.stripped_default_attrs
    assert built.graph_def.versions.producer == 24
    assert not built.HasField("saver_def")


def test_the_versions_of_a_graph_are_its_own() -> None:
    graph = messages.GraphDef(versions={"producer": 1087, "min_consumer": 12})
    assert meta_graph.build(GraphModel(graph=graph)).graph_def.versions == graph.versions


def test_extra_that_is_no_such_message_is_named() -> None:
    with pytest.raises(ReadError, match="not a SaverDef") as caught:
        meta_graph.build(GraphModel(graph=messages.GraphDef(), extra={"saver_def": b"\xff"}))
    assert caught.value.where == "extra['saver_def']"
