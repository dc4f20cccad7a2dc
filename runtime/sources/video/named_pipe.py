"""PipeReader: a named pipe for FFmpeg, which would wait for ever on one that falls silent."""

from __future__ import annotations

import os
import select
from pathlib import Path

from ...core.lifecycle import Closing


class PipeReader(Closing):
    """The reading end of a named pipe as a file object, with a limit on every wait.

    It opens at once, also while nobody writes; the first read waits for a writer.

    Args:
        path: The pipe.
        timeout_s: How long it may be silent.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._descriptor: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self, size: int) -> bytes:
        """Return what is there, at most `size` bytes; nothing once all writers have gone.

        Raises:
            TimeoutError: Nothing came.
        """
        if self._descriptor is None:
            return b""
        ready, _, _ = select.select([self._descriptor], [], [], self._timeout_s)
        if not ready:
            raise TimeoutError(f"nothing came for {self._timeout_s:g} s")
        return os.read(self._descriptor, size)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
