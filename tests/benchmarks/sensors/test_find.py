from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.benchmarks.sensors import find
from motorvae.benchmarks.sensors.find import GPU_RAILS, find_sensors, gpu_sensors, require_sensors
from motorvae.runtime.core.errors import MeasurementError

from .trees import ORIN_NANO, X86, plant


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever machine this is: its own GPU is another test's business."""
    monkeypatch.setattr(find, "_LIBRARY", "libnvidia-ml-none.so.1")


def test_the_sensor_that_covers_most_comes_first(tmp_path: Path) -> None:
    plant(tmp_path, X86)
    plant(tmp_path, {name: value for name, value in ORIN_NANO.items() if "hwmon1" in name})
    found = find_sensors(tmp_path)
    assert [one.scope for one in found.sensors] == ["board", "board", "processor", *["part"] * 3]
    assert [one.words for one in found.absent] == [
        "NVML: no NVIDIA driver, libnvidia-ml-none.so.1 does not load"
    ]


def test_only_sensors_that_cover_a_gpu_are_found_where_only_these_were_asked_for(
    tmp_path: Path,
) -> None:
    plant(tmp_path, X86)
    assert gpu_sensors(tmp_path).sensors == []
    plant(tmp_path, ORIN_NANO)
    found = gpu_sensors(tmp_path)
    assert {one.name for one in found.sensors} == {"VDD_IN", "VDD_CPU_GPU_CV"}
    assert found.absent == find_sensors(tmp_path).absent
    assert {"VDD_IN", "VIN", "VDD_GPU_SOC", "VDD_GPU", "VDD_CPU_GPU_CV"} == GPU_RAILS


def test_without_a_sensor_one_line_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError) as caught:
        require_sensors(tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    for part in ("--energy", "INA: no power monitor", "RAPL: no zone in", "NVML: no NVIDIA driver"):
        assert part in text
    assert text.endswith("make one readable, or leave out --energy")
