"""Sheets: pictures of a model in labelled rows, as one PNG whose pixels are theirs."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ...runtime.core.spec import Color
from ...runtime.core.text import printable
from ...runtime.pixels.convert import image_from_picture
from .pictures import Pixels

LEAST_CELL = 96
"""Smaller pictures are enlarged to at least so many pixels, each of theirs to a square of whole
pixels."""
MOST_SIDE = 8192
"""Of a sheet; pictures are shrunk, by averaging areas, until it fits."""
_LEAST_SHRUNK = 24
_GAP, _MARGIN = 6, 12
_TEXT, _HEADING, _TITLE = 13, 16, 20
_INK, _PALE_INK, _PAPER = (20, 20, 20), (150, 150, 150), (255, 255, 255)
_EDGE = (205, 205, 205)


@dataclass(frozen=True)
class Row:
    """One row of a sheet.

    Attributes:
        pictures: Each (H, W), or (3, H, W) in the order of the model's color; None leaves room.
        captions: What stands below each; none where it is empty.
        label: What stands left of the row; it may have several lines.
        heading: What stands above the row.
        is_pale: Whether the label is in grey, as of what counts for little.
    """

    pictures: Sequence[Pixels | None]
    captions: Sequence[str] = ()
    label: str = ""
    heading: str = ""
    is_pale: bool = False


def display_of(picture: Pixels, color: Color) -> npt.NDArray[np.uint8]:
    """Return a picture as Pillow shows it: (H, W, 3) **RGB** uint8, of grey ones, too."""
    image = image_from_picture(picture, color)
    if image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image[:, :, ::-1])


def sheet_of(
    rows: Sequence[Row], color: Color, *, title: str = "", most_cell: int = MOST_SIDE
) -> Image.Image:
    """Draw rows below each other, an RGB image; see `Row`.

    Pictures are shrunk so that no side has more than `most_cell` pixels, and the sheet fits.
    """
    drawn = _Layout(rows, most_cell)
    image = Image.new("RGB", drawn.size(title), _PAPER)
    draw = ImageDraw.Draw(image)
    top = _MARGIN
    if title:
        draw.text((_MARGIN, top), printable(title), _INK, _font(_TITLE))
        top += drawn.title_height
    for row in rows:
        if row.heading:
            draw.text((_MARGIN, top), printable(row.heading), _INK, _font(_HEADING))
            top += drawn.heading_height
        ink = _PALE_INK if row.is_pale else _INK
        lines = [printable(line) for line in row.label.split("\n")]
        draw.multiline_text((_MARGIN, top), "\n".join(lines), ink, _font(_TEXT), spacing=3)
        left = drawn.left
        for column, picture in enumerate(row.pictures):
            if picture is not None:
                shown = Image.fromarray(display_of(picture, color))
                if shown.size != drawn.cell:
                    is_larger = drawn.cell[0] >= shown.width
                    how = Image.Resampling.NEAREST if is_larger else Image.Resampling.BOX
                    shown = shown.resize(drawn.cell, how)
                box = (left - 1, top - 1, left + drawn.cell[0], top + drawn.cell[1])
                draw.rectangle(box, outline=_EDGE)
                image.paste(shown, (left, top))
            if column < len(row.captions):
                below = top + drawn.cell[1] + 3
                text = _fitting(row.captions[column], drawn.cell[0] + _GAP - 2)
                draw.multiline_text((left, below), text, ink, _font(_TEXT), spacing=3)
            left += drawn.cell[0] + _GAP
        top += drawn.row_height(row)
    return image


def beside(images: Sequence[Image.Image], *, title: str = "") -> Image.Image:
    """Put sheets side by side, with a title above all of them."""
    height = _TITLE + 2 * _MARGIN if title else 0
    across = sum(image.width for image in images)
    size = (max(across, math.ceil(_width(title, _TITLE)) + 2 * _MARGIN), height)
    found = Image.new("RGB", (size[0], height + max(image.height for image in images)), _PAPER)
    if title:
        place = (_MARGIN, _MARGIN)
        ImageDraw.Draw(found).text(place, printable(title), _INK, _font(_TITLE))
    left = 0
    for image in images:
        found.paste(image, (left, height))
        left += image.width
    return found


def grid_of(
    pictures: Sequence[Pixels],
    columns: int,
    color: Color,
    *,
    heading: str,
    captions: Sequence[str] = (),
    most_cell: int = MOST_SIDE,
) -> Image.Image:
    """Draw pictures in rows of so many columns below a heading, an RGB image."""
    rows = [
        Row(pictures[start : start + columns], captions[start : start + columns])
        for start in range(0, len(pictures), columns)
    ]
    rows[0] = dataclasses.replace(rows[0], heading=heading)
    return sheet_of(rows, color, most_cell=most_cell)


def png_of(image: Image.Image) -> bytes:
    """Return an image as the bytes of a PNG file, the same ones each time."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class _Layout:
    """Where everything of a sheet goes."""

    def __init__(self, rows: Sequence[Row], most_cell: int) -> None:
        self.rows = rows
        self.title_height, self.heading_height = _TITLE + 12, _HEADING + 10
        labels = [line for row in rows for line in row.label.split("\n")]
        widest = max(map(_width, labels), default=0)
        self.left = _MARGIN + (math.ceil(widest) + 10 if widest else 0)
        self.columns = max(len(row.pictures) for row in rows)
        height, width = next(
            picture.shape[-2:] for row in rows for picture in row.pictures if picture is not None
        )
        # A whole number where it enlarges.
        factor = math.ceil(LEAST_CELL / max(height, width))
        factor = min(factor, most_cell // max(height, width)) or most_cell / max(height, width)
        self.cell: tuple[int, int] = (round(width * factor), round(height * factor))
        across, down = self.size("")
        over = max(
            (across - MOST_SIDE) / (self.columns * self.cell[0]),
            (down - MOST_SIDE) / (len(rows) * self.cell[1]),
        )
        if over > 0:
            share = max(1 - over, _LEAST_SHRUNK / max(self.cell))
            self.cell = (
                max(1, int(width * factor * share)),
                max(1, int(height * factor * share)),
            )

    def size(self, title: str) -> tuple[int, int]:
        """Return width and height of the sheet."""
        across = self.left + self.columns * (self.cell[0] + _GAP) - _GAP + _MARGIN
        texts = [title] if title else []
        texts += [row.heading for row in self.rows]
        sizes = [_TITLE] * bool(title) + [_HEADING] * len(self.rows)
        widest = max((_width(*one) for one in zip(texts, sizes, strict=True)), default=0)
        down = 2 * _MARGIN + (self.title_height if title else 0)
        for row in self.rows:
            down += self.row_height(row) + (self.heading_height if row.heading else 0)
        return max(across, math.ceil(widest) + 2 * _MARGIN), down

    def row_height(self, row: Row) -> int:
        """Return how far below this row the next one begins."""
        lines = max((text.count("\n") + 1 for text in row.captions if text), default=0)
        label: int = (row.label.count("\n") + 1) * (_TEXT + 5) if row.label else 0
        below: int = lines * (_TEXT + 5) + 4 if lines else 0
        return max(self.cell[1] + below, label) + _GAP


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return matplotlib's own font, which has the letters of more languages than Pillow's."""
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _width(text: str, size: int = _TEXT) -> float:
    return _font(size).getlength(printable(text)) if text else 0.0


def _fitting(text: str, width: int) -> str:
    """Return text whose lines are cut, at an ellipsis, to what fits in a width."""
    lines = []
    for line in map(printable, text.split("\n")):
        kept = line
        while kept and _width(kept if kept == line else f"{kept}..") > width:
            kept = kept[:-1]
        lines.append(kept if kept == line else f"{kept}..")
    return "\n".join(lines)
