# Everything a person types. `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin
# two test files at a time; the fixed seed keeps the order of parametrized tests the same in both processes
PYTEST := PYTHONHASHSEED=0 $(BIN)/python -m pytest -n 2 --dist loadfile
SHELL := bash
export UV_SYSTEM_CERTS ?= true

.PHONY: help setup demo smoke projects test test-all lint docs lock bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/ready ## make .venv with exactly the locked packages

.venv/ready: requirements-dev.lock setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null || echo "LightGBM needs libgomp: apt-get install libgomp1"
	@echo "setting up .venv …"; started=$$(date +%s); set -e; \
	test -x $(BIN)/python || $(PYTHON) -m venv .venv; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock; \
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements-dev.lock; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .; \
	touch .venv/ready; echo "set up in $$(( $$(date +%s) - started )) s"

demo: setup ## embedded S3, a table, the pipeline and the service, until Ctrl-C
	@$(BIN)/podium demo $(ARGS)

smoke: setup ## the same headless, every way in called, a model swapped under load
	@$(BIN)/podium smoke $(ARGS)

projects: setup ## the five systems, each from its data to served answers
	@$(BIN)/podium accept $(ARGS)

project-%: setup
	@$(BIN)/podium accept $* $(ARGS)

test: setup ## the tests of a few minutes
	$(PYTEST) -m "not slow" $(ARGS)
	@echo 'left out: the tests marked slow ("deselected"); `make test-all` runs all'

test-all: setup ## all tests
	$(PYTEST) $(ARGS)

lint: setup ## style, types, Dockerfiles, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile.train Dockerfile.serve
	$(BIN)/codespell

docs: setup ## regenerate docs/reference from the code and build the website in build/site
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet $(ARGS)

lock: setup ## resolve the dependencies again (ARGS=--upgrade for newer ones)
	.ci/lock $(ARGS)

bench: setup ## measure what the README claims
	$(BIN)/python -m benchmarks.serving $(ARGS)

clean: ## remove .venv and the demo's data
	rm -rf .venv .podium build dist *.egg-info
