from __future__ import annotations

import os

import cv2
import pytest
import torch

from motorvae.benchmarks.under_test.engines import compiled_run, eager_run, thread_limit
from motorvae.benchmarks.under_test.model_under_test import (
    ModelUnderTest,
    agreement_with,
    random_model,
)
from motorvae.benchmarks.under_test.scenes import luma_for
from motorvae.runtime.core.errors import MeasurementError
from motorvae.runtime.pixels.convert import input_from_pixels

OUTPUTS = ("mu", "log_var")


def test_untrained_weights_come_from_the_seed(tested: ModelUnderTest) -> None:
    def weights(seed: int) -> list[float]:
        return random_model(tested.spec, seed).encoder.mu.weight.flatten().tolist()

    assert weights(0) == tested.model.encoder.mu.weight.flatten().tolist() != weights(1)
    assert tested.untrained


def test_threads_are_set_everywhere_and_given_back() -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    with thread_limit(1) as threads:
        assert set(threads.values()) == {1}
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before


def test_without_a_number_everybody_keeps_his_own() -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    with thread_limit(None) as threads:
        assert (threads["torch"], threads["OpenCV"]) == before


def test_a_compiler_that_fails_says_why(tested: ModelUnderTest) -> None:
    from torch._inductor import config

    images = input_from_pixels(luma_for(tested.spec, 1, 0))
    with (
        config.patch({"cpp.cxx": ("/nowhere/c++",)}),
        pytest.raises(MeasurementError, match=r"torch\.compile failed: .*C\+\+ compiler"),
    ):
        compiled_run(tested.model.encoder, OUTPUTS, images)


@pytest.mark.slow
def test_torch_compile_gives_what_torch_gives(tested: ModelUnderTest) -> None:
    images = input_from_pixels(luma_for(tested.spec, 1, 0))
    try:
        compiled = compiled_run(tested.model.encoder, OUTPUTS, images)
    except MeasurementError as error:
        pytest.skip(str(error))
    expected = eager_run(tested.model.encoder, OUTPUTS)(images)
    found = agreement_with(expected, compiled(images), "torch.compile")
    assert [entry.output for entry in found] == ["mu", "log_var"]
    assert "motorvae" not in os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")
