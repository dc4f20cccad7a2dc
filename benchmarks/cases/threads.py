"""The thread cases: what the default pools of OpenCV, ONNX Runtime and torch cost against ours."""

from __future__ import annotations

import contextlib
import time

import cv2
import numpy as np

from ...runtime.bundle.graph_key import OUTPUTS, GraphKey
from ...runtime.engines.open import open_engine
from ...runtime.pixels.convert import write_input
from ..measure.case import EAGER, HOT, ONNX, PACED, Case
from ..measure.rounds import Laps, RoundPlan, interleaved
from ..under_test.as_installed import plain_onnx
from ..under_test.model_under_test import ModelUnderTest
from ..under_test.scenes import our_luma, plain_luma, scene_of
from ..under_test.torch_engines import eager_run
from .path import Path
from .stream import FPS, pacer

FRAME = (1920, 1080)
_INSTALLED = "threads as installed"


def thread_cases(tested: ModelUnderTest, *, schedule: RoundPlan, seed: int) -> list[Case]:
    """Time JPEG bytes to mu in float32, by the wall and in processor seconds of all threads.

    In a loop that is paced by a camera's clock the processor time runs from one latent to the
    next, so that threads which spin while there is nothing to do are in it.
    """
    scene = scene_of(*FRAME, seed)
    entry = tested.bundle.leanest(GraphKey("encoder", target="onnx"), ("mu",))
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
        ours = stack.enter_context(open_engine(tested.bundle, entry.key))
        luma = our_luma(scene, "mjpeg", tested.spec)
        plain = plain_luma(scene, "mjpeg", tested.spec.image_size)
        torch_case = blank.model_copy(
            update={"engine": EAGER, "outputs": " and ".join(OUTPUTS["encoder"])}
        )
        eager = eager_run(tested.model.encoder, OUTPUTS["encoder"])
        same = plain_onnx(tested.bundle.path(entry), None)
        pools = [
            Path(torch_case, plain, eager, np.float32, installed),
            Path(blank, luma, same, ours.input_dtype, installed),
            Path(blank.model_copy(update={"variant": "ours"}), luma, ours.run, ours.input_dtype, 1),
        ]
        found = [
            (
                one.planned.model_copy(update={"variant": f"{one.planned.variant}, {pace}"}),
                _laps(one, tested.spec.image_size, paced=pace == PACED),
            )
            for pace in (HOT, PACED)
            for one in pools
        ]
        samples = interleaved({case.key: laps for case, laps in found}, schedule)
    return [
        case.timed(samples[case.key], input_sha256=scene.sha256, turn=schedule.turn)
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
