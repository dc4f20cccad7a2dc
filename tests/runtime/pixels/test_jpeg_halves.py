"""A JPEG with restart markers in two halves is what it is as a whole, whatever befalls it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.core.system.other_core import other_core
from motorvae.runtime.pixels import jpeg as module
from motorvae.runtime.pixels.camera_formats import (
    _NO_CODE,
    _holds_no_code,
    fitted_from_jpeg,
    reduced_from_jpeg,
)
from motorvae.runtime.pixels.jpeg import _halves, grey_in_halves, jpeg_header, pixels_of_jpeg

pytestmark = pytest.mark.skipif(other_core() is None, reason="this needs two cores")

SPEC = ModelSpec(channels=(8, 8), latent_size=4)
SAMPLINGS = {
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}


def picture(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Noise that takes many bytes, with something larger in it."""
    random = np.random.default_rng(0)
    large = cv2.resize(random.integers(0, 200, (9, 16, 3), np.uint8), (width, height))
    noise = random.integers(0, 56, (height, width, 3), np.uint8)
    return np.asarray(large + noise, np.uint8)


def jpeg(
    width: int = 1280, height: int = 720, interval: int = 80, sampling: str = "4:2:0", *more: int
) -> bytes:
    factor = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]) if sampling != "grey" else ()
    image = picture(width, height)
    options = (cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_RST_INTERVAL, interval)
    shown = image[:, :, 1] if sampling == "grey" else image
    return cv2.imencode(".jpg", shown, [*options, *factor, *more])[1].tobytes()


def halves(data: bytes, divisor: int = 1) -> npt.NDArray[np.uint8] | None:
    header = jpeg_header(data)
    assert header is not None
    return grey_in_halves(data, header, divisor)


@pytest.mark.parametrize("divisor", [1, 2, 4])
@pytest.mark.parametrize(
    ("size", "interval", "sampling"),
    [
        ((1280, 720), 80, "4:2:0"),  # one row
        ((1280, 720), 160, "4:2:0"),  # two
        ((1280, 720), 5, "4:2:0"),
        ((1280, 720), 7, "4:2:0"),  # ends of rows only now and then
        ((1920, 1080), 120, "4:2:0"),  # the last row of blocks is not whole
        ((1280, 720), 80, "4:2:2"),
        ((1920, 1080), 240, "4:4:4"),
        ((1288, 744), 161, "grey"),
    ],
)
def test_halves_are_the_whole(
    size: tuple[int, int], interval: int, sampling: str, divisor: int
) -> None:
    data = jpeg(*size, interval, sampling)
    found = halves(data, divisor)
    assert found is not None
    whole = pixels_of_jpeg(data, "grey", size[1] // divisor, size[0] // divisor)
    assert whole is not None
    assert np.array_equal(found, whole)
    fitted = fitted_from_jpeg(data, SPEC, cores=2)
    assert np.array_equal(fitted, fitted_from_jpeg(data, SPEC))


def test_what_cannot_be_cut_is_decoded_whole() -> None:
    progressive = jpeg(1280, 720, 80, "4:2:0", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    for data in (
        jpeg(1280, 720, 0),
        jpeg(320, 240, 20),  # too small for it to pay
        jpeg(1280, 720, 4000),  # no second interval
        jpeg(1280, 720, 2960),  # only one marker, near the end
        jpeg(1280, 720, 1810),  # in the middle of a row
        progressive,
    ):
        assert halves(data) is None
        fitted = fitted_from_jpeg(data, SPEC, cores=2)
        assert np.array_equal(fitted, fitted_from_jpeg(data, SPEC))
    assert halves(jpeg(1288, 712, 161, "grey"), 3) is None


ADOBE_RGB = bytes.fromhex("ffee000e") + b"Adobe" + bytes.fromhex("00640000000000")


@pytest.mark.parametrize(
    ("sampling", "names", "is_cut"),
    [("4:2:0", b"RGB", False), ("4:2:0", None, False), ("4:2:2", None, True)],
)
def test_planes_of_red_green_and_blue_are_not_cut_where_they_are_blended(
    sampling: str, names: bytes | None, is_cut: bool
) -> None:
    """libjpeg enlarges those that are less tall, across rows of blocks, and luma is of all."""
    data = bytearray(jpeg(sampling=sampling))
    header = jpeg_header(bytes(data))
    assert header is not None
    if names is not None:
        scan = header.scan + 5
        data[header.frame + 6 : header.frame + 15 : 3] = names
        data[scan : scan + 6 : 2] = names
    del data[2:20]  # what says that it is JFIF
    if names is None:
        data[2:2] = ADOBE_RGB
    found = halves(bytes(data))
    assert (found is not None) == is_cut
    whole = pixels_of_jpeg(bytes(data), "grey", 720, 1280)
    assert whole is not None
    of_luma = pixels_of_jpeg(jpeg(sampling=sampling), "grey", 720, 1280)
    assert not np.array_equal(whole, np.asarray(of_luma))  # taken for RGB indeed
    if found is not None:
        assert np.array_equal(found, whole)


def test_colours_are_not_halved() -> None:
    """Their samples are interpolated between rows of blocks."""
    spec = ModelSpec(image_size=(80, 160), color="rgb", channels=(8, 8), latent_size=4)
    data = jpeg(1920, 1080, 120)
    reduced = reduced_from_jpeg(data, spec, cores=2)
    assert reduced is not None
    assert reduced.pixels.shape == (540, 960, 3)


def outcome(data: bytes, cores: int) -> str | bytes | None:
    try:
        reduced = reduced_from_jpeg(data, SPEC, cores=cores)
    except ImageError as error:
        return str(error)
    return None if reduced is None else reduced.pixels.tobytes()


def marks_of(data: bytes) -> list[int]:
    """Where restart markers are."""
    return [
        at for at in range(700, len(data) - 1) if data[at] == 255 and 0xD0 <= data[at + 1] < 0xD8
    ]


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Do one of the things that happen to bytes on their way, somewhere."""
    marks = marks_of(data)
    at, length = int(random.integers(600, len(data))), int(random.integers(1, 4000))
    first, second = sorted(int(place) for place in random.choice(marks, 2, replace=False))
    bit = bytes([data[at] ^ 1 << int(random.integers(8))])
    done = (
        data[:at] + data[at + length :],  # a part is missing
        data[:at],  # the rest is missing
        data[: at + length] + data[at:],  # a part is there twice
        data[:at] + bit + data[at + 1 :],
        data[:at] + bytes(length) + data[at + length :],
        data[:first] + data[second:],  # whole intervals are missing
        data[:second] + data[first:],  # or there twice
        data[: marks[3]] + data[marks[11] :],  # eight, so that the numbers of the markers go on
        data[:first] + data[first + 2 :],  # a marker is missing
    )
    return done[int(random.integers(len(done)))]


def test_damage_is_what_it_is_to_the_whole() -> None:
    data, random = jpeg(1280, 720, 80), np.random.default_rng(1)
    found = set()
    for _ in range(150):
        changed = damaged(data, random)
        whole = outcome(changed, 1)
        assert outcome(changed, 2) == whole
        found.add(type(whole))
    assert found == {str, bytes, type(None)}


def test_eight_intervals_fewer_are_damage() -> None:
    data = jpeg(1280, 720, 80)
    marks = marks_of(data)
    with pytest.raises(ImageError, match="frame does not decode"):
        fitted_from_jpeg(data[: marks[3]] + data[marks[11] :], SPEC, cores=2)


@pytest.mark.parametrize("place", [3, -3])
def test_a_marker_of_another_number_is_damage_in_either_half(place: int) -> None:
    data = bytearray(jpeg(1280, 720, 80))
    mark = marks_of(bytes(data))[place]
    data[mark + 1] = 0xD0 + (data[mark + 1] + 1) % 8
    assert halves(bytes(data)) is None
    with pytest.raises(ImageError, match="instead of RST"):
        fitted_from_jpeg(bytes(data), SPEC, cores=2)


@pytest.mark.parametrize("interval", [80, 40, 160])
def test_bytes_too_many_are_what_they_are_to_the_whole(interval: int) -> None:
    """Before and behind markers all over the picture; the cut is at one of those in the middle."""
    data = jpeg(1280, 720, interval)
    marks = marks_of(data)
    spread = {*range(0, len(marks), max(1, len(marks) // 12))}
    found = set()
    for place in sorted(spread | {*range(len(marks) // 2 - 3, len(marks) // 2 + 4)}):
        for count in range(1, 9) if place not in spread else (2, 5):
            for at in (marks[place], marks[place] + 2):
                changed = data[:at] + bytes([0x5A]) * count + data[at:]
                whole = outcome(changed, 1)
                assert outcome(changed, 2) == whole, (place, count, at)
                found.add(type(whole))
    assert str in found


def test_the_rows_in_both_halves_are_few() -> None:
    for interval, rows in ((80, 16), (40, 16), (5, 16), (160, 32), (7, 112)):
        data = jpeg(1280, 720, interval)
        header = jpeg_header(data)
        assert header is not None
        cut = _halves(data, header)
        assert cut is not None
        assert cut[3] == rows
        assert 0.3 < len(cut[0]) / len(data) < 0.7


def test_a_half_that_takes_long_does_not_run_first_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, calmed, waited = other_core(), threading.Event(), []

    class Slow:
        """The other core, which begins once it is calm."""

        def submit(self, work: Callable[..., Any], *args: Any) -> Any:
            assert real is not None

            def begin() -> Any:
                waited.append(calmed.wait(20))
                return work(*args)

            return real.submit(begin)

        def calm(self) -> None:
            calmed.set()

    monkeypatch.setattr(module, "other_core", Slow)
    monkeypatch.setattr(module, "_LONG_S", 0.01)
    data = jpeg()
    found, whole = halves(data), pixels_of_jpeg(data, "grey")
    assert found is not None
    assert whole is not None
    assert np.array_equal(found, whole)
    assert waited == [True]


def test_a_child_of_a_process_that_decoded_decodes_too() -> None:
    program = """
import os, sys, warnings
warnings.simplefilter("ignore")  # a fork beside threads is what this is about
from motorvae.runtime.pixels.jpeg import grey_in_halves, jpeg_header
data = sys.stdin.buffer.read()
assert grey_in_halves(data, jpeg_header(data), 1) is not None
child = os.fork()
if child == 0:
    os._exit(0 if grey_in_halves(data, jpeg_header(data), 1) is not None else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=jpeg(),
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0


def test_forty_ones_in_a_row_are_found_wherever_they_lie() -> None:
    random = np.random.default_rng(0)
    for length in (4, 10, 11, 40, 41, 42, 43, 64):
        for at in range(length):
            data = bytes(random.integers(1, 255, length, np.uint8))
            for part in (_NO_CODE, _NO_CODE[1:], _NO_CODE[:-1]):
                spoiled = (data[:at] + part + data[at:])[: length + 10]
                assert _holds_no_code(spoiled) == (_NO_CODE in spoiled)
    letters = np.array([0, 255], np.uint8)
    for _ in range(2000):
        data = bytes(random.choice(letters, int(random.integers(4, 40))))
        assert _holds_no_code(data) == (_NO_CODE in data)
    many = b"\xff\x00\xff\x00\x01" * 1000
    assert not _holds_no_code(many)
    assert _holds_no_code(many + _NO_CODE)
