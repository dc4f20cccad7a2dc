"""Picture files of every kind for a model in colour, against what they were made of."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from motorvae.runtime.pixels.files.image_files import picture_from_bytes

from ..pictures import exif, picture, saved

RGB = picture(96, 160)
BEST: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 98, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 98, "subsampling": "4:4:4"},
    "HEIF": {"quality": 98, "chroma": 444},
}
SEEN: dict[int, Any] = {
    3: lambda image: np.rot90(image, 2),
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
}


def assert_shows(data: bytes, rgb: Any, most: float = 0.0) -> None:
    found = picture_from_bytes(data, color="rgb").pixels
    assert found.dtype == np.uint8
    assert found.shape == rgb.shape
    difference = np.abs(found[:, :, ::-1].astype(float) - rgb)
    assert difference.mean(axis=(0, 1)).max() <= most


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        *(("PNG", 0), ("WEBP", 0), ("TIFF", 0), ("BMP", 0), ("PPM", 0), ("JPEG2000", 0)),
        *(("JPEG", 1.5), ("AVIF", 2.5), ("HEIF", 2.5)),
    ],
)
def test_its_colours_are_kept(kind: str, most: float) -> None:
    assert_shows(saved(Image.fromarray(RGB), kind, **BEST.get(kind, {})), RGB, most)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", SEEN)
def test_it_is_turned(kind: str, orientation: int) -> None:
    options = {"exif": exif(orientation), **BEST.get(kind, {})}
    assert_shows(saved(Image.fromarray(RGB), kind, **options), SEEN[orientation](RGB), 2.5)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "HEIF"])
def test_alpha_lies_over_white(kind: str) -> None:
    alpha = np.tile(np.linspace(0, 255, 160).astype(np.uint8), (96, 1))
    share = alpha[:, :, None] / 255
    data = saved(Image.fromarray(np.dstack([RGB, alpha])), kind, **BEST.get(kind, {}))
    assert_shows(data, RGB * share + 255 * (1 - share), 2.5 if kind == "HEIF" else 0.5)


def test_palettes_cmyk_grey_and_deep_colours() -> None:
    image = Image.fromarray(RGB)
    for kind in ("PNG", "GIF", "BMP"):
        mapped = image.quantize(64)
        assert_shows(saved(mapped, kind), np.asarray(mapped.convert("RGB")))
    cmyk = image.convert("CMYK")
    assert_shows(saved(cmyk, "TIFF"), np.asarray(cmyk.convert("RGB")), 0.5)
    grey = image.convert("L")
    for kind in ("PNG", "JPEG", "TIFF"):
        data = saved(grey, kind, **({"quality": 98} if kind == "JPEG" else {}))
        assert_shows(data, np.repeat(np.asarray(grey)[:, :, None], 3, axis=2), 1.0)
    deep = cv2.imencode(".png", RGB[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes()
    assert_shows(deep, RGB)
    assert_shows(cv2.imencode(".tiff", RGB[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes(), RGB)
