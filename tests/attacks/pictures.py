"""Hostile picture files: bombs of every kind, and mutations of good ones, each under a time limit.

    python -m tests.attacks.pictures --count 3000 --seed 0

Prints counts as one line of JSON, and exits with 1 on any traceback, death of the process, hang of
more than 20 s, or peak above 1 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from ..runtime.pixels.pictures import chunk, exif, picture, png, saved, tiff
from .limits import LIMIT_S, MOST_BYTES, peak_bytes
from .processes import ROOT, command_of

KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF")


def png_of(width: int, height: int, colour: int, packed: bytes, *chunks: bytes) -> bytes:
    """Return a PNG whose header and compressed data need not agree."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", packed), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def zeros(count: int) -> bytes:
    """Return so many zeros, compressed."""
    packer = zlib.compressobj(9)
    sizes = (min(1 << 24, count - start) for start in range(0, count, 1 << 24))
    return b"".join(packer.compress(bytes(size)) for size in sizes) + packer.flush()


def bombs() -> Iterator[tuple[str, bytes]]:
    """Yield a name and the bytes of files that take more than they seem to."""
    grey = np.zeros((8, 8), np.uint8)
    rgb = Image.fromarray(picture(64, 96))
    thick = zeros(900_000_000)
    yield "PNG of 96 megapixels RGBA in 0.4 MB", png_of(12_000, 8_000, 6, zeros(8_000 * 48_001))
    yield "PNG of 4e18 pixels", png_of(2**31 - 1, 2**31 - 1, 6, zeros(100))
    yield "PNG with 900 MB for one pixel", png_of(1, 1, 0, thick)
    yield "PNG with less than it announces", png_of(5_000, 5_000, 2, zeros(1_000))
    yield "PNG with a profile of 900 MB", png(grey, 8, 0, chunk(b"iCCP", b"x\0\0" + thick))
    text = chunk(b"zTXt", b"Comment\0\0" + zeros(7_900_000))
    yield "PNG with 900 texts of 8 MB", png(grey, 8, 0, *([text] * 900))
    raw = chunk(b"zTXt", b"Raw profile type exif\0\0" + thick)
    yield "PNG with EXIF of 900 MB", png(grey, 8, 0, raw)
    yield "PNG of a million chunks", png(grey, 8, 0, *([chunk(b"tEXt", b"")] * 1_000_000))
    jpeg = bytearray(saved(rgb, "JPEG"))
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = struct.pack(">HH", 65_500, 65_500)
    yield "JPEG of 4 gigapixels", bytes(jpeg)
    jpeg[place + 5 : place + 9] = struct.pack(">HH", 14_000, 14_000)
    yield "JPEG of 196 megapixels without content", bytes(jpeg)
    waves = bytearray(saved(rgb, "JPEG", progressive=True))
    place = waves.index(b"\xff\xc2")
    waves[place + 5 : place + 9] = struct.pack(">HH", 8_000, 8_000)
    last = waves.rindex(b"\xff\xda")
    yield "JPEG of 10,000 scans", bytes(waves[:-2] + waves[last:-2] * 10_000 + b"\xff\xd9")
    yield "JPEG of 200 scans", bytes(waves[:-2] + waves[last:-2] * 200 + b"\xff\xd9")
    yield (
        "JPEG of a million segments",
        bytes(jpeg[:2]) + b"\xff\xe1\0\x02" * 10**6 + bytes(jpeg[2:]),
    )
    webp = saved(rgb, "WEBP", lossless=True)
    huge = struct.pack("<I", 16_382 | 16_382 << 14)
    yield "WebP of 268 megapixels", webp.replace(webp[21:25], huge, 1)
    moving = saved(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)])
    place = moving.index(b"VP8X") + 12
    yield "moving WebP of 2^48 pixels", moving[:place] + b"\xff" * 6 + moving[place + 6 :]
    gif = bytearray(saved(rgb.quantize(8), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    yield "GIF of 4 gigapixels", bytes(gif)
    bmp = bytearray(saved(rgb, "BMP"))
    bmp[18:26] = struct.pack("<ii", 2**31 - 1, 2**31 - 1)
    yield "BMP of 4e18 pixels", bytes(bmp)
    yield "PGM of 10^18 pixels", b"P5 999999999 999999999 255\n" + bytes(100)
    yield "PPM with a header of 50 MB", b"P6\n#" + b"x" * 50_000_000 + b"\n8 8 255\n" + bytes(192)
    yield "PGM in text without end", b"P2 10000 10000 65535\n" + b"1 " * 1_000_000
    wide = [(258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    yield "TIFF of 10^19 pixels", tiff(b"x", (2**32 - 1, 2**32 - 1), *wide)
    tiles = [(322, 4, 1, 2**31), (323, 4, 1, 2**31), (324, 4, 1, 8), (325, 4, 1, 100)]
    yield "TIFF of tiles of 2^62 pixels", tiff(bytes(100), (64, 64), *wide, *tiles)
    packed = [(259, 3, 1, 8), (258, 3, 1, 8)]
    yield (
        "TIFF of 180 megapixels in 0.2 MB",
        tiff(zeros(180_000_000), (18_000, 10_000), *wide[1:], *packed),
    )
    yield "TIFF with 900 MB for one pixel", tiff(thick, (1, 1), *wide[1:], *packed)
    loop = bytearray(tiff(bytes(64), (8, 8), *wide))
    loop[-4:] = struct.pack("<I", 8 + 64)
    yield "TIFF whose pages are a circle", bytes(loop)
    page = struct.pack("<H", 0)
    pages = b"".join(page + struct.pack("<I", 8 + 6 * number) for number in range(1, 200_000))
    yield "TIFF of 200,000 empty pages", b"II*\0" + struct.pack("<I", 8) + pages
    yield (
        "TIFF of 65535 entries",
        b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\3\xff\xff\xff\xff" * 10**5,
    )
    jp2 = bytearray(saved(rgb, "JPEG2000"))
    place = jp2.index(b"\xff\x4f\xff\x51")
    jp2[place + 40 : place + 42] = struct.pack(">H", 16_384)
    yield "JPEG 2000 of 16384 components", bytes(jp2)
    for kind in ("AVIF", "HEIF"):
        whole = saved(rgb, kind)
        for side in (20_000, 2**31 - 1):
            place = whole.index(b"ispe") + 8
            altered = whole[:place] + struct.pack(">II", side, side) + whole[place + 8 :]
            yield f"{kind} that announces {side}^2 pixels", altered
    yield "strip of 2^27 pixels", png_of(2**27, 1, 0, zeros(2**27 + 1))


def mutations(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield good pictures with some bytes altered, cut out, repeated or put in, for ever."""
    chosen = np.random.default_rng(seed)
    image = Image.fromarray(np.dstack([picture(48, 64), np.full((48, 64), 200, np.uint8)]))
    good = [
        (kind, saved(image.convert(mode), kind, **({"exif": exif(6)} if has_exif else {})))
        for kind in KINDS
        for mode in ("RGB", "L", "RGBA")
        for has_exif in (False, True)
        if not (mode == "RGBA" and kind in {"JPEG", "BMP", "GIF", "PPM"})
        and not (has_exif and kind in {"GIF", "BMP", "PPM", "JPEG2000"})
    ]
    while True:
        kind, data = good[chosen.integers(len(good))]
        altered = bytearray(data)
        for _ in range(chosen.integers(1, 6)):
            place = int(chosen.integers(len(altered) or 1) * chosen.choice([0.05, 0.3, 1]))
            what = chosen.integers(5)
            if what == 0:
                altered[place : place + 1] = bytes([chosen.integers(256)])
            elif what == 1:
                altered[place : place + 4] = chosen.choice([0, 1, 2**31 - 1, 2**32 - 1]).tobytes()[
                    :4
                ]
            elif what == 2:
                del altered[place : place + int(chosen.integers(1, 64))]
            elif what == 3:
                altered[place:place] = altered[place : place + int(chosen.integers(1, 64))]
            else:
                del altered[place + 1 :]
        if kind == "PNG" and chosen.integers(4):
            altered = bytearray(with_checksums(bytes(altered)))
        yield f"mutated {kind}", bytes(altered)


def with_checksums(data: bytes) -> bytes:
    """Make the checksums of a PNG's chunks right again, so that what is in them is read."""
    parts, place = [data[:8]], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if place + 12 + length > len(data):
            break
        parts.append(chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return b"".join(parts) + data[place:]


def work() -> None:
    """Decode what comes on standard input, and answer each with a line."""
    from motorvae.runtime.core.errors import ImageError
    from motorvae.runtime.pixels.files.image_files import picture_from_bytes

    while head := sys.stdin.buffer.read(8):
        data = sys.stdin.buffer.read(int.from_bytes(head, "big"))
        try:
            picture_from_bytes(data)
            answer = "decoded"
        except ImageError as error:
            answer = f"refused {error}"
        except Exception as error:  # noqa: BLE001  # it is what is looked for
            answer = f"traceback {error!r}"
        print(json.dumps([answer, peak_bytes()]), flush=True)


class Worker:
    """A process that decodes, and is started again where it died or hung."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def answer(self, data: bytes) -> tuple[str, int]:
        """Return what became of a file, and the peak of memory so far."""
        if self.process is None:
            self.process = subprocess.Popen(
                [*command_of("pictures"), "--work"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        process = self.process
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(len(data).to_bytes(8, "big") + data)
            process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            came = selector.select(LIMIT_S)
        line = process.stdout.readline() if came else b""
        if line:
            answer, peak = json.loads(line)
            if peak > MOST_BYTES:
                self.close()
            return answer, peak
        self.close()
        return ("died" if came else "hang"), 0

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def attack(count: int, seed: int, *, with_bombs: bool = True) -> dict[str, Any]:
    """Send all bombs and so many mutations; return the counts and what went wrong."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    highest, worker = 0, Worker()
    cases = [("bomb", *case) for case in bombs()] if with_bombs else []
    some = mutations(seed)
    try:
        for number in range(len(cases) + count):
            _, name, data = cases[number] if number < len(cases) else ("", *next(some))
            answer, peak = worker.answer(data)
            outcome = answer.partition(" ")[0]
            if peak > MOST_BYTES:
                outcome = "above 1 GB"
            counts[outcome] += 1
            highest = max(highest, peak)
            if outcome not in {"decoded", "refused"}:
                wrong.append(f"{name}: {answer[:200]}, {peak / 1e6:.0f} MB, {len(data)} bytes")
            if number < len(cases) and os.environ.get("SHOW"):
                print(f"{name}: {answer[:150]}, peak {peak / 1e6:.0f} MB", file=sys.stderr)
    finally:
        worker.close()
    return {"counts": counts, "peak_mb": round(highest / 1e6), "bombs": len(cases), "wrong": wrong}


def main() -> int:
    """Run the attacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return 0
    found = attack(options.count, options.seed)
    print(json.dumps(found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
