"""What a run did, counted row by row, and the summary that its last row and the screen give."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..core.frame import NS_PER_MS
from ..core.row import Row

_FIRST_NS = 100
_WIDTH = math.log(1.005)
_CELLS = 5100


@dataclass(slots=True)
class FrameCounts:
    """What became of frames, of one camera or of all."""

    frames: int = 0  # became latents
    stale: int = 0  # came too late to become one
    lost: int = 0  # rows of status `lost`: frames known to be missing, and losses of the camera
    dropped: int = 0  # overtaken by a newer one
    unread: int = 0  # had come, and nobody took them before the end
    duplicates: int = 0  # of `frames`, those with the picture of the frame before
    ood: int = 0  # of `frames`, those that are out of distribution
    # between two latents with a loss in between, or None without one
    longest_gap_ms: float | None = None

    def add(self, row: Row) -> None:
        """Count a row."""
        self.dropped += row.dropped
        if row.status == "ok":
            self.frames += 1
            self.duplicates += bool(row.duplicate)
            self.ood += bool(row.is_ood)
            if row.gap_ms is not None:
                self.longest_gap_ms = max(row.gap_ms, self.longest_gap_ms or 0.0)
        elif row.status == "stale":
            self.stale += 1
        else:
            self.lost += 1


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of `count` durations in milliseconds, and the largest."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


@dataclass(slots=True, kw_only=True)
class StreamSummary(FrameCounts):
    """What a run did; the counts are over all cameras."""

    rows: int  # all rows before the last one
    seconds: float  # from the first frame's grab to the last latent
    fps: float | None  # latents per second over that time, or None for fewer than two
    # milliseconds per stage; `age`, from the grab to the latent being ready; and `unexplained`,
    # what the stages leave of the age
    stages: dict[str, Percentiles]
    failure: str | None  # why cameras ended that should not have, if any did
    cameras: dict[str, FrameCounts]  # the counts of each


class StreamStats:
    """Counts the rows of cameras by their names; its size does not grow."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self.total = FrameCounts()  # over all cameras
        self.age_ms: float | None = None  # of the newest latent
        self._cameras = {name: FrameCounts() for name in cameras}
        self._times = StageTimes()
        self._rows = self._first_ns = self._last_ns = 0

    @property
    def handled(self) -> int:
        """Frames so far that became a latent or were too old for one."""
        return self.total.frames + self.total.stale

    def add(self, row: Row) -> None:
        """Count a row."""
        self._rows += 1
        self.age_ms = row.age_ms if row.status == "ok" else self.age_ms
        self.total.add(row)
        self._cameras[row.camera or ""].add(row)

    def add_unread(self, camera: str | None, frames: int) -> None:
        """Count frames that had come and that the end left untaken."""
        self.total.unread += frames
        self._cameras[camera or ""].unread += frames

    def add_times(self, stages_ns: Mapping[str, int], *, age_ns: int, ready_ns: int) -> None:
        """Count what the stages of a latent took, and what they leave of its age."""
        unexplained_ns = abs(age_ns - sum(stages_ns.values()))
        self._times.add({**stages_ns, "unexplained": unexplained_ns, "age": age_ns})
        self._first_ns = self._first_ns or ready_ns - age_ns
        self._last_ns = ready_ns

    def summary(self, failures: Sequence[str]) -> StreamSummary:
        """Return what has been counted, and why cameras ended that should not have."""
        frames, seconds = self.total.frames, (self._last_ns - self._first_ns) / 1e9
        return StreamSummary(
            **asdict(self.total),
            rows=self._rows,
            seconds=seconds,
            fps=frames / seconds if frames > 1 else None,
            stages=self._times.percentiles(),
            failure="; ".join(failures) or None,
            cameras=self._cameras,
        )


class StageTimes:
    """Durations per stage, in the order in which stages were first seen; its size never grows.

    Each is counted in one of 5,100 cells whose width is half a percent of what it holds, so
    that percentiles of a run of any length are right to a quarter of a percent, from 100 ns (all
    up to there are in the first cell, and count as zero) to two hours. The maximum is exact.
    """

    def __init__(self) -> None:
        self._cells: dict[str, array[int]] = {}
        self._max_ns: dict[str, int] = {}

    def add(self, stages_ns: Mapping[str, int]) -> None:
        """Add one sample to each stage named."""
        for stage, duration_ns in stages_ns.items():
            if stage not in self._cells:
                self._cells[stage] = array("q", bytes(8 * _CELLS))
            cell = 0
            if duration_ns > _FIRST_NS:
                cell = min(_CELLS - 1, 1 + int(math.log(duration_ns / _FIRST_NS) / _WIDTH))
            self._cells[stage][cell] += 1
            self._max_ns[stage] = max(self._max_ns.get(stage, 0), duration_ns)

    def percentiles(self) -> dict[str, Percentiles]:
        """Return the percentiles of every stage: middles of cells on a logarithmic axis."""
        found: dict[str, Percentiles] = {}
        for stage, cells in self._cells.items():
            reached = np.cumsum(np.frombuffer(cells, np.int64))
            count, largest = int(reached[-1]), self._max_ns[stage] / NS_PER_MS
            ranks = [math.ceil(share * count) for share in (0.50, 0.95, 0.99)]
            at = np.searchsorted(reached, ranks)
            middles = (at > 0) * _FIRST_NS * np.exp((at - 0.5) * _WIDTH) / NS_PER_MS
            p50, p95, p99 = np.minimum(middles, largest).tolist()
            found[stage] = Percentiles(count, p50, p95, p99, largest)
        return found
