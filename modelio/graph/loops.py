"""Loops, as TensorFlow has written them since 2015: a frame of five kinds of nodes around a body.

::

    start --> Enter --> Merge --> Switch --> Exit --> result
                          ^         |
                          |         v
                   NextIteration <- body

A value from before the loop that the body uses enters the frame too, once and for all iterations; a node of the body
without inputs waits for the loop by a control input. Both happen by themselves while the body is written.

Steps of a sequence are read from and written to TensorArrays, whose writes are ordered by a scalar called flow. Every
op here is in TensorFlow 1.0 and in the newest (core/ops/control_flow_ops.cc, data_flow_ops.cc; the pattern is that of
``python/ops/control_flow_ops.py``, ``WhileContext``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelio.graph.builder import Builder, Frame, Shape, Value
from modelio.model import Message

__all__ = ["Array", "Body", "array", "loop", "repeat", "unstacked"]

Body = Callable[..., Sequence[Value]]
"""From the loop's values to what they are in the next iteration."""


class _Frame:
    """What lies inside one loop: its nodes' outputs, and values of the outside that have entered."""

    def __init__(self, g: Builder, name: str) -> None:
        self.name = name
        self.outer: Frame | None = g.frame
        self.pivot = ""
        self._g = g
        self._members: set[str] = set()
        self._entered: dict[str, Value] = {}

    def inside(self, value: Value) -> Value:
        """The value itself, or, of one from the outside, what it is inside."""
        if value.name in self._members:
            return value
        if value.name not in self._entered:
            self._entered[value.name] = self.enter(value, is_constant=True)
        return self._entered[value.name]

    def made(self, node: Message, outputs: Sequence[Value]) -> None:
        """A new node: its outputs belong here; without an input it would run outside, so it waits for the loop."""
        self._members.update(output.name for output in outputs)
        if not node.input:
            node.input.append(f"^{self.pivot}")

    def enter(self, value: Value, is_constant: bool = False) -> Value:
        """A value of the outside, brought inside; the node itself belongs to the outside."""
        with self._g.within(self.outer):
            entered: Value = self._g.node("Enter", value, frame_name=self.name, is_constant=is_constant)
        entered = replace(entered, shape=value.shape, constant=value.constant if is_constant else None)
        self._members.add(entered.name)
        return entered


def loop(g: Builder, start: Sequence[Value], condition: Callable[..., Value], body: Body) -> tuple[Value, ...]:
    """``start``, with ``body`` applied while ``condition`` holds of it.

    Dtypes and shapes are those of ``start`` in every iteration.

    Raises:
        TypeError: ``body`` gives other dtypes, shapes that contradict, or another number of values.
    """
    with g.scope("while") as scope:
        frame = _Frame(g, scope + "while_context")
        entered = [frame.enter(value) for value in start]
        merges: list[Message] = []
        merged: list[Value] = []
        with g.within(frame):
            for value in entered:
                made, _ = g.node("Merge", [value, value])  # the second input is the next iteration's, below
                merges.append(g.graph.node[-1])
                merged.append(replace(made, shape=value.shape))
            frame.pivot = merges[0].name
            proceed: Value = g.node("LoopCond", condition(*merged))
            switched = [g.node("Switch", value, proceed) for value in merged]
            inputs = [
                replace(g.Identity(on), shape=value.shape) for (_, on), value in zip(switched, start, strict=True)
            ]
            frame.pivot = inputs[0].name.removesuffix(":0")
            results = [frame.inside(result) for result in body(*inputs)]
            if len(results) != len(start):
                raise TypeError(f"the loop has {len(start)} values and its body gives {len(results)}")
            for merge, result, value in zip(merges, results, start, strict=True):
                _check_alike(result, value)
                merge.input[1] = g.NextIteration(result).name.removesuffix(":0")
        exits = []
        for (off, _), value in zip(switched, start, strict=True):
            with g.within(frame):
                leaving = g.Exit(off)
            if frame.outer is not None:
                frame.outer.made(g.graph.node[-1], [leaving])
            exits.append(replace(leaving, shape=value.shape))
    return tuple(exits)


def repeat(g: Builder, count: int | Value, start: Sequence[Value], body: Body) -> tuple[Value, ...]:
    """``start``, with ``body`` applied ``count`` times; the body's first argument is the number of the iteration."""
    many = count if isinstance(count, Value) else g.constant(count, "int32")

    def counted(index: Value, *values: Value) -> list[Value]:
        return [g.Add(index, 1), *body(index, *values)]

    return loop(g, [g.constant(0, "int32"), *start], lambda index, *_: g.Less(index, many), counted)[1:]


def _check_alike(result: Value, value: Value) -> None:
    if result.dtype != value.dtype:
        raise TypeError(f"a loop's value is {value.dtype} and becomes {result.dtype}")
    if result.shape is None or value.shape is None:
        return
    if len(result.shape) != len(value.shape) or any(
        None not in pair and pair[0] != pair[1] for pair in zip(result.shape, value.shape, strict=True)
    ):
        raise TypeError(f"a loop's value has shape {value.shape} and becomes {result.shape}")


# -- arrays of steps ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Array:
    """A TensorArray: as many tensors of one dtype and shape as ``size`` says, and the flow that orders what is done.

    In a loop the flow is what runs through it: ``replace(array, flow=...)``.
    """

    handle: Value
    flow: Value
    size: int | Value
    dtype: str
    shape: Shape

    def read(self, g: Builder, index: Value) -> Value:
        """The tensor at ``index``, which can be read once."""
        made: Value = g.node("TensorArrayReadV3", self.handle, index, self.flow, dtype=self.dtype)
        return replace(made, shape=self.shape)

    def write(self, g: Builder, index: Any, value: Value) -> Value:
        """The flow after ``value`` is written at ``index``."""
        flow: Value = g.node("TensorArrayWriteV3", self.handle, index, value, self.flow)
        return replace(flow, shape=())

    def stacked(self, g: Builder) -> Value:
        """All tensors as one, along a new first axis."""
        made: Value = g.node(
            "TensorArrayGatherV3",
            self.handle,
            g.Range(0, self.size, 1),
            self.flow,
            dtype=self.dtype,
            element_shape=self.shape,
        )
        size = self.size if isinstance(self.size, int) else None
        return replace(made, shape=None if self.shape is None else (size, *self.shape))


def array(g: Builder, size: int | Value, dtype: str, shape: Shape) -> Array:
    """An empty array."""
    handle, flow = g.node("TensorArrayV3", size, dtype=dtype, element_shape=shape)
    return Array(handle, replace(flow, shape=()), size, dtype, shape)


def unstacked(g: Builder, value: Value) -> Array:
    """An array of what lies along the first axis of ``value``, whose rank must be known."""
    size = g.sizes(value)[0]
    assert value.shape is not None  # sizes() has looked
    empty = array(g, size, value.dtype, value.shape[1:])
    flow: Value = g.node("TensorArrayScatterV3", empty.handle, g.Range(0, size, 1), value, empty.flow)
    return replace(empty, flow=replace(flow, shape=()))
