"""What all tests share: quiet frameworks, and fixtures for what is slow to start."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

# Before anything imports TensorFlow: no start-up banner, no search for a GPU, the legacy Keras only where a test asks.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def tensorflow() -> ModuleType:
    """TensorFlow, or a skipped test where it is not installed."""
    return _framework("tensorflow")


@pytest.fixture(scope="session")
def keras(tensorflow: ModuleType) -> ModuleType:
    """Keras 3 on TensorFlow, or a skipped test."""
    return _framework("keras")


@pytest.fixture(scope="session")
def tf_keras(tensorflow: ModuleType) -> ModuleType:
    """Keras 2 as it lives on, or a skipped test."""
    return _framework("tf_keras")


def _framework(name: str) -> ModuleType:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, at import
        pytest.importorskip(name)
        return importlib.import_module(name)


@pytest.fixture(scope="session")
def python() -> Callable[..., str]:
    """``python(script, *arguments)``: what a script prints in a process of its own, which has imported nothing."""

    def run(script: str, *arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def tensorflow1() -> str:
    """The path of a Python that has TensorFlow 1.15, which ``make slow`` finds or makes; else a skipped test."""
    path = os.environ.get("MODELIO_TENSORFLOW1")
    if not path:
        pytest.skip("MODELIO_TENSORFLOW1 names no Python with TensorFlow 1.15")
    return path
