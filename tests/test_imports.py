"""The dependency rule: a module imports only from the rooms to its left, and ``import modelio`` stays light."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import modelio
from tests.conftest import ROOT

PACKAGE = ROOT / "modelio"

# In the order of docs/house.md; what stands in one row may know each other only where KIN says so.
ROOMS = (
    ("_version",),
    ("errors",),
    ("wire",),
    ("source", "sink", "strangers"),
    ("model",),
    ("format",),
    ("layers", "graph"),
    ("formats",),
    ("lowering", "lifting"),
    ("inspection",),
    ("registry",),
    ("runtime",),
    ("routes",),
    ("api",),
    ("transfer",),
    ("__init__",),
    ("cli",),
    ("testing", "__main__"),
)

KIN = {("sink", "source"), ("strangers", "source")}
"""Rows whose rooms are neighbours: a sink checks member names as a source does."""

WHEN_CALLED = {("model", "layers")}
"""What may look to its right inside functions: LayerModel has the methods that Keras users expect."""

# A package, and the only modules that may import it.
KEPT_IN = {
    "h5py": {"wire.hdf5"},
    "google.protobuf": {"wire.messages"},
    "tensorflow": {"runtime.tensorflow"},
    "keras": {"runtime.tensorflow"},
    "tf_keras": {"runtime.tensorflow"},
    "click": {"cli"},
    "rich": {"cli", "inspection.render"},
}

HEAVY = ("tensorflow", "keras", "tf_keras", "h5py", "google.protobuf", "ml_dtypes", "click", "rich")
"""What ``import modelio`` must not load."""


@dataclass(frozen=True)
class Import:
    """One imported module, where, and whether only when a function runs or only for a type checker."""

    importer: str
    imported: str
    line: int
    deferred: bool
    typing: bool

    def __str__(self) -> str:
        return f"modelio/{self.importer.replace('.', '/')}.py:{self.line} imports {self.imported}"


@cache
def modules() -> list[tuple[str, ast.Module]]:
    """Every module by its name inside the package: ``wire.bundle``, ``graph`` for ``graph/__init__.py``."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found.append((name, ast.parse(path.read_text(encoding="utf-8"), str(path))))
    return found


def imports() -> Iterator[Import]:
    for name, tree in modules():
        yield from _walk(name, tree, deferred=False, typing=False)


def _walk(importer: str, node: ast.AST, deferred: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(importer, alias.name, child.lineno, deferred, typing)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{importer}:{child.lineno}: imports are absolute"
            for alias in child.names:
                # `from modelio.wire import messages` names a module; `from modelio.model import Tensor` does not.
                whole = f"{child.module}.{alias.name}"
                yield Import(
                    importer, whole if _is_module(whole) else str(child.module), child.lineno, deferred, typing
                )
        elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for part in child.body:
                yield from _walk(importer, ast.Module([part], []), deferred, True)
            for part in child.orelse:
                yield from _walk(importer, ast.Module([part], []), deferred, typing)
        else:
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _walk(importer, child, deferred or inside, typing)


def _is_module(name: str) -> bool:
    if not name.startswith("modelio."):
        return False
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def room(module: str) -> str:
    """The room of a module by its name inside the package."""
    return module.split(".")[0]


def place(module: str) -> int:
    return next(number for number, row in enumerate(ROOMS) if room(module) in row)


ALL = list(imports())
OWN = [
    Import(found.importer, found.imported.removeprefix("modelio").removeprefix(".") or "__init__", *_rest)
    for found in ALL
    if found.imported.split(".")[0] == "modelio"
    for _rest in [(found.line, found.deferred, found.typing)]
]


def listed(found: list[Import]) -> str:
    return "\n".join(map(str, found))


def test_the_walk_finds_imports():
    """A test that sees nothing would hold anything."""
    assert len(OWN) > 50
    assert any(found.deferred for found in OWN)
    assert any(found.typing for found in ALL)
    source = "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    from modelio.wire import messages, window\n"
    found = list(_walk("x", ast.parse(source), deferred=False, typing=False))
    assert [(each.imported, each.deferred, each.typing) for each in found] == [
        ("a", False, True),
        ("b", False, False),
        ("modelio.wire.messages", True, False),
        ("modelio.wire.window", True, False),
    ]


def test_every_module_has_a_room():
    known = {name for row in ROOMS for name in row}
    assert {room(name) for name, _ in modules()} <= known


def test_a_module_imports_only_from_its_left():
    """Inside functions too. What only a type checker sees is exempt: api names the classes of what it returns."""
    wrong = [
        found
        for found in OWN
        if not found.typing
        and room(found.importer) != room(found.imported)
        and place(found.importer) <= place(found.imported)
        and (room(found.importer), room(found.imported)) not in KIN
        and not (found.deferred and (room(found.importer), room(found.imported)) in WHEN_CALLED)
    ]
    assert not wrong, listed(wrong)


def test_types_come_from_the_left_as_well_or_from_one_step_on():
    """A type may look to the right only for what the module itself returns, through a deferred import of the same."""
    ahead = [found for found in OWN if found.typing and place(found.importer) < place(found.imported)]
    deferred = {(found.importer, found.imported) for found in OWN if found.deferred}
    wrong = [found for found in ahead if (found.importer, found.imported) not in deferred]
    assert not wrong, listed(wrong)


def test_formats_do_not_import_each_other():
    names = {path.stem for path in (PACKAGE / "formats").glob("*.py")} - {"__init__"}
    wrong = [
        found
        for found in OWN
        if found.importer.startswith("formats.")
        and found.imported.startswith("formats.")
        and not found.imported.split(".")[1].startswith("_")
        and found.imported.split(".")[1] in names
    ]
    assert not wrong, listed(wrong)


def test_layers_and_graph_do_not_know_each_other():
    wrong = [found for found in OWN if {room(found.importer), room(found.imported)} == {"layers", "graph"}]
    assert not wrong, listed(wrong)


def test_the_runtime_is_imported_inside_functions():
    wrong = [
        found
        for found in OWN
        if room(found.imported) == "runtime"
        and room(found.importer) != "runtime"
        and not (found.deferred or found.typing)
    ]
    assert not wrong, listed(wrong)


@pytest.mark.parametrize("package", KEPT_IN)
def test_packages_are_kept_in_one_place(package):
    wrong = [
        found
        for found in ALL
        if f"{found.imported}.".startswith(f"{package}.")
        and found.importer not in KEPT_IN[package]
        and not found.typing
    ]
    assert not wrong, listed(wrong)


def test_frameworks_are_imported_inside_functions():
    wrong = [
        found
        for found in ALL
        if found.imported.split(".")[0] in ("tensorflow", "keras", "tf_keras") and not (found.deferred or found.typing)
    ]
    assert not wrong, listed(wrong)


def test_frameworks_are_not_imported_by_name_either():
    """``importlib.import_module("tensorflow")`` is an import too."""
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in modules()
        if room(name) != "runtime"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__"))
        for argument in ast.walk(node)
        if isinstance(argument, ast.Constant)
        and str(argument.value).split(".")[0] in ("tensorflow", "keras", "tf_keras")
    ]
    assert not wrong, wrong


def test_only_the_command_line_prints_and_exits():
    wrong = [
        f"modelio/{name.replace('.', '/')}.py:{node.lineno}: {ast.unparse(node.func)}"
        for name, tree in modules()
        if room(name) not in ("cli", "__main__")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func)
        in ("print", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write", "sys.stderr.write", "breakpoint")
    ]
    wrong += [
        f"modelio/{name.replace('.', '/')}.py:{node.lineno}: raises SystemExit"
        for name, tree in modules()
        if room(name) not in ("cli", "__main__")
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc is not None and "SystemExit" in ast.unparse(node.exc)
    ]
    assert not wrong, "\n".join(wrong)


def _only_buffers(found: str) -> bool:
    """model.py says what its tensors are to pickle, as buffers; whether to pickle is the caller's business."""
    lines = (PACKAGE / "model.py").read_text(encoding="utf-8").splitlines()
    return found.startswith("modelio/model.py:") and "from pickle import PickleBuffer" in lines


def test_nothing_is_unpickled_or_run():
    """Files are data: none of these has a place in a reader."""
    forbidden = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code"}
    wrong = [str(found) for found in ALL if found.imported.split(".")[0] in forbidden]
    wrong = [one for one in wrong if not _only_buffers(one)]
    wrong += [
        f"modelio/{name.replace('.', '/')}.py:{node.lineno}: {ast.unparse(node.func)}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("eval", "exec", "compile", "os.system", "os.popen")
    ]
    wrong += [
        f"modelio/{name.replace('.', '/')}.py:{node.value.lineno}: allow_pickle"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False"
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_shares_a_name_with_an_exported_function():
    functions = {name for name in modelio.__all__ if inspect.isfunction(getattr(modelio, name))}
    names = {name.split(".")[-1] for name, _ in modules() if name.count(".") == 0}
    assert functions
    assert functions & names == {"formats"}, "the folder of formats, of which the next test has care"


def test_a_name_stands_for_itself():
    """After every module was imported, ``modelio.formats`` is still the function."""
    for name, _ in modules():
        if room(name) not in ("runtime", "__main__", "testing"):
            importlib.import_module(f"modelio.{name}".removesuffix(".__init__"))
    for name in modelio.__all__:
        assert not inspect.ismodule(getattr(modelio, name)), name


def loaded(python, statement: str) -> set[str]:
    """The modules that a statement loads in a process of its own, beyond what numpy does."""
    script = f"""
    import sys, json
    import numpy
    before = set(sys.modules)
    {statement}
    print(json.dumps(sorted(set(sys.modules) - before)))
    """
    return set(json.loads(python(script)))


def heavy(names: set[str]) -> set[str]:
    return {package for package in HEAVY for name in names if f"{name}.".startswith(f"{package}.")}


def test_import_is_light(python):
    names = loaded(python, "import modelio")
    assert not heavy(names)
    assert not {name for name in names if name.startswith(("modelio.formats.", "modelio.wire.hdf5", "modelio.layers"))}
    strangers = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"modelio", "numpy"}
    assert not strangers


def test_importing_the_formats_is_light(python):
    """What ``modelio formats`` needs, and what every ``identify`` starts with."""
    assert not heavy(loaded(python, "import modelio; modelio.formats()")) & {"tensorflow", "keras", "tf_keras", "h5py"}


@pytest.mark.parametrize(
    ("file", "not_needed"),
    [
        ("keras-2.0.5_tf-1.2.1/cnn/model.h5", {"google.protobuf"}),
        ("keras-2.0.5_tf-1.2.1/cnn/architecture.json", {"h5py", "google.protobuf"}),
        ("keras-2.0.5_tf-1.2.1/cnn/frozen.pb", {"h5py"}),
        ("keras-2.0.5_tf-1.2.1/cnn/saved_model_tf1", {"h5py"}),
    ],
)
def test_identify_loads_only_what_the_file_needs(file, not_needed, python):
    path = Path("tests/data") / file
    names = loaded(python, f"import modelio; modelio.identify({str(path)!r})")
    assert not heavy(names) & {"tensorflow", "keras", "tf_keras", "click", "rich"}
    assert not heavy(names) & not_needed


@pytest.mark.parametrize("to", ["saved-model", "frozen-graph", "keras-json", "keras-h5"])
def test_a_conversion_needs_no_framework(to, python):
    """TensorFlow may be installed; it is not asked."""
    script = f"""
    import warnings
    warnings.simplefilter("ignore")
    import modelio
    modelio.convert("tests/data/keras-2.0.5_tf-1.2.1/cnn/model.h5", to={to!r})
    """
    names = loaded(python, "; ".join(line.strip() for line in script.strip().splitlines()))
    assert not heavy(names) & {"tensorflow", "keras", "tf_keras", "click"}
