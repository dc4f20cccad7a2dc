"""Whether there is a GPU; tests/stand_in_driver has the tests on a driver that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.benchmarks.proof.machine import machine_facts, main, why_no_proof
from motorvae.benchmarks.proof.record import MachineFacts
from motorvae.runtime.engines.gpu_info import Gpu, find_gpu


def test_this_machine_is_described_and_read_back(tmp_path: Path) -> None:
    assert main([str(tmp_path / "machine.json")]) == 0
    found = MachineFacts.model_validate_json((tmp_path / "machine.json").read_bytes())
    here = find_gpu()
    assert (found.gpu is not None) == isinstance(here, Gpu)
    assert found.environment is not None


def test_without_a_driver_the_reason_is_find_gpus() -> None:
    if isinstance(here := find_gpu(), Gpu):
        pytest.skip("this machine has a GPU")
    assert why_no_proof() == here.reason
    assert machine_facts().no_gpu == here.reason
