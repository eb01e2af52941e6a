# Two commands to start with: `make train` and `make test`. `make` alone lists all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
# What pip would do on one core. Templates among the packages are no Python that compiles.
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
export NO_ALBUMENTATIONS_UPDATE := 1
# Some machines set it. Then each of a thousand commands that the tests start would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install dev train reproduce test fuzz mutations check lint bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/installed ## make .venv with what a run needs, pinned
dev: $(VENV)/installed-dev ## the same and what tests and checks need

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "solder_vae needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a minute or two the first time)"
	$(PIP) --editable '.[backbone]'
	@$(COMPILE)
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) --editable '.[dev]'
	@$(COMPILE)
	@touch $(VENV)/installed $@

train: install ## train beta-VAE (beta=3) on the embedded data set and print the result
	$(BIN)/python -m solder_vae.train

reproduce: install ## the paper's tables, figures and claims, small, 27 minutes on two idle cores: results/report.html
	$(BIN)/python -m solder_vae.reproduce

# Slow tests: one more side by side than there are cores, since many wait for servers that never answer; 4 at most: each
# needs some GB. Fast ones: one a core. Each has one thread.
WORKERS := $(shell $(PYTHON) -c 'import os; print(min((os.cpu_count() or 1) + 1, 4))')
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist loadgroup --numprocesses

test: dev ## the whole test suite with its coverage, 10 to 16 minutes on two idle cores
	$(PYTEST) $(WORKERS) --durations 15 --cov --cov-report term

# A seed of its own each time, printed at the start; SOLDER_VAE_FUZZ_SEED=N repeats one.
fuzz: dev ## all cases of what make test tries a share of: damaged files, hostile options
	SOLDER_VAE_FUZZ=1 SOLDER_VAE_FUZZ_SEED=$${SOLDER_VAE_FUZZ_SEED:-$$(date +%s)} $(PYTEST) $(WORKERS) --verbose \
	  tests/project/test_hostile.py

mutations: dev ## break what matters in one place at a time: a test must notice each
	OMP_NUM_THREADS=1 $(BIN)/python tests/support/mutations.py

check: lint ## lint, types and the fast tests, a minute on two idle cores
	HYPOTHESIS_PROFILE=few_examples $(PYTEST) logical -m "not slow"

lint: dev ## lint and types alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: dev ## compare speed with the network as published; 15 minutes, on an idle machine
	$(BIN)/python -m benchmarks.bench
	$(BIN)/python -m benchmarks.scaling

clean: ## remove the environment and caches, not the runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* build dist
