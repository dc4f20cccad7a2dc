"""Recipes: named defaults of `motorvae-train`, and the one table that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...runtime.core.errors import ConfigError
from ..options import Recipe, TrainOptions

RECIPES: Mapping[Recipe, Mapping[str, Any]] = {
    "card": {},
    # Found by experiment on two cores: docs/training.md, "What makes a good model soonest".
    "fast": {
        "batch_size": 8,
        "optimizer": "muon",
        "learning_rate": 0.05,
        "lr_schedule": "cosine",
        "warmup": 0.05,
        "weight_decay": 0.1,
        "betas": (0.05, 0.05),
        "start_log_var": -4.0,
        "start_at_mean": True,
    },
    # motorVAEGAN.py of the original project, April 2025: one Adam at 1e-4 for 100 epochs, the KL
    # weight 0.01 in the first 28 and then along a line to --max_kld_weight, 0.5 by default, batches
    # of 128. Its adversarial loss is not part of this schedule.
    "original-linear-kl": {
        "lr_schedule": "constant",
        "batch_size": 128,
        "epochs": (50, 50),
        "betas": (0.01, 0.5),
        "kl_schedule": "linear",
        "kl_span": (0.28, 1.0),
    },
}
"""What each recipe has for default in place of `TrainOptions`' own."""


def options_of_recipe(recipe: Recipe, **given: Any) -> TrainOptions:
    """Return the options that a recipe stands for; what is `given` by name wins.

    `TrainOptions(recipe=...)` alone would only write the name down, and is refused by `train`.
    """
    return replace(TrainOptions(), **{"recipe": recipe, **RECIPES[recipe], **given})


def check_recipe(options: TrainOptions) -> None:
    """Raise ConfigError where options name a recipe and have nothing of it."""
    recipe, plain = RECIPES[options.recipe], TrainOptions()
    if recipe and all(getattr(options, name) == getattr(plain, name) for name in recipe):
        raise ConfigError(
            f"recipe={options.recipe!r}: these options have none of its values: make them with "
            f"options_of_recipe({options.recipe!r}), or leave recipe out"
        )
