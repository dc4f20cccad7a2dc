"""The path cases: from a frame in memory to mu, ours against what people write, sizes in turns."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import get_args

import cv2
import numpy as np
import numpy.typing as npt

from ...runtime.bundle.graph_key import OUTPUTS, GraphKey
from ...runtime.core.errors import BundleError, MeasurementError
from ...runtime.core.spec import ModelSpec
from ...runtime.engines.base import Batch
from ...runtime.pixels.convert import input_from_luma, write_input
from ...runtime.pixels.reference import reference_luma
from ..measure.case import EAGER, PLAIN, Agreement, Case, FrameSource, measured_case
from ..measure.rounds import RoundPlan, interleaved
from ..subjects.engine_error import Drift
from ..subjects.engines_under_test import RUNNERS, EngineUnderTest, Opened, open_all, production
from ..subjects.luma_paths import our_luma, plain_luma
from ..subjects.model_under_test import ModelUnderTest
from ..subjects.scenes import JPEG_QUALITY, Luma, Scene, luma_for, scene_of
from ..subjects.torch_engines import Run, agreement_with, eager_run
from .graph import DriftGate, samples_by_stage

FRAMES = ((640, 480), (1280, 720), (1920, 1080))
"""Width and height of the frames of the whole path."""
SOURCES: tuple[FrameSource, ...] = get_args(FrameSource)
MOST_LEVELS = 1.0
"""How far our luma may be from the reference on average, in levels of 255."""

_OUR_LUMA = "our luma"


@dataclass(frozen=True)
class Path:
    """One way from a frame to mu.

    Attributes:
        planned: Its case without samples.
        luma: Makes fitted luma, (S, S) uint8.
        run: The encoder.
        dtype: What the encoder takes.
        opencv_threads: What OpenCV is set to.
        drift: Of the encoder.
    """

    planned: Case
    luma: Callable[[], Luma]
    run: Run
    dtype: npt.DTypeLike
    opencv_threads: int
    drift: Drift = field(default_factory=Drift)

    def laps(self, spec: ModelSpec) -> Callable[[], dict[str, int]]:
        """Return what is timed, as the runtime goes: one input buffer, allocated once.

        Stages: `total` around `preprocess` (frame to model input) and `encode` (input to mu).
        """
        batch = np.empty((1, 1, spec.image_size, spec.image_size), self.dtype)

        def lap() -> dict[str, int]:
            if cv2.getNumThreads() != self.opencv_threads:  # in the first call of a turn
                cv2.setNumThreads(self.opencv_threads)
            begin = time.perf_counter_ns()
            write_input(self.luma(), batch[0, 0])
            ready = time.perf_counter_ns()
            self.run(batch)
            end = time.perf_counter_ns()
            return {"total": end - begin, "preprocess": ready - begin, "encode": end - ready}

        return lap


def path_cases(
    subject: ModelUnderTest,
    *,
    schedule: RoundPlan,
    seed: int,
    gate: DriftGate,
    threads: int | None = None,
    sizes: Sequence[tuple[int, int]] = FRAMES,
) -> list[Case]:
    """Time the way from a frame to mu, from JPEG bytes, a decoded YUV frame and a BGR array.

    Grabbing a frame belongs to the camera and is not in it; neither is the decoding of a YUV frame.

    Raises:
        MeasurementError: Our luma is not that of the reference, or a latent differs from torch's.
    """
    cases: list[Case] = []
    opencv_threads = cv2.getNumThreads()
    eager = eager_run(subject.model.encoder, OUTPUTS["encoder"])
    with contextlib.ExitStack() as stack:
        stack.callback(cv2.setNumThreads, opencv_threads)
        encoders, refused = open_all(
            path_contenders(subject, threads), lambda one: _sample(subject, one, seed), stack
        )
        for size in sizes:
            scene = scene_of(*size, seed)
            for source in SOURCES:
                paths = [
                    *_rivals(subject, eager, scene, source, opencv_threads),
                    *(_ours(subject, one, scene, source, gate) for one in encoders),
                ]
                agreements = [_checked(path, subject.spec, scene, eager) for path in paths]
                samples = interleaved(
                    {path.planned.how: path.laps(subject.spec) for path in paths}, schedule
                )
                cases += [
                    measured_case(
                        path.planned.model_copy(
                            update={
                                "not_measured": None,
                                "input_sha256": scene.sha256,
                                "stages": samples_by_stage(samples[path.planned.how]),
                                "turn": schedule.turn,
                                "agreement": agreement,
                                "latent_error": path.drift.latent_error,
                                "notes": (*path.planned.notes, *path.drift.notes),
                            }
                        )
                    )
                    for path, agreement in zip(paths, agreements, strict=True)
                ]
                cases += [_placed(case, scene, source) for case in refused]
    return cases


def path_contenders(subject: ModelUnderTest, threads: int | None) -> list[EngineUnderTest]:
    """Return the leanest encoder of each engine in float32 and int8, as far as there is one."""
    found = []
    for precision in ("fp32", "int8"):
        for runner in RUNNERS:
            if (runner, precision) == ("openvino", "fp32"):  # never what `auto` takes
                continue
            with contextlib.suppress(BundleError):
                entry = subject.bundle.leanest(
                    GraphKey("encoder", precision, target=runner), ("mu",)
                )
                found.append(production(subject, entry, runner, threads=threads))
    return found


def _rivals(
    subject: ModelUnderTest, eager: Run, scene: Scene, source: FrameSource, opencv_threads: int
) -> list[Path]:
    """Return the plain recipe, and torch eager behind our luma, so that both parts show."""
    side = subject.spec.image_size
    blank = Case(
        group="path",
        engine=PLAIN,
        outputs=" and ".join(OUTPUTS["encoder"]),
        not_measured="not reached",
    )
    plain = _placed(blank, scene, source)
    ours = plain.model_copy(update={"engine": EAGER, "variant": _OUR_LUMA})
    return [
        Path(plain, plain_luma(scene, source, side), eager, np.float32, opencv_threads),
        Path(ours, our_luma(scene, source, subject.spec), eager, np.float32, 1),
    ]


def _ours(
    subject: ModelUnderTest, opened: Opened, scene: Scene, source: FrameSource, gate: DriftGate
) -> Path:
    dtype = np.uint8 if opened.contender.takes_luma else np.float32
    planned = _placed(opened.contender.planned, scene, source)
    luma = our_luma(scene, source, subject.spec)
    drift = gate.of(opened.contender.planned, opened.run, opened.contender.entry)
    return Path(planned, luma, opened.run, dtype, opencv_threads=1, drift=drift)


def _placed(case: Case, scene: Scene, source: FrameSource) -> Case:
    height, width = scene.bgr.shape[:2]
    notes = (f"a JPEG of {scene.jpeg.size} bytes, quality {JPEG_QUALITY}",)
    update = {
        "group": "path",
        "source": source,
        "frame": (width, height),
        "notes": notes if source == "mjpeg" else (),
    }
    return case.model_copy(update=update)


def _checked(path: Path, spec: ModelSpec, scene: Scene, eager: Run) -> tuple[Agreement, ...]:
    """Hold a path's luma against the reference, and its latent against torch's of the same luma."""
    luma = path.luma()
    far = np.abs(luma.astype(np.float64) - reference_luma(scene.bgr, spec)).mean()
    title = f"{path.planned.how} at {path.planned.what}"
    if path.planned.engine != PLAIN and not far <= MOST_LEVELS:
        raise MeasurementError(
            f"{title}: luma is {far:.2f} levels from the reference on average, limit "
            f"{MOST_LEVELS:g}: report this, and do not trust latents of such frames"
        )
    near = Agreement(
        output="luma, mean difference",
        reference="area average in float64",
        max_difference=float(far),
        limit=MOST_LEVELS,
    )
    if path.planned.engine in {PLAIN, EAGER}:  # which is torch itself
        return (near,)
    batch = np.empty((1, 1, *luma.shape), path.dtype)
    write_input(luma, batch[0, 0])
    expected = eager(input_from_luma(luma[None, None]))
    found = {"mu": path.run(batch)["mu"]}
    return (near, *agreement_with(expected, found, title, path.planned.precision))


def _sample(subject: ModelUnderTest, contender: EngineUnderTest, seed: int) -> Batch:
    luma = luma_for(subject.spec, 1, seed)
    return luma if contender.takes_luma else input_from_luma(luma)
