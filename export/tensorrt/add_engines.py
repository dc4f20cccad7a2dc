"""Engines for a bundle: select the builder, build, verify, and write the engine manifest."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable, Sequence
from typing import Literal

from rich.console import Console

from ...runtime.bundle.graph_key import ENGINES, PARTS, GraphKey
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import FileEntry, GraphEntry, GraphReport
from ...runtime.core.atomic_files import check_writable, replaced_folder
from ...runtime.core.documents import json_from_document
from ...runtime.core.errors import (
    BackendError,
    ConfigError,
    EngineError,
    MissingDependencyError,
    OutputError,
    VerificationError,
    sentence_list,
)
from ...runtime.core.packages import own_version
from ...runtime.core.system.temporaries import without_temporaries
from ...runtime.engines.gpu_info import Gpu, NoGpu, find_gpu
from ...runtime.engines.open import open_engine
from ...runtime.engines.tensorrt.build_record import Int8Speed, RouteSettings
from ...runtime.engines.tensorrt.engine_manifest import (
    ENGINE_MANIFEST_VERSION,
    BatchProfile,
    EngineManifest,
    EngineVerification,
    this_platform,
)
from ...runtime.engines.tensorrt.find import graphs_for_engines, unknown_in_engines
from ...runtime.engines.tensorrt.package import TENSORRT_PACKAGES, TensorRTPackage, import_tensorrt
from ...runtime.signing.kept_files import config_dir
from ...runtime.signing.machine_key import own_machine_key
from ..verify.reference import Reference, reference_from_bundle
from ..verify.verifier import Verifier
from .build import BuiltEngine, EngineBuildRequest, engine_from_onnx, plan_of
from .int8_speed import int8_speed, record_int8_speed
from .routes import own_routes, tuner_options, tuner_routes
from .try_routes import fastest_engine

EngineChoice = Literal["auto", "tensorrt", "tensorrt-rtx", "none"]


def find_builder(choice: EngineChoice) -> tuple[TensorRTPackage | str, Gpu | NoGpu]:
    """Return the package that builds here, or in a clause why none does, and the GPU.

    TensorRT builds on the GPU that will run the engine. TensorRT-RTX also builds without one. An
    error is raised where the package asked for by name is not installed or cannot build here.
    """
    gpu = find_gpu()
    if choice == "none":
        return "--engine none", gpu
    reasons = []
    for name in TENSORRT_PACKAGES if choice == "auto" else (choice,):
        try:
            package = import_tensorrt(name)
        except (BackendError, MissingDependencyError) as error:
            if choice != "auto":
                raise
            reasons.append(error.clause())
            continue
        objection = package.objection_to(gpu)
        if objection is None or (package.is_rtx and isinstance(gpu, NoGpu)):
            return package, gpu
        if not package.is_rtx:
            objection = f"{package.title} builds only on a GPU and there is {objection}"
        if choice != "auto":
            raise EngineError(
                f"--engine {choice} cannot build here: {objection}; run the same command with "
                "--model on the machine that has the GPU, or use --engine none"
            )
        reasons.append(objection)
    if all(reason.endswith(" is not installed") for reason in reasons):
        reasons = [f"neither {' nor '.join(TENSORRT_PACKAGES)} is installed"]
    return " and ".join(reasons), gpu


def profile_from_text(text: str) -> BatchProfile:
    """Return the batch sizes that `--batch` names, as fewest,best,most."""
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
    request: EngineBuildRequest,
    console: Console,
    *,
    on_reports: Callable[[Sequence[GraphReport]], None],
    reference: Reference | None = None,
) -> tuple[EngineManifest, ...]:
    """Build and verify engines of every variant of the bundle's graphs in one precision.

    Engines of other precisions and of the other package stay. The folder of engines is replaced in
    one step, when all are built and have passed the gate; else it stays as it was. `on_reports`
    gets all reports before the gate decides. `reference` is the bundle's, where it is read already.
    INT8 engines that are no faster than the FP16 ones on this GPU are left out, which a line says;
    what is returned are those that were kept.

    Raises:
        BundleError: The bundle lacks a graph of that precision, or what verification needs.
        OutputError: Something else lies among the engines, or nothing can be written there.
        EngineError: An engine was not built, or is not what its label says.
        SigningError: This machine's key, which engines are tagged with, is of no use.
        VerificationError: An engine drifted past a limit.
    """
    if unknown := unknown_in_engines(bundle.folder):
        raise OutputError(
            f"{bundle.folder} holds {sentence_list(unknown[:5])}, which no motorVAE wrote: move "
            "that away, so that nothing is lost"
        )
    # Refuses where there is no encoder to build from, and names what there is.
    bundle.leanest(GraphKey("encoder", request.precision, target="tensorrt"), ("mu",))
    entries = [
        entry
        for part in PARTS
        for entry in reversed(graphs_for_engines(bundle, GraphKey(part, request.precision)))
    ]
    path = bundle.folder / ENGINES
    check_writable(path, or_folder=True)
    machine, is_new = own_machine_key()  # before any work
    if is_new:
        console.print(f"made this machine's key in {config_dir()}: it knows its engines by it")
    if reference is None and isinstance(request.gpu, Gpu):
        reference = reference_from_bundle(bundle)
    package = request.package
    with replaced_folder(path) as folder:
        if path.exists():
            shutil.copytree(path, folder, dirs_exist_ok=True, ignore=without_temporaries)
        built = [(entry, _built(bundle, entry, request, reference, console)) for entry in entries]
        # Also what passed the gate as one of several routes: a decoder is held to it here by what
        # the encoder that was kept gives, and the reports are of the engines that are written.
        verdicts = verify_engines(built, request, reference, on_reports=on_reports)
        manifests = []
        for (entry, engine), verdict in zip(built, verdicts, strict=True):
            path, about = (
                folder / one.name for one in entry.key.engine_paths(folder, package.name)
            )
            speeds: tuple[Int8Speed, ...] = ()
            if request.precision == "int8":
                speed = int8_speed(bundle, entry, engine, request, reference)
                is_left_out = speed.is_slower and not request.keep_slower
                left_out = ", so its engine was not kept" if is_left_out else ""
                console.print(f"{entry.key.for_any.title}: {speed.sentence}{left_out}")
                record_int8_speed(folder, bundle, entry, speed, package=package, key=machine)
                if is_left_out:
                    path.unlink(missing_ok=True)  # an earlier one
                    about.unlink(missing_ok=True)
                    continue
                speeds = (speed,)
            path.write_bytes(engine.plan)
            manifest = _manifest_of(
                entry, engine, request, file=FileEntry.of(path), verdict=verdict, speeds=speeds
            ).tagged(machine)
            about.write_text(json_from_document(manifest, indent=2), encoding="utf-8")
            manifests.append(manifest)
    return tuple(manifests)


def _built(
    bundle: Bundle,
    entry: GraphEntry,
    request: EngineBuildRequest,
    reference: Reference | None,
    console: Console,
) -> BuiltEngine:
    """Build a graph's engine, by the fastest of several routes where that is asked for."""
    # Not the file again, which may have been swapped since it was checked.
    content = bundle.content(entry)

    def build(route: RouteSettings) -> BuiltEngine:
        return engine_from_onnx(
            content,
            request,
            name=entry.file,
            title=entry.key.for_any.title,
            console=console,
            kept=entry.kept_float32,
            route=route,
        )

    default = build(RouteSettings())
    if request.tune_minutes is None or reference is None:  # without a GPU nothing can be timed
        return default
    routes = [*own_routes(request.package), *tuner_routes(tuner_options(request.package))]
    return fastest_engine(
        default,
        routes,
        build,
        entry=entry,
        request=request,
        reference=reference,
        console=console,
    )


def _manifest_of(
    entry: GraphEntry,
    engine: BuiltEngine,
    request: EngineBuildRequest,
    *,
    file: FileEntry,
    verdict: EngineVerification,
    speeds: tuple[Int8Speed, ...],
) -> EngineManifest:
    """Return all that is known of an engine that was just written, without this machine's tag."""
    package, gpu = request.package, request.gpu if isinstance(request.gpu, Gpu) else None
    return EngineManifest(
        schema_version=ENGINE_MANIFEST_VERSION,
        producer=f"motorvae {own_version()}",
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        graph=entry.graph,
        precision=entry.precision,
        variant=entry.variant,
        package=package.name,
        version=package.version,
        compute_capabilities=engine.compute_capabilities,
        gpu=gpu.name if gpu else None,
        driver=gpu.driver if gpu else None,
        cuda=gpu.cuda if gpu else None,
        platform=this_platform(),
        onnx_sha256=entry.sha256,
        engine=file,
        profile=request.profile,
        workspace_bytes=engine.workspace_bytes,
        precision_report=engine.precision_report,
        verification=verdict,
        build_seconds=round(engine.seconds, 3),
        routes=engine.routes,
        int8_speed=speeds,
    )


def verify_engines(
    built: Sequence[tuple[GraphEntry, BuiltEngine]],
    request: EngineBuildRequest,
    reference: Reference | None,
    *,
    on_reports: Callable[[Sequence[GraphReport]], None],
) -> list[EngineVerification]:
    """Run every engine on the backend that streams use, and compare all outputs with a reference.

    Encoders come before decoders, which are also run on what the last encoder gave. Without a GPU
    nothing is run.
    """
    package, gpu = request.package, request.gpu
    if reference is None or isinstance(gpu, NoGpu):
        reason = f"it was built without a GPU ({this_platform()}) and never run"
        return [EngineVerification(verified=False, reason=reason)] * len(built)
    verifier = Verifier.of_engines(reference, request.profile)
    reports: list[tuple[GraphReport, ...]] = []
    for entry, engine in built:
        with open_engine(plan_of(engine, entry, request), entry.key) as backend:
            reports.append(verifier.verify(entry.key, backend))
    everything = [report for of_engine in reports for report in of_engine]
    on_reports(everything)
    if failed := [clause for report in everything for clause in report.failures]:
        raise VerificationError(
            f"verification failed, no engine was kept: {', '.join(failed)}; use --engine none, or "
            f"report this with {package.title}"
        )
    return [EngineVerification(verified=True, reports=of_engine) for of_engine in reports]
