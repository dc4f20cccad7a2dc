"""ModelSpec: the sizes that every part of motorVAE agrees on, and how a frame is fitted to them."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import ConfigError

Color = Literal["grey", "rgb", "bgr"]
Fit = Literal["stretch", "crop", "pad", "letterbox"]
Interpolation = Literal["area", "bilinear", "bicubic", "lanczos", "bilinear-no-antialias"]
"""`bilinear`, `bicubic` and `lanczos` widen their filters where an image shrinks, as Pillow's do;
`bilinear-no-antialias` reads two pixels an axis, as cv2.INTER_LINEAR and torch's interpolate do."""
Matrix = Literal["auto", "bt601", "bt709", "bt2020", "smpte240m", "fcc"]
"""How colours became the Y of video: by weights that have a name, or those that fit its size."""

DEFAULT_CHANNELS = (32, 64, 128, 256, 512)
MOST_CHANNELS = 65536
LEAST_SIDE, MOST_SIDE = 8, 4096
MOST_LATENTS = 1 << 20
_MOST_LATENT_AXES = 4

Size = int | tuple[int, int]
Box = tuple[float, float, float, float]


class StrictModel(BaseModel):
    """A frozen pydantic model that refuses unknown keys: the base of all that is read from disk."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelSpec(StrictModel):
    """Sizes of one VAE, and how an image becomes its input.

    Its graphs take images in [0, 1] and give latents as one axis of `latent_size` numbers and
    reconstructions in [0, 1], whatever ranges and shapes the network itself computes with.

    Attributes:
        image_size: Height and width of the input in pixels, or the side S of a square one. For the
            card's network each is a multiple of 16, and of half of 2 to the number of channels.
        color: `grey` is one channel of BT.601 luma; `rgb` and `bgr` are three, in that order.
        channels: Output channels of the stride-2 convolutions of the card's encoder, first to
            last; None for another network.
        latent_size: D, how many numbers a latent has.
        latent_shape: The shape of a latent where it is not (D,), such as (4, 32, 32); it is
            written flat, in row-major order.
        crop_box: Left, top, right and bottom of what is taken of an image before it is fitted: in
            fractions where all are from 0 to 1, else in pixels, where a right or bottom of 0 and
            below counts from the far edge. None is all of it.
        fit: How an image of another shape becomes that of the input: `stretch` ignores the aspect
            ratio, `crop` keeps the centre, `pad` adds white and resizes then, `letterbox` resizes
            to whole pixels first, rounded down, and adds white then.
        interpolation: How it is resized; `area` averages over areas.
        matrix: What video that names no matrix is taken to have. `auto`: BT.709 from 1280 pixels
            across or more than 576 down, BT.601 below, as players choose.
        value_range: What black and white are to the network.
        mean: Of each channel, subtracted after that; none is 0.
        std: Of each channel, divided by after that; none is 1.
        has_log_var: Whether the encoder gives `log_var` beside `mu`.
        has_decoder: Whether there is a decoder.
    """

    image_size: Size = 256
    color: Color = "grey"
    channels: tuple[int, ...] | None = Field(default=DEFAULT_CHANNELS, min_length=1, max_length=8)
    latent_size: int = Field(default=128, ge=1, le=MOST_LATENTS)
    latent_shape: tuple[int, ...] = Field(default=(), max_length=_MOST_LATENT_AXES)
    crop_box: Box | None = None
    fit: Fit = "stretch"
    interpolation: Interpolation = "area"
    matrix: Matrix = "bt601"  # of models that do not say: what they were trained on
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    has_log_var: bool = True
    has_decoder: bool = True

    @field_validator("image_size")
    @classmethod
    def _check_size(cls, size: Size) -> Size:
        sides = (size, size) if isinstance(size, int) else size
        if not LEAST_SIDE <= min(sides) <= max(sides) <= MOST_SIDE:
            raise ValueError(f"each side must be {LEAST_SIDE} to {MOST_SIDE}")
        return sides[0] if sides[0] == sides[1] else sides

    @field_validator("crop_box")
    @classmethod
    def _check_box(cls, box: Box | None) -> Box | None:
        if box is None:
            return None
        if not all(map(math.isfinite, box)):
            raise ValueError("each must be a number")
        left, top, right, bottom = box
        if _is_fractions(box):
            if not (left < right and top < bottom):
                raise ValueError("as fractions, left must be less than right, top than bottom")
        elif any(side != round(side) for side in box):
            raise ValueError("take fractions from 0 to 1, or whole pixels")
        elif min(left, top) < 0 or 0 < right <= left or 0 < bottom <= top:
            raise ValueError(
                "as pixels, left and top are 0 or more, and right and bottom beyond them, or 0 and "
                "below from the far edge"
            )
        return box

    @model_validator(mode="after")
    def _check_sizes(self) -> ModelSpec:
        if self.latent_shape and (
            min(self.latent_shape) < 1 or math.prod(self.latent_shape) != self.latent_size
        ):
            raise ValueError(
                f"latent_shape={self.latent_shape} does not hold latent_size={self.latent_size}"
            )
        black, white = self.value_range
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in {0, self.image_channels}:
                raise ValueError(
                    f"{name}={values}: give {self.image_channels}, one a channel, or none"
                )
        is_fine = black != white and min(self.std, default=1) > 0
        every = (black, white, *self.mean, *self.std)
        if not (is_fine and all(map(math.isfinite, (*every, *sum(self.scaling, ()))))):
            raise ValueError(
                f"value_range={self.value_range}, mean={self.mean}, std={self.std}: all must be "
                "finite, black unlike white, and std above 0"
            )
        if self.channels is not None:
            self._check_network(self.channels)
        return self

    def _check_network(self, channels: tuple[int, ...]) -> None:
        if not 1 <= min(channels) <= max(channels) <= MOST_CHANNELS:
            raise ValueError(f"channels={channels}: each must be 1 to {MOST_CHANNELS}")
        # Only the last convolution may meet an odd side, which it rounds up.
        step = math.lcm(16, 2 ** (len(channels) - 1))
        for side in (self.height, self.width):
            if side % step:
                below = max(step, side // step * step)
                above = (side // step + 1) * step
                nearest = f"{below} or {above}" if below < above else f"{above} or {above + step}"
                raise ValueError(
                    f"image_size={self.size_in_words}: {side} is not a multiple of {step}: "
                    f"take {nearest}"
                )
        if self.latent_shape or not (self.has_log_var and self.has_decoder):
            raise ValueError("the card's network has flat latents, log_var and a decoder")

    @property
    def height(self) -> int:
        """Of the input, in pixels."""
        return self.image_size if isinstance(self.image_size, int) else self.image_size[0]

    @property
    def width(self) -> int:
        """Of the input, in pixels."""
        return self.image_size if isinstance(self.image_size, int) else self.image_size[1]

    @property
    def size_in_words(self) -> str:
        """Height x width, or the side of a square."""
        side = self.image_size
        return str(side) if isinstance(side, int) else f"{side[0]} x {side[1]}"

    @property
    def image_channels(self) -> int:
        """Channels of the input: 1 or 3."""
        return 1 if self.color == "grey" else 3

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one image as the encoder takes it: (C, H, W)."""
        return self.image_channels, self.height, self.width

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """Of one fitted picture: (H, W) grey, or (3, H, W) of colour planes."""
        return (self.height, self.width) if self.color == "grey" else self.input_shape

    @property
    def map_shapes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the image, and of what each convolution of the card gives."""
        scales = [2**level for level in range(len(self.channels or ()) + 1)]
        return tuple((-(-self.height // scale), -(-self.width // scale)) for scale in scales)

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Height and width of the card's last feature map in cells (8 x 8 by default)."""
        return self.map_shapes[-1]

    @property
    def flat_size(self) -> int:
        """Length of the card's flattened feature map (32768 for the default model)."""
        return (self.channels or (0,))[-1] * math.prod(self.feature_shape)

    @property
    def scaling(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What a channel in [0, 1] is multiplied by, and what is added, for the network's range."""
        black, white = self.value_range
        mean, std = (self.mean or (0.0,) * self.image_channels), self.std or (1.0,)
        std *= self.image_channels if len(std) == 1 else 1
        gains = tuple((white - black) / deviation for deviation in std)
        offsets = tuple(
            (black - middle) / deviation for middle, deviation in zip(mean, std, strict=True)
        )
        return gains, offsets

    @property
    def scales(self) -> bool:
        """Whether the network's range is another than [0, 1]."""
        gains, offsets = self.scaling
        return {*gains} != {1.0} or {*offsets} != {0.0}

    @property
    def has_box_in_pixels(self) -> bool:
        """Whether the crop box is another part of a smaller copy of an image."""
        return self.crop_box is not None and not _is_fractions(self.crop_box)

    def box_of(self, shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return top, left, height and width in pixels of what is taken of a (height, width) image.

        An image of which the box takes nothing is a ValueError.
        """
        height, width = shape
        if self.crop_box is None:
            return 0, 0, height, width
        left, top, right, bottom = self.crop_box
        if _is_fractions(self.crop_box):
            left, right, top, bottom = left * width, right * width, top * height, bottom * height
        else:
            right += width if right <= 0 else 0
            bottom += height if bottom <= 0 else 0
        edges = (round(left), round(top), min(round(right), width), min(round(bottom), height))
        found = (edges[1], edges[0], edges[3] - edges[1], edges[2] - edges[0])
        if min(found[2:]) < 1:
            raise ValueError(
                f"the crop box {self.crop_box} takes nothing of {width} x {height} pixels"
            )
        return found


def _is_fractions(box: Box) -> bool:
    return all(0 <= side <= 1 for side in box)


def spec_from_options(**sizes: Any) -> ModelSpec:
    """Return the spec for a user's options; ConfigError for a value that is out of range."""
    try:
        return ModelSpec(**sizes)
    except ValidationError as error:
        raise ConfigError(problem_of(error)) from error


def problem_of(error: ValidationError) -> str:
    """Return the first problem of a pydantic error as one line: where, what, and the value."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    if not where:
        return what
    if first["type"] in {"missing", "extra_forbidden"}:
        return f"{where}: {what}"
    return f"{where}={str(first['input'])[:80]}: {what}"
