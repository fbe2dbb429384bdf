"""The real files that the tests run on.

``tests/data`` is always there: a compact part of a corpus that eleven versions of Keras and TensorFlow wrote, with their
own predictions. Where the variable ``MODELIO_CORPUS`` names the whole corpus, every test that is parametrized with
:func:`cases` runs over all of it; ``MODELIO_WILD`` does the same for :func:`strays`, files that other projects ship.

>>> [case.id for case in cases(version="hybrid_contrib*", model="wrong_tag")]
['hybrid_contrib-keras_tf-1.2.1/wrong_tag']

A test takes its cases by what they hold, and gets one of them as an argument::

    @pytest.mark.parametrize("case", cases(file="model.h5"))
    def test_reading(case):
        inputs, outputs = golden(case)
        model = modelio.read(case / "model.h5")
        ...
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

MODELS = (
    *("mlp", "cnn", "multi_io", "nested", "rnn", "convzoo", "convnd", "separable_mobilenet"),
    *("norm_pre", "transformer", "tfops"),
)
"""The models of the corpus whose every layer has a lowering rule."""


def data() -> Path:
    """``tests/data``: the compact part, laid out as the corpus is."""
    return Path(__file__).parent / "data"


def corpus() -> Path | None:
    """The whole corpus, where ``MODELIO_CORPUS`` names it."""
    return _named("MODELIO_CORPUS")


def wild() -> Path | None:
    """The whole collection of other projects' files, where ``MODELIO_WILD`` names it."""
    return _named("MODELIO_WILD")


@dataclass(frozen=True)
class Case:
    """One model as one version wrote it: a folder of files, with what that version computed.

    ``case / "model.h5"`` is one of its files.
    """

    root: Path
    version: str
    model: str

    @property
    def id(self) -> str:
        return f"{self.version}/{self.model}"

    @property
    def __name__(self) -> str:  # what pytest shows
        return self.id

    @property
    def path(self) -> Path:
        return self.root / self.version / self.model

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __str__(self) -> str:
        return self.id


def cases(
    model: str | Iterable[str] = "*", version: str | Iterable[str] = "*", file: str | Iterable[str] = ()
) -> list[Case]:
    """The models whose name and version fit a pattern, and which have a file; in the whole corpus where there is one.

    Args:
        model: a name, or several, with ``*`` and ``?``: ``"cnn"``, ``MODELS``.
        version: of what wrote it, likewise: ``"keras-2.0.5_tf-1.2.1"``, ``"tfkeras_*"``, ``"*_tf-1.*"``.
        file: a file or a folder that must be in it, or several: ``"model.h5"``, ``("frozen.pb", "golden.npz")``; an HDF5
            file that its framework could not finish does not count.

    Raises:
        LookupError: nothing fits; a test that runs on nothing would pass.
    """
    models, versions = _several(model), _several(version)
    found = {
        case.id: case
        for root in (data(), corpus())  # the corpus last: of a model that is in both, it has more files
        if root is not None
        for case in _walk(root)
        if any(fnmatch(case.model, pattern) for pattern in models)
        if any(fnmatch(case.version, pattern) for pattern in versions)
        if all((case / name).exists() and not _unfinished(case, name) for name in _several(file))
    }
    if not found:
        raise LookupError(f"no case has model={model!r}, version={version!r}, file={file!r}")
    return [found[key] for key in sorted(found)]


def _unfinished(case: Case, name: str) -> bool:
    """Whether the framework stopped half-way through this file, as it noted: what it left is refused, and tested as such."""
    key = {"model.h5": "h5", "weights.h5": "weights_h5"}.get(name)
    return key is not None and str(record(case).get(key, "")).startswith("FAILED")


def case(id: str) -> Case:
    """The case of that id, which must be in ``tests/data``: ``case("keras-2.0.5_tf-1.2.1/cnn")``."""
    version, model = id.split("/")
    found = Case(data(), version, model)
    if not found.path.is_dir():
        raise LookupError(f"tests/data has no {id}")
    return found


def golden(case: Case) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The inputs and outputs, each in order, as the framework that wrote the files computed them in inference mode."""
    arrays = golden_arrays(case)
    inputs, outputs = (
        [arrays[f"{kind}_{number}"] for number in range(len(arrays)) if f"{kind}_{number}" in arrays]
        for kind in ("in", "out")
    )
    return inputs, outputs


def golden_arrays(case: Case) -> dict[str, np.ndarray]:
    """All arrays of ``golden.npz``; the ``hybrid_*`` exports share one, which has ``labels`` too."""
    own = case / "golden.npz"
    with np.load(own if own.exists() else case.path.parent / "golden.npz", allow_pickle=False) as stored:
        return dict(stored)


def record(case: Case) -> dict[str, Any]:
    """What was noted when the files were written: versions, names of the frozen graph's inputs and outputs, ``build``.

    The ``hybrid_*`` exports share one record: node names of ``probs``, ``accuracy`` and ``learning_phase``.
    """
    whole = json.loads((case.path.parent / "RECORD.json").read_text())
    own = whole.get(case.model)
    return own if isinstance(own, dict) else whole


@dataclass(frozen=True)
class Stray:
    """A file, or a SavedModel's folder, that another project ships; the row of ``CATALOGUE.tsv`` that describes it."""

    path: Path
    name: str
    source: str
    license: str
    kind: str
    version: str
    notes: str

    @property
    def __name__(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name


def strays(kind: str | Iterable[str] = "*", name: str | Iterable[str] = "*") -> list[Stray]:
    """The files of other projects whose kind and name fit a pattern: ``strays(kind="TFLite")``.

    Kinds are ``Keras HDF5 whole-model``, ``Keras HDF5 weights-only``, ``Keras JSON architecture``, ``SavedModel TF1``,
    ``SavedModel TF2``, ``GraphDef frozen``, ``GraphDef pbtxt``, ``TF MetaGraph .meta``, ``TF checkpoint .index``,
    ``TFLite``, ``h5json``, ... and ``NOT HDF5 / corrupt``; a SavedModel is a folder, or a lone ``saved_model.pb``.

    Raises:
        LookupError: nothing fits.
    """
    kinds, names = _several(kind), _several(name)
    found = {
        stray.name: stray
        for root in (data() / "wild", wild())
        if root is not None
        for stray in _catalogue(root)
        if any(fnmatch(stray.kind, pattern) for pattern in kinds)
        if any(fnmatch(stray.name, pattern) for pattern in names)
    }
    if not found:
        raise LookupError(f"no file has kind={kind!r}, name={name!r}")
    return [found[key] for key in sorted(found)]


def _named(variable: str) -> Path | None:
    value = os.environ.get(variable)
    if not value:
        return None
    path = Path(value)
    if not path.is_dir():
        raise NotADirectoryError(f"{variable} names {value}, which is not a directory")
    return path


def _walk(root: Path) -> Iterator[Case]:
    for record in sorted(root.glob("*/RECORD.json")):
        for folder in sorted(record.parent.iterdir()):
            if folder.is_dir():
                yield Case(root, record.parent.name, folder.name)


def _catalogue(root: Path) -> Iterator[Stray]:
    with open(root / "CATALOGUE.tsv", newline="", encoding="utf-8") as table:
        for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield Stray(
                root / row["path"],
                row["path"],
                row["source"],
                row["license"],
                row["kind"],
                row["version"],
                row["notes"],
            )


def _several(patterns: str | Iterable[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)
