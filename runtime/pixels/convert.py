"""Frame to model input, the fast conversion of streams; `reference` has what it is held to."""

from __future__ import annotations

import functools
import threading
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import ImageError
from ..core.spec import Color, ModelSpec
from .geometry import AS_CODED, Geometry, stretched
from .orientation import turned
from .resample import PER_LEVEL, Averages, levels_from_averages, resized
from .window import Span, window_of

Pixels = npt.NDArray[np.uint8]
"""A fitted picture: (H, W) grey, or (3, H, W) planes of colour. Before it is fitted, a picture is
(H, W) luma or (H, W, 3) BGR."""

WHITE = 255
COLOUR_BLOCKS = ((8, 6), (4, 6), (2, 4))
"""For `whole_divisor` in colour: pictures full of detail, too, stay within a level."""
_STRIPE = 1 << 18  # samples
_KEPT = 1 << 22  # pixels


def picture_from_image(image: npt.NDArray[Any], color: Color) -> Pixels:
    """Return what a model of this colour takes of an image: 8 bits, alpha over white.

    Takes (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, uint8 or uint16, and returns (H, W)
    luma of BT.601 weights in full range, or (H, W, 3) BGR. What is that already is not copied.
    Anything else is an ImageError.
    """
    if color == "grey":
        return luma_from_image(image)
    image, channels = checked_image(image)
    if image.dtype == np.uint16 or channels == 4:
        found = np.empty((*image.shape[:2], 3), np.uint8)
        for rows in _stripes(image.shape[:2], channels):
            part = _over_white(image[rows])
            found[rows] = part if part.ndim == 3 else part[:, :, None]
        return found
    if channels == 1:
        return np.repeat(image[:, :, None], 3, axis=2)
    return image.astype(np.uint8, copy=False)


def luma_from_image(image: npt.NDArray[Any]) -> Pixels:
    """Return the 8-bit luma of an image as `picture_from_image` takes it, (H, W) uint8."""
    image, channels = checked_image(image)
    if image.dtype == np.uint16 or channels == 4:
        luma = np.empty(image.shape[:2], np.uint8)
        for rows in _stripes(image.shape[:2], channels):
            part = _over_white(image[rows])
            luma[rows] = part if part.ndim == 2 else cv2.cvtColor(part, cv2.COLOR_BGR2GRAY)
        return luma
    if channels == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return image.astype(np.uint8, copy=False)


def checked_image(image: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    """Return an image without an axis of length 1, and its channels; ImageError as above."""
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
    return image, channels


def _stripes(shape: tuple[int, ...], channels: int) -> list[slice]:
    """Cut an image into rows that stay in the cache while they are converted."""
    rows = max(1, _STRIPE // (shape[1] * channels))
    return [slice(top, top + rows) for top in range(0, shape[0], rows)]


def _over_white(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Make 8 bits of 16, and lay what has alpha over white."""
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    if image.ndim == 3 and image.shape[2] == 4:
        alpha = image[:, :, 3:].astype(np.float32) / WHITE
        over_white = image[:, :, :3] * alpha + WHITE * (1 - alpha)
        image = np.rint(over_white).astype(np.uint8)
    return image


def fitted_from_image(
    image: npt.NDArray[Any], spec: ModelSpec, *, is_fitted: bool = False
) -> Pixels:
    """Return an image as the model takes it; what a source has fitted already is that."""
    return image if is_fitted else fitted(picture_from_image(image, spec.color), spec)


def fitted(
    picture: Pixels,
    spec: ModelSpec,
    geometry: Geometry = AS_CODED,
    shape: tuple[int, int] | None = None,
) -> Pixels:
    """Fit (H, W) luma or (H, W, 3) BGR to the model's input; copies if it must.

    The picture is as coded, and what is returned as it is seen: the spec's `picture_shape`. Of a
    copy at a whole fraction of its size, `shape` is the height and width of the picture itself.
    """
    shape = shape or (picture.shape[0], picture.shape[1])
    if spec.color == "grey":
        return turned(_fitted_level(picture, spec, shape, geometry), geometry.orientation)
    if picture.strides[1:] != (3, 1):
        picture = np.ascontiguousarray(picture)
    if picture.shape[:2] == shape:
        divisor = whole_divisor(spec, shape, geometry, COLOUR_BLOCKS)
        if divisor > 1:
            smaller = (shape[1] // divisor, shape[0] // divisor)
            picture = np.asarray(cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA))
    planes = _PLANES.of(*picture.shape[:2])
    cv2.split(picture, planes)
    order = (2, 1, 0) if spec.color == "rgb" else (0, 1, 2)
    return stacked([_fitted_level(planes[one], spec, shape, geometry) for one in order], geometry)


class _Planes(threading.local):
    """Memory for three planes `of` a size; every thread has its own.

    That of video's sizes is kept: to get it anew for each frame takes longer than filling it.
    """

    def __init__(self) -> None:
        self._kept: list[Pixels] = []

    def of(self, height: int, width: int) -> list[Pixels]:
        """Return three planes, (H, W) each, until it is asked again."""
        planes = self._kept
        if not planes or planes[0].shape != (height, width):
            planes = [np.empty((height, width), np.uint8) for _ in range(3)]
            self._kept = planes if height * width <= _KEPT else []
        return planes


_PLANES = _Planes()


@functools.lru_cache(maxsize=64)
def whole_divisor(
    spec: ModelSpec,
    shape: tuple[int, int],
    geometry: Geometry,
    blocks: tuple[tuple[int, int], ...],
    *,
    cuts_blocks: bool = True,
) -> int:
    """Return by how much a picture may be made smaller before it is fitted, by averaging blocks.

    `blocks` are pairs of a divisor and of how many blocks there must be along a pixel of the
    result, for what lies across its edge is shared out by guess. They end where the picture does,
    and unless `cuts_blocks` also where it is cut.
    """
    if spec.interpolation != "area":
        return 1
    placed = placement_of(spec, shape, geometry)
    if placed.shape != shape:
        return 1
    cuts = (*placed.rows, *placed.columns, *placed.canvas_rows, *placed.canvas_columns)
    canvas = placed.canvas_rows.length, placed.canvas_columns.length
    size = placed.size
    if placed.letterbox is not None:
        size = placed.letterbox[0].length, placed.letterbox[1].length
    for divisor, fewest in blocks:
        is_whole = not any(length % divisor for length in (*shape, *(() if cuts_blocks else cuts)))
        if is_whole and all(
            length >= divisor * fewest * pixels for length, pixels in zip(canvas, size, strict=True)
        ):
            return divisor
    return 1


def stacked(planes: list[Pixels], geometry: Geometry) -> Pixels:
    """Turn planes and put them together, (3, H, W)."""
    return np.stack([turned(plane, geometry.orientation) for plane in planes])


def _fitted_level(
    plane: Pixels, spec: ModelSpec, shape: tuple[int, int], geometry: Geometry
) -> Pixels:
    if plane.shape == shape and placement_of(spec, shape, geometry).is_identity(shape):
        return plane
    return levels_from_averages(fitted_plane(plane, spec, shape, geometry=geometry))


def image_from_picture(picture: Pixels, color: Color) -> Pixels:
    """Return a fitted picture as OpenCV has images: (H, W), or (H, W, 3) BGR."""
    if picture.ndim == 2:
        return picture
    planes = picture[::-1] if color == "rgb" else picture
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def picture_of_size(image: Pixels, color: Color) -> Pixels:
    """Return an image that has the input's size as a fitted picture; undoes the above."""
    if image.ndim == 2:
        return image
    planes = image.transpose(2, 0, 1)
    return np.ascontiguousarray(planes[::-1] if color == "rgb" else planes)


def batch_of(pictures: Pixels) -> Pixels:
    """Return fitted pictures, (N, H, W) or (N, C, H, W), as (N, C, H, W), not copied."""
    return pictures[:, None] if pictures.ndim == 3 else pictures


def input_from_pixels(pictures: Pixels) -> npt.NDArray[np.float32]:
    """Return fitted pictures, as of `batch_of`, as an encoder's input: float32 in [0, 1]."""
    batch = batch_of(pictures)
    out = np.empty(batch.shape, np.float32)
    write_input(batch, out)
    return out


def write_input(pixels: Pixels, out: npt.NDArray[Any]) -> None:
    """Write fitted pictures into an encoder's input: uint8, or float32 in [0, 1]."""
    pixels = pixels.reshape(out.shape)
    if out.dtype == np.uint8:
        np.copyto(out, pixels)
    else:
        np.multiply(pixels, np.float32(1 / 255), out=out)


class Placement(NamedTuple):
    """A `Window` along the axes of a picture as it is coded, and what it is resized to."""

    shape: tuple[int, int]  # of the coded picture, of square pixels where the window asks for that
    rows: Span
    columns: Span
    canvas_rows: Span
    canvas_columns: Span
    size: tuple[int, int]  # height and width of the input, before it is turned
    letterbox: tuple[Span, Span] | None = None  # what of the input is not white, where that is said

    @property
    def is_padded(self) -> bool:
        """Whether there is anything white around the picture."""
        if self.letterbox is not None:
            return self.letterbox != (Span(0, self.size[0]), Span(0, self.size[1]))
        return (self.rows, self.columns) != (self.canvas_rows, self.canvas_columns)

    @property
    def inside(self) -> tuple[int, int, int, int] | None:
        """Top, height, left and width of the picture in the input; None where it ends in pixels."""
        if self.letterbox is not None:
            rows, columns = self.letterbox
            return *rows, *columns
        found: list[int] = []
        for span, canvas, size in (
            (self.rows, self.canvas_rows, self.size[0]),
            (self.columns, self.canvas_columns, self.size[1]),
        ):
            start, begins_within = divmod((span.start - canvas.start) * size, canvas.length)
            length, ends_within = divmod(span.length * size, canvas.length)
            if begins_within or ends_within or not length:
                return None
            found += [start, length]
        top, tall, left, wide = found
        return top, tall, left, wide

    def is_identity(self, shape: tuple[int, int]) -> bool:
        """Whether a picture of this shape is taken as it is."""
        whole = (Span(0, shape[0]), Span(0, shape[1]))
        is_all = shape == self.size and (self.canvas_rows, self.canvas_columns) == whole
        return is_all and not self.is_padded


@functools.lru_cache(maxsize=64)
def placement_of(
    spec: ModelSpec, shape: tuple[int, int], geometry: Geometry = AS_CODED
) -> Placement:
    """Return which part of a coded picture of a (height, width) becomes the input, and where."""
    if geometry.aspect != 1 and (spec.fit != "stretch" or spec.crop_box is not None):
        shape = geometry.square_shape(shape)
    swaps = geometry.swaps_axes
    window = window_of(spec, shape[::-1] if swaps else shape)
    size = (spec.width, spec.height) if swaps else (spec.height, spec.width)
    seen = [(window.rows, window.canvas_rows), (window.columns, window.canvas_columns)]
    coded, inside = seen[::-1] if swaps else seen, [*(window.inside or ())]
    inside = inside[::-1] if swaps else inside
    for axis, is_reversed in enumerate(geometry.reversed_axes):
        if is_reversed:
            first, second = coded[axis]
            coded[axis] = first.reversed(shape[axis]), second.reversed(shape[axis])
            inside[axis : axis + 1] = [one.reversed(size[axis]) for one in inside[axis : axis + 1]]
    (rows, canvas_rows), (columns, canvas_columns) = coded
    letterbox = (inside[0], inside[1]) if inside else None
    return Placement(shape, rows, columns, canvas_rows, canvas_columns, size, letterbox)


def fitted_plane(
    plane: Pixels,
    spec: ModelSpec,
    shape: tuple[int, int],
    white: int = WHITE,
    geometry: Geometry = AS_CODED,
) -> Averages:
    """Fit one plane of an image of a `shape` (height, width) to the model's input.

    The (H, W) uint8 plane is all of the image, at full size or at a whole fraction of it, as a
    plane of 4:2:0 chroma is; a padded border is `white`. Returns uint16 of the input's height and
    width, not turned yet, in units of 1/256 of a level. What is too long to be padded, or of which
    the crop box takes nothing, is an ImageError.
    """
    placed = placement_of(spec, shape, geometry)
    if placed.shape != shape:
        down, across = (
            round(to * length / whole)
            for to, length, whole in zip(placed.shape, plane.shape, shape, strict=True)
        )
        plane, shape = stretched(plane, (down, across)), placed.shape
    height, width = placed.size
    spans = placed.rows, placed.columns
    if not placed.is_padded:
        plane, _ = _part(plane, shape, spans, spans)
        return resized(plane, height, width, spec.interpolation)
    inside = placed.inside
    is_letterbox = placed.letterbox is not None
    if inside is not None and (is_letterbox or spec.interpolation == "area"):
        # The border ends where pixels of the result do, so it need not be averaged.
        top, tall, left, wide = inside
        part, _ = _part(plane, shape, spans, spans)
        if is_letterbox or (part.shape[0] >= tall and part.shape[1] >= wide):
            fitted_ = np.full((height, width), white * PER_LEVEL, np.uint16)
            small = resized(part, tall, wide, spec.interpolation)
            fitted_[top : top + tall, left : left + wide] = small
            return fitted_
    canvases = placed.canvas_rows, placed.canvas_columns
    plane, scales = _part(plane, shape, spans, canvases)
    margins = [
        _margins(span, canvas, length, scale)
        for span, canvas, length, scale in zip(spans, canvases, plane.shape, scales, strict=True)
    ]
    plane = cv2.copyMakeBorder(  # type: ignore[assignment]
        plane, *margins[0], *margins[1], cv2.BORDER_CONSTANT, value=(white,)
    )
    return resized(plane, height, width, spec.interpolation)


def _margins(span: Span, canvas: Span, length: int, scale: float) -> tuple[int, int]:
    """Return how much of a canvas lies before and behind so many lines of a plane."""
    before = round((span.start - canvas.start) * scale)
    return before, max(0, round(canvas.length * scale) - length - before)


def _part(
    plane: Pixels,
    shape: tuple[int, int],
    spans: tuple[Span, Span],
    canvases: tuple[Span, Span],
) -> tuple[Pixels, tuple[float, float]]:
    """Cut rows and columns out of a plane, and return how many of its lines a pixel has then.

    `shape` and both spans are in pixels of the picture. Where one of them ends within a line of
    a plane at a fraction of that size, its lines are repeated, such that none is cut.
    """
    scales = [1.0, 1.0]
    for axis, (whole, span, canvas) in enumerate(zip(shape, spans, canvases, strict=True)):
        length, stop = plane.shape[axis], span.start + span.length
        scales[axis] = scale = length / whole
        if span == canvas == (0, whole):
            continue
        fewer = round(whole / length)
        ends = {span.start, stop, canvas.start, canvas.start + canvas.length} - {whole}
        if length == -(-whole // fewer) and any(end % fewer for end in ends):
            first, last = span.start // fewer, -(-stop // fewer)
            size = (last - first) * fewer
            lines = _lines(plane, axis, first, last)
            across, down = (lines.shape[1], size) if axis == 0 else (size, lines.shape[0])
            lines = cv2.resize(lines, (across, down), interpolation=cv2.INTER_NEAREST)  # type: ignore[assignment]
            first, last, scales[axis] = span.start - first * fewer, stop - first * fewer, 1.0
            plane = _lines(lines, axis, first, last)
        else:
            # Of a plane of chroma so thin that none of it is left, its first line is.
            first = min(round(span.start * scale), length - 1)
            plane = _lines(plane, axis, first, max(round(stop * scale), first + 1))
    return plane, (scales[0], scales[1])


def _lines(plane: Pixels, axis: int, first: int, last: int) -> Pixels:
    return plane[first:last] if axis == 0 else plane[:, first:last]
