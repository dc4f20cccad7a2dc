"""Latents between and beyond images: interpolation, arithmetic, averages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ....runtime.core.errors import ConfigError
from ....runtime.pixels.convert import input_from_pixels
from ..animation import animation_of, there_and_back
from ..options import ArithmeticOptions, AverageOptions, InterpolateOptions
from ..pictures import Pixels
from ..results import Result
from ..sheets import Row, png_of, sheet_of
from ..subject import open_subject

_FRAMES, _FPS = 31, 12.5
_COLUMNS = 12
_SHOWN = 8
_PARALLEL = 1e-6  # sine of an angle below which there is no arc to follow

Float64s = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


def linear(start: Floats, end: Floats, places: Float64s) -> Floats:
    """Return latents (P, D) on the straight line, from 0 at the start to 1 at the end."""
    share = places[:, None]
    found: Float64s = (1 - share) * start.astype(np.float64) + share * end.astype(np.float64)
    return found.astype(np.float32)


def spherical(start: Floats, end: Floats, places: Float64s) -> Floats:
    """Return latents (P, D) on the great circle around the origin, at even angles.

    Slerp of Shoemake 1985 ("Animating rotation with quaternion curves"), as White 2016 ("Sampling
    generative networks") takes it for latents: the two need not be equally long. Latents in one
    direction are interpolated linearly; a ConfigError where they are opposite, or one is 0.
    """
    first, second = start.astype(np.float64), end.astype(np.float64)
    lengths = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    if min(lengths) == 0:
        raise ConfigError("a latent at the origin has no direction: leave out --spherical")
    angle = angle_of(start, end)
    if math.sin(angle) < _PARALLEL:
        if angle > 1:
            raise ConfigError(
                "opposite latents have no one great circle between them: leave out --spherical"
            )
        return linear(start, end, places)
    share = places[:, None]
    found: Float64s = (
        np.sin((1 - share) * angle) * first + np.sin(share * angle) * second
    ) / math.sin(angle)
    return found.astype(np.float32)


def angle_of(start: Floats, end: Floats) -> float:
    """Return the angle between two latents (D,), from 0 to pi; 0 where one of them is 0."""
    first, second = start.astype(np.float64), end.astype(np.float64)
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return math.acos(min(1.0, max(-1.0, float(first @ second) / lengths))) if lengths else 0.0


def interpolate(options: InterpolateOptions, step: Callable[[str], object]) -> Result:
    """Decode latents on the way from one image's mu to the other's."""
    along = spherical if options.spherical else linear
    with open_subject(options, decodes=True) as subject:
        (first, picture), (second, other) = map(subject.picture, options.ends)
        ends = np.stack([picture, other])
        step("interpolating")
        start, end = subject.encode(ends).mu
        places = np.linspace(0, 1, options.steps)
        z = along(start, end, places)
        decoded = subject.rebuild(z)
        way = "on a great circle" if options.spherical else "on a straight line"
        title = f"{subject.name}: from {first} to {second} {way}"
        cells: list[tuple[Pixels, str]] = [(picture, f"original\n{first}")]
        cells += zip(subject.levels(decoded), [f"{place:.2f}" for place in places], strict=True)
        cells += [(other, f"original\n{second}")]
        rows = [
            Row([one for one, _ in some], [text for _, text in some])
            for some in (cells[at : at + _COLUMNS] for at in range(0, len(cells), _COLUMNS))
        ]
        smooth = np.linspace(0, 1, max(_FRAMES, options.steps))
        shown = subject.decode(along(start, end, smooth))
        frames = [
            sheet_of(
                [Row([picture, one, other], [first, f"{place:.2f}", second])], subject.spec.color
            )
            for one, place in zip(shown, smooth, strict=True)
        ]
        pictures = {
            "interpolate.png": png_of(sheet_of(rows, subject.spec.color, title=title)),
            f"interpolate.{options.animation}": animation_of(
                there_and_back(frames), options.animation, fps=_FPS
            ),
        }
    changes = np.abs(np.diff(decoded, axis=0)).mean(axis=(1, 2, 3), dtype=np.float64)
    degrees = math.degrees(angle_of(start, end))
    lengths = [float(np.linalg.norm(one)) for one in (start, end)]
    numbers = {
        "from": first,
        "to": second,
        "way": "spherical" if options.spherical else "linear",
        "angle_degrees": degrees,
        "lengths": lengths,
        "distance": float(np.linalg.norm(end - start)),
        "mean_absolute_change_of_steps": changes,
        "largest_change_over_mean": changes.max() / changes.mean() if changes.any() else None,
    }
    lines = [
        f"from {first} to {second} {way}: {degrees:.0f} degrees apart, mu of length "
        f"{lengths[0]:.1f} and {lengths[1]:.1f}",
        f"a step changes a pixel by {changes.mean() * 255:.2f} levels on average, at most "
        f"{changes.max() * 255:.2f}",
    ]
    arrays: dict[str, npt.NDArray[Any]] = {"places": places, "z": z}
    return Result("interpolate", numbers, arrays, lines, pictures)


def arithmetic(options: ArithmeticOptions, step: Callable[[str], object]) -> Result:
    """Add and subtract the mu of images, and decode what comes out (Radford et al. 2016)."""
    terms = options.signed
    with open_subject(options, decodes=True) as subject:
        named = [subject.picture(image) for _, image in terms]
        pixels = np.stack([picture for _, picture in named])
        step("adding")
        mu = subject.encode(pixels).mu
        signs = np.array([sign for sign, _ in terms], np.float64)
        z = sum_of(mu, signs)
        marks = ["+" if sign > 0 else "-" for sign in signs]
        words = " ".join(f"{mark} {name}" for mark, (name, _) in zip(marks, named, strict=True))
        words = words.removeprefix("+ ")
        rebuilt = subject.decode(np.concatenate([mu, z[None]]))
        captions = [f"{mark} {name}" for mark, (name, _) in zip(marks, named, strict=True)]
        rows = [
            Row([*pixels, None], label="original"),
            Row(list(rebuilt), [*captions, "= the sum"], label="decoded"),
        ]
        sheet = sheet_of(rows, subject.spec.color, title=f"{subject.name}: {words}")
    distances = np.linalg.norm(mu - z, axis=1)
    total = int(signs.sum())
    nearest = named[int(distances.argmin())][0]
    lines = [
        f"{words}: the sum is of length {np.linalg.norm(z):.1f}, the terms "
        f"{np.linalg.norm(mu, axis=1).mean():.1f} on average; nearest of them is {nearest}"
    ]
    if total != 1:
        lines.append(
            f"the signs sum to {total}, so the result depends on where the origin is: as many "
            "minus as plus but one would not"
        )
    numbers = {
        "terms": [
            {"sign": int(sign), "image": name, "distance_to_sum": distance}
            for sign, (name, _), distance in zip(signs, named, distances, strict=True)
        ],
        "sum_of_signs": total,
        "length": float(np.linalg.norm(z)),
    }
    arrays: dict[str, npt.NDArray[Any]] = {"z": z, "mu": mu, "signs": signs}
    return Result("arithmetic", numbers, arrays, lines, {"arithmetic.png": png_of(sheet)})


def sum_of(mu: Floats, signs: Float64s) -> Floats:
    """Return the sum (D,) of latents (N, D), each times its sign (N,)."""
    found: Float64s = signs @ mu.astype(np.float64)
    return found.astype(np.float32)


def average(options: AverageOptions, step: Callable[[str], object]) -> Result:
    """Decode the mean mu of images, and show it beside the mean of their pixels."""
    with open_subject(options, decodes=True) as subject:
        parts = [subject.pictures(word) for word in options.of] or [subject.held_out()]
        pixels = np.concatenate([part.pixels for part in parts])
        names = [name for part in parts for name in part.names]
        count = len(pixels)
        some = f"{count} image{'' if count == 1 else 's'}"
        step(f"encoding {some}")
        mu = subject.encode(pixels).mu
        z = mu.mean(axis=0, dtype=np.float64).astype(np.float32)
        decoded = subject.rebuild(z[None])
        sums = np.zeros(decoded.shape[1:])
        for picture in pixels:
            sums += input_from_pixels(picture[None])[0]
        mean = (sums / count).astype(np.float32)[None]
        shown = np.linspace(0, count - 1, min(_SHOWN, count)).round().astype(np.int64)
        rows = [
            Row(
                [subject.levels(decoded)[0], subject.levels(mean)[0]],
                ["mean latent,\ndecoded", "mean of\nthe pixels"],
                heading=some,
            ),
            Row(list(pixels[shown]), [names[row] for row in shown], heading="some of them"),
            Row(list(subject.decode(mu[shown])), heading="their reconstructions"),
        ]
        title = f"{subject.name}: an average of latents, and of pixels"
        sheet = sheet_of(rows, subject.spec.color, title=title)
    sharpness = {"decoded": sharpness_of(decoded[0]), "pixels": sharpness_of(mean[0])}
    spread = float(np.linalg.norm(mu - z, axis=1).mean())
    numbers: dict[str, Any] = {
        "images": count,
        "length": float(np.linalg.norm(z)),
        "mean_distance_of_images": spread,
        "squared_difference": float(np.square(decoded - mean, dtype=np.float64).mean()),
        "sharpness": sharpness,
    }
    remarks = [remark for part in parts for remark in part.remarks]
    lines = [
        *remarks,
        f"{some}: their mu are {spread:.1f} from the mean on average, which is of length "
        f"{numbers['length']:.1f}",
        f"sharpness {sharpness['decoded']:.4f} of the mean latent, {sharpness['pixels']:.4f} of "
        "the mean of the pixels",
    ]
    arrays: dict[str, npt.NDArray[Any]] = {"z": z, "mu": mu, "names": np.array(names)}
    return Result("average", numbers, arrays, lines, {"average.png": png_of(sheet)})


def sharpness_of(image: Floats) -> float:
    """Return the mean absolute difference of neighbouring pixels, of an image (C, H, W)."""
    across, down = np.abs(np.diff(image, axis=2)), np.abs(np.diff(image, axis=1))
    return float((across.mean(dtype=np.float64) + down.mean(dtype=np.float64)) / 2)
