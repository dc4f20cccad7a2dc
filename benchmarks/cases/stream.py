"""The cases of whole processes: start to first latent, imports, and ages and memory of streams.

The parts of a stream, decoding and encoding, are timed by themselves in this process.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from ...runtime.bundle.graph_key import OUTPUTS, GraphKey, Precision
from ...runtime.core.errors import BundleError, MeasurementError
from ...runtime.core.spec import ModelSpec
from ...runtime.engines.open import EngineRequest
from ...runtime.engines.select import SelectedEngine, select_engine
from ...runtime.engines.trial.threads import autotuned_engine
from ...runtime.pixels.camera_formats import fitted_from_jpeg
from ...runtime.pixels.convert import fitted, input_from_pixels
from ...runtime.sources.spec import SYNTHETIC_SIZE
from ...runtime.sources.synthetic.vehicles import MovingVehicles
from ..measure.case import (
    BARE,
    DECODE_ALONE,
    ENCODE_ALONE,
    FPS,
    HOT,
    NO_PYTHON,
    PACED,
    STREAM_MODULE,
    Case,
    FrameSource,
    Group,
)
from ..measure.rounds import Laps, RoundPlan, pacer, stopwatch, timed_cases
from ..under_test.bare_process import bare_ns, empty_python_ns
from ..under_test.engines import REFUSALS, RUNNERS, is_for
from ..under_test.model_under_test import ModelUnderTest
from ..under_test.scenes import Luma, frame_of, jpeg_of, luma_for
from ..under_test.stream_process import MjpegCamera, StreamProcess, import_ns, parsed

Found = TypeVar("Found")

CAMERA_FRAME = (1280, 720)
PICTURES = 4
_STAGES = ("age", "capture", "convert", "wait", "encode", "emit")
STREAMED = {
    GraphKey("encoder", target="onnx"),
    GraphKey("encoder", "int8", target="onnx"),
    GraphKey("encoder", "int8", target="openvino"),
}
"""Those that are streamed for their ages and memory: float32, and int8."""


@dataclass(frozen=True)
class StreamPlan:
    """How much of each stream is measured."""

    rounds: int = 3  # Processes of each engine, in turns
    skipped: int = 20  # First rows of a process that do not count: caches and clocks are cold
    frames: int = 70  # Rows of a process that do


@dataclass(frozen=True)
class CameraUnderTest:
    """What is streamed."""

    address: str  # As the command takes it
    source: FrameSource | None  # What it delivers, where that has a name
    frame: tuple[int, int]  # Width and height
    luma: Callable[[], Luma]  # Decodes and converts one of its frames, alone


def stream_keys(tested: ModelUnderTest) -> list[GraphKey]:
    """Return every precision and engine that the bundle can be streamed with on a CPU."""
    found = {
        GraphKey("encoder", entry.precision, target=runner)
        for entry in tested.bundle.manifest.graphs
        for runner in RUNNERS
        if entry.graph == "encoder" and is_for(entry, runner) and entry.precision != "fp16"
    }
    order = get_args(Precision)
    return sorted(found, key=lambda key: (str(key.target), order.index(key.precision)))


def start_up_cases(tested: ModelUnderTest, rounds: int) -> list[Case]:
    """Time processes from their start to the first row in a pipe, in turns, one launch a turn.

    After each comes its floor: a script that opens the same graph in the engine alone.
    """

    def first_row_ns(process: StreamProcess) -> int:
        process.rows(1)
        return time.perf_counter_ns() - process.spawned_ns

    keys, bare = stream_keys(tested), dict[GraphKey, list[int]]()
    empty: list[int] = []

    def bare_too(process: StreamProcess, key: GraphKey) -> int:
        taken_ns = first_row_ns(process)
        process.close()
        whole = Path(folder, f"{keys.index(key)}.onnx")  # weights inside: it is opened as bytes
        if not whole.exists():
            whole.write_bytes(tested.bundle.content(tested.bundle.leanest(key, ("mu",))))
        bare.setdefault(key, []).append(bare_ns(key.target or "onnx", whole, key.precision))
        empty.append(empty_python_ns())
        return taken_ns

    with tempfile.TemporaryDirectory() as folder:
        found, reasons = _in_turns(tested, keys, "synthetic", rounds + 1, bare_too)
    # In the first turn files came from the disk.
    cases = [
        _planned(key, "start-up", **facts).without(reasons[key])
        if key in reasons
        else _planned(key, "start-up", **facts).timed({"first latent": taken[key][1:]}, turn=1)
        for taken, facts in ((found, {}), (bare, {"variant": BARE}))
        for key in keys
    ]
    python = Case.planned(group="start-up", engine="Python", variant=NO_PYTHON)
    return [*cases, python.timed({"first line": empty[len(keys) :]}, turn=1)] if empty else cases


def import_cases(rounds: int) -> list[Case]:
    """Time imports in fresh interpreters: of the Python API, and of what motorvae-stream loads.

    `import motorvae` loads nothing before its first use; the command's modules come with all
    that opening a stream needs, such as numpy, and are part of its start-up.
    """
    cases = []
    for module in ("motorvae", STREAM_MODULE):
        import_ns(module)  # files come from the disk
        samples = [import_ns(module) for _ in range(rounds)]
        cases.append(Case.planned(group="import", engine=module).timed({"import": samples}, turn=1))
    return cases


def stream_cases(
    tested: ModelUnderTest, plan: StreamPlan, schedule: RoundPlan, *, seed: int
) -> list[Case]:
    """Stream each camera with each engine in processes of their own, and time the parts alone."""
    keys = [key for key in stream_keys(tested) if key in STREAMED]
    with cameras(tested.spec, seed) as found:
        cases = _alone(tested, keys, found, schedule, seed=seed)
        for camera in found:
            cases += _streamed(tested, keys, camera, plan)
    return cases


@contextlib.contextmanager
def cameras(spec: ModelSpec, seed: int) -> Iterator[list[CameraUnderTest]]:
    """Open a network camera that sends MJPEG; the synthetic one is opened by its name."""
    pictures = [jpeg_of(frame_of(*CAMERA_FRAME, seed + n)).tobytes() for n in range(PICTURES)]
    vehicles = MovingVehicles(seed, SYNTHETIC_SIZE)
    started_s = time.monotonic()
    decode = functools.partial(fitted_from_jpeg, pictures[0], spec)
    with MjpegCamera(pictures, FPS) as camera:
        yield [
            CameraUnderTest(camera.url, "mjpeg", CAMERA_FRAME, decode),
            CameraUnderTest(
                f"synthetic?fps={FPS}",
                None,
                (SYNTHETIC_SIZE, SYNTHETIC_SIZE),
                lambda: fitted(vehicles.image(time.monotonic() - started_s), spec),
            ),
        ]


def _planned(key: GraphKey, group: Group, **facts: object) -> Case:
    return Case.planned(
        group=group,
        engine=RUNNERS[key.target or "onnx"],
        precision=key.precision,
        outputs=" and ".join(OUTPUTS["encoder"]),
        **{"variant": "motorvae-stream", **facts},
    )


def _alone(
    tested: ModelUnderTest,
    keys: Sequence[GraphKey],
    found: list[CameraUnderTest],
    schedule: RoundPlan,
    *,
    seed: int,
) -> list[Case]:
    """Time decoding with converting, and encoding, each by itself in this process."""
    planned: list[tuple[Case, Laps]] = []
    with contextlib.ExitStack() as stack:
        for pace in (HOT, PACED):
            due = pacer(FPS) if pace == PACED else None
            for camera in found:
                case = Case.planned(
                    group="stream",
                    engine="motorVAE",
                    source=camera.source,
                    frame=camera.frame,
                    variant=f"{DECODE_ALONE}, {pace}",
                )
                planned.append((case, stopwatch(camera.luma, "convert", first=due)))
            for key in keys:
                with contextlib.suppress(BundleError, *REFUSALS):
                    run = stack.enter_context(_encoder(tested, key, seed))
                    case = _planned(key, "stream", variant=f"{ENCODE_ALONE}, {pace}")
                    planned.append((case, stopwatch(run, "encode", first=due)))
        return timed_cases(planned, schedule)


@contextlib.contextmanager
def _encoder(tested: ModelUnderTest, key: GraphKey, seed: int) -> Iterator[Callable[[], object]]:
    """Open what motorvae-stream would."""
    luma = luma_for(tested.spec, 1, seed)

    def open_with(threads: int | None) -> SelectedEngine:
        request = EngineRequest(key.target or "auto", precision=key.precision, threads=threads)
        return select_engine(tested.bundle, "encoder", request)

    with autotuned_engine(open_with, luma.shape).backend as backend:
        batch = luma if backend.input_dtype == luma.dtype else input_from_pixels(luma)
        yield lambda: backend.run(batch)


def _streamed(
    tested: ModelUnderTest, keys: Sequence[GraphKey], camera: CameraUnderTest, plan: StreamPlan
) -> list[Case]:
    def rows_and_memory(
        process: StreamProcess, _key: GraphKey
    ) -> tuple[list[dict[str, Any]], dict[str, int]]:
        rows = parsed(process.rows(plan.skipped + plan.frames))
        return rows[plan.skipped :], process.memory()

    found, reasons = _in_turns(tested, keys, camera.address, plan.rounds, rows_and_memory)
    place = {"source": camera.source, "frame": camera.frame}
    cases = []
    for key in keys:
        stream, memory = (_planned(key, group, **place) for group in ("stream", "memory"))
        if key in reasons:
            cases += [case.without(reasons[key]) for case in (stream, memory)]
            continue
        rows = [row for of_process, _ in found[key] for row in of_process]
        # The clock of a row is coarser than a stage may be short.
        ages = {
            stage: [max(1, round(row[f"{stage}_ms"] * 1e6)) for row in rows] for stage in _STAGES
        }
        sizes = {name: [size[name] for _, size in found[key]] for name in ("rss", "peak")}
        notes = (
            f"the first {plan.skipped} rows of each of {plan.rounds} processes do not count",
            f"frames dropped: {sum(row['dropped'] for row in rows)}",
        )
        cases.append(stream.timed(ages, turn=plan.frames, notes=notes))
        cases.append(memory.timed(sizes, "bytes", turn=1))
    return cases


def _in_turns(
    tested: ModelUnderTest,
    keys: Sequence[GraphKey],
    camera: str,
    rounds: int,
    watch: Callable[[StreamProcess, GraphKey], Found],
) -> tuple[dict[GraphKey, list[Found]], dict[GraphKey, str]]:
    """Stream with each engine so many times, in turns.

    Given back is what `watch` made of each process, and the reason where a process failed.
    """
    found: dict[GraphKey, list[Found]] = {key: [] for key in keys}
    reasons: dict[GraphKey, str] = {}
    for _ in range(rounds):
        for key in keys:
            if key in reasons:
                continue
            source = ("--camera", camera, "--model", str(tested.bundle.folder))
            engine = ("--backend", str(key.target), "--precision", key.precision)
            try:
                with StreamProcess((*source, *engine)) as process:
                    found[key].append(watch(process, key))
            except MeasurementError as error:
                reasons[key] = str(error)
    return found, reasons
