"""A run's model as functions of arrays; the one module of `motorvae explore` that loads torch."""

from __future__ import annotations

from pathlib import Path

import torch

from ...runtime.pixels.convert import input_from_pixels
from ..checkpoint import RunConfig, model_from_checkpoint
from ..model import decoding_of, encoding_of
from .halves import Floats, Halves, Pixels


def halves_of_run(folder: Path) -> tuple[Halves, RunConfig]:
    """Load the best weights of a finished run, on a GPU where there is one.

    A CheckpointError where it is not finished, or damaged.
    """
    model, config = model_from_checkpoint(folder)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    encoding = encoding_of(model)

    def encode(pictures: Pixels) -> tuple[Floats, Floats | None]:
        return encoding(input_from_pixels(pictures))

    return Halves(encode, decoding_of(model), lambda: None), config
