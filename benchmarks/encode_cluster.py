"""python -m motorvae.benchmarks.encode_cluster BUNDLE DATA...: what Ray costs, in images/s.

In turns, over the same images and on one core and then two, so that a busy machine slows all:

- `plain`: a script of one thread that decodes and encodes in turn, as of `encode_rates`;
- `floor`: decoding alone and the engines alone on these cores, their times added up;
- `local`: what motorvae-encode does on these cores, without its files;
- `ray`: the same with `--engine ray` on a cluster of one node with these cores, a worker for each.

The rate of `ray` is that amid a run of four times the images, and `start_s` the seconds from the
command to the first rows.
Ray's own processes have the same cores as its workers. The last line is JSON, with medians of all
turns; the shares are medians of what each turn gives.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ..runtime.bulk.cluster.ray_pool import ClusterRequest, RayPool
from ..runtime.bulk.encoder_pool import EncoderPool, PoolRequest
from ..runtime.bulk.item import Item
from ..runtime.bulk.run import DataRequest
from ..runtime.bundle.load import Bundle, load_bundle
from ..runtime.core.errors import UsageError
from ..runtime.engines.open import EngineRequest
from ..runtime.pixels.picture import MAX_PICTURE, limit_for
from .encode_rates import Ways, batches_of, plain, seconds_of

TURNS = 3
_BATCH = 16
_TASK_IMAGES = 256
_MOST_IMAGES = 10_000
_ROUNDS = 4  # over the images, by Ray


def main(words: Sequence[str]) -> int:
    """Measure; `words` are a bundle's folder, and data as of motorvae-encode."""
    bundle = load_bundle(Path(words[0]), hash_all=False)
    items = list(islice(DataRequest(tuple(words[1:])).inputs(bundle), _MOST_IMAGES))
    if len(items) < 4 * _TASK_IMAGES:
        raise UsageError(f"{len(items)} images are too few: give {4 * _TASK_IMAGES} or more")
    usable = sorted(os.sched_getaffinity(0))
    found: dict[str, list[float]] = {}
    for _ in range(TURNS):
        for cores in range(1, min(2, len(usable)) + 1):
            os.sched_setaffinity(0, usable[:cores])
            turn = _turn(bundle, items, cores)
            for name, value in turn.items():
                found.setdefault(f"{name} of {cores}", []).append(value)
            print(cores, turn, file=sys.stderr)
    medians = {name: round(statistics.median(values), 3) for name, values in found.items()}
    print(json.dumps({"images": len(items), "turns": TURNS, "medians": medians}))
    return 0


def _turn(bundle: Bundle, items: list[Item], cores: int) -> dict[str, float]:
    limit = limit_for(bundle.spec, MAX_PICTURE)
    plain_s = seconds_of(lambda: plain(bundle, items))
    with EncoderPool(bundle, PoolRequest(EngineRequest(), limit, cores)) as here:
        ways = Ways(here, items, _BATCH)
        floor_s = seconds_of(ways.decode) + seconds_of(ways.encode)
        local_s = seconds_of(ways.pipeline)
    begin_s = time.perf_counter()
    request = PoolRequest(EngineRequest(), limit, 1)
    with RayPool(bundle, request, ClusterRequest("local", _TASK_IMAGES)) as workers:
        opened_s = time.perf_counter() - begin_s
        by_ray, first_s = _rate(workers, _ROUNDS * items)
    images = len(items)
    turn = {"plain": images / plain_s, "floor": images / floor_s, "local": images / local_s}
    turn |= {"ray": by_ray, "start_s": opened_s + first_s, "ray to local": by_ray / turn["local"]}
    return turn | {f"{name} to floor": turn[name] / turn["floor"] for name in ("local", "ray")}


def _rate(pool: RayPool, items: Sequence[Item]) -> tuple[float, float]:
    """Return images/s from a third to nine tenths of all, and the seconds until the first rows.

    Rows come in order, so that those of a worker that began late hold back what others have done:
    only amid a run, when all are at work, is what comes what is done in that time.
    """
    begin_s = time.perf_counter()
    done = [
        (len(rows), time.perf_counter() - begin_s) for rows in pool.rows(batches_of(items, _BATCH))
    ]
    tasks, batches = len(items) // _TASK_IMAGES, _TASK_IMAGES // _BATCH  # whole ones; of each
    middle = done[tasks // 3 * batches - 1 : tasks * 9 // 10 * batches]
    return sum(count for count, _ in middle[1:]) / (middle[-1][1] - middle[0][1]), done[0][1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
