from __future__ import annotations

import numpy as np
import pytest

from motorvae.export.ood.images import altered_images, made_images
from motorvae.runtime.sources.synthetic.vehicles import vehicle


def test_made_images_are_what_their_names_say_and_repeat() -> None:
    made = made_images(3, 5, 64)
    again = made_images(3, 5, 64)
    other = made_images(4, 5, 64)
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
