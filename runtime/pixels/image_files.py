"""Image files: which ones a folder holds, and one file to luma."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from ..core.errors import ImageError, SourceError, sentence_list
from .camera_formats import JPEG_END, JPEG_START, jpeg_scan
from .convert import Luma, luma_from_image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_PNG_START = b"\x89PNG\r\n\x1a\n"


def silence_opencv() -> None:
    """Keep OpenCV's own lines from stderr: the error that follows is enough."""
    if hasattr(cv2, "setLogLevel"):  # releases for Python have one or the other
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def image_paths(folder: Path) -> list[Path]:
    """Return every image file below `folder`, or raise SourceError where there is none."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder: name an existing folder of images")
    try:
        paths = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
        found = [path for path in paths if path.is_file()]
    except OSError as error:
        raise SourceError(f"cannot read folder {folder}: {error.strerror}") from error
    if not found:
        raise SourceError(
            f"no image in {folder}: put files ending in {sentence_list(IMAGE_SUFFIXES)} there"
        )
    return in_natural_order(found, folder)


def in_natural_order(paths: Iterable[Path], root: Path) -> list[Path]:
    """Sort files below a folder so that frame2 comes before frame10."""

    def key(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", path.relative_to(root).as_posix())
        return [(int(part), part) if part.isdecimal() else (-1, part.lower()) for part in parts]

    return sorted(paths, key=key)


def luma_from_file(path: Path) -> Luma:
    """Decode a file to (H, W) uint8 luma; alpha goes over white, JPEG orientation is applied.

    A file that cannot be read, is not an image or is cut short is an ImageError.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    image, problem = None, _damage(data)
    if problem is None:
        silence_opencv()
        # Orientation is only applied where alpha is dropped: that suits JPEG, which has none.
        is_jpeg = data.startswith(JPEG_START)
        flags = cv2.IMREAD_ANYCOLOR if is_jpeg else cv2.IMREAD_UNCHANGED
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error as error:
            problem = error.err
    if image is None:
        problem = problem or "corrupt, cut short, or not an image"
        raise ImageError(f"cannot decode {path}: {problem}; replace or remove it")
    try:
        return luma_from_image(image)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _damage(data: bytes) -> str | None:
    """Name what is visibly wrong with a file's bytes, before a decoder makes the best of them."""
    if data.startswith(_PNG_START):
        return _png_damage(data)
    is_whole = bool(data)
    if data.startswith(JPEG_START):
        # Some JPEG decoders fill the missing part of a cut file with grey and call it a success.
        # An end marker before the first scan would be a thumbnail's.
        scan = jpeg_scan(data)
        is_whole = scan is not None and data.find(JPEG_END, scan) >= 0
    return None if is_whole else "the file is cut short"


def _png_damage(data: bytes) -> str | None:
    """Check the length and CRC of every chunk (PNG specification, section 5.3)."""
    start = len(_PNG_START)
    while start < len(data):
        length, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        end = start + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[start + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return f"the checksum of its chunk {kind!r} is wrong"
        if kind == b"IEND":
            return None
        start = end + 4
    return "the file is cut short"
