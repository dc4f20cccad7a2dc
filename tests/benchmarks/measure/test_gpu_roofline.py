"""A GPU's least time: of the rates that a process measured, and what is faster than it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from motorvae.benchmarks.cases.gpu import planned_cases
from motorvae.benchmarks.measure.case import Case, samples_of
from motorvae.benchmarks.measure.gpu_roofline import (
    case_under_roofline,
    check_rates,
    load_rates,
    rates_of_gpu,
)
from motorvae.benchmarks.measure.result import GpuRates, Rate
from motorvae.benchmarks.measure.roofline import cost_of
from motorvae.runtime.bundle.graph_key import GraphKey, Precision
from motorvae.runtime.bundle.manifest import GraphReport, Metric
from motorvae.runtime.core.documents import save_document
from motorvae.runtime.core.errors import MeasurementError, MissingDependencyError
from motorvae.runtime.core.spec import ModelSpec

SPEC, MS = ModelSpec(), 1_000_000


def rate(per_s: float) -> Rate:
    return Rate(work=round(per_s / 1e3), series=samples_of((MS,) * 5))


@pytest.fixture
def rates() -> GpuRates:
    """10 and 40 TFLOP/s, 100 GB/s, and 400 GB/s from a cache."""
    return GpuRates(
        device="a GPU",
        torch="2",
        matrix={"fp32": rate(10e12), "fp16": rate(40e12)},
        copy_memory=rate(100e9),
        read_memory=rate(100e9),
        read_again=rate(400e9),
    )


def measured(precision: Precision, **stages_ms: float) -> Case:
    metric = Metric(name="max error / spread", value=0.01, limit=0.05, passed=True)
    report = GraphReport(
        graph="encoder",
        precision=precision,
        output="mu",
        engine="an engine",
        reference="torch",
        images=3,
        metrics=(metric,),
    )
    case = next(group[0].case for group in planned_cases() if group[0].case.precision == precision)
    taken = {stage: (round(ms * MS),) * 5 for stage, ms in stages_ms.items()}
    return case.timed(taken, gate=(report,))


def test_the_floor_is_the_weights_read_at_the_best_rate_of_the_two(rates: GpuRates) -> None:
    key = GraphKey("encoder", "fp16")
    found = case_under_roofline(measured("fp16", wall=1.0, compute=0.2), rates, SPEC, key)
    assert found.roofline is not None
    cost = cost_of(SPEC, key)
    assert found.roofline.memory_ms == pytest.approx(cost.moved_bytes / 400e9 * 1e3)
    assert found.roofline.compute_ms == pytest.approx(cost.flops / 40e12 * 1e3)
    assert found.roofline.times == pytest.approx(1.0 / found.roofline.least_ms)
    times = 0.2 / found.roofline.least_ms
    assert found.notes[-1] == f"compute: {times:.1f} times the roofline's least time"
    assert found.warnings == ()


def test_kernels_faster_than_the_floor_make_the_case_doubtful(rates: GpuRates) -> None:
    """Though the whole, with its copies and waits, is slower."""
    key = GraphKey("encoder", "fp16")
    found = case_under_roofline(measured("fp16", wall=1.0, device=0.01), rates, SPEC, key)
    assert found.warnings[-1].startswith("faster than its roofline, so the GPU's rates were")


def test_a_precision_without_a_rate_has_no_floor(rates: GpuRates) -> None:
    case = measured("int8", wall=1.0)
    assert case_under_roofline(case, rates, SPEC, GraphKey("encoder", "int8")) == case


def test_without_torch_rates_that_were_brought_make_no_roofline(
    rates: GpuRates, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_rates(rates, "a GPU")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(
        MissingDependencyError, match=r"the roofline of rates .* needs the package torch"
    ):
        check_rates(rates, "a GPU")


def test_rates_that_were_brought_say_what_is_wrong_with_them(
    rates: GpuRates, tmp_path: Path
) -> None:
    file = tmp_path / "rates.json"
    save_document(file, rates)
    assert load_rates(file) == rates
    file.write_text(file.read_text("utf-8").replace('"device":"a GPU",', ""), encoding="utf-8")
    with pytest.raises(MeasurementError, match=r"rates\.json: .*device.*; leave out --rates"):
        load_rates(file)


def test_without_a_gpu_the_reason_is_torchs() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    message = "the GPU's rates were not measured: torch .* finds no GPU: install a build of torch"
    with pytest.raises(MeasurementError, match=message):
        rates_of_gpu(SPEC)
