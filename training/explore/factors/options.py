"""Options of the verb that measures how latents hold known factors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ....runtime.core.errors import ConfigError
from ..options import ModelArgument, ModelOptions, check_range

MOST_IMAGES = 20_000


@dataclass(frozen=True)
class FactorsOptions(ModelOptions):
    """How well the latents hold known factors: linear probes, MIG, DCI, active units, rate."""

    model: ModelArgument = None
    """A training run or a bundle; by default runs/latest, or else bundle."""
    labels: Path | None = None
    """A CSV file with a header: its first column names the images of --images, or the held-out
    ones, the others are factors; one of numbers is continuous, any other categorical. By default
    the factors are those of built-in vehicles, drawn anew."""
    compare: Path | None = None
    """Another training run or bundle to put beside, measured on the same images."""
    count: int = 2000
    """How many built-in vehicles are drawn."""
    seed: int = 1_000_003
    """Of the vehicles, one that the model was not trained on, and of how they are split."""

    def check(self) -> None:
        """Raise a ConfigError for the first option that is out of range."""
        check_range(self, count=(100, MOST_IMAGES), seed=(0, 2**32 - 1))
        if self.images is not None and self.images != "vehicles" and self.labels is None:
            raise ConfigError(
                f"--images={self.images}: nothing is known of these images, name a CSV file with "
                "--labels"
            )
