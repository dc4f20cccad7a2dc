"""Finished engines held against the reference, through the backend that will run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.manifest import GraphEntry, GraphReport
from ...runtime.core.errors import VerificationError
from ...runtime.engines.gpu_info import Gpu
from ...runtime.engines.open import open_engine
from ...runtime.engines.tensorrt.engine_manifest import BatchProfile, EngineVerification
from ...runtime.engines.tensorrt.find import EnginePlan
from ...runtime.engines.tensorrt.package import TensorRTPackage
from ..verify.verifier import Reference, decoder_reports, encoder_reports
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

    Each is run at its smallest batch size, the one that it is tuned for, its largest and one
    between: an engine may have other kernels for each.

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
    sizes = sorted({profile.min, profile.opt, (profile.min + profile.max) // 2, profile.max})
    encoded: dict[int, npt.NDArray[np.float32]] = {}
    reports: list[list[GraphReport]] = []
    for entry, engine in built:
        of_engine: list[GraphReport] = []
        with open_engine(EnginePlan(engine.plan, entry, package, gpu), entry.key) as backend:
            for size in sizes:
                found: Sequence[GraphReport]
                if entry.graph == "encoder":
                    found, encoded[size] = encoder_reports(
                        backend, reference, entry.precision, sizes=(size,)
                    )
                else:
                    found = decoder_reports(
                        backend, reference, entry.precision, encoded=encoded[size], sizes=(size,)
                    )
                of_engine += (_of_engine(report, entry, size) for report in found)
        reports.append(of_engine)
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


def _of_engine(report: GraphReport, entry: GraphEntry, size: int) -> GraphReport:
    """Say in a report which graph's engine it is about, and in which batches it ran."""
    return report.model_copy(
        update={
            "variant": entry.variant,
            "made_for": entry.made_for,
            "engine": f"{report.engine}, batch {size}",
        }
    )
