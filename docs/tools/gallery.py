"""Writes docs/gallery.md and its pictures: every verb of motorvae explore on one model.

    python docs/tools/gallery.py RUN_OR_BUNDLE docs [--other RUN]

It is for models of the built-in vehicles, whose factors are known: examples are chosen by those.
What the verbs leave is kept in .scratch/gallery, and taken again for the same weights and options.
Needs the extras explore and umap, and train (of a run) or cpu (of a bundle).
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import gallery_sections as sections
import gallery_text as texts
import numpy as np
from gallery_sections import SCRATCH, Section, explored, key_of, write_picture
from gallery_vehicles import CANDIDATES, FIRST, drawn_vehicles, nearest

from motorvae.runtime.pixels.convert import input_from_pixels
from motorvae.runtime.sources.synthetic.bodies import sketch_from_factors
from motorvae.runtime.sources.synthetic.sketch import VehicleFactors
from motorvae.runtime.sources.synthetic.vehicles import factors_from_seed, painted
from motorvae.training.explore.factors.vehicles import seed_of_vehicles
from motorvae.training.explore.options import ModelOptions
from motorvae.training.explore.subject import Subject, open_subject

PALE = 0.8
"""Paint of a vehicle that is another one but for it."""
AVERAGED, ANIMATED = 8, 4
MOST_BYTES = 4_000_000


def main() -> None:
    """Explore, then write the page and its pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="a training run or a bundle")
    parser.add_argument("docs", type=Path, help="folder that gets gallery.md and gallery/")
    parser.add_argument("--other", type=Path, help="a run to compare it with")
    parser.add_argument("--count", type=int, default=1000, help="vehicles that factors draws")
    parser.add_argument("--method", choices=("umap", "tsne", "pca"), help="of the map")
    options = parser.parse_args()
    scratch = SCRATCH / key_of(options.model)
    with open_subject(ModelOptions(model=options.model)) as subject:
        examples = Examples(subject, scratch / "images")
        head = [f"# Gallery\n\n{texts.introduction(subject)}\n"]
    pictures = options.docs / "gallery"
    if pictures.is_dir():
        shutil.rmtree(pictures)
    pictures.mkdir(parents=True)
    parts = [*head, f"```sh\n{texts.own_command(options)}\n```\n", examples.explained()]
    for section in examples.sections(options):
        numbers, folder = explored(section, scratch)
        numbers |= section.more(numbers, folder)
        shown = []
        for source, name in section.pictures.items():
            files = [folder / one for one in source.format(**numbers).split()]
            write_picture(files, pictures / name)
            shown.append(f"[![{section.title}](gallery/{name})](gallery/{name})\n")
        parts += [f"## {section.title}\n", f"```sh\n{section.command}\n```\n"]
        parts += [section.text(numbers) + "\n", *shown]
    size = sum(path.stat().st_size for path in pictures.iterdir())
    if size > MOST_BYTES:
        raise SystemExit(f"{pictures} has {size} bytes, and may have {MOST_BYTES}: scale down")
    page = options.docs / "gallery.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    print(f"{page}, and {size / 1e6:.2f} MB of pictures")


class Examples:
    """Vehicles that the verbs are shown with, by their factors, and what is said of them."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject, self.folder = subject, folder
        self.model, self.is_run = subject.folder, subject.is_run
        # A bundle keeps a few images only.
        self.images = {} if self.is_run else {"images": "vehicles"}
        self.seed = seed_of_vehicles(subject, ModelOptions(**self.images))
        self.drawn = drawn_vehicles()
        self.vans = nearest(self.drawn, "van", 1)[:AVERAGED]
        self.van = self.vans[0]
        self.car = nearest(self.drawn, "car", 1, self.drawn[self.van])[0]
        self.bus = nearest(self.drawn, "bus", 1, self.drawn[self.car])[0]
        self.pickup = nearest(self.drawn, "pickup", -1)[0]
        folder.mkdir(parents=True, exist_ok=True)
        self.files = {}
        for name, row in {"van": self.van, "car": self.car, "bus": self.bus}.items():
            own = self.drawn[row]
            variants = {
                "right": own,
                "left": replace(own, heading=-1.0),
                "pale": replace(own, shade=PALE),
            }
            for variant, factors in variants.items():
                self.files[f"{name}-{variant}"] = self.rendered(f"{name}-{variant}", factors)

    def rendered(self, name: str, factors: VehicleFactors) -> str:
        """Draw a vehicle as the built-in ones are, into a file."""
        spec, path = self.subject.spec, self.folder / f"{name}.png"
        side = -(-max(spec.height, spec.width) // 32) * 32
        grey = spec.color == "grey"
        image = sketch_from_factors(factors).image(side) if grey else painted(factors, side, 0, 0)
        cv2.imwrite(str(path), image)
        return str(path)

    def explained(self) -> str:
        """Say which vehicles these are."""
        return (
            f"Vehicles that are no held-out images are of seed 0 from number {FIRST:,} on, which "
            "no training reaches, and none is there by luck: the van and the pickup are those of "
            f"{CANDIDATES} whose factors are nearest to the middle of all ranges, the car is the "
            "one nearest to that van, the bus the one nearest to that car. A mirrored one is drawn "
            "with the same factors but the heading. Click on a picture to see it larger.\n"
        )

    def sections(self, options: argparse.Namespace) -> list[Section]:
        """Return the whole page but its head."""
        of = {"model": self.model, **self.images}
        files = self.files
        vans = [f"vehicle:{row}" for row in self.vans]
        found = [
            sections.reconstructions(of),
            sections.samples(of),
            Section(
                "Traversals",
                "traversals",
                {**of, "image": f"vehicle:{self.car}", "dimensions": ANIMATED},
                f"motorvae explore traversals vehicle:{self.car} --dimensions {ANIMATED}",
                texts.traversals,
                {"{gifs}": "traversals.gif", "{sheets}": "traversals.jpg"},
                first_dimensions,
            ),
            Section(
                "Interpolation: turning round",
                "interpolate",
                {**of, "start": files["bus-right"], "end": files["bus-left"], "steps": 7},
                "motorvae explore interpolate bus-right.png bus-left.png --steps 7",
                lambda n: f"One bus, and the same one mirrored. {texts.interpolate(n)}",
                {
                    "interpolate.gif": "interpolate-turning.gif",
                    "interpolate.png": "interpolate-turning.jpg",
                },
            ),
            Section(
                "Interpolation: from a car to a bus",
                "interpolate",
                {**of, "start": f"vehicle:{self.car}", "end": f"vehicle:{self.bus}", "steps": 7},
                f"motorvae explore interpolate vehicle:{self.car} vehicle:{self.bus} --steps 7",
                lambda n: f"Two vehicles that face the same way. {texts.interpolate(n)}",
                {"interpolate.png": "interpolate-bodies.jpg"},
            ),
            self.arithmetic("pale", "in pale paint"),
            self.arithmetic("left", "that faces left"),
            Section(
                "Average",
                "average",
                {**of, "of": vans},
                f"motorvae explore average {' '.join(vans)}",
                texts.average,
                {"average.png": "average.jpg"},
            ),
            Section(
                "Neighbours",
                "neighbours",
                {**of, "image": f"vehicle:{self.pickup}", "count": 12},
                f"motorvae explore neighbours vehicle:{self.pickup}",
                texts.neighbours,
                {"neighbours.png": "neighbours.jpg"},
                self.alike,
            ),
            Section(
                "Map",
                "map",
                {**of, "method": options.method, "color_by": "body"},
                "motorvae explore map --color-by body",
                texts.latent_map,
                {"map.png": "map.jpg"},
            ),
            sections.factors(self.model, options.other, options.count, "runs/other"),
        ]
        if self.is_run:
            at = 8
            found.insert(
                at,
                sections.history(self.model),
            )
            if options.other:
                found.insert(
                    at + 1,
                    Section(
                        "Two runs compared",
                        "history",
                        {"runs": [self.model, options.other]},
                        "motorvae explore history runs/one runs/other",
                        texts.runs,
                        {"history.png": "history-two-runs.jpg"},
                    ),
                )
        return found

    def arithmetic(self, variant: str, words: str) -> Section:
        """Return the section of a van that is to be changed as a car is."""

        def text(numbers: texts.Numbers) -> str:
            return texts.arithmetic(numbers, words)

        def against_truth(_: texts.Numbers, folder: Path) -> texts.Numbers:
            with np.load(folder / "arithmetic.npz") as arrays:
                z = arrays["z"]
            with open_subject(ModelOptions(model=self.model)) as subject:
                wanted, given = (
                    subject.picture(self.files[name])[1][None]
                    for name in (f"van-{variant}", "van-right")
                )
                truth = input_from_pixels(wanted)
                against = {
                    "of_sum": subject.rebuild(z),
                    "of_reconstruction": subject.rebuild(subject.encode(wanted).mu),
                    "of_unchanged": subject.rebuild(subject.encode(given).mu),
                }
            return {name: float(np.square(one - truth).mean()) for name, one in against.items()}

        names = ("van-right", f"car-{variant}", "car-right")
        van, plus, minus = (self.files[name] for name in names)
        return Section(
            f"Arithmetic: a van {words}",
            "arithmetic",
            {"model": self.model, **self.images, "plus": [van, plus], "minus": [minus]},
            "motorvae explore arithmetic {}.png + {}.png - {}.png".format(*names),
            text,
            {"arithmetic.png": f"arithmetic-{variant}.jpg"},
            against_truth,
        )

    def alike(self, numbers: texts.Numbers, _: Path) -> texts.Numbers:
        """Return how many of the neighbours share body and heading with the image."""
        if self.seed is None:
            return {}
        found = [
            factors_from_seed(self.seed, int(one["name"].rpartition("-")[2]))
            for one in numbers["neighbours"]
        ]
        own = self.drawn[self.pickup]
        names = ("body", "heading")
        return {
            name: sum(getattr(one, name) == getattr(own, name) for one in found) for name in names
        }


def first_dimensions(numbers: texts.Numbers, _: Path) -> texts.Numbers:
    """Return the names of the files of the dimensions that do most."""
    ranking, kinds = numbers["ranking"], {"gifs": "gif", "sheets": "png"}
    digits = len(str(numbers["informative"] + numbers["collapsed"] - 1))
    names = [f"traversal-{one['dimension']:0{digits}d}" for one in ranking[:ANIMATED]]
    return {kind: " ".join(f"{name}.{end}" for name in names) for kind, end in kinds.items()}


if __name__ == "__main__":
    main()
