"""Cameras that OpenCV reads: DeviceSource, of this machine; GStreamerSource, for pipelines."""

from __future__ import annotations

import abc
import contextlib
import math
import os
import re
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import (
    CameraError,
    ConfigError,
    ImageError,
    MissingDependencyError,
    sentence_list,
)
from ..core.frame import NS_PER_MS, Clock, Frame, Gap, Mode
from ..core.spec import ModelSpec
from ..core.system.other_core import runs_first
from ..pixels.camera_formats import RAW_FORMATS, fitted_from_raw
from ..pixels.files.opencv_images import silence_opencv
from ..pixels.window import window_of
from .base import AS_IT_COMES, CaptureRequest, FrameSource
from .device_names import LINKS, cameras, stable_path
from .pauses import HEARTBEAT, PauseWatch
from .spec import SourceSpec
from .wall_clock import WallClock

OLDEST_STAMP_NS = 5_000_000_000
_WAITED_NS = 1_000_000  # a grab that returns sooner found a frame that lay there already
_BUFFERS = 2  # one is read and one is filled; with one alone every other frame would be missed
_CATCHING_UP_NS = 1_000_000_000
_PACE_FRAMES = 8
_NEWEST = "appsink drop=true max-buffers=1 sync=false"


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
        self._watch: PauseWatch | None = None
        self._index = 0
        self._wall = WallClock()
        self.reopen()

    def reopen(self) -> None:
        """Open and read the mode back, or raise CameraError."""
        self.close()
        opened_ns = time.monotonic_ns()  # frames may lie there before it is open
        self._watch = PauseWatch()
        silence_opencv()
        try:
            self._capture = capture = self._open()
            self.mode = mode_of(capture)
            self._request.check(self.name, self.mode, advice=self._advice)
        except BaseException:
            self.close()
            raise
        self.fps = self.mode.fps
        self._has_stamps, self._stamp_ns = capture.getBackendName() == "V4L2", 0
        self._last_ns = self._read_ns = opened_ns
        self._old_until_ns = self._waits = self._pace_ns = 0

    def read(self) -> Frame | Gap | None:
        """Wait for the next frame; one that does not decode is a gap."""
        capture = self._capture
        if capture is None:
            return None
        asked_ns, grabbed = time.monotonic_ns(), False
        with contextlib.suppress(cv2.error):
            grabbed = capture.grab()
        now_ns = time.monotonic_ns()
        if not grabbed:
            cause = self._cause((now_ns - asked_ns) / 1e9)
            raise CameraError(cause, context=f"lost {self.name} after {self._index} frames")
        grabbed_ns = self._came_ns(asked_ns, now_ns)
        clock: Clock = "host"
        if self._has_stamps:
            stamp_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
            if (stamp_ns := driver_stamp_ns(stamp_ms, now_ns, self._stamp_ns)) is not None:
                grabbed_ns, clock = stamp_ns, "driver"
                self._stamp_ns = stamp_ns
        captured_ns = self._wall.at(grabbed_ns)
        index, self._index = self._index, self._index + 1
        delivered, image = False, None
        with contextlib.suppress(cv2.error):
            delivered, image = capture.retrieve()
        delivered_ns = time.monotonic_ns()
        if not delivered or image is None or not image.size:
            return Gap(index, "frame does not decode", captured_ns)
        try:
            image = self._converted(image)
        except ImageError as error:
            return Gap(index, error.clause(), captured_ns)
        capture_ns, convert_ns = delivered_ns - grabbed_ns, time.monotonic_ns() - delivered_ns
        return Frame(
            image,
            index,
            captured_ns,
            grabbed_ns,
            capture_ns,
            clock=clock,
            convert_ns=convert_ns,
            is_fitted=self._fits,
        )

    def close(self) -> None:
        """Give the camera back."""
        if self._watch is not None:
            self._watch.close()
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _came_ns(self, asked_ns: int, now_ns: int) -> int:
        """Return when a frame came that a grab waited for from `asked_ns` to `now_ns`.

        After a pause of the process every buffer may hold a frame of that time. Such frames came
        when it began, until two grabs in a row waited for half the usual time between frames, or
        until twice the pause has passed.
        """
        taken_ns = now_ns - self._read_ns
        pause, self._read_ns = HEARTBEAT.between(self._read_ns, now_ns), now_ns
        if pause is not None:
            if now_ns >= self._old_until_ns and pause.start_ns - asked_ns >= _WAITED_NS:
                self._last_ns = pause.start_ns
            self._old_until_ns = now_ns + 2 * (pause.end_ns - pause.start_ns) + _CATCHING_UP_NS
            self._waits = 0
            return self._last_ns
        if now_ns < self._old_until_ns:
            has_waited = now_ns - asked_ns >= max(_WAITED_NS, self._pace_ns // 2)
            self._waits = self._waits + 1 if has_waited else 0
            if self._waits <= 1:
                return self._last_ns
            self._old_until_ns = 0
        self._pace_ns += (taken_ns - self._pace_ns) // _PACE_FRAMES
        last_ns, self._last_ns = self._last_ns, now_ns
        return now_ns if now_ns - asked_ns >= _WAITED_NS else last_ns

    @abc.abstractmethod
    def _open(self) -> cv2.VideoCapture:
        """Open and ask for the mode, or raise CameraError."""

    @property
    def _fits(self) -> bool:
        """Whether `_converted` makes fitted pictures."""
        return False

    def _converted(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Make a frame's image of what was delivered, or raise ImageError."""
        return image.astype(np.uint8, copy=False)

    def _cause(self, waited_s: float) -> str:
        """Name why no frame came."""
        timed_out = waited_s >= self._request.timeout_s
        return f"nothing came for {waited_s:.1f} s" if timed_out else "it stopped"


class DeviceSource(OpenCVSource):
    """Frames of a local camera: BGR, or fitted pictures where a model's spec is given.

    For a model, a V4L2 camera's frames are taken as they are delivered where pictures can be made
    of them directly; a JPEG's decoding then counts as conversion, not as capture.

    Its clock is the driver's where that stamps frames on the monotonic clock, as those of USB
    cameras do, and this host's right after the grab otherwise. The time-out of the first camera of
    a process holds for all of them, in whole seconds: OpenCV reads it once.

    `api` is OpenCV's capture API; by default V4L2 on Linux and OpenCV's own choice elsewhere.
    """

    def __init__(
        self,
        spec: SourceSpec,
        request: CaptureRequest = AS_IT_COMES,
        *,
        api: int | None = None,
        links: Path = LINKS,
    ) -> None:
        on_linux = sys.platform == "linux"
        self._api = (cv2.CAP_V4L2 if on_linux else cv2.CAP_ANY) if api is None else api
        location, is_index = spec.location, spec.location.isdecimal()
        self._device: int | str = int(location) if is_index else location
        self._trusts_format = True
        if self._api == cv2.CAP_V4L2:
            path = Path(f"/dev/video{self._device}" if is_index else location)
            if (link := stable_path(path, links)) is not None and link != path:
                spec = replace(spec, name=f"{spec.name} ({link.name})")
                path = link
            self._device = str(path)
        super().__init__(spec, request, advice="ask for what it can do (motorvae-doctor cameras)")

    def _open(self) -> cv2.VideoCapture:
        if self._api == cv2.CAP_V4L2:
            path = Path(str(self._device))
            if not path.exists():
                raise self._cannot_open(f"{path} does not exist")
            if not os.access(path, os.R_OK | os.W_OK):
                to_do = "add this user to the group video (sudo usermod -aG video $USER)"
                problem = f"permission denied for {path}"
                raise self._cannot_open(problem, f"{to_do} and log in again")
            seconds = max(1, math.ceil(self._request.timeout_s))
            os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(seconds))
        capture = cv2.VideoCapture(self._device, self._api)
        if not capture.isOpened():
            raise self._cannot_open(f"OpenCV tried {self._device}, which did not open")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, _BUFFERS)
        _ask(capture, self._request.mode)
        self._is_raw = (
            self._request.spec is not None
            and self._trusts_format
            and self._api == cv2.CAP_V4L2
            and mode_of(capture).fourcc in RAW_FORMATS
            and capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        )
        return capture

    @property
    def _fits(self) -> bool:
        return bool(self._is_raw)

    def _converted(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        spec = self._request.spec
        if not self._is_raw or spec is None:
            return super()._converted(image)
        asked = self._request
        cores = asked.cores if runs_first() else 1
        fitted = fitted_from_raw(
            image, self.mode, spec, asked.untagged, asked.picture_limit, cores=cores
        )
        if fitted is None:
            # Not what its format implies. OpenCV may know better, and does not change its mind
            # about a buffer that it has.
            self._trusts_format = False
            self.reopen()
            raise ImageError(f"frame of shape {image.shape} is no {self.mode}")
        return fitted

    def _cause(self, waited_s: float) -> str:
        if self._api == cv2.CAP_V4L2 and not Path(str(self._device)).exists():
            return "it was unplugged"
        return super()._cause(waited_s)

    def _cannot_open(self, problem: str, fix: str | None = None) -> CameraError:
        if fix is None:
            found = sentence_list([str(camera) for camera in cameras()])
            instead = "use --camera with a file, a URL or synthetic"
            fix = f"cameras found: {found}; plug one in, or {instead}"
        return CameraError(problem, context=f"cannot open {self.name}", fix=fix)


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
            pipeline, delivers = csi_pipeline(int(spec.location), mode, request.spec)
            request = replace(request, mode=delivers)
        if not re.search(r"GStreamer:\s*YES", cv2.getBuildInformation()):
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
        if version >= (4, 7):
            for key in (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC):
                limits += [key, round(self._request.timeout_s * 1000)]
        capture = cv2.VideoCapture(self._pipeline, cv2.CAP_GSTREAMER, limits)
        if not capture.isOpened():
            raise CameraError(
                "GStreamer does not start the pipeline",
                context=f"cannot open {self.name}",
                fix="try it with gst-launch-1.0, with fakesink in place of the appsink",
            )
        return capture


def _ask(capture: cv2.VideoCapture, mode: Mode) -> None:
    """Set a mode: the format first, since it decides which sizes there are, and sizes which rates.

    It is read back later; what `set` returns means little.
    """
    if mode.fourcc:
        letters = mode.fourcc.upper().ljust(4)[:4].encode("ascii", "replace")
        capture.set(cv2.CAP_PROP_FOURCC, int.from_bytes(letters, "little"))
    if mode.width or mode.height:  # OpenCV applies them once it was given both
        sizes = {cv2.CAP_PROP_FRAME_WIDTH: mode.width, cv2.CAP_PROP_FRAME_HEIGHT: mode.height}
        for key, value in sizes.items():
            capture.set(key, value or capture.get(key))
    if mode.fps:
        capture.set(cv2.CAP_PROP_FPS, mode.fps)


def mode_of(capture: cv2.VideoCapture) -> Mode:
    """Read back how a camera delivers."""
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    fps, code = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FOURCC)
    is_code = 0 <= code < 1 << 32  # also false for NaN
    letters = int(code if is_code else 0).to_bytes(4, "little").decode("latin-1").strip("\0 ")
    return Mode(
        width=int(width) if 0 < width < math.inf else None,
        height=int(height) if 0 < height < math.inf else None,
        fps=fps if math.isfinite(fps) and fps > 0 else None,
        fourcc=letters if letters and letters.isprintable() else None,
    )


def driver_stamp_ns(stamp_ms: float, now_ns: int, last_ns: int) -> int | None:
    """Return a driver's time stamp in ns, or None where a frame grabbed by `now_ns` cannot have it.

    V4L2 stamps a buffer on the monotonic clock as it comes from the camera, and OpenCV hands that
    on as the position in milliseconds. Some drivers stamp nothing, or by another clock; a stamp
    that is not later than the frame before's, `last_ns`, is of neither use.
    """
    if not 0 < stamp_ms * NS_PER_MS <= now_ns:  # also false for NaN
        return None
    stamp_ns = round(stamp_ms * NS_PER_MS)
    return stamp_ns if max(now_ns - OLDEST_STAMP_NS, last_ns + 1) <= stamp_ns <= now_ns else None


def pipeline_with_sink(pipeline: str) -> str:
    """Return a pipeline that ends where OpenCV takes frames: the newest one, at once."""
    if re.search(r"(^|!)\s*appsink(\s|$)", pipeline):
        return pipeline
    return f"{pipeline.strip().removesuffix('!').rstrip()} ! videoconvert ! {_NEWEST}"


def csi_pipeline(sensor: int, mode: Mode, spec: ModelSpec | None = None) -> tuple[str, Mode]:
    """Return the pipeline of a Jetson's CSI camera, and the mode of the frames that it delivers.

    The Jetson's own converter makes small frames, grey or in colour as the model takes them;
    neither CPU nor OpenCV sees the large ones. They are divided by the largest whole number that
    leaves enough for the model; not at all where its crop box counts pixels, or where it averages
    no areas. `mode` is the sensor's; a fourcc in it is a ConfigError.
    """
    spec = spec or ModelSpec()
    if mode.fourcc:
        delivers = "grey" if spec.color == "grey" else "BGR"
        raise ConfigError(
            f"fourcc={mode.fourcc!r}: csi:// delivers {delivers} frames; leave it out"
        )
    width, height, fps = mode.width or 1920, mode.height or 1080, mode.fps or 30.0
    divisor = 1
    if spec.interpolation == "area" and not spec.has_box_in_pixels:
        window = window_of(spec, (height, width))
        rows, columns = window.canvas_rows.length, window.canvas_columns.length
        divisor = max(1, min(rows // spec.height, columns // spec.width))
    across, down = (max(2, round(side / divisor / 2) * 2) for side in (width, height))  # even
    rate = f"{fps:g}/1" if fps == int(fps) else f"{round(fps * 1001)}/1001"
    # It makes no BGR; the rest is copying.
    small = "GRAY8" if spec.color == "grey" else "BGRx ! videoconvert ! video/x-raw,format=BGR"
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),"
        f"width={width},height={height},framerate={rate} ! nvvidconv ! "
        f"video/x-raw,width={across},height={down},format={small} ! {_NEWEST}"
    ), Mode(width=across, height=down, fps=fps)
