# Every target sets itself up: with Python 3.10 or later and make, on a fresh machine.
#
#   make demo     the package in a virtual environment, and what it does, in four steps
#   make test     all that a change must pass: lint, types, tests, doctests
#   make slow     tests that take minutes, or another version of TensorFlow
#   make bench    times and memory, side by side with Keras and TensorFlow
#   make docs     the documentation, as a web site in build/docs
#   make lint     ruff and mypy alone
#   make clean    remove all that these made
#
# PYTHON=python3.12 chooses the interpreter, VENV=/elsewhere the environment's place, JOBS=4 the tests run at once,
# ARGS='-k identify' goes to pytest.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test slow bench docs lint clean

help:
	@sed -n '/^#   make/s/^#   //p' $(firstword $(MAKEFILE_LIST))

# ---------------------------------------------------------------- what is installed: a stamp for each, so a second run is quick

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "modelio needs Python 3.10 or later; $(PYTHON) is `$(PYTHON) --version 2>&1`: make PYTHON=python3.12 ..."; exit 1; }
	@echo "== a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "no virtual environment can be made: on Debian, apt install python3-venv"; exit 1; }

$(VENV)/.package: pyproject.toml | $(BIN)/python
	@echo "== modelio and what it needs"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.lint: pyproject.toml $(VENV)/.package
	@echo "== ruff, mypy, pytest"
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.lint
	@echo "== TensorFlow, Keras, OpenVINO and OpenCV, which must load what modelio writes (a few minutes, 2 GB)"
	@$(PIP) --editable '.[test,clients]'
	@$(PIP) --no-deps 'tf-keras>=2.16'
	@touch $@

$(VENV)/.docs: pyproject.toml $(VENV)/.package
	@echo "== mkdocs"
	@$(PIP) --editable '.[docs]'
	@touch $@

# -------------------------------------------------------------------------------------------------------------- what is run

EXPORT := tests/data/hybrid_contrib-keras_tf-1.2.1/learning_phase_missing
DIGITS := tests/data/keras-2.0.5_tf-1.2.1/cnn/model.h5
DEMO := build/demo/digits/1

define modelio
	@printf '\n$$ modelio %s\n' "$(1)"
	@$(BIN)/modelio $(1)
endef

demo: $(VENV)/.package
	@printf '\n1. A SavedModel of summer 2017, TensorFlow with Keras layers. What must be fed to it?\n'
	$(call modelio,inspect $(EXPORT))
	@printf '\n2. A network that reads digits, as Keras 2.0.5 wrote it. For a server of today:\n'
	$(call modelio,convert $(DIGITS) $(DEMO) --to saved-model --overwrite)
	@printf '\n3. What came of it:\n'
	$(call modelio,inspect $(DEMO))
	@printf '\n4. A digit:\n\n$$ python examples/run_digit.py $(DEMO)\n'
	@$(BIN)/python examples/run_digit.py $(DEMO)

test: lint $(VENV)/.test
	@echo "== tests"
	@$(PYTEST) -m 'not slow' $(ARGS)

slow: $(VENV)/.test
	@echo "== slow tests"
	@MODELIO_TENSORFLOW1="$${MODELIO_TENSORFLOW1:-`bash tools/tensorflow1.sh $(VENV)-tensorflow1`}" \
	    $(PYTEST) -m slow $(ARGS)

lint: $(VENV)/.lint
	@echo "== ruff"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@echo "== mypy"
	@$(BIN)/mypy

bench: $(VENV)/.test
	@$(BIN)/python -m tests.benchmarks $(ARGS)

docs: $(VENV)/.docs
	@$(BIN)/mkdocs build --strict --quiet
	@echo "build/docs/index.html"

clean:
	rm -rf build dist modelio.egg-info .mypy_cache .ruff_cache .hypothesis $(VENV) $(VENV)-tensorflow1
	find modelio tests tools examples -name __pycache__ -type d -exec rm -rf {} +
