from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from motorvae.benchmarks.sensors.base import Absent, Sensor, rhythm_of
from motorvae.benchmarks.sensors.rapl import rapl_sensors

from .trees import POWERCAP, X86, plant

NOBODY = 65534


def sensors(root: Path) -> dict[str, Sensor]:
    return {one.name: one for one in rapl_sensors(root) if isinstance(one, Sensor)}


def test_each_zone_has_its_own_name_and_says_what_it_covers(tmp_path: Path) -> None:
    plant(tmp_path, X86)
    assert len(rapl_sensors(tmp_path)) == 4  # and not the same package once more
    found = sensors(tmp_path)
    assert {name: one.scope for name, one in found.items()} == {
        "package-0": "processor",
        "package-0 core": "part",
        "package-0 dram": "part",
        "psys": "board",
    }
    assert found["package-0"].read() == 1_000_000
    assert found["package-0"].source == str(tmp_path / POWERCAP / "intel-rapl:0" / "energy_uj")
    assert "not memory" in found["package-0"].covers


def test_a_wrap_of_the_counter_is_counted_once(
    tmp_path: Path, running: Callable[..., None]
) -> None:
    plant(tmp_path, {**X86, f"{POWERCAP}/intel-rapl:0/max_energy_range_uj": 10_000_000})
    counter = tmp_path / POWERCAP / "intel-rapl:0" / "energy_uj"
    # 40 W from 2 J below the wrap: it comes after 50 ms.
    running(counter, 40, wraps_at=10_000_000, first=8_000_000)
    package = sensors(tmp_path)["package-0"]
    before, began_s = package.read(), time.monotonic()
    while package.read() >= before:
        assert time.monotonic() - began_s < 20
    after, ended_s = package.read(), time.monotonic()
    assert after < before
    joules = package.counted(before, after) / 1e6
    # A lost wrap would give a negative number, two of them 10 J more.
    assert 0 < joules < 10
    assert joules == pytest.approx(40 * (ended_s - began_s), abs=1.5)


def test_how_often_the_value_changes_is_measured(
    tmp_path: Path, running: Callable[..., None]
) -> None:
    plant(tmp_path, X86)
    running(tmp_path / POWERCAP / "intel-rapl:0" / "energy_uj", 10, every_s=0.05)
    found = rhythm_of(sensors(tmp_path)["package-0"], most_s=1.5)
    assert found.update_ms is not None
    assert 30 < found.update_ms < 700  # changes are missed where the processor is busy
    assert 2 <= found.changes < 40
    still = rhythm_of(sensors(tmp_path)["psys"], most_s=0.05)
    assert still == (None, 0)


def test_a_counter_for_root_only_is_named_with_what_to_do() -> None:
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        plant(root, X86)
        for file in (root / POWERCAP).glob("*/energy_uj"):
            file.chmod(0o400 if is_root else 0)
        if is_root:
            os.seteuid(NOBODY)  # root may read every file
        try:
            (found,) = rapl_sensors(root)
        finally:
            if is_root:
                os.seteuid(0)
    assert isinstance(found, Absent)
    assert "no permission to read" in found.reason
    assert "sudo chmod a+r" in found.reason


def test_a_counter_that_holds_no_number_is_absent_and_says_so(tmp_path: Path) -> None:
    plant(tmp_path, {**X86, f"{POWERCAP}/intel-rapl:1/energy_uj": "n/a"})
    found = {one.kind: one.reason for one in rapl_sensors(tmp_path) if isinstance(one, Absent)}
    assert list(found) == ["RAPL psys"]
    assert "holds 'n/a', no whole number" in found["RAPL psys"]


def test_our_joules_are_those_that_zeus_reads(tmp_path: Path, running: Callable[..., None]) -> None:
    """zeus takes a zone's folder, so that its own code reads the very same files."""
    rapl = pytest.importorskip("zeus.device.cpu.rapl")
    plant(tmp_path, X86)
    zone = tmp_path / POWERCAP / "intel-rapl:0"
    running(zone / "energy_uj", 25)
    package, theirs = sensors(tmp_path)["package-0"], rapl.RAPLFile(str(zone))
    try:
        first, before = theirs.read(), package.read()
        until_s = time.monotonic() + 0.5
        while time.monotonic() < until_s:
            after, last = package.read(), theirs.read()
        joules = package.counted(before, after) / 1e6
        assert joules > 5
        assert joules == pytest.approx((last - first) / 1e3, rel=0.2)
    finally:
        theirs.wraparound_tracker._stop()
