# Two commands: `make run` sets up and starts the main job; `make test` sets up and runs every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check setup setup-dev sandbox clean

run: setup
	@$(BIN)/asi run

# The terminal's tests wait more than they compute; the others measure processes and have the machine to themselves.
test: setup-dev check
	$(BIN)/pytest -n 4 tests/asi_tui
	$(BIN)/pytest --ignore tests/asi_tui

check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.installed sandbox
setup-dev: $(VENV)/.installed-dev sandbox

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "asi needs Python 3.11 or newer: make run PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# bubblewrap comes from the distribution: installed here where we are root and can, named otherwise.
sandbox:
	@command -v bwrap >/dev/null 2>&1 || sh scripts/install-bubblewrap.sh

clean:
	rm -rf $(VENV) build *.egg-info
