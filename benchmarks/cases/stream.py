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
from ...runtime.engines.open import EngineRequest, open_engine
from ...runtime.engines.select import SelectedEngine, autotuned_engine
from ...runtime.pixels.convert import fitted_luma, input_from_luma
from ...runtime.pixels.jpeg import luma_from_jpeg
from ...runtime.sources.synthetic.plan import SYNTHETIC_SIZE
from ...runtime.sources.synthetic.vehicles import MovingVehicles
from ..measure.case import DECODE_ALONE, ENCODE_ALONE, HOT, PACED, Case, FrameSource
from ..measure.rounds import Laps, RoundPlan, interleaved, stopwatch
from ..under_test.mjpeg_camera import MjpegCamera
from ..under_test.model_under_test import ModelUnderTest
from ..under_test.scenes import Luma, frame_of, jpeg_of, luma_for
from ..under_test.stream_process import Memory, StreamProcess, parsed
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
        rounds: Processes of each config, in turns.
        skipped: First rows of a process that do not count: caches and clocks are cold.
        frames: Rows of a process that do.
    """

    rounds: int = 5
    skipped: int = 20
    frames: int = 70


@dataclass(frozen=True)
class CameraUnderTest:
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


def streamed_configs(configs: list[StreamConfig]) -> list[StreamConfig]:
    """Return those configs that are streamed: float32, and int8 where there is any."""
    return [config for config in configs if (config.runner, config.precision) in _MADE_FIRST]


@contextlib.contextmanager
def cameras(spec: ModelSpec, seed: int) -> Iterator[list[CameraUnderTest]]:
    """Open a network camera that sends MJPEG; the synthetic one is opened by its name."""
    pictures = [jpeg_of(frame_of(*CAMERA_FRAME, seed + n)).tobytes() for n in range(PICTURES)]
    vehicles = MovingVehicles(seed, SYNTHETIC_SIZE)
    started_s = time.monotonic()
    with MjpegCamera(pictures, FPS) as camera:
        yield [
            CameraUnderTest(
                camera.url,
                "mjpeg",
                CAMERA_FRAME,
                functools.partial(luma_from_jpeg, pictures[0], spec),
            ),
            CameraUnderTest(
                f"synthetic?fps={FPS}",
                None,
                (SYNTHETIC_SIZE, SYNTHETIC_SIZE),
                lambda: fitted_luma(vehicles.image(time.monotonic() - started_s), spec),
            ),
        ]


def stream_cases(
    tested: ModelUnderTest,
    configs: list[StreamConfig],
    plan: StreamPlan,
    schedule: RoundPlan,
    *,
    seed: int,
) -> list[Case]:
    """Stream each camera with each engine in processes of their own, and time the parts alone."""
    with cameras(tested.spec, seed) as found:
        cases = alone_cases(tested, configs, found, schedule, seed=seed)
        for camera in found:
            cases += _streamed(tested, configs, camera, plan)
    return cases


def alone_cases(
    tested: ModelUnderTest,
    configs: list[StreamConfig],
    found: list[CameraUnderTest],
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
            for config in configs:
                with contextlib.suppress(BundleError, BackendError, MissingDependencyError):
                    case = config.planned("stream").model_copy(
                        update={"variant": f"{ENCODE_ALONE}, {pace}"}
                    )
                    run = stack.enter_context(_encoder(tested, config, seed))
                    planned[case.key], laps[case.key] = case, _laps(run, "encode", due)
        samples = interleaved(laps, schedule)
    return [case.timed(samples[key], turn=schedule.turn) for key, case in planned.items()]


def _streamed(
    tested: ModelUnderTest, configs: list[StreamConfig], camera: CameraUnderTest, plan: StreamPlan
) -> list[Case]:
    ages: dict[StreamConfig, dict[str, list[int]]] = {config: {} for config in configs}
    memories: dict[StreamConfig, list[Memory]] = {config: [] for config in configs}
    dropped: dict[StreamConfig, int] = dict.fromkeys(configs, 0)
    reasons: dict[StreamConfig, str] = {}
    for _ in range(plan.rounds):
        for config in configs:
            if config in reasons:
                continue
            try:
                with StreamProcess(config.args(tested, camera.address)) as process:
                    rows = parsed(process.rows(plan.skipped + plan.frames))[plan.skipped :]
                    memories[config].append(process.memory())
            except MeasurementError as error:
                reasons[config] = str(error)
                continue
            dropped[config] += sum(row["dropped"] for row in rows)
            for row in rows:
                for stage in _STAGES:
                    # The clock of a row is coarser than a stage may be short.
                    duration_ns = max(1, round(row[f"{stage}_ms"] * 1e6))
                    ages[config].setdefault(stage, []).append(duration_ns)
    cases = []
    for config in configs:
        place = {"source": camera.source, "frame": camera.frame}
        stream, memory = (
            config.planned(group).model_copy(update=place) for group in ("stream", "memory")
        )
        if config in reasons:
            cases += [stream.without(reasons[config]), memory.without(reasons[config])]
            continue
        notes = (
            f"the first {plan.skipped} rows of each of {plan.rounds} processes do not count",
            f"frames dropped: {dropped[config]}",
        )
        cases.append(stream.timed(ages[config], turn=plan.frames, notes=notes))
        sizes = {
            "rss": [one.rss for one in memories[config]],
            "peak": [one.peak for one in memories[config]],
        }
        cases.append(memory.timed(sizes, "bytes", turn=1))
    return cases


@contextlib.contextmanager
def _encoder(
    tested: ModelUnderTest, config: StreamConfig, seed: int
) -> Iterator[Callable[[], object]]:
    """Open what motorvae-stream would."""
    entry = tested.bundle.leanest(GraphKey("encoder", config.precision, target=config.runner))
    luma = luma_for(tested.spec, 1, seed)

    def open_with(threads: int | None) -> SelectedEngine:
        request = EngineRequest(backend=config.runner, threads=threads)
        return SelectedEngine(open_engine(tested.bundle, entry.key, request), config.precision)

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
