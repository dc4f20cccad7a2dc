"""reference_picture: an image to the model's pixels in float64; faster paths are held to it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import ImageError
from ..core.spec import Interpolation, ModelSpec
from .convert import checked_image

Levels = npt.NDArray[np.float64]

WHITE = 255
_BT601 = np.array([114.0, 587.0, 299.0])  # of B, G, R, in 1/1000, so that halves are exact
"""Full range: ITU-R BT.601-7, section 2.5.1."""
_STRIPE = 1 << 20  # samples; a large picture in float64 takes eight times its memory
CUBIC = -0.5  # a of Keys, "Cubic convolution interpolation", 1981; Pillow's, not OpenCV's -0.75
SUPPORTS: dict[Interpolation, int] = {"bilinear": 1, "bicubic": 2, "lanczos": 3}
"""How far filters reach that are widened where an axis shrinks, in pixels of the result."""


def reference_picture(image: npt.NDArray[Any], spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """Turn an image into a fitted picture as the contract has it, in float64, without short cuts.

    What the crop box leaves is put over white where it has alpha, made luma of 8 bits where the
    model is grey, fitted, resized along one axis and along the other, and rounded to levels.
    Takes (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, uint8 or uint16, as it is seen;
    returns `spec.picture_shape` uint8, colour planes in the order of `spec.color`. Anything else
    is an ImageError, and so is an image of which the crop box takes nothing.
    """
    image, _ = checked_image(image)
    image = image.reshape(*image.shape[:2], -1)
    try:
        top, left, *taken = spec.box_of((image.shape[0], image.shape[1]))
    except ValueError as error:
        raise ImageError(str(error), fix="give larger images, or another --crop") from error
    image = image[top : top + taken[0], left : left + taken[1]]
    down, across = fitted_weights((taken[0], taken[1]), spec)
    # White is what weights do not reach; of how dark a pixel is, that is nothing.
    darkness = np.zeros(spec.input_shape)
    rows = max(1, _STRIPE // image[:1].size)
    for first in range(0, len(image), rows):
        stripe = WHITE - _planes(image[first : first + rows], spec)
        darkness += down[:, first : first + rows] @ (stripe @ across.T)
    picture = np.rint(np.clip(WHITE - darkness, 0, WHITE)).astype(np.uint8)
    return picture.reshape(spec.picture_shape)


def fitted_weights(shape: tuple[int, int], spec: ModelSpec) -> tuple[Levels, Levels]:
    """Return what rows and columns of a (height, width) image weigh in those of the input.

    They are (H, height) and (W, width); what they lack to 1 is white. The shape is that of what the
    crop box leaves.
    """
    sides = (spec.height, spec.width)
    if spec.fit == "letterbox":
        factor = min(Fraction(side, length) for side, length in zip(sides, shape, strict=True))
        found = []
        for side, length in zip(sides, shape, strict=True):
            size = max(1, int(factor * length))
            weights = np.zeros((side, length))
            before = (side - size) // 2
            weights[before : before + size] = axis_weights(length, size, spec.interpolation)
            found.append(weights)
        return found[0], found[1]
    region = fitted_region(shape, spec)
    ends = zip(shape, sides, region[:2], region[2:], strict=True)
    down, across = (
        axis_weights(length, size, spec.interpolation, start, start + whole)
        for length, size, start, whole in ends
    )
    return down, across


def fitted_region(shape: tuple[int, int], spec: ModelSpec) -> tuple[int, int, int, int]:
    """Return top, left, height and width of what is resized of a (height, width) image.

    The shape is that of what the crop box leaves. `crop` takes a part of it that has the model's
    aspect ratio to half a pixel, `pad` what is around it, so that top or left are negative. Of an
    odd rest the larger half lies behind.
    """
    height, width = shape
    too_wide = width * spec.height > height * spec.width
    if spec.fit == "stretch" or width * spec.height == height * spec.width:
        return 0, 0, height, width
    if too_wide == (spec.fit == "crop"):
        taken = max(1, _rounded(height * spec.width, spec.height))
        return 0, _before(width, taken), height, taken
    taken = max(1, _rounded(width * spec.height, spec.width))
    return _before(height, taken), 0, taken, width


def axis_weights(
    length: int,
    size: int,
    interpolation: Interpolation,
    start: int = 0,
    stop: int | None = None,
) -> Levels:
    """Return (size, length): what each pixel of an axis weighs in each pixel of the result.

    The pixels from `start` up to `stop`, by default all, become `size` pixels. A row sums up to 1
    but for what lies beyond the axis, where a border is. Filters end where the interval does.

    `area` averages, with fractional coverage; an axis that grows is `bilinear-no-antialias`, which
    reads two pixels around a centre. `bilinear`, `bicubic` and `lanczos` are Pillow's:
    filters of a support of 1, 2 and 3, widened by the ratio where the axis shrinks.
    """
    whole = (length if stop is None else stop) - start
    ratio = whole / size
    numbers = np.arange(size)[:, None]
    if interpolation == "area" and whole > size:
        first = np.floor(numbers * ratio)
        pixels = first + np.arange(int(np.ceil(ratio)) + 1)
        weights = np.minimum((numbers + 1) * ratio, pixels + 1) - np.maximum(
            numbers * ratio, pixels
        )
    else:
        centres = (numbers + 0.5) * ratio - 0.5
        is_widened = interpolation in SUPPORTS
        if not is_widened:
            centres = np.clip(centres, 0, whole - 1)
        support = SUPPORTS.get(interpolation, 1)
        scale = max(ratio, 1.0) if is_widened else 1.0
        pixels = np.ceil(centres - support * scale) + np.arange(int(2 * support * scale) + 1)
        distances = np.abs(pixels - centres) / scale
        weights = 1 - distances
        if interpolation == "bicubic":
            weights = _cubic(distances)
        elif interpolation == "lanczos":
            weights = np.sinc(distances) * np.sinc(distances / support)
        weights[distances >= support] = 0
    is_signed = interpolation in {"bicubic", "lanczos"}
    weights = np.where((pixels >= 0) & (pixels < whole), weights, 0)
    weights = weights if is_signed else np.maximum(weights, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    found: Levels = np.zeros((size, length))
    columns = pixels.astype(np.int64) + start
    is_inside = (weights != 0) & (columns >= 0) & (columns < length)
    found[np.nonzero(is_inside)[0], columns[is_inside]] = weights[is_inside]
    return found


def _cubic(distances: Levels) -> Levels:
    near = ((CUBIC + 2) * distances - (CUBIC + 3)) * distances**2 + 1
    far = (((distances - 5) * distances + 8) * distances - 4) * CUBIC
    return np.asarray(np.where(distances < 1, near, far), np.float64)


def _planes(image: npt.NDArray[Any], spec: ModelSpec) -> Levels:
    """Return (C, H, W) levels, whole ones, of (H, W, 1, 3 or 4) pixels."""
    levels: Levels = image.astype(np.float64)
    if image.dtype == np.uint16:
        levels = np.rint(levels / 257)
    if levels.shape[2] == 4:
        alpha = levels[:, :, 3:] / WHITE
        levels = np.rint(levels[:, :, :3] * alpha + WHITE * (1 - alpha))
    if spec.color == "grey":
        if levels.shape[2] == 3:
            levels = np.rint(levels @ _BT601 / 1000)[:, :, None]
        grey: Levels = np.ascontiguousarray(levels.transpose(2, 0, 1))
        return grey
    levels = levels.transpose(2, 0, 1)
    planes = levels[::-1] if spec.color == "rgb" else levels
    # Contiguous, or numpy multiplies without BLAS: 20 times slower.
    return np.ascontiguousarray(np.broadcast_to(planes, (3, *levels.shape[1:])))


def _rounded(dividend: int, divisor: int) -> int:
    return (2 * dividend + divisor) // (2 * divisor)


def _before(length: int, taken: int) -> int:
    rest = length - taken
    return rest // 2 if rest > 0 else -(-rest // 2)
