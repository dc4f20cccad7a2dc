"""python -m motorvae.benchmarks.encode_rates BUNDLE DATA...: images/s of encoding, by its parts.

In turns, each over the same images, so that a busy machine slows all of them:

- `plain`: what a script would do; one thread, OpenCV's whole picture, its area average, ONNX
  Runtime on all cores in batches of 16;
- `decode`: reading, hashing, decoding and fitting alone, on all cores;
- `encode`: the engines alone, on all cores, of pictures that are in memory;
- `pipeline`: what motorvae-encode does, without its files.

On a processor both parts need the same cores, so that the floor of an image is the sum of what the
parts take of all cores: `share` is how much of that the pipeline reaches. The last line is JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from ..runtime.bulk.encoder_pool import EncoderPool, PoolRequest
from ..runtime.bulk.item import Fitted, Item, fitted_from_item
from ..runtime.bulk.run import DataRequest
from ..runtime.bundle.graph_key import GraphKey, Precision
from ..runtime.bundle.load import Bundle, load_bundle
from ..runtime.core.errors import MotorVAEError
from ..runtime.engines.open import EngineRequest, open_engine
from ..runtime.pixels.convert import write_input
from ..runtime.pixels.picture import MAX_PICTURE, limit_for

T = TypeVar("T")

TURNS = 5
_PLAIN_BATCH = 16
_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def main(words: Sequence[str]) -> int:
    """Measure; `words` are a bundle's folder, and data as of motorvae-encode."""
    bundle = load_bundle(Path(words[0]), hash_all=False)
    request = DataRequest(tuple(words[1:]))
    items = list(islice(request.inputs(bundle), 10_000))
    found = {}
    for precision in _PRECISIONS:
        try:
            found[precision] = _rates(bundle, items, precision)
        except MotorVAEError as error:  # noqa: PERF203  # two turns
            print(f"{precision}: skipped because {error.clause()}", file=sys.stderr)
    print(json.dumps({"images": len(items), "rates": found}))
    return 0


class Ways:
    """What can be timed of an open pool over some items, each part alone and both together."""

    def __init__(self, pool: EncoderPool, items: Sequence[Item], size: int) -> None:
        self._pool, self._items, self._size = pool, items, size
        with ThreadPoolExecutor(pool.workers) as threads:
            self._fitted = list(threads.map(self._decoded_one, items))

    def decode(self) -> None:
        """Read, hash, decode and fit."""
        with ThreadPoolExecutor(self._pool.workers) as threads:
            list(threads.map(self._decoded, batches_of(self._items, self._size)))

    def encode(self) -> None:
        """Run the engines on pictures that are in memory."""
        with ThreadPoolExecutor(self._pool.workers) as threads:
            list(threads.map(self._pool.latents_of, batches_of(self._fitted, self._size)))

    def pipeline(self) -> None:
        """Do both, as motorvae-encode does."""
        for _ in self._pool.rows(batches_of(self._items, self._size)):
            pass

    def _decoded(self, items: Sequence[Item]) -> list[Fitted]:
        return [self._decoded_one(item) for item in items]

    def _decoded_one(self, item: Item) -> Fitted:
        spec = self._pool.spec
        return fitted_from_item(item, spec, limit_for(spec, MAX_PICTURE))


def seconds_of(way: Callable[[], object]) -> float:
    """Return how long one call takes."""
    start_s = time.perf_counter()
    way()
    return time.perf_counter() - start_s


def _rates(bundle: Bundle, items: Sequence[Item], precision: Precision) -> dict[str, float]:
    limit = limit_for(bundle.spec, MAX_PICTURE)
    engine = EngineRequest(precision=precision)
    with EncoderPool(bundle, PoolRequest(engine, limit)) as pool:
        size = pool.best_batch_size()
        print(f"{precision}: {pool.choice.chosen}, {pool.workers} threads, batches of {size}")
        parts = Ways(pool, items, size)
        ways: dict[str, Callable[[], None]] = {
            "plain": lambda: plain(bundle, items),
            "decode": parts.decode,
            "encode": parts.encode,
            "pipeline": parts.pipeline,
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, way in ways.items():
                seconds[name].append(seconds_of(way))
    rates = {name: len(items) / statistics.median(took) for name, took in seconds.items()}
    floor = 1 / (1 / rates["decode"] + 1 / rates["encode"])
    shares = [
        (decoding + encoding) / both
        for decoding, encoding, both in zip(
            seconds["decode"], seconds["encode"], seconds["pipeline"], strict=True
        )
    ]
    rates |= {"floor": floor, "share": statistics.median(shares)}
    for name, value in rates.items():
        print(f"{name:>9}: {value:8.2f}{'' if name == 'share' else ' images/s'}")
    return {name: round(value, 3) for name, value in rates.items()}


def plain(bundle: Bundle, items: Sequence[Item]) -> None:
    """Encode as a script would, with ONNX Runtime's own threads and OpenCV's own decoder."""
    spec = bundle.spec
    with open_engine(bundle, GraphKey("encoder"), EngineRequest(backend="onnx")) as backend:
        for part in batches_of(items, _PLAIN_BATCH):
            batch = np.empty((len(part), *spec.input_shape), np.float32)
            for place, item in enumerate(part):
                data = item.content() if item.content is not None else b""
                image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                if image is None:
                    continue
                if spec.color == "grey":
                    image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
                shown = cv2.resize(image, (spec.width, spec.height), interpolation=cv2.INTER_AREA)
                planes = shown if shown.ndim == 2 else shown.transpose(2, 0, 1)
                write_input(np.asarray(planes, np.uint8), batch[place])
            backend.run(batch)


def batches_of(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut items into batches."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
