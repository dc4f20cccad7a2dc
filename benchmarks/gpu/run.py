"""Graphs on this GPU, measured or with a reason: of motorvae-doctor gpu, and of a bundle."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from rich.console import Console

from ...export.tensorrt.add_engines import add_engines_to_bundle
from ...export.tensorrt.build import EngineBuildRequest
from ...export.verify.reference import Reference, reference_from_bundle
from ...runtime.bundle.graph_key import ENGINES, GraphKey, Part
from ...runtime.bundle.load import Bundle, load_bundle
from ...runtime.bundle.manifest import GraphEntry, GraphReport
from ...runtime.core.documents import save_document
from ...runtime.core.errors import (
    BackendError,
    EngineError,
    MeasurementError,
    MissingDependencyError,
    MotorVAEError,
    VerificationError,
    missing_dependency,
)
from ...runtime.core.redaction import without_private
from ...runtime.engines.base import Backend
from ...runtime.engines.gpu_info import Gpu, NoGpu, find_gpu
from ...runtime.engines.open import EngineRequest, open_engine
from ...runtime.engines.tensorrt.engine import TensorRTBackend
from ...runtime.engines.tensorrt.engine_manifest import BatchProfile, EngineManifest
from ...runtime.engines.tensorrt.find import leanest_engine, precisions_with_engine
from ...runtime.engines.tensorrt.package import (
    TENSORRT_PACKAGES,
    TensorRTName,
    import_tensorrt,
    title_of,
)
from ..measure.case import Case
from ..measure.environment import environment_now, load_now, power_state, product_name
from .result import GpuFacts, GpuResult
from .rows import (
    NOT_REACHED,
    ONNX,
    PRECISIONS,
    TORCH,
    WARMUP,
    PlannedCase,
    decoder_gate,
    encoder_of_row,
    gated_case,
    measure,
    planned_engines,
    planned_rows,
)

_PACKAGES = ("tensorrt", "tensorrt-rtx", "pycuda", "cuda-bindings")


@dataclass(frozen=True)
class Examination:
    """One run of the doctor on one GPU.

    Attributes:
        bundle: The user's, which stays as it is.
        gpu: The GPU.
        frames: Images of each row.
        checkpoint: The training run, for torch's row.
        output: Where the result goes; written anew after each row, so that what was measured
            survives a crash of a later engine.
        console: For progress.
    """

    bundle: Bundle
    gpu: Gpu
    frames: int
    checkpoint: Path | None
    output: Path
    console: Console

    def run(self) -> GpuResult:
        """Measure every row that this machine can run, and write the result.

        Raises:
            BundleError: The bundle lacks what the gate needs.
            MissingDependencyError: ONNX Runtime is not installed, which the reference needs.
            OutputError: The result cannot be written.
        """
        reference = reference_from_bundle(self.bundle)
        planned_cases = planned_rows()
        rows = {row.case.how: row.case for row in planned_cases}
        engine_manifests: list[EngineManifest] = []
        created = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
        load_start, power_start = load_now(), power_state()
        surprises: list[Exception] = []

        def keep() -> GpuResult:
            result = GpuResult(
                producer=f"motorvae {importlib.metadata.version('motorvae')}",
                created=created,
                machine=product_name(),
                gpu=GpuFacts(**dataclasses.asdict(self.gpu)),
                environment=environment_now(threads={}, load_start=load_start, packages=_PACKAGES),
                power_start=power_start,
                power_end=power_state(),
                model=self.bundle.spec,
                weights_sha256=self.bundle.manifest.weights_sha256,
                frames=self.frames,
                warmup=WARMUP,
                engines=tuple(engine_manifests),
                rows=tuple(map(_public, rows.values())),
            )
            save_document(self.output, result)
            return result

        with tempfile.TemporaryDirectory(prefix="motorvae-doctor-") as folder:
            copy = Path(folder) / "bundle"
            shutil.copytree(self.bundle.folder, copy, ignore=shutil.ignore_patterns(ENGINES))
            steps = self._steps(planned_cases, load_bundle(copy), reference, engine_manifests)
            for planned, step in steps:
                first = planned[0].case
                self.console.print(f"measuring: {first.engine} {first.precision}")
                reason = NOT_REACHED
                try:
                    for case in step:
                        rows[case.how] = case
                        keep()
                except MotorVAEError as error:
                    reason = str(error)
                except Exception as error:  # noqa: BLE001  # raised when the other rows are done
                    reason = f"{type(error).__name__}: {error}"
                    surprises.append(error)
                for row in planned:
                    rows[row.case.how] = _with_reason(rows[row.case.how], reason)
        result = keep()
        if surprises:
            raise surprises[0]
        return result

    def _steps(
        self,
        rows: Sequence[PlannedCase],
        copy: Bundle,
        reference: Reference,
        engine_manifests: list[EngineManifest],
    ) -> Iterator[tuple[Sequence[PlannedCase], Iterator[Case]]]:
        """Yield rows that stand or fall together, and what measures them."""
        for row in rows:
            if row.case.engine == ONNX:
                yield (row,), self._onnx(row, reference)
        for package in TENSORRT_PACKAGES:
            for precision in PRECISIONS:
                wanted = (title_of(package), precision)
                planned = [row for row in rows if (row.case.engine, row.key.precision) == wanted]
                yield planned, self._engine(planned, package, copy, reference, engine_manifests)
        for row in rows:
            if row.case.engine == TORCH:
                yield (row,), self._torch(row, reference)

    def _onnx(self, row: PlannedCase, reference: Reference) -> Iterator[Case]:
        """Time one form of the encoder; with the leanest that gives both goes the decoder."""
        entry = encoder_of_row(self.bundle, row.key)
        with self._on_cuda(entry) as backend:
            found, mu = measure(row, backend, reference, frames=self.frames)
        leanest = self.bundle.leanest(GraphKey("encoder", row.key.precision, target="onnx"))
        if entry == leanest and found.status == "measured":
            gate = decoder_gate(self._on_cuda, self.bundle, row.key.precision, reference, mu)
            found = gated_case(found, (*found.gate, *gate))
        yield found

    def _on_cuda(self, entry: GraphEntry) -> Backend:
        return open_engine(self.bundle, entry.key, EngineRequest(provider="cuda"))

    def _engine(
        self,
        planned: Sequence[PlannedCase],
        name: TensorRTName,
        copy: Bundle,
        reference: Reference,
        engine_manifests: list[EngineManifest],
    ) -> Iterator[Case]:
        """Build the engines of a precision, then time the encoder's without and with a graph.

        Of its forms it is the leanest that gives both outputs, as the other rows do.
        """
        key = planned[0].key
        package = import_tensorrt(name)
        if objection := package.objection_to(self.gpu):
            raise EngineError(objection)
        self.bundle.leanest(key)  # refuses by the name the user knows
        order = EngineBuildRequest(package, self.gpu, key.precision, BatchProfile())
        seen: list[GraphReport] = []
        try:
            engine_manifests += add_engines_to_bundle(
                copy, order, self.console, on_reports=seen.extend, reference=reference
            )
        except VerificationError as error:
            for row in planned:
                verdict = {"not_measured": str(error), "gate": tuple(seen)}
                yield row.case.model_copy(update=verdict)
            return
        yield from timed_engine(planned, copy, name, reference, frames=self.frames)

    def _torch(self, row: PlannedCase, reference: Reference) -> Iterator[Case]:
        if self.checkpoint is None:
            raise MeasurementError(
                "no --checkpoint was given: name the training run that the bundle came from"
            )
        try:
            from .torch_encoder import TorchEncoder  # noqa: PLC0415  # torch is optional here
        except ModuleNotFoundError as error:
            package = (error.name or "torch").partition(".")[0]
            raise missing_dependency("torch's row", package, extra="train") from error
        with TorchEncoder(self.checkpoint, self.bundle) as backend:
            repeat = backend.repeat_timed
            yield measure(row, backend, reference, frames=self.frames, repeat=repeat)[0]


def engine_cases(bundle: Bundle, reference: Reference, *, frames: int) -> list[Case]:
    """Time every engine that a bundle holds as it is; without a GPU, say so.

    Args:
        bundle: The bundle.
        reference: Its images, and what they should give.
        frames: Images through each engine.
    """
    gpu = find_gpu()
    cases: list[Case] = []
    for package in TENSORRT_PACKAGES:
        reason = gpu.reason if isinstance(gpu, NoGpu) else "no engine in the bundle"
        blank = Case(group="gpu", engine=title_of(package), not_measured=reason)
        found: list[Case] = []
        if not isinstance(gpu, NoGpu):
            for part in get_args(Part):
                for precision in precisions_with_engine(bundle, part, package):
                    planned = planned_engines(package, GraphKey(part, precision, target="tensorrt"))
                    found += _present(planned, bundle, package, reference, frames)
        cases += found or [blank]
    return cases


def timed_engine(
    planned: Sequence[PlannedCase],
    bundle: Bundle,
    package: TensorRTName,
    reference: Reference,
    *,
    frames: int,
) -> Iterator[Case]:
    """Time an engine that a bundle holds without a CUDA graph and with one."""
    graph_off = None
    for row in planned:
        request = EngineRequest(backend=package, cuda_graph=row.cuda_graph != "off")
        opened = open_engine(bundle, leanest_engine(bundle, row.key, package).key, request)
        with cast("TensorRTBackend", opened) as backend:
            repeat = backend.repeat_timed
            case, graph_off = measure(
                row, backend, reference, frames=frames, repeat=repeat, graph_off=graph_off
            )
        yield case


def _present(
    planned: Sequence[PlannedCase],
    bundle: Bundle,
    package: TensorRTName,
    reference: Reference,
    frames: int,
) -> list[Case]:
    """Return an engine's cases, those that do not run with their reason."""
    reason, found = NOT_REACHED, {row.case.how: row.case for row in planned}
    try:
        for case in timed_engine(planned, bundle, package, reference, frames=frames):
            found[case.how] = case
    except (BackendError, MissingDependencyError) as error:
        reason = error.clause()
    return [_public(_with_reason(case, reason)) for case in found.values()]


def _with_reason(case: Case, reason: str) -> Case:
    """Return a case that was not reached with the reason why; another as it is."""
    if case.not_measured != NOT_REACHED:
        return case
    return case.model_copy(update={"not_measured": reason})


def _public(case: Case) -> Case:
    """Return the same with no host, user or home folder in what an error or engine said."""
    return case.model_copy(
        update={
            "not_measured": case.not_measured and without_private(case.not_measured),
            "notes": tuple(map(without_private, case.notes)),
        }
    )
