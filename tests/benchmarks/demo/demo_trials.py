"""`make demo` as a user types it, under each condition that it promises to succeed in.

    python tests/benchmarks/demo/demo_trials.py --seeds 10 --conditions quiet four eight one half

Needs an environment that `make demo` has set up before; writes demo-trials.json and prints a table.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

CONDITIONS = {
    "quiet": "nothing else runs",
    "four": "four busy loops",
    "eight": "eight busy loops",
    "one": "one core (taskset)",
    "half": "half the time of two cores (cgroup quota)",
}
GROUP = Path("/sys/fs/cgroup/cpu/motorvae-half")
PERIOD_US = 100_000


@contextlib.contextmanager
def under(condition: str) -> Iterator[list[str]]:
    """Make the condition for the block; give what goes before the command."""
    loops = {"four": 4, "eight": 8}.get(condition, 0)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        if condition == "one":
            yield ["taskset", "-c", "0"]
        elif condition == "half":
            GROUP.mkdir(exist_ok=True)
            (GROUP / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            quota_us = PERIOD_US * (os.cpu_count() or 1) // 2
            (GROUP / "cpu.cfs_quota_us").write_text(str(quota_us))
            yield ["sh", "-c", f'echo $$ > {GROUP}/cgroup.procs && exec "$@"', "sh"]
        else:
            yield []
    finally:
        for process in busy:
            process.kill()
            process.wait()


def trial(condition: str, seed: int) -> dict[str, object]:
    """Run the demo once; return what came of it."""
    began_s = time.monotonic()
    with under(condition) as before:
        command = [*before, "make", "demo", f"DEMO_SEED={seed}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began_s
    said = done.stdout + done.stderr
    folder = Path("demo")
    found: dict[str, object] = {
        "condition": condition,
        "seed": seed,
        "exit": done.returncode,
        "seconds": round(seconds, 1),
    }
    metrics = folder / "run" / "metrics.csv"
    if metrics.exists():
        with metrics.open(newline="", encoding="utf-8") as file:
            last = list(csv.DictReader(file))[-1]
        found |= {
            "steps": int(last["steps"]),
            "training_s": round(float(last["elapsed_s"])),
            "held_out_reconstruction": round(float(last["held_out_reconstruction"]), 1),
            "active_units": int(last["active_units"]),
        }
    manifest = folder / "bundle" / "manifest.json"
    if manifest.exists():
        found["fp16_share"] = largest_share(json.loads(manifest.read_text("utf-8")), "fp16")
    if threads := re.search(r"(\d+) threads?,? as", said):
        found["threads"] = int(threads[1])
    if done.returncode:
        found["said"] = said.splitlines()[-6:]
    return found


def largest_share(manifest: dict[str, list[dict[str, object]]], precision: str) -> float:
    """Return the largest share of a limit that a graph of this precision uses, errors only."""
    shares = [0.0]
    for report in manifest["verification"]:
        if report["precision"] != precision:
            continue
        for metric in report["metrics"]:  # type: ignore[attr-defined]  # JSON
            if metric["limit"] and not metric["higher_is_better"]:
                value = metric.get("bound") or metric["value"]
                shares.append(float(value) / float(metric["limit"]))
    return round(max(shares), 3)


def main() -> None:
    """Run all trials, saving after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds of each condition")
    parser.add_argument("--first", type=int, default=0, help="the first seed")

    parser.add_argument("--conditions", nargs="+", default=[*CONDITIONS], choices=[*CONDITIONS])
    parser.add_argument("--output", type=Path, default=Path("demo-trials.json"))
    options = parser.parse_args()
    trials: list[dict[str, object]] = []
    for condition in options.conditions:
        seeds = range(options.first, options.first + options.seeds)
        for seed in seeds:
            trials.append(trial(condition, seed))
            print(json.dumps(trials[-1]), flush=True)
            options.output.write_text(json.dumps(trials, indent=1) + "\n", encoding="utf-8")
    keys = [*trials[0]]
    print("| " + " | ".join(keys) + " |\n|" + " --- |" * len(keys))
    for row in trials:
        print("| " + " | ".join(str(row.get(key, "")) for key in keys) + " |")


if __name__ == "__main__":
    main()
