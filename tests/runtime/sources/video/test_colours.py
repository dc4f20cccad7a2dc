"""Videos through their source, fitted in colour and held to ffmpeg's own full-size colours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.core.frame import Frame
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.open import open_source

WIDTH, HEIGHT = 960, 544
needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs the ffmpeg program")


def ffmpeg(*arguments: str) -> bytes:
    command = ["ffmpeg", "-v", "error", "-y", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "codec", "tags"),
    [
        ("a.avi", ["-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"], ("bt601", "pc")),
        ("b.mkv", ["-c:v", "ffv1", "-pix_fmt", "yuv420p"], ("bt709", "tv")),
        ("c.mkv", ["-c:v", "ffv1", "-pix_fmt", "yuv422p10le"], ("bt709", "tv")),
        ("d.mkv", ["-c:v", "ffv1", "-pix_fmt", "bgr0"], None),
    ],
)
def test_a_video_is_what_ffmpeg_shows_of_it_cut_once(
    tmp_path: Path, name: str, codec: list[str], tags: tuple[str, str] | None
) -> None:
    path, exact = tmp_path / name, "flags=bilinear+accurate_rnd+full_chroma_int"
    names = {"bt601": "smpte170m", "bt709": "bt709"}
    made = ["-f", "lavfi", "-i", f"testsrc2=s={WIDTH}x{HEIGHT}:r=10:d=0.3"]
    marks = [] if tags is None else ["-colorspace", names[tags[0]], "-color_range", tags[1]]
    out = "" if tags is None else f":out_color_matrix={tags[0]}:out_range={tags[1]}"
    ffmpeg(*made, "-vf", f"scale={exact}{out},gblur=sigma=3", *codec, *marks, str(path))
    into = "" if tags is None else f":in_color_matrix={tags[0]}:in_range={tags[1]}"
    shown = ffmpeg(
        *("-i", str(path), "-frames:v", "1", "-vf", f"scale={exact}{into},format=gbrp"),
        *("-f", "rawvideo", "-"),
    )
    green, blue, red = np.frombuffer(shown, np.uint8).reshape(3, HEIGHT, WIDTH)
    bgr = np.stack([blue, green, red], axis=2)
    for size in ((80, 160), (28, 28)):
        model = ModelSpec(
            image_size=size, color="rgb", channels=None, latent_size=4, crop_box=(5, 20, -25, -20)
        )
        with open_source(str(path), CaptureRequest(spec=model)) as source:
            frame = source.read()
        assert isinstance(frame, Frame)
        assert frame.is_fitted
        difference = frame.image.astype(float) - reference_picture(bgr, model)
        assert np.abs(difference).mean(axis=(1, 2)).max() <= 1.0
