"""Mailboxes: rows on their way from capture threads to the encoder, and when silence is a loss."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.frame import Frame, Gap
from ..core.row import Row, Status
from ..core.text import printable
from ..sources.base import silence_of
from ..sources.pauses import HEARTBEAT
from ..sources.wall_clock import WallClock

NS_PER_S = 1_000_000_000
MOST_LOSSES = 64
"""So many damaged frames of a recording may wait."""
MOST_LIVE_LOSSES = 1024
"""So many of a live source: what comes beyond pushes the oldest out, as with frames."""
LONGEST_JOIN_S = 10.0
"""So long a stream that was joined half way may come without a key frame, or for the time-out if
that is longer, before it is worth opening it again; after the time-out it is lost all the same."""
LONGEST_WAIT_S = 0.2
"""A signal handler that runs just before the wait begins wakes nobody."""


@dataclass(slots=True)
class QueuedFrame:
    """A delivered frame, ready for the encoder."""

    row: Row  # what is known before the latent is
    pixels: npt.NDArray[np.uint8]  # what is encoded, of the spec's `picture_shape`
    grabbed_ns: int  # as in `Frame`, and so is `capture_ns`
    capture_ns: int
    convert_ns: int  # how long fitting and hash took
    queued_ns: int  # when it was put into the mailbox, on the monotonic clock


@dataclass(slots=True)
class LostFrame:
    """A frame that is not there, or the loss of a camera, with its row."""

    row: Row
    # when the last frame before it was grabbed, on the monotonic clock, if any was
    last_grab_ns: int | None


class Mailbox:
    """One camera's frames on their way to the encoder; it alone knows whether the camera is lost.

    The capture thread calls `listen`, `wait_for_room`, `deliver`, `skip`, `lose`, `end` and
    `stop`; all else belongs to `Mailboxes`, which holds the lock.

    Up to `keep` frames may wait. Where the mailbox `waits` (a recording), a full one makes the
    capture wait; else (a live source) the oldest frame is pushed out. Without a whole frame for
    `timeout_s` the camera is lost, and lost for `give_up_s` it is given up; the reason says whether
    nothing came, or only what is damaged.
    """

    def __init__(
        self,
        changed: threading.Condition,
        name: str,
        *,
        keep: int,
        waits: bool,
        timeout_s: float = math.inf,
        give_up_s: float = math.inf,
    ) -> None:
        self.name = name
        self.items: deque[QueuedFrame | LostFrame] = deque()  # what waits, oldest first
        self.ended = False  # nothing will come any more
        self.failure: str | None = None  # why it ended that should not have, with its name
        self._changed, self._keep, self._waits = changed, keep, waits
        self._timeout_s, self._give_up_s = timeout_s, give_up_s
        self._stopped = False
        self.frames = 0  # how many of the items are frames
        self._next_index = self._offset = 0
        self._reason = ""
        self._wall = WallClock()  # losses are noticed here and by the source
        self._listened_ns = time.monotonic_ns()
        self._damage: str | None = None  # of the last frame since then, if one came
        self._lost_ns: int | None = None
        self._last_grab_ns: int | None = None

    def listen(self) -> None:
        """Count silence from now on: the source is open, or open again."""
        with self._changed:
            self._listened_ns, self._damage = time.monotonic_ns(), None

    def wait_for_room(self) -> None:
        """Before reading a recording on: wait until what comes would not wait behind much."""
        if self._waits:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._stopped
                        or (self.frames < self._keep and len(self.items) < self._keep + MOST_LOSSES)
                    )
                )

    def deliver(
        self, frame: Frame, pixels: npt.NDArray[np.uint8], *, convert_ns: int, duplicate: bool
    ) -> None:
        """Put a converted frame in; after a loss it is the one that ends it."""
        with self._changed:
            if self._stopped or self.ended:
                return
            row = self._row(frame.index + self._offset, "ok", frame.captured_ns, frame.name)
            row.clock, row.duplicate, row.media_s = frame.clock, duplicate, frame.media_s
            grabbed_ns, now_ns = frame.grabbed_ns, time.monotonic_ns()
            item = QueuedFrame(row, pixels, grabbed_ns, frame.capture_ns, convert_ns, now_ns)
            self.items.append(item)
            if self.frames < self._keep:
                self.frames += 1
            else:
                self._push_out(QueuedFrame)
            self._last_grab_ns, self._listened_ns, self._lost_ns = grabbed_ns, now_ns, None
            self._damage = None
            self._changed.notify_all()

    def skip(self, gap: Gap) -> str | None:
        """Note a damaged frame, with a row if it counts; return why it is a loss, if it is.

        It is one where no whole frame came for the time-out.
        """
        with self._changed:
            self._damage = gap.reason
            if gap.counts and not self.ended:
                self._put_loss(gap.index + self._offset, gap.reason, gap.captured_ns, gap.name)
                if len(self.items) - self.frames > MOST_LIVE_LOSSES and not self._waits:
                    self._push_out(LostFrame)
            since_s = self._since_ns(self._listened_ns, time.monotonic_ns()) / NS_PER_S
            limit_s = self._timeout_s if gap.counts else max(self._timeout_s, LONGEST_JOIN_S)
            return self._trouble() if since_s > limit_s else None

    def lose(self, reason: str, *, index: int | None = None) -> None:
        """Note that no frame comes any more, from the frame `index` on if one was seen.

        There is one row of it until a frame comes again.
        """
        with self._changed:
            self._reason = reason
            if self._lost_ns is None and not self.ended:
                self._put_loss(None if index is None else index + self._offset, reason)
                self._lost_ns = time.monotonic_ns()

    def end(self, failure: str | None = None) -> None:
        """Note that nothing will come any more, and why if that is a loss for good."""
        with self._changed:
            if failure is not None:
                self.lose(failure)
            if not self.ended:
                self.ended = True
                self.failure = failure and f"{self.name}: {failure}"
            self._changed.notify_all()

    def stop(self) -> None:
        """Take nothing in any more, and let a capture go that waits for room."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @property
    def is_awaited(self) -> bool:
        """Whether a frame may come any moment."""
        return not self.ended and self._lost_ns is None

    def pop(self) -> list[QueuedFrame | LostFrame]:
        """Take what comes next: one frame at most, and all losses before it."""
        taken: list[QueuedFrame | LostFrame] = []
        while self.items:
            taken.append(self.items.popleft())
            if isinstance(taken[-1], QueuedFrame):
                self.frames -= 1
                break
        return taken

    def close(self) -> int:
        """Take nothing in any more; return how many frames had come that nobody took."""
        self.stop()
        frames = sum(item.row.dropped + isinstance(item, QueuedFrame) for item in self.items)
        self.items.clear()
        self.frames = 0
        return frames

    def check_deadline(self, now_ns: int) -> float:
        """Declare silence a loss, and a long loss the end; return when either is next due."""
        while not self.ended:
            if self._lost_ns is None:
                since_ns, limit_s = self._since_ns(self._listened_ns, now_ns), self._timeout_s
            else:
                since_ns, limit_s = self._since_ns(self._lost_ns, now_ns), self._give_up_s
            if since_ns < limit_s * NS_PER_S:
                return now_ns + limit_s * NS_PER_S - since_ns
            if self._lost_ns is None:
                self.lose(self._trouble())
            else:
                given_up = f"given up after {self._give_up_s:g} s: {self._reason}"
                self._put_loss(None, given_up)
                self.end(given_up)
        return math.inf

    @staticmethod
    def _since_ns(start_ns: int, now_ns: int) -> int:
        """Return how long something lasts, without the time in which nobody could have looked."""
        return now_ns - start_ns - HEARTBEAT.stood_ns(start_ns, now_ns)

    def _trouble(self) -> str:
        """Tell silence and damage apart."""
        if self._damage is None:
            return silence_of(self._timeout_s)
        return f"no whole frame came for {self._timeout_s:g} s: {self._damage}"

    def _push_out(self, kind: type[QueuedFrame | LostFrame]) -> None:
        """Take the oldest of a kind out; the item behind it accounts for it."""
        oldest = next(n for n, one in enumerate(self.items) if isinstance(one, kind))
        self.items[oldest + 1].row.dropped += self.items[oldest].row.dropped + 1
        del self.items[oldest]

    def _put_loss(
        self, index: int | None, reason: str, captured_ns: int | None = None, name: str = ""
    ) -> None:
        if index is None:  # a loss at no known frame takes an index too: no two rows share one
            index, self._offset = self._next_index, self._offset + 1
        captured_ns = self._wall.ordered(captured_ns or time.time_ns())
        row = self._row(index, "lost", captured_ns, name)
        row.reason = printable(reason)
        self.items.append(LostFrame(row, self._last_grab_ns))
        self._changed.notify_all()

    def _row(self, index: int, status: Status, captured_ns: int, name: str) -> Row:
        """Begin the next row, which counts the frames before it that never came here."""
        dropped = max(0, index - self._next_index) if self._lost_ns is None else 0
        self._next_index = index + 1
        return Row(index, captured_ns, None, dropped, status, camera=self.name, name=name or None)


class Mailboxes:
    """The mailboxes of a run, and the one place where the encoder waits for frames.

    Frames that are there wait up to `batch_wait_s` for those of the other cameras.
    """

    def __init__(self, *, batch_wait_s: float = 0.002) -> None:
        self.boxes: list[Mailbox] = []  # one for each camera, in order
        self.stopped = False  # `take` returns nothing any more
        self.interrupted = False  # because `stop` was called
        self._changed = threading.Condition()
        self._batch_wait_s = batch_wait_s

    def add(self, name: str, *, keep: int, waits: bool, **timeouts: float) -> Mailbox:
        """Make the mailbox of one more camera; see `Mailbox`."""
        box = Mailbox(self._changed, name, keep=keep, waits=waits, **timeouts)
        self.boxes.append(box)
        return box

    def take(self) -> list[QueuedFrame | LostFrame]:
        """Wait until something is there; return one frame of each camera, and losses before it.

        Frames wait a little for those of cameras that are delivering, so that one run of the
        encoder serves several; cameras that are lost or ended are not waited for. Nothing is
        returned once stopped, or once every camera has ended.
        """
        with self._changed:
            while not self.stopped:
                now_ns = time.monotonic_ns()
                deadline_ns = min(box.check_deadline(now_ns) for box in self.boxes)
                if any(box.items for box in self.boxes):
                    break
                if all(box.ended for box in self.boxes):
                    return []
                left_s = (deadline_ns - now_ns) / NS_PER_S
                self._changed.wait(min(LONGEST_WAIT_S, max(0.0, left_s)))
            if len(self.boxes) > 1 and any(box.frames for box in self.boxes):
                self._changed.wait_for(
                    lambda: self.stopped or all(box.frames for box in self.boxes if box.is_awaited),
                    timeout=self._batch_wait_s,
                )
            if self.stopped:
                return []
            taken = [item for box in self.boxes for item in box.pop()]
            self._changed.notify_all()
            return taken

    def stop(self) -> None:
        """Let `take` return empty from now on; safe in a signal handler."""
        with self._changed:
            self.stopped = self.interrupted = True
            self._changed.notify_all()

    def close(self) -> dict[str, int]:
        """Take nothing in any more; return how many frames of each camera nobody took."""
        with self._changed:
            self.stopped = True
            return {box.name: box.close() for box in self.boxes}
