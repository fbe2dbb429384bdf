"""What to know before using a model: what will fail, why, and the way out.

Each rule is a function from a report to what it finds; :func:`advice` asks them all. Where several signatures share a
trouble, it is told once.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from modelio.graph.analysis import Placeholder
from modelio.inspection.report import Report, SignatureReport
from modelio.inspection.words import count, listed, plain, quoted

__all__ = ["Advice", "advice"]

METHODS = frozenset(f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))
"""What TensorFlow Serving answers to (tensorflow/python/saved_model/signature_constants.py)."""

SERVE = "serve"
"""The one tag that TensorFlow Serving loads (kSavedModelTagServe)."""

VARIABLES = ("Variable", "VariableV2", "VarHandleOp")

HANDLES = frozenset({"resource", "variant"})
"""Dtypes of things inside a running TensorFlow, which no request can carry."""


class Advice(NamedTuple):
    """Something to know before using the model.

    ``kind`` is ``"trap"`` where requests fail, or answer something else than meant, and ``"note"`` otherwise;
    ``sentence`` says what will happen, ``way_out`` what to do about it, ``command`` that as something to type.
    """

    kind: Literal["trap", "note"]
    sentence: str
    way_out: str = ""
    command: str = ""


def advice(report: Report) -> list[Advice]:
    """What there is to know, traps first."""
    rules = (
        _undeclared,
        _unfeedable,
        _unfrozen,
        _defaults_to_training,
        _tags,
        _methods,
        _declared_switch,
        _partial,
        _unneeded,
        _names,
        _remarks,
    )
    found = [item for rule in rules for item in rule(report)]
    return sorted(found, key=lambda item: item.kind == "note")


def _undeclared(report: Report) -> Iterator[Advice]:
    """A placeholder that must be fed and has no key to feed it by: the learning_phase trap."""
    for placeholder, signatures in _grouped(
        (item, name)
        for name, signature in report.signatures.items()
        for item in signature.undeclared
        if item.function is None and item.dtype not in HANDLES
    ):
        need, their = ("needs", "its signature does") if len(signatures) == 1 else ("need", "their signatures do")
        yield Advice(
            "trap",
            f"{listed(signatures)} {need} the placeholder {quoted(placeholder.name)} ({placeholder.dtype}), which "
            f'{their} not declare: every request fails with "You must feed a value for placeholder tensor '
            f"'{plain(placeholder.name)}'\".",
            "make it a constant:" if _value(placeholder) else "make it a constant, of the value that inference wants:",
            _bind(placeholder),
        )


def _unfeedable(report: Report) -> Iterator[Advice]:
    """A placeholder that must be fed and cannot be."""
    for placeholder, signatures in _grouped(
        (signature.placeholders[item], name)
        for name, signature in report.signatures.items()
        for item in signature.required
        if signature.placeholders[item].function is not None or signature.placeholders[item].dtype in HANDLES
    ):
        subject = f"{listed(signatures)} {'needs' if len(signatures) == 1 else 'need'} the placeholder"
        if placeholder.function is not None:
            yield Advice(
                "trap",
                f"{subject} {quoted(placeholder.name)}, which is inside a function, where nothing can feed it: every "
                "request fails.",
                "export the model again, with an argument of the function in its place.",
            )
        else:
            yield Advice(
                "trap",
                f"{subject} {quoted(placeholder.name)}, a handle ({placeholder.dtype}) of a table or the like, which "
                "was lost when the graph was taken out of its model: no value can be fed here, every request fails.",
                "convert the model that this graph was made from.",
            )


def _defaults_to_training(report: Report) -> Iterator[Advice]:
    """A learning phase that is on unless somebody turns it off."""
    for placeholder, signatures in _grouped(
        (signature.placeholders[item], name)
        for name, signature in report.signatures.items()
        for item in signature.optional
        if signature.placeholders[item].role == "learning_phase" and signature.defaults.get(item) in (True, 1)
    ):
        runs = "runs" if len(signatures) == 1 else "run"
        yield Advice(
            "trap",
            f"{listed(signatures)} {runs} in training mode: the placeholder {quoted(placeholder.name)} is true where "
            "nobody feeds it, so dropout is on and batch normalization uses the statistics of the batch.",
            "make it a constant:",
            _bind(placeholder),
        )


def _unfrozen(report: Report) -> Iterator[Advice]:
    """A graph of variables in a file that holds none."""
    variables = sum(report.operations.get(op, 0) for op in VARIABLES)
    if report.level == "frozen" and variables:
        has = count(variables, "variable")
        yield Advice(
            "trap",
            f"The graph has {has}, and the file none of their values: it was not frozen, and every request fails with "
            '"Attempting to use uninitialized value".',
            "convert the SavedModel or the checkpoint that holds them.",
        )


def _tags(report: Report) -> Iterator[Advice]:
    if report.format == "saved-model" and SERVE not in report.tags:
        tagged = f"tagged {listed(sorted(report.tags))}" if report.tags else "without a tag"
        yield Advice(
            "trap",
            f"The graph is {tagged}: TensorFlow Serving looks for what is tagged `{SERVE}`, does not find it, and "
            "refuses the model.",
            "tag it so:",
            _convert("--retag", SERVE),
        )


def _methods(report: Report) -> Iterator[Advice]:
    if report.format != "saved-model":
        return
    for method, signatures in _grouped(
        (signature.method, name) for name, signature in report.signatures.items() if signature.method not in METHODS
    ):
        has = "has" if len(signatures) == 1 else "have"
        named = f"the method name {quoted(method)}" if method else "no method name"
        yield Advice(
            "trap",
            f"{listed(signatures)} {has} {named}: TensorFlow Serving answers to tensorflow/serving/predict, "
            ".../classify and .../regress, and refuses requests to any other.",
            *_predicting(signatures, report),
        )


def _predicting(names: Sequence[str], report: Report) -> tuple[str, str]:
    """The way out for signatures of another method: the same again, which gives them the one to predict."""
    said = []
    for name in names:
        signature = report.signatures[name]
        ends = [[f"{key}={spec.tensor}" for key, spec in one.items()] for one in (signature.inputs, signature.outputs)]
        if not all(_PLAIN.fullmatch(text) for text in (name, *(part for end in ends for part in end))):
            return "read it, replace the Signature by one with method='tensorflow/serving/predict', and write it.", ""
        said += ["--set-signature", f"{name}({', '.join(ends[0])}) -> ({', '.join(ends[1])})"]
    return "set the same signature again, which is one to predict then:", _convert(*said)


def _declared_switch(report: Report) -> Iterator[Advice]:
    """A learning phase that is an input: harmless, as long as every caller knows."""
    for placeholder, signatures in _grouped(
        (signature.placeholders[item], name)
        for name, signature in report.signatures.items()
        for item in signature.required
        if signature.placeholders[item].role == "learning_phase"
        and signature.placeholders[item] not in signature.undeclared
    ):
        wants = "wants" if len(signatures) == 1 else "want"
        yield Advice(
            "note",
            f"{listed(signatures)} {wants} Keras' learning phase, {quoted(placeholder.name)}, with every request: "
            "false for inference.",
            "make it a constant:",
            _bind(placeholder),
        )


def _partial(report: Report) -> Iterator[Advice]:
    """An input that an output needs on top of what another one needs: labels, for the accuracy."""
    for name, signature in report.signatures.items():
        for outputs, inputs in _grouped((signature.wanted_by[key], key) for key in signature.wanted_by):
            others = [key for key in signature.outputs if key not in outputs]
            if not any(_takes(signature, other) <= _takes(signature, key) for other in others for key in outputs):
                continue
            pruned = _pruned(report, others)
            end = ":" if pruned else "."
            are, them = ("is", "it") if len(inputs) == 1 else ("are", "them")
            noun = "the output" if len(outputs) == 1 else "the outputs"
            yield Advice(
                "note",
                f"{listed(inputs)} {are} asked for by {noun} {listed(outputs)} alone (signature {quoted(name)}): who "
                f"wants only {listed(others)} must send {them} too, since a request needs all declared inputs.",
                f"send {them}, or take {listed(outputs)} and {listed(inputs)} out of the signature{end}",
                pruned,
            )


def _takes(signature: SignatureReport, output: str) -> set[str]:
    """The inputs that an output depends on."""
    return {key for key, outputs in signature.wanted_by.items() if output in outputs}


def _unneeded(report: Report) -> Iterator[Advice]:
    for keys, signatures in _grouped(
        (signature.unneeded, name) for name, signature in report.signatures.items() if signature.unneeded
    ):
        are, them = ("is", "it") if len(keys) == 1 else ("are", "them")
        yield Advice(
            "note",
            f"{listed(keys)} {are} declared by {listed(signatures)}, and no output depends on {them}; TensorFlow "
            f"Serving still refuses a request without {them}.",
            *(("take " + them + " out:", pruned) if (pruned := _pruned(report)) else ()),
        )


def _names(report: Report) -> Iterator[Advice]:
    if report.format != "saved-model":
        return
    if not report.signatures:
        yield Advice(
            "trap",
            "There is no signature: TensorFlow Serving has nothing to serve. tf.saved_model.load still gives the "
            "functions that were exported.",
            "export again with signatures=.",
        )
    elif "serving_default" not in report.signatures:
        yield Advice(
            "note",
            f"No signature is called `serving_default`: a request must name {listed(report.signatures, 'or')}.",
            *_renamed(report),
        )


def _remarks(report: Report) -> Iterator[Advice]:
    for remark in report.remarks:
        yield Advice("note", plain(remark, limit=400))


def _grouped(pairs: Iterable[tuple[Any, str]]) -> list[tuple[Any, list[str]]]:
    """``(thing, name)`` pairs as each thing with its names, in order."""
    groups: dict[Any, list[str]] = {}
    for thing, name in pairs:
        groups.setdefault(thing, []).append(name)
    return list(groups.items())


def _value(placeholder: Placeholder) -> str | None:
    """What a placeholder is in inference, where its role, or its name and dtype, leave no doubt."""
    if placeholder.role == "learning_phase":
        return "false" if placeholder.dtype == "bool" else "0"
    name = placeholder.name.rpartition("/")[2].lower()
    if placeholder.dtype == "bool" and re.search(r"(?:^|_)(?:is_?)?train(?:ing)?(?:$|_)|phase_train", name):
        return "false"
    if placeholder.dtype.startswith("float") and re.search(r"keep_?(?:prob|rate)", name):
        return "1.0"
    return None


def _bind(placeholder: Placeholder) -> str:
    name = placeholder.role or shlex.quote(plain(placeholder.name, limit=1000))
    return f"modelio convert SOURCE TARGET --bind {name}={_value(placeholder) or 'VALUE'}"


def _pruned(report: Report, outputs: Sequence[str] = ()) -> str:
    """What leaves these outputs, or all, with the inputs that they need; nothing where other signatures would go."""
    if len(report.signatures) != 1:
        return ""
    keys = outputs or list(next(iter(report.signatures.values())).outputs)
    return _convert("--outputs", ",".join(keys)) if all(_PLAIN.fullmatch(key) for key in keys) else ""


def _renamed(report: Report) -> tuple[str, ...]:
    """What makes the only signature the one that is asked for by default."""
    names = list(report.signatures)
    if len(names) != 1 or not _PLAIN.fullmatch(names[0]):
        return ()
    return "rename it:", _convert("--rename-signature", f"{names[0]}=serving_default")


_PLAIN = re.compile(r"[^\s(),\x00-\x1f]{1,1000}")
"""Names that the command line can tell from what is around them."""


def _convert(*options: str) -> str:
    return shlex.join(["modelio", "convert", "SOURCE", "TARGET", *options])
