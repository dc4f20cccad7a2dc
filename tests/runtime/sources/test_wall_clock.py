from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motorvae.runtime.sources.wall_clock import SET_BACK_NS, WallClock

DAY_NS = 24 * 3600 * 10**9
MS = 1_000_000


class Clocks:
    """Two clocks that are set by hand; reading them takes a moment that varies."""

    def __init__(self) -> None:
        self.monotonic_ns, self.offset_ns, self.reads_take_ns = 10**12, 1_700 * 10**15, 0

    def wall(self) -> int:
        self.monotonic_ns += self.reads_take_ns
        return self.monotonic_ns + self.offset_ns

    def monotonic(self) -> int:
        return self.monotonic_ns


def clock_of(clocks: Clocks) -> WallClock:
    return WallClock(clocks.wall, clocks.monotonic)


def test_it_follows_a_clock_that_is_set_in_either_direction_at_once() -> None:
    clocks = Clocks()
    wall = clock_of(clocks)
    for step_ns in (0, DAY_NS, -DAY_NS, -3600 * 10**9, 50 * MS, -20 * MS):
        clocks.offset_ns += step_ns
        for _ in range(3):
            clocks.monotonic_ns += 40 * MS
            assert wall.at(clocks.monotonic_ns) == clocks.monotonic_ns + clocks.offset_ns


def test_a_glitch_of_a_second_leaves_nothing_behind() -> None:
    clocks = Clocks()
    wall = clock_of(clocks)
    true_ns = clocks.offset_ns
    for frame in range(200):
        clocks.offset_ns = true_ns + (DAY_NS if 50 <= frame < 75 else 0)
        clocks.monotonic_ns += 40 * MS
        assert wall.at(clocks.monotonic_ns) == clocks.monotonic_ns + clocks.offset_ns


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, SET_BACK_NS // 2)), max_size=50))
def test_it_never_goes_back_where_the_clock_does_not(frames: list[tuple[int, int]]) -> None:
    clocks = Clocks()
    wall = clock_of(clocks)
    latest = 0
    for passed_ns, read_ns in frames:
        clocks.monotonic_ns += passed_ns
        came_ns = clocks.monotonic_ns
        clocks.reads_take_ns = read_ns
        found = wall.at(came_ns)
        assert found >= latest
        latest = found


def test_times_that_others_noted_keep_the_order() -> None:
    clocks = Clocks()
    wall = clock_of(clocks)
    assert [wall.ordered(at) for at in (5, 3, 7)] == [5, 5, 7]
    clocks.offset_ns -= DAY_NS
    assert wall.ordered(2) == 2


FOLLOWS = """
import sys, time
from motorvae.runtime.sources.wall_clock import WallClock
wall = WallClock()
for line in sys.stdin:
    print(wall.at(time.monotonic_ns()) // 10**9, time.time_ns() // 10**9, flush=True)
"""


def test_it_follows_a_real_clock_that_is_set(tmp_path: Path) -> None:
    """By libfaketime, which stands between the process and the kernel."""
    libraries = [
        path
        for folder in Path("/usr/lib").glob("*/faketime")
        if (path := folder / "libfaketime.so.1").exists()
    ]
    if not libraries or shutil.which("faketime") is None:
        pytest.skip("needs the package faketime")
    setting = tmp_path / "clock"
    setting.write_text("+0\n")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(setting),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", FOLLOWS], env=environment, **pipes) as process:
        assert process.stdin
        assert process.stdout
        seen = []
        for step in ("+0", "+1d", "+0", "-2h", "-2h"):
            setting.write_text(f"{step}\n")
            process.stdin.write("\n")
            process.stdin.flush()
            ours, theirs = map(int, process.stdout.readline().split())
            assert abs(ours - theirs) <= 1
            seen.append(ours)
        process.stdin.close()
    assert 86_300 < seen[1] - seen[0] < 86_500
    assert -86_500 < seen[2] - seen[1] < -86_300
    assert -7_300 < seen[3] - seen[2] < -7_100
