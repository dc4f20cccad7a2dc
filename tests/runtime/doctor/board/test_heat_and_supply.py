from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.runtime.doctor.board.heat import check_heat
from motorvae.runtime.doctor.board.identity import Board
from motorvae.runtime.doctor.board.supply import check_supply, rails_of
from motorvae.runtime.doctor.board.tree import Tree
from motorvae.runtime.doctor.finding import Finding

from .conftest import Unpack

ZONES = "sys/class/thermal"
RAILS = "sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1"
COUNTERS = "sys/devices/platform/soctherm-oc-event/hwmon/hwmon3"


def heat(root: Path) -> Finding:
    (row,) = check_heat(Tree(root))
    return row


def supply(root: Path, soc: str = "tegra234") -> Finding:
    (row,) = check_supply(Tree(root), Board("a board", soc))
    return row


@pytest.mark.parametrize(
    ("millidegrees", "verdict", "start"),
    [
        (93_900, "ok", "not throttled; cpu-thermal 93.9"),
        (94_000, "warn", "close to throttling (cpu-thermal); cpu-thermal 94.0"),
        (98_999, "warn", "close to throttling"),
        (99_000, "warn", "throttled now (cpu-thermal)"),
    ],
)
def test_heat_is_held_against_the_passive_trip_point(
    millidegrees: int, verdict: str, start: str, unpack: Unpack
) -> None:
    root = unpack("orin-nano-jp6")
    (root / ZONES / "thermal_zone0/temp").write_text(str(millidegrees), encoding="utf-8")
    row = heat(root)
    assert row.verdict == verdict
    assert row.found.startswith(start)


def bind(root: Path, trip: int, kind: str, millidegrees: int, *devices: str) -> None:
    """Give the CPU's zone a trip point with these cooling devices, as the kernel lists them."""
    zone = root / ZONES / "thermal_zone0"
    (zone / f"trip_point_{trip}_type").write_text(kind, encoding="utf-8")
    (zone / f"trip_point_{trip}_temp").write_text(str(millidegrees), encoding="utf-8")
    for device in devices:
        number = len(list(zone.glob("cdev*_trip_point")))
        folder = root / ZONES / f"cooling_device{20 + number}"
        folder.mkdir()
        (folder / "type").write_text(device, encoding="utf-8")
        (folder / "cur_state").write_text("1" if "surface" in device else "0", encoding="utf-8")
        (zone / f"cdev{number}").symlink_to(f"../{folder.name}")
        (zone / f"cdev{number}_trip_point").write_text(str(trip), encoding="utf-8")


def test_a_case_that_is_hot_to_the_touch_is_no_throttling(unpack: Unpack) -> None:
    """The trip points of an AGX Orin's CPU, and what is bound to each, as its owners list them."""
    root = unpack("orin-nano-jp6")
    bind(root, 1, "passive", 99_000, "cpufreq-cpu0", "cpu-throttle-alert", "devfreq-17000000.gpu")
    bind(root, 2, "passive", 70_000, "hot-surface-alert")
    (root / ZONES / "thermal_zone0/temp").write_text("73000", encoding="utf-8")
    row = heat(root)
    assert row.verdict == "ok", row
    assert row.found.startswith("not throttled; cpu-thermal 73.0 degrees C; throttles from 99.0;")


def test_a_fan_at_full_speed_is_no_throttling(unpack: Unpack) -> None:
    root = unpack("orin-nano-jp6")
    (root / ZONES / "cooling_device0/cur_state").write_text("4", encoding="utf-8")
    assert heat(root).verdict == "ok"


def test_a_cooling_device_of_the_clocks_is_throttling_without_any_temperature(
    tmp_path: Path,
) -> None:
    folder = tmp_path / ZONES / "cooling_device2"
    folder.mkdir(parents=True)
    (folder / "type").write_text("cpufreq-cpu0", encoding="utf-8")
    (folder / "cur_state").write_text("3", encoding="utf-8")
    assert heat(tmp_path).found == "throttled now (cpufreq-cpu0)"


@pytest.mark.parametrize(
    ("text", "verdict", "part"),
    [
        ("state0\t3600000\nstate1\t10250\nstate2\t2250\n", "warn", "lowered for 12.5 s since the"),
        ("state0\t3600000\nstate1\t0\nstate2\t0\n", "ok", "not throttled; "),
        ("garbage", "ok", "not throttled; "),
    ],
)
def test_clocks_that_were_lowered_since_the_boot_are_told(
    text: str, verdict: str, part: str, unpack: Unpack
) -> None:
    """Of a fan the same counters say nothing."""
    root = unpack("orin-nano-jp6")
    for device in ("cooling_device0", "cooling_device1"):
        (root / ZONES / device / "stats").mkdir()
    lowered = "state0\t1\nstate1\t999999\n"
    (root / ZONES / "cooling_device0/stats/time_in_state_ms").write_text(lowered, encoding="utf-8")
    (root / ZONES / "cooling_device1/stats/time_in_state_ms").write_text(text, encoding="utf-8")
    row = heat(root)
    assert row.verdict == verdict
    assert part in row.found


@pytest.mark.parametrize("reading", ["-256000", "999999", "", "warm"])
def test_a_sensor_that_is_off_is_no_temperature(reading: str, unpack: Unpack) -> None:
    root = unpack("orin-nano-jp6")
    (root / ZONES / "thermal_zone8/temp").write_text(reading, encoding="utf-8")
    row = heat(root)
    assert row.found.startswith("not throttled; gpu-thermal 46.7")
    assert row.found.endswith("cv2-thermal, tj-thermal")


def test_no_zone_at_all_could_not_be_read(tmp_path: Path) -> None:
    row = heat(tmp_path)
    assert (row.found, row.verdict) == ("could not be read", "optional")


def test_a_rail_over_its_limit_is_told_before_what_was(unpack: Unpack) -> None:
    root = unpack("orin-nano-oc3")
    (root / RAILS / "curr1_crit_alarm").write_text("1", encoding="utf-8")
    row = supply(root)
    assert row.verdict == "warn"
    assert row.found.startswith("over its limit now: VDD_IN; throttled since the boot: 27,390 x")


def test_the_sum_of_a_monitors_channels_is_no_rail(unpack: Unpack) -> None:
    root = unpack("orin-nano-jp6")
    for name, value in (("in7_input", "99"), ("curr7_input", "9999")):
        (root / RAILS / name).write_text(value, encoding="utf-8")
    assert supply(root).found == "never throttled since the boot; VDD_IN 9.3 W"


@pytest.mark.parametrize(
    ("channel", "label", "enabled"),
    [(2, "NC", "1"), (3, "VDD_SOC", "0"), (4, "VDD_FOURTH", "1"), (2, "", "1")],
)
def test_what_is_not_wired_switched_off_or_no_channel_is_no_rail(
    channel: int, label: str, enabled: str, unpack: Unpack
) -> None:
    """Nor does its alarm count."""
    root = unpack("orin-nano-jp6")
    for name, text in {
        f"in{channel}_label": label,
        f"in{channel}_enable": enabled,
        f"in{channel}_input": "4984",
        f"curr{channel}_input": "100",
        f"curr{channel}_crit_alarm": "1",
    }.items():
        (root / RAILS / name).write_text(text, encoding="utf-8")
    assert [(rail.channel, rail.label) for rail in rails_of(Tree(root))] == [
        (number, name)
        for number, name in enumerate(("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"), 1)
        if number != channel
    ]
    assert supply(root).found == "never throttled since the boot; VDD_IN 9.3 W"


def test_a_monitor_of_one_channel_is_a_rail_with_and_without_a_name(tmp_path: Path) -> None:
    """An INA238 has in0 for its shunt, and in1 for its rail."""
    folder = tmp_path / "sys/class/hwmon/hwmon4"
    folder.mkdir(parents=True)
    for name, text in {"name": "ina238", "in1_input": "20000", "curr1_input": "2500"}.items():
        (folder / name).write_text(text, encoding="utf-8")
    (rail,) = rails_of(Tree(tmp_path))
    assert (rail.alone, rail.label, rail.monitor) == (True, None, "/sys/class/hwmon/hwmon4")
    assert supply(tmp_path).found == "no counter of over-current could be read"
    (folder / "label").write_text("VIN\n", encoding="utf-8")
    assert supply(tmp_path).found.endswith("; VIN 50.0 W")


@pytest.mark.parametrize(
    ("soc", "called"), [("tegra234", "under-voltage"), ("tegra194", "OC1"), ("tegra264", "OC1")]
)
def test_events_are_named_where_their_numbers_are_known(
    soc: str, called: str, unpack: Unpack
) -> None:
    root = unpack("orin-nano-jp6")
    (root / COUNTERS / "oc1_event_cnt").write_text("2", encoding="utf-8")
    assert supply(root, soc).found.startswith(f"throttled since the boot: 2 x {called};")


def test_a_board_without_counters_says_so(tmp_path: Path) -> None:
    row = supply(tmp_path)
    assert (row.found, row.verdict) == ("no counter of over-current could be read", "optional")
