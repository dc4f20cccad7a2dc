"""OpenCVSource: what all cameras share that OpenCV reads, by whatever API it reaches them."""

from __future__ import annotations

import abc
import math
import time
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import CameraError, ImageError
from ..core.frame import Clock, Frame, Gap, Mode
from ..pixels.image_files import silence_opencv
from .base import CaptureRequest, FrameSource
from .spec import SourceSpec
from .timestamps import DriverClock

_WAITED_NS = 1_000_000
"""A grab that returns sooner found a frame that lay there already."""


class OpenCVSource(FrameSource):
    """Frames of a camera, stamped between the grab and the decoding.

    A frame that lay in a queue came after the one before it was taken, and that is the time it
    gets, unless its driver knows better: older than it is at worst, never younger.

    Attributes:
        mode: What was read back after opening.
    """

    def __init__(self, spec: SourceSpec, request: CaptureRequest, *, advice: str) -> None:
        super().__init__(spec)
        self.mode = Mode()
        self._request, self._advice = request, advice
        self._capture: cv2.VideoCapture | None = None
        self._index = 0
        self.reopen()

    def reopen(self) -> None:
        """Open and read the mode back, or raise CameraError."""
        self.close()
        silence_opencv()
        capture = self._open()
        self.mode = mode_of(capture)
        try:
            self._request.check(self.name, self.mode, advice=self._advice)
        except CameraError:
            capture.release()
            raise
        self._capture = capture
        self.fps = self.mode.fps
        self._driver = DriverClock() if capture.getBackendName() == "V4L2" else None
        self._last_ns = time.monotonic_ns()

    def read(self) -> Frame | Gap | None:
        """Wait for the next frame; one that does not decode is a gap."""
        capture = self._capture
        if capture is None:
            return None
        asked_ns = time.monotonic_ns()
        try:
            grabbed = capture.grab()
        except cv2.error:
            grabbed = False
        captured_ns, now_ns = time.time_ns(), time.monotonic_ns()
        if not grabbed:
            cause = self._cause((now_ns - asked_ns) / 1e9)
            raise CameraError(cause, context=f"lost {self.name} after {self._index} frames")
        grabbed_ns = now_ns if now_ns - asked_ns >= _WAITED_NS else self._last_ns
        clock: Clock = "host"
        if self._driver is not None:
            stamp_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
            if (stamp_ns := self._driver.grabbed_ns(stamp_ms, now_ns)) is not None:
                grabbed_ns, clock = stamp_ns, "driver"
        self._last_ns = now_ns
        captured_ns -= now_ns - grabbed_ns
        self._index += 1
        try:
            delivered, image = capture.retrieve()
        except cv2.error:
            delivered, image = False, None
        delivered_ns = time.monotonic_ns()
        if not delivered or image is None or not image.size:
            return Gap(self._index - 1, "frame does not decode", captured_ns)
        try:
            image = self._converted(image)
        except ImageError as error:
            return Gap(self._index - 1, error.clause(), captured_ns)
        return Frame(
            image=image,
            index=self._index - 1,
            captured_ns=captured_ns,
            grabbed_ns=grabbed_ns,
            capture_ns=delivered_ns - grabbed_ns,
            clock=clock,
            convert_ns=time.monotonic_ns() - delivered_ns,
        )

    def close(self) -> None:
        """Give the camera back."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    @abc.abstractmethod
    def _open(self) -> cv2.VideoCapture:
        """Open and ask for the mode, or release what did not open and raise CameraError."""

    def _converted(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Make a frame's image of what was delivered, or raise ImageError."""
        return image.astype(np.uint8, copy=False)

    def _cause(self, waited_s: float) -> str:
        """Say why no frame came."""
        timed_out = waited_s >= self._request.timeout_s
        return f"nothing came for {waited_s:.1f} s" if timed_out else "it stopped"


def mode_of(capture: cv2.VideoCapture) -> Mode:
    """Read back how a camera delivers."""
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    fps, code = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FOURCC)
    letters = int(max(0.0, code)).to_bytes(8, "little")[:4].decode("latin-1").strip("\0 ")
    return Mode(
        width=int(width) if width > 0 else None,
        height=int(height) if height > 0 else None,
        fps=fps if math.isfinite(fps) and fps > 0 else None,
        fourcc=letters if letters and letters.isprintable() else None,
    )
