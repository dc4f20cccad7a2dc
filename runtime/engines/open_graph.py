"""open_graph opens an ONNX file in ONNX Runtime or OpenVINO, neither of which need be installed."""

from __future__ import annotations

import platform
from pathlib import Path

from ..bundle.graph_key import Precision
from ..core.errors import needed_for
from .base import Backend, CpuRunner
from .float_arithmetic import float32_arithmetic


def library_of(runner: CpuRunner) -> str:
    """Load an engine and return its name and version; a MissingDependencyError without it."""
    if runner == "openvino":
        feature = "running a model in OpenVINO"
        with needed_for(feature, extra="openvino", package="openvino", instead="--backend onnx"):
            from .openvino_runtime import OpenVINOBackend  # noqa: PLC0415  # the optional engine
        return OpenVINOBackend.library
    way_round = "motorvae[gpu] on an NVIDIA GPU"
    with needed_for("running a model", extra="cpu", package="onnxruntime", instead=way_round):
        from .onnx_runtime import OnnxBackend  # noqa: PLC0415  # the optional engine
    return OnnxBackend.library


def open_graph(
    path: Path,
    runner: CpuRunner,
    *,
    content: bytes | None = None,
    precision: Precision = "fp32",
    provider: str = "cpu",
    threads: int | None = None,
    external_data: bool = False,
) -> Backend:
    """Open a file; `provider` is for ONNX Runtime alone.

    Where the file's `content` is given, it is not read; with `external_data`, other files that it
    names are. In ONNX Runtime on a CPU the arithmetic of "fp16" graphs is float32 on every
    processor; one that is none of ours stays as it is, which a note says where that may not be so.
    Raises what `open_engine` does.
    """
    library_of(runner)
    if runner == "openvino":
        from .openvino_runtime import OpenVINOBackend  # noqa: PLC0415  # loaded above

        return OpenVINOBackend(
            path, content, precision=precision, threads=threads, external_data=external_data
        )
    from .onnx_runtime import OnnxBackend, is_cpu  # noqa: PLC0415  # loaded above

    problem = None
    if precision == "fp16" and is_cpu(provider) and not external_data:
        try:
            content = float32_arithmetic(path.read_bytes() if content is None else content)
        except ValueError as error:
            problem = error
        except OSError:  # the engine says what it cannot read
            pass
    backend = OnnxBackend(
        path, content, provider=provider, threads=threads, external_data=external_data
    )
    if problem is not None and platform.machine().lower() not in {"x86_64", "amd64"}:
        backend.notes += (f"it may add up in FP16 on this processor, as {problem}",)
    return backend
