"""Each path from a frame to a picture, in NEON's code, against float64 and against AVX's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ...runtime.pixels.real_pictures import CORRELATION, MEAN_ERROR
from ..cases import Case, cases_from_file

KINDS = ("frame", "jpeg", "raw", "bgr")


@pytest.fixture(scope="module")
def cases(expected: Path) -> list[Case]:
    return cases_from_file(expected / "pixels.npz")


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_keeps_the_bound_that_it_keeps_on_x86(
    cases: list[Case], kind: str, note: Callable[..., None]
) -> None:
    worst, least, theirs, apart, count = 0.0, 1.0, 0.0, 0, 0
    for case in cases:
        if case.kind != kind:
            continue
        for spec, reference, found in case.rows():
            picture = case.picture(spec)
            assert picture.shape == reference.shape
            assert picture.dtype == np.uint8
            error = float(np.abs(picture.astype(float) - reference).mean())
            correlation = float(np.corrcoef(picture.ravel(), reference.ravel())[0, 1])
            assert error <= MEAN_ERROR, f"{case.name}, {spec.fit}: {error:.3f} levels"
            if spec.color == "grey" and reference.std() > 1:
                # The bound is for pictures of a camera; the noise of `blocks` passes it as well.
                assert correlation >= CORRELATION, f"{case.name}, {spec.fit}: {correlation:.5f}"
                least = min(least, correlation)
            worst = max(worst, error)
            theirs = max(theirs, float(np.abs(found.astype(float) - reference).mean()))
            apart = max(apart, int(np.abs(picture.astype(int) - found).max()))
            count += 1
    assert count
    note(
        "pixels",
        kind=kind,
        pictures=count,
        worst_mean_error_levels=round(worst, 3),
        on_x86_levels=round(theirs, 3),
        least_correlation=round(least, 5),
        most_levels_from_x86=apart,
    )
