"""From a frame to fitted luma: as motorVAE does it, and as people write it."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.convert import fitted_luma, luma_from_image
from ...runtime.pixels.v4l2_formats import luma_from_any_jpeg
from ...runtime.pixels.yuv import luma_from_video_frame
from ..measure.case import FrameSource
from .scenes import Luma, Scene

Make = Callable[[], Luma]


def our_luma(scene: Scene, source: FrameSource, spec: ModelSpec) -> Make:
    """Return the runtime's own way for one kind of source; (S, S) uint8."""
    if source == "mjpeg":
        data = scene.jpeg.tobytes()
        return lambda: luma_from_any_jpeg(data, spec)
    if source == "yuv":
        return lambda: luma_from_video_frame(scene.yuv, spec)
    return lambda: fitted_luma(luma_from_image(scene.bgr), spec)


def plain_luma(scene: Scene, source: FrameSource, side: int) -> Make:
    """Return the plain recipe: a colour image of full size, cvtColor, resize by INTER_AREA.

    A decoded YUV frame is first converted by FFmpeg, as PyAV's users do it.
    """

    def colour() -> npt.NDArray[np.uint8]:
        if source == "mjpeg":
            return np.asarray(cv2.imdecode(scene.jpeg, cv2.IMREAD_COLOR), np.uint8)
        if source == "yuv":
            return np.asarray(scene.yuv.to_ndarray(format="bgr24"), np.uint8)
        return scene.bgr

    def luma() -> Luma:
        grey = cv2.cvtColor(colour(), cv2.COLOR_BGR2GRAY)
        return np.asarray(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA), np.uint8)

    return luma
