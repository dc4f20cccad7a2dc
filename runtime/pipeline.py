"""One frame after another: source -> input -> encoder -> latent row, with its age and drops."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from .backend import Backend
from .errors import BackendError, MotorVAEError
from .frames import Frame, Gap, input_from_image
from .source import FrameSource
from .spec import ModelSpec
from .timing import NS_PER_MS, Percentiles, StageTimes

WARM_UP_RUNS = 3


class RowSink(Protocol):
    """Anything that takes latent rows."""

    def write(self, row: Mapping[str, object]) -> None:
        """Take one row."""
        ...


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """What a run did.

    Attributes:
        frames: Frames that became latents.
        lost: Frames that the source could not deliver.
        dropped: Frames that were overtaken by a newer one.
        seconds: From the first frame's grab to the last latent.
        fps: Latents per second over that time, or None for fewer than two.
        stages: Milliseconds per stage, and `age`: from the grab to the latent being ready.
        failure: Why the source ended early, if it did.
    """

    frames: int
    lost: int
    dropped: int
    seconds: float
    fps: float | None
    stages: dict[str, Percentiles]
    failure: str | None


class LatentStream:
    """Encodes one frame at a time into buffers that are allocated once.

    The encoder is warmed up here, so make one before the source is opened: frames of a camera
    that nobody takes yet would count as dropped.

    Args:
        backend: An opened encoder.
        spec: The model's sizes and frame fit.
    """

    def __init__(self, backend: Backend, spec: ModelSpec) -> None:
        side = spec.image_size
        self._backend, self._spec = backend, spec
        self._batch = np.zeros((1, 1, side, side), np.float32)
        self._input = self._batch[0, 0]
        self._times = StageTimes()
        self._frames = self._lost = self._dropped = 0
        self._next_index = 0
        self._first_ns = self._last_ns = 0
        for _ in range(WARM_UP_RUNS):
            backend.run(self._batch)

    def run(
        self,
        source: FrameSource,
        sink: RowSink,
        *,
        max_frames: int | None = None,
        stop: threading.Event | None = None,
    ) -> StreamSummary:
        """Stream until the source ends, `max_frames` latents are out, or `stop` is set.

        A failure of the source becomes a `lost` row and is reported in the summary; a failure
        of the encoder or the sink is raised. The last row written has status `end`.

        Raises:
            BackendError: The encoder failed, or a latent is not finite.
            OutputError: The sink failed.
        """
        failure: str | None = None
        while not (stop and stop.is_set()) and self._frames != max_frames:
            try:
                item = source.read()
            except MotorVAEError as error:
                failure = str(error)
                self._write_lost(Gap(self._next_index, failure, time.time_ns()), sink)
                break
            if item is None or (stop and stop.is_set()):
                break
            if isinstance(item, Gap):
                self._write_lost(item, sink)
            else:
                self._encode(item, sink)
        return self._finish(failure, sink)

    def _encode(self, frame: Frame, sink: RowSink) -> None:
        started_ns = time.monotonic_ns()
        input_from_image(frame.image, self._spec, self._input)
        prepared_ns = time.monotonic_ns()
        mu = self._backend.run(self._batch)["mu"][0]
        ready_ns = time.monotonic_ns()
        if not np.isfinite(mu).all():
            raise BackendError(
                f"the latent of frame {frame.index} is not finite: "
                "export the bundle again and read its verification"
            )
        age_ns = ready_ns - frame.grabbed_ns
        stages = {
            "capture": frame.capture_ns,
            "wait": started_ns - frame.grabbed_ns - frame.capture_ns,
            "preprocess": prepared_ns - started_ns,
            "encode": ready_ns - prepared_ns,
        }
        dropped = self._advance_to(frame.index)
        row: dict[str, Any] = {
            "index": frame.index,
            "captured_ns": frame.captured_ns,
            "age_ms": _ms(age_ns),
            "dropped": dropped,
            "status": "ok",
            "mu": mu,
        }
        row.update((f"{stage}_ms", _ms(duration)) for stage, duration in stages.items())
        if frame.media_s is not None:
            row["media_s"] = frame.media_s
        if frame.name:
            row["name"] = frame.name
        sink.write(row)
        emitted_ns = time.monotonic_ns()
        self._times.add({**stages, "age": age_ns, "emit": emitted_ns - ready_ns})
        self._first_ns = self._first_ns or frame.grabbed_ns
        self._last_ns = ready_ns
        self._frames += 1

    def _write_lost(self, gap: Gap, sink: RowSink) -> None:
        dropped = self._advance_to(gap.index)
        self._lost += 1
        row: dict[str, Any] = {
            "index": gap.index,
            "captured_ns": gap.captured_ns,
            "age_ms": None,
            "dropped": dropped,
            "status": "lost",
            "mu": None,
            "reason": gap.reason,
        }
        if gap.name:
            row["name"] = gap.name
        sink.write(row)

    def _advance_to(self, index: int) -> int:
        """Return how many frames were passed over since the last row."""
        dropped = max(0, index - self._next_index)
        self._dropped += dropped
        self._next_index = index + 1
        return dropped

    def _finish(self, failure: str | None, sink: RowSink) -> StreamSummary:
        seconds = (self._last_ns - self._first_ns) / 1e9
        summary = StreamSummary(
            frames=self._frames,
            lost=self._lost,
            dropped=self._dropped,
            seconds=seconds,
            fps=self._frames / seconds if self._frames > 1 else None,
            stages=self._times.percentiles(),
            failure=failure,
        )
        sink.write(
            {
                "index": self._next_index,
                "captured_ns": time.time_ns(),
                "age_ms": None,
                "dropped": 0,
                "status": "end",
                "mu": None,
                "summary": asdict(summary),
            }
        )
        return summary


def _ms(duration_ns: int) -> float:
    return round(duration_ns / NS_PER_MS, 3)
