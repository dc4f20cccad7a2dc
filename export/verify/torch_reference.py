"""What torch float32 gives for held-out images, and for probes on which no wrong graph can hide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ...runtime.pixels.convert import input_from_pixels
from ...training.model import MotorVAE
from .batches import BATCH_SIZE
from .metrics import Floats
from .reference import JUDGED_IMAGES, Probes, Reference, Spread

_SEED = 11
_BLOCK = 8
"""Side of a checkerboard's fields and of soft noise's cells, in pixels."""
_FURTHEST = 6.0
"""How many spreads from the mean, as a root mean square, a latent lies at most that is decoded."""
_FAR = 8.0
"""So many spreads from the mean, decoders give black and white: nothing clips them before."""

Luma = npt.NDArray[np.uint8]
Float32s = npt.NDArray[np.float32]


def reference_from_model(model: MotorVAE, images: Luma, spread: Spread) -> Reference:
    """Run a model in evaluation mode, in float32 on the CPU.

    It takes the first 256 of (N, S, S) fitted images that the model was not trained on.
    """
    images = images[:JUDGED_IMAGES]
    reconstruction, mu, log_var = _in_batches(model, images)
    name = f"torch {torch.__version__} float32"
    reference = Reference(name, images, mu, log_var, reconstruction, spread)
    names, probed = probe_images(images)
    _, probes_mu, probes_log_var = _in_batches(model, probed)
    latents = probe_latents(mu, log_var, reference.scale, probes_mu)
    (decoded,) = _in_batches(lambda z: (model.decoder(z),), latents)
    probes = Probes(names, probed, probes_mu, probes_log_var, latents, decoded)
    return replace(reference, probes=probes)


def probe_images(held_out: Luma) -> tuple[tuple[str, ...], Luma]:
    """Return names (P) and images (P, S, S) of probes; equal held-out images give equal ones."""
    side = held_out.shape[1]
    rng = np.random.default_rng(_SEED)
    rows, columns = np.indices((side, side))
    ramp = np.linspace(0, 255, side).round()
    first, other = held_out[0], held_out[len(held_out) // 2]
    cells = max(side // _BLOCK, 2)
    soft = rng.integers(0, 256, (cells, cells), np.uint8)
    still = held_out.min(axis=0) == held_out.max(axis=0)
    found = {
        "black": np.zeros((side, side)),
        "white": np.full((side, side), 255),
        "mid grey": np.full((side, side), 128),
        "white noise": rng.integers(0, 256, (side, side), np.uint8),
        "black or white noise": 255 * rng.integers(0, 2, (side, side), np.uint8),
        "soft noise": cv2.resize(soft, (side, side), interpolation=cv2.INTER_CUBIC),
        "horizontal gradient": np.broadcast_to(ramp, (side, side)),
        "vertical gradient": np.broadcast_to(ramp[:, None], (side, side)),
        "checkerboard": (rows // _BLOCK + columns // _BLOCK) % 2 * 255,
        "stripes": columns % 2 * 255,
        "inverted": 255 - first,
        "another inverted": 255 - other,
        "shifted": np.roll(first, (side // 2, side // 4), axis=(0, 1)),
        "another shifted": np.roll(other, (side // 8, -side // 3), axis=(0, 1)),
        "mirrored": first[:, ::-1],
        "upside down": other[::-1],
        "dark": first // 4,
        "fog": np.rint(128 + 0.1 * (first - 128.0)),
        "dense fog": np.rint(128 + 0.02 * (other - 128.0)),
        "bright": 255 - (255 - other) // 4,
        "bright object": _with_object(first, still, np.uint8(255)),
        "dark object": _with_object(other, still, np.uint8(0)),
        "inverted where nothing changes": np.where(still, 255 - first, first),
    }
    return tuple(found), np.stack(list(found.values())).astype(np.uint8)


def probe_latents(mu: Floats, log_var: Floats, scale: Floats, probes_mu: Floats) -> Float32s:
    """Return the latents (L, D) that decoders are tried on.

    They are made of those of held-out images (N, D), the spread of each latent over the data (D,),
    and the mu of probe images (P, D), drawn nearer where they lie far out.
    """
    rng = np.random.default_rng(_SEED)
    mean = np.asarray(mu, np.float64).mean(axis=0)
    size = len(mean)
    signs = rng.choice([-1.0, 1.0], (6, size))
    chosen = np.linspace(0, len(mu) - 1, 4).round().astype(int)
    deviation = np.exp(np.asarray(log_var, np.float64)[chosen] / 2)
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
        mu[chosen] + deviation * rng.standard_normal((len(chosen), size)),  # the posterior
        mean + away * np.minimum(1, _FURTHEST / np.maximum(distance, 1e-12)),
    ]
    return np.concatenate(parts).astype(np.float32)


def _in_batches(function: Callable[..., Any], inputs: npt.NDArray[Any]) -> tuple[Float32s, ...]:
    """Return the outputs for latents, or for luma: the reconstruction from mu, mu and log_var."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(inputs), BATCH_SIZE):
            rows = inputs[start : start + BATCH_SIZE]
            batch = input_from_pixels(rows) if rows.dtype == np.uint8 else rows
            parts.append([tensor.numpy() for tensor in function(torch.from_numpy(batch))])
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _with_object(image: Luma, still: npt.NDArray[np.bool_], value: np.uint8) -> Luma:
    """Return the image with a square where most pixels never change."""
    side = len(image)
    edge = side // 4
    sums = np.pad(still.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[edge:, edge:] - sums[:-edge, edge:] - sums[edge:, :-edge] + sums[:-edge, :-edge]
    row, column = np.unravel_index(np.argmax(inside), inside.shape)
    changed: Luma = image.copy()
    changed[row : row + edge, column : column + edge] = value
    return changed
