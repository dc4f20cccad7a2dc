"""What torch float32 gives for held-out images and probes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...runtime.bundle.graph_key import OUTPUTS
from ...runtime.engines.base import Arrays, Batch
from ...training.model import MotorVAE
from .engine_reference import reference_from_engines
from .reference import Reference, Spread


class TorchEngine:
    """A module as an engine: `call` gives one tensor, or one for each of the names of `outputs`."""

    input_dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, call: Callable[[torch.Tensor], Any], outputs: tuple[str, ...]) -> None:
        self.name = f"torch {torch.__version__}"
        self._call, self._outputs = call, outputs

    def run(self, batch: Batch, /) -> Arrays:
        """Run it once on (N, ...) float32, without gradients."""
        with torch.inference_mode():
            found = self._call(torch.from_numpy(np.ascontiguousarray(batch)))
        tensors = found if isinstance(found, tuple) else (found,)
        values = (tensor.numpy() for tensor in tensors)
        return dict(zip(self._outputs, values, strict=True))


def reference_from_model(
    model: MotorVAE, images: npt.NDArray[np.uint8], spread: Spread | None = None
) -> Reference:
    """Run a model in evaluation mode, in float32 on the CPU; see `reference_from_engines`."""
    encoder = TorchEngine(model.encoder, OUTPUTS["encoder"])
    decoder = TorchEngine(model.decoder, OUTPUTS["decoder"])
    return reference_from_engines(encoder, decoder, images, spread)
