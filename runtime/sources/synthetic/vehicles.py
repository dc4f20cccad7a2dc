"""Procedural vehicles: training's built-in images, and the world that the synthetic camera sees."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ...core.spec import Color
from .bodies import BODIES, sketch_from_factors
from .sketch import VehicleFactors

Range = tuple[float, float]

# Lowest and highest value of each continuous factor that is drawn, uniformly but for x.
_RANGES_OF_ALL: dict[str, Range] = {
    "cabin": (0.0, 1.0),
    "nose": (0.0, 1.0),
    "shade": (0.28, 0.84),
    "x": (0.20, 0.80),  # triangular: mostly near the middle
    "y": (0.66, 0.80),
    "perspective": (-0.30, 0.30),
    "shadow": (0.15, 0.60),
}
_RANGES_OF_ONE: dict[str, dict[str, Range]] = {
    "car": {"length": (0.62, 0.78), "height": (0.215, 0.260), "wheel": (0.046, 0.057)},
    "van": {"length": (0.62, 0.78), "height": (0.290, 0.355), "wheel": (0.048, 0.060)},
    "pickup": {"length": (0.68, 0.84), "height": (0.240, 0.285), "wheel": (0.052, 0.062)},
    "bus": {"length": (0.78, 0.92), "height": (0.265, 0.325), "wheel": (0.042, 0.052)},
}
RANGES = {body: {**own, **_RANGES_OF_ALL} for body, own in _RANGES_OF_ONE.items()}

# One vehicle crosses in this time, slowest in the middle of the view, so that most frames show
# a whole vehicle, as most training images do.
_CROSSING_S = 4.0
_SLOWING = 0.8  # 0 keeps an even speed, 1 would stop in the middle
_CLEARANCE = 0.08  # how far out of view a vehicle starts and ends, in image sides
# Turn towards the camera, in radians per image side off the middle: what comes shows its front.
_TURN_PER_SIDE = 0.45

_LUMA_BGR = (0.114, 0.587, 0.299)
_PALEST, _STRONGEST = 0.04, 0.4  # how far a paint's channels are from its luma

_VEHICLE, _CREW, _TRAFFIC, _PAINT = range(4)  # keep the random numbers of different uses apart


def factors_from_seed(seed: int, index: int) -> VehicleFactors:
    """Draw the factors of image `index` of a data set; no other has to be drawn before it."""
    rng = _random(seed, _VEHICLE, index)
    return _factors(BODIES[int(rng.integers(len(BODIES)))], rng)


def vehicle(seed: int, index: int, size: int = 256) -> tuple[npt.NDArray[np.uint8], VehicleFactors]:
    """Return image `index` of the data set that `seed` names, and its true factors.

    The image is (S, S) uint8 luma for a `size` S that is a multiple of 32, anti-aliased, and
    exactly 255 where neither the vehicle nor its shadow is.
    """
    factors = factors_from_seed(seed, index)
    return sketch_from_factors(factors).image(size), factors


def vehicle_picture(seed: int, index: int, size: int, color: Color) -> npt.NDArray[np.uint8]:
    """Return image `index` as a camera would see it: (S, S) luma, or (S, S, 3) BGR in colour.

    S is the next multiple of 32 from `size` on.
    """
    factors, size = factors_from_seed(seed, index), -(-size // 32) * 32
    if color == "grey":
        return sketch_from_factors(factors).image(size)
    return painted(factors, size, seed, _VEHICLE, index)


def painted(factors: VehicleFactors, size: int, seed: int, *which: int) -> npt.NDArray[np.uint8]:
    """Draw a vehicle in a colour of its own, (S, S, 3) BGR; glass, tyres and shadow stay grey.

    Its luma is that of the vehicle in grey but for rounding. The colour is drawn by the seed and
    the numbers of `which`, apart from all factors.
    """
    hue, strength = _random(seed, _PAINT, *which).random(2).tolist()
    waves = [math.cos(2 * math.pi * (hue - third)) for third in (2 / 3, 1 / 3, 0.0)]
    grey = sum(weight * wave for weight, wave in zip(_LUMA_BGR, waves, strict=True))
    tints = [wave - grey for wave in waves]
    # As strong as it was drawn, or as fits between black and white.
    room = min(factors.shade, 1 - factors.shade) / max(map(abs, tints))
    strength = min(_PALEST + (_STRONGEST - _PALEST) * strength, room)
    planes = [
        sketch_from_factors(replace(factors, shade=factors.shade + strength * tint)).image(size)
        for tint in tints
    ]
    return np.stack(planes, axis=2)


class MovingVehicles:
    """The synthetic camera's world: vehicles cross the view one after another.

    Every four vehicles show all four bodies, and no two neighbours share one. What is seen is a
    pure function of the seed, the size and the time.
    """

    def __init__(self, seed: int = 0, size: int = 256, color: Color = "grey") -> None:
        self._seed, self._size, self._color = seed, size, color

    def factors(self, time_s: float) -> VehicleFactors:
        """Return the vehicle that crosses the view at a time in seconds, 0 or later."""
        turn = math.floor(time_s / _CROSSING_S)
        drawn = _factors(self._body(turn), _random(self._seed, _TRAFFIC, turn))
        phase = time_s / _CROSSING_S - turn - 0.5
        slowed = phase - _SLOWING * math.sin(2 * math.pi * phase) / (2 * math.pi)
        ahead = (1 + drawn.length + 2 * _CLEARANCE) * slowed
        low, high = RANGES[drawn.body]["perspective"]
        return replace(
            drawn,
            x=0.5 + drawn.heading * ahead,
            perspective=min(high, max(low, -_TURN_PER_SIDE * ahead)),
        )

    def image(self, time_s: float) -> npt.NDArray[np.uint8]:
        """Return what the camera sees at a time in seconds, 0 or later: uint8.

        It is (S, S) luma, or (S, S, 3) BGR in colour, each vehicle in its own.
        """
        factors, turn = self.factors(time_s), math.floor(time_s / _CROSSING_S)
        if self._color == "grey":
            return sketch_from_factors(factors).image(self._size)
        return painted(factors, self._size, self._seed, _TRAFFIC, turn)

    def _body(self, turn: int) -> str:
        """Deal the bodies in shuffled rounds, the first of a round never the last one's last."""
        round_, place = divmod(turn, len(BODIES))
        before, order = (
            [int(body) for body in _random(self._seed, _CREW, number).permutation(len(BODIES))]
            for number in (max(0, round_ - 1), round_)
        )
        if round_ and order[0] == before[-1]:
            order[:2] = order[1::-1]  # leaves the last as it was, so no round depends on two
        return BODIES[order[place]]


def _factors(body: str, rng: np.random.Generator) -> VehicleFactors:
    drawn = dict(zip(RANGES[body], rng.random(len(RANGES[body])).tolist(), strict=True))
    towards_right, second = rng.random(2).tolist()
    drawn["x"] = (drawn["x"] + second) / 2
    scaled = {name: low + (high - low) * drawn[name] for name, (low, high) in RANGES[body].items()}
    return VehicleFactors(body=body, heading=1.0 if towards_right < 0.5 else -1.0, **scaled)


def _random(seed: int, *use: int) -> np.random.Generator:
    return np.random.default_rng((seed, *use))
