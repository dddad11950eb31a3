# make demo: everything, end to end, on this machine.   make test: the tests.   make check: lint, types, import contracts.
# make up: servers and workers for scheduled runs.   make down: stops them.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3.11
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONUNBUFFERED := 1

.PHONY: setup demo up down test check clean

setup: $(VENV)/.installed

# Installed again only when what is to be installed has changed.
$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here; set PYTHON=… to a Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	@dvc repro
	@tpo summary

up down: setup
	@python -m flows.services $@

# One thread for each worker: two apiece wait for each other most of the time. Three workers keep two cores busy, since tests
# of servers and schedules wait.
test: setup
	OMP_NUM_THREADS=1 python -m pytest -n 3 --durations 15 --dist loadfile --no-loadscope-reorder

check: setup
	ruff check .
	ruff format --check .
	mypy
	lint-imports

# What the pipeline made; your own folders below data/ stay.
clean:
	rm -rf $(addprefix data/,demo catalog captions queries answers pairs validation evaluation) models/tuned reports
	rm -rf .tpo dvc.lock demo/dvc.lock mlflow.db mlruns
