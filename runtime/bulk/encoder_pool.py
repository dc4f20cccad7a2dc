"""EncoderPool: batches of items to rows, in several threads, on as many engines as are worth it."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bundle.load import Bundle
from ..core.errors import BackendError
from ..core.lifecycle import Closing
from ..core.system.workers import Workers, check_wanted
from ..engines.base import Backend, Batch
from ..engines.cpu_threads import default_threads
from ..engines.open import EngineRequest
from ..engines.opencv_threads import opencv_kept_single
from ..engines.select import Rebuild, SelectedEngine, select_engine
from ..engines.tensorrt.package import TENSORRT_PACKAGES
from ..ood.detector import OODDetector, usable_detector
from ..pixels.convert import write_input
from ..pixels.picture import PictureLimit
from .item import Fitted, Item, fitted_from_item
from .rows import NUMBERS, UNKNOWN, Floats, Rows

MOST_ENGINES = 8
"""Each holds the weights once more; with more cores than these each takes several."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""What is tried where none is asked for."""
_TRIAL_S, _LEAST_RUNS = 0.1, 3  # of each batch size
_MOST_WORSE = 2  # times the best size: no larger one is tried
_LEAST_GAIN = 0.97  # of its time that a larger batch must be under to be worth its memory


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """How many threads decode, and what is computed."""

    engine: EngineRequest
    limit: PictureLimit
    workers: int | None = None  # threads that decode; None: one for each core
    ood_above: float | None = None  # None: no out-of-distribution scores


class _Engines:
    """Engines that are lent to one thread at a time."""

    def __init__(self, backends: Iterable[Backend]) -> None:
        self._free: queue.SimpleQueue[Backend] = queue.SimpleQueue()
        for backend in backends:
            self._free.put(backend)

    @contextlib.contextmanager
    def one(self) -> Iterator[Backend]:
        backend = self._free.get()
        try:
            yield backend
        finally:
            self._free.put(backend)


class EncoderPool(Closing):
    """The engines of a bundle's encoder, and the threads that decode for them.

    On a processor an engine of one thread for each core does more than one engine of all cores:
    nothing waits for another. A GPU has one engine, and all threads decode for it. BackendError
    and the like where no engine opens, as of `select_engine`.
    """

    def __init__(
        self, bundle: Bundle, request: PoolRequest, rebuild: Rebuild | None = None
    ) -> None:
        self.spec, self._request = bundle.spec, request
        self.workers = request.workers or default_threads()
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            opened.enter_context(opencv_kept_single())
            self.choice, backends = self._opened(bundle, rebuild, opened)
            self._backends = backends
            self._engines = _Engines(backends)
            self._detector: OODDetector | None = None
            self.ood_remark = ""
            if request.ood_above is not None:
                found = usable_detector(bundle, ood_above=request.ood_above)
                self._detector, self.ood_remark = found
            self._closing = opened.pop_all()

    def _opened(
        self, bundle: Bundle, rebuild: Rebuild | None, opened: contextlib.ExitStack
    ) -> tuple[SelectedEngine, list[Backend]]:
        asked = self._request.engine
        count = max(1, min(self.workers // (asked.threads or 1), MOST_ENGINES))
        threads = max(1, self.workers // count) if asked.threads is None else asked.threads
        on_cpu = asked
        if asked.backend not in TENSORRT_PACKAGES:
            on_cpu = replace(asked, threads=threads)
        choice = select_engine(bundle, "encoder", on_cpu, rebuild)
        opened.enter_context(choice.backend)
        backends = [choice.backend]
        if choice.backend.threads is not None:
            same = replace(on_cpu, precision=choice.precision, rebuild=False)
            for _ in range(count - 1):
                backends.append(select_engine(bundle, "encoder", same).backend)
                opened.enter_context(backends[-1])
        return choice, backends

    @property
    def engine(self) -> str:
        """Which engine, with its version."""
        return self.choice.backend.name

    @property
    def layout(self) -> str:
        """How many threads decode, in words."""
        return "1 thread" if self.workers == 1 else f"{self.workers} threads"

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to know of how the engines run, by now."""
        return self._backends[0].notes

    def best_batch_size(self) -> int:
        """Try batch sizes on one engine, and return the one that takes least for each image.

        They grow as long as that is worth the memory.
        """
        backend = self._backends[0]
        best, best_s = 1, np.inf
        for size in BATCH_SIZES:
            batch: Batch = np.zeros((size, *self.spec.input_shape), backend.input_dtype)
            try:
                backend.run(batch)
            except BackendError:  # an engine of another batch size
                continue
            times = list[float]()
            end_s = time.perf_counter() + _TRIAL_S
            while time.perf_counter() < end_s or len(times) < _LEAST_RUNS:
                start_s = time.perf_counter()
                backend.run(batch)
                times.append(time.perf_counter() - start_s)
            took_s = min(times) / size
            if took_s < best_s * _LEAST_GAIN:
                best, best_s = size, took_s
            elif size > _MOST_WORSE * best:
                break
        return best

    def rows(self, batches: Iterable[Sequence[Item]]) -> Iterator[Rows]:
        """Decode and encode batches in threads; yield the rows of each, in the order given.

        Of what is given no more is taken ahead than keeps every thread busy. BackendError where the
        encoder fails or a latent is not finite. Whoever leaves before the end, as on Ctrl-C, does
        not wait for servers.
        """
        waiting: deque[Future[Rows]] = deque()
        threads = Workers(self.workers, "encode")
        try:
            for batch in batches:
                waiting.append(threads.submit(self.rows_of, batch))
                if len(waiting) > 2 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.end()

    def rows_of(self, items: Sequence[Item]) -> Rows:
        """Decode and encode one batch in the thread that calls; there may be no item in it."""
        fitted = [fitted_from_item(item, self.spec, self._request.limit) for item in items]
        check_wanted()
        latents = self.latents_of(fitted)
        self._check_finite(items, fitted, latents)
        numbers = {name: np.full(len(items), UNKNOWN[name], NUMBERS[name]) for name in NUMBERS}
        for row, one in enumerate(fitted):
            if one.shape is not None:
                numbers["height"][row], numbers["width"][row] = one.shape
        self._judge(fitted, latents, numbers)
        return Rows(
            {
                "names": [item.name for item in items],
                "sha256": [one.sha256 for one in fitted],
                "reasons": [one.reason for one in fitted],
            },
            numbers,
            latents,
            tuple(
                (item.name, remark)
                for item, one in zip(items, fitted, strict=True)
                for remark in one.remarks
            ),
        )

    def latents_of(self, fitted: Sequence[Fitted]) -> dict[str, Floats]:
        """Encode what decoded of a batch; (N, D) float32 each, NaN for what did not.

        BackendError where the encoder fails.
        """
        names = ("mu", "log_var") if self.spec.has_log_var else ("mu",)
        size = self.spec.latent_size
        latents = {name: np.full((len(fitted), size), np.nan, np.float32) for name in names}
        rows = [(row, one.pixels) for row, one in enumerate(fitted) if one.pixels is not None]
        if not rows:
            return latents
        with self._engines.one() as backend:
            batch = np.empty((len(rows), *self.spec.input_shape), backend.input_dtype)
            for place, (_, pixels) in zip(batch, rows, strict=True):
                write_input(pixels, place)
            results = backend.run(batch)
        for name, into in latents.items():
            into[[row for row, _ in rows]] = results[name]
        return latents

    @staticmethod
    def _check_finite(
        items: Sequence[Item], fitted: Sequence[Fitted], latents: Mapping[str, Floats]
    ) -> None:
        decoded = np.array([one.pixels is not None for one in fitted], bool)
        for values in latents.values():
            broken = decoded & ~np.isfinite(values).all(axis=1)
            if broken.any():
                raise BackendError(
                    f"the latent of {items[int(np.argmax(broken))].name} is not finite: export the "
                    "bundle again and read its verification"
                )

    def _judge(
        self,
        fitted: Sequence[Fitted],
        latents: dict[str, Floats],
        numbers: dict[str, npt.NDArray[Any]],
    ) -> None:
        """Write out-of-distribution scores, where there is a detector."""
        detector = self._detector
        if detector is None:
            return
        for row, one in enumerate(fitted):
            if one.pixels is None:
                continue
            appearance = detector.appearance(one.pixels)
            score = detector.scored(latents["mu"][row], None, appearance)
            numbers["ood_score"][row], numbers["is_ood"][row] = score.ood_score, score.is_ood

    def close(self) -> None:
        """Release the engines."""
        self._closing.close()
