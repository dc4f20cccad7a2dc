"""Sketch: a vehicle's rounded shapes, standing on the ground and painted in perspective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
_Corner = tuple[float, float, float]  # x, y, and how much of each edge its rounding may take
_Image = npt.NDArray[np.uint8]
_Points = npt.NDArray[np.int32]  # (N, 2)

WHITE = 255
# OpenCV's anti-aliased edges are half a pixel wide on either side; at twice the size that
# fattening is halved, and area averaging by 2 is its fastest case.
_OVERSAMPLING = 2
_MIN_CANVAS = 512
_SHIFT = 8  # fractional bits of a coordinate handed to OpenCV

# Where each corner's quadratic Bezier curve is sampled. Its ends are left out: neighbouring
# corners often share them, and a doubled point shows as a dark speck.
_CURVE = np.array([0.12, 0.37, 0.63, 0.88], np.float32)
_BEZIER = np.stack([(1 - _CURVE) ** 2, 2 * _CURVE * (1 - _CURVE), _CURVE**2], axis=1)
_SAMPLES = len(_CURVE)

# The pinhole camera, in image sides.
_CAMERA_DISTANCE = 2.6
_EYE_HEIGHT = 0.46

_SHADOW_LENGTH = 1.12  # of the vehicle's length
_SHADOW_HEIGHT = 1.5  # of a wheel's radius
_SMALL_DISC = 0.015  # image sides
FULLY_ROUND = 1.0  # more than half of any edge, to which a rounding is limited


def _ring(corners: int) -> list[Point]:
    """Corners of the regular polygon around the unit circle, one of its edges at the top."""
    outside = 1 / math.cos(math.pi / corners)
    angles = (math.pi * (2 * corner + 1) / corners for corner in range(corners))
    return [(outside * math.cos(angle), outside * math.sin(angle)) for angle in angles]


# Rounded as far as its edges allow, an octagon is a circle to the eye, and a square is one
# where it is a few pixels wide.
_OCTAGON, _SQUARE = _ring(8), _ring(4)


@dataclass(frozen=True, slots=True)
class VehicleFactors:
    """The true factors of an image; lengths are in image sides. `RANGES` holds what is drawn."""

    body: str  # car, van, pickup or bus
    heading: float  # 1 drives to the right, -1 to the left
    length: float  # from bumper to bumper
    height: float  # from the ground to the roof
    # 0 short to 1 long: coupe to estate, panel van to crew van, single to double cab; how far a
    # bus's windows reach down.
    cabin: float
    nose: float  # 0 short to 1 long bonnet; how far a bus's windscreen leans back
    wheel: float  # radius
    shade: float  # luma of the paint, 0 black to 1 white
    x: float  # middle, from the left; a part may be outside the image
    y: float  # ground line, from the top
    perspective: float  # turn in radians: above 0 the front face shows, below 0 the rear face
    shadow: float  # darkness, 0 none to 1 black


class Sketch:
    """Filled shapes in painting order.

    Places are given as (u, v): u from 0 at the rear to 1 at the front, v from 0 on the ground to
    1 at the roof. Other lengths are in image sides. Lumas go from 0 black to 1 white, depths from
    0 on the near side to 1 on the far side, which is `width` away.
    """

    def __init__(self, factors: VehicleFactors, width: float) -> None:
        self.factors, self._width = factors, width
        self._corners: list[_Corner] = []
        self._shapes: list[tuple[int, float, float]] = []  # number of the first corner, luma, depth
        self._hull = -1
        self._skins: list[float] = []

    def paint(self, light: float) -> float:
        """Return the paint's luma in a light of -1 black, 0 the shade itself, to 1 white."""
        shade = self.factors.shade
        return shade + light * (1 - shade) if light > 0 else shade * (1 + light)

    def shape(
        self, corners: Sequence[Point], luma: float, *, radius: float = 0.0, depth: float = 0.0
    ) -> None:
        """Add a polygon; `radius` is how much of each edge a corner's rounding may take."""
        self._add([(*self._at(*corner), radius) for corner in corners], luma, depth)

    def disc(self, centre: Point, radius: float, luma: float, *, depth: float = 0.0) -> None:
        """Add a circle around a place given as u and the height above the ground."""
        x, y = self._at(centre[0], 0)[0], centre[1]
        around = _OCTAGON if radius > _SMALL_DISC else _SQUARE
        ring = [(x + radius * across, y + radius * up, FULLY_ROUND) for across, up in around]
        self._add(ring, luma, depth)

    def line(self, start: Point, end: Point, luma: float, *, width: float = 0.0028) -> None:
        """Add a straight stroke; by default as wide as the gap between two panels."""
        (x0, y0), (x1, y1) = self._at(*start), self._at(*end)
        half = width / 2 / math.hypot(x1 - x0, y1 - y0)
        dx, dy = (x1 - x0) * half, (y1 - y0) * half
        sides = [(x0 - dy, y0 + dx), (x1 - dy, y1 + dx), (x1 + dy, y1 - dx), (x0 + dy, y0 - dx)]
        self._add([(x, y, 0.0) for x, y in sides], luma)

    def hull(self, profile: Sequence[tuple[float, float, float, float]]) -> None:
        """Add the one solid: a side view, painted in the shade, pushed from near side to far side.

        `profile` is clockwise when the front is at the right: u, v and radius (above 0) of each
        corner, and the luma of the surface from there to the next one.
        """
        outline = [(*self._at(u, v), radius) for u, v, radius, _ in profile]
        self._add(outline, self.factors.shade, 1.0)
        self._hull = len(self._shapes)
        self._add(outline, self.factors.shade)
        self._skins = [skin for *_, skin in profile]

    def image(self, size: int) -> _Image:
        """Paint the shadow and then every shape on white; (size, size) uint8 luma."""
        factors, scale = self.factors, max(_OVERSAMPLING, math.ceil(_MIN_CANVAS / size))
        points, ends = self._projected(size * scale)
        # Only the rows that are reached get a canvas: fresh memory costs more than painting.
        reach = points[:, 1] / ((1 << _SHIFT) * scale)
        shadow = _SHADOW_HEIGHT / 2 * factors.wheel
        highest = min(float(reach.min()), (factors.y - shadow) * size)
        lowest = max(float(reach.max()), (factors.y + shadow) * size)
        top = min(size, max(0, math.floor(highest) - 1))
        bottom = min(size, max(0, math.ceil(lowest) + 2))

        image = np.full((size, size), WHITE, np.uint8)
        if top < bottom:
            canvas = np.full(((bottom - top) * scale, size * scale), WHITE, np.uint8)
            _paint_shadow(canvas, factors, factors.y - top / size)
            points[:, 1] -= top * scale << _SHIFT
            outlines = [points[start:end] for start, end in zip([0, *ends], ends, strict=False)]
            for index, (outline, (_, luma, _)) in enumerate(
                zip(outlines, self._shapes, strict=True)
            ):
                if index == self._hull:
                    self._paint_skins(canvas, outlines[index - 1], outline)
                _fill(canvas, outline, luma)
            cv2.resize(
                canvas, (size, bottom - top), image[top:bottom], interpolation=cv2.INTER_AREA
            )
        return image

    def _at(self, u: float, v: float) -> Point:
        return (u - 0.5) * self.factors.length, v * self.factors.height

    def _add(self, corners: list[_Corner], luma: float, depth: float = 0.0) -> None:
        self._shapes.append((len(self._corners), luma, depth))
        self._corners.extend(corners)

    def _projected(self, side: int) -> tuple[_Points, list[int]]:
        """Round and project all shapes at once, onto a canvas `side` pixels wide.

        The points have `_SHIFT` fractional bits; for each shape the end of its points comes along.
        """
        factors = self.factors
        starts, _, depths = (np.array(column) for column in zip(*self._shapes, strict=True))
        points, ends = _rounded(np.array(self._corners, np.float32), starts)
        depth = (depths.astype(np.float32) - 0.5) * self._width
        depth = np.repeat(depth, np.diff(ends, prepend=0))
        cos, sin = math.cos(factors.perspective), math.sin(factors.perspective)
        x, y = points[:, 0], points[:, 1]
        scale = _CAMERA_DISTANCE / (_CAMERA_DISTANCE + depth * cos - x * sin)
        seen = np.empty_like(points)
        seen[:, 0] = factors.x + factors.heading * (x * cos + depth * sin) * scale
        seen[:, 1] = factors.y - _EYE_HEIGHT + (_EYE_HEIGHT - y) * scale
        # A pixel's centre, not its corner, has whole coordinates.
        return np.rint((seen * side - 0.5) * (1 << _SHIFT)).astype(np.int32), ends.tolist()

    def _paint_skins(self, canvas: _Image, far: _Points, near: _Points) -> None:
        """Paint the surfaces between the two sides that face us."""
        # From the middle of one corner's curve to the middle of the next one's.
        near, far = (np.concatenate([side, side[:_SAMPLES]]) for side in (near, far))
        middles = slice(_SAMPLES // 2, None, _SAMPLES)
        along = np.diff(near[middles], axis=0).astype(np.int64)  # their product needs 64 bits
        across = (far - near)[middles]
        across = across[1:] + across[:-1]
        # The far edge of a surface that faces us lies outside the near outline.
        turn = along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]
        for index in np.flatnonzero(turn * self.factors.heading < 0).tolist():
            first = index * _SAMPLES + _SAMPLES // 2 - 1
            last = first + _SAMPLES + 2
            strip = np.concatenate([near[first:last], far[first:last][::-1]])
            _fill(canvas, strip, self._skins[index])


def _paint_shadow(canvas: _Image, factors: VehicleFactors, y: float) -> None:
    """Darken a soft patch of a white canvas around the ground line `y`, in place."""
    height, width = canvas.shape
    half_length, half_height = (
        _SHADOW_LENGTH / 2 * factors.length,
        _SHADOW_HEIGHT / 2 * factors.wheel,
    )
    columns, across = _soft_edge(width, factors.x * width, half_length * width, 3.0)
    rows, down = _soft_edge(height, y * width, half_height * width, 1.0)
    patch = down[:, None] * (across * np.float32(-factors.shadow * WHITE))
    patch += WHITE + 0.5  # rounds when the fraction is cut off
    canvas[rows, columns] = patch.astype(np.uint8)


def _soft_edge(
    side: int, centre: float, half: float, sharpness: float
) -> tuple[slice, npt.NDArray[np.float32]]:
    """Return the pixels of an interval, and a weight for each: 1 inside, smoothly 0 at its ends."""
    first = min(side, max(0, math.floor(centre - half)))
    last = min(side, max(first, math.ceil(centre + half)))
    place = np.arange(first, last, dtype=np.float32) - np.float32(centre - 0.5)
    inward = np.clip((1 - np.abs(place) / np.float32(half)) * np.float32(sharpness), 0, 1)
    return slice(first, last), inward * inward * (3 - 2 * inward)


def _rounded(
    corners: npt.NDArray[np.float32], starts: npt.NDArray[np.int_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int_]]:
    """Replace each corner of closed polygons by a curve of `_SAMPLES` points, if it has a radius.

    Returns (points, 2) float32 in the corners' order, and for each polygon the end of its points.
    """
    places, radius = corners[:, :2], corners[:, 2]
    corner_ends = np.append(starts[1:], len(corners))
    after = np.arange(1, len(corners) + 1)
    after[corner_ends - 1] = starts
    before = np.arange(-1, len(corners) - 1)
    before[starts] = corner_ends - 1

    edge = places[after] - places
    edge_length = np.maximum(np.hypot(edge[:, 0], edge[:, 1]), 1e-9)
    cut = np.minimum(radius, np.minimum(edge_length, edge_length[before]) / 2)
    controls = np.empty((len(corners), 3, 2), np.float32)
    controls[:, 0] = places - edge[before] * (cut / edge_length[before])[:, None]
    controls[:, 1] = places
    controls[:, 2] = places + edge * (cut / edge_length)[:, None]
    curves = np.matmul(_BEZIER, controls).reshape(-1, 2)

    kept = np.ones((len(corners), _SAMPLES), bool)
    kept[radius == 0, 1:] = False
    return curves[kept.ravel()], np.cumsum(kept.sum(axis=1))[corner_ends - 1]


def _fill(canvas: _Image, outline: _Points, luma: float) -> None:
    cv2.fillPoly(canvas, [outline], (round(luma * WHITE),), cv2.LINE_AA, _SHIFT)
