"""FrameSource, what every source of frames can do; two wrappers: by the clock, in a thread."""

from __future__ import annotations

import abc
import threading
import time
from collections import deque
from dataclasses import replace

from .closing import Closing
from .errors import CameraError
from .frames import Frame, Gap

DEFAULT_FPS = 30.0
THREAD_EXIT_S = 10.0


class FrameSource(Closing):
    """Frames in order, each with the facts of its grab. Close it, or use it in a `with` block.

    Attributes:
        name: What to call the source in messages; never holds credentials.
        live: Frames come by the clock, whether or not anybody reads them.
        fps: Nominal frames per second, or None where the source has no rate.
        expected: How many frames will come, or None where that is not known.
    """

    name: str = ""
    live: bool = False
    fps: float | None = None
    expected: int | None = None

    @abc.abstractmethod
    def read(self) -> Frame | Gap | None:
        """Wait for the next frame.

        Returns:
            A frame; a gap where one was lost, its reason inside; None after the last.

        Raises:
            CameraError: A live source failed or went away.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release the device, file or connection; calling it again does nothing."""

    def interrupt(self) -> None:
        """Let a waiting `read` return None soon; safe in a signal handler. May do nothing."""
        return


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
            return replace(item, grabbed_ns=due_ns, captured_ns=captured_ns)
        return item

    def close(self) -> None:
        """Close the recording."""
        self._source.close()


class CaptureThread(FrameSource):
    """A thread that reads a live source at once, so that every frame is stamped when it comes.

    It keeps the newest frames that nobody has taken: one for the lowest age, more for a reader
    that wants them all and may fall behind. A frame that is pushed out shows as a jump of
    `Frame.index`. Gaps are never pushed out. A failure in the thread is raised again in `read`,
    with its cause, after the last frame.

    Args:
        source: What to read; closed with the thread.
        keep: How many frames may wait.
    """

    live = True

    def __init__(self, source: FrameSource, *, keep: int = 1) -> None:
        self._source = source
        self.name, self.fps, self.expected = source.name, source.fps, source.expected
        self._changed = threading.Condition()
        self._gaps: deque[Gap] = deque()
        self._frames: deque[Frame] = deque(maxlen=keep)
        self._ended = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._capture, name="capture", daemon=True)
        self._thread.start()

    def read(self) -> Frame | Gap | None:
        """Wait for a frame that was not handed out yet; take the first of those that wait."""
        with self._changed:
            self._changed.wait_for(lambda: self._gaps or self._frames or self._ended)
            if self._gaps and (not self._frames or self._gaps[0].index < self._frames[0].index):
                return self._gaps.popleft()
            if self._frames:
                return self._frames.popleft()
            if self._failure is None:
                return None
            reason = str(self._failure) or type(self._failure).__name__
            raise CameraError(reason) from self._failure

    def interrupt(self) -> None:
        """Wake a waiting reader; the thread stops after the frame it waits for."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop the thread, then release the source."""
        self.interrupt()
        self._thread.join(timeout=THREAD_EXIT_S)
        if not self._thread.is_alive():  # else closing would pull the device from under it
            self._source.close()

    def _capture(self) -> None:
        item: Frame | Gap | None = None
        try:
            while not self._ended and (item := self._source.read()) is not None:
                with self._changed:
                    if isinstance(item, Gap):
                        self._gaps.append(item)
                    else:
                        self._frames.append(item)  # pushes the oldest out where full
                    self._changed.notify_all()
        except Exception as failure:  # noqa: BLE001  # handed to the reader, which raises it
            self._failure = failure
        self.interrupt()
