"""Procedural vehicles: training's built-in images, and the world that the synthetic camera sees."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ...core.errors import ConfigError
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

# What can be drawn at all. A vehicle may be out of view, as a moving one is at times.
LIMITS: dict[str, Range] = {
    "heading": (-1.0, 1.0),
    "length": (0.1, 2.0),
    "height": (0.1, 2.0),
    "cabin": (0.0, 1.0),
    "nose": (0.0, 1.0),
    "wheel": (0.01, 0.5),
    "shade": (0.0, 1.0),
    "x": (-4.0, 4.0),
    "y": (-4.0, 4.0),
    "perspective": (-1.0, 1.0),
    "shadow": (0.0, 1.0),
}

# One vehicle crosses in this time, slowest in the middle of the view, so that most frames show
# a whole vehicle, as most training images do.
_CROSSING_S = 4.0
_SLOWING = 0.8  # 0 keeps an even speed, 1 would stop in the middle
_CLEARANCE = 0.08  # how far out of view a vehicle starts and ends, in image sides
# Turn towards the camera, in radians per image side off the middle: what comes shows its front.
_TURN_PER_SIDE = 0.45

_VEHICLE, _CREW, _TRAFFIC = range(3)  # keep the random numbers of different uses apart


def factors_from_seed(seed: int, index: int) -> VehicleFactors:
    """Draw the factors of image `index`; no other image has to be drawn before it.

    Args:
        seed: Names the data set; 0 or more.
        index: Place in the data set; 0 or more.

    Raises:
        ConfigError: `seed` or `index` is negative.
    """
    if index < 0:
        raise ConfigError(f"index={index} is negative: count images from 0")
    rng = _random(seed, _VEHICLE, index)
    return _factors(BODIES[int(rng.integers(len(BODIES)))], rng)


def image_from_factors(factors: VehicleFactors, size: int = 256) -> npt.NDArray[np.uint8]:
    """Draw a vehicle on white.

    Args:
        factors: What to draw; between `RANGES` and `LIMITS` it need not look like a vehicle.
        size: S, the side of the image in pixels; a multiple of 32.

    Returns:
        (S, S) uint8 luma, anti-aliased; exactly 255 where neither vehicle nor shadow is.

    Raises:
        ConfigError: `size` is no multiple of 32, the body is unknown, or a factor is
            outside its limits.
    """
    _check_size(size)
    if factors.body not in BODIES:
        raise ConfigError(f"body={factors.body!r} is unknown: take one of {', '.join(BODIES)}")
    for name, (low, high) in LIMITS.items():
        if not low <= getattr(factors, name) <= high:  # also true of NaN
            raise ConfigError(
                f"{name}={getattr(factors, name)} is out of range: take {low} to {high}"
            )
    return sketch_from_factors(factors).image(size)


def vehicle(seed: int, index: int, size: int = 256) -> tuple[npt.NDArray[np.uint8], VehicleFactors]:
    """Return image `index` of a data set, (S, S) uint8, and its true factors.

    Raises:
        ConfigError: As `factors_from_seed` and `image_from_factors` raise it.
    """
    factors = factors_from_seed(seed, index)
    return image_from_factors(factors, size), factors


class MovingVehicles:
    """The synthetic camera's world: vehicles cross the view one after another.

    Every four vehicles show all four bodies, and no two neighbours share one.

    Args:
        seed: Names the world; 0 or more.
        size: S, the side of an image in pixels; a multiple of 32.

    Raises:
        ConfigError: `seed` is negative or `size` is no multiple of 32.
    """

    def __init__(self, seed: int = 0, size: int = 256) -> None:
        _check_size(size)
        _random(seed, _TRAFFIC, 0)  # refuses a seed that is negative
        self._seed, self._size = seed, size

    def factors(self, time_s: float) -> VehicleFactors:
        """Return the vehicle that crosses the view at a time in seconds, 0 or later.

        Raises:
            ConfigError: `time_s` is negative or not finite.
        """
        if not (math.isfinite(time_s) and time_s >= 0):
            raise ConfigError(f"time_s={time_s} is out of range: take seconds from 0")
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
        """Return what the camera sees at a time in seconds, 0 or later: (S, S) uint8.

        A pure function of the seed, the size and the time.

        Raises:
            ConfigError: `time_s` is negative or not finite.
        """
        return image_from_factors(self.factors(time_s), self._size)

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


def _random(seed: int, use: int, index: int) -> np.random.Generator:
    if seed < 0:
        raise ConfigError(f"seed={seed} is negative: take 0 or more")
    return np.random.default_rng((seed, use, index))


def _check_size(size: int) -> None:
    if size < 32 or size % 32:
        below = max(32, size // 32 * 32)
        raise ConfigError(f"size={size} is not a multiple of 32: take {below} or {below + 32}")
