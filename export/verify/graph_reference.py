"""What float32 graphs say of many held-out images: what INT8 graphs are held against."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.core.spec import ModelSpec
from ...runtime.engines.open import GraphFile, open_engine
from ...runtime.pixels.convert import input_from_luma
from .batches import BATCH_SIZE, run_in_batches
from .reference import Reference

_LEVELS = 65535


class ImagesOnDisk:
    """Images in [0, 1] in a file without a name, 16 bits a pixel, read a few at a time.

    Rounding to 16 bits is an error of -107 dB; INT8 graphs are held to -40 dB. The file is gone
    when nothing holds this any more.

    Args:
        folder: Where the file lies.
        parts: (N, 1, S, S) float32 each; one at least.

    Raises:
        OSError: The disk is full.
    """

    def __init__(self, folder: Path, parts: Iterable[npt.NDArray[np.float32]]) -> None:
        count, shape = 0, (0,)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Written, not mapped: a mapped page that finds the disk full kills the process.
            for images in parts:
                levels = np.rint(np.clip(images, 0, 1) * np.float32(_LEVELS))
                levels.astype(np.uint16).tofile(file)
                count, shape = count + len(images), images.shape[1:]
            file.flush()
            self._pixels = np.memmap(file, np.uint16, "r", shape=(count, *shape))

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.float32]:
        """Return the images that a slice or an array of indices names, float32."""
        found: npt.NDArray[np.float32] = self._pixels[rows] * np.float32(1 / _LEVELS)
        return found


def reference_from_graphs(
    folder: Path, spec: ModelSpec, images: npt.NDArray[np.uint8], verified: Reference
) -> Reference:
    """Run the float32 graphs in a folder on many images; reconstructions are never all in memory.

    Args:
        folder: Holds the graphs, which passed verification.
        spec: Sizes of their model.
        images: (N, S, S) uint8, fitted luma.
        verified: What they passed by: its spreads and probes are taken over.
    """
    encode, decode = GraphKey("encoder"), GraphKey("decoder", variant="phases")
    with open_engine(GraphFile(folder / encode.onnx_file, spec), encode) as encoder:
        parts = [
            run_in_batches(encoder, input_from_luma(images[start : start + BATCH_SIZE, None]))
            for start in range(0, len(images), BATCH_SIZE)
        ]
    mu, log_var = (np.concatenate([part[name] for part in parts]) for name in ("mu", "log_var"))
    with open_engine(GraphFile(folder / decode.onnx_file, spec), decode) as decoder:
        decoded = (
            run_in_batches(decoder, mu[start : start + BATCH_SIZE])["reconstruction"]
            for start in range(0, len(mu), BATCH_SIZE)
        )
        reconstruction = ImagesOnDisk(folder, decoded)
    return replace(
        verified,
        name="float32 ONNX graphs",
        images=images,
        mu=mu,
        log_var=log_var,
        reconstruction=reconstruction,
    )
