"""Verbs of motorvae explore as parts of a page: what they are asked, what is said, their pictures.

For gallery.py and default_model.py. What the verbs leave is kept in .scratch/gallery, and taken
again for the same weights and options.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gallery_text as texts
import numpy as np
from PIL import Image, ImageSequence

import motorvae as mv

SCRATCH = Path(".scratch/gallery")
SHEET_WIDTH, GIF_WIDTH, GREYS = 1600, 860, 32


@dataclass(frozen=True)
class Section:
    """One verb, with what the page says of it.

    Attributes:
        command: What a reader would type.
        text: Makes the sentences, of the numbers that the verb left.
        pictures: From what the verb wrote to what the page shows.
        more: Makes further numbers, of the verb's own and the folder that it wrote.
    """

    title: str
    verb: str
    options: dict[str, Any]
    command: str
    text: Callable[[texts.Numbers], str]
    pictures: dict[str, str]
    more: Callable[[texts.Numbers, Path], texts.Numbers] = field(default=lambda *_: {})


def reconstructions(of: dict[str, Any]) -> Section:
    """Return the section of reconstructions of a model, and of images where there are others."""
    return Section(
        "Reconstructions",
        "reconstructions",
        {**of, "count": 6},
        "motorvae explore reconstructions --count 6",
        texts.reconstructions,
        {"reconstructions.png": "reconstructions.jpg"},
    )


def samples(of: dict[str, Any]) -> Section:
    """Return the section of samples."""
    return Section(
        "Samples",
        "samples",
        {**of, "count": 25},
        "motorvae explore samples --count 25",
        texts.samples,
        {"samples.png": "samples.jpg"},
    )


def history(run: Path) -> Section:
    """Return the section of a run's epochs."""
    return Section(
        "History",
        "history",
        {"runs": [run]},
        "motorvae explore history",
        texts.history,
        {"history.gif": "history.gif", "history.png": "history.jpg"},
    )


def factors(model: Path, other: Path | None, count: int, shown: str) -> Section:
    """Return the section of factors, of another model beside it where there is one."""
    return Section(
        "Factors",
        "factors",
        {"model": model, "compare": other, "count": count},
        f"motorvae explore factors --count {count}" + (f" --compare {shown}" if other else ""),
        texts.factors,
        {"factors.png": "factors.jpg"},
    )


def key_of(model: Path) -> str:
    """Return a name for a model's weights."""
    names = ("model.safetensors", "manifest.json")
    content = next((model / name for name in names if (model / name).is_file()), None)
    if content is None:
        raise SystemExit(f"{model} is neither a finished run nor a bundle")
    return hashlib.sha256(content.read_bytes()).hexdigest()[:12]


def explored(section: Section, scratch: Path) -> tuple[texts.Numbers, Path]:
    """Run a verb, unless it has been; return its numbers, and the folder that it wrote."""
    asked = hashlib.sha256(repr((mv.__version__, section.options)).encode()).hexdigest()[:8]
    folder = scratch / f"{section.verb}-{asked}"
    document = folder / f"{section.verb}.json"
    if not document.is_file():
        print(section.title, flush=True)
        getattr(mv.explore, section.verb)(**section.options, output=folder)
    numbers: texts.Numbers = json.loads(document.read_text(encoding="utf-8"))["numbers"]
    return numbers, folder


def write_picture(sources: Sequence[Path], output: Path) -> None:
    """Write a picture small; sheets go below each other, animations side by side."""
    if output.suffix == ".gif":
        write_gif(sources, output)
        return
    sheets = []
    for source in sources:
        with Image.open(source) as image:
            sheets.append(image.convert("RGB"))
    joined = Image.fromarray(np.concatenate([np.asarray(one) for one in sheets]))
    shown = scaled(joined, SHEET_WIDTH)
    shown.save(output, quality=80, optimize=True, progressive=True)


def write_gif(sources: Sequence[Path], output: Path) -> None:
    """Write the frames of animations side by side, in few levels."""
    strips, durations = [], []
    for source in sources:
        with Image.open(source) as image:
            strips.append([frame.convert("RGB") for frame in ImageSequence.Iterator(image)])
            durations.append(image.info["duration"])
    skip = 2 if len(strips[0]) > 24 else 1
    frames = []
    for some in list(zip(*strips, strict=True))[::skip]:
        joined = Image.fromarray(np.concatenate([np.asarray(one) for one in some], axis=1))
        frames.append(few_levels(scaled(joined, GIF_WIDTH)))
    frames[0].save(
        output, save_all=True, append_images=frames[1:], duration=durations[0] * skip, loop=0
    )


def few_levels(image: Image.Image) -> Image.Image:
    """Return an image with few greys, or few colours."""
    pixels = np.asarray(image)
    if (pixels == pixels[..., :1]).all():
        step = 255 / (GREYS - 1)
        return Image.fromarray((np.rint(np.rint(pixels[..., 0] / step) * step)).astype(np.uint8))
    return image.quantize(4 * GREYS, dither=Image.Dither.NONE)


def scaled(image: Image.Image, width: int) -> Image.Image:
    """Return an image that is at most so wide."""
    if image.width <= width:
        return image
    height = round(image.height * width / image.width)
    return image.resize((width, height), Image.Resampling.LANCZOS)
