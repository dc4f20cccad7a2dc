"""Whatever lies where a sensor's file should be: an answer at once, and a number or none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from motorvae.benchmarks.sensors.base import (
    Sensor,
    number_in,
    number_or_none,
    rhythm_of,
    text_or_none,
)
from motorvae.benchmarks.sensors.conditions import ConditionFiles
from motorvae.benchmarks.sensors.ina import ina_sensors

HOSTILE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "large": lambda path: (path.touch(), os.truncate(path, 2 << 30)),
    "loop": lambda path: path.symlink_to(path.name),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "digits": lambda path: path.write_text("9" * 400),
    "more than 64 bits": lambda path: path.write_text(str(1 << 63)),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe\0\x80"),
    "other digits": lambda path: path.write_text("٣٤"),
    "underscore": lambda path: path.write_text("1_0"),
}
# Tried in a process of its own, which can be ended when it waits for a pipe.
_READ = """
import sys
from pathlib import Path
from motorvae.benchmarks.sensors.base import number_or_none, text_or_none
for path in sorted(Path(sys.argv[1]).iterdir()):
    text = text_or_none(path)
    print(path.name, number_or_none(path), None if text is None else len(text))
"""


def test_no_hostile_file_is_waited_for_or_is_a_number(tmp_path: Path) -> None:
    for name, make in HOSTILE.items():
        make(tmp_path / name)
    ran = subprocess.run(
        [sys.executable, "-c", _READ, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = [line.rsplit(maxsplit=2) for line in ran.stdout.splitlines()]
    assert [name for name, _, _ in found] == sorted(HOSTILE)
    assert {number for _, number, _ in found} == {"None"}
    assert all(length == "None" or int(length) <= 100 for _, _, length in found)


def test_a_number_has_64_bits_and_a_name_one_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for number in (-(1 << 63), -256_000, 0, (1 << 63) - 1):
        path.write_text(f"{number}\n")
        assert number_in(path) == number_or_none(path) == number
    path.write_text("9" * 400)
    with pytest.raises(OSError, match="no whole number of 64 bits"):
        number_in(path)
    path.write_text("cpu\x1b[31m\nthermal\n")
    assert text_or_none(path) == "cpu?[31m thermal"


def test_what_is_no_power_and_no_count_is_left_out(tmp_path: Path) -> None:
    hwmon = tmp_path / "sys/class/hwmon"
    for place, files in {
        "hwmon0/": {"name": "soctherm_oc", "oc1_event_cnt": 10**18, "oc2_event_cnt": 3},
        "hwmon1/": {"name": "ina3221", "in1_label": "VDD_IN"},
    }.items():
        for name, value in files.items():
            (hwmon / place).mkdir(parents=True, exist_ok=True)
            (hwmon / place / name).write_text(str(value))
    for name in ("in1_input", "curr1_input"):
        (hwmon / "hwmon1" / name).write_text("9" * 18)
    assert ConditionFiles(tmp_path).counters() == {"soctherm oc2_event_cnt": 3}
    (absent,) = ina_sensors(tmp_path)
    assert "no power of a rail" in str(absent)


def test_a_reading_that_fails_for_a_moment_is_no_change() -> None:
    readings = iter([5, None, 5, 7, None, 7, 9])

    def read() -> int:
        value = next(readings, 9)
        if value is None:
            raise BlockingIOError
        return value

    sensor = Sensor("rail", "file", "part", "", "power", read)
    assert rhythm_of(sensor, most_s=0.2).changes == 2
