"""Rounded polygons standing on the ground, seen in perspective and painted with anti-aliasing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Corner = tuple[float, float, float]  # place, and how much of each edge its rounding may take

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


def _ring(corners: int) -> tuple[Point, ...]:
    """Corners of the regular polygon around the unit circle, one of its edges at the top."""
    outside = 1 / math.cos(math.pi / corners)
    angles = (math.pi * (2 * corner + 1) / corners for corner in range(corners))
    return tuple((outside * math.cos(angle), outside * math.sin(angle)) for angle in angles)


# Rounded as far as its edges allow, an octagon is a circle to the eye, and a square is one
# where it is a few pixels wide.
_OCTAGON, _SQUARE = _ring(8), _ring(4)
_SMALL_DISC = 0.015  # image sides
FULLY_ROUND = 1.0  # more than half of any edge, to which a rounding is limited
SEAM = 0.0028  # gap between two panels, in image sides

# The pinhole camera, in image sides.
_CAMERA_DISTANCE = 2.6
_EYE_HEIGHT = 0.46


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a sketch stands in the image.

    Attributes:
        x: Horizontal place of the sketch's origin in image sides, from the left.
        y: Ground line in image sides, from the top.
        heading: 1 if the sketch's front points right, -1 if left.
        yaw: Turn in radians; above 0 the front face shows, below 0 the rear face.
    """

    x: float
    y: float
    heading: float
    yaw: float


@dataclass(frozen=True, slots=True)
class Shadow:
    """A soft dark patch on the ground under a sketch; lengths are in image sides.

    Attributes:
        half_length: From its middle to either end.
        half_height: From its middle up and down.
        darkness: 0 leaves white, 1 makes the middle black.
    """

    half_length: float
    half_height: float
    darkness: float


@dataclass(slots=True)
class Sketch:
    """Filled shapes in painting order; lengths are in image sides, x is forward and y is up.

    Attributes:
        length: What u = 0 (rear) to u = 1 (front) stands for; the origin is in its middle.
        height: What v = 0 (ground) to v = 1 (roof) stands for.
        width: Distance from the near side to the far side.
    """

    length: float
    height: float
    width: float
    _corners: list[Corner] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _lumas: list[float] = field(default_factory=list)
    _depths: list[float] = field(default_factory=list)
    _hull: int = -1
    _skins: Sequence[float] = ()

    def at(self, u: float, v: float) -> Point:
        """Return the x and y of a place given in shares of length and height."""
        return (u - 0.5) * self.length, v * self.height

    def shape(
        self, corners: Sequence[Point], luma: float, *, radius: float = 0.0, depth: float = 0.0
    ) -> None:
        """Add a polygon.

        Args:
            corners: Its corners as (u, v).
            luma: 0 black to 1 white.
            radius: How much of each edge a corner's rounding may take.
            depth: 0 on the near side to 1 on the far side.
        """
        length, height = self.length, self.height
        placed = [((u - 0.5) * length, v * height, radius) for u, v in corners]
        self._add(placed, luma, depth)

    def disc(self, centre: Point, radius: float, luma: float, *, depth: float = 0.0) -> None:
        """Add a circle around (x, y)."""
        x, y = centre
        around = _OCTAGON if radius > _SMALL_DISC else _SQUARE
        ring = [(x + radius * across, y + radius * up, FULLY_ROUND) for across, up in around]
        self._add(ring, luma, depth)

    def line(self, start: Point, end: Point, luma: float, *, width: float = SEAM) -> None:
        """Add a straight stroke from (u, v) to (u, v), `width` image sides wide."""
        (x0, y0), (x1, y1) = self.at(*start), self.at(*end)
        half = width / 2 / math.hypot(x1 - x0, y1 - y0)
        dx, dy = (x1 - x0) * half, (y1 - y0) * half
        sides = [(x0 - dy, y0 + dx), (x1 - dy, y1 + dx), (x1 + dy, y1 - dx), (x0 + dy, y0 - dx)]
        self._add([(x, y, 0.0) for x, y in sides], luma, 0.0)

    def hull(self, profile: Sequence[tuple[float, float, float, float]], luma: float) -> None:
        """Add the one solid: a side view pushed from the near side to the far side.

        Args:
            profile: The side view's corners, clockwise when the front is at the right: u, v,
                radius (above 0), and the luma of the surface from here to the next corner.
            luma: Of the near side.
        """
        outline = [(*self.at(u, v), radius) for u, v, radius, _ in profile]
        self._add(outline, luma, 1.0)
        self._add(outline, luma, 0.0)
        self._hull = len(self._starts) - 1
        self._skins = [skin for *_, skin in profile]

    def image(self, pose: Pose, shadow: Shadow, size: int) -> npt.NDArray[np.uint8]:
        """Paint the shadow and then every shape on white.

        Returns:
            (size, size) uint8 luma; exactly 255 where nothing was painted.
        """
        factor = max(_OVERSAMPLING, math.ceil(_MIN_CANVAS / size))
        points, ends = self._outlines(pose, size * factor)
        # Only the rows that are reached get a canvas: fresh memory costs more than painting.
        reach = points[:, 1] / ((1 << _SHIFT) * factor)
        highest = min(float(reach.min()), (pose.y - shadow.half_height) * size)
        lowest = max(float(reach.max()), (pose.y + shadow.half_height) * size)
        top = min(size, max(0, math.floor(highest) - 1))
        bottom = min(size, max(0, math.ceil(lowest) + 2))

        image = np.full((size, size), WHITE, np.uint8)
        if top < bottom:
            canvas = np.full(((bottom - top) * factor, size * factor), WHITE, np.uint8)
            _paint_shadow(canvas, (pose.x, pose.y - top / size), shadow)
            points[:, 1] -= top * factor << _SHIFT
            self._paint(canvas, points, ends.tolist(), pose.heading)
            image[top:bottom] = cv2.resize(
                canvas, (size, bottom - top), interpolation=cv2.INTER_AREA
            )
        return image

    def _add(self, corners: list[Corner], luma: float, depth: float) -> None:
        self._starts.append(len(self._corners))
        self._corners.extend(corners)
        self._lumas.append(luma)
        self._depths.append(depth)

    def _outlines(
        self, pose: Pose, side: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int_]]:
        """Round and project all shapes at once, onto a canvas `side` pixels wide.

        Returns:
            (points, 2) int32 with `_SHIFT` fractional bits, and for each shape its points' end.
        """
        points, ends = _rounded(np.array(self._corners, np.float32), np.array(self._starts))
        depths = (np.array(self._depths, np.float32) - 0.5) * self.width
        depth = np.repeat(depths, np.diff(ends, prepend=0))
        cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
        x, y = points[:, 0], points[:, 1]
        scale = _CAMERA_DISTANCE / (_CAMERA_DISTANCE + depth * cos - x * sin)
        seen = np.empty_like(points)
        seen[:, 0] = pose.x + pose.heading * (x * cos + depth * sin) * scale
        seen[:, 1] = pose.y - _EYE_HEIGHT + (_EYE_HEIGHT - y) * scale
        # A pixel's centre, not its corner, has whole coordinates.
        return np.rint((seen * side - 0.5) * (1 << _SHIFT)).astype(np.int32), ends

    def _paint(
        self,
        canvas: npt.NDArray[np.uint8],
        points: npt.NDArray[np.int32],
        ends: list[int],
        heading: float,
    ) -> None:
        outlines = [points[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        for index, (outline, luma) in enumerate(zip(outlines, self._lumas, strict=True)):
            if index == self._hull:
                self._paint_skins(canvas, outlines[index - 1], outline, heading)
            _fill(canvas, outline, luma)

    def _paint_skins(
        self,
        canvas: npt.NDArray[np.uint8],
        far: npt.NDArray[np.int32],
        near: npt.NDArray[np.int32],
        heading: float,
    ) -> None:
        """Paint the surfaces between the two sides that face us."""
        # From the middle of one corner's curve to the middle of the next one's.
        near, far = (np.concatenate([side, side[:_SAMPLES]]) for side in (near, far))
        middles = slice(_SAMPLES // 2, None, _SAMPLES)
        along = np.diff(near[middles], axis=0).astype(np.int64)  # their product needs 64 bits
        across = (far - near)[middles]
        across = across[1:] + across[:-1]
        # The far edge of a surface that faces us lies outside the near outline.
        faces_us = (along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]) * heading < 0
        for index in np.flatnonzero(faces_us).tolist():
            first = index * _SAMPLES + _SAMPLES // 2 - 1
            last = first + _SAMPLES + 2
            strip = np.concatenate([near[first:last], far[first:last][::-1]])
            _fill(canvas, strip, self._skins[index])


def _paint_shadow(canvas: npt.NDArray[np.uint8], centre: Point, shadow: Shadow) -> None:
    """Darken a patch of a white canvas around (x, y) in image sides, in place."""
    height, width = canvas.shape
    columns, across = _soft_edge(width, centre[0] * width, shadow.half_length * width, 3.0)
    rows, down = _soft_edge(height, centre[1] * width, shadow.half_height * width, 1.0)
    patch = down[:, None] * (across * np.float32(-shadow.darkness * WHITE))
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
    """Replace each corner (x, y, radius) of closed polygons by a curve of `_SAMPLES` points.

    A corner of radius 0 stays one point.

    Returns:
        (points, 2) float32 in the corners' order, and for each polygon the end of its points.
    """
    places, radius = corners[:, :2], corners[:, 2]
    corner_ends = np.append(starts[1:], len(corners))
    after = np.arange(1, len(corners) + 1)
    after[corner_ends - 1] = starts
    before = np.arange(-1, len(corners) - 1)
    before[starts] = corner_ends - 1

    edge = places[after] - places
    edge_length = np.maximum(np.hypot(edge[:, 0], edge[:, 1]), 1e-9)
    half_shorter = np.minimum(edge_length, edge_length[before]) / 2
    cut = np.minimum(radius, half_shorter)
    controls = np.empty((len(corners), 3, 2), np.float32)
    controls[:, 0] = places - edge[before] * (cut / edge_length[before])[:, None]
    controls[:, 1] = places
    controls[:, 2] = places + edge * (cut / edge_length)[:, None]
    curves = np.matmul(_BEZIER, controls).reshape(-1, 2)

    kept = np.ones((len(corners), _SAMPLES), bool)
    kept[radius == 0, 1:] = False
    ends = np.cumsum(kept.sum(axis=1))[corner_ends - 1]
    return curves[kept.ravel()], ends


def _fill(canvas: npt.NDArray[np.uint8], outline: npt.NDArray[np.int32], luma: float) -> None:
    cv2.fillPoly(canvas, [outline], (round(luma * WHITE),), cv2.LINE_AA, _SHIFT)
