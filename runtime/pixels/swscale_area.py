"""area_averages: one plane of an image averaged over areas by FFmpeg's scaler."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

PER_LEVEL = 256
"""Averages are counted in so many parts of a level."""
LARGEST_RATIO = 128
"""FFmpeg's filters have at most 256 taps."""
_KEPT = 16


class _Scalers(threading.local):
    """FFmpeg's scalers by what they convert; each thread has its own."""

    def __init__(self) -> None:
        self.by_key: dict[tuple[int | str, ...], VideoReformatter] = {}


_SCALERS = _Scalers()


def scaler_for(*key: int | str) -> VideoReformatter:
    """Return this thread's scaler for a conversion, which it need not set up again.

    Args:
        key: Sizes and formats that it converts from and to.
    """
    scalers = _SCALERS.by_key
    if key not in scalers:
        if len(scalers) >= _KEPT:
            scalers.clear()
        scalers[key] = VideoReformatter()
    return scalers[key]


def area_averages(plane: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint16]:
    """Average a plane over areas, with fractional coverage at their edges.

    Args:
        plane: (H, W) uint8, larger than the size asked for on one axis and at most
            `LARGEST_RATIO` times on both, smaller on neither.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        (height, width) uint16, in units of 1/`PER_LEVEL` of a level: right to 0.1 levels up to a
        ratio of 32, to 0.3 beyond.
    """
    if plane.strides[1] != 1 or plane.strides[0] < plane.shape[1]:
        plane = np.ascontiguousarray(plane)
    scaler = scaler_for(*plane.shape, height, width)
    frame = VideoFrame.from_numpy_buffer(plane, format="gray")
    averages = scaler.reformat(
        frame, width, height, format="gray16le", interpolation="AREA", threads=1
    )
    return averages.to_ndarray().astype(np.uint16, copy=False)
