"""Random crops of pictures, as a data set to train on: 256 x 256, greyscale, seed 0.

    python tests/training/picture_crops.py OUT SOURCE [SOURCE ...] [--count 1500]

A SOURCE is a folder, searched at any depth. What is smaller than 256 pixels, hardly varies or is
there twice is passed over. The sets of docs/training.md are of the samples of scikit-image 0.25.2,
OpenCV (Debian's opencv-doc, examples/data) and scikit-learn, and of Debian's
plasma-workspace-wallpapers and gnome-backgrounds.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

SIDE, LEAST, MOST, LEAST_DEVIATION = 256, 200, 900, 15.0
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".webp"}


def pictures_in(sources: list[Path]) -> list[npt.NDArray[np.uint8]]:
    """Return the pictures of folders, each once, their shorter side at most `MOST`."""
    found: dict[tuple[int, ...], npt.NDArray[np.uint8]] = {}
    for source in sources:
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() not in SUFFIXES:
                continue
            image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if image is None or min(image.shape) < SIDE or image.std() < LEAST_DEVIATION:
                continue
            key = (*image.shape, int(image.mean() * 100))
            scale = MOST / min(image.shape)
            if scale < 1:
                image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            found.setdefault(key, np.asarray(image, np.uint8))
    return list(found.values())


def main() -> None:
    """Write the crops."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=1500)
    asked = parser.parse_args()
    pictures, rng = pictures_in(asked.sources), random.Random(0)
    asked.out.mkdir(parents=True)
    for number in range(asked.count):
        image = rng.choice(pictures)
        side = rng.randint(LEAST, min(image.shape))
        top, left = (rng.randint(0, size - side) for size in image.shape)
        crop = image[top : top + side, left : left + side]
        small = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(asked.out / f"{number:05d}.png"), small)
    print(f"{asked.count} crops of {len(pictures)} pictures in {asked.out}")


if __name__ == "__main__":
    main()
