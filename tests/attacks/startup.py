"""Ctrl-C in the first moments of every command, and packages planted in the working directory.

    python -m tests.attacks.startup --count 60 --within 0.3

Prints the counts as one line of JSON and exits with 1 where a command of ours ended in a traceback
or hung. What Python itself prints before it has read the script, for a few hundredths of a second,
is counted apart: no program can change it.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .limits import LIMIT_S

COMMANDS = {
    "train": ("vehicles", "--vehicles-count", "60", "--image-size", "32"),
    "export": ("nowhere",),
    "stream": ("synthetic", "--max-frames", "3"),
    "encode": ("nowhere",),
    "bench": ("run", "--quick", "--untrained"),
    "doctor": (),
    "": ("--help",),
}


def script(name: str) -> Path:
    """Return the path of an installed command."""
    return Path(sys.executable).with_name(f"motorvae-{name}".rstrip("-"))


def interrupted(name: str, after_s: float, folder: str) -> str:
    """Send SIGINT after some time; return what came of it."""
    process = subprocess.Popen(
        [str(script(name)), *COMMANDS[name]],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "hung"
    if "Traceback" in errors or "Error" in errors:
        ours = "motorvae/" in errors or "/runtime/" in errors or "/training/" in errors
        if not ours:
            return "before the script"
        print(name, after_s, errors[-3000:], file=sys.stderr)
        return "traceback"
    return "interrupted" if process.returncode in {130, -signal.SIGINT} else "ended before"


def main() -> int:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--within", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", default=[*COMMANDS])
    options = parser.parse_args()
    dice = random.Random(options.seed)
    found: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.commands:
            counts: collections.Counter[str] = collections.Counter()
            for _ in range(options.count):
                counts[interrupted(name, dice.uniform(0, options.within), folder)] += 1
            found[name or "motorvae"] = dict(counts)
    print(json.dumps(found))
    return int(any(counts.keys() & {"traceback", "hung"} for counts in found.values()))


if __name__ == "__main__":
    sys.exit(main())
