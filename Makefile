# Needs make, python3 >= 3.11 and pip's package index; everything else goes into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TEST   := $(VENV)/.with-test
LINT   := $(VENV)/.with-lint

# An outer PYTHONPATH or virtual environment must not decide what is tested.
unexport PYTHONPATH
unexport VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help venv demo test test-all test-stress fuzz bench bench-runtime lint format wheel clean
.DEFAULT_GOAL := help

help: ## Say what there is to make
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

venv: $(READY) $(TEST) $(LINT) ## Set up .venv for development: the package (editable), all tools

# Made anew when pyproject.toml changes. An existing .venv is kept and brought up to date; one
# whose interpreter is gone, too old or without pip is replaced. Some systems ship venv without
# ensurepip: there the outer pip puts pip into the new environment.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; PYTHON=... names it" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(VENV) (some minutes at the first time)"
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    $(PYTHON) -m venv --clear $(VENV) 2>/dev/null || { \
	    $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	    $(PYTHON) -m pip --quiet --python $(BIN)/python install pip; }
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

# The extra of that name, on top.
$(VENV)/.with-%: $(READY)
	@$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

demo: $(READY) ## Classify the handwritten digits
	$(BIN)/tracejit run kernels/digits.ns

test: $(TEST) ## Run the tests, but for the slow ones
	$(BIN)/python -m pytest -q -m 'not slow' $(ARGS)

test-all: $(TEST) ## Run all tests
	$(BIN)/python -m pytest -q $(ARGS)

# Programs of every kind, with every third native call sent to the Python path, all memory that is
# given out or given back filled with NaN, and every expression compiled at once.
# `EVERY=1` sends them all, `EVERY=2` every second one.
EVERY ?= 3
STRESSED := fuzz jit jit_in_place jit_refusals tensor views schedule regressions neuralscript_kernels
test-stress: $(TEST) ## Run some tests under stress
	TRACEJIT_STRESS_DEOPT=$(EVERY) TRACEJIT_STRESS_POISON=1 TRACEJIT_STRESS_COMPILE=1 \
	    $(BIN)/python -m pytest -q -m 'not slow' \
	    $(STRESSED:%=tests/test_%.py) $(ARGS)

fuzz: $(TEST) ## Run the random programs of the tests for longer
	$(BIN)/python -m pytest -q -k fuzz --hypothesis-profile=fuzz $(ARGS)

bench: $(READY) ## Run the microbenchmarks
	$(BIN)/python -m benchmarks $(ARGS)

bench-runtime: $(TEST) ## Measure start-up, memory, profiler, tiers, and count faults
	$(BIN)/python -m benchmarks.runtime $(ARGS)

lint: $(TEST) $(LINT) ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pyright --pythonpath $(BIN)/python

format: $(LINT) ## Format the code and sort the imports
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

wheel: $(READY) ## Build dist/*.whl
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove what was built and cached, but for .venv
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -print | xargs rm -rf
