# Two commands: `make demo` runs the main job, `make test` runs the tests. Both do all set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Both are optional: a ceiling on the minutes of training, and the seed of the demo.
DEMO_MINUTES ?=
DEMO_SEED ?=
DEMO_FLAGS := $(if $(DEMO_MINUTES),--minutes $(DEMO_MINUTES)) $(if $(DEMO_SEED),--seed $(DEMO_SEED))
# One environment, filled in two steps: what the demo imports, and the rest.
DEMO_EXTRAS := cpu,train,export,bench
ALL_EXTRAS := $(DEMO_EXTRAS),energy,loadgen,explore,umap,hub,diffusers,openvino,tensorrt-rtx,parquet,remote,ray,zmq,mcap,view,sign,dev
DOCS_EXTRAS := docs
DRIVER_VENV := .venv-driver
DRIVER_BIN := $(DRIVER_VENV)/bin
STAND_IN := $(DRIVER_VENV)/stand-in
DRIVER_TESTS := tests/stand_in_driver
# For a machine with a GPU: an environment that sees the packages of $(PYTHON), such as torch or
# JetPack's TensorRT. Gigabytes come only by name: GPU_EXTRAS=gpu,train,tensorrt-rtx. GPU_PYTHON is
# a Python to take as it is, and GPU_FLAGS are options, as of python -m motorvae.benchmarks.proof.
GPU_EXTRAS ?=
GPU_ALSO ?= cuda-bindings
GPU_PYTHON ?=
GPU_FLAGS ?=
GPU_VENV := .venv-gpu
GPU_BIN := $(GPU_VENV)/bin
COMMA := ,
# Its name follows from what was asked for, so that another choice makes the environment anew.
GPU_READY := $(GPU_VENV)/.ready-$(shell printf '%s' "$(GPU_EXTRAS) $(GPU_ALSO)" | cksum | tr ' ' '-')
GPU_SMALL := export,bench,energy
GPU_HAS := $(GPU_BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)'

.PHONY: help demo test fuzz gpu-proof test-driver test-trt-api test-triton test-aarch64 containers jetson-wheels bench-ratios lint docs dist clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   train, export, stream and report on one machine, into demo/"
	@echo "make test   run the test suite"
	@echo "make fuzz   feed every parser of strangers' bytes with damaged ones, for 20 seconds"
	@echo "make bench-ratios  which gains in speed, such as INT8's, were lost since docs/speed.md"
	@echo "make lint   check style, format and types"
	@echo "make docs   build the documentation site into site/, and check its links"
	@echo "make dist   build wheel and sdist into dist/, and check what an index would show"
	@echo "make gpu-proof     prove motorVAE on this machine's GPU: one JSON and one page, into gpu-proof/"
	@echo "make test-driver   pycuda and cuda-bindings on a stand-in for NVIDIA's driver"
	@echo "make test-trt-api  our TensorRT code against the real API of each release of it"
	@echo "make test-triton   what --triton writes, on a real Triton Inference Server"
	@echo "make test-aarch64  the runtime on arm64, emulated; needs root, mmdebstrap, qemu-user-static"
	@echo "make containers    lint the container files, and build and run them with buildah"
	@echo "make jetson-wheels which wheels a Jetson gets; asks the package index"

# Before anything is made. `import ensurepip` fails where Debian's python3-venv is not installed.
GOAL := $(or $(firstword $(MAKECMDGOALS)),demo)
CHECK_PYTHON = command -v '$(PYTHON)' > /dev/null || { \
	echo '$(PYTHON) is not installed: apt-get install python3 python3-venv, or name another: make $(GOAL) PYTHON=python3.12' >&2; \
	exit 1; }; \
	found=$$('$(PYTHON)' -c 'import sys; sys.stdout.write("Python %d.%d" % tuple(sys.version_info[:2]))' 2> /dev/null); \
	case "$$found" in \
	"Python 3.1"[0123]) ;; \
	"Python "*) echo "$(PYTHON) is $$found, and motorVAE needs Python 3.10 to 3.13: make $(GOAL) PYTHON=python3.12" >&2; exit 1 ;; \
	*) echo "$(PYTHON) is not a Python that runs: make $(GOAL) PYTHON=python3.12" >&2; exit 1 ;; \
	esac; \
	'$(PYTHON)' -c 'import ensurepip, venv' 2> /dev/null || { \
	echo '$(PYTHON) cannot make a virtual environment: apt-get install python3-venv, or name another: make $(GOAL) PYTHON=python3.12' >&2; \
	exit 1; }

$(VENV)/.ready-demo: pyproject.toml constraints.txt environment.py
	@$(CHECK_PYTHON)
	@'$(PYTHON)' environment.py $(VENV) --extras $(DEMO_EXTRAS)
	@touch $@

$(VENV)/.ready: $(VENV)/.ready-demo
	@$(CHECK_PYTHON)
	@'$(PYTHON)' environment.py $(VENV) --extras $(ALL_EXTRAS)
	@touch $@

# By itself: a machine that builds the site only needs neither torch nor an engine.
$(VENV)/.ready-docs: pyproject.toml constraints.txt environment.py
	@$(CHECK_PYTHON)
	@'$(PYTHON)' environment.py $(VENV) --extras $(DOCS_EXTRAS)
	@touch $@

demo: $(VENV)/.ready-demo
	$(BIN)/python -m motorvae.benchmarks.demo $(DEMO_FLAGS)

# A file belongs to one process: what its tests share is made once.
test: $(VENV)/.ready
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

# NVIDIA's header files come as wheels, so that no CUDA toolkit is needed, nor one used.
$(DRIVER_VENV)/.ready: pyproject.toml constraints.txt environment.py
	@$(CHECK_PYTHON)
	@'$(PYTHON)' environment.py $(DRIVER_VENV) --also cryptography cuda-bindings nvidia-cuda-profiler-api \
		nvidia-cuda-runtime jinja2 onnx onnx-ir onnxruntime onnxscript psutil pytest pytest-timeout
	@touch $@

$(STAND_IN)/libcuda.so.1: $(DRIVER_VENV)/.ready $(wildcard $(DRIVER_TESTS)/*.[ch]) $(DRIVER_TESTS)/build.py
	$(DRIVER_BIN)/python $(DRIVER_TESTS)/build.py library $(STAND_IN)

# About two minutes, once: it stays while the library that it is linked to changes.
$(DRIVER_VENV)/.pycuda: | $(STAND_IN)/libcuda.so.1
	$(DRIVER_BIN)/python $(DRIVER_TESTS)/build.py pycuda $(STAND_IN)
	@touch $@

test-driver: $(DRIVER_VENV)/.ready $(STAND_IN)/libcuda.so.1 $(DRIVER_VENV)/.pycuda
	LD_LIBRARY_PATH='$(CURDIR)/$(STAND_IN)' $(DRIVER_BIN)/pytest $(DRIVER_TESTS)

# Of other extras it is made anew: ONNX Runtime's packages for CPUs and for GPUs exclude each other.
# Where torch is there, what else training takes is small; ONNX Runtime for CPUs is, too.
$(GPU_READY): pyproject.toml environment.py
	@$(CHECK_PYTHON)
	@[ -e $@ ] || rm -rf $(GPU_VENV)
	@'$(PYTHON)' environment.py $(GPU_VENV) --system-packages --also pytest pytest-timeout $(GPU_ALSO) \
		--extras $(GPU_SMALL)$(if $(GPU_EXTRAS),$(COMMA)$(GPU_EXTRAS))
	@if $(GPU_HAS) torch; then '$(PYTHON)' environment.py $(GPU_VENV) --system-packages --extras train; fi
	@if ! $(GPU_HAS) onnxruntime; then '$(PYTHON)' environment.py $(GPU_VENV) --system-packages --extras cpu; fi
	@touch $@

gpu-proof: $(if $(GPU_PYTHON),,$(GPU_READY))
	@'$(or $(GPU_PYTHON),$(GPU_BIN)/python)' -m motorvae.benchmarks.proof $(GPU_FLAGS)

# Downloads a megabyte for each release, once, into .scratch/.
test-trt-api: $(VENV)/.ready
	$(BIN)/pytest tests/trt_api

# Downloads NVIDIA's wheel of 55 MB, once, into .scratch/; it is for Linux on x86-64.
test-triton: $(VENV)/.ready
	$(BIN)/pytest tests/triton_server

# Keeps roots and what x86-64 expects in .aarch64/; SUITES="jammy noble" are the Jetsons' Pythons.
SUITES ?= bookworm trixie
test-aarch64: $(VENV)/.ready
	$(BIN)/python -m tests.aarch64 --suites $(SUITES)

# STAND_IN=1 builds upon Debian where the images that they name cannot be had.
containers: $(VENV)/.ready
	$(BIN)/python tests/packaging/build_containers.py $(if $(STAND_IN),--stand-in)

# A short form: tests/attacks/parsers.py by itself takes some minutes.
fuzz: $(VENV)/.ready
	$(BIN)/python -m tests.attacks.parsers --seconds 20

# Ratios within one run of the default model with random weights, which a busy machine leaves alone.
bench-ratios: $(VENV)/.ready
	mkdir -p .scratch
	$(BIN)/motorvae-bench run --untrained --untrained-int8 --quick --only encoder --output .scratch/bench.json
	$(BIN)/motorvae-bench compare --ratios --expect int8 --tolerance 0.45 docs/results/speed.json.gz .scratch/bench.json

jetson-wheels: $(VENV)/.ready
	$(BIN)/python tests/packaging/resolve_jetson.py

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint containers/*.Dockerfile

docs: $(VENV)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: $(VENV)/.ready
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf --one-file-system $(VENV) $(DRIVER_VENV) $(GPU_VENV) .scratch .aarch64 demo build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
