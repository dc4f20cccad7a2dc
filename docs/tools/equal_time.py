"""Draws docs/equal-time.jpg: the same vehicles after equal time of training, three ways.

    python docs/tools/equal_time.py docs [--minutes 2] [--threads 2]

The demo's loop before there were recipes, `--recipe fast` from random weights, and the same from
the model that comes with the package. Vehicles are two of each body that no training had, those
nearest to the middle of all ranges of their factors. Prints a table, and writes equal-time.json
beside the results. Needs the extras train and explore.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gallery_vehicles import drawn_vehicles, nearest

from motorvae.runtime.pixels.convert import input_from_pixels
from motorvae.runtime.sources.synthetic.bodies import BODIES
from motorvae.training.dataset import vehicle_for
from motorvae.training.explore.options import ModelOptions
from motorvae.training.explore.sheets import Row, sheet_of
from motorvae.training.explore.subject import open_subject

NARROW = "--channels 16 32 64 128 256"
WAYS = {
    "before": f"{NARROW} --learning-rate 5e-4 --batch-size 8",
    "--recipe fast": f"{NARROW} --recipe fast",
    "on from vehicles": "--pretrained vehicles --recipe fast --learning-rate 0.004",
}
EACH, MOST_CELL = 2, 160


def main() -> None:
    """Train three times, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("docs", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=1500, help="vehicles to train on")
    options = parser.parse_args()
    drawn = drawn_vehicles()
    numbers = [row for body in BODIES for row in nearest(drawn, body)[:EACH]]
    rows: list[Row] = []
    figures: dict[str, Any] = {}
    for way, words in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            command = [
                *(str(Path(sys.executable).parent / "motorvae-train"), "vehicles"),
                *("--vehicles-count", str(options.count), "--steps", "100000", "--output", folder),
                *("--minutes", f"{options.minutes:g}", "--threads", str(options.threads)),
                *("--name", "run", *words.split()),
            ]
            subprocess.run(command, check=True, capture_output=True)
            run = Path(folder) / "run"
            with open_subject(ModelOptions(model=run)) as subject:
                spec = subject.spec
                pictures = np.stack([vehicle_for(spec, 0, row) for row in numbers])
                found = subject.rebuild(subject.encode(pictures).mu)
                rows = rows or [Row(list(pictures), label="original")]
                rows.append(Row(list(subject.levels(found)), label=way))
            with (run / "metrics.csv").open(encoding="utf-8") as file:
                *_, last = csv.DictReader(file)
        names = ("steps", "elapsed_s", "held_out_reconstruction", "held_out_kl")
        figures[way] = {"options": words, **{name: float(last[name]) for name in names}}
        error = float(np.square(found.astype(np.float64) - input_from_pixels(pictures)).mean())
        figures[way]["mean_squared_error_shown"] = error
        print(way, figures[way], flush=True)
    sheet = sheet_of(rows, spec.color, most_cell=MOST_CELL)
    sheet.save(options.docs / "equal-time.jpg", quality=85, optimize=True)
    document = {"minutes": options.minutes, "threads": options.threads, "ways": figures}
    results = options.docs / "results" / "equal-time.json"
    results.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
