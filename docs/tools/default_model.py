"""Writes docs/default-model.md and its pictures: the card's network, trained long, and its figures.

    python docs/tools/default_model.py RUN docs --other OTHER

OTHER is a narrower model, a run or a bundle, whose factors are measured on the same images. What
the verbs leave is kept in .scratch/gallery, and taken again for the same weights and options. Needs
the extras train and explore.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from dataclasses import replace
from pathlib import Path

import gallery_sections as sections
import gallery_text as texts
from gallery_sections import SCRATCH, explored, key_of, write_picture

from motorvae.training.checkpoint import config_from_run

NAME = "default-model"


def main() -> None:
    """Explore, then write the page and its pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished training run")
    parser.add_argument("docs", type=Path, help=f"folder that gets {NAME}.md and {NAME}/")
    parser.add_argument("--other", type=Path, required=True, help="a run or bundle of another")
    parser.add_argument("--count", type=int, default=1000, help="vehicles that factors draws")
    options = parser.parse_args()
    pictures = options.docs / NAME
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    write_picture([options.run / "loss.png"], pictures / "loss.jpg")
    config = config_from_run(options.run)
    parts = [
        "# The default model, trained\n",
        f"The network of the model card, {', '.join(map(str, config.model.channels or ()))} "
        f"channels, on {config.data.train:,} built-in vehicles. [Training](training.md) has what "
        "`--recipe fast` is, and what was measured of it; the [gallery](gallery.md) has the narrow "
        "model that comes with the package. The weights of this one are too large to come with "
        "it: this is the command that makes them.\n",
        f"```sh\n{texts.training_command(config.options)}\n```\n",
        "This page and its pictures are made by\n",
        f"```sh\npython docs/tools/{NAME.replace('-', '_')}.py runs/{options.run.name} docs "
        f"--other {as_typed(options.other)}\n```\n",
        "## As it went\n",
        epochs_of(options.run),
        f"\n[![Losses]({NAME}/loss.jpg)]({NAME}/loss.jpg)\n",
    ]
    shown = [
        replace(sections.history(options.run), pictures={"history.png": "history.jpg"}),
        sections.reconstructions({"model": options.run}),
        sections.samples({"model": options.run}),
        sections.factors(options.run, options.other, options.count, as_typed(options.other)),
    ]
    for section in shown:
        numbers, folder = explored(section, SCRATCH / key_of(options.run))
        parts += [f"## {section.title}\n", f"```sh\n{section.command}\n```\n"]
        parts.append(section.text(numbers) + "\n")
        for source, name in section.pictures.items():
            write_picture([folder / source], pictures / name)
            parts.append(f"[![{section.title}]({NAME}/{name})]({NAME}/{name})\n")
    page = options.docs / f"{NAME}.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    print(f"{page}, and {sum(one.stat().st_size for one in pictures.iterdir())} bytes of pictures")


def as_typed(path: Path) -> str:
    """Return a path for a page: of absolute ones the name."""
    return path.name if path.is_absolute() else path.as_posix()


def epochs_of(run: Path) -> str:
    """Return a table of the epochs of a run."""
    names = {
        "epoch": ("epoch", "{:.0f}"),
        "steps": ("steps", "{:.0f}"),
        "elapsed_s": ("minutes", "{:.0f}"),
        "train_reconstruction": ("squared error in training", "{:.1f}"),
        "held_out_reconstruction": ("held out", "{:.1f}"),
        "held_out_kl": ("KL, nats", "{:.0f}"),
        "active_units": ("active units", "{:.0f}"),
    }
    lines = [
        f"| {' | '.join(title for title, _ in names.values())} |",
        "|" + " ---: |" * len(names),
    ]
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            row["elapsed_s"] = str(float(row["elapsed_s"]) / 60)
            cells = [form.format(float(row[name])) for name, (_, form) in names.items()]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
