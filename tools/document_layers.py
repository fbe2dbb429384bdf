"""Write ``docs/layers.md``, the table of layers, from the catalogue: ``python tools/document_layers.py``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from modelio.layers.catalogue import CATALOGUE, Kind, Weight, complete
from modelio.layers.census import ABSTRACT, MODELS, REASONS, generations, known_as
from modelio.lowering.operations import NOT_LOWERED
from modelio.lowering.rules import find, identity

PAGE = Path(__file__).parent.parent / "docs" / "layers.md"

HEAD = """# Layers

Every built-in layer of Keras 1.2, 2.15 (and tf_keras 2.21) and 3.15: which Keras has it, its weights in Keras' order,
and whether modelio makes a graph of it in inference mode, by the rule in that file of `modelio/lowering`. Layers that
say no are kept by the formats that hold layers; a model with one of them is refused by name where a graph is asked for.

Made from `modelio/layers/catalogue.py` by `python tools/document_layers.py`; a test compares it with the classes that
the installed Keras and tf_keras export. A weight in parentheses is there where the layer is told so: where it is
adapted, quantized, or has other arguments than usual. One in italics is not trained.

| layer | also called | Keras | weights | graph |
|---|---|---|---|---|
"""

OPERATIONS = """
## Operations

Operations of TensorFlow and of `keras.ops` that stand in a model like layers (`TFOpLambda`, `SlicingOpLambda`,
`ops.Add`, ...) are no classes of `keras.layers`, and are not in this table. Every operation of `keras.ops` has a rule
in `modelio/lowering/operations`, but for these:

| operation | why it has none |
|---|---|
"""

ABSTRACTIONS = """
## Classes that no file holds

| class | |
|---|---|
"""


def weights(class_name: str) -> str:
    """The roles of a layer's weights, marked; each once."""
    kind = CATALOGUE.get(class_name, Kind())
    usual = complete(class_name, {})
    rows: dict[str, Weight] = {}
    for row in kind.weights:
        if row.role not in rows or row.exists(usual):
            rows[row.role] = row
    marked = {role: role if row.trainable else f"*{role}*" for role, row in rows.items()}
    return ", ".join(marked[role] if row.exists(usual) else f"({marked[role]})" for role, row in rows.items())


def graph(class_name: str) -> str:
    """Whether there is a rule, and where; or why there is none."""
    if class_name in MODELS:
        return f"as {MODELS[class_name]}"
    rule = find(class_name)
    if rule is None:
        return f"no: {REASONS[class_name]}"
    if rule is identity:
        return "yes: its input as it is"
    return f"yes, `{Path(inspect.getsourcefile(inspect.unwrap(rule)) or '').name}`"


def row(class_name: str) -> str:
    """A line of the table."""
    versions = " ".join(map(str, generations(class_name)))
    also = ", ".join(f"`{name}`" for name in known_as(class_name))
    return f"| `{class_name}` | {also} | {versions} | {weights(class_name)} | {graph(class_name)} |\n"


def page() -> str:
    """The whole page."""
    classes = sorted({*CATALOGUE, *MODELS, *REASONS})
    table = "".join(map(row, classes))
    others = "".join(f"| `{name}` | {reason} |\n" for name, reason in sorted(ABSTRACT.items()))
    return HEAD + table + OPERATIONS + "".join(operations()) + ABSTRACTIONS + others


def operations() -> Iterator[str]:
    """A line for every reason why operations have no rule."""
    for reason in dict.fromkeys(NOT_LOWERED.values()):
        alike = sorted(name for name, own in NOT_LOWERED.items() if own == reason)
        yield f"| {', '.join(f'`{name}`' for name in alike)} | {reason} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
