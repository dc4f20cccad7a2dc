"""Draws docs/equal-time.jpg: the same vehicles after equal time of training, three ways.

    python docs/tools/equal_time.py docs [--minutes 2] [--threads 2]

The demo's loop before there were recipes, `--recipe fast` from random weights, and the same from
the model that comes with the package. Vehicles are two of each body that no training had, those
nearest to the middle of all ranges of their factors. Prints a table, and writes equal-time.json
beside the results. Needs the extra train.
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
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from motorvae.runtime.pixels.convert import input_from_pixels
from motorvae.runtime.sources.synthetic.bodies import BODIES
from motorvae.runtime.sources.synthetic.vehicles import RANGES, factors_from_seed
from motorvae.training.checkpoint import model_from_checkpoint
from motorvae.training.dataset import vehicle_for

NARROW = "--channels 16 32 64 128 256"
WAYS = {
    "before": f"{NARROW} --learning-rate 5e-4 --batch-size 8",
    "--recipe fast": f"{NARROW} --recipe fast",
    "on from vehicles": "--pretrained vehicles --recipe fast --learning-rate 0.004",
}
FIRST, CANDIDATES, EACH = 500_000_000, 600, 2
TITLE_WIDTH, SIDE, GAP = 190, 160, 4


def main() -> None:
    """Train three times, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("docs", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    images: npt.NDArray[np.float32] | None = None
    rows: dict[str, npt.NDArray[np.float32]] = {}
    figures: dict[str, Any] = {}
    for way, words in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            command = [
                *(str(Path(sys.executable).parent / "motorvae-train"), "vehicles"),
                *("--vehicles-count", "1500", "--steps", "100000", "--output", folder),
                *("--minutes", f"{options.minutes:g}", "--threads", str(options.threads)),
                *("--name", "run", *words.split()),
            ]
            subprocess.run(command, check=True, capture_output=True)
            run = Path(folder) / "run"
            model, config = model_from_checkpoint(run)
            with (run / "metrics.csv").open(encoding="utf-8") as file:
                *_, last = csv.DictReader(file)
        if images is None:
            pixels = [vehicle_for(config.model, 0, row) for row in chosen()]
            images = input_from_pixels(np.stack(pixels))
            rows["original"] = images
        with torch.inference_mode():
            mu, _ = model.eval().encode(torch.from_numpy(images))
            rows[way] = model.decode(mu).numpy()
        names = ("steps", "elapsed_s", "held_out_reconstruction", "held_out_kl")
        figures[way] = {"options": words, **{name: float(last[name]) for name in names}}
        error = float(np.square(rows[way].astype(np.float64) - images).mean())
        figures[way]["mean_squared_error_shown"] = error
        print(way, figures[way], flush=True)
    drawn(rows).save(options.docs / "equal-time.jpg", quality=85, optimize=True)
    document = {"minutes": options.minutes, "threads": options.threads, "ways": figures}
    results = options.docs / "results" / "equal-time.json"
    results.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def chosen() -> list[int]:
    """Return the numbers of the vehicles that are shown."""
    found = []
    for body in BODIES:
        away = {}
        for row in range(FIRST, FIRST + CANDIDATES):
            factors = factors_from_seed(0, row)
            if factors.body == body:
                ranges = RANGES[body].items()
                place = [(getattr(factors, name) - a) / (b - a) for name, (a, b) in ranges]
                away[row] = float(np.square(np.array(place) - 0.5).sum())
        found += sorted(away, key=away.__getitem__)[:EACH]
    return found


def drawn(rows: dict[str, npt.NDArray[np.float32]]) -> Image.Image:
    """Return rows (N, 1, S, S) of images in [0, 1] below each other, with their names."""
    count = len(next(iter(rows.values())))
    step = SIDE + GAP
    sheet = Image.new("L", (TITLE_WIDTH + count * step, len(rows) * step), 255)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(20)
    for line, (name, images) in enumerate(rows.items()):
        pen.text((8, line * step + SIDE // 2 - 10), name, fill=0, font=font)
        for place, image in enumerate(images[:, 0]):
            tile = Image.fromarray(np.rint(image * 255).astype(np.uint8))
            tile = tile.resize((SIDE, SIDE), Image.Resampling.BOX)
            at = (TITLE_WIDTH + place * step, line * step)
            sheet.paste(tile, at)
            pen.rectangle((*at, at[0] + SIDE - 1, at[1] + SIDE - 1), outline=150)
    return sheet


if __name__ == "__main__":
    main()
