"""SyntheticSource: a camera made of procedural vehicles, with faults on demand."""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np
import numpy.typing as npt

from ...core.errors import CameraError
from ...core.frame import DEFAULT_FPS, Frame, Gap, Mode
from ..base import CaptureRequest, FrameSource
from ..spec import Ranges, SourceSpec
from .vehicles import MovingVehicles


class SyntheticSource(FrameSource):
    """Procedural vehicles driving by, delivered by the clock like a camera's frames.

    Ticks that pass unread are skipped, as a camera skips them, and faults that fall on them as
    well; only a loss is noticed late. At `fps=max` there is no clock: frames come when they are
    read, as from a recording.
    """

    def __init__(self, spec: SourceSpec, request: CaptureRequest) -> None:
        super().__init__(spec)
        plan = spec.plan
        delivers = Mode(width=plan.size, height=plan.size, fps=plan.fps)
        request.check(self.name, delivers, advice="change fps or size after the ?")
        self._plan, self.fps, self.expected = plan, plan.fps, plan.frames
        self._period_s = 1 / (plan.fps or DEFAULT_FPS)
        self._vehicles = MovingVehicles(plan.seed, plan.size, request.color)
        self._drawn: dict[int, npt.NDArray[np.uint8]] = {}
        self._missing = plan.drop + plan.stall
        self._losses = deque(plan.lose)
        self._gone_until: int | None = None
        self._start_s: float | None = None
        self._next = self._delivered = 0
        self._stop = threading.Event()

    def read(self) -> Frame | Gap | None:
        """Wait for the next tick that is not dropped; CameraError where the camera is lost."""
        plan = self._plan
        while True:
            tick = max(self._next, self._tick_now()) if self.live else self._next
            if self._losses and tick >= self._losses[0][0]:
                if not self._wait_until(self._losses[0][0]):
                    return None
                self._gone_until = self._losses.popleft()[1]
            if self._gone_until is not None:
                raise self._gone(f"lost {self.name} after {self._delivered} frames")
            if plan.frames is not None and tick >= plan.frames:
                self.can_reconnect = False
                return None
            missing = _range_of(tick, self._missing)
            if missing is None:
                break
            self._next = missing[1] + 1
        if not self._wait_until(tick):
            return None
        captured_ns, grabbed_ns = time.time_ns(), time.monotonic_ns()
        self._next = tick + 1
        self._delivered += 1
        if _range_of(tick, plan.damage):
            return Gap(tick, "frame is damaged on request", captured_ns)
        return Frame(
            image=self._image(tick),
            index=tick,
            captured_ns=captured_ns,
            grabbed_ns=grabbed_ns,
            capture_ns=time.monotonic_ns() - grabbed_ns,
            media_s=tick * self._period_s,
        )

    def close(self) -> None:
        """Let a waiting `read` return None; nothing is held open."""
        self._stop.set()

    interrupt = close

    def reopen(self) -> None:
        """Go on, once the frames that it was to be gone for have passed, or raise CameraError."""
        if self._gone_until is not None:
            if self._tick_now() <= self._gone_until:
                raise self._gone(f"cannot open {self.name}")
            self._next = max(self._next, self._gone_until + 1)
            self._gone_until = None
        self._stop.clear()

    def _gone(self, what: str) -> CameraError:
        return CameraError(f"it is gone until frame {self._gone_until} on request", context=what)

    def _tick_now(self) -> int:
        now_s = time.monotonic()
        if self._start_s is None:
            self._start_s = now_s
        return int((now_s - self._start_s) / self._period_s)

    def _wait_until(self, tick: int) -> bool:
        """Wait until a tick is due; False where the wait was ended."""
        if not self.live:
            return not self._stop.is_set()
        due_s = (self._start_s or 0.0) + tick * self._period_s
        return not self._stop.wait(min(threading.TIMEOUT_MAX, max(0.0, due_s - time.monotonic())))

    def _image(self, tick: int) -> npt.NDArray[np.uint8]:
        """Draw what is seen at a tick, or take it where it was drawn before."""
        if frozen := _range_of(tick, self._plan.freeze):
            tick = max(0, frozen[0] - 1)
        if self._plan.loop is None:
            return self._vehicles.image(tick * self._period_s)
        tick %= self._plan.loop
        if tick not in self._drawn:
            self._drawn[tick] = self._vehicles.image(tick * self._period_s)
            self._drawn[tick].flags.writeable = False  # handed out again and again
        return self._drawn[tick]


def _range_of(tick: int, ranges: Ranges) -> tuple[int, int] | None:
    return next((pair for pair in ranges if pair[0] <= tick <= pair[1]), None)
