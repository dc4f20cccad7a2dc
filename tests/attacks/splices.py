"""How many JPEGs spliced from two frames, or with a hole, are taken for whole.

    python -m tests.attacks.splices --count 400 --seed 0
    python -m tests.attacks.splices --count 400 --source vtest.avi

The frames are drawn vehicles, as moments of one camera, or the first of a video, or of a folder of
pictures of one size. A splice is the start of one frame and the end of the next, cut in the scan; a
hole lacks a piece of 100 to 4000 bytes there. One line of JSON says how many of each were accepted,
on the way of a stream's frames and of picture files.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.camera_formats import fitted_from_jpeg
from motorvae.runtime.pixels.files.image_files import picture_from_bytes
from motorvae.runtime.pixels.jpeg import jpeg_scan
from motorvae.runtime.sources.synthetic.vehicles import MovingVehicles

SPEC = ModelSpec(image_size=256)
FRAMES = 41
KINDS = {"no restart markers": 0, "restart markers": 4}


def pictures_of(source: Path | None, seed: int) -> Iterator[Any]:
    """Yield drawn vehicles, or the frames of a video, or the pictures of a folder by name."""
    if source is None:
        vehicles = MovingVehicles(seed, 640)
        yield from (vehicles.image(number * 0.04) for number in itertools.count())
    elif source.is_dir():
        yield from (cv2.imread(str(path)) for path in sorted(source.iterdir()))
    else:
        video = cv2.VideoCapture(str(source))
        while (taken := video.read())[0]:
            yield taken[1]


def jpegs_of(pictures: list[Any], interval: int) -> list[bytes]:
    options = [cv2.IMWRITE_JPEG_QUALITY, 85, cv2.IMWRITE_JPEG_RST_INTERVAL, interval]
    return [cv2.imencode(".jpg", one, options)[1].tobytes() for one in pictures]


def spliced(first: bytes, second: bytes, rng: random.Random) -> bytes:
    scan = jpeg_scan(first) or 0
    place = rng.randrange(scan + 20, min(len(first), len(second)) - 20)
    return first[:place] + second[place:]


def holed(first: bytes, _: bytes, rng: random.Random) -> bytes:
    scan = jpeg_scan(first) or 0
    size = rng.randrange(100, min(4000, (len(first) - scan) // 2))
    place = rng.randrange(scan + 20, len(first) - size - 20)
    return first[:place] + first[place + size :]


def accepted(read: Callable[[bytes], Any], data: bytes) -> bool:
    try:
        read(data)
    except ImageError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--source", type=Path, help="a video, or a folder of pictures of one size")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    pictures = list(itertools.islice(pictures_of(given.source, given.seed), FRAMES))
    if len(pictures) < FRAMES:
        parser.error(f"{given.source} has {len(pictures)} pictures, and {FRAMES} are taken")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # OpenCV's decoder warns there
    height, width = pictures[0].shape[:2]
    found: dict[str, Any] = {"tries of each": given.count, "size": f"{width}x{height}"}
    ways: dict[str, Callable[[bytes], Any]] = {
        "stream": lambda data: fitted_from_jpeg(data, SPEC),
        "file": picture_from_bytes,
    }
    whole = True
    for kind, interval in KINDS.items():
        shown = jpegs_of(pictures, interval)
        for name, way in ways.items():
            whole &= all(accepted(way, data) for data in shown)
            for damage in (spliced, holed):
                hits = 0
                for _ in range(given.count):
                    number = rng.randrange(len(shown) - 1)
                    hits += accepted(way, damage(shown[number], shown[number + 1], rng))
                found[f"{name}, {damage.__name__}, {kind}"] = f"{100 * hits / given.count:.1f} %"
    found["whole frames accepted"] = whole
    print(json.dumps(found))
    return int(not whole)


if __name__ == "__main__":
    sys.exit(main())
