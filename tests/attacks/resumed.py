"""kill -9 of motorvae-encode at random moments, gone on with until it ends: every image once.

    python -m tests.attacks.resumed BUNDLE FOLDER --count 30

FOLDER holds pictures, of which a list of 40,000 is made. The run is killed again and again at
random moments and started with the same command, until it ends; then it begins anew, until there
were `count` kills. Whenever it ends its rows are compared, bit by bit, with those of a run that
nobody killed. Prints the counts as one line of JSON, and exits with 1 where any row differs.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

IMAGES = 40_000
PART_IMAGES = 2048
EARLIEST_S, LATEST_S = 1.0, 8.0


def content_of(output: Path, images: int = IMAGES) -> str:
    """Return a hash of all columns of a result."""
    digest = hashlib.sha256()
    if output.suffix == ".npz":
        with np.load(output, allow_pickle=False) as held:
            for name in sorted(held.files):
                digest.update(name.encode() + held[name].tobytes())
            assert len(held["names"]) == images
    else:
        table = pq.read_table(output)
        assert table.num_rows == images
        for name in sorted(table.column_names):
            column = table[name].combine_chunks()
            digest.update(name.encode() + repr(column.to_pylist()).encode())
    return digest.hexdigest()


def remove(output: Path) -> None:
    """Delete a result."""
    if output.is_dir():
        shutil.rmtree(output)
    output.unlink(missing_ok=True)


def main() -> int:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice, found = random.Random(options.seed), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        pictures = sorted(str(path.resolve()) for path in options.folder.iterdir())
        lines = itertools.islice(itertools.cycle(pictures), IMAGES)
        (folder / "list.txt").write_text("\n".join(lines), encoding="utf-8")
        command = [sys.executable, "-m", "motorvae", "encode", str(folder / "list.txt")]
        command += ["--model", str(options.bundle.resolve()), "--batch-size", "16"]
        command += ["--part-images", str(PART_IMAGES), "--output"]
        whole = {}
        for suffix in (".npz", ".parquet"):
            output = folder / f"whole{suffix}"
            subprocess.run([*command, str(output)], check=True, stderr=subprocess.DEVNULL)
            whole[suffix] = content_of(output)
        for suffix in itertools.cycle(whole):
            output, ended = folder / f"killed{suffix}", False
            while not ended:
                kills_left = found["kills"] < options.count
                with subprocess.Popen(
                    [*command, str(output)], stderr=subprocess.PIPE, start_new_session=True
                ) as process:
                    try:
                        within_s = dice.uniform(EARLIEST_S, LATEST_S) if kills_left else None
                        _, errors = process.communicate(timeout=within_s)
                        ended = True
                    except subprocess.TimeoutExpired:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.communicate()
                        found["kills"] += 1
            found["runs to the end"] += 1
            found["gone on with"] += b"of them by an earlier run" in errors
            if process.returncode or content_of(output) != whole[suffix]:
                found["differ"] += 1
                print(errors.decode()[-500:], file=sys.stderr)
            remove(output)
            if found["kills"] >= options.count:
                break
        found["left over"] = len(
            [p for p in folder.iterdir() if p.name.startswith(("killed", "."))]
        )
    print(json.dumps(found))
    return int(bool(found["differ"] or found["left over"]))


if __name__ == "__main__":
    sys.exit(main())
