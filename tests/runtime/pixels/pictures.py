"""Picture files of many kinds, made by Pillow, libheif and by hand, for tests and attacks."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()
ORIENTATION = 0x0112


def picture(height: int = 40, width: int = 64, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return smooth RGB noise whose parts differ in brightness, so that a turned one shows."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (9, 9), 0)
    smooth[: height // 2] //= 2
    smooth[:, : width // 4] //= 3
    return smooth


def bt601(rgb: npt.NDArray[Any], white: float = 255) -> npt.NDArray[np.float64]:
    """Return luma in float64, in levels up to 255, of RGB or RGBA of any depth over white."""
    levels = rgb.astype(np.float64) * (255 / white)
    luma = levels[..., :3] @ np.array([0.299, 0.587, 0.114])
    if rgb.shape[-1] == 4:
        alpha = levels[..., 3] / 255
        luma = luma * alpha + 255 * (1 - alpha)
    return luma


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as a file of a kind, encoded by Pillow or libheif."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    """Return EXIF that holds an orientation."""
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: npt.NDArray[Any], bits: int, colour: int, *chunks: bytes) -> bytes:
    """Return a PNG of (H, bytes) packed rows, with further chunks behind its header."""
    height = len(rows)
    width = rows.shape[1] * 8 // bits // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", packed), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(pixels: bytes, size: tuple[int, int], *tags: tuple[int, int, int, int]) -> bytes:
    """Return a little-endian TIFF of one strip; a tag is its number, type, count and value.

    An offset as value counts from the start of the pixels, which lie at byte 8.
    """
    width, height = size
    own = [(256, 4, 1, width), (257, 4, 1, height), (259, 3, 1, 1), (273, 4, 1, 8)]
    own += [(278, 4, 1, height), (279, 4, 1, len(pixels))]
    entries = sorted({entry[0]: entry for entry in (*own, *tags)}.values())
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<I", 8 + len(pixels))
    return head + pixels + struct.pack("<H", len(entries)) + directory + bytes(4)
