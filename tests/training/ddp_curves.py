"""The loss curves of one process and of two that share its batch, as a table for a page.

    python tests/training/ddp_curves.py docs/results/ddp-curves.json

Each run is a real one, started as a user would, the two processes by torchrun on the CPU.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

if __package__ is None or not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.training import rank_callbacks
from tests.training.processes import COMMAND, SMALL, environment, torchrun

EPOCHS = ("--epochs", "4", "4")
FIXED = ("--callback", "rank_callbacks:FixedBatchNorm")
COLUMNS = ("train_loss", "held_out_loss")


def curve(here: Path, name: str, processes: int, *options: str) -> list[dict[str, float]]:
    size = ("--batch-size", str(16 // processes))
    own = (*SMALL, *size, *EPOCHS, "--name", name, *options)
    command = torchrun(processes, *own) if processes > 1 else [*COMMAND, *own, "--threads", "1"]
    subprocess.run(command, cwd=here, env=environment(), check=True)
    with (here / "runs" / name / "metrics.csv").open(newline="") as file:
        return [{one: float(row[one]) for one in COLUMNS} for row in csv.DictReader(file)]


def main(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        shutil.copy(rank_callbacks.__file__, here)
        curves = {
            "one process, batch norm fixed": curve(here, "one-fixed", 1, *FIXED),
            "two processes, batch norm fixed": curve(here, "two-fixed", 2, *FIXED),
            "one process": curve(here, "one", 1),
            "two processes, batch norm in each": curve(here, "two", 2),
        }
    document = {"command": f"python {sys.argv[0]} {path}", "torch": torch.__version__}
    path.write_text(json.dumps(document | {"curves": curves}, indent=1) + "\n")
    print("| epoch |", " | ".join(f"{name}: train, held out" for name in curves), "|")
    print("| ---: |" + " ---: |" * len(curves))
    for epoch, rows in enumerate(zip(*curves.values(), strict=True), 1):
        cells = [" ".join(f"{row[name]:.6f}" for name in COLUMNS) for row in rows]
        print(f"| {epoch} |", " | ".join(cells), "|")
    for one, two in zip(list(curves)[::2], list(curves)[1::2], strict=True):
        most = max(
            abs(b[name] / a[name] - 1)
            for a, b in zip(curves[one], curves[two], strict=True)
            for name in COLUMNS
        )
        print(f"largest relative difference between {one} and {two}: {most:.2g}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
