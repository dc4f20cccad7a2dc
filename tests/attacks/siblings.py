"""One picture as files of every kind that show it: each must encode as what it shows.

    python -m tests.attacks.siblings BUNDLE PICTURE...

Files are written by Pillow, libheif, OpenCV and the ffmpeg program: EXIF orientation 1 to 8 of six
formats, wrong suffixes, transparency, depths, compressions, several pages or frames, turned,
mirrored and anamorphic videos, several tracks, covers. What a file shows is known by its making, or
of a video is what ffmpeg shows of it, which is saved as PNG.

Latents are compared in units of the spread of their latent over the training images, its standard
deviation (sd). A file is bad where one is further than 0.5 sd from that of what it shows, where
there is an error or a gap, or where `encoder(path)` and `mv.encode` differ by more than 1e-3 sd. Of
12 bits in 16 it is judged whether that is remarked. A picture is bad, too, whose turned and
mirrored versions are not further than 0.5 sd: it could not show a fault.

Prints counts as one line of JSON, names each bad one, and exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import cv2
import numpy as np
from PIL import Image

import motorvae as mv
from motorvae.export.verify.metrics import floored_spread
from motorvae.export.verify.reference import spread_from_statistics
from motorvae.runtime.bundle.manifest import STATISTICS
from motorvae.runtime.core.errors import BundleError
from motorvae.runtime.core.spec import Fit

LIMIT_SD, SAME_SD = 0.5, 1e-3
SIZE = WIDTH, HEIGHT = 480, 320
FITS: tuple[Fit, ...] = get_args(Fit)
_Turn = Image.Transpose
# What was done to the pixels, for each orientation that undoes it.
STORED = {
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_90,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_270,
}


class Still(NamedTuple):
    """A picture file, to be written by Pillow, or by OpenCV where its look is an array."""

    kind: str
    file: str
    look: str = "colours"  # of `looks_of`
    options: Mapping[str, Any] = MappingProxyType({})
    orientation: int = 0
    mirrored: str = ""  # where a second picture goes: "behind" or "before" the one that counts
    fits: tuple[Fit, ...] = ("stretch",)


class Clip(NamedTuple):
    """A video, to be written by ffmpeg; `{name}` in the arguments is of `Workshop.files`."""

    kind: str
    file: str
    arguments: str
    shown: str = ""  # the filters by which ffmpeg shows it; without, it shows the picture
    matrix: tuple[int, ...] = ()  # a, b, c and d of a display matrix
    fits: tuple[Fit, ...] = ("stretch",)


class Found(NamedTuple):
    """What was found of one file, encoded for one fit."""

    kind: str
    name: str
    sd: float  # how far it is from what it shows, at most
    faults: list[str]


JPEG = {"quality": 95, "subsampling": 0}
AVIF = {"quality": 95, "subsampling": "4:4:4"}
HEIF = {"quality": 95, "chroma": 444}
FORMATS: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG", **JPEG},
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "lossless": True},
    "tif": {"format": "TIFF"},
    "avif": {"format": "AVIF", **AVIF},
    "heic": {"format": "HEIF", **HEIF},
}
STILLS = (
    *(
        Still("orientation", f"{orientation}.{suffix}", "colours", options, orientation, fits=FITS)
        for suffix, options in FORMATS.items()
        for orientation in range(1, 9)
    ),
    *(
        Still("suffix", f"{options['format']}{suffix}", "colours", options, 6)
        for options in FORMATS.values()
        for suffix in (".dat", ".mp4", ".jpg", ".png", "")
    ),
    *(
        Still("transparency", f"{orientation}.{suffix}", "transparent", options, orientation)
        for suffix, options in FORMATS.items()
        for orientation in (1, 6)
        if suffix != "jpg"
    ),
    Still("transparency", "grey.png", "transparent grey"),
    Still("depth", "palette.png", "palette"),
    Still("depth", "palette.gif", "palette"),
    Still("depth", "1 bit.png", "1 bit"),
    Still("depth", "1 bit.bmp", "1 bit"),
    Still("depth", "1 bit.pbm", "1 bit"),
    Still("depth", "1 bit, group 4.tif", "1 bit", {"compression": "group4"}),
    Still("depth", "grey.jpg", "grey", JPEG),
    Still("depth", "grey.pgm", "grey"),
    Still("depth", "grey of 16 bits.png", "16 bits of grey"),
    Still("depth", "grey of 16 bits.tif", "16 bits of grey"),
    Still("depth", "colours of 16 bits.png", "16 bits of colours"),
    Still("depth", "colours of 16 bits.tif", "16 bits of colours"),
    Still("depth", "12 bits in 16.png", "12 bits"),
    Still("depth", "CMYK.jpg", "CMYK", JPEG),
    Still("depth", "CMYK.tif", "CMYK"),
    Still("compression", "progressive.jpg", options={"progressive": True, **JPEG}),
    Still("compression", "JPEG.jfif", options=JPEG),
    Still("compression", "JPEG.jpe", options=JPEG),
    Still("compression", "none.bmp"),
    Still("compression", "none.ppm"),
    Still("compression", "50 dB.jp2", options={"quality_mode": "dB", "quality_layers": [50]}),
    *(
        Still("compression", f"{name}.tif", options={"compression": name})
        for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "zstd")
    ),
    Still("pages", "two.tif", mirrored="behind"),
    Still("pages", "moving.png", options={"duration": 200}, mirrored="behind"),
    Still("pages", "moving.webp", options={"duration": 200, "lossless": True}, mirrored="behind"),
    Still("pages", "moving.gif", "palette", {"duration": 200}, mirrored="behind"),
    Still("pages", "moving.avif", options={"duration": 200, **AVIF}, mirrored="behind"),
    Still(
        "pages", "second is primary.heic", options={"primary_index": 1, **HEIF}, mirrored="before"
    ),
)
FIRST_CLIPS = {
    "upright": "-loop 1 -i {picture} -t 0.5 -r 10 -vf format=yuv420p -c:v libx264 -qp 10",
    "mirrored": "-i {upright} -vf hflip -c:v libx264 -qp 10",
}
MATRICES = {
    "turned right": (0, 1, -1, 0),
    "turned left": (0, -1, 1, 0),
    "upside down": (-1, 0, 0, -1),
    "mirrored": (-1, 0, 0, 1),
    "flipped": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transversed": (0, -1, -1, 0),
}
CODERS = {
    "mp4": "libx264 -qp 10",
    "mkv": "libx264 -qp 10",
    "mov": "mpeg4 -q:v 2",
    "avi": "mpeg4 -q:v 2",
    "ts": "mpeg2video -q:v 2",
    "webm": "libvpx-vp9 -cpu-used 8 -crf 10 -b:v 0",
}
# In planes and with every line of chroma: FFmpeg's quickest way to "rgb24" is a level off.
EXACT = "flags=area+accurate_rnd+full_chroma_int+full_chroma_inp"
AS_IT_IS = f"scale={EXACT},format=gbrp"
# The shorter way grows, as it does in a stream: a crop box in pixels is of that size.
SQUARE_PIXELS = rf"scale=max(iw\,iw*sar):max(ih\,ih/sar):{EXACT},format=gbrp,setsar=1"
TWO_TRACKS = "-i {mirrored} -i {upright} -map 0:v -map 1:v -c copy -disposition:v:0 0"
CLIPS = (
    *(
        Clip("turned video", f"{name}.{suffix}", "-i {upright} -c copy", AS_IT_IS, matrix, FITS)
        for name, matrix in MATRICES.items()
        for suffix in ("mp4", "mov", "mkv")
    ),
    *(
        Clip(
            "anamorphic video",
            f"{aspect.replace('/', ' to ')}.{suffix}",
            f"-loop 1 -i {{picture}} -t 0.2 -r 25 -vf setsar={aspect},format=yuv420p -c:v {coder}",
            SQUARE_PIXELS,
            fits=FITS,
        )
        for aspect in ("2/1", "1/2", "4/3", "8/9", "16/15")
        for suffix, coder in CODERS.items()
    ),
    *(
        Clip(
            "tracks",
            f"JPEGs of orientation 6.{suffix}",
            "-f image2 -loop 1 -framerate 5 -noautorotate -i {turned} -t 1 -c copy",
        )
        for suffix in ("avi", "mkv")
    ),
    *(
        Clip("tracks", f"second is default.{suffix}", f"{TWO_TRACKS} -disposition:v:1 default")
        for suffix in ("mkv", "mp4")
    ),
    Clip(
        "tracks",
        "cover.mp4",
        "-i {upright} -i {mirrored_picture} -map 0:v -map 1:v -c:v:0 copy -c:v:1 png "
        "-disposition:v:1 attached_pic",
    ),
)


def lacking() -> str:
    """Return what is needed and not installed, or nothing."""
    if shutil.which("ffmpeg") is None:
        return "the ffmpeg program"
    return "" if importlib.util.find_spec("pillow_heif") else "the package pillow_heif"


def ffmpeg(arguments: str, path: Path, /, **files: Path) -> None:
    """Make a file by ffmpeg; `{name}` in the arguments is one of `files`."""
    words = [word.format(**files) for word in arguments.split()]
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-threads", "1", *words, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise OSError(f"ffmpeg: {done.stderr.strip()[-200:]}")


def looks_of(picture: Image.Image) -> dict[str, tuple[Any, Image.Image | None]]:
    """Return what is stored, and what that shows, by the name of a look."""
    grey = picture.convert("L")
    mask = Image.new("L", SIZE, 255)
    mask.paste(0, (0, 0, WIDTH, HEIGHT // 4))
    mask.paste(128, (0, HEIGHT // 4, WIDTH, HEIGHT // 2))
    transparent, transparent_grey = picture.copy(), grey.copy()
    transparent.putalpha(mask)
    transparent_grey.putalpha(mask)
    palette, bits = picture.quantize(256), grey.convert("1")
    deep_grey = np.asarray(grey) * np.uint16(257)
    deep_colours = np.asarray(picture)[..., ::-1] * np.uint16(257)
    return {
        "colours": (picture, picture),
        "grey": (grey, grey),
        "transparent": (
            transparent,
            Image.composite(picture, Image.new("RGB", SIZE, "white"), mask),
        ),
        "transparent grey": (
            transparent_grey,
            Image.composite(grey, Image.new("L", SIZE, 255), mask),
        ),
        "palette": (palette, palette.convert("RGB")),
        "1 bit": (bits, bits.convert("L")),
        "CMYK": (picture.convert("CMYK"), picture),
        "16 bits of grey": (Image.fromarray(deep_grey), grey),
        "16 bits of colours": (deep_colours, picture),
        "12 bits": (Image.fromarray(deep_grey >> 4), None),
    }


def write_still(still: Still, stored: Any, path: Path) -> None:
    from ..runtime.pixels.pictures import exif

    if isinstance(stored, np.ndarray):
        if not cv2.imwrite(str(path), stored):
            raise OSError(f"OpenCV cannot write {path.name}")
        return
    options = dict(still.options)
    if still.orientation:
        options["exif"] = exif(still.orientation)  # of HEIC and AVIF a turn of the container
    if still.orientation in STORED:
        stored = stored.transpose(STORED[still.orientation])
    if still.mirrored:
        pages = [stored, stored.transpose(_Turn.FLIP_LEFT_RIGHT)]
        stored, *others = pages if still.mirrored == "behind" else reversed(pages)
        options |= {"save_all": True, "append_images": others}
    stored.save(path, **options)


def write_clip(clip: Clip, files: dict[str, Path], path: Path) -> None:
    first = path.with_suffix(".mp4") if clip.matrix and path.suffix == ".mkv" else path
    ffmpeg(clip.arguments, first, **files)
    if clip.matrix:
        first.write_bytes(with_matrix(first.read_bytes(), clip.matrix))
    if first != path:
        ffmpeg("-noautorotate -i {first} -c copy", path, first=first)


def with_matrix(data: bytes, matrix: Sequence[int]) -> bytes:
    """Return an MP4 whose first track has another display matrix."""
    place = data.index(b"tkhd") + 4
    place += 52 if data[place] else 40  # version 1 has longer times
    a, b, c, d = (value * 65536 for value in matrix)
    return data[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[place + 36 :]


class Workshop:
    """Where the siblings of a picture are written, and what they are made of."""

    def __init__(self, folder: Path, picture: Image.Image) -> None:
        self.folder = folder
        self.looks = looks_of(picture)
        names = {"picture": "png", "mirrored_picture": "png", "turned": "jpg"}
        self.files = {name: folder / f"{name}.{suffix}" for name, suffix in names.items()}
        picture.save(self.files["picture"])
        picture.transpose(STORED[2]).save(self.files["mirrored_picture"])
        turned = Still("", "", options=FORMATS["jpg"], orientation=6)
        write_still(turned, picture, self.files["turned"])
        for name, arguments in FIRST_CLIPS.items():
            self.files[name] = folder / f"{name}.mp4"
            ffmpeg(arguments, self.files[name], **self.files)

    def write(self, sibling: Still | Clip) -> tuple[Path, Path | None]:
        """Return a file, and a PNG of what it shows unless something must be remarked of it."""
        path = self.folder / sibling.kind / sibling.file
        path.parent.mkdir(exist_ok=True)
        if isinstance(sibling, Still):
            stored, seen = self.looks[sibling.look]
            write_still(sibling, stored, path)
            shown = self.folder / f"{sibling.look}.png" if seen else None
            if shown and not shown.exists():
                seen.save(shown)
            return path, shown
        write_clip(sibling, self.files, path)
        if not sibling.shown:
            return path, self.files["picture"]
        shown = Path(f"{path}.png")
        ffmpeg(f"-i {{path}} -frames:v 1 -vf {sibling.shown}", shown, path=path)
        return path, shown


class Judge:
    """Encodes files for each fit, and says how far they are from what they show."""

    def __init__(self, folder: Path) -> None:
        bundle = mv.load(folder)
        spread = spread_from_statistics(folder / STATISTICS, bundle.spec, error=BundleError)
        self.spread = floored_spread(spread.mu)
        self.bundles = {fit: with_fit(bundle, fit) for fit in FITS}
        self.encoders = {fit: one.encoder(threads=1) for fit, one in self.bundles.items()}
        self.shown: dict[tuple[Path, Fit], Any] = {}

    def close(self) -> None:
        for encoder in self.encoders.values():
            encoder.close()

    def encoded(self, path: Path, fit: Fit) -> mv.Encoded:
        # An engine is opened for each file, and with more threads that takes longer.
        return mv.encode(self.bundles[fit], path, threads=1)

    def sd(self, one: Any, other: Any) -> float:
        """Return how far latents of shape (D,) or (N, D) are apart at most."""
        return float((np.abs(one - other) / self.spread).max())

    def least_turn_sd(self, picture: Image.Image) -> float:
        """Return how far the nearest of a picture's turned and mirrored versions is from it."""
        grey = picture.convert("L")
        versions = [grey, *(grey.transpose(turn) for turn in STORED.values())]
        upright, *turned = self.encoders["stretch"]([np.asarray(one) for one in versions]).mu
        return min(self.sd(one, upright) for one in turned)

    def judged(
        self, path: Path, shown: Path | None, fit: Fit, *, is_still: bool
    ) -> tuple[float, list[str]]:
        """Return how far a file is from what it shows, 0 where that is unknown, and its faults."""
        encoded = self.encoded(path, fit)
        faults, sd = [f"a gap: {gap.reason}" for gap in encoded.gaps], 0.0
        if shown:
            if (shown, fit) not in self.shown:
                self.shown[shown, fit] = self.encoded(shown, fit).mu
            sd = self.sd(encoded.mu, self.shown[shown, fit])
        if not sd <= LIMIT_SD:
            faults.append(f"{sd:.2f} sd from what it shows")
        if is_still:
            faults += self.faults_of_still(path, fit, encoded, needs_remark=shown is None)
        return sd, faults

    def faults_of_still(
        self, path: Path, fit: Fit, encoded: mv.Encoded, *, needs_remark: bool
    ) -> list[str]:
        """Return how the other way in is unlike, and what else is wrong with a picture."""
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            latent = self.encoders[fit](path)
        apart = self.sd(latent.mu, encoded.mu)
        faults = {
            f"{len(encoded.mu)} rows": len(encoded.mu) != 1,
            f"encoder(path) is {apart:.3g} sd from mv.encode": not apart <= SAME_SD,
            "mv.encode remarks nothing": needs_remark and not encoded.remarks,
            "encoder(path) remarks nothing": needs_remark and not remarks,
        }
        return [fault for fault, is_so in faults.items() if is_so]


def with_fit(bundle: mv.Bundle, fit: Fit) -> mv.Bundle:
    """Return a bundle as if its model had been trained on images that were fitted so."""
    spec = bundle.spec.model_copy(update={"fit": fit})
    manifest = bundle.manifest.model_copy(update={"model": spec})
    return dataclasses.replace(bundle, manifest=manifest)


def siblings_found(judge: Judge, workshop: Workshop, sibling: Still | Clip) -> Iterator[Found]:
    """Write a sibling and yield what is found of it for each fit."""
    name = f"{sibling.kind}: {sibling.file}"
    try:
        path, shown = workshop.write(sibling)
    except Exception as error:  # noqa: BLE001  # whatever a library of this machine cannot
        yield Found(sibling.kind, name, 0, [f"not made: {error!r}"[:300]])
        return
    for fit in sibling.fits:
        try:
            sd, faults = judge.judged(path, shown, fit, is_still=isinstance(sibling, Still))
        except Exception as error:  # noqa: BLE001  # it is what is looked for
            sd, faults = 0, [f"{error!r}"[:300]]
        yield Found(sibling.kind, f"{name}, {fit}", sd, faults)


def attacked(bundle: Path, pictures: Sequence[Path], only: str = "") -> dict[str, Any]:
    """Judge the siblings of pictures whose names match; return counts, and the bad by name."""
    siblings = [one for one in (*STILLS, *CLIPS) if re.search(only, f"{one.kind}: {one.file}")]
    found: dict[str, list[Found]] = {one.kind: [] for one in siblings}
    wrong, least_turn_sd = [], np.inf
    with contextlib.closing(Judge(bundle)) as judge:
        for source in pictures:
            picture = Image.open(source).convert("RGB").resize(SIZE)
            least_turn_sd = min(turn_sd := judge.least_turn_sd(picture), least_turn_sd)
            if not turn_sd > LIMIT_SD:
                wrong.append(f"{source.name}: the nearest turned version is {turn_sd:.2f} sd away")
            with tempfile.TemporaryDirectory() as folder:
                workshop = Workshop(Path(folder), picture)
                for sibling in siblings:
                    for one in siblings_found(judge, workshop, sibling):
                        found[one.kind].append(one)
                        if one.faults:
                            wrong.append(f"{source.name}: {one.name}: {'; '.join(one.faults)}")
    kinds = {
        kind: {
            "judged": len(every),
            "bad": sum(bool(one.faults) for one in every),
            "worst_sd": round(max(one.sd for one in every), 3),
        }
        for kind, every in found.items()
    }
    return {
        "pictures": len(pictures),
        "files": len(siblings) * len(pictures),
        "judged": sum(kind["judged"] for kind in kinds.values()),
        "bad": len(wrong),
        "worst_sd": max(kind["worst_sd"] for kind in kinds.values()),
        "least_turn_sd": round(least_turn_sd, 3),
        "kinds": kinds,
        "wrong": wrong,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--only", default="", help="a pattern for names such as 'depth: CMYK.tif'")
    given = parser.parse_args()
    if missing := lacking():
        print(f"{missing} is not installed, and files are made by it", file=sys.stderr)
        return 2
    found = attacked(given.bundle, given.pictures, given.only)
    for line in found.pop("wrong"):
        print(line, file=sys.stderr)
    print(json.dumps(found))
    return int(found["bad"] > 0)


if __name__ == "__main__":
    sys.exit(main())
