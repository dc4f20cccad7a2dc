"""OpenCV's own log lines, switched off."""

from __future__ import annotations

import cv2


def silence_opencv() -> None:
    """Keep OpenCV's own lines from stderr: the error that follows says it all."""
    if hasattr(cv2, "setLogLevel"):  # releases for Python have one or the other
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
