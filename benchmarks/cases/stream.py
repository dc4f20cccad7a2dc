"""The stream cases: ages and memory of real motorvae-stream processes, and their parts alone."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ...runtime.bundle.graph_key import GraphKey, Precision
from ...runtime.core.errors import (
    BackendError,
    BundleError,
    MeasurementError,
    MissingDependencyError,
)
from ...runtime.core.spec import ModelSpec
from ...runtime.engines.autotune_threads import autotuned_engine
from ...runtime.engines.open import open_engine
from ...runtime.engines.request import EngineRequest
from ...runtime.engines.select import SelectedEngine
from ...runtime.pixels.convert import fitted_luma, input_from_luma
from ...runtime.pixels.v4l2_formats import luma_from_any_jpeg
from ...runtime.sources.synthetic.plan import SYNTHETIC_SIZE
from ...runtime.sources.synthetic.vehicles import MovingVehicles
from ..measure.case import DECODE_ALONE, ENCODE_ALONE, HOT, PACED, Case, FrameSource, measured_case
from ..measure.rounds import Laps, RoundPlan, interleaved, stopwatch
from ..measure.samples import Samples, samples_of
from ..subjects.mjpeg_camera import MjpegCamera
from ..subjects.model_under_test import ModelUnderTest
from ..subjects.scenes import Luma, frame_of, jpeg_of, luma_for
from ..subjects.stream_process import Memory, StreamProcess, parsed
from .graph import samples_by_stage
from .process import StreamConfig

FPS = 60
CAMERA_FRAME = (1280, 720)
PICTURES = 4
_STAGES = ("age", "capture", "convert", "wait", "encode", "emit")
_MADE_FIRST: tuple[tuple[str, Precision], ...] = (
    ("onnx", "fp32"),
    ("onnx", "int8"),
    ("openvino", "int8"),
)


@dataclass(frozen=True)
class StreamPlan:
    """How much of each stream is measured.

    Attributes:
        rounds: Processes of each way, in turns.
        skipped: First rows of a process that do not count: caches and clocks are cold.
        frames: Rows of a process that do.
    """

    rounds: int = 5
    skipped: int = 20
    frames: int = 70


@dataclass(frozen=True)
class Camera:
    """What is streamed.

    Attributes:
        address: As the command takes it.
        source: What it delivers, where that has a name.
        frame: Width and height.
        luma: Decodes and converts one of its frames, alone.
    """

    address: str
    source: FrameSource | None
    frame: tuple[int, int]
    luma: Callable[[], Luma]


def stream_ways(ways: list[StreamConfig]) -> list[StreamConfig]:
    """Return those ways that are streamed: float32, and int8 where there is any."""
    return [way for way in ways if (way.runner, way.precision) in _MADE_FIRST]


@contextlib.contextmanager
def cameras(spec: ModelSpec, seed: int) -> Iterator[list[Camera]]:
    """Open a network camera that sends MJPEG; the synthetic one is opened by its name."""
    pictures = [jpeg_of(frame_of(*CAMERA_FRAME, seed + n)).tobytes() for n in range(PICTURES)]
    vehicles = MovingVehicles(seed, SYNTHETIC_SIZE)
    started_s = time.monotonic()
    with MjpegCamera(pictures, FPS) as camera:
        yield [
            Camera(
                camera.url,
                "mjpeg",
                CAMERA_FRAME,
                functools.partial(luma_from_any_jpeg, pictures[0], spec),
            ),
            Camera(
                f"synthetic?fps={FPS}",
                None,
                (SYNTHETIC_SIZE, SYNTHETIC_SIZE),
                lambda: fitted_luma(vehicles.image(time.monotonic() - started_s), spec),
            ),
        ]


def stream_cases(
    subject: ModelUnderTest,
    ways: list[StreamConfig],
    plan: StreamPlan,
    schedule: RoundPlan,
    *,
    seed: int,
) -> list[Case]:
    """Stream each camera with each engine in processes of their own, and time the parts alone."""
    with cameras(subject.spec, seed) as found:
        cases = alone_cases(subject, ways, found, schedule, seed=seed)
        for camera in found:
            cases += _streamed(subject, ways, camera, plan)
    return cases


def alone_cases(
    subject: ModelUnderTest,
    ways: list[StreamConfig],
    found: list[Camera],
    schedule: RoundPlan,
    *,
    seed: int,
) -> list[Case]:
    """Time decoding with converting, and encoding, each by itself in this process."""
    planned: dict[str, Case] = {}
    laps: dict[str, Laps] = {}
    with contextlib.ExitStack() as stack:
        for pace in (HOT, PACED):
            due = pacer(FPS) if pace == PACED else None
            for camera in found:
                case = Case(
                    group="stream",
                    engine="motorVAE",
                    source=camera.source,
                    frame=camera.frame,
                    variant=f"{DECODE_ALONE}, {pace}",
                    not_measured="not reached",
                )
                planned[case.key], laps[case.key] = case, _laps(camera.luma, "convert", due)
            for way in ways:
                with contextlib.suppress(BundleError, BackendError, MissingDependencyError):
                    case = way.planned("stream").model_copy(
                        update={"variant": f"{ENCODE_ALONE}, {pace}"}
                    )
                    run = stack.enter_context(_encoder(subject, way, seed))
                    planned[case.key], laps[case.key] = case, _laps(run, "encode", due)
        samples = interleaved(laps, schedule)
    return [
        measured_case(
            case.model_copy(
                update={
                    "not_measured": None,
                    "stages": samples_by_stage(samples[key]),
                    "turn": schedule.turn,
                }
            )
        )
        for key, case in planned.items()
    ]


def _streamed(
    subject: ModelUnderTest, ways: list[StreamConfig], camera: Camera, plan: StreamPlan
) -> list[Case]:
    ages: dict[StreamConfig, dict[str, list[int]]] = {way: {} for way in ways}
    memories: dict[StreamConfig, list[Memory]] = {way: [] for way in ways}
    dropped: dict[StreamConfig, int] = dict.fromkeys(ways, 0)
    reasons: dict[StreamConfig, str] = {}
    for _ in range(plan.rounds):
        for way in ways:
            if way in reasons:
                continue
            try:
                with StreamProcess(way.args(subject, camera.address)) as child:
                    rows = parsed(child.rows(plan.skipped + plan.frames))[plan.skipped :]
                    memories[way].append(child.memory())
            except MeasurementError as error:
                reasons[way] = str(error)
                continue
            dropped[way] += sum(row["dropped"] for row in rows)
            for row in rows:
                for stage in _STAGES:
                    # The clock of a row is coarser than a stage may be short.
                    duration_ns = max(1, round(row[f"{stage}_ms"] * 1e6))
                    ages[way].setdefault(stage, []).append(duration_ns)
    cases = []
    for way in ways:
        place = {"source": camera.source, "frame": camera.frame}
        reason = {"not_measured": reasons.get(way)}
        stages = {} if way in reasons else {s: samples_of(v) for s, v in ages[way].items()}
        notes = (
            f"the first {plan.skipped} rows of each of {plan.rounds} processes do not count",
            f"frames dropped: {dropped[way]}",
        )
        update = {**place, **reason, "stages": stages, "turn": plan.frames, "notes": notes}
        cases.append(measured_case(way.planned("stream").model_copy(update=update)))
        sizes = {} if way in reasons else _sizes(memories[way])
        update = {**place, **reason, "stages": sizes, "turn": 1}
        cases.append(way.planned("memory").model_copy(update=update))
    return cases


def _sizes(memories: list[Memory]) -> dict[str, Samples]:
    return {
        "rss": samples_of([memory.rss for memory in memories], "bytes"),
        "peak": samples_of([memory.peak for memory in memories], "bytes"),
    }


@contextlib.contextmanager
def _encoder(
    subject: ModelUnderTest, way: StreamConfig, seed: int
) -> Iterator[Callable[[], object]]:
    """Open what motorvae-stream would."""
    entry = subject.bundle.leanest(GraphKey("encoder", way.precision, target=way.runner))
    luma = luma_for(subject.spec, 1, seed)

    def open_with(threads: int | None) -> SelectedEngine:
        request = EngineRequest(backend=way.runner, threads=threads)
        return SelectedEngine(open_engine(subject.bundle, entry.key, request), way.precision)

    with autotuned_engine(open_with, luma.shape).backend as backend:
        batch = luma if backend.input_dtype == luma.dtype else input_from_luma(luma)
        yield lambda: backend.run(batch)


def _laps(work: Callable[[], object], stage: str, due: Callable[[], None] | None) -> Laps:
    timed = stopwatch(work, stage)
    if due is None:
        return timed

    def lap() -> Mapping[str, int]:
        due()
        return timed()

    return lap


def pacer(fps: float) -> Callable[[], None]:
    """Return what waits until the next tick of a camera's clock."""
    return lambda: time.sleep(-time.monotonic() % (1 / fps))
