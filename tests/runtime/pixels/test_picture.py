from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.files.image_files import luma_from_file, picture_from_bytes
from motorvae.runtime.pixels.picture import MAX_PICTURE, PictureLimit, limit_for

from .pictures import chunk, exif, picture, png, saved, tiff

RGB = Image.fromarray(picture(100, 200))  # 0.02 megapixels


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF"]
)
def test_a_picture_that_is_too_large_is_refused_with_the_flag(kind: str) -> None:
    data = saved(RGB, kind)
    with pytest.raises(ImageError) as caught:
        picture_from_bytes(data, PictureLimit(0.019))
    assert str(caught.value).startswith("it has 200 x 100 pixels")
    assert str(caught.value).endswith(": if you trust it, take it with --max-picture 1")
    assert picture_from_bytes(data, PictureLimit(1)).pixels.shape == (100, 200)


def test_what_takes_more_memory_than_its_pixels_tell_is_refused() -> None:
    limit = PictureLimit(0.02)
    assert picture_from_bytes(saved(RGB, "JPEG"), limit).pixels.shape == (100, 200)
    with pytest.raises(ImageError, match=r"200 x 100 pixels and takes 0 MB to decode"):
        picture_from_bytes(saved(RGB, "PNG"), limit)
    with pytest.raises(ImageError, match="takes 0 MB to decode"):
        picture_from_bytes(saved(RGB, "JPEG", progressive=True, subsampling=0), limit)


def test_the_default_is_what_the_largest_sensors_have() -> None:
    limit = PictureLimit()
    assert limit.megapixels == MAX_PICTURE == 200
    limit.check((16_000, 12_500), 1)
    with pytest.raises(ImageError, match="16320 x 12288 pixels, and 200 megapixels are allowed"):
        limit.check((16_320, 12_288), 1)
    with pytest.raises(ImageError, match="a side may have 131072"):
        limit.check((1_000_000, 1), 1)
    with pytest.raises(ImageError, match=r"4290 million when padded to a square.*another --fit"):
        PictureLimit(padded=(256, 256)).check((65_500, 10), 1)
    with pytest.raises(ImageError, match="it has 0 x 5 pixels"):
        limit.check((0, 5), 1)


def test_what_is_padded_to_another_shape_counts_as_that() -> None:
    model = ModelSpec(image_size=(80, 160), fit="pad")
    limit = limit_for(model, 200)
    limit.check((16_000, 8_000), 1)
    with pytest.raises(ImageError, match="800 million when padded to the shape of 80 x 160"):
        limit.check((40_000, 10), 1)
    assert limit_for(None, 200) == limit_for(model.model_copy(update={"fit": "crop"}), 200)


def test_a_file_that_is_larger_than_any_picture_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(ImageError, match=r"huge\.png: the file has 1000000 MB, and 800 are"):
        luma_from_file(path)


def test_a_pipe_is_no_picture_and_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"cannot read .*pipe\.png: it is no regular file"):
        luma_from_file(tmp_path / "pipe.png")


@pytest.mark.timeout(20)  # libpng alone takes minutes for the texts
def test_texts_and_profiles_are_not_unfolded() -> None:
    grey = np.zeros((8, 8), np.uint8)
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(7_900_000), 9))
    assert picture_from_bytes(png(grey, 8, 0, *([text] * 900))).pixels.shape == (8, 8)
    zeros = zlib.compress(bytes(100_000_000), 9)
    texts = [chunk(kind, b"x\0\0" + zeros) for kind in (b"zTXt", b"iCCP")]
    texts.append(chunk(b"zTXt", b"Raw profile type exif\0\0" + zeros))
    assert picture_from_bytes(png(grey, 8, 0, *texts)).pixels.shape == (8, 8)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = saved(RGB, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    endless = data[:-2] + data[last:-2] * 300 + b"\xff\xd9"
    with pytest.raises(ImageError, match="a JPEG of more than 256 scans"):
        picture_from_bytes(endless)


def test_tiles_larger_than_their_picture_are_refused() -> None:
    tags = [(258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    tiles = [(322, 4, 1, 50_000), (323, 4, 1, 50_000), (324, 4, 1, 8), (325, 4, 1, 100)]
    with pytest.raises(ImageError, match="50000 x 50000 pixels, and 200 megapixels are allowed"):
        picture_from_bytes(tiff(bytes(100), (64, 64), *tags, *tiles))


def test_a_jpeg_that_holds_less_than_it_announces_is_damaged() -> None:
    data = bytearray(saved(RGB, "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 7] = struct.pack(">H", 400)
    with pytest.raises(ImageError, match=r"damaged: .*premature end of data"):
        picture_from_bytes(bytes(data))


def test_a_large_picture_of_many_threads_waits_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("motorvae.runtime.pixels.picture._LARGE_BYTES", 0)
    with PictureLimit().room_for((8, 8), 1):
        from motorvae.runtime.pixels import picture as module

        assert module._ONE_LARGE.locked()
    turned = picture_from_bytes(saved(RGB, "PNG", exif=exif(6))).pixels
    assert turned.shape == (200, 100)
