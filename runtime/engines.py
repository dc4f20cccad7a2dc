"""Engines of a bundle: where they lie, whether one fits this machine, and opening it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import get_args

from .backend import Backend
from .bundle import Bundle, GraphName, Precision
from .cuda import open_cuda
from .driver import Gpu
from .errors import EngineError
from .flavours import FLAVOURS, Flavour, FlavourName, title_of
from .passport import Passport, passport_from_json
from .places import cache_folder

ENGINES = "engines"


def engine_paths(
    folder: Path, graph: GraphName, precision: Precision, flavour: FlavourName
) -> tuple[Path, Path]:
    """Return where an engine of a bundle lies, and its passport beside it."""
    stem = f"{graph}.{precision}.{flavour}"
    return folder / ENGINES / f"{stem}.engine", folder / ENGINES / f"{stem}.json"


def foreign_in_engines(folder: Path) -> list[str]:
    """Return what lies among a bundle's engines and is neither an engine nor a passport."""
    ours = {
        path.name
        for graph in get_args(GraphName)
        for precision in get_args(Precision)
        for flavour in FLAVOURS
        for path in engine_paths(folder, graph, precision, flavour)
    }
    place = folder / ENGINES
    if not place.is_dir():
        return [ENGINES] if place.exists() or place.is_symlink() else []
    return sorted(
        f"{ENGINES}/{path.name}"
        for path in place.iterdir()
        if path.name not in ours or path.is_symlink() or not path.is_file()
    )


def precisions_with_engine(
    bundle: Bundle, graph: GraphName, flavour: FlavourName
) -> tuple[Precision, ...]:
    """Return in which precisions a bundle holds an engine of a flavour, FP16 first."""
    order: tuple[Precision, ...] = ("fp16", "fp32")
    return tuple(
        precision
        for precision in order
        if any(path.exists() for path in engine_paths(bundle.folder, graph, precision, flavour))
    )


def check_engine(
    bundle: Bundle, graph: GraphName, precision: Precision, flavour: Flavour, gpu: Gpu
) -> tuple[Passport, bytes]:
    """Make sure that a bundle's engine is whole and was built for this machine, before it loads.

    A foreign engine ends in a cryptic error at best and in a crash at worst.

    Returns:
        The passport, and the engine: the very bytes that were checked.

    Raises:
        EngineError: It is absent, altered, or for another machine, version or graph.
    """
    engine, passport_path = engine_paths(bundle.folder, graph, precision, flavour.name)
    again = (
        f"run motorvae-export --bundle {bundle.folder} --engine {flavour.name}"
        f"{' --fp16' if precision == 'fp16' else ''} here, or add --rebuild"
    )
    if not engine.is_file() or not passport_path.is_file():
        missing = passport_path.name if engine.is_file() else engine.name
        raise EngineError(f"{bundle.folder} has no {missing}: {again}")
    try:
        passport = passport_from_json(passport_path)
    except EngineError as error:
        raise EngineError(f"{error}: {again}") from error
    named = (passport.graph, passport.precision, passport.flavour)
    if named != (graph, precision, flavour.name):
        raise EngineError(f"{passport_path} describes {' '.join(named)}: {again}")
    if problem := passport.mismatch(flavour, gpu, bundle.entry(graph, precision).sha256):
        raise EngineError(f"{problem}: {again}")
    if problem := passport.receipt.problem_with(precision):
        raise EngineError(f"{engine.name} is not {precision}: {problem}: {again}")
    try:
        plan = engine.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read {engine}: {error.strerror}: {again}") from error
    if len(plan) != passport.engine.size_bytes:
        raise EngineError(
            f"{engine} has {len(plan)} bytes, and its passport says "
            f"{passport.engine.size_bytes}: {again}"
        )
    if hashlib.sha256(plan).hexdigest() != passport.engine.sha256:
        raise EngineError(f"{engine} was altered after it was built: {again}")
    return passport, plan


def open_engine(
    bundle: Bundle,
    graph: GraphName,
    precision: Precision,
    flavour: Flavour,
    gpu: Gpu,
    *,
    cuda_graph: bool = True,
) -> tuple[Backend, Passport]:
    """Check and open one engine of a bundle.

    Raises:
        EngineError: It does not fit this machine, or does not load; see `check_engine`.
        MissingDependencyError: Neither pycuda nor cuda-bindings is installed.
        BackendError: The GPU has no memory left.
    """
    passport, plan = check_engine(bundle, graph, precision, flavour, gpu)
    entry = bundle.entry(graph, precision)
    backend = open_plan(
        plan, passport.engine.file, flavour, gpu, passport.onnx_sha256, cuda_graph=cuda_graph
    )
    try:
        backend.check_tensors(entry.inputs, entry.outputs)
    except BaseException:
        backend.close()
        raise
    return backend, passport


def open_plan(
    plan: bytes,
    name: str,
    flavour: Flavour,
    gpu: Gpu,
    onnx_sha256: str,
    *,
    cuda_graph: bool = True,
) -> Backend:
    """Open an engine that need not have a passport yet, as it was just built on this machine.

    Args:
        plan: The engine.
        name: Its file, for messages.
        flavour: The package that built it.
        gpu: The GPU of this machine.
        onnx_sha256: Identity of the graph that it was built from.
        cuda_graph: Whether it may run as a recorded CUDA graph.

    Raises:
        EngineError: It does not load.
        MissingDependencyError: Neither pycuda nor cuda-bindings is installed.
        BackendError: The GPU has no memory left.
    """
    from .backend_tensorrt import TensorRTBackend  # noqa: PLC0415  # needs a GPU from here on

    capability = gpu.compute_capability.replace(".", "")
    kept = f"kernels-{onnx_sha256[:16]}-{flavour.version}-sm{capability}.cache"
    return TensorRTBackend(
        plan,
        name,
        flavour,
        open_cuda(),
        gpu_name=gpu.name,
        cuda_graph=cuda_graph,
        runtime_cache=cache_folder() / kept if flavour.is_rtx else None,
    )


def no_engine(bundle: Bundle, graph: GraphName, flavour: FlavourName) -> str:
    """Return in a clause that a bundle holds no engine of a flavour."""
    return f"{bundle.folder} holds no {title_of(flavour)} engine of its {graph}"
