"""The table of ops that are computed without TensorFlow: bit for bit what TensorFlow computes, or not at all."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from modelio.graph.builder import Builder
from modelio.graph.operations import op
from modelio.graph.surgery import evaluation
from modelio.graph.surgery.evaluation import Large, evaluate, is_true
from modelio.wire import messages
from tests import clients

i32, f32 = np.int32, np.float32


def ints(*shape, low=-9, high=9):
    return lambda random: random.integers(low, high, shape).astype(i32)


def floats(*shape):
    return lambda random: (random.standard_normal(shape) * 3).astype(f32)


def bools(*shape):
    return lambda random: random.integers(0, 2, shape).astype(bool)


def words(*shape):
    return lambda random: random.choice(np.array([b"", b"a", b"bc"], object), shape)


# Op, inputs, attributes: an array is itself, a function makes a random one.
CASES = [
    *(("Identity", [make], {}) for make in (floats(2, 3), ints(), bools(4), words(2))),
    *((name, [floats(3)], {}) for name in ("Snapshot", "StopGradient", "PreventGradient")),
    ("IdentityN", [[floats(2), ints(3)]], {}),
    *((name, [bools(3, 1), bools(4)], {}) for name in ("LogicalAnd", "LogicalOr")),
    ("LogicalNot", [bools(5)], {}),
    *((name, [bools(3, 4), i32([1])], {"keep_dims": keep}) for name in ("All", "Any") for keep in (True, False)),
    *((name, [make(2, 3), make(3)], {}) for name in ("Equal", "NotEqual") for make in (ints, floats, bools, words)),
    *(
        (name, [make(4, 1), make(3)], {})
        for name in ("Greater", "GreaterEqual", "Less", "LessEqual", "Maximum", "Minimum")
        for make in (ints, floats)
    ),
    *((name, [make(4, 1), make(3)], {}) for name in ("Add", "AddV2", "Sub", "Mul") for make in (ints, floats)),
    *((name, [make(6)], {}) for name in ("Abs", "Neg", "Square") for make in (ints, floats)),
    *((name, [floats(6)], {}) for name in ("Ceil", "Floor")),
    ("RealDiv", [floats(5), floats(5)], {}),
    *((name, [ints(6), i32([1, 2, 3, -1, -2, -3])], {}) for name in ("FloorDiv", "FloorMod")),
    *(
        (name, [make(2, 3, 4), np.array(axes, i32)], {"keep_dims": keep})
        for name, makes in (("Max", (ints, floats)), ("Min", (ints, floats)), ("Prod", (ints,)), ("Sum", (ints,)))
        for make in makes
        for axes in ([0], [1, -1], [])
        for keep in (True, False)
    ),
    *(
        ("Cast", [make(5)], {"DstT": target})
        for make in (ints, floats, bools)
        for target in ("float32", "int64", "bool", "float64", "int32")
    ),
    ("Cast", [ints(5, low=0, high=200)], {"DstT": "uint8"}),
    ("Select", [bools(3), floats(3, 2), floats(3, 2)], {}),
    ("Select", [bools(), words(2), words(2)], {}),
    ("Select", [bools(3, 2), ints(3, 2), ints(3, 2)], {}),
    ("SelectV2", [bools(3, 1), floats(2), floats(3, 1)], {}),
    *(("Shape", [floats(*shape)], {"out_type": kind}) for shape in ((), (2, 3)) for kind in ("int32", "int64")),
    ("ShapeN", [[floats(2, 3), floats(1)]], {}),
    ("Size", [floats(2, 3)], {"out_type": "int64"}),
    ("Rank", [floats(2, 3)], {}),
    ("BroadcastArgs", [i32([4, 1]), i32([3])], {}),
    ("BroadcastTo", [floats(3, 1), i32([2, 3, 4])], {}),
    ("Concat", [i32(1), [floats(2, 1), floats(2, 3)]], {}),
    ("ConcatV2", [[floats(2, 1), floats(2, 3)], i32(-1)], {}),
    ("ConcatV2", [[words(1), words(2)], i32(0)], {}),
    *(("ExpandDims", [floats(2, 3), i32(axis)], {}) for axis in (0, 1, -1)),
    ("Fill", [i32([2, 3]), f32(1.5)], {}),
    ("Fill", [i32([]), i32(7)], {}),
    ("Gather", [floats(4, 2), i32([[3, 0], [1, 1]])], {}),
    ("GatherV2", [floats(4, 2), i32([1, 0, 1]), i32(1)], {}),
    ("InvertPermutation", [i32([2, 0, 1])], {}),
    *((name, [make(2, 2)], {}) for name in ("OnesLike", "ZerosLike") for make in (ints, floats, bools)),
    *(("Pack", [[ints(2), ints(2)]], {"axis": axis}) for axis in (0, 1, -1)),
    ("Range", [i32(2), i32(11), i32(3)], {}),
    ("Range", [i32(5), i32(-6), i32(-2)], {}),
    ("Range", [i32(5), i32(5), i32(1)], {}),
    ("Reshape", [floats(2, 6), i32([3, -1])], {}),
    ("Reshape", [ints(1), i32([])], {}),
    ("Slice", [floats(4, 5), i32([1, 2]), i32([2, -1])], {}),
    ("Split", [i32(1), floats(2, 6)], {"num_split": 3}),
    ("Squeeze", [floats(1, 2, 1)], {}),
    ("Squeeze", [floats(1, 2, 1)], {"squeeze_dims": (-1,)}),
    *(
        ("StridedSlice", [ints(5, 6, 4), i32(begin), i32(end), i32(strides)], masks)
        for begin, end, strides, masks in [
            ([1], [3], [1], {}),
            ([1], [2], [1], {"shrink_axis_mask": 1}),
            ([-1], [0], [1], {"shrink_axis_mask": 1}),
            ([0, 2], [0, 4], [1, 1], {"begin_mask": 1, "end_mask": 1}),
            ([9, 1], [-9, 1], [-2, 1], {"end_mask": 2}),
            ([-1], [-7], [-1], {}),
            ([0, 1], [0, 2], [1, 1], {"ellipsis_mask": 1, "shrink_axis_mask": 2}),
            ([0, 0, 1], [0, 0, 3], [1, 1, 1], {"new_axis_mask": 1, "begin_mask": 2, "end_mask": 2}),
        ]
    ),
    ("Tile", [floats(2, 3), i32([2, 1])], {}),
    ("Transpose", [floats(2, 3, 4), i32([2, 0, 1])], {}),
    ("Unpack", [floats(3, 2)], {"num": 2, "axis": -1}),
]


def flat(inputs):
    return [value for one in inputs for value in (one if isinstance(one, list) else [one])]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: f"{number}-{CASES[number][0]}")
def test_it_is_what_tensorflow_computes(tensorflow, number):
    name, makes, attrs = CASES[number]
    random = np.random.default_rng(zlib.crc32(name.encode()) + number)
    arrays = [
        [make(random) if callable(make) else make for make in (one if isinstance(one, list) else [one])]
        for one in makes
    ]
    g = Builder()
    values = [
        [g.constant(array, name="in") for array in many] if isinstance(one, list) else g.constant(many[0], name="in")
        for one, many in zip(makes, arrays, strict=True)
    ]
    g.node(name, *values, name="out", **attrs)
    node = g.graph.node[-1]
    found = evaluate(node, op(name), flat(arrays))
    assert found is not None
    wanted = clients.frozen(
        messages.serialize(g.graph), {}, [f"out:{port}" for port in range(len(op(name).output_dtypes(node.attr)))]
    )
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        theirs = np.asarray(theirs)
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        assert ours.tolist() == theirs.tolist()


def test_every_op_of_the_table_is_tried():
    assert {name for name, _, _ in CASES} == set(evaluation._TABLE)


def computed(name, *arrays, **attrs):
    g = Builder()
    g.node(name, *(g.constant(array) for array in arrays), **attrs)
    return evaluate(g.graph.node[-1], op(name), [np.asarray(array) for array in arrays])


@pytest.mark.parametrize(
    ("name", "arrays", "attrs"),
    [
        ("FloorDiv", [i32([1]), i32([0])], {}),
        ("Cast", [f32([3e9])], {"DstT": "int32"}),
        ("Cast", [f32([np.nan])], {"DstT": "int32"}),
        ("Cast", [f32([1.5])], {"DstT": "int32", "Truncate": True}),
        ("Mul", [f32([1e-30]), f32([1e-15])], {}),  # a number that TensorFlow flushes to zero
        ("Add", [f32([1e-40]), f32([1.0])], {}),
        ("Maximum", [f32([np.nan]), f32([1.0])], {}),
        ("Gather", [f32([1, 2]), i32([2])], {}),
        ("Slice", [f32([1, 2]), i32([1]), i32([2])], {}),
        ("Range", [i32(0), i32(5), i32(0)], {}),
        ("Range", [i32(5), i32(0), i32(1)], {}),
        ("Reshape", [f32([1, 2, 3]), i32([2, -1])], {}),
        ("ConcatV2", [[f32([[1]]), f32([[1, 2]])], i32(0)], {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_certain_is_left_to_tensorflow(name, arrays, attrs):
    g = Builder()
    values = [[g.constant(one) for one in array] if isinstance(array, list) else g.constant(array) for array in arrays]
    g.node(name, *values, **attrs)
    assert evaluate(g.graph.node[-1], op(name), flat(arrays)) is None


@pytest.mark.parametrize("name", ["MatMul", "Exp", "Sqrt", "RandomUniform", "ReadVariableOp"])
def test_ops_whose_results_depend_on_more_than_their_inputs_are_not_in_the_table(name):
    assert name not in evaluation._TABLE


def test_a_large_result_is_not_made():
    for name, arrays in {
        "Fill": [i32([1 << 20, 1 << 20]), f32(0)],
        "Range": [i32(0), i32(2**31 - 1), i32(1)],
        "Tile": [f32([0]), i32([1 << 30])],
        "BroadcastTo": [f32([0]), i32([1 << 15, 1 << 15])],
        "Add": [f32([[0]] * 10_000), f32([0] * 10_000)],
    }.items():
        assert computed(name, *arrays) is None, name


def test_the_shape_of_a_constant_that_lies_elsewhere_is_known():
    large = Large(np.dtype(f32), (3, 1 << 20))
    g = Builder()
    g.node("Shape", g.constant(f32(0)))
    assert evaluate(g.graph.node[-1], op("Shape"), [large])[0].tolist() == [3, 1 << 20]
    g.node("Identity", g.constant(f32(0)))
    assert evaluate(g.graph.node[-1], op("Identity"), [large]) is None


@pytest.mark.parametrize(
    ("value", "taken"),
    [(True, True), (i32(0), False), (i32(-2), True), (f32(0.5), True), (np.array([], f32), False), (f32([0]), True)],
)
def test_which_branch_a_condition_means(value, taken):
    assert is_true(np.asarray(value)) is taken


def test_text_is_true_where_there_is_some():
    assert is_true(np.array(b"no", object))
    assert not is_true(np.array(b"", object))
