"""What a car, a van, a pickup and a bus look like from the side, as sketches of their factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .sketch import FULLY_ROUND, Point, Sketch, VehicleFactors

GLASS, SCREEN, LAMP, PLASTIC, UNDERSIDE = 0.13, 0.19, 0.96, 0.20, 0.10
_GLINT = 0.33
_TYRE, _ARCH, _RIM, _HUB = 0.13, 0.07, 0.74, 0.88
TAIL_LIGHT = -0.6  # of the paint: red glass is darker than what is around it

# A wheel's parts, in its radii.
_ARCH_RADIUS, _RIM_RADIUS, _HUB_RADIUS = 1.14, 0.66, 0.16
_HOLES, _HOLE_RADIUS, _HOLE_DISTANCE = 5, 0.15, 0.4
_GROUND_CLEARANCE = 0.62

_PILLAR = 0.008  # width of the frame between two panes, in image sides


class _Body(NamedTuple):
    """What each vehicle of a kind has."""

    width: float
    axles: tuple[float, float]  # u
    add_parts: Callable[[Sketch, float], None]  # those that other bodies lack, above the sill (v)
    sill: float = 1.0  # of a wheel's ground clearance
    lift: float = 0.0  # of the sill above that


def sketch_from_factors(factors: VehicleFactors) -> Sketch:
    """Return a vehicle's sketch, in the order in which its parts hide one another."""
    body, wheel = _BODIES[factors.body], factors.wheel
    s = Sketch(factors, body.width)
    sill = _GROUND_CLEARANCE * wheel / factors.height * body.sill + body.lift
    for u in body.axles:
        s.disc((u, wheel), wheel, UNDERSIDE, depth=1.0)
    floor = _box(0.08, 0.5 * wheel / factors.height, 0.92, 1.2 * wheel / factors.height)
    s.shape(floor, UNDERSIDE, depth=0.5)
    body.add_parts(s, sill)
    for u in body.axles:
        _near_wheel(s, u, sill)
    return s


def _car(s: Sketch, sill: float) -> None:
    f, paint = s.factors, s.paint
    screen = 0.765 - 0.09 * f.nose
    roof_front = screen - 0.145
    roof_rear = 0.30 - 0.17 * f.cabin
    boot = roof_rear - 0.17 + 0.10 * f.cabin
    boot_v, bonnet_v = 0.66, 0.63
    tail = [(0.015, sill, 0.02, paint(-0.30)), (0.0, 0.40, 0.015, paint(-0.22))]
    lid = [(0.012, boot_v - 0.05, 0.02, paint(0.15)), (boot, boot_v + 0.01, 0.03, SCREEN)]
    middle = ((roof_rear + roof_front) / 2, 1.0, 0.1, paint(0.25))
    roof = [(roof_rear, 0.97, 0.06, paint(0.25)), middle, (roof_front, 0.97, 0.05, SCREEN)]
    bonnet = [(screen, bonnet_v + 0.02, 0.02, paint(0.18)), (0.94, 0.53, 0.06, paint(-0.08))]
    nose = [(0.99, 0.43, 0.02, paint(-0.22)), (1.0, 0.27, 0.02, paint(-0.35))]
    s.hull([*tail, *lid, *roof, *bonnet, *nose, (0.985, sill, 0.02, UNDERSIDE)])
    _lower_body(s, sill, belt=0.50)
    pillar = roof_front - 0.48 * (roof_front - roof_rear)
    rear = [(boot + 0.055, boot_v + 0.015), (roof_rear + 0.022, 0.925)]
    front = [(roof_front - 0.012, 0.925), (screen - 0.045, bonnet_v + 0.025)]
    _panes(s, [*rear, *front], (pillar,), radius=0.012)
    rear_door = max(boot + 0.05, roof_rear - 0.03, 0.27)
    _seams(s, (screen - 0.035, pillar, rear_door), 0.64, sill + 0.06, paint(-0.4))
    _handles(s, (pillar - 0.055, pillar + 0.03), 0.56)
    _mirror(s, screen - 0.06, 0.665, paint(-0.3))
    s.shape([(0.915, 0.535), (0.945, 0.50), (0.99, 0.40), (0.945, 0.42)], LAMP, radius=0.008)
    tail_light = [(0.004, 0.59), (0.07, 0.585), (0.055, 0.49), (0.003, 0.48)]
    s.shape(tail_light, paint(TAIL_LIGHT), radius=0.008)
    _bumpers(s, sill, top=0.31)


def _van(s: Sketch, sill: float) -> None:
    f, paint = s.factors, s.paint
    screen = 0.90 - 0.10 * f.nose
    roof_front = screen - 0.115
    cab = roof_front - 0.085
    tail = [(0.008, sill, 0.015, paint(-0.3)), (0.0, 0.35, 0.02, paint(-0.2))]
    middle = (roof_front - 0.2, 1.0, 0.1, paint(0.25))
    roof = [(0.008, 0.985, 0.022, paint(0.25)), middle, (roof_front, 0.975, 0.05, SCREEN)]
    bonnet = [(screen, 0.58, 0.03, paint(0.15)), (0.965, 0.47, 0.04, paint(-0.08))]
    nose = [(0.995, 0.36, 0.02, paint(-0.2)), (1.0, 0.20, 0.02, paint(-0.35))]
    s.hull([*tail, *roof, *bonnet, *nose, (0.985, sill, 0.02, UNDERSIDE)])
    _lower_body(s, sill, belt=0.40)
    front = [(roof_front - 0.012, 0.90), (screen - 0.04, 0.585)]
    _panes(s, [(cab, 0.585), (cab + 0.005, 0.90), *front], radius=0.014)
    # The longer the cab, the more of the side behind it is glazed.
    _panes(s, _box(cab - 0.07 - 0.34 * f.cabin, 0.60, cab - 0.025, 0.90), radius=0.014)
    _seams(s, (cab - 0.012, cab - 0.30), 0.95, sill + 0.05, paint(-0.35))
    _seams(s, (screen - 0.03,), 0.57, sill + 0.05, paint(-0.35))
    s.line((0.03, 0.50), (cab - 0.30, 0.50), paint(-0.3))
    s.line((0.05, 0.54), (cab - 0.03, 0.54), paint(-0.3))
    _handles(s, (cab - 0.065, cab + 0.02), 0.50)
    _mirror(s, screen - 0.055, 0.60, PLASTIC)
    s.shape([(0.93, 0.47), (0.965, 0.45), (0.992, 0.35), (0.94, 0.37)], LAMP, radius=0.008)
    s.shape([(0.004, 0.58), (0.025, 0.58), (0.025, 0.40), (0.002, 0.40)], paint(TAIL_LIGHT))
    _bumpers(s, sill, top=0.225)


def _pickup(s: Sketch, sill: float) -> None:
    f, paint = s.factors, s.paint
    screen = 0.745 - 0.07 * f.nose
    roof_front = screen - 0.10
    cab = screen - 0.245 - 0.135 * f.cabin
    roof_rear = cab + 0.022
    rail, bonnet_v = 0.59, 0.62
    tail = [(0.008, sill, 0.01, paint(-0.25)), (0.005, rail, 0.008, paint(-0.65))]
    middle = ((roof_rear + roof_front) / 2, 1.0, 0.08, paint(0.25))
    roof = [(roof_rear, 0.985, 0.03, paint(0.25)), middle, (roof_front, 0.98, 0.035, SCREEN)]
    bonnet = [(screen, bonnet_v + 0.02, 0.015, paint(0.18)), (0.955, 0.575, 0.035, paint(-0.05))]
    nose = [(0.99, 0.50, 0.02, paint(-0.25)), (1.0, 0.26, 0.015, paint(-0.35))]
    s.hull(
        [*tail, (cab, rail, 0.004, SCREEN), *roof, *bonnet, *nose, (0.985, sill, 0.02, UNDERSIDE)]
    )
    _lower_body(s, sill, belt=0.46)
    pillar = screen - 0.215
    rear = [(cab + 0.022, 0.645), (roof_rear + 0.022, 0.925)]
    front = [(roof_front - 0.012, 0.925), (screen - 0.04, 0.645)]
    _panes(s, [*rear, *front], (pillar,) if pillar > cab + 0.075 else (), radius=0.01)
    _seams(s, (screen - 0.03, pillar, cab + 0.012), 0.63, sill + 0.05, paint(-0.4))
    s.line((cab - 0.004, rail), (cab - 0.004, sill + 0.02), paint(-0.6), width=0.006)
    s.line((0.008, rail - 0.02), (cab - 0.008, rail - 0.02), paint(-0.5), width=0.006)
    _seams(s, (0.03,), rail - 0.03, sill + 0.06, paint(-0.4))
    _handles(s, (pillar + 0.028,), 0.555)
    _mirror(s, screen - 0.055, 0.655, PLASTIC)
    s.shape([(0.945, 0.545), (0.972, 0.53), (0.992, 0.44), (0.95, 0.44)], LAMP, radius=0.006)
    s.shape([(0.006, 0.54), (0.026, 0.54), (0.026, 0.40), (0.006, 0.40)], paint(TAIL_LIGHT))
    _bumpers(s, sill, top=0.31)


def _bus(s: Sketch, sill: float) -> None:
    f, paint = s.factors, s.paint
    lean = 0.012 + 0.045 * f.nose
    bottom, top = 0.56 - 0.14 * f.cabin, 0.86
    roof = [(0.0, 0.98, 0.03, paint(0.25)), (0.4, 1.0, 0.1, paint(0.25))]
    front = [(1.0 - lean, 0.985, 0.035, paint(-0.1)), (0.998 - lean / 2, 0.86, 0.02, SCREEN)]
    nose = [(0.999, 0.42, 0.02, paint(-0.2)), (1.0, sill, 0.02, UNDERSIDE)]
    s.hull([(0.006, sill, 0.015, paint(-0.25)), *roof, *front, *nose])
    _lower_body(s, sill, belt=bottom - 0.10)
    pillars = [0.025 + 0.8 * pane / 6 for pane in range(1, 6)]
    _panes(s, _box(0.025, bottom, 0.825, top), pillars, radius=0.009)
    drivers_window = [(0.945, bottom), (0.945, top), (0.985 - lean, top), (0.988, bottom)]
    s.shape(drivers_window, GLASS, radius=0.008)
    s.shape(_box(0.845, sill + 0.035, 0.93, top), paint(-0.5), radius=0.004)  # the door
    _panes(s, _box(0.851, sill + 0.06, 0.924, top - 0.02), (0.8875,), radius=0.005)
    s.line((0.012, bottom - 0.05), (0.84, bottom - 0.05), paint(0.45), width=0.006)
    s.shape(_box(0.70, 0.895, 0.90, 0.955), PLASTIC, radius=0.004)
    _seams(s, (0.09, 0.36, 0.49, 0.62), bottom - 0.10, sill + 0.02, paint(-0.3))
    s.shape([(0.965, 0.30), (0.995, 0.30), (0.996, 0.22), (0.965, 0.22)], LAMP, radius=0.006)
    s.shape([(0.003, 0.36), (0.018, 0.36), (0.018, 0.24), (0.004, 0.24)], paint(TAIL_LIGHT))
    _mirror(s, 0.985, 0.80, PLASTIC)


_BODIES = {
    "car": _Body(0.25, (0.185, 0.815), _car),
    "van": _Body(0.26, (0.20, 0.80), _van),
    "pickup": _Body(0.26, (0.19, 0.815), _pickup, lift=0.03),
    "bus": _Body(0.22, (0.22, 0.755), _bus, sill=0.9),
}
BODIES = tuple(_BODIES)


def _box(u0: float, v0: float, u1: float, v1: float) -> list[Point]:
    return [(u0, v0), (u0, v1), (u1, v1), (u1, v0)]


def _near_wheel(s: Sketch, u: float, sill: float) -> None:
    """Add a wheel in its arch, half an octagon, rounded, that ends at the sill."""
    f, wheel = s.factors, s.factors.wheel
    radius = _ARCH_RADIUS * wheel
    half_edge = math.tan(math.pi / 8) * radius
    outer, inner = radius / f.length, half_edge / f.length
    side, top = (wheel + half_edge) / f.height, (wheel + radius) / f.height
    rear = [(u - outer, sill), (u - outer, side), (u - inner, top)]
    front = [(u + inner, top), (u + outer, side), (u + outer, sill)]
    s.shape([*rear, *front], _ARCH, radius=half_edge)
    s.disc((u, wheel), wheel, _TYRE)
    s.disc((u, wheel), _RIM_RADIUS * wheel, _RIM)
    for hole in range(_HOLES):
        angle = 2 * math.pi * hole / _HOLES - f.heading * f.x / wheel  # has rolled up to here
        across, up = (_HOLE_DISTANCE * wheel * turn for turn in (math.cos(angle), math.sin(angle)))
        s.disc((u + across / f.length, wheel + up), _HOLE_RADIUS * wheel, PLASTIC)
    s.disc((u, wheel), _HUB_RADIUS * wheel, _HUB)


def _lower_body(s: Sketch, sill: float, belt: float) -> None:
    """Darken the side below the belt (v), which turns away from the sky; light marks the fold."""
    below = [(0.008, sill + 0.01), (0.006, belt), (0.985, belt - 0.03), (0.99, sill + 0.01)]
    s.shape(below, s.paint(-0.14), radius=0.012)
    s.line((0.02, belt), (0.96, belt - 0.025), s.paint(0.35))


def _bumpers(s: Sketch, sill: float, top: float) -> None:
    """Add dark plastic around both ends, up to `top` (v), and along the sill."""
    s.shape([(-0.006, sill), (-0.008, top), (0.10, top), (0.10, sill)], PLASTIC, radius=0.01)
    s.shape([(0.90, sill), (0.90, top), (1.006, top), (1.004, sill)], PLASTIC, radius=0.01)
    s.shape(_box(0.1, sill, 0.9, sill + 0.05), PLASTIC)


def _panes(
    s: Sketch, frame: Sequence[Point], pillars: Sequence[float] = (), *, radius: float
) -> None:
    """Glaze a frame that upright pillars at `pillars` (u) divide, with a glint in each pane."""
    (u0, v0), (u1, v1), (u2, v2), (u3, v3) = frame
    half = _PILLAR / 2 / s.factors.length
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


def _seams(s: Sketch, places: Sequence[float], top: float, bottom: float, luma: float) -> None:
    for u in places:
        s.line((u, top), (u, bottom), luma)


def _handles(s: Sketch, places: Sequence[float], v: float) -> None:
    for u in places:
        s.line((u, v), (u + 0.028, v), s.paint(-0.55), width=0.005)


def _mirror(s: Sketch, u: float, v: float, luma: float) -> None:
    """Add a door mirror whose lower front corner is at (u, v)."""
    box = _box(u - 0.02 / s.factors.length, v, u, v + 0.02 / s.factors.height)
    s.shape(box, luma, radius=FULLY_ROUND)
