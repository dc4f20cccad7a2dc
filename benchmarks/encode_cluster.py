"""python -m motorvae.benchmarks.encode_cluster BUNDLE DATA...: what Ray costs, in images/s.

In turns, over the same images and on one core and then two, so that a busy machine slows all:

- `local`: what motorvae-encode does on these cores, without its files;
- `ray`: the same with `--engine ray` on a cluster of one node with these cores, a worker for each.

A rate is that of all tasks but the first, and `start_s` the seconds until that was done. Ray's own
processes have the same cores as its workers. The last line is JSON, with medians of all turns; the
shares are medians of what each turn gives.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ..runtime.bulk.cluster.ray_pool import ClusterRequest, RayPool
from ..runtime.bulk.encoder_pool import EncoderPool, PoolRequest
from ..runtime.bulk.item import Item
from ..runtime.bulk.run import DataRequest, Pool
from ..runtime.bundle.load import load_bundle
from ..runtime.core.errors import UsageError
from ..runtime.engines.open import EngineRequest
from ..runtime.pixels.picture import limit_for

TURNS = 3
_BATCH = 16
_TASK_IMAGES = 256
_MOST_IMAGES = 10_000


def main(words: Sequence[str]) -> int:
    """Measure; `words` are a bundle's folder, and data as of motorvae-encode."""
    bundle = load_bundle(Path(words[0]), hash_all=False)
    items = list(islice(DataRequest(tuple(words[1:])).inputs(bundle), _MOST_IMAGES))
    if len(items) < 4 * _TASK_IMAGES:
        raise UsageError(f"{len(items)} images are too few: give {4 * _TASK_IMAGES} or more")
    limit = limit_for(bundle.spec, 200.0)
    usable = sorted(os.sched_getaffinity(0))
    found: dict[str, list[float]] = {}
    for _ in range(TURNS):
        for cores in range(1, min(2, len(usable)) + 1):
            os.sched_setaffinity(0, usable[:cores])
            with EncoderPool(bundle, PoolRequest(EngineRequest(), limit, cores)) as here:
                local, _ = _rate(here, items)
            begin_s = time.perf_counter()
            request = PoolRequest(EngineRequest(), limit, 1)
            with RayPool(bundle, request, ClusterRequest("local", _TASK_IMAGES)) as workers:
                opened_s = time.perf_counter() - begin_s
                by_ray, first_s = _rate(workers, items)
            turn = {"local": local, "ray": by_ray, "share": by_ray / local}
            turn["start_s"] = opened_s + first_s
            for name, value in turn.items():
                found.setdefault(f"{name} of {cores}", []).append(value)
            print(cores, turn, file=sys.stderr)
    medians = {name: round(statistics.median(values), 3) for name, values in found.items()}
    print(json.dumps({"images": len(items), "turns": TURNS, "medians": medians}))
    return 0


def _rate(pool: Pool, items: Sequence[Item]) -> tuple[float, float]:
    """Return images/s after the first task, and the seconds until that was done."""
    begin_s = time.perf_counter()
    first_s, count = 0.0, 0
    for rows in pool.rows(_batches(items)):
        count += len(rows)
        if count == _TASK_IMAGES:
            first_s = time.perf_counter() - begin_s
    return (count - _TASK_IMAGES) / (time.perf_counter() - begin_s - first_s), first_s


def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
