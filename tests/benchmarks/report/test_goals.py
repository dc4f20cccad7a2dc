from __future__ import annotations

from typing import Any

import pytest

from motorvae.benchmarks.measure.case import Case
from motorvae.benchmarks.measure.samples import samples_of
from motorvae.benchmarks.report.goals import Goal, goals_of
from motorvae.runtime.bundle.manifest import Metric


def case(group: str, engine: str, ms: float, stage: str = "run", **facts: Any) -> Case:
    stages = {stage: samples_of([round(ms * 1e6)] * 4)}
    return Case.model_validate({"group": group, "engine": engine, "stages": stages, **facts})


def goal(cases: list[Case], words: str) -> Goal:
    (found,) = [one for one in goals_of(cases) if words in one.name]
    return found


FULL_HD = {"source": "mjpeg", "frame": (1920, 1080)}
FAILED = Metric(name="max error / spread over data", value=0.5, limit=0.25, passed=False)


def test_a_run_without_the_cases_says_so() -> None:
    for one in goals_of([]):
        assert one.reached is None
        assert one.met is None
        assert one.by == "not measured in this run"


def test_the_path_is_our_best_against_the_plain_recipe() -> None:
    cases = [
        case("path", "plain recipe", 20, **FULL_HD),
        case("path", "torch eager", 3, variant="our luma", **FULL_HD),
        case("path", "OpenVINO", 4, precision="int8", variant="ours", **FULL_HD),
        case("path", "ONNX Runtime", 8, variant="ours", **FULL_HD),
    ]
    found = goal(cases, "1080p MJPEG")
    assert found.reached == pytest.approx(5)
    assert found.met
    assert "OpenVINO, int8" in found.by
    assert goal(cases, "1080p YUV").met is None


def test_what_fails_the_gate_wins_nothing() -> None:
    cases = [
        case("encoder", "torch eager", 6),
        case("encoder", "OpenVINO", 1, precision="int8", variant="ours", latent_error=FAILED),
        case("encoder", "ONNX Runtime", 2, precision="int8", variant="ours"),
    ]
    found = goal(cases, "int8, against torch eager")
    assert found.reached == pytest.approx(3)
    assert found.met is False


def test_the_rival_is_as_installed_and_of_batch_1() -> None:
    cases = [
        case("decoder", "ONNX Runtime", 15),
        case("decoder", "ONNX Runtime", 1, variant="ours"),
        case("decoder", "ONNX Runtime", 90, batch=8),
        case("decoder", "OpenVINO", 0.1, batch=8, variant="ours"),
    ]
    assert goal(cases, "decoder").reached == pytest.approx(15)


def test_the_age_is_held_against_the_parts_of_the_same_engine() -> None:
    def alone(what: str, ms: float, pace: str, **facts: Any) -> Case:
        return case("stream", "OpenVINO", ms, variant=f"{what} alone, {pace}", **facts)

    paced, hot = "paced at 60 fps", "hot loop"
    camera = {"source": "mjpeg", "frame": (1280, 720)}
    int8 = {"precision": "int8", "outputs": "mu"}
    cases = [
        case("stream", "OpenVINO", 4, "age", variant="motorvae-stream", **camera, **int8),
        case("stream", "ONNX Runtime", 9, "age", variant="motorvae-stream", **camera),
        alone("decode and convert", 1, paced, **camera),
        alone("decode and convert", 1, hot, **camera),
        alone("encode", 2, paced, **int8),
        alone("encode", 1, hot, **int8),
        alone("encode", 0.1, hot, precision="bf16"),
    ]
    assert goal(cases, "alone, paced").reached == pytest.approx(4 / 3)
    assert goal(cases, "alone, hot").reached == pytest.approx(2)
    assert goal(cases, "p99 over p50").reached == pytest.approx(1)
    slow = alone("encode", 3.5, paced, **int8)  # with it the parts take longer than the whole
    cases[4] = slow
    assert goal(cases, "alone, paced").met is None


def test_start_up_and_memory_have_their_units() -> None:
    size = {"rss": samples_of([150_000_000, 180_000_000], "bytes")}
    cases = [
        case("start-up", "ONNX Runtime", 900),
        case("start-up", "ONNX Runtime", 100, precision="int8"),
        Case.model_validate(
            {
                "group": "memory",
                "engine": "OpenVINO",
                "precision": "int8",
                "source": "mjpeg",
                "frame": (1280, 720),
                "stages": size,
            }
        ),
    ]
    start, memory = goal(cases, "first latent"), goal(cases, "resident memory")
    assert (start.reached, start.unit, start.met) == (pytest.approx(0.9), "s", True)
    assert (memory.reached, memory.unit, memory.met) == (pytest.approx(180), "MB", True)
