"""A run in colour, and a model that can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.explore.halves import Halves
from motorvae.training.explore.subject import Subject
from motorvae.training.options import TrainOptions
from motorvae.training.train import train

from .linear import SPEC, linear_halves

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="session")
def colour_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in blue, green and red, wider than high. Corrupt a copy, never this one."""
    options = TrainOptions(
        output=tmp_path_factory.mktemp("colour") / "runs",
        name="colour",
        image_size=(32, 48),
        color="bgr",
        channels=(4, 8),
        latent_size=4,
        batch_size=8,
        epochs=(1, 1),
        vehicles_count=24,
        held_out=0.3,
        precision="32-true",
        accelerator="cpu",
        devices="1",
        threads=1,
    )
    return train(options).folder


@pytest.fixture
def linear_subject(tmp_path: Path) -> Callable[..., Subject]:
    """Make a `Subject` whose decoder is a matrix: what each latent does is known."""

    def make(spec: ModelSpec = SPEC, halves: Halves | None = None) -> Subject:
        made = halves or linear_halves(spec)
        return Subject(tmp_path, spec, made, max_picture=1.0)

    return make
