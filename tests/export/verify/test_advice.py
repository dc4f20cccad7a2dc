from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from motorvae.export.verify.advice import advice_on
from motorvae.export.verify.reference import Reference
from motorvae.runtime.bundle.graph_key import Precision
from motorvae.runtime.bundle.manifest import GraphReport


def report(precision: Precision) -> GraphReport:
    return GraphReport(
        graph="encoder",
        precision=precision,
        output="mu",
        engine="any",
        reference="any",
        images=1,
        metrics=(),
    )


def test_equal_images_need_unlike_ones(reference: Reference) -> None:
    equal = replace(reference, images=np.repeat(reference.images[:1], 24, axis=0))
    found = advice_on([report("fp16")], equal)
    assert found.startswith("all 24 held-out images are equal or nearly so: train on more images")
    assert found.endswith("or leave out --fp16")
    one = replace(reference, images=reference.images[:1])
    assert advice_on([report("fp32")], one).startswith("there is one held-out image")


def test_collapsed_model_needs_another_beta(reference: Reference) -> None:
    nothing = replace(reference.spread, mu=np.full(8, 1e-4))
    found = advice_on([report("int8")], replace(reference, spread=nothing))
    assert found.startswith("none of the 8 latent units carries information")
    assert "smaller beta in --betas" in found


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_young_model_needs_more_steps(reference: Reference, precision: Precision) -> None:
    found = advice_on([report(precision)], reference)
    assert found == f"train for more steps, or leave out --{precision}"


def test_float32_that_fails_on_a_sound_model_is_no_matter_of_training(reference: Reference) -> None:
    assert "export again" in advice_on([report("fp32"), report("fp16")], reference)
    alike = replace(reference, mu=reference.mu + np.float32(1e5))
    assert advice_on([report("fp32")], alike) == "train for more steps"
