"""Large JPEGs of a live stream are decoded in halves where more cores may be taken for it, now."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from motorvae.runtime.core.frame import Frame
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.core.system.other_core import OtherCore, other_core
from motorvae.runtime.pixels import jpeg
from motorvae.runtime.pixels.camera_formats import fitted_from_jpeg
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video import decoder
from motorvae.runtime.sources.video.source import VideoSource

SPEC = ModelSpec(image_size=32, channels=(4, 8), latent_size=4)


class Counted:
    """The other core, and how often it was given something."""

    def __init__(self, beside: OtherCore) -> None:
        self._beside, self.count = beside, 0

    def submit(self, work: Callable[..., Any], *args: Any) -> Any:
        self.count += 1
        return self._beside.submit(work, *args)


@pytest.mark.parametrize(
    ("is_live", "cores", "first"),
    [(True, 2, True), (True, 2, False), (True, 1, True), (False, 2, True)],
)
def test_only_a_live_one_that_runs_first_takes_another_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_live: bool, cores: int, first: bool
) -> None:
    beside = other_core()
    if beside is None:
        pytest.skip("this needs two cores")
    counted = Counted(beside)
    monkeypatch.setattr(jpeg, "other_core", lambda: counted)
    monkeypatch.setattr(decoder, "runs_first", lambda: first)  # few users may ask for it
    random = np.random.default_rng(0)
    options = (cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_RST_INTERVAL, 80)
    pictures = [
        cv2.imencode(".jpg", random.integers(0, 99, (720, 1280), np.uint8), options)[1].tobytes()
        for _ in range(3)
    ]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sender = threading.Thread(target=pipe.write_bytes, args=(b"".join(pictures),), daemon=True)
    sender.start()
    with VideoSource(
        SourceSpec("pipe", str(pipe), "pipe", is_live=is_live),
        CaptureRequest(spec=SPEC, cores=cores),
    ) as source:
        items = [source.read() for _ in pictures]
    sender.join()
    for item, picture in zip(items, pictures, strict=True):
        assert isinstance(item, Frame)
        assert np.array_equal(item.image, fitted_from_jpeg(picture, SPEC))
    assert counted.count == (len(pictures) if is_live and cores > 1 and first else 0)
