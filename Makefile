# Two commands for everybody: `make serve` and `make test`. Both make .venv when it is missing, and are quick again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Dependency groups with an environment each: their packages clash with the tests' own, or with each other.
CLIENTS := clients older-clients litellm infinity
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help serve test lint format bench peers clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

serve: $(VENV)/.serve ## Start the server on port 7997 with the default model (ARGS="--port 8000" for options)
	@exec $(BIN)/lemni serve $(ARGS)

test: $(VENV)/.test $(CLIENTS:%=$(VENV)/clients/%/.installed) ## Run every test (ARGS="-k name" for options)
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.lint ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.lint ## Put the code into its usual form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test ## Run the benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

peers: $(VENV)/.test ## Install the engines that the benchmarks put beside Lemni (several GB)
	$(BIN)/python -m benchmarks.peers install $(ARGS)

clean: ## Remove the environment and all caches in this folder
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Lemni needs Python 3.10 or later; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@# A half-made environment would be taken for a whole one the next time.
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1' || { rm -rf $(VENV); exit 1; }

$(VENV)/.serve: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

# All groups are resolved at once, so that torch keeps the pinned version. Some pins have no release for Python 3.10.
$(VENV)/.test: pyproject.toml | $(BIN)/python
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "the tests need Python 3.11 or later; set PYTHON=...")'
	$(BIN)/pip install --quiet --editable '.[torch,onnx,parquet,images,audio,grpc,disk-cache,redis]' --group test --group bench
	@touch $@ $(VENV)/.serve

# Only what a test imports gets compiled, by that import.
$(VENV)/clients/%/.installed: pyproject.toml | $(BIN)/python
	$(PYTHON) -m venv --without-pip $(@D)
	$(BIN)/pip --python $(@D) install --quiet --no-compile --group $*
	@touch $@

$(VENV)/.lint: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable . --group lint
	@touch $@ $(VENV)/.serve
