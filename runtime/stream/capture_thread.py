"""CaptureThread: one source read at once, converted, and opened again whenever it is lost."""

from __future__ import annotations

import hashlib
import math
import random
import threading
import time

import numpy as np

from ..core.errors import ImageError, SourceError
from ..core.frame import Frame, Gap
from ..core.lifecycle import Closing
from ..core.spec import ModelSpec
from ..pixels.convert import fitted_luma, luma_from_image
from ..sources.base import FrameSource
from .mailbox import NS_PER_S, Mailbox

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
THREAD_EXIT_S = 6.0
"""Longer than a connection is silent by default, shorter than a supervisor waits for an end."""


class CaptureThread(Closing):
    """Reads an opened source as fast as it delivers, and puts converted frames into a mailbox.

    Conversion happens here, beside the encoder. A source that fails and can return is closed and
    opened again under its stable name, with pauses that double up to 5 s and vary by half, so that
    many clients do not come at once. The same luma for longer than `freeze_after_s` is a loss,
    counted in the recording's own time where there is one. The source is closed with the thread.
    """

    def __init__(
        self,
        source: FrameSource,
        mailbox: Mailbox,
        spec: ModelSpec,
        *,
        freeze_after_s: float = math.inf,
    ) -> None:
        self._source, self._mailbox, self._spec = source, mailbox, spec
        self.can_reconnect = source.can_reconnect  # no longer so once a source has ended for good
        self._freeze_after_s = freeze_after_s
        self._digest = b""
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

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                trouble = self._read_until_trouble()
                if self._stopping.is_set() or trouble is None:
                    break
                if not self._source.can_reconnect:
                    self._mailbox.end(trouble)
                    return
                self._mailbox.lose(trouble)
                if not self._is_frozen:
                    self._digest = b""  # a still scene may well look the same when it is back
                self._source.close()
                self._reopen()
            self._mailbox.end()
        except Exception as error:  # noqa: BLE001  # raised again once the other cameras are done
            self._mailbox.end(f"{type(error).__name__}: {error}", error)

    def _read_until_trouble(self) -> str | None:
        """Read on; return why no more comes, or None where the source has ended as it should."""
        trouble = None
        while trouble is None and not self._stopping.is_set():
            self._mailbox.wait_for_room()
            try:
                item = self._source.read()
            except SourceError as error:
                return error.clause()
            if item is None:
                return "the stream ended" if self._source.can_reconnect else None
            trouble = self._skip(item) if isinstance(item, Gap) else self._take(item)
        return trouble

    def _skip(self, gap: Gap) -> str | None:
        """Pass a damaged frame on; a source that sends nothing else is in trouble."""
        is_silent = self._mailbox.skip(gap) and self._source.can_reconnect
        return f"no whole frame came any more: {gap.reason}" if is_silent else None

    def _take(self, frame: Frame) -> str | None:
        """Convert a frame and deliver it, unless the picture has stood still for too long."""
        started_ns = time.monotonic_ns()
        try:
            luma = np.ascontiguousarray(fitted_luma(luma_from_image(frame.image), self._spec))
        except ImageError as error:
            return self._skip(Gap(frame.index, error.clause(), frame.captured_ns, frame.name))
        digest = hashlib.blake2b(luma.data, digest_size=16).digest()
        now_s = frame.grabbed_ns / NS_PER_S if frame.media_s is None else frame.media_s
        duplicate = digest == self._digest
        if not duplicate:
            self._digest, self._same_since_s = digest, now_s
            self._is_frozen = False
        elif now_s - self._same_since_s > self._freeze_after_s:
            self._is_frozen = True
            frozen = f"the picture has not changed for {self._freeze_after_s:g} s"
            self._mailbox.lose(frozen, index=frame.index)
            return frozen if self._source.can_reconnect else None
        convert_ns = frame.convert_ns + time.monotonic_ns() - started_ns
        self._mailbox.deliver(frame, luma, convert_ns=convert_ns, duplicate=duplicate)
        self._pause_s = FIRST_PAUSE_S
        return None

    def _reopen(self) -> None:
        """Try until the source is open again or the thread is to stop."""
        while not self._stopping.wait(self._pause_s * random.uniform(0.5, 1.5)):
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            try:
                self._source.reopen()
            except SourceError as error:
                self._mailbox.lose(error.clause())
            else:
                self._mailbox.listen()
                return
