"""Rounded polygons standing on the ground, seen in perspective and painted with anti-aliasing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

Point = tuple[float, float]

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

_OCTAGON = tuple(
    (math.cos(angle) / math.cos(math.pi / 8), math.sin(angle) / math.cos(math.pi / 8))
    for angle in (math.pi * (2 * corner + 1) / 8 for corner in range(8))
)
FULLY_ROUND = 1.0  # more than half of any edge, to which a rounding is limited

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
    _corners: list[tuple[float, float, float, float]] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _lumas: list[float] = field(default_factory=list)
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
        self._add([(*self.at(u, v), radius) for u, v in corners], luma, depth)

    def disc(self, centre: Point, radius: float, luma: float, *, depth: float = 0.0) -> None:
        """Add a circle around (x, y)."""
        x, y = centre
        ring = [(x + radius * across, y + radius * up, FULLY_ROUND) for across, up in _OCTAGON]
        self._add(ring, luma, depth)

    def line(self, start: Point, end: Point, luma: float, *, width: float = 0.003) -> None:
        """Add a straight stroke from (u, v) to (u, v), `width` image sides wide."""
        (x0, y0), (x1, y1) = self.at(*start), self.at(*end)
        half = width / 2 / math.hypot(x1 - x0, y1 - y0)
        dx, dy = (x1 - x0) * half, (y1 - y0) * half
        sides = [(x0 - dy, y0 + dx), (x1 - dy, y1 + dx), (x1 + dy, y1 - dx), (x0 + dy, y0 - dx)]
        self._add([(x, y, 0.0) for x, y in sides], luma, 0.0)

    def hull(
        self, corners: Sequence[tuple[float, float, float]], luma: float, skins: Sequence[float]
    ) -> None:
        """Add the one solid: a side view pushed from the near side to the far side.

        Args:
            corners: The side view as (u, v, radius), clockwise when the front is at the right.
            luma: Of the near side.
            skins: Luma of the surface that runs from each corner to the next.
        """
        outline = [(*self.at(u, v), radius) for u, v, radius in corners]
        self._add(outline, luma, 1.0)
        self._add(outline, luma, 0.0)
        self._hull = len(self._starts) - 1
        self._skins = skins

    def paint(self, canvas: npt.NDArray[np.uint8], pose: Pose) -> None:
        """Paint every shape over a square (S, S) uint8 canvas, in place."""
        outlines = self._outlines(canvas.shape[0], pose)
        for index, outline in enumerate(outlines):
            if index == self._hull:
                self._paint_skins(canvas, outlines[index - 1], outline)
            _fill(canvas, outline, self._lumas[index])

    def _add(self, corners: list[tuple[float, float, float]], luma: float, depth: float) -> None:
        self._starts.append(len(self._corners))
        self._lumas.append(luma)
        self._corners.extend((x, y, radius, depth) for x, y, radius in corners)

    def _outlines(self, side: int, pose: Pose) -> list[npt.NDArray[np.int32]]:
        """Round, project and scale all shapes at once: one (points, 2) int32 array each."""
        corners = np.array(self._corners, np.float32)
        points = _rounded(corners, np.array(self._starts))
        depth = np.repeat((corners[:, 3] - 0.5) * self.width, _SAMPLES)
        cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
        away = depth * cos - points[:, 0] * sin
        scale = _CAMERA_DISTANCE / (_CAMERA_DISTANCE + away)
        x = pose.x + pose.heading * (points[:, 0] * cos + depth * sin) * scale
        y = pose.y - _EYE_HEIGHT + (_EYE_HEIGHT - points[:, 1]) * scale
        # A pixel's centre, not its corner, has whole coordinates.
        pixels = np.stack([x, y], axis=1) * side - 0.5
        fixed = np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
        ends = [*self._starts[1:], len(corners)]
        return [
            fixed[start * _SAMPLES : end * _SAMPLES]
            for start, end in zip(self._starts, ends, strict=True)
        ]

    def _paint_skins(
        self,
        canvas: npt.NDArray[np.uint8],
        far: npt.NDArray[np.int32],
        near: npt.NDArray[np.int32],
    ) -> None:
        """Paint the surfaces between the two sides; those that face away end up covered."""
        half = _SAMPLES // 2
        for index, luma in enumerate(self._skins):
            # From the middle of one corner's curve to the middle of the next one's.
            around = range(index * _SAMPLES + half - 1, (index + 1) * _SAMPLES + half + 1)
            edge = np.take(near, around, axis=0, mode="wrap")
            back = np.take(far, around, axis=0, mode="wrap")
            if _turns_to_us(edge, back):
                _fill(canvas, np.concatenate([edge, back[::-1]]), luma)


def blank_canvas(size: int) -> npt.NDArray[np.uint8]:
    """Return a white uint8 square to paint on; a whole number of times larger than `size`."""
    side = size * max(_OVERSAMPLING, -(-_MIN_CANVAS // size))
    return np.full((side, side), WHITE, np.uint8)


def image_from_canvas(canvas: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Average a canvas over areas down to (size, size) uint8."""
    image: npt.NDArray[np.uint8] = cv2.resize(  # type: ignore[assignment]
        canvas, (size, size), interpolation=cv2.INTER_AREA
    )
    return image


def paint_shadow(
    canvas: npt.NDArray[np.uint8], *, centre: Point, half: Point, darkness: float
) -> None:
    """Darken a soft patch of a white canvas, in place; exactly white outside it.

    Args:
        canvas: (S, S) uint8, white where the patch goes.
        centre: Its middle as (x, y) in image sides from the top left.
        half: Half its width and half its height in image sides.
        darkness: 0 leaves white, 1 makes the middle black.
    """
    side = canvas.shape[0]
    columns, across = _soft_edge(side, centre[0], half[0], sharpness=3.0)
    rows, down = _soft_edge(side, centre[1], half[1], sharpness=1.0)
    patch = WHITE * (1 - darkness * np.outer(down, across))
    canvas[rows, columns] = np.rint(patch).astype(np.uint8)


def _soft_edge(
    side: int, centre: float, half: float, *, sharpness: float
) -> tuple[slice, npt.NDArray[np.float32]]:
    """Return the pixels of an interval, and a weight for each: 1 inside, smoothly 0 at its ends."""
    first = min(side, max(0, math.floor((centre - half) * side)))
    last = min(side, max(first, math.ceil((centre + half) * side)))
    place = (np.arange(first, last, dtype=np.float32) + 0.5) / side
    inward = np.clip((1 - np.abs(place - centre) / half) * sharpness, 0, 1)
    return slice(first, last), inward * inward * (3 - 2 * inward)


def _rounded(
    corners: npt.NDArray[np.float32], starts: npt.NDArray[np.int_]
) -> npt.NDArray[np.float32]:
    """Replace each corner (x, y, radius, ...) of closed polygons by a curve of `_SAMPLES` points.

    Returns:
        (corners * _SAMPLES, 2) float32, in the corners' order.
    """
    places = corners[:, :2]
    after = np.arange(1, len(corners) + 1)
    after[np.append(starts[1:], len(corners)) - 1] = starts
    before = np.empty_like(after)
    before[after] = np.arange(len(corners))

    edge = places[after] - places
    edge_length = np.maximum(np.hypot(edge[:, 0], edge[:, 1]), 1e-9)
    direction = edge / edge_length[:, None]
    half_shorter = np.minimum(edge_length, edge_length[before]) / 2
    cut = np.minimum(corners[:, 2], half_shorter)[:, None]
    controls = np.stack([places - cut * direction[before], places, places + cut * direction], axis=1)
    return np.matmul(_BEZIER, controls).reshape(-1, 2)


def _turns_to_us(near: npt.NDArray[np.int32], far: npt.NDArray[np.int32]) -> bool:
    """Say whether a surface shows: its far edge lies outside the near outline, or across it."""
    middle = len(near) // 2
    return bool(np.any(near[middle] != far[middle]))


def _fill(canvas: npt.NDArray[np.uint8], outline: npt.NDArray[np.int32], luma: float) -> None:
    cv2.fillPoly(canvas, [outline], (round(luma * WHITE),), cv2.LINE_AA, _SHIFT)
