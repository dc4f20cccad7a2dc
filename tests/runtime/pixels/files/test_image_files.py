from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.camera_formats import fitted_from_jpeg
from motorvae.runtime.pixels.convert import fitted, luma_from_image
from motorvae.runtime.pixels.files.image_files import (
    fitted_from_bytes,
    luma_from_file,
    picture_from_bytes,
)

SUFFIXES = (".png", ".jpg", ".bmp", ".webp", ".tiff")
LOSSLESS = (".png", ".bmp", ".tiff")


def picture(*, bits: int = 8, channels: int = 3) -> npt.NDArray[np.generic]:
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, channels), np.uint8)
    smooth = cv2.GaussianBlur(noise, (9, 9), 0).reshape(60, 90, channels)
    smooth[:30] //= 2  # the upper half is darker, so that a turned image shows
    smooth = smooth[:, :, 0] if channels == 1 else smooth
    return smooth.astype(np.uint16) * 257 if bits == 16 else smooth


def encoded(suffix: str, image: npt.NDArray[np.generic], *options: int) -> bytes:
    done, data = cv2.imencode(suffix, image, list(options))
    assert done
    return data.tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def jpeg_with_exif(jpeg: bytes, *, orientation: int, thumbnail: bytes = b"") -> bytes:
    """Put an EXIF segment behind the start of a JPEG."""
    tag = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + tag + struct.pack("<I", 0) + thumbnail
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_lossless_file_gives_the_luma_of_its_pixels(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    image = picture(channels=channels)
    path = tmp_path / f"image{suffix}"
    path.write_bytes(encoded(suffix, image))
    assert np.array_equal(luma_from_file(path), luma_from_image(image))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_lossy_file_comes_near_it(tmp_path: Path, suffix: str) -> None:
    image = picture()
    path = tmp_path / f"image{suffix}"
    path.write_bytes(encoded(suffix, image))
    error = luma_from_file(path).astype(int) - luma_from_image(image)
    assert np.abs(error).mean() < 3


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_files(tmp_path: Path, suffix: str, channels: int) -> None:
    image = picture(bits=16, channels=channels)
    path = tmp_path / f"image{suffix}"
    path.write_bytes(encoded(suffix, image))
    assert np.array_equal(luma_from_file(path), luma_from_image(image))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_a_transparent_pixel_is_white(tmp_path: Path, suffix: str) -> None:
    image = np.zeros((32, 32, 4), np.uint8)
    image[:, 16:, 3] = 255
    path = tmp_path / f"image{suffix}"
    path.write_bytes(encoded(suffix, image, cv2.IMWRITE_WEBP_QUALITY, 101))
    luma = luma_from_file(path)
    assert (luma[:, :16] == 255).all()
    assert (luma[:, 16:] == 0).all()


def test_a_palette_png_is_looked_up(tmp_path: Path) -> None:
    colours_rgb = [(200, 30, 60), (10, 220, 90)]
    rows = b"".join(b"\0" + bytes([row % 2] * 8) for row in range(8))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 3, 0, 0, 0))
    data += chunk(b"PLTE", bytes(sum(colours_rgb, ()))) + chunk(b"IDAT", zlib.compress(rows))
    path = tmp_path / "palette.png"
    path.write_bytes(data + chunk(b"IEND", b""))
    luma = luma_from_file(path)
    for row, (red, green, blue) in enumerate(colours_rgb):
        assert abs(luma[row, 0] - (0.299 * red + 0.587 * green + 0.114 * blue)) <= 1


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 3), (3, 2), (8, 1)])
def test_the_orientation_of_a_jpeg_is_applied(tmp_path: Path, orientation: int, turns: int) -> None:
    plain = tmp_path / "plain.jpg"
    plain.write_bytes(encoded(".jpg", picture()))
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(jpeg_with_exif(plain.read_bytes(), orientation=orientation))
    assert np.array_equal(luma_from_file(turned), np.rot90(luma_from_file(plain), turns))


@pytest.mark.parametrize("suffix", [*SUFFIXES, "progressive"])
@pytest.mark.parametrize("share", [0.02, 0.4, 0.8, 0.97])
def test_a_file_cut_short_is_refused_by_name(
    tmp_path: Path, suffix: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1] if suffix == "progressive" else []
    suffix = ".jpg" if suffix == "progressive" else suffix
    data = encoded(suffix, picture(), *options)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=rf"cannot decode .*cut{suffix}: .*; replace or remove it"):
        luma_from_file(path)
    assert capfd.readouterr().err == ""


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_jpeg(tmp_path: Path) -> None:
    thumbnail = encoded(".jpg", np.full((16, 16), 7, np.uint8))
    data = jpeg_with_exif(encoded(".jpg", picture()), orientation=1, thumbnail=thumbnail)
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    assert luma_from_file(path).shape == (60, 90)
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(ImageError, match=r"photo\.jpg: the file is cut short"):
        luma_from_file(path)


def test_bytes_behind_the_end_do_no_harm(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png"):
        path = tmp_path / f"padded{suffix}"
        path.write_bytes(encoded(suffix, picture()) + bytes(100))
        assert luma_from_file(path).shape == (60, 90)


def test_an_altered_png_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(encoded(".png", picture()))
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "altered.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"altered\.png: the checksum of its chunk b'IDAT' is"):
        luma_from_file(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"not an image at all", bytes(1000), b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"cannot decode .*odd\.png"):
        luma_from_file(path)


def test_pixels_of_another_type_are_refused_by_file_name(tmp_path: Path) -> None:
    path = tmp_path / "depth.tiff"
    path.write_bytes(encoded(".tiff", np.zeros((8, 8), np.float32)))
    with pytest.raises(ImageError, match=r"depth\.tiff: its pixels are 32-bit floats; convert"):
        luma_from_file(path)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read .*gone\.png: No such file"):
        luma_from_file(tmp_path / "gone.png")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_jpeg_file_is_fitted_as_a_camera_s_jpeg_is(tmp_path: Path, orientation: int) -> None:
    """So that it is held to the same bound; and its size is what is seen."""
    from PIL import Image

    rng = np.random.default_rng(orientation)
    rough = cv2.resize(rng.integers(0, 256, (27, 48), np.uint8), (1920, 1080))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rough).save(tmp_path / "a.jpg", exif=exif, quality=90)
    data = (tmp_path / "a.jpg").read_bytes()
    for spec in (ModelSpec(), ModelSpec(color="rgb", fit="crop")):
        found = fitted_from_bytes(data, spec)
        assert found.shape == ((1920, 1080) if orientation in {6, 8} else (1080, 1920))
        whole = fitted(picture_from_bytes(data, color=spec.color).pixels, spec)
        assert found.pixels.shape == whole.shape
        assert np.abs(found.pixels.astype(int) - whole).mean() < 0.5
    assert np.array_equal(
        fitted_from_bytes(data, ModelSpec()).pixels, fitted_from_jpeg(data, ModelSpec())
    )


def test_a_damaged_jpeg_is_said_to_be_damaged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1080, 1920), np.uint8)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    with pytest.raises(ImageError, match="damaged: "):
        fitted_from_bytes(data[: len(data) // 2] + b"\xff\xd9", ModelSpec())
    with pytest.raises(ImageError, match="cut short"):
        fitted_from_bytes(data[: len(data) // 2], ModelSpec())


def test_what_is_no_jpeg_is_fitted_from_all_of_it() -> None:
    image = np.random.default_rng(1).integers(0, 256, (300, 500), np.uint8)
    found = fitted_from_bytes(cv2.imencode(".png", image)[1].tobytes(), ModelSpec())
    assert np.array_equal(found.pixels, fitted(image, ModelSpec()))
    assert found.shape == (300, 500)


def test_remarks_are_counted_as_they_come() -> None:
    from motorvae.runtime.pixels.files.image_files import CountedRemarks

    counted = CountedRemarks()
    counted.add([("a.jpg", "is long"), ("b.jpg", "is wide")])
    counted.add([("c.jpg", "is long")])
    assert counted.lines == ["a.jpg and 1 more: is long", "b.jpg: is wide"]
