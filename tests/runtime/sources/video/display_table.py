"""How far videos are from what they show, by kind; prints the table of docs/inputs.md.

    python tests/runtime/sources/video/display_table.py

The greatest mean difference of a frame, in levels of 255, over three fits where fits matter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from test_display import (  # type: ignore[import-not-found]  # beside this script
    STORED,
    TURNS,
    fitted,
    jpeg,
    record,
    scene,
    source_of,
)

from motorvae.runtime.core.frame import Frame

FITS = ("stretch", "crop", "pad")
RATIO = Fraction(3, 2)


def furthest(path: Path, seen: Sequence[Any], fits: Sequence[str] = FITS) -> float:
    found = 0.0
    for fit in fits:
        with source_of(path, fit) as source:
            items = list(iter(source.read, None))
        for item, picture in zip(items, seen, strict=True):
            assert isinstance(item, Frame)
            found = max(found, float(np.abs(item.image - fitted(picture, fit)).mean()))
    return found


def kinds(folder: Path) -> Iterator[tuple[str, str, float]]:
    seen = [scene(number) for number in range(3)]
    numpy, coverage = "the picture that was recorded, turned by numpy", "the same in square pixels"
    for name, codec in (("a.mp4", "libx264"), ("a.mov", "mjpeg"), ("a.mkv", "ffv1")):
        for what, numbers in (("turned", (3, 6, 8)), ("mirrored", (2, 4, 5, 7))):
            distances = []
            for number in numbers:
                stored = [STORED[number](picture) for picture in seen]
                path = record(folder / name, stored, turn=TURNS[number], codec=codec)
                distances.append(furthest(path, seen))
            yield f"{name[2:]}, {codec}, {what} by its matrix", numpy, max(distances)
    pictures = [scene(number, 64, 64) for number in range(8)]
    files = [jpeg(STORED[n + 1](picture), n + 1) for n, picture in enumerate(pictures)]
    (folder / "a.mjpeg").write_bytes(b"".join(files))
    yield (
        "JPEGs one after another, each turned by EXIF",
        numpy,
        furthest(folder / "a.mjpeg", pictures, FITS[:1]),
    )
    with av.open(str(folder / "a.avi"), "w") as container:
        stream: Any = container.add_stream("mjpeg", 25)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuvj420p"
        for number, data in enumerate(files):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, True
            container.mux(packet)
    yield "AVI of JPEGs, each turned by EXIF", numpy, furthest(folder / "a.avi", pictures, FITS[:1])
    for name, codec in (("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264")):
        distances = []
        for aspect, shape in ((RATIO, (64, 96)), (1 / RATIO, (96, 64))):
            path = record(folder / name, [scene(0, 64, 64)] * 3, aspect=aspect, codec=codec)
            distances.append(furthest(path, [scene(0, *shape)] * 3, FITS[1:]))
        yield f"{name[2:]}, {codec}, pixels of 3:2 and 2:3", coverage, max(distances)
    turned = [np.rot90(scene(0, 64, 96), -1)] * 3
    path = record(folder / "a.mp4", [scene(0, 64, 64)] * 3, aspect=RATIO, turn=TURNS[6])
    yield "mp4, pixels of 3:2 and turned", coverage, furthest(path, turned, FITS[1:])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for kind, reference, distance in kinds(Path(place)):
            print(f"| {kind} | {reference} | {distance:.2f} |")
