"""EngineRequest: which engine runs, as users name it; light, as every command line needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from ..bundle.graph_key import Precision
from ..core.errors import ConfigError
from .tensorrt.package import TENSORRT_PACKAGES

BackendName = Literal["auto", "tensorrt", "tensorrt-rtx", "onnx", "openvino"]


@dataclass(frozen=True)
class EngineRequest:
    """Which engine runs."""  # ConfigError where two of the settings contradict each other

    backend: BackendName = "auto"
    """auto: the first that fits of a TensorRT engine, a TensorRT-RTX engine, ONNX Runtime on the
    GPU, and on the CPU ONNX Runtime, or for int8 OpenVINO where it is installed; the first line
    says which, and why not those before it."""
    rebuild: bool = False
    """Build the engine again where it was built for another machine."""
    trust: bool = False
    """Run a TensorRT engine that neither this machine built nor a trusted key signed: whoever made
    it can do anything that you can (docs/signing.md). Graphs are opened without a trial in a
    process of its own."""
    cuda_graph: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: recorded)")] = True
    """Start an engine's copies and kernels one by one. By default they are recorded once as a CUDA
    graph; a line says so where that is not possible."""
    precision: Precision | None = None
    """Which of the bundle's graphs to run; by default fp16 for engines and fp32 otherwise. bf16 and
    int8 are never chosen unasked."""
    provider: str | None = None
    """Run ONNX Runtime on this provider: cpu, cuda, tensorrt, or a full name; it is never replaced
    silently."""
    threads: int | None = None
    """Threads of one run on a CPU; by default one for each core that this process may use, or, for
    a camera, a single one where a short trial at the start shows that to be faster."""
    outputs: Annotated[tuple[str, ...], tyro.conf.Fixed, tyro.conf.Suppress] = ()
    """What the graph must give; all that its part can give where left out. No option: each command
    knows what it needs."""

    def __post_init__(self) -> None:
        is_onnx = self.backend == "onnx" or self.provider is not None
        named = f"--backend {self.backend} was asked for: leave one of them out"
        if self.provider == "":
            raise ConfigError("provider='': name one, such as cpu or cuda, or leave --provider out")
        if self.provider is not None and self.backend not in {"auto", "onnx"}:
            raise ConfigError(f"--provider is for ONNX Runtime, and {named}")
        if self.threads is not None and self.backend in TENSORRT_PACKAGES:
            raise ConfigError(f"--threads is for CPUs, and {named}")
        if self.precision == "bf16" and is_onnx:
            raise ConfigError(
                "ONNX Runtime does not compute in bf16: use --backend openvino, or another "
                "--precision"
            )
        if self.precision == "fp16" and self.backend == "openvino":
            raise ConfigError(
                "FP16 graphs are verified for TensorRT and ONNX Runtime only: take another "
                "--precision for OpenVINO"
            )
        if self.rebuild and (is_onnx or self.backend == "openvino"):
            raise ConfigError(
                "--rebuild builds a TensorRT engine: leave it out, or --provider and --backend"
            )


ONNX_RUNTIME = EngineRequest(backend="onnx")
