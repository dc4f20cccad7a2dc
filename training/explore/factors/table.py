"""Scores as a table for a terminal, those of two models side by side."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

from rich.table import Table

from ....runtime.core.command import PlainConsole
from .scores import FactorScore, Scores

_WIDTH = 78
_OF_A_FACTOR: dict[str, Callable[[FactorScore], float | None]] = {
    "linear": lambda score: score.probe,
    "chance": lambda score: score.chance,
    "trees": lambda score: score.trees,
    "gap": lambda score: score.gap,
}
_OF_A_MODEL: dict[str, Callable[[Scores], float | int | None]] = {
    "MIG": lambda scores: scores.mig,
    "DCI disentanglement": lambda scores: scores.dci and scores.dci.disentanglement,
    "DCI completeness": lambda scores: scores.dci and scores.dci.completeness,
    "DCI informativeness": lambda scores: scores.dci and scores.dci.informativeness,
    "active units": lambda scores: scores.spending.active_units,
    "of": lambda scores: scores.latents,
    "rate, nats": lambda scores: scores.spending.rate_nats,
    "distortion": lambda scores: scores.spending.distortion,
}


def lines_of(every: Sequence[Scores]) -> list[str]:
    """Return two tables, 80 columns wide at most: of each factor, and of the whole."""
    factors = Table(box=None, pad_edge=False)
    factors.add_column("factor", overflow="fold")
    factors.add_column("score")
    for scores in every:
        for number, title in enumerate(_OF_A_FACTOR):
            above = f"{scores.model[:18]}\n" if len(every) > 1 and not number else "\n"
            factors.add_column(above * (len(every) > 1) + title, justify="right")
    for rows in zip(*(scores.factors for scores in every), strict=True):
        cells = [_text(value(row)) for row in rows for value in _OF_A_FACTOR.values()]
        factors.add_row(rows[0].name, "accuracy" if rows[0].is_categorical else "R2", *cells)
    whole = Table(box=None, pad_edge=False)
    whole.add_column("over all factors")
    for scores in every:
        whole.add_column(scores.model[:28], justify="right")
    for name, figure in _OF_A_MODEL.items():
        whole.add_row(name, *(_text(figure(scores)) for scores in every))
    return [*_printed(factors), "", *_printed(whole)]


def _text(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def _printed(table: Table) -> list[str]:
    file = io.StringIO()
    PlainConsole(file=file, width=_WIDTH).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]
