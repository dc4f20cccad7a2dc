from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import pytest
import torch

from motorvae.runtime.core.errors import ConfigError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.training import hardware
from motorvae.training.hardware import (
    StepTime,
    ThreadTrials,
    cpu_has_bf16,
    layout_of,
    precision_from_options,
    threads_by_trial,
    threads_restored,
    timed_steps,
)


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("flags : fpu avx512f avx512_bf16 sse", True),
        ("flags : amx_bf16 amx_tile", True),
        ("Features : asimd bf16 i8mm", True),
        ("flags : fpu avx2 avx512f", False),
    ],
)
def test_bf16_is_read_from_the_processors_flags(tmp_path: Path, flags: str, has: bool) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(flags)
    assert cpu_has_bf16(path) is has


def test_a_system_without_cpuinfo_has_no_known_bf16(tmp_path: Path) -> None:
    assert not cpu_has_bf16(tmp_path / "cpuinfo")


def test_auto_takes_bf16_only_where_the_hardware_has_it() -> None:
    fast = "bf16-mixed" if cpu_has_bf16() else "32-true"
    assert precision_from_options("auto", on_cuda=False, on_cpu=True) == fast
    assert precision_from_options("auto", on_cuda=False, on_cpu=False) == "32-true"
    with pytest.raises(ConfigError, match="16-mixed needs an NVIDIA GPU: take bf16-mixed"):
        precision_from_options("16-mixed", on_cuda=False, on_cpu=True)


def test_channels_last_is_for_the_cpu_and_for_16_bit() -> None:
    assert layout_of("bf16-mixed") == torch.channels_last
    assert layout_of("32-true") == torch.channels_last
    assert layout_of("32-true", "cuda") == layout_of("32-true", "mps") == torch.contiguous_format


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_steps_are_timed_one_by_one(spec: ModelSpec, precision: str) -> None:
    seconds = list(islice(timed_steps(spec, precision=precision, batch_size=4), 3))
    assert len(seconds) == 3
    assert min(seconds) > 0


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with threads_restored():
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_the_faster_number_is_kept_and_said(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "default_threads", lambda: 2)
    found = threads_by_trial(spec, precision="32-true", batch_size=8, asked=None)
    said = re.fullmatch(
        r"(1 thread|2 threads), as a step of training took "
        r"(\S+) (m?s) with 1 and (\S+) (m?s) with 2",
        found.note,
    )
    assert said is not None
    milliseconds = {"ms": 1.0, "s": 1e3}
    one = float(said[2]) * milliseconds[said[3]]
    two = float(said[4]) * milliseconds[said[5]]
    assert torch.get_num_threads() == found.threads
    assert found.threads == 1 if one < two else one == two or found.threads == 2
    assert found.step_s * 1e3 == pytest.approx(min(one, two), rel=0.05, abs=0.51)


@pytest.mark.parametrize(
    ("asked", "variable", "cores", "threads"),
    [(2, None, 8, 2), (None, "1", 8, 1), (None, None, 1, 1)],
)
def test_nothing_is_tried_where_there_is_no_choice(
    spec: ModelSpec,
    monkeypatch: pytest.MonkeyPatch,
    asked: int | None,
    variable: str | None,
    cores: int,
    threads: int,
) -> None:
    monkeypatch.setattr(hardware, "default_threads", lambda: cores)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
        torch.set_num_threads(int(variable))  # as torch does when it is loaded
    found = threads_by_trial(spec, precision="32-true", batch_size=2, asked=asked)
    assert found.threads == torch.get_num_threads() == threads
    assert found.note == f"{threads} thread{'s' if threads > 1 else ''}"


def test_the_time_of_large_batches_is_scaled(spec: ModelSpec) -> None:
    small, large = (
        threads_by_trial(spec, precision="32-true", batch_size=size, asked=1).step_s
        for size in (16, 16000)
    )
    assert large > 30 * small


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.mark.parametrize(("gain", "expected"), [(3.0, 1), (1.1, 2)])
def test_a_load_that_begins_later_changes_the_choice(
    monkeypatch: pytest.MonkeyPatch, gain: float, expected: int
) -> None:
    clock, said = Clock(), list[str]()
    faster = 2

    def trial() -> StepTime:
        clock.now_s += 1.0
        torch.set_num_threads(faster)
        return StepTime(faster, 0.1, f"{faster} threads", gain)

    monkeypatch.setattr(hardware, "time", clock)
    trials = ThreadTrials(trial, said.append)
    before = torch.get_num_threads()
    try:
        trials.choose()
        faster = 1
        clock.now_s = 50.9
        trials.try_again()
        assert torch.get_num_threads() == 2
        clock.now_s = 51.0
        trials.try_again()
        trials.try_again()
    finally:
        found = torch.get_num_threads()
        torch.set_num_threads(before)
    assert found == expected
    assert said == ["from this step on 1 threads"] * (expected == 1)


def test_no_choice_is_not_tried_again(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[StepTime] = []

    def trial() -> StepTime:
        tried.append(threads_by_trial(spec, precision="32-true", batch_size=2, asked=1))
        return tried[-1]

    trials = ThreadTrials(trial, pytest.fail)
    trials.choose()
    monkeypatch.setattr(hardware.time, "monotonic", lambda: 1e12)
    trials.try_again()
    assert len(tried) == 1


def test_a_trial_leaves_the_random_state_alone(spec: ModelSpec) -> None:
    before = torch.random.get_rng_state()
    threads_by_trial(spec, precision="32-true", batch_size=2, asked=1)
    assert torch.equal(torch.random.get_rng_state(), before)
