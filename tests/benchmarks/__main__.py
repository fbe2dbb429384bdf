"""`make bench`: modelio side by side with Keras, TensorFlow and saved_model_cli, each as a whole process, in one run.

ResNet50 is made on the spot by Keras (weights=None, then random). Jobs of the two sides alternate, so that a noisy
machine is noisy for both; reported are medians of wall time and of peak memory, and their ratios. Every budget of
docs/house.md stands beside the number that it limits; the exit code says whether all were met.

    python -m tests.benchmarks [--repeats 5] [--folder DIR] [--json FILE] [--applications [NAME ...]]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}

MAKE = """
import keras, numpy as np, sys
model = keras.applications.ResNet50(weights=None)
random = np.random.default_rng(0)
model.set_weights([random.normal(0.5, 0.1, w.shape).astype("float32") for w in model.get_weights()])
model.save(sys.argv[1])
model.export(sys.argv[2], verbose=False)
"""

KERAS_EXPORT = """
import keras, sys
keras.models.load_model(sys.argv[1], compile=False).export(sys.argv[2], verbose=False)
"""

KERAS_FREEZE = """
import keras, sys, tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
model = keras.models.load_model(sys.argv[1], compile=False)
call = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec([None, 224, 224, 3]))
open(sys.argv[2], "wb").write(convert_variables_to_constants_v2(call).graph.as_graph_def().SerializeToString())
"""

KERAS_SAVE = """
import keras, sys
keras.models.load_model(sys.argv[1], compile=False).save(sys.argv[2])
"""

TENSORFLOW_FREEZE = """
import sys, tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
loaded = tf.saved_model.load(sys.argv[1])  # the variables live as long as this
call = loaded.signatures["serving_default"]
open(sys.argv[2], "wb").write(convert_variables_to_constants_v2(call).graph.as_graph_def().SerializeToString())
"""

MAKE_APPLICATION = """
import keras, sys
getattr(keras.applications, sys.argv[1])(weights=None).save(sys.argv[2])
"""

LIST_APPLICATIONS = "import keras; print(*(name for name in dir(keras.applications) if name[0].isupper()))"

COPY = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"

MODELIO = [sys.executable, "-m", "modelio"]


@dataclass
class Measured:
    """Medians of one job: seconds of wall time, megabytes of peak resident memory."""

    seconds: float
    megabytes: float


@dataclass
class Row:
    """One comparison and its budgets; a budget of None is not limited."""

    work: str
    ours: Measured
    theirs: Measured | None
    other: str = ""
    most_seconds: float | None = None
    most_megabytes: float | None = None
    least_faster: float | None = None
    least_leaner: float | None = None

    @property
    def faster(self) -> float:
        return self.theirs.seconds / self.ours.seconds if self.theirs else float("nan")

    @property
    def leaner(self) -> float:
        return self.theirs.megabytes / self.ours.megabytes if self.theirs else float("nan")

    @property
    def missed(self) -> list[str]:
        checks = (
            (self.most_seconds, self.ours.seconds, "s", 1),
            (self.most_megabytes, self.ours.megabytes, "MB", 1),
            (self.least_faster, self.faster, "times faster", -1),
            (self.least_leaner, self.leaner, "times leaner", -1),
        )
        return [
            f"{value:.2f} {unit}, budget {limit}"
            for limit, value, unit, sign in checks
            if limit and sign * value > sign * limit
        ]


def once(command: list[str]) -> Measured:
    """Run a command to its end; time and peak memory of that process alone (wait4)."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=QUIET, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {process.stderr.read().decode()[-2000:]}")
    process.stderr.close()
    return Measured(seconds, usage.ru_maxrss / 1024)


def compare(
    ours: list[str], theirs: list[str] | None, repeats: int, clean: Path | None = None
) -> tuple[Measured, Measured | None]:
    """Both commands in turn, `repeats` times, each with its target removed before."""
    runs: dict[str, list[Measured]] = {"ours": [], "theirs": []}
    for _ in range(repeats):
        for name, command in (("ours", ours), ("theirs", theirs)):
            if command is None:
                continue
            if clean is not None:
                shutil.rmtree(clean, ignore_errors=True)
                clean.unlink(missing_ok=True)
            runs[name].append(once(command))
    return tuple(  # type: ignore[return-value]
        Measured(statistics.median(m.seconds for m in found), statistics.median(m.megabytes for m in found))
        if found
        else None
        for found in runs.values()
    )


def rows(folder: Path, repeats: int) -> list[Row]:
    """Every comparison, in the order of the budgets' table."""
    python = [sys.executable, "-c"]
    h5, export = str(folder / "resnet50.h5"), str(folder / "keras_export")
    if not os.path.exists(export):
        subprocess.run([*python, MAKE, h5, export], env=QUIET, check=True, stdout=subprocess.DEVNULL)
    out = folder / "out"
    frozen, ours = str(folder / "frozen.pb"), str(folder / "ours")
    for target, name in ((frozen, "frozen-graph"), (ours, "saved-model")):
        subprocess.run(
            [*MODELIO, "convert", h5, target, "--to", name, "--overwrite"], check=True, stdout=subprocess.DEVNULL
        )
    show = [
        *python,
        "import sys; from tensorflow.python.tools.saved_model_cli import main; sys.exit(main())",
        "show",
        "--all",
        "--dir",
    ]
    table = []

    def row(work: str, command: list[str], theirs: list[str] | None, other: str, **budgets: float) -> None:
        print(f"  {work} ...", file=sys.stderr, flush=True)
        mine, yours = compare(command, theirs, repeats, out)
        table.append(Row(work, mine, yours, other, **budgets))

    exact = {"least_faster": 25, "least_leaner": 10}
    target = str(out)
    row(
        "ResNet50 .h5 -> SavedModel",
        [*MODELIO, "convert", h5, target, "--to", "saved-model"],
        [*python, KERAS_EXPORT, h5, target],
        "Keras export",
        **exact,
    )
    row(
        "ResNet50 .h5 -> frozen",
        [*MODELIO, "convert", h5, target, "--to", "frozen-graph"],
        [*python, KERAS_FREEZE, h5, target],
        "Keras + convert_variables_to_constants_v2",
        **exact,
    )
    keras_file = str(folder / "resnet50.keras")
    subprocess.run([*MODELIO, "convert", h5, keras_file, "--overwrite"], check=True, stdout=subprocess.DEVNULL)
    for start, end, suffix in ((h5, ".h5 -> .keras", ".keras"), (keras_file, ".keras -> .h5", ".h5")):
        target = str(out.with_suffix(suffix))
        row(
            f"ResNet50 {end}",
            [*MODELIO, "convert", start, target, "--overwrite"],
            [*python, KERAS_SAVE, start, target],
            "keras load_model, save",
            **exact,
        )
    target = str(out)
    row(
        "ResNet50 SavedModel -> frozen",
        [*MODELIO, "convert", export, target, "--to", "frozen-graph"],
        [*python, TENSORFLOW_FREEZE, export, target],
        "convert_variables_to_constants_v2",
        least_faster=20,
        least_leaner=10,
    )
    limits = {"most_seconds": 0.3, "most_megabytes": 80}
    row(
        "inspect SavedModel (Keras' export)",
        [*MODELIO, "inspect", export],
        [*show, export],
        "saved_model_cli show",
        **limits,
    )
    row("inspect SavedModel (ours)", [*MODELIO, "inspect", ours], [*show, ours], "saved_model_cli show", **limits)
    row("inspect .h5", [*MODELIO, "inspect", h5], None, "", **limits)
    row("inspect frozen", [*MODELIO, "inspect", frozen], None, "", **limits)
    row(
        "ResNet50 .h5 -> SavedModel",
        [*MODELIO, "convert", h5, target, "--to", "saved-model"],
        [*python, COPY, h5, target],
        "copying the file",
    )
    row("import modelio (beside numpy)", [*python, "import numpy, modelio"], [*python, "import numpy"], "import numpy")
    return table


def applications(folder: Path, repeats: int, names: list[str]) -> list[Row]:
    """Architectures of Keras, all where none is named, from `.keras` to a SavedModel, beside Keras' own export.

    Keras cannot load the `.h5` that it writes of MobileNetV3, whose operations are called on numbers.
    """
    if not names:
        command = [sys.executable, "-c", LIST_APPLICATIONS]
        names = subprocess.run(command, env=QUIET, check=True, capture_output=True, text=True).stdout.split()
    table = []
    for name in names:
        print(f"  {name} ...", file=sys.stderr, flush=True)
        saved, out = folder / f"{name}.keras", folder / "out"
        subprocess.run(
            [sys.executable, "-c", MAKE_APPLICATION, name, saved], env=QUIET, check=True, capture_output=True
        )
        mine, yours = compare(
            [*MODELIO, "convert", str(saved), str(out), "--to", "saved-model"],
            [sys.executable, "-c", KERAS_EXPORT, str(saved), str(out)],
            repeats,
            out,
        )
        table.append(Row(f"{name} .keras -> SavedModel", mine, yours, "Keras export", least_faster=20))
        saved.unlink()
    return table


def in_process(folder: Path, repeats: int) -> list[tuple[str, float, float]]:
    """The same conversions inside one process: median milliseconds of ours and of Keras'."""
    script = f"""
import json, statistics, sys, time, shutil, os
repeats = {repeats}
def median(work):
    times = []
    for _ in range(repeats):
        shutil.rmtree("{folder}/out", ignore_errors=True)
        start = time.perf_counter(); work(); times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)
import modelio
modelio.convert("{folder}/resnet50.h5", to="saved-model")
ours = {{
    "h5 -> SavedModel": lambda: modelio.convert("{folder}/resnet50.h5", "{folder}/out", to="saved-model"),
    "h5 -> SavedModel, bytes": lambda: modelio.convert("{folder}/resnet50.h5", to="saved-model").data,
    "inspect SavedModel": lambda: str(modelio.inspect("{folder}/keras_export")),
}}
mine = {{name: median(work) for name, work in ours.items()}}
import keras, tensorflow as tf
theirs = {{
    "h5 -> SavedModel": lambda: keras.models.load_model("{folder}/resnet50.h5", compile=False).export("{folder}/out", verbose=False),
    "inspect SavedModel": lambda: tf.saved_model.load("{folder}/keras_export").signatures,
}}
yours = {{name: median(work) for name, work in theirs.items()}}
print(json.dumps([[name, mine[name], yours.get(name)] for name in mine]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=QUIET, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print the table, say what missed its budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the models here; left out, a temporary folder")
    parser.add_argument("--applications", nargs="*", metavar="NAME", help="models of keras.applications too")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        table = rows(folder, arguments.repeats)
        if arguments.applications is not None:
            table += applications(folder, arguments.repeats, arguments.applications)
        inside = in_process(folder, arguments.repeats)
    print(f"{'whole process':<36}{'s':>7}{'MB':>7}   {'beside':<42}{'s':>7}{'MB':>7}{'faster':>8}{'leaner':>8}")
    for row in table:
        line = f"{row.work:<36}{row.ours.seconds:>7.2f}{row.ours.megabytes:>7.0f}"
        if row.theirs:
            line += f"   {row.other:<42}{row.theirs.seconds:>7.2f}{row.theirs.megabytes:>7.0f}{row.faster:>7.1f}x{row.leaner:>7.1f}x"
        print(line)
        for miss in row.missed:
            print(f"    MISSED: {miss}")
    print(f"\n{'in process':<36}{'ms':>9}{'theirs, ms':>14}")
    for name, mine, yours in inside:
        print(f"{name:<36}{mine:>9.1f}" + (f"{yours:>14.1f}{yours / mine:>9.1f}x" if yours else ""))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"whole_process": [asdict(row) for row in table], "in_process": inside}, indent=1)
        )
    sys.exit(any(row.missed for row in table))


if __name__ == "__main__":
    main()
