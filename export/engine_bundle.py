"""Engines for a bundle: which builder this machine has, build, verify, and the passport beside."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from ..runtime.backend import Backend
from ..runtime.bundle import Bundle, FileEntry, GraphName, GraphReport, Precision
from ..runtime.driver import Gpu, NoGpu, find_gpu
from ..runtime.engines import ENGINES, engine_paths, foreign_in_engines, open_plan
from ..runtime.errors import (
    BackendError,
    ConfigError,
    EngineError,
    MissingDependencyError,
    OutputError,
    VerificationError,
    sentence_list,
)
from ..runtime.files import check_writable, replaced_folder, sha256_of
from ..runtime.flavours import FLAVOURS, Flavour, open_flavour
from ..runtime.passport import (
    PASSPORT_VERSION,
    BatchProfile,
    EngineVerification,
    Passport,
    this_platform,
)
from .engines import BuiltEngine, engine_from_onnx, free_memory_bytes, workspace_bytes_for
from .reference import reference_from_bundle
from .verify import Reference, decoder_reports, encoder_reports

EngineChoice = Literal["auto", "tensorrt", "tensorrt-rtx", "none"]
GRAPHS: tuple[GraphName, ...] = ("encoder", "decoder")


@dataclass(frozen=True, slots=True)
class EngineOrder:
    """What engines are to be added to a bundle.

    Attributes:
        flavour: Who builds.
        gpu: The GPU of this machine, or why there is none.
        precision: Of the graphs that they are built from.
        profile: Batch sizes.
        workspace_mib: Most scratch memory in MiB, or None for what fits the machine.
    """

    flavour: Flavour
    gpu: Gpu | NoGpu
    precision: Precision
    profile: BatchProfile
    workspace_mib: int | None = None


@dataclass(frozen=True, slots=True)
class NoBuilder:
    """Why this machine builds no engine; `reason` is a clause."""

    reason: str


def find_builder(choice: EngineChoice) -> tuple[Flavour | NoBuilder, Gpu | NoGpu]:
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
        flavour = open_flavour(choice)
        if objection := _objection(flavour, gpu):
            raise EngineError(
                f"--engine {choice} cannot build here: {objection}; run the same command with "
                "--bundle on the machine that has the GPU, or use --engine none"
            )
        return flavour, gpu
    reasons = []
    for name in FLAVOURS:
        try:
            flavour = open_flavour(name)
        except (BackendError, MissingDependencyError) as error:
            reasons.append(error.clause())
            continue
        if objection := _objection(flavour, gpu):
            reasons.append(objection)
            continue
        return flavour, gpu
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
    order: EngineOrder,
    console: Console,
    *,
    on_reports: Callable[[Sequence[GraphReport]], None],
    reference: Reference | None = None,
) -> tuple[Passport, ...]:
    """Build and verify both engines of a bundle; engines of the other flavour stay.

    The folder of engines is replaced in one step, when both are built and have passed the gate;
    else it stays as it was.

    Args:
        bundle: Whose graphs the engines are built from.
        order: Which engines.
        console: For progress.
        on_reports: Called with all reports before the gate decides.
        reference: The bundle's, where a caller has read it already.

    Returns:
        The passports, encoder first.

    Raises:
        BundleError: The bundle lacks a graph of that precision, or what verification needs.
        OutputError: Something else lies among the engines, or nothing can be written there.
        EngineError: An engine was not built, or is not what its label says.
        VerificationError: An engine drifted past a limit.
    """
    place = bundle.folder / ENGINES
    if foreign := foreign_in_engines(bundle.folder):
        raise OutputError(
            f"{bundle.folder} holds {sentence_list(foreign[:5])}, which no motorVAE wrote: move "
            "that away, so that nothing is lost"
        )
    check_writable(place)
    if reference is None and isinstance(order.gpu, Gpu):
        reference = reference_from_bundle(bundle)
    with replaced_folder(place) as folder:
        if place.exists():
            shutil.copytree(place, folder, dirs_exist_ok=True)
        built = [_build(bundle, folder, graph, order, console) for graph in GRAPHS]
        verdicts = _verified(bundle, order, built, reference, on_reports)
        return tuple(
            _write_passport(bundle, folder, graph, order, built=engine, verdict=verdict)
            for graph, engine, verdict in zip(GRAPHS, built, verdicts, strict=True)
        )


def _objection(flavour: Flavour, gpu: Gpu | NoGpu) -> str | None:
    if flavour.is_rtx and isinstance(gpu, NoGpu):
        return None
    objection = flavour.objection_to(gpu)
    if objection and not flavour.is_rtx:
        return f"{flavour.title} builds only on a GPU and there is {objection}"
    return objection


def _build(
    bundle: Bundle, folder: Path, graph: GraphName, order: EngineOrder, console: Console
) -> BuiltEngine:
    onnx = bundle.path(bundle.entry(graph, order.precision))
    built = engine_from_onnx(
        onnx,
        order.flavour,
        graph=graph,
        precision=order.precision,
        profile=order.profile,
        gpu=order.gpu,
        workspace_bytes=workspace_bytes_for(
            order.gpu, requested_mib=order.workspace_mib, free_bytes=free_memory_bytes()
        ),
        console=console,
    )
    path, _ = _paths(folder, graph, order)
    path.write_bytes(built.plan)
    return built


def _paths(folder: Path, graph: GraphName, order: EngineOrder) -> tuple[Path, Path]:
    """Return engine and passport in a folder that is to become the bundle's engines."""
    engine, passport = engine_paths(folder, graph, order.precision, order.flavour.name)
    return folder / engine.name, folder / passport.name


def _verified(
    bundle: Bundle,
    order: EngineOrder,
    built: Sequence[BuiltEngine],
    reference: Reference | None,
    on_reports: Callable[[Sequence[GraphReport]], None],
) -> tuple[EngineVerification, EngineVerification]:
    """Hold both engines against the reference through the production backend.

    Each is run at the batch size that it is tuned for, which is the one that streams, and at its
    largest: an engine may have other kernels for each.
    """
    if reference is None or isinstance(order.gpu, NoGpu):
        verdict = EngineVerification(
            verified=False, reason=f"it was built without a GPU ({this_platform()}) and never run"
        )
        return verdict, verdict
    gpu = order.gpu

    def opened(position: int) -> Backend:
        graph = GRAPHS[position]
        return open_plan(
            built[position].plan,
            engine_paths(bundle.folder, graph, order.precision, order.flavour.name)[0].name,
            order.flavour,
            gpu,
            bundle.entry(graph, order.precision).sha256,
        )

    sizes = sorted({order.profile.opt, order.profile.max})
    encoded = {}
    of_encoder: list[GraphReport] = []
    of_decoder: list[GraphReport] = []
    with opened(0) as encoder:
        for size in sizes:
            reports, encoded[size] = encoder_reports(encoder, reference, order.precision, size=size)
            of_encoder += (_of_size(report, size) for report in reports)
    with opened(1) as decoder:
        for size in sizes:
            reports = decoder_reports(
                decoder, reference, order.precision, encoded=encoded[size], size=size
            )
            of_decoder += (_of_size(report, size) for report in reports)
    on_reports((*of_encoder, *of_decoder))
    failed = [clause for report in (*of_encoder, *of_decoder) for clause in report.failures]
    if failed:
        raise VerificationError(
            f"verification failed, no engine was kept: {', '.join(failed)}; use --engine none, or "
            f"report this with {order.flavour.title}"
        )
    return (
        EngineVerification(verified=True, reports=tuple(of_encoder)),
        EngineVerification(verified=True, reports=tuple(of_decoder)),
    )


def _of_size(report: GraphReport, size: int) -> GraphReport:
    return report.model_copy(update={"engine": f"{report.engine}, batch {size}"})


def _write_passport(
    bundle: Bundle,
    folder: Path,
    graph: GraphName,
    order: EngineOrder,
    *,
    built: BuiltEngine,
    verdict: EngineVerification,
) -> Passport:
    path, passport_path = _paths(folder, graph, order)
    gpu = order.gpu if isinstance(order.gpu, Gpu) else None
    passport = Passport(
        schema_version=PASSPORT_VERSION,
        producer=f"motorvae {importlib.metadata.version('motorvae')}",
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        graph=graph,
        precision=order.precision,
        flavour=order.flavour.name,
        version=order.flavour.version,
        compute_capabilities=built.compute_capabilities,
        gpu=gpu.name if gpu else None,
        driver=gpu.driver if gpu else None,
        cuda=gpu.cuda if gpu else None,
        platform=this_platform(),
        onnx_sha256=bundle.entry(graph, order.precision).sha256,
        engine=FileEntry(file=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size),
        profile=order.profile,
        workspace_bytes=built.workspace_bytes,
        receipt=built.receipt,
        verification=verdict,
        build_seconds=round(built.seconds, 3),
    )
    passport_path.write_text(passport.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return passport
