from __future__ import annotations

import numpy as np
import pytest

from motorvae.runtime.timing import StageTimes, percentiles_of


def test_percentiles_are_numpys_in_milliseconds() -> None:
    samples = np.random.default_rng(0).integers(0, 10**9, 1000)
    found = percentiles_of(samples.tolist())
    assert found is not None
    wanted = np.percentile(samples / 1e6, (50, 95, 99, 100))
    assert (found.p50, found.p95, found.p99, found.max) == pytest.approx(tuple(wanted))
    assert found.count == 1000


def test_nothing_measured_is_nothing_said() -> None:
    assert percentiles_of([]) is None
    assert StageTimes().percentiles() == {}


def test_stages_keep_the_order_in_which_they_were_seen() -> None:
    times = StageTimes()
    times.add({"late": 1_000_000, "early": 2_000_000})
    times.add({"early": 4_000_000})
    found = times.percentiles()
    assert list(found) == ["late", "early"]
    assert found["early"].count == 2
    assert found["early"].p50 == 3.0
