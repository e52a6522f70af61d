# Everything a newcomer needs: `make demo`, then `make test`. Each target makes its own .venv when there is none.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help demo test check format bench peers bench-again docs build clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "clipdeploy needs Python 3.10 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing clipdeploy with PyTorch into $(VENV): a few minutes and several GB, once"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[export,cpu,openvino,parquet,dev]'
	@touch $@

demo: $(READY)  ## export our own small CLIP, verify it, classify pictures, all offline
	$(BIN)/clipdeploy demo -o out/demo

test: $(READY)  ## all tests
	$(BIN)/python -m pytest

check: $(READY)  ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What stands first on docs/benchmarks.md, but for the peers. bench/README.md has every command and how long it takes.
MEASURED := ceiling runtime latency graphs folder frames curves

bench: $(READY)  ## this machine: its ceiling, the encoders beside bare engines and PyTorch, a folder, frames, curves (30 min)
	for name in $(MEASURED); do $(BIN)/python -m bench.$$name || exit 1; done

bench-again: $(READY)  ## the same a second time: how much the figures move
	for name in $(MEASURED); do $(BIN)/python -m bench.again $$name || exit 1; done

peers: $(READY)  ## clipdeploy beside every peer that installs here, each in an environment of its own (30 min, 8 GB)
	$(BIN)/python -m bench.peers --again

docs: $(READY)  ## write docs/cli.md anew from the help texts
	$(BIN)/python -m clipdeploy.cli.docs

build: $(READY)  ## wheel and source archive into dist/
	$(BIN)/python -m build

clean:  ## remove what the targets above made
	rm -rf $(VENV) out dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
