"""Latents between and beyond images: the geometry, the signs, and the means."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.core.errors import ConfigError, UsageError
from motorvae.training.explore.cli import explored
from motorvae.training.explore.options import (
    ArithmeticOptions,
    AverageOptions,
    InterpolateOptions,
)
from motorvae.training.explore.verbs.blends import angle_of, linear, spherical, sum_of

PLACES = np.linspace(0, 1, 7)
A, B = np.array([3, 0, 0], np.float32), np.array([0, 3, 0], np.float32)


def test_a_great_circle_keeps_the_length_and_goes_at_even_angles() -> None:
    found = spherical(A, B, PLACES)
    np.testing.assert_allclose(found[[0, -1]], [A, B], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 3, rtol=1e-6)
    angles = [angle_of(one, other) for one, other in pairwise(found)]
    np.testing.assert_allclose(angles, math.pi / 2 / 6, rtol=1e-4)


def test_a_straight_line_cuts_through_the_sphere() -> None:
    found = linear(A, B, PLACES)
    np.testing.assert_allclose(found[[0, -1]], [A, B])
    np.testing.assert_allclose(found[3], (A + B) / 2)
    assert np.linalg.norm(found[3]) < 2.2  # and 3 on the circle


def test_latents_in_one_direction_and_opposite_ones() -> None:
    np.testing.assert_allclose(spherical(A, 2 * A, PLACES), linear(A, 2 * A, PLACES), rtol=1e-6)
    with pytest.raises(ConfigError, match="opposite latents have no one great circle"):
        spherical(A, -A, PLACES)
    with pytest.raises(ConfigError, match="at the origin has no direction"):
        spherical(A, 0 * A, PLACES)


def test_interpolation_starts_and_ends_at_the_images(colour_run: Path, tmp_path: Path) -> None:
    ends = ("held-out:0", "vehicle:3")
    straight = InterpolateOptions(ends=ends, model=colour_run, output=tmp_path, steps=5)
    result = explored("interpolate", straight)
    z = result.arrays["z"]
    assert z.shape == (5, 4)
    np.testing.assert_allclose(np.diff(z, axis=0), np.tile((z[-1] - z[0]) / 4, (4, 1)), atol=1e-5)
    circle = InterpolateOptions(
        ends=ends, model=colour_run, output=tmp_path, steps=5, spherical=True
    )
    other = explored("interpolate", circle).arrays["z"]
    np.testing.assert_allclose(other[[0, -1]], z[[0, -1]], atol=1e-5)
    assert not np.allclose(other[2], z[2], rtol=1e-3)
    assert (tmp_path / "interpolate.gif").is_file()


@pytest.mark.parametrize("ends", [(), ("a",), ("a", "b", "c")])
def test_interpolation_takes_two_images(ends: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"give two images, and not {len(ends)}"):
        explored("interpolate", InterpolateOptions(ends=ends, output=tmp_path))


def test_a_sum_has_the_signs_of_its_terms() -> None:
    mu = np.array([[1, 2], [10, 20], [100, 200]], np.float32)
    np.testing.assert_allclose(sum_of(mu, np.array([1.0, -1, 1])), [91, 182])


@pytest.mark.parametrize(
    ("words", "signed"),
    [
        ("a - b + c", ((1, "a"), (-1, "b"), (1, "c"))),
        ("- a + b", ((-1, "a"), (1, "b"))),
        ("+ a + b", ((1, "a"), (1, "b"))),
    ],
)
def test_words_are_terms_with_signs(words: str, signed: tuple[tuple[int, str], ...]) -> None:
    assert ArithmeticOptions(terms=tuple(words.split())).signed == signed


@pytest.mark.parametrize("words", ["", "a", "a b", "a - - b", "a -", "a - b c", "- - a", "a * b"])
def test_words_that_are_no_sum_are_refused(words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"write images with \+ or - between them"):
        explored("arithmetic", ArithmeticOptions(terms=tuple(words.split()), output=tmp_path))


def test_a_minus_a_plus_b_is_b(finished_run: Path, tmp_path: Path) -> None:
    words = ("vehicle:1", "-", "vehicle:1", "+", "vehicle:2")
    asked = ArithmeticOptions(terms=words, model=finished_run, output=tmp_path)
    result = explored("arithmetic", asked)
    np.testing.assert_allclose(result.arrays["z"], result.arrays["mu"][2], rtol=1e-4, atol=1e-5)
    distances = [term["distance_to_sum"] for term in result.numbers["terms"]]
    assert distances[2] < 1e-3 < distances[0]
    assert len(result.lines) == 1
    less = ArithmeticOptions(terms=words[:2] + words[4:], model=finished_run, output=tmp_path)
    assert "the signs sum to 0" in explored("arithmetic", less).lines[1]


def test_an_average_is_that_of_latents_and_of_pixels(small_bundle: Path, tmp_path: Path) -> None:
    asked = AverageOptions(
        of=("held-out:0", "held-out:1", "vehicle:4"), model=small_bundle, output=tmp_path
    )
    result = explored("average", asked)
    np.testing.assert_allclose(result.arrays["z"], result.arrays["mu"].mean(axis=0), rtol=1e-5)
    assert result.numbers["images"] == 3
    alone = AverageOptions(of=("held-out:0",), model=small_bundle, output=tmp_path)
    one = explored("average", alone)
    np.testing.assert_array_equal(one.arrays["z"], one.arrays["mu"][0])
    everything = AverageOptions(model=small_bundle, output=tmp_path)
    assert explored("average", everything).numbers["images"] > 3
