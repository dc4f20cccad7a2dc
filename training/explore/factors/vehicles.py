"""Which images of a model are built-in vehicles, whose factors are known."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..options import ModelOptions
from ..subject import Subject
from .labels import Factor, vehicle_factors

VEHICLES = "vehicles"
_NAME = re.compile(r"vehicle-(\d{6,9})")
_SEED_OF_WORD = 0


def seed_of_vehicles(subject: Subject, options: ModelOptions) -> int | None:
    """Return the seed of the built-in vehicles that a model's images are, or None."""
    if options.images is not None:
        return _SEED_OF_WORD if options.images == VEHICLES else None
    config = subject.run_config
    if config is None or config.options.data != VEHICLES:
        return None
    is_named = all(map(_NAME.fullmatch, subject.held_out().names))
    return config.options.seed if is_named else None


def factors_of_vehicles(names: Sequence[str], seed: int) -> list[Factor]:
    """Return the factors of vehicles by their names, `vehicle-000012` and the like."""
    rows = [int(found[1]) for name in names if (found := _NAME.fullmatch(name))]
    return vehicle_factors(seed, rows)
