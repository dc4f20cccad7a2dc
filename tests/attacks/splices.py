"""How many JPEGs spliced from two frames, or with a hole, are taken for whole.

    python tests/attacks/splices.py --count 400 --seed 0

The frames are drawn vehicles, as two moments of one camera. A splice is the start of one frame and
the end of the next, cut in the scan; a hole lacks a piece of 100 to 4000 bytes there. One line of
JSON says how many of each were accepted, on the way of a stream's frames and of picture files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Callable
from typing import Any

import cv2

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.camera_formats import luma_from_jpeg
from motorvae.runtime.pixels.image_files import picture_from_bytes
from motorvae.runtime.pixels.jpeg_grey import jpeg_scan
from motorvae.runtime.sources.synthetic.vehicles import MovingVehicles

SPEC = ModelSpec(image_size=256)
KINDS = {"no restart markers": 0, "restart markers": 4}


def frames(count: int, seed: int, interval: int) -> list[bytes]:
    vehicles = MovingVehicles(seed, 640)
    options = [cv2.IMWRITE_JPEG_QUALITY, 85, cv2.IMWRITE_JPEG_RST_INTERVAL, interval]
    pictures = (vehicles.image(number * 0.04) for number in range(count))
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
    given = parser.parse_args()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # OpenCV's decoder warns there
    rng = random.Random(given.seed)
    found: dict[str, Any] = {"tries of each": given.count}
    ways: dict[str, Callable[[bytes], Any]] = {
        "stream": lambda data: luma_from_jpeg(data, SPEC),
        "file": picture_from_bytes,
    }
    whole = True
    for kind, interval in KINDS.items():
        shown = frames(41, given.seed, interval)
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
