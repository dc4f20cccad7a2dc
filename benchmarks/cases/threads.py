"""The thread cases: what the default pools of OpenCV, ONNX Runtime and torch cost against ours."""

from __future__ import annotations

import contextlib
import time

import cv2
import numpy as np

from ...runtime.bundle.graph_key import OUTPUTS, GraphKey
from ...runtime.engines.open import open_engine
from ...runtime.pixels.convert import write_input
from ..measure.case import EAGER, HOT, ONNX, PACED, Case, measured_case
from ..measure.rounds import Laps, RoundPlan, interleaved
from ..subjects.as_installed import plain_onnx
from ..subjects.luma_paths import our_luma, plain_luma
from ..subjects.model_under_test import ModelUnderTest
from ..subjects.scenes import scene_of
from ..subjects.torch_engines import eager_run
from .graph import samples_by_stage
from .path import Path
from .stream import FPS, pacer

FRAME = (1920, 1080)
_INSTALLED = "threads as installed"


def thread_cases(subject: ModelUnderTest, *, schedule: RoundPlan, seed: int) -> list[Case]:
    """Time JPEG bytes to mu in float32, by the wall and in processor seconds of all threads.

    In a loop that is paced by a camera's clock the processor time runs from one latent to the
    next, so that threads which spin while there is nothing to do are in it.
    """
    scene = scene_of(*FRAME, seed)
    entry = subject.bundle.leanest(GraphKey("encoder", target="onnx"), ("mu",))
    installed = cv2.getNumThreads()
    blank = Case(
        group="threads",
        engine=ONNX,
        outputs="mu",
        source="mjpeg",
        frame=FRAME,
        variant=_INSTALLED,
        not_measured="not reached",
    )
    with contextlib.ExitStack() as stack:
        stack.callback(cv2.setNumThreads, installed)
        ours = stack.enter_context(open_engine(subject.bundle, entry.key))
        luma = our_luma(scene, "mjpeg", subject.spec)
        plain = plain_luma(scene, "mjpeg", subject.spec.image_size)
        torch_case = blank.model_copy(
            update={"engine": EAGER, "outputs": " and ".join(OUTPUTS["encoder"])}
        )
        eager = eager_run(subject.model.encoder, OUTPUTS["encoder"])
        same = plain_onnx(subject.bundle.path(entry), None)
        pools = [
            Path(torch_case, plain, eager, np.float32, installed),
            Path(blank, luma, same, ours.input_dtype, installed),
            Path(blank.model_copy(update={"variant": "ours"}), luma, ours.run, ours.input_dtype, 1),
        ]
        found = [
            (
                one.planned.model_copy(update={"variant": f"{one.planned.variant}, {pace}"}),
                _laps(one, subject.spec.image_size, paced=pace == PACED),
            )
            for pace in (HOT, PACED)
            for one in pools
        ]
        samples = interleaved({case.key: laps for case, laps in found}, schedule)
    return [
        measured_case(
            case.model_copy(
                update={
                    "not_measured": None,
                    "input_sha256": scene.sha256,
                    "stages": samples_by_stage(samples[case.key]),
                    "turn": schedule.turn,
                }
            )
        )
        for case, _ in found
    ]


def _laps(pools: Path, side: int, *, paced: bool) -> Laps:
    batch = np.empty((1, 1, side, side), pools.dtype)
    wait = pacer(FPS) if paced else None
    used_ns = time.process_time_ns()

    def lap() -> dict[str, int]:
        nonlocal used_ns
        if cv2.getNumThreads() != pools.opencv_threads:  # in the first call of a turn
            cv2.setNumThreads(pools.opencv_threads)
        if wait is not None:
            wait()
        begin_ns = time.perf_counter_ns()
        write_input(pools.luma(), batch[0, 0])
        pools.run(batch)
        wall_ns = time.perf_counter_ns() - begin_ns
        before_ns, used_ns = used_ns, time.process_time_ns()
        return {"wall": wall_ns, "processor": used_ns - before_ns}

    return lap
