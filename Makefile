# One obvious command for each job; `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.demo  ## a simulated city, live in the browser (ARGS="--cabinets 8 --speed 60")
	@exec $(BIN)/duha demo $(ARGS)

test: .venv/.dev tools  ## all tests, with real servers; installs them with apt-get where it may
	$(BIN)/pytest -q -n 3 -m "not system" $(ARGS)
	$(BIN)/pytest -q -n 3 --dist worksteal -m "system and not drill" $(ARGS)
	$(BIN)/pytest -q -m drill $(ARGS)

quick: .venv/.dev  ## the fast tests, side by side
	$(BIN)/pytest -q -n 4 -m "not system" $(ARGS)

check: .venv/.dev  ## format, lint, types (of the page, too), arrows between rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python deploy/page/check.py

types: .venv/.dev  ## the types in the page's comments, by TypeScript
	$(BIN)/python deploy/page/check.py

bench: .venv/.dev  ## speed and memory, as figures (one JSON object as the last line)
	$(BIN)/python -m benchmarks $(ARGS)

bench-edge: .venv/.dev  ## the agent on its lines: efficiency, dead units, wrong answers
	$(BIN)/python -m benchmarks.edge $(ARGS)

bench-ingest: .venv/.dev tools  ## a million lights a minute into the stores, for ten minutes (ARGS="--minutes 1")
	$(BIN)/python -m benchmarks.ingest $(ARGS)

bench-lighting: .venv/.dev tools  ## documents, previews, overrides and alarms of whole cities
	$(BIN)/python -m benchmarks.lighting $(ARGS)

bench-runoff: .venv/.dev  ## runoff models, forecasts and quality control of rain
	$(BIN)/python -m benchmarks.runoff $(ARGS)

bench-page: .venv/.dev tools  ## the page in Chromium over up to a million lights; a hundred open pages
	$(BIN)/python -m benchmarks.page $(ARGS)

bench-robust: .venv/.dev tools  ## faults injected into real processes: mutated messages, hung servers, full disks
	$(BIN)/python -m benchmarks.robust $(ARGS)

bench-queries: .venv/.dev  ## what dashboards ask, over a month of a city (generates 17 GB once)
	$(BIN)/python -m benchmarks.queries $(ARGS)

docs: .venv/.dev  ## write docs/reference/ anew from the code
	$(BIN)/python docs/generate.py

pictures: .venv/.dev  ## take the pictures of README and docs anew (needs Chromium)
	DUHA_PICTURES=docs/pictures $(BIN)/pytest -q tests/system/test_page.py tests/system/test_figures.py -k "pictures or figure"

tools:  ## install the servers and peers that the tests use (apt-get, where it may)
	@sh deploy/test-tools.sh

clean:  ## remove the environment and everything that was built
	rm -rf .venv dist backend/duha_backend/page/vendor

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Duha needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Making a virtual environment in .venv ..."
	@$(PYTHON) -m venv .venv || { echo "On Debian and Ubuntu: apt-get install python3-venv"; rm -rf .venv; exit 1; }

.venv/.demo: pyproject.toml deploy/page/package-lock.json | .venv/bin/python
	@test -f .venv/.dev || { echo "Installing Duha (half a minute the first time) ..."; \
	  $(BIN)/pip install --quiet --disable-pip-version-check -e ".[edge,backend,simulators]"; }
	@touch $@

.venv/.dev: pyproject.toml deploy/page/package-lock.json | .venv/bin/python
	@echo "Installing Duha and its development tools (a minute the first time) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch .venv/.demo $@

.PHONY: help demo test quick check types bench bench-edge bench-ingest bench-lighting bench-runoff bench-page bench-robust bench-queries docs pictures tools clean
