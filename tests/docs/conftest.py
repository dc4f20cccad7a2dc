"""A tiny run of the real trainer, for the notebook and the gallery."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the built-in vehicles; it has learned next to nothing. Read it only."""
    import torch

    from motorvae.training.options import TrainOptions
    from motorvae.training.train import train

    options = TrainOptions(
        output=tmp_path_factory.mktemp("tiny") / "runs",
        name="tiny",
        image_size=32,
        channels=(4, 8, 8, 16, 16),
        latent_size=8,
        batch_size=8,
        learning_rate=1e-3,
        epochs=(1, 1),
        vehicles_count=128,
        held_out=0.2,
        precision="32-true",
        accelerator="cpu",
        devices="1",
        threads=1,
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(options).folder
    finally:
        torch.set_num_threads(before)
