# make grokking, make test: everything they need goes into $(VENV); nothing is installed elsewhere.
VENV  ?= .venv
EXTRAS ?= dev
TORCH ?= torch==2.13.0
ARM   ?= ncc_prevent

PYTHON := $(shell for p in python3.13 python3.12 python3.11 python3; do \
  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && { echo $$p; break; }; done)
BIN := $(VENV)/bin
DEV := $(VENV)/.installed-$(EXTRAS)
PEERS := .venv-peers

.PHONY: help grokking test check docs benchmarks peers clean FORCE

help:
	@echo 'make grokking    set up $(VENV) and run: python -m experiments.grokking --arm $(ARM)'
	@echo 'make test        set up $(VENV) and run the tests'
	@echo 'make check       ruff, the strict type checker, and the paper against its results'
	@echo 'make docs        build the pages of docs/ with the API reference into build/docs'
	@echo 'make benchmarks  python -m benchmarks'
	@echo 'make peers       set up $(PEERS), the public libraries that benchmarks compare with'
	@echo 'make clean       remove $(VENV) and $(PEERS); runs/ stays'
	@echo "options: ARM=baseline, VENV=path, TORCH='torch>=2.6' (default $(TORCH)), EXTRAS=dev,frameworks (default $(EXTRAS))"

# The stamps record what is installed; another TORCH or a changed pyproject.toml installs again.
$(VENV)/.torch: FORCE
	@mkdir -p $(VENV)
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	@test -n "$(PYTHON)" || { echo 'error: no Python >= 3.11 with venv on the PATH' >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(DEV): $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

grokking: $(VENV)/.installed
	$(BIN)/python -m experiments.grokking --arm $(ARM)

test: $(DEV)
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m paper check

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo build/docs/index.html

$(VENV)/.installed-docs: docs/requirements.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

benchmarks: $(VENV)/.installed
	$(BIN)/python -m benchmarks

# A folder on one process's path, not on ours: without dependencies, so that it runs our PyTorch.
peers: $(PEERS)/.installed

$(PEERS)/.installed: benchmarks/peers.txt $(VENV)/.installed
	rm -rf $(PEERS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(PEERS) -r $<
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS)
