"""Which colour each image has in a map, and the legend that says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from ..factors.labels import Factor

_STEPS = 64
_DIGITS = 4
_SMALLEST = float(np.finfo(np.float64).tiny)
# Okabe & Ito 2008, "Color Universal Design", which the colour-blind tell apart; then more.
_FIRST = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b5a600", "#7a4fbf")
_ALL = (*_FIRST, *(to_hex(colormaps["tab20b"](place)) for place in range(0, 20, 2)))
PLAIN = _FIRST[0]
UNKNOWN = "#8a94a0"


@dataclass(frozen=True, slots=True)
class Colouring:
    """Colours of N images.

    Attributes:
        palette: Colours as `#rrggbb`.
        values: Of each image the place in it; None where nothing is known.
        texts: Of each image what it is coloured by, for people; "" where nothing is known.
        title: Name of the factor; "" without one.
        classes: What the colours stand for, of a categorical factor.
        ends: Lowest and highest value, of a continuous one.
    """

    palette: tuple[str, ...]
    values: tuple[int | None, ...]
    texts: tuple[str, ...]
    title: str = ""
    classes: tuple[str, ...] = ()
    ends: tuple[str, str] | None = None

    @property
    def colours(self) -> list[str]:
        """Of each image, as `#rrggbb`."""
        return [UNKNOWN if value is None else self.palette[value] for value in self.values]


def coloured(factor: Factor | None, count: int) -> Colouring:
    """Return the colours of N images by a factor; all alike without one."""
    if factor is None:
        return Colouring((PLAIN,), (0,) * count, ("",) * count)
    if factor.classes:
        return _by_class(factor)
    known = factor.values[factor.known]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    steps = np.zeros(count)
    if high > low:
        largest = max(abs(low), abs(high))  # by which the span of any two numbers is finite
        shares = np.where(factor.known, factor.values, low) / largest - low / largest
        steps = shares / max(high / largest - low / largest, _SMALLEST) * (_STEPS - 1)
    values = [
        int(step) if is_known else None
        for step, is_known in zip(np.rint(steps), factor.known, strict=True)
    ]
    digits = _digits_between(low, high)
    texts = [
        f"{factor.name} {one:.{digits}g}" if math.isfinite(one) else "" for one in factor.values
    ]
    palette = tuple(to_hex(colormaps["viridis"](step / (_STEPS - 1))) for step in range(_STEPS))
    ends = f"{low:.{digits}g}", f"{high:.{digits}g}"
    return Colouring(palette, tuple(values), tuple(texts), factor.name, ends=ends)


def _digits_between(low: float, high: float) -> int:
    """Return with how many digits numbers are told apart: four of their span."""
    largest = max(abs(low), abs(high))
    share = high / largest - low / largest if largest else 0.0
    return _DIGITS if not share else min(17, _DIGITS - min(0, math.floor(math.log10(share))))


def _by_class(factor: Factor) -> Colouring:
    """Colour the most frequent classes, and all others, where there are too many, alike."""
    codes = [int(value) if math.isfinite(value) else None for value in factor.values]
    place, classes = _places(codes, factor.classes)
    return Colouring(
        palette=_ALL[: len(classes)],
        values=tuple(None if code is None else place[code] for code in codes),
        texts=tuple("" if code is None else factor.classes[code] for code in codes),
        title=factor.name,
        classes=classes,
    )


def _places(
    codes: Sequence[int | None], classes: Sequence[str]
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return of each class its colour, and what each colour stands for."""
    if len(classes) <= len(_ALL):
        return {code: code for code in range(len(classes))}, tuple(classes)
    known = np.array([code for code in codes if code is not None], np.int64)
    counts = np.bincount(known, minlength=len(classes))
    most = sorted(np.argsort(-counts, kind="stable")[: len(_ALL) - 1].tolist())
    place = dict.fromkeys(range(len(classes)), len(_ALL) - 1)
    place |= {code: number for number, code in enumerate(most)}
    return place, (*(classes[code] for code in most), f"{len(classes) - len(most)} other classes")
