"""Samples of the prior beside samples of a mixture, and how unlike known images each of them is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ....runtime.core.errors import ConfigError
from ....runtime.ood.detector import shrunk
from ....runtime.ood.features import features_of
from ...latent_statistics import evenly, mahalanobis, shrinkage_of
from ..options import SamplesOptions
from ..pictures import Pixels
from ..results import Result
from ..sheets import beside, grid_of, png_of
from ..subject import Subject, TrainLatents, open_subject
from .mixture import Mixture, gaussian_of, mixture_of

MEASURED = 256
"""So many samples are measured, however many are shown; and at most so many held-out images."""

Float64s = npt.NDArray[np.float64]


class Measured(NamedTuple):
    """What N decoded latents look like to the model, which encodes them again."""

    z: npt.NDArray[np.float32]  # (N, D)
    pictures: Pixels  # (N, ...)
    distance: Float64s  # (N,) Mahalanobis distances of the new mu; empty where it is not known
    nearest: Float64s  # (N,) standardised distances to the nearest training latent, or empty
    diversity: float  # variance of a pixel in 0 to 1 over the N pictures, averaged over pixels


def samples(options: SamplesOptions, step: Callable[[str], object]) -> Result:
    """Sample twice, decode, and compare both with held-out images that are reconstructed."""
    with open_subject(options, decodes=True) as subject:
        train = subject.train_latents()
        step(f"fitting a mixture to {train.source}")
        mixture, fitted_to = _fitted(subject, train, options)
        held_out = subject.held_out()
        some = np.sort(evenly(np.arange(len(held_out)), max(MEASURED, options.count)))
        number = max(MEASURED, options.count)
        generator = np.random.default_rng(options.seed)
        prior = generator.standard_normal((number, subject.spec.latent_size), np.float32)
        known = subject.encode(held_out.pixels[some]).mu
        found = {}
        for name, z in (("prior", prior), ("mixture", mixture.draw(number)), ("held_out", known)):
            step(f"decoding {name.replace('_', '-')}")
            found[name] = measured(subject, train, z)
        columns = max(1, math.isqrt(options.count))
        headings = {
            "prior": "prior, N(0, I)",
            "mixture": f"mixture: {mixture.title}",
            "held_out": "held-out images, reconstructed",
        }
        image = beside(
            [
                grid_of(
                    list(one.pictures[: options.count]),
                    columns,
                    subject.spec.color,
                    heading=headings[name],
                    most_cell=160,
                )
                for name, one in found.items()
            ],
            title=f"{subject.name}: samples, seed {options.seed}",
        )
    numbers = {
        "mixture": {
            "components": mixture.components,
            "covariance": mixture.covariance,
            "bic": mixture.bic,
            "fitted_to": fitted_to,
            "candidates": mixture.candidates,
        },
        "sets": {name: _numbers(one, found["held_out"]) for name, one in found.items()},
    }
    arrays = {
        f"{name}_{part}": values
        for name, one in found.items()
        for part, values in (("z", one.z), ("mahalanobis", one.distance), ("nearest", one.nearest))
        if len(values)
    }
    lines = [f"mixture: {mixture.title}, fitted to {fitted_to}"]
    lines += [_line(headings[name], one) for name, one in found.items()]
    return Result("samples", numbers, arrays, lines, {"samples.png": png_of(image)})


def measured(subject: Subject, train: TrainLatents, z: npt.NDArray[np.float32]) -> Measured:
    """Decode latents (N, D), encode the pictures again, and compare those latents with known ones.

    A latent that decodes to what the encoder knows comes back near other images' latents. Distances
    of z itself would say nothing of the picture.
    """
    pictures = subject.decode(z)
    mu = subject.encode(pictures).mu
    levels = pictures.astype(np.float32) / np.float32(255)
    diversity = float(levels.var(axis=0, dtype=np.float64).mean())
    distance = nearest = np.empty(0)
    if (shape := _gaussian(subject, train)) is not None:
        mean, covariance, ridge = shape
        distance = mahalanobis(features_of(mu, subject.spec), mean, covariance, ridge)
    if train.mu is not None:
        nearest = nearest_distances(mu, train.mu)
    return Measured(z, pictures, distance, nearest, diversity)


def nearest_distances(mu: npt.NDArray[np.float32], known: npt.NDArray[np.float32]) -> Float64s:
    """Return the distance of each mu (N, D) to the nearest known one (M, D), standardised: (N,).

    Each dimension counts in its standard deviations over the known ones, and the distance is
    divided by the square root of the number of dimensions that vary.
    """
    deviation = known.std(axis=0, dtype=np.float64)
    moving = deviation > 0
    scale = deviation[moving] * math.sqrt(max(1, int(moving.sum())))
    own, others = mu[:, moving] / scale, known[:, moving] / scale
    squares = (others**2).sum(1)
    found = np.empty(len(mu))
    for row, one in enumerate(own):
        found[row] = math.sqrt(max(0.0, float((squares - 2 * others @ one).min() + one @ one)))
    return found


def _gaussian(subject: Subject, train: TrainLatents) -> tuple[Float64s, Float64s, float] | None:
    """Return mean, covariance and ridge of the features of training latents, if they are known."""
    names = ("mean", "covariance", "covariance_shrinkage", "covariance_ridge")
    known = subject.statistics() if subject.has_own_images else {}
    if all(name in known for name in names):
        mean, covariance, shrinkage, ridge = (known[name] for name in names)
        return mean, shrunk(covariance, float(shrinkage)), float(ridge)
    if train.mu is None or len(train.mu) < 2:
        return None
    features = features_of(train.mu, subject.spec)
    if features.shape[1] > 1024:
        return None
    matrix: Float64s = np.atleast_2d(np.cov(features, rowvar=False, bias=True))
    least = max(1e-6 * float(np.diag(matrix).mean()), float(np.finfo(np.float32).tiny))
    return features.mean(0), shrunk(matrix, shrinkage_of(features)), least


def _fitted(subject: Subject, train: TrainLatents, options: SamplesOptions) -> tuple[Mixture, str]:
    if train.mu is not None:
        mixture = mixture_of(train.mu, options.components, options.seed)
        return mixture, f"the latents of {train.source}"
    if train.mean is None or train.covariance is None:
        raise ConfigError(
            f"{subject.folder} came without latents to fit a mixture to: name images with --images"
        )
    known = subject.statistics()
    shrinkage = float(known.get("covariance_shrinkage", np.array(0.0)))
    gaussian = gaussian_of(train.mean, shrunk(train.covariance, shrinkage), options.seed)
    return gaussian, f"the {train.source}, as it came without the latents themselves"


def _numbers(one: Measured, held_out: Measured) -> dict[str, float | None]:
    """Return what is known of a set; of the distances the share beyond nearly all held-out ones."""

    def median(values: Float64s) -> float | None:
        return float(np.median(values)) if len(values) else None

    beyond = None
    if len(one.distance):
        beyond = float((one.distance > np.quantile(held_out.distance, 0.99)).mean())
    return {
        "measured": len(one.z),
        "mahalanobis_median": median(one.distance),
        "beyond_99_percent_of_held_out": beyond,
        "nearest_median": median(one.nearest),
        "pixel_variance": one.diversity,
    }


def _line(heading: str, one: Measured) -> str:
    parts = []
    if len(one.distance):
        parts.append(f"Mahalanobis {np.median(one.distance):.1f}")
    if len(one.nearest):
        parts.append(f"nearest {np.median(one.nearest):.2f}")
    parts.append(f"pixel variance {one.diversity:.4f}")
    return f"{heading}: {', '.join(parts)}"
