"""DeviceSource: a camera of this machine through OpenCV, found again by its stable name."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import CameraError, ImageError, sentence_list
from ..core.frame import Mode
from ..pixels.camera_formats import RAW_FORMATS, luma_from_raw
from .base import AS_IT_COMES, CaptureRequest
from .device_names import LINKS, cameras, stable_path
from .opencv import OpenCVSource, mode_of
from .spec import SourceSpec

BUFFERS = 2
"""One that is read and one that is filled; with one alone every other frame would be missed."""


class DeviceSource(OpenCVSource):
    """Frames of a local camera: BGR, or fitted luma where a model's spec is given.

    For a model, a V4L2 camera's frames are taken as they are delivered where luma can be made of
    them directly; a JPEG's decoding then counts as conversion, not as capture.

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
            self._check_access(Path(str(self._device)))
            seconds = max(1, math.ceil(self._request.timeout_s))
            os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(seconds))
        capture = cv2.VideoCapture(self._device, self._api)
        if not capture.isOpened():
            capture.release()
            raise self._cannot_open(f"OpenCV tried {self._device}, which did not open")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, BUFFERS)
        _ask(capture, self._request.mode)
        self._is_raw = (
            self._request.spec is not None
            and self._trusts_format
            and self._api == cv2.CAP_V4L2
            and mode_of(capture).fourcc in RAW_FORMATS
            and capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        )
        return capture

    def _converted(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        if not self._is_raw or self._request.spec is None:
            return super()._converted(image)
        luma = luma_from_raw(image, self.mode, self._request.spec)
        if luma is None:
            # Not what its format implies. OpenCV may know better, and does not change its mind
            # about a buffer that it has.
            self._trusts_format = False
            self.reopen()
            raise ImageError(f"frame of shape {image.shape} is no {self.mode}")
        return luma

    def _cause(self, waited_s: float) -> str:
        if self._api == cv2.CAP_V4L2 and not Path(str(self._device)).exists():
            return "it was unplugged"
        return super()._cause(waited_s)

    def _check_access(self, path: Path) -> None:
        if not path.exists():
            raise self._cannot_open(f"{path} does not exist")
        if not os.access(path, os.R_OK | os.W_OK):
            to_do = "add this user to the group video (sudo usermod -aG video $USER)"
            raise self._cannot_open(f"permission denied for {path}", f"{to_do} and log in again")

    def _cannot_open(self, problem: str, fix: str | None = None) -> CameraError:
        if fix is None:
            found = sentence_list([str(camera) for camera in cameras()])
            instead = "use --camera with a file, a URL or synthetic"
            fix = f"cameras found: {found}; plug one in, or {instead}"
        return CameraError(problem, context=f"cannot open {self.name}", fix=fix)


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
