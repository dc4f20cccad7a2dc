"""Reconstruction: the decoder on every Nth latent, and how far its picture is from what came."""

from __future__ import annotations

import math
import re
import time

import numpy as np
import numpy.typing as npt

from ..core.errors import BackendError, ConfigError
from ..core.latency import NS_PER_MS
from ..core.row import Row
from ..engines.base import Backend
from ..ood.detector import OODDetector
from ..pixels.convert import input_from_luma

WARM_UP_RUNS = 3
_EVERY = re.compile(r"every=([1-9][0-9]{0,8})")


def every_from_text(text: str) -> int:
    """Return N of `every=N`.

    Raises:
        ConfigError: It reads otherwise.
    """
    found = _EVERY.fullmatch(text)
    if found is None:
        raise ConfigError(f"--reconstruct {text}: write every=N with N from 1, such as every=10")
    return int(found[1])


class Reconstruction:
    """Decodes every Nth latent of each camera and completes its row.

    Args:
        decoder: An opened decoder.
        every: N.
        latent_size: D.
        ood: Says what share of known images is reconstructed better; may be None.
        pictures: Whether rows carry the reconstruction, for a live view.
    """

    def __init__(
        self,
        decoder: Backend,
        every: int,
        latent_size: int,
        ood: OODDetector | None,
        *,
        pictures: bool,
    ) -> None:
        self._decoder, self._every, self._ood = decoder, every, ood
        self._pictures = pictures
        self._counts: dict[str | None, int] = {}
        for _ in range(WARM_UP_RUNS):
            decoder.run(np.zeros((1, latent_size), np.float32))

    def complete(self, row: Row, luma: npt.NDArray[np.uint8]) -> None:
        """Decode the row's mu, if it is its turn, and put error and time into the row.

        The latent was ready before, so this is no part of the row's age; the row itself, and
        the frames behind it, wait.

        Raises:
            BackendError: The decoder failed, or its image is not finite.
        """
        if row.mu is None:
            return
        count = self._counts.get(row.camera, 0)
        self._counts[row.camera] = count + 1
        if count % self._every:
            return
        started_ns = time.monotonic_ns()
        image = self._decoder.run(np.ascontiguousarray(row.mu[None]))["reconstruction"][0, 0]
        away = input_from_luma(luma) - image
        error = float(np.vdot(away, away)) / away.size
        if not math.isfinite(error):  # one NaN or infinite pixel is enough
            raise BackendError(
                f"the reconstruction of frame {row.index} of {row.camera} is not finite: "
                "export the bundle again and read its verification, or stream without --reconstruct"
            )
        row.reconstruction_error = error
        if self._ood is not None:
            row.reconstruction_percentile = self._ood.percentile("reconstruction_error", error)
        row.decode_ms = round((time.monotonic_ns() - started_ns) / NS_PER_MS, 3)
        if self._pictures:
            row.reconstruction = image
