"""How far pictures of every kind are from what they show, in levels; for docs/inputs.md.

    python tests/runtime/pixels/picture_table.py

Each is opened as a stream opens it. The reference is the float64 luma of the pixels that the file
was made of, turned by Pillow; both are averaged to 64 x 64, and the mean difference is printed.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pillow_heif
from pictures import bt601, chunk, exif, picture, png, saved
from PIL import Image, ImageOps

from motorvae.runtime.core.errors import MotorVAEError
from motorvae.runtime.core.frame import Gap
from motorvae.runtime.sources.open import open_source

RGB = picture(96, 160)
ALPHA = np.tile(np.linspace(0, 255, 160).astype(np.uint8), (96, 1))
BEST: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 98, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    "HEIF": {"quality": 95, "chroma": 444},
    "JPEG2000": {},
}
Case = tuple[str, str, bytes, npt.NDArray[np.float64]]


def cases() -> Iterator[Case]:
    """Yield a title, a suffix, the bytes and the luma that is meant."""
    image = Image.fromarray(RGB)
    rgba = Image.fromarray(np.dstack([RGB, ALPHA]))
    for kind, suffix in (
        *(("JPEG", ".jpg"), ("JPEG", ".dat"), ("JPEG", ".mp4"), ("PNG", ".png")),
        *(("WEBP", ".webp"), ("TIFF", ".tif"), ("AVIF", ".avif"), ("HEIF", ".heic")),
    ):
        for orientation in range(2, 9):
            turned = Image.fromarray(RGB)
            turned.getexif()[0x0112] = orientation
            meant = bt601(np.asarray(ImageOps.exif_transpose(turned)))
            stored = Image.fromarray(RGB)
            stored.info["exif"] = exif(orientation).tobytes()
            options = {"exif": stored.info["exif"], **BEST.get(kind, {})}
            if kind == "HEIF":
                del options["exif"]
            yield (
                f"{kind} of orientation 2 to 8, {suffix}",
                suffix,
                saved(stored, kind, **options),
                meant,
            )
    plain = bt601(RGB)
    for kind, suffix in (
        *(("HEIF", ".heic"), ("HEIF", ".mp4"), ("AVIF", ".avif"), ("JPEG2000", ".jp2")),
        *(("BMP", ".bmp"), ("PPM", ".ppm"), ("GIF", ".gif"), ("JPEG", ".jfif"), ("JPEG", "")),
    ):
        yield (
            f"{kind} as {suffix or 'no suffix'}",
            suffix,
            saved(image, kind, **BEST.get(kind, {})),
            plain,
        )
    large = picture(256, 320)
    tiles = Path(tempfile.mkdtemp()) / "tiles.heic"
    heif = pillow_heif.from_pillow(Image.fromarray(large))
    heif.save(tiles, quality=95, chroma=444, tile_size=64)
    yield "HEIF of 20 tiles", ".heic", tiles.read_bytes(), bt601(large)
    over_white = bt601(np.dstack([RGB, ALPHA]))
    for kind, suffix in (("PNG", ".png"), ("TIFF", ".tif"), ("WEBP", ".webp"), ("HEIF", ".heic")):
        data = saved(rgba, kind, **BEST.get(kind, {}))
        yield f"{kind} with alpha", suffix, data, over_white
    cmyk = image.convert("CMYK")
    shown = bt601(np.asarray(cmyk.convert("RGB")))
    yield "TIFF of CMYK", ".tif", saved(cmyk, "TIFF"), shown
    grey = np.asarray(image.convert("L"))
    key = int(grey[0, 0])
    yield (
        "PNG of grey with a transparent level",
        ".png",
        png(grey, 8, 0, chunk(b"tRNS", struct.pack(">H", key))),
        np.where(grey == key, 255.0, grey),
    )
    deep = (grey.astype(np.uint16) * 16).astype(">u2")
    header = b"P5 160 96 4080\n"
    yield "PGM whose white is 4080", ".pgm", header + deep.tobytes(), grey.astype(np.float64)


def main() -> None:
    """Print the worst of each title."""
    worst: dict[str, str] = {}
    for number, (title, suffix, data, meant) in enumerate(cases()):
        path = Path(tempfile.mkdtemp()) / f"{number}{suffix}"
        path.write_bytes(data)
        try:
            with open_source(str(path)) as source:
                item = source.read()
            if item is None or isinstance(item, Gap):
                found = "refused"
            else:
                seen = item.image
                seen = bt601(seen[..., ::-1]) if seen.ndim == 3 else seen
                both = (
                    cv2.resize(one.astype(np.float64), (64, 64), interpolation=cv2.INTER_AREA)
                    for one in (seen, meant)
                )
                found = f"{np.abs(np.subtract(*both)).mean():.2f}"
        except MotorVAEError as error:
            found = f"refused: {error}"[:60]
        worst[title] = max(worst.get(title, ""), found, key=lambda text: (len(text), text))
    for title, found in worst.items():
        print(f"{title}: {found}")


if __name__ == "__main__":
    main()
