"""A report for people: what goes wrong and the way out first, the facts below.

Text is plain and at most :data:`WIDTH` columns wide, but for names and commands, which are never broken: they are there
to be copied. Colour is the caller's affair, through ``paint``. HTML is escaped.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape

from modelio.inspection.advice import Advice, advice
from modelio.inspection.report import LayerReport, Report, SignatureReport
from modelio.inspection.words import SHOWN, amount, count, kind, plain, sizes

__all__ = ["STYLES", "WIDTH", "html", "text"]

WIDTH = 100

STYLES = ("title", "trap", "note", "command", "dim")
"""What ``paint`` is asked for."""

_KINDS = 8
"""Ops that are listed by name."""

_WIDEST = 44
"""Columns that a table gives to a name; a longer one shifts its row."""


def _headline(report: Report) -> tuple[str, str]:
    """What it is, and what else is known of it."""
    origins = {"keras_version": "Keras", "tensorflow_version": "TensorFlow"}
    written = " on ".join(f"{product} {report.meta[key]}" for key, product in origins.items() if report.meta.get(key))
    backend = report.meta.get("backend")
    parts = []
    if report.meta.get("checkpoint"):
        parts.append(plain(report.meta["checkpoint"]))
    if written:
        parts.append(f"written by {plain(written)}" + (f" on {plain(backend)}" if backend else ""))
    if report.tags:
        parts.append(f"tagged {', '.join(plain(tag) for tag in sorted(report.tags))}")
    return report.format or "a model in memory", "".join(f", {part}" for part in parts)


def _totals(report: Report) -> str:
    weights = report.weights
    parts = []
    if report.layers is not None:
        parts.append(count(len(report.layers), "layer"))
    parts.append(
        f"{count(len(weights.tensors), 'weight')} with {count(weights.parameters, 'parameter')} "
        f"({amount(weights.nbytes)})"
        if weights.tensors
        else "no weights"
    )
    if report.operations:
        parts.append(count(sum(report.operations.values()), "node"))
    if report.functions:
        parts.append(count(report.functions, "function"))
    return ", ".join(parts)


def _operations(report: Report) -> str:
    shown = [f"{plain(op)} {number:,}" for op, number in list(report.operations.items())[:_KINDS]]
    rest = len(report.operations) - _KINDS
    return ", ".join(shown) + (f" and {count(rest, 'other kind')}" if rest > 0 else "")


def _method(report: Report, signature: SignatureReport) -> str:
    return "what it takes and gives as a SavedModel" if report.level == "layers" else plain(signature.method)


def _rows(signature: SignatureReport) -> Iterator[tuple[str, str, str, str]]:
    """What a signature takes and gives: mark, name, kind, remark."""
    for key, spec in signature.inputs.items():
        yield "in", plain(key), kind(spec.dtype, spec.shape), _remark(signature, key)
    for placeholder in signature.undeclared:
        yield "needs", plain(placeholder.name), kind(placeholder.dtype, placeholder.shape), "not declared"
    declared = {spec.tensor.partition(":")[0] for spec in signature.inputs.values()}
    for name in signature.optional:
        if name not in declared:
            placeholder = signature.placeholders[name]
            default = f"{plain(signature.defaults[name])} by default" if name in signature.defaults else "has a default"
            yield "may", plain(name), kind(placeholder.dtype, placeholder.shape), f"may be fed, {default}"
    for key, spec in signature.outputs.items():
        yield "out", plain(key), kind(spec.dtype, spec.shape), plain(spec.tensor)


def _remark(signature: SignatureReport, key: str) -> str:
    """Where an input goes, and whether it must."""
    tensor = signature.inputs[key].tensor
    name = tensor.rpartition(":")[0] or tensor
    if key in signature.unneeded:
        return f"{plain(tensor)}, not needed"
    if name in signature.optional:
        default = f", {plain(signature.defaults[name])} by default" if name in signature.defaults else ""
        return f"{plain(tensor)}, may be left out{default}"
    outputs = signature.wanted_by.get(key, ())
    if len(outputs) < len(signature.outputs):
        return f"{plain(tensor)}, for {', '.join(plain(output) for output in outputs[:SHOWN])} only"
    return plain(tensor)


def _layer_rows(layers: Iterable[LayerReport]) -> Iterator[tuple[str, str, str, str]]:
    """A layer's name, class, output shape and number of parameters."""
    for layer in layers:
        yield (
            plain(layer.name),
            plain(layer.class_name or ""),
            "" if layer.output_shape is None else sizes(layer.output_shape),
            "" if layer.parameters is None else f"{layer.parameters:,}",
        )


# -- text --------------------------------------------------------------------------------------------------------------

Paint = Callable[[str, str], str]


def text(report: Report, *, weights: bool = False, paint: Paint | None = None) -> str:
    """The report as lines of text. See :meth:`~modelio.inspection.report.Report.text`."""
    return "\n".join(_lines(report, weights, paint or (lambda style, words: words)))


def _lines(report: Report, weights: bool, paint: Paint) -> Iterator[str]:
    what, origin = _headline(report)
    yield paint("title", what) + origin
    yield _totals(report)
    for item in advice(report):
        yield ""
        yield from _advice_lines(item, paint)
    for name, signature in report.signatures.items():
        yield ""
        remark = _method(report, signature)
        yield paint("title", plain(name)) + (paint("dim", f"  {remark}") if remark else "")
        yield from _table(list(_rows(signature)))
    if report.layers:
        yield ""
        yield paint("title", "layers")
        yield from _table(list(_layer_rows(report.layers)), right=True)
    if report.operations:
        yield ""
        yield from textwrap.wrap("nodes: " + _operations(report), WIDTH, subsequent_indent=" " * 7)
    if weights and report.weights.tensors:
        yield ""
        yield paint("title", "weights")
        yield from _table(
            [
                (plain(weight.name), kind(weight.dtype, weight.shape), amount(weight.nbytes))
                for weight in report.weights.tensors
            ],
            right=True,
        )


def _advice_lines(item: Advice, paint: Paint) -> Iterator[str]:
    label = "TRAP" if item.kind == "trap" else "NOTE"
    indent = " " * 6
    lines = _wrapped(item.sentence, indent)
    lines[0] = f"{paint(item.kind, label)}{lines[0][len(label) :]}"
    yield from lines
    if item.way_out:
        yield from _wrapped(f"Way out: {item.way_out}", indent)
    if item.command:
        yield indent + "  " + paint("command", item.command)


def _wrapped(sentence: str, indent: str) -> list[str]:
    return textwrap.wrap(
        sentence, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _table(rows: Sequence[tuple[str, ...]], right: bool = False) -> Iterator[str]:
    """Columns side by side, the last flush right if it is of numbers; a row too long for that takes a second line."""
    widths = [min(max(len(row[column]) for row in rows), _WIDEST) for column in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if right:
            cells[-1] = row[-1].rjust(widths[-1])
        line = "  " + "  ".join(cells).rstrip()
        if len(line) <= WIDTH:
            yield line
        else:
            yield "  " + "  ".join(cells[:-1]).rstrip()
            yield " " * (2 + widths[0] + 4) + row[-1]


# -- HTML --------------------------------------------------------------------------------------------------------------


def html(report: Report) -> str:
    """The report as HTML for notebooks: tables without style sheets or scripts."""
    what, origin = _headline(report)
    parts = [f"<p><b>{escape(what)}</b>{escape(origin)}<br>{escape(_totals(report))}</p>"]
    for item in advice(report):
        colour = "#b00020" if item.kind == "trap" else "inherit"
        way_out = f"<br>Way out: {escape(item.way_out)}" if item.way_out else ""
        command = f" <code>{escape(item.command)}</code>" if item.command else ""
        parts.append(f'<p style="color:{colour}">{escape(item.sentence)}{way_out}{command}</p>')
    for name, signature in report.signatures.items():
        parts.append(f"<p><b>{escape(plain(name))}</b> {escape(_method(report, signature))}</p>")
        parts.append(_html_table(_rows(signature)))
    if report.layers:
        parts.append("<p><b>layers</b></p>")
        parts.append(_html_table(_layer_rows(report.layers)))
    return f"<div>{''.join(parts)}</div>"


def _html_table(rows: Iterable[Sequence[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{body}</table>"
