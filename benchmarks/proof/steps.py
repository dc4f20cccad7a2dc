"""The steps: what each proves, what it needs, how long it may take, and how it is read."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...runtime.core.packages import version_of
from ...runtime.core.system.children import python_module
from ..measure.result import ENCODER_FP16_BYTES
from .evidence import (
    Reader,
    by_exit_code,
    by_exit_code_or_not,
    of_doctor,
    of_pytest,
    of_rates,
    of_stream,
    of_training,
)

TRAIN_BATCH = 64
GPU_TESTS = (Path("tests/gpu"),)
_OF_DEVICE_LAYER = (
    *("cuda_layer", "cuda_close", "cuda_graph", "cuda_threads", "open_cuda", "driver"),
    "backend_tensorrt",
)
DEVICE_LAYER_TESTS = tuple(
    Path("tests/stand_in_driver", f"test_{name}.py") for name in _OF_DEVICE_LAYER
)
"""Those of that folder which ask the driver; the others are about engines of a GPU of its own."""
RUN, BUNDLE, RATES = Path("runs/gpu"), Path("bundle"), Path("rates.json")
"""Where the steps train, export and measure the GPU's rates, in the work folder."""
_BUNDLE_ORIGIN = "the step export makes it; or name a bundle: --model"
_CHECKOUT = "run it in a checkout of motorVAE, or name one: --checkout"
_INSTALL: Mapping[str, str] = {
    "torch": "pip install 'motorvae[train]', with a torch that is built for this GPU's CUDA",
    "lightning": "pip install 'motorvae[train]'",
    "onnxruntime": "pip install 'motorvae[gpu]'",
    "onnxruntime-gpu": "pip uninstall onnxruntime, then pip install 'motorvae[gpu]'",
    "onnx": "pip install 'motorvae[export]'",
    "onnxscript": "pip install 'motorvae[export]'",
    "tensorrt": "pip install 'motorvae[tensorrt]', or on a Jetson JetPack's own",
    "tensorrt_rtx": "pip install 'motorvae[tensorrt-rtx]'",
    "pycuda": "pip install 'motorvae[pycuda]', which compiles it with this machine's CUDA toolkit",
    "cuda.bindings": "pip install cuda-bindings",
    "pytest": "pip install pytest pytest-timeout",
    "pytest_timeout": "pip install pytest-timeout",
}
"""By the module's name: how to get it."""


@dataclass(frozen=True)
class Place:
    """Where the steps of one run find things."""

    checkout: Path | None  # With tests/; None where motorVAE is installed without one
    work: Path  # For runs, bundles, reports and logs
    model: Path  # The bundle: the user's, or the one that a step exports
    checkpoint: Path  # The training run: likewise
    frames: int  # Of each case of the doctor
    time_factor: float = 1  # Of every time limit


@dataclass(frozen=True)
class Step:
    """One step: a process with a time limit, and what its evidence proves."""

    name: str
    proves: str
    limit_s: float
    command: Sequence[str]
    without: tuple[Path, Sequence[str]] | None = None  # What to run where that path is missing
    reader: Reader = by_exit_code
    modules: tuple[str, ...] = ()  # That must be installed; a name with a - is a package's
    files: tuple[tuple[Path, str], ...] = ()  # That must be there, and where each comes from
    leaves: tuple[
        Path, ...
    ] = ()  # Evidence of an earlier run, which must not be taken for this one
    folder: Path | None = None  # Where it runs, if not in the work folder
    environment: Mapping[str, str] = field(default_factory=dict)
    has_own_model: bool = False  # The user gave what it would make

    @property
    def due_command(self) -> Sequence[str]:
        """What to run now: the command, or what takes its place."""
        if self.without is not None and not self.without[0].exists():
            return self.without[1]
        return self.command

    def why_not(self) -> str | None:
        """Return why it cannot be run here, in a clause with the next step, or None."""
        for module in self.modules:
            if not _is_installed(module):
                return f"needs {module}, which is not installed: {_INSTALL[module]}"
        for path, origin in self.files:
            if not path.exists():
                return f"needs {path}, which is not there: {origin}"
        return None


def _is_installed(module: str) -> bool:
    if "-" in module:  # a package, of several that hold this module
        return version_of(module) is not None
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # its parent is not there, or is broken
        return False


def planned_steps(place: Place) -> tuple[Step, ...]:
    """Return every step, in the order of their worth per second; some take what others leave."""
    steps = _steps(place)
    return tuple(replace(step, limit_s=step.limit_s * place.time_factor) for step in steps)


def _steps(place: Place) -> tuple[Step, ...]:
    return (
        _tests(
            place,
            "device-cuda-bindings",
            "the device layer on cuda-bindings: copies, contexts, graphs, releases",
            DEVICE_LAYER_TESTS,
            select="not pycuda",
            modules=("cuda.bindings",),
            limit_s=120,
        ),
        _tests(
            place,
            "device-pycuda",
            "the device layer on pycuda",
            DEVICE_LAYER_TESTS,
            select="pycuda",
            modules=("pycuda", "cuda.bindings"),
            limit_s=120,
        ),
        _rates(place),
        *_model_steps(place),
        *(
            _doctor(place, *words)
            for words in (
                ("onnx", "ONNX Runtime on CUDA, each form past the gate", 360, "onnxruntime-gpu"),
                ("torch", "torch's FP16 encoder as a CUDA graph, the rival", 150, "torch"),
                ("tensorrt", "TensorRT engines, with and without a CUDA graph", 690, "tensorrt"),
                ("tensorrt-rtx", "TensorRT-RTX engines, likewise", 390, "tensorrt_rtx"),
            )
        ),
        _stream(place),
        *(
            _tests(
                place,
                f"tests-{name}",
                what,
                GPU_TESTS,
                select=select,
                modules=modules,
                limit_s=limit_s,
                marked=True,
            )
            for name, what, select, modules, limit_s in (
                ("onnx", "pytest -m gpu: ONNX Runtime", "onnx-cuda", ("onnxruntime-gpu",), 180),
                (
                    "torch",
                    "pytest -m gpu: torch, and the doctor's rows",
                    OF_TORCH,
                    ("lightning",),
                    180,
                ),
                ("tensorrt", "pytest -m gpu: TensorRT", OF_TENSORRT, ("tensorrt",), 900),
                ("rtx", "pytest -m gpu: TensorRT-RTX", "rtx", ("tensorrt_rtx",), 600),
            )
        ),
    )


OF_TORCH = "torch-cuda or test_the_doctor_measures"
OF_TENSORRT = "(tensorrt or test_routes_gpu) and not rtx"
"""Which tests of tests/gpu are whose, for pytest's -k; all of them together select every test."""


def _tests(
    place: Place,
    name: str,
    proves: str,
    tests: Sequence[Path],
    *,
    select: str,
    modules: tuple[str, ...],
    limit_s: float,
    marked: bool = False,
) -> Step:
    """Return a step that runs tests of the checkout."""
    report = place.work / f"{name}.xml"
    checkout = place.checkout or Path("no-checkout")
    needs = (*modules, "pytest", "pytest_timeout")
    if marked:
        needs += ("torch", "onnx", "onnxruntime")  # the bundle that they test is made on the spot
    return Step(
        name=name,
        proves=proves,
        limit_s=limit_s,
        command=(
            *(sys.executable, "-m", "pytest", *(("-m", "gpu") if marked else ()), "-k", select),
            *("-p", "no:cacheprovider", "-p", "no:randomly", "-q", "-rfEs"),
            *("-o", "junit_family=xunit2", f"--junitxml={report}"),
            *map(str, tests),
        ),
        reader=of_pytest(report.name),
        modules=needs,
        files=tuple((checkout / path, _CHECKOUT) for path in tests),
        leaves=(report,),
        folder=checkout,
        environment={"MOTORVAE_TEST_DRIVER": "real"},
    )


def _rates(place: Place) -> Step:
    """Return the step that measures the GPU's own rates, of which the roofline is made."""
    result = place.work / RATES
    return Step(
        name="rates",
        proves="the GPU's own rates: matrix products and memory",
        limit_s=120,
        command=python_module(
            "motorvae.benchmarks.measure.gpu_rates", str(result), f"{ENCODER_FP16_BYTES}"
        ),
        reader=of_rates(result.name),
        modules=("torch",),
        leaves=(result,),
    )


def _model_steps(place: Place) -> tuple[Step, ...]:
    """Return the steps that train and export what the others measure."""
    own_run, own_bundle = place.work / RUN, place.work / BUNDLE
    into_bundle = (
        *("--output", str(own_bundle)),
        *("--fp16", "--keep-float32", "auto", "--engine", "none", "--anyway"),
    )
    train = Step(
        name="train",
        proves="training on the GPU, in bf16: its rate in images/s",
        limit_s=300,
        command=(
            *python_module("motorvae", "train", "vehicles", "--vehicles-count", "2000"),
            *("--batch", f"{TRAIN_BATCH}", "--accelerator", "gpu", "--precision", "bf16-mixed"),
            *("--minutes", "1", "--output", str(own_run.parent), "--name", own_run.name),
        ),
        reader=of_training((RUN / "metrics.csv").as_posix(), TRAIN_BATCH),
        modules=("torch", "lightning"),
        leaves=(own_run,),
    )
    export = Step(
        name="export",
        proves="a model exported for the other steps, FP16 graphs past the gate on the CPU",
        limit_s=240,
        command=python_module("motorvae", "export", str(own_run), *into_bundle),
        without=(
            own_run / "metrics.csv",
            python_module("motorvae", "export", "--pretrained", "vehicles", *into_bundle),
        ),
        modules=("torch", "onnx", "onnxscript", "onnxruntime"),
        leaves=(own_bundle,),
        has_own_model=place.model != own_bundle,
    )
    int8 = Step(
        name="export-int8",
        proves="INT8 graphs of the same model, past the gate on the CPU",
        limit_s=300,
        command=(
            *python_module("motorvae", "export", "--model", str(own_bundle)),
            *("--int8", "onnx", "tensorrt", "--engine", "none"),
        ),
        reader=by_exit_code_or_not,
        modules=("onnx", "onnxscript", "onnxruntime"),
        files=((own_bundle, _BUNDLE_ORIGIN),),
        has_own_model=place.model != own_bundle,
    )
    return train, export, int8


def _doctor(place: Place, name: str, proves: str, limit_s: float, module: str) -> Step:
    """Return a step in which motorvae-doctor gpu measures one engine, and its energy."""
    result, rates = place.work / f"doctor-{name}.json", place.work / RATES
    from_torch = ("--checkpoint", str(place.checkpoint)) if name == "torch" else ()
    files = [(place.model, _BUNDLE_ORIGIN)]
    if from_torch:
        files.append((place.checkpoint, "the step train makes it; or name a run: --checkpoint"))
    command = (
        *python_module("motorvae", "doctor", "gpu", "--only", name, *from_torch, "--gpu-energy"),
        *("--model", str(place.model), "--frames", f"{place.frames}", "--output", str(result)),
    )
    return Step(
        name=f"doctor-{name}",
        proves=proves,
        limit_s=limit_s,
        command=(*command, "--rates", str(rates)),
        without=(rates, command),  # then it measures them itself
        reader=of_doctor(result.name),
        modules=(module,),
        files=tuple(files),
        leaves=(result,),
    )


def _stream(place: Place) -> Step:
    """Return the step in which a stream runs on ONNX Runtime's CUDA provider."""
    rows = place.work / "stream.jsonl"
    return Step(
        name="stream-onnx",
        proves="a stream on ONNX Runtime's CUDA provider, from frame to latent",
        limit_s=90,
        command=(
            *python_module("motorvae", "stream", "synthetic?fps=max", "--max-frames", "500"),
            *("--backend", "onnx", "--provider", "cuda", "--model", str(place.model)),
            *("--output", str(rows)),
        ),
        reader=of_stream(rows.name),
        modules=("onnxruntime-gpu",),
        files=((place.model, _BUNDLE_ORIGIN),),
        leaves=(rows,),
    )
