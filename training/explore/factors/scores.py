"""Scores: how one model's latents hold each factor of some images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .dci import DCI, Trees, completeness_of, dci_of, trees_of
from .labels import Factor
from .mutual_information import information_gap, normalised_information
from .probes import linear_probe, split_of
from .rate import Spending

MOST_LATENTS = 512
"""Of more, trees would take hours: DCI is left out."""

Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FactorScore:
    """How one factor is held; `trees` and `completeness` are None where DCI is left out."""

    name: str
    is_categorical: bool
    images: int  # with a known value
    probe: float  # linear, held out: R2, or accuracy
    chance: float  # of that score
    gap: float  # of normalised mutual information between the two best latents
    trees: float | None  # held out: R2, or accuracy
    completeness: float | None


@dataclass(frozen=True, slots=True)
class Scores:
    """How a model's latents hold K factors."""

    model: str
    factors: tuple[FactorScore, ...]
    mig: float
    dci: DCI | None
    latents: int
    spending: Spending
    information: Float64s = field(repr=False)  # (D, K), I(z; v) / H(v)
    importance: Float64s | None = field(repr=False)  # (D, K), of the trees

    def numbers(self) -> dict[str, Any]:
        """Return all of it for JSON but the matrices."""
        dci = self.dci
        return {
            "model": self.model,
            "mig": self.mig,
            "disentanglement": None if dci is None else dci.disentanglement,
            "completeness": None if dci is None else dci.completeness,
            "informativeness": None if dci is None else dci.informativeness,
            "active_units": self.spending.active_units,
            "latents": self.latents,
            "rate_nats": self.spending.rate_nats,
            "distortion": self.spending.distortion,
            "factors": [asdict(one) for one in self.factors],
        }


def scores_of(
    model: str,
    mu: npt.NDArray[np.float32],
    factors: Sequence[Factor],
    spending: Spending,
    *,
    seed: int,
    step: Callable[[str], object],
) -> Scores:
    """Measure latents (N, D) against factors, each of which is `measurable`."""
    latents = mu.astype(np.float64)
    with_trees = latents.shape[1] <= MOST_LATENTS
    rows: list[FactorScore] = []
    information, importance = [], []
    for factor in factors:
        step(f"{model}: {factor.name}")
        split = split_of(factor, seed=seed)
        probe = linear_probe(latents, factor, split)
        shares = normalised_information(latents, factor)
        trees: Trees | None = None
        if with_trees:
            trees = trees_of(latents, factor, split, seed=seed)
            importance.append(trees.importance)
        information.append(shares)
        alone = math.nan if trees is None else completeness_of(trees.importance[:, None])[0]
        rows.append(
            FactorScore(
                name=factor.name,
                is_categorical=bool(factor.classes),
                images=int(factor.known.sum()),
                probe=probe.score,
                chance=probe.chance,
                gap=information_gap(shares),
                trees=None if trees is None else trees.score,
                completeness=None if trees is None else float(alone),
            )
        )
    held = np.stack(importance, axis=1) if importance else None
    return Scores(
        model=model,
        factors=tuple(rows),
        mig=float(np.mean([row.gap for row in rows])),
        dci=None if held is None else dci_of(held, np.array([row.trees for row in rows])),
        latents=latents.shape[1],
        spending=spending,
        information=np.stack(information, axis=1),
        importance=held,
    )
