"""The doctor on what runs the model: ONNX Runtime's providers, the driver, TensorRT."""

from __future__ import annotations

import importlib.util
import platform
import tempfile
from pathlib import Path

from ...core.errors import MissingDependencyError, MotorVAEError, sentence_list
from ...core.packages import ONNX_RUNTIME_PACKAGES, versions_of
from ...engines.gpu_info import Gpu, NoGpu, find_gpu
from ...engines.tensorrt.package import TensorRTName, import_tensorrt, title_of
from ..finding import Finding

CUDA = "CUDAExecutionProvider"

_ONNX = "ONNX Runtime"
_RELU = bytes.fromhex(
    "080812003a3d0a0c0a0178120179220452656c751201675a140a0178120f0a0d080112090a0312016e0a020803"
    "62140a0179120f0a0d080112090a0312016e0a02080342040a00100d"
)
"""An ONNX file of one node: (n, 3) float32 x to y = max(x, 0)."""
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_DISPLAY_CARDS = "/sys/bus/pci/devices"
_NVIDIA, _DISPLAY = "0x10de", "0x03"
"""PCI vendor, and the class of display and 3D controllers."""


def check_onnx(_model: Path) -> tuple[Finding, ...]:
    """Let ONNX Runtime open and run a graph on the CPU, and on the GPU where there is one."""
    installed = list(versions_of(ONNX_RUNTIME_PACKAGES))
    if len(installed) > 1:
        return (
            Finding.failed(
                _ONNX,
                f"{' and '.join(installed)} are both installed and overwrite each other",
                f"pip uninstall -y {' '.join(installed)} && pip install 'motorvae[cpu]'",
            ),
        )
    try:
        import onnxruntime as ort  # noqa: PLC0415  # an extra

        providers = ort.get_available_providers()
        _run_relu("cpu")
    except ModuleNotFoundError as error:
        name = error.name or "onnxruntime"
        absent = name == "onnxruntime"
        return (
            Finding.failed(
                _ONNX,
                "not installed" if absent else f"needs {name}, which is not installed",
                "pip install 'motorvae[cpu]'" if absent else f"pip install {name}",
            ),
        )
    except (ImportError, OSError, AttributeError, MotorVAEError) as error:
        package = installed[0] if installed else "onnxruntime"
        return (
            Finding.failed(
                _ONNX,
                f"{package} is installed and runs nothing: {_one_line(error)}",
                f"pip install --force-reinstall {package}",
            ),
        )
    short = sentence_list([provider.removesuffix("ExecutionProvider") for provider in providers])
    runs = Finding.ok(_ONNX, f"{ort.__version__} ran a graph on the CPU; it lists {short}")
    on_gpu = cuda_finding(providers, find_gpu())
    return (runs, on_gpu) if on_gpu else (runs,)


def cuda_finding(providers: list[str], gpu: Gpu | NoGpu) -> Finding | None:
    """Tell whether ONNX Runtime can use the GPU; what it lists, it may not be able to load.

    None stands for neither a GPU nor a provider for one.

    Args:
        providers: Those that ONNX Runtime lists.
        gpu: What the driver says.
    """
    what = "CUDA provider"
    if isinstance(gpu, NoGpu):
        if CUDA not in providers:
            return None
        found = f"listed, and does not load: {gpu.reason}"
        return Finding.optional(what, found)
    if CUDA not in providers:
        return Finding.optional(
            what,
            "not in this ONNX Runtime, so that it does not use the GPU",
            "pip uninstall -y onnxruntime && pip install 'motorvae[gpu]'",
        )
    try:
        _run_relu("cuda")
    except MotorVAEError as error:
        return Finding.warn(
            what,
            f"listed, and does not load: {_one_line(error)}",
            "pip install --force-reinstall 'onnxruntime-gpu[cuda,cudnn]'",
        )
    return Finding.ok(what, "a graph ran on the GPU")


def check_gpu(_model: Path) -> tuple[Finding, ...]:
    """Ask the driver for its GPU, and open what would drive it for an engine."""
    gpu = find_gpu()
    if isinstance(gpu, NoGpu):
        return (_no_gpu(gpu),)
    shared = ", shared with the processor" if gpu.integrated else ""
    found = Finding.ok(
        "NVIDIA GPU",
        f"{gpu.name}, compute capability {gpu.compute_capability}, driver "
        f"{gpu.driver or 'of unknown version'}, CUDA {gpu.cuda}, "
        f"{gpu.memory_bytes / 1e9:.1f} GB{shared}",
    )
    from ...engines.cuda.open import open_cuda  # noqa: PLC0415  # with numpy

    try:
        with open_cuda() as layer:
            return found, Finding.ok("CUDA", f"opened by {layer.name}")
    except MissingDependencyError as error:
        way = Finding.optional(
            "CUDA",
            f"nothing drives an engine: {error.clause()}",
            f"pip install 'cuda-bindings<{int(gpu.cuda.partition('.')[0]) + 1}'",
        )
    except MotorVAEError as error:
        way = Finding.warn("CUDA", _one_line(error), "nvidia-smi")
    return found, way


def check_tensorrt(_model: Path) -> tuple[Finding, ...]:
    """Import TensorRT; its Runtime is not touched, which crashes where there is no driver."""
    return (_package("tensorrt"),)


def check_tensorrt_rtx(_model: Path) -> tuple[Finding, ...]:
    """Import TensorRT-RTX, likewise."""
    return (_package("tensorrt-rtx"),)


def _package(name: TensorRTName) -> Finding:
    gpu, what, install = find_gpu(), title_of(name), f"pip install 'motorvae[{name}]'"
    if name == "tensorrt" and platform.machine() == "aarch64":
        install = "python3 -m venv --system-site-packages motorvae-env"  # JetPack brings it
    if importlib.util.find_spec(name.replace("-", "_")) is None:
        useful = isinstance(gpu, Gpu)
        return Finding.optional(
            what,
            "not installed" if useful else "not installed; for an NVIDIA GPU only",
            install if useful else None,
        )
    try:
        package = import_tensorrt(name)
    except MotorVAEError as error:
        return Finding.warn(what, _one_line(error), install)
    if isinstance(gpu, NoGpu):
        found = f"{package.version}; runs engines on an NVIDIA GPU only"
        return Finding.optional(what, found)
    if objection := package.objection_to(gpu):
        return Finding.optional(what, f"{package.version}; {objection}")
    return Finding.ok(what, f"{package.version}, for this GPU")


def _no_gpu(gpu: NoGpu) -> Finding:
    """Tell a machine without a card from one whose card cannot be reached."""
    what, next_command = "NVIDIA GPU", None
    if _KERNEL_MODULE.exists():
        # The kernel has a driver, and this process has no library of it, or no device.
        next_command = "nvidia-smi; in a container: docker run --gpus all"
    elif any(
        _text(card / "vendor") == _NVIDIA and _text(card / "class").startswith(_DISPLAY)
        for card in Path(_DISPLAY_CARDS).glob("*")
    ):
        next_command = "sudo ubuntu-drivers install  # on Debian: apt-get install nvidia-driver"
    if next_command is None:
        return Finding.optional(what, gpu.reason)
    return Finding.warn(what, f"a card is there, and {gpu.reason}", next_command)


def _run_relu(provider: str) -> None:
    """Open and run a graph through the production backend.

    Raises:
        MotorVAEError: It does not open, does not run, or gives something else.
    """
    import numpy as np  # noqa: PLC0415  # may be what is missing

    from ...core.errors import BackendError  # noqa: PLC0415
    from ...engines.open import EngineRequest, open_file  # noqa: PLC0415  # with numpy

    with tempfile.TemporaryDirectory(prefix="motorvae-doctor-") as folder:
        path = Path(folder) / "relu.onnx"
        path.write_bytes(_RELU)
        with open_file(path, EngineRequest(provider=provider)) as backend:
            (result,) = backend.run(np.array([[-1, 0, 2]], np.float32)).values()
    if result.tolist() != [[0, 0, 2]]:
        raise BackendError(f"max(x, 0) of -1, 0, 2 came out as {result.tolist()}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _one_line(error: Exception) -> str:
    text = error.clause() if isinstance(error, MotorVAEError) else str(error)
    return " ".join(text.split()) or type(error).__name__
