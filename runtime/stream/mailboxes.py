"""Mailboxes: where the encoder waits for the frames of all cameras, a little for each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from .mailbox import NS_PER_S, LivenessTimeouts, Mailbox
from .messages import LostFrame, QueuedFrame

LONGEST_WAIT_S = 0.2
"""A signal handler that runs just before the wait begins wakes nobody."""


class Mailboxes:
    """The mailboxes of a run, and the one place where the encoder waits for frames.

    Args:
        batch_wait_s: How long frames that are there wait for those of the other cameras.

    Attributes:
        interrupted: `stop` was called before every camera had ended.
    """

    def __init__(self, *, batch_wait_s: float = 0.002) -> None:
        self.changed = threading.Condition()
        self.stopped = self.interrupted = False
        self._batch_wait_s = batch_wait_s
        self._boxes: list[Mailbox] = []

    @property
    def boxes(self) -> Sequence[Mailbox]:
        """One for each camera, in order."""
        return self._boxes

    def add(self, name: str, *, keep: int, waits: bool, limits: LivenessTimeouts | None) -> Mailbox:
        """Make the mailbox of one more camera; see `Mailbox`."""
        box = Mailbox(self.changed, name, keep=keep, waits=waits, limits=limits)
        self._boxes.append(box)
        return box

    def take(self) -> list[tuple[str, QueuedFrame | LostFrame]]:
        """Wait until something is there; return one frame of each camera, and losses before it.

        Frames wait a little for those of cameras that are delivering, so that one run of the
        encoder serves several; cameras that are lost or ended are not waited for.

        Returns:
            Camera name and item; empty once stopped, or once every camera has ended.
        """
        with self.changed:
            while not self.stopped:
                for box in self._boxes:
                    box.check_deadline()
                if any(box.is_ready for box in self._boxes):
                    break
                if all(box.ended for box in self._boxes):
                    return []
                self.changed.wait(min(LONGEST_WAIT_S, self._seconds_to_deadline()))
            if len(self._boxes) > 1 and any(box.has_frame for box in self._boxes):
                self.changed.wait_for(self._is_complete, timeout=self._batch_wait_s)
            if self.stopped:
                return []
            taken = [(box.name, item) for box in self._boxes for item in box.pop()]
            self.changed.notify_all()
            return taken

    def stop(self) -> None:
        """Let `take` return empty from now on; safe in a signal handler."""
        with self.changed:
            self.stopped = self.interrupted = True
            self.changed.notify_all()

    def close(self) -> dict[str, int]:
        """Take nothing in any more; return how many frames of each camera nobody took."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
            return {box.name: box.close() for box in self._boxes}

    def _is_complete(self) -> bool:
        return self.stopped or all(box.has_frame for box in self._boxes if box.is_awaited)

    def _seconds_to_deadline(self) -> float:
        soonest_ns = min(box.deadline_ns() for box in self._boxes)
        return max(0.0, (soonest_ns - time.monotonic_ns()) / NS_PER_S)
