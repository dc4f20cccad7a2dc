from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from motorvae.export.ood import altered_images, auroc, made_images, ood_capability
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sources.synthetic.vehicles import vehicle


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    for known_count, other_count, values in ((7, 5, 3), (40, 60, 10), (30, 1, 1000)):
        known = rng.integers(0, values, known_count).astype(np.float64)
        other = rng.integers(0, values, other_count).astype(np.float64)  # many ties
        pairs = [(a < b) + (a == b) / 2 for a, b in product(known, other)]
        assert auroc(known, other) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_auroc_at_its_ends() -> None:
    low, high = np.arange(5.0), np.arange(5.0, 8)
    assert (auroc(low, high), auroc(high, low), auroc(low, low)) == (1, 0, 0.5)
    assert auroc(np.zeros(4), np.zeros(3)) == 0.5


def test_what_an_export_finds_is_in_its_manifest(small_bundle: Path) -> None:
    bundle = load_bundle(small_bundle)
    found = bundle.manifest.ood
    assert found is not None
    kinds = {kind.name: kind for kind in found.kinds}
    assert len(kinds) == 15
    for name in ("noise, white", "noise, Gaussian", "covered, dark", "overexposed, flat"):
        assert (kinds[name].auroc, kinds[name].flagged) == (1, 1), name
    assert {"noise", "covered"} <= set(found.groups()[0])
    assert found.images == 24
    assert found.false_alarms >= 1 / 25
    with np.load(small_bundle / "latents.npz", allow_pickle=False) as file:
        statistics = dict(file)
    with np.load(small_bundle / "verification.npz", allow_pickle=False) as file:
        images = file["images"]
    encoder = small_bundle / "encoder.onnx"
    assert (
        ood_capability(encoder, statistics, images, ModelSpec(image_size=32, latent_size=8))
        == found
    )


def test_a_meter_that_misses_noise_is_seen_to_miss_it(small_bundle: Path) -> None:
    """Planted: limits of one side only, by which what is nearest to the mean is most known."""
    with np.load(small_bundle / "latents.npz", allow_pickle=False) as file:
        statistics = dict(file)
    with np.load(small_bundle / "verification.npz", allow_pickle=False) as file:
        images = file["images"]
    statistics["appearance_quantiles"] = statistics["appearance_quantiles"] + 1e6
    statistics["mahalanobis_quantiles"] = statistics["mahalanobis_quantiles"] + 1e6
    found = ood_capability(
        small_bundle / "encoder.onnx", statistics, images, ModelSpec(image_size=32, latent_size=8)
    )
    assert found is not None
    assert {kind.flagged for kind in found.kinds} == {0}
    assert found.groups()[0] == []
    del statistics["appearance_mean"]
    assert (
        ood_capability(
            small_bundle / "encoder.onnx",
            statistics,
            images,
            ModelSpec(image_size=32, latent_size=8),
        )
        is None
    )


def test_made_images_are_what_their_names_say_and_repeat() -> None:
    made = made_images(3, 5, (64, 64))
    again = made_images(3, 5, (64, 64))
    other = made_images(4, 5, (64, 64))
    for name, images in made.items():
        assert (images.shape, images.dtype) == ((5, 64, 64), np.uint8)
        np.testing.assert_array_equal(images, again[name])
        assert not np.array_equal(images, other[name])
        assert len(np.unique(images, axis=0)) == 5
    assert made["covered, dark"].mean() < 10
    assert made["overexposed, flat"].mean() > 250
    assert made["covered, finger"].mean(axis=(1, 2)).max() < 140
    assert made["covered, finger"].std(axis=(1, 2)).max() < 20
    assert made["noise, white"].std() > 70
    # Soft: neighbours are nearly equal, as they are not in white noise.
    steps = {
        name: np.abs(np.diff(images.astype(int), axis=2)).mean() for name, images in made.items()
    }
    assert steps["noise, soft"] < 20 < steps["noise, white"]


def test_altered_images_are_still_much_like_the_known_ones() -> None:
    known = np.stack([vehicle(1, n, 32)[0] for n in range(4)])
    before = known.copy()
    altered = altered_images(known, 5)
    np.testing.assert_array_equal(known, before)
    np.testing.assert_array_equal(altered["upside down"][:, ::-1], known)
    patched = altered["patched"]
    changed = patched != known
    assert 0 < changed.sum(axis=(1, 2)).max() <= 4 * 4
    assert (patched[changed] == 0).all()
    blurred = altered["blurred"].astype(int)
    assert np.abs(np.diff(blurred)).mean() < np.abs(np.diff(known.astype(int))).mean()
    assert blurred.mean() == pytest.approx(known.mean(), rel=0.01)
    np.testing.assert_array_equal(255 - altered["inverted"], known)
    assert altered["overexposed, gain"].mean() > known.mean()
    assert altered["underexposed, gain"].max() < 50
    for name in ("shifted", "tiles shuffled"):
        moved = altered[name]
        assert not np.array_equal(moved, known)
        np.testing.assert_array_equal(  # the same pixels in other places
            np.sort(moved.reshape(4, -1)), np.sort(known.reshape(4, -1))
        )
    again = altered_images(known, 5)
    assert all(np.array_equal(images, again[name]) for name, images in altered.items())
