"""kill -9 of motorvae-export --triton at random moments: the repository is absent or whole.

    python -m tests.attacks.triton_writer BUNDLE --count 20

Half of the kills come at random moments of the whole command, and half while the repository is
being written beside its place. Every other one finds an earlier repository there, of another batch
size, which must be there as it was, or the new one. A whole one has every file of its manifest by
its hash and no other, and its configurations parse by Triton's schema and agree with the graphs.
Then the command runs to its end, and nothing may be left over. Prints the counts as one line of
JSON, and exits with 1 where anything was neither, failed or was left over.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from ..export.triton.agreement import problems_of

PATIENCE_S = 120.0
LONGEST_S = 0.2
"""Until a kill, from when something is there: 10 million weights take longer to write."""
BATCHES = ("4", "8")
"""Largest batches of an earlier and of a new repository."""


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, but for its manifest, which has a date."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {"motorvae.json", "README.md"}
    }


def problems(folder: Path) -> list[str]:
    """Return what is wrong with a repository, by hashlib and by Triton's schema."""
    try:
        manifest = json.loads((folder / "motorvae.json").read_bytes())
        return _problems(folder, manifest)
    except (OSError, ValueError, text_format.ParseError) as error:
        return [f"cannot be read: {error}"]


def _problems(folder: Path, manifest: dict[str, Any]) -> list[str]:
    found = []
    for entry in manifest["files"]:
        path = folder / entry["file"]
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            found.append(f"{entry['file']} has another hash")
    listed = {entry["file"] for entry in manifest["files"]} | {"motorvae.json"}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return [*found, *sorted(there ^ listed), *map(str, problems_of(folder))]


def begins(place: Path, before: set[Path]) -> bool:
    """Whether a folder has appeared beside a repository, or the repository is changing."""
    there = {*place.parent.iterdir()}
    return there != before or (place in before and not (place / "motorvae.json").exists())


def main() -> int:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice, found = random.Random(options.seed), collections.Counter[str]()
    command = (sys.executable, "-m", "motorvae", "export", "--model", str(options.bundle.resolve()))
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        place = folder / "work" / "models"
        place.parent.mkdir()
        known = []
        for batch in BATCHES:
            made = folder / f"whole-{batch}"
            began_s = time.monotonic()
            words = ("--triton", str(made), "--triton-batch", batch)
            subprocess.run([*command, *words], check=True, capture_output=True, timeout=PATIENCE_S)
            takes_s = time.monotonic() - began_s
            assert problems(made) == [], problems(made)
            known.append(contents(made))
        assert known[0] != known[1]
        new = (*command, "--triton", str(place), "--triton-batch", BATCHES[1])
        number = 0
        while found["kills"] < options.count:
            number += 1
            shutil.rmtree(place, ignore_errors=True)
            has_earlier, in_writing = number % 2 == 0, number % 4 < 2
            if has_earlier:
                shutil.copytree(folder / f"whole-{BATCHES[0]}", place)
            process = subprocess.Popen(
                new, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
            end_s = time.monotonic() + PATIENCE_S
            if in_writing:
                before = {*place.parent.iterdir()}
                while process.poll() is None and not begins(place, before):
                    assert time.monotonic() < end_s
                    time.sleep(0.0005)  # there is nothing to wait on but the folder
                time.sleep(dice.uniform(0, LONGEST_S))
            else:
                time.sleep(dice.uniform(0.3, 1.0) * takes_s)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                found["kills"] += 1
                found["while it wrote"] += in_writing
            process.wait()
            if not place.exists():
                found["absent"] += 1
                found["lost"] += has_earlier
                continue
            wrong = problems(place)
            is_known = contents(place) in known[1 - has_earlier :]
            found["half-written"] += bool(wrong) or not is_known
            found["earlier" if contents(place) == known[0] else "new"] += 1
            if wrong or not is_known:
                print(wrong[:5], file=sys.stderr)
        done = subprocess.run(new, capture_output=True, timeout=PATIENCE_S, check=False)
        found["failed after"] += done.returncode != 0 or contents(place) != known[1]
        left_over = [path.name for path in place.parent.iterdir() if path.is_dir()]
        found["left over"] += len(left_over) - 1
    print(json.dumps(found))
    return int(any(found[name] for name in ("lost", "half-written", "failed after", "left over")))


if __name__ == "__main__":
    sys.exit(main())
