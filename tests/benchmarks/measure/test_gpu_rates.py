"""The GPU's rates, measured here on the processor: the same calls, another clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from motorvae.benchmarks.measure.gpu_rates import (
    AGAIN_CALLS,
    CALLS,
    SAMPLES,
    Sizes,
    main,
    rates_on,
)
from motorvae.benchmarks.measure.result import GpuRates


def processor_stopwatch(work: Callable[[], object], calls: int) -> list[int]:
    found = []
    for _ in range(SAMPLES):
        begin_ns = time.perf_counter_ns()
        for _ in range(calls):
            work()
        found.append(max(1, (time.perf_counter_ns() - begin_ns) // calls))
    return found


def test_each_rate_counts_what_it_did() -> None:
    repeats: list[int] = []

    def repeated(work: Callable[[], object], calls: int) -> Callable[[], object]:
        repeats.append(calls)
        return lambda: [work() for _ in range(calls)]

    sizes = Sizes(side=32, large_bytes=1 << 16, again_bytes=1 << 12)
    found = rates_on("cpu", sizes, processor_stopwatch, repeated)
    rates = GpuRates(device="none", torch=torch.__version__, **found)
    assert {name: rate.work for name, rate in rates.matrix.items()} == dict.fromkeys(
        ("fp32", "fp16"), 2 * 32**3
    )
    assert rates.copy_memory.work == 2 << 16
    assert rates.read_memory.work == 1 << 16
    assert rates.read_again.work == 1 << 12
    assert repeats == [AGAIN_CALLS]
    for rate in (*rates.matrix.values(), rates.copy_memory, rates.read_memory, rates.read_again):
        assert len(rate.series.samples) == SAMPLES
        assert rate.best_per_s > 0


def test_time_of_repeated_reads_is_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which each call takes a microsecond, however much it does."""
    seen: list[int] = []

    def clock(_work: Callable[[], object], calls: int) -> list[int]:
        seen.append(calls)
        return [20_000] * SAMPLES

    monkeypatch.setattr(torch, "mm", lambda *_args, **_kwargs: None)
    sizes = Sizes(side=4, large_bytes=64, again_bytes=16)
    found = rates_on("cpu", sizes, clock, lambda work, _calls: work)
    assert seen == [CALLS] * 4 + [1]
    assert found["read_again"].series.samples == (20_000 // AGAIN_CALLS,) * SAMPLES


def test_the_faster_of_the_two_reads_bounds_the_weights() -> None:
    sizes = Sizes(side=4, large_bytes=1 << 12, again_bytes=1 << 10)

    def clock(_work: Callable[[], object], calls: int) -> list[int]:
        return [1000 if calls == CALLS else 100 * AGAIN_CALLS] * SAMPLES

    found = rates_on("cpu", sizes, clock, lambda work, _calls: work)
    rates = GpuRates(device="none", torch="2", **found)
    assert rates.best_read_per_s == rates.read_again.best_per_s > rates.read_memory.best_per_s


def test_without_a_gpu_it_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert main([str(tmp_path / "rates.json"), "1000"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"torch {torch.__version__} finds no GPU: install a build of torch")
    assert said.count("\n") == 1
    assert not (tmp_path / "rates.json").exists()
