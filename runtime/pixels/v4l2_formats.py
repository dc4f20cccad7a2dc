"""luma_from_raw: what a camera delivers, not yet converted, to fitted luma."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..core.frame import Mode
from ..core.spec import ModelSpec
from .jpeg import luma_from_jpeg
from .resize import Luma
from .yuv import luma_from_limited

_JPEG = {"MJPG", "JPEG"}
_PACKED = {"YUYV": 0, "YUY2": 0, "UYVY": 1}
"""Where Y lies in each pair of bytes."""
_PLANAR = {"NV12", "NV21", "YU12", "I420", "YV12"}
RAW_FORMATS = _JPEG | _PACKED.keys() | _PLANAR
"""Formats of which luma is made here; by their four letters."""


def luma_from_raw(raw: npt.NDArray[Any], mode: Mode, spec: ModelSpec) -> Luma | None:
    """Turn a frame as a camera delivers it into fitted luma.

    YUV is taken for limited range, BT.601, as OpenCV takes it when it converts.

    Args:
        raw: uint8 as OpenCV hands it over unconverted: (1, N) bytes of a JPEG, (H, W, 2) packed, or
            (H * 3 / 2, W) in planes.
        mode: How the camera delivers; None is returned where the array is not what that implies.
        spec: Gives the side S of the result, (S, S) uint8, and the fit.
    """
    height, width = mode.height or 0, mode.width or 0
    if raw.dtype != np.uint8:
        return None
    if mode.fourcc in _JPEG and raw.size in raw.shape:
        return luma_from_jpeg(raw.tobytes(), spec)
    if height * width == 0:
        return None
    if mode.fourcc in _PACKED and raw.shape == (height, width, 2):
        y = cv2.extractChannel(raw, _PACKED[mode.fourcc])
        return luma_from_limited(y.astype(np.uint8, copy=False), spec)
    if mode.fourcc in _PLANAR and raw.shape == (height * 3 // 2, width):
        return luma_from_limited(raw[:height], spec)
    return None
