"""CaptureThread: one source read at once, converted, and opened again whenever it is lost."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import threading
import time

import numpy as np

from ..core.errors import ImageError, SourceError, reason_of
from ..core.frame import Frame, Gap
from ..core.lifecycle import Closing
from ..core.spec import ModelSpec
from ..pixels.convert import fitted_from_image
from ..sources.base import FrameSource
from .cores import Cores
from .mailbox import NS_PER_S, Mailbox

_LOG = logging.getLogger(__name__)
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
THREAD_EXIT_S = 6.0
"""Longer than a connection is silent by default, shorter than a supervisor waits for an end."""


class CaptureThread(Closing):
    """Reads an opened source as fast as it delivers, and puts converted frames into a mailbox.

    Conversion happens here, beside the encoder. A source that fails and can return is closed and
    opened again under its stable name, with pauses that double up to 5 s and vary by half, so that
    many clients do not come at once. So is one that raises what no source should: whatever a camera
    sends, and whichever library trips over it, costs a row and never the camera. Only once it is
    given up the thread ends, and closes it.

    The same picture for longer than `freeze_after_s` is a loss, counted in the recording's own time
    where there is one. The source is closed with the thread.
    """

    def __init__(
        self,
        source: FrameSource,
        mailbox: Mailbox,
        spec: ModelSpec,
        *,
        freeze_after_s: float = math.inf,
        cores: Cores | None = None,
    ) -> None:
        self._source, self._mailbox, self._spec = source, mailbox, spec
        self.can_reconnect = source.can_reconnect  # no longer so once a source has ended for good
        self._freeze_after_s = freeze_after_s
        self._cores = cores
        self._last = b""  # pixels of the frame before
        self._same_since_s = 0.0
        self._is_frozen = False
        self._pause_s = FIRST_PAUSE_S
        self._stopping = threading.Event()
        self._stopped_s = 0.0
        self._thread = threading.Thread(
            target=self._run, name=f"capture {mailbox.name}", daemon=True
        )

    def start(self) -> None:
        """Begin to capture."""
        self._mailbox.listen()
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to stop after what it waits for; does not wait."""
        if not self._stopping.is_set():
            self._stopped_s = time.monotonic()
        self._stopping.set()
        self._source.interrupt()
        self._mailbox.stop()

    def close(self) -> None:
        """Stop the thread, then release the source; threads stopped together share the wait."""
        self.stop()
        if self._thread.ident is not None:
            left_s = self._stopped_s + THREAD_EXIT_S - time.monotonic()
            self._thread.join(timeout=max(0.0, left_s))
        if not self._thread.is_alive():  # else closing would pull the device from under it
            self._source.close()

    def _is_over(self) -> bool:
        """Whether it is to stop, or nobody takes what this camera sends any more."""
        return self._stopping.is_set() or self._mailbox.ended

    def _run(self) -> None:
        if self._cores is not None and self._source.live:
            self._cores.begin_capture()
        while not self._is_over():
            try:
                trouble = self._read_until_trouble()
            except Exception as error:  # noqa: BLE001  # it is a row, and the camera goes on
                trouble = _logged_reason(error)
            if self._is_over() or trouble is None:
                break
            if not self._source.can_reconnect:
                self._mailbox.end(trouble)
                return
            self._mailbox.lose(trouble)
            if not self._is_frozen:
                self._last = b""  # a still scene may well look the same when it is back
            self._close_source()
            self._reopen()
        if self._mailbox.ended:  # given up: no connection outlives that
            self._close_source()
        self._mailbox.end()

    def _close_source(self) -> None:
        with contextlib.suppress(Exception):
            self._source.close()

    def _read_until_trouble(self) -> str | None:
        """Read on; return why no more comes, or None where the source has ended as it should."""
        trouble = None
        while trouble is None and not self._is_over():
            self._mailbox.wait_for_room()
            item = self._source.read()
            if item is None:
                return "the stream ended" if self._source.can_reconnect else None
            trouble = self._skip(item) if isinstance(item, Gap) else self._take(item)
        return trouble

    def _skip(self, gap: Gap) -> str | None:
        """Pass a damaged frame on; a source that sends nothing else is in trouble."""
        trouble = self._mailbox.skip(gap)
        return trouble if self._source.can_reconnect else None

    def _take(self, frame: Frame) -> str | None:
        """Convert a frame and deliver it, unless the picture has stood still for too long."""
        started_ns = time.monotonic_ns()
        try:
            found = fitted_from_image(frame.image, self._spec, is_fitted=frame.is_fitted)
        except ImageError as error:
            return self._skip(Gap(frame.index, error.clause(), frame.captured_ns, frame.name))
        pixels = np.ascontiguousarray(found)
        content = pixels.tobytes()
        now_s = frame.grabbed_ns / NS_PER_S if frame.media_s is None else frame.media_s
        duplicate = content == self._last
        if not duplicate:
            self._last, self._same_since_s = content, now_s
            self._is_frozen = False
        elif now_s - self._same_since_s > self._freeze_after_s:
            self._is_frozen = True
            frozen = f"the picture has not changed for {self._freeze_after_s:g} s"
            self._mailbox.lose(frozen, index=frame.index)
            return frozen if self._source.can_reconnect else None
        convert_ns = frame.convert_ns + time.monotonic_ns() - started_ns
        self._mailbox.deliver(frame, pixels, convert_ns=convert_ns, duplicate=duplicate)
        self._pause_s = FIRST_PAUSE_S
        return None

    def _reopen(self) -> None:
        """Try until the source is open again, is given up, or the thread is to stop."""
        while not (
            self._stopping.wait(self._pause_s * random.uniform(0.5, 1.5)) or self._is_over()
        ):
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            try:
                self._source.reopen()
            except Exception as error:  # noqa: BLE001  # as in _run
                self._mailbox.lose(_logged_reason(error))
            else:
                self._mailbox.listen()
                return


def _logged_reason(error: Exception) -> str:
    """Return an error's reason; where in the code it arose is only known to a log that asks."""
    if not isinstance(error, SourceError):
        _LOG.debug("a source raised what none should", exc_info=error)
    return reason_of(error)
