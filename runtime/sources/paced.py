"""Paced: a recording played at its own rate, as a camera would deliver it."""

from __future__ import annotations

import time
from dataclasses import replace

from ..core.frame import Frame, Gap
from .base import FrameSource

DEFAULT_FPS = 30.0


class Paced(FrameSource):
    """A recording played at its own rate, as a camera would deliver it.

    Each frame is decoded when it is due, not before, and its age is counted from then on, as
    for a camera. A reader that is late does not make it younger.
    """

    live = True

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self.name, self.expected = source.name, source.expected
        self.fps = source.fps or DEFAULT_FPS
        self._period_s = 1 / self.fps
        self._start_s: float | None = None
        self._count = 0

    def read(self) -> Frame | Gap | None:
        """Wait until the next frame is due, then read it."""
        if self._start_s is None:
            self._start_s = time.monotonic()
        due_s = self._start_s + self._count * self._period_s
        time.sleep(max(0.0, due_s - time.monotonic()))
        self._count += 1
        due_ns = round(due_s * 1e9)
        captured_ns = time.time_ns() - max(0, time.monotonic_ns() - due_ns)
        item = self._source.read()
        if isinstance(item, Frame):
            # A decoder that reorders frames reads ahead; a camera could not have.
            capture_ns = time.monotonic_ns() - due_ns - item.convert_ns
            return replace(item, grabbed_ns=due_ns, captured_ns=captured_ns, capture_ns=capture_ns)
        return item

    def close(self) -> None:
        """Close the recording."""
        self._source.close()
