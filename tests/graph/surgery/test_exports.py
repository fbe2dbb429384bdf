"""TensorFlow 2 exports after surgery: TensorFlow loads what was written, and it answers as the export did."""

from __future__ import annotations

import numpy as np
import pytest

import modelio
from modelio.graph.bodies import called
from modelio.graph.surgery.freezing import freeze
from modelio.graph.surgery.pruning import drop_functions
from modelio.graph.variables import variable_keys
from modelio.wire import messages

WORDS = np.array([b"one", b"two", b"b", b"nothing"], object)
NUMBERS = np.array([3, 4, 5], "int64")

SURGERY = {
    "inline": {"inline": True},
    "outputs": {"outputs": ["line", "changing", "dense", "rows", "double"]},
    "signature": {"signatures": {"unused": None}},
    "bind": {"bind": {"serving_default_numbers": NUMBERS.tolist()}},
}


@pytest.fixture(scope="module")
def export(tensorflow, tmp_path_factory):
    """Tables of every kind, and variables that all have the same name: a ``tf.Module`` that was written in a hurry."""
    tf, folder = tensorflow, tmp_path_factory.mktemp("export")
    (folder / "words.txt").write_text("one\ntwo\n")
    lookup = tf.lookup
    module = tf.Module()
    file = lookup.TextFileInitializer(
        str(folder / "words.txt"),
        tf.string,
        lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        lookup.TextFileIndex.LINE_NUMBER,
    )
    module.lines = lookup.StaticHashTable(file, -1)
    module.changing = lookup.experimental.MutableHashTable(tf.string, tf.float32, -1.0)
    module.changing.insert(["a", "b"], [1.0, 2.0])
    module.dense = lookup.experimental.DenseHashTable(tf.int64, tf.int64, -1, -100, -200, initial_num_buckets=4)
    module.dense.insert([3, 4, 9], [30, 40, 90])
    module.dense.erase(tf.constant([9], tf.int64))
    module.rows = lookup.experimental.DenseHashTable(
        tf.int64, tf.float32, [0.0, 0.0], -100, -200, initial_num_buckets=4
    )
    module.rows.insert([4], [[1.5, 2.5]])
    module.weights = [tf.Variable([1.0, 2.0, 3.0]), tf.Variable([2.0, 2.0, 2.0])]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([3], tf.int64)])
    def ask(words, numbers):
        return {
            "line": module.lines.lookup(words),
            "changing": module.changing.lookup(words),
            "dense": module.dense.lookup(numbers),
            "rows": module.rows.lookup(numbers),
            "double": tf.cast(numbers, tf.float32) * module.weights[0] + module.weights[1],
        }

    module.ask = ask
    unused = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([], tf.float32, "x")])
    module.unused = unused
    tf.saved_model.save(module, str(folder / "model"), {"serving_default": ask, "unused": unused})
    return folder / "model", {key: value.numpy() for key, value in ask(tf.constant(WORDS.tolist()), NUMBERS).items()}


def same(got, wanted):
    assert set(got) == set(wanted)
    for key, expected in wanted.items():
        np.testing.assert_array_equal(np.asarray(got[key]), expected)


@pytest.mark.parametrize("asked", SURGERY.values(), ids=SURGERY)
def test_what_was_written_is_loaded_and_answers(tensorflow, export, tmp_path, asked):
    path, wanted = export
    target = tmp_path / "changed"
    modelio.convert(path, target, to="saved-model", **asked)
    run = tensorflow.saved_model.load(str(target)).signatures["serving_default"]
    feed = {"words": tensorflow.constant(WORDS.tolist()), "numbers": tensorflow.constant(NUMBERS)}
    if "bind" in asked:
        del feed["numbers"]
        assert list(modelio.inspect(target).signatures["serving_default"].inputs) == ["words"]
    same({key: value.numpy() for key, value in run(**feed).items()}, wanted)


@pytest.mark.parametrize("asked", SURGERY.values(), ids=SURGERY)
def test_and_it_can_be_frozen_and_run(export, asked):
    path, wanted = export
    once = modelio.convert(path, to="saved-model", **asked).data
    feed = {"words": WORDS, "numbers": NUMBERS}
    if "bind" in asked:
        del feed["numbers"]
    same(modelio.to_callable(once)(**feed), wanted)
    same(modelio.to_callable(freeze(modelio.read(once))[0])(**feed), wanted)


def test_a_dense_table_has_its_keys_and_not_its_buckets(export):
    """``MutableDenseHashTable::ExportValues`` writes all buckets, which no constant may hand to the op that imports."""
    path, _ = export
    frozen, _ = freeze(modelio.read(path))
    shapes = {
        name.rpartition("/")[2]: tuple(dim.size for dim in node.attr["value"].tensor.tensor_shape.dim)
        for name, node in {node.name: node for node in frozen.graph.node}.items()
        if node.op == "Const" and "/MutableDenseHashTable_table_restore/" in name
    }
    assert shapes == {"keys": (2,), "values": (2,)}


def test_a_variable_is_not_taken_for_another_of_its_name(export):
    """An asset's path is kept in a variable that no checkpoint has; ``tf.Variable`` calls all of them ``Variable``."""
    model = modelio.read(export[0])
    keys = variable_keys(model)
    kinds = {node.name: node.attr["dtype"].type for node in model.graph.node}
    assert sorted(keys.values()) == sorted(key for key in model.variables if key.endswith("VARIABLE_VALUE"))
    assert all(kinds[name] == messages.DataType.DT_FLOAT for name in keys)


def test_no_function_is_left_that_calls_one_that_went():
    """Methods of Python objects that nothing in the graph calls: TensorFlow 2.4 exports each of a module's."""

    def graph(*nodes):
        made = messages.GraphDef()
        for name in nodes:
            made.node.add(name=name, op="PartitionedCall").attr["f"].func.name = name
        return made

    before = graph("shared", "kept")
    for name, calls in (("shared", ()), ("kept", ()), ("method", ("shared",)), ("outer", ("method",)), ("alone", ())):
        function = before.library.function.add()
        function.signature.name = name
        for other in calls:
            function.node_def.add(name="call", op="PartitionedCall").attr["f"].func.name = other
    after = graph("kept")
    after.library.CopyFrom(before.library)
    drop_functions(before, after, {})
    left = {function.signature.name for function in after.library.function}
    assert left == {"kept", "alone"}
    assert all(one.name in left for row in after.library.function for node in row.node_def for one in called(node))
