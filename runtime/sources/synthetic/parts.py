"""The parts that vehicles share: wheels, glass, bumpers, handles, and how paint takes the light."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .paint import FULLY_ROUND, Point, Sketch

Quad = tuple[Point, Point, Point, Point]  # rear bottom, rear top, front top, front bottom

# Lumas, 0 black to 1 white.
GLASS, SCREEN, LAMP, PLASTIC, UNDERSIDE = 0.13, 0.19, 0.96, 0.20, 0.10
_GLINT = 0.33
_TYRE, _ARCH, _RIM, _HUB = 0.13, 0.07, 0.74, 0.88

TAIL_LIGHT = -0.6  # for `paint_of`: red glass is darker than the paint around it

# A wheel's parts, in its radii.
_ARCH_RADIUS, _RIM_RADIUS, _HUB_RADIUS = 1.14, 0.66, 0.16
_HOLES, _HOLE_RADIUS, _HOLE_DISTANCE = 5, 0.15, 0.4
_GROUND_CLEARANCE = 0.62

_PILLAR = 0.008  # width of the frame between two panes, in image sides


def paint_of(shade: float) -> Callable[[float], float]:
    """Return the paint's luma as a function of light: -1 black, 0 the shade itself, 1 white."""

    def paint(light: float) -> float:
        return shade + light * (1 - shade) if light > 0 else shade * (1 + light)

    return paint


def sill_of(wheel: float, height: float) -> float:
    """Return the body's lower edge as a share of its height; larger wheels lift it."""
    return _GROUND_CLEARANCE * wheel / height


def running_gear(s: Sketch, wheel: float, places: Sequence[float]) -> None:
    """Add what shows under the body: the wheels of the far side and the dark floor.

    Args:
        s: Added to.
        wheel: Radius in image sides.
        places: Where along the length (u) the axles are.
    """
    for u in places:
        s.disc((s.at(u, 0)[0], wheel), wheel, UNDERSIDE, depth=1.0)
    low, high = 0.5 * wheel / s.height, 1.2 * wheel / s.height
    s.shape([(0.08, low), (0.08, high), (0.92, high), (0.92, low)], UNDERSIDE, depth=0.5)


def near_wheels(
    s: Sketch, wheel: float, places: Sequence[float], sill: float, *, rolled: float
) -> None:
    """Add the wheels of the near side in their arches.

    Args:
        s: Added to.
        wheel: Radius in image sides.
        places: Where along the length (u) the axles are.
        sill: Lower edge of the body (v), where the arches end.
        rolled: Distance driven forward in image sides; the wheels have turned that far.
    """
    for u in places:
        centre = s.at(u, 0)[0], wheel
        _arch(s, centre, _ARCH_RADIUS * wheel, sill)
        s.disc(centre, wheel, _TYRE)
        s.disc(centre, _RIM_RADIUS * wheel, _RIM)
        for hole in range(_HOLES):
            angle = 2 * math.pi * hole / _HOLES - rolled / wheel
            x = centre[0] + _HOLE_DISTANCE * wheel * math.cos(angle)
            y = centre[1] + _HOLE_DISTANCE * wheel * math.sin(angle)
            s.disc((x, y), _HOLE_RADIUS * wheel, PLASTIC)
        s.disc(centre, _HUB_RADIUS * wheel, _HUB)


def _arch(s: Sketch, centre: Point, radius: float, sill: float) -> None:
    """Add the dark opening above a wheel: half an octagon, rounded, cut off at the sill."""
    half_edge = math.tan(math.pi / 8) * radius
    u = centre[0] / s.length + 0.5
    outer, inner = radius / s.length, half_edge / s.length
    side, top = (centre[1] + half_edge) / s.height, (centre[1] + radius) / s.height
    rear = [(u - outer, sill), (u - outer, side), (u - inner, top)]
    front = [(u + inner, top), (u + outer, side), (u + outer, sill)]
    s.shape([*rear, *front], _ARCH, radius=half_edge)


def lower_body(s: Sketch, shade: float, sill: float, belt: float) -> None:
    """Darken the side below the belt (v), which turns away from the sky; light marks the fold."""
    paint = paint_of(shade)
    below = [(0.008, sill + 0.01), (0.006, belt), (0.985, belt - 0.03), (0.99, sill + 0.01)]
    s.shape(below, paint(-0.14), radius=0.012)
    s.line((0.02, belt), (0.96, belt - 0.025), paint(0.35))


def bumpers(s: Sketch, sill: float, top: float) -> None:
    """Add dark plastic around both ends, up to `top` (v), and along the sill."""
    s.shape([(-0.006, sill), (-0.008, top), (0.10, top), (0.10, sill)], PLASTIC, radius=0.01)
    s.shape([(0.90, sill), (0.90, top), (1.006, top), (1.004, sill)], PLASTIC, radius=0.01)
    s.shape([(0.1, sill), (0.1, sill + 0.05), (0.9, sill + 0.05), (0.9, sill)], PLASTIC)


def panes(s: Sketch, frame: Quad, pillars: Sequence[float] = (), *, radius: float) -> None:
    """Glaze a frame that upright pillars at `pillars` (u) divide, with a glint in each pane."""
    (u0, v0), (u1, v1), (u2, v2), (u3, v3) = frame
    half = _PILLAR / 2 / s.length
    rears = [(u0, u1), *((pillar + half, pillar + half) for pillar in pillars)]
    fronts = [*((pillar - half, pillar - half) for pillar in pillars), (u3, u2)]
    for (low_rear, high_rear), (low_front, high_front) in zip(rears, fronts, strict=True):
        pane = [(low_rear, v0), (high_rear, v1), (high_front, v2), (low_front, v3)]
        s.shape(pane, GLASS, radius=radius)
        low, high = low_front - low_rear, high_front - high_rear
        glint = [
            (low_rear + 0.45 * low, v0 + 0.02),
            (high_rear + 0.62 * high, v1 - 0.02),
            (high_rear + 0.80 * high, v1 - 0.02),
            (low_rear + 0.63 * low, v0 + 0.02),
        ]
        s.shape(glint, _GLINT)


def handles(s: Sketch, places: Sequence[float], v: float, luma: float) -> None:
    """Add door handles whose rear ends are at `places` (u)."""
    for u in places:
        s.line((u, v), (u + 0.028, v), luma, width=0.005)


def mirror(s: Sketch, u: float, v: float, luma: float) -> None:
    """Add a door mirror whose lower front corner is at (u, v)."""
    rear, top = u - 0.02 / s.length, v + 0.02 / s.height
    s.shape([(rear, v), (rear, top), (u, top), (u, v)], luma, radius=FULLY_ROUND)
