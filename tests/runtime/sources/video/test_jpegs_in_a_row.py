"""Films of JPEGs one behind the other: what their names and their sizes must not change."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motorvae.runtime.core.frame import Frame
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.open import open_source
from motorvae.runtime.sources.spec import SourceSpec

SPEC = ModelSpec(image_size=32, channels=(8, 8), latent_size=4)


def jpeg(level: int, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, level).convert("RGB").save(file, "JPEG", quality=98)
    return file.getvalue()


def levels_of(path: Path, spec: ModelSpec | None) -> list[int]:
    """Return the mean of each frame; a gap is -1."""
    found = []
    with open_source(str(path), CaptureRequest(spec=spec)) as source:
        while (item := source.read()) is not None:
            found.append(round(float(np.mean(item.image))) if isinstance(item, Frame) else -1)
    return found


@pytest.mark.parametrize("spec", [None, SPEC])
@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.JPG", "a.png", "a.mp4", "a.mjpeg", "a"])
def test_a_film_is_one_whatever_it_is_called(
    tmp_path: Path, name: str, spec: ModelSpec | None
) -> None:
    levels = [40, 80, 120, 160]
    path = tmp_path / name
    path.write_bytes(b"".join(jpeg(level, (64, 48)) for level in levels))
    assert SourceSpec.parse(str(path)).kind == "video"
    assert levels_of(path, spec) == pytest.approx(levels, abs=1)


@pytest.mark.parametrize("spec", [None, SPEC])
@pytest.mark.parametrize("smaller", [(320, 240), (640, 240), (320, 480), (16, 16)])
def test_a_camera_may_change_to_smaller_pictures(
    tmp_path: Path, smaller: tuple[int, int], spec: ModelSpec | None
) -> None:
    sizes = [(640, 480)] * 2 + [smaller] * 3 + [(640, 480), smaller]
    levels = [30 * number + 20 for number in range(len(sizes))]
    path = tmp_path / "a.mjpeg"
    path.write_bytes(b"".join(map(jpeg, levels, sizes)))
    assert levels_of(path, spec) == pytest.approx(levels, abs=1)


def test_what_a_camera_sent_may_be_kept_in_a_file(tmp_path: Path) -> None:
    levels = [40, 80, 120]
    parts = [
        b"--edge\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg(level, (64, 48)) for level in levels
    ]
    path = tmp_path / "a.mjpg"
    for end in (b"", b"\r\n--edge", b"\r\n--edge\r\n", b"\r\n--edge--\r\n"):
        path.write_bytes(b"\r\n".join(parts) + end)
        assert levels_of(path, SPEC) == pytest.approx(levels, abs=1)
    path.write_bytes(b"\r\n".join(parts)[:-100])
    assert levels_of(path, SPEC) == pytest.approx([*levels[:2], -1], abs=1)
