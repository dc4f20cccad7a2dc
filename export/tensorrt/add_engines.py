"""Engines for a bundle: select the builder, build, verify, and write the engine manifest."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from ...runtime.bundle.graph_key import ENGINES, PARTS, GraphKey, Precision
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import FileEntry, GraphEntry, GraphReport
from ...runtime.core.atomic_files import check_writable, replaced_folder, sha256_of
from ...runtime.core.errors import (
    BackendError,
    ConfigError,
    EngineError,
    MissingDependencyError,
    OutputError,
    sentence_list,
)
from ...runtime.engines.gpu_info import Gpu, NoGpu, find_gpu
from ...runtime.engines.tensorrt.engine_manifest import (
    ENGINE_MANIFEST_VERSION,
    BatchProfile,
    EngineManifest,
    EngineVerification,
    this_platform,
)
from ...runtime.engines.tensorrt.find import (
    graphs_for_engines,
    unknown_in_engines,
)
from ...runtime.engines.tensorrt.package import TENSORRT_PACKAGES, TensorRTPackage, import_tensorrt
from ..verify.reference import Reference, reference_from_bundle
from .build import BuiltEngine, engine_from_onnx, free_memory_bytes, workspace_bytes_for
from .verify_engines import verdicts_of

EngineChoice = Literal["auto", "tensorrt", "tensorrt-rtx", "none"]


@dataclass(frozen=True, slots=True)
class EngineBuildRequest:
    """What engines are to be added to a bundle.

    Attributes:
        package: Who builds.
        gpu: The GPU of this machine, or why there is none.
        precision: Of the graphs that they are built from.
        profile: Batch sizes.
        workspace_mib: Most scratch memory in MiB, or None for what fits the machine.
    """

    package: TensorRTPackage
    gpu: Gpu | NoGpu
    precision: Precision
    profile: BatchProfile
    workspace_mib: int | None = None


@dataclass(frozen=True, slots=True)
class NoBuilder:
    """Why this machine builds no engine; `reason` is a clause."""

    reason: str


def find_builder(choice: EngineChoice) -> tuple[TensorRTPackage | NoBuilder, Gpu | NoGpu]:
    """Return the package that builds here, and the GPU it builds for.

    TensorRT builds on the GPU that will run the engine. TensorRT-RTX also builds without one.

    Raises:
        EngineError: The package asked for by name cannot build on this machine.
        MissingDependencyError: It is not installed.
    """
    gpu = find_gpu()
    if choice == "none":
        return NoBuilder("--engine none"), gpu
    if choice != "auto":
        package = import_tensorrt(choice)
        if objection := _objection(package, gpu):
            raise EngineError(
                f"--engine {choice} cannot build here: {objection}; run the same command with "
                "--model on the machine that has the GPU, or use --engine none"
            )
        return package, gpu
    reasons = []
    for name in TENSORRT_PACKAGES:
        try:
            package = import_tensorrt(name)
        except (BackendError, MissingDependencyError) as error:
            reasons.append(error.clause())
            continue
        if objection := _objection(package, gpu):
            reasons.append(objection)
            continue
        return package, gpu
    if all(reason.endswith(" is not installed") for reason in reasons):
        reasons = [f"neither {' nor '.join(TENSORRT_PACKAGES)} is installed"]
    return NoBuilder(" and ".join(reasons)), gpu


def profile_from_text(text: str) -> BatchProfile:
    """Return the batch sizes that `--batch` names, as fewest,best,most.

    Raises:
        ConfigError: They are not three rising whole numbers from 1 to 1024.
    """
    try:
        fewest, best, most = (int(part) for part in text.split(","))
        return BatchProfile(min=fewest, opt=best, max=most)
    except ValueError as error:  # pydantic's ValidationError is one
        raise ConfigError(
            f"batch={text!r}: give fewest,best,most images per run as rising whole numbers from 1 "
            "to 1024, such as 1,1,8"
        ) from error


def add_engines_to_bundle(
    bundle: Bundle,
    order: EngineBuildRequest,
    console: Console,
    *,
    on_reports: Callable[[Sequence[GraphReport]], None],
    reference: Reference | None = None,
) -> tuple[EngineManifest, ...]:
    """Build and verify engines of every form of the bundle's graphs in one precision.

    Engines of other precisions and of the other package stay. The folder of engines is replaced in
    one step, when all are built and have passed the gate; else it stays as it was.

    Args:
        bundle: Whose graphs the engines are built from.
        order: Which engines.
        console: For progress.
        on_reports: Called with all reports before the gate decides.
        reference: The bundle's, where a caller has read it already.

    Returns:
        The engine manifests, encoders first.

    Raises:
        BundleError: The bundle lacks a graph of that precision, or what verification needs.
        OutputError: Something else lies among the engines, or nothing can be written there.
        EngineError: An engine was not built, or is not what its label says.
        VerificationError: An engine drifted past a limit.
    """
    place = bundle.folder / ENGINES
    if unknown := unknown_in_engines(bundle.folder):
        raise OutputError(
            f"{bundle.folder} holds {sentence_list(unknown[:5])}, which no motorVAE wrote: move "
            "that away, so that nothing is lost"
        )
    entries = _entries(bundle, order.precision)
    check_writable(place)
    if reference is None and isinstance(order.gpu, Gpu):
        reference = reference_from_bundle(bundle)
    with replaced_folder(place) as folder:
        if place.exists():
            shutil.copytree(place, folder, dirs_exist_ok=True)
        built = [(entry, _build(bundle, folder, entry, order, console)) for entry in entries]
        verdicts = _verdicts(order, built, reference, on_reports)
        return tuple(
            _write_manifest(folder, entry, order, built=engine, verdict=verdict)
            for (entry, engine), verdict in zip(built, verdicts, strict=True)
        )


def _entries(bundle: Bundle, precision: Precision) -> list[GraphEntry]:
    """Return the graphs to build from, encoders first, and of a half the whole form first."""
    # Refuses where there is none, saying what there is.
    bundle.leanest(GraphKey("encoder", precision, target="tensorrt"), ("mu",))
    return [
        entry
        for part in PARTS
        for entry in reversed(graphs_for_engines(bundle, GraphKey(part, precision)))
    ]


def _objection(package: TensorRTPackage, gpu: Gpu | NoGpu) -> str | None:
    if package.is_rtx and isinstance(gpu, NoGpu):
        return None
    objection = package.objection_to(gpu)
    if objection and not package.is_rtx:
        return f"{package.title} builds only on a GPU and there is {objection}"
    return objection


def _build(
    bundle: Bundle, folder: Path, entry: GraphEntry, order: EngineBuildRequest, console: Console
) -> BuiltEngine:
    built = engine_from_onnx(
        bundle.path(entry),
        order.package,
        title=entry.key.for_any.title,
        precision=order.precision,
        profile=order.profile,
        gpu=order.gpu,
        workspace_bytes=workspace_bytes_for(
            order.gpu, requested_mib=order.workspace_mib, free_bytes=free_memory_bytes()
        ),
        console=console,
    )
    (folder / entry.key.engine_file(order.package.name)).write_bytes(built.plan)
    return built


def _verdicts(
    order: EngineBuildRequest,
    built: Sequence[tuple[GraphEntry, BuiltEngine]],
    reference: Reference | None,
    on_reports: Callable[[Sequence[GraphReport]], None],
) -> tuple[EngineVerification, ...]:
    if reference is None or isinstance(order.gpu, NoGpu):
        reason = f"it was built without a GPU ({this_platform()}) and never run"
        return (EngineVerification(verified=False, reason=reason),) * len(built)
    return verdicts_of(
        built,
        package=order.package,
        gpu=order.gpu,
        profile=order.profile,
        reference=reference,
        on_reports=on_reports,
    )


def _write_manifest(
    folder: Path,
    entry: GraphEntry,
    order: EngineBuildRequest,
    *,
    built: BuiltEngine,
    verdict: EngineVerification,
) -> EngineManifest:
    path = folder / entry.key.engine_file(order.package.name)
    gpu = order.gpu if isinstance(order.gpu, Gpu) else None
    engine_manifest = EngineManifest(
        schema_version=ENGINE_MANIFEST_VERSION,
        producer=f"motorvae {importlib.metadata.version('motorvae')}",
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        graph=entry.graph,
        precision=entry.precision,
        variant=entry.variant,
        package=order.package.name,
        version=order.package.version,
        compute_capabilities=built.compute_capabilities,
        gpu=gpu.name if gpu else None,
        driver=gpu.driver if gpu else None,
        cuda=gpu.cuda if gpu else None,
        platform=this_platform(),
        onnx_sha256=entry.sha256,
        engine=FileEntry(file=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size),
        profile=order.profile,
        workspace_bytes=built.workspace_bytes,
        precision_report=built.precision_report,
        verification=verdict,
        build_seconds=round(built.seconds, 3),
    )
    path.with_suffix(".json").write_text(
        engine_manifest.model_dump_json(indent=2) + "\n", encoding="utf-8"
    )
    return engine_manifest
