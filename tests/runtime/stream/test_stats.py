from __future__ import annotations

import io
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from motorvae.runtime.cli import latency_table
from motorvae.runtime.stream.stats import StageTimes


def test_nothing_measured_is_nothing_said() -> None:
    assert StageTimes().percentiles() == {}


def test_stages_keep_the_order_in_which_they_were_seen() -> None:
    times = StageTimes()
    times.add({"late": 1_000_000, "early": 2_000_000})
    times.add({"early": 4_000_000})
    found = times.percentiles()
    assert list(found) == ["late", "early"]
    assert found["early"].count == 2
    assert found["early"].max == 4.0


@given(st.lists(st.integers(0, 7 * 10**12), min_size=1, max_size=200))
def test_percentiles_of_a_run_of_any_length_are_right_to_a_quarter_percent(
    samples: list[int],
) -> None:
    times = StageTimes()
    for sample in samples:
        times.add({"x": sample})
    found = times.percentiles()["x"]
    wanted = np.percentile(np.array(samples) / 1e6, (50, 95, 99), method="inverted_cdf")
    assert (found.p50, found.p95, found.p99) == pytest.approx(tuple(wanted), rel=0.0026, abs=1e-4)
    assert found.max == max(samples) / 1e6
    assert found.count == len(samples)


def test_a_long_run_takes_no_more_memory_than_a_short_one() -> None:
    times = StageTimes()
    times.add({"x": 1})
    before = sys.getsizeof(times._cells["x"])
    for sample in range(1, 10_000):
        times.add({"x": 1000 * sample})
    assert sys.getsizeof(times._cells["x"]) == before
    assert len(times._cells) == 1


def test_each_percentile_stands_under_its_own_name() -> None:
    """Of 1 to 1000 ms each percentile is another number, in the object and in the table."""
    times = StageTimes()
    for ms in range(1, 1001):
        times.add({"encode": ms * 10**6})
    found = times.percentiles()["encode"]
    assert (found.p50, found.p95, found.p99, found.max) == pytest.approx(
        (500, 950, 990, 1000), rel=0.003
    )
    said = io.StringIO()
    Console(file=said, width=80).print(latency_table({"encode": found}))
    heading, row = (
        line for line in said.getvalue().splitlines() if "stage" in line or "enc" in line
    )
    names = [name for name in re.split(r"\W{2,}", heading.strip("┃ ")) if name]
    values = [float(cell) for cell in re.findall(r"[\d.]+", row)]
    assert dict(zip(names[1:], values, strict=True)) == pytest.approx(
        {"p50 ms": 500, "p95 ms": 950, "p99 ms": 990, "max ms": 1000}, rel=0.003
    )
