"""ModelSpec: the sizes that every part of motorVAE agrees on, and how a frame is fitted to them."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigError

Fit = Literal["stretch", "crop", "pad"]
Matrix = Literal["auto", "bt601", "bt709", "bt2020", "smpte240m", "fcc"]
"""How colours became the Y of video: by weights that have a name, or those that fit its size."""

DEFAULT_CHANNELS = (32, 64, 128, 256, 512)
MOST_CHANNELS = 65536


class StrictModel(BaseModel):
    """A frozen pydantic model that refuses unknown keys: the base of all that is read from disk."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelSpec(StrictModel):
    """Sizes of one motorVAE, and how an image becomes its input.

    Attributes:
        image_size: S, the side of the square input in pixels; a multiple of 32, and of
            2 to the number of channels.
        channels: Output channels of the encoder's stride-2 convolutions, first to last.
        latent_size: D, the number of latent dimensions.
        fit: How an image of another shape becomes a square: `stretch` ignores the aspect
            ratio, `crop` keeps the centre, `pad` adds white.
        matrix: What video that names no matrix is taken to have. `auto`: BT.709 from 1280 pixels
            across or more than 576 down, BT.601 below, as players choose.
    """

    image_size: int = Field(default=256, ge=32, le=4096)
    channels: tuple[int, ...] = Field(default=DEFAULT_CHANNELS, min_length=1, max_length=8)
    latent_size: int = Field(default=128, ge=1, le=65536)
    fit: Fit = "stretch"
    matrix: Matrix = "bt601"  # of models that do not say: what they were trained on

    @model_validator(mode="after")
    def _check_sizes(self) -> ModelSpec:
        if not 1 <= min(self.channels) <= max(self.channels) <= MOST_CHANNELS:
            raise ValueError(f"channels={self.channels}: each must be 1 to {MOST_CHANNELS}")
        step = math.lcm(32, 2 ** len(self.channels))
        if self.image_size % step:
            below = max(step, self.image_size // step * step)
            above = (self.image_size // step + 1) * step
            nearest = f"{below} or {above}" if below < above else f"{above} or {above + step}"
            raise ValueError(
                f"image_size={self.image_size} is not a multiple of {step}: take {nearest}"
            )
        return self

    @property
    def feature_size(self) -> int:
        """Side of the encoder's last feature map in cells (8 for the default model)."""
        return int(self.image_size // 2 ** len(self.channels))

    @property
    def flat_size(self) -> int:
        """Length of the flattened feature map (32768 for the default model)."""
        return self.channels[-1] * self.feature_size**2


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
