from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from motorvae.export.ood.capability import auroc, ood_capability
from motorvae.runtime.bundle.load import load_bundle


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


def test_what_an_export_finds_is_in_its_manifest(small_bundle: Path) -> None:
    bundle = load_bundle(small_bundle)
    told = bundle.manifest.ood
    assert told is not None
    kinds = {kind.name: kind for kind in told.kinds}
    assert len(kinds) == 15
    for name in ("noise, white", "noise, Gaussian", "covered, dark", "overexposed, flat"):
        assert (kinds[name].auroc, kinds[name].flagged) == (1, 1), name
    assert {"noise", "covered"} <= set(told.groups()[0])
    assert told.images == 24
    assert told.false_alarms >= 1 / 25
    with np.load(small_bundle / "latents.npz", allow_pickle=False) as file:
        statistics = dict(file)
    with np.load(small_bundle / "verification.npz", allow_pickle=False) as file:
        images = file["images"]
    encoder = small_bundle / "encoder.onnx"
    assert ood_capability(encoder, statistics, images) == told


def test_a_meter_that_misses_noise_is_seen_to_miss_it(small_bundle: Path) -> None:
    """Planted: limits of one side only, by which what is nearest to the mean is most known."""
    with np.load(small_bundle / "latents.npz", allow_pickle=False) as file:
        statistics = dict(file)
    with np.load(small_bundle / "verification.npz", allow_pickle=False) as file:
        images = file["images"]
    statistics["appearance_quantiles"] = statistics["appearance_quantiles"] + 1e6
    statistics["mahalanobis_quantiles"] = statistics["mahalanobis_quantiles"] + 1e6
    told = ood_capability(small_bundle / "encoder.onnx", statistics, images)
    assert told is not None
    assert {kind.flagged for kind in told.kinds} == {0}
    assert told.groups()[0] == []
    del statistics["appearance_mean"]
    assert ood_capability(small_bundle / "encoder.onnx", statistics, images) is None
