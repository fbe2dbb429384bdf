"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile

import pytest

from tests.corpus import case

HYBRID = case("hybrid_contrib-keras_tf-1.2.1/learning_phase_missing")
CNN = case("keras-2.0.5_tf-1.2.1/cnn")


def modelio(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "modelio", *map(str, arguments)], input=stdin, capture_output=True, check=False
    )


def test_inspect_names_the_trap():
    done = modelio("inspect", HYBRID.path)
    assert done.returncode == 0
    text = done.stdout.decode()
    assert "keras_learning_phase" in text
    assert "--bind learning_phase=false" in text
    assert done.stderr == b""


def test_inspect_json_has_the_schema():
    done = modelio("inspect", HYBRID.path, "--json")
    report = json.loads(done.stdout)
    assert list(report) == [
        "format",
        "level",
        "meta",
        "tags",
        "signatures",
        "weights",
        "layers",
        "functions",
        "operations",
    ]
    assert list(report["signatures"]["serving_default"]) == [
        "method", "inputs", "outputs", "required", "optional", "undeclared", "unneeded",
    ]  # fmt: skip


def test_the_way_out_that_inspect_names_works(tmp_path):
    fixed = tmp_path / "fixed"
    done = modelio("convert", HYBRID.path, fixed, "--to", "saved-model", "--bind", "learning_phase=false")
    assert done.returncode == 0, done.stderr.decode()
    report = json.loads(modelio("inspect", fixed, "--json").stdout)
    assert report["signatures"]["serving_default"]["undeclared"] == []


def test_convert_then_inspect(tmp_path):
    done = modelio("convert", CNN / "model.h5", tmp_path / "export", "--to", "saved-model")
    assert done.returncode == 0, done.stderr.decode()
    assert b"keras-h5 -> lower -> saved-model" in done.stdout
    assert b"optimizer" in done.stderr
    assert json.loads(modelio("inspect", tmp_path / "export", "--json").stdout)["format"] == "saved-model"


def test_standard_streams_carry_models():
    h5 = (CNN / "model.h5").read_bytes()
    done = modelio("convert", "-", "-", "--to", "saved-model", stdin=h5)
    assert done.returncode == 0, done.stderr.decode()
    names = zipfile.ZipFile(io.BytesIO(done.stdout)).namelist()
    assert {"saved_model.pb", "variables/variables.index"} <= set(names)
    assert modelio("identify", "-", stdin=done.stdout).stdout == b"saved-model\n"


def test_convert_does_not_overwrite_unless_told(tmp_path):
    target = tmp_path / "model.pb"
    target.write_bytes(b"precious")
    done = modelio("convert", CNN / "model.h5", target)
    assert done.returncode == 1
    assert b"--overwrite" in done.stderr
    assert target.read_bytes() == b"precious"
    assert modelio("convert", CNN / "model.h5", target, "--overwrite").returncode == 0
    assert modelio("identify", target).stdout == b"frozen-graph\n"


def test_a_directory_that_is_no_model_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    done = modelio("convert", CNN / "model.h5", tmp_path, "--to", "saved-model", "--overwrite")
    assert done.returncode == 1
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["inspect", "nothing.h5"], 1, "nothing.h5: No such file or directory"),
        (["inspect"], 2, "Missing argument"),
        (["inspect", "a", "--nonsense"], 2, "No such option"),
        (["convert", "a", "-"], 2, "--to FORMAT"),
        (["convert", CNN / "model.h5", "x.unknown"], 1, "x.unknown"),
        (["convert", CNN / "model.h5", "x", "--to", "keras-h6"], 1, "no format is called 'keras-h6'"),
        (["convert", CNN / "model.h5", "x", "--to", "saved-model", "--bind", "phase"], 2, "NAME=VALUE"),
        (["convert", CNN / "model.h5", "x", "--to", "saved-model", "-o", "colour=red"], 2, "no option colour"),
        (["identify", CNN / "golden.npz"], 1, "golden.npz"),
        (["frobnicate"], 2, "No such command"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_errors_are_one_line_with_an_exit_code(arguments, code, said, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "modelio", *map(str, arguments)], capture_output=True, cwd=tmp_path, check=False
    )
    assert done.returncode == code
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    if code == 1:
        assert done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_identify_goes_on_after_a_failure(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"\x00\x01\x02")
    done = modelio("identify", tmp_path / "a.h5", CNN / "model.h5")
    assert done.returncode == 1
    assert done.stdout.decode().endswith("model.h5: keras-h5\n")
    assert b"a.h5" in done.stderr


@pytest.mark.parametrize("command", [(), ("inspect",), ("convert",), ("identify",)])
def test_help_shows_examples(command):
    done = modelio(*command, "--help")
    assert done.returncode == 0
    assert b"Examples:" in done.stdout


def test_formats_lists_what_each_can_do():
    rows = {row["name"]: row for row in json.loads(modelio("formats", "--json").stdout)}
    for name in ("keras-h5", "keras-json", "saved-model", "frozen-graph"):
        assert rows[name]["read"]
        assert rows[name]["write"]
        assert name in modelio("formats").stdout.decode()


def test_verify_says_whether_two_models_are_the_same(tmp_path):
    model = CNN / "model.h5"
    assert modelio("convert", model, tmp_path / "frozen.pb", "--verify").returncode == 0
    done = modelio("verify", model, tmp_path / "frozen.pb")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().splitlines()[:2] == ["equal", "  weights   12 equal, bit for bit"]
    done = modelio("verify", model, CNN / "frozen.pb", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["equal"] is False
    assert modelio("verify", "-", "-").returncode == 2
    done = modelio("verify", model, tmp_path / "frozen.pb", "--inputs", tmp_path / "frozen.pb")
    assert done.returncode == 1
    assert b"inputs are an .npz" in done.stderr


def test_a_graph_for_an_older_tensorflow(tmp_path):
    done = modelio("convert", CNN / "model.h5", tmp_path / "frozen.pb", "--target", "tf=1.2")
    assert done.returncode == 0, done.stderr.decode()
    newer = case("extra_tf-2.4.4/multi_signature")
    done = modelio("convert", newer.path, tmp_path / "old", "--to", "saved-model", "--target", "tf=1.2")
    assert done.returncode == 1
    assert b"TensorFlow 1.2 has not the ops of" in done.stderr
    assert modelio("convert", CNN / "model.h5", tmp_path / "x.pb", "--target", "torch=2").returncode == 2


SURGERY = [
    (["--bind", "learning_phase=false", "--outputs", "scores"], ["placeholder", "nodes removed that no output needs"]),
    (["--output_node_names", "net/dense_2/Softmax"], ["nodes removed that no output needs"]),
    (["--rename", "net/=model/", "--rename", "images=x"], ["nodes renamed: net/ to model/, images to x"]),
    (["--rename-key", "images=x"], ["images of the signature serving_default renamed to x"]),
    (["--rename-signature", "serving_default=a"], ["signature serving_default renamed to a"]),
    (
        ["--set-signature", "a(x=images:0, p=net/batch_normalization/keras_learning_phase) -> (y=net/dense_2/Softmax)"],
        ["signature a added"],
    ),
    (["--retag", "serve,more", "--tags", "serve"], ["tagged [more,serve]"]),
    (["--inline", "--thaw"], []),
]


@pytest.mark.parametrize(("options", "said"), SURGERY, ids=lambda value: " ".join(value)[:40])
def test_surgery(options, said, tmp_path):
    done = modelio("convert", HYBRID.path, tmp_path / "export", "--to", "saved-model", *options)
    assert done.returncode == 0, done.stderr.decode()
    for text in said:
        assert text in done.stdout.decode()
    assert modelio("identify", tmp_path / "export").stdout == b"saved-model\n"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--outputs", "score"], 1, "no node and no output of a signature is called 'score'; there is 'scores'"),
        (["--bind", "phase=false"], 1, "no placeholder 'phase' to bind"),
        (["--bind", "images=false"], 1, "at images: a value of shape () does not fit the shape (None, 64)"),
        (["--rename", "nothing=x"], 1, "no node is called 'nothing'"),
        (["--rename", "images=labels"], 1, "there is a node called 'labels' already"),
        (["--rename", "images"], 2, "--rename wants OLD=NEW"),
        (["--set-signature", "a: x -> y"], 2, "--set-signature wants NAME(KEY=TENSOR, ...) -> (KEY=TENSOR, ...)"),
        (["--set-signature", "a(x) -> (y=z)"], 2, "--set-signature wants"),
        (["--set-signature", "a(x=images:0) -> (y=nothing)"], 1, "the graph has no node 'nothing'"),
        (["--remove-signature", "b"], 1, "no signature is called 'b'"),
        (["--tags", "train"], 1, "no MetaGraph is tagged [train]"),
        (["--retag", ","], 1, "without a tag"),
        (["--merge", HYBRID.path], 1, "two MetaGraphs are tagged [serve]"),
    ],
    ids=lambda value: " ".join(map(str, value))[:40] if isinstance(value, list) else None,
)
def test_surgery_that_cannot_be(options, code, said, tmp_path):
    done = modelio("convert", HYBRID.path, tmp_path / "export", "--to", "saved-model", *options)
    assert done.returncode == code
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []
