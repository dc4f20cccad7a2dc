"""A model's two halves as functions of arrays; those of a bundle are opened when needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.load import Bundle
from ...runtime.engines.base import Backend
from ...runtime.engines.open import EngineRequest
from ...runtime.engines.select import select_engine
from ...runtime.pixels.convert import write_input

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

_ENGINE = EngineRequest(precision="fp32")
"""The arithmetic of the run: pictures of FP16 graphs would show the graphs, not the model."""


class Halves(NamedTuple):
    """A model's two halves as functions of arrays, in batches of any size, and what ends them."""

    # (N, C, H, W), fitted pictures as planes, to mu and log_var (N, D).
    encode: Callable[[Pixels], tuple[Floats, Floats | None]]
    decode: Callable[[Floats], Floats]  # (N, D) to (N, C, H, W) in [0, 1]
    close: Callable[[], None]


def halves_of_bundle(bundle: Bundle) -> Halves:
    """Return a bundle's float32 graphs, each of which is opened at its first use.

    The functions raise what `motorvae.runtime.engines.select.select_engine` does.
    """
    opened: dict[str, Backend] = {}

    def encode(pictures: Pixels) -> tuple[Floats, Floats | None]:
        if "encoder" not in opened:
            opened["encoder"] = select_engine(bundle, "encoder", _ENGINE).backend
        backend = opened["encoder"]
        # The leanest graph that gives all there is: without log_var that is one that takes bytes.
        batch = np.empty(pictures.shape, backend.input_dtype)
        write_input(pictures, batch)
        found = backend.run(batch)
        return found["mu"], found.get("log_var")

    def decode(z: Floats) -> Floats:
        if "decoder" not in opened:
            opened["decoder"] = select_engine(bundle, "decoder", _ENGINE).backend
        return opened["decoder"].run(z)["reconstruction"]

    def close() -> None:
        while opened:
            opened.popitem()[1].close()

    return Halves(encode, decode, close)
