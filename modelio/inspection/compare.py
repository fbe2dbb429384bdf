"""Are two models the same: weights by their bytes, ends by their names, answers by their numbers.

::

    Comparison             equal?  str() is the account, .to_dict() is `verify --json`
     |- weights            every tensor's digest: in both, changed, in one only
     |- ends               inputs and outputs of the signatures
     '- answers            each output on the same inputs: the largest difference, and what it is allowed to be

Weights are told by their content and not by their names, which formats change. Of layers in the same dialect a weight
with other bits is a difference. Otherwise bits may change for a reason, a layout or a constant that was folded, and
then the answers decide; where there are none, the weights must.

This module runs nothing: whoever calls it hands in what does.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ConversionError
from modelio.format import Model
from modelio.inspection.report import Report, SignatureReport, report_of
from modelio.model import LayerModel, Tensor, TensorSpec

__all__ = ["Answer", "Comparison", "Run", "Weight", "compare"]

Run = Callable[[Model, str], Callable[..., dict[str, npt.NDArray[Any]]]]
"""Gives the function that computes one signature of a model: :func:`modelio.routes.run`."""

BATCH, LENGTH = 2, 32
"""What stands for an unknown first size, and for any other, in inputs that are made here."""


@dataclass(frozen=True)
class Weight:
    """A tensor by its name in either model, None where the model has none with this content, or of this name."""

    first: str | None
    second: str | None

    def __str__(self) -> str:
        if self.first is not None and self.second is not None:
            return f"{self.first}: other numbers"
        return f"{self.first or self.second}: only in {'A' if self.first else 'B'}"


@dataclass(frozen=True)
class Answer:
    """One output of both models on the same inputs.

    ``difference`` is the largest absolute difference of two numbers, ``allowed`` is ``atol + rtol * magnitude`` where
    the magnitude is the largest number of the first model's output: the error of a sum follows the size of what is
    added up, not what is left of it. ``problem`` says what else is wrong: a shape, a dtype, NaN where the other has
    none.
    """

    signature: str
    output: str
    difference: float
    allowed: float
    problem: str = ""

    @property
    def equal(self) -> bool:
        return not self.problem and self.difference <= self.allowed

    def __str__(self) -> str:
        said = self.problem or f"largest difference {self.difference:.3g}, allowed {self.allowed:.3g}"
        return f"{self.signature} {self.output}: {said}"


@dataclass(frozen=True)
class Comparison:
    """What two models have in common. ``skipped`` says why no answers were compared, where none were."""

    same: int
    weights: tuple[Weight, ...]
    ends: tuple[str, ...]
    answers: tuple[Answer, ...] = ()
    skipped: str = ""
    bits_matter: bool = True
    """Weights with other bits are a difference even where the answers agree."""

    @property
    def equal(self) -> bool:
        """Nothing that counts is different, and something was compared."""
        compared = bool(self.answers) or self.same > 0
        strict = self.bits_matter or not self.answers
        return (
            compared
            and all(answer.equal for answer in self.answers)
            and not self.ends
            and not (strict and self.weights)
        )

    def to_dict(self) -> dict[str, Any]:
        """The object of ``verify --json``."""
        return {
            "equal": self.equal,
            "weights": {"same": self.same, "different": [[weight.first, weight.second] for weight in self.weights]},
            "ends": list(self.ends),
            "answers": [
                {
                    "signature": answer.signature,
                    "output": answer.output,
                    "equal": answer.equal,
                    "difference": _finite(answer.difference),
                    "allowed": _finite(answer.allowed),
                    "problem": answer.problem or None,
                }
                for answer in self.answers
            ],
            "skipped": self.skipped or None,
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield "equal" if self.equal else "DIFFERENT"
        odd = f", {len(self.weights)} not" if self.weights else ""
        yield f"  weights   {self.same} equal, bit for bit{odd}"
        for weight in self.weights[:SHOWN]:
            yield f"            {weight}"
        if len(self.weights) > SHOWN:
            yield f"            ... and {len(self.weights) - SHOWN} more"
        for line in self.ends:
            yield f"  ends      {line}"
        for answer in self.answers:
            yield f"  answers   {answer}"
        if self.skipped:
            yield f"  answers   not compared: {self.skipped}"
        if self.weights and not self.bits_matter and self.answers:
            yield "            weights are laid out otherwise in these two; the answers decide"


SHOWN = 8
"""Weights that the account names."""


def compare(
    first: Model,
    second: Model,
    *,
    run: Run | None = None,
    inputs: Mapping[str, npt.ArrayLike] | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
) -> Comparison:
    """Compare two models, tensor by tensor, end by end, answer by answer.

    Args:
        first: what the other is held against.
        second: the other.
        run: what computes them; left out, no answers are compared.
        inputs: arrays by input key; left out, random ones are made, the same on every run.
        rtol: allowed difference, relative to the largest number of an output.
        atol: allowed difference beside that.

    Raises:
        ConversionError: inputs were given that no signature takes.
    """
    reports = report_of(first), report_of(second)
    ours, theirs = reports[0].signatures, reports[1].signatures
    pairs = _paired(ours, theirs)
    ends = tuple(_different_ends(ours, theirs, pairs)) if ours and theirs else ()
    same, weights = _weights(_tensors(first, reports[0]), _tensors(second, reports[1]))
    answers: list[Answer] = []
    skipped = "" if pairs else "the models have no signature in common"
    if inputs is not None and pairs:
        pairs = [pair for pair in pairs if set(inputs) == set(ours[pair[0]].inputs)]
        if not pairs:
            raise ConversionError(
                f"no signature takes just {', '.join(inputs) or 'nothing'}: "
                + "; ".join(f"{name} takes {', '.join(report.inputs)}" for name, report in ours.items())
            )
    if run is None:
        skipped = skipped or "nothing here runs models"
    elif not ends:
        for one, other in pairs:
            arrays = made_inputs(ours[one].inputs) if inputs is None else dict(inputs)
            answers += _answers(run, first, second, ours, theirs, (one, other), arrays, rtol, atol)
    return Comparison(
        same=same,
        weights=weights,
        ends=ends,
        answers=tuple(answers),
        skipped="" if answers else skipped or "the ends differ",
        bits_matter=isinstance(first, LayerModel)
        and isinstance(second, LayerModel)
        and first.dialect == second.dialect,
    )


def made_inputs(specs: Mapping[str, TensorSpec], seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Inputs for a signature: normal numbers, zeros and ones where they are whole, a few words where they are text.

    Zero and one are indices into any vocabulary.
    """
    random = np.random.default_rng(seed)
    return {key: _made(spec, random) for key, spec in specs.items()}


def _made(spec: TensorSpec, random: np.random.Generator) -> npt.NDArray[Any]:
    known = spec.shape if spec.shape is not None else (None,)
    shape = tuple(size if size is not None else LENGTH if axis else BATCH for axis, size in enumerate(known))
    if spec.dtype == "string":
        return random.choice(np.array([b"a", b"one two", b"", b"Zwei, drei!"], object), shape)
    if spec.dtype == "bool" or "int" in spec.dtype:
        return random.integers(0, 2, shape).astype(spec.dtype)
    from modelio.wire.dtypes import dtype_number, numpy_dtype

    return random.normal(0, 1, shape).astype(numpy_dtype(dtype_number(spec.dtype)))


# -- weights -----------------------------------------------------------------------------------------------------------


def _tensors(model: Model, report: Report) -> dict[str, Tensor]:
    """Every weight under a name that says where it is."""
    if isinstance(model, LayerModel):
        return {f"{layer}: {name}": t for layer, group in model.weights.items() for name, t in group.items()}
    if model.variables:
        return dict(model.variables)
    from modelio.wire import dtypes

    nodes = {node.name: node for node in model.graph.node}
    for function in model.graph.library.function:
        nodes |= {f"{function.signature.name}:{node.name}": node for node in function.node_def}
    return {
        name: model.constants[name]
        if name in model.constants
        else Tensor.of(dtypes.tensor_to_numpy(nodes[name].attr["value"].tensor, where=name))
        for name, *_ in report.weights.tensors
    }


def _digest(tensor: Tensor) -> bytes:
    total = hashlib.blake2b(f"{tensor.dtype.name}{tensor.shape}".encode(), digest_size=16)
    if tensor.dtype == object:
        for value in tensor.numpy().ravel():
            data = value.encode() if isinstance(value, str) else bytes(value)
            total.update(len(data).to_bytes(8, "little") + data)
    else:
        for piece in tensor.chunks():
            total.update(piece)
    return total.digest()


def _weights(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> tuple[int, tuple[Weight, ...]]:
    """How many tensors have the same content, and those that have not: by name where both have it, else alone."""
    ours = {name: _digest(tensor) for name, tensor in first.items()}
    theirs = {name: _digest(tensor) for name, tensor in second.items()}
    both = Counter(ours.values()) & Counter(theirs.values())
    rest_of_ours, rest_of_theirs = _rest(ours, both), _rest(theirs, both)
    changed = [name for name in rest_of_ours if name in rest_of_theirs]
    alone = [Weight(name, None) for name in rest_of_ours if name not in changed]
    alone += [Weight(None, name) for name in rest_of_theirs if name not in changed]
    return both.total(), (*(Weight(name, name) for name in changed), *alone)


def _rest(digests: Mapping[str, bytes], both: Counter[bytes]) -> list[str]:
    left = Counter(both)
    rest = []
    for name, digest in digests.items():
        if left[digest]:
            left[digest] -= 1
        else:
            rest.append(name)
    return rest


# -- ends and answers --------------------------------------------------------------------------------------------------


def _paired(ours: Mapping[str, SignatureReport], theirs: Mapping[str, SignatureReport]) -> list[tuple[str, str]]:
    """Signatures that stand for each other: of one name, or the only ones."""
    if len(ours) == len(theirs) == 1:
        return [(next(iter(ours)), next(iter(theirs)))]
    return [(name, name) for name in ours if name in theirs]


def _different_ends(
    ours: Mapping[str, SignatureReport], theirs: Mapping[str, SignatureReport], pairs: Sequence[tuple[str, str]]
) -> Iterator[str]:
    paired = {one for one, _ in pairs}, {other for _, other in pairs}
    for said, signatures, known in (("A", ours, paired[0]), ("B", theirs, paired[1])):
        for name in signatures:
            if name not in known:
                yield f"signature {name}: only in {said}"
    for one, other in pairs:
        for kind in ("inputs", "outputs"):
            mine, yours = getattr(ours[one], kind), getattr(theirs[other], kind)
            if len(mine) != len(yours):
                yield f"{one} {kind}: {', '.join(mine) or 'none'} in A, {', '.join(yours) or 'none'} in B"
                continue
            for key, match in _matched(mine, yours).items():
                a, b = mine[key], yours[match]
                if a.dtype != b.dtype or not _compatible(a.shape, b.shape):
                    yield f"{one} {kind} {key}: {a.dtype} {a.shape} in A, {b.dtype} {b.shape} in B"


def _compatible(a: Sequence[int | None] | None, b: Sequence[int | None] | None) -> bool:
    """Could both be the shape of one array?"""
    if a is None or b is None:
        return True
    return len(a) == len(b) and all(m is None or n is None or m == n for m, n in zip(a, b, strict=True))


def _matched(mine: Mapping[str, Any], yours: Mapping[str, Any]) -> dict[str, str]:
    """Keys by name where the names agree, else by their order."""
    return {key: key for key in mine} if set(mine) == set(yours) else dict(zip(mine, yours, strict=True))


def _answers(
    run: Run,
    first: Model,
    second: Model,
    ours: Mapping[str, SignatureReport],
    theirs: Mapping[str, SignatureReport],
    pair: tuple[str, str],
    arrays: Mapping[str, npt.ArrayLike],
    rtol: float,
    atol: float,
) -> Iterator[Answer]:
    one, other = pair
    keys = _matched(ours[one].inputs, theirs[other].inputs)
    expected = run(first, one)(**arrays)
    found = run(second, other)(**{keys[key]: array for key, array in arrays.items()})
    for key, match in _matched(ours[one].outputs, theirs[other].outputs).items():
        yield answer(one, key, np.asarray(expected[key]), np.asarray(found[match]), rtol, atol)


def answer(signature: str, output: str, a: npt.NDArray[Any], b: npt.NDArray[Any], rtol: float, atol: float) -> Answer:
    """One output held against another."""

    def problem(said: str) -> Answer:
        return Answer(signature, output, np.inf, 0.0, said)

    if a.shape != b.shape:
        return problem(f"shape {a.shape} in A, {b.shape} in B")
    if a.dtype != b.dtype:
        return problem(f"dtype {a.dtype} in A, {b.dtype} in B")
    if a.dtype.kind in "OSUb":
        odd = int((a != b).sum())
        return problem(f"{odd} of {a.size} values differ") if odd else Answer(signature, output, 0.0, 0.0)
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    x, y = a.astype(wide), b.astype(wide)
    odd_places = ~np.isfinite(x) | ~np.isfinite(y)
    if odd_places.any() and not np.array_equal(x[odd_places], y[odd_places], equal_nan=True):
        return problem("NaN or infinity in one of them")
    x, y = x[~odd_places], y[~odd_places]
    if not x.size:
        return Answer(signature, output, 0.0, atol)
    return Answer(signature, output, float(np.abs(x - y).max()), atol + rtol * float(np.abs(x).max()))


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None
