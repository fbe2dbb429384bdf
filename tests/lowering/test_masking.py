"""Masks: where they begin, what heeds them, and which layers hand them on.

Whether a layer hands its mask on is seen by a layer behind it that heeds it: an RNN, or an average over the steps.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelio.lowering.masking import PASSES, PASSES_3
from modelio.lowering.rules import find, find_masks
from tests.lowering.harness import assert_same, frameworks, keras2, keras3
from tests.lowering.written import answer, graph_of, runs_on

STEPS = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 0, 0, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], "float32")
"""Padded behind and in front, with a hole, whole, and nothing at all."""


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype("float32")


def masked(features: int = 4, steps: np.ndarray = STEPS, seed: int = 0) -> np.ndarray:
    """A sequence with zeros where a step does not count."""
    return noise(*steps.shape, features, seed=seed) * steps[..., None]


X = masked()

ENDS = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
"""Keras 3 warns where a layer ends a mask."""


def model(keras, *layers, features=4, steps=5, mask_value=0.0):
    """A chain of layers behind a Masking: a Sequential, whose file says nothing of masks.

    A functional model of Keras 3 has its masks in the file, as operations, and is what layers with several outputs get.
    """
    inputs = keras.Input((steps, features))
    if not any(getattr(layer, "return_state", False) or getattr(layer, "merge_mode", "") is None for layer in layers):
        return keras.Sequential([inputs, keras.layers.Masking(mask_value), *layers])
    x = keras.layers.Masking(mask_value)(inputs)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, list(x))


def whole(x):
    """Without the sample in which nothing counts, whose average is 0 / 0."""
    return x[:4]


# -- recurrent layers heed it ------------------------------------------------------------------------------------------


@frameworks()
@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("outputs", [{}, {"return_sequences": True, "return_state": True}])
@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_recurrent(keras, name, outputs, unroll):
    """A masked step leaves the states, and repeats the output before it; in front of all others it is zero."""
    layer = getattr(keras.layers, name)
    for backwards in (False, True):
        assert_same(model(keras, layer(3, go_backwards=backwards, unroll=unroll, **outputs)), X)


@frameworks()
@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("every", [False, True])
def test_masked_outputs_of_zero(keras, unroll, every):
    if unroll and not every and not hasattr(keras, "ops"):
        pytest.skip("tf_keras 2.21 cannot build it")
    layer = keras.layers.RNN(
        keras.layers.LSTMCell(3), zero_output_for_mask=True, return_sequences=every, return_state=True, unroll=unroll
    )
    assert_same(model(keras, layer), X)


@frameworks()
def test_stacked_cells(keras):
    cells = [keras.layers.LSTMCell(2), keras.layers.GRUCell(3)]
    assert_same(model(keras, keras.layers.RNN(cells, return_sequences=True)), X)


@frameworks()
@settings(max_examples=8, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_steps(keras, data):
    steps = np.array(data.draw(st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=1, max_size=4)))
    layer = keras.layers.GRU(2, return_sequences=data.draw(st.booleans()), go_backwards=data.draw(st.booleans()))
    told = data.draw(st.sampled_from([4, None]))
    assert_same(model(keras, layer, steps=told), masked(steps=steps.astype("float32")))


@frameworks()
def test_states_that_are_given(keras):
    """In Keras 3 an RNN with two tensor arguments gets no mask."""
    inputs, state = keras.Input((5, 4)), keras.Input((3,))
    for every in (False, True):
        layer = keras.layers.GRU(3, return_sequences=every)
        outputs = layer(keras.layers.Masking()(inputs), initial_state=state)
        assert_same(keras.Model([inputs, state], outputs), X, noise(5, 3))


@frameworks()
def test_mask_given_with_the_call(keras):
    inputs, mask = keras.Input((5, 4)), keras.Input((5,), dtype="bool")
    outputs = keras.layers.LSTM(3, return_sequences=True)(inputs, mask=mask)
    assert_same(keras.Model([inputs, mask], outputs), noise(5, 5, 4), STEPS.astype(bool))


@frameworks()
@pytest.mark.parametrize("mode", ["concat", "sum", None])
@pytest.mark.parametrize("outputs", [{}, {"return_sequences": True}])
def test_bidirectional(keras, mode, outputs):
    """Sequences are zero where masked, so that both directions agree."""
    layer = keras.layers.Bidirectional(keras.layers.SimpleRNN(3, **outputs), merge_mode=mode)
    assert_same(model(keras, layer), X)


@frameworks()
def test_bidirectional_with_mask_and_states(keras):
    inputs, mask = keras.Input((5, 4)), keras.Input((5,), dtype="bool")
    states = [keras.Input((2,)), keras.Input((2,))]
    layer = keras.layers.Bidirectional(keras.layers.SimpleRNN(2, return_sequences=True))
    outputs = layer(inputs, initial_state=states, mask=mask)
    arrays = [noise(5, 5, 4), noise(5, 2), noise(5, 2, seed=1), STEPS.astype(bool)]
    assert_same(keras.Model([inputs, *states, mask], outputs), *arrays)


@frameworks()
def test_bidirectional_hands_it_on(keras):
    layers = keras.layers
    assert_same(model(keras, layers.Bidirectional(layers.SimpleRNN(3, return_sequences=True)), layers.SimpleRNN(2)), X)
    inputs = keras.Input((5, 4))
    both = layers.Bidirectional(layers.SimpleRNN(3, return_sequences=True), merge_mode=None)(layers.Masking()(inputs))
    assert_same(keras.Model(inputs, [layers.SimpleRNN(2)(one) for one in both]), X)


@frameworks()
def test_recurrent_layers_hand_it_on(keras):
    layers = keras.layers
    assert_same(model(keras, layers.GRU(3, return_sequences=True), layers.SimpleRNN(2)), X)
    inputs = keras.Input((5, 4))
    sequence, state = layers.GRU(3, return_sequences=True, return_state=True)(layers.Masking()(inputs))
    assert_same(keras.Model(inputs, [layers.SimpleRNN(2)(sequence), state]), X)


@frameworks()
def test_pictures(keras):
    """A step of pictures is masked as a whole, where a mask of two axes is given."""
    inputs, mask = keras.Input((5, 4, 4, 2)), keras.Input((5,), dtype="bool")
    outputs = keras.layers.ConvLSTM2D(2, 3, return_sequences=True)(inputs, mask=mask)
    assert_same(keras.Model([inputs, mask], outputs), noise(5, 5, 4, 4, 2), STEPS.astype(bool))


@frameworks()
def test_pictures_whose_pixels_are_masked(keras):
    """Masking of pictures marks every pixel by itself."""
    inputs = keras.Input((3, 4, 4, 2))
    layer = keras.layers.ConvLSTM2D(2, 3, padding="same", return_sequences=True)
    x = noise(2, 3, 4, 4, 2) * (noise(2, 3, 4, 4, 1, seed=1) > 0)
    assert_same(keras.Model(inputs, layer(keras.layers.Masking()(inputs))), x)


# -- where masks begin -------------------------------------------------------------------------------------------------


@frameworks()
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_masking(keras, value):
    """What is masked becomes zero."""
    x = np.where(STEPS[..., None] > 0, noise(5, 5, 4), np.float32(value)).astype("float32")
    graph = assert_same(model(keras, mask_value=value), x)
    assert runs_on(graph) <= (1, 2, 1)
    assert_same(model(keras, keras.layers.SimpleRNN(3), mask_value=value), x)


@frameworks()
def test_embedding(keras):
    """A zero is a step that does not count."""
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
    ids = (np.arange(25).reshape(5, 5) % 8 + 1) * STEPS.astype("int32")
    assert_same(keras.Model(inputs, keras.layers.SimpleRNN(3)(x)), ids)


# -- what hands them on ------------------------------------------------------------------------------------------------

ONE_TO_ONE = {
    "Activation": ("tanh",),
    "ActivityRegularization": (),
    "AlphaDropout": (0.5,),
    "BatchNormalization": (),
    "Dense": (4,),
    "Dropout": (0.5,),
    "ELU": (),
    "GaussianDropout": (0.5,),
    "GaussianNoise": (0.5,),
    "GroupNormalization": (2,),
    "Identity": (),
    "LayerNormalization": (),
    "LeakyReLU": (),
    "PReLU": (),
    "ReLU": (),
    "Rescaling": (2.0,),
    "SpatialDropout1D": (0.5,),
    "ThresholdedReLU": (),
    "UnitNormalization": (),
    # and what ends them
    "Conv1D": (4, 1),
    "EinsumDense": ("abc,cd->abd", (5, 4)),
    "MaxPooling1D": (1,),
    "Permute": ((1, 2),),
    "Reshape": ((5, 4),),
    "RMSNormalization": (),
    "UpSampling1D": (1,),
    "ZeroPadding1D": (0,),
}
"""Layers from (5, 4) to (5, 4), with the arguments for it."""


@frameworks()
def test_functional_model(keras):
    layers = keras.layers
    inputs = keras.Input((5, 4))
    x = layers.Bidirectional(layers.SimpleRNN(3, return_sequences=True))(layers.Masking()(inputs))
    x = layers.SimpleRNN(3, return_sequences=True)(layers.Dropout(0.5)(x))
    assert_same(keras.Model(inputs, layers.GlobalAveragePooling1D()(x)), whole(X))


@ENDS
@frameworks()
def test_layer_in_between(keras):
    for name, arguments in ONE_TO_ONE.items():
        layer = getattr(keras.layers, name, None)
        if layer is None or (name == "GroupNormalization" and not hasattr(keras, "ops")):
            continue  # of the other Keras; tf_keras cannot group what is masked
        assert_same(model(keras, layer(*arguments), keras.layers.SimpleRNN(2)), X)


def _pair():
    return noise(5, 5, 4), noise(5, 5, 4, seed=1) > -0.5


@frameworks()
@pytest.mark.parametrize("axis", [-1, (1, 2)])
def test_softmax(keras, axis):
    """What is masked gets nothing; where all of it is, Keras 3 gives zeros and Keras 2 what the numbers give."""
    inputs, mask = keras.Input((5, 4)), keras.Input((5, 4), dtype="bool")
    outputs = keras.layers.Softmax(axis)(inputs, mask=mask)
    x, marks = _pair()
    marks[0] = False
    assert_same(keras.Model([inputs, mask], outputs), x, marks)


def test_every_class_that_passes_has_a_rule():
    """And what the frameworks say of those that can be built without arguments, or with those above."""
    for name in PASSES_3 | PASSES:
        assert find_masks(name) is None
    for keras, passes in ((keras3(), PASSES_3), (keras2(), PASSES)):
        for name, arguments in ONE_TO_ONE.items():
            layer = getattr(keras.layers, name, None)
            if layer is not None and find(name) is not None:
                assert layer(*arguments).supports_masking == (name in passes), name


@frameworks()
def test_average_over_steps(keras):
    recurrent = keras.layers.SimpleRNN(3, return_sequences=True)
    assert_same(model(keras, recurrent, keras.layers.GlobalAveragePooling1D()), whole(X))
    assert_same(model(keras, keras.layers.GlobalAveragePooling1D()), whole(X))
    assert_same(model(keras, keras.layers.GlobalAveragePooling1D(keepdims=True)), whole(X))
    inputs, mask = keras.Input((4, 5)), keras.Input((5,), dtype="bool")
    layer = keras.layers.GlobalAveragePooling1D(data_format="channels_first")
    assert_same(keras.Model([inputs, mask], layer(inputs, mask=mask)), noise(4, 4, 5), whole(STEPS).astype(bool))


@ENDS
@frameworks()
def test_average_over_pictures_heeds_none(keras):
    inputs = keras.Input((5, 4, 2))
    assert_same(
        keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.Masking()(inputs))), noise(2, 5, 4, 2)
    )


# -- merging -----------------------------------------------------------------------------------------------------------

MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")


def merged(keras, name, marks=(True, True), **arguments):
    """Two sequences, masked or not, merged, and what an RNN makes of it."""
    feeds = [keras.Input((5, 4)) for _ in marks]
    values = [keras.layers.Masking()(x) if mark else x for x, mark in zip(feeds, marks, strict=True)]
    merged = getattr(keras.layers, name)(**arguments)(values)
    return keras.Model(feeds, [merged, keras.layers.SimpleRNN(2, return_sequences=True)(merged)])


@frameworks()
@pytest.mark.parametrize("marks", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("name", MERGES)
def test_merging(keras, name, marks):
    """Keras 3 takes a step that counts in any input, Keras 2 one that counts in all."""
    assert_same(merged(keras, name, marks), X, masked(steps=np.roll(STEPS, 1, 0), seed=1))


@frameworks()
def test_merging_along_the_steps(keras):
    assert_same(merged(keras, "Concatenate", axis=1), X, masked(seed=1))


@frameworks()
def test_merging_three(keras):
    feeds = [X, masked(steps=np.roll(STEPS, 1, 0), seed=1), masked(steps=np.roll(STEPS, 2, 0), seed=2)]
    for name in MERGES:
        if name != "Subtract":
            assert_same(merged(keras, name, (True, True, True)), *feeds)


def test_merging_before_keras_3_4():
    """Keras 3.3 looked for a mask on the list of inputs: there was none, so it was lost (pull request 19685)."""
    arrays = [noise(4, 2), noise(2, 2)]
    both = np.array([[[1.0, 1], [0, 0]]], "float32")

    def last(version):
        layers = [
            *(
                {"class_name": "InputLayer", "config": {"name": name, "batch_shape": [None, 2, 2]}, "name": name}
                for name in ("a", "b")
            ),
            *(
                {
                    "class_name": "Masking",
                    "config": {"name": f"m{name}"},
                    "name": f"m{name}",
                    "inbound_nodes": _call(name),
                }
                for name in ("a", "b")
            ),
            {"class_name": "Concatenate", "config": {"name": "c"}, "name": "c", "inbound_nodes": _call(["ma", "mb"])},
            {
                "class_name": "SimpleRNN",
                "config": {"name": "r", "units": 2, "use_bias": False, "activation": "tanh"},
                "name": "r",
                "inbound_nodes": _call("c"),
            },
        ]
        return _answer_of(layers, ["a", "b"], "r", version, arrays, [both, both])

    def step(x, h=0):
        return np.tanh(
            np.concatenate([x, x], -1) @ arrays[0] + h @ arrays[1]
            if np.ndim(h)
            else np.concatenate([x, x], -1) @ arrays[0]
        )

    once = step(both[:, 0])
    np.testing.assert_allclose(last("3.4.0"), once, atol=1e-5)
    np.testing.assert_allclose(last("3.3.3"), step(both[:, 1], once), atol=1e-5)


def _call(names):
    def tensor(name):
        return {"class_name": "__keras_tensor__", "config": {"shape": [], "dtype": "", "keras_history": [name, 0, 0]}}

    return [{"args": [[tensor(name) for name in names] if isinstance(names, list) else tensor(names)], "kwargs": {}}]


def _answer_of(layers, inputs, output, version, arrays, feeds):
    from modelio.lowering import lower
    from modelio.model import LayerModel
    from tests.lowering.harness import run

    for layer in layers:
        layer["module"] = "keras.layers"
        layer.setdefault("inbound_nodes", [])
    ends = {"input_layers": [[name, 0, 0] for name in inputs], "output_layers": [[output, 0, 0]]}
    architecture = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "keras_version": version,
        "config": {"name": "model", "layers": layers, **ends},
    }
    graph, _ = lower(LayerModel.from_json(architecture, arrays))
    return run(graph, feeds)[0]


# -- wrappers and models -----------------------------------------------------------------------------------------------


@frameworks()
def test_time_distributed(keras):
    """Each step's own mask goes inside, and that of the steps goes on."""
    layers = keras.layers
    assert_same(model(keras, layers.TimeDistributed(layers.Dense(3)), layers.SimpleRNN(2)), X)
    inputs = keras.Input((5, 3, 4))
    x = layers.TimeDistributed(layers.SimpleRNN(3))(layers.Masking()(inputs))
    marks = (noise(2, 5, 3, 1, seed=1) > 0).astype("float32")
    assert_same(keras.Model(inputs, x), noise(2, 5, 3, 4) * marks)


def test_time_distributed_makes_masks():
    """In Keras 2 the masks that the layer inside makes are those of the steps."""
    keras = keras2()
    layers = keras.layers
    inputs = keras.Input((5, 3), dtype="int32")
    x = layers.TimeDistributed(layers.Embedding(9, 4, mask_zero=True))(inputs)
    x = layers.TimeDistributed(layers.SimpleRNN(3))(x)
    ids = np.arange(30).reshape(2, 5, 3) % 9 * (noise(2, 5, 3) > 0)
    assert_same(keras.Model(inputs, layers.SimpleRNN(2)(x)), ids.astype("int32"))


@ENDS
@frameworks()
def test_models_in_models(keras):
    """A mask goes in, and one that begins inside comes out."""
    layers = keras.layers
    inner_inputs = keras.Input((5, 4))
    inner = keras.Model(inner_inputs, layers.SimpleRNN(3, return_sequences=True)(inner_inputs))
    assert_same(model(keras, inner, layers.SimpleRNN(2)), X)
    begins = keras.Sequential([keras.Input((5, 4)), layers.Masking(), layers.Dense(3)])
    inputs = keras.Input((5, 4))
    assert_same(keras.Model(inputs, layers.SimpleRNN(2)(begins(inputs))), X)
    assert_same(keras.Sequential([keras.Input((5, 4)), begins, layers.SimpleRNN(2)]), X)


@ENDS
def test_normalized_layer_in_between():
    """The wrapper knows of no masks; the layer inside marks what it makes."""
    keras = keras3()
    layer = keras.layers.SpectralNormalization(keras.layers.Dense(4))
    assert_same(model(keras, layer, keras.layers.SimpleRNN(2)), X)


@frameworks()
def test_shared_layer_called_with_and_without(keras):
    shared = keras.layers.SimpleRNN(3)
    inputs = keras.Input((5, 4))
    assert_same(
        keras.Model(inputs, [shared(inputs), shared(keras.layers.Masking()(inputs))]), noise(5, 5, 4) * STEPS[..., None]
    )


# -- what older versions meant -----------------------------------------------------------------------------------------


def _chain(version, *layers):
    """A Sequential of Keras 1 or 2."""
    from modelio.lowering import lower
    from modelio.model import LayerModel

    class_names = [{"class_name": name, "config": config} for name, config in layers]
    architecture = {
        "class_name": "Sequential",
        "keras_version": version,
        "backend": "tensorflow",
        "config": class_names,
    }
    return lambda arrays: lower(LayerModel.from_json(architecture, arrays))[0]


@pytest.mark.parametrize("version", ["1.2.2", "2.0.5"])
def test_time_distributed_without_masks(version):
    """Before Keras 2.2 the layer inside of TimeDistributed saw no mask (wrappers.py, ``TimeDistributed.call``)."""
    from tests.lowering.harness import run

    size = "output_dim" if version < "2" else "units"
    inner = {"class_name": "SimpleRNN", "config": {"name": "s", size: 2, "activation": "linear"}}
    first = {"name": "m", "batch_input_shape": [None, 2, 3, 4], "mask_value": 0.0}
    graph = _chain(version, ("Masking", first), ("TimeDistributed", {"name": "t", "layer": inner}))
    kernel, recurrent, bias = noise(4, 2), noise(2, 2, seed=1), noise(2, seed=2)
    x = noise(2, 2, 3, 4)
    x[:, :, 1:] = 0
    h = 0
    for step in range(3):
        h = x[:, :, step] @ kernel + bias + (h @ recurrent if step else 0)
    np.testing.assert_allclose(run(graph([kernel, recurrent, bias]), [x])[0], h, atol=1e-5)


@pytest.mark.parametrize(("version", "is_state"), [("2.2.4", True), ("2.2.5", False)])
def test_first_output_of_a_masked_sequence(version, is_state):
    """Before Keras 2.2.5 it was the state that was given, since then it is zero."""
    config = {"units": 2, "use_bias": False, "return_sequences": True}
    masking = {"class_name": "Masking", "config": {"name": "m", "batch_input_shape": [None, 2, 3]}}
    layers = [
        {
            "class_name": "InputLayer",
            "config": {"name": name, "batch_input_shape": shape},
            "name": name,
            "inbound_nodes": [],
        }
        for name, shape in (("x", [None, 2, 3]), ("h", [None, 2]))
    ]
    layers += [
        {**masking, "name": "m", "inbound_nodes": [[["x", 0, 0, {}]]]},
        {
            "class_name": "SimpleRNN",
            "config": {"name": "r", **config},
            "name": "r",
            "inbound_nodes": [[["m", 0, 0, {}], ["h", 0, 0, {}]]],
        },
    ]
    from modelio.lowering import lower
    from modelio.model import LayerModel
    from tests.lowering.harness import run

    ends = {"input_layers": [["x", 0, 0], ["h", 0, 0]], "output_layers": [["r", 0, 0]]}
    config = {"name": "model", "layers": layers, **ends}
    architecture = {"class_name": "Model", "keras_version": version, "backend": "tensorflow", "config": config}
    graph, _ = lower(LayerModel.from_json(architecture, [noise(3, 2), noise(2, 2, seed=1)]))
    state = noise(1, 2, seed=3)
    (got,) = run(graph, [np.zeros((1, 2, 3), "float32"), state])
    np.testing.assert_allclose(got, np.stack([state, state], 1) if is_state else np.zeros((1, 2, 2)))


def test_a_layer_without_masks_ends_them():
    graph = graph_of("2.15.0", "Masking", {"mask_value": 0.0}, [(5, 4)])
    assert "Any" in {node.op for node in graph.graph.node}
    np.testing.assert_array_equal(answer("1.2.2", "Masking", {"mask_value": 0.0}, X), X)
