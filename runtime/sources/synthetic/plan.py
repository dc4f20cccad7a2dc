"""SyntheticPlan: what the synthetic camera is to deliver and which faults it is to have."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ...core.errors import ConfigError, sentence_list
from ...core.frame import DEFAULT_FPS

Ranges = tuple[tuple[int, int], ...]
"""First and last frame numbers, both included, in ascending order."""

MAX = "max"
SYNTHETIC_SIZE = 512
LARGEST_SIZE = 4096
LARGEST_LOOP_BYTES = 1 << 30
_LOOP_AT_MAX = 240


@dataclass(frozen=True, slots=True)
class SyntheticPlan:
    """The query of `synthetic?key=value&...`; a frame's number is its tick of the clock."""

    fps: float | None = DEFAULT_FPS  # None: as fast as they are read, without a clock
    seed: int = 0  # which vehicles drive by
    size: int = SYNTHETIC_SIZE  # side of the image in pixels, a multiple of 32
    loop: int | None = None  # so many images repeat, and none is drawn twice; None: each anew
    frames: int | None = None  # the camera ends after so many ticks
    drop: Ranges = ()  # frames that are not delivered
    freeze: Ranges = ()  # frames that show the picture of the frame before them
    damage: Ranges = ()  # frames that do not decode
    lose: Ranges = ()  # the camera is gone from the first of these on, until the last has passed
    stall: Ranges = ()  # nothing comes while these frames are due


def plan_from_query(query: str, *, fps: float | None = None) -> SyntheticPlan:
    """Read `fps=30&drop=30..45,90`.

    Args:
        query: Pairs joined by `&`; may be empty.
        fps: The rate where the query names none.

    Raises:
        ConfigError: A key is unknown or given twice, or a value is none of those allowed.
    """
    values: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        key, _, text = pair.partition("=")
        if key not in _READERS:
            raise ConfigError(f"synthetic: {key!r} is unknown: take {sentence_list([*_READERS])}")
        if key in values:
            raise ConfigError(f"synthetic: {key} is given twice: give it once")
        read, allowed = _READERS[key]
        try:
            values[key] = read(text)
        except ValueError as error:
            raise ConfigError(f"synthetic: {key}={text!r}: take {allowed}") from error
    plan = SyntheticPlan(**({} if fps is None else {"fps": fps}) | values)
    if plan.fps is None:
        for key in ("lose", "stall"):
            if getattr(plan, key):
                raise ConfigError(
                    f"synthetic: {key} lasts by the clock, and fps={MAX} has none: name a rate"
                )
        plan = replace(plan, loop=plan.loop or _LOOP_AT_MAX)
    if plan.loop is not None and plan.loop * plan.size**2 > LARGEST_LOOP_BYTES:
        raise ConfigError(
            f"synthetic: loop={plan.loop} of size={plan.size} takes more than "
            f"{LARGEST_LOOP_BYTES >> 20} MiB: take fewer or smaller images"
        )
    return plan


def _rate(text: str) -> float | None:
    if text == MAX:
        return None
    if not 0 < float(text) <= 1000:  # also true of NaN
        raise ValueError
    return float(text)


def _ranges(text: str) -> Ranges:
    found = []
    for part in text.split(","):
        numbers = re.fullmatch(r"([0-9]{1,18})(?:\.\.([0-9]{1,18}))?", part)
        if not numbers or int(numbers[2] or numbers[1]) < int(numbers[1]):
            raise ValueError
        found.append((int(numbers[1]), int(numbers[2] or numbers[1])))
    return tuple(sorted(found))


_Reader = tuple[Callable[[str], Any], str]
"""Reads a value, or raises ValueError; and the words for what it takes."""


def _whole(least: int, most: int, *, step: int = 1) -> _Reader:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise ValueError
        if int(text) % step:
            raise ValueError
        return int(text)

    several = f"a multiple of {step} up to {most}"
    return read, several if step > 1 else f"a whole number from {least} to {most}"


_FRAMES: _Reader = _ranges, "frame numbers such as 90 or 30..45, joined by commas"
_READERS: dict[str, _Reader] = {
    "fps": (_rate, f"a number above 0 and up to 1000, or {MAX}"),
    "seed": _whole(0, 2**32 - 1),
    "size": _whole(32, LARGEST_SIZE, step=32),
    "loop": _whole(1, 100_000),
    "frames": _whole(1, 10**12),
    **dict.fromkeys(("drop", "freeze", "damage", "lose", "stall"), _FRAMES),
}
