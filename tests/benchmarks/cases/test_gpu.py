from __future__ import annotations

import pytest

from motorvae.benchmarks.cases.gpu import clocks, gpu_cases, power_mode
from motorvae.benchmarks.cases.graph import DriftGate
from motorvae.benchmarks.measure.rounds import RoundPlan
from motorvae.benchmarks.subjects.model_under_test import ModelUnderTest
from motorvae.runtime.engines.gpu_info import NoGpu, find_gpu


def test_without_a_gpu_each_engine_says_why(subject: ModelUnderTest) -> None:
    gpu = find_gpu()
    if not isinstance(gpu, NoGpu):
        pytest.skip("this machine has a GPU")
    cases = gpu_cases(subject, schedule=RoundPlan(samples=2), seed=0, gate=DriftGate(subject))
    assert [(case.engine, case.not_measured) for case in cases] == [
        ("TensorRT", gpu.reason),
        ("TensorRT-RTX", gpu.reason),
    ]


def test_a_machine_without_the_tools_says_nothing_of_power(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    assert power_mode() is None
    assert clocks() == ()
