"""Cells: what a recurrent layer computes at one step.

A cell has two halves. :meth:`Cell.project` is what it does with the input alone; it knows of no state, so it is done
for all steps at once, in front of the loop, as one large multiplication. :meth:`Cell.step` is what is left for the
loop.

Gates lie side by side in the weights: input, forget, candidate, output in an LSTM; update, reset, candidate in a GRU;
what older files have otherwise, :mod:`modelio.layers.layouts` has put in order. ``implementation`` (``consume_less`` in
Keras 1) is a way to compute, and changes no number; dropout acts in training alone.

Sources: ``call`` of each cell in keras and tf_keras ``src/layers/rnn/{simple_rnn,lstm,gru,stacked_rnn_cells}.py``;
``step`` of each layer in Keras 1.2.2 ``layers/recurrent.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value
from modelio.lowering.activation import activate
from modelio.lowering.arguments import rank_of, whole
from modelio.lowering.convolution import picture_kernel, plain, slide, window_of
from modelio.lowering.rules import Output, Site, rule
from modelio.lowering.spatial import Size

__all__ = ["Cell", "cell_of", "states_in"]

Sizes = list[Size]


class Cell(Protocol):
    """What one step does.

    ``states`` is their number and ``dtype`` theirs; ``shown`` is the number of the state that is the output as well,
    None where the output is none of them.
    """

    dtype: str
    shown: int | None
    states: int

    def project(self, x: Value) -> Value:
        """What the input contributes, of one step or of all: the axes before the features stay."""

    def step(self, x: Value, states: Sequence[Value]) -> tuple[Value, list[Value]]:
        """The output and the new states, from the projected input and the old states."""

    def sizes(self, x: Value) -> list[Sizes]:
        """The shape of each state without its batch, for a sequence ``x`` of shape (steps, batch, ...)."""


def cell_of(g: Builder, layer: Site, constants: Sequence[Value] = ()) -> Cell:
    """The cell of a recurrent layer, of an ``RNN``, or the cell itself; each step is given the constants too."""
    name = layer.layer.class_name
    if name == "RNN":
        inner = layer.layer.inner.get("cell")
        if inner is None:
            raise ConversionError("RNN holds no cell")
        return cell_of(g, layer.of(inner), constants)
    if name == "StackedRNNCells":
        return _Stack(g, layer, constants)
    if name in CELLS:
        return CELLS[name](g, layer)
    return _OwnCell(layer, constants)


class _BuiltIn:
    """What the cells of Keras share: gates, and an output that is their first state."""

    shown: int | None = 0
    states = 1

    def __init__(self, g: Builder, layer: Site) -> None:
        self.g, self.layer = g, layer

    def activate(self, x: Value) -> Value:
        return activate(self.g, self.layer, x)

    def gate(self, x: Value) -> Value:
        return activate(self.g, self.layer, x, "recurrent_activation")

    def parts(self, x: Value, count: int) -> Sequence[Value]:
        """The gates that lie side by side."""
        parts: Sequence[Value] = self.g.node("Split", (x.rank or 0) - 1, x, num_split=count)
        return parts

    def long_short(self, z: Value, carry: Value) -> tuple[Value, list[Value]]:
        """The step of every LSTM, from the sum of what input and state contribute."""
        g = self.g
        entering, kept, candidate, leaving = self.parts(z, 4)
        carry = g.Add(g.Mul(self.gate(kept), carry), g.Mul(self.gate(entering), self.activate(candidate)))
        h = g.Mul(self.gate(leaving), self.activate(carry))
        return h, [h, carry]


class _Dense(_BuiltIn):
    """A matrix for the input and one for the state."""

    def __init__(self, g: Builder, layer: Site) -> None:
        super().__init__(g, layer)
        self.units = whole(layer, "units")
        self.kernel = layer.weight("kernel")
        self.recurrent = layer.weight("recurrent_kernel")
        self.dtype = self.kernel.dtype
        self.bias = layer.weight("bias") if layer.config.get("use_bias", True) else None

    def project(self, x: Value) -> Value:
        return self.affine(x, self.kernel, self.bias)

    def affine(self, x: Value, kernel: Value, bias: Value | None) -> Value:
        """``x . kernel + bias`` over the last axis."""
        g = self.g
        *outer, inner = g.sizes(x)
        assert kernel.shape is not None  # a weight's shape is known
        x = g.cast(x, kernel.dtype)
        flat = x if x.rank == 2 else g.Reshape(x, g.vector([-1, inner]))
        y = g.MatMul(flat, kernel)
        y = y if bias is None else g.BiasAdd(y, bias)
        return y if x.rank == 2 else g.reshape(y, [*outer, kernel.shape[1] or 0])

    def sizes(self, x: Value) -> list[Sizes]:
        return [[self.units]] * self.states


class _Simple(_Dense):
    def step(self, x: Value, states: Sequence[Value]) -> tuple[Value, list[Value]]:
        h = self.activate(self.g.Add(x, self.g.MatMul(states[0], self.recurrent)))
        return h, [h]


class _LSTM(_Dense):
    states = 2

    def step(self, x: Value, states: Sequence[Value]) -> tuple[Value, list[Value]]:
        h, carry = states
        return self.long_short(self.g.Add(x, self.g.MatMul(h, self.recurrent)), carry)


class _GRU(_Dense):
    """What both kinds share: the update gate mixes the old state and the candidate."""

    def mixed(self, update: Value, h: Value, candidate: Value) -> tuple[Value, list[Value]]:
        g = self.g
        h = g.Add(g.Mul(update, h), g.Mul(g.Sub(1.0, update), self.activate(candidate)))
        return h, [h]


class _GRUResetBefore(_GRU):
    """Cho's, where the reset gate acts before the multiplication by the state's matrix."""

    def __init__(self, g: Builder, layer: Site) -> None:
        super().__init__(g, layer)
        units = self.units
        self.gates = g.Slice(self.recurrent, [0, 0], [units, 2 * units])
        self.candidate = g.Slice(self.recurrent, [0, 2 * units], [units, units])

    def step(self, x: Value, states: Sequence[Value]) -> tuple[Value, list[Value]]:
        g, (h,) = self.g, states
        update, reset, candidate = self.parts(x, 3)
        more_update, more_reset = self.parts(g.MatMul(h, self.gates), 2)
        update, reset = self.gate(g.Add(update, more_update)), self.gate(g.Add(reset, more_reset))
        candidate = g.Add(candidate, g.MatMul(g.Mul(reset, h), self.candidate))
        return self.mixed(update, h, candidate)


class _GRUResetAfter(_GRU):
    """cuDNN's, where it acts after it; the state has a bias of its own."""

    def __init__(self, g: Builder, layer: Site) -> None:
        super().__init__(g, layer)
        self.state_bias: Value | None = None
        if self.bias is not None:
            self.bias, self.state_bias = g.node("Unpack", self.bias, num=2)

    def step(self, x: Value, states: Sequence[Value]) -> tuple[Value, list[Value]]:
        g, (h,) = self.g, states
        update, reset, candidate = self.parts(x, 3)
        inner = self.parts(self.affine(h, self.recurrent, self.state_bias), 3)
        update, reset = self.gate(g.Add(update, inner[0])), self.gate(g.Add(reset, inner[1]))
        return self.mixed(update, h, g.Add(candidate, g.Mul(reset, inner[2])))


def _gru(g: Builder, layer: Site) -> Cell:
    return (_GRUResetAfter if layer.config.get("reset_after") else _GRUResetBefore)(g, layer)


class _ConvLSTM(_BuiltIn):
    """An LSTM whose multiplications are convolutions of pictures (keras and tf_keras ``src/layers/rnn/*conv_lstm.py``).

    The picture of a step is convolved in the loop: before it, four times as many channels of all steps would have to be
    kept. Input and states are channels last here; the layer turns them where it has them first.
    """

    states = 2

    def __init__(self, g: Builder, layer: Site) -> None:
        super().__init__(g, layer)
        self.filters = whole(layer, "filters")
        self.kernel, self.rank = picture_kernel(g, layer.weight("kernel"))
        self.recurrent, _ = picture_kernel(g, layer.weight("recurrent_kernel"))
        self.bias = layer.weight("bias") if layer.config.get("use_bias", True) else None
        self.window = window_of(layer, self.kernel, self.rank)
        self.dtype = self.kernel.dtype

    def project(self, x: Value) -> Value:
        return self.g.cast(x, self.dtype)

    def _convolved(self, x: Value) -> Value:
        y = slide(self.g, self._raised(x), self.window, plain(self.g, self.kernel))
        return y if self.bias is None else self.g.BiasAdd(y, self.bias)

    def _raised(self, x: Value) -> Value:
        return self.g.ExpandDims(x, 1) if self.rank == 1 else x

    def step(self, x: Value, states: Sequence[Value]) -> tuple[Value, list[Value]]:
        g, (h, carry) = self.g, states
        same = plain(g, self.recurrent)(self._raised(h), (1,) * len(self.window.size), "SAME")
        z = g.Add(self._convolved(x), same)
        return self.long_short(g.Squeeze(z, squeeze_dims=[1]) if self.rank == 1 else z, carry)

    def sizes(self, x: Value) -> list[Sizes]:
        first = self.g.Gather(x, 0)
        y = self._convolved(first)
        y = self.g.Squeeze(y, squeeze_dims=[1]) if self.rank == 1 else y
        return [[*self.g.sizes(y)[1:-1], self.filters]] * 2


class _Stack:
    """Cells one upon the other; the states lie side by side, from the first cell's to the last's.

    Until Keras 2.2.2 they lay the other way round (Keras 2.2.2 ``layers/recurrent.py``, ``StackedRNNCells``).
    """

    def __init__(self, g: Builder, layer: Site, constants: Sequence[Value]) -> None:
        inner = layer.layer.inner
        self.cells = [cell_of(g, layer.of(inner[key]), constants) for key in inner if key.startswith("cell_")]
        if not self.cells:
            raise ConversionError("StackedRNNCells holds no cells")
        self.dtype = self.cells[0].dtype
        if any(cell.dtype != self.dtype for cell in self.cells):
            raise ConversionError("the cells of StackedRNNCells compute in different dtypes")
        self._is_reversed = (2,) < layer.version < (2, 2, 3)
        counts = [cell.states for cell in self.cells]
        self.states = sum(counts)
        last = self.cells[-1].shown
        ahead = 0 if self._is_reversed else sum(counts[:-1])
        self.shown = None if last is None else ahead + last

    def _by_cell(self, states: Sequence[Value]) -> list[Sequence[Value]]:
        """The states of each cell, in the order of the cells."""
        parts, start = [], 0
        for cell in reversed(self.cells) if self._is_reversed else self.cells:
            parts.append(states[start : start + cell.states])
            start += cell.states
        return parts[::-1] if self._is_reversed else parts

    def _side_by_side(self, parts: Sequence[Sequence[Any]]) -> list[Any]:
        return [state for part in (reversed(parts) if self._is_reversed else parts) for state in part]

    def project(self, x: Value) -> Value:
        return self.cells[0].project(x)

    def step(self, x: Value, states: Sequence[Value]) -> tuple[Value, list[Value]]:
        news: list[Sequence[Value]] = []
        for index, (cell, own) in enumerate(zip(self.cells, self._by_cell(states), strict=True)):
            x, new = cell.step(cell.project(x) if index else x, own)
            news.append(new)
        return x, self._side_by_side(news)

    def sizes(self, x: Value) -> list[Sizes]:
        return self._side_by_side([cell.sizes(x) for cell in self.cells])


class _OwnCell:
    """A cell of the user's, which has a rule: ``rule(g, layer, x, states) -> (output, *states)``.

    How large its states are, its ``state_size`` says, or its ``units``. The constants of the layer are an argument
    ``constants`` of the rule.
    """

    shown: int | None = None

    def __init__(self, layer: Site, constants: Sequence[Value]) -> None:
        self.layer = layer
        self.more = {"constants": list(constants)} if constants else {}
        size = layer.config.get("state_size", layer.config.get("units"))
        listed = size if isinstance(size, (list, tuple)) else [size]
        if not listed or not all(isinstance(one, int) and one > 0 for one in listed):
            raise ConversionError(f"{layer.layer.source_class} is a cell whose state_size is {size!r}")
        self._sizes = [[one] for one in listed]
        self.states = len(listed)
        self.dtype = layer.layer.dtype

    def project(self, x: Value) -> Value:
        return x

    def step(self, x: Value, states: Sequence[Value]) -> tuple[Value, list[Value]]:
        made = self.layer.lower(self.layer.layer, x, states=list(states), **self.more)
        if not isinstance(made, tuple) or len(made) != 1 + self.states:
            raise ConversionError(f"the rule of the cell {self.layer.layer.source_class} gives no output and states")
        return made[0], list(made[1:])

    def sizes(self, x: Value) -> list[Sizes]:
        return [[*one] for one in self._sizes]


CELLS: Mapping[str, Callable[[Builder, Site], Cell]] = {
    **dict.fromkeys(("SimpleRNN", "SimpleRNNCell"), _Simple),
    **dict.fromkeys(("LSTM", "LSTMCell"), _LSTM),
    **dict.fromkeys(("GRU", "GRUCell"), _gru),
    **{f"ConvLSTM{rank}D": _ConvLSTM for rank in (1, 2, 3)},
}
"""Class of a recurrent layer or a cell -> its cell."""


@rule("SimpleRNNCell", "LSTMCell", "GRUCell", "StackedRNNCells")
def cell(g: Builder, layer: Site, x: Value, states: Any) -> Output:
    """A cell that is called by itself, on one step and the states before it: the output and the states after it."""
    own = cell_of(g, layer)
    given = [g.cast(state, own.dtype) for state in states_in(states)]
    rank_of(layer, x, least=2)
    if len(given) != own.states:
        raise ConversionError(f"{layer.layer.source_class} is called on {len(given)} states; it has {own.states}")
    output, news = own.step(own.project(x), given)
    return (output, *news)


def states_in(given: Any) -> list[Value]:
    """The states of an argument, however they are nested."""
    if isinstance(given, Value):
        return [given]
    return [state for item in given or () for state in states_in(item)] if isinstance(given, (list, tuple)) else []
