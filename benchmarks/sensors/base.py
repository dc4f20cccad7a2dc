"""A sensor of energy or power, and reading numbers that the system shows as files."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ...runtime.core.system.small_files import MOST_BYTES, bytes_of_small_file
from ..measure.energy import Scope

ROOT = Path("/")
"""Where the tree of sysfs begins; another one in tests."""
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Sensor:
    """One thing that counts energy or shows power."""

    name: str  # As the system names it
    source: str  # Where it is read
    scope: Scope
    covers: str  # What its energy is that of
    reads: Literal["energy counter", "power"]
    read: Callable[[], int]  # Microjoules of a counter, microwatts of power; may raise an OSError
    # From which value on a counter begins anew; None where it never does
    wraps_at: int | None = None

    def counted(self, before: int, after: int) -> int:
        """Return the microjoules between two readings of a counter.

        One wrap at most: the ranges that powercap shows last for minutes at any power that a
        processor can take (262 kJ at 300 W are 14 minutes), and a window lasts seconds.
        """
        if after < before and self.wraps_at is not None:
            return after - before + self.wraps_at
        return after - before


class Absent(NamedTuple):
    """A kind of sensor that is not there, why, and what could be done."""

    kind: str
    reason: str

    @property
    def words(self) -> str:
        """Both as one clause."""
        return f"{self.kind}: {self.reason}"


class Rhythm(NamedTuple):
    """How often the value of a sensor changes."""

    update_ms: float | None  # Median time between two changes; None where there were fewer than two
    changes: int


def number_in(path: Path) -> int:
    """Read a whole number of 64 bits; an OSError where it cannot be read, or is none."""
    text = _text_in(path)
    number = int(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else None
    if number is None or not -(1 << 63) <= number < 1 << 63:
        raise OSError(f"{path} holds {text[:40]!r}, no whole number of 64 bits")
    return number


def number_or_none(path: Path) -> int | None:
    """Read a whole number; None where that is not possible."""
    try:
        return number_in(path)
    except OSError:
        return None


def reading_or_none(sensor: Sensor) -> int | None:
    """Read a sensor; None where that is not possible now."""
    try:
        return sensor.read()
    except OSError:
        return None


def text_or_none(path: Path) -> str | None:
    """Read a name, on one line of a screen; None where that is not possible, or it is empty."""
    try:
        return one_line(_text_in(path)) or None
    except OSError:
        return None


def one_line(text: str) -> str:
    """Return a name as it is shown: at most so long, on one line, with nothing unprintable."""
    words = " ".join(text[:_LONGEST_NAME].split())
    return "".join(c if c.isprintable() else "?" for c in words)


def _text_in(path: Path) -> str:
    """Read a small file's text; an OSError where it cannot be read.

    Nothing is waited for: whoever measures may be shown any tree, as in a container.
    """
    data = bytes_of_small_file(path, MOST_BYTES + 1)
    if data is None or len(data) > MOST_BYTES:
        problem = "is no regular file" if data is None else f"is larger than {MOST_BYTES >> 10} KiB"
        raise OSError(f"{path} {problem}")
    return data.decode("utf-8", errors="replace").strip()


def rhythm_of(sensor: Sensor, *, most_s: float, enough: int = 200) -> Rhythm:
    """Poll a sensor as fast as it can be read, and time the changes of its value.

    This keeps one core busy, so that power is not so steady that an update goes unseen. A reading
    that fails, as a sensor's may for a moment, is no change.
    """
    stamps: list[int] = []
    give_up_ns = time.monotonic_ns() + round(most_s * 1e9)
    last = reading_or_none(sensor)
    while (now_ns := time.monotonic_ns()) < give_up_ns and len(stamps) <= enough:
        value = reading_or_none(sensor)
        if value is not None and value != last:
            stamps.append(now_ns)
            last = value
    gaps = np.diff(np.asarray(stamps, np.int64))
    return Rhythm(float(np.median(gaps)) / 1e6 if len(gaps) else None, len(stamps))
