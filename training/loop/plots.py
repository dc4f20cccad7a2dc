"""Results of a run to look at: metrics, originals over reconstructions, loss over the epochs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ...runtime.core.atomic_files import replaced_file
from ...runtime.core.errors import writing_output
from ...runtime.core.spec import Color
from ...runtime.pixels.convert import Pixels, image_from_picture
from .module import EpochRow

SHOWN_IMAGES = 8
_LINES = {"train": ("#1f5f8b", "-"), "held_out": ("#d1731f", "--")}


def save_metrics(folder: Path, history: Sequence[EpochRow]) -> None:
    """Write `metrics.csv` with one row an epoch, from the first on."""
    names = [field.name for field in fields(EpochRow)]
    with (
        replaced_file(folder / "metrics.csv") as path,
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in history)


def save_reconstructions(
    folder: Path, name: str, images: Pixels, reconstruction: Tensor, color: Color
) -> None:
    """Write `reconstructions/NAME`: the first images (N, ...), their reconstructions below."""
    levels = np.clip(np.rint(reconstruction.numpy() * 255), 0, 255).astype(np.uint8)
    rows = [
        np.hstack([_framed(picture, color) for picture in row[:SHOWN_IMAGES]])
        for row in (images, levels.reshape(images.shape))
    ]
    path = folder / "reconstructions" / name
    with writing_output(path):
        path.parent.mkdir(exist_ok=True)
    with replaced_file(path) as temporary:
        imsave(temporary, np.vstack(rows), vmin=0, vmax=255, cmap="gray", format="png")


def _framed(picture: Pixels, color: Color) -> Pixels:
    """Return a picture as matplotlib has images, (H, W) or (H, W, 3) RGB, in a grey frame."""
    image = image_from_picture(picture, color)
    image = image if image.ndim == 2 else image[:, :, ::-1]
    framed = np.full((image.shape[0] + 4, image.shape[1] + 4, *image.shape[2:]), 128, np.uint8)
    framed[2:-2, 2:-2] = image
    return framed


def save_loss(folder: Path, history: Sequence[EpochRow]) -> None:
    """Plot reconstruction and KL into `loss.png`, with the boundary of the stages marked."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    parts = {
        "reconstruction": "squared error per image (sum over pixels)",
        "kl": "KL per image (nats, sum over latents)",
    }
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        axes = figure.subplots(1, 2)
    epochs = [row.epoch for row in history]
    second = [row for row in history if row.stage == 2]
    for plot, (part, label) in zip(axes, parts.items(), strict=True):
        for side, (colour, style) in _LINES.items():
            values = [getattr(row, f"{side}_{part}") for row in history]
            marker = "o" if len(epochs) < 30 else ""
            name = side.replace("_", "-")
            plot.plot(epochs, values, style, color=colour, marker=marker, markersize=3, label=name)
        plot.set_yscale("log")
        plot.set_xlabel("epoch")
        plot.set_title(label, fontsize=10)
        plot.xaxis.set_major_locator(MaxNLocator(integer=True))
        if second and second[0] is not history[0]:
            boundary = second[0].epoch - 0.5
            plot.axvline(boundary, color="0.5", linewidth=1, linestyle=":")
            plot.annotate(
                f" beta = {second[0].beta:g}",
                (boundary, 1),
                xycoords=("data", "axes fraction"),
                va="top",
                fontsize=8,
                color="0.35",
            )
    axes[0].legend(frameon=False)
    with replaced_file(folder / "loss.png") as temporary:
        figure.savefig(temporary, dpi=120, format="png")
