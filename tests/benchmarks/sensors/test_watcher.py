from __future__ import annotations

import time
from pathlib import Path

import pytest

from motorvae.benchmarks.sensors.watcher import Watcher
from motorvae.runtime.core.errors import MeasurementError

from .trees import ORIN_NANO, X86, plant

INA = "sys/class/hwmon/hwmon1"
PACKAGE = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"


def now_ns() -> int:
    return time.monotonic_ns()


def test_conditions_are_those_of_the_time_that_is_asked_for(tmp_path: Path) -> None:
    plant(tmp_path, X86)
    zone = tmp_path / "sys/class/thermal/thermal_zone1/temp"
    with Watcher(tmp_path) as watcher:
        begin = now_ns()
        watcher.wait_for(begin, whole=True)
        cold = begin, now_ns()
        zone.write_text("95000\n")
        hot = now_ns()
        # Two more readings: the first of them may have begun before the change.
        watcher.wait_for(hot + 10**9, whole=True)
        late = hot + 6 * 10**8, hot + 10**9
        before, after = watcher.conditions([cold]), watcher.conditions([late])
    assert before is not None
    assert after is not None
    assert before.temperatures_c["x86_pkg_temp"].low == 61
    assert after.temperatures_c["x86_pkg_temp"].low == 95
    assert after.clocks_mhz["processor"].median == 3900
    assert (before.throttled, after.throttled) == ((), ())
    facts = watcher.facts
    assert facts is not None
    assert facts.samples >= 2
    assert 0 < facts.processor_share < 1
    assert facts.reading_ms > 0


def test_throttling_is_named_with_how_often_it_came(tmp_path: Path) -> None:
    plant(tmp_path, X86)
    with Watcher(tmp_path) as watcher:
        begin = now_ns()
        watcher.wait_for(begin, whole=True)
        (tmp_path / PACKAGE).write_text("not counted: threads of one package are one\n")
        last = tmp_path / PACKAGE.replace("cpu0", "cpu3")
        last.write_text("19\n")
        changed = now_ns()
        watcher.wait_for(changed, whole=True)
        found = watcher.conditions([(begin, changed)])
        quiet = watcher.conditions([(now_ns(), now_ns() + 1)])
    assert found is not None
    assert quiet is not None
    assert found.throttled == ("package_throttle_count +12",)
    # The same increment is none of what is measured afterwards.
    assert quiet.throttled == ()


def test_turns_between_two_readings_count_an_event_once(tmp_path: Path) -> None:
    plant(tmp_path, X86)
    with Watcher(tmp_path) as watcher:
        begin = now_ns()
        watcher.wait_for(begin, whole=True)
        (tmp_path / PACKAGE.replace("cpu0", "cpu3")).write_text("8\n")
        changed = now_ns()
        watcher.wait_for(changed, whole=True)
        found = watcher.conditions([(begin + n, changed - n) for n in range(5)])
    assert found is not None
    assert found.throttled == ("package_throttle_count +1",)


def test_a_clock_below_the_base_clock_is_throttling(tmp_path: Path) -> None:
    plant(tmp_path, X86)
    clock = "sys/devices/system/cpu/cpufreq/policy1/scaling_cur_freq"
    plant(tmp_path, {clock: 1800000})
    with Watcher(tmp_path) as watcher:
        found = watcher.conditions([(now_ns(), now_ns())])
    assert found is not None
    assert found.throttled == ("no core above 75% of its base clock",)


def test_power_is_integrated_over_just_the_time_that_is_asked_for(tmp_path: Path) -> None:
    plant(tmp_path, ORIN_NANO)
    with Watcher(tmp_path, has_power=True) as watcher:
        begin = now_ns()
        watcher.wait_for(begin)
        begin = now_ns()
        end = begin + 4 * 10**8
        joules = watcher.microjoules("VDD_IN", begin, end)
        half = watcher.microjoules("VDD_IN", begin, begin + 2 * 10**8)
        early = watcher.microjoules("VDD_IN", begin - 10**12, end)
    steady_uw = 4984 * 1856
    assert joules == pytest.approx(0.4 * steady_uw, rel=1e-6)
    assert half == pytest.approx(0.2 * steady_uw, rel=1e-6)
    assert early is None  # nothing was read then


def test_a_watch_that_died_is_no_silence(tmp_path: Path) -> None:
    plant(tmp_path, X86)
    with Watcher(tmp_path) as watcher:
        watcher.wait_for(0)
        watcher._process.kill()
        watcher._process.wait()
        with pytest.raises(MeasurementError, match="the process that reads sensors has stopped"):
            watcher.wait_for(now_ns() + 10**12)
