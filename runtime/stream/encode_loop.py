"""From the mailboxes through the encoder to rows: batches across cameras, ages, reconstruction."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from ..core.errors import BackendError
from ..core.frame import NS_PER_MS
from ..core.row import Row
from ..core.spec import ModelSpec
from ..engines.base import Backend
from ..ood.detector import OODDetector, OODScores
from ..pixels.convert import input_from_pixels, write_input
from .cores import Cores
from .mailbox import LostFrame, Mailboxes, QueuedFrame
from .stats import StreamStats

WARM_UP_RUNS = 3
_SCORES = tuple(field.name for field in fields(OODScores))
"""Columns of a row of the same name."""


class Reconstruction:
    """Decodes every Nth latent of each camera by an opened decoder, and completes its row.

    With a detector the row also gives the share of known images that are reconstructed better; with
    `pictures` it carries the reconstruction, for a live view.
    """

    def __init__(
        self,
        decoder: Backend,
        every: int,
        latent_size: int,
        ood: OODDetector | None,
        *,
        pictures: bool,
    ) -> None:
        self._decoder, self._every, self._ood = decoder, every, ood
        self._pictures = pictures
        self._latents: Counter[str | None] = Counter()
        for _ in range(WARM_UP_RUNS):
            decoder.run(np.zeros((1, latent_size), np.float32))

    def complete(self, row: Row, pixels: npt.NDArray[np.uint8]) -> None:
        """Decode the row's mu, if it is its turn, and put error and time into the row.

        The latent was ready before, so this is no part of the row's age; the row itself, and
        the frames behind it, wait. An image that is not finite is a BackendError.
        """
        if row.mu is None:
            return
        self._latents[row.camera] += 1
        if (self._latents[row.camera] - 1) % self._every:
            return
        started_ns = time.monotonic_ns()
        image = self._decoder.run(np.ascontiguousarray(row.mu[None]))["reconstruction"]
        away = input_from_pixels(pixels[None]) - image
        error = float(np.vdot(away, away)) / away.size
        if not math.isfinite(error):  # one NaN or infinite pixel is enough
            raise BackendError(
                f"the reconstruction of frame {row.index} of {row.camera} is not finite: "
                "export the bundle again and read its verification, or stream without --reconstruct"
            )
        row.reconstruction_error = error
        if self._ood is not None:
            row.reconstruction_percentile = self._ood.percentile("reconstruction_error", error)
        row.decode_ms = _ms(time.monotonic_ns() - started_ns)
        if self._pictures:
            row.reconstruction = image.reshape(pixels.shape)


class LatentStream:
    """Encodes what is ready, one frame of each camera at most, into buffers allocated once.

    The encoder is warmed up here, so make one before frames are awaited. What is older than
    `max_age_ms` gets no latent; with `pictures` rows carry what was encoded, for a live view.
    """

    def __init__(
        self,
        backend: Backend,
        spec: ModelSpec,
        cameras: int = 1,
        *,
        ood: OODDetector | None = None,
        reconstruction: Reconstruction | None = None,
        max_age_ms: float | None = None,
        pictures: bool = False,
        cores: Cores | None = None,
    ) -> None:
        self._cores = cores or Cores()
        self._backend, self._ood, self._reconstruction = backend, ood, reconstruction
        self._max_age_ns = math.inf if max_age_ms is None else max_age_ms * NS_PER_MS
        self._pictures = pictures
        self._batch = np.zeros((cameras, *spec.input_shape), backend.input_dtype)
        self._gaps_from_ns: dict[str | None, int] = {}
        self.stats = StreamStats(())  # what the rows so far add up to
        for count in range(1, cameras + 1):
            for _ in range(WARM_UP_RUNS):
                backend.run(self._batch[:count])

    def rows(
        self, mailboxes: Mailboxes, *, max_frames: int | None = None
    ) -> Generator[Row, None, None]:
        """Stream until every camera has ended, `max_frames` were handled, or it is stopped.

        The rows of a camera come in the order of its frames, each counted in `stats`. The last row,
        of status `end`, is not among them, since what the sinks did belongs into it. Mailboxes are
        closed at the end, and when the iterator is.

        Raises:
            BackendError: The encoder failed, or a latent is not finite.
        """
        self.stats = StreamStats([box.name for box in mailboxes.boxes])
        self._gaps_from_ns.clear()
        limit = math.inf if max_frames is None else max_frames
        # Its thread starts with the first task: where nothing is judged, there is none.
        with ThreadPoolExecutor(1, "appearance", self._cores.begin_beside) as self._beside:
            try:
                while self.stats.handled < limit:
                    self._cores.bind()
                    if not (items := mailboxes.take()):
                        break
                    for row in self._rows_of(items, limit):
                        self.stats.add(row)
                        self._cores.release()  # it is the caller's thread again
                        yield row
            finally:
                self._cores.release()
                for camera, frames in mailboxes.close().items():
                    self.stats.add_unread(camera, frames)

    def _rows_of(self, items: Sequence[QueuedFrame | LostFrame], limit: float) -> Iterator[Row]:
        popped_ns = time.monotonic_ns()
        queued: list[QueuedFrame] = []
        for item in items:
            row = item.row
            if isinstance(item, LostFrame):
                if item.last_grab_ns is not None:  # the gap lasts until there is a latent again
                    self._gaps_from_ns.setdefault(row.camera, item.last_grab_ns)
                yield row
            elif self.stats.handled + len(queued) >= limit:
                self.stats.add_unread(row.camera, 1 + row.dropped)
            elif self._is_in_time(item, popped_ns):
                queued.append(item)
            else:
                yield row
        if queued:
            yield from self._encoded(queued, popped_ns)

    def _encoded(self, queued: Sequence[QueuedFrame], popped_ns: int) -> Iterator[Row]:
        started_ns = time.monotonic_ns()
        appearances: Future[list[float]] | None = None
        if (ood := self._ood) is not None:  # on another core: it needs only the images
            appearances = self._beside.submit(
                lambda: [ood.appearance(one.pixels) for one in queued]
            )
        batch = self._batch[: len(queued)]
        for item, place in zip(queued, batch, strict=True):
            write_input(item.pixels, place)
        results = self._backend.run(batch)
        encoded_ns = time.monotonic_ns()
        for position, item in enumerate(queued):
            row, mu = item.row, results["mu"][position]
            log_var = results["log_var"][position] if "log_var" in results else None
            if not (np.isfinite(mu).all() and (log_var is None or np.isfinite(log_var).all())):
                raise BackendError(
                    f"the latent of frame {row.index} of {row.camera} is not finite: "
                    "export the bundle again and read its verification"
                )
            scores = None
            if ood is not None and appearances is not None:
                scores = ood.scored(mu, log_var, appearances.result()[position])
            ready_ns = time.monotonic_ns()
            if not self._is_in_time(item, ready_ns):
                continue
            stages_ns = {
                "capture": item.capture_ns,
                "convert": item.convert_ns,
                "wait": popped_ns - item.queued_ns,
                "encode": encoded_ns - started_ns,
                "emit": ready_ns - encoded_ns,
            }
            age_ns = ready_ns - item.grabbed_ns
            row.mu, row.age_ms = mu, _ms(age_ns)
            for name in _SCORES if scores is not None else ():
                setattr(row, name, getattr(scores, name))
            if (gap_from_ns := self._gaps_from_ns.pop(row.camera, None)) is not None:
                row.gap_ms = _ms(item.grabbed_ns - gap_from_ns)
            for stage, duration_ns in stages_ns.items():
                setattr(row, f"{stage}_ms", _ms(duration_ns))
            row.picture = item.pixels if self._pictures else None
            self.stats.add_times(stages_ns, age_ns=age_ns, ready_ns=ready_ns)
        for item in queued:  # all latents are ready: what follows makes none of them older
            if self._reconstruction is not None:
                self._reconstruction.complete(item.row, item.pixels)
            yield item.row

    def _is_in_time(self, item: QueuedFrame, now_ns: int) -> bool:
        """Return whether a frame may become a latent; else its row is stale and has none."""
        age_ns, row = now_ns - item.grabbed_ns, item.row
        if age_ns <= self._max_age_ns:
            return True
        row.age_ms, row.status = _ms(age_ns), "stale"
        row.reason = f"older than {self._max_age_ns / NS_PER_MS:g} ms"
        return False


def _ms(duration_ns: int) -> float:
    return round(duration_ns / NS_PER_MS, 3)
