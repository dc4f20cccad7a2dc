"""How well each statistic tells known images from others: AUROC, as JSON and table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from rich import box
from rich.console import Console
from rich.table import Table

from ...export.ood.capability import auroc
from ...runtime.core.atomic_files import replaced_file
from ...runtime.core.documents import document_from_json
from ...runtime.core.errors import MeasurementError
from ...runtime.core.spec import ModelSpec, StrictModel
from ...runtime.ood.detector import OODDetector, Statistic
from ..measure.environment import Environment

SCHEMA_VERSION: Literal[2] = 2

Float64s = npt.NDArray[np.float64]

HEADINGS: dict[Statistic, str] = {  # the KL, which tells least, is in the JSON alone
    "appearance": "look",
    "mahalanobis": "Mahal.",
    "log_var_distance": "log_var",
    "reconstruction_error": "error",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """What the runtime says of N images.

    Attributes:
        values: Statistic to its value of each image, (N,) float64.
        scores: `ood_score` of each, (N,) float64.
        is_ood: (N,) bool.
    """

    values: dict[Statistic, npt.NDArray[np.float64]]
    scores: npt.NDArray[np.float64]
    is_ood: npt.NDArray[np.bool_]


class Separation(StrictModel):
    """One statistic over the images of one kind.

    Attributes:
        auroc: The share of pairs of a known image and one of these in which this one's value is
            the larger; a tie counts half. 1 separates perfectly, 0.5 not at all, and below 0.5
            these images look more known than known ones. None for the known images themselves.
        two_sided: The same of how far a value is from the known images' median, in ranks: of a
            test that suspects the least values, too.
        flagged: The share of these images past the limit.
    """

    auroc: float | None = Field(ge=0, le=1)
    two_sided: float | None = Field(ge=0, le=1)
    flagged: float = Field(ge=0, le=1)


class Kind(StrictModel):
    """Images of one kind.

    Attributes:
        name: What they are.
        known: Whether the model is to know them.
        images: How many there were.
        statistics: By name of a statistic.
        is_ood: Of `ood_score`, and the share that is is_ood.
    """

    name: str
    known: bool
    images: int = Field(ge=1)
    statistics: dict[Statistic, Separation]
    is_ood: Separation


class SeparationResult(StrictModel):
    """Everything that the benchmark's JSON holds.

    Attributes:
        reference: The kind of known images that the AUROC of the others is against.
        yardstick_images: Held-out images behind the bundle's percentiles.
        effective_images: How many independent ones tell as much.
        false_alarms: The share of known images that the bundle announces as flagged, at most.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    created: str
    environment: Environment
    model: ModelSpec
    weights_sha256: str
    backend: str
    seed: int
    ood_above: float
    yardstick_images: int
    effective_images: float
    false_alarms: float
    reference: str
    kinds: tuple[Kind, ...]


def kind_of_images(
    name: str,
    judged: Judged,
    *,
    reference: Judged | None,
    known: bool,
    detector: OODDetector,
) -> Kind:
    """Return what was found of the images of one kind.

    Args:
        name: Of the kind.
        judged: Its images.
        reference: The known images; None for these themselves.
        known: Whether the model is to know this kind.
        detector: Gives the limits.
    """

    def separation(
        known_values: Float64s | None, values: Float64s, flagged: npt.NDArray[np.bool_]
    ) -> Separation:
        area = both = None
        if known_values is not None:
            area = auroc(known_values, values)
            both = auroc(*(_from_median(known_values, some) for some in (known_values, values)))
        return Separation(auroc=area, two_sided=both, flagged=float(flagged.mean()))

    statistics: dict[Statistic, Separation] = {}
    for statistic, values in judged.values.items():
        beyond = np.array([detector.is_beyond(statistic, value) for value in values])
        known_values = None if reference is None else reference.values[statistic]
        statistics[statistic] = separation(known_values, values, beyond)
    return Kind(
        name=name,
        known=known,
        images=len(judged.is_ood),
        statistics=statistics,
        is_ood=separation(
            None if reference is None else reference.scores, judged.scores, judged.is_ood
        ),
    )


def _from_median(known: Float64s, values: Float64s) -> Float64s:
    """Return how far values (N,) are from the middle of the known ones, in shares of these."""
    ordered = np.sort(known)
    ranks = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    away: Float64s = np.abs(ranks / (2 * len(known)) - 0.5)
    return away


def save_separation(path: Path, result: SeparationResult) -> None:
    """Write a result, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with replaced_file(path) as temporary:
        temporary.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load_separation(path: Path) -> SeparationResult:
    """Read a result.

    Raises:
        MeasurementError: It is missing, not JSON, of another schema version, or does not fit.
    """
    return document_from_json(
        path,
        SeparationResult,
        version=SCHEMA_VERSION,
        error=MeasurementError,
        again="run the benchmark again",
    )


def print_separation(console: Console, result: SeparationResult) -> None:
    """Print for each kind AUROC and flagged share by each statistic, and by `is_ood`."""
    console.print(
        f"weights {result.weights_sha256[:8]}, {result.backend}; AUROC against "
        f"{result.reference}; flagged past {result.ood_above:g} %, by "
        f"{result.yardstick_images} held-out images worth {result.effective_images:.0f}; "
        f"announced: at most {_share(result.false_alarms)} of known images"
    )
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("images", overflow="fold", min_width=15)
    # A figure that lost its last digits would be another figure; a name may be folded.
    for heading in ("n", *HEADINGS.values(), "is_ood"):
        table.add_column(heading, justify="right", no_wrap=True)
    was_known = True
    for kind in result.kinds:
        if was_known and not kind.known:
            table.add_section()
        was_known = kind.known
        cells = [_cell(kind.statistics[name]) for name in HEADINGS]
        table.add_row(kind.name, str(kind.images), *cells, _cell(kind.is_ood))
    console.print(table)


def _cell(found: Separation) -> str:
    area = "" if found.auroc is None else f"{found.auroc:.3f} "
    return f"{area}{_share(found.flagged):>5}"


def _share(share: float) -> str:
    percent = 100 * share
    return f"{percent:.2g}%" if percent < 99.5 else "100%" if share == 1 else f"{percent:.1f}%"
