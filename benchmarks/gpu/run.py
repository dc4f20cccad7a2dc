"""motorvae-doctor gpu: every way to run the encoder on this GPU, measured or with a reason."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import importlib.metadata
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rich.console import Console

from ...export.tensorrt.add_engines import EngineBuildRequest, add_engines_to_bundle
from ...export.verify.reference import Reference, reference_from_bundle
from ...runtime.bundle.graph_key import ENGINES, GraphKey
from ...runtime.bundle.load import Bundle, load_bundle
from ...runtime.bundle.manifest import GraphEntry, GraphReport
from ...runtime.core.documents import save_document
from ...runtime.core.errors import (
    EngineError,
    MeasurementError,
    MotorVAEError,
    VerificationError,
    missing_dependency,
)
from ...runtime.core.packages import versions_of
from ...runtime.engines.base import Backend
from ...runtime.engines.gpu_info import Gpu
from ...runtime.engines.open import open_engine
from ...runtime.engines.request import EngineRequest
from ...runtime.engines.tensorrt.engine_manifest import BatchProfile, EngineManifest
from ...runtime.engines.tensorrt.find import leanest_engine
from ...runtime.engines.tensorrt.package import (
    TENSORRT_PACKAGES,
    TensorRTName,
    import_tensorrt,
    title_of,
)
from ..measure.environment import environment_now, load_now
from .result import GpuFacts, GpuResult, Row
from .rows import (
    NOT_REACHED,
    ONNX,
    PRECISIONS,
    TORCH,
    WARMUP,
    Timeable,
    decoder_gate,
    encoder_of_row,
    gated_row,
    measure,
    planned_rows,
)

_PACKAGES = ("tensorrt", "tensorrt-rtx", "pycuda", "cuda-bindings")
_PRODUCT_NAMES = (Path("/proc/device-tree/model"), Path("/sys/class/dmi/id/product_name"))
_POWER = (
    *("name", "pstate", "power.draw", "power.limit", "clocks.sm", "clocks.mem"),
    *("temperature.gpu", "utilization.gpu"),
)
_SMI_TIMEOUT_S = 20


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
        rows = {row.title: row for row in planned_rows()}
        engine_manifests: list[EngineManifest] = []
        created = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
        load_start, power_start = load_now(), power_state()
        surprises: list[Exception] = []

        def keep() -> GpuResult:
            environment = environment_now(threads={}, load_start=load_start)
            versions = {**environment.versions, **versions_of(_PACKAGES)}
            result = GpuResult(
                producer=f"motorvae {importlib.metadata.version('motorvae')}",
                created=created,
                machine=product_name(),
                gpu=GpuFacts(**dataclasses.asdict(self.gpu)),
                environment=environment.model_copy(update={"versions": versions}),
                power_start=power_start,
                power_end=power_state(),
                model=self.bundle.spec,
                weights_sha256=self.bundle.manifest.weights_sha256,
                frames=self.frames,
                warmup=WARMUP,
                engines=tuple(engine_manifests),
                rows=tuple(row.public() for row in rows.values()),
            )
            save_document(self.output, result)
            return result

        with tempfile.TemporaryDirectory(prefix="motorvae-doctor-") as folder:
            copy = Path(folder) / "bundle"
            shutil.copytree(self.bundle.folder, copy, ignore=shutil.ignore_patterns(ENGINES))
            steps = self._steps(
                tuple(rows.values()), load_bundle(copy), reference, engine_manifests
            )
            for planned, step in steps:
                self.console.print(f"measuring: {planned[0].title.partition(',')[0]}")
                reason = NOT_REACHED
                try:
                    for row in step:
                        rows[row.title] = row
                        keep()
                except MotorVAEError as error:
                    reason = str(error)
                except Exception as error:  # noqa: BLE001  # raised when the other rows are done
                    reason = f"{type(error).__name__}: {error}"
                    surprises.append(error)
                for row in planned:
                    if rows[row.title].reason == NOT_REACHED:
                        rows[row.title] = row.model_copy(update={"reason": reason})
        result = keep()
        if surprises:
            raise surprises[0]
        return result

    def _steps(
        self,
        rows: Sequence[Row],
        copy: Bundle,
        reference: Reference,
        engine_manifests: list[EngineManifest],
    ) -> Iterator[tuple[Sequence[Row], Iterator[Row]]]:
        """Yield rows that stand or fall together, and what measures them."""
        for row in rows:
            if row.engine == ONNX:
                yield (row,), self._onnx(row, reference)
        for package in TENSORRT_PACKAGES:
            for precision in PRECISIONS:
                wanted = (title_of(package), precision)
                planned = [row for row in rows if (row.engine, row.precision) == wanted]
                yield planned, self._engine(planned, package, copy, reference, engine_manifests)
        for row in rows:
            if row.engine == TORCH:
                yield (row,), self._torch(row, reference)

    def _onnx(self, row: Row, reference: Reference) -> Iterator[Row]:
        """Time one form of the encoder; with the leanest that gives both goes the decoder."""
        entry = encoder_of_row(self.bundle, row)
        with self._on_cuda(entry) as backend:
            found, mu = measure(row, backend, reference, frames=self.frames)
        leanest = self.bundle.leanest(GraphKey("encoder", row.precision, target="onnx"))
        if entry == leanest and found.status == "measured":
            gate = decoder_gate(self._on_cuda, self.bundle, row.precision, reference, mu)
            found = gated_row(found, (*found.gate, *gate))
        yield found

    def _on_cuda(self, entry: GraphEntry) -> Backend:
        return open_engine(self.bundle, entry.key, EngineRequest(provider="cuda"))

    def _engine(
        self,
        planned: Sequence[Row],
        name: TensorRTName,
        copy: Bundle,
        reference: Reference,
        engine_manifests: list[EngineManifest],
    ) -> Iterator[Row]:
        """Build the engines of a precision, then time the encoder's without and with a graph.

        Of its forms it is the leanest that gives both outputs, as the other rows do.
        """
        precision = planned[0].precision
        package = import_tensorrt(name)
        if objection := package.objection_to(self.gpu):
            raise EngineError(objection)
        key = GraphKey("encoder", precision, target="tensorrt")
        self.bundle.leanest(key)  # refuses by the name the user knows
        order = EngineBuildRequest(package, self.gpu, precision, BatchProfile())
        seen: list[GraphReport] = []
        try:
            engine_manifests += add_engines_to_bundle(
                copy, order, self.console, on_reports=seen.extend, reference=reference
            )
        except VerificationError as error:
            for row in planned:
                verdict = {"status": "drifted", "reason": str(error), "gate": tuple(seen)}
                yield row.model_copy(update=verdict)
            return
        graph_off = None
        for row in planned:
            request = EngineRequest(backend=name, cuda_graph=row.graph != "off")
            opened = open_engine(copy, leanest_engine(copy, key, name).key, request)
            with cast("Timeable", opened) as backend:
                found, mu = measure(
                    row,
                    backend,
                    reference,
                    frames=self.frames,
                    repeat=backend.repeat_timed,
                    graph_off=graph_off,
                )
            graph_off = mu
            yield found

    def _torch(self, row: Row, reference: Reference) -> Iterator[Row]:
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


def power_state() -> tuple[dict[str, str], ...]:
    """Return what nvidia-smi says of each GPU's clocks and power; nothing where it is not there."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_POWER)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    lines = (line.split(", ") for line in done.stdout.splitlines())
    return tuple(dict(zip(_POWER, line, strict=True)) for line in lines if len(line) == len(_POWER))


def product_name() -> str | None:
    """Return what the maker calls this computer, or None; its host name is nobody's business."""
    for path in _PRODUCT_NAMES:
        with contextlib.suppress(OSError):
            return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    return None
