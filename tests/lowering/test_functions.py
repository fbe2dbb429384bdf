"""Functions of TensorFlow in models of tf.keras, each against tf.keras itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from modelio.errors import ConversionError
from modelio.lowering import lower
from modelio.model import LayerModel
from tests.lowering.harness import assert_same, keras2, run, tensorflow
from tests.lowering.test_operations import HOLES, OTHER, POSITIVE, TRUTH, UNIT, WHOLE, X, Y, noise
from tests.lowering.written import graph_of, runs_on

_MATH = (
    "abs ceil cos cosh erf exp expm1 floor is_finite is_inf is_nan negative rint round sigmoid sign sin sinh softplus"
)
_MATH += " square tan tanh log_sigmoid asinh atan lgamma erfc"
_POSITIVE = "log log1p rsqrt sqrt reciprocal digamma acosh"
_UNIT = "acos asin atanh erfinv"
_NN = "relu relu6 softplus softsign tanh elu selu silu swish gelu softmax log_softmax leaky_relu sigmoid"
_TWO = "add subtract multiply maximum minimum squared_difference divide truediv floordiv floormod mod equal not_equal greater"
_TWO += " greater_equal less less_equal atan2"
_REDUCE = "sum mean max min prod logsumexp variance std euclidean_norm"


def rows():
    """Name, function of ``(tf, *inputs)``, inputs."""
    for name in _MATH.split():
        yield name, lambda tf, x, n=name: getattr(tf.math, n)(x), X
    for name in _POSITIVE.split():
        yield name, lambda tf, x, n=name: getattr(tf.math, n)(x), POSITIVE + 1
    for name in _UNIT.split():
        yield name, lambda tf, x, n=name: getattr(tf.math, n)(x), UNIT
    for name in _NN.split():
        yield name, lambda tf, x, n=name: getattr(tf.nn, n)(x), X
    for name in _TWO.split():
        yield name, lambda tf, x, y, n=name: getattr(tf.math, n)(x, y), X, POSITIVE
        yield name, lambda tf, x, n=name: getattr(tf.math, n)(x, 2.0), X
        yield name, lambda tf, x, n=name: getattr(tf.math, n)(3.0, x), POSITIVE
        if name != "atan2":
            yield name, lambda tf, x, y, n=name: getattr(tf.math, n)(x, y), WHOLE, OTHER
    for name in _REDUCE.split():
        for axis in (None, 1, [1, 2], -1):
            for keep in (False, True):
                yield (
                    name,
                    lambda tf, x, n=name, a=axis, k=keep: getattr(tf.math, f"reduce_{n}")(x, axis=a, keepdims=k),
                    X,
                )
    yield "reduce_mean", lambda tf, x: tf.reduce_mean(x, axis=1), WHOLE
    for name in ("any", "all"):
        yield name, lambda tf, x, n=name: getattr(tf.math, f"reduce_{n}")(x, axis=1), TRUTH
    yield "operators", lambda tf, x: (1 - x) * 2 / (x * x + 1) // 2 % 3 - (-abs(x)) ** 2, X
    yield "operators", lambda tf, x: tf.cast(((x > 0) & (x < 1)) | ~(x > 0.0) | (x >= 2) | (x <= 1), "float32"), X
    yield "operators", lambda tf, x, y: x @ tf.transpose(y, [0, 2, 1]), X, Y
    yield "getitem", lambda tf, x: x[:, 0], X
    yield "getitem", lambda tf, x: x[..., None, 1:], X
    yield "getitem", lambda tf, x: x[:, ::-1, -1], X
    yield "getitem", lambda tf, x: x[1:, :2][:, -1:], X
    yield "shape", lambda tf, x: tf.reshape(x, [tf.shape(x)[0], -1]), X
    yield "shape", lambda tf, x: tf.reshape(x, tf.concat([tf.shape(x)[:1], [2, 6]], 0)), X
    yield "shape", lambda tf, x: tf.range(tf.shape(x)[1]), X
    yield "shape", lambda tf, x: tf.fill([tf.shape(x)[0], 3], 2.0), X
    yield "shape", lambda tf, x: tf.zeros([tf.shape(x)[0], 3]) + tf.ones([1, 3]), X
    yield "shape", lambda tf, x: tf.cast(tf.size(x), "float32") * x, X
    yield "concat", lambda tf, x, y: tf.concat([x, y], -1), X, Y
    yield "concat", lambda tf, x, y: tf.keras_backend.concatenate([x, y]), X, Y
    yield "stack", lambda tf, x, y: tf.stack([x, y], 1), X, Y
    yield "split", lambda tf, x: tf.split(x, 2, axis=-1), X
    yield "split", lambda tf, x: tf.split(x, [1, 2], axis=1), X
    yield "unstack", lambda tf, x: tf.unstack(x, axis=1), X
    yield "where", lambda tf, x: tf.where(x > 0, x, tf.zeros_like(x)), X
    yield "where", lambda tf, x: tf.where(x > 0, x, -1.0), X
    yield "where", lambda tf, x: tf.where(tf.math.is_nan(x), tf.zeros_like(x), x), HOLES
    yield "cast", lambda tf, x: tf.cast(x, tf.int32), X
    yield "cast", lambda tf, x: tf.cast(x, "float16"), X
    yield "clip", lambda tf, x: tf.clip_by_value(x, -1, 1), X
    yield "one_hot", lambda tf, x: tf.one_hot(x, 9), OTHER
    yield "one_hot", lambda tf, x: tf.one_hot(x, 9, on_value=5, off_value=-1, axis=1, dtype="int32"), OTHER
    yield "gather", lambda tf, x: tf.gather(x, [0, 1], axis=1), X
    yield "gather", lambda tf, x: tf.gather(x, [0, 1]), X
    yield "gather", lambda tf, x, i: tf.gather(x, i, batch_dims=1), X, OTHER[:, 0] % 3
    yield "gather", lambda tf, x, i: tf.gather(x, i, batch_dims=1, axis=1), X, OTHER[:, 0, 0] % 3
    yield "gather", lambda tf, x, i: tf.gather(x, i, batch_dims=2), X, OTHER % 4
    yield "gather_nd", lambda tf, x: tf.gather_nd(x, [[0, 1], [1, 2]]), X
    yield (
        "embedding_lookup",
        lambda tf, x: tf.nn.embedding_lookup(np.arange(36, dtype=np.float32).reshape(12, 3), x),
        OTHER,
    )
    yield "squeeze", lambda tf, x: tf.squeeze(x[:, :1], 1), X
    yield "expand_dims", lambda tf, x: tf.expand_dims(x, 1), X
    yield "tile", lambda tf, x: tf.tile(x, [1, 2, 1]), X
    yield "repeat", lambda tf, x: tf.repeat(x, 2, axis=1), X
    yield "pad", lambda tf, x: tf.pad(x, [[0, 0], [1, 1], [0, 0]]), X
    yield "pad", lambda tf, x: tf.pad(x, [[0, 0], [1, 1], [0, 0]], "REFLECT"), X
    yield "pad", lambda tf, x: tf.pad(x, [[0, 0], [1, 1], [0, 0]], constant_values=3.0), X
    yield "reverse", lambda tf, x: tf.reverse(x, [1]), X
    yield "roll", lambda tf, x: tf.roll(x, 1, 1), X
    yield "transpose", lambda tf, x: tf.transpose(x, [0, 2, 1]), X
    yield "transpose", lambda tf, x: tf.transpose(x), X
    yield "broadcast", lambda tf, x: tf.broadcast_to(x[:, :1], tf.shape(x)), X
    yield "argmax", lambda tf, x: tf.argmax(x, -1), X
    yield "argmin", lambda tf, x: tf.argmin(x, 1, output_type=tf.int32), X
    yield "top_k", lambda tf, x: tf.math.top_k(x, 2), X
    yield "sort", lambda tf, x: tf.sort(x, axis=1), X
    yield "sort", lambda tf, x: tf.sort(x, axis=1, direction="DESCENDING"), X
    yield "argsort", lambda tf, x: tf.argsort(x), X
    yield "cumsum", lambda tf, x: tf.cumsum(x, 1, exclusive=True, reverse=True), X
    yield "cumprod", lambda tf, x: tf.math.cumprod(x, 1), X
    yield "count_nonzero", lambda tf, x: tf.math.count_nonzero(x, axis=1), WHOLE
    yield "norm", lambda tf, x: tf.norm(x, axis=-1), X
    yield "norm", lambda tf, x: tf.norm(x, ord=1, axis=-1, keepdims=True), X
    yield "l2_normalize", lambda tf, x: tf.nn.l2_normalize(x, -1), X
    yield "moments", lambda tf, x: tf.nn.moments(x, [1]), X
    yield "matmul", lambda tf, x, y: tf.matmul(x, y, transpose_b=True), X, Y
    yield "matvec", lambda tf, x, y: tf.linalg.matvec(x, y), X, noise(2, 4)
    yield "tensordot", lambda tf, x: tf.tensordot(x, noise(4, 5), 1), X
    yield "band_part", lambda tf, x: tf.linalg.band_part(x, 1, 0), X
    yield "add_n", lambda tf, x, y: tf.math.add_n([x, y]), X, Y
    yield "bias_add", lambda tf, x: tf.nn.bias_add(x, [1.0, 2, 3, 4]), X
    yield "softmax", lambda tf, x: tf.nn.softmax(x, axis=1), X
    yield "gelu", lambda tf, x: tf.nn.gelu(x, approximate=True), X
    yield "leaky_relu", lambda tf, x: tf.nn.leaky_relu(x, alpha=0.3), X
    yield "conv1d", lambda tf, x: tf.nn.conv1d(x, noise(2, 4, 3), 1, "SAME"), X
    yield "conv2d", lambda tf, x: tf.nn.conv2d(x, noise(2, 2, 3, 4), [1, 2, 1, 1], "VALID"), noise(2, 5, 6, 3)
    yield (
        "depthwise",
        lambda tf, x: tf.nn.depthwise_conv2d(x, noise(2, 2, 3, 2), [1, 1, 1, 1], "SAME"),
        noise(2, 5, 6, 3),
    )
    yield "max_pool2d", lambda tf, x: tf.nn.max_pool2d(x, 2, 2, "SAME"), noise(2, 5, 6, 3)
    yield "avg_pool2d", lambda tf, x: tf.nn.avg_pool2d(x, [1, 2, 2, 1], [1, 1, 1, 1], "VALID"), noise(2, 5, 6, 3)
    yield "depth_to_space", lambda tf, x: tf.nn.depth_to_space(x, 2), noise(2, 2, 3, 8)
    yield "space_to_depth", lambda tf, x: tf.nn.space_to_depth(x, 2), noise(2, 4, 6, 3)
    for method in ("nearest", "bilinear", "bicubic", "area"):
        yield "resize", lambda tf, x, m=method: tf.image.resize(x, (4, 9), method=m), noise(2, 5, 6, 3)
    yield "sequence_mask", lambda tf, x: tf.sequence_mask(x, 7), OTHER[:, 0]
    yield "identity", lambda tf, x: tf.identity(tf.stop_gradient(x)), X
    yield "linspace", lambda tf, x: tf.linspace(x, x + 1, 3, axis=1), X
    yield "batch_flatten", lambda tf, x: tf.keras_backend.batch_flatten(x), X
    yield "backend", lambda tf, x: tf.keras_backend.sqrt(tf.keras_backend.mean(tf.keras_backend.square(x), axis=1)), X
    yield "backend", lambda tf, x: tf.keras_backend.repeat_elements(tf.keras_backend.l2_normalize(x, -1), 2, 1), X


CASES = list(rows())


class _WithBackend:
    """The module, and Keras' own functions beside it."""

    def __getattr__(self, name):
        return keras2().backend if name == "keras_backend" else getattr(tensorflow(), name)


def model_of(call, arrays, batch=None):
    keras = keras2()
    feeds = [keras.Input(array.shape[1:], batch_size=batch, dtype=array.dtype.name) for array in arrays]
    return keras.Model(feeds if len(feeds) > 1 else feeds[0], call(_WithBackend(), *feeds))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("call", "arrays"), [pytest.param(row[1], row[2:], id=f"{row[0]}-{number}") for number, row in enumerate(CASES)]
)
def test_function(call, arrays):
    assert_same(model_of(call, arrays), *arrays)


def test_a_comparison_that_tf_keras_wrote_by_half():
    model = model_of(lambda tf, x: tf.cast(x == 1.0, "float32"), [X])
    with pytest.raises(ConversionError, match="the second operand is missing"):
        lower(LayerModel.from_json(model.to_json(), []))


def test_half_precision_stays():
    """A function casts nothing."""
    graph = assert_same(
        model_of(lambda tf, x: tf.math.exp(x) * 2 + 1, [X.astype(np.float16)]), X.astype(np.float16), rtol=2e-3
    )
    assert graph.signatures["serving_default"].outputs.popitem()[1].dtype == "float16"


@pytest.mark.parametrize(
    "name", ["operators", "getitem", "shape", "concat", "split", "where", "one_hot", "softmax", "norm"]
)
def test_functions_in_tensorflow_1_2(name):
    for row in CASES:
        if row[0] == name:
            assert runs_on(assert_same(model_of(row[1], row[2:]), *row[2:])) <= (1, 2, 1)


def test_a_function_without_a_rule_is_named():
    model = model_of(lambda tf, x: tf.math.bessel_i1(x), [X])
    with pytest.raises(ConversionError, match=r"tf\.math\.bessel_i1 \(tf\.math\.bessel_i1\)"):
        lower(LayerModel.from_json(model.to_json(), []))


def test_einsum_of_tf_keras_has_lost_its_operands():
    model = model_of(lambda tf, x: tf.einsum("bij,bkj->bik", x, x), [X])
    with pytest.raises(ConversionError, match=r"forgets the operands|without inputs|no layer"):
        lower(LayerModel.from_json(model.to_json(), []))


# -- the nodes of TensorFlow 2.0 to 2.3 --------------------------------------------------------------------------------


def node(op, attr, inputs):
    return json.dumps({"name": op.lower(), "op": op, "input": [f"in_{i}" for i in range(inputs)], "attr": attr})


FLOAT = {"type": "DT_FLOAT"}
NODES = [
    ("AddV2", {"T": FLOAT}, {"1": 2.5}, [X], lambda x: x + 2.5),
    ("Sub", {"T": FLOAT}, {"0": 1.0}, [X], lambda x: 1 - x),
    ("Mul", {"T": FLOAT}, {}, [X, Y], lambda x, y: x * y),
    (
        "Mean",
        {"T": FLOAT, "Tidx": {"type": "DT_INT32"}, "keep_dims": {"b": True}},
        {"1": [1]},
        [X],
        lambda x: x.mean(1, keepdims=True),
    ),
    (
        "ConcatV2",
        {"T": FLOAT, "N": {"i": "2"}, "Tidx": {"type": "DT_INT32"}},
        {"2": -1},
        [X, Y],
        lambda x, y: np.concatenate([x, y], -1),
    ),
    (
        "Cast",
        {"SrcT": FLOAT, "DstT": {"type": "DT_INT32"}, "Truncate": {"b": False}},
        {},
        [X],
        lambda x: x.astype(np.int32),
    ),
]


@pytest.mark.parametrize(("op", "attr", "constants", "arrays", "expected"), NODES, ids=[row[0] for row in NODES])
def test_node(op, attr, constants, arrays, expected):
    config = {"node_def": node(op, attr, len(arrays) + len(constants)), "constants": constants, "dtype": "float32"}
    graph = graph_of("2.3.0-tf", "TensorFlowOpLayer", config, [x.shape[1:] for x in arrays])
    (answer,) = run(graph, arrays)
    np.testing.assert_allclose(answer, expected(*arrays), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"op": "NoSuchOp"}', '{"op": "ReadFile"}', '{"op": "AddV2", "attr": {"T": {}}}', None]
)
def test_a_node_that_is_none(text):
    config = {"node_def": text, "constants": {}, "dtype": "float32"}
    with pytest.raises(ConversionError, match="cannot be made"):
        graph_of("2.3.0-tf", "TensorFlowOpLayer", config, [(3,)])
