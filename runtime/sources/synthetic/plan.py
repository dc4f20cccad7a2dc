"""SyntheticPlan: what the synthetic camera is to deliver and which faults it is to have."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ...core.errors import ConfigError, sentence_list
from ...core.frame import DEFAULT_FPS

Ranges = tuple[tuple[int, int], ...]
"""First and last frame numbers, both included, in ascending order."""

MAX = "max"
SYNTHETIC_SIZE = 512
LARGEST_SIZE = 4096
LARGEST_LOOP_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class SyntheticPlan:
    """The query of `synthetic?key=value&...`; a frame's number is its tick of the clock.

    Attributes:
        fps: Frames per second; None is as fast as they are read, without a clock.
        seed: Which vehicles drive by.
        size: Side of the image in pixels, a multiple of 32.
        loop: After so many images they repeat, and none is drawn twice; None draws each anew.
        frames: The camera ends after so many ticks.
        drop: Frames that are not delivered.
        freeze: Frames that show the picture of the frame before them.
        damage: Frames that do not decode.
        lose: The camera is gone from the first of these on, until the last one has passed.
        stall: Nothing comes while these frames are due.
    """

    fps: float | None = DEFAULT_FPS
    seed: int = 0
    size: int = SYNTHETIC_SIZE
    loop: int | None = None
    frames: int | None = None
    drop: Ranges = ()
    freeze: Ranges = ()
    damage: Ranges = ()
    lose: Ranges = ()
    stall: Ranges = ()


def plan_from_query(query: str, *, fps: float | None = None) -> SyntheticPlan:
    """Read `fps=30&drop=30..45,90`.

    Args:
        query: Pairs joined by `&`; may be empty.
        fps: The rate where the query names none.

    Raises:
        ConfigError: A key is unknown or given twice, or a value is none of those allowed.
    """
    values: dict[str, Any] = {} if fps is None else {"fps": fps}
    given: set[str] = set()
    for pair in filter(None, query.split("&")):
        key, _, text = pair.partition("=")
        if key not in _READERS:
            raise ConfigError(f"synthetic: {key!r} is unknown: take {sentence_list(_KEYS)}")
        if key in given:
            raise ConfigError(f"synthetic: {key} is given twice: give it once")
        given.add(key)
        values[key] = _READERS[key](key, text)
    plan = SyntheticPlan(**values)
    if plan.fps is None:
        for key in ("lose", "stall"):
            if getattr(plan, key):
                raise ConfigError(
                    f"synthetic: {key} lasts by the clock, and fps={MAX} has none: name a rate"
                )
        if plan.loop is None:
            plan = SyntheticPlan(**{**values, "loop": _LOOP_AT_MAX})
    if plan.loop is not None and plan.loop * plan.size**2 > LARGEST_LOOP_BYTES:
        raise ConfigError(
            f"synthetic: loop={plan.loop} of size={plan.size} takes more than "
            f"{LARGEST_LOOP_BYTES >> 20} MiB: take fewer or smaller images"
        )
    return plan


_LOOP_AT_MAX = 240
_KEYS = tuple(field.name for field in fields(SyntheticPlan))


def _rate(key: str, text: str) -> float | None:
    if text == MAX:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate <= 1000:  # also true of NaN
        raise _refused(key, text, f"a number above 0 and up to 1000, or {MAX}")
    return rate


def _whole(least: int, most: int) -> Callable[[str, str], int]:
    def read(key: str, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise _refused(key, text, f"a whole number from {least} to {most}")
        return int(text)

    return read


def _side(key: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) % 32 or not 0 < int(text) <= LARGEST_SIZE:
        raise _refused(key, text, f"a multiple of 32 up to {LARGEST_SIZE}")
    return int(text)


def _ranges(key: str, text: str) -> Ranges:
    found = []
    for part in text.split(","):
        numbers = re.fullmatch(r"([0-9]{1,18})(?:\.\.([0-9]{1,18}))?", part)
        first = int(numbers[1]) if numbers else 0
        last = int(numbers[2] or first) if numbers else -1
        if last < first:
            raise _refused(key, text, "frame numbers such as 90 or 30..45, joined by commas")
        found.append((first, last))
    return tuple(sorted(found))


def _refused(key: str, text: str, allowed: str) -> ConfigError:
    return ConfigError(f"synthetic: {key}={text!r}: take {allowed}")


_READERS: dict[str, Callable[[str, str], Any]] = {
    "fps": _rate,
    "seed": _whole(0, 2**32 - 1),
    "size": _side,
    "loop": _whole(1, 100_000),
    "frames": _whole(1, 10**12),
    **dict.fromkeys(("drop", "freeze", "damage", "lose", "stall"), _ranges),
}
