"""Traversals: what each latent dimension does to an image, ranked by how much it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..aggregate import Aggregate, aggregate_of
from ..animation import animation_of, there_and_back
from ..options import TraversalsOptions
from ..pictures import Pixels
from ..results import Result
from ..sheets import Row, beside, png_of, sheet_of
from ..subject import Subject, open_subject

MOST_DIMENSIONS = 256
"""Of larger latents those of the largest KL, or else variance of mu, are moved."""
_BLOCK_ROWS = 32
"""Of the sheet of all dimensions, in each of its columns."""
_FRAMES, _FPS = 25, 12.5

Floats = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]


class Moved(NamedTuple):
    """What moving some dimensions does, in the order of the ranking: first what does most."""

    dimensions: npt.NDArray[np.int64]  # (K,)
    pixel_variance: Float64s  # (K,), of pixels in 0 to 1 over the steps, averaged over pixels
    pictures: Pixels  # (K, steps, ...)


def traversals(options: TraversalsOptions, step: Callable[[str], object]) -> Result:
    """Move one dimension at a time, the others held, over its range in the aggregate posterior."""
    with open_subject(options, decodes=True) as subject:
        aggregate = aggregate_of(subject)
        base, name = aggregate.mean.astype(np.float32), "the mean latent"
        if options.image is not None:
            name, picture = subject.picture(options.image)
            base = subject.encode(picture[None]).mu[0]
        places = np.linspace(-options.span, options.span, options.steps)
        moved = ranked_by_effect(subject, aggregate, base, places, step)
        pictures = {"traversals.png": _all_on_one(subject, aggregate, moved, name, options)}
        digits = len(str(subject.spec.latent_size - 1))
        for rank in range(min(options.dimensions, len(moved.dimensions))):
            dimension = int(moved.dimensions[rank])
            step(f"dimension {dimension}")
            stem = f"traversal-{dimension:0{digits}d}"
            row = Row(
                list(moved.pictures[rank]),
                [f"{place:+.3g} sd" for place in places],
                heading=_heading(aggregate, moved, rank),
            )
            sheet = sheet_of([row], subject.spec.color, title=f"{subject.name}: {name}")
            pictures[f"{stem}.png"] = png_of(sheet)
            smooth = np.linspace(-options.span, options.span, _FRAMES)
            frames = [
                sheet_of(
                    [Row([one], [f"{place:+.1f} sd"], heading=f"dimension {dimension}")],
                    subject.spec.color,
                )
                for one, place in zip(
                    subject.decode(latents_along(aggregate, base, dimension, smooth)),
                    smooth,
                    strict=True,
                )
            ]
            file = f"{stem}.{options.animation}"
            pictures[file] = animation_of(there_and_back(frames), options.animation, fps=_FPS)
    informative = aggregate.informative
    first = int(moved.dimensions[0])
    lines = [
        f"{int(informative.sum())} of {len(informative)} dimensions are informative, "
        f"{int((~informative).sum())} collapsed, by {aggregate.source}",
        f"dimension {first} does most: pixel variance {moved.pixel_variance[0]:.5f} over "
        f"{options.span:g} standard deviations to each side",
    ]
    if len(moved.dimensions) < len(informative):
        which = "KL" if aggregate.kl is not None else "variance of mu"
        lines.append(f"moved were the {len(moved.dimensions)} dimensions of the largest {which}")
    arrays: dict[str, npt.NDArray[Any]] = {
        "base": base,
        "places": places,
        "mean": aggregate.mean,
        "deviation": aggregate.deviation,
        "mu_variance": aggregate.mu_variance,
        "posterior_variance": aggregate.posterior_variance,
        "informative": informative,
        "ranking": moved.dimensions,
        "pixel_variance": moved.pixel_variance,
    }
    arrays |= {} if aggregate.kl is None else {"kl": aggregate.kl}
    numbers = {
        "base": name,
        "measured_on": aggregate.source,
        "informative": int(informative.sum()),
        "collapsed": int((~informative).sum()),
        "ranking": [
            {
                "dimension": int(dimension),
                "pixel_variance": moved.pixel_variance[rank],
                "kl_nats": None if aggregate.kl is None else aggregate.kl[dimension],
                "mean": aggregate.mean[dimension],
                "deviation": aggregate.deviation[dimension],
                "is_informative": bool(informative[dimension]),
            }
            for rank, dimension in enumerate(moved.dimensions)
        ],
    }
    return Result("traversals", numbers, arrays, lines, pictures)


def latents_along(aggregate: Aggregate, base: Floats, dimension: int, places: Float64s) -> Floats:
    """Return the base latent (D,) with one dimension at each of P places: (P, D) float32.

    A place is counted in standard deviations of the aggregate posterior from its mean, wherever
    the base itself is: what training has never reached, a decoder has not learned to draw.
    """
    found = np.tile(base, (len(places), 1))
    found[:, dimension] = aggregate.mean[dimension] + places * aggregate.deviation[dimension]
    return found


def ranked_by_effect(
    subject: Subject,
    aggregate: Aggregate,
    base: Floats,
    places: Float64s,
    step: Callable[[str], object] = lambda _: None,
) -> Moved:
    """Move every dimension, or the `MOST_DIMENSIONS` of the largest KL, and rank by the effect."""
    worth = aggregate.mu_variance if aggregate.kl is None else aggregate.kl
    candidates = np.sort(np.argsort(-worth, kind="stable")[:MOST_DIMENSIONS])
    shape = (len(candidates), len(places), *subject.spec.picture_shape)
    pictures, variances = np.empty(shape, np.uint8), np.empty(len(candidates))
    for row, dimension in enumerate(candidates):
        step(f"moving dimension {row + 1} of {len(candidates)}")
        images = subject.rebuild(latents_along(aggregate, base, int(dimension), places))
        variances[row] = images.var(axis=0, dtype=np.float64).mean()
        pictures[row] = subject.levels(images)
    order = np.argsort(-variances, kind="stable")
    return Moved(candidates[order], variances[order], pictures[order])


def _all_on_one(
    subject: Subject, aggregate: Aggregate, moved: Moved, name: str, options: TraversalsOptions
) -> bytes:
    rows = [
        Row(
            list(moved.pictures[rank]),
            label=_heading(aggregate, moved, rank).replace(": ", "\n", 1).replace(", ", "\n"),
            is_pale=not aggregate.informative[dimension],
        )
        for rank, dimension in enumerate(moved.dimensions)
    ]
    blocks = [
        sheet_of(rows[start : start + _BLOCK_ROWS], subject.spec.color, most_cell=96)
        for start in range(0, len(rows), _BLOCK_ROWS)
    ]
    title = (
        f"{subject.name}: {name}, each dimension from -{options.span:g} to +{options.span:g} "
        "standard deviations, ranked by pixel variance"
    )
    return png_of(beside(blocks, title=title))


def _heading(aggregate: Aggregate, moved: Moved, rank: int) -> str:
    dimension = int(moved.dimensions[rank])
    parts = [f"pixel variance {moved.pixel_variance[rank]:.2g}"]
    if aggregate.kl is not None:
        parts.append(f"KL {aggregate.kl[dimension]:.3g} nats")
    if not aggregate.informative[dimension]:
        parts.append("collapsed")
    return f"dimension {dimension}: {', '.join(parts)}"
