"""The memory of a run on shards does not grow with their images.

`pytest -s -m slow tests/training/shards/test_memory.py` prints the figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import memory_of_shards
from .packing import pack, picture

IMAGES, PER_SHARD = 4000, 400
MOST_GROWTH_KB = 96 << 10
"""The decoded pixels of so many images more would take 786 MB. On a busy machine runs differed by
62 MB as it is, which glibc keeps of each thread's; hence one arena for all."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_four_times_the_images_take_the_same_memory(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    for number in range(IMAGES // PER_SHARD):
        rows = range(number * PER_SHARD, (number + 1) * PER_SHARD)
        files = {f"{row:06d}.jpg": picture(row, ".jpg", 256) for row in rows}
        pack(first / f"{number:03d}.tar", files)
    more = tmp_path / "more"
    more.mkdir()
    for turn in range(4):
        for path in first.iterdir():
            os.link(path, more / f"{turn}-{path.name}")
    found = []
    for folder in (first, more):
        command = [sys.executable, memory_of_shards.__file__, folder, tmp_path / f"c-{folder.name}"]
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"MALLOC_ARENA_MAX": "1"},
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
    print(json.dumps(found))
    one, four = found
    assert (one["images"], four["images"]) == (IMAGES, 4 * IMAGES)
    assert four["peak"] - one["peak"] < MOST_GROWTH_KB
    # What a prepared folder would take on the disk, and the index does.
    assert four["cache"] < 4 * IMAGES * 256 * 256 / 1024 / 500
