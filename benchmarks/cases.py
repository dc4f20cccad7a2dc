"""The latency cases: each engine on each graph and batch, and the whole path from a frame."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from ..runtime.bundle import GraphName, tensors_of
from ..runtime.errors import MeasurementError
from ..runtime.frames import input_from_image
from ..runtime.spec import ModelSpec
from ..runtime.vehicles import vehicle
from .engines import (
    Array,
    Run,
    agreement_with,
    compiled_engine,
    eager_engine,
    onnx_engine,
)
from .measure import Samples, Schedule, interleaved, stopwatch
from .results import COMPILED, EAGER, ONNX, Agreement, Case, Series, measured_case, series_of
from .subject import Subject, array_sha256, images_for

FRAMES = ((640, 480), (1280, 720), (1920, 1080))
"""Width and height of the frames of the whole path."""

_ENCODER_OUTPUTS = ("mu", "log_var")


def graph_cases(
    subject: Subject,
    graph: GraphName,
    batch: int,
    *,
    schedule: Schedule,
    seed: int,
    threads: int,
    skip_compile: bool = False,
) -> list[Case]:
    """Time the engines on one graph and batch, in turns, on the same input.

    The encoder sees vehicles; the decoder sees the latents of the same vehicles.

    Raises:
        MeasurementError: Two engines disagree.
    """
    half = subject.model.encoder if graph == "encoder" else subject.model.decoder
    outputs = [tensor.name for tensor in tensors_of(graph, subject.spec)[1]]
    values = images_for(subject.spec, batch, seed)
    if graph == "decoder":
        values = eager_engine(subject.model.encoder, _ENCODER_OUTPUTS, values).run(values)["mu"]
    not_measured: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        engines = [eager_engine(half, outputs, values)]
        if skip_compile:
            not_measured[COMPILED] = "left out by --skip-compile"
        else:
            try:
                engines.append(compiled_engine(half, outputs, values))
            except MeasurementError as error:
                not_measured[COMPILED] = str(error)
        engines.append(stack.enter_context(onnx_engine(subject.graphs[graph], values, threads)))
        reference = engines[0].run(values)
        agreements: dict[str, tuple[Agreement, ...]] = {
            engine.name: agreement_with(reference, engine.run(values), engine.name)
            for engine in engines[1:]
        }
        samples = interleaved(
            {engine.name: stopwatch(_call(engine.run, values), "run") for engine in engines},
            schedule,
        )
    cases = {
        name: Case(group=graph, engine=name, batch=batch, not_measured=reason)
        for name, reason in not_measured.items()
    }
    for engine in engines:
        case = Case(
            group=graph,
            engine=engine.name,
            batch=batch,
            input_sha256=array_sha256(values),
            prepare_s=engine.prepare_s,
            stages=_series(samples[engine.name]),
            agreement=agreements.get(engine.name, ()),
        )
        cases[engine.name] = measured_case(case)
    return [cases[name] for name in (EAGER, COMPILED, ONNX)]


def path_cases(subject: Subject, *, schedule: Schedule, seed: int, threads: int) -> list[Case]:
    """Time the way from a camera frame in memory to mu with ONNX Runtime, sizes in turns.

    Stages: `preprocess` (BGR to model input), `encode` (model input to mu), and `total` around
    both. Grabbing and decoding a frame belong to the camera and are not in it.

    Raises:
        MeasurementError: A latent differs from torch's.
    """
    first = images_for(subject.spec, 1, seed)
    eager = eager_engine(subject.model.encoder, _ENCODER_OUTPUTS, first)
    frames = {size: frame_of(*size, seed) for size in FRAMES}
    agreements: dict[tuple[int, int], tuple[Agreement, ...]] = {}
    with onnx_engine(subject.graphs["encoder"], first, threads) as engine:
        paths = {size: _Path(frame, subject.spec, engine.run) for size, frame in frames.items()}
        for size, path in paths.items():
            path.lap()
            expected = {"mu": eager.run(path.prepared)["mu"]}
            where = f"{ONNX} at {size[0]}x{size[1]}"
            agreements[size] = agreement_with(expected, {"mu": path.mu}, where)
        samples = interleaved({size: path.lap for size, path in paths.items()}, schedule)
    return [
        measured_case(
            Case(
                group="path",
                engine=ONNX,
                batch=1,
                frame=size,
                input_sha256=array_sha256(frame),
                prepare_s=engine.prepare_s,
                stages=_series(samples[size]),
                agreement=agreements[size],
            )
        )
        for size, frame in frames.items()
    ]


def frame_of(width: int, height: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return what a camera would deliver: a vehicle under sensor noise, (H, W, 3) BGR uint8."""
    luma, _ = vehicle(seed, 0)
    image = cv2.cvtColor(cv2.resize(luma, (width, height)), cv2.COLOR_GRAY2BGR)
    noise = np.random.default_rng(seed).integers(0, 12, image.shape, np.uint8)
    return np.asarray(cv2.subtract(image, noise), np.uint8)


class _Path:
    """From a frame to mu, as the runtime goes: one input buffer, allocated once."""

    def __init__(self, frame: npt.NDArray[np.uint8], spec: ModelSpec, run: Run) -> None:
        self._frame, self._spec, self._run = frame, spec, run
        self.prepared: Array = np.empty((1, 1, spec.image_size, spec.image_size), np.float32)
        self.mu: Array = np.empty((0,), np.float32)

    def lap(self) -> dict[str, int]:
        begin = time.perf_counter_ns()
        input_from_image(self._frame, self._spec, self.prepared[0, 0])
        ready = time.perf_counter_ns()
        self.mu = self._run(self.prepared)["mu"]
        end = time.perf_counter_ns()
        return {"total": end - begin, "preprocess": ready - begin, "encode": end - ready}


def _call(run: Run, values: Array) -> Callable[[], object]:
    return lambda: run(values)


def _series(samples: Samples) -> dict[str, Series]:
    return {stage: series_of(taken) for stage, taken in samples.items()}
