# Everything here works on a machine with Python >= 3.11, make and git: what is missing comes from PyPI, by the lock file.
# `make test` needs Chromium, PgBouncer and PostgreSQL 15: as root they come from Debian's packages, else it says how to.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := $(VENV)/uv/bin/uv
LOCKED := --universal --generate-hashes --no-header --quiet

.PHONY: help run dev test lint docs drill dist lock clean

help:                  ## what can be made
	@grep -E '^[a-z]+: .*##|^[a-z]+:  +##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: $(READY)          ## start PostgreSQL, run the whole graph of the flights database on its real data
	@$(BIN)/dbplatform run flights

dev: $(READY)          ## the Dagster UI, its daemon and the reports, over the same data
	@$(BIN)/dbplatform dev

test: $(READY) lint    ## the whole suite: unit, real PostgreSQL, Dagster, drills, a real browser
	@dbplatform_tests/debian.sh
	@dbplatform_tests/other_versions.sh $(UV) $(VENV) 16
	@dbplatform_tests/in_memory.sh $(BIN)/python -m pytest -n 2 --no-loadscope-reorder

lint: $(READY)         ## ruff, mypy, the layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

docs: $(READY)         ## the reference pages, from the code, and the site of all pages in site/
	@$(BIN)/python docs/make_reference.py
	@$(BIN)/python docs/make_fault_matrix.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

drill: $(READY)        ## every case of the fault matrices, and metrics on other versions; `make test` runs a sample of them
	@dbplatform_tests/debian.sh
	@dbplatform_tests/other_versions.sh $(UV) $(VENV)
	@dbplatform_tests/in_memory.sh $(BIN)/python -m pytest --drill-all -m drill

dist: $(READY)         ## wheel and sdist in dist/, checked, and installed in an empty environment
	@rm -rf dist
	@$(BIN)/python -m hatchling build -d dist
	@DBPLATFORM_DIST=$(CURDIR)/dist $(BIN)/python -m pytest --drill-all dbplatform_tests/orchestration/test_wheel.py

lock: $(UV)            ## resolve pyproject.toml anew; the second file is what images install, in the same versions
	$(UV) pip compile pyproject.toml --extra examples --extra celery --group dev $(LOCKED) -o requirements.lock
	$(UV) pip compile pyproject.toml --extra celery --extra kubernetes --constraint requirements.lock $(LOCKED) -o deploy/requirements.lock
	echo uv | $(UV) pip compile - $(LOCKED) -o requirements-uv.lock

clean:                 ## stop the embedded server, forget the virtual environment; data in .dbplatform stays
	@if [ -x $(BIN)/dbplatform ]; then $(BIN)/dbplatform server stop; fi
	rm -rf $(VENV)

$(UV): requirements-uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	@$(PYTHON) -m venv $(VENV)/uv
	@$(VENV)/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@touch $@

$(READY): $(UV) requirements.lock pyproject.toml
	@echo "setting up $(VENV): a minute or two, this once"
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
