"""Vehicles that pages show: drawn, and seen by no training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from motorvae.runtime.sources.synthetic.sketch import VehicleFactors
from motorvae.runtime.sources.synthetic.vehicles import RANGES, factors_from_seed

FIRST, CANDIDATES = 500_000_000, 600
"""They are among so many vehicles of seed 0 from this number on: no training gets there."""


def drawn_vehicles() -> dict[int, VehicleFactors]:
    """Return the factors of all of them, by their numbers."""
    return {row: factors_from_seed(0, row) for row in range(FIRST, FIRST + CANDIDATES)}


def nearest(
    drawn: Mapping[int, VehicleFactors],
    body: str,
    heading: float | None = None,
    to: VehicleFactors | None = None,
) -> list[int]:
    """Return numbers of vehicles, first those near the middle of all ranges, or another one.

    They are of one body, and of one heading where that is given.
    """

    def place(factors: VehicleFactors) -> npt.NDArray[np.float64]:
        ranges = RANGES[factors.body].items()
        return np.array([(getattr(factors, name) - a) / (b - a) for name, (a, b) in ranges])

    middle = 0.5 if to is None else place(to)
    rows = [
        row for row, one in drawn.items() if one.body == body and heading in {None, one.heading}
    ]
    return sorted(rows, key=lambda row: float(np.square(place(drawn[row]) - middle).sum()))
