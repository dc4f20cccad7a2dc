"""python tests/training/shards/memory_of_shards.py SHARDS CACHE: one run's share of memory, in kB.

Indexes shards, draws an epoch of training batches and one of held-out ones, and prints the number
of images and the largest resident memory that the process ever had; what torch and the rest take
before is printed, too, and so is the cache on disk.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.dataset import DataRequest, data_from_cache, prepare_data
from motorvae.training.loop.batches import HeldOutBatches, TrainBatches
from motorvae.training.loop.schedule import Plan, Schedule
from motorvae.training.options import TrainOptions


def main(shards: str, cache: Path) -> None:
    before = _status("VmRSS")
    request = DataRequest(shards, cache.parent, workers=2)
    prepare_data(request, ModelSpec(), cache, progress=lambda *_: None, warn=print)
    data = data_from_cache(cache, workers=2)
    options = TrainOptions(batch_size=64)
    schedule = Schedule(Plan(options, len(data.train), len(data.held_out)))
    drawn = sum(len(batch) for batch in TrainBatches(data, schedule, 0))
    drawn += sum(len(batch) for batch in HeldOutBatches(data, schedule.plan, 0))
    kept = sum(path.stat().st_size for path in cache.iterdir())
    found = {"images": drawn, "before": before, "peak": _status("VmHWM"), "cache": kept // 1024}
    print(json.dumps(found))


def _status(name: str) -> int:
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)
    )
    return int(line.split()[1])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
