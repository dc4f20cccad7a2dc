"""Random changes of training images: mirrored, moved, brighter or darker, partly hidden."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..options import Augmentation

MOST_SHIFT = 1 / 16
"""Largest move of `shift`, as a part of the side."""
BRIGHTNESS = 0.2
"""Largest change of `brightness`, as a part of the level."""
ERASED_SHARE, ERASED_AREA, ERASED_ASPECT = 0.5, (0.02, 0.4), (0.3, 1 / 0.3)
"""Of `erase`: how many images, and how much of one; as Zhong et al. 2020."""
_SEEDS = 2**62


def augmented(
    images: Tensor,
    kinds: Sequence[Augmentation],
    generator: torch.Generator,
    *,
    begin: int = 0,
    whole: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a batch as it is to be reconstructed, and as the encoder sees it.

    Images are (N, C, H, W) in [0, 1]; the generator is on the CPU, so that all devices draw alike.
    Of a batch of `whole` images that several processes share, these are those from `begin` on, and
    each is changed as it is in the whole batch.

    - flip mirrors half of the images, left to right.
    - shift moves each by whole pixels, up to a sixteenth of its sides; the edge is repeated.
    - brightness multiplies each by 0.8 to 1.2, cut off at 1.
    - erase hides a rectangle of half of the images behind random pixels (Zhong et al. 2020,
      "Random erasing data augmentation"), from the encoder only: the reconstruction is compared
      with the whole image, as in a denoising autoencoder (Vincent et al. 2008). Compared with the
      erased one, the model would learn to draw noise.
    """
    count, _, height, width = images.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(whole or count, *shape, generator=generator)[begin : begin + count]
        return drawn * (high - low) + low

    if "flip" in kinds or "shift" in kinds:
        rows, columns = (torch.arange(side).expand(count, -1) for side in (height, width))
        if "flip" in kinds:
            columns = torch.where(uniform(0, 1, 1) < 0.5, columns.flip(1), columns)
        if "shift" in kinds:
            rows, columns = (
                (indices + (uniform(-MOST_SHIFT, MOST_SHIFT, 1) * side).round().long())
                for indices, side in ((rows, height), (columns, width))
            )
        rows = rows.clamp(0, height - 1).to(images.device)
        columns = columns.clamp(0, width - 1).to(images.device)
        every = torch.arange(count, device=images.device)
        # Indices around a slice put it last: (N, H, W, C).
        moved = images[every[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        images = moved.permute(0, 3, 1, 2)
    if "brightness" in kinds:
        factors = uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS, 1, 1, 1).to(images.device)
        images = (images * factors).clamp(max=1)
    if "erase" not in kinds:
        return images, images
    area = uniform(*ERASED_AREA, 1) * height * width
    least, most = map(math.log, ERASED_ASPECT)
    aspect = uniform(least, most, 1).exp()
    hidden = uniform(0, 1, 1) < ERASED_SHARE
    inside = []
    for side, length in ((height, (area * aspect).sqrt()), (width, (area / aspect).sqrt())):
        # A rectangle that is longer than a side covers the whole of it.
        length = length.round().clamp(1, side)  # noqa: PLW2901  # the same in pixels
        first = (uniform(0, 1, 1) * (side - length + 1)).floor()
        at = torch.arange(side)
        inside.append((at >= first) & (at < first + length))
    mask = (hidden[:, None] & inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    # A seed for each image: to draw the pixels of all images of the whole batch would take long.
    seeds = torch.randint(_SEEDS, (whole or count,), generator=generator)[begin : begin + count]
    noise = torch.zeros(images.shape)
    for row in hidden.flatten().nonzero().flatten().tolist():
        torch.rand(
            noise[row].shape, generator=generator.manual_seed(int(seeds[row])), out=noise[row]
        )
    return images, torch.where(mask.to(images.device), noise.to(images.device), images)
