"""A process that makes a counter of a tree run, as a kernel would."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Fixed width and one write, so that a reader never sees half of a number.
_RUN = """
import os, sys, time
path, watts, every_s, wraps_at, first = sys.argv[1], *map(float, sys.argv[2:])
file = os.open(path, os.O_WRONLY)
begin = time.monotonic()
os.pwrite(file, b"%015d\\n" % int(first), 0)
sys.stdout.write("ready\\n"); sys.stdout.flush()
tick = 0
while True:
    tick += 1
    time.sleep(max(0, begin + tick * every_s - time.monotonic()))
    count = int(first + watts * 1e6 * (time.monotonic() - begin)) % int(wraps_at)
    os.pwrite(file, b"%015d\\n" % count, 0)
"""


@contextlib.contextmanager
def counters() -> Iterator[Callable[..., None]]:
    """Make counters run: so many watts, a change so often, from a first value, until the end."""
    processes: list[subprocess.Popen[str]] = []

    def start(
        path: Path, watts: float, *, every_s: float = 0.001, wraps_at: int = 10**14, first: int = 0
    ) -> None:
        command = [sys.executable, "-c", _RUN, str(path)]
        process = subprocess.Popen(
            [*command, *map(str, (watts, every_s, wraps_at, first))],
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.communicate()
