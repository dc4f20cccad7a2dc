"""OpenCVSource: what all cameras share that OpenCV reads; GStreamerSource, for its pipelines."""

from __future__ import annotations

import abc
import math
import re
import time
from dataclasses import asdict, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import CameraError, ConfigError, ImageError, MissingDependencyError
from ..core.frame import Clock, Frame, Gap, Mode
from ..pixels.image_files import silence_opencv
from .base import CaptureRequest, FrameSource
from .spec import SourceSpec
from .timestamps import DriverClock

_WAITED_NS = 1_000_000
"""A grab that returns sooner found a frame that lay there already."""
CSI_WIDTH, CSI_HEIGHT, CSI_FPS = 1920, 1080, 30.0
SHORT_SIDE = 256
"""CSI frames are divided by the largest whole number that leaves their short side this long."""
_NEWEST = "appsink drop=true max-buffers=1 sync=false"
_TIMEOUTS_SINCE = (4, 7)


class OpenCVSource(FrameSource):
    """Frames of a camera, stamped between the grab and the decoding.

    A frame that lay in a queue came after the one before it was taken, and that is the time it
    gets, unless its driver knows better: older than it is at worst, never younger. `mode` is what
    was read back after opening.
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
        index, capture_ns = self._index - 1, delivered_ns - grabbed_ns
        convert_ns = time.monotonic_ns() - delivered_ns
        return Frame(
            image, index, captured_ns, grabbed_ns, capture_ns, clock=clock, convert_ns=convert_ns
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
        """Name why no frame came."""
        timed_out = waited_s >= self._request.timeout_s
        return f"nothing came for {waited_s:.1f} s" if timed_out else "it stopped"


class GStreamerSource(OpenCVSource):
    """Frames of a GStreamer pipeline, stamped by this host right after the grab.

    The spec gives the number of a CSI camera, or a pipeline as gst-launch-1.0 takes it, which ends
    in an appsink, or in raw video. OpenCV before 4.7 knows no time-out here.
    """

    def __init__(self, spec: SourceSpec, request: CaptureRequest) -> None:
        pipeline = spec.location
        if spec.kind == "csi":
            named = {key: value for key, value in asdict(spec.mode).items() if value}
            mode = replace(request.mode, **named)
            pipeline, delivers = csi_pipeline(int(spec.location), mode)
            request = replace(request, mode=delivers)
        if not has_gstreamer(cv2.getBuildInformation()):
            raise MissingDependencyError(
                f"{spec.name} needs an OpenCV with GStreamer, and this one ({cv2.__version__}) was "
                "built without it: use the system's (python3 -m venv --system-site-packages, then "
                "pip uninstall opencv-python; see docs/jetson.md)"
            )
        self._pipeline = pipeline_with_sink(pipeline)
        super().__init__(spec, request, advice="change the pipeline's caps")

    def _open(self) -> cv2.VideoCapture:
        version = tuple(int(part) for part in re.findall(r"\d+", cv2.__version__)[:2])
        limits = []
        if version >= _TIMEOUTS_SINCE:
            for key in (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC):
                limits += [key, round(self._request.timeout_s * 1000)]
        capture = cv2.VideoCapture(self._pipeline, cv2.CAP_GSTREAMER, limits)
        if not capture.isOpened():
            capture.release()
            raise CameraError(
                "GStreamer does not start the pipeline",
                context=f"cannot open {self.name}",
                fix="try it with gst-launch-1.0, with fakesink in place of the appsink",
            )
        return capture


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


def has_gstreamer(build: str) -> bool:
    """Return whether OpenCV's build information lists GStreamer."""
    return re.search(r"GStreamer:\s*YES", build) is not None


def pipeline_with_sink(pipeline: str) -> str:
    """Return a pipeline that ends where OpenCV takes frames: the newest one, at once."""
    if re.search(r"(^|!)\s*appsink(\s|$)", pipeline):
        return pipeline
    return f"{pipeline.strip().removesuffix('!').rstrip()} ! videoconvert ! {_NEWEST}"


def csi_pipeline(sensor: int, mode: Mode) -> tuple[str, Mode]:
    """Return the pipeline of a Jetson's CSI camera, and the mode of the frames that it delivers.

    The Jetson's own converter makes small grey frames; neither CPU nor OpenCV sees the large ones.
    `mode` is the sensor's; a fourcc in it is a ConfigError.
    """
    if mode.fourcc:
        raise ConfigError(f"fourcc={mode.fourcc!r}: csi:// delivers grey frames; leave it out")
    width, height, fps = mode.width or CSI_WIDTH, mode.height or CSI_HEIGHT, mode.fps or CSI_FPS
    divisor = max(1, min(width, height) // SHORT_SIDE)
    across, down = (max(2, round(side / divisor / 2) * 2) for side in (width, height))  # even
    rate = f"{fps:g}/1" if fps == int(fps) else f"{round(fps * 1001)}/1001"
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),"
        f"width={width},height={height},framerate={rate} ! nvvidconv ! "
        f"video/x-raw,width={across},height={down},format=GRAY8 ! {_NEWEST}"
    ), Mode(width=across, height=down, fps=fps)
