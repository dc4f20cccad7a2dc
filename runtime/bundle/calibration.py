"""How an INT8 graph's ranges were found, as its bundle records it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..core.spec import StrictModel

HELD_OUT = "held-out"
"""The origin of calibration images that were kept from training."""


class Calibration(StrictModel):
    """What the search chose and what it was told.

    Attributes:
        method: Where a value's range ends: at the least and largest seen, or where a share of all
            values lies inside.
        percentile: That share in percent; None for min-max.
        equalised: Whether channels of neighbouring layers were scaled alike before.
        excluded: Layers that stay in float32.
        images: Number of images that the ranges come from.
        origin: Where these come from: `held-out`, or what the user named.
        chosen: Number of images, none of these, that candidates were compared on; 0 in bundles of
            version 2, where those that judged chose as well.
        judged: Number of images, none of all these, that judged what was chosen.
        finalists: How many candidates were held against these; the first that passed was kept.
    """

    method: Literal["min-max", "percentile"]
    percentile: float | None = Field(default=None, gt=50, lt=100)
    equalised: bool = False
    excluded: tuple[str, ...] = ()
    images: int = Field(ge=1)
    origin: str
    chosen: int = Field(default=0, ge=0)
    judged: int = Field(ge=1)
    finalists: int = Field(default=1, ge=1)
