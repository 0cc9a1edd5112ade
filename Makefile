# make run    serve the shipped family on http://127.0.0.1:8080      make bench    run every script in benchmarks/
# make test   run the tests                                         make weights  train the shipped weights: DATA=dir
# make lint   ruff and mypy                                         make clean    remove environments and caches
# make bench-peers   install the engines that benchmarks compare with, each into its own environment
#
# ARGS is handed on: make run ARGS="--port 9000", make test ARGS=tests/cli. make test ARGS=--slow runs the slow tests too.

PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(wildcard src/kilonova/engine/native/csrc/*)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: run test lint bench bench-peers weights clean

run: $(VENV)/.run-installed
	@$(BIN)/kilonova serve --host 127.0.0.1 --port 8080 $(ARGS)

test: $(VENV)/.dev-installed
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(VENV)/.dev-installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(VENV)/.dev-installed
	@set -e; for script in benchmarks/*.py; do echo "$$script"; $(BIN)/python "$$script" $(ARGS); done

# PEERS names some of them: make bench-peers PEERS="llamacpp vllm"
bench-peers: | $(BIN)/pip
	@$(BIN)/python benchmarks/peers/install.py $(PEERS)

weights: $(VENV)/.dev-installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" DATA="$(DATA)" scripts/weights.sh

clean:
	rm -rf $(VENV) benchmarks/peers/.venvs build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# PyTorch goes first and by its exact version, so that nothing later in the resolution can ask for another one.
$(VENV)/.torch-installed: constraints.txt | $(BIN)/pip
	@echo "Installing PyTorch (once; it is large)"
	@$(INSTALL) torch==2.13.0
	@touch $@

$(VENV)/.run-installed: pyproject.toml constraints.txt $(KERNELS) $(VENV)/.torch-installed
	@echo "Installing Kilonova"
	@$(INSTALL) -e '.[clients]'
	@touch $@

$(VENV)/.dev-installed: pyproject.toml constraints.txt $(KERNELS) $(VENV)/.torch-installed
	@echo "Installing Kilonova with its tests' tools"
	@$(INSTALL) -e '.[clients,data,dev,eval]'
	@touch $(VENV)/.run-installed $@
