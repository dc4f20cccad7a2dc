from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from motorvae.benchmarks.measure.environment import environment_now, load_now
from motorvae.benchmarks.ood.separation import (
    Judged,
    SeparationResult,
    kind_of_images,
    load_separation,
    print_separation,
    save_separation,
)
from motorvae.runtime.core.errors import MeasurementError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.ood.appearance import Appearance
from motorvae.runtime.ood.detector import STATISTIC_NAMES, OODDetector

LOOKS = len(Appearance(32).names)


@pytest.fixture
def detector() -> OODDetector:
    """One latent dimension; every limit is 9 or, for the two that decide, 9.2 and 9.5."""
    return OODDetector(
        {
            "mean": np.zeros(1),
            "covariance": np.eye(1),
            "covariance_ridge": np.array(0.0),
            "covariance_shrinkage": np.array(0.0),
            "appearance_mean": np.zeros(LOOKS),
            "appearance_deviation": np.ones(LOOKS),
            "appearance_references": np.zeros((1, LOOKS)),
            **{f"{name}_excess": np.array(0.0) for name in ("appearance", "mahalanobis")},
            **{f"{name}_effective_count": np.array(9.0) for name in ("appearance", "mahalanobis")},
            "log_var_mean": np.zeros(1),
            "log_var_deviation": np.ones(1),
            "log_var_ridge": np.array(0.0),
            "quantile_levels": np.array([0.0, 0.95, 1.0]),
            "quantile_count": np.array(100.0),
            **{f"{name}_quantiles": np.array([0.0, 9.5, 10.0]) for name in STATISTIC_NAMES},
        },
        32,
        ood_above=90,
    )


def judged(values: list[float], foreign: list[bool]) -> Judged:
    values_of = {name: np.array(values) for name in STATISTIC_NAMES}
    return Judged(values_of, np.array(values) / 9, np.array(foreign))


@pytest.fixture
def result(detector: OODDetector, small_spec: ModelSpec) -> SeparationResult:
    known = judged([1, 2, 3, 4], [False] * 4)
    noise = judged([2, 10, 11], [False, False, True])
    return SeparationResult(
        created="2026-11-23T12:00:00+00:00",
        environment=environment_now(threads={}, load_start=load_now()),
        model=small_spec,
        weights_sha256="ab" * 32,
        backend="ONNX Runtime",
        seed=0,
        ood_above=90,
        yardstick_images=100,
        effective_images=9.0,
        false_alarms=0.2,
        reference="vehicles",
        kinds=(
            kind_of_images("vehicles", known, reference=None, known=True, detector=detector),
            kind_of_images("noise", noise, reference=known, known=False, detector=detector),
        ),
    )


def test_a_kind_says_what_is_past_which_limit(result: SeparationResult) -> None:
    known, noise = result.kinds
    assert (known.images, noise.images) == (4, 3)
    assert (known.is_ood.flagged, known.is_ood.auroc) == (0, None)
    assert known.statistics["mahalanobis"].auroc is None
    found = noise.statistics["mahalanobis"]
    assert found.auroc == pytest.approx((1.5 + 4 + 4) / 12)
    assert found.flagged == pytest.approx(2 / 3)
    # 2 is as near to the middle of 1 to 4 as 3 is, and nearer than 1 and 4; 10 and 11 are outside.
    assert found.two_sided == pytest.approx(((1 + 1) / 2 + 4 + 4) / 12)
    # What the runtime called foreign, not what could be worked out here.
    assert noise.is_ood.flagged == pytest.approx(1 / 3)
    assert noise.is_ood.auroc == pytest.approx((1.5 + 4 + 4) / 12)


def test_a_result_reads_back_equal(result: SeparationResult, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save_separation(path, result)
    assert load_separation(path) == result


def test_a_result_of_another_version_is_refused(result: SeparationResult, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save_separation(path, result)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"schema_version": 1}), encoding="utf-8")
    with pytest.raises(MeasurementError, match=r"has schema_version=1, .* run the benchmark again"):
        load_separation(path)


def test_the_table_shows_each_figure(result: SeparationResult) -> None:
    said = io.StringIO()
    print_separation(Console(file=said, width=80), result)
    text = said.getvalue()
    caption = " ".join(" ".join(text.splitlines()[:3]).split())
    assert "AUROC against vehicles; flagged past 90 %, by 100 held-out images worth 9" in caption
    (row,) = [line for line in text.splitlines() if line.lstrip().startswith("noise")]
    assert row.split() == ["noise", "3", *["0.792", "67%"] * 4, "0.792", "33%"]
    (row,) = [line for line in text.splitlines() if line.lstrip().startswith("vehicles")]
    assert row.split() == ["vehicles", "4", *["0%"] * 5]
