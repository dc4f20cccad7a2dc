"""The GPU cases: which there are, and timing one with every output compared with the reference."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from ...export.verify.batches import encoder_input
from ...export.verify.metrics import IMAGE_METRIC, LATENT_METRIC
from ...export.verify.reference import Reference
from ...export.verify.verifier import Verifier
from ...runtime.bundle.graph_key import PARTS, GraphKey, Precision, Variant
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import GraphReport
from ...runtime.core.errors import BackendError, MissingDependencyError
from ...runtime.core.frame import NS_PER_MS
from ...runtime.core.redaction import without_private
from ...runtime.engines.base import Arrays, Backend, Batch
from ...runtime.engines.gpu_info import NoGpu, find_gpu
from ...runtime.engines.open import EngineRequest, open_engine
from ...runtime.engines.tensorrt.engine import TensorRTBackend
from ...runtime.engines.tensorrt.find import leanest_engine, precisions_with_engine
from ...runtime.engines.tensorrt.package import TENSORRT_PACKAGES, TensorRTName, title_of
from ..measure.case import NOT_REACHED, Case, CudaGraph, GpuMode
from ..measure.result import clocks
from ..measure.rounds import CaseMeter, TimedCase, stopwatch

WARMUP = 50
"""Untimed runs of each case: kernels are loaded, a graph is recorded, and the clocks go up."""

ONNX_CUDA, TORCH_CUDA = "ONNX Runtime CUDA", "torch CUDA"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
ONNX_VARIANTS: tuple[Variant, ...] = ("full", "luma", "mu")
"""The contract's graph, and the leaner ones that streams take: with both outputs, with `mu`."""


@dataclass(frozen=True)
class PlannedCase:
    """A graph that is run on one image at a time in some mode, and its case without samples.

    Of engines it is the leanest variant that gives both outputs.
    """

    case: Case
    key: GraphKey

    @property
    def cuda_graph(self) -> CudaGraph:
        """What is to run as one recorded CUDA graph."""
        return self.case.mode.cuda_graph if self.case.mode else "off"


class OneByOne:
    """Runs a batch image by image and times each: the gate sees the very runs that were timed.

    Args:
        backend: What runs; stays open.
        repeat: Its `repeat_timed`, called after each timed run, or None where it has none.

    Attributes:
        samples_ns: Nanoseconds by stage, in the order in which they were taken: "wall" is one
            image from host memory to its latent in host memory, by the host's clock; "device" the
            same without the host's part, by the GPU's, which ticks about every 500; "h2d",
            "compute" and "d2h" are its parts, which a recorded graph does not have.
    """

    def __init__(
        self, backend: Backend, repeat: Callable[[], Mapping[str, float]] | None = None
    ) -> None:
        self.name, self.notes, self.input_dtype = backend.name, backend.notes, backend.input_dtype
        self.samples_ns: dict[str, list[int]] = {}
        self._backend, self._repeat = backend, repeat

    def run(self, batch: Batch) -> Arrays:
        """Run and time each image; see `Backend.run`."""
        parts = []
        for index in range(len(batch)):
            begin_ns = time.monotonic_ns()
            parts.append(self._backend.run(batch[index : index + 1]))
            took_ns = {"wall": time.monotonic_ns() - begin_ns}
            for stage, milliseconds in self._repeat().items() if self._repeat else ():
                took_ns[stage] = round(milliseconds * NS_PER_MS)
            for stage, duration_ns in took_ns.items():
                self.samples_ns.setdefault(stage, []).append(max(1, duration_ns))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def planned_cases() -> list[list[PlannedCase]]:
    """Return every encoder that motorvae-doctor gpu can measure, in groups that share a build."""
    own = GpuMode(spin="engine's own", transfers="engine's own")
    in_onnx = [
        [_planned(ONNX_CUDA, GraphKey("encoder", precision, variant), own)]
        for precision in PRECISIONS
        for variant in ONNX_VARIANTS
    ]
    engines = [
        planned_engines(package, GraphKey("encoder", precision, target="tensorrt"))
        for package in TENSORRT_PACKAGES
        for precision in PRECISIONS
    ]
    in_torch = _planned(TORCH_CUDA, GraphKey("encoder", "fp16"), GpuMode(cuda_graph="kernels"))
    return [*in_onnx, *engines, [in_torch]]


def planned_engines(package: TensorRTName, key: GraphKey) -> list[PlannedCase]:
    """Return an engine without a CUDA graph, and with one."""
    graph: CudaGraph = "left to the engine" if package == "tensorrt-rtx" else "copies and kernels"
    modes = (GpuMode(), GpuMode(cuda_graph=graph))
    return [_planned(title_of(package), key, mode) for mode in modes]


def _planned(engine: str, key: GraphKey, mode: GpuMode) -> PlannedCase:
    case = Case(
        group="gpu",
        engine=engine,
        precision=key.precision,
        variant=key.part if key.variant == "full" else f"{key.part} {key.variant}",
        mode=mode,
        not_measured=NOT_REACHED,
    )
    return PlannedCase(case, key)


def engine_cases(
    bundle: Bundle,
    reference: Reference,
    *,
    frames: int,
    trust: bool = False,
    meter: CaseMeter | None = None,
) -> list[Case]:
    """Time every engine that a bundle holds as it is; without a GPU, give the reason.

    With `trust` those of unknown origin, too.
    """
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
                timed = timed_engine(
                    planned, bundle, package, reference, frames, trust=trust, meter=meter
                )
                for case in timed:
                    found.append(case)  # noqa: PERF402  # the second may not run
            except (BackendError, MissingDependencyError) as error:
                found += [one.case.without(error.clause()) for one in planned[len(found) :]]
            cases += map(public_case, found)
    return cases


def timed_engine(
    planned: Sequence[PlannedCase],
    bundle: Bundle,
    package: TensorRTName,
    reference: Reference,
    frames: int,
    *,
    trust: bool = False,
    meter: CaseMeter | None = None,
) -> Iterator[Case]:
    """Time an engine that a bundle holds without a CUDA graph and with one."""
    graph_off: npt.NDArray[np.float32] | None = None
    for one in planned:
        request = EngineRequest(backend=package, cuda_graph=one.cuda_graph != "off", trust=trust)
        opened = open_engine(bundle, leanest_engine(bundle, one.key, package).key, request)
        with cast("TensorRTBackend", opened) as backend:
            case, graph_off = measure(
                one,
                backend,
                reference,
                frames=frames,
                repeat=backend.repeat_timed,
                graph_off=graph_off,
                meter=meter,
            )
        yield case


def measure(
    planned: PlannedCase,
    backend: Backend,
    reference: Reference,
    *,
    frames: int,
    repeat: Callable[[], Mapping[str, float]] | None = None,
    graph_off: npt.NDArray[np.float32] | None = None,
    meter: CaseMeter | None = None,
) -> tuple[Case, npt.NDArray[np.float32]]:
    """Time an opened graph image by image, each output compared with the reference.

    The reference's images are run through again and again, and the first one for `meter`. `repeat`
    is the backend's `repeat_timed`, where it has one; `graph_off` is (frames, D) mu of the same
    engine without a CUDA graph, to compare with.

    Returns:
        The case with its figures, and (frames, D) mu: of a decoder what it was given.
    """
    key, is_encoder = planned.key, planned.key.part == "encoder"
    first: Batch = (
        encoder_input(backend, reference.images[:1])[:] if is_encoder else reference.mu[:1]
    )
    for _ in range(WARMUP):
        backend.run(first)
        if repeat:
            repeat()
    timer, begin_ns = OneByOne(backend, repeat), time.monotonic_ns()
    gate: tuple[GraphReport, ...] = ()
    latents: list[npt.NDArray[np.float32]] = []
    left = frames
    while left and all(report.passed for report in gate):
        count = min(left, len(reference.images))
        verifier = Verifier.of_frames(reference, count)
        if not is_encoder:
            verifier.take_encoded(key, reference.mu[:count])
        reports = verifier.verify(key, timer)
        if not gate or not all(report.passed for report in reports):
            gate = reports
        latents.append(verifier.encoded(key))
        left -= count
    if planned.cuda_graph == "copies and kernels" and "h2d" in timer.samples_ns:
        # With a recorded graph there would be no parts: whatever was timed, it was not the graph.
        raise BackendError("; ".join(backend.notes) or "no CUDA graph was recorded")
    found = np.concatenate(latents)
    equals = np.array_equal(found, graph_off) if graph_off is not None and is_encoder else None
    takes_luma = ("takes 8-bit luma",) if backend.input_dtype == np.uint8 else ()
    case = planned.case.timed(
        timer.samples_ns,
        name=backend.name,
        notes=(*backend.notes, *takes_luma, *clocks()),
        equals_graph_off=equals,
    )
    case = gated_case(case, gate)
    if meter is not None and case.stages:
        spans = [(begin_ns, time.monotonic_ns())]
        lap = stopwatch(lambda: backend.run(first), "wall")
        (case,) = meter.measured([TimedCase(case, lap, spans)])
    return case, found


def gated_case(case: Case, gate: tuple[GraphReport, ...]) -> Case:
    """Return a timed case with what the gate found.

    Where the gate failed, the samples are dropped: a time of a wrong result is worthless.
    """
    failures = [clause for report in gate for clause in report.failures]
    metrics = {metric.name: metric for report in gate for metric in report.metrics}
    update: dict[str, object] = {
        "gate": gate,
        "latent_error": metrics.get(LATENT_METRIC),
        "psnr": metrics.get(IMAGE_METRIC),
    }
    if failures:
        reason = f"drifted: {', '.join(failures)}"
        update |= {"stages": {}, "warnings": (), "not_measured": reason, "equals_graph_off": None}
    return Case.model_validate(case.with_facts(**update).model_dump())


def public_case(case: Case) -> Case:
    """Return the same with nothing private in texts of errors, engines and sensors."""
    return case.with_facts(
        not_measured=case.not_measured and without_private(case.not_measured),
        notes=tuple(map(without_private, case.notes)),
        warnings=tuple(map(without_private, case.warnings)),
    )
