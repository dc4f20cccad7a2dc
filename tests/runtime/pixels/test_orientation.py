from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageOps

from motorvae.runtime.pixels.jpeg_segments import jpeg_segments
from motorvae.runtime.pixels.orientation import (
    orientation_of_exif,
    orientation_of_jpeg,
    turned,
)


def jpeg(orientation: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new("L", (16, 8)).save(file, "JPEG", exif=exif, **options)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pillow_turns_pictures_alike(orientation: int) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (5, 7), np.uint8)
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    assert np.array_equal(turned(stored, orientation), ImageOps.exif_transpose(image))
    colour = np.dstack([stored] * 3)
    assert np.array_equal(turned(colour, orientation)[:, :, 1], turned(stored, orientation))


def test_what_is_upright_is_not_copied() -> None:
    luma = np.zeros((5, 7), np.uint8)
    assert all(turned(luma, number) is luma for number in (0, 1, 9))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pillow_wrote_the_orientation_that_is_read(orientation: int) -> None:
    assert orientation_of_jpeg(jpeg(orientation)) == orientation
    assert orientation_of_jpeg(jpeg(orientation, icc_profile=bytes(200_000))) == orientation


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_orders_of_bytes_are_read(order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112] = "maker", 6
    block = exif.tobytes()
    assert orientation_of_exif(block) == orientation_of_exif(block.removeprefix(b"Exif\0\0")) == 6


def test_no_bytes_raise_or_take_long() -> None:
    whole = jpeg(6)
    random = np.random.default_rng(0)
    start = time.process_time()
    for size in range(len(whole)):
        assert orientation_of_jpeg(whole[:size]) in range(1, 9)
    for _ in range(2000):
        altered = bytearray(whole)
        for place in random.integers(0, 200, 4):
            altered[place] = random.integers(0, 256)
        assert orientation_of_jpeg(bytes(altered)) in range(1, 9)
    endless = b"\xff\xd8" + 5_000_000 * b"\xff"
    assert orientation_of_jpeg(endless) == 1
    assert orientation_of_jpeg(b"\xff\xd8" + 1_000_000 * b"\xff\xe0\0\0") == 1
    assert len(list(jpeg_segments(b"\xff\xd8" + 1_000_000 * b"\xff\xe0\0\2"))) == 4096
    entries = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(12 * 65535)
    assert orientation_of_exif(entries) == 1
    assert time.process_time() - start < 5
