"""Held-out images of a model that goes without them: vehicles that it was not trained on."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from ...runtime.core.errors import CheckpointError
from ..checkpoint import RunConfig
from ..dataset import Pixels, vehicle_for

DRAWN = 192
"""Enough for INT8 to calibrate, choose and judge, and for a verdict that is not called weak."""
_SEED = 2**32 - 1


def drawn_held_out(config: RunConfig, folder: Path) -> Pixels:
    """Draw vehicles as (N, *picture_shape), by a seed that no training on them had.

    A CheckpointError for a model of other images, which cannot be drawn.
    """
    if config.data.kind != "vehicles":
        raise CheckpointError(
            f"{folder} has no held-out images, and was trained on {config.data.source}, which is "
            "not built in: export the run that it was made of"
        )
    seed = _SEED - (config.options.seed == _SEED)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(partial(vehicle_for, config.model, seed), range(DRAWN))
        return np.stack(list(drawn))
