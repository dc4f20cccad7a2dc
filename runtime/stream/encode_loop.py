"""From the mailboxes through the encoder to rows: batches across cameras, ages, and the summary."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields

import numpy as np
import numpy.typing as npt

from ..core.errors import BackendError
from ..core.latency import NS_PER_MS
from ..core.row import Row, Status
from ..core.spec import ModelSpec
from ..engines.base import Arrays, Backend
from ..ood.detector import OODDetector, OODScores
from ..pixels.convert import write_input
from ..sinks.fanout import SinkReport
from .mailbox import LostFrame, Mailboxes, QueuedFrame
from .reconstruct import Reconstruction
from .stats import StreamStats, StreamSummary

WARM_UP_RUNS = 3
_SCORES = tuple(field.name for field in fields(OODScores))
"""Columns of a row of the same name."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What a row may say beyond its latent.

    Attributes:
        ood: Whether the model knows such an image; None leaves that out.
        reconstruction: The decoder, every so many latents; None leaves it out.
        max_age_ms: What is older gets no latent.
        pictures: Whether rows carry what was encoded, for a live view.
    """

    ood: OODDetector | None = None
    reconstruction: Reconstruction | None = None
    max_age_ms: float | None = None
    pictures: bool = False


class LatentStream:
    """Encodes what is ready, one frame of each camera at most, into buffers allocated once.

    The encoder is warmed up here, so make one before the cameras are opened: frames that nobody
    takes yet would count as dropped.

    Args:
        backend: An opened encoder.
        spec: The model's sizes.
        cameras: How many there are.
        extras: What else rows are to say.

    Attributes:
        stats: What the rows so far add up to.
    """

    def __init__(
        self, backend: Backend, spec: ModelSpec, cameras: int = 1, extras: Extras | None = None
    ) -> None:
        side = spec.image_size
        self._backend, self._extras = backend, extras or Extras()
        self._batch = np.zeros((cameras, 1, side, side), backend.input_dtype)
        self._gaps_from_ns: dict[str, int] = {}
        self.stats = StreamStats(())
        for count in range(1, cameras + 1):
            for _ in range(WARM_UP_RUNS):
                backend.run(self._batch[:count])

    def rows(self, mailboxes: Mailboxes, *, max_frames: int | None = None) -> Iterator[Row]:
        """Stream until every camera has ended, `max_frames` latents are out, or it is stopped.

        The rows of a camera come in the order of its frames. The last row, of status `end`, is
        not among them, since what the sinks did belongs into it. Mailboxes are closed at the end,
        and when the iterator is.

        Args:
            mailboxes: Filled by capture threads.
            max_frames: How many latents; no limit where left out.

        Yields:
            Each row; `stats` has counted it.

        Raises:
            BackendError: The encoder failed, or a latent is not finite.
        """
        self.stats = StreamStats([box.name for box in mailboxes.boxes])
        self._gaps_from_ns.clear()
        # Its thread starts with the first task: where nothing is judged, there is none.
        with ThreadPoolExecutor(1, "appearance") as self._beside:
            try:
                while max_frames is None or self.stats.frames < max_frames:
                    items = mailboxes.take()
                    if not items:
                        break
                    for row in self._rows_of(items, max_frames):
                        self.stats.add(row)
                        yield row
            finally:
                for camera, frames in mailboxes.close().items():
                    self.stats.add_unread(camera, frames)

    def _rows_of(
        self, items: list[tuple[str, QueuedFrame | LostFrame]], max_frames: int | None
    ) -> Iterator[Row]:
        popped_ns = time.monotonic_ns()
        queued: list[tuple[str, QueuedFrame]] = []
        for camera, item in items:
            if isinstance(item, LostFrame):
                if item.last_grab_ns is not None:  # the gap lasts until there is a latent again
                    self._gaps_from_ns.setdefault(camera, item.last_grab_ns)
                yield _lost_row(camera, item)
            elif self._is_too_old(item, popped_ns):
                yield self._stale_row(camera, item, popped_ns)
            elif max_frames is None or self.stats.frames + len(queued) < max_frames:
                queued.append((camera, item))
            else:
                self.stats.add_unread(camera, 1 + item.dropped)
        if queued:
            yield from self._encoded(queued, popped_ns)

    def _encoded(self, queued: list[tuple[str, QueuedFrame]], popped_ns: int) -> Iterator[Row]:
        started_ns = time.monotonic_ns()
        appearances = self._appearances(queued)
        batch = self._batch[: len(queued)]
        for (_, item), place in zip(queued, batch, strict=True):
            write_input(item.frame.image, place[0])
        results = self._backend.run(batch)
        encoded_ns = time.monotonic_ns()
        done: list[tuple[Row, QueuedFrame]] = []
        for position, (camera, item) in enumerate(queued):
            row = self._row(camera, item, "ok")
            ready_ns = self._complete(row, results, position, appearances)
            if self._is_too_old(item, ready_ns):
                done.append((self._stale_row(camera, item, ready_ns), item))
                continue
            stages_ns = {
                "capture": item.frame.capture_ns,
                "convert": item.convert_ns,
                "wait": popped_ns - item.queued_ns,
                "encode": encoded_ns - started_ns,
                "emit": ready_ns - encoded_ns,
            }
            age_ns = ready_ns - item.frame.grabbed_ns
            row.age_ms = _ms(age_ns)
            if (gap_from_ns := self._gaps_from_ns.pop(camera, None)) is not None:
                row.gap_ms = _ms(item.frame.grabbed_ns - gap_from_ns)
            for stage, duration_ns in stages_ns.items():
                setattr(row, f"{stage}_ms", _ms(duration_ns))
            self.stats.add_times(stages_ns, age_ns=age_ns, ready_ns=ready_ns)
            done.append((row, item))
        for row, item in done:  # all latents are ready: what follows makes none of them older
            if self._extras.reconstruction is not None:
                self._extras.reconstruction.complete(row, item.frame.image)
            yield row

    def _appearances(self, queued: list[tuple[str, QueuedFrame]]) -> Future[list[float]] | None:
        """Measure them on another core while the encoder runs: it needs only the images."""
        known = self._extras.ood
        if known is None:
            return None
        images = [item.frame.image for _, item in queued]
        return self._beside.submit(lambda: [known.appearance(image) for image in images])

    def _complete(
        self, row: Row, results: Arrays, position: int, appearances: Future[list[float]] | None
    ) -> int:
        """Put the latent and what is said of it into the row; return when it was ready."""
        mu: npt.NDArray[np.float32] = results["mu"][position]
        log_var = results["log_var"][position] if "log_var" in results else None
        if not (np.isfinite(mu).all() and (log_var is None or np.isfinite(log_var).all())):
            raise BackendError(
                f"the latent of frame {row.index} of {row.camera} is not finite: "
                "export the bundle again and read its verification"
            )
        row.mu = mu
        if self._extras.ood is not None and appearances is not None:
            appearance = appearances.result()[position]
            scored = self._extras.ood.scored(mu, log_var, appearance)
            for name in _SCORES:
                setattr(row, name, getattr(scored, name))
        return time.monotonic_ns()

    def _row(self, camera: str, item: QueuedFrame, status: Status) -> Row:
        frame = item.frame
        return Row(
            index=frame.index,
            captured_ns=frame.captured_ns,
            age_ms=None,
            dropped=item.dropped,
            status=status,
            camera=camera,
            clock=frame.clock,
            duplicate=item.duplicate,
            media_s=frame.media_s,
            name=frame.name or None,
            luma=frame.image if self._extras.pictures else None,
        )

    def _stale_row(self, camera: str, item: QueuedFrame, now_ns: int) -> Row:
        row = self._row(camera, item, "stale")
        row.age_ms = _ms(now_ns - item.frame.grabbed_ns)
        row.reason = f"older than {self._extras.max_age_ms:g} ms"
        return row

    def _is_too_old(self, item: QueuedFrame, now_ns: int) -> bool:
        limit_ms = self._extras.max_age_ms
        return limit_ms is not None and now_ns - item.frame.grabbed_ns > limit_ms * NS_PER_MS


def _lost_row(camera: str, loss: LostFrame) -> Row:
    gap = loss.gap
    return Row(
        index=gap.index,
        captured_ns=gap.captured_ns,
        age_ms=None,
        dropped=loss.dropped,
        status="lost",
        camera=camera,
        reason=gap.reason,
        name=gap.name or None,
    )


def end_row(summary: StreamSummary, reports: Sequence[SinkReport]) -> Row:
    """Return the last row of a run, which holds its summary and what the sinks did until then."""
    return Row(
        index=summary.rows,
        captured_ns=time.time_ns(),
        age_ms=None,
        dropped=0,
        status="end",
        summary={**asdict(summary), "sinks": [asdict(report) for report in reports]},
    )


def _ms(duration_ns: int) -> float:
    return round(duration_ns / NS_PER_MS, 3)
