"""The cases of whole processes: start to first latent, imports, and ages and memory of streams.

The parts of a stream are timed by themselves in this process: see `parts`.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from ...runtime.bundle.graph_key import GraphKey, Precision
from ...runtime.core.errors import MeasurementError
from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.camera_formats import fitted_from_jpeg
from ...runtime.pixels.convert import fitted
from ...runtime.sources.spec import SYNTHETIC_SIZE
from ...runtime.sources.synthetic.vehicles import MovingVehicles
from ..measure.case import BARE, FPS, LOWEST, NO_PYTHON, STREAM, STREAM_MODULE, Case
from ..measure.rounds import RoundPlan
from ..under_test.bare_process import bare_ns, empty_python_ns
from ..under_test.engines import RUNNERS, is_for
from ..under_test.model_under_test import ModelUnderTest
from ..under_test.scenes import frame_of, jpeg_of
from ..under_test.stream_process import MjpegCamera, StreamProcess, import_ns, parsed
from .parts import CameraUnderTest, Parts, encoder_case

Found = TypeVar("Found")
Way = tuple[GraphKey, str]
"""An encoder, and the variant of the stream: its name and options."""

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

    rounds: int = 3  # Processes of each engine, in turns; of the synthetic camera one
    skipped: int = 20  # First rows of a process that do not count: caches and clocks are cold
    frames: int = 70  # Rows of a process that do


def stream_keys(tested: ModelUnderTest) -> list[GraphKey]:
    """Return every precision and engine that the bundle can be streamed with on a CPU."""
    found = {
        GraphKey("encoder", entry.precision, target=runner)
        for entry in tested.bundle.manifest.graphs
        for runner in RUNNERS
        if entry.graph == "encoder"
        and entry.precision != "fp16"
        and is_for(entry, runner, tested.bundle)
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
        ways = [(key, STREAM) for key in keys]
        by_way, reasons = _in_turns(tested, ways, "synthetic", rounds + 1, bare_too)
    found = {key: taken for (key, _), taken in by_way.items()}
    # In the first turn files came from the disk.
    cases = [
        encoder_case(key, "start-up", variant=variant).without(reasons[key, STREAM])
        if (key, STREAM) in reasons
        else encoder_case(key, "start-up", variant=variant).timed(
            {"first latent": taken[key][1:]}, turn=1
        )
        for taken, variant in ((found, STREAM), (bare, BARE))
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
    """Stream each camera with each engine in processes of their own, and the parts in between.

    INT8 is streamed with the lowest latency as well: what a camera's age can be.
    """
    keys = [key for key in stream_keys(tested) if key in STREAMED]
    with (
        cameras(tested.spec, seed) as found,
        Parts(tested, keys, found, seed=seed) as parts,
    ):
        network, synthetic = found
        ways = [(key, STREAM) for key in keys]
        lowest = [(key, LOWEST) for key in keys if key.precision == "int8"]
        measured = functools.partial(parts.measure, schedule)
        cases = _streamed(tested, [*ways, *lowest], network, plan, measured)
        cases += _streamed(tested, ways, synthetic, replace(plan, rounds=1))
        return [*parts.cases(), *cases]


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


def _streamed(
    tested: ModelUnderTest,
    ways: Sequence[Way],
    camera: CameraUnderTest,
    plan: StreamPlan,
    between: Callable[[], None] = lambda: None,
) -> list[Case]:
    def rows_and_memory(
        process: StreamProcess, _key: GraphKey
    ) -> tuple[list[dict[str, Any]], dict[str, int]]:
        rows = parsed(process.rows(plan.skipped + plan.frames))
        return rows[plan.skipped :], process.memory()

    found, reasons = _in_turns(
        tested, ways, camera.address, plan.rounds, rows_and_memory, between=between
    )
    cases = []
    for way in ways:
        key, variant = way
        place = {"source": camera.source, "frame": camera.frame, "variant": variant}
        stream, memory = (encoder_case(key, group, **place) for group in ("stream", "memory"))
        if way in reasons:
            cases += [case.without(reasons[way]) for case in (stream, memory)]
            continue
        rows = [row for of_process, _ in found[way] for row in of_process]
        # The clock of a row is coarser than a stage may be short.
        ages = {
            stage: [max(1, round(row[f"{stage}_ms"] * 1e6)) for row in rows] for stage in _STAGES
        }
        sizes = {name: [size[name] for _, size in found[way]] for name in ("rss", "peak")}
        notes = (
            f"the first {plan.skipped} rows of each of {plan.rounds} processes do not count",
            f"frames dropped: {sum(row['dropped'] for row in rows)}",
        )
        cases.append(stream.timed(ages, turn=plan.frames, notes=notes))
        cases.append(memory.timed(sizes, "bytes", turn=1))
    return cases


def _in_turns(
    tested: ModelUnderTest,
    ways: Sequence[Way],
    camera: str,
    rounds: int,
    watch: Callable[[StreamProcess, GraphKey], Found],
    *,
    between: Callable[[], None] = lambda: None,
) -> tuple[dict[Way, list[Found]], dict[Way, str]]:
    """Stream in each way so many times, in turns; `between` runs after each round.

    Given back is what `watch` made of each process, and the reason where a process failed.
    """
    found: dict[Way, list[Found]] = {way: [] for way in ways}
    reasons: dict[Way, str] = {}
    for _ in range(rounds):
        for way in ways:
            if way in reasons:
                continue
            key, variant = way
            source = ("--camera", camera, "--model", str(tested.bundle.folder))
            engine = ("--backend", str(key.target), "--precision", key.precision)
            options = variant.removeprefix(STREAM).split()
            try:
                with StreamProcess((*source, *engine, *options)) as process:
                    found[way].append(watch(process, key))
            except MeasurementError as error:
                reasons[way] = str(error)
        between()
    return found, reasons
