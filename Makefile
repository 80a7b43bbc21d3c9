# Each target installs what it needs into .venv, once; it installs again only after a change of the requirements.
SUITABLE := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
NAMES := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(shell for name in $(NAMES); do $$name -c '$(SUITABLE)' 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed
FAST := -m "not base and not browser and not slow and not conformance"
TWO := --numprocesses 2 --dist

.PHONY: setup run test test-fast lab lint docs browser clean

setup: $(CORE)  ## install the packages that a run needs

run: $(CORE)  ## adapt the base model to Hungarian on the CPU profile
	$(BIN)/langadapt run

lab: $(CORE)  ## open the notebooks
	$(BIN)/jupyter lab notebooks/01_tokenizer_fertility.ipynb

test: test-fast  ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m conformance $(TWO) load
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "base or browser or slow" $(TWO) loadscope

test-fast: $(DEV)  ## run the tests that need no base model, no browser and little time, in two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(FAST) $(TWO) loadscope

lint: $(DEV)  ## check style, types, the order of imports, spelling, and that notebooks hold no outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/nbstripout --verify --extra-keys "metadata.papermill cell.metadata.papermill metadata.widgets" notebooks/*.ipynb
	$(BIN)/codespell

docs: $(DEV)  ## run the notebooks on the CPU profile and build the documentation in build/site
	$(BIN)/langadapt run
	NO_MKDOCS_2_WARNING=1 DOCS_RUN=runs/hu-cpu $(BIN)/mkdocs build --strict
	@echo "docs: build/site/index.html"

browser:  ## install the browser that tests of the notebooks drive, where it is missing and may be installed
	command -v chromium || command -v chromium-browser || { apt-get update --quiet && apt-get install --yes --quiet chromium; }

clean:  ## remove the virtual environment and caches; runs stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
	  echo "error: none of $(NAMES) is Python 3.11 to 3.14 with its venv module: install one, or name it with make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c '$(SUITABLE)' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1), langadapt needs Python 3.11 to 3.14 with its venv module: make $(MAKECMDGOALS) PYTHON=python3.14" >&2; exit 1; }
	@echo "using $(PYTHON) ($$($(PYTHON) --version))"
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(DEV): $(CORE)
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@
