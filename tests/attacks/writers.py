"""Two writers on one output, racing renames, and outputs that are deleted while they are written.

    python -m tests.attacks.writers --model bundle --count 6 --races 3000

Prints the counts as one line of JSON and exits with 1 where rows were lost, a command ended in a
traceback, claimed rows that are nowhere, or hung.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from motorvae.runtime.core.atomic_files import put_new, set_aside

from .processes import ROOT, command_of

SINKS = (".jsonl", ".csv", ".npz", ".parquet", ".mcap", ".rrd")
ROWS, PATIENCE_S = 12, 60.0
STREAM = (sys.executable, "-m", "motorvae", "stream")


def rows_in(path: Path) -> int:
    """Count the rows of an output with the library that its readers use; no end row."""
    kind = path.suffix
    if kind == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return sum(row["status"] != "end" for row in rows)
    if kind == ".csv":
        return sum(",end," not in line for line in path.read_text().splitlines()[1:])
    if kind == ".npz":
        with np.load(path) as found:
            return int((found["status"] != "end").sum()) if "status" in found else len(found["mu"])
    if kind == ".parquet":
        import pyarrow.parquet as pq

        return sum(status != "end" for status in pq.read_table(path)["status"].to_pylist())
    if kind == ".mcap":
        from mcap.reader import make_reader

        with path.open("rb") as file:
            topics = [one[1].topic for one in make_reader(file).iter_messages()]
        return sum(topic != "/end" for topic in topics)
    return ROWS if path.stat().st_size > 1000 else 0  # an .rrd has no reader that counts quickly


def command_for(kind: str, model: Path, output: Path, source: str) -> list[str]:
    """Return a stream or an encode of a few rows into an output."""
    if kind == "encode":
        return [*STREAM[:-1], "encode", source, "--model", str(model), "--output", str(output)]
    where = ["--view", str(output), "--output", str(output.with_suffix(".own"))]
    if kind != ".rrd":
        where = ["--output", str(output)]
    return [*STREAM, source, "--model", str(model), "--max-frames", str(ROWS), *where]


def pictures(folder: Path) -> Path:
    """Make a folder of images."""
    import cv2

    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(ROWS):
        image = noise.integers(0, 255, (48, 64, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:02}.png"), image)
    return folder


def judged(command: Sequence[str], code: int, errors: str) -> str:
    """Name what became of a command; raise where it is nothing that may happen."""
    if "Traceback" in errors or code not in {0, 1}:
        raise AssertionError(f"{command}: exit code {code}: {errors[-2000:]}")
    if code == 0:
        return "written"
    return "refused" if " is being written by process " in errors else "failed"


def two_writers(kind: str, model: Path, images: Path, dice: random.Random) -> collections.Counter:
    """Start two commands on one output; every row of those that wrote must be there."""
    suffix = ".npz" if kind == "encode" else kind
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for number in range(2):
            output = Path(folder) / f"rows{suffix}"
            command = command_for(kind, model, output, str(images))
            if kind == ".rrd":
                command[-1] = str(Path(folder) / f"own{number}.jsonl")
            process = subprocess.Popen(
                command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
            )
            running.append((command, process))
            time.sleep(dice.uniform(0, 1.0))  # the second comes at a random moment
        found: collections.Counter = collections.Counter()
        for command, process in running:
            _, errors = process.communicate(timeout=PATIENCE_S)
            found[judged(command, process.returncode, errors)] += 1
        there = sum(map(rows_in, Path(folder).glob(f"rows*{suffix}")))
        found["lost"] = found["written"] * ROWS - there
        found["litter"] = sum(path.name.startswith(".") for path in Path(folder).rglob("*"))
        return found


def deleted(kind: str, model: Path, what: str) -> collections.Counter:
    """Delete an output, or its folder, while it is written: exit code 1 and no claim of rows."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "deep" / f"rows{kind}"
        command = command_for(kind, model, output, "synthetic")
        command[command.index("--max-frames") + 1] = "120"
        if kind == ".rrd":
            command[-1] = str(Path(folder) / "own.jsonl")
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        assert process.stderr is not None
        heard = ""
        while " -> " not in heard and (line := process.stderr.readline()):
            heard += line  # the last line but this says that the outputs are open
        time.sleep(1.0)  # amid the rows; any other moment must end alike
        target = output if what == "output" else output.parent
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        _, rest = process.communicate(timeout=PATIENCE_S)
        errors = heard + rest
        result = judged(command, process.returncode, errors)
        claims = f" rows in {output}" in errors and f"\n0 rows in {output}" not in errors
        return collections.Counter({result: 1, "claimed": int(claims), "deletions": 1})


def race(folder: str, number: int, count: int) -> None:
    """Put files of known content at one name, setting aside what is there, and move it away."""
    path = Path(folder) / "latents.jsonl"
    for turn in range(count):
        own = Path(folder) / f"own-{number}"
        own.write_text(f"{number}/{turn}")
        put_new(own, path)
        set_aside(path)


def races(count: int, workers: int = 3) -> collections.Counter:
    """Let several processes do that at once, in folders of 150 files."""
    lost = done = 0
    while done < count:
        each = min(150, count - done) // workers or 1
        with tempfile.TemporaryDirectory() as folder:
            args = [*command_of("writers"), "--race", folder]
            running = [
                subprocess.Popen([*args, str(number), str(each)], cwd=ROOT)
                for number in range(workers)
            ]
            codes = [process.wait(PATIENCE_S) for process in running]
            if any(codes):
                raise AssertionError("a racing process failed")
            there = {path.read_text() for path in Path(folder).iterdir()}
            lost += workers * each - len(there)
        done += workers * each
    return collections.Counter({"races": done, "lost": lost})


def attack(model: Path, count: int, seed: int, *, races_count: int, kinds: Sequence[str]) -> dict:
    """Run all attacks; return what became of them by kind."""
    dice = random.Random(seed)
    found: dict[str, Any] = {"races": dict(races(races_count))} if races_count else {}
    with tempfile.TemporaryDirectory() as folder:
        images = pictures(Path(folder) / "images")
        for kind in kinds:
            total: collections.Counter = collections.Counter()
            for _ in range(count):
                total += two_writers(kind, model, images, dice)
            if kind != "encode":
                for what in ("folder",) if kind == ".npz" else ("folder", "output"):
                    gone = deleted(kind, model, what)
                    total["claimed"] += gone["claimed"] + gone["written"]
                    total["deletions"] += 1
                    total["refused after deletion"] += gone["failed"]
            found[kind] = dict(total)
    return found


def is_clean(found: dict) -> bool:
    """Whether nothing was lost, left or claimed."""
    bad = ("lost", "litter", "claimed")
    return not any(counts.get(name, 0) for counts in found.values() for name in bad)


def main() -> int:
    """Run from a command line."""
    if sys.argv[1:2] == ["--race"]:
        race(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--races", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=[*SINKS, "encode"])
    options = parser.parse_args()
    found = attack(
        options.model,
        options.count,
        options.seed,
        races_count=options.races,
        kinds=options.kinds,
    )
    print(json.dumps(found))
    return 0 if is_clean(found) else 1


if __name__ == "__main__":
    sys.exit(main())
