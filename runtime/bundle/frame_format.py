"""FrameFormat: a camera's own picture, as a graph takes it that does the pixel work itself."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import ValidationError, model_validator

from ..core.errors import ConfigError
from ..core.spec import Matrix, StrictModel, problem_of

Layout = Literal["nv12", "bgr"]
"""`nv12`: (batch, height * 3 / 2, width), all of Y and below it Cb and Cr of 2 x 2 pixels in turn.
`bgr`: (batch, height, width, 3), as OpenCV has it."""
Range = Literal["limited", "full"]
"""Of 8-bit YUV: black is 16 and white 235, or 0 and 255."""

FRAME = "frame"
"""The input of such a graph."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
MOST_FRAME_SIDE, MOST_FRAME_PIXELS = 8192, 7680 * 4320
_WORDS = {"matrix": {*get_args(Matrix)} - {"auto"}, "range": {*get_args(Range)}}
_FORM = "take such as nv12:1920x1080, nv12:1280x720:bt709:full, bgr:640x480 or nv12:free"


class FrameFormat(StrictModel):
    """Pixels of a frame, uint8, and how large it is.

    Attributes:
        layout: Where each number lies.
        width: In pixels; None, as the height then, where a graph takes frames of any size.
        height: In pixels.
        matrix: How Y, Cb and Cr were made of colours; None for BGR.
        range: Of which levels they are; None for BGR.
    """

    layout: Layout
    width: int | None
    height: int | None
    matrix: Matrix | None = None
    range: Range | None = None

    @model_validator(mode="after")
    def _check(self) -> FrameFormat:
        if (self.width is None) != (self.height is None):
            raise ValueError("give both sides of a frame, or neither")
        is_yuv = self.layout == "nv12"
        if is_yuv in {self.matrix is None, self.range is None}:
            raise ValueError("matrix and range are those of nv12, which needs both")
        if self.matrix == "auto":
            raise ValueError("matrix=auto is none that a graph can compute with")
        if self.width is None or self.height is None:
            return self
        sides = f"{self.width}x{self.height}"
        if not 1 <= min(self.width, self.height) <= max(self.width, self.height) <= MOST_FRAME_SIDE:
            raise ValueError(f"{sides}: each side must be 1 to {MOST_FRAME_SIDE}")
        if self.width * self.height > MOST_FRAME_PIXELS:
            raise ValueError(f"{sides}: a frame has {MOST_FRAME_PIXELS} pixels at most")
        if is_yuv and (self.width % 2 or self.height % 2):
            raise ValueError(f"{sides}: both sides of nv12 are even")
        return self

    @property
    def is_free(self) -> bool:
        """Whether the size is free."""
        return self.width is None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width; a ValueError where they are free."""
        if self.width is None or self.height is None:
            raise ValueError(f"{self} has no size")
        return self.height, self.width

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Of one frame as a graph takes it; a free axis has a name."""
        height, width = ("height", "width") if self.is_free else self.size
        if self.layout == "bgr":
            return height, width, 3
        return ("rows" if isinstance(height, str) else height * 3 // 2), width

    def __str__(self) -> str:
        size = "free" if self.is_free else f"{self.width}x{self.height}"
        return ":".join(part for part in (self.layout, size, self.matrix, self.range) if part)


def frame_format_from_text(text: str) -> FrameFormat:
    """Read such as `nv12:1920x1080`, `nv12:1920x1080:bt709:full`, `bgr:640x480` or `nv12:free`.

    NV12 that does not say is BT.601 of limited range: cameras mean that whatever their size (USB
    Video Class 1.5, section 3.9.2.6). A ConfigError where it is none of these.
    """
    layout, _, rest = text.partition(":")
    size, *said = rest.split(":")
    fields: dict[str, object] = {"layout": layout, "width": None, "height": None}
    if layout not in LAYOUTS:
        raise ConfigError(f"--whole-frame {text}: {_FORM}")
    if size != "free":
        width, _, height = size.partition("x")
        if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
            raise ConfigError(f"--whole-frame {text}: {_FORM}")
        fields |= {"width": int(width[:9]), "height": int(height[:9])}
    for word in said:
        known = [name for name, words in _WORDS.items() if word in words and name not in fields]
        if not known or layout == "bgr":
            raise ConfigError(
                f"--whole-frame {text}: {word!r} is no matrix or range of it: {_FORM}"
            )
        fields[known[0]] = word
    if layout == "nv12":
        fields = {"matrix": "bt601", "range": "limited"} | fields
    try:
        return FrameFormat.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"--whole-frame {text}: {problem_of(error)}; {_FORM}") from error
