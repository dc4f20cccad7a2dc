"""A folder of drawn colour images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 images of 40 x 30 pixels, of rectangles in colours."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for index in range(80):
        image = np.full((30, 40, 3), rng.integers(0, 256, 3), np.uint8)
        for _ in range(4):
            left, top, width, height = (int(n) for n in rng.integers(2, 25, 4))
            color = rng.integers(0, 256, 3).tolist()
            cv2.rectangle(image, (left, top), (left + width, top + height), color, -1)
        assert cv2.imwrite(str(folder / f"{index:02d}.png"), image)
    return folder
