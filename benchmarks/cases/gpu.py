"""The GPU cases: each engine of the bundle by the GPU's own clock, CUDA graph off and on."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence
from typing import Protocol, cast

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.core.errors import BackendError, MissingDependencyError
from ...runtime.engines.base import Backend, Batch
from ...runtime.engines.gpu_info import NoGpu, find_gpu
from ...runtime.engines.open import open_engine
from ...runtime.engines.request import EngineRequest
from ...runtime.engines.tensorrt.find import leanest_engine, precisions_with_engine
from ...runtime.engines.tensorrt.package import TENSORRT_PACKAGES, TensorRTName
from ...runtime.pixels.convert import input_from_luma
from ..measure.case import TENSORRT, TENSORRT_RTX, Case, GpuMode, measured_case
from ..measure.rounds import RoundPlan, Timings, interleaved
from ..subjects.model_under_test import ModelUnderTest
from ..subjects.scenes import array_sha256, luma_for
from .graph import DriftGate, samples_by_stage

_ENGINES: dict[TensorRTName, str] = {"tensorrt": TENSORRT, "tensorrt-rtx": TENSORRT_RTX}
_SMI = ("name", "pstate", "clocks.sm", "clocks.mem", "power.limit", "temperature.gpu")
_COMMAND_S = 20
_TRTEXEC = "compare with trtexec --noDataTransfers, its CUDA graph off: GPU compute time"


class TimedBackend(Backend, Protocol):
    """A backend that times its parts by the GPU's clock; see `TensorRTBackend.timed_run`."""

    def timed_run(self, batch: Batch) -> dict[str, int]:
        """Return nanoseconds by stage."""
        ...


def gpu_cases(
    subject: ModelUnderTest, *, schedule: RoundPlan, seed: int, gate: DriftGate
) -> list[Case]:
    """Time every engine that the bundle holds; without a GPU, say so."""
    gpu = find_gpu()
    cases: list[Case] = []
    for package in TENSORRT_PACKAGES:
        blank = Case(group="gpu", engine=_ENGINES[package], not_measured="no engine in the bundle")
        found: list[Case] = []
        if isinstance(gpu, NoGpu):
            blank = blank.model_copy(update={"not_measured": gpu.reason})
        else:
            for graph in ("encoder", "decoder"):
                for precision in precisions_with_engine(subject.bundle, graph, package):
                    key = GraphKey(graph, precision)
                    found += _engine_cases(subject, key, package, schedule, seed, gate)
        cases += found or [blank]
    return cases


def _engine_cases(  # noqa: PLR0917  # one caller, just above
    subject: ModelUnderTest,
    key: GraphKey,
    package: TensorRTName,
    schedule: RoundPlan,
    seed: int,
    gate: DriftGate,
) -> list[Case]:
    """Time one engine, one image a run, with the CUDA graph off and then on."""
    luma = luma_for(subject.spec, 1, seed)
    outputs = ("mu",) if key.part == "encoder" else ("reconstruction",)
    cases: list[Case] = []
    for is_graph in (False, True):
        case = Case(
            group="gpu",
            engine=_ENGINES[package],
            precision=key.precision,
            outputs=" and ".join(outputs),
            variant=key.part,
            mode=GpuMode(cuda_graph=is_graph, data_transfers=True),
            not_measured="not reached",
        )
        try:
            entry = leanest_engine(subject.bundle, key, package, outputs)
            request = EngineRequest(backend=package, cuda_graph=is_graph)
            opened = open_engine(subject.bundle, entry.key, request)
            with cast("TimedBackend", opened) as backend:
                values: Batch = subject.reference.mu[:1]
                if key.part == "encoder":
                    is_luma = backend.input_dtype == luma.dtype
                    values = luma if is_luma else input_from_luma(luma)
                    case = case.model_copy(update={"input_type": backend.input_dtype.name})
                drift = gate.of(case, backend.run)
                laps = functools.partial(backend.timed_run, values)
                samples = interleaved({"run": laps}, schedule)["run"]
                notes = (*backend.notes, *clocks())
        except (BackendError, MissingDependencyError) as error:
            cases.append(case.model_copy(update={"not_measured": error.clause()}))
            continue
        if is_graph and "compute" in samples:  # it went on without one, and told why
            cases.append(case.model_copy(update={"not_measured": notes[0]}))
            continue
        update = {
            "not_measured": None,
            "input_sha256": array_sha256(values),
            "turn": schedule.turn,
            "latent_error": drift.latent_error,
            "psnr": drift.psnr,
        }
        cases.append(_timed(case, samples, {**update, "notes": notes}))
        if "compute" in samples:
            mode = GpuMode(cuda_graph=False, data_transfers=False)
            alone = {"compute": samples["compute"]}
            cases.append(_timed(case, alone, {**update, "mode": mode, "notes": (_TRTEXEC,)}))
    return cases


def power_mode() -> str | None:
    """Return what the board or the GPU is limited to; None where nothing says so."""
    said = [
        line
        for command in (
            ("nvpmodel", "-q"),
            ("nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader"),
        )
        for line in _lines(command)
    ]
    return "; ".join(said) or None


def clocks() -> tuple[str, ...]:
    """Return what the GPU's clocks are now, in the words of nvidia-smi or jetson_clocks."""
    query = ("nvidia-smi", f"--query-gpu={','.join(_SMI)}", "--format=csv,noheader")
    told = [f"{', '.join(_SMI)}: {line}" for line in _lines(query)]
    return (*told, *_lines(("jetson_clocks", "--show")))


def _lines(command: Sequence[str]) -> list[str]:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _timed(case: Case, samples: Timings, update: dict[str, object]) -> Case:
    return measured_case(case.model_copy(update={**update, "stages": samples_by_stage(samples)}))
