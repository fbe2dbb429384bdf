"""Tables in frozen graphs: filled from constants, from what the checkpoint held, and from the lines of assets."""

from __future__ import annotations

import numpy as np
import pytest

from modelio.errors import ConversionError, ReadError
from modelio.graph.surgery.freezing import freeze
from tests.corpus import cases
from tests.graph.surgery.frozen import (
    agrees,
    both,
    of_session,
    read,
    run,
    whole,
)


def test_a_table_has_the_words_of_its_asset(tensorflow):
    """Told without TensorFlow: what the vocabulary's lines say."""
    (case,) = cases(version="extra_tf-2.21.0", model="assets")
    words = (case / "assets" / "vocab.txt").read_bytes().split()
    model, _ = freeze(read(case.path))
    feed = {model.signatures["serving_default"].inputs["word"].tensor: np.array(words, object)}
    assert run(model, feed)[0].tolist() == list(range(len(words)))


@both
def test_every_request_finds_the_table_filled(tensorflow, inline):
    """From the second on, in one session, filling it does nothing."""
    v1 = tensorflow.compat.v1
    (case,) = cases(version="extra_tf-2.21.0", model="assets")
    model, _ = freeze(read(case.path), inline=inline)
    spec = model.signatures["serving_default"]
    (word,), (number,) = spec.inputs.values(), spec.outputs.values()
    first = (case / "assets" / "vocab.txt").read_bytes().split()[0]
    with tensorflow.Graph().as_default(), v1.Session() as session:
        tensorflow.graph_util.import_graph_def(v1.GraphDef.FromString(whole(model)), name="")
        for _ in range(3):
            assert session.run(number.tensor, {word.tensor: [first, b"unheard of"]}).tolist() == [0, -1]


@both
def test_tables_that_change_and_tables_of_constants(tensorflow, tmp_path, inline):
    tf = tensorflow
    fixed = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a", "b"], [1.5, 2.5]), -1.0)
    growing = tf.lookup.experimental.MutableHashTable("string", "float32", 0.0)
    growing.insert(["b", "c"], [10.0, 20.0])
    module = tf.Module()
    module.tables = [fixed, growing]
    traced = tf.function(
        lambda words: fixed.lookup(words) + growing.lookup(words),
        input_signature=[tf.TensorSpec([None], "string", "w")],
    )
    tf.saved_model.save(module, str(tmp_path / "m"), traced.get_concrete_function())
    words = np.array([b"a", b"b", b"c", b"d"], object)
    agrees(read(tmp_path / "m"), traced, tf, words, inline=inline)


@pytest.mark.parametrize(
    ("kinds", "columns", "options"),
    [
        (("string", "int64"), (-2, -1), {}),
        (("string", "int64"), (-2, -1), {"vocab_size": 2}),
        (("string", "float32"), (1, 0), {"delimiter": ","}),
        (("int64", "string"), (-1, 1), {"delimiter": ","}),
        (("string", "string"), (1, -2), {"delimiter": ",", "vocab_size": 3}),
    ],
    ids=str,
)
def test_tables_of_columns_of_an_asset(tensorflow, tmp_path, kinds, columns, options):
    """The lines are read as TensorFlow reads them: without carriage returns, numbered from zero."""
    tf = tensorflow
    (tmp_path / "words.csv").write_bytes(b"1.5,one\r\n2,two\n-3e2, three \n4,")
    initializer = tf.lookup.TextFileInitializer(
        str(tmp_path / "words.csv"), *(end for pair in zip(kinds, columns, strict=True) for end in pair), **options
    )
    default = {"int64": -1, "float32": -1.0, "string": "none"}[kinds[1]]
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(initializer, default)
    traced = tf.function(module.table.lookup, input_signature=[tf.TensorSpec([None], kinds[0])])
    tf.saved_model.save(module, str(tmp_path / "m"), traced.get_concrete_function())
    model = read(tmp_path / "m")
    assert list(model.assets) == ["words.csv"]
    asked = [b"one", b"two", b" three ", b"", b"1.5,one", b"4,", b"2,two"] if kinds[0] == "string" else [0, 1, 2, 3, 4]
    asked = np.array(asked, object if kinds[0] == "string" else "int64")
    frozen, changes = agrees(model, traced, tf, asked)
    assert frozen.assets == {}
    assert any("is filled by the first request" in change for change in changes)


def test_a_table_of_a_file_that_is_not_in_the_model(tf1, tmp_path):
    v1 = tf1.v1
    words = tmp_path / "words.txt"
    words.write_text("a\nb\n")
    raw = __import__("tensorflow").raw_ops
    table = raw.HashTableV2(key_dtype="string", value_dtype="int64", name="table")
    raw.InitializeTableFromTextFileV2(
        table_handle=table, filename=v1.constant(str(words)), key_index=-2, value_index=-1
    )
    y = raw.LookupTableFindV2(table_handle=table, keys=v1.constant(["a"]), default_value=np.int64(-1), name="y")
    with pytest.raises(ConversionError, match="filled from a file that is not part of the model") as caught:
        freeze(of_session(tf1, [y]))
    assert caught.value.unsupported[0].startswith("table (HashTableV2")


def test_what_only_a_loader_can_fill_is_refused(tf1, tmp_path):
    """A queue is no variable and no table."""
    v1 = tf1.v1
    queue = v1.FIFOQueue(3, ["float32"], [()], name="queue")
    y = v1.identity(queue.size(), name="y")
    info = v1.saved_model.build_signature_def({}, {"y": v1.saved_model.build_tensor_info(y)}, "predict")
    builder = v1.saved_model.Builder(str(tmp_path / "m"))
    first = queue.enqueue(1.0)
    builder.add_meta_graph_and_variables(tf1, ["serve"], {"serving_default": info}, main_op=first)
    builder.save()
    with pytest.raises(ConversionError, match="QueueEnqueueV2 fills it when the model is loaded") as caught:
        freeze(read(tmp_path / "m"))
    assert caught.value.unsupported[0].startswith("queue (FIFOQueueV2")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda node: node.input.pop(), "it has 1 inputs"),
        (lambda node: node.attr["vocab_size"].Clear(), "'vocab_size' is no number"),
        (lambda node: node.attr["key_index"].Clear(), "'key_index' is no number"),
    ],
    ids=["an input is missing", "no size", "no column"],
)
def test_a_damaged_initializer(damage, sentence):
    (case,) = cases(version="extra_tf-2.21.0", model="assets")
    model = read(case.path)
    (node,) = [
        node
        for function in model.graph.library.function
        for node in function.node_def
        if node.op == "InitializeTableFromTextFileV2"
    ]
    damage(node)
    with pytest.raises(ReadError, match=sentence):
        freeze(model)
