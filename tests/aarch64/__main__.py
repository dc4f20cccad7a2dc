"""Run motorVAE's runtime on arm64: in an emulated root of Debian or Ubuntu, or on such a machine.

    python -m tests.aarch64                        # Debian 12 and 13: Python 3.11 and 3.13
    python -m tests.aarch64 --suites jammy noble   # Ubuntu 22.04 and 24.04: as JetPack 6 and 7
    python -m tests.aarch64 prepare FOLDER         # what x86-64 expects, to be carried elsewhere
    python -m tests.aarch64 here FOLDER            # the tests on this arm64 machine, natively

The root is unpacked by mmdebstrap and runs by qemu's user-mode emulation, so it needs Linux, root,
and Debian's packages mmdebstrap and qemu-user-static; `make test-aarch64` says which is missing.
What is downloaded and built stays in .aarch64/. Each step's time is printed, and goes with the
figures of the tests into .aarch64/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from motorvae.benchmarks.measure.result import cpu_name

from .prepare import expected_here
from .roots import HERE, REPOSITORY, SUITES, NotPossibleError, Root

DEFAULT_SUITES = ("bookworm", "trixie")
INSIDE_S = 1800
"""Most seconds of all tests in one root; seen: 300 to 400 on two quiet cores."""
NOT_POSSIBLE = 77
"""Exit code where this machine lacks something. Not 2, which is that of words that nobody knows."""


class Clock:
    """Names and times the steps of one run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        print(f"=== {name}", flush=True)
        start_s = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start_s, 1)


def emulated(suites: list[str], folder: Path) -> int:
    """Run the tests in a root of each suite; returns the exit code."""
    clock, failed = Clock(), []
    figures: dict[str, object] = {}
    with clock.step("what x86-64 expects"):
        expected = expected_here(folder / "expected")
    for suite in suites:
        root = Root(folder, SUITES[suite])
        with clock.step(f"{suite}: root"):
            root.make()
        with clock.step(f"{suite}: packages"):
            root.install()
        with clock.step(f"{suite}: tests"):
            code = root.run_tests(expected, INSIDE_S)
        figures[suite] = root.figures()
        if code:
            failed.append(suite)
    results = {
        "processor": cpu_name(),
        "seconds": clock.seconds,
        "suites": figures,
    }
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for name, seconds in clock.seconds.items():
        print(f"{seconds:8.1f} s  {name}")
    print(f"figures in {folder / 'results.json'}")
    if failed:
        print(f"failed in {' and '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def here(expected: Path) -> int:
    """Run the tests natively; returns pytest's exit code."""
    if platform.machine() != "aarch64":
        raise NotPossibleError(f"this is {platform.machine()}, no arm64 machine: leave out here")
    command = [sys.executable, "-m", "pytest", str(HERE / "inside")]
    environment = os.environ | {"MOTORVAE_EXPECTED": str(expected)}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    words.add_argument("verb", nargs="?", choices=("emulate", "prepare", "here"), default="emulate")
    words.add_argument("where", nargs="?", type=Path, help="the folder of prepare and here")
    words.add_argument("--suites", nargs="+", choices=tuple(SUITES), default=list(DEFAULT_SUITES))
    words.add_argument("--folder", type=Path, default=REPOSITORY / ".aarch64")
    given = words.parse_args()
    if given.verb != "emulate" and given.where is None:
        words.error(f"{given.verb} needs a folder")
    try:
        if given.verb == "prepare":
            print(f"in {expected_here(given.where)}")
            return 0
        if given.verb == "here":
            return here(given.where.absolute())
        return emulated(given.suites, given.folder.absolute())
    except NotPossibleError as error:
        print(f"test-aarch64: {error}", file=sys.stderr)
        return NOT_POSSIBLE


if __name__ == "__main__":
    sys.exit(main())
