"""Sums of products over named axes, ``"abc,cde->abde"``, in ops that every TensorFlow has.

The op Einsum came with TensorFlow 1.15, and OpenVINO takes it apart itself. Two operands are one matrix product: axes
that both have and the result too are its batch, axes that the result lacks are summed over, the others are its rows and
columns. Around it stand the Transpose and Reshape nodes that make matrices of the operands, where they are none yet.
"""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from modelio.errors import ConversionError
from modelio.graph.builder import Builder, Value

__all__ = ["einsum", "parsed"]

Size = int | Value


def einsum(g: Builder, equation: Any, *operands: Value) -> Value:
    """The operands' products, summed over every axis that the right side of the equation does not name.

    As ``numpy.einsum`` understands it: ``...`` stands for any axes, an axis twice in one operand for its diagonal, an
    axis of size 1 for one of any size, and without ``->`` the result has the axes that are named once, in alphabetical
    order.

    Raises:
        ConversionError: the equation is none, or does not fit the operands.
    """
    axes, output = parsed(equation, [operand.rank for operand in operands])
    values = [_diagonals(g, value, labels) for value, labels in zip(operands, axes, strict=True)]
    values = _without_ones(g, values)
    (value, labels), *others = values
    for number, other in enumerate(others, start=1):
        later = {label for _, labels in others[number:] for label in labels}
        value, labels = _product(g, (value, labels), other, later | set(output), output)
    value, labels = _summed(g, value, labels, set(output))
    return _ordered(g, value, labels, output)


Labelled = tuple[Value, list[str]]
"""A value, and the letter of each of its axes."""


def parsed(equation: Any, ranks: Sequence[int | None]) -> tuple[list[list[str]], list[str]]:
    """The letters of each operand's axes, and of the result's; those behind ``...`` get letters of their own.

    >>> parsed("...b,bc->...c", [3, 2])
    ([['..1', '..0', 'b'], ['b', 'c']], ['..1', '..0', 'c'])
    """
    if not isinstance(equation, str):
        raise ConversionError(f"the equation of an einsum is {equation!r}, and has to be a string")
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    named = [term.replace("...", "") for term in terms]
    legal = set(string.ascii_letters)
    if len(terms) != len(ranks) or not all(
        set(name) <= legal and term.count("...") <= 1 for name, term in zip(named, terms, strict=True)
    ):
        raise ConversionError(f"the equation {equation!r} does not fit {len(ranks)} operands")
    axes = []
    for term, name, rank in zip(terms, named, ranks, strict=True):
        if rank is None:
            raise ConversionError(f"einsum needs to know how many dimensions its operands have: {equation!r}")
        more = rank - len(name)
        if more < 0 or (more and "..." not in term):
            raise ConversionError(f"the equation {equation!r} does not fit an operand with {rank} dimensions")
        axes.append(_letters(term, more))
    widest = max((sum(label.startswith("..") for label in labels) for labels in axes), default=0)
    if arrow:
        output = _letters(right, widest)
    else:
        counts = Counter("".join(named))
        output = _letters("...", widest) + sorted(name for name, count in counts.items() if count == 1)
    known = {label for labels in axes for label in labels}
    if len(set(output)) != len(output) or not set(output) <= known:
        raise ConversionError(f"the right side of the equation {equation!r} has axes that the left side has not")
    return axes, output


def _letters(term: str, more: int) -> list[str]:
    front, dots, back = term.partition("...")
    between = [f"..{number}" for number in reversed(range(more))] if dots else []
    return [*front, *between, *back]


# -- one operand -------------------------------------------------------------------------------------------------------


def _diagonals(g: Builder, value: Value, labels: list[str]) -> Labelled:
    """An axis that is named twice stands for the diagonal."""
    while len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        first, second = [axis for axis, label in enumerate(labels) if label == twice][:2]
        others = [axis for axis in range(len(labels)) if axis not in (first, second)]
        value = g.MatrixDiagPart(g.Transpose(value, [*others, first, second]))
        labels = [*(labels[axis] for axis in others), twice]
    return value, labels


def _without_ones(g: Builder, values: Sequence[Labelled]) -> list[Labelled]:
    """Axes of size 1 are left out where another operand has the same axis with another size."""
    sizes: dict[str, set[int | None]] = {}
    for value, labels in values:
        for label, size in zip(labels, value.shape or (), strict=True):
            sizes.setdefault(label, set()).add(size)
    result = []
    for value, labels in values:
        shape = value.shape or ()
        gone = [axis for axis, label in enumerate(labels) if shape[axis] == 1 and sizes[label] != {1}]
        if gone:
            value = g.Squeeze(value, squeeze_dims=gone)
            labels = [label for axis, label in enumerate(labels) if axis not in gone]
        result.append((value, labels))
    return result


def _summed(g: Builder, value: Value, labels: list[str], kept: set[str]) -> Labelled:
    gone = [axis for axis, label in enumerate(labels) if label not in kept]
    if not gone:
        return value, labels
    return g.Sum(value, gone), [label for label in labels if label in kept]


def _ordered(g: Builder, value: Value, labels: Sequence[str], wanted: Sequence[str]) -> Value:
    if list(labels) == list(wanted):
        return value
    made: Value = g.Transpose(value, [labels.index(label) for label in wanted])
    return made


# -- two operands ------------------------------------------------------------------------------------------------------


def _product(g: Builder, first: Labelled, second: Labelled, kept: set[str], output: Sequence[str]) -> Labelled:
    """Two operands made one; what neither the result nor a later operand names is summed over."""
    a, b = (_summed(g, *mine, kept | set(other[1])) for mine, other in ((first, second), (second, first)))
    place = {label: number for number, label in enumerate(output)}
    alone_a, alone_b = ([place.get(x, 0) for x in mine[1] if x not in other[1]] for mine, other in ((a, b), (b, a)))
    if alone_a and alone_b and min(alone_b) < min(alone_a):
        a, b = b, a  # so that the product has the order of the result already
    batch = [label for label in a[1] if label in b[1] and label in kept]
    inner = [label for label in a[1] if label in b[1] and label not in kept]
    rows = [label for label in a[1] if label not in b[1]]
    columns = [label for label in b[1] if label not in a[1]]
    sizes = _sizes(g, a, b)
    labels = [*batch, *rows, *columns]
    if not inner:
        x = _with_places(g, a, batch + rows, sizes, len(columns), behind=True)
        y = _with_places(g, b, batch + columns, sizes, len(rows), at=len(batch))
        return g.Mul(x, y), labels
    x, turned_x = _matrix(g, a, batch, rows, inner, sizes)
    y, turned_y = _matrix(g, b, batch, columns, inner, sizes)
    if batch:
        z = g.BatchMatMul(x, y, adj_x=turned_x, adj_y=not turned_y)
    else:
        z = g.MatMul(x, y, transpose_a=turned_x, transpose_b=not turned_y)
    if len(rows) != 1 or len(columns) != 1:
        z = g.reshape(z, [sizes[label] for label in labels])
    return z, labels


def _sizes(g: Builder, *operands: Labelled) -> Mapping[str, Size]:
    """The size of each axis: the number, where one operand knows it."""
    sizes: dict[str, Size] = {}
    for value, labels in operands:
        for label, size in zip(labels, g.sizes(value), strict=True):
            if label not in sizes or isinstance(size, int):
                sizes[label] = size
    return sizes


def _with_places(
    g: Builder,
    operand: Labelled,
    order: list[str],
    sizes: Mapping[str, Size],
    ones: int,
    at: int = 0,
    behind: bool = False,
) -> Value:
    """The axes in that order, with ``ones`` axes of size 1 among them."""
    value = _ordered(g, *operand, order)
    if not ones:
        return value
    at = len(order) if behind else at
    if not at:
        return value  # as they are in front, broadcasting puts them there
    return g.reshape(value, [*(sizes[x] for x in order[:at]), *(1,) * ones, *(sizes[x] for x in order[at:])])


def _matrix(
    g: Builder, operand: Labelled, batch: list[str], rows: list[str], inner: list[str], sizes: Mapping[str, Size]
) -> tuple[Value, bool]:
    """An operand as matrices with ``rows`` and ``inner``, and whether ``inner`` comes first."""
    value, labels = operand
    turned = labels == [*batch, *inner, *rows] and labels != [*batch, *rows, *inner]
    groups = [inner, rows] if turned else [rows, inner]
    value = _ordered(g, value, labels, [*batch, *groups[0], *groups[1]])
    if len(rows) == len(inner) == 1:
        return value, turned
    return g.reshape(value, [*(sizes[x] for x in batch), *(_whole(g, group, sizes) for group in groups)]), turned


def _whole(g: Builder, group: Sequence[str], sizes: Mapping[str, Size]) -> Size:
    """How many elements a group of axes has."""
    known = math.prod(size for size in (sizes[label] for label in group) if isinstance(size, int))
    total: Size = known
    for size in (sizes[label] for label in group):
        if isinstance(size, Value):
            total = size if isinstance(total, int) and total == 1 else g.Mul(size, total)
    return total
