"""TIFF, GIF, BMP, JPEG 2000, AVIF, HEIC and moving WebP to pixels, by Pillow and libheif."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pillow_heif
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ...core.errors import ImageError
from ...core.spec import Color
from ..convert import WHITE, Pixels, picture_from_image
from ..orientation import (
    UPRIGHT,
    TiffValue,
    orientation_in,
    orientation_of_exif,
    tiff_directories,
    turned,
)
from ..picture import SEVERAL, Picture, PictureLimit
from .image_kinds import ImageKind
from .opencv_images import channels_of, decoded, remark_on_levels

# `Image.open` has a limit of its own, for the whole process, and would ask every plugin.
_PLUGINS: dict[ImageKind, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "AVIF": AvifImagePlugin.AvifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
_BYTES: dict[ImageKind, float] = {"AVIF": 10, "BMP": 1, "GIF": 2, "TIFF": 0, "WEBP": 13, "HEIF": 8}
"""What decoders take for a pixel beside the decoded picture; see docs/hostile.md."""
_BYTES_OF_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_TURNS = (b"irot", b"imir")  # how a HEIC says that its picture is turned or mirrored
_CLAP = re.compile(rb"\0\0\0\x28clap(.{32})", re.DOTALL)
_STRIPE = 1 << 20
_ORIENTATION, _SUBFILE, _BITS, _PHOTOMETRIC, _EXTRA = 0x0112, 254, 258, 262, 338
_TILE, _DNG_VERSION = (322, 323), 50706
_COMPRESSION, _SAMPLES, _PLANES, _NUMBERS = 259, 277, 284, 339
_SEPARATE, _SIGNED, _PREMULTIPLIED, _PACKBITS = 2, 2, 1, 32773
_REDUCED, _MASK = 1, 4
_COLOURS = {"1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_TO_PNG = "convert it to PNG first"
_CONVERT = "convert it to 8- or 16-bit grey or RGB first"
_WORDS = {"F": "32-bit floats", "I": "32-bit or signed numbers", "LAB": "of the L*a*b* colours"}


def picture_from_heif(data: bytes, limit: PictureLimit, color: Color = "grey") -> Picture:
    """Decode the primary picture of a HEIC file: tiles joined and turned by libheif."""
    heif = pillow_heif.open_heif(data, convert_hdr_to_8bit=True, bgr_mode=True)
    image = heif[heif.primary_index]
    channels = len(image.mode)
    per_pixel = _BYTES["HEIF"] + channels + channels_of(color) - 1
    with limit.room_for(image.size, per_pixel, len(data)):
        stored = np.asarray(image)
        if image.premultiplied_alpha and channels in {2, 4}:
            colours, alpha = np.ascontiguousarray(stored[..., :-1]), stored[..., -1]
            pixels = picture_from_image(colours, color)
            clear = WHITE - (alpha if pixels.ndim == 2 else np.repeat(alpha[:, :, None], 3, axis=2))
            pixels = cv2.add(pixels, clear).astype(np.uint8, copy=False)
        else:
            pixels = picture_from_image(stored, color)
        # What the container says libheif has done, and EXIF then repeats it. EXIF alone counts
        # where a writer says it nowhere else.
        exif = b"" if any(kind in data for kind in _TURNS) else image.info.get("exif")
        orientation = orientation_of_exif(exif) if isinstance(exif, bytes) else UPRIGHT
        return Picture(turned(pixels, orientation), (SEVERAL,) * (len(heif) > 1))


def picture_by_pillow(
    kind: ImageKind, data: bytes, limit: PictureLimit, color: Color = "grey"
) -> Picture:
    """Decode a picture of one of the other kinds, the first where there are several."""
    if kind == "TIFF":
        return _picture_from_tiff(data, limit, color)
    extra = _bytes_of_components(data, limit) if kind == "JPEG2000" else _BYTES[kind]
    with _PLUGINS[kind](io.BytesIO(data)) as image:
        per_pixel = extra + _BYTES_OF_MODE.get(image.mode, 4) + channels_of(color)
        with limit.room_for(image.size, per_pixel, len(data)):
            # What the container says is left to the reader, and said as in EXIF.
            has_exif = kind in {"AVIF", "WEBP"}
            orientation = image.getexif().get(_ORIENTATION, UPRIGHT) if has_exif else UPRIGHT
            several = kind != "JPEG2000" and getattr(image, "is_animated", False)
            pixels = _pixels(image, color)
            if kind == "AVIF":
                pixels = np.ascontiguousarray(pixels[_shown_part(data, image.size)])
            return Picture(turned(pixels, orientation), (SEVERAL,) * several)


def _shown_part(data: bytes, size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns that an AVIF shows (ISO/IEC 14496-12, 12.1.4), before turns.

    Pillow takes all that is coded; libheif cuts this out of a HEIC.
    """
    found = {*_CLAP.findall(data)}
    if not found:
        return slice(None), slice(None)
    across, over_a, down, over_d, right, over_r, below, over_b = struct.unpack(
        ">IIIIiIiI", found.pop()
    )
    if found or not (over_a and over_d and over_r and over_b):
        raise ImageError("it shows parts of its pictures that are not known", fix=_TO_PNG)
    width, height = round(across / over_a), round(down / over_d)
    left = round((size[0] - across / over_a) / 2 + right / over_r)
    top = round((size[1] - down / over_d) / 2 + below / over_b)
    if not (0 <= left < left + width <= size[0] and 0 <= top < top + height <= size[1]):
        raise ImageError("it shows nothing of its picture, or what is beyond it", fix=_TO_PNG)
    return slice(top, top + height), slice(left, left + width)


class _Tiff(TiffImagePlugin.TiffImageFile):
    """A TIFF without Pillow's limit, which is one for the whole process, of planes of any depth."""

    def _setup(self) -> None:
        # Of planes that are not compressed Pillow looks at the first letter of their raw mode, and
        # takes 16 bits for 8 and black for white. A single one needs no word of them; others go to
        # libtiff, which Pillow asks for all that is compressed, and which looks for itself how.
        if self.tag_v2.get(_PLANES) == _SEPARATE:
            if self.tag_v2.get(_SAMPLES, 1) == 1:
                self.tag_v2[_PLANES] = 1
            elif self.tag_v2.get(_COMPRESSION, 1) == 1:
                self.tag_v2[_COMPRESSION] = _PACKBITS
        super()._setup()

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.new(self.mode, getattr(self, "_tile_size", self.size)).im
        ImageFile.ImageFile.load_prepare(self)


def _opened_tiff(data: bytes) -> _Tiff:
    if data.startswith(b"MM\0+"):
        raise ImageError("it is a BigTIFF of big-endian numbers", fix="convert it to TIFF first")
    try:
        return _Tiff(io.BytesIO(data))
    except SyntaxError as error:
        if "pixel mode" not in str(error):
            raise
        words = (
            "its pixels are of numbers that are not read, such as floats, 32 bits, colours of 12"
        )
        raise ImageError(f"{words}, or grey of 16 with alpha", fix=_CONVERT) from error


def _picture_from_tiff(data: bytes, limit: PictureLimit, color: Color) -> Picture:
    pages = list(tiff_directories(data))
    if not pages:
        raise ImageError("corrupt, cut short, or of a rare kind")
    masks = [page.get(_SUBFILE, (0, 0))[0] & (_REDUCED | _MASK) for page in pages]
    if data[8:10] == b"CR" or any(_DNG_VERSION in page for page in pages) or all(masks):
        raise ImageError(
            "it is a raw photograph, or holds no more than a preview", fix="develop it to PNG first"
        )
    chosen = masks.index(0)
    page, orientation = pages[chosen], orientation_in(pages[chosen])
    remarks = [SEVERAL] if masks.count(0) > 1 else []
    with _opened_tiff(data) as image:
        image.seek(chosen)
        bits = image.tag_v2.get(_BITS, (1,))
        planes, extra = image.tag_v2.get(_PLANES, 1), image.tag_v2.get(_EXTRA, ())
        if _SIGNED in image.tag_v2.get(_NUMBERS, ()):
            raise ImageError(f"its pixels are {_WORDS['I']}", fix=_CONVERT)
        if planes == _SEPARATE and _PREMULTIPLIED in extra:
            raise ImageError("it has premultiplied alpha in a plane of its own", fix=_CONVERT)
        # Pillow cuts deep colours to 8 bits instead of rounding them.
        is_deep = chosen == 0 and len(bits) == len(image.mode) and {*bits} == {16}
        is_deep = is_deep and extra in {(), (2,)} and image.mode[:3] == "RGB"
        is_deep = is_deep and planes != _SEPARATE  # OpenCV takes them for pixels
        per_pixel = 2 * len(bits) if is_deep else _BYTES_OF_MODE.get(image.mode, 4)
        per_pixel += is_deep + (1 + (orientation != UPRIGHT)) * channels_of(color)
        across, down = (max(page.get(tag, (1, 0))[0], 1) for tag in _TILE)
        limit.check((across, down), per_pixel)
        with limit.room_for(image.size, per_pixel, (2 + is_deep) * len(data)):
            if is_deep:
                deep = _deep_pixels(data, page)
                pixels = turned(picture_from_image(deep, color), orientation)
                remarks.append(remark_on_levels(deep))
            else:
                pixels = _pixels(image, color, bits=bits[0])  # turned by Pillow
                if image.mode.startswith("I;16"):
                    if bits[0] == 16:
                        remarks.append(remark_on_levels(np.asarray(image, np.uint16)))
                    if image.tag_v2.get(_PHOTOMETRIC) == 0:  # white is 0
                        pixels = cv2.bitwise_not(pixels).astype(np.uint8, copy=False)
    return Picture(pixels, tuple(filter(None, remarks)))


def _deep_pixels(data: bytes, page: dict[int, TiffValue]) -> npt.NDArray[Any]:
    """Decode the first page to 16-bit BGR or BGRA, as it is stored."""
    if found := page.get(_ORIENTATION):
        # Releases of OpenCV differ in whether they turn it: let there be nothing to turn.
        altered = bytearray(data)
        altered[found[1] : found[1] + 2] = UPRIGHT.to_bytes(2, "little" if data[0] == 73 else "big")
        data = bytes(altered)
    return decoded(data, cv2.IMREAD_UNCHANGED)


def _bytes_of_components(data: bytes, limit: PictureLimit) -> float:
    """Check what a JPEG 2000 codestream announces (ITU-T T.800, A.5.1), of all its components."""
    start = data.find(b"\xff\x4f\xff\x51")
    x, y, left, top = (
        int.from_bytes(data[at : at + 4], "big") for at in range(start + 8, start + 24, 4)
    )
    components = int.from_bytes(data[start + 40 : start + 42], "big")
    if start < 0 or not 1 <= components <= 4:
        raise ImageError(f"it is a JPEG 2000 file of {components} components, and 1 to 4 are read")
    extra = 4.0 * components + 3  # the decoder's own samples
    limit.check((x - left, y - top), extra + components + 1, len(data))
    return extra


def _pixels(image: Image.Image, color: Color, bits: int = 16) -> Pixels:
    """Convert what Pillow decoded, in stripes; `bits` of 16 are used."""
    mode = image.mode
    if mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint16, copy=False)
        if bits == 16:
            return picture_from_image(deep, color)
        scaled = cv2.convertScaleAbs(deep, alpha=WHITE / ((1 << bits) - 1))
        return picture_from_image(scaled.astype(np.uint8, copy=False), color)
    if mode in {"1", "L"} and not image.has_transparency_data:
        return picture_from_image(np.array(image.convert("L")), color)
    if mode not in _COLOURS:
        words = _WORDS.get(mode, f"of Pillow's mode {mode}")
        raise ImageError(f"its pixels are {words}", fix=_CONVERT)
    if mode == "La":  # from which Pillow converts to nothing else
        return _pixels(image.convert("LA"), color)
    target, code = (
        ("RGBA", cv2.COLOR_RGBA2BGRA)
        if image.has_transparency_data
        else (
            "RGB",
            cv2.COLOR_RGB2BGR,
        )
    )
    image.load()
    width, height = image.size
    rows = max(1, _STRIPE // width)
    pixels = np.empty((height, width) if color == "grey" else (height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        stripe = image.crop((0, top, width, bottom)).convert(target)
        bgr = cv2.cvtColor(np.asarray(stripe), code)
        pixels[top:bottom] = picture_from_image(bgr, color)
    return pixels
