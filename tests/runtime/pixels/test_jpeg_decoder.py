from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.pixels.files.image_files import picture_from_bytes
from motorvae.runtime.pixels.jpeg import jpeg_scan, pixels_of_jpeg

from ...attacks.processes import short_form


def jpeg(seed: int, interval: int = 0) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16), np.uint8)
    image = cv2.resize(blocks, (128, 96)).astype(np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_RST_INTERVAL, interval]
    return cv2.imencode(".jpg", image, options)[1].tobytes()


def test_a_whole_picture_is_what_opencv_decodes() -> None:
    data = jpeg(0)
    grey = pixels_of_jpeg(data, "grey")
    assert grey is not None
    assert np.array_equal(grey, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))


def test_what_another_picture_left_behind_is_damage() -> None:
    """The second half of a longer scan follows on a whole one."""
    first, second = jpeg(0)[:-2], jpeg(1)
    scan = jpeg_scan(second)
    assert scan is not None
    spliced = first + second[scan + 200 :]
    with pytest.raises(ImageError, match="extraneous bytes"):
        pixels_of_jpeg(spliced, "grey")
    with pytest.raises(ImageError, match="extraneous bytes"):
        picture_from_bytes(spliced)


@pytest.mark.parametrize("padding", [b"\0" * 40, b"\xff" * 40, b"\0\xff\0"])
def test_padding_before_or_behind_the_end_is_a_habit(padding: bytes) -> None:
    data = jpeg(0)
    for padded in (data[:-2] + padding + data[-2:], data + padding):
        assert picture_from_bytes(padded).pixels.shape == (96, 128)


def test_restart_markers_out_of_order_are_damage() -> None:
    data = jpeg(0, 4)
    first, second = data.index(b"\xff\xd1"), data.index(b"\xff\xd3")
    with pytest.raises(ImageError):
        pixels_of_jpeg(data[:first] + data[second:], "grey")


def test_a_hole_in_a_picture_file_is_damage() -> None:
    data = jpeg(0)
    middle = len(data) // 2
    with pytest.raises(ImageError, match="damaged: "):
        picture_from_bytes(data[:middle] + data[middle + 600 :])


def test_most_splices_are_noticed() -> None:
    """No format tells two pictures of one camera apart for certain; see docs/faults.md."""
    found = json.loads(short_form("splices", "--count", "40", limit_s=100))
    holes = [float(share[:-2]) for what, share in found.items() if "holed" in what]
    splices = [float(share[:-2]) for what, share in found.items() if "spliced" in what]
    assert max(holes) <= 15
    assert max(splices) <= 65
