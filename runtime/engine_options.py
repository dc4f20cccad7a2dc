"""EngineOptions: what every command that runs a bundle's graphs asks about the engine."""

from __future__ import annotations

from dataclasses import dataclass

from .bundle import Bundle, GraphName, Precision
from .choice import BackendName, Choice, Wish, choose_backend


@dataclass(frozen=True)
class EngineOptions:
    """Which engine runs."""

    backend: BackendName = "auto"
    """auto: the first that fits of a TensorRT engine, a TensorRT-RTX engine, ONNX Runtime on the
    GPU, ONNX Runtime on the CPU; the first line says which, and why not those before it."""
    rebuild: bool = False
    """Build the engine again where it was built for another machine."""
    no_cuda_graph: bool = False
    """Start an engine's copies and kernels one by one. By default they are recorded once as a CUDA
    graph; a line says so where that is not possible."""
    precision: Precision | None = None
    """Which of the bundle's graphs to run; by default fp16 for engines and fp32 otherwise."""
    provider: str | None = None
    """Run ONNX Runtime on this provider: cpu, cuda, tensorrt, or a full name; it is never replaced
    silently."""
    threads: int | None = None
    """Threads of one run of ONNX Runtime; by default its choice."""

    def open(self, bundle: Bundle, graph: GraphName) -> Choice:
        """Open a graph on the engine wished for; see `choose_backend`."""
        wish = Wish(
            backend=self.backend,
            precision=self.precision,
            provider=self.provider,
            threads=self.threads,
            cuda_graph=not self.no_cuda_graph,
            rebuild=self.rebuild,
        )
        return choose_backend(bundle, graph, wish)
