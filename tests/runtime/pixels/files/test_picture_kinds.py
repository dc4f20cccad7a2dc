"""Each kind of picture file, judged by the pixels it was made of and by Pillow's own reading."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
from PIL import Image, ImageOps

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.pixels.files.image_files import luma_from_file, picture_from_bytes
from motorvae.runtime.pixels.files.image_kinds import is_film, kind_of_bytes, kind_of_file
from motorvae.runtime.pixels.orientation import turned
from motorvae.runtime.pixels.picture import SEVERAL

from ..pictures import bt601, chunk, exif, picture, png, saved, tiff

RGB = picture()
GREY = Image.fromarray(RGB).convert("L")
ALPHA = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (40, 1))
RGBA = np.dstack([RGB, ALPHA])
# Lossy kinds are compared with what Pillow makes of them, or with the pixels, more freely.
LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_lzw"},
    "BMP": {},
    "PPM": {},
    "JPEG2000": {"irreversible": False},
}
LOSSY: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 98, "subsampling": 0},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    "HEIF": {"quality": 95, "chroma": 444},
}


def luma_of(data: bytes) -> npt.NDArray[np.uint8]:
    return picture_from_bytes(data).pixels


def furthest(luma: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    assert luma.shape == expected.shape
    return float(np.abs(luma - expected.astype(np.float64)).max())


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY])
def test_every_kind_is_known_by_its_content_and_gives_the_luma_of_its_pixels(kind: str) -> None:
    data = saved(Image.fromarray(RGB), kind, **{**LOSSLESS, **LOSSY}[kind])
    assert kind_of_bytes(data[:64]) == ("PNM" if kind == "PPM" else kind)
    assert furthest(luma_of(data), bt601(RGB)) <= (1 if kind in LOSSLESS else 8)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG2000"])
def test_alpha_goes_over_white(kind: str) -> None:
    data = saved(Image.fromarray(RGBA), kind, **LOSSLESS[kind])
    assert furthest(luma_of(data), bt601(RGBA)) <= 1.5


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_alpha_of_lossy_kinds_goes_over_white(kind: str) -> None:
    data = saved(Image.fromarray(RGBA), kind, **LOSSY[kind])
    assert furthest(luma_of(data), bt601(RGBA)) <= 10


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_every_orientation_of_every_kind(kind: str, orientation: int, mode: str) -> None:
    """The files differ in nothing but what they say of orientation; Pillow judges how they turn."""
    if kind == "JPEG" and mode == "RGBA":
        pytest.skip("JPEG has no alpha")
    image = Image.fromarray(RGBA).convert(mode)
    options = {**LOSSLESS, **LOSSY}[kind]
    upright = luma_of(saved(image, kind, **options))
    if kind == "HEIF":  # whose writer then says it in the container, as phones do
        image.info["exif"] = exif(orientation).tobytes()
        found = luma_of(saved(image, kind, **options))
    else:
        found = luma_of(saved(image, kind, exif=exif(orientation), **options))
    stored = Image.fromarray(upright)
    stored.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored))
    assert found.shape == expected.shape
    # HEIF and AVIF are encoded anew, by threads.
    assert np.abs(found.astype(int) - expected).mean() <= (0.5 if kind in {"AVIF", "HEIF"} else 0)


def test_a_large_webp_is_read_up_to_its_exif() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    data = saved(Image.fromarray(noise), "WEBP", exif=exif(6), lossless=True)
    assert len(data) > 200_000
    assert luma_of(data).shape == (400, 300)


def test_a_heic_that_says_its_orientation_in_exif_only_is_turned() -> None:
    file = io.BytesIO()
    # Its writer puts an object into EXIF alone, and bytes into the container as well.
    Image.fromarray(RGBA).convert("RGB").save(file, "HEIF", exif=exif(6), quality=95, chroma=444)
    assert b"irot" not in file.getvalue()
    assert luma_of(file.getvalue()).shape == RGBA.shape[1::-1]


@pytest.mark.parametrize("is_packed", [False, True])
def test_the_older_text_of_png_is_read_for_orientation(is_packed: bool) -> None:
    block = b"Exif\0\0" + exif(6).tobytes().removeprefix(b"Exif\0\0")
    text = f"\nexif\n{len(block):8d}\n{block.hex()}\n".encode()
    name = b"Raw profile type exif\0"
    kind, body = (b"zTXt", b"\0" + zlib.compress(text)) if is_packed else (b"tEXt", text)
    plain = png(np.asarray(GREY), 8, 0)
    found = luma_of(png(np.asarray(GREY), 8, 0, chunk(kind, name + body)))
    assert np.array_equal(found, turned(luma_of(plain), 6))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".mp4", ".dat", ""])
def test_the_suffix_decides_nothing(tmp_path: Path, suffix: str) -> None:
    for kind, orientation in (("JPEG", 6), ("PNG", 8), ("HEIF", 1)):
        data = saved(Image.fromarray(RGB), kind, exif=exif(orientation))
        path = tmp_path / f"{kind}{suffix}"
        path.write_bytes(data)
        assert np.array_equal(luma_from_file(path), luma_of(data))
        assert kind_of_file(path) == kind


def test_the_tiles_of_a_heic_are_joined() -> None:
    """Without tiles the same encoder makes nearly the same of it; the first tile is 64 x 64."""
    large = picture(160, 200)
    image = Image.fromarray(large)
    file = io.BytesIO()
    heif = pillow_heif.from_pillow(image)
    heif.save(file, quality=95, chroma=444, tile_size=64)
    assert b"grid" in file.getvalue()
    assert furthest(luma_of(file.getvalue()), bt601(large)) <= 8


def clipped(width: int, height: int, right: int, below: int, **options: Any) -> bytes:
    """An AVIF that shows a part of its picture; its box takes the place of a profile's."""
    data = saved(Image.fromarray(RGB), "AVIF", **LOSSY["AVIF"], icc_profile=bytes(28), **options)
    shown = struct.pack(">IIIIiIiI", width, 1, height, 1, right, 1, below, 1)
    profile = b"\0\0\0\x28colrprof" + bytes(28)
    assert data.count(profile) == 1
    place, number = data.index(b"ipco") + 4, 1
    while data[place : place + 40] != profile:
        place, number = place + int.from_bytes(data[place : place + 4], "big"), number + 1
    data = data.replace(profile, b"\0\0\0\x28clap" + shown)
    used = data.index(b"ipma") + 14  # how many, and which; what alters a picture is essential
    which = data.index(number, used + 1, used + 1 + data[used])
    return data[:which] + bytes([0x80 | number]) + data[which + 1 :]


@pytest.mark.parametrize("orientation", [1, 6])
def test_of_an_avif_the_part_that_it_shows_is_taken(orientation: int) -> None:
    whole = saved(Image.fromarray(RGB), "AVIF", **LOSSY["AVIF"])
    data = clipped(32, 20, 4, -2, exif=exif(orientation))
    part = picture_from_bytes(whole).pixels[8:28, 20:52]  # around a centre moved by 4 and -2
    found = picture_from_bytes(data).pixels
    assert np.abs(found.astype(int) - turned(part, orientation)).mean() <= 0.5


@pytest.mark.parametrize("part", [(0, 20, 0, 0), (32, 20, 17, 0), (65, 20, 0, 0), (32, 20, 0, -11)])
def test_an_avif_that_shows_what_it_has_not_is_refused(part: tuple[int, int, int, int]) -> None:
    with pytest.raises(ImageError, match="it shows nothing of its picture, or what is beyond it"):
        picture_from_bytes(clipped(*part))


def test_a_thumbnail_is_not_the_picture_and_the_primary_one_is() -> None:
    small, large = (Image.fromarray(picture(*size)) for size in ((48, 64), (96, 128)))
    heif = pillow_heif.from_pillow(small)
    heif.add_from_pillow(large)
    file = io.BytesIO()
    heif.save(file, primary_index=1, quality=95, chroma=444)
    found = picture_from_bytes(file.getvalue())
    assert furthest(found.pixels, bt601(np.asarray(large))) <= 8
    assert found.remarks == (SEVERAL,)
    file = io.BytesIO()
    pillow_heif.from_pillow(large).save(file, quality=95, chroma=444, thumbnails=[32])
    found = picture_from_bytes(file.getvalue())
    assert found.pixels.shape == (96, 128)
    assert found.remarks == ()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "AVIF", "HEIF"])
def test_of_several_frames_the_first_is_taken_with_a_remark(kind: str) -> None:
    first, second = (Image.fromarray(picture(seed=seed)) for seed in (1, 2))
    options = {**LOSSLESS, **LOSSY}.get(kind, {})
    both = picture_from_bytes(saved(first, kind, save_all=True, append_images=[second], **options))
    one = picture_from_bytes(saved(first, kind, **options))
    assert (both.remarks, one.remarks) == ((SEVERAL,), ())
    assert np.abs(both.pixels.astype(int) - one.pixels).mean() < 3


def test_overviews_and_masks_are_no_pages_of_a_tiff() -> None:
    full, small = Image.fromarray(RGB), Image.fromarray(RGB[::2, ::2].copy())
    for pages in ([full, small], [small, full]):
        for page in pages:
            page.encoderinfo = {"tiffinfo": {254: int(page is small)}}
        data = saved(
            pages[0], "TIFF", save_all=True, append_images=pages[1:], **pages[0].encoderinfo
        )
        found = picture_from_bytes(data)
        assert found.remarks == ()
        assert np.array_equal(found.pixels, luma_of(saved(full, "TIFF")))


def test_raw_photographs_are_refused_by_name() -> None:
    preview = saved(Image.fromarray(RGB), "TIFF", tiffinfo={254: 1})
    raw = saved(Image.fromarray(RGB), "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    for data in (preview, raw):
        with pytest.raises(ImageError, match=r"raw photograph.*develop it to PNG"):
            picture_from_bytes(data)


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_with_alpha(bits: int) -> None:
    white = (1 << bits) - 1
    levels = np.random.default_rng(0).integers(0, white + 1, (6, 8, 2))
    rows = levels.reshape(6, -1).astype(f">u{bits // 8}").view(np.uint8)
    grey, alpha = levels[..., 0] / white, levels[..., 1] / white
    expected = 255 * (grey * alpha + 1 - alpha)
    assert furthest(luma_of(png(rows, bits, 4)), expected) <= 1.5


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_with_alpha_of_16_bits(bits: int) -> None:
    white = (1 << bits) - 1
    levels = np.random.default_rng(0).integers(0, white + 1, (6, 8, 4))
    rows = levels.reshape(6, -1).astype(f">u{bits // 8}").view(np.uint8)
    assert furthest(luma_of(png(rows, bits, 6)), bt601(levels, white)) <= 1.5


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_level_that_is_transparent_is_white(bits: int) -> None:
    row = np.arange(16, dtype=np.uint8) * 17
    rows = np.tile(row.astype(">u2").view(np.uint8) if bits == 16 else row, (4, 1))
    plain = luma_of(png(rows, bits, 0))
    key = int(rows.view(">u2")[0, 3]) if bits == 16 else 0
    found = luma_of(png(rows, bits, 0, chunk(b"tRNS", struct.pack(">H", key))))
    is_key = np.arange(plain.shape[1]) == 3 if bits == 16 else plain == 0
    assert is_key.any()
    assert np.array_equal(found, np.where(is_key, 255, plain))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("1", "PNG"), ("1", "TIFF"), ("1", "BMP"), ("P", "PNG"), ("P", "GIF"), ("P", "TIFF")),
        *(("CMYK", "TIFF"), ("CMYK", "JPEG"), ("L", "GIF"), ("LA", "TIFF"), ("1", "PPM")),
    ],
)
def test_other_modes_are_as_pillow_shows_them(mode: str, kind: str) -> None:
    image = Image.fromarray(RGBA if mode == "LA" else RGB).convert(mode)
    data = saved(image, kind)
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert furthest(luma_of(data), bt601(shown)) <= (2 if kind == "JPEG" else 1.5)


def test_white_may_be_zero_and_samples_12_bits() -> None:
    levels = np.arange(64, dtype=np.uint16).reshape(4, 16) * 1000
    image = Image.fromarray(levels)
    inverted = saved(image, "TIFF", tiffinfo={262: 0})
    stored = Image.open(io.BytesIO(inverted))
    assert stored.tag_v2[262] == 0
    assert furthest(luma_of(inverted), 255 - levels / 257) <= 0.5
    packed = bytes.fromhex("000fff") * 8  # 0 and 4095 in turn
    tags = [(258, 3, 1, 12), (262, 3, 1, 1), (277, 3, 1, 1)]
    data = tiff(packed, (4, 4), *tags)
    assert luma_of(data).tolist() == [[0, 255, 0, 255]] * 4


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P2\n2 2\n100\n0 50\n100 25\n", [[0, 127.5], [255, 63.75]]),
        (b"P5 2 2 100\n" + bytes([0, 50, 100, 25]), [[0, 127.5], [255, 63.75]]),
        (b"P5\n# 12 bits\n2 1\n4095\n" + struct.pack(">2H", 4095, 2048), [[255, 127.53]]),
        (b"P6\n1 1\n1023\n" + struct.pack(">3H", 1023, 1023, 1023), [[255]]),
        (b"P3\n1 1\n4095\n4095 4095 4095\n", [[255]]),
        (b"P1\n4 1\n0101\n", [[255, 0, 255, 0]]),
    ],
)
def test_white_of_pnm_may_be_any_level(data: bytes, expected: list[list[float]]) -> None:
    assert furthest(luma_of(data), np.array(expected)) <= 1


def test_deep_colours_of_tiff_turn_too() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), np.uint16)
    pixels = deep.tobytes() + struct.pack("<3H", 16, 16, 16)
    tags = [(258, 3, 3, 8 + deep.nbytes), (262, 3, 1, 2), (277, 3, 1, 3), (279, 4, 1, deep.nbytes)]
    plain = luma_of(tiff(pixels, (7, 5), *tags))
    assert furthest(plain, bt601(deep, 65535)) <= 1
    for orientation in range(1, 9):
        found = luma_of(tiff(pixels, (7, 5), *tags, (0x0112, 3, 1, orientation)))
        assert np.array_equal(found, turned(plain, orientation))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_shallow_values_in_16_bits_are_remarked_on(bits: int, kind: str) -> None:
    levels = np.full((8, 8), (1 << bits) - 1, np.uint16)
    (remark,) = picture_from_bytes(saved(Image.fromarray(levels), kind)).remarks
    assert f"end where those of {bits} bits do" in remark
    assert f"multiply them by {1 << (16 - bits)}" in remark
    for fine in (0, 65535, 1 << 15):
        levels[:] = fine
        assert picture_from_bytes(saved(Image.fromarray(levels), kind)).remarks == ()


def test_jpegs_in_a_row_are_a_film_and_previews_are_not() -> None:
    frame = saved(Image.fromarray(RGB), "JPEG")
    assert is_film(frame * 3)
    assert not is_film(frame)
    assert not is_film(frame + bytes(100))
    several = saved(
        Image.fromarray(RGB), "MPO", save_all=True, append_images=[Image.fromarray(RGB)] * 3
    )
    assert not is_film(several)
    assert picture_from_bytes(several).remarks == ()
    assert picture_from_bytes(frame * 2).remarks == (SEVERAL,)


@pytest.mark.parametrize(
    "head", [b"", b"P3 is a text", b"BMW", b"\0\0\0\x18ftypmp42", b"\xff\xd8\xff\xf7"]
)
def test_what_only_looks_alike_is_none(head: bytes) -> None:
    assert kind_of_bytes(head + bytes(40)) is None


@pytest.mark.parametrize("mode", ["F", "I"])
def test_other_numbers_are_refused_by_name(mode: str) -> None:
    data = saved(Image.new(mode, (8, 8)), "TIFF")
    with pytest.raises(ImageError, match=r"its pixels are 32-bit .*; convert it|its pixels are"):
        picture_from_bytes(data)


def test_rare_jpegs_are_refused_by_name() -> None:
    data = bytearray(saved(Image.fromarray(RGB), "JPEG"))
    place = data.index(b"\xff\xc0") + 4
    data[place] = 12
    with pytest.raises(ImageError, match="it is a JPEG of 12 bits a sample"):
        picture_from_bytes(bytes(data))
    data[place], data[place - 3] = 8, 0xC9
    with pytest.raises(ImageError, match="it is a JPEG of arithmetic coding"):
        picture_from_bytes(bytes(data))


def planes(pixels: npt.NDArray[Any], *tags: tuple[int, int, int, int]) -> bytes:
    """Return a TIFF of (H, W, C) pixels, each channel in a plane of its own and a strip each."""
    height, width, count = pixels.shape
    size = pixels[..., 0].nbytes
    places = 8 + size * np.arange(count, dtype="<u4")
    body = np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()
    end = 8 + len(body)
    behind = places.tobytes() + np.full(count, size, "<u4").tobytes()
    behind += np.full(count, 8 * pixels.itemsize, "<u2").tobytes()
    own = [(273, 4, count, end), (279, 4, count, end + 4 * count), (284, 3, 1, 2)]
    own += [(258, 3, count, end + 8 * count), (262, 3, 1, 2), (277, 3, 1, count)]
    return tiff(body + behind, (width, height), *own, *tags)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", ["<u2", "u1"])
def test_colours_of_tiff_may_lie_in_planes(kind: str, channels: int) -> None:
    white = int(np.iinfo(kind).max)
    pixels = (RGBA[..., :channels].astype(np.int64) * white // 255).astype(kind)
    alpha = [(338, 3, 1, 2)] * (channels == 4)
    assert furthest(luma_of(planes(pixels, *alpha)), bt601(pixels, white)) <= 1.5
    turned_round = planes(pixels[::-1, ::-1], *alpha, (0x0112, 3, 1, 3))
    assert furthest(luma_of(turned_round), bt601(pixels, white)) <= 1.5


@pytest.mark.parametrize(("bits", "kind"), [(16, "<u2"), (8, "u1")])
def test_a_single_plane_of_tiff_is_as_any(bits: int, kind: str) -> None:
    white = (1 << bits) - 1
    levels = (np.asarray(GREY).astype(np.int64) * white // 255).astype(kind)
    size = (levels.shape[1], levels.shape[0])
    tags = [(258, 3, 1, bits), (262, 3, 1, 0), (277, 3, 1, 1), (284, 3, 1, 2)]
    found = luma_of(tiff((white - levels).astype(kind).tobytes(), size, *tags))
    assert furthest(found, levels * (255 / white)) <= 0.5


def test_premultiplied_grey_of_tiff() -> None:
    grey, alpha = np.asarray(GREY).astype(np.float64), ALPHA / 255
    pixels = np.dstack([np.rint(grey * alpha).astype(np.uint8), ALPHA])
    tags = [(258, 3, 2, 8 | 8 << 16), (262, 3, 1, 1), (277, 3, 1, 2), (338, 3, 1, 1)]
    found = luma_of(tiff(pixels.tobytes(), (64, 40), *tags))
    assert furthest(found, grey * alpha + 255 * (1 - alpha)) <= 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            tiff(bytes(16), (4, 4), (258, 3, 1, 8), (262, 3, 1, 1), (339, 3, 1, 2)),
            "its pixels are 32-bit or signed numbers: convert it",
        ),
        (
            tiff(
                bytes(64), (4, 4), (258, 3, 2, 16 | 16 << 16), (262, 3, 1, 1), (277, 3, 1, 2),
                (338, 3, 1, 2),
            ),
            "its pixels are of numbers that are not read, .*: convert it",
        ),
        (planes(RGBA, (338, 3, 1, 1)), "it has premultiplied alpha in a plane of its own"),
        (b"MM\0+\0\x08\0\0" + struct.pack(">Q", 16) + bytes(16), "a BigTIFF of big-endian"),
    ],
)  # fmt: skip
def test_rare_tiffs_are_refused_by_name(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        picture_from_bytes(data)
