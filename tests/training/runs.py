"""What tests of training share: how a run is interrupted, and what it left."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from pathlib import Path

from motorvae.training.checkpoint import KeptWeights

OnLoss = Callable[[int, Callable[[], object]], None]


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def power_cut() -> None:
    raise RuntimeError("power cut")


def weights_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def kept_in(folder: Path) -> KeptWeights:
    return KeptWeights.model_validate_json((folder / "weights.json").read_text())


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "elapsed_s"}
            for row in csv.DictReader(file)
        ]


def tree_of(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
    }
