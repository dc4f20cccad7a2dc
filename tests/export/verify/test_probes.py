from __future__ import annotations

from dataclasses import replace

import numpy as np

from motorvae.export.verify.probes import probe_images, probe_latents
from motorvae.export.verify.reference import Reference

from ..conftest import SPEC, coarse_images


def test_probes_reach_where_held_out_images_do_not() -> None:
    images = np.clip(coarse_images(SPEC), 60, 180)
    images[:, :8] = 100
    names, probes = probe_images(images)
    found = dict(zip(names, probes, strict=True))
    assert probes.shape == (len(names), *images.shape[1:])
    assert probes.dtype == np.uint8
    assert (found["black"] == 0).all()
    assert (found["white"] == 255).all()
    assert found["white noise"].std() > 60
    assert 20 < found["soft noise"].std() < found["white noise"].std() * 1.2
    # Something appears where nothing ever changed, and there alone.
    for name, value in (("bright object", 255), ("dark object", 0)):
        changed = (found[name] == value).any(axis=1)
        assert changed[:8].all()
        assert not changed[8:].any()
    inverted = found["inverted where nothing changes"]
    assert (inverted[:8] == 155).all()
    np.testing.assert_array_equal(inverted[8:], images[0][8:])
    again = probe_images(images)[1]
    np.testing.assert_array_equal(probes, again)


def test_probes_differ_from_each_other_and_from_all_images() -> None:
    images = coarse_images(SPEC)
    _, probes = probe_images(images)
    distinct = {image.tobytes() for image in probes}
    assert len(distinct) >= len(probes) - 1  # nothing is still here, so one is as it was
    assert len(distinct & {image.tobytes() for image in images}) <= 1


def test_latents_reach_far_and_none_further_than_that(reference: Reference) -> None:
    away = np.full((1, SPEC.latent_size), 1e4)
    latents = probe_latents(reference.mu, reference.log_var, reference.scale, away)
    assert (latents[0] == 0).all()
    relative = (latents - reference.mu.mean(axis=0)) / reference.scale
    distance = np.sqrt(np.mean(relative**2, axis=1))
    np.testing.assert_allclose(distance.max(), 8, rtol=1e-5)
    np.testing.assert_allclose(distance[-1], 6, rtol=1e-4)


def test_collapsed_units_are_scaled_by_their_posterior(reference: Reference) -> None:
    spread = replace(reference.spread, mu=reference.spread.mu.copy())
    spread.mu[[2, 5]] = 1e-4
    judged = replace(reference, spread=spread)
    assert list(np.flatnonzero(~judged.informative)) == [2, 5]
    deviation = np.sqrt(np.exp(reference.log_var.astype(np.float64)).mean(axis=0))
    np.testing.assert_allclose(judged.scale[[2, 5]], deviation[[2, 5]])
    others = judged.informative
    np.testing.assert_allclose(judged.scale[others], reference.spread.mu[others])
    assert any(note.startswith("2 of 8 units are collapsed") for note in judged.notes)
