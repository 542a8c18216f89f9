# Two commands do everything on a fresh machine: make demo, make test. All targets: make help.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: help demo test test-all notebook lint docs bench clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/.installed ## activities of a recording, then an encoder of your own: 2 to 4 minutes on 2 cores
	$(BIN)/selfpab-jax demo --out demo

test: $(VENV)/.installed-test ## the quick tests: about 9 minutes on 2 cores
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.installed-test ## every test
	$(PYTEST)

notebook: $(VENV)/.installed-test ## run the notebook from start to end
	$(BIN)/python -m pytest tests/docs/test_documentation.py

lint: $(VENV)/.installed-test ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

docs: $(VENV)/.installed-docs ## the site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Figures against the last ones kept, e.g. make bench BENCH="--parts step --save". Huge pages are worth a tenth of a step.
bench: $(VENV)/.installed-bench ## what a change may make slower, compared with the last figures
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/python benchmarks/bench.py $(BENCH)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "SelfPAB in JAX needs Python 3.11 or newer; choose one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(PIP) -e ".[test]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/python
	$(PIP) -e ".[docs]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml | $(VENV)/bin/python
	$(PIP) -e ".[convert]"
	touch $@ $(VENV)/.installed

clean: ## remove environments and everything that was built
	rm -rf $(VENV) $(VENV)-beam $(VENV)-skypilot demo site build dist *.egg-info
