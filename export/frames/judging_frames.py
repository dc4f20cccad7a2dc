"""Frames that judge an encoder of whole frames, and what the float64 reference makes of them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ...runtime.bundle.frame_format import FrameFormat
from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.reference import Levels, reference_picture
from ...runtime.pixels.yuv import LUMA_WEIGHTS, MATRIX_NUMBERS

Pixels = npt.NDArray[np.uint8]

_TEXTURE = 6  # levels of noise on each pixel: an enlarged picture alone hides a wrong filter
_OWN, _OTHER = 0.7, 0.3  # shares of a picture and of the next one, so that grey ones give colours


def image_from_pictures(pictures: Pixels, number: int, size: tuple[int, int]) -> Pixels:
    """Enlarge one of some fitted pictures to a (height, width, 3) BGR image with texture.

    Of grey pictures, (N, H, W), each channel holds a share of another one.
    """
    count = len(pictures)
    if pictures.ndim == 4:
        small = pictures[number].astype(np.float32)
    else:
        own = pictures[number].astype(np.float32)
        others = [pictures[(number + step) % count] for step in (1, 2, 3)]
        small = np.stack([_OWN * own + _OTHER * other for other in others])
    enlarged = cv2.resize(small.transpose(1, 2, 0), size[::-1], interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(number).integers(-_TEXTURE, _TEXTURE + 1, enlarged.shape)
    return _levels(enlarged + noise)


def frame_from_image(image: Pixels, frame: FrameFormat) -> Pixels:
    """Return a (height, width, 3) BGR image, whose sides are even for NV12, as such a frame."""
    if frame.matrix is None:
        return image
    kr, kb = LUMA_WEIGHTS[MATRIX_NUMBERS[frame.matrix]]
    blue, green, red = image.astype(np.float64).transpose(2, 0, 1)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = np.stack([(blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)], axis=-1)
    height, width = luma.shape
    chroma = chroma.reshape(height // 2, 2, width // 2, 2, 2).mean(axis=(1, 3))
    if frame.range == "limited":
        luma, chroma = 16 + luma * 219 / 255, chroma * 224 / 255
    lines = np.concatenate([luma, 128 + chroma.reshape(height // 2, width)])
    return _levels(lines)


def picture_from_frame(taken: Pixels, frame: FrameFormat, spec: ModelSpec) -> Pixels:
    """Return what the float64 reference makes of a frame: its colours at full size, then fitted.

    Each pixel of NV12 has the chroma of its 2 x 2 pixels.
    """
    if frame.matrix is None:
        return reference_picture(taken, spec)
    kr, kb = LUMA_WEIGHTS[MATRIX_NUMBERS[frame.matrix]]
    height, width = 2 * len(taken) // 3, taken.shape[1]
    luma: Levels = taken[:height].astype(np.float64)
    pairs = taken[height:].reshape(height // 2, width // 2, 2).astype(np.float64) - 128
    cb, cr = pairs.repeat(2, axis=0).repeat(2, axis=1).transpose(2, 0, 1)
    if frame.range == "limited":
        luma, cb, cr = (luma - 16) * 255 / 219, cb * 255 / 224, cr * 255 / 224
    red, blue = luma + (2 - 2 * kr) * cr, luma + (2 - 2 * kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return reference_picture(_levels(np.stack([blue, green, red], axis=-1)), spec)


def _levels(values: npt.NDArray[Any]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
