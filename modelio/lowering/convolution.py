"""Convolutions: plain, transposed, depthwise, separable, and those with a kernel of its own for each position.

Dilation is SpaceToBatchND, the convolution, BatchToSpaceND, as ``tf.nn.convolution`` did it before Conv2D had an
attribute ``dilations`` (tensorflow/python/ops/nn_ops.py, ``with_space_to_batch``). The attribute means the same and is
younger than TensorFlow 1.2, and on a CPU Conv3D, DepthwiseConv2dNative and the transposed convolutions refuse it to
this day; the three nodes work for all of them everywhere.

Groups are one convolution each: on a CPU Conv2D takes no groups (keras/src/backend/tensorflow/nn.py, ``conv``, compiles
them with XLA instead).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.activation import activate
from modelio.lowering.arguments import rank_of
from modelio.lowering.quantized import merged
from modelio.lowering.rules import Site, rule
from modelio.lowering.spatial import (
    Size,
    channels_first,
    divided,
    linear,
    over_pictures,
    padding_of,
    pads_matrix,
    same_pads,
    sizes_of,
    space_of,
    to_multiple,
    total,
)

__all__ = ["Window", "picture_kernel", "plain", "slide", "window_of"]

Convolve = Callable[[Value, Sequence[int], str], Value]
"""A convolution without holes, of an input, strides and padding."""


@dataclass(frozen=True)
class Window:
    """How a kernel moves: one number for each axis of space, and ``padding`` as TensorFlow spells it."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str

    @property
    def spans(self) -> list[int]:
        """Pixels from the first that the kernel touches to the last."""
        return [(size - 1) * step + 1 for size, step in zip(self.size, self.dilation, strict=True)]


@rule("Conv1D", "Conv2D", "Conv3D")
def conv(g: Builder, layer: Site, x: Value) -> Value:
    """keras/src/layers/convolutional/base_conv.py (where LoRA learns since Keras 3.3) and conv1d.py (causal padding).

    tf_keras/src/layers/convolutional/base_conv.py is the same, and takes several batch axes.
    """
    kernel, rank = picture_kernel(g, merged(g, layer))
    window = window_of(layer, kernel, rank, "VALID", "SAME", *(["CAUSAL"] if rank == 1 else []))
    convolve, alike = _in_groups(g, layer, kernel, rank)

    def compute(x: Value) -> Value:
        x, moved = _causal(g, x, window)
        return slide(g, x, moved, _biased(g, layer, convolve), alike)

    return activate(g, layer, over_pictures(g, layer, x, rank, compute))


@rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise_conv(g: Builder, layer: Site, x: Value) -> Value:
    """keras/src/layers/convolutional/base_depthwise_conv.py; tf_keras the same."""
    kernel, rank = picture_kernel(g, layer.weight("depthwise_kernel"))
    window = window_of(layer, kernel, rank)

    def compute(x: Value) -> Value:
        return slide(g, x, window, _biased(g, layer, _by_channel(g, kernel)), alike=rank > 1)

    return activate(g, layer, over_pictures(g, layer, x, rank, compute))


@rule("SeparableConv1D", "SeparableConv2D")
def separable_conv(g: Builder, layer: Site, x: Value) -> Value:
    """Each channel by itself, then all channels of each pixel (keras/src/layers/convolutional/base_separable_conv.py).

    tf_keras/src/layers/convolutional/separable_conv1d.py knows causal padding too.
    """
    kernel, rank = picture_kernel(g, layer.weight("depthwise_kernel"))
    pointwise, _ = picture_kernel(g, layer.weight("pointwise_kernel"))
    window = window_of(layer, kernel, rank, "VALID", "SAME", *(["CAUSAL"] if rank == 1 else []))

    def compute(x: Value) -> Value:
        x, moved = _causal(g, x, window)
        y = slide(g, x, moved, _by_channel(g, kernel), alike=rank > 1)
        return _biased(g, layer, plain(g, pointwise))(y, (1, 1), "VALID")

    return activate(g, layer, over_pictures(g, layer, x, rank, compute))


@rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def conv_transpose(g: Builder, layer: Site, x: Value) -> Value:
    """The gradient of a convolution by its input (keras/src/backend/tensorflow/nn.py, ``conv_transpose``).

    There are no groups: tf_keras writes the argument and ignores it. Where there is dilation, strides are 1; every
    version of Keras insists.
    """
    kernel, rank = picture_kernel(g, layer.weight("kernel"))
    window = window_of(layer, kernel, rank)

    def compute(x: Value) -> Value:
        y = _backward(g, x, kernel, window, _target(g, layer, x, window, rank))
        return g.BiasAdd(y, layer.weight("bias")) if layer.config.get("use_bias", True) else y

    return activate(g, layer, over_pictures(g, layer, x, rank, compute))


@rule("LocallyConnected1D", "LocallyConnected2D")
def locally_connected(g: Builder, layer: Site, x: Value) -> Value:
    """A convolution whose kernel differs from position to position.

    Every window is laid out as a row, and each position's rows are multiplied by its own matrix, for all three
    implementations of tf_keras (src/layers/locally_connected/locally_connected{1,2}d.py): they differ in how they
    keep the matrices. Padding SAME is not TensorFlow's: the window of output ``i`` starts ``size // 2`` before
    ``i * stride`` (src/utils/conv_utils.py, ``conv_connected_inputs``).
    """
    rank = rank_of(layer, x, least=3, most=4) - 2
    size, strides = sizes_of(layer, "kernel_size", rank), sizes_of(layer, "strides", rank)
    same = padding_of(layer) == "SAME"

    def compute(x: Value) -> Value:
        grid = _grid(layer, x, size, strides, same)
        kernel = _own_kernels(g, layer, grid)
        filters = (kernel.shape or (0,))[-1] or 0
        batch, *_ = g.sizes(x)
        if same:
            x = g.Pad(x, [(0, 0), *grid.pads, (0, 0)])
        windows = g.ExtractImagePatches(
            x, ksizes=(1, *size, 1), strides=(1, *strides, 1), rates=(1, 1, 1, 1), padding="VALID"
        )
        rows = g.Transpose(g.reshape(windows, [batch, grid.positions, grid.features]), [1, 0, 2])
        y = g.reshape(g.Transpose(g.BatchMatMul(rows, kernel), [1, 0, 2]), [batch, *grid.outputs, filters])
        return g.Add(y, _own_biases(g, layer, grid, filters)) if layer.config.get("use_bias", True) else y

    return activate(g, layer, over_pictures(g, layer, x, rank, compute))


# -- kernels and windows -----------------------------------------------------------------------------------------------


def picture_kernel(g: Builder, kernel: Value) -> tuple[Value, int]:
    """The kernel as pictures need it, and how many axes of space the layer itself has."""
    rank = (kernel.rank or 0) - 2
    if rank not in (1, 2, 3):
        raise ConversionError(f"the kernel has the shape {kernel.shape}; three to five axes are expected")
    return (g.ExpandDims(kernel, 0) if rank == 1 else kernel), rank


def window_of(layer: Site, kernel: Value, rank: int, *paddings: str) -> Window:
    size = tuple(length or 0 for length in (kernel.shape or ())[:-2])
    strides, dilation = sizes_of(layer, "strides", rank), sizes_of(layer, "dilation_rate", rank)
    return Window(size, strides, dilation, padding_of(layer, *paddings))


def _causal(g: Builder, x: Value, window: Window) -> tuple[Value, Window]:
    """Zeros on the left, so that no output sees a later input (conv1d.py, ``_compute_causal_padding``)."""
    if window.padding != "CAUSAL":
        return x, window
    return g.Pad(x, [[0, 0], [0, 0], [window.spans[-1] - 1, 0], [0, 0]]), replace(window, padding="VALID")


def _biased(g: Builder, layer: Site, convolve: Convolve) -> Convolve:
    """``convolve`` with the layer's bias.

    It stands next to the convolution, inside of the nodes around one with holes: there TensorFlow computes both in one
    go, and OpenCV (5.0, modules/dnn/src/tensorflow/tf_importer.cpp) takes it nowhere else.
    """

    def with_bias(x: Value, strides: Sequence[int], padding: str) -> Value:
        return g.BiasAdd(convolve(x, strides, padding), layer.weight("bias"))

    return with_bias if layer.config.get("use_bias", True) else convolve


# -- convolutions without holes ----------------------------------------------------------------------------------------


def plain(g: Builder, kernel: Value) -> Convolve:
    """Every filter sees every channel."""

    def convolve(x: Value, strides: Sequence[int], padding: str) -> Value:
        y: Value = g.node(f"Conv{len(strides)}D", x, kernel, strides=(1, *strides, 1), padding=padding)
        return y

    return convolve


def _by_channel(g: Builder, kernel: Value) -> Convolve:
    """Each channel by itself. Strides are alike, or the picture is a single row, along which any stride is the same."""

    def convolve(x: Value, strides: Sequence[int], padding: str) -> Value:
        stride = max(strides)
        return g.DepthwiseConv2dNative(x, kernel, strides=(1, stride, stride, 1), padding=padding)

    return convolve


def _in_groups(g: Builder, layer: Site, kernel: Value, rank: int) -> tuple[Convolve, bool]:
    """Each group of channels has its own share of the filters; and whether strides must be alike."""
    groups = layer.config.get("groups") or 1
    if groups == 1:
        return plain(g, kernel), False
    *size, channels, filters = kernel.shape or ()
    if not isinstance(groups, int) or groups < 0 or (filters or 0) % groups:
        raise ConversionError(f"groups is {groups!r}, which does not divide {filters} filters")
    if channels == 1 and rank < 3:
        return _by_channel(g, g.Reshape(kernel, [*size, groups, (filters or 0) // groups])), rank > 1
    axis = len(size) + 1
    kernels = g.node("Split", axis, kernel, num_split=groups)

    def convolve(x: Value, strides: Sequence[int], padding: str) -> Value:
        parts = zip(g.node("Split", axis, x, num_split=groups), kernels, strict=True)
        return g.ConcatV2([plain(g, kernel)(x, strides, padding) for x, kernel in parts], axis)

    return convolve, False


# -- convolutions with holes -------------------------------------------------------------------------------------------


def slide(g: Builder, x: Value, window: Window, convolve: Convolve, alike: bool = False) -> Value:
    """``convolve`` with the window's strides, dilation and padding.

    With strides and dilation at once, or with strides that differ where they must be alike, it is the convolution at
    every position, of which every so many are taken (keras/src/backend/tensorflow/nn.py,
    ``_depthwise_conv_stride_dilation_decomposition``).
    """
    holes = max(window.dilation) > 1
    if not holes and not (alike and len(set(window.strides)) > 1):
        return convolve(x, window.strides, window.padding)
    pads: list[tuple[Size, Size]] = [(0, 0)] * len(window.size)
    if window.padding == "SAME":
        each = zip(space_of(g, x), window.spans, window.strides, strict=True)
        pads = [same_pads(g, size, span, stride) for size, span, stride in each]
    if holes:
        y = _with_holes(g, x, window.dilation, pads, convolve)
    else:
        x = g.Pad(x, pads_matrix(g, [(0, 0), *pads, (0, 0)])) if window.padding == "SAME" else x
        y = convolve(x, _ones(window), "VALID")
    if max(window.strides) > 1:
        start, every = [0] * (len(pads) + 2), (1 << len(pads) + 2) - 1
        y = g.StridedSlice(y, start, start, [1, *window.strides, 1], begin_mask=every, end_mask=every)
    return y


def _with_holes(
    g: Builder, x: Value, dilation: Sequence[int], pads: list[tuple[Size, Size]], convolve: Convolve
) -> Value:
    """The convolution at every position, with holes in the kernel.

    Pixels that are ``dilation`` apart make a picture of their own; each of these is convolved without holes, and they
    are put together again.
    """
    filled, crops = [], []
    for size, (before, after), step in zip(space_of(g, x), pads, dilation, strict=True):
        excess = to_multiple(g, total(g, size, before, after), step)
        filled.append((before, total(g, after, excess)))
        crops.append((0, excess))
    x = g.SpaceToBatchND(x, list(dilation), pads_matrix(g, filled))
    y = convolve(x, (1,) * len(dilation), "VALID")
    return g.BatchToSpaceND(y, list(dilation), pads_matrix(g, crops))


def _ones(window: Window) -> tuple[int, ...]:
    return (1,) * len(window.size)


# -- transposed convolutions -------------------------------------------------------------------------------------------


def _target(g: Builder, layer: Site, x: Value, window: Window, rank: int) -> list[Size]:
    """How long the result is along each axis: it does not follow from the convolution, which skips a remainder.

    keras/src/backend/common/backend_utils.py, ``_get_output_shape_given_tf_padding``, and
    tf_keras/src/utils/conv_utils.py, ``deconv_output_length``, put it differently and agree. Keras 1 was told the whole
    shape (keras/layers/convolutional.py of 1.2.2, ``Deconvolution2D``).
    """
    told = layer.config.get("output_shape")
    if told is not None:
        space = list(told[2:] if channels_first(layer) else told[1:-1]) if isinstance(told, (list, tuple)) else []
        if len(space) != rank or not all(isinstance(size, int) and size > 0 for size in space):
            raise ConversionError(f"output_shape is {told!r}, which does not tell {rank} axes of space")
        return [1] * (len(window.size) - rank) + space
    valid = window.padding == "VALID"
    if layer.config.get("output_padding") is None:
        ends = [max(span, step) if valid else step for span, step in zip(window.spans, window.strides, strict=True)]
    else:
        extra = sizes_of(layer, "output_padding", rank, least=0)
        ends = [(span if valid else span % 2) + more for span, more in zip(window.spans, extra, strict=True)]
    for end, span, step in zip(ends, window.spans, window.strides, strict=True):
        least = span if valid else 1
        if not least <= end < least + step:
            raise ConversionError(
                f"no convolution with strides {window.strides} and this padding makes the input out of an output that "
                f"output_padding={layer.config.get('output_padding')!r} asks for; TensorFlow refuses it too"
            )
    each = zip(space_of(g, x), window.strides, ends, strict=True)
    return [linear(g, size, step, end - step) for size, step, end in each]


def _backward(g: Builder, x: Value, kernel: Value, window: Window, target: Sequence[Size]) -> Value:
    """What the convolution of a picture of the ``target`` size makes ``x`` of, transposed.

    With holes it is the gradient of :func:`_with_holes`, step by step from its end (tensorflow/python/ops/nn_ops.py,
    ``atrous_conv2d_transpose``).
    """
    operation = {2: "Conv2DBackpropInput", 3: "Conv3DBackpropInputV2"}[len(window.size)]
    filters = (kernel.shape or (0, 0))[-2] or 0
    batch, *_ = g.sizes(x)

    def backward(x: Value, sizes: Sequence[Size], strides: Sequence[int], padding: str) -> Value:
        shape = g.vector([*sizes, filters])
        y: Value = g.node(operation, shape, kernel, x, strides=(1, *strides, 1), padding=padding)
        return y

    if max(window.dilation) == 1:
        return backward(x, [batch, *target], window.strides, window.padding)
    filled, crops, parts = [], [], []
    for size, span, step in zip(target, window.spans, window.dilation, strict=True):
        before, after = same_pads(g, size, span, 1) if window.padding == "SAME" else (0, 0)
        padded = total(g, size, before, after)
        excess = to_multiple(g, padded, step)
        filled.append((0, excess))
        crops.append((before, total(g, after, excess)))
        parts.append(divided(g, total(g, padded, excess), step))
    dilation = list(window.dilation)
    x = g.SpaceToBatchND(x, dilation, pads_matrix(g, filled))
    y = backward(x, [linear(g, batch, math.prod(dilation), 0), *parts], _ones(window), "VALID")
    return g.BatchToSpaceND(y, dilation, pads_matrix(g, crops))


# -- a kernel of its own for each position -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grid:
    """Which pixels each window of a locally connected layer covers.

    ``pixels`` has a row for each position and a column for each pixel of its window: the pixel's number in the
    picture; ``inside`` is False where the window hangs over the edge.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    channels: int
    pads: list[tuple[int, int]]
    pixels: npt.NDArray[np.int64]
    inside: npt.NDArray[np.bool_]

    @property
    def positions(self) -> int:
        return len(self.pixels)

    @property
    def features(self) -> int:
        """Numbers in a window."""
        return int(self.pixels.shape[1]) * self.channels


def _grid(layer: Site, x: Value, size: Sequence[int], strides: Sequence[int], same: bool) -> _Grid:
    height, width, channels = (x.shape or (None,))[1:] or (None,) * 3
    if height is None or width is None or channels is None:
        raise ConversionError(f"the input's shape is {x.shape}; {layer.layer.source_class} wants it known")
    touched, inside, pads = [], [], []
    for length, window, stride in zip((height, width), size, strides, strict=True):
        count = -(-length // stride) if same else max(0, (length - window) // stride + 1)
        before = window // 2 if same else 0
        # positions along this axis x pixels of the window along it
        pixels = (np.arange(count) * stride - before)[:, None] + np.arange(window)
        touched.append(pixels)
        inside.append((pixels >= 0) & (pixels < length))
        pads.append((before, max(0, (count - 1) * stride - before + window - length)))
    rows, columns = touched
    shape = (len(rows) * len(columns), size[0] * size[1])
    covered = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    numbers = np.where(covered, rows[:, None, :, None] * width + columns[None, :, None, :], 0)
    return _Grid(
        inputs=(height, width),
        outputs=(len(rows), len(columns)),
        channels=channels,
        pads=pads,
        pixels=numbers.reshape(shape),
        inside=covered.reshape(shape),
    )


def _own_kernels(g: Builder, layer: Site, grid: _Grid) -> Value:
    """The matrix of each position: (positions, features, filters).

    A pixel outside of the picture is zero, so that it does not matter which number it is multiplied by.
    """
    kernel, first = layer.weight("kernel"), channels_first(layer)
    implementation = layer.config.get("implementation", 1)
    positions, area = grid.pixels.shape
    channels, pixels = grid.channels, math.prod(grid.inputs)
    if implementation == 1:
        # backend.py, local_conv: the matrices as they are; channels first, the windows too are laid out so
        filters = (kernel.shape or (0,))[-1] or 0
        if first:
            kernel = g.Transpose(_reshaped(g, kernel, [positions, channels, area, filters]), [0, 2, 1, 3])
    elif implementation == 2:
        # locally_connected_utils.py, local_conv_matmul: a matrix from the whole input to the whole output
        filters = _quotient(kernel, pixels * channels * positions)
        if first:
            kernel = g.Transpose(_reshaped(g, kernel, [channels, pixels, filters, positions]), [1, 3, 0, 2])
        else:
            kernel = g.Transpose(_reshaped(g, kernel, [pixels, channels, positions, filters]), [0, 2, 1, 3])
        place = np.broadcast_to(np.arange(positions)[:, None], grid.pixels.shape)
        kernel = g.GatherNd(kernel, np.stack([grid.pixels, place], axis=-1).astype(np.int32))
    elif implementation == 3:
        # local_conv_sparse_matmul: the numbers of that matrix that are not zero, output by output
        filters = _quotient(kernel, int(grid.inside.sum()) * channels)
        kernel = g.Gather(kernel, _ranks(grid, filters, first))
    else:
        raise ConversionError(f"implementation is {implementation!r}; 1, 2 and 3 are known")
    return _reshaped(g, kernel, [positions, grid.features, filters])


def _own_biases(g: Builder, layer: Site, grid: _Grid, filters: int) -> Value:
    """The bias of each position: (rows, columns, filters).

    Its shape is this whatever the order of axes. Channels first, Keras does not turn it but counts its numbers anew
    (tf_keras/src/backend.py, ``bias_add``; Keras 1.2.2 and 2.3.1 the same), and so it has been trained.
    """
    bias = layer.weight("bias")
    if channels_first(layer):
        return g.Transpose(_reshaped(g, bias, [filters, *grid.outputs]), [1, 2, 0])
    return _reshaped(g, bias, [*grid.outputs, filters])


def _ranks(grid: _Grid, filters: int, first: bool) -> npt.NDArray[np.int32]:
    """Where the number from each pixel of each window stands among all, in the order of (output, input).

    conv_utils.py, ``conv_kernel_idxs``; shape (positions, pixels of the window, channels, filters).
    """
    place = np.arange(grid.positions)[:, None, None, None]
    pixel = grid.pixels[:, :, None, None]
    channel = np.arange(grid.channels)[None, None, :, None]
    number = np.arange(filters)
    pixels = math.prod(grid.inputs)
    output = number * grid.positions + place if first else place * filters + number
    source = channel * pixels + pixel if first else pixel * grid.channels + channel
    keys = output * (pixels * grid.channels) + source
    inside = np.broadcast_to(grid.inside[:, :, None, None], keys.shape)
    ranks = np.searchsorted(np.sort(keys[inside]), keys)
    return np.where(inside, ranks, 0).astype(np.int32)


def _quotient(kernel: Value, by: int) -> int:
    """How many filters a kernel has that holds ``by`` numbers for each."""
    numbers = math.prod(size or 0 for size in kernel.shape or ())
    if by == 0 or numbers % by:
        raise ConversionError(f"the kernel has the shape {kernel.shape}; a multiple of {by} numbers is expected")
    return numbers // by


def _reshaped(g: Builder, value: Value, sizes: list[int]) -> Value:
    if math.prod(size or 0 for size in value.shape or ()) != math.prod(sizes):
        raise ConversionError(f"a weight has the shape {value.shape}, which does not fit {tuple(sizes)}")
    return value if value.shape == tuple(sizes) else g.Reshape(value, sizes)
