"""kill -9 of all processes of a Ray node amid a run, again and again: every image once, in order.

    python -m tests.attacks.lost_nodes BUNDLE FOLDER --count 5

FOLDER holds pictures, of which a list is made. A cluster of two nodes is started on this machine,
and `motorvae-encode --engine ray` runs on it; at a random moment one node is killed, and another
one is added for the next run. Then the command itself is killed once, and started again. Each
result is compared, bit by bit, with that of one process. Prints the counts as one line of JSON,
and exits with 1 where any row differs, or a run failed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.runtime.bulk.cluster.nodes import Nodes, environment

from .resumed import content_of, remove

IMAGES, PART_IMAGES = 12_000, 256
MOST_WAIT_S = 6.0


def main() -> int:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice, found = random.Random(options.seed), collections.Counter[str]()
    with (
        tempfile.TemporaryDirectory() as text,
        tempfile.TemporaryDirectory(prefix="ray") as sockets,
        contextlib.closing(Nodes(sockets)) as nodes,
    ):
        folder = Path(text)
        pictures = sorted(str(path.resolve()) for path in options.folder.iterdir())
        names = [f"row{number}.jpg" for number in range(IMAGES)]
        for name, picture in zip(names, itertools.cycle(pictures), strict=False):
            (folder / name).symlink_to(picture)  # each row has a name of its own
        (folder / "list.txt").write_text("\n".join(names), encoding="utf-8")
        command = [sys.executable, "-m", "motorvae", "encode", str(folder / "list.txt")]
        command += ["--model", str(options.bundle.resolve()), "--batch-size", "16"]
        command += ["--part-images", str(PART_IMAGES), "--provider", "cpu", "--output"]
        whole = {}
        for suffix in (".npz", ".parquet"):
            output = folder / f"whole{suffix}"
            subprocess.run([*command, str(output)], check=True, stderr=subprocess.DEVNULL)
            whole[suffix] = content_of(output, IMAGES)
        nodes.start()
        last = 1
        for number in range(options.count + 1):
            suffix = (".npz", ".parquet")[number % 2]
            output = folder / f"killed{suffix}"
            words = [*command, str(output), "--engine", "ray", "--address", nodes.address]
            with subprocess.Popen(words, stderr=subprocess.PIPE, env=environment()) as process:
                while not _is_at_work(nodes, last, folder) and process.poll() is None:
                    time.sleep(0.01)  # there is nothing to wait on but the folder
                time.sleep(dice.uniform(0, MOST_WAIT_S))  # the moment of the kill
                if number < options.count:
                    nodes.kill(last)
                else:
                    process.send_signal(signal.SIGKILL)
                is_amid = process.poll() is None or number == options.count
                _, errors = process.communicate()
            code = process.returncode
            if number == options.count:
                again = subprocess.run(
                    words, stderr=subprocess.PIPE, env=environment(), check=False
                )
                code, errors = again.returncode, again.stderr
                found["commands killed and gone on with"] += b"by an earlier run" in errors
            else:
                found["nodes killed"] += is_amid
                found["nodes noticed"] += b"1 node was lost" in errors
                nodes.add(f"--address={nodes.address}")
                last += 1
            if code or content_of(output, IMAGES) != whole[suffix]:
                found["differ"] += 1
                print(errors.decode()[-800:], file=sys.stderr)
            remove(output)
            print(dict(found), file=sys.stderr, flush=True)
    print(json.dumps(found))
    return int(bool(found["differ"]))


def _is_at_work(nodes: Nodes, number: int, folder: Path) -> bool:
    """Whether a node has a task, and parts are written."""
    is_begun = any(folder.glob("killed*/part-*"))
    return is_begun and any("Worker)).submit" in name for name in nodes.workers(number))


if __name__ == "__main__":
    sys.exit(main())
