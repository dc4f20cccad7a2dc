"""The doctor's checks of what runs the model: ONNX Runtime, the GPU, TensorRT, the bundle."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator
from pathlib import Path

from ..bundle.graph_key import GraphKey
from ..bundle.load import Bundle, load_bundle
from ..bundle.manifest import GraphEntry
from ..core.errors import (
    BackendError,
    BundleError,
    MissingDependencyError,
    MotorVAEError,
    next_command,
    sentence_list,
)
from ..core.packages import ONNX_RUNTIME_PACKAGES, versions_of
from ..core.system.small_files import text_of_small_file
from ..engines.gpu_info import Gpu, NoGpu, find_gpu
from ..engines.tensorrt.engine_manifest import engine_manifest_from_json
from ..engines.tensorrt.find import check_engine, graphs_with_engine, precisions_with_engine
from ..engines.tensorrt.package import TENSORRT_PACKAGES, TensorRTName, import_tensorrt, title_of
from .finding import Finding, not_loading, overwritten

_ONNX = "ONNX Runtime"
_RELU = bytes.fromhex(
    "080812003a3d0a0c0a0178120179220452656c751201675a140a0178120f0a0d080112090a0312016e0a020803"
    "62140a0179120f0a0d080112090a0312016e0a02080342040a00100d"
)
"""An ONNX file of one node: (n, 3) float32 x to y = max(x, 0)."""
_NVIDIA, _DISPLAY = "0x10de", "0x03"
"""PCI vendor, and the class of display and 3D controllers."""


def check_onnx(_model: Path) -> Iterator[Finding]:
    """Let ONNX Runtime open and run a graph on the CPU, and on the GPU where there is one."""
    installed = list(versions_of(ONNX_RUNTIME_PACKAGES))
    if len(installed) > 1:
        yield overwritten(_ONNX, installed, "'motorvae[cpu]'")
        return
    package = installed[0] if installed else "onnxruntime"
    try:
        from ..engines.import_onnxruntime import ort, unknown_processor  # noqa: PLC0415  # an extra

        providers = ort.get_available_providers()
        _run_relu("cpu")
    except (ImportError, OSError, AttributeError, MotorVAEError) as error:
        problem = f"{package} is installed and runs nothing"
        install = "'motorvae[cpu]'"
        yield not_loading(_ONNX, package, "onnxruntime", error, install=install, problem=problem)
        return
    short = sentence_list([provider.removesuffix("ExecutionProvider") for provider in providers])
    ran = f"{ort.__version__} ran a graph on the CPU; it lists {short}"
    if clause := unknown_processor():
        command = "ls /sys/devices/system/cpu  # a container needs the host's /sys"
        yield Finding(_ONNX, f"{ran}; {clause}, and may take slower kernels", "warn", command)
    else:
        yield Finding(_ONNX, ran)
    if on_gpu := cuda_finding(providers, find_gpu()):
        yield on_gpu


def cuda_finding(providers: list[str], gpu: Gpu | NoGpu) -> Finding | None:
    """Return whether ONNX Runtime can use the GPU; a provider that it lists may not load.

    None stands for neither a GPU nor a provider for one.
    """
    what, failed = "CUDA provider", "listed, and does not load"
    listed = "CUDAExecutionProvider" in providers
    if isinstance(gpu, NoGpu):
        return Finding(what, f"{failed}: {gpu.reason}", "optional") if listed else None
    if not listed:
        problem = "not in this ONNX Runtime, so that it does not use the GPU"
        command = "pip uninstall -y onnxruntime && pip install 'motorvae[gpu]'"
        return Finding(what, problem, "optional", command)
    try:
        _run_relu("cuda")
    except MotorVAEError as error:
        command = "pip install --force-reinstall 'onnxruntime-gpu[cuda,cudnn]'"
        return Finding(what, f"{failed}: {error.clause()}", "warn", command)
    return Finding(what, "a graph ran on the GPU")


def check_gpu(_model: Path) -> Iterator[Finding]:
    """Ask the driver for its GPU, and open what would drive it for an engine."""
    gpu = find_gpu()
    if isinstance(gpu, NoGpu):
        yield _no_gpu(gpu)
        return
    shared = ", shared with the processor" if gpu.integrated else ""
    yield Finding(
        "NVIDIA GPU",
        f"{gpu.name}, compute capability {gpu.compute_capability}, driver "
        f"{gpu.driver or 'of unknown version'}, CUDA {gpu.cuda}, "
        f"{gpu.memory_bytes / 1e9:.1f} GB{shared}",
    )
    from ..engines.open import open_cuda  # noqa: PLC0415  # with numpy

    try:
        with open_cuda() as layer:
            name = layer.name
    except MissingDependencyError as error:
        bindings = f"pip install 'cuda-bindings<{int(gpu.cuda.partition('.')[0]) + 1}'"
        problem = f"nothing drives an engine: {error.clause()}"
        yield Finding("CUDA", problem, "optional", bindings)
    except MotorVAEError as error:
        yield Finding("CUDA", error.clause(), "warn", "nvidia-smi")
    else:
        yield Finding("CUDA", f"opened by {name}")


def check_tensorrt(_model: Path, name: TensorRTName = "tensorrt") -> Iterator[Finding]:
    """Import TensorRT; its Runtime is not touched, which crashes where there is no driver."""
    gpu, what, install = find_gpu(), title_of(name), f"pip install 'motorvae[{name}]'"
    if name == "tensorrt" and platform.machine() == "aarch64":
        install = "python3 -m venv --system-site-packages motorvae-env"  # JetPack brings it
    if importlib.util.find_spec(name.replace("-", "_")) is None:
        if isinstance(gpu, NoGpu):
            yield Finding(what, "not installed; for an NVIDIA GPU only", "optional")
        else:
            yield Finding(what, "not installed", "optional", install)
        return
    try:
        package = import_tensorrt(name)
    except MotorVAEError as error:
        yield Finding(what, error.clause(), "warn", install)
        return
    without_gpu = "runs engines on an NVIDIA GPU only"
    problem = without_gpu if isinstance(gpu, NoGpu) else package.objection_to(gpu)
    if problem:
        yield Finding(what, f"{package.version}; {problem}", "optional")
    else:
        yield Finding(what, f"{package.version}, for this GPU")


def check_bundle(model: Path) -> Iterator[Finding]:
    """Read the bundle as a stream would, and look at each engine in it."""
    try:
        bundle = load_bundle(model)
    except BundleError as error:
        found = str(error) if model.exists() else f"no bundle at {model}"
        yield Finding("bundle", found, "FAILED", _export(model))
        return
    entries = (*bundle.manifest.graphs, *bundle.manifest.files)
    graphs = sentence_list([entry.title for entry in bundle.manifest.graphs])
    sizes = {entry.file: entry.on_disk.size_bytes for entry in entries}
    size = f"{len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB, no byte altered"
    yield Finding("bundle", f"{model}: {graphs}; {size}")
    yield from _encoder(bundle)
    yield from _engines(bundle, find_gpu())


def _encoder(bundle: Bundle) -> Iterator[Finding]:
    """Encode a black image on the CPU."""
    try:
        import numpy as np  # noqa: PLC0415  # may be what is missing

        from ..engines.open import open_engine  # noqa: PLC0415  # with numpy

        shape = bundle.spec.input_shape
        with open_engine(bundle, GraphKey("encoder")) as backend:
            mu = backend.run(np.zeros((1, *shape), np.float32))["mu"]
    except (MissingDependencyError, ModuleNotFoundError):
        return  # it has a row of its own
    except MotorVAEError as error:
        problem = str(error)
    else:
        if np.isfinite(mu).all():
            found = f"fp32 ran on the CPU: {shape[1]}x{shape[2]} to {mu.shape[1]} latents"
            yield Finding("encoder", found)
            return
        problem = "its latents of a black image are not finite numbers"
    yield Finding("encoder", problem, "FAILED", _export(bundle.folder))


def _engines(bundle: Bundle, gpu: Gpu | NoGpu) -> Iterator[Finding]:
    """Return for each engine whether it fits this machine, without loading it."""
    found = [
        (package, entry)
        for package in TENSORRT_PACKAGES
        for precision in precisions_with_engine(bundle, "encoder", package)
        for entry in graphs_with_engine(bundle, GraphKey("encoder", precision), package)
    ]
    for package, entry in found:
        yield _engine(bundle, package, entry, gpu)
    if not found:
        command = next_command("motorvae-export", "--model", bundle.folder, "--fp16")
        useful = command if isinstance(gpu, Gpu) else None
        yield Finding("engines", "none in this bundle; ONNX Runtime runs it", "optional", useful)


def _engine(bundle: Bundle, name: TensorRTName, entry: GraphEntry, gpu: Gpu | NoGpu) -> Finding:
    variant = "" if entry.variant == "full" else f" {entry.variant}"
    what = f"engine {entry.precision}{variant}"
    try:
        if isinstance(gpu, NoGpu):
            _, path = entry.key.engine_paths(bundle.folder, name)
            manifest = engine_manifest_from_json(path)
            built_for = f"compute capability {sentence_list(manifest.compute_capabilities)}"
            found = f"{title_of(name)} {manifest.version}, for {built_for}; no GPU here runs it"
            return Finding(what, found, "optional")
        package = import_tensorrt(name)
        if objection := package.objection_to(gpu):
            return Finding(what, objection, "optional")
        manifest, _ = check_engine(bundle, entry, package, gpu)
    except MotorVAEError as error:
        again = next_command("motorvae-export", "--model", bundle.folder, "--engine", name)
        precision = "" if entry.precision == "fp32" else f" --{entry.precision}"
        return Finding(what, str(error), "warn", f"{again}{precision}")
    verified = "verified" if manifest.verification.verified else "not verified"
    return Finding(what, f"{title_of(name)} {manifest.version} fits, {verified}")


def _export(model: Path) -> str:
    """Return the command that writes a bundle there, with the training that it may need first."""
    output = [] if model == Path("bundle") else ["--output", model]
    export = next_command("motorvae-export", "--fp16", *output)
    return export if Path("runs/latest").exists() else f"motorvae-train && {export}"


def _no_gpu(gpu: NoGpu) -> Finding:
    """Distinguish a machine without a card from one whose card cannot be reached."""
    if Path("/proc/driver/nvidia/version").exists():
        # The kernel has a driver, and this process has no library of it, or no device.
        command = "nvidia-smi; in a container: docker run --gpus all"
    elif any(
        text_of_small_file(card / "vendor") == _NVIDIA
        and text_of_small_file(card / "class").startswith(_DISPLAY)
        for card in Path("/sys/bus/pci/devices").glob("*")
    ):
        command = "sudo ubuntu-drivers install  # on Debian: apt-get install nvidia-driver"
    else:
        return Finding("NVIDIA GPU", gpu.reason, "optional")
    return Finding("NVIDIA GPU", f"a card is there, and {gpu.reason}", "warn", command)


def _run_relu(provider: str) -> None:
    """Run a graph through the production backend; any failure is a MotorVAEError."""
    import numpy as np  # noqa: PLC0415  # may be what is missing

    from ..engines.open import EngineRequest, open_file  # noqa: PLC0415  # with numpy

    with open_file(Path("relu.onnx"), EngineRequest(provider=provider), _RELU) as backend:
        (result,) = backend.run(np.array([[-1, 0, 2]], np.float32)).values()
    if result.tolist() != [[0, 0, 2]]:
        raise BackendError(f"max(x, 0) of -1, 0, 2 came out as {result.tolist()}")
