"""DeviceSource: a camera of this machine through OpenCV, and the list of those there are."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2
import numpy as np

from .errors import CameraError, sentence_list
from .frames import Frame
from .source import FrameSource


class DeviceSource(FrameSource):
    """Frames of a local camera, BGR, stamped between the grab and the decoding.

    Args:
        device: Index of the camera, or the path of its device file.
        api: An OpenCV capture API; by default V4L2 on Linux and OpenCV's own choice elsewhere.

    Raises:
        CameraError: The device cannot be opened; the message lists those found.
    """

    live = True

    def __init__(self, device: int | str, *, api: int | None = None) -> None:
        on_linux = sys.platform == "linux"
        path = f"/dev/video{device}" if isinstance(device, int) else device
        self.name = f"camera {device}"
        if api is None:
            if on_linux and not Path(path).exists():
                raise CameraError(self._cannot_open(f"{path} does not exist"))
            api = cv2.CAP_V4L2 if on_linux else cv2.CAP_ANY
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(device, api)
        if not self._capture.isOpened():
            self._capture.release()
            raise CameraError(self._cannot_open(f"OpenCV tried {path}, which did not open"))
        # A short queue keeps the newest frame near; drivers that ignore it lose nothing.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or None
        self._index = 0

    def read(self) -> Frame:
        """Wait for the next frame of the device.

        Raises:
            CameraError: The device timed out, was unplugged, or delivered no image.
        """
        grabbed = self._capture.grab()
        captured_ns, grabbed_ns = time.time_ns(), time.monotonic_ns()
        delivered, image = self._capture.retrieve() if grabbed else (False, None)
        if not delivered or image is None:
            raise CameraError(
                f"lost {self.name} after {self._index} frames: it delivered no image; "
                "check the cable and start again"
            )
        self._index += 1
        return Frame(
            image=image.astype(np.uint8, copy=False),
            index=self._index - 1,
            captured_ns=captured_ns,
            grabbed_ns=grabbed_ns,
            capture_ns=time.monotonic_ns() - grabbed_ns,
        )

    def close(self) -> None:
        """Give the device back."""
        self._capture.release()

    def _cannot_open(self, tried: str) -> str:
        found = sentence_list(cameras_found(), none="none")
        return (
            f"cannot open {self.name}: {tried}; cameras found: {found}; "
            "plug one in, or use --camera with a file, a URL or synthetic"
        )


def cameras_found() -> list[str]:
    """Return the video devices of this machine with their names; Linux only, else empty."""
    found = []
    nodes = Path("/sys/class/video4linux").glob("video*")
    for node in sorted(nodes, key=lambda node: (len(node.name), node.name)):
        try:
            label = (node / "name").read_text(encoding="utf-8").strip()
        except OSError:
            label = "name unknown"
        found.append(f"/dev/{node.name} ({label})")
    return found
