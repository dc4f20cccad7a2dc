"""Backend, the few verbs that every inference engine has, and how one is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from .bundle import Bundle, GraphName, Precision, Tensor
from .errors import missing_dependency

Arrays = Mapping[str, npt.NDArray[np.float32]]


class Backend(Protocol):
    """One opened graph on one engine. Close it, or use it in a `with` block.

    Attributes:
        name: Engine, version and device, for reports.
        notes: What a user should know of how it runs, a clause each; more can come while it runs.
    """

    name: str
    notes: tuple[str, ...]

    def run(self, batch: npt.NDArray[np.float32]) -> Arrays:
        """Run the graph once.

        Args:
            batch: The graph's one input, (N, ...) float32, C-contiguous.

        Returns:
            Output name to (N, ...) float32. The arrays belong to the caller: no later call
            writes into them.

        Raises:
            BackendError: The shape or dtype is not the graph's, or the engine failed.
        """
        ...

    def check_tensors(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Hold the graph's own inputs and outputs against those announced.

        Raises:
            BackendError: A name, shape or dtype differs; both sides are quoted.
        """
        ...

    def close(self) -> None:
        """Release the engine; calling it again does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_backend(
    bundle: Bundle,
    graph: GraphName,
    *,
    precision: Precision = "fp32",
    provider: str = "cpu",
    threads: int | None = None,
) -> Backend:
    """Open one graph of a bundle.

    Args:
        bundle: A checked bundle.
        graph: "encoder" or "decoder".
        precision: Which of the bundle's files to run.
        provider: An ONNX Runtime execution provider: `cpu`, `cuda`, or its full name.
        threads: Threads of one run; by default ONNX Runtime's choice.

    Raises:
        BundleError: The bundle has no such graph.
        ProviderError: The provider did not load.
        BackendError: The engine refused the graph.
    """
    entry = bundle.entry(graph, precision)
    backend = open_onnx(bundle.path(entry), provider=provider, threads=threads)
    try:
        backend.check_tensors(entry.inputs, entry.outputs)
    except BaseException:
        backend.close()
        raise
    return backend


def open_onnx(path: Path, *, provider: str = "cpu", threads: int | None = None) -> Backend:
    """Open an ONNX file that need not be in a bundle yet, on the engine that bundles run on.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        ProviderError: The provider did not load.
        BackendError: The engine refused the graph.
    """
    try:
        from .backend_onnx import OnnxBackend  # noqa: PLC0415  # the optional engine
    except ModuleNotFoundError as error:
        raise missing_dependency(
            "running a model", "onnxruntime", extra="cpu", instead="motorvae[gpu] on an NVIDIA GPU"
        ) from error
    return OnnxBackend(path, provider=provider, threads=threads)
