"""Statistics of known images and their latents, by which out-of-distribution images stand out."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..runtime.core.atomic_files import replaced_file
from ..runtime.core.spec import Color, ModelSpec
from ..runtime.ood.appearance import LAYOUT, Appearance
from ..runtime.ood.detector import shrunk
from ..runtime.ood.features import feature_count, features_of
from ..runtime.ood.tail import TAIL_LEVEL
from ..runtime.pixels.convert import Pixels, image_from_picture, picture_of_size
from .dataset import DataSet, Rows

HELD_OUT_NAME = "held_out.npz"
TRAIN_LATENTS_NAME = "train_latents.npz"
_BODY_LEVELS = (0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, TAIL_LEVEL, 0.98)
_TAIL_LEVELS = (0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 1)
QUANTILE_LEVELS = (*_BODY_LEVELS, *_TAIL_LEVELS)
STATISTICS_IMAGES = 4096
"""At most so many training images are encoded, drawn evenly; more would not move a mean."""
YARDSTICK_IMAGES = 4096
"""At most so many held-out images set the quantiles: past the 99.9th percentile there are four."""
HELD_OUT_IMAGES = 2048
"""At most so many held-out images are kept: INT8 graphs are chosen and judged on them."""
REFERENCES = 2048
"""At most so many training images are what a frame's appearance is compared with."""
_GAP_ROWS, _GAP_SHARE = 30, 20
"""Images that come within so many of each other, or within such a part of all, may be neighbours
in a video: none is judged by the other."""
_LEAST_DEVIATION = 0.01
"""Of an appearance's value: else the smallest change of one that never changes is too far."""
_LAYOUT_DEVIATIONS = 4
"""The 16 values of the layout count as one of the others: where things are varies most."""
_RIDGE = 1e-6
"""Added to the covariance, times its mean variance: a collapsed latent has none of its own."""
_MOST_NUMBERS, _LEAST_IMAGES = 1 << 24, 64
"""Of large latents fewer images are encoded: no more than so many numbers, or so many images."""
_BATCH = 32
_CHUNK = 256

Floats = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Statistics = dict[str, npt.NDArray[np.floating[Any]]]
Encode = Callable[[Floats], tuple[Floats, Floats | None]]
Decode = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model gives for N images."""

    mu: Floats  # (N, D)
    log_var: Floats | None  # (N, D), where the encoder gives it
    # (N,) float64, the squared error of the reconstruction averaged over pixels
    error: Float64s | None = None


def latent_statistics(
    data: DataSet,
    spec: ModelSpec,
    encode: Encode,
    decode: Decode | None = None,
    *,
    train: Outputs | None = None,
) -> Statistics:
    """Measure the latents of images, in float32, the arithmetic that is deployed.

    Mean and covariance are those of the training images. The quantiles are those of held-out
    images: by the statistics of images that the model has learned, and from which the covariance
    was taken, every new image would look out of distribution. Appearance is not learned, so all
    images show how far known ones are from the nearest of the others.

    `encode` takes images (N, C, H, W) float32 in [0, 1] and gives mu and log_var (N, D), which is
    None where there is none; `decode` takes mu and gives such images. `train` is what `encode`
    gives for `train_outputs`, where that is known already.

    Returns:
        See `statistics_from_outputs` and `appearance_statistics`.
    """
    train = train or train_outputs(data, spec, encode)
    # In the recording's own order.
    unseen = np.sort(evenly(data.held_out, min(YARDSTICK_IMAGES, _most_images(spec))))
    return {
        **statistics_from_outputs(train, outputs_of(data, unseen, encode, decode), spec),
        **appearance_statistics(data),
    }


def statistics_rows(data: DataSet, spec: ModelSpec) -> Rows:
    """Return which training images the statistics of latents are taken from, in their order."""
    return evenly(data.train, min(STATISTICS_IMAGES, _most_images(spec)))


def train_outputs(data: DataSet, spec: ModelSpec, encode: Encode) -> Outputs:
    """Encode the training images of `statistics_rows`."""
    return outputs_of(data, statistics_rows(data, spec), encode)


def _most_images(spec: ModelSpec) -> int:
    return max(_LEAST_IMAGES, _MOST_NUMBERS // spec.latent_size)


def statistics_from_outputs(train: Outputs, held_out: Outputs, spec: ModelSpec) -> Statistics:
    """Return the statistics of training images, and quantiles over held-out ones in their order.

    What does not exist is left out: of an encoder without log_var all that is about it, without
    a decoder the reconstruction error, and where no features are measured theirs; see
    `motorvae.runtime.ood.features`.

    Returns:
        `count` () of training images; `mu_deviation` (D,); of the features of mu, which are mu
        itself where it is flat, `mean` (F,) and `covariance` (F, F), as they are,
        `covariance_shrinkage` () towards its diagonal, and `covariance_ridge` (), to add to the
        diagonal before it is inverted; `posterior_variance_mean` (D,), the mean of exp(log_var);
        `log_var_mean` and `log_var_deviation` (D,), and `log_var_ridge` (), to add to the
        deviation's square before it is divided by; `quantile_levels` (Q,), `quantile_count` (),
        and at these levels over the held-out images `kl_quantiles` in nats;
        `mahalanobis_quantiles` of the features (a distance, not its square);
        `log_var_distance_quantiles`, the same of log_var with each dimension by itself;
        `reconstruction_error_quantiles`, the squared error averaged over pixels. For
        `mahalanobis`, `..._excess` and `..._effective_count` as of
        `motorvae.runtime.ood.tail.Tail`. All float64.
    """
    found: Statistics = {
        "count": np.array(len(train.mu), np.float64),
        "mu_deviation": train.mu.std(axis=0, dtype=np.float64),
        "quantile_levels": np.array(QUANTILE_LEVELS),
        "quantile_count": np.array(len(held_out.mu), np.float64),
    }
    if feature_count(spec):
        features, unseen = (features_of(one.mu, spec) for one in (train, held_out))
        mean = features.mean(0)
        covariance = np.atleast_2d(np.cov(features, rowvar=False, bias=True))
        shrinkage, ridge = shrinkage_of(features), _ridge(np.diag(covariance))
        distances = mahalanobis(unseen, mean, shrunk(covariance, shrinkage), ridge)
        found |= {
            "mean": mean,
            "covariance": covariance,
            "covariance_shrinkage": np.array(shrinkage),
            "covariance_ridge": np.array(ridge),
            **_tail("mahalanobis", distances),
        }
    if train.log_var is not None and held_out.log_var is not None:
        log_var_mean = train.log_var.mean(axis=0, dtype=np.float64)
        log_var_deviation = train.log_var.std(axis=0, dtype=np.float64)
        log_var_ridge = _ridge(log_var_deviation**2)
        away = (held_out.log_var - log_var_mean) / np.sqrt(log_var_deviation**2 + log_var_ridge)
        kl = kl_of(held_out.mu, held_out.log_var)
        found |= {
            "log_var_mean": log_var_mean,
            "log_var_deviation": log_var_deviation,
            "log_var_ridge": np.array(log_var_ridge),
            "posterior_variance_mean": np.exp(train.log_var, dtype=np.float64).mean(0),
            "kl_quantiles": np.quantile(kl, QUANTILE_LEVELS),
            "log_var_distance_quantiles": np.quantile(
                np.linalg.norm(away, axis=1), QUANTILE_LEVELS
            ),
        }
    if held_out.error is not None:
        found["reconstruction_error_quantiles"] = np.quantile(held_out.error, QUANTILE_LEVELS)
    return found


def kl_of(mu: Floats, log_var: Floats) -> Float64s:
    """Return KL(N(mu, exp(log_var)) || N(0, 1)) in nats, summed over latents, (N,).

    Closed form of Kingma & Welling 2014, appendix B; `expm1` keeps its digits near the prior.
    """
    squares = np.square(mu, dtype=np.float64)
    divergence: Float64s = squares + np.expm1(log_var, dtype=np.float64) - log_var
    return np.asarray(0.5 * divergence.sum(axis=1))


def appearance_statistics(data: DataSet) -> Statistics:
    """Measure what known images look like.

    Returns:
        `appearance_mean` and `appearance_deviation` (K,), and `appearance_references` (M, K)
        float32, appearances of training images in those units; over `appearance_count` () of all
        images `appearance_quantiles`, the distance to the nearest reference, at the
        `quantile_levels` of `statistics_from_outputs`; `appearance_excess` and
        `appearance_effective_count` as of `motorvae.runtime.ood.tail.Tail`.
    """
    rows = np.sort(evenly(np.concatenate([data.train, data.held_out]), YARDSTICK_IMAGES))
    reference_rows = evenly(data.train, REFERENCES)
    height, width = data.images.shape[-2:]
    appearance = Appearance(height, width, data.color)

    def measured(images: Iterable[npt.NDArray[np.uint8]]) -> Float64s:
        return np.stack([appearance.measure(image).copy() for image in images])

    references = measured(data.each(reference_rows))
    # Known images, too, as another decoder may give them, and what that does is no difference.
    handled = measured(
        _handled(image, data.color, turn) for turn, image in enumerate(data.each(rows))
    )
    clean = measured(data.each(rows))
    mean = references.mean(0)
    tolerance = np.square(handled - clean).mean(0)
    deviation = np.sqrt(np.maximum(references.var(0), _LEAST_DEVIATION**2) + tolerance)
    deviation[[name.startswith(LAYOUT) for name in appearance.names]] *= _LAYOUT_DEVIATIONS
    references = (references - mean) / deviation
    points = (handled - mean) / deviation
    gap = min(_GAP_ROWS, len(data.images) // _GAP_SHARE)
    found = distances_to_others(points, rows, references, reference_rows, gap)
    return {
        "appearance_mean": mean,
        "appearance_deviation": deviation,
        "appearance_references": references.astype(np.float32),
        "appearance_count": np.array(len(rows), np.float64),
        **_tail("appearance", found),
    }


def _handled(image: Pixels, color: Color, turn: int) -> Pixels:
    """Return an image as it is, by JPEG at quality 90, a level darker or a level brighter.

    So much the same picture differs from one decoder, codec or conversion of colours to another.
    """
    found = image
    if turn % 4 == 1:
        quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
        _, coded = cv2.imencode(".jpg", image_from_picture(image, color), quality)
        kind = cv2.IMREAD_GRAYSCALE if image.ndim == 2 else cv2.IMREAD_COLOR
        decoded = np.asarray(cv2.imdecode(coded, kind), np.uint8)
        found = picture_of_size(decoded, color)
    elif turn % 4 == 2:
        found = np.maximum(image, 1) - np.uint8(1)
    elif turn % 4 == 3:
        found = np.minimum(image, 254) + np.uint8(1)
    return found


def _tail(name: str, values: Float64s) -> dict[str, Float64s]:
    """Return what a `Tail` is made of, for values in the order of the recording."""
    return {
        f"{name}_quantiles": np.quantile(values, QUANTILE_LEVELS),
        f"{name}_excess": np.array(mean_excess(values)),
        f"{name}_effective_count": np.array(effective_count(values)),
    }


def outputs_of(data: DataSet, rows: Rows, encode: Encode, decode: Decode | None = None) -> Outputs:
    """Run images through a model, a few at a time."""
    parts: list[Outputs] = []
    for start in range(0, len(rows), _BATCH):
        images = data.batch(rows[start : start + _BATCH])
        mu, log_var = encode(images)
        error = None
        if decode is not None:
            away = np.subtract(decode(mu), images, dtype=np.float64)
            error = np.square(away).mean(axis=(1, 2, 3))
        parts.append(Outputs(mu, log_var, error))
    log_vars = [part.log_var for part in parts if part.log_var is not None]
    errors = [part.error for part in parts if part.error is not None]
    return Outputs(
        np.concatenate([part.mu for part in parts]),
        np.concatenate(log_vars) if log_vars else None,
        np.concatenate(errors) if errors else None,
    )


def _ridge(variance: Float64s) -> float:
    """Return what to add to variances (D,) before they are divided by."""
    # The smallest normal number keeps a matrix invertible even where no value ever moves.
    return max(_RIDGE * float(variance.mean()), float(np.finfo(np.float32).tiny))


def mahalanobis(mu: Float64s, mean: Float64s, covariance: Float64s, ridge: float) -> Float64s:
    """Return the distance of each mu (N, D) from the mean, in spreads: (N,)."""
    away = mu - mean
    factor = np.linalg.cholesky(covariance + ridge * np.eye(len(mean)))
    whitened = np.linalg.solve(factor, away.T)
    return np.asarray(np.linalg.norm(whitened, axis=0))


def save_latents(path: Path, statistics: Statistics) -> None:
    """Write `latents.npz`; read it with `allow_pickle=False`."""
    with replaced_file(path) as temporary:
        np.savez(temporary, **statistics)  # type: ignore[arg-type]  # the stub mixes up its keywords


def save_train_latents(folder: Path, data: DataSet, train: Outputs, spec: ModelSpec) -> None:
    """Write `names` (N,), `mu` (N, D) and, if there is one, `log_var` of `statistics_rows`."""
    names = np.array([data.names[row] for row in statistics_rows(data, spec)], np.str_)
    arrays = {"names": names, "mu": train.mu}
    arrays |= {} if train.log_var is None else {"log_var": train.log_var}
    with replaced_file(folder / TRAIN_LATENTS_NAME) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def save_held_out(folder: Path, data: DataSet) -> None:
    """Write up to 2048 held-out images, of the smallest content hash, a few at a time in memory."""
    rows = data.held_out[:HELD_OUT_IMAGES]
    names = np.array([data.names[row] for row in rows], np.str_)
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)),
        "fortran_order": False,
        "shape": (len(rows), *data.images.shape[1:]),
    }
    with (
        replaced_file(folder / HELD_OUT_NAME) as path,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        with archive.open("images.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(rows), _BATCH):
                file.write(data.images[rows[start : start + _BATCH]].tobytes())
        with archive.open("names.npy", "w") as file:
            np.lib.format.write_array(file, names, allow_pickle=False)


def evenly(rows: Rows, most: int) -> Rows:
    """Return at most so many of the rows, at even distances."""
    positions = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)
    chosen: Rows = rows[positions]
    return chosen


def shrinkage_of(samples: Float64s) -> float:
    """Return how far a covariance is to be moved towards its own diagonal, from 0 to 1.

    The estimate of Ledoit & Wolf (2004, "A well-conditioned estimator for large-dimensional
    covariance matrices") on standardised samples, whose target, the identity, is then the
    diagonal: latents differ in scale by orders of magnitude, and the scale itself is well known.
    Of (N, D) samples a dimension that never moves counts as independent.
    """
    away = samples - samples.mean(0)
    deviation = away.std(0)
    moving = deviation > 0
    scaled = away[:, moving] / deviation[moving]
    count, size = scaled.shape
    if size < 2:
        return 0.0
    correlation = scaled.T @ scaled / count
    distance = float(((correlation - np.eye(size)) ** 2).sum())
    squares = scaled**2
    noise = float((squares.T @ squares / count - correlation**2).sum()) / count
    return 1.0 if distance <= 0 else min(1.0, noise / distance)


def effective_count(values: Float64s) -> float:
    """Return how many independent values determine a mean as well as these (N,), taken in order.

    N / (1 + 2 (r1 + r2 + ...)) with the autocorrelations r, summed in pairs for as long as a pair
    is positive (the initial positive sequence of Geyer 1992); from 1 to N.
    """
    count = len(values)
    away = values - values.mean()
    variance = float(np.dot(away, away))
    if variance == 0:
        return 1.0
    total = 1.0
    for lag in range(1, count - 1, 2):
        pair = sum(float(np.dot(away[k:], away[:-k])) for k in (lag, lag + 1)) / variance
        if pair <= 0:
            break
        total += 2 * pair
    return max(1.0, min(float(count), count / total))


def mean_excess(values: Float64s) -> float:
    """Return by how much values above the quantile at `TAIL_LEVEL` are above it, on average."""
    start = np.quantile(values, TAIL_LEVEL)
    above = values[values > start]
    return float((above - start).mean()) if len(above) else 0.0


def distances_to_others(
    points: Float64s, rows: Rows, references: Float64s, reference_rows: Rows, gap: int
) -> Float64s:
    """Return the distance of each (N, K) point to the nearest (M, K) reference, no neighbour of it.

    `rows` (N,) and `reference_rows` (M,) are positions in the recording. References at most `gap`
    rows away do not count, unless there are no others: neighbouring frames of a video are nearly
    equal, and those of another recording will not have such neighbours.
    """
    squares = (references**2).sum(1)
    found = np.empty(len(points))
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        some = points[part]
        away = (some**2).sum(1)[:, None] - 2 * some @ references.T + squares
        near = np.abs(rows[part, None] - reference_rows) <= gap
        kept = np.where(near & ~near.all(1, keepdims=True), np.inf, away)
        found[part] = np.sqrt(np.maximum(kept.min(1), 0))
    return found
