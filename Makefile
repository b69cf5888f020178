# Needs Python 3.11 or newer and pip; everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
# The CPU build of torch suffices: on Linux it saves gigabytes to say
#   make TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Arguments of pytest: a worker per core. Or say TESTS="--pdb tests/hga_engine", for example.
TESTS ?= -n auto --dist worksteal

.PHONY: demo demo-64k test test-all check lint fuzz venv clean

demo: venv ## Install, fetch the default model, read sample documents and ask about them.
	$(BIN)/python -m tools.demo

demo-64k: venv ## The same with a repository of 60,000 tokens, beyond the native context.
	$(BIN)/python -m tools.demo --long

test: venv ## Run the tests, except the exhaustive ones.
	$(BIN)/python -m pytest -m "not exhaustive" $(TESTS)

test-all: venv ## Run every test.
	$(BIN)/python -m pytest $(TESTS)

check: lint test ## Run everything that has to pass before a commit.

lint: venv ## Check format, style, types and the direction of imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fuzz: venv ## Feed damaged input to every reader; takes minutes.
	$(BIN)/python -m tools.stress.fuzz_readers

venv: $(INSTALLED) ## Install into $(VENV).

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean: ## Remove what was installed and cached here.
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
