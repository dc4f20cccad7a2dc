"""Figures as metrics of a report: each with its limit, and with what fresh images may reach."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.manifest import Metric
from .extremes import RISK, upper_bound
from .figures import LATENT_METRIC, RMS_METRIC, Floats, cosines, largest, psnr_db, rms

CONFIDENCE = 0.95
WEAK_SHARE = 0.05
"""A gate is called weak where a fault that shows in more images than this may stay unseen."""
FEWEST_FOR_BOUND = 64
"""Fewer images say too little of the worst of the next 128."""


def metric(
    name: str,
    value: float,
    *,
    unit: str = "",
    limit: float | None = None,
    bound: float | None = None,
    higher: bool = False,
) -> Metric:
    """Return a metric; it passes where its bound, or without one its value, keeps the limit."""
    judged = value if bound is None else bound
    # A NaN compares false with everything, so it never passes a limit.
    kept = limit is None or (judged >= limit if higher else judged <= limit)
    seen = limit is None or (value >= limit if higher else value <= limit)
    return Metric(
        name=name,
        value=value,
        unit=unit,
        limit=limit,
        bound=bound,
        passed=kept and seen,
        higher_is_better=higher,
    )


def extreme_metric(name: str, per_image: Floats, limit: float | None, risk: float = RISK) -> Metric:
    """Return the largest of (N,) figures, one an image, with what fresh images may reach."""
    value = float(per_image.max())
    return metric(name, value, limit=limit, bound=_bound(per_image, risk))


def psnr_metric(
    name: str, squared_errors: Floats, limit: float | None, risk: float = RISK
) -> Metric:
    """Return the PSNR of the worst of (N,) images, with what fresh images may reach."""
    bound = _bound(squared_errors, risk)
    return metric(
        name,
        psnr_db(float(squared_errors.max())),
        unit="dB",
        limit=limit,
        bound=None if bound is None else psnr_db(bound),
        higher=True,
    )


def latent_metrics(
    found: Floats,
    reference: Floats,
    scale: Floats,
    judged: npt.NDArray[np.bool_],
    limits: tuple[float | None, float | None],
    *,
    risk: float = RISK,
) -> list[Metric]:
    """Return the errors of latents as they are, and over their scale.

    Args:
        found: (N, D).
        reference: (N, D).
        scale: (D,), what the error of each latent is divided by.
        judged: (D,), of which latents the largest and RMS relative errors are.
        limits: Of these two.
        risk: With which probability a batch of fresh images may exceed a bound.
    """
    error = np.asarray(found, np.float64) - reference
    relative = np.abs(error / scale)[:, judged]
    return [
        non_finite_metric(int(np.count_nonzero(~np.isfinite(found)))),
        metric("max error", largest(error)),
        metric("RMS error", rms(error)),
        metric("cosine, worst image", float(cosines(found, reference).min()), higher=True),
        extreme_metric(LATENT_METRIC, relative.max(axis=1), limits[0], risk),
        metric(RMS_METRIC, rms(relative), limit=limits[1]),
    ]


def non_finite_metric(count: int) -> Metric:
    """Return how many values are no numbers; none may be."""
    return metric("NaN or Inf values", float(count), limit=0.0)


def _bound(per_image: Floats, risk: float) -> float | None:
    if len(per_image) < FEWEST_FOR_BOUND or not np.isfinite(per_image).all():
        return None
    return float(upper_bound(np.asarray(per_image, np.float64), risk=risk))


def note_on_few(images: int) -> tuple[str, ...]:
    """Return a warning, one clause, where so few held-out images judge that the gate is weak.

    Of n images none shows a fault that is in a share p of all with probability (1 - p)^n, so that
    one in more than 1 - 0.05^(1/n) is seen with 95 % confidence; at 59 images that is 5 %.
    """
    unseen = 1 - (1 - CONFIDENCE) ** (1 / images)
    if unseen <= WEAK_SHARE:
        return ()
    of = "only 1 held-out image judges" if images == 1 else f"only {images} held-out images judge"
    return (
        f"weak verdict, as {of}: a fault that shows in fewer than {unseen:.0%} of images may stay "
        "unseen; hold out 59 or more for 5 %",
    )


def share_of_limit(of: Metric) -> float:
    """Return what a metric, or its bound, uses of its limit; above 1 if it failed."""
    value = of.value if of.bound is None else of.bound
    if of.limit is None:
        return 0.0
    if of.limit == 0:
        return 0.0 if of.passed else math.inf
    if of.unit == "dB":  # as a ratio of RMS errors
        share = 10 ** ((of.limit - value) / 20)
    elif of.higher_is_better:
        share = (1 - value) / (1 - of.limit)
    else:
        share = value / of.limit
    return math.inf if math.isnan(share) else share
