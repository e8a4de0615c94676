# Few words: help demo test lint bench. PYTHON=... picks another interpreter.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# What the tests, the benchmarks and training need; and what the worker needs, alone.
VENV := .venv
DEMO_VENV := .venv-demo

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench excerpts picture schemas clean

help:  ## this text
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO_VENV)/installed  ## see it work: broker, patients, worker and alerts in this terminal
	@$(DEMO_VENV)/bin/ecgwatch demo

test: $(VENV)/installed  ## all tests; those with Kafka start one (Java 17, Maven) or use ECGWATCH_TEST_KAFKA
	$(VENV)/bin/python -m pytest -m "not kafka" -n 2 --dist loadfile
	$(VENV)/bin/python -m pytest -m kafka

lint: $(VENV)/installed  ## style, mistakes and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/installed  ## put the style right
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/installed  ## measure on a real Kafka: a table, and the same as JSON
	$(VENV)/bin/python -m tests.bench

excerpts: $(VENV)/installed  ## make the demo's excerpts again, from the records in the data directory
	$(VENV)/bin/python -m training.excerpts

picture: $(VENV)/installed  ## run the demo and save its picture for the README
	$(VENV)/bin/ecgwatch demo --svg docs/demo.svg

schemas: $(VENV)/installed  ## write the JSON Schemas of the topics
	$(VENV)/bin/ecgwatch schemas --directory docs/schemas

clean:  ## remove the environments and caches
	rm -rf $(VENV) $(DEMO_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Environments are brought up to date when the dependencies change; `make clean` starts afresh.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(DEMO_VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make demo PYTHON=...")'
	@echo "Installing the worker's packages into $(DEMO_VENV) (once; onnxruntime is the large one)..."
	@$(PYTHON) -m venv $(DEMO_VENV)
	@$(DEMO_VENV)/bin/python -m pip install --quiet --editable .
	@touch $@
