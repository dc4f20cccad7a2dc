"""What a training run left of its epochs: metrics, and the same images reconstructed."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ....runtime.core.documents import bytes_of_file, json_from_file
from ....runtime.core.errors import CheckpointError, MotorVAEError
from ....runtime.core.text import printable

METRICS = "metrics.csv"
_KEPT = "weights.json"
_MOST_BYTES = 64 << 20
_NEEDED = (
    *("epoch", "stage", "steps", "elapsed_s", "active_units"),
    *("held_out_reconstruction", "held_out_kl", "held_out_total", "train_total"),
)
_AGAIN = "name a run that motorvae-train wrote"


@dataclass(frozen=True)
class RunHistory:
    """One run's epochs.

    Attributes:
        folder: The run's.
        name: What to call it.
        rows: Its metrics, an epoch each, from the first on; see `docs/training.md`.
        best: Which of the rows is that of the weights that the export takes.
        pictures: Of epochs that left one, the epoch and the file: held-out images above their
            reconstructions.
        is_finished: Whether it has weights.
    """

    folder: Path
    name: str
    rows: tuple[dict[str, float], ...]
    best: dict[str, float]
    pictures: tuple[tuple[int, Path], ...]
    is_finished: bool

    def row_of(self, epoch: int) -> dict[str, float] | None:
        """Return the metrics of an epoch, if there are any."""
        return next((row for row in self.rows if row["epoch"] == epoch), None)


def history_of_run(folder: Path) -> RunHistory:
    """Read a run's metrics; no torch is needed. A CheckpointError where there are none."""
    if not folder.is_dir():
        raise CheckpointError(f"no training run at {folder}: make one with motorvae-train")
    path = folder / METRICS
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {METRICS}: {_AGAIN}, and whose first epoch is over")
    rows = metrics_from_csv(path)
    found = [
        (int(name[1]), picture)
        for picture in (folder / "reconstructions").glob("epoch-*.png")
        if (name := re.fullmatch(r"epoch-(\d{1,9})\.png", picture.name))
    ]
    return RunHistory(
        folder,
        printable(folder.resolve().name),
        rows,
        _best_of(folder, rows),
        tuple(sorted(found)),
        (folder / "model.safetensors").is_file(),
    )


def names_of(histories: list[RunHistory]) -> list[str]:
    """Return names of runs that differ, with as much of their folders as that takes."""
    names = [one.name for one in histories]
    for parts in range(2, 8):
        if len({*names}) == len(names):
            break
        paths = [one.folder.resolve().parts[-parts:] for one in histories]
        names = [printable("/".join(one)) for one in paths]
    return names


def metrics_from_csv(
    path: Path, *, needed: Sequence[str] = _NEEDED
) -> tuple[dict[str, float], ...]:
    """Read a run's `metrics.csv`, an epoch a row; a CheckpointError where it is no such table."""
    data = bytes_of_file(path, most_bytes=_MOST_BYTES, error=CheckpointError, again=_AGAIN)
    try:
        lines = list(csv.DictReader(data.decode("utf-8").splitlines()))
        rows = tuple({name: float(value) for name, value in line.items()} for line in lines)
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise CheckpointError(f"{path} is no table of numbers: {_AGAIN}") from error
    if not rows:
        raise CheckpointError(f"{path} has no epoch: {_AGAIN}")
    if lacking := [name for name in needed if name not in rows[0]]:
        raise CheckpointError(f"{path} has no column {lacking[0]}: {_AGAIN}")
    return rows


def _best_of(folder: Path, rows: tuple[dict[str, float], ...]) -> dict[str, float]:
    """Return the row of the weights that are kept as the best, or that would be by now."""
    try:
        again = "train again"
        kept = json_from_file(folder / _KEPT, error=CheckpointError, again=again)
        epoch = kept["best"]["epoch"]
        return next(row for row in rows if row["epoch"] == epoch)
    except (MotorVAEError, LookupError, TypeError, StopIteration):
        pass  # it is not finished, or an earlier version wrote it
    last = [row for row in rows if row["stage"] == rows[-1]["stage"]]
    # As training chooses it: by what it minimises, which an earlier version did not tell apart.
    losses = [row.get("held_out_loss", row["held_out_total"]) for row in last]
    return last[min(range(len(last)), key=lambda at: (not math.isfinite(losses[at]), losses[at]))]
