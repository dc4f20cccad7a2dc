"""Colours of a column of numbers, also of numbers whose span is none."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from motorvae.training.explore.factors.labels import Factor
from motorvae.training.explore.space.colouring import coloured
from motorvae.training.explore.space.originals import no_thumbnails
from motorvae.training.explore.space.picture import picture_of

POINTS = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([0, 1, 2, 3], ("0", "3")),
        ([-1.7e308, 0, 1e308, 1.7e308], ("-1.7e+308", "1.7e+308")),
        ([0, 1e300, 2e300, 3e300], ("0", "3e+300")),
        ([0, 5e-324, 1e-323, 1.5e-323], ("0", "1.482e-323")),
        ([1, 1 + 2.3e-16, 1 + 4.5e-16, 1 + 6.7e-16], ("1", "1.0000000000000007")),
        ([1700000000, 1700000010, 1700000020, 1700000030], ("1700000000", "1700000030")),
        ([1999, 2004, 2011, 2026], ("1999", "2026")),
    ],
)
def test_any_numbers_have_a_scale_from_the_lowest_to_the_highest(
    values: list[float], ends: tuple[str, str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = coloured(Factor("n", np.array(values, np.float64)), 4)
        picture = picture_of(POINTS, no_thumbnails(4), found, title="t", axes_names=("a", "b"))
    assert found.ends == ends
    assert found.values[0] == 0
    assert found.values[3] == len(found.palette) - 1
    assert list(found.values) == sorted(set(found.values))
    assert picture.startswith(b"\x89PNG")


@pytest.mark.parametrize("value", [0.0, 5.0, 1e300, -1e300])
def test_one_number_in_all_images_is_one_colour(value: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = coloured(Factor("n", np.full(4, value)), 4)
        picture_of(POINTS, no_thumbnails(4), found, title="t", axes_names=("a", "b"))
    assert set(found.values) == {0}


def test_infinite_and_unknown_numbers_have_no_colour() -> None:
    found = coloured(Factor("n", np.array([np.inf, -np.inf, np.nan, 3.0])), 4)
    assert found.values == (None, None, None, 0)
    assert found.texts == ("", "", "", "n 3")
    assert coloured(Factor("n", np.full(4, np.inf)), 4).values == (None,) * 4
