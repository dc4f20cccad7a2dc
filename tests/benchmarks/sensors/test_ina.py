from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.benchmarks.sensors.base import Absent, Sensor
from motorvae.benchmarks.sensors.ina import ina_sensors

from .trees import AGX_ORIN, ORIN_NANO, THOR, Tree, plant


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (
            ORIN_NANO,  # the third channel is switched off
            {"VDD_IN": ("board", 4984 * 1856), "VDD_CPU_GPU_CV": ("part", 4984 * 640)},
        ),
        (AGX_ORIN, {"VDD_GPU_SOC": ("part", 19000 * 200)}),  # nothing is wired to the second
        (THOR, {"VIN": ("board", 51_250_000)}),
    ],
)
def test_rails_have_their_own_names_and_microwatts(
    tmp_path: Path, tree: Tree, expected: dict[str, tuple[str, int]]
) -> None:
    plant(tmp_path, tree)
    found = [one for one in ina_sensors(tmp_path) if isinstance(one, Sensor)]
    assert {one.name: (one.scope, one.read()) for one in found} == expected
    assert {one.reads for one in found} == {"power"}


def test_what_a_rail_feeds_is_not_called_the_cpu_alone(tmp_path: Path) -> None:
    plant(tmp_path, ORIN_NANO)
    covers = {one.name: one.covers for one in ina_sensors(tmp_path) if isinstance(one, Sensor)}
    assert covers["VDD_CPU_GPU_CV"] == "CPU, GPU and CV engines together"


def test_our_power_is_what_zeus_makes_of_the_same_files(tmp_path: Path) -> None:
    jetson = pytest.importorskip("zeus.device.soc.jetson")
    plant(tmp_path, ORIN_NANO)
    chip = tmp_path / "sys/class/hwmon/hwmon1"
    rails = {one.name: one for one in ina_sensors(tmp_path) if isinstance(one, Sensor)}
    for channel, name in ((1, "VDD_IN"), (2, "VDD_CPU_GPU_CV")):
        theirs = jetson.VoltageCurrentProduct(
            chip / f"in{channel}_input", chip / f"curr{channel}_input"
        )
        assert rails[name].read() / 1e3 == pytest.approx(theirs.measure_power())  # milliwatts


def test_a_rail_that_cannot_be_read_is_absent_with_its_file(tmp_path: Path) -> None:
    plant(tmp_path, ORIN_NANO)
    (tmp_path / "sys/class/hwmon/hwmon1/curr1_input").unlink()
    absent = [one for one in ina_sensors(tmp_path) if isinstance(one, Absent)]
    assert [one.kind for one in absent] == ["INA VDD_IN"]
    assert "curr1_input: No such file" in absent[0].reason


def test_a_machine_without_a_monitor_is_no_jetson(tmp_path: Path) -> None:
    (found,) = ina_sensors(tmp_path)
    assert isinstance(found, Absent)
    assert "this is no Jetson board" in found.reason
