"""Scores as a picture: bars of what linear probes tell, and which latent tells which factor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..figures import literal, png_of_figure
from .scores import Scores

_COLOURS = ("#0072b2", "#e69f00")
_SHOWN = 40
"""Latents in a heat map: those that tell most."""


def figure_of(every: Sequence[Scores]) -> bytes:
    """Draw the scores of one or two models on the same factors, as a PNG file's bytes."""
    names = [score.name for score in every[0].factors]
    height = 1.6 + 0.32 * len(names)
    figure = Figure(figsize=(12, height * (1 + len(every))), layout="constrained")
    FigureCanvasAgg(figure)
    plots = figure.subplots(1 + len(every), 1, squeeze=False)[:, 0]
    places = np.arange(len(names))
    thick = 0.8 / len(every)
    for number, (scores, colour) in enumerate(zip(every, _COLOURS, strict=False)):
        values = [max(score.probe, 0) for score in scores.factors]
        at = places + (number - (len(every) - 1) / 2) * thick
        plots[0].barh(at, values, thick, color=colour, label=literal(scores.model))
        for place, score in zip(at, scores.factors, strict=True):
            plots[0].text(
                max(score.probe, 0) + 0.005, place, f"{score.probe:.2f}", va="center", size=8
            )
    for place, score in zip(places, every[0].factors, strict=True):
        if score.chance:
            plots[0].plot(
                [score.chance] * 2, [place - 0.4, place + 0.4], color="0.2", linewidth=1.5
            )
    kinds = [
        "accuracy" if score.is_categorical else "R\N{SUPERSCRIPT TWO}" for score in every[0].factors
    ]
    labels = [literal(f"{name}, {kind}") for name, kind in zip(names, kinds, strict=True)]
    plots[0].set_yticks(places, labels)
    plots[0].invert_yaxis()
    plots[0].set_xlim(0, 1.05)
    plots[0].set_title("Linear probe on held-out images; the mark is chance", fontsize=11)
    plots[0].spines[["top", "right"]].set_visible(False)
    if len(every) > 1:
        plots[0].legend(frameon=False, loc="lower right")
    shown_of = [
        (scores.information, "normalised mutual information")
        if scores.importance is None
        else (scores.importance, "importance in boosted trees")
        for scores in every
    ]
    # One scale for all models, and as far as it is used: many latents share most factors.
    most = max(float(matrix.max()) for matrix, _ in shown_of)
    for plot, scores, (matrix, what) in zip(plots[1:], every, shown_of, strict=True):
        order = np.argsort(-matrix.max(axis=1), kind="stable")[:_SHOWN]
        # Latents of one factor stand side by side.
        order = order[np.lexsort((-matrix[order].max(1), matrix[order].argmax(1)))]
        shown = plot.imshow(matrix[order].T, aspect="auto", cmap="viridis", vmin=0, vmax=most or 1)
        plot.set_xticks(range(len(order)), [str(row) for row in order], fontsize=7)
        plot.set_yticks(places, list(map(literal, names)))
        plot.set_xlabel("latent")
        some = f", {len(order)} of {len(matrix)} latents" if len(order) < len(matrix) else ""
        plot.set_title(literal(f"{scores.model}: {what}{some}; MIG {scores.mig:.2f}"), fontsize=11)
        figure.colorbar(shown, ax=plot, fraction=0.02, pad=0.01)
    return png_of_figure(figure, dpi=110)
