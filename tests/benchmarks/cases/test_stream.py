from __future__ import annotations

import urllib.request

from motorvae.benchmarks.cases.stream import (
    STREAMED,
    StreamPlan,
    import_cases,
    start_up_cases,
    stream_cases,
    stream_keys,
)
from motorvae.benchmarks.measure.case import BARE, NO_PYTHON, STREAM_MODULE
from motorvae.benchmarks.measure.rounds import RoundPlan
from motorvae.benchmarks.under_test.model_under_test import ModelUnderTest
from motorvae.benchmarks.under_test.stream_process import MjpegCamera
from motorvae.runtime.bundle.graph_key import GraphKey

SHORT = RoundPlan(samples=2, warmup=0, settle=0, turn=2)
PLAN = StreamPlan(rounds=2, skipped=2, frames=5)


def test_ages_and_memory_come_from_real_streams(tested: ModelUnderTest) -> None:
    cases = stream_cases(tested, PLAN, SHORT, seed=0)
    streams = [case for case in cases if case.variant == "motorvae-stream"]
    assert [(case.group, case.source, case.frame) for case in streams] == [
        ("stream", "mjpeg", (1280, 720)),
        ("memory", "mjpeg", (1280, 720)),
        ("stream", None, (512, 512)),
        ("memory", None, (512, 512)),
    ]
    for case in streams:
        assert case.not_measured is None
    for case in streams[::2]:
        frames = PLAN.frames * (PLAN.rounds if case.source else 1)
        assert {len(series.samples) for series in case.stages.values()} == {frames}
        ages = case.stages["age"].samples
        encodes = case.stages["encode"].samples
        assert all(encode < age for age, encode in zip(ages, encodes, strict=True))
        assert any(note.startswith("frames dropped: ") for note in case.notes)
    for case in streams[1::2]:
        assert {series.unit for series in case.stages.values()} == {"bytes"}
        assert all(
            peak >= rss > 20e6
            for rss, peak in zip(
                case.stages["rss"].samples, case.stages["peak"].samples, strict=True
            )
        )
    assert [case.variant for case in cases if case not in streams] == [
        variant
        for pace in ("hot loop", "paced at 60 fps", "paced at 60 fps, awake")
        for variant in (
            *[f"decode and convert alone, {pace}"] * 2,
            f"encode alone, {pace}",
            f"reading as many bytes as its weights, {pace}",
        )
    ] + ["waking a thread, paced at 60 fps"]


def test_float32_and_int8_are_streamed() -> None:
    keys = [
        GraphKey("encoder", target="onnx"),
        GraphKey("encoder", "bf16", target="openvino"),
        GraphKey("encoder", "int8", target="openvino"),
    ]
    assert [key for key in keys if key in STREAMED] == [keys[0], keys[2]]


def test_the_camera_sends_its_pictures_in_turns() -> None:
    pictures = [b"one", b"two", b"three"]
    with (
        MjpegCamera(pictures, fps=200) as camera,
        urllib.request.urlopen(camera.url, timeout=10) as reply,  # noqa: S310  # our own
    ):
        assert reply.headers["Content-Type"] == "multipart/x-mixed-replace;boundary=frame"
        seen = []
        while len(seen) < 5:
            if reply.readline() == b"\r\n":
                seen.append(reply.readline().strip())
    assert seen == [b"one", b"two", b"three", b"one", b"two"]


def test_start_up_is_that_of_every_way_to_stream(tested: ModelUnderTest) -> None:
    cases = start_up_cases(tested, rounds=1)
    *both, python = cases
    keys = stream_keys(tested)
    assert [case.variant for case in both] == len(keys) * ["motorvae-stream"] + len(keys) * [BARE]
    assert python.variant == NO_PYTHON
    assert GraphKey("encoder", target="onnx") in keys
    assert GraphKey("encoder", "fp16", target="openvino") not in keys
    assert python.whole is not None
    for ours, bare in zip(both[: len(keys)], both[len(keys) :], strict=True):
        if ours.whole is not None and bare.whole is not None:
            # No interpreter imports numpy and an engine in less, nor do we start without both.
            assert python.whole.p50 < bare.whole.p50 < ours.whole.p50
            assert min(bare.whole.samples) > 50e6
            assert ours.turn == 1
    assert any(case.whole for case in both)


def test_imports_are_timed_in_fresh_interpreters() -> None:
    """Of the Python API, which loads nothing, and of the command, which loads numpy and more."""
    api, command = import_cases(2)
    assert [case.engine for case in (api, command)] == ["motorvae", STREAM_MODULE]
    (of_api,), (of_command,) = (case.stages.values() for case in (api, command))
    assert len(of_api.samples) == len(of_command.samples) == 2
    assert of_command.p50 > 10 * of_api.p50
