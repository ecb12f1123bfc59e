# Needs make, python3 >= 3.11 and pip's package index; everything else goes into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

# An outer PYTHONPATH or virtual environment must not decide what is tested.
unexport PYTHONPATH
unexport VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help venv demo test test-all fuzz bench lint format wheel clean
.DEFAULT_GOAL := help

help: ## Say what there is to make
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(STAMP) ## Set up .venv: dependencies, tools, the package (editable)

# Made anew when the dependencies change. An existing .venv is kept and brought up to date; one
# whose interpreter is gone, too old or without pip is replaced.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; PYTHON=... names it") if sys.version_info < (3, 11) else 0'
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	@touch $@

demo: $(STAMP) ## Classify the handwritten digits
	$(BIN)/tracejit run kernels/digits.ns

test: $(STAMP) ## Run the tests, but for the slow ones
	$(BIN)/python -m pytest -q -m 'not slow' $(ARGS)

test-all: $(STAMP) ## Run all tests
	$(BIN)/python -m pytest -q $(ARGS)

FUZZ ?= 10000
fuzz: $(STAMP) ## Compare FUZZ random programs with the interpreter
	TRACEJIT_FUZZ_EXAMPLES=$(FUZZ) $(BIN)/python -m pytest -q tests/test_fuzz.py $(ARGS)

bench: $(STAMP) ## Run the microbenchmarks
	$(BIN)/python -m benchmarks $(ARGS)

lint: $(STAMP) ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pyright --pythonpath $(BIN)/python

format: $(STAMP) ## Format the code and sort the imports
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

wheel: $(STAMP) ## Build dist/*.whl
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove what was built and cached, but for .venv
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -print | xargs rm -rf
