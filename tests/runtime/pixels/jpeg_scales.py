"""Prints how exact and how fast luma of a 1080p JPEG is that was decoded at a scale of M / 8.

    python -m tests.runtime.pixels.jpeg_scales vehicles street=vtest.avi stills=FOLDER ...

`vehicles` are drawn; other sets are named videos or folders of pictures, of which at most 40 are
taken, enlarged or reduced to 1920x1080, encoded in quality 88 and 4:2:0, and decoded to luma of 256
x 256. The reference is the picture decoded in full and averaged in float64.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from motorvae.benchmarks.under_test.scenes import frame_of, jpeg_of
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.convert import fitted
from motorvae.runtime.pixels.jpeg import pixels_of_jpeg
from motorvae.runtime.pixels.reference import reference_picture

Image = npt.NDArray[np.uint8]
SHAPE = (1080, 1920)
EIGHTHS = (2, 3, 4, 5, 8)
MOST, ROUNDS = 40, 40
SPEC = ModelSpec()


def main(words: Sequence[str]) -> None:
    """Print a row for each set and scale."""
    summary, _, more = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser("jpeg_scales", description=summary, epilog=more)
    parser.add_argument("sets", nargs="+", metavar="vehicles|NAME=PATH", type=named)
    sets = parser.parse_args(words).sets
    print("| set | pictures | scale | mean error, worst | correlation, worst | a pixel, worst |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, path in sets:
        try:
            pictures = [jpeg_of(image).tobytes() for image in images(name, path)]
        except (OSError, av.FFmpegError) as error:
            parser.error(f"{name}={path} cannot be read: {error}")
        if not pictures:
            parser.error(f"{name}={path} holds no picture: name a video or a folder of pictures")
        for eighths in EIGHTHS:
            found = np.array([errors(data, eighths) for data in pictures])
            worst = f"{found[:, 0].max():.2f} | {found[:, 1].min():.5f} | {found[:, 2].max():.0f}"
            print(f"| {name} | {len(pictures)} | {eighths}/8 | {worst} |")
    data = jpeg_of(frame_of(SHAPE[1], SHAPE[0], 0)).tobytes()
    taken: dict[int, list[float]] = {eighths: [] for eighths in (1, *EIGHTHS)}
    for _ in range(ROUNDS):
        for eighths, times in taken.items():
            luma(data, eighths)
            begin = time.perf_counter()
            luma(data, eighths)
            times.append((time.perf_counter() - begin) * 1e3)
    print("\n| scale | p50 ms | fastest |\n| ---: | ---: | ---: |")
    for eighths, times in taken.items():
        print(f"| {eighths}/8 | {np.median(times):.2f} | {min(times):.2f} |")


def named(word: str) -> tuple[str, str]:
    """Return the name and the path of a set; argparse takes the error for a wrong use."""
    name, _, path = word.partition("=")
    if bool(path) == (name == "vehicles"):
        raise argparse.ArgumentTypeError(f"{word!r} is neither vehicles nor NAME=PATH")
    return name, path


def images(name: str, path: str) -> Iterator[Image]:
    """Yield the pictures of a set, (1080, 1920, 3) BGR."""
    if name == "vehicles":
        yield from (frame_of(SHAPE[1], SHAPE[0], seed) for seed in range(MOST // 2))
        return
    for image in list(read(Path(path)))[:MOST]:
        shrinks = image.shape[0] > SHAPE[0] and image.shape[1] > SHAPE[1]
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
        yield np.asarray(cv2.resize(image, SHAPE[::-1], interpolation=way), np.uint8)


def read(path: Path) -> Iterator[Image]:
    """Yield what a video or a folder holds."""
    if path.is_dir():
        for file in sorted(path.iterdir()):
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is not None:
                yield np.asarray(image, np.uint8)
        return
    with av.open(path) as container:
        for place, frame in enumerate(container.decode(video=0)):
            if place % 20 == 0:
                yield frame.to_ndarray(format="bgr24")


def luma(data: bytes, eighths: int) -> Image:
    """Decode at so many eighths, and fit."""
    pixels = pixels_of_jpeg(data, "grey", *(length * eighths // 8 for length in SHAPE))
    assert pixels is not None
    assert pixels.shape == tuple(length * eighths // 8 for length in SHAPE)
    return fitted(pixels, SPEC, shape=SHAPE)


def errors(data: bytes, eighths: int) -> tuple[float, float, float]:
    """Return the mean error, the correlation and the largest error, in levels."""
    whole = pixels_of_jpeg(data, "grey")
    assert whole is not None
    expected = reference_picture(whole, SPEC).astype(np.float64)
    found = luma(data, eighths).astype(np.float64)
    error = np.abs(found - expected)
    correlation = np.corrcoef(found.ravel(), expected.ravel())[0, 1]
    return float(error.mean()), float(correlation), float(error.max())


if __name__ == "__main__":
    main(sys.argv[1:])
