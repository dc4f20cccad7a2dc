"""Finished engines held against the reference, through the backend that will run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...runtime.bundle.manifest import GraphEntry, GraphReport
from ...runtime.core.errors import VerificationError
from ...runtime.engines.gpu_info import Gpu
from ...runtime.engines.open import open_engine
from ...runtime.engines.tensorrt.engine_manifest import BatchProfile, EngineVerification
from ...runtime.engines.tensorrt.find import EnginePlan
from ...runtime.engines.tensorrt.package import TensorRTPackage
from ..verify.reference import Reference
from ..verify.verifier import Verifier
from .build import BuiltEngine


def verdicts_of(
    built: Sequence[tuple[GraphEntry, BuiltEngine]],
    *,
    package: TensorRTPackage,
    gpu: Gpu,
    profile: BatchProfile,
    reference: Reference,
    on_reports: Callable[[Sequence[GraphReport]], None],
) -> tuple[EngineVerification, ...]:
    """Run every engine and compare all of its outputs with the reference's.

    Args:
        built: Graphs of one precision and their engines, encoders before decoders; a decoder is
            also run on what the last encoder gave.
        package: The package that built them.
        gpu: The GPU of this machine.
        profile: The batch sizes that they were built for.
        reference: What they are held against.
        on_reports: Called with all reports before the gate decides.

    Returns:
        One verdict for each engine.

    Raises:
        EngineError: An engine does not load, or has other tensors than its graph.
        VerificationError: An engine drifted past a limit.
    """
    verifier = Verifier.of_engines(reference, profile)
    reports: list[Sequence[GraphReport]] = []
    for entry, engine in built:
        with open_engine(EnginePlan(engine.plan, entry, package, gpu), entry.key) as backend:
            reports.append(verifier.verify(entry.key, backend))
    everything = [report for of_engine in reports for report in of_engine]
    on_reports(everything)
    failed = [clause for report in everything for clause in report.failures]
    if failed:
        raise VerificationError(
            f"verification failed, no engine was kept: {', '.join(failed)}; use --engine none, or "
            f"report this with {package.title}"
        )
    return tuple(
        EngineVerification(verified=True, reports=tuple(of_engine)) for of_engine in reports
    )
