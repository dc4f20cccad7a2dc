from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.benchmarks.measure import machine_rates as machine
from motorvae.benchmarks.measure.machine_rates import cpu_has_int8, measure_machine, rates_of


def test_rates_join_both_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MATRIX_SIDE", 64)
    monkeypatch.setattr(machine, "MEMORY_BYTES", 1 << 16)
    rates = rates_of(measure_machine(2), measure_machine(3))
    assert "fp32" in rates.matrix
    for rate in (*rates.matrix.values(), rates.copy_memory, rates.read_memory):
        assert len(rate.series.samples) == 5
    assert {rate.work for rate in rates.matrix.values()} == {2 * 64**3}
    assert (rates.copy_memory.work, rates.read_memory.work) == (2 << 16, 1 << 16)


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
