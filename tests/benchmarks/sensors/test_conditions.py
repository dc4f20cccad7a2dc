from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.benchmarks.sensors.conditions import ConditionFiles
from motorvae.runtime.doctor.board.clocks import gpu_clock
from motorvae.runtime.doctor.board.heat import heat_of
from motorvae.runtime.doctor.board.tree import Tree as SystemTree
from motorvae.runtime.doctor.board.tree import Unread

from .trees import ORIN_NANO, X86, plant


def test_a_processors_temperatures_and_clock(tmp_path: Path) -> None:
    plant(tmp_path, X86)
    files = ConditionFiles(tmp_path)
    assert files.temperatures() == {
        "acpitz": 27.8,
        "x86_pkg_temp": 61,
        "coretemp Package id 0": 62,  # and not each core, nor the disk
    }
    assert files.clock() == (3900, pytest.approx(3.9 / 2.4))
    assert files.throttling() == []  # a setting and a device that is off are none


def test_threads_of_one_core_count_its_throttling_once(tmp_path: Path) -> None:
    plant(tmp_path, X86)
    assert ConditionFiles(tmp_path).counters() == {
        "core_throttle_count": 10 + 11,
        "package_throttle_count": 7,
    }


def test_a_jetson_that_throttles_is_told_from_one_that_turns_its_fan(tmp_path: Path) -> None:
    plant(tmp_path, ORIN_NANO)
    files = ConditionFiles(tmp_path)
    assert files.temperatures() == {"cpu-thermal": 48.218}  # the GPU is off
    assert files.clock() == (1510.4, None)
    assert files.gpu_clock() == 624.75
    assert files.throttling() == []
    assert files.counters() == {"soctherm oc1_event_cnt": 0, "soctherm oc3_event_cnt": 2}
    surface = tmp_path / "sys/class/thermal/cooling_device9"
    surface.mkdir()
    (surface / "type").write_text("hot-surface-alert\n")  # a warning to who might touch it
    (surface / "cur_state").write_text("1\n")
    assert ConditionFiles(tmp_path).throttling() == []
    (tmp_path / "sys/class/thermal/cooling_device1/cur_state").write_text("1\n")
    assert files.throttling() == ["gpu-throttle-alert state 1"]


def test_a_machine_that_shows_nothing(tmp_path: Path) -> None:
    files = ConditionFiles(tmp_path)
    assert not files
    assert (files.temperatures(), files.clock(), files.throttling()) == ({}, (None, None), [])


@pytest.mark.parametrize("device", ["idle-cpu0", "thermal-cpufreq-0", "gpu-throttle-alert"])
def test_doctor_and_benchmark_agree_on_what_throttles(tmp_path: Path, device: str) -> None:
    plant(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": 200_000,  # of no chip
            "sys/class/thermal/cooling_device0/type": device,
            "sys/class/thermal/cooling_device0/cur_state": 2,
            "sys/class/devfreq/17000000.gp10b/cur_freq": 854_000_000,
            "sys/class/devfreq/17000000.gp10b/min_freq": 114_000_000,
            "sys/class/devfreq/17000000.gp10b/max_freq": 1_300_000_000,
        },
    )
    files, board = ConditionFiles(tmp_path), SystemTree(tmp_path)
    assert files.throttling() == [f"{device} state 2"]
    assert heat_of(board).throttling == (device,)
    assert files.temperatures() == {}
    assert heat_of(board).silent == (("cpu-thermal", Unread("no temperature")),)
    assert files.gpu_clock() == 854
    gpu = gpu_clock(board)
    assert gpu is not None
    assert gpu.highest == 1300
