"""JPEG, PNG, still WebP and PNM to upright pixels: their headers first, then OpenCV's decoders."""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ...core.errors import ImageError
from ...core.spec import Color, ModelSpec
from ..camera_formats import reduced_from_jpeg
from ..convert import WHITE, Pixels, fitted, picture_from_image
from ..geometry import Geometry
from ..jpeg import jpeg_header, pixels_of_jpeg
from ..orientation import (
    EXIF_START,
    UPRIGHT,
    orientation_of_exif,
    orientation_of_jpeg,
    turned,
)
from ..picture import SEVERAL, FittedPicture, Picture, PictureLimit
from .image_kinds import JPEG_END, JPEG_START, PNG_START, counts_others

CUT_SHORT = "the file is cut short"
_ARITHMETIC = {*range(0xC9, 0xD0)}
_MOST_CHUNKS = 200_000
_SEEN = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # all that the decoder of PNG gets to see
_LONGEST_TEXT = 1 << 18
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}  # of what PNG's colour types are decoded to
_BYTES_MOVING = 17  # that a moving WebP takes for a pixel of its first frame
_PNM_HEADER = re.compile(
    rb"P([1-6])"
    + 2 * rb"(?:\s|#[^\r\n]*[\r\n])+([0-9]{1,9})"
    + rb"(?:\s|#[^\r\n]*[\r\n])*([0-9]{0,5})"
)


def silence_opencv() -> None:
    """Keep OpenCV's own lines from stderr: the error that follows is enough."""
    if hasattr(cv2, "setLogLevel"):  # releases for Python have one or the other
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def picture_from_jpeg(data: bytes, limit: PictureLimit, color: Color = "grey") -> Picture:
    """Decode a JPEG, the first picture where others follow."""
    with _room_for_jpeg(data, limit, color) as jpeg:
        pixels = _pixels_from_jpeg(data, color)
        return Picture(turned(pixels, jpeg.orientation), jpeg.remarks)


def fitted_from_jpeg_file(data: bytes, spec: ModelSpec, limit: PictureLimit) -> FittedPicture:
    """Decode a JPEG as `picture_from_jpeg` does, at the smallest scale that keeps the input exact.

    How exact that is: docs/pixels.md.
    """
    with _room_for_jpeg(data, limit, spec.color) as jpeg:
        geometry = Geometry(jpeg.orientation)
        reduced = reduced_from_jpeg(data, spec, geometry=geometry, limit=limit, problem="damaged")
        if reduced is None:
            pixels = _pixels_from_jpeg(data, spec.color)
            shape = pixels.shape[0], pixels.shape[1]
        else:
            pixels, shape = reduced
        seen = (shape[1], shape[0]) if geometry.swaps_axes else shape
        return FittedPicture(fitted(pixels, spec, geometry, shape), seen, jpeg.remarks)


class _Jpeg(NamedTuple):
    """What is known of a JPEG file that may be decoded."""

    orientation: int
    remarks: tuple[str, ...]


@contextlib.contextmanager
def _room_for_jpeg(data: bytes, limit: PictureLimit, color: Color) -> Iterator[_Jpeg]:
    """Refuse a JPEG that is cut short, of a rare kind or too large, before it is decoded."""
    header = jpeg_header(data)
    # Some JPEG decoders fill the missing part of a cut file with grey and call it a success.
    end = -1 if header is None else data.find(JPEG_END, header.scan)
    if header is None or end < 0:
        raise ImageError(CUT_SHORT)
    if header.bits != 8 or header.kind in _ARITHMETIC:
        rare = "arithmetic coding" if header.kind in _ARITHMETIC else f"{header.bits} bits a sample"
        raise ImageError(f"it is a JPEG of {rare}", fix="convert it to PNG first")
    orientation = orientation_of_jpeg(data)
    header.check_scans(data)
    per_pixel = header.bytes_per_pixel + (orientation != UPRIGHT) * channels_of(color)
    per_pixel += channels_of(color) - 1
    with limit.room_for((header.width, header.height), per_pixel, len(data)):
        follows = data[end + 2 : end + 5] == JPEG_START and not counts_others(data)
        yield _Jpeg(orientation, (SEVERAL,) * follows)


def _pixels_from_jpeg(data: bytes, color: Color) -> Pixels:
    """Decode as a stream does; what libjpeg-turbo does not call damage, OpenCV decides on."""
    pixels = pixels_of_jpeg(data, color, problem="damaged")
    if pixels is None:
        kind = cv2.IMREAD_GRAYSCALE if color == "grey" else cv2.IMREAD_COLOR
        image = decoded(data, kind | cv2.IMREAD_IGNORE_ORIENTATION)
        return picture_from_image(image, color)
    return pixels


def picture_from_png(data: bytes, limit: PictureLimit, color: Color = "grey") -> Picture:
    """Decode a PNG of 1 to 16 bits; of an animated one the picture that all viewers show."""
    seen, remarks, key = [PNG_START], list[str](), b""
    orientations = {}
    for kind, start, end in _png_chunks(data):
        if kind in _SEEN:
            # Texts and profiles can unfold to a thousand times their size.
            seen.append(data[start - 8 : end + 4])
        if kind == b"tRNS":
            key = data[start:end]
        elif kind == b"eXIf":
            orientations[0] = orientation_of_exif(data[start:end])
        elif kind in {b"tEXt", b"zTXt"} and data[start : start + 16] == b"Raw profile type":
            orientations[1] = _orientation_in_text(data[start:end], is_packed=kind == b"zTXt")
        elif kind == b"acTL" and int.from_bytes(data[start : start + 4], "big") > 1:
            remarks.append(SEVERAL)
    header = seen[1][8:] if len(seen) > 1 else b""
    if (seen[1:] and seen[1][4:8] != b"IHDR") or len(header) != 17:
        raise ImageError("it does not begin with a header")
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits, colour = header[8], header[9]
    channels = 4 if key and colour else _CHANNELS.get(colour, 4)
    # OpenCV decodes into a copy.
    per_pixel = 2.0 * channels * (1 + (bits == 16)) + channels_of(color)
    with limit.room_for((width, height), per_pixel, len(data)):
        image = decoded(b"".join(seen), cv2.IMREAD_UNCHANGED)
        if remark := remark_on_levels(image):
            remarks.append(remark)
        pixels = picture_from_image(image, color)
        if len(key) == 2 and colour == 0 and image.ndim == 2:
            level = int.from_bytes(key, "big")
            scale = 1 if bits == 16 else WHITE / ((1 << bits) - 1)
            clear = image == round(level * scale)
            clear = clear if pixels.ndim == 2 else clear[:, :, None]
            pixels = np.where(clear, np.uint8(WHITE), pixels)
        orientation = next((orientations[rank] for rank in sorted(orientations)), UPRIGHT)
        return Picture(turned(pixels, orientation), tuple(remarks))


def picture_from_webp(data: bytes, limit: PictureLimit, color: Color = "grey") -> Picture | None:
    """Decode a WebP (RFC 9649); None where it is animated."""
    orientation = UPRIGHT
    size: tuple[int, int] | None = None
    place = 12
    for _ in range(_MOST_CHUNKS):
        if place + 8 > len(data):
            break
        kind, start = data[place : place + 4], place + 8
        length = int.from_bytes(data[place + 4 : start], "little")
        body = data[start : start + min(length, 10)]
        if kind == b"VP8X":
            size = int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:], "little") + 1
            if body[:1] and body[0] & 2:
                limit.check(size, _BYTES_MOVING, len(data))
                return None
        elif kind == b"VP8 " and size is None:
            packed = int.from_bytes(body[6:], "little")
            size = packed & 0x3FFF, packed >> 16 & 0x3FFF
        elif kind == b"VP8L" and size is None:
            packed = int.from_bytes(body[1:5], "little")
            size = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
        elif kind == b"EXIF":
            orientation = orientation_of_exif(data[start : start + length])
        place = start + length + length % 2
    if size is None or place > len(data) + 1:
        raise ImageError(CUT_SHORT)
    # The lossless decoder keeps colours of its own beside what it returns.
    with limit.room_for(size, 8 + channels_of(color), len(data)):
        image = decoded(data, cv2.IMREAD_UNCHANGED)
        return Picture(turned(picture_from_image(image, color), orientation))


def picture_from_pnm(data: bytes, limit: PictureLimit, color: Color = "grey") -> Picture:
    """Decode PBM, PGM or PPM, whose white may be any level."""
    found = _PNM_HEADER.match(data[:4096])
    if not found:
        raise ImageError("its header is not one of PBM, PGM or PPM")
    kind, width, height = int(found[1]), int(found[2]), int(found[3])
    white = int(found[4] or 0) if kind in {2, 3, 5, 6} else WHITE
    if not 0 < white < 1 << 16:
        raise ImageError(f"its header names {white} as white, and it takes 1 to 65535")
    per_pixel = (3 if kind in {3, 6} else 1) * (1 + (white > WHITE)) + 2 + channels_of(color)
    with limit.room_for((width, height), per_pixel, len(data)):
        image = decoded(data, cv2.IMREAD_UNCHANGED)
        # OpenCV scales levels to their white for none but text of up to 8 bits.
        if image.dtype == np.uint16 or (kind in {5, 6} and white < WHITE):
            image = cv2.convertScaleAbs(image, alpha=WHITE / white)
        return Picture(picture_from_image(image, color))


def channels_of(color: Color) -> int:
    """Return how many bytes a pixel of a model's pictures takes."""
    return 1 if color == "grey" else 3


def remark_on_levels(image: npt.NDArray[Any]) -> str:
    """Say so where 16-bit values are far below full scale, as those of deeper sensors are."""
    if image.dtype != np.uint16 or not image.size:
        return ""
    largest = (
        max(int(image[..., channel].max()) for channel in range(3))
        if image.ndim == 3
        else (int(image.max()))
    )
    bits = next((bits for bits in (8, 10, 12, 14) if largest < 1 << bits), 16)
    if bits == 16 or largest == 0:
        return ""
    return (
        f"has 16-bit values that end where those of {bits} bits do, and becomes nearly black; "
        f"multiply them by {1 << (16 - bits)} unless that is meant"
    )


def decoded(data: bytes, flags: int) -> npt.NDArray[Any]:
    """Decode by OpenCV, silently, or raise ImageError."""
    silence_opencv()
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(error.err) from error
    if image is None:
        raise ImageError("corrupt, cut short, or of a rare kind")
    return image


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each chunk after checking it (PNG specification, 5.3)."""
    view, place = memoryview(data), len(PNG_START)
    for _ in range(_MOST_CHUNKS):
        length, kind = int.from_bytes(view[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ImageError(f"the checksum of its chunk {kind!r} is wrong")
        yield kind, place + 8, end
        if kind == b"IEND":
            return
        place = end + 4
    raise ImageError(CUT_SHORT)


def _orientation_in_text(body: bytes, *, is_packed: bool) -> int:
    """Read EXIF from the text in which ImageMagick kept it before PNG had a chunk for it."""
    name, _, text = body[: 1 << 20].partition(b"\0")
    if name not in {b"Raw profile type exif", b"Raw profile type APP1"}:
        return UPRIGHT
    try:
        if is_packed:
            text = zlib.decompressobj().decompress(text[1:], _LONGEST_TEXT)
        exif = bytes.fromhex(b"".join(text[:_LONGEST_TEXT].split()[2:]).decode("ascii"))
    except (zlib.error, ValueError):
        return UPRIGHT
    return orientation_of_exif(exif[max(0, exif.find(EXIF_START)) :])
