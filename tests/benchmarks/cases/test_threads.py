from __future__ import annotations

import cv2

from motorvae.benchmarks.cases.threads import thread_cases
from motorvae.benchmarks.measure.rounds import RoundPlan
from motorvae.benchmarks.subjects.model_under_test import ModelUnderTest


def test_each_way_is_timed_by_the_wall_and_in_processor_time(subject: ModelUnderTest) -> None:
    before = cv2.getNumThreads()
    cases = thread_cases(subject, schedule=RoundPlan(samples=2, warmup=1, settle=1, turn=2), seed=0)
    assert [(case.engine, case.variant) for case in cases] == [
        (engine, f"{pools}, {pace}")
        for pace in ("hot loop", "paced at 60 fps")
        for engine, pools in (
            ("torch eager", "threads as installed"),
            ("ONNX Runtime", "threads as installed"),
            ("ONNX Runtime", "ours"),
        )
    ]
    assert {tuple(case.stages) for case in cases} == {("wall", "processor")}
    assert len({case.input_sha256 for case in cases}) == 1
    assert cv2.getNumThreads() == before
