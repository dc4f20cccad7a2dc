"""Originals over their reconstructions: best, median and worst of all held-out images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ....runtime.pixels.convert import input_from_pixels
from ..options import ReconstructionsOptions
from ..results import Result
from ..sheets import Row, png_of, sheet_of
from ..subject import Subject, open_subject

_CHUNK = 64

Float64s = npt.NDArray[np.float64]


class Errors(NamedTuple):
    """Of the reconstructions of N images from mu, whose pixels are in [0, 1]."""

    squared: Float64s  # (N,), averaged over pixels and channels
    absolute: Float64s  # (N,), likewise
    mu: npt.NDArray[np.float32]  # (N, D)

    @property
    def psnr_db(self) -> Float64s:
        """Return the peak signal-to-noise ratio in dB, (N,): -10 log10 of the squared error."""
        return np.asarray(-10 * np.log10(np.maximum(self.squared, 1e-12)))


def reconstructions(options: ReconstructionsOptions, step: Callable[[str], object]) -> Result:
    """Rank all held-out images by their squared error, and show both ends and the middle."""
    with open_subject(options, decodes=True) as subject:
        pictures = subject.held_out()
        step(f"reconstructing {pictures.source}")
        errors = errors_of(subject, pictures.pixels)
        chosen = ranked(errors.squared, options.count)
        rows = []
        for heading, some in chosen.items():
            if not len(some):
                continue
            shown = pictures.pixels[some]
            captions = [
                f"MSE {errors.squared[row]:.5f}\n{errors.psnr_db[row]:.1f} dB" for row in some
            ]
            rows.append(Row(list(shown), label="original", heading=heading))
            rebuilt = list(subject.decode(errors.mu[some]))
            rows.append(Row(rebuilt, captions, label="reconstruction"))
        title = f"{subject.name}: reconstructions of {pictures.source}"
        image = sheet_of(rows, subject.spec.color, title=title)
    squared, psnr = errors.squared, errors.psnr_db
    quantiles = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
    names = np.array(pictures.names)
    numbers = {
        "images": len(pictures),
        "source": pictures.source,
        "mean_squared_error": squared.mean(),
        "mean_absolute_error": errors.absolute.mean(),
        "psnr_db": psnr.mean(),
        "squared_error_quantiles": {
            f"{level:g}": np.quantile(squared, level) for level in quantiles
        },
        "shown": {
            heading: [
                {"name": names[row], "squared_error": squared[row], "psnr_db": psnr[row]}
                for row in some
            ]
            for heading, some in chosen.items()
        },
        "every": [
            {"name": name, "squared_error": error, "psnr_db": decibels}
            for name, error, decibels in zip(names, squared, psnr, strict=True)
        ],
    }
    middle = float(np.median(squared))
    lines = [
        *pictures.remarks,
        f"{pictures.source}: mean squared error {squared.mean():.5f} of pixels in 0 to 1, "
        f"mean PSNR {psnr.mean():.1f} dB",
        f"best {squared.min():.5f}, median {middle:.5f}, worst {squared.max():.5f} "
        f"({names[int(squared.argmax())]})",
    ]
    arrays = {
        "names": names,
        "squared_error": squared,
        "absolute_error": errors.absolute,
        "psnr_db": psnr,
    }
    return Result("reconstructions", numbers, arrays, lines, {"reconstructions.png": png_of(image)})


def errors_of(subject: Subject, pictures: npt.NDArray[np.uint8]) -> Errors:
    """Reconstruct pictures (N, ...) from mu, and compare; a few at a time in memory."""
    parts: list[Errors] = []
    for start in range(0, len(pictures), _CHUNK):
        some = pictures[start : start + _CHUNK]
        mu = subject.encode(some).mu
        away = np.subtract(subject.rebuild(mu), input_from_pixels(some), dtype=np.float64)
        axes = (1, 2, 3)
        parts.append(Errors(np.square(away).mean(axes), np.abs(away).mean(axes), mu))
    return Errors(*map(np.concatenate, zip(*parts, strict=True)))


def ranked(errors: Float64s, count: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return rows of the best, median and worst of N errors, at most `count` each, in rising order.

    No row is in two of them: fewer than three times `count` images are shared out, so that each
    is shown once, and of one or two there is no median. Equal errors keep the order of the images.
    """
    order = np.argsort(errors, kind="stable")
    third, rest = divmod(len(order), 3)
    best, median, worst = third + (rest > 0), third, third + (rest > 1)
    if third >= count:
        best = median = worst = count
    middle = max(best, (len(order) - median) // 2)
    return {
        "best": order[:best],
        "median": order[middle : middle + median],
        "worst": order[len(order) - worst :],
    }
