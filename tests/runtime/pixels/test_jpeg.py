from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.camera_formats import fitted_from_jpeg, reduced_from_jpeg
from motorvae.runtime.pixels.jpeg import jpeg_scan
from motorvae.runtime.pixels.picture import PictureLimit
from motorvae.runtime.pixels.reference import reference_picture

from . import jpeg_scales
from .real_pictures import assert_within_bound, street

FITS = ["stretch", "crop", "pad", "letterbox"]
HUFFMAN_TABLES = 0xC4


def spec(fit: Any = "stretch", side: int = 256) -> ModelSpec:
    return ModelSpec(image_size=side, channels=(8, 8), latent_size=4, fit=fit)


def jpeg(image: npt.NDArray[np.uint8], *options: int, quality: int = 90) -> bytes:
    settings = (cv2.IMWRITE_JPEG_QUALITY, quality, *options)
    return cv2.imencode(".jpg", image, settings)[1].tobytes()


def shown(data: bytes) -> npt.NDArray[np.uint8]:
    """What it shows in colours, decoded by FFmpeg and none of ours."""
    codec = av.VideoCodecContext.create("mjpeg", "r")
    (frame,) = codec.decode(av.Packet(data))
    planes = frame.reformat(format="yuvj444p").to_ndarray().astype(float)
    y, cb, cr = planes[0], planes[1] - 128, planes[2] - 128
    bgr = [y + 1.772 * cb, y - 0.344136 * cb - 0.714136 * cr, y + 1.402 * cr]
    return np.clip(np.rint(np.stack(bgr, axis=2)), 0, 255).astype(np.uint8)


def without_segment(data: bytes, marker: int) -> bytes:
    """Leave out all segments of a kind before the scan."""
    start = 2
    while start < (jpeg_scan(data) or 0):
        length = 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if data[start + 1] == marker:
            data = data[:start] + data[start + length :]
        else:
            start += length
    return data


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    ("size", "side", "divisor"),
    [
        ((1920, 1080), 256, 2),
        ((1280, 720), 256, 1),
        ((1366, 771), 256, 1),
        ((640, 480), 256, 1),
        ((1600, 1200), 96, 4),
        ((1920, 1080), 64, 4),
        ((2560, 2304), 64, 8),
        ((1918, 1078), 64, 2),
        ((160, 96), 256, 1),
    ],
)
def test_every_scale_is_within_the_bound(
    size: tuple[int, int], side: int, divisor: int, fit: str
) -> None:
    data = jpeg(street(*size))
    reduced = reduced_from_jpeg(data, spec(fit, side))
    assert reduced is not None
    assert reduced.shape == size[::-1]
    if fit == "stretch":
        assert reduced.pixels.shape == (size[1] // divisor, size[0] // divisor)
    luma = fitted_from_jpeg(data, spec(fit, side))
    assert_within_bound(luma, reference_picture(shown(data), spec(fit, side)))


@pytest.mark.parametrize("quality", [40, 75, 98])
@pytest.mark.parametrize("sampling", ["420", "422", "444", "Gray"])
def test_every_sampling_is_within_the_bound(sampling: str, quality: int) -> None:
    image = street(1920, 1080)
    if sampling == "Gray":
        grey = np.ascontiguousarray(image[:, :, 1:2])
        data = simplejpeg.encode_jpeg(grey, quality, "Gray", "Gray")
    else:
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "BGR", sampling)
    assert reduced_from_jpeg(data, spec()) is not None
    luma = fitted_from_jpeg(data, spec())
    assert_within_bound(luma, reference_picture(shown(data), spec()))


def test_restart_markers_and_progressive_scans_change_nothing() -> None:
    image = street(640, 480)
    plain = fitted_from_jpeg(jpeg(image), spec())
    for options in (
        (cv2.IMWRITE_JPEG_RST_INTERVAL, 7),
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    ):
        data = jpeg(image, *options)
        assert reduced_from_jpeg(data, spec()) is not None
        assert np.array_equal(fitted_from_jpeg(data, spec()), plain)


def test_without_tables_the_standard_ones_are_meant() -> None:
    """Cameras and AVI files leave them out."""
    data = jpeg(street(640, 480))
    bare = without_segment(data, HUFFMAN_TABLES)
    assert len(bare) < len(data) - 400
    assert reduced_from_jpeg(bare, spec()) is not None
    assert np.array_equal(fitted_from_jpeg(bare, spec()), fitted_from_jpeg(data, spec()))


def test_what_lies_behind_the_picture_does_not_matter() -> None:
    """A camera's buffer is longer than what it holds."""
    data = jpeg(street(640, 480))
    longer = data + bytes(5000)
    assert reduced_from_jpeg(longer, spec()) is not None
    assert np.array_equal(fitted_from_jpeg(longer, spec()), fitted_from_jpeg(data, spec()))


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_RST_INTERVAL, 5)])
def test_damage_is_an_error(options: tuple[int, ...]) -> None:
    data = jpeg(street(640, 480), *options)
    scan = data.index(b"\xff\xda")
    middle = (scan + len(data)) // 2
    unknown_codes = data[:middle] + b"\xff\x00" * 200 + data[middle + 400 :]
    cut = data[:middle] + b"\xff\xd9"
    with pytest.raises(ImageError, match=r"frame does not decode: .*premature end"):
        reduced_from_jpeg(cut, spec())
    for damaged in (cut, unknown_codes, data[:middle]):
        with pytest.raises(ImageError, match="frame does not decode: "):
            fitted_from_jpeg(damaged, spec())


def test_what_ffmpeg_knows_better_is_left_to_it() -> None:
    data = jpeg(street(640, 480))
    scan = data.index(b"\xff\xda")
    comment = b"CS=ITU601"
    limited = data[:2] + b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment + data[2:]
    no_end, longer = data[:-2], data[:-2] + b"\x12" * 40 + data[-2:]
    no_scan = data[:scan] + b"\xff\xfe" + data[scan + 2 :]
    for doubtful in (limited, no_end, longer, no_scan, b"", b"no picture"):
        assert reduced_from_jpeg(doubtful, spec()) is None
    assert reduced_from_jpeg(data, spec(), (480, 640)) is not None
    assert reduced_from_jpeg(data, spec(), (960, 640)) is None  # one field of an interlaced frame


@pytest.mark.parametrize("size", [(65535, 65535), (20_000, 20_000), (65500, 3)])
@pytest.mark.parametrize("start", [0xC0, 0xC2])
def test_a_size_that_is_only_announced_is_refused_before_it_is_decoded(
    size: tuple[int, int], start: int
) -> None:
    data = bytearray(jpeg(street(640, 480)))
    place = data.index(b"\xff\xc0")
    data[place + 1] = start
    data[place + 5 : place + 9] = b"".join(length.to_bytes(2, "big") for length in size)
    started_s = time.thread_time()
    with pytest.raises(ImageError, match=f"it has {size[1]} x {size[0]} pixels"):
        fitted_from_jpeg(bytes(data), spec("pad"), PictureLimit(padded=(256, 256)))
    assert time.thread_time() - started_s < 0.5


def test_more_scans_than_any_encoder_writes_are_refused() -> None:
    data = jpeg(street(640, 480), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    scan, end = data.rindex(b"\xff\xda"), len(data) - 2
    assert fitted_from_jpeg(data, spec()).size
    with pytest.raises(ImageError, match="more than 256 scans"):
        fitted_from_jpeg(data[:end] + 300 * data[scan:end] + data[end:], spec())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "how exact and how fast"),
        ([], 2, "required"),
        (["street"], 2, "'street' is neither vehicles nor NAME=PATH"),
        (["street=none"], 2, "street=none cannot be read: "),
        (["street="], 2, "is neither"),
        (["here=EMPTY"], 2, "holds no picture"),
    ],
)
def test_the_script_of_scales_says_what_is_wrong_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        jpeg_scales.main([word.replace("EMPTY", str(tmp_path)) for word in words])
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert said in " ".join((err if code else out).split())
