"""motorvae-doctor gpu: the encoder on every engine of this GPU, measured or with a reason."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

from rich.console import Console

from ..export.tensorrt.add_engines import add_engines_to_bundle
from ..export.tensorrt.build import EngineBuildRequest
from ..export.verify.reference import reference_from_bundle
from ..export.verify.verifier import Verifier
from ..runtime.bundle.graph_key import ENGINES, GraphKey
from ..runtime.bundle.load import Bundle, load_bundle
from ..runtime.bundle.manifest import GraphReport
from ..runtime.core.documents import save_document
from ..runtime.core.errors import (
    EngineError,
    MeasurementError,
    MissingDependencyError,
    MotorVAEError,
    OutputError,
    VerificationError,
    needed_for,
)
from ..runtime.core.redaction import without_private
from ..runtime.engines.base import Backend
from ..runtime.engines.gpu_info import Gpu
from ..runtime.engines.open import EngineRequest, open_engine
from ..runtime.engines.tensorrt.engine_manifest import BatchProfile, EngineManifest
from ..runtime.engines.tensorrt.package import (
    TENSORRT_PACKAGES,
    TensorRTName,
    import_tensorrt,
    title_of,
)
from .cases.gpu import (
    ONNX_CUDA,
    TORCH_CUDA,
    WARMUP,
    PlannedCase,
    gated_case,
    measure,
    planned_cases,
    public_case,
    timed_engine,
)
from .measure.case import NOT_REACHED, Case
from .measure.gpu_roofline import case_under_roofline, check_rates, rates_of_gpu
from .measure.result import (
    GpuFacts,
    GpuRates,
    Result,
    Settings,
    environment_now,
    load_now,
    power_state,
    product_name,
)
from .measure.rounds import RoundPlan
from .options import GpuEngine
from .sensors.meter import Meter

_TITLES: dict[GpuEngine, str] = {
    "onnx": ONNX_CUDA,
    **{name: title_of(name) for name in TENSORRT_PACKAGES},
    "torch": TORCH_CUDA,
}
_PACKAGES = ("tensorrt", "tensorrt-rtx", "pycuda", "cuda-bindings")
_TURNS = 8
"""Of a case, as in motorvae-bench: two results are compared by whole turns."""


@dataclass
class Examination:
    """One run of the doctor on one GPU."""

    bundle: Bundle  # The user's, which stays as it is
    gpu: Gpu
    frames: int  # Images of each case
    checkpoint: Path | None  # The training run, for torch's case
    # Where the result goes; written anew after each case, so that what was measured survives a
    # crash of a later engine
    output: Path
    console: Console  # For progress
    meter: Meter  # Watches conditions, and measures energy where it has sensors
    only: tuple[GpuEngine, ...] = get_args(GpuEngine)  # What runs the encoder
    energy: str = ""  # The option that asked for it
    rates: GpuRates | None = None  # Of this GPU, where they were measured before

    def __post_init__(self) -> None:
        self._reference = reference_from_bundle(self.bundle)
        titles = {_TITLES[name] for name in self.only}
        self._planned = [group for group in planned_cases() if group[0].case.engine in titles]
        self._cases = {one.case.how: one.case for group in self._planned for one in group}
        self._warnings: tuple[str, ...] = ()
        self._engines: list[EngineManifest] = []
        self._unsaved: OutputError | None = None
        self._created = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
        self._load_start, self._power_start = load_now(), power_state()

    def run(self) -> Result:
        """Measure every case that this machine can run, and write the result."""
        unforeseen: list[Exception] = []
        try:
            self._measure_cases(unforeseen)
            self.meter.close()  # what it cost is known from then on
            result = self._save()
        except Exception as error:
            if unforeseen:
                raise unforeseen[0] from error
            raise
        if unforeseen:
            raise unforeseen[0]
        return result

    def _measure_cases(self, unforeseen: list[Exception]) -> None:
        """Measure the cases one after the other; what nobody foresaw in one joins the list."""
        self._measure_rates()
        with tempfile.TemporaryDirectory(prefix="motorvae-doctor-") as folder:
            copy = Path(folder) / "bundle"
            shutil.copytree(self.bundle.folder, copy, ignore=shutil.ignore_patterns(ENGINES))
            opened = load_bundle(copy)
            for planned in self._planned:
                first = planned[0].case
                self.console.print(f"measuring: {first.engine} {first.precision}")
                reason = NOT_REACHED
                try:
                    for case in self._measured(planned, opened):
                        self._cases[case.how] = self._under_roofline(case, planned[0].key)
                        self._save()
                except MotorVAEError as error:
                    if error is self._unsaved:  # no fault of the case, and no other could be kept
                        raise
                    reason = str(error)
                except Exception as error:  # noqa: BLE001  # raised when the other cases are done
                    reason = f"{type(error).__name__}: {error}"
                    unforeseen.append(error)
                for one in planned:
                    if self._cases[one.case.how].not_measured == NOT_REACHED:
                        self._cases[one.case.how] = one.case.without(reason)

    def _save(self) -> Result:
        turn = max(1, self.frames // _TURNS)
        energy = f" {self.energy}" if self.energy else ""
        only = "" if self.only == get_args(GpuEngine) else f" --only {' '.join(self.only)}"
        result = Result(
            created=self._created,
            # Without the paths that were typed: the file is made to be shared.
            command=f"motorvae-doctor gpu --frames {self.frames}{only}{energy}",
            model=self.bundle.spec,
            settings=Settings(
                weights_sha256=self.bundle.manifest.weights_sha256,
                schedule=RoundPlan(samples=self.frames, warmup=WARMUP, settle=0, turn=turn),
            ),
            environment=environment_now(
                threads={}, load_start=self._load_start, packages=_PACKAGES
            ),
            gpu=GpuFacts(
                **asdict(self.gpu),
                machine=product_name(),
                power_start=self._power_start,
                power_end=power_state(),
                engines=tuple(self._engines),
            ),
            matrix=self.rates.matrix if self.rates else {},
            copy_memory=self.rates.copy_memory if self.rates else None,
            read_memory=self.rates.read_memory if self.rates else None,
            energy=self.meter.facts,
            watch=self.meter.watched,
            cases=tuple(map(public_case, self._cases.values())),
            warnings=self._warnings,
        )
        try:
            save_document(self.output, result)
        except OutputError as error:
            self._unsaved = error
            raise
        return result

    def _measure_rates(self) -> None:
        """Measure the GPU's own rates in a process that gives all its memory back, if need be."""
        try:
            if self.rates is not None:
                check_rates(self.rates, self.gpu.name)
            else:
                self.console.print("measuring: matrix rates and bandwidths of the GPU")
                self.rates = rates_of_gpu(self.bundle.spec)
        except (MeasurementError, MissingDependencyError) as error:
            self.rates = None
            self._warnings = (f"no roofline: {without_private(str(error))}",)

    def _under_roofline(self, case: Case, key: GraphKey) -> Case:
        """Add the least time that the GPU's best rates allow; of the card's own network only."""
        if self.rates is None or case.whole is None or self.bundle.spec.channels is None:
            return case
        return case_under_roofline(case, self.rates, self.bundle.spec, key)

    def _measured(self, planned: Sequence[PlannedCase], copy: Bundle) -> Iterator[Case]:
        engine = planned[0].case.engine
        for package in TENSORRT_PACKAGES:
            if title_of(package) == engine:
                return self._engine(planned, package, copy)
        return self._onnx(planned[0]) if engine == ONNX_CUDA else self._torch(planned[0])

    def _onnx(self, planned: PlannedCase) -> Iterator[Case]:
        """Time one variant of the encoder; with the leanest that gives both goes the decoder.

        That decoder is the one that a stream's `--reconstruct` takes; it is verified, not timed.
        """
        bundle, reference, precision = self.bundle, self._reference, planned.key.precision
        keys = {planned.key, replace(planned.key, target="onnx")}
        entry = next((entry for entry in bundle.manifest.graphs if entry.key in keys), None)
        # Refuses a precision that the bundle does not hold, by the name that users know.
        leanest = bundle.leanest(GraphKey("encoder", precision, target="onnx"))
        if entry is None:
            raise MeasurementError(
                "the bundle has no encoder of this form; its leanest in "
                f"{precision} is {leanest.title}"
            )
        with self._on_cuda(entry.key) as backend:
            found, mu = measure(planned, backend, reference, frames=self.frames, meter=self.meter)
        if entry == leanest and found.status == "measured":
            key = bundle.leanest(GraphKey("decoder", precision, target="onnx"), on_cpu=False).key
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
        profile = BatchProfile()
        # An INT8 engine that is slower is what the table is to show.
        request = EngineBuildRequest(package, self.gpu, key.precision, profile, keep_slower=True)
        seen: list[GraphReport] = []
        try:
            self._engines += add_engines_to_bundle(
                copy, request, self.console, on_reports=seen.extend, reference=self._reference
            )
        except VerificationError as error:
            verdict = {"not_measured": str(error), "gate": tuple(seen)}
            yield from (one.case.with_facts(**verdict) for one in planned)
            return
        yield from timed_engine(planned, copy, name, self._reference, self.frames, meter=self.meter)

    def _torch(self, planned: PlannedCase) -> Iterator[Case]:
        if self.checkpoint is None:
            raise MeasurementError(
                "no --checkpoint was given: name the training run that the bundle came from"
            )
        with needed_for("torch's case", extra="train"):
            from .under_test.torch_models import TorchEncoder  # noqa: PLC0415  # torch is optional
        with TorchEncoder(self.checkpoint, self.bundle) as backend:
            repeat = backend.repeat_timed
            found, _ = measure(
                planned,
                backend,
                self._reference,
                frames=self.frames,
                repeat=repeat,
                meter=self.meter,
            )
            yield found
