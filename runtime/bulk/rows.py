"""Rows: what is known of consecutive items of a data set, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .item import UNREAD

Floats = npt.NDArray[np.float32]

TEXTS = ("names", "sha256", "reasons")
NUMBERS: dict[str, str] = {"height": "<i4", "width": "<i4", "ood_score": "<f4", "is_ood": "<i1"}
"""Columns of one number for each item: 0, NaN and -1 where it is not known."""
UNKNOWN: dict[str, float] = {"height": 0, "width": 0, "ood_score": np.nan, "is_ood": -1}


@dataclass(frozen=True, slots=True)
class Rows:
    """N consecutive items of a data set, in its order, those that did not decode among them.

    Attributes:
        texts: `names`; `sha256` of each file's bytes, empty for frames of videos; `reasons`, why
            an item has no latent, empty where it has one.
        numbers: (N,) each: `height` and `width` in pixels, `ood_score` and `is_ood`.
        latents: (N, D) float32 each: `mu`, and `log_var` where the encoder gives it; NaN where
            there is none.
        remarks: What to know of pictures that were taken all the same: name and clause.
    """

    texts: dict[str, list[str]]
    numbers: dict[str, npt.NDArray[Any]]
    latents: dict[str, Floats]
    remarks: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.texts["reasons"])

    @property
    def is_ok(self) -> npt.NDArray[np.bool_]:
        """Which of the items have a latent, (N,)."""
        return np.array([not reason for reason in self.texts["reasons"]], bool)

    @property
    def unread(self) -> list[int]:
        """Which of the items could not be read, which another try may change."""
        return [row for row, one in enumerate(self.texts["reasons"]) if one.startswith(UNREAD)]

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Name and reason of each item without a latent."""
        pairs = zip(self.texts["names"], self.texts["reasons"], strict=True)
        return [(name, reason) for name, reason in pairs if reason]


def joined(parts: Sequence[Rows]) -> Rows:
    """Put rows that follow each other together; there is at least one."""
    return Rows(
        {name: [text for part in parts for text in part.texts[name]] for name in TEXTS},
        {name: np.concatenate([part.numbers[name] for part in parts]) for name in NUMBERS},
        {name: np.concatenate([part.latents[name] for part in parts]) for name in parts[0].latents},
        tuple(remark for part in parts for remark in part.remarks),
    )


def taken(rows: Rows, at: Sequence[int]) -> Rows:
    """Return the rows at some places."""
    return Rows(
        {name: [column[row] for row in at] for name, column in rows.texts.items()},
        {name: column[list(at)] for name, column in rows.numbers.items()},
        {name: column[list(at)] for name, column in rows.latents.items()},
    )


def replaced(rows: Rows, at: Sequence[int], others: Rows) -> Rows:
    """Return rows with those at some places replaced by as many others."""
    texts = {name: list(column) for name, column in rows.texts.items()}
    numbers = {name: column.copy() for name, column in rows.numbers.items()}
    latents = {name: column.copy() for name, column in rows.latents.items()}
    for name, column in texts.items():
        for place, text in zip(at, others.texts[name], strict=True):
            column[place] = text
    for name, values in (*numbers.items(), *latents.items()):
        values[list(at)] = {**others.numbers, **others.latents}[name]
    return Rows(texts, numbers, latents, (*rows.remarks, *others.remarks))
