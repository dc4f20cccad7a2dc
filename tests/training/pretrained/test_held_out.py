from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.core.errors import CheckpointError
from motorvae.training.checkpoint import config_from_run
from motorvae.training.dataset import vehicle_for
from motorvae.training.pretrained.held_out import DRAWN, drawn_held_out


def test_vehicles_are_drawn_that_nobody_trained_on(finished_run: Path) -> None:
    config = config_from_run(finished_run)
    drawn = drawn_held_out(config, finished_run)
    assert (drawn.shape, drawn.dtype) == ((DRAWN, 32, 32), np.uint8)
    assert len({one.tobytes() for one in drawn}) == DRAWN
    trained = {vehicle_for(config.model, 0, row).tobytes() for row in range(48)}
    assert not trained & {one.tobytes() for one in drawn}
    assert np.array_equal(drawn, drawn_held_out(config, finished_run))
    last = replace(config.options, seed=2**32 - 1)
    again = drawn_held_out(config.model_copy(update={"options": last}), finished_run)
    assert not np.array_equal(drawn[0], again[0])


def test_other_images_cannot_be_drawn(finished_run: Path) -> None:
    config = config_from_run(finished_run)
    data = config.data.model_copy(update={"kind": "folder", "source": "photos"})
    with pytest.raises(CheckpointError, match="no held-out images, and was trained on photos"):
        drawn_held_out(config.model_copy(update={"data": data}), finished_run)
