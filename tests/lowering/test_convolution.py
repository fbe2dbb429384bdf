"""Convolutions answer as Keras does, whatever their arguments."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelio.errors import ConversionError
from modelio.graph.builder import Builder
from modelio.graph.operations import op, versions
from modelio.lowering.rules import Site, find
from modelio.model import Tensor
from tests.lowering.harness import assert_same, frameworks, keras2, keras3
from tests.lowering.pictures import FIRST, RANKS, UNKNOWN, check, drawn, picture

# -- plain -------------------------------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "plain": {},
    "same": {"padding": "same"},
    "even kernel, same": {"padding": "same", "kernel_size": 2, "strides": 3},
    "strides": {"strides": 2},
    "strides, same, unknown size": {"strides": 3, "padding": "same", **UNKNOWN},
    "dilation": {"dilation_rate": 2},
    "dilation, same": {"dilation_rate": 3, "padding": "same"},
    "dilation, same, unknown size": {"dilation_rate": 3, "padding": "same", **UNKNOWN},
    "dilation, even kernel, same, unknown size": {"dilation_rate": 3, "kernel_size": 2, "padding": "same", **UNKNOWN},
    "groups": {"groups": 2, "padding": "same"},
    "a group for each channel": {"groups": 4, "strides": 2},
    "groups with dilation": {"groups": 2, "dilation_rate": 2, "padding": "same", **UNKNOWN},
    "no bias": {"use_bias": False},
    "activation": {"activation": "relu"},
    "softmax, channels first": {"activation": "softmax", **FIRST},
    "channels first": {"padding": "same", "strides": 2, **FIRST},
    "channels first, groups and dilation": {"groups": 2, "dilation_rate": 2, "padding": "same", **FIRST, **UNKNOWN},
}


@frameworks()
@RANKS
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(keras: Any, rank: int, case: str) -> None:
    arguments = {"filters": 8, "kernel_size": 3, **CONVOLUTIONS[case]}
    check(getattr(keras.layers, f"Conv{rank}D"), picture(rank), **arguments)


@frameworks()
@pytest.mark.parametrize("arguments", [{}, {"strides": 2}, {"dilation_rate": 2, **UNKNOWN}, FIRST, {"groups": 2}])
def test_causal(keras: Any, arguments: dict[str, Any]) -> None:
    check(keras.layers.Conv1D, picture(1), filters=8, kernel_size=4, padding="causal", **arguments)


@pytest.mark.parametrize("arguments", [{}, {"dilation_rate": (1, 2), "padding": "same"}, FIRST])
@pytest.mark.parametrize("unknown", [False, True])
def test_several_batch_axes(arguments: dict[str, Any], unknown: bool) -> None:
    """Keras 2 alone takes them."""
    x = picture(2, batch=(2, 5, 3))
    if arguments == FIRST:
        x = np.moveaxis(x, -1, -3)
    shapes = [(None, None, *x.shape[-3:]) if unknown else x.shape[1:]]
    assert_same(keras2().layers.Conv2D(6, 3, **arguments), x, shapes=shapes, compiled=arguments == FIRST)


@frameworks()
@pytest.mark.parametrize("dtype", ["float64", "float16", "mixed_float16"])
def test_other_dtypes(keras: Any, dtype: str) -> None:
    x = picture(2).astype("float64" if dtype == "float64" else "float16")
    check(keras.layers.Conv2D, x, rtol=1e-5 if dtype == "float64" else 2e-3, filters=6, kernel_size=3, dtype=dtype)


@given(data=st.data())
@drawn
def test_any_convolution(data: st.DataObject) -> None:
    """Every combination of arguments that Keras takes."""
    draw = data.draw
    rank = draw(st.sampled_from([1, 2, 2, 3]), "rank")
    keras = draw(st.sampled_from([keras2, keras3]), "framework")()
    size = tuple(draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank), "kernel_size"))
    steps = tuple(draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank), "steps"))
    dilated = draw(st.booleans(), "dilated")
    least = [(window - 1) * (step if dilated else 1) + 1 for window, step in zip(size, steps, strict=True)]
    check(
        getattr(keras.layers, f"Conv{rank}D"),
        picture(rank, space=tuple(draw(st.integers(low, low + 6), "space") for low in least)),
        unknown=draw(st.booleans(), "unknown"),
        filters=draw(st.sampled_from([4, 8]), "filters"),
        kernel_size=size,
        strides=1 if dilated else steps,
        dilation_rate=steps if dilated else 1,
        padding=draw(st.sampled_from(["valid", "same", *(["causal"] if rank == 1 else [])]), "padding"),
        groups=draw(st.sampled_from([1, 1, 2, 4]), "groups"),
        use_bias=draw(st.booleans(), "use_bias"),
    )


# -- depthwise and separable -------------------------------------------------------------------------------------------

DEPTHWISE = {
    "plain": {},
    "strides, same": {"strides": 2, "padding": "same"},
    "several filters a channel": {"depth_multiplier": 3},
    "dilation": {"dilation_rate": 2, "depth_multiplier": 2},
    "dilation, same, unknown size": {"dilation_rate": 3, "padding": "same", **UNKNOWN},
    "no bias": {"use_bias": False, "activation": "tanh"},
    "channels first": {"padding": "same", "depth_multiplier": 2, **FIRST},
    "channels first, dilation, unknown size": {"dilation_rate": 2, **FIRST, **UNKNOWN},
}


@frameworks()
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("case", DEPTHWISE)
@pytest.mark.parametrize("kind", ["DepthwiseConv", "SeparableConv"])
def test_depthwise(keras: Any, rank: int, kind: str, case: str) -> None:
    arguments = {"kernel_size": 3, **({"filters": 4} if kind == "SeparableConv" else {}), **DEPTHWISE[case]}
    check(getattr(keras.layers, f"{kind}{rank}D"), picture(rank), **arguments)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("kind", ["DepthwiseConv", "SeparableConv"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("unknown", [False, True])
def test_strides_and_dilation(rank: int, kind: str, padding: str, unknown: bool) -> None:
    """Keras 3 takes both at once."""
    filters = {"filters": 4} if kind == "SeparableConv" else {}
    arguments = {"kernel_size": 3, "strides": 2, "dilation_rate": 2, "padding": padding, **filters}
    check(getattr(keras3().layers, f"{kind}{rank}D"), picture(rank), unknown, **arguments)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("unknown", [False, True])
def test_strides_that_differ(padding: str, unknown: bool) -> None:
    """Keras writes such layers on every backend; TensorFlow's op refuses them on a CPU, its compiler does not."""
    layers = keras3().layers
    check(layers.DepthwiseConv2D, picture(2), unknown, compiled=True, kernel_size=3, strides=(2, 3), padding=padding)


@pytest.mark.parametrize("arguments", [{}, {"strides": 2}, {"dilation_rate": 2, **UNKNOWN}])
def test_causal_separable(arguments: dict[str, Any]) -> None:
    """Keras 2 alone takes it."""
    check(keras2().layers.SeparableConv1D, picture(1), filters=8, kernel_size=4, padding="causal", **arguments)


# -- transposed --------------------------------------------------------------------------------------------------------

TRANSPOSED = {
    "plain": {},
    "strides": {"strides": 2},
    "strides beyond the kernel": {"strides": 4, "kernel_size": 2},
    "same": {"padding": "same"},
    "strides, same, unknown size": {"strides": 3, "padding": "same", **UNKNOWN},
    "even kernel, same": {"strides": 2, "kernel_size": 4, "padding": "same"},
    "output padding": {"strides": 3, "output_padding": 2},
    "output padding 0": {"strides": 3, "output_padding": 0, **UNKNOWN},
    "output padding, same": {"strides": 3, "output_padding": 1, "padding": "same"},
    "output padding, same, unknown size": {
        "strides": 3,
        "output_padding": 2,
        "kernel_size": 4,
        "padding": "same",
        **UNKNOWN,
    },
    "channels first": {"strides": 2, "padding": "same", "activation": "relu", **FIRST},
    "channels first, unknown size": {"strides": 2, "use_bias": False, **FIRST, **UNKNOWN},
}


@frameworks()
@RANKS
@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed(keras: Any, rank: int, case: str) -> None:
    arguments = {"filters": 5, "kernel_size": 3, **TRANSPOSED[case]}
    check(getattr(keras.layers, f"Conv{rank}DTranspose"), picture(rank), **arguments)


@frameworks()
@RANKS
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("unknown", [False, True])
def test_transposed_with_dilation(keras: Any, rank: int, padding: str, unknown: bool) -> None:
    """On a CPU only the compiler takes it. tf_keras ignores the argument in 3D, and does not write it."""
    kind = getattr(keras.layers, f"Conv{rank}DTranspose")
    check(kind, picture(rank), unknown, compiled=True, filters=5, kernel_size=3, dilation_rate=2, padding=padding)


@given(data=st.data())
@drawn
def test_any_transposed_convolution(data: st.DataObject) -> None:
    draw = data.draw
    rank = draw(st.sampled_from([1, 2, 2, 3]), "rank")
    keras = draw(st.sampled_from([keras2, keras3]), "framework")()
    size = tuple(draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank), "kernel_size"))
    strides = tuple(draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank), "strides"))
    padding = draw(st.sampled_from(["valid", "same"]), "padding")
    extra = None
    if draw(st.booleans(), "pads output"):
        # padding SAME: the op wants size % 2 + padding to be from 1 to the stride
        least = [1 - window % 2 if padding == "same" else 0 for window in size]
        most = [step - (window % 2 if padding == "same" else 1) for window, step in zip(size, strides, strict=True)]
        extra = tuple(
            draw(st.integers(low, max(low, min(high, step - 1))), "output_padding")
            for low, high, step in zip(least, most, strides, strict=True)
        )
        if any(more >= step for more, step in zip(extra, strides, strict=True)):
            extra = None
    check(
        getattr(keras.layers, f"Conv{rank}DTranspose"),
        picture(rank, space=tuple(draw(st.integers(1, 6), "space") for _ in range(rank))),
        unknown=draw(st.booleans(), "unknown"),
        filters=3,
        kernel_size=size,
        strides=strides,
        padding=padding,
        output_padding=extra,
    )


# -- a kernel for each position ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(
    ("implementation", "padding"), [(1, "valid"), (2, "valid"), (2, "same"), (3, "valid"), (3, "same")]
)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    ("size", "strides"), [((3, 2), (2, 1)), ((4, 1), (1, 3))], ids=["a window that overlaps", "one that skips"]
)
def test_locally_connected(
    rank: int, implementation: int, padding: str, data_format: str, size: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    """Keras 2 alone has it."""
    layer = getattr(keras2().layers, f"LocallyConnected{rank}D")(
        5,
        size[:rank],
        strides=strides[:rank],
        padding=padding,
        implementation=implementation,
        data_format=data_format,
        activation="tanh",
    )
    x = picture(rank, channels=3, space=(8, 7)[:rank])
    assert_same(layer, np.moveaxis(x, -1, 1) if data_format == "channels_first" else x)


# -- what is made of them ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("Conv2D", {"dilation_rate": 2, "padding": "same"}),
        ("Conv2D", {"groups": 2}),
        ("Conv2DTranspose", {"strides": 2}),
        ("SeparableConv2D", {"strides": 2}),
        ("LocallyConnected2D", {"implementation": 2}),
    ],
)
def test_the_graph_needs_no_young_op(kind: str, arguments: dict[str, Any]) -> None:
    graph = check(getattr(keras2().layers, kind), picture(2), filters=8, kernel_size=3, **arguments)
    assert not {node.op for node in graph.graph.node if op(node.op).since > versions()[0]}


# -- refusals ----------------------------------------------------------------------------------------------------------


class _Walk:
    """Gives a rule its layer's weights, as the walk over a network would."""

    def __init__(self, g: Builder) -> None:
        self.g = g

    def variable(self, layer: Any, role: str, dtype: str | None = None) -> Any:
        return self.g.variable(role, layer.weights[role])


def lowered(class_name: str, config: dict[str, Any], shape: tuple[int | None, ...], **weights: tuple[int, ...]) -> Any:
    """The value that the rule makes, for arguments that no Keras of today would make a layer of."""
    g = Builder()
    layer = SimpleNamespace(
        name="it",
        path="it",
        class_name=class_name,
        source_class=class_name,
        dialect="keras2",
        version=(),
        weights={role: Tensor.of(np.zeros(size, np.float32)) for role, size in weights.items()},
        inner={},
        config={
            "strides": 1,
            "dilation_rate": 1,
            "padding": "valid",
            "use_bias": False,
            "data_format": "channels_last",
            **config,
        },
    )
    rule = find(class_name)
    assert rule is not None
    return rule(g, Site(layer, _Walk(g)), g.placeholder("x", "float32", shape))


def test_keras_1_tells_the_shape_of_a_transposed_convolution() -> None:
    config = {"strides": (2, 2), "padding": "same", "output_shape": (None, 13, 10, 3)}
    y = lowered("Conv2DTranspose", config, (None, 7, 5, 4), kernel=(3, 3, 3, 4))
    assert y.shape == (None, 13, 10, 3)
    config = {**config, "output_shape": (None, 3, 13, 10), "data_format": "channels_first"}
    y = lowered("Conv2DTranspose", config, (None, 4, 7, 5), kernel=(3, 3, 3, 4))
    assert y.shape == (None, 3, 13, 10)


@pytest.mark.parametrize(
    ("class_name", "config", "shape", "kernel", "message"),
    [
        ("Conv2D", {"padding": "full"}, (None, 8, 8, 3), (3, 3, 3, 4), "padding is 'full'"),
        ("Conv2D", {"padding": "causal"}, (None, 8, 8, 3), (3, 3, 3, 4), "padding is 'causal'"),
        ("Conv2D", {"padding": [[1, 1]]}, (None, 8, 8, 3), (3, 3, 3, 4), "padding is"),
        ("Conv2D", {"strides": (2,)}, (None, 8, 8, 3), (3, 3, 3, 4), "strides is"),
        ("Conv2D", {"strides": "2"}, (None, 8, 8, 3), (3, 3, 3, 4), "strides is"),
        ("Conv2D", {"strides": 0}, (None, 8, 8, 3), (3, 3, 3, 4), "strides is"),
        ("Conv2D", {"dilation_rate": (1, -1)}, (None, 8, 8, 3), (3, 3, 3, 4), "dilation_rate is"),
        ("Conv2D", {"data_format": "NHWC"}, (None, 8, 8, 3), (3, 3, 3, 4), "data_format is 'NHWC'"),
        ("Conv2D", {"groups": 3}, (None, 8, 8, 6), (3, 3, 2, 4), "groups is 3"),
        ("Conv2D", {"groups": "a"}, (None, 8, 8, 6), (3, 3, 2, 4), "groups is 'a'"),
        ("Conv2D", {}, (None, 8, 3), (3, 3, 3, 4), "wants 4"),
        ("Conv2D", {}, (None, 8, 8, 3), (3, 4), "the kernel has the shape"),
        ("Conv2DTranspose", {"output_padding": (0, 1)}, (None, 8, 8, 3), (3, 3, 4, 3), "output_padding"),
        ("Conv2DTranspose", {"output_shape": (None, 9)}, (None, 8, 8, 3), (3, 3, 4, 3), "output_shape is"),
        ("Conv2DTranspose", {"output_shape": 9}, (None, 8, 8, 3), (3, 3, 4, 3), "output_shape is 9"),
        ("LocallyConnected1D", {"kernel_size": 3}, (None, None, 3), (6, 9, 4), "wants it known"),
        ("LocallyConnected1D", {"kernel_size": 3}, (None, 9, 3), (6, 9, 4), "which does not fit"),
        ("LocallyConnected1D", {"kernel_size": 3, "implementation": 4}, (None, 8, 3), (6, 9, 4), "implementation is 4"),
        ("LocallyConnected1D", {"kernel_size": 3, "implementation": 3}, (None, 8, 3), (7,), "a multiple of"),
    ],
)
def test_refusals(class_name: str, config: dict[str, Any], shape: Any, kernel: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConversionError, match=message.replace("(", "\\(")):
        lowered(class_name, config, shape, kernel=kernel)
