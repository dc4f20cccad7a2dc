from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from motorvae.runtime.core.errors import ConfigError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.hardware import (
    cpu_has_bf16,
    layout_of,
    precision_from_options,
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


def test_channels_last_goes_with_16_bit() -> None:
    assert layout_of("bf16-mixed") == torch.channels_last
    assert layout_of("32-true") == torch.contiguous_format


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
