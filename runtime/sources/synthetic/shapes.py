"""What a car, a van, a pickup and a bus look like from the side, as sketches of their factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from .paint import Sketch
from .parts import (
    GLASS,
    LAMP,
    PLASTIC,
    SCREEN,
    TAIL_LIGHT,
    UNDERSIDE,
    Quad,
    bumpers,
    handles,
    lower_body,
    mirror,
    near_wheels,
    paint_of,
    panes,
    running_gear,
    sill_of,
)

BODIES = ("car", "van", "pickup", "bus")


@dataclass(frozen=True, slots=True)
class VehicleFactors:
    """The true factors of an image. Lengths are in image sides; the ranges drawn are in `RANGES`.

    Attributes:
        body: One of `BODIES`.
        heading: 1 drives to the right, -1 to the left.
        length: From bumper to bumper.
        height: From the ground to the roof.
        cabin: 0 short to 1 long: coupe to estate, panel van to crew van, single to double cab;
            how far a bus's windows reach down.
        nose: 0 short to 1 long bonnet; how far a bus's windscreen leans back.
        wheel: Radius of a wheel.
        shade: Luma of the paint, 0 black to 1 white.
        x: Middle of the vehicle, from the left; a part may be outside the image.
        y: Ground line under the vehicle, from the top.
        perspective: Turn towards the camera in radians: above 0 the front face shows, below 0
            the rear face.
        shadow: Darkness of the shadow, 0 none to 1 black.
    """

    body: str
    heading: float
    length: float
    height: float
    cabin: float
    nose: float
    wheel: float
    shade: float
    x: float
    y: float
    perspective: float
    shadow: float

    def as_array(self) -> npt.NDArray[np.float32]:
        """Return the factors in the order of `FACTOR_NAMES`: (12,) float32.

        The body is its position in `BODIES`.
        """
        numbers = [getattr(self, name) for name in FACTOR_NAMES[1:]]
        return np.array([BODIES.index(self.body), *numbers], np.float32)


FACTOR_NAMES = tuple(field.name for field in fields(VehicleFactors))


def sketch_from_factors(factors: VehicleFactors) -> Sketch:
    """Return a vehicle's sketch, in the order in which its parts hide one another."""
    return _SKETCHES[factors.body](factors)


def _car(f: VehicleFactors) -> Sketch:
    s = Sketch(f.length, f.height, width=0.25)
    sill = sill_of(f.wheel, f.height)
    screen = 0.765 - 0.09 * f.nose
    roof_front = screen - 0.145
    roof_rear = 0.30 - 0.17 * f.cabin
    boot = roof_rear - 0.17 + 0.10 * f.cabin
    boot_v, bonnet_v = 0.66, 0.63
    wheels = (0.185, 0.815)
    running_gear(s, f.wheel, wheels)
    paint = paint_of(f.shade)
    s.hull(
        [
            (0.015, sill, 0.02, paint(-0.30)),
            (0.0, 0.40, 0.015, paint(-0.22)),
            (0.012, boot_v - 0.05, 0.02, paint(0.15)),
            (boot, boot_v + 0.01, 0.03, SCREEN),
            (roof_rear, 0.97, 0.06, paint(0.25)),
            ((roof_rear + roof_front) / 2, 1.0, 0.1, paint(0.25)),
            (roof_front, 0.97, 0.05, SCREEN),
            (screen, bonnet_v + 0.02, 0.02, paint(0.18)),
            (0.94, 0.53, 0.06, paint(-0.08)),
            (0.99, 0.43, 0.02, paint(-0.22)),
            (1.0, 0.27, 0.02, paint(-0.35)),
            (0.985, sill, 0.02, UNDERSIDE),
        ],
        f.shade,
    )
    lower_body(s, f.shade, sill, belt=0.50)
    pillar = roof_front - 0.48 * (roof_front - roof_rear)
    house: Quad = (
        (boot + 0.055, boot_v + 0.015),
        (roof_rear + 0.022, 0.925),
        (roof_front - 0.012, 0.925),
        (screen - 0.045, bonnet_v + 0.025),
    )
    panes(s, house, (pillar,), radius=0.012)
    for u in (screen - 0.035, pillar, max(boot + 0.05, roof_rear - 0.03, 0.27)):
        s.line((u, 0.64), (u, sill + 0.06), paint(-0.4))
    handles(s, (pillar - 0.055, pillar + 0.03), 0.56, paint(-0.55))
    mirror(s, screen - 0.06, 0.665, paint(-0.3))
    s.shape([(0.915, 0.535), (0.945, 0.50), (0.99, 0.40), (0.945, 0.42)], LAMP, radius=0.008)
    s.shape(
        [(0.004, 0.59), (0.07, 0.585), (0.055, 0.49), (0.003, 0.48)],
        paint(TAIL_LIGHT),
        radius=0.008,
    )
    bumpers(s, sill, top=0.31)
    near_wheels(s, f.wheel, wheels, sill, rolled=f.heading * f.x)
    return s


def _van(f: VehicleFactors) -> Sketch:
    s = Sketch(f.length, f.height, width=0.26)
    sill = sill_of(f.wheel, f.height)
    screen = 0.90 - 0.10 * f.nose
    roof_front = screen - 0.115
    cab = roof_front - 0.085
    wheels = (0.20, 0.80)
    running_gear(s, f.wheel, wheels)
    paint = paint_of(f.shade)
    s.hull(
        [
            (0.008, sill, 0.015, paint(-0.3)),
            (0.0, 0.35, 0.02, paint(-0.2)),
            (0.008, 0.985, 0.022, paint(0.25)),
            (roof_front - 0.2, 1.0, 0.1, paint(0.25)),
            (roof_front, 0.975, 0.05, SCREEN),
            (screen, 0.58, 0.03, paint(0.15)),
            (0.965, 0.47, 0.04, paint(-0.08)),
            (0.995, 0.36, 0.02, paint(-0.2)),
            (1.0, 0.20, 0.02, paint(-0.35)),
            (0.985, sill, 0.02, UNDERSIDE),
        ],
        f.shade,
    )
    lower_body(s, f.shade, sill, belt=0.40)
    front_door: Quad = (
        (cab, 0.585),
        (cab + 0.005, 0.90),
        (roof_front - 0.012, 0.90),
        (screen - 0.04, 0.585),
    )
    panes(s, front_door, (), radius=0.014)
    # The longer the cab, the more of the side behind it is glazed.
    rear = cab - 0.07 - 0.34 * f.cabin
    crew: Quad = ((rear, 0.60), (rear, 0.90), (cab - 0.025, 0.90), (cab - 0.025, 0.60))
    panes(s, crew, (), radius=0.014)
    for u in (cab - 0.012, cab - 0.30, screen - 0.03):
        top = 0.95 if u < cab else 0.57
        s.line((u, top), (u, sill + 0.05), paint(-0.35))
    s.line((0.03, 0.50), (cab - 0.30, 0.50), paint(-0.3))
    s.line((0.05, 0.54), (cab - 0.03, 0.54), paint(-0.3))
    handles(s, (cab - 0.065, cab + 0.02), 0.50, paint(-0.55))
    mirror(s, screen - 0.055, 0.60, PLASTIC)
    s.shape([(0.93, 0.47), (0.965, 0.45), (0.992, 0.35), (0.94, 0.37)], LAMP, radius=0.008)
    s.shape([(0.004, 0.58), (0.025, 0.58), (0.025, 0.40), (0.002, 0.40)], paint(TAIL_LIGHT))
    bumpers(s, sill, top=0.225)
    near_wheels(s, f.wheel, wheels, sill, rolled=f.heading * f.x)
    return s


def _pickup(f: VehicleFactors) -> Sketch:
    s = Sketch(f.length, f.height, width=0.26)
    sill = sill_of(f.wheel, f.height) + 0.03
    screen = 0.745 - 0.07 * f.nose
    roof_front = screen - 0.10
    cab = screen - 0.245 - 0.135 * f.cabin
    roof_rear = cab + 0.022
    rail, bonnet_v = 0.59, 0.62
    wheels = (0.19, 0.815)
    running_gear(s, f.wheel, wheels)
    paint = paint_of(f.shade)
    s.hull(
        [
            (0.008, sill, 0.01, paint(-0.25)),
            (0.005, rail, 0.008, paint(-0.65)),
            (cab, rail, 0.004, SCREEN),
            (roof_rear, 0.985, 0.03, paint(0.25)),
            ((roof_rear + roof_front) / 2, 1.0, 0.08, paint(0.25)),
            (roof_front, 0.98, 0.035, SCREEN),
            (screen, bonnet_v + 0.02, 0.015, paint(0.18)),
            (0.955, 0.575, 0.035, paint(-0.05)),
            (0.99, 0.50, 0.02, paint(-0.25)),
            (1.0, 0.26, 0.015, paint(-0.35)),
            (0.985, sill, 0.02, UNDERSIDE),
        ],
        f.shade,
    )
    lower_body(s, f.shade, sill, belt=0.46)
    house: Quad = (
        (cab + 0.022, 0.645),
        (roof_rear + 0.022, 0.925),
        (roof_front - 0.012, 0.925),
        (screen - 0.04, 0.645),
    )
    pillar = screen - 0.215
    panes(s, house, (pillar,) if pillar > cab + 0.075 else (), radius=0.01)
    for u in (screen - 0.03, pillar, cab + 0.012):
        s.line((u, 0.63), (u, sill + 0.05), paint(-0.4))
    s.line((cab - 0.004, rail), (cab - 0.004, sill + 0.02), paint(-0.6), width=0.006)
    s.line((0.008, rail - 0.02), (cab - 0.008, rail - 0.02), paint(-0.5), width=0.006)
    s.line((0.03, rail - 0.03), (0.03, sill + 0.06), paint(-0.4))
    handles(s, (pillar + 0.028,), 0.555, paint(-0.55))
    mirror(s, screen - 0.055, 0.655, PLASTIC)
    s.shape([(0.945, 0.545), (0.972, 0.53), (0.992, 0.44), (0.95, 0.44)], LAMP, radius=0.006)
    s.shape([(0.006, 0.54), (0.026, 0.54), (0.026, 0.40), (0.006, 0.40)], paint(TAIL_LIGHT))
    bumpers(s, sill, top=0.31)
    near_wheels(s, f.wheel, wheels, sill, rolled=f.heading * f.x)
    return s


def _bus(f: VehicleFactors) -> Sketch:
    s = Sketch(f.length, f.height, width=0.22)
    sill = sill_of(f.wheel, f.height) * 0.9
    lean = 0.012 + 0.045 * f.nose
    bottom = 0.56 - 0.14 * f.cabin
    top = 0.86
    wheels = (0.22, 0.755)
    running_gear(s, f.wheel, wheels)
    paint = paint_of(f.shade)
    s.hull(
        [
            (0.006, sill, 0.015, paint(-0.25)),
            (0.0, 0.98, 0.03, paint(0.25)),
            (0.4, 1.0, 0.1, paint(0.25)),
            (1.0 - lean, 0.985, 0.035, paint(-0.1)),
            (0.998 - lean / 2, 0.86, 0.02, SCREEN),
            (0.999, 0.42, 0.02, paint(-0.2)),
            (1.0, sill, 0.02, UNDERSIDE),
        ],
        f.shade,
    )
    lower_body(s, f.shade, sill, belt=bottom - 0.10)
    glazing: Quad = ((0.025, bottom), (0.025, top), (0.825, top), (0.825, bottom))
    panes(s, glazing, tuple(0.025 + 0.8 * pane / 6 for pane in range(1, 6)), radius=0.009)
    s.shape(
        [(0.945, bottom), (0.945, top), (0.985 - lean, top), (0.988, bottom)],
        GLASS,
        radius=0.008,
    )
    door: Quad = ((0.845, sill + 0.035), (0.845, top), (0.93, top), (0.93, sill + 0.035))
    s.shape(door, paint(-0.5), radius=0.004)
    inside: Quad = (
        (0.851, sill + 0.06),
        (0.851, top - 0.02),
        (0.924, top - 0.02),
        (0.924, sill + 0.06),
    )
    panes(s, inside, (0.8875,), radius=0.005)
    s.line((0.012, bottom - 0.05), (0.84, bottom - 0.05), paint(0.45), width=0.006)
    s.shape([(0.70, 0.895), (0.70, 0.955), (0.90, 0.955), (0.90, 0.895)], PLASTIC, radius=0.004)
    for u in (0.09, 0.36, 0.49, 0.62):
        s.line((u, bottom - 0.10), (u, sill + 0.02), paint(-0.3))
    s.shape([(0.965, 0.30), (0.995, 0.30), (0.996, 0.22), (0.965, 0.22)], LAMP, radius=0.006)
    s.shape([(0.003, 0.36), (0.018, 0.36), (0.018, 0.24), (0.004, 0.24)], paint(TAIL_LIGHT))
    mirror(s, 0.985, 0.80, PLASTIC)
    near_wheels(s, f.wheel, wheels, sill, rolled=f.heading * f.x)
    return s


_SKETCHES: dict[str, Callable[[VehicleFactors], Sketch]] = {
    "car": _car,
    "van": _van,
    "pickup": _pickup,
    "bus": _bus,
}
