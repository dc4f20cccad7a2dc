# Two commands: `make demo` runs the main job, `make test` runs the tests. Both do all set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_MINUTES ?= 2
DRIVER_VENV := .venv-driver
DRIVER_BIN := $(DRIVER_VENV)/bin
STAND_IN := $(DRIVER_VENV)/stand-in
DRIVER_TESTS := tests/stand_in_driver

.PHONY: help demo test test-driver test-trt-api jetson-wheels lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   train, export, stream and report on one machine, into demo/"
	@echo "make test   run the test suite"
	@echo "make lint   check style, format and types"
	@echo "make test-driver   pycuda and cuda-bindings on a stand-in for NVIDIA's driver"
	@echo "make test-trt-api  our TensorRT code against the real API of each release of it"
	@echo "make jetson-wheels which wheels a Jetson gets; asks the package index"

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cpu,openvino,train,export,bench,tensorrt-rtx,parquet,zmq,mcap,view,dev]'
	@$(BIN)/python -c 'import cv2' || \
		{ echo "OpenCV needs two system libraries: apt-get install libgl1 libglib2.0-0"; exit 1; }
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/python -m motorvae.benchmarks.demo --minutes $(DEMO_MINUTES)

test: $(VENV)/.ready
	$(BIN)/pytest

# NVIDIA's header files come as wheels, so that no CUDA toolkit is needed, nor one used.
$(DRIVER_VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DRIVER_VENV)
	$(DRIVER_BIN)/pip install --quiet --constraint constraints.txt --editable . cuda-bindings \
		numpy nvidia-cuda-profiler-api nvidia-cuda-runtime pytest pytest-timeout
	@touch $@

$(STAND_IN)/libcuda.so.1: $(DRIVER_VENV)/.ready $(wildcard $(DRIVER_TESTS)/*.[ch]) $(DRIVER_TESTS)/build.py
	$(DRIVER_BIN)/python $(DRIVER_TESTS)/build.py library $(STAND_IN)

# About two minutes, once: it stays while the library that it is linked to changes.
$(DRIVER_VENV)/.pycuda: | $(STAND_IN)/libcuda.so.1
	$(DRIVER_BIN)/python $(DRIVER_TESTS)/build.py pycuda $(STAND_IN)
	@touch $@

test-driver: $(DRIVER_VENV)/.ready $(STAND_IN)/libcuda.so.1 $(DRIVER_VENV)/.pycuda
	LD_LIBRARY_PATH=$(CURDIR)/$(STAND_IN) $(DRIVER_BIN)/pytest $(DRIVER_TESTS)

# Downloads a megabyte for each release, once, into .scratch/.
test-trt-api: $(VENV)/.ready
	$(BIN)/pytest tests/trt_api

jetson-wheels: $(VENV)/.ready
	$(BIN)/python tests/packaging/resolve_jetson.py

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(DRIVER_VENV) .scratch demo build *.egg-info .mypy_cache .pytest_cache .ruff_cache
