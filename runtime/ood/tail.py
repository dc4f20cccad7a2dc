"""Tail: how far known images go, and past which value how few of them are expected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TAIL_LEVEL = 0.95  # limits above this quantile come from the tail's model, others from the images
_BEYOND = 10  # a limit is at most so many times rarer than one of the images that set it

Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tail:
    """The distribution of one statistic over known images.

    Excesses over a high threshold are nearly exponential for a wide class of distributions
    (Pickands 1975, with a shape of 0). What is not known of their mean is part of the limit: with
    k excesses of mean b, and a prior as 1 / b, a further excess is beyond y with the probability
    (1 + y / (k b)) ** -k (the Lomax distribution, the posterior predictive of an exponential).
    The fewer the images, the farther away the limit.
    """

    levels: Float64s
    """(Q,) rising, from 0 to 1, with `TAIL_LEVEL` among them."""
    quantiles: Float64s
    mean_excess: float
    """Of the values above `TAIL_LEVEL`, over the quantile there."""
    effective_images: float
    """How many independent images they are worth: a stretch of video is nearly one image."""

    def limit(self, level: float) -> float:
        """Return the value past which a share of 1 - `level` of known images is expected.

        At a level that the images cannot support, the one of a tenth of an image is taken; at a
        level of 1 the limit is beyond all of them, too.
        """
        highest = 1 - 1 / (_BEYOND * (self.effective_images + 1))
        if level <= TAIL_LEVEL:
            return float(np.interp(level, self.levels, self.quantiles))
        start = self.limit(TAIL_LEVEL)
        count = max((1 - TAIL_LEVEL) * self.effective_images, 1.0)
        rarer = (1 - TAIL_LEVEL) / (1 - max(min(level, highest), TAIL_LEVEL))
        limit = start + count * self.mean_excess * (rarer ** (1 / count) - 1)
        return max(limit, float(self.quantiles[-1])) if level >= 1 else float(limit)

    def false_alarms(self, level: float) -> float:
        """Return the share of known images to expect past the limit of a level.

        No less than once in as many images as there were: all ranks of a further one are equally
        likely, whatever the distribution.
        """
        return max(1 - level, 1 / (self.effective_images + 1))
