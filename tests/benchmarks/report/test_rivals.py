from __future__ import annotations

from typing import Any

import pytest

from motorvae.benchmarks.measure.case import Case
from motorvae.benchmarks.measure.result import Result
from motorvae.benchmarks.measure.samples import samples_of
from motorvae.benchmarks.report.rivals import standings_of
from motorvae.runtime.bundle.manifest import Metric


def case(engine: str, ms: int, **facts: Any) -> Case:
    return Case(
        **{"group": "encoder", "engine": engine, **facts},
        stages={"run": samples_of([ms * 10**6] * 3)},
    )


def standings(result: Result, *cases: Case) -> list[tuple[str, dict[str, float]]]:
    found = standings_of(result.model_copy(update={"cases": cases}))
    return [(standing.case.how, standing.times) for standing in found]


def test_losses_come_first_and_each_rival_has_its_own_ratio(result: Result) -> None:
    eager = case("torch eager", 10)
    onnx, slow = case("ONNX Runtime", 5), case("OpenVINO", 20, variant="ours")
    quick = case("OpenVINO", 1, precision="int8", variant="ours")
    assert standings(result, eager, onnx, quick, slow) == [
        ("OpenVINO, ours", {"torch eager": 2, "ONNX Runtime": 4}),
        ("OpenVINO, int8, ours", {"torch eager": 0.1, "ONNX Runtime": 0.2}),
    ]


def test_a_loss_to_openvino_as_installed_is_published(result: Result) -> None:
    installed, ours = case("OpenVINO", 8), case("OpenVINO", 10, variant="ours, phases")
    bf16 = case("OpenVINO", 5, precision="bf16")
    assert standings(result, installed, ours) == [("OpenVINO, ours, phases", {"OpenVINO": 1.25})]
    assert standings(result, bf16, ours) == [("OpenVINO, ours, phases", {"OpenVINO": 2})]


@pytest.mark.parametrize(
    "other",
    [
        {"batch": 8},
        {"group": "decoder"},
        {"group": "path", "source": "yuv", "frame": (640, 480)},
    ],
)
def test_only_what_does_the_same_is_a_rival(result: Result, other: dict[str, Any]) -> None:
    assert (
        standings(result, case("torch eager", 10), case("OpenVINO", 1, variant="ours", **other))
        == []
    )


def test_the_rival_is_the_engine_as_installed(result: Result) -> None:
    installed = case("ONNX Runtime", 8, outputs="mu and log_var")
    lean = case("ONNX Runtime", 6, outputs="mu", variant="ours")
    tuned = case("ONNX Runtime", 4, outputs="mu and log_var", variant="ours, tuned")
    int8 = case("ONNX Runtime", 2, precision="int8", outputs="mu", variant="ours")
    assert standings(result, tuned, int8, lean, installed) == [
        ("ONNX Runtime, mu, ours", {"ONNX Runtime": 0.75}),
        ("ONNX Runtime, mu and log_var, ours, tuned", {"ONNX Runtime": 0.5}),
        ("ONNX Runtime, int8, mu, ours", {"ONNX Runtime": 0.25}),
    ]


def test_what_failed_the_gate_wins_nothing(result: Result) -> None:
    failed = Metric(name="largest error / spread", value=0.9, limit=0.5, passed=False)
    broken = case("OpenVINO", 1, precision="int8", latent_error=failed)
    assert standings(result, case("torch eager", 10), broken) == []
