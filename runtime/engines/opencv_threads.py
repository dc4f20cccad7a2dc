"""OpenCV's own pool of threads, which stands back while an engine runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import cv2

_LOCK = threading.Lock()
_before: list[int] = []  # for each block that keeps it single: its threads before the first


@contextlib.contextmanager
def opencv_kept_single() -> Iterator[None]:
    """Let OpenCV work in the thread that calls it, until the last of such blocks has ended.

    Its own pool would compete with the engine's; what OpenCV does here takes under a millisecond.
    """
    with _LOCK:
        _before.append(_before[0] if _before else cv2.getNumThreads())
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        with _LOCK:
            before = _before.pop()
            if not _before:
                cv2.setNumThreads(before)
