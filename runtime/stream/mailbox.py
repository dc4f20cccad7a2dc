"""Mailbox: what one camera delivered and nobody took yet, and when silence becomes a loss."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, replace

from ..core.frame import Frame, Gap
from .messages import LostFrame, QueuedFrame

NS_PER_S = 1_000_000_000
MOST_LOSSES = 64
"""So many damaged frames of a recording may wait."""


@dataclass(frozen=True, slots=True)
class LivenessTimeouts:
    """When a source that can return is lost, and when it is lost for good.

    Attributes:
        timeout_s: Without a frame for so long it is lost.
        give_up_s: Lost for so long it is given up.
    """

    timeout_s: float = 5.0
    give_up_s: float = 60.0


class Mailbox:
    """One camera's frames on their way to the encoder.

    The capture thread calls `listen`, `wait_for_room`, `deliver`, `skip`, `lose` and `end`; all
    else belongs to `Mailboxes`.

    Args:
        changed: Held during each change; shared by all mailboxes of a run.
        name: The camera's.
        keep: How many frames may wait.
        waits: Whether a full mailbox makes the capture wait (a recording), or pushes the oldest
            frame out (a live source).
        limits: None for a recording, which cannot fall silent.
    """

    def __init__(
        self,
        changed: threading.Condition,
        name: str,
        *,
        keep: int,
        waits: bool,
        limits: LivenessTimeouts | None,
    ) -> None:
        self.name = name
        self.ended = self.closed = False
        self.failure: str | None = None
        self.error: Exception | None = None
        self.changed, self._limits = changed, limits
        self._keep, self._waits = keep, waits
        self._items: deque[QueuedFrame | LostFrame] = deque()
        self._waiting_frames = 0
        self._next_index = self._offset = 0
        self._reason = ""
        self._heard_ns = time.monotonic_ns()
        self._lost_ns: int | None = None
        self._gap_from_ns: int | None = None
        self._last_grab_ns: int | None = None

    @property
    def has_been_silent(self) -> bool:
        """Whether no whole frame has come for as long as makes a loss."""
        limits = self._limits
        silent_ns = time.monotonic_ns() - self._heard_ns
        return limits is not None and silent_ns > limits.timeout_s * NS_PER_S

    @property
    def is_awaited(self) -> bool:
        """Whether a frame may come any moment."""
        return not self.ended and self._lost_ns is None

    def listen(self) -> None:
        """Count silence from now on: the source is open, or open again."""
        with self.changed:
            self._heard_ns = time.monotonic_ns()

    def wait_for_room(self) -> None:
        """Before reading a recording on: wait until what comes would not wait behind much."""
        with self.changed:
            if self._waits:
                self.changed.wait_for(self._has_room)

    def deliver(self, frame: Frame, *, convert_ns: int, duplicate: bool) -> None:
        """Put a converted frame in; after a loss it is the one that ends it."""
        with self.changed:
            if self.closed or self.ended:
                return
            index = frame.index + self._offset
            queued_ns = time.monotonic_ns()
            self._items.append(
                QueuedFrame(
                    replace(frame, index=index) if self._offset else frame,
                    convert_ns=convert_ns,
                    queued_ns=queued_ns,
                    duplicate=duplicate,
                    dropped=self._jump_to(index),
                    gap_from_ns=self._gap_from_ns,
                )
            )
            self._waiting_frames += 1
            if self._waiting_frames > self._keep:
                self._push_out()
            self._next_index = index + 1
            self._heard_ns, self._last_grab_ns = queued_ns, frame.grabbed_ns
            self._lost_ns = self._gap_from_ns = None
            self.changed.notify_all()

    def skip(self, gap: Gap) -> None:
        """Note a frame that is known to be missing; the source goes on."""
        with self.changed:
            index = gap.index + self._offset
            dropped = self._jump_to(index)
            self._next_index = index + 1
            self._gap_from_ns = self._gap_from_ns or self._last_grab_ns
            self._put_loss(LostFrame(replace(gap, index=index), dropped))

    def lose(self, reason: str, *, index: int | None = None) -> None:
        """Note that no frame comes any more; said once until one comes again.

        Args:
            reason: Why, as a clause.
            index: Of the frame at which that was noticed, if there was one.
        """
        with self.changed:
            self._reason = reason
            if self._lost_ns is not None or self.ended:
                return
            self._put_lost_row(reason, index)
            self._lost_ns = time.monotonic_ns()
            self._gap_from_ns = self._gap_from_ns or self._last_grab_ns

    def end(self, failure: str | None = None, error: Exception | None = None) -> None:
        """Note that nothing will come any more, and why if that is a failure."""
        with self.changed:
            if not self.ended:
                self.ended, self.failure, self.error = True, failure, error
            self.changed.notify_all()

    def pop(self) -> list[QueuedFrame | LostFrame]:
        """Take what comes next: one frame at most, and all losses before it."""
        taken: list[QueuedFrame | LostFrame] = []
        while self._items and not (taken and isinstance(taken[-1], QueuedFrame)):
            taken.append(self._items.popleft())
        self._waiting_frames -= bool(taken and isinstance(taken[-1], QueuedFrame))
        return taken

    def close(self) -> int:
        """Take nothing in any more; return how many frames had come that nobody took."""
        self.closed = True
        frames = sum(item.dropped + isinstance(item, QueuedFrame) for item in self._items)
        self._items.clear()
        self._waiting_frames = 0
        return frames

    @property
    def is_ready(self) -> bool:
        """Whether something waits."""
        return bool(self._items)

    @property
    def has_frame(self) -> bool:
        """Whether a frame waits."""
        return self._waiting_frames > 0

    def deadline_ns(self) -> float:
        """When silence turns into a loss, or a loss is given up, on the monotonic clock."""
        if self._limits is None or self.ended:
            return math.inf
        if self._lost_ns is None:
            return self._heard_ns + self._limits.timeout_s * NS_PER_S
        return self._lost_ns + self._limits.give_up_s * NS_PER_S

    def check_deadline(self) -> None:
        """Declare what the deadline stands for, where it has passed."""
        if self._limits is None or time.monotonic_ns() < self.deadline_ns():
            return
        if self._lost_ns is None:
            self.lose(f"nothing came for {self._limits.timeout_s:g} s")
            return
        given_up = f"given up after {self._limits.give_up_s:g} s: {self._reason}"
        self._put_lost_row(given_up)
        self.end(f"{self.name}: {given_up}")

    def _put_lost_row(self, reason: str, index: int | None = None) -> None:
        """Say a loss; one of no known frame takes an index too, as no two rows share one."""
        if index is None:
            number, self._offset = self._next_index, self._offset + 1
        else:
            number = index + self._offset
        dropped = self._jump_to(number)
        self._next_index = number + 1
        self._put_loss(LostFrame(Gap(number, reason, time.time_ns()), dropped))

    def _has_room(self) -> bool:
        return self.closed or (
            self._waiting_frames < self._keep and len(self._items) < self._keep + MOST_LOSSES
        )

    def _put_loss(self, loss: LostFrame) -> None:
        self._items.append(loss)
        self.changed.notify_all()

    def _jump_to(self, index: int) -> int:
        """Return how many frames the source passed over; while it is lost, it passes over none."""
        return max(0, index - self._next_index) if self._lost_ns is None else 0

    def _push_out(self) -> None:
        """Remove the oldest frame, which the item behind it accounts for; losses stay."""
        items = self._items
        position = next(p for p, item in enumerate(items) if isinstance(item, QueuedFrame))
        oldest, behind = items[position], items[position + 1]
        dropped = behind.dropped + oldest.dropped + 1
        if (
            isinstance(behind, QueuedFrame)
            and isinstance(oldest, QueuedFrame)
            and behind.gap_from_ns is None
        ):
            # The loss that the pushed out frame ended is now ended by this one.
            items[position + 1] = replace(behind, dropped=dropped, gap_from_ns=oldest.gap_from_ns)
        else:
            items[position + 1] = replace(behind, dropped=dropped)
        del items[position]
        self._waiting_frames -= 1
