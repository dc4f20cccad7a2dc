from __future__ import annotations

from typing import Any

import pytest

from motorvae.benchmarks.measure.case import STREAM_MODULE, Case, samples_of
from motorvae.benchmarks.measure.result import Result
from motorvae.benchmarks.report.tables import Leader, leaders_of, standings_of
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


def leaders(result: Result, *cases: Case) -> dict[str, Leader]:
    found = leaders_of(result.model_copy(update={"cases": cases}))
    return {leader.case.what: leader for leader in found}


def times(stages: dict[str, int], **facts: Any) -> Case:
    samples = {stage: samples_of([ms * 10**6] * 3) for stage, ms in stages.items()}
    return Case.model_validate({"engine": "OpenVINO", "stages": samples, **facts})


def test_a_graph_is_held_against_the_least_time_of_its_precision(result: Result) -> None:
    (eager, *_) = result.cases
    assert eager.roofline is not None
    (found,) = leaders_of(result.model_copy(update={"cases": (eager,)}))
    assert found.words == f"{1 / eager.roofline.times:.0%} of roofline"
    low = eager.roofline.model_copy(update={"compute_ms": 6.0, "times": 5.25 / 6})
    (found,) = leaders_of(
        result.model_copy(update={"cases": (eager.model_copy(update={"roofline": low}),)})
    )
    assert found.words == "not valid: faster than roofline"
    fp16 = eager.model_copy(update={"precision": "fp16", "roofline": None})
    (found,) = leaders_of(result.model_copy(update={"cases": (fp16,)}))
    assert found.words == "not applicable: no roofline"


def test_an_age_is_held_against_the_parts_of_the_same_engine(result: Result) -> None:
    camera: dict[str, Any] = {"group": "stream", "source": "mjpeg", "frame": (1280, 720)}
    decode = times({"convert": 1}, **camera, variant="decode and convert alone, paced at 60 fps")
    encode = times({"encode": 2}, group="stream", variant="encode alone, paced at 60 fps")
    other = times({"encode": 9}, group="stream", precision="int8", variant=encode.variant)
    hot = times({"encode": 1}, group="stream", variant="encode alone, hot loop")
    stream = times({"age": 4}, **camera, variant="motorvae-stream")
    found = leaders(result, stream, decode, encode, other, hot)
    assert list(found) == ["stream, mjpeg 1280x720 frame"]
    assert found[stream.what].words == "75% of parts alone"
    slow = encode.model_copy(update={"stages": {"encode": samples_of([9 * 10**6] * 3)}})
    assert leaders(result, stream, decode, slow)[stream.what].words == (
        "not valid: faster than parts alone"
    )
    assert leaders(result, stream)[stream.what].words == "not applicable: no parts alone"


def test_only_the_largest_frame_and_what_passed_the_gate_lead(result: Result) -> None:
    hd = {"group": "path", "source": "yuv", "frame": (1920, 1080)}
    small = times({"total": 1, "encode": 1}, **{**hd, "frame": (640, 480)})
    large = times({"total": 8, "encode": 2}, **hd)
    far = Metric(name="largest error / spread", value=0.9, limit=0.5, passed=False)
    wrong = times({"total": 2, "encode": 1}, **hd, precision="int8", latent_error=far)
    found = leaders(result, small, wrong, large)
    assert [leader.case for leader in found.values()] == [large]
    assert found[large.what].words == "25% of encoder alone"


def test_start_up_is_held_against_the_import_and_memory_against_nothing(result: Result) -> None:
    found = leaders(
        result,
        times({"first latent": 900}, group="start-up"),
        times({"import": 1}, group="import", engine="motorvae"),
        times({"import": 450}, group="import", engine=STREAM_MODULE),
        Case.model_validate(
            {
                "group": "memory",
                "engine": "OpenVINO",
                "stages": {"rss": samples_of([1 << 27] * 3, "bytes")},
            }
        ),
    )
    assert {what: leader.words for what, leader in found.items()} == {
        "start-up": "50% of imports",
        "import": "",
        "memory": "",
    }
