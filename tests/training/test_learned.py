from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from motorvae.training.learned import Learned, learned_from_outputs, learned_from_reconstructions

Floats = npt.NDArray[np.float64]


def _latents(spread: float = 1.0, offset: float = 0.0) -> Floats:
    return np.random.default_rng(0).normal(offset, spread, (50, 4))


def _learned(**change: Any) -> Learned:
    outputs: dict[str, Any] = {
        "mu": _latents(),
        "log_var": np.full((50, 4), -3.0),
        "squared_error": 0.2,
        "squared_error_of_mean": 1.0,
    }
    return learned_from_outputs(**{**outputs, **change})


def test_a_trained_model_has_no_problem() -> None:
    learned = _learned()
    assert learned.problems == ()
    assert learned.sentence() == ""
    assert learned.informative_units == 4
    assert learned.explained == pytest.approx(0.8)


def test_a_collapsed_posterior_wants_a_smaller_beta() -> None:
    learned = _learned(mu=_latents(0.05), log_var=np.zeros((50, 4)))
    assert learned.informative_units == 0
    assert learned.sentence() == (
        "none of its 4 latent units is active; a smaller beta in --betas, or more steps"
    )


def test_some_collapsed_units_are_no_problem() -> None:
    mu, log_var = _latents(), np.full((50, 4), -3.0)
    mu[:, 1:] *= 0.01
    log_var[:, 1:] = 0
    learned = _learned(mu=mu, log_var=log_var)
    assert learned.informative_units == 1
    assert learned.problems == ()


def test_latents_alike_are_named_even_where_the_posterior_is_narrow() -> None:
    learned = _learned(mu=_latents(1e-4, offset=1.0), log_var=np.full((50, 4), -30.0))
    assert learned.problems == ("its latents are alike for all held-out images",)
    assert learned.advice == "more steps, or images that differ more"


@pytest.mark.parametrize("error", [0.95, 1.0, 3.0, float("nan")])
def test_no_better_than_the_mean_image(error: float) -> None:
    learned = _learned(squared_error=error)
    (problem,) = learned.problems
    assert "of what differs from the mean image" in problem
    assert learned.advice == "more steps"


@pytest.mark.parametrize("name", ["mu", "log_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_no_numbers_want_a_smaller_rate(name: str, value: float) -> None:
    outputs = {"mu": _latents(), "log_var": np.full((50, 4), -3.0)}
    outputs[name][3, 2] = value
    learned = _learned(**outputs)
    assert learned.problems == ("its latents are not numbers",)
    assert learned.advice == "a smaller --learning-rate"


def test_a_huge_log_var_overflows_nothing() -> None:
    assert _learned(log_var=np.full((50, 4), 1e4)).informative_units == 0


def _images() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (50, 8, 8), np.uint8)


def test_reconstructions_are_held_against_the_mean_of_the_other_images() -> None:
    images = _images()
    pixels = images[:, None] / 255
    others = (pixels.sum(0) - pixels) / (len(pixels) - 1)
    latents = {"mu": _latents(), "log_var": np.full((50, 4), -3.0)}
    learned = learned_from_reconstructions(images, others, **latents)
    assert learned.explained == pytest.approx(0, abs=1e-9)
    assert len(learned.problems) == 1
    half = learned_from_reconstructions(images, (pixels + others) / 2, **latents)
    assert half.explained == pytest.approx(0.75)
    assert half.problems == ()


def test_one_held_out_image_is_not_judged() -> None:
    images = _images()[:1]
    learned = learned_from_reconstructions(
        images, np.zeros((1, 1, 8, 8)), mu=np.ones((1, 4)), log_var=np.zeros((1, 4))
    )
    assert learned.problems == ()


def test_each_plane_of_colours_is_compared_with_its_own() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 3, 8, 4), np.uint8)
    images[:, 0] = 40  # so that its reconstruction in place of another's explains nothing
    learned = learned_from_reconstructions(images, images / 255.0, _latents(), _latents())
    assert learned.explained == pytest.approx(1)


def test_without_log_var_units_that_vary_are_informative() -> None:
    mu = _latents()
    mu[:, 0] = 3
    assert _learned(mu=mu, log_var=None).informative_units == 3
    assert _learned(mu=np.ones((50, 4)), log_var=None).problems
