"""The real LoadGen on this machine's CPU."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.benchmarks.loadgen import run as run_module
from motorvae.benchmarks.loadgen.plan import LoadGenPlan
from motorvae.benchmarks.loadgen.run import (
    answer_to,
    loadgen_runs,
    require_loadgen,
    streaming_engines,
)
from motorvae.benchmarks.measure.loadgen import LoadGenRun
from motorvae.benchmarks.under_test.model_under_test import ModelUnderTest
from motorvae.runtime.core.errors import MeasurementError, MissingDependencyError

needs_loadgen = pytest.mark.skipif(
    run_module.importlib.util.find_spec("mlperf_loadgen") is None,
    reason="needs the package mlcommons-loadgen, which has wheels for x86-64 only",
)


def runs_of(tested: ModelUnderTest, folder: Path, seconds: float) -> tuple[LoadGenRun, ...]:
    engines = [one for one in streaming_engines(tested, 1) if one.backend == "onnx"]
    assert engines
    return loadgen_runs(
        tested,
        engines[:1],
        seconds=seconds,
        offline_batch=4,
        threads=1,
        trust=False,
        seed=0,
        logs=folder,
        note=lambda _: None,
    )


NOISE = 1.3
"""A median may differ by so much on a busy machine; half of the work would be a factor of two."""
ATTEMPTS = 4


def far_apart(run: LoadGenRun) -> list[str]:
    """In which medians the two differ by more; p90 is that of whatever else the machine does."""
    return [
        f"{run.scenario} {name} {ratio:.2f}"
        for name, ratio in run.ratios.items()
        if name != "p90" and not 1 / NOISE < ratio < NOISE
    ]


@needs_loadgen
@pytest.mark.slow
def test_loadgen_and_our_own_loop_agree(tested: ModelUnderTest, tmp_path: Path) -> None:
    apart: list[list[str]] = []
    # Other processes may come in the midst of one of the two, but not each time; an error of what
    # is measured is there each time.
    for attempt in range(ATTEMPTS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        runs = runs_of(tested, folder, seconds=2)
        assert all(run.not_measured is None for run in runs), runs
        apart.append([text for run in runs for text in far_apart(run)])
        if not apart[-1]:
            break
    assert not apart[-1], apart
    single, offline = runs
    for run in (single, offline):
        assert run.verdict is not None
        assert run.verdict.valid, run.verdict
        assert run.verdict.errors == ()
        assert run.ratios.keys() == run.limits.keys()
        assert run.logs is not None
        assert (folder / run.logs / "mlperf_log_summary.txt").stat().st_size
        assert run.overhead_ms > 0
    assert single.verdict is not None
    assert single.verdict.early_stopping_p90_ms is not None
    assert single.verdict.p90_ms is not None
    # The estimate has its confidence on top of the percentile itself.
    assert single.verdict.early_stopping_p90_ms >= single.verdict.p90_ms
    assert offline.verdict is not None
    assert offline.verdict.queries >= 64
    assert (single.batch, offline.batch) == (1, 4)
    assert not single.official


def plan(tested: ModelUnderTest, folder: Path, **changes: Any) -> LoadGenPlan:
    images = folder / "images.npy"
    if not images.exists():
        np.save(images, np.zeros((64, 1, 32, 32), np.uint8))
    (engine, *_) = [one for one in streaming_engines(tested, 1) if one.backend == "onnx"]
    facts: dict[str, Any] = {
        "bundle": str(tested.bundle.folder),
        "precision": engine.key.precision,
        "variant": engine.key.variant,
        "target": engine.key.target,
        "backend": "onnx",
        "threads": 1,
        "trust": False,
        "images": str(images),
        "scenario": "SingleStream",
        "batch": 1,
        "seconds": 1,
        "logs": str(folder),
    }
    return LoadGenPlan(**facts | changes)


@needs_loadgen
def test_a_loadgen_that_aborts_its_process_is_a_reason_and_no_crash(
    tested: ModelUnderTest, tmp_path: Path
) -> None:
    """LoadGen's C++ ends the process where it cannot write its logs."""
    nowhere = plan(tested, tmp_path, logs=str(tmp_path / "none" / "deeper"))
    with pytest.raises(MeasurementError, match="the process of LoadGen ended with") as caught:
        answer_to(nowhere, tmp_path / "scratch")
    assert "\n" not in str(caught.value)


@needs_loadgen
def test_an_engine_that_does_not_open_says_why(tested: ModelUnderTest, tmp_path: Path) -> None:
    absent = plan(tested, tmp_path, bundle=str(tmp_path / "none"))
    with pytest.raises(MeasurementError, match=r"exit code 1: it said .*none"):
        answer_to(absent, tmp_path / "scratch")


@needs_loadgen
def test_a_run_that_hangs_is_ended(tested: ModelUnderTest, tmp_path: Path) -> None:
    endless = plan(tested, tmp_path, seconds=1e-3)
    with pytest.raises(MeasurementError, match="LoadGen did not end within 0 s"):
        answer_to(endless, tmp_path / "scratch", opening_s=0.01)


def test_without_the_package_the_command_that_brings_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(MissingDependencyError, match=r"pip install 'motorvae\[loadgen\]'"):
        require_loadgen()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(MissingDependencyError, match="wheels for x86-64 only, and this is aarch64"):
        require_loadgen()
