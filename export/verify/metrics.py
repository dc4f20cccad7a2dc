"""Figures of how far outputs are from a reference, as metrics of a report with their limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.manifest import Metric
from .extremes import RISK, upper_bound

Floats = npt.NDArray[np.floating[Any]]

LATENT_METRIC, IMAGE_METRIC = "max error / spread over data", "PSNR, worst image"
RMS_METRIC = "RMS error / spread over data"
"""Names of figures that others look up in a report."""
NEIGHBOURS = 10
NEIGHBOUR_EPSILON = 0.05
SPREAD_FLOOR = 0.01
"""A latent that hardly varies over the data is held to this share of the typical spread, and a
posterior deviation that is next to nothing to this share of its unit's."""
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
    """Return a metric; it passes where its value, and its bound if it has one, keep the limit."""
    figures = [value] if bound is None else [value, bound]
    # A NaN compares false with everything, so it never passes a limit.
    kept = limit is None or all(one >= limit if higher else one <= limit for one in figures)
    return Metric(
        name=name,
        value=value,
        unit=unit,
        limit=limit,
        bound=bound,
        passed=kept,
        higher_is_better=higher,
    )


def extreme_metric(
    name: str, per_image: Floats, limit: float | None, risk: float | None = RISK
) -> Metric:
    """Return the largest of (N,) figures, one an image, with what fresh images may reach.

    `risk` is the probability that a batch of them exceeds that; None for what was seen alone.
    """
    return metric(name, float(per_image.max()), limit=limit, bound=_bound(per_image, risk))


def psnr_metric(
    name: str, squared_errors: Floats, limit: float | None, risk: float | None = RISK
) -> Metric:
    """Return the PSNR of the worst of some images likewise; infinite for none."""
    bound = _bound(squared_errors, risk)
    return metric(
        name,
        psnr_db(float(squared_errors.max(initial=0))),
        unit="dB",
        limit=limit,
        bound=None if bound is None else psnr_db(bound),
        higher=True,
    )


def latent_metrics(
    found: Floats,
    reference: Floats,
    scale: Floats,
    *,
    judged: npt.NDArray[np.bool_],
    limits: tuple[float | None, float | None] = (None, None),
    risk: float = RISK,
) -> list[Metric]:
    """Return the errors of (N, D) latents as they are, and divided by their scale (D,).

    The largest and the RMS of the latter have limits, and are of the judged latents (D,).
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


def _bound(per_image: Floats, risk: float | None) -> float | None:
    if risk is None or len(per_image) < FEWEST_FOR_BOUND or not np.isfinite(per_image).all():
        return None
    return float(upper_bound(np.asarray(per_image, np.float64), risk=risk))


def note_on_few(images: int) -> tuple[str, ...]:
    """Return a warning, one clause, where so few images judge that the gate is weak.

    Of n images none shows a fault that is in a share p of all with probability (1 - p)^n, so that
    one in more than 1 - 0.05^(1/n) is seen with 95 % confidence; at 59 images that is 5 %.
    """
    unseen = 1 - (1 - CONFIDENCE) ** (1 / images)
    if unseen <= WEAK_SHARE:
        return ()
    of = "only 1 image judges" if images == 1 else f"only {images} images judge"
    return (
        f"weak verdict, as {of}: a fault that shows in fewer than {unseen:.0%} of images may stay "
        "unseen; take 59 or more for 5 %",
    )


def note_on_still(spread: Floats) -> tuple[str, ...]:
    """Return a clause where units hardly vary, so that the floor of their spread judges them."""
    still = int(np.count_nonzero(spread < floored_spread(spread)))
    if not still:
        return ()
    return (
        f"{still} of {len(spread)} units vary by less than {SPREAD_FLOOR:.0%} of what is typical: "
        "their error is judged by that much",
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
        share = (1 - value) / (1 - of.limit) if of.limit < 1 else float(value < 1)
    else:
        share = value / of.limit
    return math.inf if math.isnan(share) else share


def neighbour_agreement(found: Floats, reference: Floats, count: int = NEIGHBOURS) -> float:
    """Return the mean share of each image's nearest neighbours that are as near as they should be.

    The (1 + epsilon)-recall of benchmarks of nearest-neighbour search (Aumueller et al. 2020,
    "ANN-Benchmarks", section 3.1): a neighbour that `found` names counts where, by the reference's
    distances, it is hardly further than the last true one, so that near-equal frames of a video
    may change places. What lies within epsilon of the typical distance counts as near in any case.
    """
    # At most a quarter of the others: among few images strangers are neighbours too.
    count = min(count, (len(reference) - 1) // 4)
    if count < 1 or not np.isfinite(found).all():
        return 1.0 if count < 1 else 0.0
    true = _distances(reference)
    nearest = np.argpartition(_distances(found), count - 1, axis=1)[:, :count]
    last = np.partition(true, count - 1, axis=1)[:, count - 1]
    typical = float(np.median(true[np.isfinite(true)]))
    near = np.maximum((1 + NEIGHBOUR_EPSILON) * last, NEIGHBOUR_EPSILON * typical)
    return float(np.mean(np.take_along_axis(true, nearest, axis=1) <= near[:, None]))


def cosines(found: Floats, reference: Floats) -> npt.NDArray[np.float64]:
    """Return the cosine between each image's output and its reference, (N,)."""
    one, other = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (found, reference))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = (one * other).sum(axis=1)
    return np.asarray(products / np.maximum(norms, np.finfo(np.float64).tiny), np.float64)


def squared_errors(found: Floats, reference: Floats) -> npt.NDArray[np.float64]:
    """Return each image's squared error averaged over its pixels, (N,)."""
    difference = (np.asarray(found, np.float64) - reference).reshape(len(found), -1)
    return np.asarray(np.mean(difference**2, axis=1), np.float64)


def psnr_db(squared_error: float) -> float:
    """Return the PSNR of an image in [0, 1] in dB; infinite without error."""
    # A NaN stays one, and passes no limit.
    return float("inf") if squared_error == 0 else -10 * float(np.log10(squared_error))


def floored_spread(spread: Floats) -> npt.NDArray[np.float64]:
    """Return each latent's spread, at least `SPREAD_FLOOR` of their root mean square.

    A collapsed latent carries no information and its spread is near zero; without a floor an
    error that nobody could notice would look infinite.
    """
    typical = float(np.sqrt(np.mean(np.square(spread, dtype=np.float64))))
    return np.maximum(spread, max(SPREAD_FLOOR * typical, float(np.finfo(np.float32).tiny)))


def largest(error: Floats) -> float:
    """Return the largest magnitude."""
    return float(np.abs(error).max())


def rms(error: Floats) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(error))))


def rms_per_image(error: Floats) -> npt.NDArray[np.float64]:
    """Return the root mean square over the latents of (N, D) for each image, (N,)."""
    return np.asarray(np.sqrt(np.mean(np.square(error, dtype=np.float64), axis=1)), np.float64)


def _distances(latents: Floats) -> npt.NDArray[np.float64]:
    """Return the Euclidean distance between every two, infinite from one to itself."""
    points = np.asarray(latents, np.float64)
    squares = (points**2).sum(axis=1)
    squared = squares[:, None] + squares[None] - 2 * points @ points.T
    distance: npt.NDArray[np.float64] = np.sqrt(np.maximum(squared, 0))
    np.fill_diagonal(distance, np.inf)
    return distance
