"""The parts of a stream by themselves: decoding, encoding, reading weights and waking a thread.

Each runs hot, and as a camera lets it: once a frame, after a sleep, or after as long awake. What a
paced part costs more than a hot one is what no program can take back that has nothing to do in
between: caches that others of the machine have filled, and cores that must be woken.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.core.errors import BundleError
from ...runtime.core.lifecycle import Closing
from ...runtime.core.system.other_core import core_of
from ...runtime.engines.open import EngineRequest
from ...runtime.pixels.convert import input_from_pixels
from ...runtime.stream.cores import Cores
from ...runtime.stream.opening import EncoderOpening
from ...runtime.stream.options import StreamOptions
from ..measure.case import (
    AWAKE,
    DECODE_ALONE,
    ENCODE_ALONE,
    FPS,
    HOT,
    PACED,
    READ_ALONE,
    STREAM,
    WAKE_ALONE,
    Case,
    FrameSource,
    Group,
)
from ..measure.rounds import Laps, RoundPlan, Timings, awake_pacer, interleaved, pacer, stopwatch
from ..under_test.engines import REFUSALS, RUNNERS
from ..under_test.model_under_test import ModelUnderTest
from ..under_test.scenes import Luma, luma_for

_TURN = 20
_PACES = {HOT: None, PACED: pacer(FPS), AWAKE: awake_pacer(FPS)}


@dataclass(frozen=True)
class CameraUnderTest:
    """What is streamed."""

    address: str  # As the command takes it
    source: FrameSource | None  # What it delivers, where that has a name
    frame: tuple[int, int]  # Width and height
    luma: Callable[[], Luma]  # Decodes and converts one of its frames, alone


def encoder_case(key: GraphKey, group: Group, **facts: object) -> Case:
    """Plan a case of what motorvae-stream runs by default: it wants `mu` alone."""
    return Case.planned(
        group=group,
        engine=RUNNERS[key.target or "onnx"],
        precision=key.precision,
        outputs="mu",
        **{"variant": STREAM, **facts},
    )


class Parts(Closing):
    """Each part at each pace, to be timed in this process, some calls at a time.

    A shared machine has slow minutes: what is set against these times is to run in between.
    """

    def __init__(
        self,
        tested: ModelUnderTest,
        keys: Sequence[GraphKey],
        cameras: Sequence[CameraUnderTest],
        *,
        seed: int,
    ) -> None:
        self._planned: list[tuple[Case, Laps]] = []
        self._taken: list[Timings] = []
        self._turn = 1
        with contextlib.ExitStack() as stack:
            encoders: dict[GraphKey, tuple[Callable[[], object], Cores]] = {}
            for key in keys:
                with contextlib.suppress(BundleError, *REFUSALS):
                    opened = _encoder(tested, key, cameras[0].address, seed)
                    encoders[key] = stack.enter_context(opened)
            for pace, wait in _PACES.items():
                self._plan_cameras(cameras, pace, wait)
                for key, (run, cores) in encoders.items():
                    case = encoder_case(key, "stream", variant=f"{ENCODE_ALONE}, {pace}")
                    lap = _bound(cores, stopwatch(run, "encode", first=wait))
                    self._planned.append((case, lap))
                for key, size in _least_weights(tested, keys).items():
                    read = np.ones(size // 8, np.int64).max
                    case = Case.planned(
                        group="stream",
                        engine="numpy",
                        precision=key.precision,
                        variant=f"{READ_ALONE}, {pace}",
                        notes=(f"{size / 1e6:.1f} MB, read once",),
                    )
                    self._planned.append((case, stopwatch(read, "read", first=wait)))
            sleeper = stack.enter_context(_Sleeper(pacer(FPS)))
            case = Case.planned(group="stream", engine="Python", variant=f"{WAKE_ALONE}, {PACED}")
            self._planned.append((case, sleeper.lap))
            self._stack = stack.pop_all()

    def _plan_cameras(
        self, cameras: Sequence[CameraUnderTest], pace: str, wait: Callable[[], None] | None
    ) -> None:
        for camera in cameras:
            case = Case.planned(
                group="stream",
                engine="motorVAE",
                source=camera.source,
                frame=camera.frame,
                variant=f"{DECODE_ALONE}, {pace}",
            )
            self._planned.append((case, stopwatch(camera.luma, "convert", first=wait)))

    def measure(self, schedule: RoundPlan) -> None:
        """Take a turn of each: paced calls take a frame's time, whatever they do."""
        self._turn = min(_TURN, schedule.samples)
        once = {"samples": self._turn, "turn": self._turn, "warmup": 0}
        laps = dict(enumerate(lap for _, lap in self._planned))
        found = interleaved(laps, schedule.model_copy(update=once))
        self._taken = self._taken or [{} for _ in laps]
        for place, timings in found.items():
            for stage, taken_ns in timings.items():
                self._taken[place].setdefault(stage, []).extend(taken_ns)

    def cases(self) -> list[Case]:
        """Return them with what was measured."""
        return [
            case.timed(taken, turn=self._turn)
            for (case, _), taken in zip(self._planned, self._taken, strict=True)
        ]

    def close(self) -> None:
        """Close the encoders."""
        self._stack.close()


@contextlib.contextmanager
def _encoder(
    tested: ModelUnderTest, key: GraphKey, camera: str, seed: int
) -> Iterator[tuple[Callable[[], object], Cores]]:
    """Open what motorvae-stream would, its threads placed as there."""
    engine = EngineRequest(key.target or "auto", precision=key.precision)
    options = StreamOptions(camera=(camera,), engine=engine)
    specs = [options.source_spec(camera)]
    with (
        EncoderOpening(tested.bundle, options, specs) as opening,
        opening.result().backend as backend,
    ):
        luma = luma_for(tested.spec, 1, seed)
        batch = luma if backend.input_dtype == luma.dtype else input_from_pixels(luma)
        yield lambda: backend.run(batch), opening.cores


def _bound(cores: Cores, lap: Laps) -> Laps:
    """Return a lap in which the thread waits and works where the one of a stream does."""

    def bound() -> dict[str, int]:
        cores.bind()
        try:
            return dict(lap())
        finally:
            cores.release()

    return bound


def _least_weights(tested: ModelUnderTest, keys: Sequence[GraphKey]) -> dict[GraphKey, int]:
    """Return the bytes of the smallest of the encoders, by its key."""
    sizes = {}
    for key in keys:
        with contextlib.suppress(BundleError):
            sizes[key] = tested.bundle.leanest(key, ("mu",)).size_bytes
    least = min(sizes, key=lambda key: sizes[key], default=None)
    return {} if least is None else {least: sizes[least]}


class _Sleeper(Closing):
    """A thread that sleeps until it is called, on another core than its caller where there is one.

    That is what an encoder's worker does between two frames. Pipes let go of Python's lock.
    """

    def __init__(self, wait: Callable[[], object]) -> None:
        self._wait, self._woken_ns = wait, 0
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._all, self._own = set(usable), set(usable[:1])
        taken = {core_of(cpu) for cpu in self._own}
        self._others = {cpu for cpu in usable if core_of(cpu) not in taken}
        (self._called, self._call), (self._answered, self._answer) = os.pipe(), os.pipe()
        self._thread = threading.Thread(target=self._sleep, name="sleeper", daemon=True)
        self._thread.start()

    def _sleep(self) -> None:
        self._place(self._own)
        while os.read(self._called, 1) == b"w":
            self._woken_ns = time.perf_counter_ns()
            os.write(self._answer, b"w")

    def _place(self, cores: set[int]) -> None:
        if self._others:
            with contextlib.suppress(OSError):  # a container forbids it
                os.sched_setaffinity(0, cores)

    def lap(self) -> dict[str, int]:
        """Wait, wake the thread, and return how long it took until it ran."""
        self._place(self._others)
        try:
            self._wait()
            began_ns = time.perf_counter_ns()
            os.write(self._call, b"w")
            os.read(self._answered, 1)
            return {"wake": max(1, self._woken_ns - began_ns)}
        finally:
            self._place(self._all)

    def close(self) -> None:
        """End the thread."""
        if not self._thread.is_alive():
            return
        os.write(self._call, b"e")
        self._thread.join()
        for end in (self._called, self._call, self._answered, self._answer):
            os.close(end)
