"""Images and latents that held-out ones do not reach, on which no wrong graph can hide."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from .metrics import Floats

_SEED = 11
_BLOCK = 8
"""Side of a checkerboard's fields and of soft noise's cells, in pixels."""
_FURTHEST = 6.0
"""How many spreads from the mean, as a root mean square, a latent lies at most that is decoded."""
_FAR = 8.0
"""So many spreads from the mean, decoders give black and white: nothing clips them before."""

Pixels = npt.NDArray[np.uint8]


def probe_images(held_out: Pixels) -> tuple[tuple[str, ...], Pixels]:
    """Return names (P) and pictures (P, ...) of probes; equal held-out pictures give equal ones.

    Held-out pictures are (N, H, W), or (N, 3, H, W) colour planes; so are the probes.
    """
    planes = held_out[:, None] if held_out.ndim == 3 else held_out
    shape = planes.shape[1:]
    channels, height, width = shape
    rng = np.random.default_rng(_SEED)
    rows, columns = np.indices((height, width))
    first, other = planes[0], planes[len(planes) // 2]
    cells = max(height // _BLOCK, 2), max(width // _BLOCK, 2)

    def ramp(length: int) -> npt.NDArray[np.float64]:
        levels: npt.NDArray[np.float64] = np.linspace(0, 255, length).round()
        return levels

    size = width, height
    levels = rng.integers(0, 256, (channels, *cells), np.uint8)
    soft = np.stack([cv2.resize(one, size, interpolation=cv2.INTER_CUBIC) for one in levels])
    still = (planes.min(axis=0) == planes.max(axis=0)).all(axis=0)
    found = {
        "black": np.zeros(shape),
        "white": np.full(shape, 255),
        "mid grey": np.full(shape, 128),
        "white noise": rng.integers(0, 256, shape, np.uint8),
        "black or white noise": 255 * rng.integers(0, 2, shape, np.uint8),
        "soft noise": soft,
        "horizontal gradient": ramp(width),
        "vertical gradient": ramp(height)[:, None],
        "checkerboard": (rows // _BLOCK + columns // _BLOCK) % 2 * 255,
        "stripes": columns % 2 * 255,
        "inverted": 255 - first,
        "another inverted": 255 - other,
        "shifted": np.roll(first, (height // 2, width // 4), axis=(1, 2)),
        "another shifted": np.roll(other, (height // 8, -width // 3), axis=(1, 2)),
        "mirrored": first[:, :, ::-1],
        "upside down": other[:, ::-1],
        "dark": first // 4,
        "fog": np.rint(128 + 0.1 * (first - 128.0)),
        "dense fog": np.rint(128 + 0.02 * (other - 128.0)),
        "bright": 255 - (255 - other) // 4,
        "bright object": _with_object(first, still, np.uint8(255)),
        "dark object": _with_object(other, still, np.uint8(0)),
        "inverted where nothing changes": np.where(still, 255 - first, first),
    }
    pictures = np.stack([np.broadcast_to(one, shape) for one in found.values()]).astype(np.uint8)
    return tuple(found), pictures[:, 0] if held_out.ndim == 3 else pictures


def probe_latents(
    mu: Floats, log_var: Floats | None, scale: Floats, probes_mu: Floats
) -> npt.NDArray[np.float32]:
    """Return the latents (L, D) that decoders are tried on.

    They are made of those of held-out images (N, D), the spread of each latent over the data (D,),
    and the mu of probe images (P, D), drawn nearer where they lie far out. Without log_var none is
    drawn from posteriors.
    """
    rng = np.random.default_rng(_SEED)
    mean = np.asarray(mu, np.float64).mean(axis=0)
    size = len(mean)
    signs = rng.choice([-1.0, 1.0], (6, size))
    chosen = np.linspace(0, len(mu) - 1, 4).round().astype(int)
    away = np.asarray(probes_mu, np.float64) - mean
    distance = np.sqrt(np.mean((away / scale) ** 2, axis=1, keepdims=True))
    parts = [
        np.zeros((1, size)),
        mean[None],
        mean + 3 * scale[None],
        mean - 3 * scale[None],
        mean + 3 * scale * signs[:2],
        mean + _FAR * scale * signs[2:],
        rng.standard_normal((4, size)),  # the prior
    ]
    if log_var is not None:
        deviation = np.exp(np.asarray(log_var, np.float64)[chosen] / 2)
        parts.append(mu[chosen] + deviation * rng.standard_normal((len(chosen), size)))
    parts.append(mean + away * np.minimum(1, _FURTHEST / np.maximum(distance, 1e-12)))
    return np.concatenate(parts).astype(np.float32)


def _with_object(picture: Pixels, still: npt.NDArray[np.bool_], value: np.uint8) -> Pixels:
    """Return a picture (C, H, W) with a square where most pixels (H, W) never change."""
    edge = min(still.shape) // 4
    sums = np.pad(still.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[edge:, edge:] - sums[:-edge, edge:] - sums[edge:, :-edge] + sums[:-edge, :-edge]
    row, column = np.unravel_index(np.argmax(inside), inside.shape)
    changed: Pixels = picture.copy()
    changed[:, row : row + edge, column : column + edge] = value
    return changed
