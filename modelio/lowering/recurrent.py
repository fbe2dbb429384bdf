"""Recurrent layers: a cell, applied to one step after the other.

The loop is that of Keras (``rnn`` in keras/src/backend/tensorflow/rnn.py, tf_keras/src/backend.py and Keras 1.2.2
``backend/tensorflow_backend.py``), with what does not depend on the state taken out of it (:mod:`.cells`). A step that
is masked leaves the states as they are, and its output is the one before it, or zero.

A stateful layer begins with zeros at each call: a graph that is served has no batch that follows another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.graph.loops import array, repeat, unstacked
from modelio.lowering.arguments import rank_of
from modelio.lowering.cells import Cell, cell_of, states_in
from modelio.lowering.masking import picked
from modelio.lowering.rules import Mask, Output, Site, masks, rule
from modelio.lowering.spatial import Size, channels_first

__all__ = ["sequence_of"]

UNROLLED = 1000
"""Steps up to which ``unroll`` is heeded; what a loop of more computes is the same, and the graph stays small."""

LAYERS = ("SimpleRNN", "LSTM", "GRU", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")


@rule(*LAYERS)
def recurrent(
    g: Builder, layer: Site, inputs: Any, initial_state: Any = None, mask: Mask = None, constants: Any = None
) -> Output:
    """keras/src/layers/rnn/rnn.py, ``RNN.call``, and tf_keras/src/layers/rnn/base_rnn.py, which takes states as inputs.

    All built-in layers are an RNN with a cell of their own.
    """
    x, given, constants = sequence_of(layer, inputs, initial_state, constants)
    config = layer.config
    if config.get("stateful"):
        layer.note("stateful in Keras; in the graph every call begins with states of zero")
    rank_of(layer, x, least=3)
    own = cell_of(g, layer, constants)
    turn = _Turn(g, layer, x)
    x = turn.to_steps(x)
    run = _Run(
        g,
        own,
        backwards=bool(config.get("go_backwards")),
        every=bool(config.get("return_sequences")),
        zeroed=bool(config.get("zero_output_for_mask")),
        unrolled=bool(config.get("unroll")),
        follows=_masked_output_is_state(layer),
    )
    starts = [g.cast(turn.state_to_last(state), own.dtype) for state in given]
    if starts and len(starts) != own.states:
        raise ConversionError(f"{layer.layer.source_class} is given {len(starts)} states; it has {own.states}")
    output, states = run(x, starts, turn.mask_to_steps(_first(mask)))
    output = turn.from_steps(output) if run.every else turn.state_to_first(output)
    output = g.cast(output, layer.layer.dtype)
    if not config.get("return_state"):
        return output
    return (output, *(g.cast(turn.state_to_first(state), layer.layer.dtype) for state in states))


@masks(*LAYERS)
def recurrent_mask(g: Builder, layer: Site, inputs: Any, mask: Mask) -> Mask:
    """That of the sequence, where the output is a sequence; states have none (``RNN.compute_mask``)."""
    if not layer.config.get("return_sequences"):
        return None
    return (_first(mask),) if layer.config.get("return_state") else _first(mask)


def sequence_of(layer: Site, inputs: Any, initial_state: Any, constants: Any) -> tuple[Value, list[Value], list[Value]]:
    """The sequence, the states that it begins with, and the constants.

    In Keras 2 states and constants that are tensors of Keras are inputs behind the sequence (``RNN.__call__``).
    """
    given, more = states_in(initial_state), states_in(constants)
    if isinstance(inputs, Value):
        return inputs, given, more
    values = states_in(inputs)
    if not values:
        raise ConversionError(f"{layer.layer.source_class} is called on no tensor")
    x, *rest = values
    count = layer.config.get("num_constants") or 0
    if rest and isinstance(count, int) and 0 < count <= len(rest):
        rest, more = rest[:-count], rest[-count:]
    return x, given or rest, more


def _first(mask: Mask) -> Value | None:
    """Of several masks that of the sequence."""
    while isinstance(mask, (list, tuple)):
        mask = mask[0] if mask else None
    return mask if isinstance(mask, Value) else None


def _masked_output_is_state(layer: Site) -> bool:
    """Before Keras 2.2.5 the output of a masked step is the state, which may have been given; since then it is zero
    until a step counts (``rnn`` in Keras 2.2.4 and 2.2.5 ``backend/tensorflow_backend.py``).
    """
    return layer.dialect == "keras1" or (2,) < layer.version < (
        (2, 2, 4) if layer.layer.family == "tf.keras" else (2, 2, 5)
    )


class _Turn:
    """From the layer's order of axes to that of the loop, (steps, batch, *space, channels), and back."""

    def __init__(self, g: Builder, layer: Site, x: Value) -> None:
        self.g = g
        self.rank = x.rank or 0
        self.time_major = bool(layer.config.get("time_major"))
        self.first = self.rank > 3 and "data_format" in layer.config and channels_first(layer)

    def _turned(self, x: Value, order: Sequence[int]) -> Value:
        return x if list(order) == list(range(len(order))) else self.g.Transpose(x, list(order))

    def to_steps(self, x: Value) -> Value:
        time, batch = (0, 1) if self.time_major else (1, 0)
        rest = [*range(3, self.rank), 2] if self.first else range(2, self.rank)
        return self._turned(x, [time, batch, *rest])

    def from_steps(self, y: Value) -> Value:
        time, batch = (0, 1) if self.time_major else (1, 0)
        rest = [self.rank - 1, *range(2, self.rank - 1)] if self.first else range(2, y.rank or 0)
        return self._turned(y, [time, batch, *rest])

    def state_to_last(self, state: Value) -> Value:
        return self._turned(state, [0, *range(2, self.rank - 1), 1]) if self.first else state

    def state_to_first(self, state: Value) -> Value:
        return self._turned(state, [0, self.rank - 2, *range(1, self.rank - 2)]) if self.first else state

    def mask_to_steps(self, mask: Value | None) -> Value | None:
        if mask is None or self.time_major:
            return mask
        return self._turned(mask, [1, 0, *range(2, mask.rank or 2)])


@dataclass(frozen=True)
class _Run:
    """One run of a cell over a sequence.

    Args:
        backwards: from the last step to the first; outputs are in the order in which they are made.
        every: all outputs, not the last alone.
        zeroed: masked outputs are zero.
        unrolled: nodes for every step, no loop.
        follows: a masked output is the state that the cell shows; otherwise it is the output before, and zero at first.
    """

    g: Builder
    cell: Cell
    backwards: bool
    every: bool
    zeroed: bool
    unrolled: bool
    follows: bool

    def __call__(self, x: Value, starts: Sequence[Value], mask: Value | None) -> tuple[Value, list[Value]]:
        """The outputs (steps first), or the last one, and the states in the end."""
        g = self.g
        count, batch = g.sizes(x)[:2]
        begun = list(starts) or [self._zeros(batch, sizes) for sizes in self.cell.sizes(x)]
        steps = self.cell.project(x)
        unrolled = self.unrolled and isinstance(count, int) and 0 < count <= UNROLLED
        # Where a masked output is the state, or where both begin with zero, one value is both.
        follows = self.cell.shown is not None and (not starts or (self.follows and not unrolled))
        masked_otherwise = mask is not None and (self.zeroed or not follows)
        apart = masked_otherwise if not self.every else masked_otherwise and not self.zeroed
        if self.cell.shown is None and not self.every:
            apart = True
        first = g.ZerosLike(begun[self.cell.shown or 0]) if apart else None
        if unrolled and isinstance(count, int):
            return self._one_by_one(steps, count, begun, mask, first)
        return self._in_a_loop(steps, count, begun, mask, first)

    def _zeros(self, batch: Size, sizes: Sequence[Size]) -> Value:
        return self.g.Fill(self.g.vector([batch, *sizes]), self.g.constant(0, self.cell.dtype))

    def _step(
        self, x: Value, states: Sequence[Value], mask: Value | None, previous: Value | None
    ) -> tuple[Value, list[Value]]:
        """The output and the new states; ``previous`` is the output before, where it is none of the states."""
        g = self.g
        output, news = self.cell.step(x, states)
        if mask is None:
            return output, news
        news = [picked(g, mask, new, old) for new, old in zip(news, states, strict=True)]
        if self.zeroed:
            return picked(g, mask, output, g.ZerosLike(output)), news
        if previous is not None:
            return picked(g, mask, output, previous), news
        return news[self.cell.shown or 0], news

    def _last(self, previous: Value | None, states: Sequence[Value]) -> Value:
        return states[self.cell.shown or 0] if previous is None else previous

    def _in_a_loop(
        self, steps: Value, count: Size, begun: list[Value], mask: Value | None, first: Value | None
    ) -> tuple[Value, list[Value]]:
        g = self.g
        inputs = unstacked(g, steps)
        marks = None if mask is None else unstacked(g, mask)
        results = array(g, count, self.cell.dtype, begun[self.cell.shown or 0].shape) if self.every else None
        last = (g.Sub(count, 1) if isinstance(count, Value) else count - 1) if self.backwards else None
        ahead = [results.flow] if results is not None else []
        carried = [first] if first is not None else []

        def body(index: Value, *values: Value) -> list[Value]:
            flow, previous = values[: len(ahead)], values[len(ahead) : len(ahead) + len(carried)]
            states = values[len(ahead) + len(carried) :]
            at = index if last is None else g.Sub(last, index)
            mark = None if marks is None else marks.read(g, at)
            output, news = self._step(inputs.read(g, at), states, mark, previous[0] if previous else None)
            written = [] if results is None else [replace(results, flow=flow[0]).write(g, index, output)]
            return [*written, *([output] if previous else []), *news]

        ended = repeat(g, count, [*ahead, *carried, *begun], body)
        states = list(ended[len(ahead) + len(carried) :])
        if results is not None:
            return replace(results, flow=ended[0]).stacked(g), states
        return self._last(ended[0] if carried else None, states), states

    def _one_by_one(
        self, steps: Value, count: int, begun: list[Value], mask: Value | None, first: Value | None
    ) -> tuple[Value, list[Value]]:
        g = self.g
        inputs = _unpacked(g, steps, count)
        marks = [None] * count if mask is None else _unpacked(g, mask, count)
        outputs: list[Value] = []
        states, previous = begun, first
        for at in range(count - 1, -1, -1) if self.backwards else range(count):
            output, states = self._step(inputs[at], states, marks[at], previous)
            previous = None if first is None else output
            outputs.append(output)
        return g.Pack(outputs) if self.every else self._last(previous, states), states


def _unpacked(g: Builder, value: Value, count: int) -> Sequence[Value]:
    parts = g.node("Unpack", value, num=count)
    return (parts,) if isinstance(parts, Value) else parts
