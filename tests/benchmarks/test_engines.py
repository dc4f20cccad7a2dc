from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch

from motorvae.benchmarks.cases import FRAMES, frame_of, graph_cases, path_cases
from motorvae.benchmarks.engines import agreement_with, thread_limit
from motorvae.benchmarks.measure import Schedule
from motorvae.benchmarks.subject import Subject, random_model, untrained_subject
from motorvae.runtime.errors import MeasurementError
from motorvae.runtime.spec import ModelSpec

SHORT = Schedule(samples=3, warmup=1, settle=0, turn=2)


@pytest.fixture(scope="module")
def subject(small_spec: ModelSpec) -> Iterator[Subject]:
    with untrained_subject(small_spec, seed=0) as found:
        yield found


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
@pytest.mark.parametrize("batch", [1, 3])
def test_engines_see_one_input_and_agree(subject: Subject, graph: str, batch: int) -> None:
    cases = graph_cases(
        subject,
        graph,  # type: ignore[arg-type]
        batch,
        schedule=SHORT,
        seed=0,
        threads=1,
        skip_compile=True,
    )
    eager, compiled, onnx = cases
    assert [case.engine for case in cases] == ["torch eager", "torch.compile", "ONNX Runtime"]
    assert compiled.not_measured == "left out by --skip-compile"
    assert eager.input_sha256 == onnx.input_sha256
    assert len(eager.stages["run"].samples_ns) == len(onnx.stages["run"].samples_ns) == 3
    outputs = ["mu", "log_var"] if graph == "encoder" else ["reconstruction"]
    assert [entry.output for entry in onnx.agreement] == outputs
    assert all(0 <= entry.max_difference <= entry.limit for entry in onnx.agreement)


def test_engines_that_disagree_are_not_timed(subject: Subject) -> None:
    mixed = dataclasses.replace(subject, model=random_model(subject.spec, seed=1))
    for graph in ("encoder", "decoder"):
        with pytest.raises(MeasurementError, match="ONNX Runtime and torch eager disagree on"):
            graph_cases(mixed, graph, 1, schedule=SHORT, seed=0, threads=1, skip_compile=True)  # type: ignore[arg-type]
    with pytest.raises(MeasurementError, match=r"ONNX Runtime at 640x480 .* disagree on mu"):
        path_cases(mixed, schedule=SHORT, seed=0, threads=1)


def test_the_limit_of_agreement_follows_the_spread_of_the_output() -> None:
    expected = {"mu": np.linspace(-1, 1, 64, dtype=np.float32)}
    near = {"mu": expected["mu"] + np.float32(3e-4)}
    (entry,) = agreement_with(expected, near, "an engine")
    assert entry.max_difference == pytest.approx(3e-4, rel=1e-3)
    assert entry.limit == pytest.approx(1e-3 * expected["mu"].std() + 1e-6)
    small = {"mu": expected["mu"] * np.float32(1e-2)}
    with pytest.raises(MeasurementError, match=r"largest difference 0\.0003"):
        agreement_with(small, {"mu": small["mu"] + np.float32(3e-4)}, "an engine")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_no_number_agrees_with_nothing(wrong: float) -> None:
    expected = {"mu": np.ones(4, np.float32)}
    with pytest.raises(MeasurementError, match="disagree on mu"):
        agreement_with(expected, {"mu": np.array([1, 1, 1, wrong], np.float32)}, "an engine")


def test_another_shape_is_refused() -> None:
    with pytest.raises(MeasurementError, match=r"shape \(2,\)"):
        agreement_with({"mu": np.ones(3, np.float32)}, {"mu": np.ones(2, np.float32)}, "an engine")


def test_the_whole_path_is_the_sum_of_its_stages(subject: Subject) -> None:
    cases = path_cases(subject, schedule=SHORT, seed=0, threads=1)
    assert tuple(case.frame for case in cases) == FRAMES
    for case in cases:
        stages = {name: series.samples_ns for name, series in case.stages.items()}
        assert list(stages) == ["total", "preprocess", "encode"]
        parts = zip(stages["preprocess"], stages["encode"], strict=True)
        assert stages["total"] == tuple(one + other for one, other in parts)
        assert [entry.output for entry in case.agreement] == ["mu"]


def test_frames_are_what_a_camera_delivers() -> None:
    frame = frame_of(640, 480, seed=0)
    assert (frame.shape, frame.dtype) == ((480, 640, 3), np.dtype(np.uint8))
    assert np.array_equal(frame, frame_of(640, 480, seed=0))
    assert frame.std() > 10


def test_untrained_weights_come_from_the_seed(subject: Subject) -> None:
    def weights(seed: int) -> list[float]:
        return random_model(subject.spec, seed).encoder.mu.weight.flatten().tolist()

    assert weights(0) == subject.model.encoder.mu.weight.flatten().tolist() != weights(1)
    assert subject.untrained


def test_threads_are_set_everywhere_and_given_back() -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    with thread_limit(1) as threads:
        assert (threads, torch.get_num_threads(), cv2.getNumThreads()) == (1, 1, 1)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before


def test_a_compiler_that_fails_leaves_its_case_unmeasured(
    subject: Subject,
) -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("/nowhere/c++",)}):
        eager, compiled, onnx = graph_cases(
            subject, "encoder", 1, schedule=SHORT, seed=0, threads=1
        )
    assert compiled.stages == {}
    assert str(compiled.not_measured).startswith("torch.compile failed: ")
    assert "C++ compiler" in str(compiled.not_measured)
    assert len(eager.stages["run"].samples_ns) == len(onnx.stages["run"].samples_ns) == 3


@pytest.mark.slow
def test_torch_compile_is_measured(subject: Subject) -> None:
    with thread_limit(1):
        cases = graph_cases(subject, "encoder", 1, schedule=SHORT, seed=0, threads=1)
    compiled = cases[1]
    if compiled.not_measured is not None:
        pytest.skip(compiled.not_measured)
    assert len(compiled.stages["run"].samples_ns) == 3
    assert [entry.output for entry in compiled.agreement] == ["mu", "log_var"]
    assert compiled.prepare_s is not None
    assert compiled.prepare_s > max(compiled.stages["run"].samples_ns) / 1e9
    assert "motorvae" not in os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")
