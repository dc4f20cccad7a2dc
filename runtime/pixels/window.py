"""Window: which part of a picture becomes the model's input, and what is padded around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..core.errors import ImageError
from ..core.spec import ModelSpec

LARGEST_CANVAS = 1 << 28
"""Pixels that a picture may be padded to."""


class Span(NamedTuple):
    """Whole pixels along one axis: where they start, and how many there are."""

    start: int
    length: int

    def reversed(self, of: int) -> Span:
        """Return the same of an axis of so many pixels that runs the other way."""
        return Span(of - self.start - self.length, self.length)


@dataclass(frozen=True, slots=True)
class Window:
    """Of a picture as it is seen, what is taken (`rows`, `columns`), and the canvas it lies on.

    The canvas is what is resized to the input. It is larger than what is taken where the fit is
    to pad: its borders are white, also where the picture goes on beyond the crop box. A letterbox
    has its border in the input instead, around what is `inside`.
    """

    rows: Span
    columns: Span
    canvas_rows: Span
    canvas_columns: Span
    inside: tuple[Span, Span] | None = None
    """Rows and columns of the input that it is resized to, where that comes before the padding."""


def window_of(spec: ModelSpec, shape: tuple[int, int]) -> Window:
    """Return the window of a picture of a (height, width) in pixels that are square.

    First the crop box is taken, then it is fitted: `crop` takes the largest part in the middle that
    has the input's aspect ratio, `pad` the smallest canvas around all of it. Sides are rounded to
    whole pixels, for a `letterbox` down, and of an odd rest the larger half lies behind. An
    ImageError where nothing is left, or the canvas is too large.
    """
    try:
        top, left, height, width = spec.box_of(shape)
    except ValueError as error:
        raise ImageError(str(error), fix="give larger images, or another --crop") from error
    rows, columns = Span(top, height), Span(left, width)
    if spec.fit == "stretch":
        return Window(rows, columns, rows, columns)
    is_wide = width * spec.height > height * spec.width
    if spec.fit == "letterbox":
        tall = max(1, height * spec.width // width) if is_wide else spec.height
        wide = spec.width if is_wide else max(1, width * spec.height // height)
        inside = _centred(Span(0, spec.height), tall), _centred(Span(0, spec.width), wide)
        return Window(rows, columns, rows, columns, inside)
    if is_wide == (spec.fit == "crop"):
        tall, wide = height, _rounded(height * spec.width, spec.height)
    else:
        tall, wide = _rounded(width * spec.height, spec.width), width
    fitted = _centred(rows, tall), _centred(columns, wide)
    if spec.fit == "crop":
        return Window(*fitted, *fitted)
    if tall * wide > LARGEST_CANVAS:
        to = "a square" if spec.height == spec.width else f"the shape of {spec.size_in_words}"
        raise ImageError(
            f"it has {shape[1]} x {shape[0]} pixels, {tall * wide / 1e6:.0f} million when padded "
            f"to {to}",
            fix="use a model of another --fit",
        )
    return Window(rows, columns, *fitted)


def _centred(span: Span, length: int) -> Span:
    """Return a span of another length around the same middle."""
    rest = span.length - length
    return Span(span.start + (rest // 2 if rest >= 0 else -(-rest // 2)), length)


def _rounded(dividend: int, divisor: int) -> int:
    return max(1, (2 * dividend + divisor) // (2 * divisor))
