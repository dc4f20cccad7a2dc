"""What docs/gallery.md says of each verb of motorvae explore, by the figures that it left."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import motorvae.training.pretrained
from motorvae.training.checkpoint import config_from_run
from motorvae.training.explore.subject import Subject

SHIPPED = Path(motorvae.training.pretrained.__file__).parent / "vehicles"

Numbers = dict[str, Any]


def introduction(subject: Subject) -> str:
    """Say which model it is."""
    spec, config = subject.spec, subject.run_config
    color = "greyscale" if spec.color == "grey" else "colour"
    channels = "" if spec.channels is None else f", channels {', '.join(map(str, spec.channels))}"
    text = (
        "Every verb of [motorvae explore](explore.md) on one model: "
        f"{spec.height} x {spec.width} {color} images, {spec.latent_size} latents{channels}. "
    )
    if config is not None:
        shipped = config_from_run(SHIPPED)
        if config.started == shipped.started:
            text += (
                "It is the one that comes with motorVAE, before its weights were rounded for that: "
                "`motorvae-train --pretrained vehicles` goes on training from it. "
            )
        text += (
            f"It was trained on {config.data.train:,} built-in vehicles by\n\n"
            f"```sh\n{training_command(config.options)}\n```\n\n"
        )
    return text + "The figures are those of the JSON files that the verbs leave. Made by"


def training_command(options: Any) -> str:
    """Return what a run was trained with, as far as it is not the default."""
    words = ["motorvae-train", Path(options.data).name]
    for one in dataclasses.fields(options):
        value = getattr(options, one.name)
        default = one.default
        if one.default_factory is not dataclasses.MISSING:
            default = one.default_factory()
        if one.name in {"data", "output", "name", "resume", "finish"} or value in (default, None):
            continue
        flag = f"--{one.name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)


def own_command(options: argparse.Namespace) -> str:
    """Return how this script was called; of absolute paths the name."""

    def named(path: Path, folder: str) -> str:
        return (Path(folder) / path.name if path.is_absolute() else path).as_posix()

    words = ["python", "docs/tools/gallery.py", named(options.model, "runs"), "docs"]
    words += ["--other", named(options.other, "runs")] if options.other else []
    words += ["--count", str(options.count)] if options.count != 1000 else []
    return shlex.join([*words, *(["--method", options.method] if options.method else [])])


def reconstructions(n: Numbers) -> str:
    """Originals over reconstructions."""
    worst = n["squared_error_quantiles"]["1"]
    return (
        f"Originals over reconstructions: the best, the median and the worst of {n['source']}. "
        f"Mean squared error {n['mean_squared_error']:.5f} of pixels in 0 to 1, of the worst "
        f"{worst:.5f}; mean PSNR {n['psnr_db']:.1f} dB."
    )


def samples(n: Numbers) -> str:
    """Prior, mixture and held-out images."""
    sets, mixture = n["sets"], n["mixture"]
    far = {name: one["mahalanobis_median"] for name, one in sets.items()}
    gaussians = "Gaussian" if mixture["components"] == 1 else "Gaussians"
    text = (
        f"Samples of the prior, of a mixture fitted to {mixture['fitted_to']} "
        f"({mixture['components']} {gaussians}, {mixture['covariance']} covariance), and held-out "
        "images reconstructed. "
    )
    if None not in far.values():
        text += (
            f"Encoded again, the prior's are at a Mahalanobis distance of {far['prior']:.1f} from "
            f"the training latents (median), the mixture's at {far['mixture']:.1f}, held-out "
            f"images at {far['held_out']:.1f}; "
        )
    variances = [f"{sets[name]['pixel_variance']:.4f}" for name in ("prior", "mixture", "held_out")]
    return text + f"a pixel's variance over each set is {', '.join(variances)}."


def traversals(n: Numbers) -> str:
    """Dimensions ranked by what they do."""
    first = n["ranking"][0]
    total = n["informative"] + n["collapsed"]
    share = sum(one["pixel_variance"] for one in n["ranking"][:10])
    share /= sum(one["pixel_variance"] for one in n["ranking"])
    return (
        f"One latent of a car moves from -3 to +3 standard deviations: {n['informative']} of "
        f"{total} dimensions are informative, {n['collapsed']} collapsed. Dimension "
        f"{first['dimension']} does most (pixel variance {first['pixel_variance']:.4f}); the first "
        f"ten make {share:.0%} of the pixel variance of all. Animation and sheets have the first "
        "four; `traversals.png` has all, ranked."
    )


def interpolate(n: Numbers) -> str:
    """From one image to another."""
    uneven = n["largest_change_over_mean"]
    return (
        f"Their latents are {n['angle_degrees']:.0f} degrees apart, seen from the origin; on the "
        f"straight line between them the largest step changes {uneven:.2f} times as much as the "
        "mean one."
    )


def arithmetic(n: Numbers, words: str) -> str:
    """A van is changed by the difference of two cars."""
    is_it = "is nearer to that" if n["of_sum"] < n["of_unchanged"] else "is no nearer to that"
    return (
        f"A van, plus a car {words}, minus the same car as it was, should be a van {words}. The "
        f"sum {is_it} than the van as it was: its squared error from the true picture is "
        f"{n['of_sum']:.5f}, that of the unchanged van's reconstruction {n['of_unchanged']:.5f}, "
        f"and that of the best there is, the true picture's own reconstruction, "
        f"{n['of_reconstruction']:.5f}."
    )


def average(n: Numbers) -> str:
    """A mean of latents beside a mean of pixels."""
    sharp = n["sharpness"]
    return (
        f"The mean latent of the {n['images']} vans nearest to the middle, decoded, beside the "
        "mean of their pixels. Sharpness, the mean difference of neighbouring pixels: "
        f"{sharp['decoded']:.4f} and {sharp['pixels']:.4f}."
    )


def history(n: Numbers) -> str:
    """A run through its epochs."""
    (run,) = n["runs"]
    best = run["best"]
    return (
        f"The same held-out images through {run['epochs']} epochs, {run['steps']:,.0f} steps in "
        f"{run['seconds'] / 60:.0f} min. The best epoch is {best['best_epoch']:.0f}: held-out "
        f"squared error {best['held_out_reconstruction']:.1f}, summed over pixels, and a KL of "
        f"{best['held_out_kl']:,.0f} nats."
    )


def runs(n: Numbers) -> str:
    """Two runs."""
    texts = [
        f"{run['name']} comes to a held-out squared error of "
        f"{run['best']['held_out_reconstruction']:.1f} in {run['seconds'] / 60:.0f} min"
        for run in n["runs"]
    ]
    return "; ".join(texts) + ". Axes of error and KL are logarithmic."


def neighbours(n: Numbers) -> str:
    """Nearest images."""
    found = n["neighbours"]
    text = (
        f"What is nearest to a pickup that faces left, among {n['among']}. The first is at "
        f"{found[0]['distance']:.1f}, where images are {n['median_distance_from_the_middle']:.1f} "
        "from the middle (median)."
    )
    if "body" in n:
        text += (
            f" Of {len(found)}, {n['body']} are pickups and {n['heading']} face left, too, where "
            "chance would have a quarter and a half of them."
        )
    return text


def latent_map(n: Numbers) -> str:
    """A projection, and how far it keeps bodies apart."""
    points = np.array([(one["x"], one["y"]) for one in n["points"]])
    labels = np.array([one["label"] for one in n["points"]])
    away = np.square(points[:, None] - points[None]).sum(-1)
    np.fill_diagonal(away, math.inf)
    same = float((labels[away.argmin(1)] == labels).mean())
    method = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}[n["method"]]
    return (
        f"{n['images']} images in the plane by {method}, coloured by their body, which training "
        f"was not told. For {same:.0%} of them the nearest on the map has the same body. The page "
        f"beside it, `map.html` ({n['page_bytes'] / 1e6:.1f} MB), shows each picture under the "
        "pointer."
    )


def factors(n: Numbers) -> str:
    """Two tables: of factors, and of models."""

    def cells(values: Sequence[Any]) -> str:
        texts = [
            one if isinstance(one, str) else "-" if one is None else f"{one:.2f}" for one in values
        ]
        return f"| {' | '.join(texts)} |\n"

    models = n["models"]
    text = (
        f"How well the latents hold what is known of {n['source']}: a linear probe and boosted "
        "trees (accuracy, or R2), what chance would have, and the gap of mutual information that "
        "MIG averages. Definitions are on [the page of the verbs](explore.md).\n\n"
    )
    for model in models:
        text += f"{model['model']}: rate {model['rate_nats']:.0f} nats, distortion "
        text += f"{model['distortion']:.0f}, {model['active_units']} of {model['latents']} units "
        text += "active.\n\n"
        text += "| factor | score | linear | chance | trees | gap |\n|" + " --- |" * 6 + "\n"
        for one in model["factors"]:
            score = "accuracy" if one["is_categorical"] else "R2"
            values = [one[name] for name in ("probe", "chance", "trees", "gap")]
            text += cells([one["name"], score, *values])
        text += "\n| MIG | DCI disentanglement | completeness | informativeness |\n"
        text += "|" + " --- |" * 4 + "\n"
        names = ("mig", "disentanglement", "completeness", "informativeness")
        text += cells([model[name] for name in names]) + "\n"
    return text.rstrip()
