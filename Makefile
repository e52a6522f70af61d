# Everything a newcomer needs: `make demo`, then `make test`. Each target makes its own .venv when there is none.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help demo test check format bench docs build clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

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

bench: $(READY)  ## ViT-B/32: graphs before and after, and latency beside PyTorch and bare ONNX Runtime
	$(BIN)/python -m bench.graphs
	$(BIN)/python -m bench.latency

docs: $(READY)  ## write docs/cli.md anew from the help texts
	$(BIN)/python -m clipdeploy.cli.docs

build: $(READY)  ## wheel and source archive into dist/
	$(BIN)/python -m build

clean:  ## remove what the targets above made
	rm -rf $(VENV) out dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
