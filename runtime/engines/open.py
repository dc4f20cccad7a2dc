"""open_engine opens a graph on the engine that a request names, wherever the graph lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle.graph_key import GraphKey, Precision
from ..bundle.load import Bundle
from ..core.errors import BackendError, ConfigError, needed_for
from ..core.spec import ModelSpec
from .base import Backend, CpuRunner
from .gpu_info import find_gpu
from .open_graph import open_graph
from .request import ONNX_RUNTIME, BackendName, EngineRequest
from .tensorrt.package import TensorRTName
from .trial.run import Limits, check_opening

if TYPE_CHECKING:
    from .cuda.base import CudaLayer
    from .tensorrt.find import EnginePlan

__all__ = (
    "ONNX_RUNTIME",
    "BackendName",
    "EngineRequest",
    "GraphFile",
    "open_cuda",
    "open_engine",
    "open_file",
    "open_plan",
)


@dataclass(frozen=True, slots=True)
class GraphFile:
    """An ONNX graph of a model of these sizes that is in no bundle yet."""

    path: Path
    spec: ModelSpec


def open_engine(
    source: Bundle | GraphFile | EnginePlan, key: GraphKey, request: EngineRequest = ONNX_RUNTIME
) -> Backend:
    """Open one graph on one engine, its tensors compared with those that its key announces.

    It lies in a checked bundle, an ONNX file, or an engine in memory, which runs in the package
    that built it. The precision of the key is what is computed in. The request names the engine;
    choosing one is the business of `select_engine`. A bundle's graph that this machine has not
    opened yet is tried in a process of its own first, unless the request trusts it.

    Raises:
        ConfigError: No engine is named, or it does not run what `source` is.
        BundleError: The bundle has no such graph, its file was altered, or the engine crashed,
            hung or ran out of memory when it was tried.
        MissingDependencyError: The engine is not installed.
        BackendError: The provider did not load, the engine refused the graph or does not compute
            it in its precision, or the graph's own tensors are others; an EngineError where the
            TensorRT engine is absent, does not fit this machine, is of unknown origin, or does
            not load.
    """
    if isinstance(source, Bundle):
        entry = source.entry(key)
        if request.backend in {"tensorrt", "tensorrt-rtx"}:
            from .tensorrt.find import check_engine, usable_package  # noqa: PLC0415  # as below

            package, gpu = usable_package(request.backend, find_gpu())
            _, plan = check_engine(source, entry, package, gpu, trust=request.trust)
            return open_engine(plan, key, request)
        path, runner = source.folder / entry.file, _runner_of(request)
        content = source.content(entry)
        untried = None
        if runner is not None and not request.trust:
            limits = Limits.of(entry, source.spec)
            untried = check_opening(path, entry, runner, limits, threads=request.threads)
        # Not the file again, which may have been swapped since.
        backend = open_file(path, replace(request, precision=key.precision), content)
        backend.notes += (untried,) if untried else ()
        inputs, outputs = entry.inputs, entry.outputs
    elif isinstance(source, GraphFile):
        backend = open_file(source.path, replace(request, precision=key.precision))
        inputs, outputs = key.inputs(source.spec), key.outputs(source.spec)
    else:
        from .tensorrt.engine import TensorRTBackend  # noqa: PLC0415  # needs a GPU from here on

        backend = TensorRTBackend(source, open_cuda(), cuda_graph=request.cuda_graph)
        backend.notes += source.notes
        inputs, outputs = source.entry.inputs, source.entry.outputs
    try:
        backend.check_tensors(inputs, outputs)
    except BaseException:
        backend.close()
        raise
    return backend


def open_file(
    path: Path,
    request: EngineRequest = ONNX_RUNTIME,
    content: bytes | None = None,
    *,
    external_data: bool = False,
    computed: Precision | None = None,
) -> Backend:
    """Open an ONNX file that is none of the model's graphs, such as one that gives inner values.

    Nothing of it is checked but that it has one input. Where its `content` is given, the file is
    not read. Other files that it names are read with `external_data` alone. OpenVINO must compute
    in the precision of the request, or in what is `computed`. Raises what `open_engine` does.
    """
    runner = _runner_of(request)
    if runner is None:
        raise ConfigError(
            f"--backend {request.backend} does not run {path.name}: name onnx or openvino"
        )
    return open_graph(
        path,
        runner,
        content=content,
        precision=computed or request.precision or "fp32",
        provider=request.provider or "cpu",
        threads=request.threads,
        external_data=external_data,
    )


def open_plan(path: Path, name: TensorRTName, precision: Precision) -> Backend:
    """Open a TensorRT engine that lies anywhere, whoever built it, on this machine's GPU.

    It is a program that runs with the user's rights, who must have said that it may. Raises what
    `open_engine` does.
    """
    from .tensorrt.find import plan_from_file, usable_package  # noqa: PLC0415  # as above

    package, gpu = usable_package(name, find_gpu())
    plan = plan_from_file(path, precision, package, gpu)
    from .tensorrt.engine import TensorRTBackend  # noqa: PLC0415  # needs a GPU from here on

    return TensorRTBackend(plan, open_cuda())


def _runner_of(request: EngineRequest) -> CpuRunner | None:
    if request.provider is not None or request.backend == "onnx":
        return "onnx"
    return "openvino" if request.backend == "openvino" else None


def open_cuda(*, device: int = 0) -> CudaLayer:
    """Open a GPU (its number as CUDA counts) through pycuda, or else through cuda-bindings."""
    try:
        from .cuda.pycuda_layer import PycudaLayer  # noqa: PLC0415  # the optional device layer
    except ModuleNotFoundError:
        pass
    except ImportError as error:  # it is linked to the driver, or was built for another Python
        raise BackendError(
            f"pycuda is installed and does not load ({error}): install the NVIDIA driver, build "
            "pycuda again, or use --backend onnx"
        ) from error
    else:
        return PycudaLayer(device)
    feature, way_round = "running a TensorRT engine", "pip install cuda-bindings"
    with needed_for(feature, extra="pycuda", package="pycuda", instead=way_round):
        from .cuda.bindings import BindingsLayer  # noqa: PLC0415  # the optional device layer
    return BindingsLayer(device)
