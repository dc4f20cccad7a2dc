# Two commands: `make demo` runs the main job, `make test` runs the tests. Both do all set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_MINUTES ?= 2

.PHONY: help demo test lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   train, export, stream and report on one machine, into demo/"
	@echo "make test   run the test suite"
	@echo "make lint   check style, format and types"

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cpu,train,export,bench,tensorrt-rtx,dev]'
	@$(BIN)/python -c 'import cv2' || \
		{ echo "OpenCV needs two system libraries: apt-get install libgl1 libglib2.0-0"; exit 1; }
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/python -m motorvae.benchmarks.demo --minutes $(DEMO_MINUTES)

test: $(VENV)/.ready
	$(BIN)/pytest

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-driver .scratch demo build *.egg-info .mypy_cache .pytest_cache .ruff_cache
