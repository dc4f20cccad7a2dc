"""Backend, the few verbs that every inference engine has, and how one is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from .bundle import Bundle, GraphEntry, GraphName, Precision, Tensor
from .errors import BackendError, missing_dependency

Arrays = Mapping[str, npt.NDArray[np.float32]]
Batch = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
CpuRunner = Literal["onnx", "openvino"]


class Backend(Protocol):
    """One opened graph on one engine. Close it, or use it in a `with` block.

    Attributes:
        name: Engine, version and device, for reports.
        notes: What a user should know of how it runs, a clause each; more can come while it runs.
        input_dtype: What the graph takes: float32, or uint8 where it scales 8-bit luma itself.
        outputs: Names of what it gives.
        threads: How many one run takes on the CPU; None where it does not run there.
    """

    name: str
    notes: tuple[str, ...]
    input_dtype: np.dtype[Any]
    outputs: tuple[str, ...]
    threads: int | None

    def run(self, batch: Batch) -> Arrays:
        """Run the graph once.

        Args:
            batch: The graph's one input, (N, ...) of `input_dtype`, C-contiguous.

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


def check_batch(
    batch: Batch,
    dtype: np.dtype[Any],
    image: tuple[int, ...],
    name: str,
) -> None:
    """Hold an input against what a graph takes.

    Args:
        batch: What was given.
        dtype: What the graph takes.
        image: Its shape without the batch.
        name: The graph's file, for the message.

    Raises:
        BackendError: Shape or dtype is another.
    """
    if batch.dtype != dtype or batch.shape[1:] != image or not len(batch):
        raise BackendError(
            f"{name} takes {dtype} (N, {', '.join(map(str, image))}), and was given {batch.dtype} "
            f"{batch.shape}: prepare images with motorVAE's own frame-to-input function"
        )


def open_backend(
    bundle: Bundle,
    graph: GraphName,
    *,
    precision: Precision = "fp32",
    provider: str = "cpu",
    threads: int | None = None,
) -> Backend:
    """Open one graph of a bundle, with the contract's inputs and outputs, in ONNX Runtime.

    Args:
        bundle: A checked bundle.
        graph: "encoder" or "decoder".
        precision: Which of the bundle's files to run.
        provider: An ONNX Runtime execution provider: `cpu`, `cuda`, or its full name.
        threads: Threads of one run; by default what `threads.default_threads` says.

    Raises:
        BundleError: The bundle has no such graph.
        ProviderError: The provider did not load.
        BackendError: The engine refused the graph.
    """
    entry = bundle.entry(graph, precision)
    return open_entry(bundle, entry, runner="onnx", provider=provider, threads=threads)


def open_entry(
    bundle: Bundle,
    entry: GraphEntry,
    *,
    runner: CpuRunner,
    provider: str = "cpu",
    threads: int | None = None,
) -> Backend:
    """Open any form of a bundle's graphs and hold its tensors against the manifest.

    Args:
        bundle: A checked bundle.
        entry: One of its graphs.
        runner: The engine; OpenVINO runs on the CPU and takes no provider.
        provider: See `open_backend`.
        threads: Threads of one run; by default what `threads.default_threads` says.

    Raises:
        MissingDependencyError: The engine is not installed.
        ProviderError: The provider did not load.
        BackendError: The engine refused the graph, or does not compute it in its precision.
    """
    path = bundle.path(entry)
    if runner == "openvino":
        backend = open_openvino(path, precision=entry.precision, threads=threads)
    else:
        backend = open_onnx(path, provider=provider, threads=threads)
    try:
        backend.check_tensors(entry.inputs, entry.outputs)
    except BaseException:
        backend.close()
        raise
    return backend


def open_openvino(
    path: Path, *, precision: Precision = "fp32", threads: int | None = None
) -> Backend:
    """Open an ONNX file that need not be in a bundle yet in OpenVINO.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
        BackendError: OpenVINO refused the graph, or does not compute it in this precision.
    """
    try:
        from .backend_openvino import OpenVINOBackend  # noqa: PLC0415  # the optional engine
    except ModuleNotFoundError as error:
        raise missing_dependency(
            "running a model in OpenVINO", "openvino", extra="openvino", instead="--backend onnx"
        ) from error
    return OpenVINOBackend(path, precision=precision, threads=threads)


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
