"""Frame to model input: the one path that training images and camera frames both take."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import ImageError
from ..core.spec import ModelSpec
from .resize import WHITE, Luma, fitted_plane, levels_from_averages


def luma_from_image(image: npt.NDArray[Any]) -> Luma:
    """Return the 8-bit luma of an image: BT.601 weights, full range, alpha over white.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA; uint8 or uint16.

    Returns:
        (H, W) uint8. A grey uint8 image is returned as it is, not copied.

    Raises:
        ImageError: Any other shape or dtype.
    """
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if channels not in {1, 3, 4} or image.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise ImageError(
            f"image of shape {image.shape} and dtype {image.dtype}: "
            "expected 8- or 16-bit grey, BGR or BGRA; convert it first"
        )
    if image.size == 0:
        raise ImageError(f"image of shape {image.shape} has no pixels: replace it")
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    if channels == 4:
        alpha = image[:, :, 3:].astype(np.float32) / WHITE
        over_white = image[:, :, :3] * alpha + WHITE * (1 - alpha)
        image = np.rint(over_white).astype(np.uint8)
    if channels > 1:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return image.astype(np.uint8, copy=False)


def fitted_luma(luma: Luma, spec: ModelSpec) -> Luma:
    """Fit (H, W) uint8 luma to the model's square by averaging over areas.

    Returns:
        (S, S) uint8; `luma` itself where nothing has to change.
    """
    if luma.shape == (spec.image_size, spec.image_size):
        return luma
    return levels_from_averages(fitted_plane(luma, spec, luma.shape))


def input_from_luma(
    luma: Luma, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """Return uint8 luma of any shape times 1/255 as float32: in `out`, or in a new array."""
    if out is None:
        out = np.empty(luma.shape, np.float32)
    np.multiply(luma, np.float32(1 / 255), out=out)
    return out


def write_input(luma: Luma, out: npt.NDArray[Any]) -> None:
    """Write fitted luma, (S, S) uint8, into an encoder's input buffer of that shape.

    It stays uint8 for a graph that scales it itself; a float32 buffer gets [0, 1].
    """
    if out.dtype == np.uint8:
        np.copyto(out, luma)
    else:
        input_from_luma(luma, out)
