"""Graphs on this GPU, measured or with a reason: of motorvae-doctor gpu, and of a bundle."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from rich.console import Console

from ...export.tensorrt.add_engines import add_engines_to_bundle
from ...export.tensorrt.build import EngineBuildRequest
from ...export.verify.reference import Reference, reference_from_bundle
from ...export.verify.verifier import Verifier
from ...runtime.bundle.graph_key import ENGINES, PARTS, GraphKey
from ...runtime.bundle.load import Bundle, load_bundle
from ...runtime.bundle.manifest import GraphReport
from ...runtime.core.documents import save_document
from ...runtime.core.errors import (
    BackendError,
    EngineError,
    MeasurementError,
    MissingDependencyError,
    MotorVAEError,
    VerificationError,
    needed_for,
)
from ...runtime.core.packages import own_version
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
    WARMUP,
    PlannedCase,
    gated_case,
    measure,
    planned_engines,
    planned_rows,
)

_PACKAGES = ("tensorrt", "tensorrt-rtx", "pycuda", "cuda-bindings")


@dataclass
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

    def __post_init__(self) -> None:
        self._reference = reference_from_bundle(self.bundle)
        self._rows = {row.case.how: row.case for rows in planned_rows() for row in rows}
        self._engines: list[EngineManifest] = []
        self._created = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
        self._load_start, self._power_start = load_now(), power_state()

    def run(self) -> GpuResult:
        """Measure every row that this machine can run, and write the result."""
        unforeseen: list[Exception] = []
        with tempfile.TemporaryDirectory(prefix="motorvae-doctor-") as folder:
            copy = Path(folder) / "bundle"
            shutil.copytree(self.bundle.folder, copy, ignore=shutil.ignore_patterns(ENGINES))
            opened = load_bundle(copy)
            for planned in planned_rows():
                first = planned[0].case
                self.console.print(f"measuring: {first.engine} {first.precision}")
                reason = NOT_REACHED
                try:
                    for case in self._measured(planned, opened):
                        self._rows[case.how] = case
                        self._save()
                except MotorVAEError as error:
                    reason = str(error)
                except Exception as error:  # noqa: BLE001  # raised when the other rows are done
                    reason = f"{type(error).__name__}: {error}"
                    unforeseen.append(error)
                for row in planned:
                    if self._rows[row.case.how].not_measured == NOT_REACHED:
                        self._rows[row.case.how] = row.case.without(reason)
        result = self._save()
        if unforeseen:
            raise unforeseen[0]
        return result

    def _save(self) -> GpuResult:
        result = GpuResult(
            producer=f"motorvae {own_version()}",
            created=self._created,
            machine=product_name(),
            gpu=GpuFacts(**asdict(self.gpu)),
            environment=environment_now(
                threads={}, load_start=self._load_start, packages=_PACKAGES
            ),
            power_start=self._power_start,
            power_end=power_state(),
            model=self.bundle.spec,
            weights_sha256=self.bundle.manifest.weights_sha256,
            frames=self.frames,
            warmup=WARMUP,
            engines=tuple(self._engines),
            rows=tuple(map(_public, self._rows.values())),
        )
        save_document(self.output, result)
        return result

    def _measured(self, planned: Sequence[PlannedCase], copy: Bundle) -> Iterator[Case]:
        engine = planned[0].case.engine
        for package in TENSORRT_PACKAGES:
            if title_of(package) == engine:
                return self._engine(planned, package, copy)
        return self._onnx(planned[0]) if engine == ONNX else self._torch(planned[0])

    def _onnx(self, row: PlannedCase) -> Iterator[Case]:
        """Time one variant of the encoder; with the leanest that gives both goes the decoder.

        That decoder is the one that a stream's `--reconstruct` takes; it is verified, not timed.
        """
        bundle, reference, precision = self.bundle, self._reference, row.key.precision
        keys = {row.key, replace(row.key, target="onnx")}
        entry = next((entry for entry in bundle.manifest.graphs if entry.key in keys), None)
        # Refuses a precision that the bundle does not hold, by the name that users know.
        leanest = bundle.leanest(GraphKey("encoder", precision, target="onnx"))
        if entry is None:
            raise MeasurementError(
                "the bundle has no encoder of this form; its leanest in "
                f"{precision} is {leanest.title}"
            )
        with self._on_cuda(entry.key) as backend:
            found, mu = measure(row, backend, reference, frames=self.frames)
        if entry == leanest and found.status == "measured":
            key = bundle.leanest(GraphKey("decoder", precision, target="onnx")).key
            count = min(len(mu), len(reference.images))
            verifier = Verifier.of_frames(reference, count, one_by_one=False)
            verifier.take_encoded(key, mu[:count])
            with self._on_cuda(key) as decoder:
                found = gated_case(found, (*found.gate, *verifier.verify(key, decoder)))
        yield found

    def _on_cuda(self, key: GraphKey) -> Backend:
        return open_engine(self.bundle, key, EngineRequest(provider="cuda"))

    def _engine(
        self, planned: Sequence[PlannedCase], name: TensorRTName, copy: Bundle
    ) -> Iterator[Case]:
        """Build the engines of a precision, then time the encoder's without and with a graph."""
        key, package = planned[0].key, import_tensorrt(name)
        if objection := package.objection_to(self.gpu):
            raise EngineError(objection)
        self.bundle.leanest(key)  # refuses by the name the user knows
        request = EngineBuildRequest(package, self.gpu, key.precision, BatchProfile())
        seen: list[GraphReport] = []
        try:
            self._engines += add_engines_to_bundle(
                copy, request, self.console, on_reports=seen.extend, reference=self._reference
            )
        except VerificationError as error:
            verdict = {"not_measured": str(error), "gate": tuple(seen)}
            yield from (row.case.model_copy(update=verdict) for row in planned)
            return
        yield from _timed_engine(planned, copy, name, self._reference, self.frames)

    def _torch(self, row: PlannedCase) -> Iterator[Case]:
        if self.checkpoint is None:
            raise MeasurementError(
                "no --checkpoint was given: name the training run that the bundle came from"
            )
        with needed_for("torch's row", extra="train"):
            from .torch_encoder import TorchEncoder  # noqa: PLC0415  # torch is optional here
        with TorchEncoder(self.checkpoint, self.bundle) as backend:
            repeat = backend.repeat_timed
            yield measure(row, backend, self._reference, frames=self.frames, repeat=repeat)[0]


def engine_cases(bundle: Bundle, reference: Reference, *, frames: int) -> list[Case]:
    """Time every engine that a bundle holds as it is; without a GPU, say so."""
    gpu = find_gpu()
    cases: list[Case] = []
    for package in TENSORRT_PACKAGES:
        keys = [
            GraphKey(part, precision, target="tensorrt")
            for part in PARTS
            for precision in precisions_with_engine(bundle, part, package)
        ]
        if isinstance(gpu, NoGpu) or not keys:
            reason = gpu.reason if isinstance(gpu, NoGpu) else "no engine in the bundle"
            cases.append(Case(group="gpu", engine=title_of(package), not_measured=reason))
            continue
        for key in keys:
            planned = planned_engines(package, key)
            found: list[Case] = []
            try:
                for case in _timed_engine(planned, bundle, package, reference, frames):
                    found.append(case)  # noqa: PERF402  # the second may not run
            except (BackendError, MissingDependencyError) as error:
                found += [row.case.without(error.clause()) for row in planned[len(found) :]]
            cases += map(_public, found)
    return cases


def _timed_engine(
    planned: Sequence[PlannedCase],
    bundle: Bundle,
    package: TensorRTName,
    reference: Reference,
    frames: int,
) -> Iterator[Case]:
    """Time an engine that a bundle holds without a CUDA graph and with one."""
    graph_off: npt.NDArray[np.float32] | None = None
    for row in planned:
        request = EngineRequest(backend=package, cuda_graph=row.cuda_graph != "off")
        opened = open_engine(bundle, leanest_engine(bundle, row.key, package).key, request)
        with cast("TensorRTBackend", opened) as backend:
            case, graph_off = measure(
                row,
                backend,
                reference,
                frames=frames,
                repeat=backend.repeat_timed,
                graph_off=graph_off,
            )
        yield case


def _public(case: Case) -> Case:
    """Return the same with no host, user or home folder in what an error or engine said."""
    return case.model_copy(
        update={
            "not_measured": case.not_measured and without_private(case.not_measured),
            "notes": tuple(map(without_private, case.notes)),
        }
    )
