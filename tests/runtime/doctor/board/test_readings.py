from __future__ import annotations

import re

import pytest

from motorvae.runtime.doctor.board.readings import JETSON_GPU, is_temperature, slows_down


@pytest.mark.parametrize(
    ("device", "slows"),
    [
        ("cpufreq-cpu0", True),
        ("devfreq-17000000.gpu", True),
        ("devfreq-gpu-gpc-0", True),
        ("idle-cpu3", True),
        ("thermal-cpufreq-0", True),
        ("thermal-devfreq-1", True),
        ("thermal-idle-2", True),
        ("gpu-throttle-alert", True),
        ("cv0-throttle-alert", True),
        ("throttle", True),
        ("Processor", True),
        ("hot-surface-alert", False),
        ("pwm-fan", False),
        ("Fan", False),
        ("TCC Offset", False),
        ("intel_powerclamp", False),  # its state is no level
        ("Processor 2", False),
        ("alert", False),
        ("", False),
    ],
)
def test_cooling_devices_that_cost_speed(device: str, slows: bool) -> None:
    assert slows_down(device) == slows


@pytest.mark.parametrize(
    ("millidegrees", "is_one"),
    [
        (-256_000, False),
        (-40_000, False),
        (-39_999, True),
        (0, True),
        (114_500, True),
        (149_999, True),
        (150_000, False),
        (200_000, False),
    ],
)
def test_what_no_chip_reaches_is_no_temperature(millidegrees: int, is_one: bool) -> None:
    assert is_temperature(millidegrees) == is_one


@pytest.mark.parametrize(
    ("name", "is_gpu"),
    [
        ("17000000.gpu", True),
        ("17000000.ga10b", True),
        ("17000000.gv11b", True),
        ("17000000.gp10b", True),
        ("57000000.gpu", True),
        ("gpu", True),
        ("gpu-gpc-0", True),
        ("gpu-nvd-0", False),
        ("13e00000.host1x", False),
        ("13e00000.host1x:nvdla0@15880000", False),
        ("bwmgr", False),
    ],
)
def test_the_gpu_among_the_devices_with_a_clock(name: str, is_gpu: bool) -> None:
    assert bool(re.fullmatch(JETSON_GPU, name)) == is_gpu
