# Two commands do everything: `make demo` and `make test`. The rest is for development.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Processes of the test suite, each of which takes whole files; plain `pytest` is one process.
JOBS ?= 2

.PHONY: demo test lint types docs bench clean

demo: $(READY)
	$(BIN)/taskmill run demo
	$(BIN)/taskmill report runs/demo

test: $(READY) lint types
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/recipes/tables.py

bench: $(READY)
	set -e; for script in benchmarks/*.py; do $(BIN)/python $$script --quick; done

clean:
	rm -rf $(VENV) runs build dist *.egg-info .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Taskmill needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
