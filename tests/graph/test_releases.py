"""Which TensorFlow can load a graph; the lists of ops are those releases' own."""

from __future__ import annotations

import pytest

import modelio
from modelio.graph.releases import check_release, first_release
from modelio.wire import messages
from tests.corpus import case

CNN = case("keras-2.0.5_tf-1.2.1/cnn") / "model.h5"
pytestmark = pytest.mark.filterwarnings("ignore:saved-model|frozen-graph:UserWarning")


def model(*ops, inside=()):
    graph = messages.GraphDef()
    for number, op in enumerate(ops):
        graph.node.add(name=f"n{number}", op=op)
    if inside:
        function = graph.library.function.add()
        function.signature.name = "f"
        for number, op in enumerate(inside):
            function.node_def.add(name=f"i{number}", op=op)
    return modelio.GraphModel(graph)


def test_the_first_release():
    assert first_release(model("Conv2D", "MatMul")) == first_release(model("NobodyHasThis"))
    assert first_release(model("Conv2D", "Einsum")) == first_release(model("Einsum"))
    assert first_release(model("MatMul", inside=["StatelessWhile"])) != first_release(model("MatMul"))


def test_what_is_too_new_is_named():
    check_release(model("Conv2D", "MatMul"), "tf=1.2")
    with pytest.raises(modelio.ConversionError, match=r"TensorFlow 1.2 has not the ops of 2 nodes: AddV2") as caught:
        check_release(model("MatMul", "AddV2", inside=["AddV2"]), "tf=1.2")
    assert [text.partition(" (")[0] for text in caught.value.unsupported] == ["n1", "f: i0"]
    check_release(model("AddV2"), "tf=2.8")
    check_release(model("AddV2"), "tf=9.0")


@pytest.mark.parametrize("release", ["1.2", "tf1.2", "tf=", "keras=3", "tf=x"])
def test_what_is_no_release(release):
    with pytest.raises(modelio.ConversionError, match="a release is written"):
        check_release(model(), release)


def test_a_release_before_all_that_are_known():
    with pytest.raises(modelio.ConversionError, match="the oldest TensorFlow whose ops are known here"):
        check_release(model(), "tf=0.5")


def test_a_conversion_that_must_load_somewhere():
    assert modelio.convert(CNN, to="saved-model", release="tf=1.2").data
    with pytest.raises(modelio.ConversionError, match="take dialect="):
        modelio.convert(CNN, to="keras-h5", release="tf=1.2")
