"""EngineOptions: what every command that runs a bundle's graphs asks about the engine."""

from __future__ import annotations

from dataclasses import dataclass

from ..bundle.graph_key import Part, Precision
from ..bundle.load import Bundle
from .select import BackendName, EngineRequest, SelectedEngine, select_engine


@dataclass(frozen=True)
class EngineOptions:
    """Which engine runs."""

    backend: BackendName = "auto"
    """auto: the first that fits of a TensorRT engine, a TensorRT-RTX engine, ONNX Runtime on the
    GPU, and on the CPU ONNX Runtime, or for int8 OpenVINO where it is installed; the first line
    says which, and why not those before it."""
    rebuild: bool = False
    """Build the engine again where it was built for another machine."""
    no_cuda_graph: bool = False
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

    def open(self, bundle: Bundle, part: Part, outputs: tuple[str, ...] = ()) -> SelectedEngine:
        """Open a graph that gives these outputs, all where left out; see `select_engine`."""
        request = EngineRequest(
            backend=self.backend,
            precision=self.precision,
            provider=self.provider,
            threads=self.threads,
            cuda_graph=not self.no_cuda_graph,
            rebuild=self.rebuild,
            outputs=outputs,
        )
        return select_engine(bundle, part, request)
