"""What cameras deliver: one scene as a BGR frame, as JPEG bytes, and as a YUV 4:2:0 frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ...runtime.sources.synthetic.vehicles import vehicle
from .model_under_test import array_sha256

JPEG_QUALITY = 88
_TEXTURE = ((16, 14.0), (64, 10.0), (256, 8.0))
"""Cells across the frame, and how many levels they differ: ground and foliage, roughly."""
_NOISE_LEVELS = 4.0
"""Standard deviation. With it a pixel takes as many bytes of JPEG as in a surveillance video."""


@dataclass(frozen=True)
class Scene:
    """One scene in the forms in which a path can begin.

    Attributes:
        bgr: (H, W, 3) uint8.
        jpeg: The same as JPEG bytes, (N,) uint8.
        yuv: The same as a decoder hands it out: YUV 4:2:0 of limited range.
    """

    bgr: npt.NDArray[np.uint8]
    jpeg: npt.NDArray[np.uint8]
    yuv: VideoFrame

    @property
    def sha256(self) -> str:
        """Identity of the pixels from which the other forms were made."""
        return array_sha256(self.bgr)


def scene_of(width: int, height: int, seed: int) -> Scene:
    """Return a scene as a camera would deliver it."""
    bgr = frame_of(width, height, seed)
    # FFmpeg's own conversion is two levels too dark on bright pictures unless told to be exact.
    planes = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420), np.uint8)
    return Scene(bgr, jpeg_of(bgr), VideoFrame.from_ndarray(planes, "yuv420p"))


def frame_of(width: int, height: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return a vehicle under texture and sensor noise, (H, W, 3) BGR uint8."""
    random = np.random.default_rng(seed)
    luma, _ = vehicle(seed, 0)
    grey = cv2.resize(luma, (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.float32)
    for cells, levels in _TEXTURE:
        coarse = random.normal(0, levels, (max(2, cells * height // width), cells, 3))
        image += cv2.resize(
            coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
    image += random.normal(0, _NOISE_LEVELS, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def jpeg_of(bgr: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a frame as JPEG bytes, (N,) uint8, as cheap cameras encode: 4:2:0."""
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return np.asarray(encoded, np.uint8).reshape(-1)
