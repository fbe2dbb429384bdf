"""EinsumDense, and sums of products over named axes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelio.errors import ConversionError
from modelio.graph.builder import Builder
from modelio.lowering.einsum import einsum
from modelio.model import GraphModel, Signature, TensorSpec
from tests.lowering.harness import assert_same, frameworks, keras3, run
from tests.lowering.written import graph_of, runs_on


def noise(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(dtype)


# -- the layer ---------------------------------------------------------------------------------------------------------

DENSE = [
    # equation, output_shape, bias_axes, input's shape
    ("ab,bc->ac", 5, None, (4,)),
    ("ab,bc->ac", 5, "c", (4,)),
    ("abc,cd->abd", (None, 5), "d", (3, 4)),
    ("abc,cd->abd", (3, 5), "bd", (3, 4)),
    ("abc,cde->abde", (None, 2, 3), "de", (3, 4)),
    ("abc,cde->abde", (None, 2, 3), "e", (3, 4)),
    ("abcd,cde->abe", (3, 6), "e", (3, 2, 4)),
    ("abcd,bde->abce", (3, 2, 5), "b", (3, 2, 4)),
    ("abc,bde->acde", (4, 2, 2), None, (3, 4)),
    ("...x,xy->...y", 5, "y", (2, 3, 4)),
    ("...x,xy->...y", (2, 3, 5), None, (2, 3, 4)),
    ("ab...,bc->ac...", (5,), "c", (4, 3, 2)),
    ("abc,cb->ab", (3,), None, (3, 4)),
    ("abc,bc->abc", (3, 4), "bc", (3, 4)),
    ("ab,bc->abc", (4, 3), None, (4,)),
]


@frameworks()
@pytest.mark.parametrize(("equation", "output", "bias", "shape"), DENSE)
def test_einsum_dense(keras, equation, output, bias, shape):
    layer = keras.layers.EinsumDense(equation, output, bias_axes=bias, activation="tanh")
    graph = assert_same(layer, noise(2, *shape))
    assert runs_on(graph) <= (1, 2, 1)
    assert "Einsum" not in {node.op for node in graph.graph.node}


@frameworks()
@pytest.mark.parametrize("activation", [None, "relu", "softmax", "gelu", "hard_sigmoid"])
@pytest.mark.parametrize("dtype", ["float16", "float64", "mixed_float16", "mixed_bfloat16"])
def test_einsum_dense_in_other_precision(keras, activation, dtype):
    rtol = {"float64": 1e-5, "mixed_bfloat16": 2e-2}.get(dtype, 2e-3)  # what 11 and 8 bits of mantissa leave
    layer = keras.layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d", activation=activation, dtype=dtype)
    assert_same(layer, noise(2, 3, 4), rtol=rtol)


@frameworks()
def test_einsum_dense_of_steps_that_nobody_counted(keras):
    layer = keras.layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")
    graph = assert_same(layer, noise(2, 3, 4), shapes=[(None, 4)])
    assert runs_on(graph) <= (1, 2, 1)


# -- any equation ------------------------------------------------------------------------------------------------------


def answer(
    equation: str, arrays: list[np.ndarray], told: list[tuple[int | None, ...]]
) -> tuple[np.ndarray, GraphModel]:
    """What the graph of an einsum gives."""
    g = Builder()
    feeds = [
        g.placeholder(f"x{i}", array.dtype.name, shape)
        for i, (array, shape) in enumerate(zip(arrays, told, strict=True))
    ]
    result = g.output("y", einsum(g, equation, *feeds))
    signature = Signature(
        {value.name[:-2]: TensorSpec(value.name, value.dtype, value.shape) for value in feeds},
        {"y": TensorSpec(result.name, result.dtype, result.shape)},
        "",
    )
    graph = GraphModel(graph=g.graph, variables={}, constants=g.constants, signatures={"serving_default": signature})
    return run(graph, arrays)[0], graph


EQUATIONS = [
    *("ij,jk->ik", "ij,jk", "ij->ji", "ij->", "ij->j", "ii->i", "ii", "ijij->ij", "i,i->", "i,j->ij", "i,j->ji"),
    *("bij,bjk->bik", "bij,bkj->bik", "bji,bjk->bki", "bij,bij->b", "bij,bij->bij", "ij,ij->", "ij,k->ikj"),
    *("aecd,abcd->acbe", "acbe,aecd->abcd", "btnh,bsnh->bnts", "bnts,bsnh->btnh", "abcd,cde->abe", "ijk,jil->kl"),
    *("ij,jk,kl->il", "ij,j,i->", "i,i,i->i", "bij,jk,bk->bi", "ij,kl->ijkl", "ab,cb,db->acd", "ijk,kl->jil"),
    *("...ij,...jk->...ik", "...ij->...ji", "i...,i...->...", "b...i,ij->b...j", "...,...->...", "a...b,b...c->a...c"),
    *("i j, j k -> i k", "Ab,bA->b", "iij,j->i"),
]


@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
@pytest.mark.parametrize("equation", EQUATIONS)
def test_equation(equation, data):
    """Against NumPy, any axis's size unknown, and any of those behind ``...`` missing or 1 in one of the operands."""
    sizes = {label: data.draw(st.integers(1, 4)) for label in sorted(set(equation) - set(" .,->"))}
    more = data.draw(st.lists(st.integers(2, 3), max_size=2))
    arrays, told = [], []
    for term in equation.replace(" ", "").partition("->")[0].split(","):
        front, dots, back = term.partition("...")
        own = [data.draw(st.sampled_from([size, 1])) for size in more[data.draw(st.integers(0, len(more))) :]]
        shape = (*(sizes[x] for x in front), *(own if dots else ()), *(sizes[x] for x in back))
        arrays.append(noise(*shape, seed=len(arrays)))
        fixed = "." in term  # a size that broadcasts has to be known
        told.append(shape if fixed else tuple(data.draw(st.sampled_from([size, None])) for size in shape))
    got, graph = answer(equation, arrays, told)
    expected = np.einsum(equation, *arrays)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert runs_on(graph) <= (1, 2, 1)


def test_an_operation_of_keras():
    keras = keras3()
    a, b = keras.Input((3, 4)), keras.Input((5, 4))
    model = keras.Model([a, b], keras.ops.einsum("bij,bkj->bki", a, b))
    assert_same(model, noise(2, 3, 4), noise(2, 5, 4))


@pytest.mark.parametrize(
    "equation", ["ij,jk->ik", "ijk->i", "ij->ik", "i->ii", "i1->i", "ij,kl,m->i", 7, "......->..."]
)
def test_an_equation_that_does_not_fit(equation):
    g = Builder()
    with pytest.raises(ConversionError, match="equation"):
        einsum(g, equation, g.placeholder("x", "float32", (2, 3)))


def test_a_layer_whose_equation_does_not_fit():
    config = {"equation": "abcd,de->abce", "output_shape": [None, 5], "bias_axes": None, "activation": "linear"}
    with pytest.raises(ConversionError, match="does not fit an operand with 3 dimensions"):
        graph_of("2.11.0", "EinsumDense", config, [(3, 4)], [noise(4, 5)])
