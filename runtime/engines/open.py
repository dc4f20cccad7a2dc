"""Backend, the few verbs that every inference engine has, and how one is opened."""

from __future__ import annotations

from pathlib import Path

from ..bundle.graph_key import GraphKey, Precision
from ..bundle.load import Bundle
from ..bundle.manifest import GraphEntry
from ..core.errors import missing_dependency
from .base import Backend, CpuRunner


def open_backend(
    bundle: Bundle,
    key: GraphKey,
    *,
    provider: str = "cpu",
    threads: int | None = None,
) -> Backend:
    """Open one graph of a bundle, with the contract's inputs and outputs, in ONNX Runtime.

    Args:
        bundle: A checked bundle.
        key: Which.
        provider: An ONNX Runtime execution provider: `cpu`, `cuda`, or its full name.
        threads: Threads of one run; by default what `threads.default_threads` says.

    Raises:
        BundleError: The bundle has no such graph.
        ProviderError: The provider did not load.
        BackendError: The engine refused the graph.
    """
    return open_entry(bundle, bundle.entry(key), runner="onnx", provider=provider, threads=threads)


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
        from .openvino_runtime import OpenVINOBackend  # noqa: PLC0415  # the optional engine
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
        from .onnx_runtime import OnnxBackend  # noqa: PLC0415  # the optional engine
    except ModuleNotFoundError as error:
        raise missing_dependency(
            "running a model", "onnxruntime", extra="cpu", instead="motorvae[gpu] on an NVIDIA GPU"
        ) from error
    return OnnxBackend(path, provider=provider, threads=threads)
