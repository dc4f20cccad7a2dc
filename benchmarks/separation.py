"""How well each statistic tells known images from foreign ones: AUROC, as JSON and table."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from rich import box
from rich.console import Console
from rich.table import Table

from ..runtime.documents import document_from_json
from ..runtime.errors import MeasurementError
from ..runtime.familiarity import STATISTIC_NAMES, Familiarity, Statistic
from ..runtime.files import replaced_file
from ..runtime.spec import ModelSpec, StrictModel

SCHEMA_VERSION: Literal[1] = 1

Values = dict[Statistic, npt.NDArray[np.float64]]
HEADINGS: dict[Statistic, str] = {
    "kl": "KL",
    "mahalanobis": "Mahalanobis",
    "log_var_distance": "log_var distance",
    "reconstruction_error": "reconstruction",
}


class Separation(StrictModel):
    """One statistic over the images of one kind.

    Attributes:
        values: Of each image.
        auroc: The share of pairs of a known image and one of these in which this one's value is
            the larger; a tie counts half. 1 separates perfectly, 0.5 not at all, and below 0.5
            these images look more known than known ones. None for the known images themselves.
        flagged: The share of these images past the limit.
    """

    values: tuple[float, ...] = Field(min_length=1)
    auroc: float | None = Field(ge=0, le=1)
    flagged: float = Field(ge=0, le=1)


class Kind(StrictModel):
    """Images of one kind.

    Attributes:
        name: What they are.
        known: Whether the model is to know them.
        statistics: By name of a statistic.
        foreign_by_latent: The share that is foreign by its latent alone.
        foreign: The share that is foreign where its reconstruction is looked at too.
    """

    name: str
    known: bool
    statistics: dict[Statistic, Separation]
    foreign_by_latent: float
    foreign: float

    @property
    def images(self) -> int:
        """How many there were."""
        return len(self.statistics["kl"].values)


class SeparationResult(StrictModel):
    """Everything that the benchmark's JSON holds.

    Attributes:
        reference: The kind of known images that the AUROC of the others is against.
        yardstick_images: Held-out images behind the bundle's percentiles.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    created: str
    machine: str
    model: ModelSpec
    weights_sha256: str
    backend: str
    seed: int
    foreign_above: float
    yardstick_images: int
    reference: str
    kinds: tuple[Kind, ...]


def auroc(known: npt.NDArray[np.float64], foreign: npt.NDArray[np.float64]) -> float:
    """Return the area under the ROC curve of telling `foreign` (M,) from `known` (N,).

    By ranks: it is the Mann-Whitney statistic over N M (Hanley & McNeil 1982); ties count half.
    """
    ordered = np.sort(known)
    smaller = np.searchsorted(ordered, foreign, side="left")
    not_larger = np.searchsorted(ordered, foreign, side="right")
    return float((smaller + not_larger).mean() / (2 * len(known)))


def kind_of_values(
    name: str, values: Values, *, reference: Values | None, known: bool, familiarity: Familiarity
) -> Kind:
    """Return what the values of one kind's images say.

    Args:
        name: Of the kind.
        values: Statistic to its values (N,).
        reference: Those of the known images; None for these themselves.
        known: Whether the model is to know this kind.
        familiarity: Gives the limits.
    """
    beyond = {
        statistic: np.array([familiarity.is_beyond(statistic, value) for value in found])
        for statistic, found in values.items()
    }
    by_latent = beyond["mahalanobis"] | beyond["log_var_distance"]
    return Kind(
        name=name,
        known=known,
        statistics={
            statistic: Separation(
                values=tuple(found.tolist()),
                auroc=None if reference is None else auroc(reference[statistic], found),
                flagged=float(beyond[statistic].mean()),
            )
            for statistic, found in values.items()
        },
        foreign_by_latent=float(by_latent.mean()),
        foreign=float((by_latent | beyond["reconstruction_error"]).mean()),
    )


def save_separation(path: Path, result: SeparationResult) -> None:
    """Write a result, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with replaced_file(path) as temporary:
        temporary.write_text(result.model_dump_json() + "\n", encoding="utf-8")


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
    """Print AUROC and flagged share of each kind by each statistic."""
    console.print(
        f"weights {result.weights_sha256[:8]}, {result.backend}; AUROC against "
        f"{result.reference}; flagged past {result.foreign_above:g} % of "
        f"{result.yardstick_images} held-out images"
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("images", overflow="fold")
    table.add_column("count", justify="right")
    for name in STATISTIC_NAMES:
        table.add_column(HEADINGS[name], justify="right", overflow="fold")
    table.add_column("foreign by latent", justify="right", overflow="fold")
    table.add_column("and error", justify="right", overflow="fold")
    was_known = True
    for kind in result.kinds:
        if was_known and not kind.known:
            table.add_section()
        was_known = kind.known
        cells = [_cell(kind.statistics[name]) for name in STATISTIC_NAMES]
        shares = (_share(kind.foreign_by_latent), _share(kind.foreign))
        table.add_row(kind.name, str(kind.images), *cells, *shares)
    console.print(table)


def _cell(found: Separation) -> str:
    area = "" if found.auroc is None else f"{found.auroc:.3f} "
    return f"{area}{_share(found.flagged):>7}"


def _share(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent in {0, 100} else f"{percent:.2g} %"
