"""Which release of TensorFlow can load a graph: the one that has each of its ops, in the graph and in its functions."""

from __future__ import annotations

import re

from modelio.errors import ConversionError
from modelio.graph.operations import op, versions
from modelio.model import GraphModel

__all__ = ["check_release", "first_release"]


def first_release(model: GraphModel) -> str:
    """The oldest sampled release that has every op of a model; ops that TensorFlow never had are left out.

    Sampled are the releases of :func:`modelio.graph.operations.versions`: an op of 1.1 counts as one of 1.2.
    """
    known = [found.since for name in _ops(model) if (found := op(name)) is not None]
    return max(known, key=_numbers, default=versions()[0])


def check_release(model: GraphModel, release: str) -> None:
    """Refuse a graph that this TensorFlow cannot load.

    Args:
        model: a graph.
        release: ``"tf=1.2"``.

    Raises:
        ConversionError: the release is none, or lacks ops of the graph; ``.unsupported`` lists each node that has one.
    """
    written = re.fullmatch(r"tf=(\d+(?:\.\d+)*)", release)
    if written is None:
        raise ConversionError(f"a release is written tf=1.15, and {release!r} is none")
    wanted = _numbers(written[1])
    if wanted < _numbers(versions()[0]):
        raise ConversionError(f"the oldest TensorFlow whose ops are known here is {versions()[0]}, not {written[1]}")
    there = _ops(model)
    late = {name: found.since for name in there if (found := op(name)) is not None and _numbers(found.since) > wanted}
    if late:
        nodes = [f"{place} ({name}, since {late[name]})" for name in late for place in there[name]]
        ops = ", ".join(f"{name} ({since})" for name, since in sorted(late.items()))
        raise ConversionError(
            f"TensorFlow {written[1]} has not the ops of {len(nodes)} nodes: {ops}; "
            f"the first that has all is {first_release(model)}",
            unsupported=nodes,
        )


def _ops(model: GraphModel) -> dict[str, list[str]]:
    """The nodes of each op, a function's under that function's name."""
    found: dict[str, list[str]] = {}
    for node in model.graph.node:
        found.setdefault(node.op, []).append(node.name)
    for function in model.graph.library.function:
        for node in function.node_def:
            found.setdefault(node.op, []).append(f"{function.signature.name}: {node.name}")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split(".")[:2])
