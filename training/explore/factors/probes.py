"""Linear probes: how well a linear model tells a factor from latents it was not fitted on.

Alain & Bengio 2016, "Understanding intermediate layers using linear classifier probes".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .labels import Factor

HELD_OUT = 0.25
_RIDGES = np.logspace(-3, 5, 17)
_INVERSE_RIDGES = np.logspace(-3, 2, 6)
_FOLDS = 3
_STEPS = 2000

Float64s = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


class Split(NamedTuple):
    """Rows of the images with a known value: to fit on, and to judge by."""

    train: Rows
    test: Rows


class Probe(NamedTuple):
    """What a linear probe reaches on held-out images."""

    score: float  # R2 of a continuous factor, accuracy of a categorical one
    chance: float  # what knowing nothing gives: 0, or the accuracy of the most frequent class


def split_of(factor: Factor, *, seed: int) -> Split:
    """Hold out a quarter of the images; of a categorical factor, of each class."""
    rows = np.flatnonzero(factor.known)
    train, test = train_test_split(
        rows,
        test_size=HELD_OUT,
        random_state=seed,
        stratify=factor.values[rows] if factor.classes else None,
    )
    return Split(np.sort(train), np.sort(test))


def linear_probe(latents: Float64s, factor: Factor, split: Split) -> Probe:
    """Fit a linear model to one factor by latents (N, D), and score it on the held-out part.

    Ridge regression for a continuous factor, logistic regression for a categorical one, both on
    standardised latents, with the regularisation that cross-validation on the other part chooses.
    """
    fitted_on, judged_by = latents[split.train], latents[split.test]
    values, expected = factor.values[split.train], factor.values[split.test]
    if not factor.classes:
        ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=_RIDGES))
        return Probe(float(ridge.fit(fitted_on, values).score(judged_by, expected)), 0.0)
    logistic = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=_STEPS)),
        {"logisticregression__C": _INVERSE_RIDGES},
        cv=StratifiedKFold(_FOLDS),
    )
    accuracy = float(logistic.fit(fitted_on, values).score(judged_by, expected))
    most_frequent = np.bincount(values.astype(np.int64)).argmax()
    return Probe(accuracy, float((expected == most_frequent).mean()))
