"""Loops and arrays of steps, run by TensorFlow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelio.graph.builder import Builder
from modelio.graph.loops import array, loop, repeat, unstacked
from modelio.graph.operations import op
from modelio.model import Tensor

X = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def g():
    return Builder()


def run(g, outputs, feeds=None):
    tf = pytest.importorskip("tensorflow")
    definition = tf.compat.v1.GraphDef.FromString(g.graph.SerializeToString())
    with tf.Graph().as_default() as live, tf.compat.v1.Session(graph=live) as session:
        tf.import_graph_def(definition, name="")
        for key, tensor in g.variables.items():
            handle = live.get_tensor_by_name(f"{key}:0")
            session.run(tf.raw_ops.AssignVariableOp(resource=handle, value=tensor.numpy()))
        return session.run([output.name for output in outputs], feeds or {})


def test_until_a_condition_fails(g):
    x = g.placeholder("x", "int32", ())
    doubled, count = loop(g, [x, g.constant(0)], lambda x, n: g.Less(x, 100), lambda x, n: [g.Mul(x, 2), g.Add(n, 1)])
    assert run(g, [doubled, count], {"x:0": 3}) == [192, 6]
    assert run(g, [doubled, count], {"x:0": 100}) == [100, 0]
    assert (doubled.dtype, doubled.shape) == ("int32", ())


@pytest.mark.parametrize("many", [0, 1, 5])
def test_so_many_times(g, many):
    (total,) = repeat(g, many, [g.constant(1.0)], lambda index, x: [g.Add(g.Mul(x, 2.0), g.cast(index, "float32"))])
    expected = 1.0
    for index in range(many):
        expected = expected * 2 + index
    assert run(g, [total]) == [expected]


def test_number_of_times_known_when_it_runs(g):
    count = g.placeholder("count", "int32", ())
    (power,) = repeat(g, count, [g.constant(1)], lambda index, x: [g.Mul(x, 3)])
    assert run(g, [power], {"count:0": 4}) == [81]


def test_values_from_outside(g):
    """A value, a constant and a variable that were there before, and a variable that is made inside."""
    outside, step = g.placeholder("x", "float32", (2,)), g.constant([1.0, 2.0])
    before = g.variable("before", Tensor.of(np.float32([10, 20])))

    def body(index, x):
        made = g.variable("made", Tensor.of(np.float32([100, 200])))
        return [g.Add(g.Add(g.Add(x, g.Add(outside, step)), before), made)]

    (x,) = repeat(g, 2, [g.constant([0.0, 0.0])], body)
    np.testing.assert_array_equal(run(g, [x], {"x:0": [1, 1]})[0], [224, 446])


def test_what_is_known_outside_is_known_inside(g):
    """A shape that is a constant outside gives its numbers inside."""
    shape, known = g.constant([3, 2]), []

    def body(index, x):
        known.append(g.Reshape(x, shape).shape)
        return [x]

    repeat(g, 2, [g.placeholder("x", "float32", (None,))], body)
    assert known == [(3, 2)]


def test_loop_in_a_loop(g):
    x = g.placeholder("x", "int32", ())

    def outer(index, total):
        (inner,) = repeat(g, index, [total], lambda j, t: [g.Add(g.Add(t, x), j)])
        return [inner]

    (total,) = repeat(g, 4, [g.constant(0)], outer)
    assert run(g, [total], {"x:0": 10}) == [sum(10 + j for i in range(4) for j in range(i))]


def test_two_loops_have_two_frames(g):
    (a,) = repeat(g, 2, [g.constant(1)], lambda index, x: [g.Mul(x, 2)])
    (b,) = repeat(g, 3, [a], lambda index, x: [g.Mul(x, 2)])
    assert run(g, [a, b]) == [4, 32]
    assert len({node.attr["frame_name"].s for node in g.graph.node if node.op == "Enter"}) == 2


def test_steps_of_a_sequence(g):
    """Read in one order, written in the other."""
    x = g.placeholder("x", "float32", (None, 3))
    steps = unstacked(g, x)
    squares = array(g, steps.size, "float32", (3,))

    def body(index, flow, total):
        step = steps.read(g, index)
        written = replace(squares, flow=flow).write(g, g.Sub(g.Sub(steps.size, 1), index), g.Square(step))
        return [written, g.Add(total, step)]

    flow, total = repeat(g, steps.size, [squares.flow, g.constant([0.0] * 3)], body)
    stacked = replace(squares, flow=flow).stacked(g)
    assert stacked.shape == (None, 3)
    got, summed = run(g, [stacked, total], {"x:0": X})
    np.testing.assert_array_equal(got, np.square(X)[::-1])
    np.testing.assert_array_equal(summed, X.sum(0))


def test_no_steps_at_all(g):
    x = g.placeholder("x", "float32", (None, 3))
    steps = unstacked(g, x)
    same = array(g, steps.size, "float32", (3,))
    (flow,) = repeat(
        g, steps.size, [same.flow], lambda index, flow: [replace(same, flow=flow).write(g, index, steps.read(g, index))]
    )
    assert run(g, [replace(same, flow=flow).stacked(g)], {"x:0": X[:0]})[0].shape == (0, 3)


def test_ops_of_the_first_tensorflow(g):
    test_steps_of_a_sequence(g)
    assert max(tuple(map(int, op(node.op).since.split("."))) for node in g.graph.node) <= (1, 2, 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda g, x: [x, x], "has 2 values and its body gives 3"),
        (lambda g, x: [g.cast(x, "int32")], "is float32 and becomes int32"),
        (lambda g, x: [g.Reshape(x, [2, 1])], r"has shape \(2,\) and becomes \(2, 1\)"),
    ],
)
def test_body_that_does_not_fit(g, body, reason):
    with pytest.raises(TypeError, match=reason):
        repeat(g, 2, [g.constant([1.0, 2.0])], lambda index, x: body(g, x))
