# Each target installs what it needs into .venv, once; nothing is installed again while nothing changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed

.PHONY: setup run test lab lint book browser clean

setup: $(CORE)  ## install the packages that a run needs

run: $(CORE)  ## adapt the base model to Hungarian on the CPU profile
	$(BIN)/langadapt run

lab: $(CORE)  ## open the notebooks
	$(BIN)/jupyter lab notebooks/01_tokenizer_fertility.ipynb

test: $(DEV)  ## run all tests
	$(BIN)/python -m pytest

lint: $(DEV)  ## check style, types, spelling, and that notebooks hold no outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --verify --extra-keys "metadata.papermill cell.metadata.papermill metadata.widgets" notebooks/*.ipynb
	$(BIN)/codespell

book: $(DEV)  ## run the notebooks on the CPU profile and build them as a site in build/site
	$(BIN)/langadapt run
	$(BIN)/python -m langadapt_utils.book runs/hu-cpu --site build/site

browser:  ## install the browser that tests of the notebooks drive, where it is missing and may be installed
	command -v chromium || command -v chromium-browser || { apt-get update --quiet && apt-get install --yes --quiet chromium; }

clean:  ## remove the virtual environment and caches; runs stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1), langadapt needs Python 3.11 to 3.13: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(DEV): $(CORE)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
