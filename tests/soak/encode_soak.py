"""A million images through motorvae-encode, its memory and files watched from outside.

    python tests/soak/encode_soak.py BUNDLE FOLDER --count 1000000
    python tests/soak/encode_soak.py BUNDLE FOLDER --more="--engine ray"

FOLDER holds pictures, of which a list of `count` lines is made. Fails where a row is missing, twice
or out of order, where resident memory at any time is 5 % above that after a tenth of the rows, or
where a file descriptor was added. The last line is JSON with every tenth of the samples.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq

EVERY_S = 5.0
MOST_GROWTH = 0.05


def watched(command: list[str], output: Path, errors: Path) -> tuple[int, list[tuple[float, ...]]]:
    """Run a command; return its exit code, and seconds, resident bytes, descriptors and parts."""
    samples = []
    began_s = time.monotonic()
    with errors.open("wb") as file, subprocess.Popen(command, stderr=file) as process:
        watch = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                memory, files = _memory(watch), watch.num_fds()
            except psutil.Error:  # it has ended meanwhile
                break
            parts = len(list(output.glob("part-*")))
            samples.append((round(time.monotonic() - began_s, 1), memory, files, parts))
            time.sleep(EVERY_S)  # the rhythm of the samples
        process.wait()
    return process.returncode, samples


def _memory(watch: psutil.Process) -> int:
    """Return the resident bytes of a process and, of its children, those that are theirs alone."""
    total: int = watch.memory_info().rss
    for child in watch.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            total += child.memory_full_info().uss
    return total


def main() -> int:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--more", type=shlex.split, default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        pictures = sorted(str(path.resolve()) for path in options.folder.iterdir())
        with (folder / "list.txt").open("w", encoding="utf-8") as file:
            for line in itertools.islice(itertools.cycle(pictures), options.count):
                file.write(f"{line}\n")
        output = folder / "latents.parquet"
        command = [sys.executable, "-m", "motorvae", "encode", str(folder / "list.txt")]
        command += ["--model", str(options.bundle), "--output", str(output)]
        command += options.more
        code, samples = watched(command, output, folder / "errors")
        if code:
            print((folder / "errors").read_text(encoding="utf-8")[-1000:], file=sys.stderr)
            return 1
        names = pq.read_table(output, columns=["name", "status"])
        expected = itertools.islice(itertools.cycle(pictures), options.count)
        in_order = names["name"].to_pylist() == list(expected)
        parts = samples[-1][3]
        warm = next((one for one in samples if one[3] >= parts / 10), samples[0])
        late = [one for one in samples if one[0] >= warm[0]]
        growth = max(one[1] for one in late) / warm[1] - 1
        files = late[-2][2] - warm[2]  # the last sample may be of a run that is closing
    found = {
        "rows": names.num_rows,
        "in_order": in_order,
        "ok": names["status"].to_pylist().count("ok"),
        "seconds": samples[-1][0],
        "growth": round(growth, 4),
        "descriptors": files,
        "samples": samples[:: max(1, len(samples) // 10)],
    }
    print(json.dumps(found))
    return int(not in_order or growth > MOST_GROWTH or files > 0)


if __name__ == "__main__":
    sys.exit(main())
