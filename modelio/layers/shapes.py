"""The shapes that flow through a network, as far as arguments and input shapes tell them; nothing is computed.

One rule a family of layers, found by class name in :data:`RULES`. A size that depends on the data is None; a tensor
whose rank nobody knows, such as the output of a custom layer, is None as a whole, and so is what follows from it.

Sources: ``compute_output_shape`` of each layer in Keras 2.3.1, tf_keras 2.21 and Keras 3.15, which agree where the
arguments do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelio.layers.catalogue import CATALOGUE, Shape
from modelio.layers.normal_form import Call, Layer, Network

__all__ = ["RULES", "Shapes", "shapes_of"]

Rule = Callable[[Layer, list[Shape]], Any]
"""From a layer and the shapes of its input tensors, all known, to its output's shape, or a list of them for several."""


@dataclass(frozen=True)
class Shapes:
    """What goes into and comes out of every layer at every depth, at its first call; no call, no entry.

    ``calls`` has what comes out of every call.
    """

    inputs: dict[Layer, tuple[Shape | None, ...]] = field(default_factory=dict)
    outputs: dict[Layer, tuple[Shape | None, ...]] = field(default_factory=dict)
    calls: dict[Call, tuple[Shape | None, ...]] = field(default_factory=dict)


def shapes_of(network: Network, inputs: Sequence[Shape | None] | None = None) -> Shapes:
    """The shapes inside ``network`` when it is fed ``inputs`` (left out: what its InputLayers say)."""
    shapes = Shapes()
    _run(network, inputs or [spec.shape for spec in network.input_specs], shapes)
    return shapes


def _run(network: Network, inputs: Sequence[Shape | None], shapes: Shapes) -> list[Shape | None]:
    done: dict[int, tuple[Shape | None, ...]] = {
        ref.call: (shape,) for ref, shape in zip(network.inputs, inputs, strict=False)
    }
    for index, call in enumerate(network.calls):
        given = [_pick(done[ref.call], ref.output) for ref in call.refs()]
        if index not in done:
            done[index] = _called(call.layer, given, shapes)
        shapes.inputs.setdefault(call.layer, tuple(given))
        shapes.outputs.setdefault(call.layer, done[index])
        shapes.calls.setdefault(call, done[index])
    return [_pick(done[ref.call], ref.output) for ref in network.outputs]


def _pick(outputs: tuple[Shape | None, ...], index: int) -> Shape | None:
    return outputs[index] if index < len(outputs) else None


def _called(layer: Layer, given: list[Shape | None], shapes: Shapes) -> tuple[Shape | None, ...]:
    if layer.network is not None:
        return tuple(_run(layer.network, given, shapes))
    wrapper, rule = _WRAPPERS.get(layer.class_name), RULES.get(layer.class_name)
    known = [shape for shape in given if shape is not None]
    try:
        if wrapper is not None:
            return _several(wrapper(layer, given, shapes))
        if rule is not None and known and len(known) == len(given):
            return _several(rule(layer, known))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError):
        pass  # the arguments do not fit the input; whoever uses the layer will say so, with more to go on
    return (None,)


def _several(result: Any) -> tuple[Shape | None, ...]:
    return tuple(_checked(shape) for shape in (result if isinstance(result, list) else [result]))


def _checked(shape: Any) -> Shape | None:
    """What rules make of arguments that are no numbers is no shape."""
    sizes = isinstance(shape, tuple) and all(size is None or isinstance(size, int) for size in shape)
    return shape if sizes else None


# -- arithmetic on sizes that may be unknown ---------------------------------------------------------------------------

Size = int | None


def _product(sizes: Sequence[Size]) -> Size:
    product = 1
    for size in sizes:
        if size is None:
            return None
        product *= size
    return product


def _spatial(layer: Layer, shape: Shape, change: Callable[[int, Size], Size], channels: Size = -1) -> Shape:
    """``shape`` with every spatial size changed, and the channels replaced unless they are -1."""
    rank = CATALOGUE[layer.class_name].rank or 0
    first = layer.config.get("data_format") == "channels_first"
    start = len(shape) - rank - (0 if first else 1)
    channel = start - 1 if first else len(shape) - 1
    if start < 1:
        raise ValueError("the input has too few axes")
    sizes = list(shape)
    for axis in range(rank):
        sizes[start + axis] = change(axis, shape[start + axis])
    if channels != -1:
        sizes[channel] = channels
    return tuple(sizes)


def _window(layer: Layer, size: str, stride: str) -> Callable[[int, Size], Size]:
    """How often a window fits (keras ``utils/conv_utils.py`` conv_output_length)."""
    config = layer.config
    dilations = config.get("dilation_rate") or (1,) * len(config[size])

    def change(axis: int, length: Size) -> Size:
        if length is None:
            return None
        reach = (config[size][axis] - 1) * dilations[axis] + 1
        more = {"same": 0, "causal": 0, "valid": 1 - reach, "full": reach - 1}[config["padding"]]
        step = config[stride][axis]
        return max(0, int((length + more + step - 1) // step))

    return change


def _unwindow(layer: Layer) -> Callable[[int, Size], Size]:
    """The length that a transposed convolution makes (keras ``utils/conv_utils.py`` deconv_output_length)."""
    config = layer.config

    def change(axis: int, length: Size) -> Size:
        if length is None:
            return None
        reach = (config["kernel_size"][axis] - 1) * config["dilation_rate"][axis] + 1
        step = config["strides"][axis]
        if config.get("output_padding") is None:
            more = {"same": 0, "valid": max(reach - step, 0), "full": -(step + reach - 2)}[config["padding"]]
            return int(length * step + more)
        padding = {"same": reach // 2, "valid": 0, "full": reach - 1}[config["padding"]]
        return int((length - 1) * step + reach - 2 * padding + config["output_padding"][axis])

    return change


# -- rules -------------------------------------------------------------------------------------------------------------


def _same(layer: Layer, inputs: list[Shape]) -> Shape:
    return inputs[0]


def _dense(layer: Layer, inputs: list[Shape]) -> Shape:
    return (*inputs[0][:-1], layer.config["units"])


def _maxout(layer: Layer, inputs: list[Shape]) -> Shape:
    return (inputs[0][0], layer.config["units"])


def _einsum_dense(layer: Layer, inputs: list[Shape]) -> Shape:
    """The output's letters that the input has too keep its sizes; ``output_shape`` gives the others."""
    left, _, output = layer.config["equation"].replace(" ", "").partition("->")
    letters = left.partition(",")[0]
    shape = inputs[0]
    if letters.startswith("...") or letters.endswith("..."):
        extra = len(shape) - len(letters.replace("...", ""))
        letters, output = (
            text.replace("...", "".join(chr(0x3B1 + at) for at in range(extra))) for text in (letters, output)
        )
    sizes = dict(zip(letters, shape, strict=True))
    asked = layer.config["output_shape"]
    asked = [asked] if isinstance(asked, int) else list(asked)
    asked = [None] * (len(output) - len(asked)) + asked
    return tuple(size if size is not None else sizes.get(letter) for letter, size in zip(output, asked, strict=True))


def _embedding(layer: Layer, inputs: list[Shape]) -> Shape:
    return (*inputs[0], layer.config["output_dim"])


def _reversible_embedding(layer: Layer, inputs: list[Shape]) -> Shape | None:
    """Which way it goes, the call says and not the layer: where the input may be rows of the table, nobody knows."""
    return None if inputs[0][-1:] == (layer.config["output_dim"],) else _embedding(layer, inputs)


def _convolution(layer: Layer, inputs: list[Shape]) -> Shape:
    return _spatial(layer, inputs[0], _window(layer, "kernel_size", "strides"), layer.config["filters"])


def _depthwise(layer: Layer, inputs: list[Shape]) -> Shape:
    first = layer.config["data_format"] == "channels_first"
    channels = _product((inputs[0][1 if first else -1], layer.config["depth_multiplier"]))
    return _spatial(layer, inputs[0], _window(layer, "kernel_size", "strides"), channels)


def _transposed(layer: Layer, inputs: list[Shape]) -> Shape:
    given = layer.config.get("output_shape")  # Keras 1 asks the user
    if given is not None:
        return tuple(given)
    return _spatial(layer, inputs[0], _unwindow(layer), layer.config["filters"])


def _pooling(layer: Layer, inputs: list[Shape]) -> Shape:
    return _spatial(layer, inputs[0], _window(layer, "pool_size", "strides"))


def _adaptive_pooling(layer: Layer, inputs: list[Shape]) -> Shape:
    return _spatial(layer, inputs[0], lambda axis, length: layer.config["output_size"][axis])


def _global_pooling(layer: Layer, inputs: list[Shape]) -> Shape:
    shape = _spatial(layer, inputs[0], lambda axis, length: 1)
    if layer.config["keepdims"]:
        return shape
    return (shape[0], shape[1] if layer.config["data_format"] == "channels_first" else shape[-1])


def _padding(layer: Layer, inputs: list[Shape]) -> Shape:
    margins = layer.config["padding"]
    return _spatial(layer, inputs[0], lambda axis, length: None if length is None else length + sum(margins[axis]))


def _cropping(layer: Layer, inputs: list[Shape]) -> Shape:
    margins = layer.config["cropping"]
    return _spatial(
        layer, inputs[0], lambda axis, length: None if length is None else max(0, length - sum(margins[axis]))
    )


def _upsampling(layer: Layer, inputs: list[Shape]) -> Shape:
    return _spatial(layer, inputs[0], lambda axis, length: _product((length, layer.config["size"][axis])))


def _flatten(layer: Layer, inputs: list[Shape]) -> Shape:
    return (inputs[0][0], _product(inputs[0][1:]))


def _reshape(layer: Layer, inputs: list[Shape]) -> Shape:
    target = [None if size is None else int(size) for size in layer.config["target_shape"]]
    if -1 in target:
        total, others = _product(inputs[0][1:]), _product([size for size in target if size != -1])
        target[target.index(-1)] = total // others if total is not None and others else None
    return (inputs[0][0], *target)


def _permute(layer: Layer, inputs: list[Shape]) -> Shape:
    return (inputs[0][0], *(inputs[0][axis] for axis in layer.config["dims"]))


def _repeat(layer: Layer, inputs: list[Shape]) -> Shape:
    return (inputs[0][0], layer.config["n"], *inputs[0][1:])


def _broadcast(layer: Layer, inputs: list[Shape]) -> Shape:
    rank = max(len(shape) for shape in inputs)
    columns = zip(*((1,) * (rank - len(shape)) + shape for shape in inputs), strict=True)
    sizes: list[Size] = []
    for column in columns:
        wide = {size for size in column if size != 1}
        sizes.append(1 if not wide else next(iter(wide - {None}), None))
    return tuple(sizes)


def _concatenate(layer: Layer, inputs: list[Shape]) -> Shape:
    axis = layer.config["axis"] % len(inputs[0])
    sizes = [next((size for size in column if size is not None), None) for column in zip(*inputs, strict=True)]
    along = [shape[axis] for shape in inputs]
    sizes[axis] = None if None in along else sum(size for size in along if size is not None)
    return tuple(sizes)


def _dot(layer: Layer, inputs: list[Shape]) -> Shape:
    axes = layer.config["axes"]
    pair = [axes, axes] if isinstance(axes, int) else list(axes)
    left, right = (
        [size for at, size in enumerate(shape) if at != axis % len(shape)]
        for shape, axis in zip(inputs, pair, strict=True)
    )
    shape = (*left, *right[1:])
    return shape if len(shape) > 1 else (*shape, 1)


def _recurrent(layer: Layer, inputs: list[Shape], state: Sequence[Shape] | None = None) -> Any:
    config = layer.config
    shape = inputs[0]
    batch, steps = (shape[1], shape[0]) if config.get("time_major") else (shape[0], shape[1])
    states = state or [(batch, config["units"])] * (2 if layer.class_name == "LSTM" else 1)
    last = states[0]
    output = last
    if config["return_sequences"]:
        output = (steps, *last) if config.get("time_major") else (batch, steps, *last[1:])
    return [output, *states] if config["return_state"] else output


def _convolutional_lstm(layer: Layer, inputs: list[Shape]) -> Any:
    batch, steps, *image = inputs[0]
    frame = _spatial(layer, (batch, *image), _window(layer, "kernel_size", "strides"), layer.config["filters"])
    return _recurrent(layer, [(batch, steps)], [frame, frame])


def _attention(layer: Layer, inputs: list[Shape]) -> Shape:
    return (*inputs[0][:-1], inputs[min(1, len(inputs) - 1)][-1])


def _multi_head_attention(layer: Layer, inputs: list[Shape]) -> Shape:
    asked = layer.config.get("output_shape")
    if asked is None:
        return inputs[0]
    return (*inputs[0][:-1], *([asked] if isinstance(asked, int) else asked))


def _resized(layer: Layer, inputs: list[Shape]) -> Shape:
    height, width = layer.config["height"], layer.config["width"]
    shape = inputs[0]
    if layer.config.get("data_format") == "channels_first":
        return (*shape[:-2], height, width)
    return (*shape[:-3], height, width, shape[-1])


def _lambda(layer: Layer, inputs: list[Shape]) -> Shape | None:
    asked = layer.config.get("output_shape")
    return (inputs[0][0], *asked) if isinstance(asked, (list, tuple)) and asked else None  # it may be code


def _text(layer: Layer, inputs: list[Shape]) -> Shape:
    if layer.config.get("output_mode", "int") != "int":
        return (inputs[0][0], _words(layer))
    return (inputs[0][0], layer.config.get("output_sequence_length"))


def _words(layer: Layer) -> Size:
    """How many words a layer tells apart; what it learned, later versions note."""
    config = layer.config
    return config.get("max_tokens") if config.get("pad_to_max_tokens") else config.get("vocabulary_size")


def _encoding(depth: Callable[[Layer], Size]) -> Rule:
    """A layer with an ``output_mode``: numbers as they are, or vectors of ``depth`` numbers."""

    def rule(layer: Layer, inputs: list[Shape]) -> Shape | None:
        shape = inputs[0]
        mode = layer.config.get("output_mode", "multi_hot" if layer.class_name == "CategoryEncoding" else "int")
        if mode == "int":
            return shape
        if len(shape) > 2:
            return None
        return (*shape, depth(layer)) if mode == "one_hot" and shape[1:] != (1,) else (*shape[:-1], depth(layer))

    return rule


def _bins(layer: Layer) -> Size:
    boundaries = layer.config.get("bin_boundaries")
    return len(boundaries) + 1 if isinstance(boundaries, (list, tuple)) else layer.config.get("num_bins")


_RANKS = (1, 2, 3)
_KINDS = ("Max", "Average")

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            *(
                "Activation",
                "ReLU",
                "LeakyReLU",
                "ELU",
                "ThresholdedReLU",
                "Softmax",
                "PReLU",
                "SReLU",
                "ParametricSoftplus",
            ),
            *(
                "BatchNormalization",
                "LayerNormalization",
                "GroupNormalization",
                "RMSNormalization",
                "UnitNormalization",
            ),
            *(
                "Dropout",
                "SpatialDropout1D",
                "SpatialDropout2D",
                "SpatialDropout3D",
                "GaussianNoise",
                "GaussianDropout",
            ),
            *("LayerScale", "StochasticDepth"),
            *("AlphaDropout", "ActivityRegularization", "Masking", "Identity", "Normalization", "Rescaling", "Highway"),
            *("RandomFlip", "RandomTranslation", "RandomRotation", "RandomZoom", "RandomContrast", "RandomBrightness"),
            *("AugMix", "AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "CutMix", "Equalization"),
            *("MaxNumBoundingBoxes", "MixUp", "RandAugment", "RandomColorDegeneration", "RandomColorJitter"),
            *("RandomElasticTransform", "RandomErasing", "RandomGaussianBlur", "RandomGrayscale", "RandomHue"),
            *("RandomInvert", "RandomPerspective", "RandomPosterization", "RandomSaturation", "RandomSharpness"),
            *("RandomShear", "Solarization"),
        ),
        _same,
    ),
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "MaxoutDense": _maxout,
    "Embedding": _embedding,
    "ReversibleEmbedding": _reversible_embedding,
    **{f"Conv{rank}D": _convolution for rank in _RANKS},
    **{f"Conv{rank}DTranspose": _transposed for rank in _RANKS},
    **{f"DepthwiseConv{rank}D": _depthwise for rank in (1, 2)},
    **{f"SeparableConv{rank}D": _convolution for rank in (1, 2)},
    **{f"LocallyConnected{rank}D": _convolution for rank in (1, 2)},
    **{f"{kind}Pooling{rank}D": _pooling for kind in _KINDS for rank in _RANKS},
    **{f"Global{kind}Pooling{rank}D": _global_pooling for kind in _KINDS for rank in _RANKS},
    **{f"Adaptive{kind}Pooling{rank}D": _adaptive_pooling for kind in _KINDS for rank in _RANKS},
    **{f"ZeroPadding{rank}D": _padding for rank in _RANKS},
    **{f"Cropping{rank}D": _cropping for rank in _RANKS},
    **{f"UpSampling{rank}D": _upsampling for rank in _RANKS},
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeat,
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "CustomScaleLayer"), _broadcast),
    "Concatenate": _concatenate,
    "Dot": _dot,
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU"), _recurrent),
    **{f"ConvLSTM{rank}D": _convolutional_lstm for rank in _RANKS},
    "Attention": _attention,
    "AdditiveAttention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _same,
    **dict.fromkeys(("Resizing", "CenterCrop", "RandomCrop"), _resized),
    "Lambda": _lambda,
    "TextVectorization": _text,
    **dict.fromkeys(("StringLookup", "IntegerLookup"), _encoding(_words)),
    **dict.fromkeys(("Hashing", "HashedCrossing"), _encoding(lambda layer: layer.config.get("num_bins"))),
    "CategoryEncoding": _encoding(lambda layer: layer.config.get("num_tokens")),
    "Discretization": _encoding(_bins),
}
"""Layer class -> its output's shape."""


# -- layers that hold layers -------------------------------------------------------------------------------------------

Wrapper = Callable[[Layer, list[Shape | None], Shapes], Any]


def _inside(layer: Layer, key: str, given: list[Shape | None], shapes: Shapes) -> tuple[Shape | None, ...]:
    inner = layer.inner.get(key)
    if inner is None:
        return (None,)
    outputs = _called(inner, given, shapes)
    shapes.inputs.setdefault(inner, tuple(given))
    shapes.outputs.setdefault(inner, outputs)
    return outputs


def _time_distributed(layer: Layer, given: list[Shape | None], shapes: Shapes) -> Any:
    shape = given[0] if given else None
    if shape is None or len(shape) < 2:
        return list(_inside(layer, "layer", [None], shapes))
    outputs = _inside(layer, "layer", [(shape[0], *shape[2:])], shapes)
    return [None if output is None else (output[0], shape[1], *output[1:]) for output in outputs]


def _bidirectional(layer: Layer, given: list[Shape | None], shapes: Shapes) -> Any:
    forward = _inside(layer, "layer", given[:1], shapes)
    backward = _inside(layer, "backward_layer", given[:1], shapes)
    if forward[0] is None or backward[0] is None:
        return None
    mode = layer.config.get("merge_mode")
    if mode is None:
        return [forward[0], backward[0], *forward[1:], *backward[1:]]
    output = forward[0]
    if mode == "concat":
        last, other = output[-1], backward[0][-1]
        output = (*output[:-1], None if last is None or other is None else last + other)
    return [output, *forward[1:], *backward[1:]]


def _rnn(layer: Layer, given: list[Shape | None], shapes: Shapes) -> Any:
    shape = given[0] if given else None
    cells = list(layer.inner["cell"].inner.values() or [layer.inner["cell"]]) if "cell" in layer.inner else []
    units = [cell.config.get("units") for cell in cells]
    if shape is None or len(shape) < 3 or not all(isinstance(unit, int) for unit in units) or not units:
        return None
    step: Shape = (shape[0], *shape[2:])
    states: list[Shape] = []
    for cell, unit in zip(cells, units, strict=True):
        shapes.inputs.setdefault(cell, (step,))
        step = (shape[0], unit)
        shapes.outputs.setdefault(cell, (step,))
        states += [step] * (2 if cell.class_name == "LSTMCell" else 1)
    output = (shape[0], shape[1], units[-1]) if layer.config["return_sequences"] else step
    return [output, *states] if layer.config["return_state"] else output


_WRAPPERS: Mapping[str, Wrapper] = {
    "TimeDistributed": _time_distributed,
    "Bidirectional": _bidirectional,
    "RNN": _rnn,
    "SpectralNormalization": lambda layer, given, shapes: list(_inside(layer, "layer", given, shapes)),
}
