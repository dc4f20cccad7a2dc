from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
import torch

from motorvae.benchmarks.subjects.model_under_test import ModelUnderTest, random_model
from motorvae.benchmarks.subjects.scenes import luma_for
from motorvae.benchmarks.subjects.torch_engines import (
    agreement_with,
    compiled_run,
    eager_run,
    thread_limit,
)
from motorvae.runtime.core.errors import MeasurementError
from motorvae.runtime.pixels.convert import input_from_luma

OUTPUTS = ("mu", "log_var")


def test_the_limit_of_agreement_follows_the_spread_of_the_output() -> None:
    expected = {"mu": np.linspace(-1, 1, 64, dtype=np.float32)}
    near = {"mu": expected["mu"] + np.float32(3e-4)}
    (entry,) = agreement_with(expected, near, "an engine")
    assert entry.max_difference == pytest.approx(3e-4, rel=1e-3)
    assert entry.limit == pytest.approx(1e-3 * expected["mu"].std() + 1e-6)
    small = {"mu": expected["mu"] * np.float32(1e-2)}
    with pytest.raises(MeasurementError, match=r"largest difference 0\.0003"):
        agreement_with(small, {"mu": small["mu"] + np.float32(3e-4)}, "an engine")


def test_low_precision_may_drift_but_not_be_something_else() -> None:
    expected = {"mu": np.linspace(-1, 1, 64, dtype=np.float32), "log_var": np.ones(64, np.float32)}
    drifted = {"mu": expected["mu"] + np.float32(0.05)}
    with pytest.raises(MeasurementError, match="disagree on mu"):
        agreement_with(expected, drifted, "an engine")
    (entry,) = agreement_with(expected, drifted, "an engine", "int8")
    assert entry.output == "mu"  # the only one that it gives
    with pytest.raises(MeasurementError, match="disagree on mu"):
        agreement_with(expected, {"mu": -expected["mu"]}, "an engine", "int8")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_no_number_agrees_with_nothing(wrong: float) -> None:
    expected = {"mu": np.ones(4, np.float32)}
    with pytest.raises(MeasurementError, match="disagree on mu"):
        agreement_with(expected, {"mu": np.array([1, 1, 1, wrong], np.float32)}, "an engine")


def test_another_shape_is_refused() -> None:
    with pytest.raises(MeasurementError, match=r"shape \(2,\)"):
        agreement_with({"mu": np.ones(3, np.float32)}, {"mu": np.ones(2, np.float32)}, "an engine")


def test_untrained_weights_come_from_the_seed(subject: ModelUnderTest) -> None:
    def weights(seed: int) -> list[float]:
        return random_model(subject.spec, seed).encoder.mu.weight.flatten().tolist()

    assert weights(0) == subject.model.encoder.mu.weight.flatten().tolist() != weights(1)
    assert subject.untrained


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


def test_a_compiler_that_fails_says_why(subject: ModelUnderTest) -> None:
    from torch._inductor import config

    images = input_from_luma(luma_for(subject.spec, 1, 0))
    with (
        config.patch({"cpp.cxx": ("/nowhere/c++",)}),
        pytest.raises(MeasurementError, match=r"torch\.compile failed: .*C\+\+ compiler"),
    ):
        compiled_run(subject.model.encoder, OUTPUTS, images)


@pytest.mark.slow
def test_torch_compile_gives_what_torch_gives(subject: ModelUnderTest) -> None:
    images = input_from_luma(luma_for(subject.spec, 1, 0))
    try:
        compiled = compiled_run(subject.model.encoder, OUTPUTS, images)
    except MeasurementError as error:
        pytest.skip(str(error))
    expected = eager_run(subject.model.encoder, OUTPUTS)(images)
    found = agreement_with(expected, compiled(images), "torch.compile")
    assert [entry.output for entry in found] == ["mu", "log_var"]
    assert "motorvae" not in os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")
