"""Each way in which a graph may hold, pass on, read and write a variable, on graphs that TensorFlow makes here: frozen, they
give what they gave, or are refused by name.
"""

from __future__ import annotations

import numpy as np
import pytest

from modelio.errors import ConversionError
from modelio.graph.surgery.freezing import freeze
from tests.graph.surgery.frozen import (
    agrees,
    answers_the_same,
    both,
    checkpoint,
    close,
    exported,
    is_frozen,
    of_session,
    ops,
    read,
    run,
    variable,
)

# --------------------------------------------------------------------------------- how TensorFlow 1 holds variables


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])
def test_a_variable_in_both_branches_of_a_cond(tf1, resource):
    v1, w = tf1.v1, variable(tf1, "w", np.float32([1, 2]), resource=resource)
    phase = v1.placeholder("bool", ())
    y = v1.cond(phase, lambda: w * 2.0, lambda: v1.identity(w) + 1.0)
    for value in (True, False):
        frozen, _ = answers_the_same(tf1, [y], {phase: value})
    assert {"Switch", "Merge"} <= set(ops(frozen).values())


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])
def test_a_variable_read_in_a_loop(tf1, resource):
    """Its reference or handle goes through Enter."""
    v1, w = tf1.v1, variable(tf1, "w", np.float32([1, 2]), resource=resource)
    count = v1.placeholder("int32", ())
    _, y = v1.while_loop(lambda i, y: i < count, lambda i, y: (i + 1, y * w + 1.0), (0, np.float32([1, 1])))
    frozen, _ = answers_the_same(tf1, [y], {count: 3})
    assert "NextIteration" in ops(frozen).values()


def test_the_ops_on_references(tf1):
    """RefSwitch, RefMerge, RefEnter, RefExit, RefIdentity: no layer makes them any more, files have them."""
    v1 = tf1.v1
    raw = __import__("tensorflow").raw_ops
    w = variable(tf1, "w", np.float32([1, 2]))
    phase = v1.placeholder("bool", ())
    no, yes = raw.RefSwitch(data=w._ref(), pred=phase)
    either, _ = raw.RefMerge(inputs=[no, yes])
    entered = raw.RefEnter(data=w._ref(), frame_name="frame")
    left = raw.RefExit(data=entered)
    outputs = [v1.add(either, 1.0), v1.multiply(left, 3.0), raw.RefIdentity(input=w._ref()) * 1.0]
    frozen, _ = answers_the_same(tf1, outputs, {phase: True})
    assert ops(frozen)["RefSwitch"] == "Switch"


def test_an_average_that_is_brought_up_to_date_on_the_way(tf1):
    """Batch normalization of 2016 in training mode: the output is what the assignment returns."""
    v1 = tf1.v1
    mean, scale = variable(tf1, "mean", np.float32([1, 2])), variable(tf1, "scale", np.float32([3, 3]))
    x = v1.placeholder("float32", (None, 2))
    moved = v1.assign_sub(mean, (mean - v1.reduce_mean(x, 0)) * 0.1)
    grown = v1.assign_add(scale, v1.ones(2))
    put = v1.assign(variable(tf1, "last", np.float32([0, 0])), x[0])
    frozen, _ = answers_the_same(tf1, [(x - moved) * grown + put], {x: np.float32([[1, 5], [2, 7]])})
    assert ops(frozen)["AssignSub"] == "Sub"
    assert ops(frozen)["AssignAdd"] == "Add"


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])
def test_an_assignment_that_nobody_reads_goes(tf1, resource):
    v1 = tf1.v1
    w, steps = variable(tf1, "w", np.float32([1, 2]), resource=resource), variable(tf1, "steps", 0, resource=resource)
    with v1.control_dependencies([steps.assign_add(1)]):
        y = v1.identity(v1.constant([1.0, 1.0])) * 2.0
    frozen, changes = answers_the_same(tf1, [y + w])
    assert any("no longer assigns" in change for change in changes)
    assert not any("Assign" in op for op in ops(frozen).values())
    assert "steps" not in ops(frozen)


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])
def test_an_assignment_that_a_read_comes_after_is_refused(tf1, resource):
    v1, w = tf1.v1, variable(tf1, "w", np.float32([1, 2]), resource=resource)
    assigned = v1.assign(w, [5.0, 5.0], name="changed") if not resource else w.assign([5.0, 5.0], name="changed")
    with v1.control_dependencies([assigned]):
        y = w.read_value() * 2.0
    with pytest.raises(ConversionError, match="comes after it") as caught:
        freeze(of_session(tf1, [y]))
    assert [name.partition(" ")[0] for name in caught.value.unsupported] == ["changed"]


def test_every_node_in_the_way_is_named(tf1):
    v1 = tf1.v1
    a, b = variable(tf1, "a", np.float32([1, 2])), variable(tf1, "b", np.float32([1, 2]))
    y = v1.scatter_add(a, [0], [1.0], name="first") + v1.scatter_sub(b, [1], [1.0], name="second")
    with pytest.raises(ConversionError, match="in the way of constants") as caught:
        freeze(of_session(tf1, [y]))
    assert [name.partition(":")[0] for name in caught.value.unsupported] == [
        "first (ScatterAdd",
        "second (ScatterSub",
    ]


def test_questions_about_a_variable(tf1):
    v1, raw = tf1.v1, __import__("tensorflow").raw_ops
    w, old = variable(tf1, "w", np.ones((2, 3), "float32"), resource=True), variable(tf1, "old", np.float32([1]))
    outputs = [
        raw.VariableShape(input=w.handle),
        raw.VariableShape(input=w.handle, out_type="int64"),
        raw.VarIsInitializedOp(resource=w.handle),
        v1.is_variable_initialized(old),
    ]
    answers_the_same(tf1, outputs)


@pytest.mark.parametrize("batch", [0, 1])
def test_rows_gathered_from_a_variable(tf1, batch):
    raw = __import__("tensorflow").raw_ops
    w = variable(tf1, "w", np.arange(24, dtype="float32").reshape(2, 3, 4), resource=True)
    indices = tf1.v1.placeholder("int64", (2, None))
    rows = raw.ResourceGather(resource=w.handle, indices=indices, dtype="float32", batch_dims=batch)
    points = raw.ResourceGatherNd(resource=w.handle, indices=indices, dtype="float32")
    frozen, _ = answers_the_same(tf1, [rows, points], {indices: [[0, 1], [1, 0]]})
    assert ops(frozen)["ResourceGather"] == ("GatherV2" if batch else "Gather")


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])
@pytest.mark.parametrize("dtype", ["string", "bfloat16", "bool", "complex64", "int64"])
def test_variables_of_every_kind(tf1, dtype, resource):
    value = (
        tf1.v1.cast([[1, 0], [3, 4]], dtype) if dtype != "string" else tf1.v1.constant([[b"a", b""], [b"c", b"\xff"]])
    )
    w = variable(tf1, "w", value, resource=resource)
    y = tf1.v1.reshape(w, (4,))
    answers_the_same(tf1, [tf1.v1.cast(y, "float32") if dtype == "bfloat16" else y])


def test_a_partitioned_variable(tf1, tmp_path):
    """Its parts are nodes, and the checkpoint has one entry with slices."""
    v1 = tf1.v1
    with v1.variable_scope("", partitioner=v1.fixed_size_partitioner(3)):
        rows = v1.get_variable("rows", initializer=v1.reshape(v1.range(21.0), (7, 3)))
    with v1.variable_scope("", partitioner=v1.fixed_size_partitioner(2, axis=1)):
        columns = v1.get_variable("columns", initializer=v1.reshape(v1.range(12.0), (3, 4)))
    tf1.run(v1.global_variables_initializer())
    x = v1.placeholder("float32", (None, 7), name="x")
    y = v1.matmul(v1.matmul(x, v1.convert_to_tensor(rows)), v1.convert_to_tensor(columns), name="y")
    v1.train.Saver().save(tf1, str(tmp_path / "model.ckpt"))
    value = np.random.default_rng(0).random((2, 7)).astype("float32")
    frozen, changes = freeze(checkpoint(tmp_path, "model.ckpt", ["y:0"], ["x:0"]))
    assert is_frozen(frozen)
    assert changes == ["5 variables became constants"]
    close(run(frozen, {"x:0": value}), [tf1.run(y, {x: value})])
    for name, tensor in frozen.constants.items():
        assert b"".join(tensor.chunks()) == tensor.numpy().tobytes(), name


def test_a_variable_that_is_only_initialized(tf1, tmp_path):
    """A local variable is in no checkpoint: the init op of the model sets it."""
    v1 = tf1.v1
    w = variable(tf1, "w", np.float32([1, 2]))
    local = v1.get_variable("local", initializer=np.float32([3, 4]), collections=["local_variables"])
    x = v1.placeholder("float32", (2,), name="x")
    y = v1.add(w * x, local, name="y")
    v1.saved_model.simple_save(tf1, str(tmp_path / "m"), {"x": x}, {"y": y})
    with pytest.raises(ConversionError, match=r"local .VariableV2: no value in the checkpoint"):
        freeze(read(tmp_path / "m"))
    builder = v1.saved_model.Builder(str(tmp_path / "n"))
    info = v1.saved_model.build_signature_def(
        {"x": v1.saved_model.build_tensor_info(x)}, {"y": v1.saved_model.build_tensor_info(y)}, "predict"
    )
    builder.add_meta_graph_and_variables(tf1, ["serve"], {"serving_default": info}, main_op=local.initializer)
    builder.save()
    frozen, _ = freeze(read(tmp_path / "n"))
    close(run(frozen, {"x:0": np.float32([1, 1])}), [np.float32([4, 6])])


# --------------------------------------------------------------------------------- how TensorFlow 2 holds variables


@both
def test_variables_in_while_if_and_case(tensorflow, tmp_path, inline):
    tf = tensorflow
    w, b = tf.Variable([[1.0, 2.0], [3.0, 4.0]]), tf.Variable([0.5, -0.5])

    def function(count, x):
        for _ in tf.range(count):
            x = tf.linalg.matvec(w, x) * 0.5
            if tf.reduce_sum(x) > 3.0:
                x = x + b
            else:
                x = x * b.read_value() - tf.gather(w, 0)
        return tf.switch_case(count, [lambda: x + b, lambda: x - b, lambda: x * w[1]])

    model, traced = exported(
        tf, tmp_path / "m", function, [w, b], tf.TensorSpec((), "int32", "count"), tf.TensorSpec((2,), "float32", "x")
    )
    for count in (0, 1, 4):
        frozen, _ = agrees(model, traced, tf, np.int32(count), np.float32([1, 2]), inline=inline)
    kinds = {node.op for node in frozen.graph.node} | {
        node.op for one in frozen.graph.library.function for node in one.node_def
    }
    assert any("While" in kind for kind in kinds)
    assert any(kind.endswith("If") for kind in kinds)
    assert any(kind.endswith("Case") for kind in kinds)


@both
def test_one_function_for_variables_of_two_types(tensorflow, tmp_path, inline):
    """It is written down twice."""
    tf = tensorflow
    small, large = tf.Variable([1.0, 2.0]), tf.Variable([3.0, 4.0], dtype="float64")

    @tf.function
    def shape_of(resource):
        return tf.raw_ops.VariableShape(input=resource)

    def function(x):
        return (
            x + tf.cast(shape_of(small.handle) + shape_of(large.handle), "float32") + small + tf.cast(large, "float32")
        )

    model, traced = exported(tf, tmp_path / "m", function, [small, large], tf.TensorSpec((2,), "float32", "x"))
    frozen, _ = agrees(model, traced, tf, np.float32([1, 2]), inline=inline)
    if not inline:
        names = [one.signature.name for one in frozen.graph.library.function]
        twice = [name for name in names if "shape_of" in name]
        assert len(names) == len(set(names))
        assert len(twice) == 2


def test_a_counter_that_answers_what_it_counted_is_refused(tensorflow, tmp_path):
    tf = tensorflow
    counter = tf.Variable(0.0)

    def function(x):
        counter.assign_add(1.0)
        return x + counter

    model, _ = exported(tf, tmp_path / "m", function, [counter], tf.TensorSpec((), "float32", "x"))
    with pytest.raises(ConversionError, match=r"ReadVariableOp .* comes after it") as caught:
        freeze(model)
    assert "AssignAddVariableOp" in caught.value.unsupported[0]


@both
def test_a_counter_that_only_counts_stands_still(tensorflow, tmp_path, inline):
    tf = tensorflow
    counter, w = tf.Variable(0.0), tf.Variable([2.0, 3.0])

    def function(x):
        before = counter.read_value()
        counter.assign_add(1.0)
        return x * w + before

    model, traced = exported(tf, tmp_path / "m", function, [counter, w], tf.TensorSpec((2,), "float32", "x"))
    _, changes = agrees(model, traced, tf, np.float32([1, 2]), inline=inline)
    assert any("no longer assigns" in change for change in changes)


def test_a_count_that_grows_from_round_to_round_is_refused(tensorflow, tmp_path):
    tf = tensorflow
    counter = tf.Variable(1.0)

    def function(x):
        for _ in tf.range(3):
            x = x * counter
            counter.assign_add(1.0)
        return x

    model, _ = exported(tf, tmp_path / "m", function, [counter], tf.TensorSpec((), "float32", "x"))
    with pytest.raises(ConversionError, match="earlier round"):
        freeze(model)
