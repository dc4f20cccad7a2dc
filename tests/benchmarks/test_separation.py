from __future__ import annotations

import io
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from motorvae.benchmarks.environment import environment_now, load_now
from motorvae.benchmarks.separation import (
    Judged,
    SeparationResult,
    auroc,
    kind_of_images,
    load_separation,
    print_separation,
    save_separation,
)
from motorvae.runtime.errors import MeasurementError
from motorvae.runtime.familiarity import STATISTIC_NAMES, Familiarity
from motorvae.runtime.spec import ModelSpec


@pytest.fixture
def familiarity() -> Familiarity:
    """One latent dimension; the limit of every statistic is 9."""
    return Familiarity(
        {
            "mean": np.zeros(1),
            "covariance": np.eye(1),
            "covariance_ridge": np.array(0.0),
            "log_var_mean": np.zeros(1),
            "log_var_deviation": np.ones(1),
            "log_var_ridge": np.array(0.0),
            "quantile_levels": np.array([0.0, 1.0]),
            "quantile_count": np.array(100.0),
            **{f"{name}_quantiles": np.array([0.0, 10.0]) for name in STATISTIC_NAMES},
        },
        foreign_above=90,
    )


def judged(values: list[float], foreign: list[bool]) -> Judged:
    return Judged({name: np.array(values) for name in STATISTIC_NAMES}, np.array(foreign))


@pytest.fixture
def result(familiarity: Familiarity, small_spec: ModelSpec) -> SeparationResult:
    known = judged([1, 2, 3, 4], [False] * 4)
    noise = judged([2, 10, 11], [False, False, True])
    return SeparationResult(
        created="2026-11-23T12:00:00+00:00",
        environment=environment_now(threads={}, load_start=load_now()),
        model=small_spec,
        weights_sha256="ab" * 32,
        backend="ONNX Runtime",
        seed=0,
        foreign_above=90,
        yardstick_images=100,
        reference="vehicles",
        kinds=(
            kind_of_images("vehicles", known, reference=None, known=True, familiarity=familiarity),
            kind_of_images("noise", noise, reference=known, known=False, familiarity=familiarity),
        ),
    )


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    for known_count, foreign_count, values in ((7, 5, 3), (40, 60, 10), (30, 1, 1000)):
        known = rng.integers(0, values, known_count).astype(np.float64)
        foreign = rng.integers(0, values, foreign_count).astype(np.float64)  # many ties
        pairs = [(a < b) + (a == b) / 2 for a, b in product(known, foreign)]
        assert auroc(known, foreign) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_auroc_at_its_ends() -> None:
    low, high = np.arange(5.0), np.arange(5.0, 8)
    assert (auroc(low, high), auroc(high, low), auroc(low, low)) == (1, 0, 0.5)
    assert auroc(np.zeros(4), np.zeros(3)) == 0.5


def test_a_kind_says_what_is_past_which_limit(result: SeparationResult) -> None:
    known, noise = result.kinds
    assert (known.images, noise.images) == (4, 3)
    assert (known.foreign, known.with_error) == (0, 0)
    assert known.statistics["mahalanobis"].auroc is None
    found = noise.statistics["mahalanobis"]
    assert found.auroc == pytest.approx((1.5 + 4 + 4) / 12)
    assert found.flagged == pytest.approx(2 / 3)
    assert found.values == (2, 10, 11)
    # What the runtime called foreign, not what could be worked out here; the error adds one.
    assert noise.foreign == pytest.approx(1 / 3)
    assert noise.with_error == pytest.approx(2 / 3)


def test_a_result_reads_back_equal(result: SeparationResult, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save_separation(path, result)
    assert load_separation(path) == result


def test_a_result_of_another_version_is_refused(result: SeparationResult, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save_separation(path, result)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"schema_version": 2}), encoding="utf-8")
    with pytest.raises(MeasurementError, match=r"has schema_version=2, .* run the benchmark again"):
        load_separation(path)


def test_the_table_shows_each_figure(result: SeparationResult) -> None:
    said = io.StringIO()
    print_separation(Console(file=said, width=80), result)
    text = said.getvalue()
    caption = " ".join(text.splitlines()[:2])
    assert "AUROC against vehicles; flagged past 90 % of 100 held-out images" in caption
    (row,) = [line for line in text.splitlines() if line.lstrip().startswith("noise")]
    assert row.split() == ["noise", "3", *["0.792", "67%"] * 4, "33%"]
    (row,) = [line for line in text.splitlines() if line.lstrip().startswith("vehicles")]
    assert row.split() == ["vehicles", "4", *["0%"] * 5]
