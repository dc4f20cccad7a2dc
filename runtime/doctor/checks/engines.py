"""The doctor's checks of what runs the model: ONNX Runtime's providers, the driver, TensorRT."""

from __future__ import annotations

import importlib.util
import platform
import tempfile
from pathlib import Path

from ...core.errors import BackendError, MissingDependencyError, MotorVAEError, sentence_list
from ...core.packages import ONNX_RUNTIME_PACKAGES, versions_of
from ...engines.gpu_info import Gpu, NoGpu, find_gpu
from ...engines.tensorrt.package import TensorRTName, import_tensorrt, title_of
from ..finding import Finding, not_loading, overwritten

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
        return (overwritten(_ONNX, installed, "'motorvae[cpu]'"),)
    package = installed[0] if installed else "onnxruntime"
    try:
        import onnxruntime as ort  # noqa: PLC0415  # an extra

        providers = ort.get_available_providers()
        _run_relu("cpu")
    except (ImportError, OSError, AttributeError, MotorVAEError) as error:
        problem = f"{package} is installed and runs nothing"
        install = "'motorvae[cpu]'"
        return (
            not_loading(_ONNX, package, "onnxruntime", error, install=install, problem=problem),
        )
    short = sentence_list([provider.removesuffix("ExecutionProvider") for provider in providers])
    runs = Finding(_ONNX, f"{ort.__version__} ran a graph on the CPU; it lists {short}")
    on_gpu = cuda_finding(providers, find_gpu())
    return (runs, on_gpu) if on_gpu else (runs,)


def cuda_finding(providers: list[str], gpu: Gpu | NoGpu) -> Finding | None:
    """Return whether ONNX Runtime can use the GPU; what it lists, it may not be able to load.

    None stands for neither a GPU nor a provider for one.

    Args:
        providers: Those that ONNX Runtime lists.
        gpu: What the driver says.
    """
    what = "CUDA provider"
    listed = CUDA in providers
    if isinstance(gpu, NoGpu):
        problem = f"listed, and does not load: {gpu.reason}"
        return Finding(what, problem, "optional") if listed else None
    if not listed:
        return Finding(
            what,
            "not in this ONNX Runtime, so that it does not use the GPU",
            "optional",
            "pip uninstall -y onnxruntime && pip install 'motorvae[gpu]'",
        )
    try:
        _run_relu("cuda")
    except MotorVAEError as error:
        return Finding(
            what,
            f"listed, and does not load: {error.clause()}",
            "warn",
            "pip install --force-reinstall 'onnxruntime-gpu[cuda,cudnn]'",
        )
    return Finding(what, "a graph ran on the GPU")


def check_gpu(_model: Path) -> tuple[Finding, ...]:
    """Ask the driver for its GPU, and open what would drive it for an engine."""
    gpu = find_gpu()
    if isinstance(gpu, NoGpu):
        return (_no_gpu(gpu),)
    shared = ", shared with the processor" if gpu.integrated else ""
    found = Finding(
        "NVIDIA GPU",
        f"{gpu.name}, compute capability {gpu.compute_capability}, driver "
        f"{gpu.driver or 'of unknown version'}, CUDA {gpu.cuda}, "
        f"{gpu.memory_bytes / 1e9:.1f} GB{shared}",
    )
    from ...engines.cuda.open import open_cuda  # noqa: PLC0415  # with numpy

    try:
        with open_cuda() as layer:
            return found, Finding("CUDA", f"opened by {layer.name}")
    except MissingDependencyError as error:
        bindings = f"pip install 'cuda-bindings<{int(gpu.cuda.partition('.')[0]) + 1}'"
        problem = f"nothing drives an engine: {error.clause()}"
        return found, Finding("CUDA", problem, "optional", bindings)
    except MotorVAEError as error:
        return found, Finding("CUDA", error.clause(), "warn", "nvidia-smi")


def check_tensorrt(_model: Path, name: TensorRTName = "tensorrt") -> tuple[Finding, ...]:
    """Import TensorRT; its Runtime is not touched, which crashes where there is no driver."""
    gpu, what, install = find_gpu(), title_of(name), f"pip install 'motorvae[{name}]'"
    if name == "tensorrt" and platform.machine() == "aarch64":
        install = "python3 -m venv --system-site-packages motorvae-env"  # JetPack brings it
    if importlib.util.find_spec(name.replace("-", "_")) is None:
        if isinstance(gpu, NoGpu):
            return (Finding(what, "not installed; for an NVIDIA GPU only", "optional"),)
        return (Finding(what, "not installed", "optional", install),)
    try:
        package = import_tensorrt(name)
    except MotorVAEError as error:
        return (Finding(what, error.clause(), "warn", install),)
    if isinstance(gpu, NoGpu):
        problem: str | None = "runs engines on an NVIDIA GPU only"
    else:
        problem = package.objection_to(gpu)
    if problem:
        return (Finding(what, f"{package.version}; {problem}", "optional"),)
    return (Finding(what, f"{package.version}, for this GPU"),)


def check_tensorrt_rtx(model: Path) -> tuple[Finding, ...]:
    """Import TensorRT-RTX, likewise."""
    return check_tensorrt(model, "tensorrt-rtx")


def _no_gpu(gpu: NoGpu) -> Finding:
    """Tell a machine without a card from one whose card cannot be reached."""
    if _KERNEL_MODULE.exists():
        # The kernel has a driver, and this process has no library of it, or no device.
        command = "nvidia-smi; in a container: docker run --gpus all"
    elif any(
        _text(card / "vendor") == _NVIDIA and _text(card / "class").startswith(_DISPLAY)
        for card in Path(_DISPLAY_CARDS).glob("*")
    ):
        command = "sudo ubuntu-drivers install  # on Debian: apt-get install nvidia-driver"
    else:
        return Finding("NVIDIA GPU", gpu.reason, "optional")
    return Finding("NVIDIA GPU", f"a card is there, and {gpu.reason}", "warn", command)


def _run_relu(provider: str) -> None:
    """Open and run a graph through the production backend.

    Raises:
        MotorVAEError: It does not open, does not run, or gives something else.
    """
    import numpy as np  # noqa: PLC0415  # may be what is missing

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
