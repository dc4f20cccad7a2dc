"""A short form of siblings.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from .siblings import SIZE, attacked, lacking

SOME = "|".join(
    (
        r"orientation: 6\.(jpg|avif|heic)",
        r"suffix: JPEG\.mp4",
        r"transparency: 6\.png",
        r"depth: (CMYK|12 bits)",
        r"pages: second is primary",
        r"turned video: (turned right|transposed)\.mp4",
        r"anamorphic video: 2 to 1\.mkv",
        r"tracks: (cover|second is default\.mp4|JPEGs of orientation 6\.avi)",
    )
)


@pytest.mark.skipif(bool(lacking()), reason=f"needs {lacking()}")
def test_one_picture_encodes_alike_whatever_file_it_is_in(
    small_bundle: Path, tmp_path: Path
) -> None:
    from ..runtime.pixels.pictures import picture

    width, height = SIZE
    Image.fromarray(picture(height, width)).save(tmp_path / "picture.png")
    found = attacked(small_bundle, [tmp_path / "picture.png"], SOME)
    assert found["wrong"] == []
    assert found["files"] == 15
    assert found["judged"] > found["files"]
