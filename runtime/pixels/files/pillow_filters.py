"""Resizing by Pillow's filters, which widen where an image shrinks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...core.spec import Interpolation

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def filtered(
    plane: npt.NDArray[np.uint8], height: int, width: int, interpolation: Interpolation
) -> npt.NDArray[np.uint8]:
    """Resize an (H, W) uint8 plane to (height, width) levels; a KeyError for "area"."""
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize((width, height), _FILTERS[interpolation]), np.uint8)
