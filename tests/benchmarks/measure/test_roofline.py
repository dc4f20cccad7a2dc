from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from motorvae.benchmarks.measure import roofline as machine
from motorvae.benchmarks.measure.roofline import (
    cost_of,
    cpu_has_int8,
    measure_machine,
    rates_of,
    roofline_of,
)
from motorvae.runtime.bundle.graph_key import GraphKey, Part
from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.model import MotorVAE

SPECS = (
    ModelSpec(),
    ModelSpec(image_size=32, channels=(4, 8, 8, 16, 16), latent_size=8),
    ModelSpec(image_size=64, channels=(3, 5), latent_size=7),
)


@pytest.mark.parametrize(("graph", "gigaflops"), [("encoder", 0.63), ("decoder", 0.95)])
def test_default_model_costs_what_the_design_says(graph: Part, gigaflops: float) -> None:
    assert cost_of(ModelSpec(), GraphKey(graph)).flops / 1e9 == pytest.approx(gigaflops, abs=0.006)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("batch", [1, 3])
def test_flops_are_those_that_torch_counts(spec: ModelSpec, batch: int) -> None:
    with torch.device("meta"):
        model = MotorVAE(spec).eval()
        image = torch.zeros(batch, 1, spec.image_size, spec.image_size)
        latent = torch.zeros(batch, spec.latent_size)
    with FlopCounterMode(display=False) as encoder, torch.inference_mode():
        model.encode(image)
    with FlopCounterMode(display=False) as decoder, torch.inference_mode():
        model.decode(latent)
    assert cost_of(spec, GraphKey("encoder"), batch).flops == encoder.get_total_flops()
    assert cost_of(spec, GraphKey("decoder"), batch).flops == decoder.get_total_flops()


@pytest.mark.parametrize("spec", SPECS)
def test_weight_bytes_are_those_of_the_folded_model(spec: ModelSpec) -> None:
    with torch.device("meta"):
        model = MotorVAE(spec)
    halves: dict[Part, nn.Module] = {"encoder": model.encoder, "decoder": model.decoder}
    for graph, half in halves.items():
        folded = (m for m in half.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
        transposed = (m for m in half.modules() if isinstance(m, nn.ConvTranspose2d))
        counted = sum(p.numel() for m in (*folded, *transposed) for p in m.parameters())
        assert cost_of(spec, GraphKey(graph)).weight_bytes == 4 * counted


def test_weights_move_once_and_images_with_the_batch() -> None:
    spec = ModelSpec()
    one, eight = (cost_of(spec, GraphKey("encoder"), batch) for batch in (1, 8))
    assert eight.weight_bytes == one.weight_bytes
    assert eight.moved_bytes - one.moved_bytes == 7 * 4 * (256 * 256 + 2 * 128)


def test_lean_and_low_precision_graphs_cost_less() -> None:
    spec = ModelSpec()
    full = cost_of(spec, GraphKey("encoder"))
    mu = cost_of(spec, GraphKey("encoder", variant="mu"))
    head = 32768 * 128
    assert full.flops - mu.flops == 2 * head
    assert full.weight_bytes - mu.weight_bytes == 4 * (head + 128)
    assert mu.moved_bytes - mu.weight_bytes == 256 * 256 + 4 * 128
    int8 = cost_of(spec, GraphKey("encoder", "int8", "mu"))
    assert 4 * int8.weight_bytes == mu.weight_bytes
    assert int8.flops == mu.flops


def test_roofline_is_the_slower_of_arithmetic_and_traffic() -> None:
    cost = cost_of(ModelSpec(), GraphKey("encoder"))
    bound = roofline_of(cost, flops_per_s=1e11, bytes_per_s=1e12, p50_ms=12.6)
    assert bound.compute_ms == pytest.approx(cost.flops / 1e8)
    assert bound.least_ms == bound.compute_ms > bound.memory_ms
    assert bound.times == pytest.approx(12.6 / bound.compute_ms)
    starved = roofline_of(cost, flops_per_s=1e13, bytes_per_s=1e9, p50_ms=100)
    assert starved.least_ms == starved.memory_ms == pytest.approx(cost.moved_bytes / 1e6)


def test_rates_join_both_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MATRIX_SIDE", 64)
    monkeypatch.setattr(machine, "MEMORY_BYTES", 1 << 16)
    rates = rates_of(measure_machine(2), measure_machine(3))
    assert "fp32" in rates["matrix"]
    for rate in (*rates["matrix"].values(), rates["copy_memory"], rates["read_memory"]):
        assert len(rate.series.samples) == 5
    assert {rate.work for rate in rates["matrix"].values()} == {2 * 64**3}
    assert (rates["copy_memory"].work, rates["read_memory"].work) == (2 << 16, 1 << 16)


@pytest.mark.parametrize(
    ("flags", "has_it"),
    [("fma avx512_vnni", True), ("avx_vnni", True), ("avx2 avx512f", False), ("", False)],
)
def test_int8_is_measured_only_with_instructions_for_it(
    tmp_path: Path, flags: str, has_it: bool
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : {flags}\n")
    assert cpu_has_int8(cpuinfo) == has_it
    assert not cpu_has_int8(tmp_path / "none")
