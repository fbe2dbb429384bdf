"""Where else nodes are named: every place is found, changed and cleared, and what is not changed keeps its bytes."""

from __future__ import annotations

import pytest

import modelio
from modelio.errors import ReadError
from modelio.graph.references import changed, named, referenced, renamed, without
from modelio.wire import messages
from tests.corpus import case, cases

SAVED = cases(file="saved_model_tf1")


def collection(kind, values):
    made = messages.CollectionDef()
    getattr(made, kind).value.extend(values)
    return made.SerializeToString(deterministic=True)


def variable(**names):
    return messages.VariableDef(**{f"{key}_name": value for key, value in names.items()}).SerializeToString(
        deterministic=True
    )


def asset(tensor, file="words.txt"):
    made = messages.AssetFileDef(filename=file)
    made.tensor_info.name = tensor
    return made


def any_of(message, name):
    made = messages.CollectionDef()
    made.any_list.value.add(
        type_url=f"type.googleapis.com/tensorflow.{name}", value=message.SerializeToString(deterministic=True)
    )
    return made.SerializeToString(deterministic=True)


def sparse():
    made = messages.SignatureDef()
    made.inputs["plain"].name = "a:0"
    made.inputs["sparse"].coo_sparse.values_tensor_name = "v:0"
    made.inputs["sparse"].coo_sparse.indices_tensor_name = "i:0"
    made.inputs["sparse"].coo_sparse.dense_shape_tensor_name = "s:0"
    return made.SerializeToString(deterministic=True)


CONTEXT = (  # CondContextDef: context, pred, pivot, branch, values { external values { c -> d:0 } }
    b"\x0a\x09cond/text" + b"\x12\x06pred:0" + b"\x1a\x07pivot:0" + b"\x20\x01" + b"\x2a\x0e" + b"\x0a\x01x" + b"\x12\x09" + b"\x0a\x01c" + b"\x12\x04d:00"
)  # fmt: skip

EXTRA = {
    "saver_def": messages.SaverDef(
        filename_tensor_name="f:0", save_tensor_name="save:0", restore_op_name="r"
    ).SerializeToString(deterministic=True),
    "collection_def/losses": collection("node_list", ["loss:0", "other"]),
    "collection_def/variables": collection(
        "bytes_list", [variable(variable="w:0", initializer="w/Assign", snapshot="w/read:0", initial_value="zeros:0")]
    ),
    "collection_def/cond_context": collection("bytes_list", [CONTEXT]),
    "collection_def/mine": collection("bytes_list", [b"w"]),
    "collection_def/saved_model_assets": any_of(asset("path:0"), "AssetFileDef"),
    "asset_file_def": messages.MetaGraphDef(asset_file_def=[asset("path:0"), asset("more:0")]).SerializeToString(
        deterministic=True
    ),
    "signature_def/serve": sparse(),
    "keras_metadata.pb": b"w",
}


def test_every_place_is_found():
    assert referenced(EXTRA) == {
        "f", "save", "r", "loss", "other", "w", "w/Assign", "w/read", "zeros", "path", "more", "a", "v", "i", "s",
    }  # fmt: skip


def test_every_name_is_changed_and_nothing_else():
    moved = changed(EXTRA, lambda text: f"scope/{text}")
    assert referenced(moved) == {f"scope/{name}" for name in referenced(EXTRA)}
    back = changed(moved, lambda text: text.removeprefix("scope/"))
    assert back == EXTRA
    for key in ("collection_def/mine", "keras_metadata.pb"):  # nobody knows what these say
        assert moved[key] == EXTRA[key]
    context = messages.CollectionDef.FromString(moved["collection_def/cond_context"]).bytes_list.value[0]
    assert b"\x0cscope/pred:0" in context
    assert b"\x0dscope/pivot:0" in context


@pytest.mark.parametrize(
    ("gone", "lost"),
    [
        ("r", {"saver_def"}),
        ("path", {"collection_def/saved_model_assets"}),
        ("pivot", {"collection_def/cond_context"}),
        ("w/read", {"collection_def/variables"}),
        ("loss", set()),
        ("zeros", set()),
        ("v", set()),
    ],
)
def test_what_names_a_node_that_is_gone_goes(gone, lost):
    left = without(EXTRA, [gone])
    assert set(EXTRA) - set(left) == lost
    assert gone not in referenced(left)
    untouched = {"keras_metadata.pb", "collection_def/mine"}
    assert all(left[key] == EXTRA[key] for key in untouched)


def test_a_sparse_input_goes_as_a_whole():
    definition = messages.SignatureDef.FromString(without(EXTRA, ["i"])["signature_def/serve"])
    assert set(definition.inputs) == {"plain"}


@pytest.mark.parametrize("case", SAVED, ids=str)
def test_what_stays_keeps_its_bytes(case):
    """Also where TensorFlow wrote its maps in another order than ours."""
    extra = modelio.read(case / "saved_model_tf1").extra
    assert without(extra, []) == extra
    assert without(extra, ["no such node"]) == extra


@pytest.mark.parametrize("case", SAVED, ids=str)
def test_what_real_files_name_is_there(case):
    model = modelio.read(case / "saved_model_tf1")
    assert referenced(model.extra) <= {node.name for node in model.graph.node}
    ends = {end.tensor.partition(":")[0] for one in model.signatures.values() for end in one.outputs.values()}
    assert ends <= named(model)


def test_ports_and_control_inputs():
    assert [renamed(text, {"a": "b/c"}) for text in ("a", "a:1", "^a", "a/b", "^a/b:0")] == [
        "b/c", "b/c:1", "^b/c", "a/b", "^a/b:0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("saver_def", b"\xff\xff"),
        ("collection_def/variables", collection("bytes_list", [b"\x0a\x50short"])),
        ("collection_def/cond_context", collection("bytes_list", [b"\x0a\x50short"])),
        ("collection_def/cond_context", collection("bytes_list", [b"\x0b"])),
        ("signature_def/serve", b"\x0a\x05"),
    ],
)
def test_damaged_messages_are_named(key, data):
    with pytest.raises(ReadError):
        referenced({key: data}) or without({key: data}, ["x"])


def test_messages_in_messages_without_end():
    data = b""
    for _ in range(60):
        data = b"\x0a" + bytes([len(data)]) + data if len(data) < 0x80 else data
    extra = {"collection_def/cond_context": collection("bytes_list", [data])}
    assert without(extra, ["x"]) == extra


def test_objects_of_tensorflow_2_name_constants():
    extra = modelio.read(case("extra_tf-2.4.4/assets").path).extra
    moved = changed(extra, lambda text: f"n/{text}")
    assert {f"n/{name}" for name in referenced(extra)} == referenced(moved)
