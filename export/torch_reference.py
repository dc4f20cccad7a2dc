"""What torch float32 says of held-out images: the reference that graphs are held against."""

from __future__ import annotations

import numpy as np
import torch

from ..runtime.frames import input_from_luma
from ..training.model import MotorVAE
from .reference import HeldOut
from .verify import BATCH_SIZE, Reference


def reference_from_model(model: MotorVAE, held_out: HeldOut) -> Reference:
    """Run the model in float32 on the CPU, in evaluation mode.

    Args:
        model: In evaluation mode.
        held_out: Images that it was not trained on.
    """
    parts = []
    with torch.inference_mode():
        for start in range(0, len(held_out.images), BATCH_SIZE):
            luma = held_out.images[start : start + BATCH_SIZE, None]
            output = model(torch.from_numpy(input_from_luma(luma)))
            parts.append([tensor.numpy() for tensor in output])
    reconstruction, mu, log_var = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Reference(
        name=f"torch {torch.__version__} float32",
        images=held_out.images,
        mu=mu,
        log_var=log_var,
        reconstruction=reconstruction,
        spread=held_out.spread,
    )
