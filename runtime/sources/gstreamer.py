"""GStreamerSource: pipelines through OpenCV, for cameras that only GStreamer reaches."""

from __future__ import annotations

import re
from dataclasses import asdict, replace

import cv2

from ..core.errors import CameraError, ConfigError, MissingDependencyError
from ..core.frame import Mode
from .base import CaptureRequest
from .opencv import OpenCVSource
from .spec import SourceSpec

CSI_WIDTH, CSI_HEIGHT, CSI_FPS = 1920, 1080, 30.0
SHORT_SIDE = 256
"""CSI frames are divided by the largest whole number that leaves their short side this long."""
_NEWEST = "appsink drop=true max-buffers=1 sync=false"
_TIMEOUTS_SINCE = (4, 7)


class GStreamerSource(OpenCVSource):
    """Frames of a GStreamer pipeline, stamped by this host right after the grab.

    The spec gives the number of a CSI camera, or a pipeline as gst-launch-1.0 takes it, which ends
    in an appsink, or in raw video. OpenCV before 4.7 knows no time-out here.

    Raises:
        MissingDependencyError: This OpenCV was built without GStreamer.
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


def has_gstreamer(build: str) -> bool:
    """Return whether OpenCV's build information says that it opens GStreamer pipelines."""
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
    small = Mode(width=_even(width / divisor), height=_even(height / divisor), fps=fps)
    rate = f"{fps:g}/1" if fps == int(fps) else f"{round(fps * 1001)}/1001"
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),"
        f"width={width},height={height},framerate={rate} ! nvvidconv ! "
        f"video/x-raw,width={small.width},height={small.height},format=GRAY8 ! {_NEWEST}"
    ), small


def _even(pixels: float) -> int:
    return max(2, round(pixels / 2) * 2)
