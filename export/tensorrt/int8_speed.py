"""INT8 engines compared with the FP16 ones that give the same, which stay where they are faster."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ...runtime.bundle.graph_key import PARTS, GraphKey, Precision
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import GraphEntry
from ...runtime.core.documents import json_from_document
from ...runtime.core.errors import (
    BackendError,
    EngineError,
    EngineFitError,
    MissingDependencyError,
)
from ...runtime.engines.gpu_info import NoGpu
from ...runtime.engines.open import open_engine
from ...runtime.engines.tensorrt.build_record import Int8Speed
from ...runtime.engines.tensorrt.engine_manifest import (
    ENGINE_MANIFEST_VERSION,
    ReadEngineManifest,
)
from ...runtime.engines.tensorrt.find import (
    EnginePlan,
    check_engine,
    engine_manifest_of,
    graphs_for_engines,
)
from ...runtime.engines.tensorrt.package import TensorRTPackage
from ...runtime.signing.machine_key import MachineKey
from ..verify.reference import Reference
from .build import BuiltEngine, EngineBuildRequest, plan_of
from .timing import times_of


def with_fp16_to_compare(
    bundle: Bundle, engines: tuple[Precision, ...], request: EngineBuildRequest
) -> tuple[Precision, ...]:
    """Return the precisions of engines to build, with FP16 before INT8 where it is lacking.

    FP16 engines that the bundle has stay, tuned or for other batches or another core: somebody
    asked for them. Only where this machine could run none of them are they built anew.
    """
    halves = [half for part in PARTS for half in graphs_for_engines(bundle, GraphKey(part, "fp16"))]
    if "int8" not in engines or "fp16" in engines or isinstance(request.gpu, NoGpu) or not halves:
        return engines
    return engines if any(_stays(bundle, half, request) for half in halves) else ("fp16", *engines)


def _stays(bundle: Bundle, half: GraphEntry, request: EngineBuildRequest) -> bool:
    try:
        comparable_fp16(bundle, half, request)
    except EngineFitError:
        return False
    except (BackendError, MissingDependencyError):  # it is of another form, or nobody can tell
        return True
    return True


def comparable_fp16(bundle: Bundle, half: GraphEntry, request: EngineBuildRequest) -> EnginePlan:
    """Return the engine of an FP16 graph that INT8 ones of a request are measured against.

    Raises:
        EngineFitError: There is none, or it is not for this machine and graph.
        EngineError: There is no GPU, or it was built for other batches or another core.
    """
    package, gpu = request.package, request.gpu
    if isinstance(gpu, NoGpu):
        raise EngineError("it was built without a GPU")
    manifest = engine_manifest_of(bundle, half, package.name).manifest
    placed, core = manifest.precision_report.dla, request.dla.core if request.dla else None
    if (placed.core if placed else None) != core or manifest.profile != request.profile:
        raise EngineError(
            "the bundle's FP16 engine was built for other batches or another core, and stays, as "
            "--fp16 was not asked for"
        )
    return check_engine(bundle, half, package, gpu)[1]


def int8_speed(
    bundle: Bundle,
    entry: GraphEntry,
    engine: BuiltEngine,
    request: EngineBuildRequest,
    reference: Reference | None,
) -> Int8Speed:
    """Measure a new INT8 engine against the FP16 one that gives the same, at the tuned batch size.

    The FP16 engine lies in the bundle, and was built by this machine for this GPU; where there is
    none, or no GPU, the reason is returned.
    """
    outputs = {tensor.name for tensor in entry.outputs}
    half = next(
        (
            one
            for one in graphs_for_engines(bundle, GraphKey(entry.graph, "fp16"))
            if {tensor.name for tensor in one.outputs} == outputs
        ),
        None,
    )
    variant = None if half is None else half.variant
    unknown = Int8Speed(
        int8=entry.variant, int8_sha256=entry.sha256, fp16=variant, reason="nothing was run"
    )
    if reference is None:
        return unknown.model_copy(update={"reason": "it was built without a GPU"})
    if half is None:
        reason = "the bundle has no FP16 graph to compare with, which --fp16 would add"
        return unknown.model_copy(update={"reason": reason})
    try:
        plan = comparable_fp16(bundle, half, request)
        with (
            open_engine(plan_of(engine, entry, request), entry.key) as one,
            open_engine(plan, half.key) as other,
        ):
            keys = (entry.key, half.key)
            times = times_of(one, other, keys, reference, request.profile.opt)
    except (BackendError, MissingDependencyError) as error:
        return unknown.model_copy(update={"reason": error.clause()})
    return unknown.model_copy(update={"times": times, "reason": None})


def record_int8_speed(
    folder: Path,
    bundle: Bundle,
    entry: GraphEntry,
    speed: Int8Speed,
    *,
    package: TensorRTPackage,
    key: MachineKey,
) -> None:
    """Note in the FP16 engine's manifest in a folder of engines how an INT8 one compares with it.

    An INT8 engine that is slower is gone, and who asks for it is told why there is none. Only where
    this machine built the FP16 engine: what others tagged or signed stays as it is.
    """
    if speed.fp16 is None:
        return
    half = GraphKey(entry.graph, "fp16", speed.fp16)
    about = folder / half.engine_paths(bundle.folder, package.name)[1].name
    with contextlib.suppress(EngineFitError):  # there is none
        read = ReadEngineManifest.of(about)
        if not read.is_tagged_by(key):
            return
        others = [one for one in read.manifest.int8_speed if one.int8 != speed.int8]
        update = {"int8_speed": (*others, speed), "schema_version": ENGINE_MANIFEST_VERSION}
        changed = read.manifest.model_copy(update=update).tagged(key)
        about.write_text(json_from_document(changed, indent=2), encoding="utf-8")
