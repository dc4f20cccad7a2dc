"""What a frame consists of: interleaved numbers, and what each weighs in a channel of the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...runtime.bundle.frame_format import FrameFormat
from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.reference import WHITE, Levels
from ...runtime.pixels.yuv import LUMA_WEIGHTS, MATRIX_NUMBERS

_BT601_RGB = np.array([[0.299, 0.587, 0.114]])
_LIMITED_WHITE, _LIMITED_Y, _LIMITED_CHROMA = 235, 219, 224  # levels of white, and of the ranges
_NO_WEIGHT = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Lines of a frame that hold pixels of some numbers each."""

    mix: Levels  # (C, numbers): what each weighs in each channel of the model; 1 for all is (1, 1)
    white: Levels  # (numbers,): of a white frame
    step: int = 1  # of so many pixels of the frame, along each axis, one is kept
    is_below: bool = False  # whether its lines lie below those of a part without a step

    @property
    def numbers(self) -> int:
        """How many numbers a pixel has."""
        return int(self.mix.shape[1])

    @property
    def levels_of_white(self) -> Levels:
        """(C, 1, 1) or (1, 1, 1): what a white frame adds to each channel."""
        return np.asarray((self.mix @ self.white)[:, None, None], np.float64)


def parts_of(frame: FrameFormat, spec: ModelSpec) -> list[Part]:
    """Return the parts of a frame that count; they add up to what a channel has beyond black.

    BGR is one part; NV12 is Y, and Cb and Cr unless the model is grey and Y is BT.601 luma.
    """
    reversed_ = np.eye(3)[::-1]
    to_channels = {"grey": _BT601_RGB, "rgb": np.eye(3), "bgr": reversed_}[spec.color]
    if frame.matrix is None:
        return [Part(to_channels @ reversed_, np.full(3, float(WHITE)))]
    # R = Y + 2 (1 - Kr) Cr, B = Y + 2 (1 - Kb) Cb and Y = Kr R + Kg G + Kb B: ITU-T H.273, 8.3
    kr, kb = LUMA_WEIGHTS[MATRIX_NUMBERS[frame.matrix]]
    kg = 1 - kr - kb
    of_cb, of_cr = 2 * (1 - kb), 2 * (1 - kr)
    to_rgb = np.array([[0, of_cr], [-of_cb * kb / kg, -of_cr * kr / kg], [of_cb, 0]])
    is_limited = frame.range == "limited"
    y_gain, chroma_gain = (
        (WHITE / _LIMITED_Y, WHITE / _LIMITED_CHROMA) if is_limited else (1.0, 1.0)
    )
    y = Part(np.array([[y_gain]]), np.array([float(_LIMITED_WHITE if is_limited else WHITE)]))
    mix = to_channels @ to_rgb * chroma_gain
    if np.abs(mix).max() < _NO_WEIGHT:
        return [y]
    return [y, Part(mix, np.array([128.0, 128.0]), step=2, is_below=True)]
