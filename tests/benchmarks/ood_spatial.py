"""The table of docs/ood.md for spatial latents: which statistic of them separates what.

For each set of images two encoders with latents of C maps are judged: one with random weights, and
one trained on the set for a few hundred steps:

    python tests/benchmarks/ood_spatial.py [--steps N] [--only NAME] NAME=KNOWN,FRESH ...

KNOWN and FRESH are folders or videos, or `vehicles`. The Markdown goes to standard output: the
AUROC of each statistic for each kind, and the share of it that `is_ood` flags by appearance alone
and with that statistic.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from motorvae.benchmarks.under_test.scenes import images_from_source, vehicles
from motorvae.export.ood import altered_images, auroc, made_images
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.ood.appearance import Appearance
from motorvae.runtime.ood.detector import ALARM_SHARES, shrunk
from motorvae.runtime.ood.features import features_of
from motorvae.runtime.ood.tail import Tail
from motorvae.runtime.pixels.convert import input_from_pixels
from motorvae.training.dataset import DataSet
from motorvae.training.latent_statistics import (
    QUANTILE_LEVELS,
    appearance_statistics,
    effective_count,
    mahalanobis,
    mean_excess,
    shrinkage_of,
)

SIDE, MAPS, CELLS = 64, 4, 8
SPEC = ModelSpec(
    image_size=SIDE,
    color="rgb",
    channels=None,
    latent_size=MAPS * CELLS**2,
    latent_shape=(MAPS, CELLS, CELLS),
)
TRAIN, HELD_OUT, FRESH, OTHERS = 700, 200, 300, 100
ALLOWED = 0.001

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


class Encoder(nn.Module):
    """Three convolutions of stride 2, and one more to the maps of mu and log_var."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for width_in, width in ((3, 16), (16, 32), (32, 32)):
            blocks += [nn.Conv2d(width_in, width, 3, 2, 1), nn.GroupNorm(4, width), nn.SiLU()]
        self.maps = nn.Sequential(*blocks, nn.Conv2d(32, 2 * MAPS, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mu, log_var = self.maps(images).chunk(2, 1)
        return mu, log_var.clamp(-10, 10)


class Decoder(nn.Sequential):
    def __init__(self) -> None:
        blocks: list[nn.Module] = []
        for width_in, width in ((MAPS, 32), (32, 32), (32, 16)):
            blocks += [nn.Conv2d(width_in, width, 3, 1, 1), nn.SiLU(), nn.Upsample(scale_factor=2)]
        super().__init__(*blocks, nn.Conv2d(16, 3, 3, 1, 1), nn.Sigmoid())


def trained(encoder: Encoder, images: Pixels, steps: int) -> None:
    decoder, rng = Decoder(), np.random.default_rng(0)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    adam = torch.optim.Adam(parameters, 2e-3)
    for _ in range(steps):
        rows = rng.integers(0, len(images), 32)
        batch = torch.from_numpy(input_from_pixels(images[rows]))
        mu, log_var = encoder(batch)
        z = mu + torch.randn_like(mu) * torch.exp(log_var / 2)
        error = (decoder(z) - batch).square().sum((1, 2, 3)).mean()
        kl = 0.5 * (mu.square() + torch.expm1(log_var) - log_var).sum((1, 2, 3)).mean()
        adam.zero_grad()
        (error + 0.01 * kl).backward()
        adam.step()
    print(f"error of a pixel {float(error.detach()) / (3 * SIDE**2):.4f}", file=sys.stderr)


@torch.inference_mode()
def latents_of(encoder: Encoder, images: Pixels) -> Floats:
    parts = [
        encoder(torch.from_numpy(input_from_pixels(images[start : start + 64])))[0]
        for start in range(0, len(images), 64)
    ]
    return torch.cat(parts).flatten(1).numpy().astype(np.float64)


def means(mu: Floats) -> Floats:
    return mu.reshape(len(mu), MAPS, -1).mean(2)


def deviations(mu: Floats) -> Floats:
    return np.asarray(np.log(mu.reshape(len(mu), MAPS, -1).std(2) + 1e-6))


FEATURES: dict[str, Callable[[Floats], Floats]] = {
    "quarters' means, log deviations": lambda mu: features_of(mu, SPEC),
    "means, log deviations": lambda mu: np.concatenate([means(mu), deviations(mu)], axis=1),
    "means": means,
    "log deviations": deviations,
    "all": lambda mu: mu,
}


def limit_of(values: Floats, share: float) -> float:
    tail = Tail(
        np.array(QUANTILE_LEVELS),
        np.quantile(values, QUANTILE_LEVELS),
        mean_excess=mean_excess(values),
        effective_images=effective_count(values),
    )
    return tail.limit(1 - share * ALLOWED)


Distance = Callable[[Pixels], Floats]


def appearance_distance(data: DataSet) -> tuple[Distance, Callable[[float], float]]:
    found = appearance_statistics(data)
    look = Appearance(SIDE, SIDE, "rgb")

    def distance(images: Pixels) -> Floats:
        looks = np.stack([look.measure(image).copy() for image in images])
        away = (looks - found["appearance_mean"]) / found["appearance_deviation"]
        gaps = away[:, None] - found["appearance_references"].astype(np.float64)
        return np.asarray(np.linalg.norm(gaps, axis=2).min(1))

    tail = Tail(
        np.array(QUANTILE_LEVELS),
        np.asarray(found["appearance_quantiles"], np.float64),
        mean_excess=float(found["appearance_excess"]),
        effective_images=float(found["appearance_effective_count"]),
    )
    return distance, lambda share: tail.limit(1 - share * ALLOWED)


def latent_distance(
    encoder: Encoder, features: Callable[[Floats], Floats], data: DataSet
) -> tuple[Distance, Callable[[float], float]]:
    train = features(latents_of(encoder, data.images[data.train]))
    covariance = np.cov(train, rowvar=False, bias=True)
    covariance = shrunk(covariance, shrinkage_of(train))
    ridge = 1e-6 * float(np.diag(covariance).mean())

    def distance(images: Pixels) -> Floats:
        away = features(latents_of(encoder, images))
        return mahalanobis(away, train.mean(0), covariance, ridge)

    known = distance(data.images[np.sort(data.held_out)])
    return distance, lambda share: limit_of(known, share)


def pictures(source: str, count: int, seed: int) -> Pixels:
    if source == "vehicles":
        return vehicles(seed, count, SPEC)
    return images_from_source(source, count, SPEC)


def rows_of(name: str, sets: dict[str, tuple[str, str]], steps: int) -> Iterator[str]:
    known, fresh_source = sets[name]
    images = pictures(known, TRAIN + HELD_OUT, 1)
    every = np.arange(len(images))
    held_out = every[every // 10 % 5 == 3]  # stretches, as of a video
    train = np.setdiff1d(every, held_out)
    data = DataSet(images, [""] * len(images), train, held_out, 0, "rgb")
    fresh = pictures(fresh_source, FRESH, 2)
    kinds = altered_images(fresh[:OTHERS], 3) | made_images(3, OTHERS, SPEC.picture_shape)
    for other, (_, source) in sets.items():
        if other != name:
            kinds[other] = pictures(source, OTHERS, 4)
    look, look_limit = appearance_distance(data)
    looks = {kind: look(some) for kind, some in kinds.items()}
    fresh_looks = look(fresh)
    share = ALARM_SHARES["appearance"]
    alone = {kind: float((one > look_limit(1)).mean()) for kind, one in looks.items()}
    area = {kind: auroc(fresh_looks, one) for kind, one in looks.items()}
    false = (fresh_looks > look_limit(1)).mean()
    yield f"| {name} | appearance | {cells(area, alone)} | {false:.3f} |"
    for subject in ("random", "trained"):
        torch.manual_seed(0)
        encoder = Encoder().eval()
        if subject == "trained":
            trained(encoder, images[train], steps)
        for title, features in FEATURES.items():
            distance, limit = latent_distance(encoder, features, data)
            fresh_values = distance(fresh)
            values = {kind: distance(some) for kind, some in kinds.items()}
            area = {kind: auroc(fresh_values, one) for kind, one in values.items()}
            flagged = {
                kind: float(((one > limit(1 - share)) | (looks[kind] > look_limit(share))).mean())
                for kind, one in values.items()
            }
            false = (fresh_values > limit(1 - share)) | (fresh_looks > look_limit(share))
            yield f"| {name} | {subject}: {title} | {cells(area, flagged)} | {false.mean():.3f} |"


def cells(area: dict[str, float], flagged: dict[str, float]) -> str:
    return " | ".join(
        f"{kind}: {found:.3f}, {100 * flagged[kind]:.0f} %" for kind, found in area.items()
    )


def main(words: list[str]) -> None:
    steps = 300
    if words[0] == "--steps":
        steps, words = int(words[1]), words[2:]
    only = None
    if words[0] == "--only":
        only, words = words[1], words[2:]
    sets: dict[str, tuple[str, str]] = {}
    for word in words:
        name, _, both = word.partition("=")
        known, _, fresh = both.partition(",")
        sets[name] = known, fresh
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name in sets if only is None else [only]:
        for row in rows_of(name, sets, steps):
            print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
