"""python -m motorvae.benchmarks.shard_rates: images/s of training data from tar shards and others.

Vehicles are drawn once, as JPEG files and as shards of the same files. Then, in turns, so that a
busy machine slows all of them, whole epochs in batches of 64:

- `decode`: the decoder alone, in threads, of bytes that are in memory: the floor of what reads;
- `shards`: what motorvae-train does with shards, in its order and with its threads;
- `webdataset`: its own pipeline over the same shards (shards and a buffer of 1000 shuffled), with
  the same decoder, in as many processes of torch's DataLoader; in one more way without them;
- `files`: the same files by name in random order, with the same decoder, in threads;
- `mapped`: what motorvae-train does with a folder once it is prepared: all pixels in one file.

`steps` are training steps of the model card's network on this machine's processor, batches of 8,
and how much of their time they waited for images. `prepare` is the pass over all images before the
first step: of shards, and of the folder. `cold` ways begin each turn with the system's cache of the
files dropped. `order` says how near to a full shuffle an epoch is. The last line is JSON;
`--json FILE` writes it there as well.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..runtime.core.spec import ModelSpec
from ..runtime.pixels.convert import Pixels, input_from_pixels
from ..runtime.pixels.files.image_files import fitted_from_bytes
from ..runtime.sources.synthetic.vehicles import vehicle_picture
from ..training.dataset import DataRequest, DataSet, data_from_cache, prepare_data
from ..training.loop.batches import TrainBatches
from ..training.loop.schedule import Plan, Schedule
from ..training.model import MotorVAE, vae_loss
from ..training.options import TrainOptions
from ..training.shards.index import RUN_BYTES, RUNS_IN_WINDOW
from ..training.shards.order import EpochOrder

BATCH, SHARDS = 64, 16
_BUFFER = 1000
_STEPS, _FIRST_STEPS = 12, 3
_BIG = (1000, 1000, 100_000)  # shards, images in each, bytes of an image
_Ints = npt.NDArray[np.int64]


def main(words: Sequence[str]) -> int:
    """Measure; see the module."""
    parser = argparse.ArgumentParser(prog="python -m motorvae.benchmarks.shard_rates")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=512, help="of the pictures, in pixels")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="motorvae-shards-") as name:
        found = _rates(Path(name), asked.images, asked.side, asked.threads, asked.turns)
    found["order"] = order_figures()
    for part in ("images_per_s", "steps", "order"):
        for way, value in found[part].items():
            print(f"{way:>24}: {value}")
    line = json.dumps(found)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(line)
    return 0


def _rates(folder: Path, images: int, side: int, threads: int, turns: int) -> dict[str, Any]:
    spec = ModelSpec()
    contents = _written(folder, images, side)
    files = sorted((folder / "files").iterdir())
    shards = sorted((folder / "shards").iterdir())
    seconds: dict[str, list[float]] = {}
    sets: dict[str, DataSet] = {}
    for kind in ("shards", "files"):
        start_s = time.perf_counter()
        sets[kind] = _prepared(folder, kind, spec, threads)
        seconds[f"prepare {kind}"] = [time.perf_counter() - start_s]
    of_bytes = partial(_fitted, spec)
    train = len(sets["shards"].train)
    ways: dict[str, Callable[[], int]] = {
        "decode": lambda: _by_threads(of_bytes, contents, threads),
        "shards": lambda: _by_training(sets["shards"]),
        "files": lambda: _by_threads(
            lambda path: of_bytes(path.read_bytes()), _shuffled(files), threads
        ),
        "mapped": lambda: _by_training(sets["files"]),
    }
    if importlib.util.find_spec("webdataset") is None:
        print("webdataset: skipped because it is not installed", file=sys.stderr)
    else:
        urls = [os.fspath(path) for path in shards]
        ways["webdataset"] = lambda: _by_webdataset(urls, of_bytes, threads)
        ways["webdataset, 1 process"] = lambda: _by_webdataset(urls, of_bytes, 0)
    for way in ("shards", "files", "webdataset"):
        if way in ways:
            ways[f"{way}, cold"] = ways[way]
    made: dict[str, int] = {}
    for turn in range(turns):
        for way in (*ways,) if turn % 2 == 0 else (*reversed(ways),):
            if way.endswith("cold"):
                _drop([*files, *shards])
            else:
                _warm([*files, *shards])
            start_s = time.perf_counter()
            made[way] = ways[way]()
            seconds.setdefault(way, []).append(time.perf_counter() - start_s)
    made |= {f"prepare {kind}": images for kind in sets}
    rates = {way: made[way] / statistics.median(took) for way, took in seconds.items()}
    waits: dict[str, list[tuple[float, float]]] = {"shards": [], "files": []}
    for _ in range(turns):
        for kind, one in waits.items():
            one.append(_steps(sets[kind], spec, threads))
    names = {"shards": "shards", "files": "mapped"}
    steps = {
        names[kind]: {
            "ms": round(statistics.median(step for step, _ in one) * 1e3, 1),
            "waited": round(statistics.median(wait for _, wait in one), 5),
        }
        for kind, one in waits.items()
    }
    return {
        "steps": steps,
        "images": images,
        "trained": train,
        "side": side,
        "bytes": sum(map(len, contents)),
        "threads": threads,
        "batch": BATCH,
        "turns": turns,
        "images_per_s": {way: round(rate, 1) for way, rate in rates.items()},
        "seconds": {way: [round(one, 4) for one in took] for way, took in seconds.items()},
    }


def _written(folder: Path, images: int, side: int) -> list[bytes]:
    """Draw vehicles into files and into shards; return their bytes."""
    for name in ("files", "shards"):
        (folder / name).mkdir()
    contents = []
    for shard, rows in enumerate(np.array_split(np.arange(images), SHARDS)):
        with tarfile.open(folder / "shards" / f"train-{shard:03d}.tar", "w") as tar:
            for row in rows.tolist():
                drawn = vehicle_picture(0, row, side, "rgb")
                data = cv2.imencode(".jpg", drawn)[1].tobytes()
                contents.append(data)
                (folder / "files" / f"{row:06d}.jpg").write_bytes(data)
                member = tarfile.TarInfo(f"{row:06d}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return contents


def _prepared(folder: Path, kind: str, spec: ModelSpec, threads: int) -> DataSet:
    request = DataRequest(os.fspath(folder / kind), folder, workers=threads)
    cache = folder / f"{kind}-cache"
    prepare_data(request, spec, cache, progress=lambda _done, _total: None, warn=print)
    return data_from_cache(cache, workers=threads)


def _fitted(spec: ModelSpec, data: bytes) -> Pixels:
    return fitted_from_bytes(data, spec).pixels


def _shuffled(files: Sequence[Path]) -> list[Path]:
    return [files[row] for row in np.random.default_rng(0).permutation(len(files))]


def _by_threads(decode: Callable[[Any], Pixels], items: Sequence[Any], threads: int) -> int:
    with ThreadPoolExecutor(threads) as pool:
        decoded = pool.map(decode, items)
        while part := list(islice(decoded, BATCH)):
            input_from_pixels(np.stack(part))
    return len(items)


def _by_training(data: DataSet) -> int:
    """Draw the batches of an epoch, as training does."""
    plan = Plan(TrainOptions(batch_size=BATCH), len(data.train), len(data.held_out))
    return sum(len(batch) for batch in TrainBatches(data, Schedule(plan), 0))


def _steps(data: DataSet, spec: ModelSpec, threads: int) -> tuple[float, float]:
    """Return the seconds of a training step, and the share in which it waited for its images."""
    torch.set_num_threads(threads)
    model = MotorVAE(spec).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    plan = Plan(TrainOptions(batch_size=8), len(data.train), len(data.held_out))
    batches = iter(TrainBatches(data, Schedule(plan), 0))
    waited_s = start_s = 0.0
    for step in range(_STEPS + _FIRST_STEPS):
        if step == _FIRST_STEPS:
            waited_s, start_s = 0.0, time.perf_counter()
        asked_s = time.perf_counter()
        images = next(batches)
        waited_s += time.perf_counter() - asked_s
        reconstruction, mu, log_var = model(images)
        optimizer.zero_grad()
        vae_loss(images, reconstruction, mu, log_var, beta=0.05).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    took_s = time.perf_counter() - start_s
    return took_s / _STEPS, waited_s / took_s


def _by_webdataset(urls: list[str], decode: Callable[[bytes], Pixels], processes: int) -> int:
    from torch.utils.data import DataLoader  # noqa: PLC0415  # only for this way
    from webdataset import WebDataset  # noqa: PLC0415  # optional: of the tests

    read = WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(_BUFFER)
    batches = read.to_tuple("jpg").map_tuple(decode).batched(BATCH, collation_fn=_stacked)
    loader = DataLoader(batches, batch_size=None, num_workers=processes)
    return sum(len(batch) for batch in loader)


def _stacked(samples: Sequence[tuple[Pixels]]) -> npt.NDArray[np.float32]:
    return input_from_pixels(np.stack([picture for (picture,) in samples]))


def _drop(paths: Sequence[Path]) -> None:
    """Let the system forget what it holds of files."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _warm(paths: Sequence[Path]) -> None:
    for path in paths:
        path.read_bytes()


def order_figures() -> dict[str, dict[str, float]]:
    """Return how three ways order a million images of 1000 shards.

    `shards_in_batch` is how many shards a batch of 64 has images of; `neighbours` the share of its
    images that lie within 40 images of another one of it; `reads` how many places an epoch reads
    from, for each image.
    """
    shards, each, size = _BIG
    images = np.arange(shards * each)
    run = RUN_BYTES // size
    starts = np.concatenate([np.arange(0, each, run) + number * each for number in range(shards)])
    order = EpochOrder(images, np.append(starts, len(images)), RUNS_IN_WINDOW, seed=0, epoch=0)
    generator = np.random.default_rng(0)
    ways = {
        "full shuffle": (generator.permutation(images), 1.0),
        "shards of motorvae-train": (order.rows(0, len(images)), len(starts) / len(images)),
    }
    if importlib.util.find_spec("webdataset") is not None:
        ways["webdataset, buffer 1000"] = (_buffered(generator, shards, each), shards / len(images))
    return {way: _mixed(rows, each, run) | {"reads": reads} for way, (rows, reads) in ways.items()}


def _buffered(generator: np.random.Generator, shards: int, each: int) -> _Ints:
    """Return the order of WebDataset's own buffer over shards in random order."""
    import random  # noqa: PLC0415  # what it draws with

    from webdataset.filters import _shuffle  # noqa: PLC0415  # optional: of the tests

    def samples() -> Iterator[int]:
        for shard in generator.permutation(shards).tolist():
            yield from range(shard * each, (shard + 1) * each)

    rows = _shuffle(samples(), bufsize=_BUFFER, initial=_BUFFER, rng=random.Random(0))
    return np.fromiter(rows, np.int64)


def _mixed(rows: _Ints, each: int, near: int) -> dict[str, float]:
    batches = rows[: len(rows) // BATCH * BATCH].reshape(-1, BATCH)
    batches = np.sort(batches[:: max(1, len(batches) // 2000)], axis=1)
    shards = 1 + np.count_nonzero(np.diff(batches // each, axis=1), axis=1)
    gaps = np.diff(batches, axis=1) < near
    edge = np.zeros((len(batches), 1), bool)
    close = np.concatenate([gaps, edge], axis=1) | np.concatenate([edge, gaps], axis=1)
    return {
        "shards_in_batch": round(float(shards.mean()), 1),
        "neighbours": round(float(close.mean()), 3),
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
