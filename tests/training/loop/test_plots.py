from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def test_pictures_show_originals_over_reconstructions(finished_run: Path) -> None:
    last = finished_run / "reconstructions" / "epoch-004.png"
    picture = cv2.imread(str(last), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    with np.load(finished_run / "held_out.npz", allow_pickle=False) as held_out:
        first = held_out["images"][0]
    assert picture.shape[0] == 2 * 36
    assert np.abs(picture[2:34, 2:34].astype(int) - first).max() <= 1
    loss = cv2.imread(str(finished_run / "loss.png"))
    assert loss is not None
    assert loss.std() > 5
